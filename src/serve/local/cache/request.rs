//! What of a request concerns a cache: read once from its head, without allocating.

use super::directives::Request;
use super::freshness::http_date;
use super::rules::{Class, Method, method};
use crate::limits;
use crate::serve::http1::{Field, Framing, Head, Span};

/// A request as the cache sees it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What its method is.
    pub method: Method,
    /// Its `Cache-Control`.
    pub directives: Request,
    /// Whether it has an `Authorization`.
    pub authorization: bool,
    /// Whether it has an `If-None-Match` or an `If-Modified-Since`.
    pub conditional: bool,
    /// Whether it is one that the application must answer itself, whatever is stored.
    pub passes: bool,
}

impl Asked {
    /// Reads a head. `trusted`: whether the peer is a proxy to be believed.
    pub fn read(head: &Head, trusted: bool) -> Self {
        let mut asked = Self {
            method: method(head.get(head.method)),
            directives: Request::default(),
            authorization: false,
            conditional: false,
            passes: !is_plain(head),
        };
        let (mut control, mut pragma) = (false, false);
        for field in &head.fields {
            let name = head.get(field.name);
            let is = |other: &str| is_named(name, other.as_bytes());
            // A host, a scheme or a path claimed by somebody who isn't believed: the application may believe it all the same.
            asked.passes |= !trusted && is_claim(name);
            match name.len() {
                // Parts are the application's to make; so are preconditions that only an origin can judge (RFC 9111 §4.3.2).
                5 if is("range") => asked.passes = true,
                6 if is("pragma") => pragma |= has_token(head.get(field.value), b"no-cache"),
                8 if is("if-match") => asked.passes = true,
                13 if is("cache-control") => control = true,
                13 if is("authorization") => asked.authorization = true,
                13 if is("if-none-match") => asked.conditional = true,
                17 if is("if-modified-since") => asked.conditional = true,
                19 if is("if-unmodified-since") => asked.passes = true,
                _ => {}
            }
        }
        if control || pragma {
            asked.directives = Request::read(values(head, b"cache-control"), pragma);
        }
        asked
    }

    /// The class whose stored responses may answer it; `None`: it is for the application.
    pub fn class(&self) -> Option<Class> {
        match self.method {
            Method::Stored(class) if !self.passes => Some(class),
            _ => None,
        }
    }
}

/// Whether the request is named by its Host and an origin-form target alone: no body that may change the answer, a host in the one
/// spelling that is stored (an application may tell the spellings apart, so that one must not answer for the other).
fn is_plain(head: &Head) -> bool {
    let host = head.get(head.host);
    let target = head.get(head.target);
    matches!(head.framing, Framing::None | Framing::Length(0))
        && !host.is_empty()
        && !host.iter().any(u8::is_ascii_uppercase)
        && target.starts_with(b"/")
        && host.len() + target.len() < limits::CACHE_KEY_BYTES_MAX
}

/// The values of all fields of this name (lower case), in order. An underscore passes for a dash, since WSGI can't tell them apart:
/// with `--header-underscores` the application sees both as one field.
pub fn values<'a>(head: &'a Head, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let named = move |field: &&Field| is_named(head.get(field.name), name);
    head.fields.iter().filter(named).map(|field| head.get(field.value))
}

/// Fields by which proxies tell what they were asked for, and by which frameworks let themselves be told so: host, scheme, port, path,
/// method.
const CLAIMS: [&[u8]; 17] = [
    b"forwarded",
    b"front-end-https",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-forwarded-protocol",
    b"x-forwarded-scheme",
    b"x-forwarded-server",
    b"x-forwarded-ssl",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-host",
    b"x-original-url",
    b"x-rewrite-url",
    b"x-script-name",
];

/// Whether a field of this name may change what a URL stands for: the one place where a page could be made for a client's claim and
/// be found by everybody else.
fn is_claim(name: &[u8]) -> bool {
    // Nearly all names end here.
    matches!(name, [b'x' | b'X' | b'f' | b'F', ..]) && CLAIMS.iter().any(|claim| is_named(name, claim))
}

/// The claims of a request, in order: number in [`CLAIMS`], and the parts of the value. Left out are those on the scheme that the server
/// itself goes by, which are told by [`is_https`], and whose request it is (RFC 7239 §5.1, §5.2): a page that depends on that is `private`.
pub fn claims(head: &Head) -> impl Iterator<Item = (u8, impl Iterator<Item = &[u8]>)> {
    let fields = head.fields.iter().map(|field| (head.get(field.name), head.get(field.value)));
    fields.filter(|(name, _)| is_claim(name)).filter_map(|(name, value)| {
        let number = CLAIMS.iter().position(|claim| is_named(name, claim))?;
        let forwarded = CLAIMS[number] == b"forwarded";
        let parts = value.split(move |byte| forwarded && matches!(byte, b';' | b','));
        let tells = move |part: &&[u8]| !(forwarded && is_address(part));
        (CLAIMS[number] != b"x-forwarded-proto").then(|| (number as u8, parts.map(<[u8]>::trim_ascii).filter(tells)))
    })
}

/// Whether a part of a `Forwarded` names client or proxy. It holds no `;` and no `,`, so that no reading of it finds another part in it.
fn is_address(part: &[u8]) -> bool {
    let starts = |name: &[u8]| part.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    starts(b"for=") || starts(b"by=")
}

fn is_named(found: &[u8], name: &[u8]) -> bool {
    let same = |(one, other): (&u8, &u8)| one.eq_ignore_ascii_case(other) || (*one == b'_' && *other == b'-');
    found.len() == name.len() && found.iter().zip(name).all(same)
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|member| member.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether the last of the `X-Forwarded-Proto` values that can be read says https: what `wsgi.url_scheme` follows from.
pub fn is_https(head: &Head) -> bool {
    let mut https = false;
    for value in values(head, b"x-forwarded-proto") {
        let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
        if last.eq_ignore_ascii_case(b"https") {
            https = true;
        } else if last.eq_ignore_ascii_case(b"http") {
            https = false;
        }
    }
    https
}

/// A client's own condition, for when the application is asked with another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    none_match: Vec<Vec<u8>>,
    modified_since: Option<u64>,
}

impl Condition {
    /// That of a request.
    pub fn of(head: &Head) -> Self {
        let none_match: Vec<Vec<u8>> = values(head, b"if-none-match").map(<[u8]>::to_vec).collect();
        // RFC 9110 §13.1.3: of no account beside If-None-Match, and when given twice or unreadable.
        let modified_since =
            if none_match.is_empty() { only(values(head, b"if-modified-since")).and_then(http_date) } else { None };
        Self { none_match, modified_since }
    }

    /// Whether what the client has is what is stored, so that 304 answers it (RFC 9111 §4.3.2, RFC 9110 §13.2.2).
    pub fn holds(&self, etag: Option<&[u8]>, last_modified: Option<u64>) -> bool {
        if !self.none_match.is_empty() {
            return self.none_match.iter().any(|list| lists_tag(list, etag));
        }
        match (self.modified_since, last_modified) {
            (Some(since), Some(modified)) => modified <= since,
            _ => false,
        }
    }
}

fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Whether a list of entity tags has `etag` in it, by weak comparison (RFC 9110 §8.8.3.2), or is `*`.
fn lists_tag(list: &[u8], etag: Option<&[u8]>) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let Some(wanted) = etag.map(opaque) else { return false };
    let mut rest = list;
    loop {
        rest = rest.trim_ascii_start();
        while let [b',', more @ ..] = rest {
            rest = more.trim_ascii_start();
        }
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(end) = tag.strip_prefix(b"\"").and_then(|inside| memchr::memchr(b'"', inside)) else { return false };
        if &tag[..end + 2] == wanted {
            return true;
        }
        rest = &tag[end + 2..];
    }
}

/// An entity tag without the mark of weakness.
pub fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether `value` is an entity tag (RFC 9110 §8.8.3).
pub fn is_tag(value: &[u8]) -> bool {
    matches!(opaque(value), [b'"', inside @ .., b'"'] if !inside.contains(&b'"'))
}

/// Puts the validators of what is stored in the place of the client's own conditions (RFC 9111 §4.3.1).
pub fn make_conditional(head: &mut Head, etag: Option<&[u8]>, last_modified: Option<&[u8]>) {
    make_unconditional(head);
    for (name, value) in [(&b"If-None-Match"[..], etag), (b"If-Modified-Since", last_modified)] {
        if let Some(value) = value {
            let field = Field { name: append_span(&mut head.bytes, name), value: append_span(&mut head.bytes, value) };
            head.fields.push(field);
        }
    }
}

/// Takes the conditions out that a cache may answer.
pub fn make_unconditional(head: &mut Head) {
    let bytes = &head.bytes;
    head.fields.retain(|field| {
        let name = &bytes[field.name.start as usize..field.name.end as usize];
        !is_named(name, b"if-none-match") && !is_named(name, b"if-modified-since")
    });
}

/// Makes `copy` the same request, with this method. Whoever renews a stored response asks as the client did who found it stale.
pub fn copy_head(head: &Head, copy: &mut Head, method: &[u8]) {
    copy.bytes.clear();
    copy.bytes.extend_from_slice(&head.bytes);
    copy.fields.clone_from(&head.fields);
    (copy.target, copy.path, copy.query, copy.host) = (head.target, head.path, head.query, head.host);
    (copy.version, copy.framing, copy.keep_alive) = (head.version, head.framing, head.keep_alive);
    copy.expect_continue = false;
    copy.method = append_span(&mut copy.bytes, method);
}

/// A head is far below 4 GiB, and stays so by what is appended here.
fn append_span(bytes: &mut Vec<u8>, text: &[u8]) -> Span {
    let start = bytes.len() as u32;
    bytes.extend_from_slice(text);
    Span { start, end: bytes.len() as u32 }
}

#[cfg(test)]
pub(super) fn head_of(text: &str) -> Head {
    let limits =
        crate::serve::http1::HeadLimits { request_line_bytes_max: 100_000, head_bytes_max: 200_000, fields_max: 100 };
    let mut head = Head::default();
    let whole = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
    assert_eq!(head.parse(whole.as_bytes(), 0, &limits), Ok(Some(whole.len())), "{text}");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> Option<Class> {
        Asked::read(&head_of(text), true).class()
    }

    #[test]
    fn what_is_looked_up() {
        assert_eq!(class("GET /a?b HTTP/1.1\nHost: a"), Some(Class::Get));
        assert_eq!(class("HEAD /a HTTP/1.0\nHost: a:80"), Some(Class::Head));
        assert_eq!(class("OPTIONS /a HTTP/1.1\nHost: a"), Some(Class::Options));
        assert_eq!(class("GET /a HTTP/1.1\nHost: a\nContent-Length: 0"), Some(Class::Get));
        for text in [
            "POST /a HTTP/1.1\nHost: a",
            "TRACE /a HTTP/1.1\nHost: a",
            "OPTIONS * HTTP/1.1\nHost: a",
            "GET http://a/a HTTP/1.1\nHost: a",
            // Nobody is asked for; another spelling of the host; a body that the key doesn't know.
            "GET /a HTTP/1.0",
            "GET /a HTTP/1.1\nHost:",
            "GET /a HTTP/1.1\nHost: A",
            "GET /a HTTP/1.1\nHost: a\nContent-Length: 5",
            "GET /a HTTP/1.1\nHost: a\nTransfer-Encoding: chunked",
            "GET /a HTTP/1.1\nHost: a\nRange: bytes=0-1",
            "GET /a HTTP/1.1\nHost: a\nIf-Match: \"a\"",
            "GET /a HTTP/1.1\nHost: a\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(class(text), None, "{text}");
        }
        assert_eq!(class(&format!("GET /{} HTTP/1.1\nHost: a", "x".repeat(limits::CACHE_KEY_BYTES_MAX))), None);
    }

    #[test]
    fn schemes_that_nobody_vouches_for() {
        // With --header-underscores an application can't tell the two apart.
        for name in ["X-Forwarded-Proto", "X_Forwarded_Proto", "x-forwarded_proto"] {
            let head = head_of(&format!("GET /a HTTP/1.1\nHost: a\n{name}: https"));
            assert_eq!(Asked::read(&head, true).class(), Some(Class::Get));
            assert_eq!(Asked::read(&head, false).class(), None, "{name}");
        }
    }

    #[test]
    fn schemes() {
        let check = |fields: &str, expected| {
            assert_eq!(is_https(&head_of(&format!("GET / HTTP/1.1\nHost: a{fields}"))), expected, "{fields}");
        };
        check("", false);
        check("\nX-Forwarded-Proto: HTTPS", true);
        check("\nX-Forwarded-Proto: https, http", false);
        check("\nX-Forwarded-Proto: http, https", true);
        check("\nX-Forwarded-Proto: https\nX-Forwarded-Proto: gopher", true);
        check("\nX-Forwarded-Proto: https\nX-Forwarded-Proto: http", false);
    }

    #[test]
    fn directives_are_read_where_they_are() {
        let asked =
            Asked::read(&head_of("GET / HTTP/1.1\nHost: a\ncache-control: no-store\nCache-Control: max-age=5"), true);
        assert!(asked.directives.no_store && asked.directives.max_age == Some(5));
        assert!(Asked::read(&head_of("GET / HTTP/1.1\nHost: a\nPragma: no-cache"), true).directives.no_cache);
        let plain = Asked::read(&head_of("GET / HTTP/1.1\nHost: a\nPragma: x"), true);
        assert_eq!(plain.directives, Request::default());
        assert!(Asked::read(&head_of("GET / HTTP/1.1\nHost: a\nauthorization: x"), true).authorization);
    }

    #[test]
    fn conditions_rfc_9110_13_2_2() {
        const MODIFIED: Option<u64> = Some(784_111_777);
        let check = |fields: &str, etag: Option<&str>, modified, expected| {
            let condition = Condition::of(&head_of(&format!("GET / HTTP/1.1\nHost: a\n{fields}")));
            assert_eq!(condition.holds(etag.map(str::as_bytes), modified), expected, "{fields} {etag:?} {modified:?}");
        };
        let a = Some("\"a\"");
        check("If-None-Match: \"a\"", a, None, true);
        check("If-None-Match: W/\"a\"", a, None, true);
        check("If-None-Match: \"a\"", Some("W/\"a\""), None, true);
        check("If-None-Match: \"b\", \"x,y\" ,W/\"a\"", a, None, true);
        check("If-None-Match: \"b\"\nIf-None-Match: \"a\"", a, None, true);
        check("If-None-Match: *", None, None, true);
        check("If-None-Match: \"b\"", a, None, false);
        check("If-None-Match: a", a, None, false);
        check("If-None-Match: \"a", a, None, false);
        check("If-None-Match: \"a\"", None, None, false);
        check("If-None-Match:", a, None, false);
        // If-None-Match alone counts.
        check("If-None-Match: \"b\"\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", a, MODIFIED, false);
        check("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", a, MODIFIED, true);
        check("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", a, MODIFIED, false);
        check("If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT", None, MODIFIED, true);
        check("If-Modified-Since: yesterday", None, MODIFIED, false);
        check("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", a, None, false);
        check("Accept: a", a, MODIFIED, false);
    }

    #[test]
    fn asking_whether_it_has_changed_rfc_9111_4_3_1() {
        let mut head = head_of(
            "HEAD /a?b HTTP/1.1\nHost: a\nIf-None-Match: \"own\"\nCookie: c\nif-modified-since: Sun, 06 Nov 1994 08:49:37 GMT",
        );
        let mut copy = head_of("POST /other HTTP/1.0\nContent-Length: 5");
        copy_head(&head, &mut copy, b"GET");
        for (head, method) in [(&mut head, &b"HEAD"[..]), (&mut copy, b"GET")] {
            make_conditional(head, Some(b"\"stored\""), Some(b"then"));
            let fields: Vec<_> =
                head.fields.iter().map(|field| (head.get(field.name), head.get(field.value))).collect();
            let expected: [(&[u8], &[u8]); 4] = [
                (b"Host", b"a"),
                (b"Cookie", b"c"),
                (b"If-None-Match", b"\"stored\""),
                (b"If-Modified-Since", b"then"),
            ];
            assert_eq!(fields, expected);
            assert_eq!(
                (head.get(head.method), head.get(head.target), head.get(head.host)),
                (method, &b"/a?b"[..], &b"a"[..])
            );
            assert!(head.framing == Framing::None && !Asked::read(head, true).passes);
        }
        make_unconditional(&mut head);
        assert_eq!(head.fields.len(), 2);
    }

    #[test]
    fn entity_tags() {
        assert!(is_tag(b"\"a\"") && is_tag(b"W/\"\"") && !is_tag(b"a") && !is_tag(b"\"") && !is_tag(b"\"a\"b\""));
    }
}
