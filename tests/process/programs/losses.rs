//! Requests that are lost while programs are replaced: none, by programs that drain as they should.

use super::{plain, program, running, wait_programs};
use crate::client::Outcome;
use crate::harness::{Builder, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Failure, Load, Tally};

/// Clients of each load.
const CLIENTS: usize = 32;

/// A server of node's: it stops accepting at `TERM`, and answers what it has.
const NODE: &str = "const http = require('http');\n\
    const server = http.createServer((request, response) => {\n\
    \x20 response.setHeader('Connection', 'close');\n\
    \x20 response.end('slot ' + process.env.FERRICORN_SLOT + '\\n');\n\
    });\n\
    server.listen({ fd: Number(process.argv[2]) });\n\
    process.on('SIGTERM', () => server.close(() => process.exit(0)));\n";

/// An application of Flask's, which gunicorn serves.
const FLASK: &str = "import flask\n\
    app = flask.Flask(__name__)\n\
    @app.route('/')\n\
    def root():\n\
    \x20   return 'hello\\n'\n";

fn load(server: &Ferricorn) -> Load {
    Load::begin(&server.address(), &[Crowd::get(CLIENTS, Client::PerRequest)])
}

/// Reloads, grows and shrinks a server under load, and stops it; returns what its clients have seen.
fn put_through(server: Ferricorn, reloads: u32, resizes: u32) -> Tally {
    let load = load(&server);
    let mut programs = wait_programs(&server, 4, &[]);
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
    let tally = load.finish();
    server.stop();
    tally
}

fn node() -> Builder {
    running("workers = 4", &["node", "server.js", "{fd}"]).file("server.js", NODE)
}

fn gunicorn() -> Builder {
    let command = ["python3", "-m", "gunicorn", "-w", "1", "--worker-tmp-dir", ".", "app:app"];
    running("workers = 4\n[program]\nready = \"notify\"", &command).file("app.py", FLASK)
}

#[test]
fn reloads_of_a_plain_program_lose_nothing() {
    put_through(plain("workers = 4", &["notify"]).start(), 5, 3).assert_clean();
}

#[test]
fn reloads_of_node_lose_nothing() {
    put_through(node().start(), 5, 3).assert_clean();
}

#[test]
fn reloads_of_flask_under_gunicorn_lose_nothing() {
    put_through(gunicorn().start(), 3, 2).assert_clean();
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
    server.wait_log("stopping: workers may finish");
    let mut server = server;
    server.wait_exit();
    let tally = load.finish();
    assert!(tally.cut_off(since).is_empty(), "{:?}", tally.failed);
}
