//! Files read without waiting for a disk (`preadv2` with `RWF_NOWAIT`, Linux 4.14), and whether a stretch could be.

use std::fs::File;
use std::io::{self, IoSliceMut};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::limits::SENDFILE_COLD_STEP_BYTES;

/// Whether the stretch is in the page cache: its first and its last byte, and some between. A file system that can't say counts as
/// no: the disk thread reads ahead then.
pub fn is_resident(file: &File, offset: u64, length: u64) -> bool {
    let mut places = (offset..offset.saturating_add(length)).step_by(SENDFILE_COLD_STEP_BYTES);
    length == 0 || (places.all(|place| probe(file, place)) && probe(file, offset.saturating_add(length) - 1))
}

fn probe(file: &File, offset: u64) -> bool {
    // 0: the file ends before that. sendfile finds the same at once, without waiting.
    read_resident(file, &mut [0], offset).is_ok()
}

/// Reads what is in the page cache, as read(2) does: perhaps less than asked for, 0 at the end of the file.
///
/// # Errors
/// `WouldBlock` when a disk would have to be waited for, or the file system can't say. What preadv2(2) reports.
pub fn read_resident(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}
