//! The main thread's part of the pool: it starts and ends the workers' threads, interrupts requests that run for too long, replaces
//! workers that are stuck, lets the pool grow and shrink, and tells what the workers are at. What it does is decided in
//! [`super::timeout`] and [`super::elastic`].
//!
//! A thread of its own without Python, the *guard*, watches whether the main thread gets the GIL at all: a call into C that keeps it
//! stops every Python thread, and only who doesn't need it can still say so.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::call::request_of;
use super::elastic::{self, Elastic, Sight};
use super::ffi;
use super::interval::SwitchInterval;
use super::pool::{Interruption, Pool};
use super::timeout::{Timekeeper, Word};
use crate::limits;
use crate::observe::status::Lines;
use crate::reactor::clock::{self, Instant};

/// How long the main thread rests at most.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How often the guard looks. Nobody rings it: what it looks for is a thread that can do nothing any more, and a bell would cost a system
/// call each time the GIL is taken.
const GUARD_LOOKS: Duration = Duration::from_millis(500);
/// A thread that takes longer to start than this had to wait for the GIL: no more are started in this step.
const START_SLOW: Duration = Duration::from_millis(3);

/// Why a process can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plight {
    /// Every worker is stuck, replacements included. Told on the main thread, with the GIL: must not wait.
    AllStuck,
    /// Something in C keeps the GIL. Told on the guard's thread, which may wait, and must not ask for the GIL.
    LockLost,
}

/// How the pool reaches the rest of the process.
pub struct Hooks {
    /// Wakes the main thread from any other; must not wait.
    pub ring: Box<dyn Fn() + Send + Sync>,
    /// The process is to hand over: somebody else must serve, this one drains what it can and leaves. Called once for each
    /// plight at most.
    pub hand_over: Box<dyn Fn(Plight) + Send + Sync>,
    /// Called now and then while the main thread waits for a GIL that a request may still have: the process is well although the main
    /// thread can't say so. On the guard's thread: must not ask for the GIL.
    pub alive: Box<dyn Fn() + Send + Sync>,
}

/// What the main thread keeps of the pool.
pub struct Overseer {
    pool: Arc<Pool>,
    application: Py<PyAny>,
    /// `hoopsnake._timeouts`
    helpers: Py<PyAny>,
    /// `threading.Thread`
    thread: Py<PyAny>,
    /// By seat: the thread that was started there last.
    threads: Vec<Option<Py<PyAny>>>,
    timekeeper: Timekeeper,
    elastic: Elastic,
    guard: Arc<Guard>,
    /// When the main thread is to look again, at the latest.
    next: Instant,
    /// When stacks were logged last.
    stacks_logged: Option<Instant>,
    /// When it was looked last whether the pool is to shrink.
    shrunk: Instant,
    handed_over: bool,
}

impl Overseer {
    /// For a pool that has no workers yet.
    ///
    /// # Errors
    /// When a part of Python's library, or of this package, can't be loaded, or the guard can't be started.
    pub fn new(py: Python<'_>, pool: &Arc<Pool>, application: &Py<PyAny>, hooks: Hooks) -> PyResult<Self> {
        let helpers = py.import("hoopsnake._timeouts")?;
        let interruption = Interruption {
            exception: helpers.getattr("RequestTimeoutException")?.unbind(),
            release_locks: helpers.getattr("release_logging_locks")?.unbind(),
        };
        // Set once: an overseer is made once for each pool.
        let _ = pool.interruption.set(interruption);
        let _ = pool.interval.set(SwitchInterval::new(py)?);
        let Hooks { ring, hand_over, alive } = hooks;
        pool.set_alarm(ring);
        let guard = Arc::new(Guard::new(py, Arc::clone(pool), hand_over, alive)?);
        Guard::start(&guard)?;
        let settings = &pool.settings;
        let now = clock::now();
        Ok(Self {
            application: application.clone_ref(py),
            helpers: helpers.unbind().into_any(),
            thread: py.import("threading")?.getattr("Thread")?.unbind(),
            threads: (0..pool.seats.len()).map(|_| None).collect(),
            timekeeper: Timekeeper::new(pool.seats.len(), settings.request_timeout),
            elastic: Elastic::new(settings.max_workers),
            guard,
            next: now,
            stacks_logged: None,
            shrunk: now,
            handed_over: false,
            pool: Arc::clone(pool),
        })
    }

    /// Starts the first workers.
    ///
    /// # Errors
    /// When there can't be so many threads.
    pub fn start(&mut self, py: Python<'_>) -> PyResult<()> {
        (0..self.pool.settings.workers).try_for_each(|_| self.start_worker(py).map(|_| ()))
    }

    /// Python's own thread, so that `threading` knows it by name and its thread state lives as long as it does. False if every seat
    /// is taken.
    fn start_worker(&mut self, py: Python<'_>) -> PyResult<bool> {
        let Some(index) = self.pool.take_seat() else { return Ok(false) };
        let started = self.start_on(py, index);
        match started {
            Ok(worker) => self.threads[index as usize] = Some(worker),
            Err(error) => {
                self.pool.return_seat(index);
                return Err(error);
            }
        }
        Ok(true)
    }

    fn start_on(&self, py: Python<'_>, index: u32) -> PyResult<Py<PyAny>> {
        let (pool, application) = (Arc::clone(&self.pool), self.application.clone_ref(py));
        let target = PyCFunction::new_closure(
            py,
            Some(c"worker"),
            None,
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
                let py = arguments.py();
                pool.run_worker(py, application.clone_ref(py), index)
            },
        )?;
        let options = PyDict::new(py);
        options.set_item("name", format!("hoopsnake-worker-{}", index + 1))?;
        options.set_item("target", target)?;
        // A worker that can't be ended must not keep the interpreter from ending.
        options.set_item("daemon", true)?;
        let worker = self.thread.bind(py).call((), Some(&options))?;
        worker.call_method0("start")?;
        Ok(worker.unbind())
    }

    /// Rests, by way of `wait`, until there is something to do or somebody rings, and does it. To be called again and again.
    pub fn attend(&mut self, py: Python<'_>, wait: impl FnOnce(Duration) + Send) {
        let left = self.next.since(clock::now()).min(LOOK_AROUND);
        let guard = &*self.guard;
        let woken = py.detach(|| {
            wait(left);
            let woken = clock::now();
            guard.wants(woken);
            woken
        });
        self.guard.has();
        let now = clock::now();
        self.tend(py, now, now.since(woken));
    }

    /// Does what is due. `gil_wait` is how long the GIL was waited for just now.
    fn tend(&mut self, py: Python<'_>, now: Instant, gil_wait: Duration) {
        self.next = now + LOOK_AROUND;
        self.pool.release_now(py);
        self.pool.restore_interval(py, now);
        self.watch(py, now);
        if !self.pool.is_closing() {
            self.replace(py);
            self.grow(py, now, gil_wait);
            self.shrink(now);
        }
    }

    /// Interrupts what has run for too long, and gives up who isn't to be reached.
    fn watch(&mut self, py: Python<'_>, now: Instant) {
        let seats = self.pool.seats.iter().enumerate().filter_map(|(index, seat)| {
            let word = seat.word();
            (word.is_running() && seat.is_taken()).then(|| (index as u32, word, seat.since()))
        });
        let findings = self.timekeeper.look(now, seats);
        let timeout = self.pool.settings.request_timeout;
        // Whoever begins a request after this look is due that much later.
        self.next = self.next.min(now + timeout);
        if let Some(next) = findings.next {
            self.next = self.next.min(next);
        }
        if !findings.overdue.is_empty() {
            self.interrupt(py, now, &findings.overdue);
        }
        for (index, word) in findings.stuck {
            let what = self.heading(py, index, now);
            if self.pool.give_up(index, word) {
                tracing::error!("{what}: the interruption doesn't reach it, so the worker counts as stuck");
            }
        }
        let pool = &self.pool;
        let lost = pool.usable() == 0 && pool.seats.iter().all(|seat| seat.is_taken() && seat.word().is_stuck());
        if lost {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if !std::mem::replace(&mut self.handed_over, true) {
            tracing::error!(
                "every worker is stuck, and so are their replacements ({} threads): this process can't serve any more and \
                 leaves; see the stacks above for where they are stuck",
                self.pool.seats.len()
            );
            (self.guard.hand_over)(Plight::AllStuck);
        }
    }

    fn interrupt(&mut self, py: Python<'_>, now: Instant, overdue: &[(u32, Word)]) {
        let due = |last: Instant| now.since(last) >= Duration::from_millis(limits::STACKS_INTERVAL_MS);
        let show = self.stacks_logged.is_none_or(due);
        let stacks = if show {
            self.stacks_logged = Some(now);
            let mut indices: Vec<u32> = overdue.iter().map(|(index, _)| *index).collect();
            // The others may be what these wait for.
            let others = (0..self.pool.seats.len() as u32).filter(|index| !indices.contains(index));
            let others: Vec<u32> =
                others.filter(|index| self.pool.seats[*index as usize].word().is_running()).collect();
            indices.extend(others);
            indices.truncate(limits::STACKS_LOGGED_MAX);
            self.stacks_of(py, &indices, now, false)
        } else {
            overdue.iter().map(|(index, _)| self.heading(py, *index, now) + "\n").collect()
        };
        let Some(interruption) = self.pool.interruption.get() else { return };
        let mut interrupted = 0;
        for (index, word) in overdue {
            if self.pool.seats[*index as usize].interrupt(py, *word, interruption.exception.bind(py)) {
                self.pool.status.interrupted.count();
                interrupted += 1;
            }
        }
        tracing::warn!(
            "{interrupted} request(s) interrupted after --request-timeout ({} s):\n{}",
            self.pool.settings.request_timeout.as_secs_f64(),
            stacks.trim_end()
        );
    }

    /// Starts as many workers as are missing from `--workers` because others are stuck.
    fn replace(&mut self, py: Python<'_>) {
        while self.pool.usable() < self.pool.settings.workers {
            match self.start_worker(py) {
                Ok(true) => tracing::warn!("a worker was started in the place of one that is stuck"),
                Ok(false) => return,
                Err(error) => {
                    tracing::error!("can't start a worker: {error}; raise `ulimit -u`, or the memory limit");
                    if self.pool.usable() == 0 {
                        self.hand_over();
                    }
                    return;
                }
            }
        }
    }

    fn grow(&mut self, py: Python<'_>, now: Instant, gil_wait: Duration) {
        let settings = &self.pool.settings;
        if settings.max_workers == settings.workers {
            return;
        }
        self.pool.hear_alarm();
        let waiting = self.pool.ready(now);
        let sight = Sight {
            waiting,
            idle: waiting == 0 || self.pool.crew.baton.has_idle(),
            usable: self.pool.usable(),
            short: self.pool.crew.baton.is_short(),
            gil_wait,
            cpu: if waiting == 0 {
                Duration::ZERO
            } else {
                clock::process_cpu().saturating_sub(self.pool.status.reactor_cpu())
            },
        };
        let plan = self.elastic.look(now, sight);
        let mut before = now;
        for _ in 0..plan.start {
            match self.start_worker(py) {
                Ok(true) => self.pool.status.grown.count(),
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(
                        "can't start a worker: {error}; lower --max-workers, or raise `ulimit -u` or the memory limit"
                    );
                    self.next = self.next.min(clock::now() + LOOK_AROUND);
                    return;
                }
            }
            let after = clock::now();
            if after.since(before) > START_SLOW || self.pool.ready(after) == 0 {
                break;
            }
            before = after;
        }
        if let Some(again) = plan.again {
            self.next = self.next.min(clock::now() + again);
        }
    }

    /// Ends workers above `--workers` that have had nothing to do for long.
    fn shrink(&mut self, now: Instant) {
        let least = self.pool.settings.workers;
        if self.pool.usable() <= least || now.since(self.shrunk) < LOOK_AROUND {
            return;
        }
        self.shrunk = now;
        let mut usable = self.pool.usable();
        let most = usable.saturating_sub(limits::POOL_SHRINK_MAX);
        // Requests go to the lowest numbers first.
        for (index, seat) in self.pool.seats.iter().enumerate().rev() {
            if usable <= most {
                break;
            }
            let idle = seat.thread().is_some() && !seat.word().is_running();
            if idle && elastic::is_spare(now, seat.since(), usable, least) && self.pool.dismiss(index as u32) {
                self.pool.status.shrunk.count();
                usable -= 1;
            }
        }
    }

    /// Whether all workers end within `patience`, after [`Pool::close`]. Those that are stuck, or are found stuck meanwhile, aren't
    /// waited for.
    pub fn join(&mut self, py: Python<'_>, patience: Duration) -> bool {
        let until = clock::now() + patience;
        let mut all = true;
        for index in 0..self.threads.len() {
            let Some(thread) = self.threads[index].take() else { continue };
            all &= self.join_one(py, index, &thread, until).unwrap_or(false);
        }
        all
    }

    /// Whether one worker ends in time. What has run for too long is interrupted meanwhile, as ever.
    fn join_one(&mut self, py: Python<'_>, index: usize, thread: &Py<PyAny>, until: Instant) -> PyResult<bool> {
        loop {
            let now = clock::now();
            self.next = now + LOOK_AROUND;
            self.watch(py, now);
            let stuck = self.pool.seats[index].word().is_stuck();
            let left = if stuck { Duration::ZERO } else { until.since(now) };
            let step = left.min(self.next.since(now));
            // From then on it waits for the GIL.
            self.guard.wants(now + step);
            let joined = thread.call_method1(py, "join", (step.as_secs_f64(),));
            self.guard.has();
            joined?;
            if !thread.call_method0(py, "is_alive")?.extract::<bool>(py)? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// The stacks of all Python threads, with the request each worker is serving and for how long, for SIGUSR1.
    pub fn stacks(&self, py: Python<'_>) -> String {
        let taken = |index: &u32| self.pool.seats[*index as usize].is_taken();
        let indices: Vec<u32> = (0..self.pool.seats.len() as u32).filter(taken).collect();
        self.stacks_of(py, &indices, clock::now(), true)
    }

    fn stacks_of(&self, py: Python<'_>, indices: &[u32], now: Instant, others: bool) -> String {
        let threads: Vec<(u64, String)> = indices
            .iter()
            .filter_map(|&index| Some((self.pool.seats[index as usize].thread()?, self.heading(py, index, now))))
            .collect();
        let text = self.helpers.call_method1(py, "stacks", (threads, others)).and_then(|text| text.extract(py));
        text.unwrap_or_else(|error: PyErr| format!("the stacks can't be told: {error}"))
    }

    /// Which thread, at what, for how long.
    fn heading(&self, py: Python<'_>, index: u32, now: Instant) -> String {
        let seat = &self.pool.seats[index as usize];
        let (word, since) = (seat.word(), seat.since());
        let name = format!("hoopsnake-worker-{}", index + 1);
        if !word.is_running() {
            return format!("{name}, idle");
        }
        let request = self.environ(py, index).map_or("a request".to_owned(), |environ| request_of(&environ));
        if since == Instant::NEVER {
            return format!("{name}, serving {request}, waits for its client");
        }
        let stuck = if word.is_stuck() { ", stuck" } else { "" };
        format!("{name}, serving {request} for {:.1} s{stuck}", now.since(since).as_secs_f64())
    }

    /// The environ of the request that a worker is at.
    fn environ<'py>(&self, py: Python<'py>, index: u32) -> Option<Bound<'py, PyDict>> {
        let callables = self.pool.seats[index as usize].callables()?;
        callables.with(py, |state| state.environ.as_ref().map(|environ| environ.clone_ref(py).into_bound(py)))
    }

    /// wsgo's lines, as far as they have a meaning here, and those of the pool, for SIGUSR2.
    pub fn report(&self, py: Python<'_>, lines: &mut Lines) {
        let pool = &self.pool;
        let seats = || pool.seats.iter().filter(|seat| seat.is_taken());
        let running = seats().filter(|seat| seat.word().is_running()).count();
        let stuck = seats().filter(|seat| seat.word().is_stuck()).count();
        let total = pool.status.total();
        lines.line("Active requests", running);
        lines.heading("Active requests by IP");
        let addresses = self.addresses(py);
        for (address, count) in addresses.iter().take(limits::ADDRESSES_SHOWN_MAX) {
            lines.item(address, count);
        }
        if let Some(more) = addresses.len().checked_sub(limits::ADDRESSES_SHOWN_MAX).filter(|more| *more > 0) {
            lines.item("other addresses", more);
        }
        lines.line("Request count", pool.seats.iter().map(|seat| seat.word().generation()).sum::<u64>());
        lines.line("Request errors", pool.status.errors.get());
        lines.line("Request timeouts", total.queue_timeouts + pool.status.interrupted.get());
        lines.line("Request drops", total.drops);
        let count =
            |module: &str, function: &str| -> PyResult<u64> { py.import(module)?.call_method0(function)?.extract() };
        if let Ok(threads) = count("threading", "active_count") {
            lines.line("Python live Thread count", threads);
        }
        if let Ok(bytes) = python_bytes(py) {
            lines.line("Python allocated memory (in bytes)", bytes);
        }
        lines.line("Requests waiting", pool.waiting());
        lines.line("Longest wait (in seconds)", format_args!("{:.3}", pool.oldest_wait().as_secs_f64()));
        lines.line("Requests evicted from the queue", pool.status.evicted.get());
        lines.line("Requests shed", pool.status.shed.get());
        let settings = &pool.settings;
        lines.line(
            "Workers",
            format_args!(
                "{} ({running} running, {stuck} stuck; from {} to {})",
                seats().count(),
                settings.workers,
                settings.max_workers
            ),
        );
        lines.line("Workers started while requests waited", pool.status.grown.get());
        lines.line("Workers ended after idling", pool.status.shrunk.get());
        lines.line("Workers stuck so far", pool.status.stuck.get());
        lines.line("Requests interrupted", pool.status.interrupted.get());
        lines.line(
            "GIL busy when the pool would have grown",
            format_args!("{:.0} %", self.elastic.busy_share() * 100.0),
        );
    }

    /// Requests that are run, by client address.
    fn addresses(&self, py: Python<'_>) -> BTreeMap<String, u64> {
        let mut addresses = BTreeMap::new();
        for seat in &self.pool.seats {
            if !seat.is_taken() || !seat.word().is_running() {
                continue;
            }
            let Some(callables) = seat.callables() else { continue };
            let client = callables.with(py, |state| state.environ.is_some().then_some(state.client));
            let Some(client) = client else { continue };
            let name = client.address.map_or("-".to_owned(), |address| address.to_string());
            *addresses.entry(name).or_default() += 1;
        }
        addresses
    }
}

impl Drop for Overseer {
    fn drop(&mut self) {
        self.guard.ended.store(true, Ordering::Release);
    }
}

/// What Python's objects take, if `pympler` is there to tell.
fn python_bytes(py: Python<'_>) -> PyResult<u64> {
    let muppy = py.import("pympler.muppy")?;
    py.import("gc")?.call_method0("collect")?;
    let objects = muppy.call_method0("get_objects")?;
    muppy.call_method1("get_size", (objects,))?.extract()
}

/// Watches, without Python, whether the main thread gets the GIL.
struct Guard {
    pool: Arc<Pool>,
    hand_over: Box<dyn Fn(Plight) + Send + Sync>,
    alive: Box<dyn Fn() + Send + Sync>,
    /// Since when the main thread wants the GIL, in nanoseconds of [`Instant`]; 0: it has it, or doesn't want it.
    wanted: AtomicU64,
    ended: AtomicBool,
    /// Where `faulthandler` writes the stacks of all threads when its signal comes, and the signal.
    stacks: Option<(File, i32)>,
}

impl Guard {
    fn new(
        py: Python<'_>,
        pool: Arc<Pool>,
        hand_over: Box<dyn Fn(Plight) + Send + Sync>,
        alive: Box<dyn Fn() + Send + Sync>,
    ) -> PyResult<Self> {
        Ok(Self {
            pool,
            hand_over,
            alive,
            wanted: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            stacks: Self::register(py)?,
        })
    }

    /// Python's `faulthandler` writes stacks without the GIL, from a signal's handler: of a signal that nobody else uses.
    fn register(py: Python<'_>) -> PyResult<Option<(File, i32)>> {
        let Ok(file) = tempfile::tempfile() else { return Ok(None) };
        let signal: i32 = py.import("signal")?.getattr("SIGRTMAX")?.extract()?;
        let options = PyDict::new(py);
        options.set_item("file", file.as_raw_fd())?;
        options.set_item("all_threads", true)?;
        py.import("faulthandler")?.call_method("register", (signal,), Some(&options))?;
        Ok(Some((file, signal)))
    }

    fn start(guard: &Arc<Self>) -> PyResult<()> {
        let guard = Arc::clone(guard);
        thread::Builder::new().name("hoopsnake-guard".into()).spawn(move || guard.run())?;
        Ok(())
    }

    fn wants(&self, now: Instant) {
        self.wanted.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    fn has(&self) {
        self.wanted.store(0, Ordering::Relaxed);
    }

    fn run(&self) {
        let (mut told, mut lost) = (0, false);
        while !self.ended.load(Ordering::Acquire) {
            thread::sleep(GUARD_LOOKS);
            let wanted = self.wanted.load(Ordering::Relaxed);
            if wanted == 0 {
                continue;
            }
            let now = clock::now();
            let waited = now.since(Instant::from_nanos(wanted));
            if waited >= Duration::from_millis(limits::GIL_SILENT_MS) && told != wanted {
                told = wanted;
                self.tell(waited);
            }
            if waited >= Duration::from_millis(limits::GIL_LOST_MS) && !lost && self.is_overdue(now) {
                lost = true;
                tracing::error!(
                    "Python's GIL can't be had although a request has run for longer than --request-timeout: something in C keeps \
                     it. This process can't serve any more and leaves"
                );
                (self.hand_over)(Plight::LockLost);
            } else if !lost && self.is_timed() {
                (self.alive)();
            }
        }
    }

    /// Whether a request has run for too long, and for [`limits::GIL_LOST_MS`] more.
    fn is_overdue(&self, now: Instant) -> bool {
        let limit = self.pool.settings.request_timeout.saturating_add(Duration::from_millis(limits::GIL_LOST_MS));
        self.pool.seats.iter().any(|seat| {
            let word = seat.word();
            let since = seat.since();
            word.is_running() && since != Instant::NEVER && now.since(since) >= limit
        })
    }

    /// Whether a request is run whose time is measured: sooner or later it has ended or is overdue.
    fn is_timed(&self) -> bool {
        self.pool.seats.iter().any(|seat| seat.word().is_running() && seat.since() != Instant::NEVER)
    }

    fn tell(&self, waited: Duration) {
        let seconds = waited.as_secs_f64();
        let Some((file, signal)) = &self.stacks else {
            tracing::error!("Python's GIL was waited for in vain for {seconds:.1} s");
            return;
        };
        let before = file.metadata().map_or(0, |metadata| metadata.len());
        let mut text = vec![0; limits::ERROR_LOG_MESSAGE_BYTES_MAX];
        // Its handler has run, on this very thread, when this returns.
        let length = if ffi::raise(*signal) { file.read_at(&mut text, before).unwrap_or(0) } else { 0 };
        tracing::error!(
            "Python's GIL was waited for in vain for {seconds:.1} s; the stacks of all threads, the innermost call first:\n{}",
            String::from_utf8_lossy(&text[..length]).trim_end()
        );
    }
}

/// Ends the process at once, from a thread that must not ask for the GIL.
pub fn leave_at_once(code: i32) -> ! {
    ffi::exit_now(code)
}
