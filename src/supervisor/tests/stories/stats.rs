//! The life of the stats process, from its fork to its end.

use super::{life, served};

#[test]
fn it_serves_from_the_start_until_the_last_worker_is_gone() {
    insta::assert_snapshot!(life(
        "workers=1 stats=on",
        "
        @0 started
        @50 exited 101 code 0
        @60 ready #2
        @1000 signal TERM
        @1010 exited 102 code 0
        @1020 exited 99 code 0
        "
    ), @r"
        @0       started
                  → fork #stats the stats process g1
                  → fork #1 prepare g1
        @0       forked #stats pid 99
                  → debug: the stats process started with pid: 99
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @50      exited 101 code 0
                  → fork #2 worker 0 g1
        @50      forked #2 pid 102
                  → info: Booting worker with pid: 102
        @60      ready #2
                  → info: worker 0 (pid 102) ready in 10 ms
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
        @1010    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → finish stats
        @1020    exited 99 code 0
                  → info: Shutting down: Master
                  → exit 0
        ");
}

#[test]
fn one_that_dies_is_replaced_and_one_that_cannot_live_waits() {
    insta::assert_snapshot!(served(
        "workers=1 stats=on",
        "
        @60000 exited 99 signal 9
        @60001 exited 99 code 1
        @60002 exited 99 code 1
        @60040 tick
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @60000   exited 99 signal 9
                  → error: the stats process (pid 99) died: ended by signal 9 (KILL); another takes its place
                  → fork #stats the stats process g1
        @60000   forked #stats pid 99
                  → debug: the stats process started with pid: 99
        @60001   exited 99 code 1
                  → error: the stats process (pid 99) died: exited with code 1; another takes its place
                  → fork #stats the stats process g1
        @60001   forked #stats pid 99
                  → debug: the stats process started with pid: 99
        @60002   exited 99 code 1
                  → error: the stats process (pid 99) died: exited with code 1; another takes its place
        @60013   tick
                  → fork #stats the stats process g1
        @60013   forked #stats pid 99
                  → debug: the stats process started with pid: 99
        ");
}

/// The configuration of the new generation has no `[stats]`.
#[test]
fn a_reload_ends_one_that_is_not_wanted_and_kills_a_deaf_one() {
    insta::assert_snapshot!(served(
        "workers=1 stats=on",
        "
        @1000 signal HUP
        loaded workers=1
        @1010 exited 103 code 0
        @1020 ready #4
        @1120 tick
        @3200 tick
        @3210 exited 99 signal 9
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1000    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #3 prepare g2
        @1000    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @1010    exited 103 code 0
                  → fork #4 worker 0 g2
        @1010    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @1020    ready #4
                  → info: worker 0 (pid 104) ready in 10 ms
        @1120    tick
                  → use g2
                  → finish stats
                  → drain #2
                  → info: reloaded: generation 2 in 120 ms, workers replaced: 1
        @3120    tick
                  → warning: killing the stats process (pid 99): not gone by its deadline
                  → send 99 KILL
        @3210    exited 99 signal 9
        ");
}

#[test]
fn a_fork_that_is_refused_is_tried_again() {
    insta::assert_snapshot!(served(
        "workers=1 stats=on",
        "
        the kernel refuses to fork
        @60000 exited 99 signal 9
        the kernel forks again
        @60250 tick
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @0       the kernel refuses to fork
        @60000   exited 99 signal 9
                  → error: the stats process (pid 99) died: ended by signal 9 (KILL); another takes its place
                  → fork #stats the stats process g1
        @60000   unforked #stats resource temporarily unavailable
                  → error: failed to fork the stats process: resource temporarily unavailable; trying again
        @60000   the kernel forks again
        @60250   tick
                  → fork #stats the stats process g1
        @60250   forked #stats pid 99
                  → debug: the stats process started with pid: 99
        ");
}
