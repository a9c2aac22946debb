//! Dates as log lines write them, each second worked out once.
//!
//! The dates are in the local zone, as gunicorn's are: `TZ` is obeyed (a name, a POSIX rule or a
//! file), then `/etc/localtime`; a container without either writes UTC. `jiff` reads the zone files
//! of the system and carries none of its own, so it costs no more than its formatting.
//!
//! The trap: requests of neighbouring seconds end in any order, so one remembered second would be
//! thrown away by every second line at the turn of each. Four are kept.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Seconds that are remembered: a power of two, more than requests usually take.
const REMEMBERED: usize = 4;

/// Dates in one time zone.
#[derive(Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    seconds: [Second; REMEMBERED],
}

/// One second in the shapes that lines need.
#[derive(Debug)]
pub(super) struct Second {
    /// Seconds since 1970; `None` before its first use.
    unix: Option<i64>,
    /// `[21/Mar/2024:10:26:38 +0000]`, as the common log format and `%(t)s` have it.
    pub(super) common: String,
    /// `2024-03-21T10:26:38`
    pub(super) date_time: String,
    /// `+00:00`
    pub(super) offset: String,
}

impl Clock {
    /// Dates in this zone.
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, seconds: std::array::from_fn(|_| Second::unset()) }
    }

    /// Dates in the zone of this process; UTC when it has none that can be read.
    pub(super) fn local() -> Self {
        Self::new(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    /// The second that holds this time, and the milliseconds past it.
    pub(super) fn at(&mut self, time: SystemTime) -> (&Second, u32) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let place = usize::try_from(since.as_secs() % REMEMBERED as u64)
            .expect("a remainder of a small number fits");
        let second = &mut self.seconds[place];
        if second.unix != Some(unix) {
            second.set(unix, &self.zone);
        }
        (second, since.subsec_millis())
    }
}

impl Second {
    /// One without a date, and with room for any.
    fn unset() -> Self {
        let room = || String::with_capacity(32);
        Self { unix: None, common: room(), date_time: room(), offset: room() }
    }

    fn set(&mut self, unix: i64, zone: &TimeZone) {
        // A clock beyond the year 9999 is wrong in any case: its lines carry the last date.
        let stamp = Timestamp::from_second(unix).unwrap_or(Timestamp::MAX);
        let date = stamp.to_zoned(zone.clone());
        self.unix = Some(unix);
        for (text, shape) in [
            (&mut self.common, "[%d/%b/%Y:%H:%M:%S %z]"),
            (&mut self.date_time, "%Y-%m-%dT%H:%M:%S"),
            (&mut self.offset, "%:z"),
        ] {
            text.clear();
            write!(text, "{}", date.strftime(shape)).expect("the shapes are known to be valid");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(clock: &mut Clock, millis: u64) -> String {
        let (second, millis) = clock.at(UNIX_EPOCH + Duration::from_millis(millis));
        format!("{} {}.{millis:03}{}", second.common, second.date_time, second.offset)
    }

    #[test]
    fn dates_follow_the_zone_and_its_summer_time() {
        let mut utc = Clock::new(TimeZone::UTC);
        assert_eq!(
            at(&mut utc, 1_711_016_798_123),
            "[21/Mar/2024:10:26:38 +0000] 2024-03-21T10:26:38.123+00:00"
        );
        let rule = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a valid rule");
        let mut berlin = Clock::new(rule);
        assert_eq!(
            at(&mut berlin, 1_711_846_799_999),
            "[31/Mar/2024:01:59:59 +0100] 2024-03-31T01:59:59.999+01:00"
        );
        assert_eq!(
            at(&mut berlin, 1_711_846_800_000),
            "[31/Mar/2024:03:00:00 +0200] 2024-03-31T03:00:00.000+02:00"
        );
    }

    #[test]
    fn remembered_seconds_are_the_right_ones() {
        let mut clock = Clock::new(TimeZone::UTC);
        for second in [5, 1, 5, 9, 1, 4, 0, 4] {
            let expected = format!("1970-01-01T00:00:{second:02}");
            assert!(at(&mut clock, second * 1000).contains(&expected), "second {second}");
        }
    }

    #[test]
    fn clocks_that_are_wrong_do_not_stop_the_log() {
        let mut clock = Clock::new(TimeZone::UTC);
        let (before, _) = clock.at(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before.date_time, "1970-01-01T00:00:00");
        let (beyond, _) = clock.at(UNIX_EPOCH + Duration::from_secs(1 << 40));
        assert_eq!(beyond.date_time, "9999-12-30T22:00:00");
    }
}
