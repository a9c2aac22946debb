//! A client that sees everything and hides nothing: it never retries, and says how it failed.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use socket2::SockRef;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::tls;

/// The time that any one step may take before it counts as a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    /// The same with TLS, under a certificate of the tests' authority.
    Tls(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// The TCP address.
    pub(crate) fn tcp(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) | Self::Tls(address) => *address,
            Self::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }
}

/// The failure of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Nobody listens there.
    Refused,
    /// The connection was not made in time.
    NotConnected,
    /// The connection was reset or closed while the request was being sent.
    ResetSending,
    /// It was reset after the request was sent, before the first byte of the response.
    ResetWaiting,
    /// It was closed without a response.
    ClosedWaiting,
    /// It ended inside the response.
    CutShort,
    /// Nothing came in time.
    TimedOut,
    /// The bytes that came are no response.
    Garbled,
}

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Fields by name in small letters; of several with one name the last.
    pub(crate) fields: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A field, or nothing.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns true if the server closes the connection behind it.
    pub(crate) fn closes(&self) -> bool {
        self.field("connection").eq_ignore_ascii_case("close")
    }

    /// The worker that gave it, when the application is the unruly one.
    pub(crate) fn pid(&self) -> i32 {
        self.field("x-pid").parse().expect("every answer of examples/unruly.rs tells its pid")
    }

    /// Its worker's slot, when the application is the unruly one.
    pub(crate) fn slot(&self) -> u16 {
        self.field("x-slot").parse().expect("every answer of examples/unruly.rs tells its slot")
    }
}

/// A connection with TLS.
#[derive(Debug)]
struct Encrypted(StreamOwned<ClientConnection, TcpStream>);

trait Stream: Read + Write + AsFd + Send + fmt::Debug {
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
    fn set_blocking(&self, blocking: bool) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        Self::shutdown(self, how)
    }
    fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        self.set_nonblocking(!blocking)
    }
}

impl AsFd for Encrypted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.sock.as_fd()
    }
}

impl Read for Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Encrypted {
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.sock.shutdown(how)
    }
    fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        self.0.sock.set_nonblocking(!blocking)
    }
}

impl Stream for UnixStream {
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        Self::shutdown(self, how)
    }
    fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        self.set_nonblocking(!blocking)
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// The bytes that were read beyond the last response.
    ahead: Vec<u8>,
    /// Our own end, over TCP.
    local: Option<SocketAddr>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// `Refused` or `NotConnected`.
    pub(crate) fn open(address: &Address) -> Result<Self, Outcome> {
        Self::open_within(address, PATIENCE)
    }

    /// Connects, and has this much patience with every step from now on.
    pub(crate) fn open_within(address: &Address, patience: Duration) -> Result<Self, Outcome> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Outcome::Refused,
            ErrorKind::ConnectionReset => Outcome::ResetSending,
            _ => Outcome::NotConnected,
        };
        let timeouts = "a timeout that is not zero is accepted";
        let is_tls = matches!(address, Address::Tls(_));
        match address {
            Address::Tcp(address) | Address::Tls(address) => {
                let stream = TcpStream::connect_timeout(address, patience).map_err(failed)?;
                // It may have been reset by now: then the next step says so.
                let _reset = stream.set_nodelay(true);
                stream.set_read_timeout(Some(patience)).expect(timeouts);
                stream.set_write_timeout(Some(patience)).expect(timeouts);
                let local = stream.local_addr().ok();
                let stream: Box<dyn Stream> = if is_tls {
                    Box::new(Encrypted(StreamOwned::new(tls::client(), stream)))
                } else {
                    Box::new(stream)
                };
                Ok(Self { stream, ahead: Vec::new(), local })
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(failed)?;
                stream.set_read_timeout(Some(patience)).expect(timeouts);
                stream.set_write_timeout(Some(patience)).expect(timeouts);
                Ok(Self { stream: Box::new(stream), ahead: Vec::new(), local: None })
            }
        }
    }

    /// Our end of it, over TCP.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Our end of it, over TCP and IPv4.
    pub(crate) fn local_v4(&self) -> SocketAddrV4 {
        match self.local {
            Some(SocketAddr::V4(local)) => local,
            local => panic!("{local:?} is no address of IPv4"),
        }
    }

    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Outcome> {
        self.stream.write_all(bytes.as_ref()).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::TimedOut,
            _ => Outcome::ResetSending,
        })
    }

    /// Sends a GET and reads the response.
    pub(crate) fn get(&mut self, target: &str) -> Result<Response, Outcome> {
        self.send(get(target))?;
        self.response()
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        let socket = SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("TCP has it");
    }

    /// Reads the head of a response, and returns its status.
    pub(crate) fn head(&mut self) -> Result<u16, Outcome> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                let (status, _) = parse_head(&self.ahead[..at + 4]).ok_or(Outcome::Garbled)?;
                return Ok(status);
            }
            self.read_more()?;
        }
    }

    /// The bytes that were received and not yet returned.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads one whole response.
    pub(crate) fn response(&mut self) -> Result<Response, Outcome> {
        let head_end = loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more()?;
        };
        let (status, fields) = parse_head(&self.ahead[..head_end]).ok_or(Outcome::Garbled)?;
        self.ahead.drain(..head_end);
        let body = if fields.get("transfer-encoding").is_some_and(|field| field == "chunked") {
            self.chunks()?
        } else if let Some(length) = fields.get("content-length") {
            let length = length.parse().map_err(|_| Outcome::Garbled)?;
            self.exactly(length)?
        } else if status == 204 || status == 304 || status < 200 {
            Vec::new()
        } else {
            self.rest()?
        };
        Ok(Response { status, fields, body })
    }

    /// Returns true if the server has ended the connection by now.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.stream.set_blocking(false).expect("a descriptor's flag can be set");
        let mut buffer = [0; 4096];
        let ended = match self.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => {
                self.ahead.extend_from_slice(&buffer[..length]);
                false
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.stream.set_blocking(true).expect("a descriptor's flag can be set");
        ended
    }

    /// Waits for the end of the connection; answers what came before it.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, Outcome> {
        let mut rest = std::mem::take(&mut self.ahead);
        let mut buffer = vec![0; 65_536];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(rest),
                Ok(length) => rest.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(Outcome::CutShort);
                }
                Err(_) => return Err(Outcome::TimedOut),
            }
        }
    }

    /// Waits until something comes; it is the beginning of the next response.
    pub(crate) fn wait_for_more(&mut self) -> Result<(), Outcome> {
        self.read_more()
    }

    /// A read with a timeout is interrupted by what happens to this process, too: that says nothing
    /// of the server (signal(7), "Interruption of system calls").
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn read_more(&mut self) -> Result<(), Outcome> {
        let mut buffer = [0; 16_384];
        let nothing_yet = self.ahead.is_empty();
        match self.read(&mut buffer) {
            Ok(0) if nothing_yet => Err(Outcome::ClosedWaiting),
            Ok(0) => Err(Outcome::CutShort),
            Ok(length) => {
                self.ahead.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::TimedOut,
                _ if nothing_yet => Outcome::ResetWaiting,
                _ => Outcome::CutShort,
            }),
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Outcome> {
        while self.ahead.len() < length {
            self.read_more().map_err(inside)?;
        }
        let rest = self.ahead.split_off(length);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Outcome> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match find(&self.ahead, b"\r\n") {
                    Some(at) => break at,
                    None => self.read_more().map_err(inside)?,
                }
            };
            let size = std::str::from_utf8(&self.ahead[..end]).ok();
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or(Outcome::Garbled)?;
            self.ahead.drain(..end + 2);
            body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(Outcome::Garbled);
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// A failure inside a response has cut it short.
fn inside(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::ClosedWaiting | Outcome::ResetWaiting => Outcome::CutShort,
        other => other,
    }
}

/// The text of a GET request.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n")
}

/// The text of a POST request.
pub(crate) fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn parse_head(head: &[u8]) -> Option<(u16, HashMap<String, String>)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let fields = lines.filter(|line| !line.is_empty()).map(field).collect::<Option<_>>()?;
    Some((status, fields))
}
