//! Reloads: good ones, several at once, and what they do to the number of workers.

use super::served;

#[test]
fn hup_good() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @1000 signal HUP
            @1010 loaded workers=2 graceful=20
            @1050 exited 104 code 0
            @1060 ready #5
            @1172 ready #6
            @1400 exited 102 code 0
            @9000 exited 103 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=2 graceful=20 boot=60 stall=0 lifetime=0 memory=0
                  → fork #4 prepare g2
        @1010    forked #4 pid 104
                  → debug: prepare started with pid: 104
        @1050    exited 104 code 0
                  → fork #5 worker 0 g2
        @1050    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @1060    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        @1160    tick
                  → use g2
                  → drain #2
                  → fork #6 worker 1 g2
        @1160    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1172    ready #6
                  → info: worker 1 (pid 106) ready in 12 ms
                  → drain #3
                  → info: reloaded: generation 2 in 172 ms, workers replaced: 2
        @1400    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @9000    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
                  → forget g1
        "
    );
}

#[test]
fn hup_with_fewer_workers() {
    insta::assert_snapshot!(
        served(
            "workers=3",
            "
            @1000 signal HUP
            @1010 loaded workers=1
            @1050 exited 105 code 0
            @1060 ready #6
            @1200 exited 102 code 0
            @1201 exited 103 code 0
            @1202 exited 104 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @0       #4 is worker 2 with pid 104
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #5 prepare g2
        @1010    forked #5 pid 105
                  → debug: prepare started with pid: 105
        @1050    exited 105 code 0
                  → fork #6 worker 0 g2
        @1050    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1060    ready #6
                  → info: worker 0 (pid 106) ready in 10 ms
        @1160    tick
                  → use g2
                  → info: workers: 3 -> 1
                  → drain #2
                  → info: reloaded: generation 2 in 160 ms, workers replaced: 1
                  → drain #3
                  → drain #4
        @1200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @1201    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        @1202    exited 104 code 0
                  → info: worker 2 (pid 104) left: exited with code 0
                  → forget g1
        "
    );
}

#[test]
fn hup_takes_the_count_from_the_file_again() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @900 signal TTIN
            @910 ready #3
            @1000 signal HUP
            @1010 loaded workers=1
            @1050 exited 104 code 0
            @1060 ready #5
            @1200 exited 103 code 0
            @1201 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @900     signal TTIN
                  → info: workers: 1 -> 2
                  → open slots 2
        @900     open 2
                  → fork #3 worker 1 g1
        @900     forked #3 pid 103
                  → info: Booting worker with pid: 103
        @910     ready #3
                  → info: worker 1 (pid 103) ready in 10 ms
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #4 prepare g2
        @1010    forked #4 pid 104
                  → debug: prepare started with pid: 104
        @1050    exited 104 code 0
                  → fork #5 worker 0 g2
        @1050    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @1060    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        @1160    tick
                  → use g2
                  → info: workers: 2 -> 1
                  → drain #2
                  → info: reloaded: generation 2 in 160 ms, workers replaced: 1
                  → drain #3
        @1200    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        @1201    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → forget g1
        "
    );
}

#[test]
fn hup_during_hup() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal HUP
            @1001 signal HUP
            @1010 loaded workers=1
            @1020 signal HUP
            @1050 exited 103 code 0
            @1055 signal HUP
            @1060 ready #4
            @1170 loaded error nothing new
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1001    signal HUP
        @1010    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #3 prepare g2
        @1010    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @1020    signal HUP
        @1050    exited 103 code 0
                  → fork #4 worker 0 g2
        @1050    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @1055    signal HUP
        @1060    ready #4
                  → info: worker 0 (pid 104) ready in 10 ms
        @1160    tick
                  → use g2
                  → drain #2
                  → info: reloaded: generation 2 in 160 ms, workers replaced: 1
                  → info: reloading: generation 3
                  → load g3
        @1170    loaded error nothing new
                  → error: failed to reload: generation 3 is dropped, 2 serves on: nothing new
        "
    );
}

#[test]
fn hup_with_more_workers() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal HUP
            @1010 loaded workers=2
            @1050 exited 103 code 0
            @1060 ready #4
            @1170 ready #5
            @1200 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=2 graceful=30 boot=60 stall=0 lifetime=0 memory=0
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
                  → info: workers: 1 -> 2
                  → drain #2
                  → open slots 2
        @1160    open 2
                  → fork #5 worker 1 g2
        @1160    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @1170    ready #5
                  → info: worker 1 (pid 105) ready in 10 ms
                  → info: reloaded: generation 2 in 170 ms, workers replaced: 1
        @1200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → forget g1
        "
    );
}

#[test]
fn a_predecessor_that_was_due_is_due_again() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @5000 signal HUP
            loaded workers=1
            @5020 exited 103 code 0
            @5030 ready #4
            @5040 due #2 requests
            @5050 exited 104 code 1
            @5060 exited 105 code 1
            @5070 exited 106 code 1
            @5100 ready #7
            @5200 exited 102 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @5000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @5000    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #3 prepare g2
        @5000    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @5020    exited 103 code 0
                  → fork #4 worker 0 g2
        @5020    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @5030    ready #4
                  → info: worker 0 (pid 104) ready in 10 ms
        @5040    due #2 requests
                  → info: replacing worker 0 (pid 102): it has served max_requests
        @5050    exited 104 code 1
                  → error: worker 0 (pid 104) died: exited with code 1
                  → fork #5 worker 0 g2
        @5050    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @5060    exited 105 code 1
                  → error: worker 0 (pid 105) failed to boot: exited with code 1
                  → fork #6 worker 0 g2
        @5060    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @5070    exited 106 code 1
                  → error: worker 0 (pid 106) failed to boot: exited with code 1
                  → error: failed to reload: generation 2 is dropped, 1 serves on: 3 workers in a row failed, the last in slot 0 (exited with code 1)
                  → forget g2
        @5083    tick
                  → fork #7 worker 0 g1
        @5083    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @5100    ready #7
                  → info: worker 0 (pid 107) ready in 17 ms
                  → drain #2
        @5200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        "
    );
}

#[test]
fn a_reload_cures_a_generation_that_cannot_live() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @100 exited 102 code 1
            @110 exited 103 code 1
            @112 signal HUP
            loaded workers=1
            @113 exited 105 code 0
            @115 exited 104 code 1
            @140 ready #6
            @240 tick
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @100     exited 102 code 1
                  → error: worker 0 (pid 102) died: exited with code 1
                  → fork #3 worker 0 g1
        @100     forked #3 pid 103
                  → info: Booting worker with pid: 103
        @110     exited 103 code 1
                  → error: worker 0 (pid 103) failed to boot: exited with code 1
        @111     tick
                  → fork #4 worker 0 g1
        @111     forked #4 pid 104
                  → info: Booting worker with pid: 104
        @112     signal HUP
                  → info: reloading: generation 2
                  → load g2
        @112     loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #5 prepare g2
        @112     forked #5 pid 105
                  → debug: prepare started with pid: 105
        @113     exited 105 code 0
        @115     exited 104 code 1
                  → error: worker 0 (pid 104) failed to boot: exited with code 1
                  → fork #6 worker 0 g2
        @115     forked #6 pid 106
                  → info: Booting worker with pid: 106
        @140     ready #6
                  → info: worker 0 (pid 106) ready in 25 ms
        @240     tick
                  → use g2
                  → info: reloaded: generation 2 in 128 ms, workers replaced: 0
                  → forget g1
        "
    );
}
