//! Arguments and what they come to.

use super::*;

const FERRICORN: Own =
    Own { program: Program { name: "ferricorn", version: "1.2.3" }, settings: &[], commands: &[] };

#[test]
fn the_command_line_is_consistent() {
    command(FERRICORN).debug_assert();
}

fn asked(arguments: &[&str]) -> (Task, FileSource, Vec<Flag>) {
    let arguments = ["ferricorn"].iter().chain(arguments).map(OsString::from);
    match parse(FERRICORN, Given { arguments: arguments.collect(), ..Given::default() }) {
        Outcome::Asked { task, file, flags } => (task, file, flags),
        Outcome::Said { text, .. } => panic!("{text}"),
    }
}

fn said(arguments: &[&str]) -> (String, u8) {
    let arguments = ["ferricorn"].iter().chain(arguments).map(OsString::from);
    match parse(FERRICORN, Given { arguments: arguments.collect(), ..Given::default() }) {
        Outcome::Said { text, exit_code } => (text, exit_code),
        Outcome::Asked { task, .. } => panic!("{task:?}"),
    }
}

fn flag(key: &'static str, name: &str, texts: &[&str]) -> Flag {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    Flag { key, name: name.to_owned(), variable: None, texts }
}

#[test]
fn the_gunicorn_command_of_old_works() {
    let (task, file, flags) = asked(&[
        "--bind",
        "0.0.0.0:5000",
        "--workers",
        "4",
        "--timeout",
        "120",
        "--access-logfile",
        "-",
        "--error-logfile",
        "-",
    ]);
    assert_eq!(task, Task::Serve);
    assert_eq!(file, FileSource::Optional("config.toml".into()));
    assert_eq!(
        flags,
        [
            flag("bind", "--bind", &["0.0.0.0:5000"]),
            flag("workers", "--workers", &["4"]),
            flag("timeout", "--timeout", &["120"]),
            flag("log.access", "--access-logfile", &["-"]),
            flag("log.error", "--error-logfile", &["-"]),
        ]
    );
}

#[test]
fn short_options_and_aliases_are_gunicorns() {
    let (_, file, flags) = asked(&[
        "-c",
        "a.toml",
        "-b",
        ":1",
        "-b",
        ":2",
        "-w",
        "2",
        "-t",
        "3",
        "-p",
        "x.pid",
        "-u",
        "u",
        "-g",
        "g",
        "-m",
        "022",
        "-e",
        "A=1",
        "-e",
        "B=2",
        "-n",
        "n",
        "--log-file",
        "e.log",
        "--keep-alive",
        "5",
        "--limit-request-field_size",
        "9",
        "--proxy-protocol",
    ]);
    assert_eq!(file, FileSource::Required("a.toml".into()));
    let given: Vec<(&str, String)> =
        flags.iter().map(|flag| (flag.key, flag.texts.join("+"))).collect();
    let expected = [
        ("bind", ":1+:2"),
        ("workers", "2"),
        ("timeout", "3"),
        ("keepalive", "5"),
        ("user", "u"),
        ("group", "g"),
        ("umask", "022"),
        ("pidfile", "x.pid"),
        ("proc_name", "n"),
        ("env", "A=1+B=2"),
        ("proxy_protocol", "true"),
        ("log.error", "e.log"),
        ("limits.request_field_size", "9"),
    ];
    assert_eq!(given, expected.map(|(key, texts)| (key, texts.to_owned())));
}

#[test]
fn options_stand_before_or_behind_the_command() {
    let before = asked(&["-w", "2", "-c", "a.toml", "check"]);
    let behind = asked(&["check", "-w", "2", "-c", "a.toml"]);
    assert_eq!(before, behind);
    assert_eq!(before.0, Task::Check);
    assert_eq!(before.2, [flag("workers", "--workers", &["2"])]);
}

#[test]
fn the_last_of_a_repeated_option_counts() {
    let (_, _, flags) = asked(&["--workers", "2", "--workers", "3"]);
    assert_eq!(flags, [flag("workers", "--workers", &["3"])]);
}

#[test]
fn every_refused_option_is_met_with_its_sentence() {
    for refused in REFUSED {
        for name in refused.flags {
            let option = format!("--{name}");
            let mut arguments = vec![option.as_str()];
            if refused.value == FlagValue::Taken {
                arguments.push("x");
            }
            let (text, exit_code) = said(&arguments);
            let first = refused.flags[0];
            assert_eq!(text, format!("ferricorn: --{first}: {}\n", refused.instead));
            assert_eq!(exit_code, 64);
        }
    }
    assert_eq!(said(&["-k", "gthread"]), said(&["--worker-class", "gthread"]));
    assert_eq!(said(&["-D"]), said(&["--daemon"]));
}

#[test]
fn a_word_that_is_no_command_is_refused() {
    insta::assert_snapshot!(
        said(&["app:app", "--workers", "3"]).0,
        @"ferricorn: app:app: the application is part of this program; leave the argument out"
    );
    insta::assert_snapshot!(
        said(&["chekc"]).0,
        @r#"ferricorn: chekc: unknown command: did you mean "check"?"#
    );
    insta::assert_snapshot!(
        said(&["serve"]).0.split_once(", completions").unwrap().0,
        @"ferricorn: serve: unknown command: expected one of run, check, config, healthcheck"
    );
}

/// The arguments, with these options in the variable.
fn with_variable(options: &str, arguments: &[&str]) -> Outcome {
    let arguments = ["ferricorn"].iter().chain(arguments).map(OsString::from).collect();
    parse(FERRICORN, Given { arguments, variable: Some(options.to_owned()), file: None })
}

#[test]
fn options_of_the_variable_stand_below_the_command_line() {
    let options = "-c a.toml -w 2 --access-logformat '%(h)s \"%(r)s\"' -b :1 -b :2";
    let outcome = with_variable(options, &["--workers", "3"]);
    let Outcome::Asked { task, file, flags } = outcome else { panic!("{outcome:?}") };
    assert_eq!((task, file), (Task::Serve, FileSource::Required("a.toml".into())));
    let of_variable = |key, name, texts: &[&str]| Flag {
        variable: Some(ARGUMENTS_VARIABLE),
        ..flag(key, name, texts)
    };
    assert_eq!(
        flags,
        [
            of_variable("bind", "--bind", &[":1", ":2"]),
            of_variable("workers", "--workers", &["2"]),
            of_variable("log.access_format", "--access-logformat", &["%(h)s \"%(r)s\""]),
            flag("workers", "--workers", &["3"]),
        ]
    );
    let outcome = with_variable("--check-config -c a.toml", &["-c", "b.toml"]);
    let Outcome::Asked { task, file, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((task, file), (Task::Check, FileSource::Required("b.toml".into())));
}

#[test]
fn wrong_options_of_the_variable_are_refused_by_its_name() {
    let said = |options: &str| match with_variable(options, &[]) {
        Outcome::Said { text, exit_code } => (text, exit_code),
        Outcome::Asked { task, .. } => panic!("{task:?}"),
    };
    let place = "ferricorn: GUNICORN_CMD_ARGS: ";
    let (text, exit_code) = said("--preload --wokers 3");
    assert_eq!(exit_code, 64);
    assert_eq!(text, format!("{place}--wokers: unknown option: did you mean \"--workers\"?\n"));
    assert!(said("--preload").0.starts_with(&format!("{place}--preload: ")));
    assert_eq!(said("app:app").0, format!("{place}app:app: {LINKED}\n"));
    assert!(said("-n 'x").0.starts_with(&format!("{place}expected options as in a shell")));
    let help = with_variable("--wokers", &["--help"]);
    assert!(matches!(help, Outcome::Said { exit_code: 0, .. }));
}

#[test]
fn switch_takes_the_word_behind_it_if_it_is_one_of_its_own() {
    for word in ["v1", "v2", "auto", "off"] {
        let (_, _, flags) = asked(&["--proxy-protocol", word, "-w", "2"]);
        assert_eq!(flags[1], flag("proxy_protocol", "--proxy-protocol", &[word]));
    }
    let (task, _, flags) = asked(&["--proxy-protocol", "check"]);
    assert_eq!((task, &flags[0].texts[..]), (Task::Check, &["true".to_owned()][..]));
}

/// A tip that leads to a refusal is none.
#[test]
fn tips_lead_to_options_that_are_taken() {
    for refused in REFUSED.iter().flat_map(|refused| refused.flags) {
        let misspelt = format!("--{}", &refused[..refused.len() - 1]);
        let arguments = ["ferricorn", &misspelt].map(OsString::from).to_vec();
        let Outcome::Said { text, .. } = parse(FERRICORN, Given { arguments, ..Given::default() })
        else {
            continue;
        };
        let tip = text.split("did you mean \"").nth(1).and_then(|rest| rest.split('"').next());
        let Some(tip) = tip.and_then(|tip| tip.strip_prefix("--")) else { continue };
        assert!(!REFUSED.iter().any(|refused| refused.flags.contains(&tip)), "{misspelt} → {tip}");
    }
}

#[test]
fn application_behind_a_command_is_refused_too() {
    for arguments in [&["check", "app:app"][..], &["config", "app:create()"]] {
        let application = arguments[1];
        assert_eq!(said(arguments), (format!("ferricorn: {application}: {LINKED}\n"), 64));
    }
}

#[test]
fn own_name_before_the_command_is_left_out() {
    for name in ["ferricorn", "/usr/local/bin/ferricorn"] {
        assert_eq!(asked(&[name, "check", "-w", "2"]), asked(&["check", "-w", "2"]));
        assert_eq!(asked(&[name, "-w", "2"]), asked(&["-w", "2"]));
    }
    let twice = said(&["ferricorn", "ferricorn"]);
    assert!(twice.0.starts_with("ferricorn: ferricorn: unknown command"), "{twice:?}");
}

#[test]
fn application_is_known_by_the_name_of_its_file() {
    let arguments = ["/srv/shop", "shop", "check"].map(OsString::from).to_vec();
    let outcome = parse(FERRICORN, Given { arguments, ..Given::default() });
    assert!(matches!(outcome, Outcome::Asked { task: Task::Check, .. }), "{outcome:?}");
}

#[test]
fn application_of_another_name_is_called_by_it() {
    let own = Own { program: Program { name: "shop", version: "7.0.1" }, ..FERRICORN };
    let said = |arguments: &[&str]| {
        let arguments = arguments.iter().map(OsString::from).collect();
        match parse(own, Given { arguments, ..Given::default() }) {
            Outcome::Said { text, .. } => text,
            Outcome::Asked { task, .. } => panic!("{task:?}"),
        }
    };
    let version = format!("shop 7.0.1 (ferricorn {})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(said(&["/srv/bin", "--version"]), version);
    assert_eq!(
        said(&["/srv/bin", "chekc"]),
        "shop: chekc: unknown command: did you mean \"check\"?\n"
    );
    let unknown = said(&["/srv/bin", "--colour"]);
    assert_eq!(unknown, "shop: --colour: unknown option: `shop --help` lists all\n");
    let help = said(&["/srv/bin", "--help"]);
    assert!(help.starts_with("shop, served by ferricorn\n\nUsage: shop [OPTIONS]"), "{help}");
}
