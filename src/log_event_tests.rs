//! `docs/events.md`, which is made from the declarations of the log events.
//!
//! `UPDATE_DOCS=1 cargo test --lib log_event_tests` writes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::listeners::events::ListenerEvent;
use crate::log_event::Description;
use crate::logging::LoggingEvent;
use crate::master::events::MasterEvent;
use crate::program::events::ProgramEvent;
use crate::stats::events::StatsEvent;
use crate::supervisor::notice::Notice;
use crate::worker::events::WorkerEvent;

const HEAD: &str = "\
# Log events
Each line of the error log that ferricorn itself writes is an event with a stable name and typed fields.
With `log.format = \"json\"` a line carries the name as `event` and the fields beside `time`, `pid`, `level`
and `message`; text lines carry the message alone. **Names and fields are a contract**: a change is
announced in the changelog. Messages are for people and may be reworded at any time.

```json
{\"time\":\"2026-11-29T10:26:38.042+00:00\",\"pid\":7,\"level\":\"INFO\",\"event\":\"worker_ready\",\
\"message\":\"…\",\"slot\":0,\"process_pid\":8,\"boot_seconds\":0.012}
```
A field is left out where it does not apply: of `exit_code` and `signal` a process has one. Durations are
seconds, sizes are bytes. An application names its own events by a field `event`:
`tracing::info!(event = \"cache_filled\", entries, \"filled the cache\")`.
";

fn sections() -> [(&'static str, Vec<Description>); 7] {
    [
        ("Supervision", Notice::descriptions()),
        ("Master", MasterEvent::descriptions()),
        ("Listeners", ListenerEvent::descriptions()),
        ("Workers and `prepare`", WorkerEvent::descriptions()),
        ("Programs", ProgramEvent::descriptions()),
        ("Logs", LoggingEvent::descriptions()),
        ("Stats process", StatsEvent::descriptions()),
    ]
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    for (title, descriptions) in sections() {
        text += &format!("\n## {title}\n| event | fields | logged when |\n|---|---|---|\n");
        for Description { name, fields, doc } in descriptions {
            let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
            text += &format!("| `{name}` | {} | {doc} |\n", fields.join(", "));
        }
    }
    text
}

#[test]
fn log_event_tests_is_made_from_the_declarations() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let expected = document();
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        return fs::write(path, expected).expect("the repository is writable");
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "docs/events.md differs from the declarations: UPDATE_DOCS=1");
}

/// A key that a line has by itself would hide a field; one name must not stand for two events.
#[test]
fn event_names_are_unique_and_fields_are_free() {
    let mut names = BTreeSet::new();
    for Description { name, fields, .. } in sections().into_iter().flat_map(|(_, all)| all) {
        assert!(names.insert(name), "{name} is declared twice");
        let snake = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(snake(name), "{name}");
        for field in fields {
            let taken = ["time", "pid", "level", "message", "event"].contains(&field);
            assert!(snake(field) && !taken, "{name}: {field}");
        }
    }
}
