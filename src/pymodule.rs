//! What Python imports as `hoopsnake._core`, and the order in which the server starts and stops.
//!
//! With a supervisor: configuration → (background, with `--daemon`) → log → sockets bound → user changed → (application, with
//! `--preload`) → workers forked → in each: application imported → then the sockets listen → in each: Python threads, reactors.
//! Stop: sockets closed → in each worker: reactors drain, threads end, Python exits and runs `atexit` → the supervisor ends.
//!
//! Without one the process that was started is the only worker: sockets bound → application imported → sockets listening → Python
//! threads → reactors.

mod application;
mod background;
mod cache;
mod crashes;
mod daemon;
mod inspection;
mod parking;
mod signals;
mod supervising;
mod worker;

use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::config::{self, Config, Origin, Outcome};
use crate::observe::error_log::{self, ErrorLog};
use crate::process::house::{self, House};
use crate::process::listeners::{self, Bound, Listeners};
use crate::process::standard;
use crate::reactor::probe::{self, Kind};
use crate::reactor::{clock, cpu};
use crate::serve::caching;

/// Exit code when the application can't be loaded or a socket can't be bound.
const EXIT_FAILURE: i32 = 1;
/// How long the error log's last lines are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The extension module.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::background::add_cron;
    #[pymodule_export]
    use super::cache::cache_purge;
    #[pymodule_export]
    use super::main;
    #[pymodule_export]
    use super::parking::notify_parked;
}

/// Runs the server for the arguments after the program's name, and returns the exit code. It doesn't return in the processes that
/// the supervisor forks: there it raises `SystemExit`, so that none of the caller's code runs twice.
#[pyfunction]
fn main(py: Python<'_>, argv: Vec<OsString>) -> PyResult<i32> {
    // Nobody could be told of a failure.
    if standard::open_closed().unwrap_or(false) {
        py.import("hoopsnake._process")?.call_method0("open_standard_streams")?;
    }
    let environment: Vec<_> = std::env::vars_os().collect();
    let (config, warnings) = match config::from(&argv, &environment, &|path| std::fs::read(path)) {
        Ok(Outcome::Run(config, warnings)) => (config, warnings),
        Ok(Outcome::Print(text)) => {
            print!("{text}");
            return Ok(0);
        }
        Err(error) => {
            eprintln!("hoopsnake: {error}");
            return Ok(config::EXIT_USAGE);
        }
    };
    let started_as = std::process::id();
    let report = match daemon::begin(py, &config) {
        Ok(daemon::Side::Server(report)) => report,
        Ok(daemon::Side::Starter(code)) => return Ok(code),
        Err(sentence) => {
            eprintln!("hoopsnake: {sentence}");
            return Ok(EXIT_FAILURE);
        }
    };
    // It lives until what has gone wrong is told: only then does the command of `--daemon` come back.
    let (mut house, notes) = match House::begin(&config, started_as, report) {
        Ok(begun) => begun,
        Err(sentence) => {
            eprintln!("hoopsnake: {sentence}");
            return Ok(EXIT_FAILURE);
        }
    };
    let error_log = match error_log::init(&config.error_log, config.log_level) {
        Ok(error_log) => error_log,
        Err(sentence) => {
            eprintln!("hoopsnake: {sentence}");
            return Ok(EXIT_FAILURE);
        }
    };
    standard::raise_descriptors();
    // Reads the time zone's file before there are threads.
    clock::local_offset(clock::unix_seconds());
    for warning in warnings.into_iter().chain(notes) {
        tracing::warn!("{warning}");
    }
    let end = serve(py, &config, &error_log, &mut house, started_as).unwrap_or_else(|sentence| {
        tracing::error!("{}", with_remedy(sentence));
        End::new(EXIT_FAILURE)
    });
    signals::ignore_requests(py)?;
    if end.abandoned {
        worker::leave(py, end.code, &error_log);
    } else {
        py.detach(|| error_log.shutdown(LAST_WORDS));
    }
    if end.forked { Err(PySystemExit::new_err(end.code)) } else { Ok(end.code) }
}

/// The sentence for what the system or Python refused while the process was getting ready.
fn cant_start(error: impl Display) -> String {
    format!("can't start: {error}")
}

/// What is said when the process has run out of descriptors, wherever that was noticed: with what to do about it.
fn with_remedy(sentence: String) -> String {
    if !sentence.ends_with("(os error 24)") {
        return sentence;
    }
    format!("{sentence}; raise the limit on open files (`ulimit -n`, LimitNOFILE= in a unit)")
}

/// How a process came to its end.
struct End {
    /// The exit code.
    code: i32,
    /// Whether Python threads still run that can't be waited for.
    abandoned: bool,
    /// Whether this is a process that the supervisor forked.
    forked: bool,
}

impl End {
    fn new(code: i32) -> Self {
        Self { code, abandoned: false, forked: false }
    }
}

/// What was found out before there is a worker, and holds for each.
struct Plan<'a> {
    config: &'a Config,
    error_log: &'a ErrorLog,
    kind: Kind,
    driver_line: String,
    /// Reactors of each worker.
    reactors: usize,
    /// The processors there are to use.
    cores: Vec<usize>,
    /// With `--reload`: what a worker reports its files to.
    reporter: Option<OwnedFd>,
    /// Up to when the cron jobs are seen to, for whichever process has them next.
    background_mark: Arc<background::Mark>,
}

fn serve(
    py: Python<'_>,
    config: &Config,
    error_log: &ErrorLog,
    house: &mut House,
    started_as: u32,
) -> Result<End, String> {
    // Read before anything is pinned: a pinned thread sees one core only.
    let cores = cpu::available();
    let reactors = config.reactors.unwrap_or_else(|| (cpu::default_reactors() / config.processes).max(1));
    let explicit = *config.origin("http-socket") != Origin::Default;
    let variable = |name: &str| house::variable(name, started_as).and_then(|value| value.into_string().ok());
    let Listeners { bound, warnings } = listeners::bind(&config.http_socket, explicit, reactors, variable)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    house.settle(config, &bound)?;
    // Nothing from here on has more rights than the application, and nothing listens yet.
    prepare_python(py, config, house).map_err(|error| match &config.user {
        // Typically a Python or a virtual environment below /root.
        Some(user) => format!(
            "--user {user}: this user can't use Python ({error}); install Python and the virtual environment where that user may \
             read them"
        ),
        None => cant_start(error),
    })?;
    // As the user who will need it. The ring it tries is closed again: a supervisor has none when it forks.
    let (kind, driver_line) = probe::choose(config.reactor)?;
    let background_mark = Arc::new(background::Mark::new().map_err(cant_start)?);
    let reporter = house.reporter();
    let plan = Plan { config, error_log, kind, driver_line, reactors, cores, reporter, background_mark };
    if config.check {
        let loaded = application::load(py, config)?;
        print!("{}", config.describe());
        println!("{}", loaded.describe());
        print!("{}", house.describe(config));
        return Ok(End::new(0));
    }
    let mut hooks = house.hooks(config, format!("{} serve", numbers(config)))?;
    // Before anything is forked: what all processes of the cache have in common.
    caching::prepare(config).map_err(cant_start)?;
    hooks.push(Box::new(cache::Generations));
    if config.supervisor { supervising::run(py, &plan, bound, hooks) } else { worker::alone(py, &plan, bound, hooks) }
}

/// The environment, and what holds for every import.
fn prepare_python(py: Python<'_>, config: &Config, house: &House) -> PyResult<()> {
    let (given, removed) = house.environment(config);
    let bytes = |text: &OsString| PyBytes::new(py, text.as_bytes()).unbind();
    let given: Vec<(Py<PyBytes>, Py<PyBytes>)> =
        given.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
    py.import("hoopsnake._process")?.call_method1("prepare_environment", (given, removed))?;
    if config.reload {
        // A .pyc is told from another by seconds: the second edit within one would be taken for the first.
        py.import("sys")?.setattr("dont_write_bytecode", true)?;
    }
    Ok(())
}

/// `2 processes with 16 threads each`.
fn numbers(config: &Config) -> String {
    let (workers, processes) = (config.workers, if config.supervisor { config.processes } else { 1 });
    if processes > 1 {
        format!("{processes} processes with {workers} threads each")
    } else {
        format!("1 process with {workers} threads")
    }
}

/// Says in five lines what runs.
fn announce(plan: &Plan<'_>, bound: &[Bound], python: &str) {
    let addresses: Vec<&str> = bound.iter().map(|bound| bound.description.as_str()).collect();
    let (workers, processes) = (plan.config.workers, if plan.config.supervisor { plan.config.processes } else { 1 });
    tracing::info!("hoopsnake {} listens on {}", env!("CARGO_PKG_VERSION"), addresses.join(", "));
    tracing::info!("application: {}", plan.config.application);
    tracing::info!("Python: {python}");
    let each = if processes > 1 { " in each process" } else { "" };
    tracing::info!("reactors: {}{each}; {}", plan.reactors, plan.driver_line.trim_start_matches("reactor: "));
    let (count, each) =
        if processes > 1 { (format!("{processes} processes"), " each") } else { ("1 process".into(), "") };
    let who = if plan.config.supervisor { "supervisor's pid" } else { "pid" };
    tracing::info!("workers: {workers} threads{each} in {count}, {who} {}; ready", std::process::id());
}
