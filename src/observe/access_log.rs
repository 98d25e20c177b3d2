//! One response, one line, in wsgo's format:
//!
//! `IP P:W - [21/Nov/2026:03:04:05 +0000] "METHOD TARGET VERSION" STATUS - "REFERER" "USER-AGENT" 12ms 3ms 1000`
//!
//! Pure: values in, bytes out, nothing allocated. Where the lines go is [`super::writer`]'s business.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::calendar::Moment;

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The client's address, as of [`super::client::client`]; `None` (a Unix socket's peer) is written `-`.
    pub client: Option<IpAddr>,
    /// Number of the process, from 1.
    pub process: u32,
    /// Number of the worker that ran the application, from 1; 0 if none did.
    pub worker: u32,
    /// As sent; empty when the request line couldn't be understood.
    pub method: &'a [u8],
    /// The request-target as sent.
    pub target: &'a [u8],
    /// `HTTP/1.1`.
    pub version: &'a [u8],
    /// As sent to the client.
    pub status: u16,
    /// The Referer field.
    pub referer: Option<&'a [u8]>,
    /// The User-Agent field.
    pub user_agent: Option<&'a [u8]>,
    /// From the first byte of the request to the last of the response.
    pub wall: Duration,
    /// CPU time of the worker's thread.
    pub cpu: Duration,
    /// Priority the request was scheduled with.
    pub priority: i32,
}

impl Line<'_> {
    /// Appends the line with its line feed. `time` is what [`LocalTime::at`] gave.
    ///
    /// Bytes that could end a quoted part or the line, or confuse a terminal, are written as `\xHH`, as nginx does.
    pub fn append(&self, time: &[u8], out: &mut Vec<u8>) {
        match self.client.map(|address| address.to_canonical()) {
            None => out.push(b'-'),
            // Writing to a vector can't fail, and Display of an address doesn't allocate.
            Some(address) => drop(write!(out, "{address}")),
        }
        out.push(b' ');
        decimal(out, self.process.into());
        out.push(b':');
        decimal(out, self.worker.into());
        out.extend_from_slice(b" - [");
        out.extend_from_slice(time);
        out.extend_from_slice(b"] \"");
        if self.method.is_empty() {
            out.push(b'-');
        } else {
            escaped(out, self.method);
            out.push(b' ');
            escaped(out, self.target);
            out.push(b' ');
            escaped(out, self.version);
        }
        out.extend_from_slice(b"\" ");
        decimal(out, self.status.into());
        out.extend_from_slice(b" - \"");
        escaped(out, self.referer.unwrap_or(b"-"));
        out.extend_from_slice(b"\" \"");
        escaped(out, self.user_agent.unwrap_or(b"-"));
        out.extend_from_slice(b"\" ");
        milliseconds(out, self.wall);
        out.push(b' ');
        milliseconds(out, self.cpu);
        out.push(b' ');
        if self.priority < 0 {
            out.push(b'-');
        }
        decimal(out, self.priority.unsigned_abs().into());
        out.push(b'\n');
    }
}

/// The bracketed time, rendered once per second.
#[derive(Debug)]
pub struct LocalTime {
    second: u64,
    text: [u8; 26],
}

impl LocalTime {
    /// One that has rendered nothing yet.
    pub const fn new() -> Self {
        Self { second: u64::MAX, text: [b'-'; 26] }
    }

    /// `dd/Mon/yyyy:HH:MM:SS ±zzzz` of that second. `offset` tells how many seconds east of UTC local time is then
    /// ([`crate::reactor::clock::local_offset`]); it is asked when the second has changed only.
    pub fn at(&mut self, unix_seconds: u64, offset: impl FnOnce(u64) -> i32) -> &[u8] {
        if self.second != unix_seconds {
            self.second = unix_seconds;
            self.text = Moment::new(unix_seconds, offset(unix_seconds)).common_log();
        }
        &self.text
    }
}

impl Default for LocalTime {
    fn default() -> Self {
        Self::new()
    }
}

/// Whole milliseconds, rounded down as wsgo does.
fn milliseconds(out: &mut Vec<u8>, duration: Duration) {
    decimal(out, u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    out.extend_from_slice(b"ms");
}

fn decimal(out: &mut Vec<u8>, mut number: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let mut rest = text;
    // Nearly always there is nothing to escape, and this is one copy.
    while let Some(position) = rest.iter().position(|byte| !is_plain(byte)) {
        let byte = rest[position];
        out.extend_from_slice(&rest[..position]);
        out.extend_from_slice(&[b'\\', b'x', HEXADECIMAL[usize::from(byte >> 4)], HEXADECIMAL[usize::from(byte & 15)]]);
        rest = &rest[position + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: &[u8] = b"TIME";

    fn line() -> Line<'static> {
        Line {
            client: Some("192.0.2.1".parse().unwrap()),
            process: 1,
            worker: 16,
            method: b"GET",
            target: b"/a?b=c",
            version: b"HTTP/1.1",
            status: 200,
            referer: Some(b"http://e.com/"),
            user_agent: Some(b"curl/8"),
            wall: Duration::from_micros(12_999),
            cpu: Duration::from_micros(3_000),
            priority: 1000,
        }
    }

    fn text(line: &Line) -> String {
        let mut out = Vec::new();
        line.append(TIME, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines() {
        let check = |line: Line, expected: &str| assert_eq!(text(&line), format!("{expected}\n"));
        check(line(), r#"192.0.2.1 1:16 - [TIME] "GET /a?b=c HTTP/1.1" 200 - "http://e.com/" "curl/8" 12ms 3ms 1000"#);
        check(
            Line {
                client: None,
                process: 0,
                worker: 0,
                referer: None,
                user_agent: None,
                wall: Duration::ZERO,
                cpu: Duration::ZERO,
                priority: i32::MIN,
                ..line()
            },
            r#"- 0:0 - [TIME] "GET /a?b=c HTTP/1.1" 200 - "-" "-" 0ms 0ms -2147483648"#,
        );
        check(
            Line { client: Some("2001:db8::1".parse().unwrap()), wall: Duration::MAX, method: b"", ..line() },
            r#"2001:db8::1 1:16 - [TIME] "-" 200 - "http://e.com/" "curl/8" 18446744073709551615ms 3ms 1000"#,
        );
        check(
            Line {
                client: Some("::ffff:192.0.2.1".parse().unwrap()),
                target: b"/\"\\\r\n\x7f\xc3~ ",
                user_agent: Some(b"\x1b[31m\""),
                referer: Some(b""),
                ..line()
            },
            r#"192.0.2.1 1:16 - [TIME] "GET /\x22\x5C\x0D\x0A\x7F\xC3~  HTTP/1.1" 200 - "" "\x1B[31m\x22" 12ms 3ms 1000"#,
        );
    }

    #[test]
    fn the_time_is_rendered_once_per_second() {
        let mut time = LocalTime::new();
        assert_eq!(time.at(1_795_230_245, |_| 0), b"21/Nov/2026:03:04:05 +0000");
        assert_eq!(time.at(1_795_230_245, |_| panic!("it is known")), b"21/Nov/2026:03:04:05 +0000");
        assert_eq!(time.at(1_795_230_246, |_| 3600), b"21/Nov/2026:04:04:06 +0100");
    }

    proptest! {
        /// Whatever a client sends, it is one line with three quoted parts of printable ASCII.
        #[test]
        fn nothing_forges_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let quoted = Some(&bytes[..]);
            let line = Line { target: &bytes, referer: quoted, user_agent: quoted, ..line() };
            let text = text(&line);
            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert_eq!(text.matches('"').count(), 6);
            prop_assert!(text.trim_end_matches('\n').bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }

        #[test]
        fn numbers_are_written_in_full(number: u64) {
            let mut out = Vec::new();
            decimal(&mut out, number);
            prop_assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
