//! The queue's operations with 100, 10,000 and 100,000 requests waiting: a request of one of 10,000 sources comes, the best is taken
//! and ended, so that both its source and the queue change. The cost must grow no faster than log n. `exempt` is the same for clients
//! of private addresses, as behind a load generator.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hoopsnake::reactor::clock::Instant;
use hoopsnake::serve::queue::Queue;
use hoopsnake::serve::queue::formula::{Asking, BEGINNING, QUERY, Source};

const SOURCES: u32 = 10_000;
const LENGTHS: [u32; 4] = [1, 100, 10_000, 100_000];

/// The request with this number: scattered over the sources, every third with a query.
fn asking(number: u32, exempt: bool) -> Asking {
    let scattered = number.wrapping_mul(2_654_435_761) % SOURCES;
    let source = if exempt { None } else { Source::of(Ipv4Addr::from_bits(0xcb00_0000 + scattered).into()) };
    Asking { source, worth: BEGINNING - if number % 3 == 0 { QUERY } else { 0 }, cost_levels: 0 }
}

fn at(number: u32) -> Instant {
    Instant::from_nanos(1_000_000_000_000 + u64::from(number) * 1_000)
}

fn filled(length: u32, exempt: bool) -> Queue<u64> {
    let mut queue = Queue::default();
    for number in 0..length {
        queue.push(u64::from(number), asking(number, exempt), at(number), at(number));
    }
    queue
}

fn turnover(criterion: &mut Criterion) {
    for (name, exempt) in [("public", false), ("exempt", true)] {
        let mut group = criterion.benchmark_group(format!("queue/{name}"));
        for length in LENGTHS {
            let (mut queue, mut number) = (filled(length, exempt), length);
            group.bench_function(format!("push, pop, finish with {length} waiting"), |bencher| {
                bencher.iter(|| {
                    let now = at(number);
                    queue.push(u64::from(number), asking(number, exempt), now, now);
                    if let Some(taken) = queue.pop(now) {
                        black_box(taken.item);
                        queue.finish(taken.run, now);
                    }
                    number = number.wrapping_add(1);
                });
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("queue/evict");
    for length in LENGTHS {
        let (mut queue, mut number) = (filled(length, false), length);
        group.bench_function(format!("push, evict with {length} waiting"), |bencher| {
            bencher.iter(|| {
                queue.push(u64::from(number), asking(number, false), at(number), at(number));
                black_box(queue.evict(at(number)));
                number = number.wrapping_add(1);
            });
        });
    }
    group.finish();
    criterion.bench_function("queue/fill and empty 1,000", |bencher| {
        bencher.iter_batched(
            || filled(1_000, true),
            |mut queue| {
                while let Some(taken) = queue.pop(at(2_000)) {
                    queue.finish(taken.run, at(2_000))
                }
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(all, turnover);
criterion_main!(all);
