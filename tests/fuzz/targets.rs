//! Fuzz targets: plain functions of bytes that panic when a promise is broken. Know nothing of where the bytes come from.
//!
//! The first [`PLAN_BYTES`] bytes choose limits and the places where the rest is split; the rest is what a client sends.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ahash::RandomState;
use hoopsnake::config::{self, Outcome};
use hoopsnake::reactor::Outgoing;
use hoopsnake::reactor::clock::Instant;
use hoopsnake::reactor::open::Wait;
use hoopsnake::serve::http1::encode::{is_field_value, is_token};
use hoopsnake::serve::http1::{BodyDecoder, Framing, Head, HeadLimits, Refusal, Step, Version};
use hoopsnake::serve::local::cache::arena::Arena;
use hoopsnake::serve::local::cache::directives::{Members, Request as RequestDirectives, Response};
use hoopsnake::serve::local::cache::entry::Passing;
use hoopsnake::serve::local::cache::epochs::Words;
use hoopsnake::serve::local::cache::key::Vary;
use hoopsnake::serve::local::cache::record::Stored;
use hoopsnake::serve::local::cache::request::{Asked, Condition, is_https};
use hoopsnake::serve::local::files::answer::{Answer, Moment};
use hoopsnake::serve::local::files::{Found, Given, Request, Search, Settings, Target, map};

/// Bytes at the start of an input that aren't sent.
pub const PLAN_BYTES: usize = 4;

/// Limits and splits, as chosen by the first bytes of an input.
struct Plan {
    limits: u8,
    strides: [u8; PLAN_BYTES - 1],
}

impl Plan {
    fn cut(data: &[u8]) -> Option<(Self, &[u8])> {
        let ([limits, strides @ ..], input) = data.split_first_chunk::<PLAN_BYTES>()?;
        Some((Self { limits: *limits, strides: *strides }, input))
    }

    /// The end of every piece, in order; the last one is `length`.
    fn ends(&self, length: usize) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut end = 0;
        for stride in self.strides.iter().cycle() {
            end += usize::from(*stride) / 4 + 1;
            if end >= length {
                break;
            }
            ends.push(end);
        }
        ends.push(length);
        ends
    }
}

// --- Heads -----------------------------------------------------------------------------------------

/// Request heads: any split gives the same answer, no limit is passed, and what is accepted is well-formed.
pub fn head(data: &[u8]) {
    let Some((plan, input)) = Plan::cut(data) else { return };
    let limits = match plan.limits % 4 {
        0 => HeadLimits { request_line_bytes_max: 30, head_bytes_max: 100, fields_max: 3 },
        1 => HeadLimits { request_line_bytes_max: 100, head_bytes_max: 60, fields_max: 100 },
        _ => HeadLimits { request_line_bytes_max: 16 * 1024, head_bytes_max: 64 * 1024, fields_max: 128 },
    };
    // Used before, as nearly always.
    let mut whole = Head::default();
    let earlier = b"PUT http://earlier/?q HTTP/1.0\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(whole.parse(earlier, 0, &limits_of_default()), Ok(Some(earlier.len())));
    let outcome = whole.parse(input, 0, &limits);

    let mut pieces = Head::default();
    let mut scanned = 0;
    let mut in_pieces = Ok(None);
    for end in plan.ends(input.len()) {
        in_pieces = pieces.parse(&input[..end], scanned, &limits);
        scanned = end;
        if in_pieces != Ok(None) {
            break;
        }
    }
    assert_eq!(in_pieces, outcome, "split and whole");
    match outcome {
        Ok(Some(consumed)) => {
            assert_eq!(meaning(&pieces), meaning(&whole), "split and whole");
            check_accepted(&whole, &input[..consumed], &limits);
        }
        Ok(None) => assert!(input.len() < limits.head_bytes_max + 2 && whole.bytes.is_empty()),
        Err(refusal) => {
            assert!((400..=505).contains(&refusal.status()) && !refusal.detail().is_empty());
            assert!(whole.bytes.len() <= limits.request_line_bytes_max && whole.fields.is_empty());
        }
    }
    assert!(whole.bytes.capacity() <= 2 * limits.head_bytes_max.max(earlier.len()), "memory is bounded by the limit");
}

fn limits_of_default() -> HeadLimits {
    HeadLimits { request_line_bytes_max: 16 * 1024, head_bytes_max: 64 * 1024, fields_max: 128 }
}

/// Everything a head says, for comparison.
fn meaning(head: &Head) -> impl PartialEq + std::fmt::Debug + use<> {
    let spans = [head.method, head.target, head.path, head.query, head.host];
    (spans, head.version, head.fields.clone(), head.framing, head.keep_alive, head.expect_continue, head.bytes.clone())
}

/// What must hold of every accepted head, said without the parser's help.
fn check_accepted(head: &Head, consumed: &[u8], limits: &HeadLimits) {
    assert!(consumed.ends_with(&head.bytes) && head.bytes.ends_with(b"\r\n\r\n"));
    assert!(matches!(&consumed[..consumed.len() - head.bytes.len()], b"" | b"\r\n"));
    assert!(head.bytes.len() <= limits.head_bytes_max && head.fields.len() <= limits.fields_max);
    let lines: Vec<&[u8]> = head.bytes.split(|&byte| byte == b'\n').collect();
    assert_eq!(lines.len(), head.fields.len() + 3, "one line is one field");
    for line in &lines[..lines.len() - 1] {
        let text = line.strip_suffix(b"\r").expect("every LF follows a CR");
        assert!(is_field_value(text), "no control characters");
    }
    let texts = [head.method, head.target].map(|span| head.get(span));
    let version = if head.version == Version::Http11 { "HTTP/1.1" } else { "HTTP/1.0" };
    assert_eq!([texts[0], b" ", texts[1], b" ", version.as_bytes(), b"\r"].concat(), lines[0]);
    assert!(is_token(texts[0]) && !head.get(head.path).is_empty());
    let mut hosts = 0;
    let mut lengths = 0;
    let mut codings = 0;
    for (field, line) in head.fields.iter().zip(&lines[1..]) {
        let (name, value) = (head.get(field.name), head.get(field.value));
        assert!(is_token(name) && line.starts_with(&[name, b":"].concat()) && line.trim_ascii_end().ends_with(value));
        hosts += usize::from(name.eq_ignore_ascii_case(b"host"));
        lengths += usize::from(name.eq_ignore_ascii_case(b"content-length"));
        codings += usize::from(name.eq_ignore_ascii_case(b"transfer-encoding"));
    }
    assert!(hosts == 1 || (hosts == 0 && head.version == Version::Http10));
    assert_eq!(
        (lengths, codings),
        match head.framing {
            Framing::None => (0, 0),
            Framing::Length(_) => (1, 0),
            Framing::Chunked => (0, 1),
        }
    );
    assert!(!head.expect_continue || head.framing != Framing::None);
}

// --- Files -----------------------------------------------------------------------------------------

/// The folder that requests for files are looked up in: small and large files, a sibling, and a secret beside it.
fn site() -> &'static (tempfile::TempDir, Arc<Settings>) {
    static SITE: OnceLock<(tempfile::TempDir, Arc<Settings>)> = OnceLock::new();
    SITE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a writable temporary folder");
        fs::create_dir_all(folder.path().join("site/deep")).expect("a writable folder");
        let files: [(&str, &[u8]); 5] = [
            ("site/a.txt", b"0123456789"),
            ("site/a.txt.gz", b"zipped"),
            ("site/b.bin", &[7; 100_000]),
            ("site/deep/c", b""),
            ("secret", b"SECRET"),
        ];
        for (name, content) in files {
            fs::write(folder.path().join(name), content).expect("a writable folder");
        }
        let map = format!("--static-map=/s={}/site", folder.path().display());
        let Ok(Outcome::Run(config, _)) = config::from(&[map.into()], &[], &|_| Ok(Vec::new())) else {
            panic!("a good command line")
        };
        let settings = Settings::new(&config).expect("a working directory").expect("a map");
        (folder, Arc::new(settings))
    })
}

/// Requests for files: nothing outside is found, the length is the one that is announced, no more is sent than there is.
pub fn file(data: &[u8]) {
    let Some((plan, input)) = Plan::cut(data) else { return };
    let mut head = Head::default();
    if !matches!(head.parse(input, 0, &limits_of_default()), Ok(Some(_))) {
        return;
    }
    let Some(path) = map::clean(head.get(head.path)) else { return };
    let (_, settings) = site();
    let target = Target::Static(path.into_owned());
    let search = Search { settings: Arc::clone(settings), target, known: None, now: 1_000_000_000 };
    let Ok(Found::File(record)) = search.run(Wait::Allowed) else { return };
    let given = (plan.limits % 4 == 0).then(|| Given::parse(&[b"HTTP/1.1 200 OK\r\n", input].concat()));
    let moment = Moment { now: 1_000_000_000, date: [b'd'; 29], expires: [b'e'; 29] };
    let answer = Answer {
        record: &record,
        settings,
        given: given.as_ref(),
        moment: &moment,
        version: head.version,
        keep_alive: head.keep_alive,
        boundary: 1,
    };
    let mut outgoing = Outgoing::new();
    let request = Request::gather(&head);
    let made = answer.make(&request, Vec::new(), &mut outgoing).expect("there is a file");
    assert_eq!(outgoing.remaining(), made.head_bytes as u64 + made.body_bytes);
    assert!(matches!(made.status, 200 | 206 | 304 | 412 | 416));
    assert!(made.body_bytes < 100_000 + 32 * 300, "{}", made.body_bytes);
    let front = outgoing.front_bytes().expect("the head").to_vec();
    assert!(!front.windows(6).any(|window| window == b"SECRET"));
    let Some(text) = std::str::from_utf8(&front[..made.head_bytes]).ok().filter(|_| given.is_none()) else { return };
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    let sent = (!request.head_only && made.status != 304).then_some(made.body_bytes);
    assert!(sent.is_none() || length == sent, "{text}");
}

// --- Bodies ----------------------------------------------------------------------------------------

/// What is under test: [`BodyDecoder`], or a decoder known to be broken.
pub trait Decode: Sized {
    /// As [`BodyDecoder::new`].
    fn start(framing: Framing, bytes_max: u64) -> Result<Self, Refusal>;
    /// As [`BodyDecoder::decode`].
    fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Refusal>;
}

impl Decode for BodyDecoder {
    fn start(framing: Framing, bytes_max: u64) -> Result<Self, Refusal> {
        Self::new(framing, bytes_max)
    }

    fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Refusal> {
        self.decode(input)
    }
}

/// Request bodies: any split gives the same body, end or fault, and no limit is passed.
pub fn body(data: &[u8]) {
    body_by::<BodyDecoder>(data);
}

/// [`body`] with another decoder.
pub fn body_by<D: Decode>(data: &[u8]) {
    let Some((plan, input)) = Plan::cut(data) else { return };
    let framing = match plan.limits % 8 {
        0 => Framing::None,
        1 => Framing::Length(u64::from(plan.limits / 8)),
        _ => Framing::Chunked,
    };
    let bytes_max = if plan.limits < 128 { 20 } else { u64::MAX };
    let whole = decode::<D>(framing, bytes_max, input, &[input.len()]);
    let in_pieces = decode::<D>(framing, bytes_max, input, &plan.ends(input.len()));
    assert_eq!(in_pieces, whole, "split and whole");
    if let Ok((body, consumed, _)) = whole {
        assert!(consumed <= input.len() && body.len() <= consumed && body.len() as u64 <= bytes_max);
    }
}

/// Body, bytes used, and whether it is complete.
fn decode<D: Decode>(
    framing: Framing,
    bytes_max: u64,
    input: &[u8],
    ends: &[usize],
) -> Result<(Vec<u8>, usize, bool), Refusal> {
    let mut decoder = D::start(framing, bytes_max)?;
    let (mut body, mut used) = (Vec::new(), 0);
    for &end in ends {
        loop {
            match decoder.step(&input[used..end])? {
                Step::Data { data, consumed } => {
                    assert!(!data.is_empty() && data.len() <= consumed);
                    body.extend_from_slice(data);
                    used += consumed;
                }
                Step::NeedMore { consumed } => {
                    used += consumed;
                    assert_eq!(used, end, "nothing is left to the caller");
                    break;
                }
                Step::Done { consumed } => return Ok((body, used + consumed, true)),
            }
        }
    }
    Ok((body, used, false))
}

// --- The cache -------------------------------------------------------------------------------------

/// `Cache-Control`: never misread in the direction of storing or of using more. What is added to a list makes it stricter at most.
pub fn cache_control(data: &[u8]) {
    let Some((_, input)) = Plan::cut(data) else { return };
    for (name, argument) in Members(input) {
        assert!(!name.contains(&b'=') && argument.is_none_or(|argument| argument.len() < input.len()));
    }
    let response = |values: &[&[u8]]| Response::read(values.iter().copied());
    let (alone, with) = (response(&[input]), response(&[input, b"no-store, private, max-age=1"]));
    assert!(with.no_store && with.private && with.max_age.is_some_and(|age| age <= 1));
    assert!(with.no_cache == alone.no_cache && with.must_revalidate == alone.must_revalidate);
    assert!(alone.s_maxage.is_none_or(|age| age <= 1 << 31));
    let request = RequestDirectives::read([input, b"no-cache, max-age=1"].into_iter(), false);
    assert!(request.no_cache && request.max_age.is_some_and(|age| age <= 1));
}

/// Memory that processes share, kept for a test.
#[derive(Clone)]
struct Memory(Arc<[AtomicU64]>);

impl Words for Memory {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// Whatever a process that crashed has left in the memory of the cache: nothing is shown that wasn't stored, nothing panics, nothing hangs.
/// Each ten bytes of input, eight times at most, change a word.
pub fn cache_memory(data: &[u8]) {
    let Some((plan, input)) = Plan::cut(data) else { return };
    let _ = Stored::read(input);
    let memory = Memory((0..Arena::words(8 << 10)).map(|_| AtomicU64::default()).collect());
    let arena = || Arena::new(Box::new(memory.clone()), RandomState::with_seeds(1, 2, 3, 4));
    let (one, other) = (arena(), arena());
    let page = |number: u64| (format!("page {number}").into_bytes(), vec![number as u8; number as usize * 37 % 900]);
    let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let store = |arena: &Arena, number| {
        let (meta, body) = page(number);
        arena.publish(hash(number), &meta, &body, || true)
    };
    let mut number = 0;
    let mut changes = input.chunks_exact(10).take(8);
    loop {
        for _ in 0..plan.limits % 16 + 1 {
            number += 1;
            if let Some(location) = store(&one, number) {
                if number % 3 == 0 {
                    other.touch(location.place);
                }
            }
        }
        for seen in number.saturating_sub(12)..=number {
            other.look(hash(seen), &mut Vec::new(), |record, meta| {
                let id = meta.strip_prefix(b"page ").and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
                let Some(id) = id.filter(|id| (1..=number).contains(id)) else { panic!("{meta:?} wasn't stored") };
                assert!(other.body(&record).is_none_or(|body| *body == page(id).1));
            });
        }
        let Some([low, high, word @ ..]) = changes.next().and_then(|change| change.first_chunk::<10>()) else { break };
        // The first words, of which there are few, as often as all others.
        let at = u16::from_le_bytes([*low, high & 0x7f]) as usize;
        let at = if high & 0x80 == 0 { at % memory.0.len() } else { at % memory.0.len().min(300) };
        memory.0[at].fetch_xor(u64::from_le_bytes(*word), Ordering::SeqCst);
        match number % 5 {
            0 => drop(other.take_away(hash(number), true, |_, _| true)),
            1 => drop(other.take_away_all(|_, meta| meta.ends_with(b"7"))),
            2 => other.begin_generation(),
            _ => {}
        }
    }
    other.begin_generation();
    other.succeed();
    // Of an old generation, unless the word that says so was scribbled over.
    assert!(input.len() >= 10 || store(&one, 0).is_none());
}

/// What a request and a response say to a cache: read without a panic, and the same each time.
pub fn cache_message(data: &[u8]) {
    let Some((_, input)) = Plan::cut(data) else { return };
    if let Some(passing) = Passing::parse(input) {
        let times = hoopsnake::serve::local::cache::freshness::Times {
            asked: Instant::from_nanos(5),
            answered: Instant::from_nanos(9),
            answered_unix: 1_000_000_000,
        };
        let ceiling = std::time::Duration::from_secs(100);
        let fresh = passing.freshness(&times, ceiling);
        assert!(fresh.lifetime <= ceiling && fresh.age(Instant::NEVER) >= fresh.initial_age);
        passing.candidate(fresh, false, false, 0);
    }
    let mut head = Head::default();
    if head.parse(input, 0, &limits_of_default()).is_ok_and(|used| used.is_some()) {
        let (asked, condition) = (Asked::read(&head, true), Condition::of(&head));
        assert!(!condition.holds(None, None) || asked.conditional);
        is_https(&head);
        // Whatever the client sends is told from what another one sends, and from nothing.
        let vary = Vary::read([b"Accept, Cookie".as_slice()].into_iter(), Some(b"a, b")).expect("no star");
        let (mut once, mut again) = (Vec::new(), Vec::new());
        vary.secondary(&head, &mut once);
        vary.secondary(&head, &mut again);
        assert_eq!(once, again);
        assert!(once.len() <= 3 * head.bytes.len() + 16);
    }
}
