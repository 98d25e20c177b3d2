//! The driver on the tokio-uring crate: one-shot operations through its runtime, one `block_on` per turn.
//!
//! It is there to be measured against, and isn't the default: tokio-uring 0.5 waits in epoll for its ring, which can
//! therefore have neither DEFER_TASKRUN (it would hang) nor multishot operations (it would panic).
//! It isn't `Send`: a tokio-uring runtime belongs to the thread that made it.
//!
//! Receiving is a poll and then recv(2) into one shared buffer, so an idle connection holds no buffer. tokio-uring
//! sets every entry's user data itself, so an operation can be cancelled by its descriptor only, which meets every
//! operation on it: a send that was met by a pause meant for the receive has sent nothing and is submitted again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use io_uring_06::types::{CancelBuilder, Fd};
use io_uring_06::{cqueue, opcode, squeue};
use slab::Slab;
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, Runtime, UnsubmittedOneshot};

use super::socket::{self, Message, Step};
use super::{Buffer, Driver, Event, Outgoing, Token, Waker};
use crate::limits::{FILE_BYTES_PER_TURN_MAX, RING_ENTRIES, SHARED_BUFFER_BYTES};

/// How long dropping the driver waits for the operations it has cancelled.
const DROP_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Accept,
    /// A poll for something to read.
    Readable,
    Send,
    /// A poll for room in a socket, before a step made here: a file's, or of what a send found no room for.
    Writable,
    Wake,
    /// Cancellations, and the no-operation that ends a turn at once.
    Ignored,
}

/// What an operation is about, and the memory that the kernel reads for it: all of it on the heap, behind boxes,
/// because tokio-uring moves this value.
struct Payload {
    operation: Operation,
    token: Token,
    descriptor: RawFd,
    outgoing: Option<Box<Outgoing>>,
    message: Option<Box<Message>>,
}

/// Hands the payload back together with the result.
struct Finish;

impl OneshotOutputTransform for Finish {
    type Output = (Payload, i32);
    type StoredData = Payload;

    fn transform_oneshot_output(self, payload: Payload, completion: cqueue::Entry) -> Self::Output {
        (payload, completion.result())
    }
}

type Unsubmitted = UnsubmittedOneshot<Payload, Finish>;
type InFlight = InFlightOneshot<Payload, Finish>;

/// Which operations have completed. tokio-uring wakes while it has its own state borrowed: nothing but this list is
/// touched then. All on one thread, so the lock is never waited for.
#[derive(Default)]
struct Completed {
    keys: Vec<usize>,
    turn: Option<std::task::Waker>,
}

/// Wakes for one place in the slab of operations; made once per place.
struct Notify {
    key: usize,
    completed: Arc<Mutex<Completed>>,
}

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut completed = self.completed.lock().unwrap_or_else(PoisonError::into_inner);
        completed.keys.push(self.key);
        if let Some(turn) = completed.turn.take() {
            turn.wake();
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Receiving {
    #[default]
    Idle,
    Armed,
    Stopping,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    receiving: Receiving,
}

struct Listener {
    token: Token,
    cancelled: bool,
}

/// The operations that tokio-uring has, and those that finished.
struct Operations {
    in_flight: Slab<InFlight>,
    /// By place in the slab.
    wakers: Vec<std::task::Waker>,
    completed: Arc<Mutex<Completed>>,
    /// Swapped with the completed keys, so that neither is allocated again.
    keys: Vec<usize>,
    finished: VecDeque<(Payload, i32)>,
}

impl Operations {
    /// Submits an operation; inside the runtime only.
    fn submit(&mut self, operation: Unsubmitted) {
        let key = self.in_flight.insert(operation.submit());
        while self.wakers.len() <= key {
            let notify = Notify { key: self.wakers.len(), completed: self.completed.clone() };
            self.wakers.push(Arc::new(notify).into());
        }
        self.poll(key);
    }

    fn poll(&mut self, key: usize) {
        let Some(operation) = self.in_flight.get_mut(key) else { return };
        let mut context = Context::from_waker(&self.wakers[key]);
        if let Poll::Ready(finished) = Future::poll(Pin::new(operation), &mut context) {
            self.in_flight.remove(key);
            self.finished.push_back(finished);
        }
    }

    /// Takes what has completed. If that is nothing, `turn` is woken when it is something.
    fn reap(&mut self, turn: &std::task::Waker) -> Poll<()> {
        let mut completed = self.completed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut completed.keys, &mut self.keys);
        completed.turn = self.keys.is_empty().then(|| turn.clone());
        drop(completed);
        let keys = std::mem::take(&mut self.keys);
        for &key in &keys {
            self.poll(key);
        }
        self.keys = keys;
        self.keys.clear();
        if self.finished.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// The tokio-uring driver.
pub struct TokioUring {
    /// Dropped by hand: what can't be reaped in time is leaked together with the runtime.
    runtime: ManuallyDrop<Runtime>,
    operations: ManuallyDrop<RefCell<Operations>>,
    /// To be submitted in the next turn: only inside the runtime can anything be.
    unsubmitted: Vec<Unsubmitted>,
    slots: Vec<Slot>,
    listeners: Vec<Listener>,
    files: VecDeque<Payload>,
    /// What this turn may still send of files; see [`FILE_BYTES_PER_TURN_MAX`].
    file_bytes_left: usize,
    buffer: Box<[u8]>,
    #[expect(clippy::vec_box, reason = "the kernel points at them while they are in flight")]
    messages: Vec<Box<Message>>,
    in_flight: usize,
    closing: bool,
    waker: Arc<Waker>,
}

/// A runtime with the best flags this kernel takes.
fn runtime() -> io::Result<Runtime> {
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for (single, cooperative) in [(true, true), (false, true), (false, false)] {
        let mut ring = tokio_uring::uring_builder();
        ring.setup_cqsize(RING_ENTRIES * 4);
        if single {
            ring.setup_single_issuer();
        }
        if cooperative {
            ring.setup_coop_taskrun();
        }
        let mut builder = tokio_uring::builder();
        builder.entries(RING_ENTRIES).uring_builder(&ring);
        match Runtime::new(&builder) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            result => return result,
        }
    }
    Err(last)
}

impl TokioUring {
    /// A driver for the calling thread, on which no other tokio runtime may be running.
    ///
    /// # Errors
    /// What io_uring_setup(2) or the making of a tokio runtime reports.
    pub fn new(waker: Arc<Waker>) -> io::Result<Self> {
        let operations = Operations {
            in_flight: Slab::new(),
            wakers: Vec::new(),
            completed: Arc::default(),
            keys: Vec::new(),
            finished: VecDeque::new(),
        };
        let mut driver = Self {
            runtime: ManuallyDrop::new(runtime()?),
            operations: ManuallyDrop::new(RefCell::new(operations)),
            unsubmitted: Vec::new(),
            slots: Vec::new(),
            listeners: Vec::new(),
            files: VecDeque::new(),
            file_bytes_left: 0,
            buffer: vec![0; SHARED_BUFFER_BYTES].into_boxed_slice(),
            messages: Vec::new(),
            in_flight: 0,
            closing: false,
            waker,
        };
        driver.watch_waker();
        Ok(driver)
    }

    fn queue(&mut self, payload: Payload, entry: squeue::Entry) {
        self.unsubmitted.push(UnsubmittedOneshot::new(payload, Finish, entry));
    }

    fn queue_bare(&mut self, operation: Operation, token: Token, descriptor: RawFd, entry: squeue::Entry) {
        self.queue(Payload { operation, token, descriptor, outgoing: None, message: None }, entry);
    }

    fn watch_waker(&mut self) {
        let descriptor = self.waker.as_raw_fd();
        let entry = opcode::PollAdd::new(Fd(descriptor), libc::POLLIN as u32).build();
        self.queue_bare(Operation::Wake, Token { slot: 0, generation: 0 }, descriptor, entry);
    }

    fn cancel(&mut self, descriptor: RawFd, token: Token) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(descriptor)).all()).build();
        self.queue_bare(Operation::Ignored, token, descriptor, entry);
    }

    fn arm_accept(&mut self, listener: RawFd, token: Token) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let none = std::ptr::null_mut();
        let entry = opcode::Accept::new(Fd(listener), none, none.cast()).flags(flags).build();
        self.queue_bare(Operation::Accept, token, listener, entry);
    }

    fn arm_receive(&mut self, socket: RawFd, token: Token) {
        let entry = opcode::PollAdd::new(Fd(socket), (libc::POLLIN | libc::POLLRDHUP) as u32).build();
        self.queue_bare(Operation::Readable, token, socket, entry);
    }

    /// Submits a send of memory, or puts one of a file among those waiting for their step.
    fn arm_send(&mut self, mut payload: Payload) {
        let Some(outgoing) = payload.outgoing.as_ref().filter(|outgoing| outgoing.leading_file().is_none()) else {
            self.files.push_back(payload);
            return;
        };
        if payload.message.is_none() {
            payload.message = self.messages.pop();
        }
        let entry = match socket::memory_step(outgoing, &mut payload.message) {
            Step::One(front) => {
                let length = front.length as u32;
                opcode::Send::new(Fd(payload.descriptor), front.start, length).flags(front.flags).build()
            }
            Step::Several(flags) => {
                let header = payload.message.as_ref().map_or(std::ptr::null(), |message| message.header());
                opcode::SendMsg::new(Fd(payload.descriptor), header).flags(flags as u32).build()
            }
        };
        payload.operation = Operation::Send;
        self.queue(payload, entry);
    }

    /// The slot that a completion is for, if its connection still has it.
    fn slot_of(&mut self, token: Token) -> Option<&mut Slot> {
        self.slots.get_mut(token.slot as usize).filter(|slot| slot.generation == token.generation)
    }

    fn event(&mut self, payload: Payload, result: i32) -> Option<Event> {
        match payload.operation {
            Operation::Accept => self.accepted(&payload, result),
            Operation::Readable => self.readable(&payload, result),
            Operation::Send => self.sent(payload, result),
            Operation::Writable if result < 0 && self.closing => self.sent(payload, result),
            // Room, or met by a cancellation that wasn't meant for it: the next step, in its turn, tells.
            Operation::Writable => {
                self.files.push_back(payload);
                None
            }
            Operation::Wake => {
                self.waker.drain();
                self.watch_waker();
                Some(Event::Woken)
            }
            Operation::Ignored => None,
        }
    }

    fn accepted(&mut self, payload: &Payload, result: i32) -> Option<Event> {
        let (listener, descriptor) = (payload.token, payload.descriptor);
        let index = self.listeners.iter().position(|known| known.token == listener)?;
        let cancelled = self.listeners[index].cancelled;
        if result >= 0 {
            if cancelled {
                // The cancellation came too late for this one. Armed again, it would take whatever is queued.
                let ended = Payload {
                    operation: Operation::Accept,
                    token: listener,
                    descriptor,
                    outgoing: None,
                    message: None,
                };
                self.operations.get_mut().finished.push_front((ended, -libc::ECANCELED));
            } else {
                self.arm_accept(descriptor, listener);
            }
            return Some(Event::Accepted { listener, socket: socket::accepted(result) });
        }
        if !cancelled && socket::concerns_one_connection(-result) {
            self.arm_accept(descriptor, listener);
            return None;
        }
        self.listeners.swap_remove(index);
        self.in_flight -= 1;
        let error = if cancelled { socket::cancelled() } else { io::Error::from_raw_os_error(-result) };
        Some(Event::AcceptEnded { listener, error })
    }

    fn readable(&mut self, payload: &Payload, result: i32) -> Option<Event> {
        let (token, socket) = (payload.token, payload.descriptor);
        let stopping = self.slot_of(token).is_none_or(|slot| slot.receiving == Receiving::Stopping);
        let received = if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else {
            match socket::receive(socket, &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stopping => {
                    self.arm_receive(socket, token);
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(socket::cancelled()),
                result => result,
            }
        };
        let armed = !stopping && received.as_ref().is_ok_and(|&length| length > 0);
        if armed {
            self.arm_receive(socket, token);
        } else {
            self.in_flight -= 1;
            if let Some(slot) = self.slot_of(token) {
                slot.receiving = Receiving::Idle;
            }
        }
        let result = received.map(|length| Buffer { id: 0, length: length as u32 });
        Some(Event::Received { token, result, armed })
    }

    fn sent(&mut self, payload: Payload, result: i32) -> Option<Event> {
        let result = match result {
            0 => Err(io::ErrorKind::WriteZero.into()),
            sent if sent > 0 => Ok(sent as usize),
            error if error == -libc::ECANCELED && !self.closing => {
                self.arm_send(payload);
                return None;
            }
            error if socket::is_without_room(-error) => {
                self.poll_room(payload);
                return None;
            }
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        self.send_ended(payload, result)
    }

    fn send_ended(&mut self, payload: Payload, result: io::Result<usize>) -> Option<Event> {
        self.messages.extend(payload.message);
        let outgoing = payload.outgoing?;
        self.in_flight -= 1;
        Some(Event::Sent { token: payload.token, outgoing, result })
    }

    /// One step made here, without waiting; when the socket has no room, a poll for it.
    fn step(&mut self, mut payload: Payload) -> Option<Event> {
        match socket::send(payload.descriptor, payload.outgoing.as_ref()?, &mut payload.message) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poll_room(payload);
                None
            }
            result => self.send_ended(payload, result),
        }
    }

    fn poll_room(&mut self, mut payload: Payload) {
        payload.operation = Operation::Writable;
        let entry = opcode::PollAdd::new(Fd(payload.descriptor), libc::POLLOUT as u32).build();
        self.queue(payload, entry);
    }

    /// Runs the runtime until something has completed or `timeout` is over. tokio's timers count whole milliseconds, so
    /// not to wait at all is done with a no-operation that completes at once.
    fn run(&mut self, timeout: Option<Duration>) {
        if timeout == Some(Duration::ZERO) {
            let entry = opcode::Nop::new().build();
            self.queue_bare(Operation::Ignored, Token { slot: 0, generation: 0 }, -1, entry);
        }
        let (operations, unsubmitted) = (&*self.operations, &mut self.unsubmitted);
        self.runtime.block_on(async {
            for operation in unsubmitted.drain(..) {
                operations.borrow_mut().submit(operation);
            }
            let completion = std::future::poll_fn(|context| operations.borrow_mut().reap(context.waker()));
            match timeout {
                Some(timeout) if timeout > Duration::ZERO => {
                    // Time over is as good as an event: the caller looks at its own clock.
                    let _ = tokio::time::timeout(timeout, completion).await;
                }
                _ => completion.await,
            }
        });
    }
}

impl Driver for TokioUring {
    const NAME: &'static str = "tokio-uring";

    fn accept(&mut self, listener: RawFd, token: Token) {
        self.in_flight += 1;
        self.listeners.push(Listener { token, cancelled: false });
        self.arm_accept(listener, token);
    }

    fn cancel_accept(&mut self, listener: RawFd, token: Token) {
        let Some(known) = self.listeners.iter_mut().find(|known| known.token == token) else { return };
        if !std::mem::replace(&mut known.cancelled, true) {
            self.cancel(listener, token);
        }
    }

    fn receive(&mut self, socket: RawFd, token: Token) {
        let index = token.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        self.slots[index] = Slot { generation: token.generation, receiving: Receiving::Armed };
        self.in_flight += 1;
        self.arm_receive(socket, token);
    }

    fn pause(&mut self, socket: RawFd, token: Token) {
        let Some(slot) = self.slot_of(token).filter(|slot| slot.receiving == Receiving::Armed) else { return };
        slot.receiving = Receiving::Stopping;
        self.cancel(socket, token);
    }

    fn send(&mut self, socket: RawFd, token: Token, outgoing: Box<Outgoing>) {
        debug_assert!(!outgoing.is_empty(), "something to send");
        self.in_flight += 1;
        let operation = Operation::Send;
        self.arm_send(Payload { operation, token, descriptor: socket, outgoing: Some(outgoing), message: None });
    }

    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.file_bytes_left = FILE_BYTES_PER_TURN_MAX;
        let busy = !self.files.is_empty() || !self.operations.get_mut().finished.is_empty();
        self.run(if busy { Some(Duration::ZERO) } else { timeout });
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event> {
        while let Some((payload, result)) = self.operations.get_mut().finished.pop_front() {
            if let Some(event) = self.event(payload, result) {
                return Some(event);
            }
        }
        while self.file_bytes_left > 0 {
            let payload = self.files.pop_front()?;
            if let Some(event) = self.step(payload) {
                if let Event::Sent { result: Ok(sent), .. } = event {
                    self.file_bytes_left = self.file_bytes_left.saturating_sub(sent);
                }
                return Some(event);
            }
        }
        None
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        &self.buffer[..buffer.length as usize]
    }

    fn release(&mut self, _buffer: Buffer) {}

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

impl TokioUring {
    /// Cancels everything and takes completions until tokio-uring has no operation left; says whether that came true.
    fn wind_up(&mut self) -> bool {
        let give_up = Instant::now() + DROP_WAIT;
        self.closing = true;
        self.files.clear();
        // Never submitted, so nobody points at it.
        self.unsubmitted.clear();
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        self.queue_bare(Operation::Ignored, Token { slot: 0, generation: 0 }, -1, entry);
        while !self.operations.get_mut().in_flight.is_empty() || !self.unsubmitted.is_empty() {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.run(Some(left));
            for (payload, result) in std::mem::take(&mut self.operations.get_mut().finished) {
                if payload.operation == Operation::Accept && result >= 0 {
                    drop(socket::accepted(result));
                }
            }
        }
        true
    }
}

impl Drop for TokioUring {
    /// Ends what is in flight. What the kernel hasn't given up in time is leaked with the runtime, whose own drop would
    /// wait for it without a bound.
    #[expect(unsafe_code, reason = "ManuallyDrop: two ways of ending")]
    fn drop(&mut self) {
        if self.wind_up() {
            // SAFETY: dropped here and nowhere else, and not used after; the operations (none are left) first.
            unsafe {
                ManuallyDrop::drop(&mut self.operations);
                ManuallyDrop::drop(&mut self.runtime);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::reactor::Segment;

    /// The kernel gives up waiting for room only on a busy machine, so its completion is made here.
    #[test]
    fn a_send_that_the_ring_gave_up_is_made_when_there_is_room() {
        let mut driver = TokioUring::new(Waker::shared().unwrap()).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut filled = 0;
        while let Ok(sent) = (&ours).write(&[1; 4096]) {
            filled += sent;
        }
        let mut outgoing = Outgoing::new();
        outgoing.push(Segment::Bytes(b"later".to_vec()));
        driver.in_flight += 1;
        let payload = Payload {
            operation: Operation::Send,
            token: Token { slot: 0, generation: 3 },
            descriptor: ours.as_raw_fd(),
            outgoing: Some(Box::new(outgoing)),
            message: None,
        };
        assert!(driver.event(payload, -libc::EAGAIN).is_none());

        theirs.read_exact(&mut vec![0; filled]).unwrap();
        let event = loop {
            driver.turn(Some(Duration::from_secs(10))).unwrap();
            if let Some(event) = driver.next_event() {
                break event;
            }
        };
        assert!(matches!(event, Event::Sent { result: Ok(5), .. }));
        let mut bytes = [0; 5];
        theirs.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"later");
        assert_eq!(driver.in_flight(), 0);
    }
}
