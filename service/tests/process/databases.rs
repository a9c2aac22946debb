//! The bundled program with each of its databases, while workers die and while the database does.
//! `cargo test --test process databases -- --nocapture` prints the figures.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, MySqlConnection, PgConnection};

use crate::client::{Address, Connection, Outcome, get, post};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;
use crate::servers::{DATABASE, Kind, Server};

/// The time that an answer may take, whatever the database does.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// The time that the service may need when the database is back.
const RECOVERY_MAX: Duration = Duration::from_secs(2);
/// The time for which the database is away.
const AWAY: Duration = Duration::from_secs(10);

/// The program on a database of this kind, of its own.
pub(crate) fn start(kind: Kind) -> (Option<Server>, Ferricorn) {
    // Its network must be that of the program.
    let _share = crate::machine::share();
    let server = match kind {
        Kind::Sqlite => return (None, Ferricorn::bundled().start()),
        Kind::Postgres | Kind::Mariadb => Server::running(kind),
    };
    // The start waits until the server has started.
    let program = Ferricorn::bundled().env("DATABASE_URL", server.url(DATABASE)).start();
    (Some(server), program)
}

/// Every row there is, by pages.
fn rows(program: &Ferricorn) -> Vec<String> {
    let mut connection = program.connect();
    let mut rows = Vec::new();
    let mut target = "/data?limit=100".to_owned();
    loop {
        let answer = connection.get(&target).expect("the service is well");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let of_page = page["rows"].as_array().expect("the rows");
        rows.extend(of_page.iter().map(|row| row["data"].as_str().expect("a text").to_owned()));
        match page["next"].as_i64() {
            Some(before) => target = format!("/data?limit=100&before={before}"),
            None => return rows,
        }
    }
}

/// The clients' view of their populates.
#[derive(Debug, Default)]
struct Seen {
    /// The rows that were acknowledged.
    acknowledged: Vec<String>,
    /// Connections that ended behind a request.
    lost: u64,
    /// Anything else.
    strange: Vec<String>,
}

/// One client, which repeats nothing; it goes on until it is told.
fn populate(address: &Address, stop: &AtomicBool, count: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let mut connection = match Connection::open(address) {
            Ok(connection) => connection,
            Err(outcome) => {
                seen.strange.push(format!("connecting: {outcome:?}"));
                continue;
            }
        };
        while !stop.load(Ordering::Relaxed) {
            let answer =
                connection.send(post("/populate", "")).and_then(|()| connection.response());
            match answer {
                Ok(answer) if answer.status == 201 => {
                    let body: serde_json::Value =
                        serde_json::from_slice(&answer.body).expect("JSON");
                    seen.acknowledged.push(body["data"].as_str().expect("a row").to_owned());
                    count.fetch_add(1, Ordering::Relaxed);
                    if answer.closes() {
                        break;
                    }
                }
                Ok(answer) => seen.strange.push(format!("{} {}", answer.status, answer.text())),
                Err(
                    Outcome::ResetSending
                    | Outcome::ResetWaiting
                    | Outcome::ClosedWaiting
                    | Outcome::CutShort,
                ) => {
                    seen.lost += 1;
                    break;
                }
                Err(
                    outcome @ (Outcome::Refused
                    | Outcome::NotConnected
                    | Outcome::TimedOut
                    | Outcome::Garbled),
                ) => {
                    seen.strange.push(format!("{outcome:?}"));
                    break;
                }
            }
        }
    }
    seen
}

/// Ten thousand populates by 64 clients, and a worker killed every 500 ms.
#[expect(clippy::print_stderr, reason = "figures for who looks at them")]
fn kills_lose_no_row(kind: Kind) {
    const CLIENTS: usize = 64;
    const POPULATES: u64 = 10_000;
    const KILLS_MIN: u16 = 10;
    let _alone = crate::machine::alone();
    let (_server, program) = start(kind);
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let address = program.address();
            let stop = stop.clone();
            let count = count.clone();
            std::thread::spawn(move || populate(&address, &stop, &count))
        })
        .collect();
    let mut kills = 0;
    while count.load(Ordering::Relaxed) < POPULATES || kills < KILLS_MIN {
        assert!(begun.elapsed() < 10 * PATIENCE, "only {count:?} populates by now");
        let due = begun + Duration::from_millis(500) * u32::from(kills + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A slot is never empty for long.
        send(program.worker(kills % 4), Signal::SIGKILL);
        kills += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    for client in clients {
        let seen = client.join().expect("a client does not panic");
        all.acknowledged.extend(seen.acknowledged);
        all.lost += seen.lost;
        all.strange.extend(seen.strange);
    }
    let took = begun.elapsed();
    program.wait_workers(4);
    let stored = rows(&program);
    let acknowledged = all.acknowledged.len();
    eprintln!(
        "{kind:?}: {acknowledged} populates acknowledged in {took:.1?}, {kills} workers killed, \
         {} requests lost with them, {} rows stored",
        all.lost,
        stored.len(),
    );
    assert_eq!(all.strange, Vec::<String>::new(), "who was not with a killed worker is served");
    let most = acknowledged + usize::try_from(all.lost).expect("it is small");
    assert!((acknowledged..=most).contains(&stored.len()), "not within {acknowledged}..={most}");
    let stored: HashSet<String> = stored.into_iter().collect();
    let missing = all.acknowledged.iter().filter(|row| !stored.contains(*row)).count();
    assert_eq!(missing, 0, "an acknowledged row is durable");
    program.stop();
}

#[test]
fn kills_lose_no_row_of_sqlite() {
    kills_lose_no_row(Kind::Sqlite);
}

#[test]
fn kills_lose_no_row_of_postgres() {
    kills_lose_no_row(Kind::Postgres);
}

#[test]
fn kills_lose_no_row_of_mariadb() {
    kills_lose_no_row(Kind::Mariadb);
}

/// One answer to a client of an outage.
#[derive(Clone, Copy, Debug)]
struct Answered {
    /// A populate, and not a read.
    is_write: bool,
    status: u16,
    begun: Instant,
    ended: Instant,
}

/// Writes, reads and questions, one after another on one connection, which must outlive it all.
fn ask(address: &Address, stop: &AtomicBool, all: &Mutex<Vec<Answered>>) {
    let mut connection = Connection::open(address).expect("the server listens");
    let requests = [post("/populate", ""), get("/data?limit=5"), get("/readyz"), get("/healthz")];
    while !stop.load(Ordering::Relaxed) {
        for (number, request) in requests.iter().enumerate() {
            let begun = Instant::now();
            connection.send(request).expect("the connection is kept");
            let answer = connection.response().expect("every request is answered");
            let ended = Instant::now();
            let is_right = match number {
                0 => matches!(answer.status, 201 | 503),
                1 | 2 => matches!(answer.status, 200 | 503),
                _ => answer.status == 200,
            };
            assert!(is_right, "{request:?}: {} {}", answer.status, answer.text());
            if answer.status == 503 {
                let what =
                    if number == 2 { "service is not ready" } else { "database is not available" };
                let generic = format!("{{\"error\":\"the {what}\"}}");
                assert_eq!(answer.text(), generic, "and nothing of the cause");
            }
            let answered = Answered { is_write: number == 0, status: answer.status, begun, ended };
            all.lock().expect("no client has panicked").push(answered);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns true if the database takes connections.
fn is_back(url: &str) -> bool {
    let connect = async {
        if url.starts_with("postgres") {
            PgConnection::connect(url).await?.close().await
        } else {
            MySqlConnection::connect(url).await?.close().await
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(connect).is_ok()
}

/// The pids in the error log's lines with this text, sorted.
fn who_said(log: &str, text: &str) -> Vec<i32> {
    let pid = |line: &str| line.split('[').nth(2)?.split(']').next()?.parse().ok();
    let lines = log.lines().filter(|line| line.contains(text));
    let mut pids: Vec<i32> = lines.map(|line| pid(line).expect("a line has its pid")).collect();
    pids.sort_unstable();
    pids
}

/// The database is stopped, or hangs, for ten seconds, and comes back.
#[expect(clippy::print_stderr, reason = "figures for who looks at them")]
fn an_outage_under_load(kind: Kind, away: &str, back: &str) {
    let _alone = crate::machine::alone();
    let (server, program) = start(kind);
    let server = server.expect("it is a server");
    let workers = program.wait_workers(4);
    let stop = Arc::new(AtomicBool::new(false));
    let all = Arc::new(Mutex::new(Vec::new()));
    let clients: Vec<_> = (0..32)
        .map(|_| {
            let address = program.address();
            let stop = stop.clone();
            let all = all.clone();
            std::thread::spawn(move || ask(&address, &stop, &all))
        })
        .collect();
    let stored = |since: Instant, count: usize| {
        eventually("rows are stored", PATIENCE, || {
            let all = all.lock().expect("no client has panicked");
            let recent = all.iter().rev().take_while(|it| it.ended >= since);
            let stored = recent.filter(|recent| recent.status == 201 && recent.begun >= since);
            (stored.count() >= count).then_some(())
        });
    };
    stored(Instant::now(), 200);
    server.order(away);
    let gone = Instant::now();
    std::thread::sleep(AWAY);
    server.order(back);
    let url = server.url(DATABASE);
    eventually("the database is back", PATIENCE, || is_back(&url).then_some(()));
    let returned = Instant::now();
    stored(returned, 200);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("every request was answered as it should be");
    }
    let all = all.lock().expect("no client has panicked");
    let slowest = all.iter().map(|it| it.ended - it.begun).max().expect("there are answers");
    let failed = || all.iter().filter(|it| it.status == 503);
    let recovered = failed().map(|failed| failed.ended.saturating_duration_since(returned)).max();
    let recovered = recovered.expect("an outage is noticed");
    eprintln!(
        "{kind:?}, {away} for {:.1?}: {} requests, {} of them answered 503; slowest answer \
         {slowest:.2?}; requests failed for {recovered:.0?} after the database was back; {} of {} \
         workers died",
        returned - gone,
        all.len(),
        failed().count(),
        workers.iter().filter(|(_, pid)| !proc::is_alive(*pid)).count(),
        workers.len(),
    );
    assert_eq!(program.workers(), workers, "no worker dies of it");
    assert!(slowest <= ANSWER_MAX, "an answer took {slowest:?}");
    assert!(recovered <= RECOVERY_MAX, "a request failed {recovered:?} after it was back");
    let acknowledged = all.iter().filter(|it| it.is_write && it.status == 201).count();
    let unknown = all.iter().filter(|it| it.is_write && it.status == 503).count();
    let count = rows(&program).len();
    assert!((acknowledged..=acknowledged + unknown).contains(&count), "{count} rows are stored");
    let began = who_said(&program.log(), "] cannot ");
    assert_eq!(began.len(), 1, "one worker logs it once: {}", program.log());
    let ended = || who_said(&program.log(), " again after ");
    eventually("its end is told", PATIENCE, || (!ended().is_empty()).then_some(()));
    assert_eq!(ended(), began, "once, by the same: {}", program.log());
    program.stop();
}

/// The worker that has told of an outage dies in it: another tells of it, and of its end.
#[test]
fn an_outage_is_told_again_when_the_worker_that_told_of_it_is_gone() {
    let (server, program) = start(Kind::Postgres);
    let server = server.expect("it is a server");
    let workers = program.wait_workers(4);
    let all_find = |status: u16| {
        let mut seen = HashSet::new();
        eventually("every worker has answered so", PATIENCE, || {
            let answer = program.get("/data?limit=1").expect("the service is well");
            if answer.status == status {
                seen.insert(answer.field("x-worker").to_owned());
            }
            (seen.len() == workers.len()).then_some(())
        });
    };
    all_find(200);
    server.order("stop");
    all_find(503);
    let began = || who_said(&program.log(), "] cannot ");
    let first = eventually("one tells of it", PATIENCE, || {
        let first = began();
        (!first.is_empty()).then_some(first)
    });
    assert_eq!(first.len(), 1, "{}", program.log());
    send(first[0], Signal::SIGKILL);
    let both = eventually("another tells of it", PATIENCE, || {
        let both = began();
        (both.len() > 1).then_some(both)
    });
    server.order("start");
    all_find(200);
    let ended = || who_said(&program.log(), " again after ");
    eventually("its end is told", PATIENCE, || (!ended().is_empty()).then_some(()));
    assert_eq!((both.len(), began()), (2, both.clone()), "{}", program.log());
    assert_eq!(ended().len(), 1, "{}", program.log());
    assert!(ended() != first && both.contains(&ended()[0]), "{}", program.log());
    program.stop();
}

#[test]
fn postgres_is_stopped_under_load() {
    an_outage_under_load(Kind::Postgres, "stop", "start");
}

#[test]
fn postgres_hangs_under_load() {
    an_outage_under_load(Kind::Postgres, "pause", "resume");
}

#[test]
fn mariadb_is_stopped_under_load() {
    an_outage_under_load(Kind::Mariadb, "stop", "start");
}

#[test]
fn mariadb_hangs_under_load() {
    an_outage_under_load(Kind::Mariadb, "pause", "resume");
}
