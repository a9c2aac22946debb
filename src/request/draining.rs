//! The notice that a worker has been told to drain, for background tasks and for handlers.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::Notify;

use super::InHand;

/// The notice that this worker has been told to drain: an extractor for handlers of long answers, and for
/// background tasks [`crate::WorkerContext::draining`]. It is a flag, and a future that ends when the
/// worker is told, which is before anything is closed.
///
/// A handler that streams, or speaks a protocol of its own, can say goodbye in its own words. One that does
/// not is ended by ferricorn: an event stream whole after its current event, a WebSocket with a Close frame.
/// A background task ends: a worker that leads (see [`crate::WorkerContext::lead`]) leads until it does.
///
/// ```
/// # use std::time::Duration;
/// # use ferricorn::WorkerContext;
/// fn start(worker: &WorkerContext) {
///     let draining = worker.draining();
///     tokio::spawn(async move {
///         while !draining.is_draining() {
///             // Work that is done again and again.
///             tokio::select! {
///                 () = draining.begun() => {}
///                 () = tokio::time::sleep(Duration::from_secs(60)) => {}
///             }
///         }
///     });
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<Notice>);

#[derive(Debug, Default)]
struct Notice {
    is_draining: AtomicBool,
    /// The worker's tasks are dropped, or about to be.
    is_over: AtomicBool,
    begun: Notify,
}

// ORDERING: flags that stand for themselves: Relaxed. A task that is woken by the notice sees its flag, since
// `Notify` synchronizes.
impl Draining {
    /// Returns true from the time on at which the worker was told. Outside a ferricorn worker, as in a test
    /// of a handler, it never is.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Relaxed)
    }

    /// Waits until the worker is told.
    pub async fn begun(&self) {
        let mut begun = pin!(self.0.begun.notified());
        // From here on no notice is missed.
        begun.as_mut().enable();
        if !self.is_draining() {
            begun.await;
        }
    }

    pub(crate) fn begin(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
        self.0.begun.notify_waiters();
    }

    /// The runtime ends, and with it, in any order, all tasks.
    pub(crate) fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
    }
}

impl IntoFuture for Draining {
    type Output = ();
    type IntoFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.begun().await })
    }
}

impl<S: Sync> FromRequestParts<S> for Draining {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let in_hand: Option<&InHand> = parts.extensions.get();
        Ok(in_hand.map(|request| request.connection.draining().clone()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has a runtime of its own")]
    fn block_on(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn notice_reaches_those_that_wait_and_those_that_come_later() {
        block_on(async {
            let draining = Draining::default();
            let waits = tokio::spawn(draining.clone().into_future());
            tokio::task::yield_now().await;
            let early = tokio::time::timeout(Duration::ZERO, draining.begun()).await;
            assert!(early.is_err() && !draining.is_draining() && !waits.is_finished());
            draining.begin();
            waits.await.unwrap();
            draining.begun().await;
            assert!(draining.is_draining());
        });
    }
}
