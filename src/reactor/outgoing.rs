//! Bytes on their way out: an ordered queue of owned, shared and file segments.
//!
//! An [`Outgoing`] is handed whole to a driver and comes back with the completion, so the memory a
//! kernel operation points at is always owned by whoever has the operation in flight. It sends nothing itself.

use std::any::Any;
use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::sync::Arc;

use crate::limits;

/// Bytes owned elsewhere (a Python object, a cache entry). Dropping gives them back; that must not block.
pub trait SharedBytes: Send {
    /// The bytes; the same place and length at every call.
    fn as_slice(&self) -> &[u8];
}

/// A stretch of a file.
#[derive(Debug)]
pub struct FileRange {
    /// The open file; its own position is never moved.
    pub file: Arc<File>,
    /// Where the next byte to send stands.
    pub offset: u64,
    /// Bytes still to send from there.
    pub length: u64,
    /// Of a file that is memory, never to be waited for: what counts that memory as in use.
    pub memory: Option<Arc<dyn Any + Send + Sync>>,
}

/// One piece of a response.
pub enum Segment {
    /// Owned bytes.
    Bytes(Vec<u8>),
    /// Bytes owned elsewhere.
    Shared(Box<dyn SharedBytes>),
    /// A stretch of a file, sent with sendfile(2).
    File(FileRange),
}

impl Segment {
    /// Bytes in this segment.
    pub fn len(&self) -> u64 {
        match self {
            Segment::Bytes(bytes) => bytes.len() as u64,
            Segment::Shared(shared) => shared.as_slice().len() as u64,
            Segment::File(range) => range.length,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn memory(&self) -> Option<&[u8]> {
        match self {
            Segment::Bytes(bytes) => Some(bytes),
            Segment::Shared(shared) => Some(shared.as_slice()),
            Segment::File(_) => None,
        }
    }
}

/// A queue of segments and how far the first of them has been sent.
#[derive(Default)]
pub struct Outgoing {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment already sent; `0 <= at < segments[0].len()`, 0 when it is a file (its range is moved instead).
    at: usize,
    /// Bytes not sent yet. Counted, because a driver asks for it at each step, and a response can be in very many pieces.
    remaining: u64,
    /// Bytes of a file that a step sends at most, if not [`limits::SENDFILE_STEP_BYTES`].
    file_step: Option<usize>,
}

impl Outgoing {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a segment last. Empty segments are left out.
    pub fn push(&mut self, segment: Segment) {
        let bytes = segment.len();
        if bytes > 0 {
            self.remaining += bytes;
            self.segments.push_back(segment);
        }
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Segments in it.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Appends to `out` what the segments from number `from` on hold, without the first `skip` bytes of that. False, with `out` in
    /// some state, if one of them is a file or if `out` would get longer than `bytes_max`.
    pub fn copy_out(&self, from: usize, mut skip: usize, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        for segment in self.segments.iter().skip(from) {
            let Some(bytes) = segment.memory() else { return false };
            let bytes = &bytes[skip.min(bytes.len())..];
            skip -= skip.min(segment.len() as usize);
            if bytes.len() > bytes_max.saturating_sub(out.len()) {
                return false;
            }
            out.extend_from_slice(bytes);
        }
        true
    }

    /// The first segment, if it is owned bytes of which nothing has been sent.
    pub fn front_owned(&self) -> Option<&[u8]> {
        match self.segments.front() {
            Some(Segment::Bytes(bytes)) if self.at == 0 => Some(bytes),
            _ => None,
        }
    }

    /// Puts bytes into the first segment, before its byte number `at`, if it is owned bytes of which nothing has been sent and which
    /// are as many. Whether it was possible.
    pub fn insert_in_front(&mut self, at: usize, insert: &[u8]) -> bool {
        match self.segments.front_mut() {
            Some(Segment::Bytes(bytes)) if self.at == 0 && at <= bytes.len() => {
                bytes.splice(at..at, insert.iter().copied());
                self.remaining += insert.len() as u64;
                true
            }
            _ => false,
        }
    }

    /// Bytes not sent yet.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The file stretch that is next, if a file is next.
    pub fn front_file(&self) -> Option<&FileRange> {
        match self.segments.front() {
            Some(Segment::File(range)) => Some(range),
            _ => None,
        }
    }

    /// The file stretch that is next, or that the memory in front leads to, and how many bytes of memory are before it. `None` as well
    /// if those are more pieces than fit into one send.
    pub fn leading_file(&self) -> Option<(u64, &FileRange)> {
        let mut before = 0;
        for segment in self.segments.iter().take(limits::SEND_SEGMENTS_MAX + 1) {
            if let Segment::File(range) = segment {
                return Some((before - self.at as u64, range));
            }
            before += segment.len();
        }
        None
    }

    /// Bytes of a file that the next step sends at most.
    pub fn file_step(&self) -> usize {
        self.file_step.unwrap_or(limits::SENDFILE_STEP_BYTES)
    }

    /// Bounds the next steps: no more is known to be in the page cache.
    pub fn set_file_step(&mut self, bytes: usize) {
        self.file_step = Some(bytes);
    }

    /// The bytes of the first segment that are not sent yet, if memory is next.
    pub fn front_bytes(&self) -> Option<&[u8]> {
        self.segments.front().and_then(Segment::memory).map(|bytes| &bytes[self.at..])
    }

    /// Fills `slices` with the memory segments up to the first file, and says how many were set.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (index, segment) in self.segments.iter().enumerate().take(slices.len()) {
            let Some(bytes) = segment.memory() else { break };
            slices[count] = IoSlice::new(if index == 0 { &bytes[self.at..] } else { bytes });
            count += 1;
        }
        count
    }

    /// Marks `sent` bytes as sent, dropping finished segments.
    ///
    /// # Panics
    /// If more is marked than there is: a driver reported bytes it can't have sent.
    pub fn advance(&mut self, mut sent: u64) {
        self.remaining = self.remaining.saturating_sub(sent);
        while sent > 0 {
            let front = self.segments.front_mut().expect("a driver sends no more than it was given");
            if let Segment::File(range) = front {
                let step = sent.min(range.length);
                range.offset += step;
                range.length -= step;
                sent -= step;
                if range.length > 0 {
                    return;
                }
            } else {
                let left = front.len() - self.at as u64;
                if sent < left {
                    self.at += sent as usize;
                    return;
                }
                sent -= left;
            }
            self.at = 0;
            self.segments.pop_front();
        }
    }

    /// Drops what is left. The room of a response in very many pieces is given back.
    pub fn clear(&mut self) {
        self.remaining = 0;
        self.segments.clear();
        self.segments.shrink_to(limits::SEND_SEGMENTS_MAX);
        self.at = 0;
    }

    /// Empties the queue as sent, and gives back the buffer of a queue that held just one owned segment.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        (self.at, self.remaining) = (0, 0);
        let only = if self.segments.len() == 1 { self.segments.pop_front() } else { None };
        self.segments.clear();
        match only {
            Some(Segment::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_can_be_copied_and_added_to() {
        let mut outgoing = Outgoing::new();
        for part in ["head", "body", "more"] {
            outgoing.push(Segment::Bytes(part.as_bytes().to_vec()));
        }
        let copied = |outgoing: &Outgoing, from, skip, most| {
            let mut out = Vec::new();
            outgoing.copy_out(from, skip, &mut out, most).then_some(out)
        };
        assert_eq!(copied(&outgoing, 0, 0, 12), Some(b"headbodymore".to_vec()));
        assert_eq!(copied(&outgoing, 0, 4, 8), Some(b"bodymore".to_vec()));
        assert_eq!(copied(&outgoing, 0, 6, 8), Some(b"dymore".to_vec()));
        assert_eq!(copied(&outgoing, 2, 0, 4), Some(b"more".to_vec()));
        assert_eq!((copied(&outgoing, 0, 0, 11), copied(&outgoing, 3, 0, 0)), (None, Some(Vec::new())));
        assert!(outgoing.insert_in_front(2, b"--") && !outgoing.insert_in_front(7, b""));
        assert_eq!((outgoing.front_owned(), outgoing.remaining(), outgoing.segments()), (Some(&b"he--ad"[..]), 14, 3));
        outgoing.advance(1);
        assert!(!outgoing.insert_in_front(2, b"") && outgoing.front_owned().is_none());
        let file = Arc::new(File::open("/proc/version").expect("a file"));
        outgoing.push(Segment::File(FileRange { file, offset: 0, length: 5, memory: None }));
        assert_eq!(copied(&outgoing, 0, 0, 100), None);
    }

    #[test]
    fn what_remains_is_what_is_in_the_segments() {
        let file = Arc::new(File::open("/proc/version").expect("a file"));
        let mut outgoing = Outgoing::new();
        for _ in 0..3 {
            outgoing.push(Segment::Bytes(vec![0; 10]));
            outgoing.push(Segment::Bytes(Vec::new()));
            outgoing.push(Segment::File(FileRange { file: Arc::clone(&file), offset: 0, length: 5, memory: None }));
        }
        for sent in [0, 3, 7, 2, 4, 10, 1] {
            let before = outgoing.remaining();
            outgoing.advance(sent);
            assert_eq!(outgoing.remaining(), before - sent);
            let listed = outgoing.segments.iter().map(Segment::len).sum::<u64>() - outgoing.at as u64;
            assert_eq!(outgoing.remaining(), listed);
        }
        outgoing.advance(outgoing.remaining());
        assert!(outgoing.is_empty());
        outgoing.push(Segment::Bytes(vec![0; 10]));
        outgoing.advance(4);
        assert_eq!((outgoing.finish().map(|buffer| buffer.len()), outgoing.remaining()), (Some(10), 0));
        outgoing.push(Segment::Bytes(vec![0; 10]));
        outgoing.clear();
        assert_eq!(outgoing.remaining(), 0);
    }
}
