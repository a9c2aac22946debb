//! What can be measured without a quiet machine: counts that must not grow, and figures that are
//! printed to be read (`cargo test --test process figures -- --nocapture`). Only what holds on any
//! machine is asserted.

use std::time::{Duration, Instant};

use axum::http::{Method, Uri};
use ferricorn::bench::Board;

use crate::client::get;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};
use crate::load::{Client, Crowd, Load};
use crate::proc;

/// What a request costs a worker in processor time, and how much of that goes into shared memory.
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
    let (begun, answered, used) = (Instant::now(), load.answered(), nanos());
    load.wait_for_more(10_000);
    let (passed, answered, used) = (begun.elapsed(), load.answered() - answered, nanos() - used);
    load.finish().assert_clean();
    server.stop();
    let request = used as f64 / answered as f64;
    let board = Board::new(1000).expect("there is memory");
    let target = Uri::from_static("/articles/iron-unicorn?colour=silver&page=3");
    let stores = nanos_each(|round| board.request(round % 64, &Method::GET, &target));
    let beat = nanos_each(|_| board.beat());
    // A worker with connections beats four times a second, when nothing is configured.
    let beats = beat * 4.0 * passed.as_secs_f64() / answered as f64;
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

/// How much of a processor it takes, in nanoseconds, when it is done again and again: the best of five
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

/// Reloads and upgrades under load, POSTs among it: nobody notices.
#[test]
fn reloads_and_upgrades_pass_unnoticed() {
    let _alone = crate::machine::alone();
    // In memory: a disk that takes seconds for a commit makes the others wait too long for their turn,
    // which has nothing to do with reloads.
    let memory = tempfile::tempdir_in("/dev/shm").expect("it is memory that every Linux has");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(memory.path(), everybody).expect("it is our folder");
    let url = format!("sqlite://{}/rows.db", memory.path().display());
    let server = Ferricorn::bundled().env("DATABASE_URL", url).start();
    let pause = Duration::from_millis(5);
    let crowds = [
        Crowd::get(32, Client::KeepAlive { pause, watches: false }),
        Crowd::get(8, Client::PerRequest),
        Crowd {
            count: 4,
            client: Client::PerRequest,
            request: crate::client::post("/populate", ""),
            status: 201,
        },
    ];
    let load = Load::begin(&server.address(), &crowds);
    for round in 0..15 {
        let before = server.wait_workers(4);
        server.signal(if round % 3 == 2 { Signal::SIGUSR2 } else { Signal::SIGHUP });
        eventually("four other workers", PATIENCE, || {
            let now = server.workers();
            (now.len() == 4 && now.iter().all(|it| !before.contains(it))).then_some(())
        });
        load.wait_for_more(50);
    }
    let tally = load.finish();
    tally.assert_clean();
    println!(
        "10 HUP and 5 USR2: {} answered, 0 failed, longest gap {:?}",
        tally.answered,
        tally.longest_gap()
    );
    server.stop();
}
