//! HTTP/2 over TLS and in the clear, while workers are replaced in every way that an operator has.
//!
//! # When a client may ask again
//! A request that was on its way when the server said goodbye is unprocessed where HTTP/2 says so: its
//! stream is above the last one of a GOAWAY, or was refused (RFC 9113 sections 6.8 and 8.7). The clients here
//! send those again, on another connection, and no others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Version};
use h2::Reason;
use h2::client::{Builder, ResponseFuture, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::client::Address;
use crate::harness::{Builder as ServerBuilder, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::tls::{client_config, localhost};

/// The outcomes that the clients have seen.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    /// Sent again, as HTTP/2 allows.
    again: AtomicU64,
    failed: std::sync::Mutex<Vec<String>>,
}

/// The end of a request that has no response.
enum Unanswered {
    /// It was not processed.
    Unprocessed,
    Failed(String),
}

/// Clients that run until they are stopped.
struct Load {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    /// Begins so many connections, each with so many requests at a time.
    fn begin(address: &Address, connections: usize, streams: usize) -> Self {
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let (theirs, stopped, address) = (seen.clone(), stop.clone(), address.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut clients = tokio::task::JoinSet::new();
                for _ in 0..connections {
                    let run = run(address.clone(), streams, theirs.clone(), stopped.clone());
                    clients.spawn(run);
                }
                clients.join_all().await;
            });
        });
        let load = Self { seen, stop, thread };
        load.wait_for_more(connections as u64);
        load
    }

    fn wait_for_more(&self, count: u64) {
        let answered = || self.seen.answered.load(Ordering::Relaxed);
        let wanted = answered() + count;
        eventually("the load goes on", PATIENCE, || (answered() >= wanted).then_some(()));
    }

    fn finish(self) -> Arc<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("clients do not panic");
        self.seen
    }
}

impl Seen {
    #[expect(clippy::print_stdout, reason = "figures are printed to be read")]
    fn assert_clean(&self, what: &str) {
        let failed = self.failed.lock().expect("no client panics");
        let count = |value: &AtomicU64| value.load(Ordering::Relaxed);
        println!("{what}: {} answered, {} sent again", count(&self.answered), count(&self.again));
        assert!(failed.is_empty(), "{what}: {} failed: {:?}", failed.len(), failed.first());
    }
}

fn client() -> TlsConnector {
    let mut config: ClientConfig = client_config(&[&TLS13, &TLS12], None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

/// One client: a connection, and so many requests at a time on it.
async fn run(address: Address, streams: usize, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let connector = client();
    while !stop.load(Ordering::Relaxed) {
        match connect(&address, &connector).await {
            Ok(connection) => {
                let mut requests = tokio::task::JoinSet::new();
                for _ in 0..streams {
                    requests.spawn(ask(connection.clone(), seen.clone(), stop.clone()));
                }
                requests.join_all().await;
            }
            Err(error) => {
                seen.failed.lock().expect("no client panics").push(format!("connect: {error}"));
                return;
            }
        }
    }
}

async fn connect(
    address: &Address,
    connector: &TlsConnector,
) -> Result<SendRequest<Bytes>, String> {
    let socket = TcpStream::connect(address.tcp()).await.map_err(|error| error.to_string())?;
    match address {
        Address::Tls(_) => {
            let name = ServerName::try_from("localhost").expect("it is a name");
            let stream = connector.connect(name, socket).await;
            begin(stream.map_err(|error| error.to_string())?).await
        }
        Address::Tcp(_) | Address::Unix(_) => begin(socket).await,
    }
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Bytes>, String> {
    let hands = Builder::new().handshake(stream).await.map_err(|error| error.to_string())?;
    // How it ends shows in the requests.
    tokio::spawn(async { drop(hands.1.await) });
    Ok(hands.0)
}

/// Asks for `/` in the clear, and returns the text of the answer.
pub(crate) fn text(address: &Address) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let connection = connect(address, &client()).await.expect("it listens");
        let mut send = connection.ready().await.expect("it is open");
        let request = Request::get("http://localhost/").version(Version::HTTP_2);
        let request = request.body(()).expect("it is a request");
        let response = send.send_request(request, true).expect("it is open").0;
        let mut body = response.await.expect("it is answered").into_body();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.expect("the answer is whole"));
        }
        String::from_utf8(text).expect("it is text")
    })
}

/// Asks again and again on this connection, until the server says goodbye.
async fn ask(connection: SendRequest<Bytes>, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut send) = connection.clone().ready().await else { return };
        let request = Request::get("http://localhost/").version(Version::HTTP_2);
        let request = request.body(()).expect("it is a request");
        let Ok((response, _)) = send.send_request(request, true) else { return };
        match answer(response).await {
            Ok(()) => seen.answered.fetch_add(1, Ordering::Relaxed),
            Err(Unanswered::Unprocessed) => {
                seen.again.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(Unanswered::Failed(error)) => {
                seen.failed.lock().expect("no client panics").push(error);
                return;
            }
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn answer(response: ResponseFuture) -> Result<(), Unanswered> {
    let failed = |error: h2::Error| {
        let is_refused = error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_go_away() || is_refused {
            Unanswered::Unprocessed
        } else {
            Unanswered::Failed(format!("{error:?}"))
        }
    };
    let response = response.await.map_err(failed)?;
    if response.status() != 200 {
        return Err(Unanswered::Failed(response.status().to_string()));
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| Unanswered::Failed(format!("in its body: {error:?}")))?;
        body.flow_control().release_capacity(data.len()).expect("it was taken");
    }
    Ok(())
}

fn encrypted(builder: ServerBuilder, settings: &str) -> ServerBuilder {
    localhost().write(builder.folder(), "a");
    builder.config(&format!("{settings}[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n"))
}

/// Reloads, upgrades, scaling and recycling under load.
fn churn(builder: ServerBuilder, what: &str) {
    let _alone = crate::machine::alone();
    let real = builder.binary().to_owned();
    let server = crate::disk::started_by_link(builder).start();
    let load = Load::begin(&server.address(), 4, 8);
    let reloads = || server.log().matches("reloaded: generation ").count();
    for round in 0..3 {
        server.signal(Signal::SIGHUP);
        eventually("it is reloaded", PATIENCE, || (reloads() > 2 * round).then_some(()));
        server.signal(Signal::SIGTTIN);
        server.signal(Signal::SIGTTOU);
        crate::disk::put_link(server.folder(), &real);
        server.signal(Signal::SIGUSR2);
        eventually("it is upgraded", PATIENCE, || (reloads() > 2 * round + 1).then_some(()));
        load.wait_for_more(200);
    }
    load.finish().assert_clean(what);
    server.stop();
}

const CHURNED: &str = "workers = 3\nmax_requests = 2000\n[log]\naccess = \"\"\n";

#[test]
fn nothing_is_lost_over_http2_with_tls() {
    churn(encrypted(Ferricorn::unruly(), CHURNED), "h2");
}

#[test]
fn nothing_is_lost_over_http2_in_the_clear() {
    churn(Ferricorn::unruly().config(CHURNED), "h2c");
}

/// A worker that is killed loses what it had begun, and nothing else.
#[test]
fn kill_loses_only_what_the_worker_had_begun() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().config("workers = 3\n[log]\naccess = \"\"\n").start();
    let load = Load::begin(&server.address(), 6, 4);
    for slot in 0..3 {
        load.wait_for_more(100);
        send(server.worker(slot), Signal::SIGKILL);
        server.wait_workers(3);
    }
    load.wait_for_more(100);
    let seen = load.finish();
    let failed = seen.failed.lock().expect("no client panics").len();
    // Six connections, each of which is killed once at the most in each round.
    assert!(failed <= 3 * 6 * 4, "{failed} failed");
    server.stop();
}

#[test]
fn log_names_the_streams_that_a_killed_worker_had() {
    let server = Ferricorn::unruly().config("workers = 1\n").start();
    let worker = server.worker(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let held = runtime.block_on(async {
        let connection = connect(&server.address(), &client()).await.expect("it listens");
        let mut held = Vec::new();
        for target in ["/never", "/never?again", "/"] {
            let mut send = connection.clone().ready().await.expect("it is open");
            let request = Request::get(format!("http://localhost{target}"));
            let request = request.version(Version::HTTP_2).body(()).expect("it is a request");
            held.push(send.send_request(request, true).expect("it is open").0);
        }
        // Those before it have been begun by then.
        held.pop().expect("there are three").await.expect("it is answered");
        held
    });
    send(worker, Signal::SIGKILL);
    server.wait_log("took with it 2 requests: ");
    assert!(server.log().contains("GET /never?again ("), "{}", server.log());
    drop(held);
    server.stop();
}

/// A stop answers what has begun, and the client knows of the rest.
#[test]
fn stop_answers_what_has_begun() {
    let _alone = crate::machine::alone();
    let mut server = encrypted(Ferricorn::unruly(), "workers = 2\n[log]\naccess = \"\"\n").start();
    let load = Load::begin(&server.address(), 4, 8);
    load.wait_for_more(100);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), crate::harness::Exit::Code(0));
    let seen = load.finish();
    let failed = seen.failed.lock().expect("no client panics");
    let is_late = |error: &String| error.starts_with("connect: ");
    assert!(failed.iter().all(is_late), "{failed:?}");
}

/// Other programs as clients.
#[test]
fn curl_speaks_both_protocols() {
    let curl = |arguments: &[&str], address: SocketAddr| {
        let scheme = if arguments.contains(&"-k") { "https" } else { "http" };
        let output = std::process::Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"])
            .args(arguments)
            .arg(format!("{scheme}://{address}/"))
            .output();
        output.ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let server = encrypted(
        Ferricorn::unruly(),
        "workers = 1\n[log]\naccess_format = '%({scheme}e)s %(r)s %(s)s'\n",
    )
    .start();
    let address = server.address().tcp();
    let Some(two) = curl(&["-k", "--http2"], address) else { return };
    assert_eq!(two, "2 200");
    assert_eq!(curl(&["-k", "--http1.1"], address).as_deref(), Some("1.1 200"));
    server.wait_log("https GET / HTTP/2.0 200");
    server.wait_log("https GET / HTTP/1.1 200");
    server.stop();
    let server = Ferricorn::unruly().config("workers = 1\n").start();
    let address = server.address().tcp();
    assert_eq!(curl(&["--http2-prior-knowledge"], address).as_deref(), Some("2 200"));
    assert_eq!(curl(&["--http2"], address).as_deref(), Some("1.1 200"), "an upgrade is declined");
    server.stop();
}
