//! Descriptors that the kernel does not let the master send: too many of its user's are under way in
//! messages already.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::boundary::begun_by;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};

/// A user that no other test has, whose messages are counted together.
const USER: u32 = 54_399;
/// Its server may have so many descriptors open, and under way.
const DESCRIPTORS_MAX: usize = 256;

/// Sends descriptors to itself, twice as many as the server may, and reads them when its input ends.
const SENDER: &str = "import array, os, socket, sys
ours, theirs = socket.socketpair()
for _ in range(2):
    ours.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 253))])
print('sent', flush=True)
sys.stdin.read()
";

/// A worker that is forked meanwhile has a ring of its own, and listeners that its siblings are sent: both
/// are sent again, until the kernel lets them pass.
#[test]
fn descriptors_that_cannot_be_sent_are_sent_later() {
    let limit = format!(
        "ulimit -n {DESCRIPTORS_MAX}; \
         exec setpriv --reuid={USER} --regid={USER} --clear-groups \"$@\""
    );
    let config = "workers = 1\nworker_connections = 20\n[log]\naccess_format = '%(p)s %(U)s'";
    let server = Ferricorn::unruly().config(config);
    let Some(server) = begun_by(&["sh", "-c", &limit, "sh"], server) else { return };
    let server = server.start();
    let mut sender = Command::new("python3")
        .args(["-c", SENDER])
        .uid(USER)
        .gid(USER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests need python3");
    let mut line = String::new();
    BufReader::new(sender.stdout.take().expect("it is a pipe"))
        .read_line(&mut line)
        .expect("our own pipe");
    assert_eq!(line, "sent\n");
    server.signal(Signal::SIGTTIN);
    server.wait_workers(2);
    let new = eventually("the new worker answers", PATIENCE, || {
        let answer = server.get("/").expect("it serves");
        (answer.slot() == 1).then(|| answer.pid())
    });
    let mut stdin = sender.stdin.take().expect("it is a pipe");
    stdin.write_all(b"end").expect("it reads");
    drop(stdin);
    assert!(sender.wait().expect("it is our child").success());
    server.wait_log(&format!("<{new}> /"));
    server.stop();
}
