//! Clients that keep a server busy while something happens to it. They count every outcome, and none
//! of them repeats a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Address, Connection, Outcome, Response};

/// The deeds of a client, again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    /// One request after another on a connection, with a pause between; connects anew when it was told
    /// that the connection would be closed. `watches` looks for the server's end before it sends.
    KeepAlive { pause: Duration, watches: bool },
    /// A connection for each request.
    PerRequest,
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

/// The clients' view.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) failed: BTreeMap<Failure, u64>,
    /// Of each answered request.
    pub(crate) latencies: Vec<Duration>,
    /// When each answer came.
    pub(crate) times: Vec<Instant>,
    /// Each request that had a connection.
    pub(crate) requests: Vec<Request>,
    /// Each that had none.
    pub(crate) unconnected: Vec<Request>,
    /// The answer to each POST.
    pub(crate) posted: Vec<Vec<u8>>,
}

/// One request as its client saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// The client's end of its connection, over TCP.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) failure: Option<Failure>,
}

impl Request {
    pub(crate) fn took(&self) -> Duration {
        self.ended - self.begun
    }
}

/// The failure of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    Outcome(Outcome),
    Status(u16),
}

/// So many clients of this kind, for this request.
pub(crate) struct Crowd {
    pub(crate) count: usize,
    pub(crate) client: Client,
    pub(crate) request: String,
    /// The status that is right.
    pub(crate) status: u16,
}

impl Crowd {
    /// Clients that GET the root.
    pub(crate) fn get(count: usize, client: Client) -> Self {
        Self { count, client, request: crate::client::get("/"), status: 200 }
    }
}

impl Load {
    /// Begins, and returns when every client has had an answer.
    pub(crate) fn begin(address: &Address, crowds: &[Crowd]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        for crowd in crowds {
            for _ in 0..crowd.count {
                let address = address.clone();
                let stop = stop.clone();
                let answered = answered.clone();
                let client = crowd.client;
                let request = crowd.request.clone();
                let status = crowd.status;
                clients.push(std::thread::spawn(move || {
                    run(client, &address, &request, status, &stop, &answered)
                }));
            }
        }
        let load = Self { stop, answered, clients };
        load.wait_for_more(load.clients.len() as u64);
        load
    }

    /// Requests answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many requests more were answered.
    pub(crate) fn wait_for_more(&self, count: u64) {
        let wanted = self.answered() + count;
        crate::harness::eventually("the load goes on", crate::harness::PATIENCE, || {
            (self.answered() >= wanted).then_some(())
        });
    }

    /// Stops every client behind its request.
    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            all.add(client.join().expect("clients do not panic"));
        }
        all.times.sort_unstable();
        all.latencies.sort_unstable();
        all
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        for (failure, count) in other.failed {
            *self.failed.entry(failure).or_default() += count;
        }
        self.latencies.extend(other.latencies);
        self.times.extend(other.times);
        self.requests.extend(other.requests);
        self.unconnected.extend(other.unconnected);
        self.posted.extend(other.posted);
    }

    fn note(&mut self, begun: Instant, status: u16, result: Result<&Response, Outcome>) -> Request {
        let ended = Instant::now();
        let failure = match result {
            Ok(response) if response.status == status => None,
            Ok(response) => Some(Failure::Status(response.status)),
            Err(outcome) => Some(Failure::Outcome(outcome)),
        };
        match failure {
            None => {
                self.answered += 1;
                self.latencies.push(ended - begun);
                self.times.push(ended);
            }
            Some(failure) => *self.failed.entry(failure).or_default() += 1,
        }
        Request { client: None, begun, ended, failure }
    }

    /// The view of the clients of both loads.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.add(other);
        self.times.sort_unstable();
        self.latencies.sort_unstable();
        self
    }

    /// Requests that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// The requests that failed, but for those that were let in no more after this moment: a server that
    /// was told to stop by then refuses them.
    pub(crate) fn cut_off(&self, since: Instant) -> Vec<&Request> {
        let is_late = |it: &&Request| match it.failure {
            Some(Failure::Outcome(Outcome::Refused | Outcome::NotConnected)) => it.ended >= since,
            Some(_) | None => false,
        };
        let unconnected = self.unconnected.iter().filter(|unconnected| !is_late(unconnected));
        let failed = self.requests.iter().filter(|request| request.failure.is_some());
        unconnected.chain(failed).collect()
    }

    /// No request may have failed.
    pub(crate) fn assert_clean(&self) {
        assert!(self.answered > 0, "nothing was answered");
        assert!(self.failed.is_empty(), "{} answered, failed: {:?}", self.answered, self.failed);
    }

    /// The latency that this share of the answers did not exceed.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let at = (self.latencies.len() as f64 * share) as usize;
        self.latencies[at.min(self.latencies.len() - 1)]
    }

    /// The longest time between two answers.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

fn run(
    client: Client,
    address: &Address,
    request: &str,
    status: u16,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<Connection> = None;
    let is_post = request.starts_with("POST ");
    while !stop.load(Ordering::Relaxed) {
        if let Client::KeepAlive { watches: true, .. } = client {
            kept = kept.take().filter_map_alive();
        }
        let begun = Instant::now();
        let connection = kept.take().map_or_else(|| Connection::open(address), Ok);
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(outcome) => {
                let request = tally.note(begun, status, Err(outcome));
                tally.unconnected.push(request);
                continue;
            }
        };
        let text = match client {
            Client::KeepAlive { .. } => request.to_owned(),
            Client::PerRequest => request.replacen("\r\n", "\r\nconnection: close\r\n", 1),
        };
        let result = connection.send(text).and_then(|()| connection.response());
        let noted = tally.note(begun, status, result.as_ref().map_err(|outcome| *outcome));
        tally.requests.push(Request { client: connection.local(), ..noted });
        if let Ok(response) = result {
            if is_post && noted.failure.is_none() {
                tally.posted.push(response.body.clone());
            }
            answered.fetch_add(1, Ordering::Relaxed);
            if let Client::KeepAlive { pause, .. } = client {
                kept = (!response.closes()).then_some(connection);
                std::thread::sleep(pause);
            }
        }
    }
    tally
}

trait Alive {
    fn filter_map_alive(self) -> Self;
}

impl Alive for Option<Connection> {
    /// The connection, unless the server has ended it.
    fn filter_map_alive(self) -> Self {
        self.and_then(|mut connection| (!connection.is_ended()).then_some(connection))
    }
}
