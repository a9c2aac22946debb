//! An application whose answers go on: server-sent events, and messages on a WebSocket.
//!
//! | route | what happens |
//! |---|---|
//! | `/events?ms=N` | server-sent events, one every N milliseconds |
//! | `/socket?ms=N` | the same as messages on a WebSocket, which echoes what it is sent |
//! | `/farewell` | a WebSocket whose handler says goodbye in its own words when the worker drains |
//! | `/export?ms=N` | a document of unknown length, with a row every N milliseconds, without an end |
//!
//! A worker leaves two files: `told-PID` when it is told to drain, and `stopped-PID` with the number of its
//! handlers that have not ended, when `App::stopped` runs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Query;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::get;
use ferricorn::{App, BoxError, Draining, WorkerContext};
use http_body::Frame;
use tokio::time::{Interval, interval};

struct Live;

/// Handlers that have begun and not ended.
static HANDLERS: AtomicUsize = AtomicUsize::new(0);

impl App for Live {
    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let draining = worker.draining();
        tokio::spawn(async move {
            draining.begun().await;
            leave_file("told", "");
        });
        Ok(Router::new()
            .route("/", get("live\n"))
            .route("/events", get(events))
            .route("/socket", get(socket))
            .route("/farewell", get(farewell))
            .route("/export", get(export)))
    }

    async fn stopped(&self, _worker: &WorkerContext) {
        // ORDERING: a number that stands for itself: Relaxed.
        leave_file("stopped", &HANDLERS.load(Ordering::Relaxed).to_string());
    }
}

fn leave_file(name: &str, text: &str) {
    let pid = std::process::id();
    std::fs::write(format!("{name}-{pid}"), text).expect("the folder is ours");
}

/// One handler, or the body of its answer, while it runs.
struct Alive;

impl Alive {
    fn begin() -> Self {
        HANDLERS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        HANDLERS.fetch_sub(1, Ordering::Relaxed);
    }
}

type Numbers = Query<HashMap<String, u64>>;

fn pause(numbers: &Numbers) -> Interval {
    interval(Duration::from_millis(numbers.get("ms").copied().unwrap_or(100).max(1)))
}

/// The text of the event, message or row with this number. Long ones have a longer header on a WebSocket.
fn text(number: u64) -> String {
    format!("{number} {}", "x".repeat(if number.is_multiple_of(5) { 300 } else { 30 }))
}

/// A body that goes on.
struct Endless {
    pause: Interval,
    number: u64,
    write: fn(u64) -> String,
    _alive: Alive,
}

impl Endless {
    fn body(numbers: &Numbers, write: fn(u64) -> String) -> Body {
        Body::new(Self { pause: pause(numbers), number: 0, write, _alive: Alive::begin() })
    }
}

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pause.poll_tick(cx));
        self.number += 1;
        let bytes = (self.write)(self.number).into();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

async fn events(numbers: Numbers) -> Response<Body> {
    let event = |number| format!("data: {}\n\n", text(number));
    typed("text/event-stream", Endless::body(&numbers, event))
}

async fn export(numbers: Numbers) -> Response<Body> {
    typed("text/csv", Endless::body(&numbers, |number| format!("{}\n", text(number))))
}

fn typed(content_type: &str, body: Body) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, content_type).body(body).expect("a response")
}

async fn socket(numbers: Numbers, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let mut pause = pause(&numbers);
        let _alive = Alive::begin();
        let mut number = 0;
        loop {
            let message = tokio::select! {
                received = socket.recv() => match received {
                    Some(Ok(Message::Text(text))) => Message::Text(text),
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return,
                },
                _ = pause.tick() => {
                    number += 1;
                    Message::text(text(number))
                }
            };
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Its client hears more than a code.
async fn farewell(draining: Draining, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket: WebSocket| {
        let _alive = Alive::begin();
        tokio::select! {
            // A client that leaves before.
            _ = socket.recv() => return,
            () = draining.begun() => {}
        }
        let frame = CloseFrame { code: 1001, reason: "be back soon".into() };
        for message in [Message::text("goodbye"), Message::Close(Some(frame))] {
            if socket.send(message).await.is_err() {
                return;
            }
        }
        // Until the client has answered.
        while socket.recv().await.is_some_and(|received| received.is_ok()) {}
    })
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Live)
}
