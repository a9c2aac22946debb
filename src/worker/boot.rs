//! The boot of a worker: it asks the application for its routes before it serves.

use std::sync::Arc;

use axum::Router;

use super::request::health::Health;
use super::request::own;
use super::server::Routes;
use super::telemetry::Telemetry;
use crate::embed::{App, BoxError, Process, WorkerContext};
use crate::listeners::Listeners;
use crate::tls::Acceptor;

/// An application that can serve.
pub(super) struct Booted {
    pub(super) routes: Routes,
    pub(super) telemetry: Telemetry,
}

/// Sets the process's layers of `tracing`, and builds the routes.
///
/// # Errors
/// The application's.
pub(super) async fn boot<A: App>(
    app: &Arc<A>,
    context: &WorkerContext,
    listeners: &Listeners,
    tls: Option<Acceptor>,
) -> Result<Booted, BoxError> {
    let telemetry = Telemetry::start(&**app, Process::Worker(context))?;
    match routes(app, context, listeners, tls).await {
        Ok(routes) => Ok(Booted { routes, telemetry }),
        Err(error) => {
            telemetry.end().await;
            Err(error)
        }
    }
}

/// Builds the routes.
///
/// # Errors
/// The application's.
pub(super) async fn routes<A: App>(
    app: &Arc<A>,
    context: &WorkerContext,
    listeners: &Listeners,
    tls: Option<Acceptor>,
) -> Result<Routes, BoxError> {
    // Else axum makes every route anew for each of its requests.
    let router = app.service(None, context).await?.0.with_state(());
    let mut named: Vec<(&'static str, Router)> = Vec::new();
    for (name, address) in listeners.named() {
        if named.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let known = A::LISTENERS.iter().find(|known| **known == name);
        let name =
            *known.ok_or_else(|| format!("no routes for the listener {name} ({address})"))?;
        named.push((name, app.service(Some(name), context).await?.0.with_state(())));
    }
    Ok(Routes {
        router,
        named,
        takes_connect: A::CONNECT,
        own_answers: app.own_answers(context, own::router()).map(|own| own.with_state(())),
        body_limits: context.body_limits.limits(),
        health: Arc::new(Health::of(app, context)),
        tls,
        draining: context.draining.clone(),
    })
}
