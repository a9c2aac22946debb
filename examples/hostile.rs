//! An application whose workers are taken over: each route plays an attack through the descriptors and
//! the rights that a worker has. The tests that start real processes are its users.
//!
//! | route | what the worker does |
//! |---|---|
//! | `/` | answers with its slot |
//! | `/block`, `/shutdown` | makes every listener's accept(2) wait; shuts every listener down |
//! | `/narrow` | has every listener drop what clients send, where the kernel lets it, and hold little of it |
//! | `/flags` | fills every descriptor but its sockets, shared memory included, and makes each of them wait |
//! | `/signals` | signals every other process of its group, and itself 1,000 times with `USR1` |
#![expect(clippy::disallowed_methods, reason = "its purpose is to do what it should not")]

use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use ferricorn::{App, BoxError, PrepareContext, WorkerContext};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{SockFilter, SockRef};

struct Hostile;

impl App for Hostile {
    async fn prepare(&self, _: &PrepareContext) -> Result<(), BoxError> {
        tracing::info!("prepare draws {:x}", rand::random::<u128>());
        Ok(())
    }

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let slot = worker.slot();
        tracing::info!("worker {slot} draws {:x}", rand::random::<u128>());
        Ok(Router::new()
            .route("/", get(async move || format!("{slot}")))
            .route("/block", get(async || each_listener(wait_in_accept)))
            .route("/shutdown", get(async || each_listener(shut_down)))
            .route("/narrow", get(async || each_listener(narrow)))
            .route("/flags", get(async || spoil_flags()))
            .route("/signals", get(async || signal_others())))
    }
}

/// The numbers of this process's descriptors.
fn numbers() -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Another descriptor of the same open file, as it has no owner here: closing it closes nothing else.
fn another(number: RawFd) -> Option<OwnedFd> {
    let this = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).ok()?;
    pidfd_getfd(this, number, PidfdGetfdFlags::empty()).ok()
}

fn each_listener(attack: fn(&OwnedFd)) -> String {
    let is_listener = |it: &OwnedFd| SockRef::from(it).is_listener().unwrap_or(false);
    let listeners: Vec<_> = numbers().into_iter().filter_map(another).filter(is_listener).collect();
    listeners.iter().for_each(attack);
    format!("{} listeners", listeners.len())
}

fn wait_in_accept(listener: &OwnedFd) {
    let _failed = fcntl(listener, FcntlArg::F_SETFL(OFlag::empty()));
}

fn shut_down(listener: &OwnedFd) {
    let _failed = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
}

/// Attaches a program of one instruction (BPF_RET), which takes no byte of any packet.
fn narrow(listener: &OwnedFd) {
    let _failed = SockRef::from(listener).set_recv_buffer_size(1);
    let _failed = SockRef::from(listener).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]);
}

/// Fills what can be filled, and takes `O_NONBLOCK` from all of it. Its own event loop must not wait, so
/// its epoll and its connections are left alone.
fn spoil_flags() -> String {
    let mut spoiled = 0;
    let others = numbers().into_iter().filter(|number| *number > 2).filter_map(another);
    for descriptor in others.filter(|other| SockRef::from(other).r#type().is_err()) {
        let _failed = fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        let written = || nix::unistd::write(&descriptor, &[b'o'; 64]).is_ok();
        spoiled += usize::from((0..100_000).take_while(|_| written()).count() > 0);
        let _failed = fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::empty()));
    }
    format!("{spoiled} filled")
}

/// The signals that were sent to others, by the pids of those that the kernel let it signal.
fn signal_others() -> String {
    let own = Pid::this();
    let parent = nix::unistd::getppid();
    let listed = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let listed = listed.unwrap_or_default();
    let others = listed.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
    let others = others.chain([parent]).filter(|pid| *pid != own);
    let reached: Vec<String> = others
        .filter(|pid| kill(*pid, Signal::SIGSTOP).is_ok())
        .map(|pid| pid.to_string())
        .collect();
    for pid in &reached {
        let _gone = kill(Pid::from_raw(pid.parse().unwrap_or(0)), Signal::SIGCONT);
    }
    for _ in 0..1000 {
        let _sent = kill(own, Signal::SIGUSR1);
        std::thread::sleep(Duration::from_micros(100));
    }
    reached.join(" ")
}

fn main() -> ExitCode {
    ferricorn::main(Hostile)
}
