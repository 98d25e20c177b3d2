//! What was invalidated when, and what wasn't worth waiting for: two small tables without a lock, so that they can lie in memory that
//! several processes share and that a process that dies leaves in order. Several keys share a place: what is noted of one is
//! then believed of the other, which costs a request to the application and is never wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits;
use crate::reactor::clock::Instant;
use crate::reactor::shared_memory::SharedMemory;

/// Where the words of a table are.
pub trait Words: Send + Sync {
    /// All of them, zero at first; always the same.
    fn words(&self) -> &[AtomicU64];
}

impl Words for Box<[AtomicU64]> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

impl Words for SharedMemory {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

/// The tables.
pub struct Epochs {
    /// The first word: when everything was purged last. The others: when something of that place was invalidated last.
    invalidated: Box<dyn Words>,
    /// Hash and second until which requests of a resource don't wait for each other.
    passing: Box<[AtomicU64]>,
}

impl Epochs {
    /// Of one process.
    pub fn own() -> Self {
        Self::shared(Box::new(zeros(limits::CACHE_EPOCHS)))
    }

    /// In memory that all processes share: [`limits::CACHE_EPOCHS`] words.
    pub fn shared(invalidated: Box<dyn Words>) -> Self {
        debug_assert!(invalidated.words().len() > 1, "a word for all and one for each place");
        Self { invalidated, passing: zeros(limits::CACHE_PASSING_MAX) }
    }

    fn all(&self) -> &AtomicU64 {
        &self.invalidated.words()[0]
    }

    fn place(&self, hash: u64) -> &AtomicU64 {
        let places = &self.invalidated.words()[1..];
        &places[hash as usize % places.len()]
    }

    /// Something with this hash is invalid if it was asked for up to `now`.
    pub fn note(&self, hash: u64, now: Instant) {
        self.place(hash).fetch_max(now.as_nanos(), Ordering::SeqCst);
    }

    /// Anything may be.
    pub fn note_all(&self, now: Instant) {
        self.all().fetch_max(now.as_nanos(), Ordering::SeqCst);
    }

    /// Whether an answer that was asked for at `asked` may be older than an invalidation.
    pub fn changed(&self, hash: u64, asked: Instant) -> bool {
        let asked = asked.as_nanos();
        self.place(hash).load(Ordering::SeqCst) >= asked || self.all().load(Ordering::SeqCst) >= asked
    }

    /// The answers to requests for this resource aren't stored, for now.
    pub fn note_passing(&self, resource: u64, now: Instant) {
        let until = now + Duration::from_secs(limits::CACHE_PASSING_S);
        self.passing_place(resource).store(packed(resource, until), Ordering::Relaxed);
    }

    /// They are.
    pub fn forget_passing(&self, resource: u64) {
        let place = self.passing_place(resource);
        if same(place.load(Ordering::Relaxed), resource) {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// Whether [`Epochs::note_passing`] was called not long ago.
    pub fn is_passing(&self, resource: u64, now: Instant) -> bool {
        let word = self.passing_place(resource).load(Ordering::Relaxed);
        same(word, resource) && (word as u32) > seconds(now)
    }

    fn passing_place(&self, resource: u64) -> &AtomicU64 {
        &self.passing[resource as usize % self.passing.len()]
    }
}

fn zeros(count: usize) -> Box<[AtomicU64]> {
    std::iter::repeat_with(AtomicU64::default).take(count).collect()
}

fn seconds(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000_000) as u32
}

fn packed(resource: u64, until: Instant) -> u64 {
    (resource >> 32 << 32) | u64::from(seconds(until))
}

fn same(word: u64, resource: u64) -> bool {
    word >> 32 == resource >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Instant {
        Instant::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn an_answer_from_before_an_invalidation_is_known() {
        let own = Epochs::own();
        own.note(5, at(100));
        assert!(
            own.changed(5, at(100)) && own.changed(5, at(99)) && !own.changed(5, at(101)) && !own.changed(6, at(99))
        );
        own.note(5, at(90));
        assert!(own.changed(5, at(99)), "time doesn't run backwards");
        own.note_all(at(200));
        assert!(own.changed(6, at(200)) && !own.changed(6, at(201)));
    }

    #[test]
    fn what_passes_is_remembered_for_a_while() {
        let epochs = Epochs::own();
        let resource = 0xdead_beef_0000_0007;
        assert!(!epochs.is_passing(resource, at(5)));
        epochs.note_passing(resource, at(5));
        assert!(epochs.is_passing(resource, at(6)) && !epochs.is_passing(resource ^ (1 << 40), at(6)));
        assert!(!epochs.is_passing(resource, at(6 + limits::CACHE_PASSING_S)));
        epochs.forget_passing(resource ^ (1 << 40));
        assert!(epochs.is_passing(resource, at(6)));
        epochs.forget_passing(resource);
        assert!(!epochs.is_passing(resource, at(6)));
    }
}
