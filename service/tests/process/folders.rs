//! The folder that a server works in, where that is a link to a release.

use std::os::unix::fs::symlink;

use crate::client::Response;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};

/// The setting of each release, and the folder that its workers are in.
const RELEASES: [(&str, &str); 3] = [("one", "11s"), ("two", "12s"), ("three", "13s")];

/// A server that was started in `current`, which leads to the first release.
fn server(chdir: bool) -> Ferricorn {
    let mut builder = Ferricorn::unruly();
    let root = builder.folder().to_owned();
    for (name, timeout) in RELEASES {
        std::fs::create_dir(root.join(name)).unwrap();
        let config = format!("bind = \"127.0.0.1:0\"\nworkers = 1\ntimeout = \"{timeout}\"\n");
        std::fs::write(root.join(name).join("config.toml"), config).unwrap();
    }
    symlink("one", root.join("current")).unwrap();
    if chdir {
        builder = builder.flag("-c").flag(root.join("current/config.toml").to_str().unwrap());
        builder.flag("--chdir").flag(root.join("current").to_str().unwrap()).start()
    } else {
        builder.wrapped(&["sh", "-c", "cd current && exec \"$@\"", "sh"]).start()
    }
}

/// Turns the link in one step.
fn turn(server: &Ferricorn, release: &str) {
    let root = server.folder();
    symlink(release, root.join("next")).unwrap();
    std::fs::rename(root.join("next"), root.join("current")).unwrap();
}

/// The folder of the worker, by the kernel's name.
fn release(server: &Ferricorn) -> String {
    let folder = std::fs::read_link(format!("/proc/{}/cwd", server.worker(0))).unwrap();
    folder.file_name().unwrap().to_str().unwrap().to_owned()
}

fn goes_along(server: Ferricorn) {
    assert_eq!(release(&server), "one");
    turn(&server, "two");
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    assert_eq!(release(&server), "two");
    turn(&server, "three");
    server.signal(Signal::SIGUSR2);
    server.wait_reloaded(3);
    eventually("the worker is the new release's", PATIENCE, || {
        (release(&server) == "three").then_some(())
    });
    let answer: Response = server.get("/").unwrap();
    assert_eq!(answer.status, 200);
    // What cannot be read leaves everything where it was, also for workers that come later.
    turn(&server, "two");
    std::fs::write(server.folder().join("two/config.toml"), "wokers = 1").unwrap();
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(4).contains("did you mean \"workers\"?"));
    let before = server.worker(0);
    crate::harness::send(before, Signal::SIGKILL);
    eventually("the worker is replaced", PATIENCE, || (server.worker(0) != before).then_some(()));
    assert_eq!(release(&server), "three");
    server.stop();
}

#[test]
fn link_of_the_start_is_resolved_at_each_reload() {
    goes_along(server(false));
}

#[test]
fn link_of_chdir_is_resolved_at_each_reload() {
    goes_along(server(true));
}
