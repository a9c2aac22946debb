//! Clients of protocols that have requests without a connection each, or without an answer each: they count
//! every outcome, and send again what the protocol says was not processed, and nothing else.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::client::Outcome;
use crate::harness::{PATIENCE, eventually};
use crate::load::{Failure, Request};

/// The outcomes that the clients have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    answered: AtomicU64,
    /// Sent again, as the protocol allows.
    again: AtomicU64,
    lost: Mutex<Vec<Lost>>,
}

/// A request that was not answered, and may have been processed, or a connection that was not made.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) request: Request,
    pub(crate) error: String,
    /// True if no socket listened.
    pub(crate) is_refused: bool,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    client: Option<SocketAddr>,
    at: Instant,
}

impl Begun {
    /// A request begins on the connection of this client.
    pub(crate) fn now(client: Option<SocketAddr>) -> Self {
        Self { client, at: Instant::now() }
    }

    /// A further request begins on the same connection.
    pub(crate) fn again(self) -> Self {
        Self { at: Instant::now(), ..self }
    }

    pub(crate) fn on(self, client: Option<SocketAddr>) -> Self {
        Self { client, ..self }
    }
}

impl Seen {
    pub(crate) fn note_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_again(&self) {
        self.again.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_lost(&self, begun: Begun, error: impl ToString, is_refused: bool) {
        let failure = Some(Failure::Outcome(Outcome::CutShort));
        let request =
            Request { client: begun.client, begun: begun.at, ended: Instant::now(), failure };
        let lost = Lost { request, error: error.to_string(), is_refused };
        self.lost.lock().expect("no client panics").push(lost);
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    pub(crate) fn lost(&self) -> Vec<Lost> {
        self.lost.lock().expect("no client panics").clone()
    }

    #[expect(clippy::print_stdout, reason = "figures are printed to be read")]
    pub(crate) fn assert_clean(&self, what: &str) {
        let lost = self.lost();
        println!("{what}: {} answered, {} sent again", self.answered(), self.again());
        assert!(lost.is_empty(), "{what}: {} lost: {:?}", lost.len(), lost.first());
    }
}

/// Clients that run until they are stopped.
#[derive(Debug)]
pub(crate) struct Running {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Begins so many clients, each of which is a future.
    pub(crate) fn begin<F>(
        count: usize,
        client: impl Fn(Arc<Seen>, Arc<AtomicBool>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::new(Seen::default());
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&seen);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut clients = tokio::task::JoinSet::new();
                for _ in 0..count {
                    clients.spawn(client(Arc::clone(&theirs), Arc::clone(&stopped)));
                }
                clients.join_all().await;
            });
        });
        let running = Self { seen, stop, threads: vec![thread] };
        running.wait_for_more(count as u64);
        running
    }

    /// Begins so many clients, each of which is a thread.
    pub(crate) fn begin_threads(
        count: usize,
        client: impl Fn(&Seen, &AtomicBool) + Clone + Send + 'static,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |_| {
            let client = client.clone();
            let seen = Arc::clone(&seen);
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || client(&seen, &stop))
        };
        let threads = (0..count).map(begin).collect();
        let running = Self { seen, stop, threads };
        running.wait_for_more(count as u64);
        running
    }

    pub(crate) fn answered(&self) -> u64 {
        self.seen.answered()
    }

    /// Waits until so many requests more were answered.
    pub(crate) fn wait_for_more(&self, count: u64) {
        let wanted = self.answered() + count;
        eventually("the load goes on", PATIENCE, || (self.answered() >= wanted).then_some(()));
    }

    /// Stops every client behind its request.
    pub(crate) fn finish(self) -> Arc<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("clients do not panic"));
        self.seen
    }
}
