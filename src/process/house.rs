//! Housekeeping, in the order in which it must be done: what systemd and the operator ask of a server around its work.
//!
//! As whoever starts it: umask, log files, sockets bound, pid file. Then the user is changed, for good. After that the
//! application, and hooks in the supervisor that tell systemd, answer the command of `--daemon`, and watch files.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::epoll;
use rustix::fs::Mode;

use super::alarm::Alarm;
use super::daemon::{self, Report};
use super::hooks::{Hook, Milestone};
use super::listeners::Bound;
use super::pidfile::PidFile;
use super::privileges::{self, Identity, Machine};
use super::systemd::{self, Notifier};
use super::watch::Watch;
use crate::config::{Config, LogTarget};
use crate::reactor::processes;

/// What has been done so far.
#[derive(Debug)]
pub struct House {
    identity: Option<Identity>,
    notifier: Notifier,
    pid_file: Option<PidFile>,
    watch: Option<Watch>,
    /// What workers report their files to.
    reporter: Option<OwnedFd>,
    report: Option<Report>,
}

/// A look-up in the environment in which `--daemon` changes nothing: variables that named the process that was started name this one.
pub fn variable(name: &str, started_as: u32) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    let names_it = value.to_str().is_some_and(|value| value.trim() == started_as.to_string());
    let moved = ["LISTEN_PID", "WATCHDOG_PID"].contains(&name) && names_it;
    Some(if moved { std::process::id().to_string().into() } else { value })
}

impl House {
    /// The first part, before logs are opened and addresses bound. `started_as` is the pid that systemd knows; `report` is the
    /// way to the command of `--daemon`. With it come sentences for the error log.
    ///
    /// # Errors
    /// One sentence that names the flag and the remedy.
    pub fn begin(config: &Config, started_as: u32, report: Option<Report>) -> Result<(Self, Vec<String>), String> {
        if let Some(mask) = config.umask {
            rustix::process::umask(Mode::from_raw_mode(mask));
        }
        let current = privileges::current();
        let identity = privileges::resolve(config.user.as_deref(), config.group.as_deref(), current, &Machine)?;
        if let Some(identity) = identity.as_ref().filter(|identity| (identity.uid, identity.gid) != current) {
            for (flag, path) in log_files(config) {
                privileges::own_log_file(flag, path, identity)?;
            }
        }
        let (notifier, warning) = Notifier::from_environment(|name| variable(name, started_as), Instant::now());
        let watch = if config.reload { Some(Watch::new(&config.reload_extra)?) } else { None };
        let reporter = watch.as_ref().map(|watch| watch.reporter().try_clone_to_owned()).transpose();
        let reporter =
            reporter.map_err(|error| format!("--reload: out of descriptors ({error}); raise `ulimit -n`"))?;
        let silent = config.daemon && !config.check && config.error_log == LogTarget::Standard;
        let silent = silent.then(|| {
            "--daemon: without a file for --error-log, what the server has to say goes nowhere once it is ready"
                .to_owned()
        });
        let house = Self { identity, notifier, pid_file: None, watch, reporter, report };
        Ok((house, warning.into_iter().chain(silent).collect()))
    }

    /// The second part, when the addresses are bound: writes the pid file and becomes the user. With `--check` nothing is
    /// written, but the user is changed all the same: so it is seen whether that works, and whether the application can be
    /// loaded afterwards.
    ///
    /// # Errors
    /// One sentence; the process must end.
    pub fn settle(&mut self, config: &Config, bound: &[Bound]) -> Result<(), String> {
        match &config.pid {
            Some(path) if config.check => PidFile::check(path)?,
            Some(path) => self.pid_file = Some(PidFile::create(path)?),
            None => {}
        }
        let Some(identity) = &self.identity else { return Ok(()) };
        if (identity.uid, identity.gid) != privileges::current() {
            bound.iter().try_for_each(|bound| bound.give(identity.uid, identity.gid))?;
        }
        privileges::become_for_good(identity)?;
        log_files(config).try_for_each(|(flag, path)| privileges::check_log_file(flag, path))
    }

    /// For `--check`, when all of the above has worked: a line for each thing that was tried.
    pub fn describe(&self, config: &Config) -> String {
        let mut lines = String::new();
        if let Some(identity) = &self.identity {
            lines.push_str(&format!("{}: can be changed to\n", identity.describe()));
        }
        if let Some(path) = &config.pid {
            lines.push_str(&format!("pid file {}: can be written\n", path.display()));
        }
        if self.notifier.is_on() {
            lines.push_str("systemd: is told\n");
        }
        if self.watch.is_some() {
            lines.push_str("files: can be watched\n");
        }
        lines
    }

    /// What the application's environment gets, in order, and what is taken out of it.
    pub fn environment(&self, config: &Config) -> (Vec<(OsString, OsString)>, Vec<&'static str>) {
        let of_user = self.identity.as_ref().map(Identity::variables).unwrap_or_default();
        let of_user = of_user.into_iter().map(|(name, value)| (OsString::from(name), value));
        (of_user.chain(config.env.iter().cloned()).collect(), systemd::VARIABLES.to_vec())
    }

    /// What workers report the files of their modules to, with `--reload`. It is kept beside the hooks, which workers drop.
    pub fn reporter(&mut self) -> Option<OwnedFd> {
        self.reporter.take()
    }

    /// What takes part in the supervisor's life. `status` is said to systemd when the server is ready. The pid file goes when
    /// they go.
    ///
    /// # Errors
    /// One sentence: the process is out of descriptors.
    pub fn hooks(&mut self, config: &Config, status: String) -> Result<Vec<Box<dyn Hook>>, String> {
        let fault = |error: io::Error| format!("out of descriptors ({error}); raise `ulimit -n`");
        let mut hooks: Vec<Box<dyn Hook>> = Vec::new();
        if let Some(watch) = self.watch.take() {
            hooks.push(Box::new(Reloader::new(watch).map_err(fault)?));
        }
        let alarm = Alarm::new().map_err(fault)?;
        let notifier = std::mem::take(&mut self.notifier);
        let (pid_file, report) = (self.pid_file.take(), self.report.take());
        let mut keeper = Keeper { notifier, status, alarm, report, daemon: config.daemon, _pid_file: pid_file };
        keeper.arm();
        hooks.push(Box::new(keeper));
        Ok(hooks)
    }
}

fn log_files(config: &Config) -> impl Iterator<Item = (&'static str, &Path)> {
    [("--access-log", &config.access_log), ("--error-log", &config.error_log)].into_iter().filter_map(
        |(flag, target)| match target {
            LogTarget::File(path) => Some((flag, path.as_path())),
            LogTarget::Off | LogTarget::Standard => None,
        },
    )
}

/// Tells systemd and the command of `--daemon`, and keeps the pid file.
#[derive(Debug)]
pub struct Keeper {
    notifier: Notifier,
    status: String,
    alarm: Alarm,
    report: Option<Report>,
    daemon: bool,
    _pid_file: Option<PidFile>,
}

impl Keeper {
    fn arm(&mut self) {
        self.alarm.set(self.notifier.deadline(), Instant::now());
    }
}

impl Hook for Keeper {
    fn reached(&mut self, milestone: Milestone) {
        match milestone {
            Milestone::Ready => {
                self.notifier.ready(&self.status);
                let answered = self.report.take().map_or(Ok(()), Report::ready);
                let detached = if std::mem::take(&mut self.daemon) { daemon::detach_output() } else { Ok(()) };
                if let Err(sentence) = answered.and(detached.map_err(|error| format!("--daemon: /dev/null: {error}"))) {
                    tracing::error!("{sentence}");
                    processes::signal(std::process::id(), libc::SIGTERM);
                }
            }
            Milestone::Reloading => self.notifier.reloading(),
            Milestone::Stopping => self.notifier.stopping(),
            Milestone::Second | Milestone::TakenOver => {}
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.notifier.deadline().map(|_| self.alarm.as_fd())
    }

    fn readable(&mut self) -> bool {
        self.notifier.alive(Instant::now());
        self.arm();
        false
    }
}

/// Asks for a reload when files have changed.
#[derive(Debug)]
pub struct Reloader {
    watch: Watch,
    alarm: Alarm,
    /// Readable when the watch or the alarm is.
    any: OwnedFd,
}

impl Reloader {
    /// Around what is watched already.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new(watch: Watch) -> io::Result<Self> {
        let (alarm, any) = (Alarm::new()?, epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let [events, reports] = watch.descriptors();
        for descriptor in [events, reports, alarm.as_fd()] {
            epoll::add(&any, descriptor, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(Self { watch, alarm, any })
    }
}

impl Hook for Reloader {
    fn reached(&mut self, milestone: Milestone) {
        if milestone == Milestone::Reloading {
            self.watch.generation();
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.any.as_fd())
    }

    fn readable(&mut self) -> bool {
        let now = Instant::now();
        let told = self.watch.turn(now);
        self.alarm.set(self.watch.deadline(), now);
        if let Some(sentence) = &told {
            tracing::info!("{sentence}");
        }
        told.is_some()
    }
}
