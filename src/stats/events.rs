//! The log events of the stats process.

use crate::log_event::log_lines;

log_lines! {
    /// A log event of the stats process.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum StatsEvent {
        /// The stats process could not begin.
        Unborn = "stats_failed", Error, "cannot serve metrics: {reason}" { reason: String },
        /// Numbers could not be sent to the StatsD server; logged once until they can be again.
        Unsent = "statsd_failed", Warning,
            "cannot send metrics to {address}: {reason}; trying again every second" {
                address: String,
                reason: String,
            },
    }
}
