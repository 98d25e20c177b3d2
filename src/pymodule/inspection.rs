//! What a worker writes to standard output when it is asked: SIGUSR1 and SIGUSR2. In the background (`--daemon`) there is no standard
//! output; then the error log has it.

use std::io::Write;

use pyo3::prelude::*;

use crate::observe::error_log::ErrorLog;
use crate::observe::status::Lines;
use crate::process::board::Figure;
use crate::process::seat::Seat;
use crate::serve::wsgi::Overseer;
use crate::serve::{Shared, caching};

/// Who answers, and where to.
pub(super) struct Asked<'a> {
    /// What the log calls this process, from 1.
    pub(super) number: usize,
    /// It was told to end, and hasn't yet.
    pub(super) leaves: bool,
    /// In the background: where it is written.
    pub(super) error_log: Option<&'a ErrorLog>,
}

impl Asked<'_> {
    /// Behind the pid: another process with this number may serve already.
    fn addition(&self) -> &'static str {
        if self.leaves { ", which is ending" } else { "" }
    }

    fn write(&self, text: String) {
        match self.error_log {
            Some(error_log) => error_log.answer(text),
            None => print_apart(text),
        }
    }
}

/// SIGUSR1: the Python stacks of all threads, with the request that each worker serves.
pub(super) fn stacks(py: Python<'_>, asked: &Asked<'_>, overseer: &Overseer) {
    let (number, addition) = (asked.number, asked.addition());
    let stacks = overseer.stacks(py);
    asked.write(format!("{number}: stacks of process {}{addition}\n{stacks}", std::process::id()));
}

/// SIGUSR2: every room's figures. What a room counts, it adds here.
pub(super) fn figures(py: Python<'_>, asked: &Asked<'_>, overseer: &Overseer, shared: &Shared, seat: Option<&Seat>) {
    let mut lines = Lines::new(asked.number as u32);
    lines.line("Process", format_args!("{}{}", std::process::id(), asked.addition()));
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
    asked.write(lines.into_text());
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
