//! A configuration that is read again, by the server that runs or by the image that takes over from it.

use std::fs;
use std::path::Path;

use super::*;

fn sources(folder: &Path) -> Sources {
    let file = FileSource::Required("config.toml".into());
    Sources { file, folder: folder.to_owned(), app: Some(&[]), ..Sources::none() }
}

fn values(config: &Config) -> Vec<(&'static str, String)> {
    config.shown().map(|shown| (shown.key, shown.value)).collect()
}

#[test]
fn another_image_adopts_what_was_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("more.env", "ONE=1\nFERRICORN_TIMEOUT=7.5s\n");
    let old = "bind = ['127.0.0.1:0', 'admin=127.0.0.1:0', 'unix:/a,b.sock', '[::1]:0']\nworkers = 'auto'\n\
               env_file = 'more.env'\nenv = ['TWO=a, \"b\"']\numask = '027'\nmax_memory = '64MiB'\n\
               [log]\nerror = ''\naccess_format = '%(h)s \\ \"%(r)s\"'\n\
               [limits]\nbody = 12345\n";
    write("config.toml", old);
    let before = Config::load(sources(folder.path())).unwrap();
    write("config.toml", "workers = 3\n");
    let today = Config::load(sources(folder.path())).unwrap();
    let adopted = today.adopt(before.hand_over());
    assert_eq!(adopted.bind, before.bind);
    assert_eq!((adopted.workers, adopted.timeout), (before.workers, before.timeout));
    assert_eq!(adopted.env, before.env);
    assert_eq!(adopted.env[2].1, "a, \"b\"");
    let folded = ["env", "env_file", "workers"];
    let rest = |config| values(config).into_iter().filter(|(key, _)| !folded.contains(key));
    assert!(rest(&adopted).eq(rest(&before)), "{adopted:?} is not {before:?}");
    // What is read next is the file of today.
    assert_eq!(values(&adopted.reload().unwrap()), values(&today));
}

/// The image before may know other settings, and other values of those that are left.
#[test]
fn what_this_version_would_refuse_is_not_adopted() {
    let today = Config::default();
    let adopted = today.adopt("wokers = 9\nthreads = 0\nworkers = 2\n[what]\na = 1\n".to_owned());
    assert_eq!((adopted.workers, adopted.threads), (2, today.threads));
}

/// No such name can be looked up (RFC 6761): only a known one is no error.
#[test]
fn a_host_name_that_is_known_is_not_looked_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let bind = Bind::from(BindAddress::Tcp("127.0.0.1:80".parse().unwrap()));
    fs::write(folder.path().join("config.toml"), "bind = 'host.invalid:80'\n").unwrap();
    let binds = vec![("host.invalid:80".to_owned(), vec![bind.clone()])];
    let config = Config::load(Sources { binds, ..sources(folder.path()) }).unwrap();
    assert_eq!(config.bind, std::slice::from_ref(&bind));
    assert_eq!(config.reload().unwrap().bind, [bind]);
}

/// A pipe would make a server wait, and is empty when it is read again; a socket stands for it here.
#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("pipe")).unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, "env_file = '/dev/null'\n").unwrap();
    let before = Config::load(sources(folder.path())).unwrap();
    let reason = "failed to read: it is no regular file, and is read more than once";
    fs::write(&config, "env_file = 'pipe'\n").unwrap();
    let refused = before.reload().unwrap_err().to_string();
    assert_eq!(refused, format!("config.toml:1: env_file: pipe: {reason}"));
    fs::rename(folder.path().join("pipe"), &config).unwrap();
    assert_eq!(before.reload().unwrap_err().to_string(), format!("config.toml: {reason}"));
}

/// It is the master by now: a silent resolver would keep it from reaping and stopping.
#[test]
fn image_that_takes_over_asks_no_resolver() {
    let folder = tempfile::tempdir().unwrap();
    let text = "bind = ['nowhere.invalid:80', '127.0.0.1:0']";
    fs::write(folder.path().join("config.toml"), text).unwrap();
    let load = |names: &[&str]| {
        let variable = |name: &&str| environment::Variable {
            name: (*name).to_owned(),
            text: Some("13".to_owned()),
            line: None,
        };
        let environment = names.iter().map(variable).collect();
        Config::load(Sources { environment, ..sources(folder.path()) })
    };
    let config = load(&[STATE_VARIABLE]).unwrap();
    let shown = |config: &Config| config.bind.iter().map(Bind::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&config), ["127.0.0.1:0"]);
    // The reload that follows asks.
    assert_eq!(config.draft().names(), ["nowhere.invalid:80"]);
    assert!(config.reload().unwrap_err().to_string().contains("failed to resolve"));
    // A check is another process.
    for names in [&[][..], &[CHECK_VARIABLE, STATE_VARIABLE]] {
        assert!(load(names).unwrap_err().to_string().contains("failed to resolve"), "{names:?}");
    }
}
