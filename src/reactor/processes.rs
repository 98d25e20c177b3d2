//! What the kernel knows of processes: signals, children that have ended, and the tie between a worker and its supervisor.
//!
//! fork(2) isn't here: it goes through Python's `os.fork`, which runs what CPython and libraries have registered around it.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;

/// How a child ended (waitpid(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited, with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ended::Exited(status) => write!(f, "exited with status {status}"),
            Ended::Killed(signal) => match name_of(signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// The signals that end a process without being asked to, by name.
fn name_of(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGABRT => "SIGABRT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

/// A child that has ended and wasn't reaped yet, any child: process 1 of a container inherits those of others. Never waits.
#[expect(unsafe_code, reason = "the system floor: waitpid(2)")]
pub fn reap() -> Option<(u32, Ended)> {
    let mut status = 0;
    // SAFETY: `status` is a writable integer for the duration of the call.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    let pid = u32::try_from(pid).ok().filter(|&pid| pid > 0)?;
    let ended = if libc::WIFSIGNALED(status) {
        Ended::Killed(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    };
    Some((pid, ended))
}

/// Sends a signal to one process. One that is gone already is no fault.
#[expect(unsafe_code, reason = "the system floor: kill(2)")]
pub fn signal(pid: u32, signal: i32) {
    // Zero and negative numbers would mean groups of processes.
    let Some(pid) = i32::try_from(pid).ok().filter(|&pid| pid > 0) else { return };
    // SAFETY: kill takes no pointers. The process is a child that wasn't reaped, so that the number is still its own.
    unsafe { libc::kill(pid, signal) };
}

/// Signals that are held back from this thread until it is dropped (pthread_sigmask(3)); then what came meanwhile is delivered.
pub struct Held(libc::sigset_t);

/// Holds these signals back.
#[expect(unsafe_code, reason = "the system floor: pthread_sigmask(3)")]
pub fn hold(signals: &[i32]) -> Held {
    let (mut wanted, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: both sets are writable for the calls; `wanted` is initialized by sigemptyset, and `before` by pthread_sigmask, which
    // can't fail with a valid operation. A number that is no signal is left out.
    let before = unsafe {
        libc::sigemptyset(wanted.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(wanted.as_mut_ptr(), signal);
        }
        libc::sigemptyset(before.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, wanted.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    };
    Held(before)
}

impl Drop for Held {
    #[expect(unsafe_code, reason = "the system floor: pthread_sigmask(3)")]
    fn drop(&mut self) {
        // SAFETY: the set is one that the kernel filled in; nothing is written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Asks the kernel to send `signal` to this process when the thread that forked it is gone (prctl(2), `PR_SET_PDEATHSIG`). If that
/// has happened already nothing comes: ask [`std::os::unix::process::parent_id`] afterwards.
///
/// # Errors
/// Never on a Linux that knows the signal.
#[expect(unsafe_code, reason = "the system floor: prctl(2)")]
pub fn die_with_parent(signal: i32) -> io::Result<()> {
    // SAFETY: this operation takes a number and no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends this process at once: no destructor, no `atexit`, no flush.
#[expect(unsafe_code, reason = "the system floor: _exit(2)")]
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number, doesn't return, and runs nothing of this process.
    unsafe { libc::_exit(code) }
}

/// Bytes of memory this process has in RAM (proc(5), `statm`); 0 if /proc isn't there.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages.saturating_mul(page_bytes())
}

/// Threads of this process (proc(5)); 1 if /proc isn't there.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

#[expect(unsafe_code, reason = "the system floor: sysconf(3)")]
fn page_bytes() -> u64 {
    // SAFETY: takes a number, returns a number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_words() {
        let check = |ended: Ended, text: &str| assert_eq!(ended.to_string(), text);
        check(Ended::Exited(3), "exited with status 3");
        check(Ended::Killed(libc::SIGSEGV), "was killed by SIGSEGV");
        check(Ended::Killed(77), "was killed by signal 77");
    }

    #[test]
    fn memory_and_threads_of_this_process() {
        assert!(resident_bytes() > 100 * 1024, "a test has more than that");
        assert!(threads() >= 1);
    }
}
