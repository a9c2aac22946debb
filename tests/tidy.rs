//! The house rules that a machine can check, over the source as text.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file of the library or the program.
struct File {
    /// From the repository's root, with slashes.
    name: String,
    text: String,
}

/// Longer files have a second idea in them.
const FILE_LINES_MAX: usize = 500;
/// rustfmt sees to code; comments and texts may be a little wider.
const LINE_CHARS_MAX: usize = 110;

fn files(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path: PathBuf = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("it is below the root");
                let name = name.to_str().expect("names are plain").to_owned();
                let text = fs::read_to_string(&path).expect("the file is readable");
                found.push(File { name, text });
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no source files");
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn hold(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

fn all() -> Vec<File> {
    ["src", "tests", "examples", "benches"].into_iter().flat_map(files).collect()
}

#[test]
fn every_file_begins_with_its_purpose() {
    let broken = all().into_iter().filter(|file| !file.text.starts_with("//!"));
    hold("the first line says what the file is", broken.map(|file| file.name).collect());
}

#[test]
fn files_are_short() {
    let long = all().into_iter().filter(|file| file.text.lines().count() > FILE_LINES_MAX);
    hold("a file has at most 500 lines", long.map(|file| file.name).collect());
}

#[test]
fn lines_are_short() {
    // The snapshots of tests are as wide as what they show.
    let sources = ["src", "examples", "benches"].into_iter().flat_map(files);
    let broken = sources.filter(|file| !file.name.contains("/tests/")).flat_map(|file| {
        let long = |(_, line): &(usize, &str)| line.chars().count() > LINE_CHARS_MAX;
        let lines = file.text.lines().enumerate().filter(long).map(|(at, _)| at + 1);
        lines.map(|at| format!("{}:{at}", file.name)).collect::<Vec<_>>()
    });
    hold("a line has at most 100 characters", broken.collect());
}

#[test]
fn unsafe_code_stands_behind_the_door() {
    let broken = files("src").into_iter().filter(|file| {
        !file.name.starts_with("src/sys/") && file.text.contains("expect(unsafe_code")
    });
    hold("only src/sys opens the lint on unsafe code", broken.map(|file| file.name).collect());
}

#[test]
fn the_system_is_called_behind_the_door() {
    let crates = ["nix::", "libc::", "socket2::", "signal_hook::"];
    let broken = files("src").into_iter().filter(|file| {
        let calls = |line: &str| {
            let code = line.split("//").next().unwrap_or("");
            let own = |at: usize| !code[..at].ends_with(|it: char| it.is_alphanumeric());
            crates.iter().any(|name| code.match_indices(name).any(|(at, _)| own(at)))
        };
        !file.name.starts_with("src/sys/") && file.text.lines().any(calls)
    });
    hold("only src/sys calls the system", broken.map(|file| file.name).collect());
}

#[test]
fn the_door_knows_no_word_of_ours() {
    let broken = files("src/sys").into_iter().filter(|file| file.text.contains("crate::"));
    let outside = |file: &File| {
        let paths = file.text.split("crate::").skip(1);
        paths.into_iter().any(|path| !path.starts_with("sys::"))
    };
    hold("src/sys imports nothing of ours", broken.filter(outside).map(|file| file.name).collect());
}

#[test]
fn imports_go_down_only() {
    // A module, and what it may import of ours.
    let floors: [(&str, &[&str]); 7] = [
        ("src/ids.rs", &[]),
        ("src/time.rs", &[]),
        ("src/wire.rs", &["ids"]),
        ("src/supervisor/", &["ids", "time", "supervisor"]),
        ("src/scoreboard/", &["ids", "time", "sys", "scoreboard"]),
        ("src/listeners/", &["ids", "time", "sys", "config", "error", "listeners"]),
        ("src/logging/", &["ids", "time", "sys", "config", "logging"]),
    ];
    let mut broken = Vec::new();
    for file in files("src") {
        let Some((_, allowed)) = floors.iter().find(|(place, _)| file.name.starts_with(place))
        else {
            continue;
        };
        for (at, line) in file.text.lines().enumerate() {
            for path in line.split("crate::").skip(1) {
                let module = path.split(|it: char| !it.is_alphanumeric() && it != '_').next();
                if module.is_some_and(|it| !it.is_empty() && !allowed.contains(&it)) {
                    broken.push(format!("{}:{}: crate::{path}", file.name, at + 1));
                }
            }
        }
    }
    hold("imports go down only", broken);
}

#[test]
fn the_supervisor_is_pure() {
    let impure = [
        "std::time::Instant",
        "SystemTime",
        "std::fs",
        "std::env",
        "std::process",
        "tokio",
        "tracing",
    ];
    let broken = files("src/supervisor").into_iter().filter(|file| !file.name.contains("/tests/"));
    let broken = broken.flat_map(|file| {
        let found = impure.iter().filter(|word| {
            file.text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(**word))
        });
        found.map(|word| format!("{}: {word}", file.name)).collect::<Vec<_>>()
    });
    hold("the supervisor asks nobody", broken.collect());
}

#[test]
fn the_program_uses_the_library_as_anybody_would() {
    let broken = files("src/app").into_iter().flat_map(|file| {
        let own = |path: &str| path.starts_with("app");
        let lines = file.text.lines().enumerate();
        let outside =
            lines.filter(|(_, line)| line.split("crate::").skip(1).any(|path| !own(path)));
        outside.map(|(at, _)| format!("{}:{}", file.name, at + 1)).collect::<Vec<_>>()
    });
    hold("src/app imports ferricorn::… and itself", broken.collect());
}

#[test]
fn atomics_and_races_are_explained() {
    let broken = files("src").into_iter().filter(|file| {
        let code = file.text.split("#[cfg(test)]").next().unwrap_or("");
        code.contains("Ordering::Relaxed") && !code.contains("ORDERING:")
    });
    hold("a file with atomics has an ORDERING comment", broken.map(|file| file.name).collect());
}

#[test]
fn nothing_is_left_for_later() {
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let broken =
        all().into_iter().filter(|file| words.iter().any(|word| file.text.contains(word.as_str())));
    hold("what is left for later stands in an issue", broken.map(|file| file.name).collect());
}

#[test]
fn tests_do_not_sleep_and_are_not_skipped() {
    let ignored = ["#[ig", "nore"].concat();
    let broken = files("tests").into_iter().filter(|file| file.text.contains(&ignored));
    hold("no test is ignored", broken.map(|file| file.name).collect());
}

#[test]
fn the_architecture_names_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("it is there");
    let map = text.split("## Code map").nth(1).expect("it has a map");
    let map = map.split("\n## ").next().expect("a split has a first part");
    let entries = map.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next());
    let missing: Vec<String> = entries
        .filter(|entry| {
            let path = root.join("src").join(entry);
            !path.exists() && !path.with_extension("rs").exists()
        })
        .map(str::to_owned)
        .collect();
    hold("ARCHITECTURE.md maps modules that exist", missing);
}
