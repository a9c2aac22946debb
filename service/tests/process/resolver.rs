//! A resolver that is silent at a reload, or after an upgrade: the master waits for no resolver.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::boundary::begun_by;
use crate::client::Connection;
use crate::harness::{Builder, Ferricorn, PATIENCE, Signal, eventually, parse_address, send};
use crate::proc;

/// Has the server ask a resolver at this address alone.
const SILENT: [&str; 6] = [
    "unshare",
    "-m",
    "sh",
    "-c",
    "mount --bind resolv.conf /etc/resolv.conf && mount --bind nsswitch.conf /etc/nsswitch.conf; \
     exec \"$@\"",
    "sh",
];

/// The record types of addresses (RFC 1035 and 3596).
const A: u16 = 1;

/// A resolver whose answers are given by the test.
struct Resolver(UdpSocket);

/// A question: its client, its bytes, and the type of record that is asked for.
struct Question {
    client: SocketAddr,
    bytes: Vec<u8>,
    record: u16,
}

impl Resolver {
    /// `None` where it cannot be had.
    #[expect(clippy::print_stdout, reason = "a test that is left out says so")]
    fn open() -> Option<Self> {
        let Ok(socket) = UdpSocket::bind("127.0.0.1:53") else {
            println!("not tested: the port of resolvers is taken");
            return None;
        };
        socket.set_nonblocking(true).expect("it is a socket");
        Some(Self(socket))
    }

    fn next(&self) -> Option<Question> {
        let mut bytes = [0; 512];
        let (length, client) = self.0.recv_from(&mut bytes).ok()?;
        // Twelve bytes of head, the labels of the name, the type and the class.
        let name: usize = bytes[12..length].iter().position(|byte| *byte == 0)?;
        let record = u16::from_be_bytes([bytes[13 + name], bytes[14 + name]]);
        Some(Question { client, bytes: bytes[..17 + name].to_vec(), record })
    }

    /// Answers so many look-ups of a name with 127.0.0.1: each asks for both types of addresses.
    fn answer(&self, look_ups: usize) {
        let mut left = 2 * look_ups;
        eventually("the resolver was asked", PATIENCE, || {
            while let Some(Question { client, bytes, record }) = self.next() {
                let mut answer = bytes;
                let count = u8::from(record == A);
                // An answer without an error, with one question and one record or none.
                answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
                if record == A {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
                }
                self.0.send_to(&answer, client).expect("it is connected to loopback");
                left -= 1;
            }
            (left == 0).then_some(())
        });
    }
}

/// A server that reloads a configuration with a new name, and its resolver; `None` where it cannot be had.
fn reloading() -> Option<(Ferricorn, Resolver)> {
    let config = "user = \"65534\"\nworkers = 2";
    let (server, resolver) = resolved(config)?;
    let server = server.start();
    let text = format!("bind = [\"127.0.0.1:0\", \"name.example:8080\"]\n{config}");
    std::fs::write(server.folder().join("config.toml"), text).expect("it is ours");
    server.signal(Signal::SIGHUP);
    eventually("a process asks the resolver", PATIENCE, || {
        let children = proc::children(server.pid());
        children.iter().any(|child| child.name.ends_with("-load")).then_some(())
    });
    Some((server, resolver))
}

/// A server with this configuration that asks a resolver of the test's.
fn resolved(config: &str) -> Option<(Builder, Resolver)> {
    let server = Ferricorn::hello().config(config);
    let resolver = Resolver::open()?;
    let server = server
        .file("resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n")
        .file("nsswitch.conf", "hosts: files dns\n");
    Some((begun_by(&SILENT, server)?, resolver))
}

/// The new image is the master: the reload that follows asks the resolver, in a process of its own.
#[test]
fn silent_resolver_delays_nothing_after_an_upgrade() {
    let config = "bind = [\"127.0.0.1:0\", \"name.example:8080\"]\nuser = \"65534\"\nworkers = 2";
    let Some((server, resolver)) = resolved(config) else { return };
    let mut server = server.launch();
    resolver.answer(1);
    server.wait_ready();
    server.signal(Signal::SIGUSR2);
    // The check of the binary.
    resolver.answer(1);
    server.wait_event("server_upgraded", &[]);
    eventually("the resolver is asked once more", PATIENCE, || resolver.next().map(drop));
    let before = server.worker(0);
    send(before, Signal::SIGKILL);
    eventually("the killed worker is replaced", Duration::from_secs(2), || {
        server.workers().iter().any(|(slot, pid)| *slot == 0 && *pid != before).then_some(())
    });
    for address in server.addresses() {
        let connection = Connection::open(&parse_address(address));
        connection.expect("it listens").get("/").expect("it serves");
    }
    server.signal(Signal::SIGTERM);
    server.wait_exit_within(Duration::from_secs(2));
    eventually("nothing of it is left", PATIENCE, || server.remains().is_empty().then_some(()));
}

#[test]
fn silent_resolver_delays_no_replacement_and_no_stop() {
    let Some((mut server, _resolver)) = reloading() else { return };
    let before = server.worker(0);
    send(before, Signal::SIGKILL);
    eventually("the killed worker is replaced", Duration::from_secs(2), || {
        server.workers().iter().any(|(slot, pid)| *slot == 0 && *pid != before).then_some(())
    });
    server.get("/").expect("it serves");
    assert!(!server.log().contains("failed to reload"), "the reload is still under way");
    server.signal(Signal::SIGTERM);
    server.wait_exit_within(Duration::from_secs(2));
    eventually("nothing of it is left", PATIENCE, || server.remains().is_empty().then_some(()));
}

#[test]
fn resolver_that_dies_fails_the_reload() {
    let Some((server, resolver)) = reloading() else { return };
    let loading = proc::children(server.pid());
    let loading = loading.iter().find(|child| child.name.ends_with("-load")).expect("it waits");
    eventually("it has the user of the workers", PATIENCE, || {
        (proc::status_all(loading.pid, "Uid") == ["65534"; 4]).then_some(())
    });
    send(loading.pid, Signal::SIGKILL);
    assert!(server.wait_reload_failed(2).starts_with("the process that looks up"));
    server.get("/").expect("it serves");
    drop(resolver);
    server.stop();
}
