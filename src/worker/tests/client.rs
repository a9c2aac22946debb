//! A client that says what it is told, byte by byte.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};

use crate::sys::socket;

trait Stream: AsyncRead + AsyncWrite + AsFd + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + AsFd + Send + Unpin> Stream for S {}

/// One connection.
pub(super) struct Talk {
    stream: Box<dyn Stream>,
    /// The bytes that were read beyond the last answer.
    ahead: Vec<u8>,
}

impl Talk {
    pub(super) async fn tcp(from: IpAddr, to: SocketAddr) -> Self {
        Self::open(TcpSocket::new_v4().expect("a socket"), from, to).await
    }

    /// One that takes in hardly anything until it is read.
    pub(super) async fn tcp_narrow(from: IpAddr, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1).expect("the kernel makes the least of it");
        Self::open(socket, from, to).await
    }

    async fn open(socket: TcpSocket, from: IpAddr, to: SocketAddr) -> Self {
        socket.bind((from, 0).into()).expect("an address of this machine");
        let stream = socket.connect(to).await.expect("the server listens");
        stream.set_nodelay(true).expect("TCP has it");
        Self { stream: Box::new(stream), ahead: Vec::new() }
    }

    pub(super) async fn unix(to: &Path) -> Self {
        let stream = UnixStream::connect(to).await.expect("the server listens");
        Self { stream: Box::new(stream), ahead: Vec::new() }
    }

    /// Says something. That the server has closed the connection shows in what it answers.
    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _closed = self.try_to_say(bytes).await;
    }

    /// Writes something, if the server reads.
    pub(super) async fn try_to_say(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Says nothing more.
    pub(super) async fn hang_up(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// Resets the connection.
    pub(super) fn reset(self) {
        socket::reset(self.stream.as_fd()).expect("TCP has it");
    }

    /// Sends these bytes and resets the connection, without a turn of the event loop in between.
    pub(super) fn say_and_reset(self, bytes: &[u8]) {
        socket::send_all(self.stream.as_fd(), bytes).expect("its buffer has room");
        self.reset();
    }

    /// One answer, by its head and its length: for answers with `content-length`, or none.
    pub(super) async fn answer(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.ahead).into_owned();
            if let Some((head, _)) = text.split_once("\r\n\r\n") {
                let lengths = head.lines().filter_map(|line| line.strip_prefix("content-length: "));
                let body: usize =
                    lengths.map(|length| length.parse::<usize>().expect("a number")).sum();
                let length = head.len() + 4 + body;
                if self.ahead.len() >= length {
                    let answer = self.ahead.drain(..length).collect();
                    return String::from_utf8(answer).expect("the answers are text");
                }
            }
            assert!(self.read_some().await > 0, "the connection ended in an answer: {text:?}");
        }
    }

    /// All that comes until the connection ends; that it may be reset is the caller's to know.
    pub(super) async fn rest(&mut self) -> String {
        while self.read_some().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned()
    }

    /// All that comes up to this text.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.ahead.windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(at) = found {
                let text = self.ahead.drain(..at + end.len()).collect();
                return String::from_utf8(text).expect("the answers are text");
            }
            assert!(self.read_some().await > 0, "the connection ended before {end:?}");
        }
    }

    /// So many bytes.
    pub(super) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.read_some().await > 0, "the connection ended: {:?}", self.ahead);
        }
        self.ahead.drain(..count).collect()
    }

    async fn read_some(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let read = self.stream.read(&mut bytes).await.unwrap_or(0);
        self.ahead.extend_from_slice(&bytes[..read]);
        read
    }
}

/// The statuses of all answers in a text, in order.
pub(super) fn statuses(text: &str) -> Vec<u16> {
    let lines = text.split("HTTP/1.").skip(1);
    lines.map(|line| line[2..5].parse().expect("a status")).collect()
}

/// A field of the first answer in a text.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let head = text.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The body of the last answer in a text.
pub(super) fn body(text: &str) -> &str {
    text.rsplit("\r\n\r\n").next().unwrap_or_default()
}
