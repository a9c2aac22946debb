//! Answers and protocols that go on, and how a drain ends them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use axum::http::{Response, StatusCode};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Interval, interval};

use super::client::{Talk, statuses};
use super::outgoing::closed;
use super::{LONG, Net, run_within};
use crate::worker::long::Turn;
use crate::worker::long::frames::CLOSE;

/// Answers with an event every few milliseconds, without an end.
pub(super) async fn events() -> Response<Body> {
    let body = Body::new(Events { pause: interval(Duration::from_millis(3)), number: 0 });
    Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).expect("a response")
}

struct Events {
    pause: Interval,
    number: u64,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.pause.poll_tick(cx));
        self.number += 1;
        Poll::Ready(Some(Ok(Frame::data(format!("data: {}\n\n", self.number).into()))))
    }
}

/// Bytes of a message's first half, and of its second.
const HALVES: [&[u8]; 2] = [&[0x01, 2, b'a', b'b'], &[0x80, 2, b'c', b'd']];

/// Switches to the protocol that the client names. Each byte of the client's is answered with half a message;
/// at the client's end, and at an error, the handler ends.
pub(super) async fn upgrade(request: Request) -> Response<Body> {
    let protocol = request.headers()[UPGRADE].clone();
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.expect("it is upgraded");
        let mut stream = TokioIo::new(upgraded);
        for half in HALVES.into_iter().cycle() {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap_or(0) == 0
                || stream.write_all(half).await.is_err()
            {
                return;
            }
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let response = response.header(CONNECTION, "upgrade").header(UPGRADE, protocol);
    response.body(Body::empty()).expect("a response")
}

impl Net {
    async fn upgraded(&self, protocol: &str) -> Talk {
        let mut talk = self.connect().await;
        talk.say(format!(
            "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        ))
        .await;
        assert_eq!(statuses(&talk.answer().await), [101]);
        talk
    }
}

#[test]
fn event_stream_ends_whole_and_is_logged_with_its_bytes() {
    run_within(LONG, [10, 1], "", |net| async move {
        let mut talk = net.connect().await;
        talk.say("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut text = talk.until("data: 5\n\n").await;
        assert_eq!(net.server.longs.count(Turn::First), 1);
        net.server.longs.end(Turn::First, 1);
        text += &talk.until("\r\n0\r\n\r\n").await;
        // The connection is kept: what the client asks next is answered.
        talk.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!(statuses(&talk.rest().await), [200]);
        text.truncate(text.len() - "\r\n0\r\n\r\n".len());
        assert!(text.ends_with("\n\n"), "{text:?}");
        let events = text.matches("data: ").count();
        let bytes: usize = (1..=events).map(|number| format!("data: {number}\n\n").len()).sum();
        net.counted(2).await;
        let lines = net.own_access_parts();
        assert!(lines[0].0.contains("\"GET /events HTTP/1.1\" 200 drained"), "{lines:?}");
        assert_eq!(lines[0].1, bytes.to_string());
        assert_eq!(net.server.longs.count(Turn::First), 0);
    });
}

#[test]
fn websocket_ends_with_close_between_two_messages() {
    run_within(LONG, [10, 2], "", |net| async move {
        let mut talk = net.upgraded("WebSocket").await;
        talk.say("x").await;
        assert_eq!(talk.exactly(HALVES[0].len()).await, HALVES[0]);
        net.server.longs.end(Turn::First, 1);
        // It is in the middle of a message: that one ends first.
        talk.say("x").await;
        let end = [HALVES[1], &CLOSE].concat();
        assert_eq!(talk.exactly(end.len()).await, end);
        // What the handler writes behind the Close frame is not sent.
        talk.say("xx").await;
        talk.hang_up().await;
        assert_eq!(talk.rest().await, "");
        net.counted(1).await;
        let lines = net.own_access_parts();
        assert!(lines[0].0.contains("\"GET /upgrade HTTP/1.1\" 101 drained"), "{lines:?}");
        assert_eq!(lines[0].1, (HALVES.concat().len() + CLOSE.len()).to_string());
    });
}

#[test]
fn idle_websocket_ends_with_close_at_once() {
    run_within(LONG, [10, 3], "", |net| async move {
        let mut talk = net.upgraded("websocket").await;
        net.server.longs.end(Turn::First, 1);
        assert_eq!(talk.exactly(CLOSE.len()).await, CLOSE);
        // A client that does not answer has five seconds.
        net.server.longs.cut_silent(crate::sys::clock::monotonic_millis() + 5000);
        assert_eq!(talk.rest().await, "");
        closed(&net).await;
        assert!(net.own_access_lines()[0].contains(" 101 drained "));
    });
}

#[test]
fn websocket_that_ends_by_itself_is_logged_then() {
    run_within(LONG, [10, 4], "", |net| async move {
        let mut talk = net.upgraded("websocket").await;
        talk.say("x").await;
        talk.exactly(HALVES[0].len()).await;
        assert_eq!(net.own_access_lines().len(), 0);
        talk.hang_up().await;
        assert_eq!(talk.rest().await, "");
        net.counted(1).await;
        let lines = net.own_access_parts();
        assert!(lines[0].0.contains(" 101 ok "), "{lines:?}");
        assert_eq!(lines[0].1, "4");
    });
}

#[test]
fn other_protocol_goes_on_until_it_is_cut() {
    run_within(LONG, [10, 5], "", |net| async move {
        let mut talk = net.upgraded("chat").await;
        net.server.longs.end(Turn::First, 9);
        net.server.longs.end(Turn::Second, 9);
        talk.say("x").await;
        assert_eq!(talk.exactly(HALVES[0].len()).await, HALVES[0]);
        net.server.cut();
        assert_eq!(talk.rest().await, "");
        closed(&net).await;
        assert!(net.own_access_lines()[0].contains(" 101 lost "));
    });
}

/// At the deadline no handler is left: one that waits, one that streams, one that speaks a WebSocket.
#[test]
fn cut_ends_every_connection() {
    run_within(LONG, [10, 6], "", |net| async move {
        let mut talks = vec![net.upgraded("websocket").await];
        for target in ["/never", "/events"] {
            let mut talk = net.connect().await;
            talk.say(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            talks.push(talk);
        }
        talks[2].until("data: 2\n\n").await;
        net.server.cut();
        closed(&net).await;
        let close = String::from_utf8_lossy(&CLOSE).into_owned();
        assert_eq!(talks[0].rest().await, close, "the last chance for a Close frame");
        assert!(!talks[2].rest().await.ends_with("0\r\n\r\n"), "a cut answer is not whole");
        let lines = net.own_access_lines();
        assert_eq!(lines.iter().filter(|line| line.contains(" lost ")).count(), 2, "{lines:?}");
    });
}
