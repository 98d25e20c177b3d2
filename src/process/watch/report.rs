//! What workers tell of the files they have loaded: paths with a NUL behind each, over one pipe, which all workers of all
//! generations write to. A write of one path is never torn (pipe(7), PIPE_BUF).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::pipe::PipeFlags;

use crate::limits::WATCHED_PATH_BYTES_MAX;

/// Takes paths out of a stream of bytes. Pure.
#[derive(Debug, Default)]
pub struct Paths {
    begun: Vec<u8>,
    /// The path that has begun is too long, and its rest is passed over.
    skipping: bool,
}

impl Paths {
    /// Calls `each` with every path that `bytes` completes. Relative ones, and ones that are too long, are left out.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&Path)) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(0, rest) {
            self.begin(&rest[..end]);
            if !self.skipping && self.begun.starts_with(b"/") {
                each(Path::new(std::ffi::OsStr::from_bytes(&self.begun)));
            }
            self.begun.clear();
            self.skipping = false;
            rest = &rest[end + 1..];
        }
        self.begin(rest);
    }

    fn begin(&mut self, bytes: &[u8]) {
        if self.begun.len() + bytes.len() >= WATCHED_PATH_BYTES_MAX {
            self.skipping = true;
            self.begun.clear();
        }
        if !self.skipping {
            self.begun.extend_from_slice(bytes);
        }
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Reports {
    pipe: File,
    paths: Paths,
}

/// The supervisor's end, and the one that workers write to. Neither ever blocks.
///
/// # Errors
/// The process is out of descriptors.
pub fn pipe() -> io::Result<(Reports, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok((Reports { pipe: File::from(reader), paths: Paths::default() }, writer))
}

impl Reports {
    /// To be waited for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Calls `each` with every path that has come in; at most as many bytes as the pipe holds.
    pub fn read(&mut self, mut each: impl FnMut(&Path)) {
        let mut buffer = [0; WATCHED_PATH_BYTES_MAX];
        for _ in 0..16 {
            // Empty, or an end that can't come: the supervisor has the other end as well.
            let Ok(length @ 1..) = self.pipe.read(&mut buffer) else { break };
            self.paths.feed(&buffer[..length], &mut each);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn fed(pieces: &[&[u8]]) -> Vec<PathBuf> {
        let (mut paths, mut found) = (Paths::default(), Vec::new());
        for piece in pieces {
            paths.feed(piece, |path| found.push(path.to_owned()));
            assert!(paths.begun.len() < WATCHED_PATH_BYTES_MAX);
        }
        found
    }

    #[test]
    fn whole_absolute_paths() {
        assert_eq!(fed(&[b"/a.py\0/b", b".py\0rel\0\0/c\0/d"]), ["/a.py", "/b.py", "/c"].map(PathBuf::from));
        let long = [b"/".as_slice(), &[b'x'; WATCHED_PATH_BYTES_MAX - 2]].concat();
        assert_eq!(fed(&[&long, b"\0/a\0"]).len(), 2);
        assert_eq!(fed(&[&long, b"x\0/a\0"]), [PathBuf::from("/a")]);
        assert_eq!(fed(&[&long, &long, &long, b"\0/a\0"]), [PathBuf::from("/a")]);
    }

    #[test]
    fn a_pipe_that_never_blocks() {
        let (mut reports, writer) = pipe().unwrap();
        let mut read = || {
            let mut found = Vec::new();
            reports.read(|path| found.push(path.to_owned()));
            found
        };
        assert!(read().is_empty());
        let mut writer = File::from(writer);
        writer.write_all(b"/one\0/two\0").unwrap();
        assert_eq!(read(), ["/one", "/two"].map(PathBuf::from));
        while writer.write(&[b'x'; 4096]).is_ok() {}
        assert!(read().is_empty());
    }

    proptest! {
        #[test]
        fn however_it_is_cut(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(b'/'), any::<u8>()], 0..300),
                             at in 0usize..300) {
            let at = at.min(bytes.len());
            let whole = fed(&[&bytes]);
            prop_assert_eq!(fed(&[&bytes[..at], &bytes[at..]]), whole.clone());
            prop_assert!(whole.iter().all(|path| path.is_absolute()));
        }
    }
}
