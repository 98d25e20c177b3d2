//! The requests that wait for a worker of this process: [`Queue`] for many threads.
//!
//! Reactors put requests into a lock-free intake and go on; workers, and a reactor when it has reason to, take the lock, move
//! what is in the intake into the queue, and do what they came for. A worker takes it once for each request, a reactor only when
//! somebody has to be turned away: too many wait, too long, or the client is gone.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::limits;
use crate::observe::client::Client;
use crate::reactor::clock::{self, Instant};
use crate::serve::exchange::{Exchange, Link, TurnedAway};
use crate::serve::http1::path::percent_decode;
use crate::serve::queue::cost::Costs;
use crate::serve::queue::rules::{Request, Rules};
use crate::serve::queue::{Outlook, Queue, Run};

const BURST: Duration = Duration::from_millis(limits::QUEUE_BURST_MS);
const HELD: Duration = Duration::from_millis(limits::QUEUE_HELD_MS);
const SHED_INTERVAL: Duration = Duration::from_millis(limits::SHED_INTERVAL_MS);
const SHED_WAIT: Duration = Duration::from_millis(limits::SHED_WAIT_MS);

/// What a look at the waiting requests shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing waits.
    Empty,
    /// Something can be taken.
    Ready,
    /// What waits can't be taken while others run; look again after this time.
    Held(Duration),
}

/// What is under the lock.
struct Line {
    queue: Queue<Box<Exchange>>,
    /// When a worker last came to the end of what could be taken.
    cleared: Instant,
}

/// All that waits.
pub(super) struct Waiting {
    rules: Rules,
    costs: Costs,
    intake: ArrayQueue<Box<Exchange>>,
    line: Mutex<Line>,
    /// Requests in the queue; too many while the intake is being moved there, never too few.
    standing: AtomicUsize,
    /// Until when, in nanoseconds of [`Instant`], nothing of them can be taken; 0 if something can.
    held_until: AtomicU64,
    /// Whether a request of little worth runs…
    low_runs: AtomicBool,
    /// …and one waits that can be taken, and so is worth far more.
    urgent: AtomicBool,
}

impl Waiting {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            intake: ArrayQueue::new(rules.requests.max(limits::QUEUE_REQUESTS_MAX)),
            rules,
            costs: Costs::default(),
            line: Mutex::new(Line { queue: Queue::default(), cleared: Instant::default() }),
            standing: AtomicUsize::new(0),
            held_until: AtomicU64::new(0),
            low_runs: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
        }
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        // In this order: what has left the intake is in the other number by then.
        let coming = self.intake.len();
        coming + self.standing.load(Ordering::Acquire)
    }

    /// The requests that may wait for as long as they like.
    pub(super) fn bound(&self) -> usize {
        self.rules.requests
    }

    /// Reactor: adds a request. Those that have to leave for it are handed to `turn_away`.
    pub(super) fn push(&self, mut exchange: Box<Exchange>, turn_away: impl FnMut(Box<Exchange>)) {
        self.appraise(&mut exchange);
        let Err(exchange) = self.intake.push(exchange) else {
            if self.len() > self.intake.capacity() {
                self.enforce(clock::now(), turn_away);
            }
            return;
        };
        let mut line = self.lock();
        let now = clock::now();
        self.collect(&mut line, now);
        enter(&mut line.queue, exchange, now);
        self.publish(&mut line, now);
        drop(line);
        self.enforce(now, turn_away);
    }

    /// Works out what a request is worth.
    fn appraise(&self, exchange: &mut Exchange) {
        if !self.rules.priority {
            return;
        }
        let head = &exchange.head;
        let Client { address, garbled } = exchange.client.unwrap_or_default();
        let mut decoded = Vec::new();
        let mut path = head.get(head.path);
        if (self.rules.by_cost || !self.rules.prefixes.is_empty()) && memchr::memchr(b'%', path).is_some() {
            percent_decode(path, &mut decoded);
            path = &decoded;
        }
        let (method, query) = (head.get(head.method), head.get(head.query));
        let request = Request { method, path, query, address, garbled };
        let (asking, route) = self.rules.asking(&request, &self.costs, || head.find(b"user-agent"));
        (exchange.asking, exchange.route) = (asking, route);
    }

    /// Worker, attached: ends its last `run`, takes the next request, and says when that was.
    pub(super) fn take(&self, run: &mut Option<Run>) -> Option<(Box<Exchange>, Instant)> {
        if run.is_none() && self.len() == 0 {
            return None;
        }
        let mut line = self.lock();
        let now = clock::now();
        if let Some(run) = run.take() {
            line.queue.finish(run, now);
        }
        self.collect(&mut line, now);
        let taken = line.queue.pop(now);
        self.publish(&mut line, now);
        drop(line);
        let mut taken = taken?;
        taken.item.priority = if self.rules.priority { taken.priority } else { 0 };
        *run = Some(taken.run);
        Some((taken.item, now))
    }

    /// Worker: ends its last run without taking another request.
    pub(super) fn finish(&self, run: &mut Option<Run>) {
        let Some(run) = run.take() else { return };
        let mut line = self.lock();
        let now = clock::now();
        line.queue.finish(run, now);
        self.collect(&mut line, now);
        self.publish(&mut line, now);
    }

    /// Worker: the request by this name waits for its client, or goes on. True if something can be taken now.
    pub(super) fn set_paused(&self, run: u64, paused: bool) -> bool {
        let mut line = self.lock();
        let now = clock::now();
        line.queue.set_paused(&Run::in_place_of(run), paused);
        self.collect(&mut line, now);
        self.publish(&mut line, now);
        line.queue.outlook(now) == Outlook::Ready
    }

    /// The main thread: ends the run of a worker that is given up, in its place. `give_up` says which it is; `None`: the worker is
    /// past that. Nobody takes a request meanwhile, so the run is still that of the request it was given up in.
    pub(super) fn give_up(&self, give_up: impl FnOnce() -> Option<u64>) -> bool {
        let mut line = self.lock();
        let Some(run) = give_up() else { return false };
        let now = clock::now();
        line.queue.finish(Run::in_place_of(run), now);
        self.publish(&mut line, now);
        true
    }

    /// How long the request has waited that has waited for longest; zero if nothing waits.
    pub(super) fn oldest_wait(&self, now: Instant) -> Duration {
        let mut line = self.lock();
        self.collect(&mut line, now);
        self.publish(&mut line, now);
        line.queue.oldest().map_or(Duration::ZERO, |queued| now.since(queued))
    }

    /// Whether costs are learned.
    pub(super) fn learns(&self) -> bool {
        self.rules.by_cost && self.rules.priority
    }

    /// Worker: what a request has cost.
    pub(super) fn learn(&self, route: crate::serve::queue::cost::Route, cpu: Duration) {
        self.costs.learn(route, cpu);
    }

    /// Reactor: the client of a request that waits is gone, or has been answered: its place is free.
    pub(super) fn withdraw(&self, link: &Link, now: Instant) -> Option<Box<Exchange>> {
        let mut line = self.lock();
        self.collect(&mut line, now);
        let (mut exchange, priority) =
            line.queue.withdraw(link.number(), now, |exchange| std::ptr::eq(&*exchange.link, link))?;
        self.publish(&mut line, now);
        exchange.priority = if self.rules.priority { priority } else { 0 };
        Some(exchange)
    }

    /// Whether something can be taken.
    pub(super) fn look(&self, now: Instant) -> Look {
        if !self.intake.is_empty() {
            return Look::Ready;
        }
        if self.standing.load(Ordering::Acquire) == 0 {
            return Look::Empty;
        }
        let held = Instant::from_nanos(self.held_until.load(Ordering::Acquire)).since(now);
        if held.is_zero() { Look::Ready } else { Look::Held(held) }
    }

    /// Reactor, once per turn: as [`Waiting::look`], after a look at those whose worth may have changed with time; and those that have
    /// waited in vain are handed to `turn_away`.
    pub(super) fn check(&self, now: Instant, turn_away: impl FnMut(Box<Exchange>)) -> Look {
        if self.len() > self.rules.requests || (self.rules.shed && self.len() > 0) {
            self.enforce(now, turn_away);
        }
        let look = self.look(now);
        let known = self.held_until.load(Ordering::Relaxed) == 0 && !self.low_runs.load(Ordering::Relaxed);
        if look != Look::Ready || known {
            return look;
        }
        let Ok(mut line) = self.line.try_lock() else { return look };
        self.collect(&mut line, now);
        self.publish(&mut line, now);
        self.look(now)
    }

    /// Whether a request of little worth runs, which one worth more mustn't wait for.
    pub(super) fn low_runs(&self) -> bool {
        self.low_runs.load(Ordering::Relaxed)
    }

    /// Whether a request waits that is worth far more than one that runs; as of the last change that was seen.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// Turns away those that are too many, or have waited too long.
    fn enforce(&self, now: Instant, mut turn_away: impl FnMut(Box<Exchange>)) {
        // Whoever has the lock is a worker at the head of the queue: there is another turn. But memory is no matter of luck.
        let crowded = self.len() > self.intake.capacity();
        let mut line = match self.line.try_lock() {
            Ok(line) => line,
            Err(_) if !crowded => return,
            Err(_) => self.lock(),
        };
        self.collect(&mut line, now);
        let mut leave = |taken: Option<(Box<Exchange>, i32)>, why| {
            if let Some((mut exchange, priority)) = taken {
                exchange.priority = if self.rules.priority { priority } else { 0 };
                exchange.turned_away = Some(why);
                turn_away(exchange);
            }
        };
        while line.queue.len() > self.rules.requests {
            let fresh = line.queue.lowest(now).is_none_or(|arrived| now.since(arrived) < BURST);
            if fresh && line.queue.len() <= self.intake.capacity() {
                break;
            }
            leave(line.queue.evict(now), TurnedAway::Evicted);
        }
        let overloaded = self.rules.shed && now.since(line.cleared) > SHED_INTERVAL;
        if overloaded && line.queue.outlook(now) == Outlook::Ready {
            while line.queue.oldest().is_some_and(|arrived| now.since(arrived) > SHED_WAIT) {
                leave(line.queue.remove_oldest(now), TurnedAway::Shed);
            }
        }
        self.publish(&mut line, now);
    }

    /// Moves the intake into the queue.
    fn collect(&self, line: &mut Line, now: Instant) {
        let coming = self.intake.len();
        if coming == 0 {
            return;
        }
        if line.queue.outlook(now) != Outlook::Ready {
            line.cleared = now;
        }
        self.held_until.store(0, Ordering::Release);
        // Before anything leaves the intake, so that nobody ever sees less than there is.
        self.standing.store(line.queue.len() + coming, Ordering::SeqCst);
        for _ in 0..coming {
            let Some(exchange) = self.intake.pop() else { break };
            enter(&mut line.queue, exchange, now);
        }
    }

    /// Says what is in the queue, after each change of it.
    fn publish(&self, line: &mut Line, now: Instant) {
        let outlook = line.queue.outlook(now);
        let held_until = match outlook {
            Outlook::Ready => 0,
            Outlook::Empty => 0,
            // Not as often as every source's history fades, and not so seldom that a mistake would matter.
            Outlook::Held(at) => at.max(now + HELD).min(now + 50 * HELD).as_nanos(),
        };
        if outlook != Outlook::Ready {
            line.cleared = now;
        }
        let low_runs = line.queue.running_low() > 0;
        self.low_runs.store(low_runs, Ordering::Relaxed);
        self.urgent.store(low_runs && outlook == Outlook::Ready, Ordering::Relaxed);
        self.held_until.store(held_until, Ordering::Release);
        self.standing.store(line.queue.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a request into the queue, and its number where the reactor finds it.
fn enter(queue: &mut Queue<Box<Exchange>>, exchange: Box<Exchange>, now: Instant) {
    let (asking, queued) = (exchange.asking, exchange.queued);
    exchange.link.set_number(queue.next_number());
    queue.push(exchange, asking, queued, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{FIELDS_MAX, QUEUE_REQUESTS_MAX};
    use crate::serve::http1::HeadLimits;

    /// A request of this client that is queued at `queued`.
    fn request(target: &str, client: &str, queued: Instant) -> Box<Exchange> {
        let mut exchange = Exchange { queued, ..Exchange::default() };
        let limits = HeadLimits { request_line_bytes_max: 1024, head_bytes_max: 4096, fields_max: FIELDS_MAX };
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: curl\r\n\r\n");
        exchange.head.parse(head.as_bytes(), 0, &limits).unwrap().unwrap();
        exchange.client = Some(Client { address: client.parse().ok(), garbled: false });
        Box::new(exchange)
    }

    fn target(exchange: &Exchange) -> String {
        String::from_utf8(exchange.head.get(exchange.head.target).to_vec()).unwrap()
    }

    fn none(exchange: Box<Exchange>) {
        panic!("{} is turned away: {:?}", target(&exchange), exchange.turned_away);
    }

    fn rules() -> Rules {
        Rules { requests: 4, ..Rules::default() }
    }

    fn after(now: Instant, milliseconds: u64) -> Instant {
        now + Duration::from_millis(milliseconds)
    }

    /// What is turned away then, and why.
    fn turned_away(waiting: &Waiting, now: Instant) -> Vec<(String, i32, TurnedAway)> {
        let mut found = Vec::new();
        waiting
            .check(now, |exchange| found.push((target(&exchange), exchange.priority, exchange.turned_away.unwrap())));
        found
    }

    #[test]
    fn a_burst_has_its_time_and_then_the_lowest_go() {
        let (waiting, now) = (Waiting::new(rules()), clock::now());
        for target in ["/a", "/b?q", "/c", "/d?q", "/e", "/f"] {
            waiting.push(request(target, "10.0.0.1", now), none);
        }
        assert_eq!(turned_away(&waiting, after(now, 99)), []);
        let expected = [("/b?q".to_owned(), 500, TurnedAway::Evicted), ("/d?q".to_owned(), 500, TurnedAway::Evicted)];
        assert_eq!(turned_away(&waiting, after(now, 100)), expected);
        assert_eq!((turned_away(&waiting, after(now, 10_000)), waiting.len()), (vec![], 4));
    }

    #[test]
    fn memory_is_bounded_whatever_comes_at_once() {
        let (waiting, now) = (Waiting::new(rules()), clock::now());
        let mut away = 0;
        for _ in 0..QUEUE_REQUESTS_MAX + 100 {
            waiting.push(request("/", "10.0.0.1", now), |_| away += 1);
        }
        assert!(waiting.len() <= QUEUE_REQUESTS_MAX, "{}", waiting.len());
        assert!(away >= 100);
    }

    #[test]
    fn whoever_leaves_gives_the_place_back_at_once() {
        let (waiting, now) = (Waiting::new(rules()), clock::now());
        let requests: Vec<_> = (0..6).map(|number| request(&format!("/{number}"), "10.0.0.1", now)).collect();
        let links: Vec<_> = requests.iter().map(|request| std::sync::Arc::clone(&request.link)).collect();
        requests.into_iter().for_each(|request| waiting.push(request, none));
        for gone in [1, 4] {
            let exchange = waiting.withdraw(&links[gone], now).expect("it waits");
            assert_eq!((target(&exchange), exchange.priority), (format!("/{gone}"), 1000));
            assert!(waiting.withdraw(&links[gone], now).is_none());
        }
        assert_eq!((turned_away(&waiting, after(now, 10_000)), waiting.len()), (vec![], 4));
        let (mut run, mut order) = (None, Vec::new());
        while let Some((exchange, _)) = waiting.take(&mut run) {
            order.push(target(&exchange));
        }
        assert_eq!(order, ["/0", "/2", "/3", "/5"]);
        assert!(waiting.withdraw(&links[0], now).is_none(), "a worker has it");
    }

    #[test]
    fn what_has_waited_too_long_is_shed_only_when_nobody_keeps_up() {
        let (waiting, now) = (Waiting::new(Rules { shed: true, requests: 100, ..Rules::default() }), clock::now());
        waiting.push(request("/1", "10.0.0.1", now), none);
        assert_eq!(turned_away(&waiting, after(now, 10)), []);
        waiting.push(request("/2", "10.0.0.1", after(now, 700)), none);
        assert_eq!(turned_away(&waiting, after(now, 1_000)), []);
        assert_eq!(turned_away(&waiting, after(now, 1_020)), [("/1".to_owned(), 1000, TurnedAway::Shed)]);
        assert_eq!(turned_away(&waiting, after(now, 1_199)), []);
        assert_eq!(turned_away(&waiting, after(now, 1_201)), [("/2".to_owned(), 1000, TurnedAway::Shed)]);
        // The queue has been empty: a second begins anew.
        waiting.push(request("/3", "10.0.0.1", after(now, 1_300)), none);
        assert_eq!(turned_away(&waiting, after(now, 1_300)), []);
        assert_eq!(turned_away(&waiting, after(now, 2_200)), []);
        assert_eq!(turned_away(&waiting, after(now, 2_310)).len(), 1);
    }

    #[test]
    fn urgent_is_what_is_worth_far_more_than_what_runs() {
        let (waiting, now) = (Waiting::new(Rules { requests: 100, ..Rules::default() }), clock::now());
        let (mut greedy, mut other) = (None, None);
        for _ in 0..12 {
            waiting.push(request("/", "203.0.113.1", now), none);
            assert!(waiting.take(&mut greedy).is_some());
        }
        assert!(waiting.low_runs() && !waiting.is_urgent());
        waiting.push(request("/", "203.0.113.1", now), none);
        assert!(matches!(waiting.check(now, none), Look::Held(_)) && !waiting.is_urgent(), "the like of it waits");
        waiting.push(request("/", "203.0.113.2", now), none);
        assert!(waiting.check(now, none) == Look::Ready && waiting.is_urgent());
        assert_eq!(waiting.take(&mut other).map(|(exchange, _)| exchange.priority), Some(1000));
        assert!(!waiting.is_urgent(), "it is being run");
        waiting.finish(&mut greedy);
        waiting.finish(&mut other);
        assert!(!waiting.low_runs() && waiting.look(now) == Look::Ready && !waiting.is_urgent());
    }

    #[test]
    fn without_priorities_the_oldest_is_next_whoever_asks() {
        let (waiting, now) = (Waiting::new(Rules { priority: false, ..Rules::default() }), clock::now());
        let targets: Vec<String> = (0..50).map(|number| format!("/{number}?q")).collect();
        targets.iter().for_each(|target| waiting.push(request(target, "203.0.113.1", now), none));
        let (mut run, mut order) = (None, Vec::new());
        while let Some((exchange, _)) = waiting.take(&mut run) {
            assert_eq!(exchange.priority, 0);
            order.push(target(&exchange));
        }
        assert_eq!(order, targets);
    }

    #[test]
    fn what_is_held_is_seen_when_the_worker_it_waits_for_is_done() {
        let (waiting, now) = (Waiting::new(Rules::default()), clock::now());
        (0..5).for_each(|_| waiting.push(request("/", "203.0.113.1", now), none));
        let mut runs: Vec<Option<Run>> = (0..4).map(|_| None).collect();
        let taken = runs.iter_mut().filter_map(|run| waiting.take(run)).count();
        assert_eq!((taken, waiting.len()), (3, 2));
        let Look::Held(after) = waiting.look(clock::now()) else { panic!("held") };
        assert!(after <= 50 * HELD);
        runs.iter_mut().take(2).for_each(|run| waiting.finish(run));
        assert_eq!(waiting.look(clock::now()), Look::Ready);
        assert!(waiting.take(&mut runs[3]).is_some());
    }

    #[test]
    fn a_worker_that_is_given_up_holds_nobody_up() {
        let (waiting, now) = (Waiting::new(Rules::default()), clock::now());
        (0..4).for_each(|_| waiting.push(request("/", "203.0.113.1", now), none));
        let mut runs: Vec<Option<Run>> = (0..3).map(|_| None).collect();
        assert_eq!(runs.iter_mut().filter_map(|run| waiting.take(run)).count(), 3);
        let Look::Held(_) = waiting.look(clock::now()) else { panic!("held") };
        assert!(!waiting.give_up(|| None), "it has gone on");
        let Look::Held(_) = waiting.look(clock::now()) else { panic!("held as before") };
        for run in runs.iter().take(2) {
            let source = run.as_ref().map(Run::name);
            assert!(waiting.give_up(|| source));
        }
        assert_eq!(waiting.look(clock::now()), Look::Ready);
        let mut last = None;
        assert!(waiting.take(&mut last).is_some(), "one of the source runs, and this");
        waiting.finish(&mut last);
        waiting.finish(&mut runs[2]);
        assert_eq!(waiting.lock().queue.running(), 0);
    }

    #[test]
    fn a_path_is_decoded_before_its_prefix_is_looked_for() {
        let prefixes = vec![(b"/api/".to_vec(), 500)];
        let (waiting, now) = (Waiting::new(Rules { prefixes, ..Rules::default() }), clock::now());
        ["/other", "/%61pi/x"].into_iter().for_each(|target| waiting.push(request(target, "10.0.0.1", now), none));
        let (exchange, _) = waiting.take(&mut None).unwrap();
        assert_eq!((target(&exchange), exchange.priority), ("/%61pi/x".to_owned(), 1500));
    }

    /// Nothing is lost, and whoever looks never sees less than there is.
    #[test]
    fn many_threads() {
        const EACH: usize = 20_000;
        let (waiting, done) = (Waiting::new(Rules { requests: 4 * EACH, ..Rules::default() }), AtomicBool::new(false));
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let pushers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| (0..EACH).for_each(|_| waiting.push(request("/", "10.0.0.1", clock::now()), none)))
                })
                .collect();
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut run = None;
                    loop {
                        let ended = done.load(Ordering::SeqCst);
                        match waiting.take(&mut run) {
                            Some(_) => drop(taken.fetch_add(1, Ordering::SeqCst)),
                            // After everything was pushed, an empty look means that another worker has the rest.
                            None if ended && waiting.len() == 0 => break,
                            None => std::hint::spin_loop(),
                        }
                    }
                    waiting.finish(&mut run);
                });
            }
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            done.store(true, Ordering::SeqCst);
        });
        assert_eq!((taken.into_inner(), waiting.len()), (2 * EACH, 0));
    }
}
