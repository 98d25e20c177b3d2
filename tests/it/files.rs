//! Promise: files are answered without Python, byte for byte; what isn't theirs goes to the application; no reader, no disk and no
//! change of a file holds anybody else up.

#![allow(clippy::unwrap_used, reason = "a test whose folder isn't writable has failed")]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use crate::support::{Client, Driver, Folder, PATIENCE, Response, Server, eventually, pattern};

const LARGE_BYTES: usize = 3_000_000;
/// More than a socket's buffers hold on both sides.
const HUGE_BYTES: u64 = 100 * 1000 * 1000;
const READERS: usize = 200;

/// A folder called `site` in a folder, with files of several sizes.
fn site(folder: &Folder) {
    fs::create_dir(folder.path("site")).unwrap();
    folder.file("site/small.txt", b"small\n");
    folder.file("site/empty.css", b"");
    folder.large_file("site/medium.bin", 40_000);
    folder.large_file("site/large.bin", LARGE_BYTES);
    folder.file("secret.txt", b"SECRET");
}

/// A server with that folder under `/s`.
fn start(driver: Driver, folder: &Folder) -> crate::support::server::Start {
    // One reactor: what it has seen is what the next connection sees.
    driver.server().flags(&["--reactors", "1", "--static-map", &format!("/s={}", folder.path("site").display())])
}

fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}

fn ask(client: &mut Client, method: &str, target: &str, fields: &str) -> Response {
    client.send(request(method, target, fields));
    client.response_to(method)
}

/// The application's own answer for what it doesn't know.
fn is_the_applications(response: &Response) -> bool {
    response.status() == 404 && response.text() == "nothing here\n"
}

fn threads(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/task", server.pid())).expect("the server runs").count()
}

/// Asks on connections of its own until the answer is as it should be.
fn eventually_answered(server: &Server, target: &str, what: &str, is_right: impl Fn(&Response) -> bool) {
    eventually(what, || is_right(&server.connect().get(target)).then_some(()));
}

on_every_driver! {
    /// With the only worker busy: what is sent here needs none.
    fn files_of_all_sizes_without_a_worker(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        let server = start(driver, &folder).flags(&["--workers", "1"]).start();
        let gate = folder.gate("gate");
        let mut busy = server.connect();
        busy.send(request("GET", &format!("/gate?{}", gate.path()), ""));
        gate.wait_for_arrival();
        let mut client = server.connect();
        for _ in 0..2 {
            client.get("/s/small.txt").expect("small\n");
            client.get("/s/empty.css").expect("");
            client.get("/s/medium.bin").expect(pattern(40_000));
            client.get("/s/large.bin").expect(pattern(LARGE_BYTES));
        }
        let head = ask(&mut client, "HEAD", "/s/large.bin", "");
        assert_eq!((head.status(), head.field("content-length")), (200, "3000000"));
        let part = ask(&mut client, "GET", "/s/large.bin", "Range: bytes=1000000-1999999\r\n");
        assert_eq!((part.status(), part.field("content-range")), (206, "bytes 1000000-1999999/3000000"));
        assert!(part.body == pattern(LARGE_BYTES)[1_000_000..2_000_000]);
        let parts = ask(&mut client, "GET", "/s/large.bin", "Range: bytes=0-99999, 2000000-2099999\r\n");
        assert_eq!(parts.status(), 206);
        let content = pattern(LARGE_BYTES);
        let (one, two) = (&content[..100_000], &content[2_000_000..2_100_000]);
        assert!(parts.body.windows(one.len()).any(|window| window == one), "the first part");
        assert!(parts.body.windows(two.len()).any(|window| window == two), "the second part");
        let tag = head.field("etag").to_owned();
        assert_eq!(ask(&mut client, "GET", "/s/large.bin", &format!("If-None-Match: {tag}\r\n")).status(), 304);
        assert_eq!(ask(&mut client, "GET", "/s/large.bin", &format!("If-Match: {tag}x\r\n")).status(), 412);
        assert_eq!(ask(&mut client, "GET", "/s/large.bin", "Range: bytes=3000000-\r\n").status(), 416);
        // Pipelined, answered in order.
        let both = request("GET", "/s/large.bin", "") + &request("GET", "/s/small.txt", "");
        client.send(both);
        client.response().expect(pattern(LARGE_BYTES));
        client.response().expect("small\n");
        client.expect_quiet();
        gate.open();
        assert_eq!(busy.response().status(), 200);
    }

    /// What isn't GET or HEAD, has a body, or finds no file.
    fn everything_else_goes_to_the_application(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        let server = start(driver, &folder).start();
        let mut client = server.connect();
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"] {
            assert!(is_the_applications(&ask(&mut client, method, "/s/small.txt", "Content-Length: 0\r\n")), "{method}");
        }
        client.send(request("GET", "/s/small.txt", "Content-Length: 4\r\n") + "body");
        assert!(is_the_applications(&client.response()));
        for target in ["/s/none.txt", "/s/", "/s", "/s/small.txt/", "/small.txt", "/sx/small.txt", "/s/small.txt%00"] {
            assert!(is_the_applications(&client.get(target)), "{target}");
        }
        for target in ["/s/../secret.txt", "/s/%2e%2e/secret.txt", "/s/..%2fsecret.txt", "/s../secret.txt", "/s/./small.txt"] {
            assert!(is_the_applications(&client.get(target)), "{target}");
        }
        client.get("/s//small.txt?query").expect("small\n");
        client.get("/").expect("Hello, world!\n");
    }

    /// What is on the disk only comes from the disk.
    fn cold_files(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        for name in ["site/small.txt", "site/medium.bin", "site/large.bin"] {
            let file = File::open(folder.path(name)).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        let server = start(driver, &folder).start();
        let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(request("GET", "/s/large.bin", "") + &request("GET", "/s/medium.bin", ""));
        }
        for client in &mut clients {
            client.response().expect(pattern(LARGE_BYTES));
            client.response().expect(pattern(40_000));
        }
    }

    /// Those who read a large file that is replaced or deleted get all of what they began to read.
    fn replaced_and_deleted_while_served(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        let server = start(driver, &folder).start();
        let mut slow: Vec<Client> = (0..2).map(|_| Client::connect_narrow(server.address(), 4096)).collect();
        for client in &mut slow {
            client.send(request("GET", "/s/large.bin", ""));
        }
        let heads: Vec<_> = slow.iter_mut().map(Client::head).collect();
        assert!(heads.iter().all(|head| head.status == 200));
        fs::rename(folder.file("new", b"replaced"), folder.path("site/large.bin")).unwrap();
        eventually_answered(&server, "/s/large.bin", "the new file is served", |response| response.text() == "replaced");
        fs::remove_file(folder.path("site/large.bin")).unwrap();
        eventually_answered(&server, "/s/large.bin", "the file is gone", is_the_applications);
        for client in &mut slow {
            client.expect_bytes(&pattern(LARGE_BYTES));
        }
    }

    /// A file changed in its place is another file, with another tag, after a moment; a sibling that appears is found.
    fn changed_in_place(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        let server = start(driver, &folder).start();
        let mut client = server.connect();
        let before = client.get("/s/small.txt");
        before.expect("small\n");
        folder.file("site/small.txt", b"other\n");
        eventually_answered(&server, "/s/small.txt", "the new content", |response| response.text() == "other\n");
        let after = server.connect().get("/s/small.txt");
        assert_ne!(before.field("etag"), after.field("etag"));
        folder.file("site/small.txt.gz", b"not really gzip");
        eventually("the sibling is found", || {
            let response = ask(&mut server.connect(), "GET", "/s/small.txt", "Accept-Encoding: gzip\r\n");
            (response.field("content-encoding") == "gzip").then_some(())
        });
        // One that was looked for in vain is found once it is there.
        assert!(is_the_applications(&client.get("/s/later.txt")));
        folder.file("site/later.txt", b"later");
        client.get("/s/later.txt").expect("later");
    }

    /// The one that reads it is cut off, so that it can tell; nobody else is.
    fn truncated_while_served(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        File::create(folder.path("site/huge.bin")).unwrap().set_len(HUGE_BYTES).unwrap();
        let server = start(driver, &folder).start();
        let mut slow = Client::connect_narrow(server.address(), 4096);
        slow.send(request("GET", "/s/huge.bin", ""));
        assert_eq!(slow.head().status, 200);
        let mut other = Client::connect_narrow(server.address(), 4096);
        other.send(request("GET", "/s/large.bin", ""));
        assert_eq!(other.head().status, 200);
        File::options().write(true).open(folder.path("site/huge.bin")).unwrap().set_len(1000).unwrap();
        assert!((slow.rest().len() as u64) < HUGE_BYTES);
        other.expect_bytes(&pattern(LARGE_BYTES));
        server.connect().get("/s/small.txt").expect("small\n");
    }

    /// A file that grows while it is read is sent as long as it was.
    fn grown_while_served(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        let server = start(driver, &folder).start();
        let mut slow = Client::connect_narrow(server.address(), 4096);
        slow.send(request("GET", "/s/large.bin", "") + &request("GET", "/s/small.txt", ""));
        assert_eq!(slow.head().status, 200);
        let mut file = File::options().write(true).open(folder.path("site/large.bin")).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(&[0; 5000]).unwrap();
        slow.expect_bytes(&pattern(LARGE_BYTES));
        slow.response().expect("small\n");
    }

    /// Readers that stop inside a large file hold no thread, and nobody up.
    fn stalled_readers(driver: Driver) {
        crate::support::raise_descriptor_limit();
        let folder = Folder::new();
        site(&folder);
        File::create(folder.path("site/huge.bin")).unwrap().set_len(HUGE_BYTES).unwrap();
        let server = start(driver, &folder).flags(&["--workers", "2"]).start();
        server.connect().get("/s/small.txt").expect("small\n");
        let (threads_before, descriptors_before) = (threads(&server), server.descriptors());
        let mut stalled = Vec::new();
        for _ in 0..READERS {
            let mut client = Client::connect_narrow(server.address(), 4096);
            client.send(request("GET", "/s/huge.bin", ""));
            assert_eq!(client.head().status, 200);
            stalled.push(client);
        }
        assert_eq!(threads(&server), threads_before, "no thread for any of them");
        // A connection each, and the file.
        assert!(server.descriptors() <= descriptors_before + READERS + 8, "{}", server.descriptors());
        let mut client = server.connect();
        for _ in 0..100 {
            client.get("/s/small.txt").expect("small\n");
            client.get("/").expect("Hello, world!\n");
        }
        client.get("/s/large.bin").expect(pattern(LARGE_BYTES));
        let memory = server.memory();
        assert!(memory < 100 << 20, "{memory} bytes for readers that stand still");
        drop(stalled);
        client.get("/s/small.txt").expect("small\n");
    }

    /// The application says which file; fields, ranges and preconditions are as they should be; nothing else is given out.
    fn x_sendfile(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        let root = folder.path("site");
        let server = driver.server().flags(&["--sendfile-root", root.to_str().unwrap()]).start();
        let mut client = server.connect();
        let whole = client.get(&format!("/x-sendfile?{}/large.bin", root.display()));
        whole.expect(pattern(LARGE_BYTES));
        for (name, value) in [("content-type", "x/y"), ("set-cookie", "a=b"), ("x-sendfile", ""), ("cache-control", "")] {
            assert_eq!(whole.field(name), value, "{name}");
        }
        client.get("/x-sendfile?small.txt").expect("small\n");
        let part = ask(&mut client, "GET", "/x-sendfile?small.txt", "Range: bytes=1-2\r\n");
        assert_eq!((part.status(), part.text(), part.field("set-cookie")), (206, "ma".to_owned(), "a=b"));
        let tag = format!("If-None-Match: {}\r\n", part.field("etag"));
        assert_eq!(ask(&mut client, "GET", "/x-sendfile?small.txt", &tag).status(), 304);
        let head = ask(&mut client, "HEAD", "/x-sendfile?small.txt", "");
        assert_eq!((head.status(), head.field("content-length")), (200, "6"));
        let secret = folder.path("secret.txt");
        for name in [secret.to_str().unwrap(), "../secret.txt", "none", "", ".", "/etc/passwd", "/proc/self/environ"] {
            let response = client.get(&format!("/x-sendfile?{name}"));
            assert_eq!((response.status(), response.text()), (404, "404 Not Found\n".to_owned()), "{name}");
        }
        assert!(server.stderr.wait_for("named '/etc/passwd' in X-Sendfile", PATIENCE).is_some());
        assert_eq!(client.get("/x-accel-redirect?/s/small.txt").field("x-accel-redirect"), "/s/small.txt");
        client.get("/").expect("Hello, world!\n");
    }

    /// The same through the static maps; without a root X-Sendfile is somebody else's.
    fn x_accel_redirect(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        let server = start(driver, &folder).start();
        let mut client = server.connect();
        for target in ["/s/large.bin", "/s/large%2ebin?x=y"] {
            let whole = client.get(&format!("/x-accel-redirect?{target}"));
            whole.expect(pattern(LARGE_BYTES));
            assert_eq!((whole.field("content-type"), whole.field("set-cookie")), ("x/y", "a=b"));
            assert_eq!((whole.field("cache-control"), whole.head.has("x-accel-redirect")), ("", false));
        }
        let part = ask(&mut client, "GET", "/x-accel-redirect?/s/large.bin", "Range: bytes=-2\r\n");
        assert_eq!((part.status(), part.body), (206, pattern(LARGE_BYTES)[LARGE_BYTES - 2..].to_vec()));
        for target in ["/s/none", "/", "/s/../secret.txt", "s/small.txt", ""] {
            assert_eq!(client.get(&format!("/x-accel-redirect?{target}")).status(), 404, "{target}");
        }
        let passed = client.get("/x-sendfile?/s/small.txt");
        assert_eq!((passed.text().as_str(), passed.field("x-sendfile")), ("body", "/s/small.txt"));
    }

    fn the_log_says_that_no_worker_did_it(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        let server = start(driver, &folder).flags(&["--access-log", "-", "--sendfile-root", "/"]).start();
        let mut client = server.connect();
        client.get("/s/small.txt");
        ask(&mut client, "GET", "/s/small.txt", "If-None-Match: *\r\n");
        client.get(&format!("/x-sendfile?{}", folder.path("secret.txt").display()));
        client.get("/s/none");
        eventually("four lines", || (server.stdout.all().len() == 4).then_some(()));
        let lines = server.stdout.all();
        for (line, worker, status) in [(0, "1:0 ", "\" 200 "), (1, "1:0 ", "\" 304 "), (2, "1:", "\" 200 "), (3, "1:", "\" 404 ")] {
            assert!(lines[line].contains(worker) && lines[line].contains(status), "{lines:?}");
            assert_eq!(lines[line].contains("1:0 "), line < 2, "{lines:?}");
        }
    }

    /// Each flag does what it says.
    fn flags(driver: Driver) {
        let folder = Folder::new();
        site(&folder);
        fs::create_dir(folder.path("site/deep folder")).unwrap();
        folder.file("site/deep folder/start.htm", b"start");
        folder.file("site/.env", b"dotted");
        let one = folder.path("site/small.txt");
        let server = start(driver, &folder)
            .flags(&["--static-map", &format!("/one={}", one.display()), "--static-max-age", "60"])
            .flags(&["--static-index", "start.htm", "--static-header", "X-A: b", "--static-dotfiles"])
            .start();
        let mut client = server.connect();
        let file = client.get("/one");
        file.expect("small\n");
        assert_eq!((file.field("cache-control"), file.field("x-a")), ("public, max-age=60", "b"));
        assert!(file.field("expires").ends_with(" GMT"), "{}", file.field("expires"));
        client.get("/s/.env").expect("dotted");
        client.get("/s/deep%20folder/").expect("start");
        let moved = client.get("/s/deep%20folder?a=b");
        assert_eq!((moved.status(), moved.field("location")), (301, "/s/deep%20folder/?a=b"));
        assert!(is_the_applications(&client.get("/s/")));
    }
}

/// A path that isn't there is said at start, and served as soon as it is.
#[test]
fn a_folder_that_comes_later() {
    let folder = Folder::new();
    let server = start(Driver::Epoll, &folder).start();
    let text = server.stderr.text();
    assert!(text.contains("--static-map: ") && text.contains("until then nothing is served from there"), "{text}");
    assert!(is_the_applications(&server.connect().get("/s/small.txt")));
    site(&folder);
    server.connect().get("/s/small.txt").expect("small\n");
}
