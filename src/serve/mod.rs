//! One request, room by room. This file is the corridor: it owns a reactor's connections, turns what the driver
//! reports into calls of the rooms, and knows all of them; they don't know each other.
//!
//! A [`Reactor`] is a plain struct: [`Reactor::turn`] submits what is due, waits once, handles every event, returns.
//! It never takes the GIL and never waits for anything but its driver.

mod blocking;
pub mod bus;
pub mod caching;
pub mod conn;
mod connections;
pub mod disk;
pub mod exchange;
mod files;
pub mod http1;
pub mod local;
pub mod notify;
pub mod park;
mod parking;
pub mod queue;
mod requests;
mod responses;
pub mod wsgi;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slab::Slab;

use crate::config::Network;
use crate::limits;
use crate::observe::status::Figures;
use crate::observe::{access_log::LocalTime, writer};
use crate::reactor::clock::{self, CpuClock, Instant};
use crate::reactor::slice::Slice;
use crate::reactor::timers::Wheel;
use crate::reactor::{Driver, Event, Outgoing, Token};
pub use blocking::Blocking;
use conn::{Connection, Settings};
use disk::Disk;
use exchange::{Exchanges, Mailbox, Message, Withdrawal};
use http1::encode::DateText;
use local::cache::Cache;
use notify::Notifier;
use parking::Parking;
use wsgi::Pool;

/// What all reactors of a process share.
pub struct Shared {
    /// Limits and time-outs of connections.
    pub settings: Settings,
    /// Static files; `None`: none are served.
    pub files: Option<Arc<local::files::Settings>>,
    /// The Python workers.
    pub pool: Arc<Pool>,
    /// What wakes parked requests.
    pub notifier: Arc<Notifier>,
    /// The thread that waits for disks.
    pub disk: Disk,
    /// Number of this process, from 1, for the log.
    pub process: u32,
    /// Whether other processes accept from the same listeners.
    pub siblings: bool,
    /// Whose word about the client's address is taken.
    pub trusted_proxies: Vec<Network>,
    /// The response cache; `None` when it is off.
    pub cache: Option<Arc<Cache>>,
    /// Clients that the application has blocked.
    pub blocking: Blocking,
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
    /// Its workers are stalled, and other processes accept from the same listener: the driver was told to accept no more.
    Yielding,
    /// And it doesn't any more; then it is seen to that nobody is left waiting.
    Aside(Instant),
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
    /// Whether other processes see to what the kernel has queued.
    leaves_queue: bool,
    /// Let go of once nothing is accepted any more.
    withdrawal: Option<Arc<Withdrawal>>,
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
    caching: caching::Caching,
    held: blocking::Held,
    parking: Parking,
    /// Emptied queues, for reuse; at most as many as there are connections that send.
    #[expect(clippy::vec_box, reason = "they travel in their boxes: to the driver, and in replies")]
    outgoings: Vec<Box<Outgoing>>,
    /// What was found of static files.
    files: files::Files,
    date: DateText,
    log: Option<writer::Handle>,
    log_time: LocalTime,
    /// When the gathered log lines are to be handed over.
    log_due: Option<Instant>,
    /// Whether this turn has given the pool something.
    submitted: bool,
    /// Whether nothing happened in this turn but whole requests and whole answers of workers: then nobody else is kept waiting by a rest.
    only_workers_traffic: bool,
    /// Since when requests wait without one being taken, and when one was, before that.
    waiting: Option<(Instant, Instant)>,
    /// Panics that were caught.
    bugs: u64,
    /// What it counts; published once per turn.
    figures: Figures,
    /// The lines of the access log: User-Agent and status.
    #[cfg(test)]
    logged: Vec<(String, u16)>,
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
            leaves_queue: false,
            withdrawal: None,
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
            caching: caching::Caching::default(),
            held: blocking::Held::default(),
            parking: Parking::default(),
            outgoings: Vec::new(),
            files: files::Files::default(),
            date: DateText::default(),
            log,
            log_time: LocalTime::new(),
            log_due: None,
            submitted: false,
            only_workers_traffic: false,
            waiting: None,
            bugs: 0,
            figures: Figures::default(),
            #[cfg(test)]
            logged: Vec::new(),
        };
        reactor.accept_again();
        reactor
    }

    /// Turns until the reactor was told to end and has ended.
    ///
    /// # Errors
    /// When the driver's own system call fails: the reactor can't go on.
    pub fn run(mut self) -> io::Result<()> {
        let status = self.shared.pool.status().reactors.get(usize::from(self.index));
        if let (Some(status), Some(clock)) = (status, CpuClock::of_this_thread()) {
            status.set_clock(clock);
        }
        // Beside a thread that computes it deals at once with what comes, in a turn that takes less time than such a slice.
        Slice::of_this_thread().set_short(true);
        let result = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Some(status) = self.shared.pool.status().reactors.get(usize::from(self.index)) {
            status.set_ended();
        }
        result
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
        let time = if self.only_workers_traffic { self.shared.pool.gathering(self.now) } else { Duration::ZERO };
        if time.is_zero() {
            return Ok(false);
        }
        // What is due is submitted now: the answers at least are on their way.
        self.driver.turn(Some(Duration::ZERO))?;
        let (pool, now) = (&self.shared.pool, self.now);
        self.mailbox.waker.rest(time, || !pool.gathering(now).is_zero());
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
        self.feed_woken();
        self.accept_again();
        self.yield_listeners();
        self.wake_pool();
        if self.has_ended() {
            self.log_those_who_wait();
        }
        self.flush_log();
        self.publish();
    }

    /// Lets others see what it has counted.
    fn publish(&mut self) {
        self.figures.turns += 1;
        self.figures.connections = self.connections.len() as u64;
        if let Some(status) = self.shared.pool.status().reactors.get(usize::from(self.index)) {
            status.publish(&self.figures);
        }
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
            Accepting::Backoff(until) | Accepting::Aside(until) => Some(until),
            Accepting::Armed | Accepting::Yielding | Accepting::Ended => None,
        });
        let next = self.timers.next().into_iter().chain(retry).chain(self.log_due).min().map(|at| at.since(self.now));
        let stall = self.shared.pool.check(self.now);
        next.into_iter().chain(stall).chain(self.crowded()).min()
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
            Message::Found => self.found(),
            Message::Landed(flight, landing) => self.landed(flight, landing),
            Message::Begun(flight) => self.begun(flight),
            Message::Notice(notice) => self.noticed(&notice),
            Message::Drain => self.drain(),
            Message::Withdraw(withdrawal) => {
                self.leaves_queue = true;
                self.withdrawal = Some(withdrawal);
                self.drain();
                self.let_withdrawal_go();
            }
            Message::Stop => self.stop(),
            Message::Answer(answered) => answered.store(true, Ordering::Relaxed),
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
