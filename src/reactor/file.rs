//! Whether a stretch of a file can be sent without waiting for a disk.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Whether the first and the last byte of the stretch are in the page cache (`preadv2` with `RWF_NOWAIT`, Linux 4.14).
/// A file system that can't say counts as no: the disk thread reads ahead then.
pub fn is_resident(file: &File, offset: u64, length: u64) -> bool {
    length == 0 || (probe(file, offset) && probe(file, offset + length - 1))
}

#[expect(unsafe_code, reason = "the system floor: preadv2(2)")]
fn probe(file: &File, offset: u64) -> bool {
    let mut byte = 0u8;
    let vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let Ok(offset) = libc::off_t::try_from(offset) else { return false };
    // SAFETY: the one vector points at one writable byte; both outlive the call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &vector, 1, offset, libc::RWF_NOWAIT) };
    // 0: the file ends before that. sendfile finds the same at once, without waiting.
    read >= 0
}
