//! What every process has, whatever it was started with: standard input, output and error, and enough descriptors.
//!
//! A descriptor from 0 to 2 that was closed (`>&-`, some supervisors of processes) would be the next socket's or file's number, and
//! what is printed would go to a client, or nobody could print at all.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};

use crate::limits;

/// Lets those of the three that are closed lead to /dev/null, for good; true if there were any. To be called before anything else
/// is opened.
///
/// # Errors
/// /dev/null can't be opened.
pub fn open_closed() -> io::Result<bool> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut any = false;
    for stream in streams {
        if rustix::io::fcntl_getfd(stream) == Err(rustix::io::Errno::BADF) {
            // The lowest number that is free is this one, as those below it are open. It is handed on to children, as any of the three.
            let nowhere: OwnedFd = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
            let _ = nowhere.into_raw_fd();
            any = true;
        }
    }
    Ok(any)
}

/// Raises the limit on open files as far as this process may, up to [`limits::DESCRIPTORS_WANTED`]: the usual 1024 is meant for
/// programs that use select(2), and each connection takes one. A limit that can't be raised stays.
pub fn raise_descriptors() {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    let wanted = now.maximum.unwrap_or(u64::MAX).min(limits::DESCRIPTORS_WANTED);
    if current < wanted {
        let raised = Rlimit { current: Some(wanted), maximum: now.maximum };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
}
