//! A stored response: taken apart when it passes, kept ready to be sent, renewed by a 304 (RFC 9111 §3.1, §3.2, §4.3.4).
//!
//! Once made an entry doesn't change; who holds one may send it, whatever becomes of it in the store. Its memory counts until the
//! last holder has let go.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::arena::Location;
use super::body::{Body, Descriptor};
use super::directives::{self, delta_seconds};
use super::freshness::{Dates, Freshness, Times, http_date};
use super::key::Vary;
use super::record::Stored;
use super::request::{is_tag, opaque};
use super::rules::{self, Candidate, Class};
use crate::limits;
use crate::reactor::clock::Instant;
use crate::serve::http1::encode;

/// The head of a response that a worker has made: status line and fields.
pub struct Passing<'a> {
    /// Status code.
    pub status: u16,
    line: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
    /// Its `Cache-Control`.
    pub directives: directives::Response,
}

impl<'a> Passing<'a> {
    /// Takes apart the head of a response, with or without its blank line. `None` if it has more fields than
    /// [`limits::CACHE_FIELDS_MAX`]: then it isn't stored.
    pub fn parse(head: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b'\n', head)?;
        let line = head[..end].strip_suffix(b"\r")?;
        let digits = line.get(9..12).and_then(delta_seconds)?;
        let mut fields = Vec::with_capacity(16);
        for field in head[end + 1..].split(|&byte| byte == b'\n') {
            let field = field.strip_suffix(b"\r").unwrap_or(field);
            if field.is_empty() {
                continue;
            }
            let colon = memchr::memchr(b':', field)?;
            if fields.len() == limits::CACHE_FIELDS_MAX {
                return None;
            }
            fields.push((&field[..colon], field[colon + 1..].trim_ascii()));
        }
        let mut passing = Self { status: digits as u16, line, fields, directives: directives::Response::default() };
        passing.directives = directives::Response::read(passing.all("cache-control"));
        Some(passing)
    }

    /// The values of all fields of this name, in order.
    pub fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |(found, _): &&(&[u8], &[u8])| found.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|(_, value)| *value)
    }

    /// The value of the first field of this name.
    pub fn first(&self, name: &'static str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Whether its body comes in chunks.
    pub fn is_chunked(&self) -> bool {
        self.first("transfer-encoding").is_some()
    }

    /// `Content-Length`, if it has one.
    pub fn length(&self) -> Option<u64> {
        std::str::from_utf8(self.first("content-length")?).ok()?.parse().ok()
    }

    fn dates(&self) -> Dates {
        // RFC 9111 §5.3, §5.1: of several the first is used; what can't be read has expired, or says nothing.
        Dates {
            date: self.first("date").and_then(http_date),
            expires: self.first("expires").map(http_date),
            age: self.first("age").and_then(delta_seconds).unwrap_or(0),
        }
    }

    /// Its freshness; `ceiling`: `--max-age`.
    pub fn freshness(&self, times: &Times, ceiling: Duration) -> Freshness {
        Freshness::new(&self.directives, &self.dates(), times, ceiling)
    }

    /// What decides whether it may be stored.
    pub fn candidate(&self, freshness: Freshness, authorization: bool, no_store: bool, body_bytes: usize) -> Candidate {
        Candidate {
            status: self.status,
            directives: self.directives,
            set_cookie: self.first("set-cookie").is_some(),
            vary_all: self.vary(None).is_none(),
            authorization,
            request_no_store: no_store,
            freshness,
            bytes: self.head_bytes().saturating_add(body_bytes),
        }
    }

    /// What it depends on; `None` for `Vary: *`.
    pub fn vary(&self, cookies: Option<&[u8]>) -> Option<Vary> {
        Vary::read(self.all("vary"), cookies)
    }

    /// Bytes of its head when stored, or a little more.
    pub fn head_bytes(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        self.line.len() + fields + 64
    }

    /// Appends what is stored of the head: without what is another connection's, and what is told anew each time.
    fn stored_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.line);
        out.extend_from_slice(b"\r\n");
        for (name, value) in self.fields.iter().filter(|(name, _)| !is_told_anew(name)) {
            append_field(out, name, value);
        }
    }
}

fn append_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// Fields that aren't stored (RFC 9111 §3.1), or are rendered for each answer.
fn is_told_anew(name: &[u8]) -> bool {
    is_one_of(name, &["connection", "keep-alive", "transfer-encoding", "content-length", "age"])
}

/// Fields of a 304 that don't renew those stored (RFC 9111 §3.2): they describe the stored body.
fn is_of_the_body(name: &[u8]) -> bool {
    is_told_anew(name) || is_one_of(name, &["content-encoding", "content-type", "content-range"])
}

/// Fields that a 304 repeats (RFC 9110 §15.4.5).
fn is_in_304(name: &[u8]) -> bool {
    is_one_of(name, &["cache-control", "content-location", "date", "etag", "expires", "vary", "server"])
}

/// Bytes that a store has; what is charged to it is given back when the last [`Charge`] of it is dropped.
#[derive(Debug, Default)]
pub struct Account(AtomicUsize);

impl Account {
    /// Bytes charged.
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Charges `bytes`.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.0.fetch_add(bytes, Ordering::AcqRel);
        Charge { account: Arc::clone(self), bytes }
    }
}

/// Memory that counts as long as this lives.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Charge {
    /// Takes `bytes` of it into one of its own.
    fn split(&mut self, bytes: usize) -> Charge {
        debug_assert!(bytes <= self.bytes, "no more than there is");
        self.bytes -= bytes;
        Charge { account: Arc::clone(&self.account), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// To whom an entry may be shown, beside what its primary key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// Which listener the request came through: an application may answer each in another way.
    pub listener: u16,
    /// `wsgi.url_scheme`.
    pub https: bool,
    /// Method.
    pub class: Class,
}

/// A stored response.
pub struct Entry {
    /// Status code.
    pub status: u16,
    /// How fresh it is.
    pub freshness: Freshness,
    /// Whether it may be used for requests with `Authorization`.
    pub public: bool,
    /// For which requests it was stored.
    pub guard: Guard,
    vary: Vary,
    secondary: Box<[u8]>,
    /// Status line and field lines, without blank line.
    head: Box<[u8]>,
    /// Where that is may change, what is in it never does.
    body: Mutex<Arc<Body>>,
    body_bytes: usize,
    /// How often it was found, if the body is large.
    finds: AtomicU32,
    /// Content-Length, where there is one.
    length: Option<u64>,
    etag: Option<Box<[u8]>>,
    last_modified: Option<u64>,
    /// What it is a copy of.
    pub(super) origin: Origin,
    _charge: Charge,
}

/// Which record of the memory that processes share an entry is a copy of, if there is such memory; zeros otherwise.
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// The count of changes at which it was one.
    pub seen: AtomicU64,
    place: AtomicUsize,
    born: AtomicU64,
}

impl Origin {
    /// Where the record is, or was.
    pub fn location(&self) -> Location {
        Location { place: self.place.load(Ordering::Relaxed), born: self.born.load(Ordering::Relaxed) }
    }

    /// It is there now.
    pub fn locate(&self, location: Location) {
        self.place.store(location.place, Ordering::Relaxed);
        self.born.store(location.born, Ordering::Relaxed);
    }
}

/// Bytes of bookkeeping for an entry: itself, its body's owner, its places in the list, the table and the key's table, each of the
/// latter at most half empty.
const OVERHEAD_BYTES: usize = size_of::<Entry>() + size_of::<Body>() + 4 * 64 + 128;

/// What an allocation of `bytes` really takes: the allocator has eight sizes from one power of two to the next.
fn allocated(bytes: usize) -> usize {
    let step = (bytes.max(64).next_power_of_two() / 16).max(16);
    bytes.div_ceil(step) * step
}

/// Bytes that an entry will be charged.
pub fn cost(key: &[u8], head_bytes: usize, vary: &Vary, secondary: &[u8], body_bytes: usize) -> usize {
    OVERHEAD_BYTES
        + [key.len() + 16, head_bytes, vary.len(), secondary.len(), body_bytes]
            .into_iter()
            .map(allocated)
            .sum::<usize>()
}

impl Entry {
    /// A response with its whole body, in the room that `charge` stands for.
    pub fn new(
        passing: &Passing<'_>,
        freshness: Freshness,
        guard: Guard,
        vary: Vary,
        secondary: &[u8],
        body: Box<[u8]>,
        mut charge: Charge,
    ) -> Self {
        let mut head = Vec::with_capacity(passing.head_bytes());
        passing.stored_head(&mut head);
        // RFC 9110 §8.6: none in a 204; after HEAD, what the application said.
        let length = match passing.status {
            204 => None,
            _ if guard.class == Class::Head => passing.length(),
            _ => Some(body.len() as u64),
        };
        let body_charge = charge.split(allocated(body.len()));
        Self {
            status: passing.status,
            freshness,
            public: rules::allows_authorization(&passing.directives),
            guard,
            vary,
            secondary: secondary.into(),
            etag: etag_of(&head),
            last_modified: last_modified_of(&head),
            head: head.into_boxed_slice(),
            body_bytes: body.len(),
            body: Mutex::new(Arc::new(Body::new(body, body_charge))),
            finds: AtomicU32::new(0),
            length,
            origin: Origin::default(),
            _charge: charge,
        }
    }

    /// This entry as renewed by a 304 of the application; `None` if that is about another response (§4.3.4). The body is shared.
    /// Whether the result may be stored is for the caller to ask of the second value.
    pub fn renewed(
        &self,
        by: &Passing<'_>,
        times: &Times,
        ceiling: Duration,
        account: &Arc<Account>,
    ) -> Option<(Self, Candidate)> {
        if by.first("etag").is_some_and(|tag| self.etag().is_none_or(|own| opaque(own) != opaque(tag))) {
            return None;
        }
        let stored = Passing::parse(&self.head)?;
        let is_renewed =
            |name: &[u8]| !is_of_the_body(name) && by.fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let kept = stored.fields.iter().filter(|(name, _)| !is_renewed(name));
        let new = by.fields.iter().filter(|(name, _)| !is_of_the_body(name));
        let mut head = Vec::with_capacity(self.head.len() + by.head_bytes());
        head.extend_from_slice(stored.line);
        head.extend_from_slice(b"\r\n");
        for (name, value) in kept.chain(new) {
            append_field(&mut head, name, value);
        }
        let merged = Passing::parse(&head)?;
        // §4.2.3: the age of what the application has just confirmed is told by its answer, not by what was stored.
        let mut dates = merged.dates();
        dates.age = by.dates().age;
        let freshness = Freshness::new(&merged.directives, &dates, times, ceiling);
        let body_bytes = usize::try_from(self.length.unwrap_or(0)).unwrap_or(usize::MAX);
        let candidate = merged.candidate(freshness, false, false, body_bytes);
        let public = rules::allows_authorization(&merged.directives);
        let charge = account.charge(OVERHEAD_BYTES + allocated(head.len()));
        let (etag, last_modified) = (etag_of(&head), last_modified_of(&head));
        let entry = Self {
            status: self.status,
            freshness,
            public,
            guard: self.guard,
            vary: self.vary.clone(),
            secondary: self.secondary.clone(),
            head: head.into_boxed_slice(),
            body_bytes: self.body_bytes,
            body: Mutex::new(self.body()),
            finds: AtomicU32::new(0),
            length: self.length,
            etag,
            last_modified,
            origin: Origin::default(),
            _charge: charge,
        };
        Some((entry, candidate))
    }

    /// What a record of it says beside its body.
    pub(super) fn stored<'a>(&'a self, key: &'a [u8]) -> Stored<'a> {
        Stored {
            key,
            status: self.status,
            freshness: self.freshness,
            public: self.public,
            guard: self.guard,
            vary: self.vary.parts(),
            secondary: &self.secondary,
            head: &self.head,
            length: self.length,
        }
    }

    /// A copy of a record, in the room that `charge` stands for.
    pub(super) fn of_stored(stored: &Stored<'_>, body: Box<[u8]>, mut charge: Charge) -> Self {
        let body_charge = charge.split(allocated(body.len()));
        Self {
            status: stored.status,
            freshness: stored.freshness,
            public: stored.public,
            guard: stored.guard,
            vary: stored.vary(),
            secondary: stored.secondary.into(),
            etag: etag_of(stored.head),
            last_modified: last_modified_of(stored.head),
            head: stored.head.into(),
            body_bytes: body.len(),
            body: Mutex::new(Arc::new(Body::new(body, body_charge))),
            finds: AtomicU32::new(0),
            length: stored.length,
            origin: Origin::default(),
            _charge: charge,
        }
    }

    /// What it depends on.
    pub fn vary(&self) -> &Vary {
        &self.vary
    }

    /// The secondary key of the request it was stored for.
    pub fn secondary(&self) -> &[u8] {
        &self.secondary
    }

    /// Whether it is of the same requests as another, and so takes its place.
    pub fn replaces(&self, other: &Entry) -> bool {
        self.guard == other.guard && self.vary == other.vary && self.secondary == other.secondary
    }

    /// Its entity tag.
    pub fn etag(&self) -> Option<&[u8]> {
        self.etag.as_deref()
    }

    /// When it was last modified, in seconds since 1970.
    pub fn last_modified(&self) -> Option<u64> {
        self.last_modified
    }

    /// `Last-Modified` as it was told, if it can be read.
    pub fn last_modified_text(&self) -> Option<&[u8]> {
        self.last_modified?;
        Passing::parse(&self.head)?.first("last-modified")
    }

    /// Whether the application can be asked if it has changed.
    pub fn has_validator(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Whether it can be of any use still.
    pub fn is_of_use(&self, now: Instant) -> bool {
        rules::is_of_use(&self.freshness, self.has_validator(), now)
    }

    /// Bytes of its body.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Its body, to be sent.
    pub fn body(&self) -> Arc<Body> {
        Arc::clone(&self.lock_body())
    }

    fn lock_body(&self) -> MutexGuard<'_, Arc<Body>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that it was found. Whether it is time to move its body into a file.
    pub fn is_to_move(&self) -> bool {
        self.body_bytes >= limits::CACHE_FILE_BYTES_MIN
            && self.finds.fetch_add(1, Ordering::Relaxed) % limits::CACHE_FILE_FINDS == limits::CACHE_FILE_FINDS - 1
            && self.lock_body().memory().is_some()
    }

    /// Moves its body into a file, in the room that `charge` stands for. Stays as it is if that isn't possible.
    pub fn move_body(&self, descriptor: Descriptor, charge: Charge) {
        // Its memory goes when those have let go who have it: without the lock.
        let body = self.body();
        if let Some(moved) = body.in_file(descriptor, charge) {
            *self.lock_body() = Arc::new(moved);
        }
    }

    /// Appends status line, fields and `Age`, without the fields of a connection and the blank line (RFC 9111 §4, §5.1).
    pub fn append_head(&self, out: &mut Vec<u8>, now: Instant) {
        out.extend_from_slice(&self.head);
        self.append_age(out, now);
        if let Some(length) = self.length {
            out.extend_from_slice(b"Content-Length: ");
            encode::decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends the same of a 304 in its place (RFC 9110 §15.4.5).
    pub fn append_not_modified(&self, out: &mut Vec<u8>, now: Instant) {
        out.extend_from_slice(b"HTTP/1.1 304 Not Modified\r\n");
        if let Some(stored) = Passing::parse(&self.head) {
            for (name, value) in stored.fields.iter().filter(|(name, _)| is_in_304(name)) {
                append_field(out, name, value);
            }
        }
        self.append_age(out, now);
    }

    fn append_age(&self, out: &mut Vec<u8>, now: Instant) {
        out.extend_from_slice(b"Age: ");
        encode::decimal(out, self.freshness.age(now).as_secs());
        out.extend_from_slice(b"\r\n");
    }
}

fn etag_of(head: &[u8]) -> Option<Box<[u8]>> {
    let passing = Passing::parse(head)?;
    passing.first("etag").filter(|tag| is_tag(tag)).map(Box::from)
}

fn last_modified_of(head: &[u8]) -> Option<u64> {
    Passing::parse(head)?.first("last-modified").and_then(http_date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
    const CEILING: Duration = Duration::from_secs(1000);
    const GUARD: Guard = Guard { listener: 0, https: false, class: Class::Get };

    fn times(at: Instant) -> Times {
        Times { asked: at, answered: at, answered_unix: 784_111_777 }
    }

    fn entry(head: &str, body: &[u8], account: &Arc<Account>) -> Entry {
        let head = head.replace('\n', "\r\n");
        let passing = Passing::parse(head.as_bytes()).unwrap();
        let freshness = passing.freshness(&times(NOW), CEILING);
        let vary = passing.vary(None).unwrap();
        let charge = account.charge(cost(b"key", passing.head_bytes(), &vary, b"", body.len()));
        Entry::new(&passing, freshness, GUARD, vary, b"", body.into(), charge)
    }

    fn text(append: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        append(&mut out);
        String::from_utf8(out).unwrap().replace("\r\n", "\n")
    }

    const HEAD: &str = "HTTP/1.1 200 Fine\nContent-Type: text/plain\nCache-Control: max-age=60\nETag: \"a\"\n\
        Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\nVary: Accept\nX: 1\nX: 2\nAge: 5\n\
        Date: Sun, 06 Nov 1994 08:49:37 GMT\nServer: hoopsnake\nContent-Length: 3\nConnection: close\n\n";

    #[test]
    fn what_is_stored_and_told_rfc_9111_3_1_and_5_1() {
        let entry = entry(HEAD, b"abc", &Arc::default());
        assert_eq!(
            text(|out| entry.append_head(out, NOW + Duration::from_secs(9))),
            "HTTP/1.1 200 Fine\nContent-Type: text/plain\nCache-Control: max-age=60\nETag: \"a\"\n\
             Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\nVary: Accept\nX: 1\nX: 2\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\nServer: hoopsnake\nAge: 14\nContent-Length: 3\n"
        );
        assert_eq!(
            text(|out| entry.append_not_modified(out, NOW)),
            "HTTP/1.1 304 Not Modified\nCache-Control: max-age=60\nETag: \"a\"\nVary: Accept\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\nServer: hoopsnake\nAge: 5\n"
        );
        assert_eq!((entry.etag(), entry.last_modified()), (Some(b"\"a\"".as_slice()), Some(784_111_777)));
        assert_eq!(entry.body().memory(), Some(b"abc".as_slice()));
    }

    #[test]
    fn lengths() {
        let none = entry("HTTP/1.1 204 No Content\nCache-Control: max-age=5\n\n", b"", &Arc::default());
        assert!(!text(|out| none.append_head(out, NOW)).contains("Content-Length"));
        let chunked = entry("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", b"abcd", &Arc::default());
        assert_eq!(text(|out| chunked.append_head(out, NOW)), "HTTP/1.1 200 OK\nAge: 0\nContent-Length: 4\n");
    }

    #[test]
    fn renewed_by_a_304_rfc_9111_4_3_4_and_3_2() {
        let account = Arc::default();
        let old = entry(HEAD, b"abc", &account);
        let later = NOW + Duration::from_secs(100);
        let by = "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=30\r\nX: 3\r\nContent-Type: a/b\r\n\
                  Content-Length: 99\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nNew: yes\r\n\r\n";
        let by = Passing::parse(by.as_bytes()).unwrap();
        let (new, candidate) = old.renewed(&by, &times(later), CEILING, &account).unwrap();
        assert_eq!(
            text(|out| new.append_head(out, later)),
            "HTTP/1.1 200 Fine\nContent-Type: text/plain\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\nVary: Accept\n\
             Server: hoopsnake\nETag: \"a\"\nCache-Control: max-age=30\nX: 3\nDate: Sun, 06 Nov 1994 08:49:37 GMT\nNew: yes\n\
             Age: 0\nContent-Length: 3\n"
        );
        assert_eq!(rules::storable(&candidate, later, 1000), Ok(()));
        assert!(Arc::ptr_eq(&new.body(), &old.body()), "the body isn't copied");
        assert!(new.replaces(&old));
        let other = Passing::parse(b"HTTP/1.1 304 Not Modified\r\nETag: \"b\"\r\n\r\n").unwrap();
        assert!(old.renewed(&other, &times(later), CEILING, &account).is_none());
        let cookie = Passing::parse(b"HTTP/1.1 304 Not Modified\r\nSet-Cookie: a=b\r\n\r\n").unwrap();
        let (_, candidate) = old.renewed(&cookie, &times(later), CEILING, &account).unwrap();
        assert!(rules::storable(&candidate, later, 1000).is_err());
    }

    #[test]
    fn memory_counts_until_the_last_holder_lets_go() {
        let account = Arc::<Account>::default();
        let old = entry(HEAD, &[0; 1000], &account);
        let full = account.used();
        assert!(full > 1000 + old.head.len());
        let by = Passing::parse(b"HTTP/1.1 304 Not Modified\r\n\r\n").unwrap();
        let (new, _) = old.renewed(&by, &times(NOW), CEILING, &account).unwrap();
        assert!(account.used() < full + 1000, "a shared body counts once");
        let sending = new.body();
        drop((old, new));
        assert_eq!(account.used(), allocated(1000));
        drop(sending);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn what_an_allocation_takes() {
        for (bytes, least) in [(0, 0), (1, 1), (65, 65), (1000, 1000), (1_000_000, 1_000_000)] {
            let taken = allocated(bytes);
            assert!(taken >= least && taken <= bytes + bytes / 8 + 64, "{bytes}: {taken}");
        }
    }

    #[test]
    fn heads_that_are_not_taken_apart() {
        assert!(Passing::parse(b"").is_none());
        assert!(Passing::parse(b"HTTP/1.1\r\n\r\n").is_none());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(limits::CACHE_FIELDS_MAX + 1));
        assert!(Passing::parse(many.as_bytes()).is_none());
    }
}
