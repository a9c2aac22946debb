//! The part of a running server's configuration that it publishes: where it is to be asked, and how. A
//! file that was edited since, and may be wrong by now, cannot tell.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::problem::Problems;
use super::sources::{FileSource, Sources};
use super::{ClientAuth, Config, resolve};

/// User agent of `ferricorn healthcheck`.
pub(crate) const HEALTHCHECK_AGENT: &str = "ferricorn-healthcheck";

/// The name of the file in memory that holds it.
pub(crate) const PUBLISHED: &str = "ferricorn-published";

impl Config {
    /// The text that is published for a server that listens at `addresses` and whose control socket is
    /// at `control`; `None` without a file, which is what servers are told apart by.
    pub(crate) fn published(&self, addresses: &[String], control: &str) -> Option<String> {
        let address = |name| {
            let address =
                ["http://", "https://"].iter().find_map(|scheme| str::strip_prefix(name, scheme));
            address.unwrap_or(name)
        };
        // Where each address speaks TLS none is named for that.
        let is_mixed = !self.tls.bind.is_empty();
        let (tls, plain): (Vec<&String>, Vec<&String>) =
            addresses.iter().partition(|name| is_mixed && name.starts_with("https://"));
        let plain: Vec<&str> = plain.into_iter().map(|name| address(name)).collect();
        let tls: Vec<&str> = tls.into_iter().map(|name| address(name)).collect();
        let trusted: Vec<String> = self.proxy_allow_ips.iter().map(ToString::to_string).collect();
        let mut text = first_line(&self.sources.file_path()?);
        let mut put = |key: &str, value: serde_json::Value| {
            text.push_str(&format!("{key} = {value}\n"));
        };
        put("bind", json!(plain));
        put("proxy_protocol", json!(self.proxy_protocol));
        put("proxy_allow_ips", json!(trusted));
        put("control", json!(control));
        put("health.live", json!(self.health.live));
        put("health.ready", json!(self.health.ready));
        if self.tls.is_on() {
            if !tls.is_empty() {
                put("tls.bind", json!(tls));
            }
            put("tls.certificate", json!(self.tls.certificate));
            put("tls.key", json!(self.tls.key));
            if let Some(authority) = &self.tls.client_ca {
                put("tls.client_ca", json!(authority));
            }
            put("tls.client_auth", json!(ClientAuth::WORDS.get(self.tls.client_auth as usize)));
        }
        Some(text)
    }
}

/// The settings by which a client finds a running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientSettings {
    /// `auto`, the path of the control socket, or empty.
    pub(crate) control: String,
    pub(crate) pidfile: Option<PathBuf>,
}

impl ClientSettings {
    /// Reads them from these sources, whatever else is wrong in them: a server with an invalid file can
    /// be asked, too.
    pub(crate) fn read(sources: &Sources) -> Self {
        let resolved = resolve::resolve(sources, &mut Problems::default());
        let text = |key| resolved.get::<String>(key).unwrap_or_default();
        let in_folder = |file: &str| {
            let folder = sources.folder.join(text("chdir"));
            (!file.is_empty()).then(|| folder.join(file))
        };
        let control = text("control");
        let control = match control.as_str() {
            "auto" | "" => control,
            path => in_folder(path)
                .and_then(|path| path.to_str().map(str::to_owned))
                .unwrap_or_default(),
        };
        // A pid instead of the file that holds it is no path below a folder.
        let pidfile = text("pidfile");
        let is_pid = pidfile.parse::<i32>().is_ok();
        let pidfile = if is_pid { Some(pidfile.into()) } else { in_folder(&pidfile) };
        Self { control, pidfile }
    }
}

impl Sources {
    /// The same with a published text for the file, unless another file's server published it.
    pub(crate) fn as_published(&self, text: &str) -> Option<Self> {
        let path = self.file_path()?;
        let own = text.starts_with(&first_line(&path)) || is_same(text, &path);
        own.then(|| Self { file: FileSource::Text(text.to_owned()), ..self.clone() })
    }

    /// The absolute path of the file.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        match &self.file {
            FileSource::None | FileSource::Text(_) => None,
            // Without its dots: `./config.toml` is `config.toml`.
            FileSource::Optional(path) | FileSource::Required(path) => {
                Some(self.folder.join(path).components().collect())
            }
        }
    }
}

/// Returns true if the published text is about this file by another name, such as a link's.
fn is_same(text: &str, path: &Path) -> bool {
    let named = text.lines().next().and_then(|line| line.strip_prefix("# "));
    let named: Option<PathBuf> = named.and_then(|quoted| serde_json::from_str(quoted).ok());
    let [there, here] =
        [named.as_deref(), Some(path)].map(|path| std::fs::canonicalize(path?).ok());
    there.is_some() && there == here
}

/// Which file it is about.
fn first_line(file: &Path) -> String {
    format!("# {file:?}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(file: &str) -> Sources {
        let file = FileSource::Optional(file.into());
        Sources { file, folder: "/srv".into(), app: Some(&[]), ..Sources::none() }
    }

    #[test]
    fn what_is_published_is_a_configuration_of_the_same_file_alone() {
        let asked = sources("./a.toml");
        let mut config = Config::load(sources("a.toml")).unwrap();
        config.proxy_protocol = true;
        let text =
            config.published(&["http://[::1]:80".into(), "unix:/run/a".into()], "auto").unwrap();
        assert_eq!(
            text,
            "# \"/srv/a.toml\"\n\
             bind = [\"[::1]:80\",\"unix:/run/a\"]\n\
             proxy_protocol = true\n\
             proxy_allow_ips = [\"127.0.0.1\",\"::1\"]\n\
             control = \"auto\"\n\
             health.live = \"/healthz\"\nhealth.ready = \"/readyz\"\n"
        );
        config.tls.certificate = vec!["a.crt".into()];
        config.tls.key = vec!["a.key".into()];
        config.tls.bind = vec![config.bind[0].clone()];
        let both = config.published(&["http://[::1]:80".into(), "https://[::1]:443".into()], "");
        let read = Config::load(asked.as_published(&both.unwrap()).unwrap()).unwrap();
        let shown = |binds: &[super::super::Bind]| binds[0].to_string();
        assert_eq!([shown(&read.bind), shown(&read.tls.bind)], ["[::1]:80", "[::1]:443"]);
        let read = Config::load(asked.as_published(&text).unwrap()).unwrap();
        assert_eq!(read.bind[1].to_string(), "unix:/run/a");
        assert!(read.proxy_protocol);
        assert!(sources("b.toml").as_published(&text).is_none());
        assert!(Sources::none().as_published(&text).is_none());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.toml"), "").unwrap();
        std::os::unix::fs::symlink("a.toml", folder.path().join("link.toml")).unwrap();
        let [file, link] = ["a.toml", "link.toml"].map(|name| {
            let path = folder.path().join(name);
            sources(path.to_str().unwrap())
        });
        let text = Config::load(file).unwrap().published(&[], "").unwrap();
        assert!(link.as_published(&text).is_some());
    }
}
