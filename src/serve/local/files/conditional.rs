//! Preconditions, in the order of RFC 9110 §13.2.2. Reads no clock: dates are seconds of Unix time.

use std::borrow::Cow;
use std::time::UNIX_EPOCH;

/// What a file, or the application that named it, says of its state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// ETag, with its quotes; empty: there is none.
    pub etag: &'a [u8],
    /// Last-Modified.
    pub modified: Option<u64>,
}

/// The preconditions of a request. A field that may stand only once and doesn't is left out, as one is that is malformed
/// (RFC 9110 §13.1.3, §13.1.4).
#[derive(Clone, Debug, Default)]
pub struct Conditions<'a> {
    /// If-Match, lines joined.
    pub if_match: Option<Cow<'a, [u8]>>,
    /// If-None-Match, lines joined.
    pub if_none_match: Option<Cow<'a, [u8]>>,
    /// If-Modified-Since.
    pub if_modified_since: Option<Cow<'a, [u8]>>,
    /// If-Unmodified-Since.
    pub if_unmodified_since: Option<Cow<'a, [u8]>>,
    /// If-Range.
    pub if_range: Option<Cow<'a, [u8]>>,
}

/// What the preconditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer as if there were none.
    Perform,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates all but If-Range, for a GET or HEAD request.
pub fn evaluate(conditions: &Conditions<'_>, validators: Validators<'_>) -> Verdict {
    // When it was modified, and the field's date; a condition without either isn't one (RFC 9110 §13.1.3 and §13.1.4).
    let dates = |field: Option<&[u8]>| validators.modified.zip(field.and_then(date));
    if let Some(list) = conditions.if_match.as_deref() {
        if !matches_any(list, validators.etag, strong) {
            return Verdict::Failed;
        }
    } else if dates(conditions.if_unmodified_since.as_deref()).is_some_and(|(modified, since)| modified > since) {
        return Verdict::Failed;
    }
    if let Some(list) = conditions.if_none_match.as_deref() {
        if matches_any(list, validators.etag, weak) {
            return Verdict::NotModified;
        }
    } else if dates(conditions.if_modified_since.as_deref()).is_some_and(|(modified, since)| modified <= since) {
        return Verdict::NotModified;
    }
    Verdict::Perform
}

/// Whether a Range field counts (RFC 9110 §13.1.5): there is no If-Range, or it names the present state beyond doubt.
pub fn range_counts(conditions: &Conditions<'_>, validators: Validators<'_>, now: u64) -> bool {
    let Some(value) = conditions.if_range.as_deref() else { return true };
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        return !validators.etag.is_empty() && strong(value, validators.etag);
    }
    // §8.8.2.2: a date is a strong validator only if the file can't have changed again within the same second.
    match (date(value), validators.modified) {
        (Some(date), Some(modified)) => date == modified && modified < now,
        _ => false,
    }
}

/// Seconds of Unix time of an HTTP-date, in any of the three forms (RFC 9110 §5.6.7).
pub fn date(value: &[u8]) -> Option<u64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    Some(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// RFC 9110 §8.8.3.2: equal, and neither of them weak.
fn strong(one: &[u8], other: &[u8]) -> bool {
    one == other && !one.starts_with(b"W/")
}

/// RFC 9110 §8.8.3.2: equal but for weakness.
fn weak(one: &[u8], other: &[u8]) -> bool {
    one.strip_prefix(b"W/").unwrap_or(one) == other.strip_prefix(b"W/").unwrap_or(other)
}

/// Whether one of a list of entity tags, or `*`, matches. Of a malformed list what stands before the fault counts.
fn matches_any(list: &[u8], etag: &[u8], same: fn(&[u8], &[u8]) -> bool) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    if etag.is_empty() {
        return false;
    }
    loop {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        let opaque = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(inside) = opaque.strip_prefix(b"\"") else { return false };
        let Some(end) = memchr::memchr(b'"', inside) else { return false };
        let length = rest.len() - inside.len() + end + 1;
        let tag = &rest[..length];
        rest = &rest[length..];
        // A tag ends at a comma or at the end: `"a"b` is none.
        if !matches!(rest.trim_ascii_start(), [] | [b',', ..]) {
            return false;
        }
        if same(tag, etag) {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEFORE: &[u8] = b"Sun, 06 Nov 1994 08:49:36 GMT";
    const EXACTLY: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &[u8] = b"Sun, 06 Nov 1994 08:49:38 GMT";
    const MODIFIED: u64 = 784_111_777;
    const FILE: Validators<'_> = Validators { etag: b"\"a\"", modified: Some(MODIFIED) };

    fn verdict(pairs: &[(&str, &[u8])]) -> Verdict {
        verdict_of(pairs, FILE)
    }

    fn verdict_of(pairs: &[(&str, &[u8])], validators: Validators<'_>) -> Verdict {
        let mut conditions = Conditions::default();
        for &(name, value) in pairs {
            let slot = match name {
                "match" => &mut conditions.if_match,
                "none" => &mut conditions.if_none_match,
                "modified" => &mut conditions.if_modified_since,
                "unmodified" => &mut conditions.if_unmodified_since,
                _ => unreachable!(),
            };
            *slot = Some(value.into());
        }
        evaluate(&conditions, validators)
    }

    #[test]
    fn preconditions_by_their_sections() {
        use Verdict::*;
        let check = |section: &str, pairs: &[(&str, &[u8])], expected: Verdict| {
            assert_eq!(verdict(pairs), expected, "{section}: {pairs:?}");
        };
        check("13.1.1", &[("match", b"\"a\"")], Perform);
        check("13.1.1", &[("match", b"*")], Perform);
        check("13.1.1", &[("match", b"\"b\", \"a\"")], Perform);
        check("13.1.1", &[("match", b"\"b\",,\t\"a\" ,")], Perform);
        check("13.1.1", &[("match", b"\"b\"")], Failed);
        check("13.1.1, strong comparison", &[("match", b"W/\"a\"")], Failed);
        check("13.1.1, malformed", &[("match", b"a")], Failed);
        check("13.1.1, malformed", &[("match", b"")], Failed);
        check("13.1.1, malformed", &[("match", b"\"a")], Failed);
        check("13.1.1, malformed", &[("match", b"\"a\"x")], Failed);
        check("13.1.2", &[("none", b"\"a\"")], NotModified);
        check("13.1.2, weak comparison", &[("none", b"W/\"a\"")], NotModified);
        check("13.1.2", &[("none", b"*")], NotModified);
        check("13.1.2", &[("none", b"\"b\", W/\"a\"")], NotModified);
        check("13.1.2", &[("none", b"\"b\"")], Perform);
        check("8.8.3, a comma within a tag", &[("none", b"\"b,\\\", \"a\"")], NotModified);
        check("13.1.2, malformed", &[("none", b"a, \"a\"")], Perform);
        check("13.1.2, malformed", &[("none", b"\"b\"x, \"a\"")], Perform);
        check("13.1.2, malformed", &[("none", b"w/\"a\"")], Perform);
        check("13.1.3", &[("modified", EXACTLY)], NotModified);
        check("13.1.3", &[("modified", AFTER)], NotModified);
        check("13.1.3", &[("modified", BEFORE)], Perform);
        check("13.1.3, not a date", &[("modified", b"yesterday")], Perform);
        check("5.6.7, RFC 850", &[("modified", b"Sunday, 06-Nov-94 08:49:37 GMT")], NotModified);
        check("5.6.7, asctime", &[("modified", b"Sun Nov  6 08:49:37 1994")], NotModified);
        check("13.1.4", &[("unmodified", EXACTLY)], Perform);
        check("13.1.4", &[("unmodified", AFTER)], Perform);
        check("13.1.4", &[("unmodified", BEFORE)], Failed);
        check("13.1.4, not a date", &[("unmodified", b"0")], Perform);
        check("13.2.2 step 1 over 2", &[("match", b"\"a\""), ("unmodified", BEFORE)], Perform);
        check("13.2.2 step 1 before 3", &[("match", b"\"b\""), ("none", b"\"a\"")], Failed);
        check("13.2.2 steps 1 and 3", &[("match", b"\"a\""), ("none", b"\"a\"")], NotModified);
        check("13.2.2 step 2 before 3", &[("unmodified", BEFORE), ("none", b"\"a\"")], Failed);
        check("13.2.2 steps 2 and 4", &[("unmodified", AFTER), ("modified", AFTER)], NotModified);
        check("13.2.2 step 3 over 4", &[("none", b"\"b\""), ("modified", AFTER)], Perform);
        check("13.2.2 step 3 over 4", &[("none", b"\"a\""), ("modified", BEFORE)], NotModified);
    }

    #[test]
    fn without_a_validator_only_the_star_matches() {
        let none = Validators::default();
        assert_eq!(verdict_of(&[("match", b"\"a\"")], none), Verdict::Failed);
        assert_eq!(verdict_of(&[("match", b"*")], none), Verdict::Perform);
        assert_eq!(verdict_of(&[("none", b"\"\"")], none), Verdict::Perform);
        assert_eq!(verdict_of(&[("modified", AFTER)], none), Verdict::Perform);
        let weak = Validators { etag: b"W/\"a\"", modified: None };
        assert_eq!(verdict_of(&[("match", b"W/\"a\"")], weak), Verdict::Failed);
        assert_eq!(verdict_of(&[("none", b"\"a\"")], weak), Verdict::NotModified);
    }

    /// RFC 9110 §13.1.5.
    #[test]
    fn if_range() {
        let check = |value: &[u8], now: u64, expected: bool| {
            let conditions = Conditions { if_range: Some(value.into()), ..Conditions::default() };
            assert_eq!(range_counts(&conditions, FILE, now), expected, "{}", String::from_utf8_lossy(value));
        };
        check(b"\"a\"", 0, true);
        check(b"\"b\"", 0, false);
        check(b"W/\"a\"", 0, false);
        check(b"\"a\", \"b\"", 0, false);
        check(EXACTLY, MODIFIED + 1, true);
        check(EXACTLY, MODIFIED, false);
        check(AFTER, MODIFIED + 9, false);
        check(BEFORE, MODIFIED + 9, false);
        check(b"a", MODIFIED + 9, false);
        check(b"", MODIFIED + 9, false);
        assert!(range_counts(&Conditions::default(), FILE, 0));
        let weak = Validators { etag: b"W/\"a\"", modified: None };
        let conditions = Conditions { if_range: Some(b"W/\"a\"".into()), ..Conditions::default() };
        assert!(!range_counts(&conditions, weak, 0));
    }

    proptest! {
        #[test]
        fn any_bytes(value in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b','), Just(b'W'), Just(b'/')], 0..40)) {
            for name in ["match", "none", "modified", "unmodified"] {
                verdict(&[(name, &value)]);
            }
            range_counts(&Conditions { if_range: Some((&*value).into()), ..Conditions::default() }, FILE, 0);
        }
    }
}
