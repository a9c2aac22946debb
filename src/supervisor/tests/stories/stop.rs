//! The end of a server.

use super::served;

#[test]
fn term() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @1000 signal TERM
            @1200 exited 102 code 0
            @9000 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
                  → stop #3
        @1200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @9000    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn term_twice() {
    insta::assert_snapshot!(
        served(
            "workers=1 graceful=30",
            "
            @1000 signal TERM
            @2000 signal TERM
            @3000 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
        @2000    signal TERM
        @3000    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn nobody_heeds_term() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @1000 signal TERM
            @31005 exited 102 signal 9
            @31006 exited 103 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
                  → stop #3
        @30750   tick
                  → warning: killing worker 0 (pid 102): not gone by its deadline
                  → send 102 KILL
                  → warning: killing worker 1 (pid 103): not gone by its deadline
                  → send 103 KILL
        @31005   exited 102 signal 9
                  → warning: worker 0 (pid 102) was killed while draining: ended by signal 9 (KILL)
        @31006   exited 103 signal 9
                  → warning: worker 1 (pid 103) was killed while draining: ended by signal 9 (KILL)
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

/// The server serves on as before, replaces what dies, and takes no other wishes.
#[test]
fn announced_term() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30 announce=6",
            "
            @1000 signal TERM
            @1500 signal TERM
            @2000 signal HUP
            @3000 exited 102 signal 11
            @3100 ready #4
            @7000 tick
            @8000 exited 103 code 0
            @8001 exited 104 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal TERM
                  → info: stopping in 6 s: the server serves on, readiness is 503
                  → announce #2
                  → announce #3
        @1500    signal TERM
        @2000    signal HUP
                  → warning: ignoring HUP: the server is stopping
        @3000    exited 102 signal 11
                  → error: worker 0 (pid 102) died: ended by signal 11 (SEGV)
                  → fork #4 worker 0 g1
        @3000    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @3100    ready #4
                  → info: worker 0 (pid 104) ready in 100 ms
                  → announce #4
        @7000    tick
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #3
                  → stop #4
        @8000    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        @8001    exited 104 code 0
                  → info: worker 0 (pid 104) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn int_ends_an_announcement() {
    insta::assert_snapshot!(
        served(
            "workers=1 graceful=30 announce=6",
            "
            @1000 signal TERM
            @2000 signal INT
            @2005 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → info: stopping in 6 s: the server serves on, readiness is 503
                  → announce #2
        @2000    signal INT
                  → stop listening
                  → info: stopping quickly
                  → send 102 INT
        @2005    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn int() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal INT
            @1005 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal INT
                  → stop listening
                  → info: stopping quickly
                  → send 102 INT
        @1005    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn int_during_graceful() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @1000 signal TERM
            @5000 signal INT
            @5010 exited 102 code 0
            @7010 exited 103 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
                  → stop #3
        @5000    signal INT
                  → info: stopping quickly
                  → send 102 INT
                  → send 103 INT
        @5010    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @6750    tick
                  → warning: killing worker 1 (pid 103): not gone by its deadline
                  → send 103 KILL
        @7010    exited 103 signal 9
                  → warning: worker 1 (pid 103) was killed while draining: ended by signal 9 (KILL)
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn hup_and_the_others_while_stopping() {
    insta::assert_snapshot!(
        served(
            "workers=1 graceful=30",
            "
            @1000 signal TERM
            @1001 signal HUP
            @1002 signal TTIN
            @1003 signal USR2
            @1004 signal USR1
            @1005 signal WINCH
            @1100 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
        @1001    signal HUP
                  → warning: ignoring HUP: the server is stopping
        @1002    signal TTIN
                  → warning: ignoring TTIN: the server is stopping
        @1003    signal USR2
                  → warning: ignoring USR2: the server is stopping
        @1004    signal USR1
                  → reopen logs
        @1005    signal WINCH
                  → warning: ignoring WINCH: it is not a daemon's terminal
        @1100    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn term_during_a_reload() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @1000 signal HUP
            @1010 loaded workers=2
            @1050 exited 104 code 0
            @1060 ready #5
            @1080 signal TERM
            @1100 exited 102 code 0
            @1101 exited 103 code 0
            @1102 exited 105 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=2 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #4 prepare g2
        @1010    forked #4 pid 104
                  → debug: prepare started with pid: 104
        @1050    exited 104 code 0
                  → fork #5 worker 0 g2
        @1050    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @1060    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        @1080    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
                  → stop #3
                  → stop #5
        @1100    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @1101    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        @1102    exited 105 code 0
                  → info: worker 0 (pid 105) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn quit_and_nobody_heeds_it() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal QUIT
            @3010 exited 102 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal QUIT
                  → stop listening
                  → info: stopping quickly
                  → send 102 INT
        @2750    tick
                  → warning: killing worker 0 (pid 102): not gone by its deadline
                  → send 102 KILL
        @3010    exited 102 signal 9
                  → warning: worker 0 (pid 102) was killed while draining: ended by signal 9 (KILL)
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn term_waits_no_longer_for_an_older_generation() {
    insta::assert_snapshot!(
        served(
            "workers=1 graceful=300",
            "
            @1000 signal HUP
            loaded workers=1 graceful=5
            @1050 exited 103 code 0
            @1060 ready #4
            @2000 signal TERM
            @2100 exited 104 code 0
            @7010 exited 102 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1000    loaded workers=1 graceful=5 boot=60 stall=0 lifetime=0 memory=0
                  → fork #3 prepare g2
        @1000    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @1050    exited 103 code 0
                  → fork #4 worker 0 g2
        @1050    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @1060    ready #4
                  → info: worker 0 (pid 104) ready in 10 ms
        @1160    tick
                  → use g2
                  → drain #2
                  → info: reloaded: generation 2 in 160 ms, workers replaced: 1
        @2000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 5 s
                  → stop #4
        @2100    exited 104 code 0
                  → info: worker 0 (pid 104) left: exited with code 0
        @6750    tick
                  → warning: killing worker 0 (pid 102): not gone by its deadline
                  → send 102 KILL
        @7010    exited 102 signal 9
                  → warning: worker 0 (pid 102) was killed while draining: ended by signal 9 (KILL)
                  → info: Shutting down: Master
                  → forget g1
                  → exit 0
        "
    );
}

#[test]
fn term_with_zero_graceful_timeout() {
    insta::assert_snapshot!(
        served(
            "workers=1 graceful=0",
            "
            @1000 signal TERM
            @1001 exited 102 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 0 s
                  → stop #2
        @1000    tick
                  → warning: killing worker 0 (pid 102): not gone by its deadline
                  → send 102 KILL
        @1001    exited 102 signal 9
                  → warning: worker 0 (pid 102) was killed while draining: ended by signal 9 (KILL)
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn nothing_follows_the_end() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal TERM
            @1001 exited 102 code 0
            @1002 signal HUP
            @1003 signal USR1
            @1004 exited 4711 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
        @1001    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        @1002    signal HUP
        @1003    signal USR1
        @1004    exited 4711 code 0
        "
    );
}

#[test]
fn who_cannot_be_killed_does_not_hold_the_exit() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=3",
            "
            @1000 signal TERM
            @1200 exited 102 code 0
            @60000 exited 103 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 3 s
                  → stop #2
                  → stop #3
        @1200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @3750    tick
                  → warning: killing worker 1 (pid 103): not gone by its deadline
                  → send 103 KILL
        @9000    tick
                  → error: leaving worker 1 (pid 103) behind: KILL does not end it
                  → info: Shutting down: Master
                  → exit 0
        @60000   exited 103 signal 9
        "
    );
}
