//! Everything in the file takes effect on `HUP`: each setting is put into it, and taken out again, and
//! each time the server behaves as the file says. What needs a restart is named in the log.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::{Connection, get, post};
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, send};
use crate::proc;

/// Cases that are tried side by side.
const SIDE_BY_SIDE: usize = 8;

struct Case {
    /// The setting as `config.toml` has it.
    key: &'static str,
    value: &'static str,
    /// The rest of the file, with it and without it.
    others: &'static [(&'static str, &'static str)],
    /// True if the server behaves as this value says, and not as the default does.
    shows: fn(&Ferricorn) -> bool,
}

const fn case(key: &'static str, value: &'static str, shows: fn(&Ferricorn) -> bool) -> Case {
    Case { key, value, others: &[], shows }
}

/// One worker, so that each request meets it.
const ONE: (&str, &str) = ("workers", "1");

const CASES: &[Case] = &[
    case("workers", "3", |server| server.workers().len() == 3),
    Case {
        others: &[ONE],
        ..case("threads", "3", |server| {
            let threads = proc::status(server.worker(0), "Threads").expect("it lives");
            threads.parse::<u32>().expect("a number") > 2
        })
    },
    case("health.live", "\"/alive\"", |server| status(server, "/alive") == 200),
    case("health.ready", "\"/able\"", |server| status(server, "/able") == 200),
    case("timeout", "\"200ms\"", |server| status(server, "/slow?ms=600") == 504),
    case("stall_timeout", "\"300ms\"", |server| server.get("/block?ms=2500").is_err()),
    Case {
        others: &[ONE],
        ..case("graceful_timeout", "\"200ms\"", |server| {
            let mut held = server.connect();
            held.send(get("/never")).expect("it is open");
            let worker = server.worker(0);
            eventually("it is in the worker's hands", PATIENCE, || {
                server.get("/").ok().map(|answer| assert_eq!(answer.pid(), worker))
            });
            send(worker, Signal::SIGTERM);
            eventually("it is replaced", PATIENCE, || {
                server.workers().iter().any(|(_, pid)| *pid != worker).then_some(())
            });
            ends_soon(server, &mut held)
        })
    },
    case("keepalive", "\"100ms\"", |server| {
        let mut idle = server.connect();
        idle.get("/").expect("it answers");
        ends_soon(server, &mut idle)
    }),
    case("max_requests", "1", |server| {
        says_soon(server, "it has served max_requests", || ask(server))
    }),
    Case {
        others: &[("max_requests", "1")],
        ..case("max_requests_jitter", "100000000", |server| {
            !says_soon(server, "it has served max_requests", || ask(server))
        })
    },
    Case {
        others: &[ONE],
        ..case("max_memory", "\"64MiB\"", |server| {
            server.get("/leak?mb=100").expect("it answers");
            says_soon(server, "above max_memory", || wait(server, 1500))
        })
    },
    case("max_lifetime", "\"400ms\"", |server| {
        says_soon(server, "it has reached max_lifetime", || wait(server, 600))
    }),
    Case {
        others: &[ONE],
        ..case("worker_connections", "1", |server| {
            // An idle one would give way.
            let mut first = server.connect();
            first.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").expect("it is open");
            let patience = Duration::from_millis(300);
            let mut second =
                Connection::open_within(&server.address(), patience).expect("it queues");
            second.get("/").is_err()
        })
    },
    case("backlog", "77", |server| {
        let port = format!("sport = :{}", server.address().tcp().port());
        let sockets = Command::new("ss").args(["-ltnH", &port]).output().expect("iproute2");
        let sockets = String::from_utf8(sockets.stdout).expect("text");
        let mut limits = sockets.lines().map(|line| line.split_ascii_whitespace().nth(2));
        limits.clone().count() > 0 && limits.all(|limit| limit == Some("77"))
    }),
    Case {
        others: &[("log.access_format", "'mark=%({MARK}e)s'")],
        ..case("env", "[\"MARK=new\"]", |server| says_soon(server, "mark=new", || ask(server)))
    },
    Case {
        others: &[("log.access_format", "'mark=%({MARK_OF_FILE}e)s'")],
        ..case("env_file", "\"more.env\"", |server| says_soon(server, "mark=file", || ask(server)))
    },
    Case {
        others: &[("log.access_format", "'scheme=%({scheme}e)s'")],
        ..case("forwarded_allow_ips", "[\"10.9.8.7\"]", |server| {
            !says_soon(server, "scheme=https", || {
                let mut connection = server.connect();
                let request = get("/").replacen("\r\n", "\r\nx-forwarded-proto: https\r\n", 1);
                connection.send(request).expect("it is open");
                assert_eq!(connection.response().expect("it answers").status, 200);
            })
        })
    },
    case("proxy_protocol", "true", |server| {
        let mut connection = server.connect();
        let request = format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n{}", get("/"));
        connection.send(request).expect("it is open");
        connection.response().is_ok_and(|answer| answer.status == 200)
    }),
    Case {
        others: &[("proxy_protocol", "true")],
        ..case("proxy_allow_ips", "[\"10.9.8.7\"]", |server| {
            server.get("/").is_ok_and(|answer| answer.status == 200)
        })
    },
    case("log.access", "\"access.log\"", |server| {
        let length = || {
            let file = std::fs::metadata(server.folder().join("access.log"));
            file.map_or(0, |file| file.len())
        };
        let before = length();
        ask(server);
        wait(server, 300);
        length() > before
    }),
    case("log.error", "\"error.log\"", |server| {
        !says_soon(server, "ignoring WINCH", || server.signal(Signal::SIGWINCH))
    }),
    case("log.level", "\"error\"", |server| {
        !says_soon(server, "ignoring WINCH", || server.signal(Signal::SIGWINCH))
    }),
    case("log.access_format", "'at %(U)s'", |server| says_soon(server, "at /pid", || ask(server))),
    case("log.slow", "\"200ms\"", |server| says_soon(server, "GET /slow: ", || wait(server, 300))),
    case("log.format", "\"json\"", |server| {
        says_soon(server, "\"message\":\"ignoring WINCH", || server.signal(Signal::SIGWINCH))
    }),
    case("limits.request_line", "64", |server| {
        status(server, &format!("/pid?{:x<100}", "")) == 414
    }),
    case("limits.request_fields", "2", |server| with_field(server, "a: b\r\nc: d\r\n") == 431),
    case("limits.request_field_size", "32", |server| {
        with_field(server, &format!("a: {:x<100}\r\n", "")) == 431
    }),
    case("limits.body", "10", |server| {
        let mut connection = server.connect();
        connection.send(post("/echo", "more than ten bytes")).expect("it is open");
        connection.response().expect("it answers").status == 413
    }),
    case("limits.header_timeout", "\"100ms\"", |server| {
        let mut slow = server.connect();
        slow.send("GET / HTTP/1.1\r\nho").expect("it is open");
        ends_soon(server, &mut slow)
    }),
    case("limits.body_timeout", "\"100ms\"", |server| {
        let mut slow = server.connect();
        let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab";
        slow.send(head).expect("it is open");
        ends_soon(server, &mut slow)
    }),
];

/// Settings that have tests of their own: of listeners, of what follows here, of lines that wait.
const ELSEWHERE: &str = "bind boot_timeout log.when_full log.skip forwarded_fields announce \
                         drain_spread control tls.bind tls.certificate tls.key tls.client_ca \
                         tls.client_auth tls.min_version http2.enabled http2.max_streams \
                         program.command program.ready program.stop_signal stats.bind \
                         stats.statsd stats.statsd_prefix stats.statsd_tags";

/// Settings that take effect at the next start alone, and a value of each that is new.
pub(crate) const RESTART: [(&str, &str); 8] = [
    ("user", "\"65534\""),
    ("group", "\"65534\""),
    ("umask", "\"0027\""),
    ("unix_socket_mode", "\"0600\""),
    ("pidfile", "\"new.pid\""),
    ("proc_name", "\"another\""),
    ("chdir", "\"/\""),
    ("ready_fd", "9"),
];

fn ask(server: &Ferricorn) {
    assert_eq!(status(server, "/pid"), 200);
}

fn status(server: &Ferricorn, target: &str) -> u16 {
    server.get(target).expect("it is answered").status
}

fn with_field(server: &Ferricorn, fields: &str) -> u16 {
    let mut connection = server.connect();
    let request = get("/").replacen("\r\n", &format!("\r\n{fields}"), 1);
    connection.send(request).expect("it is open");
    connection.response().expect("it is answered").status
}

/// As long as this takes at least: what would have happened has happened.
fn wait(server: &Ferricorn, millis: u32) {
    // A server may be told to end requests sooner, or not to have this one.
    let _late = server.get(&format!("/slow?ms={millis}"));
}

fn ends_soon(server: &Ferricorn, connection: &mut Connection) -> bool {
    wait(server, 700);
    // The first look may find an answer, such as 408.
    connection.is_ended() || connection.is_ended()
}

/// Returns true if the log says so more often, soon after this was done.
fn says_soon(server: &Ferricorn, text: &str, done: impl FnOnce()) -> bool {
    let said = || server.log().matches(text).count();
    let before = said();
    done();
    wait(server, 300);
    said() > before
}

/// The text of a file with these settings.
pub(crate) fn toml(settings: &[(&str, &str)]) -> String {
    let mut top = String::new();
    let mut tables = String::new();
    for (key, value) in settings {
        match key.split_once('.') {
            None => top.push_str(&format!("{key} = {value}\n")),
            Some((table, key)) => tables.push_str(&format!("[{table}]\n{key} = {value}\n")),
        }
    }
    top + &tables
}

/// Rewrites the file, tells the server, and waits until no worker of before is left.
pub(crate) fn reload(server: &Ferricorn, config: &str) {
    let before = server.workers();
    server.rewrite_config(config);
    server.signal(Signal::SIGHUP);
    eventually("other workers", PATIENCE, || {
        let now = server.workers();
        (!now.is_empty() && !now.iter().any(|found| before.contains(found))).then_some(())
    });
    // It may be a moment before the last of them are there.
    let settled = |it: &Ferricorn| proc::stat(it.pid()).is_some_and(|stat| stat.state == 'S');
    eventually("the master rests", PATIENCE, || settled(server).then_some(()));
}

fn check(case: &Case) {
    let Case { key, value, others, shows } = case;
    let without = toml(others);
    let with = toml(&[others, &[(*key, *value)][..]].concat());
    let mut server = Ferricorn::unruly()
        .config(&without)
        .env("MARK", "old")
        .file("more.env", "MARK_OF_FILE=file\n")
        .start();
    // A slow machine may show it late, and a wrong server never does.
    let comes_true = |what: &str, shown: bool| {
        eventually(&format!("{key} = {value} {what}"), PATIENCE, || {
            (shows(&server) == shown).then_some(())
        });
    };
    comes_true("does not show before it is set", false);
    reload(&server, &with);
    comes_true("shows after HUP", true);
    reload(&server, &without);
    comes_true("does not show after it was taken out", false);
    server.signal(Signal::SIGQUIT);
    server.wait_exit();
}

#[test]
fn every_setting_takes_effect_on_hup_and_goes_back_to_its_default() {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(case);
                }
            });
        }
    });
}

/// A setting that is new must be put into one of the lists above.
#[test]
fn no_setting_is_forgotten() {
    let unruly = Ferricorn::unruly();
    let shown = Command::new(unruly.binary())
        .arg("config")
        .current_dir(unruly.folder())
        .env_clear()
        .output()
        .expect("it can be run");
    let shown = String::from_utf8(shown.stdout).expect("text");
    let keys = shown.lines().filter_map(|line| Some(line.split_once(" = ")?.0));
    let all: BTreeSet<&str> = keys.collect();
    let tried = CASES.iter().map(|case| case.key).chain(ELSEWHERE.split(' '));
    let tried: BTreeSet<&str> = tried.chain(RESTART.map(|(key, _)| key)).collect();
    assert_eq!(all, tried);
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_takes_effect() {
    // Without the flag that names `ready_fd` in the other tests, and wins over the file.
    let (ready, _unused) = std::io::pipe().expect("two descriptors");
    let server = Ferricorn::unruly().config("workers = 1");
    let server = server.launch_with(std::process::Stdio::null(), ready, &[]);
    server.wait_event("worker_ready", &[("slot", 0.into())]);
    let changed = [&RESTART[..], &[("workers", "2")]].concat();
    reload(&server, &toml(&changed));
    server.wait_reloaded(2);
    server.wait_workers(2);
    let deferred = server.noted("setting_deferred");
    let deferred = deferred.iter().map(|event| event["setting"].as_str().expect("a text"));
    let restart = RESTART.iter().map(|(key, _)| *key);
    assert_eq!(deferred.collect::<BTreeSet<_>>(), restart.collect());
    assert_eq!(server.noted("setting_deferred").len(), RESTART.len());
    assert_eq!(proc::stat(server.pid()).expect("it lives").name, "ferricorn");
    assert!(!server.folder().join("new.pid").exists());
    server.stop();
}

/// The settings in force are compared: a change that was taken back needs no restart, and one that was
/// not is named each time. The workers have the master's mask until then.
#[test]
fn what_needs_a_restart_is_named_until_it_is_taken_back() {
    let server = Ferricorn::unruly().config("workers = 1\numask = \"0022\"").start();
    let rounds = [("0077", 1, "0022"), ("0077", 2, "0022"), ("0022", 2, "0022")];
    for (at, (mask, times, in_force)) in rounds.into_iter().enumerate() {
        reload(&server, &format!("workers = 1\numask = \"{mask}\""));
        server.wait_reloaded(at + 2);
        let deferred = server.noted("setting_deferred");
        assert!(deferred.iter().all(|event| event["setting"] == "umask"), "{deferred:?}");
        assert_eq!(deferred.len(), times, "{mask}");
        let umask = proc::status(server.worker(0), "Umask");
        assert_eq!(umask.as_deref(), Some(in_force), "{mask}");
    }
    server.stop();
}

/// It has nothing to do with listening: an address that is let go meanwhile must be free.
#[test]
fn prepare_holds_no_listener() {
    let server = Ferricorn::unruly()
        .config("workers = 1")
        .env("UNRULY_PREPARE_FILE", "prepare")
        .file("prepare", "")
        .start();
    std::fs::write(server.folder().join("prepare"), "held").expect("the folder is ours");
    let sockets = |pid: i32| -> BTreeSet<std::path::PathBuf> {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let targets = all.filter_map(|it| std::fs::read_link(it.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).collect()
    };
    server.signal(Signal::SIGHUP);
    eventually("it holds none of the master's sockets", PATIENCE, || {
        let children = proc::children(server.pid());
        let prepare = children.iter().find(|child| child.name == "ferricorn-prep")?;
        let own = sockets(prepare.pid);
        let masters = sockets(server.pid());
        (!own.is_empty() && own.is_disjoint(&masters)).then_some(())
    });
    std::fs::write(server.folder().join("prepare"), "").expect("the folder is ours");
    server.wait_reloaded(2);
    server.stop();
}

/// The new file's deadline counts for the new workers: they hang, and it is over long before the old
/// file's minute is.
#[test]
fn the_new_boot_timeout_is_the_one_that_counts() {
    let server = Ferricorn::unruly()
        .config("workers = 1")
        .env("UNRULY_BOOT_FILE", "boot")
        .file("boot", "")
        .start();
    let before = server.wait_workers(1);
    std::fs::write(server.folder().join("boot"), "hang").expect("the folder is ours");
    server.rewrite_config("workers = 1\nboot_timeout = 1");
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(2).starts_with("worker 0 was not ready in time"));
    assert_eq!(server.wait_workers(1), before);
    server.stop();
}

/// The file itself is the same; what it names has another content.
#[test]
fn hup_reads_the_files_that_the_file_names() {
    let server = Ferricorn::unruly()
        .config("workers = 1\nenv_file = \"more.env\"\n[log]\naccess_format = 'mark=%({MARK}e)s'")
        .file("more.env", "MARK=one\nFERRICORN_TIMEOUT=100\n")
        .start();
    let says = |text: &str| {
        eventually(text, PATIENCE, || says_soon(&server, text, || ask(&server)).then_some(()));
    };
    says("mark=one");
    let before = server.worker(0);
    std::fs::write(server.folder().join("more.env"), "MARK=two\nFERRICORN_WORKERS=2\n").unwrap();
    server.signal(Signal::SIGHUP);
    eventually("another worker", PATIENCE, || {
        server.workers().iter().all(|(_, pid)| *pid != before).then_some(())
    });
    server.wait_reloaded(2);
    says("mark=two");
    // What is wrong there changes nothing, and is told.
    let before = server.workers();
    std::fs::write(server.folder().join("more.env"), "FERRICORN_TIMEOUT=soon\n").unwrap();
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(3).contains("more.env:1: "));
    assert_eq!(server.workers(), before);
    says("mark=two");
    server.stop();
}

/// A log that cannot be opened is found out before anything has changed.
#[test]
fn a_log_that_cannot_be_opened_changes_nothing() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    let before = server.wait_workers(1);
    for (generation, log) in [(2, "error"), (3, "access")] {
        server.rewrite_config(&format!("workers = 2\n[log]\n{log} = \"nowhere/f.log\""));
        server.signal(Signal::SIGHUP);
        let reason = server.wait_reload_failed(generation);
        assert!(reason.starts_with(&format!("failed to open the {log} log ")), "{reason}");
        assert_eq!(server.workers(), before);
    }
    server.stop();
}

/// Each line is written once, whatever was changed before.
#[test]
fn logs_that_change_are_not_doubled() {
    let server = Ferricorn::unruly().config("workers = 1").start();
    for (at, error) in ["one.log", "two.log", "one.log", "-"].into_iter().enumerate() {
        let format = if at % 2 == 0 { "json" } else { "text" };
        let tables =
            format!("[log]\nerror = \"{error}\"\naccess = \"{error}\"\nformat = \"{format}\"");
        reload(&server, &format!("workers = 1\n{tables}"));
        let text = || match error {
            "-" => server.log(),
            name => std::fs::read_to_string(server.folder().join(name)).unwrap_or_default(),
        };
        let count = |what: &str| text().matches(what).count();
        let [winches, answers] = ["ignoring WINCH", "/slot?mark"].map(count);
        server.signal(Signal::SIGWINCH);
        assert_eq!(status(&server, "/slot?mark"), 200);
        wait(&server, 100);
        eventually("a line of each", PATIENCE, || {
            (count("ignoring WINCH") > winches && count("/slot?mark") > answers).then_some(())
        });
        assert_eq!((count("ignoring WINCH"), count("/slot?mark")), (winches + 1, answers + 1));
    }
    server.stop();
}

/// The application's own table, too: rows go where the file says, and without it to the default.
#[test]
fn hup_changes_the_database() {
    let config = |table: &str| format!("workers = 2\n{table}");
    let other = config("[database]\nurl = \"sqlite://other.db\"");
    let server = Ferricorn::bundled().config(&config("")).start();
    let rows = || {
        let answer = server.get("/data?limit=1").expect("it is answered").text();
        let page: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        page["total"].as_u64().expect("they are soon counted")
    };
    let populate = || {
        let mut connection = server.connect();
        connection.send(post("/populate", "")).expect("it is open");
        assert_eq!(connection.response().expect("it is answered").status, 201);
    };
    populate();
    reload(&server, &other);
    assert_eq!(rows(), 0);
    populate();
    populate();
    reload(&server, &config(""));
    assert_eq!(rows(), 1);
    reload(&server, &other);
    assert_eq!(rows(), 2);
    server.stop();
}
