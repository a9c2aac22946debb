//! Answers to what never became a request are counted, and have their line.

use super::client::{body, field, statuses};
use super::{Net, run};

const UNREAD: &str = r#"unread - "-" "-""#;

/// The bytes of bodies that the access log tells are those that the client got.
#[test]
fn refusals_have_their_true_byte_counts() {
    run([4, 8], "", |net| async move {
        let wide = "y".repeat(1 << 16);
        let many: String = (0..201).map(|at| format!("x{at}: y\r\n")).collect();
        let mut expected = Vec::new();
        for request in [
            "nonsense\r\n\r\n".to_owned(),
            format!("GET / HTTP/1.1\r\n{many}\r\n"),
            format!("GET / HTTP/1.1\r\nx: {wide}"),
            format!("GET /{wide}"),
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: ".to_owned(),
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(),
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc".to_owned(),
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n"
                .to_owned(),
            "GET /panic HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
            "PRI * HTTP/2.0\r\n\r\n".to_owned(),
            "\x16\x03\x01\x02\0\x01".to_owned(),
            "GET /who HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n".to_owned(),
        ] {
            let answers = net.ask(&request).await;
            for answer in answers.split("HTTP/1.1 ").skip(1) {
                expected.push(body(answer).len().to_string());
            }
            net.counted(expected.len() as u64).await;
        }
        assert!(expected.iter().all(|bytes| bytes != "0"), "{expected:?}");
        assert_eq!(net.own_access_bytes(), expected);
    });
}

#[test]
fn tls_on_a_plain_address_is_named_once() {
    run([4, 9], "", |net| async move {
        for hello in ["\x16", "\x16\x03\x01\x02\0\x01\0\x01\u{7c}\x03\x03"] {
            let answer = net.ask(hello).await;
            assert_eq!(statuses(&answer), [400], "{hello:?}");
            let text = r#"{"error":"TLS was sent to an address that speaks plain HTTP"}"#;
            assert_eq!(body(&answer), text);
        }
        net.counted(2).await;
        let lines = net.error_lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let end = ": TLS was sent to an address that speaks plain HTTP; answered 400";
        assert!(
            lines[0].starts_with("WARNING] cannot read a request from 127.0.4.9:"),
            "{lines:?}"
        );
        assert!(lines[0].ends_with(end), "{lines:?}");
        // Within another protocol's bytes it means nothing.
        let answer = net.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\x16").await;
        assert_eq!(statuses(&answer), [200]);
    });
}

#[test]
fn what_hyper_refuses_has_its_line() {
    run([4, 1], "http2.enabled = false", |net| async move {
        let answer = net.ask("nonsense\r\n\r\n").await;
        assert_eq!(statuses(&answer), [400]);
        assert_eq!(body(&answer), r#"{"error":"what came is no request of HTTP"}"#);
        assert_eq!(field(&answer, "x-frame-options"), Some("DENY"));
        let many: String = (0..201).map(|at| format!("x{at}: y\r\n")).collect();
        let answer = net.ask(format!("GET / HTTP/1.1\r\n{many}\r\n")).await;
        assert_eq!(statuses(&answer), [431]);
        assert_eq!(body(&answer), r#"{"error":"the request has more header fields than allowed"}"#);
        assert_eq!(field(&answer, "connection"), Some("close"));
        let wide = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(1 << 16));
        let answer = net.ask(wide).await;
        assert_eq!(statuses(&answer), [431]);
        assert!(answer.ends_with(r#"{"error":"the head of the request is longer than allowed"}"#));
        let long = format!("GET /{}", "y".repeat(1 << 16));
        assert_eq!(statuses(&net.ask(long).await), [414]);
        // Who knows that a server speaks HTTP/2 begins so.
        let answer = net.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        assert_eq!(statuses(&answer), [400]);
        let many =
            net.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: i\r\n\r\nnonsense\r\n\r\n").await;
        assert_eq!(statuses(&many), [200, 400]);
        assert_eq!(body(&many), r#"{"error":"what came is no request of HTTP"}"#);
        net.counted(7).await;
        let line = |status: u16| format!(r#"http "-" {status} {UNREAD}"#);
        let good = r#"http "GET / HTTP/1.1" 200 ok i "-" "out""#.to_owned();
        let expected = [line(400), line(431), line(431), line(414), line(400), good, line(400)];
        assert_eq!(net.own_access_lines(), expected);
    });
}

/// No worker accepts from a listener that was shut down. The worker says so, does not try all the time,
/// and serves at its other addresses.
#[test]
fn a_listener_that_has_ended_is_said_so() {
    run([4, 7], "", |net| async move {
        let listener = net.listener();
        // As one who has a copy of it can do.
        std::net::TcpStream::from(listener).shutdown(std::net::Shutdown::Both).expect("it listens");
        while !Net::all_error_lines().contains("failed to accept a connection: Invalid argument") {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let mut talk = net.connect_unix().await;
        talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(statuses(&talk.answer().await), [200]);
    });
}

#[test]
fn a_head_that_is_too_late_has_its_line() {
    run([4, 2], "", |net| async move {
        let answer = net.ask("GET / HTTP/1.1\r\nHost: ").await;
        assert_eq!(statuses(&answer), [408]);
        assert!(answer.ends_with(r#"{"error":"the head of the request took too long"}"#));
        net.counted(1).await;
        assert_eq!(net.own_access_lines(), [format!(r#"http "-" 408 {UNREAD}"#)]);
    });
}

#[test]
fn a_client_that_goes_away_has_none() {
    run([4, 3], "", |net| async move {
        for begun in
            ["", "GET / HT", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"]
        {
            let mut talk = net.connect().await;
            talk.say(begun).await;
            drop(talk);
        }
        // The last one was a request, and no client waits for its answer.
        net.counted(1).await;
        while net.server.conns.count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(net.error_lines(), Vec::<String>::new());
        let lines = net.own_access_lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(r#"http "POST /echo HTTP/1.1" "#), "{lines:?}");
    });
}

#[test]
fn only_fields_that_the_log_names_are_in_it() {
    run([4, 4], "", |net| async move {
        net.ask(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: i\r\n\
             X-Mark: one\r\nOther: two\r\nX-Mark: three\r\n\r\n",
        )
        .await;
        net.counted(1).await;
        let line = r#"http "GET / HTTP/1.1" 200 ok i "one, three" "out""#;
        assert_eq!(net.own_access_lines(), [line]);
    });
}

/// Closing a socket with unread bytes in it makes the kernel reset the connection, which
/// takes the answer away from a client that is still speaking.
#[test]
fn a_client_that_is_still_speaking_gets_its_answer() {
    run([4, 5], "", |net| async move {
        let much = "z".repeat(8 << 20);
        for head in [
            format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", much.len()),
            format!("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", much.len()),
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"
                .into(),
            "nonsense\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: a\r\nx: ".to_owned(),
            "GET /".to_owned(),
        ] {
            let mut talk = net.connect().await;
            talk.say(&head).await;
            talk.try_to_say(&much).await.unwrap_or_else(|error| panic!("{head:?}: {error}"));
            talk.hang_up().await;
            let answer = talk.rest().await;
            assert_eq!(statuses(&answer).len(), 1, "{head:?}: {answer:?}");
        }
    });
}

#[test]
fn a_client_that_never_stops_speaking_is_cut_off() {
    run([4, 6], "", |net| async move {
        let mut talk = net.connect().await;
        talk.say("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n").await;
        while talk.try_to_say([b'z'; 8192]).await.is_ok() {}
        assert_eq!(statuses(&talk.rest().await), [413]);
        assert_eq!(net.server.conns.count(), 0);
    });
}
