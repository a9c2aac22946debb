//! Silent workers: stuck, starved, or asleep with the machine.

use super::served;

#[test]
fn who_slept_with_the_machine_has_so_much_longer() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30 boot=60",
            "
            @1000 exited 102 signal 9
            @1010 signal TTOU
            @3600000 the machine was asleep
            tick
            @3600100 ready #4
            @3600200 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    exited 102 signal 9
                  → error: worker 0 (pid 102) died: ended by signal 9 (KILL)
                  → fork #4 worker 0 g1
        @1000    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @1010    signal TTOU
                  → info: workers: 2 -> 1
                  → drain #3
        @3600000 the machine was asleep
        @3600100 ready #4
                  → info: worker 0 (pid 104) ready in 3599100 ms
        @3600200 exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        "
    );
}

/// A worker that has closed its channel can be told nothing: it is killed, and replaced.
#[test]
fn channel_closed_before_the_end() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 unheard #2
            @1010 exited 102 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    unheard #2
                  → error: killing worker 0 (pid 102): it closed its channel to the master and goes on
                  → send 102 KILL
                  → fork #3 worker 0 g1
        @1000    forked #3 pid 103
                  → info: Booting worker with pid: 103
        @1010    exited 102 signal 9
                  → error: worker 0 (pid 102) died: ended by signal 9 (KILL)
        "
    );
}

#[test]
fn stall_abort_kill() {
    insta::assert_snapshot!(
        served(
            "workers=1 stall=30",
            "
            @30000 heartbeat #2 @29000
            @59000 heartbeat #2 @29000
            @60000 heartbeat #2 @29000
            @62005 exited 102 signal 9
            @62020 ready #3
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @30000   tick
                  → read heartbeat #2
        @30000   heartbeat #2 @29000
        @59000   tick
                  → read heartbeat #2
        @59000   heartbeat #2 @29000
        @60000   tick
                  → read heartbeat #2
        @60000   heartbeat #2 @29000
                  → error: worker 0 (pid 102) silent for 31 s: aborting it
                  → send 102 ABRT
                  → fork #3 worker 0 g1
        @60000   forked #3 pid 103
                  → info: Booting worker with pid: 103
        @62000   tick
                  → error: killing worker 0 (pid 102): still there after ABRT
                  → send 102 KILL
        @62005   exited 102 signal 9
                  → error: worker 0 (pid 102) ended after its stall: ended by signal 9 (KILL)
        @62020   ready #3
                  → info: worker 0 (pid 103) ready in 2020 ms
        "
    );
}

#[test]
fn stall_abort_heeded() {
    insta::assert_snapshot!(
        served(
            "workers=1 stall=30",
            "
            @30000 heartbeat #2 @0
            @31000 heartbeat #2 @0
            @31400 exited 102 signal 6 core
            @31415 ready #3
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @30000   tick
                  → read heartbeat #2
        @30000   heartbeat #2 @0
        @31000   tick
                  → read heartbeat #2
        @31000   heartbeat #2 @0
                  → error: worker 0 (pid 102) silent for 31 s: aborting it
                  → send 102 ABRT
                  → fork #3 worker 0 g1
        @31000   forked #3 pid 103
                  → info: Booting worker with pid: 103
        @31400   exited 102 signal 6 core
                  → error: worker 0 (pid 102) ended after its stall: ended by signal 6 (ABRT), core dumped
        @31415   ready #3
                  → info: worker 0 (pid 103) ready in 415 ms
        "
    );
}

#[test]
fn starved_worker_spared() {
    insta::assert_snapshot!(
        served(
            "workers=1 stall=30",
            "
            @30000 heartbeat #2 @500
            @30500 heartbeat #2 @500 starved
            @31500 heartbeat #2 @500 starved
            @32500 heartbeat #2 @500
            @33500 heartbeat #2 @33400
            @63400 tick
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @30000   tick
                  → read heartbeat #2
        @30000   heartbeat #2 @500
        @30500   tick
                  → read heartbeat #2
        @30500   heartbeat #2 @500 starved
                  → warning: worker 0 (pid 102) silent for 30 s: it waits for a processor
        @31500   tick
                  → read heartbeat #2
        @31500   heartbeat #2 @500 starved
        @32500   tick
                  → read heartbeat #2
        @32500   heartbeat #2 @500
        @33500   tick
                  → read heartbeat #2
        @33500   heartbeat #2 @33400
        @63400   tick
                  → read heartbeat #2
        "
    );
}

#[test]
fn machine_asleep_spared() {
    insta::assert_snapshot!(
        served(
            "workers=1 stall=30",
            "
            @3600000 the machine was asleep
            heartbeat #2 @10000
            @3601000 heartbeat #2 @3600050
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @3600000 the machine was asleep
        @3600000 tick
                  → read heartbeat #2
        @3600000 heartbeat #2 @10000
        @3601000 heartbeat #2 @3600050
        "
    );
}

#[test]
fn a_sleep_that_ends_with_the_deadline_is_no_silence() {
    insta::assert_snapshot!(
        served(
            "workers=1 stall=30",
            "
            @30000 heartbeat #2 @29000
            @59200 the machine was asleep
            heartbeat #2 @29100
            @60200 heartbeat #2 @60100
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @30000   tick
                  → read heartbeat #2
        @30000   heartbeat #2 @29000
        @59200   the machine was asleep
        @59200   tick
                  → read heartbeat #2
        @59200   heartbeat #2 @29100
        @60200   tick
                  → read heartbeat #2
        @60200   heartbeat #2 @60100
        "
    );
}

#[test]
fn two_short_silences_are_not_a_long_one() {
    insta::assert_snapshot!(
        served(
            "workers=1 stall=30",
            "
            @30000 heartbeat #2 @0
            @31000 heartbeat #2 @1000
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @30000   tick
                  → read heartbeat #2
        @30000   heartbeat #2 @0
        @31000   tick
                  → read heartbeat #2
        @31000   heartbeat #2 @1000
        "
    );
}
