//! The matrix of faults: what a client sees, what the log says, and that nothing is left of it.

use std::time::{Duration, Instant};

use crate::client::{Connection, Outcome, get};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

/// What happens to a worker.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Its application does it.
    Request(&'static str),
    /// Somebody sends it a signal while it holds a request.
    Signal(Signal),
}

/// What the client sees whose request the worker held.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Status(u16),
    /// The connection ends without an answer.
    End,
}

/// What becomes of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    Replaced,
}

const MATRIX: &[(Fault, Seen, Fate, &str)] = &[
    (Fault::Request("/panic"), Seen::Status(500), Fate::Lives, "its handler panicked"),
    (Fault::Request("/exit?code=0"), Seen::End, Fate::Replaced, "died: exited with code 0"),
    (Fault::Request("/exit?code=3"), Seen::End, Fate::Replaced, "died: exited with code 3"),
    (Fault::Request("/exit?code=4"), Seen::End, Fate::Replaced, "died: exited with code 4"),
    (Fault::Request("/exit?code=255"), Seen::End, Fate::Replaced, "died: exited with code 255"),
    (Fault::Request("/abort"), Seen::End, Fate::Replaced, "died: ended by signal 6 (ABRT)"),
    (Fault::Request("/overflow"), Seen::End, Fate::Replaced, "died: ended by signal"),
    (Fault::Request("/orphan?code=3"), Seen::Status(200), Fate::Lives, ""),
    (Fault::Request("/leak?mb=16"), Seen::Status(200), Fate::Lives, ""),
    (Fault::Request("/block?ms=300"), Seen::Status(200), Fate::Lives, ""),
    (Fault::Signal(Signal::SIGKILL), Seen::End, Fate::Replaced, "died: ended by signal 9 (KILL)"),
    (Fault::Signal(Signal::SIGILL), Seen::End, Fate::Replaced, "died: ended by signal 4 (ILL)"),
    (Fault::Signal(Signal::SIGABRT), Seen::End, Fate::Replaced, "died: ended by signal 6 (ABRT)"),
    (Fault::Signal(Signal::SIGALRM), Seen::End, Fate::Replaced, "died: ended by signal 14 (ALRM)"),
    (
        Fault::Signal(Signal::SIGTERM),
        Seen::Status(200),
        Fate::Replaced,
        "told to leave by a signal",
    ),
    (Fault::Signal(Signal::SIGINT), Seen::End, Fate::Replaced, "exited with code 0"),
    (Fault::Signal(Signal::SIGQUIT), Seen::End, Fate::Replaced, "exited with code 0"),
    (Fault::Signal(Signal::SIGHUP), Seen::Status(200), Fate::Lives, ""),
    (Fault::Signal(Signal::SIGUSR1), Seen::Status(200), Fate::Lives, ""),
    (Fault::Signal(Signal::SIGPIPE), Seen::Status(200), Fate::Lives, ""),
    (Fault::Signal(Signal::SIGWINCH), Seen::Status(200), Fate::Lives, ""),
];

/// One fault after another befalls one server, which is as it was after each: as many workers, no
/// zombie, no descriptor more, and the other workers have not noticed.
#[test]
fn after_each_fault_the_server_is_as_it_was() {
    let server = Ferricorn::unruly().env("UNRULY_START", "subreaper").start();
    // It is settled when it has replaced somebody once.
    send(server.worker(0), Signal::SIGKILL);
    server.wait_log("died: ended by signal 9 (KILL)");
    let of_master = proc::descriptors(server.pid()).len();
    for (round, row @ (fault, seen, fate, told)) in MATRIX.iter().enumerate() {
        let before = settled(&server);
        let told_before = server.log().matches(told).count();
        let begun = Instant::now();
        let (victim, outcome) = befall(&server, round, *fault, *seen);
        match (seen, &outcome) {
            (Seen::Status(status), Ok(found)) => assert_eq!(found, status, "{row:?}"),
            (Seen::End, Err(Outcome::ResetWaiting | Outcome::ClosedWaiting)) => {}
            (Seen::Status(_) | Seen::End, _) => panic!("{row:?}: {outcome:?}"),
        }
        eventually(&format!("the log tells of {row:?}"), PATIENCE, || {
            (told.is_empty() || server.log().matches(told).count() > told_before).then_some(())
        });
        let after = eventually("it is as it was", PATIENCE, || {
            let after = settled(&server);
            (after.iter().any(|it| it.1 == victim) == (*fate == Fate::Lives)).then_some(after)
        });
        let recovered = begun.elapsed();
        let gone: Vec<_> = before.iter().filter(|it| !after.contains(it)).collect();
        assert_eq!(gone.len(), usize::from(*fate == Fate::Replaced), "{row:?}: {gone:?}");
        eventually(&format!("no descriptor more after {row:?}"), PATIENCE, || {
            (proc::descriptors(server.pid()).len() <= of_master).then_some(())
        });
        assert!(recovered < Duration::from_secs(20), "{row:?}: {recovered:?}");
    }
    server.wait_served_by(&settled(&server));
    eventually("late workers have inherited no more than early ones", PATIENCE, || {
        let workers = settled(&server);
        let mut counts = workers.iter().map(|(_, pid)| proc::descriptors(*pid).len());
        let first = counts.next()?;
        counts.all(|count| count == first).then_some(())
    });
    server.stop();
}

/// Does it to some worker, and answers whom it befell and what the client saw.
fn befall(
    server: &Ferricorn,
    round: usize,
    fault: Fault,
    seen: Seen,
) -> (i32, Result<u16, Outcome>) {
    // One slot after another: of a slot whose workers die early again and again less is said.
    let (mut connection, victim) = eventually("a connection to the slot", PATIENCE, || {
        let mut connection = server.connect();
        let answer = connection.get("/").expect("it serves");
        (usize::from(answer.slot()) == round % 4).then(|| (connection, answer.pid()))
    });
    match fault {
        Fault::Request(target) => connection.send(get(target)).expect("it is open"),
        Fault::Signal(signal) => {
            hold(server, &mut connection, &format!("/until?n={round}"), round);
            send(victim, signal);
            match seen {
                Seen::Status(_) => {
                    std::fs::write(server.folder().join(format!("go-{round}")), "").unwrap();
                }
                Seen::End => {}
            }
        }
    }
    (victim, connection.response().map(|answer| answer.status))
}

/// Sends a request with this number in it, and waits until its handler runs.
fn hold(server: &Ferricorn, connection: &mut Connection, target: &str, number: usize) {
    connection.send(get(target)).expect("it is open");
    let begun = server.folder().join(format!("begun-{number}"));
    eventually("the handler runs", PATIENCE, || begun.exists().then_some(()));
}

/// The workers when each slot has one, and the master has no other child.
fn settled(server: &Ferricorn) -> Vec<(u16, i32)> {
    eventually("four workers and no other child", PATIENCE, || {
        let workers = server.workers();
        let slots = workers.iter().map(|(slot, _)| *slot);
        (slots.eq(0..4) && proc::children(server.pid()).len() == 4).then_some(workers)
    })
}

/// Whose requests they were is told for every death and every stall, fifty of fifty.
#[test]
fn the_request_that_a_worker_died_of_is_always_named() {
    let server = Ferricorn::unruly().config("workers = 16\nstall_timeout = 1").start();
    for n in 0..20 {
        let target = format!("/exit?code=7&n={n}");
        server.get(&target).expect_err("its worker dies");
        server.wait_log(&format!("took with it 1 request: GET {target} ("));
    }
    for n in 20..40 {
        let mut held = server.connect();
        let victim = held.get("/").expect("it serves").pid();
        hold(&server, &mut held, &format!("/until?n={n}"), n);
        send(victim, Signal::SIGKILL);
        server.wait_log(&format!("took with it 1 request: GET /until?n={n} ("));
    }
    server.wait_workers(16);
    let stalled: Vec<Connection> = (40..50)
        .map(|n| {
            let mut connection = server.connect();
            hold(&server, &mut connection, &format!("/block?s=60&n={n}"), n);
            connection
        })
        .collect();
    for n in 40..50 {
        server.wait_log(&format!("holds 1 request: GET /block?s=60&n={n}"));
        server.wait_log(&format!("took with it 1 request: GET /block?s=60&n={n} ("));
    }
    drop(stalled);
    server.wait_workers(16);
    server.stop();
}
