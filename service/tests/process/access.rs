//! Users on the real program: read again at `HUP`, told nowhere, and no burden to readers.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Connection, Response};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};
use crate::load::{Client, Crowd, Load};
use crate::log_figures::figure;

const PASSWORD: &str = "correct horse battery";

fn ask(connection: &mut Connection, line: &str, fields: &str, body: &str) -> Response {
    let length = body.len();
    let text =
        format!("{line} HTTP/1.1\r\nhost: a\r\n{fields}content-length: {length}\r\n\r\n{body}");
    connection.send(text).expect("the connection is open");
    connection.response().expect("a request is answered")
}

fn login(connection: &mut Connection, name: &str, password: &str, fields: &str) -> Response {
    let body = format!(r#"{{"name":"{name}","password":"{password}"}}"#);
    let fields = format!("{fields}content-type: application/json\r\n");
    ask(connection, "POST /login", &fields, &body)
}

fn guarded() -> Ferricorn {
    Ferricorn::bundled()
        .config("workers = 2\n[log]\nlevel = 'debug'\n[access]\nusers = 'data/users'\n")
        .env("FERRICORN_ACCESS_FIRST_USER", format!("alice:{PASSWORD}"))
        .start()
}

/// Waits until none of these workers is left.
fn wait_replaced(server: &Ferricorn, before: &[(u16, i32)]) {
    eventually("other workers", PATIENCE, || {
        let now = server.workers();
        let is_new = now.len() == before.len() && now.iter().all(|worker| !before.contains(worker));
        is_new.then_some(())
    });
}

fn populate(server: &Ferricorn, token: &str) -> u16 {
    let bearer = format!("authorization: Bearer {token}\r\n");
    ask(&mut server.connect(), "POST /populate", &bearer, "").status
}

#[test]
fn users_are_read_again_at_hup_and_no_secret_is_told() {
    let server = guarded();
    let users = server.folder().join("data/users");
    let first = fs::read_to_string(&users).expect("the first user is made");
    assert!(first.starts_with("alice:$argon2id$"), "{first}");
    let answer = login(&mut server.connect(), "alice", PASSWORD, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let token = body["token"].as_str().expect("a token").to_owned();
    assert_eq!((populate(&server, &token), populate(&server, "x")), (201, 401));
    assert_eq!(login(&mut server.connect(), "alice", "wrong password", "").status, 401);

    fs::write(&users, "alice:plain text\n").expect("it can be written");
    let workers = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_log("data/users:1: the hash is neither bcrypt nor argon2id");
    assert_eq!(server.workers(), workers, "a wrong file changes nothing");
    assert_eq!(populate(&server, &token), 201);

    fs::write(&users, first.replace("alice", "bob")).expect("it can be written");
    server.signal(Signal::SIGHUP);
    wait_replaced(&server, &workers);
    assert_eq!(populate(&server, &token), 401, "alice is no user any more");
    assert_eq!(login(&mut server.connect(), "bob", PASSWORD, "").status, 200);
    server.signal(Signal::SIGUSR2);
    server.wait_event("server_upgraded", &[]);
    let secret = fs::read_to_string(server.folder().join("data/users.secret")).expect("made");
    let log = server.log();
    assert!(log.contains("login failed: wrong password of a known user, from 127.0.0.1"), "{log}");
    for told in [PASSWORD, "wrong password\"", "plain text", &token, secret.trim()] {
        assert!(!log.contains(told), "{told} is in the log: {log}");
    }
    server.stop();
}

#[test]
fn open_writing_is_told_once_at_the_start() {
    let server = Ferricorn::bundled().config("workers = 1").start();
    let told = "Writing is open to every client of 127.0.0.1:";
    server.wait_log(told);
    let workers = server.workers();
    server.signal(Signal::SIGHUP);
    wait_replaced(&server, &workers);
    assert_eq!(server.log().matches(told).count(), 1);
    server.stop();
    let server = guarded();
    assert!(!server.log().contains("Writing is open"), "there are users");
    server.stop();
}

/// 64 wrong logins a second: half from one address, which is soon refused without a trial; half each
/// from an address and a name of its own, which all are tried, as far as there is room.
#[test]
fn wrong_logins_leave_reads_alone() {
    let _alone = crate::machine::alone();
    let length = Duration::from_secs(figure("FIGURE_SECONDS", 2));
    let server = Ferricorn::bundled()
        .config("workers = 4\n[access]\nusers = 'data/users'\n")
        .env("FERRICORN_ACCESS_FIRST_USER", format!("alice:{PASSWORD}"))
        .start();
    let pause = Duration::from_millis(10);
    let load = Load::begin(
        &server.address(),
        &[Crowd::get(4, Client::KeepAlive { pause, watches: false })],
    );
    let stop = AtomicBool::new(false);
    let tried = AtomicU64::new(0);
    let refused = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let server = &server.address();
            let stop = &stop;
            let tried = &tried;
            let refused = &refused;
            let server = server.clone();
            scope.spawn(move || {
                let mut connection = Connection::open(&server).expect("it is open");
                for number in 0.. {
                    // Eight a second from each of eight.
                    let due = begun + Duration::from_millis(125) * number;
                    while Instant::now() < due && !stop.load(Ordering::Relaxed) {
                        std::thread::park_timeout(Duration::from_millis(5));
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (name, fields) = if thread % 2 == 0 {
                        ("alice".to_owned(), String::new())
                    } else {
                        let [high, low] = u16::try_from(number).unwrap_or_default().to_be_bytes();
                        let address = format!("203.{thread}.{high}.{low}");
                        (
                            format!("user{thread}-{number}"),
                            format!("x-forwarded-for: {address}\r\n"),
                        )
                    };
                    let answer = login(&mut connection, &name, "wrong password", &fields);
                    match answer.status {
                        401 => tried.fetch_add(1, Ordering::Relaxed),
                        429 | 503 => refused.fetch_add(1, Ordering::Relaxed),
                        status => panic!("{status}: {}", answer.text()),
                    };
                }
            });
        }
        eventually("the length of the figure", 4 * length, || {
            (begun.elapsed() >= length).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    let tally = load.finish();
    tally.assert_clean();
    let [p50, p99] = [0.5, 0.99].map(|share| tally.percentile(share));
    let tried = tried.into_inner();
    let refused = refused.into_inner();
    println!(
        "beside {tried} trials and {refused} refusals: {} GET /, p50 {p50:?}, p99 {p99:?}",
        tally.answered
    );
    assert!(refused > 0 && tried > 0, "{refused} {tried}");
    if !cfg!(debug_assertions) {
        assert!(p99 < Duration::from_millis(25), "{p99:?}");
    }
    server.stop();
}
