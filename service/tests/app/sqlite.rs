//! SQLite's own: a file, its folder, and strangers that lock it.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::store::{Start, Target, prepare};
use crate::logs::Logs;
use crate::world::{Kind, World, eventually, run};

/// The time that a request may take in the worst case: a wait for its turn, a wait for the lock, and
/// what a busy machine adds.
const ANSWER_MAX: Duration = Duration::from_secs(9);

fn file(world: &World) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(world.url.strip_prefix("sqlite://").unwrap())
}

#[test]
fn a_stranger_that_holds_the_lock_delays_and_then_fails_writes_for_certain() {
    run(Kind::Sqlite, async |world: World| {
        let worker = world.prepared().await;
        worker.populated().await;
        let mut stranger = file(&world).connect().await.unwrap();
        let transaction = stranger.begin_with("BEGIN IMMEDIATE").await.unwrap();

        let began = Instant::now();
        let logs = Logs::new();
        let mut clients = JoinSet::new();
        for client in 0..5 {
            let worker = worker.clone();
            clients.spawn(async move {
                if client == 4 { worker.delete().await } else { worker.populate().await }
            });
        }
        for answer in clients.join_all().await {
            assert_eq!(answer.error(), (503, "the database is not available".into()));
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.header("x-frame-options"), "DENY");
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(5), "a short lock is waited for: {took:?}");
        assert!(took < ANSWER_MAX, "{took:?}");
        assert_eq!(worker.get("/data").await.status, 200, "readers are not held up");
        let unwritable = (503, "the database takes no writes".to_owned());
        assert_eq!(worker.get("/readyz").await.error(), unwritable);
        let lines = logs.lines();
        let holder = format!("its write lock is held by process {} (", std::process::id());
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains(": cannot write to the database: "), "{lines:#?}");
        assert!(lines[0].contains(&holder), "{lines:#?}");

        transaction.rollback().await.unwrap();
        // Without a client that writes.
        eventually(ANSWER_MAX, async || (worker.get("/readyz").await.status == 200).then_some(()))
            .await;
        assert_eq!(worker.total().await, 1, "nothing of what failed was stored or removed");
        worker.populated().await;
        assert_eq!(worker.deleted().await, 2);
    });
}

#[test]
fn a_start_names_the_process_that_keeps_the_write_lock() {
    run(Kind::Sqlite, async |world: World| {
        world.prepare().await;
        let mut stranger = file(&world).connect().await.unwrap();
        let transaction = stranger.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let start = Start { connect_timeout: Duration::from_secs(1), connections: 20 };
        let target = world.database().target;
        let error = prepare(&target, start).await.unwrap_err().to_string();
        let expected = format!("the database at {target} takes no writes after ");
        let holder = format!("its write lock is held by process {} (", std::process::id());
        assert!(error.starts_with(&expected) && error.contains(&holder), "{error}");

        let logs = Logs::new();
        let waiting = tokio::spawn(async move {
            let start = Start { connect_timeout: Duration::from_secs(60), connections: 20 };
            prepare(&target, start).await
        });
        eventually(ANSWER_MAX, async || (!logs.lines().is_empty()).then_some(())).await;
        transaction.rollback().await.unwrap();
        waiting.await.unwrap().unwrap();
        assert!(logs.lines()[0].contains(": waiting for the database at "), "{:?}", logs.lines());
        assert!(logs.lines()[0].contains(&holder), "{:?}", logs.lines());
    });
}

#[test]
fn more_than_may_wait_are_refused_at_once() {
    run(Kind::Sqlite, async |world: World| {
        let worker = world.prepared().await;
        let mut stranger = file(&world).connect().await.unwrap();
        let transaction = stranger.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let mut clients = JoinSet::new();
        for _ in 0..1500 {
            let worker = worker.clone();
            clients.spawn(async move { worker.populate().await });
        }
        let overloaded = (503, "too many requests are waiting for the database".to_owned());
        let first = clients.join_next().await.unwrap().unwrap();
        assert_eq!(first.error(), overloaded);
        transaction.rollback().await.unwrap();
        let answers = clients.join_all().await;
        let stored = answers.iter().filter(|answer| answer.status == 201).count();
        let refused = answers.iter().filter(|answer| answer.status == 503);
        assert!(refused.clone().all(|answer| answer.error() == overloaded));
        assert_eq!(stored + refused.count() + 1, 1500);
        assert!(stored >= 1024, "{stored}");
        assert_eq!(worker.total().await, stored as u64);
    });
}

#[test]
fn as_many_may_wait_as_may_be_connected() {
    run(Kind::Sqlite, async |mut world: World| {
        world.clients_max = 1500;
        let worker = world.prepared().await;
        let mut stranger = file(&world).connect().await.unwrap();
        let transaction = stranger.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let mut clients = JoinSet::new();
        for _ in 0..1500 {
            let worker = worker.clone();
            clients.spawn(async move { worker.populate().await });
        }
        tokio::task::yield_now().await;
        transaction.rollback().await.unwrap();
        assert!(clients.join_all().await.iter().all(|answer| answer.status == 201));
        assert_eq!(worker.total().await, 1500);
    });
}

#[test]
fn a_writer_that_is_stopped_in_its_turn_does_not_stop_the_others() {
    run(Kind::Sqlite, async |world: World| {
        let worker = world.prepared().await;
        let path = world.url.strip_prefix("sqlite://").unwrap();
        let locks = ["-next", "-turn"].map(|suffix| {
            let lock = std::fs::File::open(format!("{path}{suffix}")).unwrap();
            lock.lock().unwrap();
            lock
        });
        let began = Instant::now();
        worker.populated().await;
        worker.populated().await;
        assert!(began.elapsed() < ANSWER_MAX, "{:?}", began.elapsed());
        drop(locks);
        assert_eq!(worker.deleted().await, 2);
    });
}

#[test]
fn a_file_that_is_gone_is_an_outage_and_not_a_new_database() {
    run(Kind::Sqlite, async |world: World| {
        let worker = world.worker(0);
        for answer in [worker.populate().await, worker.delete().await, worker.get("/data").await] {
            assert_eq!(answer.error(), (503, "the database is not available".into()));
        }
        assert_eq!(worker.get("/readyz").await.status, 503);
        world.prepare().await;
        worker.populated().await;
        assert_eq!(worker.total().await, 1);
    });
}

/// As on a reload, which makes the file, and replaces the worker at once.
#[test]
fn a_worker_that_leaves_tells_of_the_end_of_the_outage_that_it_has_told_of() {
    run(Kind::Sqlite, async |world: World| {
        let [first, second] = [0, 1].map(|slot| world.worker(slot));
        let logs = Logs::new();
        for worker in [&first, &second] {
            assert_eq!(worker.populate().await.status, 503);
        }
        world.prepare().await;
        second.service.finish().await;
        first.service.finish().await;
        let lines = logs.lines();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains(": cannot reach the database: "), "{lines:#?}");
        assert!(lines[1].contains(": able to reach the database again after "), "{lines:#?}");
    });
}

/// Connections of every kind are open when it happens.
#[test]
fn a_file_that_is_taken_away_acknowledges_nothing_and_one_put_there_is_used() {
    run(Kind::Sqlite, async |world: World| {
        let worker = world.prepared().await;
        let path = world.url.strip_prefix("sqlite://").unwrap();
        let beside = |suffix: &str| PathBuf::from(format!("{path}{suffix}"));
        let rename = |from: &str, to: &str| {
            for part in ["", "-wal", "-shm"] {
                let [from, to] = [from, to].map(|it| beside(&format!("{it}{part}")));
                std::fs::rename(from, to).unwrap();
            }
        };
        let rows = async || [worker.get("/data").await, worker.get("/readyz").await];
        worker.populated().await;
        worker.deleted().await;
        worker.populated().await;
        assert!(rows().await.iter().all(|answer| answer.status == 200));

        let logs = Logs::new();
        rename("", ".away");
        let [page, ready] = rows().await;
        for answer in [worker.populate().await, worker.delete().await, page, ready] {
            assert_eq!(answer.error(), (503, "the database is not available".into()));
        }
        assert_eq!(logs.lines().len(), 1, "{:#?}", logs.lines());

        world.prepare().await;
        assert_eq!(worker.total().await, 0, "it is another one");
        worker.populated().await;
        worker.populated().await;
        assert!(rows().await.iter().all(|answer| answer.status == 200));
        // Another one is there at once: nothing tells that but which file it is.
        rename("", ".second");
        rename(".away", "");
        worker.populated().await;
        assert_eq!(worker.total().await, 2);
        assert_eq!(worker.deleted().await, 2);
    });
}

/// It is taken away while a request waits for a lock in it.
#[test]
fn a_row_that_went_into_a_file_that_was_taken_away_is_not_acknowledged() {
    run(Kind::Sqlite, async |world: World| {
        let worker = world.prepared().await;
        worker.populated().await;
        let mut stranger = file(&world).connect().await.unwrap();
        let transaction = stranger.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let logs = Logs::new();
        let waiting = tokio::spawn({
            let worker = worker.clone();
            async move { worker.populate().await }
        });
        let path = world.url.strip_prefix("sqlite://").unwrap();
        let locks = std::fs::File::open(format!("{path}-turn")).unwrap();
        // It has its turn: from here on it waits for the lock of the file.
        eventually(ANSWER_MAX, async || {
            let taken = locks.try_lock().err();
            locks.unlock().unwrap();
            taken
        })
        .await;
        std::fs::remove_file(path).unwrap();
        transaction.rollback().await.unwrap();
        let answer = waiting.await.unwrap();
        assert_eq!(answer.error(), (503, "the database is not available".into()));
        let lines = logs.lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
    });
}

#[test]
fn a_wrong_url_is_refused_with_a_reason() {
    for (url, expected) in [
        ("", "it has no scheme; write sqlite://, postgres:// or mysql://"),
        ("data.db", "it has no scheme; write sqlite://, postgres:// or mysql://"),
        ("oracle://x", "its scheme is none of sqlite, postgres, postgresql, mysql, mariadb"),
        ("sqlite://", "it names no file; write sqlite://data/ferricorn.db"),
        ("sqlite::memory:", "a database in memory is not shared by the workers; name a file"),
        ("sqlite://x?mode=ro", "its option mode=ro lets no row be stored; leave it out"),
        ("sqlite://x?immutable=1", "its option immutable=1 lets no row be stored; leave it out"),
        (
            "sqlite://x?mode=memory",
            "a database in memory is not shared by the workers; name a file",
        ),
    ] {
        assert_eq!(Target::parse(url).unwrap_err(), expected, "{url}");
    }
    assert_eq!(Target::parse("sqlite:x.db").unwrap().to_string(), "sqlite://x.db");
    assert_eq!(Target::parse("sqlite:///a/x.db?mode=rw").unwrap().to_string(), "sqlite:///a/x.db");
}
