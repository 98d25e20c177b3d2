//! Promise: requests that come before the last one is answered are answered in order, each from its own bytes
//! (RFC 9112 §9.3.2).

use crate::support::{Folder, Shared, chunked, pattern, pause};

const HELLO: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn echo(body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

fn echo_chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut request = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    request.extend(chunked(body, size));
    request
}

on_every_driver! {
    /// Twenty in one write, told apart by what they echo.
    fn twenty_in_one_write(server: Shared) {
        let mut client = server.connect();
        let requests: Vec<u8> = (0..20).flat_map(|number| echo(format!("number {number}").as_bytes())).collect();
        client.send(requests);
        for number in 0..20 {
            client.response().expect(format!("number {number}"));
        }
        client.get("/").expect("Hello, world!\n");
    }

    /// GET, HEAD, bodies in both framings, bodies that nobody reads, errors of the application: nothing shifts.
    fn of_every_kind(server: Shared) {
        let mut client = server.connect();
        let mut requests = Vec::new();
        for round in 0..5 {
            requests.extend_from_slice(HELLO.as_bytes());
            requests.extend(echo(format!("length {round}").as_bytes()));
            requests.extend_from_slice(b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
            requests.extend(echo_chunked(format!("chunked {round}").as_bytes(), 3));
            requests.extend_from_slice(b"POST /ignore HTTP/1.1\r\nHost: test\r\nContent-Length: 31\r\n\r\n");
            requests.extend_from_slice(b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n12");
            requests.extend_from_slice(b"GET /generator HTTP/1.1\r\nHost: test\r\n\r\n");
            requests.extend_from_slice(b"GET /raise HTTP/1.1\r\nHost: test\r\n\r\n");
            requests.extend_from_slice(b"GET /204-with-body HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        client.send(requests);
        for round in 0..5 {
            client.response().expect("Hello, world!\n");
            client.response().expect(format!("length {round}"));
            assert_eq!(client.response_to("HEAD").status(), 200);
            client.response().expect(format!("chunked {round}"));
            client.response().expect("ignored\n");
            client.response().expect("abc");
            assert_eq!(client.response().status(), 500);
            assert_eq!(client.response().status(), 204);
        }
        client.get("/").expect("Hello, world!\n");
    }

    /// Wherever the bytes are cut in two, the answers are the same.
    fn split_at_every_byte(server: Shared) {
        let mut requests = HELLO.as_bytes().to_vec();
        requests.extend(echo(b"with a length"));
        requests.extend(echo_chunked(b"in chunks of four", 4));
        requests.extend_from_slice(HELLO.as_bytes());
        let mut client = server.connect();
        for split in 1..requests.len() {
            client.send(&requests[..split]);
            pause(1);
            client.send(&requests[split..]);
            client.response().expect("Hello, world!\n");
            client.response().expect("with a length");
            client.response().expect("in chunks of four");
            client.response().expect("Hello, world!\n");
        }
    }

    /// The fast one doesn't overtake the slow one.
    fn a_slow_one_holds_the_next(server: Shared) {
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut client = server.connect();
        client.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n{HELLO}", gate.path()));
        gate.wait_for_arrival();
        // Others are served meanwhile.
        server.connect().get("/").expect("Hello, world!\n");
        gate.open();
        client.response().expect("through\n");
        client.response().expect("Hello, world!\n");
    }

    /// Good requests are answered before the bad one behind them is refused; nothing behind that is looked at.
    fn a_bad_one_after_good_ones(server: Shared) {
        let folder = Folder::new();
        let log = folder.log("log");
        let after = format!("POST /record?{} HTTP/1.1\r\nHost: test\r\n\r\n", log.path());
        for bad in ["GET / HTTP/1.1\r\nHost : test\r\n\r\n", "GET / HTTP/3.0\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
            let mut client = server.connect();
            client.send(format!("{HELLO}{HELLO}{bad}{after}"));
            client.response().expect("Hello, world!\n");
            client.response().expect("Hello, world!\n");
            let refusal = client.response();
            refusal.expect_refusal(if bad.contains("HTTP/3.0") { 505 } else { 400 });
            client.expect_closed();
        }
        server.get("/");
        assert_eq!(log.lines(), [""; 0], "what comes behind a bad request must not reach the application");
    }

    /// RFC 9112 §9.6: after `Connection: close` nothing more is answered.
    fn close_in_the_middle(server: Shared) {
        let folder = Folder::new();
        let log = folder.log("log");
        let closing = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        let after = format!("POST /record?{} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n", log.path());
        let mut client = server.connect();
        client.send(format!("{HELLO}{closing}{after}{after}"));
        client.response().expect("Hello, world!\n");
        let last = client.response();
        last.expect("Hello, world!\n");
        assert!(last.head.closes(), "{}", last.head.masked());
        client.expect_closed();
        server.get("/");
        assert_eq!(log.lines(), [""; 0], "no request after the closing one is run");
    }

    /// RFC 9112 §9.6: a client that doesn't know yet that its connection ends, since the application or the server says so in an answer it
    /// hasn't read, goes on sending. That doesn't cost it the answer.
    fn sent_while_the_last_answer_is_read(server: Shared) {
        for target in ["/page?bytes=400000&h=Connection:+close", "/page?bytes=400000&pieces=8&h=Connection:+close"] {
            let mut client = crate::support::Client::connect_narrow(server.address(), 4096);
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let mut sender = client.clone_socket();
            std::thread::scope(|scope| {
                // For as long as the connection lasts.
                scope.spawn(move || {
                    while sender.try_send(HELLO) {
                        pause(1);
                    }
                });
                let last = client.response();
                assert!(last.head.closes(), "{}", last.head.masked());
                assert_eq!(last.body.len(), 400_000, "{target}");
                client.expect_closed();
                drop(client);
            });
        }
    }

    /// More than a receive buffer, and more than is held for a client that doesn't read.
    fn many_that_are_large(server: Shared) {
        let body = pattern(100_000);
        let mut client = server.connect();
        let one = echo(&body);
        std::thread::scope(|scope| {
            let mut sender = client.clone_socket();
            scope.spawn(move || (0..20).for_each(|_| sender.send(&one)));
            (0..20).for_each(|_| client.response().expect(&body));
        });
        client.get("/").expect("Hello, world!\n");
    }
}
