//! The jobs of a process, and which of them is to be run next.
//!
//! One job at a time. A job that is due while another runs is run behind it, once, however often it was due meanwhile; of several that
//! are due the one that has waited longest comes first. A timer's next run is its period after the start of this one.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::schedule::Schedule;
use crate::limits;
use crate::reactor::clock::Instant;

/// How far the wall clock may be set before jobs of the time between are neither run late nor kept from running again; smaller steps
/// are taken as time that has passed, or that comes again (cronie draws the line there too).
const STEP: Duration = Duration::from_secs(3 * 60 * 60);
/// How long is waited at most before the clocks are looked at again.
const CLOCK_CHECK: Duration = Duration::from_secs(limits::BACKGROUND_CLOCK_CHECK_S);

/// What is looked at for the time.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// What the clock on the wall says.
    pub wall: Timestamp,
    /// The clock that nobody sets.
    pub steady: Instant,
    /// What local time is.
    pub zone: &'a TimeZone,
}

/// When a job is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// At times of the clock on the wall.
    Cron(Schedule),
    /// This long after it was registered, and after each start.
    Timer(Duration),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Run the job with this number, then ask again.
    Run(usize),
    /// Nothing is due for this long; ask again then, or when a job was added.
    Wait(Duration),
}

/// There is no room for another job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Clone, Copy, Debug)]
enum Due {
    Wall(Timestamp),
    Steady(Instant),
    Never,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    rule: Rule,
    due: Due,
}

/// The jobs, by number in the order in which they were added.
#[derive(Debug, Default)]
pub struct Table {
    jobs: Vec<Job>,
    /// When it was last looked, and what local time was then.
    seen: Option<(Timestamp, Instant, TimeZone)>,
}

impl Table {
    /// Adds a job; its number. Until [`Table::begin`] it is not due.
    ///
    /// # Errors
    /// When there are [`limits::BACKGROUND_JOBS_MAX`] already.
    pub fn add(&mut self, rule: Rule, now: Option<Now<'_>>) -> Result<usize, Full> {
        if self.jobs.len() >= limits::BACKGROUND_JOBS_MAX {
            return Err(Full);
        }
        self.jobs.push(Job { rule, due: now.map_or(Due::Never, |now| due(rule, now.wall, now)) });
        Ok(self.jobs.len() - 1)
    }

    /// How many jobs there are.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// From now on jobs are due. `done_until`: up to there another process has seen to the cron jobs; what has come since then is made up
    /// for, unless that is longer ago than three hours.
    pub fn begin(&mut self, now: Now<'_>, done_until: Option<Timestamp>) {
        let recent = |done: &Timestamp| *done <= now.wall && now.wall.duration_since(*done).unsigned_abs() <= STEP;
        let from = done_until.filter(recent).unwrap_or(now.wall);
        for job in &mut self.jobs {
            job.due = due(job.rule, from, now);
        }
        self.seen = Some((now.wall, now.steady, now.zone.clone()));
    }

    /// When a job is due next on the clock on the wall, if that is known.
    pub fn next_run(&self, number: usize, now: Now<'_>) -> Option<Timestamp> {
        match self.jobs.get(number)?.due {
            Due::Wall(wall) => Some(wall),
            Due::Steady(steady) => now.wall.checked_add(steady.since(now.steady)).ok(),
            Due::Never => None,
        }
    }

    /// The job that is to be started now, or how long to wait for one.
    pub fn take(&mut self, now: Now<'_>) -> Take {
        self.follow_clock(now);
        let late = self.jobs.iter().enumerate().map(|(number, job)| (late(job.due, now), number));
        // Of two that are equally late, the first that was added.
        match late.max_by_key(|&(late, number)| (late, std::cmp::Reverse(number))) {
            Some((0.., number)) => {
                let job = &mut self.jobs[number];
                job.due = due(job.rule, now.wall, now);
                Take::Run(number)
            }
            Some((early, _)) => {
                let wait = u64::try_from(early.saturating_neg()).unwrap_or(u64::MAX);
                Take::Wait(Duration::from_nanos(wait).min(CLOCK_CHECK))
            }
            None => Take::Wait(CLOCK_CHECK),
        }
    }

    /// Begins anew when somebody has set the clock, or changed the time zone.
    fn follow_clock(&mut self, now: Now<'_>) {
        if let Some((wall, steady, zone)) = &self.seen {
            let passed = now.steady.since(*steady);
            let expected = wall.checked_add(passed).unwrap_or(Timestamp::MAX);
            let stepped = now.wall.duration_since(expected).unsigned_abs() > STEP;
            if stepped || zone != now.zone {
                for job in self.jobs.iter_mut().filter(|job| matches!(job.rule, Rule::Cron(_))) {
                    job.due = due(job.rule, now.wall, now);
                }
            }
        }
        let zone = match self.seen.take() {
            Some((_, _, zone)) if zone == *now.zone => zone,
            _ => now.zone.clone(),
        };
        self.seen = Some((now.wall, now.steady, zone));
    }
}

fn due(rule: Rule, from: Timestamp, now: Now<'_>) -> Due {
    match rule {
        Rule::Cron(schedule) => schedule.next(from, now.zone).map_or(Due::Never, Due::Wall),
        Rule::Timer(period) => Due::Steady(now.steady + period),
    }
}

/// Nanoseconds that a job is late; negative: it is due in so many.
fn late(due: Due, now: Now<'_>) -> i128 {
    let nanoseconds = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match due {
        Due::Wall(due) => now.wall.as_nanosecond() - due.as_nanosecond(),
        Due::Steady(due) => nanoseconds(now.steady.since(due)) - nanoseconds(due.since(now.steady)),
        Due::Never => i128::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: i64 = 3600;
    /// 2026-03-01T00:00:00Z, a Sunday.
    const BASE: i64 = 1_772_323_200;

    /// `seconds` after [`BASE`], by both clocks.
    fn at(seconds: f64) -> Now<'static> {
        stepped(seconds, 0)
    }

    /// Likewise, after somebody has set the clock on the wall forward by `step` seconds.
    fn stepped(seconds: f64, step: i64) -> Now<'static> {
        static UTC: TimeZone = TimeZone::UTC;
        let passed = Duration::from_secs_f64(seconds);
        Now {
            wall: Timestamp::from_second(BASE + step).unwrap().checked_add(passed).unwrap(),
            steady: Instant::from_nanos(1_000_000_000_000) + passed,
            zone: &UTC,
        }
    }

    fn cron(minute: i64, hour: i64) -> Rule {
        Rule::Cron(Schedule::new(minute, hour, -1, -1, -1).unwrap())
    }

    fn timer(seconds: u64) -> Rule {
        Rule::Timer(Duration::from_secs(seconds))
    }

    fn table(rules: &[Rule]) -> Table {
        let mut table = Table::default();
        for rule in rules {
            table.add(*rule, None).unwrap();
        }
        table.begin(at(0.0), None);
        table
    }

    #[test]
    fn timers_go_from_start_to_start() {
        let mut table = table(&[timer(10)]);
        assert_eq!(table.take(at(0.0)), Take::Wait(10 * SECOND));
        assert_eq!(table.take(at(9.5)), Take::Wait(SECOND / 2));
        assert_eq!(table.take(at(10.0)), Take::Run(0));
        // It ran for 4 seconds.
        assert_eq!(table.take(at(14.0)), Take::Wait(6 * SECOND));
        assert_eq!(table.take(at(20.0)), Take::Run(0));
        // It ran for 35 seconds: once more, and what was missed is not made up for.
        assert_eq!(table.take(at(55.0)), Take::Run(0));
        assert_eq!(table.take(at(55.1)), Take::Wait(Duration::from_secs_f64(9.9)));
    }

    #[test]
    fn nothing_is_due_before_it_begins_and_nobody_waits_for_ever() {
        let mut table = Table::default();
        assert_eq!(table.take(at(0.0)), Take::Wait(CLOCK_CHECK));
        table.add(timer(1), None).unwrap();
        assert_eq!(table.take(at(100.0)), Take::Wait(CLOCK_CHECK));
        table.begin(at(100.0), None);
        assert_eq!(table.take(at(100.0)), Take::Wait(SECOND));
        assert_eq!(table.add(cron(0, 12), Some(at(100.0))), Ok(1));
        assert_eq!(table.next_run(1, at(100.0)), Timestamp::from_second(BASE + 12 * HOUR).ok());
        assert_eq!(table.next_run(0, at(100.0)), Timestamp::from_second(BASE + 101).ok());
    }

    #[test]
    fn who_has_waited_longest_comes_first() {
        let mut table = table(&[timer(1), cron(1, -1), timer(40), timer(40)]);
        assert_eq!(table.take(at(1.0)), Take::Run(0));
        // It ran for 64 seconds.
        let mut order = Vec::new();
        while let Take::Run(number) = table.take(at(65.0)) {
            order.push(number);
        }
        assert_eq!(order, [0, 2, 3, 1]);
    }

    #[test]
    fn a_job_that_is_always_late_does_not_keep_others_from_running() {
        let mut table = table(&[timer(1), timer(30)]);
        let mut second = 0;
        let mut runs = [0, 0];
        while second < 600 {
            match table.take(at(f64::from(second))) {
                Take::Run(number) => {
                    runs[number] += 1;
                    // The first runs for 5 seconds, five times its period.
                    second += if number == 0 { 5 } else { 1 };
                }
                Take::Wait(_) => second += 1,
            }
        }
        assert!(runs[1] >= 15, "{runs:?}");
    }

    #[test]
    fn cron_jobs_run_late_but_once() {
        let mut table = table(&[cron(-1, -1), timer(59)]);
        assert_eq!(table.take(at(59.0)), Take::Run(1));
        // It ran for an hour: 60 minutes were due.
        assert_eq!(table.take(at(3659.0)), Take::Run(0));
        assert_eq!(table.take(at(3659.0)), Take::Run(1));
        assert_eq!(table.take(at(3659.0)), Take::Wait(SECOND));
    }

    #[test]
    fn small_steps_of_the_clock_neither_lose_nor_repeat_a_job() {
        let mut forward = table(&[cron(30, 0)]);
        assert_eq!(forward.take(at(1000.0)), Take::Wait(CLOCK_CHECK));
        assert_eq!(forward.take(stepped(1000.0, 2 * HOUR)), Take::Run(0));
        let mut back = table(&[cron(30, 0)]);
        assert_eq!(back.take(at(1800.0)), Take::Run(0));
        assert_eq!(back.take(stepped(1810.0, -HOUR)), Take::Wait(CLOCK_CHECK));
        assert_eq!(back.take(stepped(1800.0 + 3600.0, -HOUR)), Take::Wait(CLOCK_CHECK));
    }

    #[test]
    fn a_clock_that_is_put_right_starts_nothing() {
        let mut forward = table(&[cron(30, 0)]);
        assert_eq!(forward.take(stepped(10.0, 1_000_000 * HOUR)), Take::Wait(CLOCK_CHECK));
        // Back to a time long before the next run that was known.
        let mut back = table(&[cron(30, 0)]);
        assert_eq!(back.take(stepped(10.0, -1_000_000 * HOUR)), Take::Wait(CLOCK_CHECK));
        let next = back.next_run(0, stepped(10.0, -1_000_000 * HOUR)).unwrap();
        assert!(next.as_second() < BASE - 999_000 * HOUR, "{next}");
    }

    #[test]
    fn a_new_time_zone_is_followed() {
        let mut table = table(&[cron(30, 5)]);
        let tokyo = TimeZone::posix("JST-9").unwrap();
        table.take(Now { zone: &tokyo, ..at(60.0) });
        assert_eq!(table.next_run(0, at(60.0)), Timestamp::from_second(BASE + 20 * HOUR + 1800).ok());
    }

    #[test]
    fn a_successor_makes_up_for_what_was_due_in_between() {
        let due = |done: Option<i64>| {
            let mut table = table(&[cron(0, 12), timer(60)]);
            let now = at(12.0 * 3600.0 + 5.0);
            table.begin(now, done.map(|seconds| Timestamp::from_second(BASE + seconds).unwrap()));
            table.take(now)
        };
        assert_eq!(due(None), Take::Wait(CLOCK_CHECK));
        assert_eq!(due(Some(12 * HOUR - 2)), Take::Run(0));
        assert_eq!(due(Some(12 * HOUR)), Take::Wait(CLOCK_CHECK));
        assert_eq!(due(Some(12 * HOUR + 4)), Take::Wait(CLOCK_CHECK));
        assert_eq!(due(Some(HOUR)), Take::Wait(CLOCK_CHECK));
        assert_eq!(due(Some(13 * HOUR)), Take::Wait(CLOCK_CHECK));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut table = Table::default();
        for number in 0..limits::BACKGROUND_JOBS_MAX {
            assert_eq!(table.add(timer(1), None), Ok(number));
        }
        assert_eq!(table.add(timer(1), None), Err(Full));
        assert_eq!((table.len(), table.is_empty()), (limits::BACKGROUND_JOBS_MAX, false));
    }
}
