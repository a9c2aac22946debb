//! Every protocol through everything that an operator does, and everything that fails: a request is lost by
//! the death of the process that had begun it, and by nothing else. In the suite each comes once or twice;
//! in full counts, alone:
//!
//! ```text
//! FIGURE_ROUNDS=20 FIGURE_UPGRADES=10 FIGURE_KILLS=50 cargo test --release --test process matrix:: \
//!     -- --nocapture --test-threads 1
//! ```

use std::sync::Arc;
use std::time::Instant;

use crate::client::{Address, Outcome};
use crate::harness::{Builder, Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Failure, Load, Tally};
use crate::log_figures::figure;
use crate::seen::{Running, Seen};
use crate::storms::{Kill, freeze};
use crate::{grpc, http2, proc, sockets};

/// The clients of one protocol.
enum Clients {
    Http1(Load),
    Others(Running),
}

/// The outcomes that they have seen.
enum Found {
    Http1(Box<Tally>),
    Others(Arc<Seen>),
}

impl Clients {
    fn answered(&self) -> u64 {
        match self {
            Self::Http1(load) => load.answered(),
            Self::Others(running) => running.answered(),
        }
    }

    fn wait_for_more(&self, count: u64) {
        match self {
            Self::Http1(load) => load.wait_for_more(count),
            Self::Others(running) => running.wait_for_more(count),
        }
    }

    fn finish(self) -> Found {
        match self {
            Self::Http1(load) => Found::Http1(Box::new(load.finish())),
            Self::Others(running) => Found::Others(running.finish()),
        }
    }
}

impl Found {
    fn answered(&self) -> u64 {
        match self {
            Self::Http1(tally) => tally.answered,
            Self::Others(seen) => seen.answered(),
        }
    }

    fn again(&self) -> u64 {
        match self {
            Self::Http1(_) => 0,
            Self::Others(seen) => seen.again(),
        }
    }

    /// Requests that were lost, and those of them that no killed process explains. A connection that was
    /// refused after this moment is no loss: the server was told to stop.
    fn lost(&self, kills: &[Kill], told: Instant) -> (usize, Vec<String>) {
        let all: Vec<_> = match self {
            Self::Http1(tally) => {
                let failed = tally.requests.iter().filter(|request| request.failure.is_some());
                let is_refused = |failure| failure == Some(Failure::Outcome(Outcome::Refused));
                let lost = failed.chain(&tally.unconnected).copied();
                lost.map(|lost| (lost, is_refused(lost.failure), String::new())).collect()
            }
            Self::Others(seen) => {
                let lost = seen.lost().into_iter();
                lost.map(|lost| (lost.request, lost.is_refused, lost.error)).collect()
            }
        };
        let losses =
            all.into_iter().filter(|(lost, is_refused, _)| !is_refused || lost.ended < told);
        let losses: Vec<_> = losses.collect();
        let is_explained = |lost| kills.iter().any(|kill| kill.explains(lost));
        let unexplained = losses.iter().filter(|(lost, _, _)| !is_explained(lost));
        (losses.len(), unexplained.map(|lost| format!("{lost:?}")).collect())
    }
}

/// The settings of a server: those before its tables, its tables, and the requests after which a worker is
/// recycled where that is tried.
struct Settings {
    before: &'static str,
    tables: &'static str,
    recycle_after: u64,
}

impl Settings {
    fn text(&self, max_requests: u64) -> String {
        let Self { before, tables, .. } = self;
        let workers = "workers = 3\ngraceful_timeout = 8\n";
        format!("{workers}max_requests = {max_requests}\n{before}[log]\naccess = \"\"\n{tables}")
    }
}

/// Runs a server and clients of one protocol through the whole matrix.
fn run(what: &str, builder: Builder, settings: &Settings, begin: impl Fn(&Address) -> Clients) {
    let rounds = figure("FIGURE_ROUNDS", 1);
    let upgrades = figure("FIGURE_UPGRADES", 1);
    let kills = u16::try_from(figure("FIGURE_KILLS", 2)).expect("few");
    let _alone = crate::machine::alone();
    let builder = builder.config(&settings.text(0));
    let real = builder.binary().to_owned();
    let mut server = crate::disk::started_by_link(builder).start();
    let clients = begin(&server.address());
    let mut phases = Vec::new();
    let mut answered = 0;
    let mut phase = |name: &str, count: u64| {
        clients.wait_for_more(20);
        let now = clients.answered();
        phases.push(format!("{name} {count}: {}", now - answered));
        answered = now;
    };
    let counted = |text: &str| server.log().matches(text).count();
    let reloaded = |before: usize| {
        eventually("it is reloaded", PATIENCE, || {
            (counted("reloaded: generation ") > before).then_some(())
        });
    };

    let reload = || {
        let before = counted("reloaded: generation ");
        server.signal(Signal::SIGHUP);
        reloaded(before);
        clients.wait_for_more(20);
    };
    for _ in 0..rounds {
        reload();
    }
    phase("reloads", rounds);

    for _ in 0..upgrades {
        let before = counted("reloaded: generation ");
        crate::disk::put_link(server.folder(), &real);
        server.signal(Signal::SIGUSR2);
        reloaded(before);
        clients.wait_for_more(20);
    }
    phase("upgrades", upgrades);

    for _ in 0..rounds {
        server.signal(Signal::SIGTTIN);
        server.wait_workers(4);
        clients.wait_for_more(20);
        server.signal(Signal::SIGTTOU);
        server.wait_workers(3);
        clients.wait_for_more(20);
    }
    phase("scalings", 2 * rounds);

    server.rewrite_config(&settings.text(settings.recycle_after));
    reload();
    let recycled = || counted("it has served max_requests") as u64;
    eventually("workers are recycled", 10 * PATIENCE, || (recycled() >= rounds).then_some(()));
    server.rewrite_config(&settings.text(0));
    reload();
    phase("recycled", recycled());

    for round in 0..rounds {
        let stopped = server.worker(u16::try_from(round % 3).expect("few"));
        freeze(stopped);
        // Clients of its siblings go on.
        clients.wait_for_more(20);
        send(stopped, Signal::SIGCONT);
        clients.wait_for_more(20);
    }
    phase("SIGSTOP", rounds);

    let mut killed = Vec::new();
    for round in 0..kills {
        let victim = server.worker(round % 3);
        killed.push(Kill::now(victim));
        eventually("it is gone", PATIENCE, || (!proc::is_alive(victim)).then_some(()));
        server.wait_workers(3);
        clients.wait_for_more(20);
    }
    phase("kills", kills.into());

    let told = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    let found = clients.finish();
    let (lost, unexplained) = found.lost(&killed, told);
    println!(
        "{what}: {} answered, {} sent again, {lost} lost with killed workers, {} otherwise; {}",
        found.answered(),
        found.again(),
        unexplained.len(),
        phases.join(", ")
    );
    assert!(unexplained.is_empty(), "{what}: {unexplained:#?}");
}

/// The settings of TLS with a certificate for `localhost`.
fn encrypted(builder: Builder) -> (Builder, &'static str) {
    crate::tls::localhost().write(builder.folder(), "a");
    (builder, "[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n")
}

#[test]
fn nothing_is_lost_over_tls() {
    let (builder, tables) = encrypted(Ferricorn::unruly());
    let settings = Settings { before: "", tables, recycle_after: 300 };
    run("TLS, HTTP/1.1", builder, &settings, |address| {
        let pause = std::time::Duration::from_millis(2);
        let kept = Client::KeepAlive { pause, watches: false };
        let crowds = [Crowd::get(6, kept), Crowd::get(2, Client::PerRequest)];
        Clients::Http1(Load::begin(address, &crowds))
    });
}

#[test]
fn nothing_is_lost_over_http2_with_tls() {
    let (builder, tables) = encrypted(Ferricorn::unruly());
    let settings = Settings { before: "", tables, recycle_after: 1000 };
    run("h2", builder, &settings, |address| Clients::Others(http2::load(address, 6, 4)));
}

#[test]
fn nothing_is_lost_over_http2_in_the_clear() {
    let settings = Settings { before: "", tables: "", recycle_after: 1000 };
    run("h2c", Ferricorn::unruly(), &settings, |address| {
        Clients::Others(http2::load(address, 6, 4))
    });
}

#[test]
fn no_call_of_grpc_is_lost() {
    let settings = Settings { before: "", tables: "", recycle_after: 300 };
    run("gRPC", Ferricorn::example("grpc"), &settings, |address| {
        Clients::Others(grpc::load(address, 6))
    });
}

#[test]
fn no_message_of_a_websocket_over_tls_is_lost() {
    let (builder, tables) = encrypted(Ferricorn::example("live"));
    // Connections are told of a drain one after the other, in this share of its time.
    let settings = Settings { before: "drain_spread = 0.1\n", tables, recycle_after: 5 };
    run("WebSocket, TLS", builder, &settings, |address| Clients::Others(sockets::load(address, 6)));
}
