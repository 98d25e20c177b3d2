//! `--daemon`: the forks, through Python's `os`, and what the command that was typed does until the server is ready.

use pyo3::prelude::*;

use super::EXIT_FAILURE;
use crate::config::{Config, LogTarget};
use crate::process::daemon::{self, Report};

/// On which side of the forks this is.
pub(super) enum Side {
    /// The command that was typed: it ends with this exit code.
    Starter(i32),
    /// What becomes the server: in the background, or, without `--daemon`, where it was started.
    Server(Option<Report>),
}

/// Goes to the background if that was asked for. The process has one thread and has opened nothing so far.
pub(super) fn begin(py: Python<'_>, config: &Config) -> Result<Side, String> {
    if !config.daemon || config.check {
        return Ok(Side::Server(None));
    }
    let fault = |error: std::io::Error| format!("--daemon: can't go to the background ({error})");
    let python = |error: PyErr| format!("--daemon: can't go to the background ({error})");
    let (waiting, report) = daemon::pair().map_err(fault)?;
    if fork(py).map_err(python)? == Fork::Child {
        drop(waiting);
        daemon::detach_input().map_err(fault)?;
        return Ok(Side::Server(Some(report)));
    }
    drop(report);
    let ready = py.detach(|| waiting.wait());
    if !ready {
        let log = match &config.error_log {
            LogTarget::File(path) => format!("; {} says why", path.display()),
            LogTarget::Off | LogTarget::Standard => String::new(),
        };
        eprintln!("hoopsnake: --daemon: the server ended before it was ready{log}");
    }
    Ok(Side::Starter(if ready { 0 } else { EXIT_FAILURE }))
}

#[derive(PartialEq)]
enum Fork {
    Starter,
    Child,
}

/// Two forks: the process in between leads a session without a terminal and ends, so that the last one leads none and can never come
/// by a terminal.
fn fork(py: Python<'_>) -> PyResult<Fork> {
    flush(py);
    let os = py.import("os")?;
    let between = os.call_method0("fork")?;
    if between.extract::<i32>()? != 0 {
        os.call_method1("waitpid", (between, 0))?;
        // It waits outside of Python: Ctrl-C ends it at once, and the server finds out when it wants to report.
        let signal = py.import("signal")?;
        signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("SIG_DFL")?))?;
        return Ok(Fork::Starter);
    }
    os.call_method0("setsid")?;
    if os.call_method0("fork")?.extract::<i32>()? != 0 {
        os.call_method1("_exit", (0,))?;
    }
    Ok(Fork::Child)
}

/// A process that is ready lets go of the terminal, once what Python has buffered is out.
pub(super) fn let_go(py: Python<'_>, config: &Config) -> Result<(), String> {
    if !config.daemon {
        return Ok(());
    }
    flush(py);
    daemon::detach_output().map_err(|error| format!("--daemon: /dev/null can't be opened ({error})"))
}

/// What is buffered would be written twice, or to nowhere. A stream that is closed has nothing.
fn flush(py: Python<'_>) {
    for stream in ["stdout", "stderr"] {
        let _ = py.import("sys").and_then(|sys| sys.getattr(stream)?.call_method0("flush"));
    }
}
