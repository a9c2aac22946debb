//! The users' file: `name:hash` lines, as `htpasswd -B` writes them.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use super::files;
use super::hash::Hash;

/// Bytes of a name at the most.
const NAME_MAX: usize = 64;

/// The users, by name. Names are compared as they are, byte by byte.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    by_name: BTreeMap<String, Hash>,
    /// Chooses whose hash stands in for that of an unknown name.
    chooser: RandomState,
}

/// The fault of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    line: usize,
    reason: &'static str,
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence that names the file, and every line that is wrong; never a hash.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = files::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("access.users: {shown} is not there; `ferricorn user add NAME` makes it")
            }
            _ => format!("access.users: cannot read {shown}: {error}"),
        })?;
        Self::parse(&text).map_err(|faults| in_file(path, &faults))
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let mut by_name = BTreeMap::new();
        let mut faults = Vec::new();
        for (number, name, rest) in lines(text) {
            let fault = |reason| Fault { line: number, reason };
            let parsed = check_name(name).and_then(|()| {
                let rest = rest.ok_or("expected name:hash, found no colon")?;
                // Fields behind a further colon are a comment, as they are to web servers.
                Hash::parse(rest.split(':').next().unwrap_or_default())
            });
            match parsed {
                Ok(hash) => {
                    if by_name.insert(name.to_owned(), hash).is_some() {
                        faults.push(fault("this name stands above, too"));
                    }
                }
                Err(reason) => faults.push(fault(reason)),
            }
        }
        if faults.is_empty() && by_name.is_empty() {
            faults.push(Fault { line: 1, reason: "no user; `ferricorn user add NAME` adds one" });
        }
        if faults.is_empty() {
            Ok(Self { by_name, chooser: RandomState::new() })
        } else {
            Err(faults)
        }
    }

    /// Returns true if there is such a user.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The hash to try a password on, and whether it is the user's own. For an unknown name it is that
    /// of some user, always the same: so the answer takes as long as for one that is known.
    pub(super) fn hash_for(&self, name: &str) -> (&Hash, Known) {
        if let Some(hash) = self.by_name.get(name) {
            return (hash, Known::Yes);
        }
        let count = self.by_name.len();
        let chosen =
            usize::try_from(self.chooser.hash_one(name) % count as u64).unwrap_or_default();
        let hash = self.by_name.values().nth(chosen);
        (hash.expect("there is a user, and fewer cannot be chosen"), Known::No)
    }
}

/// The presence of a name among the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    No,
}

/// Returns the fault of a file, in one sentence.
pub(super) fn in_file(path: &Path, faults: &[Fault]) -> String {
    let shown = path.display();
    let faults = faults.iter().map(|Fault { line, reason }| format!("{shown}:{line}: {reason}"));
    format!("access.users: {}", faults.collect::<Vec<_>>().join("; "))
}

/// The lines with a user, numbered from 1: the name, and what stands behind the colon.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str, Option<&str>)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| match line.split_once(':') {
        Some((name, rest)) => (number, name, Some(rest)),
        None => (number, line, None),
    })
}

/// Judges a user's name.
///
/// # Errors
/// A fragment that says what is wrong.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the name is missing");
    }
    if name.len() > NAME_MAX {
        return Err("the name is longer than 64 bytes");
    }
    if name.starts_with('#') || name.contains(':') {
        return Err("a name has no colon, and does not begin with #");
    }
    if name.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err("a name has no spaces and no control characters");
    }
    Ok(())
}

/// The text with this user's line put in its place, or at the end. All other lines stay as they are.
pub(super) fn with_user(text: &str, name: &str, hash: &str) -> String {
    let mut changed = String::with_capacity(text.len() + name.len() + hash.len() + 2);
    let mut is_there = false;
    for line in text.lines() {
        if line.split_once(':').is_some_and(|(other, _)| other == name) {
            if !is_there {
                changed.push_str(&format!("{name}:{hash}\n"));
            }
            is_there = true;
        } else {
            changed.push_str(line);
            changed.push('\n');
        }
    }
    if !is_there {
        changed.push_str(&format!("{name}:{hash}\n"));
    }
    changed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hash that costs as little as one may.
    fn cheap(password: &str) -> String {
        bcrypt::hash(password, 4).unwrap()
    }

    fn faults(text: &str) -> Vec<(usize, &'static str)> {
        let faults = Users::parse(text).unwrap_err();
        faults.iter().map(|Fault { line, reason }| (*line, *reason)).collect()
    }

    #[test]
    fn users_are_read_from_name_and_hash() {
        let alice = cheap("a");
        let bob = cheap("b");
        let text = format!("# users\n\nalice:{alice}\r\nbob:{bob}:a comment\n");
        let users = Users::parse(&text).unwrap();
        assert!(users.contains("alice") && users.contains("bob"));
        assert!(!users.contains("Alice") && !users.contains("# users") && !users.contains(""));
        let (hash, known) = users.hash_for("bob");
        assert!(hash.verify("b") && !hash.verify("a"));
        assert_eq!(known, Known::Yes);
    }

    #[test]
    fn every_wrong_line_is_named() {
        let hash = cheap("a");
        let text = format!("alice\n:{hash}\nbob:plain\na b:{hash}\ncarl:{hash}\ncarl:{hash}\n");
        let neither = "the hash is neither bcrypt nor argon2id; `ferricorn user add` makes one";
        assert_eq!(
            faults(&text),
            [
                (1, "expected name:hash, found no colon"),
                (2, "the name is missing"),
                (3, neither),
                (4, "a name has no spaces and no control characters"),
                (6, "this name stands above, too"),
            ]
        );
        assert_eq!(faults("# none\n"), [(1, "no user; `ferricorn user add NAME` adds one")]);
        let long = format!("{}:{hash}", "x".repeat(65));
        assert_eq!(faults(&long), [(1, "the name is longer than 64 bytes")]);
    }

    #[test]
    fn unknown_name_gets_some_users_hash() {
        let text = format!("alice:{}\nbob:{}\n", cheap("a"), cheap("b"));
        let users = Users::parse(&text).unwrap();
        for number in 0..64 {
            let name = format!("stranger{number}");
            let (hash, known) = users.hash_for(&name);
            assert_eq!(known, Known::No);
            assert_eq!(hash, users.hash_for(&name).0, "always the same");
        }
    }

    #[test]
    fn user_is_put_in_its_place() {
        let text = "# ours\nalice:1\n\nbob:2:x\n";
        assert_eq!(with_user(text, "bob", "3"), "# ours\nalice:1\n\nbob:3\n");
        assert_eq!(with_user(text, "carl", "3"), "# ours\nalice:1\n\nbob:2:x\ncarl:3\n");
        assert_eq!(with_user("alice:1", "bob", "3"), "alice:1\nbob:3\n");
        assert_eq!(with_user("a:1\na:2\n", "a", "3"), "a:3\n");
        assert_eq!(with_user("", "a", "3"), "a:3\n");
    }

    #[test]
    fn file_is_read_or_refused_in_words() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("users");
        let error = Users::read(&path).unwrap_err();
        assert!(
            error.ends_with("users is not there; `ferricorn user add NAME` makes it"),
            "{error}"
        );
        std::fs::write(&path, b"alice:\xff").unwrap();
        assert!(Users::read(&path).unwrap_err().contains("cannot read"));
        std::fs::write(&path, "x".repeat(1 << 21)).unwrap();
        assert!(Users::read(&path).unwrap_err().ends_with("it is longer than 1 MiB"));
        std::fs::write(&path, "alice:hunter2\nbob\n").unwrap();
        let error = Users::read(&path).unwrap_err();
        assert!(error.contains("users:1: ") && error.contains("; ") && error.contains("users:2: "));
        assert!(!error.contains("hunter2"), "{error}");
        assert!(Users::read(folder.path()).unwrap_err().ends_with("it is not a file"));
    }

    proptest! {
        #[test]
        fn any_text_is_users_or_an_error(text in "(?s)[a-c:#$2y \\r\\n.argon\u{e4}]{0,120}|\\PC{0,80}") {
            match Users::parse(&text) {
                Ok(users) => for name in users.by_name.keys() {
                    prop_assert!(check_name(name).is_ok());
                    let prefix = format!("{name}:");
                    prop_assert!(text.lines().any(|line| line.starts_with(&prefix)));
                },
                Err(faults) => {
                    prop_assert!(!faults.is_empty());
                    let count = text.lines().count().max(1);
                    prop_assert!(faults.iter().all(|fault| (1..=count).contains(&fault.line)));
                }
            }
        }

        /// A user that is added is there, and no other line means anything else.
        #[test]
        fn added_user_is_there_and_others_stay(
            names in proptest::collection::btree_set("[a-z]{1,3}", 0..6),
            added in "[a-z]{1,3}",
            comment in "# [a-z:]{0,9}",
        ) {
            let hash = "$2y$04$nVfTOdZXpAPRe0PH.yXRkeKMuhPR0Xbz0wIDgWrYsQBSgZ8LAyE.6";
            let text: String =
                names.iter().map(|name| format!("{comment}\n{name}:{hash}\n")).collect();
            let changed = with_user(&text, &added, hash);
            let users = Users::parse(&changed).unwrap();
            let mut expected = names.clone();
            expected.insert(added);
            prop_assert_eq!(users.by_name.into_keys().collect::<std::collections::BTreeSet<_>>(), expected);
        }
    }
}
