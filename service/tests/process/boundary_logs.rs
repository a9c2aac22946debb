//! Log files of a server that drops to a user: they are opened with that user's rights, whatever a
//! worker does to the folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use crate::boundary::begun_by;
use crate::harness::{Builder, Ferricorn, NOBODY, PATIENCE, Signal, eventually, send};
use crate::proc;

/// A server of root's whose workers are nobody's, in a folder of root's with a folder `logs` of
/// nobody's; `None` where the tests are not root's.
fn root_server(config: &str) -> Option<Builder> {
    let config = format!("user = \"65534\"\nworkers = 1\n{config}");
    let builder = begun_by(&[], Ferricorn::hello().config(&config))?;
    let folder = builder.folder();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("it is ours");
    fs::create_dir(folder.join("logs")).expect("it is ours");
    chown(folder.join("logs"), Some(NOBODY), Some(NOBODY)).expect("we are root");
    Some(builder)
}

/// A file of root's, which no other user may write to.
fn file_of_root(path: &Path) {
    fs::write(path, "root's\n").expect("it is ours");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it is ours");
}

/// Runs this as nobody, and returns true if it succeeds.
fn as_nobody(command: &[&str]) -> bool {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let status = Command::new("setpriv").args(user).args(command).status();
    status.expect("it is part of util-linux").success()
}

/// The attack of a worker that is taken over: its user may rename its log file, put a link in its place,
/// and send `USR1` to its own process.
#[test]
fn reopened_log_is_no_file_of_root() {
    let config = "[log]\naccess = \"logs/access.log\"\nerror = \"logs/error.log\"";
    let Some(server) = root_server(config) else { return };
    let secret = server.folder().join("secret");
    file_of_root(&secret);
    let server = server.start();
    let at = |name: &str| server.folder().join("logs").join(name);
    assert_eq!(fs::metadata(at("access.log")).expect("it is opened").uid(), NOBODY);
    fs::rename(at("access.log"), at("moved.log")).expect("we are root");
    symlink(&secret, at("access.log")).expect("we are root");
    send(server.worker(0), Signal::SIGUSR1);
    let told = "cannot reopen log logs/access.log: Permission denied";
    let error_log = || fs::read_to_string(at("error.log")).unwrap_or_default();
    eventually("it is said", PATIENCE, || error_log().contains(told).then_some(()));
    server.get("/after").expect("it serves");
    eventually("the line is in the old file", PATIENCE, || {
        fs::read_to_string(at("moved.log")).is_ok_and(|text| text.contains("/after")).then_some(())
    });
    assert_eq!(fs::read_to_string(&secret).expect("we are root"), "root's\n");
    server.stop();
}

/// It has no capability, and the user of the workers can neither stop nor slow it.
#[test]
fn logger_has_no_rights_and_workers_none_over_it() {
    let Some(server) = root_server("[log]\naccess = \"logs/access.log\"") else { return };
    let server = server.start();
    let logger = server.logger();
    let status = |name: &str| proc::status_all(logger, name).join(" ");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!((status("Uid"), status("NoNewPrivs")), ("0 0 0 65534".to_owned(), "1".to_owned()));
    assert_eq!((status("Gid"), status("Groups")), ("0 0 0 65534".to_owned(), "65534".to_owned()));
    let pid = logger.to_string();
    for command in
        [&["kill", "-STOP", &pid][..], &["renice", "19", &pid], &["taskset", "-p", "1", &pid]]
    {
        assert!(!as_nobody(command), "{command:?}");
    }
    assert!(as_nobody(&["kill", "-0", &server.worker(0).to_string()]), "the test is wrong");
    server.get("/").expect("it serves");
    server.stop();
}

/// A file that an earlier version has made as root, or may be made by root alone: at the start, at a reload,
/// and at an upgrade, each of which changes nothing.
#[test]
fn log_files_of_root_are_refused_with_the_remedy() {
    let Some(server) = root_server("[log]\naccess = \"access.log\"") else { return };
    file_of_root(&server.folder().join("access.log"));
    let log = server.fails_with(78);
    let told = "failed to open the access log access.log: Permission denied (os error 13): log files are \
                opened as uid 65534: chown 65534 /";
    assert!(log.contains(told) && log.contains("/access.log\n"), "{log}");
    let config = "[log]\nerror = \"logs/error.log\"";
    let Some(server) = root_server(config) else { return };
    let server = server.start();
    let error_log = server.folder().join("logs/error.log");
    let wait_told = |text: &str| {
        eventually(text, PATIENCE, || {
            fs::read_to_string(&error_log).is_ok_and(|content| content.contains(text)).then_some(())
        });
    };
    server
        .rewrite_config(&format!("user = \"65534\"\nworkers = 1\n{config}\naccess = \"new.log\""));
    server.signal(Signal::SIGHUP);
    wait_told(
        "failed to open the access log new.log: Permission denied (os error 13): log files are opened as \
         uid 65534: chown 65534 /",
    );
    wait_told(", or make the file for that user");
    assert!(!server.folder().join("new.log").exists(), "it was not made as root");
    server.signal(Signal::SIGUSR2);
    wait_told("failed to upgrade: ");
    server.get("/").expect("it serves");
    server.stop();
}

/// A path that names a stream which the server was started with opens nothing: root alone may open that
/// file.
#[test]
fn path_of_a_stream_stays_inherited() {
    let Some(server) = root_server("[log]\naccess = \"/dev/stdout\"\nerror = \"/dev/fd/2\"") else {
        return;
    };
    let server = server.start();
    let folder = server.folder().to_owned();
    for name in ["stdout", "stderr"] {
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o600)).expect("it is ours");
    }
    server.signal(Signal::SIGUSR1);
    let logger = server.logger();
    send(logger, Signal::SIGKILL);
    server.wait_log("ogger");
    server.get("/streamed").expect("it serves");
    server.wait_log("/streamed");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("we are root");
    assert!(read("stdout").contains("/streamed") && read("stderr").contains("[INFO]"));
    server.stop();
}

/// logrotate(8) with `create`, as the documentation has it.
#[test]
fn rotation_with_a_new_file_of_the_user_loses_no_line() {
    let Some(server) = root_server("[log]\naccess = \"logs/access.log\"") else { return };
    let server = server.start();
    let at = |name: &str| server.folder().join("logs").join(name);
    chown(server.folder().join("logs"), Some(0), Some(0)).expect("we are root");
    server.get("/before").expect("it serves");
    fs::rename(at("access.log"), at("access.log.1")).expect("we are root");
    fs::write(at("access.log"), "").expect("we are root");
    chown(at("access.log"), Some(NOBODY), Some(NOBODY)).expect("we are root");
    server.signal(Signal::SIGUSR1);
    eventually("a line is in the new file", PATIENCE, || {
        server.get("/after").expect("it serves");
        fs::read_to_string(at("access.log")).is_ok_and(|text| text.contains("/after")).then_some(())
    });
    let [old, new] = ["access.log.1", "access.log"].map(|name| fs::read_to_string(at(name)));
    // A line may be written after its answer, and after the rotation.
    let both = [old.expect("we are root"), new.expect("we are root")].concat();
    assert!(both.contains("/before"), "{both}");
    server.stop();
}
