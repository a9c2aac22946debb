//! Commands as transcripts have them: `restart 0 1`, `scale +1`, `stop quick`.

use crate::ids::{Slot, SlotSet};
use crate::supervisor::command::{Command, Scale};
use crate::supervisor::stage::Urgency;

/// The words of a command.
pub(super) fn text(command: Command) -> String {
    match command {
        Command::Reload => "reload".to_owned(),
        Command::Upgrade => "upgrade".to_owned(),
        Command::Restart(None) => "restart".to_owned(),
        Command::Restart(Some(slots)) => {
            let slots: Vec<String> = slots.iter().map(|slot| slot.to_string()).collect();
            format!("restart {}", slots.join(" "))
        }
        Command::Scale(Scale::To(workers)) => format!("scale {workers}"),
        Command::Scale(Scale::By(change)) => format!("scale {change:+}"),
        Command::Stop(Urgency::Graceful) => "stop".to_owned(),
        Command::Stop(Urgency::Quick) => "stop quick".to_owned(),
        Command::Reopen => "reopen".to_owned(),
    }
}

/// The command with these words.
pub(super) fn parse(words: &[&str]) -> Command {
    match words {
        ["reload"] => Command::Reload,
        ["upgrade"] => Command::Upgrade,
        ["restart"] => Command::Restart(None),
        ["restart", slots @ ..] => {
            let slots = slots.iter().map(|slot| Slot::new(slot.parse().expect("a slot")));
            Command::Restart(Some(SlotSet::from_iter(slots)))
        }
        ["scale", change] if change.starts_with(['+', '-']) => {
            Command::Scale(Scale::By(change.parse().expect("a change")))
        }
        ["scale", workers] => Command::Scale(Scale::To(workers.parse().expect("a number"))),
        ["stop"] => Command::Stop(Urgency::Graceful),
        ["stop", "quick"] => Command::Stop(Urgency::Quick),
        ["reopen"] => Command::Reopen,
        _ => panic!("no command: {words:?}"),
    }
}
