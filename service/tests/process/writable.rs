//! Databases that answer and take no writes: at the start, and under a running server.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::{Connection, post};
use crate::harness::{Builder, Ferricorn, NOBODY, PATIENCE, Signal, eventually, send};

/// The exit code of a start whose `prepare` failed.
const NOT_PREPARED: i32 = 4;

/// A database that an earlier server has left behind.
fn with_a_database(prepare: impl FnOnce(&Path)) -> Option<Builder> {
    let builder = Ferricorn::bundled().config("workers = 1");
    // Root may write to every file.
    builder.is_bound_by_limits().then(|| {
        let kept = builder.start().stop_and_keep();
        prepare(&kept.path().join("data"));
        Ferricorn::bundled()
            .config("workers = 1")
            .env("DATABASE_URL", format!("sqlite://{}/data/ferricorn.db", kept.keep().display()))
    })
}

/// A volume of its own, of 8 MiB, for the server's `data`. Its program runs as root of a namespace.
const VOLUME: [&str; 5] = [
    "unshare",
    "-Urm",
    "sh",
    "-c",
    "mkdir -p data && mount -t tmpfs -o size=8m none data && exec \"$0\" \"$@\"",
];

/// Writes a file until its volume is full.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("the volume is ours");
    let full = (0..).find_map(|_| std::io::Write::write_all(&mut file, &[7; 4096]).err());
    let full = full.expect("it ends");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
}

/// The first line of the log with this text, and how many there are.
fn lines(server: &Ferricorn, text: &str) -> usize {
    server.log().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_full_volume_is_one_fault_and_a_delete_frees_it() {
    let tried = std::process::Command::new(VOLUME[0]).args([VOLUME[1], "true"]).status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("not tested: `unshare -Urm` cannot be had here");
        return;
    }
    let server = Ferricorn::bundled().by_ourselves().wrapped(&VOLUME).start();
    let populate = || {
        let mut connection = server.connect();
        connection.send(post("/populate", "")).expect("it is connected");
        connection.response().expect("it is answered").status
    };
    let root = format!("/proc/{}/root", server.pid());
    let data = Path::new(&root).join(server.folder().strip_prefix("/").expect("it is absolute"));
    // More than a page of them: to remove them takes more room than to add one.
    for _ in 0..400 {
        assert_eq!(populate(), 201);
    }
    fill(&data.join("data/junk"));
    // By all workers, some of which find room for a last row.
    let refused = || {
        let all = || (0..60).all(|_| populate() == 503).then_some(());
        eventually("every row is refused", PATIENCE, all);
    };
    refused();
    eventually("no worker is ready", PATIENCE, || {
        let unready = || server.get("/readyz").is_ok_and(|answer| answer.status == 503);
        (0..16).all(|_| unready()).then_some(())
    });
    let begun = "cannot write to the database: ";
    assert_eq!(lines(&server, begun), 1, "{}", server.log());

    let length =
        |name: &str| std::fs::metadata(data.join("data").join(name)).map(|found| found.len());
    let before = length("ferricorn.db-wal").expect("it is open");
    assert!(before > 400 * 4096, "{before}");
    let mut connection = server.connect();
    connection.send("DELETE /delete HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is connected");
    let answer = connection.response().expect("it is answered");
    assert_eq!(answer.status, 200, "{} {}", answer.text(), server.log());
    assert!(!answer.text().contains("\"0 rows"), "{}", answer.text());
    let after = length("ferricorn.db-wal").expect("it is open");
    assert!(after < before / 8, "the space is given back: {after} of {before}");
    assert_eq!(length("ferricorn.db-reserve").expect("it is taken again"), 1 << 20);
    assert_eq!(populate(), 201);
    let ended = "able to write to the database again after ";
    server.wait_log(ended);
    eventually("every worker is ready", PATIENCE, || {
        let ready = || server.get("/readyz").is_ok_and(|answer| answer.status == 200);
        (0..16).all(|_| ready()).then_some(())
    });
    assert_eq!((lines(&server, begun), lines(&server, ended)), (1, 1), "{}", server.log());

    fill(&data.join("data/more"));
    refused();
    server.signal(Signal::SIGHUP);
    server.wait_log("ferricorn.db has no space left: ");
    server.wait_reloaded(2);
    server.stop();
}

/// The user of the server, as the log names it.
fn user() -> String {
    let users = std::fs::read_to_string("/etc/passwd").expect("every machine has it");
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == NOBODY.to_string()).then(|| format!("user {name} (uid {NOBODY})"))
    });
    user.unwrap_or_else(|| format!("uid {NOBODY}"))
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn a_file_of_mode_0444_is_refused_by_path_user_and_command() {
    let started = with_a_database(|data| set_mode(&data.join("ferricorn.db"), 0o444));
    let Some(builder) = started else { return };
    let log = builder.fails_with(NOT_PREPARED);
    assert!(log.contains(&format!("cannot be written: {} cannot write to /", user())), "{log}");
    assert!(log.contains("/data/ferricorn.db: permission denied; run: chown 65534:"), "{log}");
}

#[test]
fn a_restored_wal_of_another_user_is_refused_by_name() {
    let started = with_a_database(|data| {
        let wal = data.join("ferricorn.db-wal");
        std::fs::write(&wal, [0; 32]).expect("the folder is ours");
        std::os::unix::fs::chown(&wal, Some(0), Some(0)).expect("the tests are run by root");
        set_mode(&wal, 0o600);
    });
    let Some(builder) = started else { return };
    let log = builder.fails_with(NOT_PREPARED);
    assert!(log.contains("/data/ferricorn.db-wal: permission denied; run: chown 65534:"), "{log}");
}

#[test]
fn a_folder_of_another_user_is_refused_with_the_command_that_mends_it() {
    let builder = Ferricorn::bundled();
    if !builder.is_bound_by_limits() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    set_mode(folder.path(), 0o755);
    let mount = folder.path().join("mount");
    std::fs::create_dir(&mount).expect("the folder is ours");
    for below in ["data.db", "new/data.db"] {
        let database = mount.join(below);
        let log = Ferricorn::bundled()
            .env("DATABASE_URL", format!("sqlite://{}", database.display()))
            .fails_with(NOT_PREPARED);
        let expected = format!(
            "{} cannot write to {}: permission denied; run: install -d -o 65534 -g 65534 {}",
            user(),
            mount.display(),
            database.parent().expect("it has one").display(),
        );
        assert!(log.contains(&expected), "{expected}\n{log}");
        assert!(!log.contains("code: 14"), "{log}");
    }
}

/// A local reader that keeps the lock of the turn for ever.
#[test]
fn a_kept_turn_costs_a_worker_one_thread() {
    let server = Ferricorn::bundled().config("workers = 1").start();
    let mut connection = server.connect();
    let mut populate = || {
        connection.send(post("/populate", "")).expect("it is connected");
        assert_eq!(connection.response().expect("it is answered").status, 201);
    };
    populate();
    let turn = std::fs::File::options()
        .read(true)
        .open(server.folder().join("data/ferricorn.db-turn"))
        .expect("the tests are run by its owner, or by root");
    turn.lock_shared().expect("a local file can be locked");
    let worker = server.worker(0);
    let mut costs = || {
        // Each waits for the turn in vain, and goes without.
        (0..8).for_each(|_| populate());
        let count =
            |of: &str| std::fs::read_dir(format!("/proc/{worker}/{of}")).expect("it lives").count();
        (count("task"), count("fd"))
    };
    let first = costs();
    assert_eq!([costs(), costs()], [first; 2], "threads and descriptors");
    server.stop();
}

/// The process that holds the write lock, if one does.
fn has_write_lock(database: &Path, pid: i32) -> bool {
    let shared = database.with_extension("db-shm");
    // It is made with the first connection.
    let Ok(inode) = std::fs::metadata(shared).map(|shared| shared.ino()) else { return false };
    let locks = std::fs::read_to_string("/proc/locks").expect("/proc is there");
    locks.lines().any(|line| {
        line.contains(&format!("WRITE {pid} ")) && line.ends_with(&format!(":{inode} 120 120"))
    })
}

/// Returns true if each thread of a process has stopped.
fn stands(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|after| after.trim_start().starts_with('T'))
    })
}

/// Stops a worker in the middle of a write.
fn stop_in_write(server: &Ferricorn, pid: i32) {
    let database = server.folder().join("data/ferricorn.db");
    eventually("the worker is stopped with the lock in its hand", PATIENCE, || {
        send(pid, Signal::SIGSTOP);
        eventually("it stands", PATIENCE, || stands(pid).then_some(()));
        if has_write_lock(&database, pid) {
            return Some(());
        }
        send(pid, Signal::SIGCONT);
        None
    });
}

#[test]
fn the_stopped_holder_of_the_write_lock_is_named() {
    let server = Ferricorn::bundled().config("workers = 2").start();
    let holder = server.worker(0);
    let other = server.worker(1);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let address = server.address();
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Some of them wait at the stopped worker.
                    let _answer = Connection::open(&address).and_then(|mut connection| {
                        connection.send(post("/populate", ""))?;
                        connection.response()
                    });
                }
            })
        })
        .collect();
    stop_in_write(&server, holder);
    let expected = format!("its write lock is held by process {holder} (ferricorn-w0), which is");
    server.wait_log(&expected);
    stop.store(true, Ordering::Relaxed);
    eventually("the other worker is not ready", PATIENCE, || {
        let answer = server.get("/readyz").ok()?;
        (answer.status == 503).then_some(())
    });
    send(holder, Signal::SIGCONT);
    eventually("both are ready", PATIENCE, || {
        let ready = || server.get("/readyz").is_ok_and(|answer| answer.status == 200);
        (0..8).all(|_| ready()).then_some(())
    });
    server.wait_log("able to write to the database again after");
    for writer in writers {
        writer.join().expect("it does not panic");
    }
    assert_eq!((server.worker(0), server.worker(1)), (holder, other));
    server.stop();
}
