//! Waiting for several descriptors at once, for the threads that aren't reactors: poll(2).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits until one of the descriptors is readable or its other end is gone, at most `timeout` (rounded up to a millisecond); which of
/// them are. A signal ends the wait early: then none is.
#[expect(unsafe_code, reason = "the system floor: poll(2)")]
pub fn readable(descriptors: &[BorrowedFd<'_>], timeout: Duration) -> Vec<bool> {
    let entry = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries: Vec<libc::pollfd> = descriptors.iter().map(entry).collect();
    let milliseconds = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: pointer and length are of one vector that lives through the call; its descriptors are borrowed, so open.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds) };
    entries.iter().map(|entry| ready > 0 && entry.revents != 0).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_can_be_read_is_told() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let (third, fourth) = UnixStream::pair().unwrap();
        let look = || readable(&[other.as_fd(), third.as_fd()], Duration::ZERO);
        assert_eq!(look(), [false, false]);
        one.write_all(b"x").unwrap();
        assert_eq!(look(), [true, false]);
        drop(fourth);
        assert_eq!(look(), [true, true], "an end is told as well");
    }
}
