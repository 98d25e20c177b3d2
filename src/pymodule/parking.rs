//! `hoopsnake._core.notify_parked`: what applications wake parked requests with.

use std::io;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::limits;
use crate::serve::bus::Bus;
use crate::serve::exchange::Mailbox;
use crate::serve::notify::{self, Notifier};
use crate::serve::park::Action;

/// Of the server that runs in this process.
static NOTIFIER: OnceLock<Arc<Notifier>> = OnceLock::new();
/// Of all processes of the supervisor.
static BUS: OnceLock<Arc<Bus>> = OnceLock::new();

/// The supervisor, before it forks: notices reach all its processes.
///
/// # Errors
/// When there is no memory.
pub(super) fn share() -> io::Result<()> {
    // There is one supervisor, in one process.
    let _ = BUS.set(Arc::new(Bus::new()?));
    Ok(())
}

/// From now on notices go to the requests of this process, and those of others come in.
///
/// # Errors
/// When there can't be another thread.
pub(super) fn open(mailboxes: &[Arc<Mailbox>]) -> io::Result<Arc<Notifier>> {
    let bus = BUS.get().map(|bus| (Arc::clone(bus), std::process::id()));
    let notifier = Arc::new(Notifier::new(mailboxes.to_vec(), bus));
    notifier.listen()?;
    // There is one server in a process.
    let _ = NOTIFIER.set(Arc::clone(&notifier));
    Ok(notifier)
}

/// Wakes the requests that are parked on one of `channels` (separated by commas), in every process. From any thread; without a server:
/// nothing.
#[pyfunction]
#[pyo3(signature = (channels, action, arg, /))]
pub(super) fn notify_parked(py: Python<'_>, channels: &str, action: i64, arg: Option<&str>) -> PyResult<()> {
    let arg = arg.unwrap_or_default();
    let bytes = channels.len() + arg.len();
    if bytes > limits::NOTICE_BYTES_MAX {
        return Err(PyValueError::new_err(format!(
            "channels and arg have {bytes} bytes, and {} at most can be passed on: pass a key, and keep what it stands for elsewhere",
            limits::NOTICE_BYTES_MAX
        )));
    }
    let action = Action::from_number(action);
    py.detach(|| match (NOTIFIER.get(), BUS.get()) {
        (Some(notifier), _) => notifier.notify(channels, action, arg),
        // While the application is still being imported: there is nobody here, but elsewhere.
        (None, Some(bus)) => notify::pass_on(bus, std::process::id(), channels, action, arg),
        (None, None) => {}
    });
    Ok(())
}
