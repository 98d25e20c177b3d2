//! What bytes from the peer mean for a connection.

use super::{BodyStore, Connection, Phase, Settings, Spool};
use crate::limits;
use crate::reactor::clock::Instant;
use crate::serve::exchange::{Exchange, Exchanges};
use crate::serve::http1::{BodyDecoder, Framing, Refusal, Step};

/// What follows from bytes that were fed.
pub enum Feed {
    /// All bytes are used or kept; more are needed.
    More,
    /// Likewise, and they were the first of a head, whose time begins, or empty lines in front of one: then the idle time does.
    Begun,
    /// Likewise, and the client waits for `100 Continue`.
    Continue,
    /// A request is complete and may be given to a worker.
    Request(Box<Exchange>),
    /// A body is complete, or has outgrown memory: [`store_body`] must be asked what to write.
    Store,
    /// The request is refused. The exchange has what is known of its head: the request line at most, if that was well-formed.
    Refuse(Refusal, Box<Exchange>),
}

/// Feeds `input` (not empty) to a connection; what is not used at once is kept in [`Connection::pending`]. Exchanges come from and
/// go back to `exchanges`.
pub fn feed(
    connection: &mut Connection,
    input: &[u8],
    now: Instant,
    settings: &Settings,
    exchanges: &mut Exchanges,
) -> Feed {
    match &mut connection.phase {
        Phase::Idle | Phase::Head { .. } => feed_head(connection, input, now, settings, exchanges),
        Phase::Body { complete: false, .. } => feed_body(connection, input),
        Phase::Lingering { .. } | Phase::Closing => Feed::More,
        // Pipelined requests wait until the one before them is answered (RFC 9112 §9.3.2).
        Phase::Body { complete: true, .. }
        | Phase::Waiting { .. }
        | Phase::Parked { .. }
        | Phase::Responding { .. } => {
            connection.pending.extend_from_slice(input);
            if let Phase::Waiting { link, .. } = &connection.phase {
                if connection.is_owed_more() {
                    link.set_followed();
                }
            }
            Feed::More
        }
    }
}

fn feed_head(
    connection: &mut Connection,
    input: &[u8],
    now: Instant,
    settings: &Settings,
    exchanges: &mut Exchanges,
) -> Feed {
    let mut exchange = exchanges.take();
    // A whole head in one piece, the common case, is parsed where it was received; otherwise the pieces are gathered.
    let mut gathered = std::mem::take(&mut connection.pending);
    if connection.empty_lines > 0 {
        // However they are split, no more of them are skipped.
        debug_assert!(gathered.is_empty(), "they were let go of because nothing else was there");
        gathered = EMPTY_LINE.repeat(std::mem::take(&mut connection.empty_lines));
    }
    let scanned = match connection.phase {
        Phase::Head { scanned } => scanned,
        _ => 0,
    };
    let bytes = if gathered.is_empty() {
        input
    } else {
        gathered.extend_from_slice(input);
        &gathered[..]
    };
    match exchange.head.parse(bytes, scanned, &settings.head) {
        Err(refusal) => {
            exchange.received = now;
            Feed::Refuse(refusal, exchange)
        }
        Ok(None) if is_empty_lines(bytes) => {
            // RFC 9112 §2.2: what old clients leave behind a body is no request. Nothing is waited for but what an idle connection is.
            connection.empty_lines = bytes.len() / EMPTY_LINE.len();
            connection.phase = Phase::Idle;
            exchanges.give(exchange);
            Feed::Begun
        }
        Ok(None) => {
            let seen = bytes.len();
            if gathered.is_empty() {
                gathered = input.to_vec();
            }
            connection.pending = gathered;
            exchanges.give(exchange);
            let begun = matches!(connection.phase, Phase::Idle);
            connection.phase = Phase::Head { scanned: seen };
            if begun { Feed::Begun } else { Feed::More }
        }
        Ok(Some(consumed)) => {
            connection.requests += 1;
            exchange.received = now;
            let rest = &bytes[consumed..];
            begin(connection, exchange, rest, settings)
        }
    }
}

const EMPTY_LINE: &[u8] = b"\r\n";

/// Whether there is nothing but whole empty lines.
fn is_empty_lines(bytes: &[u8]) -> bool {
    bytes.chunks(EMPTY_LINE.len()).all(|line| line == EMPTY_LINE)
}

/// The head is complete: begins the body with what came behind the head.
fn begin(connection: &mut Connection, exchange: Box<Exchange>, rest: &[u8], settings: &Settings) -> Feed {
    let framing = exchange.head.framing;
    if matches!(framing, Framing::None | Framing::Length(0)) {
        connection.pending = rest.to_vec();
        connection.phase = Phase::Idle;
        return Feed::Request(exchange);
    }
    let decoder = match BodyDecoder::new(framing, settings.request_body_bytes_max) {
        Ok(decoder) => decoder,
        Err(refusal) => return Feed::Refuse(refusal, exchange),
    };
    // A client that sends the body without waiting for it needs no interim response (RFC 9110 §10.1.1).
    let wants_continue = exchange.head.expect_continue && rest.is_empty();
    let store = BodyStore::new(decoder.remaining());
    connection.phase = Phase::Body { exchange, decoder, store, complete: false };
    match feed_body(connection, rest) {
        Feed::More if wants_continue => Feed::Continue,
        other => other,
    }
}

fn feed_body(connection: &mut Connection, input: &[u8]) -> Feed {
    let Phase::Body { decoder, store, complete, .. } = &mut connection.phase else {
        unreachable!("the caller has looked at the phase");
    };
    let mut rest = input;
    loop {
        match decoder.decode(rest) {
            Ok(Step::Data { data, consumed }) => {
                store.append(data);
                rest = &rest[consumed..];
            }
            Ok(Step::NeedMore { .. }) => return if store.wants_disk() { Feed::Store } else { Feed::More },
            Ok(Step::Done { consumed }) => {
                *complete = true;
                connection.pending = rest[consumed..].to_vec();
                return Feed::Store;
            }
            Err(refusal) => {
                let Phase::Body { exchange, .. } = std::mem::replace(&mut connection.phase, Phase::Idle) else {
                    unreachable!("the phase is looked at above");
                };
                return Feed::Refuse(refusal, exchange);
            }
        }
    }
}

/// What becomes of a body after [`Feed::Store`] or after the disk thread has written: `Ok` when it is complete and settled,
/// `Err` with what is to be written next, if anything is.
pub fn store_body(connection: &mut Connection) -> Result<Box<Exchange>, Option<Spool>> {
    let Phase::Body { store, complete, .. } = &mut connection.phase else { return Err(None) };
    if let Some(spool) = store.next_write(*complete) {
        return Err(Some(spool));
    }
    if !*complete || !store.is_settled() {
        return Err(None);
    }
    let Phase::Body { mut exchange, store, .. } = std::mem::replace(&mut connection.phase, Phase::Idle) else {
        unreachable!("the phase is looked at above");
    };
    exchange.body = store.finish();
    Ok(exchange)
}

/// What follows when the peer has ended its side.
pub enum Ended {
    /// Nothing is owed: close.
    Close,
    /// The request was cut short: answer 400 and close.
    Refuse(Refusal),
    /// A response is under way: it is delivered first (the connection may be half-closed).
    Later,
}

/// The peer has sent all it will send.
pub fn input_ended(connection: &mut Connection) -> Ended {
    connection.ended = true;
    match &connection.phase {
        // Pipelined requests are answered first: the reactor is about to look at them.
        Phase::Idle if !connection.pending.is_empty() => Ended::Later,
        // A client that has nothing more to say and waits for what may never come has gone, as nearly all have.
        Phase::Idle | Phase::Parked { .. } | Phase::Lingering { .. } | Phase::Closing => Ended::Close,
        Phase::Head { .. } => Ended::Refuse(Refusal::BadRequest("the connection was closed inside the head")),
        Phase::Body { complete: false, .. } => {
            Ended::Refuse(Refusal::BadRequest("the connection was closed inside the body"))
        }
        Phase::Responding { exchange: Some(exchange), .. } => {
            exchange.link.set_disconnected();
            Ended::Later
        }
        Phase::Waiting { link, .. } => {
            link.set_disconnected();
            Ended::Later
        }
        Phase::Body { complete: true, .. } | Phase::Responding { .. } => Ended::Later,
    }
}

/// Whether a connection has had enough for now and receiving should pause.
pub fn is_full(connection: &Connection) -> bool {
    match &connection.phase {
        Phase::Body { store, complete: false, .. } => store.is_full(),
        // Idle with pipelined requests at hand: each would otherwise let in more bytes than it takes away.
        Phase::Body { .. } | Phase::Waiting { .. } | Phase::Parked { .. } | Phase::Responding { .. } | Phase::Idle => {
            connection.pending.len() >= limits::PIPELINE_BYTES_MAX
        }
        Phase::Head { .. } | Phase::Lingering { .. } | Phase::Closing => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{After, Timeouts};
    use super::*;
    use crate::reactor::Token;
    use crate::serve::exchange::{Body, Peer};
    use crate::serve::http1::{HeadLimits, Version};

    const SECOND: Duration = Duration::from_secs(1);
    const SETTINGS: Settings = Settings {
        head: HeadLimits { request_line_bytes_max: 256, head_bytes_max: 512, fields_max: 4 },
        request_body_bytes_max: 1000,
        timeouts: Timeouts { header: SECOND, body: SECOND, send: SECOND, keep_alive: SECOND, request: SECOND },
    };

    /// What a client was understood to have said.
    #[derive(Debug, PartialEq, Eq)]
    enum Said {
        Request { target: String, body: Vec<u8> },
        Refused(u16),
    }

    /// A connection, played as the corridor does, whose responses are delivered when the test says so.
    struct Played {
        connection: Connection,
        exchanges: Exchanges,
        said: Vec<Said>,
        continues: usize,
    }

    impl Played {
        fn new() -> Self {
            let socket = UnixStream::pair().unwrap().0;
            let connection = Connection::new(socket.into(), Token { slot: 0, generation: 0 }, 0, Peer::Unix);
            Self { connection, exchanges: Exchanges::default(), said: Vec::new(), continues: 0 }
        }

        fn bytes(&mut self, input: &[u8]) {
            if input.is_empty() {
                return;
            }
            match feed(&mut self.connection, input, Instant::default(), &SETTINGS, &mut self.exchanges) {
                Feed::More | Feed::Begun => {}
                Feed::Continue => self.continues += 1,
                Feed::Request(exchange) => self.request(exchange),
                Feed::Store => match store_body(&mut self.connection) {
                    Ok(exchange) => self.request(exchange),
                    Err(_) => panic!("such short bodies stay in memory"),
                },
                Feed::Refuse(refusal, exchange) => {
                    self.said.push(Said::Refused(refusal.status()));
                    self.exchanges.give(exchange);
                    self.connection.phase = Phase::Lingering { until: Instant::NEVER };
                }
            }
        }

        fn request(&mut self, exchange: Box<Exchange>) {
            let target = String::from_utf8(exchange.head.get(exchange.head.target).to_vec()).unwrap();
            let body = match &exchange.body {
                Body::Memory(bytes) => bytes.clone(),
                _ => Vec::new(),
            };
            self.said.push(Said::Request { target, body });
            self.connection.phase = Phase::Waiting {
                link: Arc::clone(&exchange.link),
                queued: Instant::default(),
                head_only: false,
                version: Version::Http11,
                keep_alive: true,
            };
            self.exchanges.give(exchange);
        }

        /// The request that waits is answered, and the reactor looks at the pipelined bytes.
        fn answer(&mut self) -> bool {
            let waits = matches!(self.connection.phase, Phase::Waiting { .. });
            if waits {
                self.connection.phase = Phase::Idle;
                let bytes = std::mem::take(&mut self.connection.pending);
                self.bytes(&bytes);
            }
            waits
        }

        /// What `stream` says when it comes in pieces that end at `cuts`, with an answer after those of them that say so.
        fn hear(stream: &[u8], cuts: &[(usize, bool)]) -> Vec<Said> {
            let mut played = Self::new();
            let mut from = 0;
            for &(to, answered) in cuts.iter().chain([&(stream.len(), false)]) {
                let to = to.min(stream.len()).max(from);
                played.bytes(&stream[from..to]);
                from = to;
                if answered {
                    played.answer();
                }
            }
            while played.answer() {}
            played.said
        }
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let target = 0u32..1000;
        prop_oneof![
            4 => target.clone().prop_map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()),
            3 => (target.clone(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, body)| {
                let head = format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
                [head.into_bytes(), body].concat()
            }),
            3 => (target, prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(n, body)| {
                let head = format!("POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
                [head.into_bytes(), body, b"\r\n0\r\nA: b\r\n\r\n".to_vec()].concat()
            }),
            1 => Just(b"\r\n".to_vec()),
            1 => prop::sample::select(vec![
                &b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"[..],
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n",
                b"nonsense",
            ]).prop_map(<[u8]>::to_vec),
        ]
    }

    proptest! {
        /// However a stream is split, and whenever the answers go out, it says the same.
        #[test]
        fn any_split_says_the_same(
            pieces in prop::collection::vec(piece(), 1..8),
            mut cuts in prop::collection::vec((0usize..800, any::<bool>()), 0..30),
        ) {
            let stream = pieces.concat();
            cuts.sort_unstable();
            let whole = Played::hear(&stream, &[]);
            prop_assert_eq!(&Played::hear(&stream, &cuts), &whole);
            let bytes: Vec<_> = (1..stream.len()).map(|end| (end, end % 7 == 0)).collect();
            prop_assert_eq!(&Played::hear(&stream, &bytes), &whole);
        }
    }

    #[test]
    fn a_stream_is_taken_apart() {
        let request = |target: &str, body: &[u8]| Said::Request { target: target.into(), body: body.into() };
        let check = |stream: &str, expected: &[Said]| assert_eq!(Played::hear(stream.as_bytes(), &[]), expected);
        check(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.0\r\n\r\n",
            &[request("/1", b""), request("/2", b"abc"), request("/3", b"")],
        );
        check(
            "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nnonsense",
            &[request("/1", b"x")],
        );
        check("nonsense\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n", &[Said::Refused(400)]);
        check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\nGET", &[Said::Refused(413)]);
    }

    #[test]
    fn only_a_client_that_waits_is_told_to_continue() {
        let check = |input: &str, expected| {
            let mut played = Played::new();
            played.bytes(input.as_bytes());
            assert_eq!(played.continues, expected, "{input:?}");
        };
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        check(head, 1);
        check(&format!("{head}a"), 0);
        check(&format!("{head}ab"), 0);
        check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", 0);
        check("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n", 0);
    }

    #[test]
    fn an_idle_connection_keeps_no_buffer() {
        let mut played = Played::new();
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n";
        for piece in request.chunks(7).chain(vec![b'x'; 500].chunks(50)) {
            played.bytes(piece);
        }
        assert!(played.answer());
        assert_eq!(played.connection.pending.capacity(), 0);
    }

    #[test]
    fn the_end_of_input() {
        fn check(phase: Phase, pending: &[u8], expected: &str) {
            let mut connection = Played::new().connection;
            (connection.phase, connection.pending) = (phase, pending.to_vec());
            let found = match input_ended(&mut connection) {
                Ended::Close => "close",
                Ended::Refuse(_) => "refuse",
                Ended::Later => "later",
            };
            assert_eq!(found, expected);
            assert!(connection.ended);
        }
        let body = |complete| {
            let decoder = BodyDecoder::new(Framing::Chunked, 1).unwrap();
            Phase::Body { exchange: Box::default(), decoder, store: BodyStore::new(None), complete }
        };
        check(Phase::Idle, b"", "close");
        check(Phase::Idle, b"GET", "later");
        check(Phase::Head { scanned: 1 }, b"G", "refuse");
        check(body(false), b"", "refuse");
        check(body(true), b"", "later");
        check(Phase::Responding { exchange: None, after: After::KeepAlive }, b"", "later");
        check(Phase::Lingering { until: Instant::NEVER }, b"", "close");
        check(Phase::Closing, b"", "close");
    }
}
