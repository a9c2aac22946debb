//! The application's own metrics: the series of all workers, summed by name and labels.
//!
//! Every worker writes its own list and may write anything into it. So names are held to the rules of the
//! format, a name has one kind, and there are so many series at most.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::exposition::{Exposition, Kind};
use crate::scoreboard::{Block, SeriesHistogram, SeriesKind, SeriesName, bounds, help_of};
use crate::sys::shared::Claim;

/// Series over all workers; of more, those that come later are left out.
const SERIES_MAX: usize = 10_000;
/// The description of a family without one.
const NO_HELP: &str = "A metric of the application.";

/// The metrics of the application.
#[derive(Debug, Default)]
pub(super) struct Application {
    families: BTreeMap<String, Family>,
    count: usize,
    help: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Family {
    kind: SeriesKind,
    series: BTreeMap<Vec<(String, String)>, Sum>,
}

/// The sum of a series over workers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum {
    /// Of a counter.
    count: Claim,
    /// Of a gauge.
    level: f64,
    /// Of a histogram.
    histogram: SeriesHistogram,
}

impl Application {
    /// Adds the series of a block; the gauges of a worker that is gone count for nothing.
    pub(super) fn add(&mut self, block: &Block, is_alive: bool) {
        for (key, place) in block.series() {
            if key.kind == SeriesKind::Help {
                if let Some((name, text)) = help_of(&key.bytes) {
                    self.help.entry(name.to_owned()).or_insert_with(|| text.to_owned());
                }
                continue;
            }
            let Some(name) = SeriesName::from_key(&key.bytes) else { continue };
            let Some(sum) = self.sum(name, key.kind) else { continue };
            match key.kind {
                SeriesKind::Counter => sum.count = sum.count.saturating_add(block.counter(place)),
                SeriesKind::Gauge if is_alive => sum.level += finite(block.gauge(place)),
                SeriesKind::Histogram => {
                    let own = block.series_histogram(place);
                    for (sum, own) in sum.histogram.buckets.iter_mut().zip(&own.buckets) {
                        *sum = sum.saturating_add(*own);
                    }
                    sum.histogram.sum += finite(own.sum);
                }
                SeriesKind::Gauge | SeriesKind::Help => {}
            }
        }
    }

    /// The sum of a series; `None` where its name has another kind, or there are too many.
    fn sum(&mut self, name: SeriesName, kind: SeriesKind) -> Option<&mut Sum> {
        let is_full = self.count >= SERIES_MAX;
        if is_full && !self.families.contains_key(&name.name) {
            return None;
        }
        let new = || Family { kind, series: BTreeMap::new() };
        let family = self.families.entry(name.name).or_insert_with(new);
        if family.kind != kind || is_full && !family.series.contains_key(&name.labels) {
            return None;
        }
        let sum = family.series.entry(name.labels).or_insert_with(|| {
            self.count += 1;
            Sum::default()
        });
        Some(sum)
    }

    /// Writes every family.
    pub(super) fn write(&self, text: &mut Exposition) {
        for (name, family) in &self.families {
            if self.is_part_of_another(name) {
                continue;
            }
            let help = self.help.get(name).map_or(NO_HELP, String::as_str);
            let kind = match family.kind {
                SeriesKind::Counter => Kind::Counter,
                SeriesKind::Histogram => Kind::Histogram,
                SeriesKind::Gauge | SeriesKind::Help => Kind::Gauge,
            };
            text.family(name, kind, help);
            for (labels, sum) in &family.series {
                let labels: Vec<(&str, &dyn Display)> = labels
                    .iter()
                    .map(|(name, value)| (name.as_str(), value as &dyn Display))
                    .collect();
                match kind {
                    Kind::Counter => text.sample("_total", &labels, sum.count),
                    Kind::Gauge => text.sample("", &labels, sum.level),
                    Kind::Histogram => {
                        let SeriesHistogram { buckets, sum } = &sum.histogram;
                        // As OpenMetrics has numbers: with a point.
                        let bounds = bounds(name).map(|bound| format!("{bound:?}"));
                        text.buckets(&labels, bounds, buckets, sum);
                    }
                }
            }
        }
    }

    /// Returns true if the samples of another family have this name: the text would contradict itself.
    fn is_part_of_another(&self, name: &str) -> bool {
        let with = |suffix, kind| {
            let family = name.strip_suffix(suffix).and_then(|name| self.families.get(name));
            family.is_some_and(|family| family.kind == kind)
        };
        ["_bucket", "_sum", "_count"].into_iter().any(|ending| with(ending, SeriesKind::Histogram))
            || with("_total", SeriesKind::Counter)
    }
}

/// The number, or zero for one that would spoil every sum.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::{MetricsMemory, SeriesKey, WorkerMetrics};
    use crate::stats::exposition::Format;

    fn add(block: &Block, kind: SeriesKind, key: &[u8]) -> crate::scoreboard::SeriesPlace {
        block.add_series(&SeriesKey { kind, bytes: key.to_vec() }).expect("there is room")
    }

    fn text(application: &Application, format: Format) -> String {
        let mut text = Exposition::new(format);
        application.write(&mut text);
        text.finish()
    }

    #[test]
    fn series_are_summed_over_workers_by_name_and_labels() {
        let memory = MetricsMemory::new().unwrap();
        let mut application = Application::default();
        for (place, is_alive) in [(1, true), (2, true), (3, false)] {
            let worker = WorkerMetrics::new(memory.of_place(place).unwrap(), 7);
            let block = worker.block();
            block.raise_counter(add(block, SeriesKind::Counter, b"jobs\xffkind\xffa\"b"), 2);
            block.set_gauge(add(block, SeriesKind::Gauge, b"open"), 1.5);
            let waits = add(block, SeriesKind::Histogram, b"wait_seconds");
            block.observe_number(waits, &bounds("wait_seconds"), 0.3, 1);
            add(block, SeriesKind::Help, b"jobs\xffJobs, by kind.");
            application.add(block, is_alive);
        }
        let plain = text(&application, Format::Prometheus);
        assert!(plain.starts_with(
            "# HELP jobs_total Jobs, by kind.\n# TYPE jobs_total counter\njobs_total{kind=\"a\\\"b\"} 6\n\
             # HELP open A metric of the application.\n# TYPE open gauge\nopen 3\n"
        ), "{plain}");
        let waits = "wait_seconds_bucket{le=\"0.25\"} 0\nwait_seconds_bucket{le=\"0.5\"} 3\n";
        assert!(plain.contains(waits), "{plain}");
        assert!(plain.contains("wait_seconds_count 3\n"), "{plain}");
        let open = text(&application, Format::OpenMetrics);
        assert!(open.contains("# TYPE jobs counter\njobs_total{"), "{open}");
    }

    /// A worker writes anything into its own list.
    #[test]
    fn list_of_a_hostile_worker_spoils_no_other_name() {
        let memory = MetricsMemory::new().unwrap();
        let mut application = Application::default();
        let good = WorkerMetrics::new(memory.of_place(1).unwrap(), 7);
        good.block().raise_counter(add(good.block(), SeriesKind::Counter, b"jobs"), 2);
        add(good.block(), SeriesKind::Histogram, b"wait");
        good.block().set_gauge(add(good.block(), SeriesKind::Gauge, b"open"), 2.0);
        application.add(good.block(), true);
        let bad = WorkerMetrics::new(memory.of_place(2).unwrap(), 8);
        let keys: [&[u8]; 9] = [
            b"ferricorn_workers\xffstate\xffserving",
            b"",
            b"a b",
            b"a\n# EOF",
            b"a\xffle",
            b"a\xffle\xff1",
            b"a\xffb\xffx\xffb\xffy",
            b"\xff\xff\xff",
            b"caf\xc3\xa9",
        ];
        for key in keys {
            add(bad.block(), SeriesKind::Gauge, key);
        }
        for name in [b"jobs".as_slice(), b"jobs_total", b"wait_count", b"wait_bucket"] {
            bad.block().set_gauge(add(bad.block(), SeriesKind::Gauge, name), 9.0);
        }
        let spoiled = add(bad.block(), SeriesKind::Gauge, b"open");
        bad.block().set_gauge(spoiled, f64::NAN);
        application.add(bad.block(), true);
        let lines = text(&application, Format::Prometheus);
        let names = lines
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(['{', ' ']).next().unwrap_or(""));
        let mut names: Vec<&str> = names.collect();
        names.dedup();
        assert_eq!(
            names,
            ["jobs_total", "open", "wait_bucket", "wait_sum", "wait_count"],
            "{lines}"
        );
        assert!(lines.contains("\njobs_total 2\n") && lines.contains("\nopen 2\n"), "{lines}");
    }

    #[test]
    fn series_over_all_workers_are_bounded() {
        let memory = MetricsMemory::new().unwrap();
        let mut application = Application::default();
        for place in 1..=8 {
            let worker = WorkerMetrics::new(memory.of_place(place).unwrap(), 7);
            for at in 0..1_500 {
                let name = format!("c{}", place * 10_000 + at);
                worker
                    .block()
                    .raise_counter(add(worker.block(), SeriesKind::Counter, name.as_bytes()), 1);
            }
            application.add(worker.block(), true);
        }
        assert_eq!(application.families.len(), SERIES_MAX);
    }
}
