//! One request, from its head to the last byte of its answer.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::CONNECTION;
use axum::http::{Request, Response, StatusCode, request};
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use tower::Service as _;

use super::body::Upload;
use super::conns::{Conn, Fault, Kick, Wait};
use super::own::{CLOSE, Own};
use super::strict::Seen;
use super::ticket::{Entry, Ticket};
use super::{forwarded, strict};
use crate::client::Client;
use crate::request_id::{RequestId, X_REQUEST_ID};

/// Answers the requests of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) router: Router,
    pub(super) entry: Arc<Entry>,
    pub(super) peer: Client,
    /// Whether the peer is a proxy whose forwarding headers are believed.
    pub(super) is_forwarder: bool,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let Entry { server, conn, .. } = &*self.entry;
        self.entry.begin();
        let (mut head, body) = request.into_parts();
        let mut seen = Seen::new(&head.headers, &server.fields.request);
        let client = if self.is_forwarder && seen.forwarded {
            forwarded::client(&head.headers, self.peer, &server.forwarders)
        } else {
            self.peer
        };
        let id = RequestId::of_request(seen.id());
        let length = body.size_hint().exact();
        let kept = (client, id.clone(), std::mem::take(&mut seen.named));
        let mut ticket = Ticket::new(&self.entry, &head, kept);
        ticket.body = length.unwrap_or(0);
        let running = match strict::judge(&head, &seen, length, &server.limits) {
            Some(own) => {
                if !body.is_end_stream() {
                    conn.note_unread();
                }
                Running::Own { own }
            }
            None => {
                strict::settle_host(&mut head);
                self.extend(&mut head, client, id);
                let body = if body.is_end_stream() {
                    Body::empty()
                } else {
                    Body::new(Upload::new(body, Arc::clone(conn), server.limits.body))
                };
                let future = self.router.clone().call(Request::from_parts(head, body));
                Running::Routed { future }
            }
        };
        Answering { running, ticket: Some(ticket) }
    }
}

/// What ferricorn's extractors know of the request in hand: one entry among its extensions for all of
/// them, since each costs an allocation.
#[derive(Clone, Debug)]
pub(crate) struct InHand {
    pub(crate) conn: Arc<Conn>,
    pub(crate) client: Client,
    pub(crate) id: RequestId,
}

impl Requests {
    /// What handlers may ask for.
    fn extend(&self, head: &mut request::Parts, client: Client, id: RequestId) {
        head.extensions.insert(InHand { conn: Arc::clone(&self.entry.conn), client, id });
        if let Some(peer) = self.peer.peer() {
            head.extensions.insert(ConnectInfo(peer));
        }
    }
}

pin_project_lite::pin_project! {
    #[project = RunningProjection]
    enum Running {
        Own { own: Own },
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
            RunningProjection::Own { own } => own.response(),
            RunningProjection::Routed { .. } if conn.kick() == Kick::Answer => {
                ticket.warn_of_timeout();
                Own::Timeout.response()
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
                        Own::Panic.response()
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
        Fault::TooLong => Own::BodyTooLong.response(),
        Fault::Stalled => Own::BodyStalled.response(),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        ticket.conn.set(Wait::Other);
    } else if ticket.server.is_leaving() && !ticket.conn.heads.has_more(ticket.body) {
        // Said on the last answer only: what is pipelined behind it is still answered.
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    response.headers_mut().insert(X_REQUEST_ID, ticket.id().to_value());
    ticket.note_head(&response);
    response.map(|body| Answer { body, ticket })
}

/// The body of an answer on its way out. When it is dropped hyper has all of it, or nobody wants it.
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
            self.ticket.note_sent(frame.data_ref().map_or(0, Bytes::len));
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
