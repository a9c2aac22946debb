//! One connection in virtual time, from a seed: a client that sends its requests in pieces or drop by drop,
//! stops, finishes sending (FIN) or reads slowly, a handler, the sweep and a drain. The world knows the truth
//! about each byte, which the machine must find out.

use super::laws::Law;
use super::{CloseReason, Decision, Machine, ROOM, Refusal, Timeouts};
use crate::supervisor::tests::world::dice::Dice;
use crate::worker::connection::timeouts::BODY_RATE;

pub(super) const TIMEOUTS: Timeouts =
    Timeouts { head: Some(3000), answer: Some(8000), body: Some(4000), idle: Some(6000) };
/// From one sweep to the next, and the longest time between two looks of the connection's task.
const SWEEP: u64 = 250;
const STEP: u64 = 250;
/// So much later than a deadline the connection ends at the latest.
const SLACK: u64 = SWEEP + STEP;
/// Milliseconds that each byte of a body pays for at the most.
const PAID: u64 = 1000 / BODY_RATE + 1;
const IDLE_GRACE: u64 = 2000;
/// A drain ends requests that have come in by half after this time.
const DRAIN: u64 = 9000;
/// The time by which every connection has ended whose client does not send for ever.
const END: u64 = 90_000;

/// A fault of the world's own, by which a law is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// The sweep does not look.
    NoSweep,
    /// The sweep's clock is ahead by so much.
    ClockAhead(u64),
    /// The machine is not told of the bytes of unfinished heads.
    BytesForgotten,
    /// The machine is not told of bytes behind the request in hand.
    FollowersForgotten,
    /// The machine is not told of bodies that nothing reads.
    UnreadForgotten,
    /// The machine forgets that the connection's task was woken.
    WakesForgotten,
    /// The machine is not told that the client has finished sending.
    FinishForgotten,
    /// The machine takes each byte of a body for so many.
    BytesMultiplied(u64),
}

/// A request in the client's stream: where its head begins and ends, and where its body ends.
#[derive(Clone, Copy, Debug)]
struct Planned {
    start: usize,
    /// When its first byte came in.
    begun_at: Option<u64>,
    head_end: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    /// The handler works for so long still.
    Handling {
        work: u64,
    },
    /// So many pieces of the response are left.
    Writing {
        pieces: u64,
    },
    Closed,
}

pub(super) struct World {
    dice: Dice,
    sabotage: Option<Sabotage>,
    machine: Machine,
    now: u64,
    swept_at: u64,
    stream: Vec<u8>,
    requests: Vec<Planned>,
    /// The request in hand, or the next one.
    current: usize,
    /// Bytes that the client sends before it stops.
    sends: usize,
    pipelines: bool,
    /// True if its bodies come a byte at a time, seldom.
    drips: bool,
    /// True if the client finishes sending behind its last byte.
    finishes: bool,
    /// When the machine should have known that, later by the client's reading on.
    finished_at: Option<u64>,
    /// The chance that a blocked client goes on not to read, in a hundred.
    stalls: u64,
    sent: usize,
    passed: usize,
    stage: Stage,
    /// When the state of the machine should have begun, as the world knows it.
    answered_at: u64,
    body_at: u64,
    awaits_body: bool,
    /// Since when the handler waits for its body, for how long it had in all before, and the bytes that came.
    awaited_at: u64,
    body_waited: u64,
    body_bytes: u64,
    reads_body: bool,
    /// The time that the handler has taken by itself.
    worked: u64,
    blocked_at: Option<u64>,
    drain_at: u64,
    is_drained: bool,
    is_last: bool,
    pub(super) broken: Vec<(Law, u64)>,
}

impl World {
    pub(super) fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut dice = Dice::new(seed);
        let mut stream = Vec::new();
        let mut requests = Vec::new();
        let pipelines = dice.percent(40);
        for number in 0..dice.between(1, 4) {
            let start = stream.len();
            let body = if dice.percent(40) { dice.between(1, 90) } else { 0 };
            let head = if body > 0 {
                format!("POST /{number} HTTP/1.1\r\ncontent-length: {body}\r\n\r\n")
            } else {
                format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n")
            };
            stream.extend(head.as_bytes());
            let head_end = stream.len();
            // A body may look like the end of a head. Among pipelined ones that hides a half head behind.
            let pieces = [b"abcde", b"a\r\n\r\n", b"\n\n\n\n\n"];
            let piece = if pipelines { pieces[0] } else { dice.pick(&pieces) };
            stream.extend(piece.iter().cycle().take(usize::try_from(body).unwrap()));
            requests.push(Planned { start, begun_at: None, head_end, end: stream.len() });
        }
        let all = stream.len();
        let stops = dice.percent(50);
        let sends = if stops { below(&mut dice, all + 1) } else { all };
        let drain_at = if dice.percent(50) { dice.below(20_000) } else { u64::MAX / 2 };
        let drips = dice.percent(15);
        let finishes = dice.percent(30);
        Self {
            sabotage,
            machine: Machine::connection(0),
            now: 0,
            swept_at: 0,
            stream,
            requests,
            current: 0,
            sends,
            pipelines,
            drips,
            finishes,
            finished_at: None,
            stalls: if dice.percent(20) { 99 } else { 60 },
            sent: 0,
            passed: 0,
            stage: Stage::Reading,
            answered_at: 0,
            body_at: 0,
            awaits_body: false,
            awaited_at: 0,
            body_waited: 0,
            body_bytes: 0,
            reads_body: true,
            worked: 0,
            blocked_at: None,
            drain_at,
            is_drained: false,
            is_last: false,
            broken: Vec::new(),
            dice,
        }
    }

    /// Lives until the connection ends.
    pub(super) fn run(mut self) -> Self {
        while self.stage != Stage::Closed && self.now < END {
            self.step();
        }
        self.hold(Law::Ends, self.stage == Stage::Closed);
        self
    }

    fn hold(&mut self, law: Law, holds: bool) {
        if !holds {
            self.broken.push((law, self.now));
        }
    }

    fn step(&mut self) {
        let passed = self.dice.between(1, STEP);
        self.now += passed;
        if matches!(self.stage, Stage::Handling { .. }) && !self.awaits_body {
            self.worked += passed;
        }
        self.send();
        if self.now - self.swept_at >= SWEEP {
            self.swept_at = self.now;
            self.sweep();
        }
        match self.stage {
            Stage::Reading => self.read_head(),
            Stage::Handling { work } => self.handle(work.saturating_sub(passed)),
            Stage::Writing { pieces } => self.write(pieces),
            Stage::Closed => {}
        }
        self.hold_times();
    }

    fn send(&mut self) {
        let Some(request) = self.requests.get(self.current) else { return };
        // Clients that do not pipeline wait for each response.
        let until = if self.pipelines { self.sends } else { self.sends.min(request.end) };
        let drips = self.drips && self.sent >= request.head_end;
        let (chance, most) = if drips { (30, 1) } else { (60, 40) };
        if self.sent < until && self.dice.percent(chance) {
            self.sent += 1 + below(&mut self.dice, (until - self.sent).min(most));
        }
    }

    /// Returns true if the client's FIN is in the socket.
    fn has_finished(&self) -> bool {
        self.finishes && self.sent >= self.sends
    }

    /// Tells the machine of the FIN while it has a request in hand. Returns true if the request is dropped.
    fn watch_client(&mut self) -> bool {
        if !self.has_finished() {
            return false;
        }
        let since = *self.finished_at.get_or_insert(self.now);
        if self.sabotage != Some(Sabotage::FinishForgotten) {
            self.machine.finished(self.now);
        }
        let is_dropped = self.machine.reason() == Some(CloseReason::Finished);
        if is_dropped {
            self.hold(Law::FinishedHasItsTime, self.now - since >= 5000);
            self.stage = Stage::Closed;
        }
        is_dropped
    }

    fn sweep(&mut self) {
        let now = match self.sabotage {
            Some(Sabotage::NoSweep) => return,
            Some(Sabotage::ClockAhead(ahead)) => self.now + ahead,
            _ => self.now,
        };
        self.machine.tick(&TIMEOUTS, now);
        if self.sabotage == Some(Sabotage::WakesForgotten) {
            self.machine.reason = None;
        }
        let is_woken_twice = self.machine.tick(&TIMEOUTS, now);
        self.hold(Law::OneWake, !is_woken_twice);
        if self.now >= self.drain_at + IDLE_GRACE {
            self.machine.close_idle(IDLE_GRACE, now);
        }
        if self.now >= self.drain_at + DRAIN && !self.is_drained {
            self.is_drained = true;
            self.machine.close_unfinished();
        }
    }

    /// When the first byte of the next request came in.
    fn begun_at(&self) -> Option<u64> {
        self.requests.get(self.current).and_then(|next| next.begun_at)
    }

    /// Gives the machine a piece of what waits in the socket, at most so many bytes.
    fn read(&mut self) {
        let length = 1 + below(&mut self.dice, self.sent - self.passed);
        let bytes = &self.stream[self.passed..self.passed + length];
        self.passed += length;
        let request = self.requests[self.current];
        let is_unfinished = self.stage == Stage::Reading && self.passed < request.head_end;
        let bytes = match self.sabotage {
            Some(Sabotage::BytesForgotten) if is_unfinished => &[],
            Some(Sabotage::FollowersForgotten) => {
                &bytes[..length.saturating_sub(self.passed.saturating_sub(request.end))]
            }
            _ => bytes,
        };
        let _count = self.machine.read(bytes, ROOM, self.now);
        let begun = self.requests.iter_mut().filter(|request| request.start < self.passed);
        begun.for_each(|request| request.begun_at = request.begun_at.or(Some(self.now)));
    }

    fn read_head(&mut self) {
        loop {
            let head_end = self.requests.get(self.current).map_or(usize::MAX, |next| next.head_end);
            if self.passed >= head_end {
                return self.begin();
            }
            if self.passed == self.sent {
                break;
            }
            self.machine.unparked();
            self.read();
        }
        if self.has_finished() {
            // A read finds the end: the client has left, with what it has not finished.
            self.stage = Stage::Closed;
            return;
        }
        self.nothing_read();
    }

    fn nothing_read(&mut self) {
        let now = self.now;
        let draining = self.now >= self.drain_at;
        let idle = now - self.answered_at;
        let head = self.begun_at().map(|at| now - at);
        match self.machine.on_nothing_read(false) {
            Decision::Wait => {}
            Decision::Close => {
                self.hold(Law::NoRequestIsLost, head.is_none());
                let least = if self.current == 0 { 3000 } else { 6000 };
                let least = if draining && self.current > 0 { IDLE_GRACE } else { least };
                self.hold(Law::IdleHasItsTime, idle >= least);
                self.stage = Stage::Closed;
            }
            Decision::Park => {
                self.hold(Law::NoRequestIsLost, head.is_none());
                self.hold(Law::ParkedWhenIdle, self.current > 0 && idle >= 1000);
                self.machine.parked();
            }
            Decision::Refuse(refusal) => {
                self.hold(Law::NoRequestIsLost, refusal == Refusal::Late);
                let is_late = head.is_some_and(|head| head >= 3000);
                self.hold(Law::HeadHasItsTime, is_late || now >= self.drain_at + DRAIN);
                self.hold(Law::HalfRequestsLinger, self.machine.must_linger());
                self.stage = Stage::Closed;
            }
        }
    }

    fn begin(&mut self) {
        self.machine.begun(self.now);
        self.body_at = self.now;
        (self.worked, self.awaits_body, self.body_waited, self.body_bytes) = (0, false, 0, 0);
        self.reads_body = self.dice.percent(85);
        if self.requests[self.current].end > self.requests[self.current].head_end {
            self.machine.body_opened();
        }
        if !self.reads_body && self.passed < self.requests[self.current].end {
            self.drop_body();
        }
        let work = if self.dice.percent(10) { 12_000 } else { self.dice.below(900) };
        self.stage = Stage::Handling { work };
    }

    fn handle(&mut self, work: u64) {
        let end = self.requests[self.current].end;
        if self.reads_body && self.passed < end {
            while self.passed < end && self.passed < self.sent {
                let before = self.passed;
                self.read();
                let bytes = (self.passed.min(end) - before) as u64;
                let told = match self.sabotage {
                    Some(Sabotage::BytesMultiplied(by)) => bytes * by,
                    _ => bytes,
                };
                let is_spent = self.machine.body_read(told, self.now);
                if self.awaits_body {
                    self.body_waited += self.now - self.awaited_at;
                }
                self.body_bytes += bytes;
                (self.body_at, self.awaits_body) = (self.now, false);
                if is_spent && self.passed < end {
                    self.hold(Law::BodyHasItsTime, self.body_waited >= 8000);
                    return self.respond();
                }
            }
            if self.passed < end && self.has_finished() {
                // The read of the body fails, and the handler answers.
                return self.respond();
            }
            if self.passed < end {
                if self.machine.reason() == Some(CloseReason::Body) {
                    let is_still = self.now - self.body_at >= 4000;
                    let is_over = self.body_waited + self.now - self.awaited_at >= 8000;
                    let is_drained = self.now >= self.drain_at + DRAIN;
                    self.hold(Law::BodyHasItsTime, is_still || is_over || is_drained);
                    return self.respond();
                }
                self.machine.body_awaited(self.now);
                if !std::mem::replace(&mut self.awaits_body, true) {
                    self.awaited_at = self.now;
                }
                return;
            }
        }
        if self.watch_client() {
            return;
        }
        if self.machine.reason() == Some(CloseReason::Answer) {
            self.hold(Law::HandlerHasItsTime, self.worked >= 8000);
            return self.respond();
        }
        if work == 0 { self.respond() } else { self.stage = Stage::Handling { work } }
    }

    fn drop_body(&mut self) {
        if self.sabotage != Some(Sabotage::UnreadForgotten) {
            self.machine.body_dropped();
        }
    }

    fn respond(&mut self) {
        let request = self.requests[self.current];
        self.awaits_body = false;
        if self.passed < request.end {
            self.drop_body();
            self.reads_body = false;
        } else {
            self.machine.body_ended(false);
        }
        // Once other bytes than a request's own have been counted, too many may be seen behind it.
        let body = (request.end - request.head_end) as u64;
        let is_followed = self.machine.is_followed(Some(body), (self.sent - self.passed) as u64);
        self.hold(Law::FollowersAreSeen, is_followed || self.sent <= request.end);
        self.is_last = self.now >= self.drain_at && !is_followed;
        self.stage = Stage::Writing { pieces: self.dice.between(1, 4) };
    }

    fn write(&mut self, pieces: u64) {
        if self.watch_client() {
            return;
        }
        let is_blocked =
            self.dice.percent(if self.blocked_at.is_some() { self.stalls } else { 20 });
        self.machine.blocked(is_blocked, self.now);
        if is_blocked {
            let since = *self.blocked_at.get_or_insert(self.now);
            if self.machine.reason() == Some(CloseReason::Reader) {
                self.hold(Law::ReaderHasItsTime, self.now - since >= 4000);
                self.stage = Stage::Closed;
            }
            return;
        }
        if self.blocked_at.take().is_some() {
            // The client reads on.
            self.finished_at = self.finished_at.map(|_| self.now);
        }
        if pieces > 1 {
            self.stage = Stage::Writing { pieces: pieces - 1 };
            return;
        }
        let request = self.requests[self.current];
        self.machine.answered(Some((request.end - request.head_end) as u64), self.now);
        self.answered_at = self.now;
        self.current += 1;
        self.stage = Stage::Reading;
        if !self.reads_body && self.passed < request.end {
            self.hold(Law::HalfRequestsLinger, self.machine.must_linger());
            self.stage = Stage::Closed;
        } else if self.is_last {
            self.stage = Stage::Closed;
        }
    }

    /// No state lasts longer than its time.
    fn hold_times(&mut self) {
        let now = self.now;
        let within = |since: u64, time: u64| now - since <= time + SLACK;
        if let (Stage::Handling { .. } | Stage::Writing { .. }, Some(since)) =
            (self.stage, self.finished_at)
        {
            self.hold(Law::FinishedEndsInTime, within(since, 5000));
        }
        match self.stage {
            Stage::Reading => match self.begun_at() {
                Some(at) => {
                    self.hold(Law::HeadEndsInTime, within(at.max(self.answered_at), 3000));
                }
                None => {
                    let time = if self.current == 0 { 3000 } else { 6000 };
                    self.hold(Law::IdleEndsInTime, within(self.answered_at, time));
                }
            },
            Stage::Handling { .. } if self.awaits_body => {
                self.hold(Law::BodyEndsInTime, within(self.body_at, 4000));
                let waited = self.body_waited + now - self.awaited_at;
                let paid = self.body_bytes * PAID;
                self.hold(Law::DripsEndInTime, waited <= 8000 + paid + SLACK);
            }
            Stage::Handling { .. } => {
                self.hold(Law::HandlerEndsInTime, self.worked <= 8000 + SLACK);
            }
            Stage::Writing { .. } => {
                let since = self.blocked_at.unwrap_or(now);
                self.hold(Law::ReaderEndsInTime, within(since, 4000));
            }
            Stage::Closed => {}
        }
    }
}

fn below(dice: &mut Dice, sides: usize) -> usize {
    usize::try_from(dice.below(sides as u64)).expect("an index")
}
