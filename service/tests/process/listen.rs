//! Where a server listens, and that nothing which waits there is lost.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use crate::client::{Address, Connection, Outcome, get};
use crate::events::has;
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, parse_address, send};
use crate::load::{Client, Crowd, Load};
use crate::proc;

const KEEP_ALIVE: Client = Client::KeepAlive { pause: Duration::from_millis(5), watches: false };

#[test]
fn several_addresses_of_every_kind_are_served_at_once() {
    let server = Ferricorn::unruly()
        .config(
            "bind = [\"127.0.0.1:0\", \"[::1]:0\", \"unix:f.sock\"]\nunix_socket_mode = \"0600\"",
        )
        .start();
    let [v4, v6, unix] = server.addresses() else { panic!("{:?}", server.addresses()) };
    assert!(v4.starts_with("http://127.0.0.1:") && v6.starts_with("http://[::1]:"));
    let path = server.folder().join("f.sock");
    assert_eq!(unix, &format!("unix:{}", path.display()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for address in [v4, v6, unix] {
        let mut slots = std::collections::BTreeSet::new();
        eventually("every worker answers there", PATIENCE, || {
            let answer = Connection::open(&parse_address(address)).unwrap().get("/").unwrap();
            slots.insert(answer.slot());
            (address == unix || slots.len() == 4).then_some(())
        });
    }
    server.stop();
    assert!(!path.exists());
}

#[test]
fn the_file_of_a_unix_socket_has_the_mode_that_the_umask_leaves() {
    for (umask, mode) in [("umask = \"0077\"", 0o700), ("umask = \"0002\"", 0o775), ("", 0o777)] {
        let config = format!("bind = \"unix:f.sock\"\n{umask}");
        let server = Ferricorn::unruly().config(&config).start();
        let path = server.folder().join("f.sock");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        server.stop();
    }
}

#[test]
fn the_unix_socket_of_a_server_that_lives_is_left_to_it() {
    let server = Ferricorn::unruly().config("bind = \"unix:f.sock\"\nworkers = 1").start();
    let path = server.folder().join("f.sock");
    let config = format!("bind = \"unix:{}\"", path.display());
    let log = Ferricorn::unruly().config(&config).by_ourselves().fails_with(69);
    assert!(log.contains("is another server running there?"), "{log}");
    let answer = Connection::open(&server.address()).unwrap().get("/").unwrap();
    assert_eq!(answer.status, 200);
    server.stop();
}

/// The listeners opened before the address that cannot be had are given up as if they had never been.
#[test]
fn a_start_and_a_reload_that_fail_at_an_address_leave_no_file_behind() {
    let _share = crate::machine::share();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = format!("bind = [\"unix:a.sock\", \"{}\"]", taken.local_addr().unwrap());
    let mut refused = Ferricorn::unruly().config(&bind).launch();
    assert_eq!(refused.wait_exit(), Exit::Code(69));
    assert!(!refused.folder().join("a.sock").exists());
    let server = Ferricorn::unruly().start();
    std::fs::write(server.folder().join("config.toml"), bind).unwrap();
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(2).starts_with("failed to bind "));
    assert!(!server.folder().join("a.sock").exists());
    server.stop();
}

#[test]
fn addresses_that_overlap_are_said_to() {
    let _share = crate::machine::share();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!("bind = [\"0.0.0.0:{free}\", \"127.0.0.1:{free}\"]");
    let log = Ferricorn::unruly().config(&config).fails_with(69);
    let told = format!(
        "failed to bind 127.0.0.1:{free}: 0.0.0.0:{free} is listed, too, and the kernel does not have \
         the two side by side: leave one of them out"
    );
    assert!(log.contains(&told), "{log}");
}

#[test]
fn both_families_of_one_port_are_served_side_by_side() {
    let _share = crate::machine::share();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let both = format!("bind = [\"[::]:{free}\", \"0.0.0.0:{free}\"]");
    let mut server = Ferricorn::unruly().config(&both).start();
    let served = |ip: &str| {
        let address = Address::Tcp(format!("{ip}:{free}").parse().unwrap());
        let mut slots = std::collections::BTreeSet::new();
        eventually("every worker answers there", PATIENCE, || {
            slots.insert(Connection::open(&address).ok()?.get("/").ok()?.slot());
            (slots.len() == 4).then_some(())
        });
    };
    served("[::1]");
    served("127.0.0.1");
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    server.signal(Signal::SIGUSR2);
    server.wait_event("server_upgraded", &[]);
    server.wait_reloaded(3);
    served("[::1]");
    served("127.0.0.1");
    // An IPv6 listener that leaves IPv4 alone is not one for both.
    let alone = format!("bind = \"[::]:{free}\"\n");
    std::fs::write(server.folder().join("config.toml"), alone).unwrap();
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(4).contains("this server listens on "));
    served("127.0.0.1");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// In a network whose loopback device has no IPv6, as in many containers, `localhost` has `::1` in the
/// hosts file.
#[test]
fn name_with_an_absent_address_is_served_at_its_other() {
    let _share = crate::machine::share();
    let switch = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    if !crate::machine::has_own_network() || std::fs::write(switch, "1").is_err() {
        return println!("not tested: only root can change its own network");
    }
    let server = Ferricorn::unruly()
        .config("bind = \"localhost:0\"")
        .by_ourselves()
        .file("hosts", "::1 localhost\n127.0.0.1 localhost\n")
        .wrapped(&["unshare", "-m", "sh", "-c", "mount --bind hosts /etc/hosts; exec \"$@\"", "sh"])
        .start();
    let [only] = server.addresses() else { panic!("{:?}", server.addresses()) };
    assert!(only.starts_with("http://127.0.0.1:"), "{only}");
    let absent = server.wait_event("address_absent", &[("served", "127.0.0.1:0".into())]);
    assert!(has(&absent["reason"], "failed to bind [::1]:0: "), "{absent}");
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    assert_eq!(server.get("/").unwrap().status, 200);
    server.stop();
}

/// A kernel that does not let us steer costs evenness: nobody is lost, and it is said once.
#[test]
fn without_a_selector_nobody_is_lost() {
    let _alone = crate::machine::alone();
    // Programs count against what a socket may have besides its data (bpf_prog_size in the kernel).
    let room = "/proc/sys/net/core/optmem_max";
    let Ok(usual) = std::fs::read_to_string(room) else {
        return println!("not tested: {room} cannot be read");
    };
    if !crate::machine::has_own_network() || std::fs::write(room, "64").is_err() {
        return println!("not tested: only root can change its own network");
    }
    let server = Ferricorn::unruly().config("workers = 3").start();
    let crowds = [Crowd::get(8, KEEP_ALIVE), Crowd::get(8, Client::PerRequest)];
    let load = Load::begin(&server.address(), &crowds);
    for _ in 0..3 {
        server.signal(Signal::SIGTTOU);
        server.wait_workers(2);
        load.wait_for_more(50);
        server.signal(Signal::SIGTTIN);
        server.wait_workers(3);
        load.wait_for_more(50);
    }
    load.finish().assert_clean();
    let log = server.log();
    assert_eq!(log.matches("failed to steer new connections").count(), 1, "{log}");
    std::fs::write(room, usual).unwrap();
    server.stop();
}

#[test]
fn one_address_serves_both_versions_of_ip() {
    let server = Ferricorn::unruly().config("bind = \"[::]:0\"").start();
    let port = server.address().tcp().port();
    for address in [format!("[::1]:{port}"), format!("127.0.0.1:{port}")] {
        let address = Address::Tcp(address.parse().unwrap());
        for _ in 0..20 {
            let answer = Connection::open(&address).unwrap().get("/").unwrap();
            assert_eq!(answer.status, 200);
        }
    }
    server.stop();
}

#[test]
fn port_in_the_environment_is_honoured() {
    let _share = crate::machine::share();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Ferricorn::unruly().env("PORT", free.to_string()).flag("--workers=1").start();
    assert_eq!(server.addresses(), [format!("http://0.0.0.0:{free}")]);
    server.stop();
}

#[test]
fn an_inherited_socket_is_served_and_outlives_the_server() {
    let _share = crate::machine::share();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    // The shell passes its standard input on as descriptor 5.
    let builder = Ferricorn::unruly().config("bind = \"fd://5\"\nworkers = 2").wrapped(&[
        "sh",
        "-c",
        "exec 5<&0; exec \"$@\"",
        "sh",
    ]);
    let stdin = Stdio::from(OwnedFd::from(listener.try_clone().unwrap()));
    let (ready, _unused) = std::io::pipe().unwrap();
    let server = builder.launch_with(stdin, ready, &[]);
    let answer =
        eventually("it answers", PATIENCE, || Connection::open(&address).ok()?.get("/").ok());
    assert_eq!(answer.status, 200);
    server.stop();
    // The socket was not ours to close: who connects now waits for the next server.
    Connection::open(&address).expect("it still listens");
}

#[test]
fn sockets_of_a_service_manager_are_taken_instead_of_the_configured_ones() {
    let _share = crate::machine::share();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let (ready, _unused) = std::io::pipe().unwrap();
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec 3<&0; exec \"$@\"";
    let server = Ferricorn::unruly()
        .config("bind = \"127.0.0.1:1\"\nworkers = 2")
        .wrapped(&["sh", "-c", script, "sh"])
        .launch_with(Stdio::from(OwnedFd::from(listener)), ready, &[]);
    let answer =
        eventually("it answers", PATIENCE, || Connection::open(&address).ok()?.get("/").ok());
    assert_eq!(answer.status, 200);
    server.wait_event("socket_adopted", &[("descriptor", 3.into())]);
    server.stop();
}

#[test]
fn a_reload_opens_new_addresses_before_it_lets_the_old_ones_go() {
    let server = Ferricorn::unruly().config("bind = \"unix:a.sock\"").start();
    let path = |name: &str| Address::Unix(server.folder().join(name));
    let load = Load::begin(&path("a.sock"), &[Crowd::get(4, Client::PerRequest)]);
    std::fs::write(
        server.folder().join("config.toml"),
        "bind = [\"unix:a.sock\", \"unix:b.sock\"]",
    )
    .unwrap();
    server.signal(Signal::SIGHUP);
    eventually("the new address answers", PATIENCE, || {
        Connection::open(&path("b.sock")).ok()?.get("/").ok()
    });
    load.wait_for_more(50);
    load.finish().assert_clean();
    std::fs::write(server.folder().join("config.toml"), "bind = \"unix:b.sock\"").unwrap();
    server.signal(Signal::SIGHUP);
    eventually("the old address is gone", PATIENCE, || {
        (!server.folder().join("a.sock").exists()).then_some(())
    });
    assert_eq!(Connection::open(&path("a.sock")).expect_err("it is gone"), Outcome::Refused);
    assert_eq!(Connection::open(&path("b.sock")).unwrap().get("/").unwrap().status, 200);
    server.stop();
}

/// The kernel does not have the two side by side, so it is refused before anything has changed.
#[test]
fn a_reload_says_which_of_its_own_addresses_is_in_the_way() {
    for (old, new) in [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "[::]")] {
        let server = Ferricorn::unruly().config(&format!("bind = \"{old}:0\"")).start();
        let before = server.wait_workers(4);
        let port = server.address().tcp().port();
        let config = format!("bind = \"{new}:{port}\"");
        std::fs::write(server.folder().join("config.toml"), config).unwrap();
        server.signal(Signal::SIGHUP);
        let reason = format!(
            "failed to bind {new}:{port}: this server listens on {old}:{port}, which cannot be let \
             go before: restart it, or take another port"
        );
        assert_eq!(server.wait_reload_failed(2), reason);
        assert_eq!(server.workers(), before);
        let here = Address::Tcp(([127, 0, 0, 1], port).into());
        assert_eq!(Connection::open(&here).unwrap().get("/").unwrap().status, 200);
        server.stop();
    }
}

/// Over TCP, too: clients of the old address are not cut off, and the new one serves at once.
#[test]
fn a_reload_changes_the_port_and_fails_no_request() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let old = server.address();
    let load = Load::begin(&old, &[Crowd::get(4, KEEP_ALIVE), Crowd::get(2, Client::PerRequest)]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bind = |text: &str| {
        let text = format!("bind = [{text}]\nworkers = 2");
        std::fs::write(server.folder().join("config.toml"), text).unwrap();
    };
    bind(&format!("\"127.0.0.1:0\", \"{free}\""));
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    load.wait_for_more(50);
    load.finish().assert_clean();
    let mut kept = Connection::open(&old).unwrap();
    assert_eq!(kept.get("/").unwrap().status, 200);
    let load = Load::begin(&Address::Tcp(free), &[Crowd::get(4, Client::PerRequest)]);
    bind(&format!("\"{free}\""));
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(3);
    eventually("the old address is gone", PATIENCE, || {
        Connection::open_within(&old, Duration::from_millis(300)).is_err().then_some(())
    });
    load.wait_for_more(50);
    load.finish().assert_clean();
    server.stop();
}

/// A change that is taken back at once finds the old address as it was.
#[test]
fn a_port_that_was_let_go_just_now_is_taken_back() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first = free();
    let second = free();
    let config = |address: SocketAddr| format!("bind = \"{address}\"\nworkers = 1");
    let server = Ferricorn::unruly().config(&config(first)).start();
    for (at, address) in [second, first, second, first].into_iter().enumerate() {
        let generation = at + 2;
        std::fs::write(server.folder().join("config.toml"), config(address)).unwrap();
        server.signal(Signal::SIGHUP);
        server.wait_reloaded(generation);
        let answer = Connection::open(&Address::Tcp(address)).unwrap().get("/").unwrap();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(server.noted("reload_failed").len(), 0);
    server.stop();
}

/// Everything that waits in the queue of a stopped worker is answered by its siblings.
#[test]
fn the_queue_of_a_stopped_worker_is_served_by_its_siblings() {
    let server = Ferricorn::unruly().start();
    let stopped = server.worker(3);
    send(stopped, Signal::SIGSTOP);
    let mut waiting: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(get("/")).unwrap();
    }
    for connection in &mut waiting {
        assert_ne!(connection.response().expect("it is answered").pid(), stopped);
    }
    send(stopped, Signal::SIGCONT);
    server.stop();
}

/// The queue of a worker that cannot come back is served all the same.
#[test]
fn a_slot_without_a_worker_loses_nobody() {
    let server = Ferricorn::unruly().env("UNRULY_BOOT_FILE", "boot").file("boot", "").start();
    let load = Load::begin(&server.address(), &[Crowd::get(8, Client::PerRequest)]);
    std::fs::write(server.folder().join("boot"), "slow=400").unwrap();
    let before = server.worker(0);
    send(before, Signal::SIGTERM);
    eventually("the worker is replaced", PATIENCE, || {
        let now = server.workers();
        (now.iter().filter(|(slot, _)| *slot == 0).count() == 1 && !now.contains(&(0, before)))
            .then_some(())
    });
    load.wait_for_more(100);
    load.finish().assert_clean();
    server.stop();
}

#[test]
fn growing_and_shrinking_fails_no_request() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().config("workers = 3").start();
    let pause = Duration::from_millis(5);
    let crowds = [
        Crowd::get(32, Client::KeepAlive { pause, watches: false }),
        Crowd::get(32, Client::KeepAlive { pause, watches: true }),
        Crowd::get(16, Client::PerRequest),
    ];
    let load = Load::begin(&server.address(), &crowds);
    for _ in 0..20 {
        server.signal(Signal::SIGTTOU);
        server.wait_workers(2);
        server.signal(Signal::SIGTTIN);
        server.wait_workers(3);
        load.wait_for_more(20);
    }
    load.finish().assert_clean();
    server.stop();
}

#[test]
fn a_worker_told_to_leave_again_and_again_loses_no_request() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let pause = Duration::from_millis(5);
    let crowds = [
        Crowd::get(32, Client::KeepAlive { pause, watches: false }),
        Crowd::get(32, Client::KeepAlive { pause, watches: true }),
        Crowd::get(16, Client::PerRequest),
    ];
    let load = Load::begin(&server.address(), &crowds);
    for round in 0..20 {
        let slot = round % 4;
        let old = server.worker(slot);
        send(old, Signal::SIGTERM);
        eventually("it is replaced", PATIENCE, || {
            let there = server.workers();
            let fresh = |(it, pid): &(u16, i32)| *it == slot && *pid != old;
            there.iter().any(fresh).then_some(())
        });
        load.wait_for_more(20);
        server.wait_workers(4);
    }
    load.finish().assert_clean();
    server.stop();
}

#[test]
fn pipelined_requests_are_all_answered_when_the_worker_drains() {
    let mut server = Ferricorn::unruly().config("workers = 1").start();
    let mut connection = server.connect();
    let requests: String = (0..5).map(|n| get(&format!("/slow?ms=200&n={n}"))).collect();
    connection.send(requests).unwrap();
    assert_eq!(connection.response().unwrap().status, 200);
    server.signal(Signal::SIGTERM);
    for _ in 1..4 {
        let answer = connection.response().expect("it was pipelined before the drain");
        assert_eq!((answer.status, answer.closes()), (200, false));
    }
    let last = connection.response().expect("the last one too");
    assert_eq!((last.status, last.closes()), (200, true));
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn half_a_request_is_answered_when_its_other_half_comes_during_the_drain() {
    let mut server = Ferricorn::unruly().start();
    let mut fresh = server.connect();
    fresh.send("GET / HTTP/1.1\r\nho").unwrap();
    let mut kept = server.connect();
    assert_eq!(kept.get("/").unwrap().status, 200);
    kept.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab").unwrap();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").unwrap().status, 200);
    eventually("all is read", PATIENCE, || {
        [&fresh, &kept].iter().all(|it| proc::is_read(it.local_v4())).then_some(())
    });
    server.signal(Signal::SIGTERM);
    // The idle one is closed after its grace; by then the others have waited as long.
    assert_eq!(idle.rest().expect("it ends in order"), b"");
    fresh.send("st: a\r\n\r\n").unwrap();
    let answer = fresh.response().expect("it is answered");
    assert_eq!((answer.status, answer.closes()), (200, true));
    kept.send("cd").unwrap();
    let answer = kept.response().expect("it is answered");
    assert_eq!((answer.status, answer.text().as_str(), answer.closes()), (200, "abcd", true));
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn old_clients_are_answered_during_a_stop() {
    let mut server = Ferricorn::unruly().start();
    let mut old = server.connect();
    let mut closing = server.connect();
    server.signal(Signal::SIGTERM);
    old.send("GET / HTTP/1.0\r\n\r\n").unwrap();
    closing.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(old.response().expect("it was connected before the stop").status, 200);
    assert_eq!(closing.response().expect("so was this").status, 200);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn a_backlog_beyond_the_kernels_is_warned_of() {
    let server = Ferricorn::unruly().config("backlog = 65535").start();
    server.wait_event("backlog_limited", &[("backlog", 65535.into())]);
    server.stop();
}
