//! Counters, sent to a StatsD server once a second, by gunicorn's names.
//!
//! gunicorn sends a datagram for each request. Here the difference of the counters is sent, so that a
//! request costs no system call. A lost datagram is not sent again: StatsD counts by estimate.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;

use super::events::StatsEvent;
use super::exposition::Seconds;
use super::snapshot::{Snapshot, Source};
use crate::config::Stats;
use crate::logging;
use crate::scoreboard::{BOUNDS_NANOS, BUCKETS, Distribution};

/// From one look at the counters to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a datagram that no network in use cuts (an Ethernet frame, less the headers).
const DATAGRAM_MAX: usize = 1432;

/// Sends the counters without end.
pub(super) async fn push(address: String, stats: Stats, source: std::sync::Arc<Source>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = source.snapshot().await;
    let mut has_failed = false;
    loop {
        ticks.tick().await;
        let now = source.snapshot().await;
        let lines = lines(&stats, &before, &now);
        let sent = send(&address, &lines).await;
        if let (Err(error), false) = (&sent, has_failed) {
            let reason = error.to_string();
            logging::emit(&StatsEvent::Unsent { address: address.clone(), reason });
        }
        has_failed = sent.is_err();
        if !has_failed {
            before = now;
        }
    }
}

/// Sends the lines, as many in a datagram as fit. The name is looked up each time: it may mean another
/// machine by now.
async fn send(address: &str, lines: &[String]) -> std::io::Result<()> {
    let mut found = tokio::net::lookup_host(address).await?;
    let to = found.next().ok_or(std::io::ErrorKind::NotFound)?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    for datagram in datagrams(lines) {
        socket.send(datagram.as_bytes()).await?;
    }
    Ok(())
}

fn datagrams(lines: &[String]) -> Vec<String> {
    let mut datagrams: Vec<String> = Vec::new();
    for line in lines {
        match datagrams.last_mut().filter(|last| last.len() + 1 + line.len() <= DATAGRAM_MAX) {
            Some(last) => {
                last.push('\n');
                last.push_str(line);
            }
            None => datagrams.push(line.clone()),
        }
    }
    datagrams
}

/// The difference between two snapshots.
fn lines(stats: &Stats, before: &Snapshot, now: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    let prefix = match stats.statsd_prefix.trim_end_matches('.') {
        "" => String::new(),
        prefix => format!("{prefix}."),
    };
    let tags = match stats.statsd_tags.as_slice() {
        [] => String::new(),
        tags => format!("|#{}", tags.join(",")),
    };
    let mut line = |name: &str, value: &str, kind: &str| {
        lines.push(format!("{prefix}gunicorn.{name}:{value}|{kind}{tags}"));
    };
    let mut all = 0_u64;
    for (code, count) in &now.requests {
        let known = before.requests.iter().find(|(other, _)| other == code);
        let more = count.saturating_sub(known.map_or(0, |(_, count)| *count));
        all = all.saturating_add(more);
        if more > 0 {
            line(&format!("request.status.{code}"), &more.to_string(), "c");
        }
    }
    if all > 0 {
        line("requests", &all.to_string(), "c");
    }
    for (millis, count) in timings(&before.duration, &now.duration) {
        line("request.duration", &millis, &format!("ms|@{}", Rate(count)));
    }
    let sum = |of: fn(&super::snapshot::SlotNumbers) -> u64| {
        now.slots.iter().fold(0_u64, |sum, own| sum.saturating_add(of(own))).to_string()
    };
    line("workers", &now.overview.wanted.to_string(), "g");
    line(
        "backlog",
        &now.queues.iter().map(|(_, length)| u64::from(*length)).sum::<u64>().to_string(),
        "g",
    );
    line("requests_in_flight", &sum(|own| own.in_flight), "g");
    line("connections", &sum(|own| own.connections), "g");
    lines
}

/// The durations that were counted in between: of each bucket its upper bound in milliseconds, and how
/// many.
fn timings(before: &Distribution, now: &Distribution) -> Vec<(String, u64)> {
    let last = BOUNDS_NANOS.len() - 1;
    (0..BUCKETS)
        .filter_map(|at| {
            let count = now.buckets[at].saturating_sub(before.buckets[at]).unchecked();
            let mut millis = String::new();
            let nanos = BOUNDS_NANOS[at.min(last)];
            write!(millis, "{}", Seconds(nanos.saturating_mul(1000))).ok()?;
            (count > 0).then_some((millis, count))
        })
        .collect()
}

/// The share of the requests that a line stands for, as StatsD has it: one of so many.
struct Rate(u64);

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = 1_000_000_000_u64.checked_div(self.0).unwrap_or(1_000_000_000).max(1);
        write!(f, "{}", Seconds(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Code;
    use crate::sys::shared::Claim;

    #[test]
    fn differences_are_sent_with_prefix_and_tags() {
        let ok = Code::of_answer(Some(axum::http::StatusCode::OK));
        let mut before = Snapshot { requests: vec![(ok, 5)], ..Snapshot::default() };
        before.duration.buckets[0] = Claim::new(5);
        let mut now =
            Snapshot { requests: vec![(ok, 9), (Code::ABORTED, 1)], ..Snapshot::default() };
        now.duration.buckets[0] = Claim::new(6);
        now.duration.buckets[12] = Claim::new(4);
        now.overview.wanted = 4;
        let stats = Stats {
            statsd_prefix: "shop.".to_owned(),
            statsd_tags: vec!["env:live".to_owned(), "a:b".to_owned()],
            ..Stats::default()
        };
        insta::assert_snapshot!(lines(&stats, &before, &now).join("\n"), @r"
        shop.gunicorn.request.status.200:4|c|#env:live,a:b
        shop.gunicorn.request.status.aborted:1|c|#env:live,a:b
        shop.gunicorn.requests:5|c|#env:live,a:b
        shop.gunicorn.request.duration:0.1|ms|@1.0|#env:live,a:b
        shop.gunicorn.request.duration:1000.0|ms|@0.25|#env:live,a:b
        shop.gunicorn.workers:4|g|#env:live,a:b
        shop.gunicorn.backlog:0|g|#env:live,a:b
        shop.gunicorn.requests_in_flight:0|g|#env:live,a:b
        shop.gunicorn.connections:0|g|#env:live,a:b
        ");
    }

    #[test]
    fn datagrams_are_as_long_as_a_frame_allows() {
        let lines: Vec<String> = (0..100).map(|number| format!("a.{number:045}:1|c")).collect();
        let datagrams = datagrams(&lines);
        assert!(datagrams.len() > 1);
        assert!(datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM_MAX));
        assert_eq!(datagrams.join("\n"), lines.join("\n"));
    }
}
