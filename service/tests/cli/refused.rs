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
    ]), @r"
        ferricorn: --worker-class: every worker is asynchronous; for runtime threads in each worker use --threads
        ferricorn: --reload: send SIGHUP to reload the configuration, or SIGUSR2 after a new build
        ferricorn: --preload: the program is loaded before workers are forked, always; leave the option out
        ferricorn: --daemon: it stays in the foreground; let systemd, a container or nohup run it
        ferricorn: --worker-tmp-dir: heartbeats are in shared memory and need no folder; leave the option out
        ");
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
    insta::assert_snapshot!(said(&["--wokers", "4"]), @r#"ferricorn: --wokers: unknown option: did you mean "--workers"?"#);
}

#[test]
fn an_option_without_its_value() {
    insta::assert_snapshot!(said(&["--workers"]), @"ferricorn: --workers: expected <N>, found nothing");
}

#[test]
fn a_configuration_in_python() {
    insta::assert_snapshot!(said(&["-c", "gunicorn.conf.py"]), @"ferricorn: --config: gunicorn.conf.py is Python; `ferricorn config --reference` prints a TOML file instead");
}

#[test]
fn host_and_port_are_one_option() {
    insta::assert_snapshot!(said(&["--host", "0.0.0.0", "--port", "8000"]), @r#"
        ferricorn: --host: an address is one option: use --bind HOST:PORT (bind in the file)
        ferricorn: --port: an address is one option: use --bind HOST:PORT (bind in the file)
        "#);
}

#[test]
fn errors_of_commands_are_one_line_each() {
    insta::assert_snapshot!(said(&["completions", "tcsh"]), @"ferricorn: invalid value 'tcsh' for '<SHELL>' [possible values: bash, elvish, fish, powershell, zsh]");
    insta::assert_snapshot!(said(&["completions"]), @"ferricorn: the following required arguments were not provided: <SHELL>");
    insta::assert_snapshot!(said(&["user"]), @"ferricorn: 'ferricorn user' requires a subcommand but one was not provided [subcommands: add]");
    insta::assert_snapshot!(said(&["help", "chekc"]), @"ferricorn: unrecognized subcommand 'chekc'");
    insta::assert_snapshot!(said(&["check", "twice"]), @"ferricorn: twice: unexpected argument");
    insta::assert_snapshot!(said(&["-x"]), @"ferricorn: -x: unknown option: `ferricorn --help` lists all");
}
