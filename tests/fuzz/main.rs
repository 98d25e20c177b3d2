//! A seeded run of the fuzz targets, short enough for every test run. How to run more of it: `README.md` beside this file.

mod targets;

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use hoopsnake::serve::http1::{BodyDecoder, Framing, Refusal, Step};
use targets::Decode;

/// Inputs per target, if `FUZZ_ITERATIONS` doesn't say otherwise.
const ITERATIONS: u64 = 20_000;
/// Bytes an input may grow to.
const INPUT_BYTES_MAX: usize = 4096;

/// Well-formed heads to start from.
const HEADS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a%20b?c=d HTTP/1.1\r\nHost: example.com:80\r\nContent-Length: 5\r\nConnection: keep-alive, TE\r\n\r\nhello",
    b"PUT http://b:8/c?d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\nConnection: Keep-Alive\r\nX:\r\n\r\n",
    b"\r\nHEAD /x HTTP/1.1\r\nhost: [::1]:8000\r\nAccept: */*\r\nCookie: a=b; c=\xc3\xa9\r\n\r\nGET / HTTP/1.1\r\n",
];

/// Well-formed bodies to start from.
const BODIES: &[&[u8]] = &[
    b"0\r\n\r\n",
    b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET",
    b"5;a=\"b c\"\r\nhello\r\n00a;d\r\n0123456789\r\n000\r\nVary: *\r\nX-Y:\r\n\r\n",
    b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
    b"hello, this is a body with a length",
];

/// Requests for files to start from.
const FILES: &[&[u8]] = &[
    b"GET /s/a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,5-,-3\r\nIf-Range: \"a\"\r\n\r\n",
    b"HEAD /s/b%2ebin HTTP/1.1\r\nHost: a\r\nIf-None-Match: W/\"a\", \"b\"\r\nAccept-Encoding: gzip;q=0.5, br\r\n\r\n",
    b"GET /s/%2e%2e/secret HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\n\r\n",
    b"GET /s//deep/../c HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    b"GET /s/b.bin HTTP/1.0\r\nIf-Unmodified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\nRange: bytes=99999-,0-0\r\n\r\n",
];

/// Well-formed lists of directives to start from.
const CONTROLS: &[&[u8]] = &[
    b"public, max-age=60, s-maxage=\"5\"",
    b"no-cache=\"Set-Cookie, X\", private, must-revalidate",
    b"max-stale, min-fresh=5,only-if-cached, stale-if-error=99999999999999999999",
];

/// Well-formed heads of both kinds that concern a cache.
/// Places and bits: the head, the floor, the index, the ring.
const SCRIBBLES: &[&[u8]] = &[
    b"\x05\x00\x00\x00\x00\x80\x01\x00\x00\x00\x00\x00\x00\x00\x10\x80\x00\x00\x00\x00\x00\x00\x00\x80",
    b"\x0f\x00\x00\x00\x60\x80\x01\x00\x00\x00\x00\x00\x10\x00\x70\x80\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x09\x00\x00\x00\x80\x01\xff\xff\xff\xff\x00\x00\x00\x00\x9b\x01\x40\x00\x00\x00\x40\x00\x00\x00",
];

const MESSAGES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nAge: 5\r\nExpires: Sun, 06 Nov 1994 08:49:37 GMT\r\nVary: A, b\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: W/\"a\"\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    b"GET /a?b HTTP/1.1\r\nHost: a\r\nCookie: a=1; b=\"2\"; c\r\nIf-None-Match: \"a\", W/\"b\", *\r\nAccept: x\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nHost: a\r\nPragma: no-cache\r\nX-Forwarded-Proto: https, http\r\nIf-Modified-Since: 0\r\n\r\n",
];

/// What mutations put in.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"5",
    b"ffffffffffffffff",
    b"%",
    b"#",
    b"?",
    b"\x80",
    b"\x7f",
    b"\r\n\r\n",
    b"Host: b\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"http://",
    b"@",
    b"[",
    b"]",
    b"chunked",
    b"bytes=",
    b"-",
    b"W/",
    b"*",
    b"q=0.",
    b"/../",
    b"%2f",
    b"Range: bytes=1-2, 7-\r\n",
    b"If-None-Match: \"a\"\r\n",
    b"Accept-Encoding: br\r\n",
    b"\"",
    b"=",
    b"max-age=",
    b"Cookie: a=b\r\n",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0..bound; 0 if `bound` is.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }
}

fn mutate(random: &mut Random, input: &mut Vec<u8>, seeds: &[&[u8]]) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(8)).min(input.len());
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => drop(input.drain(at..end)),
        3 => input.truncate(at),
        4 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        5 => {
            let other = random.pick(seeds);
            let from = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        6 => {
            let word = random.pick(WORDS);
            input.splice(at..at, std::iter::repeat_n(word, 1 + random.below(200)).flatten().copied());
        }
        _ => {
            let word = random.pick(WORDS);
            input.splice(at..end, word.iter().copied());
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn input(random: &mut Random, seeds: &[&[u8]]) -> Vec<u8> {
    let mut input = if random.below(20) == 0 {
        (0..random.below(200)).map(|_| random.next() as u8).collect()
    } else {
        random.pick(seeds).to_vec()
    };
    for _ in 0..random.below(6) {
        mutate(random, &mut input, seeds);
    }
    let mut data = (random.next() as u32).to_le_bytes().to_vec();
    debug_assert_eq!(data.len(), targets::PLAN_BYTES);
    data.append(&mut input);
    data
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Feeds `target` and passes its panic on, after saying what brought it about.
fn run(name: &str, target: fn(&[u8]), seeds: &[&[u8]]) {
    let seed = from_environment("FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(name));
    let iterations = from_environment("FUZZ_ITERATIONS").unwrap_or(ITERATIONS);
    println!("fuzz {name}: FUZZ_SEED={seed} FUZZ_ITERATIONS={iterations}");
    let mut random = Random(seed);
    for iteration in 0..iterations {
        let data = input(&mut random, seeds);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&data))) {
            println!("fuzz {name}: iteration {iteration} of FUZZ_SEED={seed} failed with \"{}\"", data.escape_ascii());
            resume_unwind(panic);
        }
    }
}

#[test]
fn head() {
    run("head", targets::head, HEADS);
}

#[test]
fn body() {
    run("body", targets::body, BODIES);
}

#[test]
fn file() {
    run("file", targets::file, FILES);
}

#[test]
fn cache_control() {
    run("cache_control", targets::cache_control, CONTROLS);
}

#[test]
fn cache_memory() {
    run("cache_memory", targets::cache_memory, SCRIBBLES);
}

#[test]
fn cache_message() {
    run("cache_message", targets::cache_message, MESSAGES);
}

/// Loses a byte where a chunk's data is split.
struct Forgetful(BodyDecoder);

impl Decode for Forgetful {
    fn start(framing: Framing, bytes_max: u64) -> Result<Self, Refusal> {
        BodyDecoder::new(framing, bytes_max).map(Self)
    }

    fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Refusal> {
        match self.0.decode(input)? {
            Step::Data { data: [data @ .., _], consumed } if !data.is_empty() && consumed == input.len() => {
                Ok(Step::Data { data, consumed })
            }
            step => Ok(step),
        }
    }
}

/// The canary: a run that can't find a fault this plain finds nothing.
#[test]
fn a_broken_decoder_is_found() {
    let outcome = catch_unwind(|| run("canary", targets::body_by::<Forgetful>, BODIES));
    assert!(outcome.is_err(), "the fuzz run did not notice a decoder that loses bytes");
}
