//! Server-sent events: a stream that ends by itself when its worker is drained, after a last event.
//! The browser connects again, and another worker goes on from the last id that it has seen.
//!
//! Try: `curl -N 127.0.0.1:5000/events`, and a reload (`kill -HUP` the master).
use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::{Router, routing::get};
use ferricorn::{App, BoxError, Draining, WorkerContext};
use futures_util::stream::{Stream, unfold};

struct Ticks;

impl App for Ticks {
    const NAME: &'static str = "sse";

    async fn router(&self, _: &WorkerContext) -> Result<Router, BoxError> {
        Ok(Router::new().route("/events", get(events)))
    }
}

async fn events(
    draining: Draining,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let next = seen.map_or(0, |id: u64| id + 1);
    let stream = unfold(Some(next), move |next| {
        let draining = draining.clone();
        async move {
            let id = next?;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    Some((Ok(Event::default().id(id.to_string()).data("tick")), Some(id + 1)))
                }
                // Its id stays the last one, so nothing is left out.
                () = draining.begun() => {
                    Some((Ok(Event::default().event("goodbye").data("come again")), None))
                }
            }
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Ticks)
}
