//! The recorder behind the `metrics` crate in a worker: the application's numbers go into the worker's
//! block in shared memory, from which the stats process serves them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata,
    SharedString, Unit,
};

use super::events::WorkerEvent;
use crate::access_format::one_line;
use crate::ids::Slot;
use crate::logging;
use crate::scoreboard::{
    BOUNDS, Block, SERIES_MAX, SeriesKey, SeriesKind, SeriesName, SeriesPlace, WorkerBoard, bounds,
    help_key,
};

/// Keys whose series is found without a look at the list.
const KNOWN_MAX: usize = 4 * SERIES_MAX;
/// Characters of a description.
const HELP_MAX: usize = 200;

/// Has this process count where metrics are on. An application that has installed a recorder of its own
/// keeps it.
pub(super) fn install(board: &Arc<WorkerBoard>, slot: Slot) {
    if let Some(metrics) = board.metrics() {
        let recorder = Recorder::new(board, metrics.block(), slot);
        let _own_recorder = metrics::set_global_recorder(recorder);
    }
}

/// The recorder.
struct Recorder {
    board: Arc<WorkerBoard>,
    slot: Slot,
    counters: Known<CounterCell>,
    gauges: Known<GaugeCell>,
    histograms: Known<HistogramCell>,
    list: Mutex<BTreeMap<SeriesKey, Listed>>,
    has_refused: AtomicBool,
}

/// A series of the block.
#[derive(Clone, Copy)]
struct Listed {
    place: SeriesPlace,
    /// The number that a counter had when this process began.
    base: u64,
}

/// The series by the application's own keys.
struct Known<T>(RwLock<HashMap<Key, Arc<T>>>);

impl<T> Known<T> {
    fn new() -> Self {
        Self(RwLock::default())
    }

    fn get_or(&self, key: &Key, make: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        if let Some(cell) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(Arc::clone(cell));
        }
        let cell = Arc::new(make()?);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KNOWN_MAX {
            known.insert(key.clone(), Arc::clone(&cell));
        }
        Some(cell)
    }
}

impl Recorder {
    fn new(board: &Arc<WorkerBoard>, block: &Block, slot: Slot) -> Self {
        let inherited = block.series().into_iter().map(|(key, place)| {
            let is_counter = key.kind == SeriesKind::Counter;
            let base = if is_counter { block.counter(place).unchecked() } else { 0 };
            (key, Listed { place, base })
        });
        Self {
            board: Arc::clone(board),
            slot,
            counters: Known::new(),
            gauges: Known::new(),
            histograms: Known::new(),
            list: Mutex::new(inherited.collect()),
            has_refused: AtomicBool::new(false),
        }
    }

    /// The series of this key; `None` where it is refused.
    fn series(&self, kind: SeriesKind, key: &Key) -> Option<(SeriesName, Listed)> {
        let labels = key.labels().map(|label| (label.key(), label.value()));
        let name = SeriesName::new(base_name(kind, key.name()), labels);
        let Some(name) = name else {
            return self.refuse(key.name(), "its name or a label's is not valid");
        };
        let listed = self.listed(SeriesKey { kind, bytes: name.key() });
        let full = "this worker has no room for a further one";
        listed.map_or_else(|| self.refuse(key.name(), full), |listed| Some((name, listed)))
    }

    /// The series in the list, which is added where it is not there.
    fn listed(&self, key: SeriesKey) -> Option<Listed> {
        let block = block(&self.board)?;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listed) = list.get(&key) {
            return Some(*listed);
        }
        if list.len() >= SERIES_MAX {
            return None;
        }
        let listed = Listed { place: block.add_series(&key)?, base: 0 };
        list.insert(key, listed);
        Some(listed)
    }

    // ORDERING: the flag stands for itself: Relaxed.
    fn refuse<T>(&self, name: &str, reason: &'static str) -> Option<T> {
        block(&self.board)?.count_refused_series();
        if !self.has_refused.swap(true, Ordering::Relaxed) {
            let name = one_line(name);
            logging::emit(&WorkerEvent::SeriesRefused { slot: self.slot, name, reason });
        }
        None
    }

    fn describe(&self, kind: SeriesKind, name: &KeyName, text: &str) {
        let text: String = text.chars().take(HELP_MAX).collect();
        if let Some(bytes) = help_key(base_name(kind, name.as_str()), &text) {
            // A description without room is none.
            let _listed = self.listed(SeriesKey { kind: SeriesKind::Help, bytes });
        }
    }
}

fn block(board: &WorkerBoard) -> Option<&Block> {
    board.metrics().map(|metrics| metrics.block())
}

/// The name of a counter is served with `_total`, whether the application gives it that or not.
fn base_name(kind: SeriesKind, name: &str) -> &str {
    match kind {
        SeriesKind::Counter => name.strip_suffix("_total").unwrap_or(name),
        SeriesKind::Gauge | SeriesKind::Histogram | SeriesKind::Help => name,
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(SeriesKind::Counter, &name, &text);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(SeriesKind::Gauge, &name, &text);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(SeriesKind::Histogram, &name, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let cell = self.counters.get_or(key, || {
            let (_, Listed { place, base }) = self.series(SeriesKind::Counter, key)?;
            Some(CounterCell { board: Arc::clone(&self.board), place, base })
        });
        cell.map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let cell = self.gauges.get_or(key, || {
            let (_, Listed { place, .. }) = self.series(SeriesKind::Gauge, key)?;
            Some(GaugeCell { board: Arc::clone(&self.board), place })
        });
        cell.map_or_else(Gauge::noop, Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let cell = self.histograms.get_or(key, || {
            let (name, Listed { place, .. }) = self.series(SeriesKind::Histogram, key)?;
            let bounds = bounds(&name.name);
            Some(HistogramCell { board: Arc::clone(&self.board), place, bounds })
        });
        cell.map_or_else(Histogram::noop, Histogram::from_arc)
    }
}

struct CounterCell {
    board: Arc<WorkerBoard>,
    place: SeriesPlace,
    base: u64,
}

impl CounterFn for CounterCell {
    fn increment(&self, by: u64) {
        block(&self.board).inspect(|block| block.raise_counter(self.place, by));
    }

    /// The number of this process, which counts behind those of its predecessors.
    fn absolute(&self, number: u64) {
        let number = self.base.saturating_add(number);
        block(&self.board).inspect(|block| block.raise_counter_to(self.place, number));
    }
}

struct GaugeCell {
    board: Arc<WorkerBoard>,
    place: SeriesPlace,
}

impl GaugeFn for GaugeCell {
    fn increment(&self, by: f64) {
        block(&self.board).inspect(|block| block.move_gauge(self.place, by));
    }

    fn decrement(&self, by: f64) {
        self.increment(-by);
    }

    fn set(&self, number: f64) {
        block(&self.board).inspect(|block| block.set_gauge(self.place, number));
    }
}

struct HistogramCell {
    board: Arc<WorkerBoard>,
    place: SeriesPlace,
    bounds: [f64; BOUNDS],
}

impl HistogramFn for HistogramCell {
    fn record(&self, number: f64) {
        self.record_many(number, 1);
    }

    /// A number that is none, or endless, would spoil the sum.
    fn record_many(&self, number: f64, times: usize) {
        if let (Some(block), true) = (block(&self.board), number.is_finite()) {
            block.observe_number(self.place, &self.bounds, number.max(0.0), times);
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::{Label, Level, Recorder as _};

    use super::*;
    use crate::scoreboard::MetricsMemory;

    const METADATA: Metadata<'static> = Metadata::new("", Level::INFO, None);

    fn worker(memory: &MetricsMemory, pid: i32) -> Recorder {
        let board = Arc::new(WorkerBoard::new(1).unwrap());
        board.measure(memory.of_place(1).unwrap(), pid);
        Recorder::new(&board, board.metrics().unwrap().block(), Slot::new(0))
    }

    fn numbers(recorder: &Recorder) -> Vec<u64> {
        let block = block(&recorder.board).unwrap();
        let counters =
            block.series().into_iter().filter(|(key, _)| key.kind == SeriesKind::Counter);
        counters.map(|(_, place)| block.counter(place).unchecked()).collect()
    }

    #[test]
    fn counter_goes_on_with_the_next_process() {
        let memory = MetricsMemory::new().unwrap();
        let key = Key::from_parts("jobs", vec![Label::new("kind", "a"), Label::new("by", "b")]);
        let swapped =
            Key::from_parts("jobs_total", vec![Label::new("by", "b"), Label::new("kind", "a")]);
        let first = worker(&memory, 7);
        first.register_counter(&key, &METADATA).increment(2);
        first.register_counter(&swapped, &METADATA).increment(3);
        first.register_counter(&key, &METADATA).absolute(4);
        assert_eq!(numbers(&first), [5], "one series, and it never falls");
        let next = worker(&memory, 8);
        next.register_counter(&key, &METADATA).absolute(4);
        assert_eq!(numbers(&next), [9]);
    }

    #[test]
    fn series_without_a_valid_name_or_room_are_refused_and_counted() {
        let memory = MetricsMemory::new().unwrap();
        let recorder = worker(&memory, 7);
        recorder.register_gauge(&Key::from_name("ferricorn_workers"), &METADATA).set(9.0);
        let count = 2 * SERIES_MAX;
        for user in 0..count {
            let label = Label::new("user", user.to_string());
            recorder
                .register_counter(&Key::from_parts("logins", vec![label]), &METADATA)
                .increment(1);
        }
        assert_eq!(numbers(&recorder), vec![1; SERIES_MAX]);
        let refused = block(&recorder.board).unwrap().refused_series().unchecked();
        assert_eq!(refused, (count - SERIES_MAX + 1) as u64);
    }
}
