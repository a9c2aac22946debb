//! Workers that do not get up: at the first start, and later, beside siblings that serve.

use std::time::{Duration, Instant};

use super::scene::{Scene, settled};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};

/// The way in which a worker fails to boot, and the words of the error log about it.
const MODES: [(&str, &str); 5] = [
    ("exit", "failed to boot: exited with code 9"),
    ("error", "failed to boot: exited with code 3"),
    ("panic", "failed to boot: exited with code 3"),
    ("hang", "failed to boot: ended by signal 9 (KILL)"),
    ("block", "failed to boot: ended by signal 9 (KILL)"),
];

/// The deadline for those that hang.
const SETTINGS: &str = "workers = 2\nboot_timeout = 1";

/// From when the reason is gone until all is well: what is left of a boot that hangs, and of the longest
/// pause between two. Without optimization it is another program, beside others on one machine.
const RECOVERY: Duration =
    if cfg!(debug_assertions) { Duration::from_secs(20) } else { Duration::from_millis(4500) };

#[test]
fn a_first_start_at_which_nobody_boots_ends_with_3_and_the_reason() {
    for (mode, told) in MODES {
        let begun = Instant::now();
        let mut server = Ferricorn::unruly().config(SETTINGS).env("UNRULY_BOOT", mode).launch();
        assert_eq!(server.wait_exit(), Exit::Code(3), "{mode}: {}", server.log());
        let took = begun.elapsed();
        let log = server.log();
        for told in [told, "no worker could boot"] {
            assert!(log.contains(told), "{mode}: {told:?} is missing: {log}");
        }
        assert_eq!(log.contains("not ready within boot_timeout"), told.contains("KILL"), "{log}");
        assert!(!log.contains(" ready in "), "{mode}: {log}");
        assert!(server.remains().is_empty(), "{mode}: {:?}", server.remains());
        println!("first start, boot {mode:?}: exit 3 after {took:?}");
    }
}

#[test]
fn a_slow_boot_is_no_fault() {
    let server = Ferricorn::unruly().config("workers = 2").env("UNRULY_BOOT", "slow=400").start();
    server.wait_served_by(&settled(&server, 2));
    eventually("both are told to be ready", PATIENCE, || {
        (server.log().matches(" ready in ").count() == 2).then_some(())
    });
    assert_eq!(server.log().matches("Booting worker").count(), 2, "{}", server.log());
    server.stop();
}

/// A worker dies, and its successors do not get up. Its sibling serves for both; when the reason is
/// gone, all is as it was.
#[test]
fn siblings_serve_for_a_slot_whose_workers_do_not_get_up() {
    let server = Ferricorn::unruly()
        // Of a slot whose workers die early again and again the other levels say less.
        .config(&format!("{SETTINGS}\n[log]\nlevel = \"debug\""))
        .env("UNRULY_BOOT_FILE", "boot")
        .file("boot", "")
        .start();
    let boot = |mode: &str| {
        // Never empty in between: that would be a good boot.
        let new = server.folder().join("new");
        let file = server.folder().join("boot");
        std::fs::write(&new, mode).and_then(|()| std::fs::rename(&new, &file)).expect("ours");
    };
    for (mode, told) in MODES.into_iter().chain([("slow=400", "died: ended by signal 9 (KILL)")]) {
        let mut scene = Scene::set(&server, 2, Some(1));
        let victim = server.worker(1);
        let told_before = server.log().matches(told).count();
        boot(mode);
        let load = Load::begin(&server.address(), &[Crowd::get(4, Client::PerRequest)]);
        send(victim, Signal::SIGKILL);
        eventually("the log tells of it", PATIENCE, || {
            (server.log().matches(told).count() > told_before).then_some(())
        });
        load.wait_for_more(50);
        boot("");
        scene.begin();
        let recovered = scene.recovers(&[1]);
        let tally = load.finish();
        assert!(tally.failures() <= 4, "what it held, and no more: {:?}", tally.failed);
        assert!(recovered < RECOVERY, "{mode}: {recovered:?}");
        println!("later boots {mode:?}: served by all {recovered:?} after it was mended");
    }
    server.stop();
}
