//! A worker's side of its tie to the supervisor: what it says and hears, its row of the board, and its end when the supervisor is gone.
//!
//! A worker can't outlive its supervisor: the kernel sends it SIGTERM (`PR_SET_PDEATHSIG`), and a thread of its own, which needs
//! nothing of Python, sees the channel's end, has the reactors drain at once so that the port is free, and ends the process when
//! `--graceful-timeout` is over, whatever Python does.

use std::io;
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::bell::Ringer;
use super::board::{Board, Figure};
use super::channel::{Reason, ToSupervisor, ToWorker, WorkerEnd};
use crate::limits;
use crate::reactor::processes;

/// Exit code of a worker whose supervisor is gone.
const EXIT_ORPHANED: i32 = 1;

/// A worker's place.
#[derive(Debug)]
pub struct Seat {
    /// From 0.
    slot: usize,
    board: Arc<Board>,
    row: usize,
    supervisor: u32,
    channel: WorkerEnd,
    background: AtomicBool,
    asked: AtomicBool,
}

impl Seat {
    pub(super) fn new(slot: usize, board: Arc<Board>, row: usize, supervisor: u32, channel: WorkerEnd) -> Self {
        let (background, asked) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { slot, board, row, supervisor, channel, background, asked }
    }

    /// The first thing a worker does: ties its life to the supervisor's.
    ///
    /// # Errors
    /// When the supervisor is gone already.
    pub fn settle(&self) -> io::Result<()> {
        processes::die_with_parent(libc::SIGTERM)?;
        if parent_id() == self.supervisor { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    /// Number of the slot, from 1.
    pub fn number(&self) -> usize {
        self.slot + 1
    }

    /// All figures of all workers.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The row of the board that is this worker's.
    pub fn row(&self) -> usize {
        self.row
    }

    /// The application is loaded: waits until the sockets listen. False when the supervisor is gone.
    pub fn loaded(&self) -> bool {
        self.channel.send(&ToSupervisor::Loaded);
        loop {
            match self.channel.receive() {
                Some(ToWorker::Go) => return true,
                Some(ToWorker::Background) => self.background.store(true, Ordering::Release),
                None => return false,
            }
        }
    }

    /// It accepts connections.
    pub fn ready(&self) {
        self.channel.send(&ToSupervisor::Ready);
    }

    /// It can't begin. The supervisor says why: it knows whether the server ends, or goes on with others.
    pub fn failed(&self, reason: Reason) {
        self.channel.send(&ToSupervisor::Failed(reason));
    }

    /// It was told to stop, perhaps by the supervisor, and drains.
    pub fn leaving(&self) {
        self.channel.send(&ToSupervisor::Leaving);
    }

    /// Asks for a successor, once. When that is ready SIGTERM comes; a worker that has nothing left to do need not wait for it.
    /// `why` completes "it is replaced:".
    pub fn hand_over(&self, why: &str) {
        if !self.asked.swap(true, Ordering::AcqRel) {
            self.channel.send(&ToSupervisor::HandOver(why.to_owned()));
        }
    }

    /// Whether [`Seat::hand_over`] was called.
    pub fn hands_over(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether what belongs to no request is to be run by this worker, from now on.
    pub fn has_background(&self) -> bool {
        self.background.load(Ordering::Acquire)
    }

    /// The background has ended: another worker may have it.
    pub fn background_ended(&self) {
        self.background.store(false, Ordering::Release);
        self.channel.send(&ToSupervisor::BackgroundEnded);
    }

    /// One beat, and what is known of this worker now.
    pub fn beat(&self) {
        self.board.cell(self.row, Figure::Heartbeat).fetch_add(1, Ordering::Relaxed);
    }

    /// Starts the thread that hears the supervisor. It rings when there is news. When the supervisor is gone: `orphaned`, and the
    /// process ends when `graceful` and a little more is over.
    ///
    /// # Errors
    /// When there can't be another thread.
    pub fn listen(
        self: &Arc<Self>,
        ringer: Ringer,
        graceful: Duration,
        orphaned: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let seat = Arc::clone(self);
        thread::Builder::new().name("hoopsnake-control".to_owned()).spawn(move || {
            while let Some(message) = seat.channel.receive() {
                match message {
                    ToWorker::Background => seat.background.store(true, Ordering::Release),
                    ToWorker::Go => {}
                }
                ringer.ring();
            }
            tracing::error!("the supervisor is gone: stopping");
            orphaned();
            ringer.ring();
            // The process ends by itself before that, and this thread with it; only one that doesn't is ended.
            thread::sleep(graceful.saturating_add(Duration::from_millis(limits::LEAVE_MS)));
            processes::exit_now(EXIT_ORPHANED);
        })?;
        Ok(())
    }
}
