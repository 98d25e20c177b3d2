//! Parked requests on their reactor: they come from a worker that was told to let them wait, and go back to one, or to their client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::conn::Phase;
use super::exchange::{Exchange, Link};
use super::park::{Action, Lot, Missed, Notice, wish};
use super::responses::CLIENT_CLOSED_REQUEST;
use super::{Course, Reactor};
use crate::limits;
use crate::reactor::clock::Instant;
use crate::reactor::{Driver, Outgoing, Token};

/// nginx's code, for the log only, for a connection that is closed without an answer.
const NO_RESPONSE: u16 = 444;
/// How soon to look again whether the queue has room for those that are to be run again.
const CROWDED: Duration = Duration::from_millis(5);

/// What a reactor keeps of its parked requests.
#[derive(Default)]
pub(super) struct Parking {
    lot: Lot,
    /// Those that a notice has ended the wait of; a turn takes care of some.
    woken: VecDeque<(Token, Arc<Notice>)>,
    /// Those that are to be run again, when the queue has room.
    returning: VecDeque<Token>,
    /// The link of all that are parked: nobody is at its other end.
    nobody: Arc<Link>,
}

#[cfg(test)]
impl Parking {
    /// Requests that wait for a notice.
    pub(super) fn len(&self) -> usize {
        self.lot.len()
    }
}

impl<D: Driver> Reactor<D> {
    /// The application has parked the request instead of answering it.
    pub(super) fn park(&mut self, mut exchange: Box<Exchange>) {
        let token = exchange.token;
        let Some(special) = exchange.reply.special.take() else { return self.unanswered(exchange) };
        let channels = special.park.unwrap_or_default();
        let Some(wish) = wish(&channels, special.park_timeout.as_deref()) else {
            tracing::error!(
                "{}: X-WSGo-Park names too much: {} channels and {} bytes at most",
                target(&exchange),
                limits::PARK_CHANNELS_MAX,
                limits::PARK_CHANNELS_BYTES_MAX
            );
            return self.settle(token, exchange, 500, "the request could not be parked", "");
        };
        if wish.timeout_is_bad {
            tracing::warn!(
                "{}: X-WSGo-Park-Timeout '{}' isn't a number of seconds and one of retry, disconnect, http-204, http-504, such as \
                 '30 retry': it is taken as '{} http-204'",
                target(&exchange),
                special.park_timeout.unwrap_or_default().escape_ascii(),
                limits::PARK_TIMEOUT_S
            );
        }
        let (until, action, since) = (self.now + wish.timeout, wish.action, exchange.since);
        // What a retry after the time-out is told.
        exchange.park_arg = Some(special.park_arg.unwrap_or_default().into());
        slim(&mut exchange);
        exchange.link = Arc::clone(&self.parking.nobody);
        let draining = self.course != Course::Serving;
        let Some(connection) = self.get(token) else { return self.give(exchange) };
        if connection.ended {
            // It says nothing more, and waits for something that may never come: it has gone.
            connection.phase = Phase::Parked { exchange, place: None, until, action };
            return self.close(token);
        }
        if !self.shared.notifier.enter() {
            tracing::error!(
                "{}: {} requests are parked in this process already; this one is answered 503",
                target(&exchange),
                limits::PARKED_REQUESTS_MAX
            );
            return self.settle(token, exchange, 503, "too many requests are parked", "Retry-After: 1\r\n");
        }
        let place = self.parking.lot.park(token, since, &wish.channels);
        let Some(connection) = self.get(token) else { return };
        connection.phase = Phase::Parked { exchange, place: Some(place), until, action };
        self.entered(token);
        self.rearm(token);
        match self.shared.notifier.missed(since, &wish.channels) {
            None if draining => self.unpark(token, None),
            None => {}
            Some(Missed::Notice(notice)) => self.unpark(token, Some((notice.action, Arc::clone(&notice.arg)))),
            // It may have been meant: the application looks again.
            Some(Missed::Forgotten) => self.unpark(token, Some((Action::Retry, Arc::default()))),
        }
    }

    /// Somebody has announced something.
    pub(super) fn noticed(&mut self, notice: &Arc<Notice>) {
        let before = self.parking.woken.len();
        let Parking { lot, woken, .. } = &mut self.parking;
        lot.wake(notice, |token| woken.push_back((token, Arc::clone(notice))));
        for index in before..self.parking.woken.len() {
            let token = self.parking.woken[index].0;
            self.shared.notifier.leave();
            if let Some(Phase::Parked { place, until, .. }) = self.get(token).map(|connection| &mut connection.phase) {
                (*place, *until) = (None, Instant::NEVER);
                self.entered(token);
            }
        }
    }

    /// Takes care of those who were woken, and runs those again that are to be.
    pub(super) fn feed_woken(&mut self) {
        for _ in 0..limits::WAKES_PER_TURN_MAX {
            let Some((token, notice)) = self.parking.woken.pop_front() else { break };
            self.guarded(Some(token), |reactor| {
                reactor.unpark(token, Some((notice.action, Arc::clone(&notice.arg))));
            });
        }
        self.feed_returning();
    }

    /// The time of a parked request is over, or the server is about to stop.
    pub(super) fn parked_long_enough(&mut self, token: Token) {
        self.unpark(token, None);
    }

    /// Ends the wait of all parked requests by what was to happen at the end of their time.
    pub(super) fn end_parking(&mut self) {
        let is_parked = |phase: &Phase| matches!(phase, Phase::Parked { place: Some(_), .. });
        let parked: Vec<Token> = self
            .connections
            .iter()
            .filter(|(_, c)| is_parked(&c.phase))
            .map(|(_, connection)| connection.token)
            .collect();
        for token in parked {
            self.unpark(token, None);
        }
    }

    /// Ends the wait of a parked request: `how`, or as was said for its time-out.
    fn unpark(&mut self, token: Token, how: Option<(Action, Arc<[u8]>)>) {
        let Some(connection) = self.get(token) else { return };
        let Phase::Parked { exchange, place, until, action } = &mut connection.phase else { return };
        let (place, timeout_action) = (place.take(), *action);
        let action = match how {
            Some((action, arg)) => {
                exchange.park_arg = Some(arg);
                action
            }
            None => timeout_action,
        };
        *until = Instant::NEVER;
        if let Some(place) = place {
            self.leave_lot(place);
        }
        match action {
            Action::Retry => {
                self.entered(token);
                self.parking.returning.push_back(token);
            }
            Action::Disconnect => self.close_as(token, NO_RESPONSE),
            Action::NoContent => self.end_wait(token, 204, ""),
            Action::GatewayTimeout => self.end_wait(token, 504, "nothing happened in time"),
        }
    }

    /// Runs those again that were woken, as far as the queue has room: never are others turned away for them.
    fn feed_returning(&mut self) {
        while !self.parking.returning.is_empty()
            && self.shared.pool.waiting() < self.shared.pool.waiting_max().div_ceil(2)
        {
            let Some(token) = self.parking.returning.pop_front() else { return };
            if let Some(mut exchange) = self.take_parked(token) {
                exchange.retried = true;
                exchange.link = Arc::default();
                self.guarded(Some(token), |reactor| reactor.submit(token, exchange));
            }
        }
    }

    /// How soon there is something to do for those who were woken.
    pub(super) fn crowded(&self) -> Option<Duration> {
        if !self.parking.woken.is_empty() {
            return Some(Duration::ZERO);
        }
        (!self.parking.returning.is_empty()).then_some(CROWDED)
    }

    /// A parked request's connection is closed under it.
    pub(super) fn abandon_parked(&mut self, exchange: Box<Exchange>, place: Option<u32>) {
        if let Some(place) = place {
            self.leave_lot(place);
        }
        self.log_with(exchange, CLIENT_CLOSED_REQUEST);
    }

    fn leave_lot(&mut self, place: u32) {
        self.parking.lot.leave(place);
        self.shared.notifier.leave();
    }

    /// Closes a connection, with its request in the log as having been given `status`.
    fn close_as(&mut self, token: Token, status: u16) {
        if let Some(exchange) = self.take_parked(token) {
            self.log_with(exchange, status);
        }
        self.close(token);
    }

    fn end_wait(&mut self, token: Token, status: u16, sentence: &str) {
        if let Some(exchange) = self.take_parked(token) {
            self.settle(token, exchange, status, sentence, "");
        }
    }

    /// Answers in place of the application.
    fn settle(&mut self, token: Token, exchange: Box<Exchange>, status: u16, sentence: &str, extra: &str) {
        let head = &exchange.head;
        let (head_only, version, keep_alive) = (head.get(head.method) == b"HEAD", head.version, head.keep_alive);
        let draining = self.course != Course::Serving;
        let (link, queued) = (Arc::clone(&self.parking.nobody), self.now);
        self.log_with(exchange, status);
        let Some(connection) = self.get(token) else { return };
        let keep_alive = keep_alive && !connection.is_at_its_last(draining);
        connection.phase = Phase::Waiting { link, queued, head_only, version, keep_alive };
        self.answer(token, status, sentence, extra);
    }

    fn log_with(&mut self, mut exchange: Box<Exchange>, status: u16) {
        exchange.reply.status = status;
        self.log_exchange(&exchange);
        self.give(exchange);
    }

    fn take_parked(&mut self, token: Token) -> Option<Box<Exchange>> {
        let connection = self.get(token)?;
        if !matches!(connection.phase, Phase::Parked { .. }) {
            return None;
        }
        match std::mem::replace(&mut connection.phase, Phase::Idle) {
            Phase::Parked { exchange, .. } => Some(exchange),
            _ => None,
        }
    }
}

/// Gives back all memory that a parked request doesn't need.
fn slim(exchange: &mut Exchange) {
    exchange.head.bytes.shrink_to_fit();
    exchange.head.fields.shrink_to_fit();
    *exchange.reply.outgoing = Outgoing::new();
    exchange.reply.spare = Vec::new();
    exchange.reply.special = None;
    if let super::exchange::Body::Memory(bytes) = &mut exchange.body {
        bytes.shrink_to_fit();
    }
}

/// The request-target, for the error log.
fn target(exchange: &Exchange) -> String {
    exchange.head.get(exchange.head.target).escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::exchange::{Body, Exchanges};
    use super::super::http1::HeadLimits;
    use super::*;

    /// What one reactor keeps of so many, without their connections, which would take more descriptors than a process may have.
    #[test]
    fn fifty_thousand_take_a_kibibyte_each_and_hear_one_notice() {
        const COUNT: usize = 50_000;
        const BODY: usize = 100;
        let limits = HeadLimits { request_line_bytes_max: 1024, head_bytes_max: 4096, fields_max: limits::FIELDS_MAX };
        let (mut exchanges, mut lot, mut parked) = (Exchanges::default(), Lot::default(), Vec::new());
        for number in 0..COUNT {
            let mut exchange = exchanges.take();
            let head = format!("GET /park?client={number} HTTP/1.1\r\nHost: a\r\nCookie: session={number:032}\r\n\r\n");
            // As after a request that was larger.
            exchange.head.bytes.reserve(8_000);
            exchange.head.parse(head.as_bytes(), 0, &limits).expect("well-formed").expect("whole");
            let mut body = Vec::with_capacity(4_000);
            body.resize(BODY, b'b');
            exchange.body = Body::Memory(body);
            exchange.reply.spare = Vec::with_capacity(4_000);
            exchange.token = Token { slot: number as u32, generation: 1 };
            slim(&mut exchange);
            // Those of a room hear each other, all hear a crier.
            let room = format!("room {}", number % 1_000);
            lot.park(exchange.token, 0, &[b"crier", room.as_bytes()]);
            parked.push(exchange);
        }
        let of_each = |exchange: &Exchange| {
            let Body::Memory(body) = &exchange.body else { panic!("in memory") };
            let fields = exchange.head.fields.capacity() * size_of_val(&exchange.head.fields[0]);
            let lists = exchange.head.bytes.capacity() + body.capacity() + exchange.reply.spare.capacity() + fields;
            size_of::<Exchange>() + size_of::<Outgoing>() + lists - exchange.head.bytes.len() - BODY
        };
        let bytes = parked.iter().map(|exchange| of_each(exchange)).sum::<usize>() + lot.bytes();
        println!("{} bytes for each of {COUNT}, its own not counted", bytes / COUNT);
        assert!(bytes <= COUNT * 1024, "{} bytes each", bytes / COUNT);
        let notice =
            Notice { sequence: 1, channels: vec![b"crier".to_vec()], action: Action::Retry, arg: Arc::default() };
        let mut woken = HashSet::new();
        lot.wake(&notice, |token| assert!(woken.insert(token), "each once"));
        assert_eq!((woken.len(), lot.len(), lot.bytes()), (COUNT, 0, 0));
    }
}
