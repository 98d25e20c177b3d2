//! Connections begin, wait and end: accepting, timers, draining, closing.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::SockRef;

use super::conn::{Connection, Expired, Phase, deadline, expired};
use super::exchange::Peer;
use super::http1::{Refusal, Version};
use super::{Accepting, Course, Reactor};
use crate::limits;
use crate::reactor::clock::Instant;
use crate::reactor::{Driver, Token};

/// How long a connection of a draining reactor may be idle.
const DRAIN_IDLE: Duration = Duration::from_millis(limits::DRAIN_IDLE_MS);

impl<D: Driver> Reactor<D> {
    /// Arms every listener whose pause is over.
    pub(super) fn accept_again(&mut self) {
        for (slot, listener) in self.listeners.iter_mut().enumerate() {
            if matches!(listener.state, Accepting::Backoff(until) if until <= self.now) {
                listener.state = Accepting::Armed;
                let socket = listener.socket.as_ref().expect("only a listener that has ended has no socket");
                self.driver.accept(socket.as_raw_fd(), listener_token(slot));
            }
        }
        self.look_aside();
    }

    /// Leaves new connections to other processes while this one's workers are stalled: whatever is accepted here would wait.
    pub(super) fn yield_listeners(&mut self) {
        if !self.shared.siblings || self.course != Course::Serving || !self.is_stalled() {
            return;
        }
        for (slot, listener) in self.listeners.iter_mut().enumerate() {
            if let (Accepting::Armed, Some(socket)) = (listener.state, &listener.socket) {
                listener.state = Accepting::Yielding;
                self.driver.cancel_accept(socket.as_raw_fd(), listener_token(slot));
            }
        }
    }

    /// Whether requests wait, and none was taken for [`limits::STALLED_MS`] of that.
    fn is_stalled(&mut self) -> bool {
        let Some(taken) = self.shared.pool.last_taken(self.now) else {
            self.waiting = None;
            return false;
        };
        let (since, before) = *self.waiting.get_or_insert((self.now, taken));
        if before != taken {
            self.waiting = Some((self.now, taken));
            return false;
        }
        self.now.since(since) >= Duration::from_millis(limits::STALLED_MS)
    }

    /// Looks after the listeners that were left to others: accepts what they haven't taken (they may be stalled as well), and everything
    /// again when the workers go on.
    fn look_aside(&mut self) {
        if !self.listeners.iter().any(|listener| matches!(listener.state, Accepting::Aside(until) if until <= self.now))
        {
            return;
        }
        let stalled = self.is_stalled();
        for slot in 0..self.listeners.len() {
            let listener = &mut self.listeners[slot];
            let (Accepting::Aside(until), Some(socket)) = (listener.state, &listener.socket) else { continue };
            if until > self.now {
                continue;
            }
            if !stalled {
                listener.state = Accepting::Armed;
                self.driver.accept(socket.as_raw_fd(), listener_token(slot));
                continue;
            }
            let left: Vec<OwnedFd> =
                std::iter::from_fn(|| accept_queued(socket)).take(limits::ACCEPTS_ASIDE_MAX).collect();
            listener.state = Accepting::Aside(self.now + Duration::from_millis(limits::ACCEPT_ASIDE_MS));
            left.into_iter().for_each(|connection| self.accepted(listener_token(slot), connection));
        }
    }

    pub(super) fn accepted(&mut self, listener: Token, socket: OwnedFd) {
        if self.course == Course::Stopping {
            return;
        }
        let index = self.listeners[listener.slot as usize].index;
        let Some(peer) = peer_of(&socket) else { return };
        let slot = self.connections.vacant_key();
        if slot == self.generations.len() {
            self.generations.push(0);
        }
        let token = Token { slot: slot as u32, generation: self.generations[slot] };
        self.connections.insert(Connection::new(socket, token, index, peer));
        self.figures.accepted += 1;
        self.entered(token);
        self.rearm(token);
    }

    pub(super) fn accept_ended(&mut self, token: Token, error: &io::Error) {
        let slot = token.slot as usize;
        if self.course == Course::Serving {
            if self.listeners[slot].state == Accepting::Yielding && error.raw_os_error() == Some(libc::ECANCELED) {
                self.listeners[slot].state =
                    Accepting::Aside(self.now + Duration::from_millis(limits::ACCEPT_ASIDE_MS));
                return;
            }
            // Out of descriptors or memory: connections already accepted must come to an end first.
            tracing::warn!(
                "can't accept connections: {error}; trying again in {} ms (raise the limit on open files, `ulimit -n`, if this stays)",
                limits::ACCEPT_BACKOFF_MS
            );
            self.listeners[slot].state =
                Accepting::Backoff(self.now + Duration::from_millis(limits::ACCEPT_BACKOFF_MS));
            return;
        }
        self.end_listener(token);
    }

    /// Lets go of a listener on which the driver doesn't accept any more.
    fn end_listener(&mut self, token: Token) {
        let listener = &mut self.listeners[token.slot as usize];
        listener.state = Accepting::Ended;
        let Some(socket) = listener.socket.take() else { return };
        self.let_withdrawal_go();
        let takes = self.course == Course::Draining && !self.leaves_queue;
        // What the kernel has queued was promised an answer; what comes in meanwhile was not.
        for _ in 0..limits::LISTEN_BACKLOG {
            let queued = if takes { accept_queued(&socket) } else { None };
            let Some(connection) = queued else { return };
            self.accepted(token, connection);
        }
    }

    /// Whoever waits for it hears that nothing is accepted any more, once that is so.
    pub(super) fn let_withdrawal_go(&mut self) {
        if self.listeners.iter().all(|listener| listener.state == Accepting::Ended) {
            self.withdrawal = None;
        }
    }

    /// The connection, unless it is gone.
    pub(super) fn get(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections.get_mut(token.slot as usize).filter(|connection| connection.token == token)
    }

    /// A connection has entered a phase, or made progress in it: its deadline moves.
    pub(super) fn entered(&mut self, token: Token) {
        let (now, timeouts, draining) = (self.now, self.shared.settings.timeouts, self.course != Course::Serving);
        let Some(connection) = self.get(token) else { return };
        connection.deadline = deadline(connection, now, &timeouts);
        if draining && connection.is_between_requests() {
            connection.deadline = connection.deadline.min(now + DRAIN_IDLE);
        }
        self.watch(token);
    }

    /// Sees to it that the timer wheel looks at the connection no later than its deadline. Deadlines that move away,
    /// the common case, cost nothing: the wheel finds out when it gets there.
    pub(super) fn watch(&mut self, token: Token) {
        let Some(connection) = self.get(token) else { return };
        if connection.deadline == Instant::NEVER {
            return;
        }
        if connection.timer.is_none_or(|timer| timer > connection.deadline) {
            let at = connection.deadline;
            connection.timer = Some(at);
            self.timers.insert(token, at);
        }
    }

    pub(super) fn expire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.advance(self.now, &mut due);
        for token in due.drain(..) {
            self.guarded(Some(token), |reactor| reactor.timer_due(token));
        }
        self.due = due;
    }

    fn timer_due(&mut self, token: Token) {
        let (now, timeouts) = (self.now, self.shared.settings.timeouts);
        let Some(connection) = self.get(token) else { return };
        if connection.timer.is_some_and(|timer| timer > now) {
            // An older entry: a nearer deadline was entered after it.
            return;
        }
        connection.timer = None;
        match expired(connection, now, &timeouts) {
            Expired::Later(at) => {
                connection.deadline = at;
                self.watch(token);
            }
            // It has reached the kernel while a drain was waiting for it.
            Expired::Close if self.course == Course::Draining && self.has_request(token) => self.entered(token),
            Expired::Close => self.close(token),
            Expired::RequestTimeout => self.refuse(token, Refusal::Timeout, None),
            Expired::GatewayTimeout => self.gateway_timeout(token),
            Expired::Parked => self.parked_long_enough(token),
        }
    }

    /// Arms receiving if the connection wants more and isn't receiving; pauses it if it has had enough.
    pub(super) fn rearm(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token.slot as usize).filter(|c| c.token == token) else {
            return;
        };
        let wanted =
            !connection.ended && !matches!(connection.phase, Phase::Closing) && !super::conn::is_full(connection);
        if wanted && !connection.receiving {
            connection.receiving = true;
            connection.pausing = false;
            self.driver.receive(connection.fd(), token);
        } else if !wanted && connection.receiving && !connection.pausing && !connection.ended {
            connection.pausing = true;
            self.driver.pause(connection.fd(), token);
        }
    }

    /// Stops accepting; connections that have been idle for a while are closed, the others finish what they have.
    pub(super) fn drain(&mut self) {
        if self.course != Course::Serving {
            return;
        }
        self.course = Course::Draining;
        self.shared.pool.set_draining();
        self.end_accepting();
        let (now, keep_alive) = (self.now, self.shared.settings.timeouts.keep_alive);
        let idle: Vec<(Token, Duration)> = self
            .connections
            .iter()
            // One that was just accepted may have a request on its way; the header time-out is its limit.
            .filter(|(_, connection)| connection.is_between_requests())
            .map(|(_, connection)| (connection.token, keep_alive.saturating_sub(connection.deadline.since(now))))
            .collect();
        for (token, idle) in idle {
            if idle >= DRAIN_IDLE && !self.has_request(token) {
                self.close(token);
            } else if let Some(connection) = self.get(token) {
                connection.deadline = now + DRAIN_IDLE.saturating_sub(idle);
                self.watch(token);
            }
        }
        self.refuse_all_held();
        self.end_parking();
    }

    /// Whether a request that nobody has received lies in the kernel: it is answered.
    fn has_request(&mut self, token: Token) -> bool {
        self.get(token).is_some_and(|connection| connection.is_between_requests() && has_unread(&connection.socket))
    }

    /// Closes everything.
    pub(super) fn stop(&mut self) {
        self.course = Course::Stopping;
        self.end_accepting();
        let all: Vec<Token> = self.connections.iter().map(|(_, connection)| connection.token).collect();
        for token in all {
            self.close(token);
        }
    }

    fn end_accepting(&mut self) {
        for slot in 0..self.listeners.len() {
            match (self.listeners[slot].state, &self.listeners[slot].socket) {
                (Accepting::Armed, Some(socket)) => self.driver.cancel_accept(socket.as_raw_fd(), listener_token(slot)),
                (Accepting::Backoff(_) | Accepting::Aside(_), _) => self.end_listener(listener_token(slot)),
                (Accepting::Armed, None) | (Accepting::Yielding | Accepting::Ended, _) => {}
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.course != Course::Serving
            && self.connections.is_empty()
            && self.listeners.iter().all(|listener| listener.state == Accepting::Ended)
    }

    /// Ends a connection. What the driver still has of it is reaped first; until then it is [`Phase::Closing`].
    pub(super) fn close(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token.slot as usize).filter(|c| c.token == token) else {
            return;
        };
        if matches!(connection.phase, Phase::Closing) {
            self.try_remove(token);
            return;
        }
        let phase = std::mem::replace(&mut connection.phase, Phase::Closing);
        let reset = is_cut_short(&phase);
        connection.pending = Vec::new();
        if let Some(queued) = connection.queued.take() {
            self.recycle(queued);
        }
        self.abandon(phase);
        self.let_go(token);
        let connection = &mut self.connections[token.slot as usize];
        let socket = SockRef::from(&connection.socket);
        if reset {
            // Fails on a Unix socket, which knows no reset: there the client can't be told.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        if connection.is_busy() {
            // The orderly end that a shutdown sends must not come before a reset; but nothing else ends a send.
            if !reset || connection.sending {
                // Fails when the peer has reset the connection: as good.
                let _ = socket.shutdown(Shutdown::Both);
            }
            if connection.receiving && !connection.pausing {
                connection.pausing = true;
                self.driver.pause(connection.fd(), token);
            }
        }
        self.entered(token);
        self.try_remove(token);
    }

    /// Lets go of what a phase that is cut short has.
    fn abandon(&mut self, phase: Phase) {
        match phase {
            Phase::Waiting { link, .. } => self.leave(&link),
            Phase::Parked { exchange, place, .. } => self.abandon_parked(exchange, place),
            Phase::Body { exchange, store, .. } => {
                self.discard(store);
                self.give(exchange);
            }
            Phase::Responding { exchange: Some(exchange), .. } => {
                self.cancel(&exchange.link);
                self.log_exchange(&exchange);
                self.give(exchange);
            }
            Phase::Idle | Phase::Head { .. } | Phase::Lingering { .. } | Phase::Closing | Phase::Responding { .. } => {}
        }
    }

    /// Frees the slot of a closing connection once nothing of it is in flight. Closes the descriptor.
    pub(super) fn try_remove(&mut self, token: Token) {
        let slot = token.slot as usize;
        let Some(connection) = self.connections.get(slot).filter(|c| c.token == token) else { return };
        if !matches!(connection.phase, Phase::Closing) || connection.is_busy() {
            return;
        }
        self.connections.remove(slot);
        self.generations[slot] = (self.generations[slot] + 1) % (1 << Token::GENERATION_BITS);
    }
}

/// Whether the phase is a response of which the client must be told, by a reset, that it isn't complete: to an HTTP/1.0 client an
/// orderly end may mean that it is (RFC 9112 §8).
fn is_cut_short(phase: &Phase) -> bool {
    matches!(phase, Phase::Responding { exchange: Some(exchange), .. } if exchange.head.version == Version::Http10)
}

/// Listeners have tokens of their own: their events are of other kinds than connections'.
fn listener_token(slot: usize) -> Token {
    Token { slot: slot as u32, generation: 0 }
}

/// The other end; `None` if the connection is gone already.
fn peer_of(socket: &OwnedFd) -> Option<Peer> {
    let address = SockRef::from(socket).peer_addr().ok()?;
    Some(match address.as_socket() {
        Some(address) => Peer::Tcp(address.ip().to_canonical(), address.port()),
        None => Peer::Unix,
    })
}

/// Whether the kernel has bytes of this peer that nobody has received.
pub(super) fn has_unread(socket: &OwnedFd) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    SockRef::from(socket).recv_with_flags(&mut byte, flags).is_ok_and(|bytes| bytes > 0)
}

/// A connection the kernel has queued on a listener, if there is one.
fn accept_queued(listener: &OwnedFd) -> Option<OwnedFd> {
    let (socket, _) = SockRef::from(listener).accept().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket.into())
}
