//! Memory that a process shares with the children it forks afterwards: 64-bit words, each an atomic, so that every access is defined
//! whoever else looks. Nothing in it is ever freed or moved; it is gone when the last process that has it is.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// An anonymous shared mapping (mmap(2), `MAP_SHARED | MAP_ANONYMOUS`) of words that begin as zero.
#[derive(Debug)]
pub struct SharedMemory {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: it gives out nothing but `&AtomicU64`, which any thread may use, and the mapping belongs to no thread.
#[expect(unsafe_code, reason = "a raw pointer to memory that is shared on purpose")]
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a raw pointer to memory that is shared on purpose")]
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps this many words, at least one. To be made before fork(2). Pages that are never touched cost nothing.
    ///
    /// # Errors
    /// When the process, or the machine, has no memory left.
    #[expect(unsafe_code, reason = "the system floor: mmap(2)")]
    pub fn new(words: usize) -> io::Result<Self> {
        let words = words.max(1);
        let bytes = words.checked_mul(size_of::<AtomicU64>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping of its own at an address of the kernel's choice; the result is checked before use.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
        match NonNull::new(start.cast::<AtomicU64>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, words }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl SharedMemory {
    /// The half of a word that a futex looks at.
    fn futex(&self, word: usize) -> *const u32 {
        let half = if cfg!(target_endian = "big") { 1 } else { 0 };
        // The address of a word that exists: indexing has checked it.
        std::ptr::from_ref(&self[word]).cast::<u32>().wrapping_add(half)
    }

    /// Waits until a word is said to have changed ([`SharedMemory::wake`]), unless its lower half isn't that of `value` any more; at most
    /// `timeout`. May return for no reason.
    #[expect(unsafe_code, reason = "the system floor: futex(2)")]
    pub fn wait(&self, word: usize, value: u64, timeout: Duration) {
        let time = libc::timespec {
            tv_sec: timeout.as_secs().min(86_400) as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as libc::c_long,
        };
        // SAFETY: the word lies in the mapping for as long as `self` does, `time` is a valid timespec for the call, and the kernel
        // only reads both. Every failure means: look around.
        unsafe { libc::syscall(libc::SYS_futex, self.futex(word), libc::FUTEX_WAIT, value as u32, &time) };
    }

    /// Wakes whoever waits for this word, in whichever process.
    #[expect(unsafe_code, reason = "the system floor: futex(2)")]
    pub fn wake(&self, word: usize) {
        // SAFETY: the kernel looks nothing up but the word's address, which lies in the mapping for as long as `self` does.
        unsafe { libc::syscall(libc::SYS_futex, self.futex(word), libc::FUTEX_WAKE, i32::MAX) };
    }
}

impl Deref for SharedMemory {
    type Target = [AtomicU64];

    #[expect(unsafe_code, reason = "a slice of the mapping")]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this many words, aligned to a page, lives as long as `self`, and zeros are valid atomics. Other
        // processes change it through atomics only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedMemory {
    #[expect(unsafe_code, reason = "the system floor: munmap(2)")]
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<AtomicU64>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_word_that_changes_wakes_who_waits_for_it() {
        let memory = SharedMemory::new(2).unwrap();
        // One that has changed isn't waited for.
        memory.wait(1, 5, Duration::from_secs(3600));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                while memory[1].load(Ordering::SeqCst) == 0 {
                    memory.wait(1, 0, Duration::from_secs(3600));
                }
            });
            memory[1].store(1, Ordering::SeqCst);
            memory.wake(1);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn words_begin_as_zero_and_keep_what_is_stored() {
        let memory = SharedMemory::new(10_000).unwrap();
        assert_eq!(memory.len(), 10_000);
        assert!(memory.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        memory[9_999].store(7, Ordering::Relaxed);
        assert_eq!(memory[9_999].load(Ordering::Relaxed), 7);
        assert_eq!(SharedMemory::new(0).unwrap().len(), 1);
        assert!(SharedMemory::new(usize::MAX).is_err());
    }
}
