//! Addresses to listen on, as they are written.
//!
//! A host name may stand for several addresses, so that reading one text gives several binds. That
//! asks the resolver; [`check`] judges the form alone and asks nobody.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// The longest path of a unix socket: `sun_path` has 108 bytes, the last of them zero (unix(7)).
const UNIX_PATH_MAX_BYTES: usize = 107;
/// The first descriptor that is not a standard stream (`SD_LISTEN_FDS_START`, `sd_listen_fds(3)`).
const FIRST_INHERITED_FD: i32 = 3;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `host:port`, `[v6]:port`, `:port`. `[::]` takes IPv4 too where the kernel's default
    /// (`net.ipv6.bindv6only`) says so.
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
    /// `fd://N`
    Fd(i32),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(fd) => write!(f, "fd://{fd}"),
        }
    }
}

/// Every bind that the text stands for: one, or one for each address of a host name.
pub(super) fn parse(text: &str) -> Result<Vec<Bind>, String> {
    match read(text)? {
        Form::Whole(bind) => Ok(vec![bind]),
        Form::Named { host, port } => resolve(host, port),
    }
}

/// Whether the text has the form of a bind.
pub(super) fn check(text: &str) -> Result<(), String> {
    read(text).map(drop)
}

/// What a text is before the resolver is asked.
enum Form<'a> {
    Whole(Bind),
    Named { host: &'a str, port: u16 },
}

fn read(text: &str) -> Result<Form<'_>, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(Form::Whole);
    }
    if let Some(number) = text.strip_prefix("fd://") {
        return fd(number).map(Form::Whole);
    }
    let wrong = || {
        format!(
            "expected \"host:port\", \":port\", \"[v6]:port\", \"unix:/path\" or \"fd://3\", \
             found {text:?}"
        )
    };
    // gunicorn accepts the scheme, too.
    let address = text.strip_prefix("tcp://").unwrap_or(text);
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(Form::Whole(Bind::Tcp(address)));
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        return Ok(Form::Whole(Bind::Tcp(SocketAddr::new(any, port))));
    }
    // What looks like a wrong address must not be looked up as a name.
    let letter = host.bytes().any(|byte| byte.is_ascii_alphabetic());
    let name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if letter && name { Ok(Form::Named { host, port }) } else { Err(wrong()) }
}

fn unix(path: &str) -> Result<Bind, String> {
    // gunicorn accepts `unix:///path`, too.
    let path = if path.starts_with("///") { &path[2..] } else { path };
    if path.is_empty() {
        return Err("expected a path after \"unix:\", found nothing".to_owned());
    }
    if UNIX_PATH_MAX_BYTES < path.len() {
        let length = path.len();
        return Err(format!(
            "expected a path of at most {UNIX_PATH_MAX_BYTES} bytes, found {length}: {path:?}"
        ));
    }
    Ok(Bind::Unix(PathBuf::from(path)))
}

fn fd(number: &str) -> Result<Bind, String> {
    match number.parse() {
        Ok(fd) if FIRST_INHERITED_FD <= fd => Ok(Bind::Fd(fd)),
        Ok(_) | Err(_) => Err(format!(
            "expected a descriptor from {FIRST_INHERITED_FD} on, found \"fd://{number}\""
        )),
    }
}

fn resolve(host: &str, port: u16) -> Result<Vec<Bind>, String> {
    let failed = |why: &dyn fmt::Display| format!("failed to resolve {host:?}: {why}");
    let addresses = (host, port).to_socket_addrs().map_err(|error| failed(&error))?;
    let mut binds: Vec<Bind> = Vec::new();
    for bind in addresses.map(Bind::Tcp) {
        if !binds.contains(&bind) {
            binds.push(bind);
        }
    }
    if binds.is_empty() { Err(failed(&"it has no address")) } else { Ok(binds) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(text: &str) -> Vec<Bind> {
        vec![Bind::Tcp(text.parse().unwrap())]
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(parse("0.0.0.0:5000").unwrap(), tcp("0.0.0.0:5000"));
        assert_eq!(parse(":5000").unwrap(), tcp("0.0.0.0:5000"));
        assert_eq!(parse("[::]:5000").unwrap(), tcp("[::]:5000"));
        assert_eq!(parse("tcp://[::1]:80").unwrap(), tcp("[::1]:80"));
        assert_eq!(parse("unix:/run/a.sock").unwrap(), [Bind::Unix("/run/a.sock".into())]);
        assert_eq!(parse("unix:///run/a.sock").unwrap(), [Bind::Unix("/run/a.sock".into())]);
        assert_eq!(parse("unix:a.sock").unwrap(), [Bind::Unix("a.sock".into())]);
        assert_eq!(parse("fd://3").unwrap(), [Bind::Fd(3)]);
        let local = parse("localhost:5000").unwrap();
        assert!(!local.is_empty());
        for bind in local {
            let Bind::Tcp(address) = bind else { panic!("{bind}") };
            assert!(address.ip().is_loopback() && address.port() == 5000, "{address}");
        }
    }

    #[test]
    fn what_is_no_bind_is_refused_in_words() {
        for wrong in ["", "5000", "0.0.0.0", "::1", "::1:x", "a b:1", "1.2.3:80", "h:65536", "[::]"]
        {
            let text = parse(wrong).unwrap_err();
            assert_eq!(
                text,
                format!(
                    "expected \"host:port\", \":port\", \"[v6]:port\", \"unix:/path\" or \
                     \"fd://3\", found {wrong:?}"
                )
            );
        }
        assert_eq!(parse("unix:").unwrap_err(), "expected a path after \"unix:\", found nothing");
        assert_eq!(
            parse("fd://2").unwrap_err(),
            "expected a descriptor from 3 on, found \"fd://2\""
        );
        let long = parse(&format!("unix:/{}", "x".repeat(107))).unwrap_err();
        assert!(
            long.starts_with("expected a path of at most 107 bytes, found 108: \"/x"),
            "{long}"
        );
    }

    proptest! {
        #[test]
        fn a_shown_bind_reads_back(bind in prop_oneof![
            any::<(IpAddr, u16)>().prop_map(|(ip, port)| Bind::Tcp(SocketAddr::new(ip, port))),
            "/{0,1}[a-z]([a-z/]{0,50})".prop_map(|path| Bind::Unix(path.into())),
            (3..i32::MAX).prop_map(Bind::Fd),
        ]) {
            prop_assert_eq!(parse(&bind.to_string()), Ok(vec![bind]));
        }

        #[test]
        fn no_text_is_too_odd(text: String) {
            let _ = check(&text);
        }
    }
}
