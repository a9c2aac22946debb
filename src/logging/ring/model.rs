//! The ring in all interleavings of its two ends that the memory model allows, as far as the ends
//! interrupt each other three times. More takes longer:
//! `LOOM_MAX_PREEMPTIONS=5 cargo test --lib every_interleaving`.

use std::sync::Arc;

use super::*;

/// Cells whose every interleaving is tried.
#[derive(Clone)]
struct Model(Arc<Vec<loom::sync::atomic::AtomicU64>>);

impl Cells for Model {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.0[at].load(order)
    }

    fn store(&self, at: usize, number: u64, order: Ordering) {
        self.0[at].store(number, order);
    }

    fn fence(&self) {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Two lines and a sleeping consumer in a ring that holds one: no line is torn, lost untold or out of
/// order, and the consumer is never left asleep, which would be a deadlock here.
#[test]
fn every_interleaving_delivers_or_counts_and_wakes() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(|| {
        let cells = (0..DATA + 3).map(|_| loom::sync::atomic::AtomicU64::new(0)).collect();
        let cells = Model(Arc::new(cells));
        let bell = Arc::new(loom::sync::Notify::new());
        let mut producer = Producer::new(cells.clone(), 1);
        let mut consumer = Consumer::new(cells);
        let rings = Arc::clone(&bell);
        let writer = loom::thread::spawn(move || {
            for line in [b"1", b"2"] {
                let wake = producer
                    .push(Kind::Error, line)
                    .unwrap_or_else(|_| producer.drop_line(Instant::default()));
                if wake == Wake::Consumer {
                    rings.notify();
                }
            }
        });
        let mut read = Vec::new();
        let mut lost = 0;
        let mut line = Vec::new();
        while read.len() + lost < 2 {
            match consumer.next(&mut line) {
                Next::Line(_) => read.extend_from_slice(&line),
                Next::Lost(gap) => lost += usize::try_from(gap.lines).unwrap(),
                Next::Corrupted { .. } => panic!("it is sound"),
                Next::Nothing => {
                    consumer.announce(Rest::Sleep);
                    if consumer.allows(Rest::Sleep) {
                        bell.wait();
                    }
                }
            }
        }
        assert!([&b"12"[..], b"1", b"2", b""].contains(&&read[..]), "{read:?}, lost: {lost}");
        writer.join().unwrap();
    });
}

/// Two lines are more than a quarter of the ring: a consumer that naps, and has napped before, is woken
/// when both are there. Nothing else wakes it here, as time would: left asleep, it is a deadlock.
#[test]
fn every_interleaving_wakes_who_naps_when_a_quarter_is_full() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(|| {
        let cells = (0..DATA + 8).map(|_| loom::sync::atomic::AtomicU64::new(0)).collect();
        let cells = Model(Arc::new(cells));
        let bell = Arc::new(loom::sync::Notify::new());
        let mut producer = Producer::new(cells.clone(), 1);
        let mut consumer = Consumer::new(cells);
        // A ring whose consumer has never rested wakes it for any line.
        consumer.announce(Rest::Nap);
        let rings = Arc::clone(&bell);
        let writer = loom::thread::spawn(move || {
            for line in [b"1", b"2"] {
                if producer.push(Kind::Error, line).expect("there is room") == Wake::Consumer {
                    rings.notify();
                }
            }
        });
        consumer.announce(Rest::Nap);
        // The bell may ring for nothing, too.
        while consumer.allows(Rest::Nap) {
            bell.wait();
        }
        let mut line = Vec::new();
        for wanted in [b"1", b"2"] {
            assert_eq!(consumer.next(&mut line), Next::Line(Kind::Error));
            assert_eq!(line, wanted);
        }
        writer.join().unwrap();
    });
}
