//! From the start to the first answers, and every way not to get there.

use std::net::TcpListener;

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
                children.iter().map(|it| it.name.as_str()).eq(expected).then_some(())
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
        children.iter().any(|it| it.name == "ferricorn-prep").then_some(())
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// A fork copies one thread alone, and with it the locks that the others held.
#[test]
fn a_process_with_company_is_told_why_it_may_not_fork() {
    for (start, told) in [
        ("thread", "failed to start: 2 threads exist before the first fork"),
        ("runtime", "failed to start: a tokio runtime is already running"),
    ] {
        let said = Ferricorn::unruly().env("UNRULY_START", start).fails_with(64);
        assert!(said.contains(told), "{start}: {said}");
    }
}

/// An example is often tried where the bundled application's `config.toml` lies.
#[test]
fn an_application_without_settings_starts_beside_the_tables_of_another() {
    let reference = include_str!("../../config.toml").replace("0.0.0.0:5000", "127.0.0.1:0");
    let server = Ferricorn::hello().config(&reference).start();
    assert!(server.get("/").unwrap().text().starts_with("hello from worker "));
    server.wait_log("[database] is left alone: the application has no settings");
    server.stop();
}
