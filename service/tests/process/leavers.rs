//! Clients that leave while they wait for a response.

use std::time::{Duration, Instant};

use crate::client::{Connection, get};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually};
use crate::proc;

/// Connections of each of two workers.
const ROOM: usize = 50;

/// Clients whose handlers run: they have the heads of their responses.
fn waiting(server: &Ferricorn, count: usize) -> Vec<Connection> {
    let mut clients: Vec<_> = (0..count).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(get("/quiet")).expect("it is open");
    }
    for client in &mut clients {
        assert_eq!(client.head().expect("there is room"), 200);
    }
    clients
}

/// Resident KiB of a worker.
fn resident(worker: i32) -> u64 {
    let text = proc::status(worker, "VmRSS").expect("it lives");
    text.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

#[test]
fn a_thousand_leavers_leave_the_server_as_it_was() {
    let mut server = Ferricorn::unruly()
        .config(&format!(
            "workers = 2\ntimeout = 600\nworker_connections = {ROOM}\n\
             [log]\naccess_format = '%(U)s %(s)s %({{outcome}}e)s'"
        ))
        .start();
    let workers = server.wait_workers(2);
    // Before, the younger one may still close what it has inherited.
    server.wait_served_by(&workers);
    let held = |of: &dyn Fn(i32) -> u64| -> u64 { workers.iter().map(|(_, pid)| of(*pid)).sum() };
    let descriptors = |pid| proc::descriptors(pid).len() as u64;
    let free = held(&descriptors);
    let gone = || {
        eventually("the workers have closed", PATIENCE, || {
            (held(&descriptors) <= free).then_some(())
        });
    };
    waiting(&server, 2 * ROOM).into_iter().for_each(Connection::reset);
    gone();
    let before = held(&resident);
    let rounds = usize::try_from(crate::log_figures::figure("FIGURE_ROUNDS", 8)).expect("it fits");
    let begun = Instant::now();
    for _ in 0..rounds {
        waiting(&server, 2 * ROOM).into_iter().for_each(Connection::reset);
    }
    println!("{} clients left in {:?}", rounds * 2 * ROOM, begun.elapsed());
    // These close in order: for 5 s they may have finished sending only.
    drop(waiting(&server, 2 * ROOM));
    let mut next = server.connect();
    assert_eq!(next.get("/").expect("there is room for it").status, 200);
    drop(next);
    gone();
    let grown = held(&resident).saturating_sub(before);
    println!("{grown} KiB more than {before} in {} descriptors", held(&descriptors));
    assert!(grown < 4096, "{grown} KiB more than {before}");
    let lines = || server.log().matches("/quiet 200 aborted\n").count();
    eventually("each has its line", PATIENCE, || {
        (lines() == (rounds + 2) * 2 * ROOM).then_some(())
    });
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// A download whose client has finished sending is cut off as long as it is not read, and only then.
#[test]
fn a_slow_download_goes_on_after_a_fin() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let mut reader = server.connect();
    reader.send(get("/big?mb=32")).expect("it is open");
    reader.finish_sending();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        // A piece now and then, each of which makes room for the next.
        for _ in 0..16 {
            reader.wait_for_more().expect("it goes on");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let answer = reader.response().expect("it is whole");
    assert_eq!(answer.body.len(), 32 << 20);
    server.stop();
}

/// The line of a response that was cut short has its status, and the bytes that the kernel has taken.
#[test]
fn a_response_cut_short_is_logged_with_its_status_and_bytes() {
    let server = Ferricorn::unruly()
        .config("workers = 1\n[log]\naccess_format = '%(U)s%(q)s %(s)s %(B)s %({outcome}e)s'")
        .start();
    let mut stream = server.connect();
    stream.send(get("/quiet?bytes=1000")).expect("it is open");
    while !stream.ahead().ends_with(b"q\r\n") {
        stream.wait_for_more().expect("it goes on");
    }
    stream.reset();
    server.wait_log("/quietbytes=1000 200 1000 aborted\n");
    let mut download = server.connect();
    download.send(get("/big?mb=64")).expect("it is open");
    while download.ahead().len() < 8 << 20 {
        download.wait_for_more().expect("it goes on");
    }
    let received = download.ahead().len() as u64;
    download.reset();
    server.wait_log("/bigmb=64 200 ");
    let log = server.log();
    let line = log.lines().find_map(|line| line.strip_prefix("/bigmb=64 200 "));
    let (bytes, outcome) = line.and_then(|line| line.split_once(' ')).expect("its bytes");
    let bytes: u64 = bytes.parse().expect("a number");
    assert_eq!(outcome, "aborted");
    // Its head was received, too, and the kernels hold some MiB.
    assert!((received - 1024..64 << 20).contains(&bytes), "{received} of {bytes}");
    server.stop();
}
