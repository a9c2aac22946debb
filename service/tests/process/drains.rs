//! Workers that leave, and servers that stop, while somebody still waits or speaks: who was let in is
//! answered, who goes on speaking is told, and nobody's connection ends under his request.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::client::{Address, Connection, Outcome, get, post};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::proc;
use crate::storms::freeze;

/// Lets this much time pass.
pub(crate) fn pass(time: Duration) {
    let begun = Instant::now();
    eventually("time passes", PATIENCE + time, || (begun.elapsed() >= time).then_some(()));
}

/// A request whose handler runs, and answers when it is told to.
pub(crate) struct Held<'a> {
    server: &'a Ferricorn,
    number: u16,
}

impl<'a> Held<'a> {
    /// Sends it on this connection.
    pub(crate) fn begin(server: &'a Ferricorn, connection: &mut Connection, number: u16) -> Self {
        connection.send(get(&format!("/until?n={number}"))).expect("it is open");
        eventually("its handler runs", PATIENCE, || {
            server.folder().join(format!("begun-{number}")).exists().then_some(())
        });
        Self { server, number }
    }

    /// Lets it be answered.
    pub(crate) fn release(self) {
        let file = self.server.folder().join(format!("go-{}", self.number));
        std::fs::write(file, "").expect("the folder is ours");
    }
}

/// Tells the server to stop, and waits until its workers have heard it, and the grace of idle
/// connections is over: this one has nothing to do.
fn stop_and_wait_for_grace(server: &Ferricorn, mut idle: Connection) {
    server.signal(Signal::SIGTERM);
    assert_eq!(idle.rest().expect("it ends in order"), b"");
}

/// A connection that has nothing to do.
fn idle(server: &Ferricorn) -> Connection {
    let mut idle = server.connect();
    assert_eq!(idle.get("/").expect("it is answered").status, 200);
    idle
}

/// The worker has no room for those who wait until long after the stop has begun.
#[test]
fn a_stop_answers_who_waits_behind_a_full_worker() {
    let mut server = Ferricorn::unruly().config("workers = 1\nworker_connections = 4").start();
    let mut busy: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let held: Vec<_> =
        (0..).zip(&mut busy).map(|(number, it)| Held::begin(&server, it, number)).collect();
    let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(get("/")).expect("it is open");
    }
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[]);
    // Longer than a stop with empty queues has listeners.
    pass(Duration::from_millis(1500));
    held.into_iter().for_each(Held::release);
    for connection in busy.iter_mut().chain(&mut waiting) {
        let answer = connection.response().expect("it was let in before the stop");
        assert_eq!((answer.status, answer.closes()), (200, true));
    }
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// The same where the room is taken by connections that have nothing to do.
#[test]
fn a_stop_answers_who_waits_behind_idle_connections() {
    let mut server = Ferricorn::unruly().config("workers = 1\nworker_connections = 4").start();
    let mut full: Vec<_> = (0..4).map(|_| idle(&server)).collect();
    let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(get("/")).expect("it is open");
    }
    server.signal(Signal::SIGTERM);
    for connection in &mut waiting {
        assert_eq!(connection.response().expect("it was let in before the stop").status, 200);
    }
    for connection in &mut full {
        assert_eq!(connection.rest().expect("it ends in order"), b"");
    }
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// A loop that hears of the stop, and then blocks for longer than connections are accepted in peace.
#[test]
fn a_stop_answers_who_waits_behind_a_blocked_loop() {
    let mut server = Ferricorn::unruly().config("workers = 1").start();
    let mut blocked = server.connect();
    blocked.send(get("/block?ms=700&n=1")).expect("it is open");
    eventually("its handler runs", PATIENCE, || {
        server.folder().join("begun-1").exists().then_some(())
    });
    let mut second = server.connect();
    second.send(get("/block?ms=700")).expect("it is open");
    let mut waiting: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(get("/block?ms=2")).expect("it is open");
    }
    server.signal(Signal::SIGTERM);
    for connection in [&mut blocked, &mut second].into_iter().chain(&mut waiting) {
        assert_eq!(connection.response().expect("it was let in before the stop").status, 200);
    }
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// The master hears of the stop before it could see that a queue is not drained.
#[test]
fn the_queue_of_a_worker_that_stands_still_during_a_stop_is_served_by_its_siblings() {
    let mut server = Ferricorn::unruly().start();
    let stopped = server.worker(3);
    freeze(server.pid());
    freeze(stopped);
    let mut waiting: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(get("/")).expect("it is open");
    }
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    for connection in &mut waiting {
        let answer = connection.response().expect("it was let in before the stop");
        assert_ne!(answer.pid(), stopped);
    }
    send(stopped, Signal::SIGCONT);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// The only worker has died, and its successor boots when the stop comes.
#[test]
fn a_stop_while_the_only_worker_boots_answers_its_queue() {
    let mut server = Ferricorn::unruly()
        .config("workers = 1")
        .env("UNRULY_BOOT_FILE", "boot")
        .file("boot", "")
        .start();
    std::fs::write(server.folder().join("boot"), "slow=1000").expect("the folder is ours");
    let before = server.worker(0);
    send(before, Signal::SIGKILL);
    eventually("a successor boots", PATIENCE, || {
        server.workers().first().is_some_and(|(_, pid)| *pid != before).then_some(())
    });
    let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for connection in &mut waiting {
        connection.send(get("/")).expect("it is open");
    }
    server.signal(Signal::SIGTERM);
    for connection in &mut waiting {
        assert_eq!(connection.response().expect("it was let in before the stop").status, 200);
    }
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// Bodies may hold what looks like the end of a head, as every multipart does.
#[test]
fn a_client_that_has_sent_empty_lines_is_told_of_the_end() {
    let body = "a\r\n\r\nb";
    let chunked = "POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n\
                   6\r\na\r\n\r\nb\r\n0\r\n\r\n";
    for (number, text) in [(0, post("/echo", body)), (1, chunked.to_owned())] {
        let mut server = Ferricorn::unruly().config("workers = 1").start();
        let idle = idle(&server);
        let mut kept = server.connect();
        for _ in 0..2 {
            kept.send(&text).expect("it is open");
            assert_eq!(kept.response().expect("it is answered").text(), body);
        }
        let held = Held::begin(&server, &mut kept, number);
        stop_and_wait_for_grace(&server, idle);
        held.release();
        let answer = kept.response().expect("it was in hand before the stop");
        assert_eq!((answer.status, answer.closes()), (200, true));
        assert_eq!(server.wait_exit(), Exit::Code(0));
    }
    // And when the body itself is what is in hand.
    for (head, rest) in [
        ("content-length: 8\r\n\r\na\r\n\r\n", "b\r\n"),
        ("transfer-encoding: chunked\r\n\r\n8\r\na\r\n\r\nb\r\n", "\r\n0\r\n\r\n"),
    ] {
        let mut server = Ferricorn::unruly().config("workers = 1").start();
        let idle = idle(&server);
        let mut kept = server.connect();
        kept.send(format!("POST /echo HTTP/1.1\r\nhost: test\r\n{head}")).expect("it is open");
        eventually("it is read", PATIENCE, || proc::is_read(kept.local_v4()).then_some(()));
        stop_and_wait_for_grace(&server, idle);
        kept.send(rest).expect("it is open");
        let answer = kept.response().expect("its first half was there before the stop");
        assert_eq!((answer.text().as_str(), answer.closes()), ("a\r\n\r\nb\r\n", true), "{head}");
        assert_eq!(server.wait_exit(), Exit::Code(0));
    }
}

/// A request that comes in while a handler runs is not read before its answer is out.
#[test]
fn requests_pipelined_behind_a_slow_one_are_all_answered_when_the_worker_drains() {
    let mut server = Ferricorn::unruly().config("workers = 1").start();
    let idle = idle(&server);
    let mut connection = server.connect();
    let held = Held::begin(&server, &mut connection, 1);
    let further: String = (0..4).map(|n| post("/echo", &format!("{n}\r\n\r\n"))).collect();
    connection.send(further).expect("it is open");
    stop_and_wait_for_grace(&server, idle);
    held.release();
    let first = connection.response().expect("it was in hand before the stop");
    assert_eq!((first.status, first.closes()), (200, false));
    for number in 0..4 {
        let answer = connection.response().expect("it was sent before the stop");
        assert_eq!(answer.text(), format!("{number}\r\n\r\n"));
    }
    drop(connection);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// The grace of a connection begins when it has nothing more to do, not when the worker leaves.
#[test]
fn who_was_answered_late_in_a_drain_has_as_much_grace_as_others() {
    let mut server = Ferricorn::unruly().config("workers = 1").start();
    let idle = idle(&server);
    let mut slow = server.connect();
    slow.send(get("/big?mb=64")).expect("it is open");
    slow.wait_for_more().expect("its answer begins");
    stop_and_wait_for_grace(&server, idle);
    let answer = slow.response().expect("it was in hand before the stop");
    assert_eq!((answer.body.len(), answer.closes()), (64 << 20, false));
    // Longer than between two looks at idle connections.
    pass(Duration::from_millis(700));
    let answer = slow.get("/").expect("it has hardly been idle");
    assert_eq!((answer.status, answer.closes()), (200, true));
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// With several threads a connection may be accepted in the moment in which its worker goes.
#[test]
fn workers_of_several_threads_lose_no_request_when_they_go() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().config("workers = 2\nthreads = 2").start();
    let pause = Duration::from_millis(5);
    let crowds = [
        Crowd::get(8, Client::KeepAlive { pause, watches: false }),
        Crowd::get(16, Client::PerRequest),
    ];
    let load = Load::begin(&server.address(), &crowds);
    for _ in 0..10 {
        server.signal(Signal::SIGTTOU);
        server.wait_workers(1);
        load.wait_for_more(50);
        server.signal(Signal::SIGTTIN);
        server.wait_workers(2);
        load.wait_for_more(50);
    }
    let told = Instant::now();
    server.stop();
    let cut = load.finish();
    let cut = cut.cut_off(told);
    assert!(cut.is_empty(), "cut off: {cut:?}");
}

/// A worker on its way out holds no listener: an address that is let go meanwhile is gone.
#[test]
fn a_worker_that_leaves_slowly_keeps_no_address_open() {
    let server = Ferricorn::unruly().config("workers = 2\ngraceful_timeout = 600").start();
    let old = server.address();
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr();
    let free = free.expect("it is bound");
    let bind = |addresses: &str| {
        let config = format!("bind = [{addresses}]\nworkers = 2\ngraceful_timeout = 600");
        std::fs::write(server.folder().join("config.toml"), config).expect("the folder is ours");
        server.signal(Signal::SIGHUP);
    };
    // The first generation lives as long as it has this request, and with it its address.
    let mut first = server.connect();
    let of_first = Held::begin(&server, &mut first, 1);
    bind(&format!("\"{free}\""));
    server.wait_reloaded(2);
    // A worker of the second is older than the end of that address, and leaves slowly.
    let (slot, mut second) = eventually("a connection to slot 1", PATIENCE, || {
        let mut it = Connection::open(&Address::Tcp(free)).expect("it serves there");
        let slot = it.get("/").expect("it is answered").slot();
        (slot == 1).then_some((slot, it))
    });
    let of_second = Held::begin(&server, &mut second, 2);
    server.signal(Signal::SIGTTOU);
    server.wait_event("workers_scaled", &[("from", 2.into()), ("to", slot.into())]);
    of_first.release();
    assert_eq!(first.response().expect("it was in hand").status, 200);
    eventually("the old address is refused", PATIENCE, || {
        let late = Connection::open_within(&old, Duration::from_millis(100));
        late.is_err_and(|late| late == Outcome::Refused).then_some(())
    });
    bind(&format!("\"{free}\", \"{}\"", old.tcp()));
    server.wait_reloaded(3);
    assert_eq!(server_at(&old), 200);
    of_second.release();
    assert_eq!(second.response().expect("it was in hand").status, 200);
    server.stop();
}

/// A machine may have IPv6 in general, and none within itself.
#[test]
fn a_stop_refuses_new_connections_where_the_loopback_device_has_no_ipv6() {
    let _share = crate::machine::share();
    let switch = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    if !crate::machine::has_own_network() || std::fs::write(switch, "1").is_err() {
        return println!("not tested: only root can change its own network");
    }
    let mut server = Ferricorn::unruly().config("bind = \"[::]:0\"\nworkers = 1").start();
    let here = Address::Tcp(([127, 0, 0, 1], server.address().tcp().port()).into());
    let mut kept = Connection::open(&here).expect("it serves over IPv4, too");
    let held = Held::begin(&server, &mut kept, 1);
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[("mode", "graceful".into())]);
    let late = Connection::open_within(&here, Duration::from_millis(200));
    assert_eq!(late.expect_err("nobody new is let in"), Outcome::NotConnected);
    held.release();
    assert_eq!(kept.response().expect("it was in hand").status, 200);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    let log = server.log();
    assert!(!log.contains("failed to refuse new connections"), "{log}");
}

fn server_at(address: &Address) -> u16 {
    let mut connection = Connection::open(address).expect("somebody listens there");
    connection.get("/").expect("it is answered").status
}

/// A client that comes late in a stop can go to another replica: it is refused, whatever still holds
/// the listeners.
#[test]
fn new_clients_are_refused_while_a_stop_waits_for_a_request() {
    for stands_still in [false, true] {
        let mut server = Ferricorn::unruly().config("workers = 2").start();
        let mut connection = server.connect();
        let held = Held::begin(&server, &mut connection, 0);
        let client = connection.local_v4();
        let (_, other) = eventually("a worker without it", PATIENCE, || {
            let workers = server.workers().into_iter();
            let mut others =
                workers.filter(|(_, pid)| !proc::accepted_clients(*pid).contains(&client));
            others.next()
        });
        if stands_still {
            freeze(other);
        }
        let mut waiting = server.connect();
        waiting.send(get("/")).expect("it is open");
        let told = Instant::now();
        server.signal(Signal::SIGTERM);
        eventually("a client is refused", PATIENCE, || {
            let tried = Connection::open_within(&server.address(), Duration::from_millis(50));
            matches!(tried, Err(Outcome::Refused)).then_some(())
        });
        println!("refused {:?} after TERM", told.elapsed());
        assert!(!server.workers().is_empty(), "the stop waits");
        assert_eq!(waiting.response().expect("it came before the stop").status, 200);
        held.release();
        assert_eq!(connection.response().expect("it was accepted").status, 200);
        if stands_still {
            send(other, Signal::SIGCONT);
        }
        assert_eq!(server.wait_exit(), Exit::Code(0));
        let log = server.log();
        assert!(!log.contains("[ERROR]"), "{log}");
    }
}
