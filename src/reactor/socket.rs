//! The socket calls that more than one driver makes, and the header of a vectored send. None of them waits.

use std::io::{self, IoSlice};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::{Outgoing, sendfile};
use crate::limits::SEND_SEGMENTS_MAX;

/// Bytes given to one send: the kernel takes no more (`MAX_RW_COUNT`), and a ring's length is 32 bits.
const SEND_BYTES_MAX: usize = 0x7fff_f000;

/// What is sent next from memory: where it lies and how send(2) is told of it.
pub struct Front {
    /// The first byte.
    pub start: *const u8,
    /// Bytes from there.
    pub length: usize,
    /// `MSG_*` flags.
    pub flags: i32,
}

/// The next step of sending memory.
pub enum Step {
    /// One stretch of memory.
    One(Front),
    /// Several, set in the message; with these `MSG_*` flags.
    Several(i32),
}

/// The header of a sendmsg(2) and the slices it points at, at a place that doesn't move.
pub struct Message {
    header: libc::msghdr,
    slices: [libc::iovec; SEND_SEGMENTS_MAX],
}

// SAFETY: the pointers are set from an `Outgoing` (which is Send) that travels together with the message, and are
// read by the kernel only.
#[expect(unsafe_code, reason = "raw pointers in msghdr and iovec")]
unsafe impl Send for Message {}

impl Message {
    /// A message of nothing.
    #[expect(unsafe_code, reason = "msghdr has private padding: it can only be zeroed")]
    pub fn new() -> Box<Self> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: msghdr is made of integers and pointers, all of which may be zero.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { header, slices: [empty; SEND_SEGMENTS_MAX] })
    }

    /// The header, for sendmsg(2): valid as long as this box and what the message was set from live.
    pub fn header(&self) -> *const libc::msghdr {
        &self.header
    }

    /// Points the message at the memory segments in front of `outgoing`, and says how many bytes that are.
    fn set(&mut self, outgoing: &Outgoing) -> usize {
        let mut gathered = [IoSlice::new(&[]); SEND_SEGMENTS_MAX];
        let count = outgoing.gather(&mut gathered);
        let mut bytes = 0;
        for (slice, source) in self.slices.iter_mut().zip(&gathered[..count]) {
            let length = source.len().min(SEND_BYTES_MAX - bytes);
            *slice = libc::iovec { iov_base: source.as_ptr().cast_mut().cast(), iov_len: length };
            bytes += length;
        }
        self.header.msg_iov = self.slices.as_mut_ptr();
        self.header.msg_iovlen = count as _;
        bytes
    }
}

/// The next step of sending `outgoing`, whose front is memory. `message` is asked for only if there are several segments.
///
/// What follows the step (a file, more segments than fit) is announced with `MSG_MORE`, so that a response's head
/// and the beginning of its file share a packet.
pub fn memory_step(outgoing: &Outgoing, message: &mut Option<Box<Message>>) -> Step {
    let front = outgoing.front_bytes().unwrap_or_default();
    let remaining = outgoing.remaining();
    let before_a_file = || outgoing.leading_file().is_some_and(|(before, _)| before == front.len() as u64);
    if front.len() as u64 == remaining || front.len() > SEND_BYTES_MAX || before_a_file() {
        let length = front.len().min(SEND_BYTES_MAX);
        let more = if (length as u64) < remaining { libc::MSG_MORE } else { 0 };
        return Step::One(Front { start: front.as_ptr(), length, flags: libc::MSG_NOSIGNAL | more });
    }
    let bytes = message.get_or_insert_with(Message::new).set(outgoing);
    let more = if (bytes as u64) < remaining { libc::MSG_MORE } else { 0 };
    Step::Several(libc::MSG_NOSIGNAL | more)
}

/// Bytes that [`send`] tries to send at once, when a file is next or follows the memory in front.
pub fn offered(outgoing: &Outgoing) -> u64 {
    outgoing.leading_file().map_or(0, |(before, range)| before + range.length.min(outgoing.file_step() as u64))
}

/// Sends one step of `outgoing` without waiting: memory, a stretch of a file, or memory and the beginning of the file behind it. Says
/// how many bytes were taken (at least 1).
///
/// # Errors
/// `WouldBlock` when the socket takes nothing now; `UnexpectedEof` for a file that ended early; the socket's error.
#[expect(unsafe_code, reason = "the system floor: send(2) and sendmsg(2) with flags")]
pub fn send(socket: RawFd, outgoing: &Outgoing, message: &mut Option<Box<Message>>) -> io::Result<usize> {
    if let Some(range) = outgoing.front_file() {
        return sendfile::step(socket, range, outgoing.file_step());
    }
    let sent = match memory_step(outgoing, message) {
        // SAFETY: the front lies in `outgoing`, which is borrowed for the duration of the call.
        Step::One(front) => unsafe {
            libc::send(socket, front.start.cast(), front.length, front.flags | libc::MSG_DONTWAIT)
        },
        Step::Several(flags) => {
            let header = message.as_ref().map_or(std::ptr::null(), |message| message.header());
            // SAFETY: the message was just set from `outgoing`, which is borrowed for the duration of the call.
            unsafe { libc::sendmsg(socket, header, flags | libc::MSG_DONTWAIT) }
        }
    };
    match sent {
        0 => Err(io::ErrorKind::WriteZero.into()),
        sent if sent > 0 => {
            let sent = sent as usize;
            // What keeps the file from being sent shows again in its own step.
            let file = outgoing.leading_file().filter(|(before, _)| *before == sent as u64);
            Ok(sent + file.and_then(|(_, range)| sendfile::step(socket, range, outgoing.file_step()).ok()).unwrap_or(0))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives into `buffer` what has come, without waiting; 0 is the end of the stream.
///
/// # Errors
/// `WouldBlock` when nothing has come; the socket's error.
#[expect(unsafe_code, reason = "the system floor: recv(2) with flags")]
pub fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable for its whole length for the duration of the call.
    let received = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
}

/// Accepts one connection from a non-blocking listener (non-blocking, close-on-exec).
///
/// # Errors
/// `WouldBlock` when none waits; what accept4(2) reports.
#[expect(unsafe_code, reason = "the system floor: accept4(2)")]
pub fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no address is asked for; the result is checked before it is owned.
    unsafe {
        let socket = libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags);
        if socket < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(socket)) }
    }
}

/// Takes ownership of a descriptor that an accept operation of a ring has returned.
#[expect(unsafe_code, reason = "a ring returns descriptors as numbers")]
pub fn accepted(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Whether a failure of accept(2) concerns one connection that is gone already, or that another process has taken, and not the
/// listener: accepting goes on. Linux passes pending network errors of the new connection (accept(2), "Error handling").
pub fn concerns_one_connection(error: i32) -> bool {
    matches!(
        error,
        libc::EAGAIN
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::EINTR
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
    )
}

/// Whether a ring has given a send up because the socket had no room, instead of waiting for some: it does after having found none 128
/// times although it was told of some (`APOLL_MAX_RETRY`, Linux 6.3), which happens on a busy machine. Polling for room and sending
/// again is the cure.
pub fn is_without_room(error: i32) -> bool {
    error == libc::EAGAIN
}

/// `ECANCELED`: what an operation that was ended on request reports.
pub fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::{FileRange, Segment};

    fn file() -> Segment {
        let file = std::sync::Arc::new(tempfile::tempfile().unwrap());
        Segment::File(FileRange { file, offset: 0, length: 10, memory: None })
    }

    fn bytes() -> Segment {
        Segment::Bytes(vec![1; 10])
    }

    #[test]
    fn more_is_announced_exactly_if_more_follows() {
        let check = |segments: Vec<Segment>, several: bool, more: bool| {
            let (mut outgoing, mut message) = (Outgoing::new(), None);
            segments.into_iter().for_each(|segment| outgoing.push(segment));
            let flags = match memory_step(&outgoing, &mut message) {
                Step::One(front) => front.flags,
                Step::Several(flags) => flags,
            };
            assert_eq!((message.is_some(), flags & libc::MSG_MORE != 0), (several, more));
            assert!(flags & libc::MSG_NOSIGNAL != 0);
        };
        check(vec![bytes()], false, false);
        check(vec![bytes(), bytes()], true, false);
        check(vec![bytes(), file()], false, true);
        check(vec![bytes(), bytes(), file()], true, true);
        check((0..SEND_SEGMENTS_MAX).map(|_| bytes()).collect(), true, false);
        check((0..=SEND_SEGMENTS_MAX).map(|_| bytes()).collect(), true, true);
    }
}
