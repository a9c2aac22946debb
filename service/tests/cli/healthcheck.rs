//! `healthcheck` against servers that answer, and that do not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use crate::program::{Folder, Output};

/// Answers one connection and gives what it was asked.
fn answer(mut stream: impl Read + Write, response: &str) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the request has an end");
        request.push(byte[0]);
    }
    stream.write_all(response.as_bytes()).expect("the answer is awaited");
    String::from_utf8(request).expect("the request is UTF-8")
}

/// Runs beside the test.
fn beside(serve: impl FnOnce() -> String + Send + 'static) -> JoinHandle<String> {
    thread::Builder::new().spawn(serve).expect("a thread for the server")
}

/// A server for one request, and the port it is at.
fn server(response: &'static str) -> (JoinHandle<String>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    (beside(move || answer(listener.accept().expect("the question").0, response)), port)
}

fn ask(bind: &str, options: &[&str]) -> Output {
    Folder::new().run(&[&["healthcheck", "--bind", bind], options].concat())
}

const READY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[test]
fn a_ready_server_is_healthy() {
    let (server, port) = server(READY);
    let output = ask(&format!("0.0.0.0:{port}"), &[]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "", ""));
    assert_eq!(
        server.join().unwrap(),
        "GET /readyz HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ferricorn-healthcheck\r\n\
         Connection: close\r\n\r\n"
    );
}

#[test]
fn a_server_without_its_database_is_alive() {
    let (live, port) = server(READY);
    let output = ask(&format!("127.0.0.1:{port}"), &["--live"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let request = live.join().unwrap();
    assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
    let (dead, port) = server("HTTP/1.1 500 Internal Server Error\r\n\r\n");
    let output = ask(&format!("127.0.0.1:{port}"), &["--live"]);
    dead.join().unwrap();
    let said =
        format!("ferricorn: 127.0.0.1:{port}: expected GET /healthz to answer 200, found 500\n");
    assert_eq!((output.code, output.stderr), (1, said));
}

#[test]
fn a_server_that_waits_for_a_proxy_gets_its_header() {
    let (server, port) = server(READY);
    let output = ask(&format!(":{port}"), &["--proxy-protocol"]);
    assert_eq!(output.code, 0, "{output:?}");
    let request = server.join().unwrap();
    assert!(request.starts_with("PROXY UNKNOWN\r\nGET /readyz HTTP/1.1\r\n"), "{request}");
}

#[test]
fn a_unix_socket_is_asked_in_the_servers_folder() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.path().join("a.sock")).unwrap();
    let server = beside(move || answer(listener.accept().unwrap().0, READY));
    let chdir = folder.path().to_str().unwrap();
    let output = ask("unix:a.sock", &["--chdir", chdir]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    server.join().unwrap();
}

#[test]
fn any_other_answer_is_unhealthy() {
    for (response, said) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "expected GET /readyz to answer 200, found 503",
        ),
        ("SSH-2.0-OpenSSH\r\n", "expected an HTTP status line, found \"SSH-2.0-OpenSSH\""),
        ("", "expected an HTTP status line, found \"\""),
    ] {
        let (server, port) = server(response);
        let output = ask(&format!("127.0.0.1:{port}"), &[]);
        server.join().unwrap();
        assert_eq!(output.stderr, format!("ferricorn: 127.0.0.1:{port}: {said}\n"));
        assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    }
}

#[test]
fn a_server_that_is_silent_is_unhealthy_after_a_while() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = ask(&address, &[]);
    assert_eq!(output.stderr, format!("ferricorn: {address}: no answer within 3 s\n"));
    assert_eq!(output.code, 1);
}

#[test]
fn a_server_that_is_not_there_is_unhealthy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = ask(&address, &[]);
    assert_eq!(
        output.stderr,
        format!("ferricorn: {address}: failed to connect: connection refused\n")
    );
    assert_eq!(output.code, 1);
}

#[test]
fn a_wrong_configuration_is_unhealthy() {
    let output = ask(":5000", &["--workers", "0"]);
    assert_eq!(
        output.stderr,
        "ferricorn: --workers: workers: expected 1 to 256 or \"auto\", found \"0\"\n"
    );
    assert_eq!(output.code, 1);
}
