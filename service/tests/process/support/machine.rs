//! The machine that the tests share: those that measure want it for themselves.
//!
//! The tests may be threads of one process or processes of their own, so the lock is on a file. A
//! turnstile before it keeps those who measure from waiting for ever.
//!
//! # Why a network of its own
//! Hundreds of thousands of connections fill the machine's table of connections for minutes, where it
//! has one (nf_conntrack): then it drops packets, of the tests and of everybody else. So a test that
//! runs as root takes its thread into a new network namespace before its first socket; the processes
//! and threads that it starts are there too.

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::rc::{Rc, Weak};

use nix::sched::CloneFlags;

use crate::link;

/// A test's share of the machine, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _lock: File,
}

/// Returns true if this test's thread has a network of its own, whose settings are no other's.
pub(crate) fn has_own_network() -> bool {
    let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    network("thread-self") != network("self")
}

thread_local! {
    static MINE: RefCell<Weak<Turn>> = const { RefCell::new(Weak::new()) };
}

/// A share of the machine beside others. A test that has one gets the same again.
pub(crate) fn share() -> Rc<Turn> {
    take(File::lock_shared)
}

/// The whole machine: no other test runs a server meanwhile. It must come before the test's first
/// server.
pub(crate) fn alone() -> Rc<Turn> {
    take(File::lock)
}

fn take(lock: impl FnOnce(&File) -> std::io::Result<()>) -> Rc<Turn> {
    MINE.with_borrow_mut(|mine| {
        if let Some(turn) = mine.upgrade() {
            return turn;
        }
        take_own_network();
        let turnstile = open("turnstile");
        turnstile.lock().expect("a local file can be locked");
        let turn = open("machine");
        lock(&turn).expect("a local file can be locked");
        let turn = Rc::new(Turn { _lock: turn });
        *mine = Rc::downgrade(&turn);
        turn
    })
}

/// Takes this thread into a network that has nothing but a loopback device, if that is possible.
fn take_own_network() {
    let ip = |arguments: &[&str]| Command::new("ip").args(arguments).output();
    let possible = nix::unistd::geteuid().is_root()
        && !link::is_inside()
        && ip(&["link", "show", "lo"]).is_ok_and(|shown| shown.status.success());
    if possible && nix::sched::unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        let up = ip(&["link", "set", "lo", "up"]).expect("it has shown it");
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    }
}

fn open(name: &str) -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    File::create(&path).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()))
}
