//! The answer to `status`, as JSON and as text for people: 80 columns.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::control::{plain, word};
use crate::control::{RequestRow, ServerRow, Status, WorkerRow};

/// The status as one object.
pub(super) fn json(status: &Status) -> String {
    format!("{}\n", json!(status))
}

/// The status in lines for people.
pub(super) fn text(status: &Status) -> String {
    let mut text = head(&status.server);
    text.push_str(TABLE);
    for worker in &status.workers {
        text.push_str(&row(worker));
    }
    if !status.requests.is_empty() {
        text.push_str("\nREQUESTS IN HAND\n");
    }
    for request in &status.requests {
        text.push_str(&request_line(request));
    }
    text
}

/// The lines about the server as a whole.
pub(super) fn head(server: &ServerRow) -> String {
    let next = server.next_generation.map(|next| format!(" -> {next}")).unwrap_or_default();
    let mut text = format!(
        "{} {}, pid {}: {}, generation {}{next}, up {}\n{} of {} workers serve; {} requests \
         answered\nlistening at {}\n",
        server.program,
        server.version,
        server.pid,
        server.state,
        server.generation,
        span(server.uptime_seconds),
        server.workers_serving,
        server.workers_wanted,
        server.requests_total,
        addresses(server),
    );
    if let Some(event) = &server.last_reload {
        writeln!(text, "{} {}", word(event, "time"), word(event, "message"))
            .expect("a string takes it");
    }
    plain(&text)
}

/// The addresses, each behind its name in `bind`.
fn addresses(server: &ServerRow) -> String {
    let label = |address: &String| {
        let mut named = server.named.iter();
        match named.find(|(_, addresses)| addresses.contains(address)) {
            Some((name, _)) => format!("{name}={address}"),
            None => address.clone(),
        }
    };
    server.addresses.iter().map(label).collect::<Vec<_>>().join(", ")
}

/// The heading of [`row`].
pub(super) const TABLE: &str =
    "\nSLOT     PID STATE     GEN    AGE  REQUESTS  CONNS  BUSY QUEUE  MEMORY     CPU\n";

/// A worker in one line, and its slot's last end in another where that was not in order.
pub(super) fn row(worker: &WorkerRow) -> String {
    let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let memory = worker.memory_bytes.map_or_else(|| "-".to_owned(), bytes);
    let cpu = worker.cpu_seconds.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1} s"));
    let mut line = format!(
        "{:>4} {pid:>7} {:<9} {:>3} {:>6} {:>9} {:>6} {:>5} {:>5} {memory:>7} {cpu:>7}\n",
        worker.slot,
        worker.state,
        worker.generation,
        span(worker.age_seconds),
        worker.slot_requests_total,
        worker.connections,
        worker.requests_in_flight,
        worker.queue_length,
    );
    if let Some(status) = &worker.status {
        writeln!(line, "     {status}").expect("a string takes it");
    }
    let end = worker.last_end.as_ref();
    let is_bad = |end: &&Value| end["fields"]["ending"] != "stopped";
    if let Some(end) = end.filter(is_bad) {
        writeln!(line, "     {} {}", word(end, "time"), word(end, "message"))
            .expect("a string takes it");
    }
    plain(&line)
}

/// A request in hand in one line.
pub(super) fn request_line(request: &RequestRow) -> String {
    let RequestRow { slot, remote, method, target, age_seconds, running, .. } = request;
    let remote = remote.as_deref().unwrap_or("-");
    let running = if *running { "running" } else { "waiting" };
    plain(&format!("{slot:>4} {age_seconds:>8.1} s {running} {remote:<15} {method} {target}\n"))
}

/// A length of time in at most six characters.
fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min", whole / 60),
        3600..172_800 => format!("{} h", whole / 3600),
        _ => format!("{} d", whole / 86_400),
    }
}

/// A size in mebibytes or gibibytes.
fn bytes(bytes: u64) -> String {
    match bytes >> 20 {
        mebibytes @ 0..10_000 => format!("{mebibytes} M"),
        mebibytes => format!("{} G", mebibytes >> 10),
    }
}
