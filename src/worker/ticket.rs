//! What is kept of a request until it is over: for its access line, its limits and its counters.
//!
//! # When a request is over
//! hyper drops an answer as soon as it has taken the last of it, which may be long before the client
//! has: an answer of 64 MiB is one piece. So the account of a request waits beside its connection until
//! all that hyper had to write is with the kernel, or is so little that the next write gives it the kernel
//! whole. What is there still when the stream ends was not
//! answered, whatever its head said; and what a worker had in hand that is killed is on its board.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri, Version, request};

use super::conns::{Conn, Kick, Wait};
use super::io::Stream;
use super::server::Server;
use super::turns;
use crate::client::{Client, Scheme};
use crate::logging::{self, Field, Outcome, Record};
use crate::request_id::RequestId;
use crate::sys::clock;

/// A connection's entry among the open ones, shared by its stream and its requests. Its number is free
/// for another connection when all of them are gone: a request has its place on the board by it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) conn: Arc<Conn>,
    pub(super) server: Arc<Server>,
    departing: Mutex<Departing>,
    /// The stream, while the connection rests.
    resting: Mutex<Stream>,
}

/// The request whose answer hyper has taken, but not yet the kernel.
#[derive(Debug, Default)]
enum Departing {
    #[default]
    Nobody,
    One(Box<Account>),
    /// It was told of already; the last of its answer is being written.
    Told,
    /// There is no stream any more.
    Closed,
}

impl Entry {
    /// A connection was accepted.
    pub(super) fn new(server: &Arc<Server>) -> Self {
        let conn = server.conns.enter();
        Self {
            conn,
            server: Arc::clone(server),
            departing: Mutex::default(),
            resting: Mutex::default(),
        }
    }

    /// A request has come in.
    pub(super) fn begin(&self) {
        // The answer before it may be on its way: it was given before all of its request had come.
        self.note_flushed();
        self.conn.note_request();
        turns::note_request();
    }

    /// There is nothing more to write: the kernel has all of it.
    pub(super) fn note_flushed(&self) {
        // At other times none is on its way.
        if !matches!(self.conn.wait(), Wait::Answer | Wait::Body | Wait::Other) {
            return;
        }
        match self.replace(Departing::Nobody) {
            Some(Departing::One(account)) => self.end(&account),
            Some(_) => self.await_next(),
            None => {}
        }
    }

    /// The last of an answer is about to be written, and is sure to be taken: what is told of its request
    /// is told, but the connection waits for nothing else yet.
    pub(super) fn note_last_write(&self) {
        if !matches!(self.conn.wait(), Wait::Answer | Wait::Body | Wait::Other) {
            return;
        }
        if let Some(Departing::One(account)) = self.replace(Departing::Told) {
            self.tell(&account);
        }
    }

    /// The connection rests: nobody reads the stream until it is taken back.
    pub(super) fn rest(&self, stream: Stream) {
        self.server.conns.note_rest(&self.conn);
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }

    /// The stream of a connection that rests, when it is needed again: something came in, or it is time
    /// to end it. `None` when it has ended already.
    pub(super) async fn woken(&self) -> Option<Stream> {
        let stream =
            std::mem::take(&mut *self.resting.lock().unwrap_or_else(PoisonError::into_inner));
        if matches!(stream, Stream::Gone) {
            return None;
        }
        loop {
            tokio::select! {
                // An error is hyper's to find.
                _ = stream.has_more() => break,
                // What made it rest may be told once more.
                () = self.conn.kicked.notified() => if self.conn.kick() != Kick::Rest { break },
            }
        }
        self.conn.note_rest(false);
        Some(stream)
    }

    /// The stream has ended.
    pub(super) fn close(&self) {
        let before = std::mem::replace(&mut *self.lock(), Departing::Closed);
        if let Departing::One(account) = before {
            self.give_up(account);
        }
    }

    /// hyper has all of the answer, or nobody waits for it any more.
    fn depart(&self, account: Box<Account>) {
        let mut departing = self.lock();
        if matches!(*departing, Departing::Closed) || account.outcome == Outcome::Aborted {
            drop(departing);
            self.give_up(account);
        } else {
            *departing = Departing::One(account);
        }
    }

    /// Who is departing, if somebody is: this stands in his place from now on.
    fn replace(&self, by: Departing) -> Option<Departing> {
        let mut departing = self.lock();
        match &*departing {
            Departing::One(_) | Departing::Told => Some(std::mem::replace(&mut *departing, by)),
            Departing::Nobody | Departing::Closed => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Departing> {
        self.departing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was not answered, or not to the end. How much of it has reached the client is not known.
    fn give_up(&self, mut account: Box<Account>) {
        account.outcome = if self.server.is_cutting() { Outcome::Lost } else { Outcome::Aborted };
        account.sent = 0;
        self.end(&account);
    }

    /// The request is over.
    fn end(&self, account: &Account) {
        self.await_next();
        self.tell(account);
    }

    fn await_next(&self) {
        if self.conn.wait() != Wait::Other {
            self.conn.set(Wait::Next);
        }
    }

    /// Counts the request, and writes its line.
    fn tell(&self, account: &Account) {
        let server = &self.server;
        server.count_request();
        let record = Record {
            remote: account.client.address(),
            started: account.started,
            elapsed: account.elapsed(),
            method: &account.method,
            target: &account.target,
            version: account.version,
            request_headers: &account.request_headers,
            outcome: account.outcome,
            response_headers: &account.response_headers,
            bytes: account.sent,
            pid: server.pid,
            slot: server.slot,
            generation: server.generation,
            request_id: Some(account.id.as_str()),
            scheme: account.client.scheme().as_str(),
        };
        // A worker that dies in between has left a note whether the line was written or given up.
        let entry = server.board.entry(self.conn.number);
        logging::access(&record, |settled| {
            if let Some(entry) = &entry {
                entry.note_line(settled);
            }
        });
        if let Some(entry) = &entry {
            entry.clear();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.server.conns.leave(&self.conn);
    }
}

/// One request in hand. Dropped when hyper has its answer, or when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Ticket {
    entry: Arc<Entry>,
    /// Taken when it is dropped.
    account: Option<Box<Account>>,
    /// Length of the request's body; `None`: it comes in chunks.
    pub(super) body: Option<u64>,
}

/// What is told of a request when it is over.
#[derive(Debug)]
struct Account {
    /// Bytes of the answer's body that were handed to the connection.
    sent: u64,
    client: Client,
    id: RequestId,
    started: SystemTime,
    clock: Instant,
    method: Method,
    target: Uri,
    version: Version,
    /// The fields that the access log names.
    request_headers: Vec<Field>,
    response_headers: Vec<Field>,
    outcome: Outcome,
}

impl Ticket {
    pub(super) fn new(
        entry: &Arc<Entry>,
        head: &request::Parts,
        (client, id, request_headers): (Client, RequestId, Vec<Field>),
    ) -> Self {
        let started = clock::wall();
        if let Some(entry) = entry.server.board.entry(entry.conn.number) {
            entry.fill(client.address(), started, &head.method, &head.uri, head.version);
        }
        // In a place of its own: it passes through many hands, each of which would move all of it.
        let account = Box::new(Account {
            sent: 0,
            client,
            id,
            started,
            clock: clock::now(),
            method: head.method.clone(),
            target: head.uri.clone(),
            version: head.version,
            request_headers,
            response_headers: Vec::new(),
            outcome: Outcome::Aborted,
        });
        Self { entry: Arc::clone(entry), account: Some(account), body: None }
    }

    fn account(&self) -> &Account {
        self.account.as_ref().expect("it is there until the end")
    }

    fn account_mut(&mut self) -> &mut Account {
        self.account.as_mut().expect("it is there until the end")
    }

    pub(super) fn id(&self) -> &RequestId {
        &self.account().id
    }

    /// How its client reaches the service.
    pub(super) fn scheme(&self) -> Scheme {
        self.account().client.scheme()
    }

    /// The head of the answer stands.
    pub(super) fn note_head<B>(&mut self, response: &Response<B>) {
        let headers = kept(response.headers(), &self.server.fields.response);
        let account = self.account_mut();
        account.outcome = Outcome::Status(response.status());
        account.response_headers = headers;
    }

    /// So many bytes more of the answer's body were handed to the connection.
    pub(super) fn note_sent(&mut self, bytes: usize) {
        self.account_mut().sent += bytes as u64;
    }

    pub(super) fn warn_of_timeout(&self) {
        let account = self.account();
        let seconds = account.elapsed().as_secs_f32();
        tracing::warn!(
            "answered 504 to {method} {path}: no answer after {seconds:.1} s",
            method = account.method,
            path = account.target.path(),
        );
    }

    pub(super) fn warn_of_panic(&self) {
        let account = self.account();
        tracing::error!(
            "answered 500 to {method} {path}: its handler panicked",
            method = account.method,
            path = account.target.path(),
        );
    }
}

impl Account {
    fn elapsed(&self) -> Duration {
        clock::now().duration_since(self.clock)
    }
}

impl Deref for Ticket {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(account) = self.account.take() {
            self.entry.depart(account);
        }
    }
}

/// The fields with these names.
fn kept(headers: &HeaderMap, names: &[HeaderName]) -> Vec<Field> {
    let values = |name| headers.get_all(name).iter().map(move |value| (name, value));
    let fields = names.iter().flat_map(values);
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Accounts for an answer to what never became a request: its head took too long, or was none.
pub(super) fn log_unread(server: &Server, conn: &Conn, client: Client, status: StatusCode) {
    let elapsed = conn.waited();
    server.count_request();
    let record = Record {
        remote: client.address(),
        started: clock::wall().checked_sub(elapsed).unwrap_or(SystemTime::UNIX_EPOCH),
        elapsed,
        method: &Method::GET,
        target: &Uri::default(),
        version: Version::HTTP_11,
        request_headers: &[],
        outcome: Outcome::Unread(status),
        response_headers: &[],
        bytes: 0,
        pid: server.pid,
        slot: server.slot,
        generation: server.generation,
        request_id: None,
        scheme: client.scheme().as_str(),
    };
    logging::access(&record, |_| {});
}
