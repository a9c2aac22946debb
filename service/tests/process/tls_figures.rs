//! The memory of an idle connection over TLS, measured in one run.

use std::sync::Arc;

use crate::harness::{Ferricorn, PATIENCE, eventually};
use crate::{http2, proc, tls};

/// Connections that are measured, and those that were there before, so that what is made once counts for
/// none.
const COUNT: u64 = 1000;
const BEFORE: u64 = 50;
/// Looks in a row that must find the same: a connection rests after a second.
const LOOKS: u64 = 700;
/// The most that is promised of a connection that rests, in KiB.
const MOST: f64 = 24.0;
/// The same of one of HTTP/2, which does not rest: h2 keeps a buffer of 16 KiB for what it writes.
const MOST_OF_HTTP2: f64 = MOST + 16.0;

/// The memory of the process that is its own, once that stays as it is; in KiB.
fn settled(worker: i32) -> u64 {
    let own =
        || proc::status(worker, "RssAnon").and_then(|kib| kib.parse().ok()).expect("it lives");
    let mut last = own();
    let mut looks = 0;
    eventually("the memory stays as it is", 2 * PATIENCE, || {
        let now = own();
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        (looks == LOOKS).then_some(now)
    })
}

/// Opens connections by this, which have had an answer each, and returns the KiB of each one.
fn each<C>(open: impl Fn(&Ferricorn) -> C) -> f64 {
    let _alone = crate::machine::alone();
    let builder = Ferricorn::unruly();
    tls::localhost().write(builder.folder(), "a");
    let settings = "workers = 1\nworker_connections = 2000\nkeepalive = 3600\n[log]\naccess = \"\"\n\
                    [tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n";
    let server = builder.config(settings).start();
    let worker = server.worker(0);
    let earlier: Vec<_> = (0..BEFORE).map(|_| open(&server)).collect();
    let before = settled(worker);
    let idle: Vec<_> = (0..COUNT).map(|_| open(&server)).collect();
    let after = settled(worker);
    assert_eq!(server.worker(0), worker);
    drop((earlier, idle, open));
    server.stop();
    after.saturating_sub(before) as f64 / COUNT as f64
}

#[test]
fn idle_connection_over_tls_is_small() {
    let kib = each(|server| {
        let mut connection = server.connect();
        assert_eq!(connection.get("/").expect("it answers").status, 200);
        connection
    });
    println!("an idle connection of HTTP/1.1 over TLS: {kib:.1} KiB in the worker");
    assert!(kib <= MOST, "{kib} KiB");
}

#[test]
fn idle_connection_of_http2_is_small() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = Arc::new(runtime.expect("a runtime"));
    let kib = each(move |server| http2::idle(&runtime, &server.address()));
    println!("an idle connection of HTTP/2 over TLS: {kib:.1} KiB in the worker");
    assert!(kib <= MOST_OF_HTTP2, "{kib} KiB");
}
