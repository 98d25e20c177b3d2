//! Promise: with `--max-age` a response that allows it is made once and served without Python, to everybody it is for and to nobody
//! else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::server::{Profile, signal};
use crate::support::{Client, Driver, Folder, Server, Shared, raise_descriptor_limit};

static CACHE: Profile =
    Profile { name: "cache", flags: &["--max-age", "600", "--cache-status", "--header-timeout", "20"] };

const MINUTE: &str = "h=Cache-Control:+max-age=60";

fn of(driver: Driver) -> Shared {
    Shared::of(driver, &CACHE)
}

fn ask(client: &mut Client, method: &str, target: &str, fields: &str) -> crate::support::Response {
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    client.response_to(method)
}

/// How many lines there are with a request to that target that came to the application.
fn runs(server: &Server, target: &str) -> String {
    // A question that no cache answers.
    let response = ask(&mut server.connect(), "GET", target, "Cache-Control: no-cache\r\nCookie: asks\r\n");
    response.text()
}

on_every_driver! {
    /// Made once; `Age`, HEAD, 304, and what the response says of itself.
    fn a_page_is_made_once(driver: Driver) {
        let server = of(driver);
        let target = format!("/page?{MINUTE}&h=ETag:+\"v1\"&once");
        let mut client = server.connect();
        let made = ask(&mut client, "GET", &target, "");
        made.expect("run 1 for nobody\n");
        assert_eq!((made.field("x-cache"), made.head.has("age")), ("MISS", false));
        assert_eq!(made.field("cache-status"), "hoopsnake; fwd=uri-miss; stored");
        for _ in 0..3 {
            let hit = ask(&mut client, "GET", &target, "");
            hit.expect("run 1 for nobody\n");
            assert_eq!((hit.field("x-cache"), hit.field("date")), ("HIT", made.field("date")));
            assert!(hit.field("age").parse::<u64>().is_ok() && hit.field("cache-status").starts_with("hoopsnake; hit; ttl="));
        }
        let head = ask(&mut client, "HEAD", &target, "");
        assert_eq!((head.field("x-cache"), head.field("content-length")), ("HIT", "17"));
        let same = ask(&mut client, "GET", &target, "If-None-Match: W/\"v1\"\r\n");
        assert_eq!((same.status(), same.field("etag"), same.text()), (304, "\"v1\"", String::new()));
        // HTTP/1.0, and a connection that ends.
        let mut old = server.connect();
        old.send(format!("GET {target} HTTP/1.0\r\nHost: test\r\n\r\n"));
        old.response().expect("run 1 for nobody\n");
        old.expect_closed();
    }

    /// Pieces are put together; a large body is sent as it is kept.
    fn bodies_of_every_size(driver: Driver) {
        let server = of(driver);
        for (bytes, pieces) in [(0, 1), (1, 1), (2048, 1), (2049, 1), (10_000, 3), (65_536, 1), (900_000, 1), (900_000, 50)] {
            let target = format!("/page?{MINUTE}&bytes={bytes}&pieces={pieces}");
            let made = ask(&mut server.connect(), "GET", &target, "");
            let mut client = server.connect();
            let hits: Vec<_> = (0..3).map(|_| ask(&mut client, "GET", &target, "")).collect();
            for hit in hits {
                assert!(hit.body == made.body && hit.body.len() == bytes, "{bytes} {pieces}");
                assert_eq!(hit.field("x-cache"), "HIT", "{bytes} {pieces}");
                assert_eq!(hit.field("content-length"), bytes.to_string());
            }
        }
        // Above the limit.
        let target = format!("/page?{MINUTE}&bytes=1000000");
        for _ in 0..2 {
            assert_eq!(ask(&mut server.connect(), "GET", &target, "").field("x-cache"), "MISS");
        }
    }

    /// While the only worker is busy.
    fn no_python_is_needed(driver: Driver) {
        let server = driver.server().flags(&["--workers", "1", "--max-age", "60"]).start();
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let target = format!("/page?{MINUTE}");
        ask(&mut server.connect(), "GET", &target, "").expect("run 1 for nobody\n");
        let mut busy = server.connect();
        busy.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        for _ in 0..100 {
            ask(&mut server.connect(), "GET", &target, "").expect("run 1 for nobody\n");
        }
        gate.open();
        busy.response().expect("through\n");
    }

    /// Two clients with different cookies, at the same time, for a while.
    fn tenants_never_see_each_others_page(driver: Driver) {
        let server = of(driver);
        let (whole, listed) = (
            format!("/page?{MINUTE}&h=Vary:+Cookie&tenants"),
            format!("/page?{MINUTE}&h=Vary:+Cookie&h=X-WSGo-Vary-Cookies:+session&tenants"),
        );
        std::thread::scope(|scope| {
            for tenant in 0..6 {
                let (server, whole, listed) = (&server, &whole, &listed);
                scope.spawn(move || {
                    let mut client = server.connect();
                    for round in 0..60 {
                        let cookie = format!("session={tenant}");
                        let page = ask(&mut client, "GET", whole, &format!("Cookie: {cookie}\r\n")).text();
                        assert!(page.ends_with(&format!(" for {cookie}\n")), "{page}");
                        let cookies = format!("theme={}; {cookie}", round % 3);
                        let response = ask(&mut client, "GET", listed, &format!("Cookie: {cookies}\r\n"));
                        assert!(response.text().ends_with(&format!("; {cookie}\n")), "{}", response.text());
                        assert!(!response.head.has("x-wsgo-vary-cookies"));
                        if tenant == 0 && round % 20 == 19 {
                            ask(&mut client, "POST", whole, "Content-Length: 0\r\n");
                        }
                    }
                });
            }
        });
        let page = ask(&mut server.connect(), "GET", &listed, "").text();
        assert!(page.ends_with(" for nobody\n"), "{page}");
    }

    /// What the application can't have meant for all isn't kept.
    fn what_is_not_stored(driver: Driver) {
        let server = of(driver);
        for (query, fields) in [
            ("none", ""),
            ("h=Cache-Control:+max-age=60&h=Set-Cookie:+a=b", ""),
            ("h=Cache-Control:+max-age=60,private", ""),
            ("h=Cache-Control:+no-store", ""),
            ("h=Cache-Control:+max-age=60&h=Vary:+*", ""),
            ("h=Cache-Control:+max-age=0", ""),
            ("h=Cache-Control:+max-age=60&status=201+Created", ""),
            ("h=Cache-Control:+max-age=60&a", "Authorization: Basic eA==\r\n"),
            ("h=Cache-Control:+max-age=60&b", "Range: bytes=0-1\r\n"),
        ] {
            for _ in 0..2 {
                let response = ask(&mut server.connect(), "GET", &format!("/page?{query}&unstored"), fields);
                assert_ne!(response.field("x-cache"), "HIT", "{query} {fields}");
            }
        }
    }

    /// 1,000 at once for a page that nobody has asked for before.
    fn a_thousand_misses_run_the_application_once(driver: Driver) {
        let many = if raise_descriptor_limit() > 2100 { 1000 } else { 300 };
        let server = of(driver);
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let target = format!("/page?{MINUTE}&gate={}", gate.path());
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut clients: Vec<Client> = (0..many).map(|_| server.connect()).collect();
        clients[0].send(&request);
        gate.wait_for_arrival();
        for client in &mut clients[1..] {
            client.send(&request);
        }
        // All of them have been read when a later one on each reactor is answered.
        for _ in 0..20 {
            server.get("/");
        }
        gate.open();
        for client in &mut clients {
            client.response().expect("run 1 for nobody\n");
        }
        assert_eq!(runs(&server, &target), "run 2 for asks\n", "this question is the second");
    }

    /// A stale page is asked about, not made again.
    fn stale_pages_are_validated(driver: Driver) {
        let server = of(driver);
        let target = "/page?h=Cache-Control:+max-age=1&h=ETag:+\"v1\"&validated";
        let mut client = server.connect();
        ask(&mut client, "GET", target, "").expect("run 1 for nobody\n");
        let validated = crate::support::eventually("it gets stale", || {
            let response = ask(&mut client, "GET", target, "");
            response.expect("run 1 for nobody\n");
            response.field("cache-status").contains("fwd-status=304").then_some(response)
        });
        assert_eq!((validated.status(), validated.field("etag")), (200, "\"v1\""));
    }

    /// POST, and `hoopsnake.cache_purge`, while others ask.
    fn what_is_purged_is_gone(driver: Driver) {
        let server = driver.server().flags(&["--max-age", "600"]).start();
        let target = format!("/page?{MINUTE}&purged");
        let mut client = server.connect();
        let page = |client: &mut Client| ask(client, "GET", &target, "").text();
        let mut last = page(&mut client);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut client = server.connect();
                    while !done.load(Ordering::Relaxed) {
                        assert!(page(&mut client).starts_with("run "));
                    }
                });
            }
            for round in 0..30 {
                match round % 3 {
                    0 => drop(ask(&mut client, "POST", &target, "Content-Length: 0\r\n")),
                    1 => {
                        let url = target.replace('&', "%26").replace('+', "%2B").replace('?', "%3F");
                        ask(&mut client, "GET", &format!("/page?url=http://test{url}&{round}"), "");
                    }
                    _ => drop(ask(&mut client, "GET", &format!("/page?prefix=http://test/page&{round}"), "")),
                }
                let now = page(&mut client);
                assert_ne!(now, last, "round {round}: what was purged is not served again");
                last = now;
            }
            done.store(true, Ordering::Relaxed);
        });
        let purged = ask(&mut client, "GET", "/page?all=1", "").text();
        assert!(purged.starts_with("purged ") && purged != "purged 0\n", "{purged}");
        assert_eq!(ask(&mut client, "GET", "/page?all=2", "").text(), "purged 0\n");
        let wrong = ask(&mut client, "GET", "/page?url=nonsense", "");
        assert_eq!(wrong.status(), 500);
    }

    /// Off unless it is asked for; bounded in what it holds; silent unless it is to speak.
    fn what_the_flags_say(driver: Driver) {
        let target = format!("/page?{MINUTE}");
        let second = |flags: &[&str], target: &str| {
            let server = driver.server().flags(flags).start();
            ask(&mut server.connect(), "GET", target, "");
            let response = ask(&mut server.connect(), "GET", target, "");
            assert!(!response.head.has("x-cache") && !response.head.has("cache-status"));
            response.text()
        };
        assert_eq!(second(&[], &target), "run 2 for nobody\n");
        assert_eq!(second(&["--max-age", "60", "--cache-size", "0"], &target), "run 2 for nobody\n");
        assert_eq!(second(&["--max-age", "60", "--cache-response-size", "100"], &target), "run 2 for nobody\n");
        assert_eq!(second(&["--max-age", "60", "--cache-size", "300"], &target), "run 2 for nobody\n");
        assert_eq!(second(&["--max-age", "60"], &target), "run 1 for nobody\n");
        // A ceiling below what the page says.
        let server = driver.server().flags(&["--max-age", "1", "--cache-status"]).start();
        crate::support::eventually("the page is made again", || {
            let response = ask(&mut server.connect(), "GET", &target, "");
            (response.text() != "run 1 for nobody\n").then_some(())
        });
    }

    /// The server's memory grows by no more than `--cache-size` and five in a hundred, whatever passes.
    fn memory_stays_within_the_bound(driver: Driver) {
        const SIZE: usize = 32 << 20;
        let server = driver.server().flags(&["--max-age", "60", "--cache-size", "32m", "--workers", "2", "--reactors", "1"]).start();
        let mut client = server.connect();
        // What the application and the server take for such pages without the cache.
        for number in 0..2_500usize {
            let bytes = number * 7919 % 60_000;
            ask(&mut client, "GET", &format!("/page?bytes={bytes}&warm={number}"), "");
        }
        let before = server.memory();
        for number in 0..3_000usize {
            // Small and large by turns of a hundred, so that room for the one is made of what the other leaves.
            let bytes = if (number / 100) % 2 == 0 { number * 7919 % 60_000 } else { number * 104_729 % 900 };
            ask(&mut client, "GET", &format!("/page?{MINUTE}&bytes={bytes}&fill={number}"), "");
        }
        let grown = server.memory().saturating_sub(before);
        // What the rest of the process takes at its own pace: the interpreter's arenas, buffers of two workers.
        const ELSEWHERE: usize = 2 << 20;
        assert!(grown <= SIZE + SIZE / 20 + ELSEWHERE, "{grown} bytes more, of {SIZE}");
        assert!(grown >= SIZE / 2, "{grown} bytes more: it isn't used");
    }
}

/// What one process stores all have, and what one forgets all forget. With epoll only: of two rings on one socket one may accept everything.
#[test]
fn processes_share_one_cache() {
    let server = Driver::Epoll
        .server()
        .flags(&["--max-age", "60", "--processes", "2", "--reactors", "1", "--cache-status"])
        .start();
    let target = format!("/page?{MINUTE}");
    let other = format!("/page?{MINUTE}&other");
    // A connection to each: which process accepts is up to the kernel.
    let mut clients = crate::support::eventually("both processes accept", || {
        let mut by_process = std::collections::BTreeMap::new();
        let mut burst: Vec<Client> = (0..50).map(|_| server.connect()).collect();
        burst.iter_mut().for_each(|client| client.send("GET /page?pid=1 HTTP/1.1\r\nHost: test\r\n\r\n"));
        for mut client in burst {
            by_process.insert(client.response().text(), client);
        }
        (by_process.len() == 2).then(|| by_process.into_values().collect::<Vec<_>>())
    });
    let mut round = 0;
    let mut answers = |target: &str, first: &str| {
        round += 1;
        for (number, expected) in [(round, first), (round + 1, "HIT"), (round, "HIT"), (round + 1, "HIT")] {
            assert_eq!(ask(&mut clients[number % 2], "GET", target, "").field("x-cache"), expected, "round {round}");
        }
    };
    answers(&target, "MISS");
    answers(&other, "MISS");
    for (method, told, other_goes) in [
        ("POST", &*target, false),
        ("GET", "/page?all=1", true),
        ("GET", "/page?prefix=/page", true),
        ("GET", "/page?prefix=http://test/page", true),
        ("GET", "/page?url=/page", false),
    ] {
        ask(&mut server.connect(), method, told, if method == "POST" { "Content-Length: 0\r\n" } else { "" });
        // The page itself has a query, which `/page` isn't.
        answers(&target, if told == "/page?url=/page" { "HIT" } else { "MISS" });
        answers(&other, if other_goes { "MISS" } else { "HIT" });
    }
}

/// What old code has made, or makes still, isn't served after a reload.
#[test]
fn a_reload_empties_the_cache() {
    let server = Driver::Epoll
        .server()
        .flags(&["--max-age", "60", "--processes", "2", "--reactors", "1", "--cache-status"])
        .start();
    let answer = |target: &str, fields: &str| {
        let response = ask(&mut server.connect(), "GET", target, fields);
        (response.status(), response.field("x-cache").to_owned())
    };
    let is = |status: u16, cache: &str| (status, cache.to_owned());
    let target = format!("/page?{MINUTE}");
    assert_eq!(answer(&target, ""), is(200, "MISS"));
    for _ in 0..10 {
        assert_eq!(answer(&target, ""), is(200, "HIT"));
    }
    let folder = Folder::new();
    let gate = folder.gate("gate");
    let slow = format!("/page?{MINUTE}&gate={}", gate.path());
    let mut running = server.connect();
    running.send(format!("GET {slow} HTTP/1.1\r\nHost: test\r\n\r\n"));
    gate.wait_for_arrival();
    server.signal("HUP");
    server.stderr.wait_for("reloaded: 2 new", crate::support::PATIENCE).expect("new code serves");
    gate.open();
    assert_eq!(running.response().status(), 200);
    assert_eq!(ask(&mut server.connect(), "GET", &slow, "Cache-Control: only-if-cached\r\n").status(), 504);
    assert_eq!(ask(&mut server.connect(), "GET", &target, "Cache-Control: only-if-cached\r\n").status(), 504);
    assert_eq!(answer(&target, ""), is(200, "MISS"));
    for _ in 0..10 {
        assert_eq!(answer(&target, ""), is(200, "HIT"), "new processes store and share");
    }
}

/// A process's memory of some kind.
fn bytes_of(pid: u32, kind: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it serves");
    let line = status.lines().find(|line| line.starts_with(kind)).expect("Linux ≥ 4.5 has it");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok()).expect("a number") * 1024
}

/// The memory of all processes together grows by no more than `--cache-size` and five in a hundred.
#[test]
fn memory_of_all_processes_stays_within_the_bound() {
    const SIZE: usize = 16 << 20;
    let flags = ["--max-age", "60", "--cache-size", "16m", "--processes", "4", "--workers", "2", "--reactors", "1"];
    let server = Driver::Epoll.server().flags(&flags).start();
    // What they have to themselves, and what they share.
    let memory = || {
        let shared = server.serving().into_iter().map(|pid| bytes_of(pid, "RssShmem:")).max().unwrap_or(0);
        server.serving().into_iter().map(|pid| bytes_of(pid, "RssAnon:")).sum::<usize>() + shared
    };
    let page = |number: usize, fields: &str| {
        let bytes = if (number / 100) % 2 == 0 { number * 7919 % 60_000 } else { number * 104_729 % 900 };
        ask(&mut server.connect(), "GET", &format!("/page?{fields}&bytes={bytes}&fill={number}"), "");
    };
    (0..4_000).for_each(|number| page(number, "warm"));
    let before = memory();
    for number in 0..2_000 {
        page(number, MINUTE);
        // Some are asked for again and again, so that every process has copies.
        (0..4).for_each(|again| page((number * 31 + again * 7) % (number / 8 + 1), MINUTE));
    }
    let grown = memory().saturating_sub(before);
    const ELSEWHERE: usize = 2 << 20;
    assert!(grown <= SIZE + SIZE / 20 + 4 * ELSEWHERE, "{grown} bytes more, of {SIZE}");
    assert!(grown >= SIZE / 2, "{grown} bytes more: it isn't used");
    println!("{grown} bytes more, of {SIZE}");
}

/// A page that no other is like, of up to 12 kB, and what it is.
fn some_page(number: usize) -> (String, Vec<u8>) {
    let (bytes, first) = (number * 7919 % 12_000, number * 31);
    let body = (0..bytes).map(|at| ((first + at) % 256) as u8).collect();
    (format!("/page?{MINUTE}&bytes={bytes}&first={first}&number={number}"), body)
}

/// How many in a thousand requests are answered from the cache when few of many pages are asked for often, each time on another connection.
fn hits_in_a_thousand(processes: &str) -> usize {
    let flags =
        ["--max-age", "600", "--processes", processes, "--reactors", "1", "--cache-status", "--cache-size", "4m"];
    let server = Driver::Epoll.server().flags(&flags).start();
    let (mut random, mut hits) = (1u64, 0);
    for request in 0..6_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let place = random % 1_000;
        let (target, body) = some_page((place * place / 1_000) as usize);
        let response = ask(&mut server.connect(), "GET", &target, "");
        assert!(response.body == body, "{target}");
        hits += usize::from(request >= 2_000 && response.field("x-cache") == "HIT");
    }
    hits / 4
}

#[test]
fn the_hit_rate_does_not_fall_with_the_number_of_processes() {
    let (one, four) = (hits_in_a_thousand("1"), hits_in_a_thousand("4"));
    println!("of 1,000 requests {one} are hits with one process, {four} with four");
    assert!(one > 500, "of 1,000 requests {one} are hits");
    assert!(four * 100 >= one * 97, "of 1,000 requests {four} are hits with four processes, {one} with one");
}

/// kill -9 under load: every answer is whole and right, the cache goes on, in its bounds.
#[test]
fn processes_that_are_killed_do_no_harm() {
    const PAGES: usize = 400;
    const SIZE: usize = 8 << 20;
    let flags = ["--max-age", "600", "--processes", "4", "--reactors", "1", "--cache-status", "--cache-size", "8m"];
    let server = Driver::Epoll.server().flags(&flags).start();
    let done = AtomicBool::new(false);
    let (pages, broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3usize {
            let (server, done, pages, broken) = (&server, &done, &pages, &broken);
            scope.spawn(move || {
                let mut client = server.connect();
                let mut number = thread;
                while !done.load(Ordering::Relaxed) {
                    number += 7919;
                    let (target, body) = some_page(number % PAGES);
                    // Some make it anew, so that there is always somebody who writes.
                    let (method, fields) = match number % 11 {
                        0..4 => ("GET", "Cache-Control: no-cache\r\n"),
                        4 => ("POST", "Content-Length: 0\r\n"),
                        _ => ("GET", ""),
                    };
                    let sent = client.try_send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
                    match client.try_response(method) {
                        Ok(response) if sent => {
                            assert_eq!(response.status(), 200, "{target}");
                            assert!(response.body == body, "{target}");
                            pages.fetch_add(1, Ordering::Relaxed);
                            if number % 50 == 0 {
                                client = server.connect();
                            }
                        }
                        _ => {
                            broken.fetch_add(1, Ordering::Relaxed);
                            client = server.connect();
                        }
                    }
                }
            });
        }
        for round in 0..10 {
            let serving = crate::support::eventually("four processes serve", || {
                let serving = server.serving();
                (serving.len() == 4).then_some(serving)
            });
            let before = pages.load(Ordering::Relaxed);
            crate::support::eventually("there is load", || {
                (pages.load(Ordering::Relaxed) > before + 300).then_some(())
            });
            signal(serving[round % 4], "KILL");
            crate::support::eventually("it is gone", || {
                (!server.serving().contains(&serving[round % 4])).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    // All that was ever stored or is made now is right, and stays.
    let mut hits = 0;
    for round in 0..2 {
        for number in 0..PAGES {
            let (target, body) = some_page(number);
            let response = ask(&mut server.connect(), "GET", &target, "");
            assert!(response.body == body, "{target}");
            hits += usize::from(round == 1 && response.field("x-cache") == "HIT");
        }
    }
    assert!(hits >= PAGES - PAGES / 20, "{hits} hits of {PAGES}");
    for pid in server.serving() {
        let shared = bytes_of(pid, "RssShmem:");
        assert!(shared <= SIZE, "{shared} bytes are shared");
    }
}
