//! Every protocol through everything that an operator does, and everything that fails: a request is lost by
//! the death of the process that had begun it, and by nothing else. In the suite each comes once or twice;
//! in full counts, alone:
//!
//! ```text
//! FIGURE_ROUNDS=20 FIGURE_UPGRADES=10 FIGURE_KILLS=50 cargo test --release --test process matrix:: \
//!     -- --nocapture --test-threads 1
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::client::{Address, Outcome};
use crate::harness::{Builder, Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Failure, Load, Tally};
use crate::log_figures::figure;
use crate::seen::{Running, Seen};
use crate::storms::{Kill, freeze};
use crate::{grpc, http2, sockets};

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

/// A server and clients of one protocol on their way through the matrix.
struct Course<'a> {
    server: Ferricorn,
    clients: Clients,
    settings: &'a Settings,
    /// The program, which each upgrade executes anew.
    program: PathBuf,
    /// The answers in each phase.
    phases: Vec<String>,
    answered: u64,
}

impl Course<'_> {
    fn count(&self, text: &str) -> u64 {
        self.server.log().matches(text).count() as u64
    }

    /// Clients of those that run go on.
    fn go_on(&self) {
        self.clients.wait_for_more(20);
    }

    /// Sends a signal, and waits until a generation more is in force.
    fn renew(&self, signal: Signal) {
        let before = self.count(RELOADED);
        self.server.signal(signal);
        eventually("it is reloaded", PATIENCE, || (self.count(RELOADED) > before).then_some(()));
        self.go_on();
    }

    fn end_phase(&mut self, name: &str, count: u64) {
        let now = self.clients.answered();
        self.phases.push(format!("{name} {count}: {}", now - self.answered));
        self.answered = now;
    }

    fn reload(&mut self, rounds: u64) {
        (0..rounds).for_each(|_| self.renew(Signal::SIGHUP));
        self.end_phase("reloads", rounds);
    }

    fn upgrade(&mut self, rounds: u64) {
        for _ in 0..rounds {
            crate::disk::put_link(self.server.folder(), &self.program);
            self.renew(Signal::SIGUSR2);
        }
        self.end_phase("upgrades", rounds);
    }

    fn scale(&mut self, rounds: u64) {
        for _ in 0..rounds {
            for (signal, workers) in [(Signal::SIGTTIN, 4), (Signal::SIGTTOU, 3)] {
                self.server.signal(signal);
                self.server.wait_workers(workers);
                self.go_on();
            }
        }
        self.end_phase("scalings", 2 * rounds);
    }

    fn recycle(&mut self, rounds: u64) {
        self.server.rewrite_config(&self.settings.text(self.settings.recycle_after));
        self.renew(Signal::SIGHUP);
        let recycled = |course: &Self| course.count("it has served max_requests");
        eventually("workers are recycled", 10 * PATIENCE, || {
            (recycled(self) >= rounds).then_some(())
        });
        self.server.rewrite_config(&self.settings.text(0));
        self.renew(Signal::SIGHUP);
        self.end_phase("recycled", recycled(self));
    }

    fn freeze(&mut self, rounds: u64) {
        for round in 0..rounds {
            let stopped = self.server.worker(u16::try_from(round % 3).expect("few"));
            freeze(stopped);
            self.go_on();
            send(stopped, Signal::SIGCONT);
            self.go_on();
        }
        self.end_phase("SIGSTOP", rounds);
    }

    fn kill(&mut self, rounds: u64) -> Vec<Kill> {
        let mut kills = Vec::new();
        for round in 0..rounds {
            let slot = u16::try_from(round % 3).expect("few");
            kills.push(Kill::now(self.server.worker(slot)));
            self.server.wait_workers(3);
            self.go_on();
        }
        self.end_phase("kills", rounds);
        kills
    }
}

const RELOADED: &str = "reloaded: generation ";

/// Runs a server and clients of one protocol through the whole matrix.
#[expect(clippy::print_stdout, reason = "figures are printed to be read")]
fn run(what: &str, builder: Builder, settings: &Settings, begin: impl Fn(&Address) -> Clients) {
    let rounds = figure("FIGURE_ROUNDS", 1);
    let _alone = crate::machine::alone();
    let builder = builder.config(&settings.text(0));
    let program = builder.binary().to_owned();
    let server = crate::disk::started_by_link(builder).start();
    let clients = begin(&server.address());
    let phases = Vec::new();
    let answered = 0;
    let mut course = Course { server, clients, settings, program, phases, answered };
    course.reload(rounds);
    course.upgrade(figure("FIGURE_UPGRADES", 1));
    course.scale(rounds);
    course.recycle(rounds);
    course.freeze(rounds);
    let kills = course.kill(figure("FIGURE_KILLS", 2));
    let told = Instant::now();
    course.server.signal(Signal::SIGTERM);
    assert_eq!(course.server.wait_exit(), Exit::Code(0));
    let found = course.clients.finish();
    let (lost, unexplained) = found.lost(&kills, told);
    println!(
        "{what}: {} answered, {} sent again, {lost} lost with killed workers, {} otherwise; {}",
        found.answered(),
        found.again(),
        unexplained.len(),
        course.phases.join(", ")
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
