//! The families of ferricorn's own metrics: names, kinds and one sentence each.

use std::fmt::Display;

use super::Certificate;
use super::application::Application;
use super::exposition::{Exposition, Format, Kind, Seconds};
use super::snapshot::Snapshot;

/// The text of a snapshot.
pub(super) fn text(snapshot: &Snapshot, application: &Application, format: Format) -> String {
    let mut text = Exposition::new(format);
    requests(&mut text, snapshot);
    workers(&mut text, snapshot);
    slots(&mut text, snapshot);
    others(&mut text, snapshot);
    application.write(&mut text);
    text.finish()
}

fn requests(text: &mut Exposition, snapshot: &Snapshot) {
    let help = "Requests that have ended, by status; aborted: no whole answer was sent.";
    text.family("ferricorn_requests", Kind::Counter, help);
    for (code, count) in &snapshot.requests {
        text.sample("_total", &[("code", code)], count);
    }
    let help = "From the head of a request to the last byte of its answer.";
    text.family("ferricorn_request_duration_seconds", Kind::Histogram, help);
    text.histogram(&[], &snapshot.duration);
    let help =
        "How long a new connection, or its first bytes, waited in the kernel to be accepted.";
    text.family("ferricorn_queue_wait_seconds", Kind::Histogram, help);
    text.histogram(&[], &snapshot.queue_wait);
    let help = "By how much timers of the workers' event loops were late.";
    text.family("ferricorn_event_loop_lag_seconds", Kind::Histogram, help);
    text.histogram(&[], &snapshot.loop_lag);
}

fn workers(text: &mut Exposition, snapshot: &Snapshot) {
    words(text, "ferricorn_workers", Kind::Gauge, "state", "Workers.", &snapshot.states);
    let help = "Workers that have ended.";
    words(text, "ferricorn_worker_ends", Kind::Counter, "cause", help, &snapshot.ends);
    let help = "Reloads that have ended.";
    words(text, "ferricorn_reloads", Kind::Counter, "result", help, &snapshot.reloads);
}

/// A family with a number for each word.
fn words(
    text: &mut Exposition,
    name: &str,
    kind: Kind,
    label: &str,
    help: &str,
    numbers: &[(&'static str, u64)],
) {
    text.family(name, kind, help);
    let suffix = if kind == Kind::Counter { "_total" } else { "" };
    for (word, number) in numbers {
        text.sample(suffix, &[(label, word)], number);
    }
}

fn slots(text: &mut Exposition, snapshot: &Snapshot) {
    let mut of_slots = |name, kind, help, number: &dyn Fn(usize) -> Box<dyn Display>| {
        text.family(name, kind, help);
        let suffix = if kind == Kind::Counter { "_total" } else { "" };
        for (at, own) in snapshot.slots.iter().enumerate() {
            text.sample(suffix, &[("slot", &own.slot)], number(at));
        }
    };
    let own = |at: usize| &snapshot.slots[at];
    of_slots(
        "ferricorn_requests_in_flight",
        Kind::Gauge,
        "Requests whose head was read and whose answer is not yet sent.",
        &|at| Box::new(own(at).in_flight),
    );
    of_slots("ferricorn_connections", Kind::Gauge, "Connections open.", &|at| {
        Box::new(own(at).connections)
    });
    of_slots("ferricorn_worker_memory_bytes", Kind::Gauge, "Resident memory.", &|at| {
        Box::new(own(at).memory)
    });
    of_slots("ferricorn_worker_cpu_seconds", Kind::Counter, "Processor time.", &|at| {
        Box::new(Seconds(own(at).processor.saturating_mul(1000)))
    });
}

fn others(text: &mut Exposition, snapshot: &Snapshot) {
    let help = "Connections that wait to be accepted.";
    text.family("ferricorn_listen_queue_length", Kind::Gauge, help);
    for (address, length) in &snapshot.queues {
        text.sample("", &[("address", address)], length);
    }
    let help = "Lines that a log has lost because nothing read it.";
    let dropped = &snapshot.lines_dropped;
    words(text, "ferricorn_log_lines_dropped", Kind::Counter, "log", help, dropped);
    let help = "TLS handshakes that have ended.";
    let handshakes = &snapshot.handshakes;
    words(text, "ferricorn_tls_handshakes", Kind::Counter, "result", help, handshakes);
    if !snapshot.certificates.is_empty() {
        let help = "The end of a certificate, in seconds since the epoch.";
        text.family("ferricorn_tls_certificate_expiry_timestamp_seconds", Kind::Gauge, help);
    }
    for Certificate { name, end } in &snapshot.certificates {
        text.sample("", &[("name", name)], end);
    }
    let help = "How often a metric of the application was refused: no room, or no valid name.";
    text.family("ferricorn_series_refused", Kind::Counter, help);
    text.sample("_total", &[], snapshot.refused_series);
    text.family("ferricorn_build_info", Kind::Gauge, "Always 1.");
    text.sample("", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
}
