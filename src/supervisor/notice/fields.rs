//! The supervisor's types as fields of log events: words and numbers that scripts can rely on.

use super::Ending;
use crate::log_event::{EventField, EventFields, Value};
use crate::supervisor::event::{ExitStatus, Signal};
use crate::supervisor::slot_state::Loss;
use crate::supervisor::stage::{Due, Kill, Task, Urgency};

/// Words of the log as fields.
macro_rules! word_fields {
    ($($type:ty),*) => {$(
        impl EventField for $type {
            fn record(&self, name: &'static str, fields: &mut EventFields) {
                fields.push(name, Value::Text(self.to_string()));
            }
        }
    )*};
}

word_fields!(Loss, Signal);

impl EventField for Ending {
    fn record(&self, name: &'static str, fields: &mut EventFields) {
        let word = match self {
            Self::Boot => "boot_failed",
            Self::Died => "died",
            Self::Stalled => "stalled",
            Self::Left => "stopped",
            Self::DiedDraining => "died_draining",
            Self::Overstayed => "killed_draining",
        };
        word.record(name, fields);
    }
}

impl EventField for Kill {
    fn record(&self, name: &'static str, fields: &mut EventFields) {
        let word = match self {
            Self::Boot => "boot_timeout",
            Self::Stall => "stall_timeout",
            Self::Leave => "graceful_timeout",
            Self::Unheard => "channel_closed",
        };
        word.record(name, fields);
    }
}

impl EventField for Urgency {
    fn record(&self, name: &'static str, fields: &mut EventFields) {
        let word = match self {
            Self::Graceful => "graceful",
            Self::Quick => "quick",
        };
        word.record(name, fields);
    }
}

impl EventField for Task {
    fn record(&self, name: &'static str, fields: &mut EventFields) {
        let word = match self {
            Self::Prepare => "prepare",
            Self::Worker { .. } => "worker",
            Self::Check => "upgrade_check",
            Self::Logger => "logger",
            Self::Stats => "stats",
        };
        word.record(name, fields);
        if let Self::Worker { slot } = self {
            slot.record("slot", fields);
        }
    }

    #[cfg(test)]
    fn names(name: &'static str) -> Vec<&'static str> {
        vec![name, "slot"]
    }
}

impl EventField for Due {
    fn record(&self, name: &'static str, fields: &mut EventFields) {
        let word = match self {
            Self::Requests => "max_requests",
            Self::Memory { .. } => "max_memory",
            Self::Lifetime => "max_lifetime",
            Self::ByHand => "signal",
            Self::Restart => "restart",
        };
        word.record(name, fields);
        if let Self::Memory { bytes } = self {
            bytes.record("memory_bytes", fields);
        }
    }

    #[cfg(test)]
    fn names(name: &'static str) -> Vec<&'static str> {
        vec![name, "memory_bytes"]
    }
}

impl EventField for ExitStatus {
    fn record(&self, _: &'static str, fields: &mut EventFields) {
        match self {
            Self::Code(code) => code.record("exit_code", fields),
            Self::OutOfMemory => true.record("out_of_memory", fields),
            Self::Unknown => true.record("reaped_elsewhere", fields),
            Self::Signal { number, core } => {
                number.record("signal", fields);
                core.record("core_dumped", fields);
            }
        }
    }

    #[cfg(test)]
    fn names(_: &'static str) -> Vec<&'static str> {
        vec!["exit_code", "signal", "core_dumped", "out_of_memory", "reaped_elsewhere"]
    }
}
