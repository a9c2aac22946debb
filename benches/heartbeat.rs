//! The cost of the scoreboard for a worker, and for the master when a worker has died.
//!
//! The target: heartbeat and scoreboard together take less than 1 % of a request. `request` and
//! `connection` are what they add to one; `heartbeat` is added a few times a second, whatever the load. What
//! a request takes altogether is printed by
//! `cargo test --release --test process the_scoreboard_costs -- --nocapture`, which also divides.

use std::hint::black_box;

use axum::http::{Method, Uri};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferricorn::bench::Board;

/// `worker_connections`, as it is when nobody sets it.
const CONNECTIONS: usize = 1000;

fn worker(criterion: &mut Criterion) {
    let board = Board::new(CONNECTIONS).expect("there is memory");
    let mut group = criterion.benchmark_group("heartbeat");
    group.throughput(Throughput::Elements(1));
    group.bench_function("heartbeat", |bencher| bencher.iter(|| board.note_heartbeat()));
    let long = format!("/{}", "a".repeat(2000));
    for (name, target) in [
        ("request, short target", "/"),
        ("request, usual target", "/articles/iron-unicorn?colour=silver&page=3"),
        ("request, cut target", &long),
    ] {
        let target: Uri = target.parse().expect("it is a target");
        let mut connection = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // One after another, as many clients speak.
                connection = (connection + 1) % 64;
                board.request(connection, black_box(&Method::GET), black_box(&target));
            });
        });
    }
    group.bench_function("connection", |bencher| bencher.iter(|| board.connection()));
    group.finish();
}

fn master(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heartbeat/held");
    let target = Uri::from_static("/articles/iron-unicorn?colour=silver&page=3");
    for held in [0, 10, CONNECTIONS] {
        let board = Board::new(CONNECTIONS).expect("there is memory");
        (0..held).for_each(|connection| board.hold(connection, &target));
        assert_eq!(board.held(), held);
        group.bench_function(held.to_string(), |bencher| bencher.iter(|| board.held()));
    }
    group.finish();
}

criterion_group!(benches, worker, master);
criterion_main!(benches);
