//! The bundled application: rows that are added and removed, in SQLite, PostgreSQL or MySQL.
//!
//! It is declared in the binary and sees only ferricorn's public API: what it cannot do through
//! that, no user can.

pub(crate) mod access;
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

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use ferricorn::config::{Bind, BindAddress};
use ferricorn::{App, BoxError, Config, PrepareContext, Setting, Slot, Subcommand, WorkerContext};

pub(crate) use access::{Access, Limits};
use outage::Siblings;
pub(crate) use service::Service;
use settings::Database;
use store::Start;

/// A process that is killed when `boot_timeout` is over cannot log the cause of its wait: it logs that
/// before.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The application. Each process has its own copy: a worker's service is empty until it is started.
#[derive(Debug)]
pub(crate) struct Records {
    service: OnceLock<Arc<Service>>,
    /// Made here, before the first fork: all workers count in them.
    limits: Arc<Limits>,
}

impl Records {
    /// The application of a process that is going to fork.
    ///
    /// # Errors
    /// The system's error about shared memory.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { service: OnceLock::new(), limits: Arc::new(Limits::new()?) })
    }

    fn access(&self, config: &Config) -> Result<Access, BoxError> {
        let table = access::Table::of(config)?;
        if table.with_users.is_some() {
            ferricorn::forbid_core_dump()?;
        }
        Ok(Access::new(&table, Arc::clone(&self.limits))?)
    }
}

/// Says at the first start that writing is open, and where.
fn report_open(context: &PrepareContext) {
    let config = context.config();
    let binds: Vec<String> = config.bind.iter().map(ToString::to_string).collect();
    let binds = binds.join(", ");
    let is_local = |bind: &Bind| match &bind.address {
        BindAddress::Tcp(address) => address.ip().is_loopback(),
        BindAddress::Unix(_) => true,
        BindAddress::Fd(_) => false,
    };
    if context.generation().number() != 1 {
        return;
    }
    if config.bind.iter().all(is_local) {
        tracing::info!("Writing is open to every client of {binds}: access.users is not set");
    } else {
        tracing::warn!("writing is open to every client of {binds}: access.users is not set");
    }
}

impl App for Records {
    const SETTINGS: &'static [Setting] = settings::SETTINGS;

    fn commands(&self) -> &'static [Subcommand] {
        access::COMMANDS
    }

    async fn prepare(&self, context: &PrepareContext) -> Result<(), BoxError> {
        let config = context.config();
        let table = access::Table::of(config)?;
        if table.with_users.is_some() {
            ferricorn::forbid_core_dump()?;
        } else {
            report_open(context);
        }
        access::prepare(&table)?;
        let database = Database::of(config)?;
        // Before the wait for it, which may be long.
        tracing::info!("Database: {}", database.target.described());
        let connect_timeout =
            database.connect_timeout.min(config.boot_timeout.saturating_sub(LAST_WORDS));
        if database.connect_timeout > config.boot_timeout {
            tracing::warn!(
                "database.connect_timeout is {:?}, and boot_timeout ends the start after {:?}: the \
                 database is waited for {connect_timeout:?}, unless boot_timeout is raised",
                database.connect_timeout,
                config.boot_timeout,
            );
        }
        let connections = u64::from(config.workers) * database.max_connections as u64;
        Ok(store::prepare(&database.target, Start { connect_timeout, connections }).await?)
    }

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let database = Database::of(worker.config())?;
        let access = self.access(worker.config())?;
        let (router, service) = start(database, access, worker.slot(), worker.clone());
        self.service.set(service).map_err(|_| "a worker's routes are built once")?;
        Ok(router)
    }

    async fn ready(&self, _worker: &WorkerContext) -> Result<(), BoxError> {
        let service = self.service.get().ok_or("the service has not begun")?;
        Ok(service.ready().await?)
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
    access: Access,
    slot: Slot,
    siblings: impl Siblings + 'static,
) -> (Router, Arc<Service>) {
    let service = Service::start(database, access, slot, siblings);
    (routes::router(Arc::clone(&service)), service)
}
