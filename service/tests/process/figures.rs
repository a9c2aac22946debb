//! Measurements that need no quiet machine: counts that must not grow, and figures that are
//! printed to be read (`cargo test --test process figures -- --nocapture`). Only what holds on any
//! machine is asserted.

use std::time::{Duration, Instant};

use axum::http::{Method, Uri};
use ferricorn::bench::{AccessFormat, AccessWriter, Board};

use crate::client::get;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};
use crate::load::{Client, Crowd, Load};
use crate::proc;
use crate::request::{DEFAULT, Request};

/// The processor time of a request in a worker, and the part of it that goes into shared memory.
/// `cargo bench --bench heartbeat` measures the stores alone, with more care.
#[test]
fn the_scoreboard_costs_less_than_a_hundredth_of_a_request() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::hello().config("workers = 1").start();
    let worker = server.worker(0);
    let pause = Duration::ZERO;
    let kept = Client::KeepAlive { pause, watches: false };
    let load = Load::begin(&server.address(), &[Crowd::get(8, kept)]);
    load.wait_for_more(1000);
    let nanos = || proc::processor_nanos(worker).expect("the worker lives");
    let begun = Instant::now();
    let answered = load.answered();
    let used = nanos();
    load.wait_for_more(10_000);
    let passed = begun.elapsed();
    let answered = load.answered() - answered;
    let used = nanos() - used;
    load.finish().assert_clean();
    server.stop();
    let request = used as f64 / answered as f64;
    let board = Board::new(1000).expect("there is memory");
    let target = Uri::from_static("/articles/iron-unicorn?colour=silver&page=3");
    let stores = nanos_each(|round| board.request(round % 64, &Method::GET, &target));
    let heartbeat = nanos_each(|_| board.note_heartbeat());
    // A worker with connections beats four times a second, when nothing is configured.
    let beats = heartbeat * 4.0 * passed.as_secs_f64() / answered as f64;
    let share = (stores + beats) / request * 100.0;
    println!(
        "a request: {request:.0} ns of the worker's processor ({answered} in {passed:?}); scoreboard: \
         {stores:.1} ns, heartbeat: {beats:.2} ns; together {share:.2} %"
    );
    // Without optimization it is another program.
    if !cfg!(debug_assertions) {
        assert!(share < 1.0, "{share} % of a request");
    }
}

/// A line of the default format, in processor time. `cargo bench --bench access_log` takes more care.
#[test]
fn an_access_line_costs_400_ns_at_most() {
    let _alone = crate::machine::alone();
    let request = Request::new();
    let mut writer = AccessWriter::new(AccessFormat::compile(DEFAULT).expect("it is valid"));
    let mut out = Vec::with_capacity(4096);
    let nanos = nanos_each(|_| {
        out.clear();
        writer.write(std::hint::black_box(&request.record()), &mut out);
    });
    println!("an access line of {} bytes: {nanos:.0} ns", out.len());
    assert!(out.len() > 200 && out.ends_with(b"\n"));
    // Without optimization it is another program.
    if !cfg!(debug_assertions) {
        assert!(nanos <= 400.0, "{nanos} ns");
    }
}

/// The processor time that it takes, in nanoseconds, when it is done again and again: the best of five
/// passes.
fn nanos_each(mut done: impl FnMut(usize)) -> f64 {
    const TIMES: usize = 500_000;
    let used = || {
        let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
        Duration::from(nix::time::clock_gettime(clock).expect("every Linux has it"))
    };
    let passes = (0..5).map(|_| {
        let before = used();
        (0..TIMES).for_each(&mut done);
        used() - before
    });
    passes.min().expect("there are five").as_nanos() as f64 / TIMES as f64
}

/// A blocked loop delays those whom it has accepted, and nobody else.
#[test]
fn fast_requests_pass_blocked_workers() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let pause = Duration::ZERO;
    let blocking = Crowd {
        count: 2,
        client: Client::KeepAlive { pause, watches: false },
        request: get("/block?ms=100"),
        status: 200,
    };
    let blockers = Load::begin(&server.address(), &[blocking]);
    let fast = Load::begin(&server.address(), &[Crowd::get(16, Client::PerRequest)]);
    fast.wait_for_more(2000);
    let tally = fast.finish();
    blockers.finish().assert_clean();
    tally.assert_clean();
    println!(
        "fast requests beside two that block their loops for 100 ms: p50 {:?}, p99 {:?}, max {:?}",
        tally.percentile(0.5),
        tally.percentile(0.99),
        tally.latencies.last().expect("there are answers"),
    );
    server.stop();
}

/// Fifty reloads and twenty upgrades under load, POSTs among it: nobody notices, and every row that was
/// acknowledged is there, once.
#[test]
fn reloads_and_upgrades_pass_unnoticed() {
    let _alone = crate::machine::alone();
    // In memory: a disk that takes seconds for a commit makes the others wait too long for their turn,
    // which has nothing to do with reloads.
    let memory = tempfile::tempdir_in("/dev/shm").expect("it is memory that every Linux has");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(memory.path(), everybody).expect("it is our folder");
    let url = format!("sqlite://{}/rows.db", memory.path().display());
    let mut server = Ferricorn::bundled()
        .config("[log]\naccess = \"access.log\"")
        .env("DATABASE_URL", url)
        .start();
    let keep_alive = Client::KeepAlive { pause: Duration::from_millis(10), watches: false };
    let posts = |count, client| Crowd {
        request: crate::client::post("/populate", ""),
        status: 201,
        ..Crowd::get(count, client)
    };
    let readers = [Crowd::get(56, keep_alive), Crowd::get(12, Client::PerRequest)];
    let writers = [posts(8, keep_alive), posts(4, Client::PerRequest)];
    let readers = Load::begin(&server.address(), &readers);
    let writers = Load::begin(&server.address(), &writers);
    let begun = Instant::now();
    for round in 0..70 {
        let before = server.wait_workers(4);
        server.signal(if round % 7 < 5 { Signal::SIGHUP } else { Signal::SIGUSR2 });
        eventually("four other workers", PATIENCE, || {
            let now = server.workers();
            (now.len() == 4 && now.iter().all(|found| !before.contains(found))).then_some(())
        });
        readers.wait_for_more(50);
    }
    let took = begun.elapsed();
    let read = readers.finish();
    let written = writers.finish();
    let mut acknowledged: Vec<String> = written.posted.iter().map(|posted| data(posted)).collect();
    acknowledged.sort_unstable();
    let rows = acknowledged.len();
    let all = read.and(written);
    all.assert_clean();
    println!(
        "50 HUP and 20 USR2 in {took:?}: {} answered, 0 failed; {rows} rows; longest gap {:?}",
        all.answered,
        all.longest_gap()
    );
    // Without optimization, beside other tests, it is another program on another machine.
    let gap_max = if cfg!(debug_assertions) { 1000 } else { 50 };
    let gap = all.longest_gap();
    assert!(gap <= Duration::from_millis(gap_max), "nobody was answered for {gap:?}");
    let stored = stored(&server);
    assert!(stored == acknowledged, "{} rows stored, {rows} acknowledged", stored.len());
    assert!(server.is_running(), "the master is the process that was started");
    let log = server.log();
    assert_eq!(log.matches("Upgraded in place").count(), 20);
    assert_eq!(log.matches("reloaded: generation ").count(), 70);
    server.stop();
}

/// The text that `POST /populate` says it has stored.
fn data(answer: &[u8]) -> String {
    let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
    answer["data"].as_str().expect("a text").to_owned()
}

/// The text of every row there is, page by page, sorted.
fn stored(server: &Ferricorn) -> Vec<String> {
    let mut connection = server.connect();
    let mut rows = Vec::new();
    let mut target = "/data?limit=100".to_owned();
    loop {
        let answer = connection.get(&target).expect("it is answered");
        let page: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let texts = page["rows"].as_array().expect("rows").iter();
        rows.extend(texts.map(|row| row["data"].as_str().expect("a text").to_owned()));
        let Some(next) = page["next"].as_i64() else { break };
        target = format!("/data?limit=100&before={next}");
    }
    rows.sort_unstable();
    rows
}

/// From the signal to the last of four replacements of idle workers.
#[test]
fn a_reload_of_idle_workers_is_soon_over() {
    const ROUNDS: usize = 11;
    let _alone = crate::machine::alone();
    let server = Ferricorn::bundled().start();
    let ready = || server.log().matches(") ready in ").count();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let before = server.wait_workers(4);
        eventually("all were told", PATIENCE, || (ready() == 4 * (round + 1)).then_some(()));
        let begun = Instant::now();
        server.signal(Signal::SIGHUP);
        eventually("four more are ready", PATIENCE, || (ready() == 4 * (round + 2)).then_some(()));
        times.push(begun.elapsed());
        eventually("the others are gone", PATIENCE, || {
            (!server.workers().iter().any(|worker| before.contains(worker))).then_some(())
        });
    }
    times.sort_unstable();
    let median = times[ROUNDS / 2];
    let longest = times[ROUNDS - 1];
    println!("a reload of 4 idle workers: median {median:?}, longest {longest:?}");
    // Without optimization, on a crowded machine, it takes as long as it takes.
    let most = if cfg!(debug_assertions) { 3000 } else { 300 };
    assert!(median <= Duration::from_millis(most), "{times:?}");
    server.stop();
}
