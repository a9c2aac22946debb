//! The control socket: what `ferricorn status`, `reload` and the like answer, while the server serves
//! and while it does not.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{Builder, Exit, Ferricorn, NOBODY, PATIENCE, Signal, eventually, send};
use crate::program::{may_become_nobody, repository};

/// Runs the bundled program as a client of this server.
pub(crate) fn client(server: &Ferricorn, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferricorn"));
    command.args(words).arg("--pid").arg(server.pid().to_string()).env_clear().current_dir("/");
    command
}

fn run(server: &Ferricorn, words: &[&str]) -> Output {
    client(server, words).output().expect("the program starts")
}

/// The exit code and both outputs of a client.
pub(crate) fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it exits"), text(&output.stdout), text(&output.stderr))
}

/// Runs a client that succeeds, and returns what it prints.
pub(crate) fn succeed(server: &Ferricorn, words: &[&str]) -> String {
    let (code, stdout, stderr) = said(&run(server, words));
    assert_eq!((code, stderr.as_str()), (0, ""), "{words:?}: {stdout}");
    stdout
}

/// Runs a client that fails with this code, and returns what it complains of.
pub(crate) fn fail(server: &Ferricorn, words: &[&str], code: i32) -> String {
    let (found, stdout, stderr) = said(&run(server, words));
    assert_eq!(found, code, "{words:?}: {stdout} {stderr}");
    stderr
}

pub(crate) fn status(server: &Ferricorn) -> Value {
    serde_json::from_str(&succeed(server, &["status", "--json"])).expect("one object")
}

fn hello(config: &str) -> Builder {
    Ferricorn::hello().config(config)
}

#[test]
fn status_tells_of_the_server_and_each_worker() {
    let server = hello("workers = 3").start();
    server.get("/").expect("it answers");
    let found = status(&server);
    assert_eq!(found["server"]["pid"], server.pid());
    assert_eq!(found["server"]["state"], "serving");
    assert_eq!(found["server"]["generation"], 1);
    assert_eq!(found["server"]["workers_serving"], 3);
    assert_eq!(found["server"]["requests_total"], 1);
    assert_eq!(found["server"]["addresses"][0], server.addresses()[0]);
    let workers = found["workers"].as_array().expect("a list");
    let pids: Vec<(u64, i64)> = workers
        .iter()
        .filter_map(|worker| Some((worker["slot"].as_u64()?, worker["pid"].as_i64()?)))
        .collect();
    let expected = server.workers().into_iter().map(|(slot, pid)| (slot.into(), pid.into()));
    assert!(expected.eq(pids), "{found}");
    assert!(
        workers.iter().all(|worker| worker["memory_bytes"].as_u64() > Some(1 << 20)),
        "{found}"
    );
    let text = succeed(&server, &["status"]);
    assert!(text.contains("3 of 3 workers serve; 1 requests answered"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn status_answers_while_every_worker_is_stopped() {
    let server = hello("workers = 2\nstall_timeout = 0").start();
    let mut silent = server.connect();
    for (_, pid) in server.workers() {
        send(pid, Signal::SIGSTOP);
    }
    assert_eq!(status(&server)["server"]["workers_serving"], 2);
    for (_, pid) in server.workers() {
        send(pid, Signal::SIGCONT);
    }
    silent.get("/").expect("it answers again");
}

#[test]
fn reload_returns_when_every_worker_is_replaced() {
    let server = hello("workers = 2").start();
    let before = server.workers();
    let text = succeed(&server, &["reload"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "reloading: generation 2");
    assert!(lines[lines.len() - 1].starts_with("reloaded: generation 2 in "), "{text}");
    let ready = lines.iter().filter(|line| line.contains(") ready in ")).count();
    assert_eq!(ready, 2, "{text}");
    let found = status(&server);
    assert_eq!(found["server"]["generation"], 2);
    assert_eq!(found["server"]["last_reload"]["event"], "reload_succeeded");
    let serving = found["workers"].as_array().expect("a list").iter();
    let serving = serving.filter(|serving| serving["state"] == "serving");
    let pids: Vec<i64> = serving.filter_map(|serving| serving["pid"].as_i64()).collect();
    assert_eq!(pids.len(), 2);
    assert!(before.iter().all(|(_, pid)| !pids.contains(&i64::from(*pid))), "{before:?} {pids:?}");
}

#[test]
fn reload_that_fails_exits_1_with_the_cause_in_one_line() {
    let server = hello("workers = 2").start();
    let before = server.workers();
    server.rewrite_config("workers = \"many\"");
    let cause = fail(&server, &["reload"], 1);
    assert_eq!(cause.lines().count(), 1, "{cause}");
    assert!(cause.contains("workers: expected") && cause.contains("many"), "{cause}");
    let (code, lines, _) = said(&run(&server, &["reload", "--json"]));
    let last: Value = serde_json::from_str(lines.lines().last().unwrap_or("")).expect("JSON");
    assert_eq!((code, &last["type"], &last["exit_code"]), (1, &"end".into(), &1.into()));
    assert_eq!(server.workers(), before);
    server.rewrite_config("workers = 1");
    succeed(&server, &["reload"]);
    server.wait_workers(1);
}

#[test]
fn other_users_may_not_control_the_server() {
    let server = hello("workers = 1").start();
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_ferricorn"));
    let (code, _, complaint) = said(&nowhere.args(["status", "--pid", "1"]).output().unwrap());
    assert_eq!((code, complaint.as_str()), (69, "ferricorn: no server with pid 1 runs here\n"));
    if !may_become_nobody() {
        return;
    }
    let by = |user: u32| said(&client(&server, &["status"]).uid(user).gid(user).output().unwrap());
    let (code, _, complaint) = by(12_345);
    assert_eq!(code, 77, "{complaint}");
    let sentence = format!("user 12345 may not control server {}", server.pid());
    assert!(complaint.contains(&sentence), "{complaint}");
    assert_eq!(by(NOBODY).0, 0, "the server's own user may");
}

#[test]
fn socket_in_a_file_is_found_by_its_path() {
    let builder = hello("workers = 1\ncontrol = \"control.sock\"");
    let path = builder.folder().join("control.sock");
    let server = builder.start();
    let path = path.display().to_string();
    assert!(succeed(&server, &["status", "--control", &path]).contains("1 of 1 workers serve"));
    let complaint = fail(&server, &["status", "--control", "/nowhere/x"], 69);
    assert!(complaint.contains("no server at the control socket /nowhere/x"), "{complaint}");
    let folder = server.stop_and_keep();
    assert!(!folder.path().join("control.sock").exists());
}

#[test]
fn restart_replaces_the_workers_of_the_slots() {
    let server = hello("workers = 3").start();
    let before = server.workers();
    let text = succeed(&server, &["restart", "2", "0"]);
    assert_eq!(text.lines().filter(|line| line.contains(") ready in ")).count(), 2, "{text}");
    let found = status(&server);
    let serving = |slot: usize| {
        let workers = found["workers"].as_array().expect("a list").iter();
        let mut workers =
            workers.filter(|worker| worker["slot"] == slot && worker["state"] == "serving");
        workers.next().and_then(|worker| worker["pid"].as_i64()).expect("one serves")
    };
    let is_new = |slot: usize| serving(slot) != i64::from(before[slot].1);
    assert!(is_new(0) && !is_new(1) && is_new(2), "{before:?} {found}");
    let complaint = fail(&server, &["restart", "3"], 1);
    assert!(complaint.contains("slot 3 has no worker; expected one of 0 to 2"), "{complaint}");
    fail(&server, &["restart", "256"], 64);
}

#[test]
fn scale_returns_when_so_many_workers_serve() {
    let server = hello("workers = 2").start();
    for (change, expected) in [("4", 4), ("+1", 5), ("-2", 3)] {
        succeed(&server, &["scale", change]);
        assert_eq!(status(&server)["server"]["workers_serving"], expected, "scale {change}");
    }
    let complaint = fail(&server, &["scale", "-3"], 1);
    assert!(complaint.contains("expected 1 to 256 workers; their number stays 3"), "{complaint}");
    fail(&server, &["scale", "many"], 64);
}

#[test]
fn stop_returns_when_the_server_is_gone() {
    for words in [&["stop"][..], &["stop", "--quick"]] {
        let mut server = hello("workers = 2").start();
        succeed(&server, words);
        assert!(!server.is_running(), "{words:?}");
        assert_eq!(server.wait_exit(), Exit::Code(0));
        assert!(fail(&server, &["status"], 69).contains("no server with pid"), "{words:?}");
    }
}

#[test]
fn status_answers_during_a_stop() {
    let mut server = Ferricorn::unruly().config("workers = 1").start();
    let mut busy = server.connect();
    busy.send(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    let in_hand = || status(&server)["workers"][0]["requests_in_flight"].clone();
    eventually("the request is in hand", PATIENCE, || (in_hand() == 1).then_some(()));
    server.signal(Signal::SIGTERM);
    eventually("it stops", PATIENCE, || {
        let found = status(&server);
        (found["server"]["state"] == "stopping").then_some(())
    });
    let text = succeed(&server, &["status", "--requests"]);
    assert!(text.contains("GET /never"), "{text}");
    assert!(fail(&server, &["reload"], 1).contains("the server is stopping"));
    succeed(&server, &["stop", "--quick"]);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn reopen_returns_when_the_files_are_reopened() {
    let server = hello("workers = 1\n[log]\naccess = \"access.log\"").start();
    let [path, moved] = ["access.log", "moved.log"].map(|name| server.folder().join(name));
    std::fs::rename(&path, &moved).expect("it is there");
    succeed(&server, &["reopen"]);
    assert!(path.exists(), "it is made anew before the client returns");
    std::fs::remove_file(&path).expect("it is there");
    std::fs::create_dir(&path).expect("the folder is ours");
    let complaint = fail(&server, &["reopen"], 1);
    assert!(complaint.contains("a log file cannot be opened"), "{complaint}");
}

#[test]
fn upgrade_keeps_its_client_and_ends_with_the_reload() {
    let server = hello("workers = 2").start();
    let before = server.workers();
    let text = succeed(&server, &["upgrade"]);
    assert!(text.contains("Upgraded in place to "), "{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("reloaded: generation 2 in "), "{text}");
    let events = succeed(&server, &["events"]);
    let first = events.find("server_starting").expect("events survive an upgrade");
    assert!(first < events.find("server_upgraded").expect("it was upgraded"), "{events}");
    let found = status(&server);
    assert_eq!(found["server"]["pid"], server.pid());
    let pids: Vec<i64> = before.iter().map(|(_, pid)| i64::from(*pid)).collect();
    let workers = found["workers"].as_array().expect("a list").iter();
    let serving = workers.filter(|worker| worker["state"] == "serving");
    assert!(serving.filter_map(|serving| serving["pid"].as_i64()).all(|pid| !pids.contains(&pid)));
}

#[test]
fn events_are_followed_in_order() {
    let server = hello("workers = 1").start();
    let mut follower = client(&server, &["events", "--follow", "--json"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("it is piped")).lines();
    let mut next = || -> Value {
        serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON")
    };
    succeed(&server, &["reload"]);
    let mut serials = Vec::new();
    loop {
        let event = next();
        serials.push(event["serial"].as_u64().expect("a number"));
        if event["event"] == "reload_succeeded" {
            assert_eq!(event["fields"]["generation"], 2);
            break;
        }
    }
    let count = serials.len() as u64;
    assert!(serials.into_iter().eq(0..count), "each event comes once");
    follower.kill().expect("it runs");
    follower.wait().expect("it ended");
}

/// The keys of an object, and of those in it, sorted.
fn keys(value: &Value) -> Vec<String> {
    let mut found: Vec<String> = match value {
        Value::Object(object) => {
            let inner = |(key, value): (&String, &Value)| {
                let below = keys(value).into_iter().map(move |it| format!("{key}.{it}"));
                [key.clone()].into_iter().chain(below).collect::<Vec<_>>()
            };
            object.iter().flat_map(inner).collect()
        }
        Value::Array(values) => values.iter().take(1).flat_map(keys).collect(),
        _ => Vec::new(),
    };
    found.sort();
    found
}

#[test]
fn json_is_as_documented() {
    let page = std::fs::read_to_string(repository("docs/control.md")).expect("it is there");
    let examples: Vec<Value> = page
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| serde_json::from_str(rest.split("```").next()?).ok())
        .collect();
    let server = hello("workers = 1").start();
    let mut busy = server.connect();
    busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    send(server.worker(0), Signal::SIGKILL);
    eventually("a worker has ended", PATIENCE, || {
        (!status(&server)["workers"][0]["last_end"].is_null()).then_some(())
    });
    succeed(&server, &["reload"]);
    let mut found = status(&server);
    // There may be no request in hand.
    found["requests"] = examples[0]["requests"].clone();
    let fields = |value: &mut Value| {
        value["server"]["last_reload"]["fields"] = Value::Null;
        value["workers"][0]["last_end"]["fields"] = Value::Null;
    };
    let mut documented = examples[0].clone();
    fields(&mut found);
    fields(&mut documented);
    assert_eq!(keys(&found), keys(&documented));
    let events = succeed(&server, &["events", "--json"]);
    let event: Value = serde_json::from_str(events.lines().next().expect("one")).expect("JSON");
    let mut documented = examples[1].clone();
    documented["fields"] = event["fields"].clone();
    assert_eq!(keys(&event), keys(&documented));
    let why = succeed(&server, &["why", "0", "--json"]);
    let why: Value = serde_json::from_str(&why).expect("one object");
    assert_eq!(keys(&why), keys(&examples[3]));
    let reload = succeed(&server, &["reload", "--json"]);
    let end: Value = serde_json::from_str(reload.lines().last().expect("one")).expect("JSON");
    assert_eq!(end, examples[2]);
}
