//! The notes that a program sends (sd_notify(3)): pure.

use std::time::Duration;

/// The longest status that is kept, in characters.
const STATUS_MAX: usize = 200;
/// The longest extension of a deadline.
const EXTENSION_MAX: Duration = Duration::from_secs(3600);

/// One assignment of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// `READY=1`
    Ready,
    /// `STOPPING=1`
    Stopping,
    /// `WATCHDOG=1`
    Alive,
    /// `WATCHDOG=trigger`
    Stalled,
    /// `EXTEND_TIMEOUT_USEC=…`
    Extend(Duration),
    /// `STATUS=…`
    Status(String),
}

/// The assignments of a note that mean something here, in their sequence.
pub(super) fn parse(note: &[u8]) -> impl Iterator<Item = Note> {
    note.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = memchr::memchr(b'=', line)?;
        let value = String::from_utf8_lossy(&line[at + 1..]);
        match (&line[..at], &*value) {
            (b"READY", "1") => Some(Note::Ready),
            (b"STOPPING", "1") => Some(Note::Stopping),
            (b"WATCHDOG", "1") => Some(Note::Alive),
            (b"WATCHDOG", "trigger") => Some(Note::Stalled),
            (b"EXTEND_TIMEOUT_USEC", micros) => {
                let extension = Duration::from_micros(micros.parse().ok()?);
                Some(Note::Extend(extension.min(EXTENSION_MAX)))
            }
            (b"STATUS", text) => Some(Note::Status(text.chars().take(STATUS_MAX).collect())),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_assignments_are_read() {
        let note =
            b"READY=1\nMAINPID=4\nSTATUS=warm: 3=3\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=1500000\n";
        let status = Note::Status("warm: 3=3".to_owned());
        let extension = Note::Extend(Duration::from_millis(1500));
        assert!(parse(note).eq([Note::Ready, status, Note::Alive, extension]));
        assert!(parse(b"STOPPING=1").eq([Note::Stopping]));
    }

    #[test]
    fn other_texts_mean_nothing() {
        for note in
            [&b""[..], b"READY", b"READY=0", b"\xff\xfe=1", b"EXTEND_TIMEOUT_USEC=-1", b"=="]
        {
            assert_eq!(parse(note).count(), 0, "{note:?}");
        }
    }

    #[test]
    fn numbers_and_texts_are_bounded() {
        let note = format!("EXTEND_TIMEOUT_USEC={}\nSTATUS={}", u64::MAX, "é".repeat(5000));
        let status = Note::Status("é".repeat(STATUS_MAX));
        assert!(parse(note.as_bytes()).eq([Note::Extend(EXTENSION_MAX), status]));
    }
}
