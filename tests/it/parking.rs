//! Promise: a request may wait without a worker, for a notice on one of its channels or for its time to end. A notice reaches every
//! request that waits for it, in whichever process, also one that comes while the application is only about to let it wait.

use std::time::{Duration, Instant};

use crate::support::server::signal;
use crate::support::{Client, Driver, Folder, Server, chunked, eventually, pattern, raise_descriptor_limit};

/// A server with the application for parking. One worker: a parked request doesn't hold it.
fn server(driver: Driver, flags: &[&str]) -> Server {
    driver.server().application("parked").flags(&["--workers", "1"]).flags(flags).start()
}

/// The query as a target can have it.
fn query(text: &str) -> String {
    text.replace(' ', "%20")
}

/// A client whose request is parked, or about to be.
fn park(server: &Server, what: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET /park?{} HTTP/1.1\r\nHost: test\r\n\r\n", query(what)));
    client
}

/// Waits until so many requests have come to be parked: no notice is lost to them from then on.
fn wait_for_parked(server: &Server, count: usize) {
    eventually("they have come", || (server.get("/seen") == count.to_string()).then_some(()));
}

fn notify(server: &Server, what: &str) {
    assert_eq!(server.get(&format!("/notify?{}", query(what))), "notified");
}

on_every_driver! {
    /// Each action, on the right channel only; the connection goes on.
    fn a_notice_ends_the_wait(driver: Driver) {
        let server = server(driver, &[]);
        let clients = ["a", "b;60 http-504", "x,c;60 retry", "d"].map(|what| park(&server, what));
        wait_for_parked(&server, 4);
        notify(&server, "nobody,y;1;lost");
        notify(&server, "a;2;");
        notify(&server, "c,e;1;news");
        notify(&server, "b;3;");
        notify(&server, "d;0;");
        let [mut no_content, mut timed_out, mut again, mut closed] = clients;
        let response = no_content.response();
        assert_eq!((response.head.status, &response.body[..]), (204, &b""[..]));
        assert!(!response.head.bytes.to_ascii_lowercase().windows(15).any(|bytes| bytes == b"content-length:"));
        assert_eq!(timed_out.response().head.status, 504);
        again.response().expect("again: news 0 0 None");
        closed.expect_closed();
        for client in [&mut no_content, &mut timed_out, &mut again] {
            client.get("/claims").expect("None None");
        }
        server.stop();
    }

    /// The time a request waits ends by the action that was named for it.
    fn the_time_ends_the_wait(driver: Driver) {
        let server = server(driver, &[]);
        let clients = ["a;1 http-204", "a;1 http-504", "a;1 retry", "a;1 disconnect"].map(|what| park(&server, what));
        let [mut no_content, mut timed_out, mut again, mut closed] = clients;
        assert_eq!(no_content.response().head.status, 204);
        assert_eq!(timed_out.response().head.status, 504);
        again.response().expect("again:  0 0 None");
        closed.expect_closed();
        server.stop();
    }

    /// A body is there again from its start, from memory and from a file, whatever was read of it.
    fn a_body_is_read_again_from_its_start(driver: Driver) {
        let server = server(driver, &[]);
        let mut count = 0;
        for length in [1, 100_000, 3_000_000] {
            let body = pattern(length);
            let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
            for coded in [false, true] {
                let mut client = server.connect();
                let framing =
                    if coded { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {length}") };
                client.send(format!("POST /park?a HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n"));
                if coded { client.send(chunked(&body, 10_000)) } else { client.send(&body) }
                count += 1;
                wait_for_parked(&server, count);
                notify(&server, "a;1;x");
                client.response().expect(format!("again: x {length} {sum} None"));
            }
        }
        server.stop();
    }

    /// A notice between the start of a request and its parking.
    fn a_notice_that_comes_too_early(driver: Driver) {
        let server = driver.server().application("parked").flags(&["--workers", "2"]).start();
        assert_eq!(server.get("/notify-and-park"), "again: in time");
        let folder = Folder::new();
        let gate = folder.gate("gate");
        notify(&server, "late;0;of old");
        let mut client = server.connect();
        client.send(format!("GET /late?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        notify(&server, "other;0;x");
        notify(&server, "late;1;now");
        gate.open();
        client.response().expect("again: now");
        server.stop();
    }

    /// A request that is run again and would be parked again is answered with what the application says.
    fn a_retry_is_not_parked(driver: Driver) {
        let server = server(driver, &[]);
        let mut client = park(&server, "always");
        wait_for_parked(&server, 1);
        notify(&server, "always;1;x");
        let response = client.response();
        assert_eq!((response.head.status, &response.body[..]), (203, &b"parked after b''"[..]));
        assert!(!response.head.bytes.to_ascii_lowercase().windows(6).any(|bytes| bytes == b"x-wsgo"));
        server.stop();
    }

    /// Nobody but the server says to an application that a request was parked.
    fn clients_are_not_believed(driver: Driver) {
        let server = server(driver, &["--header-underscores"]);
        for names in [["X-WSGo-Park", "X-WSGo-Park-Arg"], ["x-wsgo-park", "x_wsgo_park_arg"], ["X_WSGO_PARK", "X_WSGO-Park_Arg"]] {
            let mut client = server.connect();
            client.send(format!("GET /claims HTTP/1.1\r\nHost: test\r\n{}: a\r\n{}: b\r\n\r\n", names[0], names[1]));
            client.response().expect("None None");
        }
        server.stop();
    }

    /// Those whose client has gone are forgotten; the others wait on.
    fn clients_that_leave(driver: Driver) {
        let server = server(driver, &[]);
        server.get("/claims");
        let descriptors = server.descriptors();
        let mut stays = park(&server, "a");
        wait_for_parked(&server, 1);
        for (number, mut client) in (0..40).map(|_| park(&server, "a")).enumerate() {
            if number % 2 == 0 {
                client.send("GET /claims HTTP/1.1\r\nHost: test\r\n\r\n");
            }
            if number % 3 == 0 { client.reset() } else { drop(client) }
        }
        server.expect_descriptors(descriptors + 1, "only one is left");
        notify(&server, "a;2;");
        assert_eq!(stays.response().head.status, 204);
        server.stop();
    }

    /// A server that stops ends all waits as their time would, those that ask for it by running them.
    fn a_drain_ends_all_waits(driver: Driver) {
        let mut server = server(driver, &[]);
        let clients = ["a;600 http-204", "a;600 http-504", "a;600 retry", "a;600 disconnect", "a"].map(|what| park(&server, what));
        wait_for_parked(&server, 5);
        server.signal("TERM");
        let [mut no_content, mut timed_out, mut again, mut closed, mut default] = clients;
        assert_eq!((no_content.response().head.status, default.response().head.status), (204, 204));
        assert_eq!(timed_out.response().head.status, 504);
        again.response().expect("again:  0 0 None");
        closed.expect_closed();
        drop([no_content, timed_out, again, default]);
        assert_eq!(server.wait(), Some(0));
    }

    /// What can't be done is said in the error log.
    fn what_an_application_gets_wrong(driver: Driver) {
        let server = server(driver, &[]);
        let mut client = park(&server, "a;soon retry");
        wait_for_parked(&server, 1);
        notify(&server, "a;2;");
        assert_eq!(client.response().head.status, 204);
        server.stderr.wait_for("X-WSGo-Park-Timeout 'soon retry' isn't a number of seconds", crate::support::PATIENCE).expect("it is said");
        let response = server.connect().get("/too-much");
        assert_eq!(response.head.status, 500);
        server.stderr.wait_for("X-WSGo-Park names too much: 16 channels", crate::support::PATIENCE).expect("it is said");
        server.stop();
    }
}

/// A notice reaches requests parked in every process. Which driver a process has makes no difference to it.
#[test]
fn every_process_hears_a_notice() {
    let driver = Driver::Epoll;
    let server = driver.server().application("parked").flags(&["--workers", "1", "--processes", "2"]).start();
    let ask = |server: &Server| {
        let mut client = server.connect();
        client.send("GET /pid HTTP/1.1\r\nHost: test\r\n\r\n");
        client
    };
    let mut first = ask(&server);
    let pid: u32 = String::from_utf8(first.response().body).expect("digits").parse().expect("a pid");
    // While it stands still, connections are the other's.
    signal(pid, "STOP");
    let second = eventually("the other process serves", || {
        let mut client = ask(&server);
        client.patience(Duration::from_millis(300));
        client.hears().then_some(client)
    });
    signal(pid, "CONT");
    let mut clients = [first, second];
    clients[1].patience(crate::support::PATIENCE);
    assert_ne!(clients[1].response().body, pid.to_string().as_bytes());
    for client in &mut clients {
        client.send("GET /park?all;60%20http-504 HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    // Those that have come too late for the first are woken by another.
    for client in &mut clients {
        eventually("it is woken", || {
            notify(&server, "all;1;far");
            client.patience(Duration::from_millis(200));
            client.hears().then_some(())
        });
        client.patience(crate::support::PATIENCE);
        client.response().expect("again: far 0 0 None");
    }
    server.stop();
}

/// Very many wait: how much memory they take, and that all are woken. The time is printed, not asserted.
#[test]
fn fifty_thousand() {
    // Each costs a descriptor on both sides, and loopback has some 28,000 ports for each address.
    let wanted = 50_000.min(raise_descriptor_limit().saturating_sub(1_000));
    let addresses = wanted / 20_000 + 1;
    let listen: Vec<String> = (0..addresses).map(|number| format!("127.0.0.{}:0", number + 1)).collect();
    let server = crate::support::server::Start::bare(&[
        "--http-socket",
        &listen.join(","),
        "--workers",
        "2",
        "--reactor",
        "epoll",
        "--reactors",
        "1",
        "--no-supervisor",
        "--access-log",
        "off",
        "--queue",
        "200000",
    ])
    .application("parked")
    .start();
    server.get("/claims");
    let before = server.memory();
    let mut clients: Vec<Client> = (0..wanted)
        .map(|number| {
            let mut client = Client::connect(server.addresses()[number % addresses]);
            client.send("GET /park?crowd;600%20http-504 HTTP/1.1\r\nHost: test\r\n\r\n");
            client
        })
        .collect();
    wait_for_parked(&server, wanted);
    let grown = server.memory().saturating_sub(before);
    let start = Instant::now();
    notify(&server, "crowd;2;");
    for client in &mut clients {
        assert_eq!(client.response().head.status, 204);
    }
    let took = start.elapsed();
    println!("{wanted} parked: {} KiB more, all woken and read in {took:?}", grown / 1024);
    assert!(grown <= 100 << 20, "{grown} bytes for {wanted}");
    server.stop();
}
