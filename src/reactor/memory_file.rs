//! Files that are memory and nothing else (memfd_create(2), Linux 3.17): sendfile(2) gives a socket their pages as they are, so nothing is
//! copied on the way, and nothing is waited for.
//!
//! TCP refers to the pages until the peer has them, however long that takes. So such a file is written once, sealed, and never again
//! altered; who is done with it drops it, and the kernel frees each page when the last socket has let go.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Bytes of a page of memory, of which such a file has a whole number. 4 KiB, or what the kernel was built with.
pub fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// Descriptors that this process may have (`ulimit -n`).
pub fn descriptors_max() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// A sealed file of these bytes, closed on exec(2).
///
/// # Errors
/// Where memfd_create(2) is forbidden or unknown, when descriptors or memory have run out.
pub fn of(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(create(MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(bytes)?;
    // F_SEAL_WRITE would wait until nobody refers to a page; there are no writable mappings, which are all that it forbids besides.
    let seals = SealFlags::FUTURE_WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    match fcntl_add_seals(&file, seals) {
        // Linux before 5.1.
        Err(Errno::INVAL) => fcntl_add_seals(&file, seals - SealFlags::FUTURE_WRITE)?,
        sealed => sealed?,
    }
    Ok(file)
}

fn create(flags: MemfdFlags) -> rustix::io::Result<OwnedFd> {
    match memfd_create(c"hoopsnake", flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3.
        Err(Errno::INVAL) => memfd_create(c"hoopsnake", flags),
        created => created,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn it_holds_what_it_was_given_and_can_not_be_altered() {
        let bytes: Vec<u8> = (0..100_001_u32).map(|number| number as u8).collect();
        let file = of(&bytes).unwrap();
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes && file.metadata().unwrap().len() == 100_001);
        assert!(file.write_at(b"x", 0).is_err() && file.write_at(b"x", 100_001).is_err());
        assert!(file.set_len(0).is_err() && file.set_len(200_000).is_err());
        assert!(rustix::io::fcntl_getfd(&file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert!(page_bytes().is_power_of_two() && descriptors_max() > 0);
    }
}
