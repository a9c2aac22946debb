//! Requests that take longer than `log.slow`, with their phases.

use super::client::statuses;
use super::{LONG, Net, run, run_within};
use crate::worker::connection::conns::Wait;

const SLOW: &str = "[log]\nslow = '50ms'";

/// The phases of the request with this id, with their seconds.
async fn phases(id: &str) -> Vec<(String, f64)> {
    let line = Net::error_line(&format!("; request id {id}")).await;
    assert!(line.contains("[WARNING] worker 0 took "), "{line}");
    let (_, phases) = line.rsplit_once(": ").expect("the phases follow");
    let phase = |phase: &str| {
        let (word, seconds) = phase.split_once(' ').expect("a word and a number");
        (word.to_owned(), seconds.parse().expect("a number"))
    };
    phases.split(", ").map(phase).collect()
}

fn words(phases: &[(String, f64)]) -> Vec<&str> {
    phases.iter().map(|(word, _)| word.as_str()).collect()
}

#[test]
fn slow_handler_is_logged_with_its_phases() {
    run_within(LONG, [13, 1], SLOW, |net| async move {
        let ask = |id| format!("GET /slow HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\r\n");
        let mut talk = net.connect().await;
        talk.say(ask("slow-first")).await;
        assert_eq!(statuses(&talk.answer().await), [200]);
        let first = phases("slow-first").await;
        assert_eq!(words(&first), ["queue", "head", "handler", "write"]);
        assert!(first[2].1 >= 0.099, "{first:?}");
        talk.say(ask("slow-second")).await;
        assert_eq!(statuses(&talk.answer().await), [200]);
        let second = phases("slow-second").await;
        assert_eq!(words(&second), ["head", "handler", "write"], "it waited in no queue");
    });
}

#[test]
fn slow_client_is_the_time_of_head_and_body() {
    run_within(LONG, [13, 2], SLOW, |net| async move {
        let mut talk = net.connect().await;
        talk.say("POST /echo HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow-client\r\n").await;
        net.waits_for(Wait::Head).await;
        talk.say("Content-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
        // The handler waits for the body from here on.
        assert_eq!(statuses(&talk.answer().await), [100]);
        net.waits_for(Wait::Body).await;
        talk.say("abc").await;
        assert_eq!(statuses(&talk.answer().await), [200]);
        let phases = phases("slow-client").await;
        assert_eq!(words(&phases), ["queue", "head", "body", "handler", "write"]);
        assert!(phases[1].1 >= 0.05 && phases[2].1 >= 0.05, "{phases:?}");
    });
}

#[cfg(feature = "http2")]
#[test]
fn stream_of_http2_has_phases_of_its_own() {
    run_within(LONG, [13, 3], SLOW, |net| async move {
        let peer = net.peer().await;
        let ask = |id: &str| super::http2::get("/slow").header("x-request-id", id);
        let first = peer.send(ask("slow-stream-1"), false).await.0;
        let second = peer.send(ask("slow-stream-2"), false).await.0;
        for response in [first, second] {
            assert_eq!(response.await.expect("it is answered").status(), 200);
        }
        let first = phases("slow-stream-1").await;
        assert_eq!(words(&first), ["queue", "handler", "write"]);
        assert_eq!(words(&phases("slow-stream-2").await), ["handler", "write"]);
        assert!(first[1].1 >= 0.099, "{first:?}");
    });
}

#[test]
fn body_that_stalls_is_the_time_of_the_body() {
    run([13, 4], SLOW, |net| async move {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow-stalled\r\n";
        let answer = net.ask(format!("{head}Content-Length: 3\r\n\r\n")).await;
        assert_eq!(statuses(&answer), [408]);
        let phases = phases("slow-stalled").await;
        assert_eq!(words(&phases), ["queue", "head", "body", "handler", "write"]);
        assert!(phases[2].1 >= 0.35, "{phases:?}");
    });
}

#[test]
fn request_without_response_ends_in_its_handler() {
    run_within(LONG, [13, 7], SLOW, |net| async move {
        let mut talk = net.connect().await;
        talk.say("GET /never HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow-gone\r\n\r\n").await;
        net.waits_for(Wait::Answer).await;
        talk.reset();
        assert_eq!(words(&phases("slow-gone").await), ["queue", "head", "handler"]);
    });
}

#[test]
fn event_stream_counts_until_its_head() {
    run_within(LONG, [13, 8], SLOW, |net| async move {
        let mut talk = net.connect().await;
        talk.say("GET /events HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow-events\r\n\r\n").await;
        // One event is sent each 3 ms.
        talk.until("data: 40\n\n").await;
        drop(talk);
        net.counted(1).await;
        assert!(!Net::all_error_lines().contains("slow-events"));
    });
}

#[test]
fn fast_or_unwatched_request_is_no_slow_one() {
    let ask = |path, id| format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\r\n");
    run([13, 5], "[log]\nslow = 60", |net| async move {
        let mut talk = net.connect().await;
        talk.say(ask("/slow", "slow-never-1")).await;
        talk.answer().await;
        net.counted(1).await;
        assert!(!Net::all_error_lines().contains("slow-never-1"));
    });
    run([13, 6], "", |net| async move {
        let mut talk = net.connect().await;
        talk.say(ask("/slow", "slow-never-2")).await;
        talk.answer().await;
        net.counted(1).await;
        assert!(!Net::all_error_lines().contains("slow-never-2"));
    });
}
