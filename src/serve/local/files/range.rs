//! Which stretches of a file a Range field asks for (RFC 9110 §14). A set that costs more than it saves is answered with the whole file.

use std::ops::Range;

use crate::limits;

/// What a Range field comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The field is of no effect: another unit, malformed, or too many ranges (RFC 9110 §14.2).
    All,
    /// These stretches, in order; none is empty, none overlaps or touches another.
    Some(Vec<Range<u64>>),
    /// No range of the set begins within the file: 416 (RFC 9110 §15.5.17).
    Unsatisfiable,
}

/// Reads `value` for a file of `size` bytes.
pub fn parse(value: &[u8], size: u64) -> Wanted {
    // RFC 9110 §14.1: range units are case-insensitive.
    let Some((unit, set)) = value.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes=")) else {
        return Wanted::All;
    };
    debug_assert_eq!(unit.len(), 6);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut count = 0;
    for spec in set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        // RFC 9110 §5.6.1.2: empty elements of a list are to be let pass.
        if spec.is_empty() {
            continue;
        }
        count += 1;
        match one(spec, size) {
            Err(Malformed) => return Wanted::All,
            Ok(_) if count > limits::STATIC_RANGES_MAX => return Wanted::All,
            Ok(Some(range)) => ranges.push(range),
            Ok(None) => {}
        }
    }
    match (count, ranges.is_empty()) {
        (0, _) => Wanted::All,
        (_, true) => Wanted::Unsatisfiable,
        (_, false) => Wanted::Some(coalesced(ranges)),
    }
}

struct Malformed;

/// One range; `None` when it can't be satisfied.
fn one(spec: &[u8], size: u64) -> Result<Option<Range<u64>>, Malformed> {
    let dash = memchr::memchr(b'-', spec).ok_or(Malformed)?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    if first.is_empty() {
        // A suffix: the last so many bytes.
        let length = number(last)?.min(size);
        return Ok((length > 0).then(|| size - length..size));
    }
    let first = number(first)?;
    if last.is_empty() {
        return Ok((first < size).then_some(first..size));
    }
    let last = number(last)?;
    if last < first {
        return Err(Malformed);
    }
    Ok((first < size).then(|| first..last.saturating_add(1).min(size)))
}

/// Digits; what doesn't fit is as good as the largest number.
fn number(digits: &[u8]) -> Result<u64, Malformed> {
    if digits.is_empty() {
        return Err(Malformed);
    }
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'9' => Ok(number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
        _ => Err(Malformed),
    })
}

/// Joined where they overlap, touch, or lie closer than a part's head is long (RFC 9110 §15.3.7.2); otherwise in the order asked for.
fn coalesced(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for mut range in ranges {
        // What it is joined with may now touch another one.
        while let Some(at) = joined.iter().position(|other| is_near(other, &range)) {
            let other = joined.remove(at);
            range = range.start.min(other.start)..range.end.max(other.end);
        }
        joined.push(range);
    }
    joined
}

fn is_near(one: &Range<u64>, other: &Range<u64>) -> bool {
    let gap = limits::STATIC_RANGE_GAP_BYTES;
    one.start <= other.end.saturating_add(gap) && other.start <= one.end.saturating_add(gap)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::single_range_in_vec_init, reason = "a list of one range is what is meant")]
    #[test]
    fn ranges_of_a_thousand_bytes() {
        let check = |value: &str, expected: Wanted| assert_eq!(parse(value.as_bytes(), 1000), expected, "{value}");
        // RFC 9110 §14.1.2.
        check("bytes=0-499", Wanted::Some(vec![0..500]));
        check("bytes=500-999", Wanted::Some(vec![500..1000]));
        check("bytes=-500", Wanted::Some(vec![500..1000]));
        check("bytes=500-", Wanted::Some(vec![500..1000]));
        check("bytes=0-0,-1", Wanted::Some(vec![0..1, 999..1000]));
        check("bytes= 0-99, 200-299, -100 ", Wanted::Some(vec![0..100, 200..300, 900..1000]));
        check("BYTES=0-0", Wanted::Some(vec![0..1]));
        check("bytes=,0-0,,", Wanted::Some(vec![0..1]));
        // Longer than the file.
        check("bytes=900-1100", Wanted::Some(vec![900..1000]));
        check("bytes=-5000", Wanted::Some(vec![0..1000]));
        check("bytes=0-99999999999999999999999", Wanted::Some(vec![0..1000]));
        // §15.5.17: none of them begins within it.
        check("bytes=1000-", Wanted::Unsatisfiable);
        check("bytes=1000-1001,2000-", Wanted::Unsatisfiable);
        check("bytes=-0", Wanted::Unsatisfiable);
        check("bytes=99999999999999999999999-", Wanted::Unsatisfiable);
        check("bytes=1000-,0-0", Wanted::Some(vec![0..1]));
        // §14.1.1, §14.2: malformed, or another unit.
        for value in ["bytes=", "bytes=,", "bytes", "", "items=0-1", "bytes=5-4", "bytes=a-b", "bytes=1", "bytes=--1"] {
            check(value, Wanted::All);
        }
        for value in
            ["bytes=-", "bytes=1-2-3", "bytes=+1-2", "bytes=0x1-2", "bytes 0-1", "bytes=0-1;5-6", "bytes=0-1,x"]
        {
            check(value, Wanted::All);
        }
        // §15.3.7.2.
        check("bytes=0-99,50-149", Wanted::Some(vec![0..150]));
        check("bytes=0-99,100-199", Wanted::Some(vec![0..200]));
        check("bytes=0-9,20-29", Wanted::Some(vec![0..30]));
        check("bytes=800-899,0-99", Wanted::Some(vec![800..900, 0..100]));
        check("bytes=0-9,400-409,5-405", Wanted::Some(vec![0..410]));
        let many = |count: u64| (0..count).map(|n| format!("{}-{}", n * 2, n * 2)).collect::<Vec<_>>().join(",");
        check(&format!("bytes={}", many(limits::STATIC_RANGES_MAX)), Wanted::Some(vec![0..63]));
        check(&format!("bytes={}", many(limits::STATIC_RANGES_MAX + 1)), Wanted::All);
        assert_eq!(parse(b"bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(parse(b"bytes=-1", 0), Wanted::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn never_more_than_the_file(
            specs in prop::collection::vec((0u64..200, 0u64..200, 0..3), 1..40),
            size in 0u64..150,
        ) {
            let text: Vec<String> = specs.iter().map(|(a, b, kind)| match kind {
                0 => format!("{a}-{b}"),
                1 => format!("{a}-"),
                _ => format!("-{b}"),
            }).collect();
            if let Wanted::Some(ranges) = parse(format!("bytes={}", text.join(", ")).as_bytes(), size) {
                prop_assert!(!ranges.is_empty());
                prop_assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= size);
                for (at, range) in ranges.iter().enumerate() {
                    prop_assert!(range.start < range.end && range.end <= size);
                    prop_assert!(ranges[at + 1..].iter().all(|other| !is_near(range, other)));
                }
            }
        }

        #[test]
        fn any_bytes(value in prop::collection::vec(any::<u8>(), 0..60), size in any::<u64>()) {
            let mut prefixed = b"bytes=".to_vec();
            prefixed.extend_from_slice(&value);
            parse(&prefixed, size);
            parse(&value, size);
        }
    }
}
