//! Starts: waiting for a server, and not waiting for what will not change.

use std::time::Duration;

use ferricorn::App;
use tokio::time::{Instant, timeout};

use crate::app::Records;
use crate::app::store::{Start, Target, prepare};
use crate::logs::Logs;
use crate::servers::{PASSWORD, Server};
use crate::world::{Kind, World, block_on, eventually, execute};

/// Far less than what a start waits for a server that is away.
const AT_ONCE: Duration = Duration::from_secs(20);

const SERVERS: [Kind; 2] = [Kind::Postgres, Kind::Mariadb];

fn start(seconds: u64) -> Start {
    Start { connect_timeout: Duration::from_secs(seconds), connections: 20 }
}

fn settings_of<A: App>(_: &A) -> Vec<(&'static str, String)> {
    A::SETTINGS.iter().map(|setting| (setting.key(), setting.long_flag())).collect()
}

#[test]
fn the_application_has_its_settings() {
    let settings = settings_of(&Records::new().unwrap());
    let settings: Vec<_> = settings.iter().map(|(key, flag)| (*key, flag.as_str())).collect();
    let expected = [
        ("limits.body", "limit-body"),
        ("database.url", "database-url"),
        ("database.max_connections", "database-max-connections"),
        ("database.connect_timeout", "database-connect-timeout"),
        ("database.idle_timeout", "database-idle-timeout"),
        ("database.max_lifetime", "database-max-lifetime"),
        ("access.users", "access-users"),
        ("access.secret", "access-secret"),
        ("access.lifetime", "access-lifetime"),
        ("access.read", "access-read"),
        ("access.first_user", "access-first-user"),
        ("access.hosts", "access-hosts"),
    ];
    assert_eq!(settings, expected);
}

#[test]
fn a_start_waits_for_the_server_and_says_so() {
    block_on(async {
        for kind in SERVERS {
            let server = Server::running(kind);
            let world = World::on(&server).await;
            server.order("stop");
            let logs = Logs::new();
            let began = Instant::now();
            let waiting = tokio::spawn({
                let target = world.database().target;
                async move { prepare(&target, start(60)).await }
            });
            // Long enough for several attempts, and for more than one line.
            eventually(AT_ONCE, async || (logs.lines().len() >= 2).then_some(())).await;
            server.order("start");
            waiting.await.unwrap().unwrap();
            let seconds = began.elapsed().as_secs();
            assert_eq!(world.worker(0).total().await, 0);

            let lines = logs.lines();
            assert!(lines.len() as u64 <= seconds + 1, "one a second at most: {lines:#?}");
            for line in &lines {
                assert!(line.contains("waiting for the database at "), "{line}");
            }
            assert!(!logs.all().contains(PASSWORD));
        }
    });
}

#[test]
fn a_start_gives_up_when_nobody_is_there() {
    block_on(async {
        for kind in SERVERS {
            let target = Target::parse(&Server::new(kind).url("none")).unwrap();
            let error = timeout(AT_ONCE, prepare(&target, start(1))).await.expect("it gives up");
            let error = error.unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("the database at {target} cannot be reached after "))
            );
            assert!(error.contains("refused") && !error.contains(PASSWORD), "{error}");
        }
    });
}

#[test]
fn a_start_that_is_refused_does_not_wait() {
    block_on(async {
        for kind in SERVERS {
            let server = Server::running(kind);
            World::on(&server).await.prepare().await;
            let wrong = "Wr0ngPassword";
            for url in [server.url("none"), server.url_with("test_0", wrong)] {
                let target = Target::parse(&url).unwrap();
                let logs = Logs::new();
                let error = timeout(AT_ONCE, prepare(&target, start(60))).await;
                let error = error.expect("it does not wait").unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("the database at {target} refuses: ")),
                    "{error}"
                );
                let said = format!("{error} {target} {target:?} {}", logs.all());
                assert!(!said.contains(wrong) && !said.contains(PASSWORD), "{said}");
                assert!(!said.contains(" at line "), "a line of the server's source: {said}");
            }
        }
    });
}

#[test]
fn more_connections_than_the_server_admits_are_warned_of() {
    block_on(async {
        let limits = [
            (Kind::Postgres, "ALTER ROLE tester CONNECTION LIMIT 19"),
            (Kind::Mariadb, "SET GLOBAL max_connections = 19"),
        ];
        for (kind, limit) in limits {
            let server = Server::running(kind);
            let world = World::on(&server).await;
            let logs = Logs::new();
            world.prepare().await;
            assert_eq!(logs.lines(), [""; 0]);
            execute(&world.url, limit).await.unwrap();
            world.prepare().await;
            let target = world.database().target;
            let expected = format!(
                "the workers may open 20 connections together, and the database at {target} \
                 admits 19: lower database.max_connections or workers, or raise the server's limit"
            );
            assert_eq!(logs.lines().len(), 1, "{:#?}", logs.lines());
            assert!(logs.lines()[0].starts_with("WARN"), "{:#?}", logs.lines());
            assert!(logs.lines()[0].ends_with(&expected), "{:#?}", logs.lines());
        }
    });
}
