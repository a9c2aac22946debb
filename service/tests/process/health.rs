//! `ferricorn healthcheck` asks the server that runs, whatever stands in its file by now.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use crate::client::Connection;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually};
use crate::proc;

/// Asks, as the server's own user, in the folder that it was started in.
fn ask(server: &Ferricorn, options: &[&str]) -> Output {
    let user = |name: &str| proc::status(server.pid(), name)?.parse().ok();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferricorn"));
    command.arg("healthcheck").args(options).current_dir(server.folder()).env_clear();
    if let (Some(uid), Some(gid)) = (user("Uid"), user("Gid")) {
        command.uid(uid).gid(gid);
    }
    command.output().expect("it can be run")
}

fn assert_healthy(server: &Ferricorn) {
    let output = ask(server, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(0), ""));
}

/// An invalid file changes nothing: not whether the server is healthy, either.
#[test]
fn a_server_is_healthy_while_its_file_is_wrong_gone_or_ahead_of_it() {
    let server = Ferricorn::bundled().config("workers = 1").start();
    assert_healthy(&server);
    let path = server.folder().join("config.toml");
    for text in ["wrokers = 3", "bind = [", "bind = \"127.0.0.1:1\"", "proxy_protocol = true"] {
        std::fs::write(&path, text).unwrap();
        assert_healthy(&server);
    }
    std::fs::remove_file(&path).unwrap();
    assert_healthy(&server);
    // Another file's server is another server, and an address that is given is the one to ask.
    std::fs::write(server.folder().join("other.toml"), "bind = \"127.0.0.1:1\"").unwrap();
    for options in [["--config", "other.toml"], ["--bind", "127.0.0.1:1"]] {
        let output = ask(&server, &options);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("ferricorn: 127.0.0.1:1: failed to connect"), "{said}");
    }
}

/// The paths that are asked follow the reload, the upgrade, and the end.
#[test]
fn what_is_asked_is_what_the_server_follows() {
    let mut server = Ferricorn::bundled().config("workers = 1").start();
    let first = server.address();
    let rewrite = |text: &str| std::fs::write(server.folder().join("config.toml"), text).unwrap();
    rewrite("bind = \"127.0.0.1:0\"\nworkers = 1\nproxy_protocol = true\n");
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    // Whoever does not begin as a proxy is sent away by now.
    let plain = Connection::open(&first).unwrap().get("/healthz");
    assert!(!plain.is_ok_and(|answer| answer.status == 200));
    assert_healthy(&server);
    rewrite("bind = \"[::1]:0\"\nworkers = 1\n");
    server.signal(Signal::SIGHUP);
    server.wait_event("listening_ended", &[]);
    assert_healthy(&server);
    server.signal(Signal::SIGUSR2);
    server.wait_event("server_upgraded", &[]);
    eventually("the new image has published it", PATIENCE, || {
        ask(&server, &[]).status.success().then_some(())
    });
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    assert_eq!(ask(&server, &[]).status.code(), Some(1));
}

/// Health checks would be most of the lines of a quiet server.
#[test]
fn healthcheck_leaves_no_access_line() {
    let server = Ferricorn::bundled()
        .config("workers = 1\n[log]\nskip = [\"/data\", \"/assets/*\", \"/gone 404\", \"201\"]")
        .start();
    for _ in 0..3 {
        assert_healthy(&server);
    }
    assert!(ask(&server, &["--live"]).status.success());
    for target in ["/data", "/data?limit=1", "/assets/app.js", "/assets/", "/data/", "/", "/gone"] {
        server.get(target).expect("it is answered");
    }
    // The name alone hides no request: neither one elsewhere, nor a proxied one, nor a failed one.
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n",
        "POST /populate HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n",
        "GET /readyz HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.7\r\n",
        "POST /readyz HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n",
        "GET /readyz HTTP/1.1\r\n",
        "GET /data?limit=0 HTTP/1.1\r\nhost: a\r\n",
        "POST /gone HTTP/1.1\r\nhost: a\r\n",
    ] {
        let mut connection = server.connect();
        connection.send(format!("{request}user-agent: ferricorn-healthcheck\r\n\r\n")).unwrap();
        connection.response().expect("it is answered");
    }
    server.get("/last").expect("it is answered");
    server.wait_log("\"GET /last HTTP/1.1\" 404 ");
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains(" HTTP/1.1\" "));
    let lines: Vec<&str> = lines.map(|line| line.split('"').nth(1).expect("a request")).collect();
    let expected = [
        "GET /assets/ HTTP/1.1",
        "GET /data/ HTTP/1.1",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1",
        "GET /readyz HTTP/1.1",
        "POST /readyz HTTP/1.1",
        "GET /readyz HTTP/1.1",
        "GET /data?limit=0 HTTP/1.1",
        "GET /last HTTP/1.1",
    ];
    assert_eq!(lines, expected, "{log}");
    server.stop();
}
