//! Request heads: what a load generator sends, what a browser sends, and the same in pieces.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hoopsnake::limits;
use hoopsnake::serve::http1::{Head, HeadLimits};

const WRK: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

const BROWSER: &[u8] = b"GET /shop/category/shoes?page=2&sort=price&utm_source=newsletter HTTP/1.1\r\n\
Host: www.example.com\r\n\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
sec-ch-ua: \"Chromium\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Referer: https://www.example.com/shop/category/shoes?page=1&sort=price\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: sessionid=k3j4h5k2j3h4k5j2h34k5jh23k4j5h; csrftoken=aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789aBcDeFgHiJkLmNoPqRsTuVwXyZ01; theme=dark; _ga=GA1.2.1234567890.1234567890\r\n\
\r\n";

const LIMITS: HeadLimits = HeadLimits {
    request_line_bytes_max: limits::REQUEST_LINE_BYTES_MAX,
    head_bytes_max: limits::HEAD_BYTES_MAX,
    fields_max: limits::FIELDS_MAX,
};

fn whole(criterion: &mut Criterion) {
    for (name, input) in [("wrk", WRK), ("browser", BROWSER)] {
        let mut group = criterion.benchmark_group(format!("head/{name}"));
        group.throughput(Throughput::Bytes(input.len() as u64));
        let mut head = Head::default();
        group.bench_function("whole", |bencher| {
            bencher.iter(|| head.parse(black_box(input), 0, &LIMITS).expect("a well-formed head"));
        });
        // The floor: the same bytes through httparse, without copy, checks and meaning.
        group.bench_function("httparse alone", |bencher| {
            bencher.iter(|| {
                let mut fields = [httparse::EMPTY_HEADER; 16];
                let mut request = httparse::Request::new(&mut fields);
                black_box(request.parse(black_box(input)).expect("a well-formed head"));
            });
        });
        group.finish();
    }
}

fn in_pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head/browser in pieces");
    for piece in [1, 64, 500] {
        let mut head = Head::default();
        group.bench_function(format!("of {piece}"), |bencher| {
            bencher.iter(|| {
                let mut scanned = 0;
                while scanned < BROWSER.len() {
                    let end = (scanned + piece).min(BROWSER.len());
                    black_box(head.parse(black_box(&BROWSER[..end]), scanned, &LIMITS).expect("a well-formed head"));
                    scanned = end;
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, whole, in_pieces);
criterion_main!(benches);
