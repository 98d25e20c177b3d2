//! Promise: who is slow costs little and holds nobody up: no worker, hardly any memory, nothing of the others' turn.

use crate::support::{Client, Driver, Folder, eventually, pattern, pause, raise_descriptor_limit};

/// Descriptors that other tests of this process may need at the same time.
const DESCRIPTORS_KEPT_BACK: usize = 500;

/// As many as wanted, or as many as the limit on open files leaves when all three drivers are tested at once.
fn affordable(wanted: usize) -> usize {
    let limit = raise_descriptor_limit();
    let each = limit.saturating_sub(DESCRIPTORS_KEPT_BACK) / 3;
    assert!(each >= 100, "the limit on open files, {limit}, is too low for these tests");
    wanted.min(each)
}

on_every_driver! {
    /// A thousand heads that come byte by byte, and others in between.
    fn slow_loris(driver: Driver) {
        let count = affordable(1000);
        let server = driver.server().flags(&["--header-timeout", "60"]).start();
        let mut slow: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        for byte in b"GET / HTTP/1" {
            for client in &mut slow {
                client.send([*byte]);
            }
            let mut honest = server.connect();
            for _ in 0..10 {
                honest.get("/").expect("Hello, world!\n");
            }
        }
        // They were clients like any other.
        for client in &mut slow {
            client.send(".1\r\nHost: test\r\n\r\n");
            client.response().expect("Hello, world!\n");
        }
        drop(slow);
        server.stop();
    }

    /// A thousand bodies that don't come to their end, with a single worker for all.
    fn slow_bodies(driver: Driver) {
        let count = affordable(1000);
        let server = driver.server().flags(&["--workers", "1"]).start();
        let mut slow: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        for client in &mut slow {
            client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345");
        }
        let mut honest = server.connect();
        for _ in 0..100 {
            honest.get("/").expect("Hello, world!\n");
        }
        for client in &mut slow {
            client.send("67890");
            client.response().expect("1234567890");
        }
        server.stop();
    }

    /// A finished response doesn't need its worker any more, however slowly it is taken.
    fn a_stopped_reader_of_a_finished_response(driver: Driver) {
        const LENGTH: usize = 8 * 1024 * 1024;
        let server = driver.server().flags(&["--workers", "1"]).start();
        let folder = Folder::new();
        let (file, content) = folder.large_file("file", LENGTH);
        let mut readers: Vec<Client> = ["/large-list?8388608".to_owned(), format!("/file?plain,{}", file.display())]
            .map(|target| {
                let mut client = Client::connect_narrow(server.address(), 4096);
                client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
                assert_eq!(client.head().field("content-length"), LENGTH.to_string());
                client
            })
            .into();
        for _ in 0..20 {
            server.connect().get("/").expect("Hello, world!\n");
        }
        let expected: Vec<u8> = (0..LENGTH).map(|at| at as u8).collect();
        readers[0].expect_bytes(&expected);
        readers[1].expect_bytes(&content);
        server.stop();
    }

    /// A generator isn't asked for more than the client takes.
    fn a_stopped_reader_of_a_stream(driver: Driver) {
        const COUNT: usize = 1024;
        const SIZE: usize = 64 * 1024;
        const GROWTH_MAX: usize = 20_000_000;
        let server = driver.server().start();
        let folder = Folder::new();
        let log = folder.log("log");
        for _ in 0..10 {
            server.get("/");
        }
        let before = server.memory();
        let mut client = Client::connect_narrow(server.address(), 4096);
        client.send(format!("GET /progress?{COUNT},{SIZE},{} HTTP/1.1\r\nHost: test\r\n\r\n", log.path()));
        client.head();
        let mut last = 0;
        eventually("the generator isn't asked any more", || {
            pause(300);
            let now = log.lines().len();
            std::mem::replace(&mut last, now).eq(&now).then_some(())
        });
        assert!(last < COUNT / 2, "{last} of {COUNT} blocks were asked for, and nobody took them");
        let growth = server.memory().saturating_sub(before);
        assert!(growth < GROWTH_MAX, "{growth} bytes for a client that takes nothing");
        server.get("/");
        let (mut received, expected) = (0, (0..SIZE).map(|at| at as u8).collect::<Vec<u8>>());
        while let Some(chunk) = client.chunk() {
            // However the blocks were gathered into chunks, what they hold is in order.
            for (at, byte) in chunk.iter().enumerate().step_by(997) {
                assert_eq!(*byte, expected[(received + at) % SIZE]);
            }
            received += chunk.len();
        }
        assert_eq!(received, COUNT * SIZE);
        let growth = server.memory().saturating_sub(before);
        assert!(growth < GROWTH_MAX, "{growth} bytes after the download");
        client.get("/").expect("Hello, world!\n");
        server.stop();
    }

    /// An upload is on disk, not in memory.
    fn a_large_upload(driver: Driver) {
        const LENGTH: usize = 100_000_000;
        // Two buffers of 1.25 MiB, each of which may have to take in once what the kernel has put into the ring's receive buffers, 4 MiB,
        // before the reactor hears of it; and these receive buffers themselves: 15 MB. The rest is the allocator's.
        const GROWTH_MAX: usize = 20_000_000;
        let server = driver.server().start();
        for _ in 0..10 {
            server.get("/");
        }
        let before = server.memory();
        let mut client = server.connect();
        client.send(format!("POST /ignore HTTP/1.1\r\nHost: test\r\nContent-Length: {LENGTH}\r\n\r\n"));
        let piece = pattern(1_000_000);
        let mut most = 0;
        for _ in 0..LENGTH / piece.len() {
            client.send(&piece);
            most = most.max(server.memory());
        }
        client.response().expect("ignored\n");
        let growth = most.saturating_sub(before);
        assert!(growth < GROWTH_MAX, "{growth} bytes for an upload of {LENGTH}");
        server.stop();
    }

    /// A connection that waits for its next request costs next to nothing.
    fn idle_connections(driver: Driver) {
        const EACH_MAX: usize = 4096;
        /// What the allocator takes from the kernel at once.
        const STEP: usize = 4 * 1024 * 1024;
        let count = affordable(6000) / 3 * 2;
        let server = driver.server().start();
        let connect = |count: usize| -> Vec<Client> {
            (0..count)
                .map(|_| {
                    let mut client = server.connect();
                    client.get("/").expect("Hello, world!\n");
                    client
                })
                .collect()
        };
        // Touches what is touched once, receive buffers above all.
        for _ in 0..20 {
            let mut client = server.connect();
            for _ in 0..100 {
                client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3));
                (0..3).for_each(|_| client.response().expect("Hello, world!\n"));
            }
        }
        let first = connect(count / 2);
        let before = server.memory();
        let mut idle = connect(count);
        let growth = server.memory().saturating_sub(before);
        assert!(growth <= EACH_MAX * count + STEP, "{growth} bytes for {count} idle connections");
        for client in idle.iter_mut().step_by(100) {
            client.get("/").expect("Hello, world!\n");
        }
        drop((first, idle));
        server.stop();
    }
}
