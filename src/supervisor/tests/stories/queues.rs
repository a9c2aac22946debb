//! Slots whose queue is not drained.

use super::served_with_queues;

#[test]
fn undrained_slot_adopted_and_released() {
    insta::assert_snapshot!(
        served_with_queues(
            "workers=2",
            "
            @1000 queued 1
            @1010 length 1 3
            @1060 length 1 0
            @1110 length 1 0
            @1160 length 1 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    queued 1
        @1010    tick
                  → look 1
        @1010    length 1 3
                  → accept #2 {0,1}
        @1060    tick
                  → look 1
                  → rouse 1
        @1060    length 1 0
        @1110    tick
                  → look 1
                  → rouse 1
                  → steer {0}
        @1110    length 1 0
        @1160    tick
                  → look 1
                  → rouse 1
        @1160    length 1 0
                  → watch 1
                  → accept #2 {0}
                  → steer {0,1}
        "
    );
}

#[test]
fn a_queue_that_lasts_is_steered_around() {
    insta::assert_snapshot!(
        served_with_queues(
            "workers=2",
            "
            @1000 queued 1
            @1010 length 1 3
            @1060 length 1 3
            @1110 length 1 3
            @1160 length 1 0
            @1210 length 1 0
            @1260 length 1 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    queued 1
        @1010    tick
                  → look 1
        @1010    length 1 3
                  → accept #2 {0,1}
        @1060    tick
                  → look 1
                  → rouse 1
        @1060    length 1 3
        @1110    tick
                  → look 1
                  → rouse 1
                  → steer {0}
        @1110    length 1 3
        @1160    tick
                  → look 1
                  → rouse 1
        @1160    length 1 0
        @1210    tick
                  → look 1
                  → rouse 1
        @1210    length 1 0
        @1260    tick
                  → look 1
                  → rouse 1
        @1260    length 1 0
                  → watch 1
                  → accept #2 {0}
                  → steer {0,1}
        "
    );
}

/// That no connection waits behind a worker that stands still is its siblings' doing.
#[test]
fn a_slot_is_released_when_its_worker_shows_a_sign_of_life() {
    insta::assert_snapshot!(
        served_with_queues(
            "workers=2",
            "
            @1000 queued 1
            @1010 length 1 3 @900
            @1060 length 1 0 @900
            @1110 length 1 0 @900
            @1160 length 1 0 @900
            @1410 length 1 0 @900
            @1660 length 1 0 @1411
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    queued 1
        @1010    tick
                  → look 1
        @1010    length 1 3 @900
                  → accept #2 {0,1}
        @1060    tick
                  → look 1
                  → rouse 1
        @1060    length 1 0 @900
        @1110    tick
                  → look 1
                  → rouse 1
                  → steer {0}
        @1110    length 1 0 @900
        @1160    tick
                  → look 1
                  → rouse 1
        @1160    length 1 0 @900
        @1410    tick
                  → look 1
                  → rouse 1
        @1410    length 1 0 @900
        @1660    tick
                  → look 1
                  → rouse 1
        @1660    length 1 0 @1411
                  → watch 1
                  → accept #2 {0}
                  → steer {0,1}
        "
    );
}

/// An address that a reload has opened is steered like the others.
#[test]
fn a_reload_steers_anew() {
    insta::assert_snapshot!(
        served_with_queues(
            "workers=2",
            "
            @1000 signal HUP
            @1010 loaded workers=2
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
                  → steer {0,1}
        @1010    forked #4 pid 104
                  → debug: prepare started with pid: 104
        "
    );
}

#[test]
fn a_false_alarm() {
    insta::assert_snapshot!(
        served_with_queues(
            "workers=2",
            "
            @1000 queued 0
            @1010 length 0 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    queued 0
        @1010    tick
                  → look 0
        @1010    length 0 0
                  → watch 0
        "
    );
}

#[test]
fn a_dead_workers_slot_is_adopted_at_once() {
    insta::assert_snapshot!(
        served_with_queues(
            "workers=2",
            "
            @1000 exited 103 signal 9
            @1010 ready #4
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    exited 103 signal 9
                  → error: worker 1 (pid 103) died: ended by signal 9 (KILL)
                  → accept #2 {0,1}
                  → steer {0}
                  → fork #4 worker 1 g1
        @1000    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @1010    ready #4
                  → info: worker 1 (pid 104) ready in 10 ms
                  → watch 0
                  → watch 1
                  → accept #2 {0}
                  → steer {0,1}
        "
    );
}

#[test]
fn a_parked_slot_stays_adopted() {
    insta::assert_snapshot!(
        served_with_queues(
            "workers=2",
            "
            @1000 signal TTOU
            @1100 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal TTOU
                  → info: workers: 2 -> 1
                  → drain #3
                  → accept #2 {0,1}
                  → steer {0}
        @1100    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        "
    );
}
