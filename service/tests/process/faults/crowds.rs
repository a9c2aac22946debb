//! Deaths in numbers: kills in a row, and four workers that cannot live. The master must neither grow
//! nor burn a processor, and a killed worker is missed for a moment only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::scene::settled;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

/// The number of kills, unless it is given: `FIGURE_KILLS=1000 cargo test --release
/// --test process kills_in_a_row -- --nocapture` takes a thousand.
const KILLS: usize = 200;
/// The kills after which the master has all the memory that it will ever need.
const SETTLED: usize = 20;
/// Pages that the allocator may take or leave, however many kills there are.
const GROWTH_MAX_KIB: u64 = 256;

/// Random workers are killed, each as soon as the one before is replaced: the master has no descriptor
/// and no memory more, and the replacement serves soon.
#[test]
fn kills_in_a_row_leave_no_trace_and_are_soon_made_good() {
    let _alone = crate::machine::alone();
    let kills = std::env::var("FIGURE_KILLS").map_or(KILLS, |value| value.parse().unwrap());
    // Of a slot whose workers are killed without end the other levels say less.
    let server = Ferricorn::unruly().config("[log]\nlevel = \"debug\"").start();
    let seed = rand::rng().random();
    let mut dice = StdRng::seed_from_u64(seed);
    let mut times = Vec::new();
    let mut at_first = None;
    for kill in 0..kills {
        if kill == SETTLED {
            settled(&server, 4);
            at_first = Some(size_of_master(&server));
        }
        let slot = dice.random_range(0..4);
        let victim = server.worker(slot);
        let begun = Instant::now();
        send(victim, Signal::SIGKILL);
        wait_served(&server, slot, victim);
        times.push(begun.elapsed());
    }
    server.wait_served_by(&settled(&server, 4));
    let (descriptors, memory) = at_first.expect("more kills than it takes to settle");
    eventually("no descriptor more", PATIENCE, || {
        (proc::descriptors_but_rings(server.pid()) <= descriptors).then_some(())
    });
    let (_, now) = size_of_master(&server);
    // Whose workers are killed without end waits for the back-off.
    let mut first = times[..times.len().min(KILLS)].to_vec();
    first.sort_unstable();
    let of_first = first[(first.len() * 99 / 100).min(first.len() - 1)];
    println!("of the first {}: p99 {of_first:?}", first.len());
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!(
        "{kills} kills (seed {seed}), killed to served by the replacement: min {:?}, p50 {:?}, \
         p90 {:?}, p99 {:?}, max {:?}",
        times[0],
        at(50),
        at(90),
        at(99),
        times[times.len() - 1],
    );
    println!("master: {descriptors} descriptors, {memory} KiB of its own after {SETTLED} kills");
    println!("master: as many descriptors, {now} KiB of its own after {kills} kills");
    assert!(now <= memory + GROWTH_MAX_KIB, "{memory} KiB have become {now} KiB");
    // Without optimization it is another program; but nobody waits for a back-off there either.
    let most = if cfg!(debug_assertions) { 2000 } else { 20 };
    assert!(of_first <= Duration::from_millis(most), "p99 {of_first:?} of {KILLS}");
    eventually("each of them is told", PATIENCE, || {
        (server.log().matches("died: ended by signal 9 (KILL)").count() == kills).then_some(())
    });
    server.stop();
}

/// Descriptors, and KiB that are the master's own.
fn size_of_master(server: &Ferricorn) -> (usize, u64) {
    // The rings of log lines are as large as they are, however much of them was used by now.
    let memory = proc::private_kib_but(server.pid(), "ferricorn-rings").expect("it lives");
    (proc::descriptors_but_rings(server.pid()), memory)
}

/// Asks without a pause until the slot's new worker answers.
fn wait_served(server: &Ferricorn, slot: u16, victim: i32) {
    let deadline = Instant::now() + PATIENCE;
    // Who comes while the worker dies may have been in its hands.
    let fresh =
        || server.get("/").is_ok_and(|server| server.slot() == slot && server.pid() != victim);
    while !fresh() {
        assert!(Instant::now() < deadline, "slot {slot} is not served again");
    }
}

/// Deaths in a row of each slot after which its forks are counted, and for how long.
const DEATHS: usize = 10;
const WINDOW: Duration = Duration::from_secs(8);

/// No worker can boot any more: the master tries on, at a rate that costs nothing, and all is well as
/// soon as it can be.
#[test]
fn a_crash_loop_of_all_workers_costs_next_to_nothing() {
    let _alone = crate::machine::alone();
    let server = Ferricorn::unruly()
        .config("[log]\nlevel = \"debug\"")
        .env("UNRULY_BOOT_FILE", "boot")
        .file("boot", "")
        .start();
    let workers = settled(&server, 4);
    std::fs::write(server.folder().join("boot"), "exit").unwrap();
    workers.iter().for_each(|(_, pid)| send(*pid, Signal::SIGKILL));
    let before = eventually("ten deaths of every slot", 2 * PATIENCE, || {
        let deaths = deaths(&server);
        (deaths.len() == 4 && deaths.values().all(|death| *death >= DEATHS)).then_some(deaths)
    });
    let begun = Instant::now();
    let used = nanos(&server);
    eventually("the time has passed", PATIENCE, || (begun.elapsed() >= WINDOW).then_some(()));
    let passed = begun.elapsed();
    let used = nanos(&server) - used;
    let after = deaths(&server);
    let share = used as f64 / passed.as_nanos() as f64 * 100.0;
    let forks: BTreeMap<u16, usize> =
        after.iter().map(|(slot, count)| (*slot, count - before[slot])).collect();
    println!(
        "crash loop of four: in {passed:?} {forks:?} forks a slot, master {share:.3} % of a core"
    );
    assert!(share < 1.0, "the master used {share:.3} % of a core");
    let most = usize::try_from(passed.as_secs()).unwrap();
    assert!(forks.values().all(|count| (1..=most).contains(count)), "{forks:?} in {passed:?}");
    std::fs::write(server.folder().join("boot"), "").unwrap();
    let mended = Instant::now();
    server.wait_served_by(&settled(&server, 4));
    println!("crash loop of four: all serve {:?} after it was mended", mended.elapsed());
    server.stop();
}

/// Nanoseconds of a processor that the master has used.
fn nanos(server: &Ferricorn) -> u64 {
    proc::processor_nanos(server.pid()).expect("the master lives")
}

/// Boots that failed, by slot.
fn deaths(server: &Ferricorn) -> BTreeMap<u16, usize> {
    let mut deaths = BTreeMap::new();
    for line in server.log().lines().filter(|line| line.contains("failed to boot: exited")) {
        let slot = line.split("worker ").nth(1).and_then(|rest| rest.split(' ').next());
        let slot =
            slot.and_then(|slot| slot.parse().ok()).expect("a line about a worker names its slot");
        *deaths.entry(slot).or_default() += 1;
    }
    deaths
}
