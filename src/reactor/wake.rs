//! How one thread wakes a reactor: an eventfd that is written only when the reactor sleeps, and a condition that is
//! signalled only when it rests.
//!
//! Reactor: `prepare_sleep`, look at its mailbox once more, sleep only if that is empty, `awake`.
//! Other thread: put into the mailbox, then `wake`. Both sides fence (SeqCst) between their store and
//! their load, so that at least one of them sees the other.
//!
//! Sleeping waits for whatever comes. Resting leaves lying what comes, for a short time, so that more of it can be dealt with at once.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Wakes one reactor.
#[derive(Debug)]
pub struct Waker {
    eventfd: OwnedFd,
    sleeping: AtomicBool,
    resting: AtomicBool,
    rest: Mutex<()>,
    rest_over: Condvar,
}

impl Waker {
    /// A waker with an eventfd of its own (non-blocking, close-on-exec).
    ///
    /// # Errors
    /// When the process is out of descriptors.
    #[expect(unsafe_code, reason = "the system floor: eventfd(2)")]
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the result is checked before it is owned.
        let eventfd = unsafe {
            let descriptor = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        Ok(Self {
            eventfd,
            sleeping: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            rest: Mutex::default(),
            rest_over: Condvar::new(),
        })
    }

    /// A new waker, as a driver and a mailbox share it.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn shared() -> io::Result<Arc<Self>> {
        Self::new().map(Arc::new)
    }

    /// The descriptor that becomes readable. A driver polls or reads it.
    pub fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Wakes the reactor if it sleeps or is about to; otherwise costs a fence and a load.
    #[expect(unsafe_code, reason = "the system floor: write(2) of eight bytes to an eventfd")]
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: `one` is eight readable bytes; the descriptor is ours and open. EAGAIN (the counter is
            // full) means that the reactor has a wake-up pending already.
            unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Called by the reactor before it looks at its mailbox for the last time.
    pub fn prepare_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the reactor when it is awake again: writers needn't write.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Called by the reactor: waits for `time`, whatever happens but [`Waker::hurry`]. `wanted` is asked once more when nobody can miss
    /// the rest any longer.
    pub fn rest(&self, time: Duration, wanted: impl FnOnce() -> bool) {
        let inside = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        self.resting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if wanted() {
            let on = |_: &mut ()| self.resting.load(Ordering::Relaxed);
            drop(self.rest_over.wait_timeout_while(inside, time, on));
        }
        self.resting.store(false, Ordering::Relaxed);
    }

    /// Ends the reactor's rest, if it rests. Doesn't end its sleep.
    pub fn hurry(&self) {
        fence(Ordering::SeqCst);
        if self.resting.load(Ordering::Relaxed) {
            // Whoever is between its last look and its wait is inside.
            let inside = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
            self.resting.store(false, Ordering::Relaxed);
            drop(inside);
            self.rest_over.notify_one();
        }
    }

    /// Takes the eventfd's counter back to zero (for drivers that poll it).
    #[expect(unsafe_code, reason = "the system floor: read(2) of eight bytes from an eventfd")]
    pub fn drain(&self) {
        let mut counter = [0u8; 8];
        // SAFETY: `counter` is eight writable bytes; EAGAIN (nothing to read) is as good.
        unsafe { libc::read(self.eventfd.as_raw_fd(), counter.as_mut_ptr().cast(), counter.len()) };
    }
}
