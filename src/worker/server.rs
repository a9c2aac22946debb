//! Serving connections: what those of a worker share, and how each is held.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::conns::{Conns, HeadRoom};
use super::fairness::Asking;
use super::forwarded::Trusted;
use super::io::{Stream, Unproxied, Watched};
use super::proxy::Proxied;
use super::service::Requests;
use super::ticket::Entry;
use super::{Chain, own, ticket};
use crate::client::{Client, Scheme};
use crate::config::{Config, Limits};
use crate::ids::{Generation, Slot};
use crate::listeners::Listeners;
use crate::logging::{self, NamedFields};
use crate::scoreboard::{Place, SlotBoard, WorkerBoard};
use crate::sys::process;

// ORDERING: flags and counters that stand for themselves: Relaxed throughout.
/// What the connections of a worker share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) pid: u32,
    pub(super) limits: Limits,
    pub(super) conns: Conns,
    /// The header fields that the access log names.
    pub(super) fields: NamedFields,
    /// Whose forwarding headers are believed.
    pub(super) forwarders: Trusted,
    /// Who begins with a PROXY header; `None`: nobody.
    proxies: Option<Trusted>,
    router: Router,
    builder: http1::Builder,
    pub(super) connections_max: usize,
    /// Connections that may wait in one queue.
    pub(super) backlog: u32,
    /// Its place on the slots' board.
    pub(super) place: Place,
    pub(super) board: Arc<WorkerBoard>,
    served: AtomicU64,
    /// Requests after which this worker asks to be replaced; 0: never.
    enough: u64,
    /// Told when it has served that many.
    pub(super) served_enough: Notify,
    leaving: AtomicBool,
    insisting: AtomicBool,
    cutting: AtomicBool,
    /// When it was said last that connections cannot be accepted; 0: never.
    pub(super) complained_at: AtomicU64,
    /// Every listener there is, and every slot's bell.
    pub(super) listeners: Mutex<Listeners>,
    pub(super) accepting: Mutex<HashMap<(u16, Slot), JoinHandle<()>>>,
    /// Addresses that are being let go.
    pub(super) closing: Mutex<HashSet<u16>>,
    /// What is remembered of having asked siblings for help.
    pub(super) asking: Mutex<Asking>,
}

impl Server {
    pub(super) fn new(
        (slot, generation): (Slot, Generation),
        config: &Config,
        router: Router,
        (counters, board): (Arc<SlotBoard>, Arc<WorkerBoard>),
        listeners: Listeners,
        enough: u64,
    ) -> Self {
        let pid = std::process::id();
        let place = Place::new(counters, slot, pid);
        Self {
            slot,
            generation,
            pid,
            limits: config.limits.clone(),
            conns: Conns::new(config, Arc::clone(&board), place.clone()),
            fields: logging::named_fields(),
            forwarders: Trusted::new(&config.forwarded_allow_ips),
            proxies: config.proxy_protocol.then(|| Trusted::new(&config.proxy_allow_ips)),
            router,
            builder: builder(config),
            connections_max: connections_max(config.worker_connections, slot),
            backlog: config.backlog,
            place,
            board,
            served: AtomicU64::new(0),
            enough,
            served_enough: Notify::new(),
            leaving: AtomicBool::new(false),
            insisting: AtomicBool::new(false),
            cutting: AtomicBool::new(false),
            complained_at: AtomicU64::new(0),
            listeners: Mutex::new(listeners),
            accepting: Mutex::new(HashMap::new()),
            closing: Mutex::new(HashSet::new()),
            asking: Mutex::default(),
        }
    }

    /// Whether this worker is on its way out, so that connections should end.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// From now on every answer that can be the last one of its connection is.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.place.give_up();
    }

    /// Whether every answer is its connection's last one unless a further request surely waits behind.
    pub(super) fn is_insisting(&self) -> bool {
        self.insisting.load(Ordering::Relaxed)
    }

    /// From now on who is idle is not waited for: an answer that may be the last one is.
    pub(super) fn insist(&self) {
        self.insisting.store(true, Ordering::Relaxed);
    }

    /// Whether what ends from now on is cut off by the worker, not by its client.
    pub(super) fn is_cutting(&self) -> bool {
        self.cutting.load(Ordering::Relaxed)
    }

    /// The worker's time is over: what is open ends with it.
    pub(super) fn cut(&self) {
        self.cutting.store(true, Ordering::Relaxed);
    }

    /// A request is over.
    pub(super) fn count_request(&self) {
        self.place.board().count_request(self.slot);
        if self.enough > 0 && self.served.fetch_add(1, Ordering::Relaxed) + 1 == self.enough {
            self.served_enough.notify_one();
        }
    }

    pub(super) fn serve(self: &Arc<Self>, stream: Stream, peer: Option<SocketAddr>) {
        // Entered before anything else runs: who counts connections sees it at once.
        let entry = Arc::new(Entry::new(self));
        let watched = Watched::new(stream, entry, head_room(&self.limits));
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let mut watched = watched;
            if let Some(peer) = server.peer(&mut watched, peer).await {
                server.converse(watched, peer).await;
            }
        });
    }

    /// Who speaks on a connection: the other end of the socket, or whom a proxy there names. `None`
    /// where there should be a proxy and is none.
    async fn peer(&self, watched: &mut Watched, peer: Option<SocketAddr>) -> Option<Client> {
        match &self.proxies {
            Some(proxies) if proxies.has_peer(peer) => {}
            Some(_) | None => return Some(Client::direct(peer, Scheme::Http)),
        }
        match watched.take_proxy_header().await {
            Ok(Proxied { source, scheme }) => {
                Some(Client::direct(source.or(peer), scheme.unwrap_or_default()))
            }
            Err(Unproxied::Silent) => None,
            Err(Unproxied::Wrong(why)) => {
                let peer = peer.map_or("a unix socket".to_owned(), |peer| peer.to_string());
                tracing::info!("closed a connection from {peer}: {why}");
                None
            }
        }
    }

    /// Requests and answers, until the connection ends, with rests in between.
    async fn converse(self: Arc<Self>, watched: Watched, peer: Client) {
        let entry = Arc::clone(watched.entry());
        let mut awake = watched;
        loop {
            // In a place of its own, which is given back while the connection rests.
            Box::pin(self.speak(awake, peer)).await;
            let Some(stream) = entry.woken().await else { return };
            awake = Watched::new(stream, Arc::clone(&entry), head_room(&self.limits));
        }
    }

    /// Requests and answers, until the connection ends or rests.
    async fn speak(self: &Arc<Self>, watched: Watched, peer: Client) {
        let conn = Arc::clone(&watched.entry().conn);
        let requests = Requests {
            router: self.router.clone(),
            entry: Arc::clone(watched.entry()),
            socket: watched.socket(),
            peer,
            is_forwarder: self.forwarders.has_peer(peer.peer()),
        };
        let io = TokioIo::new(watched);
        let mut serving = pin!(self.builder.serve_connection(io, requests).with_upgrades());
        let result = loop {
            tokio::select! {
                biased;
                result = serving.as_mut() => break result,
                // It is polled again, and finds out why.
                () = conn.kicked.notified() => {}
            }
        };
        let by_hyper = || own::status_of(result.as_ref().err()?);
        if let Some(status) = conn.refused().or_else(by_hyper) {
            ticket::log_unread(self, &conn, peer, status);
        }
        if let Err(error) = result {
            tracing::debug!("a connection ended badly: {}", Chain(&error));
        }
    }
}

/// Files that an application may open besides while it serves: connections of its own, to a database
/// for one. What a worker has open when it begins, as every slot's listeners, is counted.
const OTHER_FILES: u64 = 64;

/// Connections that a worker takes: as many as configured, as long as it may have the files open. One
/// more would be accepted by nobody, and would not go to a sibling that has room.
fn connections_max(configured: u32, slot: Slot) -> usize {
    let files = process::raise_files_max().unwrap_or(u64::MAX);
    let free = files.saturating_sub(process::files_open().unwrap_or(OTHER_FILES));
    let room = free - OTHER_FILES.min(free / 4);
    if room < configured.into() && slot == Slot::new(0) {
        tracing::warn!(
            "worker_connections is {configured}, and a process may have {files} files open here: \
             each worker takes {room} connections at the most"
        );
    }
    usize::try_from(room.min(configured.into())).unwrap_or(usize::MAX)
}

fn builder(config: &Config) -> http1::Builder {
    let limits = &config.limits;
    // Not `pipeline_flush`: it holds back the answer to a request that cannot be parsed.
    let mut builder = http1::Builder::new();
    builder
        // Our own sweep has the timeouts.
        .header_read_timeout(None)
        .keep_alive(!config.keepalive.is_zero())
        // A client that has said all it has to say may still read.
        .half_close(true)
        // For who sends far more than is allowed: hyper's own answer says nothing.
        .max_buf_size(head_max(limits));
    if limits.request_fields > HYPER_FIELDS_MAX {
        builder.max_headers(limits.request_fields);
    }
    builder
}

/// What is refused in words while its head comes in.
fn head_room(limits: &Limits) -> HeadRoom {
    let room = head_max(limits) - FIELDS_ROOM;
    HeadRoom { line: room, head: room }
}

/// Header fields that hyper takes by itself. Told of any other number, it allocates for every request
/// what otherwise has room on its stack: a twentieth of what a short request costs.
const HYPER_FIELDS_MAX: usize = 100;

/// Bytes that a request's head may have altogether.
fn head_max(limits: &Limits) -> usize {
    HEAD_MAX.max(limits.request_line + limits.request_field_size + 2 * FIELDS_ROOM)
}

/// Bytes that a head may have in any case.
const HEAD_MAX: usize = 64 * 1024;
/// Bytes of them that are for other things than the request line and one long field.
const FIELDS_ROOM: usize = 8 * 1024;
