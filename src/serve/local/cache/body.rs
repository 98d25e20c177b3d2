//! The body of a stored response: in memory, or, if it is large and asked for often, in a file of its own that is memory as well, from
//! which the kernel sends without a copy. Neither is ever altered: a client may be in the middle of it.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::entry::Charge;
use crate::reactor::{FileRange, Segment, SharedBytes, memory_file};

/// What a file in memory takes beside its pages: the kernel's records of it (an inode, a directory entry, an open file, a tree).
const FILE_BYTES: usize = 2048;

/// A stored body. Its memory counts until the last holder has let go, a client that is slow to take it included.
pub struct Body {
    place: Place,
    _charge: Charge,
}

enum Place {
    Memory(Box<[u8]>),
    File { file: Arc<File>, bytes: usize, _descriptor: Descriptor },
}

impl Body {
    /// One in memory.
    pub fn new(bytes: Box<[u8]>, charge: Charge) -> Self {
        Self { place: Place::Memory(bytes), _charge: charge }
    }

    /// A copy in a file, in the room that `charge` stands for. `None` if that isn't possible: then it stays where it is.
    pub fn in_file(&self, descriptor: Descriptor, charge: Charge) -> Option<Self> {
        let bytes = self.memory()?;
        let file = Arc::new(memory_file::of(bytes).ok()?);
        Some(Self { place: Place::File { file, bytes: bytes.len(), _descriptor: descriptor }, _charge: charge })
    }

    /// What it takes in a file.
    pub fn cost_in_file(bytes: usize) -> usize {
        bytes.next_multiple_of(memory_file::page_bytes()) + FILE_BYTES
    }

    /// Its bytes, unless it is in a file.
    pub fn memory(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Memory(bytes) => Some(bytes),
            Place::File { .. } => None,
        }
    }

    /// Its bytes, wherever it is.
    ///
    /// # Errors
    /// When the machine has no memory to bring them back from where it has swapped them to.
    pub fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match &self.place {
            Place::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
            Place::File { file, bytes, .. } => {
                let mut read = vec![0; *bytes];
                file.read_exact_at(&mut read, 0)?;
                Ok(Cow::Owned(read))
            }
        }
    }

    /// All of it, to be sent.
    pub fn segment(self: &Arc<Self>) -> Segment {
        match &self.place {
            Place::Memory(_) => Segment::Shared(Box::new(Sending(Arc::clone(self)))),
            Place::File { file, bytes, .. } => Segment::File(FileRange {
                file: Arc::clone(file),
                offset: 0,
                length: *bytes as u64,
                memory: Some(Arc::clone(self) as _),
            }),
        }
    }
}

/// A body in memory on its way to a client.
struct Sending(Arc<Body>);

impl SharedBytes for Sending {
    fn as_slice(&self) -> &[u8] {
        self.0.memory().unwrap_or_default()
    }
}

/// Descriptors that stored bodies have, and how many they may have.
#[derive(Debug)]
pub struct Descriptors {
    used: AtomicUsize,
    max: usize,
}

impl Descriptors {
    /// None used yet.
    pub fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    /// In use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// One, if there is one left.
    pub fn take(self: &Arc<Self>) -> Option<Descriptor> {
        let more = |used| (used < self.max).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Descriptor(Arc::clone(self)))
    }
}

/// The right to one descriptor.
pub struct Descriptor(Arc<Descriptors>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Account;
    use super::*;

    #[test]
    fn what_is_in_a_file_is_what_was_in_memory() {
        let (account, descriptors) = (Arc::<Account>::default(), Arc::new(Descriptors::new(1)));
        let bytes: Vec<u8> = (0..50_000_u32).map(|number| number as u8).collect();
        let body = Arc::new(Body::new(bytes.clone().into(), account.charge(50_000)));
        assert!(matches!(body.segment(), Segment::Shared(shared) if shared.as_slice() == bytes));
        let cost = Body::cost_in_file(50_000);
        assert!(cost > 50_000 && cost <= 50_000 + memory_file::page_bytes() + FILE_BYTES);
        let moved = Arc::new(body.in_file(descriptors.take().unwrap(), account.charge(cost)).unwrap());
        drop(body);
        assert!(moved.memory().is_none() && moved.bytes().unwrap() == bytes && account.used() == cost);
        let Segment::File(range) = moved.segment() else { panic!("a file") };
        assert_eq!((range.offset, range.length), (0, 50_000));
        // As long as a client takes it, it counts: its bytes and its descriptor.
        drop(moved);
        assert_eq!((account.used(), descriptors.used()), (cost, 1));
        drop(range);
        assert_eq!((account.used(), descriptors.used()), (0, 0));
    }

    #[test]
    fn no_more_descriptors_than_allowed() {
        let descriptors = Arc::new(Descriptors::new(2));
        let (first, _second) = (descriptors.take().unwrap(), descriptors.take().unwrap());
        assert!(descriptors.take().is_none() && descriptors.used() == 2);
        drop(first);
        assert!(descriptors.take().is_some());
    }
}
