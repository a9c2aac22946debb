//! Commands of the control socket: the answer, and the fact after which it comes.

use super::served;

/// The facts behind which answers come, and the answers.
fn answers(settings: &str, script: &str) -> Vec<String> {
    let text = served(settings, script);
    let mut fact = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        match line.trim().strip_prefix("→ answer ") {
            Some(answer) => found.push(format!("{fact} → {answer}")),
            None if line.starts_with('@') => {
                fact = line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
            }
            None => {}
        }
    }
    found
}

#[test]
fn reload_is_answered_when_every_worker_is_replaced() {
    let script = "
        @1000 command 7 reload
        @1010 loaded workers=2
        @1050 exited 104 code 0
        @1060 ready #5
        @1172 ready #6
    ";
    assert_eq!(answers("workers=2", script), ["ready #6 → 7 done"]);
}

#[test]
fn reload_that_fails_is_answered_with_the_reason() {
    let refused = "
        @1000 command 7 reload
        @1010 loaded error config.toml: line 3
    ";
    assert_eq!(
        answers("workers=1", refused),
        ["loaded error config.toml: line 3 → 7 failed: config.toml: line 3"]
    );
    let unprepared = "
        @1000 command 7 reload
        @1010 loaded workers=1
        @1050 exited 103 code 4
    ";
    assert_eq!(
        answers("workers=1", unprepared),
        ["exited 103 code 4 → 7 failed: prepare exited with code 4"]
    );
}

#[test]
fn reload_asked_for_during_another_waits_for_the_next() {
    let script = "
        @1000 command 7 reload
        @1001 command 8 reload
        @1002 command 9 reload
        @1005 abandoned 9
        @1010 loaded error first
        @1020 loaded error second
    ";
    assert_eq!(
        answers("workers=1", script),
        ["loaded error first → 7 failed: first", "loaded error second → 8 failed: second"]
    );
}

#[test]
fn stop_ends_other_commands_and_is_never_answered() {
    let script = "
        @1000 command 7 reload
        @1001 command 8 stop
        @1002 command 9 restart
        @1010 exited 102 code 0
    ";
    assert_eq!(
        answers("workers=1", script),
        [
            "command 8 stop → 7 failed: the server is stopping",
            "command 9 restart → 9 failed: the server is stopping"
        ]
    );
}

#[test]
fn restart_replaces_the_slots_in_turn() {
    let script = "
        @1000 command 7 restart
        @1100 ready #4
        @1200 exited 102 code 0
        @1300 ready #5
    ";
    assert_eq!(answers("workers=2", script), ["ready #5 → 7 done"]);
    let one = "
        @1000 command 7 restart 1
        @1100 ready #4
        command 8 restart 0 2
    ";
    assert_eq!(
        answers("workers=2", one),
        [
            "ready #4 → 7 done",
            "command 8 restart 0 2 → 8 failed: slot 2 has no worker; expected one of 0 to 1"
        ]
    );
}

#[test]
fn restart_gives_up_and_keeps_the_worker_that_serves() {
    let script = "
        @1000 command 7 restart 0
        @1010 exited 103 code 1
        @1500 exited 104 code 1
        @2500 exited 105 code 1
        @9000 tick
    ";
    let text = served("workers=1", script);
    assert!(
        text.contains(
            "answer 7 failed: workers of slot 0 cannot live: 3 early deaths in a row, the last \
             exited with code 1"
        ),
        "{text}"
    );
    let after = text.split("answer 7 failed").nth(1).expect("it was answered");
    assert!(!after.contains("fork "), "the old worker serves on: {after}");
}

#[test]
fn worker_that_a_failed_restart_keeps_is_watched_again() {
    let script = "
        @900 command 7 restart 0
        @910 exited 103 code 1
        @1500 exited 104 code 1
        @2500 exited 105 code 1
    ";
    let text = served("workers=1 memory=100", script);
    let (_, after) = text.split_once("exited 105 code 1").expect("it is told");
    let orders = after.split("\n@").next().unwrap_or_default();
    assert!(orders.contains("answer 7 failed") && orders.contains("read memory #2"), "{text}");
}

#[test]
fn scale_is_answered_when_so_many_serve() {
    let script = "
        @1000 command 7 scale 3
        @1010 ready #3
        @1020 ready #4
        @1030 command 8 scale -1
        command 9 scale 0
        command 10 scale -2
        @1040 command 11 scale +2
        @1050 command 12 scale 1
    ";
    assert_eq!(
        answers("workers=1", script),
        [
            "ready #4 → 7 done",
            "command 8 scale -1 → 8 done",
            "command 9 scale 0 → 9 failed: expected 1 to 256 workers; their number stays 2",
            "command 10 scale -2 → 10 failed: expected 1 to 256 workers; their number stays 2",
            "command 12 scale 1 → 11 failed: the number of workers has become 1",
            "command 12 scale 1 → 12 done"
        ]
    );
    assert_eq!(
        answers("workers=1 most=1", "@1000 command 7 scale 2"),
        ["command 7 scale 2 → 7 failed: expected 1 to 1 workers; their number stays 1"]
    );
    let limited = "
        no more slots can be opened
        @1000 command 7 scale 3
    ";
    assert_eq!(
        answers("workers=1", limited),
        ["open 1 → 7 failed: the number of workers has become 1"]
    );
}

#[test]
fn upgrade_is_answered_by_the_reload_of_the_new_image() {
    let check = "
        @1000 command 7 upgrade
        @1001 command 8 upgrade
        @1010 ready #3
        @1020 exited 103 code 0
    ";
    assert_eq!(
        answers("workers=1", check),
        ["command 8 upgrade → 8 failed: an upgrade is under way"]
    );
    let taken_over = format!(
        "{check}
        @1030 upgraded
        @1040 loaded workers=1
        @1050 exited 104 code 0
        @1060 ready #5
        @1200 tick
        "
    );
    assert_eq!(answers("workers=1", &taken_over).last().expect("two"), "tick → 7 done");
    let unloaded = format!(
        "{check}
        @1030 upgraded
        @1040 loaded error x
        "
    );
    assert_eq!(
        answers("workers=1", &unloaded).last().expect("two"),
        "loaded error x → 7 failed: the new binary runs, but has not reloaded: x"
    );
    let refused = "
        @1000 command 7 upgrade
        @1010 exited 103 code 64
    ";
    assert_eq!(
        answers("workers=1", refused),
        ["exited 103 code 64 → 7 failed: the new binary's check exited with code 64"]
    );
}

#[test]
fn reopen_is_answered_when_the_logger_has_done_it() {
    let script = "
        @1000 command 7 reopen
        @1010 reopened true
        @1020 command 8 reopen
        @1030 reopened false
    ";
    assert_eq!(
        answers("workers=1", script),
        [
            "reopened true → 7 done",
            "reopened false → 8 failed: a log file cannot be opened; the error log names it"
        ]
    );
}

#[test]
fn commands_that_wait_are_bounded() {
    let many: String = (0..70).map(|id| format!("command {id} reload\n")).collect();
    let found = answers("workers=1", &many);
    assert_eq!(found.len(), 6);
    assert_eq!(found[5], "command 69 reload → 69 failed: too many commands are under way");
}
