//! A worker's server on real sockets, spoken to byte by byte.
//!
//! # The trap
//! The logs are the process's own: all tests write into one file. A test finds its lines by the address
//! that it connects from, which is its own within 127.0.0.0/8.

mod client;
mod departures;
mod forwarding;
mod full;
mod health;
#[cfg(feature = "http2")]
mod http2;
mod limits;
mod long;
mod outgoing;
mod proxied;
mod relays;
mod slow;
mod smuggling;
mod timing;
mod unread;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};

use self::client::Talk;
use self::health::Readiness;
use super::server::{Position, Routes, Server};
use crate::config::{Config, Level, Log, LogTarget};
use crate::ids::{Generation, Slot, SlotSet};
use crate::listeners::Listeners;
use crate::logging::{self, Layers, MASTER, Rings};
use crate::request::body_limits::Declared;
use crate::request::draining::Draining;
use crate::scoreboard::{SlotBoard, WorkerBoard};
use crate::sys::exec::Passed;
use crate::sys::socket::{self, Local};
use crate::worker::connection::conns::Wait;
use crate::worker::request::health::Health;
use crate::worker::request::own;
use crate::{Client, PeerCredentials, RequestId};

/// No test waits longer, on a machine that does other things too.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that a test's server takes for a body.
const BODY_MAX: usize = 1000;

/// Bytes of an answer that no socket has room for.
const BIG: usize = 32 << 20;

/// A worker without its master.
struct Net {
    server: Arc<Server>,
    counters: Arc<SlotBoard>,
    address: SocketAddr,
    unix: PathBuf,
    /// Whence the test connects; its own.
    from: [u8; 4],
    /// The [`Readiness`] that the application reports.
    readiness: Arc<AtomicU8>,
    _folder: tempfile::TempDir,
}

/// For tests of what is late.
const SHORT: &str = "header_timeout = 0.4\nbody_timeout = 0.4\n";
/// For tests in which nothing shall be late, on whatever machine.
const LONG: &str = "header_timeout = 60\nbody_timeout = 60\n";

/// Runs a test against a server with these settings, connecting from 127.0.x.y.
fn run<F: Future<Output = ()>>(from: [u8; 2], settings: &str, test: impl FnOnce(Net) -> F) {
    run_within(SHORT, from, settings, test);
}

/// The same with these timeouts.
fn run_within<F: Future<Output = ()>>(
    timeouts: &str,
    from: [u8; 2],
    settings: &str,
    test: impl FnOnce(Net) -> F,
) {
    // A test that does not ask for lines leaves them to the next test.
    logs().flush();
    let runtime = super::runtime(1, |_| ()).expect("a runtime");
    runtime.block_on(async {
        let net = Net::open([127, 0, from[0], from[1]], settings, timeouts);
        tokio::time::timeout(TEST_TIMEOUT, test(net)).await.expect("the test takes too long");
    });
}

impl Net {
    fn open(from: [u8; 4], settings: &str, timeouts: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let unix = folder.path().join("sock");
        // Settings that are tables of their own stand last.
        let body = if timeouts.contains("body = ") { "" } else { &format!("body = {BODY_MAX}\n") };
        let text = format!(
            "bind = ['127.0.0.1:0', 'unix:{}']\n{settings}\n[limits]\n{body}{timeouts}",
            unix.display()
        );
        let config = Config::from_toml(&text, &[]).expect("the settings are right");
        let slot = Slot::new(0);
        let listeners =
            Listeners::open(&config, &[], Passed::default(), 1).expect("the addresses are free");
        let (_, fd) = listeners.of_slot(slot).next().expect("there is a TCP address");
        let Ok(Local::Tcp(address)) = socket::local(fd) else { panic!("it is TCP") };
        let counters = Arc::new(SlotBoard::new().expect("memory"));
        let board = Arc::new(WorkerBoard::new(64).expect("memory"));
        let position = Position {
            slot,
            generation: Generation::FIRST,
            counters: Arc::clone(&counters),
            board,
        };
        let body_limits = Declared::new(config.limits.body);
        body_limits.set("/limited/{bytes}", 2 * BODY_MAX as u64).expect("it is a path");
        body_limits.set("/unlimited", 0).expect("it is a path");
        let readiness = Arc::new(AtomicU8::new(Readiness::Ready as u8));
        let asked = Arc::clone(&readiness);
        let routes = Routes {
            router: router(),
            named: Vec::new(),
            takes_connect: false,
            draining: Draining::default(),
            own_answers: Some(own::router().layer(map_response(mark))),
            body_limits: body_limits.limits(),
            health: Arc::new(Health::new(config.health.clone(), slot, move || {
                Readiness::answer(Arc::clone(&asked))
            })),
            tls: None,
        };
        let server = Arc::new(Server::new(position, &config, routes, listeners, 0));
        server.accept_from(&SlotSet::from_iter([slot]));
        tokio::spawn(super::keep_heartbeat(Arc::clone(&server), None, config.stall_timeout));
        Self { server, counters, address, unix, from, readiness, _folder: folder }
    }

    async fn connect(&self) -> Talk {
        Talk::tcp(self.from.into(), self.address).await
    }

    async fn connect_unix(&self) -> Talk {
        Talk::unix(&self.unix).await
    }

    /// Says this on a connection of its own; answers all that is answered until its end.
    async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut talk = self.connect().await;
        talk.say(bytes).await;
        talk.rest().await
    }

    /// Waits until so many requests are counted, and so have their lines.
    async fn counted(&self, count: u64) {
        while self.counters.served().unchecked() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until so many connections rest.
    async fn rested(&self, count: usize) {
        while self.server.conns.parked() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until a connection has waited for this for more than 50 ms. The clock that tells it has
    /// ticks of up to 10 ms: it may be ahead by one.
    async fn waits_for(&self, wait: Wait) {
        while self.server.conns.longest(wait) <= Duration::from_millis(60) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for an error line with this end; returns what stands before it.
    async fn error_line(end: &str) -> String {
        loop {
            let lines = Self::all_error_lines();
            if let Some(line) = lines.lines().find_map(|line| line.strip_suffix(end)) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The access lines of requests from this address, or of what speaks for it; without bytes.
    fn access_lines(remote: &str) -> Vec<String> {
        Self::access_parts(remote).into_iter().map(|(line, _)| line).collect()
    }

    /// The same, and the bytes of each one.
    fn access_parts(remote: &str) -> Vec<(String, String)> {
        let text = logs().read("access");
        let remote = format!("{remote} ");
        let own = text.lines().filter_map(|line| line.strip_prefix(&remote));
        let parts = own.map(|line| line.rsplit_once(' ').expect("the format ends with bytes"));
        parts.map(|(line, bytes)| (line.to_owned(), bytes.to_owned())).collect()
    }

    /// The bytes of this test's answers, as the access log has them.
    fn own_access_bytes(&self) -> Vec<String> {
        self.own_access_parts().into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// This test's access lines, and the bytes of each one.
    fn own_access_parts(&self) -> Vec<(String, String)> {
        let [a, b, c, d] = self.from;
        Self::access_parts(&format!("{a}.{b}.{c}.{d}"))
    }

    /// This test's access lines.
    fn own_access_lines(&self) -> Vec<String> {
        let [a, b, c, d] = self.from;
        Self::access_lines(&format!("{a}.{b}.{c}.{d}"))
    }

    /// Another descriptor of its TCP listener.
    fn listener(&self) -> OwnedFd {
        let listeners = self.server.listeners();
        let (_, fd) = listeners.of_slot(Slot::new(0)).next().expect("there is a TCP address");
        fd.try_clone_to_owned().expect("there are descriptors")
    }

    fn all_error_lines() -> String {
        logs().read("error")
    }

    /// The error lines that speak of this test's connections, from level to end.
    fn error_lines(&self) -> Vec<String> {
        let [a, b, c, d] = self.from;
        let peer = format!("{a}.{b}.{c}.{d}:");
        let text = logs().read("error");
        let lines = text.lines().filter(|line| line.contains(&peer));
        lines.filter_map(|line| line.splitn(3, "] [").nth(2).map(str::to_owned)).collect()
    }
}

/// `remote scheme "request line" status outcome id "x-mark of the request" "x-mark of the answer"
/// bytes`.
const FORMAT: &str = r#"%(h)s %({scheme}e)s "%(r)s" %(s)s %({outcome}e)s %({request_id}e)s "#;
const MARKS: &str = r#""%({x-mark}i)s" "%({x-mark}o)s" %(b)s"#;

/// The logs of all tests.
struct Logs {
    folder: PathBuf,
    log: Log,
    rings: Rings,
    writing: Mutex<()>,
}

impl Logs {
    /// Writes what waits, as the logger does.
    fn flush(&self) {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        logging::tests::flush(&self.rings, &self.log);
    }

    fn read(&self, name: &str) -> String {
        self.flush();
        std::fs::read_to_string(self.folder.join(name)).expect("there is a log")
    }
}

fn logs() -> &'static Logs {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    LOGS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let mut log = Config::default().log;
        log.access = LogTarget::File(folder.join("access"));
        log.error = LogTarget::File(folder.join("error"));
        log.access_format = [FORMAT, MARKS].concat();
        log.level = Level::Info;
        let mut rings = Rings::new().expect("memory can be shared");
        let ring = rings.ring(MASTER).expect("a ring");
        logging::install(&log, ring, Layers::new()).expect("logs in a folder of our own");
        logging::set_global(Layers::new()).expect("no test has set any");
        Logs { folder, log, rings, writing: Mutex::new(()) }
    })
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { ([("x-mark", "out")], "hello") }))
        .route("/who", get(who))
        .route("/own-id", get(|| async { ([("x-request-id", "of=the app/7")], "hello") }))
        .route("/odd-id", get(odd_ids))
        .route("/echo", post(|body: Bytes| async { body }))
        .route(
            "/address",
            get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }),
        )
        .route("/as-long", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "m".repeat(191)) }))
        .route(
            "/user",
            get(|peer: Option<PeerCredentials>| async move {
                peer.map_or("unknown".to_owned(), |peer| format!("{} {:?}", peer.uid(), peer.pid()))
            }),
        )
        .route("/limited/{bytes}", post(|body: Bytes| async { body }))
        .route("/limited", post(|body: Bytes| async { body }).layer(DefaultBodyLimit::max(10)))
        .route("/raised", post(|body: Bytes| async { body }).layer(DefaultBodyLimit::max(4 << 20)))
        .route("/disabled", post(|body: Bytes| async { body }).layer(DefaultBodyLimit::disable()))
        .route("/unlimited", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/big", get(|| async { vec![b'b'; BIG] }))
        .route("/cut-short", get(|| async { outgoing::CutShort::answer() }))
        .route("/ignore-big", any(|| async { vec![b'b'; BIG] }))
        .route("/ignore", any(|| async { "ignored" }))
        .route("/fail", any(|| async { StatusCode::IM_A_TEAPOT.into_response() }))
        .route("/panic", any(panic))
        .route("/never", get(std::future::pending::<&'static str>))
        .route("/quiet", get(|| async { departures::Quiet::answer() }))
        .route("/slow", get(slow))
        .route("/events", get(long::events))
        .route("/upgrade", get(long::upgrade))
        .route("/swallow", post(swallow))
        .route("/detached", post(detached))
}

async fn who(client: Client, id: RequestId) -> String {
    let address = client.address().map_or("-".to_owned(), |address| address.to_string());
    let peer = client.peer().map_or("-".to_owned(), |peer| peer.ip().to_string());
    format!("{address} {} {peer} {id}", client.scheme())
}

/// The ids of an application that sets two, or one that is no text.
async fn odd_ids(uri: Uri) -> Response {
    let ids: &[&[u8]] =
        if uri.query() == Some("two") { &[b"first", b"second"] } else { &[b"\xff"] };
    let mut response = "hello".into_response();
    for id in ids {
        let id = HeaderValue::from_bytes(id).expect("it is a value");
        response.headers_mut().append("x-request-id", id);
    }
    response
}

async fn swallow(_body: Bytes) -> &'static str {
    std::future::pending().await
}

/// Answers, while a task reads the body on.
async fn detached(body: Body) -> &'static str {
    tokio::spawn(axum::body::to_bytes(body, BODY_MAX));
    "detached"
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(100)).await;
    "slow"
}

/// Puts the application's mark on the server's own answers, in vain as far as the status goes.
async fn mark(mut response: Response) -> Response {
    response.headers_mut().insert("x-own", HeaderValue::from_static("marked"));
    response.headers_mut().remove("connection");
    *response.status_mut() = StatusCode::OK;
    response
}

async fn panic() -> &'static str {
    panic!("as it was asked to")
}
