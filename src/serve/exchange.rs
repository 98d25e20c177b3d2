//! What walks through the rooms: one request, later with its response.
//!
//! Made by a reactor when a head has been parsed, sent to a Python worker when the body is in, sent back with the
//! response, used again for a later request. It has one owner at a time; [`Link`] is the part both sides see while the
//! worker has the rest.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::queue::SegQueue;

use crate::limits;
use crate::observe::client::Client;
use crate::reactor::clock::Instant;
use crate::reactor::{Outgoing, Segment, Token, Waker};
use crate::serve::http1::Head;
use crate::serve::park::Notice;
use crate::serve::queue::cost::Route;
use crate::serve::queue::formula::Asking;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// TCP.
    Tcp(IpAddr, u16),
    /// A Unix socket: no address.
    Unix,
}

/// A complete request body.
#[derive(Debug, Default)]
pub enum Body {
    /// None, or an empty one.
    #[default]
    Empty,
    /// In memory.
    Memory(Vec<u8>),
    /// Spooled to an unlinked temporary file of this many bytes.
    File(File, u64),
}

impl Body {
    /// Bytes in it.
    pub fn len(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File(_, length) => *length,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a response ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// All of it is in [`Reply::outgoing`].
    #[default]
    Complete,
    /// More comes through [`Link`].
    Streaming,
    /// It can't be completed as announced: what is there is sent, then the connection is cut.
    Abort,
}

/// What the application told the server itself, in fields of its response that the client doesn't get.
///
/// A name that comes twice: lists are joined with `, `; of the others the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// `X-Sendfile`: a path in the file system. Only taken when `--sendfile-root` is given.
    pub sendfile: Option<Vec<u8>>,
    /// `X-Accel-Redirect`: a path to be looked up in the static maps. Only taken when `--static-map` is given.
    pub accel_redirect: Option<Vec<u8>>,
    /// `X-WSGo-Park`: channels, a list. Never there in the response to a request that is run again after it was parked.
    pub park: Option<Vec<u8>>,
    /// `X-WSGo-Park-Timeout`: seconds and action.
    pub park_timeout: Option<Vec<u8>>,
    /// `X-WSGo-Park-Arg`.
    pub park_arg: Option<Vec<u8>>,
    /// `X-WSGo-Block`: seconds.
    pub block: Option<Vec<u8>>,
    /// `X-WSGo-Vary-Cookies`: names of cookies, a list.
    pub vary_cookies: Option<Vec<u8>>,
}

impl Special {
    /// Whether the response is made by the reactor, and the application's body goes nowhere. The reply's `outgoing` then holds one
    /// segment: status line and field lines as the application gave them, without Date, Server, Connection, framing and the
    /// blank line (unless the application set Date or Server itself).
    pub fn replaces(&self) -> bool {
        self.sendfile.is_some() || self.accel_redirect.is_some() || self.park.is_some()
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        let Self { sendfile, accel_redirect, park, park_timeout, park_arg, block, vary_cookies } = self;
        let values = [sendfile, accel_redirect, park, park_timeout, park_arg, block, vary_cookies];
        values.into_iter().flatten().map(Vec::len).sum()
    }

    /// Forgets what would park the request.
    pub fn forget_park(&mut self) {
        (self.park, self.park_timeout, self.park_arg) = (None, None, None);
    }
}

/// Why the queue gives a request back that nobody has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Too many waited, and it was worth least: 504.
    Evicted,
    /// All had waited too long (`--shed`): 503 with Retry-After.
    Shed,
}

/// A response, or the first part of one.
#[derive(Default)]
pub struct Reply {
    /// Status code for the log; 0 until known.
    pub status: u16,
    /// Head and body bytes to send, in order.
    pub outgoing: Box<Outgoing>,
    /// The emptied buffer of an earlier response, for the worker to write this one into.
    pub spare: Vec<u8>,
    /// Bytes of the head, with its blank line, at the start of the first segment of `outgoing`; 0 when [`Special::replaces`].
    pub head_bytes: usize,
    /// What the application told the server, if anything.
    pub special: Option<Box<Special>>,
    /// How it ends.
    pub end: End,
    /// Whether the connection may go on after it.
    pub keep_alive: bool,
    /// Body bytes (without framing), for the log; so far, when streaming.
    pub body_bytes: u64,
    /// Which worker ran it (1..), 0 when none did.
    pub worker: u32,
    /// CPU time of that worker's thread, when it was measured (access log on).
    pub cpu: Duration,
}

/// One request and its response.
pub struct Exchange {
    /// Which reactor of the process the connection belongs to.
    pub reactor: u16,
    /// Which connection of that reactor.
    pub token: Token,
    /// Which listener it came through (index into the configuration's resolved listeners).
    pub listener: u16,
    /// The other end.
    pub peer: Peer,
    /// The parsed head.
    pub head: Head,
    /// The complete body.
    pub body: Body,
    /// When the head was complete.
    pub received: Instant,
    /// When it was put into the queue.
    pub queued: Instant,
    /// When the client is told 504 (queued + `--request-timeout`).
    pub deadline: Instant,
    /// Who is asking; once that was worked out.
    pub client: Option<Client>,
    /// What it is worth to the queue.
    pub asking: Asking,
    /// Its route, when costs are learned.
    pub route: Route,
    /// What it was worth when it left the queue, for the log; 0 before that.
    pub priority: i32,
    /// Why the queue gave it back, if it did.
    pub turned_away: Option<TurnedAway>,
    /// The last notice to parked requests before it was started.
    pub since: u64,
    /// What it is told when it is run again after it was parked.
    pub park_arg: Option<Arc<[u8]>>,
    /// It was parked before and is run again: it can't be parked any more.
    pub retried: bool,
    /// The client hasn't said that this is its last request: it may be sending the next one, whether that is answered or not.
    pub goes_on: bool,
    /// What both sides see.
    pub link: Arc<Link>,
    /// The answer.
    pub reply: Reply,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            reactor: 0,
            token: Token { slot: 0, generation: 0 },
            listener: 0,
            peer: Peer::Unix,
            head: Head::default(),
            body: Body::Empty,
            received: Instant::default(),
            queued: Instant::default(),
            deadline: Instant::default(),
            client: None,
            asking: Asking::default(),
            route: Route::default(),
            priority: 0,
            turned_away: None,
            since: 0,
            park_arg: None,
            retried: false,
            goes_on: false,
            link: Arc::default(),
            reply: Reply::default(),
        }
    }
}

impl Exchange {
    /// Makes it ready for another request. Nothing of the last one is left, least of all a [`Link`] that somebody still holds.
    fn reset(&mut self) {
        self.body = Body::Empty;
        self.client = None;
        self.priority = 0;
        self.turned_away = None;
        self.park_arg = None;
        self.retried = false;
        self.reply.outgoing.clear();
        self.reply.status = 0;
        self.reply.head_bytes = 0;
        self.reply.special = None;
        self.reply.end = End::Complete;
        self.reply.body_bytes = 0;
        self.reply.worker = 0;
        self.reply.cpu = Duration::ZERO;
        match Arc::get_mut(&mut self.link) {
            Some(link) => link.reset(),
            None => self.link = Arc::default(),
        }
        if self.head.bytes.capacity() > limits::BUFFER_KEPT_BYTES_MAX {
            self.head = Head::default();
        }
    }
}

/// The exchanges a reactor keeps for reuse: at most [`limits::EXCHANGES_KEPT_MAX`].
#[derive(Default)]
pub struct Exchanges {
    #[expect(clippy::vec_box, reason = "they travel in their boxes, from thread to thread")]
    kept: Vec<Box<Exchange>>,
}

impl Exchanges {
    /// An empty exchange.
    pub fn take(&mut self) -> Box<Exchange> {
        self.kept.pop().unwrap_or_default()
    }

    /// One without anything of a head in it, for the log of a request that never had one.
    pub fn take_blank(&mut self, now: Instant) -> Box<Exchange> {
        let mut exchange = self.take();
        exchange.head = Head::default();
        exchange.received = now;
        exchange
    }

    /// Takes one back.
    pub fn give(&mut self, mut exchange: Box<Exchange>) {
        if self.kept.len() < limits::EXCHANGES_KEPT_MAX {
            exchange.reset();
            self.kept.push(exchange);
        }
    }
}

/// What the reactor and the worker both see of a request that is being run: whether the client is still there, and the
/// bytes of a streaming response on their way.
pub struct Link {
    /// When a worker began to run the request, in nanoseconds of [`Instant`]; 0 while it waits in the queue.
    started: AtomicU64,
    /// Index + 1 of that worker.
    worker: AtomicU32,
    /// Whether the request has its line in the access log.
    logged: AtomicBool,
    /// The client has closed its side. It may still read (a half-closed connection), so the response is sent all the same.
    disconnected: AtomicBool,
    /// The client has sent more behind the request, which is owed an answer even in a drain.
    followed: AtomicBool,
    /// The connection is gone, or the client was told that the request timed out: nothing is of use any more.
    cancelled: AtomicBool,
    /// The status the client was told by the reactor while a worker had the request; 0 for none.
    answered: AtomicU16,
    /// Number of what the reactor's cache waits for this response with; 0 for nothing.
    ticket: AtomicU64,
    segments: SegQueue<Segment>,
    /// Bytes in `segments` and in the reactor's hands that are not sent yet.
    buffered: AtomicUsize,
    end: AtomicU8,
    /// Whether the reactor has been told that there is something in `segments` and hasn't looked yet.
    announced: AtomicBool,
    /// Index + 1 of the worker that waits for room; 0 when none does.
    waiting: AtomicU32,
    /// Body bytes streamed through here (for the log).
    body_bytes: AtomicUsize,
    /// The request's number in the queue, while it is there.
    number: AtomicU32,
}

const END_OPEN: u8 = 0;
const END_COMPLETE: u8 = 1;
const END_ABORT: u8 = 2;

impl Default for Link {
    fn default() -> Self {
        Self {
            started: AtomicU64::new(0),
            worker: AtomicU32::new(0),
            logged: AtomicBool::new(false),
            disconnected: AtomicBool::new(false),
            followed: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            answered: AtomicU16::new(0),
            ticket: AtomicU64::new(0),
            segments: SegQueue::new(),
            buffered: AtomicUsize::new(0),
            end: AtomicU8::new(END_OPEN),
            announced: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            body_bytes: AtomicUsize::new(0),
            number: AtomicU32::new(0),
        }
    }
}

impl Link {
    /// Back to the state of a new one; nothing is allocated or freed in the common case.
    fn reset(&mut self) {
        *self.started.get_mut() = 0;
        *self.worker.get_mut() = 0;
        *self.logged.get_mut() = false;
        *self.disconnected.get_mut() = false;
        *self.followed.get_mut() = false;
        *self.cancelled.get_mut() = false;
        *self.answered.get_mut() = 0;
        *self.ticket.get_mut() = 0;
        *self.buffered.get_mut() = 0;
        *self.end.get_mut() = END_OPEN;
        *self.announced.get_mut() = false;
        *self.waiting.get_mut() = 0;
        *self.body_bytes.get_mut() = 0;
        while self.segments.pop().is_some() {}
    }

    /// Whoever has the queue's lock: the request has this number in it.
    pub fn set_number(&self, number: u32) {
        self.number.store(number, Ordering::Relaxed);
    }

    /// Whoever has the queue's lock: the number the request has had in it. By now it may be another's.
    pub fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// Worker: begins to run the request.
    pub fn start(&self, now: Instant) {
        self.started.store(now.as_nanos(), Ordering::Release);
    }

    /// When a worker began to run the request, if one did.
    pub fn started(&self) -> Option<Instant> {
        match self.started.load(Ordering::Acquire) {
            0 => None,
            nanoseconds => Some(Instant::from_nanos(nanoseconds)),
        }
    }

    /// Worker, before [`Link::start`]: which one it is.
    pub fn set_worker(&self, index: u32) {
        self.worker.store(index + 1, Ordering::Release);
    }

    /// The index of the worker that runs the request, if one does or did.
    pub fn worker(&self) -> Option<u32> {
        self.worker.load(Ordering::Acquire).checked_sub(1)
    }

    /// Reactor: the access log has its line.
    pub fn set_logged(&self) {
        self.logged.store(true, Ordering::Relaxed);
    }

    /// Reactor: whether the access log has its line.
    pub fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Relaxed)
    }

    /// Reactor: the client has closed its side of the connection.
    pub fn set_disconnected(&self) {
        self.disconnected.store(true, Ordering::Release);
    }

    /// Reactor: another request of this connection is owed an answer.
    pub fn set_followed(&self) {
        self.followed.store(true, Ordering::Relaxed);
    }

    /// Worker: whether another request of this connection is owed an answer, so that this answer isn't the last even in a drain.
    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// Worker: whether the client has closed its side, or nothing is of use any more.
    pub fn is_disconnected(&self) -> bool {
        self.disconnected.load(Ordering::Acquire) || self.is_cancelled()
    }

    /// Reactor: has answered in the worker's place.
    pub fn answer(&self, status: u16) {
        self.answered.store(status, Ordering::Relaxed);
    }

    /// Reactor: what it has answered, if it has.
    pub fn answered(&self) -> Option<u16> {
        Some(self.answered.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    /// Reactor: its cache waits for the response.
    pub fn set_ticket(&self, ticket: u64) {
        self.ticket.store(ticket, Ordering::Relaxed);
    }

    /// Reactor: with what its cache waits, 0 if it doesn't.
    pub fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::Relaxed)
    }

    /// Reactor: counts bytes that reached it beside the queue (the first part of a streaming response).
    pub fn count(&self, bytes: u64) {
        self.buffered.fetch_add(usize::try_from(bytes).unwrap_or(usize::MAX), Ordering::AcqRel);
    }

    /// Reactor: nobody waits for this response any more. Returns the waiting worker, which must then be unparked.
    pub fn cancel(&self) -> Option<u32> {
        self.cancelled.store(true, Ordering::SeqCst);
        self.take_waiting()
    }

    /// Worker: whether the response is of no use any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Worker: hands a piece of a streaming response over. True if the reactor must be told (a [`Message::Stream`]).
    pub fn push(&self, segment: Segment, body_bytes: usize) -> bool {
        self.buffered.fetch_add(usize::try_from(segment.len()).unwrap_or(usize::MAX), Ordering::AcqRel);
        self.body_bytes.fetch_add(body_bytes, Ordering::Relaxed);
        self.segments.push(segment);
        !self.announced.swap(true, Ordering::AcqRel)
    }

    /// Worker: ends a streaming response. True if the reactor must be told.
    pub fn finish(&self, end: End) -> bool {
        let value = if end == End::Complete { END_COMPLETE } else { END_ABORT };
        self.end.store(value, Ordering::Release);
        !self.announced.swap(true, Ordering::AcqRel)
    }

    /// Worker: whether it must wait before it hands over more.
    pub fn is_full(&self) -> bool {
        // SeqCst, as the stores in `set_waiting`, `sent` and `cancel` are: of a worker that waits and a reactor that makes room
        // one must see the other.
        self.buffered.load(Ordering::SeqCst) >= limits::RESPONSE_BUFFER_BYTES_MAX
            && !self.cancelled.load(Ordering::SeqCst)
    }

    /// Worker: about to wait. Must look at [`Link::is_full`] once more after this, and park only if it still is.
    pub fn set_waiting(&self, worker: u32) {
        self.waiting.store(worker + 1, Ordering::SeqCst);
    }

    /// The worker that waits, once.
    pub fn take_waiting(&self) -> Option<u32> {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.waiting.swap(0, Ordering::SeqCst).checked_sub(1)
    }

    /// Reactor: moves what has been handed over into `outgoing`. The end, if it has been reached.
    pub fn collect(&self, outgoing: &mut Outgoing) -> Option<End> {
        // A swap, not a store: it must see what was pushed by a worker that found this announced already, and told nobody.
        self.announced.swap(false, Ordering::AcqRel);
        // Read before the queue: what was pushed before the end was set is then seen.
        let end = self.end.load(Ordering::SeqCst);
        while let Some(segment) = self.segments.pop() {
            outgoing.push(segment);
        }
        match end {
            END_COMPLETE => Some(End::Complete),
            END_ABORT => Some(End::Abort),
            _ => None,
        }
    }

    /// Reactor: `bytes` of a streaming response have been sent. Returns a waiting worker that has room again and must be unparked.
    pub fn sent(&self, bytes: usize) -> Option<u32> {
        let before = self.buffered.fetch_sub(bytes, Ordering::SeqCst);
        debug_assert!(before >= bytes, "no more is sent than was handed over");
        if before - bytes > limits::RESPONSE_BUFFER_LOW_BYTES {
            return None;
        }
        self.take_waiting()
    }

    /// Bytes handed over and not sent yet.
    #[cfg(test)]
    pub fn buffered(&self) -> usize {
        self.buffered.load(Ordering::SeqCst)
    }

    /// Body bytes streamed so far.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::Relaxed) as u64
    }
}

/// What became of a request that others have waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Its answer is stored.
    Stored,
    /// Its answer isn't for the others.
    Passing,
    /// The application has failed with this status.
    Failed(u16),
    /// Nobody has seen an answer: it was given up before there was one.
    Abandoned,
}

/// Does something when the last one who has a share of it lets go: when no reactor accepts connections any more. On the thread of
/// whichever was last, which must not be kept waiting.
pub struct Withdrawal(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Withdrawal {
    /// To do this.
    pub fn then(action: impl FnOnce() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self(Some(Box::new(action))))
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action();
        }
    }
}

/// What other threads tell a reactor.
pub enum Message {
    /// A response, or its first part.
    Reply(Box<Exchange>),
    /// A streaming response of this connection has more to collect.
    Stream(Token),
    /// The disk thread has written part of this connection's request body; the emptied buffer comes back.
    Spooled {
        /// Which connection.
        token: Token,
        /// The temporary file, or why it couldn't be written.
        result: io::Result<Arc<File>>,
        /// The buffer.
        buffer: Vec<u8>,
    },
    /// The disk thread has read ahead what this connection is to send next.
    Warmed(Token),
    /// The disk thread has searched for a file; the reactor knows where the result lies.
    Found,
    /// What requests of this reactor wait for, by this name, is there or won't come.
    Landed(u64, Landing),
    /// It has begun to come in pieces.
    Begun(u64),
    /// Something was announced to parked requests.
    Notice(Arc<Notice>),
    /// Stop accepting, finish what is in flight, then end.
    Drain,
    /// The same, but what the kernel has queued is left to other processes: this one couldn't serve it. The reactor keeps its share of
    /// this until it accepts nothing any more.
    Withdraw(Arc<Withdrawal>),
    /// Close everything and end.
    Stop,
    /// Set this, as a sign that the reactor turns.
    Answer(Arc<AtomicBool>),
}

impl Message {
    /// The connection it concerns, if it concerns one.
    pub fn connection(&self) -> Option<Token> {
        match self {
            Message::Reply(exchange) => Some(exchange.token),
            Message::Stream(token) | Message::Spooled { token, .. } | Message::Warmed(token) => Some(*token),
            Message::Landed(..)
            | Message::Begun(_)
            | Message::Found
            | Message::Notice(_)
            | Message::Drain
            | Message::Withdraw(_)
            | Message::Stop
            | Message::Answer(_) => None,
        }
    }
}

/// A reactor's mailbox: filled by workers and the main thread, emptied by the reactor.
pub struct Mailbox {
    /// Bounded by the number of connections: at most one `Reply` and one `Stream` each.
    pub queue: SegQueue<Message>,
    /// Wakes the reactor.
    pub waker: Arc<Waker>,
}

impl Mailbox {
    /// Leaves a message; the reactor sees it at its next turn. Follow with [`Mailbox::wake`], once per batch.
    pub fn post(&self, message: Message) {
        self.queue.push(message);
    }

    /// Wakes the reactor if it sleeps.
    pub fn wake(&self) {
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn bytes(outgoing: &mut Outgoing) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(front) = outgoing.front_bytes() {
            bytes.extend_from_slice(front);
            outgoing.advance(front.len() as u64);
        }
        bytes
    }

    fn segment(bytes: &[u8]) -> Segment {
        Segment::Bytes(bytes.to_vec())
    }

    #[test]
    fn the_reactor_is_told_once_for_all_that_waits() {
        let (link, mut outgoing) = (Link::default(), Outgoing::new());
        assert!(link.push(segment(b"a"), 1));
        assert!(!link.push(segment(b"b"), 1));
        assert!(!link.finish(End::Complete));
        assert_eq!(link.collect(&mut outgoing), Some(End::Complete));
        assert_eq!((bytes(&mut outgoing), link.body_bytes()), (b"ab".to_vec(), 2));
        let link = Link::default();
        assert!(link.push(segment(b"a"), 1));
        assert_eq!(link.collect(&mut outgoing), None);
        assert!(link.finish(End::Abort), "it has looked since");
        assert_eq!(link.collect(&mut outgoing), Some(End::Abort));
    }

    #[test]
    fn a_worker_waits_from_the_upper_mark_to_the_lower() {
        let (most, low) = (limits::RESPONSE_BUFFER_BYTES_MAX, limits::RESPONSE_BUFFER_LOW_BYTES);
        let link = Link::default();
        link.count(1);
        link.push(Segment::Bytes(vec![0; most - 2]), 0);
        assert!(!link.is_full());
        link.push(segment(b"x"), 0);
        assert!(link.is_full());
        link.set_waiting(0);
        assert_eq!(link.sent(most - low - 1), None);
        assert_eq!(link.sent(1), Some(0));
        assert_eq!(link.sent(1), None, "once");
        link.set_waiting(7);
        assert_eq!((link.cancel(), link.is_full(), link.is_disconnected()), (Some(7), false, true));
    }

    #[test]
    fn nothing_of_a_request_is_left_for_the_next() {
        let mut exchanges = Exchanges::default();
        let mut exchange = exchanges.take();
        exchange.body = Body::Memory(b"secret".to_vec());
        exchange.reply.status = 200;
        exchange.reply.end = End::Abort;
        exchange.reply.head_bytes = 7;
        exchange.reply.special = Some(Box::default());
        exchange.retried = true;
        exchange.reply.outgoing.push(segment(b"secret"));
        let link = &exchange.link;
        link.push(segment(b"secret"), 6);
        link.start(Instant::from_nanos(5));
        link.set_worker(4);
        link.set_logged();
        link.finish(End::Abort);
        link.set_disconnected();
        link.set_followed();
        link.set_waiting(3);
        link.answer(504);
        link.set_ticket(9);
        link.cancel();
        exchanges.give(exchange);
        let exchange = exchanges.take();
        assert!(exchange.body.is_empty() && exchange.reply.outgoing.is_empty());
        assert_eq!((exchange.reply.status, exchange.reply.end), (0, End::Complete));
        assert_eq!((exchange.reply.head_bytes, exchange.reply.special.is_none(), exchange.retried), (0, true, false));
        let (link, mut outgoing) = (&exchange.link, Outgoing::new());
        assert_eq!((link.started(), link.answered(), link.take_waiting()), (None, None, None));
        assert_eq!((link.worker(), link.is_logged(), link.ticket()), (None, false, 0));
        assert!(!link.is_disconnected() && !link.is_followed());
        assert_eq!((link.buffered(), link.body_bytes(), link.collect(&mut outgoing)), (0, 0, None));
        assert!(outgoing.is_empty());
        assert!(link.push(segment(b"x"), 1), "nothing counts as announced");
    }

    #[test]
    fn the_exchanges_kept_are_bounded() {
        let mut exchanges = Exchanges::default();
        for _ in 0..limits::EXCHANGES_KEPT_MAX + 10 {
            exchanges.give(Box::default());
        }
        assert_eq!(exchanges.kept.len(), limits::EXCHANGES_KEPT_MAX);
    }

    /// A worker and a reactor on a thread each. Whoever waits is woken through a channel; a wake-up that is lost leaves both waiting.
    fn stream(pieces: u32, piece_bytes: usize) {
        let link = Arc::new(Link::default());
        let (tell, told) = mpsc::channel();
        let (unpark, parked) = mpsc::channel();
        let worker = {
            let link = Arc::clone(&link);
            thread::spawn(move || {
                for number in 0..pieces {
                    let mut piece = vec![0; piece_bytes];
                    piece[..4].copy_from_slice(&number.to_ne_bytes());
                    if link.push(Segment::Bytes(piece), piece_bytes) {
                        tell.send(()).unwrap();
                    }
                    while link.is_full() {
                        link.set_waiting(0);
                        if link.is_full() {
                            parked.recv_timeout(Duration::from_secs(60)).expect("the reactor makes room and says so");
                        }
                    }
                }
                if link.finish(End::Complete) {
                    tell.send(()).unwrap();
                }
            })
        };
        let (mut seen, mut end) = (0, None);
        while end.is_none() {
            told.recv_timeout(Duration::from_secs(60)).expect("the worker hands over and says so");
            let mut outgoing = Outgoing::new();
            end = link.collect(&mut outgoing);
            while let Some(front) = outgoing.front_bytes() {
                assert_eq!(front[..4], u32::to_ne_bytes(seen), "in order");
                seen += 1;
                outgoing.advance(piece_bytes as u64);
                if link.sent(piece_bytes).is_some() {
                    unpark.send(()).unwrap();
                }
            }
        }
        worker.join().unwrap();
        assert_eq!((seen, link.buffered(), link.body_bytes()), (pieces, 0, u64::from(pieces) * piece_bytes as u64));
    }

    #[test]
    fn two_threads_lose_nothing_and_wait_for_nothing_in_vain() {
        stream(100_000, 4);
        stream(20_000, 9_000);
        stream(300, limits::RESPONSE_BUFFER_BYTES_MAX + 1);
    }
}
