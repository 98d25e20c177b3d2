//! Promise: a client that keeps the workers computing delays nobody who asks for little. A request worth far more than the one that
//! runs isn't held behind it, and CPython is told to let it have the GIL soon. Judged by order and by what is set, never by time.

use crate::support::{Client, Driver, Server, eventually};

const GREEDY: &str = "198.51.100.1";
const MODEST: &str = "203.0.113.1";
/// Microseconds: CPython's own switch interval, and the server's while requests of little worth run.
const DEFAULT: &str = "5000";
const SHORT: &str = "250";

fn server(driver: Driver, flags: &[&str]) -> Server {
    driver.server().application("urgent").flags(&["--workers", "4", "--reactors", "1"]).flags(flags).start()
}

/// Asks for `target` in the name of `client`, as a proxy on this machine passes it on.
fn ask(server: &Server, target: &str, client: &str) -> Client {
    let mut connection = server.connect();
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\n\r\n"));
    connection
}

fn get(server: &Server, target: &str, client: &str) -> String {
    ask(server, target, client).response().text()
}

/// Gives `client` a history of so many requests: each takes 1,000 points off for as many seconds.
fn ask_often(server: &Server, client: &str, times: usize) {
    (0..times).for_each(|_| drop(get(server, "/begun", client)));
}

on_every_driver! {
    /// One that has asked a lot is answered while one runs, and others wait, that has asked without end.
    fn a_light_request_is_answered_while_heavy_ones_run(driver: Driver) {
        let server = server(driver, &[]);
        ask_often(&server, GREEDY, 400);
        let mut heavy: Vec<Client> = (0..6).map(|_| ask(&server, "/compute", GREEDY)).collect();
        eventually("one computes", || (get(&server, "/begun", "10.0.0.1") == "1").then_some(()));
        // From here on it is worth so little itself that it would wait for an idle server: for longer than this test does.
        ask_often(&server, MODEST, 200);
        assert_eq!(get(&server, "/release", MODEST), "1 begun, 0 ended");
        let mut said: Vec<String> = heavy.iter_mut().map(|client| client.response().text()).collect();
        said.sort();
        // One has counted its steps; the others came when there was no more to wait for.
        assert_eq!(said, ["False 1", "False 1", "False 1", "False 1", "False 1", "True 1"]);
        server.stop();
    }

    /// Whoever is to answer soon has a shorter time slice than whoever computes.
    fn reactors_and_whoever_goes_first_have_a_short_slice(driver: Driver) {
        let server = server(driver, &[]);
        let slices = |client: &str| -> Vec<u64> {
            get(&server, "/slices", client).split(' ').map(|slice| slice.parse().expect("microseconds")).collect()
        };
        let &[usual, reactor, worker] = &slices(MODEST)[..] else { panic!("three slices") };
        // 0 on a kernel before 6.12.
        let short = usual.min(100);
        assert_eq!([reactor, worker], [short, usual]);
        ask_often(&server, GREEDY, 400);
        let mut heavy = ask(&server, "/compute", GREEDY);
        eventually("it computes", || (get(&server, "/begun", "10.0.0.1") == "1").then_some(()));
        assert_eq!(slices(MODEST), [usual, short, short]);
        get(&server, "/release", MODEST);
        heavy.response();
        server.stop();
    }

    /// The switch interval is short for as long as it is needed.
    fn the_gil_is_dropped_sooner_while_requests_of_little_worth_run(driver: Driver) {
        let server = server(driver, &[]);
        assert_eq!(get(&server, "/interval", GREEDY), DEFAULT);
        ask_often(&server, GREEDY, 60);
        assert_eq!(get(&server, "/interval", GREEDY), SHORT);
        eventually("nobody needs it any more", || (get(&server, "/interval", "10.0.0.1") == DEFAULT).then_some(()));
        assert_eq!(get(&server, "/interval", GREEDY), SHORT);
        // What the application sets while it is short stays.
        assert_eq!(get(&server, "/interval?700", "10.0.0.1"), "700");
        server.stop();
    }

    /// An interval of the application's own is left alone, and so is every one without priorities.
    fn an_interval_of_the_applications_own_is_left_alone(driver: Driver) {
        let own = server(driver, &[]);
        assert_eq!(get(&own, "/interval?1234", "10.0.0.1"), "1234");
        ask_often(&own, GREEDY, 20);
        assert_eq!(get(&own, "/interval", GREEDY), "1234");
        own.stop();
        let without = server(driver, &["--priority", "off"]);
        ask_often(&without, GREEDY, 20);
        assert_eq!(get(&without, "/interval", GREEDY), DEFAULT);
        without.stop();
    }
}
