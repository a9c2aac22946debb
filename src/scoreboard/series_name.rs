//! The names and labels of an application's series, as Prometheus has them: what a worker writes is made
//! valid, and what is read is held to the same rules.

use super::histogram::BOUNDS_NANOS;
use super::series::BOUNDS;

/// Between the parts of a key: no byte of UTF-8.
const BETWEEN: u8 = 0xff;
/// Bytes of a name, and labels of a series.
const NAME_MAX: usize = 200;
const LABELS_MAX: usize = 16;

/// A name with its labels, sorted by their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeriesName {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
}

impl SeriesName {
    /// The name by which a series with these words is served; `None` where it has no valid one. Letters
    /// that Prometheus does not know become `_`.
    pub(crate) fn new<'a>(
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Option<Self> {
        let labels = labels.map(|(name, value)| (valid(name, ""), value.to_owned()));
        let mut labels: Vec<(String, String)> = labels.collect();
        labels.sort();
        let found = Self { name: valid(name, ":"), labels };
        found.is_valid().then_some(found)
    }

    /// Its key in a block.
    pub(crate) fn key(&self) -> Vec<u8> {
        let labels = self.labels.iter().flat_map(|(name, value)| [name, value]);
        let parts: Vec<&[u8]> =
            [&self.name].into_iter().chain(labels).map(String::as_bytes).collect();
        parts.join(&BETWEEN)
    }

    /// The name of a key; `None` where it is none.
    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        let parts: Result<Vec<&str>, _> =
            key.split(|byte| *byte == BETWEEN).map(std::str::from_utf8).collect();
        let parts = parts.ok()?;
        let (name, labels) = parts.split_first()?;
        let pairs = labels.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return None;
        }
        let labels = pairs.map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect();
        let found = Self { name: (*name).to_owned(), labels };
        found.is_valid().then_some(found)
    }

    fn is_valid(&self) -> bool {
        let names = self.labels.iter().map(|(name, _)| name.as_str());
        let are_distinct = self.labels.is_sorted_by(|one, other| one.0 < other.0);
        is_metric_name(&self.name)
            && are_distinct
            && self.labels.len() <= LABELS_MAX
            && names
                .into_iter()
                .all(|name| is_word(name, "") && !name.starts_with("__") && name != "le")
    }
}

/// The key of a name's description.
pub(crate) fn help_key(name: &str, text: &str) -> Option<Vec<u8>> {
    let name = valid(name, ":");
    is_metric_name(&name).then(|| [name.as_bytes(), text.as_bytes()].join(&BETWEEN))
}

/// The name and the description of such a key.
pub(crate) fn help_of(key: &[u8]) -> Option<(&str, &str)> {
    let at = key.iter().position(|byte| *byte == BETWEEN)?;
    let name = std::str::from_utf8(&key[..at]).ok()?;
    Some((name, std::str::from_utf8(&key[at + 1..]).ok()?))
}

/// The upper bounds of the buckets of a histogram with this name: bytes by its last word, else seconds.
pub(crate) fn bounds(name: &str) -> [f64; BOUNDS] {
    std::array::from_fn(|at| match name.ends_with("_bytes") {
        true => (1_u64 << (6 + 2 * at)) as f64,
        false => BOUNDS_NANOS[at] as f64 / 1e9,
    })
}

/// ferricorn's own names are not the application's.
fn is_metric_name(name: &str) -> bool {
    is_word(name, ":") && name.len() <= NAME_MAX && !name.starts_with("ferricorn_")
}

fn is_word(text: &str, besides: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|letter: char| letter.is_ascii_digit())
        && text == valid(text, besides)
}

/// The text with `_` for each letter that is no ASCII letter, digit, `_`, or one of these.
fn valid(text: &str, besides: &str) -> String {
    let is_valid = |letter: char| letter.is_ascii_alphanumeric() || besides.contains(letter);
    text.chars().map(|letter| if is_valid(letter) { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: &str, labels: &[(&str, &str)]) -> Option<SeriesName> {
        SeriesName::new(name, labels.iter().copied())
    }

    #[test]
    fn name_is_made_valid_and_its_key_is_read_again() {
        let found = name("shop.orders", &[("to-day", "a\"b\n"), ("kind", "")]).unwrap();
        assert_eq!(found.name, "shop_orders");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found.labels, [pair("kind", ""), pair("to_day", "a\"b\n")]);
        assert_eq!(SeriesName::from_key(&found.key()), Some(found));
    }

    #[test]
    fn names_that_would_break_the_text_are_refused() {
        for (wrong, labels) in [
            ("", &[][..]),
            ("7up", &[]),
            ("ferricorn_requests", &[]),
            ("a", &[("", "x")]),
            ("a", &[("le", "x")]),
            ("a", &[("__name__", "x")]),
            ("a", &[("b.c", "x"), ("b-c", "y")]),
            (&"a".repeat(201), &[]),
        ] {
            assert_eq!(name(wrong, labels), None, "{wrong} {labels:?}");
        }
        let many: Vec<String> = (0..17).map(|at| format!("l{at}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(name("a", &many), None);
    }

    #[test]
    fn bounds_are_seconds_or_bytes_and_rise() {
        assert!(bounds("a_seconds").is_sorted() && bounds("a_bytes").is_sorted());
        assert_eq!((bounds("a")[0], bounds("a")[18]), (0.0001, 120.0));
        assert_eq!((bounds("a_bytes")[0], bounds("a_bytes")[18]), (64.0, (1_u64 << 42) as f64));
    }

    proptest! {
        #[test]
        fn what_is_read_is_valid(key in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _any = help_of(&key);
            if let Some(found) = SeriesName::from_key(&key) {
                prop_assert_eq!(found.key(), key);
            }
        }
    }
}
