//! The beginning of a server, and how it fails.

use super::life;

#[test]
fn first_boot() {
    insta::assert_snapshot!(
        life(
            "workers=2",
            "
            @0 started
            @40 exited 101 code 0
            @52 ready #2
            @55 ready #3
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @40      exited 101 code 0
                  → fork #2 worker 0 g1
                  → fork #3 worker 1 g1
        @40      forked #2 pid 102
                  → info: Booting worker with pid: 102
        @40      forked #3 pid 103
                  → info: Booting worker with pid: 103
        @52      ready #2
                  → info: worker 0 (pid 102) ready in 12 ms
        @55      ready #3
                  → info: worker 1 (pid 103) ready in 15 ms
        "
    );
}

#[test]
fn prepare_fails() {
    insta::assert_snapshot!(
        life(
            "workers=2",
            "
            @0 started
            @40 exited 101 code 1
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @40      exited 101 code 1
                  → error: failed to load the application: prepare exited with code 1
                  → stop listening
                  → info: stopping quickly
                  → info: Shutting down: Master
                  → exit 4
        "
    );
}

#[test]
fn prepare_hangs() {
    insta::assert_snapshot!(
        life(
            "workers=2 boot=60",
            "
            @0 started
            @60010 exited 101 signal 9
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @60000   tick
                  → error: killing prepare (pid 101): not ready within boot_timeout
                  → send 101 KILL
        @60010   exited 101 signal 9
                  → error: failed to load the application: prepare ended by signal 9 (KILL)
                  → stop listening
                  → info: stopping quickly
                  → info: Shutting down: Master
                  → exit 4
        "
    );
}

#[test]
fn no_worker_boots() {
    insta::assert_snapshot!(
        life(
            "workers=2",
            "
            @0 started
            @40 exited 101 code 0
            @45 exited 102 code 1
            @50 exited 103 code 1
            @52 exited 104 signal 2
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @40      exited 101 code 0
                  → fork #2 worker 0 g1
                  → fork #3 worker 1 g1
        @40      forked #2 pid 102
                  → info: Booting worker with pid: 102
        @40      forked #3 pid 103
                  → info: Booting worker with pid: 103
        @45      exited 102 code 1
                  → error: worker 0 (pid 102) failed to boot: exited with code 1
                  → fork #4 worker 0 g1
        @45      forked #4 pid 104
                  → info: Booting worker with pid: 104
        @50      exited 103 code 1
                  → error: worker 1 (pid 103) failed to boot: exited with code 1
                  → error: no worker could boot: stopping
                  → stop listening
                  → info: stopping quickly
                  → send 104 INT
        @52      exited 104 signal 2
                  → info: worker 0 (pid 104) left: ended by signal 2 (INT)
                  → info: Shutting down: Master
                  → exit 3
        "
    );
}

#[test]
fn one_worker_boots_late_and_nobody_gives_up() {
    insta::assert_snapshot!(
        life(
            "workers=2",
            "
            @0 started
            @40 exited 101 code 0
            @45 exited 102 code 1
            @50 exited 104 code 1
            @60 ready #3
            @80 ready #5
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @40      exited 101 code 0
                  → fork #2 worker 0 g1
                  → fork #3 worker 1 g1
        @40      forked #2 pid 102
                  → info: Booting worker with pid: 102
        @40      forked #3 pid 103
                  → info: Booting worker with pid: 103
        @45      exited 102 code 1
                  → error: worker 0 (pid 102) failed to boot: exited with code 1
                  → fork #4 worker 0 g1
        @45      forked #4 pid 104
                  → info: Booting worker with pid: 104
        @50      exited 104 code 1
                  → error: worker 0 (pid 104) failed to boot: exited with code 1
        @57      tick
                  → fork #5 worker 0 g1
        @57      forked #5 pid 105
                  → info: Booting worker with pid: 105
        @60      ready #3
                  → info: worker 1 (pid 103) ready in 20 ms
        @80      ready #5
                  → info: worker 0 (pid 105) ready in 23 ms
        "
    );
}

#[test]
fn boot_timeout() {
    insta::assert_snapshot!(
        life(
            "workers=2 boot=5",
            "
            @0 started
            @40 exited 101 code 0
            @60 ready #3
            @5045 exited 102 signal 9
            @5060 ready #4
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @40      exited 101 code 0
                  → fork #2 worker 0 g1
                  → fork #3 worker 1 g1
        @40      forked #2 pid 102
                  → info: Booting worker with pid: 102
        @40      forked #3 pid 103
                  → info: Booting worker with pid: 103
        @60      ready #3
                  → info: worker 1 (pid 103) ready in 20 ms
        @5040    tick
                  → error: killing worker 0 (pid 102): not ready within boot_timeout
                  → send 102 KILL
                  → fork #4 worker 0 g1
        @5040    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @5045    exited 102 signal 9
                  → error: worker 0 (pid 102) failed to boot: ended by signal 9 (KILL)
        @5060    ready #4
                  → info: worker 0 (pid 104) ready in 20 ms
        "
    );
}

#[test]
fn term_while_prepare_runs() {
    insta::assert_snapshot!(
        life(
            "workers=2",
            "
            @0 started
            @10 signal TERM
            @12 exited 101 signal 2
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @10      signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → send 101 INT
        @12      exited 101 signal 2
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn term_while_workers_boot() {
    insta::assert_snapshot!(
        life(
            "workers=2",
            "
            @0 started
            @40 exited 101 code 0
            @50 ready #2
            @55 signal TERM
            @60 exited 103 code 0
            @70 exited 102 code 0
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @40      exited 101 code 0
                  → fork #2 worker 0 g1
                  → fork #3 worker 1 g1
        @40      forked #2 pid 102
                  → info: Booting worker with pid: 102
        @40      forked #3 pid 103
                  → info: Booting worker with pid: 103
        @50      ready #2
                  → info: worker 0 (pid 102) ready in 10 ms
        @55      signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
                  → send 103 INT
        @60      exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        @70      exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn fork_refused() {
    insta::assert_snapshot!(
        life(
            "workers=1",
            "
            the kernel refuses to fork
            @0 started
            @300 the kernel forks again
            @760 exited 103 code 0
            @770 ready #4
            "
        ),
        @r"
        @0       the kernel refuses to fork
        @0       started
                  → fork #1 prepare g1
        @0       unforked #1 resource temporarily unavailable
                  → error: failed to fork prepare: resource temporarily unavailable; trying again
        @250     tick
                  → fork #2 prepare g1
        @250     unforked #2 resource temporarily unavailable
                  → debug: failed to fork prepare: resource temporarily unavailable; trying again
        @300     the kernel forks again
        @750     tick
                  → fork #3 prepare g1
        @750     forked #3 pid 103
                  → debug: prepare started with pid: 103
        @760     exited 103 code 0
                  → fork #4 worker 0 g1
        @760     forked #4 pid 104
                  → info: Booting worker with pid: 104
        @770     ready #4
                  → info: worker 0 (pid 104) ready in 10 ms
        "
    );
}

#[test]
fn hup_during_boot() {
    insta::assert_snapshot!(
        life(
            "workers=1",
            "
            @0 started
            @5 signal HUP
            @40 exited 101 code 0
            @41 signal HUP
            @50 ready #2
            @55 loaded error nothing new
            "
        ),
        @r"
        @0       started
                  → fork #1 prepare g1
        @0       forked #1 pid 101
                  → debug: prepare started with pid: 101
        @5       signal HUP
        @40      exited 101 code 0
                  → fork #2 worker 0 g1
        @40      forked #2 pid 102
                  → info: Booting worker with pid: 102
        @41      signal HUP
        @50      ready #2
                  → info: worker 0 (pid 102) ready in 10 ms
                  → info: reloading: generation 2
                  → load g2
        @55      loaded error nothing new
                  → error: failed to reload: generation 2 is dropped, 1 serves on: nothing new
        "
    );
}
