//! Requests on which two servers may disagree where they end (RFC 9112 sections 6.3 and 11.2). Much of
//! this is hyper's doing; here it is held to it.

use super::client::{body, field, statuses};
use super::{BODY_MAX, LONG, Net, run, run_within};

/// The request that an attacker hides in another one.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Sends it, and expects these statuses and no other request to have been understood.
async fn expect(net: &Net, bytes: impl AsRef<[u8]>, expected: &[u16]) -> String {
    let bytes = bytes.as_ref();
    let answers = net.ask(bytes).await;
    assert_eq!(statuses(&answers), expected, "{}\n{answers}", bytes.escape_ascii());
    let hidden = net.own_access_lines().iter().any(|line| line.contains("/hidden"));
    assert!(!hidden, "{}", bytes.escape_ascii());
    answers
}

/// Expects it to be refused with this status, in words.
async fn refused(net: &Net, bytes: impl AsRef<[u8]>, status: u16) {
    let answer = expect(net, bytes, &[status]).await;
    let text: serde_json::Value = serde_json::from_str(body(&answer)).expect(&answer);
    assert!(text["error"].is_string(), "{answer}");
    let fields = ["connection", "content-type", "x-content-type-options"];
    let expected = ["close", "application/json", "nosniff"].map(Some);
    assert_eq!(fields.map(|name| field(&answer, name)), expected, "{answer}");
}

#[test]
fn two_lengths_of_a_body_are_refused() {
    run([3, 1], "", |net| async move {
        let body = "3\r\nabc\r\n0\r\n\r\n";
        for fields in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Length: 4",
            "Transfer-Encoding: chunked\r\nContent-Length: junk",
            "Content-Length: 13\r\nX: y\r\nContent-Length: 13",
            "content-length: 0\r\nContent-Length:0",
            "Content-Length: 3\nTRANSFER-ENCODING:\tgzip",
        ] {
            let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            refused(&net, format!("{head}{body}{HIDDEN}"), 400).await;
            // Behind another request, in the same segment, and in pieces.
            let first = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            expect(&net, format!("{first}{head}{body}{HIDDEN}"), &[200, 400]).await;
            let mut talk = net.connect().await;
            for piece in head.as_bytes().chunks(7) {
                talk.say(piece).await;
                tokio::task::yield_now().await;
            }
            talk.say(body).await;
            talk.hang_up().await;
            assert_eq!(statuses(&talk.rest().await), [400], "{head}");
        }
    });
}

#[test]
fn lengths_that_are_none_are_refused() {
    run([3, 2], "", |net| async move {
        for fields in [
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 3, 3",
            "Content-Length: +3",
            "Content-Length: -3",
            "Content-Length: 0x3",
            "Content-Length: 3 3",
            "Content-Length: ",
            "Content-Length: 99999999999999999999999",
            "Content-Length : 3",
            "Content-Length\t: 3",
            "X: y\r\n Content-Length: 3",
            "X: y\r\n\tfolded",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\u{b}",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding: ",
        ] {
            let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            refused(&net, format!("{head}{HIDDEN}"), 400).await;
        }
        for coding in ["gzip, chunked", "chunked, chunked", "identity, chunked"] {
            let head =
                format!("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n");
            refused(&net, format!("{head}0\r\n\r\n{HIDDEN}"), 501).await;
        }
        let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
        expect(&net, format!("POST /echo HTTP/1.1\r\nHost: a\r\n{twice}\r\n{HIDDEN}"), &[501])
            .await;
        let old = "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        expect(&net, format!("{old}{HIDDEN}"), &[400]).await;
    });
}

#[test]
fn what_is_no_request_is_refused() {
    run([3, 4], "", |net| async move {
        for wrong in [
            "GET /\r\n\r\n",
            "GET / HTTP/0.9\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nx(: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nx: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nx: a\rb: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nx: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a.example:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /# HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x?y#z HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS *#x HTTP/1.1\r\nHost: a\r\n\r\n",
            &format!("GET /#{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(50 << 10)),
        ] {
            refused(&net, format!("{wrong}{HIDDEN}"), 400).await;
        }
        refused(&net, "CONNECT a.example:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501).await;
    });
}

/// Behind another request, and in pieces.
#[test]
fn a_fragment_is_no_part_of_a_target() {
    run_within(LONG, [3, 10], "", |net| async move {
        let plain = "GET / HTTP/1.1\r\nHost: a\r\nx: #\r\n\r\n";
        for begun in ["GET /hid", "\r\nGET /hidden", "GET /hidden?x#y HTTP"] {
            let mut talk = net.connect().await;
            talk.say(plain).await;
            assert_eq!(statuses(&talk.answer().await), [200]);
            talk.say(begun).await;
            talk.say("den#x HTTP/1.1\r\nHost: a\r\n\r\n").await;
            talk.hang_up().await;
            assert_eq!(statuses(&talk.rest().await), [400], "{begun}");
        }
        // Where hyper has read ahead, too: behind another request, and behind a body.
        let posted = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na#b";
        let behind = format!("{plain}{posted}GET /hidden#x HTTP/1.1\r\nHost: a\r\n\r\n");
        expect(&net, behind, &[200, 200, 400]).await;
        let hidden = net.own_access_lines().iter().any(|line| line.contains("/hidden"));
        assert!(!hidden, "{:?}", net.own_access_lines());
    });
}

/// RFC 9112 sections 2.2 and 3.2: what a server may or must put up with.
#[test]
fn what_is_unusual_is_understood() {
    run([3, 5], "", |net| async move {
        for unusual in [
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\nConnection: close\n\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\nConnection: close\r\n\r\n",
            "GET HTTP://A.example:80/ HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
            "GET /?a=b HTTP/1.1\r\nHost: a.example.:\r\nConnection:close\r\n\r\n",
        ] {
            expect(&net, unusual, &[200]).await;
        }
        let options = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
        let answers = expect(&net, format!("{options}{LAST}"), &[204, 200]).await;
        assert!(field(&answers, "allow").is_some_and(|allow| allow.contains("GET, HEAD, POST")));
        assert_eq!(field(&answers, "content-length"), None, "{answers}");
        let answers =
            expect(&net, "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200]);
        let answers = answers.await;
        assert_eq!((field(&answers, "content-length"), body(&answers)), (Some("5"), ""));
        assert!(field(&answers, "date").is_some());
    });
}

#[test]
fn chunks_are_read_to_the_letter() {
    run([3, 6], "", |net| async move {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
        for chunks in [
            "3\r\nabc\r\n0\r\n\r\n",
            "3;name=value;\"quoted\"\r\nabc\r\n0;last\r\n\r\n",
            "003\r\nabc\r\n0\r\n\r\n",
            "1\r\na\r\n2\r\nbc\r\n0\r\nContent-Length: 9\r\nHost: b\r\n\r\n",
        ] {
            let answers = expect(&net, format!("{head}{chunks}{LAST}"), &[200, 200]).await;
            assert!(answers.contains("\r\n\r\nabcHTTP/1.1 200"), "{answers}");
        }
        for chunks in [
            "3;x\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nab\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "-3\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "\r\n0\r\n\r\n",
            "ffffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
            // A bare LF, which hyper takes for the beginning of a trailer field.
            "0\r\n\n",
            "3\r\nabc\r\n0\r\n\n",
            "0\r\nx: y\r\n\n",
            "0\r\nx: y\n\r\n",
            "0\r\nx: y\n\n",
            "0\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabc\r\n0\n\n",
        ] {
            refused(&net, format!("{head}{chunks}{HIDDEN}"), 400).await;
            // A handler that does not read it is answered; nothing behind it is understood.
            let ignoring = head.replace("/echo", "/ignore");
            let answers = net.ask(format!("{ignoring}{chunks}{HIDDEN}")).await;
            assert_eq!(statuses(&answers).len(), 1, "{chunks:?}: {answers}");
            assert!(!net.own_access_lines().iter().any(|line| line.contains("/hidden")));
        }
    });
}

#[test]
fn a_body_that_nobody_reads_is_never_the_next_request() {
    run([3, 7], "", |net| async move {
        let length = HIDDEN.len();
        let whole = format!("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let answers = net.ask(format!("{whole}{HIDDEN}{LAST}")).await;
        assert_eq!(statuses(&answers)[0], 200);
        expect(&net, format!("{whole}{HIDDEN}{LAST}"), &[200, 200]).await;
        let chunked = "POST /ignore HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunks = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
        let answers = net.ask(format!("{chunked}{chunks}{LAST}")).await;
        assert_eq!(statuses(&answers)[0], 200, "{answers}");
        // The body comes after the answer.
        for head in [whole.as_str(), chunked] {
            let mut talk = net.connect().await;
            talk.say(head).await;
            assert_eq!(statuses(&talk.answer().await), [200]);
            talk.say(HIDDEN).await;
            assert_eq!(talk.rest().await, "");
        }
        // Refused, with the body behind it.
        for request in [
            format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", BODY_MAX + 1),
            format!("POST /echo HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"),
        ] {
            let answers = net.ask(format!("{request}{HIDDEN}")).await;
            assert!([400, 413].contains(&statuses(&answers)[0]), "{answers}");
            assert_eq!(statuses(&answers).len(), 1, "{answers}");
        }
        assert!(!net.own_access_lines().iter().any(|line| line.contains("/hidden")));
    });
}

#[test]
fn a_client_that_asks_first_is_told() {
    run([3, 8], "", |net| async move {
        let head = |path: &str, length: usize| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
                 Content-Length: {length}\r\n\r\n"
            )
        };
        let mut talk = net.connect().await;
        talk.say(head("/echo", 3)).await;
        assert_eq!(statuses(&talk.answer().await), [100]);
        talk.say("abc").await;
        assert_eq!(body(&talk.answer().await), "abc");
        let mut talk = net.connect().await;
        talk.say(head("/echo", BODY_MAX + 1)).await;
        assert_eq!(statuses(&talk.rest().await), [413], "and no 100");
        let mut talk = net.connect().await;
        talk.say(head("/ignore", HIDDEN.len())).await;
        assert_eq!(statuses(&talk.answer().await), [200], "and no 100");
        talk.say(HIDDEN).await;
        assert_eq!(talk.rest().await, "");
        assert!(!net.own_access_lines().iter().any(|line| line.contains("/hidden")));
    });
}

#[test]
fn limits_hold_on_every_route() {
    run([3, 9], "", |net| async move {
        let long = "x".repeat(4100);
        for path in ["/", "/ignore", "/nowhere"] {
            let get = |target: &str, fields: &str| {
                format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{HIDDEN}")
            };
            expect(&net, get(&format!("{path}?{long}"), ""), &[414]).await;
            let wide = format!("x: {}\r\n", "y".repeat(8200));
            expect(&net, get(path, &wide), &[431]).await;
            let many: String = (0..100).map(|at| format!("x{at}: y\r\n")).collect();
            let answers = expect(&net, get(path, &many), &[431]).await;
            let text = r#"{"error":"the request has more header fields than allowed"}"#;
            assert_eq!((body(&answers), field(&answers, "x-frame-options")), (text, Some("DENY")));
            let chunk = "400\r\n".to_owned() + &"z".repeat(0x400) + "\r\n0\r\n\r\n";
            let post = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            expect(&net, format!("{post}{chunk}"), &[413]).await;
        }
        let many: String = (0..98).map(|at| format!("x{at}: y\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{many}\r\n");
        expect(&net, head, &[200]).await;
        let answers =
            net.ask(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 9999));
        let answers = answers.await;
        assert_eq!(body(&answers), r#"{"error":"the request body is longer than allowed"}"#);
        assert_eq!(field(&answers, "content-type"), Some("application/json"));
        assert_eq!(field(&answers, "connection"), Some("close"));
    });
}
