//! The life of the logger, and its end.

use super::{Teller, served, served_with_logger};
use crate::ids::{ChildId, Pid};
use crate::supervisor::Supervisor;
use crate::supervisor::action::Action;
use crate::supervisor::event::{Event, ExitStatus};
use crate::supervisor::notice::Notice;
use crate::supervisor::tests::transcript::policy;
use crate::time::Instant;

/// The story of a server from its start, with everything about the logger.
fn life_with_logger(settings: &str, script: &str) -> String {
    let mut teller = Teller::new(settings);
    teller.tells_logger = true;
    teller.tell(script);
    teller.text
}

#[test]
fn it_is_the_first_and_the_last() {
    insta::assert_snapshot!(life_with_logger(
        "workers=1",
        "
        @0 started
        @50 exited 101 code 0
        @60 ready #2
        @1000 signal TERM
        @1010 exited 102 code 0
        @1020 exited 100 code 0
        "
    ), @r"
        @0       started
                  → fork #0 the logger g1
                  → fork #1 prepare g1
        @0       forked #0 pid 100
                  → debug: the logger started with pid: 100
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
                  → info: Shutting down: Master
                  → finish logs
        @1020    exited 100 code 0
                  → exit 0
        ");
}

#[test]
fn one_that_dies_is_replaced_and_one_that_cannot_live_is_waited_for() {
    insta::assert_snapshot!(served_with_logger(
        "workers=1",
        "
        @60000 exited 100 signal 9
        @60001 exited 100 code 1
        @60002 exited 100 code 1
        @60040 tick
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @60000   exited 100 signal 9
                  → error: the logger (pid 100) died: ended by signal 9 (KILL); another takes its place
                  → fork #0 the logger g1
        @60000   forked #0 pid 100
                  → debug: the logger started with pid: 100
        @60001   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
                  → fork #0 the logger g1
        @60001   forked #0 pid 100
                  → debug: the logger started with pid: 100
        @60002   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
        @60013   tick
                  → fork #0 the logger g1
        @60013   forked #0 pid 100
                  → debug: the logger started with pid: 100
        ");
}

/// From the second early death on there may be no logger.
#[test]
fn a_logger_that_cannot_live_is_told_of_elsewhere_too() {
    let mut supervisor = Supervisor::new(policy("workers=1"), 7);
    let mut deaths = Vec::new();
    for event in [
        Event::Started,
        Event::Forked { child: ChildId::LOGGER, pid: Pid(100) },
        Event::Exited { pid: Pid(100), status: ExitStatus::Code(1) },
        Event::Forked { child: ChildId::LOGGER, pid: Pid(101) },
        Event::Exited { pid: Pid(101), status: ExitStatus::Code(1) },
    ] {
        for order in supervisor.handle(Instant::from_millis(1000), event) {
            if let Action::Log(notice @ Notice::LoggerExited { .. }) = order {
                deaths.push(notice.is_of_mute_logs());
            }
        }
    }
    assert_eq!(deaths, [false, true]);
}

#[test]
fn a_refused_fork_is_tried_again() {
    insta::assert_snapshot!(life_with_logger(
        "workers=1",
        "
        the kernel refuses to fork
        @0 started
        the kernel forks again
        @250 tick
        "
    ), @r"
        @0       the kernel refuses to fork
        @0       started
                  → fork #0 the logger g1
                  → fork #1 prepare g1
        @0       unforked #0 resource temporarily unavailable
                  → error: failed to fork the logger: resource temporarily unavailable; trying again
        @0       unforked #1 resource temporarily unavailable
                  → error: failed to fork prepare: resource temporarily unavailable; trying again
        @0       the kernel forks again
        @250     tick
                  → fork #0 the logger g1
                  → fork #2 prepare g1
        @250     forked #0 pid 100
                  → debug: the logger started with pid: 100
        @250     forked #2 pid 102
                  → debug: prepare started with pid: 102
        ");
}

#[test]
fn a_reload_has_another_open_the_new_targets() {
    insta::assert_snapshot!(served_with_logger(
        "workers=1 graceful=30",
        "
        @1000 signal HUP
        @1010 loaded workers=1
        @1050 exited 103 code 0
        @1060 ready #4
        @1170 exited 100 code 0
        @1180 exited 102 code 0
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #3 prepare g2
        @1010    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @1050    exited 103 code 0
                  → fork #4 worker 0 g2
        @1050    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @1060    ready #4
                  → info: worker 0 (pid 104) ready in 10 ms
        @1160    tick
                  → use g2
                  → finish logs
                  → drain #2
                  → info: reloaded: generation 2 in 160 ms, workers replaced: 1
        @1170    exited 100 code 0
                  → fork #0 the logger g2
        @1170    forked #0 pid 100
                  → debug: the logger started with pid: 100
        @1180    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → forget g1
        ");
}

#[test]
fn an_upgrade_has_another_run_the_new_image() {
    insta::assert_snapshot!(served_with_logger(
        "workers=1",
        "
        @1000 upgraded
        @1005 exited 100 code 0
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @1000    upgraded
                  → finish logs
                  → info: reloading: generation 2
                  → load g2
        @1005    exited 100 code 0
                  → fork #0 the logger g1
        @1005    forked #0 pid 100
                  → debug: the logger started with pid: 100
        ");
}

#[test]
fn usr1_is_for_the_logger() {
    insta::assert_snapshot!(served("workers=2", "@1000 signal USR1"), @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal USR1
                  → reopen logs
        ");
}

#[test]
fn a_reader_that_does_not_read_cannot_hold_the_exit() {
    insta::assert_snapshot!(served_with_logger(
        "workers=1 graceful=30",
        "
        @1000 signal TERM
        @2000 exited 102 code 0
        @31010 exited 100 signal 9
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
        @2000    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → finish logs
        @31000   tick
                  → warning: killing the logger (pid 100): not gone by its deadline
                  → send 100 KILL
        @31010   exited 100 signal 9
                  → exit 0
        ");
}

#[test]
fn workers_that_take_all_their_time_leave_a_moment_for_the_last_lines() {
    insta::assert_snapshot!(served_with_logger(
        "workers=1 graceful=2",
        "
        @1000 signal TERM
        @2755 exited 102 signal 9
        @3010 exited 100 signal 9
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 2 s
                  → stop #2
        @2750    tick
                  → warning: killing worker 0 (pid 102): not gone by its deadline
                  → send 102 KILL
        @2755    exited 102 signal 9
                  → warning: worker 0 (pid 102) was killed while draining: ended by signal 9 (KILL)
                  → info: Shutting down: Master
                  → finish logs
        @3000    tick
                  → warning: killing the logger (pid 100): not gone by its deadline
                  → send 100 KILL
        @3010    exited 100 signal 9
                  → exit 0
        ");
}

#[test]
fn one_that_dies_at_the_end_is_replaced_to_write_the_last_lines() {
    insta::assert_snapshot!(served_with_logger(
        "workers=1 graceful=30",
        "
        @1000 signal TERM
        @1100 exited 102 code 0
        @1110 exited 100 signal 9
        @1120 exited 100 code 0
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
        @1100    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → finish logs
        @1110    exited 100 signal 9
                  → error: the logger (pid 100) died: ended by signal 9 (KILL); another takes its place
                  → fork #0 the logger g1
        @1110    forked #0 pid 100
                  → debug: the logger started with pid: 100
                  → finish logs
        @1120    exited 100 code 0
                  → exit 0
        ");
}

/// Five early deaths in a row: there will be no logger that could write the last lines.
#[test]
fn failing_logger_does_not_hold_the_exit() {
    insta::assert_snapshot!(served_with_logger(
        "workers=1 graceful=30",
        "
        @60000 exited 100 code 1
        @60001 exited 100 code 1
        @60020 tick
        @60021 exited 100 code 1
        @60100 tick
        @60101 exited 100 code 1
        @60300 tick
        @60301 exited 100 code 1
        @60600 tick
        @60601 exited 100 code 1
        @60602 signal TERM
        @60610 exited 102 code 0
        @60620 exited 100 code 1
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @60000   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
                  → fork #0 the logger g1
        @60000   forked #0 pid 100
                  → debug: the logger started with pid: 100
        @60001   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
                  → fork #0 the logger g1
        @60001   forked #0 pid 100
                  → debug: the logger started with pid: 100
        @60021   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
                  → fork #0 the logger g1
        @60021   forked #0 pid 100
                  → debug: the logger started with pid: 100
        @60101   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
                  → fork #0 the logger g1
        @60101   forked #0 pid 100
                  → debug: the logger started with pid: 100
        @60301   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
                  → fork #0 the logger g1
        @60301   forked #0 pid 100
                  → debug: the logger started with pid: 100
        @60601   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
                  → fork #0 the logger g1
        @60601   forked #0 pid 100
                  → debug: the logger started with pid: 100
        @60602   signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 30 s
                  → stop #2
        @60610   exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → finish logs
        @60620   exited 100 code 1
                  → error: the logger (pid 100) died: exited with code 1; another takes its place
                  → exit 0
        ");
}

#[test]
fn one_that_is_being_replaced_when_all_leave_is_not_the_last() {
    insta::assert_snapshot!(served_with_logger(
        "workers=1 graceful=30",
        "
        @1000 upgraded
        @1001 signal INT
        @1002 exited 102 code 0
        @1003 exited 100 code 0
        @1004 exited 100 code 0
        "
    ), @r"
        @0       #2 is worker 0 with pid 102
        @1000    upgraded
                  → finish logs
                  → info: reloading: generation 2
                  → load g2
        @1001    signal INT
                  → stop listening
                  → info: stopping quickly
                  → send 102 INT
        @1002    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
        @1003    exited 100 code 0
                  → fork #0 the logger g1
        @1003    forked #0 pid 100
                  → debug: the logger started with pid: 100
                  → finish logs
        @1004    exited 100 code 0
                  → exit 0
        ");
}

#[test]
fn one_that_cannot_be_killed_does_not_hold_the_exit() {
    insta::assert_snapshot!(
        served_with_logger(
            "workers=1 graceful=3",
            "
            @1000 signal TERM
            @1200 exited 102 code 0
            @60000 tick
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal TERM
                  → stop listening
                  → info: stopping: workers may finish for 3 s
                  → stop #2
        @1200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → info: Shutting down: Master
                  → finish logs
        @4000    tick
                  → warning: killing the logger (pid 100): not gone by its deadline
                  → send 100 KILL
        @9000    tick
                  → error: leaving the logger (pid 100) behind: KILL does not end it
                  → exit 0
        "
    );
}
