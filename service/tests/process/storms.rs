//! Events in rows while clients count: who may lose a request, and how long anybody waits.
//!
//! The bounds on waiting are those that are promised where the program is built to be fast
//! (`--release`). Elsewhere they are far above what a quiet machine shows (the figures are printed),
//! and far below what a server shows that leaves a queue to a worker that cannot drain it.

use std::collections::HashSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::client::get;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load, Request, Tally};
use crate::log_figures::figure;
use crate::proc;

/// The time that any client may wait, by what is promised, or where the program is not built to be fast.
fn longest_allowed(promised_ms: u64, otherwise_ms: u64) -> Duration {
    Duration::from_millis(if cfg!(debug_assertions) { otherwise_ms } else { promised_ms })
}

/// Stops a process and waits until it stands still.
pub(crate) fn freeze(pid: i32) {
    send(pid, Signal::SIGSTOP);
    eventually("it stands still", PATIENCE, || {
        (proc::stat(pid).expect("it is not reaped").state == 'T').then_some(())
    });
}

/// A process that was killed: when, and whose connections it had.
pub(crate) struct Kill {
    at: Instant,
    /// A client may send to it until then.
    gone: Instant,
    clients: HashSet<SocketAddrV4>,
}

impl Kill {
    /// Kills the process. It is stopped before, so that what it holds can be told.
    pub(crate) fn now(victim: i32) -> Self {
        Self::of_all(&[victim])
    }

    /// Kills these processes. They are stopped before, the first one first.
    pub(crate) fn of_all(victims: &[i32]) -> Self {
        victims.iter().for_each(|victim| freeze(*victim));
        let clients = victims.iter().flat_map(|victim| proc::accepted_clients(*victim)).collect();
        let at = Instant::now();
        victims.iter().for_each(|victim| send(*victim, Signal::SIGKILL));
        let are_gone = || victims.iter().all(|victim| !proc::is_alive(*victim));
        eventually("they are gone", PATIENCE, || are_gone().then_some(()));
        Self { at, gone: Instant::now(), clients }
    }

    /// Returns true if the request was in the hands of the killed process. A port may be used again
    /// later.
    pub(crate) fn explains(&self, request: &Request) -> bool {
        let Some(SocketAddr::V4(client)) = request.client else { return false };
        let is_in_time = request.begun <= self.gone && self.at <= request.ended;
        is_in_time && self.clients.contains(&client)
    }
}

/// One worker after another is killed. Each request that fails was in the hands of a process that was
/// killed: nobody is refused, and nobody is reset in a queue.
#[test]
fn kills_lose_exactly_what_the_killed_had_accepted() {
    let _alone = crate::machine::alone();
    // More workers than usual: one that dies early again and again is replaced ever later.
    let server = Ferricorn::unruly().config("workers = 12").start();
    let slow = get("/slow?ms=20");
    let crowds = [
        Crowd { count: 20, client: Client::PerRequest, request: slow, status: 200 },
        Crowd::get(2, Client::PerRequest),
    ];
    let load = Load::begin(&server.address(), &crowds);
    let mut kills = Vec::new();
    for round in 0..48_u16 {
        load.wait_for_more(200);
        let slot = round * 5 % 12;
        let victim = server.worker(slot);
        kills.push(Kill::now(victim));
    }
    load.wait_for_more(100);
    assert_explained(load.finish(), &kills);
    server.stop();
}

/// Every request that failed was in the hands of a killed process, and nobody was refused.
#[expect(clippy::print_stdout, reason = "figures for who looks at them")]
pub(crate) fn assert_explained(tally: Tally, kills: &[Kill]) {
    let failed: Vec<_> =
        tally.requests.iter().filter(|request| request.failure.is_some()).collect();
    let unexplained: Vec<_> =
        failed.iter().filter(|failed| !kills.iter().any(|kill| kill.explains(failed))).collect();
    let held: usize = kills.iter().map(|kill| kill.clients.len()).sum();
    println!(
        "{} kills: {} answered, {} lost of {held} held",
        kills.len(),
        tally.answered,
        failed.len()
    );
    assert!(unexplained.is_empty(), "lost by nobody's death: {unexplained:?}");
    assert_eq!(failed.len() as u64, tally.failures(), "somebody was refused: {:?}", tally.failed);
}

/// The longest wait among the requests that no frozen process had in its hands.
fn longest_wait(tally: &Tally, held: &HashSet<SocketAddrV4>, since: Instant) -> Duration {
    let free = |request: &&Request| {
        let SocketAddr::V4(client) = request.client.expect("over TCP") else { return true };
        !held.contains(&client)
    };
    let during = tally.requests.iter().filter(|request| request.ended >= since).filter(free);
    during.map(Request::took).max().expect("some were answered")
}

/// A worker stands still for two seconds. Who had a connection to it waits; nobody else does, however
/// long it stands still: its slot is not given back to it before it runs.
#[test]
fn only_the_clients_of_a_stopped_worker_wait_for_it() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly().start();
    let load = Load::begin(&server.address(), &[Crowd::get(16, Client::PerRequest)]);
    load.wait_for_more(500);
    let stopped = server.worker(1);
    let since = Instant::now();
    freeze(stopped);
    let held = proc::accepted_clients(stopped);
    while since.elapsed() < Duration::from_secs(2) {
        load.wait_for_more(50);
    }
    assert_eq!(server.worker(1), stopped, "it is not replaced for two seconds of silence");
    send(stopped, Signal::SIGCONT);
    load.wait_for_more(100);
    let tally = load.finish();
    tally.assert_clean();
    let longest = longest_wait(&tally, &held, since);
    println!("a stopped worker held {}; the others waited {longest:?} at most", held.len());
    assert!(longest < longest_allowed(50, 1000), "somebody waited for it for {longest:?}");
    server.stop();
}

/// All that wait in the queue of a worker that stands still are answered by its siblings, at once.
#[test]
fn a_queue_behind_a_stopped_worker_is_taken_over_at_once() {
    let _alone = crate::machine::alone();
    let rounds = u16::try_from(figure("FIGURE_ROUNDS", 8)).expect("few");
    let longest = queues_behind_stopped_workers(rounds);
    println!("100 connections beside a stopped worker: connected and answered within {longest:?}");
    assert!(longest < longest_allowed(50, 2000), "somebody waited for {longest:?}");
}

/// Stops so many workers in turn, and opens 100 connections while one stands still; the longest time
/// until all of them were answered.
fn queues_behind_stopped_workers(rounds: u16) -> Duration {
    let server = Ferricorn::unruly().start();
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let stopped = server.worker(round % 4);
        freeze(stopped);
        let begun = Instant::now();
        let mut waiting: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for connection in &mut waiting {
            connection.send(get("/")).expect("it is open");
        }
        for connection in &mut waiting {
            assert_ne!(connection.response().expect("it is answered").pid(), stopped);
        }
        longest = longest.max(begun.elapsed());
        send(stopped, Signal::SIGCONT);
        drop(waiting);
        eventually("it answers again", PATIENCE, || {
            (server.get("/").expect("it serves").pid() == stopped).then_some(())
        });
    }
    server.stop();
    longest
}

/// The time that a worker takes to boot, in milliseconds: long beside whatever else makes a client
/// wait, on a machine of any speed.
const BOOT_MS: u64 = if cfg!(debug_assertions) { 2000 } else { 400 };

/// A slot is without a worker for 400 ms: its siblings accept for it, so that nobody waits so long.
#[test]
fn nobody_waits_for_a_slot_without_a_worker() {
    let _alone = crate::machine::alone();
    let longest = slots_without_a_worker();
    println!("a slot without a worker for {BOOT_MS} ms: nobody waited for more than {longest:?}");
    assert!(longest < longest_allowed(50, 1500), "somebody waited for the boot: {longest:?}");
}

/// Each slot in turn is without a worker for [`BOOT_MS`]; the longest time that anybody waited whose
/// request the killed worker did not hold.
fn slots_without_a_worker() -> Duration {
    let server = Ferricorn::unruly().env("UNRULY_BOOT_FILE", "boot").file("boot", "").start();
    std::fs::write(server.folder().join("boot"), format!("slow={BOOT_MS}")).expect("it is ours");
    let mut longest = Duration::ZERO;
    for slot in 0..4 {
        let victim = server.worker(slot);
        let load = Load::begin(&server.address(), &[Crowd::get(16, Client::PerRequest)]);
        let kill = Kill::now(victim);
        let successor = eventually("a successor", PATIENCE, || {
            let workers = server.workers();
            workers.into_iter().find(|(it, pid)| *it == slot && *pid != victim)
        });
        eventually("it answers", PATIENCE, || {
            server.get("/").is_ok_and(|server| server.pid() == successor.1).then_some(())
        });
        assert!(kill.at.elapsed() >= Duration::from_millis(BOOT_MS), "it has booted too soon");
        let tally = load.finish();
        longest = longest.max(longest_wait(&tally, &kill.clients, kill.at));
        assert_explained(tally, &[kill]);
    }
    server.stop();
    longest
}

/// Two clients block the loops of their workers for 100 ms at a time. A server that leaves a queue to
/// its own worker makes others wait for about as long.
#[test]
fn fast_requests_seldom_wait_for_a_blocked_loop() {
    let _alone = crate::machine::alone();
    let waits = fast_ones_beside_blocked_loops();
    // Where queues wait for blocked loops, one in five waits for 50 ms and longer.
    let seldom = waits.percentile(if cfg!(debug_assertions) { 0.9 } else { 0.99 });
    assert!(seldom < longest_allowed(25, 50), "{seldom:?}: they wait for blocked loops");
}

/// Sixteen fast clients beside two that block a loop for 100 ms with each request.
#[expect(clippy::print_stdout, reason = "figures for who looks at them")]
fn fast_ones_beside_blocked_loops() -> Tally {
    let server = Ferricorn::unruly().start();
    let block = Client::PerRequest;
    let blocking = Crowd { count: 2, client: block, request: get("/block?ms=100"), status: 200 };
    let blockers = Load::begin(&server.address(), &[blocking]);
    let load = Load::begin(&server.address(), &[Crowd::get(16, Client::PerRequest)]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        load.wait_for_more(50);
    }
    let tally = load.finish();
    blockers.finish().assert_clean();
    tally.assert_clean();
    let [p50, p99] = [0.5, 0.99].map(|share| tally.percentile(share));
    println!(
        "beside two clients that block: {} fast ones, p50 {p50:?}, p99 {p99:?}",
        tally.answered
    );
    server.stop();
    tally
}

/// Everything that the kernel has let in before a stop is answered, also what no worker has seen yet.
#[test]
fn a_stop_answers_everything_that_waits_in_the_queues() {
    let server = Ferricorn::unruly().start();
    let workers = server.wait_workers(4);
    workers.iter().for_each(|(_, pid)| freeze(*pid));
    let mut waiting: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for connection in &mut waiting[..100] {
        connection.send(get("/")).expect("it is open");
    }
    server.signal(Signal::SIGTERM);
    server.wait_event("stop_started", &[]);
    for connection in &mut waiting[100..] {
        connection.send(get("/")).expect("it is open");
    }
    workers.iter().for_each(|(_, pid)| send(*pid, Signal::SIGCONT));
    for connection in &mut waiting {
        assert_eq!(connection.response().expect("it was let in before the stop").status, 200);
    }
    server.stop();
}

/// Stop after stop under load, with clients of every kind: whoever is let in is answered.
#[test]
fn stops_in_a_row_cut_nobody_off() {
    let _alone = crate::machine::alone();
    let pause = Duration::from_millis(3);
    let crowds = [
        Crowd::get(16, Client::KeepAlive { pause, watches: false }),
        Crowd::get(16, Client::KeepAlive { pause, watches: true }),
        Crowd::get(16, Client::PerRequest),
    ];
    let mut answered = 0;
    for _ in 0..10 {
        let server = Ferricorn::unruly().start();
        let load = Load::begin(&server.address(), &crowds);
        load.wait_for_more(500);
        let told = Instant::now();
        server.stop();
        let tally = load.finish();
        let cut = tally.cut_off(told);
        assert!(cut.is_empty(), "cut off: {cut:?}");
        answered += tally.answered;
    }
    println!("10 stops under load: {answered} answered, nobody cut off");
}
