//! Metrics of an application by the `metrics` crate, served beside ferricorn's own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use crate::client::{Address, Connection};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::metrics::{ask, assert_no_fall, scrape, stats, stats_address};

fn shop(config: &str) -> (Ferricorn, SocketAddr) {
    let server = stats(Ferricorn::example("app_metrics"), config);
    let address = stats_address(&server);
    (server, address)
}

/// Orders on fresh connections, so that both workers answer.
fn order(server: &Ferricorn, kind: &str, count: u32) {
    for _ in 0..count {
        let answer = server.get(&format!("/order/{kind}")).expect("it answers");
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn counters_are_summed_and_survive_kills_and_a_reload() {
    let (server, address) = shop("workers = 2");
    let mut last = scrape(address);
    let mut orders = 0.0;
    let check = |last: &mut BTreeMap<String, f64>, orders: f64| {
        let now = scrape(address);
        assert_no_fall(last, &now);
        assert_eq!(now["orders_total{kind=\"tea\"}"], orders);
        assert_eq!(now["orders_total{kind=\"other\"}"], orders);
        assert_eq!(now["order_seconds_count"], 2.0 * orders);
        assert_eq!(now["orders_open"], 0.0);
        *last = now;
    };
    for round in 0..4 {
        order(&server, "tea", 10);
        order(&server, "nothing", 10);
        orders += 10.0;
        check(&mut last, orders);
        let (slot, pid) = server.workers()[round % 2];
        send(pid, Signal::SIGKILL);
        eventually("a replacement", PATIENCE, || {
            let workers = server.workers();
            (workers.len() == 2 && !workers.contains(&(slot, pid))).then_some(())
        });
        check(&mut last, orders);
        // The gauge of the dead worker is gone, and that of its replacement is there.
        eventually("both workers are told", PATIENCE, || {
            (scrape(address)["shop_workers"] == 2.0).then_some(())
        });
    }
    server.signal(Signal::SIGHUP);
    eventually("the reload has ended", PATIENCE, || {
        let now = scrape(address);
        (now["ferricorn_reloads_total{result=\"success\"}"] == 1.0).then_some(())
    });
    check(&mut last, orders);
    server.stop();
}

#[test]
fn text_with_an_applications_metrics_is_valid() {
    let (server, address) = shop("workers = 2");
    order(&server, "tea", 2);
    let text = ask(address, "/metrics").text();
    assert!(
        text.contains("# HELP orders_total Orders by kind.\n# TYPE orders_total counter\n"),
        "{text}"
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (package prometheus)");
    let mut input = promtool.stdin.take().expect("it is piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut connection = Connection::open(&Address::Tcp(address)).expect("it accepts");
    let request =
        "GET /metrics HTTP/1.1\r\nhost: test\r\naccept: application/openmetrics-text\r\n\r\n";
    connection.send(request).expect("it is open");
    let open = connection.response().expect("it answers").text();
    assert!(open.contains("# TYPE orders counter\norders_total{kind=\"tea\"} 2\n"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    server.stop();
}

#[test]
fn application_counts_for_nothing_without_a_stats_process() {
    let server = Ferricorn::example("app_metrics").config("workers = 1").start();
    order(&server, "tea", 3);
    server.stop();
}

/// The addresses of the memory that a worker counts in.
fn counted_in(pid: i32) -> (u64, u64) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it is alive");
    let line = maps.lines().find(|line| line.contains("memfd:ferricorn-metrics"));
    let (range, _) = line.and_then(|line| line.split_once(' ')).expect("it is mapped");
    let (from, to) = range.split_once('-').expect("two addresses");
    let number = |text| u64::from_str_radix(text, 16).expect("an address");
    (number(from), number(to))
}

/// Fills the memory that a worker counts in with a list of the application's series that is rubbish.
fn scribble(pid: i32, seed: u64) {
    let (from, to) = counted_in(pid);
    let mut state = seed;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = (0..(to - from) / 8).map(|at| match (at, random()) {
        // The layout of the list, and an end beyond it.
        (1024, _) => 1,
        (1026, number) => number,
        // Heads that are likely, letters that are valid, or anything.
        (_, number) if number % 3 == 0 => (number % 5) | (((number >> 8) % 40) << 32),
        (_, number) if number % 3 == 1 => u64::from_le_bytes(*b"abcdefgh"),
        (_, number) => number,
    });
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let memory = std::fs::File::options().write(true).open(format!("/proc/{pid}/mem"));
    let written = memory.and_then(|memory| memory.write_all_at(&bytes, from));
    written.expect("its ancestor may write it");
}

#[test]
fn rubbish_of_a_worker_spoils_neither_text_nor_server() {
    let (server, address) = shop("workers = 2\nstall_timeout = 0");
    order(&server, "tea", 20);
    let stat = || {
        let children = crate::proc::children(server.pid());
        children.into_iter().find(|child| child.name == "ferricorn-stat").map(|child| child.pid)
    };
    let stats_process = stat();
    for seed in 1..=20 {
        scribble(server.worker(0), seed);
        // Each line is a name and a number, and the server's own families are the server's.
        let samples = scrape(address);
        assert_eq!(samples["ferricorn_workers{state=\"serving\"}"], 2.0);
        assert!(samples["shop_workers"] >= 1.0, "the other worker's: {samples:#?}");
        assert_eq!(ask(address, "/status.json").status, 200);
    }
    assert_eq!(stat(), stats_process, "it has not died of it");
    let victim = server.worker(0);
    send(victim, Signal::SIGKILL);
    eventually("a replacement", PATIENCE, || {
        let workers = server.workers();
        (workers.len() == 2 && workers[0].1 != victim).then_some(())
    });
    eventually("it counts in the place of the dead one", PATIENCE, || {
        order(&server, "cake", 1);
        (scrape(address)["shop_workers"] == 2.0).then_some(())
    });
    server.stop();
}
