//! The thread that waits for disks so that no reactor does: it writes request bodies into temporary files, closes them, and
//! reads ahead what is to be sent next from a file that isn't in the page cache.
//!
//! It holds no policy. Its queue is bounded by the connections: each has at most one job here, and a file to close.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::reactor::Token;
use crate::serve::conn::Spool;
use crate::serve::exchange::{Mailbox, Message};

/// Bytes read ahead at once, into a buffer nobody looks at.
const READ_AHEAD_BYTES: usize = 64 * 1024;

enum Job {
    Write { answer: Answer, spool: Spool },
    Warm { answer: Answer, file: Arc<File>, offset: u64, length: u64 },
    Close(Arc<File>),
    Work { answer: Arc<Mailbox>, work: Box<dyn FnOnce() -> Message + Send> },
}

/// Where the answer to a job goes.
struct Answer {
    mailbox: Arc<Mailbox>,
    token: Token,
}

/// A handle to the disk thread. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub struct Disk {
    jobs: Sender<Job>,
}

impl Disk {
    /// Starts the thread. Not to be called from a pinned thread: it would inherit the pin.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = unbounded();
        thread::Builder::new().name("hoopsnake-disk".into()).spawn(move || run(&queue))?;
        Ok(Self { jobs })
    }

    /// Writes part of a request body; answered with [`Message::Spooled`].
    pub fn write(&self, mailbox: &Arc<Mailbox>, token: Token, spool: Spool) {
        self.submit(Job::Write { answer: Answer::new(mailbox, token), spool });
    }

    /// Reads a stretch of a file into the page cache; answered with [`Message::Warmed`].
    pub fn warm(&self, mailbox: &Arc<Mailbox>, token: Token, file: Arc<File>, offset: u64, length: u64) {
        self.submit(Job::Warm { answer: Answer::new(mailbox, token), file, offset, length });
    }

    /// Closes a file, if this is the last reference to it. A file system takes its time to free the blocks of a large unlinked one.
    pub fn discard(&self, file: Arc<File>) {
        self.submit(Job::Close(file));
    }

    /// Does what may wait for a disk; answered with the message it returns.
    pub fn work(&self, mailbox: &Arc<Mailbox>, work: Box<dyn FnOnce() -> Message + Send>) {
        self.submit(Job::Work { answer: Arc::clone(mailbox), work });
    }

    fn submit(&self, job: Job) {
        self.jobs.send(job).expect("the thread lives as long as a handle does");
    }
}

fn run(queue: &Receiver<Job>) {
    let mut scratch = vec![0; READ_AHEAD_BYTES];
    while let Ok(job) = queue.recv() {
        job.run(&mut scratch);
    }
}

impl Job {
    fn run(self, scratch: &mut [u8]) {
        match self {
            Job::Write { answer, spool: Spool { file, offset, data } } => {
                let token = answer.token;
                answer.give(Message::Spooled { token, result: write(file, offset, &data), buffer: data });
            }
            Job::Warm { answer, file, offset, length } => {
                // An error or an early end is found again, and reported, by the sendfile that follows.
                read_ahead(&file, offset, length, scratch);
                answer.give(Message::Warmed(answer.token));
            }
            Job::Close(file) => drop(file),
            Job::Work { answer, work } => {
                match catch_unwind(AssertUnwindSafe(work)) {
                    Ok(message) => {
                        answer.post(message);
                        answer.wake();
                    }
                    // Its request is told 504 in time.
                    Err(_) => tracing::error!("a bug in hoopsnake was hit on the disk thread (see the panic above)"),
                }
            }
        }
    }
}

impl Answer {
    fn new(mailbox: &Arc<Mailbox>, token: Token) -> Self {
        Self { mailbox: Arc::clone(mailbox), token }
    }

    fn give(&self, message: Message) {
        self.mailbox.post(message);
        self.mailbox.wake();
    }
}

fn write(file: Option<Arc<File>>, offset: u64, data: &[u8]) -> io::Result<Arc<File>> {
    let file = match file {
        Some(file) => file,
        None => Arc::new(tempfile::tempfile()?),
    };
    file.write_all_at(data, offset)?;
    Ok(file)
}

fn read_ahead(file: &File, offset: u64, length: u64, scratch: &mut [u8]) {
    let mut done = 0;
    while done < length {
        let step = scratch.len().min((length - done) as usize);
        match file.read_at(&mut scratch[..step], offset + done) {
            Ok(0) | Err(_) => return,
            Ok(read) => done += read as u64,
        }
    }
}

#[cfg(test)]
pub(super) use played::Played;

#[cfg(test)]
mod played {
    use super::*;

    /// The disk thread's part, done by a test when it likes.
    pub struct Played(Receiver<Job>);

    impl Played {
        /// A handle without a thread, and the queue of its jobs.
        pub fn new() -> (Disk, Self) {
            let (jobs, queue) = unbounded();
            (Disk { jobs }, Self(queue))
        }

        /// Does everything that waits; says how much that was.
        pub fn run(&self) -> usize {
            let mut scratch = vec![0; READ_AHEAD_BYTES];
            self.0.try_iter().map(|job| job.run(&mut scratch)).count()
        }
    }
}
