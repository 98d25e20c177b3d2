//! The corridor's part of blocking clients (`X-WSGo-Block`): who is blocked is decided in [`super::local::block`]; here requests are
//! held and refused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use super::Reactor;
use super::conn::{After, Phase};
use super::exchange::Exchange;
use super::http1::encode;
use super::local::block::{Blocks, Verdict, seconds};
use super::responses::CLIENT_CLOSED_REQUEST;
use crate::observe::status::{Counter, Lines};
use crate::reactor::{Driver, Segment, Token, clock};

/// The whole body of a refusal.
const BODY: &str = "\n";

/// The blocked clients of a process, for all its reactors.
#[derive(Default)]
pub struct Blocking {
    /// Whether anybody is blocked: all that an ordinary request looks at.
    any: AtomicBool,
    blocks: Mutex<Blocks>,
    /// Times that a client was blocked.
    established: Counter,
    /// Requests of blocked clients that were refused, or held to be.
    refused: Counter,
}

impl Blocking {
    /// Adds its figures, by wsgo's names.
    pub fn report(&self, lines: &mut Lines) {
        let blocked = self.lock().len();
        lines.line("Blocked clients", blocked);
        lines.line("Blocks established", self.established.get());
        lines.line("Blocked requests", self.refused.get());
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests of blocked clients that a reactor holds, by their connections.
pub(super) type Held = HashMap<Token, Box<Exchange>, RandomState>;

impl<D: Driver> Reactor<D> {
    /// Blocks the client of a response that asks for it.
    pub(super) fn block_as_told(&mut self, exchange: &Exchange) {
        let Some(value) = exchange.reply.special.as_ref().and_then(|special| special.block.as_deref()) else { return };
        let Some(seconds) = seconds(value) else {
            tracing::warn!(
                "X-WSGo-Block: '{}' isn't a number of seconds; the client isn't blocked",
                value.escape_ascii().to_string().chars().take(60).collect::<String>()
            );
            return;
        };
        let Some(client) = exchange.client.and_then(|client| client.address) else { return };
        let mut blocks = self.shared.blocking.lock();
        if blocks.block(client, seconds, self.now) {
            self.shared.blocking.any.store(true, Ordering::Release);
            self.shared.blocking.established.count();
            tracing::info!("blocking {client} for {seconds} seconds");
        } else {
            tracing::debug!("{client} can't be blocked: it is a private address, or too many clients are blocked");
        }
    }

    /// The request, unless its client is blocked: then it is held for a while and refused.
    pub(super) fn let_through(&mut self, token: Token, exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        if !self.shared.blocking.any.load(Ordering::Acquire) {
            return Some(exchange);
        }
        let Some(client) = exchange.client.and_then(|client| client.address) else {
            return Some(exchange);
        };
        let mut blocks = self.shared.blocking.lock();
        let (mut verdict, unblocked) = blocks.judge(client, self.now);
        let mut over = blocks.sweep(self.now);
        over.extend(unblocked.map(|refused| (client, refused)));
        if blocks.is_empty() {
            self.shared.blocking.any.store(false, Ordering::Release);
        }
        if let (Verdict::Hold(_), true) = (verdict, self.is_draining()) {
            blocks.release();
            verdict = Verdict::Refuse;
        }
        drop(blocks);
        for (client, refused) in over {
            tracing::info!("unblocked {client} after {refused} blocked requests");
        }
        if verdict != Verdict::Pass {
            self.shared.blocking.refused.count();
        }
        match verdict {
            Verdict::Pass => return Some(exchange),
            Verdict::Refuse => self.refuse_blocked(token, exchange),
            Verdict::Hold(wait) => {
                self.await_answer(token, &exchange);
                self.held.insert(token, exchange);
                let now = self.now;
                if let Some(connection) = self.get(token) {
                    connection.deadline = now + wait;
                }
                self.watch(token);
            }
        }
        None
    }

    /// The time of a connection is over: whether it was that of a request of a blocked client, which is then refused.
    pub(super) fn refuse_held(&mut self, token: Token) -> bool {
        let Some(exchange) = self.held.remove(&token) else { return false };
        self.shared.blocking.lock().release();
        self.refuse_blocked(token, exchange);
        true
    }

    /// Nobody is held up any more.
    pub(super) fn refuse_all_held(&mut self) {
        let tokens: Vec<Token> = self.held.keys().copied().collect();
        for token in tokens {
            self.refuse_held(token);
        }
    }

    /// A connection is closed: a request that was held there is let go of.
    pub(super) fn let_go(&mut self, token: Token) {
        if self.held.is_empty() {
            return;
        }
        if let Some(mut exchange) = self.held.remove(&token) {
            self.shared.blocking.lock().release();
            exchange.reply.status = CLIENT_CLOSED_REQUEST;
            self.log_exchange(&exchange);
            self.give(exchange);
        }
    }

    fn refuse_blocked(&mut self, token: Token, mut exchange: Box<Exchange>) {
        let date = *self.date.at(clock::unix_seconds());
        let last = self.is_at_its_last(token);
        let head = &exchange.head;
        let (head_only, version) = (head.get(head.method) == b"HEAD", head.version);
        let keep_alive = head.keep_alive && !last;
        let mut bytes = Vec::with_capacity(256);
        encode::plain_response(&mut bytes, 429, BODY, "", &date, keep_alive, version, head_only);
        exchange.reply.status = 429;
        exchange.reply.body_bytes = if head_only { 0 } else { BODY.len() as u64 };
        let mut outgoing = self.outgoing();
        outgoing.push(Segment::Bytes(bytes));
        let Some(connection) = self.get(token) else { return self.give(exchange) };
        let after = match keep_alive {
            true => After::KeepAlive,
            false => After::Close { linger: !connection.ended },
        };
        connection.phase = Phase::Responding { exchange: Some(exchange), after };
        self.entered(token);
        self.send(token, outgoing);
        self.rearm(token);
    }
}
