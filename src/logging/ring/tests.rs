//! One producer, one consumer: in one thread against a model, and in two threads. Miri can run them,
//! shorter: `./check miri`.

// ORDERING: where a test writes cells itself, one thread does, or the other end is dead: Relaxed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;

/// Cells in plain memory.
#[derive(Clone, Debug)]
struct Heap(Arc<[AtomicU64]>);

impl Heap {
    fn with_capacity(cells: usize) -> Self {
        Self((0..DATA + cells).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Cells for Heap {
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
        atomic::fence(Ordering::SeqCst);
    }
}

fn pair(cells: usize) -> (Heap, Producer<Heap>, Consumer<Heap>) {
    let heap = Heap::with_capacity(cells);
    (heap.clone(), Producer::new(heap.clone(), 7), Consumer::new(heap))
}

/// Publishes a line that has room; no reader sleeps.
fn put(producer: &mut Producer<Heap>, kind: Kind, line: &[u8]) {
    let _wake = producer.push(kind, line).expect("there is room");
}

/// A line of this length that is unlike others.
fn line(number: usize, length: usize) -> Vec<u8> {
    let mut line = format!("{number} ").into_bytes();
    line.resize(length, u8::try_from(number % 251).expect("below 256"));
    line
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

#[test]
fn lines_of_every_length_come_out_as_they_went_in() {
    let (_, mut producer, mut consumer) = pair(RECORD_MAX / 8 + 100);
    let mut read = Vec::new();
    let lengths = [0, 1, 7, 8, 9, 100, 801, 4096, 4097, RECORD_MAX - 1, RECORD_MAX];
    for length in lengths.into_iter().filter(|length| !cfg!(miri) || *length < 1000) {
        let given = line(length, length);
        put(&mut producer, Kind::Error, &given);
        assert_eq!(consumer.next(&mut read), Next::Line(Kind::Error));
        assert!(read == given, "{length} bytes");
        assert_eq!(consumer.next(&mut read), Next::Nothing);
        consumer.commit();
    }
    let longer = vec![b'a'; RECORD_MAX + 1];
    assert_eq!(producer.push(Kind::Error, &longer), Err(Full));
}

#[test]
fn error_lines_have_room_of_their_own() {
    let (_, mut producer, mut consumer) = pair(64);
    let push = |producer: &mut Producer<Heap>, kind| producer.push(kind, b"12345678").is_ok();
    let mut accepted = (0, 0);
    while push(&mut producer, Kind::Access) {
        accepted.0 += 1;
    }
    while push(&mut producer, Kind::Error) {
        accepted.1 += 1;
    }
    // A record of one cell of bytes takes two: 48 and 64 cells may be filled.
    assert_eq!(accepted, (24, 8));
    let mut line = Vec::new();
    let mut take = |producer: &mut Producer<Heap>, count| {
        for _ in 0..count {
            assert!(matches!(consumer.next(&mut line), Next::Line(_)));
        }
        consumer.commit();
        push(producer, Kind::Access)
    };
    // Access lines find room again when half of theirs is free.
    assert!(!take(&mut producer, 8));
    assert!(!take(&mut producer, 12));
    assert!(take(&mut producer, 1));
}

#[test]
fn a_gap_is_told_once_where_it_is_with_its_number_and_span() {
    let (_, mut producer, mut consumer) = pair(16);
    let mut line = Vec::new();
    put(&mut producer, Kind::Access, b"before");
    for millis in [1000, 1500, 4000] {
        let _wake = producer.drop_line(at(millis));
    }
    put(&mut producer, Kind::Error, b"after");
    assert_eq!(consumer.next(&mut line), Next::Line(Kind::Access));
    let span = Duration::from_secs(3);
    assert_eq!(consumer.next(&mut line), Next::Lost(Lost { lines: 3, span, pid: Some(7) }));
    assert_eq!(consumer.next(&mut line), Next::Line(Kind::Error));
    assert_eq!(line, b"after");
    assert_eq!(consumer.next(&mut line), Next::Nothing);
    consumer.commit();
    // One at the end is told although no line follows, with a span of its own.
    let _wake = producer.drop_line(at(9000));
    let span = Duration::ZERO;
    assert_eq!(consumer.next(&mut line), Next::Lost(Lost { lines: 1, span, pid: Some(7) }));
    assert_eq!(consumer.next(&mut line), Next::Nothing);
}

#[test]
fn gaps_that_are_told_together_do_not_tell_of_the_same_time() {
    let (_, mut producer, mut consumer) = pair(16);
    for millis in [1000, 3000, 4000] {
        let _wake = producer.drop_line(at(millis));
        put(&mut producer, Kind::Error, b"line");
    }
    let mut spans = Vec::new();
    loop {
        match consumer.next(&mut Vec::new()) {
            Next::Nothing => break,
            Next::Lost(lost) => spans.push((lost.lines, lost.span)),
            Next::Line(_) | Next::Corrupted { .. } => {}
        }
    }
    let [all, nothing] = [Duration::from_secs(3), Duration::ZERO];
    assert_eq!(spans, [(1, all), (1, nothing), (1, nothing)]);
}

#[test]
fn a_mark_is_passed_when_what_stood_before_it_is_read() {
    let (_, mut producer, mut consumer) = pair(16);
    let mut line = Vec::new();
    put(&mut producer, Kind::Error, b"1");
    let _wake = producer.drop_line(at(1));
    let mark = consumer.mark();
    for expected in
        [Next::Line(Kind::Error), Next::Lost(Lost { lines: 1, span: Duration::ZERO, pid: Some(7) })]
    {
        assert!(!consumer.has_passed(mark));
        assert_eq!(consumer.next(&mut line), expected);
    }
    assert!(consumer.has_passed(mark));
    put(&mut producer, Kind::Error, b"2");
    assert!(consumer.has_passed(mark));
    assert!(!consumer.has_passed(consumer.mark()));
    assert_eq!(consumer.next(&mut line), Next::Line(Kind::Error));
    assert!(consumer.has_passed(mark));
}

#[test]
fn what_was_not_committed_is_read_again_and_nothing_else() {
    let (heap, mut producer, mut consumer) = pair(64);
    let mut line = Vec::new();
    put(&mut producer, Kind::Error, b"1");
    put(&mut producer, Kind::Error, b"2");
    assert_eq!(consumer.next(&mut line), Next::Line(Kind::Error));
    consumer.commit();
    assert_eq!(consumer.next(&mut line), Next::Line(Kind::Error));
    assert_eq!(line, b"2");
    let mut next = Consumer::new(heap.clone());
    // Another producer goes on where the first has stopped.
    put(&mut Producer::new(heap, 8), Kind::Error, b"3");
    for expected in ["2", "3"] {
        assert_eq!(next.next(&mut line), Next::Line(Kind::Error));
        assert_eq!(line, expected.as_bytes());
    }
    assert_eq!(next.next(&mut line), Next::Nothing);
}

#[test]
fn a_consumer_that_dies_while_it_commits_has_told_of_a_gap_once() {
    let (heap, mut producer, mut consumer) = pair(64);
    let mut line = Vec::new();
    put(&mut producer, Kind::Error, b"1");
    for lost in [3, 4] {
        for _ in 0..lost {
            let _wake = producer.drop_line(at(1));
        }
        put(&mut producer, Kind::Error, b"2");
    }
    while consumer.next(&mut line) != Next::Nothing {}
    let tail = heap.load(TAIL, Ordering::Relaxed);
    consumer.commit();
    // As if it had been killed between its two stores.
    heap.store(TAIL, tail, Ordering::Relaxed);
    let mut next = Consumer::new(heap);
    for expected in [Next::Line(Kind::Error); 3] {
        assert_eq!(next.next(&mut line), expected);
    }
    assert_eq!(next.next(&mut line), Next::Nothing);
    // And the next gap is told as ever.
    let _wake = producer.drop_line(at(2));
    assert!(matches!(next.next(&mut line), Next::Lost(Lost { lines: 1, .. })));
}

#[test]
fn a_gap_is_told_of_the_process_whose_lines_were_lost() {
    let (heap, mut producer, mut consumer) = pair(16);
    let mut line = Vec::new();
    let gap =
        |lines, millis, pid| Next::Lost(Lost { lines, span: Duration::from_millis(millis), pid });
    // Each dies, and another has its ring before any read.
    let _wake = producer.drop_line(at(1));
    let _wake = producer.drop_line(at(5));
    let mut producer = Producer::new(heap.clone(), 8);
    put(&mut producer, Kind::Error, b"1");
    let _wake = producer.drop_line(at(7));
    assert_eq!(consumer.next(&mut line), gap(2, 4, Some(7)));
    assert_eq!(consumer.next(&mut line), Next::Line(Kind::Error));
    assert_eq!(consumer.next(&mut line), gap(1, 2, Some(8)));
    assert_eq!(consumer.next(&mut line), Next::Nothing);
    consumer.commit();
    let _wake = producer.drop_line(at(9));
    assert_eq!(consumer.next(&mut line), gap(1, 0, Some(8)));
    consumer.commit();
    // Before the second of these begins, the first has lost nothing.
    let _idle = Producer::new(heap.clone(), 9);
    let mut producer = Producer::new(heap.clone(), 10);
    let _wake = producer.drop_line(at(20));
    // Of several, none is blamed for what is another's; a gap between two records may be theirs both.
    let mut producer = Producer::new(heap.clone(), 11);
    let _wake = producer.drop_line(at(22));
    let mut producer = Producer::new(heap.clone(), 12);
    let _wake = producer.drop_line(at(23));
    assert_eq!(consumer.next(&mut line), gap(2, 2, None));
    assert_eq!(consumer.next(&mut line), gap(1, 1, Some(12)));
    assert_eq!(consumer.next(&mut line), Next::Nothing);
}

#[test]
fn a_count_that_goes_back_does_not_keep_the_consumer_awake() {
    let (heap, mut producer, mut consumer) = pair(16);
    for _ in 0..3 {
        let _wake = producer.drop_line(at(1));
    }
    let mut line = Vec::new();
    while consumer.next(&mut line) != Next::Nothing {}
    consumer.commit();
    heap.store(DROPPED, 1, Ordering::Relaxed);
    assert_eq!(consumer.next(&mut line), Next::Nothing);
    consumer.announce(Rest::Sleep);
    assert!(consumer.allows(Rest::Sleep));
    // The next one begins at that count.
    let _wake = Producer::new(heap, 8).drop_line(at(2));
    assert!(matches!(consumer.next(&mut line), Next::Lost(Lost { lines: 1, .. })));
}

#[test]
fn a_consumer_is_woken_once_when_it_sleeps_and_late_when_it_naps() {
    let (_, mut producer, mut consumer) = pair(64);
    let mut line = Vec::new();
    let mut push = || producer.push(Kind::Access, b"12345678").unwrap();
    // It has never announced anything: perhaps it does not know the ring.
    assert_eq!([push(), push()], [Wake::Consumer, Wake::Nobody]);
    while consumer.next(&mut line) != Next::Nothing {}
    consumer.announce(Rest::Sleep);
    assert!(consumer.allows(Rest::Sleep));
    assert_eq!([push(), push()], [Wake::Consumer, Wake::Nobody]);
    assert!(!consumer.allows(Rest::Sleep));
    while consumer.next(&mut line) != Next::Nothing {}
    consumer.announce(Rest::Nap);
    assert!(consumer.allows(Rest::Nap));
    // A quarter of 64 cells is eight records.
    assert_eq!([(); 8].map(|()| push()), [Wake::Nobody; 8]);
    assert!(consumer.allows(Rest::Nap));
    assert_eq!([push(), push()], [Wake::Consumer, Wake::Nobody]);
    assert!(!consumer.allows(Rest::Nap));
}

#[test]
fn a_line_that_is_dropped_while_the_consumer_rests_is_told_too() {
    let (_, mut producer, mut consumer) = pair(16);
    consumer.announce(Rest::Sleep);
    assert_eq!(producer.drop_line(at(1)), Wake::Consumer);
    assert!(!consumer.allows(Rest::Sleep));
    assert!(matches!(consumer.next(&mut Vec::new()), Next::Lost(Lost { lines: 1, .. })));
    consumer.announce(Rest::Sleep);
    assert!(consumer.allows(Rest::Sleep));
}

#[derive(Clone, Debug)]
enum Step {
    Push(Kind, usize),
    Read(usize),
    Commit,
    /// The producer dies and has a replacement.
    NextProducer,
    /// The consumer dies and has a replacement.
    NextConsumer,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![Just(Kind::Access), Just(Kind::Error)];
    let step = prop_oneof![
        6 => (kind, 0_usize..80).prop_map(|(kind, length)| Step::Push(kind, length)),
        4 => (1_usize..6).prop_map(Step::Read),
        3 => Just(Step::Commit),
        1 => Just(Step::NextProducer),
        1 => Just(Step::NextConsumer),
    ];
    proptest::collection::vec(step, 1..if cfg!(miri) { 30 } else { 300 })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Against a queue: everything comes out once, in order, and what did not fit is counted.
    #[test]
    fn it_is_a_queue_however_often_it_wraps(
        capacity in 12_usize..64, start: u32, steps in steps(),
    ) {
        let heap = Heap::with_capacity(capacity);
        for cell in [HEAD, TAIL] {
            heap.store(cell, u64::from(start), Ordering::Relaxed);
        }
        let mut producer = Producer::new(heap.clone(), 1);
        let mut consumer = Consumer::new(heap.clone());
        // Published and not committed; so many of them are read.
        let mut waiting = VecDeque::new();
        let mut read = 0;
        let mut dropped = 0;
        let mut told = 0;
        let mut told_committed = 0;
        let mut bytes = Vec::new();
        for (number, step) in steps.into_iter().chain([Step::Read(1000)]).enumerate() {
            match step {
                Step::Push(kind, length) => {
                    let given = line(number, length);
                    let cells = |line: &Vec<u8>| 1 + line.len().div_ceil(8);
                    let used: usize = waiting.iter().map(|(_, line)| cells(line)).sum();
                    let fits = used + cells(&given) <= capacity;
                    match producer.push(kind, &given) {
                        Ok(_) => {
                            prop_assert!(fits);
                            waiting.push_back((kind, given));
                        }
                        Err(Full) => {
                            prop_assert!(kind == Kind::Access || !fits);
                            let _wake = producer.drop_line(at(0));
                            dropped += 1;
                        }
                    }
                }
                Step::Read(count) => for _ in 0..count {
                    match consumer.next(&mut bytes) {
                        Next::Nothing => {
                            prop_assert_eq!((read, told), (waiting.len(), dropped));
                            break;
                        }
                        Next::Line(kind) => {
                            let (expected, line) = &waiting[read];
                            prop_assert_eq!((kind, &bytes), (*expected, line));
                            read += 1;
                        }
                        Next::Lost(lost) => told += lost.lines,
                        Next::Corrupted { .. } => prop_assert!(false, "it is sound"),
                    }
                },
                Step::Commit => {
                    consumer.commit();
                    waiting.drain(..read);
                    (read, told_committed) = (0, told);
                }
                Step::NextProducer => producer = Producer::new(heap.clone(), 1),
                Step::NextConsumer => {
                    consumer = Consumer::new(heap.clone());
                    (read, told) = (0, told_committed);
                }
            }
        }
    }

    /// Whatever a mad producer has left, and leaves, the consumer reads on without harm, and comes to
    /// an end of it.
    #[test]
    fn a_consumer_survives_any_memory(
        cells in proptest::collection::vec(
            prop_oneof![any::<u64>(), 0_u64..40, (0_u64..99).prop_map(|number| number | 1 << KIND)],
            DATA + 1..100,
        ),
        head: u64,
    ) {
        let heap = Heap(cells.into_iter().map(AtomicU64::new).collect());
        let mut consumer = Consumer::new(heap.clone());
        let mut line = Vec::new();
        let mut drain = |consumer: &mut Consumer<Heap>| {
            let most = heap.count() * 2 + 4;
            let ended = (0..most).any(|_| consumer.next(&mut line) == Next::Nothing);
            assert!(ended, "it reads more than there is");
            consumer.announce(Rest::Sleep);
            assert!(consumer.allows(Rest::Sleep), "it never sleeps again");
        };
        drain(&mut consumer);
        heap.store(HEAD, head, Ordering::Relaxed);
        drain(&mut consumer);
        drain(&mut Consumer::new(heap.clone()));
        // And who comes after the mad one finds a ring.
        heap.store(TAIL, head.wrapping_add(5), Ordering::Relaxed);
        let mut producer = Producer::new(heap.clone(), 1);
        drain(&mut consumer);
        if heap.count() >= DATA + 2 {
            prop_assert!(producer.push(Kind::Error, b"12345678").is_ok());
            prop_assert_eq!(consumer.next(&mut line), Next::Line(Kind::Error));
        }
    }
}

#[test]
fn a_ring_that_makes_no_sense_is_left_behind_and_said_so() {
    let (heap, mut producer, mut consumer) = pair(64);
    let mut line = Vec::new();
    put(&mut producer, Kind::Error, b"1");
    heap.store(DATA, 99 << KIND | 1, Ordering::Relaxed);
    assert_eq!(consumer.next(&mut line), Next::Corrupted { pid: 7 });
    assert_eq!(consumer.next(&mut line), Next::Nothing);
    put(&mut producer, Kind::Error, b"2");
    assert_eq!(consumer.next(&mut line), Next::Line(Kind::Error));
    // A length beyond what was published.
    let header = Kind::Error as u64;
    put(&mut producer, Kind::Error, b"3");
    heap.store(DATA + 4, header << KIND | 9, Ordering::Relaxed);
    assert_eq!(consumer.next(&mut line), Next::Corrupted { pid: 7 });
}

#[test]
fn two_threads_lose_nothing_and_keep_the_order() {
    let (_, mut producer, mut consumer) = pair(200);
    let lines = if cfg!(miri) { 200 } else { 200_000 };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..lines {
                let line = line(number, number * 7 % 300 + 10);
                while producer.push(Kind::Error, &line).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        let mut number = 0;
        let mut read = Vec::new();
        while number < lines {
            match consumer.next(&mut read) {
                Next::Line(_) => {
                    assert!(read == line(number, number * 7 % 300 + 10), "line {number}");
                    number += 1;
                }
                Next::Nothing => {
                    consumer.commit();
                    std::thread::yield_now();
                }
                other @ (Next::Lost(_) | Next::Corrupted { .. }) => panic!("{other:?}"),
            }
        }
    });
}
