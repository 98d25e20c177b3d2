//! The workers of a process, the queue they take requests from, and the way back to the reactors.
//!
//! Reactors submit, wake and watch; workers take, run, answer and rest. Who is woken is decided in [`super::baton`]; what a
//! request does is in [`super::call`]. Nothing here runs Python code.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use crossbeam::sync::{Parker, Unparker};
use pyo3::prelude::*;

use super::baton::{Baton, Watch};
use super::call::Worker;
use super::release::Releases;
use super::response::Output;
use crate::config::Network;
use crate::limits;
use crate::reactor::clock::{self, Instant};
use crate::serve::exchange::{End, Exchange, Link, Mailbox, Message};

/// Answers a worker gathers before it wakes a reactor.
const REPLIES_UNFLUSHED_MAX: u32 = 16;
/// How long a worker that goes on taking requests may keep an answer to itself.
const REPLY_UNFLUSHED_MAX: Duration = Duration::from_micros(100);

/// What applications are told of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// `SERVER_NAME`: never empty.
    pub server_name: String,
    /// `SERVER_PORT`: never empty.
    pub server_port: String,
    /// `wsgi.url_scheme` unless a trusted proxy says otherwise.
    pub scheme: &'static str,
    /// A Unix socket: its peers have no address, and are trusted as proxies when any proxy is.
    pub unix: bool,
}

impl ListenerInfo {
    /// A TCP listener by the address it is bound to.
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            server_name: address.ip().to_string(),
            server_port: address.port().to_string(),
            scheme: "http",
            unix: false,
        }
    }

    /// A Unix socket. It has neither name nor port; PEP 3333 wants both.
    pub fn unix() -> Self {
        Self { server_name: "localhost".into(), server_port: "80".into(), scheme: "http", unix: true }
    }
}

/// What a pool is made from.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Worker threads: 1 to [`limits::WORKERS_MAX`].
    pub workers: usize,
    /// After it the reactor answers 504; a handler that went on longer is logged when it ends.
    pub request_timeout: Duration,
    /// Whether `Reply::cpu` is wanted (two system calls for each request).
    pub measure_cpu: bool,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// By `Exchange::listener`.
    pub listeners: Vec<ListenerInfo>,
    /// Peers whose `X-Forwarded-Proto` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Lets fields with underscores in their names through.
    pub header_underscores: bool,
    /// `hoopsnake.reactor`: the name of the driver in use.
    pub driver: &'static str,
}

/// The workers as seen from other threads: who rests, and how to wake them.
pub(super) struct Crew {
    baton: Baton,
    unparkers: Vec<Unparker>,
}

impl Crew {
    /// Wakes a worker if none is running or on its way.
    pub(super) fn wake_if_nobody_runs(&self) {
        self.unpark(self.baton.tick(clock::now()));
    }

    fn unpark(&self, worker: Option<u32>) {
        if let Some(worker) = worker {
            self.unparkers[worker as usize].unpark();
        }
    }
}

/// Where a worker waits for room in a streaming response. Apart from its parker: an application may call `write()` on a
/// thread of its own.
#[derive(Default)]
struct Gate {
    inside: Mutex<()>,
    opened: Condvar,
}

/// Which reactors have answers that they may not have noticed.
pub(super) struct Outbox {
    dirty: [AtomicU64; limits::REACTORS_MAX.div_ceil(64)],
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { dirty: [const { AtomicU64::new(0) }; _] }
    }

    fn mark(&self, reactor: u16) {
        self.dirty[usize::from(reactor) / 64].fetch_or(1 << (reactor % 64), Ordering::Relaxed);
    }
}

/// The pool of one process.
pub struct Pool {
    pub(super) settings: PoolSettings,
    pub(super) releases: Arc<Releases>,
    mailboxes: Vec<Arc<Mailbox>>,
    queue: ArrayQueue<Box<Exchange>>,
    crew: Arc<Crew>,
    /// Taken by each worker when it starts.
    parkers: Mutex<Vec<Option<Parker>>>,
    gates: Vec<Gate>,
    /// Workers that have answers a reactor may not have noticed.
    unflushed: AtomicU32,
    draining: AtomicBool,
    closing: AtomicBool,
}

impl Pool {
    /// A pool without threads: each of its workers is a Python thread that calls [`Pool::run_worker`].
    pub fn new(settings: PoolSettings, mailboxes: Vec<Arc<Mailbox>>) -> Arc<Pool> {
        debug_assert!((1..=limits::WORKERS_MAX).contains(&settings.workers), "the configuration was checked");
        let parkers: Vec<Parker> = (0..settings.workers).map(|_| Parker::new()).collect();
        let unparkers = parkers.iter().map(|parker| parker.unparker().clone()).collect();
        let crew = Arc::new(Crew { baton: Baton::new(settings.workers), unparkers });
        Arc::new(Pool {
            releases: Arc::new(Releases::new(Arc::clone(&crew))),
            mailboxes,
            queue: ArrayQueue::new(limits::QUEUE_REQUESTS_MAX),
            crew,
            parkers: Mutex::new(parkers.into_iter().map(Some).collect()),
            gates: (0..settings.workers).map(|_| Gate::default()).collect(),
            unflushed: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            settings,
        })
    }

    /// Reactor: puts a request into the queue. Follow with [`Pool::wake`], once per turn.
    ///
    /// # Errors
    /// The request, when [`limits::QUEUE_REQUESTS_MAX`] wait already.
    pub fn submit(&self, exchange: Box<Exchange>) -> Result<(), Box<Exchange>> {
        self.queue.push(exchange)
    }

    /// A test's worker: the next request.
    #[cfg(test)]
    pub fn take(&self) -> Option<Box<Exchange>> {
        self.queue.pop()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Reactor: after a turn's submits. Wakes a worker if none is at it.
    pub fn wake(&self, now: Instant) {
        if self.has_work() {
            self.crew.unpark(self.crew.baton.tick(now));
        }
    }

    /// Reactor: the stall watch, once per turn. The time after which it must be called again; `None`: nothing waits.
    pub fn check(&self, now: Instant) -> Option<Duration> {
        if !self.queue.is_empty() {
            return Some(match self.crew.baton.stall(now) {
                Watch::Look(after) => after,
                Watch::Wake(worker) => {
                    self.crew.unpark(Some(worker));
                    Duration::from_micros(limits::STALL_US)
                }
            });
        }
        // Answers lie in a mailbox while their worker runs the next request: if that takes long, nobody tells the reactor.
        (self.unflushed.load(Ordering::Acquire) > 0).then_some(Duration::from_micros(limits::STALL_US))
    }

    /// Reactor: how long it may rest before it deals with what comes, zero for not at all; see [`Baton::gathering`].
    pub fn gathering(&self) -> Duration {
        self.crew.baton.gathering(self.queue.len())
    }

    /// Reactor: a worker that waits for room in a streaming response has it, or waits in vain (see `Link`).
    pub fn unpark(&self, worker: u32) {
        if let Some(gate) = self.gates.get(worker as usize) {
            // Whoever is between its last look and its wait is inside.
            drop(lock(&gate.inside));
            gate.opened.notify_all();
        }
    }

    /// From now on responses carry `Connection: close`.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Pool::set_draining`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Workers leave once the queue is empty.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        for unparker in &self.crew.unparkers {
            unparker.unpark();
        }
    }

    /// Whether Python objects wait to be let go of.
    pub fn release_pending(&self) -> bool {
        self.releases.is_pending()
    }

    /// Lets go of Python objects that reactors are done with: for the time after the workers have left.
    pub fn release_now(&self, py: Python<'_>) {
        self.releases.drain(py);
    }

    /// One worker, on a Python thread of its own (a `threading.Thread`, so that `threading.local` and the like survive from
    /// request to request). Returns after [`Pool::close`].
    ///
    /// # Errors
    /// When Python has no memory for what a worker keeps.
    ///
    /// # Panics
    /// If the same `index` is given twice, or one past the number of workers.
    pub fn run_worker(self: &Arc<Self>, py: Python<'_>, application: Py<PyAny>, index: u32) -> PyResult<()> {
        let mut parker = lock(&self.parkers)[index as usize].take().expect("each worker is started once");
        let mut worker = Worker::new(py, Arc::clone(self), application, index)?;
        let mut contender = false;
        loop {
            self.serve(py, &mut worker, contender);
            // A parker is no `Sync`: it goes in and comes back.
            let rested;
            (rested, parker) = py.detach(move || (self.rest(index, &parker), parker));
            match rested {
                Rested::Chosen => contender = true,
                Rested::Closed if self.queue.is_empty() => break,
                Rested::Closed => contender = false,
            }
        }
        self.releases.drain(py);
        Ok(())
    }

    /// Attached: runs the queue dry.
    fn serve(&self, py: Python<'_>, worker: &mut Worker, contender: bool) {
        let mut next = self.queue.pop();
        let found = next.is_some();
        if found {
            self.crew.baton.start();
        }
        if contender {
            self.crew.baton.arrived(clock::now(), found);
        }
        let mut gathered = Gathered::default();
        loop {
            while let Some(exchange) = next {
                let now = clock::now();
                gathered.before_call(self, worker, now);
                let woken = self.crew.baton.popped(now, now.since(exchange.queued), !self.queue.is_empty());
                self.crew.unpark(woken);
                self.run_one(py, worker, exchange, now, &mut gathered);
                if self.crew.baton.retires() {
                    gathered.flush(self, &worker.outbox);
                    return;
                }
                next = self.queue.pop();
            }
            gathered.flush(self, &worker.outbox);
            // Nothing is left to do: a reactor that rests may have something.
            self.mailboxes.iter().for_each(|mailbox| mailbox.waker.hurry());
            if self.releases.is_pending() {
                self.releases.drain(py);
            }
            next = self.queue.pop();
            if next.is_none() {
                break;
            }
        }
        if found {
            self.crew.baton.stop();
        }
    }

    fn run_one(
        &self,
        py: Python<'_>,
        worker: &mut Worker,
        mut exchange: Box<Exchange>,
        now: Instant,
        gathered: &mut Gathered,
    ) {
        if exchange.link.is_cancelled() || now > exchange.deadline {
            // The client is gone, or has been told 504: only the reactor's books are to be kept.
            exchange.reply.end = End::Abort;
            exchange.reply.status = 0;
            exchange.reply.outgoing.clear();
            self.post(&worker.outbox, Output::Reply(exchange));
            gathered.add(self, now);
            return;
        }
        // The time of running is limited apart from the time in the queue.
        exchange.link.start(now);
        exchange.deadline = now + self.settings.request_timeout;
        let link = Arc::clone(&exchange.link);
        if catch_unwind(AssertUnwindSafe(|| worker.run(py, exchange))).is_err() {
            tracing::error!("a worker panicked while it ran a request: its connection is closed, the worker goes on");
            worker.abandon(py);
        }
        gathered.add(self, now);
        if link.is_cancelled() {
            let took = clock::now().since(now);
            if took > self.settings.request_timeout {
                tracing::warn!("a request ran {:.1} s; its client was answered 504 before that", took.as_secs_f64());
            }
        }
    }

    /// Puts a finished answer into its reactor's mailbox, for the next [`Pool::flush`].
    pub(super) fn post(&self, outbox: &Outbox, output: Output) {
        let (reactor, message) = match output {
            Output::Nothing => return,
            Output::Reply(exchange) => (exchange.reactor, Message::Reply(exchange)),
            Output::Stream(reactor, token) => (reactor, Message::Stream(token)),
        };
        self.mailboxes[usize::from(reactor)].post(message);
        outbox.mark(reactor);
    }

    /// Wakes the reactors that have answers.
    pub(super) fn flush(&self, outbox: &Outbox) {
        for (index, word) in outbox.dirty.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                self.mailboxes[index * 64 + bits.trailing_zeros() as usize].wake();
                bits &= bits - 1;
            }
        }
    }

    /// Waits, without the GIL, until a streaming response has room or is of no use any more.
    pub(super) fn wait_for_room(&self, py: Python<'_>, link: &Link, worker: u32) {
        let gate = &self.gates[worker as usize];
        py.detach(|| {
            let mut inside = lock(&gate.inside);
            loop {
                link.set_waiting(worker);
                if !link.is_full() {
                    return;
                }
                inside = gate.opened.wait(inside).unwrap_or_else(PoisonError::into_inner);
            }
        });
    }

    fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.releases.is_pending()
    }

    /// Detached: parks until chosen, or until the pool is closed.
    ///
    /// No wake-up is lost. The worker shows itself idle, fences, and then looks for work; a reactor pushes, fences (in
    /// [`Baton::tick`]), and then looks for idle workers. One of the two sees the other. What the worker finds while another one
    /// runs or is on its way is left to that one, and to the reactor, whose [`Pool::check`] goes on as long as something waits.
    fn rest(&self, index: u32, parker: &Parker) -> Rested {
        let baton = &self.crew.baton;
        baton.rest(index);
        if self.has_work() {
            self.crew.unpark(baton.tick(clock::now()));
        }
        while baton.is_idle(index) {
            if self.closing.load(Ordering::SeqCst) {
                return if baton.withdraw(index) { Rested::Closed } else { Rested::Chosen };
            }
            // May return for a wake-up of the past: then the worker is still idle.
            parker.park();
        }
        Rested::Chosen
    }
}

/// Why a worker rests no more.
enum Rested {
    Chosen,
    Closed,
}

/// Answers posted since the last flush.
#[derive(Default)]
struct Gathered {
    count: u32,
    since: Instant,
}

impl Gathered {
    fn add(&mut self, pool: &Pool, now: Instant) {
        if self.count == 0 {
            self.since = now;
            pool.unflushed.fetch_add(1, Ordering::AcqRel);
        }
        self.count += 1;
    }

    /// The next call may take long: nothing old or much is kept back.
    fn before_call(&mut self, pool: &Pool, worker: &Worker, now: Instant) {
        let due = self.count >= REPLIES_UNFLUSHED_MAX
            || now.since(self.since) > REPLY_UNFLUSHED_MAX
            || pool.crew.baton.has_learned();
        if self.count > 0 && due {
            self.flush(pool, &worker.outbox);
        }
    }

    fn flush(&mut self, pool: &Pool, outbox: &Outbox) {
        if self.count > 0 {
            self.count = 0;
            pool.flush(outbox);
            pool.unflushed.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
