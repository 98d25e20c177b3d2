//! `Cache-Control` (RFC 9111 §5.2) of requests and responses: from field values to what they ask for. Decides nothing.
//!
//! A name is compared without case, an argument may be a token or a quoted string (§5.2), what isn't known is passed over (§5.2.3).
//! What can't be read is understood in the way that stores and reuses less.

/// The largest delta-seconds that is told apart (RFC 9111 §1.2.2: 2³¹ stands for whatever is more).
const DELTA_SECONDS_MAX: u64 = 1 << 31;

/// What a request asks of a cache (RFC 9111 §5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `no-cache`: not without asking the origin.
    pub no_cache: bool,
    /// `no-store`: keep nothing of this.
    pub no_store: bool,
    /// `only-if-cached`: 504 rather than asking the origin.
    pub only_if_cached: bool,
    /// `max-age`: no older than that, in seconds.
    pub max_age: Option<u64>,
    /// `min-fresh`: fresh for that long still, in seconds.
    pub min_fresh: Option<u64>,
    /// `max-stale`: stale for that long at most, in seconds; without an argument any.
    pub max_stale: Option<u64>,
    /// `stale-if-error` (RFC 5861 §4), in seconds.
    pub stale_if_error: Option<u64>,
}

/// What a response allows a cache (RFC 9111 §5.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, with or without field names: without is what a cache may always take it for (§5.2.2.4).
    pub no_cache: bool,
    /// `private`, likewise (§5.2.2.7).
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`: never stale.
    pub must_revalidate: bool,
    /// `proxy-revalidate`: the same, for shared caches.
    pub proxy_revalidate: bool,
    /// `must-understand`: stored, whatever `no-store` says, by those who know the status.
    pub must_understand: bool,
    /// `max-age`, in seconds; 0 if it can't be read.
    pub max_age: Option<u64>,
    /// `s-maxage`, likewise.
    pub s_maxage: Option<u64>,
    /// `stale-while-revalidate` (RFC 5861 §3), in seconds.
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error` (RFC 5861 §4), in seconds.
    pub stale_if_error: Option<u64>,
}

impl Request {
    /// Reads the values of a request's `Cache-Control` fields. `pragma`: whether it has a `Pragma: no-cache`, which counts where
    /// there is no `Cache-Control` (RFC 9111 §5.4).
    pub fn read<'a>(values: impl Iterator<Item = &'a [u8]>, pragma: bool) -> Self {
        let mut read = Self::default();
        let mut any = false;
        for value in values {
            any = true;
            for (name, argument) in Members(value) {
                let seconds = || argument.and_then(delta_seconds);
                match name.to_ascii_lowercase().as_slice() {
                    b"no-cache" => read.no_cache = true,
                    b"no-store" => read.no_store = true,
                    b"only-if-cached" => read.only_if_cached = true,
                    b"max-age" => least(&mut read.max_age, seconds().unwrap_or(0)),
                    b"min-fresh" => {
                        let given = seconds().unwrap_or(DELTA_SECONDS_MAX);
                        read.min_fresh = Some(read.min_fresh.unwrap_or(0).max(given));
                    }
                    b"max-stale" if argument.is_none() => least(&mut read.max_stale, DELTA_SECONDS_MAX),
                    b"max-stale" => least(&mut read.max_stale, seconds().unwrap_or(0)),
                    b"stale-if-error" => least(&mut read.stale_if_error, seconds().unwrap_or(0)),
                    _ => {}
                }
            }
        }
        read.no_cache |= pragma && !any;
        read
    }
}

impl Response {
    /// Reads the values of a response's `Cache-Control` fields.
    pub fn read<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut read = Self::default();
        for value in values {
            for (name, argument) in Members(value) {
                // RFC 9111 §4.2.1: of several the most restrictive; what can't be read is stale.
                let seconds = || argument.and_then(delta_seconds).unwrap_or(0);
                match name.to_ascii_lowercase().as_slice() {
                    b"no-store" => read.no_store = true,
                    b"no-cache" => read.no_cache = true,
                    b"private" => read.private = true,
                    b"public" => read.public = true,
                    b"must-revalidate" => read.must_revalidate = true,
                    b"proxy-revalidate" => read.proxy_revalidate = true,
                    b"must-understand" => read.must_understand = true,
                    b"max-age" => least(&mut read.max_age, seconds()),
                    b"s-maxage" => least(&mut read.s_maxage, seconds()),
                    b"stale-while-revalidate" => least(&mut read.stale_while_revalidate, seconds()),
                    b"stale-if-error" => least(&mut read.stale_if_error, seconds()),
                    _ => {}
                }
            }
        }
        read
    }
}

fn least(value: &mut Option<u64>, given: u64) {
    *value = Some(value.map_or(given, |before| before.min(given)));
}

/// delta-seconds (RFC 9111 §1.2.2), the quotes of a quoted string taken off already.
pub fn delta_seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let more = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(text.iter().fold(0, more).min(DELTA_SECONDS_MAX))
}

/// The members of a list of directives: name and argument. Quoted strings may hold commas; their quotes are taken off, and what is
/// escaped in them stays so, since no argument that means something here has a backslash.
pub struct Members<'a>(pub &'a [u8]);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.0.is_empty() {
                return None;
            }
            let end = end_of_member(self.0);
            let member = self.0[..end].trim_ascii();
            self.0 = self.0.get(end + 1..).unwrap_or_default();
            if member.is_empty() {
                continue;
            }
            return Some(match memchr::memchr(b'=', member) {
                Some(at) => (member[..at].trim_ascii_end(), Some(unquoted(member[at + 1..].trim_ascii_start()))),
                None => (member, None),
            });
        }
    }
}

/// Where the comma behind the first member is, or the end. A string without its closing quote reaches to the end.
fn end_of_member(list: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    list.len()
}

fn unquoted(argument: &[u8]) -> &[u8] {
    argument.strip_prefix(b"\"").map_or(argument, |rest| rest.strip_suffix(b"\"").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(values: &[&str]) -> Request {
        Request::read(values.iter().map(|value| value.as_bytes()), false)
    }

    fn response(values: &[&str]) -> Response {
        Response::read(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn lists_rfc_9111_5_2() {
        let check = |list: &str, expected: &[(&str, Option<&str>)]| {
            let members: Vec<_> = Members(list.as_bytes()).collect();
            let expected: Vec<_> =
                expected.iter().map(|(name, argument)| (name.as_bytes(), argument.map(str::as_bytes))).collect();
            assert_eq!(members, expected, "{list}");
        };
        check("", &[]);
        check(" , ,", &[]);
        check("a", &[("a", None)]);
        check("a,b=1 ,\tc = 2", &[("a", None), ("b", Some("1")), ("c", Some("2"))]);
        check("a=\"1, 2\", b", &[("a", Some("1, 2")), ("b", None)]);
        check("a=\"1\\\", 2\", b", &[("a", Some("1\\\", 2")), ("b", None)]);
        check("a=\"1, b", &[("a", Some("1, b"))]);
        check("a=", &[("a", Some(""))]);
        check("=1", &[("", Some("1"))]);
    }

    #[test]
    fn responses() {
        let check = |values: &[&str], expected: Response| assert_eq!(response(values), expected, "{values:?}");
        let none = Response::default();
        check(&["public,max-age=60"], Response { public: true, max_age: Some(60), ..none });
        check(&["Max-Age=\"60\", S-MAXAGE=5"], Response { max_age: Some(60), s_maxage: Some(5), ..none });
        check(&["max-age=60", "max-age=30, max-age=90"], Response { max_age: Some(30), ..none });
        for unreadable in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=1 2", "max-age=0x10"] {
            check(&[unreadable], Response { max_age: Some(0), ..none });
        }
        check(&["max-age=99999999999999999999999"], Response { max_age: Some(1 << 31), ..none });
        check(&["private=\"Set-Cookie, X\""], Response { private: true, ..none });
        check(&["no-cache=\"X"], Response { no_cache: true, ..none });
        check(&["no-store"], Response { no_store: true, ..none });
        check(&["nostore, no_store, xno-store"], none);
        check(
            &["stale-while-revalidate=5,stale-if-error=6,must-revalidate,proxy-revalidate,must-understand,immutable"],
            Response {
                stale_while_revalidate: Some(5),
                stale_if_error: Some(6),
                must_revalidate: true,
                proxy_revalidate: true,
                must_understand: true,
                ..none
            },
        );
    }

    #[test]
    fn requests() {
        let check = |values: &[&str], expected: Request| assert_eq!(request(values), expected, "{values:?}");
        let none = Request::default();
        check(&["no-cache", "no-store"], Request { no_cache: true, no_store: true, ..none });
        check(&["max-age=0, min-fresh=5"], Request { max_age: Some(0), min_fresh: Some(5), ..none });
        check(&["max-age=x, min-fresh=x"], Request { max_age: Some(0), min_fresh: Some(1 << 31), ..none });
        check(&["max-stale"], Request { max_stale: Some(1 << 31), ..none });
        check(&["max-stale=7"], Request { max_stale: Some(7), ..none });
        check(&["max-stale=x"], Request { max_stale: Some(0), ..none });
        check(&["only-if-cached, stale-if-error=9"], Request { only_if_cached: true, stale_if_error: Some(9), ..none });
        // RFC 9111 §5.4: Pragma is of no account beside Cache-Control.
        assert!(Request::read(std::iter::empty(), true).no_cache);
        assert!(!Request::read([b"max-age=5".as_slice()].into_iter(), true).no_cache);
    }

    proptest! {
        /// Nothing a peer sends is too odd to be read; what is well-formed is found in whatever stands around it.
        #[test]
        fn directives_are_found_among_others(before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
            let unquoted = before.replace('"', "");
            let value = format!("{unquoted},no-store,{after}");
            prop_assert!(response(&[&value]).no_store && request(&[&value]).no_store);
        }
    }
}
