//! The shapes of the error log's lines, and which events become one.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use jiff::tz::{TimeZone, offset};
use serde_json::{Value as Json, json};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

thread_local! {
    static ENTRIES: RefCell<Vec<ErrorLine>> = const { RefCell::new(Vec::new()) };
}

/// Returns the lines that the layer makes of the events in `act`.
fn entries(act: impl FnOnce()) -> Vec<ErrorLine> {
    let write = |entry: &ErrorLine| {
        ENTRIES.with_borrow_mut(|entries| entries.push(entry.clone()));
    };
    let subscriber = Registry::default().with(ErrorLayer { write }.with_filter(levels::Severe));
    tracing::subscriber::with_default(subscriber, act);
    ENTRIES.take()
}

fn lines(format: LogFormat, zone: TimeZone, act: impl FnOnce()) -> Vec<String> {
    let mut writer = ErrorWriter::new(format, Clock::new(zone));
    let time = UNIX_EPOCH + Duration::from_millis(1_711_016_798_042);
    let line = |entry: &ErrorLine| {
        let mut out = Vec::new();
        writer.write(time, 7, entry, &mut out);
        let line = String::from_utf8(out).expect("a line is text");
        line.strip_suffix('\n').expect("a line ends").to_owned()
    };
    entries(act).iter().map(line).collect()
}

fn text(act: impl FnOnce()) -> Vec<String> {
    lines(LogFormat::Text, TimeZone::UTC, act)
}

fn objects(act: impl FnOnce()) -> Vec<Json> {
    let parse = |line: &String| serde_json::from_str(line).expect("a line is JSON");
    lines(LogFormat::Json, TimeZone::UTC, act).iter().map(parse).collect()
}

#[test]
fn lines_have_gunicorns_shape() {
    let written = text(|| {
        tracing::info!("Booting worker with pid: {}", 8);
        tracing::warn!(slot = 2, "slow");
        tracing::error!("broken");
        tracing::error!(critical = true, "the end");
        tracing::error!(critical = false, "not the end");
    });
    assert_eq!(
        written,
        [
            "[2024-03-21 10:26:38 +0000] [7] [INFO] Booting worker with pid: 8",
            "[2024-03-21 10:26:38 +0000] [7] [WARNING] slow slot=2",
            "[2024-03-21 10:26:38 +0000] [7] [ERROR] broken",
            "[2024-03-21 10:26:38 +0000] [7] [CRITICAL] the end",
            "[2024-03-21 10:26:38 +0000] [7] [ERROR] not the end",
        ]
    );
}

#[test]
fn dates_are_local() {
    let zone = TimeZone::fixed(offset(-3));
    let written = lines(LogFormat::Text, zone.clone(), || tracing::info!("here"));
    assert_eq!(written, ["[2024-03-21 07:26:38 -0300] [7] [INFO] here"]);
    let written = lines(LogFormat::Json, zone, || tracing::info!("here"));
    assert!(written[0].starts_with("{\"time\":\"2024-03-21T07:26:38.042-03:00\","), "{written:?}");
}

#[test]
fn fields_are_typed_and_quoted() {
    let act = || {
        let failure = std::io::Error::other("refused");
        tracing::info!(
            r#type = "word",
            text = "two words",
            quote = "a\"=\\",
            empty = "",
            shown = %"x y",
            debug = ?Some(1),
            number = -1,
            large = u64::MAX,
            part = 0.5,
            yes = true,
            failure = &failure as &dyn std::error::Error,
            "message"
        );
    };
    assert_eq!(
        text(act)[0].split_once("[INFO] ").map(|(_, rest)| rest),
        Some(
            "message type=word text=\"two words\" quote=\"a\\\"=\\\\\" empty=\"\" shown=\"x y\" \
             debug=Some(1) number=-1 large=18446744073709551615 part=0.5 yes=true failure=refused"
        )
    );
    assert_eq!(
        objects(act)[0],
        json!({
            "time": "2024-03-21T10:26:38.042+00:00", "pid": 7, "level": "INFO",
            "message": "message", "type": "word", "text": "two words", "quote": "a\"=\\",
            "empty": "", "shown": "x y", "debug": "Some(1)", "number": -1, "large": u64::MAX,
            "part": 0.5, "yes": true, "failure": "refused",
        })
    );
}

#[test]
fn errors_name_their_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("failed to boot")]
    struct Outer(#[source] std::io::Error);
    let written = text(|| {
        let failure = Outer(std::io::Error::other("no space"));
        tracing::error!(error = &failure as &dyn std::error::Error, "x");
    });
    assert!(written[0].ends_with("x error=\"failed to boot: no space\""), "{written:?}");
}

#[test]
fn an_event_is_one_line_whatever_it_says() {
    let act = || tracing::error!(field = "c\nd\u{1b}[0m", "a\nb\r\u{2028}[forged] [INFO] ü");
    let written = text(act);
    assert_eq!(
        written[0].split_once("[ERROR] ").map(|(_, rest)| rest),
        Some(r"a\nb\r\u{2028}[forged] [INFO] ü field=c\nd\u{1b}[0m")
    );
    let object = lines(LogFormat::Json, TimeZone::UTC, act);
    assert!(!object[0].contains(|found: char| found.is_control() || found == '\u{2028}'));
    let object: Json = serde_json::from_str(&object[0]).expect("it is JSON");
    assert_eq!(object["message"], "a\nb\r\u{2028}[forged] [INFO] ü");
    assert_eq!(object["field"], "c\nd\u{1b}[0m");
}

#[test]
fn names_that_are_taken_stand_once() {
    let act = || {
        let outer = tracing::info_span!("outer", id = 1, only_outer = 2).entered();
        let inner = tracing::info_span!("inner", id = 3, later = tracing::field::Empty);
        inner.record("later", 4);
        inner.in_scope(|| tracing::info!(pid = 8, level = 9, id = 5, "x"));
        drop(outer);
        tracing::info!("outside");
    };
    let written = lines(LogFormat::Json, TimeZone::UTC, act);
    let (_, fields) = written[0].split_once("\"message\":").expect("a message");
    assert_eq!(fields, "\"x\",\"pid_\":8,\"level_\":9,\"id\":5,\"later\":4,\"only_outer\":2}");
    let (_, fields) = written[1].split_once("\"message\":").expect("a message");
    assert_eq!(fields, "\"outside\"}");
    assert!(text(act)[0].ends_with("x pid=8 level=9 id=5 later=4 only_outer=2"));
}

#[test]
fn long_events_are_cut_and_stay_whole_lines() {
    let long = "ü".repeat(LINE_MAX);
    let act = || tracing::info!(field = long.as_str(), other = "kept", "{long}");
    let written = text(act);
    assert!(written[0].len() < LINE_MAX, "{}", written[0].len());
    assert!(written[0].ends_with("üü[cut]"));
    let line = &lines(LogFormat::Json, TimeZone::UTC, act)[0];
    assert!(line.len() < LINE_MAX, "{}", line.len());
    let object: Json = serde_json::from_str(line).expect("it is JSON");
    assert!(object["message"].as_str().is_some_and(|text| text.ends_with("ü[cut]")));
    assert!(object["field"].as_str().is_some_and(|text| text.ends_with("ü[cut]")));
    assert_eq!(object["other"], "kept");
}

crate::log_event::log_lines! {
    /// An event for the test.
    enum Sample {
        /// A sample.
        Taken = "sample_taken", Error, "cannot take {count}: {reason}" {
            count: u32,
            reason: String,
            took as duration_seconds: Duration,
        },
    }
}

#[test]
fn event_has_its_name_and_typed_fields_in_json_alone() {
    let reason = "no\nfile".to_owned();
    let took = Duration::from_micros(1_234_567);
    assert_eq!(Sample::descriptions()[0].fields, ["count", "reason", "duration_seconds"]);
    let sample = Sample::Taken { count: 2, reason, took };
    let act = || crate::logging::emit(&sample);
    let written = objects(act);
    assert_eq!(written.len(), 1);
    assert_eq!(
        (&written[0]["event"], &written[0]["level"]),
        (&json!("sample_taken"), &json!("ERROR"))
    );
    assert_eq!((&written[0]["count"], &written[0]["reason"]), (&json!(2), &json!("no\nfile")));
    assert_eq!(written[0]["duration_seconds"], 1.235);
    assert!(text(act)[0].ends_with("[ERROR] cannot take 2: no\\nfile"), "{:?}", text(act));
}

#[test]
fn application_names_its_events_by_a_field() {
    let act = || tracing::info!(event = "cache_filled", entries = 3, "filled the cache");
    assert_eq!(objects(act)[0]["event"], "cache_filled");
    assert!(text(act)[0].ends_with("[INFO] filled the cache entries=3"), "{:?}", text(act));
}
