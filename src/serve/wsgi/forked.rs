//! Children that the application forks (`os.fork`, `multiprocessing`). Such a child has a copy of everything and none of the threads:
//! what it would answer nobody sends, and the requests that it would find in the queue are its parent's. So it ends where its own code
//! would come back to the server's.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PySystemExit;
use pyo3::intern;
use pyo3::prelude::*;

use super::overseer::leave_at_once;

/// Whether this process is such a child.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Notes whether this process is a child of one that serves (true: to be called in each child, before anything else), or is one that
/// is going to serve itself.
pub fn set_child(is_child: bool) {
    IS_CHILD.store(is_child, Ordering::Relaxed);
}

/// What the application's code has come to, if this is the process that is to have it. A child ends: with the status of its
/// `SystemExit`, with 1 after another exception, otherwise with 0.
pub fn unless_child<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<T> {
    if IS_CHILD.load(Ordering::Relaxed) { leave(py, result.err()) } else { result }
}

#[cold]
fn leave(py: Python<'_>, error: Option<PyErr>) -> ! {
    let status = error.map_or(0, |error| {
        if error.is_instance_of::<PySystemExit>(py) {
            return status_of(
                &error.value(py).getattr(intern!(py, "code")).unwrap_or_else(|_| py.None().into_bound(py)),
            );
        }
        // Not in the error log: the thread that writes it is the parent's.
        error.print(py);
        1
    });
    for stream in ["stdout", "stderr"] {
        // Nobody is left to be told that it failed.
        let _ = py.import("sys").and_then(|sys| sys.getattr(stream)?.call_method0("flush"));
    }
    leave_at_once(status)
}

/// What Python makes of the argument of `sys.exit()`.
fn status_of(code: &Bound<'_, PyAny>) -> i32 {
    if code.is_none() {
        return 0;
    }
    code.extract().unwrap_or_else(|_| {
        let _ = writeln!(std::io::stderr(), "{code}");
        1
    })
}
