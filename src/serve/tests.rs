//! The corridor with a scripted driver, a clock, a disk and workers that the test plays: no kernel, no Python, no waiting.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::conn::{After, Phase, Timeouts, is_full};
use super::disk::Played;
use super::exchange::{Body, End, Exchange, Link, Special};
use super::http1::HeadLimits;
use super::park::Action;
use super::queue::rules::Rules;
use super::wsgi::{ListenerInfo, PoolSettings};
use super::*;
use crate::limits;
use crate::reactor::scripted::Scripted;
use crate::reactor::{FileRange, Segment, Waker};

mod blocking;
mod caching;

const LISTENER: Token = Token { slot: 0, generation: 0 };
const GET: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
/// Longer than any time-out of [`TIMEOUTS`], one after the other.
const LONG: Duration = Duration::from_secs(400);
const TIMEOUTS: Timeouts = Timeouts {
    header: Duration::from_secs(2),
    body: Duration::from_secs(40),
    send: Duration::from_secs(50),
    keep_alive: Duration::from_secs(60),
    request: Duration::from_secs(30),
};

/// A reactor and everything around it.
struct Room {
    reactor: Reactor<Scripted>,
    pool: Arc<Pool>,
    mailbox: Arc<Mailbox>,
    notifier: Arc<Notifier>,
    disk: Played,
    now: Instant,
    /// The other ends, kept open.
    peers: Vec<UnixStream>,
    /// Of every request that a worker took.
    links: Vec<Weak<Link>>,
}

impl Room {
    fn new() -> Self {
        Self::with(None, None, Vec::new())
    }

    fn with_files(files: Option<local::files::Settings>) -> Self {
        Self::with(files, None, Vec::new())
    }

    fn with(files: Option<local::files::Settings>, cache: Option<Arc<Cache>>, trusted_proxies: Vec<Network>) -> Self {
        let mailbox = Arc::new(Mailbox { queue: Default::default(), waker: Waker::shared().unwrap() });
        let notifier = Arc::new(Notifier::new(vec![Arc::clone(&mailbox)], None));
        let pool = Pool::new(
            PoolSettings {
                workers: 1,
                max_workers: 1,
                request_timeout: TIMEOUTS.request,
                measure_cpu: false,
                multiprocess: false,
                listeners: vec![ListenerInfo::unix()],
                trusted_proxies: Vec::new(),
                header_underscores: false,
                queue: Rules::default(),
                notifier: Arc::clone(&notifier),
                sendfile: false,
                accel: false,
                driver: Scripted::NAME,
            },
            vec![Arc::clone(&mailbox)],
        );
        let (handle, disk) = Played::new();
        let head = HeadLimits { request_line_bytes_max: 1024, head_bytes_max: 4096, fields_max: limits::FIELDS_MAX };
        let settings = Settings { head, request_body_bytes_max: 8 << 20, timeouts: TIMEOUTS };
        let shared = Shared {
            settings,
            files: files.map(Arc::new),
            pool: Arc::clone(&pool),
            notifier: Arc::clone(&notifier),
            disk: handle,
            process: 1,
            siblings: false,
            trusted_proxies,
            cache,
            blocking: Blocking::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let driver = Scripted::new(Arc::clone(&mailbox.waker)).unwrap();
        let reactor = Reactor::new(0, driver, Arc::new(shared), Arc::clone(&mailbox), vec![(listener.into(), 0)], None);
        let now = reactor.now;
        Self { reactor, pool, mailbox, notifier, disk, now, peers: Vec::new(), links: Vec::new() }
    }

    /// Handles what has happened, and what follows from that.
    fn step(&mut self) {
        for _ in 0..4 {
            self.reactor.work(self.now);
        }
        assert_eq!(self.reactor.bugs, 0, "nothing panics");
        self.check();
    }

    /// What is true of every connection whenever the reactor has nothing to do.
    fn check(&self) {
        let is_parked = |phase: &Phase| matches!(phase, Phase::Parked { place: Some(_), .. });
        let parked = self.reactor.connections.iter().filter(|(_, connection)| is_parked(&connection.phase)).count();
        assert_eq!((self.notifier.parked(), self.reactor.parking.len()), (parked, parked));
        for (_, connection) in &self.reactor.connections {
            let closing = matches!(connection.phase, Phase::Closing);
            let wanted = !connection.ended && !closing && !is_full(connection);
            assert_eq!(connection.receiving, wanted, "{}", name(&connection.phase));
            assert_eq!(self.reactor.driver.is_receiving(connection.token), wanted);
            assert_eq!(self.reactor.driver.is_sending(connection.token), connection.sending);
            let timed = connection.timer.is_some_and(|timer| timer <= connection.deadline);
            assert!(closing || timed || connection.deadline == Instant::NEVER, "a timer will look");
            assert!(!closing || connection.is_busy(), "a closed connection is removed");
            assert!(!matches!(connection.phase, Phase::Idle) || connection.pending.is_empty(), "nothing is forgotten");
            if let Phase::Responding { exchange: Some(exchange), after: After::Stream } = &connection.phase {
                let idle = !connection.sending && connection.queued.is_none();
                assert!(!idle || exchange.link.buffered() == 0, "what was handed over is sent, and counted once");
            }
        }
    }

    fn open(&mut self) -> Token {
        let (ours, peer) = UnixStream::pair().unwrap();
        self.peers.push(peer);
        self.accept(ours.into())
    }

    fn accept(&mut self, socket: OwnedFd) -> Token {
        let slot = self.reactor.connections.vacant_key();
        self.reactor.driver.accepted(LISTENER, socket);
        self.step();
        self.reactor.connections[slot].token
    }

    /// Bytes come in, if anybody receives them.
    fn bytes(&mut self, token: Token, bytes: &[u8]) -> bool {
        let receives = self.reactor.driver.is_receiving(token);
        if receives {
            self.reactor.driver.received(token, bytes);
            self.step();
        }
        receives
    }

    fn end_of_stream(&mut self, token: Token) {
        if self.reactor.driver.is_receiving(token) {
            self.reactor.driver.end_of_stream(token);
            self.step();
        }
    }

    fn reset(&mut self, token: Token) {
        if self.reactor.driver.is_receiving(token) {
            self.reactor.driver.receive_fails(token, io::ErrorKind::ConnectionReset.into());
            self.step();
        }
    }

    /// The client takes at most `bytes`.
    fn take_up(&mut self, token: Token, bytes: usize) {
        if self.reactor.driver.is_sending(token) {
            self.reactor.driver.take_up(token, bytes);
            self.step();
        }
    }

    /// The client takes all there is.
    fn take_up_all(&mut self, token: Token) -> Vec<u8> {
        while self.reactor.driver.is_sending(token) {
            self.take_up(token, usize::MAX);
        }
        self.reactor.driver.sent(token)
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.step();
    }

    fn post(&mut self, message: Message) {
        self.mailbox.post(message);
        self.step();
    }

    /// A worker takes the next request.
    fn take(&mut self) -> Option<Box<Exchange>> {
        let exchange = self.pool.take()?;
        self.links.push(Arc::downgrade(&exchange.link));
        Some(exchange)
    }

    /// A worker answers with `bytes`.
    fn answer(&mut self, mut exchange: Box<Exchange>, end: End, bytes: &[u8]) {
        exchange.reply.status = 200;
        exchange.reply.end = end;
        exchange.reply.keep_alive = exchange.head.keep_alive;
        exchange.reply.outgoing.push(Segment::Bytes(bytes.to_vec()));
        self.post(Message::Reply(exchange));
    }

    /// A worker hands over more of a streaming response.
    fn push(&mut self, link: &Link, token: Token, bytes: &[u8]) {
        if link.push(Segment::Bytes(bytes.to_vec()), bytes.len()) {
            self.post(Message::Stream(token));
        }
    }

    fn finish(&mut self, link: &Link, token: Token, end: End) {
        if link.finish(end) {
            self.post(Message::Stream(token));
        }
    }

    /// The name of a connection's phase.
    fn phase(&mut self, token: Token) -> &'static str {
        self.reactor.get(token).map_or("gone", |connection| name(&connection.phase))
    }

    fn tokens(&self) -> Vec<Token> {
        self.reactor.connections.iter().map(|(_, connection)| connection.token).collect()
    }

    /// After `Stop`, with the kernel and the disk doing their part, nothing is left.
    fn stop(mut self) {
        self.post(Message::Stop);
        for token in self.tokens() {
            if self.reactor.driver.is_sending(token) {
                self.reactor.driver.send_fails(token, io::ErrorKind::BrokenPipe.into());
            }
        }
        self.disk.run();
        self.step();
        while let Some(exchange) = self.take() {
            assert!(exchange.link.is_cancelled(), "no worker runs it in vain");
            self.post(Message::Reply(exchange));
        }
        self.has_ended();
    }

    fn has_ended(self) {
        assert!(self.reactor.has_ended());
        assert_eq!(self.reactor.driver.in_flight(), 0);
        assert!(self.reactor.connections.is_empty());
        drop(self.reactor);
        assert!(self.links.iter().all(|link| link.strong_count() == 0), "no exchange is left anywhere");
    }
}

fn name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Head { .. } => "head",
        Phase::Body { .. } => "body",
        Phase::Waiting { .. } => "waiting",
        Phase::Parked { .. } => "parked",
        Phase::Responding { .. } => "responding",
        Phase::Lingering { .. } => "lingering",
        Phase::Closing => "closing",
    }
}

/// Where a connection can be met.
#[derive(Clone, Copy, Debug)]
enum At {
    Fresh,
    Kept,
    Head,
    Body,
    /// The body is complete, but not on its disk.
    Storing,
    Waiting,
    Parked,
    Sending,
    Streaming,
    /// What is to be sent is being read ahead.
    Warming,
    Lingering,
    /// Closed, with a send not given up yet.
    Closing,
}

impl At {
    /// A room with a connection there. The request that a worker has, if one has it.
    fn enter(self) -> (Room, Token, Option<Box<Exchange>>) {
        let mut room = Room::new();
        let token = room.open();
        match self {
            At::Fresh => {}
            At::Kept => {
                let exchange = room.ask(token);
                room.answer(exchange, End::Complete, RESPONSE);
                assert_eq!(room.take_up_all(token), RESPONSE);
            }
            At::Head => assert!(room.bytes(token, b"GET / HT")),
            At::Body => assert!(room.bytes(token, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12")),
            At::Storing => {
                let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 2 << 20);
                room.bytes(token, head.as_bytes());
                room.bytes(token, &vec![b'x'; 2 << 20]);
            }
            At::Waiting => {
                let exchange = room.ask(token);
                return (room, token, Some(exchange));
            }
            At::Parked => {
                let exchange = room.ask(token);
                room.park(exchange, "a, b", "100 http-504");
            }
            At::Sending | At::Closing => {
                let exchange = room.ask(token);
                room.answer(exchange, End::Complete, RESPONSE);
                if matches!(self, At::Closing) {
                    room.reset(token);
                }
            }
            At::Streaming => {
                let exchange = room.ask(token);
                room.answer(exchange, End::Streaming, RESPONSE);
                room.take_up_all(token);
            }
            At::Warming => {
                let mut exchange = room.ask(token);
                // A file system that can't say whether it would wait.
                let file = Arc::new(std::fs::File::open("/proc/version").unwrap());
                exchange.reply.outgoing.push(Segment::File(FileRange { file, offset: 0, length: 5, memory: None }));
                room.answer(exchange, End::Complete, b"");
            }
            At::Lingering => {
                room.bytes(token, b"nonsense\r\n\r\n");
                room.take_up_all(token);
            }
        }
        (room, token, None)
    }
}

impl Room {
    /// A worker gives a request back to be parked.
    fn park(&mut self, mut exchange: Box<Exchange>, channels: &str, timeout: &str) {
        let special = Special {
            park: Some(channels.into()),
            park_timeout: Some(timeout.into()),
            park_arg: Some(b"late".to_vec()),
            ..Special::default()
        };
        exchange.reply.special = Some(Box::new(special));
        self.answer(exchange, End::Complete, RESPONSE);
    }

    fn notify(&mut self, channels: &str, action: Action, arg: &str) {
        self.notifier.notify(channels, action, arg);
        self.step();
    }

    fn ask(&mut self, token: Token) -> Box<Exchange> {
        assert!(self.bytes(token, GET));
        self.take().unwrap()
    }
}

/// What can happen to it.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Bytes,
    EndOfStream,
    Reset,
    Timer,
    Reply,
    StaleReply,
    Stream,
    Disk,
    Drain,
    Stop,
    Notice(Action),
    /// On another channel.
    OtherNotice,
}

impl Happens {
    fn to(self, room: &mut Room, token: Token, exchange: Option<Box<Exchange>>) {
        match self {
            Happens::Bytes => {
                room.bytes(token, GET);
            }
            Happens::EndOfStream => room.end_of_stream(token),
            Happens::Reset => room.reset(token),
            Happens::Timer => room.pass(LONG),
            Happens::Reply => {
                if let Some(exchange) = exchange {
                    room.answer(exchange, End::Complete, RESPONSE);
                }
            }
            Happens::StaleReply => {
                let stale = Box::new(Exchange { token, ..Exchange::default() });
                room.answer(stale, End::Complete, b"of another request");
                assert!(!room.reactor.driver.sent(token).starts_with(b"of another"));
            }
            Happens::Stream => room.post(Message::Stream(token)),
            Happens::Disk => {
                room.disk.run();
                room.step();
            }
            Happens::Drain => room.post(Message::Drain),
            Happens::Stop => room.post(Message::Stop),
            Happens::Notice(action) => room.notify("x, b", action, "arg"),
            Happens::OtherNotice => room.notify("x", Action::Disconnect, ""),
        }
    }
}

/// The phase that a connection at `at` is in after each of the events, each in a room of its own.
fn check(at: At, expected: &[(Happens, &str)]) {
    for &(happens, expected) in expected {
        let (mut room, token, exchange) = at.enter();
        happens.to(&mut room, token, exchange);
        assert_eq!(room.phase(token), expected, "{at:?} {happens:?}");
        room.stop();
    }
}

#[test]
fn every_event_in_every_phase() {
    use Happens::*;
    // Timers and messages of others change nothing; a Stop leaves nothing.
    check(
        At::Fresh,
        &[(Bytes, "waiting"), (EndOfStream, "gone"), (Reset, "gone"), (Timer, "gone"), (StaleReply, "idle")],
    );
    check(At::Fresh, &[(Stream, "idle"), (Disk, "idle"), (Drain, "idle"), (Stop, "gone")]);
    check(
        At::Kept,
        &[(Bytes, "waiting"), (EndOfStream, "gone"), (Reset, "gone"), (Timer, "gone"), (StaleReply, "idle")],
    );
    check(At::Kept, &[(Stream, "idle"), (Disk, "idle"), (Drain, "idle"), (Stop, "gone")]);
    check(At::Head, &[(Bytes, "responding"), (EndOfStream, "responding"), (Reset, "gone"), (Timer, "responding")]);
    check(At::Head, &[(StaleReply, "head"), (Stream, "head"), (Disk, "head"), (Drain, "head"), (Stop, "gone")]);
    check(At::Body, &[(Bytes, "waiting"), (EndOfStream, "responding"), (Reset, "gone"), (Timer, "responding")]);
    check(At::Body, &[(StaleReply, "body"), (Stream, "body"), (Disk, "body"), (Drain, "body"), (Stop, "gone")]);
    check(At::Storing, &[(Bytes, "body"), (EndOfStream, "body"), (Reset, "closing"), (Timer, "responding")]);
    check(
        At::Storing,
        &[(StaleReply, "body"), (Stream, "body"), (Disk, "waiting"), (Drain, "body"), (Stop, "closing")],
    );
    check(At::Waiting, &[(Bytes, "waiting"), (EndOfStream, "waiting"), (Reset, "gone"), (Timer, "responding")]);
    check(At::Waiting, &[(Reply, "responding"), (StaleReply, "waiting"), (Stream, "waiting"), (Drain, "waiting")]);
    check(At::Waiting, &[(Disk, "waiting"), (Stop, "gone")]);
    check(At::Waiting, &[(Notice(Action::Retry), "waiting"), (OtherNotice, "waiting")]);
    check(At::Parked, &[(Bytes, "parked"), (EndOfStream, "gone"), (Reset, "gone"), (Timer, "responding")]);
    check(At::Parked, &[(StaleReply, "parked"), (Stream, "parked"), (Drain, "responding"), (Stop, "gone")]);
    check(At::Parked, &[(Notice(Action::Retry), "waiting"), (Notice(Action::Disconnect), "gone")]);
    check(At::Parked, &[(Notice(Action::NoContent), "responding"), (Notice(Action::GatewayTimeout), "responding")]);
    check(At::Parked, &[(OtherNotice, "parked"), (Disk, "parked")]);
    check(At::Sending, &[(Bytes, "responding"), (EndOfStream, "responding"), (Reset, "closing"), (Timer, "closing")]);
    check(At::Sending, &[(StaleReply, "responding"), (Stream, "responding"), (Drain, "responding"), (Stop, "closing")]);
    check(At::Streaming, &[(Bytes, "responding"), (EndOfStream, "responding"), (Reset, "gone"), (Timer, "responding")]);
    check(At::Streaming, &[(StaleReply, "responding"), (Stream, "responding"), (Drain, "responding"), (Stop, "gone")]);
    check(
        At::Warming,
        &[(Bytes, "responding"), (EndOfStream, "responding"), (Reset, "closing"), (Timer, "responding")],
    );
    check(At::Warming, &[(StaleReply, "responding"), (Stream, "responding"), (Disk, "responding"), (Stop, "closing")]);
    check(At::Lingering, &[(Bytes, "lingering"), (EndOfStream, "gone"), (Reset, "gone"), (Timer, "gone")]);
    check(At::Lingering, &[(StaleReply, "lingering"), (Stream, "lingering"), (Drain, "lingering"), (Stop, "gone")]);
    check(At::Closing, &[(Bytes, "closing"), (EndOfStream, "closing"), (Reset, "closing"), (Timer, "closing")]);
    check(At::Closing, &[(StaleReply, "closing"), (Stream, "closing"), (Drain, "closing"), (Stop, "closing")]);
}

/// A worker takes a request that is run again.
fn again(room: &mut Room) -> (Box<Exchange>, String) {
    let exchange = room.take().expect("it is in the queue");
    assert!(exchange.retried && exchange.link.started().is_none() && !exchange.link.is_cancelled());
    let arg = String::from_utf8(exchange.park_arg.as_ref().unwrap().to_vec()).unwrap();
    (exchange, arg)
}

#[test]
fn a_woken_request_is_run_again_with_its_body_and_answered() {
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let exchange = room.take().unwrap();
    room.park(exchange, "a", "1 http-204");
    assert_eq!(room.notifier.parked(), 1);
    room.notify("a", Action::Retry, "news");
    let (exchange, arg) = again(&mut room);
    let Body::Memory(body) = &exchange.body else { panic!("its body") };
    assert_eq!((&arg[..], &body[..], exchange.head.get(exchange.head.path)), ("news", &b"hello"[..], &b"/x"[..]));
    room.pass(Duration::from_secs(5));
    assert_eq!(room.phase(token), "waiting", "its time in the queue is counted anew");
    room.answer(exchange, End::Complete, RESPONSE);
    assert_eq!(room.take_up_all(token), RESPONSE);
    assert_eq!((room.phase(token), room.notifier.parked()), ("idle", 0));
    room.stop();
}

#[test]
fn the_time_of_a_parked_request_ends_as_it_was_told() {
    let ends = |timeout: &str, before: u64, expected: &[u8]| {
        let mut room = Room::new();
        let token = room.open();
        let exchange = room.ask(token);
        room.park(exchange, "a", timeout);
        room.pass(Duration::from_secs(before - 1));
        assert_eq!(room.phase(token), "parked", "{timeout}");
        room.pass(Duration::from_secs(2));
        let heard = room.take_up_all(token);
        assert!(heard.starts_with(expected), "{timeout}: {}", heard.escape_ascii());
        (room, token)
    };
    let (mut room, token) = ends("30 http-204", 30, b"HTTP/1.1 204 No Content\r\nDate: ");
    assert_eq!(room.phase(token), "idle");
    let (mut room, token) = ends("3000 http-504", 3000, b"HTTP/1.1 504 Gateway Timeout\r\n");
    assert_eq!(room.phase(token), "idle");
    let (mut room, token) = ends("30 disconnect", 30, b"");
    assert_eq!(room.phase(token), "gone");
    let (mut room, token) = ends("30 retry", 30, b"");
    assert_eq!((room.phase(token), &again(&mut room).1[..]), ("waiting", "late"));
    ends("30 nonsense", 7200, b"HTTP/1.1 204 No Content\r\n");
}

#[test]
fn a_notice_that_comes_before_the_request_is_parked_isn_t_lost() {
    let mut room = Room::new();
    let token = room.open();
    room.notify("a", Action::Disconnect, "of old");
    let mut exchange = room.ask(token);
    exchange.since = room.notifier.latest();
    room.notify("b", Action::GatewayTimeout, "");
    room.notify("a", Action::Retry, "just now");
    room.notify("a", Action::Disconnect, "too late");
    room.park(exchange, "a", "5 http-204");
    assert_eq!(again(&mut room).1, "just now");
    assert_eq!(room.notifier.parked(), 0);
    room.stop();
}

#[test]
fn a_notice_older_than_the_request_does_not_concern_it() {
    let mut room = Room::new();
    let token = room.open();
    let mut exchange = room.ask(token);
    // Its reactor reads of it only when the request, started later, is parked.
    room.notifier.notify("a", Action::Disconnect, "");
    exchange.since = room.notifier.latest();
    let notice = room.mailbox.queue.pop().unwrap();
    room.park(exchange, "a", "5 http-204");
    room.post(notice);
    assert_eq!(room.phase(token), "parked");
    room.stop();
}

#[test]
fn a_drain_ends_parking_and_runs_again_what_asked_for_that() {
    let mut room = Room::new();
    let (first, second) = (room.open(), room.open());
    for (token, timeout) in [(first, "500 http-504"), (second, "500 retry")] {
        let exchange = room.ask(token);
        room.park(exchange, "a", timeout);
    }
    room.post(Message::Drain);
    let heard = String::from_utf8(room.take_up_all(first)).unwrap();
    assert!(heard.starts_with("HTTP/1.1 504 ") && heard.contains("\r\nConnection: close\r\n"), "{heard}");
    room.end_of_stream(first);
    let (exchange, _) = again(&mut room);
    assert!(!exchange.head.keep_alive);
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(second);
    room.end_of_stream(second);
    room.has_ended();
}

#[test]
fn a_request_parked_during_a_drain_waits_for_nothing() {
    let mut room = Room::new();
    let token = room.open();
    let exchange = room.ask(token);
    room.post(Message::Drain);
    room.park(exchange, "a", "500 http-204");
    assert!(room.take_up_all(token).starts_with(b"HTTP/1.1 204 "));
    room.end_of_stream(token);
    room.has_ended();
}

#[test]
fn more_are_woken_than_the_queue_holds_and_none_is_turned_away() {
    let mut room = Room::new();
    let tokens: Vec<Token> = (0..300).map(|_| room.open()).collect();
    for token in &tokens {
        let exchange = room.ask(*token);
        room.park(exchange, "a", "5 http-204");
    }
    room.notify("a", Action::Retry, "");
    let mut served = 0;
    while let Some(exchange) = room.take() {
        assert!(room.pool.waiting() <= limits::QUEUE_REQUESTS / 2);
        room.answer(exchange, End::Complete, RESPONSE);
        served += 1;
    }
    assert_eq!(served, 300);
    room.stop();
}

#[test]
fn a_parked_request_takes_little_memory() {
    let mut room = Room::new();
    let token = room.open();
    // A buffer that has been of use before.
    room.bytes(token, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(3_000)).as_bytes());
    let exchange = room.take().unwrap();
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(token);
    let mut exchange = room.ask(token);
    exchange.reply.spare = Vec::with_capacity(10_000);
    room.park(exchange, "a", "5 http-204");
    let Phase::Parked { exchange, .. } = &room.reactor.get(token).unwrap().phase else { panic!("parked") };
    assert_eq!((exchange.reply.spare.capacity(), exchange.head.bytes.capacity()), (0, exchange.head.bytes.len()));
    let fixed = size_of::<Exchange>() + size_of::<crate::reactor::Outgoing>();
    assert!(fixed <= 768, "{fixed}: with its place among the parked a request has 1 KiB beside its own bytes");
    room.stop();
}

#[test]
fn a_slot_used_again_hears_nothing_of_the_connection_before() {
    let (mut room, old, exchange) = At::Waiting.enter();
    room.reset(old);
    let new = room.open();
    assert_eq!((new.slot, new.generation), (old.slot, old.generation + 1));
    let fresh = room.ask(new);
    room.answer(exchange.unwrap(), End::Complete, RESPONSE);
    room.post(Message::Stream(old));
    assert_eq!(room.phase(new), "waiting");
    assert_eq!(room.reactor.driver.sent(new), b"");
    room.answer(fresh, End::Complete, RESPONSE);
    assert_eq!(room.take_up_all(new), RESPONSE);
    room.stop();
}

/// A client that asked for `100 Continue`, doesn't read it, and sends the body all the same.
fn with_interim_under_way() -> (Room, Token, Box<Exchange>) {
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert!(room.reactor.driver.is_sending(token));
    room.bytes(token, b"x");
    let exchange = room.take().unwrap();
    (room, token, exchange)
}

#[test]
fn a_stream_behind_an_interim_response_is_neither_mixed_with_it_nor_miscounted() {
    let (mut room, token, exchange) = with_interim_under_way();
    let link = Arc::clone(&exchange.link);
    room.answer(exchange, End::Streaming, b"first ");
    room.push(&link, token, b"second ");
    assert_eq!(link.buffered(), 13);
    room.take_up(token, 10);
    assert_eq!(link.buffered(), 13);
    room.take_up(token, 15);
    assert_eq!(link.buffered(), 13);
    assert_eq!(room.take_up_all(token), b"HTTP/1.1 100 Continue\r\n\r\nfirst second ");
    assert_eq!(link.buffered(), 0);
    room.finish(&link, token, End::Complete);
    assert_eq!(room.phase(token), "idle");
    drop(link);
    room.stop();
}

#[test]
fn a_refusal_waits_for_the_interim_response() {
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    room.bytes(token, b"?");
    room.take_up(token, 3);
    let sent = room.take_up_all(token);
    assert!(sent.starts_with(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 "), "{}", sent.escape_ascii());
    assert_eq!(room.phase(token), "lingering");
    room.stop();
}

/// What is still sent after a refusal is read for a while, so that the refusal can be; but not without end.
#[test]
fn lingering_goes_on_while_something_comes() {
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, b"nonsense\r\n\r\n");
    room.take_up_all(token);
    let step = Duration::from_millis(limits::LINGER_MS - 1);
    for _ in 0..limits::LINGER_MS_MAX / limits::LINGER_MS {
        assert_eq!(room.phase(token), "lingering");
        room.pass(step);
        room.bytes(token, &[b'x'; 65_536]);
    }
    room.pass(step);
    assert_eq!(room.phase(token), "gone");
    room.stop();
}

#[test]
fn a_client_that_ends_its_side_gets_the_answers_to_all_it_asked() {
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, &GET.repeat(3));
    room.end_of_stream(token);
    for left in [2, 1, 0] {
        let exchange = room.take().unwrap();
        assert!(exchange.link.is_disconnected());
        assert_eq!(exchange.head.keep_alive, left > 0 || room.links.len() == 1);
        room.answer(exchange, End::Complete, RESPONSE);
        assert_eq!(room.take_up_all(token), RESPONSE);
    }
    assert_eq!(room.phase(token), "gone");
    room.stop();
}

#[test]
fn a_streaming_application_is_told_that_the_client_ended_its_side() {
    let mut room = Room::new();
    let token = room.open();
    let exchange = room.ask(token);
    let link = Arc::clone(&exchange.link);
    room.answer(exchange, End::Streaming, RESPONSE);
    assert!(!link.is_disconnected());
    room.end_of_stream(token);
    assert!(link.is_disconnected() && !link.is_cancelled());
    drop(link);
    room.stop();
}

#[test]
fn pipelined_bytes_stay_bounded_while_requests_are_answered() {
    let mut room = Room::new();
    let token = room.open();
    let flood = GET.repeat(1000);
    for _ in 0..200 {
        while room.bytes(token, &flood) {}
        let exchange = room.take().unwrap();
        room.answer(exchange, End::Complete, RESPONSE);
        // The next bytes are there before the reactor has looked at those it has.
        room.reactor.driver.take_up(token, usize::MAX);
        while let Some(event) = room.reactor.driver.next_event() {
            room.reactor.handle(event);
            if room.reactor.driver.is_receiving(token) {
                room.reactor.driver.received(token, &flood);
            }
        }
        room.step();
        let pending = room.reactor.get(token).unwrap().pending.len();
        assert!(pending < limits::PIPELINE_BYTES_MAX + 2 * flood.len(), "{pending}");
    }
    room.stop();
}

#[test]
fn requests_received_before_a_drain_are_answered() {
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, &GET.repeat(2));
    let exchange = room.take().unwrap();
    room.answer(exchange, End::Complete, RESPONSE);
    // The drain finds the connection between the two.
    room.reactor.driver.take_up(token, usize::MAX);
    let event = room.reactor.driver.next_event().unwrap();
    room.reactor.handle(event);
    assert_eq!(room.phase(token), "idle");
    room.reactor.drain();
    room.step();
    let exchange = room.take().unwrap();
    assert!(!exchange.head.keep_alive);
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(token);
    room.step();
    room.has_ended();
}

/// All that a client has sent before a drain began is answered; what it sends later isn't promised anything.
#[test]
fn pipelined_requests_are_owed_answers_in_a_drain() {
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, &GET.repeat(3));
    let first = room.take().unwrap();
    room.post(Message::Drain);
    room.bytes(token, GET);
    assert!(first.link.is_followed(), "so the worker doesn't announce the end");
    room.answer(first, End::Complete, RESPONSE);
    room.take_up_all(token);
    room.step();
    let second = room.take().unwrap();
    assert!(second.head.keep_alive && second.link.is_followed());
    room.answer(second, End::Complete, RESPONSE);
    room.take_up_all(token);
    room.step();
    let third = room.take().unwrap();
    assert!(!third.head.keep_alive && !third.link.is_followed(), "the one behind it came too late");
    room.answer(third, End::Complete, RESPONSE);
    room.take_up_all(token);
    assert_eq!(room.phase(token), "lingering", "a reset would cost the answer");
    room.end_of_stream(token);
    room.has_ended();
    // An empty line behind a body is no request.
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, &[GET, b"\r\n"].concat());
    let exchange = room.take().unwrap();
    assert!(!exchange.link.is_followed());
    room.answer(exchange, End::Complete, RESPONSE);
    room.post(Message::Drain);
    room.take_up_all(token);
    room.step();
    assert_eq!(room.phase(token), "idle");
    room.pass(Duration::from_millis(2 * limits::DRAIN_IDLE_MS));
    assert_eq!(room.phase(token), "gone");
    room.has_ended();
}

/// RFC 9112 §2.2: what old clients leave behind a body doesn't begin a request.
#[test]
fn an_empty_line_leaves_a_connection_idle() {
    for pieces in [&[&b"\r\n"[..]][..], &[b"\r", b"\n"]] {
        let (mut room, token, _) = At::Kept.enter();
        for piece in pieces {
            assert!(room.bytes(token, piece));
        }
        assert_eq!(room.phase(token), "idle");
        room.pass(2 * TIMEOUTS.header);
        assert_eq!((room.phase(token), room.take_up_all(token).as_slice()), ("idle", &b""[..]));
        let exchange = room.ask(token);
        room.answer(exchange, End::Complete, RESPONSE);
        room.take_up_all(token);
        room.bytes(token, b"\r\n");
        room.pass(TIMEOUTS.keep_alive + Duration::from_secs(1));
        assert_eq!(room.phase(token), "gone");
    }
    // One that is never completed is the client's fault; too many are, too.
    for (bytes, status) in
        [(&b"\r"[..], "HTTP/1.1 408 "), (&b"\r\n".repeat(limits::LEADING_EMPTY_LINES_MAX + 1), "HTTP/1.1 400 ")]
    {
        let (mut room, token, _) = At::Kept.enter();
        bytes.chunks(2).for_each(|piece| assert!(room.bytes(token, piece)));
        room.pass(2 * TIMEOUTS.header);
        assert!(room.take_up_all(token).starts_with(status.as_bytes()));
    }
}

/// A client that was told that its connection stays may be sending its next request when a drain begins.
#[test]
fn a_drain_leaves_a_client_that_is_at_it_a_moment() {
    let window = Duration::from_millis(limits::DRAIN_IDLE_MS);
    // Idle for long: at once.
    let (mut room, token, _) = At::Kept.enter();
    room.pass(window);
    room.post(Message::Drain);
    assert_eq!(room.phase(token), "gone");
    room.has_ended();
    // Just answered: the next request is answered, and that is the last.
    let (mut room, token, _) = At::Kept.enter();
    room.post(Message::Drain);
    room.pass(window / 2);
    let exchange = room.ask(token);
    assert!(!exchange.head.keep_alive);
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(token);
    room.step();
    room.has_ended();
    // Or none comes.
    let (mut room, token, _) = At::Kept.enter();
    room.post(Message::Drain);
    room.pass(window / 2);
    assert_eq!(room.phase(token), "idle");
    room.pass(window);
    assert_eq!(room.phase(token), "gone");
    room.has_ended();
}

/// A response that said that the connection stays was made before the drain.
#[test]
fn a_connection_that_was_promised_to_stay_stays_a_moment() {
    let (mut room, token, _) = At::Sending.enter();
    room.post(Message::Drain);
    room.take_up_all(token);
    room.step();
    assert_eq!(room.phase(token), "idle");
    room.pass(Duration::from_millis(2 * limits::DRAIN_IDLE_MS));
    assert_eq!(room.phase(token), "gone");
    room.has_ended();
}

/// While the workers are stalled other processes get the connections; those they leave are accepted all the same.
#[test]
fn a_stalled_process_leaves_connections_to_others() {
    let mut room = Room::new();
    Arc::get_mut(&mut room.reactor.shared).unwrap().siblings = true;
    let state = |room: &Room| room.reactor.listeners[0].state;
    let token = room.open();
    room.bytes(token, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    room.pass(Duration::from_millis(limits::STALLED_MS - 1));
    assert!(state(&room) == Accepting::Armed, "not yet");
    room.pass(Duration::from_millis(2));
    assert!(matches!(state(&room), Accepting::Aside(_)));
    let listener = socket2::SockRef::from(room.reactor.listeners[0].socket.as_ref().unwrap());
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _clients: Vec<_> = (0..limits::ACCEPTS_ASIDE_MAX + 1).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(room.tokens().len(), 1);
    room.pass(Duration::from_millis(limits::ACCEPT_ASIDE_MS));
    assert_eq!(room.tokens().len(), 1 + limits::ACCEPTS_ASIDE_MAX);
    let exchange = room.take().unwrap();
    room.answer(exchange, End::Complete, RESPONSE);
    room.pass(Duration::from_millis(limits::ACCEPT_ASIDE_MS));
    assert!(state(&room) == Accepting::Armed, "the workers go on");
    room.post(Message::Stop);
}

#[test]
fn a_listener_that_failed_ends_when_draining_and_its_queue_is_served_first() {
    let mut room = Room::new();
    room.reactor.driver.accept_fails(LISTENER, io::Error::from_raw_os_error(libc::EMFILE));
    room.step();
    assert!(matches!(room.reactor.listeners[0].state, Accepting::Backoff(_)));
    room.pass(Duration::from_secs(1));
    assert!(room.reactor.listeners[0].state == Accepting::Armed);
    let address = socket2::SockRef::from(room.reactor.listeners[0].socket.as_ref().unwrap())
        .local_addr()
        .unwrap()
        .as_socket()
        .unwrap();
    let _client = TcpStream::connect(address).unwrap();
    room.post(Message::Drain);
    assert!(room.reactor.listeners[0].state == Accepting::Ended);
    let token = room.tokens()[0];
    let exchange = room.ask(token);
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(token);
    room.has_ended();
}

/// What a process that can't serve any more leaves in the kernel is served by another.
#[test]
fn a_process_that_withdraws_takes_nothing_more() {
    let mut room = Room::new();
    let (token, socket) = (room.open(), room.reactor.listeners[0].socket.as_ref().unwrap().try_clone().unwrap());
    let exchange = room.ask(token);
    let listener = TcpListener::from(socket);
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    // The driver says in its own time that it doesn't accept any more.
    room.reactor.read(Message::Withdraw(Withdrawal::then(move || tell.store(true, Ordering::Relaxed))));
    assert!(!told.load(Ordering::Relaxed), "what the driver accepts up to then is this process's");
    room.step();
    assert!(told.load(Ordering::Relaxed));
    assert!(room.reactor.listeners[0].state == Accepting::Ended);
    assert_eq!(room.tokens(), [token], "what is there is finished");
    assert!(room.pool.is_draining());
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(token);
    room.end_of_stream(token);
    room.has_ended();
    listener.set_nonblocking(true).unwrap();
    listener.accept().expect("it waits there still");
}

/// What an HTTP/1.0 client reads after its response was cut short.
fn check_cut(cut: impl FnOnce(&mut Room, Token, &Link)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut room = Room::new();
    let token = room.accept(listener.accept().unwrap().0.into());
    room.bytes(token, b"GET / HTTP/1.0\r\n\r\n");
    let exchange = room.take().unwrap();
    let link = Arc::clone(&exchange.link);
    room.answer(exchange, End::Streaming, RESPONSE);
    room.take_up_all(token);
    cut(&mut room, token, &link);
    assert_eq!(room.phase(token), "gone");
    let error = client.read(&mut [0]).expect_err("not an orderly end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    drop(link);
    room.stop();
}

#[test]
fn an_http_1_0_client_sees_a_reset_where_a_response_is_cut_short() {
    check_cut(|room, token, link| room.finish(link, token, End::Abort));
    check_cut(|room, _, _| room.post(Message::Stop));
    check_cut(|room, token, link| {
        room.push(link, token, b"more");
        room.reactor.driver.send_fails(token, io::ErrorKind::UnexpectedEof.into());
        room.step();
    });
}

#[test]
fn a_client_has_its_whole_time_for_a_part_that_came_late() {
    let mut room = Room::new();
    let token = room.open();
    let exchange = room.ask(token);
    let link = Arc::clone(&exchange.link);
    room.answer(exchange, End::Streaming, RESPONSE);
    room.take_up_all(token);
    room.pass(TIMEOUTS.send - Duration::from_secs(1));
    room.push(&link, token, b"late");
    room.pass(Duration::from_secs(2));
    assert_eq!(room.phase(token), "responding");
    room.pass(TIMEOUTS.send);
    assert_eq!(room.phase(token), "closing");
    assert!(link.is_cancelled());
    drop(link);
    room.stop();
}

#[test]
fn a_worker_that_waits_for_room_is_let_go_when_the_client_has_gone() {
    let mut room = Room::new();
    let token = room.open();
    let exchange = room.ask(token);
    let link = Arc::clone(&exchange.link);
    room.answer(exchange, End::Streaming, RESPONSE);
    room.push(&link, token, &vec![0; limits::RESPONSE_BUFFER_BYTES_MAX]);
    assert!(link.is_full());
    link.set_waiting(0);
    room.reset(token);
    assert!(!link.is_full());
    assert_eq!(link.take_waiting(), None, "it was taken, to be unparked");
    drop(link);
    room.stop();
}

#[test]
fn a_link_that_somebody_keeps_is_never_used_again() {
    let mut room = Room::new();
    let token = room.open();
    let exchange = room.ask(token);
    let kept = Arc::clone(&exchange.link);
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(token);
    let exchange = room.ask(token);
    assert!(!Arc::ptr_eq(&kept, &exchange.link));
    let address = Arc::as_ptr(&exchange.link);
    room.links.clear();
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(token);
    let exchange = room.ask(token);
    assert_eq!(Arc::as_ptr(&exchange.link), address, "one that nobody keeps is");
    room.answer(exchange, End::Complete, RESPONSE);
    drop(kept);
    room.stop();
}

#[test]
fn a_worker_that_gives_a_request_back_unanswered() {
    let check = |started, expected: &str| {
        let mut room = Room::new();
        let token = room.open();
        let mut exchange = room.ask(token);
        if started {
            exchange.link.start(room.now);
        }
        exchange.reply.end = End::Abort;
        room.post(Message::Reply(exchange));
        let sent = String::from_utf8(room.take_up_all(token)).unwrap();
        assert!(sent.starts_with(expected), "{sent}");
        assert_eq!(room.phase(token), "idle");
        room.stop();
    };
    check(false, "HTTP/1.1 504 ");
    check(true, "HTTP/1.1 500 ");
}

#[test]
fn what_a_timed_out_request_still_says_reaches_nobody() {
    let (mut room, token, exchange) = At::Waiting.enter();
    let exchange = exchange.unwrap();
    let link = Arc::clone(&exchange.link);
    room.pass(TIMEOUTS.request + Duration::from_secs(1));
    assert!(link.is_cancelled());
    assert!(room.take_up_all(token).starts_with(b"HTTP/1.1 504 "));
    let next = room.ask(token);
    room.answer(exchange, End::Streaming, b"too late");
    room.push(&link, token, b"much too late");
    room.finish(&link, token, End::Complete);
    assert_eq!(room.phase(token), "waiting");
    room.answer(next, End::Complete, RESPONSE);
    assert_eq!(room.take_up_all(token), RESPONSE);
    drop(link);
    room.stop();
}

#[test]
fn temporary_files_are_closed_by_the_disk_thread() {
    // Cut short while it comes in.
    let mut room = Room::new();
    let token = room.open();
    room.bytes(token, format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 4 << 20).as_bytes());
    room.bytes(token, &vec![b'x'; 2 << 20]);
    assert_eq!(room.disk.run(), 1, "written");
    room.step();
    room.reset(token);
    assert_eq!(room.disk.run(), 1, "closed");
    room.stop();
    // Complete, and then of no use.
    let (mut room, token, _) = At::Storing.enter();
    assert_eq!(room.disk.run(), 1);
    room.step();
    let exchange = room.take().unwrap();
    room.reset(token);
    assert_eq!(room.disk.run(), 0);
    room.post(Message::Reply(exchange));
    assert_eq!(room.disk.run(), 1);
    room.stop();
    // Refused while it is being written.
    let (mut room, token, _) = At::Storing.enter();
    room.pass(LONG);
    assert!(room.reactor.driver.is_sending(token));
    assert_eq!(room.disk.run(), 1);
    room.step();
    assert_eq!(room.disk.run(), 1);
    room.stop();
}

/// A folder under `/s` that can't be looked at without waiting.
fn slow_files() -> (tempfile::TempDir, local::files::Settings) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), b"file").unwrap();
    let map = local::files::settings::Map { prefix: b"/s".to_vec(), path: folder.path().to_owned() };
    let settings = local::files::Settings {
        opener: crate::reactor::open::Opener::Walk,
        maps: vec![map],
        index: None,
        dotfiles: false,
        max_age: 0,
        fields: Vec::new(),
        expires: false,
        roots: Vec::new(),
    };
    (folder, settings)
}

const FILE: &[u8] = b"GET /s/a HTTP/1.1\r\nHost: a\r\n\r\n";
const NO_FILE: &[u8] = b"GET /s/none HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_slow_disk_is_waited_for_by_those_who_asked() {
    let (_folder, settings) = slow_files();
    let mut room = Room::with_files(Some(settings));
    let (one, other) = (room.open(), room.open());
    room.bytes(one, FILE);
    assert_eq!(room.phase(one), "waiting");
    room.bytes(other, GET);
    assert!(room.take().is_some(), "others aren't held up");
    assert_eq!(room.disk.run(), 1);
    room.step();
    let sent = room.take_up_all(one);
    assert!(sent.starts_with(b"HTTP/1.1 200 OK\r\n") && sent.ends_with(b"\r\n\r\nfile"), "{}", sent.escape_ascii());
    assert!(room.take().is_none(), "no worker has heard of it");
    // Known now: the disk isn't asked again, until it isn't believed any more.
    room.bytes(one, FILE);
    assert_eq!((room.disk.run(), room.phase(one)), (0, "responding"));
    room.take_up_all(one);
    room.pass(Duration::from_millis(limits::STATIC_FRESH_MS));
    room.bytes(one, FILE);
    assert_eq!((room.disk.run(), room.phase(one)), (1, "waiting"));
    room.step();
    assert!(room.take_up_all(one).ends_with(b"file"));
    room.stop();
}

#[test]
fn what_the_disk_does_not_find_goes_to_a_worker() {
    let (_folder, settings) = slow_files();
    let mut room = Room::with_files(Some(settings));
    let token = room.open();
    room.bytes(token, NO_FILE);
    assert!(room.take().is_none());
    room.disk.run();
    room.step();
    let exchange = room.take().expect("it waits for a worker");
    room.answer(exchange, End::Complete, RESPONSE);
    assert_eq!(room.take_up_all(token), RESPONSE);
    room.stop();
}

/// The client has gone, or was told 504, when the disk is done: nobody gets the file, and the next on this slot least of all.
#[test]
fn a_file_that_is_found_too_late() {
    let (_folder, settings) = slow_files();
    let mut room = Room::with_files(Some(settings));
    let gone = room.open();
    room.bytes(gone, FILE);
    room.reset(gone);
    let next = room.open();
    room.bytes(next, GET);
    let late = room.open();
    room.bytes(late, FILE);
    room.pass(TIMEOUTS.request + Duration::from_secs(1));
    assert!(room.take_up_all(late).starts_with(b"HTTP/1.1 504 "));
    assert_eq!(room.disk.run(), 2);
    room.step();
    assert!(!room.reactor.driver.is_sending(late));
    room.stop();
}

#[test]
fn searches_are_bounded() {
    let (_folder, settings) = slow_files();
    let mut room = Room::with_files(Some(settings));
    for _ in 0..limits::STATIC_SEARCHES_MAX {
        let token = room.open();
        room.bytes(token, FILE);
    }
    let token = room.open();
    room.bytes(token, FILE);
    let sent = room.take_up_all(token);
    assert!(
        sent.starts_with(b"HTTP/1.1 503 ") && sent.windows(11).any(|w| w == b"Retry-After"),
        "{}",
        sent.escape_ascii()
    );
    assert_eq!(room.disk.run(), limits::STATIC_SEARCHES_MAX);
    room.step();
    room.bytes(token, FILE);
    assert!(room.take_up_all(token).starts_with(b"HTTP/1.1 200 "));
    room.stop();
}

#[test]
fn a_panic_costs_one_connection() {
    let mut room = Room::new();
    let (one, other) = (room.open(), room.open());
    room.reactor.guarded(Some(one), |_| panic!("on purpose"));
    assert_eq!(std::mem::take(&mut room.reactor.bugs), 1);
    room.step();
    assert_eq!((room.phase(one), room.phase(other)), ("gone", "idle"));
    room.stop();
}

/// One step of a random story. The numbers choose among what there is.
#[derive(Clone, Debug)]
enum Act {
    Open,
    Ask { connection: usize, kind: usize },
    Bytes { connection: usize, count: usize },
    EndOfStream(usize),
    Reset(usize),
    TakeUp { connection: usize, count: usize },
    SendFails(usize),
    Take,
    Answer { request: usize, how: usize },
    Push { stream: usize, count: usize },
    Finish { stream: usize, abort: bool },
    Disk,
    Pass(u64),
    Drain,
    Notify { channel: usize, action: i64 },
}

fn act() -> impl Strategy<Value = Act> {
    let which = 0usize..8;
    prop_oneof![
        2 => Just(Act::Open),
        10 => (which.clone(), 0usize..15).prop_map(|(connection, kind)| Act::Ask { connection, kind }),
        12 => (which.clone(), 1usize..300).prop_map(|(connection, count)| Act::Bytes { connection, count }),
        1 => which.clone().prop_map(Act::EndOfStream),
        1 => which.clone().prop_map(Act::Reset),
        12 => (which.clone(), 1usize..200).prop_map(|(connection, count)| Act::TakeUp { connection, count }),
        1 => which.clone().prop_map(Act::SendFails),
        8 => Just(Act::Take),
        8 => (which.clone(), which.clone()).prop_map(|(request, how)| Act::Answer { request, how }),
        6 => (which.clone(), 1usize..100).prop_map(|(stream, count)| Act::Push { stream, count }),
        4 => (which.clone(), any::<bool>()).prop_map(|(stream, abort)| Act::Finish { stream, abort }),
        2 => (which, 0i64..4).prop_map(|(channel, action)| Act::Notify { channel, action }),
        3 => Just(Act::Disk),
        2 => (1u64..70_000).prop_map(Act::Pass),
        1 => Just(Act::Drain),
    ]
}

/// A client of the story: what it has still to say, and how many requests that makes.
struct Client {
    token: Token,
    unsaid: Vec<u8>,
    asked: u32,
    heard: Vec<u8>,
}

struct Stream {
    link: Arc<Link>,
    token: Token,
    /// `None`: a page for all, without marks of one client.
    number: Option<u32>,
}

const CHANNELS: [&str; 3] = ["a", "b", "a, b"];

struct Story {
    room: Room,
    clients: Vec<Client>,
    #[expect(clippy::vec_box, reason = "as they come from the pool")]
    requests: Vec<Box<Exchange>>,
    streams: Vec<Stream>,
    _folder: tempfile::TempDir,
}

/// How long pages for all are good, in a story.
const PAGE_FIELDS: &str = "Cache-Control: max-age=10, stale-while-revalidate=10, stale-if-error=30\r\nETag: \"v\"\r\n";

/// The request's number is in a field that is logged, and its target where that isn't of a file or a page for all.
fn request(kind: usize, number: u32) -> Vec<u8> {
    let field = format!("User-Agent: {number}\r\n");
    let head = |rest: &str| format!("POST /{number} HTTP/1.1\r\nHost: a\r\n{field}{rest}\r\n\r\n").into_bytes();
    let get = |target: &str, rest: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{field}{rest}\r\n").into_bytes();
    match kind {
        0 | 1 => get(&format!("/{number}"), ""),
        2 => format!("HEAD /{number} HTTP/1.0\r\n{field}Connection: keep-alive\r\n\r\n").into_bytes(),
        8 => get("/s/a", ""),
        9 => get("/s/none", "If-None-Match: *\r\n"),
        10 | 11 => get("/page", ""),
        12 => get("/page", "Cache-Control: max-age=0\r\nIf-None-Match: \"v\"\r\n"),
        13 | 14 => get(&format!("/{number}"), "X-Forwarded-For: 203.0.113.9\r\n"),
        3 => [head("Content-Length: 10"), vec![b'x'; 10]].concat(),
        4 => [head("Transfer-Encoding: chunked"), b"5\r\nhello\r\n0\r\n\r\n".to_vec()].concat(),
        5 => [head("Expect: 100-continue\r\nContent-Length: 5"), b"hello".to_vec()].concat(),
        6 => [head("Content-Length: 1200000"), vec![b'x'; 1_200_000]].concat(),
        _ => get(&format!("/{number}"), "Connection: close\r\n"),
    }
}

/// How the parts of response `number` are marked: it begins, goes on, ends.
fn mark(kind: char, number: u32) -> String {
    format!("\u{1}{kind}{number};")
}

/// Reads the marks in what a client has heard: responses come in order, whole, one after the other.
fn check_marks(heard: &[u8]) {
    let text = String::from_utf8_lossy(heard);
    let (mut last, mut open) = (None, None);
    for (index, piece) in text.split('\u{1}').enumerate() {
        let foreign = if index == 0 { piece } else { piece.split_once(';').expect("a whole mark").1 };
        let mark = if index == 0 { None } else { piece.split_once(';').map(|(mark, _)| mark.split_at(1)) };
        if let Some((kind, number)) = mark {
            let number: u32 = number.parse().unwrap();
            match kind {
                "B" => {
                    assert!(open.is_none() && last < Some(number), "{text:?}");
                    (last, open) = (Some(number), Some(number));
                }
                "P" => assert_eq!(open, Some(number), "{text:?}"),
                _ => assert_eq!(open.take(), Some(number), "{text:?}"),
            }
        }
        assert!(open.is_none() || !foreign.contains("HTTP/1.1"), "nothing comes into a response: {text:?}");
    }
}

fn number_of(exchange: &Exchange) -> u32 {
    std::str::from_utf8(exchange.head.find(b"user-agent").unwrap()).unwrap().parse().unwrap()
}

impl Story {
    fn new() -> Self {
        let (folder, files) = slow_files();
        let room = Room::with(Some(files), Some(caching::cache()), Network::PRIVATE.to_vec());
        Self { room, clients: Vec::new(), requests: Vec::new(), streams: Vec::new(), _folder: folder }
    }

    fn client(&mut self, number: usize) -> Option<&mut Client> {
        let count = self.clients.len();
        if count == 0 { None } else { self.clients.get_mut(number % count) }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Open => self.open(),
            Act::Ask { connection, kind } => {
                let count = self.clients.len().max(1);
                if let Some(client) = self.client(connection) {
                    client.asked += 1;
                    client.unsaid.extend(request(kind, (connection % count) as u32 * 1000 + client.asked));
                }
            }
            Act::Bytes { connection, count } => self.say(connection, count),
            Act::Take => self.requests.extend(self.room.take()),
            Act::Answer { request, how } => self.answer(request, how),
            Act::Push { stream, count } => self.push(stream, count),
            Act::Finish { stream, abort } => self.finish(stream, abort),
            Act::Disk => Happens::Disk.to(&mut self.room, LISTENER, None),
            Act::Pass(milliseconds) => self.room.pass(Duration::from_millis(milliseconds)),
            Act::Drain => self.room.post(Message::Drain),
            Act::Notify { channel, action } => {
                self.room.notify(CHANNELS[channel % 3], Action::from_number(action), "arg");
            }
            Act::EndOfStream(number) | Act::Reset(number) | Act::SendFails(number) => {
                let Some(token) = self.client(number).map(|client| client.token) else { return };
                match act {
                    Act::EndOfStream(_) => self.room.end_of_stream(token),
                    Act::Reset(_) => self.room.reset(token),
                    _ if self.room.reactor.driver.is_sending(token) => {
                        self.room.reactor.driver.send_fails(token, io::ErrorKind::BrokenPipe.into());
                        self.room.step();
                    }
                    _ => {}
                }
            }
            Act::TakeUp { connection, count } => {
                if let Some(token) = self.client(connection).map(|client| client.token) {
                    self.room.take_up(token, count);
                }
            }
        }
        self.hear();
    }

    fn open(&mut self) {
        if self.room.reactor.course == Course::Serving && self.clients.len() < 8 {
            let token = self.room.open();
            self.clients.push(Client { token, unsaid: Vec::new(), asked: 0, heard: Vec::new() });
        }
    }

    /// A long body is said in one go: the story is about something else.
    fn say(&mut self, number: usize, count: usize) {
        let Some(client) = self.client(number) else { return };
        let long = client.unsaid.starts_with(b"xxxxxxxxxxx");
        let count = if long { 1_000_000 } else { count }.min(client.unsaid.len());
        let (token, bytes) = (client.token, client.unsaid[..count].to_vec());
        if count > 0 && self.room.bytes(token, &bytes) {
            self.client(number).unwrap().unsaid.drain(..count);
        }
    }

    fn answer(&mut self, number: usize, how: usize) {
        if self.requests.is_empty() {
            return;
        }
        let mut exchange = self.requests.swap_remove(number % self.requests.len());
        exchange.link.start(self.room.now);
        let number = number_of(&exchange);
        let (link, token) = (Arc::clone(&exchange.link), exchange.token);
        if exchange.head.get(exchange.head.target) == b"/page" {
            return self.answer_for_all(exchange, how);
        }
        if number % 3 == 0 {
            exchange.reply.special = Some(Box::new(Special { block: Some(b"7".to_vec()), ..Special::default() }));
        }
        match how {
            0..=3 => self.room.answer(exchange, End::Complete, (mark('B', number) + &mark('E', number)).as_bytes()),
            7 if !exchange.retried => {
                exchange.since = self.room.notifier.latest().saturating_sub(1);
                self.room.park(exchange, CHANNELS[number as usize % 3], "20 retry");
            }
            4 => self.room.answer(exchange, End::Abort, mark('B', number).as_bytes()),
            5 => {
                exchange.reply.end = End::Abort;
                self.room.post(Message::Reply(exchange));
            }
            _ => {
                self.room.answer(exchange, End::Streaming, mark('B', number).as_bytes());
                self.streams.push(Stream { link, token, number: Some(number) });
            }
        }
    }

    /// The page that everybody asks for: made, confirmed, failed, not made, in pieces.
    fn answer_for_all(&mut self, mut exchange: Box<Exchange>, how: usize) {
        let (link, token) = (Arc::clone(&exchange.link), exchange.token);
        match how {
            0..=2 => self.room.reply(exchange, 200, PAGE_FIELDS, &"page ".repeat(1000)),
            3 => self.room.reply(exchange, 304, "ETag: \"v\"\r\n", ""),
            4 => self.room.reply(exchange, 500, "", "failed"),
            5 => {
                exchange.reply.end = End::Abort;
                self.room.post(Message::Reply(exchange));
            }
            7 if !exchange.retried => self.room.park(exchange, "a", "20 retry"),
            _ => {
                let head = format!("HTTP/1.1 {} X\r\n{PAGE_FIELDS}\r\n", if how == 6 { 200 } else { 503 });
                exchange.reply.head_bytes = head.len();
                self.room.answer(exchange, End::Streaming, head.as_bytes());
                self.streams.push(Stream { link, token, number: None });
            }
        }
    }

    fn push(&mut self, stream: usize, count: usize) {
        let count_of = self.streams.len();
        if count_of > 0 {
            let Stream { link, token, number } = &self.streams[stream % count_of];
            let bytes = number.map_or(String::new(), |number| mark('P', number)) + &".".repeat(count);
            self.room.push(link, *token, bytes.as_bytes());
        }
    }

    fn finish(&mut self, stream: usize, abort: bool) {
        if self.streams.is_empty() {
            return;
        }
        let Stream { link, token, number } = self.streams.swap_remove(stream % self.streams.len());
        if let Some(number) = number.filter(|_| !abort) {
            self.room.push(&link, token, mark('E', number).as_bytes());
        }
        self.room.finish(&link, token, if abort { End::Abort } else { End::Complete });
    }

    fn hear(&mut self) {
        for client in &mut self.clients {
            client.heard.extend(self.room.reactor.driver.sent(client.token));
        }
    }

    /// Everybody does their part, after a `Stop` or a `Drain`: then the reactor ends.
    fn end(mut self, stop: bool) {
        self.room.post(if stop { Message::Stop } else { Message::Drain });
        for _ in 0..100 {
            for token in self.room.tokens() {
                self.room.take_up(token, usize::MAX);
            }
            self.act(Act::Disk);
            self.act(Act::Take);
            self.answer(0, 0);
            self.finish(0, false);
            self.room.pass(Duration::from_secs(1));
        }
        self.hear();
        for client in &self.clients {
            // What was taken of the last one may end within a mark.
            let whole = client
                .heard
                .iter()
                .rposition(|&byte| byte == b'\x01')
                .map_or(0, |at| if client.heard[at..].contains(&b';') { client.heard.len() } else { at });
            check_marks(&client.heard[..whole]);
        }
        assert!(self.requests.is_empty() && self.streams.is_empty() && self.room.take().is_none(), "time for all");
        let reactor = &self.room.reactor;
        assert!(reactor.caching.is_at_rest() && reactor.held.is_empty(), "nobody is left waiting");
        assert_eq!(reactor.shared.cache.as_ref().unwrap().flights.waiting(), 0);
        self.check_log();
        self.room.has_ended();
    }

    /// Each request has one line in the log.
    fn check_log(&self) {
        let reactor = &self.room.reactor;
        let mut numbers: Vec<&str> = reactor.logged.iter().map(|line| line.0.as_str()).collect();
        let count = numbers.len();
        numbers.retain(|number| !number.is_empty());
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "logged twice: {:?}", reactor.logged);
        assert!(reactor.logged.iter().all(|line| line.1 >= 200), "{:?}", reactor.logged);
        // A body that could not be stored in time counts as neither.
        let unavailable = reactor.logged.iter().filter(|line| line.1 == 503).count();
        let known = (reactor.figures.requests + reactor.figures.refused) as usize;
        assert!((known..=known + unavailable).contains(&count), "{known} requests: {:?}", reactor.logged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens in whatever order: nothing panics, nothing is lost or mixed up, and the reactor ends when told to.
    #[test]
    fn any_story_ends_well(acts in prop::collection::vec(act(), 1..150), stop: bool) {
        let mut story = Story::new();
        for act in acts {
            story.act(act);
        }
        story.end(stop);
    }
}
