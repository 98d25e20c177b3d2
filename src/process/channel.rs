//! What a worker and its supervisor say to each other: short messages over a socket pair that keeps them apart (unix(7),
//! `SOCK_SEQPACKET`), and whose end tells that the other is gone.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use crate::limits::CHANNEL_MESSAGE_BYTES_MAX;

/// One end.
#[derive(Debug)]
pub struct Channel(Socket);

/// Why a worker could not begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// The application's traceback; empty if there is none.
    pub traceback: String,
    /// One sentence.
    pub sentence: String,
}

impl From<String> for Reason {
    fn from(sentence: String) -> Self {
        Self { traceback: String::new(), sentence }
    }
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToSupervisor {
    /// The application is loaded; it waits for [`ToWorker::Go`].
    Loaded,
    /// It accepts connections.
    Ready,
    /// It can't begin, and ends.
    Failed(Reason),
    /// It was told to stop by somebody else, and drains.
    Leaving,
    /// It wants a successor, for this reason, and goes on serving until there is one.
    HandOver(String),
    /// Its background thread has ended.
    BackgroundEnded,
}

/// What the supervisor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// The sockets listen: accept.
    Go,
    /// It is the one that runs what belongs to no request.
    Background,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<M> {
    /// This.
    Message(M),
    /// Nothing yet.
    Nothing,
    /// The other end is gone.
    Closed,
}

/// A message as bytes: a letter, then text.
trait Coded: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(letter: u8, text: &str) -> Option<Self>;
}

impl Coded for ToSupervisor {
    fn encode(&self) -> Vec<u8> {
        let (letter, text) = match self {
            Self::Loaded => (b'l', String::new()),
            Self::Ready => (b'r', String::new()),
            Self::Failed(reason) => {
                // The sentence goes first: it is the traceback that may be too long.
                (b'f', format!("{}\0{}", reason.sentence.replace('\0', ""), reason.traceback))
            }
            Self::Leaving => (b'd', String::new()),
            Self::HandOver(why) => (b'h', why.clone()),
            Self::BackgroundEnded => (b'b', String::new()),
        };
        let mut bytes = vec![letter];
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    fn decode(letter: u8, text: &str) -> Option<Self> {
        Some(match letter {
            b'l' => Self::Loaded,
            b'r' => Self::Ready,
            b'f' => {
                let (sentence, traceback) = text.split_once('\0').unwrap_or((text, ""));
                Self::Failed(Reason { traceback: traceback.to_owned(), sentence: sentence.to_owned() })
            }
            b'd' => Self::Leaving,
            b'h' => Self::HandOver(text.to_owned()),
            b'b' => Self::BackgroundEnded,
            _ => return None,
        })
    }
}

impl Coded for ToWorker {
    fn encode(&self) -> Vec<u8> {
        vec![match self {
            Self::Go => b'g',
            Self::Background => b'b',
        }]
    }

    fn decode(letter: u8, _: &str) -> Option<Self> {
        match letter {
            b'g' => Some(Self::Go),
            b'b' => Some(Self::Background),
            _ => None,
        }
    }
}

impl Channel {
    /// Both ends: the supervisor's, which never waits, and the worker's, which does.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(SupervisorEnd, WorkerEnd)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
        one.set_nonblocking(true)?;
        Ok((SupervisorEnd(Channel(one)), WorkerEnd(Channel(other))))
    }

    fn send(&self, message: &impl Coded) -> io::Result<()> {
        let mut bytes = message.encode();
        bytes.truncate(CHANNEL_MESSAGE_BYTES_MAX);
        self.0.send_with_flags(&bytes, libc::MSG_NOSIGNAL).map(drop)
    }

    fn receive<M: Coded>(&self) -> Received<M> {
        let mut bytes = vec![0; CHANNEL_MESSAGE_BYTES_MAX];
        loop {
            return match (&self.0).read(&mut bytes) {
                Ok(0) => Received::Closed,
                Ok(length) => match M::decode(bytes[0], &String::from_utf8_lossy(&bytes[1..length])) {
                    Some(message) => Received::Message(message),
                    // From a version that isn't this one: there is none.
                    None => continue,
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
                Err(_) => Received::Closed,
            };
        }
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub struct SupervisorEnd(Channel);

impl SupervisorEnd {
    /// Says something. A worker that has ended doesn't hear it, and one that doesn't listen is found by its heartbeat.
    pub fn send(&self, message: ToWorker) {
        let _ = self.0.send(&message);
    }

    /// What the worker said next.
    pub fn receive(&self) -> Received<ToSupervisor> {
        self.0.receive()
    }
}

impl AsFd for SupervisorEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd(Channel);

impl WorkerEnd {
    /// Says something. If the supervisor is gone there is nobody to say it to.
    pub fn send(&self, message: &ToSupervisor) {
        let _ = self.0.send(message);
    }

    /// Waits for what the supervisor says next; `None` when it is gone.
    pub fn receive(&self) -> Option<ToWorker> {
        match self.0.receive() {
            Received::Message(message) => Some(message),
            Received::Nothing | Received::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (supervisor, worker) = Channel::pair().unwrap();
        assert_eq!(supervisor.receive(), Received::Nothing);
        let reason = Reason { traceback: "Traceback:\n  x".into(), sentence: "it can't be loaded".into() };
        let all = [
            ToSupervisor::Loaded,
            ToSupervisor::Ready,
            ToSupervisor::Failed(reason),
            ToSupervisor::Failed(Reason::default()),
            ToSupervisor::Leaving,
            ToSupervisor::HandOver("all are stuck".into()),
            ToSupervisor::BackgroundEnded,
        ];
        all.iter().for_each(|message| worker.send(message));
        for message in all {
            assert_eq!(supervisor.receive(), Received::Message(message));
        }
        supervisor.send(ToWorker::Go);
        supervisor.send(ToWorker::Background);
        assert_eq!(worker.receive(), Some(ToWorker::Go));
        assert_eq!(worker.receive(), Some(ToWorker::Background));
        drop(worker);
        assert_eq!(supervisor.receive(), Received::Closed);
        supervisor.send(ToWorker::Go);
    }

    #[test]
    fn a_long_traceback_is_cut_and_the_sentence_is_not() {
        let (supervisor, worker) = Channel::pair().unwrap();
        let traceback = "x".repeat(2 * CHANNEL_MESSAGE_BYTES_MAX);
        worker.send(&ToSupervisor::Failed(Reason { traceback, sentence: "why".into() }));
        let Received::Message(ToSupervisor::Failed(reason)) = supervisor.receive() else { panic!("it didn't come") };
        assert_eq!(reason.sentence, "why");
        assert!(reason.traceback.len() < CHANNEL_MESSAGE_BYTES_MAX);
    }

    #[test]
    fn the_end_of_the_supervisor_is_seen() {
        let (supervisor, worker) = Channel::pair().unwrap();
        drop(supervisor);
        assert_eq!(worker.receive(), None);
        worker.send(&ToSupervisor::Ready);
    }
}
