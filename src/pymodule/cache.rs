//! What applications do with the response cache: `hoopsnake.cache_purge`, whose manners are in Python.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::process::hooks::{Hook, Milestone};
use crate::serve::caching;
use crate::serve::local::cache::Purge;

/// Takes one page, those that begin so, or (with neither) everything out of the cache; how many stored responses that were.
#[pyfunction]
#[pyo3(signature = (url=None, prefix=None))]
pub(super) fn cache_purge(py: Python<'_>, url: Option<&str>, prefix: Option<&str>) -> PyResult<usize> {
    let what = match (url, prefix) {
        (Some(url), _) => Purge::url(url.as_bytes()),
        (None, Some(prefix)) => Purge::prefix(prefix.as_bytes()),
        (None, None) => Ok(Purge::All),
    };
    let what = what.map_err(PyValueError::new_err)?;
    // A large cache is gone through without the GIL.
    Ok(py.detach(|| caching::purge(&what)))
}

/// Tells the cache of reloads: what old code has made isn't served by new code.
pub(super) struct Generations;

impl Hook for Generations {
    fn reached(&mut self, milestone: Milestone) {
        match milestone {
            Milestone::Reloading => caching::reloading(),
            Milestone::TakenOver => caching::reloaded(),
            Milestone::Ready | Milestone::Stopping | Milestone::Second => {}
        }
    }
}
