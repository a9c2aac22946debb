//! More workers, and fewer.

use super::served;

#[test]
fn ttin() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @100 signal TTIN
            @110 ready #3
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @100     signal TTIN
                  → info: workers: 1 -> 2
                  → open slots 2
        @100     open 2
                  → fork #3 worker 1 g1
        @100     forked #3 pid 103
                  → info: Booting worker with pid: 103
        @110     ready #3
                  → info: worker 1 (pid 103) ready in 10 ms
        "
    );
}

#[test]
fn ttou() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @100 signal TTOU
            @300 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @100     signal TTOU
                  → info: workers: 2 -> 1
                  → drain #3
        @300     exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        "
    );
}

#[test]
fn ttou_at_1() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @100 signal TTOU
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @100     signal TTOU
                  → warning: workers: 1 is as far as it goes
        "
    );
}

#[test]
fn ttin_at_the_most() {
    insta::assert_snapshot!(
        served(
            "workers=1 most=1",
            "
            @100 signal TTIN
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @100     signal TTIN
                  → warning: workers: 1 is as far as it goes
        "
    );
}

#[test]
fn ttin_after_ttou_takes_the_parked_slot() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @100 signal TTOU
            @110 signal TTIN
            @120 ready #4
            @300 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @100     signal TTOU
                  → info: workers: 2 -> 1
                  → drain #3
        @110     signal TTIN
                  → info: workers: 1 -> 2
                  → fork #4 worker 1 g1
        @110     forked #4 pid 104
                  → info: Booting worker with pid: 104
        @120     ready #4
                  → info: worker 1 (pid 104) ready in 10 ms
        @300     exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        "
    );
}

#[test]
fn winch() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @100 signal WINCH
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @100     signal WINCH
                  → warning: ignoring WINCH: it is not a daemon's terminal
        "
    );
}

#[test]
fn usr1() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @100 signal TTOU
            @110 signal USR1
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @100     signal TTOU
                  → info: workers: 2 -> 1
                  → drain #3
        @110     signal USR1
                  → reopen logs
        "
    );
}

#[test]
fn ttin_where_no_more_slots_can_be_opened() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            no more slots can be opened
            @100 signal TTIN
            @200 signal TTIN
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       no more slots can be opened
        @100     signal TTIN
                  → info: workers: 1 -> 2
                  → open slots 2
        @100     open 1
                  → info: workers: 2 -> 1
        @200     signal TTIN
                  → info: workers: 1 -> 2
                  → open slots 2
        @200     open 1
                  → info: workers: 2 -> 1
        "
    );
}
