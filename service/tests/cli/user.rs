//! `user add`: what it writes, and what it refuses.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::program::{Folder, Output};

const SECRET: &str = "correct horse battery";

/// Runs `user add` with this on stdin.
fn add(folder: &Folder, arguments: &[&str], stdin: &str) -> Output {
    let mut all = vec!["user", "add"];
    all.extend(arguments);
    let mut child = folder
        .command(&all)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may end before it reads.
    let _: std::io::Result<()> =
        child.stdin.take().expect("it is piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("it can be waited for");
    Output {
        code: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8(output.stdout).expect("it writes UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("it writes UTF-8"),
    }
}

#[test]
fn user_is_added_and_the_password_changed() {
    let folder = Folder::new();
    folder.write("config.toml", "[access]\nusers = 'data/users'\n");
    let path = folder.path().join("data/users");
    let output = add(&folder, &["alice"], &format!("{SECRET}\n"));
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let shown = format!("{}/data/users", folder.path().display());
    assert_eq!(
        output.stdout,
        format!("alice is in {shown}; a running server reads it at its next reload (HUP)\n")
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let first = fs::read_to_string(&path).unwrap();
    assert!(first.starts_with("alice:$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
    assert!(!first.contains(SECRET));
    assert_eq!(add(&folder, &["bob"], SECRET).code, 0, "a line end is not needed");
    assert_eq!(add(&folder, &["alice"], SECRET).code, 0);
    let second = fs::read_to_string(&path).unwrap();
    let names: Vec<_> = second.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert!(!second.contains(first.trim()), "it has another salt");
    let left = fs::read_dir(folder.path().join("data")).unwrap().count();
    assert_eq!(left, 1, "nothing is left beside it");
}

#[test]
fn user_add_refuses_in_words_and_changes_nothing() {
    let folder = Folder::new();
    let output = add(&folder, &["alice"], SECRET);
    assert_eq!(output.code, 1);
    assert!(output.stderr.starts_with("ferricorn: access.users is not set; "), "{output:?}");
    let output = add(&folder, &["alice", "--access-read=true"], SECRET);
    assert_eq!(output.code, 1);
    assert!(output.stderr.starts_with("ferricorn: access.read = true needs users, "), "{output:?}");
    let with = ["--access-users", "users"];
    let before = "# ours\nalice:$2y$04$nVfTOdZXpAPRe0PH.yXRkeKMuhPR0Xbz0wIDgWrYsQBSgZ8LAyE.6\n";
    let path = folder.write("users", before);
    for (arguments, stdin, code, expected) in [
        (vec![], SECRET, 64, "user add: expected NAME, found 0 arguments"),
        (vec!["alice", SECRET], "", 64, "user add: expected NAME, found 2 arguments"),
        (vec!["a:b"], SECRET, 1, "a name has no colon, and does not begin with #"),
        (vec!["a b"], SECRET, 1, "a name has no spaces and no control characters"),
        (vec![""], SECRET, 1, "the name is missing"),
        (vec!["bob"], "", 1, "the password is shorter than 8 characters; nothing is changed"),
        (
            vec!["bob"],
            "seven77\n",
            1,
            "the password is shorter than 8 characters; nothing is changed",
        ),
    ] {
        let mut all = arguments.clone();
        all.extend(with);
        let output = add(&folder, &all, stdin);
        assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{arguments:?}");
        assert_eq!(output.stderr, format!("ferricorn: {expected}\n"), "{arguments:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
    fs::write(&path, "bob:hunter2hunter2\n").unwrap();
    let output = add(&folder, &["alice", "--access-users", "users"], SECRET);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("users:1: the hash is neither bcrypt nor argon2id"),
        "{output:?}"
    );
    assert!(!output.stderr.contains("hunter2"), "{output:?}");
    let output = folder.run(&["user"]);
    assert_eq!(output.code, 64, "{output:?}");
    let output = folder.run(&["user", "remove", SECRET]);
    assert_eq!(output.code, 64, "{output:?}");
    assert!(!output.stderr.contains(SECRET), "{output:?}");
}

#[test]
fn first_user_is_shown_nowhere() {
    let folder = Folder::new();
    let secret = format!("alice:{SECRET}");
    let file = folder.write("first", format!("{secret}\n"));
    let file = file.display().to_string();
    for variables in [
        [("FERRICORN_ACCESS_FIRST_USER", secret.as_str())],
        [("FERRICORN_ACCESS_FIRST_USER_FILE", file.as_str())],
    ] {
        for command in ["config", "check"] {
            let output = folder.run_with(&[command], &variables);
            assert_eq!(output.code, 0, "{output:?}");
            assert!(!format!("{output:?}").contains("horse"), "{output:?}");
        }
    }
    for wrong in ["horse", "alice:horse", ":correct horse battery", "a b:correct horse battery"] {
        let output = folder.run_with(&["check"], &[("FERRICORN_ACCESS_FIRST_USER", wrong)]);
        assert!(output.problems().contains("access.first_user"), "{output:?}");
        assert!(!format!("{output:?}").contains("horse"), "{output:?}");
    }
    fs::write(folder.path().join("first"), "none\n").unwrap();
    let output = folder.run_with(&["check"], &[("FERRICORN_ACCESS_FIRST_USER_FILE", &file)]);
    assert_eq!(output.code, 0, "the file names no user: {output:?}");
}

/// `user add bob` on a terminal, with these two answers to its questions: its exit code, and what the
/// terminal showed.
fn add_on_a_terminal(folder: &Folder, answers: [&str; 2]) -> (i32, String) {
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let end = || Stdio::from(terminal.slave.try_clone().expect("a descriptor"));
    let inner = folder.command(&["user", "add", "bob"]);
    // The program asks its controlling terminal, which setsid(1) makes of its stdin.
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(folder.path()).stdin(end()).stdout(end()).stderr(end());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.spawn().expect("setsid starts");
    drop((command, terminal.slave));
    let mut master = File::from(terminal.master);
    let mut shown = Vec::new();
    for (question, answer) in ["Password: ", "Once more: "].iter().zip(answers) {
        while !String::from_utf8_lossy(&shown).ends_with(question) {
            let mut byte = [0];
            master.read_exact(&mut byte).expect("it asks");
            shown.push(byte[0]);
        }
        let is_hidden = |master: &File| {
            let state = nix::sys::termios::tcgetattr(master).expect("it is a terminal");
            !state.local_flags.contains(nix::sys::termios::LocalFlags::ECHO)
        };
        while !is_hidden(&master) {
            std::thread::yield_now();
        }
        writeln!(master, "{answer}").expect("it reads");
    }
    // A terminal whose other end is closed ends with EIO (pty(7)).
    let _end = master.read_to_end(&mut shown);
    let code = child.wait().expect("it is our child").code().expect("it was not killed");
    (code, String::from_utf8(shown).expect("it writes UTF-8"))
}

#[test]
fn user_add_asks_twice_on_a_terminal_without_echo() {
    let folder = Folder::new();
    folder.write("config.toml", "[access]\nusers = 'users'\n");
    let path = folder.path().join("users");
    let (code, shown) = add_on_a_terminal(&folder, [SECRET, "correct horse cattery"]);
    assert_eq!(code, 1);
    assert!(shown.contains("the two passwords differ; nothing is changed"), "{shown}");
    assert!(!shown.contains("horse") && !path.exists(), "{shown}");
    let (code, shown) = add_on_a_terminal(&folder, [SECRET, SECRET]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("bob is in ") && !shown.contains("horse"), "{shown}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("bob:$argon2id$"));
}
