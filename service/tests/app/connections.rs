//! When a worker's connections end: the server behind an address is another one, or admits few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::servers::{DATABASE, PASSWORD, Server};
use crate::world::{Kind, Worker, World, block_on, eventually, execute};

const SERVERS: [Kind; 2] = [Kind::Postgres, Kind::Mariadb];

/// Far more than a connection's life in these tests.
const SOON: Duration = Duration::from_secs(30);

/// One address before two servers, which leads new connections to one of them.
struct Address {
    port: u16,
    leads_to: Arc<AtomicU16>,
}

impl Address {
    async fn of(server: &Server) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let leads_to = Arc::new(AtomicU16::new(server.port()));
        let target = Arc::clone(&leads_to);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let port = target.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    drop(copy_bidirectional(&mut client, &mut server).await);
                });
            }
        });
        Self { port, leads_to }
    }

    /// Connections that stand stay where they are.
    fn move_to(&self, server: &Server) {
        self.leads_to.store(server.port(), Ordering::Relaxed);
    }

    fn url(&self, server: &Server, url: &str) -> String {
        url.replace(&format!(":{}/", server.port()), &format!(":{}/", self.port))
    }
}

/// Two servers with the same database, and a user of it that may not do everything.
async fn pair(kind: Kind) -> [(Server, World); 2] {
    let mut pair = Vec::new();
    for _ in 0..2 {
        let server = Server::running(kind);
        let mut world = World::on(&server).await;
        let user = "app";
        let name = "app";
        for sql in owner(kind, user, name, "") {
            execute(&server.url(DATABASE), &sql).await.unwrap();
        }
        world.url = server.url(name).replace("tester:", &format!("{user}:"));
        world.prepare().await;
        pair.push((server, world));
    }
    pair.try_into().unwrap()
}

/// A user that is no administrator, with a database of its own.
fn owner(kind: Kind, user: &str, name: &str, limit: &str) -> Vec<String> {
    match kind {
        Kind::Sqlite => panic!("SQLite has no server"),
        Kind::Postgres => vec![
            format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}' {limit}"),
            format!("CREATE DATABASE {name} OWNER {user}"),
        ],
        Kind::Mariadb => vec![
            format!("CREATE USER {user}@'%' IDENTIFIED BY '{PASSWORD}' {limit}"),
            format!("CREATE DATABASE {name}"),
            format!("GRANT ALL ON {name}.* TO {user}@'%'"),
        ],
    }
}

/// Every one of a worker's pools has a connection.
async fn use_all(worker: &Worker) {
    let mut requests = JoinSet::new();
    for target in ["/data", "/readyz", "/data", "/readyz", "/data"] {
        let worker = worker.clone();
        requests.spawn(async move { worker.get(target).await });
    }
    worker.populated().await;
    for answer in requests.join_all().await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The old server answers reads as ever. The first write that it refuses moves all of the worker.
#[test]
fn reads_move_with_the_writes_when_a_server_is_fenced() {
    block_on(async {
        for kind in SERVERS {
            let [(old, mut world), (new, _)] = pair(kind).await;
            let address = Address::of(&old).await;
            world.url = address.url(&old, &world.url);
            let worker = world.worker(0);
            use_all(&worker).await;
            assert_eq!(worker.deleted().await, 1);
            use_all(&worker).await;
            use_all(&worker).await;

            address.move_to(&new);
            let fence: &[&str] = match kind {
                Kind::Mariadb => &["SET GLOBAL read_only = 1"],
                _ => &[
                    "ALTER SYSTEM SET default_transaction_read_only = on",
                    "SELECT pg_reload_conf()",
                ],
            };
            for sql in fence {
                execute(&old.url(DATABASE), sql).await.unwrap();
            }
            if kind == Kind::Postgres {
                // It heeds the order soon, not at once: a write that it still takes is its own.
                eventually(SOON, async || {
                    execute(&old.url("app"), "CREATE TABLE probe ()").await.err()
                })
                .await;
            }
            // Each of them may have come before the old server's session has the new setting.
            eventually(SOON, async || {
                let answer = worker.populate().await;
                assert_eq!(answer.status, 201, "{kind:?}: {answer:?}");
                (worker.total().await == 1).then_some(())
            })
            .await;
            for _ in 0..10 {
                assert_eq!(worker.total().await, 1, "{kind:?}: a read from the old server");
                assert_eq!(worker.get("/readyz").await.status, 200);
            }
            assert_eq!(worker.deleted().await, 1, "{kind:?}");
        }
    });
}

/// Nothing shows that the address leads elsewhere, but the connections' age.
#[test]
fn reads_move_to_the_new_server_when_connections_are_old() {
    block_on(async {
        for kind in SERVERS {
            let [(old, mut world), (new, second)] = pair(kind).await;
            second.worker(0).populated().await;
            let address = Address::of(&old).await;
            world.url = address.url(&old, &world.url);
            world.lifetimes.max = Some(Duration::from_millis(200));
            let worker = world.worker(0);
            assert_eq!(worker.total().await, 0, "{kind:?}");
            address.move_to(&new);
            // Used all the time: none of them rests for long.
            eventually(SOON, async || {
                let answer = worker.get("/data?limit=1").await;
                assert_eq!(answer.status, 200, "{kind:?}: {answer:?}");
                (answer.json()["total"] == 1).then_some(())
            })
            .await;
        }
    });
}

/// Five connections for four workers that may want five each: every worker gets what it needs to
/// serve one request after another.
#[test]
fn every_worker_is_served_when_the_server_admits_few() {
    block_on(async {
        let limits = [
            (Kind::Postgres, "CONNECTION LIMIT 5"),
            (Kind::Mariadb, "WITH MAX_USER_CONNECTIONS 5"),
        ];
        for (kind, limit) in limits {
            let server = Server::running(kind);
            let mut world = World::on(&server).await;
            for sql in owner(kind, "few", "few", limit) {
                execute(&server.url(DATABASE), &sql).await.unwrap();
            }
            world.url = server.url("few").replace("tester:", "few:");
            world.lifetimes.idle = Some(Duration::from_millis(300));
            world.prepare().await;
            let workers = [0, 1, 2, 3].map(|slot| world.worker(slot));
            let mut load = JoinSet::new();
            for worker in &workers {
                for number in 0..12 {
                    let worker = worker.clone();
                    load.spawn(async move {
                        match number % 3 {
                            0 => worker.populate().await,
                            1 => worker.get("/data").await,
                            _ => worker.delete().await,
                        }
                    });
                }
            }
            drop(load.join_all().await);
            for worker in &workers {
                eventually(SOON, async || {
                    (worker.get("/readyz").await.status == 200).then_some(())
                })
                .await;
            }
            // Each worker has one connection at least by now, and uses it for whatever comes.
            for worker in &workers {
                eventually(SOON, async || (worker.populate().await.status == 201).then_some(()))
                    .await;
                eventually(SOON, async || (worker.delete().await.status == 200).then_some(()))
                    .await;
            }
        }
    });
}
