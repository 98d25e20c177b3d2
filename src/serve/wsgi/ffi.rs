//! What PyO3 has no safe and fast way to: latin-1 strings in and out, a copy of a descriptor, exceptions in other threads, and the
//! end of a process that Python can't end. All of this room's `unsafe`.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A `str` of the code points U+0000 to U+00FF that `bytes` are (PEP 3333's "bytes-as-unicode").
///
/// # Errors
/// `MemoryError`.
pub(super) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = bytes.len() as ffi::Py_ssize_t;
    if bytes.len() < 2 {
        // CPython has one object for each of these.
        // SAFETY: attached; pointer and length are of one slice; the result is a new reference or null with an exception set.
        return unsafe {
            let object = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null());
            Ok(Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked())
        };
    }
    let highest = if bytes.is_ascii() { 0x7f } else { 0xff };
    // SAFETY: attached. A new string for code points up to 0xff holds `length` bytes at its one-byte data; nobody else has
    // seen it yet, so it may be written. It is ASCII exactly if `highest` says so.
    unsafe {
        let object = Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_New(length, highest))?;
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), ffi::PyUnicode_1BYTE_DATA(object.as_ptr()), bytes.len());
        Ok(object.cast_into_unchecked())
    }
}

/// The code points of `text` as bytes, if none is above U+00FF.
pub(super) fn as_latin1<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a [u8]> {
    let object = text.as_ptr();
    // SAFETY: attached, `object` is a `str` that `text` keeps alive, and strings don't change. Before Python 3.12 one made with
    // the old interface must be made ready first; failing that means no memory, and is told like a string that doesn't fit. A
    // ready string of the one-byte kind has exactly its length in bytes; CPython keeps strings in their narrowest kind.
    unsafe {
        if ffi::PyUnicode_READY(object) != 0 {
            ffi::PyErr_Clear();
            return None;
        }
        if ffi::PyUnicode_KIND(object) != ffi::PyUnicode_1BYTE_KIND {
            return None;
        }
        let data = ffi::PyUnicode_1BYTE_DATA(object);
        Some(std::slice::from_raw_parts(data, ffi::PyUnicode_GET_LENGTH(object) as usize))
    }
}

/// A descriptor of our own for the open file that `descriptor` names.
pub(super) fn duplicate(descriptor: RawFd) -> std::io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(std::io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not negative; it is borrowed for this call only, and one that isn't open makes the call fail with EBADF.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

/// How many references to an object there are.
pub(super) fn references<T>(_py: Python<'_>, object: &Py<T>) -> isize {
    // SAFETY: attached; `object` is a reference, so what it refers to lives.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// What `threading.get_ident()` returns in this thread.
pub(super) fn thread_ident(_py: Python<'_>) -> u64 {
    // SAFETY: attached, and nothing is passed.
    unsafe { ffi::PyThread_get_thread_ident() as u64 }
}

/// Makes `exception` (a class) pending in the thread of this identifier, or takes back what is pending there. False if Python
/// knows no such thread.
pub(crate) fn set_async_exception(_py: Python<'_>, thread: u64, exception: Option<&Bound<'_, PyAny>>) -> bool {
    let exception = exception.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: attached; `exception` is null or borrowed from a reference that outlives the call, which takes one of its own. The
    // identifier is looked up, not trusted.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread as _, exception) > 0 }
}

/// Sends `signal` to the calling thread; its handler has run when this returns.
pub(super) fn raise(signal: i32) -> bool {
    // SAFETY: plain integers.
    unsafe { libc::raise(signal) == 0 }
}

/// Ends the process at once: no `atexit`, no destructors, nothing that might wait for the GIL.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: doesn't return and touches no memory.
    unsafe { libc::_exit(code) }
}
