//! The system calls of a worker, counted by strace(1): for each connection and for each request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::{Address, Connection};
use crate::harness::{Builder, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

const CONNECTIONS: usize = 20;
const REQUESTS: usize = 10;
/// Traces of which one must be exact. A machine that stands still for a moment has a worker make further
/// calls: it parks a connection that is idle, and looks what its siblings do. It has none make fewer.
const TRACES: usize = 3;

/// A worker that is traced until this is dropped.
pub(crate) struct Trace {
    strace: Child,
    file: PathBuf,
}

impl Trace {
    /// `None` where there is no strace, or where it may not trace.
    fn begin(worker: i32, folder: &Path) -> Option<Self> {
        Self::begin_with(&[], worker, folder)
    }

    pub(crate) fn begin_with(arguments: &[&str], worker: i32, folder: &Path) -> Option<Self> {
        let file = folder.join("trace");
        let strace = Command::new("strace")
            .args(["-f", "-o"])
            .arg(&file)
            .args(arguments)
            .args(["-p", &worker.to_string()])
            .stderr(Stdio::piped())
            .spawn();
        let mut strace = strace.ok()?;
        let mut line = String::new();
        let stderr = strace.stderr.take().expect("it is a pipe");
        BufReader::new(stderr).read_line(&mut line).expect("our own pipe");
        if !line.contains("attached") {
            strace.wait().expect("it is our child");
            return None;
        }
        Some(Self { strace, file })
    }

    /// Returns the number of times that each system call was begun.
    pub(crate) fn end(mut self) -> BTreeMap<String, usize> {
        send(i32::try_from(self.strace.id()).expect("pids fit"), Signal::SIGINT);
        self.strace.wait().expect("it is our child");
        let text = std::fs::read_to_string(&self.file).expect("strace has written it");
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let (_, call) = line.split_once(' ').expect("the thread comes first");
            let name = call.trim_start().split('(').next().unwrap_or_default();
            if name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}

/// The system calls of one worker for so many connections with so many requests each, one after the other;
/// `None` where they cannot be counted.
#[expect(clippy::print_stdout, reason = "the counts are to be read")]
fn counted(builder: Builder, host: [u8; 4], body: &str) -> Option<BTreeMap<String, usize>> {
    let server = builder.start();
    let port = server.address().tcp().port();
    let address = Address::Tcp((host, port).into());
    let worker = server.worker(0);
    let open = || proc::descriptors(worker).len();
    // What the first request alone needs is not counted.
    Connection::open(&address).expect("it listens").get("/").expect("it is answered");
    let before = eventually("the connection is closed", PATIENCE, || {
        proc::accepted_clients(worker).is_empty().then(open)
    });
    let Some(trace) = Trace::begin(worker, server.folder()) else {
        println!("not tested: strace(1) is absent, or may not trace");
        return None;
    };
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(&address).expect("it listens");
        for _ in 0..REQUESTS {
            assert_eq!(
                connection.get("/").expect("it is answered").text(),
                body.replace("PORT", &port.to_string())
            );
        }
        drop(connection);
        eventually("it is closed", PATIENCE, || (open() == before).then_some(()));
    }
    let counts = trace.end();
    println!("{CONNECTIONS} connections of {REQUESTS} requests each: {counts:?}");
    server.stop();
    Some(counts)
}

/// Judges one of several traces; each connection is asked for its local address so often.
fn judge(builder: impl Fn() -> Builder, host: [u8; 4], body: &str, local: usize) {
    let _alone = crate::machine::alone();
    let mut last = BTreeMap::new();
    for _ in 0..TRACES {
        let Some(counts) = counted(builder(), host, body) else { return };
        if is_exact(counts.clone(), local) {
            return;
        }
        last = counts;
    }
    panic!("none of {TRACES} traces is exact; the last: {last:?}");
}

fn is_exact(mut counts: BTreeMap<String, usize>, local: usize) -> bool {
    let mut take = |name: &str| counts.remove(name).unwrap_or(0);
    let exact = [
        // A request is one read and one write; a connection has a further read, of its end.
        ("recvfrom", CONNECTIONS * (REQUESTS + 1)),
        ("sendto", CONNECTIONS * REQUESTS),
        // A queue is empty when accept(2) has said so.
        ("accept4", CONNECTIONS * 2),
        ("epoll_ctl", CONNECTIONS * 2),
        ("close", CONNECTIONS),
        ("getsockname", CONNECTIONS * local),
    ];
    let is_so = exact.iter().all(|(name, count)| take(name) == *count);
    // The runtime asks whether the socket blocks; without optimization, std asks whether it is open.
    let is_asked = take("fcntl") <= CONNECTIONS * 2;
    // Timers, and threads that wake the event loop.
    let _of_the_runtime = ["epoll_wait", "timerfd_settime", "write"].map(take);
    is_so && is_asked && counts.is_empty()
}

#[test]
fn connection_and_request_take_no_further_system_call() {
    for host in ["127.0.0.1", "0.0.0.0"] {
        let config = format!("workers = 1\nbind = \"{host}:0\"");
        let hello = || Ferricorn::hello().config(&config);
        judge(hello, [127, 0, 0, 1], "hello from worker 0\n", 0);
    }
}

/// The application asks for the local address at each request.
#[test]
fn local_address_is_looked_up_once_a_connection() {
    let shop = |host: &str| {
        let config = format!("workers = 1\nbind = \"{host}:0\"");
        Ferricorn::example("listeners").config(&config)
    };
    for (bound, asked, host) in [
        ("127.0.0.1", 0, [127, 0, 0, 1]),
        ("0.0.0.0", 1, [127, 0, 0, 1]),
        ("0.0.0.0", 1, [127, 0, 0, 2]),
    ] {
        let [a, b, c, d] = host;
        let body = format!("shop of no name at {a}.{b}.{c}.{d}:PORT\n");
        judge(|| shop(bound), host, &body, asked);
    }
}
