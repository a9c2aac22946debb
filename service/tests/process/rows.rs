//! The bundled program's promises about its rows and its password, on each of its databases.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::client::{Connection, post};
use crate::databases::start;
use crate::harness::{Ferricorn, PATIENCE, eventually};
use crate::machine;
use crate::proc;
use crate::servers::{DATABASE, Kind, PASSWORD, Server};

const WORKERS: u16 = 4;
const DELETE: &str = "DELETE /delete HTTP/1.1\r\nhost: test\r\n\r\n";

/// A connection that this worker serves.
fn connect_to(program: &Ferricorn, slot: u16) -> Connection {
    eventually(&format!("a connection to worker {slot}"), PATIENCE, || {
        let mut connection = program.connect();
        let answer = connection.get("/assets/icon.svg").expect("the service is well");
        (answer.field("x-worker") == slot.to_string()).then_some(connection)
    })
}

/// Removes all rows, and answers how many they were.
fn delete(connection: &mut Connection) -> u64 {
    connection.send(DELETE).expect("the connection is kept");
    let answer = connection.response().expect("it is answered");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let message = body["message"].as_str().expect("a text");
    message.strip_suffix(" rows deleted").expect("a count").parse().expect("a number")
}

/// Returns the number of rows: one statement counts them.
fn total(program: &Ferricorn) -> u64 {
    let answer = program.get("/data?limit=1").expect("the service is well");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    page["total"].as_u64().expect("they are soon counted")
}

/// All workers store rows, and each of them deletes meanwhile: until each has met rows, however fast
/// the one is beside the other.
fn deletes_and_populates_of_all_workers_add_up(kind: Kind) {
    const CLIENTS: u16 = 4 * WORKERS;
    const POPULATES: u64 = 60;
    let (_server, program) = start(kind);
    program.wait_workers(WORKERS);
    let populating = Arc::new(AtomicU64::new(u64::from(CLIENTS)));
    let without_rows = Arc::new(AtomicU64::new(u64::from(WORKERS)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut connection = connect_to(&program, client % WORKERS);
            let populating = populating.clone();
            let without_rows = without_rows.clone();
            std::thread::spawn(move || {
                let begun = Instant::now();
                let mut populated = 0;
                while populated < POPULATES || without_rows.load(Ordering::Relaxed) > 0 {
                    assert!(begun.elapsed() < PATIENCE, "a worker's deletes meet no rows");
                    connection.send(post("/populate", "")).expect("the connection is kept");
                    let answer = connection.response().expect("it is answered");
                    assert_eq!(answer.status, 201, "{}", answer.text());
                    populated += 1;
                }
                populating.fetch_sub(1, Ordering::Relaxed);
                populated
            })
        })
        .collect();
    let deleters: Vec<_> = (0..WORKERS)
        .map(|slot| {
            let mut connection = connect_to(&program, slot);
            let populating = populating.clone();
            let without_rows = without_rows.clone();
            std::thread::spawn(move || {
                let mut deleted = 0;
                while populating.load(Ordering::Relaxed) > 0 {
                    let rows = delete(&mut connection);
                    if deleted == 0 && rows > 0 {
                        without_rows.fetch_sub(1, Ordering::Relaxed);
                    }
                    deleted += rows;
                }
                deleted
            })
        })
        .collect();
    let populated: u64 = clients
        .into_iter()
        .map(|client| client.join().expect("every populate is acknowledged"))
        .sum();
    let deleted: u64 =
        deleters.into_iter().map(|deleter| deleter.join().expect("every delete is answered")).sum();
    assert_eq!(deleted + total(&program), populated, "{deleted} deleted");
    program.stop();
}

#[test]
fn deletes_and_populates_add_up_on_sqlite() {
    deletes_and_populates_of_all_workers_add_up(Kind::Sqlite);
}

#[test]
fn deletes_and_populates_add_up_on_postgres() {
    deletes_and_populates_of_all_workers_add_up(Kind::Postgres);
}

#[test]
fn deletes_and_populates_add_up_on_mariadb() {
    deletes_and_populates_of_all_workers_add_up(Kind::Mariadb);
}

/// Sends requests, each on a connection of its own, which is reset as soon as a worker has read it.
fn send_and_leave(program: &Ferricorn, requests: u64, request: &str) {
    let server = program.address().tcp();
    let connections: Vec<TcpStream> = (0..requests)
        .map(|_| {
            let mut connection = TcpStream::connect(server).expect("it listens");
            connection.write_all(request.as_bytes()).expect("it fits");
            connection
        })
        .collect();
    for connection in connections {
        let SocketAddr::V4(client) = connection.local_addr().expect("it has an address") else {
            panic!("it is served over IPv4");
        };
        eventually("a worker reads the request", PATIENCE, || proc::is_read(client).then_some(()));
        SockRef::from(&connection).set_linger(Some(Duration::ZERO)).expect("it is a socket");
        drop(connection);
    }
}

/// Clients that reset the connection in mid-request: what they asked for is done, once.
fn a_client_that_leaves_stops_nothing(kind: Kind) {
    const ROUNDS: u64 = 5;
    const CLIENTS: u64 = 32;
    let (_server, program) = start(kind);
    for _ in 0..ROUNDS {
        send_and_leave(&program, CLIENTS, &post("/populate", ""));
    }
    eventually("every row is stored", PATIENCE, || {
        let stored = total(&program);
        assert!(stored <= ROUNDS * CLIENTS, "{stored} rows of {}", ROUNDS * CLIENTS);
        (stored == ROUNDS * CLIENTS).then_some(())
    });
    send_and_leave(&program, 1, DELETE);
    eventually("every row is removed", PATIENCE, || {
        let stored = total(&program);
        assert!([0, ROUNDS * CLIENTS].contains(&stored), "half a delete left {stored}");
        (stored == 0).then_some(())
    });
    program.stop();
}

#[test]
fn a_client_that_leaves_stops_nothing_on_sqlite() {
    a_client_that_leaves_stops_nothing(Kind::Sqlite);
}

#[test]
fn a_client_that_leaves_stops_nothing_on_postgres() {
    a_client_that_leaves_stops_nothing(Kind::Postgres);
}

#[test]
fn a_client_that_leaves_stops_nothing_on_mariadb() {
    a_client_that_leaves_stops_nothing(Kind::Mariadb);
}

#[test]
fn no_process_shows_the_password() {
    let _share = machine::share();
    let server = Server::running(Kind::Postgres);
    let url = server.url(DATABASE);
    let program = Ferricorn::bundled().env("DATABASE_URL", &url).start();
    let processes = program.remains();
    assert!(processes.len() >= 6, "a master, workers and a logger: {processes:?}");
    for process in processes {
        for file in ["cmdline", "comm"] {
            let shown =
                std::fs::read(format!("/proc/{}/{file}", process.pid)).expect("it is alive");
            let shown = String::from_utf8_lossy(&shown);
            assert!(!shown.is_empty() && !shown.contains(PASSWORD), "{process:?}: {shown}");
        }
    }
    let log = program.log();
    assert!(!log.contains(PASSWORD), "{log}");
    program.stop();
    let said = Ferricorn::bundled().flag("--database-url").flag(&url).fails_with(78);
    assert!(said.contains("DATABASE_URL_FILE") && !said.contains(PASSWORD), "{said}");
}

#[test]
fn a_wait_for_the_database_that_boot_timeout_cuts_short_is_told() {
    let url = Server::new(Kind::Postgres).url(DATABASE);
    let said = Ferricorn::bundled()
        .config("boot_timeout = 3\n[database]\nconnect_timeout = \"5m\"")
        .env("DATABASE_URL", url)
        .fails_with(4);
    let warned = "database.connect_timeout is 300s, and boot_timeout ends the start after 3s: the \
                  database is waited for 2s, unless boot_timeout is raised";
    assert!(said.contains(warned), "{said}");
    assert!(said.contains("cannot be reached after 2s"), "{said}");
}
