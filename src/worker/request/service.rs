//! One request, from its head to the last byte of its answer.

use std::convert::Infallible;
use std::future::Future;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, Entry};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, request};
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use tower::Service as _;

use super::body::Upload;
use super::health::Probe;
use super::own::{self, CLOSE, Own};
use super::record::{ConnEntry, InFlight};
use super::strict::Seen;
use super::{addressless, strict};
use crate::embed::ServiceFailed;
use crate::request::body_limits::Limit;
use crate::request::client::Client;
use crate::request::id::{RequestId, X_REQUEST_ID};
use crate::sys::socket;
use crate::worker::connection::conns::{CloseReason, Conn, Fault};
use crate::worker::connection::machine::Machine;
use crate::worker::events::WorkerEvent;
use crate::worker::long::{Fate, Long, LongKind, Side};
use crate::worker::proxy::forwarded;
use crate::worker::proxy::forwarded::Contradiction;

/// Answers the requests of one connection.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) router: Router,
    pub(crate) entry: Arc<ConnEntry>,
    /// The number of the connection's socket, which is open as long as a request is in hand.
    pub(crate) socket: RawFd,
    pub(crate) peer: Client,
    /// True if the peer is a proxy whose forwarding headers are believed.
    pub(crate) is_forwarder: bool,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.answer(&self.entry, request)
    }
}

impl Requests {
    /// Answers a request of this connection, or of this stream of it.
    pub(crate) fn answer(&self, entry: &Arc<ConnEntry>, request: Request<Incoming>) -> Answering {
        let ConnEntry { server, conn, .. } = &**entry;
        let arrival = entry.begin();
        let (mut head, body) = request.into_parts();
        let seen = Seen::new(&head.headers, &server.fields.request);
        if let Some(connection) = entry.connection() {
            connection.note_streams(|streams, _| streams.note_fields(strict::length(&head)));
        }
        let client = if self.is_forwarder && seen.forwarded {
            let family = server.forwarded_fields;
            forwarded::client(&head.headers, self.peer, &server.forwarders, family)
        } else {
            Ok(self.peer)
        };
        let contradiction = client.err().map(|Contradiction| Own::Forwarded);
        let client = client.unwrap_or(self.peer);
        let id = RequestId::of_request(seen.id());
        let length = body.size_hint().exact();
        let routes = &server.routes;
        let has_body = !body.is_end_stream();
        let limit = if has_body { routes.body_limits.of(head.uri.path()) } else { Limit::None };
        let judged = strict::judge(&head, &seen, length, &server.limits, limit.bytes());
        let mut in_flight = InFlight::new(entry, &head, arrival, client, id, seen.named);
        in_flight.body = length;
        if seen.is_healthcheck && !seen.forwarded {
            in_flight.note_healthcheck();
        }
        let is_tunnel = !has_body && routes.takes_tunnel(&head);
        let judged = judged.filter(|own| *own != Own::Tunnel || !is_tunnel);
        let own = contradiction.or(judged);
        // For the layers around what may still be answered in the application's place.
        let asked = routes.own_answers.as_ref().map(|_| Box::new(head.clone()));
        let probed = || routes.health.probe(&head.method, head.uri.path());
        let probe = own.map(Probe::Known).or_else(probed);
        let running = match probe {
            Some(probe) => {
                if has_body {
                    conn.with(Machine::body_dropped);
                    if let Some(connection) = entry.connection() {
                        connection.note_streams(|streams, _| streams.note_unread(length));
                    }
                }
                match probe {
                    Probe::Known(own) => Running::Own { own },
                    Probe::Asked(future) => Running::Asked { future },
                }
            }
            None => {
                strict::settle_host(&mut head);
                // The facts that handlers may ask for.
                head.extensions.insert(in_flight.in_hand());
                if let Some(peer) = self.peer.peer() {
                    head.extensions.insert(ConnectInfo(peer));
                }
                let request = if has_body {
                    let upload = Upload::new(body, entry, limit.bytes());
                    let mut request = Request::from_parts(head, Body::new(upload));
                    limit.apply(&mut request);
                    request
                } else {
                    Request::from_parts(head, Body::empty())
                };
                Running::Routed { future: self.router.clone().call(request) }
            }
        };
        Answering { running, asked, is_tunnel, socket: self.socket, in_flight: Some(in_flight) }
    }
}

pin_project_lite::pin_project! {
    #[project = RunningProjection]
    enum Running {
        Own { own: Own },
        // The application is asked whether it is ready.
        Asked { future: Pin<Box<dyn Future<Output = Own> + Send>> },
        Routed { #[pin] future: RouteFuture<Infallible> },
        // An answer of the server's own, in the application's layers.
        Layered { own: Own, #[pin] future: RouteFuture<Infallible> },
    }
}

pin_project_lite::pin_project! {
    /// An answer on its way.
    pub(crate) struct Answering {
        #[pin]
        running: Running,
        // The head of the request, where the application has layers for the server's own answers.
        asked: Option<Box<request::Parts>>,
        // True for a CONNECT that the application has been given.
        is_tunnel: bool,
        socket: RawFd,
        // Taken by the answer. Dropped with this, it says that the client went away.
        in_flight: Option<InFlight>,
    }
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let in_flight = this.in_flight.as_ref().expect("a future is not polled after its end");
        let mut answer = ready!(this.running.as_mut().poll(cx, in_flight));
        if let (Reply::Own(own), Some(head)) = (&answer, this.asked.take()) {
            let future = layered(*own, *head, in_flight);
            if let Some(future) = future {
                this.running.set(Running::Layered { own: *own, future });
                answer = ready!(this.running.as_mut().poll(cx, in_flight));
            }
        }
        let response = match answer {
            Reply::Own(own) => own.response(in_flight.scheme()),
            Reply::Whole(response) => response,
        };
        let in_flight = this.in_flight.take().expect("it was there above");
        Poll::Ready(Ok(finish(response, in_flight, *this.socket, *this.is_tunnel)))
    }
}

/// The answer to a request.
enum Reply {
    /// An answer of the server's own.
    Own(Own),
    Whole(Response<Body>),
}

/// Sends an answer of the server's own through the application's layers.
fn layered(
    own: Own,
    head: request::Parts,
    in_flight: &InFlight,
) -> Option<RouteFuture<Infallible>> {
    if head.method == Method::CONNECT {
        // axum has rules of its own for CONNECT, and no page sends it.
        return None;
    }
    let mut router = in_flight.server.routes.own_answers.clone()?;
    let mut request = Request::from_parts(head, Body::empty());
    request.extensions_mut().insert(own::Given { own, scheme: in_flight.scheme() });
    request.extensions_mut().insert(in_flight.in_hand());
    catch_unwind(AssertUnwindSafe(|| router.call(request))).ok()
}

impl Running {
    /// Returns the answer, once it is known.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, in_flight: &InFlight) -> Poll<Reply> {
        let conn = &in_flight.conn;
        let is_late = conn.is_closed_for(CloseReason::Answer);
        match self.project() {
            RunningProjection::Own { own } => Poll::Ready(Reply::Own(*own)),
            RunningProjection::Asked { future } => future.as_mut().poll(cx).map(Reply::Own),
            RunningProjection::Routed { .. } if is_late => {
                in_flight.warn_of_timeout();
                Poll::Ready(Reply::Own(Own::Timeout))
            }
            RunningProjection::Routed { future } => match ready!(run(future, cx, in_flight)) {
                Some(response) => Poll::Ready(match conn.fault() {
                    Fault::None => addressed(response, cx, in_flight),
                    Fault::TooLong => Reply::Own(Own::BodyTooLong),
                    Fault::Stalled => Reply::Own(Own::BodyStalled),
                    Fault::Malformed => Reply::Own(Own::Chunks),
                }),
                None => {
                    // The panic hook has written what and where.
                    in_flight.warn(|method, path| WorkerEvent::HandlerPanicked { method, path });
                    Poll::Ready(Reply::Own(Own::Panic))
                }
            },
            RunningProjection::Layered { own, future } => match run(future, cx, in_flight) {
                Poll::Ready(Some(mut response)) => {
                    own.insist(&mut response);
                    Poll::Ready(Reply::Whole(response))
                }
                Poll::Ready(None) => Poll::Ready(Reply::Own(*own)),
                Poll::Pending if is_late => Poll::Ready(Reply::Own(*own)),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

/// The application's answer, unless its service has failed, or axum gave it for want of an address that
/// no client on a unix socket has.
fn addressed(response: Response<Body>, cx: &mut Context<'_>, in_flight: &InFlight) -> Reply {
    if response.status() != StatusCode::INTERNAL_SERVER_ERROR {
        return Reply::Whole(response);
    }
    if let Some(ServiceFailed(reason)) = response.extensions().get() {
        let reason = reason.clone();
        in_flight.warn(|method, path| WorkerEvent::ServiceFailed { method, path, reason });
        return Reply::Own(Own::Panic);
    }
    if in_flight.peer.is_some() {
        return Reply::Whole(response);
    }
    match addressless::read(response, cx) {
        Some(response) => Reply::Whole(response),
        None => {
            in_flight.warn(|method, path| WorkerEvent::AddressMissing { method, path });
            Reply::Own(Own::NoAddress)
        }
    }
}

/// Runs the application's code; `None` when it panics.
fn run(
    future: Pin<&mut RouteFuture<Infallible>>,
    cx: &mut Context<'_>,
    in_flight: &InFlight,
) -> Poll<Option<Response<Body>>> {
    let board = &in_flight.server.board;
    board.set_running(in_flight.conn.number, true);
    let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
    board.set_running(in_flight.conn.number, false);
    match polled {
        Ok(polled) => polled.map(|answered| match answered {
            Ok(response) => Some(response),
            Err(never) => match never {},
        }),
        Err(_) => Poll::Ready(None),
    }
}

/// Puts on the answer what the connection's state asks for.
fn finish(
    mut response: Response<Body>,
    mut in_flight: InFlight,
    socket: RawFd,
    is_tunnel: bool,
) -> Response<Answer> {
    let is_open = is_tunnel && response.status().is_success();
    let kind = if is_open { Some(LongKind::Upgrade) } else { LongKind::of(&response) };
    in_flight.note_answered(kind);
    let mut long = kind.map(|kind| in_flight.server.longs.begin(kind));
    if let Some(connection) = in_flight.connection() {
        // HTTP/2 says it of the connection, not in an answer.
        response.headers_mut().remove(CONNECTION);
        if in_flight.server.is_closing() || !in_flight.server.keeps_alive {
            connection.say_goodbye();
        }
    } else if is_open || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        long.take().into_iter().for_each(|long| in_flight.begin_upgrade(long));
    } else if is_tunnel {
        // What the client has sent for its tunnel must not be read as a request.
        response.headers_mut().insert(CONNECTION, CLOSE);
    } else if in_flight.server.ends(&in_flight, in_flight.body) && !is_followed(&in_flight, socket)
    {
        // Said on the last answer only: what is pipelined behind it is still answered.
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    settle_id(response.headers_mut(), &mut in_flight);
    in_flight.note_head(&response);
    response.map(|body| Answer { body, in_flight, long, is_last: false })
}

/// Gives the answer the request's id, unless the application has set one: that one is what the
/// application logs, so the access log names it too. One that is no text is replaced.
fn settle_id(headers: &mut HeaderMap, in_flight: &mut InFlight) {
    match headers.entry(X_REQUEST_ID) {
        Entry::Vacant(place) => {
            place.insert(in_flight.id().to_value());
        }
        Entry::Occupied(mut place) => match RequestId::of_answer(place.get()) {
            Some(id) => in_flight.set_id(id),
            None => {
                place.insert(in_flight.id().to_value());
            }
        },
    }
}

/// Returns true if a further request waits behind this one, in the socket or in what hyper has read
/// ahead. Behind chunks one may be seen that is none: who is not idle for long shall be told of the end
/// even so.
fn is_followed(in_flight: &InFlight, socket: RawFd) -> bool {
    if in_flight.body.is_none() && in_flight.server.is_insisting() {
        return false;
    }
    // hyper does not read while a handler runs.
    let unread = socket::unread_bytes(socket).unwrap_or(0);
    let unread = unread.saturating_add(in_flight.conn.buffered());
    in_flight.conn.with(|machine| machine.is_followed(in_flight.body, unread))
}

/// The body of an answer on its way out. When it is dropped hyper has all of it, or its client has gone.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Body,
    in_flight: InFlight,
    /// Of an answer without an end of its own.
    long: Option<Long>,
    /// True if the answer ends here.
    is_last: bool,
}

impl Answer {
    /// The state of its connection, or of its stream of HTTP/2.
    pub(crate) fn conn(&self) -> &Conn {
        &self.in_flight.conn
    }

    /// The connection, of an answer in a stream of HTTP/2.
    pub(crate) fn connection(&self) -> Option<&Conn> {
        self.in_flight.connection()
    }

    /// Returns true if the answer ends here, where its body has no frame to give or has given its last
    /// one.
    fn ends(&mut self, cx: &Context<'_>) -> bool {
        let fate = self.long.as_ref().map(|long| long.watch(Side::Write, cx.waker()));
        self.is_last = matches!(fate, Some(Fate::Ends));
        if self.is_last {
            self.in_flight.note_drained();
        }
        self.is_last
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.is_last {
            return Poll::Ready(None);
        }
        let board = &this.in_flight.server.board;
        let number = this.in_flight.conn.number;
        board.set_running(number, true);
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        board.set_running(number, false);
        match polled {
            Poll::Pending if this.ends(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                this.ends(cx);
                this.in_flight.note_sent(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => Poll::Ready(end),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_last || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
