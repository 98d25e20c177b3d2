//! A coarse wheel of time-outs: it says whose deadline may have passed.
//!
//! Entries are never cancelled: whoever is named compares with its real deadline and is inserted again if that lies
//! later. The wheel reads no clock.

use std::time::Duration;

use super::Token;
use super::clock::Instant;
use crate::limits::{TIMER_SLOTS, TIMER_TICK_MS};

/// Nanoseconds of one slot.
const TICK_NS: u64 = TIMER_TICK_MS * 1_000_000;
/// Entries that a slot keeps room for when it is emptied; the rest is given back to the allocator.
const SLOT_KEPT_MAX: usize = 64;
/// Words of the map of occupied slots.
const WORDS: usize = TIMER_SLOTS / 64;

const _: () = assert!(TIMER_SLOTS.is_power_of_two() && TIMER_SLOTS >= 64);

struct Entry {
    token: Token,
    /// The tick at which it is due; its slot is that modulo [`TIMER_SLOTS`].
    tick: u64,
}

/// The wheel. Inserting is O(1); an entry is touched once per revolution (102.4 s) until it is due.
pub struct Wheel {
    slots: Vec<Vec<Entry>>,
    /// Bit `i % 64` of word `i / 64` is set exactly if slot `i` has entries.
    occupied: [u64; WORDS],
    /// The tick up to which (inclusive) everything due has been handed out.
    current: u64,
}

impl Wheel {
    /// An empty wheel that stands at `now`.
    pub fn new(now: Instant) -> Self {
        let slots = std::iter::repeat_with(Vec::new).take(TIMER_SLOTS).collect();
        Self { slots, occupied: [0; WORDS], current: now.as_nanos() / TICK_NS }
    }

    /// Has `token` handed out at `at` or at most one tick later. A time that has passed is due at the next tick.
    pub fn insert(&mut self, token: Token, at: Instant) {
        let tick = at.as_nanos().div_ceil(TICK_NS).max(self.current + 1);
        self.put(Entry { token, tick });
    }

    /// Moves to `now` and appends the tokens that have become due since.
    pub fn advance(&mut self, now: Instant, due: &mut Vec<Token>) {
        let target = now.as_nanos() / TICK_NS;
        if target <= self.current {
            return;
        }
        // After a whole revolution every slot has been met: further ticks find nothing new.
        let steps = (target - self.current).min(TIMER_SLOTS as u64);
        let first = self.current + 1;
        self.current = target;
        for tick in first..first + steps {
            let slot = tick as usize % TIMER_SLOTS;
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.empty_slot(slot, due);
            }
        }
    }

    /// When [`Wheel::advance`] should be called next. Early, at most once per revolution, for deadlines further off than that.
    pub fn next(&self) -> Option<Instant> {
        let first = (self.current + 1) as usize % TIMER_SLOTS;
        // The word of `first` is looked at twice: its upper bits first, its lower bits last.
        let upper = !0u64 << (first % 64);
        for step in 0..=WORDS {
            let word = (first / 64 + step) % WORDS;
            let mask = match step {
                0 => upper,
                WORDS => !upper,
                _ => !0,
            };
            let found = self.occupied[word] & mask;
            if found != 0 {
                let slot = word * 64 + found.trailing_zeros() as usize;
                let distance = (slot + TIMER_SLOTS - first) % TIMER_SLOTS;
                let tick = self.current + 1 + distance as u64;
                return Some(Instant::from_nanos(tick.saturating_mul(TICK_NS)));
            }
        }
        None
    }

    /// How long a turn that begins at `now` may wait for the wheel's sake.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.next().map(|next| next.since(now))
    }

    fn put(&mut self, entry: Entry) {
        let slot = entry.tick as usize % TIMER_SLOTS;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.slots[slot].push(entry);
    }

    /// Hands out the due entries of a slot; those of later revolutions stay.
    fn empty_slot(&mut self, slot: usize, due: &mut Vec<Token>) {
        let entries = &mut self.slots[slot];
        let current = self.current;
        entries.retain(|entry| {
            if entry.tick <= current {
                due.push(entry.token);
            }
            entry.tick > current
        });
        entries.shrink_to(SLOT_KEPT_MAX);
        if entries.is_empty() {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at_ms(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn token(slot: u32) -> Token {
        Token { slot, generation: 0 }
    }

    /// Inserts one token at `at` into a wheel standing at 1 s, and says at which of the visited times it comes out.
    fn check(at: u64, visits: &[u64], expected: Option<u64>) {
        let mut wheel = Wheel::new(at_ms(1_000));
        wheel.insert(token(7), at_ms(at));
        let mut found = None;
        for &visit in visits {
            let mut due = Vec::new();
            wheel.advance(at_ms(visit), &mut due);
            if !due.is_empty() {
                assert_eq!((due, found), (vec![token(7)], None), "handed out once");
                found = Some(visit);
            }
        }
        assert_eq!(found, expected, "due at {at}, visited at {visits:?}");
    }

    #[test]
    fn a_token_comes_out_at_the_first_visit_after_its_time() {
        check(1_500, &[1_100, 1_499, 1_500, 9_000], Some(1_500));
        check(1_501, &[1_500, 1_599, 1_600], Some(1_600));
        check(1_500, &[1_499], None);
        check(0, &[1_000, 1_099, 1_100], Some(1_100));
        check(1_500, &[900_000], Some(900_000));
        // Further off than a revolution, in the slot of a near one.
        check(1_500 + 102_400, &[1_500, 1_600, 103_899, 103_900], Some(103_900));
        check(1_000_000, &[500_000, 999_999, 1_000_000], Some(1_000_000));
    }

    #[test]
    fn next_is_the_earliest_occupied_tick() {
        let mut wheel = Wheel::new(at_ms(1_000));
        assert_eq!(wheel.next(), None);
        wheel.insert(token(1), at_ms(60_000));
        assert_eq!(wheel.next(), Some(at_ms(60_000)));
        wheel.insert(token(2), at_ms(2_050));
        assert_eq!(wheel.next(), Some(at_ms(2_100)));
        assert_eq!(wheel.wait(at_ms(2_000)), Some(Duration::from_millis(100)));
        wheel.advance(at_ms(3_000), &mut Vec::new());
        assert_eq!(wheel.next(), Some(at_ms(60_000)));
    }

    #[test]
    fn the_end_of_the_clock_is_a_time_like_any_other() {
        let mut wheel = Wheel::new(at_ms(0));
        wheel.insert(token(1), Instant::from_nanos(u64::MAX));
        let mut due = Vec::new();
        wheel.advance(at_ms(1 << 40), &mut due);
        assert_eq!(due, []);
        assert!(wheel.next().is_some());
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_model(steps in prop::collection::vec((0u64..400_000, prop::collection::vec(0u64..500_000, 0..6)), 1..60)) {
            let mut wheel = Wheel::new(at_ms(0));
            let mut model: Vec<(u64, u32)> = Vec::new();
            let (mut now, mut count) = (0, 0);
            for (step, inserts) in steps {
                for delay in inserts {
                    wheel.insert(token(count), at_ms(now + delay));
                    let due = (now + delay).div_ceil(TIMER_TICK_MS).max(now / TIMER_TICK_MS + 1) * TIMER_TICK_MS;
                    model.push((due, count));
                    count += 1;
                }
                if let Some(first) = model.iter().map(|entry| entry.0).min() {
                    prop_assert!(wheel.next().is_some_and(|next| next <= at_ms(first) && next > at_ms(now)));
                }
                now += step;
                let mut due = Vec::new();
                wheel.advance(at_ms(now), &mut due);
                let mut found: Vec<u32> = due.iter().map(|token| token.slot).collect();
                let mut expected: Vec<u32> = model.iter().filter(|entry| entry.0 <= now).map(|entry| entry.1).collect();
                model.retain(|entry| entry.0 > now);
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(wheel.next().is_none(), model.is_empty());
        }
    }
}
