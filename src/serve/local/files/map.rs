//! From the path of a request to a name beneath a mapped folder. Whatever might mean something else to another program than it means
//! here has no name: the request goes to the application, as one for a file that isn't there does.

use std::borrow::Cow;

use crate::serve::http1::path::percent_decode;

/// The path of a request, percent-decoded, repeated slashes merged. `None`: nothing is looked up for it.
///
/// Nothing is looked up for what doesn't begin with a slash or has nothing after it, for malformed percent-encodings, for a slash
/// or a NUL that is encoded, and for the segments `.` and `..`, encoded or not.
pub fn clean(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    if raw.len() < 2 || raw[0] != b'/' {
        return None;
    }
    let decoded = if memchr::memchr(b'%', raw).is_some() {
        if !is_well_encoded(raw) {
            return None;
        }
        let mut decoded = Vec::with_capacity(raw.len());
        percent_decode(raw, &mut decoded);
        Cow::Owned(decoded)
    } else {
        Cow::Borrowed(raw)
    };
    let mut before = 0;
    let (mut doubled, mut dotted) = (false, false);
    for &byte in &*decoded {
        doubled |= before == b'/' && byte == b'/';
        dotted |= before == b'/' && byte == b'.';
        if byte == 0 {
            return None;
        }
        before = byte;
    }
    if dotted && decoded.split(|&byte| byte == b'/').any(|part| part == b"." || part == b"..") {
        return None;
    }
    if !doubled {
        return Some(decoded);
    }
    let mut merged = decoded.into_owned();
    merged.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    (merged.len() > 1).then_some(Cow::Owned(merged))
}

/// Whether each `%` begins an encoding, and none of a slash.
fn is_well_encoded(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'%', raw).all(|at| match raw.get(at + 1..at + 3) {
        Some([high, low]) => {
            high.is_ascii_hexdigit() && low.is_ascii_hexdigit() && !(*high == b'2' && low.eq_ignore_ascii_case(&b'f'))
        }
        _ => false,
    })
}

/// What of a cleaned path lies beneath a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest<'p> {
    /// Without slashes at its ends; empty for the mapped path itself.
    pub name: &'p [u8],
    /// Whether the path ends with a slash: it means a folder.
    pub folder: bool,
}

impl Rest<'_> {
    /// Whether a part of the name begins with a dot.
    pub fn is_hidden(&self) -> bool {
        self.name.split(|&byte| byte == b'/').any(|part| part.starts_with(b"."))
    }
}

/// What of `path`, a cleaned one, lies beneath `prefix`, which has no slash at its end (the root is empty). The boundary is a slash:
/// `/media` isn't a prefix of `/mediam`.
pub fn rest<'p>(prefix: &[u8], path: &'p [u8]) -> Option<Rest<'p>> {
    match path.strip_prefix(prefix)? {
        [] => Some(Rest { name: b"", folder: false }),
        [b'/', name @ ..] => {
            let folder = name.is_empty() || name.ends_with(b"/");
            Some(Rest { name: name.strip_suffix(b"/").unwrap_or(name), folder })
        }
        _ => None,
    }
}

/// `path` for a Location field (RFC 3986 §3.3), with a slash at its end.
pub fn location(path: &[u8], query: &[u8]) -> String {
    let mut text = String::with_capacity(path.len() + query.len() + 2);
    for &byte in path {
        let plain = byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
        if plain {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text.push('/');
    // It came in a request line, which holds neither blank nor control character.
    if let Some(query) = std::str::from_utf8(query).ok().filter(|query| !query.is_empty() && query.is_ascii()) {
        text.push('?');
        text.push_str(query);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cleaned_paths() {
        let check = |raw: &str, expected: Option<&str>| {
            let got = clean(raw.as_bytes());
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{raw}");
        };
        check("/a", Some("/a"));
        check("/a/b.css", Some("/a/b.css"));
        check("/a/", Some("/a/"));
        check("/a//b///c", Some("/a/b/c"));
        check("/a%20b", Some("/a b"));
        check("/a%2ecss", Some("/a.css"));
        check("/.well-known/x", Some("/.well-known/x"));
        check("/a/..b/...", Some("/a/..b/..."));
        for raw in ["", "/", "//", "a", "*", "/a/..", "/a/../b", "/./a", "/a/.", "/a/%2e%2E/b", "/a/.%2e/b", "/%2e/a"] {
            check(raw, None);
        }
        for raw in ["/a%2fb", "/a%2Fb", "/a%00", "/a\0b", "/a%", "/a%2", "/a%zz", "/a%+1", "/%2f/a", "/a//..//b"] {
            check(raw, None);
        }
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let check = |prefix: &str, path: &str, expected: Option<(&str, bool)>| {
            let expected = expected.map(|(name, folder)| Rest { name: name.as_bytes(), folder });
            assert_eq!(rest(prefix.as_bytes(), path.as_bytes()), expected, "{prefix} {path}");
        };
        check("/media", "/media/a", Some(("a", false)));
        check("/media", "/media/a/b/", Some(("a/b", true)));
        check("/media", "/media", Some(("", false)));
        check("/media", "/media/", Some(("", true)));
        check("", "/a", Some(("a", false)));
        check("/media", "/mediam", None);
        check("/media", "/mediam/x", None);
        check("/media", "/med", None);
        check("/media", "/Media/a", None);
        assert!(rest(b"/a", b"/a/.git/config").unwrap().is_hidden());
        assert!(rest(b"/a", b"/a/x/.env").unwrap().is_hidden());
        assert!(!rest(b"/.a", b"/.a/x.y/z.").unwrap().is_hidden());
    }

    #[test]
    fn locations_stay_on_this_server_and_on_one_line() {
        assert_eq!(location(b"/a b/\xc3\xa9%", b"x=1&y"), "/a%20b/%C3%A9%25/?x=1&y");
        assert_eq!(location(b"/a\r\nb", b""), "/a%0D%0Ab/");
        assert_eq!(location(b"/a\\b?c#d", b""), "/a%5Cb%3Fc%23d/");
    }

    proptest! {
        #[test]
        fn a_cleaned_path_has_no_way_out(raw in "(/|\\.|%2e|%2E|%2f|%5c|\\\\|%00|%25|%|a|\u{e9}){0,12}") {
            if let Some(path) = clean(raw.as_bytes()) {
                prop_assert!(path.starts_with(b"/") && path.len() > 1);
                prop_assert!(!path.contains(&0) && !path.windows(2).any(|pair| pair == b"//"));
                prop_assert!(path.split(|&byte| byte == b'/').all(|part| part != b"." && part != b".."));
                prop_assert!(!location(&path, b"").starts_with("//"));
            }
        }
    }
}
