//! The response cache: a lookup that finds, one that doesn't, one that has to tell cookies apart, a store, and several threads at once.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use criterion::{Criterion, criterion_group, criterion_main};
use hoopsnake::limits;
use hoopsnake::reactor::clock::Instant;
use hoopsnake::reactor::shared_memory::SharedMemory;
use hoopsnake::serve::http1::{Head, HeadLimits};
use hoopsnake::serve::local::cache::arena::Arena;
use hoopsnake::serve::local::cache::entry::{Guard, Passing};
use hoopsnake::serve::local::cache::epochs::Epochs;
use hoopsnake::serve::local::cache::freshness::Times;
use hoopsnake::serve::local::cache::request::Asked;
use hoopsnake::serve::local::cache::rules::Class;
use hoopsnake::serve::local::cache::{Buffers, Cache, Found, Settings};

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
const GUARD: Guard = Guard { listener: 0, https: false, class: Class::Get };

fn request(path: &str, more: &str) -> Head {
    let limits = HeadLimits {
        request_line_bytes_max: limits::REQUEST_LINE_BYTES_MAX,
        head_bytes_max: limits::HEAD_BYTES_MAX,
        fields_max: limits::FIELDS_MAX,
    };
    let mut head = Head::default();
    let text = format!("GET {path} HTTP/1.1\r\nHost: www.example.com\r\nAccept: */*\r\n{more}\r\n");
    assert_eq!(head.parse(text.as_bytes(), 0, &limits), Ok(Some(text.len())));
    head
}

fn store(cache: &Cache, head: &Head, fields: &str, body: &[u8]) {
    let asked = Asked::read(head, true);
    let text = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: max-age=60\r\n{fields}\r\n");
    let passing = Passing::parse(text.as_bytes()).expect("well-formed");
    let times = Times { asked: NOW, answered: NOW, answered_unix: 1_000_000_000 };
    let wanted = cache.wanted(head, GUARD);
    let stored = cache.store(&wanted, head, &asked, &passing, None, &times, body.len(), || Some(body.into()));
    assert!(stored.is_ok());
}

fn lookups(criterion: &mut Criterion) {
    let settings = Settings {
        ceiling: Duration::from_secs(60),
        bytes_max: limits::CACHE_BYTES_MAX,
        response_bytes_max: limits::CACHE_RESPONSE_BYTES_MAX,
        descriptors_max: limits::CACHE_DESCRIPTORS_MAX,
        show_status: false,
    };
    let cache = Cache::new(settings, RandomState::with_seeds(1, 2, 3, 4), Arc::new(Epochs::own()));
    let body = vec![b'x'; 10_000];
    for number in 0..1000 {
        store(&cache, &request(&format!("/page/{number}"), ""), "", &body);
    }
    let cookies = |number: u32| request("/mine", &format!("Cookie: theme=dark; session={number}; _ga=GA1.2.3\r\n"));
    for number in 0..8 {
        store(&cache, &cookies(number), "Vary: Cookie\r\n", &body);
    }
    let mut group = criterion.benchmark_group("cache");
    let mut buffers = Buffers::default();
    for (name, head, hits) in [
        ("hit", request("/page/500", ""), true),
        ("miss", request("/nothing", ""), false),
        ("hit, the oldest of eight by cookie", cookies(0), true),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let asked = Asked::read(black_box(&head), true);
                let found = cache.find(&head, &asked, GUARD, NOW, &mut buffers);
                assert_eq!(matches!(found, Found::Entry(..)), hits);
            });
        });
    }
    let head = request("/page/500", "");
    let mut out = Vec::with_capacity(1024);
    let asked = Asked::read(&head, true);
    let Found::Entry(entry, _) = cache.find(&head, &asked, GUARD, NOW, &mut buffers) else { return };
    group.bench_function("head of an answer", |bencher| {
        bencher.iter(|| {
            out.clear();
            entry.append_head(&mut out, black_box(NOW));
        });
    });
    group.bench_function("store 10 KB", |bencher| bencher.iter(|| store(&cache, black_box(&head), "", &body)));
    // As one of several processes: one page, of which it has a copy, and many in turn, of which it hasn't.
    for (name, pages) in [("hit, shared", 1), ("hit, shared, copied 10 KB", 1000)] {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let memory = |words| Box::new(SharedMemory::new(words).expect("there is memory"));
        let arena = Arena::new(memory(Arena::words(limits::CACHE_BYTES_MAX)), hasher.clone());
        let epochs = Epochs::shared(memory(limits::CACHE_EPOCHS));
        let settings = Settings { bytes_max: limits::CACHE_BYTES_MAX / 256, ..settings };
        let cache = Cache::sharing(settings, hasher, Arc::new(epochs), Arc::new(arena));
        let heads: Vec<Head> = (0..pages).map(|number| request(&format!("/page/{number}"), "")).collect();
        heads.iter().for_each(|head| store(&cache, head, "", &body));
        let mut heads = heads.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let Some(head) = heads.next() else { return };
                let asked = Asked::read(black_box(head), true);
                let found = cache.find(head, &asked, GUARD, NOW, &mut buffers);
                assert!(matches!(found, Found::Entry(..)));
            });
        });
        if pages == 1 {
            group.bench_function("store 10 KB, shared", |bencher| {
                bencher.iter(|| store(&cache, black_box(&head), "", &body));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
