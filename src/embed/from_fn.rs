//! An application that is one function.

use std::fmt;
use std::future::Future;

use axum::Router;

use super::{App, BoxError, WorkerContext};

/// An application of a function that builds a worker's routes, as [`App::router`] does: all that a program
/// needs which called `axum::serve` before. Its name is ferricorn's; all else that [`App`] has is as by
/// default.
///
/// ```no_run
/// use axum::{Router, routing::get};
///
/// fn main() -> std::process::ExitCode {
///     ferricorn::main(ferricorn::from_fn(|_worker| async { Ok(routes().await) }))
/// }
///
/// async fn routes() -> Router {
///     Router::new().route("/", get("hello"))
/// }
/// ```
pub fn from_fn<F, R>(router: F) -> FromFn<F>
where
    F: Fn(WorkerContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Router, BoxError>> + Send,
{
    FromFn(router)
}

/// The application that [`from_fn`] makes.
#[derive(Clone, Copy)]
pub struct FromFn<F>(F);

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFn")
    }
}

impl<F, R> App for FromFn<F>
where
    F: Fn(WorkerContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Router, BoxError>> + Send,
{
    fn router(
        &self,
        worker: &WorkerContext,
    ) -> impl Future<Output = Result<Router, BoxError>> + Send {
        (self.0)(worker.clone())
    }
}
