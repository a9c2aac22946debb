//! The database's faults in the error log of a worker: the cause once when they begin, and once that
//! they are over, however many requests meet them.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// What is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The database is away: whatever work succeeds shows that it is back.
    Away,
    /// The database is there, and one kind of work fails, by a lock, say, or a disk that is full:
    /// that others succeed does not end it.
    Refused(Work),
}

/// A fault that was logged, and is not over.
#[derive(Debug)]
struct Known {
    fault: Fault,
    began: Instant,
    /// When it was last met. Work that had begun before says nothing of what is now.
    met: Instant,
}

/// What is out of order now.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Vec<Known>,
    /// When the database was last found to be back.
    back: Option<Instant>,
}

impl Outage {
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
        state.back.is_some_and(|back| then < back)
            || state.known.iter().any(|known| known.fault == Fault::Away)
    }

    fn failed(&self, work: Work, begun: Instant, error: &Error) {
        let fault = if error.is_away() { Fault::Away } else { Fault::Refused(work) };
        let mut state = self.locked();
        if fault == Fault::Away && state.back.is_some_and(|back| begun < back) {
            // It was begun during an outage that is over.
            return;
        }
        let now = Instant::now();
        if let Some(known) = state.known.iter_mut().find(|known| known.fault == fault) {
            known.met = now;
        } else {
            state.known.push(Known { fault, began: now, met: now });
            tracing::error!("failed to {work}: {error}; answering 503 until it works");
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
        for Known { fault, began, .. } in ended {
            if fault == Fault::Away {
                state.back = Some(Instant::now());
            }
            let seconds = began.elapsed().as_secs_f32();
            tracing::info!("able to {work} again after {seconds:.1} s");
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
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

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
        let outage = Outage::default();
        outage.failed(Work::Delete, Instant::now(), &away());
        outage.failed(Work::Store, Instant::now(), &away());
        assert_eq!(known(&outage), [Fault::Away], "one fault, one line");
        outage.succeeded(Work::Read, Instant::now());
        assert_eq!(known(&outage), []);
    }

    #[test]
    fn what_was_on_its_way_neither_ends_an_outage_nor_begins_one() {
        let outage = Outage::default();
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
        let outage = Outage::default();
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
        let outage = Outage::default();
        let work = pin!(outage.watch(Work::Read, async { Err::<(), _>(Error::Crowded) }));
        let done = work.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(done, Poll::Ready(Err(Error::Crowded))));
        assert_eq!(known(&outage), []);
    }
}
