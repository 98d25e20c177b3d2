//! The queue against the plain formula, worked out for every waiting request at every step, as wsgo does it.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::formula::{BEGINNING, BOT, FORGET_NS, QUERY, Source};
use super::*;

/// A waiting request of the model.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    name: u64,
    number: u32,
    asking: Asking,
    arrived: Instant,
}

/// The plain queue: a list, and no idea of heaps.
#[derive(Default)]
struct Plain {
    waiting: Vec<Waiting>,
    running: Vec<(u64, Option<Source>, i64)>,
    /// Recent requests of each source in nanoseconds, as of `now`.
    recent: std::collections::HashMap<Source, u64>,
    now: Instant,
}

impl Plain {
    fn pass(&mut self, now: Instant) {
        let passed = now.since(self.now).as_nanos() as u64;
        self.recent.values_mut().for_each(|recent| *recent = recent.saturating_sub(passed));
        self.now = now;
    }

    fn priority(&self, waiting: &Waiting) -> i64 {
        let waited = self.now.since(waiting.arrived).as_millis() as u64;
        let worn = (waited / limits::COST_WEARS_OFF_MS).min(8) as u8;
        let levels = waiting.asking.cost_levels.min(8 - worn);
        let mut priority = i64::from(waiting.asking.worth) - i64::from(COST) * i64::from(levels);
        if let Some(source) = waiting.asking.source {
            priority -= 2000 * self.running.iter().filter(|(_, other, _)| *other == Some(source)).count() as i64;
            priority -= 1000 * (self.recent.get(&source).copied().unwrap_or(0) / FORGET_NS) as i64;
        }
        priority
    }

    /// The request worth most (or least), the oldest of several.
    fn find(&self, sign: i64) -> Option<(usize, i64)> {
        let of = |index: usize| (sign * self.priority(&self.waiting[index]), index);
        (0..self.waiting.len()).map(of).min().map(|(worth, index)| (index, worth * sign))
    }

    fn pop(&mut self) -> Option<(u64, i32)> {
        let (index, priority) = self.find(-1)?;
        let worth_far_less = |&(_, _, other): &(u64, Option<Source>, i64)| other <= -7000 && other <= priority - 8000;
        let may_join = self.running.len() == 1 && self.running.iter().all(worth_far_less);
        if priority <= -7000 && !self.running.is_empty() && !may_join {
            return None;
        }
        let taken = self.waiting.remove(index);
        self.running.push((taken.name, taken.asking.source, priority));
        if let Some(source) = taken.asking.source {
            let recent = self.recent.entry(source).or_default();
            *recent = (*recent + FORGET_NS).min(limits::SOURCE_HISTORY_MAX * FORGET_NS);
        }
        Some((taken.name, priority as i32))
    }
}

fn asking(client: u8, query: bool, bot: bool, cost_levels: u8) -> Asking {
    let address: IpAddr = match client {
        0 => [10, 0, 0, 1].into(),
        1..=5 => [203, 0, 113, client].into(),
        other => {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(0x2001 << 112 | u128::from(other % 2) << 64 | u128::from(other)))
        }
    };
    let source = Source::of(address);
    let bot = bot && source.is_some();
    let worth = BEGINNING - if query { QUERY } else { 0 } - if bot { BOT } else { 0 };
    Asking { source, worth, cost_levels }
}

#[derive(Clone, Debug)]
enum Step {
    Push { client: u8, points: i32, query: bool, bot: bool, cost: u8, late: u64 },
    Pop,
    Finish(usize),
    Pass(u64),
    Evict,
    Withdraw(usize),
    Oldest,
}

fn step() -> impl Strategy<Value = Step> {
    let nanoseconds = prop_oneof![
        Just(1),
        Just(FORGET_NS),
        Just(FORGET_NS - 1),
        Just(FORGET_NS + 1),
        Just(limits::COST_WEARS_OFF_MS * 1_000_000),
        0..3 * FORGET_NS,
        0..FORGET_NS / 50,
    ];
    prop_oneof![
        5 => (
            0u8..10,
            prop_oneof![Just(0), 0..1_000],
            any::<bool>(),
            prop::bool::weighted(0.2),
            prop_oneof![Just(0u8), 0u8..9],
            prop_oneof![Just(0), 0..FORGET_NS],
        )
            .prop_map(|(client, points, query, bot, cost, late)| Step::Push { client, points, query, bot, cost, late }),
        4 => Just(Step::Pop),
        3 => any::<usize>().prop_map(Step::Finish),
        2 => nanoseconds.prop_map(Step::Pass),
        1 => Just(Step::Evict),
        1 => any::<usize>().prop_map(Step::Withdraw),
        1 => Just(Step::Oldest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// The same request is taken, evicted, and found oldest, with the same priority, as by looking at all of them each time.
    #[test]
    fn as_the_plain_formula_has_it(steps in proptest::collection::vec(step(), 1..200)) {
        let (mut queue, mut plain, mut runs) = (Queue::default(), Plain::default(), Vec::new());
        plain.now = Instant::from_nanos(5 * FORGET_NS);
        for (name, step) in steps.into_iter().enumerate() {
            let (name, now) = (name as u64, plain.now);
            match step {
                Step::Push { client, points, query, bot, cost, late } => {
                    let mut asking = asking(client, query, bot, cost);
                    // What a prefix adds: more sums than a source has lanes.
                    asking.worth += points;
                    let arrived = Instant::from_nanos(now.as_nanos() - late);
                    let number = queue.push(name, asking, arrived, now);
                    plain.waiting.push(Waiting { name, number, asking, arrived });
                }
                Step::Pop => {
                    let expected = plain.pop();
                    let ready = queue.outlook(now) == Outlook::Ready;
                    let taken = queue.pop(now);
                    prop_assert_eq!(taken.as_ref().map(|taken| (taken.item, taken.priority)), expected);
                    prop_assert_eq!(ready, expected.is_some());
                    runs.extend(taken.map(|taken| taken.run));
                }
                Step::Finish(which) if !runs.is_empty() => {
                    let which = which % runs.len();
                    queue.finish(runs.remove(which), now);
                    plain.running.remove(which);
                }
                Step::Pass(nanoseconds) => plain.pass(now + Duration::from_nanos(nanoseconds)),
                Step::Evict => {
                    let expected = plain.find(1);
                    prop_assert_eq!(queue.lowest(now), expected.map(|(index, _)| plain.waiting[index].arrived));
                    let expected = expected.map(|(index, priority)| (plain.waiting.remove(index).name, priority as i32));
                    prop_assert_eq!(queue.evict(now), expected);
                }
                Step::Withdraw(which) if !plain.waiting.is_empty() => {
                    let meant = plain.waiting.remove(which % plain.waiting.len());
                    prop_assert_eq!(queue.withdraw(meant.number, now, |name| *name != meant.name), None);
                    let expected = Some((meant.name, plain.priority(&meant) as i32));
                    prop_assert_eq!(queue.withdraw(meant.number, now, |name| *name == meant.name), expected);
                }
                Step::Oldest => {
                    prop_assert_eq!(queue.oldest(), plain.waiting.first().map(|oldest| oldest.arrived));
                    let expected = plain.waiting.first().map(|oldest| (oldest.name, plain.priority(oldest) as i32));
                    if expected.is_some() {
                        plain.waiting.remove(0);
                    }
                    prop_assert_eq!(queue.remove_oldest(now), expected);
                }
                Step::Finish(_) | Step::Withdraw(_) => {}
            }
            prop_assert_eq!((queue.len(), queue.running()), (plain.waiting.len(), plain.running.len()));
            let low = plain.running.iter().filter(|(_, _, priority)| *priority <= -7000).count();
            prop_assert_eq!(queue.running_low(), low);
        }
    }
}

const fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(1_000_000_000_000 + milliseconds * 1_000_000)
}

/// What of eight requests of one source, pushed at these times, starts at once.
fn started_at_once(times: [u64; 8]) -> usize {
    let mut queue = Queue::default();
    let mut started = 0;
    let mut runs = Vec::new();
    for milliseconds in times {
        let now = at(milliseconds);
        queue.push((), asking(1, false, false, 0), now, now);
        if let Some(taken) = queue.pop(now + Duration::from_micros(10)) {
            runs.push(taken.run);
            started += 1;
        }
    }
    started
}

#[test]
fn one_source_gets_three_workers_in_a_burst_and_four_when_it_takes_its_time() {
    assert_eq!(started_at_once([0; 8]), 3);
    assert_eq!(started_at_once([0, 1_100, 2_200, 3_300, 4_400, 5_500, 6_600, 7_700]), 4);
}

#[test]
fn exempt_clients_are_first_come_first_served() {
    let mut queue = Queue::default();
    for name in 0..1_000 {
        queue.push(name, asking(0, false, true, 0), at(name), at(name));
    }
    let order: Vec<u64> = std::iter::from_fn(|| queue.pop(at(1_000)).map(|taken| taken.item)).collect();
    assert!(order.is_sorted() && order.len() == 1_000 && queue.running() == 1_000);
}

#[test]
fn bots_wait_until_nothing_runs() {
    let mut queue = Queue::default();
    queue.push("bot", asking(1, false, true, 0), at(0), at(0));
    queue.push("bot too", asking(2, false, true, 0), at(0), at(0));
    queue.push("somebody", asking(0, false, false, 0), at(1), at(1));
    let first = queue.pop(at(2)).unwrap();
    assert_eq!((first.item, first.priority), ("somebody", 1000));
    assert_eq!(queue.outlook(at(3)), Outlook::Held(Instant::NEVER));
    assert_eq!(queue.pop(at(3)), None);
    queue.finish(first.run, at(4));
    assert_eq!(queue.outlook(at(4)), Outlook::Ready);
    let second = queue.pop(at(4)).unwrap();
    assert_eq!((second.item, second.priority), ("bot", -7000));
    assert_eq!(queue.pop(at(9_000)), None, "one at a time");
    queue.finish(second.run, at(9_000));
    assert_eq!(queue.pop(at(9_000)).map(|taken| taken.item), Some("bot too"));
}

#[test]
fn who_asks_too_much_waits_for_the_like_but_not_for_who_asks_without_end() {
    let mut queue = Queue::default();
    let run_of = |queue: &mut Queue<u8>, client, times| {
        let mut last = None;
        for _ in 0..times {
            queue.push(client, asking(client, false, false, 0), at(0), at(0));
            last.take().into_iter().for_each(|run| queue.finish(run, at(0)));
            last = queue.pop(at(0)).map(|taken| taken.run);
        }
        last
    };
    // Both have a history: nine requests of one, thirty of the other, none of which is forgotten yet.
    let modest = run_of(&mut queue, 2, 9).unwrap();
    queue.finish(modest, at(0));
    let greedy = run_of(&mut queue, 1, 30).unwrap();
    assert!(greedy.is_low() && queue.running_low() == 1);
    for client in [1, 2, 2] {
        queue.push(client, asking(client, false, false, 0), at(0), at(0));
    }
    let beside = queue.pop(at(0)).unwrap();
    assert!((beside.item, beside.run.is_low(), queue.running_low()) == (2, true, 2));
    assert!(matches!(queue.outlook(at(0)), Outlook::Held(_)), "two are enough");
    queue.finish(Run::in_place_of(greedy.name()), at(0));
    assert_eq!(queue.pop(at(0)), None, "the other one isn't worth far less");
    queue.finish(beside.run, at(0));
    assert_eq!((queue.running(), queue.running_low()), (0, 0));
    let last = queue.pop(at(0)).unwrap();
    assert_eq!(last.item, 2);
    queue.push(3, asking(3, false, false, 0), at(0), at(0));
    let plain = queue.pop(at(0)).unwrap();
    assert!(!plain.run.is_low());
    queue.finish(last.run, at(0));
    assert_eq!(queue.pop(at(0)), None, "never beside a plain request");
    queue.finish(plain.run, at(0));
    assert_eq!(queue.pop(at(0)).map(|taken| taken.item), Some(1));
}

#[test]
fn a_source_held_for_its_history_is_looked_at_when_that_fades() {
    let mut queue = Queue::default();
    let mut runs = Vec::new();
    for _ in 0..4 {
        queue.push((), asking(1, false, false, 0), at(0), at(0));
        runs.extend(queue.pop(at(0)).map(|taken| taken.run));
    }
    assert_eq!((runs.len(), queue.len()), (3, 1));
    let Outlook::Held(until) = queue.outlook(at(0)) else { panic!("held") };
    let Outlook::Held(until) = queue.outlook(until) else { panic!("1000 − 3 × 2000 − 2 × 1000 isn't enough") };
    assert_eq!(queue.outlook(until), Outlook::Ready, "1000 − 3 × 2000 − 1 × 1000 is");
    assert_eq!(until, at(1_000) + Duration::from_nanos(1));
    runs.into_iter().for_each(|run| queue.finish(run, at(1)));
}

#[test]
fn nothing_starves_for_its_cost() {
    let mut queue = Queue::default();
    queue.push(u64::MAX, asking(0, false, false, 8), at(0), at(0));
    let mut taken_at = None;
    for now in 0..4_000 {
        // More cheap requests than can be run.
        queue.push(now, asking(0, false, false, 0), at(now), at(now));
        queue.push(now, asking(0, false, false, 0), at(now), at(now));
        let taken = queue.pop(at(now)).unwrap();
        if taken.item == u64::MAX {
            taken_at = Some(now);
        }
        queue.finish(taken.run, at(now));
    }
    assert_eq!(taken_at, Some(2_000), "after two seconds its cost counts no more, and it is the oldest");
}

/// A client that doesn't read holds up what waits for an idle server only where it is its own.
#[test]
fn a_paused_request_counts_as_none_that_runs_but_for_its_own_source() {
    let mut queue = Queue::default();
    let push = |queue: &mut Queue<u8>, client, bot| {
        queue.push(client, asking(client, false, bot, 0), at(0), at(0));
    };
    push(&mut queue, 1, false);
    let plain = queue.pop(at(0)).unwrap().run;
    push(&mut queue, 2, true);
    assert!(matches!(queue.outlook(at(0)), Outlook::Held(_)));
    queue.set_paused(&plain, true);
    assert_eq!(queue.outlook(at(0)), Outlook::Ready);
    let low = queue.pop(at(0)).unwrap().run;
    assert!(low.is_low() && queue.running_low() == 1);
    push(&mut queue, 3, true);
    assert_eq!(queue.pop(at(0)), None, "one of them runs");
    queue.set_paused(&low, true);
    assert_eq!(queue.running_low(), 0);
    let other = queue.pop(at(0)).unwrap();
    assert!(other.item == 3 && other.run.is_low());
    queue.finish(other.run, at(0));
    push(&mut queue, 2, true);
    assert_eq!(queue.pop(at(0)), None, "its own source has a request that nobody reads");
    assert!(matches!(queue.outlook(at(0)), Outlook::Held(_)));
    queue.set_paused(&low, false);
    queue.set_paused(&plain, false);
    push(&mut queue, 4, true);
    assert!(queue.running_low() == 1 && queue.pop(at(0)).is_none(), "they go on");
    // One is given up while it is paused, and goes on after that.
    queue.set_paused(&low, true);
    queue.finish(Run::in_place_of(low.name()), at(0));
    queue.set_paused(&low, false);
    queue.finish(plain, at(0));
    assert_eq!((queue.running(), queue.running_low()), (0, 0));
    assert!(queue.pop(at(0)).is_some() && queue.pop(at(0)).is_none(), "one at a time, as ever");
}
