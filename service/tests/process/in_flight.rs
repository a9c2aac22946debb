//! Descriptors in messages: those that the kernel does not let the master send, since too many of its user's
//! are under way already, and those that are sent to the master.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::boundary::begun_by;
use crate::control;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};
use crate::proc;

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

/// Sends the control socket of a server (its pid) a connection to a port, which close(2) waits for: what is
/// written to it is not read there.
const LINGERER: &str = "import array, os, socket, struct, sys
master, port = sys.argv[1:]
lines = [line.split() for line in open('/proc/self/net/unix')]
names = [words[7] for words in lines if len(words) > 7 and words[7].startswith('@ferricorn-control/')]
name = next(name for name in names if f'/{master}/' in name)
tcp = socket.create_connection(('127.0.0.1', int(port)))
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 600))
tcp.setblocking(False)
try:
    while True: tcp.send(bytes(65536))
except BlockingIOError: pass
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [tcp.fileno()]))]
said = ''
while not said:
    control = socket.socket(socket.AF_UNIX)
    control.connect('\\0' + name[1:])
    try: control.sendmsg([b'x'], rights)
    except PermissionError: said = 'refused'
    # The connection was closed before.
    except (BrokenPipeError, ConnectionResetError): pass
    else: said = 'sent'
print(said, flush=True)
# The end of a process waits for no socket.
os._exit(0)
";

/// Every user may connect to an abstract name, and the master closes what comes in a message.
#[test]
fn descriptors_sent_to_the_control_socket_do_not_stop_the_master() {
    if !proc::is_linux_since([6, 16]) {
        println!("not tested: this kernel does not refuse descriptors (SO_PASSRIGHTS)");
        return;
    }
    let Some(server) = begun_by(&[], Ferricorn::hello().config("workers = 1")) else { return };
    let server = server.start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it has one").port();
    let lingerer = Command::new("python3")
        .args(["-c", LINGERER, &server.pid().to_string(), &port.to_string()])
        .uid(USER)
        .gid(USER)
        .output()
        .expect("the tests need python3");
    assert!(lingerer.status.success(), "{}", String::from_utf8_lossy(&lingerer.stderr));
    assert_eq!(control::status(&server)["server"]["workers_serving"], 1);
    assert_eq!(lingerer.stdout, b"refused\n");
    server.stop();
}
