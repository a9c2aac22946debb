//! The bundled program: the main job, from all of its workers.

use std::collections::HashSet;

use crate::client::{Connection, Response, post};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};

fn populate(connection: &mut Connection) -> Response {
    connection.send(post("/populate", "")).expect("the connection is open");
    connection.response().expect("a populate is answered")
}

fn data(response: &Response) -> String {
    let body: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(body["message"], "Data added successfully");
    body["data"].as_str().expect("the row").to_owned()
}

fn delete(server: &Ferricorn) -> Response {
    let mut connection = server.connect();
    connection.send("DELETE /delete HTTP/1.1\r\nhost: a\r\n\r\n").expect("it is open");
    connection.response().expect("a delete is answered")
}

/// Fifty clients with ten requests each, all at once; then the count is exact. Every worker has stored
/// some, and no two rows are the same: no worker has its siblings' random numbers.
#[test]
fn five_hundred_populates_are_five_hundred_different_rows() {
    let server = Ferricorn::bundled().start();
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let mut connection = server.connect();
            std::thread::spawn(move || {
                let answers = (0..10).map(|_| populate(&mut connection)).collect::<Vec<_>>();
                answers
                    .iter()
                    .map(|answer| (data(answer), answer.field("x-worker").to_owned()))
                    .collect()
            })
        })
        .collect();
    let rows: Vec<(String, String)> =
        clients.into_iter().flat_map(|client| -> Vec<_> { client.join().unwrap() }).collect();
    assert_eq!(rows.len(), 500);
    assert!(rows.iter().all(|(row, _)| {
        row.len() == 10 && row.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }));
    let different: HashSet<&String> = rows.iter().map(|(row, _)| row).collect();
    assert_eq!(different.len(), 500);
    let mut workers: HashSet<String> = rows.iter().map(|(_, worker)| worker.clone()).collect();
    let mut count = 500;
    // Of a worker that the machine lets wait, its siblings have taken the connections.
    eventually("rows of all four workers", PATIENCE, || {
        if workers.len() < 4 {
            workers.insert(populate(&mut server.connect()).field("x-worker").to_owned());
            count += 1;
        }
        (workers.len() == 4).then_some(())
    });
    let deleted = format!("{{\"message\":\"{count} rows deleted\"}}");
    assert_eq!(delete(&server).text(), deleted);
    assert_eq!(delete(&server).text(), "{\"message\":\"0 rows deleted\"}");
    server.stop();
}

/// The first numbers that each worker draws after its fork, over many forks.
#[test]
fn workers_draw_different_numbers_from_the_first_one_on() {
    let server = Ferricorn::bundled().config("workers = 2").start();
    let mut rows = HashSet::new();
    for _ in 0..10 {
        for (slot, pid) in server.wait_workers(2) {
            eventually("an answer of that worker", PATIENCE, || {
                let answer = populate(&mut server.connect());
                let row = data(&answer);
                assert!(rows.insert(row), "a row came twice");
                (answer.field("x-worker") == slot.to_string()).then_some(())
            });
            send(pid, Signal::SIGKILL);
            eventually("it is gone", PATIENCE, || {
                (!server.workers().contains(&(slot, pid))).then_some(())
            });
        }
    }
    server.stop();
}

#[test]
fn a_row_that_was_acknowledged_survives_the_death_of_every_process() {
    let mut server = Ferricorn::bundled().start();
    let mut connection = server.connect();
    for _ in 0..20 {
        assert_eq!(populate(&mut connection).status, 201);
    }
    for (_, pid) in server.workers() {
        send(pid, Signal::SIGKILL);
    }
    send(server.pid(), Signal::SIGKILL);
    assert_eq!(server.wait_exit(), Exit::Signal(9));
    eventually("nobody is left", PATIENCE, || server.remains().is_empty().then_some(()));
    let files = std::fs::read_dir(server.folder().join("data")).expect("the database's folder");
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = file.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let url = format!("sqlite://{}/ferricorn.db", folder.path().display());
    let again = Ferricorn::bundled().by_ourselves().env("DATABASE_URL", url).start();
    assert_eq!(delete(&again).text(), "{\"message\":\"20 rows deleted\"}");
    again.stop();
}

#[test]
fn the_answers_are_those_of_the_contract() {
    let server = Ferricorn::bundled().start();
    for (path, text) in [("/healthz", "alive"), ("/readyz", "ready")] {
        let answer = server.get(path).unwrap();
        assert_eq!((answer.status, answer.text()), (200, format!("{{\"status\":\"{text}\"}}")));
    }
    let missing = server.get("/nothing").unwrap();
    assert_eq!((missing.status, missing.field("content-type")), (404, "application/json"));
    let wrong = server.get("/populate").unwrap();
    assert_eq!((wrong.status, wrong.field("allow")), (405, "POST,OPTIONS"));
    let mut connection = server.connect();
    for (proto, told) in [("https", "max-age=31536000"), ("http", "")] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: {proto}\r\n\r\n");
        connection.send(request).unwrap();
        // 127.0.0.1 is believed unless the configuration says otherwise.
        let answer = connection.response().unwrap();
        assert_eq!(answer.field("strict-transport-security"), told);
    }
    connection.send(post("/delete", "")).unwrap();
    let wrong = connection.response().unwrap();
    assert_eq!((wrong.status, wrong.field("allow")), (405, "DELETE,OPTIONS"));
    assert_eq!(server.get("/").unwrap().status, 200);
    for answer in [missing, wrong] {
        for field in ["content-security-policy", "x-content-type-options", "x-frame-options"] {
            assert!(!answer.field(field).is_empty(), "{field}");
        }
    }
    server.stop();
}

/// A client that asks first is not told to send a body that means nothing.
#[test]
fn expect_on_an_unknown_path_is_404_at_once() {
    let server = Ferricorn::bundled().config("workers = 1").start();
    for (request, status) in [
        ("POST /nothing", 404),
        ("PUT /assets/app.map", 404),
        ("PUT /populate", 405),
        ("POST /", 405),
        ("POST /populate", 100),
    ] {
        let mut connection = server.connect();
        let head = "host: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
        connection.send(format!("{request} HTTP/1.1\r\n{head}")).unwrap();
        let answer = connection.response().expect("it is answered before its body comes");
        assert_eq!(answer.status, status, "{request}");
        if status == 100 {
            connection.send("abc").unwrap();
            assert_eq!(connection.response().expect("it is answered").status, 201);
        }
    }
    server.stop();
}

#[test]
fn a_database_that_cannot_be_had_is_told_at_the_start() {
    let said = Ferricorn::bundled().env("DATABASE_URL", "sqlite:///proc/none/f.db").fails_with(4);
    assert!(said.contains("failed to load the application"), "{said}");
}

#[test]
fn a_wrong_configuration_ends_the_start_with_78_in_words() {
    for (text, expected) in [
        ("wokers = 3", "unknown key \"wokers\": did you mean \"workers\"?"),
        ("workers = 0", "workers: expected 1 to 256 or \"auto\", found 0"),
        ("workers = \"many\"", "workers: "),
        ("timeout = -1", "timeout: "),
        ("bind = \"nowhere\"", "bind: "),
        ("[log]\nlevel = \"loud\"", "log.level: "),
        ("[log]\naccess_format = \"%(z)s\"", "log.access_format: "),
        ("[limits]\nbody = \"much\"", "limits.body: "),
        ("[lgo]\nlevel = \"info\"", "unknown table \"lgo\""),
        ("[database]\nurl = \"oracle://x\"", "database.url: "),
        ("workers = ", "config.toml:"),
        ("user = \"nobody-of-that-name\"", "user: no user is called"),
    ] {
        let text =
            if text.contains("bind") { text.to_owned() } else { format!("bind = \":0\"\n{text}") };
        let said = Ferricorn::bundled().config(&text).fails_with(78);
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn healthcheck_says_whether_the_server_is_ready() {
    let server = Ferricorn::bundled().start();
    let address = server.address().tcp().to_string();
    let check = |address: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_ferricorn"))
            .args(["--bind", address, "healthcheck"])
            .current_dir(server.folder())
            .env_clear()
            .status()
            .expect("it starts")
            .code()
    };
    assert_eq!(check(&address), Some(0));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(check(&nobody.to_string()), Some(1));
    server.stop();
}

/// On routes that want no body, too: told by its length or in chunks, it is refused before anything
/// is done.
#[test]
fn a_body_that_is_too_long_is_refused_on_every_route() {
    let server = Ferricorn::bundled().config("[limits]\nbody = 1000").start();
    let long = "d".repeat(1001);
    for (method, target) in [("POST", "/populate"), ("DELETE", "/delete"), ("GET", "/")] {
        let head = format!("{method} {target} HTTP/1.1\r\nhost: a\r\n");
        for body in [
            format!("content-length: 1001\r\n\r\n{long}"),
            format!("transfer-encoding: chunked\r\n\r\n3e9\r\n{long}\r\n0\r\n\r\n"),
        ] {
            let mut connection = server.connect();
            connection.send(format!("{head}{body}")).unwrap();
            let answer = connection.response().expect("it is told");
            let error = "{\"error\":\"the request body is longer than allowed\"}";
            assert_eq!((answer.status, answer.text().as_str()), (413, error), "{head}");
            assert!(answer.closes(), "{head}");
        }
    }
    let mut connection = server.connect();
    let fits = "d".repeat(1000);
    let chunked = format!("transfer-encoding: chunked\r\n\r\n3e8\r\n{fits}\r\n0\r\n\r\n");
    for body in [format!("content-length: 1000\r\n\r\n{fits}"), chunked] {
        connection.send(format!("POST /populate HTTP/1.1\r\nhost: a\r\n{body}")).unwrap();
        assert_eq!(connection.response().expect("the connection is kept").status, 201);
    }
    assert_eq!(delete(&server).text(), "{\"message\":\"2 rows deleted\"}");
    server.stop();
}
