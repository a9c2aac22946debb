//! The two text formats of metrics: Prometheus 0.0.4 and OpenMetrics 1.0.0.
//!
//! They differ in little: OpenMetrics names a counter's family without `_total`, has units, and an end.

use std::fmt::{Display, Write as _};

use crate::scoreboard::{BOUNDS, BOUNDS_NANOS, Distribution};
use crate::sys::shared::Claim;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// The format that a client with this `Accept` prefers: OpenMetrics where it is named, and not less
    /// wanted than plain text.
    pub(super) fn of_accept(accept: &str) -> Self {
        let quality = |kind: &str| {
            accept.split(',').find_map(|part| {
                let mut words = part.split(';').map(str::trim);
                let is_it = words.next()?.eq_ignore_ascii_case(kind);
                let quality = words.find_map(|word| word.strip_prefix("q=")).unwrap_or("1");
                is_it.then(|| quality.trim().parse::<f32>().unwrap_or(0.0))
            })
        };
        match quality("application/openmetrics-text") {
            Some(open) if open > 0.0 && quality("text/plain").is_none_or(|text| open >= text) => {
                Self::OpenMetrics
            }
            Some(_) | None => Self::Prometheus,
        }
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The kind of a family's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A text of metrics that is being written.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    format: Format,
    /// The family that is being written, without `_total`.
    family: String,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { text: String::with_capacity(16 * 1024), format, family: String::new() }
    }

    /// Begins a family. The name of a counter has no `_total` here.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        name.clone_into(&mut self.family);
        let suffix = match (self.format, kind) {
            (Format::Prometheus, Kind::Counter) => "_total",
            _ => "",
        };
        let word = kind.word();
        self.put(format_args!("# HELP {name}{suffix} {}\n", Escaped(help)));
        self.put(format_args!("# TYPE {name}{suffix} {word}\n"));
        let unit = ["seconds", "bytes"]
            .into_iter()
            .find(|unit| name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, unit) {
            self.put(format_args!("# UNIT {name} {unit}\n"));
        }
    }

    /// A number of the family.
    pub(super) fn sample(
        &mut self,
        suffix: &str,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) {
        let family = std::mem::take(&mut self.family);
        self.put(format_args!("{family}{suffix}"));
        for (at, (name, value)) in labels.iter().enumerate() {
            let before = if at == 0 { "{" } else { "," };
            self.put(format_args!("{before}{name}=\"{}\"", Escaped(&value.to_string())));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{end} {value}\n"));
        self.family = family;
    }

    /// A histogram of the family: its buckets, sum and count.
    pub(super) fn histogram(
        &mut self,
        labels: &[(&str, &dyn Display)],
        distribution: &Distribution,
    ) {
        let bounds = BOUNDS_NANOS.map(|nanos| Seconds(nanos).to_string());
        let sum = Seconds(distribution.sum.unchecked());
        self.buckets(labels, bounds, &distribution.buckets, sum);
    }

    /// A histogram of the family with these upper bounds: one bucket more, each without those below.
    pub(super) fn buckets(
        &mut self,
        labels: &[(&str, &dyn Display)],
        bounds: [String; BOUNDS],
        buckets: &[Claim],
        sum: impl Display,
    ) {
        let mut below = Claim::default();
        for (bound, bucket) in bounds.into_iter().chain(["+Inf".to_owned()]).zip(buckets) {
            below = below.saturating_add(*bucket);
            let with_bound = [labels, &[("le", &bound as &dyn Display)]].concat();
            self.sample("_bucket", &with_bound, below);
        }
        self.sample("_sum", labels, sum);
        self.sample("_count", labels, below);
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a string takes every text");
    }
}

/// Nanoseconds as seconds, exactly, with a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = self.0 / 1_000_000_000;
        let nanos = self.0 % 1_000_000_000;
        let fraction = format!("{nanos:09}");
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{whole}.{}", if fraction.is_empty() { "0" } else { fraction })
    }
}

/// A text inside quotes, or behind `# HELP`.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                _ => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_follows_what_the_client_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,\
                          text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text;q=0.1, text/plain;q=0.9", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("text/html, Application/OpenMetrics-Text", Format::OpenMetrics),
        ] {
            assert_eq!(Format::of_accept(accept), format, "{accept}");
        }
    }

    #[test]
    fn texts_of_both_formats_are_as_specified() {
        let text = |format| {
            let mut text = Exposition::new(format);
            text.family("a_requests", Kind::Counter, "Requests.");
            text.sample("_total", &[("code", &200), ("path", &"a\"b\\c\nd")], 7);
            text.family("a_wait_seconds", Kind::Histogram, "Waits.");
            let mut waits = Distribution::default();
            waits.buckets[1] = Claim::new(2);
            waits.buckets[19] = Claim::new(1);
            waits.sum = Claim::new(121_000_400_000);
            text.histogram(&[], &waits);
            text.finish()
        };
        let plain = text(Format::Prometheus);
        assert!(
            plain.starts_with(
                "# HELP a_requests_total Requests.\n# TYPE a_requests_total counter\n\
             a_requests_total{code=\"200\",path=\"a\\\"b\\\\c\\nd\"} 7\n\
             # HELP a_wait_seconds Waits.\n# TYPE a_wait_seconds histogram\n\
             a_wait_seconds_bucket{le=\"0.0001\"} 0\n\
             a_wait_seconds_bucket{le=\"0.00025\"} 2\n"
            ),
            "{plain}"
        );
        assert!(
            plain.ends_with(
                "a_wait_seconds_bucket{le=\"120.0\"} 2\na_wait_seconds_bucket{le=\"+Inf\"} 3\n\
             a_wait_seconds_sum 121.0004\na_wait_seconds_count 3\n"
            ),
            "{plain}"
        );
        let open = text(Format::OpenMetrics);
        assert!(open.starts_with("# HELP a_requests Requests.\n# TYPE a_requests counter\n"));
        assert!(open.contains("\n# UNIT a_wait_seconds seconds\n"), "{open}");
        assert!(open.ends_with("\n# EOF\n"), "{open}");
    }
}
