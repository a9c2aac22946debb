//! A server in a process of its own, for one test: its own folder, an environment that holds nothing
//! but what the test says, its own process group, port 0.
//!
//! Readiness and addresses come through the descriptor that `--ready-fd` names, never from the log.
//! At its end, when the test has not failed, the server is stopped and nothing of its process group
//! may be left. When the test has failed the logs are printed and the folder is kept.

use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
pub(crate) use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::{Address, Connection, Outcome, Response};
use crate::machine::{self, Turn};
use crate::proc::{self, Stat};
use crate::program::{example, is_open_to_all, may_become_nobody};

/// The time that an expected event may take: far longer than it does on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The user that servers run as when the tests run as root: nobody's, who may do nothing special.
pub(crate) const NOBODY: u32 = 65_534;

/// Looks again and again until the condition holds, and answers what it found. The only place where a
/// test sleeps.
pub(crate) fn eventually<T>(
    what: &str,
    timeout: Duration,
    mut found: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {timeout:?}: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// A server that is to be started.
#[derive(Debug)]
pub(crate) struct Builder {
    binary: PathBuf,
    wrapper: Vec<String>,
    config: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    user: Option<u32>,
    stdout: Option<Stdio>,
    folder: TempDir,
    turn: Rc<Turn>,
}

/// A running server, and how it was started.
#[derive(Debug)]
pub(crate) struct Ferricorn {
    child: Child,
    master: i32,
    exit: Option<Exit>,
    ready: PipeReader,
    addresses: Vec<String>,
    folder: Option<TempDir>,
    _turn: Rc<Turn>,
}

impl Ferricorn {
    /// The bundled program.
    pub(crate) fn bundled() -> Builder {
        Builder::new(PathBuf::from(env!("CARGO_BIN_EXE_ferricorn")))
    }

    /// `examples/unruly.rs`.
    pub(crate) fn unruly() -> Builder {
        Builder::new(example("unruly"))
    }

    /// `examples/cors.rs`.
    pub(crate) fn cors() -> Builder {
        Builder::new(example("cors"))
    }

    /// The example of this name.
    pub(crate) fn example(name: &str) -> Builder {
        Builder::new(example(name))
    }

    /// `examples/hello.rs`.
    pub(crate) fn hello() -> Builder {
        Builder::new(example("hello"))
    }
}

impl Builder {
    fn new(binary: PathBuf) -> Self {
        let turn = machine::share();
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let by_nobody = may_become_nobody() && is_open_to_all(&binary);
        let user = by_nobody.then_some(NOBODY);
        Self {
            binary,
            wrapper: Vec::new(),
            config: String::new(),
            flags: Vec::new(),
            environment: Vec::new(),
            user,
            stdout: None,
            folder,
            turn,
        }
    }

    /// The text of `config.toml`. It listens on a free port of 127.0.0.1 unless it says otherwise.
    pub(crate) fn config(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    /// A further option or argument.
    pub(crate) fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// A variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// A program, with its arguments, that is run with the server as its further arguments.
    pub(crate) fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Runs it as the user of the tests, even if that is root.
    pub(crate) fn by_ourselves(mut self) -> Self {
        self.user = None;
        self
    }

    /// Returns true if the kernel holds it to limits: it does not hold root to them.
    pub(crate) fn is_bound_by_limits(&self) -> bool {
        self.user.is_some() || !nix::unistd::geteuid().is_root()
    }

    /// The program.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Gives it this standard output instead of a file in its folder.
    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in its folder.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder().join(name), text).expect("the folder is ours");
        self
    }

    /// Starts it and waits until every worker serves.
    pub(crate) fn start(self) -> Ferricorn {
        let mut server = self.launch();
        server.wait_ready();
        server
    }

    /// Starts it.
    pub(crate) fn launch(self) -> Ferricorn {
        let (ready, teller) = std::io::pipe().expect("two descriptors");
        self.launch_with(Stdio::from(teller), ready, &["--ready-fd", "0"])
    }

    /// Starts it with this standard input.
    pub(crate) fn launch_with(self, stdin: Stdio, ready: PipeReader, flags: &[&str]) -> Ferricorn {
        let folder = self.folder.path();
        if !self.config.is_empty() || !self.flags.iter().any(|flag| flag.contains("bind")) {
            let bind = "bind = \"127.0.0.1:0\"\n";
            let bind = if self.config.contains("bind =") { "" } else { bind };
            std::fs::write(folder.join("config.toml"), format!("{bind}{}", self.config))
                .expect("the folder is ours");
        }
        let output = |name: &str| {
            let file = std::fs::File::options().create(true).append(true).open(folder.join(name));
            Stdio::from(file.expect("the folder is ours"))
        };
        let mut words = self.wrapper.iter().map(std::ffi::OsString::from).collect::<Vec<_>>();
        words.push(self.binary.clone().into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(flags)
            .args(&self.flags)
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .envs(self.environment.iter().cloned())
            .stdin(stdin)
            .stdout(self.stdout.unwrap_or_else(|| output("stdout")))
            .stderr(output("stderr"))
            .process_group(0);
        if let Some(user) = self.user {
            std::os::unix::fs::chown(folder, Some(user), Some(user)).expect("we are root");
            command.uid(user).gid(user);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let master = i32::try_from(child.id()).expect("pids fit");
        Ferricorn {
            child,
            master,
            exit: None,
            ready,
            addresses: Vec::new(),
            folder: Some(self.folder),
            _turn: self.turn,
        }
    }

    /// Starts it, and expects it to end by itself with this code. Answers what it has said.
    pub(crate) fn fails_with(self, code: i32) -> String {
        let mut server = self.launch();
        let exit = server.wait_exit();
        assert_eq!(exit, Exit::Code(code), "{}", server.log());
        server.log()
    }
}

impl Ferricorn {
    /// Waits until every worker serves.
    pub(crate) fn wait_ready(&mut self) {
        let mut line = Vec::new();
        eventually("the server is ready", PATIENCE, || {
            if self.poll_exit() {
                panic!("the server ended before it was ready: {:?}", self.exit);
            }
            let mut polled = [PollFd::new(self.ready.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not: it is asked again.
            let _again = nix::poll::poll(&mut polled, PollTimeout::from(20_u8));
            if polled[0].any() == Some(true) {
                let mut buffer = [0; 4096];
                let length = self.ready.read(&mut buffer).expect("our own pipe");
                line.extend_from_slice(&buffer[..length]);
            }
            line.ends_with(b"\n").then_some(())
        });
        let said: serde_json::Value = serde_json::from_slice(&line).expect("one line of JSON");
        let addresses = said["addresses"].as_array().expect("it tells its addresses");
        let text =
            |name: &serde_json::Value| name.as_str().expect("addresses are texts").to_owned();
        self.addresses = addresses.iter().map(text).collect();
        let pid = i32::try_from(said["pid"].as_i64().expect("its pid")).expect("pids fit");
        if pid != self.master {
            // It is in a namespace of its own, where its wrapper has put it.
            self.master = proc::children(self.master)[0].pid;
        }
    }

    /// Where it listens, as it says.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Its first address.
    pub(crate) fn address(&self) -> Address {
        parse_address(self.addresses.first().expect("the server is ready"))
    }

    /// A new connection to it.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.address()).expect("a server that serves accepts connections")
    }

    /// A GET on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Result<Response, Outcome> {
        Connection::open(&self.address())?.get(target)
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("it is given up at the end alone").path()
    }

    /// The master's pid.
    pub(crate) fn pid(&self) -> i32 {
        self.master
    }

    /// The workers there are, as slot and pid, by slot.
    pub(crate) fn workers(&self) -> Vec<(u16, i32)> {
        let slot = |stat: &Stat| stat.name.rsplit_once("-w")?.1.parse().ok();
        let alive = proc::children(self.master).into_iter().filter(|child| child.state != 'Z');
        let mut workers: Vec<_> =
            alive.filter_map(|child| Some((slot(&child)?, child.pid))).collect();
        workers.sort_unstable();
        workers
    }

    /// The pid of the one worker in this slot.
    pub(crate) fn worker(&self, slot: u16) -> i32 {
        eventually("one worker in the slot", PATIENCE, || {
            let workers = self.workers();
            let mut there = workers.iter().filter(|(number, _)| *number == slot);
            match (there.next(), there.next()) {
                (Some((_, pid)), None) => Some(*pid),
                _ => None,
            }
        })
    }

    /// Waits until there are exactly these many workers, one in each of the first slots.
    pub(crate) fn wait_workers(&self, count: u16) -> Vec<(u16, i32)> {
        eventually(&format!("{count} workers"), PATIENCE, || {
            let workers = self.workers();
            workers.iter().map(|(slot, _)| *slot).eq(0..count).then_some(workers)
        })
    }

    /// Waits until answers come from every one of these slots and from no other pid than these.
    pub(crate) fn wait_served_by(&self, workers: &[(u16, i32)]) {
        let mut seen = std::collections::BTreeSet::new();
        eventually(&format!("answers from all of {workers:?}"), PATIENCE, || {
            let answer = self.get("/").expect("a server that serves answers");
            let who = (answer.slot(), answer.pid());
            assert!(workers.contains(&who), "answered by {who:?}, who is none of {workers:?}");
            seen.insert(who);
            (seen.len() == workers.len()).then_some(())
        });
    }

    /// The logger's pid.
    pub(crate) fn logger(&self) -> i32 {
        eventually("a logger", PATIENCE, || {
            let children = proc::children(self.master);
            let is_logger = |stat: &&Stat| stat.name.ends_with("-log") && stat.state != 'Z';
            children.iter().find(is_logger).map(|child| child.pid)
        })
    }

    /// Sends the master a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.master, signal);
    }

    /// Rewrites its `config.toml`; it is not told.
    pub(crate) fn rewrite_config(&self, text: &str) {
        let text = format!("bind = \"127.0.0.1:0\"\n{text}");
        std::fs::write(self.folder().join("config.toml"), text).expect("the folder is ours");
    }

    fn poll_exit(&mut self) -> bool {
        if self.exit.is_none()
            && let Some(status) = self.child.try_wait().expect("it is our child")
        {
            self.exit = status.code().map(Exit::Code).or(status.signal().map(Exit::Signal));
        }
        self.exit.is_some()
    }

    /// Returns true if the master has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        !self.poll_exit()
    }

    /// Waits for the master's end.
    pub(crate) fn wait_exit(&mut self) -> Exit {
        self.wait_exit_within(PATIENCE)
    }

    /// Waits for the master's end, which must come by then.
    pub(crate) fn wait_exit_within(&mut self, timeout: Duration) -> Exit {
        eventually("the master has ended", timeout, || {
            self.poll_exit().then_some(())?;
            self.exit
        })
    }

    /// Stops it gracefully: it must end with 0 and leave nothing behind.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait_exit(), Exit::Code(0));
    }

    /// Stops it gracefully like [`Ferricorn::stop`]; its folder is there until the answer is dropped.
    pub(crate) fn stop_and_keep(mut self) -> TempDir {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait_exit(), Exit::Code(0));
        let empty = tempfile::tempdir().expect("a folder for temporary files");
        self.folder.replace(empty).expect("it is given up at the end alone")
    }

    /// Returns its output by now, on stdout and stderr.
    pub(crate) fn log(&self) -> String {
        let read = |name| std::fs::read(self.folder().join(name)).unwrap_or_default();
        let text = [read("stdout"), read("stderr")].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until the log holds this text: for tests of the log itself, not of what it tells.
    pub(crate) fn wait_log(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), PATIENCE, || {
            self.log().contains(text).then_some(())
        });
    }

    /// The processes of its group that are alive.
    pub(crate) fn remains(&self) -> Vec<Stat> {
        let group = i32::try_from(self.child.id()).expect("pids fit");
        proc::group(group).into_iter().filter(|member| member.state != 'Z').collect()
    }

    #[expect(clippy::print_stderr, reason = "a failed test shows what its server said")]
    fn explain(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        let log = |name: &str| {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        let show = |name| eprintln!("--- {name} (last lines)\n{}", log(name));
        ["stdout", "stderr"].into_iter().for_each(show);
        eprintln!("--- the folder is kept: {}", folder.keep().display());
    }

    fn kill_group(&mut self) {
        let group = i32::try_from(self.child.id()).expect("pids fit");
        // There may be nobody left.
        let _gone = nix::sys::signal::killpg(Pid::from_raw(group), Signal::SIGKILL);
        let _reaped = self.child.wait();
    }
}

impl Drop for Ferricorn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
            return self.kill_group();
        }
        if self.is_running() {
            self.signal(Signal::SIGQUIT);
            let exit = self.wait_exit();
            if exit != Exit::Code(0) {
                self.explain();
                panic!("a quick stop ended with {exit:?}");
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.remains().is_empty() {
            if Instant::now() > deadline {
                let remains = self.remains();
                self.explain();
                self.kill_group();
                panic!("processes are left behind: {remains:?}");
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

/// Sends a process a signal.
pub(crate) fn send(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal)
        .unwrap_or_else(|error| panic!("failed to send {signal} to {pid}: {error}"));
}

/// An address as the server names it.
pub(crate) fn parse_address(text: &str) -> Address {
    match text.strip_prefix("unix:") {
        Some(path) => Address::Unix(path.into()),
        None => match text.strip_prefix("https://") {
            Some(address) => Address::Tls(address.parse().expect("an address and a port")),
            None => {
                let address = text.strip_prefix("http://").unwrap_or(text);
                Address::Tcp(address.parse().expect("an address and a port"))
            }
        },
    }
}
