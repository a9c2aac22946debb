//! Our descriptors in a tokio event loop.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::acceptor::Acceptor;
use super::bell::Bell;
use super::channel::Lower;
use super::notes::NoteSocket;
use super::relay::Taker;
use super::signals::Signals;

/// Types that own one descriptor, the same one for as long as they live.
pub(crate) trait Owner: AsRawFd {}
impl Owner for Acceptor {}
impl Owner for Bell {}
impl Owner for Lower {}
impl Owner for NoteSocket {}
impl Owner for Signals {}
impl Owner for Taker {}

/// Has the event loop tell when there is something to read.
///
/// # Errors
/// The error of epoll_ctl(2).
///
/// # Panics
/// Outside a runtime.
pub(crate) fn readable<T: Owner>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: an `Owner` holds the descriptor open, and always the same, until it is dropped.
    #[expect(unsafe_code, reason = "AsRawFd promises nothing about lifetimes")]
    let registered = unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) };
    Ok(registered?)
}
