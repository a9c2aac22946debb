//! Every two signals, one behind the other and both at once: at rest, during a reload, during an
//! upgrade. Each ends in the state that the table says, and in no other.
//!
//! Gates make the moment certain: a reload waits in its `prepare`, an upgrade in its check, until both
//! signals have been obeyed. What the simulation tries at every other moment is not tried again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually};
use crate::{disk, proc};

use Signal::{SIGHUP as HUP, SIGINT as INT, SIGQUIT as QUIT, SIGTERM as TERM, SIGTTIN as TTIN};
use Signal::{SIGTTOU as TTOU, SIGUSR1 as USR1, SIGUSR2 as USR2, SIGWINCH as WINCH};

const SIGNALS: [Signal; 9] = [HUP, USR2, USR1, TERM, INT, QUIT, TTIN, TTOU, WINCH];

const GRACEFULLY: &str = "stopping: workers may finish for 30 s";
const QUICKLY: &str = "stopping quickly";

/// Workers in the file.
const WORKERS: u16 = 2;
/// Masters that live side by side.
const SIDE_BY_SIDE: usize = 8;

/// The undertaking during which the two come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Rest,
    Reload,
    Upgrade,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// The second is sent when the first is delivered.
    InOrder,
    /// Both come before the master has obeyed any; the kernel chooses which is delivered first.
    AtOnce,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    moment: Moment,
    how: How,
    pair: [Signal; 2],
}

/// The end of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct End {
    stopped: bool,
    /// Workers, when it has not stopped.
    workers: u16,
    reloads: usize,
    upgrades: usize,
    /// Lines about how urgently it stops, in their order; the first is certain.
    stops: Vec<String>,
    /// Lines about signals that were refused or changed a number, in their order.
    said: Vec<String>,
    /// So many of them come before it stops; whether it hears of what comes later, nobody knows.
    certain: usize,
}

/// The contract: what this sequence of signals makes of a server at rest whose reloads and upgrades end
/// after the last of them.
fn expected(signals: &[Signal]) -> End {
    let mut end = End { workers: WORKERS, ..End::default() };
    let mut reload = false;
    let mut again = false;
    let mut upgrade = false;
    let resize = |end: &mut End, to: u16| {
        if to == end.workers {
            return;
        }
        end.said.push(format!("workers: {} -> {to}", end.workers));
        end.workers = to;
    };
    for &signal in signals {
        let ignored = |why| format!("ignoring {}: {why}", &signal.as_str()[3..]);
        match signal {
            TERM if end.stopped => {}
            INT | QUIT if end.stops.iter().any(|stop| stop == QUICKLY) => {}
            TERM | INT | QUIT => {
                end.stops.push(if signal == TERM { GRACEFULLY } else { QUICKLY }.to_owned());
                if !end.stopped {
                    (end.stopped, end.certain) = (true, end.said.len());
                }
            }
            WINCH => end.said.push(ignored("it is not a daemon's terminal")),
            USR1 => {}
            _ if end.stopped => end.said.push(ignored("the server is stopping")),
            HUP if reload || upgrade => again = true,
            HUP => reload = true,
            USR2 if reload => end.said.push(ignored("a reload is under way")),
            USR2 if upgrade => end.said.push(ignored("an upgrade is under way")),
            USR2 => upgrade = true,
            TTIN => {
                let more = end.workers + 1;
                resize(&mut end, more);
            }
            TTOU if end.workers == 1 => {
                end.said.push("workers: 1 is as far as it goes".to_owned());
            }
            TTOU => {
                let fewer = end.workers - 1;
                resize(&mut end, fewer);
            }
            other => unreachable!("{other} is not among those that are sent"),
        }
    }
    if !end.stopped {
        // Whatever comes during an upgrade is part of the reload behind it.
        end.reloads = usize::from(reload || upgrade) + usize::from(reload && again);
        end.upgrades = usize::from(upgrade);
        if end.reloads > 0 {
            resize(&mut end, WORKERS);
        }
    }
    end
}

fn prefix(moment: Moment) -> &'static [Signal] {
    match moment {
        Moment::Rest => &[],
        Moment::Reload => &[HUP],
        Moment::Upgrade => &[USR2],
    }
}

/// A server whose binary on disk is a script: its check waits for as long as there is a `hold`.
fn gated() -> Ferricorn {
    let builder = Ferricorn::unruly()
        .config(&format!("workers = {WORKERS}"))
        .env("UNRULY_PREPARE_FILE", "prepare")
        .file("prepare", "");
    let real = builder.binary().display().to_string();
    let server = disk::started_by_link(builder).start();
    disk::put_script(
        server.folder(),
        &format!(
            "while [ -n \"$FERRICORN_INTERNAL_CHECK\" ] && [ -e hold ]; do sleep 0.01; done\n\
             exec {real} \"$@\""
        ),
    );
    server
}

/// Waits until the master has obeyed every signal that it was sent: none is pending, and it sleeps,
/// which it does nowhere but where it waits for the next. One that has ended has obeyed, too.
fn settle(server: &Ferricorn, signals: &[Signal]) {
    let pid = server.pid();
    eventually("the signals are obeyed", PATIENCE, || {
        let delivered = !signals.iter().any(|&signal| proc::is_pending(pid, signal as i32));
        let rests = proc::stat(pid).is_none_or(|stat| matches!(stat.state, 'S' | 'Z' | 'X'));
        (delivered && rests).then_some(())
    });
}

fn send_in_order(server: &Ferricorn, signals: &[Signal]) {
    for &signal in signals {
        server.signal(signal);
        settle(server, &[signal]);
    }
}

fn send_at_once(server: &Ferricorn, signals: &[Signal]) {
    // A process that is continued forgets the `TTIN` and `TTOU` that came while it stood still (POSIX).
    let may_stop = !signals.iter().any(|signal| [TTIN, TTOU].contains(signal));
    if may_stop {
        server.signal(Signal::SIGSTOP);
        eventually("it stands still", PATIENCE, || {
            (proc::stat(server.pid())?.state == 'T').then_some(())
        });
    }
    signals.iter().for_each(|&signal| server.signal(signal));
    if may_stop {
        server.signal(Signal::SIGCONT);
    }
    settle(server, signals);
}

/// Waits until there are so many workers and all of them answer, and nobody else: one that is leaving,
/// or is not there yet, may look like the one that stays.
fn settled_workers(server: &Ferricorn, count: u16) -> Vec<(u16, i32)> {
    eventually("the workers have settled", PATIENCE, || {
        let workers = server.workers();
        let answers = (0..count * 8).map(|_| server.get("/").expect("it serves"));
        let mut answered: Vec<_> = answers.map(|answer| (answer.slot(), answer.pid())).collect();
        answered.sort_unstable();
        answered.dedup();
        let right = workers.iter().map(|(slot, _)| *slot).eq(0..count) && answered == workers;
        (right && server.workers() == workers).then_some(workers)
    })
}

/// Tries one case and answers how it ended.
fn ended(case: Case) -> End {
    let mut server = gated();
    let before = server.wait_workers(WORKERS);
    std::fs::write(server.folder().join("prepare"), "held").expect("the folder is ours");
    std::fs::write(server.folder().join("hold"), "").expect("the folder is ours");
    send_in_order(&server, prefix(case.moment));
    match case.how {
        How::InOrder => send_in_order(&server, &case.pair),
        How::AtOnce => send_at_once(&server, &case.pair),
    }
    let wanted = expected(&[prefix(case.moment), &case.pair[..]].concat());
    if wanted.stopped {
        assert_eq!(server.wait_exit(), Exit::Code(0), "{case:?}");
        return End { workers: wanted.workers, ..read(&server) };
    }
    std::fs::remove_file(server.folder().join("hold")).expect("it is there");
    std::fs::write(server.folder().join("prepare"), "").expect("the folder is ours");
    eventually("reloads and upgrades are over", PATIENCE, || {
        let now = read(&server);
        (now.reloads >= wanted.reloads && now.upgrades >= wanted.upgrades).then_some(())
    });
    let after = settled_workers(&server, wanted.workers);
    let old = after.iter().any(|worker| before.contains(worker));
    assert_eq!(old, wanted.reloads == 0, "{case:?}: {before:?} have become {after:?}");
    assert!(server.is_running(), "{case:?} has ended it");
    server.signal(TERM);
    assert_eq!(server.wait_exit(), Exit::Code(0), "{case:?}");
    // The log is whole now, and nothing else was begun meanwhile.
    let begun = server.log().matches("reloading: generation").count();
    assert_eq!(begun, wanted.reloads, "{case:?}");
    End { workers: wanted.workers, stopped: false, stops: Vec::new(), ..read(&server) }
}

/// Returns the log's words; the number of workers is not among them.
fn read(server: &Ferricorn) -> End {
    let log = server.log();
    for bad in ["[ERROR]", "[CRITICAL]", "panicked", "failed to"] {
        assert!(!log.contains(bad), "{log}");
    }
    let count = |text: &str| log.matches(text).count();
    let tells = |text: &str| ["ignoring ", "workers: "].into_iter().any(|it| text.starts_with(it));
    let message = |line: &str| line.splitn(4, "] ").nth(3).map(str::to_owned);
    let messages: Vec<String> = log.lines().filter_map(message).collect();
    let stops: Vec<String> =
        messages.iter().filter(|message| message.starts_with("stopping")).cloned().collect();
    End {
        stopped: !stops.is_empty(),
        stops,
        workers: 0,
        reloads: count("reloaded: generation"),
        upgrades: count("Upgraded in place"),
        said: messages.into_iter().filter(|message| tells(message)).collect(),
        certain: 0,
    }
}

/// Both orders, where the kernel chooses.
fn allowed(case: Case) -> Vec<End> {
    let [first, second] = case.pair;
    let orders: &[[Signal; 2]] = match case.how {
        How::InOrder => &[[first, second]],
        How::AtOnce => &[[first, second], [second, first]],
    };
    orders.iter().map(|pair| expected(&[prefix(case.moment), &pair[..]].concat())).collect()
}

fn check(case: Case) {
    let end = ended(case);
    let allowed = allowed(case);
    let holds = |wanted: &End| {
        if !wanted.stopped {
            return end == *wanted;
        }
        let said = wanted.said.starts_with(&end.said) && end.said.len() >= wanted.certain;
        // Nobody else may make it stop more urgently: least of all the check of an upgrade.
        let stops = wanted.stops.starts_with(&end.stops) && !end.stops.is_empty();
        said && stops && (end.stopped, end.reloads) == (true, 0)
    };
    assert!(allowed.iter().any(holds), "{case:?} ended as {end:?}, not as any of {allowed:?}");
}

#[expect(clippy::print_stdout, reason = "figures are printed to be read")]
fn check_all(moment: Moment) {
    let each = SIGNALS.iter().enumerate();
    let in_order = each.clone().flat_map(|(_, &first)| {
        SIGNALS.map(|second| Case { moment, how: How::InOrder, pair: [first, second] })
    });
    let at_once = each.flat_map(|(at, &first)| {
        let others = SIGNALS.iter().skip(at + 1);
        others.map(move |&second| Case { moment, how: How::AtOnce, pair: [first, second] })
    });
    let cases: Vec<Case> = in_order.chain(at_once).collect();
    assert_eq!(cases.len(), 81 + 36);
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(*case);
                }
            });
        }
    });
    println!("{} pairs, {moment:?}: {:?}", cases.len(), begun.elapsed());
}

/// Between its fork and its own image the check of an upgrade has the master's handlers: what it is sent
/// there must not be taken for the master's.
#[test]
fn a_stop_right_behind_an_upgrade_is_as_graceful_as_it_was_told_to_be() {
    for _ in 0..12 {
        let mut server = Ferricorn::unruly().config("workers = 1").start();
        server.signal(USR2);
        eventually("its check is forked", PATIENCE, || {
            (proc::children(server.pid()).len() > 2).then_some(())
        });
        server.signal(TERM);
        assert_eq!(server.wait_exit(), Exit::Code(0));
        assert_eq!(read(&server).stops, [GRACEFULLY]);
    }
}

#[test]
fn every_two_signals_at_rest_end_as_the_table_says() {
    check_all(Moment::Rest);
}

#[test]
fn every_two_signals_during_a_reload_end_as_the_table_says() {
    check_all(Moment::Reload);
}

#[test]
fn every_two_signals_during_an_upgrade_end_as_the_table_says() {
    check_all(Moment::Upgrade);
}
