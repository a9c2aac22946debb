//! Thousands of connections that say nearly HTTP to the bundled program. Whatever they say: no worker
//! dies, no line of the error log is worse than information, nobody waits for an answer in vain, the
//! server fails in no way but the deliberate ones (501), and its access log has one line for each
//! answer that a client got.
//!
//! `FUZZ_RUNS` says how many connections there are. A run that fails prints its seed:
//! `FUZZ_SEED` with one run does the same again.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::client::PATIENCE;
use crate::harness::{Ferricorn, eventually};

/// Connections of one test, unless the environment says otherwise: a few seconds.
const RUNS: u64 = 4000;
/// Clients at the same time.
const THREADS: u64 = 8;
/// The statuses that a server may answer to nearly anything.
const STATUSES: [u16; 13] = [100, 200, 201, 204, 304, 400, 404, 405, 413, 414, 415, 431, 501];

const CONFIG: &str = "workers = 2\nkeepalive = 5\n\
    [log]\naccess = 'access'\naccess_format = '%(s)s %({outcome}e)s'\n\
    [limits]\nbody = '2KiB'\nrequest_line = 1000\nrequest_field_size = 1000\n";

#[test]
fn nearly_http_does_no_harm() {
    batter("", http);
}

#[test]
fn nearly_proxied_http_does_no_harm() {
    batter("proxy_protocol = true\n", |rng| [proxy_header(rng), http(rng)].concat());
}

/// Lets clients say what the generator makes.
#[expect(clippy::print_stderr, reason = "figures for who looks at them")]
fn batter(settings: &str, generate: fn(&mut StdRng) -> Vec<u8>) {
    let number =
        |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    let runs = number("FUZZ_RUNS").unwrap_or(RUNS);
    let seed = number("FUZZ_SEED").unwrap_or_else(rand::random);
    let server = Ferricorn::bundled().config(&format!("{settings}{CONFIG}")).start();
    let workers = server.wait_workers(2);
    let address = server.address().tcp();
    let begun = Instant::now();
    let clients: Vec<_> = (0..THREADS)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut tally = BTreeMap::new();
                for run in (thread..runs).step_by(usize::try_from(THREADS).expect("it is small")) {
                    let seed = seed.wrapping_add(run);
                    let mut rng = StdRng::seed_from_u64(seed);
                    let bytes = mutated(generate(&mut rng), &mut rng);
                    for status in converse(address, &bytes, &mut rng, seed) {
                        *tally.entry(status).or_insert(0_u64) += 1;
                    }
                }
                tally
            })
        })
        .collect();
    let mut answers = BTreeMap::new();
    for client in clients {
        for (status, count) in client.join().expect("no client has seen anything wrong") {
            *answers.entry(status).or_insert(0) += count;
        }
    }
    eprintln!("{runs} connections from seed {seed} in {:?}: {answers:?}", begun.elapsed());
    assert_eq!(server.workers(), workers, "no worker was lost");
    // Among so many are some of each of these: 30 at the least, where they were counted.
    for status in [200, 304, 400, 404, 405, 413, 414, 431, 501] {
        assert!(runs < RUNS || answers.contains_key(&status), "nobody was answered {status}");
    }
    answers.remove(&100);
    eventually("each answer has its line", PATIENCE, || (logged(&server) == answers).then_some(()));
    let log = server.log();
    let is_bad = |line: &&str| !line.contains("[INFO]") && !line.contains("[DEBUG]");
    // Some bytes look like TLS, which is worth a line.
    let is_tls = |line: &&str| line.contains("TLS was sent to an address that speaks plain HTTP");
    let bad: Vec<&str> = log.lines().filter(is_bad).filter(|line| !is_tls(line)).collect();
    assert_eq!(bad, Vec::<&str>::new(), "seed {seed}");
    server.stop();
}

/// The count of each status in the access log.
fn logged(server: &Ferricorn) -> BTreeMap<u16, u64> {
    let text = std::fs::read_to_string(server.folder().join("access")).expect("there is a log");
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let (status, outcome) = line.split_once(' ').expect("two words");
        match (status, outcome) {
            ("-", "aborted") => {}
            (status, "ok" | "unread") => {
                *counts.entry(status.parse().expect("a status")).or_insert(0) += 1;
            }
            other => panic!("an impossible line: {other:?}"),
        }
    }
    counts
}

/// Says it in pieces and then nothing more; answers the statuses that come back.
fn converse(to: SocketAddr, bytes: &[u8], rng: &mut StdRng, seed: u64) -> Vec<u16> {
    let mut stream = TcpStream::connect(to).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    let mut rest = bytes;
    while !rest.is_empty() {
        let length =
            if rng.random_bool(0.8) { rest.len() } else { rng.random_range(1..=rest.len()) };
        let (piece, behind) = rest.split_at(length);
        if stream.write_all(piece).is_err() {
            break;
        }
        rest = behind;
    }
    // It may have been closed by the other side.
    let _closed = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let is_late = error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!is_late, "seed {seed}: no end after {}", bytes.escape_ascii());
    }
    let answer = String::from_utf8_lossy(&answer);
    let statuses = answer.match_indices("HTTP/1.").map(|(at, _)| {
        answer.get(at + 9..at + 12).and_then(|status| status.parse().ok()).unwrap_or(0)
    });
    let statuses: Vec<u16> = statuses.collect();
    for status in &statuses {
        let is_right = STATUSES.contains(status);
        assert!(is_right, "seed {seed}: {} is answered {answer}", bytes.escape_ascii());
    }
    statuses
}

fn pick<'a>(from: &[&'a str], rng: &mut StdRng) -> &'a str {
    from.choose(rng).expect("there is something")
}

/// One to three requests.
fn http(rng: &mut StdRng) -> Vec<u8> {
    (0..rng.random_range(1..=3)).flat_map(|_| request(rng)).collect()
}

fn request(rng: &mut StdRng) -> Vec<u8> {
    let method = match rng.random_range(0..10) {
        0..5 => "GET",
        5 | 6 => "POST",
        _ => pick(&["HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "get", "M-SEARCH", "-"], rng),
    };
    let long = format!("/{}", "a".repeat(1000));
    let target = match rng.random_range(0..10) {
        0..6 => pick(PATHS, rng),
        6 => pick(&["/populate", "/delete"], rng),
        _ => pick(
            &["*", "http://a/", "a:80", "/%00", "/../..", "//", "/\\", "?", "/#", "/\u{e4}", &long],
            rng,
        ),
    };
    let version = match rng.random_range(0..12) {
        0 => pick(&["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", ""], rng),
        _ => "HTTP/1.1",
    };
    let end = if rng.random_bool(0.95) { "\r\n" } else { pick(&["\n", "\r", "\r\r\n", ""], rng) };
    let mut text = format!("{method} {target} {version}{end}");
    if rng.random_bool(0.9) {
        text += "Host: a.example\r\n";
    }
    // What browsers say, without which the page and half of its files' answers are never seen.
    if rng.random_bool(0.3) {
        text += "Accept: text/html,*/*;q=0.8\r\n";
    }
    if rng.random_bool(0.2) {
        text += "If-None-Match: *\r\n";
    }
    for _ in 0..rng.random_range(0..5) {
        let odd = ["Host", "Content-Length", "Transfer-Encoding", "", "x ", "\u{e9}"];
        let name = if rng.random_bool(0.9) { pick(NAMES, rng) } else { pick(&odd, rng) };
        let value = if rng.random_bool(0.9) {
            pick(VALUES, rng).to_owned()
        } else {
            pick(&["x", ",", "1", "\u{ff}"], rng).repeat(rng.random_range(0..2000))
        };
        text += &format!("{name}: {value}{end}");
    }
    text += &body(rng);
    text.into_bytes()
}

const PATHS: &[&str] = &[
    "/",
    "/data",
    "/data?limit=3",
    "/data?limit=3&before=2",
    "/healthz",
    "/readyz",
    "/assets/app.css",
    "/assets/app.js",
    "/assets/icon.svg",
];

const NAMES: &[&str] = &[
    "Connection",
    "Expect",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Request-Id",
    "Authorization",
    "Upgrade",
    "TE",
    "Trailer",
    "Range",
    "If-None-Match",
    "Accept",
    "Cookie",
    "Referer",
    "User-Agent",
    "x",
];

const VALUES: &[&str] = &[
    "",
    "a",
    "a, b",
    "0",
    "5",
    "-1",
    "5, 5",
    "99999999999999999999",
    "chunked",
    "gzip, chunked",
    "close",
    "keep-alive",
    "upgrade",
    "100-continue",
    "for=1.2.3.4;proto=https",
    "for=\"[2001:db8::1]:80\", for=10.0.0.1",
    "for=\"",
    "1.2.3.4, 127.0.0.1",
    "https",
    "id-1",
    "Basic dXNlcjpwYXNz",
    "h2c",
    "websocket",
    "trailers",
    "bytes=0-1",
    "*",
    "\"",
    "a\tb",
    "a\0b",
    "\u{1b}[31m",
    "${x}",
    "%n%s",
    "\u{e9}",
];

/// The fields that go with a body, the end of the head, and the body, which may not be what they say.
fn body(rng: &mut StdRng) -> String {
    let data = "b".repeat(rng.random_range(0..3000) / rng.random_range(1..20));
    let length = data.len();
    match rng.random_range(0..10) {
        0..5 => "\r\n".to_owned(),
        5 => format!("Content-Length: {length}\r\n\r\n{data}"),
        6 => format!("Content-Length: {}\r\n\r\n{data}", rng.random_range(0..4000)),
        7 => format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{data}\r\n0\r\n\r\n"),
        8 => format!(
            "Transfer-Encoding: chunked\r\n\r\n{length:x};x=y\r\n{data}\r\n0\r\nt: u\r\n\r\n"
        ),
        _ => format!("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{data}"),
    }
}

/// The header of a proxy, in either version.
fn proxy_header(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..6) {
        0..2 => b"PROXY TCP4 203.0.113.9 127.0.0.1 50000 80\r\n".to_vec(),
        2 => b"PROXY TCP6 2001:db8::9 ::1 50000 80\r\n".to_vec(),
        3 => b"PROXY UNKNOWN\r\n".to_vec(),
        4 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
        _ => {
            let additions: Vec<u8> = (0..rng.random_range(0..20)).map(|_| rng.random()).collect();
            let length = u8::try_from(12 + additions.len()).expect("it is short");
            let fixed = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", &[length][..]].concat();
            let addresses = [203, 0, 113, 9, 127, 0, 0, 1, 0xc3, 0x50, 0, 80];
            [&fixed[..], &addresses, &additions].concat()
        }
    }
}

/// Changes some of it.
fn mutated(mut bytes: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    let count = if rng.random_bool(0.4) { 0 } else { rng.random_range(1..6) };
    for _ in 0..count {
        if bytes.is_empty() {
            return bytes;
        }
        let at = rng.random_range(0..bytes.len());
        let end = (at + rng.random_range(1..40)).min(bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, again);
            }
            4 => {
                let token = pick(&["\r\n", "\n", "\r", "\0", ":", " ", "\t", ",", "\r\n\r\n"], rng);
                bytes.splice(at..at, token.bytes());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}
