//! How many workers there should be: what the main thread sees of the pool and `now` in, how many threads to start or to end out.
//! Pure: no clock, no Python.
//!
//! `--workers` is where a pool begins; with `--max-workers` it grows while requests wait, every worker is at one, and the GIL is
//! idle: more threads help handlers that wait, and only get into each other's way where handlers compute. Whether the GIL is idle is
//! measured in two ways. *How long the main thread waits for it* when it comes to look: a handler that computes makes it wait until
//! the GIL is taken by force (5 ms). And *the CPU time that Python's threads use* of the time that passes. Each look moves a
//! running share of looks that found the GIL busy; the pool grows while that is below [`BUSY_SHARE_MAX`], in steps that double.

use std::time::Duration;

use crate::limits;
use crate::reactor::clock::Instant;

/// Who waited longer than this for the GIL waited for somebody who computes.
const SOON: Duration = Duration::from_micros(500);
/// The same while the GIL is dropped sooner.
const SOON_IF_SHORT: Duration = Duration::from_micros(limits::SWITCH_SHORT_US / 4);
/// CPU time per time passed from which on Python's threads count as computing.
const CPU_SHARE_BUSY: f64 = 0.85;
/// Above it the pool doesn't grow.
const BUSY_SHARE_MAX: f64 = 0.5;
/// Weight of the latest look. A pool that knows nothing takes the GIL for busy: six looks in a row must say otherwise.
const WEIGHT: f64 = 0.125;
/// Threads of the first step.
const STEP_FIRST: usize = 4;
/// Until the next look while requests wait: after one that found the GIL idle, and after the first that didn't, doubled to the
/// last. Each look that finds it busy may make a handler that computes lose the GIL.
const LOOK_SOON: Duration = Duration::from_millis(4);
const LOOK_LATER: Duration = Duration::from_millis(20);
const LOOK_LATEST: Duration = Duration::from_millis(320);
/// A share of CPU time is taken over at least so long.
const CPU_WINDOW: Duration = Duration::from_millis(10);

/// What the main thread sees.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Requests that wait.
    pub waiting: usize,
    /// Whether a worker rests.
    pub idle: bool,
    /// Workers that aren't stuck.
    pub usable: usize,
    /// Whether the GIL is dropped sooner than by default.
    pub short: bool,
    /// How long the main thread has just waited for the GIL.
    pub gil_wait: Duration,
    /// CPU time that the process has used, without that of its reactors.
    pub cpu: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Threads to start now.
    pub start: usize,
    /// When to look again; `None`: when somebody rings.
    pub again: Option<Duration>,
}

/// Decides for one pool.
pub struct Elastic {
    most: usize,
    busy_share: f64,
    step: usize,
    later: Duration,
    /// When the CPU time was last taken, and what it was.
    cpu: Option<(Instant, Duration)>,
    computing: bool,
}

impl Elastic {
    /// For a pool of at most `most` workers.
    pub fn new(most: usize) -> Self {
        Self { most, busy_share: 1.0, step: STEP_FIRST, later: LOOK_LATER, cpu: None, computing: false }
    }

    /// The running share of looks that found the GIL busy, from 0 to 1.
    pub fn busy_share(&self) -> f64 {
        self.busy_share
    }

    /// What follows from what is seen at `now`.
    pub fn look(&mut self, now: Instant, sight: Sight) -> Plan {
        if sight.waiting == 0 || sight.idle || sight.usable >= self.most {
            self.step = STEP_FIRST;
            self.later = LOOK_LATER;
            // What is used while nobody waits says nothing.
            self.cpu = None;
            return Plan::default();
        }
        self.measure(now, sight.cpu);
        let soon = if sight.short { SOON_IF_SHORT } else { SOON };
        let busy = sight.gil_wait > soon || self.computing;
        self.busy_share += WEIGHT * (f64::from(u8::from(busy)) - self.busy_share);
        if busy {
            self.step = STEP_FIRST;
            let again = self.later;
            self.later = (self.later * 2).min(LOOK_LATEST);
            return Plan { start: 0, again: Some(again) };
        }
        self.later = LOOK_LATER;
        if self.busy_share >= BUSY_SHARE_MAX {
            return Plan { start: 0, again: Some(LOOK_SOON) };
        }
        let start = self.step.min(sight.waiting).min(self.most - sight.usable);
        self.step = (self.step * 2).min(limits::POOL_STEP_MAX);
        Plan { start, again: Some(LOOK_SOON) }
    }

    fn measure(&mut self, now: Instant, cpu: Duration) {
        let Some((since, before)) = self.cpu else {
            self.cpu = Some((now, cpu));
            self.computing = false;
            return;
        };
        let passed = now.since(since);
        if passed >= CPU_WINDOW {
            let used = cpu.saturating_sub(before);
            self.computing = used.as_secs_f64() >= passed.as_secs_f64() * CPU_SHARE_BUSY;
            self.cpu = Some((now, cpu));
        }
    }
}

/// Whether a worker that rests, and began its last request at `last` (or started then), is one too many.
pub fn is_spare(now: Instant, last: Instant, usable: usize, least: usize) -> bool {
    usable > least && now.since(last) >= Duration::from_secs(limits::POOL_IDLE_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool in virtual time: `n` connections that ask again at once, handlers that compute and then wait, one GIL.
    struct Simulation {
        elastic: Elastic,
        now: u64,
        usable: usize,
        connections: usize,
        compute: u64,
        sleep: u64,
        /// When each request that runs ends its wait, in microseconds.
        running: Vec<u64>,
        /// CPU time used.
        cpu: u64,
        /// When the GIL is free.
        free: u64,
        done: u64,
    }

    impl Simulation {
        fn run(workers: usize, most: usize, connections: usize, compute: u64, sleep: u64, until: u64) -> Self {
            let mut simulation = Self {
                elastic: Elastic::new(most),
                now: 1_000_000,
                usable: workers,
                connections,
                compute,
                sleep,
                running: Vec::new(),
                cpu: 0,
                free: 0,
                done: 0,
            };
            let end = simulation.now + until;
            let mut look = simulation.now;
            while simulation.now < end {
                simulation.serve();
                if simulation.now >= look {
                    look = simulation.now + simulation.look();
                }
                simulation.now += 100;
            }
            simulation
        }

        fn serve(&mut self) {
            let now = self.now;
            let before = self.running.len();
            self.running.retain(|&ends| ends > now);
            self.done += (before - self.running.len()) as u64;
            while self.running.len() < self.usable.min(self.connections) {
                // A handler computes when it gets the GIL, and then waits without it.
                let start = self.free.max(now);
                if start > now + 5_000 {
                    break;
                }
                self.free = start + self.compute;
                self.cpu += self.compute;
                self.running.push(self.free + self.sleep);
            }
        }

        fn look(&mut self) -> u64 {
            // Taken by force after 5 ms.
            let wait = self.free.saturating_sub(self.now).min(5_000);
            let sight = Sight {
                waiting: self.connections - self.running.len().min(self.connections),
                idle: self.running.len() < self.usable.min(self.connections) && self.free <= self.now,
                usable: self.usable,
                short: false,
                gil_wait: Duration::from_micros(wait),
                cpu: Duration::from_micros(self.cpu),
            };
            let plan = self.elastic.look(Instant::from_nanos(self.now * 1_000), sight);
            self.usable += plan.start;
            plan.again.map_or(10_000, |again| again.as_micros() as u64)
        }
    }

    #[test]
    fn sleeping_handlers_get_all_they_can_use() {
        // 1,000 connections and handlers of 200 ms: 5,000 requests in each second are possible.
        let half = Simulation::run(16, 1024, 1000, 40, 200_000, 500_000);
        assert!(half.usable >= 900, "{} workers after half a second", half.usable);
        let later = Simulation::run(16, 1024, 1000, 40, 200_000, 2_500_000);
        assert!(later.usable <= 1024);
        let per_second = (later.done - half.done) / 2;
        assert!(per_second >= 4_800, "{per_second} requests per second");
    }

    #[test]
    fn computing_handlers_stay_with_what_they_have() {
        for (compute, sleep) in [(5_000, 0), (20_000, 0), (2_000, 50), (1_000, 1_000)] {
            let simulation = Simulation::run(16, 1024, 200, compute, sleep, 20_000_000);
            assert!(simulation.usable <= 20, "{compute} + {sleep} µs: {} workers", simulation.usable);
        }
    }

    #[test]
    fn many_short_turns_are_a_busy_gil_too() {
        // Nobody keeps the GIL for long, yet it is never idle: only the CPU time tells.
        let simulation = Simulation::run(16, 1024, 200, 100, 10_000, 20_000_000);
        assert!(simulation.usable <= 200, "{} workers", simulation.usable);
        let mut elastic = Elastic::new(1024);
        let mut started = 0;
        for millisecond in 0..1_000 {
            let sight = Sight {
                waiting: 100,
                idle: false,
                usable: 16,
                short: false,
                gil_wait: Duration::from_micros(100),
                cpu: Duration::from_micros(millisecond * 20 * 980),
            };
            started += elastic.look(Instant::from_nanos(millisecond * 20_000_000), sight).start;
        }
        assert_eq!(started, 0);
    }

    #[test]
    fn a_mixture_grows_until_the_gil_is_busy() {
        // Computes 2 ms in 100: some fifty of these use the GIL up.
        let simulation = Simulation::run(4, 1024, 1000, 2_000, 98_000, 20_000_000);
        assert!((12..=120).contains(&simulation.usable), "{} workers", simulation.usable);
    }

    #[test]
    fn a_gil_that_is_dropped_sooner_is_busy_sooner() {
        let started = |short: bool| {
            let mut elastic = Elastic::new(1024);
            let sight = Sight {
                waiting: 9,
                idle: false,
                usable: 16,
                short,
                gil_wait: Duration::from_micros(limits::SWITCH_SHORT_US),
                cpu: Duration::ZERO,
            };
            (0..40).map(|looks| elastic.look(Instant::from_nanos(looks * 4_000_000), sight).start).sum::<usize>()
        };
        assert_eq!(started(true), 0, "who waits as long as the interval waits for somebody who computes");
        assert!(started(false) > 0);
    }

    #[test]
    fn nobody_waits_nobody_is_started() {
        let mut elastic = Elastic::new(64);
        let sight =
            Sight { waiting: 9, idle: false, usable: 16, short: false, gil_wait: Duration::ZERO, cpu: Duration::ZERO };
        for looks in 0..100 {
            let now = Instant::from_nanos(looks * 4_000_000);
            for sight in [
                Sight { waiting: 0, ..sight },
                Sight { idle: true, ..sight },
                Sight { usable: 64, ..sight },
                Sight { usable: 70, ..sight },
            ] {
                assert_eq!(elastic.look(now, sight), Plan::default());
            }
        }
        let mut usable = 16;
        for looks in 100..140 {
            let plan = elastic.look(Instant::from_nanos(looks * 4_000_000), Sight { usable, ..sight });
            assert!(plan.start <= 9, "no more than wait");
            usable += plan.start;
        }
        assert_eq!(usable, 64, "and no more than there may be");
    }

    #[test]
    fn spare_workers_are_those_that_have_rested_long() {
        let at = |seconds| Instant::from_nanos(seconds * 1_000_000_000);
        let idle = limits::POOL_IDLE_S;
        assert!(is_spare(at(100 + idle), at(100), 17, 16));
        assert!(!is_spare(at(99 + idle), at(100), 17, 16));
        assert!(!is_spare(at(100 + idle), at(100), 16, 16), "never below --workers");
    }
}
