//! The epoll driver: the same operations, made of readiness.
//!
//! Most containers forbid io_uring, so this is the driver that most of them run. Sends and receives are plain calls
//! that never wait; the only call that waits is epoll_wait(2), once per turn.
//!
//! Sockets are watched edge-triggered, so that nothing has to be said to the kernel between requests. Whether a socket
//! may have something to read is remembered in [`Slot::readable`]:
//! - an edge sets it;
//! - a receive that found nothing, or *less than it had room for*, clears it: recv(2) on a stream returns less only when
//!   the queue was empty, and whatever comes later, the end of the stream included, is a new edge (epoll(7), question 9);
//! - but once an edge has told of an end (EPOLLRDHUP, EPOLLHUP, EPOLLERR) it isn't cleared by a short receive, because the
//!   end itself is yet to be read and no edge will come for it.
//!
//! A peer that sends urgent data can make a receive return less than there is. It stalls its own connection until it
//! sends more or a deadline passes, and nobody else's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::socket::{self, Message};
use super::{Buffer, Driver, Event, Outgoing, Token, Waker};
use crate::limits::{ACCEPTS_PER_TURN_MAX, EVENTS_PER_TURN_MAX, SHARED_BUFFER_BYTES};

/// Readiness events taken in one epoll_wait.
const READINESS_MAX: usize = 256;
/// Bytes sent that count as one event of a turn.
const BYTES_PER_EVENT: usize = 16 * 1024;
/// The ends that a socket may have come to.
const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
/// What a socket is watched for from its first operation on.
const READING: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// And from the first time on that it had no room for a send.
const WRITING: u32 = READING | libc::EPOLLOUT as u32;
/// A listener is watched for this. Exclusive: of the processes that share it, one is woken for a connection. Kernel ≥ 4.5.
const LISTENING: u32 = (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32;

/// What a readiness event is about: the lowest byte of its data, under slot and generation.
mod subject {
    pub const SOCKET: u64 = 0;
    pub const LISTENER: u64 = 1;
    pub const WAKER: u64 = 2;
}

/// How a connection's socket is watched.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Watched {
    #[default]
    No,
    Reading,
    Writing,
}

/// One of the reactor's connections.
#[derive(Default)]
struct Slot {
    generation: u32,
    socket: RawFd,
    watched: Watched,
    receiving: bool,
    /// Paused: what is due is an `ECANCELED`, which is on its way.
    paused: bool,
    /// A receive may find something.
    readable: bool,
    /// An end has been seen.
    ended: bool,
    /// Stands in the queue of work to be received from.
    queued: bool,
    /// Waits for room in the socket.
    sending: Option<Box<Outgoing>>,
}

struct Listener {
    token: Token,
    socket: RawFd,
}

/// Work of this turn or the next, first come, first served: so nobody who always has something starves the others.
enum Work {
    /// To be handed out.
    Event(Event),
    /// A socket to receive from, once.
    Receive(Token),
    /// A socket that has room again.
    Send(Token),
    /// A listener to accept from, and at most so many times.
    Accept(Token, usize),
}

/// The epoll driver.
pub struct Epoll {
    epoll: OwnedFd,
    slots: Vec<Slot>,
    listeners: Vec<Listener>,
    work: VecDeque<Work>,
    /// What this turn may still do before epoll is asked again; see [`EVENTS_PER_TURN_MAX`].
    budget: usize,
    /// The last turn didn't ask epoll because there was work.
    skipped: bool,
    readiness: Vec<libc::epoll_event>,
    buffer: Box<[u8]>,
    /// Kept for the next vectored send.
    message: Option<Box<Message>>,
    in_flight: usize,
    /// Whether other processes accept from the same listeners.
    shared_listeners: bool,
    waker: Arc<Waker>,
}

fn data(token: Token, subject: u64) -> u64 {
    u64::from(token.slot) << 32 | u64::from(token.generation) << 8 | subject
}

fn token_of(data: u64) -> Token {
    Token { slot: (data >> 32) as u32, generation: (data >> 8) as u32 & ((1 << Token::GENERATION_BITS) - 1) }
}

#[expect(unsafe_code, reason = "the system floor: epoll(7) has no safe wrapper in libc")]
mod system {
    use super::*;

    pub fn create() -> io::Result<OwnedFd> {
        // SAFETY: takes no pointers; the result is checked before it is owned.
        unsafe {
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if epoll < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(epoll)) }
        }
    }

    pub fn control(epoll: &OwnedFd, operation: i32, descriptor: RawFd, events: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: data };
        // SAFETY: `event` is valid for the duration of the call, which only reads it.
        let status = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, descriptor, &mut event) };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Fills `readiness`, whose capacity is [`READINESS_MAX`]. A signal is no event.
    pub fn wait(epoll: &OwnedFd, readiness: &mut Vec<libc::epoll_event>, timeout_ms: i32) -> io::Result<()> {
        readiness.clear();
        // SAFETY: there is room for READINESS_MAX events, and the kernel says how many of them it has written.
        unsafe {
            let count = libc::epoll_wait(
                epoll.as_raw_fd(),
                readiness.as_mut_ptr(),
                readiness.capacity().min(READINESS_MAX) as i32,
                timeout_ms,
            );
            if count >= 0 {
                readiness.set_len(count as usize);
                return Ok(());
            }
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
    }
}

impl Epoll {
    /// An epoll driver; usable on any thread.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(waker: Arc<Waker>) -> io::Result<Self> {
        let epoll = system::create()?;
        // Edge-triggered: every write is an edge, so the counter need not be read.
        let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
        system::control(&epoll, libc::EPOLL_CTL_ADD, waker.as_raw_fd(), events, subject::WAKER)?;
        Ok(Self {
            epoll,
            slots: Vec::new(),
            listeners: Vec::new(),
            work: VecDeque::new(),
            budget: 0,
            skipped: false,
            readiness: Vec::with_capacity(READINESS_MAX),
            buffer: vec![0; SHARED_BUFFER_BYTES].into_boxed_slice(),
            message: None,
            in_flight: 0,
            shared_listeners: false,
            waker,
        })
    }

    /// Whether other processes accept from the same listeners: then connections are accepted one by one, and whoever has accepted goes to
    /// the end of the socket's queue of waiters. Otherwise the first one there would be woken for each connection.
    #[must_use]
    pub fn with_shared_listeners(mut self, shared: bool) -> Self {
        self.shared_listeners = shared;
        self
    }

    /// The slot of a token; a slot's new generation starts afresh.
    fn slot(&mut self, token: Token, socket: RawFd) -> &mut Slot {
        let index = token.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        if slot.generation != token.generation || slot.socket != socket {
            *slot = Slot { generation: token.generation, socket, ..Slot::default() };
        }
        slot
    }

    /// The slot of an event, if its connection still has it.
    fn slot_of(&mut self, token: Token) -> Option<&mut Slot> {
        self.slots.get_mut(token.slot as usize).filter(|slot| slot.generation == token.generation)
    }

    /// Watches a socket. Closing a socket ends that by itself; one that is known already (a descriptor that another
    /// connection of the same socket had) is told anew.
    fn watch(&mut self, token: Token, socket: RawFd, how: Watched) -> io::Result<()> {
        let (events, data) = (if how == Watched::Writing { WRITING } else { READING }, data(token, subject::SOCKET));
        let slot = self.slot(token, socket);
        let known = slot.watched != Watched::No;
        if slot.watched == how || slot.watched == Watched::Writing {
            return Ok(());
        }
        let operation = if known { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD };
        match system::control(&self.epoll, operation, socket, events, data) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                system::control(&self.epoll, libc::EPOLL_CTL_MOD, socket, events, data)?;
            }
            result => result?,
        }
        self.slot(token, socket).watched = how;
        Ok(())
    }

    fn queue_receive(&mut self, token: Token) {
        if let Some(slot) = self.slot_of(token) {
            if slot.receiving && !slot.paused && slot.readable && !std::mem::replace(&mut slot.queued, true) {
                self.work.push_back(Work::Receive(token));
            }
        }
    }

    fn queue_received(&mut self, token: Token, error: io::Error) {
        self.work.push_back(Work::Event(Event::Received { token, result: Err(error), armed: false }));
    }

    /// Tries a send; if the socket has no room it waits in its slot for an edge.
    fn try_send(&mut self, socket: RawFd, token: Token, outgoing: Box<Outgoing>) -> Option<Event> {
        let result = match socket::send(socket, &outgoing, &mut self.message) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Watched only after the refusal: adding or changing an interest reports what is ready at that moment,
                // so room that came in between is an edge too.
                match self.watch(token, socket, Watched::Writing) {
                    Ok(()) => {
                        self.slot(token, socket).sending = Some(outgoing);
                        return None;
                    }
                    Err(error) => Err(error),
                }
            }
            result => result,
        };
        let sent = *result.as_ref().unwrap_or(&0);
        self.budget = self.budget.saturating_sub(sent / BYTES_PER_EVENT);
        Some(Event::Sent { token, outgoing, result })
    }

    fn dispatch(&mut self, events: u32, data: u64) {
        let token = token_of(data);
        match data & 0xff {
            subject::WAKER => self.work.push_back(Work::Event(Event::Woken)),
            subject::LISTENER => self.work.push_back(Work::Accept(token, ACCEPTS_PER_TURN_MAX)),
            _ => {
                let Some(slot) = self.slot_of(token) else { return };
                slot.ended |= events & ENDED != 0;
                slot.readable |= events & (libc::EPOLLIN as u32 | ENDED) != 0;
                if slot.sending.is_some() && events & (libc::EPOLLOUT as u32 | ENDED) != 0 {
                    self.work.push_back(Work::Send(token));
                }
                self.queue_receive(token);
            }
        }
    }

    fn receive_once(&mut self, token: Token) -> Option<Event> {
        let slot = self.slots.get_mut(token.slot as usize).filter(|slot| slot.generation == token.generation)?;
        slot.queued = false;
        if !slot.receiving || slot.paused {
            return None;
        }
        match socket::receive(slot.socket, &mut self.buffer) {
            Ok(length) => {
                slot.readable = slot.ended || length == self.buffer.len();
                let armed = length > 0;
                if armed {
                    self.queue_receive(token);
                }
                Some(Event::Received { token, result: Ok(Buffer { id: 0, length: length as u32 }), armed })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.readable = false;
                None
            }
            Err(error) => Some(Event::Received { token, result: Err(error), armed: false }),
        }
    }

    fn accept_once(&mut self, token: Token, left: usize) -> Option<Event> {
        let index = self.listeners.iter().position(|listener| listener.token == token)?;
        let socket = self.listeners[index].socket;
        match socket::accept(socket) {
            Ok(connection) => {
                if self.shared_listeners {
                    let (data, events) = (data(token, subject::LISTENER), LISTENING);
                    // A failure leaves the listener out of the set, as at the start: it is told, and armed again.
                    let again = system::control(&self.epoll, libc::EPOLL_CTL_DEL, socket, 0, 0)
                        .and_then(|()| system::control(&self.epoll, libc::EPOLL_CTL_ADD, socket, events, data));
                    if let Err(error) = again {
                        self.listeners.swap_remove(index);
                        self.work.push_back(Work::Event(Event::AcceptEnded { listener: token, error }));
                    }
                } else if left > 1 {
                    self.work.push_back(Work::Accept(token, left - 1));
                }
                Some(Event::Accepted { listener: token, socket: connection })
            }
            // Level-triggered: what is left is reported again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if error.raw_os_error().is_some_and(socket::concerns_one_connection) => None,
            Err(error) => {
                self.forget_listener(index);
                Some(Event::AcceptEnded { listener: token, error })
            }
        }
    }

    fn forget_listener(&mut self, index: usize) {
        let listener = self.listeners.swap_remove(index);
        // It can only fail for a listener that was closed already, which is forgotten all the same.
        let _ = system::control(&self.epoll, libc::EPOLL_CTL_DEL, listener.socket, 0, 0);
    }

    fn perform(&mut self, work: Work) -> Option<Event> {
        match work {
            Work::Event(event) => Some(event),
            Work::Receive(token) => self.receive_once(token),
            Work::Accept(token, left) => self.accept_once(token, left),
            Work::Send(token) => {
                let slot = self.slot_of(token)?;
                let (socket, outgoing) = (slot.socket, slot.sending.take()?);
                self.try_send(socket, token, outgoing)
            }
        }
    }

    /// Marks an operation as ended that is being handed out as such.
    fn account(&mut self, event: &Event) {
        match event {
            Event::Received { armed: true, .. } | Event::Accepted { .. } | Event::Woken => return,
            Event::Received { token, .. } => {
                if let Some(slot) = self.slot_of(*token) {
                    (slot.receiving, slot.paused) = (false, false);
                }
            }
            Event::Sent { .. } | Event::AcceptEnded { .. } => {}
        }
        self.in_flight -= 1;
    }
}

impl Driver for Epoll {
    const NAME: &'static str = "epoll";

    fn accept(&mut self, listener: RawFd, token: Token) {
        debug_assert!(self.listeners.iter().all(|known| known.token != token), "accepting already");
        self.in_flight += 1;
        let data = data(token, subject::LISTENER);
        match system::control(&self.epoll, libc::EPOLL_CTL_ADD, listener, LISTENING, data) {
            Ok(()) => self.listeners.push(Listener { token, socket: listener }),
            Err(error) => self.work.push_back(Work::Event(Event::AcceptEnded { listener: token, error })),
        }
    }

    fn cancel_accept(&mut self, _listener: RawFd, token: Token) {
        let Some(index) = self.listeners.iter().position(|listener| listener.token == token) else { return };
        self.forget_listener(index);
        self.work.push_back(Work::Event(Event::AcceptEnded { listener: token, error: socket::cancelled() }));
    }

    fn receive(&mut self, socket: RawFd, token: Token) {
        self.in_flight += 1;
        let watched = self.watch(token, socket, Watched::Reading);
        let slot = self.slot(token, socket);
        debug_assert!(!slot.receiving, "receiving already");
        slot.receiving = true;
        match watched {
            Ok(()) => self.queue_receive(token),
            Err(error) => {
                slot.paused = true;
                self.queue_received(token, error);
            }
        }
    }

    fn pause(&mut self, _socket: RawFd, token: Token) {
        let Some(slot) = self.slot_of(token) else { return };
        if slot.receiving && !slot.paused {
            slot.paused = true;
            self.queue_received(token, socket::cancelled());
        }
    }

    fn send(&mut self, socket: RawFd, token: Token, outgoing: Box<Outgoing>) {
        debug_assert!(!outgoing.is_empty(), "something to send");
        debug_assert!(self.slot(token, socket).sending.is_none(), "one send at a time");
        self.in_flight += 1;
        if let Some(event) = self.try_send(socket, token, outgoing) {
            self.work.push_back(Work::Event(event));
        }
    }

    /// Asks epoll, unless there is work and it was asked in the turn before: what is at hand is handed out first, which
    /// saves a call that would not have waited.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.budget = EVENTS_PER_TURN_MAX;
        self.skipped = !self.work.is_empty() && !self.skipped;
        if self.skipped {
            return Ok(());
        }
        let timeout = if self.work.is_empty() { milliseconds(timeout) } else { 0 };
        system::wait(&self.epoll, &mut self.readiness, timeout)?;
        for index in 0..self.readiness.len() {
            let event = self.readiness[index];
            self.dispatch(event.events, event.u64);
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event> {
        while self.budget > 0 {
            let work = self.work.pop_front()?;
            self.budget -= 1;
            if let Some(event) = self.perform(work) {
                self.account(&event);
                return Some(event);
            }
        }
        None
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        &self.buffer[..buffer.length as usize]
    }

    fn release(&mut self, _buffer: Buffer) {}

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

/// A time-out as epoll_wait wants it, rounded up so that a deadline is never met early; -1 is for ever.
fn milliseconds(timeout: Option<Duration>) -> i32 {
    timeout.map_or(-1, |timeout| i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_rounded_up() {
        let check = |timeout, expected| assert_eq!(milliseconds(timeout), expected, "{timeout:?}");
        check(None, -1);
        check(Some(Duration::ZERO), 0);
        check(Some(Duration::from_nanos(1)), 1);
        check(Some(Duration::from_millis(5)), 5);
        check(Some(Duration::MAX), i32::MAX);
    }
}
