//! Log targets that fail: a reader that has gone, a full disk, a file that cannot be opened again; and
//! a server that can have no logger. No request fails, and no line that is lost goes uncounted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::numbered::{Numbered, Said, Sent};

/// The access log as JSON goes here, and the error log to a file of its own.
fn config(access: &str) -> String {
    format!(
        "workers = 2\n[log]\naccess_format = \"json\"\nformat = \"json\"\n\
         access = \"{access}\"\nerror = \"error.log\"\n"
    )
}

/// Sends so many requests and waits for their answers, of which none may fail.
fn send_some(server: &Ferricorn, count: u64) -> usize {
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), "a", || requests.wait_for(count));
    assert_eq!(sent.failed, BTreeSet::new());
    sent.answered.len()
}

fn await_text(path: &Path, text: &str) {
    eventually(&format!("{} says {text:?}", path.display()), PATIENCE, || {
        fs::read_to_string(path).is_ok_and(|content| content.contains(text)).then_some(())
    });
}

/// A file that other users may write to, in a folder where they may make others.
fn make_folder(path: &Path) {
    fs::create_dir(path).expect("the folder is ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("the folder is ours");
}

#[test]
fn a_reader_that_has_gone_ends_nothing_and_its_lines_are_counted() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let server = Ferricorn::hello().config(&config("-")).stdout(writer).start();
    let logger = server.logger();
    let workers = server.workers();
    drop(reader);
    let answered = send_some(&server, 300);
    let error = server.folder().join("error.log");
    await_text(&error, "Broken pipe");
    assert_eq!((server.logger(), server.workers()), (logger, workers));
    let folder = server.stop_and_keep();
    let said = Said::read_files(&[&error]);
    assert_eq!(said.torn, [""; 0]);
    assert_eq!(usize::try_from(said.dropped), Ok(answered));
    drop(folder);
}

#[test]
fn what_the_only_log_has_lost_is_said_on_stderr_at_the_end() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let config = "workers = 2\n[log]\naccess_format = \"json\"\nformat = \"json\"\n";
    let server = Ferricorn::hello().config(config).stdout(writer).start();
    drop(reader);
    let answered = send_some(&server, 300);
    let stderr = server.folder().join("stderr");
    let folder = server.stop_and_keep();
    let said = Said::read_files(&[&stderr]);
    // Lines of the error log were lost with them.
    assert!(usize::try_from(said.dropped).expect("few") >= answered, "{}", said.dropped);
    let text = fs::read_to_string(&stderr).expect("it is there");
    assert_eq!(text.matches("cannot write to log ").count(), 1, "{text}");
    assert_eq!(text.matches("log lines dropped: ").count(), 1, "{text}");
    drop(folder);
}

#[test]
fn a_file_that_cannot_be_reopened_is_written_to_where_it_is() {
    let server = Ferricorn::hello().config(&config("logs/access.log"));
    let here = server.folder().join("logs");
    let there = server.folder().join("moved");
    make_folder(&here);
    let server = server.start();
    let error = server.folder().join("error.log");
    let requests = Numbered::default();
    let more = || requests.wait_for(requests.answered.load(Ordering::Relaxed) + 100);
    let sent = requests.send_while(&server.address(), "a", || {
        more();
        fs::rename(&here, &there).expect("the folder is ours");
        server.signal(Signal::SIGUSR1);
        await_text(&error, "cannot reopen log ");
        more();
        make_folder(&here);
        eventually("it is opened where it belongs", PATIENCE, || {
            here.join("access.log").exists().then_some(())
        });
        more();
    });
    let folder = server.stop_and_keep();
    let old = there.join("access.log");
    let new = here.join("access.log");
    Said::read_files(&[&old, &new]).assert_each_once(&sent);
    assert!(!Said::read_files(&[&new]).answered.is_empty(), "the new file is not written to");
    drop(folder);
}

#[test]
fn a_disk_that_was_full_takes_lines_again_and_the_gap_is_counted() {
    let server = Ferricorn::hello().config(&config("access.log"));
    let access = server.folder().join("access.log");
    symlink("/dev/full", &access).expect("the folder is ours");
    let server = server.start();
    let error = server.folder().join("error.log");
    let requests = Numbered::default();
    let sent = requests.send_while(&server.address(), "a", || {
        requests.wait_for(200);
        await_text(&error, "No space left on device");
        fs::remove_file(&access).expect("the folder is ours");
        server.signal(Signal::SIGUSR1);
        await_text(&error, "log lines dropped: ");
        requests.wait_for(requests.answered.load(Ordering::Relaxed) + 200);
    });
    let folder = server.stop_and_keep();
    let said = Said::read_files(&[&access, &error]);
    let Sent { answered, failed } = sent;
    assert_eq!((failed, said.torn), (BTreeSet::new(), Vec::new()));
    assert!(said.dropped > 0, "the disk was full");
    assert!(said.answered.values().all(|count| *count == 1), "a line is there twice");
    let accounted = said.answered.len() as u64 + said.dropped;
    assert_eq!(accounted, answered.len() as u64, "lines and counted losses are the answers");
    drop(folder);
}

/// Returns true if it is killed, replaced by a reload or stopped: nobody else knows the logger's count.
#[test]
fn a_count_of_lost_lines_survives_the_logger() {
    let server = Ferricorn::hello().config(&config("/dev/full")).start();
    let error = server.folder().join("error.log");
    let moved = |number: u32| error.with_file_name(format!("error.{number}"));
    // The file is there again when all that was said before the signal is written, or counted.
    let settle = |number| {
        fs::rename(&error, moved(number)).expect("the folder is ours");
        server.signal(Signal::SIGUSR1);
        eventually("the file is there again", PATIENCE, || error.exists().then_some(()));
    };
    let await_another = |logger| {
        eventually("another logger", PATIENCE, || (server.logger() != logger).then_some(()));
    };
    let mut answered = send_some(&server, 100);
    settle(1);
    let logger = server.logger();
    send(logger, Signal::SIGKILL);
    await_another(logger);
    answered += send_some(&server, 100);
    settle(2);
    let logger = server.logger();
    server.signal(Signal::SIGHUP);
    await_another(logger);
    let said = |last: u32| {
        let paths: Vec<PathBuf> = (1..=last).map(moved).chain([error.clone()]).collect();
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        usize::try_from(Said::read_files(&paths).dropped).expect("few")
    };
    assert_eq!(said(2), answered, "told when the logger is replaced");
    answered += send_some(&server, 100);
    let folder = server.stop_and_keep();
    assert_eq!(said(2), answered, "told when the server stops");
    drop(folder);
}

#[test]
fn usr1_to_a_worker_reopens_the_files() {
    let server = Ferricorn::hello().config(&config("access.log")).start();
    let access = server.folder().join("access.log");
    let moved = server.folder().join("access.log.1");
    fs::rename(&access, &moved).expect("the folder is ours");
    send(server.worker(1), Signal::SIGUSR1);
    eventually("the file is there again", PATIENCE, || access.exists().then_some(()));
    server.stop();
}

/// Where not even a logger can be forked, whoever looks at stderr is told why nothing happens.
#[test]
fn a_server_that_cannot_have_a_logger_says_so_on_stderr() {
    // It hopes for a logger as long as it has time.
    let server = Ferricorn::hello().config("graceful_timeout = 1\n");
    let server = server.wrapped(&["prlimit", "--nproc=0", "--"]);
    if !server.is_bound_by_limits() {
        return;
    }
    let mut server = server.launch();
    let stderr = server.folder().join("stderr");
    await_text(&stderr, "failed to fork the logger: ");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    let said = fs::read_to_string(&stderr).expect("it is there");
    for line in ["Listening at: ", "failed to fork prepare: ", "Shutting down: Master"] {
        assert!(said.contains(line), "{line:?} is missing: {said}");
    }
    assert!(!said.contains("could not be written"), "{said}");
    let stdout = fs::read_to_string(server.folder().join("stdout")).expect("it is there");
    assert_eq!(stdout, "", "nobody writes there");
}

/// A pipe that is full, and that nothing reads: the error is lost, and the exit code is not.
#[test]
fn full_stderr_keeps_no_server_from_its_end() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let waits = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("it is a pipe");
    waits(OFlag::O_NONBLOCK);
    while std::io::Write::write(&mut &writer, &[b'x'; 4096]).is_ok() {}
    waits(OFlag::empty());
    let mut program = std::process::Command::new(crate::program::example("hello"));
    let program = program.args(["--workers", "none"]).stderr(writer).stdout(Stdio::null()).spawn();
    let mut program = program.expect("the program starts");
    let ended = eventually("it ends", PATIENCE, || program.try_wait().expect("it is ours"));
    assert_eq!(ended.code(), Some(78));
    drop(reader);
}

/// Before there is a logger, whoever starts the server is told on stderr.
#[test]
fn errors_of_the_start_go_to_stderr_alone() {
    let mut server = Ferricorn::hello().config("workers = \"many\"\n").launch();
    assert_eq!(server.wait_exit(), Exit::Code(78));
    let mut taken = Ferricorn::hello().config("bind = \"unix:/nowhere/socket\"\n").launch();
    assert_eq!(taken.wait_exit(), Exit::Code(69));
    for (server, told) in [(&server, "workers"), (&taken, "/nowhere/socket")] {
        let read = |name| fs::read_to_string(server.folder().join(name)).expect("it is there");
        assert!(read("stderr").contains(told), "{}", read("stderr"));
        assert_eq!(read("stdout"), "");
    }
}
