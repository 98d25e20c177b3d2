//! The corridor with a response cache: who is answered from it, who waits, who asks the application.

use ahash::RandomState;

use super::*;
use crate::serve::local::cache::epochs::Epochs;
use crate::serve::local::cache::{Purge, Settings as CacheSettings};

const ASK: &str = "GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
const PAGE: &str = "Cache-Control: max-age=60\r\n";

pub(super) fn cache() -> Arc<Cache> {
    let settings = CacheSettings {
        ceiling: Duration::from_secs(1000),
        bytes_max: 1 << 20,
        response_bytes_max: 100_000,
        descriptors_max: 100,
        show_status: true,
    };
    Arc::new(Cache::new(settings, RandomState::with_seeds(1, 2, 3, 4), Arc::new(Epochs::own())))
}

fn room() -> Room {
    Room::with(None, Some(cache()), Vec::new())
}

/// One whose cache has had the page `old`, with `fields`, for so many seconds.
fn room_with(fields: &str, seconds: u64) -> Room {
    let mut room = room();
    room.made(ASK, 200, fields, "old");
    room.pass(Duration::from_secs(seconds));
    room
}

/// [`ASK`] with one more field line.
fn ask_with(line: &str) -> String {
    ASK.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
}

impl Room {
    fn cache(&self) -> &Cache {
        self.reactor.shared.cache.as_deref().unwrap()
    }

    /// A client that has sent `request`.
    fn client(&mut self, request: &str) -> Token {
        let token = self.open();
        self.request(token, request);
        token
    }

    /// As many clients that have sent the same.
    fn clients(&mut self, count: usize) -> Vec<Token> {
        (0..count).map(|_| self.client(ASK)).collect()
    }

    /// A client that has sent `request`, and what the application has of it.
    fn asked(&mut self, request: &str) -> (Token, Box<Exchange>) {
        let token = self.client(request);
        (token, self.take().expect("the application is asked"))
    }

    fn request(&mut self, token: Token, request: &str) {
        assert!(self.bytes(token, request.as_bytes()));
    }

    /// The application answers as a whole.
    pub(super) fn reply(&mut self, mut exchange: Box<Exchange>, status: u16, fields: &str, body: &str) {
        let head = format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        exchange.reply.status = status;
        exchange.reply.head_bytes = head.len();
        exchange.reply.end = End::Complete;
        exchange.reply.keep_alive = exchange.head.keep_alive;
        exchange.reply.outgoing.push(Segment::Bytes(format!("{head}{body}").into_bytes()));
        self.post(Message::Reply(exchange));
    }

    /// The application answers with a first part; what the others go through.
    fn begin(&mut self, mut exchange: Box<Exchange>, status: u16, fields: &str) -> Arc<Link> {
        let link = Arc::clone(&exchange.link);
        let head = format!("HTTP/1.1 {status} X\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
        (exchange.reply.status, exchange.reply.head_bytes, exchange.reply.end) = (status, head.len(), End::Streaming);
        exchange.reply.keep_alive = true;
        exchange.reply.outgoing.push(Segment::Bytes(format!("{head}3\r\none\r\n").into_bytes()));
        self.post(Message::Reply(exchange));
        link
    }

    /// All of them have been sent a page that ends so.
    fn all_sent(&mut self, clients: Vec<Token>, end: &str) {
        clients.into_iter().for_each(|token| assert!(self.sent(token).ends_with(end)));
    }

    /// The application answers the only request it has.
    fn run(&mut self, status: u16, fields: &str, body: &str) {
        let exchange = self.take().expect("the application is asked");
        self.reply(exchange, status, fields, body);
        assert!(self.take().is_none(), "the application is asked once");
    }

    /// What a client has been sent since it was asked last.
    fn sent(&mut self, token: Token) -> String {
        String::from_utf8(self.take_up_all(token)).unwrap()
    }

    /// Asks, and gets an answer without the application.
    fn answered(&mut self, request: &str) -> String {
        let token = self.client(request);
        assert!(self.pool.take().is_none(), "the application isn't asked");
        let sent = self.sent(token);
        self.end_of_stream(token);
        sent
    }

    /// Asks, and the application answers.
    fn made(&mut self, request: &str, status: u16, fields: &str, body: &str) -> String {
        let token = self.client(request);
        self.run(status, fields, body);
        let sent = self.sent(token);
        self.end_of_stream(token);
        sent
    }

    fn ends(self) {
        assert!(self.reactor.caching.is_at_rest(), "nothing is left waiting");
        assert_eq!(self.cache().flights.waiting(), 0);
        self.stop();
    }
}

fn cached(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("X-Cache: ")).unwrap_or("-")
}

#[test]
fn a_page_is_made_once() {
    let mut room = room();
    let made = room.made(ASK, 200, PAGE, "page");
    assert!(made.starts_with("HTTP/1.1 200 X\r\n") && made.ends_with("\r\n\r\npage"), "{made}");
    assert!(made.contains("Cache-Status: hoopsnake; fwd=uri-miss; stored\r\nX-Cache: MISS\r\n"), "{made}");
    room.pass(Duration::from_secs(5));
    assert_eq!(
        room.answered(ASK),
        "HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nAge: 5\r\nContent-Length: 4\r\n\
         Cache-Status: hoopsnake; hit; ttl=55\r\nX-Cache: HIT\r\n\r\npage"
    );
    let head = room.answered(&ASK.replace("GET", "HEAD"));
    assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    // A body too long to be copied behind the head.
    let long = "x".repeat(50_000);
    room.made(&ASK.replace("page", "long"), 200, PAGE, &long);
    assert!(room.answered(&ASK.replace("page", "long")).ends_with(&format!("\r\n\r\n{long}")));
    room.pass(Duration::from_secs(55));
    room.made(ASK, 200, PAGE, "new");
    room.ends();
}

#[test]
fn connections_go_on_and_end_as_they_are_asked_to() {
    let mut room = room();
    room.made(ASK, 200, PAGE, "page");
    let token = room.open();
    for _ in 0..3 {
        room.request(token, ASK);
        assert!(room.sent(token).ends_with("page"));
        assert_eq!(room.phase(token), "idle");
    }
    room.request(token, &ASK.repeat(3));
    assert_eq!(room.sent(token).matches("\r\n\r\npage").count(), 3, "pipelined");
    let close = room.answered("GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(close.contains("\r\nConnection: close\r\n"), "{close}");
    let old = room.answered("GET /page HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert!(old.contains("\r\nConnection: keep-alive\r\n"), "{old}");
    room.ends();
}

#[test]
fn two_tenants_never_see_each_others_page() {
    let mut room = room();
    let ask = |cookie: &str| format!("GET /page HTTP/1.1\r\nHost: a\r\nCookie: session={cookie}; theme=dark\r\n\r\n");
    for (cookie, page) in [("one", "page of one"), ("two", "page of two")] {
        room.made(&ask(cookie), 200, "Cache-Control: max-age=60\r\nVary: Cookie\r\n", page);
    }
    assert!(room.answered(&ask("one")).ends_with("page of one"));
    assert!(room.answered(&ask("two")).ends_with("page of two"));
    // Nobody, somebody else, and another host.
    room.made(ASK, 200, "Vary: Cookie\r\n", "anonymous");
    room.made(&ask("three"), 200, "Vary: Cookie\r\n", "page of three");
    room.made(&ask("one").replace("Host: a", "Host: b"), 200, "Vary: Cookie\r\n", "of b");
    // One waits for the other before it is known that the page depends on who asks.
    let mut room = self::room();
    let one = room.client(&ask("one"));
    let two = room.client(&ask("two"));
    let exchange = room.take().unwrap();
    assert!(room.take().is_none(), "the second waits");
    room.reply(exchange, 200, "Cache-Control: max-age=60\r\nVary: Cookie\r\n", "page of one");
    room.run(200, "Cache-Control: max-age=60\r\nVary: Cookie\r\n", "page of two");
    assert!(room.sent(one).ends_with("page of one") && room.sent(two).ends_with("page of two"));
    room.ends();
}

#[test]
fn what_belongs_to_one_client_is_not_stored() {
    for (extra, fields) in [
        ("", "Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n"),
        ("", "Cache-Control: max-age=60, private\r\n"),
        ("", "Cache-Control: max-age=60\r\nVary: *\r\n"),
        ("", ""),
        ("Authorization: Basic eA==\r\n", PAGE),
        ("Cache-Control: no-store\r\n", PAGE),
        ("Range: bytes=0-1\r\n", PAGE),
        // A claim on what the URL stands for, of somebody who isn't believed.
        ("X-Forwarded-Proto: https\r\n", PAGE),
        ("X-Forwarded-Host: evil\r\n", PAGE),
        ("x-original-url: /admin\r\n", PAGE),
        ("X_HTTP_Method_Override: DELETE\r\n", PAGE),
        ("Forwarded: host=evil\r\n", PAGE),
        ("Content-Length: 0\r\nIf-Match: \"a\"\r\n", PAGE),
    ] {
        let mut room = room();
        let ask = ASK.replace("\r\n\r\n", &format!("\r\n{extra}\r\n"));
        room.made(&ask, 200, fields, "mine");
        room.made(ASK, 200, "", "other");
        room.ends();
    }
}

#[test]
fn many_wait_for_one() {
    let mut room = room();
    let clients = room.clients(200);
    assert_eq!(room.cache().flights.waiting(), 199);
    room.run(200, PAGE, "page");
    for (number, token) in clients.into_iter().enumerate() {
        let sent = room.sent(token);
        assert!(sent.ends_with("\r\n\r\npage"), "{sent}");
        assert_eq!(cached(&sent), if number == 0 { "MISS" } else { "HIT" });
        assert_eq!(sent.contains("; collapsed;"), number > 0, "{sent}");
    }
    room.ends();
}

#[test]
fn when_the_first_fails_the_others_ask() {
    let mut room = room();
    let clients = room.clients(5);
    let first = room.take().unwrap();
    room.reply(first, 500, "", "broken");
    for _ in 1..5 {
        let exchange = room.take().expect("each asks for itself");
        room.reply(exchange, 200, PAGE, "page");
    }
    let sent: Vec<String> = clients.into_iter().map(|token| room.sent(token)).collect();
    assert!(sent[0].ends_with("broken") && sent[1..].iter().all(|sent| sent.ends_with("page")));
    room.ends();
}

#[test]
fn when_the_first_is_not_for_all_nobody_waits_the_next_time() {
    let mut room = room();
    let clients = room.clients(5);
    for _ in 0..5 {
        let exchange = room.take().expect("each asks for itself");
        room.reply(exchange, 200, "Cache-Control: private\r\n", "page");
    }
    room.all_sent(clients, "page");
    let again = room.clients(5);
    assert_eq!(room.cache().flights.waiting(), 0, "it is known by now");
    for _ in 0..5 {
        let exchange = room.take().unwrap();
        room.reply(exchange, 200, PAGE, "page");
    }
    room.all_sent(again, "page");
    assert_eq!(cached(&room.answered(ASK)), "HIT", "and forgotten once it is stored");
    room.ends();
}

#[test]
fn when_the_first_client_leaves_the_next_takes_its_place() {
    let mut room = room();
    let leaving = room.client(ASK);
    let staying = room.clients(3);
    let mut given_up = room.take().unwrap();
    given_up.link.start(room.now);
    room.reset(leaving);
    assert!(given_up.link.is_cancelled());
    given_up.reply.end = End::Abort;
    room.post(Message::Reply(given_up));
    room.run(200, PAGE, "page");
    room.all_sent(staying, "page");
    room.ends();
}

#[test]
fn a_request_that_leaves_the_queue_makes_way() {
    let mut room = room();
    let leaving = room.client(ASK);
    let staying = room.clients(3);
    room.reset(leaving);
    room.run(200, PAGE, "page");
    room.all_sent(staying, "page");
    room.ends();
}

#[test]
fn those_who_wait_have_their_own_time() {
    let mut room = room();
    let first = room.client(ASK);
    room.pass(Duration::from_secs(20));
    let exchange = room.take().unwrap();
    exchange.link.start(room.now);
    let patient = room.client(ASK);
    let leaves = room.client(ASK);
    room.reset(leaves);
    // The first has 30 s from its start; who has waited for 30 s is told 504.
    room.pass(Duration::from_millis(29_900));
    assert_eq!((room.phase(first), room.phase(patient)), ("waiting", "waiting"));
    room.pass(Duration::from_secs(1));
    assert!(room.sent(patient).starts_with("HTTP/1.1 504"));
    assert!(room.sent(first).starts_with("HTTP/1.1 504"));
    // It comes after all: for the cache, and for nobody else.
    room.reply(exchange, 200, PAGE, "late");
    assert_eq!((room.sent(first), room.sent(patient)), (String::new(), String::new()));
    assert!(room.take().is_none() && room.answered(ASK).ends_with("late"));
    room.ends();
}

#[test]
fn stale_pages_are_validated() {
    let fields = "Cache-Control: max-age=10\r\nETag: \"v1\"\r\n";
    let mut room = room_with(fields, 10);
    let client = room.client(&ask_with("If-None-Match: \"own\""));
    let (waits, exchange) = room.asked(ASK);
    let head = &exchange.head;
    let conditions: Vec<_> = head.fields.iter().map(|field| (head.get(field.name), head.get(field.value))).collect();
    assert_eq!(conditions[1..], [(&b"If-None-Match"[..], &b"\"v1\""[..])]);
    room.reply(exchange, 304, "ETag: \"v1\"\r\nCache-Control: max-age=20\r\n", "");
    let sent = room.sent(client);
    assert!(sent.starts_with("HTTP/1.1 200 X\r\n") && sent.ends_with("\r\n\r\nold"), "{sent}");
    assert!(sent.contains("fwd-status=304") && sent.contains("Age: 0\r\n") && sent.contains("max-age=20"), "{sent}");
    assert!(room.sent(waits).ends_with("old"));
    room.pass(Duration::from_secs(19));
    assert_eq!(cached(&room.answered(ASK)), "HIT");
    // Now it has changed.
    room.pass(Duration::from_secs(1));
    room.made(ASK, 200, &fields.replace("v1", "v2"), "new");
    let not_modified = room.answered(&ask_with("If-None-Match: \"v2\""));
    assert!(not_modified.starts_with("HTTP/1.1 304 Not Modified\r\n") && not_modified.ends_with("\r\n\r\n"));
    // And now it is nobody else's any more.
    room.pass(Duration::from_secs(10));
    room.made(ASK, 200, "Cache-Control: private\r\n", "mine");
    assert!(room.cache().is_empty());
    room.ends();
}

#[test]
fn a_304_about_another_page_is_asked_again() {
    let mut room = room_with("Cache-Control: max-age=10\r\nETag: \"v1\"\r\n", 10);
    let (client, exchange) = room.asked(ASK);
    exchange.link.start(room.now);
    room.pass(TIMEOUTS.request - Duration::from_secs(1));
    room.reply(exchange, 304, "ETag: \"v7\"\r\n", "");
    room.pass(Duration::from_secs(5));
    let again = room.take().expect("without a condition");
    assert_eq!(again.head.fields.len(), 1);
    assert!(again.link.started().is_none() && again.deadline > room.now, "in the queue it has its time anew");
    assert!(room.reactor.is_awaited(&again));
    room.reply(again, 200, PAGE, "whole");
    assert!(room.sent(client).ends_with("whole"));
    room.ends();
}

#[test]
fn a_client_with_a_condition_lets_the_page_be_stored() {
    let mut room = room();
    let ask = ask_with("If-None-Match: \"v1\"");
    let (client, exchange) = room.asked(&ask);
    assert_eq!(exchange.head.fields.len(), 1, "a 304 would be of no use to others");
    room.reply(exchange, 200, "Cache-Control: max-age=10\r\nETag: \"v1\"\r\n", "page");
    assert!(room.sent(client).starts_with("HTTP/1.1 304"));
    assert!(room.answered(ASK).ends_with("page"));
    room.ends();
}

#[test]
fn stale_while_it_is_renewed() {
    let fields = "Cache-Control: max-age=10, stale-while-revalidate=30\r\n";
    let mut room = room_with(fields, 15);
    for _ in 0..3 {
        let client = room.client(&ASK.replace("GET", "HEAD"));
        assert_eq!(cached(&room.sent(client)), "STALE");
    }
    let refresh = room.take().expect("one refresh");
    assert!(room.take().is_none());
    assert_eq!((refresh.head.get(refresh.head.method), room.tokens().contains(&refresh.token)), (&b"GET"[..], false));
    room.reply(refresh, 200, fields, "new");
    let sent = room.answered(ASK);
    assert!(sent.ends_with("new") && cached(&sent) == "HIT", "{sent}");
    // It fails: the old one is served for as long as it may be.
    room.pass(Duration::from_secs(15));
    assert_eq!(cached(&room.answered_and_refreshed(ASK, 500)), "STALE");
    room.pass(Duration::from_secs(25));
    room.made(ASK, 200, fields, "newer");
    room.ends();
}

impl Room {
    fn answered_and_refreshed(&mut self, request: &str, status: u16) -> String {
        let token = self.client(request);
        let sent = self.sent(token);
        self.run(status, "", "");
        sent
    }
}

#[test]
fn a_refresh_in_pieces() {
    let fields = "Cache-Control: max-age=10, stale-while-revalidate=30\r\n";
    let mut room = room_with(fields, 15);
    let client = room.client(ASK);
    room.sent(client);
    let refresh = room.take().unwrap();
    let token = refresh.token;
    let link = room.begin(refresh, 200, fields);
    room.push(&link, token, b"4\r\n two\r\n");
    assert_eq!(link.buffered(), 0, "the application isn't held up");
    room.push(&link, token, b"0\r\n\r\n");
    room.finish(&link, token, End::Complete);
    drop(link);
    assert!(room.answered(ASK).ends_with("\r\n\r\none two"));
    room.ends();
}

#[test]
fn stale_if_the_application_fails() {
    let fields = "Cache-Control: max-age=10, stale-if-error=60\r\n";
    let mut room = room_with(fields, 15);
    for status in [500, 502, 503, 504] {
        let client = room.client(ASK);
        let waits = room.client(ASK);
        room.run(status, "", "error");
        for client in [client, waits] {
            let sent = room.sent(client);
            assert!(sent.ends_with("old") && cached(&sent) == "STALE", "{sent}");
        }
    }
    // It gives no answer at all, or not in time.
    let (client, exchange) = room.asked(ASK);
    exchange.link.start(room.now);
    room.pass(Duration::from_secs(31));
    assert!(room.sent(client).ends_with("old"));
    assert!(exchange.link.is_cancelled() && exchange.link.answered() == Some(200));
    room.post(Message::Reply(exchange));
    assert!(room.made(ASK, 404, "", "gone").ends_with("gone"), "that is an answer");
    room.ends();
}

#[test]
fn responses_in_pieces_are_stored_when_they_are_complete() {
    for (end, stored) in [(End::Complete, true), (End::Abort, false)] {
        let mut room = room();
        let (client, exchange) = room.asked(ASK);
        let link = room.begin(exchange, 200, PAGE);
        room.push(&link, client, b"4\r\n two\r\n");
        room.take_up_all(client);
        if stored {
            room.push(&link, client, b"0\r\n\r\n");
        }
        room.finish(&link, client, end);
        room.take_up_all(client);
        drop(link);
        match stored {
            true => assert!(room.answered(ASK).ends_with(
                "\r\nContent-Length: 7\r\nCache-Status: hoopsnake; hit; ttl=60\r\nX-Cache: HIT\r\n\r\none two"
            )),
            false => assert!(room.cache().is_empty(), "a part isn't a page"),
        }
        room.ends();
    }
}

/// What many wait for comes in pieces: in time, or not, or not as a whole.
#[test]
fn many_wait_for_pieces_but_not_for_long() {
    for (end, in_time) in [(End::Complete, true), (End::Complete, false), (End::Abort, true)] {
        let mut room = room();
        let client = room.client(ASK);
        let waits = room.clients(3);
        let exchange = room.take().unwrap();
        let link = room.begin(exchange, 200, PAGE);
        let late = room.client(ASK);
        room.run(200, "", "late");
        assert!(room.sent(late).ends_with("late"), "nobody joins in");
        room.take_up_all(client);
        assert!(room.take().is_none());
        if !in_time {
            room.pass(Duration::from_millis(limits::CACHE_PIECES_WAIT_MS + 200));
        }
        room.push(&link, client, b"0\r\n\r\n");
        room.finish(&link, client, end);
        room.take_up_all(client);
        drop(link);
        let stored = in_time && end == End::Complete;
        for _ in &waits {
            let asked = room.take();
            assert_eq!(asked.is_none(), stored, "{end:?} {in_time}");
            if let Some(exchange) = asked {
                room.reply(exchange, 200, "", "one");
            }
        }
        room.all_sent(waits, "one");
        room.ends();
    }
}

/// Those who wait for pieces that nobody takes any more go on with all their time.
#[test]
fn a_client_that_leaves_amid_a_stream_costs_those_who_wait_nothing() {
    let mut room = room();
    let leaves = room.client(ASK);
    let waits = room.clients(3);
    let exchange = room.take().unwrap();
    let link = room.begin(exchange, 200, PAGE);
    room.take_up_all(leaves);
    room.reset(leaves);
    room.finish(&link, leaves, End::Abort);
    drop(link);
    let exchange = room.take().expect("the next asks");
    exchange.link.start(room.now);
    assert!(room.take().is_none(), "for the others too");
    room.pass(Duration::from_millis(limits::CACHE_PIECES_WAIT_MS + 2000));
    assert!(waits.iter().all(|&token| room.phase(token) == "waiting"), "nobody is told 504");
    room.reply(exchange, 200, PAGE, "page");
    room.all_sent(waits, "page");
    room.ends();
}

/// A client that was told 504 while it waited asks again, and waits for the same: it isn't taken for its earlier request.
#[test]
fn a_client_that_waits_a_second_time() {
    let mut room = room();
    let (first, exchange) = room.asked(ASK);
    let again = room.client(ASK);
    room.pass(TIMEOUTS.request - Duration::from_secs(1));
    exchange.link.start(room.now);
    room.pass(Duration::from_secs(2));
    assert!(room.sent(again).starts_with("HTTP/1.1 504"));
    room.request(again, ASK);
    assert_eq!(room.phase(again), "waiting");
    let link = room.begin(exchange, 200, PAGE);
    room.pass(Duration::from_millis(limits::CACHE_PIECES_WAIT_MS + 200));
    room.run(200, "", "its own");
    assert!(room.sent(again).ends_with("its own"));
    room.take_up_all(first);
    room.finish(&link, first, End::Abort);
    drop(link);
    room.take_up_all(first);
    assert_eq!(room.reactor.logged.len(), 3, "each has its line: {:?}", room.reactor.logged);
    room.ends();
}

/// A stale page stands in for an error that comes in pieces: the worker isn't left waiting for somebody to take them.
#[test]
fn stale_instead_of_an_error_in_pieces() {
    let mut room = room_with("Cache-Control: max-age=10, stale-if-error=60\r\n", 15);
    let (client, exchange) = room.asked(ASK);
    let link = room.begin(exchange, 500, "");
    assert!(link.is_cancelled(), "nobody takes more of it");
    room.push(&link, client, b"4\r\n two\r\n");
    assert!(room.sent(client).ends_with("\r\n\r\nold"));
    room.finish(&link, client, End::Abort);
    drop(link);
    assert_eq!(room.phase(client), "idle");
    room.ends();
}

/// The stale page that is sent in time is what the log says, once, whether its request was in the queue still or not.
#[test]
fn stale_in_time_is_logged_once() {
    for started in [false, true] {
        let mut room = room_with("Cache-Control: max-age=10, stale-if-error=600\r\n", 15);
        let client = room.client(ASK);
        let exchange = started.then(|| room.take().unwrap());
        exchange.iter().for_each(|exchange| exchange.link.start(room.now));
        room.pass(TIMEOUTS.request + Duration::from_secs(1));
        assert!(room.sent(client).ends_with("old"));
        exchange.into_iter().for_each(|exchange| room.post(Message::Reply(exchange)));
        assert!(room.take().is_none(), "it has left the queue");
        assert_eq!(room.reactor.logged[1..], [(String::new(), 200)], "started: {started}");
        room.ends();
    }
}

#[test]
fn a_stream_that_nobody_takes_any_more_is_forgotten() {
    let mut room = room();
    let (client, exchange) = room.asked(ASK);
    let link = room.begin(exchange, 200, PAGE);
    room.reset(client);
    room.take_up_all(client);
    room.finish(&link, client, End::Complete);
    drop(link);
    assert!(room.cache().is_empty());
    room.ends();
}

#[test]
fn only_if_cached_rfc_9111_5_2_1_7() {
    let mut room = room();
    let ask = ask_with("Cache-Control: only-if-cached");
    assert!(room.answered(&ask).starts_with("HTTP/1.1 504"));
    assert!(room.answered(&ask.replace("Host: a", "Range: bytes=0-1\r\nHost: a")).starts_with("HTTP/1.1 504"));
    room.made(ASK, 200, PAGE, "page");
    assert!(room.answered(&ask).ends_with("page"));
    room.ends();
}

#[test]
fn a_success_of_an_unsafe_method_invalidates_rfc_9111_4_4() {
    let post = "POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let mut room = room();
    for (request, status, fields, stays) in [
        (post, 200, "", false),
        (post, 303, "", false),
        (post, 404, "", true),
        (post, 500, "", true),
        (&*post.replace("POST", "FROB"), 204, "", false),
        (&*post.replace("/page", "/other"), 201, "Location: /page\r\n", false),
        (&*post.replace("/page", "/other"), 200, "Content-Location: http://a/page\r\n", false),
        (&*post.replace("/page", "/other"), 201, "Location: http://b/page\r\n", true),
        (&*post.replace("Host: a", "Host: b"), 200, "Location: http://a/page\r\n", true),
        (&*post.replace("POST", "TRACE"), 200, "", true),
    ] {
        room.made(ASK, 200, PAGE, "page");
        let sent = room.made(request, status, fields, "");
        assert_eq!(cached(&sent), "BYPASS");
        assert_eq!(!room.cache().is_empty(), stays, "{request} {status} {fields}");
        room.cache().purge(&Purge::All, room.now);
        room.pass(Duration::from_secs(1));
    }
    // An answer from before it, that comes after it.
    let (slow, exchange) = room.asked(ASK);
    room.pass(Duration::from_secs(1));
    room.made(post, 200, "", "");
    room.reply(exchange, 200, PAGE, "from before");
    assert!(room.sent(slow).ends_with("from before"));
    assert!(room.cache().is_empty(), "it may be out of date");
    room.ends();
}

#[test]
fn what_the_client_asks_of_the_cache() {
    let mut room = room();
    room.made(ASK, 200, PAGE, "page");
    room.pass(Duration::from_secs(20));
    let with = |directive: &str| ask_with(&format!("Cache-Control: {directive}"));
    for directive in ["max-age=20", "min-fresh=40", "max-stale", "x"] {
        assert_eq!(cached(&room.answered(&with(directive))), "HIT", "{directive}");
    }
    for directive in ["no-cache", "max-age=19", "min-fresh=41", "max-age=0"] {
        room.pass(Duration::from_secs(20));
        room.made(&with(directive), 200, PAGE, "new");
    }
    room.ends();
}

#[test]
fn options_has_its_own() {
    let mut room = room();
    room.made(&ASK.replace("GET", "OPTIONS"), 200, PAGE, "options");
    room.made(ASK, 200, PAGE, "page");
    assert!(room.answered(ASK).ends_with("page"));
    assert!(room.answered(&ASK.replace("GET", "OPTIONS")).ends_with("options"));
    room.made(&ASK.replace("/page", "/head").replace("GET", "HEAD"), 200, PAGE, "");
    room.made(&ASK.replace("/page", "/head"), 200, PAGE, "whole");
    room.ends();
}

#[test]
fn a_full_queue_leaves_nobody_waiting() {
    let mut room = room();
    // A query makes it worth less than the others.
    let client = room.client(&ASK.replace("/page", "/page?1"));
    for _ in 0..limits::QUEUE_REQUESTS_MAX {
        room.pool.submit(Box::default());
    }
    room.step();
    assert!(room.sent(client).starts_with("HTTP/1.1 504"));
    while room.pool.take().is_some() {}
    room.made(ASK, 200, PAGE, "page");
    room.ends();
}

#[test]
fn a_server_that_stops_forgets_those_who_wait() {
    let mut room = room();
    for _ in 0..5 {
        room.client(ASK);
    }
    room.post(Message::Stop);
    assert_eq!(room.reactor.logged, vec![(String::new(), 499); 5], "each has its line");
    room.stop();
    // One that a worker runs, and may never give back, doesn't keep the others from theirs.
    let mut room = self::room();
    for _ in 0..5 {
        room.client(ASK);
    }
    let exchange = room.take().unwrap();
    exchange.link.start(room.now);
    room.post(Message::Stop);
    assert_eq!(room.reactor.logged, vec![(String::new(), 499); 4], "those who wait have theirs");
    assert_eq!(room.cache().flights.waiting(), 0);
    room.post(Message::Reply(exchange));
    room.stop();
}
