//! The ends of programs: nothing is left of them.

use std::time::{Duration, Instant};

use super::{plain, program, wait_programs};
use crate::boundary::begun_by;
use crate::harness::{Exit, PATIENCE, Signal, eventually, send};
use crate::proc;

/// Waits until none of these processes is left.
fn wait_gone(pids: &[i32]) {
    eventually(&format!("the end of {pids:?}"), PATIENCE, || {
        pids.iter().all(|pid| !proc::is_alive(*pid)).then_some(())
    });
}

/// The program in slot 0, and its first child.
fn family(server: &crate::harness::Ferricorn) -> [i32; 2] {
    let leader = program(server, 0);
    let child = eventually("a child of the program", PATIENCE, || {
        proc::children(leader).first().map(|child| child.pid)
    });
    [leader, child]
}

#[test]
fn request_in_hand_is_answered_at_a_stop() {
    let mut server = plain("workers = 1", &[]).start();
    let mut connection = server.connect();
    connection.send(crate::client::get("/slow")).expect("it is open");
    let folder = server.folder().to_owned();
    eventually("the request is in hand", PATIENCE, || {
        folder.join("in-slow").exists().then_some(())
    });
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[]);
    std::fs::write(folder.join("go-on"), "").expect("the folder is ours");
    assert_eq!(connection.response().expect("it is answered").status, 200);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// More connections than the program has accepted by the time of the stop.
#[test]
fn queued_connections_are_answered_at_a_stop() {
    let mut server = plain("workers = 1", &[]).start();
    let mut held = server.connect();
    held.send(crate::client::get("/slow")).expect("it is open");
    let folder = server.folder().to_owned();
    eventually("the request is in hand", PATIENCE, || {
        folder.join("in-slow").exists().then_some(())
    });
    let mut queued: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut queued {
        connection.send(crate::client::get("/")).expect("it is open");
    }
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[]);
    std::fs::write(folder.join("go-on"), "").expect("the folder is ours");
    for connection in queued.iter_mut().chain([&mut held]) {
        assert_eq!(connection.response().expect("it is answered").status, 200);
    }
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn program_that_does_not_leave_is_killed_with_its_group() {
    let config = "workers = 1\ngraceful_timeout = 1.6\n[program]\nready = \"listen\"";
    let mut server = plain(config, &["child", "stubborn"]).start();
    let family = family(&server);
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    wait_gone(&family);
    assert!(server.log().contains("it did not leave in time"), "{}", server.log());
}

/// It takes longer than `graceful_timeout`, and asks for more time until it is done.
#[test]
fn program_that_asks_for_time_drains_longer() {
    let config = "workers = 1\ngraceful_timeout = 1.5";
    let mut server = plain(config, &["lingers=4"]).start();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(server.folder().join("lingered").exists(), "{}", server.log());
    assert!(!server.log().contains("it did not leave in time"), "{}", server.log());
}

#[test]
fn quick_stop_does_not_wait_for_a_program_that_asks_for_time() {
    let mut server = plain("workers = 1", &["lingers=60"]).start();
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[]);
    server.signal(Signal::SIGQUIT);
    assert_eq!(server.wait_exit_within(Duration::from_secs(10)), Exit::Code(0));
    assert!(!server.folder().join("lingered").exists());
}

/// The parent ends by the signal, as a shell does; its child is told then, and has the rest of the time.
#[test]
fn child_of_a_program_drains_when_its_parent_has_ended() {
    let mut server = plain("workers = 1\n[program]\nready = \"listen\"", &["child"]).start();
    let family = family(&server);
    let mut connection = server.connect();
    connection.send(crate::client::get("/slow")).expect("it is open");
    let folder = server.folder().to_owned();
    eventually("the request is in hand", PATIENCE, || {
        folder.join("in-slow").exists().then_some(())
    });
    server.signal(Signal::SIGTERM);
    wait_gone(&family[..1]);
    std::fs::write(folder.join("go-on"), "").expect("the folder is ours");
    assert_eq!(connection.response().expect("it is answered").status, 200);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    wait_gone(&family);
}

#[test]
fn quick_stop_does_not_wait_for_programs() {
    let mut server = plain("workers = 2\n[program]\nready = \"listen\"", &["stubborn"]).start();
    let programs = wait_programs(&server, 2, &[]);
    server.signal(Signal::SIGQUIT);
    assert_eq!(server.wait_exit_within(Duration::from_secs(10)), Exit::Code(0));
    wait_gone(&programs);
}

#[test]
fn nothing_is_left_of_a_program_whose_keeper_is_killed() {
    let server =
        plain("workers = 1\n[program]\nready = \"listen\"", &["child", "stubborn"]).start();
    let family = family(&server);
    send(server.worker(0), Signal::SIGKILL);
    wait_gone(&family);
    eventually("another program", PATIENCE, || (program(&server, 0) != family[0]).then_some(()));
    server.signal(Signal::SIGQUIT);
}

#[test]
fn nothing_is_left_of_programs_whose_master_is_killed() {
    let mut server =
        plain("workers = 2\n[program]\nready = \"listen\"", &["child", "stubborn"]).start();
    let family = family(&server);
    let all = wait_programs(&server, 2, &[]);
    server.signal(Signal::SIGKILL);
    assert_eq!(server.wait_exit(), Exit::Signal(9));
    wait_gone(&[&all[..], &family].concat());
    eventually("the end of every process", PATIENCE, || server.remains().is_empty().then_some(()));
}

#[test]
fn stop_signal_is_the_one_that_is_set() {
    let config = "workers = 1\n[program]\nstop_signal = \"USR1\"\nready = \"listen\"";
    let command = "import signal, socket, sys\n\
                   signal.signal(signal.SIGUSR1, lambda *_: (print('told', flush=True), sys.exit()))\n\
                   socket.socket(fileno=3).accept()";
    let mut server = super::running(config, &["python3", "-c", command]).start();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(server.log().contains("[slot 0] told"), "{}", server.log());
}

/// A program that ends at once costs next to nothing, and is tried again and again.
#[test]
fn crash_loop_backs_off() {
    let server = plain("workers = 2", &[]).start();
    std::fs::write(server.folder().join("plain.py"), "raise SystemExit(9)").expect("it is ours");
    for pid in wait_programs(&server, 2, &[]) {
        send(pid, Signal::SIGKILL);
    }
    eventually("a dozen ends", PATIENCE, || {
        (server.log().matches("ended with code 9").count() >= 12).then_some(())
    });
    std::fs::write(server.folder().join("plain.py"), super::PLAIN).expect("it is ours");
    wait_programs(&server, 2, &[]);
    eventually("it serves again", PATIENCE, || server.get("/").ok());
    server.stop();
}

/// The kernel lets the user have the keeper and the program, and no third process.
#[test]
fn program_without_a_guard_is_reported() {
    let config = "user = \"54398\"\nworkers = 1\n[program]\nready = \"listen\"";
    let Some(server) = begun_by(&["prlimit", "--nproc=2:2"], plain(config, &[])) else { return };
    let server = server.start();
    let told = format!(
        "cannot guard the program of slot 0 ({}): Resource temporarily unavailable",
        program(&server, 0)
    );
    server.wait_log(&told);
    server.stop();
}
