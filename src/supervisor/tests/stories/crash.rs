//! Workers that die, and strangers that do.

use super::served;

#[test]
fn worker_killed() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @90000 exited 102 signal 9
            @90015 ready #4
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @90000   exited 102 signal 9
                  → error: worker 0 (pid 102) died: ended by signal 9 (KILL)
                  → fork #4 worker 0 g1
        @90000   forked #4 pid 104
                  → info: Booting worker with pid: 104
        @90015   ready #4
                  → info: worker 0 (pid 104) ready in 15 ms
        "
    );
}

#[test]
fn worker_dies_early_once() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @900 exited 102 signal 11 core
            @915 ready #3
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @900     exited 102 signal 11 core
                  → error: worker 0 (pid 102) died: ended by signal 11 (SEGV), core dumped
                  → fork #3 worker 0 g1
        @900     forked #3 pid 103
                  → info: Booting worker with pid: 103
        @915     ready #3
                  → info: worker 0 (pid 103) ready in 15 ms
        "
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn crash_loop_and_back_off() {
    insta::assert_snapshot!(
        served(
            "workers=2",
            "
            @100 exited 103 code 1
            @110 exited 104 code 1
            @130 exited 105 code 1
            @160 exited 106 code 1
            @220 exited 107 code 1
            @400 exited 108 code 1
            @900 exited 109 code 1
            @2000 exited 110 code 1
            @4000 exited 111 code 1
            @7000 exited 112 code 1
            @10000 exited 113 code 1
            @61000 ready #14
            @66000 exited 114 signal 7
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       #3 is worker 1 with pid 103
        @100     exited 103 code 1
                  → error: worker 1 (pid 103) died: exited with code 1
                  → fork #4 worker 1 g1
        @100     forked #4 pid 104
                  → info: Booting worker with pid: 104
        @110     exited 104 code 1
                  → error: worker 1 (pid 104) failed to boot: exited with code 1
        @112     tick
                  → fork #5 worker 1 g1
        @112     forked #5 pid 105
                  → info: Booting worker with pid: 105
        @130     exited 105 code 1
                  → error: worker 1 (pid 105) failed to boot: exited with code 1
        @132     tick
                  → fork #6 worker 1 g1
        @132     forked #6 pid 106
                  → info: Booting worker with pid: 106
        @160     exited 106 code 1
                  → error: worker 1 (pid 106) failed to boot: exited with code 1
        @178     tick
                  → fork #7 worker 1 g1
        @178     forked #7 pid 107
                  → info: Booting worker with pid: 107
        @220     exited 107 code 1
                  → error: worker 1 (pid 107) failed to boot: exited with code 1
        @283     tick
                  → fork #8 worker 1 g1
        @283     forked #8 pid 108
                  → info: Booting worker with pid: 108
        @400     exited 108 code 1
                  → debug: worker 1 (pid 108) failed to boot: exited with code 1
        @471     tick
                  → fork #9 worker 1 g1
        @471     forked #9 pid 109
                  → info: Booting worker with pid: 109
        @900     exited 109 code 1
                  → debug: worker 1 (pid 109) failed to boot: exited with code 1
                  → fork #10 worker 1 g1
        @900     forked #10 pid 110
                  → info: Booting worker with pid: 110
        @2000    exited 110 code 1
                  → debug: worker 1 (pid 110) failed to boot: exited with code 1
                  → fork #11 worker 1 g1
        @2000    forked #11 pid 111
                  → info: Booting worker with pid: 111
        @4000    exited 111 code 1
                  → debug: worker 1 (pid 111) failed to boot: exited with code 1
                  → fork #12 worker 1 g1
        @4000    forked #12 pid 112
                  → info: Booting worker with pid: 112
        @7000    exited 112 code 1
                  → debug: worker 1 (pid 112) failed to boot: exited with code 1
                  → fork #13 worker 1 g1
        @7000    forked #13 pid 113
                  → info: Booting worker with pid: 113
        @10000   exited 113 code 1
                  → debug: worker 1 (pid 113) failed to boot: exited with code 1
                  → fork #14 worker 1 g1
        @10000   forked #14 pid 114
                  → info: Booting worker with pid: 114
        @60220   tick
                  → error: workers of slots {1} cannot live (11 early deaths in a row, the last exited with code 1); still trying
        @61000   ready #14
                  → info: worker 1 (pid 114) ready in 51000 ms
        @66000   exited 114 signal 7
                  → error: worker 1 (pid 114) died: ended by signal 7 (BUS)
                  → fork #15 worker 1 g1
        @66000   forked #15 pid 115
                  → info: Booting worker with pid: 115
        "
    );
}

#[test]
fn a_strangers_pid() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @50 exited 4711 code 3
            @60 exited 4712 signal 9
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @50      exited 4711 code 3
        @60      exited 4712 signal 9
        "
    );
}

#[test]
fn memory_of_a_crash_loop_ends_with_a_healthy_life() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            @100 exited 102 code 1
            @110 exited 103 code 1
            @130 ready #4
            @2130 tick
            @2131 exited 104 code 1
            @2132 exited 105 code 1
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
        @130     ready #4
                  → info: worker 0 (pid 104) ready in 19 ms
        @2131    exited 104 code 1
                  → error: worker 0 (pid 104) died: exited with code 1
                  → fork #5 worker 0 g1
        @2131    forked #5 pid 105
                  → info: Booting worker with pid: 105
        @2132    exited 105 code 1
                  → error: worker 0 (pid 105) failed to boot: exited with code 1
                  → fork #6 worker 0 g1
        @2132    forked #6 pid 106
                  → info: Booting worker with pid: 106
        "
    );
}

#[test]
fn the_successors_fork_is_refused() {
    insta::assert_snapshot!(
        served(
            "workers=1",
            "
            the kernel refuses to fork
            @90000 exited 102 signal 9
            @90300 the kernel forks again
            @90765 ready #5
            "
        ),
        @r"
        @0       #2 is worker 0 with pid 102
        @0       the kernel refuses to fork
        @90000   exited 102 signal 9
                  → error: worker 0 (pid 102) died: ended by signal 9 (KILL)
                  → fork #3 worker 0 g1
        @90000   unforked #3 resource temporarily unavailable
                  → error: failed to fork worker 0: resource temporarily unavailable; trying again
        @90250   tick
                  → fork #4 worker 0 g1
        @90250   unforked #4 resource temporarily unavailable
                  → debug: failed to fork worker 0: resource temporarily unavailable; trying again
        @90300   the kernel forks again
        @90750   tick
                  → fork #5 worker 0 g1
        @90750   forked #5 pid 105
                  → info: Booting worker with pid: 105
        @90765   ready #5
                  → info: worker 0 (pid 105) ready in 15 ms
        "
    );
}

/// The first hundred killings of a slot's ready workers cost nothing; then they are early deaths like
/// others, but for one in each second.
#[test]
fn killings_without_end_are_braked() {
    let killed = |child: u32| {
        let now = 1000 + child * 5;
        let pid = 100 + child;
        let next = child + 1;
        format!("@{now} exited {pid} signal 9\n@{} ready #{next}\n", now + 5)
    };
    let text = served("workers=1", &(2..110).map(killed).collect::<String>());
    let forked_at = |child: u32| {
        let forked = format!("forked #{child} pid {}", 100 + child);
        let line = text.lines().find(|line| line.ends_with(&forked))?;
        line.split(' ').next()
    };
    assert_eq!([3, 102].map(forked_at), [Some("@1010"), Some("@1505")]);
    // The first early death says nothing yet; then the back-off begins.
    assert_eq!([103, 104].map(forked_at), [Some("@1510"), Some("@1523")]);
    assert_eq!(forked_at(110), None, "{text}");
}
