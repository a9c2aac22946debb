//! A server as a container has it: as process 1, for a user who may do nothing special, behind a
//! network that takes its time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::{Address, Connection};
use crate::faults::settled;
use crate::harness::{Exit, Ferricorn, NOBODY, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::{link, proc};

/// Makes its program process 1 of a namespace, as any user.
const FIRST: [&str; 3] = ["unshare", "-Urpf", "--mount-proc"];
/// The same with privileges, as most containers have it.
const FIRST_AS_ROOT: [&str; 3] = ["unshare", "-pf", "--mount-proc"];

/// Returns true if this wrapper can be had here.
#[expect(clippy::print_stdout, reason = "what was not tested must be said")]
fn can_be_first(wrapper: &[&str]) -> bool {
    let tried = std::process::Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        println!("not tested: `{}` cannot be had here", wrapper.join(" "));
    }
    can
}

/// Process 1 has no default actions for signals, and every orphan of its namespace for a child.
#[test]
fn as_process_1_it_heals_reaps_reloads_upgrades_and_stops() {
    if can_be_first(&FIRST) {
        lives_as_process_1(Ferricorn::unruly().wrapped(&FIRST).start());
    }
}

#[test]
fn as_process_1_of_root_it_does_the_same() {
    if can_be_first(&FIRST_AS_ROOT) {
        lives_as_process_1(Ferricorn::unruly().by_ourselves().wrapped(&FIRST_AS_ROOT).start());
    }
}

fn lives_as_process_1(mut server: Ferricorn) {
    let inside = proc::status_all(server.pid(), "NSpid");
    assert_eq!(inside.last().map(String::as_str), Some("1"), "{inside:?}");
    assert_eq!(server.get("/pid").expect("it serves").status, 200);
    let first = server.wait_workers(4);
    send(first[1].1, Signal::SIGKILL);
    eventually("the killed worker is replaced", PATIENCE, || {
        let now = server.workers();
        (now.len() == 4 && now[1] != first[1]).then_some(())
    });
    reaps_orphans(&server);
    for signal in [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGUSR2] {
        let before = server.wait_workers(4);
        server.signal(signal);
        eventually("four other workers", PATIENCE, || {
            let now = server.workers();
            (now.len() == 4 && now.iter().all(|found| !before.contains(found))).then_some(())
        });
        reaps_orphans(&server);
    }
    eventually("both upgrades are told", PATIENCE, || {
        (server.log().matches("Upgraded in place").count() == 2).then_some(())
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

fn reaps_orphans(server: &Ferricorn) {
    let before = server.wait_workers(4);
    for code in [0, 3, 4, 255] {
        assert_eq!(server.get(&format!("/orphan?code={code}")).expect("it serves").status, 200);
    }
    assert_eq!(settled(server, 4), before, "no stranger's code is taken for a worker's");
}

/// A container's exit code is that of its process 1.
#[test]
fn as_process_1_it_ends_with_the_code_that_says_why() {
    if !can_be_first(&FIRST) {
        return;
    }
    let first = || Ferricorn::unruly().wrapped(&FIRST);
    first().env("UNRULY_BOOT", "exit").fails_with(3);
    first().env("UNRULY_PREPARE", "fail").fails_with(4);
    first().config("wokers = 3").fails_with(78);
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = first().start();
        server.signal(signal);
        assert_eq!(server.wait_exit(), Exit::Code(0), "{signal}");
    }
}

/// When the tests run as root, servers do not: what the other tests show holds for anybody.
#[test]
fn nothing_is_done_with_a_privilege() {
    let server = Ferricorn::unruly().start();
    server.signal(Signal::SIGTTIN);
    // Of two signals that are pending the kernel may have the second one handled first.
    server.wait_workers(5);
    server.signal(Signal::SIGTTOU);
    let workers = server.wait_workers(4);
    for pid in workers.iter().map(|(_, pid)| *pid).chain([server.pid()]) {
        assert_ne!(proc::status(pid, "Uid").as_deref(), Some("0"));
        assert_eq!(proc::status(pid, "CapEff").as_deref(), Some("0000000000000000"));
    }
    let log = server.log();
    assert!(!log.contains("failed to steer"), "{log}");
    server.stop();
}

/// Root binds, and the workers are somebody else from before their application begins.
#[test]
fn workers_of_root_give_its_privileges_up() {
    if !nix::unistd::geteuid().is_root() {
        return println!("not tested: only root can become somebody else");
    }
    let config = format!("user = \"{NOBODY}\"\ngroup = \"{NOBODY}\"\nworkers = 2");
    let server = Ferricorn::unruly().config(&config).by_ourselves().start();
    assert_eq!(proc::status(server.pid(), "Uid").as_deref(), Some("0"));
    for (_, pid) in server.wait_workers(2) {
        for name in ["Uid", "Gid"] {
            assert_eq!(proc::status(pid, name), Some(NOBODY.to_string()), "{name} of a worker");
        }
        assert_eq!(proc::status(pid, "CapEff").as_deref(), Some("0000000000000000"));
        let groups = proc::status(pid, "Groups");
        assert!(groups.is_none() || groups == Some(NOBODY.to_string()), "groups: {groups:?}");
    }
    server.wait_served_by(&server.wait_workers(2));
    server.stop();
}

const ROUND_TRIP: Duration = Duration::from_millis(50);

/// A server behind a round trip of 50 ms, and where its clients find it.
#[expect(clippy::print_stdout, reason = "what was not tested must be said")]
fn far_server() -> Option<(Ferricorn, Address)> {
    if let Err(error) = link::stretch(ROUND_TRIP) {
        println!("not tested: {error}");
        return None;
    }
    let server = Ferricorn::unruly().config(&format!("bind = \"{}:0\"", link::NEAR)).start();
    let far = Address::Tcp(SocketAddr::from((link::FAR, server.address().tcp().port())));
    let begun = Instant::now();
    Connection::open(&far).expect("it is reached").get("/").expect("it answers");
    assert!(begun.elapsed() >= 2 * ROUND_TRIP, "the network is too fast: {:?}", begun.elapsed());
    Some((server, far))
}

/// A handshake takes a round trip, in which its listener's worker may be told to leave.
#[test]
fn over_a_slow_network_growing_and_shrinking_loses_nobody() {
    if !link::enter_network("namespaces::over_a_slow_network_growing_and_shrinking_loses_nobody") {
        return;
    }
    let _alone = crate::machine::alone();
    let Some((server, far)) = far_server() else { return };
    let pause = Duration::from_millis(20);
    let crowds = [
        Crowd::get(40, Client::PerRequest),
        Crowd::get(20, Client::KeepAlive { pause, watches: false }),
    ];
    let load = Load::begin(&far, &crowds);
    for _ in 0..6 {
        for (signal, count) in
            [(Signal::SIGTTOU, 3), (Signal::SIGTTOU, 2), (Signal::SIGTTIN, 3), (Signal::SIGTTIN, 4)]
        {
            load.wait_for_more(40);
            server.signal(signal);
            server.wait_workers(count);
        }
    }
    load.finish().assert_clean();
    server.stop();
}

#[test]
fn over_a_slow_network_a_stop_resets_nobody() {
    if !link::enter_network("namespaces::over_a_slow_network_a_stop_resets_nobody") {
        return;
    }
    let _alone = crate::machine::alone();
    let Some((server, far)) = far_server() else { return };
    let pause = Duration::from_millis(20);
    let crowds = [
        Crowd::get(60, Client::PerRequest),
        Crowd::get(20, Client::KeepAlive { pause, watches: false }),
    ];
    let load = Load::begin(&far, &crowds);
    load.wait_for_more(200);
    let told = Instant::now();
    server.stop();
    let tally = load.finish();
    let cut = tally.cut_off(told);
    assert!(cut.is_empty(), "of {} answered, cut off: {cut:?}", tally.answered);
}
