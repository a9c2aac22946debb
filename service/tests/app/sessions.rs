//! Defaults of a server that would undo what its clients are promised.

use sqlx::{Connection, MySqlConnection, Row as _};

use crate::servers::{DATABASE, PASSWORD, Server};
use crate::world::{Kind, World, block_on, execute};

/// The rows that a connection of its own sees.
async fn rows(url: &str) -> i64 {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    let counted = sqlx::raw_sql("SELECT count(*) FROM records").fetch_one(&mut connection).await;
    counted.unwrap().get(0)
}

/// Six rows of two workers are stored, and seen from outside; each worker's delete leaves no lock
/// that another delete would wait for.
async fn assert_stored(world: &World) {
    world.prepare().await;
    let workers = [world.worker(0), world.worker(1)];
    for worker in workers.iter().cycle().take(6) {
        worker.populated().await;
    }
    assert_eq!(rows(&world.url).await, 6);
    assert_eq!(workers[0].deleted().await, 6);
    workers[0].populated().await;
    assert_eq!(workers[1].deleted().await, 1);
    assert_eq!(rows(&world.url).await, 0);
}

#[test]
fn rows_are_stored_when_the_server_does_not_commit_by_itself() {
    block_on(async {
        let server = Server::running(Kind::Mariadb);
        let world = World::on(&server).await;
        execute(&world.url, "SET GLOBAL autocommit = 0").await.unwrap();
        execute(&world.url, "SET GLOBAL sql_mode = 'ORACLE,ANSI_QUOTES'").await.unwrap();
        assert_stored(&world).await;
    });
}

#[test]
fn rows_are_stored_when_init_connect_would_undo_them() {
    block_on(async {
        let server = Server::running(Kind::Mariadb);
        let mut world = World::on(&server).await;
        let admin = server.url(DATABASE);
        // Not run for a user that may do everything.
        for sql in [
            format!("CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'"),
            "GRANT ALL ON test_0.* TO app@'%'".to_owned(),
            "SET GLOBAL init_connect = 'SET autocommit = 0, sql_safe_updates = 1'".to_owned(),
        ] {
            execute(&admin, &sql.replace("test_0", world.name())).await.unwrap();
        }
        world.url = world.url.replace("tester:", "app:");
        assert_stored(&world).await;
    });
}

/// A write that a server acknowledges and does not store is found at the start.
#[test]
fn a_start_fails_when_a_write_is_not_seen_by_others() {
    let sabotage = [
        (
            Kind::Sqlite,
            "CREATE TRIGGER t BEFORE UPDATE ON _sqlx_migrations BEGIN SELECT RAISE(IGNORE); END",
        ),
        (Kind::Postgres, "CREATE RULE r AS ON UPDATE TO _sqlx_migrations DO INSTEAD NOTHING"),
        (
            Kind::Mariadb,
            "CREATE TRIGGER t BEFORE UPDATE ON _sqlx_migrations FOR EACH ROW \
             SET NEW.execution_time = OLD.execution_time",
        ),
    ];
    for (kind, sql) in sabotage {
        crate::world::run(kind, async |world: World| {
            world.prepare().await;
            world.prepare().await;
            assert_eq!(world.worker(0).total().await, 0, "{kind:?}: a proof leaves no row");
            execute(&world.url, sql).await.unwrap();
            let error = world.start().await.unwrap_err().to_string();
            assert!(error.contains("does not keep what is written"), "{kind:?}: {error}");
            assert!(!error.contains(PASSWORD), "{error}");
        });
    }
}
