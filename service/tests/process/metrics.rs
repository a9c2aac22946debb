//! Metrics of real servers: what is served, when, and that no number is lost or falls.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::client::{Address, Connection, Response, get};
use crate::harness::{Builder, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::log_figures::figure;
use crate::proc;

/// Where a server serves its metrics, as its log says.
pub(crate) fn stats_address(server: &Ferricorn) -> SocketAddr {
    let before = "Serving metrics at: http://";
    eventually("an address of the metrics", PATIENCE, || {
        let log = server.log();
        let (_, rest) = log.rsplit_once(before)?;
        rest.split('/').next()?.parse().ok()
    })
}

/// The stats process.
pub(crate) fn stats_process(server: &Ferricorn) -> Option<i32> {
    let is_it = |child: &proc::Stat| child.name == "ferricorn-stat" && child.state != 'Z';
    proc::children(server.pid()).into_iter().find(is_it).map(|child| child.pid)
}

pub(crate) fn stats(builder: Builder, config: &str) -> Ferricorn {
    let text = format!("{config}\n[stats]\nbind = \"127.0.0.1:0\"\n");
    builder.config(&text).start()
}

pub(crate) fn ask(address: SocketAddr, target: &str) -> Response {
    let mut connection = Connection::open(&Address::Tcp(address)).expect("it accepts");
    connection.get(target).expect("it answers")
}

/// Every sample, by its name and labels as they are written.
pub(crate) fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let response = ask(address, "/metrics");
    assert_eq!(response.status, 200);
    let text = String::from_utf8(response.body).expect("a text");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    samples.map(sample).collect()
}

/// Scrapes until so many requests are counted: each is counted behind its answer.
pub(crate) fn scrape_counted(address: SocketAddr, requests: f64) -> BTreeMap<String, f64> {
    eventually("the requests are counted", PATIENCE, || {
        let samples = scrape(address);
        (sum(&samples, "ferricorn_requests_total") >= requests).then_some(samples)
    })
}

fn sum(samples: &BTreeMap<String, f64>, family: &str) -> f64 {
    let of_family = |name: &str| name.split('{').next() == Some(family);
    samples.iter().filter(|(name, _)| of_family(name)).map(|(_, value)| value).sum()
}

/// The counters of a scrape: what must never fall.
fn counters(samples: &BTreeMap<String, f64>) -> impl Iterator<Item = (&String, f64)> {
    let rises = |name: &str| {
        let name = name.split('{').next().unwrap_or("");
        ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix))
    };
    samples.iter().filter(move |(name, _)| rises(name)).map(|(name, value)| (name, *value))
}

pub(crate) fn assert_no_fall(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
    for (name, value) in counters(before) {
        let now = after.get(name).copied().unwrap_or_else(|| panic!("{name} is gone"));
        assert!(now >= value, "{name} fell from {value} to {now}");
    }
}

#[test]
fn metrics_are_off_by_default() {
    let server = Ferricorn::hello().config("workers = 1").start();
    let names: Vec<String> =
        proc::children(server.pid()).into_iter().map(|child| child.name).collect();
    assert!(!names.iter().any(|name| name == "ferricorn-stat"), "{names:?}");
    server.stop();
}

#[test]
fn every_family_of_the_contract_is_served() {
    let server = stats(Ferricorn::hello(), "workers = 2");
    for _ in 0..10 {
        assert_eq!(server.get("/").expect("it answers").status, 200);
    }
    let samples = scrape_counted(stats_address(&server), 10.0);
    let value = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("{samples:#?}"));
    assert_eq!(value("ferricorn_requests_total{code=\"200\"}"), 10.0);
    assert_eq!(value("ferricorn_request_duration_seconds_count"), 10.0);
    assert_eq!(value("ferricorn_queue_wait_seconds_count"), 10.0);
    assert_eq!(value("ferricorn_workers{state=\"serving\"}"), 2.0);
    assert_eq!(value("ferricorn_worker_ends_total{cause=\"signal\"}"), 0.0);
    assert_eq!(value("ferricorn_reloads_total{result=\"success\"}"), 0.0);
    assert_eq!(value("ferricorn_log_lines_dropped_total{log=\"access\"}"), 0.0);
    assert_eq!(value("ferricorn_tls_handshakes_total{result=\"success\"}"), 0.0);
    assert_eq!(value("ferricorn_requests_in_flight{slot=\"1\"}"), 0.0);
    assert!(samples.contains_key("ferricorn_connections{slot=\"0\"}"));
    assert!(value("ferricorn_worker_memory_bytes{slot=\"0\"}") > 1e6);
    assert!(samples.contains_key("ferricorn_worker_cpu_seconds_total{slot=\"0\"}"));
    assert!(samples.contains_key("ferricorn_event_loop_lag_seconds_bucket{le=\"+Inf\"}"));
    let address = server.addresses()[0].clone();
    assert_eq!(value(&format!("ferricorn_listen_queue_length{{address=\"{address}\"}}")), 0.0);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(value(&format!("ferricorn_build_info{{version=\"{version}\"}}")), 1.0);
    server.stop();
}

#[test]
fn a_scrape_needs_no_worker() {
    let server = stats(Ferricorn::hello(), "workers = 2");
    let address = stats_address(&server);
    assert_eq!(server.get("/").expect("it answers").status, 200);
    scrape_counted(address, 1.0);
    let workers = server.workers();
    workers.iter().for_each(|(_, pid)| send(*pid, Signal::SIGSTOP));
    let samples = scrape(address);
    assert_eq!(samples["ferricorn_requests_total{code=\"200\"}"], 1.0);
    assert_eq!(samples["ferricorn_workers{state=\"serving\"}"], 2.0);
    workers.iter().for_each(|(_, pid)| send(*pid, Signal::SIGCONT));
    server.stop();
}

#[test]
fn a_dead_stats_process_is_replaced_and_its_counters_go_on() {
    let server = stats(Ferricorn::hello(), "workers = 1");
    let address = stats_address(&server);
    assert_eq!(server.get("/").expect("it answers").status, 200);
    let before = scrape_counted(address, 1.0);
    let first = stats_process(&server).expect("it serves");
    send(first, Signal::SIGKILL);
    eventually("another one", PATIENCE, || stats_process(&server).filter(|pid| *pid != first));
    let after = scrape(address);
    assert_no_fall(&before, &after);
    assert_eq!(after["ferricorn_requests_total{code=\"200\"}"], 1.0);
    server.stop();
}

/// The stats process that is asked has never seen the worker alive, and the master answers nothing.
#[test]
fn processor_time_of_a_dead_worker_is_told_by_a_master_that_stands_still() {
    let server = stats(Ferricorn::unruly(), "workers = 1");
    let address = stats_address(&server);
    let seconds = "ferricorn_worker_cpu_seconds_total{slot=\"0\"}";
    let before = eventually("the worker has worked", PATIENCE, || {
        server.get("/").expect("it answers");
        let now = scrape(address);
        (now[seconds] >= 0.05).then_some(now)
    });
    let first = stats_process(&server).expect("it serves");
    send(first, Signal::SIGKILL);
    eventually("another one", PATIENCE, || stats_process(&server).filter(|pid| *pid != first));
    let worker = server.worker(0);
    send(worker, Signal::SIGKILL);
    server.wait_event("worker_exited", &[("process_pid", worker.into())]);
    server.signal(Signal::SIGSTOP);
    eventually("the master stands still", PATIENCE, || {
        proc::stat(server.pid()).filter(|master| master.state == 'T')
    });
    let after = scrape(address);
    server.signal(Signal::SIGCONT);
    assert_no_fall(&before, &after);
    server.stop();
}

/// Workers are killed, generations and images replaced, while clients count their own answers. With
/// `FIGURE_KILLS`, `FIGURE_RELOADS` and `FIGURE_UPGRADES` in full length.
#[test]
fn counts_equal_the_clients_over_deaths_reloads_and_an_upgrade() {
    let length = |name, otherwise| u32::try_from(figure(name, otherwise)).expect("it fits");
    let kills = length("FIGURE_KILLS", 10);
    let reloads = length("FIGURE_RELOADS", 2);
    let upgrades = length("FIGURE_UPGRADES", 1);
    let server = stats(Ferricorn::hello(), "workers = 2");
    let address = stats_address(&server);
    let mut last = scrape(address);
    let mut answered = 0_u32;
    let mut failed = 0_u32;
    let mut round = |last: &mut BTreeMap<String, f64>, requests: u32| {
        for _ in 0..requests {
            match server.get("/") {
                Ok(response) if response.status == 200 => answered += 1,
                Ok(response) => panic!("answered {}", response.status),
                Err(_) => failed += 1,
            }
        }
        let now = scrape(address);
        assert_no_fall(last, &now);
        *last = now;
    };
    for _ in 0..kills {
        round(&mut last, 20);
        let (slot, pid) = server.workers()[0];
        send(pid, Signal::SIGKILL);
        round(&mut last, 20);
        eventually("a replacement", PATIENCE, || {
            let workers = server.workers();
            (workers.len() == 2 && !workers.contains(&(slot, pid))).then_some(())
        });
    }
    let reloaded = "ferricorn_reloads_total{result=\"success\"}";
    for number in 1..=reloads + upgrades {
        server.signal(if number <= reloads { Signal::SIGHUP } else { Signal::SIGUSR2 });
        eventually("the reload is counted", PATIENCE, || {
            round(&mut last, 5);
            (last[reloaded] >= f64::from(number)).then_some(())
        });
    }
    round(&mut last, 20);
    let answered = f64::from(answered);
    let failed = f64::from(failed);
    let samples = scrape_counted(address, answered);
    let ok = samples["ferricorn_requests_total{code=\"200\"}"];
    let all = sum(&samples, "ferricorn_requests_total");
    // An answer may have left a worker that was killed before it could be counted.
    assert!(
        ok <= answered && answered <= all && all <= answered + failed,
        "{ok} {answered} {all} {failed}"
    );
    let ends = samples["ferricorn_worker_ends_total{cause=\"signal\"}"];
    assert_eq!(ends, f64::from(kills));
    let left = samples["ferricorn_worker_ends_total{cause=\"left\"}"];
    assert_eq!(left, f64::from(2 * (reloads + upgrades)), "two for each reload");
    println!("{answered} answered, {failed} failed, {ok} counted as 200 and {all} in all");
    server.stop();
}

#[test]
fn a_request_that_dies_with_its_worker_is_counted_as_aborted() {
    let server = stats(Ferricorn::unruly(), "workers = 1");
    let address = stats_address(&server);
    let mut held = server.connect();
    held.send(get("/slow?s=60")).expect("it is open");
    let in_flight = "ferricorn_requests_in_flight{slot=\"0\"}";
    eventually("the request is in flight", PATIENCE, || {
        (scrape(address)[in_flight] == 1.0).then_some(())
    });
    let worker = server.worker(0);
    send(worker, Signal::SIGKILL);
    eventually("the request is counted", PATIENCE, || {
        (scrape(address).get("ferricorn_requests_total{code=\"aborted\"}") == Some(&1.0))
            .then_some(())
    });
    eventually("nothing is in flight", PATIENCE, || {
        (scrape(address)[in_flight] == 0.0).then_some(())
    });
    server.stop();
}

/// A worker can write all that it maps: the counters of the others are not among it.
#[test]
fn a_worker_sees_its_own_counters_alone() {
    let server = stats(Ferricorn::hello(), "workers = 2");
    for (_, pid) in server.workers() {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it is alive");
        let mapped = maps.lines().filter(|line| line.contains("memfd:ferricorn-metrics"));
        assert_eq!(mapped.count(), 1, "{maps}");
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it is alive");
        let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let mut targets = targets.map(|target| target.to_string_lossy().into_owned());
        assert!(!targets.any(|target| target.contains("ferricorn-metrics")));
    }
    server.stop();
}

/// The next datagram. A signal for another test of this process ends a wait that has a limit (signal(7)).
pub(crate) fn receive(receiver: &std::net::UdpSocket, buffer: &mut [u8]) -> usize {
    loop {
        match receiver.recv(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            received => return received.expect("numbers come once a second"),
        }
    }
}

#[test]
fn statsd_is_sent_what_has_happened() {
    // The builder takes this thread to where the server will be.
    let server = Ferricorn::hello().config("workers = 1");
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    receiver.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let to = receiver.local_addr().expect("it is bound");
    let server = server
        .flag(format!("--statsd-host={to}"))
        .flag("--statsd-prefix=shop")
        .flag("--dogstatsd-tags=env:live,a:b")
        .start();
    let mut text = String::new();
    let mut buffer = [0; 2048];
    while !text.contains("shop.gunicorn.workers:1|g|#env:live,a:b") {
        let length = receive(&receiver, &mut buffer);
        text.push_str(std::str::from_utf8(&buffer[..length]).expect("a text"));
    }
    for _ in 0..3 {
        assert_eq!(server.get("/").expect("it answers").status, 200);
    }
    let counted = |text: &str| {
        let counts = text.lines().filter_map(|line| {
            line.strip_prefix("shop.gunicorn.request.status.200:")?
                .split('|')
                .next()?
                .parse::<u32>()
                .ok()
        });
        counts.sum::<u32>()
    };
    while counted(&text) < 3 {
        let length = receive(&receiver, &mut buffer);
        text.push('\n');
        text.push_str(std::str::from_utf8(&buffer[..length]).expect("a text"));
    }
    assert_eq!(counted(&text), 3);
    server.stop();
}
