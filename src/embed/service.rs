//! Any tower service in the place of a router.

use std::convert::Infallible;
use std::fmt;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use tower::{Service, ServiceExt as _};

use super::BoxError;

/// The service of a listener: a `Router`, or any other tower service, such as a router of another version
/// of axum, tonic's `Routes`, or a function over a service of hyper. [`App::service`](crate::App::service)
/// returns it.
#[derive(Clone)]
pub struct HttpService(pub(crate) Router);

impl HttpService {
    /// Any tower service. It is cloned for each request, and called when it is ready. An error of its own is
    /// logged and answered 500.
    ///
    /// ```
    /// # use axum::{body::Body, http::{Request, Response}};
    /// # use ferricorn::{App, BoxError, HttpService, WorkerContext};
    /// struct Plain;
    ///
    /// impl App for Plain {
    ///     async fn service(
    ///         &self,
    ///         _listener: Option<&str>,
    ///         _worker: &WorkerContext,
    ///     ) -> Result<HttpService, BoxError> {
    ///         Ok(HttpService::new(tower::service_fn(|request: Request<Body>| async move {
    ///             Ok::<_, BoxError>(Response::new(format!("{} without a router\n", request.uri())))
    ///         })))
    ///     }
    /// }
    /// ```
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let serve = tower::service_fn(move |request| {
            let answering = service.clone().oneshot(request);
            async move {
                Ok::<_, Infallible>(match answering.await {
                    Ok(response) => response.map(Body::new),
                    Err(error) => ServiceFailed(error.into().to_string()).response(),
                })
            }
        });
        Self(Router::new().fallback_service(serve))
    }
}

impl From<Router> for HttpService {
    fn from(router: Router) -> Self {
        Self(router)
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService").finish_non_exhaustive()
    }
}

/// The error of a service, among the extensions of the answer in its place.
#[derive(Clone, Debug)]
pub(crate) struct ServiceFailed(pub(crate) String);

impl ServiceFailed {
    fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.extensions_mut().insert(self);
        response
    }
}
