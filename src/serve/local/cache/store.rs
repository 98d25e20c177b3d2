//! Stored responses under a bound: found by primary key, the least recently used go first. Knows no clock and no rule.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use slab::Slab;

use super::entry::{Account, Charge, Entry};
use crate::limits;

/// No slot.
const NONE: u32 = u32::MAX;

/// An entry's place: in the list from the most to the least recently used, and among the variants of its key.
struct Slot {
    entry: Arc<Entry>,
    key: Arc<[u8]>,
    newer: u32,
    older: u32,
}

/// A part of the cache: the caller holds its lock.
pub struct Store {
    slots: Slab<Slot>,
    /// The slots of the variants of each key, the newest last; never empty.
    keys: HashMap<Arc<[u8]>, Vec<u32>, RandomState>,
    newest: u32,
    oldest: u32,
    account: Arc<Account>,
    bytes_max: usize,
    /// Bytes beside those, for what isn't kept.
    passing_bytes: usize,
}

impl Store {
    /// An empty one for `bytes_max` bytes, bookkeeping included, and `passing_bytes` of what isn't kept.
    pub fn new(bytes_max: usize, passing_bytes: usize, hasher: RandomState) -> Self {
        Self {
            slots: Slab::new(),
            keys: HashMap::with_hasher(hasher),
            newest: NONE,
            oldest: NONE,
            account: Arc::default(),
            bytes_max,
            passing_bytes,
        }
    }

    /// What it has in use, entries included that are out of it and still being sent.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Entries in it.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Makes room for `bytes`, at the expense of the least recently used. `None` if that isn't possible: more than there is at all,
    /// or than is left beside what is still being sent.
    pub fn room(&mut self, bytes: usize) -> Option<Charge> {
        self.room_up_to(bytes, self.bytes_max)
    }

    /// The same for an entry that is to be sent and not kept: kept ones go for it only when there is no room beside them.
    pub fn room_in_passing(&mut self, bytes: usize) -> Option<Charge> {
        self.room_up_to(bytes, self.bytes_max.saturating_add(self.passing_bytes))
    }

    /// The same beside the entry that was used last, which stays: at the expense of others only, and of those only if it can be of use.
    pub fn room_beside_newest(&mut self, bytes: usize) -> Option<Charge> {
        if bytes > self.bytes_max / 2 {
            return None;
        }
        while self.account.used() + bytes > self.bytes_max {
            if self.oldest == self.newest {
                return None;
            }
            self.remove(self.oldest);
        }
        Some(self.account.charge(bytes))
    }

    fn room_up_to(&mut self, bytes: usize, bytes_max: usize) -> Option<Charge> {
        if bytes > bytes_max {
            return None;
        }
        while self.account.used() + bytes > bytes_max {
            if self.oldest == NONE {
                return None;
            }
            self.remove(self.oldest);
        }
        Some(self.account.charge(bytes))
    }

    /// The newest entry of `key` that `matches`; it counts as used.
    pub fn find(&mut self, key: &[u8], mut matches: impl FnMut(&Entry) -> bool) -> Option<Arc<Entry>> {
        let variants = self.keys.get(key)?;
        let slot = variants.iter().rev().copied().find(|slot| matches(&self.slots[*slot as usize].entry))?;
        if self.newest != slot {
            self.unlink(slot);
            self.link(slot);
        }
        Some(Arc::clone(&self.slots[slot as usize].entry))
    }

    /// The newest entry of `key`, if there is any.
    pub fn newest(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        let slot = *self.keys.get(key)?.last()?;
        Some(&self.slots[slot as usize].entry)
    }

    /// Puts an entry in, in the place of those for the same requests. Its room was made by [`Store::room`].
    pub fn insert(&mut self, key: &[u8], entry: Arc<Entry>) {
        let same = self.keys.get(key).into_iter().flatten().copied();
        let old: Vec<u32> = same.filter(|slot| entry.replaces(&self.slots[*slot as usize].entry)).collect();
        old.into_iter().for_each(|slot| self.remove(slot));
        let full = self.keys.get(key).filter(|variants| variants.len() >= limits::CACHE_VARIANTS_MAX);
        if let Some(oldest) = full.map(|variants| variants[0]) {
            self.remove(oldest);
        }
        let known = self.keys.get_key_value(key).map(|(known, _)| Arc::clone(known));
        let key: Arc<[u8]> = known.unwrap_or_else(|| key.into());
        let slot = self.slots.insert(Slot { entry, key: Arc::clone(&key), newer: NONE, older: NONE }) as u32;
        self.keys.entry(key).or_default().push(slot);
        self.link(slot);
    }

    /// Takes this very entry out. Whether it was there.
    pub fn take_out(&mut self, key: &[u8], entry: &Arc<Entry>) -> bool {
        let mut variants = self.keys.get(key).into_iter().flatten().copied();
        let found = variants.find(|slot| Arc::ptr_eq(&self.slots[*slot as usize].entry, entry));
        found.map(|slot| self.remove(slot)).is_some()
    }

    /// Takes all entries of `key` out; how many there were.
    pub fn invalidate(&mut self, key: &[u8]) -> usize {
        let variants = self.keys.get(key).cloned().unwrap_or_default();
        variants.iter().for_each(|slot| self.remove(*slot));
        variants.len()
    }

    /// Takes those out of the places `from` up to `to` whose key is `named`; how many there were, and whether there are further places.
    pub fn purge(&mut self, from: usize, to: usize, named: impl Fn(&[u8], &Entry) -> bool) -> (usize, bool) {
        let ends = to >= self.slots.capacity();
        let found: Vec<u32> = (from..to.min(self.slots.capacity()))
            .filter(|slot| self.slots.get(*slot).is_some_and(|slot| named(&slot.key, &slot.entry)))
            .map(|slot| slot as u32)
            .collect();
        found.iter().for_each(|slot| self.remove(*slot));
        (found.len(), !ends)
    }

    fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        let Slot { key, .. } = self.slots.remove(slot as usize);
        if let Some(variants) = self.keys.get_mut(&*key) {
            variants.retain(|other| *other != slot);
            if variants.is_empty() {
                self.keys.remove(&*key);
            }
        }
    }

    fn link(&mut self, slot: u32) {
        let before = std::mem::replace(&mut self.newest, slot);
        self.slots[slot as usize].older = before;
        self.slots[slot as usize].newer = NONE;
        match before {
            NONE => self.oldest = slot,
            _ => self.slots[before as usize].newer = slot,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { newer, older, .. } = self.slots[slot as usize];
        match newer {
            NONE => self.newest = older,
            _ => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            _ => self.slots[older as usize].newer = newer,
        }
    }
}
