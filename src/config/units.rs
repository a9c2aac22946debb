//! Durations and sizes as people write them. What is shown can be read back, and means the same.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

/// Binary units, the largest first: what a size is shown in, when it is a whole number of them.
const UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads `30`, `0.5` (seconds), `30s`, `2m`, `1h 30m`, `500ms`; `None` when it is none of these.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let bare = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let signed: SignedDuration =
        if bare { format!("{text}s").parse().ok()? } else { text.parse().ok()? };
    Duration::try_from(signed).ok()
}

/// Seconds when they are whole, else with units.
pub(super) fn show_duration(duration: Duration) -> String {
    match SignedDuration::try_from(duration) {
        Ok(signed) if duration.subsec_nanos() != 0 => format!("{signed:#}"),
        Ok(_) | Err(_) => duration.as_secs().to_string(),
    }
}

/// Reads `8192`, `8KiB`, `1MB`, `1.5 GiB`; `None` when it is none of these.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// In the largest unit that it is a whole number of.
pub(super) fn show_size(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// Reads a `std::time::Duration` in [`Config::section`](super::Config::section), where durations
/// arrive as seconds: `#[serde(with = "ferricorn::seconds")]`.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// From seconds, which may have a fraction.
    ///
    /// # Errors
    /// When they are negative, not a number, or too many.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(de::Error::custom)
    }

    /// To seconds with a fraction.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let read = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(read("30"), Some(30_000));
        assert_eq!(read("0.5"), Some(500));
        assert_eq!(read("30s"), Some(30_000));
        assert_eq!(read("2m"), Some(120_000));
        assert_eq!(read("1h"), Some(3_600_000));
        assert_eq!(read(" 1h 30m "), Some(5_400_000));
        assert_eq!(read("500ms"), Some(500));
        for wrong in ["", ".", "-1", "-1s", "1s ago", "soon", "1 fortnight", "1.2.3", "9e9"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size("8KiB"), Some(8192));
        assert_eq!(parse_size("1MB"), Some(1_000_000));
        assert_eq!(parse_size("1.5 GiB"), Some(1_610_612_736));
        for wrong in ["", "KiB", "-1", "1XB", "1.2.3MB"] {
            assert_eq!(parse_size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_whole_unit() {
        let shown = [0, 1, 1023, 1024, 1536, 1 << 20, 3 << 30, 1 << 40].map(show_size);
        assert_eq!(shown, ["0", "1", "1023", "1KiB", "1536", "1MiB", "3GiB", "1TiB"]);
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(nanos in 0..u64::from(u32::MAX) * 1_000_000_000) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn a_shown_size_reads_back(bytes: u64, shift in 0_u32..60) {
            let bytes = bytes >> shift << (shift / 2);
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_is_too_odd(text: String) {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
