//! The cost of an access line: in the default format, as JSON, and the compilation of a format.
//!
//! The target is 400 ns for a line of the default format, and no allocation (which
//! `tests/access_log_allocations.rs` proves).

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferricorn::bench::{AccessFormat, AccessWriter};

use crate::request::{DEFAULT, Request};

#[path = "../tests/support/request.rs"]
mod request;

fn lines(criterion: &mut Criterion) {
    let request = Request::new();
    let mut group = criterion.benchmark_group("access_log/line");
    group.throughput(Throughput::Elements(1));
    for (name, format) in [("default", DEFAULT), ("json", "json")] {
        let format = AccessFormat::compile(format).expect("the format is valid");
        let mut writer = AccessWriter::new(format);
        let mut out = Vec::with_capacity(4096);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                writer.write(black_box(&request.record()), &mut out);
                black_box(&out);
            });
        });
    }
    group.finish();
}

fn compilation(criterion: &mut Criterion) {
    criterion.bench_function("access_log/compile", |bencher| {
        bencher.iter(|| AccessFormat::compile(black_box(DEFAULT)));
    });
}

criterion_group!(benches, lines, compilation);
criterion_main!(benches);
