//! The supervisor's interpreter: what [`crate::process::supervisor`] needs of Python, and what a worker is told when it is forked.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use super::application::{self, Loaded};
use super::background::Background;
use super::crashes::Crashes;
use super::{EXIT_FAILURE, End, Plan, announce, cant_start, parking, signals, worker};
use crate::process::bell::Bell;
use crate::process::board::Board;
use crate::process::hooks::Hook;
use crate::process::listeners::Bound;
use crate::process::slots::Settings;
use crate::process::supervisor::{self, Fork, Host, Outcome};
use crate::reactor::{poll, processes};

/// Supervises, or, in a worker that was forked, serves.
pub(super) fn run(
    py: Python<'_>,
    plan: &Plan<'_>,
    bound: Vec<Bound>,
    hooks: Vec<Box<dyn Hook>>,
) -> Result<End, String> {
    // For what is preloaded, and for the watchdog's SIGABRT. Its descriptor stays open until a process has its own.
    let _crashes = Crashes::tell(py, plan.config).map_err(cant_start)?;
    let preloaded = if plan.config.preload { Some(preload(py, plan)?) } else { None };
    parking::share().map_err(cant_start)?;
    let board = Arc::new(Board::new().map_err(cant_start)?);
    let bell = Bell::new().map_err(cant_start)?;
    signals::supervise(py, &bell).map_err(cant_start)?;
    let mut host = Interpreter { py, bell, plan, python: application::python(py).map_err(cant_start)? };
    match supervisor::run(&mut host, settings(plan), bound, board, hooks) {
        Outcome::Exit(code) => Ok(End::new(code)),
        Outcome::Worker(seat, bound) => {
            // The bell is the supervisor's.
            drop(host);
            Ok(worker::seated(py, plan, bound, seat, preloaded))
        }
    }
}

fn settings(plan: &Plan<'_>) -> Settings {
    let config = plan.config;
    Settings {
        processes: config.processes,
        graceful: config.graceful_timeout,
        start: config.start_timeout,
        max_requests: config.max_requests,
        max_requests_jitter: config.max_requests_jitter,
        max_lifetime: config.max_worker_lifetime,
        max_resident: config.max_rss,
    }
}

/// `--preload`: imports the application here. What is there now is taken out of the garbage collector's sight, so that it doesn't
/// write to memory that is shared with the workers.
fn preload(py: Python<'_>, plan: &Plan<'_>) -> Result<Loaded, String> {
    // The workers inherit what is registered; the first of them starts it.
    Background::open(plan);
    let loaded = application::load(py, plan.config)?;
    let threads = processes::threads();
    if threads > 1 {
        tracing::warn!(
            "--preload: the application has started {} thread(s) while it was imported; they don't exist in the processes that \
             serve. Start them at the first request, or leave --preload out",
            threads - 1
        );
    }
    let freeze = || -> PyResult<()> {
        let gc = py.import("gc")?;
        gc.call_method0("collect")?;
        gc.call_method0("freeze")?;
        Ok(())
    };
    freeze().map_err(|error| format!("--preload: {error}"))?;
    Ok(loaded)
}

struct Interpreter<'a, 'py> {
    py: Python<'py>,
    bell: Bell,
    plan: &'a Plan<'a>,
    python: String,
}

impl Interpreter<'_, '_> {
    fn try_fork(&self) -> PyResult<Fork> {
        let py = self.py;
        let sys = py.import("sys")?;
        for stream in ["stdout", "stderr"] {
            // What is buffered would be written by both. A stream that is closed has nothing.
            let _ = sys.getattr(stream).and_then(|stream| stream.call_method0("flush"));
        }
        let held = signals::hold();
        let pid = py.import("os")?.call_method0("fork")?.extract::<u32>()?;
        if pid > 0 {
            return Ok(Fork::Parent(pid));
        }
        if let Err(error) = signals::forget(py) {
            // There are two processes now, and this one must not take itself for the supervisor.
            tracing::error!("a process can't begin: {error}");
            processes::exit_now(EXIT_FAILURE);
        }
        drop(held);
        Ok(Fork::Child)
    }
}

impl Host for Interpreter<'_, '_> {
    fn signals(&mut self) -> Vec<i32> {
        if let Err(error) = self.py.check_signals() {
            tracing::error!("a signal handler of the application raised {error}");
        }
        self.bell.rings().into_iter().map(i32::from).collect()
    }

    fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn wait(&self, descriptors: &[BorrowedFd<'_>], timeout: Duration) -> Vec<bool> {
        self.py.detach(|| poll::readable(descriptors, timeout))
    }

    fn fork(&mut self) -> Result<Fork, String> {
        self.try_fork().map_err(|error| {
            format!("no process can be forked ({error}); raise the limit on processes (`ulimit -u`, the container's pids limit), or \
                     give the machine more memory")
        })
    }

    fn announce(&mut self, bound: &[Bound]) {
        announce(self.plan, bound, &self.python);
    }
}
