//! What the server writes itself, and the body decoder's framing.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hoopsnake::serve::http1::encode::{DateText, chunk_start, decimal, plain_response, refusal_response};
use hoopsnake::serve::http1::{BodyDecoder, Framing, Refusal, Step, Version};

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let mut date = DateText::default();
    group.bench_function("date, same second", |bencher| {
        bencher.iter(|| *date.at(black_box(1_700_000_000)));
    });
    let mut second = 1_700_000_000;
    group.bench_function("date, next second", |bencher| {
        bencher.iter(|| {
            second += 1;
            *date.at(black_box(second))
        });
    });
    let date = *date.at(1_700_000_000);
    let mut out = Vec::with_capacity(1024);
    group.bench_function("plain response", |bencher| {
        bencher.iter(|| {
            out.clear();
            plain_response(&mut out, black_box(404), "404 Not Found\n", "", &date, true, Version::Http11, false);
        });
    });
    group.bench_function("refusal response", |bencher| {
        bencher.iter(|| {
            out.clear();
            refusal_response(&mut out, black_box(Refusal::HeadTooLarge), &date, false);
        });
    });
    group.bench_function("decimal and chunk start", |bencher| {
        bencher.iter(|| {
            out.clear();
            decimal(&mut out, black_box(13));
            chunk_start(&mut out, black_box(65_536));
        });
    });
    group.finish();
}

/// 1 MiB in chunks of `size`.
fn chunked(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..(1024 * 1024 / size) {
        chunk_start(&mut body, size);
        body.resize(body.len() + size, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode 1 MiB chunked");
    group.throughput(Throughput::Bytes(1024 * 1024));
    for size in [16, 1024, 65_536] {
        let body = chunked(size);
        group.bench_function(format!("in chunks of {size}"), |bencher| {
            bencher.iter(|| {
                let mut decoder =
                    BodyDecoder::new(Framing::Chunked, u64::MAX).expect("no length that could be too large");
                let (mut used, mut bytes) = (0, 0);
                while let Step::Data { data, consumed } =
                    decoder.decode(black_box(&body[used..])).expect("well-formed chunks")
                {
                    used += consumed;
                    bytes += data.len();
                }
                bytes
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
