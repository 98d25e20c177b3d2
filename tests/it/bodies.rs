//! Promise: a request body reaches the application whole and as it was sent, whatever its framing, size and pieces; what
//! is too large is refused early; what nobody reads harms nobody.

use crate::support::{Client, Driver, Folder, Profile, Server, Shared, chunked, pattern, pause};

/// Past the MiB that is kept in memory.
const LARGE: usize = 3 * 1024 * 1024 + 17;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

static SMALL: Profile =
    Profile { name: "small bodies", flags: &["--header-timeout", "20", "--max-request-body", "1000"] };

fn with_length(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn in_chunks(target: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    [head.as_bytes(), &chunked(body, size)].concat()
}

/// Sends while reading, since the server may pause receiving until it has been read from.
fn exchange(client: &mut Client, request: &[u8], pieces: usize) -> crate::support::Response {
    std::thread::scope(|scope| {
        let mut sender = client.clone_socket();
        scope.spawn(move || request.chunks(pieces).for_each(|piece| sender.send(piece)));
        client.response()
    })
}

/// The next request is understood.
fn expect_kept(client: &mut Client) {
    client.get("/").expect("Hello, world!\n");
}

fn refused(server: &Server, request: &[u8], status: u16) {
    let mut client = server.connect();
    client.try_send(request);
    client.response().expect_refusal(status);
    client.expect_closed();
}

on_every_driver! {
    /// On both sides of every boundary there is.
    fn of_every_size(server: Shared) {
        let mut client = server.connect();
        for length in [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577, LARGE] {
            let body = pattern(length);
            exchange(&mut client, &with_length("/echo", &body), 65_536).expect(&body);
            exchange(&mut client, &in_chunks("/echo", &body, 10_000), 65_536).expect(&body);
        }
        expect_kept(&mut client);
    }

    /// Pieces that respect no boundary.
    fn in_odd_pieces(server: Shared) {
        let mut client = server.connect();
        let body = pattern(LARGE);
        for pieces in [1_000, 4_099, 1_048_577] {
            exchange(&mut client, &with_length("/echo", &body), pieces).expect(&body);
            exchange(&mut client, &in_chunks("/echo", &body, 4_000), pieces).expect(&body);
            exchange(&mut client, &in_chunks("/echo", &body, 2_000_000), pieces).expect(&body);
        }
        expect_kept(&mut client);
    }

    /// A spooled body is as good as one in memory, for every way of reading, and is forgotten afterwards.
    fn spooled_bodies_leave_no_descriptor(driver: Driver) {
        let server = driver.server().start();
        let body = pattern(LARGE);
        server.get("/");
        let before = server.descriptors();
        for _ in 0..5 {
            let mut client = server.connect();
            exchange(&mut client, &with_length("/echo", &body), 65_536).expect(&body);
            exchange(&mut client, &in_chunks("/ignore", &body, 65_536), 65_536).expect("ignored\n");
        }
        server.expect_descriptors(before, "temporary files and connections are closed");
        server.stop();
    }

    /// RFC 9112 §7.1.1, §7.1.2: extensions and trailers are read, and are nobody's business.
    fn extensions_and_trailers(server: Shared) {
        let head = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut client = server.connect();
        for body in [
            "3\r\nabc\r\n0\r\n\r\n",
            "3;\r\nabc\r\n0;\r\n\r\n",
            "3;name=value\r\nabc\r\n0;last\r\n\r\n",
            "3;name=\"quoted; value\"\r\nabc\r\n0\r\n\r\n",
            "1\r\na\r\n2;x\r\nbc\r\n0\r\n\r\n",
            "003\r\nabc\r\n000\r\n\r\n",
            "3\r\nabc\r\n0\r\nTrailer: value\r\n\r\n",
            "3\r\nabc\r\n0\r\nA: b\r\nC:\r\nContent-Length: 7\r\nTransfer-Encoding: gzip\r\nHost: evil\r\n\r\n",
        ] {
            client.send(format!("{head}{body}"));
            client.response().expect("abc");
        }
        expect_kept(&mut client);
        let request = format!("{head}3;x=y\r\nabc\r\n0\r\nTrailer: value\r\n\r\n");
        for split in head.len() - 5..request.len() {
            let (first, second) = request.split_at(split);
            client.send(first);
            pause(1);
            client.send(second);
            client.response().expect("abc");
        }
        expect_kept(&mut client);
    }

    /// RFC 9110 §6.5.1: a trailer doesn't become a field; CONTENT_LENGTH isn't made up.
    fn trailers_are_not_fields(server: Shared) {
        let mut client = server.connect();
        client.send("POST /environ HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: value\r\n\r\n");
        let text = client.response().text();
        assert!(!text.contains("TRAILER"), "{text}");
        assert!(text.contains("wsgi.input_terminated=True\n"), "{text}");
    }

    /// RFC 9110 §10.1.1: told to go on at once, in exactly these bytes, once.
    fn continue_is_said(server: Shared) {
        let mut client = server.connect();
        for (field, body) in [("Content-Length: 3", "abc"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n")] {
            for value in ["100-continue", "100-Continue"] {
                client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nExpect: {value}\r\n{field}\r\n\r\n"));
                client.expect_bytes(CONTINUE);
                client.expect_quiet();
                client.send(body);
                client.response().expect("abc");
            }
        }
        let body = pattern(LARGE);
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: {LARGE}\r\n\r\n"));
        client.expect_bytes(CONTINUE);
        exchange(&mut client, &body, 65_536).expect(&body);
        expect_kept(&mut client);
    }

    /// Not to a client that doesn't wait, doesn't understand, or has nothing to send.
    fn continue_is_not_said(server: Shared) {
        let request = "POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        let mut client = server.connect();
        client.send(format!("{request}abc"));
        client.response().expect("abc");
        client.send(format!("{request}a"));
        pause(5);
        client.send("bc");
        client.response().expect("abc");
        client.send(request.replace("Length: 3", "Length: 0"));
        client.response().expect("");
        client.send(request.replace("1.1", "1.0"));
        pause(5);
        client.send("abc");
        let response = client.response();
        response.expect("abc");
        assert!(response.head.closes());
        client.expect_closed();
    }

    /// RFC 9112 §3.2.2: its authority counts, not the Host field; HTTP_HOST says so.
    fn absolute_form(server: Shared) {
        let mut client = server.connect();
        for (target, path, query) in [
            ("http://other:81/environ/a%20b?q=1", "/environ/a b", "q=1"),
            ("HTTP://other:81/environ", "/environ", ""),
            ("https://other:81/environ?", "/environ", ""),
        ] {
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let text = client.response().text();
            let line = |expected: String| assert!(text.contains(&format!("{expected}\n")), "{expected}: {text}");
            line(format!("PATH_INFO='{path}'"));
            line(format!("QUERY_STRING='{query}'"));
            line("HTTP_HOST='other:81'".to_owned());
        }
        for target in ["http://other", "http://other/"] {
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            client.response().expect("Hello, world!\n");
        }
    }

    /// RFC 9112 §3.2.4.
    fn asterisk_form(server: Shared) {
        let mut client = server.connect();
        client.send("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status(), 200);
        assert!(response.text().starts_with("OPTIONS "), "{}", response.text());
        expect_kept(&mut client);
    }

    /// At the limit, and past it by a byte: before the body when a length tells, else as soon as a chunk does.
    fn a_limit_on_bodies(driver: Driver) {
        let server = Shared::of(driver, &SMALL);
        let mut client = server.connect();
        let body = pattern(1000);
        client.send(with_length("/echo", &body));
        client.response().expect(&body);
        for size in [1, 7, 999, 1000] {
            client.send(in_chunks("/echo", &body, size));
            client.response().expect(&body);
        }
        refused(&server, b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n", 413);
        refused(&server, &with_length("/echo", &pattern(1001)), 413);
        refused(&server, b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", 413);
        for size in [1, 7, 500, 1001] {
            refused(&server, &in_chunks("/echo", &pattern(1001), size), 413);
        }
    }

    /// A client that asks first isn't told to go on.
    fn too_large_isn_t_waved_on(driver: Driver) {
        let server = Shared::of(driver, &SMALL);
        let request = "POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n";
        refused(&server, request.as_bytes(), 413);
    }

    /// A client that sends all of what was refused, and reads only then, can still read why.
    fn an_early_answer_can_be_read(driver: Driver) {
        let server = Shared::of(driver, &SMALL);
        for _ in 0..3 {
            let mut client = server.connect();
            client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000\r\n\r\n");
            for _ in 0..100 {
                client.send([b'x'; 100_000]);
            }
            client.response().expect_refusal(413);
            client.expect_closed();
        }
        server.connect().get("/").expect("Hello, world!\n");
    }

    /// The next request begins where the body ends, whether the application read it or not.
    fn unread_bodies(server: Shared) {
        let mut client = server.connect();
        for length in [1, 1_000, 100_000, 300_000, LARGE] {
            let body = pattern(length);
            exchange(&mut client, &with_length("/ignore", &body), 65_536).expect("ignored\n");
            exchange(&mut client, &in_chunks("/ignore", &body, 5_000), 65_536).expect("ignored\n");
            expect_kept(&mut client);
        }
    }

    /// A worker gets the request when its body is in, not before: a slow upload costs none.
    fn a_slow_upload_holds_no_worker(driver: Driver) {
        let server = driver.server().flags(&["--workers", "1"]).start();
        let folder = Folder::new();
        let log = folder.log("log");
        let mut uploads: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        for client in &mut uploads {
            client.send(format!("POST /record?{} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345", log.path()));
        }
        server.connect().get("/").expect("Hello, world!\n");
        assert_eq!(log.lines(), [""; 0], "nothing is run before its body is complete");
        for client in &mut uploads {
            client.send("67890");
            client.response().expect("recorded\n");
        }
        assert_eq!(log.lines(), ["POST 10"; 5]);
        server.stop();
    }
}
