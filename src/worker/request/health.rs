//! Liveness and readiness, answered for every application before its routes.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::http::Method;

use super::own::Own;
use crate::config;
use crate::embed::{App, BoxError, WorkerContext};
use crate::ids::Slot;
use crate::logging;
use crate::logging::Chain;
use crate::worker::events::WorkerEvent;

/// The time that the application has to return its readiness.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

type Asked = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// The probes of one worker.
pub(crate) struct Health {
    paths: config::Health,
    slot: Slot,
    ask: Box<dyn Fn() -> Asked + Send + Sync>,
    /// False from an answer of the application that it is not ready to the next that it is.
    was_ready: AtomicBool,
    is_stopping: AtomicBool,
}

/// The answer to a probe.
pub(crate) enum Probe {
    Known(Own),
    /// The application is asked.
    Asked(Pin<Box<dyn Future<Output = Own> + Send>>),
}

// ORDERING: flags that stand for themselves: Relaxed.
impl Health {
    /// The probes of this application.
    pub(crate) fn of<A: App>(app: &Arc<A>, context: &WorkerContext) -> Self {
        let app = Arc::clone(app);
        let context = context.clone();
        Self::new(context.config.health.clone(), context.slot, move || {
            let app = Arc::clone(&app);
            let context = context.clone();
            async move { app.ready(&context).await }
        })
    }

    /// Probes at these paths; `ask` is [`crate::App::ready`].
    pub(crate) fn new<F>(
        paths: config::Health,
        slot: Slot,
        ask: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let ask = Box::new(move || -> Asked { Box::pin(ask()) });
        let was_ready = AtomicBool::new(true);
        let is_stopping = AtomicBool::new(false);
        Self { paths, slot, ask, was_ready, is_stopping }
    }

    /// Returns true if a probe is asked for at this path.
    pub(crate) fn is_probe(&self, path: &str) -> bool {
        path == self.paths.live || path == self.paths.ready
    }

    /// The server stops: no worker is ready any more.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// The answer to a request for this path; `None` if it is the application's.
    pub(crate) fn probe(self: &Arc<Self>, method: &Method, path: &str) -> Option<Probe> {
        if !self.is_probe(path) {
            return None;
        }
        Some(match *method {
            Method::OPTIONS => Probe::Known(Own::ProbeOptions),
            Method::GET | Method::HEAD if path == self.paths.live => Probe::Known(Own::Alive),
            Method::GET | Method::HEAD => self.ready(),
            _ => Probe::Known(Own::ProbeMethod),
        })
    }

    fn ready(self: &Arc<Self>) -> Probe {
        if self.is_stopping() {
            return Probe::Known(Own::Stopping);
        }
        let health = Arc::clone(self);
        Probe::Asked(Box::pin(async move {
            let answer = tokio::time::timeout(READY_TIMEOUT, health.asked()).await;
            let answer = answer.unwrap_or_else(|_| {
                Err(format!("it did not say so within {} s", READY_TIMEOUT.as_secs()).into())
            });
            // The application may have closed its pools meanwhile.
            if health.is_stopping() {
                return Own::Stopping;
            }
            health.note(answer)
        }))
    }

    /// The application's own answer; a panic is none that it is ready.
    async fn asked(&self) -> Result<(), BoxError> {
        let panicked = || -> BoxError { "its check panicked".into() };
        let mut asked = catch_unwind(AssertUnwindSafe(|| (self.ask)())).map_err(|_| panicked())?;
        poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| asked.as_mut().poll(cx)));
            Poll::Ready(match polled {
                Ok(polled) => ready!(polled),
                Err(_) => Err(panicked()),
            })
        })
        .await
    }

    /// Logs what is new in the answer.
    fn note(&self, answer: Result<(), BoxError>) -> Own {
        let was_ready = self.was_ready.swap(answer.is_ok(), Ordering::Relaxed);
        let slot = self.slot;
        match answer {
            Ok(()) => {
                if !was_ready {
                    logging::emit(&WorkerEvent::ReadyAgain { slot });
                }
                Own::Ready
            }
            Err(error) => {
                if was_ready {
                    let reason = Chain(error.as_ref()).to_string();
                    logging::emit(&WorkerEvent::Unready { slot, reason });
                }
                Own::Unready
            }
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("paths", &self.paths).finish_non_exhaustive()
    }
}
