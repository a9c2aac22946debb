//! The database's faults in the error log: the cause once when they begin, and once that they are over,
//! however many requests meet them.
//!
//! When the database is away all workers meet it. One of them tells, the leader: it asks the database
//! again and again, tells of its return, and leads no more. The others are silent, and ask, too: who is
//! refused although nobody leads any more takes over, and tells.

use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferricorn::WorkerContext;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::store::Error;

/// What the database is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Store rows.
    Store,
    /// Remove them.
    Delete,
    /// Read them, or answer at all.
    Read,
}

/// The workers that may meet the same fault.
pub(crate) trait Siblings: fmt::Debug + Send + Sync {
    /// Makes this worker the one that tells of it, until the answer is dropped. `None`: another does.
    fn lead(&self) -> Option<Lead>;
}

/// That this worker is the one that tells.
pub(crate) type Lead = Box<dyn fmt::Debug + Send>;

impl Siblings for WorkerContext {
    fn lead(&self) -> Option<Lead> {
        Self::lead(self).map(|lead| Box::new(lead) as Lead)
    }
}

/// What is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The database is away: whatever work succeeds shows that it is back.
    Away,
    /// The database is there, and one kind of work fails, by a lock, say, or a disk that is full:
    /// that others succeed does not end it. Each worker tells of its own.
    Refused(Work),
}

/// A fault that was met, and is not over.
#[derive(Debug)]
struct Known {
    fault: Fault,
    began: Instant,
    /// When it was last met. Work that had begun before says nothing of what is now.
    met: Instant,
    telling: Telling,
}

/// Who tells of a fault.
#[derive(Debug)]
enum Telling {
    /// A sibling.
    Another,
    /// This worker, as soon as work meets it that has begun since then.
    Due(Instant, Option<Lead>),
    /// This worker, which has done so, and tells of the end.
    Done(Option<Lead>),
}

/// What is out of order now.
#[derive(Debug)]
pub(crate) struct Outage {
    siblings: Box<dyn Siblings>,
    state: Mutex<State>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct State {
    known: Vec<Known>,
    /// When the database was last found to be back.
    back: Option<Instant>,
}

impl State {
    fn is_away(&self) -> bool {
        self.known.iter().any(|known| known.fault == Fault::Away)
    }
}

impl Outage {
    /// Nothing is out of order, as far as is known.
    pub(crate) fn new(siblings: impl Siblings + 'static) -> Self {
        Self { siblings: Box::new(siblings), state: Mutex::default(), begun: Notify::new() }
    }

    /// Does a piece of work, and logs what is new in how it went.
    ///
    /// # Errors
    /// Those of the work.
    pub(crate) async fn watch<T>(
        &self,
        work: Work,
        doing: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let done = doing.await;
        match &done {
            Ok(_) => self.succeeded(work, begun),
            // The database has no part in it.
            Err(Error::Crowded) => {}
            Err(error) => self.failed(work, begun, error),
        }
        done
    }

    /// Whether the database is away, or was at any time since then, as far as is known.
    pub(crate) fn was_away_since(&self, then: Instant) -> bool {
        let state = self.locked();
        state.back.is_some_and(|back| then < back) || state.is_away()
    }

    /// Whether the database is away, as far as is known.
    pub(crate) fn is_away(&self) -> bool {
        self.locked().is_away()
    }

    /// Waits until the database is found to be away.
    pub(crate) async fn begins(&self) {
        self.begun.notified().await;
    }

    /// If nobody tells that the database is away, by now, this worker will if it still is: work that
    /// begins from here on shows it.
    pub(crate) fn take_over(&self) {
        let mut state = self.locked();
        let untold = |known: &&mut Known| {
            known.fault == Fault::Away && matches!(known.telling, Telling::Another)
        };
        if let Some(known) = state.known.iter_mut().find(untold)
            && let Some(lead) = self.siblings.lead()
        {
            known.telling = Telling::Due(Instant::now(), Some(lead));
        }
    }

    fn failed(&self, work: Work, begun: Instant, error: &Error) {
        let fault = if error.is_away() { Fault::Away } else { Fault::Refused(work) };
        let mut state = self.locked();
        if fault == Fault::Away && state.back.is_some_and(|back| begun < back) {
            // It was begun during an outage that is over.
            return;
        }
        let now = Instant::now();
        let at = state.known.iter().position(|known| known.fault == fault).unwrap_or_else(|| {
            let telling = self.telling(fault, begun);
            state.known.push(Known { fault, began: now, met: now, telling });
            state.known.len() - 1
        });
        let known = &mut state.known[at];
        known.met = now;
        known.telling = match mem::replace(&mut known.telling, Telling::Another) {
            Telling::Due(since, lead) if begun >= since => {
                tracing::error!("failed to {work}: {error}; answering 503 until it works");
                Telling::Done(lead)
            }
            as_before => as_before,
        };
    }

    /// Who is to tell of a fault that is new to this worker.
    fn telling(&self, fault: Fault, begun: Instant) -> Telling {
        match fault {
            Fault::Refused(_) => Telling::Due(begun, None),
            Fault::Away => {
                self.begun.notify_one();
                match self.siblings.lead() {
                    Some(lead) => Telling::Due(begun, Some(lead)),
                    None => Telling::Another,
                }
            }
        }
    }

    fn succeeded(&self, work: Work, begun: Instant) {
        let mut state = self.locked();
        let ends = |known: &mut Known| {
            let is_shown = match known.fault {
                Fault::Away => true,
                Fault::Refused(refused) => refused == work,
            };
            is_shown && begun >= known.met
        };
        let ended: Vec<Known> = state.known.extract_if(.., ends).collect();
        for Known { fault, began, telling, .. } in ended {
            if fault == Fault::Away {
                state.back = Some(Instant::now());
            }
            match telling {
                Telling::Done(_lead) => {
                    let seconds = began.elapsed().as_secs_f32();
                    tracing::info!("able to {work} again after {seconds:.1} s");
                }
                Telling::Due(..) | Telling::Another => {}
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As in "failed to …".
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Delete => "delete",
            Self::Read => "read",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::pin::pin;
    use std::sync::{Arc, Weak};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    /// All workers of a server, of which one leads.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Workers(Arc<Mutex<Weak<()>>>);

    impl Siblings for Workers {
        fn lead(&self) -> Option<Lead> {
            let mut leads = self.0.lock().unwrap();
            let lead = leads.upgrade().is_none().then(|| Arc::new(()));
            lead.inspect(|lead| *leads = Arc::downgrade(lead)).map(|lead| Box::new(lead) as Lead)
        }
    }

    fn alone() -> Outage {
        Outage::new(Workers::default())
    }

    fn has_told(outage: &Outage) -> bool {
        outage.locked().known.iter().any(|known| matches!(known.telling, Telling::Done(_)))
    }

    fn known(outage: &Outage) -> Vec<Fault> {
        outage.locked().known.iter().map(|known| known.fault).collect()
    }

    fn away() -> Error {
        Error::Silent(Duration::ZERO)
    }

    fn refused() -> Error {
        Error::Database(sqlx::Error::Database(Box::new(Full)))
    }

    /// What a server says whose disk is full.
    #[derive(Debug, thiserror::Error)]
    #[error("could not extend file")]
    struct Full;

    impl sqlx::error::DatabaseError for Full {
        fn message(&self) -> &'static str {
            "could not extend file"
        }
        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some("53100".into())
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

    #[test]
    fn whatever_work_succeeds_shows_that_the_database_is_back() {
        let outage = alone();
        outage.failed(Work::Delete, Instant::now(), &away());
        outage.failed(Work::Store, Instant::now(), &away());
        assert_eq!(known(&outage), [Fault::Away], "one fault, one line");
        outage.succeeded(Work::Read, Instant::now());
        assert_eq!(known(&outage), []);
    }

    #[test]
    fn what_was_on_its_way_neither_ends_an_outage_nor_begins_one() {
        let outage = alone();
        let early = Instant::now();
        assert!(!outage.was_away_since(early));
        outage.failed(Work::Store, early, &away());
        outage.succeeded(Work::Read, early);
        assert_eq!(known(&outage), [Fault::Away]);
        outage.succeeded(Work::Read, Instant::now());
        assert_eq!(known(&outage), []);
        outage.failed(Work::Delete, early, &away());
        assert_eq!(known(&outage), []);
        assert!(outage.was_away_since(early) && !outage.was_away_since(Instant::now()));
        outage.failed(Work::Delete, Instant::now(), &away());
        assert_eq!(known(&outage), [Fault::Away], "it is away again");
    }

    #[test]
    fn what_one_kind_of_work_meets_others_do_not_end() {
        let outage = alone();
        outage.failed(Work::Store, Instant::now(), &refused());
        outage.succeeded(Work::Read, Instant::now());
        assert_eq!(known(&outage), [Fault::Refused(Work::Store)]);
        outage.failed(Work::Read, Instant::now(), &away());
        assert_eq!(known(&outage).len(), 2, "an outage is told meanwhile");
        outage.succeeded(Work::Store, Instant::now());
        assert_eq!(known(&outage), []);
    }

    #[test]
    fn who_found_no_connection_free_tells_nothing() {
        let outage = alone();
        let work = pin!(outage.watch(Work::Read, async { Err::<(), _>(Error::Crowded) }));
        let done = work.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(done, Poll::Ready(Err(Error::Crowded))));
        assert_eq!(known(&outage), []);
    }

    #[test]
    fn one_of_two_workers_tells_and_the_other_when_that_one_is_gone() {
        let workers = Workers::default();
        let [first, second] = [workers.clone(), workers].map(Outage::new);
        for outage in [&first, &second] {
            outage.failed(Work::Store, Instant::now(), &away());
            outage.take_over();
            outage.failed(Work::Read, Instant::now(), &away());
        }
        assert_eq!((has_told(&first), has_told(&second)), (true, false));
        drop(first);
        let early = Instant::now();
        second.failed(Work::Read, early, &away());
        second.take_over();
        second.failed(Work::Store, early, &away());
        assert!(!has_told(&second), "the first may have seen the end since that was begun");
        second.failed(Work::Read, Instant::now(), &away());
        assert!(has_told(&second));
    }

    #[test]
    fn who_was_to_take_over_and_finds_the_database_back_leaves_it_to_the_next() {
        let workers = Workers::default();
        let [first, second] = [workers.clone(), workers].map(Outage::new);
        for outage in [&first, &second] {
            outage.failed(Work::Store, Instant::now(), &away());
        }
        first.succeeded(Work::Read, Instant::now());
        second.take_over();
        second.succeeded(Work::Read, Instant::now());
        assert_eq!(known(&second), []);
        first.failed(Work::Store, Instant::now(), &away());
        assert!(has_told(&first));
    }

    #[test]
    fn each_worker_tells_what_it_is_refused() {
        let workers = Workers::default();
        for outage in [workers.clone(), workers].map(Outage::new) {
            outage.failed(Work::Store, Instant::now(), &refused());
            assert!(has_told(&outage));
        }
    }
}
