//! The effect of a request, or of a signal sent to the worker that holds one, on one worker of four.

use std::time::Duration;

use super::scene::{Scene, connect_to, settled, wait_replaced};
use super::{hold, release};
use crate::client::{Connection, Outcome, get};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

/// The fate of a worker.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Its application does it.
    Request(&'static str),
    /// Somebody sends it a signal while it holds a request.
    Signal(Signal),
}

/// The view of the client whose request the worker held.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Status(u16),
    /// The connection ends without an answer.
    End,
}

/// The end of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    Replaced,
}

const SETTINGS: &str = "timeout = 3\nstall_timeout = 2\nmax_memory = \"96MiB\"";

/// A fault, what the client sees, what becomes of the worker, and what the error log says.
type Row = (Fault, Seen, Fate, &'static str);

const BY_APPLICATION: &[Row] = &[
    (Fault::Request("/slow?ms=200"), Seen::Status(200), Fate::Lives, ""),
    (Fault::Request("/never"), Seen::Status(504), Fate::Lives, "answered 504 to GET /never: "),
    (Fault::Request("/panic"), Seen::Status(500), Fate::Lives, "its handler panicked"),
    (Fault::Request("/exit?code=0"), Seen::End, Fate::Replaced, "died: exited with code 0"),
    (Fault::Request("/exit?code=3"), Seen::End, Fate::Replaced, "died: exited with code 3"),
    (Fault::Request("/exit?code=4"), Seen::End, Fate::Replaced, "died: exited with code 4"),
    (Fault::Request("/exit?code=255"), Seen::End, Fate::Replaced, "died: exited with code 255"),
    (Fault::Request("/abort"), Seen::End, Fate::Replaced, "died: ended by signal 6 (ABRT)"),
    // The language's own guard has said so on stderr, and aborted.
    (Fault::Request("/overflow"), Seen::End, Fate::Replaced, "died: ended by signal 6 (ABRT)"),
    (Fault::Request("/orphan?code=3"), Seen::Status(200), Fate::Lives, ""),
    (Fault::Request("/leak?mb=16"), Seen::Status(200), Fate::Lives, ""),
    (Fault::Request("/leak?mb=120"), Seen::Status(200), Fate::Replaced, "above max_memory"),
    (Fault::Request("/block?ms=300"), Seen::Status(200), Fate::Lives, ""),
    (Fault::Request("/block?s=60"), Seen::End, Fate::Replaced, "ended after its stall: ended by "),
];

const BY_SIGNAL: &[Row] = &[
    (Fault::Signal(Signal::SIGKILL), Seen::End, Fate::Replaced, "died: ended by signal 9 (KILL)"),
    (Fault::Signal(Signal::SIGSEGV), Seen::End, Fate::Replaced, "died: ended by signal 11 (SEGV)"),
    (Fault::Signal(Signal::SIGILL), Seen::End, Fate::Replaced, "died: ended by signal 4 (ILL)"),
    (Fault::Signal(Signal::SIGABRT), Seen::End, Fate::Replaced, "died: ended by signal 6 (ABRT)"),
    (Fault::Signal(Signal::SIGALRM), Seen::End, Fate::Replaced, "died: ended by signal 14 (ALRM)"),
    // Stopped, it does not even hear the ABRT.
    (Fault::Signal(Signal::SIGSTOP), Seen::End, Fate::Replaced, "stall: ended by signal 9 (KILL)"),
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

#[test]
fn after_what_a_request_does_the_server_is_as_it_was() {
    go_through(BY_APPLICATION);
}

#[test]
fn after_what_a_signal_does_the_server_is_as_it_was() {
    go_through(BY_SIGNAL);
}

/// One fault after another befalls one server, which is as it was after each.
#[expect(clippy::print_stdout, reason = "the figures are to be read")]
fn go_through(matrix: &[Row]) {
    let server = Ferricorn::unruly().config(SETTINGS).env("UNRULY_START", "subreaper").start();
    // It is settled when it has replaced somebody once.
    let first = server.worker(0);
    send(first, Signal::SIGKILL);
    wait_replaced(&server, 0, first);
    settled(&server, 4);
    for (round, row @ (fault, seen, fate, told)) in matrix.iter().enumerate() {
        // One slot after another: of a slot whose workers die early again and again less is said.
        let slot = u16::try_from(round % 4).expect("a slot");
        let told_before = server.log().matches(told).count();
        let mut scene = Scene::set(&server, 4, Some(slot));
        let (connection, victim) = connect_to(&server, slot);
        scene.begin();
        let target = befall(&server, round, *row, (connection, victim));
        if !told.is_empty() {
            eventually(&format!("the log tells of {row:?}"), PATIENCE, || {
                (server.log().matches(told).count() > told_before).then_some(())
            });
        }
        let replaced = if *fate == Fate::Replaced { vec![slot] } else { Vec::new() };
        let recovered = scene.recovers(&replaced);
        assert!(recovered < Duration::from_secs(20), "{row:?}: {recovered:?}");
        let outcome = match seen {
            Seen::Status(status) => format!("{status} "),
            Seen::End => "- - ".to_owned(),
        };
        let line = format!("\"GET {target} HTTP/1.1\" ");
        eventually(&format!("its access line: {row:?}"), PATIENCE, || {
            server.log().contains(&format!("{line}{outcome}")).then_some(())
        });
        assert_eq!(server.log().matches(&line).count(), 1, "one line: {row:?}");
        println!("{fault:?}: {seen:?}, {fate:?} after {recovered:?}");
    }
    server.stop();
}

/// Does it to this worker; the client must see what the row says. Answers what the client asked for.
fn befall(
    server: &Ferricorn,
    round: usize,
    row: Row,
    (mut connection, victim): (Connection, i32),
) -> String {
    let (fault, seen, ..) = row;
    let target = match fault {
        Fault::Request(target) => {
            let mark = if target.contains('?') { '&' } else { '?' };
            let target = format!("{target}{mark}row={round}");
            connection.send(get(&target)).expect("it is open");
            target
        }
        Fault::Signal(signal) => {
            let target = format!("/until?n={round}");
            hold(server, &mut connection, &target, round);
            send(victim, signal);
            if signal == Signal::SIGSEGV {
                send_until_it_dies(victim, signal);
            }
            if let Seen::Status(_) = seen {
                release(server, round);
            }
            target
        }
    };
    let outcome = connection.response().map(|answer| answer.status);
    match (seen, &outcome) {
        (Seen::Status(status), Ok(found)) => assert_eq!(*found, status, "{row:?}"),
        (Seen::End, Err(Outcome::ResetWaiting | Outcome::ClosedWaiting)) => {}
        (Seen::Status(_) | Seen::End, _) => panic!("{row:?}: {outcome:?}"),
    }
    target
}

/// A `SEGV` that no memory access has caused is taken by the language's guard for one that will come
/// again by itself, and passed over once.
pub(crate) fn send_until_it_dies(pid: i32, signal: Signal) {
    eventually("it dies", PATIENCE, || {
        // It may be gone by now.
        let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        (!proc::is_alive(pid)).then_some(())
    });
}
