//! A stop that is announced: balancers learn of it while the server still serves.

use std::time::{Duration, Instant};

use crate::harness::{Exit, Ferricorn, Signal, eventually};
use crate::load::{Client, Crowd, Load};
use crate::log_figures::{figure, is_in_full_length};

/// Clients of a balancer that has not noticed yet: those that keep connections, and those that do not.
fn begin(server: &Ferricorn) -> Load {
    let kept = Client::KeepAlive { pause: Duration::from_millis(10), watches: false };
    Load::begin(&server.address(), &[Crowd::get(16, kept), Crowd::get(2, Client::PerRequest)])
}

/// With `FIGURE_ROUNDS` and `FIGURE_SECONDS` in full length.
#[test]
fn balancer_that_notices_late_fails_nobody() {
    let is_figure = is_in_full_length("FIGURE_SECONDS");
    let _alone = is_figure.then(crate::machine::alone);
    let late = Duration::from_secs(figure("FIGURE_SECONDS", 1));
    let mut answered = 0;
    for _ in 0..figure("FIGURE_ROUNDS", 1) {
        let config = format!("workers = 2\nannounce = {}", late.as_secs() + 1);
        let mut server = Ferricorn::unruly().config(&config).start();
        let load = begin(&server);
        load.wait_for_more(100);
        assert_eq!(server.get("/readyz").expect("it serves").status, 200);
        let told = Instant::now();
        server.signal(Signal::SIGTERM);
        eventually("readiness is 503", late, || {
            let ready = server.get("/readyz").expect("it serves");
            (ready.status == 503).then(|| assert!(ready.closes()))
        });
        eventually("the balancer has noticed", 2 * late, || (told.elapsed() >= late).then_some(()));
        assert!(server.is_running());
        let tally = load.finish();
        tally.assert_clean();
        answered += tally.answered;
        assert_eq!(server.wait_exit(), Exit::Code(0));
        assert!(told.elapsed() >= late, "{:?}", told.elapsed());
        let log = server.log();
        assert!(log.contains("the server serves on, readiness is 503"), "{log}");
    }
    println!("{answered} requests answered");
}

#[test]
fn int_ends_an_announcement() {
    let mut server = Ferricorn::unruly().config("announce = 600").start();
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_announced", &[("announce_seconds", 600.0.into())]);
    assert_eq!(server.get("/").expect("it serves").status, 200);
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}
