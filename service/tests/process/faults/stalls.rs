//! Silence that must not be held against a worker, and silence that must.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::hold;
use super::scene::{Scene, settled, wait_replaced};
use crate::client::get;
use crate::events::has;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

/// The machine stands still, as a laptop does that is closed: master and workers alike, for longer than
/// any worker may be silent. When it goes on nobody is aborted, and who is stuck then is still found.
#[test]
fn a_machine_that_stood_still_has_no_culprit() {
    let _alone = crate::machine::alone();
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
    assert!(!server.log().contains("aborting it"), "{}", server.log());
    println!("a machine that stood still: serves {recovered:?} after it was looked at first");
    let (mut client, victim) = super::scene::connect_to(&server, 2);
    hold(&server, &mut client, "/block?s=60&n=1", 1);
    let stalled = server.wait_event("worker_stalled", &[("process_pid", victim.into())]);
    wait_replaced(&server, 2, victim);
    assert!(stalled["silent_seconds"].as_f64() < Some(4.0), "the pause is not counted: {stalled}");
    server.stop();
}

/// Only the master stood still: its workers have served meanwhile, and none of them is to blame.
#[test]
fn a_master_that_stood_still_blames_nobody() {
    let _alone = crate::machine::alone();
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
    assert!(!server.log().contains("aborting it"), "{}", server.log());
    server.stop();
}

/// One of two threads is blocked: the other one serves, keeps `timeout` for its requests, and the worker
/// is aborted with the name of the request that blocks it.
#[test]
fn a_blocked_thread_is_found_beside_one_that_serves() {
    let config = "workers = 1\nthreads = 2\nstall_timeout = 10\ntimeout = 1";
    let server = Ferricorn::unruly().config(config).start();
    let (slot, victim) = settled(&server, 1)[0];
    let [mut blocked, mut other] = [(); 2].map(|()| server.connect());
    for client in [&mut blocked, &mut other] {
        client.send(get("/")).expect("it is open");
        assert_eq!(client.response().expect("it is answered").status, 200);
    }
    hold(&server, &mut blocked, "/block?s=60&n=1", 1);
    other.send(get("/never")).expect("it is open");
    assert_eq!(other.response().expect("it is answered").status, 504);
    assert_eq!(server.get("/").expect("a thread serves").status, 200);
    assert!(!server.log().contains("aborting it"), "{}", server.log());
    server.wait_event("worker_stalled", &[("process_pid", victim.into())]);
    let fields = [("process_pid", victim.into()), ("count", 1.into())];
    let held = server.wait_event("requests_held", &fields);
    assert!(has(&held["requests"], "stuck in GET /block?s=60&n=1 ("), "{held}");
    wait_replaced(&server, slot, victim);
    server.stop();
}

/// Threads that take a processor for themselves, until they are dropped.
struct Hogs {
    enough: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// So many leave next to nothing to a thread of the idle class, whose weight is 3 beside 1024 of each.
const HOGS: usize = 64;

impl Hogs {
    fn on(processor: usize) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let hog = |_| {
            let enough = Arc::clone(&enough);
            std::thread::spawn(move || {
                let mut only = CpuSet::new();
                only.set(processor).expect("it is there");
                sched_setaffinity(Pid::from_raw(0), &only).expect("we may use it");
                while !enough.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..HOGS).map(hog).collect();
        Self { enough, threads }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|hog| hog.join().expect("it only spins"));
    }
}

/// Has every thread of this process run on this processor alone, and there only when nobody else wants
/// it.
fn leave_crumbs_to(pid: i32, processor: usize) {
    let number = |name| proc::status(pid, name).and_then(|status| status.parse().ok());
    let (Some(user), Some(group)) = (number("Uid"), number("Gid")) else { panic!("{pid} is gone") };
    let pid = pid.to_string();
    let processor = processor.to_string();
    for arguments in [
        ["taskset", "--all-tasks", "--cpu-list", "--pid", &processor, &pid],
        ["chrt", "--all-tasks", "--idle", "--pid", "0", &pid],
    ] {
        let mut command = Command::new(arguments[0]);
        command.args(&arguments[1..]);
        if nix::unistd::geteuid().is_root() {
            // Not every root may do that to others.
            command.uid(user).gid(group);
        }
        let done = command.output().expect("it comes with unshare");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The words about a silent worker that is not to blame.
const WAITS: &str = "it waits for a processor";

/// Others have the processor that a worker waits for, all the time and all of it: that is told, and it
/// lives. So it does when its event loop turns on other threads than its first.
#[test]
fn a_worker_that_gets_no_processor_is_not_to_blame() {
    let _alone = crate::machine::alone();
    let ours = sched_getaffinity(Pid::from_raw(0)).expect("every Linux tells");
    let usable = |at: &usize| ours.is_set(*at).unwrap_or(false);
    let processors: Vec<usize> = (0..CpuSet::count()).filter(usable).collect();
    let [processor, _, ..] = processors[..] else {
        return println!("not tested: there is one processor, and the master needs it");
    };
    for threads in [1, 3] {
        let config = format!("workers = 2\nstall_timeout = 1\nthreads = {threads}");
        let server = Ferricorn::unruly().config(&config).start();
        let scene = Scene::set(&server, 2, None);
        let (slot, victim) = settled(&server, 2)[1];
        leave_crumbs_to(victim, processor);
        let hogs = Hogs::on(processor);
        let who = format!("worker {slot} (pid {victim}) silent for ");
        eventually("its silence is told", PATIENCE, || {
            let log = server.log();
            let told = log.lines().any(|line| line.contains(&who) && line.ends_with(WAITS));
            told.then_some(())
        });
        let begun = Instant::now();
        eventually("it could have been aborted twice", PATIENCE, || {
            (begun.elapsed() > Duration::from_secs(5)).then_some(())
        });
        drop(hogs);
        scene.recovers(&[]);
        assert!(!server.log().contains("aborting it"), "{}", server.log());
        server.stop();
    }
}
