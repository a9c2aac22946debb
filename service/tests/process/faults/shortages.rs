//! The machine has not enough of something: processes, descriptors, room for connections, memory.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::scene::{Scene, connect_to, settled, wait_replaced};
use crate::client::{Connection, Outcome, get};
use crate::control::succeed;
use crate::events::has;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

/// The limit of a process, until it is taken back.
struct Limit {
    pid: i32,
    resource: &'static str,
    before: String,
}

impl Limit {
    fn set(pid: i32, resource: &'static str, most: usize) -> Self {
        let resource_of = format!("--{resource}");
        let before = prlimit(pid, &[&resource_of, "--raw", "--noheadings", "--output", "SOFT"]);
        let before = before.trim().to_owned();
        prlimit(pid, &[&format!("--{resource}={most}:")]);
        Self { pid, resource, before }
    }

    fn take_back(self) {
        prlimit(self.pid, &[&format!("--{}={}:", self.resource, self.before)]);
    }
}

fn prlimit(pid: i32, arguments: &[&str]) -> String {
    let number = |name| proc::status(pid, name).and_then(|status| status.parse().ok());
    let (Some(user), Some(group)) = (number("Uid"), number("Gid")) else { panic!("{pid} is gone") };
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string()]).args(arguments);
    if nix::unistd::geteuid().is_root() {
        // Not every root may do that to others.
        command.uid(user).gid(group);
    }
    let done = command.output().expect("prlimit comes with unshare");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A worker cannot be forked: its sibling serves, the master tries on without haste, and says so.
#[expect(clippy::print_stdout, reason = "the figures are to be read")]
fn cannot_fork(resource: &'static str, most: impl Fn(&Ferricorn) -> usize, told: &str) {
    // Of refusals in a row the other levels say one a minute.
    let config = "workers = 2\n[log]\nlevel = \"debug\"";
    let server = Ferricorn::unruly().config(config).start();
    // From now on the master has no descriptor to give back.
    let first = server.worker(0);
    send(first, Signal::SIGKILL);
    wait_replaced(&server, 0, first);
    let mut scene = Scene::set(&server, 2, Some(1));
    let victim = server.worker(1);
    let sibling = server.worker(0);
    let none = Limit::set(server.pid(), resource, most(&server));
    send(victim, Signal::SIGKILL);
    let told = format!("failed to fork worker 1: {told}");
    let begun = Instant::now();
    let used = proc::processor_nanos(server.pid()).expect("it lives");
    eventually("it tries again", PATIENCE, || {
        (server.log().matches(&told).count() >= 3).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(server.get("/").expect("the sibling serves for both").pid(), sibling);
    }
    assert_eq!(server.log().matches(&format!("[ERROR] {told}")).count(), 1, "{}", server.log());
    let used = proc::processor_nanos(server.pid()).expect("it lives") - used;
    let passed = begun.elapsed();
    assert!(u128::from(used) < passed.as_nanos() / 4, "{used} ns in {passed:?}: it spins");
    none.take_back();
    scene.begin();
    let recovered = scene.recovers(&[1]);
    println!("no fork for want of {resource}: served again {recovered:?} after there was some");
    server.stop();
}

#[test]
fn a_worker_for_which_there_is_no_process_is_forked_later() {
    if proc::status(std::process::id().cast_signed(), "Uid").as_deref() == Some("0")
        && !crate::program::may_become_nobody()
    {
        return println!("not tested: root may have any number of processes");
    }
    cannot_fork("nproc", |_| 1, "Resource temporarily unavailable");
}

#[test]
fn a_worker_for_which_the_master_has_no_descriptors_is_forked_later() {
    // A dead worker leaves two, and a new one takes three for a moment.
    let none = |server: &Ferricorn| lowest_free(server.pid());
    cannot_fork("nofile", none, "Too many open files");
}

/// The number of the next descriptor that the process would open.
fn lowest_free(pid: i32) -> usize {
    let open = proc::descriptors(pid);
    let free = (0..).find(|number| !open.contains(number)).expect("there are many numbers");
    usize::try_from(free).expect("it counts from 0")
}

/// A worker without descriptors accepts nothing; its siblings do, also what was meant for it. It says
/// so once, does not spin, and accepts again when it can.
#[test]
fn a_worker_without_descriptors_leaves_connections_to_its_siblings() {
    let server = Ferricorn::unruly().start();
    let mut scene = Scene::set(&server, 4, Some(2));
    let poor = server.worker(2);
    let none = Limit::set(poor, "nofile", lowest_free(poor));
    let used = proc::processor_nanos(poor).expect("it lives");
    let begun = Instant::now();
    eventually("it has missed a connection", PATIENCE, || {
        let answer = server.get("/").expect("a sibling answers");
        assert_ne!(answer.pid(), poor, "it has no descriptor for a connection");
        server.log().contains("failed to accept a connection: Too many open files").then_some(())
    });
    let mut clients: Vec<Connection> = (0..60).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_ne!(client.get("/").expect("a sibling answers").pid(), poor);
    }
    eventually("some time has passed", PATIENCE, || {
        (begun.elapsed() > Duration::from_millis(500)).then_some(())
    });
    let used = proc::processor_nanos(poor).expect("it lives") - used;
    let passed = begun.elapsed();
    assert!(u128::from(used) < passed.as_nanos() / 4, "{used} ns in {passed:?}: it spins");
    drop(clients);
    none.take_back();
    scene.begin();
    let recovered = scene.recovers(&[]);
    assert_eq!(
        server.log().matches("failed to accept a connection").count(),
        1,
        "{}",
        server.log()
    );
    println!(
        "no descriptors: {used} ns of a processor in {passed:?}; all as before in {recovered:?}"
    );
    server.stop();
}

/// One that is passed a listener which it has no descriptor for serves on, and finishes what it holds.
#[test]
fn a_worker_without_descriptors_that_is_passed_one_stays() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let workers = settled(&server, 2);
    let (mut client, poor) = connect_to(&server, 1);
    super::hold(&server, &mut client, "/until?n=1", 1);
    let none = Limit::set(poor, "nofile", lowest_free(poor));
    server.signal(Signal::SIGTTIN);
    settled(&server, 3);
    let begun = Instant::now();
    eventually("who takes itself for an orphan is gone by now", PATIENCE, || {
        (begun.elapsed() > Duration::from_secs(3)).then_some(())
    });
    let more = settled(&server, 3);
    assert_eq!(&more[..2], &workers[..], "nobody has left");
    none.take_back();
    super::release(&server, 1);
    let answer = client.response().expect("its worker has stayed");
    assert_eq!((answer.status, answer.pid()), (200, poor));
    server.wait_served_by(&more);
    server.stop();
}

/// A full worker leaves new connections to its siblings, also what was meant for it. Where all are full
/// the connection that has been idle for longest gives way.
#[test]
fn a_full_worker_leaves_connections_to_its_sibling() {
    let server = Ferricorn::unruly().config("workers = 2\nworker_connections = 4").start();
    let mut scene = Scene::set(&server, 2, None);
    let full = server.worker(0);
    let held: Vec<_> = (0..4).map(|_| connect_to(&server, 0)).collect();
    assert!(held.iter().all(|(_, pid)| *pid == full));
    for _ in 0..30 {
        assert_ne!(server.get("/").expect("the sibling answers").pid(), full);
    }
    let others: Vec<_> = (0..4).map(|_| connect_to(&server, 1)).collect();
    let mut late = server.connect();
    assert_eq!(late.get("/").expect("an idle connection gives way").status, 200);
    drop((held, others, late));
    scene.begin();
    let recovered = scene.recovers(&[]);
    println!("no room for connections: all as before in {recovered:?}");
    server.stop();
}

/// A control group with a limit on memory, as a container is one; removed at its end.
struct Group(PathBuf);

const MEBIBYTE: usize = 1 << 20;
const MEMORY: usize = 256 * MEBIBYTE;

impl Group {
    /// Makes one below that of this process. `None`, and the reason on stdout, where that cannot be.
    #[expect(clippy::print_stdout, reason = "what was not tested must be said")]
    fn new() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = |controller: &str| {
            let of = |line: &str| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                controllers.split(',').any(|part| part == controller).then(|| path.to_owned())
            };
            own.lines().find_map(of)
        };
        let name = format!("ferricorn-test-{}", std::process::id());
        let (group, files) = match (path("memory"), path("")) {
            (Some(path), _) => (
                format!("/sys/fs/cgroup/memory{path}/{name}"),
                // The second one is there where swapping is counted.
                [("memory.limit_in_bytes", MEMORY), ("memory.memsw.limit_in_bytes", MEMORY)],
            ),
            (None, Some(path)) => (
                format!("/sys/fs/cgroup{path}/{name}"),
                [("memory.max", MEMORY), ("memory.swap.max", 0)],
            ),
            (None, None) => {
                println!("not tested: there are no control groups here");
                return None;
            }
        };
        if let Err(error) = std::fs::create_dir(&group) {
            println!("not tested: failed to make {group}: {error}");
            return None;
        }
        let group = Self(group.into());
        for (file, value) in files {
            let path = group.0.join(file);
            if path.exists() {
                std::fs::write(&path, value.to_string()).expect("the group is ours");
            } else if value == MEMORY && file != "memory.memsw.limit_in_bytes" {
                println!("not tested: {} is missing", path.display());
                return None;
            }
        }
        Some(group)
    }

    /// Takes a process in, and all that it will fork.
    fn enter(&self, pid: i32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the group is ours");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes may take a moment to be gone; a group that is left is empty and harms nobody.
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

/// A process that is nobody of the server's takes more memory than there is.
fn befall_a_stranger(group: &Group) {
    let mut command = Command::new("sh");
    // It keeps all of a line that never ends.
    command.args(["-c", "read go; exec tail /dev/zero"]).stdin(Stdio::piped());
    let mut stranger = command.spawn().expect("a shell");
    group.enter(i32::try_from(stranger.id()).expect("pids fit"));
    drop(stranger.stdin.take());
    let status = stranger.wait().expect("it is our child");
    assert_eq!(status.signal(), Some(9), "{status:?}");
}

/// A worker takes more memory than its container has: the kernel kills it, the log says that it was
/// the kernel, and says so of no other death; nor is it misled by a stranger in the container.
#[test]
fn a_worker_that_the_kernel_kills_for_want_of_memory_is_told_as_such() {
    let Some(group) = Group::new() else { return };
    let server = Ferricorn::unruly().config("workers = 2").start();
    let workers = settled(&server, 2);
    for pid in workers.iter().map(|(_, pid)| *pid).chain([server.pid()]) {
        group.enter(pid);
    }
    // A server that starts in its container would have counted from the start.
    server.signal(Signal::SIGUSR2);
    eventually("two other workers, in the group", PATIENCE, || {
        let now = server.workers();
        (now.len() == 2 && now.iter().all(|found| !workers.contains(found))).then_some(())
    });
    for round in 0..3 {
        let mut scene = Scene::set(&server, 2, Some(1));
        let (mut client, victim) = connect_to(&server, 1);
        scene.begin();
        let target = format!("/leak?mb={}&n={round}", 2 * MEMORY / MEBIBYTE);
        client.send(get(&target)).unwrap();
        let outcome = client.response().map(|answer| answer.status);
        assert!(
            matches!(outcome, Err(Outcome::ResetWaiting | Outcome::ClosedWaiting)),
            "{outcome:?}"
        );
        server.wait_worker_exited(victim, "died", ("out_of_memory", true.into()));
        let lost = server.wait_requests_lost(victim, 1);
        assert!(has(&lost["requests"], &format!("died in GET {target} (")), "{lost}");
        server.wait_log(&format!("\"GET {target} HTTP/1.1\" - - "));
        let why = succeed(&server, &["why", "1", "--json"]);
        let why: serde_json::Value = serde_json::from_str(&why).expect("one object");
        let end = why["ends"].as_array().and_then(|ends| ends.first()).expect("an end");
        assert_eq!((&end["cause"], &end["pid"]), (&"out_of_memory".into(), &victim.into()));
        let recovered = scene.recovers(&[1]);
        println!("out of memory: served again after {recovered:?}");
    }
    befall_a_stranger(&group);
    eventually("it is told that it was nobody of ours", PATIENCE, || {
        // The master looks when something wakes it.
        server.signal(Signal::SIGUSR1);
        server.log().contains("that are no children of this server: 1").then_some(())
    });
    let by_hand = server.worker(0);
    let scene = Scene::set(&server, 2, Some(0));
    send(by_hand, Signal::SIGKILL);
    server.wait_worker_exited(by_hand, "died", ("signal", 9.into()));
    scene.recovers(&[0]);
    let ends = server.noted("worker_exited");
    assert_eq!(ends.iter().filter(|end| end["out_of_memory"] == true).count(), 3, "{ends:?}");
    server.stop();
}
