//! May it be stored, may it be used: RFC 9111 §3 and §4 for a shared cache, within what wsgo stores. One function for each question;
//! the tests are a table of the rules.

use std::time::Duration;

use super::directives::{Request, Response};
use super::freshness::Freshness;
use crate::reactor::clock::Instant;

/// Requests that share stored responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// GET; a HEAD request is answered from it too.
    Get,
    /// HEAD, when no GET is stored.
    Head,
    /// OPTIONS.
    Options,
}

/// What a method is to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Its responses may be stored.
    Stored(Class),
    /// Safe, and never stored (RFC 9110 §9.2.1: TRACE).
    Safe,
    /// Unsafe or unknown: a success invalidates what is stored (§4.4).
    Unsafe,
}

/// What a method is; methods are case-sensitive (RFC 9110 §9.1).
pub fn method(name: &[u8]) -> Method {
    match name {
        b"GET" => Method::Stored(Class::Get),
        b"HEAD" => Method::Stored(Class::Head),
        b"OPTIONS" => Method::Stored(Class::Options),
        b"TRACE" => Method::Safe,
        _ => Method::Unsafe,
    }
}

/// Whether a response stored for a request of one class may answer one of another (RFC 9110 §9.3.2).
pub fn answers(stored: Class, asked: Class) -> bool {
    stored == asked || (stored == Class::Get && asked == Class::Head)
}

/// What of a response decides whether it may be stored.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Status code.
    pub status: u16,
    /// Its `Cache-Control`.
    pub directives: Response,
    /// Whether it has a `Set-Cookie`.
    pub set_cookie: bool,
    /// Whether its `Vary` has the member `*`.
    pub vary_all: bool,
    /// Whether the request had an `Authorization`.
    pub authorization: bool,
    /// Whether the request said `no-store`.
    pub request_no_store: bool,
    /// Its freshness.
    pub freshness: Freshness,
    /// Bytes of its head and body.
    pub bytes: usize,
}

/// Why a response isn't stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstorable {
    /// §3: a status whose meaning for caches isn't known here, or that is never stored (206, §3.3).
    Status,
    /// §5.2.2.5, §5.2.2.4, §5.2.2.7: `no-store`, `no-cache`, `private`.
    Directive,
    /// §5.2.1.5.
    Request,
    /// A page with a cookie in it is one client's own (§7.3).
    SetCookie,
    /// §4.1: nothing matches it.
    VaryAll,
    /// §3.5.
    Authorization,
    /// §3: no explicit lifetime, or none that is left.
    Stale,
    /// More than `--cache-response-size`.
    TooLarge,
}

/// Statuses that are stored when they say for how long. 206 isn't (§3.3: ranges aren't put together here), nor 304; of the errors
/// those that RFC 9110 §15.1 calls cacheable.
fn is_understood(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 302 | 307 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// May it be stored (§3)? `bytes_max`: `--cache-response-size`.
///
/// # Errors
/// The first reason why not.
pub fn storable(candidate: &Candidate, now: Instant, bytes_max: usize) -> Result<(), Unstorable> {
    let Candidate { directives, .. } = candidate;
    if !is_understood(candidate.status) {
        return Err(Unstorable::Status);
    }
    // §5.2.2.3: who understands the status passes over `no-store` beside `must-understand`.
    if (directives.no_store && !directives.must_understand) || directives.no_cache || directives.private {
        return Err(Unstorable::Directive);
    }
    if candidate.request_no_store {
        return Err(Unstorable::Request);
    }
    if candidate.set_cookie {
        return Err(Unstorable::SetCookie);
    }
    if candidate.vary_all {
        return Err(Unstorable::VaryAll);
    }
    if candidate.authorization && !allows_authorization(directives) {
        return Err(Unstorable::Authorization);
    }
    if candidate.freshness.left(now).is_none() {
        return Err(Unstorable::Stale);
    }
    if candidate.bytes > bytes_max {
        return Err(Unstorable::TooLarge);
    }
    Ok(())
}

/// Whether a response may be stored from, and be used for, a request with `Authorization` (§3.5).
pub fn allows_authorization(directives: &Response) -> bool {
    directives.public || directives.must_revalidate || directives.s_maxage.is_some()
}

/// What may be done with a stored response that matches a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It answers the request (§4).
    Fresh,
    /// It answers the request although it is stale: the client takes it (§5.2.1.2).
    Stale,
    /// It answers the request, and is to be renewed (RFC 5861 §3).
    WhileRevalidate,
    /// The application must be asked first (§4.3).
    Validate,
    /// It isn't for this request (§3.5).
    Never,
}

/// May it be used (§4)? `public`: whether [`allows_authorization`] held when it was stored; `authorization`: whether the request
/// has one.
pub fn usable(freshness: &Freshness, public: bool, request: &Request, authorization: bool, now: Instant) -> Use {
    if authorization && !public {
        return Use::Never;
    }
    if request.no_cache {
        return Use::Validate;
    }
    let seconds = Duration::from_secs;
    if request.max_age.is_some_and(|most| freshness.age(now) > seconds(most)) {
        return Use::Validate;
    }
    let least = seconds(request.min_fresh.unwrap_or(0));
    match freshness.left(now) {
        Some(left) if left >= least => return Use::Fresh,
        // A client that wants it fresh for longer wants no stale one.
        _ if request.min_fresh.is_some() => return Use::Validate,
        _ => {}
    }
    let staleness = freshness.staleness(now);
    if !freshness.strict && request.max_stale.is_some_and(|most| staleness <= seconds(most)) {
        return Use::Stale;
    }
    // A client that names an age wants no older one, and gets the application's word.
    if request.max_age.is_none() && staleness < freshness.while_revalidate {
        return Use::WhileRevalidate;
    }
    Use::Validate
}

/// Whether a stale response may stand in for an error of the application (RFC 5861 §4; §4.2.4).
pub fn usable_instead_of(status: u16, freshness: &Freshness, request: &Request, now: Instant) -> bool {
    let error = matches!(status, 500 | 502 | 503 | 504);
    let asked = Duration::from_secs(request.stale_if_error.unwrap_or(0));
    let window = if freshness.strict { freshness.if_error } else { freshness.if_error.max(asked) };
    // A client that has asked for the origin's own word gets it, errors and all.
    error && !request.no_cache && freshness.staleness(now) < window
}

/// Whether a stale response can be of any use still at `now`: without a validator and past its windows it can't.
pub fn is_of_use(freshness: &Freshness, has_validator: bool, now: Instant) -> bool {
    let window = freshness.while_revalidate.max(freshness.if_error);
    has_validator || freshness.left(now).is_some() || freshness.staleness(now) < window
}

/// Whether a response to an unsafe method invalidates what is stored (§4.4: non-error).
pub fn invalidates(status: u16) -> bool {
    (200..400).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn freshness(lifetime: u64, age: u64) -> Freshness {
        Freshness {
            lifetime: seconds(lifetime),
            initial_age: seconds(age),
            at: NOW,
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            strict: false,
        }
    }

    fn candidate() -> Candidate {
        Candidate {
            status: 200,
            directives: Response { max_age: Some(60), ..Response::default() },
            set_cookie: false,
            vary_all: false,
            authorization: false,
            request_no_store: false,
            freshness: freshness(60, 0),
            bytes: 100,
        }
    }

    fn store(change: impl FnOnce(&mut Candidate)) -> Result<(), Unstorable> {
        let mut candidate = candidate();
        change(&mut candidate);
        storable(&candidate, NOW, 1000)
    }

    #[test]
    fn rfc_9110_9_2_methods() {
        assert_eq!(method(b"GET"), Method::Stored(Class::Get));
        assert_eq!(method(b"HEAD"), Method::Stored(Class::Head));
        assert_eq!(method(b"OPTIONS"), Method::Stored(Class::Options));
        assert_eq!(method(b"TRACE"), Method::Safe);
        for name in ["POST", "PUT", "PATCH", "DELETE", "get", "FROB", "PROPFIND", ""] {
            assert_eq!(method(name.as_bytes()), Method::Unsafe, "{name}");
        }
    }

    #[test]
    fn rfc_9110_9_3_2_head_is_answered_from_get_and_nothing_else_crosses() {
        use Class::{Get, Head, Options};
        for (stored, asked, expected) in [
            (Get, Get, true),
            (Get, Head, true),
            (Head, Head, true),
            (Options, Options, true),
            (Head, Get, false),
            (Options, Get, false),
            (Get, Options, false),
            (Options, Head, false),
        ] {
            assert_eq!(answers(stored, asked), expected, "{stored:?} {asked:?}");
        }
    }

    #[test]
    fn rfc_9111_3_what_says_how_long_it_is_good_for_is_stored() {
        assert_eq!(store(|_| {}), Ok(()));
        assert_eq!(store(|candidate| candidate.freshness = freshness(0, 0)), Err(Unstorable::Stale));
        assert_eq!(store(|candidate| candidate.freshness = freshness(60, 60)), Err(Unstorable::Stale));
    }

    #[test]
    fn rfc_9111_3_only_statuses_that_are_understood() {
        for status in [200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501] {
            assert_eq!(store(|candidate| candidate.status = status), Ok(()), "{status}");
        }
        for status in [201, 202, 205, 303, 304, 400, 401, 403, 429, 500, 502, 503, 504, 299, 999] {
            assert_eq!(store(|candidate| candidate.status = status), Err(Unstorable::Status), "{status}");
        }
    }

    #[test]
    fn rfc_9111_3_3_no_part_of_a_response() {
        assert_eq!(store(|candidate| candidate.status = 206), Err(Unstorable::Status));
    }

    #[test]
    fn rfc_9111_5_2_2_5_no_store() {
        assert_eq!(store(|candidate| candidate.directives.no_store = true), Err(Unstorable::Directive));
    }

    #[test]
    fn rfc_9111_5_2_2_4_no_cache() {
        assert_eq!(store(|candidate| candidate.directives.no_cache = true), Err(Unstorable::Directive));
    }

    #[test]
    fn rfc_9111_5_2_2_7_private() {
        assert_eq!(store(|candidate| candidate.directives.private = true), Err(Unstorable::Directive));
    }

    #[test]
    fn rfc_9111_5_2_2_3_must_understand() {
        let both = Response { no_store: true, must_understand: true, ..candidate().directives };
        assert_eq!(store(|candidate| candidate.directives = both), Ok(()));
        let unknown = |candidate: &mut Candidate| (candidate.directives, candidate.status) = (both, 299);
        assert_eq!(store(unknown), Err(Unstorable::Status));
    }

    #[test]
    fn rfc_9111_5_2_1_5_the_request_says_no_store() {
        assert_eq!(store(|candidate| candidate.request_no_store = true), Err(Unstorable::Request));
    }

    #[test]
    fn rfc_9111_7_3_no_cookie_is_stored() {
        assert_eq!(store(|candidate| candidate.set_cookie = true), Err(Unstorable::SetCookie));
        let public = |candidate: &mut Candidate| (candidate.set_cookie, candidate.directives.public) = (true, true);
        assert_eq!(store(public), Err(Unstorable::SetCookie));
    }

    #[test]
    fn rfc_9111_4_1_vary_all_is_not_stored() {
        assert_eq!(store(|candidate| candidate.vary_all = true), Err(Unstorable::VaryAll));
    }

    #[test]
    fn rfc_9111_3_5_authorization() {
        let with = |change: fn(&mut Response)| {
            store(|candidate| {
                candidate.authorization = true;
                change(&mut candidate.directives);
            })
        };
        assert_eq!(with(|_| {}), Err(Unstorable::Authorization));
        assert_eq!(with(|directives| directives.proxy_revalidate = true), Err(Unstorable::Authorization));
        assert_eq!(with(|directives| directives.public = true), Ok(()));
        assert_eq!(with(|directives| directives.must_revalidate = true), Ok(()));
        assert_eq!(with(|directives| directives.s_maxage = Some(5)), Ok(()));
        let (fresh, none) = (freshness(60, 0), Request::default());
        assert_eq!(usable(&fresh, false, &none, true, NOW), Use::Never);
        assert_eq!(usable(&fresh, true, &none, true, NOW), Use::Fresh);
        assert_eq!(usable(&fresh, false, &none, false, NOW), Use::Fresh);
    }

    #[test]
    fn no_response_above_the_limit() {
        assert_eq!(store(|candidate| candidate.bytes = 1000), Ok(()));
        assert_eq!(store(|candidate| candidate.bytes = 1001), Err(Unstorable::TooLarge));
    }

    fn with(freshness: Freshness, request: Request) -> Use {
        usable(&freshness, false, &request, false, NOW)
    }

    const NONE: Request = Request {
        no_cache: false,
        no_store: false,
        only_if_cached: false,
        max_age: None,
        min_fresh: None,
        max_stale: None,
        stale_if_error: None,
    };

    #[test]
    fn rfc_9111_4_2_fresh_or_not() {
        assert_eq!(with(freshness(60, 59), NONE), Use::Fresh);
        assert_eq!(with(freshness(60, 60), NONE), Use::Validate);
    }

    #[test]
    fn rfc_9111_5_2_1_4_no_cache() {
        assert_eq!(with(freshness(60, 0), Request { no_cache: true, ..NONE }), Use::Validate);
    }

    #[test]
    fn rfc_9111_5_2_1_1_max_age() {
        let at_most = |age| Request { max_age: Some(age), ..NONE };
        assert_eq!(with(freshness(60, 10), at_most(10)), Use::Fresh);
        assert_eq!(with(freshness(60, 10), at_most(9)), Use::Validate);
        assert_eq!(with(freshness(60, 1), at_most(0)), Use::Validate);
    }

    #[test]
    fn rfc_9111_5_2_1_3_min_fresh() {
        let at_least = |left| Request { min_fresh: Some(left), ..NONE };
        assert_eq!(with(freshness(60, 10), at_least(50)), Use::Fresh);
        assert_eq!(with(freshness(60, 10), at_least(51)), Use::Validate);
        let windows = Freshness { while_revalidate: seconds(100), ..freshness(60, 70) };
        assert_eq!(with(windows, at_least(1)), Use::Validate);
    }

    #[test]
    fn rfc_9111_5_2_1_2_max_stale() {
        let at_most = |stale| Request { max_stale: Some(stale), ..NONE };
        assert_eq!(with(freshness(60, 70), at_most(10)), Use::Stale);
        assert_eq!(with(freshness(60, 70), at_most(9)), Use::Validate);
        // RFC 9111 §4.2.4.
        assert_eq!(with(Freshness { strict: true, ..freshness(60, 70) }, at_most(10)), Use::Validate);
    }

    #[test]
    fn rfc_5861_3_stale_while_revalidate() {
        let windows = Freshness { while_revalidate: seconds(10), ..freshness(60, 69) };
        assert_eq!(with(windows, NONE), Use::WhileRevalidate);
        assert_eq!(with(Freshness { initial_age: seconds(70), ..windows }, NONE), Use::Validate);
        assert_eq!(with(windows, Request { max_age: Some(100), ..NONE }), Use::Validate);
        assert_eq!(with(windows, Request { no_cache: true, ..NONE }), Use::Validate);
    }

    #[test]
    fn rfc_5861_4_stale_if_error() {
        let windows = Freshness { if_error: seconds(10), ..freshness(60, 69) };
        for status in [500, 502, 503, 504] {
            assert!(usable_instead_of(status, &windows, &NONE, NOW), "{status}");
        }
        for status in [200, 304, 404, 400, 501] {
            assert!(!usable_instead_of(status, &windows, &NONE, NOW), "{status}");
        }
        assert!(!usable_instead_of(500, &Freshness { initial_age: seconds(70), ..windows }, &NONE, NOW));
        assert!(!usable_instead_of(500, &windows, &Request { no_cache: true, ..NONE }, NOW));
        let asks = Request { stale_if_error: Some(20), ..NONE };
        assert!(usable_instead_of(500, &freshness(60, 79), &asks, NOW));
        assert!(!usable_instead_of(500, &Freshness { strict: true, ..freshness(60, 79) }, &asks, NOW));
    }

    #[test]
    fn what_is_stale_is_kept_for_what_it_can_still_do() {
        assert!(is_of_use(&freshness(60, 0), false, NOW));
        assert!(!is_of_use(&freshness(60, 60), false, NOW));
        assert!(is_of_use(&freshness(60, 60), true, NOW));
        assert!(is_of_use(&Freshness { if_error: seconds(10), ..freshness(60, 69) }, false, NOW));
        assert!(!is_of_use(&Freshness { if_error: seconds(10), ..freshness(60, 70) }, false, NOW));
    }

    #[test]
    fn rfc_9111_4_4_what_invalidates() {
        for (status, expected) in [(200, true), (201, true), (204, true), (303, true), (399, true)] {
            assert_eq!(invalidates(status), expected, "{status}");
        }
        for status in [0, 400, 404, 409, 500, 503] {
            assert!(!invalidates(status), "{status}");
        }
    }
}
