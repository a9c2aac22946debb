//! The phases of a request, for the log event about a slow one.
//!
//! Each phase costs at most one reading of the clock, and none where `log.slow` is off.

use std::fmt;
use std::time::{Duration, Instant};

use crate::log_event::{EventField, EventFields};

/// The phases before the request was handed to the service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    /// In the kernel's queue, of the first request of a connection.
    pub(crate) queue: Option<Duration>,
    /// From the first byte of the head to its last one; `None` where that is not seen (HTTP/2).
    pub(crate) head: Option<Duration>,
    /// The number of the request among those of its connection.
    pub(crate) number: u64,
    /// When the request was handed over, in milliseconds of the monotonic clock. Every wait for the body
    /// moves what the connection notes of that.
    pub(crate) began: u64,
}

/// The head of the response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) at: Instant,
    /// The time until then in which the handler had waited for the request's body.
    pub(crate) body: Duration,
    /// True if the response goes on without an end of its own: its writing is no phase.
    pub(crate) is_endless: bool,
}

/// The phases of a request. One that was not reached, or not measured, is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Phases {
    queue: Option<Duration>,
    head: Option<Duration>,
    body: Option<Duration>,
    handler: Option<Duration>,
    write: Option<Duration>,
}

impl Phases {
    /// The phases of a request that was handed to the service so long ago, and is over; without a response
    /// its handler has waited for the body for `waited`.
    pub(crate) fn of(
        arrival: Arrival,
        begun: Instant,
        answered: Option<Answered>,
        end: Instant,
        waited: Duration,
    ) -> Self {
        let Arrival { queue, head, number: _, began: _ } = arrival;
        let until = answered.map_or(end, |answered| answered.at);
        let body = answered.map_or(waited, |answered| answered.body);
        let handler = until.saturating_duration_since(begun).saturating_sub(body);
        let finite = answered.filter(|answered| !answered.is_endless);
        let write = finite.map(|answered| end.saturating_duration_since(answered.at));
        let body = Some(body).filter(|body| !body.is_zero());
        Self { queue, head, body, handler: Some(handler), write }
    }

    /// The sum of all phases.
    pub(crate) fn total(&self) -> Duration {
        self.named().iter().filter_map(|(_, _, span)| *span).sum()
    }

    /// Each phase with its word and the name of its field.
    fn named(&self) -> [(&'static str, &'static str, Option<Duration>); 5] {
        [
            ("queue", "queue_seconds", self.queue),
            ("head", "head_seconds", self.head),
            ("body", "body_seconds", self.body),
            ("handler", "handler_seconds", self.handler),
            ("write", "write_seconds", self.write),
        ]
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.named().into_iter().filter_map(|(word, _, span)| Some((word, span?)));
        for (at, (word, span)) in known.enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{word} {:.3}", span.as_secs_f64())?;
        }
        Ok(())
    }
}

impl EventField for Phases {
    fn record(&self, _name: &'static str, fields: &mut EventFields) {
        for (_, name, span) in self.named() {
            span.record(name, fields);
        }
    }

    #[cfg(test)]
    fn names(_name: &'static str) -> Vec<&'static str> {
        Self::default().named().map(|(_, name, _)| name).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn phases_add_up_to_the_whole_request() {
        let begun = clock::now();
        let arrival = Arrival { queue: Some(ms(7)), head: Some(ms(20)), ..Arrival::default() };
        let answered = Answered { at: begun + ms(500), body: ms(200), is_endless: false };
        let phases = Phases::of(arrival, begun, Some(answered), begun + ms(560), ms(999));
        assert_eq!(
            phases.to_string(),
            "queue 0.007, head 0.020, body 0.200, handler 0.300, write 0.060"
        );
        assert_eq!(phases.total(), ms(7 + 20 + 560));
    }

    #[test]
    fn phase_that_is_not_reached_is_left_out() {
        let begun = clock::now();
        let phases = Phases::of(Arrival::default(), begun, None, begun + ms(50), ms(40));
        assert_eq!(phases.to_string(), "body 0.040, handler 0.010");
        let late = Phases::of(Arrival::default(), begun, None, begun + ms(50), ms(52));
        assert_eq!(late.to_string(), "body 0.052, handler 0.000", "the clocks differ by a tick");
    }

    #[test]
    fn endless_response_counts_until_its_head() {
        let begun = clock::now();
        let answered = Answered { at: begun + ms(3), body: ms(0), is_endless: true };
        let phases = Phases::of(Arrival::default(), begun, Some(answered), begun + ms(9000), ms(0));
        assert_eq!((phases.to_string().as_str(), phases.total()), ("handler 0.003", ms(3)));
    }

    #[test]
    fn fields_are_seconds_of_the_known_phases() {
        let phases = Phases { handler: Some(ms(1500)), write: Some(ms(2)), ..Phases::default() };
        let fields = EventFields::of(&[("phases", &phases)]);
        assert_eq!(fields.to_string(), "handler_seconds=1.5 write_seconds=0.002");
    }
}
