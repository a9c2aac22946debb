//! The cost of a decision: the master's state machine, for a few workers and for many.
//!
//! The master takes a step when something happens, a few in a second; a step that took a millisecond
//! would still cost nothing. These figures are here to show growth with the number of workers.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ferricorn::bench::Decisions;

type Happening = (&'static str, fn(&mut Decisions) -> usize);

const HAPPENINGS: [Happening; 4] = [
    ("nothing", Decisions::tick),
    ("all are asked for a sign of life", Decisions::heartbeats),
    ("a connection has waited", |server| server.queued(1)),
    ("a worker is killed and replaced", Decisions::death),
];

fn steps(criterion: &mut Criterion) {
    for workers in [4, 32, 256] {
        let server = Decisions::new(workers);
        let mut group = criterion.benchmark_group(format!("supervisor/{workers}"));
        for (name, happens) in HAPPENINGS {
            let orders = happens(&mut server.clone());
            assert_eq!(orders == 0, name == "nothing", "{name}: {orders} orders");
            group.bench_function(name, |bencher| {
                bencher.iter_batched_ref(|| server.clone(), happens, BatchSize::SmallInput);
            });
        }
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
