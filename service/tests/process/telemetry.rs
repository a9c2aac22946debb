//! The layers of `tracing` that an application has: `examples/reports.rs`, and what may not be.

use std::net::UdpSocket;

use serde_json::Value;

use crate::harness::{Builder, Ferricorn, PATIENCE};

/// A collector of reports, and the setting that names it. It is in the network of the server, which is
/// that of the builder.
fn collector(_: &Builder) -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    let address = socket.local_addr().expect("it is bound");
    (socket, format!("workers = 2\n[reports]\ncollector = \"{address}\"\n"))
}

fn receive(collector: &UdpSocket) -> String {
    let mut bytes = [0; 4096];
    let length = crate::metrics::receive(collector, &mut bytes);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn layer_of_each_worker_gets_errors_and_panics() {
    let builder = Ferricorn::example("reports");
    let (collector, config) = collector(&builder);
    let server = builder.config(&config).start();
    let workers: Vec<_> = server.workers().into_iter().map(|(_, pid)| pid).collect();
    assert_eq!(server.get("/order").unwrap().status, 200);
    let report = receive(&collector);
    let (pid, text) = report.split_once(':').expect("a report names its process");
    let pid: i32 = pid.trim_start_matches("pid ").parse().expect("by its pid");
    assert!(workers.contains(&pid), "{report}");
    assert_eq!(text, " message=no such article article=7");
    assert_eq!(server.get("/panic").unwrap().status, 500);
    let report = receive(&collector);
    assert!(report.contains("out of stock"), "{report}");
    // The error log has the same.
    server.wait_log("[ERROR] no such article article=7");
    server.wait_log("out of stock");
    server.stop();
}

#[test]
fn records_of_the_log_crate_and_fields_are_in_both_formats() {
    let builder = Ferricorn::example("reports");
    let (_collector, config) = collector(&builder);
    let server = builder.config(&config).start();
    assert_eq!(server.get("/order").unwrap().status, 200);
    server.wait_log("[WARNING] a line of a library that logs by the log crate\n");
    server.stop();
    let config = format!("{config}\n[log]\nformat = \"json\"\n");
    let server = Ferricorn::example("reports").config(&config).start();
    assert_eq!(server.get("/order").unwrap().status, 200);
    server.wait_log("by the log crate");
    let log = server.log();
    let parsed = |text: &str| -> Value {
        let line = log.lines().find(|line| line.contains(text)).expect("it is logged");
        serde_json::from_str(line).expect("a line of JSON")
    };
    assert_eq!(parsed("no such article")["article"], 7);
    let record = parsed("by the log crate");
    let keys: Vec<_> = record.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["level", "message", "pid", "time"]);
    server.stop();
}

#[test]
fn rust_log_counts_before_log_level() {
    let start = |directives: &str| {
        let server = Ferricorn::example("reports").env("RUST_LOG", directives).start();
        assert_eq!(server.get("/order").unwrap().status, 200);
        server.wait_log("no such article");
        let log = server.log();
        server.stop();
        log
    };
    let log = start("reports=error");
    assert!(!log.contains("log crate") && log.contains("Starting reports"), "{log}");
    let log = start("error,ferricorn=warn");
    assert!(!log.contains("log crate") && !log.contains("Starting reports"), "{log}");
    let log = start("reports=loud");
    assert!(log.contains("[WARNING] RUST_LOG is ignored: "), "{log}");
    assert!(log.contains("log crate"), "{log}");
}

#[test]
fn subscriber_of_the_application_is_refused_with_what_to_do() {
    let log = Ferricorn::unruly().env("UNRULY_START", "subscriber").fails_with(64);
    let refusal = "a tracing subscriber is installed already";
    assert!(log.contains(refusal) && log.contains("App::telemetry instead"), "{log}");
    let log = Ferricorn::unruly().env("UNRULY_BOOT", "subscriber").fails_with(3);
    assert!(log.contains("return the subscriber's layers from App::telemetry instead"), "{log}");
}
