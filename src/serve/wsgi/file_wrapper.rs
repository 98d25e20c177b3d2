//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): an iterable over a file-like object, which a worker
//! hands to the reactor as a descriptor when it is sure that the descriptor's bytes are the object's bytes.

use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::ffi;
use crate::reactor::FileRange;

/// Bytes of a block when the application names no size.
const BLOCK_BYTES: isize = 8192;

/// What `wsgi.file_wrapper(filelike[, block_size])` returns.
#[pyclass(frozen, module = "hoopsnake")]
pub(super) struct FileWrapper {
    file: Py<PyAny>,
    block_size: isize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, block_size = BLOCK_BYTES, /))]
    fn new(filelike: Py<PyAny>, block_size: isize) -> PyResult<Self> {
        if block_size <= 0 {
            return Err(PyValueError::new_err(format!("block_size must be positive, not {block_size}")));
        }
        Ok(Self { file: filelike, block_size })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.file.bind(py).call_method1(intern!(py, "read"), (self.block_size,))?;
        Ok(if block.is_truthy()? { Some(block) } else { None })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.file)
    }

    /// Closes the file-like object, if it can be closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(close) = self.file.bind(py).getattr_opt(intern!(py, "close"))? {
            close.call0()?;
        }
        Ok(())
    }
}

impl FileWrapper {
    /// The rest of the file from its logical position, if it is a plain one; `None`: it must be iterated over.
    ///
    /// A `fileno` is not enough: a `GzipFile` has one, and its bytes aren't the descriptor's. Nor is the descriptor's own position:
    /// a buffered reader has read ahead of what the application has seen.
    pub(super) fn file_range(&self, py: Python<'_>) -> PyResult<Option<FileRange>> {
        let Some(file) = plain_file(self.file.bind(py))? else { return Ok(None) };
        let offset: u64 = match file.call_method0(intern!(py, "tell")).and_then(|position| position.extract()) {
            Ok(offset) => offset,
            // A pipe has no position.
            Err(_) => return Ok(None),
        };
        let Ok(descriptor) = file.call_method0(intern!(py, "fileno"))?.extract::<RawFd>() else { return Ok(None) };
        let found = py.detach(|| {
            let file = File::from(ffi::duplicate(descriptor).ok()?);
            let metadata = file.metadata().ok()?;
            // A file of /proc or /sys is made as it is read: it has no blocks, and its size says nothing (0, or 4096).
            let told = metadata.is_file() && metadata.blocks() > 0 && metadata.len() > offset;
            told.then(|| FileRange { length: metadata.len() - offset, file: Arc::new(file), offset, memory: None })
        });
        Ok(found)
    }
}

/// The object of the `io` module that reads exactly its descriptor's bytes, if `file` is or holds one, and can be read.
fn plain_file<'py>(file: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static TYPES: PyOnceLock<[Py<PyType>; 4]> = PyOnceLock::new();
    let py = file.py();
    let [raw, reader, random, temporary] = TYPES.get_or_try_init(py, || -> PyResult<_> {
        let get = |module: &str, name: &str| -> PyResult<Py<PyType>> {
            Ok(py.import(module)?.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        Ok([
            get("io", "FileIO")?,
            get("io", "BufferedReader")?,
            get("io", "BufferedRandom")?,
            get("tempfile", "_TemporaryFileWrapper")?,
        ])
    })?;
    let is = |object: &Bound<'py, PyAny>, kind: &Py<PyType>| object.get_type().is(kind.bind(py));
    let file = if is(file, temporary) { file.getattr(intern!(py, "file"))? } else { file.clone() };
    let plain = if is(&file, reader) || is(&file, random) {
        // A buffer may stand in front of anything that has a `fileno`.
        is(&file.getattr(intern!(py, "raw"))?, raw)
    } else {
        is(&file, raw)
    };
    if !plain || !file.call_method0(intern!(py, "readable"))?.is_truthy()? {
        return Ok(None);
    }
    if is(&file, random) {
        // What the application has written may not have reached the descriptor.
        file.call_method0(intern!(py, "flush"))?;
    }
    Ok(Some(file))
}
