//! The contract with an application: what it gives, what it is told, and how the two are run.

use std::future::Future;
use std::sync::Arc;

use crate::config::Config;
use crate::config::settings::Setting;
use crate::error::Error;
use crate::ids::{Generation, Slot};

/// Any error that an application may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An application that ferricorn can serve. One value is made in the master and copied into every
/// child by `fork`: open pools, files and connections in [`App::router`], not before.
pub trait App: Send + Sync + 'static {
    /// The settings of the application's own tables. They have the same layers, provenance and error
    /// messages as ferricorn's; read them with [`Config::section`].
    const SETTINGS: &'static [Setting] = &[];

    /// Makes the world ready for a generation's workers: waits for the database, runs migrations.
    /// Runs once for each generation, in a short-lived process of its own.
    fn prepare(
        &self,
        context: &PrepareContext,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// Builds a worker's routes. Runs once in each worker, after the fork, inside its runtime.
    fn router(
        &self,
        worker: &WorkerContext,
    ) -> impl Future<Output = Result<axum::Router, BoxError>> + Send;

    /// Called in a leaving worker after its last request.
    fn stopped(&self, worker: &WorkerContext) -> impl Future<Output = ()> + Send {
        let _ = worker;
        async {}
    }
}

/// What [`App::prepare`] may know.
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

/// What a worker may know of itself.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: Generation,
    pub(crate) slot: Slot,
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
}

/// Binds, forks and supervises; returns when the last worker is gone.
///
/// # Errors
/// See [`Error`]; [`Error::exit_code`] is what the process should exit with.
pub fn run(config: Config, app: impl App) -> Result<(), Error> {
    let _ = (config, app);
    unimplemented!("the master is being built")
}
