//! Six bad releases: none of them may cost a worker that serves.

use super::served;

#[test]
fn invalid_file() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal HUP
            @1010 loaded error config.toml:3: workers: expected 1 to 256, found 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded error config.toml:3: workers: expected 1 to 256, found 0
                  → error: failed to reload: generation 2 is dropped, 1 serves on: config.toml:3: workers: expected 1 to 256, found 0
        "
    );
}

#[test]
fn prepare_fails() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal HUP
            @1010 loaded workers=1
            @1300 exited 103 code 1
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
        @1300    exited 103 code 1
                  → error: failed to reload: generation 2 is dropped, 1 serves on: prepare exited with code 1
                  → forget g2
        "
    );
}

#[test]
fn prepare_hangs() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal HUP
            @1010 loaded workers=1 boot=5
            @6015 exited 103 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=1 graceful=30 boot=5 stall=0 lifetime=0 memory=0
                  → fork #3 prepare g2
        @1010    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @6010    tick
                  → error: killing prepare (pid 103): not ready within boot_timeout
                  → send 103 KILL
        @6015    exited 103 signal 9
                  → error: failed to reload: generation 2 is dropped, 1 serves on: prepare ended by signal 9 (KILL)
                  → forget g2
        "
    );
}

#[test]
fn worker_hangs_at_boot() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @1000 signal HUP
            @1010 loaded workers=2 boot=5
            @1050 exited 104 code 0
            @6055 exited 105 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=2 graceful=30 boot=5 stall=0 lifetime=0 memory=0
                  → fork #4 prepare g2
        @1010    forked #4 pid 104
                  → debug: prepare started with pid: 104
        @1050    exited 104 code 0
                  → fork #5 worker 0 g2
        @1050    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @6050    tick
                  → error: killing worker 0 (pid 105): not ready within boot_timeout
                  → send 105 KILL
                  → error: failed to reload: generation 2 is dropped, 1 serves on: worker 0 was not ready in time (killed)
        @6055    exited 105 signal 9
                  → error: worker 0 (pid 105) failed to boot: ended by signal 9 (KILL)
                  → forget g2
        "
    );
}

#[test]
fn worker_panics_at_once_after_ready() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @1000 signal HUP
            @1010 loaded workers=2
            @1050 exited 104 code 0
            @1060 ready #5
            @1070 exited 105 code 101
            @1080 ready #6
            @1090 exited 106 code 101
            @1110 ready #7
            @1120 exited 107 code 101
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
        @1070    exited 105 code 101
                  → error: worker 0 (pid 105) died: exited with code 101
                  → fork #6 worker 0 g2
        @1070    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1080    ready #6
                  → info: worker 0 (pid 106) ready in 10 ms
        @1090    exited 106 code 101
                  → error: worker 0 (pid 106) died: exited with code 101
                  → fork #7 worker 0 g2
        @1090    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @1110    ready #7
                  → info: worker 0 (pid 107) ready in 20 ms
        @1120    exited 107 code 101
                  → error: worker 0 (pid 107) died: exited with code 101
                  → error: failed to reload: generation 2 is dropped, 1 serves on: 3 workers in a row failed, the last in slot 0 (exited with code 101)
                  → forget g2
        "
    );
}

#[test]
fn broken_binary() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal USR2
            @1040 exited 103 code 127
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal USR2
                  → fork #3 the new binary's check g1
        @1000    forked #3 pid 103
                  → debug: the new binary's check started with pid: 103
        @1040    exited 103 code 127
                  → error: failed to upgrade: the new binary's check exited with code 127; nothing has changed
        "
    );
}

#[test]
fn worker_exits_at_boot() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @1000 signal HUP
            @1010 loaded workers=2
            @1050 exited 104 code 0
            @1060 exited 105 code 1
            @1070 exited 106 code 1
            @1090 exited 107 code 1
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
        @1060    exited 105 code 1
                  → error: worker 0 (pid 105) failed to boot: exited with code 1
                  → fork #6 worker 0 g2
        @1060    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1070    exited 106 code 1
                  → error: worker 0 (pid 106) failed to boot: exited with code 1
                  → fork #7 worker 1 g2
        @1070    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @1090    exited 107 code 1
                  → error: worker 1 (pid 107) failed to boot: exited with code 1
                  → error: failed to reload: generation 2 is dropped, 1 serves on: 3 workers in a row failed, the last in slot 1 (exited with code 1)
                  → forget g2
        "
    );
}

#[test]
fn worker_panics_at_once_after_ready_in_a_vacant_slot() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @1000 signal HUP
            @1010 loaded workers=2
            @1050 exited 104 code 0
            @1055 exited 102 signal 7
            @1060 ready #5
            @1070 exited 105 code 101
            @1080 ready #6
            @1090 exited 106 code 101
            @1110 ready #7
            @1120 exited 107 code 101
            @1130 ready #8
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
        @1055    exited 102 signal 7
                  → error: worker 0 (pid 102) died: ended by signal 7 (BUS)
        @1060    ready #5
                  → info: worker 0 (pid 105) ready in 10 ms
        @1070    exited 105 code 101
                  → error: worker 0 (pid 105) died: exited with code 101
                  → fork #6 worker 0 g1
                  → fork #7 worker 1 g2
        @1070    forked #6 pid 106
                  → info: Booting worker with pid: 106
        @1070    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @1080    ready #6
                  → info: worker 0 (pid 106) ready in 10 ms
        @1090    exited 106 code 101
                  → error: worker 0 (pid 106) died: exited with code 101
        @1096    tick
                  → fork #8 worker 0 g1
        @1096    forked #8 pid 108
                  → info: Booting worker with pid: 108
        @1110    ready #7
                  → info: worker 1 (pid 107) ready in 40 ms
        @1120    exited 107 code 101
                  → error: worker 1 (pid 107) died: exited with code 101
                  → fork #9 worker 1 g2
        @1120    forked #9 pid 109
                  → info: Booting worker with pid: 109
        @1130    ready #8
                  → info: worker 0 (pid 108) ready in 34 ms
        "
    );
}

#[test]
fn worker_hangs_at_boot_after_the_first_was_proven() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @1000 signal HUP
            @1010 loaded workers=2 boot=5
            @1050 exited 104 code 0
            @1060 ready #5
            @6165 exited 106 signal 9
            @6180 ready #7
            @6190 exited 102 code 0
            @6200 exited 105 code 0
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1010    loaded workers=2 graceful=30 boot=5 stall=0 lifetime=0 memory=0
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
        @6160    tick
                  → error: killing worker 1 (pid 106): not ready within boot_timeout
                  → send 106 KILL
                  → use g1
                  → error: failed to reload: generation 2 is dropped, 1 serves on: worker 1 was not ready in time (killed)
                  → fork #7 worker 0 g1
        @6160    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @6165    exited 106 signal 9
                  → error: worker 1 (pid 106) failed to boot: ended by signal 9 (KILL)
        @6180    ready #7
                  → info: worker 0 (pid 107) ready in 20 ms
                  → drain #5
        @6190    exited 102 code 0
                  → info: worker 0 (pid 102) left: exited with code 0
        @6200    exited 105 code 0
                  → info: worker 0 (pid 105) left: exited with code 0
                  → forget g2
        "
    );
}

#[test]
fn a_sleep_is_no_trial() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @1000 signal HUP
            loaded workers=1
            @1050 exited 103 code 0
            @1060 ready #4
            @5000 the machine was asleep
            tick
            @5040 exited 104 code 101
            @5041 ready #5
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @1000    signal HUP
                  → info: reloading: generation 2
                  → load g2
        @1000    loaded workers=1 graceful=30 boot=60 stall=0 lifetime=0 memory=0
                  → fork #3 prepare g2
        @1000    forked #3 pid 103
                  → debug: prepare started with pid: 103
        @1050    exited 103 code 0
                  → fork #4 worker 0 g2
        @1050    forked #4 pid 104
                  → info: Booting worker with pid: 104
        @1060    ready #4
                  → info: worker 0 (pid 104) ready in 10 ms
        @5000    the machine was asleep
        @5040    exited 104 code 101
                  → error: worker 0 (pid 104) died: exited with code 101
                  → fork #5 worker 0 g2
        @5040    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @5041    ready #5
                  → info: worker 0 (pid 105) ready in 1 ms
        "
    );
}

#[test]
fn worker_panics_soon_after_it_was_proven() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @1000 signal HUP
            @1010 loaded workers=2
            @1050 exited 104 code 0
            @1060 ready #5
            @1210 exited 105 code 101
            @1230 ready #7
            @1280 exited 107 code 101
            @1300 ready #8
            @1350 exited 108 code 101
            @1400 ready #9
            @1450 ready #10
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
        @1210    exited 105 code 101
                  → error: worker 0 (pid 105) died: exited with code 101
                  → fork #7 worker 0 g2
        @1210    forked #7 pid 107
                  → info: Booting worker with pid: 107
        @1230    ready #7
                  → info: worker 0 (pid 107) ready in 20 ms
        @1280    exited 107 code 101
                  → error: worker 0 (pid 107) died: exited with code 101
                  → fork #8 worker 0 g2
        @1280    forked #8 pid 108
                  → info: Booting worker with pid: 108
        @1300    ready #8
                  → info: worker 0 (pid 108) ready in 20 ms
        @1350    exited 108 code 101
                  → error: worker 0 (pid 108) died: exited with code 101
                  → use g1
                  → error: failed to reload: generation 2 is dropped, 1 serves on: 3 workers in a row failed, the last in slot 0 (exited with code 101)
                  → send 106 INT
                  → fork #9 worker 0 g1
        @1350    forked #9 pid 109
                  → info: Booting worker with pid: 109
        @1400    ready #9
                  → info: worker 0 (pid 109) ready in 50 ms
        @1450    ready #10
        "
    );
}
