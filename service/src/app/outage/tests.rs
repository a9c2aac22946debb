//! Faults over time, by hand-set clocks: which worker logs what.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::faults::{CALM, FORGOTTEN};
use super::*;

/// All workers of a server, of which one leads in each matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workers(Arc<Mutex<Vec<Led>>>);

#[derive(Debug)]
struct Led {
    fault: FaultKind,
    lead: Weak<()>,
}

impl Siblings for Workers {
    fn lead(&self, fault: FaultKind) -> Option<Lead> {
        let mut leads = self.0.lock().unwrap();
        leads.retain(|led| led.lead.strong_count() > 0);
        if leads.iter().any(|led| led.fault == fault) {
            return None;
        }
        let lead = Arc::new(());
        leads.push(Led { fault, lead: Arc::downgrade(&lead) });
        Some(Box::new(lead))
    }
}

/// One worker of several, with a clock that a test sets.
struct Seen {
    workers: Workers,
    faults: Faults,
    now: Instant,
    /// The lines, as they would be logged.
    lines: Vec<String>,
}

const AWAY: FaultKind = FaultKind::Away;

impl Seen {
    fn new(workers: &Workers, now: Instant) -> Self {
        Self { workers: workers.clone(), faults: Faults::default(), now, lines: Vec::new() }
    }

    fn alone() -> Self {
        Self::new(&Workers::default(), Instant::now())
    }

    fn after(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self.settle(Faults::settle_now(self.now))
    }

    fn settle(&mut self, settle: impl FnOnce(&mut Faults) -> Vec<Over>) -> &mut Self {
        for over in settle(&mut self.faults) {
            self.lines.push(match over {
                Over::Well(fault, took) => format!("+{fault} {}", took.as_millis()),
                Over::Forgotten(fault) => format!("?{fault}"),
            });
        }
        self
    }

    /// Work that begins and fails now.
    fn fails(&mut self, fault: FaultKind) -> &mut Self {
        self.fails_since(fault, self.now)
    }

    fn fails_since(&mut self, fault: FaultKind, begun: Instant) -> &mut Self {
        let workers = &self.workers;
        if self.faults.failed(fault, begun, self.now, || workers.lead(fault)) {
            self.lines.push(format!("-{fault}"));
        }
        self
    }

    /// Work that begins and succeeds now.
    fn succeeds(&mut self, work: Work) -> &mut Self {
        self.faults.succeeded(work, self.now, self.now);
        self
    }

    fn takes_over(&mut self) -> &mut Self {
        self.faults.claim_lead(self.now, |fault| self.workers.lead(fault));
        self
    }
}

impl Faults {
    fn settle_now(now: Instant) -> impl FnOnce(&mut Self) -> Vec<Over> {
        move |faults| faults.settle(now)
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap()
}

#[test]
fn success_between_failures_does_not_end_an_outage() {
    let mut worker = Seen::alone();
    for _ in 0..20 {
        worker.fails(AWAY).after(millis(CALM) - 1).succeeds(Work::Read).after(millis(CALM) - 1);
    }
    worker.fails(AWAY).after(300).succeeds(Work::Store).after(millis(CALM) - 1);
    assert_eq!(worker.lines, ["-reach the database"]);
    let took = 20 * 2 * (millis(CALM) - 1) + 300;
    worker.after(1);
    assert_eq!(worker.lines[1..], [format!("+reach the database {took}")]);
    assert!(worker.faults.is_empty());
}

#[test]
fn a_full_volume_with_room_for_a_row_is_one_fault() {
    let mut worker = Seen::alone();
    for _ in 0..100 {
        worker.fails(FaultKind::Unwritable).after(700).succeeds(Work::Store).after(1200);
    }
    worker.after(millis(CALM));
    assert_eq!(worker.lines, ["-write to the database", "+write to the database 188800"]);
}

#[test]
fn outage_of_several_workers_is_one_line_at_each_end() {
    let workers = Workers::default();
    let now = Instant::now();
    let mut all = [(); 4].map(|()| Seen::new(&workers, now));
    for round in 0..50 {
        // Each worker fails and succeeds in an order of its own.
        for (slot, worker) in all.iter_mut().enumerate() {
            if (round * 7 + slot * 3) % 5 < 3 {
                worker.fails(AWAY);
            } else {
                worker.succeeds(Work::Read);
            }
            worker.after(100).takes_over();
        }
    }
    for worker in &mut all {
        worker.succeeds(Work::Read).after(millis(CALM)).takes_over();
    }
    let lines: Vec<&String> = all.iter().flat_map(|worker| &worker.lines).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(all.iter().all(|worker| worker.lines.len() != 1), "the same worker: {lines:?}");
}

#[test]
fn a_fault_that_comes_back_after_its_end_is_logged_again() {
    let mut worker = Seen::alone();
    for _ in 0..2 {
        worker.fails(AWAY).after(1).succeeds(Work::Read).after(millis(CALM));
    }
    let lines = ["-reach the database", "+reach the database 1"];
    assert_eq!(worker.lines, [lines, lines].concat());
}

#[test]
fn any_success_shows_that_the_database_is_back() {
    for work in [Work::Store, Work::Delete, Work::Read] {
        let mut worker = Seen::alone();
        worker.fails(AWAY).after(1);
        assert!(worker.faults.is_met(AWAY));
        worker.succeeds(work);
        assert!(!worker.faults.is_met(AWAY) && worker.faults.is_open(AWAY), "{work:?}");
    }
}

#[test]
fn only_a_write_shows_that_writes_are_taken_again() {
    let mut worker = Seen::alone();
    worker.fails(FaultKind::Unwritable).fails(FaultKind::Unreadable).fails(FaultKind::Undeletable);
    worker.after(1).succeeds(Work::Read).after(1).succeeds(Work::Delete).after(millis(CALM));
    assert_eq!(worker.faults.all(), [FaultKind::Unwritable]);
    worker.succeeds(Work::Store).after(millis(CALM));
    assert_eq!(worker.faults.all(), []);
    assert_eq!(worker.lines.len(), 6, "{:?}", worker.lines);
}

#[test]
fn refused_deletes_that_nothing_tests_are_forgotten() {
    let mut worker = Seen::alone();
    worker.fails(FaultKind::Undeletable).after(millis(FORGOTTEN) - 1).fails(FaultKind::Undeletable);
    worker.after(millis(FORGOTTEN) - 1);
    assert_eq!(worker.lines, ["-delete rows"]);
    worker.after(1);
    assert_eq!(worker.lines, ["-delete rows", "?delete rows"]);
    worker.fails(FaultKind::Unwritable).after(10 * millis(FORGOTTEN));
    assert!(worker.faults.is_met(FaultKind::Unwritable), "the next probe tests that one");
}

#[test]
fn work_from_before_neither_ends_an_outage_nor_begins_one() {
    let mut worker = Seen::alone();
    let early = worker.now;
    assert!(!worker.faults.was_away_since(early));
    worker.after(10).fails_since(AWAY, early);
    worker.faults.succeeded(Work::Read, early, worker.now);
    assert!(worker.faults.is_met(AWAY) && worker.faults.was_away_since(worker.now));
    worker.after(10).succeeds(Work::Read).after(10).fails_since(AWAY, early);
    assert!(!worker.faults.is_met(AWAY), "it belongs to the outage");
    assert!(worker.faults.was_away_since(early) && !worker.faults.was_away_since(worker.now));
    worker.after(millis(CALM)).fails_since(AWAY, early);
    assert!(worker.faults.is_empty());
    assert!(worker.faults.was_away_since(early) && !worker.faults.was_away_since(worker.now));
    worker.fails(AWAY);
    assert!(worker.faults.is_met(AWAY), "it is away again");
    assert_eq!(worker.lines.len(), 3, "{:?}", worker.lines);
}

#[test]
fn a_worker_takes_over_when_the_one_that_logged_is_gone() {
    let workers = Workers::default();
    let now = Instant::now();
    let [mut first, mut second] = [(); 2].map(|()| Seen::new(&workers, now));
    for worker in [&mut first, &mut second] {
        worker.fails(AWAY).takes_over().after(1).fails(AWAY);
    }
    assert_eq!((first.lines.len(), second.lines.len()), (1, 0));
    drop(first);
    let early = second.now;
    second.after(1).fails_since(AWAY, early).takes_over().after(1).fails_since(AWAY, early);
    assert_eq!(second.lines, [""; 0], "the first may have seen the end since that was begun");
    second.fails(AWAY).after(1).succeeds(Work::Read).after(millis(CALM));
    assert_eq!(second.lines.len(), 2);
}

#[test]
fn a_worker_that_took_over_and_finds_no_fault_logs_nothing() {
    let workers = Workers::default();
    let now = Instant::now();
    let [mut first, mut second] = [(); 2].map(|()| Seen::new(&workers, now));
    for worker in [&mut first, &mut second] {
        worker.fails(AWAY);
    }
    first.after(1).succeeds(Work::Read).after(millis(CALM));
    second.takes_over().after(1).succeeds(Work::Read).after(millis(CALM));
    assert!(second.faults.is_empty() && second.lines.is_empty());
    first.fails(AWAY);
    assert_eq!(first.lines.len(), 3, "{:?}", first.lines);
}

#[test]
fn a_worker_that_leaves_logs_the_end_without_waiting() {
    let mut worker = Seen::alone();
    worker.fails(AWAY).fails(FaultKind::Unwritable).after(700).succeeds(Work::Read);
    worker.settle(Faults::settle_for_good);
    let lines = ["-reach the database", "-write to the database", "+reach the database 700"];
    assert_eq!(worker.lines, lines);
}

#[test]
fn no_free_connection_is_no_fault_of_the_database() {
    let outage = Outage::new(Workers::default());
    let work = pin!(outage.watch(Work::Read, async { Err::<(), _>(Error::Crowded) }));
    let done = work.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(done, Poll::Ready(Err(Error::Crowded))));
    assert!(outage.is_over());
}

#[test]
fn an_error_shows_its_kind_of_fault() {
    let silent = Error::Silent(Duration::ZERO);
    for work in [Work::Store, Work::Delete, Work::Read] {
        assert_eq!(FaultKind::of(work, &silent), FaultKind::Away);
    }
    for (code, of_deletes) in [
        ("53100", FaultKind::Unwritable),
        ("25006", FaultKind::Unwritable),
        ("5", FaultKind::Unwritable),
        ("55P03", FaultKind::Undeletable),
        ("40P01", FaultKind::Undeletable),
        ("57P01", FaultKind::Away),
    ] {
        let error = || Error::Database(sqlx::Error::Database(Box::new(Said(code))));
        assert_eq!(FaultKind::of(Work::Delete, &error()), of_deletes, "{code}");
        let of_stores = if code == "57P01" { FaultKind::Away } else { FaultKind::Unwritable };
        assert_eq!(FaultKind::of(Work::Store, &error()), of_stores, "{code}");
    }
}

/// The error that a server returns.
#[derive(Debug, thiserror::Error)]
#[error("the server's own words")]
struct Said(&'static str);

impl sqlx::error::DatabaseError for Said {
    fn message(&self) -> &'static str {
        "the server's own words"
    }
    fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some(self.0.into())
    }
    fn kind(&self) -> sqlx::error::ErrorKind {
        sqlx::error::ErrorKind::Other
    }
    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
}
