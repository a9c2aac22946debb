//! USR2: the binary on disk takes over, or nothing changes.

use super::{life, served};

#[test]
fn usr2_good() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1040 ready #3
            @1040 exited 103 code 0
            @1060 upgraded
            @1070 loaded workers=1
            @1100 exited 104 code 0
            @1110 ready #5
            @1300 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1040    ready #3
        @1040    exited 103 code 0
                  → upgrade
        @1060    upgraded
                  → info: reloading: generation 2
                  → load g2
        @1070    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #4 prepare g2
        @1070    forked #4 pid 104
                  → debug: prepare started with pid: 104
        @1100    exited 104 code 0
                  → fork #5 worker 0 g2
        @1100    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @1110    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        @1210    tick
                  → use g2
                  → drain #2
                  → info: reloaded: generation 2 in 150 ms, workers replaced: 1
        @1300    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → forget g1
        "
    );
}

#[test]
fn usr2_refused() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1010 signal USR2
            @1040 exited 103 signal 11
            @1100 signal HUP
            @1101 signal USR2
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1010    signal USR2
                  → warning: ignoring USR2: an upgrade is under way
        @1040    exited 103 signal 11
                  → error: failed to upgrade: the new binary's check ended by signal 11 (SEGV); nothing has changed
        @1100    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1101    signal USR2
                  → warning: ignoring USR2: a reload is under way
        "
    );
}

#[test]
fn usr2_while_the_server_starts() {
    insta::assert_snapshot!(
        life(
            "workers=1",
            "
            @0 started
            @10 signal USR2
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @10      signal USR2
                  → warning: ignoring USR2: the server is starting
        "
    );
}

#[test]
fn usr2_whose_check_hangs() {
    insta::assert_snapshot!(
        served(
            "workers=1 boot=5",
            "
            @1000 signal USR2
            @6005 exited 103 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @6000    tick
                  → error: killing the new binary's check (pid 103): not ready within boot_timeout
                  → send 103 KILL
        @6005    exited 103 signal 9
                  → error: failed to upgrade: the new binary's check ended by signal 9 (KILL); nothing has changed
        "
    );
}

#[test]
fn usr2_that_cannot_be_executed() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1040 ready #3
            @1040 exited 103 code 0
            unupgraded failed to execute /usr/bin/ferricorn: permission denied
            @2000 signal USR2
            @2010 ready #4
            @2010 exited 104 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1040    ready #3
        @1040    exited 103 code 0
                  → upgrade
        @1040    unupgraded failed to execute /usr/bin/ferricorn: permission denied
                  → error: failed to upgrade: failed to execute /usr/bin/ferricorn: permission denied; nothing has changed
        @2000    signal USR2
                  → fork #4 the new binary's check g1
        @2000    forked #4 pid 104
                  → debug: the new binary's check started with pid: 104
        @2010    ready #4
        @2010    exited 104 code 0
                  → upgrade
        "
    );
}

/// A program that is no server ends well, too.
#[test]
fn usr2_whose_check_says_nothing() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1040 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1040    exited 103 code 0
                  → error: failed to upgrade: the new binary's check exited with code 0 and has not said that it could; nothing has changed
        "
    );
}

#[test]
fn usr2_whose_check_vouches_and_crashes() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1030 ready #3
            @1040 exited 103 signal 11
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1030    ready #3
        @1040    exited 103 signal 11
                  → error: failed to upgrade: the new binary's check ended by signal 11 (SEGV); nothing has changed
        "
    );
}

#[test]
fn hup_during_a_usr2_that_is_refused() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1010 signal HUP
            @1040 exited 103 code 1
            @1070 loaded error nothing new
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1010    signal HUP
        @1040    exited 103 code 1
                  → error: failed to upgrade: the new binary's check exited with code 1; nothing has changed
                  → info: reloading: generation 2
                  → load g2
        @1070    loaded error nothing new
                  → error: failed to reload: generation 2 is dropped, 1 serves on: nothing new
        "
    );
}

#[test]
fn usr2_whose_check_cannot_be_forked() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            the kernel refuses to fork
            @1000 signal USR2
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       the kernel refuses to fork
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    unforked #3 resource temporarily unavailable
                  → error: failed to upgrade: its check cannot be forked: resource temporarily unavailable; nothing has changed
        "
    );
}

#[test]
fn hup_during_usr2_waits_for_it() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1010 signal HUP
            @1040 ready #3
            @1040 exited 103 code 0
            @1060 upgraded
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1010    signal HUP
        @1040    ready #3
        @1040    exited 103 code 0
                  → upgrade
        @1060    upgraded
                  → info: reloading: generation 2
                  → load g2
        "
    );
}

#[test]
fn term_takes_the_order_to_upgrade_back() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1040 ready #3
            @1040 exited 103 code 0
            signal TERM
            @1070 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1040    ready #3
        @1040    exited 103 code 0
                  → upgrade
        @1040    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
        @1070    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}
