//! Clients of answers that go on, over reloads and a stop: each ends whole, none at the same instant as the
//! others, and the application is told first.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::StreamOwned;
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tokio_tungstenite::tungstenite::{Message, client};

use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually};
use crate::log_figures::{figure, is_in_full_length};
use crate::proc;

/// The end of one connection, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// An event stream: whole events, and the terminating chunk.
    Whole,
    /// A WebSocket: whole messages, and this code.
    Closed(u16),
    Torn(String),
}

/// The outcomes that all clients have seen.
#[derive(Debug, Default)]
struct Seen {
    open: AtomicUsize,
    stop: AtomicBool,
    ends: Mutex<Vec<(Instant, End)>>,
}

impl Seen {
    fn note(&self, end: End) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.ends.lock().expect("no client panics").push((Instant::now(), end));
    }

    fn ends(&self) -> Vec<(Instant, End)> {
        self.ends.lock().expect("no client panics").clone()
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn open_websocket(address: SocketAddr, target: &str) -> WebSocket<TcpStream> {
    let stream = connect(address).expect("a server that serves accepts connections");
    let uri = format!("ws://{address}{target}");
    client(uri, stream).expect("the application takes WebSockets").0
}

/// The message with this number, as the application sends it.
fn text(number: usize) -> String {
    format!("{number} {}", "x".repeat(if number.is_multiple_of(5) { 300 } else { 30 }))
}

/// Reads messages until one is a Close, which is answered.
fn read_websocket(socket: &mut WebSocket<impl Read + Write>) -> End {
    let mut expected = 0;
    let end = loop {
        match socket.read() {
            Ok(Message::Text(message)) => {
                expected += 1;
                if message.as_str() != text(expected) {
                    return End::Torn(format!("{message} in place of {expected}"));
                }
            }
            Ok(Message::Close(Some(frame))) => break End::Closed(frame.code.into()),
            Ok(_) => {}
            Err(error) => return End::Torn(error.to_string()),
        }
    };
    while socket.read().is_ok() {}
    end
}

/// Reads events until the terminating chunk.
fn read_events(stream: impl Read) -> Result<End, std::io::Error> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(End::Torn("no head".to_owned()));
        }
    }
    let mut text_of_all = String::new();
    let mut chunk = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Ok(length) = usize::from_str_radix(line.trim_end(), 16) else {
            return Ok(End::Torn(format!("a chunk of length {line:?}")));
        };
        chunk.resize(length + 2, 0);
        reader.read_exact(&mut chunk)?;
        if length == 0 {
            break;
        }
        text_of_all.push_str(std::str::from_utf8(&chunk[..length]).unwrap_or("no text"));
    }
    let events = text_of_all.matches("\n\n").count();
    let expected: String =
        (1..=events).map(|number| format!("data: {}\n\n", text(number))).collect();
    let is_whole = text_of_all == expected;
    Ok(if is_whole { End::Whole } else { End::Torn(text_of_all) })
}

/// A client that connects again and again, until it is told to stop.
fn begin(
    seen: &Arc<Seen>,
    visit: impl Fn(&Seen) -> std::io::Result<()> + Send + 'static,
) -> JoinHandle<()> {
    let seen = Arc::clone(seen);
    let client = std::thread::Builder::new().stack_size(256 * 1024);
    let client = client.spawn(move || {
        while !seen.stop.load(Ordering::Relaxed) {
            if let Err(error) = visit(&seen) {
                // No socket listens while the server stops.
                assert!(seen.stop.load(Ordering::Relaxed), "{error}");
            }
        }
    });
    client.expect("a thread")
}

fn websocket_client(seen: &Arc<Seen>, address: SocketAddr) -> JoinHandle<()> {
    begin(seen, move |seen| {
        let uri = format!("ws://{address}/socket?ms=400");
        let opened = client(uri, connect(address)?);
        let mut socket = opened.map_err(|error| std::io::Error::other(error.to_string()))?.0;
        seen.open.fetch_add(1, Ordering::Relaxed);
        seen.note(read_websocket(&mut socket));
        Ok(())
    })
}

fn event_client(seen: &Arc<Seen>, address: SocketAddr) -> JoinHandle<()> {
    begin(seen, move |seen| {
        let mut stream = connect(address)?;
        stream.write_all(b"GET /events?ms=400 HTTP/1.1\r\nhost: a\r\n\r\n")?;
        seen.open.fetch_add(1, Ordering::Relaxed);
        seen.note(read_events(stream).unwrap_or_else(|error| End::Torn(error.to_string())));
        Ok(())
    })
}

/// WebSockets and event streams, as many of each, over reloads and a stop. With `FIGURE_CLIENTS` and
/// `FIGURE_ROUNDS` in full length.
#[test]
fn long_connections_end_whole_and_evenly() {
    let number = |name, ordinary| usize::try_from(figure(name, ordinary)).expect("it fits");
    let clients = number("FIGURE_CLIENTS", 200);
    let rounds = number("FIGURE_ROUNDS", 2);
    let is_figure = is_in_full_length("FIGURE_CLIENTS");
    let _alone = is_figure.then(crate::machine::alone);
    let (graceful, window) = if is_figure { (30, 15) } else { (8, 4) };
    let config = format!(
        "workers = 2\nworker_connections = {}\ngraceful_timeout = {graceful}\n\
         [log]\naccess_format = '%(U)s %(s)s %({{outcome}}e)s %(B)s'",
        4 * clients
    );
    let mut server = Ferricorn::example("live").config(&config).start();
    let address = server.address().tcp();
    let seen = Arc::new(Seen::default());
    let all = 2 * clients;
    let threads: Vec<_> = (0..clients)
        .flat_map(|_| [websocket_client(&seen, address), event_client(&seen, address)])
        .collect();
    let all_are_open = || (seen.open.load(Ordering::Relaxed) == all).then_some(());
    for round in 0..=rounds {
        eventually("every client is connected", 2 * PATIENCE, all_are_open);
        let old = server.wait_workers(2);
        let before = seen.ends().len();
        let begun = Instant::now();
        if round < rounds {
            server.signal(Signal::SIGHUP);
            eventually("the old workers are gone", 2 * PATIENCE, || {
                let workers = server.workers();
                (!old.iter().any(|worker| workers.contains(worker))).then_some(())
            });
        } else {
            seen.stop.store(true, Ordering::Relaxed);
            server.signal(Signal::SIGTERM);
            assert_eq!(server.wait_exit_within(2 * PATIENCE), Exit::Code(0));
        }
        let mut seconds = vec![0; 90];
        for (at, _) in &seen.ends()[before..] {
            seconds[usize::try_from(at.duration_since(begun).as_secs()).expect("few")] += 1;
        }
        let busiest = seconds.iter().copied().max().expect("there are seconds");
        println!(
            "round {round}: {} ends, at most {busiest} a second: {seconds:?}",
            seen.ends().len() - before
        );
        // A machine that is busy with other tests may hold clients up, and nothing bunches all of them.
        let most = if is_figure { 2 * all / window } else { all * 3 / 4 };
        assert!(
            busiest <= most,
            "{busiest} of {all} ends in a second, {most} allowed: {seconds:?}"
        );
    }
    threads.into_iter().for_each(|client| client.join().expect("no client fails"));
    let ends = seen.ends();
    let wrong: Vec<_> = ends.iter().map(|(_, end)| end).filter(|end| is_wrong(end)).collect();
    assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), ends.len(), wrong.first());
    assert_eq!(ends.len(), all * (rounds + 1), "each has ended once a round");
    let log = server.log();
    for path in ["/events 200 drained ", "/socket 101 drained "] {
        let bytes = log.lines().filter_map(|line| line.strip_prefix(path)?.parse().ok());
        let bytes: Vec<u64> = bytes.collect();
        assert_eq!(bytes.len(), clients * (rounds + 1), "{path}");
        assert!(bytes.iter().all(|bytes| *bytes > 4), "{path}");
    }
}

/// The same over TLS, where a Close frame waits for the end of a record.
#[test]
fn long_connections_over_tls_end_whole() {
    let builder = Ferricorn::example("live");
    crate::tls::localhost().write(builder.folder(), "a");
    let config =
        "workers = 1\ngraceful_timeout = 4\n[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n";
    let mut server = builder.config(config).start();
    let address = server.address().tcp();
    let open =
        || StreamOwned::new(crate::tls::client(), connect(address).expect("the server listens"));
    let sockets: Vec<_> = (0..5)
        .map(|_| client("ws://localhost/socket?ms=20", open()).expect("a WebSocket").0)
        .collect();
    let streams: Vec<_> = (0..5)
        .map(|_| {
            let mut stream = open();
            stream.write_all(b"GET /events?ms=20 HTTP/1.1\r\nhost: a\r\n\r\n").expect("it is open");
            stream
        })
        .collect();
    server.signal(Signal::SIGTERM);
    for mut socket in sockets {
        assert_eq!(read_websocket(&mut socket), End::Closed(1012));
    }
    for stream in streams {
        assert_eq!(read_events(stream).expect("it ends in order"), End::Whole);
    }
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

fn is_wrong(end: &End) -> bool {
    !matches!(end, End::Whole | End::Closed(1012))
}

fn left_by(server: &Ferricorn, name: &str, pid: i32) -> Option<String> {
    std::fs::read_to_string(server.folder().join(format!("{name}-{pid}"))).ok()
}

/// The application is told before anything ends, may say goodbye itself, and is told of the end when no
/// handler is left, although one of them had to be cut.
#[test]
fn application_is_told_first_and_stopped_last() {
    let config = "workers = 1\ngraceful_timeout = 4\ndrain_spread = 0.25\n\
                  [log]\naccess_format = '%(U)s %(s)s %({outcome}e)s %(B)s'";
    let mut server = Ferricorn::example("live").config(config).start();
    let address = server.address().tcp();
    let worker = server.worker(0);
    let mut export = connect(address).expect("it listens");
    export.write_all(b"GET /export?ms=5 HTTP/1.1\r\nhost: a\r\n\r\n").expect("it is open");
    let mut farewell = open_websocket(address, "/farewell");
    let mut socket = open_websocket(address, "/socket?ms=5");
    assert_eq!(socket.read().expect("a message"), Message::text(text(1)));
    server.signal(Signal::SIGTERM);
    assert_eq!(farewell.read().expect("a message"), Message::text("goodbye"));
    assert!(left_by(&server, "told", worker).is_some());
    let Ok(Message::Close(Some(frame))) = farewell.read() else { panic!("a Close frame") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "be back soon"));
    assert!(farewell.read().is_err());
    let closed = loop {
        match socket.read().expect("it ends with a Close frame") {
            Message::Close(frame) => break frame.expect("a code").code,
            message => assert!(message.is_text(), "{message:?}"),
        }
    };
    assert_eq!(u16::from(closed), 1012);
    while socket.read().is_ok() {}
    // A document is cut: its client must not take it for whole.
    let mut document = Vec::new();
    let _reset = export.read_to_end(&mut document);
    assert!(!document.ends_with(b"0\r\n\r\n"));
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert_eq!(left_by(&server, "stopped", worker).as_deref(), Some("0"), "no handler is left");
    let log = server.log();
    for line in ["/farewell 101 ok ", "/socket 101 drained ", "/export 200 lost "] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(proc::children(server.pid()).is_empty());
}

/// A client that does not answer the Close frame, or does not read at all, delays no other.
#[test]
fn websocket_whose_client_is_silent_is_cut_in_time() {
    let config = "workers = 1\ngraceful_timeout = 20\ndrain_spread = 0.05";
    let mut server = Ferricorn::example("live").config(config).start();
    let mut silent = connect(server.address().tcp()).expect("it listens");
    silent
        .write_all(
            b"GET /socket?ms=50 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("it is open");
    let mut byte = [0];
    silent.read_exact(&mut byte).expect("an answer");
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).expect("it is closed, and not reset");
    assert!(rest.ends_with(&[0x88, 2, 0x03, 0xf4]), "{rest:?}");
    assert_eq!(server.wait_exit(), Exit::Code(0));
    let took = begun.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(15)).contains(&took), "{took:?}");
}
