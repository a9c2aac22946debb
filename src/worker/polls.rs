//! The time since which each thread of the event loop has been in the code of a connection.
//!
//! # Why
//! The heartbeat is one task: with several threads it goes on while a handler blocks one of them. So
//! each thread notes when it begins and ends the poll of a connection, and the heartbeat is no younger
//! than the longest poll. A worker with one thread needs none of it: its heartbeat waits for the same
//! thread. A thread that is blocked by a task of the application's own, which no connection polls, is
//! not seen.
//!
//! # Why a thread keeps the time
//! A runtime learns of due timers on one of its idle threads. When that one wakes and is blocked by what
//! has woken it, no other may watch the timers: the heartbeat and the sweep would stop with a thread at
//! rest beside them. A wake from outside of the runtime always reaches a thread at rest.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;

use crate::sys::clock;
use crate::time::Instant;

/// When a thread's poll began, in milliseconds of the monotonic clock; 0: it polls no connection.
type Since = AtomicU64;

/// The threads of this process that have polled a connection.
static THREADS: Mutex<Vec<Weak<Since>>> = Mutex::new(Vec::new());

thread_local! {
    static SINCE: Arc<Since> = enroll();
}

/// Adds this thread to the list, and removes those that have ended.
fn enroll() -> Arc<Since> {
    let since = Arc::new(Since::new(0));
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    threads.retain(|thread| thread.strong_count() > 0);
    threads.push(Arc::downgrade(&since));
    since
}

// ORDERING: each time stands for itself: Relaxed.
/// Sets the time of this thread's poll. A thread that ends has none.
fn set(millis: u64) {
    let _ended = SINCE.try_with(|since| since.store(millis, Ordering::Relaxed));
}

/// Starts the time of this thread's poll anew, if it is in one: it waits for the logger, not for the
/// code of the application.
pub(super) fn renew() {
    let _ended = SINCE.try_with(|since| {
        if since.load(Ordering::Relaxed) != 0 {
            since.store(clock::coarse_millis(), Ordering::Relaxed);
        }
    });
}

/// Returns the heartbeat that is true at `now`: the beginning of the longest poll, if that has taken
/// longer than `least`.
pub(super) fn heartbeat(now: Instant, least: Duration) -> Instant {
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let times = threads.iter().filter_map(|thread| Some(thread.upgrade()?.load(Ordering::Relaxed)));
    let oldest = times.filter(|since| *since != 0).min().map(Instant::from_millis);
    oldest.filter(|since| now.since(*since) > least).unwrap_or(now)
}

pin_project_lite::pin_project! {
    /// A connection's task whose polls are noted.
    pub(super) struct Noted<F> {
        #[pin]
        task: F,
    }
}

impl<F> Noted<F> {
    pub(super) fn new(task: F) -> Self {
        Self { task }
    }
}

/// Ends the note also where the poll panics.
struct Note;

impl Drop for Note {
    fn drop(&mut self) {
        set(0);
    }
}

impl<F: Future> Future for Noted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        set(clock::coarse_millis());
        let _note = Note;
        self.project().task.poll(cx)
    }
}

/// Sleeps for the heartbeat of a worker with several threads.
#[derive(Debug)]
pub(super) struct Metronome {
    pauses: Sender<Duration>,
    due: Arc<Notify>,
}

impl Metronome {
    /// Starts the thread that keeps the time. It ends with this.
    ///
    /// # Errors
    /// The system's report about threads.
    pub(super) fn start() -> io::Result<Self> {
        let (pauses, received) = mpsc::channel();
        let due = Arc::new(Notify::new());
        let told = Arc::clone(&due);
        std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || keep_time(&received, &told))?;
        Ok(Self { pauses, due })
    }

    /// Waits for so long. A pause that was dropped before its end may shorten the next one.
    pub(super) async fn pause(&self, duration: Duration) {
        match self.pauses.send(duration) {
            Ok(()) => self.due.notified().await,
            Err(_ended) => tokio::time::sleep(duration).await,
        }
    }
}

/// Notifies at the end of each pause; the last one that was asked for counts.
fn keep_time(pauses: &Receiver<Duration>, due: &Notify) {
    while let Ok(mut pause) = pauses.recv() {
        loop {
            match pauses.recv_timeout(pause) {
                Ok(another) => pause = another,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        due.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    const LEAST: Duration = Duration::from_secs(5);

    /// One test, since the list of threads is the process's.
    #[test]
    fn heartbeat_is_no_younger_than_the_longest_poll() {
        let now = Instant::from_millis(clock::coarse_millis());
        let later = |seconds| now.after(Duration::from_secs(seconds));
        let noted = Noted::new(std::future::poll_fn(|_| {
            let since = heartbeat(later(60), LEAST);
            assert!(since < later(50), "a poll that goes on: {since:?}");
            assert_eq!(heartbeat(since.after(LEAST), LEAST), since.after(LEAST));
            renew();
            Poll::Ready(())
        }));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(pin!(noted).poll(cx).is_ready());
        assert_eq!(heartbeat(later(60), LEAST), later(60), "no poll goes on");
        renew();
        assert_eq!(heartbeat(later(60), LEAST), later(60), "only a poll is renewed");
        let panics = std::panic::catch_unwind(|| {
            let noted = Noted::new(async { panic!("as a handler does") });
            let _: Poll<()> = pin!(noted).poll(&mut Context::from_waker(Waker::noop()));
        });
        assert!(panics.is_err());
        assert_eq!(heartbeat(later(60), LEAST), later(60), "a panic ends the poll");
    }

    #[test]
    fn metronome_notifies_after_the_last_pause() {
        let metronome = Metronome::start().expect("a thread");
        let runtime = super::super::runtime(1, |_| ()).expect("a runtime");
        runtime.block_on(async {
            let long = metronome.pause(Duration::from_secs(3600));
            let begun = tokio::time::timeout(Duration::ZERO, long).await;
            assert!(begun.is_err(), "an hour is not over");
            metronome.pause(Duration::from_millis(1)).await;
            metronome.pause(Duration::from_millis(1)).await;
        });
    }
}
