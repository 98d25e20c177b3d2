//! A cron job's five fields, and the next time at which they match in a time zone.
//!
//! Two rules of crontab(5), as Vixie's cron and its successor cronie have them:
//! - A day of the month and a day of the week, both given as plain numbers: either of them is enough. uWSGI does the same.
//! - A job with a plain number for minute *and* hour runs once on each day it is for, whatever the clocks do: if its time is skipped
//!   when they go forward, at the moment they do; if its time comes twice when they go back, the first time. All others follow
//!   the clock on the wall: what is skipped isn't run, what comes twice is run twice.
//!
//! Nothing here reads a clock, and nothing loops longer than [`YEARS_SEARCHED`] years of days.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

/// No two days that match are further apart: a 29 February on a given day of the week can be 40 years away, across a year such as 2100.
const YEARS_SEARCHED: i16 = 41;

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// -1.
    Any,
    /// -N: every value that N divides.
    Every(i8),
    /// N.
    At(i8),
}

impl Field {
    fn matches(self, value: i8) -> bool {
        match self {
            Field::Any => true,
            Field::Every(step) => value % step == 0,
            Field::At(wanted) => value == wanted,
        }
    }

    fn is_at(self) -> bool {
        matches!(self, Field::At(_))
    }
}

/// What is wrong with the fields of a job, as a sentence for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

impl std::fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// When a cron job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Schedule {
    /// Minute 0–59, hour 0–23, day 1–31, month 1–12, day of the week 0–7 (0 and 7: Sunday). -1: any. -N: every value that N divides.
    ///
    /// # Errors
    /// A value that is out of its range, or a date that never comes, such as 31 February.
    pub fn new(minute: i64, hour: i64, day: i64, month: i64, weekday: i64) -> Result<Self, Invalid> {
        let weekday = if weekday == 7 { 0 } else { weekday };
        let schedule = Self {
            minute: field("min", minute, 0, 59, 60)?,
            hour: field("hour", hour, 0, 23, 24)?,
            day: field("day", day, 1, 31, 31)?,
            month: field("mon", month, 1, 12, 12)?,
            weekday: field("wday", weekday, 0, 7, 7)?,
        };
        if !schedule.comes() {
            return Err(Invalid(format!("day={day} never comes in mon={month}")));
        }
        Ok(schedule)
    }

    /// Whether there is a day that matches, ever. Each day of a month falls on each day of the week in some year.
    fn comes(&self) -> bool {
        const LONGEST: [i8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        self.either_day()
            || (1..=12)
                .zip(LONGEST)
                .any(|(month, days)| self.month.matches(month) && (1..=days).any(|day| self.day.matches(day)))
    }

    /// Whether the day of the month or that of the week is enough.
    fn either_day(&self) -> bool {
        self.day.is_at() && self.weekday.is_at()
    }

    /// Whether the job is for a time of day, so that it runs once whatever the clocks do.
    fn is_fixed(&self) -> bool {
        self.minute.is_at() && self.hour.is_at()
    }

    fn matches_date(&self, date: Date) -> bool {
        let (day, weekday) =
            (self.day.matches(date.day()), self.weekday.matches(date.weekday().to_sunday_zero_offset()));
        self.month.matches(date.month()) && if self.either_day() { day || weekday } else { day && weekday }
    }

    /// The first run after `after`; `None` when there is none before the calendar ends in the year 9999.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // Runs are due at whole minutes of local time, and offsets are whole seconds.
        let mut at = Timestamp::from_second(after.as_second().checked_add(1)?).ok()?;
        loop {
            let span = Stretch::around(at, zone);
            let mut local = span.offset.to_datetime(at);
            if let (true, Some((start, before))) = (self.is_fixed(), span.start) {
                let (shown, reached) = (before.to_datetime(start), span.offset.to_datetime(start));
                if shown > reached {
                    // The clocks went back: what lies before `shown` was there already.
                    local = local.max(shown);
                } else if at == start && self.first(shown).is_some_and(|skipped| skipped < reached) {
                    return Some(start);
                }
            }
            let found = self.first(local).and_then(|found| span.offset.to_timestamp(found).ok());
            match (found, span.end) {
                (Some(found), Some(end)) if found < end => return Some(found),
                (found, None) => return found,
                (_, Some(end)) => at = end,
            }
        }
    }

    /// The first minute that matches, at or after `from`, where no clock ever changes.
    fn first(&self, from: DateTime) -> Option<DateTime> {
        let whole = from.date().at(from.hour(), from.minute(), 0, 0);
        let from = if whole < from { whole.checked_add(Span::new().minutes(1)).ok()? } else { whole };
        if self.matches_date(from.date()) {
            if let Some(time) = self.first_time(from.hour(), from.minute()) {
                return Some(from.date().to_datetime(time));
            }
        }
        let date = self.first_date(from.date().tomorrow().ok()?)?;
        Some(date.to_datetime(self.first_time(0, 0)?))
    }

    /// The first time of day that matches, at or after this one.
    fn first_time(&self, hour: i8, minute: i8) -> Option<Time> {
        let hours = (hour..24).filter(|&hour| self.hour.matches(hour));
        hours
            .flat_map(|other| (if other == hour { minute } else { 0 }..60).map(move |minute| (other, minute)))
            .find(|&(_, minute)| self.minute.matches(minute))
            .and_then(|(hour, minute)| Time::new(hour, minute, 0, 0).ok())
    }

    /// The first day that matches, at or after this one.
    fn first_date(&self, from: Date) -> Option<Date> {
        let mut date = from;
        while date.year() - from.year() <= YEARS_SEARCHED {
            if self.matches_date(date) {
                return Some(date);
            }
            let skipped = if self.month.matches(date.month()) { date } else { date.last_of_month() };
            date = skipped.tomorrow().ok()?;
        }
        None
    }
}

/// A stretch of time in which local time runs evenly.
struct Stretch {
    offset: Offset,
    /// Its beginning, and the offset before that.
    start: Option<(Timestamp, Offset)>,
    end: Option<Timestamp>,
}

impl Stretch {
    fn around(at: Timestamp, zone: &TimeZone) -> Self {
        let offset = zone.to_offset(at);
        let next = Timestamp::from_second(at.as_second() + 1).unwrap_or(Timestamp::MAX);
        let start = zone.preceding(next).next().map(|transition| {
            let start = transition.timestamp();
            let before = Timestamp::from_second(start.as_second() - 1).map_or(offset, |before| zone.to_offset(before));
            (start, before)
        });
        Self { offset, start, end: zone.following(at).next().map(|transition| transition.timestamp()) }
    }
}

fn field(name: &str, value: i64, lowest: i64, highest: i64, step_max: i64) -> Result<Field, Invalid> {
    let narrow = |value: i64| i8::try_from(value).unwrap_or(i8::MAX);
    if value == -1 {
        Ok(Field::Any)
    } else if value < 0 && value >= -step_max {
        Ok(Field::Every(narrow(-value)))
    } else if (lowest..=highest).contains(&value) {
        Ok(Field::At(narrow(value)))
    } else {
        Err(Invalid(format!(
            "{name}={value} is out of range: {lowest} to {highest}, -1 for any, or -2 to -{step_max} for every so many"
        )))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(fields: [i64; 5]) -> Schedule {
        let [minute, hour, day, month, weekday] = fields;
        Schedule::new(minute, hour, day, month, weekday).unwrap()
    }

    fn zone(posix: &str) -> TimeZone {
        TimeZone::posix(posix).unwrap()
    }

    fn utc(text: &str) -> Timestamp {
        format!("{text}Z").parse().unwrap()
    }

    /// The next runs after a moment of UTC, in local time with its offset.
    fn runs(fields: [i64; 5], zone: &TimeZone, after: &str, count: usize) -> Vec<String> {
        let mut at = utc(after);
        let mut next = || {
            at = schedule(fields).next(at, zone)?;
            let offset = zone.to_offset(at);
            Some(format!("{} {offset}", offset.to_datetime(at).strftime("%d %H:%M")))
        };
        (0..count).map_while(|_| next()).collect()
    }

    fn next_utc(fields: [i64; 5], after: &str) -> String {
        schedule(fields).next(utc(after), &TimeZone::UTC).unwrap().to_string()
    }

    #[test]
    fn each_field_is_kept() {
        let after = "2026-11-21T01:02:03";
        assert_eq!(next_utc([-1, -1, -1, -1, -1], after), "2026-11-21T01:03:00Z");
        assert_eq!(next_utc([5, -1, -1, -1, -1], after), "2026-11-21T01:05:00Z");
        assert_eq!(next_utc([2, -1, -1, -1, -1], after), "2026-11-21T02:02:00Z");
        assert_eq!(next_utc([-1, 5, -1, -1, -1], after), "2026-11-21T05:00:00Z");
        assert_eq!(next_utc([5, -1, -1, -1, 3], after), "2026-11-25T00:05:00Z");
        assert_eq!(next_utc([-1, -1, -1, -1, 2], after), "2026-11-24T00:00:00Z");
        assert_eq!(next_utc([0, 0, 1, -1, -1], after), "2026-12-01T00:00:00Z");
        assert_eq!(next_utc([0, 0, -1, 2, -1], after), "2027-02-01T00:00:00Z");
        assert_eq!(next_utc([0, 0, 31, -1, -1], after), "2026-12-31T00:00:00Z");
        assert_eq!(next_utc([0, 0, 29, 2, -1], after), "2028-02-29T00:00:00Z");
        assert_eq!(next_utc([0, 0, 29, 2, -1], "2096-03-01T00:00:00"), "2104-02-29T00:00:00Z");
    }

    #[test]
    fn every_so_many() {
        let after = "2026-11-21T01:02:03";
        assert_eq!(next_utc([-15, -1, -1, -1, -1], after), "2026-11-21T01:15:00Z");
        assert_eq!(next_utc([-15, -1, -1, -1, -1], "2026-11-21T01:45:00"), "2026-11-21T02:00:00Z");
        assert_eq!(next_utc([0, -6, -1, -1, -1], after), "2026-11-21T06:00:00Z");
        assert_eq!(next_utc([0, -24, -1, -1, -1], after), "2026-11-22T00:00:00Z");
        assert_eq!(next_utc([-60, -1, -1, -1, -1], after), "2026-11-21T02:00:00Z");
        assert_eq!(next_utc([0, 0, -10, -1, -1], after), "2026-11-30T00:00:00Z");
        assert_eq!(next_utc([0, 0, 1, -3, -1], after), "2026-12-01T00:00:00Z");
        assert_eq!(next_utc([0, 0, 1, -5, -1], after), "2027-05-01T00:00:00Z");
        // Sunday, Tuesday, Thursday, Saturday.
        assert_eq!(next_utc([0, 0, -1, -1, -2], after), "2026-11-22T00:00:00Z");
        assert_eq!(next_utc([0, 0, -1, -1, -2], "2026-11-22T00:00:00"), "2026-11-24T00:00:00Z");
    }

    #[test]
    fn sunday_has_two_numbers() {
        for sunday in [0, 7] {
            assert_eq!(next_utc([0, 0, -1, -1, sunday], "2026-11-21T01:02:03"), "2026-11-22T00:00:00Z");
        }
    }

    #[test]
    fn day_and_weekday_as_plain_numbers_are_alternatives() {
        // 15 November 2026 is a Sunday; Fridays are the 13th, 20th and 27th.
        let found = runs([0, 0, 15, -1, 5], &TimeZone::UTC, "2026-11-10T00:00:00", 4);
        assert_eq!(found, ["13 00:00 +00", "15 00:00 +00", "20 00:00 +00", "27 00:00 +00"]);
        // Every third day of the month, and a Friday: both.
        let found = runs([0, 0, -3, -1, 5], &TimeZone::UTC, "2026-11-10T00:00:00", 2);
        assert_eq!(found, ["27 00:00 +00", "18 00:00 +00"]);
        // Impossible as a date, but there are Fridays in February.
        assert_eq!(next_utc([0, 0, 31, 2, 5], "2026-11-10T00:00:00"), "2027-02-05T00:00:00Z");
    }

    #[test]
    fn the_longest_wait_ends() {
        // 29 February, and a Sunday by `-7`, so that both must match.
        assert_eq!(next_utc([0, 0, 29, 2, -7], "2060-03-01T00:00:00"), "2088-02-29T00:00:00Z");
        assert_eq!(next_utc([0, 0, 29, 2, -7], "2088-03-01T00:00:00"), "2128-02-29T00:00:00Z");
    }

    #[test]
    fn what_never_comes_is_refused() {
        for fields in [[0, 0, 31, 2, -1], [0, 0, 30, 2, -1], [0, 0, 31, 4, -2], [0, 0, -31, 11, -1], [0, 0, -30, 2, 1]]
        {
            let [minute, hour, day, month, weekday] = fields;
            let refused = Schedule::new(minute, hour, day, month, weekday).unwrap_err();
            assert!(refused.0.contains("never comes"), "{refused}");
        }
        for fields in [[0, 0, 29, 2, -1], [0, 0, 31, -2, -1], [0, 0, -31, -1, -1], [0, 0, -29, 2, -7]] {
            schedule(fields);
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (place, (lowest, highest, step)) in
            [(0, 59, 60), (0, 23, 24), (1, 31, 31), (1, 12, 12), (0, 7, 7)].into_iter().enumerate()
        {
            let with = |value| {
                let mut fields = [-1; 5];
                fields[place] = value;
                Schedule::new(fields[0], fields[1], fields[2], fields[3], fields[4])
            };
            for good in [lowest, highest, -1, -2, -step] {
                assert!(with(good).is_ok(), "{place}: {good}");
            }
            for bad in
                [lowest - 1 - i64::from(lowest == 0) * step, highest + 1, -step - 1, i64::MAX, i64::MIN, 256, -256]
            {
                assert!(with(bad).is_err(), "{place}: {bad}");
            }
        }
    }

    /// Clocks go forward at 02:00, back at 03:00 summer time.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    /// Forward at 02:00, back at 02:00 summer time.
    const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";
    /// By half an hour, at 02:00; on the southern half of the globe.
    const LORD_HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";

    #[test]
    fn berlin() {
        let zone = zone(BERLIN);
        // A time of day that is skipped: when the clocks go forward. One that comes twice: the first time.
        let spring = "2026-03-28T00:00:00";
        assert_eq!(runs([30, 2, -1, -1, -1], &zone, spring, 3), ["28 02:30 +01", "29 03:00 +02", "30 02:30 +02"]);
        assert_eq!(runs([0, 2, -1, -1, -1], &zone, spring, 3), ["28 02:00 +01", "29 03:00 +02", "30 02:00 +02"]);
        assert_eq!(runs([0, 3, -1, -1, -1], &zone, spring, 3), ["28 03:00 +01", "29 03:00 +02", "30 03:00 +02"]);
        assert_eq!(runs([59, 1, -1, -1, -1], &zone, spring, 2), ["28 01:59 +01", "29 01:59 +01"]);
        let autumn = "2026-10-23T12:00:00";
        assert_eq!(runs([30, 2, -1, -1, -1], &zone, autumn, 3), ["24 02:30 +02", "25 02:30 +02", "26 02:30 +01"]);
        assert_eq!(runs([0, 2, -1, -1, -1], &zone, autumn, 3), ["24 02:00 +02", "25 02:00 +02", "26 02:00 +01"]);
        assert_eq!(runs([0, 3, -1, -1, -1], &zone, autumn, 3), ["24 03:00 +02", "25 03:00 +01", "26 03:00 +01"]);
        // Asked in the hour that comes again, and for the second time.
        assert_eq!(runs([30, 2, -1, -1, -1], &zone, "2026-10-25T00:45:00", 1), ["26 02:30 +01"]);
        assert_eq!(runs([30, 2, -1, -1, -1], &zone, "2026-10-25T01:15:00", 1), ["26 02:30 +01"]);
        // All others follow the clock.
        assert_eq!(
            runs([0, -1, -1, -1, -1], &zone, "2026-03-28T23:30:00", 3),
            ["29 01:00 +01", "29 03:00 +02", "29 04:00 +02"]
        );
        assert_eq!(
            runs([0, -1, -1, -1, -1], &zone, "2026-10-24T23:30:00", 4),
            ["25 02:00 +02", "25 02:00 +01", "25 03:00 +01", "25 04:00 +01"]
        );
        assert_eq!(runs([0, -2, -1, -1, -1], &zone, "2026-03-28T23:30:00", 2), ["29 04:00 +02", "29 06:00 +02"]);
        assert_eq!(runs([-1, 2, 29, 3, -1], &zone, "2026-03-28T00:00:00", 1), ["29 02:00 +02"], "in another year");
        assert_eq!(runs([-20, 2, 25, 10, -1], &zone, "2026-10-24T12:00:00", 7).len(), 7);
    }

    #[test]
    fn new_york() {
        let zone = zone(NEW_YORK);
        let spring = "2026-03-07T12:00:00";
        assert_eq!(runs([30, 2, -1, -1, -1], &zone, spring, 2), ["08 03:00 -04", "09 02:30 -04"]);
        assert_eq!(runs([30, 2, -1, -1, 0], &zone, spring, 2), ["08 03:00 -04", "15 02:30 -04"], "Sundays");
        assert_eq!(
            runs([30, 2, -1, -1, 1], &zone, spring, 1),
            ["09 02:30 -04"],
            "Mondays: not made up for on a Sunday"
        );
        let autumn = "2026-10-31T12:00:00";
        assert_eq!(runs([30, 1, -1, -1, -1], &zone, autumn, 2), ["01 01:30 -04", "02 01:30 -05"]);
        assert_eq!(runs([0, 1, -1, -1, -1], &zone, autumn, 2), ["01 01:00 -04", "02 01:00 -05"]);
        assert_eq!(runs([0, 2, -1, -1, -1], &zone, autumn, 2), ["01 02:00 -05", "02 02:00 -05"]);
        let half_hours = runs([-30, 1, 1, 11, -1], &zone, autumn, 5);
        assert_eq!(half_hours, ["01 01:00 -04", "01 01:30 -04", "01 01:00 -05", "01 01:30 -05", "01 01:00 -04"]);
    }

    #[test]
    fn lord_howe() {
        let zone = zone(LORD_HOWE);
        // 02:00 +10:30 becomes 02:30 +11.
        let spring = "2026-10-03T00:00:00";
        assert_eq!(runs([15, 2, -1, -1, -1], &zone, spring, 2), ["04 02:30 +11", "05 02:15 +11"]);
        assert_eq!(runs([30, 2, -1, -1, -1], &zone, spring, 2), ["04 02:30 +11", "05 02:30 +11"]);
        assert_eq!(runs([-15, 2, 4, 10, -1], &zone, "2026-10-03T12:00:00", 2), ["04 02:30 +11", "04 02:45 +11"]);
        // 02:00 +11 becomes 01:30 +10:30.
        let autumn = "2026-04-04T00:00:00";
        assert_eq!(runs([45, 1, -1, -1, -1], &zone, autumn, 2), ["05 01:45 +11", "06 01:45 +10:30"]);
        assert_eq!(runs([0, 2, -1, -1, -1], &zone, autumn, 2), ["05 02:00 +10:30", "06 02:00 +10:30"]);
        assert_eq!(
            runs([-15, 1, 5, 4, -1], &zone, "2026-04-04T12:00:00", 6),
            ["05 01:00 +11", "05 01:15 +11", "05 01:30 +11", "05 01:45 +11", "05 01:30 +10:30", "05 01:45 +10:30"]
        );
    }

    /// The generator of tests/cron/reference.py.
    struct Generator(u64);

    impl Generator {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 32) % bound
        }

        fn field(&mut self, one_in: u64, low: i64, high: i64, step_max: u64) -> i64 {
            let kind = self.below(one_in);
            let value = low + self.below((high - low + 1) as u64) as i64;
            let step = 2 + self.below(step_max - 1) as i64;
            match kind {
                0 => value,
                1 => -step,
                _ => -1,
            }
        }

        fn job(&mut self) -> ([i64; 5], i64) {
            let fields = [
                self.field(3, 0, 59, 60),
                self.field(3, 0, 23, 24),
                self.field(4, 1, 31, 31),
                self.field(4, 1, 12, 12),
                self.field(4, 0, 7, 7),
            ];
            let after = ((u128::from(self.below(1 << 32)) << 32) + u128::from(self.below(1 << 32))) % 4_102_444_800;
            (fields, after as i64)
        }
    }

    #[test]
    fn croniter_says_the_same_of_100_000_jobs() {
        for (block, line) in include_str!("../../tests/cron/reference.txt").lines().enumerate() {
            let mut generator = Generator(block as u64);
            let mut digest = 0xcbf2_9ce4_8422_2325_u64;
            let mut answers = String::new();
            for _ in 0..100 {
                let ([minute, hour, day, month, weekday], after) = generator.job();
                let next = Schedule::new(minute, hour, day, month, weekday)
                    .ok()
                    .and_then(|schedule| schedule.next(Timestamp::from_second(after).unwrap(), &TimeZone::UTC));
                let answer = next.map_or(-1, Timestamp::as_second);
                for byte in answer.to_le_bytes() {
                    digest = (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
                }
                answers += &format!("{minute} {hour} {day} {month} {weekday} {after} {answer}\n");
            }
            let hint = format!("compare with `python tests/cron/reference.py {block}`");
            assert_eq!(format!("{digest:016x}"), line, "block {block}; {hint}:\n{answers}");
        }
    }

    /// Minute by minute through real time, as a cron daemon would see the clock; `None`: nothing within `minutes`.
    fn walked(fields: [i64; 5], after: i64, zone: &TimeZone, minutes: i64) -> Option<i64> {
        let matches = |field: i64, value: i8| match field {
            -1 => true,
            step if step < 0 => i64::from(value) % -step == 0,
            value_wanted => i64::from(value) == value_wanted,
        };
        let wanted = |local: DateTime| {
            let [minute, hour, day, month, weekday] = fields;
            let weekday = if weekday == 7 { 0 } else { weekday };
            let day_matches = matches(day, local.day());
            let weekday_matches = matches(weekday, local.weekday().to_sunday_zero_offset());
            matches(minute, local.minute())
                && matches(hour, local.hour())
                && matches(month, local.month())
                && if day >= 0 && weekday >= 0 {
                    day_matches || weekday_matches
                } else {
                    day_matches && weekday_matches
                }
        };
        let fixed = fields[0] >= 0 && fields[1] >= 0;
        let local_at = |second: i64| zone.to_datetime(Timestamp::from_second(second).unwrap());
        // A day earlier, to know what the clock has shown before.
        let mut minute = after.div_euclid(60) * 60 - 86_400;
        let mut shown = local_at(minute);
        for _ in 0..minutes + 1440 {
            minute += 60;
            let local = local_at(minute);
            let expected = shown.checked_add(Span::new().minutes(1)).unwrap();
            let due = if !fixed {
                wanted(local)
            } else if local < expected {
                // The clock was set back: nothing until it shows something new.
                false
            } else {
                let mut skipped = expected;
                let mut due = false;
                while skipped <= local {
                    due |= wanted(skipped);
                    skipped = skipped.checked_add(Span::new().minutes(1)).unwrap();
                }
                due
            };
            shown = if fixed { shown.max(local) } else { local };
            if due && minute > after {
                return Some(minute);
            }
        }
        None
    }

    const ZONES: [&str; 4] = [BERLIN, NEW_YORK, LORD_HOWE, "UTC0"];

    /// Times within a day of a change of the clocks, in the years from 2020 on.
    fn near_a_change() -> impl Strategy<Value = (usize, i64)> {
        (0..ZONES.len(), 0..40_usize, -90_000..90_000_i64).prop_map(|(zone_index, change, seconds)| {
            let zone = zone(ZONES[zone_index]);
            let change = zone.following(utc("2020-01-01T00:00:00")).nth(change).map(|change| change.timestamp());
            (zone_index, change.unwrap_or(utc("2030-02-28T00:00:00")).as_second() + seconds)
        })
    }

    fn field_of(low: i64, high: i64, step: i64) -> impl Strategy<Value = i64> {
        prop_oneof![3 => Just(-1), 3 => low..=high, 2 => -step..=-2]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn a_walk_through_the_minutes_says_the_same(
            (zone_index, after) in near_a_change(),
            minute in field_of(0, 59, 60),
            hour in prop_oneof![2 => field_of(0, 3, 24), 1 => field_of(0, 23, 24)],
            day in prop_oneof![6 => Just(-1), 1 => field_of(1, 31, 31)],
            weekday in prop_oneof![4 => Just(-1), 1 => field_of(0, 7, 7)],
        ) {
            const MINUTES: i64 = 3 * 1440;
            let (fields, zone) = ([minute, hour, day, -1, weekday], zone(ZONES[zone_index]));
            let next = schedule(fields).next(Timestamp::from_second(after).unwrap(), &zone).unwrap().as_second();
            let walked = walked(fields, after, &zone, MINUTES);
            let within = (next < after.div_euclid(60) * 60 + MINUTES * 60).then_some(next);
            prop_assert_eq!(within.or(walked), walked, "{:?} after {} in {}", fields, after, ZONES[zone_index]);
            prop_assert!(walked.is_none() || within.is_some() || walked == Some(next));
        }

        #[test]
        fn the_next_run_lies_ahead_and_is_the_first(
            after in -1_000_000_000..250_000_000_000_i64,
            fields in [field_of(0, 59, 60), field_of(0, 23, 24), field_of(1, 28, 28), field_of(1, 12, 12), field_of(0, 7, 7)],
            zone_index in 0..ZONES.len(),
        ) {
            let (schedule, zone) = (schedule(fields), zone(ZONES[zone_index]));
            if let Some(next) = schedule.next(Timestamp::from_second(after).unwrap(), &zone) {
                prop_assert!(next.as_second() > after);
                // From anywhere in between the answer is the same.
                let between = after + (next.as_second() - 1 - after) / 2;
                prop_assert_eq!(schedule.next(Timestamp::from_second(between).unwrap(), &zone), Some(next));
            }
        }
    }
}
