//! One request through a worker, from the queue to the reactor's mailbox: what a request costs under the GIL, the kernel left out.
//! `minimal` is a head as a load generator sends it, `browser` one with a browser's fields.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hoopsnake::reactor::{Waker, clock};
use hoopsnake::serve::exchange::{Exchange, Mailbox, Message, Peer};
use hoopsnake::serve::http1::{Head, HeadLimits};
use hoopsnake::serve::queue::rules::Rules;
use hoopsnake::serve::wsgi::{ListenerInfo, Pool, PoolSettings};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Few enough for their heads to be in the cache, as they are when a reactor has just read them.
const REQUESTS: u64 = 512;

const MINIMAL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";
const BROWSER: &[u8] = b"GET /articles/2024/hello?page=2&sort=new HTTP/1.1\r\nHost: www.example.org\r\nConnection: keep-alive\r\n\
Cache-Control: max-age=0\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/126.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nReferer: https://www.example.org/\r\nAccept-Encoding: gzip, deflate, br\r\n\
Accept-Language: en-GB,en;q=0.9\r\nCookie: csrftoken=abcdefghijklmnopqrstuvwxyz; sessionid=0123456789abcdef\r\n\r\n";

const HELLO: &str = "def application(environ, start_response):\n    \
                     start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '13')])\n    return [b'Hello, World!']\n";

fn exchange(request: &[u8]) -> Box<Exchange> {
    let mut head = Head::default();
    let limits = HeadLimits { request_line_bytes_max: 1 << 14, head_bytes_max: 1 << 16, fields_max: 128 };
    head.parse(request, 0, &limits).expect("a well-formed head").expect("a whole head");
    let now = clock::now();
    Box::new(Exchange {
        peer: Peer::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), 50000),
        head,
        received: now,
        queued: now,
        deadline: now + Duration::from_secs(60),
        ..Exchange::default()
    })
}

/// Runs `exchanges` through a pool of one worker and gives them back, with the time that took.
#[expect(clippy::vec_box, reason = "a pool takes them boxed")]
fn round(application: &Py<PyAny>, exchanges: &mut Vec<Box<Exchange>>) -> Duration {
    let mailbox = Arc::new(Mailbox { queue: Default::default(), waker: Waker::shared().expect("a descriptor") });
    let settings = PoolSettings {
        workers: 1,
        max_workers: 1,
        request_timeout: Duration::from_secs(60),
        measure_cpu: false,
        multiprocess: false,
        listeners: vec![ListenerInfo::tcp(([127, 0, 0, 1], 8000).into())],
        trusted_proxies: Vec::new(),
        header_underscores: false,
        queue: Rules::default(),
        notifier: Arc::default(),
        sendfile: false,
        accel: false,
        driver: "bench",
    };
    let pool = Pool::new(settings, vec![Arc::clone(&mailbox)]);
    for mut exchange in exchanges.drain(..) {
        exchange.deadline = clock::now() + Duration::from_secs(60);
        pool.submit(exchange);
    }
    pool.close();
    let elapsed = Python::attach(|py| {
        let application = application.clone_ref(py);
        let started = Instant::now();
        let seat = pool.take_seat().expect("nobody sits there");
        pool.run_worker(py, application, seat).expect("memory");
        started.elapsed()
    });
    while let Some(message) = mailbox.queue.pop() {
        let Message::Reply(exchange) = message else { unreachable!("nothing is streamed") };
        assert_eq!(exchange.reply.status, 200);
        exchanges.push(black_box(exchange));
    }
    elapsed
}

fn benches(criterion: &mut Criterion) {
    Python::initialize();
    let application = Python::attach(|py| {
        let globals = PyDict::new(py);
        let source = std::ffi::CString::new(HELLO).expect("no NUL");
        py.run(&source, Some(&globals), None).expect("it is well-formed");
        globals.get_item("application").expect("memory").expect("it is defined").unbind()
    });
    let mut group = criterion.benchmark_group("call");
    group.throughput(Throughput::Elements(1));
    for (name, request) in [("minimal", MINIMAL), ("browser", BROWSER)] {
        let mut exchanges: Vec<Box<Exchange>> = (0..REQUESTS).map(|_| exchange(request)).collect();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    total += round(&application, &mut exchanges).mul_f64(left.min(REQUESTS) as f64 / REQUESTS as f64);
                    left = left.saturating_sub(REQUESTS);
                }
                total
            });
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
