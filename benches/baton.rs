//! The baton's own cost: what a reactor pays once per turn, and a worker once per request.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use hoopsnake::reactor::clock::Instant;
use hoopsnake::serve::wsgi::baton::Baton;

const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("baton");
    let busy = Baton::new(1000);
    (1..1000).for_each(|worker| busy.rest(worker));
    busy.start();
    busy.popped(NOW, Duration::ZERO, false);
    group.bench_function("tick_while_running", |bencher| bencher.iter(|| black_box(&busy).tick(black_box(NOW))));
    group.bench_function("stall_while_running", |bencher| {
        bencher.iter(|| black_box(&busy).stall(black_box(NOW), false))
    });
    group.bench_function("popped", |bencher| {
        bencher.iter(|| black_box(&busy).popped(black_box(NOW), Duration::ZERO, true))
    });
    for idle in [0, 999] {
        let resting = Baton::new(1000);
        resting.rest(idle);
        group.bench_function(format!("wake_and_rest_of_worker_{idle}"), |bencher| {
            bencher.iter(|| {
                let worker = black_box(&resting).tick(NOW).expect("it rests");
                resting.start();
                resting.arrived(NOW, true);
                resting.stop();
                resting.rest(worker);
            });
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
