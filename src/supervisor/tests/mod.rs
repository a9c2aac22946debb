//! The supervisor without a process.

mod commands;
pub(crate) mod handed;
mod hostile;
mod laws;
mod stories;
mod table;
mod transcript;
pub(crate) mod world;

use crate::ids::{ChildId, CommandId, Pid, Slot};
use crate::supervisor::command::Command;
use crate::supervisor::event::{Event, ExitStatus, Kept, Signal};
use crate::supervisor::stage::Due;
use crate::time::Instant;

/// One event of each variant.
fn every_event() -> impl Iterator<Item = Event> {
    std::iter::successors(Some(Event::Started), next_event)
}

/// The variant after this one's. A new variant does not compile until it has a place here.
fn next_event(event: &Event) -> Option<Event> {
    let child = ChildId(1);
    let pid = Pid(100);
    let slot = Slot::new(0);
    Some(match event {
        Event::Started => Event::Upgraded,
        Event::Upgraded => Event::Tick,
        Event::Tick => Event::Signalled(Signal::Reload),
        Event::Signalled(_) => Event::Forked { child, pid },
        Event::Forked { .. } => Event::ForkFailed { child, reason: "out of memory".to_owned() },
        Event::ForkFailed { .. } => Event::Ready { child },
        Event::Ready { .. } => Event::WorkerDue { child, why: Due::Requests },
        Event::WorkerDue { .. } => {
            Event::Exited { pid, status: ExitStatus::Signal { number: 11, core: true } }
        }
        Event::Exited { .. } => Event::Unheard { child },
        Event::Unheard { .. } => Event::Loaded(Ok(transcript::policy("workers=2 stall=0.5"))),
        Event::Loaded(_) => Event::SlotsOpen { count: 1 },
        Event::SlotsOpen { .. } => Event::Queued { slot },
        Event::Queued { .. } => {
            Event::QueueLength { slot, length: 1, heartbeat: Instant::default() }
        }
        Event::QueueLength { .. } => {
            Event::Heartbeat { child, heartbeat: Instant::from_millis(1), kept: Kept::ByNothing }
        }
        Event::Heartbeat { .. } => Event::MemoryRead { child, bytes: 1 << 20 },
        Event::MemoryRead { .. } => Event::NeedsTime { child },
        Event::NeedsTime { .. } => Event::UpgradeFailed { reason: "not found".to_owned() },
        Event::UpgradeFailed { .. } => {
            Event::Commanded { id: CommandId(1), command: Command::Restart(None) }
        }
        Event::Commanded { .. } => Event::Abandoned { id: CommandId(1) },
        Event::Abandoned { .. } => Event::Reopened { is_complete: true },
        Event::Reopened { .. } => return None,
    })
}
