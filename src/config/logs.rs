//! The types of the tables `[log]`, `[limits]`, `[health]` and `[stats]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fields::fields;
use super::from_value::{choice, from_value};
use super::skip::Skip;

fields! {
    /// The `[log]` table.
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Log in "log." {
        /// Where access lines go.
        pub access: LogTarget,
        /// Where error lines go.
        pub error: LogTarget,
        /// The least severe level that is written.
        pub level: Level,
        /// The access log's format: gunicorn's atoms, or `json`.
        pub access_format: String,
        /// Requests that leave no access line.
        pub skip: Vec<Skip>,
        /// A request that takes longer is logged with its phases; `None`: none is.
        pub slow: Option<Duration>,
        /// The shape of the error log.
        pub format: LogFormat,
        /// The fate of access lines while nothing reads them.
        pub when_full: WhenFull,
    }
}

/// Where a log goes: `-` is stdout, empty is nowhere, else a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

from_value! {
    LogTarget, Self::Off, |value| Some(match value.text()? {
        "" => Self::Off,
        "-" => Self::Stdout,
        path => Self::File(PathBuf::from(path)),
    });
}

choice! {
    /// Severities of the error log, with gunicorn's names; the least severe first.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    #[expect(missing_docs, reason = "the names say it")]
    pub enum Level {
        Debug = "debug",
        Info = "info",
        Warning = "warning",
        Error = "error",
        Critical = "critical",
    }
}

choice! {
    /// The shape of the error log's lines.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum LogFormat {
        /// `[time] [pid] [LEVEL] message`, as gunicorn writes it.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// The fate of access lines while the log's buffer is full.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum WhenFull {
        /// They are dropped, counted, and accounted for in a line of their own.
        Drop = "drop",
        /// The request waits.
        Block = "block",
    }
}

fields! {
    /// The `[stats]` table.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Stats in "stats." {
        /// Address that serves the metrics and the status page; `None`: none.
        pub bind: Option<SocketAddr>,
        /// StatsD server, host and port; `None`: none.
        pub statsd: Option<String>,
        /// The prefix of the names that it is sent.
        pub statsd_prefix: String,
        /// Tags that it is sent with each number.
        pub statsd_tags: Vec<String>,
    }
}

impl Stats {
    /// Returns true if anything wants the numbers.
    pub(crate) fn is_on(&self) -> bool {
        self.bind.is_some() || self.statsd.is_some()
    }
}

fields! {
    /// The `[limits]` table.
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Limits in "limits." {
        /// Bytes of a request line; longer ones are answered 414. 0: no limit of its own.
        pub request_line: usize,
        /// Header fields of a request; more are answered 431.
        pub request_fields: usize,
        /// Bytes of one header field; longer ones are answered 431. 0: no limit of its own.
        pub request_field_size: usize,
        /// Bytes of a request body; longer ones are answered 413. 0: no limit.
        pub body: u64,
        /// The time that the head of a request may take: then 408 and closed.
        pub header_timeout: Duration,
        /// The time for which a request body may stand still: then 408 and closed.
        pub body_timeout: Duration,
    }
}

fields! {
    /// The `[health]` table: paths that ferricorn answers itself, before the application's routes.
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Health in "health." {
        /// Path of the liveness probe; empty: none.
        pub live: String,
        /// Path of the readiness probe; empty: none.
        pub ready: String,
    }
}
