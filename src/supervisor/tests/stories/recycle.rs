//! Workers that are replaced although nothing is wrong.

use super::served;

#[test]
fn max_requests() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @5000 due #3 requests
            @5012 ready #4
            @6000 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @5000    due #3 requests
                  → info: replacing worker 1 (pid 103): it has served max_requests
                  → fork #4 worker 1 g1
        @5000    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @5012    ready #4
                  → info: worker 1 (pid 104) ready in 12 ms
                  → drain #3
        @6000    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        "
    );
}

#[test]
fn one_slot_at_a_time_over_all_causes() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @5000 due #3 requests
            @5001 due #2 by hand
            @5012 ready #4
            @5030 ready #5
            @6000 exited 103 code 0
            @6001 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @5000    due #3 requests
                  → info: replacing worker 1 (pid 103): it has served max_requests
                  → fork #4 worker 1 g1
        @5000    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @5001    due #2 by hand
                  → info: replacing worker 0 (pid 102): it was told to leave by a signal
        @5012    ready #4
                  → info: worker 1 (pid 104) ready in 12 ms
                  → drain #3
                  → fork #5 worker 0 g1
        @5012    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @5030    ready #5
                  → info: worker 0 (pid 105) ready in 18 ms
                  → drain #2
        @6000    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        @6001    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        "
    );
}

#[test]
fn term_to_a_worker_by_hand() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @5000 due #2 by hand
            @5012 ready #3
            @5100 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @5000    due #2 by hand
                  → info: replacing worker 0 (pid 102): it was told to leave by a signal
                  → fork #3 worker 0 g1
        @5000    forked #3 pid 103
                  → info: Booting worker with pid: 103
        @5012    ready #3
                  → info: worker 0 (pid 103) ready in 12 ms
                  → drain #2
        @5100    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        "
    );
}

#[test]
fn term_to_a_worker_by_hand_that_does_not_wait() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @5000 due #2 by hand
            @5005 exited 102 code 0
            @5012 ready #3
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @5000    due #2 by hand
                  → info: replacing worker 0 (pid 102): it was told to leave by a signal
                  → fork #3 worker 0 g1
        @5000    forked #3 pid 103
                  → info: Booting worker with pid: 103
        @5005    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @5012    ready #3
                  → info: worker 0 (pid 103) ready in 12 ms
        "
    );
}

#[test]
fn lifetime() {
    insta::assert_snapshot!(
        served(
            "workers=1 lifetime=3600",
            "
            @3600010 ready #3
            @3600100 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @3600000 tick
                  → info: replacing worker 0 (pid 102): it has reached max_lifetime
                  → fork #3 worker 0 g1
        @3600000 forked #3 pid 103
                  → info: Booting worker with pid: 103
        @3600010 ready #3
                  → info: worker 0 (pid 103) ready in 10 ms
                  → drain #2
        @3600100 exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        "
    );
}

#[test]
fn memory_limit() {
    insta::assert_snapshot!(
        served(
            "workers=1 memory=100000000",
            "
            @1000 memory #2 90000000
            @2000 memory #2 100000000
            @3000 memory #2 112000000
            @3010 ready #3
            @3100 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    tick
                  → read memory #2
        @1000    memory #2 90000000
        @2000    tick
                  → read memory #2
        @2000    memory #2 100000000
        @3000    tick
                  → read memory #2
        @3000    memory #2 112000000
                  → info: replacing worker 0 (pid 102): its 106 MiB are above max_memory
                  → fork #3 worker 0 g1
        @3000    forked #3 pid 103
                  → info: Booting worker with pid: 103
        @3010    ready #3
                  → info: worker 0 (pid 103) ready in 10 ms
                  → drain #2
        @3100    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        "
    );
}

#[test]
fn a_due_worker_serves_on_while_its_replacement_cannot_boot() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @5000 due #2 requests
            @5010 exited 103 code 1
            @5011 exited 104 code 1
            @5050 exited 105 code 1
            @5100 exited 106 code 1
            @5200 exited 107 code 1
            @5400 exited 108 code 1
            @6000 ready #9
            @6100 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @5000    due #2 requests
                  → info: replacing worker 0 (pid 102): it has served max_requests
                  → fork #3 worker 0 g1
        @5000    forked #3 pid 103
                  → info: Booting worker with pid: 103
        @5010    exited 103 code 1
                  → error: worker 0 (pid 103) failed to boot: exited with code 1
                  → fork #4 worker 0 g1
        @5010    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @5011    exited 104 code 1
                  → error: worker 0 (pid 104) failed to boot: exited with code 1
        @5022    tick
                  → fork #5 worker 0 g1
        @5022    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @5050    exited 105 code 1
                  → error: worker 0 (pid 105) failed to boot: exited with code 1
                  → fork #6 worker 0 g1
        @5050    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @5100    exited 106 code 1
                  → error: worker 0 (pid 106) failed to boot: exited with code 1
                  → fork #7 worker 0 g1
        @5100    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @5200    exited 107 code 1
                  → error: worker 0 (pid 107) failed to boot: exited with code 1
        @5205    tick
                  → fork #8 worker 0 g1
        @5205    forked #8 pid 108
                  → info: Booting worker with pid: 108
        @5400    exited 108 code 1
                  → debug: worker 0 (pid 108) failed to boot: exited with code 1
                  → fork #9 worker 0 g1
        @5400    forked #9 pid 109
                  → info: Booting worker with pid: 109
        @6000    ready #9
                  → info: worker 0 (pid 109) ready in 600 ms
                  → drain #2
        @6100    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        "
    );
}

#[test]
fn who_is_due_longest_is_replaced_first() {
    insta::assert_snapshot!(
        served(
            "workers=3 graceful=30",
            "
            @5000 due #4 requests
            @5001 due #3 requests
            @5002 due #2 requests
            @5012 ready #5
            @5020 due #5 requests
            @5030 ready #6
            @5040 ready #7
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @0       #4 is worker 2 with pid 104
        @5000    due #4 requests
                  → info: replacing worker 2 (pid 104): it has served max_requests
                  → fork #5 worker 2 g1
        @5000    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @5001    due #3 requests
                  → info: replacing worker 1 (pid 103): it has served max_requests
        @5002    due #2 requests
                  → info: replacing worker 0 (pid 102): it has served max_requests
        @5012    ready #5
                  → info: worker 2 (pid 105) ready in 12 ms
                  → drain #4
                  → fork #6 worker 1 g1
        @5012    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @5020    due #5 requests
                  → info: replacing worker 2 (pid 105): it has served max_requests
        @5030    ready #6
                  → info: worker 1 (pid 106) ready in 18 ms
                  → drain #3
                  → fork #7 worker 0 g1
        @5030    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @5040    ready #7
                  → info: worker 0 (pid 107) ready in 10 ms
                  → drain #2
                  → fork #8 worker 2 g1
        @5040    forked #8 pid 108
                  → info: Booting worker with pid: 108
        "
    );
}

/// Its worker is never small: that is said once, and its replacements are as early deaths are. Otherwise
/// there were a fork in each second for as long as the server lives.
#[test]
fn a_limit_that_no_worker_can_keep_is_said_once_and_braked() {
    let mut script = String::new();
    // Each replacement is ready 5 ms after its fork, if it is forked by then.
    for child in 2..20 {
        let now = child * 1000 - 1000;
        script.push_str(&format!("@{now} memory #{child} 112000000\n"));
        script.push_str(&format!("@{} ready #{}\n", now + 5, child + 1));
        script.push_str(&format!("@{} exited {} code 0\n", now + 9, child + 100));
    }
    let text = served("workers=1 memory=100000000", &script);
    let forks = text.lines().filter(|line| line.contains(" forked #")).count();
    assert_eq!(forks, 9, "{text}");
    let said = "takes 106 MiB as soon as it serves: max_memory is less than this application needs";
    assert_eq!(text.matches(said).count(), 1, "{text}");
}
