//! Unix sockets: one per address, shared by all reactors (SO_REUSEPORT doesn't spread them). The file's mode is left to
//! the umask.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{Bound, code, machine_name, unix_flag};
use crate::config::Address;
use crate::limits::{LISTEN_BACKLOG, SOCKET_TABLE_BYTES_MAX};

/// Bytes of a path that fit into an address with their terminating NUL, or of an abstract name with its leading one
/// (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// A socket's file, unlinked when this is dropped: by the process that bound it, and only while it is the same file.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    process: u32,
}

impl SocketFile {
    /// The file that was just bound.
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        // Absolute, since the working directory may change before the end.
        let path = std::path::absolute(path)?;
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino(), process: std::process::id() })
    }

    /// Gives the file to a user and a group, if it is still the one that was bound: through a descriptor, since whoever owns
    /// the directory could put something else in its place.
    pub(super) fn give(&self, uid: u32, gid: u32) -> io::Result<()> {
        let file = rustix::fs::open(&self.path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found = rustix::fs::fstat(&file)?;
        if found.st_dev != self.device || found.st_ino != self.inode {
            return Err(io::Error::other("something else is in its place"));
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(rustix::fs::chownat(&file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let still_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode)
            && self.process == std::process::id();
        if still_ours {
            // A directory that went read-only leaves a stale file, which the next start removes.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds one socket. A stale file, left by a server that died, is removed first.
pub(super) fn bind(path: &Path) -> Result<Bound, String> {
    let socket_address = address(path)?;
    let socket = open_and_bind(&socket_address).or_else(|error| {
        if code(&error) != libc::EADDRINUSE || is_abstract(path) {
            return Err(sentence(path, &error));
        }
        remove_stale(path, &socket_address)?;
        open_and_bind(&socket_address).map_err(|error| sentence(path, &error))
    })?;
    let file =
        if is_abstract(path) { None } else { Some(SocketFile::of(path).map_err(|error| sentence(path, &error))?) };
    Ok(Bound {
        address: Address::Unix(path.to_owned()),
        description: format!("unix:{}", path.display()),
        server_name: machine_name(),
        server_port: "80".to_owned(),
        sockets: vec![OwnedFd::from(socket)],
        inherited: false,
        file,
    })
}

/// Starts to listen.
pub(super) fn listen(path: &Path, sockets: &[OwnedFd]) -> Result<(), String> {
    sockets
        .iter()
        .try_for_each(|socket| SockRef::from(socket).listen(LISTEN_BACKLOG))
        .map_err(|error| sentence(path, &error))
}

/// Where a socket is bound, for people.
pub(super) fn display(local: &SockAddr) -> String {
    if let Some(path) = local.as_pathname() {
        return path.display().to_string();
    }
    match local.as_abstract_namespace() {
        Some(name) => format!("@{}", String::from_utf8_lossy(name)),
        None => "unnamed".to_owned(),
    }
}

fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"@")
}

fn address(path: &Path) -> Result<SockAddr, String> {
    let flag = unix_flag(path);
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if bytes.is_empty() || bytes == b"@" {
        return Err(format!("{flag}: the path is missing; write unix:/path/to/the.sock or unix:@name"));
    }
    if bytes.len() > PATH_BYTES_MAX {
        let length = bytes.len();
        return Err(format!(
            "{flag}: the path has {length} bytes, and Linux allows {PATH_BYTES_MAX}; choose a shorter one, \
             for example in /run"
        ));
    }
    if bytes.contains(&0) {
        return Err(format!("{flag}: the path contains a NUL byte; choose another"));
    }
    if is_abstract(path) {
        bytes[0] = 0;
    }
    SockAddr::unix(PathBuf::from(OsString::from_vec(bytes))).map_err(|error| sentence(path, &error))
}

fn open_and_bind(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Removes the file at `path` if it is a socket that no process has bound any more.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), String> {
    let flag = unix_flag(path);
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        // Gone in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(sentence(path, &error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(format!(
            "{flag}: something that isn't a socket is there already; remove it, or choose another path"
        ));
    }
    // A connection tells whether anybody listens, the kernel's table whether somebody is about to.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
        .and_then(|socket| socket.connect(address))
        .err();
    match probe.as_ref().map(code) {
        Some(libc::ENOENT) => return Ok(()),
        Some(libc::ECONNREFUSED) if !is_bound_here(path) => {}
        Some(libc::EACCES | libc::EPERM) => {
            return Err(format!("{flag}: another user's socket is there already; remove it, or choose another path"));
        }
        _ => return Err(format!("{flag}: another server uses that socket; stop it, or choose another path")),
    }
    fs::remove_file(path).map_err(|error| {
        format!(
            "{flag}: the socket of a server that ended can't be removed ({error}); remove it, or choose another path"
        )
    })
}

/// Whether a process of this network namespace has a socket bound to this path, listening or not.
fn is_bound_here(path: &Path) -> bool {
    let mut table = Vec::new();
    let read = fs::File::open("/proc/net/unix")
        .and_then(|file| file.take(SOCKET_TABLE_BYTES_MAX).read_to_end(&mut table).map(drop));
    read.is_ok() && table.split(|&byte| byte == b'\n').any(|line| path_in_table(line) == path.as_os_str().as_bytes())
}

/// The path in a line of /proc/net/unix, as it was given to bind(2); empty if there is none.
fn path_in_table(line: &[u8]) -> &[u8] {
    // Num RefCount Protocol Flags Type St Inode Path
    let mut rest = line;
    for _ in 0..7 {
        rest = rest.trim_ascii_start();
        rest = &rest[rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len())..];
    }
    rest.get(1..).unwrap_or_default()
}

fn sentence(path: &Path, error: &io::Error) -> String {
    let flag = unix_flag(path);
    match code(error) {
        libc::EADDRINUSE => format!("{flag}: another server uses that socket; stop it, or choose another path"),
        libc::ENOENT | libc::ENOTDIR => {
            format!("{flag}: the directory doesn't exist; create it, or choose another path")
        }
        libc::EACCES | libc::EPERM | libc::EROFS => {
            format!(
                "{flag}: no permission to create the socket there ({error}); change the directory's owner, \
                 or choose another path"
            )
        }
        _ => format!("{flag}: can't listen there ({error}); choose another path"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn start(bound: &Bound) {
        super::super::listen(std::slice::from_ref(bound)).unwrap();
    }

    #[test]
    fn the_file_lives_as_long_as_its_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let bound = bind(&path).unwrap();
        assert_eq!(bound.description, format!("unix:{}", path.display()));
        assert!(!bound.server_name.is_empty());
        assert_eq!(bound.server_port, "80");
        start(&bound);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(SockRef::from(&bound.sockets[0]).accept().is_ok());
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves it");
        let bound = bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(error.contains("another server uses that socket"), "bound, not listening yet: {error}");
        start(&bound);
        assert!(bind(&path).unwrap_err().contains("another server uses that socket"));
        assert!(UnixStream::connect(&path).is_ok(), "still there");
    }

    #[test]
    fn a_file_that_is_not_ours_any_more_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let bound = bind(&path).unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
        let mut file = SocketFile::of(&path).unwrap();
        file.process += 1;
        drop(file);
        assert!(path.exists(), "another process' file");
    }

    #[test]
    fn the_file_is_given_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let bound = bind(&path).unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // Root may give it to anybody, others have only themselves.
        let (uid, gid) = if uid == 0 { (65534, 65533) } else { (uid, gid) };
        bound.give(uid, gid).unwrap();
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (uid, gid));
        fs::remove_file(&path).unwrap();
        let notes = directory.path().join("notes");
        fs::write(&notes, "").unwrap();
        std::os::unix::fs::symlink(&notes, &path).unwrap();
        let error = bound.give(1, 1).unwrap_err();
        assert!(error.contains("something else is in its place"), "{error}");
        assert_ne!(fs::metadata(&notes).unwrap().uid(), 1);
    }

    #[test]
    fn lines_of_the_kernels_table() {
        let check = |line: &[u8], expected: &[u8]| assert_eq!(path_in_table(line), expected);
        check(b"000000001bc54fcf: 00000002 00000000 00010000 0001 01  1168 /run/my site.sock", b"/run/my site.sock");
        check(b"000000001bc54fcf: 00000002 00000000 00010000 0001 01 11682 s.sock", b"s.sock");
        check(b"0000000049562782: 00000003 00000000 00000000 0001 03  1169", b"");
        check(b"Num       RefCount Protocol Flags    Type St Inode Path", b"Path");
        check(b"", b"");
    }

    #[test]
    fn abstract_names_need_no_file() {
        let name = PathBuf::from(format!("@hoopsnake-test-{}", std::process::id()));
        let bound = bind(&name).unwrap();
        assert_eq!(bound.description, format!("unix:{}", name.display()));
        assert_eq!(display(&SockRef::from(&bound.sockets[0]).local_addr().unwrap()), name.display().to_string());
        assert!(bind(&name).unwrap_err().contains("another server uses"));
        assert!(!name.exists());
    }

    #[test]
    fn faults_are_named_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: PathBuf, expected: &str| {
            let error = bind(&path).unwrap_err();
            assert!(error.starts_with(&format!("--http-socket unix:{}: ", path.display())), "{error}");
            assert!(error.contains(expected), "{error}");
        };
        let file = directory.path().join("notes.txt");
        fs::write(&file, "kept").unwrap();
        check(file.clone(), "isn't a socket");
        assert_eq!(fs::read(&file).unwrap(), b"kept");
        check(directory.path().to_owned(), "isn't a socket");
        check(directory.path().join("none/s.sock"), "the directory doesn't exist");
        check(file.join("s.sock"), "the directory doesn't exist");
        check(PathBuf::from("/".to_owned() + &"x".repeat(107)), "has 108 bytes, and Linux allows 107");
        check(PathBuf::from(""), "the path is missing");
        check(PathBuf::from("@"), "the path is missing");
        check(PathBuf::from("/a\0b"), "NUL");
        assert!(sentence(&file, &io::Error::from_raw_os_error(libc::EACCES)).contains("no permission"));
    }
}
