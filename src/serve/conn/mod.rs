//! Bytes in, bytes out: one connection as a state machine. It decides; it calls no driver and reads no clock.
//!
//! ```text
//!            ┌────────────────────── Idle ◄───────────────────────────────┐
//!      bytes │                                                            │ all sent, keep-alive
//!            ▼                                                            │
//!          Head ── head complete ──► Body ── body complete ──► Waiting ──► Responding
//!            │                        │                          │        │
//!            └────── refusal ─────────┴──────── time-out ────────┴────────┤ all sent, no keep-alive
//!                                                                         ▼
//!                                        Closing ◄── nothing unread ── (answered)
//!                                           ▲                             │ the peer may still be sending
//!                                           └───────── Lingering ◄────────┘
//! ```
//!
//! `Waiting` may turn into `Parked` when a worker says so, and back when the request is run again.
//!
//! `Closing` lasts until the driver has handed out the last operation as ended; only then is the descriptor closed.

mod body;
mod read;
mod timeouts;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::config::Config;
use crate::reactor::clock::Instant;
use crate::reactor::{Outgoing, Token};
use crate::serve::exchange::{Exchange, Link, Peer};
use crate::serve::http1::{BodyDecoder, HeadLimits, Version};
use crate::serve::park::Action;

pub use body::{BodyStore, Spool};
pub use read::{Ended, Feed, feed, input_ended, is_full, store_body};
pub use timeouts::{Expired, Timeouts, deadline, expired};

/// What of the configuration a connection goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of a request head.
    pub head: HeadLimits,
    /// Bytes of a request body.
    pub request_body_bytes_max: u64,
    /// Time-outs.
    pub timeouts: Timeouts,
}

impl Settings {
    /// The part of `config` that concerns connections.
    pub fn new(config: &Config) -> Self {
        Self {
            head: HeadLimits {
                request_line_bytes_max: config.max_request_line,
                head_bytes_max: config.max_header_bytes,
                fields_max: config.max_headers,
            },
            request_body_bytes_max: config.max_request_body,
            timeouts: Timeouts::new(config),
        }
    }
}

/// Where a connection stands.
pub enum Phase {
    /// Nothing of a next request is here.
    Idle,
    /// Part of a head is in [`Connection::pending`]; the parser has seen `scanned` bytes of it.
    Head {
        /// Bytes the parser has seen.
        scanned: usize,
    },
    /// The head is complete, the body isn't (or isn't on its disk yet).
    Body {
        /// The request so far.
        exchange: Box<Exchange>,
        /// What is left to decode.
        decoder: BodyDecoder,
        /// What has been decoded.
        store: BodyStore,
        /// Whether the decoder has seen the end: only the temporary file is waited for.
        complete: bool,
    },
    /// A worker has the request, or will.
    Waiting {
        /// What both sides see.
        link: Arc<Link>,
        /// When it was queued.
        queued: Instant,
        /// Whether it was a HEAD request, for an answer of the server's own.
        head_only: bool,
        /// Its version, likewise.
        version: Version,
        /// Whether the client allows another request after it, likewise.
        keep_alive: bool,
    },
    /// The application lets it wait for something, without a worker.
    Parked {
        /// The request.
        exchange: Box<Exchange>,
        /// Its place among the parked; `None` when it is about to be run again.
        place: Option<u32>,
        /// When it has waited long enough.
        until: Instant,
        /// What happens then.
        action: Action,
    },
    /// The response is being sent.
    Responding {
        /// The request, for the log; none for an answer to a refused one.
        exchange: Option<Box<Exchange>>,
        /// How the response goes on after what is queued.
        after: After,
    },
    /// Answered and shut for writing; what still comes is read and dropped so that the answer isn't reset away.
    Lingering {
        /// When it ends, even if more comes.
        until: Instant,
    },
    /// Shut down; waiting for the driver's operations to end.
    Closing,
}

/// What follows when everything queued has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// More of a streaming response.
    Stream,
    /// The next request.
    KeepAlive,
    /// The end of the connection; `linger` when the peer may still be sending.
    Close {
        /// Whether to go on reading for a while.
        linger: bool,
    },
    /// A reset, so that the client can tell that the response is cut short.
    Cut,
}

/// One client connection.
pub struct Connection {
    /// The socket; closed when the connection is dropped.
    pub socket: OwnedFd,
    /// Its name in this reactor.
    pub token: Token,
    /// Index of the listener it came through.
    pub listener: u16,
    /// The other end.
    pub peer: Peer,
    /// Where it stands.
    pub phase: Phase,
    /// Bytes received and not used yet: part of a head, or pipelined requests. Empty when idle, except for the moment until the
    /// reactor looks at the next of the pipelined requests.
    pub pending: Vec<u8>,
    /// Empty lines that came in front of a request of which nothing else is here.
    pub empty_lines: usize,
    /// Bytes received since a drain began: no answer is owed for what they ask.
    pub late: usize,
    /// When the present phase is over; [`timeouts::deadline`].
    pub deadline: Instant,
    /// When the timer wheel looks at this connection next; `None` when it doesn't.
    pub timer: Option<Instant>,
    /// Whether the driver is receiving.
    pub receiving: bool,
    /// Whether the driver was told to pause receiving.
    pub pausing: bool,
    /// Whether the driver has something to send.
    pub sending: bool,
    /// What is to be sent when the driver is done with what it has.
    pub queued: Option<Box<Outgoing>>,
    /// The peer has sent all it will send.
    pub ended: bool,
    /// Requests begun.
    pub requests: u64,
    /// Jobs of the disk thread that are not back.
    pub disk_jobs: u32,
    /// Whether one of them reads ahead what is queued here.
    pub warming: bool,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(socket: OwnedFd, token: Token, listener: u16, peer: Peer) -> Self {
        Self {
            socket,
            token,
            listener,
            peer,
            phase: Phase::Idle,
            pending: Vec::new(),
            empty_lines: 0,
            late: 0,
            deadline: Instant::default(),
            timer: None,
            receiving: false,
            pausing: false,
            sending: false,
            queued: None,
            ended: false,
            requests: 0,
            disk_jobs: 0,
            warming: false,
        }
    }

    /// The descriptor, for the driver.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether no further request can come: the peer has ended its side, and nothing it sent before is left.
    pub fn is_exhausted(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    /// Whether something of another request has been received, and that before a drain began.
    pub fn is_owed_more(&self) -> bool {
        let owed = self.pending.len().saturating_sub(self.late);
        // An empty line behind a body is no request.
        self.pending[..owed].iter().any(|byte| !b"\r\n".contains(byte))
    }

    /// Whether the request at hand is the last that this connection answers.
    pub fn is_at_its_last(&self, draining: bool) -> bool {
        self.is_exhausted() || (draining && !self.is_owed_more())
    }

    /// Whether everything that was asked is answered. One that was just accepted isn't: its first request may be on its way.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.requests > 0 && self.pending.is_empty()
    }

    /// Whether the driver or the disk thread still has something of this connection.
    pub fn is_busy(&self) -> bool {
        self.receiving || self.sending || self.disk_jobs > 0
    }
}
