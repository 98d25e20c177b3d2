//! Starts one thread per reactor, each pinned to a core, with the driver that was chosen; waits for their ends.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::bell::Ringer;
use crate::observe::writer;
use crate::reactor::epoll::Epoll;
use crate::reactor::probe::Kind;
use crate::reactor::ring::{self, Ring};
use crate::reactor::tokio_uring::TokioUring;
use crate::reactor::{Driver, Waker, cpu};
use crate::serve::exchange::{Mailbox, Message};
use crate::serve::{Reactor, Shared};

/// What one reactor is started with.
pub struct Plan {
    /// Its listeners, and the index of each in the process.
    pub listeners: Vec<(OwnedFd, u16)>,
    /// The core it is pinned to; `None` to let the scheduler choose.
    pub core: Option<usize>,
    /// Its mailbox.
    pub mailbox: Arc<Mailbox>,
    /// Where its access-log lines go.
    pub log: Option<writer::Handle>,
    /// Whether other processes accept from the same listeners.
    pub shared_listeners: bool,
}

/// What a reactor's thread reports.
enum Report {
    /// It accepts connections.
    Ready,
    /// It could not start, or could not go on.
    Failed(io::Error),
    /// It was told to end and has ended.
    Ended,
}

/// The running reactors of this process.
pub struct Reactors {
    mailboxes: Vec<Arc<Mailbox>>,
    /// Whether each has answered since it was last asked.
    answered: Vec<Arc<AtomicBool>>,
    reports: Receiver<Report>,
    running: usize,
}

impl Reactors {
    /// Starts a thread for each plan and waits until all of them accept connections.
    /// `ringers`: one for each plan, rung when that reactor ends.
    ///
    /// # Errors
    /// A sentence, when one of them can't start.
    pub fn start(kind: Kind, plans: Vec<Plan>, shared: &Arc<Shared>, ringers: Vec<Ringer>) -> Result<Self, String> {
        let (sender, reports) = unbounded();
        let mut started = Self { mailboxes: Vec::new(), answered: Vec::new(), reports, running: 0 };
        for (index, (plan, ringer)) in plans.into_iter().zip(ringers).enumerate() {
            started.mailboxes.push(Arc::clone(&plan.mailbox));
            started.answered.push(Arc::new(AtomicBool::new(true)));
            let (shared, sender) = (Arc::clone(shared), sender.clone());
            thread::Builder::new()
                .name(format!("hoopsnake-reactor-{}", index + 1))
                .spawn(move || {
                    let ended = Ended { sender, ringer };
                    run(index as u16, kind, plan, shared, &ended);
                })
                .map_err(|error| {
                    format!("can't start a thread for a reactor: {error}; lower --reactors or raise `ulimit -u`")
                })?;
            started.running += 1;
        }
        for _ in 0..started.running {
            match started.reports.recv() {
                Ok(Report::Ready) => {}
                Ok(Report::Failed(error)) => {
                    return Err(format!("can't start a reactor: {error}; lower --reactors, or use --reactor epoll"));
                }
                Ok(Report::Ended) | Err(_) => return Err("a reactor ended before it began".into()),
            }
        }
        Ok(started)
    }

    /// Leaves a message with every reactor.
    pub fn tell(&self, message: fn() -> Message) {
        tell(&self.mailboxes, message);
    }

    /// Something that tells every reactor to drain, from another thread.
    pub fn drainer(&self) -> impl FnOnce() + Send + 'static {
        let mailboxes = self.mailboxes.clone();
        move || tell(&mailboxes, || Message::Drain)
    }

    /// Whether every reactor has answered since it was last asked; those that have are asked again.
    pub fn are_well(&self) -> bool {
        let mut all = true;
        for (mailbox, answered) in self.mailboxes.iter().zip(&self.answered) {
            if answered.swap(false, Ordering::Relaxed) {
                mailbox.post(Message::Answer(Arc::clone(answered)));
                mailbox.wake();
            } else {
                all = false;
            }
        }
        all
    }

    /// Whether every reactor has ended; waits for that at most `timeout`.
    ///
    /// # Errors
    /// A sentence, when one of them could not go on.
    pub fn have_ended(&mut self, timeout: Duration) -> Result<bool, String> {
        while self.running > 0 {
            match self.reports.recv_timeout(timeout) {
                Ok(Report::Ended) => self.running -= 1,
                Ok(Report::Ready) => {}
                Ok(Report::Failed(error)) => {
                    self.running -= 1;
                    return Err(format!("a reactor failed: {error}"));
                }
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => return Ok(true),
            }
        }
        Ok(true)
    }
}

/// Reports the end of a reactor's thread even if it panics.
struct Ended {
    sender: Sender<Report>,
    ringer: Ringer,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens any more when the main thread is leaving.
        let _ = self.sender.send(Report::Ended);
        self.ringer.ring();
    }
}

fn run(index: u16, kind: Kind, plan: Plan, shared: Arc<Shared>, ended: &Ended) {
    if let Some(core) = plan.core.filter(|core| !cpu::pin(*core)) {
        tracing::warn!("can't pin reactor {} to processor {core}; it runs unpinned", index + 1);
    }
    let waker = Arc::clone(&plan.mailbox.waker);
    let shared_listeners = plan.shared_listeners;
    let settings = ring::Settings { shared_listeners, ..Default::default() };
    let result = match kind {
        Kind::Ring => drive(index, Ring::new(settings, waker), plan, shared, ended),
        Kind::Epoll => drive(
            index,
            Epoll::new(waker).map(|driver| driver.with_shared_listeners(shared_listeners)),
            plan,
            shared,
            ended,
        ),
        Kind::TokioUring => drive(index, TokioUring::new(waker), plan, shared, ended),
    };
    if let Err(error) = result {
        let _ = ended.sender.send(Report::Failed(error));
    }
}

fn drive<D: Driver>(
    index: u16,
    driver: io::Result<D>,
    plan: Plan,
    shared: Arc<Shared>,
    ended: &Ended,
) -> io::Result<()> {
    let driver = driver?;
    let reactor = Reactor::new(index, driver, shared, plan.mailbox, plan.listeners, plan.log);
    let _ = ended.sender.send(Report::Ready);
    reactor.run()
}

/// Leaves a message with the reactor of each mailbox.
pub fn tell(mailboxes: &[Arc<Mailbox>], message: impl Fn() -> Message) {
    for mailbox in mailboxes {
        mailbox.post(message());
        mailbox.wake();
    }
}

/// Mailboxes for `count` reactors.
///
/// # Errors
/// When the process is out of descriptors.
pub fn mailboxes(count: usize) -> io::Result<Vec<Arc<Mailbox>>> {
    (0..count).map(|_| Ok(Arc::new(Mailbox { queue: Default::default(), waker: Waker::shared()? }))).collect()
}
