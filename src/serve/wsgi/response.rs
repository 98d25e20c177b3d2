//! One response on its way out of a worker: how its body is delimited (RFC 9112 §6.3), its head, and the hand-over to the reactor.
//! Calls no Python code, so that it may be done under a lock; posts nothing itself: it says what is to be posted.
//!
//! ```text
//! begin ── Fields from start_response ──► first block ──► handed over ──► finished
//!   │                                        │ all of it known: handed over and finished in one step
//!   └──────────── fail: 500 ─────────────────┘                  fail: the connection is cut
//! ```

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::pool::Pool;
use crate::limits;
use crate::reactor::clock;
use crate::reactor::{FileRange, Segment, Token};
use crate::serve::exchange::{End, Exchange, Link, Special};
use crate::serve::http1::Version;
use crate::serve::http1::encode::{self, DateText};

/// Bytes of a block, in a body too large to be copied whole, from which on it is sent from Python's memory.
const SHARED_BYTES_MIN: usize = 8 * 1024;
/// What a client is told whose request took too long, by a worker as by a reactor.
const TIMED_OUT: &str = "504 Gateway Timeout: the application took too long\n";

/// What start_response was told, rendered.
#[derive(Default)]
pub(super) struct Fields {
    /// Status line and field lines, without those the server adds.
    pub(super) bytes: Vec<u8>,
    /// Status code; 0 until start_response has succeeded.
    pub(super) status: u16,
    /// Content-Length.
    pub(super) length: Option<u64>,
    /// The application set Date itself.
    pub(super) date: bool,
    /// The application set Server itself.
    pub(super) server: bool,
    /// The application asked for the connection to be closed.
    pub(super) close: bool,
    /// What it told the server itself.
    pub(super) special: Option<Box<Special>>,
}

impl Fields {
    /// Forgets everything but the buffer's memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        *self = Fields { bytes: std::mem::take(&mut self.bytes), ..Fields::default() };
    }
}

/// What is to be posted to a reactor.
pub(super) enum Output {
    /// Nothing: the reactor knows already that there is something.
    Nothing,
    /// A response, or the first part of one.
    Reply(Box<Exchange>),
    /// `Message::Stream` for this reactor's connection.
    Stream(u16, Token),
}

/// What became of a block.
pub(super) struct Sent {
    /// To be posted at once, unless the response is complete.
    pub(super) output: Output,
    /// Nothing more can be sent: the body is complete, or has none.
    pub(super) complete: bool,
    /// Bytes that the Content-Length had no room for.
    pub(super) cut: u64,
}

/// A response whose body is shorter than its Content-Length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooShort {
    pub(super) announced: u64,
    pub(super) sent: u64,
}

/// How the end of the body is told (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delimited {
    /// There is no body: HEAD, 204, 304 (RFC 9110 §6.4.1), and 205, which has an empty one.
    NoBody,
    Length(u64),
    Chunked,
    /// By the end of the connection: HTTP/1.0.
    Close,
}

/// A response being made.
pub(super) struct Response {
    pub(super) fields: Fields,
    /// start_response was called (with or without success).
    pub(super) called: bool,
    /// `None` when handed over.
    exchange: Option<Box<Exchange>>,
    pub(super) link: Arc<Link>,
    reactor: u16,
    token: Token,
    worker: u32,
    pool: Arc<Pool>,
    delimited: Delimited,
    /// Body bytes handed over.
    body_bytes: u64,
    complete: bool,
    /// The reactor makes the response: what the application sends goes nowhere.
    replaced: bool,
    /// Whether the request can be parked.
    may_park: bool,
    head_only: bool,
    version: Version,
    keep_alive: bool,
    /// CPU time of the thread when the request began, if it is measured.
    cpu: Option<Duration>,
}

impl Response {
    pub(super) fn new(mut exchange: Box<Exchange>, worker: u32, pool: &Arc<Pool>, cpu: Option<Duration>) -> Self {
        let head = &exchange.head;
        let (head_only, version) = (head.get(head.method) == b"HEAD", head.version);
        let (keep_alive, may_park) = (head.keep_alive, !exchange.retried);
        let bytes = std::mem::take(&mut exchange.reply.spare);
        debug_assert!(bytes.is_empty(), "nothing of an earlier response is sent again");
        Self {
            fields: Fields { bytes, ..Fields::default() },
            called: false,
            link: Arc::clone(&exchange.link),
            reactor: exchange.reactor,
            token: exchange.token,
            worker,
            pool: Arc::clone(pool),
            delimited: Delimited::NoBody,
            body_bytes: 0,
            complete: false,
            replaced: false,
            may_park,
            head_only,
            version,
            keep_alive,
            cpu,
            exchange: Some(exchange),
        }
    }

    /// Whether start_response has succeeded.
    pub(super) fn is_started(&self) -> bool {
        self.fields.status != 0
    }

    /// Whether the head is on its way: nothing about it can be changed.
    pub(super) fn is_handed_over(&self) -> bool {
        self.exchange.is_none()
    }

    /// The request, unless it is handed over.
    pub(super) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_deref()
    }

    /// Whether the reactor makes the response, as the application said in a special field ([`Special::replaces`]): nothing that the
    /// application still has to say is of interest.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced
            || (self.exchange.is_some() && self.fields.special.as_ref().is_some_and(|special| special.replaces()))
    }

    /// Takes what start_response was told.
    pub(super) fn start(&mut self, mut fields: Fields) {
        if let Some(special) = fields.special.as_mut().filter(|_| !self.may_park) {
            special.forget_park();
        }
        self.fields = fields;
    }

    /// Whether the server drains, and the client has no other answer to expect.
    fn is_last(&self) -> bool {
        self.pool.is_draining() && !self.link.is_followed()
    }

    /// Hands the fields over for the reactor to make a response of.
    fn replace(&mut self) -> Output {
        let Some(mut exchange) = self.exchange.take() else { return Output::Nothing };
        self.keep_alive &= !self.fields.close && !self.is_last();
        (self.complete, self.replaced) = (true, true);
        self.fill(&mut exchange);
        exchange.reply.end = End::Complete;
        exchange.reply.outgoing.push(Segment::Bytes(std::mem::take(&mut self.fields.bytes)));
        Output::Reply(exchange)
    }

    /// Body bytes that may still be sent.
    pub(super) fn room(&self) -> u64 {
        let announced = match self.delimited {
            Delimited::Length(length) if self.is_handed_over() => Some(length),
            _ => self.fields.length.filter(|_| !self.head_only),
        };
        announced.map_or(u64::MAX, |length| length.saturating_sub(self.body_bytes))
    }

    /// The whole body at once; nothing was handed over before.
    ///
    /// # Errors
    /// The body is shorter than announced: what there is goes out, then the connection is cut.
    pub(super) fn send_all(
        &mut self,
        items: &[Bound<'_, PyBytes>],
        date: &mut DateText,
    ) -> (Output, Result<u64, TooShort>) {
        if self.is_replaced() {
            return (self.replace(), Ok(0));
        }
        let total: u64 = items.iter().map(|item| item.as_bytes().len() as u64).sum();
        let Some(mut exchange) = self.take_exchange(Some(total), date) else { return (Output::Nothing, Ok(0)) };
        let (room, cut, result) = self.measure(total);
        let mut left = room as usize;
        let mut out = std::mem::take(&mut self.fields.bytes);
        let outgoing = &mut exchange.reply.outgoing;
        if left <= limits::RESPONSE_COPY_BYTES_MAX {
            for item in items {
                let bytes = item.as_bytes();
                let step = bytes.len().min(left);
                out.extend_from_slice(&bytes[..step]);
                left -= step;
            }
        } else {
            for item in items {
                let bytes = item.as_bytes();
                let step = bytes.len().min(left);
                if step >= SHARED_BYTES_MIN && step == bytes.len() {
                    outgoing.push(Segment::Bytes(std::mem::take(&mut out)));
                    outgoing.push(self.pool.releases.segment(item));
                } else {
                    out.extend_from_slice(&bytes[..step]);
                }
                left -= step;
            }
        }
        outgoing.push(Segment::Bytes(out));
        self.close_reply(&mut exchange, room, &result);
        (Output::Reply(exchange), result.map(|()| cut))
    }

    /// A stretch of a file as the whole body; nothing was handed over before.
    ///
    /// # Errors
    /// As [`Response::send_all`].
    pub(super) fn send_file(&mut self, mut range: FileRange, date: &mut DateText) -> (Output, Result<u64, TooShort>) {
        if self.is_replaced() {
            return (self.replace(), Ok(0));
        }
        let Some(mut exchange) = self.take_exchange(Some(range.length), date) else {
            return (Output::Nothing, Ok(0));
        };
        let (room, _, result) = self.measure(range.length);
        range.length = room;
        exchange.reply.outgoing.push(Segment::Bytes(std::mem::take(&mut self.fields.bytes)));
        exchange.reply.outgoing.push(Segment::File(range));
        self.close_reply(&mut exchange, room, &result);
        // A file longer than its Content-Length is nothing to warn of (PEP 3333: stop at the end of either).
        (Output::Reply(exchange), result.map(|()| 0))
    }

    /// One block that isn't empty. `only`: it is known to be the whole body.
    pub(super) fn send(&mut self, item: &Bound<'_, PyBytes>, only: bool, date: &mut DateText) -> Sent {
        let bytes = item.as_bytes();
        if self.is_replaced() {
            return Sent { output: self.replace(), complete: true, cut: 0 };
        }
        if self.complete {
            return Sent { output: Output::Nothing, complete: true, cut: bytes.len() as u64 };
        }
        let known = only.then_some(bytes.len() as u64);
        let first = self.take_exchange(known, date);
        let step = match self.delimited {
            Delimited::NoBody => 0,
            Delimited::Length(length) => (bytes.len() as u64).min(length - self.body_bytes) as usize,
            Delimited::Chunked | Delimited::Close => bytes.len(),
        };
        self.body_bytes += step as u64;
        self.complete = match self.delimited {
            Delimited::NoBody => true,
            Delimited::Length(length) => self.body_bytes == length,
            Delimited::Chunked | Delimited::Close => false,
        };
        let cut = if self.delimited == Delimited::NoBody { 0 } else { (bytes.len() - step) as u64 };
        let output = match first {
            Some(mut exchange) => {
                let out = std::mem::take(&mut self.fields.bytes);
                let outgoing = &mut exchange.reply.outgoing;
                self.frame(item, step, out, |segment, _| outgoing.push(segment));
                exchange.reply.end = if self.complete { End::Complete } else { End::Streaming };
                exchange.reply.body_bytes = step as u64;
                Output::Reply(exchange)
            }
            None => {
                let mut tell = false;
                self.frame(item, step, Vec::new(), |segment, body| tell |= self.link.push(segment, body));
                if self.complete {
                    tell |= self.link.finish(End::Complete);
                }
                self.tell(tell)
            }
        };
        Sent { output, complete: self.complete, cut }
    }

    /// The iterable is exhausted.
    ///
    /// # Errors
    /// As [`Response::send_all`].
    pub(super) fn finish(&mut self, date: &mut DateText) -> (Output, Result<u64, TooShort>) {
        if !self.is_handed_over() {
            return self.send_all(&[], date);
        }
        if self.complete {
            return (Output::Nothing, Ok(0));
        }
        self.complete = true;
        let (end, result) = match self.delimited {
            Delimited::Length(announced) => (End::Abort, Err(TooShort { announced, sent: self.body_bytes })),
            _ => (End::Complete, Ok(0)),
        };
        let mut tell = false;
        if self.delimited == Delimited::Chunked {
            tell |= self.link.push(Segment::Bytes(encode::LAST_CHUNK.to_vec()), 0);
        }
        tell |= self.link.finish(end);
        (self.tell(tell), result)
    }

    /// The application has failed: a 500 of our own if nothing was handed over, otherwise the connection is cut.
    pub(super) fn fail(&mut self, date: &mut DateText) -> Output {
        self.fail_with(500, "Internal Server Error\n", date)
    }

    /// The application was interrupted because it took too long: a 504, otherwise the same.
    pub(super) fn time_out(&mut self, date: &mut DateText) -> Output {
        self.fail_with(504, TIMED_OUT, date)
    }

    fn fail_with(&mut self, status: u16, text: &str, date: &mut DateText) -> Output {
        if let Some(mut exchange) = self.exchange.take() {
            let mut out = std::mem::take(&mut self.fields.bytes);
            out.clear();
            let date = date.at(clock::unix_seconds());
            self.keep_alive &= !self.is_last();
            let (keep_alive, version, head_only) = (self.keep_alive, self.version, self.head_only);
            encode::plain_response(&mut out, status, text, "", date, keep_alive, version, head_only);
            self.fields.status = status;
            self.fields.special = None;
            self.complete = true;
            exchange.reply.head_bytes = out.len() - if head_only { 0 } else { text.len() };
            exchange.reply.outgoing.clear();
            exchange.reply.outgoing.push(Segment::Bytes(out));
            self.fill(&mut exchange);
            exchange.reply.end = End::Complete;
            exchange.reply.body_bytes = if head_only { 0 } else { text.len() as u64 };
            return Output::Reply(exchange);
        }
        self.cut()
    }

    /// Ends a response whose first part was handed over, and which can't or needn't be completed: the connection is cut.
    pub(super) fn cut(&mut self) -> Output {
        if std::mem::replace(&mut self.complete, true) {
            return Output::Nothing;
        }
        self.tell(self.link.finish(End::Abort))
    }

    /// How many of `total` body bytes go out, how many are cut off, and whether too few are there.
    fn measure(&self, total: u64) -> (u64, u64, Result<(), TooShort>) {
        match self.delimited {
            Delimited::NoBody => (0, 0, Ok(())),
            Delimited::Length(announced) if announced > total => (total, 0, Err(TooShort { announced, sent: total })),
            Delimited::Length(announced) => (announced, total - announced, Ok(())),
            Delimited::Chunked | Delimited::Close => (total, 0, Ok(())),
        }
    }

    fn close_reply(&mut self, exchange: &mut Exchange, body_bytes: u64, result: &Result<(), TooShort>) {
        self.complete = true;
        self.body_bytes = body_bytes;
        exchange.reply.body_bytes = body_bytes;
        exchange.reply.end = if result.is_ok() { End::Complete } else { End::Abort };
    }

    /// The exchange with its reply's particulars set and the head complete in `fields.bytes`, if it isn't handed over yet.
    fn take_exchange(&mut self, known: Option<u64>, date: &mut DateText) -> Option<Box<Exchange>> {
        let mut exchange = self.exchange.take()?;
        self.complete_head(known, date);
        exchange.reply.head_bytes = self.fields.bytes.len();
        self.fill(&mut exchange);
        Some(exchange)
    }

    fn fill(&mut self, exchange: &mut Exchange) {
        exchange.reply.status = self.fields.status;
        exchange.reply.special = self.fields.special.take();
        exchange.reply.keep_alive = self.keep_alive;
        exchange.reply.worker = self.worker + 1;
        exchange.reply.cpu = self.cpu.map_or(Duration::ZERO, |before| clock::thread_cpu().saturating_sub(before));
    }

    /// Decides how the body is delimited and appends the fields that are the server's to set.
    fn complete_head(&mut self, known: Option<u64>, date: &mut DateText) {
        let status = self.fields.status;
        let told = self.fields.length;
        let (delimited, length) = match status {
            // RFC 9110 §8.6: no Content-Length in a 204; in a 304 the one that a 200 would have had.
            204 => (Delimited::NoBody, None),
            304 => (Delimited::NoBody, told),
            // RFC 9110 §15.3.6.
            205 => (Delimited::NoBody, Some(0)),
            // An application that leaves the body of a HEAD response out hasn't said how long it would have been.
            _ if self.head_only => (Delimited::NoBody, told.or(known.filter(|&total| total > 0))),
            _ => match (told.or(known), self.version) {
                (Some(length), _) => (Delimited::Length(length), Some(length)),
                (None, Version::Http11) => (Delimited::Chunked, None),
                (None, Version::Http10) => (Delimited::Close, None),
            },
        };
        self.delimited = delimited;
        // A server that began to drain while the application ran says so in this very response.
        self.keep_alive &= !self.fields.close && delimited != Delimited::Close && !self.is_last();
        let out = &mut self.fields.bytes;
        if !self.fields.date {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(date.at(clock::unix_seconds()));
            out.extend_from_slice(b"\r\n");
        }
        if !self.fields.server {
            out.extend_from_slice(b"Server: hoopsnake\r\n");
        }
        if let Some(length) = length {
            out.extend_from_slice(b"Content-Length: ");
            encode::decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        if delimited == Delimited::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        match (self.keep_alive, self.version) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, Version::Http11) => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Hands `step` bytes of `item` to `push` behind what `out` holds already, framed as the body is delimited.
    fn frame(&self, item: &Bound<'_, PyBytes>, step: usize, mut out: Vec<u8>, mut push: impl FnMut(Segment, usize)) {
        let bytes = item.as_bytes();
        let chunked = self.delimited == Delimited::Chunked;
        if chunked {
            encode::chunk_start(&mut out, step);
        }
        if step > limits::RESPONSE_COPY_BYTES_MAX && step == bytes.len() {
            if !out.is_empty() {
                push(Segment::Bytes(out), 0);
            }
            push(self.pool.releases.segment(item), step);
            if chunked {
                push(Segment::Bytes(b"\r\n".to_vec()), 0);
            }
            return;
        }
        out.extend_from_slice(&bytes[..step]);
        if chunked {
            out.extend_from_slice(b"\r\n");
        }
        if !out.is_empty() {
            push(Segment::Bytes(out), step);
        }
    }

    fn tell(&self, tell: bool) -> Output {
        if tell { Output::Stream(self.reactor, self.token) } else { Output::Nothing }
    }
}
