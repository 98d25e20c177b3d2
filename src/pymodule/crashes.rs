//! Where Python's `faulthandler` writes the stacks of a process that crashes (SIGSEGV, SIGABRT and their like): to the error log, by
//! a descriptor, for in a crash nothing else works any more.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::config::{Config, LogTarget};

/// Keeps the descriptor, and follows a log that is rotated.
pub(super) struct Crashes {
    /// `None`: standard error.
    log: Option<(PathBuf, File)>,
}

impl Crashes {
    /// From now on a crash is told. To be called before the application is imported.
    ///
    /// # Errors
    /// Python's; a log that can't be opened is none: then standard error has the stacks.
    pub(super) fn tell(py: Python<'_>, config: &Config) -> PyResult<Self> {
        let log = match &config.error_log {
            LogTarget::File(path) => open(path.clone()),
            LogTarget::Off | LogTarget::Standard => None,
        };
        let crashes = Self { log };
        crashes.enable(py)?;
        Ok(crashes)
    }

    /// Whether the log was moved away and made anew: then the new one is written to. Once a second is often enough.
    pub(super) fn follow(&mut self, py: Python<'_>) {
        let Some((path, file)) = &self.log else { return };
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let (Ok(there), Ok(ours)) = (std::fs::metadata(path), file.metadata()) else { return };
        if identity(there) == identity(ours) {
            return;
        }
        if let Some(log) = open(path.clone()) {
            // Kept until Python knows of the other.
            let before = self.log.replace(log);
            if let Err(error) = self.enable(py) {
                tracing::warn!("the stacks of a crash can't be written to the new error log: {error}");
                self.log = before;
            }
        }
    }

    /// Where else stacks are written: standard output, or the log in the background, where that leads nowhere.
    pub(super) fn answers_to(&self, config: &Config) -> RawFd {
        if config.daemon { self.descriptor() } else { libc::STDOUT_FILENO }
    }

    fn descriptor(&self) -> RawFd {
        self.log.as_ref().map_or(libc::STDERR_FILENO, |(_, file)| file.as_raw_fd())
    }

    fn enable(&self, py: Python<'_>) -> PyResult<()> {
        let options = PyDict::new(py);
        options.set_item("file", self.descriptor())?;
        py.import("faulthandler")?.call_method("enable", (), Some(&options))?;
        Ok(())
    }
}

/// Never makes the file: that is the log's own matter.
fn open(path: PathBuf) -> Option<(PathBuf, File)> {
    let file = OpenOptions::new().append(true).open(&path).ok()?;
    Some((path, file))
}
