//! Where others join the supervisor's life: what is done around binding, what is told when the server is ready, reloads and stops, and
//! one more descriptor that the supervisor waits on.

use std::os::fd::BorrowedFd;

/// What the supervisor has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// All first workers serve, or a reload has ended.
    Ready,
    /// A reload has begun.
    Reloading,
    /// A reload has succeeded; the old workers are told to leave next.
    TakenOver,
    /// The server was told to stop.
    Stopping,
    /// A second has passed.
    Second,
}

/// Somebody who takes part. Everything runs in the supervisor, whose only thread must not wait.
pub trait Hook {
    /// Told of each milestone.
    fn reached(&mut self, milestone: Milestone) {
        let _ = milestone;
    }

    /// A descriptor to wait on.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The descriptor is readable: whether to reload now.
    fn readable(&mut self) -> bool {
        false
    }
}
