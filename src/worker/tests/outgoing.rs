//! A request is over when the kernel has its answer, not when hyper has: an answer that is not taken is
//! in hand until it is cut off, and then it was not answered.

use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::Request;
use http_body::Frame;

use super::client::{Talk, body, statuses};
use super::{BIG, LONG, Net, run, run_within};
use crate::embed::BoxError;
use crate::request::client::Scheme;
use crate::request::local::Origin;
use crate::sys::socket;
use crate::worker::request::phases::Arrival;
use crate::worker::request::record::{ConnEntry, InFlight};
use crate::{Client, RequestId};

const GET_BIG: &str = "GET /big HTTP/1.1\r\nHost: a\r\n\r\n";

async fn narrow(net: &Net) -> Talk {
    Talk::tcp_narrow(net.from.into(), net.address).await
}

/// Waits until these targets, and no others, are on the worker's board.
async fn held(net: &Net, targets: &[&str]) {
    let held = || -> Vec<String> {
        net.server.board.held().iter().map(|held| held.target.to_string()).collect()
    };
    while held() != targets {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

pub(super) async fn closed(net: &Net) {
    while net.server.conns.count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// The kernel takes the last of such an answer in pieces, and its client reads it late: by then a
/// connection that waited for its next request would rest, without what is still to be written.
#[test]
fn short_answers_to_a_client_that_reads_late_are_whole() {
    run_within(LONG, [6, 99], "", |net| async move {
        socket::narrow(net.listener().as_fd()).expect("every socket has a buffer");
        let mut talk = narrow(&net).await;
        let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(99) + last).await;
        let mut idle = net.connect().await;
        idle.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        net.rested(1).await;
        assert_eq!(statuses(&talk.rest().await), vec![200; 100]);
        drop(idle);
    });
}

#[test]
fn an_answer_that_is_taken_is_over_then() {
    run_within(LONG, [6, 1], "", |net| async move {
        let answer = net.ask("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!(body(&answer).len(), BIG);
        held(&net, &[]).await;
        let line = net.own_access_lines().join("\n");
        assert!(line.starts_with(r#"http "GET /big HTTP/1.1" 200 ok "#), "{line}");
    });
}

#[test]
fn an_answer_that_nobody_takes_is_in_hand_until_it_is_cut_off() {
    run([6, 2], "", |net| async move {
        let mut talk = narrow(&net).await;
        talk.say(GET_BIG).await;
        held(&net, &["/big"]).await;
        closed(&net).await;
        held(&net, &[]).await;
        let line = net.own_access_lines().join("\n");
        assert!(line.starts_with(r#"http "GET /big HTTP/1.1" 200 aborted "#), "{line}");
        drop(talk);
    });
}

#[test]
fn what_a_draining_worker_cuts_off_is_lost() {
    run([6, 3], "", |net| async move {
        let mut talk = narrow(&net).await;
        talk.say(GET_BIG).await;
        held(&net, &["/big"]).await;
        net.server.cut();
        closed(&net).await;
        let line = net.own_access_lines().join("\n");
        assert!(line.starts_with(r#"http "GET /big HTTP/1.1" 200 lost "#), "{line}");
        drop(talk);
    });
}

#[test]
fn an_answer_that_its_handler_does_not_finish_is_none() {
    run([6, 4], "", |net| async move {
        net.ask("GET /cut-short HTTP/1.1\r\nHost: a\r\n\r\n").await;
        net.counted(1).await;
        let line = net.own_access_lines().join("\n");
        assert!(line.starts_with(r#"http "GET /cut-short HTTP/1.1" 200 aborted "#), "{line}");
    });
}

#[test]
fn answers_without_a_body_are_answers() {
    run([6, 5], "", |net| async move {
        for (request, expected) in [
            ("HEAD /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 204),
            ("GET / HTTP/1.0\r\n\r\n", 200),
        ] {
            assert_eq!(statuses(&net.ask(request).await), [expected]);
        }
        let lines = net.own_access_lines();
        assert!(lines.iter().all(|line| line.contains(" ok ")), "{lines:?}");
        assert_eq!(lines.len(), 3);
    });
}

/// A connection's stream goes before its last request does. Its number, by which that request has its
/// place on the board, is no other's meanwhile.
#[test]
fn a_number_is_in_use_as_long_as_a_request_has_it() {
    run([6, 8], "", |net| async move {
        let head = Request::builder().uri("/last").body(()).unwrap().into_parts().0;
        let entry = Arc::new(ConnEntry::new(&net.server, None, None, Origin::default()));
        let client = Client::direct(None, Scheme::Http);
        let id = RequestId::of_request(None);
        let in_flight = InFlight::new(&entry, &head, Arrival::default(), client, id, Vec::new());
        let number = entry.conn.number;
        entry.close();
        drop(entry);
        let other = ConnEntry::new(&net.server, None, None, Origin::default());
        assert_ne!(other.conn.number, number);
        held(&net, &["/last"]).await;
        drop(in_flight);
        held(&net, &[]).await;
        assert_eq!(ConnEntry::new(&net.server, None, None, Origin::default()).conn.number, number);
    });
}

/// Requests in a row, of which the client reads no answer: the connection ends as for one.
#[test]
fn a_client_that_pipelines_and_never_reads_is_cut_off() {
    run([6, 6], "timeout = 1", |net| async move {
        let whole = "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        for requests in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", whole] {
            let mut talk = narrow(&net).await;
            // As many as are taken.
            talk.say(requests.repeat(20_000)).await;
            closed(&net).await;
        }
        held(&net, &[]).await;
    });
}

/// The rest of a request may come after its answer. It neither hides that the answer is not taken, nor
/// makes the next request out of it.
#[test]
fn a_body_that_comes_after_its_answer_does_not_keep_the_connection() {
    run([6, 7], "timeout = 1", |net| async move {
        let mut talk = narrow(&net).await;
        talk.say("POST /ignore-big HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").await;
        held(&net, &["/ignore-big"]).await;
        talk.say(["abc", GET_BIG].concat()).await;
        closed(&net).await;
        held(&net, &[]).await;
    });
}

/// An answer that its handler does not finish.
#[derive(Default)]
pub(super) struct CutShort {
    has_begun: bool,
}

impl CutShort {
    pub(super) fn answer() -> Body {
        Body::new(Self::default())
    }
}

impl http_body::Body for CutShort {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = if std::mem::replace(&mut self.has_begun, true) {
            Err("that was all".into())
        } else {
            Ok(Frame::data(Bytes::from_static(b"a part of it")))
        };
        Poll::Ready(Some(frame))
    }
}
