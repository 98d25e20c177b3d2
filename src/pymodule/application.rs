//! Loading the application, through `hoopsnake._application`, where that is written in Python.

use std::os::fd::RawFd;

use pyo3::prelude::*;

use crate::config::Config;
use crate::process::channel::Reason;

/// The application, and what is said about it.
pub(super) struct Loaded {
    pub(super) application: Py<PyAny>,
    pub(super) python: String,
    name: String,
}

impl Loaded {
    pub(super) fn describe(&self) -> String {
        format!("application {} on {}", self.name, self.python)
    }
}

/// Loads it; what the application's own fault is told in the log before the sentence is handed back.
pub(super) fn load(py: Python<'_>, config: &Config) -> Result<Loaded, String> {
    try_load(py, config, None).map_err(|reason| {
        if !reason.traceback.is_empty() {
            tracing::error!("{}", reason.traceback.trim_end());
        }
        reason.sentence
    })
}

/// Loads it, and logs nothing. `files` are told of a failure: what it takes to mend it is to be watched.
pub(super) fn try_load(py: Python<'_>, config: &Config, files: Option<&Files>) -> Result<Loaded, Reason> {
    let fault = |error: PyErr| Reason::from(format!("can't load the application: {error}"));
    let module = py.import("hoopsnake._application").map_err(fault)?;
    let reason = |error: PyErr| {
        let value = error.value(py);
        if let Some(files) = files {
            files.tell(py, Some(value.as_any()));
        }
        let traceback = value.getattr("traceback").and_then(|text| text.extract::<String>()).unwrap_or_default();
        Reason { traceback, sentence: value.to_string() }
    };
    module.call_method1("prepare_path", (config.chdir.clone(), config.pythonpath.clone())).map_err(reason)?;
    let application = module.call_method1("load", (&config.application,)).map_err(reason)?;
    Ok(Loaded {
        application: application.unbind(),
        python: python(py).map_err(fault)?,
        name: config.application.clone(),
    })
}

/// Which Python this is.
pub(super) fn python(py: Python<'_>) -> PyResult<String> {
    py.import("hoopsnake._application")?.call_method0("describe_python")?.extract()
}

/// With `--reload`: tells the supervisor which files this process has loaded.
pub(super) struct Files(Py<PyAny>);

impl Files {
    /// Over this descriptor.
    pub(super) fn new(py: Python<'_>, descriptor: RawFd) -> PyResult<Self> {
        Ok(Self(py.import("hoopsnake._process")?.getattr("Files")?.call1((descriptor,))?.unbind()))
    }

    /// Of those that came since the last time, and of those in a failure's traceback.
    pub(super) fn tell(&self, py: Python<'_>, error: Option<&Bound<'_, PyAny>>) {
        if let Err(error) = self.0.call_method1(py, "tell", (error,)) {
            tracing::debug!("--reload: the list of modules can't be told ({error})");
        }
    }
}
