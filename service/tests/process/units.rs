//! The units that are shipped, run by systemd itself: process 1 of namespaces of its own, over a layer that takes
//! what is written.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{PATIENCE, eventually};
use crate::program::repository;
use crate::{machine, proc};

/// A systemd that runs until this is dropped.
struct Systemd {
    child: Child,
    pid: i32,
    _folder: tempfile::TempDir,
    _turn: std::rc::Rc<machine::Turn>,
}

impl Systemd {
    /// `None` where the namespaces, the layer or systemd itself cannot be had.
    #[expect(clippy::print_stdout, reason = "what was not tested must be said")]
    fn start() -> Option<Self> {
        let turn = machine::share();
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let script = folder.path().join("units.sh");
        std::fs::write(&script, include_str!("units.sh")).expect("the folder is ours");
        let layer = folder.path().join("layer");
        std::fs::create_dir(&layer).expect("the folder is ours");
        let complaints = std::fs::File::create(folder.path().join("stderr")).expect("it is ours");
        let mut command = Command::new("unshare");
        let namespaces =
            ["pid", "mount", "cgroup", "ipc", "uts", "net"].map(|one| format!("--{one}"));
        command.args(["--fork", "--kill-child"]).args(namespaces).arg("bash").arg(&script);
        command.arg(&layer).arg(env!("CARGO_BIN_EXE_ferricorn")).arg(repository(""));
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
        let mut child = command.spawn().expect("unshare is installed");
        let unshare = i32::try_from(child.id()).expect("pids fit");
        // It boots beside other tests.
        let pid = eventually("systemd runs, or cannot", 4 * PATIENCE, || {
            if child.try_wait().expect("it is our child").is_some() {
                return Some(None);
            }
            let first =
                proc::children(unshare).into_iter().find(|first| first.name == "systemd")?;
            // Another service of this machine may fail there.
            let state = inside(first.pid, "systemctl is-system-running").1;
            ["running", "degraded"].contains(&state.trim()).then_some(Some(first.pid))
        });
        let Some(pid) = pid else {
            let why = std::fs::read_to_string(folder.path().join("stderr")).unwrap_or_default();
            println!("not tested: systemd cannot be had here: {why}");
            return None;
        };
        Some(Self { child, pid, _folder: folder, _turn: turn })
    }

    /// Runs a line of the shell on its machine; true: it ended with 0. Returns its output, too.
    fn run(&self, line: &str) -> (bool, String) {
        inside(self.pid, line)
    }

    #[track_caller]
    fn succeed(&self, line: &str) -> String {
        let (is_done, said) = self.run(line);
        assert!(is_done, "{line}: {said}");
        said
    }

    /// A property of a unit.
    fn show(&self, unit: &str, property: &str) -> String {
        self.succeed(&format!("systemctl show --value -p {property} {unit}")).trim().to_owned()
    }

    /// The answer at a port.
    fn ask(&self, port: u16) -> String {
        let ask = r"printf 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' >&3; cat <&3";
        self.succeed(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}; {ask}"))
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // Process 1 takes all of its namespace with it.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        eventually("its machine is gone", PATIENCE, || {
            (!Path::new(&format!("/proc/{}", self.pid)).exists()).then_some(())
        });
    }
}

fn inside(pid: i32, line: &str) -> (bool, String) {
    let mut command = Command::new("nsenter");
    command.args(["-a", "-t", &pid.to_string(), "bash", "-c", line]);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    let output = command.output().expect("nsenter is installed");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Starts a unit, reloads it, reloads it with something that is wrong, and stops it.
fn lives(systemd: &Systemd, unit: &str, port: u16, spoil: &str, reason: &str) {
    systemd.succeed(&format!("systemctl daemon-reload && systemctl start {unit}"));
    let master = systemd.show(unit, "MainPID");
    assert!(systemd.ask(port).starts_with("HTTP/1.1 200 OK\r\n"));
    systemd.succeed(&format!("systemctl reload {unit}"));
    let status = systemd.show(unit, "StatusText");
    assert!(status.starts_with("reloaded: generation 2"), "{status}");
    systemd.succeed(spoil);
    let (is_done, said) = systemd.run(&format!("systemctl reload {unit}"));
    assert!(!is_done, "it fails: {said}");
    let journal = systemd.succeed(&format!("journalctl -o cat -u {unit}"));
    assert!(journal.contains(reason), "{journal}");
    assert!(systemd.ask(port).starts_with("HTTP/1.1 200 OK\r\n"), "the old ones serve on");
    assert_eq!(
        (systemd.show(unit, "MainPID"), systemd.show(unit, "NRestarts")),
        (master, "0".into())
    );
    let begun = std::time::Instant::now();
    systemd.succeed(&format!("systemctl stop {unit}"));
    assert!(begun.elapsed() < Duration::from_secs(30), "it was not killed");
    assert_eq!(systemd.show(unit, "Result"), "success");
}

fn copy(from: &str, to: &str) -> String {
    format!("install -D -m 644 /srv/{from} {to}")
}

#[test]
fn service_unit_starts_reloads_and_stops_under_systemd() {
    let Some(systemd) = Systemd::start() else { return };
    systemd.succeed(&copy("config.toml", "/etc/ferricorn/config.toml"));
    let unit = "/etc/systemd/system/ferricorn.service";
    systemd.succeed(&copy("deploy/systemd/ferricorn.service", unit));
    let spoil = "sed -i 's/^workers = .*/workers = \"many\"/' /etc/ferricorn/config.toml";
    let reason = "workers: expected 1 to 256 or \"auto\", found \"many\"";
    lives(&systemd, "ferricorn", 5000, spoil, reason);
}

#[test]
fn flask_unit_starts_reloads_and_stops_under_systemd() {
    let Some(systemd) = Systemd::start() else { return };
    for file in ["app.py", "config.toml"] {
        systemd.succeed(&copy(&format!("examples/programs/{file}"), &format!("/srv/flask/{file}")));
    }
    let unit = "/etc/systemd/system/flask.service";
    systemd.succeed(&copy("examples/programs/flask.service", unit));
    lives(&systemd, "flask", 5000, "echo '(' >/srv/flask/app.py", "3 workers in a row failed");
}
