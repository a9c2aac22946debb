//! `ferricorn healthcheck`: asks the server how it is, for a container without curl.
//!
//! The question is asked in a thread and the answer waited for here, since nothing in std bounds
//! the connecting to a unix socket whose queue is full: what a hanging server looks like.

use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::command::Question;
use crate::config::problem::reason;
use crate::config::{Bind, BindAddress, ClientAuth, Config, HEALTHCHECK_AGENT};
use crate::tls::Client;

/// The time that a ready server may take: shorter than any orchestrator's own limit.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A status line is much shorter.
const STATUS_LINE_MAX_BYTES: u64 = 256;
/// The end of the request, behind its path.
fn request_end() -> String {
    format!(
        " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {HEALTHCHECK_AGENT}\r\nConnection: close\r\n\r\n"
    )
}

/// For a peer that must begin with a PROXY header: the connection is the peer's own (version 1,
/// section 2.1 of the PROXY protocol's specification).
const PROXY_UNKNOWN: &str = "PROXY UNKNOWN\r\n";

/// Where the server can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Asks the first address; the error is a sentence.
pub(super) fn probe(config: &Config, question: Question) -> Result<(), String> {
    let (key, path) = match question {
        Question::Ready => ("health.ready", &config.health.ready),
        Question::Live => ("health.live", &config.health.live),
    };
    if path.is_empty() {
        return Err(format!("there is no path to ask: {key} is \"\""));
    }
    let asked_for = format!("GET {path}");
    let first = first(config).ok_or("there is no address to ask")?;
    // Of the addresses of one host name the machine may lack some.
    let bind = config.namesakes(first).iter().find(|bind| is_here(bind)).unwrap_or(first);
    let target = target(bind, config)?;
    let client = if speaks_tls(&target, config) { Some(Client::new()?) } else { None };
    let header = if announces(&target, config) { PROXY_UNKNOWN } else { "" };
    let request = format!("{asked_for}{}", request_end());
    let (sender, receiver) = mpsc::channel();
    let asked = thread::Builder::new().name("ferricorn-ask".to_owned()).spawn(move || {
        // Nothing listens any more when it was too late.
        let _: Result<(), _> = sender.send(ask(&target, client, header, &request));
    });
    asked.map_err(|error| format!("failed to start a thread: {}", reason(&error)))?;
    let status = match receiver.recv_timeout(TIMEOUT) {
        Ok(answer) => answer.map_err(|error| format!("{bind}: {error}"))?,
        Err(_) => return Err(format!("{bind}: no answer within {} s", TIMEOUT.as_secs())),
    };
    match status {
        200 => Ok(()),
        other => Err(format!("{bind}: expected {asked_for} to answer 200, found {other}")),
    }
}

/// The address that is asked: the first one, but one without TLS where the server asks clients for
/// certificates, which a health check does not have.
fn first(config: &Config) -> Option<&Bind> {
    let is_open = |bind: &&Bind| match bind.address {
        BindAddress::Tcp(_) => !config.tls.is_on() || !config.tls.bind.is_empty(),
        BindAddress::Unix(_) | BindAddress::Fd(_) => true,
    };
    let open = config.bind.iter().find(is_open);
    match config.tls.client_auth {
        ClientAuth::Required => open.or(config.bind.first()),
        ClientAuth::None | ClientAuth::Optional => config.bind.first(),
    }
}

/// Returns true if the server speaks TLS there.
fn speaks_tls(target: &Target, config: &Config) -> bool {
    match target {
        Target::Tcp(_) => config.tls.is_on() && config.tls.bind.is_empty(),
        Target::Unix(_) => false,
    }
}

/// Returns true if this machine has the address.
fn is_here(bind: &Bind) -> bool {
    match &bind.address {
        BindAddress::Tcp(address) => UdpSocket::bind((address.ip(), 0)).is_ok(),
        BindAddress::Unix(_) | BindAddress::Fd(_) => true,
    }
}

/// The address on which this machine reaches what is bound.
fn target(bind: &Bind, config: &Config) -> Result<Target, String> {
    match &bind.address {
        BindAddress::Tcp(address) if address.port() == 0 => {
            Err(format!("{bind}: expected a port to ask; give the real one with --bind"))
        }
        BindAddress::Tcp(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => ip,
            };
            let mut address = *address;
            address.set_ip(ip);
            Ok(Target::Tcp(address))
        }
        BindAddress::Unix(path) => {
            Ok(Target::Unix(config.chdir.clone().unwrap_or_default().join(path)))
        }
        BindAddress::Fd(_) => {
            Err(format!("{bind}: expected an address to ask; give the real one with --bind"))
        }
    }
}

/// Returns true if the server takes this connection for a proxy's.
fn announces(target: &Target, config: &Config) -> bool {
    let trusted = |ip| config.proxy_allow_ips.iter().any(|network| network.contains(ip));
    config.proxy_protocol
        && match target {
            Target::Tcp(address) => trusted(address.ip()),
            Target::Unix(_) => true,
        }
}

/// The status of the answer.
fn ask(
    target: &Target,
    client: Option<Client>,
    header: &str,
    request: &str,
) -> Result<u16, String> {
    let failed = |error: io::Error| format!("failed to connect: {}", reason(&error));
    match target {
        Target::Tcp(address) => {
            let mut stream = TcpStream::connect(address).map_err(failed)?;
            stream.write_all(header.as_bytes()).map_err(failed)?;
            match client {
                Some(client) => converse(client.over(stream), request),
                None => converse(stream, request),
            }
        }
        Target::Unix(path) => {
            let mut stream = UnixStream::connect(path).map_err(failed)?;
            stream.write_all(header.as_bytes()).map_err(failed)?;
            converse(stream, request)
        }
    }
}

fn converse(mut stream: impl Read + Write, request: &str) -> Result<u16, String> {
    let failed = |error: io::Error| format!("failed to ask: {}", reason(&error));
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut line = Vec::new();
    for byte in BufReader::new(stream).take(STATUS_LINE_MAX_BYTES).bytes() {
        match byte.map_err(failed)? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split_ascii_whitespace();
    let status = match (words.next(), words.next()) {
        (Some("HTTP/1.1" | "HTTP/1.0"), Some(status)) => status.parse().ok(),
        _ => None,
    };
    status.ok_or_else(|| format!("expected an HTTP status line, found {:?}", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Config {
        Config::from_toml(toml, &[]).unwrap()
    }

    #[test]
    fn the_target_is_where_this_machine_reaches_the_server() {
        let reach = |text: &str| {
            let config = config(text);
            target(&config.bind[0], &config)
        };
        let tcp = |text: &str| Ok(Target::Tcp(text.parse().unwrap()));
        assert_eq!(reach("bind = '0.0.0.0:5000'"), tcp("127.0.0.1:5000"));
        assert_eq!(reach("bind = '[::]:5000'"), tcp("[::1]:5000"));
        assert_eq!(reach("bind = '192.0.2.1:80'"), tcp("192.0.2.1:80"));
        let unix = reach("bind = 'unix:a.sock'\nchdir = '/srv'");
        assert_eq!(unix, Ok(Target::Unix("/srv/a.sock".into())));
        assert_eq!(
            reach("bind = ':0'").unwrap_err(),
            "0.0.0.0:0: expected a port to ask; give the real one with --bind"
        );
        assert_eq!(
            reach("bind = 'fd://3'").unwrap_err(),
            "fd://3: expected an address to ask; give the real one with --bind"
        );
    }

    #[test]
    fn a_proxy_header_is_sent_where_one_is_due() {
        let due = |text: &str| {
            let config = config(text);
            announces(&target(&config.bind[0], &config).unwrap(), &config)
        };
        assert!(!due(""));
        assert!(due("proxy_protocol = true"));
        assert!(!due("proxy_protocol = true\nproxy_allow_ips = '10.0.0.0/8'"));
        assert!(due("proxy_protocol = true\nbind = 'unix:a'"));
    }
}
