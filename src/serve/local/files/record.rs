//! A file as it can be sent: its bytes or its descriptor, its validators, the fields that tell of it. Made once per state of a file.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::encoding::Coding;
use super::settings::Settings;
use super::types;
use crate::reactor::SharedBytes;
use crate::reactor::open::Stat;
use crate::serve::http1::encode::{self, SERVER};

/// Where the bytes are.
#[derive(Clone, Debug)]
pub enum Body {
    /// Here: at most [`crate::limits::STATIC_MEMORY_FILE_BYTES_MAX`].
    Memory(Arc<[u8]>),
    /// In the file, which is kept open.
    File(Arc<File>),
}

/// A stretch of a small file on its way to a client.
pub struct Held {
    /// The file.
    pub bytes: Arc<[u8]>,
    /// Within it.
    pub range: Range<usize>,
}

impl SharedBytes for Held {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// What was read or opened.
#[derive(Clone, Debug)]
pub struct Content {
    /// The file's state when it was opened.
    pub stat: Stat,
    /// Bytes.
    pub size: u64,
    /// Where they are.
    pub body: Body,
}

/// One form of a file.
#[derive(Debug)]
pub struct Variant {
    /// Its content.
    pub content: Content,
    /// How it is encoded.
    pub coding: Coding,
    /// ETag with its quotes: strong, and not that of another form.
    pub etag: Vec<u8>,
    /// Last-Modified.
    pub modified: u64,
    /// The same, rendered.
    pub modified_text: String,
    /// The head of a 200 with the whole of it, up to where Connection may stand. [`DATE_AT`] and `expires_at` are to be filled in.
    pub whole: Vec<u8>,
    /// Where in `whole` the value of Expires stands; 0: there is none.
    pub expires_at: usize,
}

/// Where in [`Variant::whole`] the value of Date stands.
pub const DATE_AT: usize = DATE_BEFORE.len();
const DATE_BEFORE: &[u8] = b"HTTP/1.1 200 OK\r\nDate: ";
/// Room for a date (RFC 9110 §5.6.7 IMF-fixdate).
const DATE_ROOM: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";

/// A file and its precompressed siblings.
#[derive(Debug)]
pub struct Record {
    /// In the order of [`Coding::ALL`]; the last is the file itself.
    pub variants: [Option<Variant>; 4],
    /// Content-Type, of all forms.
    pub content_type: String,
}

impl Record {
    /// `contents` in the order of [`Coding::ALL`]. `name`: what the type is told from. `now`: no file was modified later than that
    /// (RFC 9110 §8.8.2.1).
    pub fn new(contents: [Option<Content>; 4], name: &[u8], settings: &Settings, now: u64) -> Self {
        let content_type = types::content_type(name);
        let varies = contents[..3].iter().any(Option::is_some);
        let mut at = 0;
        let variants = contents.map(|content| {
            let coding = Coding::ALL[at];
            at += 1;
            content.map(|content| Variant::new(content, coding, &content_type, varies, settings, now))
        });
        Self { variants, content_type }
    }

    /// Which forms there are.
    pub fn available(&self) -> [bool; 4] {
        [0, 1, 2, 3].map(|at| self.variants[at].is_some())
    }

    /// Whether the answer depends on Accept-Encoding.
    pub fn varies(&self) -> bool {
        self.variants[..3].iter().any(Option::is_some)
    }

    /// This form, or the file itself. `None` only for a record without a file, which nobody makes.
    pub fn variant(&self, coding: Coding) -> Option<&Variant> {
        self.variants[coding as usize].as_ref().or(self.variants[Coding::Identity as usize].as_ref())
    }

    /// Bytes held in memory.
    pub fn memory(&self) -> usize {
        let bytes = |variant: &Variant| match &variant.content.body {
            Body::Memory(bytes) => bytes.len() + variant.whole.len(),
            Body::File(_) => variant.whole.len(),
        };
        self.variants.iter().flatten().map(bytes).sum()
    }

    /// Descriptors held open.
    pub fn descriptors(&self) -> usize {
        self.variants.iter().flatten().filter(|variant| matches!(variant.content.body, Body::File(_))).count()
    }

    /// The files it keeps open.
    pub fn files(&self) -> impl Iterator<Item = Arc<File>> {
        self.variants.iter().flatten().filter_map(|variant| match &variant.content.body {
            Body::File(file) => Some(Arc::clone(file)),
            Body::Memory(_) => None,
        })
    }

    /// The states of the files it is made of.
    pub fn stats(&self) -> [Option<Stat>; 4] {
        self.variants.each_ref().map(|variant| variant.as_ref().map(|variant| variant.content.stat))
    }
}

impl Variant {
    fn new(content: Content, coding: Coding, kind: &str, varies: bool, settings: &Settings, now: u64) -> Self {
        let (seconds, nanoseconds) = content.stat.modified;
        let modified = u64::try_from(seconds).unwrap_or(0).min(now);
        let modified_text = http_date(modified);
        let mut etag = format!("\"{seconds:x}.{nanoseconds:x}-{:x}", content.size);
        if coding != Coding::Identity {
            etag.push('-');
            etag.push_str(coding.name());
        }
        etag.push('"');
        let mut whole = DATE_BEFORE.to_vec();
        whole.extend_from_slice(DATE_ROOM);
        whole.extend_from_slice(format!("\r\nServer: {SERVER}\r\n").as_bytes());
        whole.extend_from_slice(format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", content.size).as_bytes());
        whole.extend_from_slice(format!("Last-Modified: {modified_text}\r\nETag: {etag}\r\n").as_bytes());
        if coding != Coding::Identity {
            whole.extend_from_slice(format!("Content-Encoding: {}\r\n", coding.name()).as_bytes());
        }
        if varies {
            whole.extend_from_slice(VARY);
        }
        whole.extend_from_slice(ACCEPT_RANGES);
        whole.extend_from_slice(&settings.fields);
        let mut expires_at = 0;
        if settings.expires {
            whole.extend_from_slice(b"Expires: ");
            expires_at = whole.len();
            whole.extend_from_slice(DATE_ROOM);
            whole.extend_from_slice(b"\r\n");
        }
        Self { content, coding, etag: etag.into_bytes(), modified, modified_text, whole, expires_at }
    }
}

/// The answer depends on Accept-Encoding.
pub const VARY: &[u8] = b"Vary: Accept-Encoding\r\n";
/// Ranges are understood.
pub const ACCEPT_RANGES: &[u8] = b"Accept-Ranges: bytes\r\n";

fn http_date(seconds: u64) -> String {
    let mut text = encode::DateText::default();
    text.at(seconds).iter().map(|&byte| char::from(byte)).collect()
}
