//! A driver for tests: it notes what is asked of it, and what happens is what the test says. No kernel, no waiting.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use super::socket;
use super::{Buffer, Driver, Event, Outgoing, Token, Waker};

/// What was asked of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Driver::accept`].
    Accept(Token),
    /// [`Driver::cancel_accept`].
    CancelAccept(Token),
    /// [`Driver::receive`].
    Receive(Token),
    /// [`Driver::pause`], of a receive that was armed.
    Pause(Token),
    /// [`Driver::send`], of so many bytes.
    Send(Token, u64),
    /// [`Driver::turn`].
    Turn(Option<Duration>),
}

/// The scripted driver.
///
/// Misuse of the [`Driver`] contract (two sends at once, a receive armed twice, a buffer not given back) panics.
pub struct Scripted {
    operations: Vec<Operation>,
    events: VecDeque<Event>,
    accepting: HashSet<Token>,
    receiving: HashSet<Token>,
    pausing: HashSet<Token>,
    sending: HashMap<Token, Box<Outgoing>>,
    /// By token: every byte that was taken.
    sent: HashMap<Token, Vec<u8>>,
    automatic: Option<usize>,
    buffers: HashMap<u16, Vec<u8>>,
    next_buffer: u16,
    lent: usize,
    waker: Arc<Waker>,
}

impl Scripted {
    /// A driver to which nothing happens. Sends wait for [`Scripted::take_up`].
    ///
    /// # Errors
    /// When the process is out of descriptors (for the waker).
    pub fn new(waker: Arc<Waker>) -> io::Result<Self> {
        Ok(Self {
            operations: Vec::new(),
            events: VecDeque::new(),
            accepting: HashSet::new(),
            receiving: HashSet::new(),
            pausing: HashSet::new(),
            sending: HashMap::new(),
            sent: HashMap::new(),
            automatic: None,
            buffers: HashMap::new(),
            next_buffer: 0,
            lent: 0,
            waker,
        })
    }

    /// Lets every send complete at once, with at most `bytes` of it taken.
    pub fn take_up_automatically(&mut self, bytes: usize) {
        self.automatic = Some(bytes);
    }

    /// What was asked since the last call.
    pub fn operations(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.operations)
    }

    /// Every byte that connection has been sent since the last call.
    pub fn sent(&mut self, token: Token) -> Vec<u8> {
        self.sent.remove(&token).unwrap_or_default()
    }

    /// Whether receiving is armed and not being paused.
    pub fn is_receiving(&self, token: Token) -> bool {
        self.receiving.contains(&token) && !self.pausing.contains(&token)
    }

    /// Whether a send is waiting to be taken up.
    pub fn is_sending(&self, token: Token) -> bool {
        self.sending.contains_key(&token)
    }

    /// A connection comes in.
    pub fn accepted(&mut self, listener: Token, socket: OwnedFd) {
        assert!(self.accepting.contains(&listener), "accepting isn't armed");
        self.events.push_back(Event::Accepted { listener, socket });
    }

    /// Accepting fails.
    pub fn accept_fails(&mut self, listener: Token, error: io::Error) {
        assert!(self.accepting.remove(&listener), "accepting isn't armed");
        self.events.push_back(Event::AcceptEnded { listener, error });
    }

    /// Bytes come in.
    pub fn received(&mut self, token: Token, bytes: &[u8]) {
        assert!(self.is_receiving(token), "receiving isn't armed");
        let id = self.next_buffer;
        self.next_buffer = self.next_buffer.wrapping_add(1);
        self.buffers.insert(id, bytes.to_vec());
        let buffer = Buffer { id, length: bytes.len() as u32 };
        self.events.push_back(Event::Received { token, result: Ok(buffer), armed: true });
    }

    /// The peer has sent all it will send.
    pub fn end_of_stream(&mut self, token: Token) {
        assert!(self.is_receiving(token), "receiving isn't armed");
        self.receiving.remove(&token);
        let result = Ok(Buffer { id: self.next_buffer, length: 0 });
        self.events.push_back(Event::Received { token, result, armed: false });
    }

    /// Receiving fails.
    pub fn receive_fails(&mut self, token: Token, error: io::Error) {
        assert!(self.is_receiving(token), "receiving isn't armed");
        self.receiving.remove(&token);
        self.events.push_back(Event::Received { token, result: Err(error), armed: false });
    }

    /// The socket takes at most `bytes` of what is being sent.
    pub fn take_up(&mut self, token: Token, bytes: usize) {
        let outgoing = self.sending.remove(&token).expect("a send waits");
        let taken = front(&outgoing, bytes);
        let result = taken.as_ref().map(Vec::len).map_err(|error| error.kind().into());
        self.sent.entry(token).or_default().extend(taken.unwrap_or_default());
        self.events.push_back(Event::Sent { token, outgoing, result });
    }

    /// The send fails.
    pub fn send_fails(&mut self, token: Token, error: io::Error) {
        let outgoing = self.sending.remove(&token).expect("a send waits");
        self.events.push_back(Event::Sent { token, outgoing, result: Err(error) });
    }

    /// Another thread has woken the reactor.
    pub fn woken(&mut self) {
        self.events.push_back(Event::Woken);
    }
}

/// The first bytes of a queue, at most `limit`, from the memory in front of it or from the file that is there.
fn front(outgoing: &Outgoing, limit: usize) -> io::Result<Vec<u8>> {
    if let Some(range) = outgoing.front_file() {
        let mut bytes = vec![0; usize::try_from(range.length).unwrap_or(usize::MAX).min(limit)];
        let length = range.file.read_at(&mut bytes, range.offset)?;
        bytes.truncate(length);
        return if length == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) };
    }
    let mut slices = [io::IoSlice::new(&[]); crate::limits::SEND_SEGMENTS_MAX];
    let count = outgoing.gather(&mut slices);
    Ok(slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(limit).collect())
}

impl Driver for Scripted {
    const NAME: &'static str = "scripted";

    fn accept(&mut self, _listener: RawFd, token: Token) {
        self.operations.push(Operation::Accept(token));
        assert!(self.accepting.insert(token), "accepting already");
    }

    fn cancel_accept(&mut self, _listener: RawFd, token: Token) {
        self.operations.push(Operation::CancelAccept(token));
        if self.accepting.remove(&token) {
            self.events.push_back(Event::AcceptEnded { listener: token, error: socket::cancelled() });
        }
    }

    fn receive(&mut self, _socket: RawFd, token: Token) {
        self.operations.push(Operation::Receive(token));
        assert!(self.receiving.insert(token), "receiving already");
    }

    fn pause(&mut self, _socket: RawFd, token: Token) {
        if self.receiving.contains(&token) && self.pausing.insert(token) {
            self.operations.push(Operation::Pause(token));
            self.events.push_back(Event::Received { token, result: Err(socket::cancelled()), armed: false });
        }
    }

    fn send(&mut self, _socket: RawFd, token: Token, outgoing: Box<Outgoing>) {
        assert!(!outgoing.is_empty(), "something to send");
        self.operations.push(Operation::Send(token, outgoing.remaining()));
        assert!(self.sending.insert(token, outgoing).is_none(), "one send at a time");
        if let Some(bytes) = self.automatic {
            self.take_up(token, bytes);
        }
    }

    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.operations.push(Operation::Turn(timeout));
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event> {
        assert_eq!(self.lent, 0, "a buffer is given back before the next event is asked for");
        let event = self.events.pop_front()?;
        if let Event::Received { token, result, armed } = &event {
            self.lent = usize::from(result.is_ok());
            if !armed && self.pausing.remove(token) {
                self.receiving.remove(token);
            }
        }
        Some(event)
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        if buffer.length == 0 { &[] } else { &self.buffers[&buffer.id] }
    }

    fn release(&mut self, buffer: Buffer) {
        self.lent -= 1;
        self.buffers.remove(&buffer.id);
    }

    fn in_flight(&self) -> usize {
        let handed_out_as_ended = |event: &&Event| match event {
            Event::Received { token, armed: false, .. } => !self.receiving.contains(token),
            Event::AcceptEnded { .. } | Event::Sent { .. } => true,
            _ => false,
        };
        let ended = self.events.iter().filter(handed_out_as_ended).count();
        self.accepting.len() + self.receiving.len() + self.sending.len() + ended
    }

    fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Segment;

    const TOKEN: Token = Token { slot: 3, generation: 1 };

    fn outgoing(bytes: &[u8]) -> Box<Outgoing> {
        let mut outgoing = Box::new(Outgoing::new());
        outgoing.push(Segment::Bytes(bytes.to_vec()));
        outgoing
    }

    #[test]
    fn what_the_test_says_happens_and_what_is_asked_is_noted() {
        let mut driver = Scripted::new(Waker::shared().unwrap()).unwrap();
        driver.receive(0, TOKEN);
        driver.received(TOKEN, b"GET");
        driver.pause(0, TOKEN);
        driver.pause(0, TOKEN);
        assert_eq!((driver.is_receiving(TOKEN), driver.in_flight()), (false, 1));
        let Some(Event::Received { result: Ok(buffer), armed: true, .. }) = driver.next_event() else { panic!() };
        assert_eq!(driver.bytes(&buffer), b"GET");
        driver.release(buffer);
        let Some(Event::Received { result: Err(error), armed: false, .. }) = driver.next_event() else { panic!() };
        assert_eq!((error.raw_os_error(), driver.in_flight()), (Some(libc::ECANCELED), 0));

        driver.send(0, TOKEN, outgoing(b"answer"));
        driver.take_up(TOKEN, 4);
        assert_eq!(driver.in_flight(), 1);
        let Some(Event::Sent { result: Ok(4), outgoing, .. }) = driver.next_event() else { panic!() };
        assert_eq!((outgoing.remaining(), driver.sent(TOKEN), driver.in_flight()), (6, b"answ".to_vec(), 0));
        assert_eq!(
            driver.operations(),
            [Operation::Receive(TOKEN), Operation::Pause(TOKEN), Operation::Send(TOKEN, 6)]
        );
    }

    #[test]
    #[should_panic(expected = "one send at a time")]
    fn two_sends_at_once_are_misuse() {
        let mut driver = Scripted::new(Waker::shared().unwrap()).unwrap();
        driver.send(0, TOKEN, outgoing(b"a"));
        driver.send(0, TOKEN, outgoing(b"b"));
    }
}
