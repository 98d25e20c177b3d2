//! Descriptors that this process was started with. It knows numbers only; what they are is found out by others.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A close-on-exec copy of the inherited descriptor `descriptor`. The original stays open, since nothing can prove that
/// nobody else in the process uses it, but isn't inherited any further.
///
/// # Errors
/// `EBADF` when no such descriptor is open, `EMFILE` when the process is out of descriptors.
#[expect(unsafe_code, reason = "the system floor: fcntl(2) on a number that came from outside")]
pub fn copy(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes no pointers here. The copy is a descriptor of its own, checked before it is owned.
    unsafe {
        let copy = libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3);
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        Ok(OwnedFd::from_raw_fd(copy))
    }
}
