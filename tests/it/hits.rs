//! Promise: a large page that is asked for often is sent from a file in memory (memfd_create(2)), and whoever asks for it can't tell.

use crate::support::{Client, Driver, Response, Server, eventually};

const MINUTE: &str = "h=Cache-Control:+max-age=60";
/// Times that a page is asked for until it has been moved: it is made, and found that often.
const OFTEN: usize = 9;
const LARGE: usize = 900_000;

fn start(driver: Driver, flags: &[&str]) -> Server {
    driver.server().flags(&["--max-age", "60", "--cache-status", "--header-timeout", "20"]).flags(flags).start()
}

/// A page that begins with byte number `first` and goes on from there, and what it is.
fn page(bytes: usize, first: usize) -> (String, Vec<u8>) {
    let body = (0..bytes).map(|at| ((first + at) % 256) as u8).collect();
    (format!("/page?{MINUTE}&h=ETag:+\"v{first}\"&bytes={bytes}&first={first}"), body)
}

fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}

fn ask(client: &mut Client, method: &str, target: &str, fields: &str) -> Response {
    client.send(request(method, target, fields));
    client.response_to(method)
}

/// Asks for it so often that it is moved; all answers are the same.
fn ask_often(client: &mut Client, (target, body): &(String, Vec<u8>)) {
    for time in 0..OFTEN {
        let response = ask(client, "GET", target, "");
        assert_eq!(response.field("x-cache"), if time == 0 { "MISS" } else { "HIT" }, "{target}, time {time}");
        assert!(response.body == *body, "{target}, time {time}");
    }
}

/// Bytes of memory that each file in memory of a process takes.
fn files_of(pid: u32) -> Vec<u64> {
    use std::os::unix::fs::MetadataExt;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs");
    let paths = descriptors.filter_map(|entry| Some(entry.ok()?.path()));
    let ours = paths.filter(|path| {
        std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:hoopsnake"))
    });
    ours.filter_map(|path| Some(path.metadata().ok()?.blocks() * 512)).collect()
}

fn files(server: &Server) -> usize {
    files_of(server.worker()).len()
}

on_every_driver! {
    /// Byte for byte, at every size around the limit; HEAD, conditions, ranges and pipelines as before.
    fn nobody_can_tell(driver: Driver) {
        let server = start(driver, &[]);
        let mut client = server.connect();
        for (number, (bytes, large)) in [(65_535, 0), (65_536, 1), (100_001, 2), (LARGE, 3)].into_iter().enumerate() {
            let page = page(bytes, number);
            ask_often(&mut client, &page);
            assert_eq!(files(&server), large, "{bytes}");
            let (target, body) = &page;
            let hit = ask(&mut client, "GET", target, "");
            assert!(hit.body == *body && hit.field("x-cache") == "HIT" && hit.head.has("age"), "{bytes}");
            let head = ask(&mut client, "HEAD", target, "");
            assert_eq!((head.field("x-cache"), head.field("content-length")), ("HIT", &*bytes.to_string()));
            let same = ask(&mut client, "GET", target, &format!("If-None-Match: \"v{number}\"\r\n"));
            assert_eq!((same.status(), same.field("x-cache"), same.body.len()), (304, "HIT", 0));
            // A part of it is for the application, as ever.
            let part = ask(&mut client, "GET", target, "Range: bytes=1-2\r\n");
            assert_eq!((part.status(), part.field("x-cache")), (200, "BYPASS"));
        }
        let (large, small) = (page(LARGE, 3), page(65_535, 0));
        let order = [&large, &small, &large, &large, &small];
        client.send(order.map(|(target, _)| request("GET", target, "")).concat());
        for (target, body) in order {
            assert!(client.response().body == *body, "{target}");
        }
        let mut old = server.connect();
        old.send(format!("GET {} HTTP/1.0\r\nHost: test\r\n\r\n", large.0));
        assert!(old.response().body == large.1);
        old.expect_closed();
    }

    /// Clients that are in the middle of a page when it is purged, or has to go, get the rest of that page; then its file is closed.
    fn who_has_begun_gets_the_rest(driver: Driver) {
        let server = start(driver, &["--cache-size", "10m", "--reactors", "1"]);
        let mut client = server.connect();
        let old = page(LARGE, 7);
        for purged in [true, false] {
            ask_often(&mut client, &old);
            assert_eq!(files(&server), 1);
            let mut slow: Vec<Client> = (0..3).map(|_| Client::connect_narrow(server.address(), 4096)).collect();
            for reader in &mut slow {
                reader.send(request("GET", &old.0, ""));
                assert_eq!(reader.head().status, 200);
            }
            if purged {
                assert_eq!(ask(&mut client, "GET", "/page?all=1", "").text(), "purged 1\n");
            }
            // Others take its place: their pages are new memory, whatever becomes of that of the old one.
            for first in 8..28 {
                ask_often(&mut client, &page(LARGE, first));
            }
            assert_eq!(ask(&mut client, "GET", &old.0, "Cache-Control: only-if-cached\r\n").status(), 504, "it is gone");
            for mut reader in slow {
                reader.expect_bytes(&old.1);
                reader.expect_quiet();
            }
            ask(&mut client, "GET", "/page?all=2", "");
            eventually("all files are closed", || (files(&server) == 0).then_some(()));
        }
    }

    /// One part in eight of the descriptors that the process may have; past it pages stay where they are.
    fn descriptors_are_bounded(driver: Driver) {
        let limited = ["sh", "-c", "ulimit -n 160 && exec \"$0\" \"$@\""];
        let flags = ["--http-socket", "127.0.0.1:0", "--reactor", driver.name(), "--access-log", "off"];
        let server = crate::support::server::Start::under(&limited, &flags)
            .flags(&["--max-age", "60", "--cache-status"])
            .start();
        let mut client = server.connect();
        for first in 0..40 {
            ask_often(&mut client, &page(70_000, first));
            assert_eq!(files(&server), 20.min(first + 1));
        }
        // What is given back can be used again.
        ask(&mut client, "GET", "/page?all=1", "");
        eventually("all files are closed", || (files(&server) == 0).then_some(()));
        ask_often(&mut client, &page(70_000, 50));
        assert_eq!(files(&server), 1);
    }

    /// Where there are no such files pages are served as before.
    fn without_files_in_memory(driver: Driver) {
        let flags = ["--http-socket", "127.0.0.1:0", "--reactor", driver.name(), "--access-log", "off"];
        let server = crate::support::server::Start::through(&["no-memfd"], &flags)
            .flags(&["--max-age", "60", "--cache-status"])
            .start();
        let mut client = server.connect();
        for bytes in [70_000, LARGE] {
            ask_often(&mut client, &page(bytes, 1));
        }
        assert_eq!(files(&server), 0);
    }

    /// What is in files counts against `--cache-size`.
    fn files_count_as_memory(driver: Driver) {
        const SIZE: usize = 16 << 20;
        let server = start(driver, &["--cache-size", "16m", "--workers", "2", "--reactors", "1"]);
        let mut client = server.connect();
        let mut fill = |numbers: std::ops::Range<usize>, often: usize, kept: &str| {
            for number in numbers {
                let target = format!("/page?{kept}&bytes={}&first={number}", 66_000 + number * 7919 % 60_000);
                (0..often).for_each(|_| drop(ask(&mut client, "GET", &target, "")));
            }
        };
        fill(0..1_000, 1, "warm");
        let before = server.memory();
        fill(0..600, OFTEN + 1, MINUTE);
        let in_files: u64 = files_of(server.worker()).iter().sum();
        let grown = server.memory().saturating_sub(before) + in_files as usize;
        // What the rest of the process takes at its own pace: the interpreter's arenas, buffers of two workers.
        const ELSEWHERE: usize = 2 << 20;
        assert!(grown <= SIZE + SIZE / 20 + ELSEWHERE, "{grown} bytes more, of {SIZE}");
        assert!(in_files as usize >= SIZE / 2, "{in_files} bytes in files: they aren't used");
    }
}

/// The copies that processes have of what they share.
#[test]
fn processes_that_share_have_files_of_their_own() {
    let server = start(Driver::Epoll, &["--processes", "2", "--reactors", "1"]);
    let page = page(100_000, 1);
    eventually("both have sent it often", || {
        // Which process accepts is up to the kernel.
        for _ in 0..OFTEN {
            let response = ask(&mut server.connect(), "GET", &page.0, "");
            assert!(response.body == page.1);
        }
        server.serving().into_iter().all(|pid| files_of(pid).len() == 1).then_some(())
    });
    ask(&mut server.connect(), "GET", "/page?all=1", "");
    assert_eq!(ask(&mut server.connect(), "GET", &page.0, "Cache-Control: only-if-cached\r\n").status(), 504);
}
