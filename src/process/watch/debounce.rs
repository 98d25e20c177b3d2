//! When changes count as complete: some time after the last, at the latest some time after the first. Pure.

use std::time::{Duration, Instant};

use crate::limits::{RELOAD_DELAY_MS_MAX, RELOAD_QUIET_MS};

/// A burst of changes, while there is one.
#[derive(Debug, Default)]
pub struct Debounce(Option<Burst>);

#[derive(Clone, Copy, Debug)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Debounce {
    /// Something changed.
    pub fn touch(&mut self, now: Instant) {
        let first = self.0.map_or(now, |burst| burst.first);
        self.0 = Some(Burst { first, last: now });
    }

    /// When the burst is over, if nothing else changes.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.map(|burst| {
            let quiet = burst.last + Duration::from_millis(RELOAD_QUIET_MS);
            quiet.min(burst.first + Duration::from_millis(RELOAD_DELAY_MS_MAX))
        })
    }

    /// Whether a burst is over; it is told once.
    pub fn over(&mut self, now: Instant) -> bool {
        let over = self.deadline().is_some_and(|deadline| deadline <= now);
        if over {
            self.0 = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_told_once() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut debounce = Debounce::default();
        assert!(!debounce.over(at(0)) && debounce.deadline().is_none());
        debounce.touch(at(0));
        debounce.touch(at(100));
        assert_eq!(debounce.deadline(), Some(at(100 + RELOAD_QUIET_MS)));
        assert!(!debounce.over(at(99 + RELOAD_QUIET_MS)));
        assert!(debounce.over(at(100 + RELOAD_QUIET_MS)));
        assert!(!debounce.over(at(10_000)) && debounce.deadline().is_none());
    }

    proptest! {
        /// However changes come, each is followed by a reload within the longest delay.
        #[test]
        fn no_change_is_forgotten(gaps in proptest::collection::vec(0u64..400, 1..100)) {
            let start = Instant::now();
            let mut debounce = Debounce::default();
            let (mut now, mut unseen): (Instant, Option<Instant>) = (start, None);
            for gap in gaps {
                let next = now + Duration::from_millis(gap);
                if let Some(deadline) = debounce.deadline().filter(|deadline| *deadline <= next) {
                    prop_assert!(debounce.over(deadline));
                    prop_assert!(deadline - unseen.take().unwrap() <= Duration::from_millis(RELOAD_DELAY_MS_MAX));
                }
                now = next;
                debounce.touch(now);
                unseen.get_or_insert(now);
            }
            let deadline = debounce.deadline().unwrap();
            prop_assert!(deadline >= now.min(unseen.unwrap() + Duration::from_millis(RELOAD_DELAY_MS_MAX)));
            prop_assert!(debounce.over(deadline));
        }
    }
}
