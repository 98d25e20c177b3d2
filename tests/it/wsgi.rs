//! Promise: PEP 3333, as far as it shows on the wire. An application that breaks it hurts its own response and nothing else.

use std::path::Path;

use crate::support::client::{Broken, Ending};
use crate::support::{Client, Driver, Folder, Response, Server, Shared, chunked, pattern, shown};

const SECRET: &str = "secret of the application";

/// The answer to a GET request that keeps the connection, and that the connection is good for another.
fn get_kept(server: &Server, target: &str) -> Response {
    let mut client = server.connect();
    let response = client.get(target);
    client.get("/").expect("Hello, world!\n");
    response
}

/// The answer is a 500 in which nothing of the application shows.
fn check_500(server: &Server, target: &str) {
    let mut client = server.connect();
    let response = client.get(target);
    assert_eq!(response.status(), 500, "{target}: {}", response.head.masked());
    for leak in [SECRET, "Traceback", "wire.py", "X-Injected", "X-Old"] {
        let all = format!("{}{}", response.head.masked(), response.text());
        assert!(!all.contains(leak), "{target} lets {leak:?} out: {all}");
    }
    if !response.head.closes() {
        client.get("/").expect("Hello, world!\n");
    }
}

/// The answer begins and is cut so that the client can tell.
fn check_cut(server: &Server, target: &str) -> Box<Broken> {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    let broken = client.try_response("GET").expect_err(target);
    assert!(broken.head.is_some(), "{target}: {broken:?}");
    broken
}

fn environ_of(client: &mut Client, request: &str) -> Vec<String> {
    client.send(request);
    let response = client.response();
    assert_eq!(response.status(), 200, "{request}: {}", response.text());
    response.text().lines().map(str::to_owned).collect()
}

fn expect_lines(lines: &[String], expected: &[&str]) {
    for line in expected {
        assert!(lines.iter().any(|found| found == line), "{line} isn't in\n{}", lines.join("\n"));
    }
}

fn file_request(way: &str, path: &Path) -> String {
    format!("/file?{way},{}", path.display())
}

on_every_driver! {
    // --- environ (rows A) ---------------------------------------------------------------------------

    /// Every variable that doesn't depend on the request.
    fn environ_of_the_server(server: Shared) {
        let mut client = server.connect();
        let lines = environ_of(&mut client, "GET /environ HTTP/1.1\r\nHost: test\r\n\r\n");
        let port = format!("SERVER_PORT='{}'", server.address().port());
        expect_lines(&lines, &[
            "REQUEST_METHOD='GET'", "SCRIPT_NAME=''", "PATH_INFO='/environ'", "QUERY_STRING=''", "SERVER_PROTOCOL='HTTP/1.1'",
            "SERVER_NAME='127.0.0.1'", &port, "REMOTE_ADDR='127.0.0.1'", "REQUEST_URI='/environ'", "RAW_URI='/environ'",
            "HTTP_HOST='test'", "wsgi.version=(1, 0)", "wsgi.url_scheme='http'", "wsgi.multithread=True",
            "wsgi.multiprocess=False", "wsgi.run_once=False", "wsgi.input_terminated=True",
            "request_uri='http://test/environ'",
        ]);
        assert!(lines.iter().any(|line| line.starts_with("SERVER_SOFTWARE='hoopsnake")), "{lines:?}");
        let port = lines.iter().find_map(|line| line.strip_prefix("REMOTE_PORT='")).expect("there is a REMOTE_PORT");
        assert!(port.trim_end_matches('\'').parse::<u16>().is_ok_and(|port| port > 0), "{port}");
        let keys = lines.iter().find_map(|line| line.strip_prefix("keys=")).expect("the application lists them");
        for key in keys.split(' ').filter(|key| key.contains('.')) {
            let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
            assert!(key.bytes().all(good), "a server's own key: {key}");
        }
        for key in ["wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "hoopsnake.client_disconnected"] {
            assert!(keys.split(' ').any(|found| found == key), "{key} isn't in {keys}");
        }
        for key in ["CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"] {
            let line = lines.iter().find(|line| line.starts_with(&format!("{key}=")));
            assert!(line.is_none_or(|line| line == &format!("{key}=''")), "{line:?} without such a field");
        }
    }

    /// A table of request lines: PATH_INFO decoded once into bytes as latin-1, everything else as sent.
    fn environ_of_the_request_line(server: Shared) {
        let table = [
            ("/environ/caf%C3%A9", r"PATH_INFO='/environ/caf\xc3\xa9'", "QUERY_STRING=''"),
            ("/environ/%FF", r"PATH_INFO='/environ/\xff'", "QUERY_STRING=''"),
            ("/environ/a%2Fb%2f", "PATH_INFO='/environ/a/b/'", "QUERY_STRING=''"),
            ("/environ/%00", r"PATH_INFO='/environ/\x00'", "QUERY_STRING=''"),
            ("/environ/%zz%4%", "PATH_INFO='/environ/%zz%4%'", "QUERY_STRING=''"),
            ("/environ/%2541", "PATH_INFO='/environ/%41'", "QUERY_STRING=''"),
            ("/environ/a+b", "PATH_INFO='/environ/a+b'", "QUERY_STRING=''"),
            ("/environ//a/./b/../c;d=e", "PATH_INFO='/environ//a/./b/../c;d=e'", "QUERY_STRING=''"),
            ("/environ?", "PATH_INFO='/environ'", "QUERY_STRING=''"),
            ("/environ?a=%C3%A9&b=+&c=?d", "PATH_INFO='/environ'", "QUERY_STRING='a=%C3%A9&b=+&c=?d'"),
            ("/environ%3Fa=b", "PATH_INFO='/environ?a=b'", "QUERY_STRING=''"),
        ];
        let mut client = server.connect();
        for (target, path, query) in table {
            let lines = environ_of(&mut client, &format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            expect_lines(&lines, &[path, query, &format!("REQUEST_URI='{target}'"), &format!("RAW_URI='{target}'")]);
        }
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "get"] {
            let lines = environ_of(&mut client, &format!("{method} /environ HTTP/1.1\r\nHost: test\r\n\r\n"));
            expect_lines(&lines, &[&format!("REQUEST_METHOD='{method}'")]);
        }
    }

    /// A table of fields.
    fn environ_of_the_fields(server: Shared) {
        let table: [(&str, &[&str]); 10] = [
            ("Content-Type: text/plain;x", &["CONTENT_TYPE='text/plain;x'"]),
            ("Content-Length: 0", &["CONTENT_LENGTH='0'"]),
            ("X-Mixed-Case: a", &["HTTP_X_MIXED_CASE='a'"]),
            ("x-low:a", &["HTTP_X_LOW='a'"]),
            ("X-Empty:", &["HTTP_X_EMPTY=''"]),
            ("X-Space: \t a b \t", &["HTTP_X_SPACE='a b'"]),
            ("X-High: \u{80}\u{e9}\u{ff}", &[r"HTTP_X_HIGH='\x80\xe9\xff'"]),
            ("Cookie: a=b", &["HTTP_COOKIE='a=b'"]),
            ("Accept: a\r\nAccept: b", &["HTTP_ACCEPT='a,b'"]),
            ("X-Quote: '\"\\", &[r#"HTTP_X_QUOTE='\'"\\'"#]),
        ];
        let mut client = server.connect();
        for (fields, expected) in table {
            let request = format!("GET /environ HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n");
            client.send(request.chars().map(|char| char as u32 as u8).collect::<Vec<u8>>());
            let lines: Vec<String> = client.response().text().lines().map(|line| line.replace(", ", ",")).collect();
            expect_lines(&lines, expected);
        }
        // RFC 6265 §5.4 and HTTP/2 gateways: several Cookie lines are one list with semicolons, if they are joined at all.
        let lines = environ_of(&mut client, "GET /environ HTTP/1.1\r\nHost: test\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n");
        expect_lines(&lines, &["HTTP_COOKIE='a=b; c=d'"]);
        let underscore = "GET /environ HTTP/1.1\r\nHost: test\r\nX_Forged: a\r\nContent_Length: 7\r\n\r\n";
        let lines = environ_of(&mut client, underscore);
        assert!(!lines.iter().any(|line| line.contains("FORGED") || line.contains("CONTENT_LENGTH='7'")), "{lines:?}");
        // httpoxy: a Proxy field would become the HTTP_PROXY that client libraries believe.
        let lines = environ_of(&mut client, "GET /environ HTTP/1.0\r\n\r\n");
        expect_lines(&lines, &["SERVER_PROTOCOL='HTTP/1.0'", "SERVER_NAME='127.0.0.1'"]);
    }

    /// The environ is the application's to change, and gone afterwards.
    fn environ_doesn_t_leak(server: Shared) {
        let mut client = server.connect();
        for _ in 0..40 {
            client.get("/mutate").expect("mutated\n");
            let lines = environ_of(&mut client, "GET /environ HTTP/1.1\r\nHost: test\r\n\r\n");
            expect_lines(&lines, &["PATH_INFO='/environ'", "HTTP_HOST='test'", "wsgi.url_scheme='http'"]);
            assert!(!lines.iter().any(|line| line.contains("leak")), "{lines:?}");
            let lines = environ_of(&mut client, "GET /environ HTTP/1.1\r\nHost: other\r\nX-Once: 1\r\n\r\n");
            expect_lines(&lines, &["HTTP_HOST='other'", "HTTP_X_ONCE='1'"]);
            let lines = environ_of(&mut client, "GET /environ HTTP/1.1\r\nHost: test\r\n\r\n");
            assert!(!lines.iter().any(|line| line.contains("X_ONCE")), "{lines:?}");
        }
    }

    /// The application is called with two positional arguments, whatever it calls them.
    fn positional_arguments(server: Shared) {
        get_kept(&server, "/odd-names").expect("positional");
    }

    // --- wsgi.input and wsgi.errors (rows I) --------------------------------------------------------

    /// Every way of reading a small body, in every order that has an edge, in both framings.
    fn every_way_to_read(server: Shared) {
        let body = "one\ntwo\n\nfour";
        let table = [
            ("read,read,readline,readlines,next,read-4", [r"b'one\ntwo\n\nfour'", "b''", "b''", "[]", "None", "b''"].as_slice()),
            ("read-minus,read", &[r"b'one\ntwo\n\nfour'", "b''"]),
            ("read-none,read", &[r"b'one\ntwo\n\nfour'", "b''"]),
            ("read-0,read-4,read-0,read", &["b''", r"b'one\n'", "b''", r"b'two\n\nfour'"]),
            ("readline,readline,readline,readline,readline", &[r"b'one\n'", r"b'two\n'", r"b'\n'", "b'four'", "b''"]),
            ("readline-2,readline-2,readline-2", &["b'on'", r"b'e\n'", "b'tw'"]),
            ("readline-0,readline-none,readline-minus", &["b''", r"b'one\n'", r"b'two\n'"]),
            ("readlines,readlines", &[r"[b'one\n', b'two\n', b'\n', b'four']", "[]"]),
            ("readlines-1,readline", &[r"[b'one\n']", r"b'two\n'"]),
            ("iterate,iterate", &[r"[b'one\n', b'two\n', b'\n', b'four']", "[]"]),
            ("next,read-4,iterate", &[r"b'one\n'", r"b'two\n'", r"[b'\n', b'four']"]),
        ];
        let mut client = server.connect();
        for (ways, expected) in table {
            let answer: String =
                ways.split(',').zip(expected).map(|(way, value)| format!("{way}: {value}\n")).collect();
            for (field, sent) in [
                (format!("Content-Length: {}", body.len()), body.as_bytes().to_vec()),
                ("Transfer-Encoding: chunked".to_owned(), chunked(body.as_bytes(), 3)),
            ] {
                client.send(format!("POST /input?{ways} HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n"));
                client.send(sent);
                let text = client.response().text();
                // PEP 3333 lets readlines ignore its hint.
                let whole = answer.replace(r"readlines-1: [b'one\n']", r"readlines-1: [b'one\n', b'two\n', b'\n', b'four']");
                let whole = whole.replace(r"readline: b'two\n'", "readline: b''");
                assert!(text == answer || (ways.contains("readlines-1") && text == whole), "{ways}: {text}");
            }
        }
    }

    /// Without a body every way gives nothing, at once, as often as asked; a pipelined request behind it is untouched.
    fn reading_nothing(server: Shared) {
        let ways = "read,read-4,readline,readlines,iterate,next,read-none,read-minus";
        let expected = "read: b''\nread-4: b''\nreadline: b''\nreadlines: []\niterate: []\nnext: None\nread-none: b''\nread-minus: b''\n";
        let mut client = server.connect();
        client.send(format!(
            "GET /input?{ways} HTTP/1.1\r\nHost: test\r\n\r\n\
            POST /input?{ways} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
            GET / HTTP/1.1\r\nHost: test\r\n\r\n"
        ));
        client.response().expect(expected);
        client.response().expect(expected);
        client.response().expect("Hello, world!\n");
    }

    /// A spooled body reads like one in memory.
    fn every_way_to_read_a_spooled_body(server: Shared) {
        let body: Vec<u8> = (0..2_000_000u32).map(|at| at as u8).collect();
        let table = [
            ("read,read,readline", "read: 2000000 in order\nread: b''\nreadline: b''\n"),
            ("read-minus", "read-minus: 2000000 in order\n"),
            ("read-4,read-0,readline-2,readline-0", "read-4: b'\\x00\\x01\\x02\\x03'\nread-0: b''\nreadline-2: b'\\x04\\x05'\nreadline-0: b''\n"),
            ("readline,read-4", "readline: b'\\x00\\x01\\x02\\x03\\x04\\x05\\x06\\x07\\x08\\t\\n'\nread-4: b'\\x0b\\x0c\\r\\x0e'\n"),
        ];
        let mut client = server.connect();
        for (ways, expected) in table {
            client.send(format!("POST /input?{ways} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
            client.send(&body);
            client.response().expect(expected);
        }
    }

    /// What the application writes there stands on the error log, and no character makes it fail.
    fn errors_are_logged(driver: Driver) {
        for locale in ["C", "C.UTF-8"] {
            let server = driver.server().environment("LC_ALL", locale).environment("PYTHONCOERCECLOCALE", "0");
            let server = server.environment("PYTHONUTF8", "0").start();
            get_kept(&server, "/errors").expect("written\n");
            let found = server.stderr.wait_for("plain words", crate::support::PATIENCE);
            assert!(found.is_some(), "wsgi.errors isn't on standard error");
            server.stop();
        }
    }

    // --- start_response and the body (rows S and B) -------------------------------------------------

    /// write() comes before what is iterated.
    fn write_then_iterate(server: Shared) {
        get_kept(&server, "/write").expect("one, two, three");
        get_kept(&server, "/list-and-write").expect("written listed");
    }

    /// What was written has left before write() returns, or is about to.
    fn written_at_once(server: Shared) {
        let folder = Folder::new();
        let gate = folder.gate("gate");
        let mut client = server.connect();
        client.send(format!("GET /write-gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        assert_eq!(client.head().status, 200);
        assert_eq!(client.chunk().as_deref(), Some(b"first".as_slice()));
        gate.wait_for_arrival();
        client.expect_quiet();
        gate.open();
        assert_eq!(client.chunk().as_deref(), Some(b"second".as_slice()));
        assert_eq!(client.chunk(), None);
        client.get("/").expect("Hello, world!\n");
    }

    /// An item is on its way before the next one is asked for.
    fn flushed_item_by_item(server: Shared) {
        let folder = Folder::new();
        for request in ["HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP/1.0\r\n\r\n"] {
            let gate = folder.gate(if request.contains("1.0") { "old" } else { "new" });
            let mut client = server.connect();
            client.send(format!("GET /stream?{} {request}", gate.path()));
            let head = client.head();
            assert_eq!(head.status, 200);
            if request.contains("1.0") {
                assert!(head.closes(), "{}", head.masked());
                client.expect_bytes(b"first");
            } else {
                assert_eq!(client.chunk().as_deref(), Some(b"first".as_slice()));
            }
            gate.wait_for_arrival();
            client.expect_quiet();
            gate.open();
            if request.contains("1.0") {
                assert_eq!(client.rest(), b"second");
            } else {
                assert_eq!(client.chunk().as_deref(), Some(b"second".as_slice()));
                assert_eq!(client.chunk(), None);
            }
        }
    }

    /// start_response may first be called when the first item is asked for.
    fn started_late(server: Shared) {
        get_kept(&server, "/lazy").expect("started late");
    }

    /// A list's length is worked out; where no length can be known the body is chunked, and an empty item isn't its end.
    fn lengths(server: Shared) {
        let table = [
            ("/list", "abc", Ending::Length),
            ("/list-of-one", "abc", Ending::Length),
            ("/tuple", "abc", Ending::Length),
            ("/empty-list", "", Ending::Length),
            ("/generator", "abc", Ending::LastChunk),
            ("/generator-with-length", "abc", Ending::Length),
        ];
        for (target, body, ending) in table {
            let response = get_kept(&server, target);
            response.expect(body);
            assert_eq!(response.ending, ending, "{target}");
            let mut client = server.connect();
            client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
            let response = client.response();
            response.expect(body);
            assert_ne!(response.ending, Ending::LastChunk, "HTTP/1.0 knows no chunks: {target}");
            client.expect_closed();
            let mut client = server.connect();
            client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n"));
            assert_eq!(client.response_to("HEAD").status(), 200);
            client.response().expect("Hello, world!\n");
        }
        get_kept(&server, "/empty-generator").expect("");
        get_kept(&server, "/all-bytes").expect((0..=255).collect::<Vec<u8>>());
    }

    /// A length that can't be had isn't needed; nothing else of an iterable is touched.
    fn nothing_but_iteration(server: Shared) {
        let response = server.connect().get("/length-raises");
        assert!(response.status() == 500 || response.text() == "abc", "{}", response.text());
        let folder = Folder::new();
        let log = folder.log("log");
        get_kept(&server, &format!("/nosy?{}", log.path())).expect("watched");
        assert_eq!(log.wait_for(1), ["nothing else"]);
    }

    /// RFC 9110 §6.4.1: 204, 304 and answers to HEAD have no body and no chunk framing, whatever the application returns.
    fn without_a_body(server: Shared) {
        for target in ["/204", "/204-with-body", "/304", "/304-with-body"] {
            let response = get_kept(&server, target);
            assert_eq!(response.status().to_string(), target[1..4]);
            assert!(!response.head.has("transfer-encoding"), "{}", response.head.masked());
            if target.starts_with("/204") {
                assert!(!response.head.has("content-length"), "RFC 9110 §8.6: {}", response.head.masked());
            }
        }
        let mut client = server.connect();
        for target in ["/", "/generator", "/write", "/204-with-body", "/raise", "/large?1000000", "/chunks?10,100000"] {
            client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let head = client.response_to("HEAD").head;
            assert_eq!(head.status, match target { "/raise" => 500, "/204-with-body" => 204, _ => 200 });
        }
        client.get("/").expect("Hello, world!\n");
    }

    /// RFC 9110 §8.6, PEP 3333: never more than was announced, and no more asked for than that.
    fn more_than_announced(server: Shared) {
        let folder = Folder::new();
        let log = folder.log("log");
        get_kept(&server, &format!("/too-long?{}", log.path())).expect("12312");
        let pulled = log.lines().len();
        assert!((2..=3).contains(&pulled), "{pulled} items were asked for where two are enough");
        get_kept(&server, "/too-long-list").expect("12345");
        let log = folder.log("write");
        let mut client = server.connect();
        client.send(format!("GET /write-too-long?{} HTTP/1.1\r\nHost: test\r\n\r\n", log.path()));
        match client.try_response("GET") {
            Ok(response) => assert!(response.status() == 500 || response.body.len() == 3, "{response:?}"),
            Err(broken) => assert!(broken.body.len() <= 3, "{broken:?}"),
        }
        assert_eq!(log.wait_for(1), ["raised"]);
        server.get("/");
    }

    /// Too little can't be made up: the connection ends, and the error log says why.
    fn less_than_announced(driver: Driver) {
        let server = driver.server().start();
        for target in ["/too-short", "/too-short-generator"] {
            let before = server.stderr.all().len();
            let mut client = server.connect();
            let response = {
                client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
                client.try_response("GET")
            };
            match response {
                // Found out before anything was sent.
                Ok(response) => assert_eq!(response.status(), 500, "{response:?}"),
                Err(broken) => assert_eq!(shown(&broken.body), "\"12345\"", "{broken:?}"),
            }
            crate::support::eventually("a line in the error log", || (server.stderr.all().len() > before).then_some(()));
        }
        server.get("/");
        server.stop();
    }

    /// Fields and status that could split a response, or mean nothing: refused where the application says them, and a 500.
    fn bad_start_response(driver: Driver) {
        let server = driver.server().start();
        let folder = Folder::new();
        let log = folder.log("log");
        let names = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/apps/wire.py"))
            .expect("it is there");
        let table = names.split("BAD_STARTS = {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the table is there");
        let names: Vec<&str> = table.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()).collect();
        assert!(names.len() > 40, "{names:?}");
        for name in &names {
            check_500(&server, &format!("/bad-start?{name},{}", log.path()));
        }
        let accepted: Vec<String> = log.lines().into_iter().filter(|line| line.contains("accepted")).collect();
        assert_eq!(accepted, [""; 0], "start_response must raise at the call");
        server.stop();
    }

    /// start_response not called, called twice, called wrongly.
    fn start_response_misused(server: Shared) {
        for target in [
            "/start-never", "/start-never-empty", "/start-twice", "/start-with-bad-exc-info", "/start-with-too-few",
            "/start-with-too-many",
        ] {
            check_500(&server, target);
        }
        let folder = Folder::new();
        let log = folder.log("log");
        server.connect().get(&format!("/start-twice-caught?{}", log.path()));
        assert_eq!(log.wait_for(1), ["raised"]);
    }

    /// exc_info replaces a response that hasn't begun, fields and all; later it is raised, the very same.
    fn exc_info(server: Shared) {
        let response = get_kept(&server, "/exc-info-before");
        assert_eq!((response.status(), response.head.reason.as_str()), (503, "Replaced"));
        assert_eq!((response.field("x-new"), response.field("x-old"), response.text().as_str()), ("new", "", "replaced"));
        let folder = Folder::new();
        let log = folder.log("log");
        let broken = check_cut(&server, &format!("/exc-info-after?{}", log.path()));
        assert_eq!((broken.head.expect("it began").status, broken.body.as_slice()), (200, b"some output".as_slice()));
        assert_eq!(log.wait_for(1), ["same True"]);
    }

    /// Nothing keeps an exception, and what it holds, alive after the request.
    fn exc_info_is_forgotten(driver: Driver) {
        let server = driver.server().flags(&["--workers", "1"]).start();
        let mut client = server.connect();
        assert_eq!(client.get("/exc-info-tracked").text(), "tracked");
        client.get("/exc-info-forgotten").expect("True\n");
        server.stop();
    }

    /// Bodies of the wrong type: a 500 while there is time, a cut afterwards.
    fn bodies_of_the_wrong_type(server: Shared) {
        for target in ["/yield-str", "/yield-int", "/list-of-str", "/write-str", "/return-none", "/return-int", "/return-str"] {
            check_500(&server, target);
        }
        assert_eq!(check_cut(&server, "/yield-str-later").body, b"bytes first");
    }

    /// An exception before output is a 500 whose reader learns nothing; the operator gets the traceback.
    fn exceptions_before_output(driver: Driver) {
        let server = driver.server().start();
        for target in ["/raise?1", "/raise-after-start", "/raise-in-first", "/raise-after-empty"] {
            check_500(&server, target);
        }
        let patience = crate::support::PATIENCE;
        assert!(server.stderr.wait_for("secret of the application 1", patience).is_some(), "no traceback");
        let stderr = server.stderr.text();
        assert!(stderr.contains("Traceback (most recent call last)") && stderr.contains("wire.py"), "{stderr}");
        server.stop();
    }

    /// An exception after output cuts the connection: no last chunk, no full length, so that nobody takes it for whole.
    fn exceptions_after_output(server: Shared) {
        for target in ["/raise-after-output", "/raise-after-output-with-length"] {
            let broken = check_cut(&server, target);
            assert_eq!(broken.body, b"some output", "{target}");
        }
        // HTTP/1.0 has nothing but the connection's end to tell: it must not be an orderly one.
        let mut client = server.connect();
        client.send("GET /raise-after-output HTTP/1.0\r\n\r\n");
        let broken = client.try_response("GET").expect_err("an HTTP/1.0 response that is cut short ends with a reset");
        assert!(broken.fault.contains("reset"), "{broken:?}");
    }

    /// Whatever is raised, it is a 500, and every worker lives on.
    fn exceptions_of_every_kind(driver: Driver) {
        let server = driver.server().flags(&["--workers", "2"]).start();
        for kind in [
            "SystemExit", "KeyboardInterrupt", "GeneratorExit", "StopIteration", "BaseException", "MemoryError",
            "RecursionError", "Unspeakable",
        ] {
            for _ in 0..3 {
                check_500(&server, &format!("/raise-base?{kind}"));
                if kind != "StopIteration" {
                    check_500(&server, &format!("/raise-base-in-body?{kind}"));
                }
            }
            assert_eq!(server.get("/workers"), "2 True\n", "after {kind}");
        }
        let mut client = server.connect();
        client.get("/raise-in-close").expect("closed badly");
        client.get("/").expect("Hello, world!\n");
        server.stop();
    }

    /// close() is called exactly once in all eight cases.
    fn closed_exactly_once(server: Shared) {
        let folder = Folder::new();
        for case in ["normal", "raise-first", "raise-later", "length-reached", "not-modified", "head", "never-started", "client-gone"] {
            let log = folder.log(case);
            let mut client = server.connect();
            let method = if case == "head" { "HEAD" } else { "GET" };
            client.send(format!("{method} /close?{case},{} HTTP/1.1\r\nHost: test\r\n\r\n", log.path()));
            if case == "client-gone" {
                client.head();
                client.reset();
            } else {
                let _ = client.try_response(method);
            }
            log.wait_for(1);
            server.get("/");
            assert_eq!(log.lines(), ["closed"], "{case}");
        }
    }

    // --- wsgi.file_wrapper (rows F) -----------------------------------------------------------------

    /// A file goes out from where it stands to its end or to the length announced; whatever isn't a plain file is read.
    fn file_wrapper(server: Shared) {
        let folder = Folder::new();
        let content = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let path = folder.file("file", content);
        let table: [(&str, &[u8]); 15] = [
            ("plain", content),
            ("offset", &content[5..]),
            ("beyond", b""),
            ("length-36", content),
            ("length-10", &content[..10]),
            ("length-0", b""),
            ("bytesio", content),
            ("bytesio-offset", &content[5..]),
            ("read-only", content),
            ("buffered", &content[1..]),
            ("unbuffered", &content[1..]),
            ("read-write", &content[2..]),
            ("wrapped", b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
            ("iterated", content),
            ("written", b"written, 0123456789abcdefghijklmnopqrstuvwxyz"),
        ];
        for (way, expected) in table {
            get_kept(&server, &file_request(way, &path)).expect(expected);
            let mut client = server.connect();
            client.send(format!("GET {} HTTP/1.0\r\n\r\n", file_request(way, &path)));
            client.response().expect(expected);
            client.expect_closed();
            let mut client = server.connect();
            client.send(format!("HEAD {} HTTP/1.1\r\nHost: test\r\n\r\n", file_request(way, &path)));
            assert_eq!(client.response_to("HEAD").status(), 200, "{way}");
            client.get("/").expect("Hello, world!\n");
        }
        get_kept(&server, &file_request("pipe", &path)).expect("through a pipe");
        get_kept(&server, &file_request("discarded", &path)).expect("something else");
        let response = get_kept(&server, &file_request("not-modified", &path));
        assert_eq!((response.status(), response.body.len()), (304, 0));
        let plain = get_kept(&server, &file_request("plain", &path));
        assert_eq!(plain.field("content-length"), "36", "the length of a plain file is known");
    }

    /// fileno() isn't enough: the descriptor under a gzip file holds other bytes.
    fn file_wrapper_around_gzip(server: Shared) {
        let folder = Folder::new();
        // `hello`, compressed; the header's time is 0.
        let gzip = [
            0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0x86, 0xa6, 0x10, 0x36, 5, 0, 0, 0,
        ];
        let path = folder.file("hello.gz", &gzip);
        get_kept(&server, &file_request("gzip", &path)).expect("hello");
    }

    /// Larger than any buffer, and gone from its folder meanwhile.
    fn file_wrapper_around_large_files(server: Shared) {
        let folder = Folder::new();
        let (path, content) = folder.large_file("large", 5_000_011);
        let mut client = server.connect();
        for way in ["plain", "bytesio", "length-5000000", "buffered"] {
            let response = client.get(&file_request(way, &path));
            let expected = match way {
                "length-5000000" => &content[..5_000_000],
                "buffered" => &content[1..],
                _ => &content[..],
            };
            response.expect(expected);
        }
        client.get(&file_request("unlinked", &path)).expect(&content);
        client.get("/").expect("Hello, world!\n");
    }

    /// A file that is shorter than it was said to be can't be made up: the connection is cut.
    fn file_wrapper_around_a_truncated_file(server: Shared) {
        let folder = Folder::new();
        for length in [100, 1_000_000] {
            let path = folder.file("truncated", &pattern(length));
            let mut client = server.connect();
            client.send(format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", file_request("truncated", &path)));
            match client.try_response("GET") {
                Ok(response) => assert_eq!(response.status(), 500, "{response:?}"),
                Err(broken) => assert!(broken.body.len() <= 10, "{broken:?}"),
            }
        }
        let path = folder.file("length", &pattern(100));
        let mut client = server.connect();
        client.send(format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", file_request("length-200", &path)));
        match client.try_response("GET") {
            Ok(response) => assert_eq!(response.status(), 500, "{response:?}"),
            Err(broken) => assert!(broken.body.len() <= 100, "{broken:?}"),
        }
    }

    /// What can't be read is the application's fault.
    fn file_wrapper_around_what_isn_t_readable(server: Shared) {
        let folder = Folder::new();
        let path = folder.file("file", b"text");
        check_500(&server, &file_request("closed", &path));
        check_500(&server, &file_request("text", &path));
    }

    /// The file is closed, once, and no descriptor stays.
    fn file_wrapper_closes(driver: Driver) {
        let server = driver.server().start();
        let folder = Folder::new();
        let (path, content) = folder.large_file("file", 300_000);
        server.get("/");
        let before = server.descriptors();
        for method in ["GET", "HEAD"] {
            let mut client = server.connect();
            client.send(format!("{method} {} HTTP/1.1\r\nHost: test\r\n\r\n", file_request("closing", &path)));
            let response = client.response_to(method);
            assert!(method == "HEAD" || response.body == content);
        }
        let log = folder.log("file.log");
        log.wait_for(2);
        for _ in 0..5 {
            let mut client = server.connect();
            client.send(format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", file_request("plain", &path)));
            client.head();
            client.reset();
        }
        server.expect_descriptors(before, "files and connections are closed");
        assert_eq!(log.lines(), ["closed", "closed"]);
        server.stop();
    }
}
