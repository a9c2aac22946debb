//! Servers that answer and take no writes: waited for at the start, and unready under a worker.

use std::time::Duration;

use tokio::time::timeout;

use crate::app::store::{Start, prepare};
use crate::logs::Logs;
use crate::servers::{DATABASE, PASSWORD, Server};
use crate::world::{Kind, World, block_on, eventually, execute};

/// The time that a change of the server's may take to be seen, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(30);

/// A server, and a database on it whose user is not exempt from `read_only`.
struct Guarded {
    server: Server,
    world: World,
    kind: Kind,
}

impl Guarded {
    async fn new(kind: Kind) -> Self {
        let server = Server::running(kind);
        let mut world = World::on(&server).await;
        if kind == Kind::Mariadb {
            for sql in [
                format!("CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'"),
                format!("GRANT ALL ON {}.* TO app@'%'", world.name()),
            ] {
                execute(&server.url(DATABASE), &sql).await.unwrap();
            }
            world.url = world.url.replace("tester:", "app:");
        }
        Self { server, world, kind }
    }

    /// Lets the server take writes, or none.
    async fn set_read_only(&self, is_read_only: bool) {
        let switch = if is_read_only { "on" } else { "off" };
        let sql = match self.kind {
            Kind::Postgres => vec![
                format!("ALTER SYSTEM SET default_transaction_read_only = {switch}"),
                "SELECT pg_reload_conf()".to_owned(),
            ],
            Kind::Mariadb => vec![format!("SET GLOBAL read_only = {switch}")],
            Kind::Sqlite => panic!("SQLite has no server"),
        };
        for sql in sql {
            execute(&self.server.url(DATABASE), &sql).await.unwrap();
        }
    }

    /// The words in which it refuses.
    fn refusal(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "in a read-only transaction",
            Kind::Mariadb | Kind::Sqlite => "running with the --read-only option",
        }
    }
}

#[test]
fn a_start_waits_for_a_server_that_takes_no_writes() {
    block_on(async {
        for (kind, is_new) in
            [(Kind::Postgres, true), (Kind::Postgres, false), (Kind::Mariadb, false)]
        {
            let guarded = Guarded::new(kind).await;
            if !is_new {
                guarded.world.prepare().await;
            }
            guarded.set_read_only(true).await;
            let target = guarded.world.database().target;
            let start =
                |seconds| Start { connect_timeout: Duration::from_secs(seconds), connections: 20 };
            // It may take writes, or answer nobody, until it has read its configuration again.
            let expected = format!("the database at {target} takes no writes after ");
            let error = eventually(SOON, async || {
                let error = prepare(&target, start(3)).await.err()?.to_string();
                error.starts_with(&expected).then_some(error)
            })
            .await;
            assert!(error.contains(guarded.refusal()), "{error}");

            let logs = Logs::new();
            let waiting = tokio::spawn({
                let target = target.clone();
                async move { prepare(&target, start(60)).await }
            });
            eventually(SOON, async || (!logs.lines().is_empty()).then_some(())).await;
            guarded.set_read_only(false).await;
            timeout(SOON, waiting).await.expect("it is seen").unwrap().unwrap();
            let lines = logs.lines();
            let waits = |line: &String| {
                line.contains(&format!("waiting for the database at {target}: "))
                    && line.contains(guarded.refusal())
            };
            assert!(lines.iter().all(waits), "{lines:#?}");
        }
    });
}

/// No client writes: nothing but the question itself finds it.
#[test]
fn a_worker_is_unready_while_its_server_takes_no_writes() {
    block_on(async {
        for kind in [Kind::Postgres, Kind::Mariadb] {
            let guarded = Guarded::new(kind).await;
            let worker = guarded.world.prepared().await;
            assert_eq!(worker.get("/readyz").await.status, 200);
            let logs = Logs::new();
            let unwritable = (503, "the database takes no writes".to_owned());
            for round in 1..=2 {
                guarded.set_read_only(true).await;
                let refused = eventually(SOON, async || {
                    let answer = worker.get("/readyz").await;
                    (answer.status != 200).then_some(answer)
                });
                assert_eq!(refused.await.error(), unwritable, "{kind:?}");
                assert_eq!(worker.get("/data").await.status, 200, "rows can be read");
                guarded.set_read_only(false).await;
                eventually(SOON, async || {
                    (worker.get("/readyz").await.status == 200).then_some(())
                })
                .await;
                worker.populated().await;
                eventually(SOON, async || (logs.lines().len() == 2 * round).then_some(())).await;
            }
            let lines = logs.lines();
            for pair in lines.chunks(2) {
                assert!(pair[0].contains(": cannot write to the database: "), "{lines:#?}");
                assert!(pair[0].contains(guarded.refusal()), "{lines:#?}");
                assert!(pair[1].contains(": able to write to the database again "), "{lines:#?}");
            }
        }
    });
}

/// The user may write although the server says that it takes no writes.
#[test]
fn a_user_that_is_exempt_from_read_only_is_ready() {
    block_on(async {
        let mut guarded = Guarded::new(Kind::Mariadb).await;
        guarded.world.url = guarded.world.url.replace("app:", "tester:");
        guarded.set_read_only(true).await;
        let worker = guarded.world.prepared().await;
        for _ in 0..3 {
            assert_eq!(worker.get("/readyz").await.status, 200);
        }
        worker.populated().await;
    });
}
