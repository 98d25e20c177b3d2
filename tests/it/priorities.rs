//! Promise: who asks for little is served before who asks for much; who has to go when too many wait is whoever counts least.
//! What is worth how much is tested beside the formula; here the whole server goes by it.

use std::time::Duration;

use crate::support::{Client, Driver, Folder, PATIENCE, Server, eventually};

/// A server with one worker, and with priorities for clients as a proxy on this machine names them.
fn server(driver: Driver, flags: &[&str]) -> Server {
    driver
        .server()
        .application("parked")
        .flags(&["--workers", "1", "--reactors", "1", "--access-log", "-"])
        .flags(flags)
        .start()
}

/// Asks for `target` in the name of `client`.
fn ask(server: &Server, target: &str, client: &str, log: &str, more: &str) -> Client {
    let mut connection = server.connect();
    connection.send(format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\nX-Log: {log}\r\n{more}\r\n"
    ));
    connection
}

/// Lets the only worker be busy while requests are asked, then lets it go; what they have logged, in order.
fn order(server: &Server, ask_all: impl FnOnce(&str) -> Vec<Client>) -> Vec<String> {
    let folder = Folder::new();
    let (gate, log) = (folder.gate("gate"), folder.log("log"));
    let mut holder = server.connect();
    holder.send(format!("GET /hold?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
    gate.wait_for_arrival();
    let clients = ask_all(&log.path().to_string());
    settle(server);
    gate.open();
    holder.response().expect("held");
    clients.into_iter().for_each(|mut client| assert_eq!(client.response().head.status, 200));
    log.lines()
}

/// Waits until everything that was sent is received: the kernel has nothing of it any more, and a reactor puts what it has received
/// into the queue in the same turn.
fn settle(server: &Server) {
    let port = format!(":{:04X}", server.address().port());
    eventually("they are received", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        let mut ours = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        // The second half of the fifth column: bytes, or connections, that nobody has taken.
        ours.all(|columns| !columns[1].ends_with(&port) || columns[4].ends_with(":00000000")).then_some(())
    });
}

on_every_driver! {
    /// The worker takes the best first: prefixes, queries, clients that have asked a lot, bots last.
    fn the_best_is_next(driver: Driver) {
        let server = server(driver, &["--priority-prefix", "/vip=+500", "--priority-prefix", "/%slow=-600"]);
        let found = order(&server, |log| {
            vec![
                ask(&server, "/bot", "203.0.113.1", log, "User-Agent: a-Crawler\r\n"),
                ask(&server, "/query?q", "203.0.113.2", log, ""),
                ask(&server, "/plain", "203.0.113.3", log, ""),
                ask(&server, "/vip", "203.0.113.4", log, ""),
                ask(&server, "/%25slow", "203.0.113.5", log, ""),
                ask(&server, "/second", "10.9.9.9", log, "User-Agent: a-Crawler\r\n"),
            ]
        });
        assert_eq!(found, ["/vip", "/plain", "/second", "/query", "/%slow", "/bot"]);
        let mut greedy = order(&server, |log| {
            let mut clients: Vec<Client> = (0..4).map(|_| ask(&server, "/greedy", "198.51.100.1", log, "")).collect();
            clients.push(ask(&server, "/modest", "198.51.100.2", log, ""));
            clients
        });
        // The greedy client's are the oldest; but when two of them have been started within a second, that counts.
        assert_eq!(greedy.remove(2), "/modest");
        assert_eq!(greedy, ["/greedy"; 4]);
        server.stop();
    }

    /// The log says what each was worth.
    fn the_log_says_what_each_was_worth(driver: Driver) {
        let server = server(driver, &["--priority-prefix", "/vip=+500"]);
        for (target, more, expected) in [
            ("/vip?q", "", "1000"),
            ("/a", "", "1000"),
            ("/b?q", "", "500"),
            ("/c", "X-Forwarded-For: 203.0.113.77\r\nUser-Agent: bot\r\n", "-7000"),
        ] {
            let mut client = server.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Log: /dev/null\r\n{more}\r\n"));
            assert_eq!(client.response().head.status, 200);
            let line = server.stdout.wait_for(&format!("\"GET {target} "), PATIENCE).expect("a line");
            assert_eq!(line.split_whitespace().last(), Some(expected), "{line}");
        }
        server.stop();
    }

    /// Without priorities: first come, first served.
    fn off_is_first_come_first_served(driver: Driver) {
        let server = server(driver, &["--priority", "off"]);
        let targets = ["/a?q", "/b", "/c?q", "/d"];
        let found = order(&server, |log| {
            targets.map(|target| ask(&server, target, "203.0.113.1", log, "User-Agent: bot\r\n")).into()
        });
        assert_eq!(found, ["/a", "/b", "/c", "/d"]);
        server.stop();
    }

    /// What has been dear waits for what has been cheap.
    fn the_cheap_go_first(driver: Driver) {
        let server = server(driver, &["--priority-by-cost"]);
        for _ in 0..3 {
            assert_eq!(server.get("/burn?40"), "burnt");
            server.connect().get("/claims").expect("None None");
        }
        let found = order(&server, |log| {
            vec![ask(&server, "/burn?0", "10.0.0.1", log, ""), ask(&server, "/claims?x", "10.0.0.1", log, ""),
                ask(&server, "/cheap", "10.0.0.1", log, "")]
        });
        assert_eq!(found.len(), 2);
        // An unknown route costs what requests cost on average; the known dear one is last.
        assert_eq!(found, ["/cheap", "/burn"]);
        server.stop();
    }

    /// Past the bound those that count least are told so, while the others wait on.
    fn the_queue_has_a_bound(driver: Driver) {
        let server = server(driver, &["--queue", "4"]);
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut holder = server.connect();
        holder.send(format!("GET /hold?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        let mut plain: Vec<Client> = (0..4).map(|_| ask(&server, "/plain", "10.0.0.1", "/dev/null", "")).collect();
        let mut queries: Vec<Client> = (0..3).map(|_| ask(&server, "/query?q", "10.0.0.1", "/dev/null", "")).collect();
        for client in &mut queries {
            let response = client.response();
            assert_eq!(response.head.status, 504);
            assert_eq!(response.body, b"504 Gateway Timeout: too many requests were waiting\n");
        }
        // One that leaves makes room at once.
        plain.remove(0).reset();
        let mut late = ask(&server, "/behind?q", "10.0.0.1", "/dev/null", "");
        settle(&server);
        gate.open();
        holder.response().expect("held");
        plain.iter_mut().for_each(|client| client.response().expect("noted"));
        late.response().expect("noted");
        let lines = server.stdout.wait_for("/query?q HTTP/1.1\" 504 ", PATIENCE).expect("a line");
        assert!(lines.ends_with(" 500"), "{lines}");
        server.stop();
    }

    /// A server that can't keep up says so to what has waited too long.
    fn what_waits_too_long_is_shed(driver: Driver) {
        let server = server(driver, &["--shed"]);
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut holder = server.connect();
        holder.send(format!("GET /hold?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        let mut waits = ask(&server, "/plain", "10.0.0.1", "/dev/null", "");
        let response = waits.response();
        assert_eq!((response.head.status, response.head.field("retry-after")), (503, "1"));
        gate.open();
        holder.response().expect("held");
        ask(&server, "/plain", "10.0.0.1", "/dev/null", "").response().expect("noted");
        server.stop();
    }

    /// One client can't have all workers.
    fn one_client_cannot_have_all_workers(driver: Driver) {
        let server = driver.server().application("parked").flags(&["--workers", "8"]).start();
        let folder = Folder::new();
        let gates: Vec<_> = (0..8).map(|number| folder.gate(&number.to_string())).collect();
        let mut greedy: Vec<Client> = gates
            .iter()
            .map(|gate| ask(&server, &format!("/hold?{}", gate.path()), "203.0.113.1", "/dev/null", ""))
            .collect();
        let arrived = || gates.iter().filter(|gate| gate.has_arrival()).count();
        eventually("some run", || (arrived() >= 3).then_some(()));
        // Somebody else is served meanwhile.
        ask(&server, "/plain", "203.0.113.2", "/dev/null", "").response().expect("noted");
        assert!(arrived() <= 4, "three or four of one client run at the same time");
        gates.iter().for_each(|gate| gate.open());
        greedy.iter_mut().for_each(|client| client.response().expect("held"));
        server.stop();
    }

    /// What waits for an idle server doesn't wait for a client that doesn't read.
    fn who_does_not_read_holds_nobody_up(driver: Driver) {
        let server = driver.server().application("parked").flags(&["--workers", "2"]).start();
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let idle = ask(&server, &format!("/pour?{}", gate.path()), "203.0.113.1", "/dev/null", "");
        gate.wait_for_arrival();
        let bot = |client| ask(&server, "/plain", client, "/dev/null", "User-Agent: bot\r\n");
        bot("203.0.113.2").response().expect("noted");
        // But it is its own client's.
        let mut own = bot("203.0.113.1");
        bot("203.0.113.3").response().expect("noted");
        own.patience(Duration::from_millis(50));
        assert!(!own.hears(), "a source that doesn't read can't have one worker after the other");
        own.patience(PATIENCE);
        idle.reset();
        own.response().expect("noted");
        server.stop();
    }
}
