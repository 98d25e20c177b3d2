//! The io_uring driver: multishot accept, multishot receive into shared buffers, one system call per turn.
//!
//! It works from kernel 5.13 on; what a kernel lacks is stepped down when the ring is made, and
//! [`Ring::describe`] says what was taken. Best is 6.1 (deferred task work). It never blocks but in [`Driver::turn`],
//! and in [`Drop`] for at most [`DROP_WAIT`].
//!
//! Who sends much at once is received from with recv(2) into one large buffer that stays in the processor's cache, instead of
//! through many shared ones: see [`Ring::after_reception`].
//!
//! Memory that the kernel reads or writes is owned here while an operation is in flight: what is being sent in the
//! slot of its token, receive buffers in [`Buffers`]. An accept or a poll points at no memory.

#![expect(
    unsafe_code,
    reason = "the system floor: submission entries point at memory, and io_uring_enter is a raw call"
)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::buffers::{self, Buffers};
use super::socket::{self, Message, Step};
use super::{Buffer, Driver, Event, Outgoing, Token, Waker};
use crate::limits::{
    BULK_BUFFER_BYTES, BULK_STEPS_PER_TURN_MAX, FILE_BYTES_PER_TURN_MAX, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS,
    RING_ENTRIES,
};

/// How long dropping a ring waits for the operations it has cancelled.
const DROP_WAIT: Duration = Duration::from_secs(1);
/// Receptions one after the other, with more to come each time, from which on a connection is received from in bulk. A multishot
/// receive fills up to 32 buffers in one go (`MULTISHOT_MAX_RETRY`).
const BULK_AFTER: u8 = 8;
/// Small receptions one after the other that end receiving in bulk.
const BULK_SMALL_MAX: u8 = 4;
/// The id of a buffer that isn't one of the shared ones: end of stream, [`Receive::Readiness`], or in bulk.
const NO_BUFFER: u16 = u16::MAX;

/// The set-up flags, best first (io_uring_setup(2)). Each needs a newer kernel than the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flags {
    /// SINGLE_ISSUER | DEFER_TASKRUN: completions are made when we enter the kernel to wait for them. Kernel ≥ 6.1.
    Defer,
    /// SINGLE_ISSUER | COOP_TASKRUN: completions are made at our next system call. Kernel ≥ 6.0.
    Single,
    /// COOP_TASKRUN. Kernel ≥ 5.19.
    Cooperative,
    /// None: completions interrupt this thread.
    Plain,
}

/// How bytes are received, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Receive {
    /// One operation for any number of receptions, each into a shared buffer. Kernel ≥ 6.0.
    Multishot,
    /// One operation for each reception, into a shared buffer. Kernel ≥ 5.19.
    Single,
    /// A poll, then recv(2) into one buffer of ours.
    Readiness,
}

/// What a ring is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Entries of the submission queue; the completion queue has four times as many.
    pub entries: u32,
    /// Shared receive buffers; a power of two.
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_bytes: usize,
    /// The best set-up flags to try.
    pub flags: Flags,
    /// The best way of receiving to try.
    pub receive: Receive,
    /// Whether other processes accept from the same listeners: then connections are accepted one by one, in turn. A multishot accept
    /// stays at the head of the socket's queue of waiters, so that whoever came first would get all connections.
    pub shared_listeners: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entries: RING_ENTRIES,
            buffers: RECEIVE_BUFFERS,
            buffer_bytes: RECEIVE_BUFFER_BYTES,
            flags: Flags::Defer,
            receive: Receive::Multishot,
            shared_listeners: false,
        }
    }
}

/// The lowest byte of an operation's user data.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Operation {
    /// Ends of cancellations, and of the probe in [`Ring::new`]: nobody asks.
    Ignored,
    Accept,
    Receive,
    Send,
    /// A poll for room in a socket that a file is being sent to.
    Writable,
    /// A poll for more from a socket that is received from in bulk.
    Readable,
    Wake,
}

impl Operation {
    const ALL: [Operation; 7] =
        [Self::Ignored, Self::Accept, Self::Receive, Self::Send, Self::Writable, Self::Readable, Self::Wake];

    /// `slot << 32 | generation << 8 | operation`.
    const fn user_data(self, token: Token) -> u64 {
        let generation = token.generation & ((1 << Token::GENERATION_BITS) - 1);
        (token.slot as u64) << 32 | (generation as u64) << 8 | self as u64
    }

    fn of(user_data: u64) -> Self {
        Self::ALL.get(usize::from(user_data as u8)).copied().unwrap_or(Self::Ignored)
    }
}

const fn token_of(user_data: u64) -> Token {
    Token { slot: (user_data >> 32) as u32, generation: (user_data >> 8) as u32 & ((1 << Token::GENERATION_BITS) - 1) }
}

/// Where receiving stands on a slot.
///
/// ```text
///            receive             no buffer               a buffer
///   Idle ───────────────▶ Armed ───────────▶ Starved ───────────────▶ Armed
///    ▲                     │ pause              │ pause
///    └──── the last ◀── Stopping ◀── (Idle at once, ECANCELED is due)
/// ```
/// An Armed one that sends much goes through Switching to Bulk, from there to Polling and back, and in the end to Armed again.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Receiving {
    #[default]
    Idle,
    /// The kernel has it.
    Armed,
    /// The kernel has it and was asked to end it.
    Stopping,
    /// The kernel has it and was asked to end it, so that it goes on in bulk; see [`Ring::after_reception`].
    Switching,
    /// It waits in [`Ring::bulk`] for its next recv(2).
    Bulk,
    /// In bulk, but nothing is there: the kernel has a poll.
    Polling,
    /// It ended for want of a buffer and waits in [`Ring::starved`].
    Starved,
}

/// What is in flight for one of the reactor's connections.
#[derive(Default)]
struct Slot {
    generation: u32,
    socket: RawFd,
    receiving: Receiving,
    /// Receptions one after the other at which there was more; in bulk: at which there was little.
    run: u8,
    /// Whether the last step of sending a file took less than was offered: the socket is full, and is polled before the next one.
    full: bool,
    /// Owned here while the kernel reads from it.
    sending: Option<Box<Outgoing>>,
    /// Set while a vectored send is in flight.
    message: Option<Box<Message>>,
}

/// A listener that accepts.
struct Listener {
    token: Token,
    socket: RawFd,
    cancelled: bool,
}

/// The argument of a waiting io_uring_enter(2) (`struct io_uring_getevents_arg`, kernel ≥ 5.11).
#[repr(C)]
struct WaitArgument {
    signal_mask: u64,
    signal_mask_bytes: u32,
    minimum_wait_us: u32,
    timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// The io_uring driver. `Send`, so that a reactor is; but where [`Flags::Defer`] or [`Flags::Single`] was taken, the
/// kernel serves only the thread that made it, and [`Driver::turn`] fails on any other.
pub struct Ring {
    // Before what the kernel may point at, so that it is closed first.
    ring: IoUring,
    /// Flags of every io_uring_enter.
    enter_flags: u32,
    /// The thread that `ring` was made on and, if it has registered the ring with itself, the index there.
    thread: u64,
    registered: Option<u32>,
    flags: Flags,
    receive: Receive,
    shared_listeners: bool,
    buffers: Option<Buffers>,
    /// For [`Receive::Readiness`], and for what is received in bulk.
    shared: Box<[u8]>,
    /// Who is received from in bulk and may have more. Entries whose slot isn't `Bulk` any more are passed over.
    bulk: VecDeque<Token>,
    bulk_steps_left: usize,
    slots: Vec<Slot>,
    listeners: Vec<Listener>,
    /// Receives that ended for want of a buffer, in order. Entries whose slot isn't `Starved` any more are passed over.
    starved: VecDeque<Token>,
    /// Sends whose front is a file, or memory that leads to one, waiting for their step.
    files: VecDeque<Token>,
    /// What this turn may still send of files; see [`FILE_BYTES_PER_TURN_MAX`].
    file_bytes_left: usize,
    /// Events that aren't completions.
    ready: VecDeque<Event>,
    /// Entries the submission queue had no room for, in order.
    backlog: VecDeque<squeue::Entry>,
    #[expect(clippy::vec_box, reason = "the kernel points at them while they are in flight")]
    messages: Vec<Box<Message>>,
    in_flight: usize,
    waker: Arc<Waker>,
}

/// Makes a ring with the best of `flags` and what comes after it that this kernel takes, and says which.
///
/// # Errors
/// What io_uring_setup(2) reports, `EINVAL` only if it does so without any flag.
pub fn build(entries: u32, flags: Flags) -> io::Result<(IoUring, Flags)> {
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for candidate in [Flags::Defer, Flags::Single, Flags::Cooperative, Flags::Plain] {
        if candidate < flags {
            continue;
        }
        let mut builder = IoUring::builder();
        builder.setup_cqsize(entries.saturating_mul(4)).setup_clamp();
        match candidate {
            Flags::Defer => builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all(),
            Flags::Single => builder.setup_single_issuer().setup_coop_taskrun().setup_submit_all(),
            Flags::Cooperative => builder.setup_coop_taskrun().setup_submit_all(),
            Flags::Plain => &mut builder,
        };
        match builder.build(entries) {
            Ok(ring) => return Ok((ring, candidate)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

impl Ring {
    /// A ring for the calling thread.
    ///
    /// # Errors
    /// What io_uring_setup(2) reports; `Unsupported` for a kernel before 5.13.
    pub fn new(settings: Settings, waker: Arc<Waker>) -> io::Result<Self> {
        let (ring, flags) = build(settings.entries, settings.flags)?;
        if !ring.params().is_feature_resource_tagging() {
            // 5.13 brought resource tagging and multishot poll, which waking relies on.
            return Err(io::ErrorKind::Unsupported.into());
        }
        // GETEVENTS even where nothing is waited for: it runs deferred work, and flushes completions that had no room.
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_no_iowait() {
            // An idle reactor isn't a processor waiting for a disk.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let buffers = match settings.receive {
            Receive::Readiness => None,
            _ => Buffers::register(&ring, settings.buffers, settings.buffer_bytes).ok(),
        };
        let receive = if buffers.is_some() { settings.receive } else { Receive::Readiness };
        let mut driver = Self {
            ring,
            enter_flags: enter_flags.bits(),
            thread: thread_number(),
            registered: None,
            flags,
            receive,
            shared_listeners: settings.shared_listeners,
            buffers,
            shared: vec![0; BULK_BUFFER_BYTES].into_boxed_slice(),
            bulk: VecDeque::new(),
            bulk_steps_left: 0,
            slots: Vec::new(),
            listeners: Vec::new(),
            starved: VecDeque::new(),
            files: VecDeque::new(),
            file_bytes_left: 0,
            ready: VecDeque::new(),
            backlog: VecDeque::new(),
            messages: Vec::new(),
            in_flight: 0,
            waker,
        };
        driver.registered = registration(&driver.ring, REGISTER_RING_FDS, u32::MAX);
        if receive == Receive::Multishot && !driver.receives_multishot()? {
            driver.receive = Receive::Single;
        }
        driver.watch_waker();
        Ok(driver)
    }

    /// What this kernel let us take, for the log.
    pub fn describe(&self) -> String {
        let flags = match self.flags {
            Flags::Defer => "SINGLE_ISSUER|DEFER_TASKRUN",
            Flags::Single => "SINGLE_ISSUER|COOP_TASKRUN",
            Flags::Cooperative => "COOP_TASKRUN",
            Flags::Plain => "no flags",
        };
        let receive = match self.receive {
            Receive::Multishot => "multishot receive",
            Receive::Single => "single receive",
            Receive::Readiness => "receive after poll",
        };
        match &self.buffers {
            Some(buffers) => format!("{flags}, {receive}, {} shared buffers", buffers.count()),
            None => format!("{flags}, {receive}"),
        }
    }

    /// Whether a multishot receive works: one byte and the end of the stream over a pair of sockets.
    fn receives_multishot(&mut self) -> io::Result<bool> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        io::Write::write_all(&mut &writer, b"?")?;
        drop(writer);
        self.push(opcode::RecvMulti::new(Fd(reader.as_raw_fd()), buffers::GROUP).build());
        let mut works = false;
        loop {
            self.enter(1, Some(DROP_WAIT))?;
            let Some(completion) = self.ring.completion().next() else { return Ok(false) };
            if let (Some(id), Some(buffers)) = (cqueue::buffer_select(completion.flags()), &mut self.buffers) {
                buffers.give_back(id);
            }
            works |= completion.result() == 1;
            if !cqueue::more(completion.flags()) {
                return Ok(works);
            }
        }
    }

    /// Watches the eventfd. A multishot poll reports every write; nothing is read, because the counter can't fill up
    /// (2⁶⁴ − 1 writes), so that being woken costs neither a system call nor a submission.
    fn watch_waker(&mut self) {
        let entry = opcode::PollAdd::new(Fd(self.waker.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.push(entry.user_data(Operation::Wake as u64));
    }

    /// Queues an entry for submission. When the queue is full it is submitted first, and what the kernel doesn't take
    /// then waits in the backlog, so that entries are never reordered.
    fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: what the entry points at is owned by this driver until its completion has been handed out.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // A failure shows again, and is reported, at the next turn.
            let _ = self.enter(0, None);
            // SAFETY: as above.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn flush_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// The one system call: submits what is queued, and waits for `minimum` completions or `timeout`.
    ///
    /// # Errors
    /// What io_uring_enter(2) reports, except for what the next turn cures: a signal, the time-out, and EBUSY or EAGAIN
    /// (completions must be taken, or memory be freed, before more can be submitted).
    fn enter(&mut self, minimum: u32, timeout: Option<Duration>) -> io::Result<()> {
        let submit = self.ring.submission().len() as u32;
        let timespec = timeout.map(|timeout| KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(timeout.subsec_nanos()),
        });
        let argument = WaitArgument {
            signal_mask: 0,
            signal_mask_bytes: 0,
            minimum_wait_us: 0,
            timeout: timespec.as_ref().map_or(0, |timespec| std::ptr::from_ref(timespec) as u64),
        };
        let (fd, flags) = match self.registered_here() {
            Some(index) => (index as RawFd, self.enter_flags | EnterFlags::REGISTERED_RING.bits()),
            None => (self.ring.as_raw_fd(), self.enter_flags),
        };
        // SAFETY: the argument and the time it points at live until the call returns; the entries submitted were pushed
        // under the promise in `push`.
        let result = unsafe {
            let argument = std::ptr::from_ref(&argument);
            let bytes = size_of::<WaitArgument>();
            libc::syscall(libc::SYS_io_uring_enter, fd, submit, minimum, flags, argument, bytes)
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        }
    }

    /// The ring's index in the calling thread's table of registered rings.
    fn registered_here(&self) -> Option<u32> {
        self.registered.filter(|_| self.thread == thread_number())
    }

    /// The slot of a token; a slot's new generation starts afresh.
    fn slot(&mut self, token: Token, socket: RawFd) -> &mut Slot {
        let index = token.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        if slot.generation != token.generation {
            // Memory that the kernel reads would be freed: the caller's promise (one connection per slot) is checked.
            assert!(slot.sending.is_none(), "a slot is used again only after its operations have ended");
            *slot = Slot { generation: token.generation, ..Slot::default() };
        }
        slot.socket = socket;
        slot
    }

    /// The slot that a completion is for, if its connection still has it.
    fn slot_of(&mut self, token: Token) -> Option<&mut Slot> {
        self.slots.get_mut(token.slot as usize).filter(|slot| slot.generation == token.generation)
    }

    fn arm_accept(&mut self, listener: RawFd, token: Token) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Multishot accept and buffer rings came with the same kernel (5.19).
        let entry = if self.buffers.is_some() && !self.shared_listeners {
            opcode::AcceptMulti::new(Fd(listener)).flags(flags).build()
        } else {
            opcode::Accept::new(Fd(listener), std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
        };
        self.push(entry.user_data(Operation::Accept.user_data(token)));
    }

    fn arm_receive(&mut self, socket: RawFd, token: Token, receive: Receive) {
        let entry = match receive {
            Receive::Multishot => opcode::RecvMulti::new(Fd(socket), buffers::GROUP).build(),
            Receive::Single => opcode::Recv::new(Fd(socket), std::ptr::null_mut(), 0)
                .buf_group(buffers::GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
            Receive::Readiness => opcode::PollAdd::new(Fd(socket), (libc::POLLIN | libc::POLLRDHUP) as u32).build(),
        };
        self.push(entry.user_data(Operation::Receive.user_data(token)));
    }

    /// Arms, in order, the receives that found no buffer. Called when every completion has been handed out: then every
    /// buffer is back. Each takes one buffer and no more (a multishot receive on a fast connection would take all of
    /// them again), so each gets its turn; those there is no buffer for stay in front.
    fn arm_starved(&mut self) {
        let mut left = self.buffers.as_ref().map_or(0, Buffers::count);
        while left > 0 {
            let Some(token) = self.starved.pop_front() else { return };
            let Some(slot) = self.slot_of(token).filter(|slot| slot.receiving == Receiving::Starved) else { continue };
            slot.receiving = Receiving::Armed;
            let socket = slot.socket;
            self.arm_receive(socket, token, Receive::Single);
            left -= 1;
        }
    }

    fn cancel(&mut self, user_data: u64) {
        // On success the operation's own completion tells; only a failure would have one, and it is ignored.
        let flags = if self.ring.params().is_feature_skip_cqe_on_success() {
            squeue::Flags::SKIP_SUCCESS
        } else {
            squeue::Flags::empty()
        };
        self.push(opcode::AsyncCancel::new(user_data).build().flags(flags));
    }

    fn completion(&mut self, user_data: u64, result: i32, flags: u32) -> Option<Event> {
        let token = token_of(user_data);
        match Operation::of(user_data) {
            Operation::Receive if self.receive == Receive::Readiness => self.readable(token, result),
            Operation::Receive => self.received(token, result, flags),
            Operation::Send => self.sent(token, result),
            Operation::Wake => {
                if !cqueue::more(flags) {
                    self.waker.drain();
                    self.watch_waker();
                }
                Some(Event::Woken)
            }
            Operation::Accept => self.accepted(token, result, flags),
            Operation::Writable if result < 0 => self.sent(token, result),
            // There is room: it takes its turn with the other files.
            Operation::Writable => {
                self.files.push_back(token);
                None
            }
            Operation::Readable => self.bulk_readable(token, result),
            Operation::Ignored => None,
        }
    }

    fn received(&mut self, token: Token, result: i32, flags: u32) -> Option<Event> {
        let armed = cqueue::more(flags);
        let taken = cqueue::buffer_select(flags);
        if result > 0 {
            let id = taken.unwrap_or(NO_BUFFER);
            if armed {
                self.after_reception(token, cqueue::sock_nonempty(flags));
            }
            self.receive_ended(token, armed);
            return Some(Event::Received { token, result: Ok(Buffer { id, length: result as u32 }), armed });
        }
        if let (Some(id), Some(buffers)) = (taken, &mut self.buffers) {
            buffers.give_back(id);
        }
        let result = match -result {
            0 => Ok(Buffer { id: NO_BUFFER, length: 0 }),
            libc::ENOBUFS => {
                if armed || self.starve(token) {
                    return None;
                }
                Err(socket::cancelled())
            }
            libc::ECANCELED | libc::EAGAIN if self.switch(token) => return None,
            // As after a pause: whoever wants more receives anew.
            libc::EAGAIN => Err(socket::cancelled()),
            error => Err(io::Error::from_raw_os_error(error)),
        };
        self.receive_ended(token, armed);
        Some(Event::Received { token, result, armed })
    }

    /// A connection that fills one buffer after the other is received from in bulk from then on. There are three reasons: a completion for
    /// each buffer costs more than a recv(2) of a large piece; the shared buffers take turns, so that each is cold in the
    /// processor's cache; and a kernel that meets 32 buffers' worth together with the end of the stream never looks again after the last
    /// bytes, so that the end would not be told (seen on 6.18 with Unix sockets; TCP says that there is more).
    fn after_reception(&mut self, token: Token, more: bool) {
        let Some(slot) = self.slot_of(token) else { return };
        slot.run = if more { slot.run.saturating_add(1) } else { 0 };
        if slot.run >= BULK_AFTER && slot.receiving == Receiving::Armed {
            slot.receiving = Receiving::Switching;
            self.cancel(Operation::Receive.user_data(token));
        }
    }

    /// Goes on in bulk with a receive that was ended for that; says whether it was one.
    fn switch(&mut self, token: Token) -> bool {
        let Some(slot) = self.slot_of(token).filter(|slot| slot.receiving == Receiving::Switching) else {
            return false;
        };
        slot.receiving = Receiving::Bulk;
        slot.run = 0;
        self.bulk.push_back(token);
        true
    }

    /// One recv(2) in bulk. A full buffer is followed by another one when the others had theirs; otherwise more is polled for, or, when
    /// only little comes, left to a multishot receive again.
    fn bulk_step(&mut self, token: Token, polled: bool) -> Option<Event> {
        let slot = self.slots.get_mut(token.slot as usize).filter(|slot| slot.generation == token.generation)?;
        if slot.receiving != Receiving::Bulk {
            return None;
        }
        let socket = slot.socket;
        let result = match socket::receive(socket, &mut self.shared) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poll_bulk(token);
                return None;
            }
            result => result.map(|length| Buffer { id: NO_BUFFER, length: length as u32 }),
        };
        let length = result.as_ref().map_or(0, |buffer| buffer.length as usize);
        if length == 0 {
            self.receive_ended(token, false);
        } else if length == self.shared.len() {
            slot.run = 0;
            self.bulk.push_back(token);
        } else {
            slot.run = if polled && length < RECEIVE_BUFFER_BYTES { slot.run + 1 } else { 0 };
            if slot.run >= BULK_SMALL_MAX {
                slot.run = 0;
                slot.receiving = Receiving::Armed;
                self.arm_receive(socket, token, self.receive);
            } else {
                self.poll_bulk(token);
            }
        }
        Some(Event::Received { token, result, armed: length > 0 })
    }

    fn poll_bulk(&mut self, token: Token) {
        let Some(slot) = self.slot_of(token) else { return };
        slot.receiving = Receiving::Polling;
        let entry = opcode::PollAdd::new(Fd(slot.socket), (libc::POLLIN | libc::POLLRDHUP) as u32).build();
        self.push(entry.user_data(Operation::Readable.user_data(token)));
    }

    fn bulk_readable(&mut self, token: Token, result: i32) -> Option<Event> {
        let slot = self.slot_of(token)?;
        if slot.receiving == Receiving::Polling && result >= 0 {
            slot.receiving = Receiving::Bulk;
            return self.bulk_step(token, true);
        }
        let error = if result < 0 { io::Error::from_raw_os_error(-result) } else { socket::cancelled() };
        self.receive_ended(token, false);
        Some(Event::Received { token, result: Err(error), armed: false })
    }

    /// Puts a receive that found no buffer in the queue for one, unless it was being paused.
    fn starve(&mut self, token: Token) -> bool {
        match self.slot_of(token) {
            Some(slot) if matches!(slot.receiving, Receiving::Armed | Receiving::Switching) => {
                slot.receiving = Receiving::Starved;
                self.starved.push_back(token);
                true
            }
            _ => false,
        }
    }

    fn receive_ended(&mut self, token: Token, armed: bool) {
        if armed {
            return;
        }
        self.in_flight -= 1;
        if let Some(slot) = self.slot_of(token) {
            slot.receiving = Receiving::Idle;
        }
    }

    /// [`Receive::Readiness`]: a poll ended.
    fn readable(&mut self, token: Token, result: i32) -> Option<Event> {
        let Some(slot) = self.slot_of(token).filter(|_| result >= 0) else {
            self.receive_ended(token, false);
            let error = if result < 0 { -result } else { libc::ECANCELED };
            let result = Err(io::Error::from_raw_os_error(error));
            return Some(Event::Received { token, result, armed: false });
        };
        let (socket, stopping) = (slot.socket, slot.receiving == Receiving::Stopping);
        let result = match socket::receive(socket, &mut self.shared) {
            Ok(length) => Ok(Buffer { id: NO_BUFFER, length: length as u32 }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !stopping {
                    self.arm_receive(socket, token, Receive::Readiness);
                    return None;
                }
                Err(socket::cancelled())
            }
            Err(error) => Err(error),
        };
        self.receive_ended(token, false);
        Some(Event::Received { token, result, armed: false })
    }

    fn sent(&mut self, token: Token, result: i32) -> Option<Event> {
        let result = match result {
            0 => Err(io::ErrorKind::WriteZero.into()),
            sent if sent > 0 => Ok(sent as usize),
            error if socket::is_without_room(-error) => {
                let socket = self.slot_of(token)?.socket;
                self.poll_room(socket, token);
                return None;
            }
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        self.send_ended(token, result)
    }

    fn send_ended(&mut self, token: Token, result: io::Result<usize>) -> Option<Event> {
        let slot = self.slot_of(token)?;
        let outgoing = slot.sending.take()?;
        if let Some(message) = slot.message.take() {
            self.messages.push(message);
        }
        self.in_flight -= 1;
        Some(Event::Sent { token, outgoing, result })
    }

    /// One step of sending a file; when the socket has no room, a poll for it.
    fn file_step(&mut self, token: Token) -> Option<Event> {
        let slot = self.slot_of(token)?;
        let socket = slot.socket;
        let outgoing = slot.sending.as_ref()?;
        let offered = socket::offered(outgoing);
        let result = socket::send(socket, outgoing, &mut slot.message);
        slot.full = matches!(result, Ok(sent) if (sent as u64) < offered);
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poll_room(socket, token);
                None
            }
            result => self.send_ended(token, result),
        }
    }

    fn poll_room(&mut self, socket: RawFd, token: Token) {
        let entry = opcode::PollAdd::new(Fd(socket), libc::POLLOUT as u32).build();
        self.push(entry.user_data(Operation::Writable.user_data(token)));
    }

    fn accepted(&mut self, token: Token, result: i32, flags: u32) -> Option<Event> {
        let event = (result >= 0).then(|| Event::Accepted { listener: token, socket: socket::accepted(result) });
        if cqueue::more(flags) {
            return event;
        }
        let index = self.listeners.iter().position(|listener| listener.token == token)?;
        let Listener { socket, cancelled, .. } = self.listeners[index];
        let error = -result;
        if !cancelled && (event.is_some() || socket::concerns_one_connection(error)) {
            self.arm_accept(socket, token);
            return event;
        }
        self.listeners.swap_remove(index);
        let error = if cancelled { socket::cancelled() } else { io::Error::from_raw_os_error(error) };
        let ended = Event::AcceptEnded { listener: token, error };
        if event.is_some() {
            self.ready.push_back(ended);
            return event;
        }
        self.in_flight -= 1;
        Some(ended)
    }

    fn ready_event(&mut self) -> Option<Event> {
        let event = self.ready.pop_front()?;
        self.in_flight -= 1;
        Some(event)
    }
}

impl Driver for Ring {
    const NAME: &'static str = "ring";

    fn accept(&mut self, listener: RawFd, token: Token) {
        debug_assert!(self.listeners.iter().all(|known| known.token != token), "accepting already");
        self.in_flight += 1;
        self.listeners.push(Listener { token, socket: listener, cancelled: false });
        self.arm_accept(listener, token);
    }

    fn cancel_accept(&mut self, _listener: RawFd, token: Token) {
        let Some(listener) = self.listeners.iter_mut().find(|listener| listener.token == token) else { return };
        if !std::mem::replace(&mut listener.cancelled, true) {
            self.cancel(Operation::Accept.user_data(token));
        }
    }

    fn receive(&mut self, socket: RawFd, token: Token) {
        let slot = self.slot(token, socket);
        debug_assert!(slot.receiving == Receiving::Idle, "receiving already");
        slot.receiving = Receiving::Armed;
        self.in_flight += 1;
        self.arm_receive(socket, token, self.receive);
    }

    fn pause(&mut self, _socket: RawFd, token: Token) {
        let Some(slot) = self.slot_of(token) else { return };
        match slot.receiving {
            Receiving::Idle | Receiving::Stopping => {}
            Receiving::Switching => slot.receiving = Receiving::Stopping,
            Receiving::Polling => {
                slot.receiving = Receiving::Stopping;
                self.cancel(Operation::Readable.user_data(token));
            }
            Receiving::Armed => {
                slot.receiving = Receiving::Stopping;
                self.cancel(Operation::Receive.user_data(token));
            }
            Receiving::Starved | Receiving::Bulk => {
                slot.receiving = Receiving::Idle;
                self.ready.push_back(Event::Received { token, result: Err(socket::cancelled()), armed: false });
            }
        }
    }

    fn send(&mut self, socket: RawFd, token: Token, outgoing: Box<Outgoing>) {
        debug_assert!(!outgoing.is_empty(), "something to send");
        self.in_flight += 1;
        let mut message = None;
        // Memory that leads to a file goes with the file's first step.
        let is_file = outgoing.leading_file().is_some();
        let entry = if is_file {
            // To be told by sendfile(2) that there is no room costs more than asking: it fetches the pages first.
            match self.slot(token, socket).full {
                true => self.poll_room(socket, token),
                false => self.files.push_back(token),
            }
            None
        } else {
            if outgoing.front_bytes().is_some_and(|front| (front.len() as u64) < outgoing.remaining()) {
                message = self.messages.pop();
            }
            // What the entry points at is on the heap, behind the boxes that the slot keeps below.
            Some(match socket::memory_step(&outgoing, &mut message) {
                Step::One(front) => {
                    opcode::Send::new(Fd(socket), front.start, front.length as u32).flags(front.flags).build()
                }
                Step::Several(flags) => {
                    let header = message.as_ref().map_or(std::ptr::null(), |message| message.header());
                    opcode::SendMsg::new(Fd(socket), header).flags(flags as u32).build()
                }
            })
        };
        let slot = self.slot(token, socket);
        assert!(slot.sending.is_none(), "one send at a time");
        slot.sending = Some(outgoing);
        slot.message = message;
        if let Some(entry) = entry {
            self.push(entry.user_data(Operation::Send.user_data(token)));
        }
    }

    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.file_bytes_left = FILE_BYTES_PER_TURN_MAX;
        self.bulk_steps_left = BULK_STEPS_PER_TURN_MAX;
        self.flush_backlog();
        let pending = !self.ring.completion().is_empty();
        if !pending && !self.starved.is_empty() {
            self.arm_starved();
        }
        let submission = self.ring.submission();
        let (nothing_to_submit, now) = (submission.is_empty(), timeout == Some(Duration::ZERO));
        drop(submission);
        if pending && nothing_to_submit {
            return Ok(());
        }
        let more_to_do =
            !self.ready.is_empty() || !self.files.is_empty() || !self.bulk.is_empty() || !self.starved.is_empty();
        let wait = !(pending || now || more_to_do || !self.backlog.is_empty());
        self.enter(u32::from(wait), timeout.filter(|_| wait))
    }

    fn next_event(&mut self) -> Option<Event> {
        loop {
            let Some(completion) = self.ring.completion().next() else { break };
            if let Some(event) = self.completion(completion.user_data(), completion.result(), completion.flags()) {
                return Some(event);
            }
        }
        if let Some(event) = self.ready_event() {
            return Some(event);
        }
        while self.bulk_steps_left > 0 {
            let Some(token) = self.bulk.pop_front() else { break };
            self.bulk_steps_left -= 1;
            if let Some(event) = self.bulk_step(token, false) {
                return Some(event);
            }
        }
        while self.file_bytes_left > 0 {
            let token = self.files.pop_front()?;
            if let Some(event) = self.file_step(token) {
                if let Event::Sent { result: Ok(sent), .. } = event {
                    self.file_bytes_left = self.file_bytes_left.saturating_sub(sent);
                }
                return Some(event);
            }
        }
        None
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        match &self.buffers {
            _ if buffer.length == 0 => &[],
            Some(buffers) if buffer.id != NO_BUFFER => buffers.bytes(buffer.id, buffer.length),
            _ => &self.shared[..buffer.length as usize],
        }
    }

    fn release(&mut self, buffer: Buffer) {
        if let (Some(buffers), true) = (&mut self.buffers, buffer.id != NO_BUFFER) {
            buffers.give_back(buffer.id);
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

impl Ring {
    /// Cancels everything and takes completions until nothing is in flight; says whether that came true.
    fn wind_up(&mut self) -> bool {
        let give_up = Instant::now() + DROP_WAIT;
        self.listeners.iter_mut().for_each(|listener| listener.cancelled = true);
        // A receive waiting for a buffer isn't the kernel's.
        for token in std::mem::take(&mut self.starved) {
            if self.slot_of(token).is_some_and(|slot| slot.receiving == Receiving::Starved) {
                self.receive_ended(token, false);
            }
        }
        self.push(opcode::AsyncCancel2::new(CancelBuilder::any().all()).build());
        while self.in_flight > 0 {
            self.file_bytes_left = 0;
            self.bulk_steps_left = 0;
            // One that was switching while it was cancelled has come here.
            for token in std::mem::take(&mut self.bulk) {
                if self.slot_of(token).is_some_and(|slot| slot.receiving == Receiving::Bulk) {
                    self.receive_ended(token, false);
                }
            }
            while let Some(event) = self.next_event() {
                if let Event::Received { result: Ok(buffer), .. } = event {
                    self.release(buffer);
                }
            }
            // Nor is a file waiting for its step; of some that was told just now.
            for token in std::mem::take(&mut self.files) {
                self.send_ended(token, Err(socket::cancelled()));
            }
            self.flush_backlog();
            let left = give_up.saturating_duration_since(Instant::now());
            if self.in_flight > 0 && (left.is_zero() || self.enter(1, Some(left)).is_err()) {
                return false;
            }
        }
        true
    }
}

impl Drop for Ring {
    /// Ends what is in flight. What the kernel hasn't given up by then (or at all, on a thread that isn't the ring's own)
    /// it may still write to or read from while it tears the ring down: that memory is leaked, not freed.
    fn drop(&mut self) {
        let ended = self.in_flight == 0 || self.wind_up();
        if let Some(index) = self.registered_here() {
            // The table holds a reference of its own, which would keep the ring, and what is armed on it, alive.
            registration(&self.ring, UNREGISTER_RING_FDS, index);
        }
        if ended {
            return;
        }
        std::mem::forget(std::mem::take(&mut self.slots));
        if let Some(buffers) = self.buffers.take() {
            buffers.leak();
        }
    }
}

/// `IORING_REGISTER_RING_FDS`.
const REGISTER_RING_FDS: u32 = 20;
/// `IORING_UNREGISTER_RING_FDS`.
const UNREGISTER_RING_FDS: u32 = 21;

/// Registers the ring with the calling thread (kernel ≥ 5.18), which saves looking its descriptor up at every call, or
/// undoes that; the index it has in the thread's table. `None` where the kernel can't: then the descriptor is used.
fn registration(ring: &IoUring, operation: u32, index: u32) -> Option<u32> {
    /// `struct io_uring_rsrc_update`.
    #[repr(C)]
    struct Update {
        offset: u32,
        reserved: u32,
        data: u64,
    }
    let fd = ring.as_raw_fd();
    let data = if operation == REGISTER_RING_FDS { fd as u64 } else { 0 };
    let mut update = Update { offset: index, reserved: 0, data };
    // SAFETY: `update` is one valid, writable entry for the duration of the call.
    let done = unsafe {
        let update = std::ptr::from_mut(&mut update);
        libc::syscall(libc::SYS_io_uring_register, fd, operation, update, 1)
    };
    (done == 1).then_some(update.offset)
}

/// A number of the calling thread's that no other thread ever has: registered rings belong to threads.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: Cell<u64> = const { Cell::new(0) });
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::reactor::Segment;

    #[test]
    fn user_data_is_the_token_and_the_operation() {
        let check = |slot, generation, operation: Operation| {
            let token = Token { slot, generation };
            let user_data = operation.user_data(token);
            assert_eq!((token_of(user_data), Operation::of(user_data) == operation), (token, true));
        };
        check(0, 0, Operation::Ignored);
        check(u32::MAX, (1 << Token::GENERATION_BITS) - 1, Operation::Wake);
        check(7, 9, Operation::Writable);
        assert!(Operation::of(0xff) == Operation::Ignored);
    }

    fn connected(ring: &mut Ring) -> (UnixStream, UnixStream, Token) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let token = Token { slot: 0, generation: 3 };
        ring.slots.resize_with(1, Slot::default);
        ring.slots[0] = Slot { generation: token.generation, socket: ours.as_raw_fd(), ..Slot::default() };
        ring.in_flight += 1;
        (ours, theirs, token)
    }

    /// The kernel gives up waiting for room only on a busy machine, so its completion is made here.
    #[test]
    fn a_send_that_the_ring_gave_up_is_made_when_there_is_room() {
        let mut ring = Ring::new(Settings::default(), Waker::shared().unwrap()).unwrap();
        let (ours, mut theirs, token) = connected(&mut ring);
        let mut filled = 0;
        while let Ok(sent) = (&ours).write(&[1; 4096]) {
            filled += sent;
        }
        let mut outgoing = Outgoing::new();
        outgoing.push(Segment::Bytes(b"later".to_vec()));
        ring.slots[0].sending = Some(Box::new(outgoing));
        assert!(ring.completion(Operation::Send.user_data(token), -libc::EAGAIN, 0).is_none());

        theirs.read_exact(&mut vec![0; filled]).unwrap();
        let event = loop {
            ring.turn(Some(Duration::from_secs(10))).unwrap();
            if let Some(event) = ring.next_event() {
                break event;
            }
        };
        assert!(matches!(event, Event::Sent { token: sent, result: Ok(5), .. } if sent == token));
        let mut bytes = [0; 5];
        theirs.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"later");
        assert_eq!(ring.in_flight(), 0);
    }

    /// As above, for a receive: it ends as if it had been paused, so that whoever wants more receives anew.
    #[test]
    fn a_receive_that_the_ring_gave_up_is_no_failure() {
        let mut ring = Ring::new(Settings::default(), Waker::shared().unwrap()).unwrap();
        let (_ours, _theirs, token) = connected(&mut ring);
        ring.slots[0].receiving = Receiving::Armed;
        let event = ring.completion(Operation::Receive.user_data(token), -libc::EAGAIN, 0);
        let Some(Event::Received { result: Err(error), armed: false, .. }) = event else { panic!("no end") };
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        assert_eq!(ring.in_flight(), 0);
    }

    /// As above, for an accept: it finds nobody when another process has taken the connection.
    #[test]
    fn an_accept_that_finds_nobody_goes_on() {
        let mut ring = Ring::new(Settings::default(), Waker::shared().unwrap()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let token = Token { slot: 0, generation: 0 };
        ring.in_flight += 1;
        ring.listeners.push(Listener { token, socket: listener.as_raw_fd(), cancelled: false });
        assert!(ring.completion(Operation::Accept.user_data(token), -libc::EAGAIN, 0).is_none());
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let event = loop {
            ring.turn(Some(Duration::from_secs(10))).unwrap();
            if let Some(event) = ring.next_event() {
                break event;
            }
        };
        assert!(matches!(event, Event::Accepted { .. }));
    }

    /// A thread has room for 16 registered rings: one that is dropped must give its place back.
    #[test]
    fn dropped_rings_are_unregistered() {
        for _ in 0..20 {
            let ring = Ring::new(Settings { entries: 8, ..Settings::default() }, Waker::shared().unwrap()).unwrap();
            assert!(ring.registered_here().is_some());
        }
    }

    #[test]
    fn entries_behind_a_backlog_keep_their_order_and_are_submitted() {
        let mut ring = Ring::new(Settings { entries: 2, ..Settings::default() }, Waker::shared().unwrap()).unwrap();
        let pairs: Vec<_> = (0..9).map(|_| UnixStream::pair().unwrap()).collect();
        ring.backlog.push_back(opcode::Nop::new().build());
        for (slot, (ours, peer)) in pairs.iter().enumerate() {
            (&*peer).write_all(b"word").unwrap();
            ring.receive(ours.as_raw_fd(), Token { slot: slot as u32, generation: 0 });
        }
        assert_eq!(ring.backlog.len(), 10);
        let mut order = Vec::new();
        while order.len() < 9 {
            ring.turn(Some(DROP_WAIT)).unwrap();
            while let Some(event) = ring.next_event() {
                let Event::Received { token, result, .. } = event else { panic!() };
                ring.release(result.unwrap());
                order.push(token.slot);
            }
        }
        assert_eq!(order, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn winding_up_ends_what_is_in_flight() {
        let mut ring = Ring::new(Settings::default(), Waker::shared().unwrap()).unwrap();
        let (ours, _peer) = UnixStream::pair().unwrap();
        let token = Token { slot: 1, generation: 1 };
        let mut outgoing = Box::new(Outgoing::new());
        outgoing.push(crate::reactor::Segment::Bytes(vec![0; 16 << 20]));
        ours.set_nonblocking(true).unwrap();
        ring.receive(ours.as_raw_fd(), token);
        ring.send(ours.as_raw_fd(), token, outgoing);
        ring.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!((ring.in_flight(), ring.wind_up(), ring.in_flight()), (2, true, 0));
    }

    /// Eight buffers, one connection with two hundred buffers' worth, and twenty with a word each.
    #[test]
    fn a_backlog_takes_no_more_than_its_turn_of_the_buffers() {
        let mut ring =
            Ring::new(Settings { buffers: 8, buffer_bytes: 1024, ..Settings::default() }, Waker::shared().unwrap())
                .unwrap();
        let pairs: Vec<_> = (0..21).map(|_| UnixStream::pair().unwrap()).collect();
        socket2::SockRef::from(&pairs[0].1).set_send_buffer_size(1 << 20).unwrap();
        for (slot, (ours, peer)) in pairs.iter().enumerate() {
            ours.set_nonblocking(true).unwrap();
            (&*peer).write_all(&vec![b'x'; if slot == 0 { 200_000 } else { 5 }]).unwrap();
            ring.receive(ours.as_raw_fd(), Token { slot: slot as u32, generation: 0 });
        }
        let (mut greedy, mut served) = (0, 0);
        while served < 20 {
            ring.turn(Some(DROP_WAIT)).unwrap();
            while let Some(event) = ring.next_event() {
                let Event::Received { token, result, armed } = event else { panic!() };
                let buffer = result.unwrap();
                *(if token.slot == 0 { &mut greedy } else { &mut served }) += 1;
                ring.release(buffer);
                if !armed {
                    ring.receive(pairs[token.slot as usize].0.as_raw_fd(), token);
                }
            }
        }
        assert!(greedy < 50, "{greedy} receptions came before the last of the others");
    }
}
