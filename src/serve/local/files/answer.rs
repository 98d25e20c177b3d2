//! From a request and a file to what is sent: which status, which head, which stretches of the body. Reads no clock.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::conditional::{self, Conditions, Validators, Verdict};
use super::encoding::{self, Coding};
use super::range::{self, Wanted};
use super::record::{ACCEPT_RANGES, Body, Content, DATE_AT, Held, Record, VARY, Variant};
use super::settings::Settings;
use crate::limits;
use crate::reactor::{FileRange, Outgoing, Segment};
use crate::serve::http1::encode::{self, SERVER};
use crate::serve::http1::{Head, Version};

/// What of a request decides how a file is sent.
#[derive(Debug, Default)]
pub struct Request<'h> {
    /// GET: ranges count.
    pub get: bool,
    /// HEAD: as GET, without a body.
    pub head_only: bool,
    /// Preconditions.
    pub conditions: Conditions<'h>,
    /// Range, if it stands there once.
    pub range: Option<&'h [u8]>,
    /// Accept-Encoding, lines joined.
    pub accept_encoding: Option<Cow<'h, [u8]>>,
}

impl<'h> Request<'h> {
    /// Picks the fields out of a head. By length first: nearly all names end there.
    pub fn gather(head: &'h Head) -> Self {
        let method = head.get(head.method);
        let mut request = Self { get: method == b"GET", head_only: method == b"HEAD", ..Self::default() };
        let conditions = &mut request.conditions;
        let mut ranges = 0;
        for field in &head.fields {
            let (name, value) = (head.get(field.name), head.get(field.value));
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
            match name.len() {
                5 if is("range") => {
                    ranges += 1;
                    request.range = (ranges == 1).then_some(value);
                }
                8 if is("if-match") => join(&mut conditions.if_match, value),
                8 if is("if-range") => single(&mut conditions.if_range, value),
                13 if is("if-none-match") => join(&mut conditions.if_none_match, value),
                15 if is("accept-encoding") => join(&mut request.accept_encoding, value),
                17 if is("if-modified-since") => single(&mut conditions.if_modified_since, value),
                19 if is("if-unmodified-since") => single(&mut conditions.if_unmodified_since, value),
                _ => {}
            }
        }
        request
    }

    fn is_plain(&self) -> bool {
        let Conditions { if_match, if_none_match, if_modified_since, if_unmodified_since, .. } = &self.conditions;
        let none = if_match.is_none() && if_none_match.is_none();
        none && if_modified_since.is_none() && if_unmodified_since.is_none() && self.range.is_none()
    }
}

/// RFC 9110 §5.3: the lines of a list are one list.
fn join<'h>(slot: &mut Option<Cow<'h, [u8]>>, value: &'h [u8]) {
    match slot {
        None => *slot = Some(Cow::Borrowed(value)),
        Some(before) => {
            let before = before.to_mut();
            before.extend_from_slice(b", ");
            before.extend_from_slice(value);
        }
    }
}

/// A date or a tag that stands there twice is neither: an empty value matches nothing.
fn single<'h>(slot: &mut Option<Cow<'h, [u8]>>, value: &'h [u8]) {
    *slot = Some(Cow::Borrowed(if slot.is_some() { b"" } else { value }));
}

/// What an application said beside the name of a file: fields that are kept, and those that take the place of ours.
#[derive(Debug, Default)]
pub struct Given {
    /// Field lines for the client, Content-Type left out.
    lines: Vec<u8>,
    content_type: Option<Vec<u8>>,
    etag: Option<Vec<u8>>,
    /// Last-Modified, if it is a date.
    modified: Option<u64>,
    has_modified: bool,
    date: bool,
    server: bool,
    encoded: bool,
}

impl Given {
    /// Reads a rendered head: status line and field lines.
    pub fn parse(rendered: &[u8]) -> Self {
        let mut given = Self::default();
        let mut rest = rendered;
        let mut first = true;
        while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
            let line = &rest[..end];
            rest = &rest[end + 2..];
            if !std::mem::take(&mut first) {
                given.note(line);
            }
        }
        given
    }

    fn note(&mut self, line: &[u8]) {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = (&line[..colon], line[colon..].strip_prefix(b":").unwrap_or_default().trim_ascii());
        match name.to_ascii_lowercase().as_slice() {
            b"content-type" => {
                self.content_type = Some(value.to_vec());
                return;
            }
            // How much of the file is sent is for us to say.
            b"content-range" | b"accept-ranges" => return,
            b"etag" => self.etag = Some(value.to_vec()),
            b"last-modified" => {
                self.modified = conditional::date(value);
                self.has_modified = true;
            }
            b"content-encoding" => self.encoded = true,
            b"date" => self.date = true,
            b"server" => self.server = true,
            _ => {}
        }
        self.lines.extend_from_slice(line);
        self.lines.extend_from_slice(b"\r\n");
    }

    /// The lines without those that describe a body (RFC 9110 §15.4.5).
    fn lines_of_304(&self, out: &mut Vec<u8>) {
        for line in self.lines.split_inclusive(|&byte| byte == b'\n') {
            if !line.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-")) {
                out.extend_from_slice(line);
            }
        }
    }
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// 200.
    Whole,
    /// 206, one part or several.
    Parts(Vec<Range<u64>>),
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 416.
    Unsatisfiable,
}

/// The time of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Unix time in seconds.
    pub now: u64,
    /// The value of Date.
    pub date: [u8; 29],
    /// The value of Expires.
    pub expires: [u8; 29],
}

/// What was put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Status code.
    pub status: u16,
    /// Bytes of the head.
    pub head_bytes: usize,
    /// Bytes of the body.
    pub body_bytes: u64,
}

/// Everything an answer is made of.
pub struct Answer<'a> {
    /// The file.
    pub record: &'a Record,
    /// What is configured.
    pub settings: &'a Settings,
    /// What an application said; `None`: the client asked for the file itself.
    pub given: Option<&'a Given>,
    /// When.
    pub moment: &'a Moment,
    /// HTTP version of the request.
    pub version: Version,
    /// Whether the connection goes on.
    pub keep_alive: bool,
    /// What stands between parts, and nowhere in them: unguessable.
    pub boundary: u128,
}

impl Answer<'_> {
    /// Decides, and puts the answer into `outgoing`, its head into `buffer` first.
    ///
    /// `None`: the record holds no file.
    pub fn make(&self, request: &Request<'_>, buffer: Vec<u8>, outgoing: &mut Outgoing) -> Option<Made> {
        let coding = match self.given {
            // Encoded by the application already.
            Some(Given { encoded: true, .. }) => Coding::Identity,
            _ if self.record.varies() => encoding::choose(request.accept_encoding.as_deref(), self.record.available()),
            _ => Coding::Identity,
        };
        let variant = self.record.variant(coding)?;
        let plan = self.plan(request, variant);
        Some(match (&plan, self.given) {
            (Plan::Whole, None) => self.whole(request, variant, buffer, outgoing),
            (Plan::Whole | Plan::Parts(_) | Plan::NotModified, _) => {
                self.any(&plan, request, variant, buffer, outgoing)
            }
            (Plan::Failed, _) => self.refuse(412, "", request, buffer, outgoing),
            (Plan::Unsatisfiable, _) => {
                let extra = format!("Content-Range: bytes */{}\r\n", variant.content.size);
                self.refuse(416, &extra, request, buffer, outgoing)
            }
        })
    }

    fn plan(&self, request: &Request<'_>, variant: &Variant) -> Plan {
        // A POST that is answered with a file has no preconditions on it.
        if request.is_plain() || !(request.get || request.head_only) {
            return Plan::Whole;
        }
        let validators = match self.given {
            None => Validators { etag: &variant.etag, modified: Some(variant.modified) },
            Some(given) => Validators {
                etag: given.etag.as_deref().unwrap_or(&variant.etag),
                modified: if given.has_modified { given.modified } else { Some(variant.modified) },
            },
        };
        match conditional::evaluate(&request.conditions, validators) {
            Verdict::NotModified => return Plan::NotModified,
            Verdict::Failed => return Plan::Failed,
            Verdict::Perform => {}
        }
        // RFC 9110 §14.2: Range is defined for GET alone.
        let Some(value) = request.range.filter(|_| request.get) else { return Plan::Whole };
        if !conditional::range_counts(&request.conditions, validators, self.moment.now) {
            return Plan::Whole;
        }
        match range::parse(value, variant.content.size) {
            Wanted::All => Plan::Whole,
            Wanted::Some(ranges) => Plan::Parts(ranges),
            Wanted::Unsatisfiable => Plan::Unsatisfiable,
        }
    }

    /// The common case: the head is there but for two dates.
    fn whole(&self, request: &Request<'_>, variant: &Variant, mut head: Vec<u8>, outgoing: &mut Outgoing) -> Made {
        head.extend_from_slice(&variant.whole);
        head[DATE_AT..DATE_AT + 29].copy_from_slice(&self.moment.date);
        if variant.expires_at > 0 {
            head[variant.expires_at..variant.expires_at + 29].copy_from_slice(&self.moment.expires);
        }
        self.end_head(&mut head);
        let head_bytes = head.len();
        let body_bytes = if request.head_only { 0 } else { variant.content.size };
        push(outgoing, &mut head, &variant.content, 0..body_bytes);
        outgoing.push(Segment::Bytes(head));
        Made { status: 200, head_bytes, body_bytes }
    }

    fn any(
        &self,
        plan: &Plan,
        request: &Request<'_>,
        variant: &Variant,
        mut head: Vec<u8>,
        outgoing: &mut Outgoing,
    ) -> Made {
        let (status, parts) = match plan {
            Plan::Parts(ranges) => (206, ranges.as_slice()),
            Plan::NotModified => (304, &[][..]),
            _ => (200, &[][..]),
        };
        let size = variant.content.size;
        self.begin_head(&mut head, status);
        self.describe(&mut head, variant, status);
        let kind = self.content_type();
        let heads: Vec<Vec<u8>> = match parts {
            [] | [_] => Vec::new(),
            several => several.iter().map(|range| self.part_head(&kind, range, size)).collect(),
        };
        let mut length = match parts {
            [] => size,
            parts => parts.iter().map(|range| range.end - range.start).sum(),
        };
        if !heads.is_empty() {
            length += heads.iter().map(|head| head.len() as u64).sum::<u64>() + self.last_boundary().len() as u64;
        }
        if status != 304 {
            if heads.is_empty() {
                line(&mut head, b"Content-Type", &kind);
            } else {
                let kind = format!("multipart/byteranges; boundary={}", self.boundary_text());
                line(&mut head, b"Content-Type", kind.as_bytes());
            }
            if let [range] = parts {
                line(&mut head, b"Content-Range", content_range(range, size).as_bytes());
            }
            head.extend_from_slice(b"Content-Length: ");
            encode::decimal(&mut head, length);
            head.extend_from_slice(b"\r\n");
        }
        self.end_head(&mut head);
        let head_bytes = head.len();
        let body_bytes = if request.head_only || status == 304 { 0 } else { length };
        if body_bytes > 0 {
            match parts {
                [] => push(outgoing, &mut head, &variant.content, 0..size),
                [range] => push(outgoing, &mut head, &variant.content, range.clone()),
                several => {
                    for (part, range) in heads.iter().zip(several) {
                        head.extend_from_slice(part);
                        push(outgoing, &mut head, &variant.content, range.clone());
                    }
                    head.extend_from_slice(self.last_boundary().as_bytes());
                }
            }
        }
        outgoing.push(Segment::Bytes(head));
        Made { status, head_bytes, body_bytes }
    }

    fn refuse(
        &self,
        status: u16,
        extra: &str,
        request: &Request<'_>,
        mut buffer: Vec<u8>,
        outgoing: &mut Outgoing,
    ) -> Made {
        let text = format!("{status} {}\n", encode::reason(status));
        let (date, head_only) = (&self.moment.date, request.head_only);
        encode::plain_response(&mut buffer, status, &text, extra, date, self.keep_alive, self.version, head_only);
        let body_bytes = if head_only { 0 } else { text.len() };
        let head_bytes = buffer.len() - body_bytes;
        outgoing.push(Segment::Bytes(buffer));
        Made { status, head_bytes, body_bytes: body_bytes as u64 }
    }

    fn begin_head(&self, head: &mut Vec<u8>, status: u16) {
        head.extend_from_slice(b"HTTP/1.1 ");
        encode::decimal(head, u64::from(status));
        head.push(b' ');
        head.extend_from_slice(encode::reason(status).as_bytes());
        head.extend_from_slice(b"\r\n");
        if !self.given.is_some_and(|given| given.date) {
            line(head, b"Date", &self.moment.date);
        }
        if !self.given.is_some_and(|given| given.server) {
            line(head, b"Server", SERVER.as_bytes());
        }
    }

    /// Validators, and what may be done with the answer.
    fn describe(&self, head: &mut Vec<u8>, variant: &Variant, status: u16) {
        let given = self.given;
        match given {
            Some(given) if status == 304 => given.lines_of_304(head),
            Some(given) => head.extend_from_slice(&given.lines),
            None => {}
        }
        if !given.is_some_and(|given| given.has_modified) {
            line(head, b"Last-Modified", variant.modified_text.as_bytes());
        }
        if given.is_none_or(|given| given.etag.is_none()) {
            line(head, b"ETag", &variant.etag);
        }
        if variant.coding != Coding::Identity && status != 304 {
            line(head, b"Content-Encoding", variant.coding.name().as_bytes());
        }
        if self.record.varies() && !given.is_some_and(|given| given.encoded) {
            head.extend_from_slice(VARY);
        }
        // Said by the very answer in a 206.
        if status == 200 {
            head.extend_from_slice(ACCEPT_RANGES);
        }
        // How long a file may be kept that an application gives out is for the application to say.
        if given.is_none() {
            head.extend_from_slice(&self.settings.fields);
            if self.settings.expires {
                line(head, b"Expires", &self.moment.expires);
            }
        }
    }

    fn end_head(&self, head: &mut Vec<u8>) {
        // RFC 9112 §9.3: persistence is the default of 1.1 and has to be said in 1.0.
        head.extend_from_slice(match (self.keep_alive, self.version) {
            (false, _) => b"Connection: close\r\n\r\n",
            (true, Version::Http10) => b"Connection: keep-alive\r\n\r\n",
            (true, Version::Http11) => b"\r\n",
        });
    }

    fn content_type(&self) -> Cow<'_, [u8]> {
        let given = self.given.and_then(|given| given.content_type.as_deref());
        Cow::Borrowed(given.unwrap_or(self.record.content_type.as_bytes()))
    }

    fn boundary_text(&self) -> String {
        format!("{:032x}", self.boundary)
    }

    /// RFC 9110 §14.6.
    fn part_head(&self, kind: &[u8], range: &Range<u64>, size: u64) -> Vec<u8> {
        let mut head = format!("\r\n--{}\r\n", self.boundary_text()).into_bytes();
        line(&mut head, b"Content-Type", kind);
        line(&mut head, b"Content-Range", content_range(range, size).as_bytes());
        head.extend_from_slice(b"\r\n");
        head
    }

    fn last_boundary(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary_text())
    }
}

fn line(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// A stretch of the body: copied behind what is in `buffer` if it is small, otherwise put behind it.
fn push(outgoing: &mut Outgoing, buffer: &mut Vec<u8>, content: &Content, range: Range<u64>) {
    let length = range.end - range.start;
    if length == 0 {
        return;
    }
    match &content.body {
        Body::Memory(bytes) => {
            let range = range.start as usize..range.end as usize;
            if length <= limits::STATIC_COPY_BYTES_MAX as u64 {
                buffer.extend_from_slice(bytes.get(range).unwrap_or_default());
            } else {
                outgoing.push(Segment::Bytes(std::mem::take(buffer)));
                outgoing.push(Segment::Shared(Box::new(Held { bytes: Arc::clone(bytes), range })));
            }
        }
        Body::File(file) => {
            outgoing.push(Segment::Bytes(std::mem::take(buffer)));
            outgoing.push(Segment::File(FileRange {
                file: Arc::clone(file),
                offset: range.start,
                length,
                memory: None,
            }));
        }
    }
}
