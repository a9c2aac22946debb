//! A worker within another program's process: for tests of applications.
//!
//! # What is left out
//! There is no master, no fork and no logger: no heartbeat is looked at, no access line is written, and
//! `tracing` is the program's own. Everything between a connection and the application is there.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::boot::routes;
use super::drain::WorkerEnd;
use super::heartbeat::keep_heartbeat;
use super::server::{Position, Server};
use crate::config::Config;
use crate::embed::{App, BoxError, PrepareContext, Tasks, WorkerContext};
use crate::ids::{Generation, Slot, SlotSet};
use crate::listeners::Listeners;
use crate::request::body_limits::Declared;
use crate::request::draining::Draining;
use crate::scoreboard::{SlotBoard, WorkerBoard};
use crate::sys::exec::Passed;

/// A worker that serves an application.
#[derive(Debug)]
pub(crate) struct InProcess<A> {
    app: Arc<A>,
    context: WorkerContext,
    server: Arc<Server>,
    address: SocketAddr,
    /// Addresses of the listeners with a name.
    named: Vec<(String, SocketAddr)>,
    heartbeat: JoinHandle<()>,
}

/// A context without a server.
///
/// # Errors
/// The system's error about shared memory.
pub(crate) fn worker_context(config: Config) -> Result<WorkerContext, BoxError> {
    let declared = Declared::new(config.limits.body);
    Ok(WorkerContext {
        config: Arc::new(config),
        generation: Generation::FIRST,
        slot: Slot::new(0),
        counters: Arc::new(SlotBoard::new()?),
        body_limits: declared,
        draining: Draining::default(),
        tasks: Tasks::default(),
    })
}

impl<A: App> InProcess<A> {
    /// Prepares the application, and serves it from now on.
    ///
    /// # Errors
    /// The application's, and those of listening.
    pub(crate) async fn start(app: A, config: Config) -> Result<Self, BoxError> {
        let app = Arc::new(app);
        let context = worker_context(config)?;
        let config = Arc::clone(&context.config);
        let generation = context.generation;
        app.prepare(&PrepareContext { config: Arc::clone(&config), generation }).await?;
        let listeners = Listeners::open(&config, &[], Passed::default(), 1)?;
        let socket = |name: &str| name.strip_prefix("http://")?.parse().ok();
        let address = listeners.names().iter().find_map(|name| socket(name));
        let address = address.ok_or("bind names no TCP address")?;
        let named = listeners.named();
        let named = named.filter_map(|(name, address)| Some((name.to_owned(), socket(&address)?)));
        let named = named.collect();
        let routes = routes(&app, &context, &listeners, None).await?;
        let connections = usize::try_from(config.worker_connections).unwrap_or(usize::MAX);
        let position = Position {
            slot: context.slot,
            generation,
            counters: Arc::clone(&context.counters),
            board: Arc::new(WorkerBoard::new(connections)?),
        };
        let server = Arc::new(Server::new(position, &config, routes, listeners, 0));
        server.place.take();
        server.accept_from(&SlotSet::from_iter([context.slot]));
        let heartbeat =
            tokio::spawn(keep_heartbeat(Arc::clone(&server), None, config.stall_timeout));
        Ok(Self { app, context, server, address, named, heartbeat })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the listeners with a name listen.
    pub(crate) fn named(&self) -> &[(String, SocketAddr)] {
        &self.named
    }

    /// The worker's context.
    pub(crate) fn context(&self) -> &WorkerContext {
        &self.context
    }

    /// Drains as a worker does when the server stops.
    pub(crate) async fn stop(self) {
        let config = Arc::clone(&self.context.config);
        let never = std::future::pending;
        self.context.draining.begin();
        WorkerEnd::Stop.finish(&self.server, &config, never()).await;
        WorkerEnd::Stop.wait_for_tasks(&self.server, &self.context, never()).await;
        self.app.stopped(&self.context).await;
        self.heartbeat.abort();
    }
}
