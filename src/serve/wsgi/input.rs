//! `wsgi.input`: a complete request body as a readable stream (PEP 3333, "Input and Error Streams"). It never blocks on a client:
//! the body was complete before the application was called. Nothing is written, sought or closed through it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyEOFError, PyOSError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyList};

use crate::serve::exchange::Body;

/// Bytes of a spooled body read at once when lines are looked for.
const WINDOW_BYTES: usize = 64 * 1024;

/// The stream. One is used again for the next request unless the application has kept it.
#[pyclass(frozen, module = "hoopsnake")]
#[derive(Default)]
pub(super) struct Input {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    source: Source,
    /// Next byte to read; `position <= length`.
    position: u64,
    length: u64,
}

#[derive(Default)]
enum Source {
    #[default]
    Empty,
    Memory(Vec<u8>),
    File(Spooled),
}

/// A body in a file, and the stretch of it that lines were last looked for in.
struct Spooled {
    file: Arc<File>,
    window: Vec<u8>,
    window_at: u64,
}

/// What can be answered at once, or must be read from the file with the interpreter let go.
enum Read<'py> {
    Now(Bound<'py, PyBytes>),
    File { file: Arc<File>, at: u64, size: usize },
}

impl Input {
    /// Puts the body of the next request in.
    pub(super) fn fill(&self, py: Python<'_>, body: Body) {
        let length = body.len();
        let source = match body {
            Body::Empty => Source::Empty,
            Body::Memory(bytes) => Source::Memory(bytes),
            Body::File(file, _) => Source::File(Spooled { file: Arc::new(file), window: Vec::new(), window_at: 0 }),
        };
        *self.lock(py) = State { source, position: 0, length };
    }

    /// Takes the whole body out, whatever was read of it, for the request to be run once more.
    pub(super) fn take_whole(&self, py: Python<'_>) -> Body {
        let state = std::mem::take(&mut *self.lock(py));
        match state.source {
            Source::Empty => Body::Empty,
            Source::Memory(bytes) => Body::Memory(bytes),
            Source::File(spooled) => py.detach(|| {
                // Another thread of the application may be reading from it.
                let file = Arc::try_unwrap(spooled.file).or_else(|file| file.try_clone());
                file.map_or_else(
                    |error| {
                        tracing::error!("a spooled request body is lost: {error}");
                        Body::Empty
                    },
                    |file| Body::File(file, state.length),
                )
            }),
        }
    }

    /// Takes the body out: its memory is of use to the reactor, its file is closed without the GIL (that can take long).
    pub(super) fn take(&self, py: Python<'_>) -> Body {
        let state = std::mem::take(&mut *self.lock(py));
        match state.source {
            Source::Empty => Body::Empty,
            Source::Memory(bytes) => Body::Memory(bytes),
            Source::File(spooled) => {
                py.detach(|| drop(spooled));
                Body::Empty
            }
        }
    }

    fn lock(&self, py: Python<'_>) -> std::sync::MutexGuard<'_, State> {
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    fn take_bytes<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let read = {
            let mut state = self.lock(py);
            let left = state.length - state.position;
            // None and any negative size mean all there is.
            let wanted = size.and_then(|size| u64::try_from(size).ok()).map_or(left, |size| size.min(left));
            let at = state.position;
            state.position += wanted;
            let size = usize::try_from(wanted).unwrap_or(usize::MAX);
            match &state.source {
                Source::Memory(bytes) => Read::Now(PyBytes::new(py, &bytes[at as usize..][..size])),
                Source::File(spooled) if size > 0 => Read::File { file: Arc::clone(&spooled.file), at, size },
                Source::Empty | Source::File(_) => Read::Now(PyBytes::new(py, b"")),
            }
        };
        match read {
            Read::Now(bytes) => Ok(bytes),
            Read::File { file, at, size } => {
                PyBytes::new_with(py, size, |buffer| py.detach(|| file.read_exact_at(buffer, at)).map_err(damaged))
            }
        }
    }

    fn take_line<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let most = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
        if let Some(line) = self.lock(py).line_at_hand(py, most) {
            return Ok(line);
        }
        // The line goes on past what is in memory. The lock is taken with the interpreter let go, and let go before that is
        // taken again, so neither is waited for with the other in hand.
        let line = py.detach(|| self.state.lock().unwrap_or_else(PoisonError::into_inner).read_line(most));
        line.map(|line| PyBytes::new(py, &line)).map_err(damaged)
    }
}

impl State {
    /// The next line if it is in memory to its end.
    fn line_at_hand<'py>(&mut self, py: Python<'py>, most: usize) -> Option<Bound<'py, PyBytes>> {
        let left = usize::try_from(self.length - self.position).unwrap_or(usize::MAX);
        let most = most.min(left);
        let rest = match &self.source {
            Source::Empty => &[],
            Source::Memory(bytes) => &bytes[self.position as usize..],
            Source::File(spooled) => spooled.rest(self.position),
        };
        let within = &rest[..most.min(rest.len())];
        let end = match memchr::memchr(b'\n', within) {
            Some(at) => at + 1,
            None if within.len() == most => most,
            None => return None,
        };
        let line = PyBytes::new(py, &within[..end]);
        self.position += end as u64;
        Some(line)
    }

    /// The next line of a spooled body.
    fn read_line(&mut self, most: usize) -> std::io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let Source::File(spooled) = &mut self.source else { return Ok(line) };
        while self.position < self.length && line.len() < most {
            if spooled.rest(self.position).is_empty() {
                spooled.refill(self.position, self.length)?;
            }
            let rest = spooled.rest(self.position);
            let within = &rest[..rest.len().min(most - line.len())];
            let end = memchr::memchr(b'\n', within).map(|at| at + 1);
            let step = end.unwrap_or(within.len());
            line.extend_from_slice(&within[..step]);
            self.position += step as u64;
            if end.is_some() {
                break;
            }
        }
        Ok(line)
    }
}

impl Spooled {
    /// The bytes of the window from `position` on.
    fn rest(&self, position: u64) -> &[u8] {
        let skipped = position.checked_sub(self.window_at).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.window.get(skipped..)).unwrap_or_default()
    }

    fn refill(&mut self, position: u64, length: u64) -> std::io::Result<()> {
        let size = (length - position).min(WINDOW_BYTES as u64) as usize;
        self.window.resize(size, 0);
        self.window_at = position;
        let result = self.file.read_exact_at(&mut self.window, position);
        if result.is_err() {
            self.window.clear();
        }
        result
    }
}

/// A spooled body that can't be read: never shown as a body that is complete.
fn damaged(error: std::io::Error) -> PyErr {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return PyEOFError::new_err("the spooled request body is shorter than it was");
    }
    PyOSError::new_err(format!("the spooled request body can't be read: {error}"))
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size = Some(-1), /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.take_bytes(py, size)
    }

    #[pyo3(signature = (size = Some(-1), /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.take_line(py, size)
    }

    /// Lines until `hint` bytes are reached (none or nothing positive: all of them), as `io.IOBase` does it.
    #[pyo3(signature = (hint = Some(-1), /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let most = hint.filter(|&hint| hint > 0).map_or(usize::MAX, isize::unsigned_abs);
        let lines = PyList::empty(py);
        let mut size = 0usize;
        while size < most {
            let line = self.take_line(py, None)?;
            let length = line.as_bytes().len();
            if length == 0 {
                break;
            }
            size += length;
            lines.append(line)?;
        }
        Ok(lines)
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.take_line(py, None)?;
        Ok(Some(line).filter(|line| !line.as_bytes().is_empty()))
    }
}
