//! Cron jobs and timers of the application, run one after the other on one Python thread of process 1.
//!
//! What the application registers is kept in the process that may come to run it, and runs from when that process is told that it is
//! the one ([`Background::start`]) until it drains ([`Background::stop`]): never in two processes at once.
//!
//! When a job is due is decided in `crate::background`. Here are the thread that runs them, a second one that watches over the time
//! limit and is at rest otherwise, and what Python calls to register them. Outside the server registering checks and forgets.
//!
//! `inside` is only ever held for moments: never across Python code, and never by somebody who waits to be attached.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyCFunction, PyDict, PyString, PyTuple};

use super::Plan;
use crate::background::{Full, Now, Rule, Schedule, Table, Take};
use crate::config::Config;
use crate::limits;
use crate::reactor::clock::{self, Instant};
use crate::reactor::shared_memory::SharedMemory;
use crate::serve::wsgi::forked::unless_child;
use crate::serve::wsgi::set_async_exception;

/// Characters of a job's name that are logged.
const NAME_MAX: usize = 200;

/// The jobs of this process, if it is one that runs them.
static OPEN: OnceLock<Arc<Background>> = OnceLock::new();

/// Registers a job: a timer if `period` (seconds) is not 0, otherwise a cron job.
#[pyfunction]
#[pyo3(signature = (func, period, min, hour, day, mon, wday, /))]
pub(super) fn add_cron(
    func: &Bound<'_, PyAny>,
    period: &Bound<'_, PyAny>,
    min: &Bound<'_, PyAny>,
    hour: &Bound<'_, PyAny>,
    day: &Bound<'_, PyAny>,
    mon: &Bound<'_, PyAny>,
    wday: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if !func.is_callable() {
        return Err(PyTypeError::new_err(format!("func must be callable, not {}", func.get_type().name()?)));
    }
    let fields = [("min", min), ("hour", hour), ("day", day), ("mon", mon), ("wday", wday)];
    let mut numbers = [0; 5];
    for (number, (name, value)) in numbers.iter_mut().zip(fields) {
        *number = value.extract::<i64>().map_err(|error| as_value_error(error, name, value))?;
    }
    let seconds = period.extract::<f64>().map_err(|error| as_value_error(error, "period", period))?;
    let rule = if seconds == 0.0 {
        let [minute, hour, day, month, weekday] = numbers;
        let schedule = Schedule::new(minute, hour, day, month, weekday);
        Rule::Cron(schedule.map_err(|invalid| PyValueError::new_err(invalid.0))?)
    } else {
        let (shortest, longest) = (limits::TIMER_PERIOD_MS_MIN as f64 / 1000.0, limits::TIMEOUT_S_MAX as f64);
        if !(shortest..=longest).contains(&seconds) {
            let sentence = format!("a period of {seconds} is out of range: {shortest} to {longest} seconds");
            return Err(PyValueError::new_err(sentence));
        }
        Rule::Timer(Duration::from_secs_f64(seconds))
    };
    let what = match rule {
        Rule::Cron(_) => format!("cron {}", numbers.map(|number| number.to_string()).join(" ")),
        Rule::Timer(period) => format!("timer {} s", period.as_secs_f64()),
    };
    match OPEN.get() {
        Some(background) => background.add(func, rule, &what),
        None => Ok(()),
    }
}

/// A number that is too large for us is a wrong value, not a wrong type.
fn as_value_error(error: PyErr, name: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let py = value.py();
    if error.is_instance_of::<PyOverflowError>(py) {
        return PyValueError::new_err(format!("{name} is out of range"));
    }
    let kind = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{name} must be a number, not {kind}"))
}

/// A function that the application has registered.
struct Job {
    function: Py<PyAny>,
    /// Its full name, and when it runs.
    name: String,
}

/// The run that is under way.
struct Run {
    job: usize,
    /// Tells this run from any other.
    number: u64,
    /// Python's identifier of the thread.
    thread: u64,
    since: Instant,
    /// Whether it was told that its time is up.
    told: bool,
}

#[derive(Default)]
struct Inside {
    table: Table,
    jobs: Vec<Arc<Job>>,
    run: Option<Run>,
    runs: u64,
    /// The jobs are this process's to run, and are due from now on.
    started: bool,
    /// To be called when none runs any more.
    stopping: Option<Ended>,
    has_thread: bool,
    /// No job runs, and none will.
    ended: bool,
    thread: Option<Py<PyAny>>,
    watch: Option<JoinHandle<()>>,
}

/// Called once, on any thread.
type Ended = Box<dyn FnOnce() + Send>;

/// Up to when the cron jobs are seen to, in memory that all processes share: a successor makes up for what was due since. A job that was
/// begun isn't begun again.
pub(super) struct Mark(SharedMemory);

impl Mark {
    /// Nothing is seen to yet. To be made before the first fork.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn new() -> std::io::Result<Self> {
        SharedMemory::new(1).map(Self)
    }

    fn set(&self, at: Timestamp) {
        self.0[0].store(u64::try_from(at.as_second()).unwrap_or(0), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Timestamp> {
        let seconds = self.0[0].load(Ordering::Relaxed);
        i64::try_from(seconds)
            .ok()
            .filter(|&seconds| seconds > 0)
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
    }
}

/// The jobs of a process, and the thread that runs them.
pub(super) struct Background {
    timeout: Duration,
    mark: Arc<Mark>,
    inside: Mutex<Inside>,
    changed: Condvar,
}

impl Background {
    /// Before the application is imported: from now on its jobs are kept.
    pub(super) fn open(plan: &Plan<'_>) {
        let background = || Self {
            timeout: plan.config.background_timeout,
            mark: Arc::clone(&plan.background_mark),
            inside: Mutex::default(),
            changed: Condvar::new(),
        };
        OPEN.get_or_init(|| Arc::new(background()));
    }

    /// The jobs of this process, if [`Background::open`] was called in it, or before it was forked.
    pub(super) fn get() -> Option<&'static Arc<Self>> {
        OPEN.get()
    }

    /// The jobs are this process's: they run from now on.
    pub(super) fn start(self: &Arc<Self>, py: Python<'_>) {
        let zone = zone();
        {
            let mut inside = self.lock(py);
            let now = now(&zone);
            inside.table.begin(now, self.mark.get());
            inside.started = true;
            for (number, job) in inside.jobs.iter().enumerate() {
                announce(&job.name, inside.table.next_run(number, now), &zone);
            }
        }
        self.start_thread(py);
    }

    /// No job begins any more. `ended` is called when none runs, which may be now.
    pub(super) fn stop(&self, py: Python<'_>, ended: Ended) {
        {
            let mut inside = self.lock(py);
            if inside.has_thread && !inside.ended {
                inside.stopping = Some(ended);
                self.changed.notify_all();
                return;
            }
            inside.stopping = Some(Box::new(|| ()));
        }
        ended();
    }

    /// After [`Background::stop`]: whether the job that ran has ended before `until`.
    pub(super) fn join(&self, py: Python<'_>, until: std::time::Instant) -> bool {
        let (thread, watch) = {
            let mut inside = self.lock(py);
            (inside.thread.take(), inside.watch.take())
        };
        let Some(thread) = thread else { return true };
        let left = until.saturating_duration_since(std::time::Instant::now()).as_secs_f64();
        let joined = thread.call_method1(py, "join", (left,)).and_then(|_| thread.call_method0(py, "is_alive"));
        let ended = joined.and_then(|alive| alive.extract::<bool>(py)).is_ok_and(|alive| !alive);
        if let (true, Some(watch)) = (ended, watch) {
            // It ends with the other; it panics never, and would have said so.
            let _ = py.detach(|| watch.join());
        }
        ended
    }

    fn add(self: &Arc<Self>, function: &Bound<'_, PyAny>, rule: Rule, what: &str) -> PyResult<()> {
        let py = function.py();
        let name = format!("{} ({what})", name_of(function));
        let job = Arc::new(Job { function: function.clone().unbind(), name });
        let zone = zone();
        {
            let mut inside = self.lock(py);
            if inside.stopping.is_some() {
                return Ok(());
            }
            let now = inside.started.then(|| now(&zone));
            let added = inside.table.add(rule, now);
            let number = added.map_err(|Full| {
                PyRuntimeError::new_err(format!("there are {} background jobs already", limits::BACKGROUND_JOBS_MAX))
            })?;
            if let Some(now) = now {
                announce(&job.name, inside.table.next_run(number, now), &zone);
            }
            inside.jobs.push(job);
        }
        self.changed.notify_all();
        self.start_thread(py);
        Ok(())
    }

    /// Starts the threads once there is something to do.
    fn start_thread(self: &Arc<Self>, py: Python<'_>) {
        {
            let mut inside = self.lock(py);
            if !inside.started || inside.stopping.is_some() || inside.has_thread || inside.jobs.is_empty() {
                return;
            }
            inside.has_thread = true;
        }
        if let Err(error) = self.spawn(py) {
            tracing::error!("can't start the thread for cron jobs and timers, none of them will run: {error}");
            self.end(py);
        }
    }

    fn spawn(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let this = Arc::clone(self);
        let target = PyCFunction::new_closure(
            py,
            Some(c"background"),
            None,
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                this.work(arguments.py())
            },
        )?;
        let options = PyDict::new(py);
        options.set_item("name", "hoopsnake-background")?;
        options.set_item("target", target)?;
        // A job that can't be ended must not keep the interpreter from ending.
        options.set_item("daemon", true)?;
        let thread = py.import("threading")?.getattr("Thread")?.call((), Some(&options))?;
        if self.timeout != Config::NO_LIMIT {
            let this = Arc::clone(self);
            let watch = std::thread::Builder::new().name("hoopsnake-watch".to_owned()).spawn(move || this.watch())?;
            self.lock(py).watch = Some(watch);
        }
        thread.call_method0("start")?;
        self.lock(py).thread = Some(thread.unbind());
        Ok(())
    }

    /// The thread of the jobs.
    fn work(&self, py: Python<'_>) -> PyResult<()> {
        let thread = py.import("threading")?.call_method0("get_ident")?.extract()?;
        while let Some(job) = self.next(py, thread) {
            let result = unless_child(py, job.function.bind(py).call0());
            // Before any other Python code: from here on nothing is raised in this thread any more.
            let took = self.finish(py);
            report(py, &job.name, result, took);
        }
        self.end(py);
        Ok(())
    }

    /// No job runs, and none will.
    fn end(&self, py: Python<'_>) {
        let ended = {
            let mut inside = self.lock(py);
            inside.ended = true;
            inside.stopping.replace(Box::new(|| ()))
        };
        self.changed.notify_all();
        if let Some(ended) = ended {
            ended();
        }
    }

    /// The next job that is due, marked as running; `None`: the server stops.
    fn next(&self, py: Python<'_>, thread: u64) -> Option<Arc<Job>> {
        loop {
            // Attached, since Python code may be setting TZ.
            let zone = zone();
            let looked = py.detach(|| {
                let mut inside = self.lock_detached();
                if inside.stopping.is_some() {
                    return Some(None);
                }
                let now = now(&zone);
                let take = inside.table.take(now);
                self.mark.set(now.wall);
                match take {
                    Take::Wait(wait) => {
                        drop(self.changed.wait_timeout(inside, wait).unwrap_or_else(PoisonError::into_inner));
                        None
                    }
                    Take::Run(job) => {
                        inside.runs += 1;
                        let number = inside.runs;
                        inside.run = Some(Run { job, number, thread, since: now.steady, told: false });
                        self.changed.notify_all();
                        Some(Some(Arc::clone(&inside.jobs[job])))
                    }
                }
            });
            if let Some(job) = looked {
                return job;
            }
        }
    }

    /// The run is over; how long it took.
    fn finish(&self, py: Python<'_>) -> Duration {
        let mut inside = self.lock(py);
        let Some(run) = inside.run.take() else { return Duration::ZERO };
        if run.told {
            // What hasn't been raised yet would hit the next job.
            set_async_exception(py, run.thread, None);
        }
        clock::now().since(run.since)
    }

    /// The thread that watches over the time limit, detached.
    fn watch(&self) {
        let mut inside = self.lock_detached();
        while !inside.ended {
            let now = clock::now();
            let wait = match &inside.run {
                Some(run) if !run.told => {
                    let left = self.timeout.saturating_sub(now.since(run.since));
                    if left.is_zero() {
                        let number = run.number;
                        drop(inside);
                        Python::try_attach(|py| self.interrupt(py, number));
                        inside = self.lock_detached();
                        continue;
                    }
                    left
                }
                // It is told of the next run.
                _ => Duration::from_secs(limits::BACKGROUND_CLOCK_CHECK_S),
            };
            inside = self.changed.wait_timeout(inside, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells a run that its time is up, unless it has ended meanwhile.
    fn interrupt(&self, py: Python<'_>, number: u64) {
        let exception = py.import("hoopsnake").and_then(|module| module.getattr("RequestTimeoutException"));
        let (thread, job) = {
            let mut inside = self.lock(py);
            let Some(run) = inside.run.as_mut().filter(|run| run.number == number) else { return };
            run.told = true;
            (run.thread, run.job)
        };
        let stack = stack_of(py, thread).unwrap_or_else(|error| format!("its stack can't be had: {error}"));
        let inside = self.lock(py);
        // Whoever ends the run needs the lock for it, so the exception can't reach another one.
        if inside.run.as_ref().is_none_or(|run| run.number != number) {
            return;
        }
        let raised = exception.map(|exception| set_async_exception(py, thread, Some(&exception)));
        let name = &inside.jobs[job].name;
        let limit = self.timeout.as_secs_f64();
        match raised {
            Ok(_) => tracing::error!(
                "background: {name} has run for {limit} s (--background-timeout): RequestTimeoutException is raised in it\n{}",
                stack.trim_end()
            ),
            Err(error) => tracing::error!("background: {name} has run for {limit} s and can't be interrupted: {error}"),
        }
    }

    /// Attached.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Inside> {
        self.inside.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// Detached, or without any bond to Python.
    fn lock_detached(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Local time as this process sees it: TZ, or /etc/localtime (read anew every few minutes). Where neither can be had: UTC.
fn zone() -> TimeZone {
    static TOLD: OnceLock<()> = OnceLock::new();
    TimeZone::try_system().unwrap_or_else(|error| {
        TOLD.get_or_init(|| tracing::warn!("background: no time zone can be had, cron jobs run in UTC: {error}"));
        TimeZone::UTC
    })
}

/// The clocks. `time(2)`, and Python's `time.localtime()` with it, is some milliseconds late: a second hasn't begun before it says so,
/// or a job for midnight would find itself in yesterday.
fn now(zone: &TimeZone) -> Now<'_> {
    let exact = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
    let begun = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
    let wall = if begun < exact.as_second() { Timestamp::new(begun, 999_000_000).unwrap_or(exact) } else { exact };
    Now { wall, steady: clock::now(), zone }
}

fn announce(name: &str, next: Option<Timestamp>, zone: &TimeZone) {
    match next {
        Some(next) => {
            let time = next.to_zoned(zone.clone());
            tracing::info!("background: {name} runs next at {}", time.strftime("%Y-%m-%d %H:%M:%S %z"));
        }
        None => tracing::warn!("background: {name} doesn't run any more"),
    }
}

/// `module.function`, or what Python shows of it.
fn name_of(function: &Bound<'_, PyAny>) -> String {
    let text = |attribute: &str| function.getattr(attribute).and_then(|value| value.extract::<String>());
    let name = match (text("__module__"), text("__qualname__")) {
        (Ok(module), Ok(name)) => format!("{module}.{name}"),
        _ => function.repr().map_or_else(|_| "a job".to_owned(), |text| text.to_string()),
    };
    let mut short: String = name.chars().take(NAME_MAX).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    short
}

/// The last words of a run.
fn report(py: Python<'_>, name: &str, result: PyResult<Bound<'_, PyAny>>, took: Duration) {
    let seconds = took.as_secs_f64();
    match result {
        Ok(_) => tracing::info!("background: {name} ended after {seconds:.3} s"),
        Err(error) => {
            let text = traceback(py, &error).unwrap_or_else(|_| error.to_string());
            tracing::error!("background: {name} raised\n{}", text.trim_end());
            tracing::error!("background: {name} failed after {seconds:.3} s");
        }
    }
}

fn traceback(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    let parts = (error.get_type(py), error.value(py), error.traceback(py));
    joined(py, py.import("traceback")?.call_method1("format_exception", parts)?)
}

/// Where a thread stands.
fn stack_of(py: Python<'_>, thread: u64) -> PyResult<String> {
    let frame = py.import("sys")?.call_method0("_current_frames")?.get_item(thread)?;
    joined(py, py.import("traceback")?.call_method1("format_stack", (frame,))?)
}

fn joined(py: Python<'_>, lines: Bound<'_, PyAny>) -> PyResult<String> {
    PyString::new(py, "").call_method1("join", (lines,))?.extract()
}
