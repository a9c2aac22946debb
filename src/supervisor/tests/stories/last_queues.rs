//! The fate of queued connections when the server ends.

use super::{served, served_with_queues};

/// A worker that stalls from now on, or dies, takes no queue with it.
#[test]
fn term_leaves_no_queue_to_one_worker() {
    insta::assert_snapshot!(
        served_with_queues(
            "workers=2 graceful=30",
            "
            @1000 signal TERM
            @1010 exited 103 signal 9
            @1200 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → accept #2 {0,1}
                  → stop #2
                  → accept #3 {0,1}
                  → stop #3
        @1010    exited 103 signal 9
                  → warning: worker 1 (pid 103) died while draining: ended by signal 9 (KILL)
        @1200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn term_while_the_only_worker_boots() {
    insta::assert_snapshot!(
        served(
            "workers=1 graceful=30",
            "
            @1000 exited 102 signal 9
            @1010 signal TERM
            @1200 ready #3
            @1300 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    exited 102 signal 9
                  → error: worker 0 (pid 102) died: ended by signal 9 (KILL)
                  → fork #3 worker 0 g1
        @1000    forked #3 pid 103
                  → info: Booting worker with pid: 103
        @1010    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
        @1200    ready #3
                  → info: worker 0 (pid 103) ready in 200 ms
                  → stop #3
        @1300    exited 103 code 0
                  → info: worker 0 (pid 103) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn term_while_the_only_worker_boots_for_too_long() {
    insta::assert_snapshot!(
        served(
            "workers=1 graceful=5",
            "
            @1000 exited 102 signal 9
            @1010 signal TERM
            @6020 exited 103 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    exited 102 signal 9
                  → error: worker 0 (pid 102) died: ended by signal 9 (KILL)
                  → fork #3 worker 0 g1
        @1000    forked #3 pid 103
                  → info: Booting worker with pid: 103
        @1010    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 5 s
        @5760    tick
                  → warning: killing worker 0 (pid 103): not gone by its deadline
                  → send 103 KILL
        @6020    exited 103 signal 9
                  → warning: worker 0 (pid 103) was killed while draining: ended by signal 9 (KILL)
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}

#[test]
fn int_while_the_only_worker_boots() {
    insta::assert_snapshot!(
        served(
            "workers=1 graceful=30",
            "
            @1000 exited 102 signal 9
            @1010 signal TERM
            @1020 signal INT
            @1030 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    exited 102 signal 9
                  → error: worker 0 (pid 102) died: ended by signal 9 (KILL)
                  → fork #3 worker 0 g1
        @1000    forked #3 pid 103
                  → info: Booting worker with pid: 103
        @1010    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
        @1020    signal INT
                  → info: stopping quickly
                  → send 103 INT
        @1030    exited 103 code 0
                  → info: worker 0 (pid 103) left: exited with code 0
                  → info: Shutting down: Master
                  → exit 0
        "
    );
}
