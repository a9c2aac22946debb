//! Wrong usage: exit 64, and a sentence that says what to do.

use crate::program::Folder;

fn said(arguments: &[&str]) -> String {
    let output = Folder::new().run(arguments);
    assert_eq!((output.code, output.stdout.as_str()), (64, ""), "{output:?}");
    output.stderr
}

#[test]
fn options_of_gunicorns_that_mean_nothing_here() {
    insta::assert_snapshot!(said(&[
        "--bind", "0.0.0.0:5000", "-k", "uvicorn.workers.UvicornWorker", "--preload", "-D",
        "--worker-tmp-dir", "/dev/shm", "--certfile", "a.pem", "--keyfile", "a.key", "--reload",
    ]), @r#"
        ferricorn: --worker-class: every worker is asynchronous; for runtime threads in each worker use --threads
        ferricorn: --reload: send SIGHUP to reload the configuration, or SIGUSR2 after a new build
        ferricorn: --preload: the program is loaded before workers are forked, always; leave the option out
        ferricorn: --daemon: it stays in the foreground; let systemd, a container or nohup run it
        ferricorn: --worker-tmp-dir: heartbeats are in shared memory and need no folder; leave the option out
        ferricorn: --keyfile: put a proxy that speaks TLS in front and name it in forwarded_allow_ips
        ferricorn: --certfile: put a proxy that speaks TLS in front and name it in forwarded_allow_ips
        "#);
}

#[test]
fn the_application_of_gunicorns_command_line() {
    insta::assert_snapshot!(said(&["--workers", "4", "app:app"]), @"ferricorn: app:app: the application is part of this program; leave the argument out");
    insta::assert_snapshot!(said(&["app:app", "--workers", "4"]), @"ferricorn: app:app: the application is part of this program; leave the argument out");
}

#[test]
fn a_command_that_is_misspelt() {
    insta::assert_snapshot!(said(&["confg"]), @r#"ferricorn: confg: unknown command: did you mean "config"?"#);
}

#[test]
fn an_option_that_is_misspelt() {
    insta::assert_snapshot!(said(&["--wokers", "4"]), @r#"
        error: unexpected argument '--wokers' found

          tip: a similar argument exists: '--workers'

        Usage: ferricorn [OPTIONS] [COMMAND]

        For more information, try '--help'.
        "#);
}

#[test]
fn an_option_without_its_value() {
    insta::assert_snapshot!(said(&["--workers"]), @r#"
        error: a value is required for '--workers <N>' but none was supplied

        For more information, try '--help'.
        "#);
}

#[test]
fn a_configuration_in_python() {
    insta::assert_snapshot!(said(&["-c", "gunicorn.conf.py"]), @"ferricorn: --config: gunicorn.conf.py is Python; `ferricorn config --reference` prints a TOML file instead");
}
