//! Promise: what isn't framed as RFC 9112 has it is refused with its status, and the connection ends, however the bytes
//! come in pieces. No request that wasn't understood to its end reaches the application.

use crate::support::client::Broken;
use crate::support::{Client, Folder, Response, Server, Shared, pause, shown};

/// Bytes up to which a case is also sent byte by byte.
const BYTE_BY_BYTE_MAX: usize = 400;

/// How a case is cut into pieces.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    Whole,
    Two,
    Bytes,
}

/// Sends `bytes` in pieces to a server that may answer and go before it has them all.
fn send(client: &mut Client, bytes: &[u8], pieces: Pieces) {
    match pieces {
        Pieces::Whole => drop(client.try_send(bytes)),
        Pieces::Two => {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            client.try_send(first);
            pause(5);
            client.try_send(second);
        }
        Pieces::Bytes => {
            let _ = bytes.iter().all(|&byte| client.try_send([byte]));
        }
    }
}

fn respond(server: &Server, bytes: &[u8], pieces: Pieces) -> (Client, Result<Response, Box<Broken>>) {
    let mut client = server.connect();
    send(&mut client, bytes, pieces);
    let response = client.try_response("GET");
    (client, response)
}

/// `bytes` are refused with one of `statuses`, and the connection ends.
fn check_refused(server: &Server, bytes: &[u8], statuses: &[u16]) {
    for pieces in [Pieces::Whole, Pieces::Two, Pieces::Bytes] {
        if matches!(pieces, Pieces::Bytes) && bytes.len() > BYTE_BY_BYTE_MAX {
            continue;
        }
        let (mut client, response) = respond(server, bytes, pieces);
        let response = response.unwrap_or_else(|broken| panic!("{} {pieces:?}: {broken:?}", shown(bytes)));
        let status = response.status();
        assert!(statuses.contains(&status), "{} {pieces:?}: {status}, not {statuses:?}", shown(bytes));
        response.expect_refusal(status);
        client.expect_closed();
    }
}

/// `bytes` are one good request.
fn check_accepted(server: &Server, bytes: &[u8]) {
    for pieces in [Pieces::Whole, Pieces::Two, Pieces::Bytes] {
        if matches!(pieces, Pieces::Bytes) && bytes.len() > BYTE_BY_BYTE_MAX {
            continue;
        }
        let (mut client, response) = respond(server, bytes, pieces);
        let response = response.unwrap_or_else(|broken| panic!("{} {pieces:?}: {broken:?}", shown(bytes)));
        assert_eq!(response.status(), 200, "{} {pieces:?}: {}", shown(bytes), response.text());
        if !response.head.closes() {
            client.get("/").expect("Hello, world!\n");
        }
    }
}

/// A head with these field lines behind its Host.
fn with_fields(lines: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: test\r\n{lines}\r\n\r\n")
}

on_every_driver! {
    /// RFC 9112 §3.
    fn request_lines(server: Shared) {
        let cases: &[(&str, &[u16])] = &[
            ("GET  / HTTP/1.1", &[400]),
            ("GET /  HTTP/1.1", &[400]),
            ("GET / HTTP/1.1 ", &[400]),
            (" GET / HTTP/1.1", &[400]),
            ("GET\t/\tHTTP/1.1", &[400]),
            ("GET /a b HTTP/1.1", &[400]),
            ("GET HTTP/1.1", &[400]),
            ("GET", &[400]),
            ("/ HTTP/1.1", &[400]),
            ("GET / HTTP/1.1\rX", &[400]),
            ("GET / HTTP/1.1\0", &[400]),
            ("GET /\0 HTTP/1.1", &[400]),
            ("GET /\x7f HTTP/1.1", &[400]),
            ("GE\0T / HTTP/1.1", &[400]),
            ("G(T / HTTP/1.1", &[400]),
            ("GET: / HTTP/1.1", &[400]),
            ("GET * HTTP/1.1", &[400]),
            ("GET relative HTTP/1.1", &[400]),
            ("GET http:///nowhere HTTP/1.1", &[400]),
            ("GET http://user@host/ HTTP/1.1", &[400]),
            ("GET ftp://host/ HTTP/1.1", &[400]),
            ("CONNECT test:80 HTTP/1.1", &[400, 405, 501]),
            ("GET / http/1.1", &[400]),
            ("GET / HTTP/1.1x", &[400]),
            ("GET / HTTP/11", &[400]),
            ("GET / HTTP/1.10", &[400]),
            ("GET / HTTP/01.1", &[400]),
            ("GET / HTTP/1", &[400]),
            ("GET / HTTP/1,1", &[400]),
            ("GET / HTTPS/1.1", &[400]),
            ("GET / HTTP/0.9", &[505]),
            ("GET / HTTP/2.0", &[505]),
            ("GET / HTTP/3.0", &[505]),
            ("GET / HTTP/9.9", &[505]),
        ];
        for (line, statuses) in cases {
            check_refused(&server, format!("{line}\r\nHost: test\r\n\r\n").as_bytes(), statuses);
        }
    }

    /// Other protocols are told at once, before anything that looks like the end of a head.
    fn other_protocols(server: Shared) {
        check_refused(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505]);
        // HTTP/0.9 knew no version and no status; a line without a version isn't a request line.
        check_refused(&server, b"GET /\r\n", &[400, 505]);
        check_refused(&server, b"GET /\r\n\r\n", &[400, 505]);
        check_refused(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400]);
        check_refused(&server, b"\0", &[400]);
    }

    /// RFC 9112 §2.2, §5: line ends, white space, characters.
    fn field_lines(server: Shared) {
        for lines in [
            "X: a\r\n b",
            "X: a\r\n\tb",
            "X: a\r\n ",
            "X: a\rb",
            "X: a\r\r",
            "X: a\nY: b",
            "X: a\n",
            "\rX: a",
            "X: a\0b",
            "X: a\x01b",
            "X: a\x7fb",
            "X\0: a",
            "X : a",
            "X\t: a",
            " X: a",
            "\tX: a",
            "X",
            "X a",
            ": a",
            " : a",
            "X(: a",
            "X/Y: a",
            "X\u{80}: a",
            "\"X\": a",
            "Content-Length : 3",
            "Transfer-Encoding\t: chunked",
            "Transfer-Encoding:\r\n chunked",
        ] {
            let bytes: Vec<u8> = with_fields(lines).chars().map(|char| char as u32 as u8).collect();
            check_refused(&server, &bytes, &[400]);
        }
        check_refused(&server, b"GET / HTTP/1.1\r\n Host: test\r\n\r\n", &[400]);
        check_refused(&server, b"GET / HTTP/1.1\nHost: test\n\n", &[400]);
        check_refused(&server, b"GET / HTTP/1.1\r\nHost: test\n\r\n", &[400]);
        check_refused(&server, b"GET / HTTP/1.1\r\nHost: test\r\n\n", &[400]);
    }

    /// What looks odd and is allowed.
    fn odd_and_good(server: Shared) {
        for lines in ["X:", "X: ", "X:a", "X: \t a \t ", "X: a\tb", "!#$%&'*+-.^_`|~: a", "X: \u{80}\u{ff}", "X: a\r\nX: b"] {
            let bytes: Vec<u8> = with_fields(lines).chars().map(|char| char as u32 as u8).collect();
            check_accepted(&server, &bytes);
        }
        for request in [
            "GET /ignore?a=%00&b=%zz%&c=\"<>^`{|} HTTP/1.1\r\nHost: test\r\n\r\n",
            "PURGE /ignore HTTP/1.1\r\nHost: test\r\n\r\n",
            "get /ignore HTTP/1.1\r\nHost: test\r\n\r\n",
            "GET /ignore HTTP/1.1\r\nHost:\r\n\r\n",
            "GET /ignore HTTP/1.1\r\nhOST:[::1]:80\r\n\r\n",
            "POST /ignore HTTP/1.1\r\nHost: test\r\n\r\n",
            "POST /ignore HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
            "POST /ignore HTTP/1.1\r\nHost: test\r\nContent-Length: 000\r\n\r\n",
            "POST /ignore HTTP/1.1\r\nHost: test\r\nContent-Length: 0000000000000000000000002\r\n\r\nab",
        ] {
            check_accepted(&server, request.as_bytes());
        }
    }

    /// RFC 9112 §3.2: one Host, and a valid one.
    fn host(server: Shared) {
        for fields in [
            "",
            "X-Host: test\r\n",
            "Host: test\r\nHost: test\r\n",
            "Host: test\r\nX: y\r\nhost: other\r\n",
            "Host: a b\r\n",
            "Host: a/b\r\n",
            "Host: user@test\r\n",
            "Host: test:port\r\n",
            "Host: [::1\r\n",
            "Host: http://test\r\n",
            "Host: te\x7fst\r\n",
        ] {
            check_refused(&server, format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes(), &[400]);
        }
        check_refused(&server, b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", &[400]);
        check_refused(&server, b"GET http://test/ HTTP/1.1\r\n\r\n", &[400]);
    }

    /// RFC 9110 §8.6, RFC 9112 §6.3: one length, in digits.
    fn content_length(server: Shared) {
        for lines in [
            "Content-Length:",
            "Content-Length: -1",
            "Content-Length: +3",
            "Content-Length: 3.0",
            "Content-Length: 0x3",
            "Content-Length: 3 3",
            "Content-Length: 3,4",
            "Content-Length: 3, 4",
            "Content-Length: three",
            "Content-Length: 3;a",
            "Content-Length: \u{b2}",
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 4\r\nX: y\r\ncontent-length: 3",
        ] {
            let mut bytes: Vec<u8> = with_fields(lines).chars().map(|char| char as u32 as u8).collect();
            bytes.extend_from_slice(b"abc");
            check_refused(&server, &bytes, &[400]);
        }
        // A recipient may also take equal ones for one (§6.3); what it may not do is guess.
        for lines in ["Content-Length: 3, 3", "Content-Length: 3\r\nContent-Length: 3"] {
            check_refused(&server, format!("{}abc", with_fields(lines)).as_bytes(), &[400]);
        }
        for length in ["18446744073709551616", "99999999999999999999999999", "9223372036854775808", "18446744073709551615"] {
            check_refused(&server, with_fields(&format!("Content-Length: {length}")).as_bytes(), &[400, 413]);
        }
    }

    /// RFC 9112 §6.1, §6.3, §7: nothing but `chunked`, once, alone.
    fn transfer_encoding(server: Shared) {
        let cases: &[(&str, &[u16])] = &[
            ("Transfer-Encoding: gzip", &[400, 501]),
            ("Transfer-Encoding: gzip, chunked", &[501]),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", &[501]),
            ("Transfer-Encoding: chunked, gzip", &[400]),
            ("Transfer-Encoding: chunked, chunked", &[400]),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", &[400]),
            ("Transfer-Encoding: chunked, identity", &[400]),
            ("Transfer-Encoding: identity", &[400, 501]),
            ("Transfer-Encoding: identity, chunked", &[400, 501]),
            ("Transfer-Encoding: xchunked", &[400, 501]),
            ("Transfer-Encoding: chunked-x", &[400, 501]),
            ("Transfer-Encoding: chunked;a=b", &[400]),
            ("Transfer-Encoding: \"chunked\"", &[400]),
            ("Transfer-Encoding: chun ked", &[400]),
            ("Transfer-Encoding: \u{b}chunked", &[400]),
            ("Transfer-Encoding: chunked\u{b}", &[400]),
            ("Transfer-Encoding:", &[400]),
            ("Transfer-Encoding: ,", &[400]),
            ("Transfer-Encoding: chunked\r\nContent-Length: 3", &[400]),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked", &[400]),
            ("Content-Length: 0\r\nTransfer-Encoding: chunked", &[400]),
            ("Content-Length: 3\r\nTransfer-Encoding: identity", &[400]),
            ("Content-Length: 3\r\nTransfer-Encoding: gzip, chunked", &[400]),
        ];
        for (lines, statuses) in cases {
            check_refused(&server, format!("{}3\r\nabc\r\n0\r\n\r\n", with_fields(lines)).as_bytes(), statuses);
        }
        let old = "POST /echo HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        check_refused(&server, old.as_bytes(), &[400]);
        for name in ["chunked", "CHUNKED", "Chunked", " chunked\t"] {
            let request = format!("{}3\r\nabc\r\n0\r\n\r\n", with_fields(&format!("Transfer-Encoding:{name}")));
            check_accepted(&server, request.as_bytes());
        }
    }

    /// RFC 9112 §7.1: a chunked body with a fault in it is never a complete one.
    fn chunks(server: Shared) {
        let folder = Folder::new();
        let log = folder.log("log");
        let head = format!("POST /record?{} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", log.path());
        for body in [
            "g\r\nabc\r\n0\r\n\r\n",
            "-3\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "3h\r\nabc\r\n0\r\n\r\n",
            "\r\nabc\r\n0\r\n\r\n",
            ";a\r\nabc\r\n0\r\n\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "3\t\r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\rabc\r\n0\r\n\r\n",
            "3\r\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabc0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nab\r\n0\r\n\r\n",
            "3\r\nabc\r\r0\r\n\r\n",
            "3\r\nabc\r\n\r\n0\r\n\r\n",
            "3;a\nb\r\nabc\r\n0\r\n\r\n",
            "3;a\rb\r\nabc\r\n0\r\n\r\n",
            "3;a\0b\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n0\n\r\n",
            "3\r\nabc\r\n0\r\n\n",
            "3\r\nabc\r\n0\r\n\rX",
            "3\r\nabc\r\n0\r\nA b: c\r\n\r\n",
            "3\r\nabc\r\n0\r\nno colon\r\n\r\n",
            "3\r\nabc\r\n0\r\nA: b\r\n folded\r\n\r\n",
            "3\r\nabc\r\n0\r\nA : b\r\n\r\n",
            "3\r\nabc\r\n0\r\nA: b\nC: d\r\n\r\n",
            "3\r\nabc\r\n0\r\nA: \0\r\n\r\n",
            "10000000000000003\r\nabc\r\n0\r\n\r\n",
            "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        ] {
            check_refused(&server, format!("{head}{body}").as_bytes(), &[400]);
        }
        check_refused(&server, format!("{head}FFFFFFFFFFFFFFFF\r\nabc").as_bytes(), &[400, 413]);
        check_refused(&server, format!("{head}7FFFFFFFFFFFFFFF\r\nabc").as_bytes(), &[400, 413]);
        check_refused(&server, format!("{head}3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(8000)).as_bytes(), &[400]);
        check_refused(&server, format!("{head}{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(8000)).as_bytes(), &[400]);
        check_refused(&server, format!("{head}0\r\nA: {}\r\n\r\n", "x".repeat(20_000)).as_bytes(), &[400, 431]);
        server.get("/");
        assert_eq!(log.lines(), [""; 0], "the application took one of these bodies for complete");
    }

    /// A body that ends with the connection is never a complete one, whatever its framing.
    fn truncated_bodies(server: Shared) {
        let folder = Folder::new();
        let log = folder.log("log");
        for (field, body) in [
            ("Content-Length: 10", ""),
            ("Content-Length: 10", "123456789"),
            ("Transfer-Encoding: chunked", ""),
            ("Transfer-Encoding: chunked", "3"),
            ("Transfer-Encoding: chunked", "3\r\nab"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n0"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nA: b\r\n"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r"),
        ] {
            let mut client = server.connect();
            client.send(format!("POST /record?{} HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n{body}", log.path()));
            client.finish_sending();
            let rest = client.rest();
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "), "{body}: {}", shown(&rest));
        }
        server.get("/");
        assert_eq!(log.lines(), [""; 0], "the application took one of these bodies for complete");
    }

    /// A head that ends with the connection is no request.
    fn truncated_heads(server: Shared) {
        let folder = Folder::new();
        let log = folder.log("log");
        let head = format!("POST /record?{} HTTP/1.1\r\nHost: test\r\n\r\n", log.path());
        for length in [1, 4, head.len() / 2, head.len() - 3, head.len() - 2, head.len() - 1] {
            let mut client = server.connect();
            client.send(&head[..length]);
            client.finish_sending();
            let rest = client.rest();
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "), "{length} bytes: {}", shown(&rest));
        }
        server.get("/");
        assert_eq!(log.lines(), [""; 0], "the application got a request that wasn't complete");
    }

    /// RFC 9110 §10.1.1: an expectation that isn't understood.
    fn expectations(server: Shared) {
        for value in ["something", "200-ok", "100-continue, something", "100-continued"] {
            let request = with_fields(&format!("Content-Length: 3\r\nExpect: {value}"));
            check_refused(&server, format!("{request}abc").as_bytes(), &[417]);
        }
        // It announces a body, and there is none in any framing.
        check_refused(&server, with_fields("Expect: 100-continue").as_bytes(), &[411]);
    }

    /// Past each limit: its status, also when the end of the line or of the head never comes.
    fn too_large(server: Shared) {
        let long = |length: usize| "x".repeat(length);
        check_refused(&server, format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", long(17_000)).as_bytes(), &[414]);
        check_refused(&server, format!("GET /{}", long(20_000)).as_bytes(), &[414]);
        check_refused(&server, long(20_000).as_bytes(), &[400, 414]);
        check_refused(&server, with_fields(&format!("X: {}", long(66_000))).as_bytes(), &[431]);
        check_refused(&server, format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}", long(70_000)).as_bytes(), &[431]);
        check_refused(&server, format!("GET / HTTP/1.1\r\nHost: test\r\n{}", long(70_000)).as_bytes(), &[431]);
        let many: String = (0..129).map(|number| format!("X-{number}: y\r\n")).collect();
        check_refused(&server, format!("GET / HTTP/1.1\r\nHost: test\r\n{many}\r\n").as_bytes(), &[431]);
        let endless: String = (0..9000).map(|number| format!("X-{number}: y\r\n")).collect();
        check_refused(&server, format!("GET / HTTP/1.1\r\nHost: test\r\n{endless}").as_bytes(), &[431]);
    }

    /// Just within the limits, and well within what single sign-on needs.
    fn large_enough(server: Shared) {
        let cookie = "x".repeat(60 * 1024);
        let request = format!("GET /environ HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n");
        for pieces in [Pieces::Whole, Pieces::Two] {
            let response = respond(&server, request.as_bytes(), pieces).1.expect("a cookie of 60 KiB is let in");
            assert!(response.text().contains(&format!("HTTP_COOKIE='{cookie}'")), "the cookie came through whole");
        }
        let line = format!("/ignore?{}", "x".repeat(16_000));
        check_accepted(&server, format!("GET {line} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        let many: String = (0..127).map(|number| format!("X-{number}: y\r\n")).collect();
        check_accepted(&server, format!("GET /ignore HTTP/1.1\r\nHost: test\r\n{many}\r\n").as_bytes());
    }

    /// A refused request doesn't reset its answer away, however much the client goes on sending.
    fn a_refusal_can_be_read(server: Shared) {
        for _ in 0..10 {
            let mut client = server.connect();
            client.try_send("GET / HTTP/1.1\r\nHost : test\r\n\r\n");
            for _ in 0..20 {
                client.try_send([b'x'; 8192]);
            }
            client.response().expect_refusal(400);
            client.expect_closed();
        }
    }
}
