//! PostgreSQL behind a pooler that lends its connections for one transaction each.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::app::store::{Start, Target, prepare};
use crate::logs::Logs;
use crate::servers::{PASSWORD, Pooler, Server};
use crate::world::{Kind, Worker, World, block_on, execute};

/// Far less than what a start waits for a server that is away.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Far more connections of ours than the pooler has to the server.
const POOL: u8 = 3;

async fn behind(server: &Server) -> (Pooler, World) {
    let mut world = World::on(server).await;
    let pooler = Pooler::before(server, POOL);
    world.url = pooler.url(world.name());
    (pooler, world)
}

/// So many clients ask the same, each so many times; each answer must have this status.
fn ask(requests: &mut JoinSet<()>, worker: &Worker, clients: u8, target: &'static str) {
    for _ in 0..clients {
        let worker = worker.clone();
        requests.spawn(async move {
            for _ in 0..40 {
                let answer = match target {
                    "/delete" => worker.delete().await,
                    "/populate" => worker.populate().await,
                    _ => worker.get(target).await,
                };
                assert!(matches!(answer.status.as_u16(), 200 | 201), "{target}: {answer:?}");
            }
        });
    }
}

#[test]
fn a_statement_is_never_anothers_behind_a_pooler() {
    block_on(async {
        let server = Server::running(Kind::Postgres);
        let (_pooler, world) = behind(&server).await;
        world.prepare().await;
        let logs = Logs::new();
        let workers = [0, 1, 2].map(|slot| world.worker(slot));
        let mut requests = JoinSet::new();
        for worker in &workers {
            ask(&mut requests, worker, 2, "/delete");
            ask(&mut requests, worker, 2, "/readyz");
            ask(&mut requests, worker, 2, "/data");
            ask(&mut requests, worker, 4, "/populate");
        }
        while let Some(done) = requests.join_next().await {
            done.unwrap();
        }
        workers[0].deleted().await;
        // By another client: they are not ours to delete by a read.
        let direct = server.url(world.name());
        let thousand = "INSERT INTO records (data) SELECT 'kept' FROM generate_series(1, 1000)";
        execute(&direct, thousand).await.unwrap();
        for worker in &workers {
            ask(&mut requests, worker, 6, "/readyz");
        }
        while let Some(done) = requests.join_next().await {
            done.unwrap();
        }
        assert_eq!(workers[0].total().await, 1000);
        for worker in &workers {
            worker.populated().await;
        }
        assert_eq!(workers[1].deleted().await, 1003);
        assert_eq!(logs.lines(), [""; 0]);
    });
}

/// Other clients of the pooler find its connections as they expect them, and make of them what they
/// like: what they have prepared and set changes nothing for us.
#[test]
fn a_session_that_others_have_changed_costs_nothing() {
    block_on(async {
        let server = Server::running(Kind::Postgres);
        let (_pooler, world) = behind(&server).await;
        world.prepare().await;
        let worker = world.worker(0);
        for number in 1..8 {
            // What sqlx would call its own.
            let sql = format!("PREPARE sqlx_s_{number} AS DELETE FROM records");
            execute(&world.url, &sql).await.unwrap();
        }
        let sql = "SET lock_timeout = 1; SET default_transaction_isolation = 'serializable'";
        execute(&world.url, sql).await.unwrap();
        for _ in 0..20 {
            worker.populated().await;
            assert_eq!(worker.get("/readyz").await.status, 200);
        }
        assert_eq!(worker.total().await, 20);
        world.prepare().await;
        assert_eq!(worker.total().await, 20);
    });
}

/// The one statement that has a name on the server is ours under that name, and inserts also where a
/// connection of the pooler has forgotten it, again and again, and in a process that prepares no more.
#[test]
fn prepared_insert_is_forgotten_without_a_loss() {
    block_on(async {
        let server = Server::running(Kind::Postgres);
        let (_pooler, mut world) = behind(&server).await;
        world.prepare().await;
        let worker = world.worker(0);
        let logs = Logs::new();
        for number in 1..=8 {
            worker.populated().await;
            assert_eq!(worker.total().await, number);
            for _ in 0..POOL {
                execute(&world.url, "DISCARD ALL").await.unwrap();
            }
        }
        assert_eq!(logs.lines(), [""; 0]);
        world.url = server.url(world.name());
        let worker = world.worker(1);
        for number in 9..=12 {
            worker.populated().await;
            assert_eq!(worker.total().await, number);
        }
        assert_eq!(logs.lines(), [""; 0]);
    });
}

#[test]
fn starts_at_once_make_one_table_behind_a_pooler() {
    block_on(async {
        let server = Server::running(Kind::Postgres);
        let (_pooler, world) = behind(&server).await;
        let mut starts = JoinSet::new();
        for _ in 0..8 {
            let target = world.database().target;
            starts.spawn(async move {
                prepare(&target, Start { connect_timeout: AT_ONCE, connections: 20 }).await
            });
        }
        while let Some(done) = starts.join_next().await {
            done.unwrap().unwrap();
        }
        let worker = world.worker(0);
        worker.populated().await;
        assert_eq!(worker.total().await, 1);
    });
}

/// The pooler's code for it is that of any fault of a connection's, also of those that pass.
#[test]
fn what_a_pooler_refuses_for_good_is_final_at_once() {
    block_on(async {
        let server = Server::running(Kind::Postgres);
        let (_pooler, world) = behind(&server).await;
        world.prepare().await;
        for (url, cause) in [
            (format!("{}?options[geqo]=off", world.url), "unsupported startup parameter"),
            (world.url.replace(world.name(), "none"), "none"),
        ] {
            let target = Target::parse(&url).unwrap();
            let start = Start { connect_timeout: Duration::from_secs(60), connections: 20 };
            let began = Instant::now();
            let logs = Logs::new();
            let done = timeout(AT_ONCE, prepare(&target, start)).await;
            assert!(done.is_ok(), "it is final: {:#?}", logs.lines());
            let error = done.unwrap().unwrap_err().to_string();
            assert!(error.starts_with(&format!("the database at {target} refuses: ")), "{error}");
            assert!(error.contains(cause) && !error.contains(PASSWORD), "{error}");
            assert!(!error.contains(" at line "), "{error}");
            assert!(began.elapsed() < AT_ONCE);
        }
    });
}
