//! A reload whose host names no resolver resolves: the master waits for no resolver.

use std::net::UdpSocket;
use std::time::Duration;

use crate::boundary::begun_by;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
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

/// A server that reloads a configuration with a new name, and its resolver; `None` where it cannot be had.
#[expect(clippy::print_stdout, reason = "a test that is left out says so")]
fn reloading() -> Option<(Ferricorn, UdpSocket)> {
    let config = "user = \"65534\"\nworkers = 2";
    let server = Ferricorn::hello().config(config);
    let Ok(resolver) = UdpSocket::bind("127.0.0.1:53") else {
        println!("not tested: the port of resolvers is taken");
        return None;
    };
    let server = server
        .file("resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n")
        .file("nsswitch.conf", "hosts: files dns\n");
    let server = begun_by(&SILENT, server)?.start();
    let text = format!("bind = [\"127.0.0.1:0\", \"name.example:8080\"]\n{config}");
    std::fs::write(server.folder().join("config.toml"), text).expect("it is ours");
    server.signal(Signal::SIGHUP);
    eventually("a process asks the resolver", PATIENCE, || {
        let children = proc::children(server.pid());
        children.iter().any(|child| child.name.ends_with("-load")).then_some(())
    });
    Some((server, resolver))
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
    server.wait_log(
        "failed to reload: generation 2 is dropped, 1 serves on: the process that looks up",
    );
    server.get("/").expect("it serves");
    drop(resolver);
    server.stop();
}
