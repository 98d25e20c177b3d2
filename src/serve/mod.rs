//! One request, room by room. This file is the corridor: it owns a reactor's connections, turns what the driver
//! reports into calls of the rooms, and knows all of them; they don't know each other.
//!
//! A [`Reactor`] is a plain struct: [`Reactor::turn`] submits what is due, waits once, handles every event, returns.
//! It never takes the GIL and never waits for anything but its driver.

pub mod conn;
mod connections;
pub mod disk;
pub mod exchange;
pub mod http1;
mod requests;
mod responses;
pub mod wsgi;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::config::Network;
use crate::observe::{access_log::LocalTime, writer};
use crate::reactor::clock::{self, Instant};
use crate::reactor::timers::Wheel;
use crate::reactor::{Driver, Event, Outgoing, Token};
use conn::{Connection, Settings};
use disk::Disk;
use exchange::{Exchanges, Mailbox, Message};
use http1::encode::DateText;
use wsgi::Pool;

/// What all reactors of a process share.
pub struct Shared {
    /// Limits and time-outs of connections.
    pub settings: Settings,
    /// The Python workers.
    pub pool: Arc<Pool>,
    /// The thread that waits for disks.
    pub disk: Disk,
    /// Number of this process, from 1, for the log.
    pub process: u32,
    /// Whose word about the client's address is taken.
    pub trusted_proxies: Vec<Network>,
}

/// A listening socket as one reactor sees it.
struct Listener {
    /// A duplicate of the descriptor that the process keeps; `None` once [`Accepting::Ended`], so that the kernel refuses
    /// connections as soon as all have let go.
    socket: Option<OwnedFd>,
    /// Index among the process's listeners.
    index: u16,
    state: Accepting,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepting {
    /// The driver accepts.
    Armed,
    /// The process ran out of something; again then.
    Backoff(Instant),
    /// Draining: nothing is accepted any more.
    Ended,
}

/// Whether a reactor is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Serving,
    /// No new connections; those there are finish what they have.
    Draining,
    /// Everything is closed.
    Stopping,
}

/// One reactor: its connections, timers, mailbox, log buffer and driver.
pub struct Reactor<D: Driver> {
    index: u16,
    driver: D,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    now: Instant,
    course: Course,
    listeners: Vec<Listener>,
    connections: Slab<Connection>,
    /// How often each slot has been given away, modulo 2²⁴; as long as the slab has ever been.
    generations: Vec<u32>,
    timers: Wheel,
    /// Scratch: timers that are due.
    due: Vec<Token>,
    /// Connections with pipelined bytes to look at.
    ready: VecDeque<Token>,
    exchanges: Exchanges,
    /// Emptied queues, for reuse; at most as many as there are connections that send.
    #[expect(clippy::vec_box, reason = "they travel in their boxes: to the driver, and in replies")]
    outgoings: Vec<Box<Outgoing>>,
    date: DateText,
    log: Option<writer::Handle>,
    log_time: LocalTime,
    /// When the gathered log lines are to be handed over.
    log_due: Option<Instant>,
    /// Whether this turn has given the pool something.
    submitted: bool,
    /// Whether nothing happened in this turn but whole requests and whole answers of workers: then nobody else is kept waiting by a rest.
    only_workers_traffic: bool,
    /// Panics that were caught.
    bugs: u64,
}

impl<D: Driver> Reactor<D> {
    /// A reactor that will accept on `listeners` (socket and index of each). `log`: where its access-log lines go.
    pub fn new(
        index: u16,
        driver: D,
        shared: Arc<Shared>,
        mailbox: Arc<Mailbox>,
        listeners: Vec<(OwnedFd, u16)>,
        log: Option<writer::Handle>,
    ) -> Self {
        let now = clock::now();
        let mut reactor = Self {
            index,
            driver,
            shared,
            mailbox,
            now,
            course: Course::Serving,
            listeners: listeners
                .into_iter()
                .map(|(socket, index)| Listener { socket: Some(socket), index, state: Accepting::Backoff(now) })
                .collect(),
            connections: Slab::new(),
            generations: Vec::new(),
            timers: Wheel::new(now),
            due: Vec::new(),
            ready: VecDeque::new(),
            exchanges: Exchanges::default(),
            outgoings: Vec::new(),
            date: DateText::default(),
            log,
            log_time: LocalTime::new(),
            log_due: None,
            submitted: false,
            only_workers_traffic: false,
            bugs: 0,
        };
        reactor.accept_again();
        reactor
    }

    /// Turns until the reactor was told to end and has ended.
    ///
    /// # Errors
    /// When the driver's own system call fails: the reactor can't go on.
    pub fn run(mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// One turn: submits what is due, waits once, handles everything that has happened. False when the reactor has ended.
    ///
    /// # Errors
    /// When the driver's own system call fails.
    pub fn turn(&mut self) -> io::Result<bool> {
        let rested = self.rest()?;
        self.mailbox.waker.prepare_sleep();
        let idle = !rested && self.mailbox.queue.is_empty() && self.ready.is_empty();
        let timeout = if idle { self.sleep() } else { Some(Duration::ZERO) };
        self.driver.turn(timeout)?;
        self.mailbox.waker.awake();
        self.work(clock::now());
        Ok(!self.has_ended())
    }

    /// Leaves lying what comes while the workers are behind and nothing but their requests and answers went through the last turn.
    /// True if it did.
    fn rest(&mut self) -> io::Result<bool> {
        let time = if self.only_workers_traffic { self.shared.pool.gathering() } else { Duration::ZERO };
        if time.is_zero() {
            return Ok(false);
        }
        // What is due is submitted now: the answers at least are on their way.
        self.driver.turn(Some(Duration::ZERO))?;
        let pool = &self.shared.pool;
        self.mailbox.waker.rest(time, || !pool.gathering().is_zero());
        // Whoever runs may wait for something instead of computing: the stall watch goes on.
        pool.check(clock::now());
        Ok(true)
    }

    /// Handles everything that has happened up to `now`.
    fn work(&mut self, now: Instant) {
        self.now = now;
        self.only_workers_traffic = self.course == Course::Serving;
        while let Some(event) = self.driver.next_event() {
            self.guarded(event.connection(), |reactor| reactor.handle(event));
        }
        self.feed_ready();
        self.wake_pool();
        self.read_mailbox();
        self.expire_timers();
        self.accept_again();
        self.wake_pool();
        self.flush_log();
    }

    /// Hands the gathered log lines over when they are many, have waited for company, or are the last.
    fn flush_log(&mut self) {
        let due = self.log_due.is_some_and(|due| due <= self.now) || self.has_ended();
        let Some(log) = &mut self.log else { return };
        if due {
            log.flush();
            self.log_due = None;
        } else {
            log.flush_if_full();
        }
    }

    /// How long to sleep at most; `None` when only an event can bring something to do.
    fn sleep(&mut self) -> Option<Duration> {
        let retry = self.listeners.iter().filter_map(|listener| match listener.state {
            Accepting::Backoff(until) => Some(until),
            Accepting::Armed | Accepting::Ended => None,
        });
        let next = self.timers.next().into_iter().chain(retry).chain(self.log_due).min().map(|at| at.since(self.now));
        let stall = self.shared.pool.check(self.now);
        next.into_iter().chain(stall).min()
    }

    /// Does what one event, message or timer asks for. A panic in there is a bug of ours: it costs the connection it happened on, not
    /// the reactor.
    fn guarded(&mut self, token: Option<Token>, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.bugs += 1;
            tracing::error!(
                "a bug in hoopsnake was hit (see the panic above): number {} of reactor {}; one connection is closed",
                self.bugs,
                self.index + 1
            );
            if let Some(token) = token {
                self.close(token);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted { listener, socket } => self.accepted(listener, socket),
            Event::AcceptEnded { listener, error } => self.accept_ended(listener, &error),
            Event::Received { token, result, armed } => self.received(token, result, armed),
            Event::Sent { token, outgoing, result } => self.sent(token, outgoing, result),
            Event::Woken => {}
        }
    }

    fn read_mailbox(&mut self) {
        while let Some(message) = self.mailbox.queue.pop() {
            self.guarded(message.connection(), |reactor| reactor.read(message));
        }
    }

    fn read(&mut self, message: Message) {
        match message {
            Message::Reply(exchange) => self.reply(exchange),
            Message::Stream(token) => self.stream(token),
            Message::Spooled { token, result, buffer } => self.spooled(token, result, buffer),
            Message::Warmed(token) => self.warmed(token),
            Message::Drain => self.drain(),
            Message::Stop => self.stop(),
        }
    }

    /// Wakes a worker, once for everything that was submitted.
    fn wake_pool(&mut self) {
        if std::mem::take(&mut self.submitted) {
            self.shared.pool.wake(self.now);
        }
    }
}

#[cfg(test)]
mod tests;
