//! Applications run through one worker, compared byte for byte. The rows of PEP 3333 are named in the comments by the numbers of
//! the sections they are from.

use std::ffi::CString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::baton::Watch;
use super::call::Worker;
use super::response::{Output, Response};
use super::{ListenerInfo, Pool, PoolSettings};
use crate::config::Network;
use crate::observe::client::Client;
use crate::reactor::{Outgoing, Token, Waker, clock};
use crate::serve::exchange::{Body, End, Exchange, Link, Mailbox, Message, Peer, Special};
use crate::serve::http1::encode::DateText;
use crate::serve::http1::{Head, HeadLimits};
use crate::serve::queue::Run;
use crate::serve::queue::rules::Rules;

/// A pool of one worker whose reactor is the test.
struct Bench {
    pool: Arc<Pool>,
    mailbox: Arc<Mailbox>,
}

/// What the reactor would have sent.
#[derive(Debug, Default)]
struct Answer {
    text: String,
    status: u16,
    end: Option<End>,
    keep_alive: bool,
    body_bytes: u64,
    parts: usize,
}

impl Answer {
    fn head(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or(&self.text, |(head, _)| head)
    }

    fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Bench {
    fn new() -> Self {
        Python::initialize();
        let mailbox = Arc::new(Mailbox { queue: Default::default(), waker: Arc::new(Waker::new().unwrap()) });
        let settings = PoolSettings {
            workers: 1,
            max_workers: 1,
            request_timeout: Duration::from_secs(60),
            measure_cpu: true,
            multiprocess: false,
            listeners: vec![ListenerInfo::tcp("127.0.0.1:8000".parse().unwrap()), ListenerInfo::unix()],
            trusted_proxies: vec![Network { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), prefix: 8 }],
            header_underscores: false,
            queue: Rules::default(),
            notifier: Arc::default(),
            sendfile: true,
            accel: false,
            driver: "test",
        };
        Self { pool: Pool::new(settings, vec![Arc::clone(&mailbox)]), mailbox }
    }

    fn worker(&self, py: Python<'_>, application: &Bound<'_, PyAny>) -> Worker {
        Worker::new(py, Arc::clone(&self.pool), application.clone().unbind(), 0).unwrap()
    }

    /// Everything the worker has handed over, as the reactor would send it.
    fn collect(&self, answer: &mut Answer) {
        let mut link: Option<Arc<Link>> = None;
        while let Some(message) = self.mailbox.queue.pop() {
            answer.parts += 1;
            match message {
                Message::Reply(mut exchange) => {
                    answer.status = exchange.reply.status;
                    answer.keep_alive = exchange.reply.keep_alive;
                    answer.body_bytes = exchange.reply.body_bytes;
                    answer.end = Some(exchange.reply.end);
                    answer.text.push_str(&drain(&mut exchange.reply.outgoing));
                    link = Some(Arc::clone(&exchange.link));
                }
                Message::Stream(_) => {
                    let link = link.as_ref().expect("the first part goes before the rest");
                    let mut outgoing = Outgoing::new();
                    if let Some(end) = link.collect(&mut outgoing) {
                        answer.end = Some(end);
                    }
                    answer.text.push_str(&drain(&mut outgoing));
                }
                _ => unreachable!("a worker sends nothing else"),
            }
        }
        if let Some(link) = link {
            answer.body_bytes += link.body_bytes();
        }
    }
}

/// Latin-1, so that every byte is one character.
fn drain(outgoing: &mut Outgoing) -> String {
    let mut text = String::new();
    while !outgoing.is_empty() {
        let bytes = if let Some(range) = outgoing.front_file() {
            let mut bytes = vec![0; range.length as usize];
            range.file.read_exact_at(&mut bytes, range.offset).unwrap();
            bytes
        } else {
            outgoing.front_bytes().unwrap().to_vec()
        };
        outgoing.advance(bytes.len() as u64);
        text.extend(bytes.into_iter().map(char::from));
    }
    text
}

fn exchange(request: &[u8]) -> Box<Exchange> {
    let mut head = Head::default();
    let limits = HeadLimits { request_line_bytes_max: 1 << 16, head_bytes_max: 1 << 20, fields_max: 1000 };
    let length = head.parse(request, 0, &limits).expect("a well-formed head").expect("a whole head");
    let body = match &request[length..] {
        b"" => Body::Empty,
        bytes => Body::Memory(bytes.to_vec()),
    };
    let now = clock::now();
    Box::new(Exchange {
        reactor: 0,
        token: Token { slot: 0, generation: 0 },
        listener: 0,
        peer: Peer::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), 50000),
        head,
        body,
        received: now,
        queued: now,
        deadline: now + Duration::from_secs(60),
        ..Exchange::default()
    })
}

/// The object called `application` after `source` has run.
fn application<'py>(py: Python<'py>, source: &str) -> Bound<'py, PyAny> {
    let globals = PyDict::new(py);
    py.run(&CString::new(source).unwrap(), Some(&globals), None).unwrap();
    globals.get_item("application").unwrap().expect("the source defines it")
}

fn get(source: &str) -> Answer {
    serve(source, b"GET /path?q=1 HTTP/1.1\r\nHost: example\r\n\r\n")
}

fn serve(source: &str, request: &[u8]) -> Answer {
    let bench = Bench::new();
    Python::attach(|py| {
        let mut worker = bench.worker(py, &application(py, source));
        worker.run(py, exchange(request));
        let mut answer = Answer::default();
        bench.collect(&mut answer);
        answer
    })
}

/// An application that answers 200 and returns `expression`.
fn returning(expression: &str) -> String {
    format!("def application(e, sr):\n    sr('200 OK', [('X-A', 'b')])\n    return {expression}\n")
}

fn failed(source: &str) {
    let answer = get(source);
    assert_eq!(answer.status, 500, "{source}: {answer:?}");
    assert!(answer.text.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer:?}");
    assert_eq!(answer.end, Some(End::Complete), "{answer:?}");
    assert_eq!(answer.body(), "Internal Server Error\n");
}

#[test]
fn a_list_leaves_in_one_piece_with_its_length() {
    let answer = get(&returning("[b'Hello, ', b'World!']"));
    let (head, body) = (answer.head(), answer.body());
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(lines[..2], ["HTTP/1.1 200 OK", "X-A: b"]);
    assert!(lines[2].starts_with("Date: "), "{head}");
    assert_eq!(lines[3..], ["Server: hoopsnake", "Content-Length: 13"]);
    assert_eq!(body, "Hello, World!");
    assert_eq!((answer.end, answer.parts, answer.body_bytes), (Some(End::Complete), 1, 13));
    assert!(answer.keep_alive);
}

/// 4.4 B1, B4, B8, B12–B15: what is returned, and how it is framed.
#[test]
fn bodies_are_framed_as_they_can_be() {
    let check = |expression: &str, framing: (&str, &str), body: &str| {
        let answer = get(&returning(expression));
        assert_eq!(answer.field(framing.0), Some(framing.1), "{expression}: {answer:?}");
        assert_eq!(answer.body(), body, "{expression}");
        assert_eq!(answer.end, Some(End::Complete), "{expression}");
    };
    let length = |n| ("Content-Length", n);
    let chunked = ("Transfer-Encoding", "chunked");
    check("[]", length("0"), "");
    check("()", length("0"), "");
    check("(b'a', b'', b'b')", length("2"), "ab");
    check("[bytes(range(256))]", length("256"), &(0..=255u8).map(char::from).collect::<String>());
    check("iter([])", length("0"), "");
    check("iter([b'', b''])", length("0"), "");
    check("iter([b'a', b'', b'bc'])", chunked, "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n");
    check("(x for x in [b'only'])", chunked, "4\r\nonly\r\n0\r\n\r\n");
    check("{b'one': 1}", length("3"), "one");
    check("type('L', (list,), {})([b'one'])", length("3"), "one");
    check("type('L', (list,), {'__len__': lambda s: 1/0})([b'one'])", chunked, "3\r\none\r\n0\r\n\r\n");
    let large = "x".repeat(200_000);
    check("[b'x' * 200_000]", length("200000"), &large);
    check("[b'x' * 100_000, b'', b'x' * 100_000]", length("200000"), &large);
    check("iter([b'x' * 200_000])", chunked, &format!("30d40\r\n{large}\r\n0\r\n\r\n"));
}

#[test]
fn the_connection_goes_on_only_if_it_can() {
    let check = |source: &str, request: &str, keep_alive: bool, connection: Option<&str>| {
        let answer = serve(source, format!("{request}\r\n\r\n").as_bytes());
        assert_eq!(answer.keep_alive, keep_alive, "{request}: {answer:?}");
        assert_eq!(answer.field("Connection"), connection, "{request}: {answer:?}");
        assert!(answer.head().starts_with("HTTP/1.1 "), "{answer:?}");
    };
    let list = returning("[b'a']");
    let generator = returning("iter([b'a'])");
    let closing = "def application(e, sr):\n    sr('200 OK', [('connection', 'Close')])\n    return [b'a']";
    let kept = "def application(e, sr):\n    sr('200 OK', [('Connection', 'keep-alive')])\n    return [b'a']";
    check(&list, "GET / HTTP/1.1\r\nHost: a", true, None);
    check(&list, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close", false, Some("close"));
    check(&list, "GET / HTTP/1.0", false, Some("close"));
    check(&list, "GET / HTTP/1.0\r\nConnection: keep-alive", true, Some("keep-alive"));
    check(&generator, "GET / HTTP/1.0\r\nConnection: keep-alive", false, Some("close"));
    check(&generator, "GET / HTTP/1.1\r\nHost: a", true, None);
    check(closing, "GET / HTTP/1.1\r\nHost: a", false, Some("close"));
    check(kept, "GET / HTTP/1.1\r\nHost: a", true, None);
    let answer = serve(&generator, b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(answer.body(), "a", "delimited by the end of the connection");
    assert_eq!(answer.field("Transfer-Encoding"), None);
}

#[test]
fn a_draining_server_says_close() {
    let bench = Bench::new();
    bench.pool.set_draining();
    Python::attach(|py| {
        let mut worker = bench.worker(py, &application(py, &returning("[b'a']")));
        worker.run(py, exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut answer = Answer::default();
        bench.collect(&mut answer);
        assert!(!answer.keep_alive);
        assert_eq!(answer.field("Connection"), Some("close"));
    });
}

/// 4.4 B14 and RFC 9110 §6.4.1, §8.6, §15.3.6.
#[test]
fn responses_without_a_body() {
    let check = |method: &str, status: &str, headers: &str, body: &str, length: Option<&str>| {
        let source = format!("def application(e, sr):\n    sr('{status}', {headers})\n    return {body}\n");
        let answer = serve(&source, format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let context = format!("{method} {status} {headers} {body}: {answer:?}");
        assert_eq!(answer.field("Content-Length"), length, "{context}");
        assert_eq!(answer.field("Transfer-Encoding"), None, "{context}");
        assert_eq!(answer.body(), "", "{context}");
        assert_eq!((answer.end, answer.keep_alive), (Some(End::Complete), true), "{context}");
    };
    check("HEAD", "200 OK", "[]", "[b'abc']", Some("3"));
    check("HEAD", "200 OK", "[]", "[]", None);
    check("HEAD", "200 OK", "[('Content-Length', '7')]", "[]", Some("7"));
    check("HEAD", "200 OK", "[('Content-Length', '7')]", "[b'more than seven']", Some("7"));
    check("HEAD", "200 OK", "[]", "iter([b'abc', b'd'])", None);
    check("GET", "204 No Content", "[('Content-Length', '0')]", "[b'x']", None);
    check("GET", "204 No Content", "[]", "iter([b'x'])", None);
    check("GET", "304 Not Modified", "[('Content-Length', '5')]", "[]", Some("5"));
    check("GET", "304 Not Modified", "[]", "[b'x']", None);
    check("GET", "205 Reset Content", "[]", "[b'x']", Some("0"));
}

/// 4.4 B9–B11.
#[test]
fn the_content_length_is_kept_to() {
    let check = |body: &str, sent: &str, end: End| {
        let source =
            format!("def application(e, sr):\n    sr('200 OK', [('content-length', '3')])\n    return {body}\n");
        let answer = get(&source);
        assert_eq!(answer.body(), sent, "{body}: {answer:?}");
        assert_eq!(answer.field("Content-Length"), Some("3"));
        assert_eq!(answer.end, Some(end), "{body}: {answer:?}");
    };
    check("[b'abc']", "abc", End::Complete);
    check("[b'ab', b'cd']", "abc", End::Complete);
    check("[b'ab']", "ab", End::Abort);
    check("[]", "", End::Abort);
    check("iter([b'a', b'b', b'c'])", "abc", End::Complete);
    check("iter([b'ab', b'cd'])", "abc", End::Complete);
    check("iter([b'ab'])", "ab", End::Abort);
    check("iter([])", "", End::Abort);
}

/// 4.4 B9b.
#[test]
fn iteration_stops_at_the_content_length() {
    let bench = Bench::new();
    Python::attach(|py| {
        let source = "pulled = []\ndef application(e, sr):\n    sr('200 OK', [('Content-Length', '3')])\n    \
            for n in range(100000):\n        \
                      pulled.append(n)\n        yield b'a'\napplication.pulled = pulled\n";
        let application = application(py, source);
        bench.worker(py, &application).run(py, exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(application.getattr("pulled").unwrap().len().unwrap(), 3);
    });
}

/// 4.3 S2, S16, S17; 4.4 B3; 4.6 P3, P9.
#[test]
fn what_fails_before_output_is_a_500() {
    failed("def application(e, sr):\n    raise ValueError('x')");
    for kind in ["SystemExit", "KeyboardInterrupt", "GeneratorExit"] {
        failed(&format!("def application(e, sr):\n    raise {kind}"));
    }
    failed("def application(e, sr):\n    return [b'x']");
    failed("def application(e, sr):\n    return iter([b'x'])");
    failed("def application(e, sr):\n    return iter([])");
    failed("def application(e):\n    pass");
    for body in
        ["None", "1", "b'abc'", "['text']", "('text',)", "iter(['text'])", "[b'', bytearray(b'x')]", "iter([b'', 1])"]
    {
        failed(&returning(body));
    }
    failed("def application(e, sr):\n    sr('200 OK', [])\n    yield b''\n    raise ValueError");
    failed(
        "class Body:\n    def __iter__(self): raise KeyError\ndef application(e, sr):\n    sr('200 OK', [])\n    \
            return Body()",
    );
}

/// 4.6 P4.
#[test]
fn what_fails_after_output_cuts_the_connection() {
    for end in ["raise ValueError", "yield 'text'", "raise SystemExit"] {
        let answer = get(&format!("def application(e, sr):\n    sr('200 OK', [])\n    yield b'a'\n    {end}\n"));
        assert_eq!((answer.status, answer.end), (200, Some(End::Abort)), "{end}: {answer:?}");
        assert_eq!(answer.body(), "1\r\na\r\n", "no last chunk");
    }
}

/// 4.3 S9–S12, S14, S18: each raises at the call, as S8 wants it.
#[test]
fn status_and_headers_are_checked_at_the_call() {
    let check = |status: &str, headers: &str, error: &str| {
        let answer = get(&format!(
            "def application(e, sr):\n    try:\n        sr({status}, {headers})\n    \
                except Exception as error:\n        \
             sr('200 OK', [], (type(error), error, None))\n        return [type(error).__name__.encode()]\n    \
                 return [b'-']\n"
        ));
        assert_eq!(answer.body(), error, "{status} {headers}: {answer:?}");
    };
    for status in
        ["'200'", "'200 OK '", "'200 OK\\r\\n'", "'abc'", "'99 x'", "'1000 x'", "'€'", "'200 €'", "'100 Continue'"]
    {
        check(status, "[]", "ValueError");
    }
    check("200", "[]", "TypeError");
    check("b'200 OK'", "[]", "TypeError");
    check("'299 Anything'", "[]", "-");
    check("'200 \\xe9'", "[]", "-");
    for headers in [
        "()",
        "{}",
        "None",
        "iter([])",
        "[['X', 'y']]",
        "[('X',)]",
        "[('X', 'y', 'z')]",
        "[('X', b'y')]",
        "[('X', 1)]",
        "[(b'X', 'y')]",
        "['Xy']",
    ] {
        check("'200 OK'", headers, "TypeError");
    }
    for name in ["'X:'", "'X y'", "''", "'X\\r\\n'", "'X\\0'", "'€'", "'\\xe9'"] {
        check("'200 OK'", &format!("[({name}, 'v')]"), "ValueError");
    }
    for value in ["'a\\r\\nX: b'", "'a\\nb'", "'a\\rb'", "'a\\0b'", "'a\\x7fb'", "'€'"] {
        check("'200 OK'", &format!("[('X', {value})]"), "ValueError");
    }
    check("'200 OK'", "[('X', 'a\\tb \\xe9')]", "-");
    for name in [
        "transfer-encoding",
        "TE",
        "Trailer",
        "Upgrade",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "Proxy-Authorization",
    ] {
        check("'200 OK'", &format!("[('{name}', 'x')]"), "ValueError");
    }
    check("'200 OK'", "[('Connection', 'upgrade')]", "ValueError");
    for length in ["''", "'-1'", "'+1'", "'1.0'", "'1, 1'", "'0x1'", "'99999999999999999999'"] {
        check("'200 OK'", &format!("[('Content-Length', {length})]"), "ValueError");
    }
    check("'200 OK'", "[('Content-Length', '1'), ('content-length', '1')]", "ValueError");
    check("'200 OK'", "[('X', 'y' * 300_000)]", "ValueError");
}

/// 4.3 S4, S4b, S5.
#[test]
fn start_response_again() {
    failed("def application(e, sr):\n    sr('200 OK', [])\n    sr('201 Created', [])\n    return [b'x']");
    failed(
        "def application(e, sr):\n    try: sr('bad', [])\n    except ValueError: pass\n    sr('200 OK', [])\n    \
            return [b'x']",
    );
    failed("def application(e, sr):\n    try: sr('bad', [])\n    except ValueError: pass\n    return [b'x']");
    let answer = get("import sys\ndef application(e, sr):\n    \
            sr('200 OK', [('X-Old', 'a'), ('Content-Length', '99'), ('Date', 'x')])\n    try: 1/0\n    \
         except ZeroDivisionError: sr('503 Later', [('X-New', 'b')], sys.exc_info())\n    return [b'sorry']\n");
    assert!(answer.text.starts_with("HTTP/1.1 503 Later\r\nX-New: b\r\nDate: "), "{answer:?}");
    assert!(answer.text.ends_with("Content-Length: 5\r\n\r\nsorry"), "{answer:?}");
    assert_eq!(answer.status, 503);
}

/// 4.3 S6, S7.
#[test]
fn exc_info_after_output_is_raised_itself_and_let_go() {
    let bench = Bench::new();
    Python::attach(|py| {
        let source = "import sys, weakref\nclass Error(Exception): pass\nrefs = []\n\
                      def application(e, sr):\n    sr('200 OK', [])\n    yield b'a'\n    try:\n        \
                          try: raise Error\n        except Error as error:\n            \
                      refs.append(weakref.ref(error))\n            sr('500 X', [], sys.exc_info())\n    \
                          except Error as again: yield str(again is refs[0]()).encode()\n\
                      application.alive = lambda: refs[0]() is not None\n";
        let application = application(py, source);
        let mut worker = bench.worker(py, &application);
        worker.run(py, exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut answer = Answer::default();
        bench.collect(&mut answer);
        assert_eq!(answer.body(), "1\r\na\r\n4\r\nTrue\r\n0\r\n\r\n", "{answer:?}");
        py.run(c"import gc; gc.collect()", None, None).unwrap();
        assert!(!application.call_method0("alive").unwrap().is_truthy().unwrap());
    });
}

/// 4.3 S13.
#[test]
fn date_and_server_are_added_unless_set() {
    let answer =
        get("def application(e, sr):\n    sr('200 OK', [('DATE', 'mine'), ('server', 'mine')])\n    return []");
    assert_eq!(answer.head(), "HTTP/1.1 200 OK\r\nDATE: mine\r\nserver: mine\r\nContent-Length: 0");
}

/// 4.4 B5, B10.
#[test]
fn write_hands_over_at_once() {
    let check = |source: &str, body: &str| {
        let answer = get(source);
        assert_eq!(answer.body(), body, "{answer:?}");
        assert_eq!(answer.end, Some(End::Complete), "{answer:?}");
    };
    check(
        "def application(e, sr):\n    write = sr('200 OK', [])\n    write(b'ab')\n    write(b'')\n    \
            return [b'c']\n",
        "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
    );
    check("def application(e, sr):\n    sr('200 OK', [('Content-Length', '2')])(b'ab')\n    return []\n", "ab");
    check("def application(e, sr):\n    sr('200 OK', [])(b'')\n    return [b'a']\n", "a");
    failed("def application(e, sr):\n    sr('200 OK', [('Content-Length', '3')])(b'x' * 10)\n    return []\n");
    failed("def application(e, sr):\n    sr('200 OK', [])('text')\n    return []\n");
    let answer =
        get("def application(e, sr):\n    write = sr('200 OK', [('Content-Length', '3')])\n    write(b'ab')\n    \
            try: write(b'cd')\n    \
         except ValueError: write(b'!')\n    return [b'more']\n");
    assert_eq!((answer.body(), answer.end), ("ab!", Some(End::Complete)));
}

/// 4.4 B6: exactly once, however it ends; and what it raises reaches nobody.
#[test]
fn close_is_called_once() {
    let check = |request: &str, status: &str, items: &str, end: End| {
        let bench = Bench::new();
        Python::attach(|py| {
            let source = format!(
                "closed = []\nclass Body:\n    def __iter__(self):\n        yield from ({items})\n    \
                    def close(self):\n        closed.append(1)\n        \
                 raise RuntimeError('from close')\n\
                 def application(e, sr):\n    if {status}: sr({status}, [('Content-Length', '2')])\n    \
                     return Body()\napplication.closed = closed\n"
            );
            let application = application(py, &source);
            let mut worker = bench.worker(py, &application);
            worker.run(py, exchange(request.as_bytes()));
            let mut answer = Answer::default();
            bench.collect(&mut answer);
            assert_eq!(application.getattr("closed").unwrap().len().unwrap(), 1, "{request} {status} {items}");
            assert_eq!(answer.end, Some(end), "{request} {status} {items}: {answer:?}");
        });
    };
    let plain = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    check(plain, "'200 OK'", "[b'ab']", End::Complete);
    check(plain, "'200 OK'", "[b'a', b'bc', b'd']", End::Complete);
    check(plain, "'200 OK'", "[b'a']", End::Abort);
    check(plain, "'200 OK'", "[1]", End::Complete);
    check(plain, "'200 OK'", "[b'a', 1]", End::Abort);
    check(plain, "None", "[b'ab']", End::Complete);
    check(plain, "'304 X'", "[b'ab']", End::Complete);
    check("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "'200 OK'", "[b'ab']", End::Complete);
}

/// 4.4 B7.
#[test]
fn nothing_but_the_protocol_of_the_result_is_used() {
    let bench = Bench::new();
    Python::attach(|py| {
        let source = "seen = set()\nclass Body:\n    def __getattribute__(self, name):\n        \
            seen.add(name)\n        return object.__getattribute__(self, name)\n    \
                      def __iter__(self): return iter([b'a'])\n\
                      def application(e, sr):\n    sr('200 OK', [])\n    return Body()\napplication.seen = seen\n";
        let application = application(py, source);
        bench.worker(py, &application).run(py, exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(application.getattr("seen").unwrap().str().unwrap().to_string(), "{'close'}");
    });
}

/// 4.4 B2: each block is out before the next is asked for.
#[test]
fn blocks_leave_one_by_one() {
    let bench = Bench::new();
    Python::attach(|py| {
        let globals = PyDict::new(py);
        let mailbox = Arc::clone(&bench.mailbox);
        let count = pyo3::types::PyCFunction::new_closure(py, None, None, move |_, _| mailbox.queue.len()).unwrap();
        globals.set_item("handed_over", count).unwrap();
        let source = c"seen = []\ndef application(e, sr):\n    sr('200 OK', [])\n    \
            seen.append(handed_over())\n    yield b'a'\n    seen.append(handed_over())\n    \
                       yield b'b'\n    seen.append(handed_over())\n";
        py.run(source, Some(&globals), None).unwrap();
        let application = globals.get_item("application").unwrap().unwrap();
        bench.worker(py, &application).run(py, exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(globals.get_item("seen").unwrap().unwrap().str().unwrap().to_string(), "[0, 1, 2]");
    });
}

#[test]
fn a_client_that_takes_nothing_stops_the_worker_and_its_end_stops_the_iteration() {
    let bench = Bench::new();
    let source = "def application(e, sr):\n    sr('200 OK', [])\n    try:\n        \
        while True: yield b'x' * 100_000\n    finally: application.closed = True\n";
    let (application, link) = Python::attach(|py| {
        let request = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let link = Arc::clone(&request.link);
        bench.pool.submit(request);
        (application(py, source).unbind(), link)
    });
    let (pool, for_worker) = (Arc::clone(&bench.pool), Python::attach(|py| application.clone_ref(py)));
    bench.pool.close();
    let thread = std::thread::spawn(move || {
        Python::attach(|py| pool.run_worker(py, for_worker, pool.take_seat().unwrap())).unwrap()
    });
    // Only a worker that waits leaves its number.
    let worker = loop {
        if let Some(worker) = link.take_waiting() {
            break worker;
        }
        std::thread::yield_now();
    };
    assert!(link.is_full());
    bench.pool.unpark(worker);
    link.cancel();
    bench.pool.unpark(worker);
    thread.join().unwrap();
    Python::attach(|py| assert!(application.getattr(py, "closed").unwrap().is_truthy(py).unwrap()));
    let mut answer = Answer::default();
    bench.collect(&mut answer);
    assert_eq!(answer.end, Some(End::Abort));
}

/// One that has nothing to send is asked again and again: not for a client that has gone.
#[test]
fn empty_blocks_end_with_the_client() {
    for before in ["", "    yield b'a'\n"] {
        let bench = Bench::new();
        let source = format!(
            "def application(e, sr):\n    sr('200 OK', [])\n{before}    try:\n        for _ in range(1000):\n            \
             application.go()\n            yield b''\n        application.endless = True\n    finally: application.closed = True\n"
        );
        Python::attach(|py| {
            let application = application(py, &source);
            let request = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let link = Arc::clone(&request.link);
            let go =
                pyo3::types::PyCFunction::new_closure(py, None, None, move |_, _| link.cancel().is_some()).unwrap();
            application.setattr("go", go).unwrap();
            bench.worker(py, &application).run(py, request);
            assert!(application.getattr("closed").unwrap().is_truthy().unwrap());
            assert!(application.getattr("endless").is_err(), "asked for more than a client that has gone will get");
        });
        // The reactor has the request back, whatever became of it.
        let mut answer = Answer::default();
        bench.collect(&mut answer);
        assert!(answer.parts > 0 && answer.end.is_some(), "{answer:?}");
    }
}

#[test]
fn the_pool_answers_what_is_queued_then_closes_and_gives_up_what_is_too_late() {
    let bench = Bench::new();
    let application = Python::attach(|py| application(py, &returning("[b'a']")).unbind());
    let submit = |request: Box<Exchange>| bench.pool.submit(request);
    submit(exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let gone = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gone.link.cancel();
    submit(gone);
    let mut late = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    late.deadline = clock::Instant::default();
    submit(late);
    bench.pool.wake(clock::now());
    bench.pool.close();
    let pool = Arc::clone(&bench.pool);
    std::thread::spawn(move || {
        Python::attach(|py| pool.run_worker(py, application, pool.take_seat().unwrap())).unwrap()
    })
    .join()
    .unwrap();
    let answers: Vec<(u16, End)> = std::iter::from_fn(|| bench.mailbox.queue.pop())
        .map(|message| match message {
            Message::Reply(exchange) => (exchange.reply.status, exchange.reply.end),
            _ => panic!("only replies"),
        })
        .collect();
    assert_eq!(answers, [(200, End::Complete), (0, End::Abort), (0, End::Abort)]);
    assert_eq!(bench.pool.check(clock::now()), None, "nothing waits, nothing is unflushed");
}

#[test]
fn large_bytes_are_given_back_to_python() {
    let bench = Bench::new();
    Python::attach(|py| {
        let source = "import sys\nbody = b'x' * 200_000\ndef application(e, sr):\n    sr('200 OK', [])\n    \
            return [body]\napplication.count = lambda: sys.getrefcount(body)\n";
        let application = application(py, source);
        let count = || application.call_method0("count").unwrap().extract::<usize>().unwrap();
        let before = count();
        bench.worker(py, &application).run(py, exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(count(), before + 1, "sent from Python's memory");
        let mut answer = Answer::default();
        py.detach(|| bench.collect(&mut answer));
        assert!(bench.pool.release_pending());
        assert_eq!(count(), before + 1, "a reactor lets go of nothing");
        bench.pool.release_now(py);
        assert_eq!(count(), before);
    });
}

/// 4.1: the whole environ of one request, as its `repr` sorted by key.
#[test]
fn environ() {
    let check = |request: &str, peer: Peer, listener: u16, keys: &[&str], expected: &[&str]| {
        let bench = Bench::new();
        Python::attach(|py| {
            let source = "def application(e, sr):\n    assert type(e) is dict\n    \
                application.seen = {k: repr(v) for k, v in e.items()}\n    sr('200 OK', [])\n    return []\n";
            let application = application(py, source);
            let mut request = exchange(request.as_bytes());
            request.peer = peer;
            request.listener = listener;
            bench.worker(py, &application).run(py, request);
            let seen = application.getattr("seen").unwrap();
            let shown = |key: &str| match seen.get_item(key) {
                Ok(value) => value.to_string(),
                Err(_) => "absent".into(),
            };
            let found: Vec<String> = keys.iter().map(|key| shown(key)).collect();
            assert_eq!(found, expected, "{keys:?}");
        });
    };
    let tcp = Peer::Tcp(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)), 50000);
    let foreign = Peer::Tcp(IpAddr::V4(Ipv4Addr::new(11, 1, 2, 3)), 50000);
    check(
        "GET /caf%C3%A9/%zz?a=%20b HTTP/1.1\r\nHost: a:80\r\nX-B: 1\r\nx-b: 2\r\nCookie: a=1\r\ncookie: b=2\r\n\
            Proxy: p\r\nX_C: d\r\n\r\n",
        tcp,
        0,
        &[
            "REQUEST_METHOD",
            "SCRIPT_NAME",
            "PATH_INFO",
            "QUERY_STRING",
            "REQUEST_URI",
            "RAW_URI",
            "SERVER_PROTOCOL",
            "HTTP_HOST",
            "HTTP_X_B",
            "HTTP_COOKIE",
            "HTTP_PROXY",
            "HTTP_X_C",
            "CONTENT_TYPE",
            "CONTENT_LENGTH",
        ],
        &[
            "'GET'",
            "''",
            "'/cafÃ©/%zz'",
            "'a=%20b'",
            "'/caf%C3%A9/%zz?a=%20b'",
            "'/caf%C3%A9/%zz?a=%20b'",
            "'HTTP/1.1'",
            "'a:80'",
            "'1, 2'",
            "'a=1; b=2'",
            "absent",
            "absent",
            "absent",
            "absent",
        ],
    );
    check(
        "POST / HTTP/1.0\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nX-Forwarded-Proto: https\r\n\r\nabc",
        tcp,
        0,
        &[
            "REQUEST_METHOD",
            "SERVER_PROTOCOL",
            "CONTENT_TYPE",
            "CONTENT_LENGTH",
            "HTTP_CONTENT_TYPE",
            "HTTP_CONTENT_LENGTH",
            "HTTP_HOST",
            "wsgi.url_scheme",
            "REMOTE_ADDR",
            "REMOTE_PORT",
        ],
        &[
            "'POST'",
            "'HTTP/1.0'",
            "'text/plain'",
            "'3'",
            "absent",
            "absent",
            "absent",
            "'https'",
            "'10.1.2.3'",
            "'50000'",
        ],
    );
    check(
        "GET http://other/x HTTP/1.1\r\nHost: other\r\nX-Forwarded-Proto: https\r\n\r\n",
        foreign,
        0,
        &[
            "PATH_INFO",
            "REQUEST_URI",
            "HTTP_HOST",
            "wsgi.url_scheme",
            "SERVER_NAME",
            "SERVER_PORT",
            "wsgi.version",
            "wsgi.multithread",
            "wsgi.multiprocess",
            "wsgi.run_once",
            "wsgi.input_terminated",
            "hoopsnake.reactor",
        ],
        &[
            "'/x'",
            "'http://other/x'",
            "'other'",
            "'http'",
            "'127.0.0.1'",
            "'8000'",
            "(1, 0)",
            "False",
            "False",
            "False",
            "True",
            "'test'",
        ],
    );
    check(
        "OPTIONS * HTTP/1.1\r\nHost: \r\nX-Forwarded-Proto: http, https\r\n\r\n",
        Peer::Unix,
        1,
        &[
            "REQUEST_METHOD",
            "PATH_INFO",
            "HTTP_HOST",
            "REMOTE_ADDR",
            "REMOTE_PORT",
            "SERVER_NAME",
            "SERVER_PORT",
            "wsgi.url_scheme",
        ],
        &["'OPTIONS'", "''", "''", "''", "absent", "'localhost'", "'80'", "'https'"],
    );
}

/// 4.1 A3; and nothing an application has kept is changed by a later request, or changes it.
/// Spellings that share a key are treated alike, whichever a worker sees first: a client must not be able to have the word of a
/// proxy passed over from then on.
#[test]
fn the_scheme_is_told_whatever_was_asked_before() {
    let mut bench = Bench::new();
    let settings = PoolSettings { header_underscores: true, ..bench.pool.settings.clone() };
    bench.pool = Pool::new(settings, vec![Arc::clone(&bench.mailbox)]);
    Python::attach(|py| {
        let application = application(
            py,
            "def application(e, sr):\n    sr('200 OK', [])\n    return [e['wsgi.url_scheme'].encode()]\n",
        );
        let mut worker = bench.worker(py, &application);
        for (name, address, expected) in [
            ("X_Forwarded_Proto", [192, 0, 2, 1], "http"),
            ("X-Forwarded-Proto", [10, 0, 0, 1], "https"),
            ("X_Forwarded-Proto", [10, 0, 0, 1], "https"),
            ("X-Forwarded-Proto", [192, 0, 2, 1], "http"),
        ] {
            let mut request = exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: https\r\n\r\n").as_bytes());
            request.peer = Peer::Tcp(IpAddr::from(address), 1);
            worker.run(py, request);
            let mut answer = Answer::default();
            bench.collect(&mut answer);
            assert_eq!(answer.body(), expected, "{name} of {address:?}");
        }
    });
}

#[test]
fn requests_share_nothing() {
    let bench = Bench::new();
    Python::attach(|py| {
        let source = "kept = []\ndef application(e, sr):\n    assert 'left' not in e and 'SERVER_NAME' in e\n    \
            e['left'] = 1\n    \
                      del e['SERVER_NAME']\n    for input, old, gone in kept:\n        \
                          assert input.read() == b'bc', 'its own body'\n        \
                      assert gone(), 'its own client'\n        for late in old:\n            \
                          try: late(b'x') if late is old[1] else late('201 Wrong', [])\n            \
                      except AssertionError: pass\n            \
                          else: raise RuntimeError('it answered for another')\n    write = sr('200 OK', [])\n    \
                      if e['PATH_INFO'] == '/keep': kept.append((e['wsgi.input'], [sr, write], e['hoopsnake.client_disconnected']))\n    \
                      return [e['wsgi.input'].read(1)]\n";
        let mut worker = bench.worker(py, &application(py, source));
        for (path, body) in [("/", "xyz"), ("/keep", "abc"), ("/", "def")] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{body}");
            let request = exchange(request.as_bytes());
            let link = Arc::clone(&request.link);
            worker.run(py, request);
            let mut answer = Answer::default();
            bench.collect(&mut answer);
            assert_eq!((answer.body(), answer.status), (&body[..1], 200), "{answer:?}");
            link.cancel();
        }
    });
}

#[test]
fn the_client_is_known_to_be_gone() {
    let bench = Bench::new();
    Python::attach(|py| {
        let source = "def application(e, sr):\n    sr('200 OK', [])\n    yield b'a'\n    \
            application.gone = e['hoopsnake.client_disconnected']()\n    yield b'b'\n";
        let application = application(py, source);
        let request = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        request.link.cancel();
        bench.worker(py, &application).run(py, request);
        let mut answer = Answer::default();
        bench.collect(&mut answer);
        assert_eq!(answer.end, Some(End::Abort));
        assert!(application.getattr("gone").is_err(), "the iteration stops when the client is gone");
    });
}

/// 4.2 I1–I7, on a body in memory and on one in a file.
#[test]
fn input() {
    let check = |body: &str, expression: &str, expected: &str| {
        for spooled in [false, true] {
            let bench = Bench::new();
            Python::attach(|py| {
                let source = format!(
                    "def application(e, sr):\n    sr('200 OK', [])\n    i = e['wsgi.input']\n    \
                        return [repr({expression}).encode()]\n"
                );
                let mut request = exchange(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
                request.body = if spooled {
                    let mut file = tempfile::tempfile().unwrap();
                    file.write_all(body.as_bytes()).unwrap();
                    Body::File(file, body.len() as u64)
                } else {
                    Body::Memory(body.as_bytes().to_vec())
                };
                bench.worker(py, &application(py, &source)).run(py, request);
                let mut answer = Answer::default();
                bench.collect(&mut answer);
                assert_eq!(answer.body(), expected, "{expression}, spooled: {spooled}");
            });
        }
    };
    let text = "one\ntwo\n\nfour";
    check(text, "i.read()", r"b'one\ntwo\n\nfour'");
    check(
        text,
        "(i.read(2), i.read(0), i.read(-1), i.read(), i.read(5))",
        r"(b'on', b'', b'e\ntwo\n\nfour', b'', b'')",
    );
    check(text, "(i.read(2), i.read(None))", r"(b'on', b'e\ntwo\n\nfour')");
    check(text, "i.read(10**15)", r"b'one\ntwo\n\nfour'");
    check(
        text,
        "(i.readline(), i.readline(2), i.readline(99), i.readline(0), i.readline(-1), i.readline(None), i.readline())",
        r"(b'one\n', b'tw', b'o\n', b'', b'\n', b'four', b'')",
    );
    check(text, "i.readlines()", r"[b'one\n', b'two\n', b'\n', b'four']");
    check(text, "(i.readlines(5), i.readlines(None))", r"([b'one\n', b'two\n'], [b'\n', b'four'])");
    check(text, "(list(i), list(i))", r"([b'one\n', b'two\n', b'\n', b'four'], [])");
    check(text, "(next(i), i.read(1), i.readline(), [x for x in i])", r"(b'one\n', b't', b'wo\n', [b'\n', b'four'])");
    check("", "(i.read(), i.read(1), i.readline(), i.readlines(), list(i))", "(b'', b'', b'', [], [])");
    let long = format!("{}\n{}", "a".repeat(150_000), "b".repeat(10));
    check(&long, "[len(x) for x in i]", "[150001, 10]");
    check(
        &long,
        "(len(i.readline(70000)), len(i.read(70000)), len(i.readline()), i.read())",
        "(70000, 70000, 10001, b'bbbbbbbbbb')",
    );
}

/// 4.5 F1–F9.
#[test]
fn file_wrapper() {
    let check = |make: &str, headers: &str, expected: &str, end: End| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789").unwrap();
        let source = format!(
            "import io, gzip, tempfile\npath = {path:?}\n\
             def zip_it(path):\n    with gzip.open(path, 'wb') as z: z.write(b'plain')\ndef application(e, sr):\n    \
                w = e['wsgi.file_wrapper']\n    sr('200 OK', {headers})\n    return {make}\n",
            path = file.path().to_str().unwrap(),
        );
        let answer = get(&source);
        let body = if answer.field("Transfer-Encoding").is_some() {
            format!("chunked {}", answer.body())
        } else {
            answer.body().into()
        };
        assert_eq!(body, expected, "{make}: {answer:?}");
        assert_eq!(answer.end, Some(end), "{make}");
    };
    let done = End::Complete;
    check("w(open(path, 'rb'))", "[]", "0123456789", done);
    check("w(open(path, 'rb'), 3)", "[]", "0123456789", done);
    check("w(open(path, 'rb', buffering=0))", "[]", "0123456789", done);
    check("w(open(path, 'rb+'))", "[]", "0123456789", done);
    check("[f := open(path, 'rb'), f.seek(5), w(f)][2]", "[]", "56789", done);
    check("[f := open(path, 'rb'), f.read(1), w(f)][2]", "[]", "123456789", done);
    check("[f := open(path, 'rb'), f.seek(99), w(f)][2]", "[]", "", done);
    check("[f := open(path, 'rb+'), f.seek(0, 2), f.write(b'ab'), f.seek(8), w(f)][4]", "[]", "89ab", done);
    check("w(open(path, 'rb'))", "[('Content-Length', '4')]", "0123", done);
    check("w(open(path, 'rb'))", "[('Content-Length', '11')]", "0123456789", End::Abort);
    check("[f := tempfile.NamedTemporaryFile(), f.write(b'abc'), f.seek(1), w(f)][3]", "[]", "bc", done);
    check("w(io.BytesIO(b'abc'))", "[]", "chunked 3\r\nabc\r\n0\r\n\r\n", done);
    check("w(io.BytesIO(b'abc'), 2)", "[]", "chunked 2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", done);
    check(
        "w(type('R', (), {'d': [b'', b'a'], 'read': lambda s, n: s.d.pop()})())",
        "[]",
        "chunked 1\r\na\r\n0\r\n\r\n",
        done,
    );
    check("(x for x in w(open(path, 'rb')))", "[]", "chunked a\r\n0123456789\r\n0\r\n\r\n", done);
    check("[w(open(path, 'rb')), [b'other']][1]", "[]", "other", done);
    check("[zip_it(path), w(gzip.open(path))][1]", "[]", "chunked 5\r\nplain\r\n0\r\n\r\n", done);
    check("[zip_it(path), w(io.BufferedReader(gzip.open(path)))][1]", "[]", "chunked 5\r\nplain\r\n0\r\n\r\n", done);
}

#[test]
fn a_wrapped_file_is_closed_once_and_its_descriptor_lives_on() {
    let bench = Bench::new();
    Python::attach(|py| {
        let application = application(
            py,
            "import tempfile\ndef application(e, sr):\n    f = tempfile.TemporaryFile()\n    f.write(b'abc')\n    \
                f.seek(0)\n    application.file = f\n    sr('200 OK', [])\n    return e['wsgi.file_wrapper'](f)\n",
        );
        bench.worker(py, &application).run(py, exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(application.getattr("file").unwrap().getattr("closed").unwrap().is_truthy().unwrap());
        let mut answer = Answer::default();
        bench.collect(&mut answer);
        assert_eq!(answer.body(), "abc");
    });
}

/// A device has a descriptor and a position, and no length.
#[test]
fn a_device_is_iterated_over() {
    let answer = get(
        "def application(e, sr):\n    sr('200 OK', [])\n    return e['wsgi.file_wrapper'](open('/dev/null', 'rb'))\n",
    );
    assert_eq!((answer.body(), answer.end), ("", Some(End::Complete)));
}

/// A file of /proc says that it is empty, one of /sys that it has a page of bytes.
#[test]
fn a_file_made_as_it_is_read_is_iterated_over() {
    for path in ["/proc/self/stat", "/sys/kernel/notes", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        let Ok(content) = std::fs::read(path) else { continue };
        let answer = get(&format!(
            "def application(e, sr):\n    sr('200 OK', [])\n    return e['wsgi.file_wrapper'](open('{path}', 'rb', 0))\n",
        ));
        assert_eq!(answer.field("Transfer-Encoding"), Some("chunked"), "{path}: {answer:?}");
        assert_eq!(answer.end, Some(End::Complete), "{path}");
        assert!(answer.body().len() >= content.len(), "{path}: {answer:?}");
    }
}

/// 4.6 P10: the standard library's validator has nothing to say.
#[test]
fn the_reference_validator_stays_silent() {
    for (request, body) in [
        (&b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n"[..], "[b'ok']"),
        (b"GET / HTTP/1.0\r\n\r\n", "iter([b'o', b'k'])"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc",
            "[e['wsgi.input'].read(3)]",
        ),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "[b'ok']"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \xe9\r\n\r\n", "[b'ok']"),
    ] {
        let source = format!(
            "import warnings\nwarnings.simplefilter('error')\nfrom wsgiref.validate import validator\n\
             def inner(e, sr):\n    sr('200 OK', [('Content-Type', 'text/plain')])\n    return {body}\n\
                 application = validator(inner)\n"
        );
        let answer = serve(&source, request);
        assert_eq!((answer.status, answer.end), (200, Some(End::Complete)), "{body}: {answer:?}");
    }
}

/// Runs `source` for `request`; the reply before a reactor has made anything of it.
fn reply_of(source: &str, request: &[u8], retried: bool) -> Box<Exchange> {
    let bench = Bench::new();
    Python::attach(|py| {
        let mut worker = bench.worker(py, &application(py, source));
        let mut exchange = exchange(request);
        exchange.retried = retried;
        worker.run(py, exchange);
        match bench.mailbox.queue.pop() {
            Some(Message::Reply(exchange)) => exchange,
            _ => panic!("one reply"),
        }
    })
}

const PLAIN_GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn special(headers: &str) -> (Option<Special>, String) {
    let source = format!("def application(e, sr):\n    sr('200 OK', {headers})\n    return [b'x']\n");
    let mut exchange = reply_of(&source, PLAIN_GET, false);
    let special = exchange.reply.special.take().map(|special| *special);
    (special, drain(&mut exchange.reply.outgoing))
}

/// Each name, without case; what the client gets of them: nothing.
#[test]
fn special_fields_are_taken_and_stripped() {
    let text = |value: &str| Some(value.as_bytes().to_vec());
    let check = |headers: &str, expected: Special| {
        let (found, sent) = special(headers);
        assert_eq!(found, Some(expected), "{headers}");
        let fields = sent.to_ascii_lowercase();
        assert!(!fields.contains("x-wsgo") && !fields.contains("x-sendfile"), "{sent}");
    };
    check("[('X-Sendfile', '/a b')]", Special { sendfile: text("/a b"), ..Special::default() });
    check("[('x-SENDFILE', '/a'), ('X-Sendfile', '/b')]", Special { sendfile: text("/a"), ..Special::default() });
    check("[('X-WSGo-Park', 'a'), ('x-wsgo-park', 'b, c')]", Special { park: text("a, b, c"), ..Special::default() });
    check("[('X-WSGo-Park-Timeout', '5 retry')]", Special { park_timeout: text("5 retry"), ..Special::default() });
    check("[('X-WSGo-Park-Arg', 'x')]", Special { park_arg: text("x"), ..Special::default() });
    check("[('X-WSGO-BLOCK', '60')]", Special { block: text("60"), ..Special::default() });
    check("[('X-WSGo-Vary-Cookies', 's')]", Special { vary_cookies: text("s"), ..Special::default() });
    check("[('X-WSGo-Websocket', '1')]", Special::default());
    // Not configured in this pool: an nginx in front may act on it.
    let (found, sent) = special("[('X-Accel-Redirect', '/a'), ('X-WSG', '1'), ('X-Sendfile-Type', '2'), ('Xx', '3')]");
    assert_eq!(found, None);
    for line in ["X-Accel-Redirect: /a\r\n", "X-WSG: 1\r\n", "X-Sendfile-Type: 2\r\n", "Xx: 3\r\n"] {
        assert!(sent.contains(line), "{sent}");
    }
}

#[test]
fn a_replaced_response_is_its_fields_and_nothing_else() {
    let fields = "[('X-A', 'b'), ('Content-Length', '3'), ('X-Sendfile', '/f'), ('Connection', 'close')]";
    let check = |body: &str| {
        let source = format!("closed = []\ndef application(e, sr):\n{body}\n");
        let mut exchange = reply_of(&source.replace("FIELDS", fields), PLAIN_GET, false);
        let reply = &mut exchange.reply;
        assert!(reply.special.as_ref().is_some_and(|special| special.replaces()), "{body}");
        assert_eq!(drain(&mut reply.outgoing), "HTTP/1.1 203 Fine\r\nX-A: b\r\n", "{body}");
        assert_eq!((reply.status, reply.end, reply.keep_alive), (203, End::Complete, false), "{body}");
        assert_eq!((reply.head_bytes, reply.body_bytes, reply.worker), (0, 0, 1), "{body}");
    };
    let start = "    write = sr('203 Fine', FIELDS)\n";
    for rest in
        ["return [b'abc']", "return []", "return (b'x', b'y')", "return iter([b'abc'])", "yield b'abc'", "yield b''"]
    {
        check(&format!("{start}    {rest}"));
    }
    check(&format!("{start}    write(b'abc'); write(b'')\n    return [b'x']"));
    check(&format!("{start}    return e['wsgi.file_wrapper'](open('/proc/version', 'rb'))"));
    check(&format!("    sr('200 OK', [])\n    import sys\n    try: 1/0\n    except Exception: info = sys.exc_info()\n{start}    \
        return [b'x']").replace("FIELDS)\n", "FIELDS, info)\n"));
}

/// Nothing more is asked of an iterable once it is known that it isn't sent, but it is closed.
#[test]
fn a_replaced_iterable_is_closed_and_not_run_on() {
    let source = "
seen = []
class Result:
    def __iter__(self): seen.append('iter'); return iter([b'a'])
    def close(self): seen.append('closed')
def application(e, sr):
    sr('200 OK', [('X-WSGo-Park', 'a')])
    return Result()
application.seen = seen
";
    let lazy = "
seen = []
class Result:
    def __iter__(self):
        application.start('200 OK', [('X-Sendfile', 'a')])
        for n in range(5): seen.append('block'); yield b''
    def close(self): seen.append('closed')
def application(e, sr):
    application.start = sr
    return Result()
application.seen = seen
";
    let bench = Bench::new();
    Python::attach(|py| {
        for (source, expected) in [(source, &["closed"][..]), (lazy, &["block", "closed"])] {
            let application = application(py, source);
            bench.worker(py, &application).run(py, exchange(PLAIN_GET));
            assert_eq!(application.getattr("seen").unwrap().extract::<Vec<String>>().unwrap(), expected);
            assert!(matches!(bench.mailbox.queue.pop(), Some(Message::Reply(_))));
            assert!(bench.mailbox.queue.pop().is_none(), "one reply");
        }
    });
}

/// The body of a request that is parked goes with it, whatever was read of it and whoever holds the stream.
#[test]
fn a_parked_request_keeps_its_body() {
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    for result in ["[b'']", "iter([b'a'])"] {
        let source = format!(
            "kept = []\ndef application(e, sr):\n    kept.append(e['wsgi.input'])\n    e['wsgi.input'].read(3)\n    \
            sr('200 OK', [('X-WSGo-Park', 'a'), ('X-WSGo-Park-Timeout', '1 retry')])\n    return {result}\n"
        );
        let exchange = reply_of(&source, request, false);
        assert!(matches!(&exchange.body, Body::Memory(bytes) if bytes == b"hello"), "{result}: {:?}", exchange.body);
        // Run again, it is answered as it says.
        let mut exchange = reply_of(&source, request, true);
        let special = exchange.reply.special.take().expect("something was said");
        assert_eq!((*special).clone(), Special::default());
        assert!(drain(&mut exchange.reply.outgoing).starts_with("HTTP/1.1 200 OK\r\nDate: "), "{result}");
    }
}

#[test]
fn a_parked_request_keeps_a_spooled_body() {
    let bench = Bench::new();
    Python::attach(|py| {
        let source = "def application(e, sr):\n    e['wsgi.input'].readline()\n    sr('200 OK', [('X-WSGo-Park', 'a')])\n    return []\n";
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        let mut exchange = exchange(PLAIN_GET);
        exchange.body = Body::File(file, 8);
        bench.worker(py, &application(py, source)).run(py, exchange);
        let Some(Message::Reply(exchange)) = bench.mailbox.queue.pop() else { panic!("one reply") };
        let Body::File(file, 8) = &exchange.body else { panic!("{:?}", exchange.body) };
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"one\ntwo\n");
    });
}

#[test]
fn a_failure_forgets_what_was_said() {
    let source = "def application(e, sr):\n    sr('200 OK', [('X-Sendfile', '/f')])\n    raise ValueError('x')\n";
    let mut exchange = reply_of(source, PLAIN_GET, false);
    assert_eq!((exchange.reply.status, exchange.reply.special.is_none()), (500, true));
    let text = drain(&mut exchange.reply.outgoing);
    assert_eq!(&text[exchange.reply.head_bytes..], "Internal Server Error\n");
}

#[test]
fn special_fields_count_to_the_head() {
    for (bytes, status) in [(200_000, 200), (300_000, 500)] {
        let source = format!(
            "def application(e, sr):\n    sr('200 OK', [('X-WSGo-Vary-Cookies', 'x' * {})] * 2)\n    return []\n",
            bytes / 2
        );
        assert_eq!(reply_of(&source, PLAIN_GET, false).reply.status, status, "{bytes}");
    }
}

#[test]
fn the_head_of_an_interrupted_reply_is_known_by_its_length() {
    let bench = Bench::new();
    let mut response = Response::new(exchange(PLAIN_GET), 0, &bench.pool, None);
    let Output::Reply(mut exchange) = response.time_out(&mut DateText::default()) else { panic!("one reply") };
    let text = drain(&mut exchange.reply.outgoing);
    assert_eq!(&text[exchange.reply.head_bytes..], "504 Gateway Timeout: the application took too long\n");
}

#[test]
fn the_head_of_a_reply_is_known_by_its_length() {
    for body in [
        "[b'abc']",
        "[b'x' * 200_000]",
        "iter([b'abc', b'd'])",
        "[]",
        "e['wsgi.file_wrapper'](open('/proc/version', 'rb'))",
    ] {
        let source = format!("def application(e, sr):\n    sr('200 OK', [('X-WSGo-Block', '1')])\n    return {body}\n");
        let mut exchange = reply_of(&source, PLAIN_GET, false);
        let first = exchange.reply.outgoing.front_bytes().unwrap();
        assert!(first.len() >= exchange.reply.head_bytes && exchange.reply.head_bytes > 20, "{body}");
        let text = drain(&mut exchange.reply.outgoing);
        assert_eq!(text.find("\r\n\r\n").map(|at| at + 4), Some(exchange.reply.head_bytes), "{body}");
        let special = exchange.reply.special.as_ref().expect("it goes with the reply");
        assert_eq!((special.replaces(), special.block.as_deref()), (false, Some(&b"1"[..])));
    }
}

/// The worker that has taken the GIL by force for a light request answers all that wait: it isn't woken for each.
#[test]
fn whoever_came_for_one_urgent_request_goes_on_with_the_others() {
    let bench = Bench::new();
    let (pool, baton) = (&bench.pool, &bench.pool.crew.baton);
    let submit = |client: &str| {
        let mut asked = exchange(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n");
        asked.client = Some(Client { address: client.parse().ok(), garbled: false });
        pool.submit(asked);
    };
    let ask_often = |client: &str, times: usize| {
        for _ in 0..times {
            submit(client);
            assert!(pool.take().is_some());
        }
    };
    let (greedy, modest) = ("198.51.100.1", "203.0.113.1");
    ask_often(greedy, 400);
    ask_often(modest, 200);
    let (mut heavy, mut light) = (None, None);
    (0..2).for_each(|_| submit(greedy));
    assert!(pool.waiting.take(&mut heavy).is_some() && heavy.as_ref().is_some_and(Run::is_low));
    let now = clock::now();
    baton.start();
    baton.popped(now, Duration::ZERO, true);
    baton.rest(0);
    submit(modest);
    let later = now + Duration::from_millis(10);
    assert!(matches!(baton.stall(later, true), Watch::Wake(0)) && baton.is_ahead());
    assert!(pool.waiting.take(&mut light).is_some() && light.as_ref().is_some_and(Run::is_low));
    baton.start();
    baton.arrived(later + Duration::from_millis(5), true);
    assert!(!baton.is_ahead(), "it has arrived");
    for _ in 0..3 {
        // It comes while the one before it is run, beside which it couldn't be.
        submit(modest);
        assert!(!pool.is_one_too_many(&mut light) && light.is_none());
        assert!(pool.waiting.take(&mut light).is_some());
    }
    assert!(pool.is_one_too_many(&mut light), "the other worker sees to the greedy one's requests");
    assert_eq!(pool.waiting.len(), 1);
    pool.waiting.finish(&mut heavy);
}
