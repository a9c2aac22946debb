//! Timeouts and keep-alive, and what is left of a timeout that came too late.

use std::time::Duration;

use super::client::{body, field, statuses};
use super::run;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn without_keepalive_each_answer_is_the_last_one() {
    run([5, 1], "keepalive = 0", |net| async move {
        let answers = net.ask(GET).await;
        assert_eq!((statuses(&answers), field(&answers, "connection")), (vec![200], Some("close")));
        let answers = net.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(statuses(&answers), [200]);
        assert_ne!(field(&answers, "connection"), Some("keep-alive"));
    });
}

#[test]
fn an_idle_connection_is_closed_in_silence() {
    run([5, 2], "keepalive = 0.2", |net| async move {
        let mut talk = net.connect().await;
        talk.say(GET).await;
        let answer = talk.answer().await;
        assert_eq!((statuses(&answer), field(&answer, "connection")), (vec![200], None));
        assert_eq!(talk.rest().await, "");
        net.counted(1).await;
        assert_eq!(net.own_access_lines().len(), 1);
    });
}

#[test]
fn connections_that_rest_are_served_and_closed_like_others() {
    run([5, 8], "keepalive = 30", |net| async move {
        let mut talks = [net.connect().await, net.connect_unix().await, net.connect().await];
        for round in 0..2 {
            for talk in &mut talks {
                talk.say(GET).await;
                assert_eq!(statuses(&talk.answer().await), [200], "round {round}");
            }
            net.rested(talks.len()).await;
        }
        talks[0].say([GET, GET].concat()).await;
        for _ in 0..2 {
            assert_eq!(statuses(&talks[0].answer().await), [200]);
        }
        net.rested(talks.len()).await;
        net.server.drain();
        net.server.conns.close_idle(Duration::ZERO);
        for talk in &mut talks {
            assert_eq!(talk.rest().await, "");
        }
        net.counted(8).await;
        assert_eq!((net.server.conns.count(), net.own_access_lines().len()), (0, 6));
    });
}

#[test]
fn a_body_that_stands_still_is_told_so() {
    run([5, 3], "", |net| async move {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
        let answers = net.ask(format!("{head}abc")).await;
        assert_eq!(statuses(&answers), [408]);
        assert_eq!(body(&answers), r#"{"error":"the request body stood still for too long"}"#);
    });
}

#[test]
fn a_panic_is_one_answer() {
    run([5, 4], "", |net| async move {
        let mut talk = net.connect().await;
        talk.say("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = talk.rest().await;
        assert_eq!(statuses(&answer), [500]);
        assert_eq!(body(&answer), r#"{"error":"something went wrong in this server"}"#);
        assert_eq!(statuses(&net.ask("GET /fail HTTP/1.0\r\n\r\n").await), [418]);
    });
}

/// A client that sends a byte now and then is not silent, and is late all the same.
#[test]
fn a_head_that_drips_is_late() {
    run([5, 5], "", |net| async move {
        let mut talk = net.connect().await;
        talk.say("GET / HTTP/1.1\r\nHost: a\r\nx: ").await;
        while talk.try_to_say("y").await.is_ok() && net.counters.served().unchecked() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(statuses(&talk.rest().await), [408]);
    });
}

/// The first bytes of a head may come in one segment with the request before it.
#[test]
fn a_head_that_begins_behind_a_request_is_late_from_its_first_byte() {
    run([5, 9], "keepalive = 30", |net| async move {
        let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\n\nb\n";
        let chunks = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                      4\r\na\n\nb\r\n0\r\n\r\n";
        for request in [GET, post, chunks] {
            for behind in ["G", "GET / HTTP/1.1\r\nHost: a\r\n"] {
                let mut talk = net.connect().await;
                talk.say([request, behind].concat()).await;
                let answers = talk.rest().await;
                assert_eq!(statuses(&answers), [200, 408], "{request:?} {behind:?}");
            }
            let mut talk = net.connect().await;
            talk.say([request, "GET / HTTP/1.1\r\nHost"].concat()).await;
            assert_eq!(statuses(&talk.answer().await), [200]);
            // It is no idle connection, which would rest, and lose its beginning.
            talk.say(": a\r\n\r\n").await;
            assert_eq!(statuses(&talk.answer().await), [200], "{request:?}");
        }
    });
}

#[test]
fn an_empty_line_behind_a_request_begins_no_head() {
    run([5, 10], "keepalive = 30", |net| async move {
        let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n";
        let mut talk = net.connect().await;
        talk.say(post).await;
        assert_eq!(statuses(&talk.answer().await), [200]);
        net.rested(1).await;
        talk.say(GET).await;
        assert_eq!(statuses(&talk.answer().await), [200]);
    });
}

#[test]
fn a_body_that_drips_is_late() {
    run([5, 6], "timeout = 0.8", |net| async move {
        let mut talk = net.connect().await;
        talk.say("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n").await;
        while talk.try_to_say("y").await.is_ok() && net.counters.served().unchecked() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let answer = talk.rest().await;
        assert_eq!((statuses(&answer), field(&answer, "connection")), (vec![408], Some("close")));
    });
}

#[test]
fn a_steady_upload_may_take_longer_than_timeout() {
    run([5, 11], "timeout = 0.5", |net| async move {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n";
        let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let piece = "p".repeat(45);
        let whole = piece.repeat(20);
        for (head, piece, end) in
            [(head, piece.clone(), ""), (chunked, format!("2d\r\n{piece}\r\n"), "0\r\n\r\n")]
        {
            let mut talk = net.connect().await;
            talk.say(head).await;
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(70)).await;
                talk.say(&piece).await;
            }
            talk.say(end).await;
            let answer = talk.answer().await;
            assert_eq!((statuses(&answer), body(&answer)), (vec![200], whole.as_str()));
        }
    });
}

/// The time of the upload is the client's, that behind it the handler's.
#[test]
fn a_handler_that_hangs_behind_a_long_upload_is_late() {
    run([5, 12], "timeout = 0.5", |net| async move {
        let mut talk = net.connect().await;
        talk.say("POST /swallow HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\n").await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            talk.say("p".repeat(30)).await;
        }
        let begun = tokio::time::Instant::now();
        assert_eq!(statuses(&talk.rest().await), [504]);
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    });
}

/// RFC 9110 section 6.6.1: every answer has its date, also those of hyper.
#[test]
fn every_answer_has_its_date() {
    run([5, 7], "", |net| async move {
        let long = format!("GET /{}", "y".repeat(1 << 16));
        for (request, status) in [
            (GET, 200),
            ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404),
            ("PUT /echo HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("nonsense\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHos", 408),
            (&long, 414),
        ] {
            let mut talk = net.connect().await;
            talk.say(request).await;
            if status != 408 {
                talk.hang_up().await;
            }
            let answer = talk.rest().await;
            assert_eq!(statuses(&answer), [status], "{request:.40}");
            let date = field(&answer, "date").expect(&answer);
            assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
            if !matches!(status, 200 | 204) {
                assert_ne!(field(&answer, "content-length"), None, "{answer}");
            }
            if status == 204 {
                assert_eq!(field(&answer, "content-length"), None, "RFC 9110 section 8.6");
            }
        }
    });
}
