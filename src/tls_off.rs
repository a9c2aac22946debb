//! Stands in for `tls` where the feature `tls` is off: a configuration with certificates is refused, and no
//! session ever begins.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::{Config, Tls};
use crate::time::Instant;

/// The refusal of certificates.
const MISSING: &str = "this program is built without TLS; build ferricorn with its feature \"tls\"";

/// A certificate that expires within this time is a daily warning.
pub(crate) const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) key: &'static str,
    pub(crate) reason: String,
    pub(crate) is_hidden: bool,
}

/// Refuses the files.
///
/// # Errors
/// Always.
pub(crate) fn read(_: &Tls, _: &Path, _: SystemTime) -> Result<Infallible, Vec<Problem>> {
    let reason = MISSING.to_owned();
    Err(vec![Problem { key: "tls.certificate", reason, is_hidden: false }])
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expiry {
    pub(crate) file: String,
    pub(crate) at: SystemTime,
}

/// The certificates of another image, which are handed on unread.
#[derive(Debug)]
pub(crate) struct Bundle(OwnedFd, Vec<Expiry>);

impl Bundle {
    /// `None`: the configuration names no certificates.
    ///
    /// # Errors
    /// When it names some.
    pub(crate) fn of(config: &Config, now: SystemTime) -> Result<Option<Self>, Vec<Problem>> {
        if config.tls.is_on() {
            read(&config.tls, Path::new(""), now)?;
        }
        Ok(None)
    }

    pub(crate) fn inherit(memory: OwnedFd, expiries: Vec<Expiry>) -> Self {
        Self(memory, expiries)
    }

    pub(crate) fn expiring(
        &self,
        now: SystemTime,
        within: Duration,
    ) -> impl Iterator<Item = &Expiry> {
        self.1.iter().filter(move |expiry| expiry.at <= now + within)
    }

    pub(crate) fn expiries(&self) -> &[Expiry] {
        &self.1
    }
}

impl AsFd for Bundle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Bundle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The keys of another image, which are handed on unread.
#[derive(Debug)]
pub(crate) struct TicketKeys(OwnedFd, Instant);

impl TicketKeys {
    /// # Errors
    /// Always.
    pub(crate) fn new(_: Instant) -> io::Result<Self> {
        Err(io::Error::other(MISSING))
    }

    pub(crate) fn inherit(memory: OwnedFd, rotate_at: Instant) -> Self {
        Self(memory, rotate_at)
    }

    pub(crate) fn rotate_at(&self) -> Instant {
        self.1
    }

    /// Leaves the keys as they are for another day.
    pub(crate) fn rotate(&mut self, now: Instant) {
        if self.1 <= now {
            self.1 = now.after(Duration::from_secs(24 * 3600));
        }
    }
}

impl AsFd for TicketKeys {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for TicketKeys {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) bundle: Bundle,
    pub(crate) tickets: TicketKeys,
}

/// # Errors
/// Always.
pub(crate) fn acceptor(_: &Tls, _: &Material, _: &[&[u8]]) -> io::Result<Acceptor> {
    Err(io::Error::other(MISSING))
}

#[derive(Clone, Debug)]
pub(crate) struct Acceptor(Infallible);

impl Acceptor {
    #[expect(clippy::unused_async, reason = "`tls::Acceptor` waits")]
    pub(crate) async fn accept<S>(&self, _: S, _: usize) -> Result<Session<S>, (io::Error, S)> {
        match self.0 {}
    }
}

pub(crate) struct Session<S>(Infallible, PhantomData<fn(S) -> S>);

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

#[expect(clippy::needless_pass_by_ref_mut, reason = "`tls::Session` changes")]
impl<S> Session<S> {
    pub(crate) fn stream(&self) -> &S {
        match self.0 {}
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        match self.0 {}
    }

    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        match self.0 {}
    }

    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        match self.0 {}
    }

    pub(crate) fn buffered(&mut self) -> usize {
        match self.0 {}
    }

    pub(crate) fn wants_write(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn send_close_notify(&mut self) {
        match self.0 {}
    }
}

impl<S> AsyncRead for Session<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl<S> AsyncWrite for Session<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

/// A client of the health check.
pub(crate) struct Client(Infallible);

impl Client {
    /// # Errors
    /// Always.
    pub(crate) fn new() -> Result<Self, String> {
        Err(MISSING.to_owned())
    }

    /// Hands the stream back: there is no client that could ask for TLS on it.
    #[expect(clippy::unused_self, reason = "`tls::Client` is used")]
    pub(crate) fn over<S: Read + Write>(self, stream: S) -> impl Read + Write {
        stream
    }
}

/// `None`: no certificate can be read.
pub(crate) fn subject(_: &[u8]) -> Option<String> {
    None
}

/// `None`: no certificate can be read.
pub(crate) fn common_name(_: &[u8]) -> Option<String> {
    None
}
