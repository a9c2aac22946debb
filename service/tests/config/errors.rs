//! Every shape of an error: what, where, found, expected, and what to do.

use std::os::unix::ffi::OsStrExt;

use crate::program::Folder;

/// Returns the error for a file.
fn of_file(text: &str) -> String {
    let folder = Folder::new();
    folder.write("config.toml", text);
    folder.run(&["check"]).problems().to_owned()
}

/// Returns the error for variables.
fn of_variables(variables: &[(&str, &str)]) -> String {
    Folder::new().run_with(&["check"], variables).problems().to_owned()
}

/// Returns the error for options.
fn of_options(options: &[&str]) -> String {
    Folder::new().run(&[&["check"], options].concat()).problems().to_owned()
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(of_file(
        "wokers = 2\naccesslog = '-'\nworker_class = 'gevent'\nlevel = 'info'\nzzz = 1\n\
         [log]\nlevle = 'info'\nworkers = 2\n[databse]\nurl = ''\n[qqq]\n[limits.body]\nx = 1\n"
    ), @r#"
        ferricorn: config.toml:1: unknown key "wokers": did you mean "workers"?
        ferricorn: config.toml:2: unknown key "accesslog": did you mean "log.access"?
        ferricorn: config.toml:3: unknown key "worker_class": every worker is asynchronous; for runtime threads in each worker use --threads
        ferricorn: config.toml:4: unknown key "level": did you mean "log.level", in [log]?
        ferricorn: config.toml:5: unknown key "zzz": `ferricorn config --reference` lists all settings
        ferricorn: config.toml:7: unknown key "log.levle": did you mean "log.level"?
        ferricorn: config.toml:8: unknown key "log.workers": did you mean "workers", above the first [table]?
        ferricorn: config.toml:9: unknown table "databse": did you mean "database"?
        ferricorn: config.toml:11: unknown table "qqq": `ferricorn config --reference` lists all settings
        ferricorn: config.toml:12: limits.body: expected 0 to 1TiB, as bytes or as a text like "8KiB" or "1MB", found a table
        "#);
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(of_file(
        "bind = 5000\nworkers = '4'\ntimeout = [1]\nmax_memory = true\nproxy_protocol = 1\n\
         user = 1000\npidfile = {}\numask = 22\nenv = ['A=1', 2]\nlog = 'debug'\n\
         [limits]\nbody = 1.5\n[database]\nurl = 1979-05-27\n"
    ), @r#"
        ferricorn: config.toml:1: bind: expected a list of at least one text, found 5000
        ferricorn: config.toml:2: workers: expected 1 to 256 or "auto", found "4"
        ferricorn: config.toml:3: timeout: expected 0, or 0.001 to 86400 seconds, or a text like "30s" or "2m", found a list with 1 in it
        ferricorn: config.toml:4: max_memory: expected 0 to 1TiB, as bytes or as a text like "8KiB" or "1MB", found true
        ferricorn: config.toml:5: proxy_protocol: expected true or false, found 1
        ferricorn: config.toml:6: user: expected a text, or "none", found 1000
        ferricorn: config.toml:7: pidfile: expected a path, or "none", found a table
        ferricorn: config.toml:8: umask: expected an octal mode with a leading zero, like "022", or "none", found 22
        ferricorn: config.toml:9: env: expected a list of texts, or "none", found *** (a secret)
        ferricorn: config.toml:10: log: expected a table, found "debug"
        ferricorn: config.toml:12: limits.body: expected 0 to 1TiB, as bytes or as a text like "8KiB" or "1MB", found 1.5
        ferricorn: config.toml:14: database.url: expected a text, found *** (a secret)
        "#);
}

#[test]
fn out_of_range() {
    insta::assert_snapshot!(of_file(
        "bind = []\nworkers = 257\nthreads = -1\ntimeout = '2000h'\nstall_timeout = 0.0001\n\
         boot_timeout = 0\nmax_memory = '2TiB'\nbacklog = 0\numask = '08'\nready_fd = -1\n\
         keepalive = -1.5\nmax_requests = 0xffffffffffffffff\nchdir = \"a\\u0000\"\n\
         [limits]\nrequest_fields = 0\n[log]\nlevel = 'loud'\naccess_format = ''\n"
    ), @r#"
        ferricorn: config.toml:1: bind: expected a list of at least one text, found an empty list
        ferricorn: config.toml:2: workers: expected 1 to 256 or "auto", found 257
        ferricorn: config.toml:3: threads: expected 1 to 64, found -1
        ferricorn: config.toml:4: timeout: expected 0, or 0.001 to 86400 seconds, or a text like "30s" or "2m", found "2000h"
        ferricorn: config.toml:5: stall_timeout: expected 0, or 0.001 to 86400 seconds, or a text like "30s" or "2m", found 0.0001
        ferricorn: config.toml:6: boot_timeout: expected 0.1 to 86400 seconds, or a text like "30s" or "2m", found 0
        ferricorn: config.toml:7: max_memory: expected 0 to 1TiB, as bytes or as a text like "8KiB" or "1MB", found "2TiB"
        ferricorn: config.toml:8: backlog: expected 1 to 65535, found 0
        ferricorn: config.toml:9: umask: expected an octal mode with a leading zero, like "022", or "none", found "08"
        ferricorn: config.toml:10: ready_fd: expected 0 to 1073741824, or "none", found -1
        ferricorn: config.toml:11: keepalive: expected 0, or 0.001 to 86400 seconds, or a text like "30s" or "2m", found -1.5
        ferricorn: config.toml:12: max_requests: expected 0 to 9007199254740992, found 0xffffffffffffffff
        ferricorn: config.toml:13: chdir: expected a path, or "none", found "a\0"
        ferricorn: config.toml:15: limits.request_fields: expected 1 to 32768, found 0
        ferricorn: config.toml:17: log.level: expected "debug", "info", "warning", "error" or "critical", found "loud"
        ferricorn: config.toml:18: log.access_format: expected a format or "json", found ""; log.access = "none" turns the log off
        "#);
}

#[test]
fn bad_addresses_and_networks() {
    insta::assert_snapshot!(of_file(
        "bind = ['0.0.0.0']\nforwarded_allow_ips = ['10.0.0.1/8']\nproxy_allow_ips = 'x'\n"
    ), @r#"
        ferricorn: config.toml:1: bind: expected "host:port", ":port", "[v6]:port", "unix:/path" or "fd://3", found "0.0.0.0": did you mean "0.0.0.0:8000"?
        ferricorn: config.toml:2: forwarded_allow_ips: expected "10.0.0.0/8" or a longer prefix, found "10.0.0.1/8"
        ferricorn: config.toml:3: proxy_allow_ips: expected an address, a network like "10.0.0.0/8" or "*", found "x"
        "#);
    insta::assert_snapshot!(of_file("bind = [':1', '0.0.0.0:1']\n"), @"ferricorn: config.toml:1: bind: expected each address once, found 0.0.0.0:1 twice");
    insta::assert_snapshot!(of_variables(&[("PORT", "http")]), @r#"ferricorn: PORT: bind: expected "host:port", ":port", "[v6]:port", "unix:/path" or "fd://3", found "0.0.0.0:http""#);
}

#[test]
fn a_host_name_that_nobody_knows() {
    let text = of_file("bind = 'no-such-host.invalid:5000'\n");
    let begin = "ferricorn: config.toml:1: bind: failed to resolve \"no-such-host.invalid\": ";
    assert!(text.starts_with(begin) && text.lines().count() == 1, "{text}");
}

#[test]
fn what_is_no_toml() {
    insta::assert_snapshot!(of_file("workers = \nworkers = 2\nworkers = 0\n[log\n"), @r#"
        ferricorn: config.toml:1: invalid TOML: string values must be quoted, expected literal string
        ferricorn: config.toml:2: invalid TOML: duplicate key
        ferricorn: config.toml:3: invalid TOML: duplicate key
        ferricorn: config.toml:4: invalid TOML: unclosed table, expected `]`
        "#);
}

#[test]
fn variables() {
    insta::assert_snapshot!(of_variables(&[
        ("FERRICORN_WORKERS", "0"),
        ("FERRICORN_WOKERS", "4"),
        ("FERRICORN_ZZZ", "4"),
        ("FERRICORN_LOGLEVEL", "debug"),
        ("FERRICORN_LOG_LEVEL", "loud"),
        ("FERRICORN_PROXY_PROTOCOL", "maybe"),
        ("WEB_CONCURRENCY", "many"),
    ]), @r#"
        ferricorn: WEB_CONCURRENCY: workers: expected 1 to 256 or "auto", found "many"
        ferricorn: FERRICORN_WORKERS: workers: expected 1 to 256 or "auto", found "0"
        ferricorn: FERRICORN_PROXY_PROTOCOL: proxy_protocol: expected true or false, found "maybe"
        ferricorn: FERRICORN_LOG_LEVEL: log.level: expected "debug", "info", "warning", "error" or "critical", found "loud"
        ferricorn: FERRICORN_LOGLEVEL: unknown variable: did you mean FERRICORN_LOG_LEVEL?
        ferricorn: FERRICORN_WOKERS: unknown variable: did you mean FERRICORN_WORKERS?
        ferricorn: FERRICORN_ZZZ: unknown variable: `ferricorn config --reference` lists all settings
        "#);
}

#[test]
fn a_variable_that_is_not_utf_8() {
    let folder = Folder::new();
    let output = folder
        .command(&["check"])
        .env("FERRICORN_WORKERS", std::ffi::OsStr::from_bytes(b"\xff"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"ferricorn: FERRICORN_WORKERS: workers: expected UTF-8, found other bytes");
}

#[test]
fn variables_of_ours_and_of_kubernetes_are_not_judged() {
    let variables = [
        ("FERRICORN_INTERNAL_UPGRADE", "x"),
        ("FERRICORN_SERVICE_HOST", "10.0.0.1"),
        ("FERRICORN_SERVICE_PORT", "80"),
        ("FERRICORN_SERVICE_PORT_HTTP", "80"),
        ("FERRICORN_PORT", "tcp://10.0.0.1:80"),
        ("FERRICORN_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("FERRICORN_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("FERRICORN_WEB_PORT_80_TCP_PROTO", "tcp"),
    ];
    let output = Folder::new().run_with(&["check"], &variables);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(of_variables(&[("FERRICORN_PORT", "80")]), @"ferricorn: FERRICORN_PORT: unknown variable: did you mean PORT?");
}

#[test]
fn options() {
    insta::assert_snapshot!(of_options(&[
        "--workers", "-1", "--timeout", "soon", "--umask", "22", "-b", "x", "-e", "1A=2",
        "--log-level", "loud", "--limit-body", "1XB", "--proxy-protocol=maybe",
        "--forwarded-allow-ips", "localhost", "--database-connect-timeout", "0",
    ]), @r#"
        ferricorn: --bind: bind: expected "host:port", ":port", "[v6]:port", "unix:/path" or "fd://3", found "x": did you mean "x:8000"?
        ferricorn: --workers: workers: expected 1 to 256 or "auto", found "-1"
        ferricorn: --timeout: timeout: expected 0, or 0.001 to 86400 seconds, or a text like "30s" or "2m", found "soon"
        ferricorn: --umask: umask: expected an octal mode with a leading zero, like "022", or "none", found "22"
        ferricorn: --env: env: expected a name before "=" (letters, digits, "_"), found "1A"
        ferricorn: --forwarded-allow-ips: forwarded_allow_ips: expected an address, a network like "10.0.0.0/8" or "*", found "localhost"
        ferricorn: --proxy-protocol: proxy_protocol: expected true or false, found "maybe"
        ferricorn: --log-level: log.level: expected "debug", "info", "warning", "error" or "critical", found "loud"
        ferricorn: --limit-body: limits.body: expected 0 to 1TiB, as bytes or as a text like "8KiB" or "1MB", found "1XB"
        ferricorn: --database-connect-timeout: database.connect_timeout: expected 1 to 3600 seconds, or a text like "30s" or "2m", found "0"
        "#);
}

#[test]
fn the_env_file() {
    let folder = Folder::new();
    folder.write(
        "a.env",
        "# A comment.\nGOOD=1\nnot an assignment\nQUOTED=\"two\nlines\"\nFERRICORN_WORKERS=0\n\
         FERRICORN_WOKERS=1\nFERRICORN_CONFIG=x\nFERRICORN_ENV_FILE=b.env\n",
    );
    let output = folder.run(&["check", "--env-file", "a.env"]);
    insta::assert_snapshot!(output.problems(), @r#"
        ferricorn: a.env:3: expected NAME=value
        ferricorn: a.env:6: FERRICORN_WORKERS: workers: expected 1 to 256 or "auto", found "0"
        ferricorn: a.env:7: FERRICORN_WOKERS: unknown variable: did you mean FERRICORN_WORKERS?
        ferricorn: a.env:8: FERRICORN_CONFIG: it is read before the env_file; set it outside of it
        ferricorn: a.env:9: FERRICORN_ENV_FILE: it is read before the env_file; set it outside of it
        "#);
    insta::assert_snapshot!(of_options(&["--env-file", "none.env"]), @"ferricorn: --env-file: env_file: none.env: failed to read: no such file or directory");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    folder.write("binary.toml", b"workers = 2\nuser = '\xff'\n");
    folder.write("huge.toml", "#".repeat((1 << 20) + 1));
    let said = |file: &str| folder.run(&["check", "-c", file]).problems().to_owned();
    insta::assert_snapshot!(said("none.toml"), @"ferricorn: none.toml: failed to read: no such file or directory");
    insta::assert_snapshot!(said("folder"), @"ferricorn: folder: failed to read: it is a directory");
    insta::assert_snapshot!(said("binary.toml"), @"ferricorn: binary.toml: failed to read: line 2 is not UTF-8");
    insta::assert_snapshot!(said("huge.toml"), @"ferricorn: huge.toml: failed to read: it has more than 1048576 bytes");
}

#[test]
fn settings_that_contradict_each_other() {
    insta::assert_snapshot!(of_file("proxy_protocol = true\nproxy_allow_ips = []\n"), @"ferricorn: config.toml:2: proxy_allow_ips: expected at least one network, since proxy_protocol is on; found none");
}

#[test]
fn every_layer_is_judged_also_where_another_overrides_it() {
    let folder = Folder::new();
    folder.write("config.toml", "env_file = 'a.env'\nworkers = 0\n");
    folder.write("a.env", "FERRICORN_WORKERS=x\n");
    let variables = [("FERRICORN_WORKERS", "y"), ("WEB_CONCURRENCY", "z")];
    let output = folder.run_with(&["check", "--workers", "w"], &variables);
    insta::assert_snapshot!(output.problems(), @r#"
        ferricorn: config.toml:2: workers: expected 1 to 256 or "auto", found 0
        ferricorn: a.env:1: FERRICORN_WORKERS: workers: expected 1 to 256 or "auto", found "x"
        ferricorn: WEB_CONCURRENCY: workers: expected 1 to 256 or "auto", found "z"
        ferricorn: FERRICORN_WORKERS: workers: expected 1 to 256 or "auto", found "y"
        ferricorn: --workers: workers: expected 1 to 256 or "auto", found "w"
        "#);
}

#[test]
fn the_server_does_not_start_with_a_wrong_configuration() {
    let output = Folder::new().run(&["--workers", "0"]);
    insta::assert_snapshot!(output.problems(), @r#"ferricorn: --workers: workers: expected 1 to 256 or "auto", found "0""#);
}

/// The number stands for no change in setuid(2), so the system would keep the user in silence.
#[test]
fn numbers_that_are_no_user() {
    insta::assert_snapshot!(of_file("user = '4294967295'\ngroup = '4294967296'\n"), @r#"
        ferricorn: config.toml:1: user: expected a name or a number of at most 4294967294, found "4294967295"
        ferricorn: config.toml:2: group: expected a name or a number of at most 4294967294, found "4294967296"
        "#);
    insta::assert_snapshot!(of_options(&["-u", "4294967295"]), @r#"ferricorn: --user: user: expected a name or a number of at most 4294967294, found "4294967295""#);
}

/// The start refuses what `check` refuses, with the same lines.
#[test]
fn missing_users_and_folders_are_named_with_their_lines() {
    let folder = Folder::new();
    folder.write(
        "config.toml",
        "user = 'no-such-user'\ngroup = 'no-such-group'\npidfile = 'run/f.pid'\n\
         [log]\naccess = '/none/such/a.log'\nerror = '/'\n",
    );
    let path = folder.path().display().to_string();
    let said = folder.run(&["check"]).problems().replace(&path, "HERE");
    insta::assert_snapshot!(said, @r#"
        ferricorn: config.toml:1: user: no user is called "no-such-user"
        ferricorn: config.toml:2: group: no group is called "no-such-group"
        ferricorn: config.toml:5: log.access: the folder /none/such does not exist; create it
        ferricorn: config.toml:6: log.error: expected a file, found the folder /
        ferricorn: config.toml:3: pidfile: the folder HERE/run does not exist; create it
        "#);
    assert_eq!(folder.run(&[]).problems().replace(&path, "HERE"), said);
    folder.write("config.toml", "chdir = 'config.toml'\npidfile = 'none/f.pid'\n");
    let said = folder.run(&["check"]).problems().replace(&path, "HERE");
    insta::assert_snapshot!(said, @"ferricorn: config.toml:1: chdir: expected a folder, found the file HERE/config.toml");
    folder.write("config.toml", "bind = ['unix:/none/such/f.sock', 'unix:f.sock']\n");
    insta::assert_snapshot!(folder.run(&["check"]).problems(), @"ferricorn: config.toml:1: bind: the folder /none/such does not exist; create it");
}

#[test]
fn bad_requests_to_skip() {
    insta::assert_snapshot!(of_file(
        "[log]\nskip = ['/healthz', '304', '/a/* 2xx', 'healthz 200', '/b 99', '6xx']\n"
    ), @r#"ferricorn: config.toml:2: log.skip: expected a path like "/healthz" or "/static/*", a status like "304" or "2xx", or both like "/healthz 200", found "healthz 200""#);
    insta::assert_snapshot!(of_file("[log]\nskip = '/b 99'\n"), @r#"ferricorn: config.toml:2: log.skip: expected a path like "/healthz" or "/static/*", a status like "304" or "2xx", or both like "/healthz 200", found "/b 99""#);
}
