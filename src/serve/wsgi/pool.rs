//! The workers of a process, the queue they take requests from, and the way back to the reactors.
//!
//! Reactors submit, wake and watch; workers take, run, answer and rest. Who is woken is decided in [`super::baton`]; what a
//! request does is in [`super::call`]. Nothing here runs Python code.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam::sync::{Parker, Unparker};
use pyo3::prelude::*;

use super::baton::{Baton, Watch};
use super::call::Worker;
use super::ffi;
use super::interval::SwitchInterval;
use super::release::Releases;
use super::response::Output;
use super::seat::Seat;
use super::timeout::Word;
use super::waiting::{Look, Waiting};
use crate::config::Network;
use crate::limits;
use crate::observe::status::Status;
use crate::reactor::clock::{self, Instant};
use crate::reactor::slice::Slice;
use crate::serve::exchange::{End, Exchange, Link, Mailbox, Message, TurnedAway};
use crate::serve::notify::Notifier;
use crate::serve::queue::Run;
use crate::serve::queue::rules::Rules;

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
#[derive(Clone)]
pub struct PoolSettings {
    /// Worker threads to begin with: 1 to [`limits::WORKERS_MAX`].
    pub workers: usize,
    /// Worker threads there may be while requests wait and the GIL is idle: at least `workers`.
    pub max_workers: usize,
    /// After it a request is interrupted, and answered 504.
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
    /// Who is next.
    pub queue: Rules,
    /// What is announced to parked requests.
    pub notifier: Arc<Notifier>,
    /// Whether `X-Sendfile` is acted on (`--sendfile-root`); otherwise it goes to the client.
    pub sendfile: bool,
    /// Whether `X-Accel-Redirect` is acted on (`--static-map`); otherwise it goes to the client.
    pub accel: bool,
    /// `hoopsnake.reactor`: the name of the driver in use.
    pub driver: &'static str,
}

/// The workers as seen from other threads: who rests, and how to wake them.
pub(super) struct Crew {
    pub(super) baton: Baton,
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
        Self { dirty: [const { AtomicU64::new(0) }; limits::REACTORS_MAX.div_ceil(64)] }
    }

    fn mark(&self, reactor: u16) {
        self.dirty[usize::from(reactor) / 64].fetch_or(1 << (reactor % 64), Ordering::Relaxed);
    }
}

/// What a worker is interrupted with, and what it does after that. Set by the main thread before there are workers.
pub(super) struct Interruption {
    /// The class of the exception.
    pub(super) exception: Py<PyAny>,
    /// Called in the worker's thread after an interrupted request: `(times) -> [what was released]`.
    pub(super) release_locks: Py<PyAny>,
}

/// The pool of one process.
pub struct Pool {
    pub(super) settings: PoolSettings,
    pub(super) releases: Arc<Releases>,
    /// What is counted.
    pub(super) status: Arc<Status>,
    mailboxes: Vec<Arc<Mailbox>>,
    pub(super) waiting: Waiting,
    pub(super) crew: Arc<Crew>,
    /// For every worker that there may ever be at the same time, replacements of stuck ones included.
    pub(super) seats: Box<[Seat]>,
    /// Taken by each worker when it starts, and brought back.
    parkers: Mutex<Vec<Option<Parker>>>,
    gates: Vec<Gate>,
    /// Threads, started or about to be, that aren't stuck.
    usable: AtomicUsize,
    pub(super) interruption: OnceLock<Interruption>,
    /// Set likewise.
    pub(super) interval: OnceLock<SwitchInterval>,
    /// Wakes the main thread.
    alarm: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Whether the main thread was woken and hasn't looked yet.
    alarmed: AtomicBool,
    /// Workers that have answers a reactor may not have noticed.
    unflushed: AtomicU32,
    draining: AtomicBool,
    closing: AtomicBool,
}

impl Pool {
    /// A pool without threads: each of its workers is a Python thread that calls [`Pool::run_worker`].
    pub fn new(settings: PoolSettings, mailboxes: Vec<Arc<Mailbox>>) -> Arc<Pool> {
        debug_assert!((1..=limits::WORKERS_MAX).contains(&settings.workers), "the configuration was checked");
        debug_assert!((settings.workers..=limits::WORKERS_MAX).contains(&settings.max_workers), "likewise");
        // As many replacements as workers to begin with.
        let seats = settings.max_workers + settings.workers;
        let parkers: Vec<Parker> = (0..seats).map(|_| Parker::new()).collect();
        let unparkers = parkers.iter().map(|parker| parker.unparker().clone()).collect();
        let crew = Arc::new(Crew { baton: Baton::new(seats), unparkers });
        Arc::new(Pool {
            releases: Arc::new(Releases::new(Arc::clone(&crew))),
            status: Arc::new(Status::new(mailboxes.len())),
            mailboxes,
            waiting: Waiting::new(settings.queue.clone()),
            crew,
            parkers: Mutex::new(parkers.into_iter().map(Some).collect()),
            gates: (0..seats).map(|_| Gate::default()).collect(),
            seats: (0..seats).map(|_| Seat::default()).collect(),
            usable: AtomicUsize::new(0),
            interruption: OnceLock::new(),
            interval: OnceLock::new(),
            alarm: OnceLock::new(),
            alarmed: AtomicBool::new(false),
            unflushed: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            settings,
        })
    }

    /// Reactor: puts a request into the queue. Follow with [`Pool::wake`], once per turn. Whoever has to leave the queue for it comes
    /// back to its reactor as a [`Message::Reply`] with [`Exchange::turned_away`].
    pub fn submit(&self, exchange: Box<Exchange>) {
        self.waiting.push(exchange, |exchange| self.turn_away(exchange));
    }

    /// Reactor: takes back a request that nobody waits for any more, if it is still in the queue.
    pub fn withdraw(&self, link: &Link, now: Instant) -> Option<Box<Exchange>> {
        self.waiting.withdraw(link, now)
    }

    fn turn_away(&self, exchange: Box<Exchange>) {
        match exchange.turned_away {
            Some(TurnedAway::Evicted) => self.status.evicted.count(),
            Some(TurnedAway::Shed) => self.status.shed.count(),
            None => {}
        }
        let mailbox = &self.mailboxes[usize::from(exchange.reactor)];
        mailbox.post(Message::Reply(exchange));
        mailbox.wake();
    }

    /// A test's worker: the next request, ended at once as far as the queue goes.
    #[cfg(test)]
    pub fn take(&self) -> Option<Box<Exchange>> {
        let mut run = None;
        let taken = self.waiting.take(&mut run);
        self.waiting.finish(&mut run);
        taken.map(|(exchange, _)| exchange)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that wait, if another worker could take one now: not those that are held until others have ended.
    pub(super) fn ready(&self, now: Instant) -> usize {
        if self.waiting.look(now) == Look::Ready { self.waiting.len() } else { 0 }
    }

    /// How long the one has waited that has waited for longest.
    pub(super) fn oldest_wait(&self) -> Duration {
        self.waiting.oldest_wait(clock::now())
    }

    /// Requests that may wait before somebody is turned away: `--queue`.
    pub fn waiting_max(&self) -> usize {
        self.waiting.bound()
    }

    /// Requests given to the application so far.
    pub fn requests(&self) -> u64 {
        self.seats.iter().map(|seat| seat.word().generation()).sum()
    }

    /// Reactor: after a turn's submits. Wakes a worker if none is at it.
    pub fn wake(&self, now: Instant) {
        if self.has_work(now) {
            self.crew.unpark(self.crew.baton.tick(now));
        }
    }

    /// Reactor: the stall watch, once per turn. The time after which it must be called again; `None`: nothing waits.
    pub fn check(&self, now: Instant) -> Option<Duration> {
        match self.waiting.check(now, |exchange| self.turn_away(exchange)) {
            Look::Ready => {
                return Some(match self.crew.baton.stall(now, self.waiting.is_urgent()) {
                    Watch::Look(after) => {
                        self.ask_for_more();
                        after
                    }
                    Watch::Wake(worker) => {
                        self.crew.unpark(Some(worker));
                        Duration::from_micros(limits::STALL_US)
                    }
                });
            }
            Look::Held(after) => return Some(after),
            Look::Empty => {}
        }
        // Answers lie in a mailbox while their worker runs the next request: if that takes long, nobody tells the reactor.
        (self.unflushed.load(Ordering::Acquire) > 0).then_some(Duration::from_micros(limits::STALL_US))
    }

    /// When a request was last taken, if some wait that could be.
    pub fn last_taken(&self, now: Instant) -> Option<Instant> {
        (self.waiting.look(now) == Look::Ready).then(|| self.crew.baton.last_pop())
    }

    /// Reactor: how long it may rest before it deals with what comes, zero for not at all; see [`Baton::gathering`].
    pub fn gathering(&self, now: Instant) -> Duration {
        if self.waiting.low_runs() {
            return Duration::ZERO;
        }
        self.crew.baton.gathering(self.ready(now))
    }

    /// The figures of this process.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// How the main thread is woken when more workers may be needed; must not wait.
    pub(super) fn set_alarm(&self, alarm: Box<dyn Fn() + Send + Sync>) {
        // Set once, before there are workers.
        let _ = self.alarm.set(alarm);
    }

    /// Requests wait, and every worker is at one: the main thread is to see whether the pool may grow.
    fn ask_for_more(&self) {
        if self.settings.max_workers > self.settings.workers
            && !self.alarmed.load(Ordering::Relaxed)
            && self.usable() < self.settings.max_workers
            && !self.crew.baton.has_idle()
            && !self.alarmed.swap(true, Ordering::AcqRel)
        {
            if let Some(alarm) = self.alarm.get() {
                alarm();
            }
        }
    }

    /// The main thread looks now: from here on it must be woken again.
    pub(super) fn hear_alarm(&self) {
        self.alarmed.store(false, Ordering::Release);
    }

    /// Workers, started or about to be, that aren't stuck.
    pub fn usable(&self) -> usize {
        self.usable.load(Ordering::Acquire)
    }

    /// Takes a free seat for a worker that is about to be started.
    pub fn take_seat(&self) -> Option<u32> {
        let free = self.seats.iter().position(Seat::take)?;
        self.usable.fetch_add(1, Ordering::AcqRel);
        Some(free as u32)
    }

    /// The main thread: the worker could not be started.
    pub(super) fn return_seat(&self, index: u32) {
        self.usable.fetch_sub(1, Ordering::AcqRel);
        self.seats[index as usize].leave();
    }

    /// The main thread: this worker is stuck in the request that `word` was seen of. False if it is past that.
    pub(super) fn give_up(&self, index: u32, word: Word) -> bool {
        let seat = &self.seats[index as usize];
        let stuck = self.waiting.give_up(|| seat.give_up(word).then(|| seat.run()));
        if stuck {
            self.usable.fetch_sub(1, Ordering::AcqRel);
            self.status.stuck.count();
            // It runs no more as far as the others are concerned: what waits must not wait for it.
            self.crew.baton.stop();
            if self.has_work(clock::now()) {
                self.crew.wake_if_nobody_runs();
            }
        }
        stuck
    }

    /// The main thread: ends this worker if it rests. What came in at that moment is left to the others.
    pub(super) fn dismiss(&self, index: u32) -> bool {
        if !self.seats[index as usize].dismiss(|| self.crew.baton.withdraw(index)) {
            return false;
        }
        // It counts no more, however long its thread takes to end: others would be dismissed, or started, by a wrong number.
        self.usable.fetch_sub(1, Ordering::AcqRel);
        self.crew.unparkers[index as usize].unpark();
        if self.has_work(clock::now()) {
            self.crew.wake_if_nobody_runs();
        }
        true
    }

    /// Whether [`Pool::close`] was called.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Reactor: looks at the request of `link` where it is being run, if its response isn't under way. False if it can't be seen:
    /// the worker is just at it, or done with it.
    pub fn look_at(&self, link: &Arc<Link>, look: impl FnOnce(&Exchange, u32)) -> bool {
        let Some(index) = link.worker() else { return false };
        let callables = self.seats.get(index as usize).and_then(Seat::callables);
        callables.is_some_and(|callables| callables.look_at(link, |exchange| look(exchange, index + 1)))
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
    #[cfg(test)]
    pub(super) fn release_pending(&self) -> bool {
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
    /// If the same `index` is given twice at the same time, or one past the number of seats.
    pub fn run_worker(self: &Arc<Self>, py: Python<'_>, application: Py<PyAny>, index: u32) -> PyResult<()> {
        let seat = &self.seats[index as usize];
        let mut place = Place { pool: self, index, parker: None, counts: true };
        seat.sit(index, ffi::thread_ident(py), clock::now());
        let mut parker = lock(&self.parkers)[index as usize].take().expect("one thread sits on a seat");
        let mut worker = match Worker::new(py, Arc::clone(self), application, index) {
            Ok(worker) => worker,
            Err(error) => {
                place.parker = Some(parker);
                return Err(error);
            }
        };
        let (mut contender, mut slice) = (false, Slice::of_this_thread());
        loop {
            if !self.serve(py, &mut worker, contender) {
                place.counts = false;
                break;
            }
            // A parker is no `Sync`: it goes in and comes back.
            let rested;
            (rested, parker) = py.detach(|| {
                let rested = self.rest(index, &parker);
                // Whoever computes on this processor is to make way each time that this thread wakes: for the GIL, and after waits.
                slice.set_short(matches!(rested, Rested::Chosen) && self.crew.baton.is_ahead());
                (rested, parker)
            });
            match rested {
                Rested::Chosen => contender = true,
                // What is held runs when the worker that it waits for has ended its request.
                Rested::Closed if self.has_work(clock::now()) => contender = false,
                Rested::Closed => break,
                Rested::Dismissed => {
                    place.counts = false;
                    break;
                }
            }
        }
        self.releases.drain(py);
        place.parker = Some(parker);
        Ok(())
    }

    /// Attached: runs the queue dry. False if the worker is to end: it was stuck, has come back, and is one too many by now.
    fn serve(&self, py: Python<'_>, worker: &mut Worker, contender: bool) -> bool {
        let mut run: Option<Run> = None;
        let mut next = self.waiting.take(&mut run);
        let found = next.is_some();
        if found {
            self.crew.baton.start();
        }
        if contender {
            self.crew.baton.arrived(clock::now(), found);
        }
        let mut gathered = Gathered::default();
        loop {
            while let Some((exchange, now)) = next {
                gathered.before_call(self, worker, now);
                let woken =
                    self.crew.baton.popped(now, now.since(exchange.queued), self.waiting.look(now) == Look::Ready);
                self.crew.unpark(woken);
                if self.run_one(py, worker, exchange, now, run.as_ref(), &mut gathered) {
                    // Whoever gave this worker up has ended its run.
                    run = None;
                    if !self.comes_back() {
                        gathered.flush(self, &worker.outbox);
                        return false;
                    }
                }
                if self.is_one_too_many(&mut run) {
                    gathered.flush(self, &worker.outbox);
                    return true;
                }
                next = self.waiting.take(&mut run);
            }
            gathered.flush(self, &worker.outbox);
            // Nothing is left to do: a reactor that rests may have something.
            self.mailboxes.iter().for_each(|mailbox| mailbox.waker.hurry());
            if self.releases.is_pending() {
                self.releases.drain(py);
            }
            next = self.waiting.take(&mut run);
            if next.is_none() {
                break;
            }
        }
        if found {
            self.crew.baton.stop();
        }
        true
    }

    /// Whether this worker, which has ended its `run`, is to rest now, whatever waits. Whoever has come for what is urgent goes on with
    /// what else is; and that may be so only as soon as its own run is over.
    pub(super) fn is_one_too_many(&self, run: &mut Option<Run>) -> bool {
        if !self.crew.baton.has_surplus() {
            return false;
        }
        self.waiting.finish(run);
        !self.waiting.is_urgent() && self.crew.baton.retires()
    }

    /// A worker that was stuck has come back: it is of use again unless its replacement has filled the pool.
    fn comes_back(&self) -> bool {
        let room = |usable: usize| (usable < self.settings.max_workers).then_some(usable + 1);
        let stays = self.usable.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room).is_ok();
        if stays {
            self.crew.baton.start();
        }
        stays
    }

    /// Runs one request. Whether the worker counted as stuck in it.
    fn run_one(
        &self,
        py: Python<'_>,
        worker: &mut Worker,
        mut exchange: Box<Exchange>,
        now: Instant,
        run: Option<&Run>,
        gathered: &mut Gathered,
    ) -> bool {
        if exchange.link.is_cancelled() || now > exchange.deadline {
            // The client is gone, or has been told 504: only the reactor's books are to be kept.
            exchange.reply.end = End::Abort;
            exchange.reply.status = 0;
            exchange.reply.outgoing.clear();
            self.post(&worker.outbox, Output::Reply(exchange));
            gathered.add(self, now);
            return false;
        }
        // The time of running is limited apart from the time in the queue.
        exchange.link.set_worker(worker.index());
        exchange.link.start(now);
        exchange.since = self.settings.notifier.latest();
        exchange.deadline = now + self.settings.request_timeout;
        let link = Arc::clone(&exchange.link);
        let (route, before) = (exchange.route, self.waiting.learns().then(clock::thread_cpu));
        let seat = &self.seats[worker.index() as usize];
        if let Some(run) = run {
            seat.set_run(run.name());
            if run.is_low() {
                self.shorten_interval(py, now);
            }
        }
        seat.begin(now);
        if catch_unwind(AssertUnwindSafe(|| worker.run(py, exchange))).is_err() {
            tracing::error!("a worker panicked while it ran a request: its connection is closed, the worker goes on");
            worker.abandon(py);
        }
        let was = seat.end(py);
        if let Some(before) = before {
            self.waiting.learn(route, clock::thread_cpu().saturating_sub(before));
        }
        if was.is_interrupted() {
            self.release_locks(py);
        }
        gathered.add(self, now);
        if link.answered().is_some() {
            let took = clock::now().since(now);
            if took > self.settings.request_timeout {
                tracing::warn!("a request ran {:.1} s; its client was answered 504 before that", took.as_secs_f64());
            }
        }
        was.is_stuck()
    }

    /// A request begins that others may be more urgent than.
    fn shorten_interval(&self, py: Python<'_>, now: Instant) {
        if let Some(interval) = self.interval.get() {
            interval.shorten(py, now, |short| self.crew.baton.set_short(short));
        }
    }

    /// The main thread, now and then.
    pub(super) fn restore_interval(&self, py: Python<'_>, now: Instant) {
        if let Some(interval) = self.interval.get() {
            interval.restore(py, now, |short| self.crew.baton.set_short(short));
        }
    }

    /// After an interrupted request: the exception may have come between the taking of a lock of `logging` and its release.
    fn release_locks(&self, py: Python<'_>) {
        let Some(interruption) = self.interruption.get() else { return };
        let released = interruption.release_locks.call1(py, (limits::LOGGING_RELEASES_MAX,));
        match released.and_then(|names| names.extract::<Vec<String>>(py)) {
            Ok(names) => names.iter().for_each(|name| {
                tracing::warn!("an interrupted request had left {name} taken; it was released");
            }),
            Err(error) => tracing::error!("can't see whether an interrupted request left locks taken: {error}"),
        }
    }

    /// Whether `error` is the exception that interrupts requests.
    pub(super) fn is_timeout(&self, py: Python<'_>, error: &PyErr) -> bool {
        self.interruption.get().is_some_and(|interruption| error.is_instance(py, interruption.exception.bind(py)))
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

    /// A reactor: leaves a message for another one, or for itself.
    pub fn tell(&self, reactor: u16, message: Message) {
        if let Some(mailbox) = self.mailboxes.get(usize::from(reactor)) {
            mailbox.post(message);
            mailbox.wake();
        }
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

    /// A part of the response that this worker makes is handed over.
    pub(super) fn progress(&self, worker: u32) {
        self.seats[worker as usize].progress(worker, clock::now);
    }

    /// Waits, without the GIL, until a streaming response has room or is of no use any more.
    pub(super) fn wait_for_room(&self, py: Python<'_>, link: &Link, worker: u32) {
        let (gate, seat) = (&self.gates[worker as usize], &self.seats[worker as usize]);
        let wait = || {
            self.set_paused(worker, true);
            let mut inside = lock(&gate.inside);
            loop {
                link.set_waiting(worker);
                if !link.is_full() {
                    break;
                }
                inside = gate.opened.wait(inside).unwrap_or_else(PoisonError::into_inner);
            }
            drop(inside);
            self.set_paused(worker, false);
        };
        // The client's time, not the application's: that is limited by --send-timeout.
        py.detach(|| seat.pause(worker, wait, clock::now));
    }

    /// Worker: its request waits for its client, or goes on. What waits until nothing else runs doesn't wait for that.
    fn set_paused(&self, worker: u32, paused: bool) {
        if Seat::is_here(worker) && self.waiting.set_paused(self.seats[worker as usize].run(), paused) {
            // A reactor sees whether another worker must be woken.
            if let Some(mailbox) = self.mailboxes.first() {
                mailbox.wake();
            }
        }
    }

    fn has_work(&self, now: Instant) -> bool {
        self.waiting.look(now) == Look::Ready || self.releases.is_pending()
    }

    /// Detached: parks until chosen, or until the pool is closed.
    ///
    /// No wake-up is lost. The worker shows itself idle, fences, and then looks for work; a reactor pushes, fences (in
    /// [`Baton::tick`]), and then looks for idle workers. One of the two sees the other. What the worker finds while another one
    /// runs or is on its way is left to that one, and to the reactor, whose [`Pool::check`] goes on as long as something waits.
    fn rest(&self, index: u32, parker: &Parker) -> Rested {
        let baton = &self.crew.baton;
        baton.rest(index);
        let now = clock::now();
        if self.has_work(now) {
            self.crew.unpark(baton.tick(now));
        }
        while baton.is_idle(index) {
            if self.closing.load(Ordering::SeqCst) {
                if baton.withdraw(index) {
                    return Rested::Closed;
                }
                break;
            }
            // May return for a wake-up of the past: then the worker is still idle.
            parker.park();
        }
        if self.seats[index as usize].is_dismissed() { Rested::Dismissed } else { Rested::Chosen }
    }
}

/// Leaves a worker's seat.
struct Place<'a> {
    pool: &'a Pool,
    index: u32,
    /// Brought back for the next one.
    parker: Option<Parker>,
    /// Whether the worker counts as usable.
    counts: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.pool.usable.fetch_sub(1, Ordering::AcqRel);
        }
        // Without its parker nobody could rest here: then the seat stays taken.
        if let Some(parker) = self.parker.take() {
            lock(&self.pool.parkers)[self.index as usize] = Some(parker);
            self.pool.seats[self.index as usize].leave();
        }
    }
}

/// Why a worker rests no more.
enum Rested {
    Chosen,
    Closed,
    /// It was idle, and isn't the contender.
    Dismissed,
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
