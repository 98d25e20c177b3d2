//! What the main thread waits on: a pipe that signals and ending reactors ring.
//!
//! Python's C-level signal handler writes to [`Bell::writer_fd`] (`signal.set_wakeup_fd`) whichever thread a signal reaches,
//! so a waiting main thread wakes and lets Python run the handler proper.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::pipe::PipeFlags;

use crate::reactor::poll;

/// Wakes the main thread. A pipe holds tens of thousands of rings that nobody has heard yet, so no signal is lost.
pub struct Bell {
    reader: File,
    writer: File,
}

/// Rings a [`Bell`] from another thread.
pub struct Ringer(File);

impl Bell {
    /// A bell nobody has rung.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader: File::from(reader), writer: File::from(writer) })
    }

    /// Non-blocking, for `signal.set_wakeup_fd`.
    pub fn writer_fd(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    /// What becomes readable when somebody rings.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// What it was rung with since: for a signal its number (`signal.set_wakeup_fd`), otherwise 0. Doesn't wait.
    pub fn rings(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut rings = [0; 64];
        // Nothing waiting is the end of it, as an interruption may be: it is asked again.
        while let Ok(count @ 1..) = self.reader.read(&mut rings) {
            all.extend_from_slice(&rings[..count]);
        }
        all
    }

    /// Something other threads ring it with.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn ringer(&self) -> io::Result<Ringer> {
        Ok(Ringer(self.writer.try_clone()?))
    }

    /// Waits until somebody rings, at most `timeout`.
    pub fn wait(&mut self, timeout: Duration) {
        if poll::readable(&[self.as_fd()], timeout)[0] {
            self.rings();
        }
    }
}

impl Ringer {
    /// Rings. A full pipe means that it rings already.
    pub fn ring(&self) {
        let _ = (&self.0).write(&[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_was_rung_with_is_heard_in_order() {
        let mut bell = Bell::new().unwrap();
        assert!(bell.rings().is_empty());
        let ringer = bell.ringer().unwrap();
        // Far more than a socket would hold, and the last one arrives.
        (0..10_000).for_each(|_| ringer.ring());
        bell.writer.write_all(&[15]).unwrap();
        let rings = bell.rings();
        assert_eq!((rings.len(), rings.last()), (10_001, Some(&15)));
        ringer.ring();
        bell.wait(Duration::from_secs(3600));
        assert!(bell.rings().is_empty());
        bell.wait(Duration::ZERO);
    }
}
