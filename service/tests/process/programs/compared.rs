//! The same servers under ferricorn and under their own supervisors, in one run: what their clients lose.
//! Of ferricorn's it is held here and in `losses.rs`; of the others it is printed, for `docs/programs.md`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::losses::{CLIENTS, FLASK, gunicorn, node};
use super::{program_of, running, wait_programs};
use crate::client::{Address, Connection};
use crate::drains::pass;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load, Tally};
use crate::log_figures::{figure, is_in_full_length};
use crate::proc;
use crate::storms::Kill;

/// The workers of each server.
const WORKERS: usize = 4;

/// A primary of node's: it forks before it disconnects, and replaces a worker that has died.
const CLUSTER: &str = "const cluster = require('cluster');\n\
    if (cluster.isPrimary) {\n\
    \x20 const fork = () => new Promise((resolve) => {\n\
    \x20   const worker = cluster.fork();\n\
    \x20   worker.once('listening', () => resolve(true));\n\
    \x20   worker.once('exit', () => resolve(false));\n\
    \x20   worker.on('exit', () => { if (!worker.exitedAfterDisconnect) setTimeout(fork, 100); });\n\
    \x20 });\n\
    \x20 for (let slot = 0; slot < 4; slot++) fork();\n\
    \x20 process.on('SIGHUP', async () => {\n\
    \x20   for (const old of Object.values(cluster.workers)) {\n\
    \x20     if (await fork()) old.disconnect();\n\
    \x20   }\n\
    \x20 });\n\
    \x20 process.on('SIGTERM', () => cluster.disconnect(() => process.exit(0)));\n\
    } else {\n\
    \x20 require('./server.js');\n\
    }\n";

/// A worker of node's cluster.
const CLUSTERED: &str = "const http = require('http');\n\
    http.createServer((request, response) => {\n\
    \x20 response.setHeader('Connection', 'close');\n\
    \x20 response.end('hello\\n');\n\
    }).listen(Number(process.argv[2]), '127.0.0.1');\n";

/// An application that speaks ASGI, as Starlette does.
const ASGI: &str = "async def app(scope, receive, send):\n\
    \x20   if scope['type'] != 'http':\n\
    \x20       return\n\
    \x20   await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'connection', b'close')]})\n\
    \x20   await send({'type': 'http.response.body', 'body': b'hello\\n'})\n";

/// The server that `docs/programs.md` shows: it answers what it has accepted before it ends.
const SERVE: &str = "import asyncio, uvicorn\n\
    from app import app\n\
    class Server(uvicorn.Server):\n\
    \x20   async def shutdown(self, sockets=None):\n\
    \x20       for server in self.servers:\n\
    \x20           server.close()\n\
    \x20       await asyncio.sleep(0.2)\n\
    \x20       await super().shutdown(sockets)\n\
    Server(uvicorn.Config(app, fd=3)).run()\n";

/// A server with four workers.
trait Supervised {
    fn address(&self) -> Address;

    /// The processes that serve, each with those it has started.
    fn workers(&self) -> Vec<i32>;

    /// Replaces all workers, as its operator would, and waits until others serve.
    fn reload(&mut self);

    /// Has it take a release that cannot start, whose file this is.
    fn take_bad_release(&mut self, file: &str);

    /// Returns false if it can only be stopped and started.
    fn reloads(&self) -> bool;
}

impl Supervised for Ferricorn {
    fn address(&self) -> Address {
        Self::address(self)
    }

    fn workers(&self) -> Vec<i32> {
        Self::workers(self).into_iter().filter_map(|(_, keeper)| program_of(keeper)).collect()
    }

    fn reload(&mut self) {
        let before = Supervised::workers(self);
        self.signal(Signal::SIGHUP);
        wait_programs(self, 4, &before);
    }

    fn take_bad_release(&mut self, file: &str) {
        spoil(self.folder(), file);
        self.signal(Signal::SIGHUP);
        self.wait_event("reload_failed", &[]);
    }

    fn reloads(&self) -> bool {
        true
    }
}

/// A server under a supervisor of its own.
struct Other {
    folder: tempfile::TempDir,
    command: Vec<String>,
    /// It reloads at `HUP`; otherwise it is stopped and started.
    reloads: bool,
    port: u16,
    child: Child,
}

impl Other {
    /// `{port}` in a word of the command is where it serves.
    fn start(command: &[&str], reloads: bool, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("the folder is ours");
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let word = |word: &&str| word.replace("{port}", &port.to_string());
        let command: Vec<String> = command.iter().map(word).collect();
        let child = spawn(&command, folder.path());
        let other = Self { folder, command, reloads, port, child };
        other.wait(&[]);
        other
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pids fit")
    }

    /// Waits until as many workers as there should be are none of these, and one of them answers.
    fn wait(&self, before: &[i32]) {
        eventually("other workers serve", 4 * PATIENCE, || {
            let now = self.workers();
            let are_fresh = !now.iter().any(|pid| before.contains(pid));
            let answers = || Connection::open(&self.address()).ok()?.get("/").ok();
            (now.len() == WORKERS && are_fresh).then(answers)?
        });
    }
}

/// Starts a command in a folder, in a group of its own.
fn spawn(command: &[String], folder: &Path) -> Child {
    use std::os::unix::process::CommandExt as _;
    let log = || std::fs::File::options().create(true).append(true).open(folder.join("log"));
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]).current_dir(folder).process_group(0).stdin(Stdio::null());
    program.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    program.stdout(log().expect("the folder is ours")).stderr(log().expect("the folder is ours"));
    program.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

impl Supervised for Other {
    fn address(&self) -> Address {
        Address::Tcp(([127, 0, 0, 1], self.port).into())
    }

    fn workers(&self) -> Vec<i32> {
        // Python's module for processes has a helper beside its workers.
        let serves = |pid: &i32| !proc::title(*pid).contains("resource_tracker");
        let alive = proc::children(self.pid()).into_iter().filter(|child| child.state != 'Z');
        alive.map(|child| child.pid).filter(serves).collect()
    }

    fn reload(&mut self) {
        let before = self.workers();
        if self.reloads {
            send(self.pid(), Signal::SIGHUP);
        } else {
            send(self.pid(), Signal::SIGTERM);
            self.child.wait().expect("it is our child");
            self.child = spawn(&self.command, self.folder.path());
        }
        self.wait(&before);
    }

    fn take_bad_release(&mut self, file: &str) {
        spoil(self.folder.path(), file);
        send(self.pid(), Signal::SIGHUP);
    }

    fn reloads(&self) -> bool {
        self.reloads
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended.
        let group = nix::unistd::Pid::from_raw(self.pid());
        let _gone = nix::sys::signal::killpg(group, Signal::SIGKILL);
        let _reaped = self.child.wait();
    }
}

fn spoil(folder: &Path, file: &str) {
    std::fs::write(folder.join(file), "(\n").expect("the folder is ours");
}

fn load(server: &dyn Supervised) -> Load {
    Load::begin(&server.address(), &[Crowd::get(CLIENTS, Client::PerRequest)])
}

fn cell(tally: &Tally) -> String {
    format!("{} of {}", tally.failures(), tally.failures() + tally.answered)
}

/// Reloads, kills, and a release that cannot start, each under a load of its own: how many requests failed.
fn put_through(server: &mut dyn Supervised, file: &str) -> [String; 3] {
    let reloads = figure("FIGURE_RELOADS", 1);
    let kills = figure("FIGURE_KILLS", 2);
    let asked = load(server);
    for _ in 0..reloads {
        server.reload();
    }
    let reloaded = asked.finish();
    let asked = load(server);
    for at in 0..kills {
        let workers = server.workers();
        if let Some(victim) = workers.get(usize::try_from(at).expect("it is small") % WORKERS) {
            Kill::of_all(&proc::tree(*victim));
        }
        pass(Duration::from_millis(500));
    }
    let killed = asked.finish();
    let released = server.reloads().then(|| {
        let asked = load(server);
        server.take_bad_release(file);
        pass(Duration::from_secs(2));
        cell(&asked.finish())
    });
    [cell(&reloaded), cell(&killed), released.unwrap_or_else(|| "no reload".to_owned())]
}

#[test]
fn reloads_and_bad_releases_lose_nothing_in_comparison() {
    let _alone = crate::machine::alone();
    let print = |name: &str, [reloaded, killed, released]: [String; 3]| {
        println!("| {name} | {reloaded} | {killed} | {released} |");
        [reloaded, released]
    };
    println!("| server | reloads | a worker killed each 500 ms | a release that cannot start |");
    let ours = |name: &str, mut server: Ferricorn, file: &str| {
        wait_programs(&server, 4, &[]);
        let lost = print(name, put_through(&mut server, file));
        server.stop();
        assert!(lost.iter().all(|lost| lost.starts_with("0 of ")), "{name}: {lost:?}");
    };
    let other = |name: &str, mut server: Other, file: &str| {
        print(name, put_through(&mut server, file));
    };
    ours("node under ferricorn", node().start(), "server.js");
    let files = [("primary.js", CLUSTER), ("server.js", CLUSTERED)];
    let cluster = Other::start(&["node", "primary.js", "{port}"], true, &files);
    other("node, its cluster", cluster, "server.js");
    if is_in_full_length("FIGURE_RELOADS") {
        ours("Flask, gunicorn -w 1 under ferricorn", gunicorn().start(), "app.py");
        let command = "python3 -m gunicorn -w 4 --worker-tmp-dir . -b 127.0.0.1:{port} app:app";
        let command: Vec<&str> = command.split(' ').collect();
        other("Flask, gunicorn -w 4", Other::start(&command, true, &[("app.py", FLASK)]), "app.py");
        // Debian: python3-uvicorn.
        let config = "workers = 4\n[program]\nready = \"listen\"";
        let server = running(config, &["python3", "serve.py"]);
        let server = server.file("app.py", ASGI).file("serve.py", SERVE);
        ours("ASGI, uvicorn under ferricorn", server.start(), "app.py");
        let command = "python3 -m uvicorn --workers 4 --port {port} app:app";
        let command: Vec<&str> = command.split(' ').collect();
        let files = [("app.py", ASGI)];
        other("ASGI, uvicorn --workers 4", Other::start(&command, false, &files), "app.py");
    }
}
