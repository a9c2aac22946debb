//! `check`, `config`, and gunicorn's options for them.

use std::process::Stdio;

use crate::program::Folder;

#[test]
fn check_says_that_all_is_well() {
    let folder = Folder::new();
    let all = folder.run(&["config"]).stdout.lines().count();
    let ok = |changed: usize| format!("ok ({changed} of {all} settings differ from their default)");
    let output = folder.run(&["check"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert_eq!(output.stdout, format!("no configuration file: {}\n", ok(0)));
    folder.write("config.toml", "workers = 2\ntimeout = 120\n");
    let output = folder.run(&["check"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert_eq!(output.stdout, format!("config.toml: {}\n", ok(1)));
    let same = folder.run(&["--check-config"]);
    assert_eq!((same.code, same.stderr, same.stdout), (0, output.stderr, output.stdout));
}

#[test]
fn check_warns_and_is_content() {
    let folder = Folder::new();
    folder.write("config.toml", "max_requests_jitter = 5\n");
    let output = folder.run(&["check"]);
    assert_eq!(output.code, 0);
    insta::assert_snapshot!(output.stderr, @"ferricorn: warning: config.toml:1: max_requests_jitter: it has no effect while max_requests is 0");
    assert!(output.stdout.starts_with("config.toml: ok (1 of "), "{}", output.stdout);
}

#[test]
fn gunicorns_own_variable_is_not_passed_over_in_silence() {
    let variables = [("GUNICORN_CMD_ARGS", "--workers 8")];
    let output = Folder::new().run_with(&["config"], &variables);
    assert_eq!(output.setting("workers"), "workers = 4  # default");
    assert_eq!(
        output.stderr,
        "ferricorn: warning: GUNICORN_CMD_ARGS is set, and is not read; use config.toml\n"
    );
}

#[test]
fn config_prints_every_setting_with_its_origin() {
    let folder = Folder::new();
    folder.write("config.toml", "workers = 2\n[log]\nlevel = 'debug'\n");
    let variables = [("FERRICORN_TIMEOUT", "1m 30s")];
    let output = folder.run_with(&["config", "--limit-body", "1.5KiB"], &variables);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    // The application's settings are its own tests' business.
    let (ours, _) = output.stdout.split_once("database.").unwrap();
    insta::assert_snapshot!(ours, @r#"
        bind = ["0.0.0.0:5000"]  # default
        workers = 2  # config.toml:1
        threads = 1  # default
        timeout = 90  # environment FERRICORN_TIMEOUT
        stall_timeout = 120  # default
        graceful_timeout = 30  # default
        boot_timeout = 60  # default
        keepalive = 75  # default
        max_requests = 0  # default
        max_requests_jitter = 0  # default
        max_memory = 0  # default
        max_lifetime = 0  # default
        worker_connections = 1000  # default
        backlog = 2048  # default
        user = ""  # default
        group = ""  # default
        umask = ""  # default
        unix_socket_mode = ""  # default
        pidfile = ""  # default
        proc_name = ""  # default
        chdir = ""  # default
        env = []  # default
        env_file = ""  # default
        forwarded_allow_ips = ["127.0.0.1", "::1"]  # default
        proxy_protocol = false  # default
        proxy_allow_ips = ["127.0.0.1", "::1"]  # default
        ready_fd = ""  # default
        log.access = "-"  # default
        log.error = "-"  # default
        log.level = "debug"  # config.toml:3
        log.access_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'  # default
        log.format = "text"  # default
        log.when_full = "drop"  # default
        limits.request_line = 4094  # default
        limits.request_fields = 100  # default
        limits.request_field_size = 8190  # default
        limits.body = 1536  # command line --limit-body
        limits.header_timeout = 10  # default
        limits.body_timeout = 30  # default
        "#);
    let same = folder.run_with(&["--print-config", "--limit-body", "1.5KiB"], &variables);
    assert_eq!(same.setting("workers"), "workers = 2  # config.toml:1");
    assert_eq!(same.stdout, output.stdout);
}

#[test]
fn a_wrong_configuration_ends_everything_with_78() {
    let folder = Folder::new();
    folder.write("config.toml", "workers = 0\n");
    for arguments in [&["check"][..], &["config"], &["--check-config"], &["--print-config"], &[]] {
        assert_eq!(
            folder.run(arguments).problems(),
            "ferricorn: config.toml:1: workers: expected 1 to 256 or \"auto\", found 0\n"
        );
    }
}

#[test]
fn the_reference_needs_no_configuration() {
    let folder = Folder::new();
    folder.write("config.toml", "workers = 0\n");
    let output = folder.run(&["config", "--reference"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert!(output.stdout.contains("\nworkers = 4\n"), "{}", output.stdout);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = Folder::new();
    let mut child =
        folder.command(&["config"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
