//! `--help` and `--version`.

use crate::program::Folder;

/// One line for each option: what it is called, without what it means.
fn options(help: &str) -> String {
    let names = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.starts_with('-').then_some(line)?;
        Some(line.split("  ").next().unwrap_or(line).to_owned() + "\n")
    });
    names.collect()
}

#[test]
fn help_goes_to_stdout_and_names_the_commands() {
    let output = Folder::new().run(&["--help"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let head = output.stdout.split("\nSettings:").next().unwrap().to_owned();
    insta::assert_snapshot!(head, @r#"
        The iron unicorn: a Gunicorn-style multi-worker supervisor for Rust web services

        Usage: ferricorn [OPTIONS] [COMMAND]

        Commands:
          check        Say whether the configuration is valid, and exit
          config       Print every setting, its value and where it came from
          healthcheck  Exit 0 when the server answers GET /readyz with 200

        Options:
          -c, --config <FILE>  The configuration file [default: config.toml, if it is there]
              --check-config   The same as the command check
              --print-config   The same as the command config
          -v, --version        Print the version
          -h, --help           Print help
        "#);
    let same = Folder::new().run(&["-h"]);
    assert_eq!((same.code, same.stderr, same.stdout), (0, output.stderr, output.stdout));
}

#[test]
fn help_lists_every_option() {
    let output = Folder::new().run(&["--help"]);
    // The application's settings are its own tests' business.
    let (ours, theirs) = output.stdout.split_once("\n[database]:\n").unwrap();
    assert!(options(theirs).starts_with("--database-url <TEXT>\n"), "{theirs}");
    insta::assert_snapshot!(options(ours), @r#"
        -c, --config <FILE>
        --check-config
        --print-config
        -v, --version
        -h, --help
        -b, --bind <ADDRESS>
        -w, --workers <N>
        --threads <N>
        -t, --timeout <SECONDS>
        --stall-timeout <SECONDS>
        --graceful-timeout <SECONDS>
        --boot-timeout <SECONDS>
        --keep-alive <SECONDS>
        --max-requests <N>
        --max-requests-jitter <N>
        --max-memory <BYTES>
        --max-lifetime <SECONDS>
        --worker-connections <N>
        --backlog <N>
        -u, --user <TEXT>
        -g, --group <TEXT>
        -m, --umask <MODE>
        --unix-socket-mode <MODE>
        -p, --pid <PATH>
        -n, --name <TEXT>
        --chdir <PATH>
        -e, --env <NAME=VALUE>
        --env-file <PATH>
        --forwarded-allow-ips <NETWORK>
        --proxy-protocol[=<true|false>]
        --proxy-allow-from <NETWORK>
        --ready-fd <N>
        --access-logfile <PATH>
        --error-logfile <PATH>
        --log-level <debug|info|warning|error|critical>
        --access-logformat <TEXT>
        --log-format <text|json>
        --log-when-full <drop|block>
        --limit-request-line <BYTES>
        --limit-request-fields <N>
        --limit-request-field_size <BYTES>
        --limit-body <BYTES>
        --limit-header-timeout <SECONDS>
        --limit-body-timeout <SECONDS>
        "#);
}

#[test]
fn a_setting_is_described_with_its_default() {
    let output = Folder::new().run(&["--help"]);
    let line = output.stdout.lines().find(|line| line.contains("--graceful-timeout")).unwrap();
    insta::assert_snapshot!(line.trim(), @"--graceful-timeout <SECONDS>     How long a stopping worker may finish its requests. [default: 30]");
}

#[test]
fn the_version_is_the_packages() {
    for argument in ["--version", "-v", "-V"] {
        let output = Folder::new().run(&[argument]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert_eq!(output.stdout, format!("ferricorn {}\n", env!("CARGO_PKG_VERSION")));
    }
}
