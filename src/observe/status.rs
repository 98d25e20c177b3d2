//! Figures of a running process, for SIGUSR2: counters that cost the hot path next to nothing, and the lines they become.
//!
//! A reactor counts in plain numbers and publishes them once per turn; the workers count requests anyway, one number for each of
//! them. Only what is rare (a failure, a time-out) is counted one by one. All atomics are relaxed: figures, not signals; but for the one
//! that tells that a reactor has ended.

use std::fmt::Display;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::reactor::clock::CpuClock;

/// What one reactor counts, since it began unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections open now.
    pub connections: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Requests whose head and body were complete.
    pub requests: u64,
    /// Requests refused with a 4xx of the server's own.
    pub refused: u64,
    /// Requests answered 504 because no worker was free in time.
    pub queue_timeouts: u64,
    /// Requests answered 503 because too many waited.
    pub drops: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Turns.
    pub turns: u64,
}

impl Figures {
    const COUNT: usize = 8;

    fn to_array(self) -> [u64; Self::COUNT] {
        let Self { connections, accepted, requests, refused, queue_timeouts, drops, bytes_sent, turns } = self;
        [connections, accepted, requests, refused, queue_timeouts, drops, bytes_sent, turns]
    }

    fn from_array(figures: [u64; Self::COUNT]) -> Self {
        let [connections, accepted, requests, refused, queue_timeouts, drops, bytes_sent, turns] = figures;
        Self { connections, accepted, requests, refused, queue_timeouts, drops, bytes_sent, turns }
    }

    /// Of two reactors together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (mut sum, other) = (self.to_array(), other.to_array());
        sum.iter_mut().zip(other).for_each(|(sum, number)| *sum = sum.saturating_add(number));
        Self::from_array(sum)
    }
}

/// One reactor's figures where others can read them.
#[derive(Debug, Default)]
pub struct ReactorStatus {
    published: [AtomicU64; Figures::COUNT],
    clock: OnceLock<CpuClock>,
    ended: AtomicBool,
}

impl ReactorStatus {
    /// The reactor's thread: its CPU time can be told from now on.
    pub fn set_clock(&self, clock: CpuClock) {
        // Set once: a second reactor's thread would be a bug that costs nothing but a wrong figure.
        let _ = self.clock.set(clock);
    }

    /// The reactor's thread: it accepts nothing any more, and every connection has had what it was to have.
    pub fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// The reactor's thread, once per turn.
    pub fn publish(&self, figures: &Figures) {
        for (place, number) in self.published.iter().zip(figures.to_array()) {
            place.store(number, Ordering::Relaxed);
        }
    }

    /// As published last.
    pub fn figures(&self) -> Figures {
        Figures::from_array(std::array::from_fn(|index| self.published[index].load(Ordering::Relaxed)))
    }

    /// CPU time of its thread; zero when it can't be told.
    pub fn cpu(&self) -> Duration {
        self.clock.get().and_then(|clock| clock.read()).unwrap_or_default()
    }
}

/// What is counted one by one, because it is rare.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, number: usize) {
        self.0.fetch_add(number as u64, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Figures of a process.
#[derive(Debug, Default)]
pub struct Status {
    /// By number of the reactor.
    pub reactors: Box<[CachePadded<ReactorStatus>]>,
    /// Requests answered 500, or cut, because the application failed.
    pub errors: Counter,
    /// Requests that were interrupted because they ran for too long.
    pub interrupted: Counter,
    /// Workers that the interruption didn't reach.
    pub stuck: Counter,
    /// Requests answered 504 because too many waited and they were worth least.
    pub evicted: Counter,
    /// Requests answered 503 because all had waited too long (`--shed`).
    pub shed: Counter,
    /// Worker threads started beyond the first ones.
    pub grown: Counter,
    /// Worker threads ended because they weren't needed any more.
    pub shrunk: Counter,
}

impl Status {
    /// Of a process with so many reactors.
    pub fn new(reactors: usize) -> Self {
        Self { reactors: (0..reactors).map(|_| CachePadded::default()).collect(), ..Self::default() }
    }

    /// All reactors together.
    pub fn total(&self) -> Figures {
        self.reactors.iter().map(|reactor| reactor.figures()).fold(Figures::default(), Figures::plus)
    }

    /// Whether every reactor has ended.
    pub fn have_reactors_ended(&self) -> bool {
        self.reactors.iter().all(|reactor| reactor.ended.load(Ordering::Acquire))
    }

    /// CPU time of all reactors.
    pub fn reactor_cpu(&self) -> Duration {
        self.reactors.iter().map(|reactor| reactor.cpu()).sum()
    }

    /// The lines of the connections and of each reactor.
    pub fn report(&self, lines: &mut Lines) {
        let total = self.total();
        lines.line("Connections open", total.connections);
        lines.line("Connections accepted", total.accepted);
        lines.line("Requests received", total.requests);
        lines.line("Requests refused", total.refused);
        lines.line("Bytes sent", total.bytes_sent);
        for (index, reactor) in self.reactors.iter().enumerate() {
            let Figures { connections, accepted, requests, turns, .. } = reactor.figures();
            let cpu = reactor.cpu().as_secs_f64();
            lines.line(
                &format!("Reactor {}", index + 1),
                format_args!(
                    "{connections} connections, {accepted} accepted, {requests} requests, {turns} turns, {cpu:.2} s CPU"
                ),
            );
        }
    }
}

/// Lines of statistics, each with the number of the process in front, as wsgo prints them.
#[derive(Debug)]
pub struct Lines {
    process: u32,
    text: String,
}

impl Lines {
    /// None yet, of the process of this number.
    pub fn new(process: u32) -> Self {
        Self { process, text: String::new() }
    }

    /// `N: name: value`
    pub fn line(&mut self, name: &str, value: impl Display) {
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "{}: {name}: {value}", self.process);
    }

    /// `N:   name: value`, below a heading.
    pub fn item(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.text, "{}:   {name}: {value}", self.process);
    }

    /// `N: name:`, what follows are its items.
    pub fn heading(&mut self, name: &str) {
        let _ = writeln!(self.text, "{}: {name}:", self.process);
    }

    /// All of them.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reactors_publish_is_added_up() {
        let status = Status::new(2);
        let figures = Figures { connections: 1, accepted: 2, requests: 3, refused: 4, ..Figures::default() };
        status.reactors[0].publish(&figures);
        status.reactors[1].publish(&Figures { queue_timeouts: 5, drops: 6, bytes_sent: 7, turns: 8, ..figures });
        assert_eq!(status.reactors[0].figures(), figures);
        assert_eq!(
            status.total(),
            Figures {
                connections: 2,
                accepted: 4,
                requests: 6,
                refused: 8,
                queue_timeouts: 5,
                drops: 6,
                bytes_sent: 7,
                turns: 8
            }
        );
        status.reactors[0].publish(&Figures::default());
        assert_eq!(status.total().requests, 3, "published anew, not added");
    }

    #[test]
    fn all_reactors_have_ended_when_each_has() {
        let status = Status::new(2);
        assert!(!status.have_reactors_ended());
        status.reactors[1].set_ended();
        assert!(!status.have_reactors_ended());
        status.reactors[0].set_ended();
        assert!(status.have_reactors_ended());
    }

    #[test]
    fn lines_carry_the_number_of_the_process() {
        let status = Status::new(1);
        status.reactors[0].publish(&Figures { connections: 3, turns: 9, ..Figures::default() });
        let mut lines = Lines::new(4);
        lines.heading("Active requests by IP");
        lines.item("192.0.2.1", 2);
        status.report(&mut lines);
        assert_eq!(
            lines.into_text(),
            "4: Active requests by IP:\n4:   192.0.2.1: 2\n4: Connections open: 3\n4: Connections accepted: 0\n\
             4: Requests received: 0\n4: Requests refused: 0\n4: Bytes sent: 0\n\
             4: Reactor 1: 3 connections, 0 accepted, 0 requests, 9 turns, 0.00 s CPU\n"
        );
    }

    #[test]
    fn a_thread_s_cpu_time_is_read_by_another() {
        let status = ReactorStatus::default();
        assert_eq!(status.cpu(), Duration::ZERO);
        status.set_clock(CpuClock::of_this_thread().expect("Linux has one"));
        let mut sum = 0_u64;
        while crate::reactor::clock::thread_cpu() < Duration::from_millis(2) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let seen = std::thread::scope(|scope| scope.spawn(|| status.cpu()).join()).expect("it doesn't panic");
        assert!(seen >= Duration::from_millis(1), "{seen:?}");
    }
}
