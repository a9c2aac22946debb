//! Requests that are lost while programs are replaced: none, by programs that drain as they should.

use std::time::Duration;

use super::{plain, program, running, wait_programs};
use crate::client::Outcome;
use crate::drains::pass;
use crate::harness::{Builder, Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Failure, Load};
use crate::log_figures::figure;
use crate::proc;
use crate::storms::{Kill, assert_explained};

/// Clients of each load.
pub(super) const CLIENTS: usize = 32;

/// A server of node's: it stops accepting at `TERM`, and answers what it has.
const NODE: &str = "const http = require('http');\n\
    const server = http.createServer((request, response) => {\n\
    \x20 response.setHeader('Connection', 'close');\n\
    \x20 response.end('slot ' + process.env.FERRICORN_SLOT + '\\n');\n\
    });\n\
    server.listen({ fd: Number(process.argv[2]) });\n\
    process.on('SIGTERM', () => server.close(() => process.exit(0)));\n";

/// An application of Flask's, which gunicorn serves.
pub(super) const FLASK: &str = "import flask\n\
    app = flask.Flask(__name__)\n\
    @app.route('/')\n\
    def root():\n\
    \x20   return 'hello\\n'\n";

fn load(server: &Ferricorn) -> Load {
    Load::begin(&server.address(), &[Crowd::get(CLIENTS, Client::PerRequest)])
}

/// Reloads, grows and shrinks a server under load, gives it a release that cannot start, and stops it: no
/// request is lost. `FIGURE_RELOADS` and `FIGURE_RESIZES` say how often.
#[expect(clippy::print_stdout, reason = "figures to be read")]
fn put_through(mut server: Ferricorn, (reloads, resizes): (u64, u64), spoil: Option<&str>) {
    let load = load(&server);
    let mut programs = wait_programs(&server, 4, &[]);
    let reloads = figure("FIGURE_RELOADS", reloads);
    let resizes = figure("FIGURE_RESIZES", resizes);
    for _ in 0..reloads {
        server.signal(Signal::SIGHUP);
        programs = wait_programs(&server, 4, &programs);
        load.wait_for_more(32);
    }
    for _ in 0..resizes {
        server.signal(Signal::SIGTTIN);
        wait_programs(&server, 5, &[]);
        load.wait_for_more(32);
        server.signal(Signal::SIGTTOU);
        wait_programs(&server, 4, &[]);
    }
    if let Some(file) = spoil.map(|file| server.folder().join(file)) {
        let good = std::fs::read(&file).expect("the release is there");
        std::fs::write(&file, "(\n").expect("the folder is ours");
        server.signal(Signal::SIGHUP);
        server.wait_event("reload_failed", &[]);
        load.wait_for_more(32);
        std::fs::write(&file, good).expect("the folder is ours");
        assert_eq!(wait_programs(&server, 4, &[]), programs, "the old ones serve on");
    }
    let since = std::time::Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    let tally = load.finish();
    let cut_off = tally.cut_off(since);
    println!(
        "{reloads} HUP, {resizes} x (TTIN, TTOU), a bad release, TERM: {} answered, {} failed",
        tally.answered,
        cut_off.len()
    );
    assert!(cut_off.is_empty(), "{:?}", tally.failed);
}

/// An example of the repository, which was built.
fn listenfd() -> Builder {
    let program = Ferricorn::example("listenfd").binary().to_owned();
    running("workers = 4", &[program.to_str().expect("a plain path")])
}

pub(super) fn node() -> Builder {
    running("workers = 4", &["node", "server.js", "{fd}"]).file("server.js", NODE)
}

pub(super) fn gunicorn() -> Builder {
    let command = ["python3", "-m", "gunicorn", "-w", "1", "--worker-tmp-dir", ".", "app:app"];
    // It sends READY=1 before its worker has imported the application.
    running("workers = 4\n[program]\nready = \"listen\"", &command).file("app.py", FLASK)
}

#[test]
fn reloads_of_a_plain_program_lose_nothing() {
    let _alone = crate::machine::alone();
    put_through(plain("workers = 4", &["notify"]).start(), (5, 3), Some("plain.py"));
}

#[test]
fn reloads_of_node_lose_nothing() {
    let _alone = crate::machine::alone();
    put_through(node().start(), (5, 3), Some("server.js"));
}

#[test]
fn reloads_of_flask_under_gunicorn_lose_nothing() {
    let _alone = crate::machine::alone();
    put_through(gunicorn().start(), (3, 2), Some("app.py"));
}

#[test]
fn reloads_of_axum_with_listenfd_lose_nothing() {
    let _alone = crate::machine::alone();
    put_through(listenfd().start(), (5, 3), None);
}

/// Each request that fails was in the hands of a program that was killed: no queue is lost with it.
fn kills_lose_what_was_accepted(server: Ferricorn) {
    let kills = figure("FIGURE_KILLS", 5);
    let load = load(&server);
    wait_programs(&server, 4, &[]);
    let mut killed = Vec::new();
    for at in 0..kills {
        let slot = u16::try_from(at % 4).expect("it is below 4");
        let victim = program(&server, slot);
        // It holds its connections itself, or a child of it does, which is killed with it.
        killed.push(Kill::of_all(&proc::tree(victim)));
        pass(Duration::from_millis(500));
    }
    load.wait_for_more(100);
    assert_explained(load.finish(), &killed);
    server.stop();
}

#[test]
fn kills_of_node_lose_what_was_accepted() {
    let _alone = crate::machine::alone();
    kills_lose_what_was_accepted(node().start());
}

#[test]
fn kills_of_flask_under_gunicorn_lose_what_was_accepted() {
    let _alone = crate::machine::alone();
    kills_lose_what_was_accepted(gunicorn().start());
}

#[test]
fn kills_of_axum_with_listenfd_lose_what_was_accepted() {
    let _alone = crate::machine::alone();
    kills_lose_what_was_accepted(listenfd().start());
}

/// The requests that the killed program had accepted are lost with it, and no others.
#[test]
fn killed_programs_lose_what_they_had_accepted() {
    let server = plain("workers = 4", &[]).start();
    let load = load(&server);
    let kills = 10;
    for _ in 0..kills {
        let killed = program(&server, 0);
        send(killed, Signal::SIGKILL);
        eventually("another program in its slot", PATIENCE, || {
            (program(&server, 0) != killed).then_some(())
        });
        load.wait_for_more(100);
    }
    let tally = load.finish();
    // It serves one connection at a time.
    assert!(tally.failures() <= kills, "{:?}", tally.failed);
    let accepted = [Outcome::ResetWaiting, Outcome::ClosedWaiting, Outcome::ResetSending];
    let are_cut =
        |failure: &Failure| matches!(failure, Failure::Outcome(it) if accepted.contains(it));
    assert!(tally.failed.keys().all(are_cut), "{:?}", tally.failed);
    server.stop();
}

#[test]
fn stop_refuses_new_clients_and_loses_none() {
    let server = plain("workers = 4", &[]).start();
    let load = load(&server);
    let since = std::time::Instant::now();
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[]);
    let mut server = server;
    server.wait_exit();
    let tally = load.finish();
    assert!(tally.cut_off(since).is_empty(), "{:?}", tally.failed);
}

/// Programs of all slots that end at once: the processor time of the master, the keepers and the programs
/// themselves.
#[test]
fn crash_loop_costs_next_to_nothing() {
    let _alone = crate::machine::alone();
    let window = Duration::from_secs(figure("FIGURE_SECONDS", 8));
    let server = running("workers = 4", &["sh", "run"]).file("run", "exec python3 plain.py\n");
    let server = server.file("plain.py", super::PLAIN).start();
    let programs = wait_programs(&server, 4, &[]);
    std::fs::write(server.folder().join("run"), "exit 9\n").expect("the folder is ours");
    programs.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
    let ends = || server.log().matches("ended with code 9").count();
    eventually("ten ends of each slot", 4 * PATIENCE, || (ends() >= 40).then_some(()));
    let begun = std::time::Instant::now();
    let ended = ends();
    let used = proc::time_with_ended(server.pid());
    pass(window);
    let passed = begun.elapsed();
    let share =
        (proc::time_with_ended(server.pid()) - used).as_secs_f64() / passed.as_secs_f64() * 100.0;
    println!("crash loop of four: {} ends in {passed:?}, {share:.2} % of a core", ends() - ended);
    // Without optimization it is another program.
    if !cfg!(debug_assertions) {
        assert!(share <= 1.0, "{share:.2} % of a core");
    }
    std::fs::write(server.folder().join("run"), "exec python3 plain.py\n").expect("it is ours");
    wait_programs(&server, 4, &[]);
    server.stop();
}
