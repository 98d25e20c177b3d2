//! The corridor with blocked clients: held, refused, let go.

use super::*;
use crate::config::Network;
use crate::serve::exchange::Special;

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";

/// A room whose clients come through a proxy on a Unix socket.
fn room() -> Room {
    Room::with(None, None, Network::PRIVATE.to_vec())
}

impl Room {
    fn blocks(&mut self, seconds: &str) {
        let client = self.open();
        assert!(self.bytes(client, ASK.as_bytes()));
        let mut exchange = self.take().unwrap();
        exchange.reply.special =
            Some(Box::new(Special { block: Some(seconds.as_bytes().to_vec()), ..Special::default() }));
        self.answer(exchange, End::Complete, RESPONSE);
        assert_eq!(self.take_up_all(client), RESPONSE, "the response itself is delivered");
    }

    fn client_of(&mut self, address: &str) -> Token {
        let client = self.open();
        assert!(self.bytes(client, ASK.replace("203.0.113.9", address).as_bytes()));
        client
    }

    fn refused(&mut self, client: Token) {
        let sent = String::from_utf8(self.take_up_all(client)).unwrap();
        assert!(sent.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{sent}");
        assert!(sent.contains("\r\nContent-Length: 1\r\n") && sent.ends_with("\r\n\r\n\n"), "{sent}");
    }
}

#[test]
fn held_and_refused_and_let_through_again() {
    let mut room = room();
    room.blocks("30");
    let blocked = room.client_of("203.0.113.9");
    let other = room.client_of("203.0.113.8");
    let exchange = room.take().expect("another client");
    assert_eq!(exchange.token, other);
    assert!(room.take().is_none(), "the application doesn't see it");
    room.answer(exchange, End::Complete, RESPONSE);
    room.pass(Duration::from_secs(24));
    assert_eq!(room.phase(blocked), "waiting");
    room.pass(Duration::from_secs(2));
    room.refused(blocked);
    assert_eq!(room.phase(blocked), "idle", "the connection lives on");
    room.pass(Duration::from_secs(5));
    assert!(room.bytes(blocked, ASK.as_bytes()));
    let exchange = room.take().expect("the time is over");
    room.answer(exchange, End::Complete, RESPONSE);
    room.stop();
}

#[test]
fn no_more_than_so_many_are_held() {
    let mut room = room();
    room.blocks("60");
    let held: Vec<Token> = (0..limits::BLOCK_HELD_MAX).map(|_| room.client_of("203.0.113.9")).collect();
    let next = room.client_of("203.0.113.9");
    room.refused(next);
    // Two that leave make room for two.
    room.reset(held[0]);
    room.reset(held[1]);
    for _ in 0..2 {
        let client = room.client_of("203.0.113.9");
        assert_eq!(room.phase(client), "waiting");
    }
    let next = room.client_of("203.0.113.9");
    room.refused(next);
    // A server that stops keeps nobody waiting.
    room.post(Message::Drain);
    held[2..].iter().for_each(|client| room.refused(*client));
    room.stop();
}

#[test]
fn values_that_say_nothing_and_clients_that_are_many() {
    let mut room = room();
    for value in ["0", "-5", "soon", ""] {
        room.blocks(value);
    }
    let client = room.client_of("203.0.113.9");
    let exchange = room.take().expect("it isn't blocked");
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(client);
    // Without X-Forwarded-For the peer is the proxy itself.
    let proxy = room.open();
    assert!(room.bytes(proxy, GET));
    let mut exchange = room.take().unwrap();
    exchange.reply.special = Some(Box::new(Special { block: Some(b"60".to_vec()), ..Special::default() }));
    room.answer(exchange, End::Complete, RESPONSE);
    room.take_up_all(proxy);
    assert!(room.bytes(proxy, GET));
    assert!(room.take().is_some(), "what has no public address isn't blocked");
}
