//! Promise: a client may leave at any moment, in any way. Nothing of it stays: no descriptor, no worker, no harm to others.
//! One that only says that it has nothing more to send gets its answer.

use crate::support::{Client, Driver, Folder, Server, pattern};

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// An orderly end of both directions (until the server writes: then a reset).
    Fin,
    /// A reset.
    Rst,
}

const BOTH: [Leave; 2] = [Leave::Fin, Leave::Rst];

fn leave(client: Client, how: Leave) {
    match how {
        Leave::Fin => drop(client),
        Leave::Rst => client.reset(),
    }
}

/// A server of its own, and how many descriptors it has when nothing is going on.
fn quiet_server(driver: Driver, workers: &str) -> (Server, usize) {
    let server = driver.server().flags(&["--workers", workers, "--header-timeout", "20"]).start();
    // What is opened once, is open now.
    for _ in 0..3 {
        server.get("/");
    }
    let descriptors = server.descriptors();
    (server, descriptors)
}

/// Nothing of those who left is left, and others are served.
fn expect_unharmed(server: Server, descriptors: usize) {
    server.expect_descriptors(descriptors, "the connections of clients that left are closed");
    server.get("/");
    let workers = server.get("/workers");
    assert!(workers.ends_with(" True\n"), "{workers}");
    server.stop();
}

/// Each prefix of `request` is sent, and its client leaves, both ways.
fn leave_after_each(server: &Server, request: &[u8], prefixes: impl Iterator<Item = usize>) {
    for length in prefixes {
        for how in BOTH {
            let mut client = server.connect();
            client.send(&request[..length]);
            leave(client, how);
        }
    }
}

on_every_driver! {
    /// At every byte of a head, the first included.
    fn in_the_head(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "4");
        let request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
        leave_after_each(&server, request, 0..=request.len());
        expect_unharmed(server, descriptors);
    }

    /// At every byte of a small body, and in the spooled part of a large one.
    fn in_the_body(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "4");
        let folder = Folder::new();
        let log = folder.log("log");
        let chunked = format!(
            "POST /record?{} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\n",
            log.path()
        );
        let head = chunked.find("3;x").expect("the body begins there");
        leave_after_each(&server, chunked.as_bytes(), head..chunked.len());
        let mut large =
            format!("POST /record?{} HTTP/1.1\r\nHost: test\r\nContent-Length: 4000000\r\n\r\n", log.path()).into_bytes();
        large.extend(pattern(3_999_999));
        for length in [large.len() / 8, large.len() / 2, large.len()] {
            for how in BOTH {
                let mut client = server.connect();
                client.try_send(&large[..length]);
                leave(client, how);
            }
        }
        server.expect_descriptors(descriptors, "their connections and temporary files are closed");
        assert_eq!(log.lines(), [""; 0], "the application got a body that isn't complete");
        expect_unharmed(server, descriptors);
    }

    /// While its request waits for the only worker.
    fn while_queued(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "1");
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut holder = server.connect();
        holder.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        for how in [BOTH, BOTH, BOTH].concat() {
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
            leave(client, how);
        }
        gate.open();
        holder.response().expect("through\n");
        drop(holder);
        expect_unharmed(server, descriptors);
    }

    /// While it runs: the application can ask, and is told.
    fn while_running(driver: Driver) {
        for how in BOTH {
            let (server, descriptors) = quiet_server(driver, "1");
            let folder = Folder::new();
            let log = folder.log("log");
            let mut client = server.connect();
            client.send(format!("GET /disconnected?{} HTTP/1.1\r\nHost: test\r\n\r\n", log.path()));
            log.wait_for_line("running");
            leave(client, how);
            log.wait_for_line("gone");
            expect_unharmed(server, descriptors);
        }
    }

    /// While nobody looks: the response goes nowhere, and that is all.
    fn before_the_response(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "2");
        let folder = Folder::new();
        for (number, how) in BOTH.into_iter().enumerate() {
            let gate = folder.gate(&number.to_string());
            let mut client = server.connect();
            client.send(format!("GET /stubborn?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
            gate.wait_for_arrival();
            leave(client, how);
            gate.open();
            gate.wait_for_passage();
        }
        expect_unharmed(server, descriptors);
    }

    /// In the middle of a response: from memory, from a file, from a generator, which is then closed.
    fn in_the_response(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "2");
        let folder = Folder::new();
        let (file, _) = folder.large_file("file", 20_000_000);
        for how in BOTH {
            let log = folder.log(&format!("{how:?}"));
            for target in [
                "/large?20000000".to_owned(),
                format!("/file?plain,{}", file.display()),
                format!("/endless?{}", log.path()),
                "/chunks?1000,65536".to_owned(),
            ] {
                let mut client = Client::connect_narrow(server.address(), 4096);
                client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
                client.expect_bytes(b"HTTP/1.1 200 OK\r\n");
                leave(client, how);
            }
            assert_eq!(log.wait_for(1), ["closed"], "{how:?}");
        }
        expect_unharmed(server, descriptors);
    }

    /// Between two items of a stream, while the application has nothing to say.
    fn between_two_items(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "2");
        let folder = Folder::new();
        for (number, how) in BOTH.into_iter().enumerate() {
            let gate = folder.gate(&number.to_string());
            let mut client = server.connect();
            client.send(format!("GET /stream?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
            client.head();
            assert_eq!(client.chunk().as_deref(), Some(b"first".as_slice()));
            gate.wait_for_arrival();
            leave(client, how);
            gate.open();
        }
        expect_unharmed(server, descriptors);
    }

    /// With requests behind the one that is running.
    fn with_more_pipelined(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "2");
        let folder = Folder::new();
        for (number, how) in BOTH.into_iter().enumerate() {
            let gate = folder.gate(&number.to_string());
            let mut client = server.connect();
            let more = "GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100);
            client.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n{more}GET / HT", gate.path()));
            gate.wait_for_arrival();
            leave(client, how);
            gate.open();
        }
        expect_unharmed(server, descriptors);
    }

    /// Right after the answer, kept or not, and again and again.
    fn after_the_response(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "4");
        for how in [BOTH; 20].concat() {
            let mut client = server.connect();
            client.get("/").expect("Hello, world!\n");
            leave(client, how);
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\nHost : test\r\n\r\n");
            client.response().expect_refusal(400);
            leave(client, how);
        }
        expect_unharmed(server, descriptors);
    }

    /// A client that has said all it will say is answered, however long that takes, and then the connection ends.
    fn half_closed(driver: Driver) {
        let (server, descriptors) = quiet_server(driver, "4");
        let folder = Folder::new();
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        client.finish_sending();
        client.response().expect("Hello, world!\n");
        client.expect_closed();
        let body = pattern(2_000_000);
        let mut client = server.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        client.finish_sending();
        client.response().expect(&body);
        client.expect_closed();
        for (target, expected) in [("/gate", "through\n"), ("/stream", "firstsecond")] {
            let gate = folder.gate(&target[1..]);
            let mut client = server.connect();
            client.send(format!("GET {target}?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
            client.finish_sending();
            gate.wait_for_arrival();
            gate.open();
            client.response().expect(expected);
            client.expect_closed();
        }
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3));
        client.finish_sending();
        for _ in 0..3 {
            client.response().expect("Hello, world!\n");
        }
        client.expect_closed();
        expect_unharmed(server, descriptors);
    }
}
