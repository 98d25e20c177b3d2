//! What the main thread waits on: a socket pair that signals and ending reactors ring.
//!
//! Python's C-level signal handler writes to [`Bell::writer_fd`] (`signal.set_wakeup_fd`) whichever thread a signal reaches,
//! so a waiting main thread wakes and lets Python run the handler proper.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Wakes the main thread.
pub struct Bell {
    reader: UnixStream,
    writer: UnixStream,
}

/// Rings a [`Bell`] from another thread.
pub struct Ringer(UnixStream);

impl Bell {
    /// A bell nobody has rung.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader, writer })
    }

    /// Non-blocking, for `signal.set_wakeup_fd`.
    pub fn writer_fd(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    /// Something other threads ring it with.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn ringer(&self) -> io::Result<Ringer> {
        Ok(Ringer(self.writer.try_clone()?))
    }

    /// Waits until somebody rings, at most `timeout` (not zero).
    pub fn wait(&mut self, timeout: Duration) {
        let mut rings = [0; 64];
        // Neither can fail but for a signal or the time-out, and both mean: look around.
        let _ = self.reader.set_read_timeout(Some(timeout.max(Duration::from_millis(1))));
        let _ = self.reader.read(&mut rings);
    }
}

impl Ringer {
    /// Rings. A full socket means that it rings already.
    pub fn ring(&mut self) {
        let _ = self.0.write(&[0]);
    }
}
