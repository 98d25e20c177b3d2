//! What can be wrong with a peer's bytes, and the status each fault is answered with.

/// A fault of the peer. Answered with [`Refusal::status`] and `Connection: close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Any malformed head or body framing; the text says what (RFC 9110 §15.5.1).
    BadRequest(&'static str),
    /// `Expect: 100-continue` announces a body, but nothing says where it ends (RFC 9110 §15.5.12). The one case in which a
    /// missing length is a fault: any other request without framing has no body (RFC 9112 §6.3).
    LengthRequired,
    /// A body larger than `--max-request-body` (RFC 9110 §15.5.14).
    BodyTooLarge,
    /// A request line larger than `--max-request-line` (RFC 9110 §15.5.15).
    TargetTooLong,
    /// An expectation other than 100-continue (RFC 9110 §15.5.18).
    ExpectationFailed,
    /// A head with more bytes or fields than allowed, or a trailer section too large (RFC 6585 §5).
    HeadTooLarge,
    /// A transfer coding other than chunked (RFC 9112 §6.1), or CONNECT (RFC 9110 §15.6.2).
    NotImplemented,
    /// Any version but HTTP/1.0 and HTTP/1.1 (RFC 9110 §15.6.6).
    VersionNotSupported,
    /// The peer took too long (RFC 9110 §15.5.9).
    Timeout,
}

impl Refusal {
    /// The status code.
    pub const fn status(self) -> u16 {
        match self {
            Refusal::BadRequest(_) => 400,
            Refusal::Timeout => 408,
            Refusal::LengthRequired => 411,
            Refusal::BodyTooLarge => 413,
            Refusal::TargetTooLong => 414,
            Refusal::ExpectationFailed => 417,
            Refusal::HeadTooLarge => 431,
            Refusal::NotImplemented => 501,
            Refusal::VersionNotSupported => 505,
        }
    }

    /// What was wrong, in a few words without a full stop.
    pub const fn detail(self) -> &'static str {
        match self {
            Refusal::BadRequest(what) => what,
            Refusal::Timeout => "the request took too long to arrive",
            Refusal::LengthRequired => "a body is announced without Content-Length or Transfer-Encoding",
            Refusal::BodyTooLarge => "the request body is larger than allowed",
            Refusal::TargetTooLong => "the request line is longer than allowed",
            Refusal::ExpectationFailed => "no expectation but 100-continue can be met",
            Refusal::HeadTooLarge => "the header or trailer fields are larger than allowed",
            Refusal::NotImplemented => "neither CONNECT nor a transfer coding other than chunked is supported",
            Refusal::VersionNotSupported => "only HTTP/1.0 and HTTP/1.1 are supported",
        }
    }
}
