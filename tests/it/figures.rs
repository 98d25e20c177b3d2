//! Promise: SIGUSR2 tells of each room what is in it and what has become of its requests.

use crate::support::{Driver, eventually, pause};

fn from(client: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\n\r\n")
}

on_every_driver! {
    /// The queue, parked requests, blocked clients, the cache.
    fn every_room_has_its_figures(driver: Driver) {
        let server = driver.server().flags(&["--max-age", "600", "--workers", "2", "--reactors", "1"]).start();
        let mut client = server.connect();
        for _ in 0..3 {
            client.get("/page?h=Cache-Control:+max-age=60").expect("run 1 for nobody\n");
        }
        let mut parked = server.connect();
        parked.send("GET /page?h=X-WSGo-Park:+a HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut blocked = server.connect();
        blocked.send(from("203.0.113.9", "/page?h=X-WSGo-Block:+60"));
        assert_eq!(blocked.response().status(), 200);
        blocked.send(from("203.0.113.9", "/"));
        let expected = [
            "1: Requests waiting: 0",
            "1: Longest wait (in seconds): 0.000",
            "1: Requests evicted from the queue: 0",
            "1: Requests shed: 0",
            "1: Parked requests: 1",
            "1: Notices to parked requests: 0",
            "1: Blocked clients: 1",
            "1: Blocks established: 1",
            "1: Blocked requests: 1",
            "1: Cache entries: 1",
            "1: Cache files: 0",
            "1: Cache hits: 2",
            "1: Cache misses: 3",
            "1: Cache stale answers: 0",
            "1: Cache waiters: 0",
            "1: Cache entries purged: 0",
        ];
        eventually("the figures are those of what was done", || {
            server.signal("USR2");
            pause(50);
            let text = server.stdout.text();
            let last = &text[text.rfind("1: Active requests:")?..];
            let memory = last.lines().find_map(|line| line.strip_prefix("1: Cache memory (in bytes): "))?;
            let told = expected.iter().all(|line| last.lines().any(|found| found == *line));
            (told && memory.parse::<u64>().is_ok_and(|bytes| bytes > 0)).then_some(())
        });
        server.stop();
    }
}
