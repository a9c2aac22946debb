//! The figures of the metrics: how true they are, and their cost. `./check figures` has them in full length.

use std::time::{Duration, Instant};

use crate::client::get;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::log_figures::{figure, is_in_full_length};
use crate::metrics::{scrape, stats, stats_address};
use crate::proc;

/// Kept connections that ask without a pause.
fn busy(server: &Ferricorn, clients: usize) -> Load {
    let kept = Client::KeepAlive { pause: Duration::ZERO, watches: false };
    Load::begin(&server.address(), &[Crowd::get(clients, kept)])
}

/// The one in the middle of those that are sorted.
fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_unstable_by(|one, other| one.partial_cmp(other).expect("they are numbers"));
    values[values.len() / 2]
}

/// Requests wait in the queue of a worker that stands still for as long as the test has it.
#[test]
fn queue_wait_is_the_one_that_was_injected() {
    let _alone = crate::machine::alone();
    let rounds = figure("FIGURE_ROUNDS", 3);
    let config = "workers = 1\n[log]\naccess_format = 'wait=%({queue_wait}e)s.'";
    let server = Ferricorn::hello().config(config).start();
    let worker = server.worker(0);
    for injected in [50, 200, 1000].map(Duration::from_millis) {
        let mut errors = Vec::new();
        for _ in 0..rounds {
            let before = server.log().matches("wait=").count();
            send(worker, Signal::SIGSTOP);
            let mut connection = server.connect();
            connection.send(get("/")).expect("it is queued");
            let sent = Instant::now();
            let is_old = || (sent.elapsed() >= injected).then_some(());
            eventually("it has waited", PATIENCE, is_old);
            let waited = sent.elapsed();
            send(worker, Signal::SIGCONT);
            assert_eq!(connection.response().expect("it is answered").status, 200);
            let told: f64 = eventually("its line", PATIENCE, || {
                let log = server.log();
                let line = log.split("wait=").skip(1).nth(before)?;
                let (seconds, _) = line.split_once(".\n")?;
                Some(seconds.parse().expect("a number of seconds"))
            });
            errors.push((told - waited.as_secs_f64()) * 1000.0);
        }
        let error = median(&mut errors);
        println!("{injected:?} injected: told {error:+.2} ms more, {errors:.2?} in all");
        assert_eq!(errors.len() as u64, rounds);
        // The kernel measures in ticks, and a debug build is slow.
        if is_in_full_length("FIGURE_ROUNDS") {
            assert!(error.abs() <= 5.0, "{error} ms");
        } else {
            assert!(error >= -12.0, "{error} ms");
        }
    }
    server.stop();
}

#[test]
fn scrapes_are_fast_under_load() {
    let _alone = crate::machine::alone();
    let scrapes = figure("FIGURE_SCRAPES", 50);
    let server = stats(Ferricorn::hello(), "workers = 2");
    let address = stats_address(&server);
    let load = busy(&server, 8);
    crate::metrics::scrape_counted(address, 1.0);
    let mut times: Vec<Duration> = (0..scrapes)
        .map(|_| {
            let begun = Instant::now();
            assert!(scrape(address)["ferricorn_requests_total{code=\"200\"}"] > 0.0);
            begun.elapsed()
        })
        .collect();
    load.finish().assert_clean();
    server.stop();
    times.sort_unstable();
    let middle = times[times.len() / 2];
    let late = times[times.len() * 99 / 100];
    println!("{} scrapes under load: median {middle:?}, p99 {late:?}", times.len());
    if is_in_full_length("FIGURE_SCRAPES") {
        assert!(late <= Duration::from_millis(5), "{late:?}");
    }
}

/// Two servers side by side, one with metrics, have the same load in turns.
#[test]
fn metrics_cost_less_than_a_hundredth_of_the_requests() {
    let _alone = crate::machine::alone();
    let pairs = figure("FIGURE_PAIRS", 4);
    let requests = if is_in_full_length("FIGURE_PAIRS") { 20_000 } else { 500 };
    let servers = [
        stats(Ferricorn::hello(), "workers = 1"),
        Ferricorn::hello().config("workers = 1").start(),
    ];
    let measure = |server: &Ferricorn| {
        let worker = server.worker(0);
        let nanos = || proc::processor_nanos(worker).expect("the worker lives");
        let load = busy(server, 8);
        load.wait_for_more(requests / 10);
        let begun = Instant::now();
        let answered = load.answered();
        let used = nanos();
        load.wait_for_more(requests);
        let passed = begun.elapsed();
        let answered = load.answered() - answered;
        let used = nanos() - used;
        load.finish().assert_clean();
        (answered as f64 / passed.as_secs_f64(), used as f64 / answered as f64)
    };
    let mut rates = Vec::new();
    let mut costs = Vec::new();
    for pair in 0..pairs {
        // Neither has always the machine that the other has warmed.
        let order = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut found = [(0.0, 0.0); 2];
        for at in order {
            found[at] = measure(&servers[at]);
        }
        rates.push(found[0].0 / found[1].0);
        costs.push(found[0].1 / found[1].1);
    }
    for server in servers {
        server.stop();
    }
    let summary = |ratios: &[f64]| {
        let count = ratios.len() as f64;
        let mean = ratios.iter().sum::<f64>() / count;
        let squares = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>();
        (mean, 2.0 * (squares / (count - 1.0) / count).sqrt())
    };
    let ((rate, error), (cost, spread)) = (summary(&rates), summary(&costs));
    println!(
        "with metrics: {rate:.4} ± {error:.4} of the requests a second, {cost:.4} ± {spread:.4} of the \
         worker's processor time a request ({pairs} pairs)"
    );
    assert_eq!(rates.len() as u64, pairs);
    if is_in_full_length("FIGURE_PAIRS") {
        assert!(rate + error >= 0.99, "{rate} ± {error}");
    }
}

/// Requests under a load that kills, reloads and upgrades do not stop.
#[test]
fn counts_equal_the_clients_under_load() {
    let _alone = crate::machine::alone();
    let kills = figure("FIGURE_KILLS", 5);
    let reloads = figure("FIGURE_RELOADS", 2);
    let upgrades = figure("FIGURE_UPGRADES", 1);
    // A hundred kills by hand of a slot's workers cost no back-off.
    let workers = u16::try_from(kills / 100).expect("it fits").max(2);
    let server = stats(Ferricorn::hello(), &format!("workers = {workers}"));
    let address = stats_address(&server);
    let load = busy(&server, 8);
    let mut last = scrape(address);
    let mut look = |wanted: &str, is_done: &dyn Fn(f64) -> bool| {
        eventually(wanted, PATIENCE, || {
            let now = scrape(address);
            crate::metrics::assert_no_fall(&last, &now);
            let is_so = is_done(now[wanted]);
            last = now;
            is_so.then_some(())
        });
    };
    for number in 1..=kills {
        let slot = u16::try_from(number % u64::from(workers)).expect("a slot");
        let pid = server.worker(slot);
        send(pid, Signal::SIGKILL);
        look("ferricorn_worker_ends_total{cause=\"signal\"}", &|ends| ends >= number as f64);
        eventually("a replacement", PATIENCE, || {
            let now = server.workers();
            (now.len() == usize::from(workers) && !now.contains(&(slot, pid))).then_some(())
        });
        load.wait_for_more(20);
    }
    for number in 1..=reloads + upgrades {
        server.signal(if number <= reloads { Signal::SIGHUP } else { Signal::SIGUSR2 });
        look("ferricorn_reloads_total{result=\"success\"}", &|done| done >= number as f64);
        load.wait_for_more(20);
    }
    let tally = load.finish();
    let samples = crate::metrics::scrape_counted(address, tally.answered as f64);
    server.stop();
    let of = |code: &str| {
        let sample = samples.get(&format!("ferricorn_requests_total{{code=\"{code}\"}}"));
        sample.copied().unwrap_or(0.0)
    };
    let ok = of("200");
    let aborted = of("aborted");
    let all: f64 = samples
        .iter()
        .filter(|(name, _)| name.starts_with("ferricorn_requests_total{"))
        .map(|(_, count)| count)
        .sum();
    let answered = tally.answered as f64;
    let failed = tally.failures() as f64;
    println!("{answered} answered, {failed} failed; {ok} counted as 200, {aborted} as aborted");
    assert_eq!(all, ok + aborted, "no other code");
    // A killed worker may have sent an answer that it had not counted: it is counted as aborted.
    assert!(ok <= answered && answered <= all, "{ok} {answered} {all}");
    // A client may have sent a request that no worker had read.
    assert!(all <= answered + failed, "{all} {answered} {failed}");
    assert!(failed <= (kills * 8) as f64, "{failed} failed of {kills} kills");
}
