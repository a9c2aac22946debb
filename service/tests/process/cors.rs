//! `examples/cors.rs`: what a page of another site is told.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use crate::client::{Connection, Response, post};
use crate::harness::{Ferricorn, parse_address};
use crate::proc;

const ORIGIN: &str = "https://page.example";

fn ask(server: &Ferricorn, request: &str) -> Response {
    let mut connection = server.connect();
    let request =
        request.replacen("host: test\r\n", "host: test\r\norigin: https://page.example\r\n", 1);
    // It may be refused before all of it is sent.
    let _sent = connection.send(request);
    connection.response().expect("it is answered")
}

fn get(target: &str) -> String {
    crate::client::get(target)
}

#[test]
fn own_answers_carry_the_cors_fields_of_the_application() {
    let server = Ferricorn::cors().config("workers = 1\ntimeout = \"500ms\"").start();
    let long = "d".repeat(65_537);
    let longer = "d".repeat((8 << 20) + 1);
    for (request, status) in [
        (post("/notes", "note"), 200),
        (post("/notes", &long), 413),
        (post("/files/a", &long), 200),
        (post("/files/a", &longer), 413),
        (get("/panic"), 500),
        (get("/slow"), 504),
        (get("/nothing"), 404),
        (get("/user"), 403),
    ] {
        let answer = ask(&server, &request);
        let start: String = request.chars().take(30).collect();
        assert_eq!(answer.status, status, "{start}");
        assert_eq!(answer.field("access-control-allow-origin"), ORIGIN, "{start}");
    }
    server.stop();
}

/// An operator's word wins over the application's default, and not over what it says of a path.
#[test]
fn limit_of_the_operator_wins_over_the_default_in_code() {
    let server = Ferricorn::cors().config("workers = 1\n[limits]\nbody = 10").start();
    assert_eq!(ask(&server, &post("/notes", "0123456789")).status, 200);
    assert_eq!(ask(&server, &post("/notes", "0123456789a")).status, 413);
    assert_eq!(ask(&server, &post("/files/a", "0123456789a")).status, 200);
    server.stop();
}

#[test]
fn peer_credentials_are_those_of_the_client_on_a_unix_socket() {
    let server = Ferricorn::cors()
        .config("workers = 1\nbind = [\"127.0.0.1:0\", \"unix:sock\"]\nunix_socket_mode = 0o666")
        .start();
    let path = server.folder().join("sock");
    let address = parse_address(&format!("unix:{}", path.display()));
    let mut connection = Connection::open(&address).expect("it listens");
    let own = format!("user {}\n", nix::unistd::geteuid());
    assert_eq!(connection.get("/user").expect("it is answered").text(), own);
    assert_eq!(connection.get("/user").expect("it is answered").text(), own);
    // Another user's client.
    if crate::program::may_become_nobody() {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(server.folder(), open).expect("the folder is ours");
        let script = "import socket, sys\n\
            stream = socket.socket(socket.AF_UNIX)\n\
            stream.connect(sys.argv[1])\n\
            stream.sendall(b'GET /user HTTP/1.0\\r\\n\\r\\n')\n\
            print(stream.makefile().read())\n";
        let output = std::process::Command::new("python3")
            .args(["-c", script, &path.display().to_string()])
            .uid(1)
            .gid(1)
            .output()
            .expect("python3 is there");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("user 1\n"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    }
    let over_tcp = server.get("/user").expect("it is answered");
    let error = "{\"error\":\"the client came over TCP, which has no peer credentials\"}";
    assert_eq!((over_tcp.status, over_tcp.text().as_str()), (403, error));
    server.stop();
}

#[test]
fn processes_and_log_have_the_name_of_the_application() {
    let server = Ferricorn::cors().config("workers = 2").start();
    let mut names: Vec<_> =
        proc::children(server.pid()).into_iter().map(|child| child.name).collect();
    names.sort();
    assert_eq!(names, ["uploads-log", "uploads-w0", "uploads-w1"]);
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", server.pid()));
    let title = title.expect("the master runs");
    assert!(title.starts_with("uploads: master") || !title.contains(": "), "{title:?}");
    let first = server.log().lines().next().unwrap_or_default().to_owned();
    assert!(first.ends_with(&format!("Starting uploads {}", env!("CARGO_PKG_VERSION"))), "{first}");
    server.stop();
}
