//! Who is next: the requests that wait for a worker, in the order of what they are worth ([`formula`]).
//!
//! What a request is worth changes while it waits: with each request of its source that starts or ends, with each second of
//! the source's history that is forgotten, with the cost that wears off. Nothing is ever worked out again for the whole queue:
//! what a source takes off, it takes off all its requests alike, so their order among themselves stays, and only the source
//! moves in a heap of sources. Every operation is O(log n).
//!
//! ```text
//! heaps of sources (best first, worst first) ── each has ── lanes of its requests (first come, first served), one for each worth,
//!        ▲                                                  and heaps of those whose worth changes (best first, worst first)
//!        └ a source moves when one of its requests starts or ends, or at the time noted in `due`
//! ```
//!
//! Pure: it reads no clock, and doesn't know what it keeps.

pub mod cost;
pub mod formula;
mod heap;
mod low;
pub mod rules;
mod sources;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

use crate::limits;
use crate::reactor::clock::Instant;
use formula::{Asking, COST};
use heap::{Heap, NOWHERE};
use low::Low;
use sources::{Sources, State};

/// One request that waits.
struct Entry<T> {
    item: T,
    /// What it is worth before its source is looked at.
    worth: i32,
    cost_levels: u8,
    /// Its number in the order of arrival.
    sequence: u64,
    arrived: Instant,
    source: u32,
    /// Whether it stands in a lane of its source; otherwise in its heaps.
    in_lane: bool,
    /// Its neighbours in the lane.
    before: u32,
    behind: u32,
    /// Its places in the heaps.
    best_at: u32,
    worst_at: u32,
    /// Its neighbours in the order of arrival.
    older: u32,
    newer: u32,
}

/// Something that changes at a given time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A source has a recent request less.
    Source(u32),
    /// A level of an entry's cost has worn off; the entry's number in the order of arrival tells whether it is still that one.
    Entry(u32, u64),
}

/// A request whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<T> {
    /// The request.
    pub item: T,
    /// What it was worth when it was taken.
    pub priority: i32,
    /// To be given back by [`Queue::finish`].
    pub run: Run,
}

/// A request that runs, to its source. Whoever takes one must give it back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a run that is never finished counts against its source for ever"]
pub struct Run {
    source: u32,
    /// Its place among those of little worth, if it is one of them.
    low: u32,
}

impl Run {
    /// What names it: for whoever may have to finish it in its owner's place.
    pub fn name(&self) -> u64 {
        u64::from(self.source) | u64::from(self.low) << u32::BITS
    }

    /// The run of a request whose owner will never finish it, by [`Run::name`].
    pub fn in_place_of(name: u64) -> Self {
        Self { source: name as u32, low: (name >> u32::BITS) as u32 }
    }

    /// Whether its request was worth so little that it waits for an idle server ([`formula::IDLE_ONLY`]).
    pub fn is_low(&self) -> bool {
        self.low != low::NONE
    }
}

/// Whether anything can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing waits.
    Empty,
    /// Something can be taken now.
    Ready,
    /// What waits is not worth enough while other requests run; look again when one of them ends, or at this time.
    Held(Instant),
}

/// The queue.
pub struct Queue<T> {
    entries: Slab<Entry<T>>,
    sources: Sources,
    /// The sources that something waits for: the one with the request worth most first…
    best: Heap,
    /// …and the one with the request worth least first.
    worst: Heap,
    due: BinaryHeap<Reverse<(Instant, Due)>>,
    /// The ends of the order of arrival.
    oldest: u32,
    newest: u32,
    sequence: u64,
    running: usize,
    /// Of those, the ones that are paused.
    paused: usize,
    low: Low,
    /// Never goes back, whatever order threads come in.
    now: Instant,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            sources: Sources::new(),
            best: Heap::default(),
            worst: Heap::default(),
            due: BinaryHeap::new(),
            oldest: NOWHERE,
            newest: NOWHERE,
            sequence: 0,
            running: 0,
            paused: 0,
            low: Low::default(),
            now: Instant::default(),
        }
    }
}

impl<T> Queue<T> {
    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Requests that were taken and have not ended.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Of those, the ones that were worth so little that they had to wait for the others ([`formula::IDLE_ONLY`]), and aren't paused.
    /// Whatever can be taken beside them is worth far more.
    pub fn running_low(&self) -> usize {
        self.low.count()
    }

    /// The number that the next request added will have.
    pub fn next_number(&self) -> u32 {
        self.entries.vacant_key() as u32
    }

    /// Adds a request that arrived at `arrived`. The number by which it can be withdrawn until it is taken.
    pub fn push(&mut self, item: T, asking: Asking, arrived: Instant, now: Instant) -> u32 {
        self.advance(now);
        let source = self.sources.enter(asking.source);
        let cost_levels = asking.cost_levels.min(cost::LEVELS_MAX);
        self.sequence += 1;
        let sequence = self.sequence;
        let mut entry = Entry {
            item,
            worth: asking.worth.saturating_sub(COST * i32::from(cost_levels)),
            cost_levels,
            sequence,
            arrived,
            source,
            in_lane: false,
            before: NOWHERE,
            behind: NOWHERE,
            best_at: NOWHERE,
            worst_at: NOWHERE,
            older: self.newest,
            newer: NOWHERE,
        };
        let wears = wear(&mut entry, self.now);
        let number = self.next_number();
        let state = self.sources.get(source);
        let lane = if wears.is_none() { state.lane(entry.worth) } else { None };
        let last = lane.map(|lane| {
            let last = std::mem::replace(&mut lane.newest, number);
            if last == NOWHERE {
                (lane.oldest, lane.sequence) = (number, sequence);
            }
            last
        });
        entry.in_lane = last.is_some();
        entry.before = last.unwrap_or(NOWHERE);
        let worth = i64::from(entry.worth);
        self.entries.insert(entry);
        match self.newest {
            NOWHERE => self.oldest = number,
            newest => self.entries[newest as usize].newer = number,
        }
        self.newest = number;
        if let Some(at) = wears {
            self.due.push(Reverse((at, Due::Entry(number, sequence))));
        }
        let (state, entries) = (self.sources.get(source), &mut self.entries);
        match last {
            Some(NOWHERE) => {}
            // The lane begins as before.
            Some(last) => {
                entries[last as usize].behind = number;
                return number;
            }
            None => {
                state.best.insert((-worth, sequence), number, |entry, place| entries[entry as usize].best_at = place);
                state.worst.insert((worth, sequence), number, |entry, place| entries[entry as usize].worst_at = place);
            }
        }
        self.refresh(source);
        number
    }

    /// Takes the request worth most, the oldest of several; none if nothing waits, or nothing that is worth enough while others run.
    pub fn pop(&mut self, now: Instant) -> Option<Taken<T>> {
        self.advance(now);
        let ((negative, _), source) = self.best.first()?;
        let low = self.place_for(-negative, source)?;
        let (_, number) = self.sources.get(source).best()?;
        let entry = self.take(number);
        self.running += 1;
        self.low.enter(low, -negative);
        self.sources.get(source).start(self.now);
        self.refresh(source);
        Some(Taken { item: entry.item, priority: rounded(-negative), run: Run { source, low } })
    }

    /// A request that was taken waits for its client, which doesn't read what it is sent; or goes on. Meanwhile nothing waits for it.
    pub fn set_paused(&mut self, run: &Run, paused: bool) {
        self.paused = if paused { self.paused + 1 } else { self.paused.saturating_sub(1) };
        self.low.set_paused(run.low, paused);
    }

    /// The place among those of little worth of a request of this source, if it may begin now.
    fn place_for(&mut self, worth: i64, source: u32) -> Option<u32> {
        let place = self.low.place_for(worth, self.active())?;
        // A source that doesn't read can't have one worker after the other.
        let fits = place == low::NONE || self.paused == 0 || self.sources.get(source).running == 0;
        fits.then_some(place)
    }

    /// Requests that run and aren't paused.
    fn active(&self) -> usize {
        // One that was given up while it was paused goes on later.
        self.running.saturating_sub(self.paused)
    }

    /// A request that was taken has ended.
    pub fn finish(&mut self, run: Run, now: Instant) {
        self.advance(now);
        self.running -= 1;
        self.low.leave(run.low);
        let state = self.sources.get(run.source);
        if run.source != sources::EXEMPT {
            state.running -= 1;
            self.refresh(run.source);
            self.sources.settle(run.source, self.now);
        }
    }

    /// What can be taken.
    pub fn outlook(&mut self, now: Instant) -> Outlook {
        self.advance(now);
        match self.best.first() {
            None => Outlook::Empty,
            Some(((negative, _), source)) if self.place_for(-negative, source).is_some() => Outlook::Ready,
            Some(_) => Outlook::Held(self.due.peek().map_or(Instant::NEVER, |Reverse((at, _))| *at)),
        }
    }

    /// When the request worth least arrived (the oldest of several).
    pub fn lowest(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        let (_, source) = self.worst.first()?;
        let (_, number) = self.sources.get(source).worst()?;
        Some(self.entries[number as usize].arrived)
    }

    /// Removes the request worth least, the oldest of several; it, and what it was worth.
    pub fn evict(&mut self, now: Instant) -> Option<(T, i32)> {
        self.advance(now);
        let (_, source) = self.worst.first()?;
        let (_, number) = self.sources.get(source).worst()?;
        Some(self.remove(number))
    }

    /// Whether the request with this number, if there is one, is the one that is `meant`. If so it is removed.
    pub fn withdraw(&mut self, number: u32, now: Instant, meant: impl FnOnce(&T) -> bool) -> Option<(T, i32)> {
        self.advance(now);
        self.entries.get(number as usize).filter(|entry| meant(&entry.item))?;
        Some(self.remove(number))
    }

    /// When the request arrived that has waited for longest.
    pub fn oldest(&self) -> Option<Instant> {
        self.entries.get(self.oldest as usize).map(|entry| entry.arrived)
    }

    /// Removes the request that has waited for longest.
    pub fn remove_oldest(&mut self, now: Instant) -> Option<(T, i32)> {
        self.advance(now);
        (self.oldest != NOWHERE).then(|| self.remove(self.oldest))
    }

    fn remove(&mut self, number: u32) -> (T, i32) {
        let source = self.entries[number as usize].source;
        let penalty = self.sources.get(source).penalty(self.now);
        let entry = self.take(number);
        self.refresh(source);
        self.sources.settle(source, self.now);
        (entry.item, rounded(i64::from(entry.worth) - penalty))
    }

    /// Takes an entry out of everything but the heaps of sources: those are [`Queue::refresh`]'s.
    fn take(&mut self, number: u32) -> Entry<T> {
        let entry = self.entries.remove(number as usize);
        let (state, entries) = (self.sources.get(entry.source), &mut self.entries);
        if entry.in_lane {
            leave_lane(state, entries, &entry);
        } else {
            state.best.remove(entry.best_at, |entry, place| entries[entry as usize].best_at = place);
            state.worst.remove(entry.worst_at, |entry, place| entries[entry as usize].worst_at = place);
        }
        match entry.older {
            NOWHERE => self.oldest = entry.newer,
            older => self.entries[older as usize].newer = entry.newer,
        }
        match entry.newer {
            NOWHERE => self.newest = entry.older,
            newer => self.entries[newer as usize].older = entry.older,
        }
        entry
    }

    /// Something about a source has changed: it moves to its places in the heaps of sources.
    fn refresh(&mut self, source: u32) {
        let now = self.now;
        let state = self.sources.get(source);
        let (best_at, worst_at) = (state.best_at, state.worst_at);
        let Some((best, worst)) = state.standing(now) else {
            if best_at != NOWHERE {
                (state.best_at, state.worst_at) = (NOWHERE, NOWHERE);
                let all = self.sources.all_mut();
                self.best.remove(best_at, |source, place| all[source as usize].best_at = place);
                self.worst.remove(worst_at, |source, place| all[source as usize].worst_at = place);
            }
            return;
        };
        if let Some(at) = if state.watched { None } else { state.fades_at(now) } {
            state.watched = true;
            self.due.push(Reverse((at, Due::Source(source))));
        }
        let all = self.sources.all_mut();
        let best_placed = |source: u32, place| all[source as usize].best_at = place;
        match best_at {
            NOWHERE => self.best.insert(best, source, best_placed),
            place => self.best.change(place, best, best_placed),
        }
        let worst_placed = |source: u32, place| all[source as usize].worst_at = place;
        match worst_at {
            NOWHERE => self.worst.insert(worst, source, worst_placed),
            place => self.worst.change(place, worst, worst_placed),
        }
    }

    /// Does what is due. Each recent request and each level of cost is forgotten once, so this is paid for by what was started and
    /// pushed.
    fn advance(&mut self, now: Instant) {
        if now <= self.now {
            return;
        }
        self.now = now;
        while let Some(Reverse((_, due))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
            self.due.pop();
            match due {
                Due::Source(source) => {
                    self.sources.get(source).watched = false;
                    self.refresh(source);
                }
                Due::Entry(number, sequence) => self.wear(number, sequence),
            }
        }
    }

    /// Lets the cost of an entry wear off.
    fn wear(&mut self, number: u32, sequence: u64) {
        let Some(entry) = self.entries.get_mut(number as usize).filter(|entry| entry.sequence == sequence) else {
            return;
        };
        let next = wear(entry, self.now);
        let (source, worth, best_at, worst_at) = (entry.source, i64::from(entry.worth), entry.best_at, entry.worst_at);
        if let Some(at) = next {
            self.due.push(Reverse((at, Due::Entry(number, sequence))));
        }
        let (state, entries) = (self.sources.get(source), &mut self.entries);
        state.best.change(best_at, (-worth, sequence), |entry, place| entries[entry as usize].best_at = place);
        state.worst.change(worst_at, (worth, sequence), |entry, place| entries[entry as usize].worst_at = place);
        self.refresh(source);
    }
}

/// Closes the gap that an entry leaves in its lane.
fn leave_lane<T>(state: &mut State, entries: &mut Slab<Entry<T>>, entry: &Entry<T>) {
    if entry.before == NOWHERE && entry.behind == NOWHERE {
        return state.remove_lane(entry.worth);
    }
    if entry.before != NOWHERE {
        entries[entry.before as usize].behind = entry.behind;
    }
    let mut next = 0;
    if entry.behind != NOWHERE {
        let behind = &mut entries[entry.behind as usize];
        behind.before = entry.before;
        next = behind.sequence;
    }
    let Some(lane) = state.lane(entry.worth) else { return };
    if entry.before == NOWHERE {
        (lane.oldest, lane.sequence) = (entry.behind, next);
    }
    if entry.behind == NOWHERE {
        lane.newest = entry.before;
    }
}

/// Gives an entry back what has worn off of its cost; when the next level does. After each [`limits::COST_WEARS_OFF_MS`] the highest
/// level that is allowed is one less, so that after the same time nothing is left of anybody's.
fn wear<T>(entry: &mut Entry<T>, now: Instant) -> Option<Instant> {
    const STEP_NS: u64 = limits::COST_WEARS_OFF_MS * 1_000_000;
    while entry.cost_levels > 0 {
        let worn = u64::from(cost::LEVELS_MAX - entry.cost_levels);
        let at = Instant::from_nanos(entry.arrived.as_nanos().saturating_add((worn + 1) * STEP_NS));
        if at > now {
            return Some(at);
        }
        entry.cost_levels -= 1;
        entry.worth = entry.worth.saturating_add(COST);
    }
    None
}

/// A priority for the log.
fn rounded(priority: i64) -> i32 {
    i32::try_from(priority).unwrap_or(if priority < 0 { i32::MIN } else { i32::MAX })
}

#[cfg(test)]
mod tests;
