//! What a running server lets be known of its configuration: where it is to be asked, and how. A
//! file that was edited since, and may be wrong by now, cannot tell.

use std::path::PathBuf;

use serde::Serialize;

use super::Config;
use super::sources::{FileSource, Sources};

/// What the file in memory is called that holds it.
pub(crate) const PUBLISHED: &str = "ferricorn-published";

/// The settings of a health check's question, as a configuration file has them.
#[derive(Serialize)]
struct Published<'a> {
    bind: Vec<&'a str>,
    proxy_protocol: bool,
    proxy_allow_ips: Vec<String>,
}

impl Config {
    /// The text that is published for a server that listens at `addresses`; `None` without a file,
    /// which is what servers are told apart by.
    pub(crate) fn published(&self, addresses: &[String]) -> Option<String> {
        let address = |name| str::strip_prefix(name, "http://").unwrap_or(name);
        let settings = Published {
            bind: addresses.iter().map(|name| address(name)).collect(),
            proxy_protocol: self.proxy_protocol,
            proxy_allow_ips: self.proxy_allow_ips.iter().map(ToString::to_string).collect(),
        };
        let file = self.sources.file_path()?;
        Some(format!("{}{}", first_line(&file), toml::to_string(&settings).ok()?))
    }
}

impl Sources {
    /// The same with a published text for the file, unless another file's server published it.
    pub(crate) fn as_published(&self, text: &str) -> Option<Self> {
        let own = text.starts_with(&first_line(&self.file_path()?));
        own.then(|| Self { file: FileSource::Text(text.to_owned()), ..self.clone() })
    }

    /// The file, whatever folder one stands in.
    fn file_path(&self) -> Option<PathBuf> {
        match &self.file {
            FileSource::None | FileSource::Text(_) => None,
            // Without its dots: `./config.toml` is `config.toml`.
            FileSource::Optional(path) | FileSource::Required(path) => {
                Some(self.folder.join(path).components().collect())
            }
        }
    }
}

/// Which file it is about.
fn first_line(file: &std::path::Path) -> String {
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
        let text = config.published(&["http://[::1]:80".into(), "unix:/run/a".into()]).unwrap();
        assert_eq!(
            text,
            "# \"/srv/a.toml\"\n\
             bind = [\"[::1]:80\", \"unix:/run/a\"]\n\
             proxy_protocol = true\n\
             proxy_allow_ips = [\"127.0.0.1\", \"::1\"]\n"
        );
        let read = Config::load(asked.as_published(&text).unwrap()).unwrap();
        assert_eq!(read.bind[1].to_string(), "unix:/run/a");
        assert!(read.proxy_protocol);
        assert!(sources("b.toml").as_published(&text).is_none());
        assert!(Sources::none().as_published(&text).is_none());
    }
}
