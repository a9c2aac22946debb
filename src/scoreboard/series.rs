//! Counters, gauges and histograms of the application, in the block of each worker.
//!
//! A block has a list of series that grows at its end: each has a head, its key, and its numbers. The
//! worker alone writes it. The next process in its place finds the series there and counts on, so that
//! the sums over all blocks never fall. The list ends with the block: a series without room is refused.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::{BLOCK_WORDS, Block};
use super::overview;
use super::series_name::{SeriesName, help_of};
use crate::sys::shared::{self, Claim};

// The words of a worker's block behind its own numbers.
const LAYOUT: usize = overview::FIRST_WORD;
const REFUSED: usize = LAYOUT + 1;
/// The first word behind the list.
const END: usize = LAYOUT + 2;
const LIST: usize = LAYOUT + 8;
/// The number of this layout: another image may have another one.
const LAYOUT_NUMBER: u64 = 1;

/// Series of a worker.
pub(crate) const SERIES_MAX: usize = 2000;
/// Bytes of a key.
pub(crate) const KEY_MAX: usize = 1024;
/// The upper bounds of a histogram's buckets; one more bucket holds what is larger.
pub(crate) const BOUNDS: usize = super::histogram::BOUNDS_NANOS.len();
/// A histogram's buckets.
const BUCKETS: usize = BOUNDS + 1;

/// The kind of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SeriesKind {
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    /// The description of a name: no series, and without a number.
    Help = 4,
}

impl SeriesKind {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Counter, Self::Gauge, Self::Histogram, Self::Help]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }

    /// Returns the number of words that its numbers take.
    fn words(self) -> usize {
        match self {
            Self::Counter | Self::Gauge => 1,
            // The buckets, and the sum.
            Self::Histogram => BUCKETS + 1,
            Self::Help => 0,
        }
    }
}

/// A series of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SeriesKey {
    pub(crate) kind: SeriesKind,
    pub(crate) bytes: Vec<u8>,
}

impl SeriesKey {
    fn is_valid(&self) -> bool {
        match self.kind {
            SeriesKind::Counter | SeriesKind::Gauge | SeriesKind::Histogram => {
                SeriesName::from_key(&self.bytes).is_some()
            }
            SeriesKind::Help => help_of(&self.bytes).is_some(),
        }
    }
}

/// Where the numbers of a series are in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesPlace(usize);

/// The numbers of a histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SeriesHistogram {
    /// Observations in each bucket, without those of the buckets below.
    pub(crate) buckets: [Claim; BUCKETS],
    pub(crate) sum: f64,
}

// ORDERING: each number stands for itself: Relaxed. A series is whole before the end of the list moves
// behind it, which is a Release; its reader's look at the end is an Acquire.

/// Makes the list this process's own: counters go on, gauges begin at zero. The list ends before the first
/// series that no sane process has written.
pub(super) fn begin(block: &Block) {
    let mut end = LIST;
    for (key, place) in block.series().into_iter().take_while(|(key, _)| key.is_valid()) {
        end = place.0 + key.kind.words();
        if key.kind == SeriesKind::Gauge {
            block.set_gauge(place, 0.0);
        }
    }
    block.word(END).store(end as u64, Ordering::Release);
    block.word(LAYOUT).store(LAYOUT_NUMBER, Ordering::Relaxed);
}

impl Block {
    /// The series of the list, as its worker says.
    pub(crate) fn series(&self) -> Vec<(SeriesKey, SeriesPlace)> {
        let mut found = Vec::new();
        let mut at = LIST;
        while found.len() < SERIES_MAX && at < self.series_end() {
            let Some((key, numbers)) = self.series_at(at) else { break };
            at = numbers.end;
            found.push((key, SeriesPlace(numbers.start)));
        }
        found
    }

    fn series_end(&self) -> usize {
        if self.word(LAYOUT).load(Ordering::Relaxed) != LAYOUT_NUMBER {
            return LIST;
        }
        let end = self.word(END).load(Ordering::Acquire);
        usize::try_from(end).unwrap_or(BLOCK_WORDS).clamp(LIST, BLOCK_WORDS)
    }

    fn series_at(&self, at: usize) -> Option<(SeriesKey, Range<usize>)> {
        let (kind, length) = shared::claim(self.word(at)).halves();
        let kind = SeriesKind::from_number(kind)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= KEY_MAX)?;
        let numbers = places(at, kind, length)?;
        let words = (at + 1..numbers.start).map(|at| self.word(at).load(Ordering::Relaxed));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        Some((SeriesKey { kind, bytes }, numbers))
    }

    /// In the worker: adds a series, which is not in the list; `None` where there is no room.
    pub(crate) fn add_series(&self, key: &SeriesKey) -> Option<SeriesPlace> {
        let end = self.series_end();
        let length = Some(key.bytes.len()).filter(|length| *length <= KEY_MAX)?;
        let numbers = places(end, key.kind, length)?;
        let put = |at: usize, number| self.word(at).store(number, Ordering::Relaxed);
        put(end, key.kind as u64 | (length as u64) << 32);
        for (at, chunk) in key.bytes.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            put(end + 1 + at, u64::from_le_bytes(bytes));
        }
        numbers.clone().for_each(|at| put(at, 0));
        self.word(END).store(numbers.end as u64, Ordering::Release);
        Some(SeriesPlace(numbers.start))
    }

    /// A series found no room, or has no valid name.
    pub(crate) fn count_refused_series(&self) {
        self.word(REFUSED).fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of times that a series was refused.
    pub(crate) fn refused_series(&self) -> Claim {
        shared::claim(self.word(REFUSED))
    }

    /// The number of a counter.
    pub(crate) fn counter(&self, place: SeriesPlace) -> Claim {
        shared::claim(self.word(place.0))
    }

    /// Adds to a counter.
    pub(crate) fn raise_counter(&self, place: SeriesPlace, by: u64) {
        self.word(place.0).fetch_add(by, Ordering::Relaxed);
    }

    /// Raises a counter to at least this number.
    pub(crate) fn raise_counter_to(&self, place: SeriesPlace, number: u64) {
        self.word(place.0).fetch_max(number, Ordering::Relaxed);
    }

    /// The number of a gauge.
    pub(crate) fn gauge(&self, place: SeriesPlace) -> f64 {
        f64::from_bits(self.word(place.0).load(Ordering::Relaxed))
    }

    pub(crate) fn set_gauge(&self, place: SeriesPlace, number: f64) {
        self.word(place.0).store(number.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn move_gauge(&self, place: SeriesPlace, by: f64) {
        add(self.word(place.0), by);
    }

    /// The numbers of a histogram.
    pub(crate) fn series_histogram(&self, place: SeriesPlace) -> SeriesHistogram {
        SeriesHistogram {
            buckets: std::array::from_fn(|at| shared::claim(self.word(place.0 + at))),
            sum: f64::from_bits(self.word(place.0 + BUCKETS).load(Ordering::Relaxed)),
        }
    }

    /// Counts so many observations of a number in a histogram with these bounds.
    pub(crate) fn observe_number(
        &self,
        place: SeriesPlace,
        bounds: &[f64; BOUNDS],
        number: f64,
        times: usize,
    ) {
        let bucket = bounds.partition_point(|bound| *bound < number);
        self.word(place.0 + bucket).fetch_add(times as u64, Ordering::Relaxed);
        add(self.word(place.0 + BUCKETS), number * times as f64);
    }
}

fn add(word: &AtomicU64, by: f64) {
    let sum = |bits| Some((f64::from_bits(bits) + by).to_bits());
    // The closure returns a number each time.
    let _added = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
}

/// The words of the numbers of a series whose head is at this word; `None` where the block ends before.
fn places(at: usize, kind: SeriesKind, length: usize) -> Option<Range<usize>> {
    let start = at + 1 + length.div_ceil(8);
    let end = start + kind.words();
    (end <= BLOCK_WORDS).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::MetricsMemory;

    fn key(kind: SeriesKind, text: &str) -> SeriesKey {
        SeriesKey { kind, bytes: text.as_bytes().to_vec() }
    }

    fn block() -> (MetricsMemory, Block) {
        let memory = MetricsMemory::new().unwrap();
        let block = memory.of_place(1).unwrap();
        begin(&block);
        (memory, block)
    }

    #[test]
    fn series_go_on_with_the_next_process_and_gauges_do_not() {
        let (memory, block) = block();
        let counter = block.add_series(&key(SeriesKind::Counter, "jobs")).unwrap();
        let gauge = block.add_series(&key(SeriesKind::Gauge, "a_longer_name")).unwrap();
        let histogram = block.add_series(&key(SeriesKind::Histogram, "h")).unwrap();
        block.raise_counter(counter, 3);
        block.raise_counter_to(counter, 2);
        block.set_gauge(gauge, 2.5);
        block.move_gauge(gauge, -1.0);
        block.observe_number(histogram, &std::array::from_fn(|at| at as f64), 1.5, 2);
        assert_eq!((block.counter(counter), block.gauge(gauge)), (Claim::new(3), 1.5));
        drop(block);
        let next = memory.of_place(1).unwrap();
        begin(&next);
        let keys: Vec<SeriesKey> = next.series().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                key(SeriesKind::Counter, "jobs"),
                key(SeriesKind::Gauge, "a_longer_name"),
                key(SeriesKind::Histogram, "h"),
            ]
        );
        assert_eq!((next.counter(counter), next.gauge(gauge)), (Claim::new(3), 0.0));
        let found = next.series_histogram(histogram);
        assert_eq!((found.buckets[2], found.sum), (Claim::new(2), 3.0));
    }

    #[test]
    fn series_beyond_the_block_are_refused() {
        let (_memory, block) = block();
        let long = "x".repeat(KEY_MAX);
        let count = (0..10_000)
            .take_while(|_| block.add_series(&key(SeriesKind::Histogram, &long)).is_some());
        let count = count.count();
        assert!((150..SERIES_MAX).contains(&count), "{count}");
        assert_eq!(block.series().len(), count);
        assert_eq!(block.add_series(&key(SeriesKind::Counter, &format!("{long}x"))), None);
    }

    /// A worker writes any words into its own list.
    #[test]
    fn any_words_are_a_list() {
        let (_memory, block) = block();
        for number in [0, 1, 3, 1 << 32 | 3, 0x400 << 32 | 1, u64::MAX / 3, u64::MAX] {
            (LAYOUT..BLOCK_WORDS).for_each(|at| block.word(at).store(number, Ordering::Relaxed));
            block.word(LAYOUT).store(LAYOUT_NUMBER, Ordering::Relaxed);
            block.word(END).store(u64::MAX, Ordering::Relaxed);
            let found = block.series();
            assert!(found.len() <= SERIES_MAX);
            for (key, place) in found {
                if key.kind == SeriesKind::Histogram {
                    let _any = block.series_histogram(place);
                }
            }
            begin(&block);
            let place = block.add_series(&key(SeriesKind::Counter, "more"));
            assert!(place.is_some(), "the next process has room: {number:#x}");
        }
    }
}
