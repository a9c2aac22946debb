//! Counters, gauges and histograms of all processes, in shared memory.
//!
//! Each process that counts has a block of its own, which it alone writes: the master, the logger, and
//! each worker, by the place of its log ring. A worker that dies leaves its block to the next process
//! in that place, which counts on. So the sum over all blocks never falls, whatever becomes of the
//! processes, and the memory outlives an upgrade.
//!
//! # Why not one block a slot
//! Two workers of one slot live at the same time during each replacement. A block with one writer needs
//! no rule for two.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

use super::histogram::{self, Distribution};
use super::{overview, series};
use crate::sys::shared::{self, Claim, Mapping, Memory};

/// Lines of one block: 256 KiB, of which only the pages in use take memory. A multiple of 64 KiB, the
/// largest page that Linux has.
const BLOCK_LINES: usize = 256 * 1024 / 64;
/// Words of one block.
pub(super) const BLOCK_WORDS: usize = BLOCK_LINES * 8;

/// The block of the master.
const MASTER_BLOCK: usize = 0;
/// The block of the logger.
const LOGGER_BLOCK: usize = 1;
/// The block of the process whose ring has the first place behind the master's.
const FIRST_BLOCK: usize = 2;

// The words of a block, by place.
const PID: usize = 0;
const CONNECTIONS: usize = 1;
const IN_FLIGHT: usize = 2;
const HANDSHAKES: usize = 8;
const LINES_DROPPED: usize = 16;
const CODES: usize = 64;
const HISTOGRAMS: usize = 576;

// Each number has a place of its own.
const _: () = {
    let last = HISTOGRAMS + (Measure::LoopLag as usize + 1) * histogram::WORDS;
    assert!(HANDSHAKES + 2 <= LINES_DROPPED && LINES_DROPPED + 2 <= CODES);
    assert!(CODES + CODE_COUNT as usize <= HISTOGRAMS && last <= overview::FIRST_WORD);
};

/// Codes that are counted each for itself.
pub(crate) const CODE_COUNT: u16 = 502;

/// The label that a request is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Code(u16);

impl Code {
    /// No whole answer was sent: the client went away, or the worker was killed.
    pub(crate) const ABORTED: Self = Self(500);
    /// A status beyond those that HTTP has.
    const OTHER: Self = Self(501);

    /// The code of a request with this answer, if one was sent whole.
    pub(crate) fn of_answer(status: Option<StatusCode>) -> Self {
        status.map_or(Self::ABORTED, |status| Self::of_status(status.as_u16()))
    }

    /// The code of an answer with this status.
    fn of_status(status: u16) -> Self {
        match status {
            100..=599 => Self(status - 100),
            _ => Self::OTHER,
        }
    }

    /// Every code.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CODE_COUNT).map(Self)
    }

    /// Its number, to be kept in a word.
    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// The code with this number, which may be any.
    pub(super) fn from_number(number: u16) -> Option<Self> {
        (number < CODE_COUNT).then_some(Self(number))
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::ABORTED => f.write_str("aborted"),
            Self::OTHER => f.write_str("other"),
            Self(number) => write!(f, "{}", number + 100),
        }
    }
}

/// The durations that workers measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// From the head of a request to the last byte of its answer.
    Duration = 0,
    /// From the arrival of a connection's first bytes, or of the connection, to its acceptance.
    QueueWait = 1,
    /// By how much the event loop's timer was late.
    LoopLag = 2,
}

/// The result of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Done = 0,
    Failed = 1,
}

/// A log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    Access = 0,
    Error = 1,
}

/// All blocks.
#[derive(Debug)]
pub(crate) struct MetricsMemory(Memory);

impl MetricsMemory {
    /// No block yet.
    ///
    /// # Errors
    /// The error of memfd_create(2).
    pub(crate) fn new() -> io::Result<Self> {
        Memory::new("ferricorn-metrics").map(Self)
    }

    /// The blocks that an earlier image has made.
    pub(crate) fn inherit(memory: OwnedFd) -> Self {
        Self(memory.into())
    }

    /// The block of the master.
    ///
    /// # Errors
    /// The error of ftruncate(2) and mmap(2).
    pub(crate) fn master(&self) -> io::Result<Block> {
        self.block(MASTER_BLOCK)
    }

    /// The block of the logger.
    ///
    /// # Errors
    /// As [`MetricsMemory::master`].
    pub(crate) fn logger(&self) -> io::Result<Block> {
        self.block(LOGGER_BLOCK)
    }

    /// The block of the process whose ring has this place, from 1 on. No living process may have it.
    ///
    /// # Errors
    /// As [`MetricsMemory::master`].
    pub(crate) fn of_place(&self, place: usize) -> io::Result<Block> {
        self.block(place.saturating_sub(1).saturating_add(FIRST_BLOCK))
    }

    fn block(&self, at: usize) -> io::Result<Block> {
        let end = at.saturating_add(1).saturating_mul(BLOCK_LINES);
        if self.0.count()? < end {
            self.0.grow(end)?;
        }
        self.map(at)
    }

    fn map(&self, at: usize) -> io::Result<Block> {
        self.0.map(at.saturating_mul(BLOCK_LINES), BLOCK_LINES).map(Block)
    }

    /// The blocks from this one on, to be read. The first is the master's.
    ///
    /// # Errors
    /// The error of fstat(2) and mmap(2).
    pub(crate) fn blocks(&self, from: usize) -> io::Result<Vec<Block>> {
        let count = self.0.count()? / BLOCK_LINES;
        (from..count).map(|at| self.map(at)).collect()
    }
}

impl AsFd for MetricsMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The numbers of one process, as a process sees them that maps them.
#[derive(Debug)]
pub(crate) struct Block(Mapping);

// ORDERING: each number stands for itself: Relaxed throughout.
impl Block {
    /// Has it be all that this process can reach of the blocks, as far as the kernel can.
    pub(crate) fn fixed(self) -> Self {
        Self(self.0.fixed())
    }

    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        &self.0[at / 8].0[at % 8]
    }

    fn rise(&self, at: usize, by: u64) {
        self.word(at).fetch_add(by, Ordering::Relaxed);
    }

    fn claim(&self, at: usize) -> Claim {
        shared::claim(self.word(at))
    }

    fn histogram<'a>(&'a self, measure: Measure) -> impl Fn(usize) -> &'a AtomicU64 {
        let start = HISTOGRAMS + measure as usize * histogram::WORDS;
        move |at| self.word(start + at)
    }

    /// The pid of the process that counts here, as it says.
    pub(crate) fn pid(&self) -> Claim {
        self.claim(PID)
    }

    /// Connections that its process has open.
    pub(crate) fn connections(&self) -> Claim {
        self.claim(CONNECTIONS)
    }

    /// Requests that its process has in hand.
    pub(crate) fn in_flight(&self) -> Claim {
        self.claim(IN_FLIGHT)
    }

    /// Requests that have ended with this code.
    pub(crate) fn requests(&self, code: Code) -> Claim {
        self.claim(CODES + usize::from(code.0))
    }

    /// Handshakes that have ended so.
    pub(crate) fn handshakes(&self, how: Handshake) -> Claim {
        self.claim(HANDSHAKES + how as usize)
    }

    /// Lines of a log that were dropped.
    pub(crate) fn lines_dropped(&self, log: LogKind) -> Claim {
        self.claim(LINES_DROPPED + log as usize)
    }

    /// The measured values.
    pub(crate) fn distribution(&self, measure: Measure) -> Distribution {
        Distribution::read(self.histogram(measure))
    }

    /// A request has ended.
    pub(crate) fn count_request(&self, code: Code) {
        self.rise(CODES + usize::from(code.0), 1);
    }

    /// Lines of a log were dropped.
    pub(crate) fn count_dropped(&self, log: LogKind, lines: u64) {
        self.rise(LINES_DROPPED + log as usize, lines);
    }
}

/// The counters of a worker.
#[derive(Debug)]
pub(crate) struct WorkerMetrics(Block);

impl WorkerMetrics {
    /// The block is this process's from now on. Its counters go on, its gauges begin at zero.
    pub(crate) fn new(block: Block, pid: u32) -> Self {
        let begin = |at, number| block.word(at).store(number, Ordering::Relaxed);
        begin(PID, 0);
        begin(CONNECTIONS, 0);
        begin(IN_FLIGHT, 0);
        series::begin(&block);
        begin(PID, pid.into());
        Self(block)
    }

    /// Its block.
    pub(crate) fn block(&self) -> &Block {
        &self.0
    }

    /// A connection was accepted.
    pub(crate) fn connection_opened(&self) {
        self.0.rise(CONNECTIONS, 1);
    }

    /// A connection has ended.
    pub(crate) fn connection_closed(&self) {
        self.0.word(CONNECTIONS).fetch_sub(1, Ordering::Relaxed);
    }

    /// The head of a request was read.
    pub(crate) fn request_begun(&self) {
        self.0.rise(IN_FLIGHT, 1);
    }

    /// A request that had begun is over.
    pub(crate) fn request_ended(&self) {
        self.0.word(IN_FLIGHT).fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests that have ended with this code.
    pub(crate) fn requests(&self, code: Code) -> u64 {
        self.0.requests(code).unchecked()
    }

    /// Counts a request that is over.
    pub(crate) fn count_request(&self, code: Code, took: Duration) {
        self.observe(Measure::Duration, took);
        self.0.count_request(code);
    }

    /// Counts a TLS handshake.
    pub(crate) fn count_handshake(&self, how: Handshake) {
        self.0.rise(HANDSHAKES + how as usize, 1);
    }

    /// Counts a duration.
    pub(crate) fn observe(&self, measure: Measure, duration: Duration) {
        histogram::observe(self.0.histogram(measure), duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_with_the_next_process_and_gauges_do_not() {
        let memory = MetricsMemory::new().unwrap();
        let first = WorkerMetrics::new(memory.of_place(1).unwrap(), 7);
        first.connection_opened();
        first.request_begun();
        first.count_request(Code::of_answer(Some(StatusCode::OK)), Duration::from_millis(3));
        drop(first);
        let next = WorkerMetrics::new(memory.of_place(1).unwrap(), 8);
        next.count_request(Code::of_answer(Some(StatusCode::OK)), Duration::from_millis(3));
        let blocks = memory.blocks(0).unwrap();
        assert_eq!(blocks.len(), 3, "the master's, the logger's, and this one");
        let block = &blocks[2];
        assert_eq!(block.pid(), Claim::new(8));
        assert_eq!((block.connections(), block.in_flight()), (Claim::new(0), Claim::new(0)));
        assert_eq!(block.requests(Code::of_answer(Some(StatusCode::OK))), Claim::new(2));
        assert_eq!(block.distribution(Measure::Duration).count(), Claim::new(2));
    }

    #[test]
    fn codes_are_named_as_http_names_them() {
        let name = |status| Code::of_status(status).to_string();
        assert_eq!([name(100), name(200), name(599)], ["100", "200", "599"]);
        assert_eq!([name(99), name(600), name(0)], ["other"; 3]);
        assert_eq!(Code::ABORTED.to_string(), "aborted");
        assert_eq!(Code::all().count(), usize::from(CODE_COUNT));
    }
}
