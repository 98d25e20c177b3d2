//! Promise: a request that runs for too long costs its client a 504 and nobody else anything. What can be interrupted is, exactly
//! that; what can't be keeps its thread, and another thread takes its place.

use crate::support::{Client, Driver, Folder, Server, eventually, pause};

const LIMIT: &[&str] = &["--request-timeout", "0.5", "--graceful-timeout", "2"];

fn late(driver: Driver, flags: &[&str]) -> Server {
    driver.server().flags(LIMIT).flags(flags).application("late").start()
}

fn expect_504(server: &Server, target: &str) {
    let response = server.connect().get(target);
    assert_eq!(response.status(), 504, "{target}: {}", response.text());
}

/// How many worker threads there are.
fn workers(server: &Server) -> usize {
    server.get("/workers").trim().parse().expect("a number")
}

fn wait_for_line(server: &Server, words: &str) {
    eventually(words, || server.stderr.all().iter().any(|line| line.contains(words)).then_some(()));
}

fn count(server: &Server, words: &str) -> usize {
    server.stderr.all().iter().filter(|line| line.contains(words)).count()
}

on_every_driver! {
    /// Python code is interrupted wherever it is: the worker goes on.
    fn python_code(driver: Driver) {
        let server = late(driver, &["--workers", "1"]);
        expect_504(&server, "/loop");
        server.connect().get("/").expect("in time\n");
        let mut client = server.connect();
        client.send("GET /in-body HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().as_deref(), Some(b"first".as_slice()));
        let rest = client.rest();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a response that is cut short doesn't look complete");
        server.connect().get("/").expect("in time\n");
        // Its client has its answer; the worker is to be had again all the same.
        server.connect().get("/in-close").expect("in time\n");
        wait_for_line(&server, "GET /in-close: close() raised");
        server.connect().get("/").expect("in time\n");
        assert_eq!(workers(&server), 1, "nobody was replaced");
        wait_for_line(&server, "hoopsnake.RequestTimeoutException");
        wait_for_line(&server, "serving GET /loop for");
        server.stop();
    }

    /// An application may catch the exception and answer: then that is the answer.
    fn an_answer_after_all(driver: Driver) {
        let server = late(driver, &["--workers", "1"]);
        let response = server.connect().get("/catches");
        assert_eq!((response.status(), response.text()), (503, "caught\n".into()));
        server.stop();
    }

    /// A stream may last longer than the limit as long as it moves, and its client may be slow.
    fn a_stream_that_moves(driver: Driver) {
        let server = late(driver, &["--workers", "1"]);
        let response = server.connect().get("/trickles");
        assert_eq!((response.status(), response.text()), (200, "0123456".into()));
        let mut slow = Client::connect_narrow(server.address(), 4096);
        slow.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(slow.head().status, 200);
        // The worker waits for this client all the while.
        pause(1500);
        assert_eq!(count(&server, "interrupted"), 0, "{}", server.stderr.text());
        drop(slow);
        eventually("the worker is to be had again", || (server.connect().get("/").status() == 200).then_some(()));
        server.stop();
    }

    /// Locks of `logging` that an interrupted request leaves taken are released.
    fn locks_of_logging(driver: Driver) {
        let server = late(driver, &["--workers", "2"]);
        expect_504(&server, "/logs-slowly");
        assert_eq!(server.get("/logs"), "free\n");
        wait_for_line(&server, "the lock of the logging module");
        assert_eq!(count(&server, "it was released"), 3, "one of the module, two of the handler");
        server.stop();
    }

    /// What no exception reaches: a call into C without the GIL, and Python code that swallows everything. Each worker is
    /// replaced, others are served meanwhile, and who comes back leaves.
    fn stuck_workers_are_replaced(driver: Driver) {
        let server = late(driver, &["--workers", "2"]);
        let folder = Folder::new();
        let log = folder.log("swallowed");
        let mut stuck: Vec<Client> = [format!("/swallows?{}", log.path()), "/sleep-a-while?4".to_owned()]
            .iter()
            .map(|target| {
                let mut client = server.connect();
                client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
                client
            })
            .collect();
        for client in &mut stuck {
            assert_eq!(client.response().status(), 504);
        }
        eventually("both are replaced", || (count(&server, "in the place of one that is stuck") == 2).then_some(()));
        server.connect().get("/").expect("in time\n");
        // Nor does who is only served while nobody else is wait for them.
        let mut bot = server.connect();
        bot.send("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.9\r\nUser-Agent: a bot\r\n\r\n");
        bot.response().expect("in time\n");
        assert_eq!(workers(&server), 4);
        assert_eq!(log.lines(), ["swallowed"], "the exception comes once");
        eventually("the one that comes back leaves", || (workers(&server) == 3).then_some(()));
        expect_504(&server, "/loop");
        server.connect().get("/").expect("in time\n");
        server.stop();
    }

    /// When nobody is left, the process accepts no more, drains what it can and is replaced; who comes meanwhile is served by the
    /// successor. Nobody waits for threads that are stuck, whatever `--graceful-timeout` says.
    fn every_worker_stuck(driver: Driver) {
        let server = late(driver, &["--workers", "1", "--graceful-timeout", "600"]);
        let before = server.worker();
        let mut idle = server.connect();
        idle.get("/").expect("in time\n");
        expect_504(&server, "/sleep");
        wait_for_line(&server, "in the place of one that is stuck");
        expect_504(&server, "/swallows?/dev/null");
        wait_for_line(&server, "every worker is stuck, and so are their replacements");
        wait_for_line(&server, "is replaced: every one of its threads is stuck");
        idle.expect_closed();
        for _ in 0..10 {
            server.connect().get("/").expect("in time\n");
        }
        assert_ne!(server.get("/pid").trim(), before.to_string());
        eventually("the old process leaves", || (!server.serving().contains(&before)).then_some(()));
        server.stop();
    }

    /// Other processes serve what comes while one of them is stuck.
    fn every_worker_of_one_process_stuck(driver: Driver) {
        let server = late(driver, &["--workers", "1", "--processes", "2"]);
        let before = server.serving();
        // Whoever gets these: in the end two are stuck in one of the processes, and it is replaced.
        let stuck: Vec<Client> = (0..3)
            .map(|_| {
                let mut client = server.connect();
                client.send("GET /sleep HTTP/1.1\r\nHost: test\r\n\r\n");
                assert_eq!(client.response().status(), 504);
                client
            })
            .collect();
        wait_for_line(&server, "is replaced: every one of its threads is stuck");
        for _ in 0..20 {
            server.connect().get("/").expect("in time\n");
        }
        drop(stuck);
        eventually("two processes serve, one of them new", || {
            let now = server.serving();
            (now.len() == 2 && now != before).then_some(())
        });
        server.stop();
    }

    /// Without a supervisor it says so, drains what it can and leaves with a failure: whoever started it starts it again.
    fn every_worker_stuck_without_a_supervisor(driver: Driver) {
        let mut server = late(driver, &["--workers", "1", "--no-supervisor", "--graceful-timeout", "600"]);
        let mut idle = server.connect();
        idle.get("/").expect("in time\n");
        expect_504(&server, "/sleep");
        wait_for_line(&server, "in the place of one that is stuck");
        expect_504(&server, "/swallows?/dev/null");
        assert_eq!(server.wait(), Some(1));
        idle.expect_closed();
        wait_for_line(&server, "every worker is stuck, and so are their replacements");
    }

    /// A stop waits for no thread that doesn't answer to its interruption, found stuck before or while it waits.
    fn a_stop_with_stuck_threads(driver: Driver) {
        let server = late(driver, &["--workers", "2", "--graceful-timeout", "600"]);
        expect_504(&server, "/sleep");
        wait_for_line(&server, "counts as stuck");
        expect_504(&server, "/swallows?/dev/null");
        server.stop();
    }

    /// A call into C that keeps the GIL stops all of Python: the reactors still answer, the stacks are told, the process drains and is
    /// replaced. Its supervisor doesn't wait for it.
    fn the_gil_is_lost(driver: Driver) {
        let server = late(driver, &["--workers", "2"]);
        let before = server.worker();
        expect_504(&server, "/keeps-the-gil");
        expect_504(&server, "/");
        wait_for_line(&server, "in keeps_the_gil");
        wait_for_line(&server, "Python's GIL can't be had");
        wait_for_line(&server, "is replaced: something in C keeps its GIL");
        for _ in 0..10 {
            server.connect().get("/").expect("in time\n");
        }
        eventually("the old process leaves", || (!server.serving().contains(&before)).then_some(()));
        server.stop();
    }

    /// Without a supervisor the process leaves, with a failure.
    fn the_gil_is_lost_without_a_supervisor(driver: Driver) {
        let mut server = late(driver, &["--workers", "2", "--no-supervisor"]);
        expect_504(&server, "/keeps-the-gil");
        expect_504(&server, "/");
        assert_eq!(server.wait(), Some(1));
        wait_for_line(&server, "in keeps_the_gil");
        wait_for_line(&server, "Python's GIL can't be had");
    }

    /// Each has its line in the access log when its client is answered, though its worker never gives it back; and one line only.
    fn the_access_log(driver: Driver) {
        let server = late(driver, &["--workers", "2", "--access-log", "-"]);
        expect_504(&server, "/sleep");
        expect_504(&server, "/sleep-a-while?2");
        let lines = |target: &str| {
            let start = format!("\"GET {target} HTTP/1.1\" 504 ");
            server.stdout.all().iter().filter(|line| line.contains(&start)).cloned().collect::<Vec<_>>()
        };
        let line = eventually("a line for who sleeps on", || lines("/sleep").pop());
        assert!(line.starts_with("127.0.0.1 1:"), "{line}");
        eventually("a line for who comes back", || lines("/sleep-a-while?2").pop());
        wait_for_line(&server, "its client was answered 504 before that");
        server.get("/");
        eventually("a line of a later request", || {
            server.stdout.all().iter().any(|line| line.contains("\"GET / HTTP/1.1\" 200")).then_some(())
        });
        assert_eq!(lines("/sleep-a-while?2").len(), 1);
        server.stop();
    }

    /// SIGUSR1: the stacks of all threads, with the request of each and for how long.
    fn stacks(driver: Driver) {
        let server = driver.server().flags(&["--workers", "2"]).start();
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut client = server.connect();
        client.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        server.signal("USR1");
        let found = |words: &str| {
            eventually(words, || server.stdout.all().iter().find(|line| line.contains(words)).cloned())
        };
        let line = found(", serving GET /gate?");
        assert!(line.starts_with("hoopsnake-worker-") && line.ends_with(" s"), "{line}");
        found("in gated");
        found("hoopsnake-worker-2, idle");
        found("MainThread");
        gate.open();
        client.response().expect("through\n");
        server.stop();
    }

    /// SIGUSR2: statistics.
    fn statistics(driver: Driver) {
        let server = late(driver, &["--workers", "2", "--reactors", "1"]);
        let mut kept = server.connect();
        kept.get("/").expect("in time\n");
        expect_504(&server, "/loop");
        server.connect().send("nonsense\r\n\r\n");
        eventually("it is refused", || {
            server.signal("USR2");
            pause(50);
            server.stdout.all().iter().any(|line| line == "1: Requests refused: 1").then_some(())
        });
        let text = server.stdout.text();
        let last = text.rfind("1: Active requests:").expect("the first line");
        for line in [
            "1: Active requests: 0",
            "1: Active requests by IP:",
            "1: Request count: 2",
            "1: Request errors: 0",
            "1: Request timeouts: 1",
            "1: Request drops: 0",
            "1: Python live Thread count: 3",
            "1: Requests waiting: 0",
            "1: Workers: 2 (0 running, 0 stuck; from 2 to 2)",
            "1: Requests interrupted: 1",
            "1: Connections accepted: 3",
            "1: Requests received: 2",
            "1: Requests refused: 1",
        ] {
            assert!(text[last..].lines().any(|found| found == line), "{line} isn't in\n{}", &text[last..]);
        }
        server.stop();
    }

    /// Requests that end just about when their time is over: the exception is theirs or nobody's.
    fn a_storm_at_the_deadline(driver: Driver) {
        const LIMIT: f64 = 0.02;
        const CLIENTS: usize = 4;
        const EACH: usize = 150;
        let server = driver.server().flags(&["--request-timeout", "0.02", "--workers", "4"]).application("late").start();
        let mut kinds: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let server = &server;
                    scope.spawn(move || {
                        let mut connection = server.connect();
                        let ask = |number: usize| {
                            // Slightly before and slightly after the deadline, by turns.
                            let share = 0.95 + ((number * CLIENTS + client) % 41) as f64 * 0.01;
                            let response = connection.get(&format!("/storm?{LIMIT},{share}"));
                            format!("{} {}", response.status(), response.text().trim_end())
                        };
                        (0..EACH).map(ask).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        kinds.sort();
        kinds.dedup();
        assert!(!kinds.iter().any(|kind| kind.contains("another's")), "{kinds:?}");
        assert!(kinds.iter().any(|kind| kind == "200 interrupted"), "{kinds:?}");
        assert_eq!(count(&server, "an exception of another request"), 0);
        assert_eq!(count(&server, "the application raised"), 0, "{}", server.stderr.text());
        server.stop();
    }
}
