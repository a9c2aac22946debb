//! The programs that are tested, and as whom they can be run.

use std::path::{Path, PathBuf};

use crate::harness::NOBODY;

/// Returns true if every user can get to the file: a checkout may stand in a folder that is closed to
/// others.
pub(crate) fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let others_may_pass = |it: &Path| {
        it.as_os_str().is_empty()
            || std::fs::metadata(it).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    };
    path.ancestors().all(others_may_pass)
}

/// A file of the repository, by its path there.
pub(crate) fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// An example's program, which cargo has built beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    let profile = test.ancestors().nth(2).expect("it is target/<profile>/deps/<name>");
    let path = profile.join("examples").join(name);
    let stale = |why: &str| panic!("{} {why}: run `cargo build --examples`", path.display());
    let Ok(built) = std::fs::metadata(&path).and_then(|found| found.modified()) else {
        stale("is missing")
    };
    // `cargo test --test process` builds no examples: an old one would be tested in silence.
    let sources = std::fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    for source in sources.split_ascii_whitespace().filter(|word| word.ends_with(".rs")) {
        let newer = std::fs::metadata(source)
            .and_then(|found| found.modified())
            .is_ok_and(|found| found > built);
        if newer {
            stale("is older than its sources")
        }
    }
    path
}

/// Returns true if the tests run as root, and not in a namespace that knows no other user.
pub(crate) fn may_become_nobody() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let holds = |line: &str| {
        let numbers: Vec<u32> =
            line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if first <= NOBODY && NOBODY - first < count)
    };
    nix::unistd::geteuid().is_root() && map.lines().any(holds)
}
