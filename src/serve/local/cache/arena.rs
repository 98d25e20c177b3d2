//! Stored responses in memory that several processes share, without a lock, so that a process may be killed at any step of anything.
//!
//! ```text
//! words:  head │ all │ floor │ generation │ changes of each place │ index: a word for each place │ used: a bit for each place │
//!         the ring: units of 64 bytes
//! index word:  position (44 bits) │ tag (19 bits) │ provisional (1 bit)
//! record:  position, born, hash, lengths, sum of the body, sum of this and the meta │ meta │ body
//! ```
//!
//! The ring is written round and round. Who stores something reserves its room by moving the head (one compare-and-exchange), fills it,
//! and only then puts its position into the index; what the head passes is gone. Who dies in between leaves room that nobody looks at
//! until the head comes round again. Nothing is pinned: who reads copies first and then believes only what has the position that was
//! asked for and the right sum, so neither a writer that was stopped for a whole round nor one that comes round meanwhile can make
//! anybody take one record for another.
//!
//! Who moves the head copies what was used since the last round to the new head (a *second chance*, as CLOCK has it): nearly the least
//! recently used goes, and all of the ring is of use. How much one may have to move is bounded; past that, what was used goes too.
//!
//! An index word is *provisional* until its writer has looked whether the record is still wanted: whoever takes records away notes
//! that first and looks into the index then, so that one of the two sees the other.
//!
//! The count of changes of a place tells a process whether its own copies of what is stored there are up to date.
//!
//! Records below the *floor* are gone, at once and for everybody: a new generation of processes begins without them, and one of an older
//! generation stores nothing any more.
//!
//! Everything read here is checked before it is used: lengths against the ring, bytes against their sum.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use ahash::RandomState;

use super::epochs::Words;
use crate::limits;

/// Words of a unit of the ring: a cache line.
const UNIT: usize = 8;
/// Where the head is: units ever reserved.
const HEAD: usize = 0;
/// Where changes are counted that concern every place; in a line of its own.
const ALL: usize = UNIT;
/// The position where the oldest record may begin; in a line of its own.
const FLOOR: usize = 2 * UNIT;
/// The oldest generation of processes that may store something.
const GENERATION: usize = FLOOR + 1;
/// Words before the tables.
const PREFIX: usize = 3 * UNIT;
/// Bytes of the ring for each place of the index.
const BYTES_PER_PLACE: usize = 512;
/// Words of a record before its meta.
const HEADER: usize = 6;
/// Bits of a position in an index word: that many units are written in months.
const POSITION_BITS: u32 = 44;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const TAG_BITS: u32 = 64 - 1 - POSITION_BITS;
const PROVISIONAL: u64 = 1;
/// A record takes at most one part of so many of the ring.
const RECORD_SHARE: u64 = 4;
/// Units that a writer moves at most beside so many times its own: a quarter of a MiB.
const MOVED_UNITS: u64 = 4096;
/// See `MOVED_UNITS`.
const MOVED_TIMES: u64 = 4;
/// In place of an age: nothing is there.
const EMPTY: u64 = u64::MAX;
/// In place of an age: the head has passed it.
const PASSED: u64 = u64::MAX - 1;
/// How often a writer looks for a place when others take those it has chosen.
const ATTEMPTS: usize = 8;

/// The memory.
pub struct Arena {
    words: Box<dyn Words>,
    hasher: RandomState,
    /// Places of the index: a power of two.
    places: usize,
    /// Units of the ring.
    units: u64,
    /// The ring's first word.
    start: usize,
    /// Of this process, or of those that it forks next.
    generation: AtomicU64,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The index's place.
    pub place: usize,
    /// Names the record, whatever position it is copied to.
    pub born: u64,
}

/// A record without its body, as it was copied: its sum was right.
#[derive(Debug)]
pub struct Record {
    /// Where it is.
    pub location: Location,
    /// Bytes of its body.
    pub body_bytes: usize,
    /// First word of the body.
    body_at: usize,
    body_sum: u64,
}

/// A record that was about to be passed by the head, as it was.
struct Moved {
    hash: u64,
    place: usize,
    /// What stood there.
    word: u64,
    /// Where it was.
    position: u64,
    meta_bytes: usize,
    /// All of it, the unit's rest included.
    words: Vec<u64>,
}

/// What a writer has to move, and how much more it may.
struct Chances {
    moved: VecDeque<Moved>,
    units: u64,
}

impl Arena {
    /// The words of memory for about `bytes` bytes.
    pub fn words(bytes: usize) -> usize {
        let words = bytes / size_of::<AtomicU64>();
        words.max(PREFIX + 3 * limits::CACHE_WINDOW + UNIT * RECORD_SHARE as usize)
    }

    /// Of memory that was zero when the first of the processes began; `hasher` is the same in all of them.
    pub fn new(words: Box<dyn Words>, hasher: RandomState) -> Self {
        let count = words.words().len();
        let bytes = size_of_val(words.words());
        let places = (bytes / BYTES_PER_PLACE + 1).next_power_of_two().max(limits::CACHE_WINDOW);
        let start = (PREFIX + 2 * places + places.div_ceil(64)).next_multiple_of(UNIT);
        let units = (count.saturating_sub(start) / UNIT).max(1) as u64;
        debug_assert!(start + UNIT <= count, "sized by Arena::words");
        Self { words, hasher, places, units, start, generation: AtomicU64::default() }
    }

    fn all(&self) -> &[AtomicU64] {
        self.words.words()
    }

    fn first_place(&self, hash: u64) -> usize {
        hash as usize & (self.places - 1)
    }

    fn index(&self) -> &[AtomicU64] {
        &self.all()[PREFIX + self.places..PREFIX + 2 * self.places]
    }

    fn used(&self, place: usize) -> (&AtomicU64, u64) {
        (&self.all()[PREFIX + 2 * self.places + place / 64], 1 << (place % 64))
    }

    /// What is stored there is used: it stays when the head comes round. Whether it was used before since then.
    pub fn touch(&self, place: usize) -> bool {
        let (word, bit) = self.used(place & (self.places - 1));
        // A line that all read is written only when there is news.
        word.load(Relaxed) & bit != 0 || word.fetch_or(bit, Relaxed) & bit != 0
    }

    /// It isn't any more, or wasn't yet.
    fn untouch(&self, place: usize) -> bool {
        let (word, bit) = self.used(place);
        word.load(Relaxed) & bit != 0 && word.fetch_and(!bit, Relaxed) & bit != 0
    }

    /// The places where records of this hash may be.
    fn window(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let (first, mask) = (self.first_place(hash), self.places - 1);
        (0..limits::CACHE_WINDOW).map(move |next| (first + next) & mask)
    }

    // --- Changes -------------------------------------------------------------------------------------------

    /// Counts what was stored or taken away where this hash is, or everywhere: a copy made at another count may be out of date. Never 0.
    pub fn changes(&self, hash: u64) -> u64 {
        let words = self.all();
        let own = words[PREFIX + self.first_place(hash)].load(SeqCst);
        // Neither runs backwards, so the sum is the same only if both are.
        own.wrapping_add(words[ALL].load(SeqCst)).wrapping_add(1)
    }

    /// Something is changed where this hash is.
    pub fn change(&self, hash: u64) {
        step();
        self.all()[PREFIX + self.first_place(hash)].fetch_add(1, SeqCst);
    }

    /// Something may be changed everywhere.
    pub fn change_all(&self) {
        step();
        self.all()[ALL].fetch_add(1, SeqCst);
    }

    // --- The ring ------------------------------------------------------------------------------------------

    /// The head's position: no record begins there or behind it. Positions begin after one round, so that none is zero.
    fn head(&self) -> u64 {
        self.all()[HEAD].load(SeqCst).wrapping_add(self.units)
    }

    /// How many units ago an index word's record was begun; `None` if the head has passed it since, or it lies below the floor.
    fn age(&self, word: u64) -> Option<u64> {
        let head = self.head();
        let age = head.wrapping_sub(word >> (64 - POSITION_BITS)) & POSITION_MASK;
        let kept = head.wrapping_sub(self.floor()).min(self.units);
        (word != 0 && age != 0 && age <= kept).then_some(age)
    }

    fn floor(&self) -> u64 {
        self.all()[FLOOR].load(SeqCst)
    }

    /// Processes that are forked from now on are of a new generation.
    pub fn begin_generation(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    /// The newest generation has taken over: everything is gone, and older ones store nothing any more.
    pub fn succeed(&self) {
        self.all()[GENERATION].fetch_max(self.generation.load(Relaxed), SeqCst);
        self.change_all();
        // Whoever has reserved room already writes below it.
        self.all()[FLOOR].fetch_max(self.head(), SeqCst);
        self.change_all();
    }

    /// Whether this process is of a generation that may store something.
    fn is_current(&self) -> bool {
        self.generation.load(Relaxed) >= self.all()[GENERATION].load(SeqCst)
    }

    /// Room for so many units in one piece: its position. What was there and used is moved out of the way.
    fn reserve(&self, units: u64, chances: &mut Chances) -> Option<u64> {
        if units > self.units / RECORD_SHARE {
            return None;
        }
        let head = &self.all()[HEAD];
        let mut old = head.load(SeqCst);
        let (begin, end) = loop {
            let within = old % self.units;
            let begin = if within + units > self.units { old.checked_add(self.units - within)? } else { old };
            let end = begin.checked_add(units)?;
            step();
            match head.compare_exchange_weak(old, end, SeqCst, SeqCst) {
                Ok(_) => break (begin, end),
                Err(now) => old = now,
            }
        };
        self.rescue(old, end, chances);
        Some(begin.wrapping_add(self.units))
    }

    /// Copies what was used out of room that was just reserved: the positions of the last round that lie there.
    fn rescue(&self, from: u64, to: u64, chances: &mut Chances) {
        let floor = self.floor();
        let mut position = from;
        while position < to {
            let moved = (position >= floor && position >= self.units).then(|| self.passed(position)).flatten();
            let Some((place, word, [hash, lengths, units])) = moved else {
                position += 1;
                continue;
            };
            if self.untouch(place) && units <= chances.units {
                chances.units -= units;
                let at = self.at(position);
                let words = self.all()[at..at + units as usize * UNIT].iter().map(|word| word.load(Relaxed)).collect();
                let meta_bytes = lengths as u32 as usize;
                chances.moved.push_back(Moved { hash, place, word, position, meta_bytes, words });
            } else {
                exchange(&self.index()[place], word, 0);
            }
            position += units;
        }
    }

    /// The record that was at this position, if the index knows it: its place, the word there, its hash, lengths and units.
    fn passed(&self, position: u64) -> Option<(usize, u64, [u64; 3])> {
        let room = &self.all()[self.at(position)..self.start + self.units as usize * UNIT];
        if room[0].load(Relaxed) != position {
            return None;
        }
        let (hash, lengths) = (room[2].load(Relaxed), room[3].load(Relaxed));
        let units = units_for(lengths as u32 as usize, (lengths >> 32) as usize);
        let word = index_word(position, hash);
        let place = self.window(hash).find(|place| self.index()[*place].load(SeqCst) == word)?;
        (units as usize * UNIT <= room.len()).then_some((place, word, [hash, lengths, units]))
    }

    /// Writes at the head what was moved out of the way, unless it was taken away meanwhile.
    fn resettle(&self, mut chances: Chances) {
        while let Some(moved) = chances.moved.pop_front() {
            let Moved { hash, place, word, position, meta_bytes, mut words } = moved;
            let mut meta = Vec::with_capacity(meta_bytes);
            let Some(meta_words) = words.get(HEADER..HEADER + meta_bytes.div_ceil(8)) else { continue };
            meta_words.iter().for_each(|word| meta.extend_from_slice(&word.to_ne_bytes()));
            meta.truncate(meta_bytes);
            // Somebody may have come round meanwhile. Of the body whoever reads it sees that.
            if words[0] != position || self.sum(&words[..HEADER - 1], &meta) != words[HEADER - 1] {
                continue;
            }
            let Some(to) = self.reserve((words.len() / UNIT) as u64, &mut chances) else { continue };
            words[0] = to;
            words[HEADER - 1] = self.sum(&words[..HEADER - 1], &meta);
            let room = &self.all()[self.at(to)..];
            room.iter().zip(&words).for_each(|(to, word)| put(to, *word));
            // A floor that is set after this lies above the new position.
            if position >= self.floor() {
                exchange(&self.index()[place], word, index_word(to, hash));
            }
        }
    }

    /// Whether a record with so many bytes could be kept.
    pub fn fits(&self, meta_bytes: usize, body_bytes: usize) -> bool {
        u32::try_from(meta_bytes).is_ok()
            && u32::try_from(body_bytes).is_ok()
            && units_for(meta_bytes, body_bytes) <= self.units / RECORD_SHARE
    }

    /// Writes a record: its index word, not provisional, and its name.
    fn append(&self, hash: u64, meta: &[u8], body: &[u8], chances: &mut Chances) -> Option<(u64, u64)> {
        let position = self.reserve(units_for(meta.len(), body.len()), chances)?;
        let lengths = meta.len() as u64 | (body.len() as u64) << 32;
        let header = [position, position, hash, lengths, self.sum(&[], body)];
        let at = self.at(position);
        let room = &self.all()[at..];
        let words = header.into_iter().chain([self.sum(&header, meta)]);
        room.iter().zip(words).for_each(|(to, word)| put(to, word));
        let behind = HEADER + meta.len().div_ceil(8);
        copy_in(&room[HEADER..behind], meta);
        copy_in(&room[behind..behind + body.len().div_ceil(8)], body);
        Some((index_word(position, hash), position))
    }

    fn at(&self, position: u64) -> usize {
        self.start + (position % self.units) as usize * UNIT
    }

    /// Names bytes: that two records are taken for each other is as likely as guessing 64 bits of a secret.
    fn sum(&self, header: &[u64], bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        header.iter().for_each(|word| hasher.write_u64(*word));
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
        hasher.finish()
    }

    /// Copies a record's meta out, over what is in `meta`.
    fn read(&self, place: usize, word: u64, meta: &mut Vec<u8>) -> Option<Record> {
        let position = self.head().wrapping_sub(self.age(word)?);
        let at = self.at(position);
        // To the end of the ring: no record goes further.
        let room = &self.all()[at..self.start + self.units as usize * UNIT];
        let [own, born, hash, lengths, body_sum, sum] = std::array::from_fn(|word| room[word].load(Relaxed));
        let (meta_bytes, body_bytes) = (lengths as u32 as usize, (lengths >> 32) as usize);
        let meta_words = room.get(HEADER..HEADER + meta_bytes.div_ceil(8))?;
        let body_at = HEADER + meta_words.len();
        if own != position || body_at + body_bytes.div_ceil(8) > room.len() {
            return None;
        }
        copy_out(meta_words, meta_bytes, meta);
        let right = self.sum(&[own, born, hash, lengths, body_sum], meta) == sum;
        let location = Location { place, born };
        right.then_some(Record { location, body_bytes, body_at: at + body_at, body_sum })
    }

    /// Copies a record's body out.
    pub fn body(&self, record: &Record) -> Option<Box<[u8]>> {
        let mut body = Vec::new();
        let words = &self.all()[record.body_at..record.body_at + record.body_bytes.div_ceil(8)];
        copy_out(words, record.body_bytes, &mut body);
        (self.sum(&[], &body) == record.body_sum).then(|| body.into_boxed_slice())
    }

    // --- The index -----------------------------------------------------------------------------------------

    /// Shows the records of this hash, and some that only look so, in no order.
    pub fn look(&self, hash: u64, meta: &mut Vec<u8>, mut show: impl FnMut(Record, &[u8])) {
        for place in self.window(hash) {
            let word = self.index()[place].load(SeqCst);
            if word == 0 || !is_tagged(word, hash) || word & PROVISIONAL != 0 {
                continue;
            }
            if let Some(record) = self.read(place, word, meta) {
                show(record, meta);
            }
        }
    }

    /// Stores a record. `is_wanted` is asked when whoever takes such records away from then on will find it. `None`: there is no room
    /// for it, or it isn't wanted, or this process is of an old generation.
    pub fn publish(&self, hash: u64, meta: &[u8], body: &[u8], is_wanted: impl FnOnce() -> bool) -> Option<Location> {
        if !self.fits(meta.len(), body.len()) || !self.is_current() {
            return None;
        }
        let units = MOVED_UNITS + MOVED_TIMES * units_for(meta.len(), body.len());
        let mut chances = Chances { moved: VecDeque::new(), units };
        let stored = self.try_publish(hash, meta, body, is_wanted, &mut chances);
        self.resettle(chances);
        stored
    }

    fn try_publish(
        &self,
        hash: u64,
        meta: &[u8],
        body: &[u8],
        is_wanted: impl FnOnce() -> bool,
        chances: &mut Chances,
    ) -> Option<Location> {
        let (word, born) = self.append(hash, meta, body, chances)?;
        let place = self.enter(hash, word | PROVISIONAL)?;
        self.untouch(place);
        let to = if is_wanted() && self.is_current() { word } else { 0 };
        let entered = exchange(&self.index()[place], word | PROVISIONAL, to);
        (entered && to != 0).then_some(Location { place, born })
    }

    /// Puts a word into the index: into a place that is free, or that of the oldest record that must go.
    fn enter(&self, hash: u64, word: u64) -> Option<usize> {
        let index = self.index();
        for _ in 0..ATTEMPTS {
            let (mut of_all, mut alike, mut of_alike) = (None, 0, None);
            for place in self.window(hash) {
                let old = index[place].load(SeqCst);
                // What was passed may be on its way to the head.
                let age = if old == 0 { EMPTY } else { self.age(old).unwrap_or(PASSED) };
                let older = |oldest: Option<(u64, usize, u64)>| oldest.is_none_or(|(oldest, _, _)| age > oldest);
                if older(of_all) {
                    of_all = Some((age, place, old));
                }
                if age < PASSED && is_tagged(old, hash) {
                    alike += 1;
                    if older(of_alike) {
                        of_alike = Some((age, place, old));
                    }
                }
            }
            let (_, place, old) = if alike >= limits::CACHE_SHARED_VARIANTS_MAX { of_alike? } else { of_all? };
            if exchange(&index[place], old, word) {
                return Some(place);
            }
        }
        None
    }

    /// Takes the records of this hash away that are `named`, and those that can't be read; how many were named. `provisional`: those too
    /// that are only about to be stored.
    pub fn take_away(&self, hash: u64, provisional: bool, mut named: impl FnMut(&Record, &[u8]) -> bool) -> usize {
        let mut meta = Vec::new();
        let places = self.window(hash).filter(|place| is_tagged(self.index()[*place].load(SeqCst), hash));
        places.map(|place| usize::from(self.clear(place, provisional, &mut meta, &mut named))).sum()
    }

    /// The same everywhere.
    pub fn take_away_all(&self, mut named: impl FnMut(&Record, &[u8]) -> bool) -> usize {
        let mut meta = Vec::new();
        (0..self.places).map(|place| usize::from(self.clear(place, true, &mut meta, &mut named))).sum()
    }

    fn clear(
        &self,
        place: usize,
        provisional: bool,
        meta: &mut Vec<u8>,
        named: &mut impl FnMut(&Record, &[u8]) -> bool,
    ) -> bool {
        let index = &self.index()[place];
        loop {
            let word = index.load(SeqCst);
            if word == 0 || (word & PROVISIONAL != 0 && !provisional) {
                return false;
            }
            let record = self.read(place, word, meta);
            let is_named = record.as_ref().is_some_and(|record| named(record, meta));
            if record.is_some() && !is_named {
                return false;
            }
            // A word that has changed meanwhile may be of the same record, stored for good or copied to the head.
            if exchange(index, word, 0) {
                return is_named && word & PROVISIONAL == 0;
            }
        }
    }
}

fn units_for(meta_bytes: usize, body_bytes: usize) -> u64 {
    (HEADER + meta_bytes.div_ceil(8) + body_bytes.div_ceil(8)).div_ceil(UNIT) as u64
}

fn index_word(position: u64, hash: u64) -> u64 {
    (position & POSITION_MASK) << (64 - POSITION_BITS) | tag(hash) << 1
}

fn tag(hash: u64) -> u64 {
    hash >> (64 - TAG_BITS)
}

fn is_tagged(word: u64, hash: u64) -> bool {
    word >> 1 & ((1 << TAG_BITS) - 1) == tag(hash)
}

fn put(to: &AtomicU64, word: u64) {
    step();
    to.store(word, Relaxed);
}

fn exchange(place: &AtomicU64, old: u64, new: u64) -> bool {
    step();
    place.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
}

fn copy_in(words: &[AtomicU64], bytes: &[u8]) {
    let whole = bytes.chunks_exact(8);
    let mut last = [0; 8];
    last[..whole.remainder().len()].copy_from_slice(whole.remainder());
    let last = (!whole.remainder().is_empty()).then_some(last);
    let words_of = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    let bytes = whole.map(words_of).chain(last.map(u64::from_ne_bytes));
    words.iter().zip(bytes).for_each(|(to, word)| put(to, word));
}

fn copy_out(words: &[AtomicU64], bytes: usize, out: &mut Vec<u8>) {
    out.clear();
    out.resize(words.len() * 8, 0);
    for (to, word) in out.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
    }
    out.truncate(bytes);
}

/// Before each change of shared memory: where tests let a process die, or others go on meanwhile.
#[cfg(not(test))]
fn step() {}

#[cfg(test)]
use tests::step;

#[cfg(test)]
pub(super) mod tests {
    //! Processes that die, or stand still, at a step of what they do to shared memory.

    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    /// How many steps are left, and what happens then.
    type Fuse = (usize, Box<dyn FnOnce()>);

    thread_local! {
        static FUSE: RefCell<Option<Fuse>> = const { RefCell::new(None) };
    }

    /// A process is killed.
    struct Killed;

    /// A step.
    pub(in super::super) fn step() {
        let due = FUSE.with_borrow_mut(|fuse| match fuse {
            Some((0, _)) => fuse.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        });
        if let Some((_, happens)) = due {
            happens();
        }
    }

    /// Does `deed` up to a step; whether it came to that.
    pub(in super::super) fn dies_at(step: usize, deed: impl FnOnce()) -> bool {
        FUSE.set(Some((step, Box::new(|| resume_unwind(Box::new(Killed))))));
        let ended = catch_unwind(AssertUnwindSafe(deed));
        FUSE.set(None);
        match ended {
            Ok(()) => false,
            Err(why) if why.is::<Killed>() => true,
            Err(why) => resume_unwind(why),
        }
    }

    /// Does `deed`, and before one step of it what others do meanwhile; whether it came to that.
    pub(in super::super) fn stands_still_at(
        step: usize,
        meanwhile: impl FnOnce() + 'static,
        deed: impl FnOnce(),
    ) -> bool {
        FUSE.set(Some((step, Box::new(meanwhile))));
        deed();
        FUSE.take().is_none()
    }
}
