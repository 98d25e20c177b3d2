//! Who has run for too long: what the watchdog sees of each worker and `now` in, what is to be done out. Pure: no clock, no Python.
//!
//! A request that runs past `--request-timeout` is *overdue* and is interrupted, once. A worker that still runs it
//! [`limits::STUCK_GRACE_MS`] later is *stuck*: the exception didn't reach it. Both are told with the [`Word`] they were seen
//! with, so that whoever acts on it can make sure that the worker is still at the same request.

use std::time::Duration;

use crate::limits;
use crate::reactor::clock::Instant;

/// What a worker is at, in one word that changes with every request: a generation, and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    const RUNNING: u64 = 1;
    const INTERRUPTED: u64 = 2;
    const STUCK: u64 = 4;
    const GENERATION_SHIFT: u32 = 3;

    /// From the atomic it is kept in.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// For the atomic it is kept in.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Requests this worker's place has begun, over all its threads.
    pub const fn generation(self) -> u64 {
        self.0 >> Self::GENERATION_SHIFT
    }

    /// The next request has begun.
    #[must_use]
    pub const fn begun(self) -> Self {
        Self((self.generation() + 1) << Self::GENERATION_SHIFT | Self::RUNNING)
    }

    /// The request has ended.
    #[must_use]
    pub const fn ended(self) -> Self {
        Self(self.generation() << Self::GENERATION_SHIFT)
    }

    /// The exception is raised in this request.
    #[must_use]
    pub const fn interrupted(self) -> Self {
        Self(self.0 | Self::INTERRUPTED)
    }

    /// The worker counts as stuck in this request.
    #[must_use]
    pub const fn stuck(self) -> Self {
        Self(self.0 | Self::STUCK)
    }

    /// Whether a request is being run.
    pub const fn is_running(self) -> bool {
        self.0 & Self::RUNNING != 0
    }

    /// Whether the exception was raised in it.
    pub const fn is_interrupted(self) -> bool {
        self.0 & Self::INTERRUPTED != 0
    }

    /// Whether the worker counts as stuck.
    pub const fn is_stuck(self) -> bool {
        self.0 & Self::STUCK != 0
    }
}

/// What the watchdog has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Workers whose request is to be interrupted.
    pub overdue: Vec<(u32, Word)>,
    /// Workers that the exception hasn't reached.
    pub stuck: Vec<(u32, Word)>,
    /// When to look again for those seen now; a request that begins later is due a whole time-out later.
    pub next: Option<Instant>,
}

/// Remembers when each worker was interrupted.
pub struct Timekeeper {
    timeout: Duration,
    /// By worker: the generation that was found overdue, and when.
    found: Vec<(u64, Instant)>,
}

impl Timekeeper {
    /// For `seats` workers and this `--request-timeout`.
    pub fn new(seats: usize, timeout: Duration) -> Self {
        Self { timeout, found: vec![(0, Instant::NEVER); seats] }
    }

    /// What follows at `now` from what each worker is at: its word, and since when ([`Instant::NEVER`]: it waits for its client,
    /// whose time is limited elsewhere).
    pub fn look(&mut self, now: Instant, seats: impl Iterator<Item = (u32, Word, Instant)>) -> Findings {
        let mut findings = Findings::default();
        let mut again = |at: Instant| {
            findings.next = Some(findings.next.map_or(at, |next: Instant| next.min(at)));
        };
        for (index, word, since) in seats {
            let Some(found) = self.found.get_mut(index as usize) else { continue };
            if !word.is_running() || word.is_stuck() || since == Instant::NEVER {
                continue;
            }
            if word.is_interrupted() {
                if found.0 != word.generation() {
                    *found = (word.generation(), now);
                }
                let at = found.1 + Duration::from_millis(limits::STUCK_GRACE_MS);
                if at <= now {
                    findings.stuck.push((index, word))
                } else {
                    again(at)
                }
                continue;
            }
            let at = since + self.timeout;
            if at <= now {
                *found = (word.generation(), now);
                findings.overdue.push((index, word));
                again(now + Duration::from_millis(limits::STUCK_GRACE_MS));
            } else if at != Instant::NEVER {
                again(at);
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const GRACE: Duration = Duration::from_millis(limits::STUCK_GRACE_MS);

    const fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos((1_000_000 + milliseconds) * 1_000_000)
    }

    fn look(keeper: &mut Timekeeper, now: Instant, word: Word, since: Instant) -> (bool, bool, Option<Instant>) {
        let findings = keeper.look(now, [(0, word, since)].into_iter());
        let seen = |list: &[(u32, Word)]| match list {
            [] => false,
            [(0, found)] => *found == word,
            _ => panic!("{list:?}"),
        };
        (seen(&findings.overdue), seen(&findings.stuck), findings.next)
    }

    #[test]
    fn in_time_overdue_stuck() {
        let mut keeper = Timekeeper::new(1, TIMEOUT);
        let word = Word::default().begun();
        assert_eq!(look(&mut keeper, at(10), word, at(0)), (false, false, Some(at(0) + TIMEOUT)));
        assert_eq!(look(&mut keeper, at(1_999), word, at(0)), (false, false, Some(at(2_000))));
        assert_eq!(look(&mut keeper, at(2_000), word, at(0)), (true, false, Some(at(2_000) + GRACE)));
        let word = word.interrupted();
        assert_eq!(look(&mut keeper, at(2_001), word, at(0)), (false, false, Some(at(2_000) + GRACE)));
        assert_eq!(look(&mut keeper, at(2_000) + GRACE, word, at(0)), (false, true, None));
        assert_eq!(look(&mut keeper, at(9_000) + GRACE, word.stuck(), at(0)), (false, false, None), "once");
        let word = word.stuck().ended().begun();
        assert!(!word.is_stuck() && !word.is_interrupted());
        assert_eq!(look(&mut keeper, at(20_000), word, at(19_000)), (false, false, Some(at(21_000))));
    }

    #[test]
    fn who_waits_for_a_client_or_for_work_is_not_late() {
        let mut keeper = Timekeeper::new(1, TIMEOUT);
        let word = Word::default().begun();
        assert_eq!(look(&mut keeper, at(9_000), word, Instant::NEVER), (false, false, None));
        assert_eq!(look(&mut keeper, at(9_000), word.ended(), at(0)), (false, false, None));
        let mut without = Timekeeper::new(1, Duration::MAX);
        assert_eq!(look(&mut without, at(9_000), word, at(0)), (false, false, None), "no limit");
    }

    #[test]
    fn words_tell_their_requests_apart() {
        let mut word = Word::default();
        for generation in 1..100 {
            word = word.begun();
            assert_eq!((word.generation(), word.is_running()), (generation, true));
            let old = word;
            word = word.interrupted().stuck().ended();
            assert_eq!((word.generation(), word.is_running()), (generation, false));
            assert_ne!(word, old);
            assert_eq!(Word::from_bits(word.bits()), word);
        }
    }

    proptest! {
        /// However the looks fall: a request is found overdue once, not before its time, and stuck once, a grace later.
        #[test]
        fn nobody_is_found_early_or_twice(steps in proptest::collection::vec(1_u64..1_500, 1..60)) {
            let mut keeper = Timekeeper::new(1, TIMEOUT);
            let mut word = Word::default().begun();
            let (mut overdue, mut stuck, mut now) = (None, None, 0);
            for step in steps {
                now += step;
                let (late, lost, next) = look(&mut keeper, at(now), word, at(0));
                if late {
                    prop_assert!(overdue.replace(now).is_none() && now >= 2_000);
                    word = word.interrupted();
                }
                if lost {
                    prop_assert!(stuck.replace(now).is_none());
                    prop_assert!(now >= overdue.expect("interrupted before") + limits::STUCK_GRACE_MS);
                    word = word.stuck();
                }
                prop_assert!(next.is_none_or(|next| next > at(now)), "no look in vain");
                prop_assert!(next.is_some() || stuck.is_some());
            }
        }
    }
}
