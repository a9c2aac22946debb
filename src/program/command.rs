//! The command of a slot: its arguments and its environment.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ids::{Generation, Slot};
use crate::sys::launch::FIRST_PASSED;

/// The placeholder of the slot in arguments.
const SLOT: &str = "{slot}";
/// The beginning of a descriptor's placeholder in arguments.
const DESCRIPTOR: &str = "{fd";

/// Variables that were meant for this server, and that other servers would take for theirs.
const OWN: [&str; 2] = ["WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"];
/// Variables of this server begin so.
const OWN_PREFIX: &str = "FERRICORN_";

/// The context that a program runs in, as it may know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramContext<'a> {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// The listening sockets that the program is given, by their names in `bind`.
    pub(super) names: &'a [Option<&'a str>],
    /// The address of its notes.
    pub(super) notify: &'a str,
    /// The time for which it may be silent once it has sent `WATCHDOG=1`; zero: without limit.
    pub(super) stall_timeout: Duration,
}

/// The command with the descriptors and the slot in their places.
///
/// # Errors
/// The descriptor that does not exist, in words.
pub(super) fn expanded(
    command: &[String],
    context: &ProgramContext<'_>,
) -> Result<Vec<String>, String> {
    command
        .iter()
        .map(|word| expand(&word.replace(SLOT, &context.slot.to_string()), context))
        .collect()
}

/// Puts a number for each `{fd}` and `{fdN}`.
fn expand(word: &str, context: &ProgramContext<'_>) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(DESCRIPTOR) {
        let (before, found) = rest.split_at(at);
        let inside = found.find('}').map(|end| &found[DESCRIPTOR.len()..end]);
        let index = match inside {
            Some("") => Some(0),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            Some(_) | None => {
                // Some other word in braces.
                text.push_str(&rest[..at + DESCRIPTOR.len()]);
                rest = &found[DESCRIPTOR.len()..];
                continue;
            }
        };
        let index: Option<usize> = index.filter(|index| *index < context.names.len());
        let Some(number) = index.and_then(|index| i32::try_from(index).ok()) else {
            let sockets = context.names.len();
            return Err(format!("{word:?} names a socket beyond the {sockets} that are bound"));
        };
        text.push_str(before);
        text.push_str(&(FIRST_PASSED + number).to_string());
        rest = &found[found.find('}').map_or(found.len(), |end| end + 1)..];
    }
    text.push_str(rest);
    Ok(text)
}

/// The variables that tell a program of its surroundings, but for those with its pid.
pub(super) fn variables(context: &ProgramContext<'_>) -> Vec<(String, String)> {
    let named = |(index, name): (usize, &Option<&str>)| {
        name.map_or_else(|| format!("bind{index}"), str::to_owned)
    };
    let names: Vec<String> = context.names.iter().enumerate().map(named).collect();
    let mut variables = vec![
        ("LISTEN_FDS", context.names.len().to_string()),
        ("LISTEN_FDNAMES", names.join(":")),
        ("NOTIFY_SOCKET", context.notify.to_owned()),
        ("FERRICORN_SLOT", context.slot.to_string()),
        ("FERRICORN_GENERATION", context.generation.to_string()),
    ];
    if !context.stall_timeout.is_zero() {
        variables.push(("WATCHDOG_USEC", context.stall_timeout.as_micros().to_string()));
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The names among these that the program must not inherit.
pub(super) fn removed(names: impl Iterator<Item = String>) -> Vec<String> {
    let is_own = |name: &String| name.starts_with(OWN_PREFIX) || OWN.contains(&name.as_str());
    let systemd = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(str::to_owned);
    names.filter(is_own).chain(systemd).collect()
}

/// The file of a program, as execvp(3) finds it.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn find(program: &str, path: &str) -> Result<PathBuf, String> {
    let is_executable = |file: &Path| {
        let found = std::fs::metadata(file);
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let file = PathBuf::from(program);
        return match (is_executable(&file), file.exists()) {
            (true, _) => Ok(file),
            (false, true) => Err(format!("cannot execute {program}: it is no executable file")),
            (false, false) => Err(format!("cannot find the program {program}")),
        };
    }
    let folders = std::env::split_paths(path);
    let found = folders.map(|folder| folder.join(program)).find(|file| is_executable(file));
    found.ok_or_else(|| format!("cannot find the program {program} on PATH ({path})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context<'a>(names: &'a [Option<&'a str>]) -> ProgramContext<'a> {
        ProgramContext {
            slot: Slot::new(2),
            generation: Generation::FIRST,
            names,
            notify: "@n",
            stall_timeout: Duration::from_millis(1500),
        }
    }

    fn expand_all(words: &[&str], sockets: usize) -> Result<Vec<String>, String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        expanded(&words, &context(&vec![None; sockets]))
    }

    #[test]
    fn descriptors_and_slots_are_put_in_place() {
        let words = ["--fd={fd}", "fd://{fd1},{fd0}", "/run/{slot}.sock", "{fdx}", "{fd", "{}"];
        let expected = ["--fd=3", "fd://4,3", "/run/2.sock", "{fdx}", "{fd", "{}"];
        assert_eq!(expand_all(&words, 2).unwrap(), expected);
    }

    #[test]
    fn descriptors_that_do_not_exist_are_refused() {
        let refused = expand_all(&["{fd1}"], 1).unwrap_err();
        assert_eq!(refused, "\"{fd1}\" names a socket beyond the 1 that are bound");
        assert!(expand_all(&["{fd99999999999999999999}"], 1).is_err());
    }

    #[test]
    fn place_is_told_by_variables() {
        let told = variables(&context(&[None, Some("admin")]));
        let told: Vec<String> =
            told.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "LISTEN_FDS=2",
            "LISTEN_FDNAMES=bind0:admin",
            "NOTIFY_SOCKET=@n",
            "FERRICORN_SLOT=2",
            "FERRICORN_GENERATION=1",
            "WATCHDOG_USEC=1500000",
        ];
        assert_eq!(told, expected);
    }

    /// uvicorn and gunicorn would start workers of their own by it.
    #[test]
    fn variables_of_this_server_are_not_inherited() {
        let names = ["PATH", "WEB_CONCURRENCY", "FERRICORN_BIND", "GUNICORN_CMD_ARGS", "PORT"];
        let removed = removed(names.into_iter().map(str::to_owned));
        let own = ["WEB_CONCURRENCY", "FERRICORN_BIND", "GUNICORN_CMD_ARGS"];
        assert_eq!(removed, [&own[..], &["WATCHDOG_USEC", "WATCHDOG_PID"]].concat());
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert_eq!(find("sh", "/nowhere:/bin"), Ok("/bin/sh".into()));
        let missing = find("no-such-program", "/bin").unwrap_err();
        assert_eq!(missing, "cannot find the program no-such-program on PATH (/bin)");
        assert_eq!(
            find("/etc/passwd", "").unwrap_err(),
            "cannot execute /etc/passwd: it is no executable file"
        );
    }
}
