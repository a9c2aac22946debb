//! `--help` and `--version`.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

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
    insta::assert_snapshot!(head, @r"
        The iron unicorn: a Gunicorn-style multi-worker supervisor for Rust web services

        Usage: ferricorn [OPTIONS] [COMMAND]

        Commands:
          run          Serve with any program: COMMAND runs in each slot instead of the application
          check        Say whether the configuration is valid, and exit
          config       Print every setting, its value and where it came from
          healthcheck  Exit 0 when the server answers health.ready (GET /readyz) with 200
          status       Print the state of the running server and of each worker
          top          Show the state of the running server, again each second
          reload       Reload the configuration; exit 0 when the workers are replaced, else 1
          upgrade      Replace the program by the one on disk, in place; exit 0 when it serves
          restart      Replace the workers of these slots, one after the other
          scale        Change the number of workers, and wait until they serve
          stop         Stop the server, and wait until it is gone
          reopen       Open the log files again by their paths
          events       Print the last events of the server
          why          Explain the last ends of workers in a slot
          completions  Print the script by which a shell completes command lines
          man          Print the manual page, for man(1)
          version      Print the version
          user         Add a user to access.users, or change the password: asked for, or read from stdin
          help         Print this message or the help of the given subcommand(s)

        Options:
          -c, --config <FILE>  The configuration file [default: config.toml, if it is there]
              --check-config   The same as the command check
              --print-config   The same as the command config
          -v, --version        Print the version
          -h, --help           Print help
        ");
    for arguments in ["-h", "help"] {
        let same = Folder::new().run(&[arguments]);
        assert_eq!((same.code, same.stderr), (0, String::new()));
        assert_eq!(same.stdout, output.stdout);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "it lists every setting")]
fn help_lists_every_option() {
    let output = Folder::new().run(&["--help"]);
    // The application's settings are its own tests' business.
    let (ours, theirs) = output.stdout.split_once("\n[database]:\n").unwrap();
    assert!(options(theirs).starts_with("--database-url <TEXT>\n"), "{theirs}");
    insta::assert_snapshot!(options(ours), @r"
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
        --announce <SECONDS>
        --drain-spread <SHARE>
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
        --control <auto|PATH>
        -e, --env <NAME=VALUE>
        --env-file <PATH>
        --forwarded-allow-ips <NETWORK>
        --forwarded-fields <FAMILY>
        --proxy-protocol[=<true|false>]
        --proxy-allow-from <NETWORK>
        --ready-fd <N>
        --access-logfile <PATH>
        --error-logfile <PATH>
        --log-level <debug|info|warning|error|critical>
        --access-logformat <TEXT>
        --log-skip <RULE>
        --log-slow <SECONDS>
        --log-format <text|json>
        --log-when-full <drop|block>
        --limit-request-line <BYTES>
        --limit-request-fields <N>
        --limit-request-field_size <BYTES>
        --limit-body <BYTES>
        --limit-header-timeout <SECONDS>
        --limit-body-timeout <SECONDS>
        --health-live <PATH>
        --health-ready <PATH>
        --http2-enabled[=<true|false>]
        --http2-max-streams <N>
        --tls-bind <ADDRESS>
        --certfile <FILE>
        --keyfile <FILE>
        --ca-certs <FILE>
        --cert-reqs <none|optional|required>
        --tls-min-version <1.2|1.3>
        --program-command <WORD>
        --program-ready <SIGN>
        --program-stop-signal <SIGNAL>
        --stats-bind <ADDRESS>
        --statsd-host <ADDRESS>
        --statsd-prefix <TEXT>
        --dogstatsd-tags <TAG>
        ");
}

#[test]
fn a_setting_is_described_with_its_default() {
    let output = Folder::new().run(&["--help"]);
    let line = output.stdout.lines().find(|line| line.contains("--threads")).unwrap();
    insta::assert_snapshot!(line.trim(), @"--threads <N>                    Runtime threads in each worker. [default: 1]");
}

#[test]
fn the_version_is_the_packages() {
    for argument in ["--version", "-v", "-V", "version"] {
        let output = Folder::new().run(&[argument]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert_eq!(output.stdout, format!("ferricorn {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn help_of_a_command_is_about_its_own_options() {
    let output = Folder::new().run(&["healthcheck", "--help"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(options(&output.stdout), @r#"
        --live
        -c, --config <FILE>
        -h, --help
        -b, --bind <ADDRESS>
        --proxy-protocol[=<true|false>]
        --proxy-allow-from <NETWORK>
        "#);
    let same = Folder::new().run(&["help", "healthcheck"]);
    assert_eq!((same.code, same.stdout), (0, output.stdout));
    let check = Folder::new().run(&["check", "--help"]);
    assert_eq!(options(&check.stdout), "-c, --config <FILE>\n-h, --help\n");
}

/// The output of `ferricorn --help` on a terminal of 60 columns.
fn on_a_terminal(variables: &[(&str, &str)]) -> String {
    let size = nix::pty::Winsize { ws_row: 24, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = nix::pty::openpty(Some(&size), None).expect("a terminal");
    let end = || Stdio::from(terminal.slave.try_clone().expect("a descriptor"));
    let folder = Folder::new();
    let mut command = folder.command(&["--help"]);
    command.envs(variables.iter().copied()).stdin(end()).stdout(end()).stderr(end());
    let mut child = command.spawn().expect("the program starts");
    drop((command, terminal.slave));
    let mut text = Vec::new();
    // A terminal whose other end is closed ends with EIO (pty(7)).
    let _end = File::from(terminal.master).read_to_end(&mut text);
    assert!(child.wait().expect("it is our child").success());
    String::from_utf8(text).expect("it writes UTF-8")
}

#[test]
fn help_on_a_terminal_is_wrapped_and_coloured() {
    let coloured = on_a_terminal(&[("TERM", "xterm-256color")]);
    assert!(coloured.contains("\u{1b}[1m"), "{coloured}");
    for variables in [&[("TERM", "dumb")][..], &[("TERM", "xterm"), ("NO_COLOR", "1")]] {
        let plain = on_a_terminal(variables);
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(plain.lines().count() > 100, "{plain}");
        // Only the names of values cannot be wrapped.
        let wide = plain.lines().filter(|line| line.trim_end().chars().count() > 60);
        let wide: Vec<&str> = wide.filter(|line| !line.trim_start().starts_with('-')).collect();
        assert_eq!(wide, Vec::<&str>::new());
    }
}

#[test]
fn completions_offer_settings_and_no_refused_option() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Folder::new().run(&["completions", shell]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        for word in ["stall-timeout", "healthcheck", "database-url"] {
            assert!(output.stdout.contains(word), "{shell} lacks {word}");
        }
        assert!(!output.stdout.contains("worker-class"), "{shell}");
    }
    let bash = Folder::new();
    bash.write("script", bash.run(&["completions", "bash"]).stdout);
    let test = "source ./script; COMP_WORDS=(ferricorn hea); COMP_CWORD=1; \
                _ferricorn ferricorn hea ferricorn; echo ${COMPREPLY[@]}";
    let mut shell = std::process::Command::new("bash");
    let output = shell.args(["-c", test]).current_dir(bash.path()).output().expect("bash");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "healthcheck\n", "{output:?}");
}

#[test]
fn manual_page_has_every_command_and_setting() {
    let output = Folder::new().run(&["man"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert!(output.stdout.contains(".TH ferricorn 1 "), "{}", output.stdout);
    for word in ["stall\\-timeout", "healthcheck", "database\\-url", "SETTINGS"] {
        assert!(output.stdout.contains(word), "no {word} in {}", output.stdout);
    }
    assert!(!output.stdout.contains("worker\\-class"), "{}", output.stdout);
}
