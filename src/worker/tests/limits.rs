//! The length that a body may have: by the configuration, by its path, by the route's own layer; and
//! what the application puts on the answers that the server gives in its place.

use super::client::{body, field, statuses};
use super::{BODY_MAX, Net, Talk, run, run_within};

fn post(path: &str, length: usize) -> String {
    let body = "z".repeat(length);
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn chunked(path: &str, length: usize) -> String {
    let body = "z".repeat(length);
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    format!("{head}{length:x}\r\n{body}\r\n0\r\n\r\n")
}

async fn status(net: &Net, request: String) -> u16 {
    let mut talk: Talk = net.connect().await;
    talk.say(request).await;
    statuses(&talk.answer().await)[0]
}

#[test]
fn body_limit_of_a_path_wins_over_the_configured_one() {
    run([21, 1], "", |net| async move {
        let twice = 2 * BODY_MAX;
        let huge = (2 << 20) + 1;
        for (path, length, expected) in [
            ("/echo", BODY_MAX, 200),
            ("/echo", BODY_MAX + 1, 413),
            ("/limited/x", BODY_MAX + 1, 200),
            ("/limited/x?y", twice, 200),
            ("/limited/x", twice + 1, 413),
            ("/unlimited", huge, 200),
            ("/ignore", BODY_MAX + 1, 413),
            // The route's own layer is axum's.
            ("/limited", 10, 200),
            ("/limited", 11, 413),
        ] {
            assert_eq!(status(&net, post(path, length)).await, expected, "{path} {length}");
            // Of chunks that no handler reads the length is not known.
            let expected = if path == "/ignore" { 200 } else { expected };
            assert_eq!(status(&net, chunked(path, length)).await, expected, "{path} {length}");
        }
    });
}

/// Without a limit of the server's own, axum's semantics are untouched.
#[test]
fn body_limit_is_axums_own_when_none_is_configured() {
    run_within(
        "body = 0\nheader_timeout = 60\nbody_timeout = 60\n",
        [21, 2],
        "",
        |net| async move {
            let mebibyte = 1 << 20;
            for (path, length, expected) in [
                ("/echo", 2 * mebibyte, 200),
                ("/echo", 2 * mebibyte + 1, 413),
                ("/limited", 11, 413),
                ("/raised", 4 * mebibyte, 200),
                ("/raised", 4 * mebibyte + 1, 413),
                ("/disabled", 6 * mebibyte, 200),
                ("/ignore", 4 * mebibyte, 200),
            ] {
                assert_eq!(status(&net, post(path, length)).await, expected, "{path} {length}");
            }
        },
    );
}

/// The status and the end of the connection are not the application's to change.
#[test]
fn own_answers_pass_the_layers_of_the_application() {
    run([21, 3], "timeout = 1.5", |net| async move {
        for (request, expected) in [
            (post("/echo", BODY_MAX + 1), 413),
            (chunked("/echo", BODY_MAX + 1), 413),
            ("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 500),
            ("GET /never HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 504),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            (chunked("/echo", 3).replace("0\r\n\r\n", "0\r\n\n"), 400),
            (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(5000)), 414),
            ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc".to_owned(), 408),
        ] {
            let answers = net.ask(&request).await;
            let start: String = request.chars().take(40).collect();
            assert_eq!(statuses(&answers), [expected], "{start}: {answers}");
            let fields =
                ["x-own", "connection", "x-frame-options"].map(|name| field(&answers, name));
            assert_eq!(fields, ["marked", "close", "DENY"].map(Some), "{start}");
            assert!(body(&answers).starts_with("{\"error\":"), "{start}: {answers}");
            assert!(field(&answers, "x-request-id").is_some(), "{start}");
        }
        // The application's own answers are not ours.
        let answer = net.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!((statuses(&answer), field(&answer, "x-own")), (vec![200], None));
    });
}
