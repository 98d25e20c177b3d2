//! The response cache (RFC 9111, RFC 5861): what is stored, under which key, for how long; who asks the application and who waits.
//! Bytes and `now` in, values out: sends nothing, runs nothing, reads no clock.
//!
//! One for all reactors of a process, in parts with a lock each; a lock is held for a look or a change of the index, never while
//! bytes are copied or sent.
//!
//! One for all processes (`--processes`) as well: an [`Arena`] in shared memory has everything, and each process keeps a few copies of
//! what is used more than once, ready to be sent. A copy is used only if nothing has changed where its record is, so that all processes
//! answer as one would. Nothing that is on its way to a client lies in shared memory. Each process knows only its own flights.

pub mod arena;
pub mod body;
pub mod directives;
pub mod entry;
pub mod epochs;
pub mod flights;
pub mod freshness;
pub mod key;
pub mod record;
pub mod request;
pub mod rules;
pub mod store;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;

use crate::limits;
use crate::reactor::clock::Instant;
use crate::serve::http1::Head;
use arena::{Arena, Location};
use body::{Body, Descriptors};
use entry::{Entry, Guard, Passing, cost};
use epochs::Epochs;
use flights::Flights;
use freshness::Times;
use key::Vary;
use record::Stored;
use request::Asked;
use rules::{Class, Unstorable, Use};
use store::Store;

/// Places looked at by a purge before it lets others at a part of the cache.
const PURGE_STEP: usize = 256;

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--max-age`: no response is good for longer.
    pub ceiling: Duration,
    /// `--cache-size`: bytes, bookkeeping included.
    pub bytes_max: usize,
    /// `--cache-response-size`: bytes of a response, head and body.
    pub response_bytes_max: usize,
    /// Descriptors that bodies may have.
    pub descriptors_max: usize,
    /// `--cache-status`: whether responses tell how they came about.
    pub show_status: bool,
}

/// Names what is asked for, from the lookup to the storing.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Primary key.
    pub key: Box<[u8]>,
    /// Listener, scheme, class.
    pub guard: Guard,
    /// Names the requests that may share one answer, as far as that can be told before there is one.
    pub flight: u64,
    /// Names all requests of this key and guard.
    resource: u64,
}

/// What a lookup writes into, for use again.
#[derive(Default)]
pub struct Buffers {
    key: Vec<u8>,
    secondary: Vec<u8>,
    record: Vec<u8>,
}

/// What a lookup found.
pub enum Found {
    /// A response for this request, and what may be done with it.
    Entry(Arc<Entry>, Use),
    /// Responses for other requests only (RFC 9111 §4.1).
    OtherVariant,
    /// Nothing.
    Nothing,
}

/// What is to be purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Everything.
    All,
    /// One URL, of either scheme: its primary key.
    Url(Vec<u8>),
    /// One path with its query, at every host.
    Path(Vec<u8>),
    /// Primary keys that begin so.
    UrlPrefix(Vec<u8>),
    /// Paths that begin so, at every host.
    PathPrefix(Vec<u8>),
}

impl Purge {
    /// Of one page: an http or https URL, or a path that begins with a slash.
    ///
    /// # Errors
    /// What is wrong with it, for the application's programmer.
    pub fn url(text: &[u8]) -> Result<Self, &'static str> {
        Ok(match primary(text)? {
            Some(key) => Self::Url(key),
            None => Self::Path(text.to_vec()),
        })
    }

    /// Of all pages whose URL, or path, begins so.
    ///
    /// # Errors
    /// As [`Purge::url`].
    pub fn prefix(text: &[u8]) -> Result<Self, &'static str> {
        Ok(match key::split_url(text) {
            // Without a slash behind it the host is meant, not those that begin like it.
            Some((host, target)) => {
                let mut start = Vec::new();
                key::primary(&mut start, host, target);
                Self::UrlPrefix(start)
            }
            None if text.starts_with(b"/") => Self::PathPrefix(text.to_vec()),
            None => return Err(NOT_A_URL),
        })
    }

    fn names(&self, key: &[u8]) -> bool {
        let target = || memchr::memchr(0, key).map_or(key, |at| &key[at + 1..]);
        match self {
            Self::All => true,
            Self::Url(whole) => key == whole,
            Self::Path(path) => target() == path,
            Self::UrlPrefix(start) => key.starts_with(start),
            Self::PathPrefix(start) => target().starts_with(start),
        }
    }
}

const NOT_A_URL: &str = "give an http or https URL, or a path that begins with a slash";

fn primary(text: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    match key::split_url(text) {
        Some((host, target)) => {
            let mut whole = Vec::new();
            key::primary(&mut whole, host, if target.is_empty() { b"/" } else { target });
            Ok(Some(whole))
        }
        None if text.starts_with(b"/") => Ok(None),
        None => Err(NOT_A_URL),
    }
}

/// What is counted since the process began. Relaxed: figures, not signals.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests answered from the cache, also after waiting for another one's answer.
    pub hits: AtomicU64,
    /// Requests for which the application was asked.
    pub misses: AtomicU64,
    /// Requests answered by something stale.
    pub stale: AtomicU64,
    /// Entries purged or invalidated.
    pub purged: AtomicU64,
}

/// The cache of a process.
pub struct Cache {
    settings: Settings,
    /// What is counted.
    pub counts: Counts,
    hasher: RandomState,
    parts: Box<[Mutex<Store>]>,
    /// Requests that are being answered by the application.
    pub flights: Flights,
    epochs: Arc<Epochs>,
    /// What all processes have in common; the parts have copies then.
    arena: Option<Arc<Arena>>,
    /// Bytes of the largest entry that a part takes.
    entry_bytes_max: usize,
    /// Those of bodies that are in files.
    pub descriptors: Arc<Descriptors>,
}

impl Cache {
    /// An empty one of one process.
    pub fn new(settings: Settings, hasher: RandomState, epochs: Arc<Epochs>) -> Self {
        Self::build(settings, hasher, epochs, None)
    }

    /// What one of several processes has of a cache; `bytes_max` is for its copies. `hasher`, `epochs` and `arena` are the same in all.
    pub fn sharing(settings: Settings, hasher: RandomState, epochs: Arc<Epochs>, arena: Arc<Arena>) -> Self {
        Self::build(settings, hasher, epochs, Some(arena))
    }

    fn build(settings: Settings, hasher: RandomState, epochs: Arc<Epochs>, arena: Option<Arc<Arena>>) -> Self {
        // Each part has room for several of the largest responses, or they would push each other out.
        let largest = settings.response_bytes_max.max(1);
        let parts = (settings.bytes_max / largest / 8).clamp(1, limits::CACHE_PARTS_MAX);
        // A part is for what an allocator can't use again at once when entries of one size make room for those of another.
        let bytes_max = (settings.bytes_max - settings.bytes_max / limits::CACHE_RESERVE_SHARE) / parts;
        // Copies that are sent once don't push out those that are kept, as long as there aren't many at once.
        let passing = if arena.is_some() { bytes_max / 4 } else { 0 };
        let part = || Mutex::new(Store::new(bytes_max - passing, passing, hasher.clone()));
        let parts = std::iter::repeat_with(part).take(parts).collect();
        let counts = Counts::default();
        let entry_bytes_max = bytes_max - passing;
        let descriptors = Arc::new(Descriptors::new(settings.descriptors_max));
        let flights = Flights::default();
        Self { settings, counts, hasher, parts, flights, epochs, arena, entry_bytes_max, descriptors }
    }

    /// What the operator asked for.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Bytes in use, entries included that are out of the cache and still being sent.
    pub fn used(&self) -> usize {
        self.parts.iter().map(|part| lock(part).account().used()).sum()
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, key: &[u8]) -> (MutexGuard<'_, Store>, u64) {
        let hash = self.hasher.hash_one(key);
        (lock(&self.parts[(hash >> 40) as usize % self.parts.len()]), hash)
    }

    fn changes(&self, hash: u64) -> u64 {
        self.arena.as_ref().map_or(0, |arena| arena.changes(hash))
    }

    /// Looks for what may answer a request (RFC 9111 §4). The buffers are overwritten.
    pub fn find(&self, head: &Head, asked: &Asked, guard: Guard, now: Instant, buffers: &mut Buffers) -> Found {
        let Buffers { key, secondary, record } = buffers;
        key.clear();
        key::primary_of(key, head);
        let mut others = false;
        let mut matches = |stored: Guard, vary: &Vary, wanted: &[u8]| {
            let guarded = stored.listener == guard.listener
                && stored.https == guard.https
                && rules::answers(stored.class, guard.class);
            if !guarded {
                return false;
            }
            secondary.clear();
            vary.secondary(head, secondary);
            let matches = *secondary == wanted;
            others |= !matches;
            matches
        };
        let (mut part, hash) = self.part(key);
        let seen = self.changes(hash);
        let own = part.find(key, |entry| {
            entry.origin.seen.load(Relaxed) == seen && matches(entry.guard, entry.vary(), entry.secondary())
        });
        drop(part);
        let found = match (&self.arena, own) {
            (None, own) => own,
            (Some(arena), Some(own)) => {
                arena.touch(own.origin.location().place);
                Some(own)
            }
            (Some(arena), None) => self.copy(arena, key, hash, seen, record, matches),
        };
        let Some(entry) = found else {
            return if others { Found::OtherVariant } else { Found::Nothing };
        };
        let how = rules::usable(&entry.freshness, entry.public, &asked.directives, asked.authorization, now);
        if how == Use::Validate && !entry.is_of_use(now) {
            self.take_out(key, &entry);
            return Found::Nothing;
        }
        if entry.is_to_move() {
            self.move_body(key, &entry);
        }
        Found::Entry(entry, how)
    }

    /// Moves a large body that is asked for often to where it is sent from with less work, if there are room and a descriptor for that.
    fn move_body(&self, key: &[u8], entry: &Entry) {
        let Some(descriptor) = self.descriptors.take() else { return };
        let room = self.part(key).0.room_beside_newest(Body::cost_in_file(entry.body_bytes()));
        if let Some(charge) = room {
            entry.move_body(descriptor, charge);
        }
    }

    /// Looks for the newest record that `matches`, and makes a copy of it.
    fn copy(
        &self,
        arena: &Arena,
        key: &[u8],
        hash: u64,
        seen: u64,
        buffer: &mut Vec<u8>,
        mut matches: impl FnMut(Guard, &Vary, &[u8]) -> bool,
    ) -> Option<Arc<Entry>> {
        let (mut newest, mut alike) = (None, Alike::default());
        arena.look(hash, buffer, |record, bytes| {
            let Some(stored) = Stored::read(bytes).filter(|stored| stored.key == key) else { return };
            alike.add(&stored);
            let order = (stored.freshness.at, record.location.born);
            if newest.as_ref().is_none_or(|(newest, _, _)| *newest < order)
                && matches(stored.guard, &stored.vary(), stored.secondary)
            {
                newest = Some((order, record, bytes.to_vec()));
            }
        });
        let (_, record, bytes) = newest?;
        let again = arena.touch(record.location.place);
        let valid = alike.valid(seen);
        let own = self.part(key).0.find(key, |entry| entry.origin.location().born == record.location.born);
        if let Some(own) = own {
            own.origin.locate(record.location);
            own.origin.seen.store(valid, Relaxed);
            return Some(own);
        }
        let stored = Stored::read(&bytes)?;
        let bytes = cost(key, stored.head.len(), &stored.vary(), stored.secondary, record.body_bytes);
        // Kept if it is used again; what is used once in a while is copied once in a while.
        let (mut part, _) = self.part(key);
        let kept = if again { part.room(bytes) } else { None };
        let stays = kept.is_some();
        // Where slow clients have all there is, the application is asked.
        let charge = kept.or_else(|| part.room_in_passing(bytes))?;
        drop(part);
        let body = arena.body(&record)?;
        let entry = Arc::new(Entry::of_stored(&stored, body, charge));
        entry.origin.locate(record.location);
        entry.origin.seen.store(valid, Relaxed);
        if stays {
            self.part(key).0.insert(key, Arc::clone(&entry));
        }
        Some(entry)
    }

    /// Takes this very entry out. Whether it was there.
    fn take_out(&self, key: &[u8], entry: &Arc<Entry>) -> bool {
        let (mut part, hash) = self.part(key);
        let there = part.take_out(key, entry);
        drop(part);
        let Some(arena) = &self.arena else { return there };
        let Location { born, .. } = entry.origin.location();
        arena.change(hash);
        let taken = arena.take_away(hash, false, |record, _| record.location.born == born);
        arena.change(hash);
        taken > 0
    }

    /// Puts an entry in that was made of an answer to what was asked at `asked`, unless it may be older than an invalidation.
    fn insert(&self, key: &[u8], entry: &Arc<Entry>, asked: Instant) -> Result<(), Unstorable> {
        let hash = self.hasher.hash_one(key);
        let Some(arena) = &self.arena else {
            let (mut part, _) = self.part(key);
            // Looked at under the lock: who invalidates notes it before it looks for what is stored.
            if self.epochs.changed(hash, asked) {
                return Err(Unstorable::Stale);
            }
            part.insert(key, Arc::clone(entry));
            return Ok(());
        };
        let mut meta = Vec::new();
        entry.stored(key).append(&mut meta);
        let body = entry.body();
        // A body that can't be read is as good as none.
        let body = &*body.bytes().map_err(|_| Unstorable::TooLarge)?;
        if !arena.fits(meta.len(), body.len()) {
            return Err(Unstorable::TooLarge);
        }
        let is_wanted = || !self.epochs.changed(hash, asked);
        let location = arena.publish(hash, &meta, body, is_wanted).ok_or(Unstorable::Stale)?;
        let order = (entry.freshness.at, location.born);
        arena.take_away(hash, false, |record, bytes| {
            let other = Stored::read(bytes).filter(|other| other.key == key);
            other.is_some_and(|other| {
                (other.freshness.at, record.location.born) < order && other.is_of_the_same(key, entry)
            })
        });
        arena.change(hash);
        entry.origin.locate(location);
        Ok(())
    }

    /// Names what a request wants.
    pub fn wanted(&self, head: &Head, guard: Guard) -> Wanted {
        let mut key = Vec::new();
        key::primary_of(&mut key, head);
        let mut secondary = Vec::new();
        let (part, hash) = self.part(&key);
        let vary = part.newest(&key).map(|entry| entry.vary().clone());
        drop(part);
        let vary = vary.or_else(|| self.newest_vary(&key, hash));
        if let Some(vary) = vary {
            vary.secondary(head, &mut secondary);
        }
        let resource = self.hasher.hash_one((&key, guard));
        let flight = self.hasher.hash_one((resource, secondary));
        Wanted { key: key.into_boxed_slice(), guard, flight, resource }
    }

    fn newest_vary(&self, key: &[u8], hash: u64) -> Option<Vary> {
        let mut newest: Option<(Instant, Vary)> = None;
        self.arena.as_ref()?.look(hash, &mut Vec::new(), |_, bytes| {
            let Some(stored) = Stored::read(bytes).filter(|stored| stored.key == key) else { return };
            if newest.as_ref().is_none_or(|(at, _)| *at < stored.freshness.at) {
                newest = Some((stored.freshness.at, stored.vary()));
            }
        });
        newest.map(|(_, vary)| vary)
    }

    /// Stores a response whose body is complete, if it may be. `head` is the request's; `cookies`: `X-WSGo-Vary-Cookies`; `body` is
    /// called when there is room for its `body_bytes`.
    ///
    /// # Errors
    /// Why it isn't stored.
    pub fn store(
        &self,
        wanted: &Wanted,
        head: &Head,
        asked: &Asked,
        passing: &Passing<'_>,
        cookies: Option<&[u8]>,
        times: &Times,
        body_bytes: usize,
        body: impl FnOnce() -> Option<Box<[u8]>>,
    ) -> Result<Arc<Entry>, Unstorable> {
        let freshness = passing.freshness(times, self.settings.ceiling);
        let candidate = passing.candidate(freshness, asked.authorization, asked.directives.no_store, body_bytes);
        rules::storable(&candidate, times.answered, self.settings.response_bytes_max)?;
        let vary = passing.vary(cookies).ok_or(Unstorable::VaryAll)?;
        let mut secondary = Vec::new();
        vary.secondary(head, &mut secondary);
        let bytes = cost(&wanted.key, passing.head_bytes(), &vary, &secondary, body_bytes);
        if bytes > self.entry_bytes_max {
            return Err(Unstorable::TooLarge);
        }
        let charge = match &self.arena {
            None => self.part(&wanted.key).0.room(bytes).ok_or(Unstorable::TooLarge)?,
            // It goes when it is sent, at once as a rule.
            Some(_) => self.part(&wanted.key).0.account().charge(bytes),
        };
        let body = body().ok_or(Unstorable::TooLarge)?;
        let entry = Arc::new(Entry::new(passing, freshness, wanted.guard, vary, &secondary, body, charge));
        self.insert(&wanted.key, &entry, times.asked)?;
        self.epochs.forget_passing(wanted.resource);
        Ok(entry)
    }

    /// An entry renewed by a 304 of the application (RFC 9111 §4.3.4); stored, if it may be. `None`: the answer is about another one.
    pub fn renew(
        &self,
        wanted: &Wanted,
        entry: &Arc<Entry>,
        passing: &Passing<'_>,
        times: &Times,
    ) -> Option<Arc<Entry>> {
        let account = Arc::clone(self.part(&wanted.key).0.account());
        let (renewed, candidate) = entry.renewed(passing, times, self.settings.ceiling, &account)?;
        let renewed = Arc::new(renewed);
        let storable = rules::storable(&candidate, times.answered, self.settings.response_bytes_max).is_ok();
        // What was taken out meanwhile stays out.
        if storable
            && !self.epochs.changed(self.hasher.hash_one(&*wanted.key), times.asked)
            && (self.arena.is_some() || self.take_out(&wanted.key, entry))
            && self.insert(&wanted.key, &renewed, times.asked).is_ok()
        {
            // What it needs more than before is taken from the least recently used.
            self.part(&wanted.key).0.room(0);
        }
        Some(renewed)
    }

    /// The application has given another answer, which isn't stored: the one that was isn't of use any more.
    pub fn drop_entry(&self, wanted: &Wanted, entry: &Arc<Entry>) {
        self.take_out(&wanted.key, entry);
    }

    /// Takes out everything stored under a primary key (RFC 9111 §4.4), for all processes; how many entries that were.
    pub fn invalidate(&self, key: &[u8], now: Instant) -> usize {
        let (mut part, hash) = self.part(key);
        self.epochs.note(hash, now);
        let own = part.invalidate(key);
        drop(part);
        let taken = self.arena.as_ref().map_or(own, |arena| {
            arena.change(hash);
            let named = |bytes: &[u8]| Stored::read(bytes).is_some_and(|stored| stored.key == key);
            let taken = arena.take_away(hash, true, |_, bytes| named(bytes));
            arena.change(hash);
            taken
        });
        self.counts.purged.fetch_add(taken as u64, Relaxed);
        taken
    }

    /// Takes out what is named, for all processes; how many entries that were.
    pub fn purge(&self, what: &Purge, now: Instant) -> usize {
        if let Purge::Url(key) = what {
            return self.invalidate(key, now);
        }
        self.epochs.note_all(now);
        let shared = self.arena.as_ref().map(|arena| {
            arena.change_all();
            let named = |bytes: &[u8]| Stored::read(bytes).is_some_and(|stored| what.names(stored.key));
            let taken = arena.take_away_all(|_, bytes| named(bytes));
            arena.change_all();
            taken
        });
        let mut purged = 0;
        for part in &self.parts {
            let mut from = 0;
            loop {
                let (taken, more) = lock(part).purge(from, from + PURGE_STEP, |key, _| what.names(key));
                purged += taken;
                from += PURGE_STEP;
                if !more {
                    break;
                }
            }
        }
        let taken = shared.unwrap_or(purged);
        self.counts.purged.fetch_add(taken as u64, Relaxed);
        taken
    }

    /// Notes that the answers to such requests aren't stored: they don't wait for each other for a while.
    pub fn note_passing(&self, wanted: &Wanted, now: Instant) {
        self.epochs.note_passing(wanted.resource, now);
    }

    /// Whether that was noted.
    pub fn is_passing(&self, wanted: &Wanted, now: Instant) -> bool {
        self.epochs.is_passing(wanted.resource, now)
    }
}

/// Whether the records of a key differ in nothing but what their requests had in the same fields. Then no request is answered by two
/// of them, and a process that has a copy of the one needn't ask for the others.
#[derive(Default)]
struct Alike {
    first: Option<(Class, Vary)>,
    differ: bool,
}

impl Alike {
    fn add(&mut self, stored: &Stored<'_>) {
        match &self.first {
            None => self.first = Some((stored.guard.class, stored.vary())),
            Some((class, vary)) => self.differ |= *class != stored.guard.class || vary.parts() != stored.vary,
        }
    }

    /// The count of changes up to which a copy of one of them is enough; 0: it never is.
    fn valid(&self, seen: u64) -> u64 {
        if self.differ { 0 } else { seen }
    }
}

fn lock(part: &Mutex<Store>) -> MutexGuard<'_, Store> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
