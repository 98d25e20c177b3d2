//! `--daemon`: the command that was typed waits until the process in the background is ready or has failed, and says which by
//! its exit code. What forks is in `pymodule`, because Python must know of a fork.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

/// What is sent when the server is ready. Nothing is sent otherwise: the end of the pipe says it.
const READY: u8 = b'r';

/// The end of the command that was typed.
#[derive(Debug)]
pub struct Waiting(File);

/// The end of the process in the background. Dropping it without a word tells of a failure.
#[derive(Debug)]
pub struct Report(File);

/// Both ends; to be made before the first fork.
///
/// # Errors
/// The process is out of descriptors.
pub fn pair() -> io::Result<(Waiting, Report)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Waiting(File::from(reader)), Report(File::from(writer))))
}

impl Waiting {
    /// Waits until the server is ready, however long the application takes to load: true. False when it has ended instead.
    pub fn wait(mut self) -> bool {
        let mut byte = [0];
        self.0.read_exact(&mut byte).is_ok() && byte[0] == READY
    }
}

impl Report {
    /// The server is ready.
    ///
    /// # Errors
    /// Whoever typed the command has given up waiting; then nobody knows that the server runs, and it had better not.
    pub fn ready(mut self) -> Result<(), String> {
        self.0.write_all(&[READY]).map_err(|error| {
            format!("--daemon: the command that started the server was ended before it was ready ({error}); stopping")
        })
    }
}

/// Standard input leads nowhere from now on.
///
/// # Errors
/// /dev/null can't be opened.
pub fn detach_input() -> io::Result<()> {
    rustix::stdio::dup2_stdin(nowhere()?)?;
    Ok(())
}

/// Standard output and standard error lead nowhere from now on. Each process does this for itself, when it is ready: what
/// it has to say until then is seen by whoever started it.
///
/// # Errors
/// /dev/null can't be opened.
pub fn detach_output() -> io::Result<()> {
    let nowhere = nowhere()?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    Ok(())
}

fn nowhere() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = |tell: fn(Report)| {
            let (waiting, report) = pair().unwrap();
            tell(report);
            waiting.wait()
        };
        assert!(answer(|report| report.ready().unwrap()));
        assert!(!answer(drop));
    }

    #[test]
    fn a_server_nobody_waits_for_is_told() {
        let (waiting, report) = pair().unwrap();
        drop(waiting);
        assert!(report.ready().unwrap_err().starts_with("--daemon: the command that started the server was ended"));
    }
}
