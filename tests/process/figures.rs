//! What can be measured without a quiet machine: counts that must not grow, and figures that are
//! printed to be read (`cargo test --test process figures -- --nocapture`). Only what holds on any
//! machine is asserted.

use std::time::Duration;

use crate::client::get;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};
use crate::load::{Client, Crowd, Load};

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
