//! Connections that outlive their worker: those that are idle when it drains are handed to the next one with
//! their sockets. Their clients see neither an end nor `Connection: close`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::{Address, Connection, Response, get, post};
use crate::drains::{Held, pass};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::log_figures::figure;
use crate::proc;
use crate::storms::freeze;

/// So many connections that have had an answer.
fn kept(server: &Ferricorn, count: usize) -> Vec<Connection> {
    let mut kept: Vec<_> = (0..count).map(|_| server.connect()).collect();
    for connection in &mut kept {
        assert!(!connection.get("/").expect("it is answered").closes());
    }
    kept
}

/// The next answer on a connection that was kept.
fn next(connection: &mut Connection) -> Response {
    let answer = connection.get("/").expect("the connection is open");
    assert_eq!((answer.status, answer.closes()), (200, false));
    answer
}

/// Waits until none of these workers is alive.
fn wait_gone(workers: &[(u16, i32)]) {
    eventually("the old workers have gone", PATIENCE, || {
        workers.iter().all(|(_, pid)| !proc::is_alive(*pid)).then_some(())
    });
}

/// POSTs among them, and none is ever repeated.
#[test]
fn kept_connections_pass_reloads_and_upgrades_unnoticed() {
    let _alone = crate::machine::alone();
    let clients = figure("FIGURE_CLIENTS", 64);
    let reloads = figure("FIGURE_RELOADS", 4);
    let count = usize::try_from(clients).expect("it is small");
    let server = Ferricorn::unruly().config("[log]\naccess = \"\"\n").start();
    let pause = Duration::from_millis(clients);
    let client = Client::KeepAlive { pause, watches: false };
    let posts = Crowd { request: post("/echo", "a"), ..Crowd::get(count / 2, client) };
    let load = Load::begin(&server.address(), &[Crowd::get(count - count / 2, client), posts]);
    for round in 1..=reloads {
        let before = server.wait_workers(4);
        server.signal(if round % 4 == 0 { Signal::SIGUSR2 } else { Signal::SIGHUP });
        server.wait_reloaded(round + 1);
        wait_gone(&before);
        load.wait_for_more(clients);
    }
    let tally = load.finish();
    let connections: BTreeSet<_> = tally.requests.iter().map(|request| request.client).collect();
    let reconnects = connections.len() - count;
    println!(
        "{reloads} reloads, {clients} connections: {} answered, {} failed, {reconnects} reconnects",
        tally.answered,
        tally.failures()
    );
    tally.assert_clean();
    assert!(reconnects as u64 * 100 < clients * reloads, "{reconnects} reconnects");
    server.stop();
}

/// It does so at once: nothing waits for the grace of idle connections.
#[test]
fn idle_connections_of_every_address_go_on_after_a_reload() {
    let server = Ferricorn::unruly()
        .config("workers = 2\nbind = [\"127.0.0.1:0\", \"0.0.0.0:0\", \"unix:socket\"]")
        .start();
    let unix = Address::Unix(server.folder().join("socket"));
    let everywhere = server.addresses()[1].rsplit_once(':').expect("a port").1.parse().expect("it");
    let everywhere = Address::Tcp(([127, 0, 0, 1], everywhere).into());
    let mut all = kept(&server, 8);
    for address in [unix, everywhere] {
        let mut connection = Connection::open(&address).expect("it listens");
        next(&mut connection);
        all.push(connection);
    }
    for generation in 2..4 {
        let before = server.wait_workers(2);
        server.signal(Signal::SIGHUP);
        server.wait_reloaded(generation);
        wait_gone(&before);
        for connection in &mut all {
            let pid = next(connection).pid();
            assert!(before.iter().all(|(_, old)| *old != pid), "{pid} has gone");
        }
    }
    eventually("each answer has its line", PATIENCE, || {
        (server.log().matches("\"GET / HTTP/1.1\" 200").count() == 30).then_some(())
    });
    server.stop();
}

/// A connection with a request in hand goes on behind its answer.
#[test]
fn connection_is_handed_over_behind_its_last_answer() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let mut connection = server.connect();
    let held = Held::begin(&server, &mut connection, 1);
    let before = server.wait_workers(1);
    server.signal(Signal::SIGUSR2);
    server.wait_reloaded(2);
    held.release();
    let answer = connection.response().expect("it was in hand");
    assert_eq!((answer.status, answer.closes(), answer.pid()), (200, false, before[0].1));
    wait_gone(&before);
    assert_ne!(next(&mut connection).pid(), before[0].1);
    server.stop();
}

/// HTTP/1.0 ends connections by itself, and requests in a row on one are all answered.
#[test]
fn ends_and_pipelines_are_as_without_a_drain() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let mut old = server.connect();
    let mut pipelined = server.connect();
    let mut bodies = server.connect();
    old.send("GET /until?n=1 HTTP/1.0\r\n\r\n").expect("it is open");
    let held = Held::begin(&server, &mut pipelined, 2);
    let others = Held::begin(&server, &mut bodies, 3);
    eventually("all run", PATIENCE, || server.folder().join("begun-1").exists().then_some(()));
    pipelined.send(get("/").repeat(3)).expect("it is open");
    bodies.send(post("/echo", "a\r\n\r\n").repeat(3)).expect("it is open");
    let before = server.wait_workers(1);
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    std::fs::write(server.folder().join("go-1"), "").expect("the folder is ours");
    held.release();
    assert_eq!(old.response().expect("it was in hand").status, 200);
    assert_eq!(old.rest().expect("it ends in order"), b"");
    others.release();
    for _ in 0..4 {
        assert!(!pipelined.response().expect("it was sent").closes());
    }
    assert!(!bodies.response().expect("it was in hand").closes());
    // Where the last request ends is not sure: what lies behind it must not be lost.
    for _ in 0..3 {
        assert_eq!(bodies.response().expect("it was sent").text(), "a\r\n\r\n");
    }
    assert_eq!(bodies.rest().expect("it ends in order"), b"");
    wait_gone(&before);
    next(&mut pipelined);
    server.stop();
}

/// The rest of a body that no handler reads must not become a request of another worker.
#[test]
fn body_that_is_not_read_is_never_taken_for_a_request() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let mut connection = server.connect();
    let inner = "GET /panic HTTP/1.1\r\nhost: test\r\n\r\n";
    let length = inner.len() + 10;
    let head = format!("GET /until?n=1 HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n");
    connection.send(head).expect("it is open");
    eventually("it runs", PATIENCE, || server.folder().join("begun-1").exists().then_some(()));
    let before = server.wait_workers(1);
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    std::fs::write(server.folder().join("go-1"), "").expect("the folder is ours");
    assert_eq!(connection.response().expect("it is answered").status, 200);
    // It may have been closed by now.
    let _closed = connection.send(inner);
    let rest = connection.rest().unwrap_or_default();
    assert_eq!(rest, b"");
    wait_gone(&before);
    let log = server.log();
    assert!(!log.contains("panic"), "{log}");
    server.stop();
}

/// The slot has no worker any more: the siblings take its connections.
#[test]
fn connections_of_a_retired_slot_go_on_with_the_siblings() {
    let server = Ferricorn::unruly().config("workers = 3").start();
    let mut all = kept(&server, 30);
    for workers in [2, 1] {
        let before = server.wait_workers(workers + 1);
        server.signal(Signal::SIGTTOU);
        wait_gone(&before[usize::from(workers)..]);
        for connection in &mut all {
            assert!(next(connection).slot() < workers);
        }
    }
    // And back: the slot is served by its own worker again, whose relay is the same.
    server.signal(Signal::SIGTTIN);
    server.wait_workers(2);
    let before = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    wait_gone(&before);
    for connection in &mut all {
        next(connection);
    }
    server.stop();
}

/// A slot that was opened at run time has a relay, too, and older workers take from it.
#[test]
fn connections_of_a_further_slot_go_on() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    server.signal(Signal::SIGTTIN);
    server.wait_workers(2);
    let mut all = kept(&server, 20);
    let before = server.wait_workers(2);
    server.signal(Signal::SIGTTOU);
    wait_gone(&before[1..]);
    for connection in &mut all {
        assert_eq!(next(connection).pid(), before[0].1);
    }
    server.stop();
}

/// A connection in the relay of a slot whose next worker stands still; and that worker.
fn relayed(server: &Ferricorn) -> (Connection, i32) {
    let mut connection = server.connect();
    let held = Held::begin(server, &mut connection, 1);
    let before = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    let is_old = |found: &(u16, i32)| before.contains(found);
    let (slot, old) = eventually("one old worker is left", PATIENCE, || {
        let left: Vec<_> = server.workers().into_iter().filter(is_old).collect();
        (left.len() == 1).then(|| left[0])
    });
    let workers = server.workers().into_iter().filter(|found| !is_old(found));
    let next: Vec<_> = workers.filter(|(number, _)| *number == slot).collect();
    let pid = next.first().expect("it has been replaced").1;
    freeze(pid);
    held.release();
    assert!(!connection.response().expect("it was in hand").closes());
    wait_gone(&[(slot, old)]);
    (connection, pid)
}

#[test]
fn connection_is_served_by_a_sibling_while_its_next_worker_stands_still() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let (mut connection, stopped) = relayed(&server);
    assert_ne!(next(&mut connection).pid(), stopped);
    send(stopped, Signal::SIGCONT);
    server.stop();
}

#[test]
fn connection_outlives_the_kill_of_its_next_worker() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let (mut connection, stopped) = relayed(&server);
    send(stopped, Signal::SIGKILL);
    assert_ne!(next(&mut connection).pid(), stopped);
    server.stop();
}

/// The connections in a relay are taken when the server stops, and answered for the last time.
#[test]
fn stop_answers_what_lies_in_a_relay() {
    let mut server = Ferricorn::unruly().config("workers = 1").start();
    let (mut connection, stopped) = relayed(&server);
    connection.send(get("/")).expect("it is open");
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[]);
    send(stopped, Signal::SIGCONT);
    let answer = connection.response().expect("it is served");
    assert_eq!((answer.status, answer.closes(), answer.pid()), (200, true, stopped));
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// It is taken as soon as there is room, as queued connections are.
#[test]
fn stop_answers_what_lies_in_the_relay_of_a_full_worker() {
    let mut server = Ferricorn::unruly().config("workers = 1\nworker_connections = 2").start();
    let mut first = server.connect();
    let of_old = Held::begin(&server, &mut first, 1);
    let before = server.wait_workers(1);
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    let mut second = server.connect();
    let of_next = Held::begin(&server, &mut second, 2);
    let next = server.workers().into_iter().find(|found| !before.contains(found));
    let next = next.expect("the old one has a successor").1;
    freeze(next);
    of_old.release();
    assert!(!first.response().expect("it was in hand").closes());
    wait_gone(&before);
    let mut third = server.connect();
    for connection in [&mut first, &mut third] {
        connection.send(get("/")).expect("it is open");
    }
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[("mode", "graceful".into())]);
    send(next, Signal::SIGCONT);
    // Longer than connections are taken beside those that are open.
    pass(Duration::from_millis(1500));
    of_next.release();
    for connection in [&mut first, &mut second, &mut third] {
        assert_eq!(connection.response().expect("it was let in before the stop").status, 200);
    }
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// The next worker has no room: the connection is not put where it would keep others out.
#[test]
fn connection_without_room_is_closed_after_its_grace() {
    let server = Ferricorn::unruly().config("workers = 1\nworker_connections = 2").start();
    let mut first = server.connect();
    let held = Held::begin(&server, &mut first, 1);
    let before = server.wait_workers(1);
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    let mut others = kept(&server, 2);
    held.release();
    assert!(!first.response().expect("it was in hand").closes());
    assert_eq!(first.rest().expect("it ends in order"), b"");
    wait_gone(&before);
    others.iter_mut().for_each(|other| drop(next(other)));
    server.stop();
}
