//! The type of the table `[program]`: any program as the worker of each slot.

use std::time::Duration;

use super::fields::fields;
use super::from_value::{choice, from_value};

fields! {
    /// The `[program]` table.
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Program in "program." {
        /// The program and its arguments; empty: the application of this binary serves.
        pub command: Vec<String>,
        /// The sign by which a program is ready.
        pub ready: ProgramReady,
        /// The signal that asks a program to drain and leave.
        pub stop_signal: StopSignal,
    }
}

impl Program {
    /// Returns true if a program serves in each slot, and not the application.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.command.is_empty()
    }
}

/// The sign by which a program is ready to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramReady {
    /// `READY=1`, or a process of the program waits for connections, whichever comes first.
    Auto,
    /// `READY=1` on `NOTIFY_SOCKET` (sd_notify(3)).
    Notify,
    /// A process of the program waits for connections on a socket that it was given.
    Listen,
    /// A GET of this path, answered by the program itself, has a 2xx status.
    Http(String),
    /// The program has run for so long.
    Delay(Duration),
}

choice! {
    /// The signal that asks a program to drain and leave.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[expect(missing_docs, reason = "the names say it")]
    pub enum StopSignal {
        Term = "TERM",
        Int = "INT",
        Quit = "QUIT",
        Hup = "HUP",
        Usr1 = "USR1",
        Usr2 = "USR2",
        Winch = "WINCH",
    }
}

from_value! {
    ProgramReady, Self::Notify, |value| Self::parse(value.text()?).ok();
}

impl ProgramReady {
    /// Reads `auto`, `notify`, `listen`, `http:/path` or `delay:SECONDS`.
    ///
    /// # Errors
    /// The expectation, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "notify" => return Ok(Self::Notify),
            "listen" => return Ok(Self::Listen),
            _ => {}
        }
        let is_plain = |path: &str| path.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(path) = text.strip_prefix("http:")
            && path.starts_with('/')
            && is_plain(path)
        {
            return Ok(Self::Http(path.to_owned()));
        }
        if let Some(delay) = text.strip_prefix("delay:").and_then(super::units::parse_duration) {
            return Ok(Self::Delay(delay));
        }
        Err(format!(
            "expected \"auto\", \"notify\", \"listen\", \"http:/path\" or \"delay:2\", found {text:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_one_of_five_forms() {
        let http = ProgramReady::Http("/healthz?full=1".to_owned());
        assert_eq!(ProgramReady::parse("http:/healthz?full=1"), Ok(http));
        let delay = ProgramReady::Delay(Duration::from_millis(1500));
        assert_eq!(ProgramReady::parse("delay:1.5"), Ok(delay));
        for wrong in ["", "http:healthz", "http:/a b", "delay:", "delay:soon", "ready"] {
            assert!(ProgramReady::parse(wrong).is_err(), "{wrong}");
        }
    }
}
