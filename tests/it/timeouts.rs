//! Promise: nobody waits for ever. Who is too slow gets 408 where a status can still be said, 504 where the application is,
//! and otherwise the end of the connection. How long exactly is never asserted, only what happens and in which order.

use crate::support::{Client, Driver, Folder, Profile, Shared, eventually, pause, shown};

/// Short, and yet longer than a busy machine may hold up the test between two of the things it sends.
static SHORT: Profile =
    Profile { name: "short", flags: &["--header-timeout", "1", "--body-timeout", "2", "--keep-alive", "1"] };

/// Everything that is sent until the connection ends is a 408, or `None` when it ends without a word.
fn expect_408(client: &mut Client) {
    let response = client.response();
    response.expect_refusal(408);
    client.expect_closed();
}

on_every_driver! {
    /// A head that isn't complete in time, wherever it stops.
    fn a_head_that_stops(driver: Driver) {
        let server = Shared::of(driver, &SHORT);
        let head = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
        let mut clients: Vec<Client> = [1, 5, 16, 20, head.len() - 1]
            .map(|length| {
                let mut client = server.connect();
                client.send(&head[..length]);
                client
            })
            .into();
        clients.iter_mut().for_each(expect_408);
    }

    /// A head isn't given more time for coming byte by byte.
    fn a_head_that_trickles(driver: Driver) {
        let server = Shared::of(driver, &SHORT);
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n");
        let mut sender = client.clone_socket();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Ends because the server ends the connection; it would take ten minutes otherwise.
                for _ in 0..6_000 {
                    if !sender.try_send("X: y\r\n") {
                        return;
                    }
                    pause(100);
                }
            });
            client.response().expect_refusal(408);
            client.rest();
        });
    }

    /// A second head on a kept connection has its time too.
    fn a_second_head_that_stops(driver: Driver) {
        let server = Shared::of(driver, &SHORT);
        let mut client = server.connect();
        client.get("/").expect("Hello, world!\n");
        client.send("GET / HTTP/1.1\r\nHo");
        expect_408(&mut client);
    }

    /// Who never asked gets no answer: browsers open connections ahead of need and would take a 408 for one.
    fn a_connection_without_a_byte(driver: Driver) {
        let server = Shared::of(driver, &SHORT);
        let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(Client::expect_closed);
    }

    /// A kept connection that isn't used again ends without a word.
    fn an_idle_connection(driver: Driver) {
        let server = Shared::of(driver, &SHORT);
        let mut client = server.connect();
        client.get("/").expect("Hello, world!\n");
        client.get("/").expect("Hello, world!\n");
        client.expect_closed();
    }

    /// An empty line, left behind a body by old clients, begins no request (RFC 9112 §2.2): the connection stays idle.
    fn an_empty_line_behind_a_body(driver: Driver) {
        let server = driver.server().flags(&["--header-timeout", "1"]).start();
        let post = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc";
        let mut clients: Vec<Client> = [&["\r\n"][..], &["", "\r\n"], &["", "\r", "\n"]]
            .map(|pieces| {
                let mut client = server.connect();
                client.send(format!("{post}{}", pieces[0]));
                client.response().expect("abc");
                for piece in &pieces[1..] {
                    client.send(piece);
                    pause(5);
                }
                client
            })
            .into();
        // On a new connection the header time-out is the idle time: it ends without a word.
        let mut silent = server.connect();
        silent.send("\r\n");
        silent.expect_closed();
        let mut witness = server.connect();
        witness.send("GET");
        expect_408(&mut witness);
        for client in &mut clients {
            client.get("/").expect("Hello, world!\n");
        }
        server.stop();
    }

    /// `--keep-alive 0` keeps none, and says so.
    fn no_keep_alive(driver: Driver) {
        let server = driver.server().flags(&["--keep-alive", "0"]).start();
        let mut client = server.connect();
        let response = client.get("/");
        response.expect("Hello, world!\n");
        assert!(response.head.closes(), "{}", response.head.masked());
        client.expect_closed();
        server.stop();
    }

    /// A body that stops, in both framings, whether or not anything of it came.
    fn a_body_that_stops(driver: Driver) {
        let server = Shared::of(driver, &SHORT);
        let folder = Folder::new();
        let log = folder.log("log");
        let mut clients: Vec<Client> = [
            ("Content-Length: 10", ""),
            ("Content-Length: 10", "123456789"),
            ("Transfer-Encoding: chunked", ""),
            ("Transfer-Encoding: chunked", "3\r\nab"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n"),
            ("Content-Length: 10\r\nExpect: 100-continue", ""),
        ]
        .map(|(field, body)| {
            let mut client = server.connect();
            client.send(format!("POST /record?{} HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n{body}", log.path()));
            if field.contains("Expect") {
                client.expect_bytes(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            client
        })
        .into();
        clients.iter_mut().for_each(expect_408);
        assert_eq!(log.lines(), [""; 0], "the application got a body that isn't complete");
    }

    /// A body that goes on coming is waited for, longer in all than the limit between two of its bytes.
    fn a_body_that_trickles(driver: Driver) {
        let server = Shared::of(driver, &SHORT);
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n");
        for digit in "123456789".chars() {
            pause(300);
            client.send(digit.to_string());
        }
        client.response().expect("123456789");
    }

    /// A reader that stops is let go: a body in memory, a stream, a file.
    fn a_reader_that_stops(driver: Driver) {
        let server = driver.server().flags(&["--send-timeout", "0.3"]).start();
        let folder = Folder::new();
        let (file, _) = folder.large_file("file", 30_000_000);
        let log = folder.log("log");
        server.get("/");
        let before = server.descriptors();
        let mut clients: Vec<Client> = [
            "/large?30000000".to_owned(),
            format!("/endless?{}", log.path()),
            format!("/file?plain,{}", file.display()),
        ]
        .map(|target| {
            let mut client = Client::connect_narrow(server.address(), 4096);
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            client.expect_bytes(b"HTTP/1.1 200 OK\r\n");
            client
        })
        .into();
        server.expect_descriptors(before, "connections that nobody reads from are closed");
        assert_eq!(log.wait_for(1), ["closed"]);
        for client in &mut clients {
            let rest = client.rest();
            assert!(rest.len() < 29_000_000 && !rest.ends_with(b"0\r\n\r\n"), "no response came to its end");
        }
        server.get("/");
        server.stop();
    }

    /// A reader that is only slow gets everything, although that takes longer in all than the limit.
    fn a_reader_that_is_slow(driver: Driver) {
        let server = driver.server().flags(&["--send-timeout", "1"]).start();
        let mut client = Client::connect_narrow(server.address(), 4096);
        client.send("GET /large?2000000 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.head().status, 200);
        let mut left = 2_000_000;
        for round in 0..10 {
            let step = if round == 9 { left } else { 150_000 };
            let expected: Vec<u8> = (2_000_000 - left..2_000_000 - left + step).map(|at| at as u8).collect();
            client.expect_bytes(&expected);
            left -= step;
            pause(200);
        }
        server.stop();
    }

    /// An application that says nothing for a while isn't a client that doesn't read.
    fn a_stream_that_pauses(driver: Driver) {
        let server = driver.server().flags(&["--send-timeout", "0.3", "--keep-alive", "0.3"]).start();
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut client = server.connect();
        client.send(format!("GET /stream?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        client.head();
        assert_eq!(client.chunk().as_deref(), Some(b"first".as_slice()));
        pause(1000);
        gate.open();
        assert_eq!(client.chunk().as_deref(), Some(b"second".as_slice()));
        assert_eq!(client.chunk(), None);
        server.stop();
    }

    /// 504 for a request that runs too long, and for one that no worker was free for; then the worker serves again.
    fn a_request_that_takes_too_long(driver: Driver) {
        let server = driver.server().flags(&["--workers", "1", "--request-timeout", "0.5"]).start();
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut running = server.connect();
        running.send(format!("GET /stubborn?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        let log = folder.log("log");
        let mut queued = server.connect();
        queued.send(format!("POST /record?{} HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx", log.path()));
        for client in [&mut running, &mut queued] {
            let response = client.response();
            assert_eq!(response.status(), 504, "{}", response.text());
            assert!(response.field("content-type").starts_with("text/plain"));
        }
        gate.open();
        gate.wait_for_passage();
        eventually("the worker serves again", || (server.connect().get("/").status() == 200).then_some(()));
        assert_eq!(log.lines(), [""; 0], "a request that was answered 504 in the queue isn't run afterwards");
        server.stop();
    }

    /// The time in the queue doesn't count as time of running.
    fn queue_and_run_are_limited_separately(driver: Driver) {
        let server = driver.server().flags(&["--workers", "1", "--request-timeout", "2"]).start();
        let folder = Folder::new();
        let mut clients: Vec<(Client, _)> = (0..2)
            .map(|number| {
                let gate = folder.gate(&format!("gate {number}").replace(' ', "-"));
                let mut client = server.connect();
                client.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
                if number == 0 {
                    gate.wait_for_arrival();
                }
                (client, gate)
            })
            .collect();
        for (client, gate) in &mut clients {
            gate.wait_for_arrival();
            // Twice this is more than the limit; once is well below.
            pause(1200);
            gate.open();
            let response = client.response();
            assert_eq!(response.status(), 200, "{}", shown(&response.body));
        }
        server.stop();
    }
}
