//! What a worker writes to standard output when it is asked: SIGUSR1 and SIGUSR2.

use std::io::Write;

use pyo3::prelude::*;

use crate::observe::status::Lines;
use crate::process::board::Figure;
use crate::process::seat::Seat;
use crate::serve::wsgi::Overseer;
use crate::serve::{Shared, caching};

/// SIGUSR1: the Python stacks of all threads, with the request that each worker serves.
pub(super) fn stacks(py: Python<'_>, number: usize, overseer: &Overseer) {
    print_apart(format!("{number}: stacks of process {}\n{}", std::process::id(), overseer.stacks(py)));
}

/// SIGUSR2: every room's figures. What a room counts, it adds here.
pub(super) fn figures(py: Python<'_>, number: usize, overseer: &Overseer, shared: &Shared, seat: Option<&Seat>) {
    let mut lines = Lines::new(number as u32);
    overseer.report(py, &mut lines);
    lines.line("Parked requests", shared.notifier.parked());
    lines.line("Notices to parked requests", shared.notifier.latest());
    shared.blocking.report(&mut lines);
    if let Some(cache) = &shared.cache {
        caching::report(cache, &mut lines);
    }
    shared.pool.status().report(&mut lines);
    if let Some(seat) = seat {
        lines.line("Resident memory (in bytes)", seat.board().get(seat.row(), Figure::Resident));
    }
    print_apart(lines.into_text());
}

/// On a thread of its own: whoever reads standard output may be slow.
fn print_apart(text: String) {
    let print = move || {
        let mut stdout = std::io::stdout().lock();
        // In one piece, for the access log may write there as well. There is nobody to tell that it failed.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    };
    if let Err(error) = std::thread::Builder::new().name("hoopsnake-report".into()).spawn(print) {
        tracing::error!("can't start a thread to write on standard output: {error}");
    }
}
