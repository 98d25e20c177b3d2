//! Who may run beside whom: requests worth [`IDLE_ONLY`] or less.
//!
//! Such a request begins only while no other one runs; with one exception. While a single one of them runs, and nothing else does,
//! a second one may join it if it is worth more by [`FAR`]. Without that, of two clients that both have asked for more than their
//! share, the one that asks for a little too much would wait behind each request of the one that asks without end.
//!
//! A request whose client doesn't read its response is paused: it counts as none that runs until it goes on. Otherwise one client that
//! stops reading would keep all such requests waiting.

use super::formula::{FAR, IDLE_ONLY};

/// The place of a request that is worth more than [`IDLE_ONLY`].
pub(super) const NONE: u32 = 0;

/// Those that run.
#[derive(Default)]
pub(super) struct Low {
    /// Their places: no more than requests that run.
    places: Vec<Option<Place>>,
}

#[derive(Clone, Copy)]
struct Place {
    /// What the request was worth when it was taken.
    worth: i64,
    paused: bool,
}

impl Low {
    /// How many run and aren't paused.
    pub(super) fn count(&self) -> usize {
        self.active().count()
    }

    fn active(&self) -> impl Iterator<Item = i64> {
        self.places.iter().flatten().filter(|place| !place.paused).map(|place| place.worth)
    }

    /// The place of a request that is worth so much, while `running` others run and aren't paused. `None`: it must wait.
    pub(super) fn place_for(&self, worth: i64, running: usize) -> Option<u32> {
        if worth > IDLE_ONLY {
            return Some(NONE);
        }
        let fits = match self.active().next() {
            _ if running == 0 => true,
            Some(other) => running == 1 && worth >= other + FAR,
            None => false,
        };
        let free = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        fits.then_some(free as u32 + 1)
    }

    /// One begins in a place that [`Low::place_for`] gave.
    pub(super) fn enter(&mut self, place: u32, worth: i64) {
        let Some(index) = index(place) else { return };
        if index >= self.places.len() {
            self.places.resize(index + 1, None);
        }
        self.places[index] = Some(Place { worth, paused: false });
    }

    /// One is paused, or goes on.
    pub(super) fn set_paused(&mut self, place: u32, paused: bool) {
        if let Some(Some(place)) = index(place).and_then(|index| self.places.get_mut(index)) {
            place.paused = paused;
        }
    }

    /// One has ended.
    pub(super) fn leave(&mut self, place: u32) {
        if let Some(place) = index(place).and_then(|index| self.places.get_mut(index)) {
            *place = None;
        }
    }
}

fn index(place: u32) -> Option<usize> {
    place.checked_sub(1).map(|index| index as usize)
}
