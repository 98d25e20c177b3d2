//! The way in: bytes from a peer to a request in the workers' queue, or a refusal.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::conn::{After, BodyStore, Ended, Feed, Phase, feed, input_ended, store_body};
use super::exchange::{Body, Exchange, Link};
use super::http1::{Refusal, Version, encode};
use super::responses::{CLIENT_CLOSED_REQUEST, client_of};
use super::{Course, Reactor};
use crate::reactor::{Buffer, Driver, Outgoing, Segment, Token, clock};

impl<D: Driver> Reactor<D> {
    pub(super) fn received(&mut self, token: Token, result: io::Result<Buffer>, armed: bool) {
        let Some(connection) = self.connections.get_mut(token.slot as usize).filter(|c| c.token == token) else {
            if let Ok(buffer) = result {
                self.driver.release(buffer);
            }
            return;
        };
        connection.receiving = armed;
        connection.pausing &= armed;
        match result {
            Ok(buffer) if buffer.length == 0 => {
                self.driver.release(buffer);
                self.ended(token);
            }
            Ok(buffer) => {
                if self.course != Course::Serving {
                    connection.late = connection.late.saturating_add(buffer.length as usize);
                }
                let shared = &*self.shared;
                let bytes = self.driver.bytes(&buffer);
                let fed = feed(connection, bytes, self.now, &shared.settings, &mut self.exchanges);
                self.driver.release(buffer);
                self.follow(token, fed);
            }
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
            Err(error) => {
                tracing::debug!("a client's connection failed: {error}");
                self.lost(token);
            }
        }
        self.rearm(token);
        self.try_remove(token);
    }

    /// Looks at the pipelined bytes of connections whose last request is answered.
    pub(super) fn feed_ready(&mut self) {
        // Those that become ready again wait for the next turn: one connection doesn't hold up the others.
        for _ in 0..self.ready.len() {
            let Some(token) = self.ready.pop_front() else { return };
            self.guarded(Some(token), |reactor| reactor.feed_pending(token));
        }
    }

    fn feed_pending(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token.slot as usize).filter(|c| c.token == token) else {
            return;
        };
        if !matches!(connection.phase, Phase::Idle) || connection.pending.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut connection.pending);
        let fed = feed(connection, &bytes, self.now, &self.shared.settings, &mut self.exchanges);
        self.follow(token, fed);
        if self.get(token).is_some_and(|connection| connection.ended) {
            self.ended(token);
        }
        self.rearm(token);
    }

    /// Does what feeding a connection asks for.
    fn follow(&mut self, token: Token, fed: Feed) {
        match fed {
            Feed::More => self.progress(token),
            Feed::Begun => self.entered(token),
            Feed::Continue => {
                let mut outgoing = self.outgoing();
                outgoing.push(Segment::Bytes(encode::CONTINUE.to_vec()));
                self.send(token, outgoing);
                self.progress(token);
            }
            Feed::Request(exchange) => self.submit(token, exchange),
            Feed::Store => self.store(token),
            Feed::Refuse(refusal, exchange) => self.refuse(token, refusal, Some(exchange)),
        }
    }

    /// More bytes came: the deadline of a body, wanted or not, moves with each of them; a head's doesn't.
    fn progress(&mut self, token: Token) {
        match self.get(token).map(|connection| &connection.phase) {
            Some(Phase::Body { .. }) => {
                self.only_workers_traffic = false;
                self.entered(token);
            }
            Some(Phase::Lingering { .. }) => self.entered(token),
            _ => {}
        }
    }

    /// The peer has ended its side.
    fn ended(&mut self, token: Token) {
        let Some(connection) = self.get(token) else { return };
        match input_ended(connection) {
            Ended::Close => self.close(token),
            Ended::Refuse(refusal) => self.refuse(token, refusal, None),
            Ended::Later => {}
        }
    }

    /// The connection has failed: nobody is there any more.
    pub(super) fn lost(&mut self, token: Token) {
        if let Some(connection) = self.get(token) {
            connection.ended = true;
            self.close(token);
        }
    }

    /// A body is complete or has outgrown memory.
    fn store(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token.slot as usize).filter(|c| c.token == token) else {
            return;
        };
        match store_body(connection) {
            Ok(exchange) => self.submit(token, exchange),
            Err(Some(spool)) => {
                connection.disk_jobs += 1;
                self.shared.disk.write(&self.mailbox, token, spool);
                self.entered(token);
            }
            Err(None) => self.entered(token),
        }
    }

    /// The disk thread has written part of a body.
    pub(super) fn spooled(&mut self, token: Token, result: io::Result<Arc<File>>, buffer: Vec<u8>) {
        let Some(connection) = self.get(token) else { return };
        connection.disk_jobs -= 1;
        match (&mut connection.phase, result) {
            (Phase::Body { store, .. }, Ok(file)) => {
                store.written(file, buffer);
                self.store(token);
                self.rearm(token);
            }
            (Phase::Body { .. }, Err(error)) => {
                tracing::error!(
                    "can't write a request body to a temporary file in {}: {error}; free some space there, or set TMPDIR",
                    std::env::temp_dir().display()
                );
                self.unavailable(token);
            }
            // The request was refused meanwhile, or the connection closed.
            (_, result) => {
                if let Ok(file) = result {
                    self.shared.disk.discard(file);
                }
                self.try_remove(token);
            }
        }
    }

    /// A request is complete: it is answered here if it can be, otherwise by a worker.
    pub(super) fn submit(&mut self, token: Token, mut exchange: Box<Exchange>) {
        let (now, index, timeouts) = (self.now, self.index, self.shared.settings.timeouts);
        let draining = self.course != Course::Serving;
        let Some(connection) = self.connections.get_mut(token.slot as usize).filter(|c| c.token == token) else {
            return;
        };
        if exchange.client.is_none() {
            exchange.client = Some(client_of(connection.peer, &exchange.head, &self.shared.trusted_proxies));
        }
        if !exchange.retried {
            exchange.goes_on = exchange.head.keep_alive;
        }
        if timeouts.keep_alive.is_zero() || connection.is_at_its_last(draining) {
            exchange.head.keep_alive = false;
        }
        exchange.reactor = index;
        exchange.token = token;
        exchange.listener = connection.listener;
        exchange.peer = connection.peer;
        exchange.queued = now;
        exchange.deadline = now + timeouts.request;
        if exchange.retried {
            // It was for the application the first time.
            self.await_answer(token, &exchange);
            return self.give_to_pool(exchange);
        }
        self.figures.requests += 1;
        let given_back = self.let_through(token, exchange).and_then(|exchange| self.serve_file(token, exchange));
        match given_back {
            Some(exchange) => self.not_a_file(token, exchange),
            None => self.only_workers_traffic = false,
        }
    }

    /// A request that isn't for a file: the cache has the answer, or the application.
    pub(super) fn not_a_file(&mut self, token: Token, exchange: Box<Exchange>) {
        let Some(exchange) = self.try_cache(token, exchange, None) else {
            // Answered here, or waiting for another one's answer: that is a worker's.
            return;
        };
        self.await_answer(token, &exchange);
        self.give_to_pool(exchange);
    }

    /// Makes the connection wait for somebody's answer.
    pub(super) fn await_answer(&mut self, token: Token, exchange: &Exchange) {
        let Some(connection) = self.get(token) else { return };
        connection.phase = Phase::Waiting {
            link: Arc::clone(&exchange.link),
            queued: exchange.queued,
            head_only: exchange.head.get(exchange.head.method) == b"HEAD",
            version: exchange.head.version,
            keep_alive: exchange.head.keep_alive,
        };
        if connection.ended {
            exchange.link.set_disconnected();
        }
        if connection.is_owed_more() {
            exchange.link.set_followed();
        }
        self.entered(token);
    }

    /// Puts a request that is waited for into the workers' queue.
    pub(super) fn give_to_pool(&mut self, exchange: Box<Exchange>) {
        self.submitted = true;
        self.shared.pool.submit(exchange);
    }

    /// Answers a refused request and ends the connection.
    pub(super) fn refuse(&mut self, token: Token, refusal: Refusal, exchange: Option<Box<Exchange>>) {
        let date = *self.date.at(clock::unix_seconds());
        let Some(found) = exchange.or_else(|| self.take_body(token)) else {
            // A head that never became complete has left nothing to log but the refusal itself.
            let blank = self.exchanges.take_blank(self.now);
            return self.refuse(token, refusal, Some(blank));
        };
        self.figures.refused += 1;
        tracing::debug!("a request was refused with {}: {}", refusal.status(), refusal.detail());
        let head_only = self.conclude(token, found, refusal.status());
        let mut bytes = Vec::with_capacity(256);
        encode::refusal_response(&mut bytes, refusal, &date, head_only);
        self.respond_and_close(token, bytes);
    }

    /// A disk failed us: 503, and the connection ends since its body isn't all read.
    fn unavailable(&mut self, token: Token) {
        let Some(exchange) = self.take_body(token) else { return };
        let head_only = self.conclude(token, exchange, 503);
        let date = *self.date.at(clock::unix_seconds());
        let mut bytes = Vec::with_capacity(256);
        let text = "503 Service Unavailable: the request could not be stored\n";
        encode::plain_response(&mut bytes, 503, text, "", &date, false, Version::Http11, head_only);
        self.respond_and_close(token, bytes);
    }

    /// Logs and takes back a request that no worker saw. Whether it was a HEAD request.
    fn conclude(&mut self, token: Token, mut exchange: Box<Exchange>, status: u16) -> bool {
        let head_only = exchange.head.get(exchange.head.method) == b"HEAD";
        if let Some(connection) = self.get(token) {
            exchange.peer = connection.peer;
        }
        exchange.reply.status = status;
        self.log_exchange(&exchange);
        self.give(exchange);
        head_only
    }

    /// The request has waited, or run, for longer than `--request-timeout`.
    pub(super) fn gateway_timeout(&mut self, token: Token) {
        let Some(connection) = self.get(token) else { return };
        let Phase::Waiting { link, .. } = &connection.phase else {
            tracing::error!("a request body could not be stored in time: the disk of the temporary files is too slow");
            return self.unavailable(token);
        };
        let link = Arc::clone(link);
        if self.refuse_held(token) || self.waits_no_more(token) || self.stale_in_time(token, &link) {
            return;
        }
        let sentence = match link.started() {
            Some(_) => "the application took too long",
            None => "no worker was free in time",
        };
        link.answer(504);
        if link.started().is_some() {
            self.log_unanswered(&link, 504);
        } else {
            self.figures.queue_timeouts += 1;
        }
        self.leave(&link);
        self.answer(token, 504, sentence, "");
    }

    /// Nobody waits any more for a request that was given to the workers. One that is still in the queue leaves it at once; the log
    /// gets what the client was told.
    pub(super) fn leave(&mut self, link: &Arc<Link>) {
        self.cancel(link);
        if link.started().is_some() {
            if self.is_draining() && !link.is_logged() {
                // It may come back when nobody is here any more to log it.
                self.log_unanswered(link, link.answered().unwrap_or(CLIENT_CLOSED_REQUEST));
            }
            return;
        }
        if let Some(exchange) = self.shared.pool.withdraw(link, self.now) {
            let Some(mut exchange) = self.reply_passes(exchange) else { return };
            exchange.reply.status = link.answered().unwrap_or(CLIENT_CLOSED_REQUEST);
            self.log_exchange(&exchange);
            self.give(exchange);
        }
    }

    /// Answers, in place of a worker, a request that is [`Phase::Waiting`].
    pub(super) fn answer(&mut self, token: Token, status: u16, sentence: &str, extra: &str) {
        let date = *self.date.at(clock::unix_seconds());
        let Some(connection) = self.get(token) else { return };
        let Phase::Waiting { head_only, version, keep_alive, .. } = connection.phase else { return };
        let text = format!("{status} {}: {sentence}\n", encode::reason(status));
        let mut bytes = Vec::with_capacity(256);
        if status == 204 {
            encode::empty_response(&mut bytes, &date, keep_alive, version);
        } else {
            encode::plain_response(&mut bytes, status, &text, extra, &date, keep_alive, version, head_only);
        }
        let linger = !connection.ended;
        let after = if keep_alive { After::KeepAlive } else { After::Close { linger } };
        self.respond(token, bytes, after);
    }

    fn respond_and_close(&mut self, token: Token, bytes: Vec<u8>) {
        let Some(connection) = self.get(token) else { return };
        connection.pending = Vec::new();
        let linger = !connection.ended;
        self.respond(token, bytes, After::Close { linger });
    }

    /// Sends `bytes` as the whole response of a request that has no exchange (any more).
    fn respond(&mut self, token: Token, bytes: Vec<u8>, after: After) {
        self.only_workers_traffic = false;
        let mut outgoing: Box<Outgoing> = self.outgoing();
        outgoing.push(Segment::Bytes(bytes));
        let Some(connection) = self.get(token) else { return };
        connection.phase = Phase::Responding { exchange: None, after };
        self.entered(token);
        self.send(token, outgoing);
        self.rearm(token);
    }

    /// Nobody waits for this response any more: a worker that waits for room in it is let go.
    pub(super) fn cancel(&self, link: &Link) {
        if let Some(worker) = link.cancel() {
            self.shared.pool.unpark(worker);
        }
    }

    /// Takes the exchange out of a connection whose body goes nowhere.
    fn take_body(&mut self, token: Token) -> Option<Box<Exchange>> {
        let connection = self.get(token)?;
        if !matches!(connection.phase, Phase::Body { .. }) {
            return None;
        }
        let Phase::Body { exchange, store, .. } = std::mem::replace(&mut connection.phase, Phase::Idle) else {
            return None;
        };
        self.discard(store);
        Some(exchange)
    }

    /// Lets go of a body that goes nowhere. A reactor closes no large files: that can wait for a disk.
    pub(super) fn discard(&self, store: BodyStore) {
        if let Some(file) = store.into_file() {
            self.shared.disk.discard(file);
        }
    }

    /// Takes an exchange back.
    pub(super) fn give(&mut self, mut exchange: Box<Exchange>) {
        self.forget_ticket(&exchange);
        if let Body::File(file, _) = std::mem::take(&mut exchange.body) {
            self.shared.disk.discard(Arc::new(file));
        }
        self.exchanges.give(exchange);
    }
}
