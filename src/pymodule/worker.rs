//! One worker process from its application to its end: Python threads, reactors, the main thread's watch over them, the drain.
//!
//! It is the same with a supervisor ([`seated`]) and without ([`alone`]); only whom it reports to differs.
//!
//! Where others join in: [`Watch::look_around`] runs in the main thread, attached to Python, at least once a second while the worker
//! serves; [`Watch::take_background`] and [`Watch::let_background_go`] are called when what belongs to no request becomes this
//! process's and ceases to be, which is never two processes' at once; `inspection` is what SIGUSR1 and SIGUSR2 write;
//! [`Seat::hand_over`] asks for an early successor.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::application::{self, Files, Loaded};
use super::background::Background;
use super::crashes::Crashes;
use super::signals::{self, Asked, Course};
use super::{EXIT_FAILURE, End, LAST_WORDS, Plan, announce, cant_start, daemon, inspection, parking, with_remedy};
use crate::config::{Address, Config, LogTarget};
use crate::observe::error_log::ErrorLog;
use crate::observe::writer::{Log, LogWriter};
use crate::process::bell::Bell;
use crate::process::board::Figure;
use crate::process::channel::Reason;
use crate::process::hooks::{Hook, Milestone};
use crate::process::listeners::{self, Bound as Listener};
use crate::process::reactors::{self, Reactors};
use crate::process::seat::Seat;
use crate::reactor::probe::Kind;
use crate::reactor::{poll, processes};
use crate::serve::conn::Settings;
use crate::serve::disk::Disk;
use crate::serve::exchange::{Mailbox, Message, Withdrawal};
use crate::serve::local::files;
use crate::serve::notify::Notifier;
use crate::serve::queue::rules::Rules;
use crate::serve::wsgi::{Hooks, ListenerInfo, Overseer, Plight, Pool, PoolSettings, leave_at_once};
use crate::serve::{Blocking, Shared, caching};

/// How long workers are waited for after the reactors have ended, at least.
const WORKERS_END: Duration = Duration::from_secs(1);
/// How often the main thread looks around when nobody rings.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How often a process that can't get the GIL looks whether its reactors have ended. The bell that they ring is the main thread's, which
/// waits for the GIL; and the heart must go on beating meanwhile.
const DRAIN_LOOKS: Duration = Duration::from_millis(100);
/// The heartbeat beats no more often than this, however often it is rung.
const BEAT: Duration = Duration::from_millis(500);

/// Serves in the process that was started.
pub(super) fn alone(
    py: Python<'_>,
    plan: &Plan<'_>,
    bound: Vec<Listener>,
    hooks: Vec<Box<dyn Hook>>,
) -> Result<End, String> {
    plan.error_log.start_writer()?;
    let crashes = Crashes::tell(py, plan.config).map_err(cant_start)?;
    watch_import(py, &crashes, plan.config)?;
    if plan.config.process <= 1 {
        Background::open(plan);
    }
    let loaded = application::load(py, plan.config)?;
    listeners::listen(&bound)?;
    let asked = Arc::default();
    let mut bell = new_bell()?;
    watch_signals(py, &bell, &asked, Some(plan.error_log))?;
    let leaving = Leaving::new(plan, &asked, None);
    let prepared = prepare(py, plan, &bound, plan.config.process.max(1), &loaded.application, &bell, leaving)?;
    let running = prepared.start(py, plan.kind, &bell)?;
    announce(plan, &bound, &loaded.python);
    let mut watch = Watch {
        running,
        asked,
        crashes,
        answers: answers(plan),
        seat: None,
        background: false,
        beaten: None,
        hooks,
        files: None,
    };
    daemon::let_go(py, plan.config)?;
    watch.reached(Milestone::Ready);
    let failure = watch.serve(py, &mut bell).err();
    let mut end = watch.stop(py, plan.config, &mut bell, bound);
    if let Some(sentence) = failure {
        tracing::error!("{sentence}");
        end.code = EXIT_FAILURE;
    }
    Ok(end)
}

/// Serves in a process that the supervisor has just forked. Whatever fails before it is ready is the supervisor's to tell.
pub(super) fn seated(
    py: Python<'_>,
    plan: &Plan<'_>,
    bound: Vec<Listener>,
    seat: Seat,
    preloaded: Option<Loaded>,
) -> End {
    let seat = Arc::new(seat);
    if seat.settle().is_err() {
        // The supervisor is gone, and with it whoever could be told.
        return End { code: EXIT_FAILURE, abandoned: false, forked: true };
    }
    match serve(py, plan, bound, &seat, preloaded) {
        Ok(end) => End { forked: true, ..end },
        Err(reason) => {
            seat.failed(Reason { sentence: with_remedy(reason.sentence), ..reason });
            End { code: EXIT_FAILURE, abandoned: false, forked: true }
        }
    }
}

fn serve(
    py: Python<'_>,
    plan: &Plan<'_>,
    bound: Vec<Listener>,
    seat: &Arc<Seat>,
    preloaded: Option<Loaded>,
) -> Result<End, Reason> {
    plan.error_log.start_writer()?;
    let crashes = Crashes::tell(py, plan.config).map_err(cant_start)?;
    watch_import(py, &crashes, plan.config)?;
    let files = plan.reporter.as_ref().map(|reporter| Files::new(py, reporter.as_raw_fd())).transpose();
    let files = files.map_err(|error| format!("--reload: {error}"))?;
    let loaded = match preloaded {
        Some(loaded) => loaded,
        None => {
            if seat.number() == 1 {
                Background::open(plan);
            }
            application::try_load(py, plan.config, files.as_ref())?
        }
    };
    if let Some(files) = &files {
        files.tell(py, None);
    }
    let asked = Arc::default();
    let mut bell = new_bell()?;
    let leaving = Leaving::new(plan, &asked, Some(seat));
    let prepared = prepare(py, plan, &bound, seat.number(), &loaded.application, &bell, leaving)?;
    if !py.detach(|| seat.loaded()) {
        return Err(Reason::from("the supervisor is gone".to_owned()));
    }
    watch_signals(py, &bell, &asked, None)?;
    let running = prepared.start(py, plan.kind, &bell)?;
    // Each reactor has its own; these would keep a port open that nobody accepts on any more.
    drop(bound);
    let (drain, this) = (running.reactors.drainer(), Arc::clone(&asked));
    let orphaned = move || {
        drain();
        this.stop(Course::Graceful);
    };
    seat.listen(bell.ringer().map_err(cant_start)?, plan.config.graceful_timeout, orphaned).map_err(cant_start)?;
    daemon::let_go(py, plan.config)?;
    seat.ready();
    let mut watch = Watch {
        running,
        asked,
        crashes,
        answers: answers(plan),
        seat: Some(Arc::clone(seat)),
        background: false,
        beaten: None,
        hooks: Vec::new(),
        files,
    };
    let failure = watch.serve(py, &mut bell).err();
    if let Some(sentence) = &failure {
        tracing::error!("{sentence}");
    }
    // A worker that failed is replaced like one that died.
    if failure.is_none() {
        seat.leaving();
    }
    let mut end = watch.stop(py, plan.config, &mut bell, Vec::new());
    if failure.is_some() {
        end.code = EXIT_FAILURE;
    }
    Ok(end)
}

/// Where SIGUSR1 and SIGUSR2 are answered, if not on standard output, which in the background leads nowhere.
fn answers(plan: &Plan<'_>) -> Option<ErrorLog> {
    plan.config.daemon.then(|| plan.error_log.clone())
}

fn new_bell() -> Result<Bell, String> {
    Bell::new().map_err(cant_start)
}

/// Before the application is imported.
fn watch_import(py: Python<'_>, crashes: &Crashes, config: &Config) -> Result<(), String> {
    let watched = signals::free_children(py).and_then(|()| signals::import(py, crashes.answers_to(config)));
    watched.map_err(|error| format!("can't watch signals: {error}"))
}

fn watch_signals(py: Python<'_>, bell: &Bell, asked: &Arc<Asked>, alone: Option<&ErrorLog>) -> Result<(), String> {
    signals::serve(py, bell, asked, alone).map_err(|error| format!("can't watch signals: {error}"))
}

/// What a process that can't serve any more needs to leave by itself.
struct Leaving {
    asked: Arc<Asked>,
    /// Who asks for a successor; `None` without a supervisor.
    seat: Option<Arc<Seat>>,
    /// `--graceful-timeout`
    patience: Duration,
    error_log: ErrorLog,
}

impl Leaving {
    fn new(plan: &Plan<'_>, asked: &Arc<Asked>, seat: Option<&Arc<Seat>>) -> Self {
        Self {
            asked: Arc::clone(asked),
            seat: seat.cloned(),
            patience: plan.config.graceful_timeout,
            error_log: plan.error_log.clone(),
        }
    }

    /// How the pool reaches the main thread, and what happens when its workers can't serve any more.
    fn hooks(self, pool: &Arc<Pool>, mailboxes: &[Arc<Mailbox>], bell: &Bell) -> std::io::Result<Hooks> {
        let (ring, bell) = (bell.ringer()?, bell.ringer()?);
        let (mailboxes, status) = (mailboxes.to_vec(), Arc::clone(pool.status()));
        let of_guard = self.seat.clone();
        // Whoever comes after a successor was asked for is served by that, or by others: first nothing is accepted here any more.
        let withdraw = |seat: &Arc<Seat>, mailboxes: &[Arc<Mailbox>], why: &'static str| {
            let seat = Arc::clone(seat);
            let withdrawal = Withdrawal::then(move || seat.hand_over(why));
            reactors::tell(mailboxes, || Message::Withdraw(Arc::clone(&withdrawal)));
        };
        let hand_over = move |plight| match (plight, &self.seat) {
            (Plight::AllStuck, Some(seat)) => withdraw(seat, &mailboxes, "every one of its threads is stuck"),
            (Plight::AllStuck, None) => {
                self.asked.stuck();
                bell.ring();
            }
            (Plight::LockLost, seat) => {
                // The reactors still answer, if only that it takes too long.
                match seat {
                    Some(seat) => withdraw(seat, &mailboxes, "something in C keeps its GIL"),
                    None => reactors::tell(&mailboxes, || Message::Drain),
                }
                let until = Instant::now() + self.patience;
                // Not when no connection is to be seen: until a reactor has ended the kernel may have accepted another.
                while !status.have_reactors_ended() && Instant::now() < until {
                    // That the main thread can't.
                    seat.iter().for_each(|seat| seat.beat());
                    std::thread::sleep(DRAIN_LOOKS);
                }
                self.error_log.shutdown(LAST_WORDS);
                leave_at_once(EXIT_FAILURE);
            }
        };
        let alive = move || of_guard.iter().for_each(|seat| seat.beat());
        Ok(Hooks { ring: Box::new(move || ring.ring()), hand_over: Box::new(hand_over), alive: Box::new(alive) })
    }
}

/// A worker that has all but its reactors.
struct Prepared {
    pool: Arc<Pool>,
    /// Has the Python threads.
    overseer: Overseer,
    access_log: Option<LogWriter>,
    shared: Arc<Shared>,
    plans: Vec<reactors::Plan>,
}

/// Opens the access log and starts the Python threads. `number`: what the log calls this process, from 1.
fn prepare(
    py: Python<'_>,
    plan: &Plan<'_>,
    bound: &[Listener],
    number: usize,
    application: &Py<PyAny>,
    bell: &Bell,
    leaving: Leaving,
) -> Result<Prepared, String> {
    let config = plan.config;
    let access_log = LogWriter::start(Log::Access, &config.access_log)?;
    let mailboxes = reactors::mailboxes(plan.reactors).map_err(cant_start)?;
    let notifier = parking::open(&mailboxes).map_err(cant_start)?;
    let pool = Pool::new(pool_settings(config, plan.kind, bound, &notifier), mailboxes.clone());
    let hooks = leaving.hooks(&pool, &mailboxes, bell).map_err(cant_start)?;
    let workers = |error| format!("can't start workers: {error}");
    let mut overseer = Overseer::new(py, &pool, application, hooks).map_err(workers)?;
    overseer.start(py).map_err(workers)?;
    let files = files::Settings::new(config).map_err(cant_start)?.map(Arc::new);
    for sentence in files.iter().flat_map(|files| files.missing()) {
        tracing::warn!("{sentence}");
    }
    let shared = Arc::new(Shared {
        settings: Settings::new(config),
        files,
        pool: Arc::clone(&pool),
        notifier,
        disk: Disk::start().map_err(cant_start)?,
        process: number as u32,
        siblings: config.supervisor && config.processes > 1,
        trusted_proxies: config.trusted_proxies.clone(),
        cache: caching::cache(config),
        blocking: Blocking::default(),
    });
    let mut plans = Vec::with_capacity(plan.reactors);
    for (index, mailbox) in mailboxes.into_iter().enumerate() {
        plans.push(reactors::Plan {
            listeners: listeners_of(bound, index).map_err(cant_start)?,
            core: core_of(plan, number, index),
            mailbox,
            log: access_log.as_ref().map(LogWriter::handle),
            shared_listeners: config.supervisor,
        });
    }
    Ok(Prepared { pool, overseer, access_log, shared, plans })
}

/// The core of one reactor of process `number`. With fewer cores than reactors a pin would only take freedom from the scheduler.
fn core_of(plan: &Plan<'_>, number: usize, reactor: usize) -> Option<usize> {
    let processes = if plan.config.supervisor { plan.config.processes } else { 1 };
    if processes * plan.reactors > plan.cores.len() {
        return None;
    }
    let place = if plan.config.supervisor { number - 1 } else { 0 };
    plan.cores.get(place * plan.reactors + reactor).copied()
}

impl Prepared {
    /// Starts the reactors: from then on connections are accepted.
    fn start(self, py: Python<'_>, kind: Kind, bell: &Bell) -> Result<Running, String> {
        let Self { pool, overseer, access_log, shared, plans } = self;
        let ringers = plans.iter().map(|_| bell.ringer()).collect::<Result<Vec<_>, _>>().map_err(cant_start)?;
        let reactors = py.detach(|| Reactors::start(kind, plans, &shared, ringers))?;
        Ok(Running { pool, shared: Arc::downgrade(&shared), reactors, overseer, access_log })
    }
}

fn pool_settings(config: &Config, kind: Kind, bound: &[Listener], notifier: &Arc<Notifier>) -> PoolSettings {
    PoolSettings {
        workers: config.workers,
        max_workers: config.max_workers.unwrap_or(config.workers),
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
        queue: Rules {
            priority: config.priority,
            prefixes: config
                .priority_prefixes
                .iter()
                .map(|(prefix, points)| (prefix.clone().into_bytes(), *points))
                .collect(),
            by_cost: config.priority_by_cost,
            requests: config.queue_requests(),
            shed: config.shed,
        },
        notifier: Arc::clone(notifier),
        sendfile: !config.sendfile_root.is_empty(),
        accel: !config.static_map.is_empty(),
        driver: kind.name(),
    }
}

/// The listeners of one reactor: its own socket of each TCP address, the shared one of the others.
fn listeners_of(bound: &[Listener], reactor: usize) -> std::io::Result<Vec<(std::os::fd::OwnedFd, u16)>> {
    bound
        .iter()
        .enumerate()
        .map(|(index, bound)| Ok((bound.socket_for(reactor).try_clone_to_owned()?, index as u16)))
        .collect()
}

/// What is to be stopped in the end.
struct Running {
    pool: Arc<Pool>,
    /// Belongs to the reactors: gone when they are.
    shared: Weak<Shared>,
    reactors: Reactors,
    /// Has the Python threads.
    overseer: Overseer,
    access_log: Option<LogWriter>,
}

/// The main thread's watch.
struct Watch {
    running: Running,
    asked: Arc<Asked>,
    crashes: Crashes,
    /// See [`answers`].
    answers: Option<ErrorLog>,
    /// `None` without a supervisor.
    seat: Option<Arc<Seat>>,
    /// Whether what belongs to no request is this process's.
    background: bool,
    /// When the heart beat last.
    beaten: Option<Instant>,
    /// Without a supervisor: who takes part in this process's life.
    hooks: Vec<Box<dyn Hook>>,
    /// With `--reload`.
    files: Option<Files>,
}

impl Watch {
    fn number(&self) -> usize {
        self.seat.as_ref().map_or(1, |seat| seat.number())
    }

    /// Serves until a signal asks for a stop, a reactor fails, or nothing is left to do before a successor takes over.
    fn serve(&mut self, py: Python<'_>, bell: &mut Bell) -> Result<(), String> {
        while self.asked.course() == Course::Serving {
            self.look_around(py);
            self.wait(py, bell, LOOK_AROUND);
            // Runs the handlers of signals that came; what the application's own handlers raise is theirs to see.
            if let Err(error) = py.check_signals() {
                tracing::error!("a signal handler raised {error}; stopping");
                return Ok(());
            }
            if self.asked.is_stuck() {
                return Err("every worker is stuck; leaving".into());
            }
            if self.asked.course() == Course::Serving && self.running.reactors.have_ended(Duration::ZERO)? {
                if self.seat.as_ref().is_some_and(|seat| seat.hands_over()) {
                    return Ok(());
                }
                return Err("all reactors have ended".into());
            }
        }
        Ok(())
    }

    /// Waits until somebody rings, one of the hooks has something to do, or the pool has; and sees to the pool.
    fn wait(&mut self, py: Python<'_>, bell: &mut Bell, timeout: Duration) {
        let Self { running, hooks, .. } = self;
        if hooks.is_empty() {
            return running.overseer.attend(py, |left| bell.wait(left.min(timeout)));
        }
        let of_hooks = hooks.iter().filter_map(|hook| hook.descriptor());
        let descriptors: Vec<_> = [bell.as_fd()].into_iter().chain(of_hooks).collect();
        running.overseer.attend(py, |left| {
            poll::readable(&descriptors, left.min(timeout));
        });
        bell.rings();
        for hook in hooks {
            // There is nobody to whom a reload could be handed over, and no hook that asks for one.
            hook.readable();
        }
    }

    fn reached(&mut self, milestone: Milestone) {
        self.hooks.iter_mut().for_each(|hook| hook.reached(milestone));
    }

    /// What the main thread does besides waiting, at least once a second.
    fn look_around(&mut self, py: Python<'_>) {
        self.beat();
        self.crashes.follow(py);
        if let Some(files) = &self.files {
            files.tell(py, None);
        }
        let gains = self.seat.as_ref().is_none_or(|seat| seat.has_background());
        if gains && !self.background {
            self.take_background(py);
        }
        self.answer(py);
    }

    /// Shows the supervisor that this process is well, and what it has done.
    fn beat(&mut self) {
        let Some(seat) = &self.seat else { return };
        if self.beaten.is_some_and(|at| at.elapsed() < BEAT) {
            return;
        }
        self.beaten = Some(Instant::now());
        if self.running.reactors.are_well() {
            seat.beat();
        }
        seat.board().set(seat.row(), Figure::Requests, self.running.pool.requests());
        seat.board().set(seat.row(), Figure::Resident, processes::resident_bytes());
    }

    /// SIGUSR1 and SIGUSR2.
    fn answer(&self, py: Python<'_>) {
        let by = inspection::Asked {
            number: self.number(),
            leaves: self.asked.course() != Course::Serving,
            error_log: self.answers.as_ref(),
        };
        let Running { shared, overseer, .. } = &self.running;
        if self.asked.wants_stacks() {
            inspection::stacks(py, &by, overseer);
        }
        // Asked first: asking takes the wish back.
        if let Some(shared) = self.asked.wants_figures().then(|| shared.upgrade()).flatten() {
            inspection::figures(py, &by, overseer, &shared, self.seat.as_deref());
        }
    }

    /// What belongs to no request is this process's from now on, until it drains.
    fn take_background(&mut self, py: Python<'_>) {
        self.background = true;
        if let Some(background) = Background::get() {
            background.start(py);
        }
    }

    /// The process drains: what belongs to no request may be another's, once it has ended here.
    fn let_background_go(&mut self, py: Python<'_>) {
        let seat = self.seat.clone();
        let ended = move || {
            if let Some(seat) = seat.filter(|seat| seat.has_background()) {
                seat.background_ended();
            }
        };
        match Background::get() {
            Some(background) => background.stop(py, Box::new(ended)),
            None => ended(),
        }
    }

    /// Stops: gracefully within `--graceful-timeout`, or quickly.
    fn stop(mut self, py: Python<'_>, config: &Config, bell: &mut Bell, bound: Vec<Listener>) -> End {
        self.reached(Milestone::Stopping);
        let quick = self.asked.course() == Course::Quick;
        let until = Instant::now() + if quick { Duration::ZERO } else { config.graceful_timeout };
        if self.seat.is_none() && !quick {
            tracing::info!("stopping: requests in flight have {} s to finish", config.graceful_timeout.as_secs_f64());
        }
        self.running.reactors.tell(|| Message::Drain);
        // The reactors have the same sockets and close theirs when everything queued there is accepted: from then on the kernel
        // refuses connections that nobody would answer.
        drop(bound);
        self.let_background_go(py);
        let mut ended = self.await_reactors(py, bell, until);
        if !ended {
            if self.asked.course() == Course::Quick {
                tracing::info!("a quick stop: requests in flight are cut off");
            } else {
                tracing::warn!("requests were still in flight after --graceful-timeout; their connections are closed");
            }
            self.running.reactors.tell(|| Message::Stop);
            ended = self.await_reactors(py, bell, Instant::now() + WORKERS_END);
        }
        self.running.pool.close();
        let joined = self.running.overseer.join(py, until.saturating_duration_since(Instant::now()).max(WORKERS_END));
        let until = until.max(Instant::now() + WORKERS_END);
        let idle = Background::get().is_none_or(|background| background.join(py, until));
        let access_log = self.running.access_log;
        py.detach(|| access_log.map(|log| log.shutdown(WORKERS_END)));
        if !(ended && joined) {
            tracing::warn!("some workers are still busy; leaving without them");
        } else if !idle {
            tracing::warn!("a cron job or timer still ran after --graceful-timeout; leaving without it");
        } else if self.seat.is_none() {
            tracing::info!("stopped");
        }
        End { code: 0, abandoned: !(ended && joined && idle), forked: false }
    }

    fn await_reactors(&mut self, py: Python<'_>, bell: &mut Bell, until: Instant) -> bool {
        let quick_at_first = self.asked.course() == Course::Quick;
        loop {
            match self.running.reactors.have_ended(Duration::ZERO) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(sentence) => tracing::error!("{sentence}"),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || (self.asked.course() == Course::Quick && !quick_at_first) {
                return false;
            }
            self.wait(py, bell, left.min(LOOK_AROUND));
            // Without a supervisor a second signal ends the process from within its handler.
            let _ = py.check_signals();
            self.answer(py);
        }
    }
}

/// Ends the process although Python threads still run: `atexit` first, then without waiting for anything.
pub(super) fn leave(py: Python<'_>, code: i32, error_log: &ErrorLog) {
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
