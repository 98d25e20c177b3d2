//! Python's memory on its way through a reactor, and back. A reactor never takes the GIL, so it can't let go of a Python object:
//! it leaves it here, and a worker drops it the next time it is attached.

use std::sync::Arc;

use crossbeam::queue::SegQueue;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::pool::Crew;
use crate::reactor::{Segment, SharedBytes};

/// Objects that reactors are done with. Bounded by what was handed to them: nothing is put here that wasn't in a response.
pub(super) struct Releases {
    objects: SegQueue<PyBackedBytes>,
    crew: Arc<Crew>,
}

impl Releases {
    pub(super) fn new(crew: Arc<Crew>) -> Self {
        Self { objects: SegQueue::new(), crew }
    }

    /// Whether objects wait to be dropped.
    pub(super) fn is_pending(&self) -> bool {
        !self.objects.is_empty()
    }

    /// Drops what is there now; a destructor can't make this go on for ever, since bytes have none.
    pub(super) fn drain(&self, _py: Python<'_>) {
        while let Some(object) = self.objects.pop() {
            drop(object);
        }
    }

    /// A segment that sends from `bytes` without copying them.
    pub(super) fn segment(self: &Arc<Self>, bytes: &Bound<'_, PyBytes>) -> Segment {
        Segment::Shared(Box::new(PythonBytes { object: Some(bytes.clone().into()), releases: Arc::clone(self) }))
    }
}

/// A Python `bytes` object that a reactor sends from. `bytes` don't change and don't move, so it is read without the GIL.
struct PythonBytes {
    /// `None` only while it is dropped.
    object: Option<PyBackedBytes>,
    releases: Arc<Releases>,
}

impl SharedBytes for PythonBytes {
    fn as_slice(&self) -> &[u8] {
        self.object.as_deref().unwrap_or_default()
    }
}

impl Drop for PythonBytes {
    /// Runs on a reactor's thread: no GIL, no lock that a thread with the GIL may hold.
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.releases.objects.push(object);
            // A busy worker looks after each request. If none is, one is woken, so that an idle process keeps no memory.
            self.releases.crew.wake_if_nobody_runs();
        }
    }
}
