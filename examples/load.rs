//! A load generator that never tries a request twice: what it counts as failed, a user has seen fail.
//!
//! # Why connecting may be tried elsewhere
//! Until a connection stands nothing was asked, so every client goes on to its next address; that
//! is how a client with a list of replicas lives through a rolling update. A name is looked up anew
//! for each connection: it is such a list, too. A connection that the server has closed is likewise
//! noticed before a request is written to it, never after.
//!
//! Standard library only: `rustc -O examples/load.rs` is all that it takes to build it.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: load SECONDS CLIENTS keep-alive|close 'METHOD /PATH' HOST:PORT...
SECONDS is a number, or - for as long as its input does not end.
Prints: answered=N failed=N unreachable=N elsewhere=N slowest_ms=N
  failed       asked, and answered otherwise than with 2xx, or not at all
  unreachable  no address took the connection
  elsewhere    an address did not, the next one did
The exit code is 1 when anything failed or was unreachable.";

const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// Longer than any answer of a healthy server takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The time to wait when no address answers.
const PAUSE: Duration = Duration::from_millis(20);
/// Failures that are shown; the others are only counted.
const SHOWN_MAX: u64 = 5;

/// Set at the end of the input. Nothing hangs on when exactly it is seen: Relaxed.
static ENDED: AtomicBool = AtomicBool::new(false);

#[derive(Clone)]
struct Plan {
    /// `None`: until the end of the input.
    deadline: Option<Instant>,
    keep_alive: bool,
    request: String,
    /// HOST:PORT; a host has one address or many.
    names: Vec<String>,
}

impl Plan {
    fn goes_on(&self) -> bool {
        self.deadline.map_or_else(|| !ENDED.load(Ordering::Relaxed), |deadline| now() < deadline)
    }
}

#[derive(Default)]
struct Count {
    answered: u64,
    failed: u64,
    unreachable: u64,
    elsewhere: u64,
    slowest: Duration,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a program of its own")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((plan, clients)) = plan(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    if plan.deadline.is_none() {
        watch_input();
    }
    let mut sum = Count::default();
    for client in clients.into_iter().map(|number| start(plan.clone(), number)).collect::<Vec<_>>()
    {
        let count = client.join().expect("a client does not panic");
        sum.answered += count.answered;
        sum.failed += count.failed;
        sum.unreachable += count.unreachable;
        sum.elsewhere += count.elsewhere;
        sum.slowest = sum.slowest.max(count.slowest);
    }
    let Count { answered, failed, unreachable, elsewhere, slowest } = sum;
    let slowest_ms = slowest.as_millis();
    println!(
        "answered={answered} failed={failed} unreachable={unreachable} elsewhere={elsewhere} \
         slowest_ms={slowest_ms}"
    );
    ExitCode::from(u8::from(failed + unreachable > 0))
}

#[expect(clippy::disallowed_methods, reason = "no part of the server: a clock of its own")]
fn now() -> Instant {
    Instant::now()
}

fn plan(arguments: &[String]) -> Option<(Plan, std::ops::Range<usize>)> {
    let [seconds, clients, connection, request, names @ ..] = arguments else { return None };
    let deadline = match seconds.as_str() {
        "-" => None,
        number => Some(now() + Duration::try_from_secs_f64(number.parse().ok()?).ok()?),
    };
    let clients = 0..clients.parse().ok()?;
    let keep_alive = match connection.as_str() {
        "keep-alive" => true,
        "close" => false,
        _ => return None,
    };
    let first = names.first()?;
    if looked_up(names).is_empty() {
        return None;
    }
    let request = format!(
        "{request} HTTP/1.1\r\nHost: {first}\r\nUser-Agent: load\r\nContent-Length: 0\r\n\
         Connection: {connection}\r\n\r\n"
    );
    Some((Plan { deadline, keep_alive, request, names: names.to_vec() }, clients))
}

#[expect(clippy::disallowed_methods, reason = "no part of the server: a thread for its input")]
fn watch_input() {
    thread::spawn(|| {
        // An input that cannot be read has ended.
        let _: io::Result<u64> = io::copy(&mut io::stdin(), &mut io::sink());
        ENDED.store(true, Ordering::Relaxed);
    });
}

#[expect(clippy::disallowed_methods, reason = "no part of the server: a thread a client")]
fn start(plan: Plan, number: usize) -> thread::JoinHandle<Count> {
    thread::spawn(move || run(&plan, number))
}

/// One client: one request after the other.
#[expect(clippy::print_stderr, reason = "this is a program of its own")]
#[expect(clippy::disallowed_methods, reason = "no part of the server: it may sleep")]
fn run(plan: &Plan, number: usize) -> Count {
    let mut count = Count::default();
    let mut at = number;
    let mut kept: Option<BufReader<TcpStream>> = None;
    while plan.goes_on() {
        let begun = now();
        let connection = match kept.take().filter(is_open) {
            Some(connection) => Some(connection),
            None => connect(&looked_up(&plan.names), &mut at, &mut count),
        };
        let Some(mut connection) = connection else {
            count.unreachable += 1;
            thread::sleep(PAUSE);
            continue;
        };
        match ask(&mut connection, &plan.request) {
            Ok(stays) => {
                count.answered += 1;
                kept = (stays && plan.keep_alive).then_some(connection);
            }
            Err(error) => {
                count.failed += 1;
                if count.failed <= SHOWN_MAX {
                    let peer = connection.get_ref().peer_addr();
                    eprintln!("load: client {number}: {peer:?}: {error}");
                }
            }
        }
        count.slowest = count.slowest.max(begun.elapsed());
    }
    count
}

/// All addresses of these names, for now.
fn looked_up(names: &[String]) -> Vec<SocketAddr> {
    names.iter().flat_map(|name| name.to_socket_addrs().into_iter().flatten()).collect()
}

/// A connection to the first address that takes one, beginning with the one that was used last.
fn connect(
    addresses: &[SocketAddr],
    at: &mut usize,
    count: &mut Count,
) -> Option<BufReader<TcpStream>> {
    for tried in 0..addresses.len() {
        let address = addresses[*at % addresses.len()];
        if let Ok(stream) = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a timeout above zero is taken");
            stream.set_nodelay(true).expect("a TCP socket has this option");
            count.elsewhere += u64::from(tried > 0);
            return Some(BufReader::new(stream));
        }
        *at += 1;
    }
    None
}

/// Returns true if the server has not closed it meanwhile.
fn is_open(connection: &BufReader<TcpStream>) -> bool {
    let stream = connection.get_ref();
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    stream.set_nonblocking(false).is_ok()
        && peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Asks once. Says whether the connection can be used again.
fn ask(connection: &mut BufReader<TcpStream>, request: &str) -> io::Result<bool> {
    connection.get_mut().write_all(request.as_bytes())?;
    let mut head = String::new();
    let mut length = None;
    let mut stays = true;
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed without an answer"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if head.is_empty() {
            head.clone_from(&line);
        }
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse::<u64>().ok();
        }
        stays &= line != "connection: close";
    }
    let length = length.ok_or_else(|| io::Error::other(format!("no Content-Length: {head}")))?;
    let read = io::copy(&mut connection.by_ref().take(length), &mut io::sink())?;
    if read < length {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed within an answer"));
    }
    if !head.starts_with("http/1.1 2") {
        return Err(io::Error::other(head));
    }
    Ok(stays)
}
