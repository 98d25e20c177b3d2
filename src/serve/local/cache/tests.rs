//! The cache as a whole: against a simple model under random requests, under its bound, purged, and shared by threads.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::request::head_of;
use super::*;

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const CEILING: Duration = Duration::from_secs(100);
const UNIX: u64 = 784_111_777;

fn settings(bytes_max: usize) -> Settings {
    Settings { ceiling: CEILING, bytes_max, response_bytes_max: 20_000, descriptors_max: 100, show_status: false }
}

/// One with room for so many bytes, if they are a multiple of one less than the share that is reserved.
fn cache(bytes_max: usize) -> Cache {
    let share = limits::CACHE_RESERVE_SHARE;
    Cache::new(settings(bytes_max / (share - 1) * share), RandomState::with_seeds(1, 2, 3, 4), Arc::new(Epochs::own()))
}

/// What processes share: the memory of the epochs and that of the responses.
#[derive(Clone)]
struct Memory {
    epochs: Shared,
    arena: Shared,
}

#[derive(Clone)]
struct Shared(Arc<[AtomicU64]>);

impl epochs::Words for Shared {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

fn memory(bytes: usize) -> Memory {
    let shared = |words: usize| Shared((0..words).map(|_| AtomicU64::default()).collect());
    Memory { epochs: shared(1000), arena: shared(Arena::words(bytes)) }
}

/// One that has `memory`, and so many bytes for its copies.
fn process(memory: &Memory, bytes_max: usize) -> Cache {
    let hasher = RandomState::with_seeds(1, 2, 3, 4);
    let share = limits::CACHE_RESERVE_SHARE;
    let epochs = Arc::new(Epochs::shared(Box::new(memory.epochs.clone())));
    let arena = Arc::new(Arena::new(Box::new(memory.arena.clone()), hasher.clone()));
    Cache::sharing(settings(bytes_max / (share - 1) * share), hasher, epochs, arena)
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
        Found::Entry(entry, how) => Some((entry.body().bytes().unwrap().to_vec(), how)),
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
    fn the_cache_does_what_the_model_does(steps in prop::collection::vec((Just(0), step()), 1..80)) {
        // Little room, in one part: so that the least recently used go, and no lock splits the order.
        let bytes_max = 30_000;
        check(steps, &[cache(bytes_max)], bytes_max, false)?;
    }

    /// Several processes that share a cache, with little room for their copies, answer as one list would.
    #[test]
    fn processes_do_what_the_model_does(steps in prop::collection::vec((0..3usize, step()), 1..80)) {
        let memory = memory(4 << 20);
        let bytes_max = 30_000;
        let processes: Vec<Cache> = (0..3).map(|_| process(&memory, bytes_max)).collect();
        check(steps, &processes, bytes_max, true)?;
    }
}

/// Lets each step be done by one of the processes and by the model. `shared`: there is room for everything.
fn check(steps: Vec<(usize, Step)>, processes: &[Cache], bytes_max: usize, shared: bool) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut now = START;
    for (number, (process, step)) in steps.into_iter().enumerate() {
        let cache = &processes[process];
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
                let stored = store(cache, &request.head(""), &fields, cookies, &body, now);
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
                        used: {
                            model.clock += 1;
                            model.clock
                        },
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
                    while !shared && model.used() + bytes > bytes_max {
                        model.evict_one();
                    }
                    let list = model.kept.entry((request.host, request.path)).or_default();
                    list.retain(|other| {
                        (other.vary, &other.secondary, other.head) != (kept.vary, &kept.secondary, kept.head)
                    });
                    list.push(Kept { bytes, ..kept });
                } else {
                    prop_assert!(shared || cache.used() == before);
                }
            }
            Step::Ask { request, directive } => {
                let found = find(cache, &request.head(directive), now);
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
        prop_assert!(shared || cache.used() == model.used());
        prop_assert!(shared || cache.len() == model.kept.values().map(Vec::len).sum::<usize>());
        prop_assert!(cache.used() <= bytes_max);
    }
    Ok(())
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

/// Finds it so often that a large body is moved; the last that was found.
fn find_often(cache: &Cache, request: &Head) -> Arc<Entry> {
    let asked = Asked::read(request, true);
    let found = (0..limits::CACHE_FILE_FINDS).map(|_| {
        match cache.find(request, &asked, guard(Class::Get), START, &mut Buffers::default()) {
            Found::Entry(entry, _) => entry,
            Found::OtherVariant | Found::Nothing => panic!("it is there"),
        }
    });
    found.last().unwrap()
}

#[test]
fn a_large_body_that_is_asked_for_often_moves_and_counts_where_it_is() {
    const LARGE: usize = limits::CACHE_FILE_BYTES_MIN;
    let settings = Settings { response_bytes_max: 2 * LARGE, descriptors_max: 2, ..settings(1 << 20) };
    let cache = Cache::new(settings, RandomState::with_seeds(1, 2, 3, 4), Arc::new(Epochs::own()));
    let request = |name: &str| head_of(&format!("GET /{name} HTTP/1.1\nHost: a"));
    let keep = "Cache-Control: max-age=9\n";
    for (name, bytes, moves) in
        [("small", LARGE - 1, false), ("a", LARGE, true), ("b", LARGE, true), ("no descriptor is left", LARGE, false)]
    {
        let request = head_of(&format!("GET /{} HTTP/1.1\nHost: a", name.replace(' ', "-")));
        let body: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        assert!(store(&cache, &request, keep, None, &body, START));
        let before = cache.used();
        let entry = find_often(&cache, &request);
        assert_eq!(entry.body().memory().is_none(), moves, "{name}");
        assert!(entry.body().bytes().unwrap() == body, "{name}");
        // As much as before, but for whole pages and the kernel's records.
        let more = cache.used() - before;
        assert!(if moves { more < 2 * crate::reactor::memory_file::page_bytes() } else { more == 0 }, "{name}: {more}");
    }
    // Who was in the middle of it has it still; what was taken out isn't put in again.
    let sending = find_often(&cache, &request("a")).body();
    assert_eq!((cache.purge(&Purge::All, START), cache.descriptors.used()), (4, 1));
    assert!(cache.used() > LARGE && cache.is_empty());
    drop(sending);
    assert_eq!((cache.used(), cache.descriptors.used()), (0, 0));
}

#[test]
fn what_has_no_room_to_move_stays_and_pushes_nobody_out() {
    const LARGE: usize = limits::CACHE_FILE_BYTES_MIN;
    let with = |bytes_max| {
        let settings = Settings { response_bytes_max: 2 * LARGE, ..settings(bytes_max) };
        Cache::new(settings, RandomState::with_seeds(1, 2, 3, 4), Arc::new(Epochs::own()))
    };
    let request = |name: &str| head_of(&format!("GET /{name} HTTP/1.1\nHost: a"));
    let keep = "Cache-Control: max-age=9\n";
    let cache = with(2 * LARGE);
    assert!(store(&cache, &request("other"), keep, None, b"", START));
    assert!(store(&cache, &request("a"), keep, None, &[1; LARGE], START));
    assert!(find_often(&cache, &request("a")).body().memory().is_some());
    assert_eq!((cache.len(), cache.descriptors.used()), (2, 0));
    // A slow reader has what it would need.
    let cache = with(4 * LARGE);
    assert!(store(&cache, &request("b"), keep, None, &[2; 2 * LARGE - 2000], START));
    let _sending = find_often(&cache, &request("b")).body();
    assert!(store(&cache, &request("a"), keep, None, &[1; LARGE], START));
    assert!(find_often(&cache, &request("a")).body().memory().is_some());
    assert!(find(&cache, &request("a"), START).is_some(), "it is there still");
}

#[test]
fn a_copy_that_has_moved_is_renewed_for_all_processes() {
    const LARGE: usize = limits::CACHE_FILE_BYTES_MIN;
    let memory = memory(1 << 22);
    let one = |memory: &Memory| {
        let mut cache = process(memory, 1 << 22);
        cache.settings.response_bytes_max = 2 * LARGE;
        cache
    };
    let (here, there) = (one(&memory), one(&memory));
    let request = head_of("GET / HTTP/1.1\nHost: a");
    let body: Vec<u8> = (0..LARGE).map(|at| at as u8).collect();
    assert!(store(&here, &request, "Cache-Control: max-age=9\nETag: \"a\"\n", None, &body, START));
    // Copied for good when it is used again, and found often from then on.
    find_often(&here, &request);
    let entry = find_often(&here, &request);
    assert!(entry.body().memory().is_none() && here.descriptors.used() == 1);
    let wanted = here.wanted(&request, guard(Class::Get));
    let later = START + Duration::from_secs(5);
    let passing = Passing::parse(b"HTTP/1.1 304 X\r\nETag: \"a\"\r\nCache-Control: max-age=50\r\n\r\n").unwrap();
    let times = Times { asked: later, answered: later, answered_unix: UNIX };
    let renewed = here.renew(&wanted, &entry, &passing, &times).unwrap();
    assert!(Arc::ptr_eq(&renewed.body(), &entry.body()));
    for process in [&here, &there] {
        let (found, how) = find(process, &request, START + Duration::from_secs(30)).unwrap();
        assert!(found == body && how == Use::Fresh);
    }
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

// --- Processes that share a cache, die and stand still ----------------------------------------------------

const KEEP: &str = "Cache-Control: max-age=90\nETag: \"v\"\n";

fn second(number: u64) -> Instant {
    START + Duration::from_secs(number)
}

fn page(number: usize) -> Head {
    head_of(&format!("GET /{number} HTTP/1.1\nHost: a"))
}

/// A body that tells of which page and version it is in every line.
fn body(page: usize, version: usize, bytes: usize) -> Vec<u8> {
    format!("page {page:06} version {version:06}\n").into_bytes().into_iter().cycle().take(bytes).collect()
}

/// Which version a page is found in; that all of it is of one version.
fn version(cache: &Cache, number: usize, now: Instant) -> Option<usize> {
    let (found, _) = find(cache, &page(number), now)?;
    let version: usize = String::from_utf8_lossy(&found[20..26]).parse().unwrap();
    assert!(found == body(number, version, found.len()), "a page of pieces");
    Some(version)
}

/// Something that a process does.
type Deed = (&'static str, fn(&Cache), &'static [Option<usize>]);

/// What a process may be in the middle of, and the versions of page 0, which was in version 1, that others may find then.
const DEEDS: &[Deed] = &[
    ("store", |cache| assert!(store(cache, &page(0), KEEP, None, &body(0, 2, 500), second(2))), &[Some(1), Some(2)]),
    ("invalidate", |cache| assert!(cache.invalidate(b"a\0/0", second(2)) > 0), &[Some(1), None]),
    ("purge", |cache| assert!(cache.purge(&Purge::prefix(b"/").unwrap(), second(2)) > 0), &[Some(1), None]),
    (
        "renew",
        |cache| {
            let asked = Asked::read(&page(0), true);
            let wanted = cache.wanted(&page(0), guard(Class::Get));
            let found = cache.find(&page(0), &asked, guard(Class::Get), second(2), &mut Buffers::default());
            let Found::Entry(entry, _) = found else { panic!("it was stored") };
            let by = Passing::parse(b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=80\r\n\r\n").unwrap();
            let times = Times { asked: second(2), answered: second(2), answered_unix: UNIX };
            assert!(cache.renew(&wanted, &entry, &by, &times).is_some());
        },
        &[Some(1)],
    ),
    // The head comes round to page 0.
    (
        "move",
        |cache| {
            for number in 34..40 {
                assert!(store(cache, &page(number), KEEP, None, &body(number, 1, 500), second(2)));
            }
        },
        &[Some(1), None],
    ),
];

#[test]
fn a_process_that_is_killed_at_any_step_leaves_no_harm() {
    for (name, deed, outcomes) in DEEDS {
        let (mut fuse, mut dead) = (0, true);
        while dead {
            let memory = memory(32 << 10);
            let (one, other) = (process(&memory, 50_000), process(&memory, 50_000));
            assert!(store(&one, &page(0), KEEP, None, &body(0, 1, 500), second(1)));
            assert_eq!(version(&other, 0, second(1)), Some(1), "there is one cache");
            if *name == "move" {
                for number in 1..34 {
                    assert!(store(&other, &page(number), KEEP, None, &body(number, 1, 500), second(1)));
                }
            }
            dead = arena::tests::dies_at(fuse, || deed(&one));
            for cache in [&other, &process(&memory, 50_000)] {
                let found = version(cache, 0, second(3));
                assert!(outcomes.contains(&found), "{name}, step {fuse}: {found:?}");
            }
            // What is said after that holds, for everybody.
            let third = process(&memory, 50_000);
            assert!(store(&other, &page(0), KEEP, None, &body(0, 3, 700), second(4)));
            assert_eq!(version(&third, 0, second(4)), Some(3), "{name}, step {fuse}");
            other.invalidate(b"a\0/0", second(5));
            assert_eq!(
                (version(&third, 0, second(6)), version(&other, 0, second(6))),
                (None, None),
                "{name}, step {fuse}"
            );
            assert!(store(&third, &page(0), KEEP, None, &body(0, 4, 700), second(7)));
            assert_eq!(version(&other, 0, second(7)), Some(4), "{name}, step {fuse}");
            other.purge(&Purge::All, second(8));
            assert_eq!(version(&third, 0, second(9)), None, "{name}, step {fuse}");
            fuse += 1;
        }
        let whole_record = ["store", "renew", "move"].contains(name);
        assert!(fuse > if whole_record { 60 } else { 3 }, "{name} has {fuse} steps");
    }
}

#[test]
fn a_process_that_stands_still_for_a_round_does_no_harm() {
    let mut fuse = 0;
    let mut stood = true;
    while stood {
        let memory = memory(128 << 10);
        let (one, other) = (process(&memory, 50_000), process(&memory, 50_000));
        assert!(store(&one, &page(0), KEEP, None, &body(0, 1, 2_000), second(1)));
        let meanwhile = {
            let memory = memory.clone();
            move || {
                let busy = process(&memory, 50_000);
                for number in 1..200 {
                    store(&busy, &page(number % 60 + 1), KEEP, None, &body(number % 60 + 1, number, 1_500), second(3));
                }
            }
        };
        stood = arena::tests::stands_still_at(fuse, meanwhile, || {
            store(&one, &page(0), KEEP, None, &body(0, 2, 2_000), second(2));
        });
        for cache in [&one, &other] {
            for number in 0..62 {
                let _ = version(cache, number, second(4));
            }
        }
        assert!(store(&other, &page(0), KEEP, None, &body(0, 3, 2_000), second(5)));
        assert_eq!(version(&one, 0, second(5)), Some(3), "step {fuse}");
        fuse += 1;
    }
    assert!(fuse > 250, "{fuse}: a word is a step");
}

/// Processes that do everything at once and are killed at random: nobody is ever given a page that was never made, or is older than
/// what has invalidated it.
#[test]
fn processes_that_die_all_the_time() {
    const PAGES: usize = 40;
    let memory = memory(96 << 10);
    let clock = AtomicU64::new(START.as_nanos());
    let tick = || Instant::from_nanos(clock.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1);
    // The number of each page's last invalidation that has ended, and of the last version that was begun.
    let dead_up_to: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::default()).collect();
    let versions = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (memory, tick, dead_up_to, versions) = (&memory, &tick, &dead_up_to, &versions);
            scope.spawn(move || {
                let mut random = thread.wrapping_mul(0x9e37_79b9) | 1;
                let mut next = move |below: usize| {
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    random as usize % below
                };
                let mut cache = process(memory, 20_000);
                for _ in 0..3_000 {
                    let (number, what, bytes, fuse) = (next(PAGES), next(10), 100 + next(3_000), next(2_000));
                    let died = arena::tests::dies_at(fuse, || match what {
                        0 => {
                            let before = versions.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            cache.invalidate(format!("a\0/{number}").as_bytes(), tick());
                            dead_up_to[number].fetch_max(before, std::sync::atomic::Ordering::SeqCst);
                        }
                        1..5 => {
                            let asked = tick();
                            let version = versions.fetch_add(1, std::sync::atomic::Ordering::SeqCst) as usize;
                            store(&cache, &page(number), KEEP, None, &body(number, version, bytes), asked);
                        }
                        _ => {
                            let dead = dead_up_to[number].load(std::sync::atomic::Ordering::SeqCst);
                            if let Some(version) = version(&cache, number, tick()) {
                                assert!(version as u64 > dead, "{version} of {number} is dead since {dead}");
                            }
                        }
                    });
                    if died {
                        cache = process(memory, 20_000);
                    }
                }
            });
        }
    });
    let last = process(&memory, 20_000);
    for number in 0..PAGES {
        assert!(store(&last, &page(number), KEEP, None, &body(number, 7, 100), tick()));
        assert_eq!(version(&last, number, tick()), Some(7));
    }
}

proptest! {
    /// Whatever stands in the memory: nothing panics, and nothing is found that wasn't stored.
    #[test]
    fn memory_that_was_scribbled_on(words in prop::collection::vec((any::<usize>(), any::<u64>(), 0..64u32), 1..400)) {
        let memory = memory(32 << 10);
        let (one, other) = (process(&memory, 50_000), process(&memory, 50_000));
        for number in 0..20 {
            prop_assert!(store(&one, &page(number), KEEP, None, &body(number, 1, 40 * number + 26), second(1)));
        }
        for (at, value, shift) in words {
            let words = &memory.arena.0;
            words[at % words.len()].fetch_xor(value >> shift, std::sync::atomic::Ordering::SeqCst);
        }
        for number in 0..20 {
            let found = version(&other, number, second(2));
            prop_assert!(found.is_none_or(|version| version == 1));
            store(&other, &page(number), KEEP, None, &body(number, 2, 40 * number + 26), second(3));
            let found = version(&one, number, second(4));
            prop_assert!(found.is_none_or(|version| version < 3));
        }
        other.invalidate(b"a\0/3", second(5));
        other.purge(&Purge::All, second(6));
        prop_assert!(version(&other, 5, second(7)).is_none());
    }
}

/// The copies are few, the memory is bounded, and what is asked for now and then stays.
#[test]
fn what_is_used_stays_in_shared_memory() {
    let memory = memory(256 << 10);
    let (one, other) = (process(&memory, 20_000), process(&memory, 20_000));
    assert!(store(&one, &page(0), KEEP, None, &body(0, 1, 500), second(1)));
    let mut number = 1;
    for _ in 0..100 {
        for _ in 0..40 {
            assert!(store(&one, &page(number), KEEP, None, &body(number, 1, 500), second(1)));
            number += 1;
        }
        let asked = if number % 3 == 0 { &one } else { &other };
        assert_eq!(version(asked, 0, second(2)), Some(1), "after {number} others");
    }
    let third = process(&memory, 20_000);
    assert_eq!(version(&third, 0, second(2)), Some(1));
    assert_eq!(version(&third, 1, second(2)), None, "what nobody asks for goes");
}

/// How many of 1,000 requests are hits, of pages that don't all fit, asked for of one process after the other; and the bytes in use.
fn hits_of(processes: &[Cache], pages: usize, choose: impl Fn(f64) -> usize) -> (usize, usize) {
    let mut random = 1u64;
    let (mut hits, mut used) = (0, 0);
    let requests = pages * 16;
    for request in 0..requests {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = choose((random >> 11) as f64 / (1u64 << 53) as f64).min(pages - 1);
        let cache = &processes[(random % 1_009) as usize % processes.len()];
        let now = START + Duration::from_millis(request as u64 / 1_000);
        // Of the second half, when all is as it stays.
        if version(cache, number, now).is_some() {
            hits += usize::from(request >= requests / 2);
        } else {
            assert!(store(cache, &page(number), KEEP, None, &body(number, 1, 100 + number * 7919 % 12_000), now));
        }
        used = used.max(processes.iter().map(Cache::used).sum());
    }
    (hits * 2_000 / requests, used)
}

#[test]
fn the_hit_rate_does_not_fall_with_the_number_of_processes() {
    const SIZE: usize = 2 << 20;
    const COUNT: usize = 4;
    // Of 1,000 pages of 6 kB on the average a third fits. Few are asked for often, as on most sites; or all alike.
    let zipf = |exponent: f64| {
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=1_000)
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        move |chance: f64| sums.partition_point(|below| below / sum < chance) * 797 % 1_000
    };
    type Choose = Box<dyn Fn(f64) -> usize>;
    let choices: [(&str, Choose); 4] = [
        ("Zipf 0.8", Box::new(zipf(0.8))),
        ("Zipf 1.0", Box::new(zipf(1.0))),
        ("square", Box::new(|chance| (chance * chance * 1_000.0) as usize)),
        ("uniform", Box::new(|chance| (chance * 1_000.0) as usize)),
    ];
    for (name, choose) in choices {
        let alone = Cache::new(settings(SIZE), RandomState::with_seeds(1, 2, 3, 4), Arc::new(Epochs::own()));
        let (one, _) = hits_of(&[alone], 1_000, &choose);
        let copies = SIZE / limits::CACHE_COPIES_SHARE;
        let memory = memory(SIZE - copies);
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let processes: Vec<Cache> = (0..COUNT)
            .map(|_| {
                let epochs = Arc::new(Epochs::shared(Box::new(memory.epochs.clone())));
                let arena = Arc::new(Arena::new(Box::new(memory.arena.clone()), hasher.clone()));
                Cache::sharing(settings(copies / COUNT), hasher.clone(), epochs, arena)
            })
            .collect();
        let (several, used) = hits_of(&processes, 1_000, &choose);
        println!("{name}: {one} of 1,000 are hits in one process, {several} with {COUNT}; copies {used} of {copies}");
        assert!(several * 100 >= one * 97, "{name}: {several} hits with {COUNT} processes, {one} with one");
        assert!(used <= copies && size_of_val(&*memory.arena.0) <= SIZE - copies);
    }
}

#[test]
fn a_new_generation_begins_without_the_pages_of_the_old() {
    let memory = memory(64 << 10);
    let old = process(&memory, 50_000);
    assert!(store(&old, &page(0), KEEP, None, &body(0, 1, 500), second(1)));
    for _ in 0..3 {
        assert_eq!(version(&old, 0, second(2)), Some(1));
    }
    let new = process(&memory, 50_000);
    let arena = new.arena.as_ref().expect("it shares");
    arena.begin_generation();
    assert_eq!(version(&new, 0, second(2)), Some(1), "as long as both serve");
    assert!(store(&old, &page(1), KEEP, None, &body(1, 1, 500), second(2)));
    arena.succeed();
    for cache in [&old, &new] {
        assert_eq!((version(cache, 0, second(3)), version(cache, 1, second(3))), (None, None));
        assert_eq!(cache.purge(&Purge::All, second(3)), 0);
    }
    assert!(!store(&old, &page(1), KEEP, None, &body(1, 2, 500), second(4)), "old code");
    assert_eq!(version(&new, 1, second(4)), None);
    assert!(store(&new, &page(1), KEEP, None, &body(1, 3, 500), second(4)));
    assert_eq!((version(&old, 1, second(4)), version(&new, 1, second(4))), (Some(3), Some(3)));
    // Nothing of it comes back when the head comes round to it.
    for number in 2..300 {
        assert!(store(&new, &page(number), KEEP, None, &body(number, 1, 500), second(5)));
        assert_eq!((version(&new, 0, second(5)), version(&new, 1, second(5))), (None, Some(3)), "after {number}");
    }
}
