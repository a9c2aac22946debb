//! The causes that `ferricorn why` names: with the kill for want of memory, which `faults::shortages` stages,
//! and two boots that fail, twenty-one incidents.

use serde_json::Value;

use crate::client::get;
use crate::control::{fail, succeed};
use crate::faults::send_until_it_dies;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};

/// An incident, and the cause that `why` names for it.
struct Incident {
    settings: &'static str,
    happens: fn(&Ferricorn),
    cause: &'static str,
    /// Its exit code, or its signal.
    number: i64,
}

fn kill(server: &Ferricorn, signal: Signal) {
    send(server.worker(0), signal);
}

/// A `SEGV` or `BUS` that no memory access has caused: the language's guard passes over the first.
fn crash(server: &Ferricorn, signal: Signal) {
    send_until_it_dies(server.worker(0), signal);
}

/// A request whose worker does not survive it.
fn ask(server: &Ferricorn, target: &str) {
    let _lost = server.get(target);
}

const INCIDENTS: [Incident; 18] = [
    Incident { settings: "", happens: |it| kill(it, Signal::SIGKILL), cause: "signal", number: 9 },
    Incident { settings: "", happens: |it| kill(it, Signal::SIGTRAP), cause: "signal", number: 5 },
    Incident { settings: "", happens: |it| kill(it, Signal::SIGSYS), cause: "signal", number: 31 },
    Incident { settings: "", happens: |it| crash(it, Signal::SIGILL), cause: "signal", number: 4 },
    Incident { settings: "", happens: |it| crash(it, Signal::SIGFPE), cause: "signal", number: 8 },
    Incident {
        settings: "",
        happens: |it| crash(it, Signal::SIGSEGV),
        cause: "signal",
        number: 11,
    },
    Incident { settings: "", happens: |it| crash(it, Signal::SIGBUS), cause: "signal", number: 7 },
    Incident { settings: "", happens: |it| kill(it, Signal::SIGTERM), cause: "signal", number: 0 },
    Incident { settings: "", happens: |it| ask(it, "/abort"), cause: "signal", number: 6 },
    Incident { settings: "", happens: |it| ask(it, "/overflow"), cause: "signal", number: 6 },
    Incident { settings: "", happens: |it| ask(it, "/exit?code=7"), cause: "exit", number: 7 },
    Incident {
        settings: "max_requests = 1",
        happens: |it| ask(it, "/"),
        cause: "max_requests",
        number: 0,
    },
    Incident { settings: "max_lifetime = 1", happens: |_| {}, cause: "max_lifetime", number: 0 },
    Incident {
        settings: "graceful_timeout = 1",
        happens: |it| {
            let mut client = it.connect();
            client.send(get("/block?s=60")).expect("it is accepted");
            eventually("its loop is blocked", PATIENCE, || {
                let requests = succeed(it, &["status", "--requests"]);
                requests.contains("/block").then_some(())
            });
            drop(succeed(it, &["restart"]));
        },
        cause: "graceful_timeout",
        number: 9,
    },
    Incident {
        settings: "max_memory = \"64MiB\"",
        happens: |it| ask(it, "/leak?mb=80"),
        cause: "max_memory",
        number: 0,
    },
    Incident {
        settings: "stall_timeout = 1",
        happens: |it| ask(it, "/block?s=60"),
        cause: "stall_timeout",
        number: 6,
    },
    Incident {
        settings: "",
        happens: |it| drop(succeed(it, &["restart"])),
        cause: "restart",
        number: 0,
    },
    Incident {
        settings: "",
        happens: |it| drop(succeed(it, &["reload"])),
        cause: "told_to_leave",
        number: 0,
    },
];

#[test]
fn why_names_the_cause_of_each_incident() {
    for Incident { settings, happens, cause, number } in INCIDENTS {
        let server = Ferricorn::unruly().config(&format!("workers = 1\n{settings}")).start();
        // The first one: one that has a short life may be followed by others by now.
        let victim: i32 = eventually("the log tells of the first worker", PATIENCE, || {
            let log = server.log();
            let (_, rest) = log.split_once("Booting worker with pid: ")?;
            rest.split_once('\n')?.0.parse().ok()
        });
        happens(&server);
        let end = eventually("a worker has ended", PATIENCE, || {
            let text = succeed(&server, &["why", "0", "--json"]);
            let found: Value = serde_json::from_str(&text).expect("one object");
            found["ends"].as_array().and_then(|ends| ends.last().cloned())
        });
        assert_eq!(end["pid"], victim);
        assert_eq!(end["cause"], cause, "{end}");
        let found = end["exit_code"].as_i64().or(end["signal"].as_i64());
        assert_eq!(found, Some(number), "{end}");
        assert!(end["peak_memory_bytes"].as_u64() > Some(1 << 20), "{end}");
        assert!(end["served_seconds"].is_f64(), "{end}");
    }
}

#[test]
fn why_names_the_request_that_a_worker_died_in() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    ask(&server, "/abort?it=1");
    let text = eventually("the worker has ended", PATIENCE, || {
        let text = succeed(&server, &["why", "0"]);
        text.contains("in hand").then_some(text)
    });
    assert!(text.contains("in hand: 1 request: died in GET /abort?it=1 ("), "{text}");
    assert!(fail(&server, &["why"], 64).contains("SLOT"));
}

#[test]
fn why_names_a_boot_that_fails() {
    let builder = Ferricorn::unruly().config("workers = 1\nboot_timeout = 1");
    let boot = builder.folder().join("boot");
    let server = builder.file("boot", "").env("UNRULY_BOOT_FILE", boot.display().to_string());
    let server = server.start();
    for (mode, cause) in [("exit", "boot_failed"), ("hang", "boot_timeout")] {
        std::fs::write(&boot, mode).expect("the folder is ours");
        let reason = fail(&server, &["reload"], 1);
        assert_eq!(reason.lines().count(), 1, "{reason}");
        let text = succeed(&server, &["why", "0", "--json"]);
        let found: Value = serde_json::from_str(&text).expect("one object");
        assert_eq!(found["ends"][0]["cause"], cause, "{reason} {text}");
        assert_eq!(found["ends"][0]["served_seconds"], Value::Null);
    }
}
