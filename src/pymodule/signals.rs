//! Signals, through Python's `signal` module: its C-level handler wakes whoever waits on a bell, its Python-level handlers run in the
//! main thread.
//!
//! The supervisor learns the numbers from the bell, in order, and its handlers do nothing. A worker's handlers note what was asked.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::{EXIT_FAILURE, LAST_WORDS};
use crate::observe::error_log::ErrorLog;
use crate::process::bell::Bell;
use crate::reactor::processes::{self, Held};
use crate::serve::wsgi::forked;

/// Signals that come within this time of the first are one with it.
const SIGNALS_TOGETHER: Duration = Duration::from_millis(100);

/// What the supervisor acts upon, or must not die of.
const SUPERVISORS: [i32; 10] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGCHLD,
];

/// What a worker was asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// A [`Course`].
    course: AtomicU8,
    stacks: AtomicBool,
    figures: AtomicBool,
    /// To leave, because every worker is stuck.
    stuck: AtomicBool,
}

/// Whether a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Course {
    /// It does.
    Serving,
    /// Requests in flight are finished.
    Graceful,
    /// Nothing is waited for.
    Quick,
}

impl Asked {
    pub(super) fn course(&self) -> Course {
        match self.course.load(Ordering::SeqCst) {
            0 => Course::Serving,
            1 => Course::Graceful,
            _ => Course::Quick,
        }
    }

    /// Asks for an end, as a signal does.
    pub(super) fn stop(&self, course: Course) {
        self.course.fetch_max(course as u8, Ordering::SeqCst);
    }

    /// Every worker is stuck, and nobody can be asked for a successor.
    pub(super) fn stuck(&self) {
        self.stuck.store(true, Ordering::SeqCst);
    }

    /// Whether [`Asked::stuck`] was called.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::SeqCst)
    }

    /// Whether SIGUSR1 came since.
    pub(super) fn wants_stacks(&self) -> bool {
        self.stacks.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGUSR2 came since.
    pub(super) fn wants_figures(&self) -> bool {
        self.figures.swap(false, Ordering::Relaxed)
    }
}

/// The supervisor: all its signals ring the bell.
pub(super) fn supervise(py: Python<'_>, bell: &Bell) -> PyResult<()> {
    for signal in SUPERVISORS {
        handle(py, signal, |_| Ok(()))?;
    }
    ring(py, bell)
}

/// Holds the supervisor's signals back around a fork. Not by way of Python, which would run handlers of the application in between.
pub(super) fn hold() -> Held {
    processes::hold(&SUPERVISORS)
}

/// A process that was just forked: no signal of its own may ring the supervisor's bell. Until it serves, it can be ended at once; the
/// signals that mean nothing to it go on doing nothing.
pub(super) fn forget(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    signal.call_method1("set_wakeup_fd", (-1,))?;
    for number in [libc::SIGTERM, libc::SIGQUIT, libc::SIGCHLD] {
        signal.call_method1("signal", (number, signal.getattr("SIG_DFL")?))?;
    }
    Ok(())
}

/// Children that the application forks from now on (`os.fork`, `multiprocessing`) are no servers: signals mean to them what they mean to
/// any program (`Process.terminate()` sends SIGTERM), and ring no bell of their parent's. Handlers of the application's own stay.
pub(super) fn free_children(py: Python<'_>) -> PyResult<()> {
    thread_local! {
        /// Around a fork of this thread: what comes before the child has its own handlers waits until it has.
        static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
    }
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    forked::set_child(false);
    if REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let options = PyDict::new(py);
    let hook = |when: &str, act: fn(Python<'_>) -> PyResult<()>| {
        let hook = PyCFunction::new_closure(
            py,
            Some(c"hoopsnake_fork"),
            None,
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| act(arguments.py()),
        )?;
        options.set_item(when, hook)
    };
    hook("before", |_| {
        HELD.set(Some(hold()));
        Ok(())
    })?;
    hook("after_in_parent", |_| {
        HELD.set(None);
        Ok(())
    })?;
    hook("after_in_child", |py| {
        forked::set_child(true);
        let freed = give_back(py);
        HELD.set(None);
        freed
    })?;
    py.import("os")?.call_method("register_at_fork", (), Some(&options))?;
    Ok(())
}

/// Gives signals back to Python that have handlers of ours.
fn give_back(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    signal.call_method1("set_wakeup_fd", (-1,))?;
    for (number, handler) in handlers(py) {
        if signal.call_method1("getsignal", (&number,))?.is(&handler) {
            let interrupts = number.extract::<i32>()? == libc::SIGINT;
            let name = if interrupts { "default_int_handler" } else { "SIG_DFL" };
            signal.call_method1("signal", (number, signal.getattr(name)?))?;
        }
    }
    Ok(())
}

/// The handlers that were set here, by their signals' numbers.
fn handlers(py: Python<'_>) -> &Bound<'_, PyDict> {
    static HANDLERS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    HANDLERS.get_or_init(py, || PyDict::new(py).unbind()).bind(py)
}

/// A process that imports the application, in which nobody looks at what is asked: SIGUSR1 is answered from the signal's own handler, by
/// `faulthandler`, whatever the import waits for. SIGUSR2 has no answer yet, and doesn't end it either.
pub(super) fn import(py: Python<'_>, stacks_to: RawFd) -> PyResult<()> {
    for number in [libc::SIGUSR1, libc::SIGUSR2] {
        handle(py, number, |_| Ok(()))?;
    }
    let options = PyDict::new(py);
    options.set_item("file", stacks_to)?;
    options.set_item("all_threads", true)?;
    py.import("faulthandler")?.call_method("register", (libc::SIGUSR1,), Some(&options))?;
    Ok(())
}

/// A worker: SIGTERM asks for a graceful stop, SIGQUIT for a quick one, SIGUSR1 and SIGUSR2 for what `inspection` writes.
///
/// Without a supervisor SIGINT is a quick stop as well, and a second signal ends the process at once. Two that come together are one:
/// `timeout`, and a terminal's Ctrl-C through a wrapper, send the signal to the process and again to its group. With one, the
/// supervisor counts: the group's signals reach the worker twice, too.
pub(super) fn serve(py: Python<'_>, bell: &Bell, asked: &Arc<Asked>, alone: Option<&ErrorLog>) -> PyResult<()> {
    let first: Arc<OnceLock<Instant>> = Arc::default();
    let mut ends = vec![(libc::SIGTERM, Course::Graceful), (libc::SIGQUIT, Course::Quick)];
    if alone.is_some() {
        ends.push((libc::SIGINT, Course::Quick));
    }
    for (number, course) in ends {
        let (asked, alone, first) = (Arc::clone(asked), alone.cloned(), Arc::clone(&first));
        handle(py, number, move |py| {
            let again = asked.course() != Course::Serving;
            asked.stop(course);
            let came = *first.get_or_init(Instant::now);
            let Some(error_log) = alone.as_ref().filter(|_| again && came.elapsed() > SIGNALS_TOGETHER) else {
                return Ok(());
            };
            tracing::warn!("a second signal: stopping at once");
            py.detach(|| error_log.shutdown(LAST_WORDS));
            py.import("os")?.call_method1("_exit", (EXIT_FAILURE,))?;
            Ok(())
        })?;
    }
    py.import("faulthandler")?.call_method1("unregister", (libc::SIGUSR1,))?;
    let this = Arc::clone(asked);
    handle(py, libc::SIGUSR1, move |_| {
        this.stacks.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    let this = Arc::clone(asked);
    handle(py, libc::SIGUSR2, move |_| {
        this.figures.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    ring(py, bell)
}

/// A process that is about to end: whoever asks it for stacks or figures now must not end it earlier, as Python would give these
/// signals back their own meaning.
pub(super) fn ignore_requests(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    for number in [libc::SIGUSR1, libc::SIGUSR2] {
        signal.call_method1("signal", (number, signal.getattr("SIG_IGN")?))?;
    }
    Ok(())
}

fn ring(py: Python<'_>, bell: &Bell) -> PyResult<()> {
    let options = PyDict::new(py);
    options.set_item("warn_on_full_buffer", false)?;
    py.import("signal")?.call_method("set_wakeup_fd", (bell.writer_fd(),), Some(&options))?;
    Ok(())
}

fn handle(
    py: Python<'_>,
    number: i32,
    act: impl Fn(Python<'_>) -> PyResult<()> + Send + Sync + 'static,
) -> PyResult<()> {
    let handler = PyCFunction::new_closure(
        py,
        Some(c"signal"),
        None,
        move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| act(arguments.py()),
    )?;
    py.import("signal")?.call_method1("signal", (number, &handler))?;
    handlers(py).set_item(number, handler)
}
