//! The readiness of a program, for those signs that are looked for.
//!
//! # Why the owner of a connection is asked for
//! Every program accepts from the same socket, so another slot's program may answer a question that was
//! meant for this one. The kernel knows which process has accepted a connection: one that a sibling has
//! accepted is closed without a request, and the question is asked again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::events::ProgramEvent;
use crate::config::ProgramReady;
use crate::ids::{Pid, Slot};
use crate::logging;
use crate::sys::waiting;

/// From one look for the sign to the next.
const LOOK: Duration = Duration::from_millis(50);
/// In each fourth look a program that is not seen to wait is given connections to accept, and this time to do
/// so. Its siblings accept, too: of so many it gets one as good as always.
const PROBE_LOOK: u32 = 4;
const PROBES: usize = 8;
const PROBE: Duration = Duration::from_millis(200);
/// From one look to the next whether a program accepts connections that has not sent `READY=1`. One that
/// sends it as soon as it listens is not caught between the two.
const EARLY_LOOK: Duration = Duration::from_secs(1);
/// The time that a response may take.
const ANSWER: Duration = Duration::from_secs(2);
/// The number of looks, a few milliseconds apart, for the process that has accepted a connection.
const OWNER_LOOKS: u32 = 200;
const OWNER_LOOK: Duration = Duration::from_millis(5);
/// Bytes of an answer that are read: its first line is among them.
const HEAD_MAX: usize = 1024;

/// Where a program is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The sign that is looked for, and where.
#[derive(Debug)]
pub(super) struct Sign {
    pub(super) slot: Slot,
    pub(super) ready: ProgramReady,
    /// The numbers of the sockets that the program was given.
    pub(super) sockets: Vec<u64>,
    /// The first address.
    pub(super) target: Option<Target>,
}

impl Target {
    /// Where this machine reaches a listener of its own, by the listener's name; `None` for a descriptor
    /// without an address.
    pub(super) fn of(name: &str) -> Option<Self> {
        if let Some(path) = name.strip_prefix("unix:") {
            return Some(Self::Unix(path.into()));
        }
        let mut address: SocketAddr = name.split_once("://")?.1.parse().ok()?;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Some(Self::Tcp(address))
    }
}

impl Sign {
    /// Ends when the program shows the sign; never for one that it sends by itself.
    pub(super) async fn shown(&self, leader: i32) {
        match &self.ready {
            ProgramReady::Notify => {
                self.warn_of_early(leader).await;
                std::future::pending::<()>().await;
            }
            ProgramReady::Delay(delay) => tokio::time::sleep(*delay).await,
            ProgramReady::Auto | ProgramReady::Listen => {
                let mut look = 0;
                while !self.accepts(leader, look).await {
                    tokio::time::sleep(LOOK).await;
                    look += 1;
                }
            }
            ProgramReady::Http(path) => {
                let mut look = 0;
                while !self.answers(leader, path, look).await {
                    tokio::time::sleep(LOOK).await;
                    look += 1;
                }
            }
        }
    }

    /// Returns true if a process of the program waits for connections; in some looks also if it accepts one
    /// of those that are opened for that, and closed without a request. Under load a server that accepts
    /// between two requests is seldom seen to wait.
    async fn accepts(&self, leader: i32, look: u32) -> bool {
        if waiting::waits(&waiting::tree(leader), &self.sockets) {
            return true;
        }
        let Some(Target::Tcp(address)) = &self.target else { return false };
        if look == 0 || !look.is_multiple_of(PROBE_LOOK) {
            return false;
        }
        let mut probes = Vec::new();
        let opened = async {
            for _ in 0..PROBES {
                probes.push(TcpStream::connect(address).await?);
            }
            // The servers take them meanwhile.
            tokio::time::sleep(OWNER_LOOK).await;
            Ok::<_, io::Error>(())
        };
        // A queue that is full takes none: what was opened counts.
        let _opened = tokio::time::timeout(PROBE, opened).await;
        let clients: Vec<SocketAddr> =
            probes.iter().filter_map(|probe| probe.local_addr().ok()).collect();
        waiting::has_accepted_any(&waiting::tree(leader), &clients, address.port())
    }

    /// Logs that the program accepts connections, once it does, since it has not sent `READY=1` by then.
    async fn warn_of_early(&self, leader: i32) {
        tokio::time::sleep(EARLY_LOOK).await;
        while !self.accepts(leader, PROBE_LOOK).await {
            tokio::time::sleep(EARLY_LOOK).await;
        }
        let slot = self.slot;
        let program = Pid(leader);
        logging::emit(&ProgramEvent::AcceptsEarly { slot, program });
    }

    /// The missing sign, for the log.
    pub(super) fn missing(&self) -> String {
        match &self.ready {
            ProgramReady::Notify => "it has not sent READY=1".to_owned(),
            ProgramReady::Delay(delay) => format!("program.ready is a delay of {delay:?}"),
            ProgramReady::Listen => "it does not wait for connections on its socket".to_owned(),
            ProgramReady::Auto => {
                "it has not sent READY=1, and does not wait for connections on its \
                                   socket; program.ready may be another sign"
                    .to_owned()
            }
            ProgramReady::Http(path) => format!("it has not answered GET {path} with 2xx"),
        }
    }

    /// Returns true if the program itself answers a GET of this path with 2xx.
    async fn answers(&self, leader: i32, path: &str, look: u32) -> bool {
        // Before that a connection would wait in the queue, for a sibling.
        if !self.accepts(leader, look).await {
            return false;
        }
        let asked = async {
            match self.target.as_ref().ok_or(io::ErrorKind::NotFound)? {
                Target::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    if !is_own(leader, stream.local_addr()?, *address).await {
                        return Ok(false);
                    }
                    ask(stream, path).await
                }
                Target::Unix(file) => ask(UnixStream::connect(file).await?, path).await,
            }
        };
        let answer: Result<io::Result<bool>, _> = tokio::time::timeout(ANSWER, asked).await;
        matches!(answer, Ok(Ok(true)))
    }
}

/// Returns true if the program has accepted this connection.
async fn is_own(leader: i32, client: SocketAddr, server: SocketAddr) -> bool {
    for _ in 0..OWNER_LOOKS {
        if let Some(is_own) = waiting::has_accepted(&waiting::tree(leader), client, server) {
            return is_own;
        }
        tokio::time::sleep(OWNER_LOOK).await;
    }
    false
}

/// Returns true if a GET of this path is answered with 2xx.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> io::Result<bool> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ferricorn\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    stream.take(HEAD_MAX as u64).read_to_end(&mut head).await?;
    Ok(is_success(&head))
}

/// Returns true if an answer begins with a status of 200 to 299.
fn is_success(head: &[u8]) -> bool {
    let mut words = head.split(|byte| *byte == b' ');
    let version = words.next().is_some_and(|version| version.starts_with(b"HTTP/1."));
    version && words.next().is_some_and(|status| matches!(status, [b'2', _, _]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_a_status_of_2xx() {
        for head in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 204 \r\n\r\n"] {
            assert!(is_success(head.as_bytes()), "{head}");
        }
        for head in ["", "HTTP/1.1 503 no\r\n", "HTTP/1.1", "HTTP/1.1 2000 x", "220 smtp"] {
            assert!(!is_success(head.as_bytes()), "{head}");
        }
    }

    #[test]
    fn every_address_is_reached_by_loopback() {
        let tcp = |text: &str| Some(Target::Tcp(text.parse().unwrap()));
        assert_eq!(Target::of("http://0.0.0.0:5"), tcp("127.0.0.1:5"));
        assert_eq!(Target::of("http://[::]:5"), tcp("[::1]:5"));
        assert_eq!(Target::of("unix:/run/a.sock"), Some(Target::Unix("/run/a.sock".into())));
        assert_eq!(Target::of("fd://3"), None);
    }
}
