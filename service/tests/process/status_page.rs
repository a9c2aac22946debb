//! The status that the stats process serves: as JSON, and the files of its page.

use std::net::SocketAddr;

use serde_json::Value;

use crate::client::Response;
use crate::control;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::metrics::{ask, scrape_counted, stats, stats_address};

fn served(address: SocketAddr) -> Value {
    let response = ask(address, "/status.json");
    assert_eq!((response.status, response.field("content-type")), (200, "application/json"));
    serde_json::from_slice(&response.body).expect("one object")
}

fn workers(status: &Value) -> &[Value] {
    status["workers"].as_array().expect("a list")
}

fn hello(config: &str) -> Ferricorn {
    stats(Ferricorn::hello(), config)
}

/// The status without what changes by itself, which is there.
fn timeless(mut status: Value) -> Value {
    status["server"]["uptime_seconds"] = Value::Null;
    for worker in status["workers"].as_array_mut().expect("a list") {
        for name in ["age_seconds", "silent_seconds", "memory_bytes", "cpu_seconds"] {
            assert!(worker[name].is_number(), "{name}: {worker}");
            worker[name] = Value::Null;
        }
    }
    status
}

#[test]
fn status_json_agrees_with_the_control_socket() {
    let server = hello("workers = 2\nstall_timeout = 0");
    let address = stats_address(&server);
    assert_eq!(server.get("/").expect("it answers").status, 200);
    // It is counted behind its answer, and nothing moves while both are asked.
    scrape_counted(address, 1.0);
    server.workers().iter().for_each(|(_, pid)| send(*pid, Signal::SIGSTOP));
    let told = timeless(control::status(&server));
    // The master is not asked for its part again at once.
    let found = eventually("the page has what the socket has", PATIENCE, || {
        let found = timeless(served(address));
        ["server", "workers"].iter().all(|part| found[part] == told[part]).then_some(found)
    });
    server.workers().iter().for_each(|(_, pid)| send(*pid, Signal::SIGCONT));
    assert_eq!(found["requests"]["200"], 1);
    assert_eq!(found["queues"][0]["address"], server.addresses()[0].to_string());
    let counts = found["request_duration"]["counts"].as_array().expect("a list");
    assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 1);
    assert_eq!(
        counts.len(),
        found["request_duration"]["bounds_seconds"].as_array().unwrap_or(&vec![]).len() + 1
    );
    let events = found["events"].as_array().expect("a list");
    assert!(events.iter().any(|event| event["event"] == "worker_ready"), "{events:?}");
    server.stop();
}

#[test]
fn end_of_a_worker_is_shown_without_its_request() {
    let server = stats(Ferricorn::unruly(), "workers = 2");
    let address = stats_address(&server);
    let mut held = server.connect();
    held.send(crate::client::get("/slow?s=60")).expect("it is open");
    let worker = eventually("the request is in flight", PATIENCE, || {
        let status = served(address);
        let busy = workers(&status).iter().find(|worker| worker["requests_in_flight"] == 1)?;
        i32::try_from(busy["pid"].as_i64()?).ok()
    });
    send(worker, Signal::SIGKILL);
    let status = eventually("its end is shown", PATIENCE, || {
        let status = served(address);
        let ended =
            workers(&status).iter().any(|it| it["last_end"]["fields"]["process_pid"] == worker);
        ended.then_some(status)
    });
    assert_eq!(status["worker_ends"]["signal"], 1);
    let log = eventually("the log names the request", PATIENCE, || {
        Some(server.log()).filter(|log| log.contains("in GET /slow") || log.contains("GET /slow"))
    });
    assert!(!status.to_string().contains("/slow"), "{status} {log}");
    assert!(!served(address).to_string().contains("/slow"));
    server.stop();
}

#[test]
fn progress_of_a_reload_is_shown() {
    let server = stats(Ferricorn::unruly(), "workers = 2\ngraceful_timeout = 60");
    let address = stats_address(&server);
    assert_eq!(served(address)["reload"], Value::Null);
    server.signal(Signal::SIGHUP);
    // It is over too soon to be seen for sure; every state that is seen is whole.
    eventually("the reload has ended", PATIENCE, || {
        let status = served(address);
        if let Some(reload) = status["reload"].as_object() {
            assert_eq!((&reload["generation"], &reload["of"]), (&2.into(), &2.into()), "{status}");
            assert!(reload["replaced"].as_u64() <= Some(2), "{status}");
            assert_eq!(status["server"]["state"], "reloading");
        }
        (status["server"]["last_reload"]["event"] == "reload_succeeded").then_some(())
    });
    server.stop();
}

#[test]
fn status_is_served_while_the_master_is_stopped() {
    let server = hello("workers = 1");
    let address = stats_address(&server);
    let before = served(address);
    send(server.pid(), Signal::SIGSTOP);
    let stopped = eventually("the numbers grow old", PATIENCE, || {
        let status = served(address);
        (status["snapshot_age_seconds"].as_f64() > Some(0.3)).then_some(status)
    });
    send(server.pid(), Signal::SIGCONT);
    assert_eq!(stopped["server"]["pid"], before["server"]["pid"]);
    server.stop();
}

#[test]
fn page_is_served_with_a_strict_policy() {
    let server = hello("workers = 1");
    let address = stats_address(&server);
    let page = ask(address, "/status");
    assert_eq!((page.status, page.field("content-type")), (200, "text/html; charset=utf-8"));
    let text = String::from_utf8(page.body).expect("a text");
    let linked = text.split(['"', '\'']).filter(|word| word.starts_with("status/"));
    let files: Vec<Response> = linked.map(|name| ask(address, &format!("/{name}"))).collect();
    assert!(files.len() >= 4, "{text}");
    for file in files.iter().chain([&ask(address, "/status")]) {
        assert_eq!(file.status, 200);
        let policy = file.field("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(file.field("x-content-type-options"), "nosniff");
    }
    assert!(!text.contains("//") && !text.contains("style="), "nothing from elsewhere: {text}");
    assert_eq!(ask(address, "/status/").status, 404);
    assert_eq!(ask(address, "/status/../Cargo.toml").status, 404);
    server.stop();
}

#[test]
fn status_of_many_workers_is_whole() {
    let server = hello("workers = 60");
    let address = stats_address(&server);
    // A master that has much to do is not waited for: then the status before is served.
    let found = eventually("the status tells of them", PATIENCE, || {
        let found = served(address);
        (!workers(&found).is_empty()).then_some(found)
    });
    let slots: Vec<u64> =
        workers(&found).iter().filter_map(|worker| worker["slot"].as_u64()).collect();
    assert_eq!(slots, (0..60).collect::<Vec<u64>>());
    server.stop();
}
