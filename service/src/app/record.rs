//! The rows: what is stored, and what a page of them is.

use jiff::Timestamp;
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::{Serialize, Serializer};

/// The text of a new row: ten random alphanumeric characters. Not a `String`: it is copied into the
/// batch that stores it and into the answer, and neither needs memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Data([u8; Self::LENGTH]);

impl Data {
    /// Characters in it.
    pub(crate) const LENGTH: usize = 10;

    /// A new one, from this thread's generator (which ferricorn reseeds after each fork: without
    /// that, all workers would give the same ones).
    pub(crate) fn random() -> Self {
        let mut random = rand::rng();
        Self(std::array::from_fn(|_| random.sample(Alphanumeric)))
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("alphanumeric characters are ASCII")
    }
}

/// A stored row.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Record {
    /// Grows with every row.
    pub(crate) id: i64,
    /// Its text.
    pub(crate) data: String,
    /// When it was stored: milliseconds since 1970, UTC.
    #[serde(rename = "created_at", serialize_with = "rfc3339")]
    pub(crate) created_at_ms: i64,
}

/// As people and programs read a time: `2024-03-21T10:26:38.123Z`.
fn rfc3339<S: Serializer>(created_at_ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let created_at = Timestamp::from_millisecond(*created_at_ms).unwrap_or_default();
    serializer.collect_str(&format_args!("{created_at:.3}"))
}

/// Some rows, newest first.
#[derive(Debug)]
pub(crate) struct Page {
    /// At most as many as were asked for.
    pub(crate) records: Vec<Record>,
    /// The presence of older ones.
    pub(crate) more: More,
    /// All rows there are; `None`: more than [`COUNTED_MAX`], or more than are soon counted.
    pub(crate) total: Option<i64>,
}

/// The position of a page: the last one, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    /// There are older rows.
    Older,
    /// It is the last page.
    None,
}

/// Rows that are counted for a page. PostgreSQL and InnoDB count by reading: beyond this the count
/// would cost more than the page is worth.
pub(crate) const COUNTED_MAX: i64 = 100_000;

/// A row as a database gives it: its id, its text, and when it was stored, in milliseconds.
pub(crate) type Row = (i64, String, i64);

/// Which rows a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Only rows with a lower id.
    pub(crate) before: i64,
    /// Rows at most.
    pub(crate) limit: u8,
}

impl Page {
    /// From one row more than was asked for, which says whether there are older ones.
    pub(crate) fn new(mut rows: Vec<Row>, span: Span, counted: Option<i64>) -> Self {
        let limit = usize::from(span.limit);
        let more = if rows.len() > limit { More::Older } else { More::None };
        rows.truncate(limit);
        let records = rows
            .into_iter()
            .map(|(id, data, created_at_ms)| Record { id, data, created_at_ms })
            .collect();
        let total = counted.filter(|counted| *counted <= COUNTED_MAX);
        Self { records, more, total }
    }
}
