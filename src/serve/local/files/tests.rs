//! The parts together, on real folders, without a server: what is found, what is believed, what is put together of it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::answer::{Answer, Moment, Request};
use super::encoding::Coding;
use super::record::{Body, Record};
use super::search::concerns;
use super::{Found, Given, Search, Seen, Settings, Store, Target, map};
use crate::config::{self, Outcome};
use crate::limits;
use crate::reactor::Outgoing;
use crate::reactor::clock::Instant;
use crate::reactor::open::{Opener, Wait};
use crate::serve::http1::{Head, HeadLimits};

const DATE: &[u8; 29] = b"Fri, 01 Jan 2100 00:00:00 GMT";
const EXPIRES: &[u8; 29] = b"Sat, 02 Jan 2100 00:00:00 GMT";
const NOW: u64 = 4_102_444_800;

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }

    /// `@` stands for the folder.
    fn settings(&self, flags: &str) -> Settings {
        let folder = self.folder.path().to_str().unwrap();
        let arguments: Vec<_> = flags.split_whitespace().map(|word| word.replace('@', folder).into()).collect();
        let Ok(Outcome::Run(config, _)) = config::from(&arguments, &[], &|_| Ok(Vec::new())) else { panic!("{flags}") };
        Settings::new(&config).unwrap().unwrap()
    }
}

fn search(settings: &Settings, target: Target, known: Option<Arc<Record>>) -> Found {
    let search = Search { settings: Arc::new(settings.clone()), target, known, now: NOW };
    search.run(Wait::Allowed).unwrap()
}

/// What is found for a path as a request has it.
fn found(settings: &Settings, path: &str) -> Found {
    let Some(path) = map::clean(path.as_bytes()) else { return Found::Nothing };
    if !concerns(settings, &path) {
        return Found::Nothing;
    }
    search(settings, Target::Static(path.into_owned()), None)
}

fn content(found: &Found) -> Option<Vec<u8>> {
    let Found::File(record) = found else { return None };
    Some(match &record.variant(Coding::Identity)?.content.body {
        Body::Memory(bytes) => bytes.to_vec(),
        Body::File(file) => {
            let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        }
    })
}

#[test]
fn the_first_map_that_has_the_file() {
    let site = Site::new();
    for (name, text) in [("one/a", "1a"), ("two/a", "2a"), ("two/b", "2b"), ("two/deep/c", "2c"), ("single", "s")] {
        site.write(name, text.as_bytes());
    }
    let settings =
        site.settings("--static-map /m=@/one,/m=@/two --static-map /f.txt=@/single --static-map /none=@/gone");
    let check = |path: &str, expected: Option<&str>| {
        assert_eq!(content(&found(&settings, path)).as_deref(), expected.map(str::as_bytes), "{path}");
    };
    check("/m/a", Some("1a"));
    check("/m/b", Some("2b"));
    check("/m//deep///c", Some("2c"));
    check("/m/%61", Some("1a"));
    check("/f.txt", Some("s"));
    for path in
        ["/m", "/m/", "/m/deep", "/m/deep/", "/m/c", "/ma", "/f.txt/", "/f.txt/x", "/f.txtx", "/none", "/none/a"]
    {
        check(path, None);
    }
    assert_eq!(settings.missing().len(), 1, "one of the paths isn't there");
}

#[test]
fn folders_have_a_page_if_it_is_asked_for() {
    let site = Site::new();
    site.write("m/index.html", b"top");
    site.write("m/deep/index.html", b"deep");
    site.write("m/empty/x", b"x");
    let plain = site.settings("--static-map /m=@/m");
    assert!(["/m", "/m/", "/m/deep", "/m/deep/"].iter().all(|path| matches!(found(&plain, path), Found::Nothing)));
    let settings = site.settings("--static-map /m=@/m --static-map /=@/m --static-index index.html");
    for (path, expected) in [("/m/", "top"), ("/m/deep/", "deep"), ("/deep/", "deep")] {
        assert_eq!(content(&found(&settings, path)).as_deref(), Some(expected.as_bytes()), "{path}");
    }
    for path in ["/m", "/m/deep", "/deep"] {
        assert!(matches!(found(&settings, path), Found::Folder), "{path}");
    }
    for path in ["/m/empty", "/m/empty/", "/m/index.html/"] {
        assert!(matches!(found(&settings, path), Found::Nothing), "{path}");
    }
}

/// At least two hundred ways to ask for what lies beside the mapped folder, is hidden in it, or isn't a file; on every level of what
/// the kernel can do.
#[test]
fn hostile_paths_find_nothing() {
    let site = Site::new();
    site.write("media/ok.txt", b"ok");
    site.write("media/deep/ok.txt", b"ok");
    site.write("media/.env", b"SECRET");
    site.write("media/.git/config", b"SECRET");
    site.write("media/deep/.hidden/x", b"SECRET");
    site.write("media-secret/x.txt", b"SECRET");
    site.write("secret.txt", b"SECRET");
    let at = |name: &str| site.folder.path().join(name);
    symlink("../secret.txt", at("media/out")).unwrap();
    symlink("..", at("media/up")).unwrap();
    symlink(at("secret.txt"), at("media/absolute")).unwrap();
    symlink(site.folder.path(), at("media/root")).unwrap();
    symlink("/", at("media/slash")).unwrap();
    symlink("loop", at("media/loop")).unwrap();
    symlink("/proc/self/cwd", at("media/cwd")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("media/pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("media/socket")).unwrap();
    let settings = site.settings("--static-map /media=@/media --sendfile-root @/media");
    let paths = hostile_paths();
    assert!(paths.len() >= 200, "{}", paths.len());
    for opener in [Opener::probe(), Opener::Beneath, Opener::Walk] {
        let settings = Settings { opener, ..settings.clone() };
        assert_eq!(content(&found(&settings, "/media/deep/ok.txt")).as_deref(), Some(&b"ok"[..]), "{opener:?}");
        for path in &paths {
            let found = found(&settings, path);
            assert!(matches!(found, Found::Nothing), "{opener:?} {path}: {found:?}");
        }
        let folder = site.folder.path().to_str().unwrap();
        let mut named: Vec<String> = ["/../secret.txt", "/up/secret.txt", "/out", "/pipe", "/socket", "", "/", "/deep"]
            .map(|name| format!("{folder}/media{name}"))
            .into();
        named.extend(["/etc/passwd", "etc/passwd", "../secret.txt", "", "/", "root/secret.txt"].map(String::from));
        named.extend([format!("{folder}/media-secret/x.txt"), format!("{folder}/secret.txt"), format!("{folder}\0")]);
        for name in named {
            let found = search(&settings, Target::Sendfile(name.clone().into_bytes()), None);
            assert!(matches!(found, Found::Nothing), "{opener:?} X-Sendfile {name}: {found:?}");
        }
    }
}

/// Paths of requests none of which may find a file.
fn hostile_paths() -> Vec<String> {
    let ups = [
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "..;",
        "...",
        "....",
        "%252e%252e",
        "%c0%ae%c0%ae",
        "%uff0e%uff0e",
        "..%00",
    ];
    let slashes = ["/", "//", "%2f", "%2F", "\\", "%5c", "%5C", "%252f", "%c0%af", "%e0%80%af", "/./", "/%2e/", ";/"];
    let mut paths = Vec::new();
    for up in ups {
        for slash in slashes {
            paths.push(format!("/media/{up}{slash}secret.txt"));
            paths.push(format!("/media{slash}{up}{slash}media-secret{slash}x.txt"));
        }
    }
    let more = [
        "/media../media-secret/x.txt",
        "/media..%2fmedia-secret/x.txt",
        "/media-secret/x.txt",
        "/mediasecret.txt",
        "/media%2fok.txt",
        "/media%2Fdeep/ok.txt",
        "/media/deep%2fok.txt",
        "/media/deep/../ok.txt",
        "/media/./ok.txt",
        "/media/%2e/ok.txt",
        "/./media/ok.txt",
        "/x/../media/ok.txt",
        "/../media/ok.txt",
        "media/ok.txt",
        "*",
        "/media/ok.txt%00",
        "/media/ok.txt%00.png",
        "/media/%00",
        "/media/ok.txt\0",
        "/media/ok.txt%",
        "/media/ok.txt%2",
        "/media/ok.txt%g0",
        "/media/ok.txt/",
        "/media/ok.txt/.",
        "/media/ok.txt/..",
        "/media/ok.txt//",
        "/media/ok.txt/x",
        "/media/.env",
        "/media/%2eenv",
        "/media/%2Eenv",
        "/media//.env",
        "/media/.git/config",
        "/media/%2egit/config",
        "/media/.git",
        "/media/deep/.hidden/x",
        "/media/deep/%2ehidden/x",
        "/media/.",
        "/media/..",
        "/media/...",
        "/media/out",
        "/media/up/secret.txt",
        "/media/up/media/ok.txt",
        "/media/absolute",
        "/media/root/secret.txt",
        "/media/root/media/ok.txt",
        "/media/slash/etc/passwd",
        "/media/cwd/Cargo.toml",
        "/media/loop",
        "/media/loop/x",
        "/media/pipe",
        "/media/socket",
        "/media/deep",
        "/media/",
        "/media",
        "/MEDIA/ok.txt",
        "/Media/ok.txt",
        "/media/OK.TXT",
        "/media /ok.txt",
        "/media/ ok.txt",
        "/media/ok.txt ",
        "/media/ok.txt%20",
        "/media/ok.txt%0a",
        "/media/ok.txt%0d%0aX: y",
        "/media/ok.txt;x",
        "/media/ok.txt::$DATA",
        "/media/etc/passwd",
        "/media//etc/passwd",
        "/media/%2fetc%2fpasswd",
        "/media///etc///passwd",
        "/media/~root/x",
        "/media/C:/x",
        "/media/file:///etc/passwd",
        "/media/\u{ff0e}\u{ff0e}/secret.txt",
        "/media/%ef%bc%8e%ef%bc%8e/secret.txt",
        "/media/%fe",
        "/media/%ff%fe/x",
    ];
    paths.extend(more.map(String::from));
    paths.push(format!("/media/{}ok.txt", "a/".repeat(3000)));
    paths.push(format!("/media/{}", "a".repeat(300)));
    paths.push(format!("/media/{}etc/passwd", "%2e%2e/".repeat(40)));
    paths.push(format!("/media{}", "/".repeat(5000)));
    paths
}

#[test]
fn dotfiles_are_served_when_that_is_asked_for() {
    let site = Site::new();
    site.write("m/.env", b"open");
    site.write("acme/token", b"t");
    let settings = site.settings("--static-map /m=@/m --static-map /.well-known/acme=@/acme");
    assert_eq!(content(&found(&settings, "/m/.env")), None);
    assert_eq!(content(&found(&settings, "/.well-known/acme/token")).as_deref(), Some(&b"t"[..]));
    let settings = site.settings("--static-map /m=@/m --static-dotfiles");
    assert_eq!(content(&found(&settings, "/m/.env")).as_deref(), Some(&b"open"[..]));
}

#[test]
fn x_sendfile_by_whole_path_and_by_path_beneath_a_root() {
    let site = Site::new();
    site.write("real/a", b"a");
    site.write("other/b", b"b");
    symlink("real", site.folder.path().join("link")).unwrap();
    let settings = site.settings("--sendfile-root @/link/ --sendfile-root @/other");
    let folder = site.folder.path().to_str().unwrap();
    let check = |path: &str, expected: Option<&str>| {
        let found = search(&settings, Target::Sendfile(path.as_bytes().to_vec()), None);
        assert_eq!(content(&found).as_deref(), expected.map(str::as_bytes), "{path}");
    };
    check(&format!("{folder}/link/a"), Some("a"));
    check(&format!("{folder}/real/a"), Some("a"));
    check(&format!("{folder}/other//b"), Some("b"));
    check("a", Some("a"));
    check("b", Some("b"));
    check("c", None);
    check(&format!("{folder}/otherb"), None);
}

#[test]
fn what_was_found_is_believed_for_a_while_and_read_again_only_if_it_changed() {
    let site = Site::new();
    site.write("m/a", b"one");
    let settings = site.settings("--static-map /m=@/m");
    let (mut store, mut gone) = (Store::default(), Vec::new());
    let at = |ms: u64| Instant::from_nanos(1) + Duration::from_millis(ms);
    assert!(matches!(store.get(b"/m/a", at(0)), Seen::Unknown));
    let Found::File(first) = found(&settings, "/m/a") else { panic!("it is there") };
    store.put(b"/m/a".to_vec(), Arc::clone(&first), at(0), &mut gone);
    let Seen::Fresh(known) = store.get(b"/m/a", at(limits::STATIC_FRESH_MS - 1)) else { panic!("believed") };
    assert!(Arc::ptr_eq(&known, &first));
    let Seen::Stale(known) = store.get(b"/m/a", at(limits::STATIC_FRESH_MS)) else { panic!("not any more") };
    let target = || Target::Static(b"/m/a".to_vec());
    let Found::File(again) = search(&settings, target(), Some(Arc::clone(&known))) else { panic!("it is there") };
    assert!(Arc::ptr_eq(&again, &known), "nothing has changed");
    // Same length, same time of modification: the change of the change is seen.
    site.write("m/a", b"two");
    let Found::File(changed) = search(&settings, target(), Some(Arc::clone(&known))) else { panic!("it is there") };
    assert!(!Arc::ptr_eq(&changed, &known));
    store.put(b"/m/a".to_vec(), Arc::clone(&changed), at(2000), &mut gone);
    assert_eq!(store.held(), (1, changed.memory(), 0));
    // A sibling that appears makes another record of it.
    site.write("m/a.gz", b"gz");
    let Found::File(varied) = search(&settings, target(), Some(changed)) else { panic!("it is there") };
    assert!(varied.varies());
    store.forget(b"/m/a", &mut gone);
    assert_eq!(store.held(), (0, 0, 0));
}

#[test]
fn a_store_is_bounded_in_every_way() {
    let site = Site::new();
    site.write("m/large", &vec![b'x'; limits::STATIC_MEMORY_FILE_BYTES_MAX + 1]);
    site.write("m/small", &vec![b'x'; limits::STATIC_MEMORY_FILE_BYTES_MAX]);
    let settings = site.settings("--static-map /m=@/m");
    let now = Instant::from_nanos(1);
    let fill = |path: &str, count: usize| {
        let Found::File(record) = found(&settings, path) else { panic!("it is there") };
        let (mut store, mut gone) = (Store::default(), Vec::new());
        for number in 0..count {
            store.put(number.to_string().into_bytes(), Arc::clone(&record), now, &mut gone);
        }
        assert!(matches!(store.get(b"0", now), Seen::Unknown), "the oldest went first");
        assert!(matches!(store.get((count - 1).to_string().as_bytes(), now), Seen::Fresh(_)));
        (store.held(), gone.len())
    };
    let ((_, _, descriptors), gone) = fill("/m/large", limits::STATIC_DESCRIPTORS_MAX + 3);
    assert_eq!((descriptors, gone), (limits::STATIC_DESCRIPTORS_MAX, 3));
    let ((entries, memory, descriptors), gone) = fill("/m/small", 1000);
    assert!(memory <= limits::STATIC_MEMORY_BYTES_MAX && entries > 400, "{entries} {memory}");
    assert_eq!((descriptors, gone), (0, 0));
    site.write("m/tiny", b"");
    let ((entries, ..), _) = fill("/m/tiny", limits::STATIC_FILES_MAX + 5);
    assert_eq!(entries, limits::STATIC_FILES_MAX);
}

/// What is sent for a request, latin-1.
fn sent(record: &Record, settings: &Settings, given: Option<&Given>, request: &str) -> (u16, u64, String) {
    let mut head = Head::default();
    let most = HeadLimits { request_line_bytes_max: 1 << 16, head_bytes_max: 1 << 20, fields_max: 1000 };
    head.parse(request.replace('\n', "\r\n").as_bytes(), 0, &most).unwrap().unwrap();
    let moment = Moment { now: NOW, date: *DATE, expires: *EXPIRES };
    let (version, keep_alive) = (head.version, head.keep_alive);
    let answer = Answer { record, settings, given, moment: &moment, version, keep_alive, boundary: 7 };
    let mut outgoing = Outgoing::new();
    let made = answer.make(&Request::gather(&head), Vec::new(), &mut outgoing).unwrap();
    let mut bytes = Vec::new();
    while !outgoing.is_empty() {
        let front = match outgoing.front_file() {
            Some(range) => {
                let mut bytes = vec![0; range.length as usize];
                range.file.read_exact_at(&mut bytes, range.offset).unwrap();
                bytes
            }
            None => outgoing.front_bytes().unwrap().to_vec(),
        };
        outgoing.advance(front.len() as u64);
        bytes.extend_from_slice(&front);
    }
    assert_eq!(made.head_bytes as u64 + made.body_bytes, bytes.len() as u64, "{request}");
    assert_eq!(&bytes[made.head_bytes - 4..made.head_bytes], b"\r\n\r\n");
    (made.status, made.body_bytes, bytes.into_iter().map(char::from).collect())
}

fn record(settings: &Settings, path: &str) -> Arc<Record> {
    match found(settings, path) {
        Found::File(record) => record,
        other => panic!("{path}: {other:?}"),
    }
}

const HOST: &str = "Host: a\n";

#[test]
fn the_whole_file() {
    let site = Site::new();
    site.write("m/a.txt", b"hello");
    let settings = site.settings("--static-map /m=@/m --static-header X-A:b");
    let record = record(&settings, "/m/a.txt");
    let head = "HTTP/1.1 200 OK\r\nDate: Fri, 01 Jan 2100 00:00:00 GMT\r\nServer: hoopsnake\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        ETag: \"2ebc98a1.0-5\"\r\nAccept-Ranges: bytes\r\nCache-Control: public, max-age=86400\r\nX-A: b\r\n\
        Expires: Sat, 02 Jan 2100 00:00:00 GMT\r\n";
    let check = |request: &str, more: &str, body: &str| {
        let (status, bytes, text) = sent(&record, &settings, None, request);
        assert_eq!((status, bytes as usize, text), (200, body.len(), format!("{head}{more}\r\n{body}")), "{request}");
    };
    check("GET /m/a.txt HTTP/1.1\nHost: a\n\n", "", "hello");
    check("HEAD /m/a.txt HTTP/1.1\nHost: a\n\n", "", "");
    check("GET /m/a.txt HTTP/1.1\nHost: a\nConnection: close\n\n", "Connection: close\r\n", "hello");
    check("GET /m/a.txt HTTP/1.0\n\n", "Connection: close\r\n", "hello");
    check("GET /m/a.txt HTTP/1.0\nConnection: keep-alive\n\n", "Connection: keep-alive\r\n", "hello");
    // RFC 9110 §14.2: no ranges but for GET; §13.1.3: fields that stand twice and may not are none.
    check("HEAD /m/a.txt HTTP/1.1\nHost: a\nRange: bytes=0-1\n\n", "", "");
    check("GET /m/a.txt HTTP/1.1\nHost: a\nRange: bytes=0-1\nRange: bytes=0-2\n\n", "", "hello");
    let date = "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT\n";
    check(&format!("GET /m/a.txt HTTP/1.1\nHost: a\n{date}{date}\n"), "", "hello");
}

#[test]
fn the_operators_own_caching_fields_win() {
    let site = Site::new();
    site.write("m/a", b"x");
    let settings = site.settings("--static-map /m=@/m --static-header cache-control:no-store");
    let (_, _, text) = sent(&record(&settings, "/m/a"), &settings, None, "GET /m/a HTTP/1.1\nHost: a\n\n");
    assert!(
        text.contains("cache-control: no-store\r\n") && !text.contains("max-age") && !text.contains("Expires"),
        "{text}"
    );
}

/// What of the parts is sent for memory and for files, for one range and for several.
#[test]
fn ranges_of_small_and_large_files() {
    let site = Site::new();
    let large: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    site.write("m/a.bin", b"0123456789");
    site.write("m/large.bin", &large);
    let settings = site.settings("--static-map /m=@/m");
    let small = record(&settings, "/m/a.bin");
    let (status, bytes, text) = sent(&small, &settings, None, &format!("GET / HTTP/1.1\n{HOST}Range: bytes=2-4\n\n"));
    assert_eq!((status, bytes), (206, 3));
    assert!(
        text.contains("Content-Range: bytes 2-4/10\r\nContent-Length: 3\r\n") && text.ends_with("\r\n\r\n234"),
        "{text}"
    );
    let (status, bytes, text) = sent(&small, &settings, None, &format!("GET / HTTP/1.1\n{HOST}Range: bytes=90-\n\n"));
    assert_eq!((status, bytes), (416, 26));
    assert!(text.contains("Content-Range: bytes */10\r\n"), "{text}");
    let large_record = record(&settings, "/m/large.bin");
    assert_eq!((large_record.descriptors(), small.descriptors()), (1, 0));
    let (status, bytes, text) =
        sent(&large_record, &settings, None, &format!("GET / HTTP/1.1\n{HOST}Range: bytes=100000-100001,-2,0-1\n\n"));
    let part = |range: &str, data: &str| {
        format!(
            "\r\n--{:032x}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {range}/200000\r\n\r\n{data}",
            7
        )
    };
    let latin = |range: std::ops::Range<usize>| large[range].iter().map(|&byte| char::from(byte)).collect::<String>();
    let body = part("100000-100001", &latin(100_000..100_002))
        + &part("199998-199999", &latin(199_998..200_000))
        + &part("0-1", &latin(0..2))
        + &format!("\r\n--{:032x}--\r\n", 7);
    assert_eq!((status, bytes), (206, body.chars().count() as u64));
    assert!(
        text.contains("Content-Type: multipart/byteranges; boundary=00000000000000000000000000000007\r\n"),
        "{text}"
    );
    assert!(text.ends_with(&body), "{text}");
    assert_eq!(text.matches("\r\nContent-Range: ").count(), 3);
}

#[test]
fn conditional_answers_have_the_fields_they_need() {
    let site = Site::new();
    site.write("m/a.txt", b"hello");
    let settings = site.settings("--static-map /m=@/m");
    let record = record(&settings, "/m/a.txt");
    let ask = |fields: &str| sent(&record, &settings, None, &format!("GET / HTTP/1.1\n{HOST}{fields}\n"));
    // RFC 9110 §15.4.5.
    let (status, bytes, text) = ask("If-None-Match: \"x\"\nIf-None-Match: W/\"2ebc98a1.0-5\"\n");
    assert_eq!((status, bytes), (304, 0));
    for field in ["Date: ", "ETag: \"2ebc98a1.0-5\"", "Cache-Control: public, max-age=86400", "Expires: Sat, 02 "] {
        assert!(text.contains(&format!("\r\n{field}")), "{field}: {text}");
    }
    for field in ["Content-Length", "Content-Type", "Accept-Ranges"] {
        assert!(!text.contains(field), "{field}: {text}");
    }
    let (status, _, text) = ask("If-Match: \"x\"\nRange: bytes=0-1\n");
    assert_eq!(status, 412);
    assert!(text.ends_with("\r\n\r\n412 Precondition Failed\n"), "{text}");
    assert_eq!(ask("If-Range: \"2ebc98a1.0-5\"\nRange: bytes=0-1\n").0, 206);
    assert_eq!(ask("If-Range: \"x\"\nRange: bytes=0-1\n").0, 200);
    assert_eq!(ask("If-Range: Sun, 06 Nov 1994 08:49:37 GMT\nRange: bytes=0-1\n").0, 206);
    assert_eq!(ask("If-Range: \"x\"\nRange: bytes=90-\n").0, 200, "what doesn't count can't fail");
}

#[test]
fn precompressed_siblings() {
    let site = Site::new();
    site.write("m/a.css", b"plain");
    site.write("m/a.css.gz", b"gzipped");
    site.write("m/a.css.br", b"brotli!!");
    site.write("m/b.css", b"alone");
    let settings = site.settings("--static-map /m=@/m");
    let styled = record(&settings, "/m/a.css");
    let check = |accepted: &str, body: &str, encoding: Option<&str>, etag: &str| {
        let (_, _, text) =
            sent(&styled, &settings, None, &format!("GET / HTTP/1.1\n{HOST}Accept-Encoding: {accepted}\n\n"));
        assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
        let found = text.lines().find_map(|line| line.strip_prefix("Content-Encoding: "));
        assert_eq!(found, encoding, "{text}");
        assert!(text.contains("Content-Type: text/css; charset=utf-8\r\n"), "{text}");
        assert!(text.contains("Vary: Accept-Encoding\r\n") && text.contains(&format!("ETag: {etag}\r\n")), "{text}");
    };
    check("gzip", "gzipped", Some("gzip"), "\"2ebc98a1.0-7-gzip\"");
    check("gzip, br", "brotli!!", Some("br"), "\"2ebc98a1.0-8-br\"");
    check("zstd", "plain", None, "\"2ebc98a1.0-5\"");
    check("gzip;q=0", "plain", None, "\"2ebc98a1.0-5\"");
    // A range is one of the form that is sent.
    let ranged = format!("GET / HTTP/1.1\n{HOST}Accept-Encoding: gzip\nRange: bytes=0-1\n\n");
    let (status, _, text) = sent(&styled, &settings, None, &ranged);
    assert!(status == 206 && text.contains("Content-Range: bytes 0-1/7\r\n") && text.ends_with("\r\n\r\ngz"), "{text}");
    let not_modified = format!("GET / HTTP/1.1\n{HOST}Accept-Encoding: br\nIf-None-Match: \"2ebc98a1.0-7-gzip\"\n\n");
    assert_eq!(sent(&styled, &settings, None, &not_modified).0, 200, "the tag of another form");
    let (_, _, text) = sent(
        &record(&settings, "/m/b.css"),
        &settings,
        None,
        &format!("GET / HTTP/1.1\n{HOST}Accept-Encoding: gzip\n\n"),
    );
    assert!(!text.contains("Vary") && text.ends_with("alone"), "{text}");
    // Asked for by its own name it is what it is.
    let (_, _, text) = sent(&record(&settings, "/m/a.css.gz"), &settings, None, &format!("GET / HTTP/1.1\n{HOST}\n"));
    assert!(text.contains("Content-Type: application/gzip\r\n") && !text.contains("Content-Encoding"), "{text}");
}

#[test]
fn the_applications_fields_stay_and_its_validators_count() {
    let site = Site::new();
    site.write("m/a.txt", b"hello");
    let settings = site.settings("--static-map /m=@/m --sendfile-root @/m");
    let record = record(&settings, "/m/a.txt");
    let given = |lines: &str| Given::parse(format!("HTTP/1.1 403 No\n{lines}").replace('\n', "\r\n").as_bytes());
    let ask = |given: &Given, request: &str| sent(&record, &settings, Some(given), request);
    let own = given(
        "Content-Type: a/b\nContent-Disposition: attachment\nSet-Cookie: c=d\nETag: \"own\"\nContent-Range: x\nServer: me\n",
    );
    let (status, bytes, text) = ask(&own, "GET / HTTP/1.1\nHost: a\n\n");
    assert_eq!((status, bytes), (200, 5));
    let expected = "HTTP/1.1 200 OK\r\nDate: Fri, 01 Jan 2100 00:00:00 GMT\r\nContent-Disposition: attachment\r\n\
        Set-Cookie: c=d\r\nETag: \"own\"\r\nServer: me\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        Accept-Ranges: bytes\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(text, expected, "nothing of public caching is added");
    let (status, _, text) = ask(&own, "GET / HTTP/1.1\nHost: a\nIf-None-Match: \"own\"\n\n");
    assert_eq!(status, 304);
    assert!(text.contains("Set-Cookie: c=d\r\n") && !text.to_lowercase().contains("content-"), "{text}");
    assert_eq!(ask(&own, "GET / HTTP/1.1\nHost: a\nIf-None-Match: \"2ebc98a1.0-5\"\n\n").0, 200);
    let (status, _, text) = ask(&own, "GET / HTTP/1.1\nHost: a\nRange: bytes=1-2,4-\nIf-Range: \"own\"\n\n");
    assert!(status == 206 && text.contains("Content-Range: bytes 1-4/5\r\n"), "{text}");
    let weak = given("ETag: W/\"own\"\nLast-Modified: Sun, 06 Nov 1994 08:49:38 GMT\n");
    assert_eq!(ask(&weak, "GET / HTTP/1.1\nHost: a\nRange: bytes=1-2\nIf-Range: W/\"own\"\n\n").0, 200);
    let since = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\n";
    assert_eq!(ask(&weak, &format!("GET / HTTP/1.1\nHost: a\n{since}\n")).0, 200);
    // A POST has no preconditions on what it is answered with.
    let post = "POST / HTTP/1.1\nHost: a\nContent-Length: 0\nIf-None-Match: *\nRange: bytes=0-1\n\n";
    assert_eq!(ask(&own, post).0, 200);
    let text = ask(&given(""), "GET / HTTP/1.1\nHost: a\n\n").2;
    assert!(
        text.contains("Server: hoopsnake\r\n") && text.contains("Content-Type: text/plain; charset=utf-8\r\n"),
        "{text}"
    );
}

#[test]
fn a_file_from_the_future_was_modified_now() {
    let site = Site::new();
    site.write("m/a", b"x");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 1000);
    File::options().write(true).open(site.folder.path().join("m/a")).unwrap().set_modified(time).unwrap();
    let settings = site.settings("--static-map /m=@/m");
    let (_, _, text) = sent(&record(&settings, "/m/a"), &settings, None, "GET / HTTP/1.1\nHost: a\n\n");
    assert!(text.contains("Last-Modified: Fri, 01 Jan 2100 00:00:00 GMT\r\n"), "{text}");
}

#[test]
fn nothing_is_waited_for_when_that_is_forbidden() {
    let site = Site::new();
    site.write("m/a", b"x");
    let settings = Settings { opener: Opener::Walk, ..site.settings("--static-map /m=@/m") };
    let target = Target::Static(b"/m/a".to_vec());
    let search = Search { settings: Arc::new(settings), target, known: None, now: NOW };
    assert!(search.run(Wait::Never).is_err());
    assert!(matches!(search.run(Wait::Allowed), Ok(Found::File(_))));
}
