//! What Python imports as `hoopsnake._core`, and the order in which the server starts and stops.
//!
//! Start: configuration → logs → sockets bound → application imported → sockets listening → workers → reactors.
//! Stop: reactors drain, workers end, Python exits and runs `atexit`.

use std::ffi::OsString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::config::{self, Address, Config, LogTarget, Origin, Outcome};
use crate::observe::error_log::{self, ErrorLog};
use crate::observe::writer::{Log, LogWriter};
use crate::process::bell::Bell;
use crate::process::listeners::{self, Bound, Listeners};
use crate::process::reactors::{self, Plan, Reactors};
use crate::reactor::probe::{self, Kind};
use crate::reactor::{clock, cpu};
use crate::serve::Shared;
use crate::serve::conn::Settings;
use crate::serve::disk::Disk;
use crate::serve::exchange::Message;
use crate::serve::wsgi::{ListenerInfo, Pool, PoolSettings};

/// Exit code when the application can't be loaded or a socket can't be bound.
const EXIT_FAILURE: i32 = 1;
/// How long workers are waited for after the reactors have ended, at least.
const WORKERS_END: Duration = Duration::from_secs(1);
/// How long the error log's last lines are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Signals that come within this time of the first are one with it.
const SIGNALS_TOGETHER: Duration = Duration::from_millis(100);
/// How often the main thread looks around when nobody rings.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// The extension module.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::main;
}

/// Runs the server for the arguments after the program's name, and returns the exit code.
#[pyfunction]
fn main(py: Python<'_>, argv: Vec<OsString>) -> i32 {
    let environment: Vec<_> = std::env::vars_os().collect();
    let (config, warnings) = match config::from(&argv, &environment, &|path| std::fs::read(path)) {
        Ok(Outcome::Run(config, warnings)) => (config, warnings),
        Ok(Outcome::Print(text)) => {
            print!("{text}");
            return 0;
        }
        Err(error) => {
            eprintln!("hoopsnake: {error}");
            return config::EXIT_USAGE;
        }
    };
    let error_log = match error_log::init(&config.error_log, config.log_level) {
        Ok(error_log) => error_log,
        Err(sentence) => {
            eprintln!("hoopsnake: {sentence}");
            return EXIT_FAILURE;
        }
    };
    // Reads the time zone's file before there are threads.
    clock::local_offset(clock::unix_seconds());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let end = serve(py, &config, &error_log).unwrap_or_else(|sentence| {
        tracing::error!("{sentence}");
        End { code: EXIT_FAILURE, abandoned: false }
    });
    if end.abandoned {
        leave(py, end.code, &error_log);
    } else {
        py.detach(|| error_log.shutdown(LAST_WORDS));
    }
    end.code
}

/// How the server came to its end.
struct End {
    /// The exit code.
    code: i32,
    /// Whether Python threads still run that can't be waited for.
    abandoned: bool,
}

fn serve(py: Python<'_>, config: &Config, error_log: &ErrorLog) -> Result<End, String> {
    // Read before anything is pinned: a pinned thread sees one core only.
    let cores = cpu::available();
    let reactors = config.reactors.unwrap_or_else(cpu::default_reactors);
    let (kind, driver_line) = probe::choose(config.reactor)?;
    let explicit = *config.origin("http-socket") != Origin::Default;
    let Listeners { bound, warnings } =
        listeners::bind(&config.http_socket, explicit, reactors, |name| std::env::var(name).ok())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let loaded = load(py, config)?;
    if config.check {
        print!("{}", config.describe());
        println!("{}", loaded.describe());
        return Ok(End { code: 0, abandoned: false });
    }
    listeners::listen(&bound)?;
    let stopping = Arc::new(AtomicUsize::new(0));
    let mut bell = Bell::new().map_err(|error| format!("can't start: {error}"))?;
    watch_signals(py, &bell, &stopping, error_log).map_err(|error| format!("can't watch signals: {error}"))?;
    let mut running = start(py, config, kind, reactors, &cores, &bound, &bell, &loaded.application)?;
    announce(config, &bound, &loaded, &driver_line, reactors);
    let failure = wait(py, &mut bell, &mut running, &stopping).err();
    let mut end = stop(py, config, &mut bell, running, bound);
    if let Some(sentence) = failure {
        tracing::error!("{sentence}");
        end.code = EXIT_FAILURE;
    }
    Ok(end)
}

/// The application, and what is said about it.
struct Loaded {
    application: Py<PyAny>,
    python: String,
    name: String,
}

impl Loaded {
    fn describe(&self) -> String {
        format!("application {} on {}", self.name, self.python)
    }
}

/// Imports the application through `hoopsnake._application`, where loading is written in Python.
fn load(py: Python<'_>, config: &Config) -> Result<Loaded, String> {
    let fault = |error: PyErr| format!("can't load the application: {error}");
    let module = py.import("hoopsnake._application").map_err(fault)?;
    let sentence = |error: PyErr| {
        let value = error.value(py);
        let traceback = value.getattr("traceback").and_then(|text| text.extract::<String>()).unwrap_or_default();
        if !traceback.is_empty() {
            tracing::error!("{}", traceback.trim_end());
        }
        value.to_string()
    };
    module.call_method1("prepare_path", (config.chdir.clone(), config.pythonpath.clone())).map_err(sentence)?;
    let application = module.call_method1("load", (&config.application,)).map_err(sentence)?;
    let python = module.call_method0("describe_python").and_then(|text| text.extract()).map_err(fault)?;
    Ok(Loaded { application: application.unbind(), python, name: config.application.clone() })
}

/// SIGTERM and SIGINT ask for a graceful stop; the second of them ends the process at once. Two that come together are one:
/// `timeout`, and a terminal's Ctrl-C through a wrapper, send the signal to the process and again to its group.
fn watch_signals(py: Python<'_>, bell: &Bell, stopping: &Arc<AtomicUsize>, error_log: &ErrorLog) -> PyResult<()> {
    let signal = py.import("signal")?;
    let stopping = Arc::clone(stopping);
    let error_log = error_log.clone();
    let first = OnceLock::new();
    let handler = PyCFunction::new_closure(
        py,
        Some(c"stop"),
        None,
        move |arguments: &pyo3::Bound<'_, PyTuple>, _: Option<&pyo3::Bound<'_, PyDict>>| -> PyResult<()> {
            let came = *first.get_or_init(Instant::now);
            if stopping.fetch_add(1, Ordering::SeqCst) > 0 && came.elapsed() > SIGNALS_TOGETHER {
                tracing::warn!("a second signal: stopping at once");
                arguments.py().detach(|| error_log.shutdown(LAST_WORDS));
                arguments.py().import("os")?.call_method1("_exit", (EXIT_FAILURE,))?;
            }
            Ok(())
        },
    )?;
    signal.call_method1("signal", (signal.getattr("SIGTERM")?, &handler))?;
    signal.call_method1("signal", (signal.getattr("SIGINT")?, &handler))?;
    let options = PyDict::new(py);
    options.set_item("warn_on_full_buffer", false)?;
    signal.call_method("set_wakeup_fd", (bell.writer_fd(),), Some(&options))?;
    py.import("faulthandler")?.call_method0("enable")?;
    Ok(())
}

/// What is to be stopped in the end.
struct Running {
    pool: Arc<Pool>,
    reactors: Reactors,
    /// The Python threads.
    workers: Vec<Py<PyAny>>,
    access_log: Option<LogWriter>,
}

/// Starts the workers, then the reactors.
fn start(
    py: Python<'_>,
    config: &Config,
    kind: Kind,
    reactors: usize,
    cores: &[usize],
    bound: &[Bound],
    bell: &Bell,
    application: &Py<PyAny>,
) -> Result<Running, String> {
    let fault = |error: std::io::Error| format!("can't start: {error}");
    let access_log = LogWriter::start(Log::Access, &config.access_log)?;
    let mailboxes = reactors::mailboxes(reactors).map_err(fault)?;
    let pool = Pool::new(pool_settings(config, kind, bound), mailboxes.clone());
    let workers =
        start_workers(py, config, &pool, application).map_err(|error| format!("can't start workers: {error}"))?;
    let shared = Arc::new(Shared {
        settings: Settings::new(config),
        pool: Arc::clone(&pool),
        disk: Disk::start().map_err(fault)?,
        process: 1,
        trusted_proxies: config.trusted_proxies.clone(),
    });
    let mut plans = Vec::with_capacity(reactors);
    for (index, mailbox) in mailboxes.into_iter().enumerate() {
        // With fewer cores than reactors a pin would only take freedom from the scheduler.
        let core = (reactors <= cores.len()).then(|| cores[index]);
        plans.push(Plan {
            listeners: listeners_of(bound, index).map_err(fault)?,
            core,
            mailbox,
            log: access_log.as_ref().map(LogWriter::handle),
        });
    }
    let ringers = plans.iter().map(|_| bell.ringer()).collect::<Result<Vec<_>, _>>().map_err(fault)?;
    let reactors = py.detach(|| Reactors::start(kind, plans, &shared, ringers))?;
    Ok(Running { pool, reactors, workers, access_log })
}

fn pool_settings(config: &Config, kind: Kind, bound: &[Bound]) -> PoolSettings {
    PoolSettings {
        workers: config.workers,
        request_timeout: config.request_timeout,
        measure_cpu: config.access_log != LogTarget::Off,
        multiprocess: config.processes > 1,
        listeners: bound
            .iter()
            .map(|bound| ListenerInfo {
                server_name: bound.server_name.clone(),
                server_port: bound.server_port.clone(),
                scheme: "http",
                unix: matches!(bound.address, Address::Unix(_)),
            })
            .collect(),
        trusted_proxies: config.trusted_proxies.clone(),
        header_underscores: config.header_underscores,
        driver: kind.name(),
    }
}

/// The listeners of one reactor: its own socket of each TCP address, the shared one of the others.
fn listeners_of(bound: &[Bound], reactor: usize) -> std::io::Result<Vec<(std::os::fd::OwnedFd, u16)>> {
    bound
        .iter()
        .enumerate()
        .map(|(index, bound)| Ok((bound.socket_for(reactor).try_clone_to_owned()?, index as u16)))
        .collect()
}

/// Python's own threads, so that `threading` knows them by name and their thread state lives as long as they do.
fn start_workers(
    py: Python<'_>,
    config: &Config,
    pool: &Arc<Pool>,
    application: &Py<PyAny>,
) -> PyResult<Vec<Py<PyAny>>> {
    let thread = py.import("threading")?.getattr("Thread")?;
    (0..config.workers as u32)
        .map(|index| {
            let (pool, application) = (Arc::clone(pool), application.clone_ref(py));
            let target = PyCFunction::new_closure(
                py,
                Some(c"worker"),
                None,
                move |arguments: &pyo3::Bound<'_, PyTuple>, _: Option<&pyo3::Bound<'_, PyDict>>| {
                    let py = arguments.py();
                    pool.run_worker(py, application.clone_ref(py), index)
                },
            )?;
            let options = PyDict::new(py);
            options.set_item("name", format!("hoopsnake-worker-{}", index + 1))?;
            options.set_item("target", target)?;
            // A worker that can't be ended must not keep the interpreter from ending.
            options.set_item("daemon", true)?;
            let worker = thread.call((), Some(&options))?;
            worker.call_method0("start")?;
            Ok(worker.unbind())
        })
        .collect()
}

/// Says in five lines what runs.
fn announce(config: &Config, bound: &[Bound], loaded: &Loaded, driver_line: &str, reactors: usize) {
    let addresses: Vec<&str> = bound.iter().map(|bound| bound.description.as_str()).collect();
    tracing::info!("hoopsnake {} listens on {}", env!("CARGO_PKG_VERSION"), addresses.join(", "));
    tracing::info!("application: {}", loaded.name);
    tracing::info!("Python: {}", loaded.python);
    tracing::info!("reactors: {reactors}; {}", driver_line.trim_start_matches("reactor: "));
    tracing::info!("workers: {} threads in 1 process, pid {}; ready", config.workers, std::process::id());
}

/// Serves until a signal asks for a stop, or a reactor fails.
fn wait(py: Python<'_>, bell: &mut Bell, running: &mut Running, stopping: &AtomicUsize) -> Result<(), String> {
    while stopping.load(Ordering::SeqCst) == 0 {
        py.detach(|| bell.wait(LOOK_AROUND));
        // Runs the handlers of signals that came; what the application's own handlers raise is theirs to see.
        if let Err(error) = py.check_signals() {
            tracing::error!("a signal handler raised {error}; stopping");
            return Ok(());
        }
        running.pool.release_now(py);
        if stopping.load(Ordering::SeqCst) == 0 && running.reactors.have_ended(Duration::ZERO)? {
            return Err("all reactors have ended".into());
        }
    }
    Ok(())
}

/// Stops gracefully, within `--graceful-timeout`.
fn stop(py: Python<'_>, config: &Config, bell: &mut Bell, mut running: Running, bound: Vec<Bound>) -> End {
    let until = Instant::now() + config.graceful_timeout;
    tracing::info!("stopping: requests in flight have {} s to finish", config.graceful_timeout.as_secs_f64());
    running.reactors.tell(|| Message::Drain);
    // The reactors have the same sockets and close theirs when everything queued there is accepted: from then on the kernel
    // refuses connections that nobody would answer.
    drop(bound);
    let mut ended = await_reactors(py, bell, &mut running, until);
    if !ended {
        tracing::warn!("requests were still in flight after --graceful-timeout; their connections are closed");
        running.reactors.tell(|| Message::Stop);
        ended = await_reactors(py, bell, &mut running, Instant::now() + WORKERS_END);
    }
    running.pool.close();
    let joined = join_workers(py, &running.workers, until.max(Instant::now() + WORKERS_END));
    py.detach(|| running.access_log.map(|log| log.shutdown(WORKERS_END)));
    if ended && joined {
        tracing::info!("stopped");
    } else {
        tracing::warn!("some workers are still busy; leaving without them");
    }
    End { code: 0, abandoned: !(ended && joined) }
}

fn await_reactors(py: Python<'_>, bell: &mut Bell, running: &mut Running, until: Instant) -> bool {
    loop {
        match running.reactors.have_ended(Duration::ZERO) {
            Ok(true) => return true,
            Ok(false) => {}
            Err(sentence) => tracing::error!("{sentence}"),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        py.detach(|| bell.wait(left.min(LOOK_AROUND)));
        // A second signal ends the process from within its handler.
        let _ = py.check_signals();
        running.pool.release_now(py);
    }
}

/// Whether all workers ended before `until`.
fn join_workers(py: Python<'_>, workers: &[Py<PyAny>], until: Instant) -> bool {
    workers.iter().all(|worker| {
        let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
        let joined = worker.call_method1(py, "join", (left,)).and_then(|_| worker.call_method0(py, "is_alive"));
        joined.and_then(|alive| alive.extract::<bool>(py)).is_ok_and(|alive| !alive)
    })
}

/// Ends the process although Python threads still run: `atexit` first, then without waiting for anything.
fn leave(py: Python<'_>, code: i32, error_log: &ErrorLog) {
    let finish = || -> PyResult<()> {
        py.import("atexit")?.call_method0("_run_exitfuncs")?;
        let sys = py.import("sys")?;
        sys.getattr("stdout")?.call_method0("flush")?;
        sys.getattr("stderr")?.call_method0("flush")?;
        Ok(())
    };
    if let Err(error) = finish() {
        tracing::error!("while leaving: {error}");
    }
    py.detach(|| error_log.shutdown(LAST_WORDS));
    if let Ok(os) = py.import("os") {
        // Doesn't return.
        let _ = os.call_method1("_exit", (code,));
    }
}
