//! Notices on their way to parked requests: from any thread of the process to every reactor.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::bus::{Bus, Read, Reader};
use super::exchange::{Mailbox, Message};
use super::park::{Action, Missed, Notice, Recent, split};
use crate::limits;

/// How long the thread that listens to other processes waits before it looks whether it is still needed.
const LISTEN: Duration = Duration::from_secs(1);
/// How long a record may take to be written, in steps.
const UNFINISHED_STEP: Duration = Duration::from_millis(5);
const UNFINISHED_STEPS: usize = 40;

/// What reactors, workers and applications share of parked requests.
#[derive(Default)]
pub struct Notifier {
    recent: Mutex<Recent>,
    /// The number of the last notice.
    latest: AtomicU64,
    mailboxes: Vec<Arc<Mailbox>>,
    /// Requests parked in the process.
    parked: AtomicUsize,
    /// The way to the other processes, and the name of this one there.
    bus: Option<(Arc<Bus>, u32)>,
}

impl Notifier {
    /// One that tells these reactors, and other processes by a bus on which this one has a name.
    pub fn new(mailboxes: Vec<Arc<Mailbox>>, bus: Option<(Arc<Bus>, u32)>) -> Self {
        Self { mailboxes, bus, ..Self::default() }
    }

    /// Wakes whatever is parked on one of `channels`, a list. Later notices never overtake earlier ones of the same process.
    pub fn notify(&self, channels: &str, action: Action, arg: &str) {
        let channels = names(channels);
        if channels.is_empty() {
            return;
        }
        if let Some((bus, name)) = &self.bus {
            bus.write(*name, &written(&channels, action, arg.as_bytes()));
        }
        self.deliver(channels, action, arg.as_bytes());
    }

    /// To the reactors of this process. Without channels it concerns everybody.
    fn deliver(&self, channels: Vec<Vec<u8>>, action: Action, arg: &[u8]) {
        let mut recent = self.lock();
        let notice: Arc<Notice> = recent.add(channels, action, arg);
        self.latest.store(notice.sequence, Ordering::SeqCst);
        // Posted under the lock: whoever parks after it has looked at the recent ones, or will read this.
        for mailbox in &self.mailboxes {
            mailbox.post(Message::Notice(Arc::clone(&notice)));
        }
        drop(recent);
        self.mailboxes.iter().for_each(|mailbox| mailbox.wake());
    }

    /// Starts the thread that hears the other processes, if there can be others. It ends when the notifier is dropped.
    ///
    /// # Errors
    /// When there can't be another thread.
    pub fn listen(self: &Arc<Self>) -> io::Result<()> {
        let Some((bus, name)) = self.bus.clone() else { return Ok(()) };
        let (this, reader) = (Arc::downgrade(self), bus.reader());
        thread::Builder::new().name("hoopsnake-notices".to_owned()).spawn(move || hear(&this, &bus, reader, name))?;
        Ok(())
    }

    /// Worker, when it starts a request: the number of the last notice before that.
    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::SeqCst)
    }

    /// Reactor, when it parks a request: a notice that came since it was started.
    pub fn missed(&self, since: u64, channels: &[&[u8]]) -> Option<Missed> {
        if self.latest() == since {
            return None;
        }
        self.lock().missed(since, channels)
    }

    /// Reactor: one more is parked. False if that is too many.
    pub fn enter(&self) -> bool {
        let before = self.parked.fetch_add(1, Ordering::Relaxed);
        if before >= limits::PARKED_REQUESTS_MAX {
            self.leave();
            return false;
        }
        true
    }

    /// Reactor: one less is parked.
    pub fn leave(&self) {
        self.parked.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests parked in the process.
    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the other processes only: for one that has no requests yet.
pub fn pass_on(bus: &Bus, name: u32, channels: &str, action: Action, arg: &str) {
    let channels = names(channels);
    if !channels.is_empty() {
        bus.write(name, &written(&channels, action, arg.as_bytes()));
    }
}

/// Hears the other processes, until the notifier is gone.
fn hear(notifier: &Weak<Notifier>, bus: &Bus, mut reader: Reader, name: u32) {
    let mut unfinished = 0;
    loop {
        let rung = bus.rung();
        let Some(notifier) = notifier.upgrade() else { return };
        let found = reader.read(bus);
        if found != Read::Unfinished {
            unfinished = 0;
        }
        match found {
            Read::Nothing => {
                drop(notifier);
                bus.wait(rung, LISTEN);
            }
            Read::Record { origin, .. } if origin == name => {}
            Read::Record { bytes, .. } => match read(&bytes) {
                Some((channels, action, arg)) => notifier.deliver(channels, action, &arg),
                None => tracing::error!("a notice of another process can't be read"),
            },
            Read::Unfinished if unfinished < UNFINISHED_STEPS => {
                unfinished += 1;
                drop(notifier);
                // Not until the bell rings: other records ring it too, and its writer has this time whatever they do.
                thread::sleep(UNFINISHED_STEP);
            }
            Read::Unfinished | Read::Lost => {
                reader.skip(bus);
                tracing::warn!("notices of other processes were lost: all parked requests are run again");
                notifier.deliver(Vec::new(), Action::Retry, b"");
            }
        }
    }
}

/// A notice as bytes: the action, then each text with its length before it, the argument first.
fn written(channels: &[Vec<u8>], action: Action, arg: &[u8]) -> Vec<u8> {
    let mut bytes = vec![action.number()];
    for text in std::iter::once(arg).chain(channels.iter().map(Vec::as_slice)) {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text);
    }
    bytes
}

/// What [`written`] has written; none for what it hasn't.
fn read(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, Action, Vec<u8>)> {
    let (&action, mut rest) = bytes.split_first()?;
    let mut texts = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        texts.push(text.to_vec());
        rest = after;
    }
    if texts.len() < 2 {
        return None;
    }
    let arg = texts.remove(0);
    Some((texts, Action::from_number(action.into()), arg))
}

/// The channels in a list as bytes. A name that isn't ASCII may have been given in a response field as it is (then its bytes are
/// latin-1), or encoded as UTF-8 before that: both are meant.
fn names(channels: &str) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = split(channels.as_bytes()).map(<[u8]>::to_vec).collect();
    let latin1 = |name: &Vec<u8>| -> Option<Vec<u8>> {
        let text = std::str::from_utf8(name).ok().filter(|text| !text.is_ascii())?;
        text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect()
    };
    let others: Vec<Vec<u8>> = names.iter().filter_map(latin1).collect();
    names.extend(others);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Waker;

    #[test]
    fn every_reactor_is_told_in_order() {
        let mailbox = || Arc::new(Mailbox { queue: Default::default(), waker: Waker::shared().unwrap() });
        let mailboxes = vec![mailbox(), mailbox()];
        let notifier = Notifier::new(mailboxes.clone(), None);
        assert_eq!(notifier.latest(), 0);
        notifier.notify("a, b", Action::Retry, "x");
        notifier.notify(" , ", Action::Retry, "nobody");
        notifier.notify("é,c", Action::NoContent, "");
        assert_eq!(notifier.latest(), 2);
        for mailbox in mailboxes {
            let read = || match mailbox.queue.pop() {
                Some(Message::Notice(notice)) => (notice.sequence, notice.channels.clone(), notice.arg.to_vec()),
                _ => panic!("a notice"),
            };
            assert_eq!(read(), (1, vec![b"a".to_vec(), b"b".to_vec()], b"x".to_vec()));
            assert_eq!(read(), (2, vec!["é".as_bytes().to_vec(), b"c".to_vec(), vec![0xe9]], Vec::new()));
            assert!(mailbox.queue.pop().is_none());
        }
        assert_eq!(notifier.missed(2, &[b"c"]), None);
        assert!(matches!(notifier.missed(1, &[b"c"]), Some(Missed::Notice(_))));
    }

    #[test]
    fn no_more_are_parked_than_the_limit_says() {
        let notifier = Notifier::default();
        assert!((0..limits::PARKED_REQUESTS_MAX).all(|_| notifier.enter()));
        assert!(!notifier.enter() && !notifier.enter());
        assert_eq!(notifier.parked(), limits::PARKED_REQUESTS_MAX);
        notifier.leave();
        assert!(notifier.enter());
    }

    #[test]
    fn what_is_written_is_read() {
        let channels = vec![b"a".to_vec(), b"bc".to_vec()];
        let bytes = written(&channels, Action::NoContent, b"arg");
        assert_eq!(read(&bytes), Some((channels, Action::NoContent, b"arg".to_vec())));
        for length in 0..bytes.len() {
            assert_ne!(read(&bytes[..length]), read(&bytes));
        }
        assert_eq!(read(&[1, 255, 255, 255, 255, 0]), None);
    }

    #[test]
    fn other_processes_hear_it_once_and_not_their_own() {
        let bus = Arc::new(Bus::new().unwrap());
        let side = |name| {
            let mailbox = Arc::new(Mailbox { queue: Default::default(), waker: Waker::shared().unwrap() });
            let notifier = Arc::new(Notifier::new(vec![Arc::clone(&mailbox)], Some((Arc::clone(&bus), name))));
            notifier.listen().unwrap();
            (notifier, mailbox)
        };
        let heard = |mailbox: &Mailbox| loop {
            match mailbox.queue.pop() {
                Some(Message::Notice(notice)) => return (notice.channels.clone(), notice.action, notice.arg.to_vec()),
                _ => thread::yield_now(),
            }
        };
        let ((one, inbox_of_one), (other, inbox_of_other)) = (side(1), side(2));
        one.notify("a,b", Action::Disconnect, "x");
        assert_eq!(heard(&inbox_of_other), (vec![b"a".to_vec(), b"b".to_vec()], Action::Disconnect, b"x".to_vec()));
        other.notify("c", Action::Retry, "");
        assert_eq!(heard(&inbox_of_one).0, [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(heard(&inbox_of_one).0, [b"c".to_vec()]);
        assert_eq!(heard(&inbox_of_other).0, [b"c".to_vec()]);
        pass_on(&bus, 3, "d", Action::Retry, "");
        assert_eq!((heard(&inbox_of_one).0, heard(&inbox_of_other).0), (vec![b"d".to_vec()], vec![b"d".to_vec()]));
    }
}
