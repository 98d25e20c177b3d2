//! Notices from process to process: a ring of records in memory that all processes of a supervisor share.
//!
//! Writers claim places by adding to one number, and never wait; each reader goes after them at its own pace. A place says
//! by a number of its own which record stands in it and whether that is complete, and a checksum says whether what was read
//! is what was written, so a process that is killed while it writes, or one that is overtaken by a whole round of the ring while
//! it reads, costs records, never sense: the reader is told that something is lost.

use std::io;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use crate::limits;
use crate::reactor::shared_memory::SharedMemory;

/// Words of a place: its header, then its part of a record.
const PLACE_WORDS: usize = 512;
/// The number that says what stands here, who wrote it, which part of how many, bytes, checksum.
const HEADER_WORDS: usize = 5;
/// Bytes of a record that a place holds.
const PART_BYTES: usize = (PLACE_WORDS - HEADER_WORDS) * 8;
const PLACES: usize = 1024;
/// Parts that have been claimed since the beginning.
const CLAIMED: usize = 0;
/// Rung for each record. On a cache line of its own.
const BELL: usize = 8;
const FIRST_PLACE: usize = 16;

const _: () =
    assert!(limits::NOTICE_BYTES_MAX * 2 < PLACES * PART_BYTES, "a record fits, with its header and much room");

/// The ring.
#[derive(Debug)]
pub struct Bus {
    memory: SharedMemory,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing more.
    Nothing,
    /// Something that is still being written.
    Unfinished,
    /// A record.
    Record {
        /// Who has written it.
        origin: u32,
        /// What.
        bytes: Vec<u8>,
    },
    /// Records were overwritten, or are no records: there is no telling what they said.
    Lost,
}

/// Where one process is in the ring.
#[derive(Debug)]
pub struct Reader {
    next: u64,
}

impl Bus {
    /// An empty ring, before the first fork.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { memory: SharedMemory::new(FIRST_PLACE + PLACES * PLACE_WORDS)? })
    }

    /// A reader of what is written from now on.
    pub fn reader(&self) -> Reader {
        Reader { next: self.memory[CLAIMED].load(Ordering::SeqCst) }
    }

    /// Writes a record, and wakes who waits. One that is too large for the ring is left out.
    pub fn write(&self, origin: u32, bytes: &[u8]) {
        let parts = bytes.len().div_ceil(PART_BYTES).max(1);
        if parts > PLACES / 2 {
            return;
        }
        let first = self.memory[CLAIMED].fetch_add(parts as u64, Ordering::SeqCst);
        for index in 0..parts {
            let part = &bytes[index * PART_BYTES..bytes.len().min((index + 1) * PART_BYTES)];
            self.write_part(first + index as u64, origin, (index, parts), part);
        }
        self.memory[BELL].fetch_add(1, Ordering::SeqCst);
        self.memory.wake(BELL);
    }

    fn write_part(&self, number: u64, origin: u32, (index, parts): (usize, usize), bytes: &[u8]) {
        let place = self.place(number);
        place[0].store(number * 2 + 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let header = [u64::from(origin), (index as u64) << 32 | parts as u64, bytes.len() as u64];
        let mut sum = Sum::new(number);
        for (word, value) in place[1..].iter().zip(header) {
            word.store(value, Ordering::Relaxed);
            sum.add(value);
        }
        for (word, chunk) in place[HEADER_WORDS..].iter().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            let value = u64::from_le_bytes(eight);
            word.store(value, Ordering::Relaxed);
            sum.add(value);
        }
        place[4].store(sum.0, Ordering::Relaxed);
        place[0].store(number * 2 + 2, Ordering::Release);
    }

    /// Waits until something may have been written after `rung` was read, at most `timeout`.
    pub fn wait(&self, rung: u64, timeout: Duration) {
        self.memory.wait(BELL, rung, timeout);
    }

    /// How often something was written: for [`Bus::wait`], to be read before the ring is.
    pub fn rung(&self) -> u64 {
        self.memory[BELL].load(Ordering::SeqCst)
    }

    fn place(&self, number: u64) -> &[std::sync::atomic::AtomicU64] {
        let start = FIRST_PLACE + (number % PLACES as u64) as usize * PLACE_WORDS;
        &self.memory[start..start + PLACE_WORDS]
    }

    /// A part, and the number of parts that its record has: the part with this index.
    fn read_part(&self, number: u64, index: u64, bytes: &mut Vec<u8>) -> Result<(u32, u64), Read> {
        let place = self.place(number);
        let whole = number * 2 + 2;
        match place[0].load(Ordering::Acquire) {
            seen if seen < whole => return Err(Read::Unfinished),
            seen if seen > whole => return Err(Read::Lost),
            _ => {}
        }
        let header = [1, 2, 3].map(|word| place[word].load(Ordering::Relaxed));
        let [origin, part, length] = header;
        let length = length as usize;
        if length > PART_BYTES || part >> 32 != index {
            return Err(Read::Lost);
        }
        let mut sum = Sum::new(number);
        header.into_iter().for_each(|value| sum.add(value));
        let before = bytes.len();
        for word in &place[HEADER_WORDS..HEADER_WORDS + length.div_ceil(8)] {
            let value = word.load(Ordering::Relaxed);
            sum.add(value);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.truncate(before + length);
        let expected = place[4].load(Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if place[0].load(Ordering::Relaxed) != whole || sum.0 != expected {
            return Err(Read::Lost);
        }
        Ok((origin as u32, part & u64::from(u32::MAX)))
    }
}

impl Reader {
    /// The next record.
    pub fn read(&mut self, bus: &Bus) -> Read {
        let claimed = bus.memory[CLAIMED].load(Ordering::SeqCst);
        if self.next >= claimed {
            return Read::Nothing;
        }
        if claimed - self.next > PLACES as u64 {
            self.next = claimed;
            return Read::Lost;
        }
        let mut bytes = Vec::new();
        let mut read = || -> Result<(u32, u64), Read> {
            let (origin, parts) = bus.read_part(self.next, 0, &mut bytes)?;
            for index in 1..parts {
                bus.read_part(self.next + index, index, &mut bytes)?;
            }
            Ok((origin, parts))
        };
        match read() {
            Ok((origin, parts)) => {
                self.next += parts.max(1);
                Read::Record { origin, bytes }
            }
            Err(Read::Unfinished) => Read::Unfinished,
            Err(_) => {
                self.next = claimed;
                Read::Lost
            }
        }
    }

    /// Gives up what has been unfinished for too long: its writer is dead.
    pub fn skip(&mut self, bus: &Bus) {
        self.next = bus.memory[CLAIMED].load(Ordering::SeqCst);
    }
}

/// A checksum of words (FNV-1a, by words): against accidents, not against enemies, of which there are none in this memory.
struct Sum(u64);

impl Sum {
    fn new(number: u64) -> Self {
        let mut sum = Self(0xcbf2_9ce4_8422_2325);
        sum.add(number);
        sum
    }

    fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(reader: &mut Reader, bus: &Bus) -> (u32, Vec<u8>) {
        match reader.read(bus) {
            Read::Record { origin, bytes } => (origin, bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn records_are_read_by_all_in_order() {
        let bus = Bus::new().unwrap();
        bus.write(1, b"before");
        let mut readers = [bus.reader(), bus.reader()];
        let large: Vec<u8> = (0..limits::NOTICE_BYTES_MAX).map(|at| (at * 7 / 3) as u8).collect();
        for bytes in [&b"a"[..], b"", &large, &large[..PART_BYTES], &large[..PART_BYTES + 1]] {
            bus.write(2, bytes);
        }
        for reader in &mut readers {
            for bytes in [&b"a"[..], b"", &large, &large[..PART_BYTES], &large[..PART_BYTES + 1]] {
                assert_eq!(record(reader, &bus), (2, bytes.to_vec()));
            }
            assert_eq!(reader.read(&bus), Read::Nothing);
        }
    }

    #[test]
    fn a_reader_that_was_overtaken_is_told() {
        let bus = Bus::new().unwrap();
        let mut reader = bus.reader();
        (0..=PLACES).for_each(|_| bus.write(1, b"x"));
        assert_eq!(reader.read(&bus), Read::Lost);
        bus.write(1, b"y");
        assert_eq!(record(&mut reader, &bus).1, b"y");
    }

    #[test]
    fn a_writer_that_died_is_passed_by() {
        let bus = Bus::new().unwrap();
        let mut reader = bus.reader();
        bus.memory[CLAIMED].fetch_add(1, Ordering::SeqCst);
        bus.write(1, b"after");
        assert_eq!(reader.read(&bus), Read::Unfinished);
        reader.skip(&bus);
        assert_eq!(reader.read(&bus), Read::Nothing);
        bus.write(1, b"more");
        assert_eq!(record(&mut reader, &bus).1, b"more");
    }

    #[test]
    fn what_was_damaged_is_not_believed() {
        for word in 0..HEADER_WORDS + 1 {
            let bus = Bus::new().unwrap();
            let mut reader = bus.reader();
            bus.write(1, b"whatever");
            bus.place(0)[word].fetch_xor(1 << 40, Ordering::SeqCst);
            assert_eq!(reader.read(&bus), Read::Lost, "{word}");
            assert_eq!(reader.read(&bus), Read::Nothing);
        }
    }

    #[test]
    fn many_writers() {
        let bus = Bus::new().unwrap();
        let mut reader = bus.reader();
        std::thread::scope(|scope| {
            for origin in 0..4u32 {
                let bus = &bus;
                scope.spawn(move || {
                    for number in 0..100u32 {
                        bus.write(origin, &number.to_le_bytes().repeat(number as usize * 5 + 1));
                    }
                });
            }
            let mut next = [0u32; 4];
            while next != [100; 4] {
                let rung = bus.rung();
                match reader.read(&bus) {
                    Read::Record { origin, bytes } => {
                        let number = &mut next[origin as usize];
                        assert_eq!(bytes, number.to_le_bytes().repeat(*number as usize * 5 + 1));
                        *number += 1;
                    }
                    Read::Nothing => bus.wait(rung, Duration::from_secs(60)),
                    Read::Unfinished => std::thread::yield_now(),
                    Read::Lost => panic!("the ring has room for all of them"),
                }
            }
        });
    }
}
