//! Clients that leave while their requests are in hand.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::Frame;

use super::client::statuses;
use super::{LONG, Net, logs, run_within};
use crate::embed::BoxError;

/// Waits until no connection is open.
async fn closed(net: &Net) {
    while net.server.conns.count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until so many requests are in hand.
async fn held(net: &Net, count: usize) {
    while net.server.board.held().len() != count {
        // The lines of other tests must leave room for this one's.
        logs().flush();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn never(more: &str) -> String {
    format!("GET /never HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

/// A handler that waits, and one that streams without events.
const QUIET: [&str; 2] = ["/never", "/quiet"];

#[test]
fn a_reset_drops_the_handler_at_once() {
    run_within(LONG, [8, 1], "timeout = 0", |net| async move {
        for target in QUIET {
            let mut talk = net.connect().await;
            talk.say(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            held(&net, 1).await;
            talk.reset();
            closed(&net).await;
            held(&net, 0).await;
        }
        let lines = net.own_access_lines();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.contains(" aborted ")), "{lines:?}");
    });
}

/// The bytes that the client has sent behind its request hide neither its reset nor its FIN.
#[test]
fn a_reset_behind_a_pipelined_request_drops_the_handler() {
    run_within(LONG, [8, 2], "timeout = 0", |net| async move {
        let mut talk = net.connect().await;
        talk.say(never("")).await;
        held(&net, 1).await;
        talk.say(never("").repeat(3)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        talk.say(never("").repeat(3)).await;
        talk.reset();
        closed(&net).await;
        assert_eq!(net.counters.served().unchecked(), 1, "the requests behind it never began");
    });
}

#[test]
fn a_closed_unix_socket_drops_the_handler_at_once() {
    run_within(LONG, [8, 3], "timeout = 0", |net| async move {
        let mut talk = net.connect_unix().await;
        talk.say(never("")).await;
        held(&net, 1).await;
        drop(talk);
        closed(&net).await;
        held(&net, 0).await;
    });
}

#[test]
fn a_fin_leaves_the_handler_five_seconds() {
    run_within(LONG, [8, 4], "timeout = 0", |net| async move {
        let mut talks = Vec::new();
        for target in QUIET {
            let mut talk = net.connect().await;
            talk.say(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            talks.push(talk);
        }
        // A FIN that arrives together with its request, too.
        let mut whole = net.connect().await;
        whole.say(never("")).await;
        whole.hang_up().await;
        held(&net, 3).await;
        let begun = tokio::time::Instant::now();
        for talk in &mut talks {
            talk.hang_up().await;
        }
        // One that has not finished sending is served on.
        let mut faithful = net.connect().await;
        faithful.say(never("")).await;
        held(&net, 1).await;
        assert!(begun.elapsed() >= Duration::from_millis(4800), "{:?}", begun.elapsed());
        assert_eq!((net.server.conns.count(), net.own_access_lines().len()), (1, 3));
        for talk in &mut talks {
            assert!(!talk.rest().await.contains(" 408 "));
        }
    });
}

#[test]
fn a_half_closed_client_is_answered_within_its_time() {
    run_within(LONG, [8, 5], "", |net| async move {
        let mut talk = net.connect().await;
        talk.say("GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        talk.hang_up().await;
        assert_eq!(statuses(&talk.rest().await), [200, 200]);
    });
}

/// Bytes that were passed over while the handler ran are read afterwards.
#[test]
fn bytes_that_come_while_a_handler_runs_are_read_after_it() {
    run_within(LONG, [8, 6], "", |net| async move {
        let slow = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
        let body = "a".repeat(900);
        let post = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n{body}");
        for mut talk in [net.connect().await, net.connect_unix().await] {
            talk.say(slow).await;
            held(&net, 1).await;
            talk.say(&post[..200]).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            talk.say([&post[200..], slow, &post].concat()).await;
            for _ in 0..4 {
                assert_eq!(statuses(&talk.answer().await), [200]);
            }
        }
    });
}

/// The requests that were sent before a reset never reach a handler.
#[test]
fn a_request_of_a_client_that_was_reset_costs_no_handler() {
    run_within(LONG, [8, 7], "", |net| async move {
        let mut kept = net.connect().await;
        kept.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        kept.answer().await;
        for talk in [kept, net.connect().await] {
            // The event loop that serves runs nothing else in between.
            talk.say_and_reset(never("").as_bytes());
        }
        closed(&net).await;
        assert_eq!(net.counters.served().unchecked(), 1, "{:?}", net.own_access_lines());
    });
}

/// The body of a response that goes on without a frame, as one of server-sent events does.
pub(super) struct Quiet;

impl Quiet {
    pub(super) fn answer() -> Body {
        Body::new(Self)
    }
}

impl http_body::Body for Quiet {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Pending
    }
}
