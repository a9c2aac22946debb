//! The rest of a connection: when it may begin, and how it goes on in another worker.

use std::sync::atomic::{AtomicBool, Ordering};

use super::conn::Conn;
use super::waits::Wait;
use crate::sys::clock;
use crate::time::Instant;

/// The facts that decide if a connection may rest, which is to begin anew with the next byte.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// True while something reads the body of the last request.
    is_reading: AtomicBool,
    /// True if bytes of the last request may still come, or bytes of the next one have come.
    is_open: AtomicBool,
}

// ORDERING: each value is for the connection's own task: Relaxed.
impl Rest {
    /// Notes that the last request was answered, and whether it was surely read to its end.
    pub(super) fn note_answered(&self, is_whole: bool) {
        self.is_open.store(!is_whole, Ordering::Relaxed);
    }
}

impl Conn {
    /// Something reads the body of the request in hand from now on, or does not any more.
    pub(crate) fn note_reading(&self, is_reading: bool) {
        self.rest.is_reading.store(is_reading, Ordering::Relaxed);
    }

    /// Returns true if the next byte is the first one of a request. What has begun to rest begins anew with
    /// it.
    pub(crate) fn may_rest(&self) -> bool {
        let Rest { is_reading, is_open } = &self.rest;
        !is_reading.load(Ordering::Relaxed) && !is_open.load(Ordering::Relaxed)
    }

    /// It was idle in another worker, since then.
    pub(crate) fn set_idle(&self, since: Instant) {
        self.set(Wait::Next);
        self.since.store(since.as_millis().min(clock::coarse_millis()), Ordering::Relaxed);
    }

    /// Since when it has been idle.
    pub(crate) fn idle_since(&self) -> Instant {
        Instant::from_millis(self.since.load(Ordering::Relaxed))
    }
}
