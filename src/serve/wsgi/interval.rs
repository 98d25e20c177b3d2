//! CPython's switch interval: after how long a thread that computes lets the GIL go for one that waits. It is made shorter while
//! requests of little worth run, so that one worth far more needn't wait for 5 ms; and only then, for where threads compute at the
//! same time each switch costs some microseconds. What the application has set with `sys.setswitchinterval()` is left alone.
//!
//! Only who holds the GIL may set it, and whoever waits goes by what is set: so it is short before such a request begins, and stays
//! so for a while, lest it be changed with each of many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pyo3::prelude::*;

use crate::limits;
use crate::reactor::clock::Instant;

/// The interval of this interpreter.
pub(super) struct SwitchInterval {
    /// `sys.getswitchinterval` and `sys.setswitchinterval`
    get: Py<PyAny>,
    set: Py<PyAny>,
    /// Whether it was made short here.
    short: AtomicBool,
    /// When it was last needed so, in nanoseconds of [`Instant`].
    needed: AtomicU64,
}

impl SwitchInterval {
    /// # Errors
    /// When the module `sys` lacks what it has.
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let sys = py.import("sys")?;
        Ok(Self {
            get: sys.getattr("getswitchinterval")?.unbind(),
            set: sys.getattr("setswitchinterval")?.unbind(),
            short: AtomicBool::new(false),
            needed: AtomicU64::new(0),
        })
    }

    /// Worker: a request begins that mustn't keep others waiting. `tell` is told if the interval has become short.
    pub(super) fn shorten(&self, py: Python<'_>, now: Instant, tell: impl FnOnce(bool)) {
        self.needed.store(now.as_nanos(), Ordering::Relaxed);
        if !self.short.load(Ordering::Relaxed) && self.change(py, limits::SWITCH_DEFAULT_US, limits::SWITCH_SHORT_US) {
            self.short.store(true, Ordering::Relaxed);
            tell(true);
        }
    }

    /// The main thread: sets the default again if the interval hasn't been needed short for long.
    pub(super) fn restore(&self, py: Python<'_>, now: Instant, tell: impl FnOnce(bool)) {
        let needed = Instant::from_nanos(self.needed.load(Ordering::Relaxed));
        if self.short.load(Ordering::Relaxed) && now.since(needed) >= Duration::from_millis(limits::SWITCH_SHORT_MS) {
            self.change(py, limits::SWITCH_SHORT_US, limits::SWITCH_DEFAULT_US);
            self.short.store(false, Ordering::Relaxed);
            tell(false);
        }
    }

    /// Sets it to `to` microseconds if it is `from` now. No code of the application runs in here.
    fn change(&self, py: Python<'_>, from: u64, to: u64) -> bool {
        let is = |seconds: f64| (seconds * 1e6).round() as u64;
        let now = self.get.call0(py).and_then(|seconds| seconds.extract::<f64>(py));
        now.is_ok_and(|seconds| is(seconds) == from) && self.set.call1(py, (to as f64 / 1e6,)).is_ok()
    }
}
