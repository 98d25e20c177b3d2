//! Response heads, chunk framing, error responses: from meaning to bytes, appended to a buffer. Doesn't decide which fields a response
//! has, and reads no clock: the caller says what time it is.

use std::time::{Duration, UNIX_EPOCH};

use super::{Refusal, Version};

pub use super::grammar::{is_field_value, is_token};

/// Interim response for `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// The last chunk, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The `Server` field's value.
pub const SERVER: &str = "hoopsnake";

/// The last second of the year 9999: what IMF-fixdate can say (RFC 9110 §5.6.7: four digits of year).
const DATE_SECONDS_MAX: u64 = 253_402_300_799;

/// The `Date` field's value, rendered once per second (RFC 9110 §5.6.7 IMF-fixdate).
#[derive(Debug)]
pub struct DateText {
    unix_seconds: u64,
    text: [u8; 29],
}

impl Default for DateText {
    fn default() -> Self {
        Self { unix_seconds: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl DateText {
    /// The 29 bytes for `unix_seconds`; later than the year 9999 they stand still.
    pub fn at(&mut self, unix_seconds: u64) -> &[u8; 29] {
        if unix_seconds != self.unix_seconds {
            let time = UNIX_EPOCH + Duration::from_secs(unix_seconds.min(DATE_SECONDS_MAX));
            let text = httpdate::fmt_http_date(time);
            self.text.copy_from_slice(text.as_bytes());
            self.unix_seconds = unix_seconds;
        }
        &self.text
    }
}

/// The standard reason phrase, empty for an unknown code (IANA's registry of HTTP status codes).
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// Checks an application's status (`"NNN reason"`, PEP 3333): three digits 100..=999 (1xx refused), a space, a reason without control
/// characters and surrounding space (an empty reason after the space is let pass).
///
/// # Errors
/// A sentence for the application's programmer.
pub fn check_status(status: &[u8]) -> Result<u16, &'static str> {
    let [hundreds @ b'0'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' ', reason @ ..] = status else {
        return Err("the status must be three digits, a space and a reason, as in '200 OK'");
    };
    if reason.iter().any(|&byte| byte < b' ' || byte == 0x7f) {
        return Err("the status must not contain control characters");
    }
    if reason.starts_with(b" ") || reason.ends_with(b" ") {
        return Err("the status must have exactly one space before its reason and none after it");
    }
    match hundreds {
        b'0' => Err("the status code must be at least 200"),
        b'1' => Err("a 1xx status can't be the answer to a request"),
        _ => Ok([hundreds, tens, ones].iter().fold(0, |code, digit| code * 10 + u16::from(*digit - b'0'))),
    }
}

/// Appends `size` in hexadecimal and CRLF.
pub fn chunk_start(out: &mut Vec<u8>, size: usize) {
    let mut text = [0; 18];
    let mut at = text.len() - 2;
    text[at..].copy_from_slice(b"\r\n");
    let mut rest = size;
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Appends `n` in decimal.
pub fn decimal(out: &mut Vec<u8>, n: u64) {
    let mut text = [0; 20];
    let mut at = text.len();
    let mut rest = n;
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Appends a whole response made by the server itself: text/plain, `body` a sentence with its line feed, `extra` fields as
/// `Name: value\r\n` lines. No body bytes after a HEAD request. Not for a status without content (204, 304).
pub fn plain_response(
    out: &mut Vec<u8>,
    status: u16,
    body: &str,
    extra: &str,
    date: &[u8; 29],
    keep_alive: bool,
    version: Version,
    head_only: bool,
) {
    // RFC 9112 §4: the space before an empty reason stays. RFC 9110 §2.5: the version is the server's own.
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\nServer: ");
    out.extend_from_slice(SERVER.as_bytes());
    out.extend_from_slice(b"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ");
    decimal(out, body.len() as u64);
    out.extend_from_slice(b"\r\n");
    connection(out, keep_alive, version);
    out.extend_from_slice(extra.as_bytes());
    out.extend_from_slice(b"\r\n");
    if !head_only {
        out.extend_from_slice(body.as_bytes());
    }
}

/// Appends a 204, which has no body and says nothing of one (RFC 9110 §15.3.5, RFC 9112 §6.3).
pub fn empty_response(out: &mut Vec<u8>, date: &[u8; 29], keep_alive: bool, version: Version) {
    out.extend_from_slice(b"HTTP/1.1 204 No Content\r\nDate: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\nServer: ");
    out.extend_from_slice(SERVER.as_bytes());
    out.extend_from_slice(b"\r\n");
    connection(out, keep_alive, version);
    out.extend_from_slice(b"\r\n");
}

/// RFC 9112 §9.3: persistence is the default of 1.1 and has to be said in 1.0.
fn connection(out: &mut Vec<u8>, keep_alive: bool, version: Version) {
    match (keep_alive, version) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, Version::Http11) => {}
    }
}

/// Appends the answer to a refused request: its status, a plain-text sentence, `Connection: close`.
pub fn refusal_response(out: &mut Vec<u8>, refusal: Refusal, date: &[u8; 29], head_only: bool) {
    let status = refusal.status();
    let body = format!("{status} {}: {}\n", reason(status), refusal.detail());
    plain_response(out, status, &body, "", date, false, Version::Http11, head_only);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn dates_are_imf_fixdate() {
        let mut date = DateText::default();
        let mut check = |seconds, expected: &str| {
            assert_eq!(std::str::from_utf8(date.at(seconds)).unwrap(), expected);
            // Once more from what is kept.
            assert_eq!(std::str::from_utf8(date.at(seconds)).unwrap(), expected);
        };
        check(0, "Thu, 01 Jan 1970 00:00:00 GMT");
        check(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT");
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT");
        check(4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT");
        check(DATE_SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT");
        check(DATE_SECONDS_MAX + 1, "Fri, 31 Dec 9999 23:59:59 GMT");
        check(u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT");
        check(1, "Thu, 01 Jan 1970 00:00:01 GMT");
        check(0, "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn statuses_of_applications() {
        let good = |status: &str, code| assert_eq!(check_status(status.as_bytes()), Ok(code), "{status:?}");
        good("200 OK", 200);
        good("404 Not Found", 404);
        good("200 ", 200);
        good("999 Odd", 999);
        good("299 Großartig", 299);
        let bad = |status: &str| assert!(check_status(status.as_bytes()).is_err(), "{status:?}");
        for status in
            ["", "200", "2000 OK", "20 OK", "abc OK", "200  OK", "200 OK ", " 200 OK", "100 Continue", "101 x", "099 x"]
        {
            bad(status);
        }
        for status in ["200 O\rK", "200 OK\r\n", "200 O\nK", "200 O\0K", "200 O\x7fK", "200 O\tK", "+20 OK", "200\tOK"]
        {
            bad(status);
        }
    }

    #[test]
    fn numbers() {
        let check = |n: u64, hexadecimal: &str| {
            let mut out = b"x".to_vec();
            decimal(&mut out, n);
            assert_eq!(out, format!("x{n}").into_bytes());
            let mut out = b"x".to_vec();
            chunk_start(&mut out, usize::try_from(n).unwrap());
            assert_eq!(out, format!("x{hexadecimal}\r\n").into_bytes());
        };
        check(0, "0");
        check(9, "9");
        check(10, "a");
        check(255, "ff");
        check(65_536, "10000");
        check(u64::MAX, "ffffffffffffffff");
    }

    #[test]
    fn responses_of_the_server_itself() {
        let check = |keep_alive, version, head_only, extra: &str, expected: &str| {
            let mut out = Vec::new();
            plain_response(&mut out, 503, "busy\n", extra, DATE, keep_alive, version, head_only);
            let common = "HTTP/1.1 503 Service Unavailable\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: hoopsnake\r\n\
                          Content-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n";
            assert_eq!(std::str::from_utf8(&out).unwrap(), format!("{common}{expected}"));
        };
        check(true, Version::Http11, false, "", "\r\nbusy\n");
        check(true, Version::Http10, false, "", "Connection: keep-alive\r\n\r\nbusy\n");
        check(false, Version::Http11, false, "Retry-After: 1\r\n", "Connection: close\r\nRetry-After: 1\r\n\r\nbusy\n");
        check(false, Version::Http10, true, "", "Connection: close\r\n\r\n");
    }

    #[test]
    fn refusals_close_and_say_what_was_wrong() {
        let check = |refusal, line: &str, body: &str| {
            let mut out = Vec::new();
            refusal_response(&mut out, refusal, DATE, false);
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{text}");
            assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
            assert!(
                text.ends_with(&format!("\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())),
                "{text}"
            );
            let mut out = Vec::new();
            refusal_response(&mut out, refusal, DATE, true);
            assert_eq!(text.strip_suffix(body), std::str::from_utf8(&out).ok());
        };
        check(Refusal::BadRequest("missing Host field"), "400 Bad Request", "400 Bad Request: missing Host field\n");
        for (refusal, line) in [
            (Refusal::Timeout, "408 Request Timeout"),
            (Refusal::LengthRequired, "411 Length Required"),
            (Refusal::BodyTooLarge, "413 Content Too Large"),
            (Refusal::TargetTooLong, "414 URI Too Long"),
            (Refusal::ExpectationFailed, "417 Expectation Failed"),
            (Refusal::HeadTooLarge, "431 Request Header Fields Too Large"),
            (Refusal::NotImplemented, "501 Not Implemented"),
            (Refusal::VersionNotSupported, "505 HTTP Version Not Supported"),
        ] {
            check(refusal, line, &format!("{line}: {}\n", refusal.detail()));
        }
    }
}
