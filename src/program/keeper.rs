//! The life of one program, from its start to the end of its process group.
//!
//! ```text
//! Booting ── shows the sign of readiness ──▶ Serving ── told to drain ──▶ Settling (the server stops:
//!    │                                          │                           │  the queues are emptied)
//!    │ boot_timeout                             │ ends                      ▼
//!    ▼                                          ▼                        Draining ─ deadline ──▶ killed
//!  killed                              the keeper ends as it did            │ ends
//!                                                                           ▼ the keeper exits with 0
//! ```

use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::deadline::Deadline;
use super::events::ProgramEvent;
use super::note::{self, Note};
use super::output::Outputs;
use super::ready::Sign;
use crate::config::{Config, ProgramReady, StopSignal};
use crate::ids::{Generation, Pid, Slot};
use crate::logging;
use crate::scoreboard::{Doing, WorkerBoard};
use crate::sys::channel::{Lower, Received};
use crate::sys::clock;
use crate::sys::launch::Group;
use crate::sys::notes::{NOTE_MAX, NoteSocket};
use crate::sys::poll::{self, Interest};
use crate::sys::signals::{self, Signals};
use crate::sys::wait::Ended;
use crate::time::Instant;
use crate::wire::{MESSAGE_MAX, Order, Report};
use crate::worker::BOOT_FAILED;

/// The group is killed so much before the master would kill the keeper, or at half of the time.
const MARGIN: Duration = Duration::from_millis(500);
/// The time that a program has to stop at once: the master waits for 2 s.
const QUICK: Duration = Duration::from_secs(1);
/// The time that a program has to stop when its master is gone.
const ORPHANED: Duration = Duration::from_millis(1200);
/// The time for which a stop waits for handshakes that have begun. The master closes the listeners 2 s
/// later, when their queues are empty.
const SETTLE: Duration = Duration::from_millis(900);
/// The time for which a stop then waits for the queues: a program that is busy, or at its limit of
/// connections, takes none of them, and must be told to stop all the same.
const QUEUES: Duration = Duration::from_secs(2);
/// From one look to the next whether queues are empty, or what a program has started has ended.
const LOOK: Duration = Duration::from_millis(10);
/// The time for which output may still come when the group has ended: another process may hold the
/// pipes.
const LAST_OUTPUT: Duration = Duration::from_millis(200);
/// A keeper whose program was not ready in time is killed by the master within this time.
const KILLED_BY_MASTER: Duration = Duration::from_secs(10);
/// The interval at which a status is logged.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The keeper of one program: it watches the program, and reports to the master.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) config: Arc<Config>,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) board: Arc<WorkerBoard>,
    pub(super) channel: AsyncFd<Lower>,
    pub(super) caught: AsyncFd<Signals>,
    pub(super) notes: AsyncFd<NoteSocket>,
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) group: Group,
    pub(super) life: Life,
}

/// Where the program is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Booting,
    Serving,
    /// The server stops, and queued connections are accepted still.
    Settling {
        until: Instant,
    },
    /// Told to drain.
    Draining,
}

/// The state that changes while the program lives.
#[derive(Debug)]
pub(super) struct Life {
    stage: Stage,
    /// When the group is killed.
    deadline: Deadline,
    /// The program has sent `WATCHDOG=1`: from then on it beats, not the keeper.
    has_watchdog: bool,
    /// A status that is to be logged, and when.
    status: Option<String>,
    status_at: Instant,
    /// The program has ended, and others of its group have not.
    is_leaderless: bool,
    /// It was not ready in time, and was killed.
    is_late: bool,
}

impl Life {
    /// The life of a program that has just been started, and must be ready by then.
    pub(super) fn begin(deadline: Instant) -> Self {
        Self {
            stage: Stage::Booting,
            deadline: Deadline::new(deadline),
            has_watchdog: false,
            status: None,
            status_at: now(),
            is_leaderless: false,
            is_late: false,
        }
    }
}

/// An event.
enum Fact {
    Order(Order),
    Orphaned,
    Signals(Vec<i32>),
    Note(usize),
    /// The sign of readiness was shown.
    Shown,
    /// It is time to look.
    Time,
}

/// Ends when the sign is shown; never where none is looked for.
async fn show(shown: &mut Option<Pin<Box<impl Future<Output = ()>>>>) {
    match shown {
        Some(shown) => shown.await,
        None => pending().await,
    }
}

impl Keeper {
    /// Keeps the program until its group has ended, and returns how.
    pub(super) async fn keep(mut self, sign: Sign, outputs: Outputs) -> Ended {
        let mut note = [0; NOTE_MAX];
        let mut shown = Some(Box::pin(sign.shown(self.group.pid())));
        loop {
            if let Some(ended) = self.look(&sign) {
                return self.end(ended, outputs).await;
            }
            if self.life.stage != Stage::Booting {
                // With the look go the connections that it has open: each keeps a server waiting that
                // serves one after another.
                shown = None;
            }
            let fact = tokio::select! {
                fact = next_order(&self.channel) => fact,
                fact = next_signals(&self.caught) => fact,
                fact = next_note(&self.notes, &mut note) => fact,
                () = show(&mut shown) => Fact::Shown,
                () = self.pause() => Fact::Time,
            };
            self.heed(fact, &note);
        }
    }

    fn heed(&mut self, fact: Fact, note: &[u8]) {
        match fact {
            Fact::Order(Order::Drain) => self.drain(),
            Fact::Order(Order::Stop) if self.life.stage == Stage::Serving => {
                self.life.stage = Stage::Settling { until: now().after(SETTLE) };
                self.life.deadline.set(self.deadline());
                self.board.set_doing(self.generation, Doing::Draining);
            }
            Fact::Order(Order::Stop) => self.drain(),
            // The sockets are every program's: nothing is adopted, and none is added.
            // A program is not told: it serves on, and its probes are its own.
            Fact::Order(
                Order::Announce
                | Order::Accept(_)
                | Order::Listener { .. }
                | Order::Bell { .. }
                | Order::Close { .. },
            )
            | Fact::Time => {}
            Fact::Orphaned => self.end_within(ORPHANED),
            Fact::Signals(numbers) => {
                numbers.into_iter().for_each(|number| self.heed_signal(number));
            }
            Fact::Note(length) => {
                note::parse(&note[..length]).for_each(|note| self.heed_note(note));
            }
            Fact::Shown => self.serve(),
        }
    }

    fn heed_signal(&mut self, number: i32) {
        match number {
            // The master has a replacement boot first.
            signals::TERM if self.life.stage == Stage::Serving => self.tell(Report::ToldToLeave),
            signals::TERM | signals::CHLD => {}
            signals::USR1 => self.tell(Report::ToldToReopen),
            signals::ABRT => {
                self.group.signal_leader(signals::ABRT);
                self.life.deadline.set_firm(now().after(QUICK));
            }
            _ => {
                // So that its end is no death.
                self.tell(Report::ToldToLeave);
                self.end_within(QUICK);
            }
        }
    }

    fn heed_note(&mut self, note: Note) {
        match note {
            Note::Ready => {
                if matches!(self.config.program.ready, ProgramReady::Auto | ProgramReady::Notify) {
                    self.serve();
                }
            }
            Note::Stopping if self.life.stage == Stage::Serving => self.tell(Report::ToldToLeave),
            Note::Stopping => {}
            Note::Alive => {
                self.life.has_watchdog = true;
                self.board.note_heartbeat(now());
            }
            Note::Stalled => self.heed_signal(signals::ABRT),
            Note::Extend(extension) => self.extend(now().after(extension)),
            Note::Status(status) => {
                self.board.set_status(&status);
                self.life.status = Some(status);
            }
        }
    }

    /// The program needs time until then: to become ready or to finish, else until its next `WATCHDOG=1`.
    fn extend(&mut self, until: Instant) {
        match self.life.stage {
            Stage::Booting | Stage::Draining => self.life.deadline.extend(until),
            Stage::Serving | Stage::Settling { .. } => self.board.note_heartbeat(until),
        }
    }

    /// The program is ready.
    fn serve(&mut self) {
        if self.life.stage == Stage::Booting {
            self.life.stage = Stage::Serving;
            self.life.deadline.clear();
            self.board.set_doing(self.generation, Doing::Serving);
            self.board.note_heartbeat(now());
            self.tell(Report::Ready);
        }
    }

    /// Has the program drain. One that is not ready has nothing to drain.
    fn drain(&mut self) {
        match self.life.stage {
            Stage::Booting => self.end_within(Duration::ZERO),
            Stage::Serving | Stage::Settling { .. } | Stage::Draining => {
                self.life.deadline.set(self.deadline());
                self.send_stop();
            }
        }
    }

    /// Has the program end in this time, whatever it asks for.
    fn end_within(&mut self, span: Duration) {
        self.life.deadline.set_firm(now().after(span));
        self.send_stop();
    }

    fn send_stop(&mut self) {
        if self.life.stage != Stage::Draining {
            self.life.stage = Stage::Draining;
            self.board.set_doing(self.generation, Doing::Draining);
            self.group.signal_leader(number(self.config.program.stop_signal));
        }
    }

    /// When the group is killed that was told to drain, so that the master need not kill the keeper.
    fn deadline(&self) -> Instant {
        let since = self.board.drains_since().unwrap_or_else(now);
        since.after(less_margin(self.config.graceful_timeout))
    }

    /// Does what is due by now. Returns how the program has ended, once nothing of its group is to be
    /// waited for any more.
    fn look(&mut self, sign: &Sign) -> Option<Ended> {
        let now = now();
        if !self.life.has_watchdog {
            self.board.note_heartbeat(now);
        }
        if now >= self.life.status_at
            && let Some(status) = self.life.status.take()
        {
            self.life.status_at = now.after(STATUS_INTERVAL);
            logging::emit(&ProgramEvent::Status { slot: self.slot, status });
        }
        if let Stage::Settling { until } = self.life.stage
            && now >= until
            && (now >= until.after(QUEUES) || self.queues_are_empty())
        {
            self.drain();
        }
        // In this sequence: what a program has started becomes the keeper's child when the program ends.
        let ended = self.group.ended();
        let has_orphans = self.group.has_orphans();
        if let Some(ended) = ended {
            let is_draining = self.life.stage == Stage::Draining;
            if !has_orphans || !is_draining {
                return Some(ended);
            }
            if !std::mem::replace(&mut self.life.is_leaderless, true) {
                // A shell has ended before the server that it has started.
                self.group.signal_all(number(self.config.program.stop_signal));
            }
        }
        if self.life.deadline.asks_at().is_some_and(|at| at <= now) {
            self.life.deadline.note_asked(now);
            self.tell(Report::NeedsTime);
        }
        if self.life.deadline.at().is_some_and(|at| at <= now) {
            self.life.deadline.clear();
            self.tell_kill(sign);
            self.group.signal_all(signals::KILL);
        }
        None
    }

    fn tell_kill(&mut self, sign: &Sign) {
        let slot = self.slot;
        let program = Pid(self.group.pid());
        match self.life.stage {
            Stage::Booting => {
                self.life.is_late = true;
                let reason = sign.missing();
                logging::emit(&ProgramEvent::NotReady { slot, program, reason });
            }
            Stage::Settling { .. } | Stage::Draining => {
                logging::emit(&ProgramEvent::DrainTimedOut { slot, program });
            }
            // It was told to abort, which the master has logged.
            Stage::Serving => {}
        }
    }

    /// Sleeps until something is due that nothing else wakes the keeper for.
    async fn pause(&self) {
        let life = &self.life;
        let now = now();
        let stall = self.config.stall_timeout;
        let heartbeat = (!life.has_watchdog && !stall.is_zero()).then(|| now.after(stall / 4));
        let status = life.status.is_some().then_some(life.status_at);
        let settled = match life.stage {
            Stage::Settling { until } => Some(until.max(now.after(LOOK))),
            Stage::Booting | Stage::Serving | Stage::Draining => None,
        };
        let leaderless = life.is_leaderless.then(|| now.after(LOOK));
        let killed = life.deadline.at();
        let asks = life.deadline.asks_at();
        match [killed, asks, heartbeat, status, settled, leaderless].into_iter().flatten().min() {
            Some(at) => tokio::time::sleep(at.since(now)).await,
            None => pending().await,
        }
    }

    fn queues_are_empty(&self) -> bool {
        let polled: Vec<_> =
            self.listeners.iter().map(|listener| (listener.as_fd(), Interest::Read)).collect();
        // Where it cannot be looked, nothing is waited for.
        poll::wait(&polled, Some(Duration::ZERO))
            .is_ok_and(|polled| !polled.iter().any(|polled| polled.readable))
    }

    fn tell(&self, report: Report) {
        // A master that does not read is stopped or gone; in both cases it learns from our end.
        let _unread = self.channel.get_ref().send(&report.encode());
    }

    /// Kills what is left of the group, and lets its last lines be read.
    async fn end(self, ended: Ended, outputs: Outputs) -> Ended {
        self.group.signal_all(signals::KILL);
        outputs.finish(LAST_OUTPUT).await;
        let slot = self.slot;
        let program = Pid(self.group.pid());
        let stage = self.life.stage;
        self.group.reap();
        if self.life.is_late {
            // The master ends what is not ready in time: one that ended before would be tried again.
            tokio::time::sleep(KILLED_BY_MASTER).await;
        }
        let was_told = matches!(stage, Stage::Settling { .. } | Stage::Draining);
        if was_told && is_obedient(ended, number(self.config.program.stop_signal)) {
            return Ended::Code(0);
        }
        let (how, exit_code, signal) = match ended {
            Ended::Code(code) => (format!("ended with code {code}"), Some(code), None),
            Ended::Signal { number, .. } => {
                (format!("was ended by signal {number}"), None, Some(number))
            }
        };
        logging::emit(&ProgramEvent::Ended { slot, program, how, exit_code, signal });
        match (stage, ended) {
            // One that is not ready has not done what it was started for.
            (Stage::Booting, Ended::Code(0)) => Ended::Code(BOOT_FAILED),
            (_, ended) => ended,
        }
    }
}

/// Returns true for the end of a program that was told to drain and has done so, or was killed since it
/// did not: by itself, by the signal, or with the code that shells give for the signal.
fn is_obedient(ended: Ended, stop_signal: i32) -> bool {
    match ended {
        Ended::Code(code) => code == 0 || code == 128 + stop_signal,
        Ended::Signal { number, .. } => number == stop_signal || number == signals::KILL,
    }
}

/// A span of the master's, less the time that a keeper needs to end before the master would kill it.
pub(super) fn less_margin(span: Duration) -> Duration {
    span.saturating_sub(MARGIN.min(span / 2))
}

fn now() -> Instant {
    Instant::from_millis(clock::monotonic_millis())
}

fn number(signal: StopSignal) -> i32 {
    match signal {
        StopSignal::Term => signals::TERM,
        StopSignal::Int => signals::INT,
        StopSignal::Quit => signals::QUIT,
        StopSignal::Hup => signals::HUP,
        StopSignal::Usr1 => signals::USR1,
        StopSignal::Usr2 => signals::USR2,
        StopSignal::Winch => signals::WINCH,
    }
}

async fn next_order(channel: &AsyncFd<Lower>) -> Fact {
    loop {
        let Ok(mut ready) = channel.readable().await else { return Fact::Orphaned };
        let mut message = [0; MESSAGE_MAX];
        match channel.get_ref().receive(&mut message) {
            Ok(Received::Nothing) | Err(_) => ready.clear_ready(),
            Ok(Received::End) => return Fact::Orphaned,
            Ok(Received::Message { length, descriptors: _ }) => {
                // Another version's order is not for this one.
                if let Ok(order) = Order::decode(&message[..length]) {
                    return Fact::Order(order);
                }
            }
        }
    }
}

async fn next_signals(caught: &AsyncFd<Signals>) -> Fact {
    loop {
        let Ok(mut ready) = caught.readable().await else { return Fact::Orphaned };
        let numbers = caught.get_ref().take().unwrap_or_default();
        ready.clear_ready();
        if !numbers.is_empty() {
            return Fact::Signals(numbers);
        }
    }
}

async fn next_note(notes: &AsyncFd<NoteSocket>, note: &mut [u8; NOTE_MAX]) -> Fact {
    // A flood of notes must leave orders, signals and output their turns.
    tokio::task::yield_now().await;
    loop {
        let Ok(mut ready) = notes.readable().await else { return pending().await };
        match notes.get_ref().receive(note) {
            Ok(Some(length)) => return Fact::Note(length),
            Ok(None) | Err(_) => ready.clear_ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obedient_ends_are_those_that_were_asked_for() {
        let signal = |number| Ended::Signal { number, core: false };
        for ended in [Ended::Code(0), Ended::Code(143), signal(15), signal(9)] {
            assert!(is_obedient(ended, signals::TERM), "{ended:?}");
        }
        for ended in [Ended::Code(1), Ended::Code(130), signal(11), signal(2)] {
            assert!(!is_obedient(ended, signals::TERM), "{ended:?}");
        }
    }
}
