//! Programs that ask for more time.

use super::served;

/// Its replacement is ready after `boot_timeout`, and no later than it has asked for.
#[test]
fn replacement_that_needs_time_boots_longer() {
    let settings = "workers=1 boot=2";
    let script = |needs: &str| {
        format!(
            "
            @1000 signal HUP
            @1010 loaded workers=1 boot=2 {needs}
            @1050 exited 103 code 0
            @2000 needs time #4
            @4000 needs time #4
            @8000 ready #4
            @8200 exited 102 code 0
            "
        )
    };
    let text = served(settings, &script("extensible=on"));
    assert!(text.contains("reloaded: generation 2"), "{text}");
    assert!(!text.contains("kill"), "{text}");
    // A worker of ours is not believed.
    let text = served(settings, &script(""));
    assert!(text.contains("was not ready in time"), "{text}");
}

#[test]
fn replacement_that_asks_no_more_is_killed() {
    insta::assert_snapshot!(
        served(
            "workers=1 boot=2",
            "
            @1000 signal HUP
            @1010 loaded workers=1 boot=2 extensible=on
            @1050 exited 103 code 0
            @2000 needs time #4
            @8000 exited 104 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=1 graceful=30 boot=2 stall=0 lifetime=0 memory=0 extensible=on
                  → fork #3 prepare g2
        @1010    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @1050    exited 103 code 0
                  → fork #4 worker 0 g2
        @1050    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @2000    needs time #4
        @7000    tick
                  → error: killing worker 0 (pid 104): not ready within boot_timeout
                  → send 104 KILL
                  → error: failed to reload: generation 2 is dropped, 1 serves on: worker 0 was not ready in time (killed)
        @8000    exited 104 signal 9
                  → error: worker 0 (pid 104) failed to boot: ended by signal 9 (KILL)
                  → forget g2
        "
    );
}

#[test]
fn stop_waits_for_a_worker_that_needs_time() {
    let settings = "workers=1 graceful=2 extensible=on";
    let text = served(
        settings,
        "
        @1000 signal TERM
        @2000 needs time #2
        @6000 needs time #2
        @9000 exited 102 code 0
        ",
    );
    assert!(!text.contains("kill"), "{text}");
    assert!(text.contains("exit 0"), "{text}");
    // A quick stop waits for 2 s, whatever is asked for.
    let text = served(
        settings,
        "
        @1000 signal TERM
        @1100 needs time #2
        @1200 signal QUIT
        @1300 needs time #2
        @3300 tick
        ",
    );
    assert!(text.contains("kill"), "{text}");
}
