//! The decisions of a connection: from its state and the time, whether it ends, parks or waits on.

use std::time::Duration;

use super::{CloseReason, Fault, Machine, Parking, Request, State};
use crate::worker::connection::timeouts::{self, Timeouts};

/// The next step of a connection's task when a read finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Waits on.
    Wait,
    /// Ends the connection as if the client had closed it.
    Close,
    /// Refuses the unfinished request, and ends the connection.
    Refuse(Refusal),
    /// Gives back all but the socket.
    Park,
}

/// Why an unfinished request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its head took too long.
    Late,
    /// Its head takes memory that the worker does not have.
    Large,
}

/// Decisions.
impl Machine {
    /// The deadlines of its state, the most important first.
    pub(super) fn deadlines(&self, timeouts: &Timeouts) -> [Option<(u64, CloseReason)>; 4] {
        let since = self.since;
        let after = |timeout: Option<u64>, since: u64, reason| {
            timeout.map(|timeout| (since.saturating_add(timeout), reason))
        };
        let reader =
            self.blocked.and_then(|since| after(timeouts.body, since, CloseReason::Reader));
        let [mut finished, mut park] = [None, None];
        if self.request().is_some() {
            let timeout = Some(timeouts::FINISHED);
            finished = self.finished.and_then(|since| after(timeout, since, CloseReason::Finished));
        }
        let own = match &self.state {
            State::First | State::Head | State::Handshake => {
                after(timeouts.head, since, CloseReason::Head)
            }
            State::Answer(request) => {
                let began = request.began.saturating_add(request.extra);
                after(timeouts.answer, began, CloseReason::Answer)
            }
            // The handler waits for its client, which has a time of its own.
            State::Body(request) => {
                let still = after(timeouts.body, since, CloseReason::Body);
                let left = Self::unpaid_max(request, timeouts)
                    .map(|max| max.saturating_sub(request.unpaid));
                let drips = after(left, since, CloseReason::Body);
                still.into_iter().chain(drips).min_by_key(|(at, _)| *at)
            }
            State::Idle { parking, .. } => {
                if *parking == Parking::Fit && self.streams.is_none() {
                    park = after(Some(timeouts::PARK), since, CloseReason::Park);
                }
                after(timeouts.idle, since, CloseReason::Idle)
            }
            State::Lingering => after(Some(timeouts::LINGER), since, CloseReason::Silence),
            State::Upgraded | State::Streams => None,
        };
        [reader, finished, own, park]
    }

    /// Returns the milliseconds that the body of a request may take beyond those of its bytes.
    fn unpaid_max(request: &Request, timeouts: &Timeouts) -> Option<u64> {
        let allowed = timeouts.answer?.max(timeouts.body.unwrap_or(0));
        Some(allowed.saturating_add(request.extra))
    }

    /// Time has passed. Returns true if the connection's task is to be woken: it is to end or to park.
    pub(crate) fn tick(&mut self, timeouts: &Timeouts, now: u64) -> bool {
        if let State::Body(mut request) = self.state {
            request.unpaid_max = Self::unpaid_max(&request, timeouts);
            self.state = State::Body(request);
        }
        let due = |deadline: &(u64, CloseReason)| deadline.0 <= now;
        let reason = self.deadlines(timeouts).into_iter().flatten().find(due);
        reason.is_some_and(|(_, reason)| self.close(reason))
    }

    /// It is to end, or to park. Returns true if that is news.
    pub(crate) fn close(&mut self, reason: CloseReason) -> bool {
        // One that came too late for what it was meant for gives way.
        self.reason.replace(reason) != Some(reason)
    }

    /// Parks it now if it can be. One that is parked already looks whether it can go to another process.
    pub(crate) fn park(&mut self) -> bool {
        let is_fit =
            matches!(self.state, State::Idle { parking: Parking::Fit | Parking::Parked, .. });
        if is_fit && self.reason.is_none() {
            self.reason = Some(CloseReason::Park);
        }
        is_fit
    }

    /// Closes it if it has been idle for so long: its first request may still come.
    pub(crate) fn close_idle(&mut self, grace: u64, now: u64) -> bool {
        self.idle_for(now).is_some_and(|idle| idle >= grace) && self.close(CloseReason::Idle)
    }

    /// Closes it if a request has come in by half, for which nothing waits any more.
    pub(crate) fn close_unfinished(&mut self) -> bool {
        let reason = match self.state {
            State::Head => CloseReason::Head,
            State::Body(_) => CloseReason::Body,
            _ => return false,
        };
        self.close(reason)
    }

    /// Returns the next step of its task when a read finds nothing. Of a first request nothing has come, or
    /// a beginning of the preface of HTTP/2.
    pub(crate) fn on_nothing_read(&self, has_preface: bool) -> Decision {
        match (self.reason, self.state) {
            (Some(CloseReason::Head), State::First) if has_preface => {
                Decision::Refuse(Refusal::Late)
            }
            (Some(CloseReason::Head), State::First)
            | (Some(CloseReason::Idle), State::Idle { .. }) => Decision::Close,
            (Some(CloseReason::Park), State::Idle { parking: Parking::Fit, .. }) => Decision::Park,
            (Some(CloseReason::Head), State::Head) => Decision::Refuse(Refusal::Late),
            (Some(CloseReason::Budget), State::Head) => Decision::Refuse(Refusal::Large),
            _ => Decision::Wait,
        }
    }

    /// Returns true if the client must stop sending before the socket is closed: it may be in a head or in
    /// a body that is not read, and a reset would take the response from it. A client whose bytes have
    /// no memory left is not waited for.
    pub(crate) fn must_linger(&self) -> bool {
        let may_send = matches!(self.state, State::Head) || self.is_body_unread();
        let is_cut = matches!(self.reason, Some(CloseReason::Budget | CloseReason::Abuse));
        (may_send || self.streams.is_some()) && !is_cut
    }

    /// Returns true if the next byte is the first one of a request when the one in hand is answered, whose
    /// body has this length or comes in chunks.
    pub(crate) fn is_whole(&self, body: Option<u64>) -> bool {
        !self.is_body_open && self.heads.is_whole(body, false)
    }

    /// Returns true if a further request waits behind the one in hand, whose body has this length or comes
    /// in chunks, with so many bytes in the socket. Behind chunks one may be seen that is none.
    pub(crate) fn is_followed(&self, body: Option<u64>, unread: u64) -> bool {
        self.heads.has_more(body, unread)
    }
}

/// Figures.
impl Machine {
    /// Milliseconds for which it has been in its state.
    pub(crate) fn waited(&self, now: u64) -> u64 {
        now.saturating_sub(self.since)
    }

    /// Milliseconds for which it has been idle; `None`: it is not.
    pub(crate) fn idle_for(&self, now: u64) -> Option<u64> {
        matches!(self.state, State::Idle { .. }).then(|| self.waited(now))
    }

    /// The fault of the body of the request in hand.
    pub(crate) fn fault(&self) -> Fault {
        self.request().map_or(Fault::None, |request| request.fault)
    }

    /// For how long the handler of a request that began at this time has waited for its body.
    pub(crate) fn body_waited(&self, began: u64, now: u64) -> Duration {
        let over = self.request().map_or(0, |request| request.began.saturating_sub(began));
        let now = if let State::Body(_) = self.state { self.waited(now) } else { 0 };
        Duration::from_millis(over.saturating_add(now))
    }
}
