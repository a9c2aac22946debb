//! Where this process's lines go: into its ring, or, while there is no logger, to stderr.

use std::io;
use std::os::fd::AsFd as _;

use crate::logging::ring::rings::Ring;
use crate::logging::ring::{Full, Kind, Producer, Wake};
use crate::sys::bell::Bell;
use crate::sys::shared::Mapping;
use crate::sys::{clock, write};
use crate::time::Instant;

/// The way out of this process.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Before the logs are installed.
    Nowhere,
    /// When there is no logger: at the end, and in the logger itself.
    Stderr,
    /// To the logger.
    Ring { producer: Producer<Mapping>, bell: Bell },
}

impl Sink {
    /// The ring, which is this process's from now on.
    pub(crate) fn ring(ring: Ring) -> Self {
        let (producer, bell) = ring.into_producer();
        Self::Ring { producer, bell }
    }

    /// Returns the position of this process's ring: written or lost, the next line changes it.
    pub(crate) fn settled(&self) -> Option<u64> {
        match self {
            Self::Nowhere | Self::Stderr => None,
            Self::Ring { producer, .. } => Some(producer.settled()),
        }
    }

    /// Sends a line.
    ///
    /// # Errors
    /// When there is no room for it: then it can be sent again later, or must be dropped.
    pub(crate) fn send(&mut self, kind: Kind, line: &[u8]) -> Result<(), Full> {
        match self {
            Self::Nowhere => {}
            Self::Stderr => {
                // There is no log left for it.
                let _unsaid = to_stderr(line);
            }
            Self::Ring { producer, bell } => heed(producer.push(kind, line)?, bell),
        }
        Ok(())
    }

    /// Counts a line for which there was no room.
    pub(crate) fn drop_line(&mut self) {
        if let Self::Ring { producer, bell } = self {
            let now = Instant::from_millis(clock::monotonic_millis());
            heed(producer.drop_line(now), bell);
        }
    }
}

fn heed(wake: Wake, bell: &Bell) {
    match wake {
        Wake::Nobody => {}
        Wake::Consumer => bell.ring(),
    }
}

/// Writes a line to stderr, unless that would wait for its reader. Returns true if it is written.
pub(crate) fn to_stderr(line: &[u8]) -> bool {
    write::at_once(io::stderr().as_fd(), line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::ring::rings::{MASTER, Rings};

    /// No reader announces that it sleeps: one ring of the bell is the one system call of ten thousand
    /// lines, of which some find no room.
    #[test]
    fn a_line_costs_no_system_call_while_nobody_sleeps() {
        let mut rings = Rings::new().expect("memory can be shared");
        let mut sink = Sink::ring(rings.ring(MASTER).expect("a ring"));
        let mut lost = 0;
        for number in 0..10_000 {
            let line = format!("{number:0150}\n");
            if sink.send(Kind::Access, line.as_bytes()) == Err(Full) {
                sink.drop_line();
                lost += 1;
            }
        }
        assert!(lost > 0, "a ring of 1 MiB has no room for 1.6 MB");
        assert_eq!(rings.bell(MASTER).expect("it is there").take(), 1);
    }
}
