//! The response cache (RFC 9111, RFC 5861): what is stored, under which key, for how long; who asks the application and who waits.
//! Bytes and `now` in, values out: sends nothing, runs nothing, reads no clock.
//!
//! One for all reactors of a process, in parts with a lock each; a lock is held for a look or a change of the index, never while
//! bytes are copied or sent. `--processes`: each has its own, and [`Epochs`] in shared memory tell all of them what was invalidated.

pub mod directives;
pub mod entry;
pub mod epochs;
pub mod flights;
pub mod freshness;
pub mod key;
pub mod request;
pub mod rules;
pub mod store;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;

use crate::limits;
use crate::reactor::clock::Instant;
use crate::serve::http1::Head;
use entry::{Entry, Guard, Passing, cost};
use epochs::Epochs;
use flights::Flights;
use freshness::Times;
use request::Asked;
use rules::{Unstorable, Use};
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
}

impl Cache {
    /// An empty one. `hasher` and `epochs` are the same in all processes that share them.
    pub fn new(settings: Settings, hasher: RandomState, epochs: Arc<Epochs>) -> Self {
        // Each part has room for several of the largest responses, or they would push each other out.
        let largest = settings.response_bytes_max.max(1);
        let parts = (settings.bytes_max / largest / 8).clamp(1, limits::CACHE_PARTS_MAX);
        // A part is for what an allocator can't use again at once when entries of one size make room for those of another.
        let bytes_max = (settings.bytes_max - settings.bytes_max / limits::CACHE_RESERVE_SHARE) / parts;
        let part = || Mutex::new(Store::new(bytes_max, hasher.clone()));
        let parts = std::iter::repeat_with(part).take(parts).collect();
        Self { settings, counts: Counts::default(), hasher, parts, flights: Flights::default(), epochs }
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

    /// Looks for what may answer a request (RFC 9111 §4). The buffers are overwritten.
    pub fn find(&self, head: &Head, asked: &Asked, guard: Guard, now: Instant, buffers: &mut Buffers) -> Found {
        let Buffers { key, secondary } = buffers;
        key.clear();
        key::primary_of(key, head);
        let (mut part, hash) = self.part(key);
        let mut others = false;
        let entry = part.find(key, |entry| {
            let guarded = entry.guard.listener == guard.listener
                && entry.guard.https == guard.https
                && rules::answers(entry.guard.class, guard.class);
            if !guarded {
                return false;
            }
            secondary.clear();
            entry.vary().secondary(head, secondary);
            let matches = entry.is_for(secondary);
            others |= !matches;
            matches
        });
        let Some(entry) = entry else {
            return if others { Found::OtherVariant } else { Found::Nothing };
        };
        if self.epochs.ended(hash, entry.freshness.at) {
            part.take_out(key, &entry);
            return Found::Nothing;
        }
        let how = rules::usable(&entry.freshness, entry.public, &asked.directives, asked.authorization, now);
        if how == Use::Validate && !entry.is_of_use(now) {
            part.take_out(key, &entry);
            return Found::Nothing;
        }
        drop(part);
        Found::Entry(entry, how)
    }

    /// Names what a request wants.
    pub fn wanted(&self, head: &Head, guard: Guard) -> Wanted {
        let mut key = Vec::new();
        key::primary_of(&mut key, head);
        let mut secondary = Vec::new();
        let (part, _) = self.part(&key);
        if let Some(entry) = part.newest(&key) {
            entry.vary().secondary(head, &mut secondary);
        }
        drop(part);
        let resource = self.hasher.hash_one((&key, guard));
        let flight = self.hasher.hash_one((resource, secondary));
        Wanted { key: key.into_boxed_slice(), guard, flight, resource }
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
        let charge = self.part(&wanted.key).0.room(bytes).ok_or(Unstorable::TooLarge)?;
        let body = body().ok_or(Unstorable::TooLarge)?;
        let entry = Arc::new(Entry::new(passing, freshness, wanted.guard, vary, &secondary, body, charge));
        let (mut part, hash) = self.part(&wanted.key);
        // Looked at under the lock: who invalidates notes it before it looks for what is stored.
        if self.epochs.changed(hash, times.asked) {
            return Err(Unstorable::Stale);
        }
        part.insert(&wanted.key, Arc::clone(&entry));
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
        let (mut part, hash) = self.part(&wanted.key);
        let account = Arc::clone(part.account());
        let (renewed, candidate) = entry.renewed(passing, times, self.settings.ceiling, &account)?;
        let renewed = Arc::new(renewed);
        let storable = rules::storable(&candidate, times.answered, self.settings.response_bytes_max).is_ok();
        // What was taken out meanwhile stays out.
        if storable && !self.epochs.changed(hash, times.asked) && part.take_out(&wanted.key, entry) {
            part.insert(&wanted.key, Arc::clone(&renewed));
            // What it needs more than before is taken from the least recently used.
            part.room(0);
        }
        Some(renewed)
    }

    /// The application has given another answer, which isn't stored: the one that was isn't of use any more.
    pub fn drop_entry(&self, wanted: &Wanted, entry: &Arc<Entry>) {
        self.part(&wanted.key).0.take_out(&wanted.key, entry);
    }

    /// Takes out everything stored under a primary key (RFC 9111 §4.4), in this process and in those that share its epochs; how
    /// many entries that were here.
    pub fn invalidate(&self, key: &[u8], now: Instant) -> usize {
        let (mut part, hash) = self.part(key);
        self.epochs.note(hash, now);
        let taken = part.invalidate(key);
        self.counts.purged.fetch_add(taken as u64, Ordering::Relaxed);
        taken
    }

    /// Takes out what is named; how many entries that were here. Other processes forget at least as much.
    pub fn purge(&self, what: &Purge, now: Instant) -> usize {
        if let Purge::Url(key) = what {
            return self.invalidate(key, now);
        }
        self.epochs.note_all(now);
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
        self.counts.purged.fetch_add(purged as u64, Ordering::Relaxed);
        purged
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

fn lock(part: &Mutex<Store>) -> MutexGuard<'_, Store> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
