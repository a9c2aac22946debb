//! The machine in virtual time: its table, laws over seeded schedules, and single rules.

mod laws;
mod table;
mod world;

use std::time::Duration;

use super::*;
use crate::worker::connection::timeouts::Timeouts;

/// Distinct times, so that each can be told from the others.
const TIMEOUTS: Timeouts =
    Timeouts { head: Some(10_000), answer: Some(120_000), body: Some(30_000), idle: Some(75_000) };
const ROOM: HeadRoom = HeadRoom { line: 4096, head: 8192 };

fn idle() -> Machine {
    let mut machine = Machine::connection(0);
    machine.begun(0);
    machine.answered(Some(0), 0);
    machine
}

/// The time of the decision of a machine that nothing happens to any more, and the decision.
fn deadline(machine: &mut Machine, timeouts: &Timeouts) -> Option<(u64, CloseReason)> {
    machine.reason = None;
    let (at, _) = machine.deadlines(timeouts).into_iter().flatten().min_by_key(|(at, _)| *at)?;
    if let Some(before) = at.checked_sub(1) {
        assert!(!machine.tick(timeouts, before), "{machine:?} ends before {at}");
    }
    assert!(machine.tick(timeouts, at), "{machine:?} does not end at {at}");
    assert!(!machine.tick(timeouts, at), "no task is woken twice for one reason");
    Some((at, machine.reason().expect("it has a reason")))
}

#[test]
fn each_wait_has_the_time_of_its_setting() {
    let mut machine = Machine::connection(5);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((10_005, CloseReason::Head)));
    machine.handshake();
    assert_eq!(machine.since(), 5, "a handshake has the time of the connection");
    machine.handshaken(8);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((10_008, CloseReason::Head)));
    machine.begun(10);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((120_010, CloseReason::Answer)));
    machine.body_awaited(20);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((30_020, CloseReason::Body)));
    machine.blocked(true, 30);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((30_020, CloseReason::Body)));
    machine.body_read(1, 40);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((30_030, CloseReason::Reader)));
    machine.blocked(false, 50);
    machine.answered(Some(0), 60);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((1060, CloseReason::Park)));
    machine.parked();
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((75_060, CloseReason::Idle)));
    machine.lingers(70);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((2070, CloseReason::Silence)));
    machine.upgraded(80);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), None);
}

#[test]
fn setting_of_zero_has_no_end() {
    let endless = Timeouts { head: None, answer: None, body: None, idle: None };
    let mut machine = Machine::connection(0);
    machine.blocked(true, 0);
    assert_eq!(deadline(&mut machine, &endless), None);
    machine.begun(0);
    assert_eq!(deadline(&mut machine, &endless), None);
    machine.body_awaited(0);
    assert_eq!(deadline(&mut machine, &endless), None);
    assert_eq!(endless.shortest(), None);
    assert_eq!(TIMEOUTS.shortest(), Some(10_000));
}

#[test]
fn reason_that_comes_too_late_is_forgotten() {
    let mut machine = Machine::connection(0);
    assert!(machine.close(CloseReason::Head));
    machine.begun(1);
    assert_eq!(machine.reason(), None, "the head has come after all");
    assert!(machine.close(CloseReason::Head));
    assert!(machine.close(CloseReason::Answer), "one for something that is over gives way");
    assert!(!machine.close(CloseReason::Answer));
}

#[test]
fn extension_that_outlives_its_request_gives_nothing_to_the_next() {
    let mut machine = Machine::connection(0);
    let first = machine.begun(0);
    machine.extended(first, 1000);
    machine.extended(first, 1000);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((122_000, CloseReason::Answer)));
    machine.answered(Some(0), 0);
    let second = machine.begun(0);
    machine.extended(first, 1000);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((120_000, CloseReason::Answer)));
    machine.extended(second, 1000);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((121_000, CloseReason::Answer)));
}

#[test]
fn body_that_makes_progress_has_no_end() {
    let mut machine = Machine::connection(0);
    machine.begun(0);
    let mut now = 0;
    for _ in 0..100_000 {
        machine.body_awaited(now);
        now += 1000;
        assert!(!machine.tick(&TIMEOUTS, now));
        machine.body_read(64, now);
    }
    machine.body_awaited(now);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((now + 30_000, CloseReason::Body)));
    assert_eq!(machine.body_waited(0, now + 7), Duration::from_millis(now + 7));
}

#[test]
fn body_that_drips_has_the_time_of_a_handler() {
    let mut machine = Machine::connection(0);
    machine.begun(0);
    let mut now = 0;
    while machine.reason().is_none() {
        machine.body_awaited(now);
        now += 1000;
        if !machine.tick(&TIMEOUTS, now) {
            machine.body_read(1, now);
        }
    }
    assert!((120_000..130_000).contains(&now), "{now}");
    assert_eq!(machine.reason(), Some(CloseReason::Body));
}

#[test]
fn client_that_has_finished_has_five_seconds_more() {
    let mut machine = Machine::connection(0);
    machine.begun(0);
    machine.finished(10);
    machine.finished(20);
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((5010, CloseReason::Finished)));
    machine.blocked(true, 30);
    machine.blocked(false, 1000);
    assert_eq!(machine.deadlines(&TIMEOUTS)[1], Some((6000, CloseReason::Finished)), "it reads");
    machine.answered(Some(0), 2000);
    machine.parked();
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((77_000, CloseReason::Idle)));
}

#[test]
fn parked_connection_says_so_until_it_is_served_again() {
    let mut machine = idle();
    machine.tick(&TIMEOUTS, 1000);
    assert_eq!(machine.on_nothing_read(false), Decision::Park);
    machine.parked();
    assert!(machine.is_parked());
    machine.unparked();
    assert_eq!((machine.is_parked(), machine.reason(), machine.since()), (false, None, 0));
    assert_eq!(machine.read(b"G", ROOM, 2000), Ok(Some(0)));
    machine.parked();
    assert!(!machine.is_parked() && !machine.park(), "a connection with a request is not parked");
    let mut machine = Machine::connection(3000);
    assert!(!machine.park(), "a first request may be on its way");
    machine.handed_over(2000);
    assert!(machine.park() && machine.park(), "one that could not be handed over tries again");
    machine.parked();
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((77_000, CloseReason::Idle)));
}

/// A task of the application may read on behind the response: hyper, begun anew, would take the rest of the
/// body for a request.
#[test]
fn connection_is_not_parked_before_its_last_body_has_come() {
    let post = b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n123";
    let chunks = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
    for (request, body) in [(&post[..], Some(5)), (&chunks[..], None)] {
        for is_read in [true, false] {
            let mut machine = Machine::connection(0);
            assert_eq!(machine.read(request, ROOM, 0), Ok(Some(0)));
            machine.begun(0);
            machine.body_opened();
            if !is_read {
                machine.body_dropped();
            }
            machine.answered(body, 0);
            let idle = Some((75_000, CloseReason::Idle));
            assert_eq!(deadline(&mut machine, &TIMEOUTS), idle, "{body:?} {is_read}");
            machine.parked();
            assert!(!machine.is_parked());
        }
    }
}

/// Its first half is in hyper's buffer: hyper, begun anew, would take the second half for a request.
#[test]
fn half_a_head_behind_a_pipelined_body_is_not_parked() {
    let mut machine = Machine::connection(0);
    let stream = b"GET / HTTP/1.1\r\n\r\nPUT / HTTP/1.1\r\ncontent-length: 5\r\n\r\na\r\n\r\nGE";
    assert_eq!(machine.read(stream, ROOM, 0), Ok(Some(0)));
    for body in [0, 5] {
        machine.begun(0);
        machine.answered(Some(body), 0);
    }
    assert_eq!(machine.wait(), Wait::Next, "the empty line may be the end of a head");
    assert_eq!(deadline(&mut machine, &TIMEOUTS), Some((75_000, CloseReason::Idle)));
    machine.parked();
    assert!(!machine.is_parked());
}

/// The end of the last stream takes the reason back; the flood was one all the same.
#[test]
fn flood_of_resets_outlives_its_last_stream() {
    let mut machine = Machine::connection(0);
    machine.multiplexed(0);
    machine.stream_begun(0);
    let resets = (0..).take_while(|_| machine.streams().unwrap().note_reset(0)).count();
    assert_eq!(resets, 200);
    machine.close(CloseReason::Abuse);
    machine.stream_ended(0);
    assert_eq!((machine.reason(), machine.streams().unwrap().is_abused), (None, true));
}
