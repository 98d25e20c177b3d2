//! Who may run beside whom: requests worth [`IDLE_ONLY`] or less.
//!
//! Such a request begins only while no other one runs; with one exception. While a single one of them runs, and nothing else does,
//! a second one may join it if it is worth more by [`FAR`]. Without that, of two clients that both have asked for more than their
//! share, the one that asks for a little too much would wait behind each request of the one that asks without end.

use super::formula::{FAR, IDLE_ONLY};

/// The place of a request that is worth more than [`IDLE_ONLY`].
pub(super) const NONE: u8 = 0;
/// How many may run at a time: one, and one that is worth far more.
const PLACES: usize = 2;

/// Those that run.
#[derive(Default)]
pub(super) struct Low {
    /// What they were worth when they were taken.
    worth: [Option<i64>; PLACES],
}

impl Low {
    /// How many run.
    pub(super) fn count(&self) -> usize {
        self.worth.iter().flatten().count()
    }

    /// The place of a request that is worth so much, while `running` others run. `None`: it must wait.
    pub(super) fn place_for(&self, worth: i64, running: usize) -> Option<u8> {
        if worth > IDLE_ONLY {
            return Some(NONE);
        }
        let fits = match self.worth.iter().flatten().next() {
            _ if running == 0 => true,
            Some(other) => running == 1 && worth >= other + FAR,
            None => false,
        };
        let free = self.worth.iter().position(Option::is_none);
        free.filter(|_| fits).map(|place| place as u8 + 1)
    }

    /// One begins in a place that [`Low::place_for`] gave.
    pub(super) fn enter(&mut self, place: u8, worth: i64) {
        if place != NONE {
            self.worth[usize::from(place) - 1] = Some(worth);
        }
    }

    /// One has ended.
    pub(super) fn leave(&mut self, place: u8) {
        if place != NONE {
            self.worth[usize::from(place) - 1] = None;
        }
    }
}
