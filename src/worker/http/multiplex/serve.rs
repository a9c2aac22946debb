//! Streams of HTTP/2, served by hyper.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::http::{Request, Response};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::TokioIo;

use super::farewell::Farewell;
use super::{EARLY_RESETS_MAX, ERRORS_MAX, FRAME, SEND_BUFFER};
use crate::logging::{self, Chain};
use crate::request::client::Client;
use crate::sys::{clock, socket};
use crate::worker::connection::conns::{CloseReason, Wait};
use crate::worker::connection::machine::Machine;
use crate::worker::connection::streams::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::worker::events::WorkerEvent;
use crate::worker::http::io::Watched;
use crate::worker::request::record::ConnEntry;
use crate::worker::request::service::{Answer, Answering, Requests};
use crate::worker::server::{Server, head_max};

/// Answers the requests of one connection.
#[derive(Debug)]
struct Multiplexed {
    requests: Requests,
    begun: Begun,
}

/// The stream whose request was handed to the service, until its task begins: the one follows the other.
#[derive(Clone, Debug, Default)]
struct Begun(Arc<Mutex<Option<Arc<ConnEntry>>>>);

impl Begun {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<ConnEntry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service<Request<Incoming>> for Multiplexed {
    type Response = Response<Pieces>;
    type Error = Infallible;
    type Future = AnsweringStream;

    fn call(&self, request: Request<Incoming>) -> AnsweringStream {
        let entry = Arc::new(ConnEntry::stream(&self.requests.entry));
        *self.begun.lock() = Some(Arc::clone(&entry));
        AnsweringStream { answering: self.requests.answer(&entry, request) }
    }
}

pin_project_lite::pin_project! {
    /// An answer on its way.
    struct AnsweringStream {
        #[pin]
        answering: Answering,
    }
}

impl Future for AnsweringStream {
    type Output = Result<Response<Pieces>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = ready!(self.project().answering.poll(cx));
        let pieces = |answer| Pieces { answer, rest: Bytes::new() };
        Poll::Ready(answered.map(|response| response.map(pieces)))
    }
}

/// The body of an answer, in pieces that fill a frame: hyper asks for one when the client has room for
/// it, which shows that the client reads.
#[derive(Debug)]
struct Pieces {
    answer: Answer,
    /// The rest of the last frame.
    rest: Bytes,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        // The piece before it was taken.
        this.answer.conn().note_blocked(false);
        if this.rest.is_empty() {
            let polled = Pin::new(&mut this.answer).poll_frame(cx);
            this.answer.conn().note_offered(matches!(polled, Poll::Ready(Some(_))));
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(FRAME));
        let conn = this.answer.conn();
        conn.note_unwritten(this.rest.len());
        if let Some(connection) = this.answer.connection() {
            connection.note_streams(|streams, _| streams.note_answer(piece.len()));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.answer.size_hint() } else { SizeHint::default() }
    }
}

/// Runs the tasks of a connection's streams.
#[derive(Clone, Debug)]
struct Tasks {
    connection: Arc<ConnEntry>,
    begun: Begun,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let begun = self.begun.lock().take();
        let server = &self.connection.server;
        match begun {
            Some(entry) => server.spawn(run(task, entry)),
            // What became of a CONNECT: it goes on when its request is over.
            None => {
                let entry = ConnEntry::stream(&self.connection);
                server.spawn(async move {
                    task.await;
                    drop(entry);
                });
            }
        }
    }
}

/// Runs a stream until it is over, or until its client has not read for too long: dropped, it is reset.
async fn run(task: impl Future<Output = ()>, entry: Arc<ConnEntry>) {
    let mut task = pin!(task);
    let conn = &entry.conn;
    loop {
        tokio::select! {
            biased;
            () = poll_fn(|cx| {
                if conn.is_closed_for(CloseReason::Reader) {
                    return Poll::Ready(());
                }
                let polled = task.as_mut().poll(cx);
                conn.note_blocked(polled.is_pending() && conn.is_offered());
                polled
            }) => return,
            // It is polled again, and finds out why.
            () = conn.woken.notified() => {}
        }
    }
}

impl Server {
    /// Serves the streams of a connection, until it ends.
    pub(in crate::worker) async fn multiplex(self: &Arc<Self>, watched: Watched, peer: Client) {
        let entry = Arc::clone(watched.entry());
        let conn = &entry.conn;
        let number = watched.socket();
        let requests = self.requests(&watched, peer);
        let begun = Begun::default();
        let tasks = Tasks { connection: Arc::clone(&entry), begun: begun.clone() };
        let serving = self
            .multiplexer(tasks)
            .serve_connection(TokioIo::new(watched), Multiplexed { requests, begun });
        let mut serving = pin!(serving);
        let mut farewell = None;
        let unsent = || socket::unsent_bytes(number).unwrap_or(0);
        let result = loop {
            let is_due = || {
                let is_goodbye_due = conn.note_streams(|streams, _| streams.is_goodbye_due);
                conn.is_closed_for(CloseReason::Idle) || is_goodbye_due == Some(true)
            };
            if farewell.is_none() && (self.is_draining() || is_due()) {
                let now = clock::coarse_millis();
                let is_idle = conn.wait() == Wait::Next;
                let idle_since = if is_idle { conn.with(|machine| machine.since()) } else { now };
                farewell = Some(Farewell::begin(now, idle_since, unsent()));
                serving.as_mut().graceful_shutdown();
                conn.note(Machine::goodbye_said);
            }
            match conn.reason() {
                // Its client has said nothing in time.
                Some(CloseReason::Head) => break Ok(()),
                Some(CloseReason::Silence) => {
                    let heard = conn.note_streams(|streams, now| (now, streams.heard_at));
                    let (now, heard_at) = heard.unwrap_or_default();
                    let most = self.limits.body_timeout;
                    let goes_on =
                        |farewell: &mut Farewell| farewell.goes_on(now, unsent(), heard_at, most);
                    if !farewell.as_mut().is_some_and(goes_on) {
                        break Ok(());
                    }
                    conn.note(Machine::lingers);
                }
                _ => {}
            }
            tokio::select! {
                biased;
                result = poll_fn(|cx| {
                    let polled = serving.as_mut().poll(cx);
                    if !conn.is_blocked() {
                        // All that the streams have ended with is with the kernel.
                        entry.settle();
                    }
                    polled
                }) => break result,
                () = conn.woken.notified() => {}
            }
        };
        if let Err(error) = result {
            let reason = Chain(&error).to_string();
            logging::emit(&WorkerEvent::ConnectionFailed { reason });
        }
    }

    fn multiplexer(&self, tasks: Tasks) -> http2::Builder<Tasks> {
        let mut builder = http2::Builder::new(tasks);
        let fields = u32::try_from(head_max(&self.limits)).unwrap_or(u32::MAX);
        builder
            .max_concurrent_streams(self.http2.max_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(u32::try_from(FRAME).unwrap_or(u32::MAX))
            .max_header_list_size(fields)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
            .max_local_error_reset_streams(ERRORS_MAX);
        builder
    }
}
