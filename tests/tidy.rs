//! The house rules that a machine can check, over the source as text.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/documents.rs"]
mod documents;
#[path = "support/words.rs"]
mod words;

/// A source file of the library or the program.
struct File {
    name: String,
    text: String,
}

const FILE_LINES_MAX: usize = 500;
/// rustfmt sees to code, which has 100; comments and texts may be a little wider.
const LINE_CHARS_MAX: usize = 110;

fn files(folder: &str) -> Vec<File> {
    files_of(folder, "rs")
}

fn files_of(folder: &str, kind: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path: PathBuf = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == kind) {
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
    ["src", "service", "tests", "examples", "benches"].into_iter().flat_map(files).collect()
}

/// The library and the program.
fn sources() -> Vec<File> {
    ["src", "service/src"].into_iter().flat_map(files).collect()
}

#[test]
fn every_file_begins_with_its_purpose() {
    let broken = all().into_iter().filter(|file| !file.text.starts_with("//!"));
    hold("the first line says what the file is", broken.map(|file| file.name).collect());
}

#[test]
fn files_are_short() {
    let long = all().into_iter().filter(|file| file.text.lines().count() > FILE_LINES_MAX);
    hold(
        &format!("a file has at most {FILE_LINES_MAX} lines"),
        long.map(|file| file.name).collect(),
    );
}

#[test]
fn lines_are_short() {
    // The snapshots of tests are as wide as what they show.
    let examples = ["examples", "benches"].into_iter().flat_map(files);
    let sources = sources().into_iter().chain(examples);
    let broken = sources.filter(|file| !file.name.contains("/tests/")).flat_map(|file| {
        let long = |(_, line): &(usize, &str)| line.chars().count() > LINE_CHARS_MAX;
        let lines = file.text.lines().enumerate().filter(long).map(|(at, _)| at + 1);
        lines.map(|at| format!("{}:{at}", file.name)).collect::<Vec<_>>()
    });
    hold(&format!("a line has at most {LINE_CHARS_MAX} characters"), broken.collect());
}

#[test]
fn unsafe_code_stands_behind_the_door() {
    let broken = sources().into_iter().filter(|file| {
        !file.name.starts_with("src/sys/") && file.text.contains("expect(unsafe_code")
    });
    hold("only src/sys opens the lint on unsafe code", broken.map(|file| file.name).collect());
}

/// The most blocks, functions and implementations that the compiler cannot judge.
const UNSAFE_MAX: usize = 18;

#[test]
fn unsafe_code_is_little() {
    let kinds = ["{", "fn ", "impl ", "extern "].map(|kind| format!("unsafe {kind}"));
    let counts = |file: File| {
        let code = file.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let count = |line: &str| kinds.iter().map(|kind| line.matches(kind).count()).sum::<usize>();
        (code.map(count).sum(), file.name)
    };
    let found: Vec<(usize, String)> = files("src").into_iter().map(counts).collect();
    let sum: usize = found.iter().map(|(count, _)| count).sum();
    let places = found.into_iter().filter(|(count, _)| *count > 0);
    let places: Vec<_> = places.map(|(count, name)| format!("{name}: {count}")).collect();
    assert!(sum <= UNSAFE_MAX, "{sum} unsafe sites, at most {UNSAFE_MAX}: {}", places.join(", "));
}

#[test]
fn the_system_is_called_behind_the_door() {
    let crates =
        ["nix::", "libc::", "rustix::", "socket2::", "signal_hook::", "signal_hook_registry::"];
    let broken = sources().into_iter().filter(|file| {
        let calls = |line: &str| {
            let code = line.split("//").next().unwrap_or("");
            let own = |at: usize| !code[..at].ends_with(|code: char| code.is_alphanumeric());
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

/// The modules of the library from the lowest on, as ARCHITECTURE.md's table of floors names them.
fn floors() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("it is there");
    let floors = text.split("## Floors").nth(1).expect("it has floors");
    let rows = floors.lines().skip_while(|line| !line.starts_with("|--"));
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    let modules = rows.filter_map(|row| row.split('|').nth(2));
    modules.flat_map(|names| names.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// With an order that every import follows there is no circle.
#[test]
fn imports_go_down_only() {
    let floors = floors();
    let height = |module: &str| floors.iter().position(|floor| floor == module);
    // They name everything.
    let others = ["src/lib.rs", "src/log_event_tests.rs"];
    let mut broken = Vec::new();
    for file in files("src").into_iter().filter(|file| !others.contains(&&*file.name)) {
        let own = file.name.trim_start_matches("src/").split(['/', '.']).next().unwrap_or("");
        let Some(floor) = height(own) else {
            broken.push(format!("{}: on no floor", file.name));
            continue;
        };
        for (at, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for path in line.split("crate::").skip(1) {
                let end = path.find(|part: char| !part.is_alphanumeric() && part != '_');
                let module = &path[..end.unwrap_or(path.len())];
                if !module.is_empty() && height(module).is_none_or(|below| below > floor) {
                    broken.push(format!("{}:{}: crate::{path}", file.name, at + 1));
                }
            }
        }
    }
    hold("imports go down only", broken);
}

/// The worker's rooms in their order, as `src/worker/mod.rs` names them.
#[test]
fn rooms_of_the_worker_import_earlier_rooms_only() {
    let files = files("src/worker");
    let root = files.iter().find(|file| file.name == "src/worker/mod.rs").expect("it is there");
    let order = root.text.lines().find(|line| line.starts_with("//! `proxy`")).expect("an order");
    let order: Vec<&str> = order.split('`').skip(1).step_by(2).collect();
    let mut broken = Vec::new();
    for file in &files {
        let Some((room, _)) = file.name["src/worker/".len()..].split_once('/') else { continue };
        if room == "tests" {
            continue;
        }
        let own = order.iter().position(|other| *other == room).expect("each room has its place");
        for (at, line) in file.text.lines().enumerate() {
            let path = line.split("crate::worker::").nth(1).unwrap_or_default();
            let named = path.split(|part: char| !part.is_alphanumeric() && part != '_').next();
            let named = order.iter().position(|other| Some(*other) == named);
            if named.is_some_and(|named| named > own) {
                broken.push(format!("{}:{}: {}", file.name, at + 1, line.trim()));
            }
        }
    }
    hold("a room of src/worker imports only rooms before it", broken);
}

#[test]
fn the_master_knows_the_childrens_entries_alone() {
    let entries = "use crate::worker::{self, Birth, WorkerBirth};";
    let broken = files("src/master").into_iter().flat_map(|file| {
        let others = file.text.lines().filter(|line| line.contains("crate::worker"));
        let others = others.filter(|line| *line != entries);
        others.map(|line| format!("{}: {line}", file.name)).collect::<Vec<_>>()
    });
    hold("src/master imports only the entries of src/worker", broken.collect());
}

#[test]
fn supervisor_and_connections_machine_are_pure() {
    let impure = [
        "std::time::Instant",
        "SystemTime",
        "std::fs",
        "std::env",
        "std::process",
        "tokio",
        "tracing",
    ];
    let pure = ["src/supervisor", "src/worker/connection/machine"].into_iter().flat_map(files);
    let broken = pure.filter(|file| !file.name.contains("/tests/"));
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
fn atomics_and_races_are_explained() {
    let broken = sources().into_iter().filter(|file| {
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
fn no_test_is_skipped() {
    let ignored = ["#[ig", "nore"].concat();
    let broken = all().into_iter().filter(|file| file.text.contains(&ignored));
    hold("no test is ignored", broken.map(|file| file.name).collect());
}

/// Where tests sleep: between two looks at a condition, or to keep the pace that a load, a drip or a
/// figure is made of, or the rest of a connection. Never for something to have happened.
const PACED: [&str; 22] = [
    "service/tests/app/busy.rs",
    "service/tests/app/world.rs",
    "service/tests/process/databases.rs",
    "service/tests/process/faults/shortages.rs",
    "service/tests/process/http2.rs",
    "service/tests/process/leavers.rs",
    "service/tests/process/limits.rs",
    "service/tests/process/log_figures.rs",
    "service/tests/process/support/harness.rs",
    "service/tests/process/support/link.rs",
    "service/tests/process/support/load.rs",
    "service/tests/process/support/sockets.rs",
    "service/tests/process/upgrade.rs",
    "src/worker/tests/full.rs",
    "src/worker/tests/http2.rs",
    "src/worker/tests/departures.rs",
    "src/worker/tests/mod.rs",
    "src/worker/tests/outgoing.rs",
    "src/worker/tests/relays.rs",
    "src/worker/tests/timing.rs",
    "src/worker/tests/unread.rs",
    "tests/tidy.rs",
];

#[test]
fn tests_do_not_sleep() {
    let is_test = |file: &File| file.name.starts_with("tests/") || file.name.contains("/tests/");
    let sleeps =
        |file: &File| file.text.contains("::sleep(") || file.text.contains(" sleep(Duration");
    let broken = all().into_iter().filter(|file| is_test(file) && sleeps(file));
    let broken = broken.filter(|file| !PACED.contains(&file.name.as_str()));
    hold(
        "tests wait for conditions; only these keep a pace",
        broken.map(|broken| broken.name).collect(),
    );
}

/// Tests that `./check` names: the property and the figure that is renamed is run no more.
#[test]
fn tests_that_check_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let check = fs::read_to_string(root.join("check")).expect("it is there");
    let files = all();
    let words = check.split_whitespace().map(|word| word.trim_end_matches(';'));
    let is_name = |word: &&str| {
        let plain =
            |part: &str| part.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        word.contains("::") && word.split("::").all(|part| !part.is_empty() && plain(part))
    };
    let names: Vec<&str> = words.filter(is_name).collect();
    let mut broken = Vec::new();
    for name in &names {
        let (module, test) = name.rsplit_once("::").expect("it has a module");
        // The modules of tests stand in the file of what they test, or beside it.
        let tests = ["::tests", "::odd_bytes"];
        let module = tests.iter().find_map(|tests| module.strip_suffix(tests)).unwrap_or(module);
        let place = format!("/{}", module.replace("::", "/"));
        let signature = format!("fn {test}(");
        let is_there = |file: &File| file.name.contains(&place) && file.text.contains(&signature);
        if !files.iter().any(is_there) {
            broken.push((*name).to_owned());
        }
    }
    assert!(names.len() > 50, "{} names found", names.len());
    hold("./check names tests that exist", broken);
}

/// Tools that start the program beside its own environment: a variable that is no setting, exported,
/// would keep every ferricorn of that shell from starting.
#[test]
fn tools_stay_out_of_the_programs_variables() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("it is there");
    let readme = read("docs/settings.md");
    let mut broken = Vec::new();
    for name in [
        "Dockerfile",
        "docker-compose.yml",
        ".env.example",
        "deploy/stack.yml",
        "deploy/kubernetes/deployment.yaml",
        "deploy/systemd/ferricorn.service",
        "check",
        ".ci/run",
        "tests/docker",
        "bench/compare",
        "bench/profiled",
        "bench/servers.py",
    ] {
        for (at, _) in read(name).match_indices("FERRICORN_") {
            let text = read(name);
            let word = |it: &char| it.is_ascii_uppercase() || *it == '_';
            let variable: String = text[at..].chars().take_while(word).collect();
            if variable != "FERRICORN_CONFIG" && !readme.contains(&format!("`{variable}`")) {
                broken.push(format!("{name}: {variable}"));
            }
        }
    }
    hold("a variable that begins with FERRICORN_ is a setting", broken);
}

#[test]
fn what_is_deployed_is_this_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("it is there");
    let version = env!("CARGO_PKG_VERSION");
    let said = [
        ("service/Cargo.toml", format!("ferricorn = {{ path = \"..\", version = \"{version}\"")),
        ("Dockerfile", format!("\nARG VERSION={version}\n")),
        ("deploy/kubernetes/kustomization.yaml", format!("newTag: {version}\n")),
        ("deploy/stack.yml", format!("/ferricorn:{version} docker stack deploy")),
        (".env.example", format!("/ferricorn:{version}\n")),
        ("CHANGELOG.md", format!("\n## [{version}] - 20")),
    ];
    let broken = said.into_iter().filter(|(name, text)| !read(name).contains(text));
    hold(
        "files name this version",
        broken.map(|(name, text)| format!("{name}: {text:?}")).collect(),
    );
}

/// The image is built without their folders, where cargo looks for each target that has no path.
#[test]
fn targets_that_the_image_lacks_have_a_path() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifests = ["Cargo.toml", "service/Cargo.toml"]
        .map(|name| fs::read_to_string(root.join(name)).expect("it is there"));
    let sections = manifests
        .iter()
        .flat_map(|manifest| manifest.split("\n["))
        .filter(|section| ["[example]]", "[test]]"].iter().any(|kind| section.starts_with(kind)));
    let broken = sections.filter(|section| !section.contains("\npath = "));
    hold("an example or a test of Cargo.toml names its file", broken.map(str::to_owned).collect());
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
            !path.exists() && !path.with_extension("rs").exists() && !root.join(entry).exists()
        })
        .map(str::to_owned)
        .collect();
    hold("ARCHITECTURE.md maps modules that exist", missing);
}

#[test]
fn the_architecture_maps_every_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("it is there");
    let map = text.split("## Code map").nth(1).expect("it has a map");
    let map = map.split("\n## ").next().expect("a split has a first part");
    let modules = files("src").into_iter().filter_map(|file| {
        let path = file.name.strip_prefix("src/")?.strip_suffix(".rs")?.to_owned();
        // Modules of the first floor down, and those of the worker, which has the most.
        let name = match path.split_once('/') {
            None => path,
            Some(("worker", name)) if !name.contains('/') => name.to_owned(),
            Some((folder, _)) => folder.to_owned(),
        };
        (name != "lib" && !name.ends_with("_tests")).then_some(name)
    });
    let known = |name: &String| {
        [format!("`{name}`"), format!("`{name}/`")].iter().any(|written| map.contains(written))
    };
    let mut missing: Vec<String> = modules.filter(|name| !known(name)).collect();
    missing.dedup();
    hold("ARCHITECTURE.md maps every module", missing);
}

/// The test command must say what it would install before it does, and install nothing when told so.
#[test]
fn check_names_missing_packages_without_installing() {
    let folder = tempfile::tempdir().expect("a folder");
    // A machine that has a shell and nothing of what the tests start; apt-get tells on itself.
    for tool in ["bash", "dirname", "sed", "id", "env"] {
        let path = ["/usr/bin", "/bin"].iter().map(|place| Path::new(place).join(tool));
        let path = path.into_iter().find(|path| path.exists()).expect("it is on every Debian");
        std::os::unix::fs::symlink(path, folder.path().join(tool)).expect("a link");
    }
    let trap = folder.path().join("apt-get");
    fs::write(&trap, "#!/bin/sh\necho INSTALLING\n").expect("our folder");
    fs::set_permissions(&trap, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("check");
    let output = std::process::Command::new("/bin/bash")
        .arg(script)
        .args(["test", "--no-install"])
        .env("PATH", folder.path())
        .output()
        .expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("missing packages: ") && said.contains("procps"), "{said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("INSTALLING"));
}

/// A promise of SECURITY.md counts because a test holds it.
#[test]
fn security_promises_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).expect("it is there");
    let sources = all();
    // A function with the attribute, or one of a suite that is run for each database.
    let is_test = |name: &str| {
        let function = format!("fn {name}(");
        let is_run =
            |before: &str| before.rsplit("\n\n").next().unwrap_or_default().contains("test]");
        let texts = || sources.iter().map(|file| file.text.as_str());
        texts().filter_map(|text| text.split_once(&function)).any(|(before, _)| is_run(before))
            || texts().any(|text| text.contains(&format!("::{name},\n")))
    };
    let settings = ["forwarded_allow_ips", "proxy_allow_ips"];
    let quoted = text.split('`').skip(1).step_by(2);
    let names = quoted.filter(|name| name.matches('_').count() > 1 && !settings.contains(name));
    let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut missing: Vec<String> =
        names.filter(plain).filter(|name| !is_test(name)).map(str::to_owned).collect();
    // Every line of a table of promises has a test.
    let tables = text.split("| it cannot | held by the test |").skip(1);
    let rows = tables.flat_map(|table| {
        table.lines().skip(2).take_while(|line| line.starts_with('|')).collect::<Vec<_>>()
    });
    let untested = rows.filter(|row| !row.trim_end_matches(" |").ends_with('`'));
    missing.extend(untested.map(str::to_owned));
    hold("a promise of SECURITY.md names a test", missing);
}
