//! Which worker processes there are to be: the supervisor's thinking. Pure: what happened and `now` in, what is to be done out; it
//! forks nothing, signals nothing and reads no clock.
//!
//! A *slot* is a place for one worker, numbered from 1 in logs. There are as many as `--processes`, plus and minus what SIGTTIN
//! and SIGTTOU ask for. A slot whose worker died is filled again after a delay that doubles from death to death. A worker is
//! only ever *replaced*: its successor in the same slot must be ready before it is told to leave.
//!
//! - A **reload** replaces all at once: when every successor is ready the old workers leave; when one of them fails, all successors
//!   go and the old workers stay.
//! - **Recycling** (a worker has served its requests, its time, or has grown too large, or asks for it because it is stuck) replaces
//!   one at a time.

use std::collections::VecDeque;
use std::time::Duration;

use super::channel::Reason;
use crate::limits;
use crate::reactor::clock::Instant;
use crate::reactor::processes::Ended;

/// Signals that come within this time of the first are one with it: `timeout`, and a terminal, send one to the process and another
/// to its group.
const SIGNALS_TOGETHER: Duration = Duration::from_millis(100);
/// What a worker takes for a quick stop. SIGINT isn't: a terminal's Ctrl-C sends that to the workers as well.
const QUICKLY: i32 = libc::SIGQUIT;
/// Processes in a row that reach `--max-rss` soon after their start before it is said that it is too low.
const HEAVY_MAX: u32 = 3;
/// Exit code when the first workers can't begin, and after a second signal.
const EXIT_FAILURE: i32 = 1;

/// What was configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Slots to begin with, at least 1.
    pub processes: usize,
    /// `--graceful-timeout`.
    pub graceful: Duration,
    /// `--start-timeout`.
    pub start: Duration,
    /// `--max-requests`; 0: no limit.
    pub max_requests: u64,
    /// `--max-requests-jitter`.
    pub max_requests_jitter: u64,
    /// `--max-worker-lifetime`; zero: no limit.
    pub max_lifetime: Duration,
    /// `--max-rss` in bytes; 0: no limit.
    pub max_resident: u64,
}

/// Why a worker is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its slot is empty.
    Fill,
    /// A reload.
    Reload,
    /// To take the place of this one.
    Replace(u32),
}

/// What a worker last showed of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Changes as long as it is well.
    pub heartbeat: u64,
    /// Requests it has served.
    pub requests: u64,
    /// Bytes of memory.
    pub resident: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server starts.
    Begin,
    /// [`Action::Fork`] was done. `random`: any number.
    Forked {
        /// The slot.
        slot: usize,
        /// The worker.
        pid: u32,
        /// Chooses this worker's jitter.
        random: u64,
    },
    /// [`Action::Fork`] could not be done.
    ForkFailed {
        /// The slot.
        slot: usize,
        /// A sentence.
        why: String,
    },
    /// [`Action::Listen`] could not be done.
    ListenFailed(String),
    /// The worker has loaded the application.
    Loaded(u32),
    /// The worker accepts connections.
    Ready(u32),
    /// The worker can't begin.
    Failed(u32, Reason),
    /// The worker drains, because somebody else told it to.
    Leaving(u32),
    /// The worker wants to be replaced.
    HandOver(u32, String),
    /// The worker's background thread has ended.
    BackgroundEnded(u32),
    /// The worker's process has ended.
    Ended(u32, Ended),
    /// Once a second, for each worker.
    Seen(u32, Figures),
    /// Replace all workers.
    Reload,
    /// One slot more.
    More,
    /// One slot less.
    Fewer,
    /// Stop; requests in flight are finished.
    Stop,
    /// Stop; nothing is waited for.
    StopQuickly,
    /// Time has passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker; [`Event::Forked`] or [`Event::ForkFailed`] answers.
    Fork {
        /// Its slot, from 0.
        slot: usize,
    },
    /// Let the sockets listen.
    Listen,
    /// Close the listening sockets.
    Unlisten,
    /// Tell a worker that the sockets listen.
    Go(u32),
    /// Tell a worker that the background is its own.
    Background(u32),
    /// Send a signal.
    Signal(u32, i32),
    /// All first workers are ready.
    Started,
    /// A reload has begun.
    Reloading,
    /// A reload has succeeded: its workers take over.
    TakenOver,
    /// A reload has ended, well or not.
    Reloaded,
    /// The server is stopping.
    Stopping,
    /// A line for the error log.
    Say(Level, String),
    /// Every worker has ended: so does the supervisor, after these last words.
    Exit(i32, Option<Reason>),
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `error`.
    Error,
    /// `warning`.
    Warning,
    /// `info`.
    Info,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Loads the application, or waits for the others to have it loaded.
    Starting { loaded: bool },
    /// Serves since then.
    Ready { since: Instant },
    /// Was told to end, or hangs; killed then.
    Leaving { kill_at: Instant },
    /// SIGKILL is on its way.
    Killed,
}

#[derive(Debug)]
struct Worker {
    pid: u32,
    slot: usize,
    generation: u64,
    purpose: Purpose,
    began: Instant,
    state: State,
    heartbeat: u64,
    missed: u32,
    /// Requests after which it is replaced; 0: never.
    requests_max: u64,
    /// Whether it is to be replaced already.
    due: bool,
    /// It wasn't ready in time, was asked for its stacks, and is killed then.
    late: Option<Instant>,
    /// Why it has asked for a successor, if it has.
    plight: Option<String>,
}

impl Worker {
    /// Whether it serves or will.
    fn stays(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Ready { .. })
    }

    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }
}

#[derive(Debug)]
struct Slot {
    /// Deaths in a row.
    failures: u32,
    /// Not before this.
    due: Instant,
    /// A fork that wasn't answered yet.
    forking: Option<Purpose>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The first workers begin.
    Starting,
    Serving,
    /// Told to stop, then.
    Stopping(Instant),
    /// Killing what there is.
    Failing(i32, Option<Reason>),
}

/// All of it.
#[derive(Debug)]
pub struct Slots {
    settings: Settings,
    phase: Phase,
    slots: Vec<Slot>,
    workers: Vec<Worker>,
    actions: VecDeque<Action>,
    /// Counts reloads. Workers of an older one leave when a reload succeeds.
    generation: u64,
    /// The slots whose successors aren't ready yet.
    reload: Option<Vec<usize>>,
    reload_wanted: bool,
    /// Who is to be replaced, and why.
    replace: VecDeque<(u32, String)>,
    /// The replacement that is under way: the old worker.
    replacing: Option<u32>,
    /// Not before this.
    replace_due: Instant,
    replace_failures: u32,
    /// Processes in a row that have reached `--max-rss` while they were young.
    heavy: u32,
    /// Until then none is replaced for its memory.
    heavy_until: Instant,
    /// Who has the background.
    background: Option<u32>,
}

impl Slots {
    /// Nobody is there yet: [`Event::Begin`] starts it.
    pub fn new(settings: Settings) -> Self {
        Self {
            phase: Phase::Starting,
            slots: Vec::new(),
            workers: Vec::new(),
            actions: VecDeque::new(),
            generation: 0,
            reload: None,
            reload_wanted: false,
            replace: VecDeque::new(),
            replacing: None,
            replace_due: Instant::default(),
            replace_failures: 0,
            heavy: 0,
            heavy_until: Instant::default(),
            background: None,
            settings,
        }
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The workers that accept connections.
    pub fn ready(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().filter(|worker| worker.is_ready()).map(|worker| worker.pid)
    }

    /// The workers that are asked for their stacks and figures: also those that drain or aren't ready yet. Of one that doesn't end or
    /// doesn't begin the stacks are wanted most.
    pub fn asked(&self) -> impl Iterator<Item = u32> {
        let asked = |worker: &&Worker| !matches!(worker.state, State::Killed);
        self.workers.iter().filter(asked).map(|worker| worker.pid)
    }

    /// When [`Event::Tick`] has something to do, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        let workers = self.workers.iter().filter_map(|worker| match worker.state {
            State::Starting { .. } => Some(worker.late.unwrap_or(worker.began + self.settings.start)),
            State::Leaving { kill_at } => Some(kill_at),
            State::Ready { .. } | State::Killed => None,
        });
        let serving = self.phase == Phase::Serving;
        let empty =
            (0..self.slots.len()).filter(|&slot| serving && !self.is_taken(slot)).map(|slot| self.slots[slot].due);
        let replace = (serving && !self.replace.is_empty() && self.can_replace()).then_some(self.replace_due);
        workers.chain(empty).chain(replace).min()
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Begin => {
                let slot = |_| Slot { failures: 0, due: now, forking: None };
                self.slots = (0..self.settings.processes.max(1)).map(slot).collect();
            }
            Event::Forked { slot, pid, random } => self.forked(now, slot, pid, random),
            Event::ForkFailed { slot, why } => self.fork_failed(now, slot, why),
            Event::ListenFailed(why) => self.give_up(EXIT_FAILURE, Some(why.into())),
            Event::Loaded(pid) => self.loaded(pid),
            Event::Ready(pid) => self.became_ready(now, pid),
            Event::Failed(pid, reason) => self.could_not_begin(now, pid, reason),
            Event::Leaving(pid) => self.leaves_by_itself(now, pid),
            Event::HandOver(pid, why) => self.wants_successor(pid, why),
            Event::BackgroundEnded(pid) => self.background_is_free(pid),
            Event::Ended(pid, how) => self.ended(now, pid, how),
            Event::Seen(pid, figures) => self.seen(now, pid, figures),
            Event::Reload => self.reload_wanted = !self.is_stopping(),
            Event::More => self.more(now),
            Event::Fewer => self.fewer(now),
            Event::Stop => self.stop(now, libc::SIGTERM),
            Event::StopQuickly => self.stop(now, QUICKLY),
            Event::Tick => {}
        }
        self.look(now);
    }

    // --- Workers begin -------------------------------------------------------------------------------

    fn fork(&mut self, slot: usize, purpose: Purpose) {
        self.slots[slot].forking = Some(purpose);
        self.actions.push_back(Action::Fork { slot });
    }

    fn forked(&mut self, now: Instant, slot: usize, pid: u32, random: u64) {
        let purpose = self.slots.get_mut(slot).and_then(|slot| slot.forking.take());
        let jitter = random % self.settings.max_requests_jitter.saturating_add(1);
        let requests_max = match self.settings.max_requests {
            0 => 0,
            requests => requests.saturating_add(jitter),
        };
        self.workers.push(Worker {
            pid,
            slot,
            generation: self.generation,
            purpose: purpose.unwrap_or(Purpose::Fill),
            began: now,
            state: State::Starting { loaded: false },
            heartbeat: 0,
            missed: 0,
            requests_max,
            due: false,
            late: None,
            plight: None,
        });
        // A slot may have been given up, or the server told to stop, since the fork was asked for.
        if purpose.is_none() || self.is_stopping() {
            self.kill(pid);
        }
    }

    fn fork_failed(&mut self, now: Instant, slot: usize, why: String) {
        let Some(purpose) = self.slots.get_mut(slot).and_then(|slot| slot.forking.take()) else { return };
        self.not_begun(now, slot, purpose, Reason::from(why));
    }

    fn loaded(&mut self, pid: u32) {
        let Some(worker) = self.worker(pid) else { return };
        let State::Starting { loaded } = &mut worker.state else { return };
        *loaded = true;
        if self.phase != Phase::Starting {
            self.actions.push_back(Action::Go(pid));
            return;
        }
        // The port is opened when nothing can go wrong any more.
        let all_loaded = self.workers.iter().all(|worker| worker.state == State::Starting { loaded: true });
        if all_loaded && self.workers.len() == self.slots.len() {
            self.actions.push_back(Action::Listen);
            self.actions.extend(self.workers.iter().map(|worker| Action::Go(worker.pid)));
        }
    }

    fn became_ready(&mut self, now: Instant, pid: u32) {
        let Some(worker) = self.worker(pid) else { return };
        if !matches!(worker.state, State::Starting { .. }) {
            return;
        }
        worker.state = State::Ready { since: now };
        let (slot, purpose) = (worker.slot, worker.purpose);
        if self.phase == Phase::Starting {
            if self.workers.len() == self.slots.len() && self.workers.iter().all(Worker::is_ready) {
                self.phase = Phase::Serving;
                self.actions.push_back(Action::Started);
            }
            return;
        }
        match purpose {
            Purpose::Fill => self.say(Level::Info, format!("process {} serves, pid {pid}", slot + 1)),
            Purpose::Reload => {
                if let Some(waiting) = &mut self.reload {
                    waiting.retain(|&other| other != slot);
                }
            }
            Purpose::Replace(old) => {
                self.say(Level::Info, format!("process {} serves in a new process, pid {pid}", slot + 1));
                (self.replacing, self.replace_failures) = (None, 0);
                self.tell_to_leave(now, old);
            }
        }
    }

    fn could_not_begin(&mut self, now: Instant, pid: u32, reason: Reason) {
        let leave = now + Duration::from_millis(limits::LEAVE_MS);
        let Some(worker) = self.worker(pid).filter(|worker| matches!(worker.state, State::Starting { .. })) else {
            return;
        };
        // It ends by itself.
        worker.state = State::Leaving { kill_at: leave };
        let (slot, purpose) = (worker.slot, worker.purpose);
        self.not_begun(now, slot, purpose, reason);
    }

    /// A worker that was meant for this could not begin.
    fn not_begun(&mut self, now: Instant, slot: usize, purpose: Purpose, reason: Reason) {
        let purpose = match purpose {
            // Nobody is left whose place it was to take.
            Purpose::Replace(old) if !self.ready().any(|pid| pid == old) => {
                self.replacing = self.replacing.filter(|&pid| pid != old);
                Purpose::Fill
            }
            purpose => purpose,
        };
        match (&self.phase, purpose) {
            (Phase::Starting, _) => self.give_up(EXIT_FAILURE, Some(reason)),
            (Phase::Stopping(_) | Phase::Failing(..), _) => {}
            (Phase::Serving, Purpose::Reload) => self.reload_failed(now, reason),
            // SIGTTOU has taken it away.
            (Phase::Serving, Purpose::Fill) if slot >= self.slots.len() => {}
            (Phase::Serving, Purpose::Fill) => {
                self.say_traceback(&reason);
                let delay = self.failed(now, slot);
                let sentence = &reason.sentence;
                self.say(
                    Level::Error,
                    format!("process {} can't begin: {sentence}; trying again in {delay}", slot + 1),
                );
            }
            (Phase::Serving, Purpose::Replace(old)) => {
                self.say_traceback(&reason);
                self.replacing = None;
                self.replace_failures = self.replace_failures.saturating_add(1);
                let delay = delay_after(self.replace_failures);
                self.replace_due = now + delay;
                self.replace.push_front((old, "its successor could not begin".to_owned()));
                let (sentence, delay) = (&reason.sentence, in_seconds(delay));
                self.say(
                    Level::Error,
                    format!(
                        "the successor of process {} can't begin: {sentence}; the old one goes on, trying again in {delay}",
                        slot + 1
                    ),
                );
            }
        }
    }

    // --- Workers end ---------------------------------------------------------------------------------

    fn ended(&mut self, now: Instant, pid: u32, how: Ended) {
        let Some(index) = self.workers.iter().position(|worker| worker.pid == pid) else { return };
        let worker = self.workers.remove(index);
        self.background_is_free(pid);
        match worker.state {
            State::Starting { .. } => {
                let sentence = match worker.late {
                    Some(_) => self.not_ready(worker.slot, pid),
                    None => format!("process {}, pid {pid}, {how} before it was ready", worker.slot + 1),
                };
                self.not_begun(now, worker.slot, worker.purpose, sentence.into());
            }
            State::Ready { .. } if self.phase == Phase::Starting => {
                let sentence = format!("process {}, pid {pid}, {how} while the others were starting", worker.slot + 1);
                self.give_up(EXIT_FAILURE, Some(sentence.into()));
            }
            State::Ready { since } if !self.is_stopping() => {
                self.died(now, &worker, since, &format!("{how}"));
            }
            State::Ready { .. } | State::Leaving { .. } | State::Killed => {}
        }
    }

    /// A worker that served is gone, or as good as gone.
    fn died(&mut self, now: Instant, worker: &Worker, since: Instant, how: &str) {
        let who = format!("process {}, pid {}, {how}", worker.slot + 1, worker.pid);
        if self.reload.is_some() && worker.purpose == Purpose::Reload && worker.generation == self.generation {
            self.reload_failed(now, Reason::from(who));
            return;
        }
        if worker.slot >= self.slots.len() {
            return;
        }
        if now.since(since) >= Duration::from_secs(limits::STABLE_S) {
            self.slots[worker.slot].failures = 0;
        }
        let delay = self.failed(now, worker.slot);
        let remedy = if self.is_taken(worker.slot) {
            "its successor is there already".to_owned()
        } else {
            format!("a new one starts in {delay}")
        };
        self.say(Level::Error, format!("{who}; {remedy}"));
    }

    /// Counts a death; how long the slot stays empty, in words.
    fn failed(&mut self, now: Instant, slot: usize) -> String {
        let slot = &mut self.slots[slot];
        slot.failures = slot.failures.saturating_add(1);
        let delay = delay_after(slot.failures);
        slot.due = now + delay;
        in_seconds(delay)
    }

    fn tell_to_leave(&mut self, now: Instant, pid: u32) {
        let kill_at = now + self.settings.graceful + Duration::from_millis(limits::LEAVE_MS);
        let Some(worker) = self.worker(pid) else { return };
        match worker.state {
            State::Ready { .. } => {
                worker.state = State::Leaving { kill_at };
                self.actions.push_back(Action::Signal(pid, libc::SIGTERM));
            }
            // It has accepted nothing.
            State::Starting { .. } => self.kill(pid),
            State::Leaving { .. } | State::Killed => {}
        }
    }

    fn leaves_by_itself(&mut self, now: Instant, pid: u32) {
        let kill_at = now + self.settings.graceful + Duration::from_millis(limits::LEAVE_MS);
        let Some(worker) = self.worker(pid).filter(|worker| worker.is_ready()) else { return };
        worker.state = State::Leaving { kill_at };
        let slot = worker.slot;
        let words = match worker.plight {
            Some(_) => "has nothing left to do and leaves before its successor serves",
            None => "was told to stop; a new one starts",
        };
        if !self.is_stopping() {
            self.say(Level::Info, format!("process {}, pid {pid}, {words}", slot + 1));
        }
    }

    fn kill(&mut self, pid: u32) {
        let Some(worker) = self.worker(pid).filter(|worker| worker.state != State::Killed) else { return };
        worker.state = State::Killed;
        self.actions.push_back(Action::Signal(pid, libc::SIGKILL));
    }

    // --- Heartbeat and recycling ---------------------------------------------------------------------

    fn seen(&mut self, now: Instant, pid: u32, figures: Figures) {
        let (lifetime, resident_max) = (self.settings.max_lifetime, self.settings.max_resident);
        let is_heavy = resident_max > 0 && figures.resident > resident_max;
        let spared = is_heavy && now < self.heavy_until;
        let Some(worker) = self.worker(pid) else { return };
        let State::Ready { since } = worker.state else { return };
        if worker.heartbeat == figures.heartbeat {
            worker.missed += 1;
        } else {
            (worker.heartbeat, worker.missed) = (figures.heartbeat, 0);
        }
        if worker.missed >= limits::HEARTBEATS_MISSED_MAX {
            return self.hangs(now, pid, since);
        }
        let age = now.since(worker.began);
        let why = if worker.due {
            return;
        } else if worker.requests_max > 0 && figures.requests >= worker.requests_max {
            format!("it has served {} requests (--max-requests)", figures.requests)
        } else if !lifetime.is_zero() && age >= lifetime {
            format!("it has lived {} s (--max-worker-lifetime)", age.as_secs())
        } else if is_heavy && !spared {
            format!("it has {} MiB of memory (--max-rss)", figures.resident >> 20)
        } else {
            return;
        };
        worker.due = true;
        self.replace.push_back((pid, why));
        if is_heavy {
            self.was_heavy(now, now.since(since), resident_max);
        }
    }

    /// A process is replaced for its memory. If that comes soon after its start, again and again, the application needs more than it
    /// may have, and the machine would do nothing but load it.
    fn was_heavy(&mut self, now: Instant, served: Duration, resident_max: u64) {
        if served >= Duration::from_secs(limits::STABLE_S) {
            self.heavy = 0;
            return;
        }
        self.heavy = self.heavy.saturating_add(1);
        self.heavy_until = now + delay_after(self.heavy);
        if self.heavy == HEAVY_MAX {
            let most = resident_max >> 20;
            self.say(
                Level::Warning,
                format!(
                    "processes reach --max-rss ({most} MiB) soon after their start, again and again: raise it. They are replaced more \
                     and more slowly"
                ),
            );
        }
    }

    fn hangs(&mut self, now: Instant, pid: u32, since: Instant) {
        let Some(index) = self.workers.iter().position(|worker| worker.pid == pid) else { return };
        let mut worker = self.workers.remove(index);
        worker.state = State::Leaving { kill_at: now + Duration::from_millis(limits::ABORT_MS) };
        // It writes its stacks, if it still can.
        self.actions.push_back(Action::Signal(pid, libc::SIGABRT));
        let how = format!("hangs: no heartbeat for {} s; it is killed", limits::HEARTBEATS_MISSED_MAX);
        if !self.is_stopping() {
            self.died(now, &worker, since, &how);
        }
        self.workers.push(worker);
    }

    fn wants_successor(&mut self, pid: u32, why: String) {
        let Some(worker) = self.worker(pid).filter(|worker| worker.is_ready()) else { return };
        // Whoever has to be replaced for its age waits behind whoever can't serve.
        worker.due = true;
        worker.plight = Some(why.clone());
        self.replace.retain(|(other, _)| *other != pid);
        if self.replacing != Some(pid) {
            self.replace.push_front((pid, why));
        }
    }

    fn can_replace(&self) -> bool {
        self.phase == Phase::Serving && self.reload.is_none() && self.replacing.is_none()
    }

    fn replace_next(&mut self, now: Instant) {
        while self.can_replace() && now >= self.replace_due {
            let Some((pid, why)) = self.replace.pop_front() else { return };
            let Some(worker) = self.worker(pid).filter(|worker| worker.is_ready()) else { continue };
            let slot = worker.slot;
            // If it isn't replaced now, it is looked at again.
            worker.due = false;
            // SIGTTOU has taken the slot away, or somebody else is there already.
            let others = self.workers.iter().any(|other| other.slot == slot && other.pid != pid && other.stays());
            if slot >= self.slots.len() || others || self.slots[slot].forking.is_some() {
                continue;
            }
            self.say(Level::Info, format!("process {}, pid {pid}, is replaced: {why}", slot + 1));
            self.replacing = Some(pid);
            self.workers.iter_mut().filter(|worker| worker.pid == pid).for_each(|worker| worker.due = true);
            self.fork(slot, Purpose::Replace(pid));
        }
    }

    // --- Reload --------------------------------------------------------------------------------------

    fn start_reload(&mut self) {
        let leaving = self.workers.iter().filter(|worker| !worker.stays()).count();
        let busy = self.reload.is_some() || self.replacing.is_some() || leaving > self.slots.len();
        let forking = self.slots.iter().any(|slot| slot.forking.is_some());
        if !self.reload_wanted || self.phase != Phase::Serving || busy || forking {
            return;
        }
        self.reload_wanted = false;
        self.generation += 1;
        // All are replaced now.
        self.replace.clear();
        self.workers.iter_mut().for_each(|worker| worker.due = false);
        self.actions.push_back(Action::Reloading);
        self.say(Level::Info, format!("reloading: starting {} new process(es)", self.slots.len()));
        // What was still starting in an empty slot starts anew.
        let starting: Vec<u32> = self.workers.iter().filter(|w| w.stays() && !w.is_ready()).map(|w| w.pid).collect();
        starting.into_iter().for_each(|pid| self.kill(pid));
        self.reload = Some((0..self.slots.len()).collect());
        for slot in 0..self.slots.len() {
            self.fork(slot, Purpose::Reload);
        }
    }

    fn finish_reload(&mut self, now: Instant) {
        if self.reload.as_ref().is_none_or(|waiting| !waiting.is_empty()) {
            return;
        }
        self.reload = None;
        self.actions.push_back(Action::TakenOver);
        let generation = self.generation;
        let old: Vec<u32> =
            self.workers.iter().filter(|w| w.stays() && w.generation < generation).map(|w| w.pid).collect();
        old.iter().for_each(|&pid| self.tell_to_leave(now, pid));
        self.slots.iter_mut().for_each(|slot| slot.failures = 0);
        self.say(
            Level::Info,
            format!(
                "reloaded: {} new process(es) serve; {} old one(s) finish their requests",
                self.slots.len(),
                old.len()
            ),
        );
        self.actions.push_back(Action::Reloaded);
    }

    fn reload_failed(&mut self, now: Instant, reason: Reason) {
        if self.reload.take().is_none() {
            return;
        }
        let generation = self.generation;
        let (new, old): (Vec<&Worker>, Vec<&Worker>) =
            self.workers.iter().filter(|worker| worker.stays()).partition(|worker| worker.generation == generation);
        // Where the old one has died meanwhile the new one is all there is, and the code it has is what another would load as well.
        let (leave, keep): (Vec<&Worker>, Vec<&Worker>) =
            new.into_iter().partition(|new| old.iter().any(|old| old.slot == new.slot));
        let pids = |workers: Vec<&Worker>| workers.into_iter().map(|worker| worker.pid).collect::<Vec<u32>>();
        let (leave, keep) = (pids(leave), pids(keep));
        leave.into_iter().for_each(|pid| self.tell_to_leave(now, pid));
        self.workers.iter_mut().filter(|w| keep.contains(&w.pid)).for_each(|worker| worker.purpose = Purpose::Fill);
        // Whoever can't serve would have been replaced.
        let still = self.workers.iter().filter(|worker| worker.is_ready());
        let plights: Vec<(u32, String)> = still.filter_map(|w| Some((w.pid, w.plight.clone()?))).collect();
        plights.into_iter().for_each(|(pid, why)| self.wants_successor(pid, why));
        // Forks that weren't answered yet: whoever they start is killed.
        self.slots.iter_mut().filter(|slot| slot.forking == Some(Purpose::Reload)).for_each(|slot| slot.forking = None);
        self.say_traceback(&reason);
        self.say(
            Level::Error,
            format!(
                "reload failed: {}; the processes that were there go on serving",
                reason.sentence.trim_end_matches('.')
            ),
        );
        self.actions.push_back(Action::Reloaded);
    }

    // --- More, fewer, none ---------------------------------------------------------------------------

    fn more(&mut self, now: Instant) {
        if self.phase != Phase::Serving {
            return;
        }
        let count = self.slots.len() + 1;
        if count > limits::PROCESSES_MAX {
            return self.say(Level::Warning, format!("SIGTTIN: there are {} processes already, no more", count - 1));
        }
        self.slots.push(Slot { failures: 0, due: now, forking: None });
        self.say(Level::Info, format!("SIGTTIN: {count} processes from now on"));
    }

    fn fewer(&mut self, now: Instant) {
        if self.phase != Phase::Serving {
            return;
        }
        let count = self.slots.len() - 1;
        if count == 0 {
            return self.say(Level::Warning, "SIGTTOU: one process stays; SIGTERM stops the server".to_owned());
        }
        self.slots.truncate(count);
        if let Some(waiting) = &mut self.reload {
            waiting.retain(|&slot| slot < count);
        }
        let without: Vec<u32> = self.workers.iter().filter(|w| w.slot >= count).map(|w| w.pid).collect();
        if self.replacing.is_some_and(|old| without.contains(&old)) {
            self.replacing = None;
        }
        without.into_iter().for_each(|pid| self.tell_to_leave(now, pid));
        self.say(Level::Info, format!("SIGTTOU: {count} process(es) from now on"));
    }

    fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(_) | Phase::Failing(..))
    }

    fn stop(&mut self, now: Instant, signal: i32) {
        match self.phase {
            Phase::Stopping(since) if now.since(since) > SIGNALS_TOGETHER => {
                self.say(Level::Warning, "a second signal: stopping at once".to_owned());
                return self.give_up(EXIT_FAILURE, None);
            }
            Phase::Stopping(_) if signal == QUICKLY => {}
            Phase::Stopping(_) | Phase::Failing(..) => return,
            Phase::Starting | Phase::Serving => {
                self.actions.push_back(Action::Stopping);
                let words = if signal == QUICKLY {
                    "stopping quickly: requests in flight are cut off".to_owned()
                } else {
                    format!("stopping: requests in flight have {} to finish", in_seconds(self.settings.graceful))
                };
                self.say(Level::Info, words);
                self.phase = Phase::Stopping(now);
                (self.reload, self.reload_wanted, self.replacing) = (None, false, None);
                // Those that drain have the same sockets, and close theirs when everything queued there is accepted: from then on
                // the kernel refuses connections that nobody would answer.
                self.actions.push_back(Action::Unlisten);
            }
        }
        let graceful = if signal == QUICKLY { Duration::ZERO } else { self.settings.graceful };
        let kill_at = now + graceful + Duration::from_millis(limits::LEAVE_MS);
        let mut starting = Vec::new();
        for worker in &mut self.workers {
            let told = match worker.state {
                State::Ready { .. } => true,
                State::Leaving { .. } => signal == QUICKLY,
                State::Starting { .. } => {
                    starting.push(worker.pid);
                    false
                }
                State::Killed => false,
            };
            if told {
                worker.state = State::Leaving { kill_at };
                self.actions.push_back(Action::Signal(worker.pid, signal));
            }
        }
        starting.into_iter().for_each(|pid| self.kill(pid));
    }

    fn give_up(&mut self, code: i32, reason: Option<Reason>) {
        if matches!(self.phase, Phase::Failing(..)) {
            return;
        }
        self.phase = Phase::Failing(code, reason);
        self.actions.push_back(Action::Unlisten);
        let all: Vec<u32> = self.workers.iter().map(|worker| worker.pid).collect();
        all.into_iter().for_each(|pid| self.kill(pid));
    }

    // --- After each event ----------------------------------------------------------------------------

    fn look(&mut self, now: Instant) {
        self.expire(now);
        self.finish_reload(now);
        self.start_reload();
        self.replace_next(now);
        self.fill(now);
        self.give_background();
        let forking = self.slots.iter().any(|slot| slot.forking.is_some());
        if self.is_stopping() && self.workers.is_empty() && !forking {
            let (code, words) = match std::mem::replace(&mut self.phase, Phase::Failing(0, None)) {
                Phase::Failing(code, words) => (code, words),
                _ => (0, None),
            };
            self.actions.push_back(Action::Exit(code, words));
        }
    }

    fn expire(&mut self, now: Instant) {
        let due: Vec<(u32, usize, Purpose, State)> = self
            .workers
            .iter()
            .filter(|worker| match worker.state {
                State::Starting { .. } => now >= worker.late.unwrap_or(worker.began + self.settings.start),
                State::Leaving { kill_at } => now >= kill_at,
                State::Ready { .. } | State::Killed => false,
            })
            .map(|worker| (worker.pid, worker.slot, worker.purpose, worker.state))
            .collect();
        for (pid, slot, purpose, state) in due {
            if matches!(state, State::Starting { .. }) {
                let late = self
                    .worker(pid)
                    .is_none_or(|worker| worker.late.replace(now + Duration::from_millis(limits::ABORT_MS)).is_some());
                if !late {
                    // Python writes the stacks of its threads, and ends.
                    self.actions.push_back(Action::Signal(pid, libc::SIGABRT));
                    continue;
                }
                self.kill(pid);
                let sentence = self.not_ready(slot, pid);
                self.not_begun(now, slot, purpose, sentence.into());
            } else {
                self.kill(pid);
                self.say(Level::Warning, format!("process {}, pid {pid}, didn't end in time; it is killed", slot + 1));
            }
        }
    }

    fn not_ready(&self, slot: usize, pid: u32) -> String {
        format!(
            "process {}, pid {pid}, was not ready after {}; its stacks say where it was when it was told to end. See what the \
             application does there when it is imported, or raise --start-timeout",
            slot + 1,
            in_seconds(self.settings.start)
        )
    }

    /// Starts a worker in each empty slot whose time has come.
    fn fill(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Starting | Phase::Serving) {
            return;
        }
        for slot in 0..self.slots.len() {
            if !self.is_taken(slot) && now >= self.slots[slot].due {
                self.fork(slot, Purpose::Fill);
            }
        }
    }

    fn is_taken(&self, slot: usize) -> bool {
        self.slots[slot].forking.is_some() || self.workers.iter().any(|worker| worker.slot == slot && worker.stays())
    }

    /// The background belongs to the first slot's newest worker, once nobody else has it.
    fn give_background(&mut self) {
        if self.background.is_some() || self.phase != Phase::Serving {
            return;
        }
        let heir = self.workers.iter().filter(|worker| worker.slot == 0 && worker.is_ready());
        let Some(pid) = heir.max_by_key(|worker| (worker.generation, worker.began)).map(|worker| worker.pid) else {
            return;
        };
        self.background = Some(pid);
        self.actions.push_back(Action::Background(pid));
    }

    fn background_is_free(&mut self, pid: u32) {
        if self.background == Some(pid) {
            self.background = None;
        }
    }

    fn worker(&mut self, pid: u32) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.pid == pid)
    }

    fn say(&mut self, level: Level, sentence: String) {
        self.actions.push_back(Action::Say(level, sentence));
    }

    fn say_traceback(&mut self, reason: &Reason) {
        if !reason.traceback.is_empty() {
            self.say(Level::Error, reason.traceback.clone());
        }
    }
}

/// How long a slot stays empty after this many deaths in a row.
fn delay_after(failures: u32) -> Duration {
    let doubled = limits::RESTART_DELAY_MS.saturating_mul(1 << failures.saturating_sub(1).min(20));
    Duration::from_millis(doubled.min(limits::RESTART_DELAY_MS_MAX))
}

fn in_seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests;
