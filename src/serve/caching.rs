//! The corridor's part of the response cache: looks a request up before it is queued, stores a response when it passes, lets requests
//! wait for each other's answers, renews what is stale. What may be stored and used is decided in [`super::local::cache`].
//!
//! ```text
//! request ── found, fresh ───────────────────────────────────────────► answered here
//!    │  └─── found, stale-while-revalidate ── answered here; a refresh of the reactor's own goes to the application
//!    ├────── being asked for already ── waits ── landed ── looked up again, or to the application after all
//!    └────── to the application ── its response passes: stored? ── landed: whoever waits is told
//! ```
//!
//! Not here: `Range`, `If-Match`, `If-Unmodified-Since`, bodies of GET, and requests whose host or target has an unusual form go to the
//! application untouched, and what it answers isn't stored.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ahash::RandomState;

use super::conn::{After, Phase};
use super::exchange::{End, Exchange, Landing, Link, Message, Peer};
use super::http1::{BodyDecoder, Framing, Step, Version};
use super::local::cache::arena::Arena;
use super::local::cache::entry::{Entry, Guard, Passing};
use super::local::cache::epochs::Epochs;
use super::local::cache::flights::Part;
use super::local::cache::freshness::Times;
use super::local::cache::request::{Asked, Condition, copy_head, is_https, make_conditional, make_unconditional};
use super::local::cache::rules::{self, Class, Method, Unstorable, Use};
use super::local::cache::{Buffers, Cache, Counts, Found, Purge, Settings, Wanted, key};
use super::{Course, Reactor};
use crate::config::{Config, Network};
use crate::limits;
use crate::observe::status::Lines;
use crate::reactor::clock::Instant;
use crate::reactor::memory_file::descriptors_max;
use crate::reactor::shared_memory::SharedMemory;
use crate::reactor::{Driver, Outgoing, Segment, Token, clock};

/// Slots of the reactor's own requests: no connection has them.
const REFRESH_SLOT: u32 = 1 << 31;

/// What is the same in all processes of a server: made before they part.
struct Common {
    hasher: RandomState,
    epochs: Arc<Epochs>,
    arena: Option<Arc<Arena>>,
}

static COMMON: OnceLock<Common> = OnceLock::new();
/// The cache that [`purge`] means: a process has one.
static PURGED: OnceLock<Weak<Cache>> = OnceLock::new();

/// What `config` asks for; `None`: no cache.
pub fn cache(config: &Config) -> Option<Arc<Cache>> {
    let settings = Settings {
        ceiling: config.max_age,
        bytes_max: config.cache_size,
        response_bytes_max: config.cache_response_size,
        descriptors_max: limits::CACHE_DESCRIPTORS_MAX.min(descriptors_max() / limits::CACHE_DESCRIPTORS_SHARE),
        show_status: config.cache_status,
    };
    if settings.ceiling.is_zero() || settings.bytes_max == 0 {
        return None;
    }
    let own = || Common { hasher: RandomState::new(), epochs: Arc::new(Epochs::own()), arena: None };
    let Common { hasher, epochs, arena } = COMMON.get_or_init(own);
    let (hasher, epochs) = (hasher.clone(), Arc::clone(epochs));
    let cache = Arc::new(match arena {
        Some(arena) => {
            let bytes_max = settings.bytes_max / limits::CACHE_COPIES_SHARE / config.processes.max(1);
            Cache::sharing(Settings { bytes_max, ..settings }, hasher, epochs, Arc::clone(arena))
        }
        None => Cache::new(settings, hasher, epochs),
    });
    // A second cache in one process, as in a test, is one that nobody purges.
    let _ = PURGED.set(Arc::downgrade(&cache));
    Some(cache)
}

/// To be called before a process parts into several: so that they have one cache.
///
/// # Errors
/// When there is no memory to share.
pub fn prepare(config: &Config) -> io::Result<()> {
    if config.max_age.is_zero() || config.cache_size == 0 || config.processes < 2 || !config.supervisor {
        return Ok(());
    }
    let words = SharedMemory::new(limits::CACHE_EPOCHS)?;
    let shared = config.cache_size - config.cache_size / limits::CACHE_COPIES_SHARE;
    let memory = SharedMemory::new(Arena::words(shared)).map_err(|error| {
        io::Error::other(format!(
            "--cache-size {}: no memory for what processes share ({error}); give less",
            config.cache_size
        ))
    })?;
    let hasher = RandomState::new();
    let arena = Some(Arc::new(Arena::new(Box::new(memory), hasher.clone())));
    let common = Common { hasher, epochs: Arc::new(Epochs::shared(Box::new(words))), arena };
    // Whoever was first is as good.
    let _ = COMMON.set(common);
    Ok(())
}

/// The supervisor: processes that are forked from now on belong to a reload.
pub fn reloading() {
    shared().inspect(|arena| arena.begin_generation());
}

/// The supervisor: a reload has succeeded. Pages that old processes have made, or still make, aren't served any more.
pub fn reloaded() {
    shared().inspect(|arena| arena.succeed());
}

fn shared() -> Option<&'static Arc<Arena>> {
    COMMON.get()?.arena.as_ref()
}

/// Takes out what is named; how many stored responses that were. 0 where no server runs, or without a cache.
pub fn purge(what: &Purge) -> usize {
    PURGED.get().and_then(Weak::upgrade).map_or(0, |cache| cache.purge(what, clock::now()))
}

/// Adds the figures of a cache.
pub fn report(cache: &Cache, lines: &mut Lines) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let Counts { hits, misses, stale, purged } = &cache.counts;
    lines.line("Cache entries", cache.len());
    lines.line("Cache memory (in bytes)", cache.used());
    lines.line("Cache files", cache.descriptors.used());
    lines.line("Cache hits", count(hits));
    lines.line("Cache misses", count(misses));
    lines.line("Cache stale answers", count(stale));
    lines.line("Cache waiters", cache.flights.waiting());
    lines.line("Cache entries purged", count(purged));
}

/// What a reactor has to do with the cache.
#[derive(Default)]
pub(super) struct Caching {
    buffers: Buffers,
    /// The last ticket given.
    tickets: u64,
    /// Requests that are at the application, by ticket: no more than there are exchanges there.
    fetches: HashMap<u64, Box<Fetch>, RandomState>,
    /// Requests that wait for another one's answer, by flight: bounded by [`limits::CACHE_WAITERS_MAX`].
    #[expect(clippy::vec_box, reason = "they travel in their boxes, from thread to thread")]
    waiting: HashMap<u64, Vec<Box<Exchange>>, RandomState>,
    /// Those of them whose answer has begun to come in pieces: what they wait for.
    hurried: HashMap<Token, u64, RandomState>,
    /// Refreshes on their way.
    refreshes: usize,
    /// Refreshes whose responses come in pieces, by slot.
    streams: HashMap<u32, Box<Exchange>, RandomState>,
}

#[cfg(test)]
impl Caching {
    /// Whether nothing is asked for and nobody waits.
    pub(super) fn is_at_rest(&self) -> bool {
        self.fetches.is_empty()
            && self.waiting.is_empty()
            && self.hurried.is_empty()
            && self.streams.is_empty()
            && self.refreshes == 0
    }
}

/// Why the application is asked (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    UriMiss,
    VaryMiss,
    Stale,
    Request,
    Bypass,
}

/// How an answer came about, for `Cache-Status` and `X-Cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Hit,
    /// After waiting for another request's answer.
    Collapsed,
    Stale,
    /// The application has confirmed it.
    Confirmed,
    /// The application has just made it.
    Stored,
}

/// A request that is at the application.
struct Fetch {
    wanted: Wanted,
    asked: Asked,
    reason: Reason,
    /// Whether others may wait for it.
    leads: bool,
    /// What is stored, if it is stale.
    stale: Option<Arc<Entry>>,
    /// Whether the application was asked if that has changed.
    validates: bool,
    /// The client's own condition.
    condition: Condition,
    at: Instant,
    /// The reactor's own: nobody waits for the answer.
    refresh: bool,
    /// A response that comes in pieces.
    gathered: Option<Gathered>,
}

/// A response in pieces, as far as it has come.
struct Gathered {
    head: Vec<u8>,
    cookies: Option<Vec<u8>>,
    /// Still in chunks.
    body: Vec<u8>,
    answered: Instant,
    answered_unix: u64,
}

impl<D: Driver> Reactor<D> {
    /// Whether no new requests are taken.
    pub(super) fn is_draining(&self) -> bool {
        self.course != Course::Serving
    }

    /// Whether the request at hand is the last that this connection answers.
    pub(super) fn is_at_its_last(&mut self, token: Token) -> bool {
        let draining = self.is_draining();
        self.get(token).is_none_or(|connection| connection.is_at_its_last(draining))
    }

    /// Answers a request from the cache, lets it wait for another one's answer, or gives it back for the application. `after`: it
    /// has waited already, and this is what came of that.
    pub(super) fn try_cache(
        &mut self,
        token: Token,
        exchange: Box<Exchange>,
        after: Option<Landing>,
    ) -> Option<Box<Exchange>> {
        let Some(cache) = &self.shared.cache else { return Some(exchange) };
        let head = &exchange.head;
        let trusted = is_trusted(exchange.peer, &self.shared.trusted_proxies);
        let asked = Asked::read(head, trusted);
        let Some(class) = asked.class() else {
            if asked.directives.only_if_cached && matches!(asked.method, Method::Stored(_)) {
                self.not_cached(token, exchange);
                return None;
            }
            return Some(exchange);
        };
        let guard = Guard { listener: exchange.listener, https: trusted && is_https(head), class };
        let (entry, how, reason) = match cache.find(head, &asked, guard, self.now, &mut self.caching.buffers) {
            Found::Entry(entry, how) => (Some(entry), how, Reason::Stale),
            Found::OtherVariant => (None, Use::Never, Reason::VaryMiss),
            Found::Nothing => (None, Use::Never, Reason::UriMiss),
        };
        let Some(entry) = entry else { return self.ask(token, exchange, asked, guard, None, reason, after) };
        let told = match (how, after) {
            (Use::Fresh, None) => Told::Hit,
            (Use::Fresh, Some(_)) => Told::Collapsed,
            (Use::Stale, _) => Told::Stale,
            (Use::WhileRevalidate, _) => {
                self.refresh(&exchange, &entry, asked);
                Told::Stale
            }
            // Somebody has just been told that the application fails, instead of it.
            (Use::Validate, Some(Landing::Failed(status)))
                if rules::usable_instead_of(status, &entry.freshness, &asked.directives, self.now) =>
            {
                Told::Stale
            }
            (Use::Validate, _) => {
                let fresh = entry.freshness.left(self.now).is_some();
                let reason = if fresh { Reason::Request } else { Reason::Stale };
                return self.ask(token, exchange, asked, guard, Some(entry), reason, after);
            }
            (Use::Never, _) => return self.ask(token, exchange, asked, guard, None, Reason::Bypass, after),
        };
        let condition = asked.conditional.then(|| Condition::of(&exchange.head));
        self.answer_stored(token, exchange, &entry, condition.as_ref(), told);
        None
    }

    /// What is stored can't answer it (yet): the application is asked, unless another request does that already.
    fn ask(
        &mut self,
        token: Token,
        mut exchange: Box<Exchange>,
        asked: Asked,
        guard: Guard,
        stale: Option<Arc<Entry>>,
        reason: Reason,
        after: Option<Landing>,
    ) -> Option<Box<Exchange>> {
        if asked.directives.only_if_cached {
            self.not_cached(token, exchange);
            return None;
        }
        let Some(cache) = &self.shared.cache else { return Some(exchange) };
        let wanted = cache.wanted(&exchange.head, guard);
        let directives = &asked.directives;
        // An answer to one of these is hardly one for others, or is wanted newer than one that is on its way.
        let alone = asked.authorization
            || directives.no_store
            || directives.no_cache
            || directives.max_age == Some(0)
            || !matches!(after, None | Some(Landing::Abandoned))
            || cache.is_passing(&wanted, self.now);
        let part = if alone { Part::Alone } else { cache.flights.join(wanted.flight, self.index, true) };
        if part == Part::Wait {
            if after.is_none() {
                self.await_answer(token, &exchange);
            }
            self.caching.waiting.entry(wanted.flight).or_default().push(exchange);
            return None;
        }
        cache.counts.misses.fetch_add(1, Ordering::Relaxed);
        let condition = Condition::of(&exchange.head);
        let validates = stale.as_ref().is_some_and(|entry| entry.status == 200 && entry.has_validator());
        if let Some(entry) = stale.as_ref().filter(|_| validates) {
            make_conditional(&mut exchange.head, entry.etag(), entry.last_modified_text());
        } else if part == Part::Lead && asked.conditional {
            // A 304 would be of no use to the others. The client gets its own from what is stored then.
            make_unconditional(&mut exchange.head);
        }
        let fetch = Fetch {
            wanted,
            asked,
            reason,
            leads: part == Part::Lead,
            stale,
            validates,
            condition,
            at: self.now,
            refresh: false,
            gathered: None,
        };
        let ticket = self.keep(fetch);
        exchange.link.set_ticket(ticket);
        Some(exchange)
    }

    fn keep(&mut self, fetch: Fetch) -> u64 {
        self.caching.tickets += 1;
        self.caching.fetches.insert(self.caching.tickets, Box::new(fetch));
        self.caching.tickets
    }

    /// RFC 9111 §5.2.1.7: the client wants nothing but what is stored.
    fn not_cached(&mut self, token: Token, mut exchange: Box<Exchange>) {
        self.await_answer(token, &exchange);
        exchange.reply.status = 504;
        self.log_exchange(&exchange);
        let extra = match self.shows_status() {
            true => "Cache-Status: hoopsnake; detail=only-if-cached\r\nX-Cache: MISS\r\n",
            false => "",
        };
        self.answer(token, 504, "no stored response can be used, and only one of those was asked for", extra);
        self.give(exchange);
    }

    fn shows_status(&self) -> bool {
        self.shared.cache.as_ref().is_some_and(|cache| cache.settings().show_status)
    }

    /// Answers with what is stored.
    fn answer_stored(
        &mut self,
        token: Token,
        mut exchange: Box<Exchange>,
        entry: &Arc<Entry>,
        condition: Option<&Condition>,
        told: Told,
    ) {
        let (now, draining) = (self.now, self.is_draining());
        if let Some(Cache { counts, .. }) = self.shared.cache.as_deref() {
            match told {
                Told::Hit | Told::Collapsed => Some(&counts.hits),
                Told::Stale => Some(&counts.stale),
                // The application was asked: it counts as a miss.
                Told::Confirmed | Told::Stored => None,
            }
            .map(|counter| counter.fetch_add(1, Ordering::Relaxed));
        }
        self.only_workers_traffic = false;
        let mut outgoing = self.outgoing();
        let show = self.shows_status();
        let Some(connection) = self.get(token) else {
            self.recycle(outgoing);
            return self.give(exchange);
        };
        let head = &exchange.head;
        let keep_alive = head.keep_alive && !connection.is_at_its_last(draining);
        let mut bytes = std::mem::take(&mut exchange.reply.spare);
        bytes.clear();
        let made = render(&mut bytes, entry, condition, head.get(head.method) == b"HEAD", now);
        if show {
            append_told(&mut bytes, told, entry, now);
        }
        end_head(&mut bytes, keep_alive, head.version);
        push_answer(&mut outgoing, bytes, entry, &made);
        exchange.reply.outgoing.clear();
        exchange.reply.special = None;
        exchange.reply.status = made.status;
        exchange.reply.end = End::Complete;
        exchange.reply.keep_alive = keep_alive;
        exchange.reply.body_bytes = made.body_bytes as u64;
        let after = if keep_alive { After::KeepAlive } else { After::Close { linger: !connection.ended } };
        connection.phase = Phase::Responding { exchange: Some(exchange), after };
        self.entered(token);
        self.send(token, outgoing);
        self.rearm(token);
    }

    // --- The way back from the application -----------------------------------------------------------------

    /// A response passes: it is stored, if it may be, and whoever waits for it is told. `None`: nothing is left to be sent.
    pub(super) fn reply_passes(&mut self, mut exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        if self.shared.cache.is_none() {
            return Some(exchange);
        }
        let ticket = exchange.link.ticket();
        exchange.link.set_ticket(0);
        let Some(fetch) = (ticket != 0).then(|| self.caching.fetches.remove(&ticket)).flatten() else {
            self.invalidate_by(&exchange);
            if self.shows_status() && exchange.reply.head_bytes > 0 {
                let method = rules::method(exchange.head.get(exchange.head.method));
                let reason = if matches!(method, Method::Stored(_)) { "bypass" } else { "method" };
                tell(&mut exchange, &format!("Cache-Status: hoopsnake; fwd={reason}\r\nX-Cache: BYPASS\r\n"));
            }
            return Some(exchange);
        };
        self.fetched(fetch, exchange, ticket)
    }

    /// What was asked for has come, or won't.
    fn fetched(&mut self, mut fetch: Box<Fetch>, exchange: Box<Exchange>, ticket: u64) -> Option<Box<Exchange>> {
        let status = exchange.reply.status;
        let replaced = exchange.reply.special.as_ref().is_some_and(|special| special.replaces());
        let unanswered = status == 0 || (exchange.reply.head_bytes == 0 && !replaced);
        if unanswered || is_error(status) {
            // The client of a request that was given up may be there still: another one was told 504 in its place.
            let error = if unanswered { 504 } else { status };
            self.land(&mut fetch, if unanswered { Landing::Abandoned } else { Landing::Failed(error) });
            if fetch.refresh {
                self.end_refresh(exchange);
                return None;
            }
            let stale = fetch.stale.take();
            let usable = stale
                .filter(|entry| rules::usable_instead_of(error, &entry.freshness, &fetch.asked.directives, self.now));
            if let Some(entry) = usable.filter(|_| self.is_awaited(&exchange)) {
                // A worker that has more of it must not wait for room.
                self.cancel(&exchange.link);
                self.answer_stored(exchange.token, exchange, &entry, Some(&fetch.condition), Told::Stale);
                return None;
            }
            return self.let_pass(&fetch, exchange, false);
        }
        if status == 304 && fetch.validates && !replaced {
            return self.confirmed(fetch, exchange);
        }
        if replaced || status == 304 || exchange.reply.end == End::Abort {
            self.passes(&mut fetch, replaced);
            return self.let_pass(&fetch, exchange, false);
        }
        if exchange.reply.end == End::Streaming {
            return self.begins(fetch, exchange, ticket);
        }
        let stored = self.store_reply(&fetch, &exchange);
        match &stored {
            Ok(_) => self.land(&mut fetch, Landing::Stored),
            Err(_) => self.passes(&mut fetch, true),
        }
        let unmodified = stored.as_ref().ok().filter(|entry| {
            entry.status == 200 && fetch.asked.conditional && fetch.condition.holds(entry.etag(), entry.last_modified())
        });
        if let Some(entry) = unmodified {
            if self.is_awaited(&exchange) {
                self.answer_stored(exchange.token, exchange, entry, Some(&fetch.condition), Told::Stored);
                return None;
            }
        }
        self.let_pass(&fetch, exchange, stored.is_ok())
    }

    /// The response isn't stored: what was isn't of use any more. `always`: others of this kind won't be either.
    fn passes(&mut self, fetch: &mut Fetch, always: bool) {
        let Some(cache) = &self.shared.cache else { return };
        if always {
            if let Some(entry) = &fetch.stale {
                cache.drop_entry(&fetch.wanted, entry);
            }
            if !fetch.asked.authorization && !fetch.asked.directives.no_store {
                cache.note_passing(&fetch.wanted, self.now);
            }
        }
        self.land(fetch, Landing::Passing);
    }

    /// Tells the client how its answer came about, and lets it go out.
    fn let_pass(&mut self, fetch: &Fetch, mut exchange: Box<Exchange>, stored: bool) -> Option<Box<Exchange>> {
        if fetch.refresh {
            self.end_refresh(exchange);
            return None;
        }
        if self.shows_status() && exchange.reply.head_bytes > 0 {
            let reason = match fetch.reason {
                Reason::UriMiss => "uri-miss",
                Reason::VaryMiss => "vary-miss",
                Reason::Stale => "stale",
                Reason::Request => "request",
                Reason::Bypass => "bypass",
            };
            let status =
                if fetch.validates { format!("; fwd-status={}", exchange.reply.status) } else { String::new() };
            let stored = if stored { "; stored" } else { "" };
            let cache = if fetch.reason == Reason::Bypass { "BYPASS" } else { "MISS" };
            tell(
                &mut exchange,
                &format!("Cache-Status: hoopsnake; fwd={reason}{status}{stored}\r\nX-Cache: {cache}\r\n"),
            );
        }
        Some(exchange)
    }

    /// The application says that what is stored hasn't changed (RFC 9111 §4.3.3).
    fn confirmed(&mut self, mut fetch: Box<Fetch>, mut exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        let renewed = self.renew(&fetch, &exchange);
        match renewed {
            Some(entry) => {
                self.land(&mut fetch, Landing::Stored);
                if fetch.refresh {
                    self.end_refresh(exchange);
                } else if self.is_awaited(&exchange) {
                    self.answer_stored(exchange.token, exchange, &entry, Some(&fetch.condition), Told::Confirmed);
                } else {
                    return Some(exchange);
                }
            }
            // It speaks of another response than the one it was asked about (§4.3.4): asked again, without a condition.
            None => {
                if let (Some(cache), Some(entry)) = (&self.shared.cache, fetch.stale.take()) {
                    cache.drop_entry(&fetch.wanted, &entry);
                }
                self.land(&mut fetch, Landing::Abandoned);
                if fetch.refresh {
                    self.end_refresh(exchange);
                    return None;
                }
                if !self.is_awaited(&exchange) {
                    return Some(exchange);
                }
                make_unconditional(&mut exchange.head);
                exchange.reply.outgoing.clear();
                exchange.reply.special = None;
                (exchange.reply.status, exchange.reply.head_bytes) = (0, 0);
                // In the queue anew, with the time for that, and as one that hasn't been started.
                exchange.link = Arc::default();
                (exchange.queued, exchange.deadline) = (self.now, self.now + self.shared.settings.timeouts.request);
                self.await_answer(exchange.token, &exchange);
                self.give_to_pool(exchange);
            }
        }
        None
    }

    fn renew(&self, fetch: &Fetch, exchange: &Exchange) -> Option<Arc<Entry>> {
        let cache = self.shared.cache.as_ref()?;
        let head = exchange.reply.outgoing.front_owned()?.get(..exchange.reply.head_bytes)?;
        let times = Times { asked: fetch.at, answered: self.now, answered_unix: clock::unix_seconds() };
        cache.renew(&fetch.wanted, fetch.stale.as_ref()?, &Passing::parse(head)?, &times)
    }

    /// Stores a response that is here as a whole.
    fn store_reply(&self, fetch: &Fetch, exchange: &Exchange) -> Result<Arc<Entry>, Unstorable> {
        let reply = &exchange.reply;
        let Some(cache) = &self.shared.cache else { return Err(Unstorable::Directive) };
        if reply.special.as_ref().is_some_and(|special| special.block.is_some()) {
            return Err(Unstorable::Directive);
        }
        let head = reply.outgoing.front_owned().and_then(|bytes| bytes.get(..reply.head_bytes));
        let Some(passing) = head.and_then(Passing::parse) else { return Err(Unstorable::TooLarge) };
        // Nothing has been sent yet: what is in the queue is head and body.
        let body_bytes = (reply.outgoing.remaining() as usize).saturating_sub(reply.head_bytes);
        let times = Times { asked: fetch.at, answered: self.now, answered_unix: clock::unix_seconds() };
        let cookies = reply.special.as_ref().and_then(|special| special.vary_cookies.as_deref());
        let copy = || {
            let mut body = Vec::with_capacity(body_bytes);
            let whole = reply.outgoing.copy_out(0, reply.head_bytes, &mut body, body_bytes);
            whole.then(|| body.into_boxed_slice())
        };
        let Fetch { wanted, asked, .. } = fetch;
        cache.store(wanted, &exchange.head, asked, &passing, cookies, &times, body_bytes, copy)
    }

    /// A success of an unsafe method makes what is stored of its URL invalid (RFC 9111 §4.4).
    fn invalidate_by(&self, exchange: &Exchange) {
        let (Some(cache), head) = (&self.shared.cache, &exchange.head) else { return };
        let unsafe_method = rules::method(head.get(head.method)) == Method::Unsafe;
        if !unsafe_method || !rules::invalidates(exchange.reply.status) || head.bytes.is_empty() {
            return;
        }
        let mut own = Vec::new();
        key::primary_of(&mut own, head);
        cache.invalidate(&own, self.now);
        let made = exchange.reply.outgoing.front_owned();
        // Of a response that the reactor makes itself all of the segment is head.
        let end = if exchange.reply.head_bytes > 0 { exchange.reply.head_bytes } else { usize::MAX };
        let Some(passing) = made.and_then(|bytes| Passing::parse(&bytes[..end.min(bytes.len())])) else { return };
        for reference in passing.all("location").chain(passing.all("content-location")) {
            if let Some(other) = key::referenced(head.get(head.host), reference) {
                cache.invalidate(&other, self.now);
            }
        }
    }

    /// The reactor is about to answer 504 in the application's place: whether something stale may stand in for that.
    pub(super) fn stale_in_time(&mut self, token: Token, link: &Arc<Link>) -> bool {
        let Some(mut fetch) = self.caching.fetches.remove(&link.ticket()) else { return false };
        self.land(&mut fetch, Landing::Failed(504));
        let stale = fetch.stale.take();
        let directives = fetch.asked.directives;
        let condition = std::mem::take(&mut fetch.condition);
        // The application's answer, when it comes after all, is as good for the cache as any.
        self.caching.fetches.insert(link.ticket(), fetch);
        let Some(entry) = stale.filter(|entry| rules::usable_instead_of(504, &entry.freshness, &directives, self.now))
        else {
            return false;
        };
        let (now, show) = (self.now, self.shows_status());
        let Some(connection) = self.get(token) else { return false };
        let Phase::Waiting { head_only, version, keep_alive, .. } = connection.phase else { return false };
        let mut bytes = Vec::new();
        let made = render(&mut bytes, &entry, Some(&condition), head_only, now);
        if show {
            append_told(&mut bytes, Told::Stale, &entry, now);
        }
        end_head(&mut bytes, keep_alive, version);
        let after = if keep_alive { After::KeepAlive } else { After::Close { linger: !connection.ended } };
        connection.phase = Phase::Responding { exchange: None, after };
        link.answer(made.status);
        if link.started().is_some() {
            self.log_unanswered(link, made.status);
        }
        self.leave(link);
        self.only_workers_traffic = false;
        let mut outgoing = self.outgoing();
        push_answer(&mut outgoing, bytes, &entry, &made);
        self.entered(token);
        self.send(token, outgoing);
        self.rearm(token);
        true
    }

    // --- Those who wait ------------------------------------------------------------------------------------

    fn land(&mut self, fetch: &mut Fetch, landing: Landing) {
        if !std::mem::take(&mut fetch.leads) {
            return;
        }
        let Some(cache) = &self.shared.cache else { return };
        for reactor in cache.flights.land(fetch.wanted.flight) {
            self.shared.pool.tell(reactor, Message::Landed(fetch.wanted.flight, landing));
        }
    }

    /// What requests of this reactor have waited for is there, or won't come.
    pub(super) fn landed(&mut self, flight: u64, landing: Landing) {
        let Some(waiting) = self.caching.waiting.remove(&flight) else { return };
        if let Some(cache) = &self.shared.cache {
            cache.flights.leave(waiting.len());
        }
        for mut exchange in waiting {
            let token = exchange.token;
            self.caching.hurried.remove(&token);
            if !self.is_awaited(&exchange) {
                exchange.reply.status = exchange.link.answered().unwrap_or(super::responses::CLIENT_CLOSED_REQUEST);
                self.log_exchange(&exchange);
                self.give(exchange);
                continue;
            }
            self.guarded(Some(token), |reactor| reactor.wait_is_over(token, exchange, landing));
        }
    }

    /// The reactor ends: those whose answer won't be seen here any more get their lines in the log.
    pub(super) fn log_those_who_wait(&mut self) {
        let waiting = std::mem::take(&mut self.caching.waiting);
        for exchange in waiting.into_values().flatten() {
            if let Some(cache) = &self.shared.cache {
                cache.flights.leave(1);
            }
            self.unwanted(exchange);
        }
    }

    /// Looks a request up that has waited; to the application with it if there is still nothing for it.
    fn wait_is_over(&mut self, token: Token, exchange: Box<Exchange>, landing: Landing) {
        // Its time-out goes on as it began, also if it is to wait once more.
        let deadline = exchange.deadline;
        if let Some(connection) = self.get(token) {
            connection.deadline = deadline;
        }
        self.watch(token);
        let Some(exchange) = self.try_cache(token, exchange, Some(landing)) else { return };
        self.give_to_pool(exchange);
    }

    /// What requests of this reactor wait for has begun to come in pieces: it is soon there, or takes its time.
    pub(super) fn begun(&mut self, flight: u64) {
        let until = self.now + Duration::from_millis(limits::CACHE_PIECES_WAIT_MS);
        let waiting = self.caching.waiting.get(&flight).into_iter().flatten();
        let tokens: Vec<Token> =
            waiting.filter(|exchange| exchange.deadline > until).map(|exchange| exchange.token).collect();
        for token in tokens {
            self.caching.hurried.insert(token, flight);
            if let Some(connection) = self.get(token) {
                connection.deadline = until;
            }
            self.watch(token);
        }
    }

    /// The time of a connection is over: whether it was that of a request that waits for an answer in pieces, which then asks the
    /// application itself.
    pub(super) fn waits_no_more(&mut self, token: Token) -> bool {
        let Some(flight) = self.caching.hurried.remove(&token) else { return false };
        let Some(Phase::Waiting { link, .. }) = self.get(token).map(|connection| &connection.phase) else {
            return false;
        };
        // By its link: an earlier request of this connection, of which the client was told 504, may still wait beside it.
        let link = Arc::clone(link);
        let Some(waiting) = self.caching.waiting.get_mut(&flight) else { return false };
        let Some(at) = waiting.iter().position(|exchange| Arc::ptr_eq(&exchange.link, &link)) else { return false };
        let exchange = waiting.swap_remove(at);
        if waiting.is_empty() {
            self.caching.waiting.remove(&flight);
        }
        if let Some(cache) = &self.shared.cache {
            cache.flights.leave(1);
        }
        self.wait_is_over(token, exchange, Landing::Passing);
        true
    }

    // --- Responses in pieces -------------------------------------------------------------------------------

    /// A response begins that will come in pieces.
    fn begins(&mut self, mut fetch: Box<Fetch>, exchange: Box<Exchange>, ticket: u64) -> Option<Box<Exchange>> {
        let gathered = self.begin_gathering(&fetch, &exchange);
        let storable = gathered.is_some();
        match &self.shared.cache {
            Some(cache) if storable && fetch.leads => {
                for reactor in cache.flights.begin(fetch.wanted.flight) {
                    self.shared.pool.tell(reactor, Message::Begun(fetch.wanted.flight));
                }
            }
            _ if storable => {}
            _ => self.passes(&mut fetch, true),
        }
        if !fetch.refresh {
            let passed = self.let_pass(&fetch, exchange, false);
            match passed.as_ref().filter(|exchange| storable && self.is_awaited(exchange)) {
                Some(exchange) => {
                    fetch.gathered = gathered;
                    exchange.link.set_ticket(ticket);
                    self.caching.fetches.insert(ticket, fetch);
                }
                None => self.land(&mut fetch, Landing::Abandoned),
            }
            return passed;
        }
        if !storable {
            self.end_refresh(exchange);
            return None;
        }
        fetch.gathered = gathered;
        exchange.link.set_ticket(ticket);
        self.caching.fetches.insert(ticket, fetch);
        let token = exchange.token;
        let bytes = exchange.reply.outgoing.remaining();
        exchange.link.count(bytes);
        if let Some(worker) = exchange.link.sent(bytes as usize) {
            self.shared.pool.unpark(worker);
        }
        self.caching.streams.insert(token.slot, exchange);
        self.refresh_streams(token);
        None
    }

    /// The head and what is there of the body, if the whole could be stored.
    fn begin_gathering(&self, fetch: &Fetch, exchange: &Exchange) -> Option<Gathered> {
        let (cache, reply) = (self.shared.cache.as_ref()?, &exchange.reply);
        if reply.special.as_ref().is_some_and(|special| special.block.is_some()) {
            return None;
        }
        let head = reply.outgoing.front_owned()?.get(..reply.head_bytes)?;
        let passing = Passing::parse(head)?;
        let times = Times { asked: fetch.at, answered: self.now, answered_unix: clock::unix_seconds() };
        let freshness = passing.freshness(&times, cache.settings().ceiling);
        let length = usize::try_from(passing.length().unwrap_or(0)).unwrap_or(usize::MAX);
        let directives = &fetch.asked.directives;
        let candidate = passing.candidate(freshness, fetch.asked.authorization, directives.no_store, length);
        rules::storable(&candidate, self.now, cache.settings().response_bytes_max).ok()?;
        let mut body = Vec::new();
        let whole = reply.outgoing.copy_out(0, reply.head_bytes, &mut body, gathered_max(cache.settings()));
        whole.then(|| Gathered {
            head: head.to_vec(),
            cookies: reply.special.as_ref().and_then(|special| special.vary_cookies.clone()),
            body,
            answered: self.now,
            answered_unix: times.answered_unix,
        })
    }

    /// More of a response has come: the segments of `outgoing` from number `from` on.
    pub(super) fn gather(&mut self, token: Token, outgoing: &Outgoing, from: usize, end: Option<End>) {
        let Some(connection) = self.get(token) else { return };
        let Phase::Responding { exchange: Some(exchange), .. } = &mut connection.phase else { return };
        let link = Arc::clone(&exchange.link);
        let ticket = link.ticket();
        if !self.take_piece(ticket, outgoing, from) || end == Some(End::Abort) {
            if let Some(mut fetch) = self.caching.fetches.remove(&ticket) {
                self.land(&mut fetch, Landing::Passing);
            }
            link.set_ticket(0);
            return;
        }
        if end != Some(End::Complete) {
            return;
        }
        link.set_ticket(0);
        let Some(fetch) = self.caching.fetches.remove(&ticket) else { return };
        let Some(connection) = self.get(token) else { return };
        let Phase::Responding { exchange, .. } = &mut connection.phase else { return };
        // Out of the connection while the cache looks at it.
        let Some(taken) = exchange.take() else { return };
        self.store_gathered(fetch, &taken);
        if let Some(Phase::Responding { exchange, .. }) = self.get(token).map(|connection| &mut connection.phase) {
            *exchange = Some(taken);
        }
    }

    fn take_piece(&mut self, ticket: u64, outgoing: &Outgoing, from: usize) -> bool {
        let Some(cache) = &self.shared.cache else { return false };
        let gathered = self.caching.fetches.get_mut(&ticket).and_then(|fetch| fetch.gathered.as_mut());
        gathered.is_some_and(|gathered| outgoing.copy_out(from, 0, &mut gathered.body, gathered_max(cache.settings())))
    }

    /// A response in pieces is complete.
    fn store_gathered(&mut self, mut fetch: Box<Fetch>, exchange: &Exchange) {
        let landing = match fetch.gathered.take().map(|gathered| self.store_pieces(&fetch, exchange, gathered)) {
            Some(true) => Landing::Stored,
            Some(false) | None => Landing::Passing,
        };
        self.land(&mut fetch, landing);
    }

    fn store_pieces(&self, fetch: &Fetch, exchange: &Exchange, gathered: Gathered) -> bool {
        let (Some(cache), Some(passing)) = (&self.shared.cache, Passing::parse(&gathered.head)) else { return false };
        let body = match passing.is_chunked() {
            true => unchunked(&gathered.body, cache.settings().response_bytes_max),
            // What HTTP/1.0 is sent is complete when the application says so, or as long as was announced.
            false => Some(gathered.body),
        };
        let Some(body) = body.filter(|body| passing.length().is_none_or(|length| length == body.len() as u64)) else {
            return false;
        };
        let times = Times { asked: fetch.at, answered: gathered.answered, answered_unix: gathered.answered_unix };
        let (bytes, cookies) = (body.len(), gathered.cookies.as_deref());
        let (wanted, asked) = (&fetch.wanted, &fetch.asked);
        let body = || Some(body.into_boxed_slice());
        cache.store(wanted, &exchange.head, asked, &passing, cookies, &times, bytes, body).is_ok()
    }

    // --- Refreshes -----------------------------------------------------------------------------------------

    /// Asks the application anew for what is stale, in nobody's name but with the request of the client that found it so.
    fn refresh(&mut self, exchange: &Exchange, entry: &Arc<Entry>, asked: Asked) {
        let Some(cache) = &self.shared.cache else { return };
        if self.caching.refreshes >= limits::CACHE_REFRESHES_MAX || self.is_draining() {
            return;
        }
        let wanted = cache.wanted(&exchange.head, entry.guard);
        if cache.flights.join(wanted.flight, self.index, false) != Part::Lead {
            return;
        }
        let mut own = self.exchanges.take();
        let method: &[u8] = match entry.guard.class {
            Class::Get => b"GET",
            Class::Head => b"HEAD",
            Class::Options => b"OPTIONS",
        };
        copy_head(&exchange.head, &mut own.head, method);
        let validates = entry.status == 200 && entry.has_validator();
        if validates {
            make_conditional(&mut own.head, entry.etag(), entry.last_modified_text());
        } else {
            make_unconditional(&mut own.head);
        }
        own.head.keep_alive = true;
        (own.reactor, own.listener, own.peer) = (exchange.reactor, exchange.listener, exchange.peer);
        (own.received, own.queued, own.deadline) = (self.now, self.now, exchange.deadline);
        let ticket = self.keep(Fetch {
            wanted,
            asked,
            reason: Reason::Stale,
            leads: true,
            stale: Some(Arc::clone(entry)),
            validates,
            condition: Condition::default(),
            at: self.now,
            refresh: true,
            gathered: None,
        });
        own.link.set_ticket(ticket);
        own.token = Token { slot: REFRESH_SLOT | (ticket as u32 & (REFRESH_SLOT - 1)), generation: 0 };
        self.caching.refreshes += 1;
        self.give_to_pool(own);
    }

    /// A refresh is over.
    fn end_refresh(&mut self, mut exchange: Box<Exchange>) {
        self.caching.refreshes -= 1;
        // A worker that has more of it needs it no longer.
        self.cancel(&exchange.link);
        exchange.reply.outgoing.clear();
        self.give(exchange);
    }

    /// An exchange is given up: whatever the cache expected of it won't come.
    pub(super) fn forget_ticket(&mut self, exchange: &Exchange) {
        let ticket = exchange.link.ticket();
        if ticket == 0 {
            return;
        }
        exchange.link.set_ticket(0);
        if let Some(mut fetch) = self.caching.fetches.remove(&ticket) {
            self.land(&mut fetch, Landing::Abandoned);
        }
    }

    /// The response to a refresh has more.
    pub(super) fn refresh_streams(&mut self, token: Token) {
        let Some(exchange) = self.caching.streams.remove(&token.slot) else { return };
        let mut outgoing = self.outgoing();
        let end = exchange.link.collect(&mut outgoing);
        if let Some(worker) = exchange.link.sent(outgoing.remaining() as usize) {
            self.shared.pool.unpark(worker);
        }
        let ticket = exchange.link.ticket();
        let taken = self.take_piece(ticket, &outgoing, 0);
        self.recycle(outgoing);
        if taken && end.is_none() {
            self.caching.streams.insert(token.slot, exchange);
            return;
        }
        exchange.link.set_ticket(0);
        if let Some(mut fetch) = self.caching.fetches.remove(&ticket) {
            match taken && end == Some(End::Complete) {
                true => self.store_gathered(fetch, &exchange),
                false => self.land(&mut fetch, Landing::Passing),
            }
        }
        self.end_refresh(exchange);
    }
}

/// What was rendered.
struct Made {
    status: u16,
    /// Body bytes to follow.
    body_bytes: usize,
}

/// Appends the head of the answer that `entry` gives, without the fields of the connection.
fn render(bytes: &mut Vec<u8>, entry: &Entry, condition: Option<&Condition>, head_only: bool, now: Instant) -> Made {
    let conditional = entry.status == 200 && entry.guard.class != Class::Options;
    if conditional && condition.is_some_and(|condition| condition.holds(entry.etag(), entry.last_modified())) {
        entry.append_not_modified(bytes, now);
        return Made { status: 304, body_bytes: 0 };
    }
    entry.append_head(bytes, now);
    Made { status: entry.status, body_bytes: if head_only { 0 } else { entry.body_bytes() } }
}

fn end_head(bytes: &mut Vec<u8>, keep_alive: bool, version: Version) {
    // RFC 9112 §9.3.
    match (keep_alive, version) {
        (false, _) => bytes.extend_from_slice(b"Connection: close\r\n"),
        (true, Version::Http10) => bytes.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, Version::Http11) => {}
    }
    bytes.extend_from_slice(b"\r\n");
}

/// Puts head and body of an answer into the queue.
fn push_answer(outgoing: &mut Outgoing, mut head: Vec<u8>, entry: &Entry, made: &Made) {
    if made.body_bytes == 0 {
        return outgoing.push(Segment::Bytes(head));
    }
    let body = entry.body();
    match body.memory() {
        Some(bytes) if bytes.len() <= limits::STATIC_COPY_BYTES_MAX => {
            head.extend_from_slice(bytes);
            outgoing.push(Segment::Bytes(head));
        }
        _ => {
            outgoing.push(Segment::Bytes(head));
            outgoing.push(body.segment());
        }
    }
}

/// Appends `Cache-Status` (RFC 9211) and `X-Cache`.
fn append_told(bytes: &mut Vec<u8>, told: Told, entry: &Entry, now: Instant) {
    let ttl = match entry.freshness.left(now) {
        Some(left) => left.as_secs() as i64,
        None => -(entry.freshness.staleness(now).as_secs() as i64),
    };
    let (status, cache) = match told {
        Told::Hit => (format!("hit; ttl={ttl}"), "HIT"),
        Told::Collapsed => (format!("fwd=uri-miss; collapsed; ttl={ttl}"), "HIT"),
        Told::Stale => (format!("hit; ttl={ttl}"), "STALE"),
        Told::Stored => (format!("fwd=uri-miss; stored; ttl={ttl}"), "MISS"),
        Told::Confirmed => (format!("fwd=stale; fwd-status=304; ttl={ttl}"), "MISS"),
    };
    bytes.extend_from_slice(format!("Cache-Status: hoopsnake; {status}\r\nX-Cache: {cache}\r\n").as_bytes());
}

/// Puts field lines at the end of the head of a response that is about to be sent.
fn tell(exchange: &mut Exchange, lines: &str) {
    let reply = &mut exchange.reply;
    let end = reply.head_bytes.checked_sub(2);
    if end.is_some_and(|end| reply.outgoing.insert_in_front(end, lines.as_bytes())) {
        reply.head_bytes += lines.len();
    }
}

/// Statuses that something stale may stand in for (RFC 5861 §4).
fn is_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// Whether the peer is a proxy whose word is taken, as for `wsgi.url_scheme`.
fn is_trusted(peer: Peer, trusted: &[Network]) -> bool {
    match peer {
        Peer::Unix => !trusted.is_empty(),
        Peer::Tcp(address, _) => trusted.iter().any(|network| network.contains(address)),
    }
}

/// Bytes of a response in pieces that are gathered: a body as large as may be, and its chunks' frames if they aren't tiny.
fn gathered_max(settings: &Settings) -> usize {
    settings.response_bytes_max.saturating_add(settings.response_bytes_max / 8).saturating_add(1024)
}

/// A body without its chunks; `None` if it isn't complete or is longer than `bytes_max`.
fn unchunked(coded: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut decoder = BodyDecoder::new(Framing::Chunked, bytes_max as u64).ok()?;
    let (mut body, mut rest) = (Vec::new(), coded);
    loop {
        match decoder.decode(rest).ok()? {
            Step::Data { data, consumed } => {
                body.extend_from_slice(data);
                rest = &rest[consumed..];
            }
            Step::NeedMore { .. } => return None,
            Step::Done { .. } => return Some(body),
        }
    }
}
