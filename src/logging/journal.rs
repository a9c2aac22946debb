//! The last log events of the master, in its own memory: for those who ask the running server, whatever
//! its error log is written to. They survive an upgrade.
//!
//! Each event is kept as the line of JSON that a client is sent, with its serial number. The memory is
//! bounded by [`RECORDS_MAX`] and [`BYTES_MAX`]; the oldest events go first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use crate::log_event::{LogEvent, Severity, Value};
use crate::sys::clock;

/// Events that are kept.
const RECORDS_MAX: usize = 4096;
/// Bytes of their lines that are kept.
const BYTES_MAX: usize = 4 << 20;
/// Characters of a text; longer ones are cut.
const TEXT_MAX: usize = 1000;

/// The events of this process; `None` before [`keep`].
static JOURNAL: Mutex<Option<Journal>> = Mutex::new(None);
/// Set in the master alone: a child has a copy of the journal, and leaves it alone.
static IS_KEPT: AtomicBool = AtomicBool::new(false);

/// The last events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The serial number of the next event, from 0.
    next: u64,
    records: VecDeque<JournalRecord>,
    bytes: usize,
}

/// One event.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct JournalRecord {
    name: String,
    slot: Option<u64>,
    /// An object of JSON in one line.
    line: String,
}

// ORDERING: the flag is written before the first fork and once in a child with one thread: Relaxed.

/// Keeps the events of this process from now on, behind these.
pub(crate) fn keep(journal: Journal) {
    *lock() = Some(journal);
    IS_KEPT.store(true, Ordering::Relaxed);
}

/// In a child: its events are not the master's.
pub(super) fn keep_no_more() {
    IS_KEPT.store(false, Ordering::Relaxed);
}

/// Adds an event, in a process that keeps its events.
pub(super) fn note(event: &dyn LogEvent) {
    if IS_KEPT.load(Ordering::Relaxed)
        && let Some(journal) = &mut *lock()
    {
        journal.add(clock::wall(), event);
    }
}

/// Reads the events that are kept; those of no process when none are.
pub(crate) fn read<T>(with: impl FnOnce(&Journal) -> T) -> T {
    match &*lock() {
        Some(journal) => with(journal),
        None => with(&Journal::default()),
    }
}

fn lock() -> MutexGuard<'static, Option<Journal>> {
    // A panic while an event was added leaves an event too few.
    JOURNAL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    fn add(&mut self, time: SystemTime, event: &dyn LogEvent) {
        let mut fields = Map::new();
        let mut slot = None;
        for (name, value) in event.fields().iter() {
            if let ("slot", Value::Unsigned(number)) = (name, value) {
                slot = Some(*number);
            }
            fields.insert(name.to_owned(), json_value(value));
        }
        let line = json!({
            "type": "event",
            "serial": self.next,
            "time": timestamp(time),
            "level": level(event.severity()),
            "event": event.name(),
            "message": cut(&event.to_string()),
            "fields": fields,
        });
        let line = line.to_string();
        self.next = self.next.saturating_add(1);
        self.bytes = self.bytes.saturating_add(line.len());
        self.records.push_back(JournalRecord { name: event.name().to_owned(), slot, line });
        while self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.line.len());
        }
    }

    /// The serial number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The serial number of the oldest event that is kept.
    pub(crate) fn oldest(&self) -> u64 {
        self.next.saturating_sub(u64::try_from(self.records.len()).unwrap_or(u64::MAX))
    }

    /// The line of the event with this serial number, if it is kept.
    pub(crate) fn line(&self, serial: u64) -> Option<&str> {
        let at = usize::try_from(serial.checked_sub(self.oldest())?).ok()?;
        self.records.get(at).map(|record| record.line.as_str())
    }

    /// The line of the last event with one of these names, about this slot where one is given.
    pub(crate) fn last(&self, names: &[&str], slot: Option<u16>) -> Option<&str> {
        let slot = slot.map(u64::from);
        let is_it = |record: &&JournalRecord| {
            names.contains(&record.name.as_str()) && (slot.is_none() || record.slot == slot)
        };
        self.records.iter().rev().find(is_it).map(|record| record.line.as_str())
    }

    /// For each slot the line of the last event with this name.
    pub(crate) fn last_of_slots(&self, name: &str) -> BTreeMap<u64, &str> {
        let named = self.records.iter().filter(|record| record.name == name);
        named.filter_map(|record| Some((record.slot?, record.line.as_str()))).collect()
    }

    /// The lines of the last events but those with one of these names, oldest first: so many at most, of
    /// so many bytes at most.
    pub(crate) fn tail(&self, count: usize, bytes: usize, without: &[&str]) -> Vec<&str> {
        let mut left = bytes;
        let wanted = self.records.iter().rev().filter(|record| !without.contains(&&*record.name));
        let lines = wanted.take(count).map(|record| record.line.as_str());
        let fitting = lines.take_while(|line| {
            let fits = line.len() <= left;
            left = left.saturating_sub(line.len());
            fits
        });
        let mut lines: Vec<&str> = fitting.collect();
        lines.reverse();
        lines
    }
}

/// The time as RFC 3339 has it, in UTC, to the millisecond.
pub(crate) fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Debug => "debug",
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn json_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Signed(number) => (*number).into(),
        Value::Unsigned(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Text(text) => cut(text).into(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}[cut]", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::Slot;
    use crate::log_event::log_lines;

    log_lines! {
        /// An event of these tests.
        #[derive(Clone, Debug)]
        enum TestEvent {
            /// About a slot.
            Held = "held", Error, "held: {text}" { slot: Slot, text: String },
            /// About nothing.
            Plain = "plain", Warning, "plain {reason}" { count: u16, reason: String },
        }
    }

    #[test]
    fn events_of_these_tests_are_described() {
        assert_eq!(TestEvent::descriptions().len(), 2);
    }

    #[test]
    fn event_has_time_fields_and_serial_number() {
        let mut journal = Journal::default();
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        journal.add(time, &TestEvent::Held { slot: Slot::new(2), text: String::new() });
        journal.add(time, &TestEvent::Plain { count: 1, reason: "a\nb".to_owned() });
        let line: serde_json::Value = serde_json::from_str(journal.line(1).unwrap()).unwrap();
        assert_eq!(
            line,
            json!({
                "type": "event",
                "serial": 1,
                "time": "1970-01-01T00:00:01.500Z",
                "level": "warning",
                "event": "plain",
                "message": "plain a\nb",
                "fields": { "count": 1, "reason": "a\nb" },
            })
        );
        assert!(!journal.line(1).unwrap().contains('\n'));
        assert_eq!((journal.oldest(), journal.next(), journal.line(2)), (0, 2, None));
    }

    #[test]
    fn journal_is_bounded_in_events_and_bytes() {
        let mut journal = Journal::default();
        let long = "é".repeat(2_000);
        for at in 0..10_000_u16 {
            let text = if at % 2 == 0 { String::new() } else { long.clone() };
            journal.add(SystemTime::UNIX_EPOCH, &TestEvent::Held { slot: Slot::new(at % 8), text });
        }
        assert!(journal.records.len() <= RECORDS_MAX && journal.bytes <= BYTES_MAX);
        let kept: usize = journal.records.iter().map(|record| record.line.len()).sum();
        assert_eq!(kept, journal.bytes);
        assert_eq!(journal.next(), 10_000);
        assert_eq!(journal.line(journal.oldest() - 1), None);
        assert!(journal.line(journal.oldest()).is_some());
        let last = journal.last(&["held"], Some(3)).unwrap();
        assert!(last.contains("\"serial\":9995"), "{last}");
        assert_eq!(journal.last(&["no_such_event"], None), None);
    }

    #[test]
    fn last_events_are_bounded_and_found_by_slot() {
        let mut journal = Journal::default();
        for at in 0..20_u16 {
            let text = "x".repeat(100);
            journal.add(SystemTime::UNIX_EPOCH, &TestEvent::Held { slot: Slot::new(at % 4), text });
            journal.add(
                SystemTime::UNIX_EPOCH,
                &TestEvent::Plain { count: at, reason: String::new() },
            );
        }
        let serials = |lines: Vec<&str>| -> Vec<u64> {
            let serial = |line: &str| {
                serde_json::from_str::<serde_json::Value>(line).ok()?["serial"].as_u64()
            };
            lines.into_iter().filter_map(serial).collect()
        };
        assert_eq!(serials(journal.tail(3, 10_000, &[])), [37, 38, 39]);
        assert_eq!(serials(journal.tail(3, 10_000, &["plain"])), [34, 36, 38]);
        assert_eq!(serials(journal.tail(3, 400, &[])), [39], "the one before is too long");
        let last = journal.last_of_slots("held");
        assert_eq!(last.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(serials(last.into_values().collect()), [32, 34, 36, 38]);
    }
}
