//! An application whose workers are taken over: each route plays an attack through the descriptors and
//! the rights that a worker has. The tests that start real processes are its users.
//!
//! | route | what the worker does |
//! |---|---|
//! | `/` | answers with its slot |
//! | `/block`, `/shutdown` | makes every listener's accept(2) wait; shuts every listener down |
//! | `/narrow` | has every listener drop what clients send, where the kernel lets it, and hold little of it |
//! | `/flags` | fills every descriptor but its sockets, shared memory included, and makes each of them wait |
//! | `/relay` | puts what no honest worker does into every queue of connections, until they are full |
//! | `/end-relay` | shuts these queues down |
//! | `/names` | writes lines in the master's name: to its log, its standard output and its standard error |
//! | `/signals` | signals every other process of its group, and itself 1,000 times with `USR1` |
#![expect(clippy::disallowed_methods, reason = "its purpose is to do what it should not")]

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use ferricorn::telemetry::LogWriter;
use ferricorn::{App, BoxError, PrepareContext, WorkerContext};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{SockFilter, SockRef, Type};
use tracing_subscriber::fmt::MakeWriter as _;

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
            .route("/relay", get(async || each_sequenced(fill)))
            .route("/end-relay", get(async || each_sequenced(shut_down)))
            .route("/flags", get(async || spoil_flags()))
            .route("/names", get(async || forge_names()))
            .route("/signals", get(async || signal_others())))
    }
}

/// Writes as the master in each way that it has, text and JSON.
fn forge_names() -> String {
    let master = nix::unistd::getppid();
    for way in ["ring", "stdout", "stderr"] {
        let lines = [
            format!("[2024-03-21 10:26:38 +0000] [{master}] [CRITICAL] forged by {way} as text\n"),
            format!(
                "{{\"pid\":{master},\"level\":\"CRITICAL\",\"message\":\"forged by {way} as JSON\"}}\n"
            ),
        ];
        for line in lines {
            write_to(way, &line);
        }
    }
    write_to("stdout", "printed\n");
    write_to("stderr", "printed, too\n");
    format!("{master}")
}

fn write_to(way: &str, line: &str) {
    let _failed = match way {
        "ring" => LogWriter.make_writer().write_all(line.as_bytes()),
        "stdout" => std::io::stdout().write_all(line.as_bytes()),
        _ => std::io::stderr().write_all(line.as_bytes()),
    };
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

/// The queues by which workers hand connections over are of this kind, and so is its own channel.
fn each_sequenced(attack: fn(&OwnedFd)) -> String {
    let is_sequenced = |it: &OwnedFd| SockRef::from(it).r#type().ok() == Some(Type::SEQPACKET);
    let sockets: Vec<_> = numbers().into_iter().filter_map(another).filter(is_sequenced).collect();
    sockets.iter().for_each(attack);
    format!("{} queues", sockets.len())
}

/// Sends files, listeners, many sockets and none, with and without what looks like a note, while the other
/// end may wait for the calls of others.
fn fill(queue: &OwnedFd) {
    let note = |address: u8| [&[1, 0, 0, address][..], &[0; 26]].concat();
    let pair = UnixStream::pair();
    let file = File::open("/dev/null");
    let (Ok((one, other)), Ok(file)) = (pair, file) else { return };
    let listener = TcpListener::bind("127.0.0.1:0");
    let (Ok(listener), Ok(lingering)) = (listener, TcpListener::bind("127.0.0.1:0")) else {
        return;
    };
    let client = lingering.local_addr().and_then(TcpStream::connect);
    let (Ok(client), Ok((lingers, _))) = (client, lingering.accept()) else { return };
    let _failed = SockRef::from(&lingers).set_linger(Some(Duration::from_secs(60)));
    while nix::unistd::write(&lingers, &[0; 4096]).is_ok_and(|written| written == 4096)
        && SockRef::from(&lingers).set_nonblocking(true).is_ok()
    {}
    let numbers =
        [&one.as_fd(), &file.as_fd(), &listener.as_fd(), &lingers.as_fd(), &queue.as_fd()];
    let numbers = numbers.map(AsRawFd::as_raw_fd);
    let _failed = fcntl(queue, FcntlArg::F_SETFL(OFlag::empty()));
    for round in 0..10_000_usize {
        let text = if round % 3 == 0 {
            vec![b'o'; round % 500 + 1]
        } else {
            note(u8::from(round % 3 == 1))
        };
        let count = [1, 1, 1, 1, 0, 2, 5][round % 7];
        let from = round % (numbers.len() + 1 - count);
        let rights = [ControlMessage::ScmRights(&numbers[from..from + count])];
        let rights = if count == 0 { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let text = [IoSlice::new(&text)];
        if sendmsg::<()>(queue.as_raw_fd(), &text, rights, flags, None).is_err() {
            break;
        }
    }
    drop((other, client));
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
