//! The state of a connection, as a machine: facts come in with their time, decisions go out.
//!
//! # Why one machine
//! A connection is ended by timeouts, limits, drains and want of memory, each of which depends on the
//! connection's exact state. All of them are decided here, without a clock, without I/O and without a
//! task, so that the tests can drive it through any order of facts in virtual time.
//!
//! # The shell
//! [`super::conn`] holds it behind a lock and brings the time. The connection's task notes what it reads
//! and writes, and asks for the decision when there is nothing to do; the sweep brings the time alone.
//! A stream of HTTP/2 has a machine of its own, which sees one request.

mod decisions;

use super::budget;
use super::heads::{HeadRoom, Heads, TooLong};
use super::streams::Streams;
use super::timeouts;
pub(crate) use super::waits::{CloseReason, Fault, Wait};
pub(crate) use decisions::{Decision, Refusal};

/// The state of a connection, with the data that it has then alone.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Its TLS handshake.
    Handshake,
    /// It waits for its first request: nothing has been read yet.
    First,
    /// A request's head comes in.
    Head,
    /// A handler runs, or its response is being written.
    Answer(Request),
    /// A handler waits for the next piece of its request's body.
    Body(Request),
    /// It waits for the next request.
    Idle {
        /// True if the client may still send the body of the last request, which is not read.
        is_body_unread: bool,
        parking: Parking,
    },
    /// It speaks another protocol.
    Upgraded,
    /// It has open streams of HTTP/2, each of which has a machine of its own.
    Streams,
    /// Its last response is out, and the client may still send or read.
    Lingering,
}

/// The part of an idle connection that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parking {
    /// All of it, always: hyper may have read the beginning of a head, or of a body that goes on.
    Unfit,
    /// All of it. It may be parked.
    Fit,
    /// Its socket alone: such a connection may go to another process.
    Parked,
}

/// The request in hand.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    /// When it began, later by every wait for its body.
    began: u64,
    /// Milliseconds more that its handler has asked for.
    extra: u64,
    /// Milliseconds that its body has taken beyond those of its bytes.
    unpaid: u64,
    /// The limit of `unpaid`; `None`: there is none, or no sweep has looked yet.
    unpaid_max: Option<u64>,
    /// True if nothing reads the rest of its body.
    is_body_unread: bool,
    fault: Fault,
}

/// The state of one connection, or of one stream of HTTP/2. All times are milliseconds of one clock.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    /// Since when it is in its state.
    since: u64,
    /// Why it is to end or to park. It stands until the state changes: then its cause is over.
    reason: Option<CloseReason>,
    /// When bytes came in last behind a head.
    read_at: u64,
    /// Since when a write waits for the client. Apart from the state: requests may come in, and be
    /// handled, behind a response that is not taken.
    blocked: Option<u64>,
    /// Since when the client has finished sending, as far as it has read nothing since.
    finished: Option<u64>,
    /// The number of requests so far.
    requests: u64,
    /// The part of its bytes that has been understood.
    heads: Heads,
    /// The streams, of a connection of HTTP/2.
    streams: Option<Box<Streams>>,
    /// True while something reads a body, which may go on behind the response.
    is_body_open: bool,
    is_stream: bool,
}

impl Machine {
    /// A connection was accepted.
    pub(crate) fn connection(now: u64) -> Self {
        Self {
            state: State::First,
            since: now,
            reason: None,
            read_at: now,
            blocked: None,
            finished: None,
            requests: 0,
            heads: Heads::default(),
            streams: None,
            is_body_open: false,
            is_stream: false,
        }
    }

    /// A stream of HTTP/2 has begun.
    pub(crate) fn stream(now: u64) -> Self {
        Self { is_stream: true, ..Self::connection(now) }
    }

    fn enter(&mut self, state: State, now: u64) {
        self.state = state;
        self.since = now;
        self.reason = None;
    }

    /// Returns what it waits for.
    pub(crate) fn wait(&self) -> Wait {
        match self.state {
            State::Handshake => Wait::Handshake,
            State::First => Wait::First,
            State::Head => Wait::Head,
            State::Answer(_) => Wait::Answer,
            State::Body(_) => Wait::Body,
            State::Idle { .. } => Wait::Next,
            State::Upgraded => Wait::Other,
            State::Streams => Wait::Streams,
            State::Lingering => Wait::Silence,
        }
    }

    /// Returns why it is to end or to park.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        self.reason
    }

    /// Returns since when it is in its state.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// Returns true if it is a stream of HTTP/2.
    pub(crate) fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Returns true if it is a connection of HTTP/2.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.streams.is_some()
    }

    /// Returns true if only its socket is kept.
    #[cfg(test)]
    pub(crate) fn is_parked(&self) -> bool {
        matches!(self.state, State::Idle { parking: Parking::Parked, .. })
    }

    /// Returns true if a write waits for the client.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    fn is_body_unread(&self) -> bool {
        match self.state {
            State::Answer(Request { is_body_unread, .. })
            | State::Body(Request { is_body_unread, .. })
            | State::Idle { is_body_unread, .. } => is_body_unread,
            _ => false,
        }
    }

    fn request(&self) -> Option<&Request> {
        match &self.state {
            State::Answer(request) | State::Body(request) => Some(request),
            _ => None,
        }
    }

    fn request_mut(&mut self) -> Option<&mut Request> {
        match &mut self.state {
            State::Answer(request) | State::Body(request) => Some(request),
            _ => None,
        }
    }
}

/// Facts.
impl Machine {
    /// Its TLS handshake has begun. The time runs from the beginning of the connection.
    pub(crate) fn handshake(&mut self) {
        self.state = State::Handshake;
    }

    /// Its TLS handshake is over.
    pub(crate) fn handshaken(&mut self, now: u64) {
        self.enter(State::First, now);
    }

    /// Bytes came in. Returns the number of them that count of an unfinished head; `None` where they are
    /// of something else.
    ///
    /// # Errors
    /// When they are of a head that is longer than allowed.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        room: HeadRoom,
        now: u64,
    ) -> Result<Option<u64>, TooLong> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let is_of_head = self.wait().is_of_head();
        if is_of_head && !matches!(self.state, State::Head) {
            self.enter(State::Head, now);
            self.heads.begin();
        }
        let unfinished = self.heads.note(bytes);
        if self.heads.is_ahead() {
            self.read_at = now;
        }
        if !is_of_head {
            return Ok(None);
        }
        self.heads.note_line(bytes, room.line)?;
        let is_refused = unfinished > 0 && self.reason == Some(CloseReason::Budget);
        if is_refused || unfinished > room.head as u64 {
            return Err(TooLong::Head);
        }
        Ok(Some(budget::of_head(unfinished)))
    }

    /// The client is in the middle of something that is no request.
    pub(crate) fn malformed(&mut self, now: u64) {
        self.enter(State::Head, now);
    }

    /// A request was handed to the service. Returns its number among those of the connection.
    pub(crate) fn begun(&mut self, now: u64) -> u64 {
        self.requests += 1;
        self.heads.note_end();
        self.enter(State::Answer(Request { began: now, ..Request::default() }), now);
        self.requests
    }

    /// The handler waits for the next piece of its request's body.
    pub(crate) fn body_awaited(&mut self, now: u64) {
        if let State::Answer(request) = self.state {
            self.enter(State::Body(request), now);
        }
    }

    /// So many bytes of the body came in, or its end. The time in which the handler has waited for them
    /// is not the handler's. Returns true if `unpaid` has reached its limit: bytes between the sweep and
    /// the task's next look do not extend it.
    pub(crate) fn body_read(&mut self, bytes: u64, now: u64) -> bool {
        match &mut self.state {
            State::Answer(request) => request.unpaid = timeouts::unpaid(request.unpaid, 0, bytes),
            State::Body(request) => {
                let waited = now.saturating_sub(self.since);
                let mut request = *request;
                request.unpaid = timeouts::unpaid(request.unpaid, waited, bytes);
                request.began = request.began.saturating_add(waited);
                self.enter(State::Answer(request), now);
            }
            _ => {}
        }
        let is_spent =
            |request: &Request| request.unpaid_max.is_some_and(|max| request.unpaid >= max);
        self.request().is_some_and(is_spent)
    }

    /// Something reads the body of the request in hand from now on.
    pub(crate) fn body_opened(&mut self) {
        self.is_body_open = true;
    }

    /// The body was read to its end. That of chunks looks like the end of a head.
    pub(crate) fn body_ended(&mut self, is_chunked: bool) {
        self.is_body_open = false;
        if is_chunked {
            self.heads.note_end();
        }
    }

    /// Nothing reads the rest of the body of the request in hand, or of the last one.
    pub(crate) fn body_dropped(&mut self) {
        self.is_body_open = false;
        match &mut self.state {
            State::Answer(Request { is_body_unread, .. })
            | State::Body(Request { is_body_unread, .. })
            | State::Idle { is_body_unread, .. } => *is_body_unread = true,
            _ => {}
        }
    }

    /// Something is wrong with the body of the request in hand.
    pub(crate) fn body_failed(&mut self, fault: Fault) {
        if let Some(request) = self.request_mut() {
            request.fault = fault;
        }
    }

    /// The handler of the request of this number asks for more time; nothing happens when that is over.
    pub(crate) fn extended(&mut self, number: u64, millis: u64) {
        if number == self.requests
            && let Some(request) = self.request_mut()
        {
            request.extra = request.extra.saturating_add(millis);
            request.unpaid_max = request.unpaid_max.map(|max| max.saturating_add(millis));
        }
    }

    /// A write waits for the client, or does not any more.
    pub(crate) fn blocked(&mut self, is_blocked: bool, now: u64) {
        match (is_blocked, self.blocked) {
            (true, None) => self.blocked = Some(now),
            (false, Some(_)) => {
                self.blocked = None;
                // The client reads on.
                self.finished = self.finished.map(|_| now);
                if self.reason == Some(CloseReason::Reader) {
                    self.reason = None;
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The client has finished sending: it has sent its FIN.
    pub(crate) fn finished(&mut self, now: u64) {
        self.finished.get_or_insert(now);
    }

    /// The response to the request in hand, whose body has this length or came in chunks, is with the
    /// kernel. The next head may have begun behind it; its time runs from its first byte.
    pub(crate) fn answered(&mut self, body: Option<u64>, now: u64) {
        if self.is_stream {
            return self.enter(State::Lingering, now);
        }
        if matches!(self.state, State::Upgraded | State::Lingering) {
            return;
        }
        let is_body_unread = self.is_body_unread();
        if !is_body_unread && !self.is_body_open && self.heads.take_begun(body) {
            self.enter(State::Head, self.read_at);
        } else {
            let is_whole = self.heads.is_whole(body, is_body_unread);
            let parking =
                if is_whole && !self.is_body_open { Parking::Fit } else { Parking::Unfit };
            self.enter(State::Idle { is_body_unread, parking }, now);
        }
    }

    /// It goes on with another protocol.
    pub(crate) fn upgraded(&mut self, now: u64) {
        self.enter(State::Upgraded, now);
    }

    /// The last response is out.
    pub(crate) fn lingers(&mut self, now: u64) {
        self.enter(State::Lingering, now);
    }

    /// It has come from another process, where it was idle since then.
    pub(crate) fn handed_over(&mut self, since: u64) {
        self.enter(State::Idle { is_body_unread: false, parking: Parking::Fit }, since);
    }

    /// All but its socket was given back. Nothing else parks than what is idle.
    pub(crate) fn parked(&mut self) {
        if let State::Idle { parking: parking @ Parking::Fit, .. } = &mut self.state {
            *parking = Parking::Parked;
        }
    }

    /// It is served again.
    pub(crate) fn unparked(&mut self) {
        if let State::Idle { parking: parking @ Parking::Parked, .. } = &mut self.state {
            *parking = Parking::Fit;
        }
        if self.reason == Some(CloseReason::Park) {
            self.reason = None;
        }
    }
}

/// Streams of HTTP/2.
impl Machine {
    /// It speaks HTTP/2.
    pub(crate) fn multiplexed(&mut self, now: u64) {
        self.streams.get_or_insert_with(|| Box::new(Streams::new(now)));
    }

    /// Its streams, where it is a connection of HTTP/2.
    pub(crate) fn streams(&mut self) -> Option<&mut Streams> {
        self.streams.as_deref_mut()
    }

    /// A stream has begun.
    pub(crate) fn stream_begun(&mut self, now: u64) {
        if let Some(streams) = &mut self.streams {
            streams.open += 1;
            self.enter(State::Streams, now);
        }
    }

    /// A stream is over.
    pub(crate) fn stream_ended(&mut self, now: u64) {
        let Some(streams) = &mut self.streams else { return };
        streams.open = streams.open.saturating_sub(1);
        if streams.open == 0 && matches!(self.state, State::Streams) {
            let is_closing = streams.is_closing;
            let idle = State::Idle { is_body_unread: false, parking: Parking::Unfit };
            self.enter(if is_closing { State::Lingering } else { idle }, now);
        }
    }

    /// The client was told to begin no further stream.
    pub(crate) fn goodbye_said(&mut self, now: u64) {
        let Some(streams) = &mut self.streams else { return };
        streams.is_closing = true;
        if let State::Idle { .. } = self.state {
            self.enter(State::Lingering, now);
        }
    }
}

#[cfg(test)]
mod tests;
