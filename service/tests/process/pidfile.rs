//! The pid file, as scripts and service managers use it: whole or not there, held while its server
//! lives, no obstacle when it does not.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};

fn is_held(path: &Path) -> bool {
    let file = File::open(path).expect("it is there");
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

fn holds(path: &Path, pid: i32) -> bool {
    std::fs::read_to_string(path).expect("it is there") == format!("{pid}\n")
}

#[test]
fn it_is_held_over_reloads_and_upgrades_and_removed_at_the_end() {
    let mut server = Ferricorn::unruly().config("workers = 1").flag("--pid=f.pid").start();
    let path = server.folder().join("f.pid");
    assert!(holds(&path, server.pid()) && is_held(&path));
    for (at, signal) in [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGUSR2].into_iter().enumerate() {
        server.signal(signal);
        server.wait_reloaded(at + 2);
        assert!(holds(&path, server.pid()) && is_held(&path), "after {signal}");
    }
    assert_eq!(server.noted("server_upgraded").len(), 2);
    let names =
        std::fs::read_dir(server.folder()).unwrap().flatten().map(|entry| entry.file_name());
    let ours = names.filter(|name| name.to_string_lossy().starts_with("f.pid"));
    assert_eq!(ours.count(), 1, "nothing is left beside it");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(!path.exists());
}

/// It is where it was, wherever the image that takes over goes.
#[test]
fn it_is_removed_after_an_upgrade_to_another_folder() {
    let mut server = Ferricorn::unruly().config("workers = 1").flag("--pid=f.pid").start();
    let path = server.folder().join("f.pid");
    server.rewrite_config("workers = 1\nchdir = \"/\"\n");
    server.signal(Signal::SIGUSR2);
    server.wait_reloaded(2);
    assert!(holds(&path, server.pid()) && is_held(&path));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(!path.exists());
}

#[test]
fn a_second_instance_is_refused_and_leaves_it_alone() {
    let first = Ferricorn::unruly().config("workers = 1").flag("--pid=f.pid").start();
    let path = first.folder().join("f.pid");
    let flag = format!("--pid={}", path.display());
    let said = Ferricorn::unruly().flag(&flag).fails_with(78);
    let expected =
        format!("failed to write the pid file {}: another server holds it", path.display());
    assert!(said.contains(&expected), "{said}");
    assert!(holds(&path, first.pid()) && is_held(&path));
    first.signal(Signal::SIGUSR2);
    first.wait_event("server_upgraded", &[]);
    assert!(Ferricorn::unruly().flag(flag).fails_with(78).contains(&expected));
    first.stop();
}

/// A master that was killed cannot remove it. Its workers, who live a moment longer, do not hold it.
#[test]
fn a_stale_one_is_no_obstacle() {
    let mut first = Ferricorn::unruly().config("workers = 1").flag("--pid=f.pid").start();
    let path = first.folder().join("f.pid");
    let mut busy = first.connect();
    busy.send(crate::client::get("/block?ms=1000")).unwrap();
    let stale = first.pid();
    send(stale, Signal::SIGKILL);
    assert_eq!(first.wait_exit(), Exit::Signal(9));
    assert!(holds(&path, stale));
    let second = Ferricorn::unruly()
        .by_ourselves()
        .config("workers = 1")
        .flag(format!("--pid={}", path.display()))
        .start();
    assert!(holds(&path, second.pid()) && is_held(&path));
    second.stop();
    assert!(!path.exists());
    eventually("nobody is left", PATIENCE, || first.remains().is_empty().then_some(()));
}

/// Whoever reads it, however often, finds one whole pid.
#[test]
fn a_reader_never_finds_half_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.pid");
    std::fs::write(&path, "1\n").unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut found = std::collections::BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                if let Ok(text) = std::fs::read_to_string(&path) {
                    found.insert(text);
                }
            }
            found
        });
        let mut pids = std::collections::BTreeSet::from(["1\n".to_owned()]);
        for _ in 0..5 {
            let server = Ferricorn::unruly()
                .by_ourselves()
                .config("workers = 1")
                .flag(format!("--pid={}", path.display()))
                .start();
            pids.insert(format!("{}\n", server.pid()));
            server.stop();
        }
        over.store(true, Ordering::Relaxed);
        let found = reader.join().expect("it reads");
        assert!(found.is_subset(&pids), "found {found:?}, written were {pids:?}");
    });
}

/// Of several that start at once, one gets it.
#[test]
fn of_many_that_start_at_once_one_serves() {
    for round in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        if round % 2 == 1 {
            std::fs::write(&path, "1\n").unwrap();
        }
        let flag = format!("--pid={}", path.display());
        let builder = || Ferricorn::unruly().by_ourselves().config("workers = 1").flag(&flag);
        let mut servers: Vec<Ferricorn> = (0..6).map(|_| builder().launch()).collect();
        let mut running = eventually("all but one are refused", PATIENCE, || {
            let all = servers.iter_mut();
            let running: Vec<_> = all.filter_map(|it| it.is_running().then_some(it)).collect();
            (running.len() <= 1)
                .then(|| running.iter().map(|running| running.pid()).collect::<Vec<_>>())
        });
        let winner = running.pop().expect("one serves");
        for server in &mut servers {
            if server.pid() == winner {
                server.wait_ready();
                assert!(holds(&path, winner) && is_held(&path));
            } else {
                assert_eq!(server.wait_exit(), Exit::Code(78), "{}", server.log());
            }
        }
    }
}
