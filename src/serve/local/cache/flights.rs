//! Who asks the application for what, and which reactors have requests that wait for the same. The requests themselves wait in their
//! reactors.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use crate::limits;

/// What a request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Ask the application; others wait for the answer. [`Flights::land`] must follow.
    Lead,
    /// Wait until the reactor is told that it is there.
    Wait,
    /// Ask the application for itself: too many wait already, or for something that may take its time.
    Alone,
}

/// A request that is being answered by the application.
#[derive(Default)]
struct Flight {
    /// The reactors to be told.
    reactors: Vec<u16>,
    /// The answer comes in pieces, and has begun to.
    begun: bool,
}

/// Requests that are being answered by the application, by the name of what they want.
#[derive(Default)]
pub struct Flights {
    led: Mutex<HashMap<u64, Flight, RandomState>>,
    waiting: AtomicUsize,
}

impl Flights {
    /// Takes part in a flight. `may_wait`: whether the request would wait for another one.
    pub fn join(&self, flight: u64, reactor: u16, may_wait: bool) -> Part {
        let mut led = self.led();
        let Some(Flight { reactors, begun }) = led.get_mut(&flight) else {
            led.insert(flight, Flight::default());
            return Part::Lead;
        };
        if !may_wait || *begun || self.waiting.load(Ordering::Relaxed) >= limits::CACHE_WAITERS_MAX {
            return Part::Alone;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if !reactors.contains(&reactor) {
            reactors.push(reactor);
        }
        Part::Wait
    }

    /// The answer has begun to come in pieces; nobody joins in any more. The reactors to be told.
    pub fn begin(&self, flight: u64) -> Vec<u16> {
        let mut led = self.led();
        let Some(flight) = led.get_mut(&flight) else { return Vec::new() };
        flight.begun = true;
        flight.reactors.clone()
    }

    /// The answer is there, or won't come: the reactors to be told.
    pub fn land(&self, flight: u64) -> Vec<u16> {
        self.led().remove(&flight).unwrap_or_default().reactors
    }

    /// So many wait no more.
    pub fn leave(&self, requests: usize) {
        self.waiting.fetch_sub(requests, Ordering::Relaxed);
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn led(&self) -> MutexGuard<'_, HashMap<u64, Flight, RandomState>> {
        self.led.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_and_the_others_wait() {
        let flights = Flights::default();
        assert_eq!(flights.join(1, 0, true), Part::Lead);
        assert_eq!(flights.join(2, 0, true), Part::Lead);
        assert_eq!(flights.join(1, 0, true), Part::Wait);
        assert_eq!(flights.join(1, 3, true), Part::Wait);
        assert_eq!(flights.join(1, 3, true), Part::Wait);
        assert_eq!(flights.join(1, 4, false), Part::Alone);
        assert_eq!((flights.land(1), flights.waiting()), (vec![0, 3], 3));
        flights.leave(3);
        assert_eq!((flights.join(5, 0, true), flights.join(5, 7, true)), (Part::Lead, Part::Wait));
        assert_eq!((flights.begin(5), flights.begin(6)), (vec![7], vec![]));
        assert_eq!((flights.join(5, 0, true), flights.land(5)), (Part::Alone, vec![7]));
        flights.leave(1);
        assert_eq!((flights.land(1), flights.waiting()), (vec![], 0));
        assert_eq!(flights.join(1, 0, true), Part::Lead);
    }

    #[test]
    fn those_who_wait_are_bounded() {
        let flights = Flights::default();
        assert_eq!(flights.join(1, 0, true), Part::Lead);
        for _ in 0..limits::CACHE_WAITERS_MAX {
            assert_eq!(flights.join(1, 0, true), Part::Wait);
        }
        assert_eq!(flights.join(1, 0, true), Part::Alone);
        flights.leave(1);
        assert_eq!(flights.join(1, 0, true), Part::Wait);
    }
}
