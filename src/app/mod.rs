//! The bundled application: rows that are added and removed, in SQLite, PostgreSQL or MySQL.
//!
//! It is declared in the binary and sees only ferricorn's public API: what it cannot do through
//! that, no user can.

mod answer;
mod fault;
pub(crate) mod outage;
mod page;
mod record;
mod routes;
mod service;
pub(crate) mod settings;
mod shield;
pub(crate) mod store;
mod unread;
mod writer;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use ferricorn::{App, BoxError, PrepareContext, Setting, Slot, WorkerContext};

use outage::Siblings;
pub(crate) use service::Service;
use settings::Database;
use store::Start;

/// Who is killed when `boot_timeout` is over cannot say what it has waited for: it says so before.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The application. Each process has its own copy: a worker's service is empty until it is started.
#[derive(Debug, Default)]
pub(crate) struct Records {
    service: OnceLock<Arc<Service>>,
}

impl App for Records {
    const SETTINGS: &'static [Setting] = settings::SETTINGS;

    async fn prepare(&self, context: &PrepareContext) -> Result<(), BoxError> {
        let config = context.config();
        let database = Database::of(config)?;
        let patience = database.connect_timeout.min(config.boot_timeout.saturating_sub(LAST_WORDS));
        if database.connect_timeout > config.boot_timeout {
            tracing::warn!(
                "database.connect_timeout is {:?}, and boot_timeout ends the start after {:?}: the \
                 database is waited for {patience:?}, unless boot_timeout is raised",
                database.connect_timeout,
                config.boot_timeout,
            );
        }
        let connections = u64::from(config.workers) * database.max_connections as u64;
        Ok(store::prepare(&database.target, Start { patience, connections }).await?)
    }

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let database = Database::of(worker.config())?;
        let (router, service) = start(database, worker.slot(), worker.clone());
        self.service.set(service).map_err(|_| "a worker's routes are built once")?;
        Ok(router)
    }

    async fn stopped(&self, _worker: &WorkerContext) {
        if let Some(service) = self.service.get() {
            service.finish().await;
        }
    }
}

/// Starts a worker's part, on the current runtime: what is served, and what is finished at the end.
pub(crate) fn start(
    database: Database,
    slot: Slot,
    siblings: impl Siblings + 'static,
) -> (Router, Arc<Service>) {
    let service = Service::start(database, slot, siblings);
    (routes::router(Arc::clone(&service)), service)
}
