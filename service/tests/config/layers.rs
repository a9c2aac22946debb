//! Which layer wins, and that each value says where it came from.

use crate::program::Folder;

#[test]
fn each_layer_wins_over_the_one_before() {
    let folder = Folder::new();
    let variables = [("FERRICORN_WORKERS", "4")];
    let shown = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut all = vec!["config"];
        all.extend(arguments);
        folder.run_with(&all, variables).setting("workers").to_owned()
    };
    assert_eq!(shown(&[], &[]), "workers = 4  # default");
    folder.write("config.toml", "# The file.\nworkers = 2\n");
    assert_eq!(shown(&[], &[]), "workers = 2  # config.toml:2");
    folder.write("config.toml", "env_file = 'a.env'\nworkers = 2\n");
    folder.write("a.env", "# The environment's file.\n\nexport FERRICORN_WORKERS=\"3\"\n");
    assert_eq!(shown(&[], &[]), "workers = 3  # a.env:3 FERRICORN_WORKERS");
    assert_eq!(shown(&[], &variables), "workers = 4  # environment FERRICORN_WORKERS, the default");
    assert_eq!(shown(&["-w", "5"], &variables), "workers = 5  # command line --workers");
}

#[test]
fn names_of_platforms_count_less_than_ours_and_more_than_the_file() {
    let folder = Folder::new();
    folder.write("config.toml", "bind = ':1'\nworkers = 2\n");
    let platform = [("PORT", "8000"), ("WEB_CONCURRENCY", "7"), ("DATABASE_URL", "sqlite://a.db")];
    let output = folder.run_with(&["config"], &platform);
    assert_eq!(output.setting("bind"), r#"bind = ["0.0.0.0:8000"]  # environment PORT"#);
    assert_eq!(output.setting("workers"), "workers = 7  # environment WEB_CONCURRENCY");
    assert_eq!(
        output.setting("database.url"),
        r#"database.url = "sqlite://a.db"  # environment DATABASE_URL"#
    );
    let ours = [("FERRICORN_BIND", "[::]:1, unix:a.sock"), ("FERRICORN_WORKERS", "auto")];
    let output = folder.run_with(&["config"], &[&platform[..], &ours].concat());
    assert_eq!(
        output.setting("bind"),
        r#"bind = ["[::]:1", "unix:a.sock"]  # environment FERRICORN_BIND"#
    );
    let workers = output.setting("workers");
    assert!(
        workers.starts_with(r#"workers = "auto"  # environment FERRICORN_WORKERS: "#)
            && workers.ends_with(" here"),
        "{workers}"
    );
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let folder = Folder::new();
    let empty = [("FERRICORN_WORKERS", ""), ("PORT", ""), ("DATABASE_URL_FILE", "")];
    let output = folder.run_with(&["config"], &empty);
    assert_eq!(output.setting("workers"), "workers = 4  # default");
    assert_eq!(output.setting("bind"), r#"bind = ["0.0.0.0:5000"]  # default"#);
}

#[test]
fn the_file_is_named_by_option_then_variable_then_custom() {
    let folder = Folder::new();
    folder.write("config.toml", "workers = 1\n");
    folder.write("a.toml", "workers = 2\n");
    folder.write("b.toml", "workers = 3\n");
    let variable = [("FERRICORN_CONFIG", "a.toml")];
    let output = folder.run(&["config"]);
    assert_eq!(output.setting("workers"), "workers = 1  # config.toml:1");
    let output = folder.run_with(&["config"], &variable);
    assert_eq!(output.setting("workers"), "workers = 2  # a.toml:1");
    let output = folder.run_with(&["config", "-c", "b.toml"], &variable);
    assert_eq!(output.setting("workers"), "workers = 3  # b.toml:1");
}

#[test]
fn the_env_file_is_named_by_any_layer_above_it() {
    let folder = Folder::new();
    folder.write("config.toml", "env_file = 'file.env'\n");
    for name in ["file", "variable", "option"] {
        folder.write(&format!("{name}.env"), format!("NAME={name}\n"));
    }
    let variable = [("FERRICORN_ENV_FILE", "variable.env")];
    let options = ["config", "--env-file", "option.env"];
    for (output, name) in [
        (folder.run(&["config"]), "file"),
        (folder.run_with(&["config"], &variable), "variable"),
        (folder.run_with(&options, &variable), "option"),
    ] {
        assert!(output.setting("env_file").starts_with(&format!("env_file = \"{name}.env\"")));
    }
}

#[test]
fn repeated_options_add_to_a_list_and_replace_anything_else() {
    let folder = Folder::new();
    let output = folder.run(&["config", "-b", ":1,:2", "-b", ":3", "-w", "2", "-w", "3"]);
    assert_eq!(output.setting("bind"), r#"bind = [":1", ":2", ":3"]  # command line --bind"#);
    assert_eq!(output.setting("workers"), "workers = 3  # command line --workers");
}

#[test]
fn what_config_prints_is_a_config() {
    let folder = Folder::new();
    folder.write("config.toml", "timeout = 0.5\nlimits.body = '8KiB'\nbind = ['[::1]:1', ':2']\n");
    let arguments = ["config", "--access-logformat", r#"'%(h)s' "%(r)s" \"#, "-m", "027"];
    let first = folder.run(&arguments);
    folder.write("config.toml", &first.stdout);
    let second = folder.run(&["config"]);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.rsplit_once("  # ").unwrap().0.to_owned()).collect()
    };
    assert_eq!((first.code, second.code), (0, 0), "{second:?}");
    assert_eq!(values(&second.stdout), values(&first.stdout));
    assert!(second.stdout.contains(r#""027"  # config.toml:19"#), "{}", second.stdout);
}

/// As `docker --env-file` and systemd's `EnvironmentFile` do it.
#[test]
fn env_file_is_read_literally() {
    let folder = Folder::new();
    for text in ["pa$word", "${HOME}", "a # b", "C:\\new", "`id`", "it's \"so\""] {
        folder.write("a.env", format!("FERRICORN_PROC_NAME={text}\n"));
        let output = folder.run_with(&["config", "--env-file", "a.env"], &[("word", "x")]);
        let shown: toml::Table = toml::from_str(output.setting("proc_name")).unwrap();
        assert_eq!(shown["proc_name"].as_str(), Some(text));
    }
}

/// White space at the end of a value is the value's, in every layer.
#[test]
fn env_is_literal_in_every_layer() {
    let folder = Folder::new();
    // The name alone is shown: what is behind the first "=" is the value.
    let count = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = folder.run_with(&[&["config"], arguments].concat(), variables);
        output.setting("env").matches("***").count()
    };
    assert_eq!(count(&["-e", "A=one\ntwo=2", "-e", "B= x "], &[]), 2);
    assert_eq!(count(&[], &[("FERRICORN_ENV", "A=1\r\n  B= x \n\n")]), 2);
}

#[test]
fn none_is_said_in_every_layer() {
    let folder = Folder::new();
    for word in ["none", "off", "OFF"] {
        folder.write("config.toml", "log.access = 'a.log'\nforwarded_allow_ips = '10.0.0.1'\n");
        let variables = [
            ("FERRICORN_LOG_ACCESS", word),
            ("FERRICORN_FORWARDED_ALLOW_IPS", word),
            ("FERRICORN_UMASK", word),
            ("FERRICORN_READY_FD", word),
        ];
        let output = folder.run_with(&["config"], &variables);
        assert_eq!(
            output.setting("log.access"),
            "log.access = \"\"  # environment FERRICORN_LOG_ACCESS"
        );
        assert_eq!(
            output.setting("forwarded_allow_ips"),
            "forwarded_allow_ips = []  # environment FERRICORN_FORWARDED_ALLOW_IPS"
        );
        assert!(output.setting("umask").starts_with("umask = \"\"  # environment"));
        let options = ["config", "--access-logfile", word, "--forwarded-allow-ips", word];
        let output = folder.run(&options);
        assert!(output.setting("log.access").starts_with("log.access = \"\"  # command line"));
        assert!(output.setting("forwarded_allow_ips").starts_with("forwarded_allow_ips = []  #"));
        folder
            .write("config.toml", format!("pidfile = '{word}'\nuser = '{word}'\nenv = '{word}'\n"));
        let output = folder.run(&["config"]);
        for line in ["pidfile = \"\"  # config.toml:1", "user = \"\"  # config.toml:2"] {
            assert!(output.stdout.contains(line), "{output:?}");
        }
        assert_eq!(output.setting("env"), "env = []  # config.toml:3, the default");
    }
}
