//! The boundary between the processes: what a worker keeps of its master's rights, and what it can do to
//! the others with what it has.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::harness::{Builder, Exit, Ferricorn, PATIENCE, Signal, eventually};
use crate::proc;
use crate::program::{is_open_to_all, may_become_nobody};

/// A server whose folder every user may use, begun as root by this wrapper; `None` where the tests are
/// not root's.
#[expect(clippy::print_stdout, reason = "a test that is left out says so")]
pub(crate) fn begun_by(wrapper: &[&str], builder: Builder) -> Option<Builder> {
    if !may_become_nobody() || !is_open_to_all(builder.binary()) {
        println!("not tested: only root can become another user");
        return None;
    }
    let builder = builder.by_ourselves().wrapped(wrapper);
    std::fs::set_permissions(builder.folder(), Permissions::from_mode(0o777)).expect("it is ours");
    Some(builder)
}

/// The words of a line of `/proc/PID/status`, joined.
fn status(pid: i32, name: &str) -> String {
    proc::status_all(pid, name).join(" ")
}

/// A master that is root, in groups of root's; and one that is not, and may become others.
#[test]
fn a_drop_of_privilege_is_total() {
    let root = ["setpriv", "--groups=0,4,6,27"];
    let other = [
        "setpriv",
        "--reuid=1234",
        "--regid=1234",
        "--groups=0,4,6",
        "--inh-caps=+setuid,+setgid,+net_admin",
        "--ambient-caps=+setuid,+setgid,+net_admin",
    ];
    let cases = [
        (&root[..], "user = \"54321\"", "54321", "54321", "54321"),
        (&root[..], "user = \"54321\"\ngroup = \"7\"", "54321", "7", "7"),
        (&other[..], "user = \"54321\"", "54321", "54321", "54321"),
        (&other[..], "user = \"1234\"", "1234", "1234", "1234"),
    ];
    for (wrapper, config, uid, gid, groups) in cases {
        let server = Ferricorn::hello().config(&format!("{config}\nworkers = 1"));
        let Some(server) = begun_by(wrapper, server) else { return };
        let server = server.start();
        let pid = server.worker(0);
        let four = |id: &str| [id; 4].join(" ");
        assert_eq!(status(pid, "Uid"), four(uid), "{wrapper:?} {config}");
        assert_eq!(status(pid, "Gid"), four(gid), "{wrapper:?} {config}");
        assert_eq!(status(pid, "Groups"), groups, "{wrapper:?} {config}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(pid, set), "0000000000000000", "{set}: {wrapper:?} {config}");
        }
        if wrapper == root {
            assert_eq!(status(pid, "CapBnd"), "0000000000000000", "{config}");
        }
        assert_eq!(status(pid, "NoNewPrivs"), "1", "{wrapper:?} {config}");
        server.stop();
    }
}

/// Half a change is worse than none: no worker serves.
#[test]
fn a_drop_of_privilege_that_is_refused_ends_the_worker() {
    // It may become another user, but cannot leave its groups.
    let wrapper = [
        "setpriv",
        "--reuid=1234",
        "--regid=1234",
        "--groups=0,4,6",
        "--inh-caps=+setuid",
        "--ambient-caps=+setuid",
    ];
    let server = Ferricorn::hello().config("user = \"54321\"\nworkers = 1");
    let Some(server) = begun_by(&wrapper, server) else { return };
    let log = server.fails_with(4);
    assert!(log.contains("failed to begin prepare: Operation not permitted"), "{log}");
}

/// A descriptor that the process has opened itself cannot be named, nor one that was not passed, nor
/// the same twice.
#[test]
fn descriptors_that_were_not_passed_are_refused() {
    let _share = crate::machine::share();
    let absent = "was not open when the server was started, or is in use by it";
    // Whoever runs the tests may have passed some on.
    let closed = ["sh", "-c", "exec 3<&- 7<&- 9<&-; exec \"$@\"", "sh"];
    for number in [3, 7, 9, 1000] {
        let config = format!("bind = \"fd://{number}\"");
        let log = Ferricorn::unruly().config(&config).wrapped(&closed).fails_with(78);
        assert!(
            log.contains(&format!("bind: fd://{number}: descriptor {number} {absent}")),
            "{log}"
        );
        let (ready, _unused) = std::io::pipe().unwrap();
        let flag = format!("--ready-fd={number}");
        let server = Ferricorn::unruly().wrapped(&closed);
        let mut server = server.launch_with(Stdio::null(), ready, &[&flag]);
        assert_eq!(server.wait_exit(), Exit::Code(78));
        let told = format!("ready_fd: descriptor {number} {absent}");
        assert!(server.log().contains(&told), "{}", server.log());
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let twice = Ferricorn::unruly().config("bind = \"fd://5\"").wrapped(&[
        "sh",
        "-c",
        "exec 5<&0; exec \"$@\"",
        "sh",
    ]);
    let stdin = Stdio::from(OwnedFd::from(listener));
    let (ready, _unused) = std::io::pipe().unwrap();
    let mut server = twice.launch_with(stdin, ready, &["--ready-fd=5"]);
    assert_eq!(server.wait_exit(), Exit::Code(78));
    assert!(server.log().contains("bind: fd://5: descriptor 5 was"), "{}", server.log());
}

/// A count of the environment is not believed: nothing is reserved for it.
#[test]
fn counts_of_a_service_manager_are_bounded() {
    for (count, told) in [
        ("2000000000", "LISTEN_FDS is 2000000000, but descriptor 3 was not passed"),
        ("1", "LISTEN_FDS is 1, but descriptor 3 was not passed"),
        ("-1", "LISTEN_FDS: expected a number of descriptors, found \"-1\""),
        ("4294967296", "LISTEN_FDS: expected a number of descriptors, found \"4294967296\""),
    ] {
        let script =
            format!("ulimit -v 1000000; export LISTEN_PID=$$ LISTEN_FDS={count}; exec \"$@\"");
        let log = Ferricorn::unruly().wrapped(&["sh", "-c", &script, "sh"]).fails_with(78);
        assert!(log.contains(told), "{log}");
    }
}

/// The rings of these processes: the inode of each that is mapped, with its pages.
fn rings(pid: i32) -> Vec<(String, String)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
    let rings = maps.lines().filter(|line| line.contains("/memfd:ferricorn-ring"));
    let parts = rings.map(|line| line.split_whitespace().collect::<Vec<_>>());
    parts.map(|parts| (parts[4].to_owned(), format!("{} {}", parts[0], parts[2]))).collect()
}

/// A mapping of a part of a file reaches the rest of it, and a descriptor its size: so a worker has one
/// mapping of a file that no other worker has, and no descriptor of it. Workers that came later, and
/// those of another image, too.
#[test]
fn worker_has_a_ring_of_its_own_and_no_descriptor_of_it() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let judge = |count: u16| {
        let workers = server.wait_workers(count);
        // While it forks it has that of the child, too.
        let mut seen = eventually("the master maps its own alone", PATIENCE, || {
            let files: Vec<String> =
                rings(server.pid()).into_iter().map(|(file, _)| file).collect();
            (files.len() == 1).then_some(files)
        });
        for (_, pid) in &workers {
            let [(file, pages)] = &rings(*pid)[..] else { panic!("{:?}", rings(*pid)) };
            let (range, offset) = pages.split_once(' ').expect("two words");
            let (first, end) = range.split_once('-').expect("two addresses");
            let address = |text: &str| u64::from_str_radix(text, 16).expect("a number");
            assert_eq!((address(end) - address(first), offset), (1 << 20, "00000000"));
            seen.push(file.clone());
            for descriptor in proc::descriptors(*pid) {
                let link = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}"));
                let link = link.unwrap_or_default().display().to_string();
                assert!(!link.contains("ferricorn-ring"), "{descriptor} is {link}");
            }
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all, "each has a file of its own");
    };
    judge(2);
    server.signal(Signal::SIGTTIN);
    judge(3);
    server.signal(Signal::SIGUSR2);
    server.wait_reloaded(2);
    judge(2);
    server.stop();
}

/// Code of a worker can map other parts of what it has mapped (mremap(2)), unless the kernel was told to
/// keep the mapping as it is.
#[test]
fn worker_reaches_no_counters_but_its_own() {
    let server = Ferricorn::unruly().config("workers = 2\n[stats]\nbind = \"127.0.0.1:0\"").start();
    if !proc::is_linux_since([6, 10]) {
        println!("not tested: this kernel has no mseal(2)");
        return server.stop();
    }
    for (_, pid) in server.workers() {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("it lives");
        let mut names = 0;
        let mut flags = Vec::new();
        for line in maps.lines() {
            names += usize::from(line.contains("/memfd:ferricorn-metrics"));
            if let Some(found) = line.strip_prefix("VmFlags:").filter(|_| names > flags.len()) {
                flags.push(found.split_whitespace().any(|flag| flag == "sl"));
            }
        }
        assert_eq!((names, flags), (1, vec![true]), "{maps}");
    }
    server.stop();
}
