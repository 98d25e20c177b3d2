//! The cache as a whole: against a simple model under random requests, under its bound, purged, and shared by threads.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::request::head_of;
use super::rules::Class;
use super::*;

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const CEILING: Duration = Duration::from_secs(100);
const UNIX: u64 = 784_111_777;

fn settings(bytes_max: usize) -> Settings {
    Settings { ceiling: CEILING, bytes_max, response_bytes_max: 20_000, show_status: false }
}

/// One with room for so many bytes, if they are a multiple of one less than the share that is reserved.
fn cache(bytes_max: usize) -> Cache {
    let share = limits::CACHE_RESERVE_SHARE;
    Cache::new(settings(bytes_max / (share - 1) * share), RandomState::with_seeds(1, 2, 3, 4), Arc::new(Epochs::own()))
}

fn guard(class: Class) -> Guard {
    Guard { listener: 0, https: false, class }
}

/// Stores what the application answers to `request` at `now`.
fn store(cache: &Cache, request: &Head, fields: &str, cookies: Option<&str>, body: &[u8], now: Instant) -> bool {
    let asked = Asked::read(request, true);
    let wanted = cache.wanted(request, guard(asked.class().unwrap()));
    let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").replace('\n', "\r\n").replace("\r\r", "\r");
    let passing = Passing::parse(head.as_bytes()).unwrap();
    let times = Times { asked: now, answered: now, answered_unix: UNIX };
    let cookies = cookies.map(str::as_bytes);
    cache.store(&wanted, request, &asked, &passing, cookies, &times, body.len(), || Some(body.into())).is_ok()
}

/// The body a request is answered with, and how.
fn find(cache: &Cache, request: &Head, now: Instant) -> Option<(Vec<u8>, Use)> {
    let asked = Asked::read(request, true);
    match cache.find(request, &asked, guard(asked.class()?), now, &mut Buffers::default()) {
        Found::Entry(entry, how) => Some((crate::reactor::SharedBytes::as_slice(&entry.body()).to_vec(), how)),
        Found::OtherVariant | Found::Nothing => None,
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The application answers a request.
    Answer {
        request: Request,
        lifetime: u64,
        window: u64,
        vary: Vary,
        refused: &'static str,
        bytes: usize,
    },
    /// A client asks.
    Ask {
        request: Request,
        directive: &'static str,
    },
    /// A success of an unsafe method.
    Post {
        host: u8,
        path: u8,
    },
    PurgeHost(u8),
    PurgePath(u8),
    PurgeAll,
    Pass(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Vary {
    Nothing,
    Language,
    Cookie,
    /// `Vary: Cookie` and `X-WSGo-Vary-Cookies: session`.
    Session,
}

#[derive(Clone, Debug)]
struct Request {
    host: u8,
    path: u8,
    language: u8,
    session: u8,
    theme: u8,
    head: bool,
}

impl Request {
    fn head(&self, directive: &str) -> Head {
        let method = if self.head { "HEAD" } else { "GET" };
        let control = if directive.is_empty() { String::new() } else { format!("\nCache-Control: {directive}") };
        head_of(&format!(
            "{method} /{} HTTP/1.1\nHost: h{}\nAccept-Language: {}\nCookie: session={}; theme={}{control}",
            self.path, self.host, self.language, self.session, self.theme
        ))
    }

    /// What it has in common with those that may get the same answer.
    fn secondary(&self, vary: Vary) -> String {
        match vary {
            Vary::Nothing => String::new(),
            Vary::Language => format!("l{}", self.language),
            Vary::Cookie => format!("c{} {}", self.session, self.theme),
            Vary::Session => format!("s{}", self.session),
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    (0..2u8, 0..3u8, 0..2u8, 0..2u8, 0..2u8, prop::bool::weighted(0.2))
        .prop_map(|(host, path, language, session, theme, head)| Request { host, path, language, session, theme, head })
}

fn step() -> impl Strategy<Value = Step> {
    let vary = prop_oneof![Just(Vary::Nothing), Just(Vary::Language), Just(Vary::Cookie), Just(Vary::Session)];
    let refused = prop_oneof![
        8 => Just(""),
        1 => Just("Set-Cookie: a=b\n"),
        1 => Just("Cache-Control: private\n"),
        1 => Just("Vary: *\n"),
    ];
    let directive =
        prop_oneof![5 => Just(""), 1 => Just("no-cache"), 1 => Just("max-age=5"), 1 => Just("min-fresh=10")];
    prop_oneof![
        6 => (request(), 0..30u64, 0..20u64, vary, refused, 0..6000usize).prop_map(
            |(request, lifetime, window, vary, refused, bytes)| Step::Answer { request, lifetime, window, vary, refused, bytes }
        ),
        8 => (request(), directive).prop_map(|(request, directive)| Step::Ask { request, directive }),
        1 => (0..2u8, 0..3u8).prop_map(|(host, path)| Step::Post { host, path }),
        1 => (0..2u8).prop_map(Step::PurgeHost),
        1 => (0..3u8).prop_map(Step::PurgePath),
        1 => Just(Step::PurgeAll),
        3 => (1..15u64).prop_map(Step::Pass),
    ]
}

/// A response as the model has it.
#[derive(Clone, Debug)]
struct Kept {
    vary: Vary,
    secondary: String,
    head: bool,
    body: Vec<u8>,
    at: Instant,
    lifetime: u64,
    window: u64,
    bytes: usize,
    used: u64,
}

/// The same, said as simply as possible: a list for each URL, searched from the newest on; a count says who was used last.
#[derive(Default)]
struct Model {
    kept: BTreeMap<(u8, u8), Vec<Kept>>,
    clock: u64,
}

impl Model {
    fn used(&self) -> usize {
        self.kept.values().flatten().map(|kept| kept.bytes).sum()
    }

    fn evict_one(&mut self) {
        let oldest = self.kept.values().flatten().map(|kept| kept.used).min();
        for list in self.kept.values_mut() {
            list.retain(|kept| Some(kept.used) != oldest);
        }
    }

    fn ask(&mut self, request: &Request, directive: &str, now: Instant) -> Option<(Vec<u8>, Use)> {
        self.clock += 1;
        let clock = self.clock;
        let list = self.kept.get_mut(&(request.host, request.path))?;
        let matches = |kept: &&mut Kept| (!kept.head || request.head) && kept.secondary == request.secondary(kept.vary);
        let kept = list.iter_mut().rev().find(matches)?;
        kept.used = clock;
        let (age, seconds) = (now.since(kept.at), Duration::from_secs);
        let (lifetime, end) = (seconds(kept.lifetime), seconds(kept.lifetime + kept.window));
        let how = match directive {
            "no-cache" => Use::Validate,
            "max-age=5" if age > seconds(5) || age >= lifetime => Use::Validate,
            "min-fresh=10" if age + seconds(10) > lifetime => Use::Validate,
            _ if age < lifetime => Use::Fresh,
            _ if age < end => Use::WhileRevalidate,
            _ => Use::Validate,
        };
        // Of no use to anybody any more: without a validator it is gone.
        if how == Use::Validate && age >= end.max(lifetime) {
            let gone = kept.used;
            list.retain(|kept| kept.used != gone);
            return None;
        }
        Some((kept.body.clone(), how))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens, the cache gives what a simple list would give, to whom it would give it, and never holds more than it may.
    #[test]
    fn the_cache_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        // Little room, in one part: so that the least recently used go, and no lock splits the order.
        let bytes_max = 30_000;
        let (cache, mut model) = (cache(bytes_max), Model::default());
        let mut now = START;
        for (number, step) in steps.into_iter().enumerate() {
            // An answer asked for at the instant of an invalidation counts as older: time passes between any two steps.
            now = now + Duration::from_nanos(1);
            match step {
                Step::Answer { request, lifetime, window, vary, refused, bytes } => {
                    let body = if request.head { Vec::new() } else { vec![number as u8; bytes] };
                    let (names, cookies) = match vary {
                        Vary::Nothing => ("", None),
                        Vary::Language => ("Vary: accept-language\n", None),
                        Vary::Cookie => ("Vary: Cookie\n", None),
                        Vary::Session => ("Vary: Cookie\n", Some("session")),
                    };
                    let fields = format!(
                        "{names}Cache-Control: max-age={lifetime}, stale-while-revalidate={window}\nContent-Length: {bytes}\n{refused}"
                    );
                    let before = cache.used();
                    let stored = store(&cache, &request.head(""), &fields, cookies, &body, now);
                    prop_assert_eq!(stored, refused.is_empty() && lifetime > 0);
                    if stored {
                        let kept = Kept {
                            vary,
                            secondary: request.secondary(vary),
                            head: request.head,
                            body,
                            at: now,
                            lifetime,
                            window,
                            bytes: 0,
                            used: { model.clock += 1; model.clock },
                        };
                        let vary_key = passing_vary(&fields, cookies);
                        let mut secondary = Vec::new();
                        vary_key.secondary(&request.head(""), &mut secondary);
                        let mut key = Vec::new();
                        key::primary_of(&mut key, &request.head(""));
                        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").replace('\n', "\r\n").replace("\r\r", "\r");
                        let head_bytes = Passing::parse(head.as_bytes()).unwrap().head_bytes();
                        let bytes = cost(&key, head_bytes, &vary_key, &secondary, kept.body.len());
                        // Room is made before the one that is replaced goes.
                        while model.used() + bytes > bytes_max {
                            model.evict_one();
                        }
                        let list = model.kept.entry((request.host, request.path)).or_default();
                        list.retain(|other| {
                            (other.vary, &other.secondary, other.head) != (kept.vary, &kept.secondary, kept.head)
                        });
                        list.push(Kept { bytes, ..kept });
                    } else {
                        prop_assert_eq!(cache.used(), before);
                    }
                }
                Step::Ask { request, directive } => {
                    let found = find(&cache, &request.head(directive), now);
                    let expected = model.ask(&request, directive, now);
                    prop_assert_eq!(found, expected, "{:?} {}", request, directive);
                }
                Step::Post { host, path } => {
                    let key = format!("h{host}\0/{path}");
                    let gone = model.kept.remove(&(host, path)).map_or(0, |list| list.len());
                    prop_assert_eq!(cache.invalidate(key.as_bytes(), now), gone);
                }
                Step::PurgeHost(host) => {
                    let what = Purge::prefix(format!("https://H{host}").as_bytes()).unwrap();
                    let gone = model.purge(|(of, _)| *of == host);
                    prop_assert_eq!(cache.purge(&what, now), gone);
                }
                Step::PurgePath(path) => {
                    let what = Purge::url(format!("/{path}").as_bytes()).unwrap();
                    let gone = model.purge(|(_, of)| *of == path);
                    prop_assert_eq!(cache.purge(&what, now), gone);
                }
                Step::PurgeAll => {
                    let gone = model.purge(|_| true);
                    prop_assert_eq!(cache.purge(&Purge::All, now), gone);
                }
                Step::Pass(seconds) => now = now + Duration::from_secs(seconds),
            }
            prop_assert_eq!(cache.used(), model.used());
            prop_assert_eq!(cache.len(), model.kept.values().map(Vec::len).sum::<usize>());
            prop_assert!(cache.used() <= bytes_max);
        }
    }
}

impl Model {
    fn purge(&mut self, named: impl Fn(&(u8, u8)) -> bool) -> usize {
        let gone = self.kept.iter().filter(|(key, _)| named(key)).map(|(_, list)| list.len()).sum();
        self.kept.retain(|key, _| !named(key));
        gone
    }
}

fn passing_vary(fields: &str, cookies: Option<&str>) -> key::Vary {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").replace('\n', "\r\n").replace("\r\r", "\r");
    Passing::parse(head.as_bytes()).unwrap().vary(cookies.map(str::as_bytes)).unwrap()
}

#[test]
fn guards_are_part_of_the_key() {
    let cache = cache(1 << 20);
    let request = head_of("GET /a HTTP/1.1\nHost: a");
    assert!(store(&cache, &request, "Cache-Control: max-age=9\n", None, b"body", START));
    let asked = Asked::read(&request, true);
    let found = |guard| matches!(cache.find(&request, &asked, guard, START, &mut Buffers::default()), Found::Entry(..));
    assert!(found(guard(Class::Get)) && found(guard(Class::Head)));
    assert!(!found(guard(Class::Options)));
    assert!(!found(Guard { https: true, ..guard(Class::Get) }));
    assert!(!found(Guard { listener: 1, ..guard(Class::Get) }));
}

#[test]
fn variants_of_one_url_are_bounded() {
    let cache = cache(8 << 20);
    for number in 0..limits::CACHE_VARIANTS_MAX + 10 {
        let request = head_of(&format!("GET /a HTTP/1.1\nHost: a\nAccept: {number}"));
        assert!(store(&cache, &request, "Vary: Accept\nCache-Control: max-age=9\n", None, b"", START));
    }
    assert_eq!(cache.len(), limits::CACHE_VARIANTS_MAX);
    assert!(find(&cache, &head_of("GET /a HTTP/1.1\nHost: a\nAccept: 9"), START).is_none(), "the oldest go");
    assert!(find(&cache, &head_of("GET /a HTTP/1.1\nHost: a\nAccept: 10"), START).is_some());
}

#[test]
fn what_is_being_sent_counts_until_it_is_sent() {
    let cache = cache(20_000);
    let request = |name: &str| head_of(&format!("GET /{name} HTTP/1.1\nHost: a"));
    let keep = "Cache-Control: max-age=9\n";
    assert!(store(&cache, &request("a"), keep, None, &[0; 15_000], START));
    let asked = Asked::read(&request("a"), true);
    let Found::Entry(entry, _) = cache.find(&request("a"), &asked, guard(Class::Get), START, &mut Buffers::default())
    else {
        panic!("it is there")
    };
    let sending = entry.body();
    drop(entry);
    assert!(!store(&cache, &request("b"), keep, None, &[0; 15_000], START), "a slow reader's page is still in memory");
    assert!(cache.is_empty() && cache.used() > 15_000);
    drop(sending);
    assert_eq!(cache.used(), 0);
    assert!(store(&cache, &request("b"), keep, None, &[0; 15_000], START));
}

#[test]
fn purges() {
    let check = |what: Result<Purge, &str>, gone: &[&str]| {
        let cache = cache(1 << 20);
        let urls = ["a/", "a/x", "a/x?q", "a/x/y", "a/xy", "ab/x", "b/x"];
        for url in urls {
            let (host, path) = url.split_once('/').unwrap();
            let request = head_of(&format!("GET /{path} HTTP/1.1\nHost: {host}"));
            assert!(store(&cache, &request, "Cache-Control: max-age=9\n", None, b"", START));
        }
        let what = what.unwrap();
        assert_eq!(cache.purge(&what, START), gone.len(), "{what:?}");
        for url in urls {
            let (host, path) = url.split_once('/').unwrap();
            let found = find(&cache, &head_of(&format!("GET /{path} HTTP/1.1\nHost: {host}")), START);
            assert_eq!(found.is_none(), gone.contains(&url), "{what:?} {url}");
        }
    };
    check(Purge::url(b"http://a/x"), &["a/x"]);
    check(Purge::url(b"HTTPS://A/x?q"), &["a/x?q"]);
    check(Purge::url(b"http://a"), &["a/"]);
    check(Purge::url(b"/x"), &["a/x", "ab/x", "b/x"]);
    check(Purge::prefix(b"http://a"), &["a/", "a/x", "a/x?q", "a/x/y", "a/xy"]);
    check(Purge::prefix(b"http://a/x"), &["a/x", "a/x?q", "a/x/y", "a/xy"]);
    check(Purge::prefix(b"/x/"), &["a/x/y"]);
    check(Ok(Purge::All), &["a/", "a/x", "a/x?q", "a/x/y", "a/xy", "ab/x", "b/x"]);
    for wrong in ["", "x", "ftp://a/x", "a/x"] {
        assert!(Purge::url(wrong.as_bytes()).is_err() && Purge::prefix(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn another_process_hears_of_it() {
    let words: Arc<[std::sync::atomic::AtomicU64]> = (0..100).map(|_| Default::default()).collect();
    struct Both(Arc<[std::sync::atomic::AtomicU64]>);
    impl epochs::Words for Both {
        fn words(&self) -> &[std::sync::atomic::AtomicU64] {
            &self.0
        }
    }
    let process = || {
        let epochs = Arc::new(Epochs::shared(Box::new(Both(Arc::clone(&words)))));
        Cache::new(settings(1 << 20), RandomState::with_seeds(1, 2, 3, 4), epochs)
    };
    let (one, other) = (process(), process());
    let request = head_of("GET /a HTTP/1.1\nHost: a");
    let second = |number| START + Duration::from_secs(number);
    assert!(store(&one, &request, "Cache-Control: max-age=90\n", None, b"", second(0)));
    // Stored, invalidated over there, gone here; stored again, and there to stay.
    assert!(find(&one, &request, second(1)).is_some());
    assert_eq!(other.invalidate(b"a\0/a", second(2)), 0);
    assert!(find(&one, &request, second(3)).is_none());
    assert!(store(&one, &request, "Cache-Control: max-age=90\n", None, b"", second(4)));
    assert!(find(&one, &request, second(5)).is_some());
    assert_eq!(other.purge(&Purge::prefix(b"/none").unwrap(), second(6)), 0);
    assert!(find(&one, &request, second(7)).is_none(), "at least as much");
}

#[test]
fn threads_that_purge_store_and_ask() {
    let cache = cache(1 << 20);
    let page = |number: u32| head_of(&format!("GET /{} HTTP/1.1\nHost: a", number % 50));
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let cache = &cache;
            scope.spawn(move || {
                for step in 0..2_000u32 {
                    let number = step.wrapping_mul(2_654_435_761).wrapping_add(thread) >> 7;
                    let now = START + Duration::from_nanos(u64::from(step) + 1);
                    let body = format!("page {}", number % 50).into_bytes();
                    match step % 8 {
                        0 => {
                            cache.purge(&Purge::prefix(b"/1").unwrap(), now);
                        }
                        1 => {
                            cache.invalidate(format!("a\0/{}", number % 50).as_bytes(), now);
                        }
                        2..5 => {
                            store(cache, &page(number), "Cache-Control: max-age=90\n", None, &body, now);
                        }
                        _ => {
                            if let Some((found, _)) = find(cache, &page(number), now) {
                                assert_eq!(found, body);
                            }
                        }
                    }
                }
            });
        }
    });
    cache.purge(&Purge::All, START + Duration::from_secs(1));
    assert_eq!((cache.len(), cache.used()), (0, 0), "nothing is lost");
}
