//! Age and freshness (RFC 9111 §4.2): how old a stored response is and how long it may be used. Reads no clock.

use std::time::{Duration, UNIX_EPOCH};

use super::directives::Response;
use crate::reactor::clock::Instant;

/// When a response was made and how long it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// freshness_lifetime (§4.2.1), not above the operator's ceiling.
    pub lifetime: Duration,
    /// corrected_initial_age (§4.2.3).
    pub initial_age: Duration,
    /// response_time: when it was received.
    pub at: Instant,
    /// For how long it may be used stale while it is being renewed (RFC 5861 §3); zero if it may never be used stale.
    pub while_revalidate: Duration,
    /// For how long it may be used stale when it can't be renewed (RFC 5861 §4), likewise.
    pub if_error: Duration,
    /// Never to be used stale because a client would take it (`max-stale`): `must-revalidate`, `proxy-revalidate`, `s-maxage`
    /// (§4.2.4, §5.2.2.10).
    pub strict: bool,
}

/// What of a response its freshness follows from.
#[derive(Clone, Copy, Debug)]
pub struct Dates {
    /// `Date`, in seconds since 1970; `None` if there is none or it can't be read.
    pub date: Option<u64>,
    /// `Expires`: `Some(None)` if it can't be read, which says that it has expired (§5.3).
    pub expires: Option<Option<u64>>,
    /// `Age`, in seconds; 0 if there is none.
    pub age: u64,
}

/// When a response was asked for and when it came.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// request_time.
    pub asked: Instant,
    /// response_time.
    pub answered: Instant,
    /// The latter, in seconds since 1970.
    pub answered_unix: u64,
}

impl Freshness {
    /// The freshness of a response that has just come; `ceiling`: no lifetime is longer (`--max-age`).
    pub fn new(directives: &Response, dates: &Dates, times: &Times, ceiling: Duration) -> Self {
        let revalidate = directives.must_revalidate || directives.proxy_revalidate;
        // An application that gives a window beside its `s-maxage` means it, as with every content delivery network.
        let window = |seconds: Option<u64>| match seconds {
            Some(seconds) if !revalidate => Duration::from_secs(seconds),
            _ => Duration::ZERO,
        };
        let apparent = dates.date.map_or(0, |date| times.answered_unix.saturating_sub(date));
        let corrected = Duration::from_secs(dates.age) + times.answered.since(times.asked);
        Self {
            lifetime: lifetime(directives, dates, times.answered_unix).unwrap_or_default().min(ceiling),
            initial_age: Duration::from_secs(apparent).max(corrected),
            at: times.answered,
            while_revalidate: window(directives.stale_while_revalidate),
            if_error: window(directives.stale_if_error),
            strict: revalidate || directives.s_maxage.is_some(),
        }
    }

    /// current_age (§4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.initial_age + now.since(self.at)
    }

    /// How long it stays fresh; `None` if it is stale.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        // §4.2: fresh while the lifetime is *greater* than the age.
        self.lifetime.checked_sub(self.age(now)).filter(|left| !left.is_zero())
    }

    /// For how long it has been stale; zero if it is fresh.
    pub fn staleness(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }
}

/// freshness_lifetime for a shared cache (§4.2.1): `s-maxage`, or `max-age`, or `Expires` − `Date`. Nothing is guessed (§4.2.2 would
/// allow it): a response that doesn't say how long it is good for has none.
pub fn lifetime(directives: &Response, dates: &Dates, answered_unix: u64) -> Option<Duration> {
    let explicit = directives.s_maxage.or(directives.max_age);
    let seconds = explicit.or_else(|| {
        let expires = dates.expires?.unwrap_or(0);
        Some(expires.saturating_sub(dates.date.unwrap_or(answered_unix)))
    });
    seconds.map(Duration::from_secs)
}

/// An HTTP-date (RFC 9110 §5.6.7) in seconds since 1970.
pub fn http_date(value: &[u8]) -> Option<u64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000_000);
    const UNIX: u64 = 1_000_000;
    const NO_DATES: Dates = Dates { date: None, expires: None, age: 0 };
    const CEILING: Duration = Duration::from_secs(100_000);

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn fresh(directives: Response, dates: Dates, took: u64) -> Freshness {
        let times = Times { asked: START, answered: START + seconds(took), answered_unix: UNIX };
        Freshness::new(&directives, &dates, &times, CEILING)
    }

    #[test]
    fn lifetimes_rfc_9111_4_2_1() {
        let check = |directives: Response, dates: Dates, expected: u64| {
            assert_eq!(fresh(directives, dates, 0).lifetime, seconds(expected), "{directives:?} {dates:?}");
        };
        let none = Response::default();
        let expires = |at| Dates { expires: Some(at), ..NO_DATES };
        check(none, NO_DATES, 0);
        check(Response { max_age: Some(5), ..none }, expires(Some(UNIX + 50)), 5);
        check(Response { max_age: Some(5), s_maxage: Some(7), ..none }, expires(Some(UNIX + 50)), 7);
        check(none, expires(Some(UNIX + 50)), 50);
        check(none, Dates { date: Some(UNIX - 10), ..expires(Some(UNIX + 50)) }, 60);
        check(none, expires(Some(UNIX - 50)), 0);
        check(none, expires(None), 0);
        check(Response { max_age: Some(1 << 31), ..none }, NO_DATES, 100_000);
    }

    #[test]
    fn ages_rfc_9111_4_2_3() {
        let directives = Response { max_age: Some(60), ..Response::default() };
        let check = |dates: Dates, took: u64, expected: u64| {
            let fresh = fresh(directives, dates, took);
            assert_eq!(fresh.age(fresh.at), seconds(expected), "{dates:?} {took}");
            assert_eq!(fresh.age(fresh.at + seconds(9)), seconds(expected + 9));
        };
        check(NO_DATES, 0, 0);
        check(NO_DATES, 3, 3);
        check(Dates { age: 10, ..NO_DATES }, 3, 13);
        check(Dates { date: Some(UNIX - 20), age: 10, ..NO_DATES }, 3, 20);
        // A clock that is ahead of ours makes nothing younger.
        check(Dates { date: Some(UNIX + 20), ..NO_DATES }, 3, 3);
    }

    #[test]
    fn fresh_until_the_age_reaches_the_lifetime_rfc_9111_4_2() {
        let fresh = fresh(Response { max_age: Some(60), ..Response::default() }, NO_DATES, 0);
        assert_eq!(fresh.left(START), Some(seconds(60)));
        assert_eq!(fresh.left(START + seconds(59)), Some(seconds(1)));
        assert_eq!((fresh.left(START + seconds(60)), fresh.staleness(START + seconds(60))), (None, seconds(0)));
        assert_eq!(fresh.staleness(START + seconds(65)), seconds(5));
    }

    #[test]
    fn what_must_be_revalidated_is_never_used_stale_rfc_9111_4_2_4() {
        let windows = Response {
            max_age: Some(1),
            stale_while_revalidate: Some(5),
            stale_if_error: Some(6),
            ..Response::default()
        };
        let open = fresh(windows, NO_DATES, 0);
        assert_eq!((open.while_revalidate, open.if_error, open.strict), (seconds(5), seconds(6), false));
        let shared = fresh(Response { s_maxage: Some(1), ..windows }, NO_DATES, 0);
        assert_eq!((shared.while_revalidate, shared.if_error, shared.strict), (seconds(5), seconds(6), true));
        for strict in [Response { must_revalidate: true, ..windows }, Response { proxy_revalidate: true, ..windows }] {
            let strict = fresh(strict, NO_DATES, 0);
            assert_eq!((strict.while_revalidate, strict.if_error, strict.strict), (seconds(0), seconds(0), true));
        }
    }

    #[test]
    fn dates_in_the_three_forms_of_rfc_9110_5_6_7() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(http_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in ["", "0", "-1", "Thu, 01 Jan 1969 00:00:00 GMT", "tomorrow", "\u{e9}"] {
            assert_eq!(http_date(text.as_bytes()), None, "{text}");
        }
    }
}
