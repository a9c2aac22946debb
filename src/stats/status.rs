//! The status of the server as JSON: what the master has written of it, and what this process reads itself.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::snapshot::Snapshot;
use crate::control::{ServerRow, Status, WorkerRow};
use crate::logging::journal;
use crate::scoreboard::{BOUNDS_NANOS, Distribution, StatusText};
use crate::time::Instant;

/// The status, as one object.
pub(super) fn json(
    snapshot: &Snapshot,
    written: &StatusText,
    now: Instant,
    wall: SystemTime,
) -> Value {
    let mut status = Status::default();
    let lines = written.bytes.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let events: Vec<Value> = lines.filter_map(|line| status.take(line)).collect();
    for worker in &mut status.workers {
        complete(worker, snapshot);
    }
    let queues = snapshot
        .queues
        .iter()
        .map(|(address, length)| json!({ "address": address, "length": length }));
    let requests = snapshot.requests.iter().map(|(code, count)| (code.to_string(), json!(count)));
    let ends = snapshot.ends.iter().map(|(cause, count)| ((*cause).to_owned(), json!(count)));
    json!({
        "time": journal::timestamp(wall),
        "snapshot_age_seconds": now.since(written.written).as_secs_f64(),
        "reload": progress(&status.server, &status.workers),
        "server": status.server,
        "workers": status.workers,
        "queues": queues.collect::<Vec<_>>(),
        "requests": Value::Object(requests.collect()),
        "request_duration": histogram(&snapshot.duration),
        "queue_wait": histogram(&snapshot.queue_wait),
        "event_loop_lag": histogram(&snapshot.loop_lag),
        "worker_ends": Value::Object(ends.collect()),
        "events": events,
    })
}

/// Adds what the master leaves out of a worker's row.
fn complete(worker: &mut WorkerRow, snapshot: &Snapshot) {
    let pid = worker.pid.and_then(|pid| u32::try_from(pid).ok());
    let Some(own) = pid.and_then(|pid| snapshot.workers.get(&pid)) else { return };
    worker.requests_in_flight = usize::try_from(own.in_flight).unwrap_or(usize::MAX);
    worker.memory_bytes = Some(own.memory).filter(|bytes| *bytes > 0);
    worker.cpu_seconds = Some(own.processor as f64 / 1e6);
}

/// Returns the progress of a reload: the slots that a worker of the next generation serves, of all.
fn progress(server: &ServerRow, workers: &[WorkerRow]) -> Option<Value> {
    let next = server.next_generation?;
    let is_new = |worker: &&WorkerRow| worker.generation == next && worker.state == "serving";
    let mut slots: Vec<u16> = workers.iter().filter(is_new).map(|worker| worker.slot).collect();
    slots.dedup();
    Some(json!({ "generation": next, "replaced": slots.len(), "of": server.workers_wanted }))
}

/// A histogram: one count more than bounds, each without the values below.
fn histogram(distribution: &Distribution) -> Value {
    let counts: Vec<u64> = distribution.buckets.iter().map(|bucket| bucket.unchecked()).collect();
    json!({
        "bounds_seconds": BOUNDS_NANOS.map(|nanos| nanos as f64 / 1e9),
        "counts": counts,
        "sum_seconds": distribution.sum.unchecked() as f64 / 1e9,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::snapshot::WorkerNumbers;
    use crate::sys::shared::Claim;

    fn written(text: &str) -> StatusText {
        StatusText { bytes: text.as_bytes().to_vec(), written: Instant::from_millis(1_000) }
    }

    #[test]
    fn status_joins_what_is_written_and_what_is_read() {
        let text = r#"{"type":"server","pid":7,"state":"reloading","next_generation":3,"workers_wanted":2}
{"type":"event","serial":4,"event":"worker_ready"}
{"type":"worker","slot":1,"pid":9,"state":"serving","generation":2}
{"type":"worker","slot":0,"pid":8,"state":"serving","generation":3}
{"type":"worker","slot":0,"pid":6,"state":"draining","generation":2}
"#;
        let mut snapshot = Snapshot::default();
        let numbers =
            WorkerNumbers { connections: 0, in_flight: 5, memory: 4096, processor: 1_500_000 };
        snapshot.workers.insert(8, numbers);
        snapshot.duration.buckets[1] = Claim::new(3);
        let now = Instant::from_millis(1_250);
        let wall = SystemTime::UNIX_EPOCH;
        let found = json(&snapshot, &written(text), now, wall);
        assert_eq!(found["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(found["snapshot_age_seconds"], 0.25);
        assert_eq!(found["reload"], json!({ "generation": 3, "replaced": 1, "of": 2 }));
        assert_eq!(found["server"]["pid"], 7);
        let worker = &found["workers"][0];
        assert_eq!((&worker["pid"], &worker["requests_in_flight"]), (&json!(8), &json!(5)));
        assert_eq!((&worker["memory_bytes"], &worker["cpu_seconds"]), (&json!(4096), &json!(1.5)));
        assert_eq!(found["workers"][2]["memory_bytes"], Value::Null);
        assert_eq!(found["request_duration"]["counts"][1], 3);
        assert_eq!(
            found["events"],
            json!([{ "type": "event", "serial": 4, "event": "worker_ready" }])
        );
    }

    #[test]
    fn any_text_is_a_status() {
        for text in
            ["", "\n\n", "{", "[1]\n7\n\"x\"", "{\"type\":\"server\",\"pid\":\"x\"}", "\u{0}"]
        {
            let now = Instant::default();
            let wall = SystemTime::UNIX_EPOCH;
            let found = json(&Snapshot::default(), &written(text), now, wall);
            assert_eq!(found["server"]["pid"], 0, "{text}");
        }
    }
}
