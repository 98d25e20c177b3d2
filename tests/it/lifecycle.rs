//! Promise: the server starts or says in a sentence why not, and it stops without losing what it has accepted.

use std::net::TcpListener;
use std::path::Path;

use crate::support::server::{Outcome, Start, signal};
use crate::support::{Client, Driver, Folder, PATIENCE, Server, eventually, pause};

const HELLO: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// Sends a request that waits at a gate named `name`, and comes back when it stands there.
fn hold(server: &Server, folder: &Folder, route: &str, name: &str) -> (Client, crate::support::folder::Gate) {
    let gate = folder.gate(name);
    let mut client = server.connect();
    client.send(format!("GET {route}?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
    gate.wait_for_arrival();
    (client, gate)
}

fn graceful(start: Start, signal: &str) {
    let mut server = start.start();
    let folder = Folder::new();
    server.get("/at-exit");
    let mut idle = server.connect();
    idle.get("/").expect("Hello, world!\n");
    let (mut running, running_gate) = hold(&server, &folder, "/gate", "running");
    let (mut streaming, streaming_gate) = hold(&server, &folder, "/stream", "streaming");
    let mut uploading = server.connect();
    uploading.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\nabc");
    server.get("/");
    server.signal(signal);
    idle.expect_closed();
    assert!(!server.has_ended(), "requests are in flight");
    running_gate.open();
    let response = running.response();
    response.expect("through\n");
    assert!(response.head.closes(), "the client must not use the connection again: {}", response.head.masked());
    running.expect_closed();
    uploading.send("def");
    uploading.response().expect("abcdef");
    uploading.expect_closed();
    streaming_gate.open();
    streaming.response().expect("firstsecond");
    streaming.expect_closed();
    assert_eq!(server.wait(), Some(0));
    assert!(server.stdout.text().contains("atexit ran"), "Python's atexit handlers run");
}

/// It ended with `code`; the last line on its standard error holds all of `words`, and there is no traceback.
fn expect_sentence(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert!(!outcome.stderr.contains("Traceback"), "{outcome:?}");
    // Where the command line is at fault, a last line says how to get help.
    let sentence =
        outcome.stderr.lines().rfind(|line| !line.is_empty() && !line.contains("--help'")).unwrap_or_default();
    for word in words {
        assert!(sentence.contains(word), "{word:?} isn't in {sentence:?}: {outcome:?}");
    }
}

fn bare() -> Start {
    Start::bare(&["--http-socket", "127.0.0.1:0"])
}

on_every_driver! {
    /// SIGTERM: accepted requests are finished, kept connections end at once, exit code 0, `atexit`.
    fn sigterm(driver: Driver) {
        graceful(driver.server(), "TERM");
    }

    /// The same without a supervisor.
    fn sigterm_without_a_supervisor(driver: Driver) {
        graceful(driver.server().flags(&["--no-supervisor"]), "TERM");
    }

    /// SIGINT and SIGQUIT: a quick stop. Nothing is waited for; Python still exits in order.
    fn sigint_and_sigquit(driver: Driver) {
        for (flags, name) in [(&[][..], "INT"), (&[][..], "QUIT"), (&["--no-supervisor"][..], "INT")] {
            let mut server = driver.server().flags(flags).start();
            let folder = Folder::new();
            server.get("/at-exit");
            let (mut running, gate) = hold(&server, &folder, "/gate", "never-opened");
            server.signal(name);
            running.expect_closed();
            // The thread can't be ended: it is let go of, so that Python's end isn't waited for.
            gate.open();
            assert_eq!(server.wait(), Some(0));
            assert!(server.stdout.text().contains("atexit ran"), "Python's atexit handlers run");
        }
    }

    /// What the kernel had accepted for a server that was told to stop is answered, not reset.
    fn connections_in_the_backlog(driver: Driver) {
        let mut server = driver.server().start();
        server.get("/");
        let worker = server.worker();
        signal(worker, "STOP");
        let mut clients: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = server.connect();
                client.send(HELLO);
                client
            })
            .collect();
        server.signal("TERM");
        signal(worker, "CONT");
        for client in &mut clients {
            client.response().expect("Hello, world!\n");
            client.expect_closed();
        }
        assert_eq!(server.wait(), Some(0));
    }

    /// Requests that were already pipelined when the stop came are answered, whatever they are for.
    fn stop_with_pipelined_requests(driver: Driver) {
        let mut server = driver.server().start();
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut idle = server.connect();
        idle.get("/").expect("Hello, world!\n");
        let mut client = server.connect();
        let echo = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nabcde";
        client.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n{HELLO}{echo}{HELLO}", gate.path()));
        gate.wait_for_arrival();
        server.signal("TERM");
        idle.expect_closed();
        gate.open();
        for expected in ["through\n", "Hello, world!\n", "abcde"] {
            let response = client.response();
            response.expect(expected);
            assert!(!response.head.closes(), "more is owed: {}", response.head.masked());
        }
        let last = client.response();
        last.expect("Hello, world!\n");
        assert!(last.head.closes(), "{}", last.head.masked());
        client.expect_closed();
        assert_eq!(server.wait(), Some(0));
    }

    /// What is sent after that costs no answer: the last one says that it is (RFC 9112 §9.6), and isn't reset away.
    fn stop_and_a_client_that_goes_on_sending(driver: Driver) {
        let mut server = driver.server().flags(&["--reactors", "1"]).start();
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut idle = server.connect();
        idle.get("/").expect("Hello, world!\n");
        let mut client = Client::connect_narrow(server.address(), 4096);
        let page = "GET /page?bytes=400000 HTTP/1.1\r\nHost: test\r\n\r\n";
        client.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n{page}", gate.path()));
        gate.wait_for_arrival();
        server.signal("TERM");
        idle.expect_closed();
        let mut sender = client.clone_socket();
        sender.send(HELLO);
        gate.open();
        std::thread::scope(|scope| {
            // For as long as the connection lasts.
            scope.spawn(move || {
                while sender.try_send(HELLO) {
                    pause(1);
                }
            });
            client.response().expect("through\n");
            let last = client.response();
            assert!(last.head.closes(), "{}", last.head.masked());
            assert_eq!(last.body.len(), 400_000);
            client.expect_closed();
            drop(client);
        });
        assert_eq!(server.wait(), Some(0));
    }

    /// New connections are refused while others finish.
    fn no_new_connections(driver: Driver) {
        let mut server = driver.server().start();
        let folder = Folder::new();
        let (mut running, gate) = hold(&server, &folder, "/gate", "gate");
        server.signal("TERM");
        let address = server.address();
        eventually("connections are refused", || std::net::TcpStream::connect(address).is_err().then_some(()));
        gate.open();
        running.response().expect("through\n");
        assert_eq!(server.wait(), Some(0));
    }

    /// `--graceful-timeout` ends the wait; Python still exits in order.
    fn graceful_timeout(driver: Driver) {
        let mut server = driver.server().flags(&["--graceful-timeout", "0.3"]).start();
        let folder = Folder::new();
        server.get("/at-exit");
        let (mut running, _gate) = hold(&server, &folder, "/gate", "never-opened");
        server.signal("TERM");
        running.expect_closed();
        assert_eq!(server.wait(), Some(0));
        assert!(server.stdout.text().contains("atexit ran"), "Python's atexit handlers run");
    }

    /// A client that is slow to take its response is waited for as well, and no longer than that.
    fn graceful_timeout_and_a_stopped_reader(driver: Driver) {
        let mut server = driver.server().flags(&["--graceful-timeout", "0.3"]).start();
        let folder = Folder::new();
        let log = folder.log("log");
        let mut client = Client::connect_narrow(server.address(), 4096);
        client.send(format!("GET /endless?{} HTTP/1.1\r\nHost: test\r\n\r\n", log.path()));
        client.head();
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
        assert_eq!(log.lines(), ["closed"], "the iterable is closed");
    }

    /// A second signal is meant: the end, whatever is in flight.
    fn second_signal(driver: Driver) {
        for second in ["TERM", "INT"] {
            let mut server = driver.server().start();
            let folder = Folder::new();
            let mut idle = server.connect();
            idle.get("/").expect("Hello, world!\n");
            let (mut running, _gate) = hold(&server, &folder, "/gate", "never-opened");
            server.signal("TERM");
            idle.expect_closed();
            // One that comes at once is taken for the same signal sent twice; a later one counts.
            eventually("a second signal ends it", || {
                server.signal(second);
                server.has_ended().then_some(())
            });
            server.wait();
            running.expect_closed();
        }
    }

    /// Signals change nothing about requests that are served meanwhile.
    fn stop_under_load(driver: Driver) {
        let mut server = driver.server().start();
        let address = server.address();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        let mut answered = 0;
                        let mut client = Client::connect(address);
                        // Every request that was sent in time is answered; the last answer says that it is the last.
                        loop {
                            if !client.try_send(HELLO) {
                                return answered;
                            }
                            match client.try_response("GET") {
                                Ok(response) => {
                                    response.expect("Hello, world!\n");
                                    answered += 1;
                                    if response.head.closes() {
                                        return answered;
                                    }
                                }
                                // The server closed the idle connection while the request was on its way (RFC 9112 §9.5).
                                Err(broken) => {
                                    assert!(broken.head.is_none(), "a response was cut short: {broken:?}");
                                    return answered;
                                }
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..100 {
                server.get("/");
            }
            server.signal("TERM");
            for client in clients {
                assert!(client.join().expect("the client has not failed") > 0);
            }
        });
        assert_eq!(server.wait(), Some(0));
    }

    /// The start-up block: what runs, in few words.
    fn start_up_block(driver: Driver) {
        let server = driver.server().flags(&["--workers", "3", "--reactors", "1"]).start();
        let text = server.stderr.text();
        let port = server.address().port().to_string();
        for word in [driver.name(), "wire", "Python 3.", "127.0.0.1", port.as_str(), "3", env!("CARGO_PKG_VERSION")] {
            assert!(text.contains(word), "{word:?} isn't in {text}");
        }
        assert_eq!(server.get("/workers"), "3 True\n");
        server.stop();
    }

    /// Several addresses at once, each with its own port in the environ.
    fn several_sockets(driver: Driver) {
        let folder = Folder::new();
        let path = folder.path("socket");
        let unix = format!("unix:{}", path.display());
        let server = driver.server().flags(&["--http-socket", "127.0.0.1:0", "--http-socket", &unix]).start();
        assert_eq!(server.addresses().len(), 2, "{}", server.stderr.text());
        for address in server.addresses() {
            let text = Client::connect(*address).get("/environ").text();
            assert!(text.contains(&format!("SERVER_PORT='{}'\n", address.port())), "{text}");
        }
        Client::connect_unix(&path).get("/").expect("Hello, world!\n");
        server.stop();
    }

    /// A Unix socket: served, and gone when the server is.
    fn unix_socket(driver: Driver) {
        let folder = Folder::new();
        let path = folder.path("socket");
        let socket = format!("unix:{}", path.display());
        let server = Start::bare(&["--reactor", driver.name(), "--http-socket", &socket]).start();
        let mut client = Client::connect_unix(&path);
        client.get("/").expect("Hello, world!\n");
        let text = client.get("/environ").text();
        for key in ["SERVER_NAME=''", "SERVER_PORT=''", "None"] {
            assert!(!text.contains(key), "{key} in {text}");
        }
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
        client.response().expect("abc");
        client.expect_closed();
        server.stop();
        assert!(!path.exists(), "the socket's file is left");
    }

    /// `fd:N`, and systemd's socket activation, which takes the place of the addresses.
    fn inherited_sockets(driver: Driver) {
        let flags = ["--reactor", driver.name(), "--http-socket", "fd:3"];
        let server = Start::through(&["fd"], &flags).start();
        for _ in 0..10 {
            assert_eq!(server.get("/"), "Hello, world!\n");
        }
        let text = server.get("/environ");
        assert!(text.contains(&format!("SERVER_PORT='{}'\n", server.address().port())), "{text}");
        server.stop();
        let server = Start::through(&["systemd"], &flags[..2]).start();
        assert_eq!(server.get("/"), "Hello, world!\n");
        server.stop();
    }

    /// More reactors than cores, and one alone: every connection is served.
    fn any_number_of_reactors(driver: Driver) {
        for reactors in ["1", "5"] {
            let server = driver.server().flags(&["--reactors", reactors]).start();
            let mut clients: Vec<Client> = (0..30).map(|_| server.connect()).collect();
            for client in &mut clients {
                client.get("/").expect("Hello, world!\n");
            }
            server.stop();
        }
    }

    /// A worker isn't pinned to a reactor's core.
    fn workers_are_not_pinned(driver: Driver) {
        let server = driver.server().start();
        let mut allowed = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", server.worker())).expect("the server runs") {
            let status = std::fs::read_to_string(task.expect("readable").path().join("status")).unwrap_or_default();
            let name = status.lines().find_map(|line| line.strip_prefix("Name:\t")).unwrap_or_default().to_owned();
            let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap_or_default();
            allowed.push((name, cores.to_owned()));
        }
        let own = std::fs::read_to_string("/proc/self/status").expect("Linux has /proc");
        let own = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).expect("the kernel lists it");
        let free = allowed.iter().filter(|(_, cores)| cores == own).count();
        assert!(free > 16, "16 workers and the main thread may run anywhere in {own}: {allowed:?}");
        server.stop();
    }
}

/// Where io_uring is forbidden, `auto` serves with epoll and says why.
#[test]
fn io_uring_forbidden_and_auto() {
    let flags = ["--http-socket", "127.0.0.1:0", "--reactor", "auto"];
    let server = Start::through(&["no-io-uring"], &flags).start();
    assert_eq!(server.get("/"), "Hello, world!\n");
    let text = server.stderr.text();
    assert!(text.lines().any(|line| line.contains("epoll") && line.contains("io_uring")), "{text}");
    server.stop();
}

/// Where io_uring is forbidden and was asked for, the server doesn't start with something else.
#[test]
fn io_uring_forbidden_and_asked_for() {
    for reactor in ["ring", "tokio-uring"] {
        let flags = ["--http-socket", "127.0.0.1:0", "--reactor", reactor];
        let outcome = Start::through(&["no-io-uring"], &flags).run();
        expect_sentence(&outcome, 1, &["io_uring", "epoll"]);
    }
}

/// What the command line gets wrong: a sentence that names it, exit code 2.
#[test]
fn usage_errors() {
    let table: [(&[&str], &[&str]); 12] = [
        (&["--no-such-flag"], &["no-such-flag"]),
        (&["--worker", "3"], &["worker", "--workers"]),
        (&["--workers", "many"], &["--workers", "many"]),
        (&["--workers", "0"], &["--workers", "0"]),
        (&["--workers", "1000000"], &["--workers", "1000000"]),
        (&["--workers"], &["--workers"]),
        (&["--processes", "0"], &["--processes", "0"]),
        (&["--reactor", "kqueue"], &["--reactor", "kqueue"]),
        (&["--http-socket", "127.0.0.1:http"], &["--http-socket", "127.0.0.1:http"]),
        (&["--http-socket", "127.0.0.1:99999"], &["--http-socket", "99999"]),
        (&["--header-timeout", "0"], &["--header-timeout"]),
        (&["--request-timeout", "soon"], &["--request-timeout", "soon"]),
    ];
    for (flags, words) in table {
        expect_sentence(&bare().flags(flags).run(), 2, words);
    }
    expect_sentence(&bare().flags(&["wire"]).application("another").run(), 2, &["another"]);
    let outcome = bare().environment("HOOPSNAKE_WORKERS", "many").run();
    expect_sentence(&outcome, 2, &["HOOPSNAKE_WORKERS", "many"]);
    let folder = Folder::new();
    let file = folder.file("site.toml", b"workers = 4\nwrokers = 5\n");
    let path = file.display().to_string();
    expect_sentence(&bare().flags(&["--config", &path]).run(), 2, &["site.toml", "2", "wrokers"]);
    expect_sentence(&bare().flags(&["--config", &format!("{path}.missing")]).run(), 2, &["site.toml.missing"]);
}

/// What is wrong with the application: a sentence, exit code 1, and no traceback of ours.
#[test]
fn application_errors() {
    expect_sentence(&bare().application("no_such_module").run(), 1, &["no_such_module"]);
    expect_sentence(&bare().application("wire:no_such_callable").run(), 1, &["no_such_callable", "wire"]);
    expect_sentence(&bare().application("wire:aplication").run(), 1, &["aplication", "wire:application"]);
    expect_sentence(&bare().application("made:number").run(), 1, &["made:number", "callable"]);
    expect_sentence(&bare().application("made:create").run(), 1, &["made:create"]);
    expect_sentence(&bare().application("made:create()").run(), 1, &["made:create()", "greeting"]);
}

/// What the application itself raises: its traceback, then the sentence.
#[test]
fn application_tracebacks() {
    for (name, words) in [
        ("needs_missing", &["needs_missing", "no_such_package_for_hoopsnake"]),
        ("fails", &["fails", "the database settings are missing"]),
    ] {
        let outcome = bare().application(name).run();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let traceback =
            outcome.stderr.find("Traceback (most recent call last)").expect("the application's own traceback");
        let last = outcome.stderr.lines().last().unwrap_or_default();
        for word in words {
            assert!(last.contains(word), "{word:?} isn't in {last:?}");
        }
        assert!(outcome.stderr.rfind(last).expect("it is in there") > traceback, "{outcome:?}");
        for frame in ["_application.py", "importlib"] {
            assert!(!outcome.stderr.contains(frame), "frames that aren't the application's: {outcome:?}");
        }
    }
}

/// A factory with arguments.
#[test]
fn application_factory() {
    let server = bare().application("made:create(\"hello\", loud=True)").start();
    assert_eq!(server.get("/"), "HELLO");
    server.stop();
}

/// What the machine refuses: a sentence that names it, exit code 1.
#[test]
fn machine_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    expect_sentence(&Start::bare(&["--http-socket", &address]).run(), 1, &[&address]);
    let folder = Folder::new();
    let missing = format!("unix:{}", folder.path("missing/socket").display());
    expect_sentence(&Start::bare(&["--http-socket", &missing]).run(), 1, &["missing/socket"]);
    let path = folder.file("file", b"not a socket");
    let file = format!("unix:{}", path.display());
    expect_sentence(&Start::bare(&["--http-socket", &file]).run(), 1, &[path.to_str().expect("plain ASCII")]);
    assert_eq!(std::fs::read(&path).expect("it is still there"), b"not a socket");
    expect_sentence(&Start::bare(&["--http-socket", "fd:77"]).run(), 1, &["77"]);
    expect_sentence(&Start::bare(&["--http-socket", "203.0.113.77:8000"]).run(), 1, &["203.0.113.77"]);
    let log = folder.path("missing/log").display().to_string();
    expect_sentence(&bare().flags(&["--access-log", &log]).run(), 1, &[&log]);
    expect_sentence(&bare().flags(&["--chdir", "/no/such/folder"]).run(), 1, &["/no/such/folder"]);
}

/// A Unix socket that another server serves isn't taken from it; one that nobody serves any more is.
#[test]
fn unix_socket_in_use_and_left_behind() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let socket = format!("unix:{}", path.display());
    let first = Start::bare(&["--http-socket", &socket]).start();
    expect_sentence(&Start::bare(&["--http-socket", &socket]).run(), 1, &["socket"]);
    Client::connect_unix(&path).get("/").expect("Hello, world!\n");
    first.stop();
    drop(std::os::unix::net::UnixListener::bind(&path).expect("the folder is writable"));
    assert!(path.exists());
    let second = Start::bare(&["--http-socket", &socket]).start();
    Client::connect_unix(&path).get("/").expect("Hello, world!\n");
    second.stop();
}

/// `--check` loads the application, says what would run, and ends.
#[test]
fn check() {
    let outcome = bare().flags(&["--check", "--workers", "7"]).run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for word in ["workers", "7", "wire", "127.0.0.1:0", "request-timeout"] {
        assert!(outcome.stdout.contains(word), "{word:?} isn't in {outcome:?}");
    }
    expect_sentence(&bare().flags(&["--check"]).application("no_such_module").run(), 1, &["no_such_module"]);
}

/// `--version` and `--help` need no application and nothing else.
#[test]
fn version_and_help() {
    for flag in ["--version", "-version"] {
        let outcome = Start::bare(&[flag]).application("").run();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        assert!(outcome.stdout.contains(&format!("hoopsnake {}", env!("CARGO_PKG_VERSION"))), "{outcome:?}");
    }
    for flag in ["--help", "-help", "-h"] {
        let outcome = Start::bare(&[flag]).application("").run();
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let text = format!("{}{}", outcome.stdout, outcome.stderr);
        for word in ["--http-socket", "--workers", "--reactor"] {
            assert!(text.contains(word), "{word} isn't in {text}");
        }
    }
}

/// Go's single dash, `=`, the environment, the file; the command line over the environment over the file.
#[test]
fn where_values_come_from() {
    let folder = Folder::new();
    let file = folder.file("site.toml", b"workers = 2\nmodule = \"wire\"\nhttp-socket = [\"127.0.0.1:0\"]\n");
    let file = file.display().to_string();
    let workers = |start: Start| {
        let server = start.start();
        let text = server.get("/workers");
        server.stop();
        text
    };
    let configured = || Start::bare(&["-config", &file]).application("");
    assert_eq!(workers(configured()), "2 True\n");
    assert_eq!(workers(configured().environment("HOOPSNAKE_WORKERS", "3")), "3 True\n");
    assert_eq!(workers(configured().environment("HOOPSNAKE_WORKERS", "3").flags(&["-workers=4"])), "4 True\n");
    assert_eq!(workers(bare().flags(&["-workers", "5", "-module", "wire"]).application("")), "5 True\n");
}

/// The working directory is where modules are found first, and `--chdir` changes it.
#[test]
fn working_directory() {
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/apps");
    let folder = Folder::new();
    folder.file("here.py", b"from made import create\napplication = create('found here')\n");
    let flags = ["--chdir".to_owned(), folder.path("").display().to_string()];
    let server =
        bare().flags(&flags).application("here").environment("PYTHONPATH", &apps.display().to_string()).start();
    assert_eq!(server.get("/"), "found here");
    assert!(server.stderr.wait_for("here", PATIENCE).is_some());
    server.stop();
}
