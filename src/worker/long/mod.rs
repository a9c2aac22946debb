//! Answers and protocols that go on without an end of their own: what a drain ends, a part at a time.

pub(crate) mod frames;
pub(crate) mod upgraded;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, UPGRADE,
};
use axum::http::{Response, StatusCode};
use http_body::Body as _;
use slab::Slab;

/// The time that a client has to answer a Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A response or a protocol that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LongKind {
    /// An answer whose client expects that it ends, and begins again: server-sent events.
    Events,
    /// A WebSocket.
    WebSocket,
    /// Another answer of unknown length, which may end by itself.
    Stream,
    /// Another protocol.
    Upgrade,
}

/// When a drain ends what goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Within the time of `drain_spread`.
    First,
    /// In the time that is left then.
    Second,
    /// At the deadline, when it is cut.
    Never,
}

/// The order to a response or a protocol that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fate {
    GoesOn = 0,
    /// It ends behind the message that is under way.
    Ends = 1,
    IsCut = 2,
}

impl LongKind {
    /// The kind of this answer; `None` if it ends by itself.
    ///
    /// A document of unknown length ends by itself, or is cut: a client takes one that ends early for whole.
    pub(crate) fn of(response: &Response<Body>) -> Option<Self> {
        let headers = response.headers();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = headers.get(UPGRADE).map_or(&b""[..], |value| value.as_bytes());
            let is_websocket = upgrade.eq_ignore_ascii_case(b"websocket");
            return Some(if is_websocket { Self::WebSocket } else { Self::Upgrade });
        }
        if response.body().size_hint().exact().is_some() {
            return None;
        }
        let has = |name: HeaderName| headers.contains_key(name);
        if has(CONTENT_LENGTH) {
            return None;
        }
        let content_type = headers.get(CONTENT_TYPE).map_or(Ok(""), |value| value.to_str()).ok()?;
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        let is = |other: &&str| content_type.eq_ignore_ascii_case(other);
        if EVENT_TYPES.iter().any(is) {
            return Some(Self::Events);
        }
        let is_stream = STREAM_TYPES.iter().any(is);
        (is_stream && !has(CONTENT_DISPOSITION) && !has(CONTENT_ENCODING)).then_some(Self::Stream)
    }

    fn turn(self) -> Turn {
        match self {
            Self::Events | Self::WebSocket => Turn::First,
            Self::Stream => Turn::Second,
            Self::Upgrade => Turn::Never,
        }
    }
}

const EVENT_TYPES: [&str; 2] = ["text/event-stream", "multipart/x-mixed-replace"];
/// Types of answers that may have no end, and have boundaries that are known to the client.
const STREAM_TYPES: [&str; 7] = [
    "",
    "text/plain",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/json-seq",
    "application/stream+json",
];

/// All that goes on in a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Longs(Arc<Mutex<Slab<Arc<State>>>>);

// ORDERING: each value stands for itself, and a task that is woken looks again: Relaxed.
#[derive(Debug)]
struct State {
    kind: LongKind,
    fate: AtomicU8,
    /// When the Close frame was sent, in milliseconds of the monotonic clock; 0: it was not.
    closed_at: AtomicU64,
    /// The tasks that read and write.
    wakers: Mutex<[Option<Waker>; 2]>,
}

/// One direction of what goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Read = 0,
    Write = 1,
}

/// One of what goes on, while it does.
#[derive(Debug)]
pub(crate) struct Long {
    longs: Longs,
    number: usize,
    state: Arc<State>,
}

impl Longs {
    /// One more goes on.
    pub(crate) fn begin(&self, kind: LongKind) -> Long {
        let fate = AtomicU8::new(Fate::GoesOn as u8);
        let closed_at = AtomicU64::new(0);
        let state = Arc::new(State { kind, fate, closed_at, wakers: Mutex::default() });
        let number = self.lock().insert(Arc::clone(&state));
        Long { longs: self.clone(), number, state }
    }

    /// The number of those that end in this turn and still go on.
    pub(crate) fn count(&self, turn: Turn) -> usize {
        let open = self.lock();
        open.iter().filter(|(_, state)| state.goes_on_until(turn)).count()
    }

    /// Has so many of them end.
    pub(crate) fn end(&self, turn: Turn, count: usize) {
        let open = self.lock();
        let ends = open.iter().filter(|(_, state)| state.goes_on_until(turn)).take(count);
        let ends: Vec<_> = ends.map(|(_, state)| Arc::clone(state)).collect();
        drop(open);
        ends.iter().for_each(|state| state.meet(Fate::Ends));
    }

    /// Cuts those whose clients have not answered a Close frame in time.
    pub(crate) fn cut_silent(&self, now: u64) {
        let timeout = u64::try_from(CLOSE_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        self.cut(|state| {
            let closed_at = state.closed_at.load(Ordering::Relaxed);
            closed_at != 0 && now.saturating_sub(closed_at) >= timeout
        });
    }

    /// Cuts all that go on.
    pub(crate) fn cut_all(&self) {
        self.cut(|_| true);
    }

    fn cut(&self, is_cut: impl Fn(&State) -> bool) {
        let open = self.lock();
        let cut = open.iter().filter(|(_, state)| is_cut(state));
        let cut: Vec<_> = cut.map(|(_, state)| Arc::clone(state)).collect();
        drop(open);
        cut.iter().for_each(|state| state.meet(Fate::IsCut));
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fate(&self) -> Fate {
        match self.fate.load(Ordering::Relaxed) {
            0 => Fate::GoesOn,
            1 => Fate::Ends,
            _ => Fate::IsCut,
        }
    }

    fn goes_on_until(&self, turn: Turn) -> bool {
        self.kind.turn() == turn && self.fate() == Fate::GoesOn
    }

    fn meet(&self, fate: Fate) {
        self.fate.fetch_max(fate as u8, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        let wakers = self.wakers().each_mut().map(Option::take);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn wakers(&self) -> MutexGuard<'_, [Option<Waker>; 2]> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Long {
    pub(crate) fn kind(&self) -> LongKind {
        self.state.kind
    }

    pub(crate) fn fate(&self) -> Fate {
        self.state.fate()
    }

    /// Has this task woken when its fate changes. Returns the fate as it is then: a change before is not
    /// told.
    pub(crate) fn watch(&self, side: Side, waker: &Waker) -> Fate {
        let mut wakers = self.state.wakers();
        let place = &mut wakers[side as usize];
        if !place.as_ref().is_some_and(|before| before.will_wake(waker)) {
            *place = Some(waker.clone());
        }
        drop(wakers);
        self.fate()
    }

    /// The Close frame was sent: from then on the client has a time to answer it.
    pub(crate) fn note_closed(&self, now: u64) {
        self.state.closed_at.store(now.max(1), Ordering::Relaxed);
        // What waited to write need not any more.
        self.state.wake();
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        drop(self.longs.lock().remove(self.number));
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn kind(fields: &[(HeaderName, &str)]) -> Option<LongKind> {
        let mut response = Response::new(Body::new(Nothing));
        for (name, value) in fields {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        LongKind::of(&response)
    }

    struct Nothing;

    impl http_body::Body for Nothing {
        type Data = bytes::Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>>
        {
            std::task::Poll::Ready(None)
        }
    }

    #[test]
    fn answer_that_a_client_takes_for_whole_is_not_ended() {
        let of_type = |text| kind(&[(CONTENT_TYPE, text)]);
        assert_eq!(of_type("text/event-stream; charset=utf-8"), Some(LongKind::Events));
        assert_eq!(of_type("Text/Plain"), Some(LongKind::Stream));
        assert_eq!(kind(&[]), Some(LongKind::Stream));
        for document in ["text/csv", "application/json", "application/zip", "application/grpc"] {
            assert_eq!(of_type(document), None, "{document}");
        }
        let file = (CONTENT_DISPOSITION, "attachment");
        assert_eq!(kind(&[(CONTENT_TYPE, "text/plain"), file]), None);
        assert_eq!(kind(&[(CONTENT_LENGTH, "7")]), None);
        assert_eq!(kind(&[(CONTENT_ENCODING, "gzip")]), None);
        assert_eq!(LongKind::of(&Response::new(Body::from("known"))), None);
    }

    #[test]
    fn ends_come_in_their_turn_and_a_cut_is_the_last_word() {
        let longs = Longs::default();
        let kinds = [LongKind::Events, LongKind::WebSocket, LongKind::Stream, LongKind::Upgrade];
        let open = kinds.map(|kind| longs.begin(kind));
        let fates = || open.each_ref().map(Long::fate);
        assert_eq!((longs.count(Turn::First), longs.count(Turn::Second)), (2, 1));
        longs.end(Turn::First, 1);
        assert_eq!(fates(), [Fate::Ends, Fate::GoesOn, Fate::GoesOn, Fate::GoesOn]);
        longs.end(Turn::First, 7);
        longs.end(Turn::Second, 7);
        assert_eq!(fates(), [Fate::Ends, Fate::Ends, Fate::Ends, Fate::GoesOn]);
        open[1].note_closed(1000);
        longs.cut_silent(5999);
        assert_eq!(fates()[1], Fate::Ends);
        longs.cut_silent(6000);
        longs.end(Turn::First, 7);
        assert_eq!(fates(), [Fate::Ends, Fate::IsCut, Fate::Ends, Fate::GoesOn]);
        longs.cut_all();
        assert_eq!(fates(), [Fate::IsCut; 4]);
        drop(open);
        assert_eq!(longs.count(Turn::Never), 0);
    }
}
