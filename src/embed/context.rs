//! The contexts of an application's processes.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{BoxError, Tasks};
use crate::config::Config;
use crate::ids::{Generation, Slot};
use crate::request::body_limits::Declared;
use crate::request::draining::Draining;
use crate::scoreboard::{Load, MATTERS, NAMED_LEASES, SlotBoard};
use crate::shared::{Lead, Lease};

/// The time for which a worker whose task has returned leaves the lease to others.
const PAUSE_AFTER_LEAD: Duration = Duration::from_millis(100);

/// The context of [`App::prepare`](crate::App::prepare).
#[derive(Clone, Debug)]
pub struct PrepareContext {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: Generation,
}

impl PrepareContext {
    /// The configuration of the generation that is being prepared.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The generation that is being prepared.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

/// The context of a worker.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: Generation,
    pub(crate) slot: Slot,
    pub(crate) counters: Arc<SlotBoard>,
    pub(crate) body_limits: Declared,
    pub(crate) draining: Draining,
    pub(crate) tasks: Tasks,
}

/// A worker that serves: see [`WorkerContext::workers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerLoad {
    /// The worker's slot.
    pub slot: Slot,
    /// Connections that the worker has open.
    pub connections: u32,
    /// Requests answered in the slot since the start of the server, by this worker and the ones before it.
    pub requests: u64,
}

impl WorkerContext {
    /// The configuration of this worker's generation.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration's generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The worker's place, from 0: stable over its replacements.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The workers that serve now, by slot.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerLoad> {
        let load = |load: Load| WorkerLoad {
            slot: load.slot,
            connections: load.open,
            requests: self.counters.served_in(load.slot).unchecked(),
        };
        self.counters.loads(self.config.workers).map(load).collect()
    }

    /// Sets how many bytes the body of a request to this path may have, instead of `limits.body`; 0: as
    /// many as it likes. A longer body is answered 413 before the application sees the request. The path
    /// is written as in [`axum::Router::route`], whole: `/files/{name}`.
    ///
    /// Call it in [`App::router`](crate::App::router). axum's own extractors take as many bytes then;
    /// a route's [`DefaultBodyLimit`](axum::extract::DefaultBodyLimit) can still lower that.
    ///
    /// # Errors
    /// When the path is malformed, or has a limit already.
    pub fn limit_body(&self, path: &str, bytes: u64) -> Result<(), BoxError> {
        Ok(self.body_limits.set(path, bytes)?)
    }

    /// The notice that this worker is told to drain, for background tasks.
    #[must_use]
    pub fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// Makes this worker the leader, for what one worker is to do for all of them: to log an outage that
    /// each of them meets, say. There is one leader in a server, over all generations: it leads until
    /// what this returns is dropped, or its process ends. `None`: another one leads, or something else
    /// in this worker has it lead.
    #[must_use]
    pub fn lead(&self) -> Option<Lead> {
        self.lead_on(0)
    }

    /// The same in one of several matters, each of which has its own leader. The numbers are the
    /// application's own, from 0 to 7; [`lead`](Self::lead) is about matter 0. See
    /// [`lease`](Self::lease) for matters with names.
    ///
    /// # Panics
    /// When there is no such matter.
    #[must_use]
    pub fn lead_on(&self, matter: u8) -> Option<Lead> {
        assert!(matter < MATTERS, "matters are numbered from 0 to {}", MATTERS - 1);
        let place = usize::from(matter);
        self.lease_at(place, &format!("matter {matter}")).take()
    }

    /// The lease with this name, which one worker of the server has at a time: over all generations, and
    /// over an upgrade in place.
    ///
    /// # Errors
    /// When the server has 56 other names already: they are never forgotten.
    pub fn lease(&self, name: &str) -> Result<Lease, BoxError> {
        match self.counters.find_lease(name) {
            Some(place) => Ok(self.lease_at(place, name)),
            None => Err(format!(
                "cannot make the lease {name:?}: the server has {NAMED_LEASES} others, which is the \
                 most; use fewer names"
            )
            .into()),
        }
    }

    /// Starts a background task that a drain waits for, within `graceful_timeout`: it is told of the drain
    /// by [`draining`](Self::draining), and must end then, or no reload is fast. What goes on is cut, and
    /// logged.
    ///
    /// # Panics
    /// Outside a runtime. Call it in [`App::router`](crate::App::router), or later.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn(task)
    }

    /// Starts a background task that runs in one worker of the server at a time: the one that has the
    /// [`lease`](Self::lease) of this name. When that worker is drained or dies, or its task returns or
    /// panics, another worker runs it, or the same one again where there is no other. It is waited for
    /// like those of [`spawn`](Self::spawn), and is given the lease's fencing number.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    pub fn spawn_leader<F, T>(&self, name: &str, mut task: F) -> Result<JoinHandle<()>, BoxError>
    where
        F: FnMut(u64) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let lease = self.lease(name)?;
        let draining = self.draining();
        Ok(self.spawn(async move {
            while !draining.is_draining() {
                let lead = tokio::select! {
                    lead = lease.hold() => lead,
                    () = draining.begun() => return,
                };
                if let Ok(running) = catch_unwind(AssertUnwindSafe(|| task(lead.fence()))) {
                    until_end_or_panic(running).await;
                }
                drop(lead);
                // Others have waited for longer.
                tokio::time::sleep(PAUSE_AFTER_LEAD).await;
            }
        }))
    }

    fn lease_at(&self, place: usize, name: &str) -> Lease {
        Lease::new(Arc::clone(&self.counters), self.draining.clone(), place, name)
    }
}

/// Runs a task. A panic, which the panic hook has logged, ends it like a return.
async fn until_end_or_panic(task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        polled.unwrap_or(Poll::Ready(()))
    })
    .await;
}

/// A process that [`App::telemetry`](crate::App::telemetry) gives layers to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Process<'a> {
    /// The master, before its first fork. It serves nothing.
    Master(&'a Config),
    /// The process that runs [`App::prepare`](crate::App::prepare).
    Prepare(&'a PrepareContext),
    /// A worker.
    Worker(&'a WorkerContext),
}
