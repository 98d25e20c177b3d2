//! One bounded step of sendfile(2), for all drivers. Never waits for the socket; it may wait for the disk when the
//! file isn't in the page cache, because sendfile(2) has no way not to.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::FileRange;

/// Sends at most `most` bytes of `range` to a non-blocking `socket`, and says how many were taken (at least 1).
///
/// # Errors
/// `WouldBlock` when the socket takes nothing now; `UnexpectedEof` when the file ends before the range does; what
/// sendfile(2) reports.
#[expect(unsafe_code, reason = "the system floor: sendfile(2) has no safe wrapper in libc")]
pub fn step(socket: RawFd, range: &FileRange, most: usize) -> io::Result<usize> {
    let length = usize::try_from(range.length).unwrap_or(usize::MAX).min(most);
    let mut offset = libc::off_t::try_from(range.offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `offset` is a valid, writable off_t for the duration of the call, and the range keeps its file open.
    let sent = unsafe { libc::sendfile(socket, range.file.as_raw_fd(), &mut offset, length) };
    match sent {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        sent if sent > 0 => Ok(sent as usize),
        _ => Err(io::Error::last_os_error()),
    }
}
