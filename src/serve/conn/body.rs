//! Where a request body is kept while it comes in: memory first, an unlinked temporary file past
//! [`limits::BODY_MEMORY_BYTES_MAX`]. Writes nothing itself: it says what the disk thread is to write.

use std::fs::File;
use std::sync::Arc;

use crate::limits;
use crate::serve::exchange::Body;

/// What the disk thread is to write: `data` at `offset` of the file, which it makes if there is none yet.
#[derive(Debug)]
pub struct Spool {
    /// The temporary file, if there is one already.
    pub file: Option<Arc<File>>,
    /// Where in the file.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Bytes that a buffer of a long body has room for: what is written at once, and what comes in with its last piece.
const ROOM: usize = limits::BODY_MEMORY_BYTES_MAX + limits::BODY_MEMORY_BYTES_MAX / 4;

/// A body that is coming in. At most twice [`limits::BODY_MEMORY_BYTES_MAX`] are in memory: what is being written and what came since;
/// and to that what the driver had received before it could be told to stop, which is no more than its receive buffers hold.
#[derive(Debug, Default)]
pub struct BodyStore {
    /// Bytes in all, as far as the client said.
    expected: Option<u64>,
    memory: Vec<u8>,
    /// The buffer that the disk thread gave back: the two take turns, so that a long body doesn't take memory anew for each write.
    spare: Vec<u8>,
    file: Option<Arc<File>>,
    /// Bytes handed to the disk thread so far.
    handed: u64,
    /// Whether the disk thread has a job of this body.
    writing: bool,
}

impl BodyStore {
    /// An empty store with room for `expected` bytes, if that isn't much: a head alone must not cost a megabyte.
    pub fn new(expected: Option<u64>) -> Self {
        let room = expected.map_or(0, |bytes| bytes.min(limits::BUFFER_KEPT_BYTES_MAX as u64));
        Self { expected, memory: Vec::with_capacity(room as usize), ..Self::default() }
    }

    /// Keeps `data`.
    pub fn append(&mut self, data: &[u8]) {
        let length = self.memory.len() + data.len();
        if length > limits::BODY_MEMORY_BYTES_MAX / 4 && length > self.memory.capacity() {
            // It will be a large one: the rest at once, instead of doubling and leaving the halves behind.
            // Past that the driver had received more already: in steps, not once for each piece.
            let most = if length > ROOM { length + limits::BODY_MEMORY_BYTES_MAX } else { ROOM };
            let left = self.expected.map_or(u64::MAX, |bytes| bytes.saturating_sub(self.handed));
            let room = usize::try_from(left).map_or(most, |left| left.min(most)).max(length);
            self.memory.reserve_exact(room - self.memory.len());
        }
        self.memory.extend_from_slice(data);
    }

    /// Whether more should not be received before the disk has caught up.
    pub fn is_full(&self) -> bool {
        self.writing && self.memory.len() >= limits::BODY_MEMORY_BYTES_MAX
    }

    /// Whether part of it should go to the disk before more comes.
    pub fn wants_disk(&self) -> bool {
        !self.writing && self.memory.len() > limits::BODY_MEMORY_BYTES_MAX
    }

    /// What the disk thread is to write now, if anything. `complete` says that the body has ended.
    pub fn next_write(&mut self, complete: bool) -> Option<Spool> {
        let spooled = self.handed > 0;
        let due = self.memory.len() > limits::BODY_MEMORY_BYTES_MAX || (spooled && complete && !self.memory.is_empty());
        if self.writing || !due {
            return None;
        }
        let data = std::mem::replace(&mut self.memory, std::mem::take(&mut self.spare));
        let offset = self.handed;
        self.handed += data.len() as u64;
        self.writing = true;
        Some(Spool { file: self.file.clone(), offset, data })
    }

    /// The disk thread has written; `buffer` is the emptied buffer, for reuse.
    pub fn written(&mut self, file: Arc<File>, mut buffer: Vec<u8>) {
        debug_assert!(self.writing, "a job comes back once");
        self.writing = false;
        self.file = Some(file);
        buffer.clear();
        if buffer.capacity() > ROOM {
            // It took in more than it was to, once.
            buffer = Vec::new();
        }
        if self.memory.capacity() == 0 {
            self.memory = buffer;
        } else {
            self.spare = buffer;
        }
    }

    /// Whether a complete body is where it is to stay.
    pub fn is_settled(&self) -> bool {
        !self.writing && (self.handed == 0 || self.memory.is_empty())
    }

    /// What has been written of a body that is of no use any more.
    pub fn into_file(self) -> Option<Arc<File>> {
        self.file
    }

    /// The settled body.
    pub fn finish(self) -> Body {
        debug_assert!(self.writing || self.is_settled(), "only a settled body is used");
        match self.file {
            Some(file) => match Arc::try_unwrap(file).or_else(|shared| shared.try_clone()) {
                Ok(file) => Body::File(file, self.handed),
                // Out of descriptors: can't happen, since the disk thread has given its reference back by now.
                Err(_) => Body::Empty,
            },
            None if self.memory.is_empty() => Body::Empty,
            None => Body::Memory(self.memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[usize], expected_in_file: bool) {
        let total: usize = pieces.iter().sum();
        let mut store = BodyStore::new(None);
        let mut file_bytes = 0;
        for (index, piece) in pieces.iter().enumerate() {
            store.append(&vec![7; *piece]);
            let complete = index + 1 == pieces.len();
            while let Some(spool) = store.next_write(complete) {
                assert_eq!(spool.offset, file_bytes);
                file_bytes += spool.data.len() as u64;
                assert!(store.next_write(complete).is_none(), "one job at a time");
                let file = spool.file.unwrap_or_else(|| Arc::new(tempfile::tempfile().unwrap()));
                store.written(file, spool.data);
            }
        }
        assert!(store.is_settled());
        let body = store.finish();
        assert_eq!(body.len(), total as u64);
        assert_eq!(matches!(body, Body::File(..)), expected_in_file);
        assert_eq!(file_bytes > 0, expected_in_file);
    }

    #[test]
    fn memory_up_to_the_limit_then_a_file() {
        let limit = limits::BODY_MEMORY_BYTES_MAX;
        check(&[0], false);
        check(&[5, 7], false);
        check(&[limit], false);
        check(&[limit, 1], true);
        check(&[limit + 1], true);
        check(&[limit, 1, limit, 5], true);
    }

    #[test]
    fn two_buffers_take_turns() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut store = BodyStore::new(Some(64 << 20));
        let mut buffers = std::collections::HashSet::new();
        for _ in 0..60 {
            while !store.wants_disk() {
                store.append(&[7; 4096]);
            }
            let spool = store.next_write(false).unwrap();
            assert!(spool.data.capacity() <= ROOM);
            buffers.insert(spool.data.as_ptr());
            store.append(&[7; 4096]);
            store.written(Arc::clone(&file), spool.data);
        }
        assert_eq!(buffers.len(), 2);
    }

    #[test]
    fn a_driver_that_had_received_more_already() {
        const MORE: usize = 4 << 20;
        let mut store = BodyStore::new(Some(64 << 20));
        let (mut moves, mut room) = (0, 0);
        while store.memory.len() < limits::BODY_MEMORY_BYTES_MAX + MORE {
            store.append(&[7; 16 * 1024]);
            moves += usize::from(std::mem::replace(&mut room, store.memory.capacity()) != room);
        }
        assert!(moves < 16, "it was copied {moves} times");
        let spool = store.next_write(false).unwrap();
        assert!(spool.data.capacity() <= 2 * limits::BODY_MEMORY_BYTES_MAX + MORE);
        store.append(&[7; 16 * 1024]);
        store.written(Arc::new(tempfile::tempfile().unwrap()), spool.data);
        assert!(store.spare.capacity() <= ROOM, "no more is kept than an upload needs");
    }

    #[test]
    fn no_more_room_than_the_client_announced() {
        let mut store = BodyStore::new(Some(300_000));
        (0..300).for_each(|_| store.append(&[7; 1000]));
        assert_eq!(store.memory.capacity(), 300_000);
    }

    #[test]
    fn a_slow_disk_stops_the_intake() {
        let mut store = BodyStore::new(None);
        store.append(&vec![0; limits::BODY_MEMORY_BYTES_MAX + 1]);
        assert!(!store.is_full());
        let spool = store.next_write(false).unwrap();
        store.append(&vec![0; limits::BODY_MEMORY_BYTES_MAX]);
        assert!(store.is_full());
        assert!(!store.is_settled());
        store.written(Arc::new(tempfile::tempfile().unwrap()), spool.data);
        assert!(!store.is_full());
    }
}
