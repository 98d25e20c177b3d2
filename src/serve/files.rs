//! Files on their way out: looked up in the store, or searched for (by the disk thread if that may take time), and answered without a
//! worker. What an application names in X-Sendfile or X-Accel-Redirect goes the same way, with the fields it gave.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crossbeam::queue::SegQueue;

use super::conn::Phase;
use super::exchange::{End, Exchange, Message};
use super::http1::Framing;
use super::http1::encode::{self, DateText};
use super::local::files::answer::{Answer, Moment};
use super::local::files::{Found, Given, Record, Request, Search, Seen, Settings, Store, Target, map, search};
use super::{Reactor, limits};
use crate::reactor::open::Wait;
use crate::reactor::{Driver, Segment, Token, clock};

/// What a reactor knows of files.
#[derive(Default)]
pub(super) struct Files {
    store: Store,
    /// What the disk thread has found. At most [`limits::STATIC_SEARCHES_MAX`].
    results: Arc<SegQueue<Searched>>,
    /// Searches that the disk thread has.
    searching: usize,
    expires: DateText,
    /// For boundaries that no file holds.
    seed: RandomState,
    boundaries: u64,
    /// Scratch: what left the store.
    gone: Vec<Arc<Record>>,
}

/// A search that came back.
struct Searched {
    exchange: Box<Exchange>,
    target: Target,
    found: Found,
}

impl<D: Driver> Reactor<D> {
    /// Answers a request for a static file. Otherwise it is given back; nothing of it is changed.
    pub(super) fn serve_file(&mut self, token: Token, exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        let Some(settings) = &self.shared.files else { return Some(exchange) };
        let head = &exchange.head;
        let bodiless = matches!(head.framing, Framing::None | Framing::Length(0));
        if settings.maps.is_empty() || !bodiless || !matches!(head.get(head.method), b"GET" | b"HEAD") {
            return Some(exchange);
        }
        let Some(path) = map::clean(head.get(head.path)) else { return Some(exchange) };
        if !search::concerns(settings, &path) {
            return Some(exchange);
        }
        let known = match self.files.store.get(&path, self.now) {
            Seen::Fresh(record) => {
                self.send_file(exchange, &record);
                return None;
            }
            Seen::Stale(record) => Some(record),
            Seen::Unknown => None,
        };
        let target = Target::Static(path.into_owned());
        let settings = Arc::clone(settings);
        self.search(token, exchange, settings, target, known)
    }

    /// The application has named a file for us to send. The request is [`Phase::Waiting`].
    pub(super) fn send_named(&mut self, exchange: Box<Exchange>) {
        let token = exchange.token;
        let special = exchange.reply.special.as_deref();
        let target = match special.map(|special| (&special.sendfile, &special.accel_redirect)) {
            Some((Some(path), _)) => Some(Target::Sendfile(path.clone())),
            // A URL, of which the query says nothing about a file.
            Some((None, Some(url))) => {
                let path = url.split(|&byte| byte == b'?').next().unwrap_or_default();
                map::clean(path).map(|path| Target::Static(path.into_owned()))
            }
            _ => None,
        };
        let (Some(target), Some(settings)) = (target, self.shared.files.clone()) else {
            return self.nothing_named(exchange);
        };
        let known = match self.files.store.get(&target.key(), self.now) {
            Seen::Fresh(record) => return self.send_file(exchange, &record),
            Seen::Stale(record) => Some(record),
            Seen::Unknown => None,
        };
        let given_back = self.search(token, exchange, settings, target, known);
        debug_assert!(given_back.is_none(), "an application's response is answered here in any case");
    }

    /// Searches here if that takes no time, and has it done otherwise. The request is given back if it is for no file.
    fn search(
        &mut self,
        token: Token,
        exchange: Box<Exchange>,
        settings: Arc<Settings>,
        target: Target,
        known: Option<Arc<Record>>,
    ) -> Option<Box<Exchange>> {
        let search = Search { settings, target, known, now: clock::unix_seconds() };
        if let Ok(found) = search.run(Wait::Never) {
            return self.conclude_search(Searched { exchange, target: search.target, found });
        }
        if self.files.searching >= limits::STATIC_SEARCHES_MAX {
            let extra = "Retry-After: 1\r\n";
            self.answer_instead(exchange, 503, "too many files are waited for", extra);
            return None;
        }
        self.files.searching += 1;
        self.await_answer(token, &exchange);
        let results = Arc::clone(&self.files.results);
        let work = move || {
            // Nothing is waited for that can't be: the search never says that it must.
            let found = search.run(Wait::Allowed).unwrap_or(Found::Nothing);
            results.push(Searched { exchange, target: search.target, found });
            Message::Found
        };
        self.shared.disk.work(&self.mailbox, Box::new(work));
        None
    }

    /// The disk thread has searched.
    pub(super) fn found(&mut self) {
        let Some(searched) = self.files.results.pop() else { return };
        self.files.searching -= 1;
        let token = searched.exchange.token;
        if !self.is_awaited(&searched.exchange) {
            self.unwanted(searched.exchange);
            return;
        }
        self.guarded(Some(token), |reactor| {
            if let Some(exchange) = reactor.conclude_search(searched) {
                reactor.not_a_file(token, exchange);
            }
        });
    }

    /// Answers with what was found. A request for which nothing was found is given back, unless an application asked for it.
    fn conclude_search(&mut self, searched: Searched) -> Option<Box<Exchange>> {
        let Searched { exchange, target, found } = searched;
        let key = target.key();
        match found {
            Found::File(record) => {
                self.files.store.put(key, Arc::clone(&record), self.now, &mut self.files.gone);
                self.close_gone();
                self.send_file(exchange, &record);
            }
            Found::Folder if exchange.reply.special.is_none() => {
                let Target::Static(path) = target else { return Some(exchange) };
                let location = map::location(&path, exchange.head.get(exchange.head.query));
                self.answer_instead(exchange, 301, "", &format!("Location: {location}\r\n"));
            }
            Found::Folder | Found::Nothing => {
                self.files.store.forget(&key, &mut self.files.gone);
                self.close_gone();
                if exchange.reply.special.is_none() {
                    return Some(exchange);
                }
                self.nothing_named(exchange);
            }
            Found::Failed(error) => {
                tracing::error!(
                    "a file can't be opened: {error}; if descriptors have run out, raise the limit (ulimit -n)"
                );
                self.answer_instead(exchange, 503, "a file could not be opened", "Retry-After: 1\r\n");
            }
        }
        None
    }

    /// A large file may take its time to be closed: that is for the disk thread.
    fn close_gone(&mut self) {
        for record in self.files.gone.drain(..) {
            for file in record.files() {
                self.shared.disk.discard(file);
            }
        }
    }

    /// The application has named what isn't there, or isn't to be given out.
    fn nothing_named(&mut self, exchange: Box<Exchange>) {
        let special = exchange.reply.special.as_deref();
        let (field, value) = match special.map(|special| (&special.sendfile, &special.accel_redirect)) {
            Some((Some(path), _)) => ("X-Sendfile", path.as_slice()),
            Some((None, Some(url))) => ("X-Accel-Redirect", url.as_slice()),
            _ => ("nothing", &[][..]),
        };
        let target = exchange.head.get(exchange.head.target);
        tracing::error!(
            "{}: the application named '{}' in {field}, and no file is there that it may give out; look at {}",
            String::from_utf8_lossy(target),
            String::from_utf8_lossy(value).escape_debug(),
            if field == "X-Sendfile" { "--sendfile-root" } else { "--static-map" }
        );
        self.answer_instead(exchange, 404, "", "");
    }

    /// Answers with a file.
    fn send_file(&mut self, mut exchange: Box<Exchange>, record: &Arc<Record>) {
        self.only_workers_traffic = false;
        let Some(settings) = self.shared.files.clone() else { return };
        let given = exchange.reply.special.is_some().then(|| {
            let fields = exchange.reply.outgoing.finish().unwrap_or_default();
            Given::parse(&fields)
        });
        exchange.reply.outgoing.clear();
        let now = clock::unix_seconds();
        let moment = Moment {
            now,
            date: *self.date.at(now),
            expires: *self.files.expires.at(now.saturating_add(settings.max_age)),
        };
        let mut buffer = std::mem::take(&mut exchange.reply.spare);
        buffer.clear();
        let keep_alive = !self.is_at_its_last(exchange.token)
            && match &given {
                Some(_) => exchange.reply.keep_alive,
                None => exchange.head.keep_alive,
            };
        let request = Request::gather(&exchange.head);
        let boundary = if request.range.is_some() { self.files.boundary() } else { 0 };
        let answer = Answer {
            record,
            settings: &settings,
            given: given.as_ref(),
            moment: &moment,
            version: exchange.head.version,
            keep_alive,
            boundary,
        };
        let made = answer.make(&request, buffer, &mut exchange.reply.outgoing);
        let Some(made) = made else {
            self.answer_instead(exchange, 500, "a file was lost", "");
            return;
        };
        let reply = &mut exchange.reply;
        (reply.status, reply.body_bytes, reply.keep_alive) = (made.status, made.body_bytes, keep_alive);
        (reply.head_bytes, reply.end) = (made.head_bytes, End::Complete);
        self.begin_response(exchange);
    }

    /// Answers with a sentence of our own.
    fn answer_instead(&mut self, mut exchange: Box<Exchange>, status: u16, sentence: &str, extra: &str) {
        self.only_workers_traffic = false;
        let head = &exchange.head;
        let (head_only, version) = (head.get(head.method) == b"HEAD", head.version);
        let keep_alive = !self.is_at_its_last(exchange.token)
            && match exchange.reply.special {
                Some(_) => exchange.reply.keep_alive,
                None => head.keep_alive,
            };
        let text = match sentence {
            "" => format!("{status} {}\n", encode::reason(status)),
            sentence => format!("{status} {}: {sentence}\n", encode::reason(status)),
        };
        let date = *self.date.at(clock::unix_seconds());
        let mut bytes = Vec::with_capacity(512);
        encode::plain_response(&mut bytes, status, &text, extra, &date, keep_alive, version, head_only);
        let reply = &mut exchange.reply;
        reply.outgoing.clear();
        reply.body_bytes = if head_only { 0 } else { text.len() as u64 };
        reply.head_bytes = bytes.len() - reply.body_bytes as usize;
        reply.outgoing.push(Segment::Bytes(bytes));
        (reply.status, reply.end, reply.keep_alive) = (status, End::Complete, keep_alive);
        self.begin_response(exchange);
    }

    /// Whether the connection still waits for the answer to this request.
    pub(super) fn is_awaited(&mut self, exchange: &Exchange) -> bool {
        self.get(exchange.token).is_some_and(
            |connection| matches!(&connection.phase, Phase::Waiting { link, .. } if Arc::ptr_eq(link, &exchange.link)),
        )
    }
}

impl Files {
    /// One that was never used and can't be guessed.
    fn boundary(&mut self) -> u128 {
        self.boundaries += 2;
        let half = |number: u64| u128::from(self.seed.hash_one(number));
        half(self.boundaries) << 64 | half(self.boundaries + 1)
    }
}
