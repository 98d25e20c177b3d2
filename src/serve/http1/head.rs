//! Request heads (RFC 9112 §2, §3, §5): from bytes to a [`Head`], or to the first fault in them.
//!
//! A head that arrives whole, as nearly all do, is read once: line ends found, request line cut up, fields by httparse,
//! the few fields that matter to framing looked at. One that arrives in pieces has each line checked when it completes, and is read
//! when its empty line is in. A head with a fault is walked through again from its start in the same order, so that
//! the answer doesn't depend on how the bytes were split.
//!
//! Nothing is repaired or guessed (no obs-fold, no bare LF, no second Content-Length): what another server in front of
//! this one might read differently is refused (RFC 9112 §11.2). Doesn't decode paths, doesn't join fields, keeps no timeouts.

use memchr::{memchr, memchr_iter, memrchr};

use super::Refusal;
use super::grammar::{has_host, is_control, is_field_value, is_host, is_target, is_token, is_token_byte, trim};
use crate::limits::{FIELDS_CEILING, LEADING_EMPTY_LINES_MAX};

/// The protocol version of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

impl Version {
    /// `HTTP/1.0` or `HTTP/1.1`: as on the wire, and SERVER_PROTOCOL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

/// A stretch of [`Head::bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// `start` and `end` are at most the bytes of a head, which [`Head::parse`] keeps below 4 GiB.
    fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self { start: start as u32, end: end as u32 }
    }

    /// Where `part` lies in the bytes that start at address `base`.
    fn of(part: &[u8], base: usize) -> Self {
        let start = part.as_ptr() as usize - base;
        Self::new(start, start + part.len())
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The name as sent.
    pub name: Span,
    /// The value without surrounding white space.
    pub value: Span,
}

/// How the body after a head is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// Content-Length; zero if it was sent as such.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

/// Limits of a head, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line, without its line end.
    pub request_line_bytes_max: usize,
    /// Bytes of the whole head.
    pub head_bytes_max: usize,
    /// Number of fields; [`FIELDS_CEILING`] at most.
    pub fields_max: usize,
}

/// A parsed request head. Reused: [`Head::parse`] overwrites everything and allocates only to grow.
#[derive(Debug, Default)]
pub struct Head {
    /// The head as received, from the method through the empty line. Spans index into it. After a refusal: the request line if
    /// it was well-formed (for the log, and to know a HEAD request), otherwise nothing.
    pub bytes: Vec<u8>,
    /// Method token.
    pub method: Span,
    /// The request-target as sent.
    pub target: Span,
    /// Path part of the target, still percent-encoded; `*` for asterisk-form. Never empty.
    pub path: Span,
    /// Query part without its `?`; empty if there is none.
    pub query: Span,
    /// Host: from an absolute-form target, otherwise the Host field; empty if there is none (HTTP/1.0) or it is empty.
    pub host: Span,
    /// Version.
    pub version: Version,
    /// All fields in order.
    pub fields: Vec<Field>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the connection may be used again, as far as the client is concerned.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`: it asked on HTTP/1.1, and the framing promises a body.
    pub expect_continue: bool,
}

impl Head {
    /// The value of the first field of this name, which is to be in lower case.
    pub fn find(&self, name: &[u8]) -> Option<&[u8]> {
        let mut named = self.fields.iter().filter(|field| (field.name.end - field.name.start) as usize == name.len());
        named.find(|field| self.get(field.name).eq_ignore_ascii_case(name)).map(|field| self.get(field.value))
    }

    /// The bytes of a span.
    pub fn get(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// Parses the head at the start of `input`. `Ok(None)`: more bytes are needed. `Ok(Some(n))`: the head was the first
    /// `n` bytes (one empty line before it included) and `self` describes it. `scanned` is how many bytes of `input` an earlier call
    /// with the same limits has seen (0 at first); they aren't looked at again until the head is complete.
    ///
    /// # Errors
    /// The first fault found, as early as it can be known: a character when it arrives, a line when it is complete, the head as a
    /// whole (Host, framing, number of fields) at its empty line. The same one however the input was split.
    pub fn parse(&mut self, input: &[u8], scanned: usize, limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        if scanned == 0 {
            self.clear();
        }
        let outcome = self.advance(input, scanned.min(input.len()), limits);
        if outcome.is_err() {
            self.keep_request_line(input, limits);
        }
        outcome
    }

    fn advance(&mut self, input: &[u8], scanned: usize, limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        let Some(start) = skip_empty_lines(input)? else { return Ok(None) };
        let bytes_max = limits.head_bytes_max.min(u32::MAX as usize);
        let window = &input[start..input.len().min(start.saturating_add(bytes_max))];
        let seen = scanned.saturating_sub(start).min(window.len());
        if let Some(lines) = Lines::find(window, seen) {
            let head = &window[..lines.end];
            let Err(fault) = self.read(head, lines, limits) else { return Ok(Some(start + lines.end)) };
            check_lines(head, 0, limits)?;
            return Err(fault);
        }
        check_unread(window, seen, limits)?;
        if window.len() == bytes_max { Err(Refusal::HeadTooLarge) } else { Ok(None) }
    }

    fn clear(&mut self) {
        let (mut bytes, mut fields) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.fields));
        bytes.clear();
        fields.clear();
        *self = Self { bytes, fields, ..Self::default() };
    }

    /// After a refusal: nothing of the head but a well-formed request line.
    #[cold]
    fn keep_request_line(&mut self, input: &[u8], limits: &HeadLimits) {
        self.clear();
        let Ok(Some(start)) = skip_empty_lines(input) else { return };
        let rest = &input[start..input.len().min(start.saturating_add(request_line_reach(limits)))];
        let Some(line) = memchr(b'\n', rest).and_then(|end| rest[..end].strip_suffix(b"\r")) else { return };
        if let Ok(request_line) = RequestLine::parse(line) {
            self.bytes.extend_from_slice(line);
            self.set_request_line(&request_line);
        }
    }

    fn set_request_line(&mut self, line: &RequestLine) {
        self.method = line.method;
        self.target = line.target;
        self.path = line.path;
        self.query = line.query;
        self.host = line.authority.unwrap_or_default();
        self.version = line.version;
    }

    /// Reads a complete head. Its line ends are known to be CRLF.
    fn read(&mut self, head: &[u8], lines: Lines, limits: &HeadLimits) -> Result<(), Refusal> {
        let line_feed = lines.first_line_feed;
        if line_feed >= request_line_reach(limits) {
            return Err(Refusal::TargetTooLong);
        }
        let request_line = RequestLine::parse(&head[..line_feed - 1])?;
        let fields_at = line_feed + 1;
        let count = lines.count - 2;
        if count > limits.fields_max.min(FIELDS_CEILING) {
            return Err(Refusal::HeadTooLarge);
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        self.set_request_line(&request_line);
        // httparse wants initialised room, so that little is made where little is needed.
        let meaning = match count {
            0..=8 => self.read_fields::<8>(head, fields_at),
            9..=16 => self.read_fields::<16>(head, fields_at),
            17..=64 => self.read_fields::<64>(head, fields_at),
            _ => self.read_fields::<FIELDS_CEILING>(head, fields_at),
        }?;
        self.conclude(&meaning)
    }

    fn read_fields<const ROOM: usize>(&mut self, head: &[u8], fields_at: usize) -> Result<Meaning, Refusal> {
        let mut room = [httparse::EMPTY_HEADER; ROOM];
        let Ok(httparse::Status::Complete((length, fields))) = httparse::parse_headers(&head[fields_at..], &mut room)
        else {
            return Err(MALFORMED_FIELD);
        };
        debug_assert_eq!(fields_at + length, head.len(), "the empty line is the last one");
        let base = head.as_ptr() as usize;
        let mut meaning = Meaning::default();
        self.fields.clear();
        for field in fields {
            let value = Span::of(field.value, base);
            self.fields.push(Field { name: Span::of(field.name.as_bytes(), base), value });
            meaning.note(field.name, field.value, value)?;
        }
        Ok(meaning)
    }

    /// What the fields mean together with the request line.
    fn conclude(&mut self, meaning: &Meaning) -> Result<(), Refusal> {
        let http11 = self.version == Version::Http11;
        if http11 && meaning.host.is_none() {
            return Err(Refusal::BadRequest("missing Host field"));
        }
        // RFC 9112 §3.2.2: the authority of an absolute-form target replaces the Host field.
        if self.host == Span::default() {
            self.host = meaning.host.unwrap_or_default();
        }
        self.framing = meaning.framing(self.version)?;
        self.keep_alive = !meaning.close && (http11 || meaning.keep_alive);
        self.expect_continue = false;
        // RFC 9110 §10.1.1: to be ignored on HTTP/1.0.
        if meaning.expect_continue && http11 {
            match self.framing {
                Framing::None => return Err(Refusal::LengthRequired),
                Framing::Length(length) => self.expect_continue = length > 0,
                Framing::Chunked => self.expect_continue = true,
            }
        }
        Ok(())
    }
}

const MALFORMED_REQUEST_LINE: Refusal = Refusal::BadRequest("malformed request line");
const MALFORMED_METHOD: Refusal = Refusal::BadRequest("malformed method");
const MALFORMED_TARGET: Refusal = Refusal::BadRequest("malformed request target");
const MALFORMED_FIELD: Refusal = Refusal::BadRequest("malformed field line");
const MALFORMED_CODING: Refusal = Refusal::BadRequest("malformed Transfer-Encoding");

// --- Lines -----------------------------------------------------------------------------------------

/// Where the request line starts; `None` if that isn't known yet. RFC 9112 §2.2: an empty line in front of it, left behind a body by
/// old clients, is to be ignored.
fn skip_empty_lines(input: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut start = 0;
    for lines in 0.. {
        match &input[start..] {
            [] => break,
            [b'\r' | b'\n', ..] if lines == LEADING_EMPTY_LINES_MAX => {
                return Err(Refusal::BadRequest("empty line instead of a request line"));
            }
            [b'\r'] => break,
            [b'\r', b'\n', ..] => start += 2,
            [b'\r', ..] => return Err(Refusal::BadRequest("bare CR")),
            [b'\n', ..] => return Err(Refusal::BadRequest("bare LF")),
            // Known with the first byte, so that a TLS handshake is answered at once.
            [first, ..] if !is_token_byte(*first) => return Err(MALFORMED_METHOD),
            _ => return Ok(Some(start)),
        }
    }
    Ok(None)
}

/// Where the lines of a complete head end.
#[derive(Clone, Copy, Default)]
struct Lines {
    /// Of the request line's LF.
    first_line_feed: usize,
    /// Line ends in all; one is the request line's, one the empty line's.
    count: usize,
    /// One past the empty line.
    end: usize,
}

impl Lines {
    /// Finds the empty line, if its LF lies behind `seen`. `None` also if there is a bare LF.
    fn find(window: &[u8], seen: usize) -> Option<Self> {
        let mut lines = Self::default();
        for line_feed in memchr_iter(b'\n', &window[seen..]) {
            let at = seen + line_feed;
            if lines.count == 0 {
                lines.first_line_feed = at;
            }
            lines.count += 1;
            match window[..at] {
                // What came before was not counted: once more from the start.
                [.., b'\n', b'\r'] if seen > 0 => return Self::find(&window[..=at], 0),
                [.., b'\n', b'\r'] => return Some(Self { end: at + 1, ..lines }),
                [.., b'\r'] => {}
                _ => return None,
            }
        }
        None
    }
}

/// Bytes within which the request line's LF must come.
fn request_line_reach(limits: &HeadLimits) -> usize {
    limits.request_line_bytes_max.saturating_add(2)
}

/// Looks for a fault in an incomplete head of which the first `seen` bytes are known to have none.
fn check_unread(window: &[u8], seen: usize, limits: &HeadLimits) -> Result<(), Refusal> {
    if memchr(b'\n', &window[seen..]).is_some() {
        let line_start = memrchr(b'\n', &window[..seen]).map_or(0, |end| end + 1);
        return check_lines(window, line_start, limits);
    }
    // No line has ended. A CR that was the last byte seen is judged now.
    let from = if window[..seen].ends_with(b"\r") { seen - 1 } else { seen };
    let reach = request_line_reach(limits);
    // Only the call that passes the limit has to ask whether this still is the request line.
    if seen < reach && window.len() >= reach && memchr(b'\n', &window[..reach]).is_none() {
        check_characters(&window[from..reach])?;
        return Err(Refusal::TargetTooLong);
    }
    check_characters(&window[from..])
}

/// Looks for a fault from the line that starts at `start`, line by line and in each line character by character, up to the
/// empty line or through the incomplete last line.
#[cold]
fn check_lines(window: &[u8], mut start: usize, limits: &HeadLimits) -> Result<(), Refusal> {
    if start == 0 {
        let within = &window[..window.len().min(request_line_reach(limits))];
        let Some(line_feed) = memchr(b'\n', within) else {
            check_characters(within)?;
            return if within.len() == request_line_reach(limits) { Err(Refusal::TargetTooLong) } else { Ok(()) };
        };
        check_characters(&within[..=line_feed])?;
        RequestLine::parse(&within[..line_feed - 1])?;
        start = line_feed + 1;
    }
    while let Some(length) = memchr(b'\n', &window[start..]) {
        let line = &window[start..=start + length];
        if line == b"\r\n" {
            return Ok(());
        }
        check_characters(line)?;
        check_field_line(&line[..line.len() - 2])?;
        start += length + 1;
    }
    check_characters(&window[start..])
}

/// RFC 9112 §2.2, RFC 9110 §5.5: line ends are CRLF, and there are no control characters but TAB. `bytes` is a line or a part of one; a CR
/// at its end is not judged yet.
fn check_characters(bytes: &[u8]) -> Result<(), Refusal> {
    let text = bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\r")).unwrap_or(bytes);
    if is_field_value(text) {
        return Ok(());
    }
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' if bytes.get(at + 1).is_some_and(|&next| next != b'\n') => {
                return Err(Refusal::BadRequest("bare CR"));
            }
            b'\n' if !bytes[..at].ends_with(b"\r") => return Err(Refusal::BadRequest("bare LF")),
            b'\r' | b'\n' => {}
            _ if is_control(byte) => return Err(Refusal::BadRequest("control character in the head")),
            _ => {}
        }
    }
    Ok(())
}

/// RFC 9112 §5: says what is wrong with a field line whose characters are known to be good.
fn check_field_line(line: &[u8]) -> Result<(), Refusal> {
    if let [b' ' | b'\t', ..] = line {
        return Err(Refusal::BadRequest("folded field line"));
    }
    let Some(colon) = memchr(b':', line) else { return Err(Refusal::BadRequest("field line without a colon")) };
    match &line[..colon] {
        [] => Err(Refusal::BadRequest("empty field name")),
        [.., b' ' | b'\t'] => Err(Refusal::BadRequest("white space before a colon")),
        name if !is_token(name) => Err(Refusal::BadRequest("malformed field name")),
        _ => Ok(()),
    }
}

// --- The request line ------------------------------------------------------------------------------

/// A request line; spans count from its first byte.
struct RequestLine {
    method: Span,
    target: Span,
    path: Span,
    query: Span,
    /// Of an absolute-form target.
    authority: Option<Span>,
    version: Version,
}

impl RequestLine {
    /// RFC 9112 §3: method, one space, target, one space, version.
    fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let method_end = memchr(b' ', line).ok_or(MALFORMED_REQUEST_LINE)?;
        let method = &line[..method_end];
        if !is_token(method) {
            return Err(MALFORMED_METHOD);
        }
        let target_at = method_end + 1;
        let target_end = memrchr(b' ', line).filter(|&end| end > target_at).ok_or(MALFORMED_REQUEST_LINE)?;
        let version = parse_version(&line[target_end + 1..])?;
        let target = &line[target_at..target_end];
        if !is_target(target) {
            return Err(MALFORMED_TARGET);
        }
        if method == b"CONNECT" {
            return Err(Refusal::NotImplemented);
        }
        let (authority, path_at) = match target {
            [b'/', ..] => (None, target_at),
            b"*" if method == b"OPTIONS" => (None, target_at),
            _ => {
                let authority = parse_authority(target, target_at)?;
                (Some(authority), authority.end as usize)
            }
        };
        let query_mark = memchr(b'?', &line[path_at..target_end]).map(|at| path_at + at);
        let path_end = query_mark.unwrap_or(target_end);
        let path = match authority {
            // RFC 9112 §3.2.1: an empty path is sent as "/". The one in front of the authority lends itself.
            Some(authority) if path_end == path_at => Span { start: authority.start - 1, end: authority.start },
            _ => Span::new(path_at, path_end),
        };
        let query = Span::new(query_mark.map_or(target_end, |mark| mark + 1), target_end);
        let (method, target) = (Span::new(0, method_end), Span::new(target_at, target_end));
        Ok(Self { method, target, path, query, authority, version })
    }
}

/// RFC 9112 §2.3: case-sensitive, one digit each.
fn parse_version(version: &[u8]) -> Result<Version, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::VersionNotSupported),
        _ => Err(Refusal::BadRequest("malformed HTTP version")),
    }
}

/// The authority of an absolute-form target (RFC 9112 §3.2.2) that stands at `target_at` in its line: http or https, without
/// userinfo (RFC 9110 §4.2.4), with a host (§4.2.1). Any other target isn't of a form that a server can be asked for.
fn parse_authority(target: &[u8], target_at: usize) -> Result<Span, Refusal> {
    let scheme_end = memchr(b':', target).ok_or(MALFORMED_TARGET)?;
    let scheme = &target[..scheme_end];
    let is_http = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    let Some(rest) = target[scheme_end + 1..].strip_prefix(b"//").filter(|_| is_http) else {
        return Err(MALFORMED_TARGET);
    };
    let length = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let authority = &rest[..length];
    // A host has no "@", so that userinfo is refused with everything else that isn't one.
    if !is_host(authority) || !has_host(authority) {
        return Err(Refusal::BadRequest("malformed authority in the request target"));
    }
    let start = target_at + scheme_end + 3;
    Ok(Span::new(start, start + length))
}

// --- Fields that matter to framing -----------------------------------------------------------------

/// What the fields say about host, framing and connection.
#[derive(Default)]
struct Meaning {
    host: Option<Span>,
    content_length: Option<u64>,
    coding: Coding,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
}

/// What all Transfer-Encoding lines so far come to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    /// `chunked` alone.
    Chunked,
    /// Another coding came first; `chunked` may follow it.
    Unknown { chunked: bool },
}

impl Meaning {
    fn note(&mut self, name: &str, value: &[u8], span: Span) -> Result<(), Refusal> {
        // By length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => self.note_host(value, span),
            6 if name.eq_ignore_ascii_case("expect") => self.note_expect(value),
            10 if name.eq_ignore_ascii_case("connection") => {
                self.note_connection(value);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case("content-length") => self.note_content_length(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.note_transfer_encoding(value),
            _ => Ok(()),
        }
    }

    /// RFC 9112 §3.2: exactly one, and valid; it may be empty.
    fn note_host(&mut self, value: &[u8], span: Span) -> Result<(), Refusal> {
        if self.host.is_some() {
            return Err(Refusal::BadRequest("more than one Host field"));
        }
        if !is_host(value) {
            return Err(Refusal::BadRequest("malformed Host field"));
        }
        self.host = Some(span);
        Ok(())
    }

    /// RFC 9110 §10.1.1.
    fn note_expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::ExpectationFailed);
        }
        self.expect_continue = true;
        Ok(())
    }

    /// RFC 9110 §7.6.1, RFC 9112 §9.3: a list, over any number of lines.
    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = trim(option);
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9110 §8.6: `1*DIGIT`, once. A list of equal values may be refused as well as collapsed; it is refused.
    fn note_content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some() {
            return Err(Refusal::BadRequest("more than one Content-Length field"));
        }
        let length = value.iter().try_fold(0u64, |length, byte| match byte {
            b'0'..=b'9' => length.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        });
        self.content_length = length.filter(|_| !value.is_empty());
        if self.content_length.is_none() {
            return Err(Refusal::BadRequest("malformed Content-Length"));
        }
        Ok(())
    }

    /// RFC 9112 §6.1: a list, over any number of lines, of which nothing but `chunked` is understood here.
    fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for member in value.split(|&byte| byte == b',') {
            let parameters_at = memchr(b';', member).unwrap_or(member.len());
            let name = trim(&member[..parameters_at]);
            if !is_token(name) {
                return Err(MALFORMED_CODING);
            }
            let chunked = name.eq_ignore_ascii_case(b"chunked");
            self.coding = match self.coding {
                // §7.1: chunked has no parameters.
                _ if chunked && parameters_at < member.len() => return Err(MALFORMED_CODING),
                // §6.1: it isn't applied twice; §6.3: it is the last one.
                Coding::Chunked | Coding::Unknown { chunked: true } => {
                    return Err(Refusal::BadRequest("chunked is not the last transfer coding"));
                }
                Coding::None if chunked => Coding::Chunked,
                Coding::None | Coding::Unknown { chunked: false } => Coding::Unknown { chunked },
            };
        }
        Ok(())
    }

    /// RFC 9112 §6.3. Without Content-Length and Transfer-Encoding a request has no body, whatever its method.
    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        match (self.coding, self.content_length) {
            (Coding::None, None) => Ok(Framing::None),
            (Coding::None, Some(length)) => Ok(Framing::Length(length)),
            // §6.1: the framing of such a message is faulty, and the sender may be a smuggler.
            _ if version == Version::Http10 => Err(Refusal::BadRequest("Transfer-Encoding in HTTP/1.0")),
            (_, Some(_)) => Err(Refusal::BadRequest("both Content-Length and Transfer-Encoding")),
            (Coding::Chunked, None) => Ok(Framing::Chunked),
            (Coding::Unknown { .. }, None) => Err(Refusal::NotImplemented),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { request_line_bytes_max: 60, head_bytes_max: 400, fields_max: 20 };

    /// What a head came to, without spans.
    #[derive(Debug, PartialEq, Eq)]
    struct Seen {
        consumed: usize,
        texts: [Vec<u8>; 5],
        fields: Vec<(Vec<u8>, Vec<u8>)>,
        version: Version,
        framing: Framing,
        keep_alive: bool,
        expect_continue: bool,
    }

    type Outcome = Result<Option<Seen>, Refusal>;

    /// Parses `input` as if it arrived in pieces that end at `ends` (and at its end).
    fn parse_in_pieces(input: &[u8], ends: impl IntoIterator<Item = usize>, limits: &HeadLimits) -> Outcome {
        let mut head = Head::default();
        let mut scanned = 0;
        for end in ends.into_iter().map(|end| end.min(input.len())).chain([input.len()]) {
            if end < scanned {
                continue;
            }
            if let Some(consumed) = head.parse(&input[..end], scanned, limits)? {
                let text = |span| head.get(span).to_vec();
                return Ok(Some(Seen {
                    consumed,
                    texts: [head.method, head.target, head.path, head.query, head.host].map(text),
                    fields: head.fields.iter().map(|field| (text(field.name), text(field.value))).collect(),
                    version: head.version,
                    framing: head.framing,
                    keep_alive: head.keep_alive,
                    expect_continue: head.expect_continue,
                }));
            }
            assert!(head.bytes.is_empty(), "nothing is kept of an incomplete head");
            scanned = end;
        }
        Ok(None)
    }

    /// Whole and byte by byte, which must agree.
    fn parse_text(text: &str) -> Outcome {
        let whole = parse_in_pieces(text.as_bytes(), [], &LIMITS);
        assert_eq!(parse_in_pieces(text.as_bytes(), 1..text.len(), &LIMITS), whole, "byte by byte: {text:?}");
        whole
    }

    fn accepted(text: &str) -> Seen {
        match parse_text(text) {
            Ok(Some(seen)) => seen,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refused(text: &str, status: u16) {
        match parse_text(text) {
            Err(refusal) => assert_eq!(refusal.status(), status, "{text:?}: {refusal:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    /// 400 for the reason given.
    fn bad(text: &str, reason: &str) {
        match parse_text(text) {
            Err(Refusal::BadRequest(what)) => assert_eq!(what, reason, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    /// A GET on HTTP/1.1 with a Host and these field lines.
    fn with_fields(lines: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    }

    #[test]
    fn a_whole_head() {
        let head = accepted(
            "POST /a%20b/c?d=e&f HTTP/1.1\r\nHost: example.com:80\r\nX-Y:  caf\u{e9} z \t\r\nEmpty:\r\n\r\nrest",
        );
        assert_eq!(head.consumed, 79, "without what follows the empty line");
        let expected = ["POST", "/a%20b/c?d=e&f", "/a%20b/c", "d=e&f", "example.com:80"];
        assert_eq!(head.texts, expected.map(|text| text.as_bytes().to_vec()));
        let expected = [("Host", "example.com:80"), ("X-Y", "caf\u{e9} z"), ("Empty", "")];
        assert_eq!(head.fields, expected.map(|(name, value)| (name.into(), value.into())));
        assert_eq!((head.version, head.framing), (Version::Http11, Framing::None));
        assert!(head.keep_alive && !head.expect_continue);
    }

    #[test]
    fn incomplete_heads_wait() {
        for text in [
            "",
            "\r",
            "\r\n",
            "G",
            "GET",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\nbaz",
            "GET / HTTP/1.1\r\nHost: a\r\n\r",
        ] {
            assert_eq!(parse_text(text), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn empty_lines_before_a_request_line_rfc_9112_2_2() {
        assert_eq!(accepted("\r\nGET / HTTP/1.0\r\n\r\n").consumed, 20);
        bad("\r\n\r\nGET / HTTP/1.0\r\n\r\n", "empty line instead of a request line");
        bad("\nGET / HTTP/1.0\r\n\r\n", "bare LF");
        bad("\rGET / HTTP/1.0\r\n\r\n", "bare CR");
    }

    #[test]
    fn line_ends_are_crlf_rfc_9112_2_2() {
        bad("GET / HTTP/1.1\nHost: a\r\n\r\n", "bare LF");
        bad("GET / HTTP/1.1\r\nHost: a\n\r\n", "bare LF");
        bad("GET / HTTP/1.1\r\nHost: a\r\n\n", "bare LF");
        bad("GET / HTTP/1.1\r\nHost: a\n\n", "bare LF");
        bad("GET / HTTP/1.1\r\nHost: a\r\rX: y\r\n\r\n", "bare CR");
        bad("GET / HTTP/1.1\rHost: a\r\n\r\n", "bare CR");
        bad("GET / HTTP/1.1\r\nHost: a\r\n\rX", "bare CR");
        bad("GET / HTTP/1.1\r\nHost: a\r\nX: a\nContent-Length: 26\r\n\r\n", "bare LF");
    }

    #[test]
    fn control_characters_rfc_9110_5_5() {
        for control in "\0\x01\x07\x0b\x0c\x1b\x1f\x7f".chars() {
            bad(&with_fields(&format!("X: a{control}b\r\n")), "control character in the head");
            bad(&with_fields(&format!("X{control}Y: a\r\n")), "control character in the head");
            bad(&format!("GET /{control} HTTP/1.1\r\nHost: a\r\n\r\n"), "control character in the head");
            bad(&format!("GET{control} / HTTP/1.1\r\nHost: a\r\n\r\n"), "control character in the head");
        }
        assert_eq!(accepted(&with_fields("X: a\tb\r\n")).fields[1].1, b"a\tb");
    }

    #[test]
    fn faults_are_known_as_early_as_can_be() {
        let first_fault = |text: &str| {
            let limits = HeadLimits { request_line_bytes_max: 20, head_bytes_max: 40, fields_max: 20 };
            (1..=text.len()).find(|&end| parse_in_pieces(&text.as_bytes()[..end], [], &limits).is_err())
        };
        assert_eq!(first_fault("\x16\x03\x01"), Some(1));
        assert_eq!(first_fault("GET /\x01"), Some(6));
        assert_eq!(first_fault("GET / HTTP/2.0\r\nX"), Some(16));
        assert_eq!(first_fault("GET / HTTP/1.1\r\nX : y\r\nZ"), Some(23));
        assert_eq!(first_fault("GET / HTTP/1.1\r\nX\rY"), Some(19));
        assert_eq!(first_fault("GET /56789012345678901234567890"), Some(22));
        assert_eq!(first_fault("GET / HTTP/1.0\r\nX: 90123456789012345678901234567890"), Some(40));
    }

    #[test]
    fn request_lines_rfc_9112_3() {
        for line in [
            "GET",
            "GET /",
            "GET  / HTTP/1.1",
            "GET /",
            "GET HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /  HTTP/1.1",
            " GET / HTTP/1.1",
        ] {
            refused(&format!("{line}\r\nHost: a\r\n\r\n"), 400);
        }
        for method in ["G:T", "GÉT", "GET:", "(GET)", "G\"T"] {
            bad(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"), "malformed method");
        }
        for method in ["get", "-BLARGH", "M-SEARCH", "PRI", "X!#$%&'*+-.^_`|~9"] {
            assert_eq!(accepted(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).texts[0], method.as_bytes());
        }
    }

    #[test]
    fn versions_rfc_9112_2_3() {
        let check = |version: &str, status| refused(&format!("GET / {version}\r\nHost: a\r\n\r\n"), status);
        for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3.0"] {
            check(version, 505);
        }
        for version in [
            "HTTP/1",
            "HTTP/1.1 ",
            "HTTP/111",
            "HTTP/1.10",
            "http/1.1",
            "FTP/1.1",
            "HTTP/0.99",
            "HTTP/1.1\t",
            "HTTP/+1.1",
        ] {
            check(version, 400);
        }
        refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    }

    #[test]
    fn request_targets_rfc_9112_3_2() {
        let check = |request: &str, path: &str, query: &str, host: &str| {
            let head = accepted(&format!("{request} HTTP/1.1\r\nHost: field\r\n\r\n"));
            assert_eq!(head.texts[2..], [path, query, host].map(|text| text.as_bytes().to_vec()), "{request}");
        };
        check("GET /", "/", "", "field");
        check("GET /?", "/", "", "field");
        check("GET /a?b?c/d", "/a", "b?c/d", "field");
        check("GET //a//b", "//a//b", "", "field");
        check("GET /http://b/", "/http://b/", "", "field");
        check("GET /\"<>|^`{}\\", "/\"<>|^`{}\\", "", "field");
        check("OPTIONS *", "*", "", "field");
        check("GET http://b/c?d", "/c", "d", "b");
        check("GET HTTPS://b:8/c", "/c", "", "b:8");
        check("GET http://b", "/", "", "b");
        check("GET http://b?c", "/", "c", "b");
        check("GET http://[::1]:80/", "/", "", "[::1]:80");
        for target in [
            "*",
            "a/b",
            "a:443",
            "http:/b/",
            "http:b",
            "ftp://b/",
            "s://]ufd/:",
            "http://",
            "http:///c",
            "http://:80/",
            "http://u@b/",
            "http://u:p@b/",
            "http://b:x/",
            "/a#b",
            "http://b#c",
            "#",
            "/é",
            "?a",
            "/\u{a0}",
            "http://a\\b/",
        ] {
            refused(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        }
        refused("OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", 400);
        refused("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501);
        // RFC 9112 §3.2: Host is asked for, and checked, with an absolute-form target as well.
        refused("GET http://b/ HTTP/1.1\r\n\r\n", 400);
        refused("GET http://b/ HTTP/1.1\r\nHost: a/b\r\n\r\n", 400);
    }

    #[test]
    fn host_rfc_9112_3_2() {
        bad("GET / HTTP/1.1\r\n\r\n", "missing Host field");
        bad("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "more than one Host field");
        bad("GET / HTTP/1.0\r\nHost: a\r\nHOST: b\r\n\r\n", "more than one Host field");
        for host in ["a b", "a/b", "u@a", "[::1", "a:b", "a:1:2", "é", "a%"] {
            bad(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "malformed Host field");
        }
        assert_eq!(accepted("GET / HTTP/1.1\r\nHost:\r\n\r\n").texts[4], b"");
        assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").texts[4], b"");
        assert_eq!(accepted("GET / HTTP/1.0\r\nHost: 0.0.0.0=5000\r\n\r\n").texts[4], b"0.0.0.0=5000");
    }

    #[test]
    fn field_lines_rfc_9112_5() {
        bad(&with_fields("X : y\r\n"), "white space before a colon");
        bad(&with_fields("X\t: y\r\n"), "white space before a colon");
        bad(&with_fields(": y\r\n"), "empty field name");
        bad(&with_fields("X\r\n"), "field line without a colon");
        bad(&with_fields("X Y: z\r\n"), "malformed field name");
        bad(&with_fields("Xé: z\r\n"), "malformed field name");
        bad(&with_fields("X(: z\r\n"), "malformed field name");
        bad(&with_fields("X: y\r\n z\r\n"), "folded field line");
        bad(&with_fields("X: y\r\n\tz\r\n"), "folded field line");
        bad("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "folded field line");
        bad("GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", "folded field line");
    }

    #[test]
    fn the_first_fault_wins() {
        bad(&with_fields("X : y\r\nZ: a\nb\r\n"), "white space before a colon");
        bad(&with_fields("X: a\nb\r\nX : y\r\n"), "bare LF");
        bad("GET / HTTP/1.1\r\nX : y\r\n\r\n", "white space before a colon");
        refused("GET / HTTP/2.0\r\nX : y\r\n\r\n", 505);
        refused(&format!("GET /{}\r\nHost: \0\r\n\r\n", "a".repeat(80)), 414);
    }

    #[test]
    fn content_length_rfc_9112_6_3() {
        let check = |lines: &str, expected| assert_eq!(accepted(&with_fields(lines)).framing, expected, "{lines:?}");
        check("", Framing::None);
        check("Content-Length: 0\r\n", Framing::Length(0));
        check("conTENT-Length:5\r\n", Framing::Length(5));
        check("Content-Length: 18446744073709551615\r\n", Framing::Length(u64::MAX));
        check("Content-Length: 00000000000000000000000007\r\n", Framing::Length(7));
        check("Content_Length: -1\r\n", Framing::None);
        for value in [
            "",
            "+5",
            "-1",
            "-0",
            "5 5",
            "5,5",
            "5, 5",
            "5;",
            "0x5",
            "5.0",
            "0_1",
            "a",
            "18446744073709551616",
            "99999999999999999999",
            "٣",
        ] {
            bad(&with_fields(&format!("Content-Length: {value}\r\n")), "malformed Content-Length");
        }
        bad(&with_fields("Content-Length: 5\r\nContent-Length: 5\r\n"), "more than one Content-Length field");
        bad(&with_fields("Content-Length: 5\r\nContent-Length: 6\r\n"), "more than one Content-Length field");
    }

    #[test]
    fn transfer_encoding_rfc_9112_6_1() {
        for value in ["chunked", "Chunked", "CHUNKED", "\tchunked \t"] {
            assert_eq!(accepted(&with_fields(&format!("Transfer-Encoding: {value}\r\n"))).framing, Framing::Chunked);
        }
        let check = |value: &str, status| refused(&with_fields(&format!("transfer-encoding: {value}\r\n")), status);
        for value in [
            "gzip",
            "identity",
            "xchunked",
            "chunkedx",
            "gzip, chunked",
            "gzip;q=1",
            "identity,chunked",
            "gzip , deflate",
        ] {
            check(value, 501);
        }
        for value in [
            "",
            ",",
            "chunked,",
            ", chunked",
            "chunked, chunked",
            "chunked, gzip",
            "chunked, identity",
            "chunked;q=1",
            "chunked ; a=b",
            "chunked chunked",
            "\"chunked\"",
            "chu nked",
            "gzip, chunked, gzip",
            "gzip,,chunked",
            "identity, chunked, identity, chunked",
            ";chunked",
            "chunked;",
            "chunked: x",
        ] {
            check(value, 400);
        }
        let lines = |first: &str, second: &str, status| {
            refused(&with_fields(&format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n")), status);
        };
        lines("chunked", "chunked", 400);
        lines("chunked", "gzip", 400);
        lines("gzip", "chunked", 501);
        bad("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in HTTP/1.0");
        for lines in
            ["Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\nContent-Length: 3\r\n"]
        {
            bad(&with_fields(lines), "both Content-Length and Transfer-Encoding");
        }
    }

    #[test]
    fn connection_rfc_9112_9_3() {
        let check = |version: &str, lines: &str, expected| {
            let head = accepted(&format!("GET / {version}\r\nHost: a\r\n{lines}\r\n"));
            assert_eq!(head.keep_alive, expected, "{version} {lines:?}");
        };
        check("HTTP/1.1", "", true);
        check("HTTP/1.1", "Connection: close\r\n", false);
        check("HTTP/1.1", "Connection: Close\r\n", false);
        check("HTTP/1.1", "Connection: keep-alive, close\r\n", false);
        check("HTTP/1.1", "Connection: close\r\nConnection: keep-alive\r\n", false);
        check("HTTP/1.1", "Connection: upgrade ,\tCLOSE\r\n", false);
        check("HTTP/1.1", "Connection: closed, x-close\r\n", true);
        check("HTTP/1.1", "Connection:\r\n", true);
        check("HTTP/1.0", "", false);
        check("HTTP/1.0", "Connection: Keep-Alive\r\n", true);
        check("HTTP/1.0", "Connection: TE\r\nConnection: TE,keep-alive\r\n", true);
        check("HTTP/1.0", "Connection: keep-alive\r\nConnection: close\r\n", false);
    }

    #[test]
    fn expect_rfc_9110_10_1_1() {
        let check = |text: &str, expected| assert_eq!(accepted(text).expect_continue, expected, "{text:?}");
        check(&with_fields("Content-Length: 5\r\nExpect: 100-Continue\r\n"), true);
        check(&with_fields("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"), true);
        check(&with_fields("Expect: 100-continue\r\nContent-Length: 0\r\n"), false);
        check("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", false);
        check("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", false);
        refused(&with_fields("Expect: 100-continue\r\n"), 411);
        for value in ["", "xyz", "100-continue, x", "100", "200-ok"] {
            refused(&with_fields(&format!("Content-Length: 5\r\nExpect: {value}\r\n")), 417);
        }
    }

    #[test]
    fn limits_are_reached_exactly() {
        let line = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 14));
        assert_eq!(accepted(&line(60)).texts[1].len(), 47);
        refused(&line(61), 414);
        refused(&line(62), 414);
        refused(&line(63), 414);
        let head = |bytes: usize| with_fields(&format!("X: {}\r\n", "x".repeat(bytes - 32)));
        assert_eq!(accepted(&head(400)).consumed, 400);
        refused(&head(401), 431);
        refused(&head(500), 431);
        let fields = |count: usize| with_fields(&"X: y\r\n".repeat(count - 1));
        assert_eq!(accepted(&fields(20)).fields.len(), 20);
        refused(&fields(21), 431);
    }

    #[test]
    fn the_ceiling_of_fields_holds() {
        let limits = HeadLimits { request_line_bytes_max: 100, head_bytes_max: 1 << 20, fields_max: usize::MAX };
        for (count, expected) in
            [(8, true), (9, true), (16, true), (17, true), (64, true), (65, true), (1024, true), (1025, false)]
        {
            let text = with_fields(&"X: y\r\n".repeat(count - 1));
            match parse_in_pieces(text.as_bytes(), [], &limits) {
                Ok(Some(seen)) => assert!(expected && seen.fields.len() == count, "{count}"),
                other => assert!(!expected && other == Err(Refusal::HeadTooLarge), "{count}"),
            }
        }
    }

    #[test]
    fn a_head_used_again_remembers_nothing() {
        let mut head = Head::default();
        let mut parse = |text: &str| {
            head.parse(text.as_bytes(), 0, &LIMITS).map(|_| (head.get(head.method).to_vec(), head.fields.len()))
        };
        assert_eq!(parse("POST http://b/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"), Ok((b"POST".to_vec(), 2)));
        assert_eq!(parse("GET / HTTP/1.0\r\n\r\n"), Ok((b"GET".to_vec(), 0)));
        assert_eq!(parse("G"), Ok((vec![], 0)));
        assert_eq!((head.framing, head.host, head.keep_alive), (Framing::None, Span::default(), false));
        // After a refusal the request line is there for the log, if there is one.
        assert!(head.parse(b"HEAD /a?b HTTP/1.1\r\n\r\n", 0, &LIMITS).is_err());
        assert_eq!((head.get(head.method), head.get(head.target), head.bytes.len()), (&b"HEAD"[..], &b"/a?b"[..], 18));
        assert!(head.parse(b"HEAD /a?b\r\n\r\n", 0, &LIMITS).is_err());
        assert_eq!((head.get(head.method), head.bytes.len()), (&b""[..], 0));
    }

    /// Pieces of heads, good and bad, that are strung together, and bytes of no meaning.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let texts = [
            "GET / HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "GET http://a?b HTTP/1.0\r\n",
            "POST /a?b=c HTTP/1.1\r\n",
            "HEAD /\r\n",
            "Host: a\r\n",
            "Host:\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip,",
            "Connection: close\r\n",
            "Expect: 100-continue\r\n",
            "\r\n",
            "\r",
            "\n",
            " ",
            ":",
            "X: y\r\n",
            "Y:",
            "a",
            "\0",
            "\t",
            "#",
            "é",
        ];
        let piece = prop_oneof![
            20 => proptest::sample::select(texts.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..80),
        ];
        let start = proptest::sample::select(texts[..5].to_vec());
        (start, proptest::collection::vec(piece, 0..12))
            .prop_map(|(start, rest)| [start.as_bytes().to_vec(), rest.concat()].concat())
    }

    fn small_limits() -> impl Strategy<Value = HeadLimits> {
        (1..80usize, 1..300usize, 0..8usize).prop_map(|(request_line_bytes_max, head_bytes_max, fields_max)| {
            HeadLimits { request_line_bytes_max, head_bytes_max, fields_max }
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            input in pieces(),
            mut ends in proptest::collection::vec(0..400usize, 0..12),
            limits in prop_oneof![2 => Just(LIMITS), 1 => small_limits()],
        ) {
            ends.sort_unstable();
            let whole = parse_in_pieces(&input, [], &limits);
            prop_assert_eq!(&parse_in_pieces(&input, ends, &limits), &whole);
            prop_assert_eq!(&parse_in_pieces(&input, 0..input.len(), &limits), &whole);
            if let Ok(Some(seen)) = whole {
                prop_assert!(seen.consumed <= limits.head_bytes_max + 2 && seen.fields.len() <= limits.fields_max);
            } else if whole == Ok(None) {
                prop_assert!(input.len() < limits.head_bytes_max + 2);
            }
        }

        #[test]
        fn what_was_sent_is_what_is_read(
            method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}",
            path in "/[!$-9:->@-~]{0,12}",
            query in proptest::option::of("[!$-~]{0,12}"),
            sent in proptest::collection::vec(
                ("X[!#$%&'*+.^_`|~0-9A-Za-z-]{0,8}", "([!-~é]([ \t!-~é]{0,12}[!-~é])?)?", "[ \t]{0,3}"),
                0..10,
            ),
        ) {
            prop_assume!(method != "CONNECT");
            let target = query.iter().fold(path.clone(), |path, query| format!("{path}?{query}"));
            let lines: String = sent.iter().map(|(name, value, space)| format!("{name}:{space}{value}{space}\r\n")).collect();
            let text = format!("{method} {target} HTTP/1.0\r\n{lines}\r\n");
            let limits = HeadLimits { request_line_bytes_max: 1000, head_bytes_max: 10_000, fields_max: 100 };
            let seen = parse_in_pieces(text.as_bytes(), [], &limits).unwrap().unwrap();
            prop_assert_eq!(seen.consumed, text.len());
            let texts = [method, target, path, query.unwrap_or_default(), String::new()].map(String::into_bytes);
            prop_assert_eq!(seen.texts, texts);
            let fields: Vec<_> = sent.into_iter().map(|(name, value, _)| (name.into_bytes(), value.into_bytes())).collect();
            prop_assert_eq!(seen.fields, fields);
        }
    }
}
