//! Clients that flood a server beside others. Each attack goes on until it has reached its size, however
//! often its connections are closed, and holds what it has open. In the suite the sizes are small; in full length, alone, latencies are
//! held to what is promised:
//!
//! `FIGURE_ABUSE=100 cargo test --release --test process abuse:: -- --nocapture`
//!
//! # What is compared
//! Latencies of the bystanders before and after the attacks, and beside each, in one run. The attackers have
//! the lowest priority, since they would not share the server's machine: what the server does for them has
//! the priority of the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::Address;
use crate::harness::{Ferricorn, PATIENCE, eventually};
use crate::http2;
use crate::load::{Client, Crowd, Load, Tally};
use crate::log_figures::{figure, is_in_full_length};
use crate::proc;
use crate::seen::Running;

/// The beginning of a client of HTTP/2, with these settings.
fn preface(settings: &[u8]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(4, 0, 0, settings)].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of a `GET`, or of a `POST`, of this path.
fn fields(method: u8, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("it is short");
    // Indexed method and scheme; a path and an authority that are not indexed (RFC 7541).
    let path = [&[0x04, length], path.as_bytes()].concat();
    [&[method, 0x86], &*path, &[0x01, 1, b'a']].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The counted deeds of the attackers, and how much of them is enough.
#[derive(Debug)]
struct Quota {
    done: AtomicU64,
    enough: u64,
    stop: AtomicBool,
}

impl Quota {
    fn add(&self, deeds: usize) {
        self.done.fetch_add(deeds as u64, Ordering::Relaxed);
    }

    fn is_met(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.enough
    }

    /// Returns true if the bystanders are measured no longer: until then an attack holds what it has open.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A connection whose answers are thrown away.
struct Attacker(TcpStream);

impl Attacker {
    fn connect(address: SocketAddr) -> Option<Self> {
        let socket = TcpStream::connect(address).ok()?;
        // A server that reads no more is as good as closed.
        socket.set_write_timeout(Some(Duration::from_secs(1))).expect("it is not zero");
        Some(Self(socket))
    }

    /// Returns false when the connection has ended.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok() && self.drain()
    }

    fn drain(&mut self) -> bool {
        let mut bytes = [0; 16_384];
        self.0.set_nonblocking(true).expect("a descriptor's flag can be set");
        let is_open = loop {
            match self.0.read(&mut bytes) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.0.set_nonblocking(false).expect("a descriptor's flag can be set");
        is_open
    }
}

/// One connection of an attack, until it ends or the attack is over.
type Attack = fn(SocketAddr, &Quota) -> Option<()>;

fn rapid_reset(address: SocketAddr, quota: &Quota) -> Option<()> {
    let mut attacker = Attacker::connect(address)?;
    attacker.send(&preface(&[])).then_some(())?;
    let head = fields(GET, "/never");
    for batch in 0.. {
        let streams = (0..50).map(|number| 2 * (50 * batch + number) + 1);
        let bytes: Vec<u8> = streams
            .flat_map(|stream| {
                let begun = frame(1, END_STREAM | END_HEADERS, stream, &head);
                [begun, frame(3, 0, stream, &[0, 0, 0, 8])].concat()
            })
            .collect();
        attacker.send(&bytes).then_some(())?;
        quota.add(50);
        (!quota.is_met()).then_some(())?;
    }
    None
}

/// Sends these frames again and again, 64 at once.
fn repeat(address: SocketAddr, quota: &Quota, first: &[u8], frames: &[u8]) -> Option<()> {
    let mut attacker = Attacker::connect(address)?;
    attacker.send(&[&preface(&[]), first].concat()).then_some(())?;
    let bytes = frames.repeat(64);
    while !quota.is_met() {
        attacker.send(&bytes).then_some(())?;
        quota.add(bytes.len());
    }
    None
}

fn continuation(address: SocketAddr, quota: &Quota) -> Option<()> {
    let head = frame(1, END_STREAM, 1, &fields(GET, "/"));
    // A literal field that is not indexed, of a kibibyte.
    let field = [&[0x00, 1, b'x', 0x7f, 0x81, 0x07], &[b'y'; 1024][..]].concat();
    repeat(address, quota, &head, &frame(9, 0, 1, &field))
}

fn pings(address: SocketAddr, quota: &Quota) -> Option<()> {
    repeat(address, quota, &[], &frame(6, 0, 0, &[0; 8]))
}

fn settings(address: SocketAddr, quota: &Quota) -> Option<()> {
    repeat(address, quota, &[], &frame(4, 0, 0, &[0, 3, 0, 0, 0, 9]))
}

fn empty_frames(address: SocketAddr, quota: &Quota) -> Option<()> {
    let head = frame(1, END_HEADERS, 1, &fields(POST, "/echo"));
    repeat(address, quota, &head, &frame(0, 0, 1, &[]))
}

/// As many streams as a connection may have, each of which lets out a byte at a time.
fn small_windows(address: SocketAddr, quota: &Quota) -> Option<()> {
    let mut attacker = Attacker::connect(address)?;
    // SETTINGS_INITIAL_WINDOW_SIZE
    attacker.send(&preface(&[0, 4, 0, 0, 0, 1])).then_some(())?;
    let head = fields(GET, "/quiet?bytes=4096");
    let streams = || (0..128).map(|number| 2 * number + 1);
    let begun: Vec<u8> =
        streams().flat_map(|stream| frame(1, END_STREAM | END_HEADERS, stream, &head)).collect();
    attacker.send(&begun).then_some(())?;
    quota.add(128);
    let bytes: Vec<u8> =
        streams().flat_map(|stream| frame(8, 0, stream, &1_u32.to_be_bytes())).collect();
    // Each of them lets out a byte every 50 ms, which is when nothing more comes in.
    attacker.0.set_read_timeout(Some(Duration::from_millis(50))).expect("it is not zero");
    while !quota.is_over() {
        attacker.send(&bytes).then_some(())?;
        let mut answers = [0; 16_384];
        while matches!(attacker.0.read(&mut answers), Ok(1..)) {}
    }
    None
}

/// Connections that stop in the middle of a ClientHello.
fn half_handshakes(address: SocketAddr, quota: &Quota) -> Option<()> {
    let mut halves = Vec::new();
    for _ in 0..100 {
        let mut half = Attacker::connect(address)?;
        half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        halves.push(half);
        quota.add(1);
    }
    // Until the server has ended all of them.
    while !quota.is_over() {
        let half = halves.last_mut()?;
        half.0.set_read_timeout(Some(Duration::from_millis(50))).expect("it is not zero");
        match half.0.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => drop(halves.pop()),
        }
    }
    None
}

/// Runs an attack on so many threads.
fn begin(
    attack: Attack,
    address: SocketAddr,
    threads: usize,
    quota: &Arc<Quota>,
) -> Vec<JoinHandle<()>> {
    let attacker = |_| {
        let quota = Arc::clone(quota);
        std::thread::spawn(move || {
            let thread = nix::unistd::gettid().to_string();
            let lowered = Command::new("renice").args(["-n", "19", "-p", &thread]).output();
            assert!(lowered.expect("util-linux is installed").status.success());
            while !quota.is_met() {
                attack(address, &quota);
            }
        })
    };
    (0..threads).map(attacker).collect()
}

/// Clients that do nothing wrong, on both addresses.
struct Bystanders(Vec<Load>, Running);

impl Bystanders {
    fn begin(plain: &Address, encrypted: &Address) -> Self {
        let kept = Client::KeepAlive { pause: Duration::from_millis(5), watches: false };
        let crowd = |address| {
            Load::begin(address, &[Crowd::get(4, kept), Crowd::get(1, Client::PerRequest)])
        };
        let loads = vec![crowd(plain), crowd(encrypted)];
        Self(loads, http2::load(encrypted, 2, 2))
    }

    fn wait_for_more(&self, count: u64) {
        self.0.iter().for_each(|load| load.wait_for_more(count));
        self.1.wait_for_more(count);
    }

    /// Every request of theirs was answered.
    fn finish(self, what: &str) -> Tally {
        let tallies = self.0.into_iter().map(Load::finish);
        let tally = tallies.reduce(Tally::and).expect("there are two");
        tally.assert_clean();
        self.1.finish().assert_clean(what);
        tally
    }
}

/// The memory that is the workers' own, in KiB.
fn memory(server: &Ferricorn) -> u64 {
    let own = |pid| proc::status(pid, "RssAnon").and_then(|kib| kib.parse::<u64>().ok());
    server.workers().iter().filter_map(|(_, pid)| own(*pid)).sum()
}

#[test]
fn floods_are_not_felt_by_others() {
    // Of the sizes that are promised, so many hundredths.
    let share = figure("FIGURE_ABUSE", 2);
    let is_figure = is_in_full_length("FIGURE_ABUSE");
    let _alone = crate::machine::alone();
    let builder = Ferricorn::unruly();
    crate::tls::localhost().write(builder.folder(), "a");
    let tls = "[tls]\nbind = \"127.0.0.1:0\"\ncertificate = \"a.crt\"\nkey = \"a.key\"\n";
    let server = builder.config(&format!("[log]\naccess = \"\"\n{tls}")).start();
    let [plain, encrypted] =
        [0, 1].map(|at| crate::harness::parse_address(&server.addresses()[at]));
    let workers = server.wait_workers(4);
    let requests = if is_figure { 4000 } else { 200 };
    let alone = || {
        let bystanders = Bystanders::begin(&plain, &encrypted);
        bystanders.wait_for_more(requests);
        bystanders.finish("alone")
    };
    // What is made once is there before the memory is measured.
    alone();
    let before = memory(&server);
    let mut without = alone();
    let attacks: [(&str, Attack, &Address, usize, u64); 7] = [
        ("rapid reset, streams", rapid_reset, &plain, 2, 100_000),
        ("CONTINUATION, bytes", continuation, &plain, 2, 10 << 20),
        ("PING, bytes", pings, &plain, 2, 10 << 20),
        ("SETTINGS, bytes", settings, &plain, 2, 10 << 20),
        ("empty frames, bytes", empty_frames, &plain, 2, 10 << 20),
        ("windows of a byte, streams", small_windows, &plain, 8, 1024),
        ("half handshakes", half_handshakes, &encrypted, 20, 2000),
    ];
    let mut beside = Vec::new();
    let mut most = before;
    for (name, attack, address, threads, size) in attacks {
        let done = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let quota = Arc::new(Quota { done, enough: (size * share / 100).max(1), stop });
        let threads = begin(attack, address.tcp(), threads, &quota);
        let bystanders = Bystanders::begin(&plain, &encrypted);
        bystanders.wait_for_more(requests);
        eventually(name, 10 * PATIENCE, || {
            most = most.max(memory(&server));
            quota.is_met().then_some(())
        });
        let tally = bystanders.finish(name);
        quota.stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("no attacker panics"));
        beside.push((name, quota.done.load(Ordering::Relaxed), tally));
    }
    without = without.and(alone());
    let p99 = |tally: &Tally| tally.percentile(0.99).as_secs_f64();
    let mut late = Vec::new();
    for (name, done, tally) in &beside {
        let ratio = p99(tally) / p99(&without);
        println!(
            "{name}: {done}; {} requests of others, p99 {:?} beside {:?}: {ratio:.2}",
            tally.answered,
            tally.percentile(0.99),
            without.percentile(0.99)
        );
        if ratio > 2.0 {
            late.push(*name);
        }
    }
    let more = most.saturating_sub(before);
    println!("memory of 4 workers: {before} KiB, at most {more} KiB more");
    assert!(more <= 64 << 10, "{more} KiB more");
    assert_eq!(server.wait_workers(4), workers, "none was killed");
    // Without optimization, beside other tests, it is another program on another machine.
    assert!(!is_figure || late.is_empty(), "{late:?}");
    server.stop();
}
