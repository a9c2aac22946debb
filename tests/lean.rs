//! A server with few features: `./check` runs this with none of them, with a file's format and with all. The
//! program is `examples/embedded.rs`, which has no command line.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The program, which `cargo test` and `cargo build --examples` leave beside the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a program");
    test.ancestors().nth(2).expect("target/debug").join("examples/embedded")
}

/// A program with this configuration, in a folder of its own.
fn start(folder: &Path, settings: &str) -> Child {
    fs::write(folder.join("server.toml"), settings).expect("the folder is writable");
    Command::new(program())
        .arg("server.toml")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("examples/embedded is built")
}

fn refusal(settings: &str) -> String {
    let folder = tempfile::tempdir().expect("there is room");
    let Output { status, stderr, .. } =
        start(folder.path(), settings).wait_with_output().expect("it ends");
    let text = String::from_utf8(stderr).expect("UTF-8");
    assert_eq!(status.code(), Some(78), "{text}");
    text
}

#[test]
fn server_without_command_line_serves_and_stops() {
    let folder = tempfile::tempdir().expect("there is room");
    let lines = "# one a line\nbind = [\"unix:socket\"]\nworkers = 2\nlog.error = \"error.log\"\n";
    let server = start(folder.path(), lines);
    let mut stream = loop {
        match UnixStream::connect(folder.path().join("socket")) {
            Ok(stream) => break stream,
            Err(_) => std::thread::yield_now(),
        }
    };
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).expect("it is read");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it is written");
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("hello\n"), "{response}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("it runs");
    let ended = server.wait_with_output().expect("it ends");
    assert!(ended.status.success(), "{ended:?}");
    let log = fs::read_to_string(folder.path().join("error.log")).expect("it is written");
    assert!(log.contains("Using workers: 2"), "{log}");
}

#[test]
fn certificates_need_the_feature_tls() {
    let text =
        refusal("bind = [\"unix:socket\"]\ntls.certificate = [\"a.crt\"]\ntls.key = [\"a.key\"]\n");
    assert!(text.starts_with("server.toml:2: tls.certificate: "), "{text}");
    let reason = if cfg!(feature = "tls") {
        "a.crt: no such file or directory\n"
    } else {
        ": this program is built without TLS; build ferricorn with its feature \"tls\"\n"
    };
    assert!(text.ends_with(reason), "{text}");
}

#[test]
fn tables_need_the_feature_toml() {
    let text = refusal("workers = 300\n[log]\nlevel = \"loud\"\n");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "server.toml:1: workers: expected 1 to 256 or \"auto\", found 300");
    if cfg!(feature = "toml") {
        assert!(lines[1].starts_with("server.toml:3: log.level: expected "), "{text}");
        assert_eq!(lines.len(), 2, "{text}");
    } else {
        assert!(lines[1].starts_with("server.toml:2: expected a line like workers = 4"), "{text}");
        assert!(lines[1].ends_with("build ferricorn with its feature \"toml\""), "{text}");
        assert!(
            lines[2].starts_with("server.toml:3: unknown key \"level\": did you mean"),
            "{text}"
        );
        assert_eq!(lines.len(), 3, "{text}");
    }
}
