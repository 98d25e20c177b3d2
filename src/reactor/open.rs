//! Opening files that somebody else has named: beneath a folder and nowhere else, and without waiting for a disk where the kernel
//! can say that it would have to (openat2(2), Linux 5.6; `RESOLVE_CACHED`, Linux 5.12). Knows no names of its own and no policy.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

/// Tries when the tree is renamed while a path is walked (openat2(2): EAGAIN), or a lease is being broken.
const TRIES_MAX: usize = 4;

/// Whether a caller may be kept waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A reactor: what isn't in the kernel's caches is an error of kind `WouldBlock`.
    Never,
    /// The disk thread.
    Allowed,
}

/// What the kernel lets us do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// openat2 with `RESOLVE_BENEATH` and `RESOLVE_CACHED`.
    Cached,
    /// openat2 with `RESOLVE_BENEATH` only: nothing can be opened without perhaps waiting (Linux 5.6 to 5.11).
    Beneath,
    /// No openat2 (an older kernel, or a seccomp profile that doesn't know it): each part of a path is opened by itself, and symbolic
    /// links aren't followed at all, so that none can lead outside. Nothing can be opened without perhaps waiting.
    Walk,
}

/// What was found under a name.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, open for reading.
    File(File, Stat),
    /// A folder.
    Folder,
    /// A device, a pipe, a socket.
    Other,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// When its content changed: seconds of Unix time, and nanoseconds.
    pub modified: (i64, u32),
    /// When its content, or anything else about it, changed.
    pub changed: (i64, u32),
}

impl Opener {
    /// Finds out what the kernel can do, by doing it.
    pub fn probe() -> Self {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let open = |resolve| openat2(CWD, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
        match open(beneath | ResolveFlags::CACHED) {
            Ok(_) | Err(Errno::AGAIN) => return Self::Cached,
            Err(_) => {}
        }
        if open(beneath).is_ok() { Self::Beneath } else { Self::Walk }
    }

    /// Opens a folder that the operator named, to open files beneath it. Links are followed.
    ///
    /// # Errors
    /// `WouldBlock`: not without waiting. What open(2) reports.
    pub fn folder(self, path: &Path, wait: Wait) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.path(path, flags, wait)
    }

    /// Opens what the operator named, file or folder. Links are followed.
    ///
    /// # Errors
    /// As [`Opener::folder`].
    pub fn plain(self, path: &Path, wait: Wait) -> io::Result<Opened> {
        look(self.path(path, READ, wait)?)
    }

    fn path(self, path: &Path, flags: OFlags, wait: Wait) -> io::Result<OwnedFd> {
        let bytes = path.as_os_str().as_bytes();
        match wait {
            Wait::Allowed => Ok(openat(CWD, bytes, flags, Mode::empty())?),
            Wait::Never if self == Self::Cached => Ok(openat2(CWD, bytes, flags, Mode::empty(), ResolveFlags::CACHED)?),
            Wait::Never => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Opens `name`, a relative path, beneath `folder`. Neither `..` nor a symbolic link leads out of it, nor does an absolute link lead
    /// anywhere. A pipe isn't waited for, a terminal doesn't become ours.
    ///
    /// # Errors
    /// `WouldBlock`: not without waiting. `CrossesDevices` (EXDEV): it would lead outside. What open(2) reports.
    pub fn beneath(self, folder: BorrowedFd<'_>, name: &[u8], wait: Wait) -> io::Result<Opened> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match (self, wait) {
            (Self::Cached, Wait::Never) => {
                look(openat2(folder, name, READ, Mode::empty(), beneath | ResolveFlags::CACHED)?)
            }
            (_, Wait::Never) => Err(io::ErrorKind::WouldBlock.into()),
            (Self::Cached | Self::Beneath, Wait::Allowed) => {
                let mut tries = 1;
                loop {
                    match openat2(folder, name, READ, Mode::empty(), beneath) {
                        Err(Errno::AGAIN) if tries < TRIES_MAX => tries += 1,
                        // Not to be taken for "ask again where waiting is allowed".
                        Err(Errno::AGAIN) => return Err(Errno::BUSY.into()),
                        result => return look(result?),
                    }
                }
            }
            (Self::Walk, Wait::Allowed) => walk(folder, name),
        }
    }
}

/// `NONBLOCK`: a pipe without a writer would be waited for. It means nothing to a regular file.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Part by part, following nothing.
fn walk(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<Opened> {
    let mut parts = name.split(|&byte| byte == b'/').peekable();
    let mut held: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if matches!(part, b"" | b"." | b"..") {
            return Err(Errno::XDEV.into());
        }
        let from = held.as_ref().map_or(folder, AsFd::as_fd);
        if parts.peek().is_none() {
            return look(openat(from, part, READ | OFlags::NOFOLLOW, Mode::empty())?);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        held = Some(openat(from, part, flags, Mode::empty())?);
    }
    Err(Errno::NOENT.into())
}

fn look(descriptor: OwnedFd) -> io::Result<Opened> {
    let found = fstat(&descriptor)?;
    Ok(match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {
            let stat = Stat {
                device: found.st_dev,
                inode: found.st_ino,
                size: u64::try_from(found.st_size).unwrap_or(0),
                modified: (found.st_mtime as i64, found.st_mtime_nsec as u32),
                changed: (found.st_ctime as i64, found.st_ctime_nsec as u32),
            };
            Opened::File(File::from(descriptor), stat)
        }
        FileType::Directory => Opened::Folder,
        _ => Opened::Other,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("in/deep")).unwrap();
        fs::write(at("in/a"), b"a").unwrap();
        fs::write(at("in/deep/b"), b"bb").unwrap();
        fs::write(at("secret"), b"secret").unwrap();
        symlink("../secret", at("in/out")).unwrap();
        symlink(at("in/a"), at("in/absolute")).unwrap();
        symlink("deep/b", at("in/inside")).unwrap();
        symlink("deep", at("in/folder")).unwrap();
        symlink("/proc/self/root", at("in/magic")).unwrap();
        rustix::fs::mknodat(CWD, at("in/pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        root
    }

    fn size(opener: Opener, root: &Path, name: &str, wait: Wait) -> Option<u64> {
        let folder = opener.folder(&root.join("in"), Wait::Allowed).unwrap();
        match opener.beneath(folder.as_fd(), name.as_bytes(), wait) {
            Ok(Opened::File(_, stat)) => Some(stat.size),
            Ok(_) | Err(_) => None,
        }
    }

    #[test]
    fn nothing_outside_is_opened_on_any_level() {
        let root = tree();
        for opener in [Opener::probe(), Opener::Beneath, Opener::Walk] {
            let check = |name: &str, expected: Option<u64>| {
                assert_eq!(size(opener, root.path(), name, Wait::Allowed), expected, "{opener:?} {name}");
            };
            check("a", Some(1));
            check("deep/b", Some(2));
            for name in ["out", "absolute", "magic/etc/passwd", "../secret", "deep/../../secret", "/etc/passwd", "pipe"]
            {
                check(name, None);
            }
            for name in ["", ".", "..", "deep", "deep/", "none", "a/b", "deep/b/", "x\0y"] {
                check(name, None);
            }
            let followed = opener != Opener::Walk;
            check("inside", followed.then_some(2));
            check("folder/b", followed.then_some(2));
        }
    }

    #[test]
    fn what_was_just_written_is_opened_without_waiting_or_not_at_all() {
        let root = tree();
        let opener = Opener::probe();
        match size(opener, root.path(), "a", Wait::Never) {
            Some(size) => assert_eq!((opener, size), (Opener::Cached, 1)),
            None => assert_ne!(opener, Opener::Cached, "its name is in the cache, for it was just written"),
        }
        for opener in [Opener::Beneath, Opener::Walk] {
            let error = opener.plain(Path::new("/"), Wait::Never).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert!(matches!(opener.plain(Path::new("/"), Wait::Allowed), Ok(Opened::Folder)));
        }
    }
}
