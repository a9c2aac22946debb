//! Secrets: read from files, and shown by nothing.

use crate::program::Folder;

/// For the bundled application it names a file; to who masks it, it holds a password.
const URL: &str = "sqlite://user:hunter2@rows.db";

#[test]
fn a_secret_is_read_from_the_file_that_a_variable_names() {
    let folder = Folder::new();
    folder.write("secret", format!("\n  {URL}\n\n"));
    let output = folder.run_with(&["config"], &[("DATABASE_URL_FILE", "secret")]);
    assert_eq!(
        output.setting("database.url"),
        r#"database.url = "sqlite://user:***@rows.db"  # secret, environment DATABASE_URL_FILE"#
    );
}

#[test]
fn a_secret_file_that_is_wrong_is_named() {
    let folder = Folder::new();
    folder.write("empty", "\n");
    folder.write("binary", b"sqlite://\n\xff\n");
    let said =
        |variables: &[(&str, &str)]| folder.run_with(&["check"], variables).problems().to_owned();
    insta::assert_snapshot!(
        said(&[("DATABASE_URL_FILE", "/run/secrets/none")]),
        @"ferricorn: DATABASE_URL_FILE: /run/secrets/none: database.url: failed to read: no such file or directory"
    );
    insta::assert_snapshot!(
        said(&[("DATABASE_URL_FILE", "empty")]),
        @"ferricorn: DATABASE_URL_FILE: empty: database.url: expected a value, found nothing"
    );
    insta::assert_snapshot!(
        said(&[("DATABASE_URL_FILE", "binary")]),
        @"ferricorn: DATABASE_URL_FILE: binary: database.url: failed to read: line 2 is not UTF-8"
    );
    insta::assert_snapshot!(
        said(&[("DATABASE_URL_FILE", ".")]),
        @"ferricorn: DATABASE_URL_FILE: .: database.url: failed to read: it is a directory"
    );
    insta::assert_snapshot!(
        said(&[("DATABASE_URL_FILE", "empty"), ("DATABASE_URL", URL)]),
        @"ferricorn: DATABASE_URL_FILE: database.url: DATABASE_URL is set, too; unset one of the two"
    );
}

#[test]
fn a_password_is_not_taken_from_an_option() {
    let folder = Folder::new();
    let said = |url: &str| folder.run(&["check", "--database-url", url]);
    insta::assert_snapshot!(
        said(URL).problems(),
        @"ferricorn: --database-url: database.url: it holds a password, and whoever may run ps sees what an option says; put it into DATABASE_URL, or into a file that DATABASE_URL_FILE names"
    );
    assert_eq!(said("sqlite://user@rows.db").code, 0);
    assert_eq!(said("sqlite:rows.db").code, 0);
    assert_eq!(said("postgresql+psycopg2://user@localhost/rows").code, 0);
    let no_url = said("rows.db").problems().to_owned();
    assert!(no_url.contains("it has no scheme") && !no_url.contains("password"), "{no_url}");
    assert_eq!(said("postgres://user@localhost/rows").code, 0);
    assert_ne!(said("postgres://user@localhost/rows?password=hunter2").code, 0);
}

#[test]
fn nothing_that_is_printed_holds_a_secret() {
    let folder = Folder::new();
    folder.write("a.env", format!("TOKEN=hunter2\nDATABASE_URL={URL}\nwrong hunter2\n"));
    folder.write(
        "config.toml",
        format!("env = ['KEY=hunter2', 'hunter2']\n[database]\nurl = ['{URL}']\nhunter = 2\n"),
    );
    let variables = [("DATABASE_URL", URL)];
    for command in ["config", "check", "healthcheck"] {
        for options in [&[][..], &["--env-file", "a.env"], &["--database-url", URL, "-w", "0"]] {
            let arguments = [&[command], options].concat();
            let output = folder.run_with(&arguments, &variables);
            let text = format!("{}{}", output.stdout, output.stderr);
            assert!(output.code != 0 && !text.is_empty(), "{output:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    let output = Folder::new().run_with(&["config", "-e", "KEY=hunter2"], &variables);
    assert_eq!(output.setting("env"), r#"env = ["KEY=***"]  # command line --env"#);
    assert!(!output.stdout.contains("hunter2"), "{}", output.stdout);
}

/// The workers' variables are no layer: a database that stands there would not be used.
#[test]
fn secret_in_env_is_refused_or_warned_of() {
    let folder = Folder::new();
    let output = folder.run(&["check", "-e", &format!("DATABASE_URL={URL}")]);
    insta::assert_snapshot!(output.problems(), @"ferricorn: --env: env: DATABASE_URL sets database.url: it is read before the workers' variables; set it in env_file or in the server's own environment");
    let output = folder.run(&["check", "-e", "QUEUE=amqp://me:hunter2@queue/"]);
    assert_eq!(output.code, 0);
    insta::assert_snapshot!(output.stderr, @"ferricorn: warning: --env: env: QUEUE holds a password, and ps shows what an option says; put it into env_file");
    folder.write("config.toml", "env = ['QUEUE=amqp://me:hunter2@queue/']\n");
    assert_eq!(folder.run(&["check"]).stderr, "");
}
