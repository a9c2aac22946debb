//! `ferricorn user add NAME`, and the first user of a container.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use ferricorn::{BoxError, Config, Subcommand};
use zeroize::Zeroizing;

use super::hash::Hash;
use super::settings::{Table, WithUsers};
use super::users::{Users, check_name, with_user};
use super::{files, users};

/// The other value of `access.first_user`: a secret's file cannot be empty.
const NO_USER: &str = "none";
/// Characters of a password at least.
const PASSWORD_MIN: usize = 8;
/// Bytes of a password at the most, as of one that a login brings.
const PASSWORD_MAX: u64 = 1024;

/// The application's subcommands.
pub(in crate::app) const COMMANDS: &[Subcommand] = &[Subcommand::new(
    &["user", "add"],
    &["NAME"],
    "Add a user to access.users, or change the password: asked for, or read from stdin",
    user_add,
)];

/// Adds a user, and says what has been done.
fn user_add(config: &Config, arguments: &[String]) -> Result<String, BoxError> {
    ferricorn::forbid_core_dump()?;
    let [name] = arguments else { return Err("expected one name".into()) };
    check_name(name)?;
    let Some(WithUsers { users: path, .. }) = Table::of(config)?.with_users else {
        return Err("access.users is not set; name the file in [access] of config.toml, or with \
                    --access-users FILE"
            .into());
    };
    // The server changes its folder before it opens a file.
    let path = match &config.chdir {
        Some(folder) => folder.join(path),
        None => path,
    };
    let password = ask()?;
    check_password(&password)?;
    put(&path, name, &password)?;
    let path = std::path::absolute(&path)?;
    let shown = path.display();
    let mut told =
        format!("{name} is in {shown}; a running server reads it at its next reload (HUP)\n");
    if let Some(hint) = owner_hint(&path, &config.user)? {
        told.push_str(&hint);
    }
    Ok(told)
}

/// Names what is missing where the server's own user could not read the file.
fn owner_hint(path: &Path, user: &str) -> io::Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;
    let is_roots = fs::metadata(path)?.uid() == 0;
    let shown = path.display();
    Ok((is_roots && !user.is_empty())
        .then(|| format!("the workers' user must be able to read it: chown {user} {shown}\n")))
}

/// Writes a user's line, whole or not at all. Several at once wait for each other.
fn put(path: &Path, name: &str, password: &str) -> Result<(), String> {
    let shown = path.display();
    let fault = |error: io::Error| format!("cannot write {shown}: {error}");
    let folder = folder(path);
    fs::create_dir_all(folder).map_err(fault)?;
    let turn = File::open(folder).map_err(fault)?;
    turn.lock().map_err(fault)?;
    let before = match files::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("cannot read {shown}: {error}")),
    };
    let hash =
        Hash::make(password).map_err(|error| format!("cannot hash the password: {error}"))?;
    let after = with_user(&before, name, &hash);
    // A file with another wrong line would be refused at the next reload.
    Users::parse(&after).map_err(|faults| users::in_file(path, &faults))?;
    files::replace(path, &after).map_err(fault)
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Asks twice on a terminal; from anything else a line is read.
fn ask() -> Result<Zeroizing<String>, BoxError> {
    if io::stdin().is_terminal() {
        let first = Zeroizing::new(rpassword::prompt_password("Password: ")?);
        let second = Zeroizing::new(rpassword::prompt_password("Once more: ")?);
        if first != second {
            return Err("the two passwords differ; nothing is changed".into());
        }
        return Ok(first);
    }
    let mut line = Zeroizing::new(String::new());
    BufReader::new(io::stdin().lock().take(PASSWORD_MAX + 2)).read_line(&mut line)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

fn check_password(password: &str) -> Result<(), &'static str> {
    if password.chars().count() < PASSWORD_MIN {
        return Err("the password is shorter than 8 characters; nothing is changed");
    }
    if password.len() as u64 > PASSWORD_MAX {
        return Err("the password is longer than 1024 bytes; nothing is changed");
    }
    Ok(())
}

/// Judges `access.first_user`, and never quotes it.
pub(super) fn check_first_user(text: &str) -> Result<(), String> {
    if ["", NO_USER].contains(&text) {
        return Ok(());
    }
    let (name, password) = text.split_once(':').ok_or("expected name:password")?;
    check_name(name).and_then(|()| check_password(password)).map_err(str::to_owned)
}

/// Makes the file of users with its first one, where there is none and one is named.
///
/// # Errors
/// A sentence that names the file.
pub(in crate::app) fn first_user(with: &WithUsers) -> Result<(), String> {
    let Some((name, password)) = with.first_user.split_once(':') else { return Ok(()) };
    if with.users.exists() {
        return Ok(());
    }
    let fault =
        |error: io::Error| format!("access.users: cannot make {}: {error}", with.users.display());
    fs::create_dir_all(folder(&with.users)).map_err(fault)?;
    let hash =
        Hash::make(password).map_err(|error| format!("cannot hash the password: {error}"))?;
    files::make(&with.users, &format!("{name}:{hash}\n")).map_err(fault)?;
    tracing::info!("access.users: {} is made, with the user {name}", with.users.display());
    Ok(())
}
