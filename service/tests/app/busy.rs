//! Servers that are well, and busy or behind a firewall: nothing of that is an outage.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::logs::Logs;
use crate::servers::Server;
use crate::world::{Kind, Worker, World, block_on, eventually, execute, texts};

const SERVERS: [Kind; 2] = [Kind::Postgres, Kind::Mariadb];
const ROWS: u64 = 400;
/// The wait for a lock, and what a busy machine adds: less than two waits.
const LOCKED_MAX: Duration = Duration::from_secs(9);

/// Makes each row that a statement looks at cost 10 ms.
async fn slow_down(kind: Kind, url: &str) {
    let (rename, view) = match kind {
        Kind::Sqlite => panic!("SQLite has no server"),
        Kind::Postgres => ("ALTER TABLE records RENAME TO kept", "pg_sleep(0.01) IS NOT NULL"),
        Kind::Mariadb => ("RENAME TABLE records TO kept", "SLEEP(0.01 + 0 * id) = 0"),
    };
    execute(url, rename).await.unwrap();
    let view = format!("CREATE VIEW records AS SELECT id, data, created_at FROM kept WHERE {view}");
    execute(url, &view).await.unwrap();
}

/// Reads until there is nothing left, and answers how many pages it was given.
async fn read(worker: Worker) -> usize {
    let mut pages = 0;
    loop {
        let answer = worker.get("/data?limit=40").await;
        if answer.status == 200 {
            let page = answer.json();
            if texts(&page).is_empty() {
                return pages;
            }
            // It takes 4 s to count them, unless they have just been deleted.
            let total = &page["total"];
            assert!(total.is_null() || *total == 0, "{total}");
            pages += 1;
        } else {
            let crowded = "too many requests are waiting for the database";
            assert_eq!(answer.error(), (503, crowded.into()));
        }
    }
}

/// A delete that takes long says how many it were, and the worker is ready, while more clients read
/// than there are connections.
#[test]
fn a_busy_server_is_no_outage() {
    block_on(async {
        for kind in SERVERS {
            let server = Server::running(kind);
            let world = World::on(&server).await;
            let worker = world.prepared().await;
            let mut clients = JoinSet::new();
            for _ in 0..ROWS {
                let worker = worker.clone();
                clients.spawn(async move { drop(worker.populated().await) });
            }
            clients.join_all().await;
            slow_down(kind, &world.url).await;

            let logs = Logs::new();
            let mut readers = JoinSet::new();
            for _ in 0..16 {
                readers.spawn(read(worker.clone()));
            }
            let deleting = tokio::spawn({
                let worker = worker.clone();
                async move { worker.deleted().await }
            });
            while !deleting.is_finished() {
                assert_eq!(worker.get("/readyz").await.status, 200);
            }
            assert_eq!(deleting.await.unwrap(), ROWS, "{kind:?}");
            let pages: usize = readers.join_all().await.into_iter().sum();
            assert!(pages > 0, "nobody could read");
            assert_eq!(logs.lines(), [""; 0], "{kind:?}");
        }
    });
}

/// A stranger that keeps what it has locked, until this is dropped.
async fn locked(kind: Kind, url: &str, sql: [&str; 2]) -> Box<dyn Send> {
    let sql = sql.map(|sql| AssertSqlSafe(sql.to_owned()));
    match kind {
        Kind::Sqlite => panic!("SQLite has no server"),
        Kind::Postgres => {
            let mut stranger = PgConnection::connect(url).await.unwrap();
            for sql in sql {
                stranger.execute(sql).await.unwrap();
            }
            Box::new(stranger)
        }
        Kind::Mariadb => {
            let mut stranger = MySqlConnection::connect(url).await.unwrap();
            for sql in sql {
                stranger.execute(sql).await.unwrap();
            }
            Box::new(stranger)
        }
    }
}

/// Three deletes and a populate against whoever has a row, or the table: none waits for long, and the
/// populate waits for the table alone.
async fn assert_refused_in_time(world: &World, kind: Kind, sql: [&str; 2], is_stored: bool) {
    let worker = world.prepared().await;
    worker.populated().await;
    let stranger = locked(kind, &world.url, sql).await;
    let logs = Logs::new();
    let began = Instant::now();
    let mut deletes = JoinSet::new();
    for _ in 0..3 {
        let worker = worker.clone();
        deletes.spawn(async move { worker.delete().await });
    }
    let unavailable = (503, "the database is not available".to_owned());
    let populated = worker.populate().await;
    if is_stored {
        assert_eq!(populated.status, 201, "{kind:?} {populated:?}");
    } else {
        assert_eq!(populated.error(), unavailable, "{kind:?}");
    }
    for answer in deletes.join_all().await {
        assert_eq!(answer.error(), unavailable, "{kind:?}");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(5), "a short lock is waited for: {took:?}");
    assert!(took < LOCKED_MAX, "{took:?}");
    let ready = if is_stored { 200 } else { 503 };
    assert_eq!(worker.get("/readyz").await.status, ready, "ready means that rows are stored");
    let lines = logs.lines();
    assert!(lines.iter().all(|line| line.contains("ock")), "the cause is told: {lines:#?}");
    assert_eq!(lines.len(), if is_stored { 1 } else { 2 }, "once for each: {lines:#?}");
    drop(stranger);
    let kept = if is_stored { 2 } else { 1 };
    assert_eq!(worker.total().await, kept, "what was refused is not done later");
    let deleted = eventually(LOCKED_MAX, async || {
        let answer = worker.delete().await;
        (answer.status == 200).then(|| answer.json()["message"].as_str().unwrap().to_owned())
    });
    assert_eq!(deleted.await, format!("{kept} rows deleted"));
    // It logs the ends of its faults now, and not among the lines of the next.
    worker.service.finish().await;
}

#[test]
fn what_a_stranger_has_locked_is_waited_for_and_then_refused_for_certain() {
    let row = ["BEGIN", "SELECT id FROM records WHERE id = 1 FOR UPDATE"];
    block_on(async {
        for (kind, table) in [
            (Kind::Postgres, ["BEGIN", "LOCK TABLE records IN SHARE MODE"]),
            (Kind::Mariadb, ["SELECT 1", "LOCK TABLES records READ"]),
        ] {
            let server = Server::running(kind);
            for (sql, is_stored) in [(row, true), (table, false)] {
                let world = World::on(&server).await;
                assert_refused_in_time(&world, kind, sql, is_stored).await;
            }
        }
    });
}

/// A firewall before a server, which lets everything pass until it forgets the connections there are.
struct Firewall {
    url: String,
    forget: watch::Sender<()>,
}

impl Firewall {
    async fn before(url: &str) -> Self {
        let (head, tail) = url.rsplit_once('/').unwrap();
        let (head, port) = head.rsplit_once(':').unwrap();
        let server = ("127.0.0.1", port.parse::<u16>().unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("{head}:{}/{tail}", listener.local_addr().unwrap().port());
        let (forget, forgotten) = watch::channel(());
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut forgotten = forgotten.clone();
                forgotten.mark_unchanged();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Both ends stay open, and nothing passes any more.
                        _ = forgotten.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { url, forget }
    }
}

/// One of each kind of request, several of each at once, which must all succeed.
async fn assert_well(worker: &Worker) {
    let mut reads = JoinSet::new();
    for target in ["/data", "/readyz", "/data", "/readyz", "/data"] {
        let worker = worker.clone();
        reads.spawn(async move { worker.get(target).await });
    }
    worker.populated().await;
    worker.deleted().await;
    for answer in reads.join_all().await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn a_connection_that_was_forgotten_costs_no_request() {
    block_on(async {
        for kind in SERVERS {
            let server = Server::running(kind);
            let mut world = World::on(&server).await;
            let firewall = Firewall::before(&world.url).await;
            world.url.clone_from(&firewall.url);
            let worker = world.prepared().await;
            assert_well(&worker).await;
            let logs = Logs::new();
            firewall.forget.send(()).unwrap();
            // A connection that was just used is believed to live. This is about those that were not.
            sleep(Duration::from_millis(1100)).await;
            assert_well(&worker).await;
            assert_eq!(logs.lines(), [""; 0], "{kind:?}");
        }
    });
}
