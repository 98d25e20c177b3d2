//! Promise: every response has its line in the access log, in wsgo's format and with the status that was sent; no byte of a
//! client can forge a line; no reader of a log can hold the server up.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::folder::lines_of;
use crate::support::{Client, Driver, Folder, Server, eventually, pause};

/// A line taken apart: `IP P:W - [TIME] "METHOD URI PROTO" STATUS - "REFERER" "UA" <wall>ms <cpu>ms <priority>`.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    client: String,
    process: u32,
    worker: u32,
    request: String,
    status: u16,
    referer: String,
    user_agent: String,
}

impl Line {
    fn parse(line: &str) -> Self {
        Self::read(line).unwrap_or_else(|| panic!("not a line of the access log: {line:?}"))
    }

    fn read(line: &str) -> Option<Self> {
        if !line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return None;
        }
        let (front, rest) = line.split_once(" - [")?;
        let (client, numbers) = front.split_once(' ')?;
        let (process, worker) = numbers.split_once(':')?;
        let (time, rest) = rest.split_once("] ")?;
        is_time(time).then_some(())?;
        let (request, rest) = quoted(rest)?;
        let (status, rest) = rest.strip_prefix(' ')?.split_once(" - ")?;
        let (referer, rest) = quoted(rest)?;
        let (user_agent, rest) = quoted(rest.strip_prefix(' ')?)?;
        let mut numbers = rest.strip_prefix(' ')?.split(' ');
        for unit in ["ms", "ms", ""] {
            let number = numbers.next()?.strip_suffix(unit)?;
            number.parse::<f64>().ok()?;
        }
        numbers.next().is_none().then_some(())?;
        Some(Self {
            client: client.to_owned(),
            process: process.parse().ok()?,
            worker: worker.parse().ok()?,
            request: request.to_owned(),
            status: status.parse().ok().filter(|_| status.len() == 3)?,
            referer: referer.to_owned(),
            user_agent: user_agent.to_owned(),
        })
    }
}

/// What stands between the first quote, which must come at once, and the next one that isn't escaped; and the rest.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    })?;
    Some((&inner[..end], &inner[end + 1..]))
}

/// `21/Nov/2025:03:17:00 +0000`.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"00/Aaa/0000:00:00:00 +0000";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'A' | b'a' => byte.is_ascii_alphabetic(),
            b'+' => matches!(byte, b'+' | b'-'),
            other => byte == *other,
        })
}

/// A server that logs to a file.
fn logging(driver: Driver, folder: &Folder, flags: &[&str]) -> (Server, PathBuf) {
    let path = folder.path("access.log");
    let start = driver.server().flags(&["--access-log"]).flags(&[&path]).flags(flags);
    (start.start(), path)
}

fn wait_for(path: &Path, count: usize) -> Vec<Line> {
    let lines = eventually(&format!("{count} lines in the access log"), || {
        Some(lines_of(path)).filter(|lines| lines.len() >= count)
    });
    lines.iter().map(|line| Line::parse(line)).collect()
}

/// Sends `request`, waits for its line, and gives that.
fn logged(server: &Server, path: &Path, request: &[u8]) -> Line {
    let before = lines_of(path).len();
    let mut client = server.connect();
    client.try_send(request);
    let response = client.response_to(if request.starts_with(b"HEAD ") { "HEAD" } else { "GET" });
    let line = wait_for(path, before + 1).pop().expect("it was waited for");
    assert_eq!(line.status, response.status(), "{line:?}");
    line
}

fn fifo(folder: &Folder, name: &str) -> (PathBuf, std::fs::File) {
    let path = folder.path(name);
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo makes a named pipe");
    // Open for both, so that opening waits for nobody; never read from.
    let held = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("a named pipe opens");
    (path, held)
}

on_every_driver! {
    /// What the application answered: by which worker, to whom, asked by whom.
    fn lines_of_the_application(driver: Driver) {
        let folder = Folder::new();
        let (server, path) = logging(driver, &folder, &[]);
        let request = "GET /?a=b HTTP/1.1\r\nHost: test\r\nReferer: http://from/\r\nUser-Agent: it/1 (x)\r\n\r\n";
        let line = logged(&server, &path, request.as_bytes());
        assert_eq!((line.client.as_str(), line.process, line.status), ("127.0.0.1", 1, 200));
        assert!((1..=16).contains(&line.worker), "{line:?}");
        assert_eq!(line.request, "GET /?a=b HTTP/1.1");
        assert_eq!((line.referer.as_str(), line.user_agent.as_str()), ("http://from/", "it/1 (x)"));
        let line = logged(&server, &path, b"HEAD /nowhere/%C3%A9 HTTP/1.0\r\n\r\n");
        assert_eq!((line.request.as_str(), line.status), ("HEAD /nowhere/%C3%A9 HTTP/1.0", 404));
        assert_eq!((line.referer.as_str(), line.user_agent.as_str()), ("-", "-"));
        for (target, status) in [("/raise", 500), ("/start-never", 500), ("/204", 204), ("/304", 304), ("/generator", 200)] {
            let line = logged(&server, &path, format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
            assert_eq!((line.request, line.status), (format!("GET {target} HTTP/1.1"), status));
            assert!(line.worker > 0, "a worker ran it");
        }
        server.stop();
    }

    /// What the server answered in its place: no worker; what could be read of the request line, or nothing but dashes.
    fn lines_of_refusals(driver: Driver) {
        let folder = Folder::new();
        let (server, path) = logging(driver, &folder, &["--max-request-body", "1000"]);
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost : test\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: test\r\nExpect: x\r\n\r\n", 417),
            ("\0\r\n\r\n", 400),
            ("GET / HTTP/7.0\r\n\r\n", 505),
            ("GET / forged\" 200 - \"-\" \"-\" 0ms 0ms 0\r\n\r\n", 400),
        ] {
            let line = logged(&server, &path, request.as_bytes());
            assert_eq!((line.client.as_str(), line.worker, line.status), ("127.0.0.1", 0, status));
            let is_read = line.request == "GET / HTTP/1.1" && request.starts_with("GET / HTTP/1.1\r\n");
            assert!(is_read || line.request == "-" || line.request.starts_with("- - "), "{line:?}");
        }
        let line = logged(&server, &path, b"POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n");
        assert_eq!((line.request.as_str(), line.worker, line.status), ("POST /a HTTP/1.1", 0, 413));
        let line = logged(&server, &path, b"POST /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n");
        assert_eq!((line.request.as_str(), line.worker, line.status), ("POST /a HTTP/1.1", 0, 400));
        server.stop();
    }

    /// 504 and 408 are logged as such, when they are sent; a client that left before is nginx's 499.
    fn lines_of_those_who_waited(driver: Driver) {
        let folder = Folder::new();
        let flags = ["--request-timeout", "0.5", "--header-timeout", "0.5", "--body-timeout", "0.5", "--workers", "1"];
        let (server, path) = logging(driver, &folder, &flags);
        let line = logged(&server, &path, b"GET / HTTP/1.1\r\nHo");
        assert_eq!(line.status, 408);
        let line = logged(&server, &path, b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nab");
        assert_eq!((line.request.as_str(), line.status), ("POST / HTTP/1.1", 408));
        let gate = folder.gate("gate");
        let mut client = server.connect();
        client.send(format!("GET /stubborn?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        assert_eq!(client.response().status(), 504);
        gate.open();
        let line = wait_for(&path, 3).pop().expect("it was waited for");
        assert_eq!(line.status, 504, "{line:?}");
        assert!(line.request.starts_with("GET /stubborn?"), "{line:?}");
        let gate = folder.gate("other");
        let mut client = server.connect();
        client.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        client.reset();
        // Without a moment between them, the gate could be open before the reset is seen.
        pause(100);
        gate.open();
        assert_eq!(wait_for(&path, 4).pop().expect("it was waited for").status, 499);
        server.get("/");
        assert_eq!(wait_for(&path, 5).len(), 5, "one line each");
        server.stop();
    }

    /// Quotes, backslashes, control characters and bytes beyond ASCII can neither end a field nor forge a line.
    fn nothing_can_be_forged(driver: Driver) {
        let folder = Folder::new();
        let (server, path) = logging(driver, &folder, &[]);
        let table: [&[u8]; 6] = [
            b"\" 200 - \"forged\" \"forged\" 0ms 0ms 0",
            b"\\",
            b"\\\" forged",
            b"tab\there",
            b"high \x80\xff\xc3\xa9",
            b"\\x22 \\n",
        ];
        for value in table {
            let request = [b"GET / HTTP/1.1\r\nHost: test\r\nReferer: ", value, b"\r\nUser-Agent: ", value, b"\r\n\r\n"].concat();
            let line = logged(&server, &path, &request);
            assert_eq!(line.referer, line.user_agent);
            assert_ne!(line.referer, "-");
        }
        let distinct: std::collections::HashSet<String> = lines_of(&path).iter().map(|line| Line::parse(line).referer).collect();
        assert_eq!(distinct.len(), table.len(), "what differs is logged differently: {distinct:?}");
        server.stop();
    }

    /// All lines of many requests on many connections are there when the server has stopped.
    fn no_line_is_lost(driver: Driver) {
        let folder = Folder::new();
        let (server, path) = logging(driver, &folder, &[]);
        for _ in 0..10 {
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100));
            (0..100).for_each(|_| client.response().expect("Hello, world!\n"));
        }
        server.stop();
        assert_eq!(lines_of(&path).len(), 1000);
    }

    /// `-` is standard output, `off` is nothing at all; a file is appended to.
    fn where_the_log_goes(driver: Driver) {
        let server = driver.server().flags(&["--access-log", "-"]).start();
        server.get("/");
        let line = server.stdout.wait_for("\"GET / HTTP/1.1\"", crate::support::PATIENCE).expect("a line on standard output");
        assert_eq!(Line::parse(&line).status, 200);
        server.stop();
        let server = driver.server().flags(&["--access-log", "off"]).start();
        server.get("/");
        let stdout = std::sync::Arc::clone(&server.stdout);
        server.stop();
        assert_eq!(stdout.all(), [""; 0]);
        let folder = Folder::new();
        folder.file("access.log", b"what was there before\n");
        let (server, path) = logging(driver, &folder, &[]);
        server.get("/");
        server.stop();
        let lines = lines_of(&path);
        assert_eq!((lines.len(), lines[0].as_str()), (2, "what was there before"));
        assert_eq!(Line::parse(&lines[1]).status, 200);
    }

    /// X-Forwarded-For counts when it comes from a trusted proxy, which this machine is by default, and not otherwise.
    fn who_the_client_is(driver: Driver) {
        let request = b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.1, 198.51.100.7\r\n\r\n";
        let folder = Folder::new();
        let (server, path) = logging(driver, &folder, &[]);
        assert_eq!(logged(&server, &path, request).client, "198.51.100.7");
        let garbage = b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: \"forged\" 1:1\r\n\r\n";
        assert_eq!(logged(&server, &path, garbage).client, "127.0.0.1");
        server.stop();
        let folder = Folder::new();
        let (server, path) = logging(driver, &folder, &["--trusted-proxies", "none"]);
        assert_eq!(logged(&server, &path, request).client, "127.0.0.1");
        server.stop();
    }

    /// A pipe that nobody reads from is full soon: lines are dropped, requests aren't, and the server can be stopped.
    fn an_access_log_that_is_stuck(driver: Driver) {
        let folder = Folder::new();
        let (path, _held) = fifo(&folder, "access.fifo");
        let server = driver.server().flags(&["--access-log"]).flags(&[path]).start();
        let target = "x".repeat(4000);
        let batch = format!("GET /nowhere?{target} HTTP/1.1\r\nHost: test\r\n\r\n").repeat(10);
        let mut client = server.connect();
        // 8 MB of lines.
        for _ in 0..200 {
            client.send(&batch);
            (0..10).for_each(|_| assert_eq!(client.response().status(), 404));
        }
        server.stop();
    }

    /// Likewise for the error log, with a traceback for each request.
    fn an_error_log_that_is_stuck(driver: Driver) {
        let folder = Folder::new();
        let (path, _held) = fifo(&folder, "error.fifo");
        let socket = folder.path("socket");
        let unix = format!("unix:{}", socket.display());
        let start = crate::support::server::Start::bare(&["--reactor", driver.name(), "--access-log", "off"]);
        let server = start.flags(&["--http-socket", &unix, "--error-log"]).flags(&[path]).start_unannounced();
        eventually("the server listens", || std::os::unix::net::UnixStream::connect(&socket).ok().map(drop));
        let mut client = Client::connect_unix(&socket);
        for _ in 0..100 {
            client.send(format!("GET /raise?{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(2000)).repeat(10));
            (0..10).for_each(|_| assert_eq!(client.response().status(), 500));
        }
        client.get("/").expect("Hello, world!\n");
        server.stop();
    }
}
