//! A service manager's view, read from a real socket in its own words (sd_notify(3),
//! sd_watchdog_enabled(3), sd_listen_fds(3)), and the unit that is shipped, judged by systemd itself.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};

use crate::client::{Address, Connection};
use crate::harness::{Builder, Exit, Ferricorn, PATIENCE, Signal, eventually};
use crate::proc;
use crate::program::repository;

/// The socket that `NOTIFY_SOCKET` names.
struct Manager {
    socket: UnixDatagram,
    /// Read, and not asked for yet.
    said: VecDeque<Said>,
    beats: usize,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    pid: i32,
    lines: Vec<String>,
}

impl Said {
    fn value(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Manager {
    fn of(builder: Builder) -> (Self, Builder) {
        let path = builder.folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("the folder is ours");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("so is this");
        setsockopt(&socket, sockopt::PassCred, &true).expect("a local socket has this option");
        let timeout = Some(PATIENCE);
        socket.set_read_timeout(timeout).expect("a timeout that is not zero is accepted");
        let builder = builder.env("NOTIFY_SOCKET", path.display().to_string());
        (Self { socket, said: VecDeque::new(), beats: 0 }, builder)
    }

    fn receive(&self) -> Said {
        let mut buffer = [0; 4096];
        let mut control = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let fd = self.socket.as_raw_fd();
        let message = loop {
            // A signal for another test of this process ends a wait that has a limit (signal(7)).
            match recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::empty()) {
                Err(nix::Error::EINTR) => {}
                received => break received.expect("something is said in time"),
            }
        };
        let mut pid = 0;
        for part in message.cmsgs().expect("the control messages had room") {
            if let ControlMessageOwned::ScmCredentials(from) = part {
                pid = from.pid();
            }
        }
        let length = message.bytes;
        let text = std::str::from_utf8(&buffer[..length]).expect("what is said is text");
        assert!(text.ends_with('\n'), "{text:?} is cut off");
        Said { pid, lines: text.lines().map(str::to_owned).collect() }
    }

    /// The next message that is no sign of life.
    fn next(&mut self) -> Said {
        loop {
            let said = self.said.pop_front().unwrap_or_else(|| self.receive());
            if said.lines != ["WATCHDOG=1"] {
                return said;
            }
            self.beats += 1;
        }
    }

    /// The next ones must be exactly these.
    fn says(&mut self, expected: &[&[&str]]) {
        for lines in expected {
            assert_eq!(self.next().lines, *lines);
        }
    }

    /// A reload begins, and tells when by the clock that the manager compares it with.
    fn says_reloading(&mut self, since: Duration, generation: u32) {
        let said = self.next();
        assert_eq!(said.lines.len(), 3, "{said:?}");
        assert_eq!(said.lines[0], "RELOADING=1");
        let at = said.value("MONOTONIC_USEC").expect("it tells when").parse().expect("a number");
        let at = Duration::from_micros(at);
        assert!(since <= at && at <= monotonic(), "{since:?} {at:?}");
        let status = format!("reloading: generation {generation}");
        assert_eq!(said.value("STATUS"), Some(status.as_str()));
    }

    fn says_ready(&mut self, status: &str) -> String {
        let said = self.next();
        assert_eq!(said.lines.len(), 2, "{said:?}");
        assert_eq!(said.lines[0], "READY=1");
        let found = said.value("STATUS").expect("it tells its state");
        assert!(found.starts_with(status), "{found:?} is not {status:?}");
        found.to_owned()
    }
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has it").into()
}

/// From the start to the end, over reloads good and bad and an upgrade, and nothing besides.
#[test]
fn a_service_manager_is_told_everything() {
    let builder = Ferricorn::unruly()
        .config("workers = 2\nboot_timeout = 7\ngraceful_timeout = 9")
        .env("UNRULY_STOP", "slow=1");
    let (mut manager, builder) = Manager::of(builder);
    let mut server = builder.start();
    // The logger, the preparation and two boots, each with what its deadline allows, and a little.
    let longer: &[&str] = &["EXTEND_TIMEOUT_USEC=12000000"];
    manager.says(&[longer, longer, longer, longer, &["READY=1", "STATUS=2 workers serve"]]);

    let since = monotonic();
    server.signal(Signal::SIGHUP);
    manager.says_reloading(since, 2);
    manager.says_ready("reloaded: generation 2 in ");

    // Two problems, and still one line.
    server.rewrite_config("wokers = 2\nthreds = 2");
    let since = monotonic();
    server.signal(Signal::SIGHUP);
    manager.says_reloading(since, 3);
    let failed = "failed to reload: generation 3 is dropped, 2 serves on: config.toml:2: ";
    assert!(manager.says_ready(failed).ends_with("? (and 1 more in the error log)"));
    server.rewrite_config("workers = 2\nboot_timeout = 7\ngraceful_timeout = 9");

    let since = monotonic();
    server.signal(Signal::SIGUSR2);
    manager.says_reloading(since, 4);
    manager.says_ready("reloaded: generation 4 in ");
    assert_eq!(server.log().matches("Upgraded in place").count(), 1);

    server.signal(Signal::SIGTTIN);
    manager.says(&[&["STATUS=workers: 2 -> 3"]]);
    server.wait_workers(3);
    server.signal(Signal::SIGTERM);
    manager.says(&[&[
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=14000000",
        "STATUS=stopping: workers may finish for 9 s",
    ]]);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    manager.socket.set_nonblocking(true).expect("a flag can be set");
    let mut buffer = [0; 1];
    assert!(manager.socket.recv(&mut buffer).is_err(), "something was said behind the end");
    assert_eq!(manager.beats, 0, "nobody has asked for signs of life");
}

/// `NotifyAccess=main`: what another process says is not heard.
#[test]
fn the_master_alone_speaks() {
    let (mut manager, builder) = Manager::of(Ferricorn::unruly().config("workers = 2"));
    let mut server = builder.env("WATCHDOG_USEC", "20000").start();
    for (signal, end) in [
        (Signal::SIGHUP, "reloaded: generation 2 in "),
        (Signal::SIGUSR2, "reloaded: generation 3 in "),
        (Signal::SIGQUIT, "stopping quickly"),
    ] {
        server.signal(signal);
        let ends = |said: &Said| said.value("STATUS").is_some_and(|value| value.starts_with(end));
        loop {
            let said = manager.receive();
            assert_eq!(said.pid, server.pid(), "{said:?}");
            manager.beats += usize::from(said.lines == ["WATCHDOG=1"]);
            if ends(&said) {
                break;
            }
        }
    }
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(manager.beats > 3, "{} signs of life", manager.beats);
}

/// The manager kills whoever is silent for as long as it says: also while a reload waits, and while
/// one image takes the other's place.
#[test]
fn a_watchdog_never_waits_for_too_long() {
    const LONGEST: Duration = Duration::from_secs(1);
    let _alone = crate::machine::alone();
    let builder = Ferricorn::unruly()
        .config("workers = 2")
        .env("UNRULY_PREPARE_FILE", "prepare")
        .file("prepare", "")
        .env("WATCHDOG_USEC", LONGEST.as_micros().to_string());
    // Whom it is meant for is said, too, as systemd does.
    let (mut manager, builder) = Manager::of(builder);
    let server = builder.wrapped(&["sh", "-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh"]).start();
    std::fs::write(server.folder().join("prepare"), "held").expect("the folder is ours");
    server.signal(Signal::SIGHUP);
    let mut heard = Instant::now();
    let mut beats = 0;
    let mut gap = Duration::ZERO;
    while beats < 6 || manager.said.is_empty() {
        let said = manager.receive();
        match said.lines[0].as_str() {
            "WATCHDOG=1" => {
                gap = gap.max(heard.elapsed());
                (heard, beats) = (Instant::now(), beats + 1);
                if beats == 2 {
                    std::fs::write(server.folder().join("prepare"), "").expect("it is ours");
                    server.wait_reloaded(2);
                    server.signal(Signal::SIGUSR2);
                }
            }
            "READY=1" if said.lines[1].contains("generation 3") => manager.said.push_back(said),
            _ => {}
        }
    }
    println!("{beats} signs of life, half a second apart, the longest silence {gap:?}");
    assert!(gap < LONGEST, "silent for {gap:?}");
    server.stop();
}

/// Somebody else's watchdog is not ours.
#[test]
fn a_watchdog_of_another_process_is_left_alone() {
    let (mut manager, builder) = Manager::of(Ferricorn::unruly().config("workers = 1"));
    let server = builder.env("WATCHDOG_USEC", "2000").env("WATCHDOG_PID", "1").start();
    server.signal(Signal::SIGTTIN);
    while manager.next().lines != ["STATUS=workers: 1 -> 2"] {}
    assert_eq!(manager.beats, 0);
    server.stop();
}

/// A manager that has gone, or whose socket is full, holds nobody up.
#[test]
fn a_manager_that_does_not_listen_is_no_obstacle() {
    let (manager, builder) = Manager::of(Ferricorn::unruly().config("workers = 1"));
    drop(manager);
    let server = builder.env("WATCHDOG_USEC", "2000").start();
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    server.stop();
    // Nobody reads, and the kernel takes ten messages or so: what was lost is no news by then.
    let (mut manager, builder) = Manager::of(Ferricorn::unruly().config("workers = 1"));
    let server = builder.env("WATCHDOG_USEC", "2000").start();
    for generation in 2..5 {
        server.signal(Signal::SIGHUP);
        server.wait_reloaded(generation);
    }
    while manager
        .next()
        .value("STATUS")
        .is_none_or(|value| !value.starts_with("reloaded: generation 4"))
    {}
    assert!(manager.beats > 0);
    server.stop();
}

/// Returns true if the program can be run here.
#[expect(clippy::print_stdout, reason = "what was not tested must be said")]
fn is_there(program: &str) -> bool {
    let there =
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("not tested: {program} cannot be had here");
    }
    there
}

/// systemd's own tool opens the socket, and starts the server when somebody connects. The socket stays
/// over reloads and upgrades, and the variables are passed to nobody.
#[test]
fn socket_activation_lasts_over_reloads_and_upgrades() {
    if !is_there("systemd-socket-activate") {
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = free.to_string();
    let wrapper = ["systemd-socket-activate", "--fdname=web", "-E", "PATH", "-l", &listen];
    let server = Ferricorn::unruly().config("bind = \"127.0.0.1:1\"\nworkers = 2");
    let server = server.wrapped(&wrapper).launch();
    let first = eventually("it is started and answers", PATIENCE, || {
        Connection::open(&Address::Tcp(free)).ok()?.get("/").ok()
    });
    assert_eq!(first.status, 200);
    server.wait_event("socket_adopted", &[("descriptor", 3.into())]);
    let ask = || Connection::open(&Address::Tcp(free)).unwrap().get("/").unwrap().status;
    for (at, signal) in [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGUSR2].into_iter().enumerate() {
        let before = server.wait_workers(2);
        server.signal(signal);
        server.wait_reloaded(at + 2);
        let after = server.wait_workers(2);
        assert!(after.iter().all(|after| !before.contains(after)));
        assert_eq!(ask(), 200);
        for pid in after.iter().map(|(_, pid)| *pid) {
            let environment = proc::environment(pid);
            let passed =
                environment.iter().filter(|environment| environment.starts_with("LISTEN_"));
            let passed: Vec<_> = passed.collect();
            // The first image removes them from its memory, not from what it was started with.
            assert!(at == 0 || passed.is_empty(), "{passed:?}");
        }
    }
    assert_eq!(server.noted("server_upgraded").len(), 2);
    assert_eq!(server.noted("bind_ignored").len(), 0);
    let changed = "bind = \"127.0.0.1:2\"\nworkers = 2";
    std::fs::write(server.folder().join("config.toml"), changed).expect("our folder");
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(5);
    assert_eq!(server.noted("bind_ignored").len(), 1);
    assert_eq!(ask(), 200);
    server.stop();
}

/// The unit that is shipped, but for the place of the program.
fn unit(folder: &Path) -> std::path::PathBuf {
    let shipped = repository("deploy/systemd/ferricorn.service");
    let text = std::fs::read_to_string(shipped).expect("it is shipped");
    let place = "/usr/local/bin/ferricorn";
    assert_eq!(text.matches(&format!("={place}")).count(), 3, "it starts the program");
    let path = folder.join("ferricorn.service");
    std::fs::write(&path, text.replace(place, env!("CARGO_BIN_EXE_ferricorn")))
        .expect("our folder");
    path
}

fn analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).output();
    let output = output.expect("it can be run");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// systemd knows every key and every value of the unit.
#[test]
fn the_unit_is_valid() {
    if !is_there("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (valid, said) = analyze(&["verify"], &unit(folder.path()));
    assert_eq!((valid, said.as_str()), (true, ""));
}

/// Runs the command by which the unit reloads, as systemd does: without a shell, in a folder of no
/// importance, with an environment that has no home. Returns its exit code and its complaint.
fn exec_reload(server: &Ferricorn) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(unit(folder.path())).expect("it was written");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecReload="));
    let pid = server.pid().to_string();
    let words = line.expect("the unit reloads by a command").split(' ');
    let words: Vec<&str> = words.map(|word| if word == "$MAINPID" { &pid } else { word }).collect();
    let mut command = Command::new(words[0]);
    let output =
        command.args(&words[1..]).current_dir("/").env_clear().output().expect("it can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `systemctl reload` takes as long as the reload, and fails when it does: with its reason in one line,
/// which systemd writes to its journal.
#[test]
fn reload_of_the_unit_waits_and_fails_with_the_reason() {
    let (mut manager, builder) = Manager::of(Ferricorn::unruly().config("workers = 2"));
    let server = builder.start();
    while manager.next().lines[0] != "READY=1" {}
    let before = server.workers();
    assert_eq!(exec_reload(&server), (Some(0), String::new()));
    manager.says_reloading(Duration::ZERO, 2);
    manager.says_ready("reloaded: generation 2 in ");
    server.rewrite_config("workers = \"many\"");
    let (code, complaint) = exec_reload(&server);
    assert_eq!((code, complaint.lines().count()), (Some(1), 1), "{complaint}");
    assert!(complaint.contains("workers: expected"), "{complaint}");
    manager.says_reloading(Duration::ZERO, 3);
    let status = manager.says_ready("failed to reload: generation 3 is dropped");
    let reason = complaint.trim_start_matches("ferricorn: ").trim_end();
    assert!(status.ends_with(reason), "{status} {reason}");
    assert!(server.workers().iter().all(|worker| !before.contains(worker)));
    server.rewrite_config("workers = 2");
    server.stop();
}

/// Its hardening, by systemd's own measure: 0 is closed, 10 is open.
#[test]
fn the_unit_is_hardened() {
    if !is_there("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (hardened, said) =
        analyze(&["security", "--offline=true", "--threshold=20"], &unit(folder.path()));
    let level = said.lines().find(|line| line.contains("Overall exposure level"));
    println!("{}", level.unwrap_or_default());
    assert!(hardened, "{said}");
}
