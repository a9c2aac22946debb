//! Passwords are tried on threads beside the event loop, one at a time in each worker.
//!
//! # Why
//! A trial takes tens of milliseconds and 19 MiB. On the event loop every other request would wait for
//! it; without a bound, a flood of logins would take the processors and the memory.

use std::sync::Arc;

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::hash::Hash;

/// Trials at once, in each worker.
const RUNNING_MAX: usize = 1;
/// Logins that wait for their trial, or have it, in each worker; more are answered 503.
const WAITING_MAX: usize = 16;

/// Tries passwords.
#[derive(Debug)]
pub(super) struct Hasher {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

/// Too many logins wait, or the worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Default for Hasher {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }
}

impl Hasher {
    /// Returns true if the hash is that of the password.
    ///
    /// # Errors
    /// When too many others wait.
    pub(super) async fn verify(
        &self,
        hash: &Hash,
        password: Zeroizing<String>,
    ) -> Result<bool, Busy> {
        let _place = self.waiting.try_acquire().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Busy)?;
        let hash = hash.clone();
        // The turn ends with the trial, also where the client has gone meanwhile.
        let trial = tokio::task::spawn_blocking(move || {
            let verified = hash.verify(&password);
            drop(turn);
            verified
        });
        trial.await.map_err(|_| Busy)
    }
}
