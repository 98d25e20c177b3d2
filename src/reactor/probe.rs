//! Which driver this machine lets us use. It finds out by doing: a ring is set up, a no-operation goes
//! through it and back, and the operations the drivers need are asked for.

use std::io;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, Probe, opcode};

use super::epoll::Epoll;
use super::ring::{self, Flags, Ring};
use super::tokio_uring::TokioUring;
use super::{Driver, Waker};
use crate::config::ReactorChoice;

/// A driver that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`ring::Ring`].
    Ring,
    /// [`super::epoll::Epoll`].
    Epoll,
    /// [`super::tokio_uring::TokioUring`].
    TokioUring,
}

impl Kind {
    /// As given to `--reactor`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Ring => <Ring as Driver>::NAME,
            Kind::Epoll => <Epoll as Driver>::NAME,
            Kind::TokioUring => <TokioUring as Driver>::NAME,
        }
    }
}

/// Entries of the ring that is tried: a small one.
const ENTRIES: u32 = 8;

/// The driver for `--reactor`, and a line for the log that says which and why.
///
/// # Errors
/// When the driver that was asked for can't be used: one sentence that names the remedy.
pub fn choose(choice: ReactorChoice) -> Result<(Kind, String), String> {
    let refused = |name: &str, error: io::Error| {
        format!("--reactor {name} can't be used: {}; use --reactor auto or --reactor epoll", explain(&error))
    };
    match choice {
        ReactorChoice::Epoll => Ok((Kind::Epoll, "reactor: epoll, as asked for".to_owned())),
        ReactorChoice::Ring => match try_ring() {
            Ok(what) => Ok((Kind::Ring, format!("reactor: ring, as asked for (io_uring with {what})"))),
            Err(error) => Err(refused("ring", error)),
        },
        ReactorChoice::TokioUring => match try_tokio_uring() {
            Ok(()) => Ok((Kind::TokioUring, "reactor: tokio-uring, as asked for".to_owned())),
            Err(error) => Err(refused("tokio-uring", error)),
        },
        ReactorChoice::Auto => match try_ring() {
            Ok(what) => Ok((Kind::Ring, format!("reactor: ring (io_uring with {what})"))),
            Err(error) => Ok((Kind::Epoll, format!("reactor: epoll, because {}", explain(&error)))),
        },
    }
}

/// Tries what the ring driver needs, then the driver itself: what it takes.
fn try_ring() -> io::Result<String> {
    let (mut ring, _) = ring::build(ENTRIES, Flags::Defer)?;
    round_trip(&mut ring)?;
    let needed = [
        opcode::Accept::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::SendMsg::CODE,
        opcode::AsyncCancel::CODE,
        opcode::PollAdd::CODE,
    ];
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if needed.into_iter().any(|code| !probe.is_supported(code)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(Ring::new(ring::Settings::default(), Waker::shared()?)?.describe())
}

/// And what the tokio-uring driver needs on top: cancelling by descriptor (kernel ≥ 5.19).
fn try_tokio_uring() -> io::Result<()> {
    try_ring()?;
    let (mut ring, _) = ring::build(ENTRIES, Flags::Single)?;
    let known = std::os::fd::AsRawFd::as_raw_fd(&ring);
    match submit(&mut ring, &opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(known))).build())? {
        error if error == -libc::EINVAL => Err(io::ErrorKind::Unsupported.into()),
        // There was nothing to cancel: it was looked for.
        _ => Ok(()),
    }
}

/// seccomp may allow setting a ring up but not entering it.
fn round_trip(ring: &mut IoUring) -> io::Result<()> {
    match submit(ring, &opcode::Nop::new().build())? {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Submits one entry, which points at no memory, and waits for its result.
#[expect(unsafe_code, reason = "pushing a submission entry")]
fn submit(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> io::Result<i32> {
    // SAFETY: neither a no-operation nor a cancellation points at memory.
    unsafe { ring.submission().push(entry) }.map_err(|_| io::ErrorKind::WouldBlock)?;
    ring.submit_and_wait(1)?;
    ring.completion().next().map(|completion| completion.result()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Why a ring can't be used, and what would help, in words.
fn explain(error: &io::Error) -> String {
    match (error.raw_os_error(), error.kind()) {
        (Some(libc::EPERM | libc::EACCES), _) => match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
            Ok(value) if value.trim() != "0" => format!(
                "io_uring is switched off on this machine (the sysctl kernel.io_uring_disabled is {})",
                value.trim()
            ),
            _ => "io_uring is forbidden here (EPERM), as the default seccomp profiles of Docker and Kubernetes do; \
                  a profile that allows io_uring_setup, io_uring_enter and io_uring_register lifts that"
                .to_owned(),
        },
        (Some(libc::ENOSYS), _) => "this kernel has no io_uring (ENOSYS): it is older than 5.1, or built without it, \
                                    or a sandbox hides it"
            .to_owned(),
        (Some(libc::ENOMEM), _) => "there isn't enough locked memory for io_uring (ENOMEM); raise RLIMIT_MEMLOCK \
                                    (ulimit -l, LimitMEMLOCK= in a systemd unit, --ulimit memlock= for Docker)"
            .to_owned(),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "there are too few descriptors for io_uring (EMFILE); raise RLIMIT_NOFILE (ulimit -n)".to_owned()
        }
        (Some(libc::EINVAL), _) | (None, io::ErrorKind::Unsupported) => {
            "this kernel's io_uring is too old (5.13 is needed for ring, 5.19 for tokio-uring)".to_owned()
        }
        _ => format!("io_uring failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `choose` says on a thread of its own whose `io_uring_setup` fails with `errno`, by a seccomp filter.
    fn choose_denied(choice: ReactorChoice, errno: i32) -> Result<(Kind, String), String> {
        let denied = move || {
            deny_setup(errno);
            choose(choice)
        };
        std::thread::spawn(denied).join().unwrap()
    }

    #[expect(unsafe_code, reason = "prctl(2)")]
    fn deny_setup(errno: i32) {
        let filter = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut program = [
            filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
            filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the filter is valid while the kernel copies it; it binds this thread only, which ends soon.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
        }
    }

    #[test]
    fn auto_takes_the_ring_where_it_works_and_epoll_where_it_is_forbidden() {
        let (kind, line) = choose(ReactorChoice::Auto).unwrap();
        assert_eq!(kind, Kind::Ring, "{line}");
        assert!(line.starts_with("reactor: ring (io_uring with "), "{line}");

        let (kind, line) = choose_denied(ReactorChoice::Auto, libc::EPERM).unwrap();
        assert_eq!(kind, Kind::Epoll);
        assert!(line.starts_with("reactor: epoll, because ") && line.contains("seccomp"), "{line}");
    }

    #[test]
    fn what_was_asked_for_is_taken_or_refused_with_a_remedy() {
        let check = |choice, kind| assert_eq!(choose(choice).unwrap().0, kind);
        check(ReactorChoice::Ring, Kind::Ring);
        check(ReactorChoice::Epoll, Kind::Epoll);
        check(ReactorChoice::TokioUring, Kind::TokioUring);

        let check = |choice, errno, words: &[&str]| {
            let sentence = choose_denied(choice, errno).unwrap_err();
            assert!(words.iter().all(|word| sentence.contains(word)), "{sentence}");
        };
        check(ReactorChoice::Ring, libc::EPERM, &["--reactor ring", "seccomp", "--reactor epoll"]);
        check(ReactorChoice::Ring, libc::ENOSYS, &["ENOSYS", "--reactor auto"]);
        check(ReactorChoice::Ring, libc::ENOMEM, &["RLIMIT_MEMLOCK"]);
        check(ReactorChoice::TokioUring, libc::EINVAL, &["--reactor tokio-uring", "too old"]);
    }
}
