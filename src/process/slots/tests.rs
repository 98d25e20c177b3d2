//! The supervisor's thinking in virtual time: a world of workers that begin, serve and leave as a test says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The other side: does what it is told at once, and keeps the books.
struct World {
    slots: Slots,
    now: Instant,
    next_pid: u32,
    /// Alive: slot, and whether it was told to end (by which signal).
    alive: BTreeMap<u32, (usize, Option<i32>)>,
    /// Forks fail for this reason.
    no_forks: bool,
    listening: bool,
    closed: bool,
    said: Vec<String>,
    forks: Vec<Instant>,
    told_go: Vec<u32>,
    background: Vec<u32>,
    marks: Vec<Action>,
    exit: Option<(i32, Option<Reason>)>,
}

fn settings(processes: usize) -> Settings {
    Settings {
        processes,
        graceful: Duration::from_secs(30),
        start: Duration::from_secs(120),
        max_requests: 0,
        max_requests_jitter: 0,
        max_lifetime: Duration::ZERO,
        max_resident: 0,
    }
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut world = Self {
            slots: Slots::new(settings),
            now: Instant::from_nanos(1_000_000_000),
            next_pid: 100,
            alive: BTreeMap::new(),
            no_forks: false,
            listening: false,
            closed: false,
            said: Vec::new(),
            forks: Vec::new(),
            told_go: Vec::new(),
            background: Vec::new(),
            marks: Vec::new(),
            exit: None,
        };
        world.tell(Event::Begin);
        world
    }

    /// With all first workers serving.
    fn serving(settings: Settings) -> Self {
        let mut world = Self::new(settings);
        world.begin_all();
        assert!(world.marks.contains(&Action::Started));
        world
    }

    fn tell(&mut self, event: Event) {
        self.slots.handle(self.now, event);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.slots.next_action() {
            match action {
                Action::Fork { slot } if self.no_forks => {
                    self.slots.handle(self.now, Event::ForkFailed { slot, why: "no more processes".into() });
                }
                Action::Fork { slot } => {
                    let pid = self.next_pid;
                    self.next_pid += 1;
                    self.alive.insert(pid, (slot, None));
                    self.forks.push(self.now);
                    self.slots.handle(self.now, Event::Forked { slot, pid, random: u64::from(pid) });
                }
                Action::Listen => self.listening = true,
                Action::Unlisten => self.closed = true,
                Action::Go(pid) => {
                    assert!(self.listening, "nobody goes before the sockets listen");
                    self.told_go.push(pid);
                }
                Action::Background(pid) => self.background.push(pid),
                Action::Signal(pid, signal) => {
                    let worker = self.alive.get_mut(&pid).expect("only who is alive is signalled");
                    worker.1 = Some(signal);
                }
                Action::Say(_, sentence) => self.said.push(sentence),
                Action::Exit(code, words) => {
                    assert!(self.alive.is_empty(), "nobody is left behind: {:?}", self.alive);
                    self.exit = Some((code, words));
                }
                mark => self.marks.push(mark),
            }
        }
    }

    /// Time passes, in steps of a second at most.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let step = (self.now + Duration::from_secs(1)).min(end);
            let next = self.slots.deadline().filter(|&at| at > self.now).map_or(step, |at| at.min(step));
            self.now = next;
            self.tell(Event::Tick);
        }
    }

    /// The workers that serve, or will.
    fn staying(&self) -> Vec<u32> {
        self.alive.iter().filter(|(_, (_, told))| told.is_none()).map(|(&pid, _)| pid).collect()
    }

    fn told(&self, signal: i32) -> Vec<u32> {
        self.alive.iter().filter(|(_, (_, told))| *told == Some(signal)).map(|(&pid, _)| pid).collect()
    }

    fn begin(&mut self, pid: u32) {
        self.tell(Event::Loaded(pid));
        if self.told_go.contains(&pid) {
            self.tell(Event::Ready(pid));
        }
    }

    /// All that are there load, and become ready.
    fn begin_all(&mut self) {
        for pid in self.staying() {
            self.tell(Event::Loaded(pid));
        }
        for pid in self.staying().into_iter().filter(|pid| self.told_go.contains(pid)).collect::<Vec<_>>() {
            self.tell(Event::Ready(pid));
        }
    }

    fn end(&mut self, pid: u32, how: Ended) {
        self.alive.remove(&pid).expect("it is alive");
        self.tell(Event::Ended(pid, how));
    }

    /// Whoever was told to end does so.
    fn leave_all(&mut self) {
        let told: Vec<u32> = self.alive.iter().filter(|(_, (_, told))| told.is_some()).map(|(&pid, _)| pid).collect();
        for pid in told {
            self.end(pid, Ended::Exited(0));
        }
    }

    fn said(&self, part: &str) -> bool {
        self.said.iter().any(|sentence| sentence.contains(part))
    }
}

#[test]
fn the_port_is_opened_when_all_have_loaded() {
    let mut world = World::new(settings(3));
    let pids = world.staying();
    assert_eq!(pids.len(), 3);
    world.tell(Event::Loaded(pids[0]));
    world.tell(Event::Loaded(pids[1]));
    assert!(!world.listening && world.told_go.is_empty());
    world.tell(Event::Loaded(pids[2]));
    assert!(world.listening);
    assert_eq!(world.told_go, pids);
    world.tell(Event::Ready(pids[0]));
    world.tell(Event::Ready(pids[1]));
    assert!(world.marks.is_empty());
    world.tell(Event::Ready(pids[2]));
    assert_eq!(world.marks, [Action::Started]);
    assert_eq!(world.background, [pids[0]], "the first slot's");
}

#[test]
fn a_first_start_that_fails_ends_the_server() {
    let failed = Reason { traceback: "Traceback".into(), sentence: "no module".into() };
    let mut world = World::new(settings(2));
    let pids = world.staying();
    world.tell(Event::Failed(pids[0], failed.clone()));
    assert_eq!(world.told(libc::SIGKILL), pids);
    world.leave_all();
    assert_eq!(world.exit, Some((1, Some(failed))));
    assert!(!world.listening);

    let mut world = World::new(settings(2));
    let pids = world.staying();
    world.end(pids[1], Ended::Killed(libc::SIGSEGV));
    world.leave_all();
    let (code, words) = world.exit.expect("it is over");
    assert_eq!(code, 1);
    assert!(words.is_some_and(|words| words.sentence.contains("was killed by SIGSEGV before it was ready")));

    let mut world = World::new(settings(1));
    world.pass(Duration::from_secs(121));
    assert_eq!(world.told(libc::SIGABRT).len(), 1, "first it is asked for its stacks");
    assert_eq!(world.exit, None);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.told(libc::SIGKILL).len(), 1, "if that doesn't end it");
    world.leave_all();
    let (code, words) = world.exit.expect("it is over");
    assert!(code == 1 && words.is_some_and(|words| words.sentence.contains("--start-timeout")));

    let mut world = World::new(settings(1));
    let pid = world.staying()[0];
    world.tell(Event::Loaded(pid));
    world.tell(Event::ListenFailed("the port is taken".into()));
    world.leave_all();
    assert_eq!(world.exit, Some((1, Some(Reason::from("the port is taken".to_owned())))));
}

#[test]
fn no_process_for_the_first_worker_ends_the_server() {
    let mut slots = Slots::new(settings(1));
    let now = Instant::default();
    slots.handle(now, Event::Begin);
    assert_eq!(slots.next_action(), Some(Action::Fork { slot: 0 }));
    slots.handle(now, Event::ForkFailed { slot: 0, why: "no more processes".into() });
    let actions: Vec<Action> = std::iter::from_fn(|| slots.next_action()).collect();
    assert_eq!(actions, [Action::Unlisten, Action::Exit(1, Some(Reason::from("no more processes".to_owned())))]);
}

#[test]
fn deaths_in_a_row_are_waited_for_longer_and_longer() {
    let mut world = World::serving(settings(1));
    let mut delays = Vec::new();
    for _ in 0..12 {
        let pid = world.staying()[0];
        world.begin(pid);
        world.end(pid, Ended::Killed(libc::SIGSEGV));
        let died = world.now;
        while world.staying().is_empty() {
            world.pass(Duration::from_millis(10));
        }
        delays.push(world.forks.last().unwrap().since(died).as_millis());
    }
    assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
    // A stable minute makes it forget.
    let pid = world.staying()[0];
    world.begin(pid);
    for beat in 1..=61 {
        world.pass(Duration::from_secs(1));
        world.tell(Event::Seen(pid, Figures { heartbeat: beat, ..Figures::default() }));
    }
    world.end(pid, Ended::Exited(0));
    world.pass(Duration::from_millis(99));
    assert!(world.staying().is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.staying().len(), 1);
    assert!(world.said("exited with status 0; a new one starts in 0.1 s"), "{:?}", world.said);
}

#[test]
fn a_worker_that_cannot_begin_again_is_tried_again() {
    let mut world = World::serving(settings(2));
    let pid = world.staying()[0];
    world.end(pid, Ended::Killed(libc::SIGKILL));
    world.pass(Duration::from_millis(100));
    let new = *world.staying().last().unwrap();
    world.tell(Event::Failed(new, Reason { traceback: "Traceback: here".into(), sentence: "it is broken".into() }));
    assert!(world.said("Traceback: here") && world.said("it is broken; trying again in 0.2 s"), "{:?}", world.said);
    world.end(new, Ended::Exited(1));
    world.pass(Duration::from_millis(200));
    assert_eq!(world.staying().len(), 2);
    world.no_forks = true;
    let pid = world.staying()[0];
    world.end(pid, Ended::Killed(libc::SIGKILL));
    world.pass(Duration::from_secs(10));
    assert!(world.said("no more processes; trying again in"));
    world.no_forks = false;
    world.pass(Duration::from_secs(30));
    assert_eq!(world.staying().len(), 2);
    assert!(world.exit.is_none());
}

#[test]
fn a_reload_waits_for_all_successors() {
    let mut world = World::serving(settings(3));
    let old = world.staying();
    world.tell(Event::Reload);
    let new: Vec<u32> = world.staying().into_iter().filter(|pid| !old.contains(pid)).collect();
    assert_eq!(new.len(), 3);
    world.begin(new[0]);
    world.begin(new[1]);
    assert!(world.told(libc::SIGTERM).is_empty(), "the old ones serve until all are ready");
    world.begin(new[2]);
    assert_eq!(world.told(libc::SIGTERM), old);
    assert_eq!(world.background.len(), 1, "the old first one has it until it lets go");
    world.tell(Event::BackgroundEnded(old[0]));
    assert_eq!(world.background, [old[0], new[0]]);
    world.leave_all();
    assert_eq!(world.staying(), new);
    assert_eq!(world.marks, [Action::Started, Action::Reloading, Action::TakenOver, Action::Reloaded]);
    assert_eq!(world.forks.len(), 6);
}

#[test]
fn a_reload_that_fails_keeps_the_old_ones() {
    for how in 0..4 {
        let mut world = World::serving(settings(2));
        let old = world.staying();
        world.no_forks = how == 3;
        world.tell(Event::Reload);
        let new: Vec<u32> = world.staying().into_iter().filter(|pid| !old.contains(pid)).collect();
        match how {
            0 => {
                world.begin(new[0]);
                world.tell(Event::Failed(new[1], Reason::from("a syntax error".to_owned())));
                assert_eq!(world.told(libc::SIGTERM), [new[0]], "it may have accepted connections");
                world.end(new[1], Ended::Exited(1));
            }
            1 => world.end(new[0], Ended::Killed(libc::SIGSEGV)),
            2 => {
                let mut beat = 0;
                world.begin(new[0]);
                while !world.said("reload failed") {
                    beat += 1;
                    world.pass(Duration::from_secs(1));
                    for &pid in old.iter().chain(&new[..1]) {
                        world.tell(Event::Seen(pid, Figures { heartbeat: beat, ..Figures::default() }));
                    }
                }
                assert!(world.said("was not ready after 120 s"), "{:?}", world.said);
            }
            _ => assert!(world.said("reload failed: no more processes")),
        }
        assert!(world.said("reload failed"), "{how}: {:?}", world.said);
        world.leave_all();
        let left: Vec<u32> = world.staying();
        assert_eq!(left, old, "{how}");
        world.no_forks = false;
        world.tell(Event::Reload);
        world.begin_all();
        assert_eq!(world.told(libc::SIGTERM), old, "{how}: the next one works");
    }
}

#[test]
fn a_process_that_ends_with_its_stacks_was_not_ready() {
    let mut world = World::new(settings(1));
    world.pass(Duration::from_secs(120));
    let pid = world.told(libc::SIGABRT)[0];
    world.end(pid, Ended::Killed(libc::SIGABRT));
    world.leave_all();
    let (code, words) = world.exit.expect("it is over");
    assert_eq!(code, 1);
    assert!(words.is_some_and(|words| words.sentence.contains("was not ready after 120 s")));
}

#[test]
fn stacks_are_asked_of_those_that_begin_and_of_those_that_drain_too() {
    let mut world = World::serving(settings(2));
    let old = world.staying();
    world.tell(Event::Reload);
    let mut all: Vec<u32> = world.alive.keys().copied().collect();
    assert_eq!(world.slots.asked().collect::<Vec<_>>(), all);
    assert!(all.len() > old.len(), "those that take their places aren't ready yet");
    world.begin_all();
    assert_eq!(world.told(libc::SIGTERM), old);
    all = world.alive.keys().copied().collect();
    assert_eq!(world.slots.asked().collect::<Vec<_>>(), all);
    world.pass(Duration::from_secs(36));
    assert_eq!(world.told(libc::SIGKILL), old);
    all.retain(|pid| !old.contains(pid));
    assert_eq!(world.slots.asked().collect::<Vec<_>>(), all);
}

/// A limit that every process exceeds from the start: the machine must have time for something else than loading them.
#[test]
fn processes_that_are_too_large_from_the_start_are_replaced_more_and_more_slowly() {
    let mut world = World::serving(Settings { max_resident: 100, ..settings(1) });
    let mut beat = 0;
    let mut pass = |world: &mut World, seconds: u64, resident: u64| {
        let before = world.forks.len();
        for _ in 0..seconds {
            world.pass(Duration::from_secs(1));
            beat += 1;
            for pid in world.staying() {
                world.tell(Event::Seen(pid, Figures { heartbeat: beat, requests: 0, resident }));
            }
            world.begin_all();
            for pid in world.told(libc::SIGTERM) {
                world.end(pid, Ended::Exited(0));
            }
        }
        world.forks.len() - before
    };
    assert!(pass(&mut world, 60, 101) <= 10);
    let told = world.said.iter().filter(|line| line.contains("--max-rss") && line.contains("raise it")).count();
    assert_eq!(told, 1, "{:?}", world.said);
    assert!(pass(&mut world, 300, 101) <= 10, "every half minute");
    pass(&mut world, 61, 100);
    assert_eq!(pass(&mut world, 1, 101), 1, "one that has grown in time is replaced at once");
}

#[test]
fn many_reloads_are_one_after_the_other_and_leave_no_crowd() {
    let mut world = World::serving(settings(2));
    for _ in 0..20 {
        world.tell(Event::Reload);
    }
    assert_eq!(world.alive.len(), 4);
    world.begin_all();
    // The two that were asked for meanwhile are one; nobody has left yet.
    assert_eq!(world.alive.len(), 6);
    world.begin_all();
    world.tell(Event::Reload);
    assert_eq!(world.alive.len(), 6, "as many as serve may be leaving, no more");
    world.leave_all();
    assert_eq!(world.alive.len(), 4);
    world.begin_all();
    world.leave_all();
    assert_eq!(world.alive.len(), 2);
    // Whoever doesn't leave is killed, so that this comes to an end.
    world.tell(Event::Reload);
    world.begin_all();
    world.pass(Duration::from_secs(36));
    assert_eq!(world.told(libc::SIGKILL).len(), 2);
}

#[test]
fn more_and_fewer() {
    let mut world = World::serving(settings(2));
    world.tell(Event::More);
    assert_eq!(world.staying().len(), 3);
    world.begin_all();
    world.tell(Event::Fewer);
    assert_eq!(world.told(libc::SIGTERM).len(), 1);
    world.leave_all();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.staying().len(), 2);
    world.tell(Event::Fewer);
    world.tell(Event::Fewer);
    assert_eq!(world.staying().len(), 1);
    assert!(world.said("one process stays"));
    assert_eq!(world.background.len(), 1, "the first slot stays");
    for _ in 0..300 {
        world.tell(Event::More);
    }
    assert_eq!(world.staying().len(), limits::PROCESSES_MAX);
    assert!(world.said("SIGTTIN: there are 256 processes already"));
}

#[test]
fn more_and_fewer_in_a_reload() {
    let mut world = World::serving(settings(2));
    world.tell(Event::Reload);
    world.tell(Event::Fewer);
    world.leave_all();
    world.begin_all();
    assert!(world.marks.contains(&Action::Reloaded));
    world.leave_all();
    assert_eq!(world.staying().len(), 1);
    world.tell(Event::Reload);
    world.tell(Event::More);
    world.begin_all();
    world.leave_all();
    assert_eq!(world.staying().len(), 2);
    assert!(world.marks.iter().filter(|&mark| *mark == Action::Reloaded).count() == 2);
}

fn requests(requests: u64, heartbeat: u64) -> Figures {
    Figures { heartbeat, requests, resident: 0 }
}

#[test]
fn recycling_replaces_one_at_a_time() {
    let mut world = World::serving(Settings { max_requests: 50, ..settings(3) });
    let old = world.staying();
    for &pid in &old {
        world.tell(Event::Seen(pid, requests(49, 1)));
    }
    assert_eq!(world.alive.len(), 3);
    for &pid in &old {
        world.tell(Event::Seen(pid, requests(60, 2)));
        world.tell(Event::Seen(pid, requests(60, 3)));
    }
    for (done, &leaving) in old.iter().enumerate() {
        assert_eq!(world.forks.len(), 4 + done, "one at a time");
        assert!(world.told(libc::SIGTERM).is_empty(), "the old one serves until its successor is ready");
        world.begin_all();
        assert_eq!(world.told(libc::SIGTERM), [leaving]);
        world.leave_all();
    }
    assert_eq!(world.staying().len(), 3);
    assert!(world.said("it has served 60 requests (--max-requests)"));
}

#[test]
fn recycling_by_age_and_by_memory() {
    let mut world = World::serving(Settings { max_lifetime: Duration::from_secs(20), ..settings(1) });
    let pid = world.staying()[0];
    world.pass(Duration::from_secs(19));
    world.tell(Event::Seen(pid, requests(0, 1)));
    assert_eq!(world.alive.len(), 1);
    world.pass(Duration::from_secs(1));
    world.tell(Event::Seen(pid, requests(0, 2)));
    assert_eq!(world.alive.len(), 2);
    let mut world = World::serving(Settings { max_resident: 1 << 30, ..settings(1) });
    let pid = world.staying()[0];
    world.tell(Event::Seen(pid, Figures { heartbeat: 1, requests: 0, resident: 1 << 30 }));
    assert_eq!(world.alive.len(), 1);
    world.tell(Event::Seen(pid, Figures { heartbeat: 2, requests: 0, resident: (1 << 30) + 1 }));
    assert_eq!(world.alive.len(), 2);
}

#[test]
fn the_jitter_is_each_workers_own() {
    let mut world = World::serving(Settings { max_requests: 50, max_requests_jitter: 10, ..settings(4) });
    let limits: Vec<u64> = world.slots.workers.iter().map(|worker| worker.requests_max).collect();
    assert!(limits.iter().all(|limit| (50..=60).contains(limit)), "{limits:?}");
    assert!(limits.iter().any(|limit| *limit != limits[0]), "{limits:?}");
    let pid = world.staying()[0];
    world.tell(Event::Seen(pid, requests(limits[0], 1)));
    assert_eq!(world.alive.len(), 5);
}

#[test]
fn a_replacement_that_fails_keeps_the_old_one_and_is_tried_again() {
    let mut world = World::serving(Settings { max_requests: 50, ..settings(1) });
    let old = world.staying()[0];
    world.tell(Event::Seen(old, requests(50, 1)));
    let new = *world.staying().last().unwrap();
    world.tell(Event::Failed(new, Reason::from("it is broken".to_owned())));
    world.end(new, Ended::Exited(1));
    assert_eq!(world.staying(), [old]);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.staying().len(), 2);
    world.begin_all();
    assert_eq!(world.told(libc::SIGTERM), [old]);
}

#[test]
fn a_worker_that_is_stuck_goes_first() {
    let mut world = World::serving(Settings { max_requests: 50, ..settings(3) });
    let old = world.staying();
    world.tell(Event::Seen(old[0], requests(50, 1)));
    world.tell(Event::Seen(old[1], requests(50, 1)));
    world.tell(Event::HandOver(old[2], "all its threads are stuck".into()));
    world.begin_all();
    world.leave_all();
    world.begin_all();
    assert_eq!(world.told(libc::SIGTERM), [old[2]]);
    assert!(world.said("is replaced: all its threads are stuck"));
}

#[test]
fn a_worker_that_is_stuck_is_not_forgotten_in_a_reload_that_fails() {
    let mut world = World::serving(settings(2));
    let old = world.staying();
    world.tell(Event::Reload);
    world.tell(Event::HandOver(old[1], "it is stuck".into()));
    let new: Vec<u32> = world.staying().into_iter().filter(|pid| !old.contains(pid)).collect();
    world.tell(Event::Failed(new[0], Reason::from("it can't be loaded".to_owned())));
    world.leave_all();
    world.begin_all();
    assert_eq!(world.told(libc::SIGTERM), [old[1]], "{:?}", world.said);
    // Nor when it asked before.
    let mut world = World::serving(settings(1));
    let old = world.staying()[0];
    world.tell(Event::HandOver(old, "it is stuck".into()));
    world.tell(Event::Reload);
    let successor = world.staying()[1];
    world.end(successor, Ended::Killed(libc::SIGSEGV));
    let new = world.staying()[1];
    world.tell(Event::Failed(new, Reason::from("it can't be loaded".to_owned())));
    world.end(new, Ended::Exited(1));
    world.pass(Duration::from_secs(1));
    world.begin_all();
    assert_eq!(world.told(libc::SIGTERM), [old], "{:?}", world.said);
}

#[test]
fn a_worker_that_is_stuck_may_leave_before_its_successor_serves() {
    let mut world = World::serving(settings(2));
    let old = world.staying();
    world.tell(Event::HandOver(old[0], "it is stuck".into()));
    let successor = world.staying()[2];
    world.tell(Event::Leaving(old[0]));
    world.end(old[0], Ended::Exited(0));
    assert!(world.said("has nothing left to do") && !world.said("was told to stop"));
    assert_eq!(world.staying(), [old[1], successor], "one successor is enough");
    // It can't begin: its slot is one that is empty, and others may be replaced meanwhile.
    world.tell(Event::Failed(successor, Reason::from("it can't be loaded".to_owned())));
    world.end(successor, Ended::Exited(1));
    world.tell(Event::HandOver(old[1], "it is stuck as well".into()));
    world.pass(Duration::from_millis(100));
    assert_eq!(world.staying().len(), 3);
    world.begin_all();
    assert_eq!(world.told(libc::SIGTERM), [old[1]]);
    assert_eq!(world.staying().len(), 2);
}

#[test]
fn a_worker_without_a_heartbeat_is_killed_and_replaced() {
    let mut world = World::serving(settings(2));
    let pids = world.staying();
    for beat in 0..40 {
        world.pass(Duration::from_secs(1));
        world.tell(Event::Seen(pids[1], requests(0, beat)));
        // The supervisor itself was stopped for an hour: that isn't the workers' fault.
        if beat == 5 {
            world.now = world.now + Duration::from_secs(3600);
        }
        if world.alive[&pids[0]].1.is_none() {
            world.tell(Event::Seen(pids[0], requests(0, 7)));
        }
        if beat < limits::HEARTBEATS_MISSED_MAX.into() {
            assert_eq!(world.alive[&pids[0]].1, None, "{beat}");
        }
    }
    assert!(world.said("hangs: no heartbeat for 30 s"), "{:?}", world.said);
    assert_eq!(world.told(libc::SIGKILL), [pids[0]], "SIGABRT wasn't enough");
    assert_eq!(world.staying().len(), 2, "there is another already");
}

#[test]
fn a_worker_that_was_told_to_stop_by_hand_is_replaced_at_once() {
    let mut world = World::serving(settings(1));
    let pid = world.staying()[0];
    world.tell(Event::Leaving(pid));
    assert_eq!(world.forks.len(), 2);
    world.tell(Event::BackgroundEnded(pid));
    world.begin_all();
    world.end(pid, Ended::Exited(0));
    assert!(!world.said.iter().any(|sentence| sentence.contains("a new one starts in")), "{:?}", world.said);
}

#[test]
fn stopping() {
    let mut world = World::serving(settings(2));
    world.tell(Event::Stop);
    assert!(world.closed);
    assert_eq!(world.told(libc::SIGTERM).len(), 2);
    world.tell(Event::Stop);
    assert_eq!(world.told(libc::SIGTERM).len(), 2, "two that come together are one");
    world.tell(Event::Reload);
    world.tell(Event::More);
    world.pass(Duration::from_secs(34));
    assert_eq!(world.told(libc::SIGTERM).len(), 2);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.told(libc::SIGKILL).len(), 2);
    world.leave_all();
    assert_eq!(world.exit, Some((0, None)));
    assert_eq!(world.forks.len(), 2);
}

#[test]
fn stopping_twice_and_quickly() {
    let mut world = World::serving(settings(2));
    world.tell(Event::Stop);
    world.pass(Duration::from_millis(101));
    world.tell(Event::Stop);
    assert_eq!(world.told(libc::SIGKILL).len(), 2);
    world.leave_all();
    assert_eq!(world.exit, Some((1, None)));

    let mut world = World::serving(settings(2));
    world.tell(Event::StopQuickly);
    assert_eq!(world.told(QUICKLY).len(), 2);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.told(libc::SIGKILL).len(), 2);
    world.leave_all();
    assert_eq!(world.exit, Some((0, None)));

    let mut world = World::new(settings(2));
    world.tell(Event::Stop);
    assert_eq!(world.told(libc::SIGKILL).len(), 2, "they have accepted nothing");
    world.leave_all();
    assert_eq!(world.exit, Some((0, None)));
}

#[test]
fn stopping_in_a_reload_takes_everybody_along() {
    let mut world = World::serving(settings(2));
    world.tell(Event::Reload);
    let first = *world.staying().last().unwrap();
    world.begin(first);
    world.tell(Event::Stop);
    assert_eq!((world.told(libc::SIGTERM).len(), world.told(libc::SIGKILL).len()), (3, 1));
    world.leave_all();
    assert_eq!(world.exit, Some((0, None)));
}

/// What a world may come to.
#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Fail(usize),
    Die(usize),
    Leave,
    Pass(u64),
    Reload,
    More,
    Fewer,
    HandOver(usize),
    Grown(usize),
    Forks(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_usize).prop_map(Step::Begin),
        1 => (0..8_usize).prop_map(Step::Fail),
        1 => (0..8_usize).prop_map(Step::Die),
        3 => Just(Step::Leave),
        2 => (1..40_000_u64).prop_map(Step::Pass),
        2 => Just(Step::Reload),
        1 => Just(Step::More),
        1 => Just(Step::Fewer),
        1 => (0..8_usize).prop_map(Step::HandOver),
        1 => (0..8_usize).prop_map(Step::Grown),
        1 => any::<bool>().prop_map(Step::Forks),
    ]
}

proptest! {
    /// Whatever happens: as long as somebody serves and nobody dies, somebody serves; there is never a crowd; two never have the
    /// background; and in the end, left in peace, every slot is served by one worker.
    #[test]
    fn there_is_always_somebody(steps in proptest::collection::vec(step(), 0..80)) {
        let mut world = World::serving(Settings { max_requests: 50, ..settings(2) });
        for step in steps {
            let pick = |all: Vec<u32>, index: usize| all.get(index % all.len().max(1)).copied();
            let ready: Vec<u32> = world.slots.ready().collect();
            // SIGTTOU takes the last slot, even if its worker is the only one just now: connections wait for the others.
            let died = matches!(step, Step::Die(_) | Step::Fewer);
            match step {
                Step::Begin(index) => if let Some(pid) = pick(world.staying(), index) { world.begin(pid) },
                Step::Fail(index) => {
                    let starting = world.staying().into_iter().filter(|pid| !ready.contains(pid)).collect();
                    if let Some(pid) = pick(starting, index) {
                        world.tell(Event::Failed(pid, Reason::from("it fails".to_owned())));
                        world.end(pid, Ended::Exited(1));
                    }
                }
                Step::Die(index) => if let Some(pid) = pick(world.alive.keys().copied().collect(), index) {
                    world.end(pid, Ended::Killed(libc::SIGSEGV));
                },
                Step::Leave => world.leave_all(),
                Step::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds)),
                Step::Reload => world.tell(Event::Reload),
                Step::More => world.tell(Event::More),
                Step::Fewer => world.tell(Event::Fewer),
                Step::HandOver(index) => if let Some(pid) = pick(ready.clone(), index) {
                    world.tell(Event::HandOver(pid, "it is stuck".into()));
                },
                Step::Grown(index) => if let Some(pid) = pick(ready.clone(), index) {
                    world.tell(Event::Seen(pid, requests(70, u64::from(world.next_pid) + world.now.as_nanos())));
                },
                Step::Forks(possible) => world.no_forks = !possible,
            }
            prop_assert!(world.exit.is_none());
            prop_assert!(died || ready.is_empty() || world.slots.ready().count() > 0, "nobody serves any more");
            let slots = world.slots.slots.len();
            prop_assert!(world.alive.len() <= 4 * slots.max(2) + 8 + 80, "a crowd");
            if let Some(pid) = world.slots.background {
                prop_assert!(world.alive.contains_key(&pid));
            }
        }
        world.no_forks = false;
        for _ in 0..40 {
            world.pass(Duration::from_millis(1500));
            world.begin_all();
            world.leave_all();
        }
        let mut slots: Vec<usize> = world.alive.values().map(|(slot, _)| *slot).collect();
        slots.sort_unstable();
        prop_assert_eq!(slots, (0..world.slots.slots.len()).collect::<Vec<_>>());
        prop_assert_eq!(world.slots.ready().count(), world.slots.slots.len());
        world.tell(Event::Stop);
        world.leave_all();
        prop_assert_eq!(world.exit, Some((0, None)));
    }
}
