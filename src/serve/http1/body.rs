//! Request bodies: Content-Length and chunked (RFC 9112 §6, §7.1). Finds where body bytes lie in what was received, and where the
//! body ends. Keeps no bytes; chunk extensions and trailer fields are checked and dropped.
//!
//! ```text
//!            ┌──────── Extension ───────┐
//!            │ ;                        ▼ CR
//! SizeStart ─┴► Size ──── CR ────────► SizeLf ── size > 0 ─► Data ─► DataCr ─► DataLf ─► SizeStart
//!                                        │ size = 0
//!                                        ▼
//!                    ┌────────────► TrailerStart ── CR ─► EndLf ─► Done
//!                    │                   │ token
//!                TrailerLf ◄─ CR ─ TrailerValue ◄─ ":" ─ TrailerName
//! ```
//! `Length` knows its bytes from the start and goes straight to `Done`; every fault leads to `Failed` and stays there.

use super::grammar::{is_control, is_token_byte};
use super::{Framing, Refusal};
use crate::limits::{CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// Decodes one body. Holds no body bytes.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Size of the chunk whose line is being read.
    chunk_size: u64,
    /// Bytes of the chunk-size line, or of the trailer section, so far.
    line_bytes: usize,
    /// Body bytes that may still be announced. Never grows.
    allowance: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Body bytes still to come, by Content-Length.
    Length(u64),
    SizeStart,
    Size,
    Extension,
    SizeLf,
    /// Bytes of this chunk still to come, more than zero.
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(Refusal),
}

/// What one step of decoding found at the start of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// `consumed` bytes of the input are done with, `data` (within them) belongs to the body.
    Data {
        /// Body bytes, never empty.
        data: &'a [u8],
        /// Bytes of input used up, framing included.
        consumed: usize,
    },
    /// All `consumed` bytes are done with, more are needed (the caller keeps none: partial framing is remembered inside).
    NeedMore {
        /// Always the whole input.
        consumed: usize,
    },
    /// The body has ended after `consumed` bytes; what follows is the next request.
    Done {
        /// Bytes of input used up.
        consumed: usize,
    },
}

impl BodyDecoder {
    /// A decoder for `framing` that refuses more than `bytes_max` bytes of body.
    ///
    /// # Errors
    /// `BodyTooLarge` at once if Content-Length says so.
    pub fn new(framing: Framing, bytes_max: u64) -> Result<Self, Refusal> {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(length) if length > bytes_max => return Err(Refusal::BodyTooLarge),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::SizeStart,
        };
        Ok(Self { state, chunk_size: 0, line_bytes: 0, allowance: bytes_max })
    }

    /// One step; call again with the rest of the input until `NeedMore` or `Done`.
    ///
    /// # Errors
    /// Malformed chunk framing (400), too large a body (413, as soon as a chunk size says so) or trailer section (431). The same
    /// fault again if called after one.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Refusal> {
        let mut at = 0;
        loop {
            match self.state {
                State::Length(0) | State::Done => {
                    self.state = State::Done;
                    return Ok(Step::Done { consumed: at });
                }
                State::Failed(refusal) => return Err(refusal),
                _ if at == input.len() => return Ok(Step::NeedMore { consumed: at }),
                State::Length(left) => {
                    let data = take(&input[at..], left);
                    self.state = State::Length(left - data.len() as u64);
                    return Ok(Step::Data { data, consumed: at + data.len() });
                }
                State::Data(left) => {
                    let data = take(&input[at..], left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    return Ok(Step::Data { data, consumed: at + data.len() });
                }
                state => {
                    self.state = self.next(state, input[at]).unwrap_or_else(State::Failed);
                    at += 1;
                }
            }
        }
    }

    /// Body bytes that are known to be still to come; `None` when that can't be known (chunked).
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// The state after one byte of chunk framing.
    fn next(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        match state {
            State::SizeStart | State::Size | State::Extension | State::SizeLf => self.next_in_chunk_line(state, byte),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => {
                self.chunk_size = 0;
                self.line_bytes = 0;
                Ok(State::SizeStart)
            }
            State::DataCr | State::DataLf => Err(Refusal::BadRequest("no CRLF after chunk data")),
            _ => self.next_in_trailer_section(state, byte),
        }
    }

    /// RFC 9112 §7.1: `1*HEXDIG [ chunk-ext ] CRLF`. The white space that §7.1.1 asks recipients to suffer around an extension's `;`
    /// is suffered after it, not before: servers have disagreed on what a size followed by a space means.
    fn next_in_chunk_line(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(Refusal::BadRequest("chunk-size line too long"));
        }
        match (state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.chunk_size >> 60 != 0 {
                    return Err(Refusal::BadRequest("chunk size out of range"));
                }
                let digit = char::from(byte).to_digit(16).expect("matched as a hexadecimal digit");
                self.chunk_size = self.chunk_size << 4 | u64::from(digit);
                Ok(State::Size)
            }
            (State::Size, b'\r' | b';') => {
                self.allowance = self.allowance.checked_sub(self.chunk_size).ok_or(Refusal::BodyTooLarge)?;
                Ok(if byte == b';' { State::Extension } else { State::SizeLf })
            }
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, _) if !is_control(byte) => Ok(State::Extension),
            (State::Extension, _) => Err(Refusal::BadRequest("control character in a chunk extension")),
            (State::SizeLf, b'\n') if self.chunk_size > 0 => Ok(State::Data(self.chunk_size)),
            (State::SizeLf, b'\n') => {
                self.line_bytes = 0;
                Ok(State::TrailerStart)
            }
            (State::SizeLf, _) => Err(Refusal::BadRequest("bare CR in a chunk-size line")),
            _ => Err(Refusal::BadRequest("malformed chunk size")),
        }
    }

    /// RFC 9112 §7.1.2: field lines, then an empty line. All of them are dropped, so one that has no business in a trailer section
    /// (Content-Length, Transfer-Encoding, Host; RFC 9110 §6.5.1) can do no harm and isn't looked for.
    fn next_in_trailer_section(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        self.line_bytes += 1;
        if self.line_bytes > TRAILER_BYTES_MAX {
            return Err(Refusal::HeadTooLarge);
        }
        match (state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => Ok(State::TrailerName),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if !is_control(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => Err(Refusal::BadRequest("malformed trailer field")),
        }
    }
}

/// The first `left` bytes of `input`, or all of it.
fn take(input: &[u8], left: u64) -> &[u8] {
    &input[..usize::try_from(left).map_or(input.len(), |left| left.min(input.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Body, bytes used, and whether it is complete; or the fault.
    type Outcome = Result<(Vec<u8>, usize, bool), Refusal>;

    /// Decodes `input` as if it arrived in pieces that end at `ends` (and at its end).
    fn decode_in_pieces(
        framing: Framing,
        bytes_max: u64,
        input: &[u8],
        ends: impl IntoIterator<Item = usize>,
    ) -> Outcome {
        let mut decoder = BodyDecoder::new(framing, bytes_max)?;
        let (mut body, mut used) = (Vec::new(), 0);
        for end in ends.into_iter().map(|end| end.min(input.len())).chain([input.len()]) {
            while used <= end {
                let piece = &input[used..end];
                match decoder.decode(piece)? {
                    Step::Data { data, consumed } => {
                        assert!(!data.is_empty() && data.as_ptr_range().end == piece[..consumed].as_ptr_range().end);
                        body.extend_from_slice(data);
                        assert!(body.len() as u64 <= bytes_max);
                        used += consumed;
                    }
                    Step::NeedMore { consumed } => {
                        assert_eq!(consumed, piece.len());
                        used += consumed;
                        break;
                    }
                    Step::Done { consumed } => {
                        assert_eq!(decoder.remaining(), Some(0));
                        assert_eq!(decoder.decode(b"next"), Ok(Step::Done { consumed: 0 }));
                        return Ok((body, used + consumed, true));
                    }
                }
            }
        }
        Ok((body, used, false))
    }

    /// Whole and byte by byte, which must agree.
    fn decode(framing: Framing, bytes_max: u64, input: &str) -> Outcome {
        let whole = decode_in_pieces(framing, bytes_max, input.as_bytes(), []);
        assert_eq!(
            decode_in_pieces(framing, bytes_max, input.as_bytes(), 1..input.len()),
            whole,
            "byte by byte: {input:?}"
        );
        whole
    }

    /// A complete chunked body, and the bytes left behind it.
    fn chunked(input: &str, body: &str, rest: &str) {
        assert_eq!(
            decode(Framing::Chunked, 1000, input),
            Ok((body.into(), input.len() - rest.len(), true)),
            "{input:?}"
        );
    }

    fn bad(input: &str, reason: &'static str) {
        assert_eq!(decode(Framing::Chunked, 1000, input), Err(Refusal::BadRequest(reason)), "{input:?}");
    }

    #[test]
    fn no_body_and_content_length_rfc_9112_6_3() {
        assert_eq!(decode(Framing::None, 0, "next"), Ok((vec![], 0, true)));
        assert_eq!(decode(Framing::Length(0), 0, "next"), Ok((vec![], 0, true)));
        assert_eq!(decode(Framing::Length(5), 5, "hellonext"), Ok((b"hello".to_vec(), 5, true)));
        assert_eq!(decode(Framing::Length(5), 5, "hell"), Ok((b"hell".to_vec(), 4, false)));
        assert_eq!(decode(Framing::Length(u64::MAX), u64::MAX, "x"), Ok((b"x".to_vec(), 1, false)));
    }

    #[test]
    fn what_remains_is_known_for_a_length_only() {
        let mut decoder = BodyDecoder::new(Framing::Length(5), 5).unwrap();
        assert_eq!(decoder.remaining(), Some(5));
        decoder.decode(b"abc").unwrap();
        assert_eq!(decoder.remaining(), Some(2));
        assert_eq!(BodyDecoder::new(Framing::Chunked, 5).unwrap().remaining(), None);
    }

    #[test]
    fn chunks_rfc_9112_7_1() {
        chunked("0\r\n\r\n", "", "");
        chunked("5\r\nhello\r\n6\r\n world\r\n000\r\n\r\nGET", "hello world", "GET");
        chunked("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", "");
        chunked("00000000000000000000000005\r\n\r\n\r\n\0\r\n0\r\n\r\n", "\r\n\r\n\0", "");
        for input in [
            "",
            "5",
            "5\r",
            "5\r\n",
            "5\r\nhello",
            "5\r\nhello\r",
            "5\r\nhello\r\n",
            "0\r\n",
            "0\r\n\r",
            "0\r\nA: b\r\n",
        ] {
            let (_, used, complete) = decode(Framing::Chunked, 1000, input).unwrap();
            assert!(used == input.len() && !complete, "{input:?}");
        }
    }

    #[test]
    fn chunk_sizes_are_hexadecimal_digits_and_nothing_else() {
        for size in [
            "", " 5", "\t5", "5 ", "5\t", "+5", "-5", "0x5", "x", "6_0", "5.", "5,", "5\n", "\n", "é", "5 ;a", " ;a",
            ";a",
        ] {
            bad(&format!("{size}\r\nhello\r\n0\r\n\r\n"), "malformed chunk size");
        }
        bad("5\rX", "bare CR in a chunk-size line");
        bad("5\r\r\n", "bare CR in a chunk-size line");
        bad("10000000000000000\r\n", "chunk size out of range");
        bad("ffffffffffffffff0\r\n", "chunk size out of range");
        assert_eq!(decode(Framing::Chunked, u64::MAX, "ffffffffffffffff\r\nx"), Ok((b"x".to_vec(), 19, false)));
    }

    #[test]
    fn chunk_extensions_are_checked_and_dropped_rfc_9112_7_1_1() {
        chunked("5;a\r\nhello\r\n0;b=c\r\n\r\n", "hello", "");
        chunked("5; some; p=\"q \t;é\"\r\nhello\r\n0\r\n\r\n", "hello", "");
        for extension in [";a\n", ";a\0", ";\x07", ";\x7f"] {
            bad(&format!("5{extension}\r\nhello\r\n0\r\n\r\n"), "control character in a chunk extension");
        }
        bad("5;a\rb\r\nhello\r\n", "bare CR in a chunk-size line");
        let line = |bytes: usize| format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(bytes - 4));
        chunked(&line(CHUNK_LINE_BYTES_MAX), "hello", "");
        bad(&line(CHUNK_LINE_BYTES_MAX + 1), "chunk-size line too long");
        // The bound is for each line.
        chunked(&line(CHUNK_LINE_BYTES_MAX).replace("0\r\n\r\n", &line(CHUNK_LINE_BYTES_MAX)), "hellohello", "");
    }

    #[test]
    fn chunk_data_is_followed_by_crlf() {
        for end in ["x\r\n", "\n", "\rx", "\r\r\n", "0\r\n\r\n"] {
            bad(&format!("5\r\nhello{end}0\r\n\r\n"), "no CRLF after chunk data");
        }
    }

    #[test]
    fn trailers_are_checked_and_dropped_rfc_9112_7_1_2() {
        chunked("0\r\nVary: *\r\nX-Empty:\r\nContent-Length: 99\r\n\r\nrest", "", "rest");
        for trailer in [
            "A b: c",
            "A : b",
            " a: b",
            "A",
            ": b",
            "A: \0",
            "A: b\nC: d",
            "A: b\rC",
            "A: b\r\n c",
            "\n",
            "\rx",
            "A(: b",
        ] {
            bad(&format!("0\r\n{trailer}\r\n\r\n"), "malformed trailer field");
        }
        let section = |bytes: usize| format!("0\r\nA: {}\r\n\r\n", "x".repeat(bytes - 7));
        chunked(&section(TRAILER_BYTES_MAX), "", "");
        assert_eq!(decode(Framing::Chunked, 0, &section(TRAILER_BYTES_MAX + 1)), Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn bodies_too_large_are_refused_before_their_bytes_come() {
        assert_eq!(decode(Framing::Length(6), 5, ""), Err(Refusal::BodyTooLarge));
        assert_eq!(decode(Framing::Chunked, 5, "6\r"), Err(Refusal::BodyTooLarge));
        assert_eq!(decode(Framing::Chunked, 5, "6;"), Err(Refusal::BodyTooLarge));
        assert_eq!(decode(Framing::Chunked, 5, "3\r\nabc\r\n3\r\nabc\r\n"), Err(Refusal::BodyTooLarge));
        assert_eq!(decode(Framing::Chunked, 5, "3\r\nabc\r\nffffffffffffffff\r\n"), Err(Refusal::BodyTooLarge));
        assert_eq!(decode(Framing::Chunked, 5, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), Ok((b"abcde".to_vec(), 20, true)));
    }

    #[test]
    fn a_fault_stays_a_fault() {
        let mut decoder = BodyDecoder::new(Framing::Chunked, 5).unwrap();
        let fault = Err(Refusal::BadRequest("malformed chunk size"));
        assert_eq!(decoder.decode(b"z"), fault);
        assert_eq!(decoder.decode(b"0\r\n\r\n"), fault);
        assert_eq!(decoder.decode(b""), fault);
        assert_eq!(decoder.remaining(), None);
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let texts = [
            "5\r\nhello\r\n",
            "1;a=b\r\nx\r\n",
            "0\r\n",
            "\r\n",
            "A: b\r\n",
            "a\r\n0123456789\r\n",
            "\r",
            "\n",
            ";",
            " ",
            "3",
            "ffffffffffffffff",
        ];
        let piece = prop_oneof![
            20 => proptest::sample::select(texts.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..20),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            input in pieces(),
            framing in prop_oneof![8 => Just(Framing::Chunked), 1 => (0..40u64).prop_map(Framing::Length)],
            bytes_max in 0..40u64,
            mut ends in proptest::collection::vec(0..100usize, 0..12),
        ) {
            ends.sort_unstable();
            let whole = decode_in_pieces(framing, bytes_max, &input, []);
            prop_assert_eq!(&decode_in_pieces(framing, bytes_max, &input, ends), &whole);
            prop_assert_eq!(&decode_in_pieces(framing, bytes_max, &input, 0..input.len()), &whole);
        }

        #[test]
        fn what_was_sent_is_what_is_read(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6)) {
            let mut sent = Vec::new();
            for chunk in &chunks {
                crate::serve::http1::encode::chunk_start(&mut sent, chunk.len());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(crate::serve::http1::encode::LAST_CHUNK);
            let length = sent.len();
            sent.extend_from_slice(b"GET / HTTP/1.1\r\n");
            prop_assert_eq!(decode_in_pieces(Framing::Chunked, 1000, &sent, []), Ok((chunks.concat(), length, true)));
        }
    }
}
