//! The documents that are made from the table of settings: `config.toml` and `docs/settings.md`.
//!
//! `UPDATE_DOCS=1 cargo test --test config documents` writes them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::Folder;

const BEGIN: &str = "<!-- settings -->";
const END: &str = "<!-- /settings -->";

fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn printed(arguments: &[&str]) -> String {
    let output = Folder::new().run(arguments);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    output.stdout
}

/// Holds a file to a text, or writes it when that is asked for.
fn hold(path: &Path, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        return fs::write(path, expected).expect("the repository is writable");
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    let path = path.display();
    assert!(found == expected, "{path} is not what the table of settings says: UPDATE_DOCS=1");
}

#[test]
fn the_reference_is_made_from_the_table() {
    hold(&in_repository("config.toml"), &printed(&["config", "--reference"]));
}

#[test]
fn the_reference_is_the_defaults() {
    let folder = Folder::new();
    let defaults = folder.run(&["config"]).stdout.replace("  # default", "");
    folder.write("config.toml", printed(&["config", "--reference"]));
    let output = folder.run(&["config"]);
    let values: String = output
        .stdout
        .lines()
        .map(|line| {
            let (value, origin) = line.rsplit_once("  # ").unwrap();
            assert!(origin.starts_with("config.toml:"), "the reference lacks {line}");
            format!("{value}\n")
        })
        .collect();
    assert_eq!(values, defaults);
    assert_eq!(output.stderr, "");
}

#[test]
fn the_reference_is_narrow() {
    for line in printed(&["config", "--reference"]).lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn the_readme_has_the_table() {
    let path = in_repository("docs/settings.md");
    let Ok(readme) = fs::read_to_string(&path) else { return };
    let (before, rest) =
        readme.split_once(BEGIN).expect("docs/settings.md has a place for the table");
    let (_, after) = rest.split_once(END).expect("docs/settings.md marks the table's end, too");
    let table = printed(&["config", "--markdown"]);
    hold(&path, &format!("{before}{BEGIN}\n\n{table}\n{END}{after}"));
}

#[test]
fn every_row_of_the_table_has_five_cells() {
    let table = printed(&["config", "--markdown"]);
    let rows: Vec<&str> = table.lines().collect();
    let settings = printed(&["config"]).lines().count();
    assert_eq!(rows.len(), settings + 2);
    for row in rows {
        assert_eq!(row.replace("\\|", "").matches('|').count(), 6, "{row}");
    }
}
