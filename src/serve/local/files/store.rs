//! What was found lately. One for each reactor, without locks. Bounded by entries, bytes and descriptors: what wasn't asked for longest
//! goes first. An entry is believed for [`limits::STATIC_FRESH_MS`]; then the file is looked at again.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use super::record::Record;
use crate::limits;
use crate::reactor::clock::Instant;

/// Records by [`super::Target::key`].
pub struct Store {
    entries: LruCache<Vec<u8>, Entry, ahash::RandomState>,
    memory: usize,
    descriptors: usize,
}

struct Entry {
    record: Arc<Record>,
    believed_until: Instant,
}

/// What a store knows.
#[derive(Debug)]
pub enum Seen {
    /// A file.
    Fresh(Arc<Record>),
    /// A file that must be looked at again.
    Stale(Arc<Record>),
    /// Nothing.
    Unknown,
}

impl Default for Store {
    fn default() -> Self {
        let most = NonZeroUsize::new(limits::STATIC_FILES_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { entries: LruCache::with_hasher(most, ahash::RandomState::new()), memory: 0, descriptors: 0 }
    }
}

impl Store {
    /// What is known of `key` at `now`.
    pub fn get(&mut self, key: &[u8], now: Instant) -> Seen {
        match self.entries.get(key) {
            Some(entry) if now < entry.believed_until => Seen::Fresh(Arc::clone(&entry.record)),
            Some(entry) => Seen::Stale(Arc::clone(&entry.record)),
            None => Seen::Unknown,
        }
    }

    /// Notes what was found. What had to go for it is left in `gone`, for somebody who may wait for a file to be closed.
    pub fn put(&mut self, key: Vec<u8>, record: Arc<Record>, now: Instant, gone: &mut Vec<Arc<Record>>) {
        let believed_until = now + Duration::from_millis(limits::STATIC_FRESH_MS);
        self.memory += record.memory();
        self.descriptors += record.descriptors();
        let before = self.entries.push(key, Entry { record, believed_until });
        self.leave(before, gone);
        while self.memory > limits::STATIC_MEMORY_BYTES_MAX || self.descriptors > limits::STATIC_DESCRIPTORS_MAX {
            let oldest = self.entries.pop_lru();
            if oldest.is_none() {
                break;
            }
            self.leave(oldest, gone);
        }
    }

    /// Forgets what isn't there any more.
    pub fn forget(&mut self, key: &[u8], gone: &mut Vec<Arc<Record>>) {
        let entry = self.entries.pop_entry(key);
        self.leave(entry, gone);
    }

    fn leave(&mut self, entry: Option<(Vec<u8>, Entry)>, gone: &mut Vec<Arc<Record>>) {
        let Some((_, Entry { record, .. })) = entry else { return };
        self.memory -= record.memory();
        self.descriptors -= record.descriptors();
        if record.descriptors() > 0 {
            gone.push(record);
        }
    }

    /// Entries, bytes and descriptors.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize, usize) {
        (self.entries.len(), self.memory, self.descriptors)
    }
}
