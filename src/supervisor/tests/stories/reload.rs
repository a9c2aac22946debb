//! Reloads: good ones, several at once, and one that is taken back.

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
                  → debug: prepare begun with pid: 104
        @1050    exited 104 code 0
                  → fork #5 worker 0 g2
        @1050    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @1060    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        @1160    tick
                  → use g2
                  → dismiss #2 drain
                  → fork #6 worker 1 g2
        @1160    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1172    ready #6
                  → info: worker 1 (pid 106) ready in 12 ms
                  → dismiss #3 drain
                  → info: reloaded: generation 2, 2 workers replaced in 172 ms
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
                  → debug: prepare begun with pid: 105
        @1050    exited 105 code 0
                  → fork #6 worker 0 g2
        @1050    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1060    ready #6
                  → info: worker 0 (pid 106) ready in 10 ms
        @1160    tick
                  → use g2
                  → dismiss #2 drain
                  → info: reloaded: generation 2, 1 workers replaced in 160 ms
                  → dismiss #3 drain
                  → dismiss #4 drain
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
                  → fork #3 worker 1 g1
        @900     open 2
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
                  → debug: prepare begun with pid: 104
        @1050    exited 104 code 0
                  → fork #5 worker 0 g2
        @1050    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @1060    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        @1160    tick
                  → use g2
                  → dismiss #2 drain
                  → info: reloaded: generation 2, 1 workers replaced in 160 ms
                  → dismiss #3 drain
        @1200    exited 103 code 0
                  → info: worker 1 (pid 103) left: exited with code 0
        @1201    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
                  → forget g1
        "
    );
}

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
                  → debug: prepare begun with pid: 104
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
                  → dismiss #2 drain
                  → fork #7 worker 1 g2
        @1165    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @1180    ready #7
                  → info: worker 1 (pid 107) ready in 15 ms
                  → dismiss #6 drain
                  → info: reloaded: generation 2, 2 workers replaced in 180 ms
        @1200    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @1201    exited 106 code 0
                  → info: worker 1 (pid 106) left: exited with code 0
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
                  → debug: prepare begun with pid: 103
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
                  → dismiss #2 drain
                  → info: reloaded: generation 2, 1 workers replaced in 160 ms
                  → info: reloading: generation 3
                  → load g3
        @1170    loaded error nothing new
                  → error: failed to reload: generation 3 is dropped, 2 serves on: nothing new
        "
    );
}
