//! The cost and the losses of the logs, as figures. In the suite each test is short and asserts what
//! holds on any machine; in full length, alone, it is run by its name, prints, and asserts the figures
//! too (the examples must have been built with the same profile: `cargo build --release --examples`):
//!
//! ```text
//! FIGURE_RATE=5000 FIGURE_SECONDS=60 FIGURE_CLIENTS=16 cargo test --release --test process \
//!     a_freeze_is_not_felt -- --nocapture
//! FIGURE_REQUESTS=100000 cargo test --release --test process \
//!     every_request_has_a_line_although_workers_are_killed -- --nocapture
//! FIGURE_LINES=100000 cargo test --release --test process lines_of_64_kib -- --nocapture
//! cargo test --release --test process a_logger_at_rest -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Address, Connection};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::numbered::{BLOCK, Numbered, Said, is_of_dropped_lines};

/// A length that the environment may change.
pub(crate) fn figure(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("it is a number"))
}

/// Returns true if this length is the one of the figures, and the program that of the users.
pub(crate) fn is_in_full_length(name: &str) -> bool {
    std::env::var_os(name).is_some() && !cfg!(debug_assertions)
}

/// A pipe whose reader stops while another thread holds the gate.
struct Gated {
    reader: PipeReader,
    gate: Arc<Mutex<()>>,
}

impl Read for Gated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        drop(self.gate.lock().expect("nobody panics with it"));
        self.reader.read(buffer)
    }
}

/// Lines of each process, and lines that each has lost, as the log says; torn ones.
#[derive(Debug, Default)]
struct Account {
    lines: BTreeMap<i64, u64>,
    lost: BTreeMap<i64, u64>,
    gaps: u64,
    torn: u64,
}

impl Account {
    fn read(log: impl Read) -> Self {
        let mut account = Self::default();
        for line in BufReader::new(log).lines() {
            let line = line.expect("lines are text");
            let Ok(line) = serde_json::from_str::<Value>(&line) else {
                account.torn += 1;
                continue;
            };
            if is_of_dropped_lines(&line) {
                let lost =
                    account.lost.entry(line["process"].as_i64().expect("a pid")).or_default();
                *lost += line["lines"].as_u64().expect("a number of lines");
                account.gaps += 1;
            } else if line["path"] == "/" {
                *account.lines.entry(line["pid"].as_i64().expect("a pid")).or_default() += 1;
            }
        }
        account
    }
}

/// One answer: when it was due to be asked for, when it had come, and from whom.
struct Answer {
    due: Instant,
    came: Instant,
    pid: i64,
}

/// Asks when it is time, or, when it is late, at once: a delay does not lessen what is asked for.
fn ask_in_time(
    (address, request): (&Address, &str),
    begun: Instant,
    every: Duration,
    count: u32,
) -> Vec<Answer> {
    let mut connection = Connection::open(address).expect("it serves");
    let ask = |number| {
        let due = begun + every * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        connection.send(request).expect("it reads");
        let answer = connection.response().expect("it answers");
        assert_eq!(answer.status, 200);
        Answer { due, came: Instant::now(), pid: answer.pid().into() }
    };
    (0..count).map(ask).collect()
}

/// The latencies, from when a request was due: median, p99, the longest; and the longest time between
/// two answers.
fn summary(answers: &[&Answer]) -> [Duration; 4] {
    let mut took: Vec<_> =
        answers.iter().map(|answer| answer.came.duration_since(answer.due)).collect();
    let mut came: Vec<_> = answers.iter().map(|answer| answer.came).collect();
    took.sort_unstable();
    came.sort_unstable();
    let gap = came.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
    [at(50), at(99), took.last().copied().unwrap_or_default(), gap]
}

/// Requests at a fixed rate while stdout is read, is not, is again, and goes on to be. The first and the
/// last are the run without a freeze, twice: how much they differ is the machine's own doing.
#[test]
fn a_freeze_is_not_felt_and_each_gap_is_counted() {
    let _alone = crate::machine::alone();
    let rate = figure("FIGURE_RATE", 400);
    let seconds = figure("FIGURE_SECONDS", 1);
    let clients = u32::try_from(figure("FIGURE_CLIENTS", 4)).expect("a few");
    let phase = Duration::from_secs(seconds);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let config = "workers = 4\n[log]\naccess_format = \"json\"\nformat = \"json\"\n";
    let server = Ferricorn::unruly().config(config).stdout(writer).start();
    let address = server.address();
    let gate = Arc::new(Mutex::new(()));
    let count = u32::try_from(rate * seconds * 4 / u64::from(clients)).expect("not so many");
    let every = Duration::from_secs(1) * clients / u32::try_from(rate).expect("not so many");
    // However short it is, the rings are too small for what is asked while it is frozen.
    let length = usize::try_from((12 << 20) / (rate * seconds)).expect("few").clamp(100, 8000);
    let agent = "A".repeat(length);
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nuser-agent: {agent}\r\n\r\n");
    let begun = Instant::now();
    let (answers, account) = std::thread::scope(|scope| {
        let gated = Gated { reader, gate: Arc::clone(&gate) };
        let account = scope.spawn(|| Account::read(gated));
        let clients: Vec<_> = (0..clients)
            .map(|client| {
                let begun = begun + every * client / clients;
                scope.spawn({
                    let whom = (&address, &*request);
                    move || ask_in_time(whom, begun, every, count)
                })
            })
            .collect();
        std::thread::sleep((begun + phase).saturating_duration_since(Instant::now()));
        let frozen = gate.lock().expect("nobody panics with it");
        std::thread::sleep((begun + 2 * phase).saturating_duration_since(Instant::now()));
        drop(frozen);
        let answers: Vec<Answer> =
            clients.into_iter().flat_map(|it| it.join().expect("a client ends")).collect();
        server.stop();
        (answers, account.join().expect("the reader does not panic"))
    });
    let mut tails = Vec::new();
    let phases = [("read", 0..1), ("frozen", 1..2), ("read again", 2..3), ("read on", 3..u64::MAX)];
    for (name, phases) in phases {
        let of = |answer: &&Answer| {
            phases.contains(&(answer.due.duration_since(begun).as_secs() / seconds.max(1)))
        };
        let of: Vec<_> = answers.iter().filter(of).collect();
        let [p50, p99, max, gap] = summary(&of);
        println!("{name}: {} answers, p50 {p50:?} p99 {p99:?} max {max:?} gap {gap:?}", of.len());
        tails.push(p99);
    }
    let [.., gap] = summary(&answers.iter().collect::<Vec<_>>());
    println!("all of it: gap {gap:?}");
    if is_in_full_length("FIGURE_SECONDS") {
        assert!(gap <= Duration::from_millis(20), "nobody was answered for {gap:?}");
        let without = tails[0].max(tails[3]);
        let within = |tail: &Duration| tail.as_secs_f64() <= without.as_secs_f64() * 1.05;
        assert!(tails.iter().all(within), "the freeze is felt: {tails:?}");
    }
    let lines = account.lines.values().sum::<u64>();
    let lost = account.lost.values().sum::<u64>();
    println!("{} answers = {lines} lines + {lost} lost in {} gaps", answers.len(), account.gaps);
    assert_eq!(account.torn, 0);
    let mut answered = BTreeMap::new();
    for answer in &answers {
        *answered.entry(answer.pid).or_insert(0) += 1;
    }
    let mut accounted = account.lines;
    for (pid, lost) in account.lost {
        *accounted.entry(pid).or_default() += lost;
    }
    assert_eq!(accounted, answered, "lines and counted losses of each worker are its answers");
}

/// Workers are killed again and again: whatever they had read has one line, and the lines that say
/// that a request is lost are as many as the deaths have said.
#[test]
fn every_request_has_a_line_although_workers_are_killed() {
    let wanted = figure("FIGURE_REQUESTS", 8000);
    let server = Ferricorn::hello()
        .config(&format!("workers = 4\n{BLOCK}access = \"access.log\"\n"))
        .start();
    let requests = Numbered::default();
    let mut kills = 0_u16;
    let begun = Instant::now();
    let sent = requests.send_while(&server.address(), "a", || {
        let mut since = Instant::now();
        let patience = PATIENCE + Duration::from_millis(20) * u32::try_from(wanted).expect("few");
        eventually("enough answers", patience, || {
            if since.elapsed() >= Duration::from_millis(200) {
                since = Instant::now();
                let there = server.workers().into_iter().find(|worker| worker.0 == kills % 4);
                if let Some((_, worker)) = there {
                    send(worker, Signal::SIGKILL);
                }
                kills += 1;
            }
            // A machine that is fast has answered them before the first kill.
            let is_enough = requests.answered.load(Ordering::Relaxed) >= wanted;
            (is_enough && kills > 0).then_some(())
        });
    });
    let access = server.folder().join("access.log");
    let error = server.folder().join("stdout");
    let took = begun.elapsed();
    let folder = server.stop_and_keep();
    // Its folder was renamed by nobody: the paths hold until it is dropped.
    let said = Said::read_files(&[&access, &error]);
    drop(folder);
    let lines = said.answered.len() + said.lost.len();
    let [of_failed, of_lost] = [&said.answered, &said.lost]
        .map(|of| of.keys().filter(|number| sent.failed.contains(number)).count());
    println!(
        "{} sent in {took:?}, {kills} kills: {} answered, {} failed; {lines} lines, {} of them of lost \
         requests ({} said by deaths); of failed requests {of_failed} are done, {of_lost} lost, \
         {} were never read",
        requests.next.load(Ordering::Relaxed),
        sent.answered.len(),
        sent.failed.len(),
        said.lost.len(),
        said.taken,
        sent.failed.len() - of_failed - of_lost,
    );
    assert!(kills > 0, "nobody was killed");
    if is_in_full_length("FIGURE_REQUESTS") {
        // It may have hit what had come and was not read yet, and is in no log.
        assert!(!sent.failed.is_empty(), "no kill has hit anything");
    }
    assert_eq!((said.torn.len(), said.dropped), (0, 0));
    let twice = said.answered.values().chain(said.lost.values()).any(|count| *count != 1);
    assert!(!twice, "a line is there twice");
    // Not even where a worker dies behind a line and before it has noted that the request is over.
    let both = said.answered.keys().filter(|number| said.lost.contains_key(number)).count();
    assert_eq!(both, 0, "requests that are done and lost");
    let missing =
        |number: &&u64| !said.answered.contains_key(number) && !said.lost.contains_key(number);
    assert_eq!(sent.answered.iter().filter(missing).count(), 0, "an answer has no line");
    assert_eq!(said.lost.len() as u64, said.taken, "each lost request has one line");
    let of_answered = said.lost.keys().filter(|number| sent.answered.contains(number)).count();
    println!("{of_answered} answered requests are said to be lost");
    let of_failed = sent.failed.iter().filter(|number| !missing(number)).count();
    assert_eq!(lines, sent.answered.len() + of_failed);
}
