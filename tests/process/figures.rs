//! What can be measured without a quiet machine: counts that must not grow, and figures that are
//! printed to be read (`cargo test --test process figures -- --nocapture`). Only what holds on any
//! machine is asserted.

use std::time::{Duration, Instant};

use crate::client::get;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::proc;

/// Kills in a row leave no trace in the master.
#[test]
fn two_hundred_kills_leave_the_master_as_it_was() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::bundled().start();
    let mut times = Vec::new();
    let mut before = None;
    for round in 0..200 {
        let slot = round % 4;
        let old = server.worker(slot);
        let begun = Instant::now();
        send(old, Signal::SIGKILL);
        eventually("another worker in the slot", PATIENCE, || {
            let fresh = |(it, pid): &(u16, i32)| *it == slot && *pid != old;
            server.workers().iter().any(fresh).then_some(())
        });
        times.push(begun.elapsed());
        if round == 20 {
            let memory = proc::private_dirty_kib(server.pid()).expect("the master lives");
            before = Some((proc::descriptors(server.pid()).len(), memory));
        }
    }
    server.wait_workers(4);
    let (descriptors, memory) = before.expect("two hundred rounds");
    eventually("as many descriptors as before", PATIENCE, || {
        (proc::descriptors(server.pid()).len() <= descriptors).then_some(())
    });
    let now = proc::private_dirty_kib(server.pid()).expect("the master lives");
    times.sort_unstable();
    println!("killed to replaced: median {:?}, p99 {:?}", times[100], times[197]);
    println!("master: {memory} KiB private dirty after 20 kills, {now} KiB after 200");
    for (slot, pid) in server.workers() {
        let dirty = proc::private_dirty_kib(pid).expect("the worker lives");
        println!("worker {slot}: {dirty} KiB private dirty");
    }
    assert!(now <= memory + 256, "{memory} KiB have become {now} KiB");
    server.stop();
}

/// A blocked loop delays those whom it has accepted, and nobody else.
#[test]
fn fast_requests_pass_blocked_workers() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let pause = Duration::ZERO;
    let blocking = Crowd {
        count: 2,
        client: Client::KeepAlive { pause, watches: false },
        request: get("/block?ms=100"),
        status: 200,
    };
    let blockers = Load::begin(&server.address(), &[blocking]);
    let fast = Load::begin(&server.address(), &[Crowd::get(16, Client::PerRequest)]);
    fast.wait_for_more(2000);
    let tally = fast.finish();
    blockers.finish().assert_clean();
    tally.assert_clean();
    println!(
        "fast requests beside two that block their loops for 100 ms: p50 {:?}, p99 {:?}, max {:?}",
        tally.percentile(0.5),
        tally.percentile(0.99),
        tally.latencies.last().expect("there are answers"),
    );
    server.stop();
}

/// Fifty reloads and twenty upgrades under load, POSTs among it: nobody notices, and every row that was
/// acknowledged is there, once.
#[test]
fn reloads_and_upgrades_pass_unnoticed() {
    let _alone = crate::machine::alone();
    // In memory: a disk that takes seconds for a commit makes the others wait too long for their turn,
    // which has nothing to do with reloads.
    let memory = tempfile::tempdir_in("/dev/shm").expect("it is memory that every Linux has");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(memory.path(), everybody).expect("it is our folder");
    let url = format!("sqlite://{}/rows.db", memory.path().display());
    let mut server = Ferricorn::bundled()
        .config("[log]\naccess = \"access.log\"")
        .env("DATABASE_URL", url)
        .start();
    let keep_alive = Client::KeepAlive { pause: Duration::from_millis(10), watches: false };
    let posts = |count, client| Crowd {
        request: crate::client::post("/populate", ""),
        status: 201,
        ..Crowd::get(count, client)
    };
    let readers = [Crowd::get(56, keep_alive), Crowd::get(12, Client::PerRequest)];
    let writers = [posts(8, keep_alive), posts(4, Client::PerRequest)];
    let readers = Load::begin(&server.address(), &readers);
    let writers = Load::begin(&server.address(), &writers);
    let begun = Instant::now();
    for round in 0..70 {
        let before = server.wait_workers(4);
        server.signal(if round % 7 < 5 { Signal::SIGHUP } else { Signal::SIGUSR2 });
        eventually("four other workers", PATIENCE, || {
            let now = server.workers();
            (now.len() == 4 && now.iter().all(|it| !before.contains(it))).then_some(())
        });
        readers.wait_for_more(50);
    }
    let took = begun.elapsed();
    let (read, written) = (readers.finish(), writers.finish());
    let rows = written.answered;
    let all = read.and(written);
    all.assert_clean();
    println!(
        "50 HUP and 20 USR2 in {took:?}: {} answered, 0 failed; {rows} rows; longest gap {:?}",
        all.answered,
        all.longest_gap()
    );
    assert!(all.longest_gap() < Duration::from_secs(1), "nobody was answered for so long");
    let mut connection = server.connect();
    connection.send("DELETE /delete HTTP/1.1\r\nhost: a\r\n\r\n").expect("it is open");
    let deleted = connection.response().expect("it is answered").text();
    assert_eq!(deleted, format!("{{\"message\":\"{rows} rows deleted\"}}"));
    drop(connection);
    assert!(server.is_running(), "the master is the process that was started");
    let log = server.log();
    assert_eq!(log.matches("Upgraded in place").count(), 20);
    assert_eq!(log.matches("reloaded: generation ").count(), 70);
    server.stop();
}

/// From the signal to the last of four replacements of idle workers.
#[test]
fn a_reload_of_idle_workers_is_soon_over() {
    const ROUNDS: usize = 11;
    let _alone = crate::machine::alone();
    let server = Ferricorn::bundled().start();
    let ready = || server.log().matches(") ready in ").count();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let before = server.wait_workers(4);
        eventually("all were told", PATIENCE, || (ready() == 4 * (round + 1)).then_some(()));
        let begun = Instant::now();
        server.signal(Signal::SIGHUP);
        eventually("four more are ready", PATIENCE, || (ready() == 4 * (round + 2)).then_some(()));
        times.push(begun.elapsed());
        eventually("the others are gone", PATIENCE, || {
            (!server.workers().iter().any(|it| before.contains(it))).then_some(())
        });
    }
    times.sort_unstable();
    let (median, longest) = (times[ROUNDS / 2], times[ROUNDS - 1]);
    println!("a reload of 4 idle workers: median {median:?}, longest {longest:?}");
    assert!(median <= Duration::from_millis(300), "{times:?}");
    server.stop();
}
