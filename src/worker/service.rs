//! One request, from its head to the last byte of its answer.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, Request, Response, StatusCode, request};
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use tower::Service as _;

use super::body::Upload;
use super::conns::{Conn, Fault, Kick, Wait};
use super::server::Server;
use super::strict;
use super::ticket::Ticket;
use crate::deadline::Deadline;

/// Answers the requests of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) router: Router,
    pub(super) server: Arc<Server>,
    pub(super) conn: Arc<Conn>,
    pub(super) peer: Option<SocketAddr>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.conn.note_request();
        let (mut head, body) = request.into_parts();
        let length = body.size_hint().exact();
        let mut ticket = Ticket::new(&self.server, &self.conn, &head, self.peer);
        ticket.body = length.unwrap_or(0);
        let answer = match strict::refuse(&head, length, &self.server.limits) {
            Some(status) => Running::Refused { status },
            None => {
                self.extend(&mut head);
                let body = if body.is_end_stream() {
                    Body::empty()
                } else {
                    Body::new(Upload::new(body, Arc::clone(&self.conn), self.server.limits.body))
                };
                let future = self.router.clone().call(Request::from_parts(head, body));
                Running::Routed { future }
            }
        };
        Answering { running: answer, ticket: Some(ticket) }
    }
}

impl Requests {
    /// What handlers may ask for.
    fn extend(&self, head: &mut request::Parts) {
        head.extensions.insert(Deadline::new(Arc::clone(&self.conn)));
        if let Some(peer) = self.peer {
            head.extensions.insert(ConnectInfo(peer));
        }
    }
}

pin_project_lite::pin_project! {
    #[project = RunningProjection]
    enum Running {
        Refused { status: StatusCode },
        Routed { #[pin] future: RouteFuture<Infallible> },
    }
}

pin_project_lite::pin_project! {
    /// An answer on its way.
    pub(super) struct Answering {
        #[pin]
        running: Running,
        // Taken by the answer. Dropped with this, it says that the client went away.
        ticket: Option<Ticket>,
    }
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let ticket = this.ticket.as_ref().expect("a future is not polled after its end");
        let conn = &ticket.conn;
        let response = match this.running.project() {
            RunningProjection::Refused { status } => plain(*status),
            RunningProjection::Routed { .. } if conn.kick() == Kick::Answer => {
                ticket.warn_of_timeout();
                plain(StatusCode::GATEWAY_TIMEOUT)
            }
            RunningProjection::Routed { future } => {
                let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
                match polled {
                    Ok(polled) => match ready!(polled) {
                        Ok(response) => response,
                        Err(never) => match never {},
                    },
                    Err(_) => {
                        // The panic hook has written what and where.
                        ticket.warn_of_panic();
                        plain(StatusCode::INTERNAL_SERVER_ERROR)
                    }
                }
            }
        };
        let ticket = this.ticket.take().expect("it was there above");
        Poll::Ready(Ok(finish(response, ticket)))
    }
}

/// Puts on the answer what the connection's state asks for.
fn finish(response: Response<Body>, mut ticket: Ticket) -> Response<Answer> {
    let mut response = match ticket.conn.fault() {
        Fault::None => response,
        Fault::TooLong => plain(StatusCode::PAYLOAD_TOO_LARGE),
        Fault::Stalled => plain(StatusCode::REQUEST_TIMEOUT),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        ticket.conn.set(Wait::Other);
    } else if ticket.server.is_leaving() && !ticket.conn.has_more(ticket.body) {
        // Said on the last answer only: what is pipelined behind it is still answered.
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    ticket.note_head(&response);
    response.map(|body| Answer { body, ticket })
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// An answer of our own. The connection is closed behind it: the request may not have been read whole.
fn plain(status: StatusCode) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("error");
    let mut response = Response::new(Body::from(format!("{{\"error\":\"{reason}\"}}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, CLOSE);
    response
}

/// The body of an answer on its way out. When it is dropped the request is over, and is logged.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    ticket: Ticket,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.ticket.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
