//! From the start to the first answers, and every way not to get there.

use std::net::TcpListener;

use crate::events::has;
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually};
use crate::proc;

#[test]
fn four_workers_serve_and_each_of_them_answers() {
    let server = Ferricorn::unruly().start();
    let workers = server.wait_workers(4);
    assert_eq!(server.addresses().len(), 1);
    assert!(server.addresses()[0].starts_with("http://127.0.0.1:"), "{:?}", server.addresses());
    server.wait_served_by(&workers);
    server.stop();
}

#[test]
fn the_least_application_answers_from_all_of_its_workers() {
    let server = Ferricorn::hello().config("workers = 3").start();
    let mut seen = std::collections::BTreeSet::new();
    eventually("three greetings", PATIENCE, || {
        seen.insert(server.get("/").unwrap().text());
        (seen.len() == 3).then_some(())
    });
    let expected = (0..3).map(|slot| format!("hello from worker {slot}\n"));
    assert!(seen.iter().eq(expected.collect::<Vec<_>>().iter()), "{seen:?}");
    server.stop();
}

/// An operator looks with `ps` and `top`: each process says what it is.
#[test]
fn processes_bear_their_names() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let names = |pid| proc::stat(pid).expect("it is alive").name;
    assert_eq!(names(server.pid()), "ferricorn");
    assert_eq!(names(server.worker(0)), "ferricorn-w0");
    assert_eq!(names(server.worker(1)), "ferricorn-w1");
    assert_eq!(proc::status(server.pid(), "Threads").as_deref(), Some("1"));
}

/// Whoever runs several servers tells their processes apart by the name that he gave each.
#[test]
fn every_process_bears_the_name_that_was_given() {
    for (given, master, beginning, serving) in [
        ("x", "x", ["x-log", "x-prep"], ["x-log", "x-w0"]),
        // The kernel keeps 15 bytes of a name: what tells the processes apart must be among them.
        (
            "records-of-berlin",
            "records-of-berl",
            ["records-of--log", "records-of-prep"],
            ["records-of--log", "records-of-b-w0"],
        ),
    ] {
        let server = Ferricorn::unruly()
            .config(&format!("workers = 1\nproc_name = {given:?}"))
            .env("UNRULY_PREPARE_FILE", "prepare")
            .file("prepare", "held");
        let mut server = server.launch();
        let names = |expected: [&str; 2]| {
            eventually(&format!("{expected:?}"), PATIENCE, || {
                let mut children = proc::children(server.pid());
                children.sort_unstable_by(|one, other| one.name.cmp(&other.name));
                children.iter().map(|child| child.name.as_str()).eq(expected).then_some(())
            });
        };
        names(beginning);
        std::fs::write(server.folder().join("prepare"), "").unwrap();
        names(serving);
        assert_eq!(proc::stat(server.pid()).expect("it is alive").name, master);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_exit(), Exit::Code(0));
    }
}

/// The titles in `ps`, whose room is not that of the arguments: there are none here. The environment
/// stays as it was, and is in no title.
#[test]
fn titles_tell_the_processes_apart() {
    for (config, suffix) in [("workers = 2", ""), ("workers = 2\nproc_name = \"shop\"", " [shop]")]
    {
        let server = Ferricorn::unruly().config(config).env("MARK", "of-the-environment").start();
        let titles = |generation: u16| {
            let worker = |slot: u16| format!("worker {slot} (generation {generation})");
            let roles = ["logger".to_owned(), "master".to_owned(), worker(0), worker(1)];
            let expected = roles.map(|role| format!("ferricorn: {role}{suffix}"));
            eventually(&format!("{expected:?}"), PATIENCE, || {
                let children = proc::children(server.pid());
                let pids = children.iter().map(|child| child.pid).chain([server.pid()]);
                let mut shown: Vec<String> = pids.map(proc::title).collect();
                shown.sort_unstable();
                (shown == expected).then_some(())
            });
        };
        titles(1);
        let mark = "MARK=of-the-environment".to_owned();
        let children = proc::children(server.pid());
        assert!(children.iter().all(|child| proc::environment(child.pid).contains(&mark)));
        server.signal(Signal::SIGHUP);
        titles(2);
        server.signal(Signal::SIGUSR2);
        titles(3);
        server.stop();
    }
}

/// A bug of the master's must not look like an exit of the application's, or a clean one.
#[test]
fn a_master_that_panics_says_so_and_exits_with_70() {
    let mut server = Ferricorn::unruly().env("UNRULY_MASTER", "panic").start();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(70));
    let log = server.log();
    let said = "ferricorn: ended by a bug: the master panics, as it was told to";
    assert_eq!(log.matches(said).count(), 1, "{log}");
}

/// A second instance would otherwise join the group of the first, in silence, and share its clients.
#[test]
fn a_second_instance_on_the_same_port_is_refused_with_69() {
    let first = Ferricorn::unruly().config("workers = 2").start();
    let address = first.address().tcp();
    let said = Ferricorn::unruly().config(&format!("bind = \"{address}\"")).fails_with(69);
    let expected = format!("failed to bind {address}: ");
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("is another server running there?"), "{said}");
    // The first does not mind.
    first.wait_served_by(&first.wait_workers(2));
}

#[test]
fn a_port_that_another_program_listens_on_is_refused_with_69() {
    let _share = crate::machine::share();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let said = Ferricorn::unruly().config(&format!("bind = \"{address}\"")).fails_with(69);
    assert!(said.contains(&format!("failed to bind {address}: ")), "{said}");
}

#[test]
fn a_worker_that_cannot_boot_ends_the_start_with_3() {
    for mode in ["exit", "error", "panic"] {
        let said = Ferricorn::unruly().env("UNRULY_BOOT", mode).fails_with(3);
        assert!(said.contains("no worker could boot"), "{mode}: {said}");
    }
}

#[test]
fn a_prepare_that_fails_ends_the_start_with_4() {
    for mode in ["fail", "panic"] {
        let said = Ferricorn::unruly().env("UNRULY_PREPARE", mode).fails_with(4);
        assert!(said.contains("failed to load the application"), "{mode}: {said}");
        assert!(!said.contains("Booting worker"), "{mode}: {said}");
    }
}

/// The database may not answer for a minute: whoever changes his mind meanwhile is obeyed at once.
#[test]
fn a_start_that_hangs_in_prepare_obeys_term() {
    let mut server = Ferricorn::unruly().env("UNRULY_PREPARE", "hang").launch();
    eventually("prepare runs", PATIENCE, || {
        let children = proc::children(server.pid());
        children.iter().any(|child| child.name == "ferricorn-prep").then_some(())
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// A fork copies one thread alone, and with it the locks that the others held.
#[test]
fn a_process_with_company_is_told_why_it_may_not_fork() {
    for (start, told) in [
        ("thread", "failed to start: 2 threads exist before the first fork"),
        ("connection", "failed to start: a connection exists before the first fork (descriptor "),
        ("runtime", "failed to start: a tokio runtime is already running"),
    ] {
        let said = Ferricorn::unruly().env("UNRULY_START", start).fails_with(64);
        assert!(said.contains(told), "{start}: {said}");
    }
}

/// An example is often tried where the bundled application's `config.toml` lies.
#[test]
fn an_application_without_settings_starts_beside_the_tables_of_another() {
    let reference = include_str!("../../../config.toml").replace("0.0.0.0:5000", "127.0.0.1:0");
    let server = Ferricorn::hello().config(&reference).start();
    assert!(server.get("/").unwrap().text().starts_with("hello from worker "));
    let doubtful = server.noted("setting_doubtful");
    let told = "[database] is left alone: the application has no settings";
    assert!(doubtful.iter().any(|event| has(&event["reason"], told)), "{doubtful:?}");
    server.stop();
}

#[test]
fn start_names_its_configuration_file_and_what_differs() {
    let server = Ferricorn::unruly().config("workers = 1\nthreads = 2").start();
    let log = server.log();
    let lines: Vec<&str> = log.lines().take(2).collect();
    assert!(lines[0].contains("Starting ferricorn "), "{log}");
    let file = server.folder().join("config.toml");
    // The address, the number of workers, of threads, and the descriptor of the test.
    let expected = format!("Configuration: {} (4 of ", file.display());
    assert!(lines[1].contains(&expected), "{log}");
    assert!(lines[1].ends_with(" settings differ from their default)"), "{log}");
    server.signal(Signal::SIGUSR2);
    server.wait_event("server_upgraded", &[]);
    eventually("the configuration once more", PATIENCE, || {
        (server.noted("configuration_read").len() == 2).then_some(())
    });
    server.stop();
}

/// A relative path means another file in another folder: the log has the whole one.
#[test]
fn start_names_its_database_and_if_it_is_new() {
    let server = Ferricorn::bundled().config("workers = 1").start();
    let file = server.folder().join("data/ferricorn.db");
    server.wait_log(&format!("Database: sqlite {} (new)\n", file.display()));
    server.signal(Signal::SIGHUP);
    server.wait_log(&format!("Database: sqlite {}\n", file.display()));
    server.stop();
}

#[test]
fn start_without_a_file_names_the_folder_it_looked_in() {
    let server = Ferricorn::unruly().flag("--bind=127.0.0.1:0").flag("--workers=1").start();
    let folder = server.folder().to_str().expect("a text");
    let [absent] = &server.noted("configuration_absent")[..] else { panic!("one event") };
    assert_eq!((&absent["folder"], &absent["changed"]), (&folder.into(), &3.into()));
    server.stop();
}

/// A log that begins with an error has lost its beginning, in the eyes of its reader.
#[test]
fn failing_start_logs_its_name_before_the_error() {
    for (bind, code, error) in
        [("unix:/nonexistent/socket", 69, "failed to bind"), ("fd://97", 78, "bind: fd://97")]
    {
        let text = Ferricorn::unruly().config(&format!("bind = {bind:?}")).fails_with(code);
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?}: {text}"));
        let start = place("Starting ferricorn");
        let error = place(error);
        assert!(start < error, "{text}");
    }
}

#[test]
fn descriptor_without_a_socket_is_named_with_the_remedy() {
    let text = Ferricorn::unruly().config("bind = \"fd://97\"").fails_with(78);
    assert!(text.contains("bind: fd://97: descriptor 97 was not open when"), "{text}");
    assert!(text.contains("; use a socket unit of systemd, or a parent process that"), "{text}");
    // A file that is no socket.
    let server = Ferricorn::unruly().config("bind = \"fd://7\"");
    let text = server.wrapped(&["sh", "-c", "exec 7</dev/null; exec \"$@\"", "sh"]).fails_with(69);
    let expected = "failed to bind fd://7: descriptor 7 is not a listening stream socket; use";
    assert!(text.contains(expected), "{text}");
}

/// Shared memory is a file, too: past the limit the kernel sends a signal whose default is death.
#[test]
fn start_reports_a_file_limit_below_its_shared_memory() {
    for (server, limit) in [(Ferricorn::bundled(), 1024), (Ferricorn::hello(), 2048)] {
        let wrapper = ["sh", "-c", &format!("ulimit -f {}; exec \"$@\"", limit / 512), "sh"];
        let text = server.config("workers = 1").wrapped(&wrapper).fails_with(70);
        let expected = format!(" bytes are more than `ulimit -f` allows ({limit}); raise it");
        assert!(text.contains("share memory: ") && text.contains(&expected), "{text}");
    }
}
