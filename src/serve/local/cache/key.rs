//! What a stored response is found by: authority and target, then whatever else the application may have answered from
//! (RFC 9111 §2, §4.1). Anything that could make one client's page another's belongs in here.
//!
//! The first part is `host NUL target`, byte for byte as it was asked for. Of the second part, listener, scheme and class of method
//! are compared as they are; the fields named by `Vary`, and the cookies named by `X-WSGo-Vary-Cookies`, as one string.

use super::request::{claims, values};
use crate::serve::http1::Head;

/// Between the values of several fields in a secondary key: no field value holds it.
const END_OF_FIELD: u8 = b'\n';
/// A field that isn't there, as opposed to one that is empty: no field value holds it either.
const ABSENT: u8 = 0;

/// Appends the primary key of `target` at `host`.
pub fn primary(out: &mut Vec<u8>, host: &[u8], target: &[u8]) {
    out.extend(host.iter().map(u8::to_ascii_lowercase));
    out.push(0);
    out.extend_from_slice(target);
}

/// Appends the primary key of a request, whatever the form of its target.
pub fn primary_of(out: &mut Vec<u8>, head: &Head) {
    primary(out, head.get(head.host), head.get(head.path));
    if !head.get(head.query).is_empty() || head.get(head.target).ends_with(b"?") {
        out.push(b'?');
        out.extend_from_slice(head.get(head.query));
    }
}

/// Which fields of a request a response depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vary {
    /// Names in lower case, sorted, [`END_OF_FIELD`] behind each.
    names: Box<[u8]>,
    /// Names of the cookies that stand for the field `Cookie`, likewise, in order; empty: all of it.
    cookies: Box<[u8]>,
}

impl Vary {
    /// From the values of a response's `Vary` and `X-WSGo-Vary-Cookies`; `None` for `Vary: *`.
    pub fn read<'a>(vary: impl Iterator<Item = &'a [u8]>, cookies: Option<&[u8]>) -> Option<Self> {
        let members = |value: &'a [u8]| value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        let mut names: Vec<Vec<u8>> =
            vary.flat_map(members).filter(|name| !name.is_empty()).map(<[u8]>::to_ascii_lowercase).collect();
        if names.iter().any(|name| name == b"*") {
            return None;
        }
        let mut listed: Vec<Vec<u8>> = cookies
            .unwrap_or_default()
            .split(|&byte| byte == b',')
            .map(|name| name.trim_ascii().to_vec())
            .filter(|name| !name.is_empty())
            .collect();
        listed.sort_unstable();
        listed.dedup();
        if !listed.is_empty() {
            // Somebody who names cookies means that the answer depends on them, with or without `Vary: Cookie`.
            names.push(b"cookie".to_vec());
        }
        names.sort_unstable();
        names.dedup();
        Some(Self { names: joined(&names), cookies: joined(&listed) })
    }

    /// Its two lists, as [`Vary::of_parts`] takes them.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.names, &self.cookies)
    }

    /// From its two lists.
    pub fn of_parts((names, cookies): (&[u8], &[u8])) -> Self {
        Self { names: names.into(), cookies: cookies.into() }
    }

    /// Whether it names nothing: one response for all.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.names.len() + self.cookies.len()
    }

    /// Appends the secondary key of a request: two that match (RFC 9111 §4.1) have the same. What a proxy says that it was asked for is
    /// part of it in any case: an application that goes by it seldom says so.
    pub fn secondary(&self, head: &Head, out: &mut Vec<u8>) {
        for name in listed(&self.names) {
            if name != b"cookie" {
                append(out, values(head, name), b',');
            } else if self.cookies.is_empty() {
                // As the application sees several lines.
                append(out, values(head, name), b';');
            } else {
                self.secondary_cookies(head, out);
            }
            out.push(END_OF_FIELD);
        }
        for (number, value) in claims(head) {
            out.push(number);
            for part in value {
                out.extend_from_slice(part);
                out.push(b';');
            }
            out.push(END_OF_FIELD);
        }
    }

    /// The listed cookies. Servers of applications disagree on what a malformed `Cookie` says, so a piece that one of them could
    /// read as more than a cookie that isn't listed is part of the key as it stands.
    fn secondary_cookies(&self, head: &Head, out: &mut Vec<u8>) {
        for piece in pieces(head) {
            let named = memchr::memchr(b'=', piece).map(|at| (piece[..at].trim_ascii(), piece[at + 1..].trim_ascii()));
            let harmless = named.is_some_and(|(name, value)| {
                !name.is_empty() && name.iter().chain(value).all(|&byte| is_cookie_octet(byte))
            });
            if !harmless {
                out.extend_from_slice(piece);
                out.push(b';');
            }
        }
        for wanted in listed(&self.cookies) {
            out.push(END_OF_FIELD);
            // Every one of that name, for applications disagree on which of them counts.
            append(
                out,
                pieces(head).filter_map(|piece| {
                    let at = memchr::memchr(b'=', piece)?;
                    (piece[..at].trim_ascii() == wanted).then(|| piece[at + 1..].trim_ascii())
                }),
                b',',
            );
        }
    }
}

/// The pieces of all `Cookie` fields, as RFC 6265 §4.2.1 has them.
fn pieces(head: &Head) -> impl Iterator<Item = &[u8]> {
    let all = values(head, b"cookie").flat_map(|value| value.split(|&byte| byte == b';'));
    all.map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty())
}

/// cookie-octet (RFC 6265 §4.1.1).
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

/// All values in order, each told from the next by `between`, and none told from an empty one.
fn append<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a [u8]>, between: u8) {
    let mut absent = true;
    for value in values {
        if !std::mem::take(&mut absent) {
            out.push(between);
        }
        out.extend_from_slice(value);
    }
    if absent {
        out.push(ABSENT);
    }
}

fn joined(names: &[Vec<u8>]) -> Box<[u8]> {
    let mut out = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
    for name in names {
        out.extend_from_slice(name);
        out.push(END_OF_FIELD);
    }
    out.into_boxed_slice()
}

fn listed(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|&byte| byte == END_OF_FIELD).filter(|name| !name.is_empty())
}

/// The primary key that `reference`, from a `Location` or `Content-Location`, names, if it is of the same authority as the request
/// (RFC 9111 §4.4: nobody invalidates another's). Of relative references, those that begin with a slash.
pub fn referenced(host: &[u8], reference: &[u8]) -> Option<Vec<u8>> {
    let end = memchr::memchr(b'#', reference).unwrap_or(reference.len());
    let reference = &reference[..end];
    let (authority, target) = split_url(reference).or_else(|| match reference {
        [b'/', b'/', rest @ ..] => Some(split_authority(rest)),
        [b'/', ..] => Some((host, reference)),
        _ => None,
    })?;
    if !authority.eq_ignore_ascii_case(host) {
        return None;
    }
    let mut key = Vec::new();
    primary(&mut key, host, if target.is_empty() { b"/" } else { target });
    Some(key)
}

/// Authority and target of an absolute http or https URL.
pub fn split_url(url: &[u8]) -> Option<(&[u8], &[u8])> {
    let after = |scheme: &[u8]| {
        url.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme)).map(|_| &url[scheme.len()..])
    };
    after(b"http://").or_else(|| after(b"https://")).map(split_authority)
}

fn split_authority(rest: &[u8]) -> (&[u8], &[u8]) {
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    rest.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::super::request::head_of;
    use super::*;

    fn vary(vary: &[&str], cookies: Option<&str>) -> Option<Vary> {
        Vary::read(vary.iter().map(|value| value.as_bytes()), cookies.map(str::as_bytes))
    }

    fn secondary(vary: &Vary, fields: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let fields = if fields.is_empty() { String::new() } else { format!("\n{fields}") };
        vary.secondary(&head_of(&format!("GET / HTTP/1.1\nHost: a{fields}")), &mut out);
        out
    }

    #[test]
    fn resources_are_told_apart() {
        let key = |text: &str| {
            let mut out = Vec::new();
            primary_of(&mut out, &head_of(text));
            out
        };
        assert_eq!(key("GET /a?b HTTP/1.1\nHost: X:80"), b"x:80\0/a?b");
        assert_eq!(key("POST http://x:80/a?b HTTP/1.1\nHost: y"), b"x:80\0/a?b");
        let texts = ["/a", "/a?", "/a/", "/A", "/%61", "//a", "/?a", "/a?b", "/a?B", "/a?b&c"];
        let mut keys: Vec<_> = texts.iter().map(|target| key(&format!("GET {target} HTTP/1.1\nHost: x"))).collect();
        keys.push(key("GET /a HTTP/1.1\nHost: x:80"));
        keys.push(key("GET /a HTTP/1.1\nHost: y"));
        let many = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), many);
    }

    #[test]
    fn vary_rfc_9111_4_1() {
        assert_eq!(vary(&["*"], None), None);
        assert_eq!(vary(&["Cookie, *"], None), None);
        assert!(vary(&[], None).unwrap().is_empty());
        assert!(vary(&[" , "], Some(" , ")).unwrap().is_empty());
        assert_eq!(vary(&["A,b", "B"], None), vary(&["b, a"], None));
        let language = vary(&["Accept-Language"], None).unwrap();
        let check = |one: &str, other: &str, same: bool| {
            assert_eq!(secondary(&language, one) == secondary(&language, other), same, "{one} | {other}");
        };
        check("Accept-Language: de", "accept-language:  de ", true);
        check("Accept-Language: de\nX: 1", "Y: 2\nAccept-Language: de", true);
        check("Accept-Language: de\nAccept-Language: en", "Accept-Language: de,en", true);
        check("Accept-Language: de", "Accept-Language: en", false);
        check("Accept-Language: de", "Accept-Language: DE", false);
        check("Accept-Language:", "", false);
        check("Accept_Language: de", "", false);
        check("", "X: y", true);
    }

    #[test]
    fn what_a_proxy_says_it_was_asked_for() {
        let none = vary(&[], None).unwrap();
        let check = |one: &str, other: &str, same: bool| {
            assert_eq!(secondary(&none, one) == secondary(&none, other), same, "{one} | {other}");
        };
        check("X-Forwarded-Host: a", "X-Forwarded-Host: b", false);
        check("X-Forwarded-Host: a", "", false);
        check("X-Forwarded-Host: a", "x-forwarded-host: a", true);
        check("X_Forwarded_Host: a", "X-Forwarded-Host: a", true);
        check("X-Forwarded-Host: a", "X-Forwarded-Server: a", false);
        check("X-Original-URL: /a", "X-Original-URL: /b", false);
        check("X-HTTP-Method-Override: DELETE", "", false);
        check("Forwarded: host=a", "Forwarded: host=b", false);
        check("Front-End-Https: on", "", false);
        // The client's address is in it as well, and would make every client's page another one.
        check("Forwarded: for=192.0.2.1;host=a", "Forwarded: For=\"[2001:db8::1]:80\" ; host=a", true);
        check("Forwarded: for=a, by=b;proto=https", "Forwarded: for=c, for=d;proto=https", true);
        check("Forwarded: for=a, by=b;proto=https", "Forwarded: for=a, by=b;proto=http", false);
        check("Forwarded: for=\"a;host=b\"", "Forwarded: for=a", false);
        // The guard has the scheme, and the client's address isn't the page's.
        check("X-Forwarded-Proto: https", "", true);
        check("X-Forwarded-For: 192.0.2.1", "", true);
        check("X-Other: a", "From: b", true);
    }

    #[test]
    fn values_of_one_field_are_not_those_of_the_next() {
        let both = vary(&["A, B"], None).unwrap();
        assert_ne!(secondary(&both, "A: x"), secondary(&both, "B: x"));
        assert_ne!(secondary(&both, "A: x\nB: y"), secondary(&both, "A: xy"));
        assert_ne!(secondary(&both, "A: x,y"), secondary(&both, "A: x\nB: y"));
    }

    #[test]
    fn all_of_a_cookie_or_the_listed_ones() {
        let all = vary(&["Cookie"], None).unwrap();
        assert_ne!(secondary(&all, "Cookie: a=1; b=2"), secondary(&all, "Cookie: a=1; b=3"));
        assert_ne!(secondary(&all, "Cookie: a=1\nCookie: b=2"), secondary(&all, "Cookie: a=1,b=2"));
        let a = vary(&["cookie"], Some("a, c")).unwrap();
        assert_eq!(vary(&[], Some("c,a")), Some(a.clone()), "named cookies count without Vary: Cookie");
        let check = |one: &str, other: &str, same: bool| {
            assert_eq!(secondary(&a, one) == secondary(&a, other), same, "{one} | {other}");
        };
        check("Cookie: a=1; b=2", "Cookie: b=3; a=1", true);
        check("Cookie: a=1", "Cookie: a=1\nCookie: b=2", true);
        check("", "Cookie: b=2", true);
        check("Cookie: a=1", "Cookie: a=2", false);
        check("Cookie: a=1", "", false);
        check("Cookie: a=", "", false);
        check("Cookie: a=1; c=2", "Cookie: a=2; c=1", false);
        check("Cookie: a=1", "Cookie: A=1", false);
        check("Cookie: a=1", "Cookie: c=1", false);
        // Which of two counts depends on whom one asks.
        check("Cookie: a=1; a=2", "Cookie: a=1", false);
        check("Cookie: a=1; a=2", "Cookie: a=2; a=1", false);
        check("Cookie: a=1; a=2", "Cookie: a=1,2", false);
        // What some read as a cookie and others don't.
        check("Cookie: x=y a=1", "", false);
        check("Cookie: x=\"; a=1", "Cookie: a=1", false);
        check("Cookie: x=y, a=1", "", false);
        check("Cookie: a", "", false);
        check("Cookie: =a", "", false);
        check("Cookie: a =1", "Cookie: a=1", true);
    }

    #[test]
    fn references_rfc_9111_4_4() {
        let check = |reference: &str, expected: Option<&str>| {
            let expected = expected.map(|target| format!("a:80\0{target}").into_bytes());
            assert_eq!(referenced(b"a:80", reference.as_bytes()), expected, "{reference}");
        };
        check("/b?c#d", Some("/b?c"));
        check("http://a:80/b", Some("/b"));
        check("HTTPS://A:80/b", Some("/b"));
        check("http://a:80", Some("/"));
        check("//a:80/b", Some("/b"));
        check("http://a/b", None);
        check("http://b:80/b", None);
        check("//b/b", None);
        check("b", None);
        check("", None);
        check("ftp://a:80/b", None);
    }
}
