//! `ferricorn why SLOT`: the last ends of workers in a slot, each explained from the events about it.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::control::{plain, word};

/// Ends that are printed.
const ENDS_MAX: usize = 10;

/// One end of a worker.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct End {
    time: String,
    pid: i64,
    /// One of the words of `docs/control.md`.
    cause: String,
    /// The cause in words.
    explanation: String,
    exit_code: Option<i64>,
    signal: Option<i64>,
    core_dumped: bool,
    /// The most memory that it had resident.
    peak_memory_bytes: Option<u64>,
    /// The time from its readiness to its end; `None` if it never was ready, or that is forgotten.
    served_seconds: Option<f64>,
    /// The requests that it had in hand at its end, or when it stalled.
    requests_in_hand: u64,
    requests: Option<String>,
}

/// The ends of workers in this slot that the events tell of, the last one first.
pub(super) fn ends(events: &[Value], slot: u16) -> Vec<End> {
    let is_ours = |event: &&Value| event["fields"]["slot"] == slot;
    let ours: Vec<&Value> = events.iter().filter(is_ours).collect();
    let ended = ours.iter().enumerate().rev();
    let ended = ended.filter(|(_, event)| word(event, "event") == "worker_exited");
    ended.take(ENDS_MAX).map(|(at, event)| end(event, &ours[..at])).collect()
}

/// The end that an event tells of, with those before it.
fn end(event: &Value, before: &[&Value]) -> End {
    let fields = &event["fields"];
    let pid = fields["process_pid"].as_i64().unwrap_or_default();
    // A pid may be an earlier worker's, too: of each event the last one counts.
    let last = |name: &str| {
        let mut events = before.iter().rev();
        events
            .find(|event| word(event, "event") == name && event["fields"]["process_pid"] == pid)
            .copied()
    };
    let held = last("requests_lost").or_else(|| last("requests_held"));
    let (cause, told_by) = cause(fields, &last);
    let explanation =
        [told_by, Some(event)].into_iter().flatten().map(|event| word(event, "message"));
    End {
        time: word(event, "time").to_owned(),
        pid,
        cause,
        explanation: explanation.collect::<Vec<_>>().join("; "),
        exit_code: fields["exit_code"].as_i64(),
        signal: fields["signal"].as_i64(),
        core_dumped: fields["core_dumped"] == true,
        peak_memory_bytes: fields["peak_memory_bytes"].as_u64(),
        served_seconds: last("worker_ready").and_then(|ready| between(ready, event)),
        requests_in_hand: held
            .and_then(|held| held["fields"]["count"].as_u64())
            .unwrap_or_default(),
        requests: held.map(|held| word(&held["fields"], "requests").to_owned()),
    }
}

/// The cause in one word, and the earlier event that tells of it.
fn cause<'a>(
    fields: &Value,
    last: &dyn Fn(&str) -> Option<&'a Value>,
) -> (String, Option<&'a Value>) {
    let reason = |event: Option<&'a Value>, default: &str| {
        let found =
            event.map(|event| word(&event["fields"], "reason")).filter(|event| !event.is_empty());
        (found.unwrap_or(default).to_owned(), event)
    };
    if fields["out_of_memory"] == true {
        return ("out_of_memory".to_owned(), None);
    }
    match word(fields, "ending") {
        "stalled" => ("stall_timeout".to_owned(), last("worker_stalled")),
        "stopped" => reason(last("worker_due"), "told_to_leave"),
        "killed_draining" => ("graceful_timeout".to_owned(), last("process_killed")),
        "boot_failed" => reason(last("process_killed"), "boot_failed"),
        "died" if last("process_killed").is_some() => reason(last("process_killed"), "killed"),
        _ if fields["signal"].is_i64() => ("signal".to_owned(), None),
        _ if fields["reaped_elsewhere"] == true => ("reaped_elsewhere".to_owned(), None),
        _ => ("exit".to_owned(), None),
    }
}

/// Seconds from one event to another.
fn between(one: &Value, other: &Value) -> Option<f64> {
    let time = |event| word(event, "time").parse::<jiff::Timestamp>().ok();
    let seconds = time(other)?.duration_since(time(one)?).as_secs_f64();
    (seconds >= 0.0).then_some((seconds * 1000.0).round() / 1000.0)
}

/// One object.
pub(super) fn json(slot: u16, ends: &[End]) -> String {
    format!("{}\n", json!({ "slot": slot, "ends": ends }))
}

/// Lines for people.
pub(super) fn text(slot: u16, ends: &[End]) -> String {
    if ends.is_empty() {
        return format!("slot {slot}: the events tell of no end of a worker\n");
    }
    let mut text = format!("slot {slot}: the last {} ends of workers\n", ends.len());
    for end in ends {
        text.push_str(&paragraph(end));
    }
    plain(&text)
}

fn paragraph(end: &End) -> String {
    let mut text =
        format!("\n{} pid {}: {}\n  {}\n", end.time, end.pid, end.cause, end.explanation);
    let mut facts = Vec::new();
    facts.extend(end.served_seconds.map(|seconds| format!("served for {seconds:.1} s")));
    facts.extend(end.peak_memory_bytes.map(|bytes| format!("at most {} MiB", bytes >> 20)));
    facts.extend(end.core_dumped.then(|| "left a core".to_owned()));
    if !facts.is_empty() {
        writeln!(text, "  {}", facts.join(", ")).expect("a string takes it");
    }
    if let Some(requests) = &end.requests {
        writeln!(text, "  in hand: {requests}").expect("a string takes it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: u8, name: &str, fields: &Value) -> Value {
        let time = format!("2026-11-29T08:00:{second:02}.000Z");
        json!({ "time": time, "event": name, "message": format!("it {name}"), "fields": fields })
    }

    #[test]
    fn end_is_explained_by_the_events_about_its_pid() {
        let about = |slot: u16, pid: i64| json!({ "slot": slot, "process_pid": pid });
        let with = |mut fields: Value, more: &Value| {
            let more = more.as_object().expect("an object").clone();
            fields.as_object_mut().expect("an object").extend(more);
            fields
        };
        let lost = json!({ "count": 2, "requests": "2 requests: stuck in GET /a" });
        let exited = json!({
            "signal": 6, "core_dumped": true, "ending": "stalled", "peak_memory_bytes": 3 << 20,
        });
        let due = json!({ "reason": "max_requests" });
        let stopped = json!({ "exit_code": 0, "ending": "stopped" });
        let events = [
            event(0, "worker_ready", &about(0, 7)),
            event(0, "worker_ready", &about(1, 8)),
            event(5, "worker_stalled", &about(0, 7)),
            event(5, "requests_held", &with(about(0, 7), &lost)),
            event(6, "worker_exited", &with(about(0, 7), &exited)),
            event(7, "worker_ready", &about(0, 9)),
            event(8, "worker_due", &with(about(0, 9), &due)),
            event(9, "worker_exited", &with(about(0, 9), &stopped)),
        ];
        let found = ends(&events, 0);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].pid, found[0].cause.as_str()), (9, "max_requests"));
        assert_eq!((found[0].served_seconds, found[0].requests_in_hand), (Some(2.0), 0));
        assert_eq!(
            paragraph(&found[1]),
            "\n2026-11-29T08:00:06.000Z pid 7: stall_timeout\n  it worker_stalled; it worker_exited\n  \
             served for 6.0 s, at most 3 MiB, left a core\n  in hand: 2 requests: stuck in GET /a\n"
        );
        assert_eq!(ends(&events, 1), []);
        assert_eq!(text(1, &[]), "slot 1: the events tell of no end of a worker\n");
    }
}
