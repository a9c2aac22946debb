//! The watch of accept queues: one that is not drained is found without a periodic tick.
//!
//! The kernel says once that a connection waits (`Queued`); a moment later the supervisor looks whether
//! any still does. A worker that runs has taken it by then. One that does not, be it blocked, stopped
//! or full, has its slot adopted by its siblings until the queue has been seen empty a few times in a
//! row, and the worker's loop has turned since a connection waited there: that a queue is empty which
//! its siblings empty, and to which no connection is sent, says nothing about it. The heartbeat is a hint: a
//! worker that lies has its queue released too early, and is found out again.

use serde::{Deserialize, Serialize};

use crate::ids::{Slot, SlotSet};
use crate::supervisor::Supervisor;
use crate::supervisor::action::Action;
use crate::supervisor::policy::{LOOK_AFTER, LOOK_AGAIN, LOOK_SELDOM, QUIET_LOOKS, STEER_AFTER};
use crate::supervisor::slot_state::SlotState;
use crate::time::Instant;

/// The state of a slot's accept queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Drainage {
    /// No look: the slot has no worker of its own, or no sibling that could help.
    #[default]
    Unwatched,
    /// The kernel will say when a connection waits.
    Watched,
    /// One waited; a look follows.
    Suspect { look_at: Instant },
    /// It still waited: the siblings have adopted the slot. The last look that has found a connection
    /// was at `waited_at`.
    Undrained { since: Instant, look_at: Instant, quiet: u8, waited_at: Instant },
}

impl Supervisor {
    pub(super) fn note_queued(&mut self, now: Instant, slot: Slot) {
        if let Some(state) = self.slot_state(slot)
            && state.drainage == Drainage::Watched
        {
            state.drainage = Drainage::Suspect { look_at: now.after(LOOK_AFTER) };
        }
    }

    /// So many wait; and when the loop of the slot's own worker has turned last.
    pub(super) fn note_queue_length(
        &mut self,
        now: Instant,
        slot: Slot,
        length: u32,
        heartbeat: Instant,
    ) {
        let Some(state) = self.slot_state(slot) else { return };
        let look_at = now.after(LOOK_AGAIN);
        state.drainage = match state.drainage {
            Drainage::Suspect { .. } if length > 0 => {
                Drainage::Undrained { since: now, look_at, quiet: 0, waited_at: now }
            }
            // Unwatched, so that the next reconcile watches it again.
            Drainage::Suspect { .. } => Drainage::Unwatched,
            Drainage::Undrained { since, .. } if length > 0 => {
                Drainage::Undrained { since, look_at, quiet: 0, waited_at: now }
            }
            Drainage::Undrained { since, quiet, waited_at, .. } => {
                let quiet = quiet.saturating_add(1);
                if quiet < QUIET_LOOKS {
                    Drainage::Undrained { since, look_at, quiet, waited_at }
                } else if heartbeat < waited_at {
                    let look_at = now.after(LOOK_SELDOM);
                    Drainage::Undrained { since, look_at, quiet, waited_at }
                } else {
                    Drainage::Unwatched
                }
            }
            other @ (Drainage::Unwatched | Drainage::Watched) => other,
        };
    }

    /// Watches the slots that have a worker with siblings, and looks where a look is due.
    pub(super) fn watch_queues(&mut self, now: Instant, out: &mut Vec<Action>) {
        let owned: Vec<Slot> = self.slots().filter(|slot| self.accepts(*slot)).collect();
        let siblings = owned.len() > 1;
        for slot in self.slots() {
            let Some(state) = self.slot_state(slot) else { continue };
            match &mut state.drainage {
                drainage if !siblings || !owned.contains(&slot) => *drainage = Drainage::Unwatched,
                drainage @ Drainage::Unwatched => {
                    *drainage = Drainage::Watched;
                    out.push(Action::Watch { slot });
                }
                Drainage::Suspect { look_at } if *look_at <= now => {
                    // The answer sets the next look; without one, this is it.
                    *look_at = now.after(LOOK_AGAIN);
                    out.push(Action::Look { slot });
                }
                Drainage::Undrained { look_at, .. } if *look_at <= now => {
                    *look_at = now.after(LOOK_AGAIN);
                    out.push(Action::Look { slot });
                    out.push(Action::Rouse { slot });
                }
                Drainage::Watched | Drainage::Suspect { .. } | Drainage::Undrained { .. } => {}
            }
        }
    }

    /// Returns true if the slot has a worker of its own that does not drain.
    pub(super) fn accepts(&self, slot: Slot) -> bool {
        self.in_slot(slot).any(|child| child.is_serving() || child.is_yielding())
    }

    /// The slots whose queue must not be left to their own worker.
    pub(super) fn orphans(&self) -> SlotSet {
        let undrained = |state: &SlotState| matches!(state.drainage, Drainage::Undrained { .. });
        self.slots()
            .zip(&self.slot_states)
            .filter(|(slot, state)| !self.accepts(*slot) || undrained(state))
            .map(|(slot, _)| slot)
            .collect()
    }

    /// The slots that new connections are best sent to; all of them when none is good.
    pub(super) fn live(&self, now: Instant) -> SlotSet {
        let stuck = |state: &SlotState| match state.drainage {
            Drainage::Undrained { since, .. } => now.since(since) >= STEER_AFTER,
            Drainage::Unwatched | Drainage::Watched | Drainage::Suspect { .. } => false,
        };
        let live: SlotSet = self
            .slots()
            .zip(&self.slot_states)
            .filter(|(slot, state)| self.accepts(*slot) && !stuck(state))
            .map(|(slot, _)| slot)
            .collect();
        if live == SlotSet::EMPTY { self.slots().collect() } else { live }
    }
}
