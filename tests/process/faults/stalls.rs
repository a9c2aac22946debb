//! Silence that must not be held against a worker, and silence that must.

use std::time::{Duration, Instant};

use super::hold;
use super::scene::{Scene, settled, wait_replaced};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

/// The machine stands still, as a laptop does that is closed: master and workers alike, for longer than
/// any worker may be silent. When it goes on nobody is aborted, and who is stuck then is still found.
#[test]
fn a_machine_that_stood_still_has_no_culprit() {
    let server = Ferricorn::unruly().config("stall_timeout = 1").start();
    let scene = Scene::set(&server, 4, Some(3));
    let everybody: Vec<i32> =
        settled(&server, 4).iter().map(|(_, pid)| *pid).chain([server.pid()]).collect();
    everybody.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
    let begun = Instant::now();
    eventually("much longer than any worker may be silent", PATIENCE, || {
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    });
    everybody.iter().rev().for_each(|pid| send(*pid, Signal::SIGCONT));
    let recovered = scene.recovers(&[]);
    assert!(!server.log().contains("silent for"), "{}", server.log());
    println!("a machine that stood still: serves {recovered:?} after it was looked at first");
    let (mut client, victim) = super::scene::connect_to(&server, 2);
    hold(&server, &mut client, "/block?s=60&n=1", 1);
    server.wait_log(&format!("worker 2 (pid {victim}) silent for "));
    wait_replaced(&server, 2, victim);
    assert!(!server.log().contains("silent for 4"), "the pause is not counted: {}", server.log());
    server.stop();
}

/// Only the master stood still: its workers have served meanwhile, and none of them is to blame.
#[test]
fn a_master_that_stood_still_blames_nobody() {
    let server = Ferricorn::unruly().config("stall_timeout = 1").start();
    let scene = Scene::set(&server, 4, Some(3));
    send(server.pid(), Signal::SIGSTOP);
    eventually("it stands still", PATIENCE, || {
        (proc::stat(server.pid())?.state == 'T').then_some(())
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(server.get("/").expect("workers need no master to serve").status, 200);
    }
    send(server.pid(), Signal::SIGCONT);
    scene.recovers(&[]);
    assert!(!server.log().contains("silent for"), "{}", server.log());
    server.stop();
}
