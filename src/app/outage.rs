//! The database's faults in the error log: the cause once when they begin, and once that they are
//! over, however many requests meet them.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::store::Error;

/// What is known of one kind of work.
#[derive(Debug)]
pub(crate) struct Outage {
    /// What cannot be done, as in "failed to …".
    work: &'static str,
    since: Mutex<Option<Instant>>,
}

impl Outage {
    /// None yet.
    pub(crate) const fn of(work: &'static str) -> Self {
        Self { work, since: Mutex::new(None) }
    }

    /// Learns how a piece of work went, and logs what is new in it.
    ///
    /// # Errors
    /// Those it is given.
    pub(crate) fn note<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match (&result, *since) {
            (Ok(_), None) | (Err(_), Some(_)) => {}
            (Err(error), None) => {
                *since = Some(Instant::now());
                tracing::error!("failed to {}: {error}; answering 503 until it works", self.work);
            }
            (Ok(_), Some(began)) => {
                *since = None;
                let seconds = began.elapsed().as_secs_f32();
                tracing::info!("able to {} again after {seconds:.1} s", self.work);
            }
        }
        result
    }
}
