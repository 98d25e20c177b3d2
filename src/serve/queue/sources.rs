//! The sources of requests: how many of each run, how many were recent, and which of its waiting requests is the best and which
//! the worst.
//!
//! Most requests of a source are worth one of very few sums, for as long as they wait: those stand in *lanes*, one for each sum,
//! first come, first served. Only those that wear (their cost counts less and less) and those of odd sums stand in heaps.
//!
//! A source that nobody waits or runs for is kept for its history's sake only: until that is forgotten, or
//! [`limits::SOURCES_IDLE_MAX`] others have come to rest after it.

use ahash::AHashMap;

use super::formula::{self, FORGET_NS, Source};
use super::heap::{Heap, Key, NOWHERE};
use crate::limits;
use crate::reactor::clock::Instant;

/// The number of the one source that all exempt clients share; it is never counted.
pub(super) const EXEMPT: u32 = 0;
/// Requests that a source's heaps, and sums that its lanes keep room for when nothing waits.
const KEPT: usize = 4;
/// Sums of a source that have a lane at a time; past it requests stand in the heaps.
const LANES_MAX: usize = 16;

/// Waiting requests of a source that are worth the same and always will be.
#[derive(Debug)]
pub(super) struct Lane {
    worth: i32,
    /// The ends; between them each entry knows its neighbours.
    pub(super) oldest: u32,
    pub(super) newest: u32,
    /// The oldest one's number in the order of arrival.
    pub(super) sequence: u64,
}

/// One source.
#[derive(Debug)]
pub(super) struct State {
    source: Option<Source>,
    pub(super) running: u32,
    /// When its history is forgotten altogether: one second for each recent request.
    pub(super) until: Instant,
    /// Those of its waiting requests that stand in a queue, the lane worth most first.
    lanes: Vec<Lane>,
    /// The others, the one worth most first…
    pub(super) best: Heap,
    /// …and the one worth least first.
    pub(super) worst: Heap,
    /// Its places in the heaps of sources.
    pub(super) best_at: u32,
    pub(super) worst_at: u32,
    /// Whether it will be looked at when its history fades.
    pub(super) watched: bool,
    /// Neighbours among the idle.
    older: u32,
    newer: u32,
    idle: bool,
}

impl State {
    fn new(source: Option<Source>) -> Self {
        Self {
            source,
            running: 0,
            until: Instant::default(),
            lanes: Vec::new(),
            best: Heap::default(),
            worst: Heap::default(),
            best_at: NOWHERE,
            worst_at: NOWHERE,
            watched: false,
            older: NOWHERE,
            newer: NOWHERE,
            idle: false,
        }
    }

    /// What it takes off each of its requests.
    pub(super) fn penalty(&self, now: Instant) -> i64 {
        match self.source {
            None => 0,
            Some(_) => formula::penalty(self.running, formula::recent(self.until, now)),
        }
    }

    /// When its recent requests will next be one fewer; `None` if there are none.
    pub(super) fn fades_at(&self, now: Instant) -> Option<Instant> {
        let recent = formula::recent(self.until, now);
        (recent > 0).then(|| Instant::from_nanos(self.until.as_nanos() - recent * FORGET_NS + 1))
    }

    /// Counts a request that is started.
    pub(super) fn start(&mut self, now: Instant) {
        if self.source.is_some() {
            self.running += 1;
            let most = now.as_nanos().saturating_add(limits::SOURCE_HISTORY_MAX * FORGET_NS);
            let until = self.until.max(now).as_nanos().saturating_add(FORGET_NS);
            self.until = Instant::from_nanos(until.min(most));
        }
    }

    /// The lane of requests of this worth. If there is none yet, it is made, empty; `None` if there are too many.
    pub(super) fn lane(&mut self, worth: i32) -> Option<&mut Lane> {
        let at = match self.lanes.binary_search_by(|lane| worth.cmp(&lane.worth)) {
            Ok(at) => at,
            Err(_) if self.lanes.len() == LANES_MAX => return None,
            Err(at) => {
                self.lanes.insert(at, Lane { worth, oldest: NOWHERE, newest: NOWHERE, sequence: 0 });
                at
            }
        };
        self.lanes.get_mut(at)
    }

    /// The lane of requests of this worth is empty.
    pub(super) fn remove_lane(&mut self, worth: i32) {
        if let Ok(at) = self.lanes.binary_search_by(|lane| worth.cmp(&lane.worth)) {
            self.lanes.remove(at);
        }
    }

    /// Its waiting request that is worth most, the oldest of several: by what it is ordered, and its number.
    pub(super) fn best(&self) -> Option<(Key, u32)> {
        let first = self.lanes.first().map(|lane| ((-i64::from(lane.worth), lane.sequence), lane.oldest));
        earlier(first, self.best.first())
    }

    /// Its waiting request that is worth least, the oldest of several, likewise.
    pub(super) fn worst(&self) -> Option<(Key, u32)> {
        let last = self.lanes.last().map(|lane| ((i64::from(lane.worth), lane.sequence), lane.oldest));
        earlier(last, self.worst.first())
    }

    /// Where its best waiting request stands among the best of all, and its worst among the worst.
    pub(super) fn standing(&self, now: Instant) -> Option<(Key, Key)> {
        let ((best, best_sequence), _) = self.best()?;
        let ((worst, worst_sequence), _) = self.worst()?;
        let penalty = self.penalty(now);
        Some(((best + penalty, best_sequence), (worst - penalty, worst_sequence)))
    }
}

/// Of what a lane and what a heap has.
fn earlier(lane: Option<(Key, u32)>, heap: Option<(Key, u32)>) -> Option<(Key, u32)> {
    match (lane, heap) {
        (Some(lane), Some(heap)) => Some(lane.min(heap)),
        (lane, heap) => lane.or(heap),
    }
}

/// All of them, by number.
#[derive(Debug)]
pub(super) struct Sources {
    all: Vec<State>,
    numbers: AHashMap<Source, u32>,
    free: Vec<u32>,
    /// The one that has been idle for longest, and the one that has for shortest.
    oldest: u32,
    newest: u32,
    idle: usize,
}

impl Sources {
    pub(super) fn new() -> Self {
        Self {
            all: vec![State::new(None)],
            numbers: AHashMap::new(),
            free: Vec::new(),
            oldest: NOWHERE,
            newest: NOWHERE,
            idle: 0,
        }
    }

    pub(super) fn get(&mut self, number: u32) -> &mut State {
        &mut self.all[number as usize]
    }

    pub(super) fn all_mut(&mut self) -> &mut [State] {
        &mut self.all
    }

    /// The number of a source that something waits for now.
    pub(super) fn enter(&mut self, source: Option<Source>) -> u32 {
        let Some(source) = source else { return EXEMPT };
        if let Some(&number) = self.numbers.get(&source) {
            self.unlist(number);
            return number;
        }
        let number = match self.free.pop() {
            Some(number) => {
                let state = &mut self.all[number as usize];
                state.source = Some(source);
                state.until = Instant::default();
                number
            }
            None => {
                self.all.push(State::new(Some(source)));
                (self.all.len() - 1) as u32
            }
        };
        self.numbers.insert(source, number);
        number
    }

    /// Looks whether a source is idle now, and lets go of those that nothing is to be remembered of.
    pub(super) fn settle(&mut self, number: u32, now: Instant) {
        let state = &mut self.all[number as usize];
        if number == EXEMPT || state.idle || state.running > 0 || state.best().is_some() {
            return;
        }
        state.lanes.shrink_to(KEPT);
        state.best.shrink(KEPT);
        state.worst.shrink(KEPT);
        state.idle = true;
        state.older = self.newest;
        state.newer = NOWHERE;
        match self.newest {
            NOWHERE => self.oldest = number,
            newest => self.all[newest as usize].newer = number,
        }
        self.newest = number;
        self.idle += 1;
        // Two at most for each that comes: nobody has to do all of them.
        for _ in 0..2 {
            if self.oldest != NOWHERE
                && (self.idle > limits::SOURCES_IDLE_MAX || self.all[self.oldest as usize].until <= now)
            {
                self.forget(self.oldest);
            }
        }
    }

    fn forget(&mut self, number: u32) {
        self.unlist(number);
        if let Some(source) = self.all[number as usize].source.take() {
            self.numbers.remove(&source);
            self.free.push(number);
        }
    }

    fn unlist(&mut self, number: u32) {
        let state = &mut self.all[number as usize];
        if !std::mem::take(&mut state.idle) {
            return;
        }
        let (older, newer) = (state.older, state.newer);
        match older {
            NOWHERE => self.oldest = newer,
            older => self.all[older as usize].newer = newer,
        }
        match newer {
            NOWHERE => self.newest = older,
            newer => self.all[newer as usize].older = older,
        }
        self.idle -= 1;
    }

    /// Sources that something is remembered of.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> Option<Source> {
        Source::of(std::net::Ipv4Addr::from_bits(0x2000_0000 + number).into())
    }

    #[test]
    fn no_more_idle_ones_are_kept_than_the_limit_says_and_the_longest_idle_goes_first() {
        let mut sources = Sources::new();
        let now = Instant::from_nanos(1_000);
        let visit = |sources: &mut Sources, source| {
            let number = sources.enter(source);
            sources.get(number).start(now);
            sources.get(number).running = 0;
            sources.settle(number, now);
            number
        };
        for number in 0..2 * limits::SOURCES_IDLE_MAX as u32 {
            visit(&mut sources, source(number));
            visit(&mut sources, source(0));
        }
        assert_eq!(sources.len(), limits::SOURCES_IDLE_MAX);
        assert!(sources.all.len() <= limits::SOURCES_IDLE_MAX + 2, "places are used again");
        let known = sources.enter(source(0));
        assert!(sources.get(known).until > now, "it was there all the time");
        let forgotten = sources.enter(source(1));
        assert_eq!(sources.get(forgotten).until, Instant::default());
    }

    #[test]
    fn what_is_forgotten_is_let_go() {
        let mut sources = Sources::new();
        for number in 0..1_000 {
            let now = Instant::from_nanos(u64::from(number) * 2 * FORGET_NS);
            let number = sources.enter(source(number));
            sources.get(number).start(now);
            sources.get(number).running = 0;
            sources.settle(number, now);
        }
        assert_eq!(sources.len(), 1, "only of the last one something is remembered");
    }
}
