//! Addresses to listen on, as they are written.
//!
//! A host name may stand for several addresses, so that reading one text gives several binds. That
//! asks the resolver; [`check`] judges the form alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::from_value::from_value;

/// The longest path of a unix socket: `sun_path` has 108 bytes, the last of them zero (unix(7)).
const UNIX_PATH_MAX_BYTES: usize = 107;
/// The port that gunicorn takes where none is written.
const GUNICORN_PORT: u16 = 8000;
/// The first descriptor that is not a standard stream (`SD_LISTEN_FDS_START`, `sd_listen_fds(3)`).
const FIRST_INHERITED_FD: i32 = 3;

/// Letters of a listener's name, at the most.
const NAME_MAX: usize = 32;

/// Where to listen, and the name of that listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bind {
    /// `admin` of `admin=127.0.0.1:5001`: the application has routes of its own for it
    /// ([`App::LISTENERS`](crate::App::LISTENERS)).
    pub name: Option<String>,
    /// The address.
    pub address: BindAddress,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// `host:port`, `[v6]:port`, `:port`. `[::]` takes IPv4 too where the kernel's default
    /// (`net.ipv6.bindv6only`) says so.
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
    /// `fd://N`
    Fd(i32),
}

impl Bind {
    /// An address that the resolver has found for this text, which may have a name.
    pub(crate) fn found(text: &str, address: BindAddress) -> Self {
        let name = named(text).ok().and_then(|(name, _)| name).map(str::to_owned);
        Self { name, address }
    }
}

impl From<BindAddress> for Bind {
    fn from(address: BindAddress) -> Self {
        Self { name: None, address }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        self.address.fmt(f)
    }
}

impl fmt::Display for BindAddress {
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
    let (name, text) = named(text)?;
    let addresses = match read(text)? {
        Form::Whole(address) => vec![address],
        Form::Host { host, port } => resolve(host, port)?,
    };
    let bind = |address| Bind { name: name.map(str::to_owned), address };
    Ok(addresses.into_iter().map(bind).collect())
}

/// Returns true if the text holds a host name, which the resolver must be asked for.
pub(super) fn is_named(text: &str) -> bool {
    matches!(named(text).and_then(|(_, address)| read(address)), Ok(Form::Host { .. }))
}

/// Checks that the text has the form of a bind.
pub(super) fn check(text: &str) -> Result<(), String> {
    read(named(text)?.1).map(drop)
}

/// The name of the listener, and its address.
fn named(text: &str) -> Result<(Option<&str>, &str), String> {
    // A path may have the sign, too.
    let Some((name, address)) = text.split_once('=').filter(|(name, _)| !name.contains([':', '/']))
    else {
        return Ok((None, text));
    };
    let is_name = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_name {
        Ok((Some(name), address))
    } else {
        Err(format!(
            "expected a name of at most {NAME_MAX} letters, digits, \"-\" and \"_\" before \"=\", \
             found {text:?}"
        ))
    }
}

/// The address that metrics are served at.
pub(super) fn stats(text: &str) -> Result<SocketAddr, String> {
    match read(text)? {
        Form::Whole(BindAddress::Tcp(address)) => Ok(address),
        Form::Whole(BindAddress::Unix(_) | BindAddress::Fd(_)) | Form::Host { .. } => {
            Err(format!("expected an address and a port like \"127.0.0.1:9464\", found {text:?}"))
        }
    }
}

from_value! {
    SocketAddr, Self::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), |value| stats(value.text()?).ok();
}

/// Judges an address that numbers are to be sent to: a host and a port.
pub(super) fn check_statsd(text: &str) -> Result<(), String> {
    match read(text)? {
        Form::Whole(BindAddress::Tcp(_)) | Form::Host { .. } => Ok(()),
        Form::Whole(BindAddress::Unix(_) | BindAddress::Fd(_)) => {
            Err(format!("expected a host and a port like \"localhost:8125\", found {text:?}"))
        }
    }
}

/// The kind of a text before the resolver is asked.
enum Form<'a> {
    Whole(BindAddress),
    Host { host: &'a str, port: u16 },
}

fn read(text: &str) -> Result<Form<'_>, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(Form::Whole);
    }
    if let Some(number) = text.strip_prefix("fd://") {
        return fd(number).map(Form::Whole);
    }
    let wrong = || {
        let meant =
            likely(text).map_or(String::new(), |meant| format!(": did you mean {meant:?}?"));
        format!(
            "expected \"host:port\", \":port\", \"[v6]:port\", \"unix:/path\" or \"fd://3\", \
             found {text:?}{meant}"
        )
    };
    // gunicorn accepts the scheme, too.
    let address = text.strip_prefix("tcp://").unwrap_or(text);
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(Form::Whole(BindAddress::Tcp(address)));
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        return Ok(Form::Whole(BindAddress::Tcp(SocketAddr::new(any, port))));
    }
    if is_host_name(host) { Ok(Form::Host { host, port }) } else { Err(wrong()) }
}

/// The likely meaning of a text without a host or without a port; the port is gunicorn's, which
/// takes it there.
fn likely(text: &str) -> Option<String> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if text.parse::<u16>().is_ok() {
        Some(format!("0.0.0.0:{text}"))
    } else if let Ok(ip) = inner.parse::<IpAddr>() {
        Some(SocketAddr::new(ip, GUNICORN_PORT).to_string())
    } else if is_host_name(text) {
        Some(format!("{text}:{GUNICORN_PORT}"))
    } else {
        None
    }
}

/// Returns true for a text that can be looked up, and does not look like a wrong address.
fn is_host_name(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn unix(path: &str) -> Result<BindAddress, String> {
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
    Ok(BindAddress::Unix(PathBuf::from(path)))
}

fn fd(number: &str) -> Result<BindAddress, String> {
    match number.parse() {
        Ok(fd) if FIRST_INHERITED_FD <= fd => Ok(BindAddress::Fd(fd)),
        Ok(_) | Err(_) => Err(format!(
            "expected a descriptor from {FIRST_INHERITED_FD} on, found \"fd://{number}\""
        )),
    }
}

fn resolve(host: &str, port: u16) -> Result<Vec<BindAddress>, String> {
    let failed = |why: &dyn fmt::Display| format!("failed to resolve {host:?}: {why}");
    let addresses = (host, port).to_socket_addrs().map_err(|error| failed(&error))?;
    let mut binds: Vec<BindAddress> = Vec::new();
    for bind in addresses.map(BindAddress::Tcp) {
        if !binds.contains(&bind) {
            binds.push(bind);
        }
    }
    if binds.is_empty() { Err(failed(&"it has no address")) } else { Ok(binds) }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn tcp(text: &str) -> Vec<Bind> {
        vec![BindAddress::Tcp(text.parse().unwrap()).into()]
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(parse("0.0.0.0:5000").unwrap(), tcp("0.0.0.0:5000"));
        assert_eq!(parse(":5000").unwrap(), tcp("0.0.0.0:5000"));
        assert_eq!(parse("[::]:5000").unwrap(), tcp("[::]:5000"));
        assert_eq!(parse("tcp://[::1]:80").unwrap(), tcp("[::1]:80"));
        assert_eq!(
            parse("unix:/run/a.sock").unwrap(),
            [BindAddress::Unix("/run/a.sock".into()).into()]
        );
        assert_eq!(
            parse("unix:///run/a.sock").unwrap(),
            [BindAddress::Unix("/run/a.sock".into()).into()]
        );
        assert_eq!(parse("unix:a.sock").unwrap(), [BindAddress::Unix("a.sock".into()).into()]);
        assert_eq!(parse("fd://3").unwrap(), [BindAddress::Fd(3).into()]);
        let local = parse("localhost:5000").unwrap();
        assert!(!local.is_empty());
        for bind in local {
            let BindAddress::Tcp(address) = bind.address else { panic!("{}", bind.address) };
            assert!(address.ip().is_loopback() && address.port() == 5000, "{address}");
        }
    }

    #[test]
    fn name_stands_before_any_form() {
        for address in ["127.0.0.1:5001", "[::1]:80", "unix:/run/a=b.sock", "fd://4"] {
            let bind = &parse(&format!("admin={address}")).unwrap()[0];
            assert_eq!(bind.name.as_deref(), Some("admin"));
            assert_eq!(bind.address.to_string(), address);
        }
        assert_eq!(parse("unix:a=b.sock").unwrap()[0].name, None);
        let long = format!("{}=:80", "x".repeat(33));
        for wrong in ["=:80", "a b=:80", "a.b=:80", long.as_str()] {
            let why = parse(wrong).unwrap_err();
            assert!(why.starts_with("expected a name of at most 32 letters"), "{why}");
        }
        assert!(parse("admin=").unwrap_err().contains("expected \"host:port\""));
        assert!(stats("admin=127.0.0.1:80").is_err());
    }

    #[test]
    fn what_is_no_bind_is_refused_in_words() {
        let refused = |wrong: &str| parse(wrong).unwrap_err();
        let expected =
            "expected \"host:port\", \":port\", \"[v6]:port\", \"unix:/path\" or \"fd://3\"";
        for wrong in ["", "::1:x", "a b:1", "1.2.3:80", "h:65536", "65536"] {
            assert_eq!(refused(wrong), format!("{expected}, found {wrong:?}"));
        }
        for (wrong, meant) in [
            ("8000", "0.0.0.0:8000"),
            ("0.0.0.0", "0.0.0.0:8000"),
            ("::1", "[::1]:8000"),
            ("[::]", "[::]:8000"),
            ("localhost", "localhost:8000"),
        ] {
            let text = format!("{expected}, found {wrong:?}: did you mean {meant:?}?");
            assert_eq!(refused(wrong), text);
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
        fn a_shown_bind_reads_back(name in option::of("[a-z0-9_-]{1,32}"), address in prop_oneof![
            any::<(IpAddr, u16)>().prop_map(|(ip, port)| BindAddress::Tcp(SocketAddr::new(ip, port))),
            "/{0,1}[a-z]([a-z/=]{0,50})".prop_map(|path| BindAddress::Unix(path.into())),
            (3..i32::MAX).prop_map(BindAddress::Fd),
        ]) {
            let bind = Bind { name, address };
            prop_assert_eq!(parse(&bind.to_string()), Ok(vec![bind]));
        }

        #[test]
        fn no_text_is_too_odd(text: String) {
            let _ = check(&text);
        }
    }
}
