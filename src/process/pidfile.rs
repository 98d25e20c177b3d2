//! The pid file: the number of the process to send signals to, for scripts. Written whole or not at all, never over a server
//! that lives, removed by whoever wrote it only.
//!
//! It holds a lock (flock(2)) as long as its server lives. That tells a living server for certain; a pid alone can belong to
//! somebody else by now, and the files of other programs have no lock.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use tempfile::PersistError;

use crate::limits::{PID_FILE_ATTEMPTS_MAX, PID_FILE_BYTES_MAX};

/// Mode of the file: everybody may read the number.
const FILE_MODE: u32 = 0o644;
/// A process that began this much later than the file was written can't be the one that it names.
const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// The file of this process. Dropping it removes it, in the process that wrote it, while it is still the same file.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Locked, and open for writing: it can be emptied where it can't be removed any more.
    file: File,
    device: u64,
    inode: u64,
    process: u32,
}

impl PidFile {
    /// Writes the number of this process.
    ///
    /// # Errors
    /// One sentence: another server lives, the file is no pid file, the directory can't be written.
    pub fn create(path: &Path) -> Result<Self, String> {
        let fault = |error: io::Error| cant_write(path, &error);
        let absolute = std::path::absolute(path).map_err(fault)?;
        let directory = directory_of(path, &absolute)?;
        let mut made = tempfile::Builder::new()
            .prefix(".hoopsnake-")
            .suffix(".pid")
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(directory)
            .map_err(fault)?;
        writeln!(made, "{}", std::process::id()).map_err(fault)?;
        // The umask may have taken away more than it should.
        made.as_file().set_permissions(Permissions::from_mode(FILE_MODE)).map_err(fault)?;
        // A file system without locks still has the number.
        let _ = rustix::fs::flock(made.as_file(), FlockOperation::NonBlockingLockExclusive);
        for _ in 0..PID_FILE_ATTEMPTS_MAX {
            match made.persist_noclobber(&absolute) {
                Ok(file) => return Self::of(absolute, file).map_err(fault),
                Err(PersistError { error, file }) if error.kind() == io::ErrorKind::AlreadyExists => made = file,
                Err(PersistError { error, .. }) => return Err(fault(error)),
            }
            let Some(left) = Left::behind(path, &absolute)? else { continue };
            // The lock on what was left keeps a second starter from doing the same.
            if left.is_at(&absolute) {
                let file = made.persist(&absolute).map_err(|error| fault(error.error))?;
                return Self::of(absolute, file).map_err(fault);
            }
        }
        Err(format!("--pid {}: other servers are starting with the same file; give each one its own", path.display()))
    }

    /// Whether [`PidFile::create`] would work; writes nothing.
    ///
    /// # Errors
    /// As there.
    pub fn check(path: &Path) -> Result<(), String> {
        let absolute = std::path::absolute(path).map_err(|error| cant_write(path, &error))?;
        let directory = directory_of(path, &absolute)?;
        Left::behind(path, &absolute)?;
        rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| cant_write(path, &error.into()))
    }

    fn of(path: PathBuf, file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { path, file, device: metadata.dev(), inode: metadata.ino(), process: std::process::id() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode)
            && self.process == std::process::id();
        // The user that the server has become may not be allowed to remove it.
        if ours && fs::remove_file(&self.path).is_err() {
            let _ = self.file.set_len(0);
        }
    }
}

/// A file that names nobody who lives.
struct Left {
    file: File,
}

impl Left {
    /// What is there; `None` if there is nothing.
    fn behind(path: &Path, absolute: &Path) -> Result<Option<Self>, String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let shown = path.display();
        let no_pid_file =
            || format!("--pid {shown}: something that isn't a pid file is there already; remove it, or name another");
        let file = match rustix::fs::open(absolute, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO) => return Err(no_pid_file()),
            Err(error @ Errno::NOTDIR) => return Err(cant_write(path, &error.into())),
            Err(error) => {
                return Err(format!("--pid {shown}: the file that is there can't be read ({error}); remove it"));
            }
        };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(no_pid_file());
        }
        let mut text = Vec::new();
        (&file)
            .take(PID_FILE_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|error| format!("--pid {shown}: the file that is there can't be read ({error}); remove it"))?;
        let named = contents(&text).ok_or_else(no_pid_file)?;
        let lives = |who: &str| format!("--pid {shown}: {who} runs already; stop it, or name another file");
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(lives(&named.map_or("its server".to_owned(), |pid| format!("its server, process {pid},"))));
        }
        let written = file.metadata().and_then(|metadata| metadata.modified()).ok();
        match named {
            Some(pid) if u32::try_from(pid) != Ok(std::process::id()) && is_alive(pid, written) => {
                Err(lives(&format!("process {pid}, which it names,")))
            }
            _ => Ok(Some(Self { file })),
        }
    }

    /// Whether it is still what the path leads to.
    fn is_at(&self, path: &Path) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::symlink_metadata(path).map(identity).ok();
        there.is_some() && there == self.file.metadata().map(identity).ok()
    }
}

/// The pid in a file; `Some(None)` in one that was emptied, `None` if this is no pid file.
fn contents(text: &[u8]) -> Option<Option<i32>> {
    if text.len() as u64 > PID_FILE_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    match text {
        "" => Some(None),
        _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => None,
        digits => digits.parse().ok().filter(|pid| *pid > 0).map(Some),
    }
}

/// Whether a process of this number runs that can have written a file at that time.
fn is_alive(pid: i32, written: Option<SystemTime>) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    if rustix::process::test_kill_process(pid) == Err(Errno::SRCH) {
        return false;
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = read(&format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let uptime = read("/proc/uptime");
    match (began(&stat, &uptime, rustix::param::clock_ticks_per_second(), SystemTime::now()), written) {
        (Began::Never, _) => false,
        (Began::At(began), Some(written)) => began <= written + CLOCK_SLACK,
        // Without /proc there is no more to go by.
        _ => true,
    }
}

/// When a process began.
#[derive(Debug, PartialEq)]
enum Began {
    /// It has ended already, and waits for its parent (proc(5), states Z and X).
    Never,
    At(SystemTime),
    Unknown,
}

/// From /proc/PID/stat (fields 3 and 22) and /proc/uptime.
fn began(stat: &str, uptime: &str, ticks_per_second: u64, now: SystemTime) -> Began {
    // The name, field 2, may hold blanks and brackets.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return Began::Unknown };
    let mut fields = rest.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return Began::Never;
    }
    let ticks = fields.nth(18).and_then(|field| field.parse::<u64>().ok());
    let up = uptime.split(' ').next().and_then(|field| field.parse::<f64>().ok());
    let (Some(ticks), Some(up)) = (ticks, up) else { return Began::Unknown };
    let age = Duration::try_from_secs_f64(up - ticks as f64 / ticks_per_second.max(1) as f64).unwrap_or_default();
    now.checked_sub(age).map_or(Began::Unknown, Began::At)
}

fn directory_of<'a>(path: &Path, absolute: &'a Path) -> Result<&'a Path, String> {
    match (absolute.file_name(), absolute.parent()) {
        (Some(_), Some(directory)) if !absolute.is_dir() => Ok(directory),
        _ => Err(format!("--pid {}: it is a directory; name a file in it", path.display())),
    }
}

fn cant_write(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!("--pid {shown}: its directory doesn't exist; create it, or choose another")
        }
        _ => format!("--pid {shown}: the file can't be written ({error}); allow this user to write to its directory"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn it_lives_as_long_as_its_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        PidFile::check(&path).unwrap();
        assert!(!path.exists());
        let file = PidFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, FILE_MODE);
        for error in [PidFile::create(&path).unwrap_err(), PidFile::check(&path).unwrap_err()] {
            assert!(error.contains(&format!("its server, process {}, runs already", std::process::id())), "{error}");
        }
        drop(file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn one_of_a_dead_process_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        for left in [format!("{}\n", ended.id()), String::new(), format!("{}", std::process::id()), "2147483647".into()]
        {
            fs::write(&path, &left).unwrap();
            PidFile::check(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), left, "a check changes nothing");
            let file = PidFile::create(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
            drop(file);
            assert!(!path.exists());
        }
    }

    #[test]
    fn one_of_a_living_process_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        let mut other = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        fs::write(&path, format!("{}\n", other.id())).unwrap();
        let error = PidFile::create(&path).unwrap_err();
        assert!(error.contains(&format!("process {}, which it names, runs already", other.id())), "{error}");
        // The number was given to a process that began after the file was written.
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now() - Duration::from_secs(3600)))
            .unwrap();
        drop(PidFile::create(&path).unwrap());
        other.kill().unwrap();
        // Not waited for yet: a zombie.
        let dead = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
        while !dead(other.id()) {
            std::thread::yield_now();
        }
        fs::write(&path, format!("{}\n", other.id())).unwrap();
        drop(PidFile::create(&path).unwrap());
        other.wait().unwrap();
    }

    #[test]
    fn what_is_no_pid_file_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: &Path, expected: &str| {
            for error in [PidFile::create(path).unwrap_err(), PidFile::check(path).unwrap_err()] {
                assert!(
                    error.starts_with(&format!("--pid {}: ", path.display())) && error.contains(expected),
                    "{error}"
                );
            }
        };
        let notes = directory.path().join("notes");
        fs::write(&notes, "remember the milk\n").unwrap();
        check(&notes, "isn't a pid file");
        assert_eq!(fs::read_to_string(&notes).unwrap(), "remember the milk\n");
        fs::write(&notes, "-1").unwrap();
        check(&notes, "isn't a pid file");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&notes, &link).unwrap();
        check(&link, "isn't a pid file");
        check(directory.path(), "it is a directory");
        check(&directory.path().join("none/x.pid"), "its directory doesn't exist");
        check(&notes.join("x.pid"), "its directory doesn't exist");
    }

    #[test]
    fn one_that_is_not_ours_any_more_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        let file = PidFile::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists(), "another file");
        fs::remove_file(&path).unwrap();
        let mut file = PidFile::create(&path).unwrap();
        file.process += 1;
        drop(file);
        assert!(path.exists(), "another process' file");
    }

    #[test]
    fn contents_of_a_file() {
        let check = |text: &str, expected| assert_eq!(contents(text.as_bytes()), expected, "{text}");
        check("4711\n", Some(Some(4711)));
        check(" 1 ", Some(Some(1)));
        check("", Some(None));
        check("\n", Some(None));
        for wrong in ["0", "-1", "+1", "1 2", "x", "2147483648", "0x10", "\u{661}"] {
            check(wrong, None);
        }
        assert_eq!(contents(&[b' '; 1000]), None);
        assert_eq!(contents(b"\xff"), None);
    }

    #[test]
    fn when_a_process_began() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let stat = |state: &str| format!("7 (a) b) {state} 1{} 25000 1 2", " 0".repeat(17));
        let check = |stat: &str, uptime: &str, expected| assert_eq!(began(stat, uptime, 100, now), expected, "{stat}");
        check(&stat("S"), "300.50 1.0\n", Began::At(now - Duration::from_millis(50_500)));
        check(&stat("R"), "200.00 1.0\n", Began::At(now));
        check(&stat("Z"), "300.00 1.0\n", Began::Never);
        check("", "300.00 1.0\n", Began::Unknown);
        check(&stat("S"), "", Began::Unknown);
        check("7 (a) S 1 2", "300.00", Began::Unknown);
    }
}
