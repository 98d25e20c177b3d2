//! Seconds since 1970 as a date, written without allocating. Reads no clock and knows no time zone by itself.

/// `Jan` to `Dec` (RFC 9110 §5.6.7 and the access log's format use English names whatever the locale).
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The last second of the year 9999: later ones don't fit into four digits and are written as this one.
const LAST_SECOND: i64 = 253_402_300_799;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A date and time of day in some zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// 0 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59: Unix time has no leap seconds.
    pub second: u8,
    /// Seconds east of UTC.
    pub offset: i32,
}

impl Moment {
    /// The moment `unix_seconds` after 1970 began in UTC, as told `offset` seconds east of it.
    pub fn new(unix_seconds: u64, offset: i32) -> Self {
        let seconds = i64::try_from(unix_seconds).unwrap_or(LAST_SECOND).min(LAST_SECOND);
        let seconds = seconds.saturating_add(i64::from(offset)).clamp(0, LAST_SECOND);
        let (days, of_day) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
        let (year, month, day) = date(days);
        Self {
            year,
            month,
            day,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            offset,
        }
    }

    /// `21/Nov/2026:03:04:05 +0000`, the access log's.
    pub fn common_log(&self) -> [u8; 26] {
        let mut text = *b"00/Xxx/0000:00:00:00 +0000";
        two_digits(&mut text[0..2], self.day);
        text[3..6].copy_from_slice(MONTHS[usize::from(self.month - 1)]);
        self.year_into(&mut text[7..11]);
        self.time_into(&mut text[12..20]);
        self.zone_into(&mut text[21..26]);
        text
    }

    /// `2026-11-21 03:04:05 +0000`, the error log's.
    pub fn sortable(&self) -> [u8; 25] {
        let mut text = *b"0000-00-00 00:00:00 +0000";
        self.year_into(&mut text[0..4]);
        two_digits(&mut text[5..7], self.month);
        two_digits(&mut text[8..10], self.day);
        self.time_into(&mut text[11..19]);
        self.zone_into(&mut text[20..25]);
        text
    }

    fn year_into(&self, text: &mut [u8]) {
        two_digits(&mut text[0..2], (self.year / 100) as u8);
        two_digits(&mut text[2..4], (self.year % 100) as u8);
    }

    fn time_into(&self, text: &mut [u8]) {
        two_digits(&mut text[0..2], self.hour);
        two_digits(&mut text[3..5], self.minute);
        two_digits(&mut text[6..8], self.second);
    }

    fn zone_into(&self, text: &mut [u8]) {
        let minutes = self.offset.unsigned_abs() / 60;
        text[0] = if self.offset < 0 { b'-' } else { b'+' };
        two_digits(&mut text[1..3], (minutes / 60 % 100) as u8);
        two_digits(&mut text[3..5], (minutes % 60) as u8);
    }
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Counted in years that begin in March, so that the leap day comes last, and from the year 0, so that the 400-year
/// cycle of the Gregorian calendar divides evenly.
fn date(days_since_1970: i64) -> (u16, u8, u8) {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: i64 = 719_468;
    const CYCLE_DAYS: i64 = 146_097;
    let days = days_since_1970 + EPOCH;
    let (cycle, of_cycle) = (days / CYCLE_DAYS, days % CYCLE_DAYS);
    // Take out the leap days before dividing: one in 1,461 days, but none in 36,524, but one in 146,096.
    let of_cycle_year = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * of_cycle_year + of_cycle_year / 4 - of_cycle_year / 100);
    // From March on, every five months have 153 days.
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = cycle * 400 + of_cycle_year + i64::from(month <= 2);
    (year as u16, month as u8, day as u8)
}

fn two_digits(text: &mut [u8], number: u8) {
    text[0] = b'0' + number / 10 % 10;
    text[1] = b'0' + number % 10;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let check = |seconds, offset, common: &str, sortable: &str| {
            let moment = Moment::new(seconds, offset);
            assert_eq!(std::str::from_utf8(&moment.common_log()).unwrap(), common);
            assert_eq!(std::str::from_utf8(&moment.sortable()).unwrap(), sortable);
        };
        check(0, 0, "01/Jan/1970:00:00:00 +0000", "1970-01-01 00:00:00 +0000");
        check(1_795_230_245, 0, "21/Nov/2026:03:04:05 +0000", "2026-11-21 03:04:05 +0000");
        check(1_795_230_245, 19_800, "21/Nov/2026:08:34:05 +0530", "2026-11-21 08:34:05 +0530");
        check(1_795_230_245, -12_600, "20/Nov/2026:23:34:05 -0330", "2026-11-20 23:34:05 -0330");
        check(951_782_400, 0, "29/Feb/2000:00:00:00 +0000", "2000-02-29 00:00:00 +0000");
        check(4_107_542_399, 0, "28/Feb/2100:23:59:59 +0000", "2100-02-28 23:59:59 +0000");
        check(4_107_542_400, 0, "01/Mar/2100:00:00:00 +0000", "2100-03-01 00:00:00 +0000");
        check(u64::MAX, 3600, "31/Dec/9999:23:59:59 +0100", "9999-12-31 23:59:59 +0100");
        check(5, -3600, "01/Jan/1970:00:00:00 -0100", "1970-01-01 00:00:00 -0100");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let length = |year: u16, month: u8| match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..LAST_SECOND / DAY_SECONDS {
            assert_eq!(date(days), (year, month, day), "day {days}");
            day += 1;
            if day > length(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
