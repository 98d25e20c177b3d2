//! The floor: what a reactor asks of the kernel, and the three drivers that do it.
//!
//! A [`Driver`] submits operations named by a [`Token`], waits once per turn, and hands out [`Event`]s.
//! It knows file descriptors and bytes; it knows nothing of HTTP, of Python or of configuration.

mod buffers;
pub mod clock;
pub mod cpu;
pub mod epoll;
pub mod file;
pub mod inherit;
pub mod memory_file;
pub mod open;
pub mod outgoing;
pub mod poll;
pub mod probe;
pub mod processes;
pub mod ring;
pub mod scripted;
mod sendfile;
pub mod shared_memory;
pub mod slice;
mod socket;
pub mod timers;
pub mod tokio_uring;
pub mod wake;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

pub use outgoing::{FileRange, Outgoing, Segment, SharedBytes};
pub use wake::Waker;

/// Names the owner of an operation: a slot of the reactor's connections, and which of the connections that
/// slot has held. A completion that comes after its connection is gone has an older generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Index in the reactor's slab.
    pub slot: u32,
    /// Counts the uses of that slot, modulo 2²⁴.
    pub generation: u32,
}

impl Token {
    /// Generations wrap at this many bits, so that slot, generation and operation fit into a ring's 64-bit user data.
    pub const GENERATION_BITS: u32 = 24;
}

/// A filled receive buffer. Its bytes are read with [`Driver::bytes`] and it is given back with [`Driver::release`].
#[derive(Debug)]
pub struct Buffer {
    /// Which of the driver's buffers.
    pub id: u16,
    /// Bytes received; 0 means that the peer has sent all it will send (end of stream).
    pub length: u32,
}

/// What happened. The set is closed: a reactor handles each of these and nothing else.
pub enum Event {
    /// A connection was accepted (non-blocking, close-on-exec).
    Accepted {
        /// The listener's token.
        listener: Token,
        /// The connection.
        socket: OwnedFd,
    },
    /// Accepting failed or was cancelled; it is not armed any more.
    AcceptEnded {
        /// The listener's token.
        listener: Token,
        /// `ECANCELED` after [`Driver::cancel_accept`].
        error: io::Error,
    },
    /// Bytes, end of stream (a buffer of length 0), or a failure of receiving.
    Received {
        /// The connection's token.
        token: Token,
        /// The bytes, or `ECANCELED` after [`Driver::pause`], or the socket's error.
        result: io::Result<Buffer>,
        /// Whether receiving is still armed. If not, no further `Received` comes until [`Driver::receive`].
        armed: bool,
    },
    /// One step of sending ended. Exactly one for each [`Driver::send`].
    Sent {
        /// The connection's token.
        token: Token,
        /// What was given to [`Driver::send`], unchanged: the caller advances it.
        outgoing: Box<Outgoing>,
        /// Bytes taken by the kernel (at least 1), or why none were. A file that ended early is `UnexpectedEof`.
        result: io::Result<usize>,
    },
    /// Another thread called [`Waker::wake`].
    Woken,
}

impl Event {
    /// The connection it concerns, if it concerns one.
    pub fn connection(&self) -> Option<Token> {
        match self {
            Event::Received { token, .. } | Event::Sent { token, .. } => Some(*token),
            Event::Accepted { .. } | Event::AcceptEnded { .. } | Event::Woken => None,
        }
    }
}

/// Submits operations and hands out their completions. Used with static dispatch.
///
/// Descriptors stay open until all their operations have been handed out as ended: the caller shuts a socket
/// down, reaps, then closes it.
pub trait Driver {
    /// The name as given to `--reactor`.
    const NAME: &'static str;

    /// Accepts on `listener` until cancelled or failed: any number of `Accepted`, then one `AcceptEnded`.
    fn accept(&mut self, listener: RawFd, token: Token);

    /// Ends [`Driver::accept`]; `AcceptEnded` follows, after any connection the kernel had already handed over.
    fn cancel_accept(&mut self, listener: RawFd, token: Token);

    /// Arms receiving: one or more `Received`, the last with `armed: false`. Must not be armed already.
    fn receive(&mut self, socket: RawFd, token: Token);

    /// Disarms receiving; a `Received` with `armed: false` follows (bytes already received are not lost).
    fn pause(&mut self, socket: RawFd, token: Token);

    /// Sends as much of `outgoing` as the socket takes in one step; never `outgoing.is_empty()`, never two at once on a socket.
    fn send(&mut self, socket: RawFd, token: Token, outgoing: Box<Outgoing>);

    /// Submits what is due and waits once, until an event is there, another thread wakes this one, or `timeout` is over.
    /// `None` waits for ever; zero doesn't wait. A signal ends the wait early and is no error.
    ///
    /// # Errors
    /// When the kernel refuses the driver's own system call: the reactor can't go on.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The next event of this turn.
    fn next_event(&mut self) -> Option<Event>;

    /// The bytes of a receive buffer. Valid until it is released.
    fn bytes(&self, buffer: &Buffer) -> &[u8];

    /// Gives a receive buffer back. Each buffer handed out must be given back before the next [`Driver::next_event`].
    fn release(&mut self, buffer: Buffer);

    /// Operations not handed out as ended yet, the waker's own left out.
    fn in_flight(&self) -> usize;

    /// What other threads wake this reactor with.
    fn waker(&self) -> Arc<Waker>;
}
