//! Serving connections: what those of a worker share, and how each is held.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Version, request};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::accept::fairness::Asking;
use super::connection::conns::Conns;
use super::connection::heads::HeadRoom;
use super::connection::socket::Socket;
use super::connection::stream::Stream;
use super::events::WorkerEvent;
use super::heartbeat::heartbeat_interval;
use super::http::handshake::Unproxied;
use super::http::io::Watched;
use super::http::unread;
use super::long::Longs;
use super::polls::Noted;
use super::proxy::forwarded::Trusted;
use super::proxy::header::Proxied;
use super::relay::Relaying;
use super::request::health::Health;
use super::request::own;
use super::request::record::ConnEntry;
use super::request::service::Requests;
use crate::access_format::NamedFields;
use crate::config::{Config, ForwardedFields, Http2, Limits};
use crate::ids::{Generation, Slot};
use crate::listeners::Listeners;
use crate::logging::{self, Chain};
use crate::request::body_limits::BodyLimits;
use crate::request::client::{Client, Scheme};
use crate::request::draining::Draining;
use crate::request::local::Origin;
use crate::scoreboard::{SlotBoard, SlotRow, WorkerBoard};
use crate::sys::{clock, process};
use crate::tls::Acceptor;

/// The part that the application gives a worker.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    pub(super) router: Router,
    /// Those of listeners with a name.
    pub(super) named: Vec<(&'static str, Router)>,
    /// True if requests for tunnels are the application's.
    pub(super) takes_connect: bool,
    /// The layers that the server's own answers pass through; `None`: nothing.
    pub(super) own_answers: Option<Router>,
    pub(super) body_limits: BodyLimits,
    pub(super) health: Arc<Health>,
    /// The TLS configuration of connections to TLS addresses.
    pub(super) tls: Option<Acceptor>,
    pub(super) draining: Draining,
}

impl Routes {
    /// Returns true if this request, which opens a tunnel, is the application's.
    pub(super) fn takes_tunnel(&self, head: &request::Parts) -> bool {
        self.takes_connect
            && head.method == Method::CONNECT
            && head.version == Version::HTTP_11
            && head.uri.authority().is_some_and(|authority| authority.port().is_some())
    }

    /// Those of the listeners with this name.
    fn of(&self, listener: Option<&'static str>) -> &Router {
        let named = |name| self.named.iter().find(|(other, _)| *other == name);
        listener.and_then(named).map_or(&self.router, |(_, router)| router)
    }
}

/// A worker's position in the server, and the memory that it shares with the others.
pub(super) struct Position {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) counters: Arc<SlotBoard>,
    pub(super) board: Arc<WorkerBoard>,
}

// ORDERING: flags and counters that stand for themselves: Relaxed throughout.
/// The part that the connections of a worker share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) pid: u32,
    pub(super) limits: Limits,
    pub(super) conns: Conns,
    /// The answers and protocols without an end of their own.
    pub(super) longs: Longs,
    /// The header fields that the access log names.
    pub(super) fields: NamedFields,
    /// Whose forwarding headers are believed.
    pub(super) forwarders: Trusted,
    /// Which of them.
    pub(super) forwarded_fields: ForwardedFields,
    /// The peers that begin with a PROXY header; `None`: none.
    proxies: Option<Trusted>,
    pub(super) routes: Routes,
    pub(super) http2: Http2,
    /// A request that takes as long is logged with its phases.
    pub(super) slow: Option<Duration>,
    /// True if log lines have how long a connection waited to be accepted.
    pub(super) logs_queue_wait: bool,
    /// Connections are kept after an answer (`keepalive` is not zero).
    pub(super) keeps_alive: bool,
    builder: http1::Builder,
    pub(super) connections_max: usize,
    /// True if several threads poll the connections.
    is_threaded: bool,
    pub(super) heartbeat_interval: Duration,
    /// Connections that may wait in one queue.
    pub(super) backlog: u32,
    /// Its place on the slots' board.
    pub(super) place: SlotRow,
    pub(super) board: Arc<WorkerBoard>,
    served: AtomicU64,
    /// Requests after which this worker asks to be replaced; 0: never.
    enough: u64,
    /// Told when it has served that many.
    pub(super) served_enough: Notify,
    drains: AtomicBool,
    insisting: AtomicBool,
    cutting: AtomicBool,
    /// When it was said last that connections cannot be accepted; 0: never.
    pub(super) complained_at: AtomicU64,
    /// When it was said last that clients wait for room; 0: never.
    pub(super) full_said_at: AtomicU64,
    /// When it was last reported that TLS came in on a plain address; 0: never.
    tls_reported_at: AtomicU64,
    /// When it was last reported that a client of HTTP/2 was cut off; 0: never.
    flood_reported_at: AtomicU64,
    /// When it was last reported that plain HTTP came in on an address of TLS; 0: never.
    plain_reported_at: AtomicU64,
    /// Every listener there is, and every slot's bell.
    pub(super) listeners: Mutex<Listeners>,
    pub(super) accepting: Mutex<HashMap<(u16, Slot), JoinHandle<()>>>,
    /// Addresses that are being let go.
    pub(super) closing: Mutex<HashSet<u16>>,
    /// The memory of having asked siblings for help.
    pub(super) asking: Mutex<Asking>,
    pub(super) relaying: Relaying,
}

impl Server {
    pub(super) fn new(
        position: Position,
        config: &Config,
        routes: Routes,
        listeners: Listeners,
        enough: u64,
    ) -> Self {
        let Position { slot, generation, counters, board } = position;
        let pid = std::process::id();
        let place = SlotRow::new(counters, slot, pid);
        let fields = logging::named_fields();
        let logs_queue_wait = config.log.slow.is_some() || fields.queue_wait;
        Self {
            slot,
            generation,
            pid,
            limits: config.limits.clone(),
            conns: Conns::new(config, Arc::clone(&board), place.clone(), routes.draining.clone()),
            longs: Longs::default(),
            fields,
            forwarded_fields: config.forwarded_fields,
            forwarders: Trusted::new(&config.forwarded_allow_ips),
            proxies: config.proxy_protocol.then(|| Trusted::new(&config.proxy_allow_ips)),
            routes,
            http2: config.http2,
            slow: config.log.slow,
            logs_queue_wait,
            keeps_alive: !config.keepalive.is_zero(),
            builder: builder(config),
            connections_max: connections_max(config.worker_connections, slot),
            is_threaded: config.threads > 1,
            heartbeat_interval: heartbeat_interval(config.stall_timeout),
            backlog: config.backlog,
            place,
            board,
            served: AtomicU64::new(0),
            enough,
            served_enough: Notify::new(),
            drains: AtomicBool::new(false),
            insisting: AtomicBool::new(false),
            cutting: AtomicBool::new(false),
            complained_at: AtomicU64::new(0),
            full_said_at: AtomicU64::new(0),
            tls_reported_at: AtomicU64::new(0),
            plain_reported_at: AtomicU64::new(0),
            flood_reported_at: AtomicU64::new(0),
            listeners: Mutex::new(listeners),
            accepting: Mutex::new(HashMap::new()),
            closing: Mutex::new(HashSet::new()),
            asking: Mutex::default(),
            relaying: Relaying::default(),
        }
    }

    /// Returns true if this worker drains, so that connections should end.
    pub(super) fn is_draining(&self) -> bool {
        self.drains.load(Ordering::Relaxed)
    }

    /// Returns true if an answer that can be its connection's last one should be: the worker drains, the
    /// server will stop, or clients wait for room.
    pub(super) fn is_closing(&self) -> bool {
        self.is_draining() || self.conns.is_short() || self.routes.health.is_stopping()
    }

    /// The server will stop, and serves on until then: it is not ready any more, and connections end
    /// with their next answer, so that balancers send clients elsewhere.
    pub(super) fn announce(&self) {
        self.routes.health.stop();
    }

    /// From now on every answer that can be the last one of its connection is.
    pub(super) fn drain(&self) {
        self.drains.store(true, Ordering::Relaxed);
        self.conns.say_goodbye();
        self.place.give_up();
    }

    /// Returns true if every answer is its connection's last one unless a further request surely waits
    /// behind.
    pub(super) fn is_insisting(&self) -> bool {
        self.insisting.load(Ordering::Relaxed)
    }

    /// From now on who is idle is not waited for: an answer that may be the last one is.
    pub(super) fn insist(&self) {
        self.insisting.store(true, Ordering::Relaxed);
    }

    /// Returns true if what ends from now on is cut off by the worker, not by its client.
    pub(super) fn is_cutting(&self) -> bool {
        self.cutting.load(Ordering::Relaxed)
    }

    /// The worker's time is over: what is open ends with it.
    pub(super) fn cut(&self) {
        self.cutting.store(true, Ordering::Relaxed);
        self.longs.cut_all();
        self.conns.wake_all();
    }

    /// A client has sent TLS; reported once a minute.
    pub(super) fn warn_of_tls(&self, peer: Option<SocketAddr>) {
        if is_due(&self.tls_reported_at) {
            let peer = peer.map_or("a unix socket".to_owned(), |peer| peer.to_string());
            logging::emit(&WorkerEvent::TlsOnPlainAddress { peer });
        }
    }

    /// A client has sent plain HTTP to an address of TLS; reported once a minute.
    pub(super) fn warn_of_plain(&self, peer: Option<SocketAddr>) {
        if is_due(&self.plain_reported_at) {
            let peer = peer.map_or("a unix socket".to_owned(), |peer| peer.to_string());
            logging::emit(&WorkerEvent::PlainOnTlsAddress { peer });
        }
    }

    /// A client of HTTP/2 was cut off for what it does beside its requests; reported once a minute.
    pub(super) fn warn_of_flood(&self, peer: Option<SocketAddr>) {
        if is_due(&self.flood_reported_at) {
            let peer = peer.map_or("a unix socket".to_owned(), |peer| peer.to_string());
            logging::emit(&WorkerEvent::Flooded { peer });
        }
    }

    /// A request is over.
    pub(super) fn count_request(&self) {
        self.place.board().count_request(self.slot);
        if self.enough > 0 && self.served.fetch_add(1, Ordering::Relaxed) + 1 == self.enough {
            self.served_enough.notify_one();
        }
    }

    /// Serves a connection that was accepted from this listener, which speaks TLS or does not.
    pub(super) fn serve(
        self: &Arc<Self>,
        socket: Socket,
        peer: Option<SocketAddr>,
        listener: Origin,
        is_tls: bool,
        queue_wait: Option<Duration>,
    ) {
        // Entered before anything else runs: who counts connections sees it at once.
        let entry = Arc::new(ConnEntry::new(self, peer, socket.credentials(), listener));
        queue_wait.into_iter().for_each(|wait| entry.conn.note_queue_wait(wait));
        entry.place(Stream::Plain(socket));
        self.spawn(self.conversation(entry, is_tls));
    }

    /// All of a connection, whose stream lies with its entry.
    pub(super) fn conversation(
        self: &Arc<Self>,
        entry: Arc<ConnEntry>,
        is_tls: bool,
    ) -> impl Future<Output = ()> + Send + 'static {
        let server = Arc::clone(self);
        async move {
            if let Some(peer) = Box::pin(server.serve_first(&entry, is_tls)).await {
                server.serve_on(&entry, &peer).await;
            }
        }
    }

    pub(super) fn spawn(&self, conversation: impl Future<Output = ()> + Send + 'static) {
        if self.is_threaded {
            tokio::spawn(Noted::new(conversation));
        } else {
            tokio::spawn(conversation);
        }
    }

    /// Returns true if a connection of this peer begins with a PROXY header.
    pub(super) fn believes_proxy(&self, peer: Option<SocketAddr>) -> bool {
        self.proxies.as_ref().is_some_and(|proxies| proxies.has_peer(peer))
    }

    /// Returns the client of a connection: the other end of the socket, or the one that a proxy there
    /// names. `None` where there should be a proxy and is none.
    async fn peer(&self, watched: &mut Watched, peer: Option<SocketAddr>) -> Option<Client> {
        if !self.believes_proxy(peer) {
            return Some(Client::direct(peer, Scheme::Http));
        }
        match watched.take_proxy_header().await {
            Ok(Proxied { source, scheme }) => {
                Some(Client::direct(source.or(peer), scheme.unwrap_or_default()))
            }
            Err(Unproxied::Silent) => None,
            Err(Unproxied::Wrong(why)) => {
                let peer = peer.map_or("a unix socket".to_owned(), |peer| peer.to_string());
                logging::emit(&WorkerEvent::ConnectionClosed { peer, reason: why });
                None
            }
        }
    }

    /// Serves a connection until it ends or is parked, behind its PROXY header and its handshake, where there
    /// are to be. Returns its client; `None` where the connection has not got there.
    async fn serve_first(self: &Arc<Self>, entry: &Arc<ConnEntry>, is_tls: bool) -> Option<Client> {
        let mut watched =
            Watched::new(entry.take_parked(), Arc::clone(entry), head_room(&self.limits));
        let mut peer = self.peer(&mut watched, entry.peer).await?;
        if is_tls {
            let acceptor = self.routes.tls.as_ref()?;
            watched = Box::pin(self.shake_hands(watched, acceptor, peer)).await?;
            peer = peer.over(Scheme::Https);
        }
        if entry.conn.is_multiplexed() {
            watched.park();
        } else {
            self.speak(watched, peer).await;
        }
        Some(peer)
    }

    /// Serves a parked connection until it ends. Most of its memory is this future and the entry: what is
    /// spoken has a place of its own, which is given back when it is parked again.
    pub(super) async fn serve_on(self: &Arc<Self>, entry: &Arc<ConnEntry>, peer: &Client) {
        while entry.is_woken(peer).await {
            if entry.conn.is_multiplexed() {
                Box::pin(self.multiplex(self.watch(entry, *peer), *peer)).await;
            } else {
                Box::pin(self.speak(self.watch(entry, *peer), *peer)).await;
            }
        }
    }

    /// Takes the stream of a parked connection.
    fn watch(&self, entry: &Arc<ConnEntry>, peer: Client) -> Watched {
        let stream = entry.take_parked();
        let mut watched = Watched::new(stream, Arc::clone(entry), head_room(&self.limits));
        watched.scheme = peer.scheme();
        watched
    }

    /// The service of the requests of a connection.
    pub(super) fn requests(&self, watched: &Watched, peer: Client) -> Requests {
        let entry = Arc::clone(watched.entry());
        Requests {
            router: self.routes.of(entry.listener.name).clone(),
            entry,
            socket: watched.socket(),
            peer,
            is_forwarder: self.forwarders.has_peer(peer.peer()),
        }
    }

    async fn speak(self: &Arc<Self>, watched: Watched, peer: Client) {
        let conn = Arc::clone(&watched.entry().conn);
        let listener = watched.entry().listener.name;
        let requests = self.requests(&watched, peer);
        let io = TokioIo::new(watched);
        let mut serving = pin!(self.builder.serve_connection(io, requests).with_upgrades());
        let result = loop {
            tokio::select! {
                biased;
                result = serving.as_mut() => break result,
                // It is polled again, and finds out why.
                () = conn.woken.notified() => if self.is_cutting() { return },
            }
        };
        // An answer of hyper's own has no body.
        let by_hyper = || Some((own::status_of(result.as_ref().err()?)?, 0));
        if let Some((status, bytes)) = conn.refused().or_else(by_hyper) {
            unread::log(self, &conn, listener, peer, status, bytes);
        }
        if let Err(error) = result {
            let reason = Chain(&error).to_string();
            logging::emit(&WorkerEvent::ConnectionFailed { reason });
        }
    }
}

/// The interval at which faults of clients are reported.
const REPORT_INTERVAL_MS: u64 = 60_000;

/// Returns true if something is to be reported that was reported last at this time; notes that it is.
fn is_due(reported_at: &AtomicU64) -> bool {
    let now = clock::coarse_millis();
    let last = reported_at.load(Ordering::Relaxed);
    let is_due = last == 0 || now.saturating_sub(last) >= REPORT_INTERVAL_MS;
    if is_due {
        reported_at.store(now.max(1), Ordering::Relaxed);
    }
    is_due
}

/// Files that an application may open besides while it serves: connections of its own, to a database
/// for one. What a worker has open when it begins, as every slot's listeners, is counted.
const OTHER_FILES: u64 = 64;

/// Connections that a worker takes: as many as configured, as long as it may have the files open. One
/// more would not be accepted, and would not go to a sibling that has room.
fn connections_max(configured: u32, slot: Slot) -> usize {
    let files = process::raise_files_max().unwrap_or(u64::MAX);
    let free = files.saturating_sub(process::files_open().unwrap_or(OTHER_FILES));
    let room = free - OTHER_FILES.min(free / 4);
    if room < configured.into() && slot == Slot::new(0) {
        logging::emit(&WorkerEvent::ConnectionsLimited { configured, files, room });
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

/// The answers to heads that are refused in words while they come in.
fn head_room(limits: &Limits) -> HeadRoom {
    let room = head_max(limits) - FIELDS_ROOM;
    HeadRoom { line: room, head: room }
}

/// Header fields that hyper takes by itself. Told of any other number, it allocates for every request
/// what otherwise has room on its stack: a twentieth of what a short request costs.
const HYPER_FIELDS_MAX: usize = 100;

/// Bytes that a request's head may have altogether.
pub(super) fn head_max(limits: &Limits) -> usize {
    HEAD_MAX.max(limits.request_line + limits.request_field_size + 2 * FIELDS_ROOM)
}

/// Bytes that a head may have in any case.
const HEAD_MAX: usize = 64 * 1024;
/// Bytes of them that are for other things than the request line and one long field.
const FIELDS_ROOM: usize = 8 * 1024;
