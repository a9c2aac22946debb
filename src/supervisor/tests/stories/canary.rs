//! The first replacement of a reload: what may become of it, and what is taken back with it.

use super::served;

#[test]
fn an_old_worker_dies_while_the_canary_boots() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @1000 signal HUP
            @1010 loaded workers=2
            @1050 exited 104 code 0
            @1055 exited 103 signal 9
            @1060 ready #6
            @1065 ready #5
            @1180 ready #7
            @1200 exited 102 code 0
            @1201 exited 106 code 0
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
        @1055    exited 103 signal 9
                  → error: worker 1 (pid 103) died: ended by signal 9 (KILL)
                  → fork #6 worker 1 g1
        @1055    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1060    ready #6
                  → info: worker 1 (pid 106) ready in 5 ms
        @1065    ready #5
                  → info: worker 0 (pid 105) ready in 15 ms
        @1165    tick
                  → use g2
                  → drain #2
                  → fork #7 worker 1 g2
        @1165    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @1180    ready #7
                  → info: worker 1 (pid 107) ready in 15 ms
                  → drain #6
                  → info: reloaded: generation 2 in 180 ms, workers replaced: 2
        @1200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @1201    exited 106 code 0
                  → info: worker 1 (pid 106) left: exited with code 0
                  → forget g1
        "
    );
}

#[test]
fn rollback_after_the_canary_was_proven() {
    insta::assert_snapshot!(
        served(
            "workers=2 graceful=30",
            "
            @1000 signal HUP
            @1010 loaded workers=2
            @1050 exited 104 code 0
            @1060 ready #5
            @1170 exited 106 code 1
            @1190 exited 107 code 1
            @1230 exited 108 code 1
            @1280 ready #9
            @1500 exited 102 code 0
            @1600 exited 105 code 0
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
        @1160    tick
                  → use g2
                  → drain #2
                  → fork #6 worker 1 g2
        @1160    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1170    exited 106 code 1
                  → error: worker 1 (pid 106) failed to boot: exited with code 1
                  → fork #7 worker 1 g2
        @1170    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @1190    exited 107 code 1
                  → error: worker 1 (pid 107) failed to boot: exited with code 1
                  → fork #8 worker 1 g2
        @1190    forked #8 pid 108
                  → info: Booting worker with pid: 108
        @1230    exited 108 code 1
                  → error: worker 1 (pid 108) failed to boot: exited with code 1
                  → use g1
                  → error: failed to reload: generation 2 is dropped, 1 serves on: 3 workers in a row failed, the last in slot 1 (exited with code 1)
                  → fork #9 worker 0 g1
        @1230    forked #9 pid 109
                  → info: Booting worker with pid: 109
        @1280    ready #9
                  → info: worker 0 (pid 109) ready in 50 ms
                  → drain #5
        @1500    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @1600    exited 105 code 0
                  → info: worker 0 (pid 105) left: exited with code 0
                  → forget g2
        "
    );
}

#[test]
fn the_canary_is_told_to_leave_by_hand() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal HUP
            @1010 loaded workers=1
            @1050 exited 103 code 0
            @1060 ready #4
            @1070 due #4 by hand
            @1080 exited 104 code 0
            @1095 ready #5
            @1195 tick
            @1300 exited 102 code 0
            "
        ),
        @r"
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
        @1070    due #4 by hand
                  → info: replacing worker 0 (pid 104): it was told to leave by a signal
        @1080    exited 104 code 0
                  → info: worker 0 (pid 104) left: exited with code 0
                  → fork #5 worker 0 g2
        @1080    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @1095    ready #5
                  → info: worker 0 (pid 105) ready in 15 ms
        @1195    tick
                  → use g2
                  → drain #2
                  → info: reloaded: generation 2 in 195 ms, workers replaced: 1
        @1300    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → forget g1
        "
    );
}

#[test]
fn the_only_worker_dies_while_the_canary_is_awaited() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @5000 signal HUP
            @5010 loaded workers=1
            @5020 exited 102 signal 9
            @5025 exited 103 code 0
            @5030 ready #4
            @5040 ready #5
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @5000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @5010    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #3 prepare g2
        @5010    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @5020    exited 102 signal 9
                  → error: worker 0 (pid 102) died: ended by signal 9 (KILL)
                  → fork #4 worker 0 g1
        @5020    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @5025    exited 103 code 0
        @5030    ready #4
                  → info: worker 0 (pid 104) ready in 10 ms
                  → fork #5 worker 0 g2
        @5030    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @5040    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        "
    );
}

#[test]
fn what_may_be_gone_back_to_is_not_forgotten() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @5000 signal HUP
            loaded workers=2
            @5020 exited 104 code 0
            @5030 ready #5
            @5140 exited 102 code 0
            @5150 exited 103 code 1
            @5160 exited 106 code 1
            @5170 exited 107 code 1
            @5180 exited 108 code 1
            @5250 ready #9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @5000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @5000    loaded workers=2 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #4 prepare g2
        @5000    forked #4 pid 104
                  → debug: prepare started with pid: 104
        @5020    exited 104 code 0
                  → fork #5 worker 0 g2
        @5020    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @5030    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        @5130    tick
                  → use g2
                  → drain #2
                  → fork #6 worker 1 g2
        @5130    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @5140    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @5150    exited 103 code 1
                  → error: worker 1 (pid 103) died: exited with code 1
        @5160    exited 106 code 1
                  → error: worker 1 (pid 106) failed to boot: exited with code 1
                  → fork #7 worker 1 g2
        @5160    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @5170    exited 107 code 1
                  → error: worker 1 (pid 107) failed to boot: exited with code 1
        @5173    tick
                  → fork #8 worker 1 g2
        @5173    forked #8 pid 108
                  → info: Booting worker with pid: 108
        @5180    exited 108 code 1
                  → error: worker 1 (pid 108) failed to boot: exited with code 1
                  → use g1
                  → error: failed to reload: generation 2 is dropped, 1 serves on: 3 workers in a row failed, the last in slot 1 (exited with code 1)
                  → fork #9 worker 0 g1
        @5180    forked #9 pid 109
                  → info: Booting worker with pid: 109
        @5196    tick
                  → fork #10 worker 1 g1
        @5196    forked #10 pid 110
                  → info: Booting worker with pid: 110
        @5250    ready #9
                  → info: worker 0 (pid 109) ready in 70 ms
                  → drain #5
        "
    );
}

#[test]
fn ttou_retires_the_canary() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @5000 signal HUP
            loaded workers=2
            @5020 exited 104 code 0
            @5022 exited 105 code 1
            @5023 exited 106 code 1
            @5024 signal TTOU
            @5030 exited 107 code 0
            @5040 ready #8
            @5140 tick
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @5000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @5000    loaded workers=2 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #4 prepare g2
        @5000    forked #4 pid 104
                  → debug: prepare started with pid: 104
        @5020    exited 104 code 0
                  → fork #5 worker 0 g2
        @5020    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @5022    exited 105 code 1
                  → error: worker 0 (pid 105) failed to boot: exited with code 1
                  → fork #6 worker 0 g2
        @5022    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @5023    exited 106 code 1
                  → error: worker 0 (pid 106) failed to boot: exited with code 1
                  → fork #7 worker 1 g2
        @5023    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @5024    signal TTOU
                  → info: workers: 2 -> 1
                  → drain #3
                  → send 107 INT
        @5030    exited 107 code 0
                  → info: worker 1 (pid 107) left: exited with code 0
        @5033    tick
                  → fork #8 worker 0 g2
        @5033    forked #8 pid 108
                  → info: Booting worker with pid: 108
        @5040    ready #8
                  → info: worker 0 (pid 108) ready in 7 ms
        @5140    tick
                  → use g2
                  → info: workers: 1 -> 2
                  → drain #2
                  → fork #9 worker 1 g2
        @5140    forked #9 pid 109
                  → info: Booting worker with pid: 109
        "
    );
}
