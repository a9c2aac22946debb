//! `USR2` with real binaries on disk: those that can take over do, whatever settings they know; those
//! that cannot are found out, and nothing has changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::client::{Address, Connection};
use crate::disk;
use crate::effects::{RESTART, toml};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::Load;
use crate::proc;
use crate::releases::{busy, is_at_rest};

const QUIET: &str = "workers = 2\nboot_timeout = 2\n[log]\naccess = \"\"\n";

/// Sends `USR2` to a loaded server whose binary on disk was changed; it must be at rest again in time,
/// with the workers that it had, and say why.
#[expect(clippy::print_stdout, reason = "figures are printed to be read")]
fn refused(change: impl FnOnce(&Path, &str), config: &str, reasons: &[&str]) {
    let _alone = crate::machine::alone();
    let builder = Ferricorn::unruly().config(QUIET);
    let real = builder.binary().to_owned();
    let server = disk::started_by_link(builder).start();
    let before = server.wait_workers(2);
    let load = Load::begin(&server.address(), &busy());
    load.wait_for_more(50);
    change(server.folder(), &real.display().to_string());
    server.rewrite_config(config);
    let begun = Instant::now();
    server.signal(Signal::SIGUSR2);
    eventually("it is at rest again", PATIENCE, || {
        let told = server.log().contains("; nothing has changed");
        (told && is_at_rest(&server, &before)).then_some(())
    });
    let took = begun.elapsed();
    load.wait_for_more(50);
    let tally = load.finish();
    tally.assert_clean();
    println!("{:?}: {} answered, at rest after {took:?}", reasons[0], tally.answered);
    assert_eq!(server.workers(), before);
    let log = server.log();
    for reason in reasons {
        assert!(log.contains(reason), "the log does not say {reason:?}");
    }
    assert_eq!(log.matches("failed to upgrade").count(), 1);
    assert!(!log.contains("Upgraded in place") && !log.contains("reloading"));
    assert!(took <= Duration::from_secs(2 + 1), "at rest after {took:?}");
    // Put right, it takes over.
    disk::put_link(server.folder(), &real);
    server.rewrite_config(QUIET);
    server.signal(Signal::SIGUSR2);
    server.wait_event("server_upgraded", &[]);
    server.wait_reloaded(2);
    let after = server.wait_workers(2);
    assert!(after.iter().all(|after| !before.contains(after)));
    server.wait_served_by(&after);
    server.stop();
}

#[test]
fn a_missing_binary_changes_nothing() {
    let reasons = ["failed to execute ", "release: No such file or directory", "with code 126"];
    let remove = |folder: &Path, _: &str| std::fs::remove_file(folder.join("release")).unwrap();
    refused(remove, QUIET, &reasons);
}

#[test]
fn a_binary_that_is_not_executable_changes_nothing() {
    let reasons = ["release: Permission denied", "the new binary's check exited with code 126"];
    let forbid = |folder: &Path, _: &str| disk::put_file(folder, "#!/bin/sh\nexit 0\n", 0o644);
    refused(forbid, QUIET, &reasons);
}

#[test]
fn a_binary_for_another_machine_changes_nothing() {
    let reasons = ["release: Exec format error", "the new binary's check exited with code 126"];
    refused(|folder, _| disk::put_file(folder, "\u{7f}ELF and no more", 0o755), QUIET, &reasons);
}

/// Any other program may end well: it would be executed in the master's place, and the service be gone.
#[test]
fn a_program_that_is_no_server_changes_nothing() {
    let reasons = ["the new binary's check exited with code 0 and has not said that it could"];
    refused(|folder, _| disk::put_script(folder, "exit 0"), QUIET, &reasons);
}

#[test]
fn a_binary_that_is_replaced_while_it_is_checked_changes_nothing() {
    let reasons = ["release has changed since its check; nothing has changed"];
    let replace = |folder: &Path, real: &str| {
        // Whoever takes over does not do it again.
        let put = "[ -z \"$FERRICORN_INTERNAL_CHECK\" ] || { cp release new && mv new release; }";
        disk::put_script(folder, &format!("{put}\nexec {real} \"$@\""));
    };
    refused(replace, QUIET, &reasons);
}

/// A fault that the check finds would end the image that takes over.
#[test]
fn a_log_that_cannot_be_opened_changes_nothing() {
    let reasons = [
        "failed to upgrade: the new binary's check exited with code 78",
        "it says: ferricorn: failed to open the error log nowhere/error.log: ",
    ];
    let config = format!("{QUIET}error = \"nowhere/error.log\"\n");
    refused(|_, _| {}, &config, &reasons);
}

/// The check's words on stderr are in the error log, wherever that is.
#[test]
fn the_error_log_has_the_checks_own_reason() {
    let config = "workers = 1\n[log]\nerror = \"error.log\"\n";
    let server = Ferricorn::unruly().config(config).start();
    server.rewrite_config(&format!("wokers = 3\n{config}threds = 2\n"));
    server.signal(Signal::SIGUSR2);
    let log = eventually("the upgrade is refused", PATIENCE, || {
        let text = std::fs::read_to_string(server.folder().join("error.log")).ok()?;
        text.contains("failed to upgrade").then_some(text)
    });
    let line = log.lines().find(|line| line.contains("failed to upgrade")).expect("it is there");
    for reason in ["config.toml:2: unknown key \"wokers\"", "; ferricorn: config.toml:6: "] {
        assert!(line.contains(reason), "{line}");
    }
    server.stop();
}

/// A stop that comes while the check ends is obeyed, by whichever image.
#[test]
fn a_stop_that_comes_as_the_check_ends_is_obeyed() {
    let builder = Ferricorn::unruly().config(QUIET);
    let real = builder.binary().display().to_string();
    let mut server = disk::started_by_link(builder).start();
    disk::put_script(
        server.folder(),
        &format!(
            "while [ -n \"$FERRICORN_INTERNAL_CHECK\" ] && [ -e hold ]; do sleep 0.01; done\n\
             exec {real} \"$@\""
        ),
    );
    std::fs::write(server.folder().join("hold"), "").unwrap();
    let pid = server.pid();
    let quiet: Vec<i32> = proc::children(pid).iter().map(|child| child.pid).collect();
    server.signal(Signal::SIGUSR2);
    let check = eventually("its check", PATIENCE, || {
        proc::children(pid).into_iter().map(|child| child.pid).find(|child| !quiet.contains(child))
    });
    server.signal(Signal::SIGSTOP);
    eventually("it stands still", PATIENCE, || (proc::stat(pid)?.state == 'T').then_some(()));
    std::fs::remove_file(server.folder().join("hold")).unwrap();
    eventually("the check has ended", PATIENCE, || (proc::stat(check)?.state == 'Z').then_some(()));
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(!server.log().contains("Upgraded in place"));
    assert_eq!(server.log().matches("stopping: workers may finish").count(), 1);
}

/// Found by the search path, it is the link that is executed, not the release to which it led.
#[test]
fn a_server_that_was_found_by_the_search_path_takes_the_new_release() {
    let builder = Ferricorn::unruly().config(QUIET);
    disk::put_link(builder.folder(), builder.binary());
    let server = builder.wrapped(&["sh", "-c", "PATH=$PWD:$PATH; exec release \"$@\""]).start();
    for _ in 0..2 {
        for (program, text) in &programs()[1..] {
            let before = server.wait_workers(2);
            disk::put_link(server.folder(), program);
            server.signal(Signal::SIGUSR2);
            eventually("two other workers", PATIENCE, || {
                let now = server.workers();
                (now.len() == 2 && now.iter().all(|found| !before.contains(found))).then_some(())
            });
            let said = server.get("/").expect("it serves").text();
            assert!(said.starts_with(text), "{} says {said:?}", program.display());
            server.wait_workers(2);
        }
    }
    server.stop();
}

#[test]
fn a_binary_that_crashes_in_its_check_changes_nothing() {
    let reasons = ["failed to upgrade: the new binary's check ended by signal 11 (SEGV)"];
    refused(|folder, _| disk::put_script(folder, "kill -SEGV $$"), QUIET, &reasons);
}

#[test]
fn a_binary_that_hangs_in_its_check_changes_nothing() {
    let reasons =
        ["the new binary's check ended by signal 9 (KILL)", "not ready within boot_timeout"];
    refused(|folder, _| disk::put_script(folder, "exec sleep 1000"), QUIET, &reasons);
}

#[test]
fn a_binary_that_knows_no_such_state_changes_nothing() {
    let reasons = [
        "this binary cannot take over state of version 999: it needs a restart",
        "failed to upgrade: the new binary's check exited with code 64",
    ];
    let another = |folder: &Path, real: &str| {
        let script = format!("export FERRICORN_INTERNAL_CHECK=999\nexec {real} \"$@\"");
        disk::put_script(folder, &script);
    };
    refused(another, QUIET, &reasons);
}

/// The file has a setting that the new binary does not know.
#[test]
fn a_binary_that_refuses_the_configuration_changes_nothing() {
    let reasons = [
        "config.toml:2: unknown key \"wokers\"",
        "failed to upgrade: the new binary's check exited with code 78",
    ];
    refused(|_, _| {}, "wokers = 3\n", &reasons);
}

fn programs() -> [(PathBuf, &'static str); 3] {
    [
        (Ferricorn::bundled().binary().to_owned(), "ferricorn, the iron unicorn"),
        (Ferricorn::hello().binary().to_owned(), "hello from worker "),
        (Ferricorn::unruly().binary().to_owned(), "ok\n"),
    ]
}

/// From one program to another that has more settings, and to one that has fewer, under load.
#[test]
fn a_binary_with_another_number_of_settings_takes_over() {
    let _alone = crate::machine::alone();
    let builder = Ferricorn::unruly().config(QUIET).env("DATABASE_URL", "sqlite://rows.db");
    let server = disk::started_by_link(builder).start();
    let load = Load::begin(&server.address(), &busy());
    let pid = server.pid();
    for (program, text) in programs() {
        load.wait_for_more(50);
        let before = server.wait_workers(2);
        disk::put_link(server.folder(), &program);
        server.signal(Signal::SIGUSR2);
        let after = eventually("two other workers", PATIENCE, || {
            let now = server.workers();
            (now.len() == 2 && now.iter().all(|found| !before.contains(found))).then_some(now)
        });
        assert_eq!(server.pid(), pid);
        for _ in 0..8 {
            let said = server.get("/").expect("it serves").text();
            assert!(said.starts_with(text), "{} says {said:?}", program.display());
        }
        assert_eq!(server.workers(), after);
    }
    load.wait_for_more(50);
    load.finish().assert_clean();
    server.stop();
}

/// A signal that comes while one image takes the other's place would kill a process without handlers.
#[test]
fn signals_that_rain_on_upgrades_do_no_harm() {
    let mut server = Ferricorn::unruly().config(QUIET).start();
    let pid = server.pid();
    std::thread::scope(|scope| {
        // It is over when the sender is gone, by a panic too.
        let (over, rain) = mpsc::channel::<()>();
        scope.spawn(move || {
            let harmless = [Signal::SIGUSR1, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGWINCH];
            for signal in harmless.into_iter().cycle() {
                if rain.recv_timeout(Duration::from_millis(1)) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                send(pid, signal);
            }
        });
        // One that comes while another is under way is refused: so another is sent.
        let upgrades = || server.log().matches("Upgraded in place").count();
        eventually("five upgrades", PATIENCE, || {
            server.signal(Signal::SIGUSR2);
            (upgrades() >= 5).then_some(())
        });
        drop(over);
    });
    assert!(server.is_running());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// It passes its check, takes over, and cannot boot: the workers of the image before serve on, where
/// they did, although the file names another address by now.
#[test]
fn workers_are_kept_by_an_image_that_cannot_boot_others() {
    let quiet = |name: &str| format!("bind = \"unix:{name}.sock\"\n{QUIET}");
    let server = Ferricorn::unruly()
        .config(&quiet("old"))
        .env("UNRULY_BOOT_FILE", "boot")
        .file("boot", "")
        .start();
    let before = server.wait_workers(2);
    let path = |name: &str| Address::Unix(server.folder().join(name));
    let asks = |name: &str| Connection::open(&path(name)).and_then(|mut open| open.get("/"));
    let load = Load::begin(&path("old.sock"), &busy());
    let new = format!("{}[limits]\nrequest_line = 64\n", quiet("new"));
    std::fs::write(server.folder().join("config.toml"), new).unwrap();
    std::fs::write(server.folder().join("boot"), "exit").unwrap();
    server.signal(Signal::SIGUSR2);
    assert!(server.wait_reload_failed(2).starts_with("3 workers in a row"));
    load.wait_for_more(50);
    load.finish().assert_clean();
    assert_eq!(server.wait_workers(2), before);
    assert_eq!(asks("old.sock").expect("they listen there").status, 200);
    assert!(!server.folder().join("new.sock").exists(), "nobody would serve there");
    std::fs::write(server.folder().join("boot"), "").unwrap();
    // Who takes the place of one of them goes by what was in force, not by what was refused.
    let (slot, old) = before[1];
    send(old, Signal::SIGKILL);
    let after = eventually("another in its place", PATIENCE, || {
        let now = server.workers();
        (now.len() == 2 && !now.contains(&(slot, old))).then_some(now)
    });
    eventually("it serves", PATIENCE, || {
        (asks("old.sock").expect("they listen there").pid() == after[1].1).then_some(())
    });
    for _ in 0..8 {
        assert_eq!(asks("old.sock").expect("they listen there").status, 200);
        let long = format!("/slot?{:x<100}", "");
        let mut connection = Connection::open(&path("old.sock")).unwrap();
        assert_eq!(connection.get(&long).expect("it is answered").status, 200);
    }
    // Mended, it takes the new address, and lets the old one go.
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(3);
    assert_eq!(asks("new.sock").expect("they listen there").status, 200);
    eventually("the old address is gone", PATIENCE, || {
        (!server.folder().join("old.sock").exists()).then_some(())
    });
    server.stop();
}

/// Whoever waits for the server to be complete is told so once, by the image that has come so far.
#[test]
fn readiness_is_told_by_the_image_that_is_complete() {
    let mut server = Ferricorn::unruly()
        .config(QUIET.replace("boot_timeout = 2", "boot_timeout = 600").as_str())
        .env("UNRULY_BOOT_FILE", "boot")
        .file("boot", "hang")
        .launch();
    let hanging = server.wait_workers(2);
    let hangs = |pid: i32| proc::stat(pid).is_some_and(|stat| stat.state == 'S');
    for (slot, pid) in &hanging {
        let fields = [("process", "worker".into()), ("process_pid", (*pid).into())];
        server.wait_event("process_forked", &fields);
        eventually(&format!("worker {slot} hangs"), PATIENCE, || hangs(*pid).then_some(()));
    }
    std::fs::write(server.folder().join("boot"), "").unwrap();
    send(hanging[0].1, Signal::SIGKILL);
    // One of two serves: the server runs, and is not complete.
    server.wait_event("worker_ready", &[("slot", 0.into())]);
    server.signal(Signal::SIGUSR2);
    server.wait_ready();
    assert_eq!(server.noted("server_upgraded").len(), 1);
    assert!(server.wait_workers(2).iter().all(|worker| !hanging.contains(worker)));
    server.stop();
}

/// An upgrade is no start: the new image stays the user of the old one, and names what waits.
#[test]
fn upgrade_keeps_what_needs_a_restart() {
    let (ready, _unused) = std::io::pipe().expect("two descriptors");
    let server = Ferricorn::unruly().config("workers = 1\numask = \"0022\"");
    let server = server.launch_with(std::process::Stdio::null(), ready, &[]);
    server.wait_event("worker_ready", &[("slot", 0.into())]);
    let shown = |name: &str| proc::status(server.worker(0), name);
    let before = ["Uid", "Gid", "Umask"].map(shown);
    server.rewrite_config(&toml(&[&RESTART[..], &[("workers", "2")]].concat()));
    server.signal(Signal::SIGUSR2);
    server.wait_event("server_upgraded", &[]);
    server.wait_reloaded(2);
    server.wait_workers(2);
    let deferred = server.noted("setting_deferred");
    let deferred = deferred.iter().map(|event| event["setting"].as_str().expect("a text"));
    let restart = RESTART.iter().map(|(key, _)| *key);
    assert_eq!(deferred.collect::<BTreeSet<_>>(), restart.collect());
    assert_eq!(server.noted("setting_deferred").len(), RESTART.len());
    assert_eq!(["Uid", "Gid", "Umask"].map(shown), before);
    assert_eq!(proc::stat(server.pid()).expect("it lives").name, "ferricorn");
    assert!(!server.folder().join("new.pid").exists());
    server.stop();
}
