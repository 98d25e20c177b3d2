//! Who wakes whom: the policy by which workers share the GIL. Atomics only: it parks nobody, reads no clock, knows no queue.
//!
//! A thread that waits for the GIL while another one computes makes it be dropped every 5 ms (`sys.getswitchinterval`), and a
//! request in its hands waits just as long. So workers take a request only when they hold the GIL, and no more than one, the
//! *contender*, is ever on its way to it. It is woken
//!
//! - when something waits and nobody runs ([`Baton::tick`]);
//! - when something has waited for longer than the pool's *patience* and either nothing was taken for as long, or what is taken
//!   had waited as long ([`Baton::stall`]): whoever runs computes for long, or has let the GIL go in a wait of its own;
//! - when something has waited for a moment that is worth far more than a request that runs: this contender is to take the GIL by
//!   force, and sooner than after 5 ms ([`super::interval`]);
//! - at once by the worker that has just taken a request and leaves others behind ([`Baton::popped`]), if the pool has learned that
//!   this application's handlers let the GIL go.
//!
//! It is learned from the contenders, as a score: one that got the GIL soon, while another worker was in the midst of a request,
//! and found work, was of use; one that found nothing was not; one that had to take the GIL by force did harm: now two compute at
//! once, and the first of them to finish its request retires ([`Baton::retires`]). A low score makes the pool patient.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::limits;
use crate::reactor::clock::Instant;

/// A contender that had the GIL within this time got it from a worker that waits, not from one that computes. It includes the
/// time a thread needs to wake, some 50 µs on an idle machine.
const SOON: Duration = Duration::from_millis(2);
/// A contender that had to wait this long got the GIL by force (after 5 ms by default).
const FORCED: Duration = Duration::from_millis(4);
/// The score moves between 0 and this.
const SCORE_MAX: u8 = 20;
/// Of a pool that knows nothing yet: patience is eight stalls (4 ms), more than a full turn of quick requests takes.
const SCORE_AT_FIRST: u8 = 4;
const USEFUL: i8 = 2;
const USELESS: i8 = -1;
const HARMFUL: i8 = -3;
/// From here on patience is one stall; each point less doubles it, up to 64 ms.
const IMPATIENT_AT: u8 = 7;
/// Learned when the score gets here (four useful contenders in a row)…
const LEARNED_AT: u8 = 11;
/// …and forgotten when it is back here.
const FORGOTTEN_AT: u8 = 7;
/// How often to look again while all workers are busy: whoever becomes idle looks itself.
const BUSY: Duration = Duration::from_millis(10);
/// A rest shorter than this isn't worth its system call.
const GATHER_MIN: Duration = Duration::from_micros(100);
const GATHER: Duration = Duration::from_micros(limits::GATHER_US);
/// With fewer requests in the queue the workers may soon have nothing to do.
const GATHER_WAITING_MIN: usize = 4;
const STALL: Duration = Duration::from_micros(limits::STALL_US);

const URGENT: Duration = Duration::from_micros(limits::URGENT_US);
/// How many times shorter CPython's switch interval is while it is short ([`super::interval`]): then so are these times.
const SHORTER: u32 = (limits::SWITCH_DEFAULT_US / limits::SWITCH_SHORT_US) as u32;

const NOBODY: u8 = 0;
/// Woken while no worker was running.
const ALONE: u8 = 1;
/// Woken while another worker was in the midst of a request.
const BESIDE: u8 = 2;
/// Likewise, for a request that is worth far more than that one: it is meant to take the GIL by force.
const AHEAD: u8 = 3;

/// What [`Baton::stall`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// This worker must be unparked.
    Wake(u32),
    /// Nothing to do before this time has passed.
    Look(Duration),
}

/// The state of the workers of one pool.
pub struct Baton {
    /// One bit for each worker: set while it is parked, or about to be. Whoever clears it has chosen that worker.
    idle: Box<[AtomicU64]>,
    contender: AtomicU8,
    /// When the contender was chosen.
    chosen_at: AtomicU64,
    /// Workers that have taken a request and have not found the queue empty since.
    running: AtomicU32,
    /// Contenders that took the GIL by force, and whose place nobody has left since.
    surplus: AtomicU32,
    /// When a request was last taken…
    last_pop: AtomicU64,
    /// …and how long it had waited, in nanoseconds.
    last_wait: AtomicU64,
    score: AtomicU8,
    learned: AtomicBool,
    /// Whether the GIL is dropped sooner than by default.
    short: AtomicBool,
}

impl Baton {
    /// For `workers` workers, none of them idle yet.
    pub fn new(workers: usize) -> Self {
        Self {
            idle: (0..workers.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            contender: AtomicU8::new(NOBODY),
            chosen_at: AtomicU64::new(0),
            running: AtomicU32::new(0),
            surplus: AtomicU32::new(0),
            last_pop: AtomicU64::new(0),
            last_wait: AtomicU64::new(0),
            score: AtomicU8::new(SCORE_AT_FIRST),
            learned: AtomicBool::new(false),
            short: AtomicBool::new(false),
        }
    }

    /// Something waits: the worker to unpark, if nobody runs or is on the way.
    pub fn tick(&self, now: Instant) -> Option<u32> {
        // Pairs with the fence in `rest`: what waits was put there before this, so either this thread sees that the worker
        // isn't running any more, or that worker sees what waits.
        fence(Ordering::SeqCst);
        if self.running.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.choose(ALONE, now)
    }

    /// Something waits: the worker to unpark if it has waited too long, or when to look again. `urgent`: it is worth far more than
    /// something that runs.
    pub fn stall(&self, now: Instant, urgent: bool) -> Watch {
        if self.contender.load(Ordering::Relaxed) != NOBODY {
            return Watch::Look(STALL);
        }
        let beside = self.running.load(Ordering::Relaxed) > 0;
        let (why, left) = match (beside, urgent) {
            (false, _) => (ALONE, None),
            (true, false) => (BESIDE, self.patience_left(now)),
            // Whoever runs may be about to take it: waking another one costs more than a quick request.
            (true, true) => (AHEAD, URGENT.checked_sub(now.since(self.last_pop())).filter(|left| !left.is_zero())),
        };
        if let Some(left) = left {
            return Watch::Look(left);
        }
        match self.choose(why, now) {
            Some(worker) => Watch::Wake(worker),
            None => Watch::Look(BUSY),
        }
    }

    /// How much longer what waits should wait for the workers that run.
    fn patience_left(&self, now: Instant) -> Option<Duration> {
        let since = |at: &AtomicU64| now.since(Instant::from_nanos(at.load(Ordering::Relaxed)));
        let patience = self.patience();
        let mut passed = since(&self.last_pop);
        if Duration::from_nanos(self.last_wait.load(Ordering::Relaxed)) >= patience {
            // Requests are taken, but late: another contender, once the last one has had its effect.
            passed = passed.max(since(&self.chosen_at));
        }
        patience.checked_sub(passed).filter(|left| !left.is_zero())
    }

    fn patience(&self) -> Duration {
        STALL * (1 << IMPATIENT_AT.saturating_sub(self.score.load(Ordering::Relaxed)))
    }

    /// A worker has taken a request that had `waited` so long, and will run it now; `more` are left in the queue. The worker to
    /// unpark before that.
    pub fn popped(&self, now: Instant, waited: Duration, more: bool) -> Option<u32> {
        self.last_pop.store(now.as_nanos(), Ordering::Relaxed);
        self.last_wait.store(waited.as_nanos() as u64, Ordering::Relaxed);
        if more && self.learned.load(Ordering::Relaxed) { self.choose(BESIDE, now) } else { None }
    }

    /// When a request was last taken.
    pub fn last_pop(&self) -> Instant {
        Instant::from_nanos(self.last_pop.load(Ordering::Relaxed))
    }

    /// How long a reactor may leave lying what arrives and what is answered while `waiting` requests are queued; zero: not at all.
    ///
    /// Where handlers are slow, each answer would leave alone and each request arrive alone: then reactor and worker switch, and the client
    /// is woken, once for each of them. What waits is half as long at most as the queue keeps the workers busy anyway. An
    /// application whose handlers let the GIL go isn't kept waiting: its next worker may be idle.
    pub fn gathering(&self, waiting: usize) -> Duration {
        if waiting < GATHER_WAITING_MIN || self.learned.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let time = Duration::from_nanos(self.last_wait.load(Ordering::Relaxed)) / 2;
        if time < GATHER_MIN { Duration::ZERO } else { time.min(GATHER) }
    }

    /// A worker that had nothing takes its first request.
    pub fn start(&self) {
        self.running.fetch_add(1, Ordering::SeqCst);
    }

    /// The contender holds the GIL, and has `found` a request or not. After [`Baton::start`], so that there is always either a
    /// contender or somebody running while it gets to work.
    pub fn arrived(&self, now: Instant, found: bool) {
        let why = self.contender.load(Ordering::Relaxed);
        if why == BESIDE || why == AHEAD {
            let waited = now.since(Instant::from_nanos(self.chosen_at.load(Ordering::Relaxed)));
            let shorter = if self.short.load(Ordering::Relaxed) { SHORTER } else { 1 };
            let forced = waited >= FORCED / shorter;
            if forced && found {
                self.surplus.fetch_add(1, Ordering::Relaxed);
            }
            if why == AHEAD {
                // It came for its request's sake, and says nothing of the others.
            } else if forced {
                self.judge(HARMFUL);
            } else if !found {
                self.judge(USELESS);
            } else if waited < SOON / shorter {
                self.judge(USEFUL);
            }
        }
        self.contender.store(NOBODY, Ordering::SeqCst);
    }

    /// Whether there is a worker too many: whoever ends a request then asks [`Baton::retires`].
    pub fn has_surplus(&self) -> bool {
        self.surplus.load(Ordering::Relaxed) > 0
    }

    /// A worker has ended a request: whether it is one too many and rests now, whatever waits. In place of [`Baton::stop`].
    pub fn retires(&self) -> bool {
        let less = |count: u32| count.checked_sub(1);
        if !self.has_surplus() || self.surplus.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
            return false;
        }
        // The last one stays: somebody has to take what waits.
        let others = |running: u32| (running > 1).then(|| running - 1);
        self.running.fetch_update(Ordering::SeqCst, Ordering::Relaxed, others).is_ok()
    }

    /// A worker that ran has found the queue empty.
    pub fn stop(&self) {
        let before = self.running.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "each stop has a start");
    }

    /// A worker is about to park. It must then look whether something waits, and if so ask [`Baton::tick`] and [`Baton::stall`],
    /// and park only while [`Baton::is_idle`].
    pub fn rest(&self, worker: u32) {
        self.word(worker).fetch_or(bit(worker), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Contender: whether it was woken for what is worth far more than a request that runs, and is to take the GIL by force.
    pub fn is_ahead(&self) -> bool {
        self.contender.load(Ordering::Relaxed) == AHEAD
    }

    /// Whether nobody has chosen this resting worker.
    pub fn is_idle(&self, worker: u32) -> bool {
        self.word(worker).load(Ordering::Acquire) & bit(worker) != 0
    }

    /// A resting worker leaves its rest by itself. False if it was chosen in the meantime: it is the contender then.
    pub fn withdraw(&self, worker: u32) -> bool {
        self.word(worker).fetch_and(!bit(worker), Ordering::AcqRel) & bit(worker) != 0
    }

    /// Whether any worker rests.
    pub fn has_idle(&self) -> bool {
        self.idle.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Whether the pool has learned that handlers let the GIL go.
    pub fn has_learned(&self) -> bool {
        self.learned.load(Ordering::Relaxed)
    }

    /// From now on the GIL is dropped after [`limits::SWITCH_SHORT_US`], or after CPython's default again.
    pub fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// Whether the GIL is dropped sooner than by default.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    fn word(&self, worker: u32) -> &AtomicU64 {
        &self.idle[worker as usize / 64]
    }

    /// Makes the idle worker with the lowest number (its caches are the warmest) the contender.
    fn choose(&self, why: u8, now: Instant) -> Option<u32> {
        // A plain look first: most calls end here, and must not take the cache line away from the workers.
        while self.contender.load(Ordering::Relaxed) == NOBODY
            && self.contender.compare_exchange(NOBODY, why, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        {
            self.chosen_at.store(now.as_nanos(), Ordering::Relaxed);
            if let Some(worker) = self.take_lowest() {
                return Some(worker);
            }
            self.contender.store(NOBODY, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            // A worker that came to rest after its word was looked at has seen a contender and relies on it: look once more.
            if !self.has_idle() {
                return None;
            }
        }
        None
    }

    fn take_lowest(&self) -> Option<u32> {
        for (index, word) in self.idle.iter().enumerate() {
            let mut bits = word.load(Ordering::SeqCst);
            while bits != 0 {
                let lowest = bits & bits.wrapping_neg();
                let before = word.fetch_and(!lowest, Ordering::AcqRel);
                if before & lowest != 0 {
                    return Some((index * 64) as u32 + lowest.trailing_zeros());
                }
                bits = before & !lowest;
            }
        }
        None
    }

    /// Only the contender judges, so there is one writer at a time.
    fn judge(&self, by: i8) {
        let score = self.score.load(Ordering::Relaxed).saturating_add_signed(by).min(SCORE_MAX);
        self.score.store(score, Ordering::Relaxed);
        if score >= LEARNED_AT {
            self.learned.store(true, Ordering::Relaxed);
        } else if score <= FORGOTTEN_AT {
            self.learned.store(false, Ordering::Relaxed);
        }
    }
}

const fn bit(worker: u32) -> u64 {
    1 << (worker % 64)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;

    const fn at(microseconds: u64) -> Instant {
        // Not at the clock's zero: no request was taken then either.
        Instant::from_nanos((1_000_000 + microseconds) * 1_000)
    }

    /// How long a request has waited that was taken at once.
    const QUICK: Duration = Duration::from_micros(10);
    /// The patience of a pool that knows nothing yet.
    const AT_FIRST: Duration = Duration::from_micros(8 * limits::STALL_US);

    fn resting(workers: u32) -> Baton {
        let baton = Baton::new(workers as usize);
        (0..workers).for_each(|worker| baton.rest(worker));
        baton
    }

    #[test]
    fn one_contender_at_a_time_the_lowest_first() {
        let baton = resting(130);
        assert_eq!(baton.tick(at(0)), Some(0));
        assert_eq!(baton.tick(at(0)), None, "it is on its way");
        assert_eq!(baton.stall(at(9_999), false), Watch::Look(STALL));
        baton.start();
        baton.arrived(at(50), true);
        assert_eq!(baton.popped(at(50), QUICK, true), None, "nothing learned yet");
        assert_eq!(baton.tick(at(60)), None, "somebody runs");
        assert_eq!(baton.stall(at(60), false), Watch::Look(AT_FIRST - Duration::from_micros(10)));
        assert_eq!(baton.stall(at(50) + AT_FIRST, false), Watch::Wake(1));
        assert!(!baton.is_idle(1) && baton.is_idle(2) && baton.is_idle(129));
        assert!(baton.withdraw(129) && !baton.withdraw(1));
        baton.arrived(at(4_100), false);
        baton.stop();
        baton.rest(0);
        assert_eq!(baton.tick(at(4_200)), Some(0), "its caches are the warmest");
    }

    #[test]
    fn all_busy_is_looked_at_again() {
        let baton = Baton::new(1);
        baton.start();
        baton.popped(at(0), QUICK, true);
        assert_eq!(baton.stall(at(6_000), false), Watch::Look(BUSY));
        baton.stop();
        baton.rest(0);
        assert_eq!(baton.stall(at(7_000), false), Watch::Wake(0), "no contender was left behind");
    }

    #[test]
    fn what_contenders_find_is_learned_and_forgotten() {
        let baton = resting(64);
        baton.start();
        let contend = |waited: u64, found: bool| {
            baton.popped(at(0), QUICK, false);
            let Watch::Wake(worker) = baton.stall(at(70_000), false) else { panic!("a stall") };
            baton.arrived(at(70_000 + waited), found);
            baton.rest(worker);
            baton.has_learned()
        };
        let check = |waited, found, expected: &[bool]| {
            let seen: Vec<bool> = expected.iter().map(|_| contend(waited, found)).collect();
            assert_eq!(seen, expected, "{waited} {found}");
        };
        check(60, true, &[false, false, false, true, true, true, true, true]);
        check(3_000, true, &[true; 9]);
        check(5_000, true, &[true, true, true, true, false, false, false]);
        assert_eq!(baton.patience(), STALL * 128, "a pool that was wrong each time waits longest");
        check(60, true, &[false, false, false, false, false, true]);
        check(60, false, &[true, true, true, true, false]);
    }

    #[test]
    fn who_took_the_gil_by_force_makes_one_retire() {
        let baton = resting(3);
        assert_eq!(baton.tick(at(0)), Some(0));
        baton.start();
        baton.arrived(at(50), true);
        baton.popped(at(50), QUICK, true);
        let Watch::Wake(1) = baton.stall(at(5_000), false) else { panic!("a stall") };
        assert!(!baton.retires(), "nobody came by force yet");
        baton.start();
        baton.arrived(at(10_000), true);
        assert!(baton.retires());
        assert!(!baton.retires(), "one is enough");
        baton.rest(0);
        assert_eq!(baton.tick(at(10_100)), None, "the other one still runs");
        baton.stop();
        assert_eq!(baton.tick(at(10_200)), Some(0));
    }

    #[test]
    fn what_is_urgent_is_neither_kept_waiting_nor_learned_from() {
        let baton = resting(3);
        baton.set_short(true);
        assert_eq!(baton.tick(at(0)), Some(0));
        baton.start();
        baton.arrived(at(50), true);
        baton.popped(at(50), QUICK, false);
        assert_eq!(baton.stall(at(60), true), Watch::Look(URGENT - Duration::from_micros(10)), "it may be done soon");
        assert_eq!(baton.stall(at(150), false), Watch::Look(AT_FIRST - Duration::from_micros(100)));
        assert_eq!(baton.stall(at(150), true), Watch::Wake(1));
        assert_eq!(baton.stall(at(160), true), Watch::Look(STALL), "one is on its way");
        let score = baton.score.load(Ordering::Relaxed);
        baton.start();
        baton.arrived(at(150 + limits::SWITCH_SHORT_US), true);
        assert_eq!(baton.score.load(Ordering::Relaxed), score, "that it took the GIL by force was meant");
        assert!(baton.retires() && !baton.retires(), "one of the two rests in the end");
        assert_eq!(baton.tick(at(600)), None, "the other one runs");
        baton.stop();
        assert_eq!(baton.stall(at(700), true), Watch::Wake(2), "nobody runs: it has the GIL to itself");
    }

    #[test]
    fn what_is_learned_goes_by_how_soon_the_gil_is_dropped() {
        let learned = |short: bool, waited: u64| {
            let baton = resting(2);
            baton.set_short(short);
            baton.start();
            baton.popped(at(0), QUICK, false);
            assert_eq!(baton.stall(at(5_000), false), Watch::Wake(0));
            baton.arrived(at(5_000 + waited), true);
            i16::from(baton.score.load(Ordering::Relaxed)) - i16::from(SCORE_AT_FIRST)
        };
        assert_eq!([60, 1_900, 3_000, 4_100].map(|waited| learned(false, waited)), [2, 2, 0, -3]);
        assert_eq!([60, 95, 150, 205].map(|waited| learned(true, waited)), [2, 2, 0, -3]);
    }

    #[test]
    fn a_reactor_gathers_only_while_the_workers_are_behind() {
        let baton = resting(2);
        let gathering = |waited: u64, waiting| {
            baton.popped(at(0), Duration::from_micros(waited), true);
            baton.gathering(waiting).as_micros() as u64
        };
        assert_eq!(gathering(10_000, 3), 0, "soon they have nothing to do");
        assert_eq!(gathering(10_000, 4), limits::GATHER_US);
        assert_eq!(gathering(800, 60), 400, "half of what a request waits anyway");
        assert_eq!(gathering(150, 60), 0, "quick handlers fill a batch by themselves");
        (0..4).for_each(|_| baton.judge(USEFUL));
        assert_eq!(gathering(10_000, 60), 0, "handlers that wait leave the processor to others");
    }

    #[test]
    fn requests_taken_late_call_for_another_contender() {
        let baton = resting(3);
        baton.start();
        for now in (0..3_900).step_by(100) {
            baton.popped(at(now), AT_FIRST * 2, true);
        }
        assert_eq!(baton.stall(at(3_900), false), Watch::Wake(0), "taken often, but late");
        baton.start();
        baton.arrived(at(3_950), true);
        baton.popped(at(3_950), AT_FIRST * 2, true);
        assert!(matches!(baton.stall(at(4_000), false), Watch::Look(_)), "the last one is to have its effect first");
    }

    /// A process in virtual time: threads that need a while to wake, and a GIL that is let go in waits, or dropped after 5 ms
    /// when another thread wants it.
    struct Simulation {
        baton: Baton,
        cpu: u64,
        sleep: u64,
        connections: u32,
        queue: VecDeque<u64>,
        events: BinaryHeap<Reverse<(u64, u64, Step)>>,
        serial: u64,
        holder: Option<u32>,
        wanting: VecDeque<(u32, Then)>,
        /// For each worker: CPU time its request still needs, and when the request came.
        left: Vec<(u64, u64)>,
        runs: Vec<bool>,
        contender: Vec<bool>,
        done: u64,
        latest: u64,
        handled: Vec<u64>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Step {
        Arrive,
        Attach(u32),
        Compute(u32),
        Slept(u32),
        Look,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Then {
        Take,
        GoOn,
        End,
    }

    impl Simulation {
        fn run(workers: u32, connections: u32, cpu: u64, sleep: u64, until: u64) -> Self {
            let mut simulation = Self {
                baton: resting(workers),
                cpu,
                sleep,
                connections,
                queue: VecDeque::new(),
                events: BinaryHeap::new(),
                serial: 0,
                holder: None,
                wanting: VecDeque::new(),
                left: vec![(0, 0); workers as usize],
                runs: vec![false; workers as usize],
                contender: vec![false; workers as usize],
                done: 0,
                latest: 0,
                handled: vec![0; workers as usize],
            };
            for connection in 0..connections {
                simulation.later(u64::from(connection) % 50, Step::Arrive);
            }
            simulation.later(0, Step::Look);
            while let Some(Reverse((now, _, step))) = simulation.events.pop() {
                if now > until {
                    break;
                }
                simulation.step(now, step);
            }
            simulation
        }

        fn later(&mut self, when: u64, step: Step) {
            self.serial += 1;
            self.events.push(Reverse((when, self.serial, step)));
        }

        fn wake(&mut self, now: u64, worker: Option<u32>) {
            if let Some(worker) = worker {
                self.contender[worker as usize] = true;
                self.later(now + 50, Step::Attach(worker));
            }
        }

        fn step(&mut self, now: u64, step: Step) {
            match step {
                Step::Arrive => {
                    self.queue.push_back(now);
                    let worker = self.baton.tick(at(now));
                    self.wake(now, worker);
                }
                Step::Look => {
                    if !self.queue.is_empty() {
                        if let Watch::Wake(worker) = self.baton.stall(at(now), false) {
                            self.wake(now, Some(worker));
                        }
                    }
                    self.later(now + limits::STALL_US / 2, Step::Look);
                }
                Step::Attach(worker) => self.want(now, worker, Then::Take),
                Step::Slept(worker) => self.want(now, worker, Then::End),
                Step::Compute(worker) => self.computed(now, worker),
            }
        }

        fn want(&mut self, now: u64, worker: u32, then: Then) {
            self.wanting.push_back((worker, then));
            self.give(now);
        }

        /// Gives a free GIL to the one that has wanted it longest.
        fn give(&mut self, now: u64) {
            while self.holder.is_none() {
                let Some((worker, then)) = self.wanting.pop_front() else { return };
                self.holder = Some(worker);
                match then {
                    Then::Take => self.take(now, worker),
                    Then::GoOn => self.compute(now, worker),
                    Then::End => self.ended(now, worker),
                }
            }
        }

        fn take(&mut self, now: u64, worker: u32) {
            let index = worker as usize;
            if self.runs[index] && self.baton.retires() {
                self.runs[index] = false;
                self.baton.rest(worker);
                self.holder = None;
                return;
            }
            let next = self.queue.pop_front();
            if next.is_some() && !std::mem::replace(&mut self.runs[index], true) {
                self.baton.start();
            }
            if std::mem::replace(&mut self.contender[index], false) {
                self.baton.arrived(at(now), next.is_some());
            }
            if let Some(came) = next {
                let waited = Duration::from_micros(now - came);
                let woken = self.baton.popped(at(now), waited, !self.queue.is_empty());
                self.wake(now, woken);
                self.left[index] = (self.cpu, came);
                self.compute(now, worker);
                return;
            }
            if std::mem::replace(&mut self.runs[index], false) {
                self.baton.stop();
            }
            self.baton.rest(worker);
            self.holder = None;
        }

        fn compute(&mut self, now: u64, worker: u32) {
            let slice = self.left[worker as usize].0.min(5_000);
            self.left[worker as usize].0 -= slice;
            self.later(now + slice, Step::Compute(worker));
        }

        fn computed(&mut self, now: u64, worker: u32) {
            if self.left[worker as usize].0 > 0 {
                if self.wanting.is_empty() {
                    self.compute(now, worker);
                } else {
                    self.holder = None;
                    self.wanting.push_back((worker, Then::GoOn));
                    self.give(now);
                }
            } else if self.sleep > 0 {
                self.holder = None;
                self.later(now + self.sleep, Step::Slept(worker));
                self.give(now);
            } else {
                self.ended(now, worker);
            }
        }

        fn ended(&mut self, now: u64, worker: u32) {
            let came = self.left[worker as usize].1;
            self.latest = self.latest.max(now - came);
            self.done += 1;
            self.handled[worker as usize] += 1;
            self.later(now + 30, Step::Arrive);
            debug_assert!(self.done < 10_000_000 && self.connections > 0);
            self.take(now, worker);
            self.give(now);
        }

        fn workers_used(&self) -> usize {
            self.handled.iter().filter(|&&handled| handled > 0).count()
        }
    }

    #[test]
    fn fast_handlers_stay_on_one_worker() {
        for connections in [1, 8, 64, 512] {
            let one = Simulation::run(1, connections, 3, 0, 1_000_000);
            let many = Simulation::run(16, connections, 3, 0, 1_000_000);
            assert_eq!(many.workers_used(), 1, "{connections} connections: {:?}", many.handled);
            assert_eq!((many.done, many.latest), (one.done, one.latest), "{connections} connections");
        }
    }

    #[test]
    fn blocking_handlers_get_as_many_workers_as_there_are() {
        // 1,000 connections and handlers of 200 ms: 5,000 requests in each second are possible. The first 300 ms are left out.
        let early = Simulation::run(1_000, 1_000, 20, 200_000, 300_000);
        let late = Simulation::run(1_000, 1_000, 20, 200_000, 2_300_000);
        let per_second = (late.done - early.done) / 2;
        assert!(per_second >= 4_700, "{per_second} requests per second");
        assert!(late.latest < 500_000, "the slowest took {} µs", late.latest);
        let few = Simulation::run(600, 512, 20, 10_000, 2_000_000);
        assert!(few.done >= 80_000, "{} requests of 10 ms in 2 s", few.done);
    }

    #[test]
    fn long_computations_are_not_fought_over() {
        let one = Simulation::run(1, 64, 20_000, 0, 4_000_000);
        let many = Simulation::run(16, 64, 20_000, 0, 4_000_000);
        assert!(many.done * 20 >= one.done * 19, "{} with 16 workers, {} with one", many.done, one.done);
        assert!(!many.baton.has_learned());
    }
}
