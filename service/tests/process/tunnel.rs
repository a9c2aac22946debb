//! A tower service without a router, which opens tunnels.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use crate::harness::{Ferricorn, Signal};

/// A server that greets, and then sends back what comes in until its client has sent all.
fn echo() -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("localhost:{}", listener.local_addr().expect("it has one").port());
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the proxy connects");
        stream.write_all(b"hello ").expect("it is open");
        let mut bytes = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..length]).expect("it is open");
        }
    });
    (address, served)
}

fn connect_to(to: &str) -> String {
    format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n")
}

#[test]
fn connect_reaches_the_application_that_asks_for_it() {
    let _share = crate::machine::share();
    let (to, echoed) = echo();
    let settings = format!(
        "workers = 1\n[tunnel]\nto = '{to}'\n[log]\naccess_format = '%(r)s %(s)s %(b)s %({{outcome}}e)s'"
    );
    let server = Ferricorn::example("tunnel").config(&settings).start();
    assert_eq!(server.get("/").expect("it is answered").text(), format!("tunnels to {to}\n"));
    let mut tunnel = server.connect();
    // The first bytes of the tunnel come with its request; no request's framing would let them pass.
    tunnel.send(format!("{}# \u{16}\n\n", connect_to(&to))).expect("it is open");
    assert_eq!(tunnel.head(), Ok(200));
    // The runtime is as the application has changed it.
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.worker(0))).expect("it runs");
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).ok();
    let names: Vec<String> = threads.flatten().filter_map(name).collect();
    assert!(names.contains(&"tunnel-lookup\n".to_owned()), "{names:?}");
    // It is known to the worker from here on: a drain waits for it.
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    tunnel.send("GET / HTTP/1.1\r\n\r\n").expect("it is open");
    tunnel.finish_sending();
    let text = String::from_utf8(tunnel.rest().expect("it ends whole")).expect("it is text");
    let (_head, text) = text.split_once("\r\n\r\n").expect("the head is there");
    assert_eq!(text, "hello # \u{16}\n\nGET / HTTP/1.1\r\n\r\n");
    echoed.join().expect("it has ended");
    server.wait_log(&format!("CONNECT {to} HTTP/1.1 200 {} ok", text.len()));
    server.stop();
}

#[test]
fn refused_tunnel_ends_its_connection() {
    let server =
        Ferricorn::example("tunnel").config("workers = 1\ntunnel.to = '127.0.0.1:1'").start();
    let mut refused = server.connect();
    refused.send(connect_to("127.0.0.1:2")).expect("it is open");
    let answer = refused.response().expect("it is answered");
    assert_eq!((answer.status, answer.closes()), (403, true));
    // Nothing listens there, which is an error of the service.
    let mut failed = server.connect();
    failed.send(connect_to("127.0.0.1:1")).expect("it is open");
    let answer = failed.response().expect("it is answered");
    assert_eq!((answer.status, answer.closes()), (500, true));
    assert_eq!(answer.text(), r#"{"error":"something went wrong in this server"}"#);
    server.wait_log("the application's service failed for CONNECT 127.0.0.1:1, which");
    server.wait_log("Connection refused");
    // A tunnel without a port, or with a body, is none.
    for wrong in [
        "CONNECT a HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        connect_to("a:1").replace("\r\n\r\n", "\r\ncontent-length: 1\r\n\r\nx"),
    ] {
        let mut connection = server.connect();
        connection.send(wrong).expect("it is open");
        assert_eq!(connection.response().expect("it is answered").status, 501);
    }
    server.stop();
}

/// An application that does not ask for it never sees one.
#[test]
fn connect_is_refused_otherwise() {
    let server = Ferricorn::hello().config("workers = 1").start();
    let mut connection = server.connect();
    connection.send(connect_to("127.0.0.1:1")).expect("it is open");
    let answer = connection.response().expect("it is answered");
    assert_eq!((answer.status, answer.closes()), (501, true));
    server.stop();
}
