//! The supervisor: binds, forks, watches, restarts. It serves nothing, has no thread but its first, and never has a ring or the
//! application (unless `--preload` imports it once, before the first fork).
//!
//! **Workers are forked, not spawned.** The supervisor has one thread, no ring and no reactor when it forks, so a fork is as safe as
//! a new process, and cheaper: the interpreter is there already, the listening sockets are simply inherited under their numbers, and
//! with `--preload` the application's memory is shared between all workers. It forks through `os.fork`, so that what CPython and
//! libraries have registered around it (locks, random numbers, `os.register_at_fork`) is done. Without `--preload` a worker imports
//! the application itself: after SIGHUP it finds the code as it is then.
//!
//! **The listening sockets are never closed while it lives.** Each is bound and made to listen once; every worker of every
//! generation accepts from the same sockets, so that a connection waits in the kernel until *somebody* takes it, and there is no
//! moment in which it could be refused or reset: not in a reload, nor when a worker dies, nor when there are fewer workers.
//!
//! What is to be done is decided in [`super::slots`]; here it is done. Python is on the other side of [`Host`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::board::{Board, Figure};
use super::channel::{Channel, Reason, Received, SupervisorEnd, ToSupervisor, ToWorker};
use super::hooks::{Hook, Milestone};
use super::listeners::{self, Bound};
use super::seat::Seat;
use super::slots::{Action, Event, Figures, Level, Settings, Slots};
use crate::reactor::clock::{self, Instant};
use crate::reactor::processes;

/// How often heartbeats are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the supervisor needs of the interpreter it runs in.
pub trait Host {
    /// Signals that came since, in order. Runs their handlers.
    fn signals(&mut self) -> Vec<i32>;

    /// What becomes readable when a signal comes.
    fn bell(&self) -> BorrowedFd<'_>;

    /// Waits, without the interpreter.
    fn wait(&self, descriptors: &[BorrowedFd<'_>], timeout: Duration) -> Vec<bool>;

    /// Forks this process.
    ///
    /// # Errors
    /// A sentence.
    fn fork(&mut self) -> Result<Fork, String>;

    /// All first workers are ready: says so.
    fn announce(&mut self, bound: &[Bound]);
}

/// On which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// In the supervisor; the child's pid.
    Parent(u32),
    /// In the child.
    Child,
}

/// How [`run`] ends.
pub enum Outcome {
    /// In the supervisor, all workers having ended: with this exit code.
    Exit(i32),
    /// In a worker that was just forked, with its place and the sockets.
    Worker(Seat, Vec<Bound>),
}

/// A worker as the supervisor reaches it.
struct Line {
    channel: Option<SupervisorEnd>,
    row: usize,
}

/// The supervisor.
struct Supervisor<'a, H: Host> {
    host: &'a mut H,
    slots: Slots,
    bound: Vec<Bound>,
    board: Arc<Board>,
    lines: HashMap<u32, Line>,
    hooks: Vec<Box<dyn Hook>>,
    random: RandomState,
}

/// Supervises until every worker has ended after a stop, or never began. Returns in each worker as well.
pub fn run(
    host: &mut impl Host,
    settings: Settings,
    bound: Vec<Bound>,
    board: Arc<Board>,
    hooks: Vec<Box<dyn Hook>>,
) -> Outcome {
    let (slots, lines, random) = (Slots::new(settings), HashMap::new(), RandomState::new());
    let mut supervisor = Supervisor { host, slots, bound, board, lines, hooks, random };
    let mut looked = clock::now();
    supervisor.slots.handle(looked, Event::Begin);
    loop {
        if let Some(outcome) = supervisor.act() {
            return outcome;
        }
        let now = clock::now();
        let next = supervisor.slots.deadline().map_or(LOOK, |at| at.since(now)).min((looked + LOOK).since(now));
        supervisor.wait(next);
        let now = clock::now();
        supervisor.hear(now);
        if now.since(looked) >= LOOK {
            looked = now;
            supervisor.look(now);
        }
        supervisor.slots.handle(now, Event::Tick);
    }
}

impl<H: Host> Supervisor<'_, H> {
    /// Waits until there is news.
    fn wait(&mut self, timeout: Duration) {
        let hooks = self.hooks.iter().filter_map(|hook| hook.descriptor());
        let channels = self.lines.values().filter_map(|line| line.channel.as_ref()).map(AsFd::as_fd);
        let descriptors: Vec<BorrowedFd<'_>> = [self.host.bell()].into_iter().chain(channels).chain(hooks).collect();
        let readable = self.host.wait(&descriptors, timeout);
        let with_hooks = self.hooks.iter().filter(|hook| hook.descriptor().is_some()).count();
        let of_hooks = readable[readable.len() - with_hooks..].to_vec();
        let watching = self.hooks.iter_mut().filter(|hook| hook.descriptor().is_some());
        let mut reload = false;
        for (hook, readable) in watching.zip(of_hooks) {
            reload |= readable && hook.readable();
        }
        if reload {
            self.slots.handle(clock::now(), Event::Reload);
        }
    }

    /// Takes in signals, what workers say, and who has ended.
    fn hear(&mut self, now: Instant) {
        for signal in self.host.signals() {
            let event = match signal {
                libc::SIGTERM => Event::Stop,
                libc::SIGINT | libc::SIGQUIT => Event::StopQuickly,
                libc::SIGHUP => Event::Reload,
                libc::SIGTTIN => Event::More,
                libc::SIGTTOU => Event::Fewer,
                libc::SIGUSR1 | libc::SIGUSR2 => {
                    self.slots.asked().for_each(|pid| processes::signal(pid, signal));
                    continue;
                }
                // SIGCHLD and SIGWINCH: children are looked at anyway, and there is no window.
                _ => continue,
            };
            self.slots.handle(now, event);
        }
        let pids: Vec<u32> = self.lines.keys().copied().collect();
        pids.into_iter().for_each(|pid| self.hear_worker(now, pid));
        while let Some((pid, how)) = processes::reap() {
            // Its last words come before its end.
            self.hear_worker(now, pid);
            if let Some(line) = self.lines.remove(&pid) {
                self.board.clear(line.row);
                self.slots.handle(now, Event::Ended(pid, how));
            }
        }
    }

    fn hear_worker(&mut self, now: Instant, pid: u32) {
        while let Some(channel) = self.lines.get(&pid).and_then(|line| line.channel.as_ref()) {
            let event = match channel.receive() {
                Received::Message(ToSupervisor::Loaded) => Event::Loaded(pid),
                Received::Message(ToSupervisor::Ready) => Event::Ready(pid),
                Received::Message(ToSupervisor::Failed(reason)) => Event::Failed(pid, reason),
                Received::Message(ToSupervisor::Leaving) => Event::Leaving(pid),
                Received::Message(ToSupervisor::HandOver(why)) => Event::HandOver(pid, why),
                Received::Message(ToSupervisor::BackgroundEnded) => Event::BackgroundEnded(pid),
                Received::Nothing => return,
                Received::Closed => {
                    // It has ended, or is about to: waitpid tells.
                    self.lines.entry(pid).and_modify(|line| line.channel = None);
                    return;
                }
            };
            self.slots.handle(now, event);
        }
    }

    /// Looks at every worker's row, once a second.
    fn look(&mut self, now: Instant) {
        for (&pid, line) in &self.lines {
            let get = |figure| self.board.get(line.row, figure);
            let figures = Figures {
                heartbeat: get(Figure::Heartbeat),
                requests: get(Figure::Requests),
                resident: get(Figure::Resident),
            };
            self.slots.handle(now, Event::Seen(pid, figures));
        }
        self.reached(Milestone::Second);
    }

    fn reached(&mut self, milestone: Milestone) {
        self.hooks.iter_mut().for_each(|hook| hook.reached(milestone));
    }

    /// Does what is to be done.
    fn act(&mut self) -> Option<Outcome> {
        while let Some(action) = self.slots.next_action() {
            match action {
                Action::Fork { slot } => {
                    if let Some(seat) = self.fork(slot) {
                        return Some(Outcome::Worker(seat, std::mem::take(&mut self.bound)));
                    }
                }
                Action::Listen => {
                    if let Err(why) = listeners::listen(&self.bound) {
                        self.slots.handle(clock::now(), Event::ListenFailed(why));
                    }
                }
                Action::Unlisten => self.bound.clear(),
                Action::Go(pid) => self.tell(pid, ToWorker::Go),
                Action::Background(pid) => self.tell(pid, ToWorker::Background),
                Action::Signal(pid, signal) => {
                    // Once it is reaped its number may be somebody else's.
                    if self.lines.contains_key(&pid) {
                        processes::signal(pid, signal);
                    }
                }
                Action::Started => {
                    self.host.announce(&self.bound);
                    self.reached(Milestone::Ready);
                }
                Action::Reloading => self.reached(Milestone::Reloading),
                Action::TakenOver => self.reached(Milestone::TakenOver),
                Action::Reloaded => self.reached(Milestone::Ready),
                Action::Stopping => self.reached(Milestone::Stopping),
                Action::Say(level, sentence) => say(level, &sentence),
                Action::Exit(code, words) => {
                    match words {
                        Some(Reason { traceback, sentence }) => {
                            if !traceback.is_empty() {
                                tracing::error!("{}", traceback.trim_end());
                            }
                            tracing::error!("{sentence}");
                        }
                        None if code == 0 => tracing::info!("stopped"),
                        None => {}
                    }
                    return Some(Outcome::Exit(code));
                }
            }
        }
        None
    }

    fn tell(&self, pid: u32, message: ToWorker) {
        if let Some(channel) = self.lines.get(&pid).and_then(|line| line.channel.as_ref()) {
            channel.send(message);
        }
    }

    /// Starts a worker; its seat, in the worker.
    fn fork(&mut self, slot: usize) -> Option<Seat> {
        let event = match self.try_fork(slot) {
            Ok((Fork::Child, seat)) => {
                // What belongs to the supervisor alone: the channels of the others, and what it watches.
                self.lines.clear();
                self.hooks.clear();
                return Some(seat);
            }
            Ok((Fork::Parent(pid), _)) => Event::Forked { slot, pid, random: self.random.hash_one(pid) },
            Err(why) => Event::ForkFailed { slot, why },
        };
        self.slots.handle(clock::now(), event);
        None
    }

    fn try_fork(&mut self, slot: usize) -> Result<(Fork, Seat), String> {
        let row =
            self.board.free_row().ok_or("too many processes are still ending; it is tried again when they have")?;
        let (channel, workers_end) = Channel::pair().map_err(|error| {
            format!("no socket pair for a process ({error}); raise the limit on open files, `ulimit -n`")
        })?;
        let seat = Seat::new(slot, Arc::clone(&self.board), row, std::process::id(), workers_end);
        let side = self.host.fork()?;
        if let Fork::Parent(pid) = side {
            self.board.set(row, Figure::Pid, pid.into());
            self.board.set(row, Figure::Slot, slot as u64 + 1);
            self.lines.insert(pid, Line { channel: Some(channel), row });
        }
        Ok((side, seat))
    }
}

fn say(level: Level, sentence: &str) {
    let sentence = sentence.trim_end();
    match level {
        Level::Error => tracing::error!("{sentence}"),
        Level::Warning => tracing::warn!("{sentence}"),
        Level::Info => tracing::info!("{sentence}"),
    }
}
