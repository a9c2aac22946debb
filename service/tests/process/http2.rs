//! HTTP/2 over TLS and in the clear: its clients, and what other programs and the log say of it. What
//! becomes of requests while workers are replaced and die is in `matrix`.
//!
//! # When a client may ask again
//! A request that was on its way when the server said goodbye is unprocessed where HTTP/2 says so: its
//! stream is above the last one of a GOAWAY, or was refused (RFC 9113 sections 6.8 and 8.7). The clients here
//! send those again, on another connection, and no others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Version};
use h2::Reason;
use h2::client::{Builder, ResponseFuture, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::client::Address;
use crate::events::has;
use crate::harness::{Builder as ServerBuilder, Ferricorn, Signal, send};
use crate::seen::{Begun, Running, Seen};
use crate::tls::{client_config, localhost};

/// The end of a request that has no response.
enum Unanswered {
    /// It was not processed.
    Unprocessed,
    Failed(String),
}

fn client() -> TlsConnector {
    let mut config: ClientConfig = client_config(&[&TLS13, &TLS12], None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

/// So many connections, each with so many requests at a time.
pub(crate) fn load(address: &Address, connections: usize, streams: usize) -> Running {
    let address = address.clone();
    let connector = client();
    Running::begin(connections, move |seen, stop| {
        run(address.clone(), connector.clone(), streams, seen, stop)
    })
}

/// One client: a connection, and so many requests at a time on it.
async fn run(
    address: Address,
    connector: TlsConnector,
    streams: usize,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let begun = Begun::now(None);
        let socket = match TcpStream::connect(address.tcp()).await {
            Ok(socket) => socket,
            Err(error) => {
                let is_refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
                seen.note_lost(begun, format!("connect: {error}"), is_refused);
                if is_refused {
                    return;
                }
                continue;
            }
        };
        let opened = begun.on(socket.local_addr().ok());
        match connect(&address, &connector, socket).await {
            Ok(connection) => {
                let mut requests = tokio::task::JoinSet::new();
                for _ in 0..streams {
                    requests.spawn(ask(connection.clone(), opened, seen.clone(), stop.clone()));
                }
                requests.join_all().await;
            }
            Err(error) => seen.note_lost(opened, format!("handshake: {error}"), false),
        }
    }
}

async fn connect(
    address: &Address,
    connector: &TlsConnector,
    socket: TcpStream,
) -> Result<SendRequest<Bytes>, String> {
    match address {
        Address::Tls(_) => {
            let name = ServerName::try_from("localhost").expect("it is a name");
            let stream = connector.connect(name, socket).await;
            begin(stream.map_err(|error| error.to_string())?).await
        }
        Address::Tcp(_) | Address::Unix(_) => begin(socket).await,
    }
}

/// A connection to a server that listens.
async fn connected(address: &Address) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address.tcp()).await.expect("it listens");
    connect(address, &client(), socket).await.expect("hands are shaken")
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
    let fetched = async { fetch(connected(address).await).await };
    runtime.expect("a runtime").block_on(fetched)
}

/// Asks for `/` in the clear; true: the answer came whole.
pub(crate) fn is_answered(address: &Address) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let fetched = async { try_fetch(connected(address).await).await };
    runtime.expect("a runtime").block_on(fetched).is_ok()
}

/// A connection that has had an answer, as long as its runtime is there.
pub(crate) fn idle(
    runtime: &Arc<Runtime>,
    address: &Address,
) -> (SendRequest<Bytes>, Arc<Runtime>) {
    let connection = runtime.block_on(async {
        let connection = connected(address).await;
        fetch(connection.clone()).await;
        connection
    });
    (connection, Arc::clone(runtime))
}

async fn fetch(connection: SendRequest<Bytes>) -> String {
    try_fetch(connection).await.expect("it is answered")
}

async fn try_fetch(connection: SendRequest<Bytes>) -> Result<String, h2::Error> {
    let mut send = connection.ready().await?;
    let request = Request::get("http://localhost/").version(Version::HTTP_2);
    let request = request.body(()).expect("it is a request");
    let mut body = send.send_request(request, true)?.0.await?.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data?);
    }
    Ok(String::from_utf8(text).expect("it is text"))
}

/// Asks again and again on this connection, until the server says goodbye.
async fn ask(
    connection: SendRequest<Bytes>,
    opened: Begun,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut send) = connection.clone().ready().await else { return };
        let begun = opened.again();
        let request = Request::get("http://localhost/").version(Version::HTTP_2);
        let request = request.body(()).expect("it is a request");
        let Ok((response, _)) = send.send_request(request, true) else { return };
        match answer(response).await {
            Ok(()) => seen.note_answer(),
            Err(Unanswered::Unprocessed) => return seen.note_again(),
            Err(Unanswered::Failed(error)) => return seen.note_lost(begun, error, false),
        }
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

#[test]
fn log_names_the_streams_that_a_killed_worker_had() {
    let server = Ferricorn::unruly().config("workers = 1\n").start();
    let worker = server.worker(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let held = runtime.block_on(async {
        let connection = connected(&server.address()).await;
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
    let lost = server.wait_requests_lost(worker, 2);
    assert!(has(&lost["requests"], "GET /never?again ("), "{lost}");
    drop(held);
    server.stop();
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
