//! The receive buffers a ring shares with the kernel (IORING_REGISTER_PBUF_RING, kernel ≥ 5.19).
//!
//! The kernel takes a buffer only when bytes have come, so an idle connection holds none. This module lends
//! and takes back; it submits nothing.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The one buffer group of a ring.
pub const GROUP: u16 = 0;
/// One anonymous mapping: the ring of entries, then the buffers.
pub struct Buffers {
    base: *mut u8,
    mapped: usize,
    /// Entries, a power of two.
    count: u16,
    buffer_bytes: usize,
    /// Where the first buffer begins.
    first: usize,
    /// Our copy of the tail that the kernel reads.
    tail: u16,
}

// SAFETY: the mapping is owned by this value alone; the kernel's side of it is tied to the ring, not to a thread.
#[expect(unsafe_code, reason = "raw pointer to a mapping of our own")]
unsafe impl Send for Buffers {}

#[expect(unsafe_code, reason = "memory shared with the kernel")]
impl Buffers {
    /// Maps `count` (a power of two) buffers and registers them with `ring`.
    ///
    /// # Errors
    /// `InvalidInput` where the kernel has no buffer rings (< 5.19); out of memory.
    pub fn register(ring: &IoUring, count: u16, buffer_bytes: usize) -> io::Result<Self> {
        let first = (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(4096);
        let mapped = first + usize::from(count) * buffer_bytes;
        // SAFETY: a new private anonymous mapping; nothing is replaced.
        let base = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut buffers = Self { base: base.cast(), mapped, count, buffer_bytes, first, tail: 0 };
        // SAFETY: the mapping is page-aligned, holds `count` entries, and is unmapped only after the ring is closed
        // (field order in `Ring`), or never (`leak`).
        unsafe { ring.submitter().register_buf_ring_with_flags(base as u64, count, GROUP, 0)? };
        (0..count).for_each(|id| buffers.give_back(id));
        Ok(buffers)
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The first `length` bytes of a buffer the kernel has lent us.
    ///
    /// # Panics
    /// If there is no such buffer or it isn't that long: not a completion of the kernel's.
    pub fn bytes(&self, id: u16, length: u32) -> &[u8] {
        assert!(id < self.count && length as usize <= self.buffer_bytes, "a buffer the kernel has filled");
        // SAFETY: within the mapping by the assertion; the kernel writes to it only after it was given back, for which
        // the caller needs this value mutably. Mapped memory is initialised (zero or what the kernel wrote).
        unsafe { std::slice::from_raw_parts(self.base.add(self.offset(id)), length as usize) }
    }

    /// Gives a buffer back to the kernel.
    pub fn give_back(&mut self, id: u16) {
        debug_assert!(id < self.count, "a buffer the kernel has lent");
        let index = usize::from(self.tail & (self.count - 1));
        let offset = self.offset(id);
        // SAFETY: `index` is below `count`, so the entry lies in the mapping, and the kernel doesn't read it before the
        // tail passes it. The tail shares its place with the reserved field of entry 0, which the setters leave alone;
        // it is 2-byte aligned, and the kernel only reads it.
        unsafe {
            let entry = &mut *self.base.cast::<BufRingEntry>().add(index);
            entry.set_addr(self.base.add(offset) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.base.cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Never unmaps: for a ring that had to be left with receives the kernel hasn't ended.
    pub fn leak(self) {
        std::mem::forget(self);
    }

    fn offset(&self, id: u16) -> usize {
        self.first + usize::from(id) * self.buffer_bytes
    }
}

#[expect(unsafe_code, reason = "munmap(2)")]
impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives this value.
        unsafe { libc::munmap(self.base.cast(), self.mapped) };
    }
}
