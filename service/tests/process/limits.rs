//! Clients that are slow, wrong, greedy or gone.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use crate::client::{Connection, get, post};
use crate::events::has;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

fn answer(server: &Ferricorn, request: &str) -> (u16, bool) {
    let mut connection = server.connect();
    // It may be refused before all of it is sent.
    let _sent = connection.send(request);
    let start: String = request.chars().take(60).collect();
    let answer = connection.response().unwrap_or_else(|outcome| panic!("{start:?}: {outcome:?}"));
    (answer.status, answer.closes())
}

#[test]
fn what_is_too_long_or_wrong_is_refused_with_its_status() {
    let server = Ferricorn::unruly().config("[limits]\nbody = 1000\nrequest_fields = 20").start();
    let long = "a".repeat(5000);
    let wide = "b".repeat(9000);
    let many: String = (0..30).map(|n| format!("x{n}: y\r\n")).collect();
    let huge = "c".repeat(200_000);
    let body = "d".repeat(1001);
    let chunked = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for (request, status) in [
        (get("/"), 200),
        (get(&format!("/{long}")), 414),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {wide}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {huge}\r\n\r\n"), 431),
        (post("/echo", &body), 413),
        (post("/", &body), 413),
        (format!("{chunked}3e9\r\n{body}\r\n0\r\n\r\n"), 413),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned(), 400),
        ("GET  /  HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n".to_owned(), 501),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned(), 400),
    ] {
        let (found, closes) = answer(&server, &request);
        let start: String = request.chars().take(60).collect();
        assert_eq!(found, status, "{start:?}");
        assert_eq!(closes, status != 200, "{start:?}");
    }
    server.wait_served_by(&server.wait_workers(4));
    server.stop();
}

/// A body that nobody has read must not be taken for the next request.
#[test]
fn an_unread_body_is_never_the_next_request() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let smuggled = get("/exit?code=1");
    let mut connection = server.connect();
    connection.send(post("/", &smuggled)).unwrap();
    connection.send(get("/pid")).unwrap();
    let first = connection.response().expect("it is answered");
    let worker = server.worker(0);
    assert_eq!(first.pid(), worker);
    // The second is answered as itself, or the connection is closed: both are right.
    if let Ok(second) = connection.response() {
        assert_eq!(second.text().trim(), worker.to_string());
    }
    assert_eq!(server.worker(0), worker, "nobody has executed the body");
    server.stop();
}

#[test]
fn slow_heads_bodies_and_readers_are_cut_in_time() {
    let server = Ferricorn::unruly()
        .config("keepalive = 1\n[limits]\nheader_timeout = 1\nbody_timeout = 1")
        .start();
    let mut head = server.connect();
    head.send("GET / HTTP/1.1\r\nhos").unwrap();
    let mut body = server.connect();
    body.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").unwrap();
    let mut reader = server.connect();
    reader.send(get("/big?mb=64")).unwrap();
    let mut silent = server.connect();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").unwrap().status, 200);
    let late = head.response().expect("it is told");
    assert_eq!((late.status, late.closes()), (408, true));
    let late = body.response().expect("it is told");
    assert_eq!((late.status, late.closes()), (408, true));
    assert_eq!(silent.rest().expect("it ends in order"), b"");
    assert_eq!(idle.rest().expect("it ends in order"), b"");
    let clients = || -> usize {
        server.workers().iter().map(|(_, pid)| proc::accepted_clients(*pid).len()).sum()
    };
    eventually("the reader is cut off, too", PATIENCE, || (clients() == 0).then_some(()));
    let _rest = reader.rest();
    server.stop();
}

/// An answer that hyper has taken, but nobody else: it dies with its worker, and is told as lost.
#[test]
fn an_answer_that_nobody_takes_is_lost_with_its_worker() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let worker = server.worker(0);
    let mut reader = TcpStream::connect(server.address().tcp()).expect("the server listens");
    reader.write_all(get("/big?mb=64").as_bytes()).unwrap();
    // Its first byte is there: the handler and hyper have done what they had to do.
    assert_eq!(reader.peek(&mut [0]).expect("the answer has begun"), 1);
    assert_eq!(server.connect().get("/").expect("the worker goes on").status, 200);
    server.wait_log("\"GET / HTTP/1.1\" 200 ");
    send(worker, Signal::SIGKILL);
    let lost = server.wait_requests_lost(worker, 1);
    assert!(has(&lost["requests"], "1 request: GET /big?mb=64 ("), "{lost}");
    server.wait_log("\"GET /big?mb=64 HTTP/1.1\" - - ");
    drop(reader);
    server.stop();
}

/// A client that shuts down its sending side has said all it wants to say, and is answered.
#[test]
fn a_client_that_has_finished_sending_is_answered() {
    let server = Ferricorn::unruly().start();
    let mut connection = server.connect();
    connection.send(get("/slow?ms=100")).unwrap();
    connection.finish_sending();
    assert_eq!(connection.response().expect("it is answered").status, 200);
    server.stop();
}

#[test]
fn a_full_worker_leaves_new_connections_to_its_siblings() {
    let server = Ferricorn::unruly().config("workers = 2\nworker_connections = 4").start();
    let mut held: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    let mut counts = [0; 2];
    for connection in &mut held {
        counts[usize::from(connection.get("/").expect("there is room for eight").slot())] += 1;
    }
    assert_eq!(counts, [4, 4]);
    assert!(!server.log().contains("is full"), "{}", server.log());
    server.stop();
}

/// Both workers have as many idle connections as they may: new clients take the places of the oldest.
#[test]
fn idle_connections_at_the_limit_make_room_for_new_clients() {
    let server = Ferricorn::unruly().config("workers = 2\nworker_connections = 4").start();
    let mut held: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut held {
        assert_eq!(connection.get("/").expect("there is room for eight").status, 200);
    }
    let mut new: Vec<Connection> = (0..6).map(|_| server.connect()).collect();
    for connection in &mut new {
        assert_eq!(connection.get("/").expect("an idle one goes").status, 200);
    }
    server.wait_log(" is full: it has 4 connections, the most that worker_connections allows; ");
    let log = server.log();
    for slot in 0..2 {
        assert!(log.matches(&format!("worker {slot} is full")).count() <= 1, "{log}");
    }
    let gone = held.iter_mut().filter_map(|connection| connection.is_ended().then_some(())).count();
    assert!((2..=6).contains(&gone), "{gone}");
    server.stop();
}

/// Without descriptors, fewer of which may be left than it has reckoned with, a worker accepts nothing:
/// it says so once, spins not, and recovers.
#[test]
fn without_descriptors_a_worker_waits_and_recovers() {
    let server = Ferricorn::unruly()
        .config("workers = 1")
        .wrapped(&["sh", "-c", "ulimit -n 100; exec \"$@\"", "sh"])
        .start();
    let worker = server.worker(0);
    assert_eq!(server.get("/open?files=50").expect("it has so many").text(), "open\n");
    let mut held: Vec<Connection> = (0..60).map(|_| server.connect()).collect();
    server.wait_log("failed to accept a connection: Too many open files");
    let before = proc::stat(worker).expect("it lives").ticks;
    std::thread::sleep(Duration::from_millis(500));
    let spent = proc::stat(worker).expect("it lives").ticks - before;
    assert!(spent < 25, "{spent} ticks of 10 ms in half a second: it spins");
    held.truncate(0);
    assert_eq!(server.get("/").expect("it accepts again").status, 200);
    assert_eq!(server.log().matches("failed to accept").count(), 1, "{}", server.log());
    assert_eq!(server.worker(0), worker);
    server.stop();
}

/// Where a process may have fewer files open than it is to hold connections, it takes as many as it can
/// hold, says so, and leaves the others to its siblings.
#[test]
fn a_worker_takes_no_more_connections_than_it_can_hold() {
    // Each has the listeners, the bells and the relays of all twelve; the master has nine for each of them.
    let server = Ferricorn::unruly()
        .config("workers = 12")
        .wrapped(&["sh", "-c", "ulimit -n 150; exec \"$@\"", "sh"])
        .start();
    let said = "worker_connections is 1000, and a process may have 150 files open here: each worker \
                takes ";
    server.wait_log(said);
    server.wait_workers(12);
    let log = server.log();
    let room = log.split_once(said).and_then(|(_, rest)| rest.split_once(" connections at the"));
    let room: usize = room.and_then(|(room, _)| room.parse().ok()).expect("it says how many");
    assert!((40..=80).contains(&room), "{room}");
    let mut held: Vec<Connection> = (0..12 * room).map(|_| server.connect()).collect();
    let mut counts = [0; 12];
    for connection in &mut held {
        counts[usize::from(connection.get("/").expect("there is room").slot())] += 1;
    }
    assert_eq!(counts, [room; 12]);
    assert!(!server.log().contains("failed to accept"), "{}", server.log());
    server.stop();
}

/// Resident KiB of a worker.
fn resident(worker: i32) -> u64 {
    proc::status(worker, "VmRSS").and_then(|kib| kib.parse().ok()).expect("it lives")
}

/// Clients that send long heads and bodies without an end take no more memory than there is for them,
/// and none is kept when they have gone.
#[test]
fn unfinished_requests_are_refused_beyond_their_budget() {
    let server = Ferricorn::unruly()
        .config(
            "workers = 1\nworker_connections = 2000\nmax_memory = '64MiB'\n\
             [limits]\nheader_timeout = 60\nbody_timeout = 60",
        )
        .start();
    let worker = server.worker(0);
    assert_eq!(server.get("/").expect("it serves").status, 200);
    let before = resident(worker);
    let field = format!("x: {}\r\n", "y".repeat(8000));
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{}", field.repeat(6));
    let mut small = server.connect();
    small.send("GET / HTTP/1.1\r\nhost: a\r\n").expect("it is open");
    let mut most = 0;
    let mut attackers: Vec<Connection> = (0..1200).map(|_| server.connect()).collect();
    for attacker in &mut attackers {
        // It may have been refused meanwhile.
        let _sent = attacker.send(&head);
        most = most.max(resident(worker));
    }
    assert_eq!(server.get("/").expect("it serves on").status, 200);
    small.send("\r\n").expect("it is open");
    assert_eq!(small.response().expect("a small one is not refused").status, 200);
    let mut refused = 0;
    for attacker in &mut attackers {
        if attacker.is_ended() || !attacker.ahead().is_empty() {
            assert_eq!(attacker.head().unwrap_or(431), 431);
            refused += 1;
        }
    }
    // 8 MiB are the budget, of which three quarters stay.
    assert!(refused > 900, "{refused}");
    assert!(most < 64 * 1024, "{most} KiB");
    drop(attackers);
    eventually("the memory is given back", PATIENCE, || {
        (resident(worker) < before + 8 * 1024).then_some(())
    });
    assert_eq!(server.worker(0), worker, "{}", server.log());
    let reported = server.log().matches("unfinished requests: together they are larger").count();
    assert_eq!(reported, 1, "once a minute: {}", server.log());
    server.stop();
}
