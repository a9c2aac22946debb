//! The database's faults in the error log: the cause once when a fault begins, and one line when it
//! is over, however many requests and workers meet it.
//!
//! All workers meet a database that is away. One of them logs it, the leader of that fault: it asks
//! the database each second, logs the end, and leads no more. The others ask, too: one that still
//! fails when no worker leads becomes the leader, and logs it.

mod faults;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferricorn::{WorkerContext, WorkerLoad};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::store::Error;
pub(crate) use faults::{FaultKind, Work};
use faults::{Faults, Over};

/// The workers that may meet the same fault.
pub(crate) trait Siblings: fmt::Debug + Send + Sync {
    /// Makes this worker the one that logs this fault, until the lead is dropped. `None`: another one
    /// does.
    fn lead(&self, fault: FaultKind) -> Option<Lead>;

    /// The workers that serve now.
    fn workers(&self) -> Vec<WorkerLoad> {
        Vec::new()
    }
}

/// The right to log a fault.
pub(crate) type Lead = Box<dyn fmt::Debug + Send>;

impl Siblings for WorkerContext {
    fn lead(&self, fault: FaultKind) -> Option<Lead> {
        let matter = match fault {
            FaultKind::Away => 0,
            FaultKind::Unwritable => 1,
            FaultKind::Unreadable => 2,
            FaultKind::Undeletable => 3,
        };
        self.lead_on(matter).map(|lead| Box::new(lead) as Lead)
    }

    fn workers(&self) -> Vec<WorkerLoad> {
        Self::workers(self)
    }
}

/// The faults that this worker meets now.
#[derive(Debug)]
pub(crate) struct Outage {
    siblings: Box<dyn Siblings>,
    faults: Mutex<Faults>,
    begun: Notify,
}

impl Outage {
    /// No fault has been met.
    pub(crate) fn new(siblings: impl Siblings + 'static) -> Self {
        Self { siblings: Box::new(siblings), faults: Mutex::default(), begun: Notify::new() }
    }

    /// The workers that serve now.
    pub(crate) fn workers(&self) -> Vec<WorkerLoad> {
        self.siblings.workers()
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
        // Of [`Error::Crowded`] the database knows nothing.
        let done = self.doubt(work, doing).await;
        if done.is_ok() {
            self.locked().succeeded(work, begun, Instant::now());
        }
        done
    }

    /// Returns true if the database is away, or was at any time since then, as far as is known.
    pub(crate) fn was_away_since(&self, then: Instant) -> bool {
        self.locked().was_away_since(then)
    }

    /// Does a piece of work of which success shows nothing, and logs what is new in a failure.
    ///
    /// # Errors
    /// Those of the work.
    pub(crate) async fn doubt<T>(
        &self,
        work: Work,
        doing: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let done = doing.await;
        match &done {
            Ok(_) | Err(Error::Crowded) => {}
            Err(error) => self.failed(work, begun, error),
        }
        done
    }

    /// Returns true if the last work that could show this fault has met it.
    pub(crate) fn is_met(&self, fault: FaultKind) -> bool {
        self.locked().is_met(fault)
    }

    /// Returns true if this fault was met, and is not over for good.
    pub(crate) fn is_open(&self, fault: FaultKind) -> bool {
        self.locked().is_open(fault)
    }

    /// Returns true if no fault is open.
    pub(crate) fn is_over(&self) -> bool {
        self.locked().is_empty()
    }

    /// Waits until a fault is met.
    pub(crate) async fn begins(&self) {
        self.begun.notified().await;
    }

    /// Makes this worker log the faults that it still meets and that no other worker logs.
    pub(crate) fn claim_lead(&self) {
        self.locked().claim_lead(Instant::now(), |fault| self.siblings.lead(fault));
    }

    /// Logs the ends of the faults that are over by now.
    pub(crate) fn settle(&self) {
        log(self.locked().settle(Instant::now()));
    }

    /// The same in a worker that leaves, and cannot wait whether a fault comes back.
    pub(crate) fn settle_for_good(&self) {
        log(self.locked().settle_for_good());
    }

    fn failed(&self, work: Work, begun: Instant, error: &Error) {
        let fault = FaultKind::of(work, error);
        let lead = || self.siblings.lead(fault);
        if self.locked().failed(fault, begun, Instant::now(), lead) {
            tracing::error!("cannot {fault}: {error}; answering 503 until it works");
        }
        self.begun.notify_one();
    }

    fn locked(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(ends: Vec<Over>) {
    for end in ends {
        match end {
            Over::Well(fault, took) => {
                tracing::info!("able to {fault} again after {:.1} s", took.as_secs_f32());
            }
            Over::Forgotten(fault) => {
                let seconds = faults::FORGOTTEN.as_secs();
                tracing::info!("no attempt to {fault} has failed for {seconds} s");
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
