//! Servers that go away while workers serve, and come back.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::Answer;
use crate::logs::Logs;
use crate::servers::{PASSWORD, Server};
use crate::world::{Kind, Worker, World, block_on, eventually, execute};

/// An answer must come. How soon is measured where the machine does nothing else: by the tests of the
/// real program.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The time that a server may take to come back: it repairs itself first.
const RESTART_MAX: Duration = Duration::from_secs(30);

macro_rules! on_each_server {
    ($($name:ident,)*) => {
        mod postgres {
            $(
                #[test]
                fn $name() {
                    super::block_on(super::$name(super::Kind::Postgres));
                }
            )*
        }

        mod mariadb {
            $(
                #[test]
                fn $name() {
                    super::block_on(super::$name(super::Kind::Mariadb));
                }
            )*
        }
    };
}

on_each_server! {
    a_server_that_hangs_fails_requests_in_time,
    a_server_that_stops_fails_requests_until_it_is_back,
    a_worker_boots_while_the_server_is_away,
    an_outage_is_logged_once_at_each_end,
    connections_killed_one_by_one_are_one_outage,
}

/// One of each kind of request, all at once.
async fn all_requests(worker: &Worker) -> Vec<Answer> {
    let mut requests = JoinSet::new();
    for number in 0..40 {
        let worker = worker.clone();
        requests.spawn(async move {
            let answer = async {
                match number % 4 {
                    0 => worker.delete().await,
                    1 => worker.get("/data").await,
                    2 => worker.get("/readyz").await,
                    _ => worker.populate().await,
                }
            };
            timeout(ANSWER_MAX, answer).await.unwrap_or_else(|_| panic!("{number} has no answer"))
        });
    }
    requests.join_all().await
}

async fn assert_unavailable(worker: &Worker) {
    let unavailable = (503, "the database is not available".to_owned());
    let answers = all_requests(worker).await;
    assert_eq!(answers.len(), 40);
    for answer in answers {
        assert_eq!(answer.error(), unavailable);
        assert_eq!(answer.header("retry-after"), "1");
    }
}

async fn assert_available(worker: &Worker) {
    for answer in all_requests(worker).await {
        assert!(matches!(answer.status.as_u16(), 200 | 201), "{answer:?}");
    }
}

async fn back(worker: &Worker) {
    eventually(RESTART_MAX, async || (worker.get("/readyz").await.status == 200).then_some(()))
        .await;
}

async fn a_server_that_stops_fails_requests_until_it_is_back(kind: Kind) {
    let server = Server::running(kind);
    let worker = World::on(&server).await.prepared().await;
    // So that there are connections, which will be found dead.
    assert_available(&worker).await;
    worker.deleted().await;
    worker.populated().await;
    for _ in 0..2 {
        server.order("stop");
        assert_unavailable(&worker).await;
        assert_unavailable(&worker).await;
        server.order("start");
        back(&worker).await;
        assert_eq!(worker.total().await, 1, "what was acknowledged is there, and no more");
        assert_available(&worker).await;
        worker.deleted().await;
        worker.populated().await;
    }
}

async fn a_server_that_hangs_fails_requests_in_time(kind: Kind) {
    let server = Server::running(kind);
    let worker = World::on(&server).await.prepared().await;
    assert_available(&worker).await;
    server.order("pause");
    assert_unavailable(&worker).await;
    assert_unavailable(&worker).await;
    server.order("resume");
    back(&worker).await;
    assert_available(&worker).await;
}

async fn a_worker_boots_while_the_server_is_away(kind: Kind) {
    let server = Server::running(kind);
    let world = World::on(&server).await;
    world.prepare().await;
    server.order("stop");
    let worker = world.worker(0);
    assert_unavailable(&worker).await;
    server.order("start");
    back(&worker).await;
    assert_available(&worker).await;
}

async fn an_outage_is_logged_once_at_each_end(kind: Kind) {
    let server = Server::running(kind);
    let world = World::on(&server).await;
    world.prepare().await;
    let workers = [0, 1, 2].map(|slot| world.worker(slot));
    for worker in &workers {
        assert_available(worker).await;
    }
    let logs = Logs::new();
    server.order("stop");
    for worker in workers.iter().cycle().take(6) {
        assert_unavailable(worker).await;
    }
    server.order("start");
    // Whoever told of it asks by itself.
    eventually(RESTART_MAX, async || (logs.lines().len() >= 2).then_some(())).await;
    for worker in &workers {
        back(worker).await;
    }
    assert_available(&workers[0]).await;

    let lines = logs.lines();
    assert_eq!(lines.len(), 2, "one for whatever failed, and one at the end: {lines:#?}");
    assert!(
        lines[0].starts_with("ERROR") && lines[0].contains(": cannot reach the database: "),
        "{lines:#?}"
    );
    assert!(
        lines[1].starts_with("INFO")
            && lines[1].contains(": able to reach the database again after "),
        "{lines:#?}"
    );
    assert!(!logs.all().contains(PASSWORD));
}

/// As a server does that stops: work fails and succeeds by turns until all connections are gone.
async fn connections_killed_one_by_one_are_one_outage(kind: Kind) {
    const KILLS: usize = 20;
    let server = Server::running(kind);
    let world = World::on(&server).await;
    world.prepare().await;
    let workers = [0, 1, 2].map(|slot| world.worker(slot));
    let logs = Logs::new();
    let mut failed = 0;
    let mut killed = 0;
    while killed < KILLS || failed < KILLS {
        kill_one(&world.url).await;
        killed += 1;
        for worker in &workers {
            for answer in [worker.populate().await, worker.get("/readyz").await] {
                failed += usize::from(answer.status == 503);
            }
        }
    }
    eventually(RESTART_MAX, async || (logs.lines().len() >= 2).then_some(())).await;
    let lines = logs.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains(": cannot reach the database: "), "{lines:#?}");
    assert!(lines[1].contains(": able to reach the database again after "), "{lines:#?}");
}

/// Ends one of the workers' connections, if there is one.
async fn kill_one(url: &str) {
    let postgres = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
        ORDER BY random() LIMIT 1";
    let mariadb = "BEGIN NOT ATOMIC
        DECLARE victim BIGINT;
        SELECT id INTO victim FROM information_schema.processlist
            WHERE db = database() AND id <> connection_id() ORDER BY rand() LIMIT 1;
        IF victim IS NOT NULL THEN KILL victim; END IF;
        END";
    execute(url, if url.starts_with("postgres") { postgres } else { mariadb }).await.unwrap();
}
