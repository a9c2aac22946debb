//! `check`, `config`, and gunicorn's options for them.

use std::process::Stdio;

use crate::program::Folder;

#[test]
fn check_says_that_all_is_well() {
    let folder = Folder::new();
    let all = folder.run(&["config"]).stdout.lines().count();
    let ok = |changed: usize| {
        let hint = if changed == 0 { "" } else { ": `ferricorn config --changed`" };
        format!("ok ({changed} of {all} settings differ from their default{hint})")
    };
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
fn gunicorns_own_variable_is_read() {
    let folder = Folder::new();
    folder.write("config.toml", "workers = 2\n");
    let variables = [
        ("GUNICORN_CMD_ARGS", "--workers 8 --timeout=60"),
        ("FERRICORN_WORKERS", "4"),
        ("FERRICORN_THREADS", "2"),
    ];
    let output = folder.run_with(&["config", "-t", "70"], &variables);
    assert_eq!(output.setting("workers"), "workers = 8  # environment GUNICORN_CMD_ARGS --workers");
    assert_eq!(output.setting("timeout"), "timeout = 70  # command line --timeout");
    assert_eq!(output.setting("threads"), "threads = 2  # environment FERRICORN_THREADS");
    let output = folder.run_with(&["check"], &[("GUNICORN_CMD_ARGS", "-w 0")]);
    assert_eq!(
        output.problems(),
        "ferricorn: GUNICORN_CMD_ARGS: --workers: workers: expected 1 to 256 or \"auto\", found \"0\"\n"
    );
    // Nobody but root and its own user reads a process's environment.
    let url = [("GUNICORN_CMD_ARGS", "--database-url sqlite://user:hunter2@rows.db")];
    assert_eq!(folder.run_with(&["check"], &url).code, 0);
}

#[test]
fn changed_settings_are_printed_alone() {
    let folder = Folder::new();
    folder.write("config.toml", "workers = 4\ntimeout = 60\n");
    let output = folder.run(&["config", "--changed", "-w", "3"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert_eq!(
        output.stdout,
        "workers = 3  # command line --workers\ntimeout = 60  # config.toml:2\n"
    );
    // A file that states a default changes nothing.
    let output = folder.run(&["config"]);
    assert_eq!(output.setting("workers"), "workers = 4  # config.toml:1, the default");
    assert_eq!(output.setting("timeout"), "timeout = 60  # config.toml:2");
}

#[test]
#[expect(clippy::too_many_lines, reason = "it lists every setting")]
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
        announce = 0  # default
        drain_spread = 0.5  # default
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
        control = "auto"  # default
        env = []  # default
        env_file = ""  # default
        forwarded_allow_ips = ["127.0.0.1", "::1"]  # default
        forwarded_fields = "x-forwarded"  # default
        proxy_protocol = false  # default
        proxy_allow_ips = ["127.0.0.1", "::1"]  # default
        ready_fd = ""  # default
        log.access = "-"  # default
        log.error = "-"  # default
        log.level = "debug"  # config.toml:3
        log.access_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'  # default
        log.skip = []  # default
        log.slow = 0  # default
        log.format = "text"  # default
        log.when_full = "drop"  # default
        limits.request_line = 4094  # default
        limits.request_fields = 100  # default
        limits.request_field_size = 8190  # default
        limits.body = 1536  # command line --limit-body
        limits.header_timeout = 10  # default
        limits.body_timeout = 30  # default
        health.live = "/healthz"  # default
        health.ready = "/readyz"  # default
        http2.enabled = true  # default
        http2.max_streams = 128  # default
        tls.bind = []  # default
        tls.certificate = []  # default
        tls.key = []  # default
        tls.client_ca = ""  # default
        tls.client_auth = "none"  # default
        tls.min_version = "1.2"  # default
        program.command = []  # default
        program.ready = "notify"  # default
        program.stop_signal = "TERM"  # default
        stats.bind = ""  # default
        stats.statsd = ""  # default
        stats.statsd_prefix = ""  # default
        stats.statsd_tags = []  # default
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
fn full_disk_is_an_error_of_what_was_asked_for() {
    let folder = Folder::new();
    for arguments in [
        &["config"][..],
        &["check"],
        &["config", "--reference"],
        &["--help"],
        &["--version"],
        &["man"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = folder.command(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(70), "{arguments:?}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "ferricorn: failed to write to stdout: No space left on device (os error 28)\n"
        );
    }
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

/// The stored text is what gunicorn 27.0.1 printed for a command line with options of each kind.
#[test]
fn output_of_gunicorn_becomes_a_configuration() {
    let folder = Folder::new();
    folder.write("printed", include_str!("data/gunicorn-print-config.txt"));
    let output = folder.run(&["config", "--from-gunicorn", "printed"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(output.stdout, @r#"
        # Made from the output of `gunicorn --print-config`.
        bind = ["0.0.0.0:8000", "unix:/run/a.sock"]
        workers = 3
        threads = 2
        timeout = 90
        keepalive = 2  # gunicorn's default; ferricorn's: 75
        max_requests = 1000
        user = "33"
        umask = "07"
        env = ["A=1", "B=x y"]
        forwarded_allow_ips = ["10.0.0.1", "10.0.0.2"]
        http2.max_streams = 100  # gunicorn's default; ferricorn's: 128

        # Left out:
        # chdir = /srv/app: set chdir to it where /srv/app is meant at every start
        # preload_app = True: the program is loaded before workers are forked, always; leave the option out
        # worker_class = gthread: every worker is asynchronous; for runtime threads in each worker use --threads
        "#);
    // The user of the example may not exist here.
    folder.write("config.toml", output.stdout.replace("user = \"33\"", ""));
    let checked = folder.run(&["check"]);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    assert_eq!(folder.run(&["config"]).setting("timeout"), "timeout = 90  # config.toml:5");
}

#[test]
fn another_text_is_no_output_of_gunicorn() {
    let folder = Folder::new();
    folder.write("printed", "workers = 3\n");
    assert_eq!(
        folder.run(&["config", "--from-gunicorn", "printed"]).problems(),
        "ferricorn: printed: expected the output of `gunicorn --print-config`, found another text\n"
    );
    assert_eq!(
        folder.run(&["config", "--from-gunicorn", "absent"]).problems(),
        "ferricorn: absent: failed to read: no such file or directory\n"
    );
}
