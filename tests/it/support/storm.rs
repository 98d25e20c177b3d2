//! Clients that ask again and again while something happens to the server, and keep a book of what became of each request.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{PATIENCE, eventually};

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answered with 200, completely.
    pub answered: usize,
    /// What went wrong with the others.
    pub faults: Vec<String>,
}

/// How many clients there are. Each has one request at a time.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Who open a connection for each request.
    pub new: usize,
    /// Who keep theirs.
    pub kept: usize,
    /// Requests a second of each client, at most.
    pub per_second: u32,
}

impl Load {
    /// All of them.
    pub fn clients(self) -> usize {
        self.new + self.kept
    }
}

/// Clients at work.
pub struct Storm {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Storm {
    /// Clients that ask for `/`, each as many times a second: some on a new connection for each request, some on connections that are
    /// kept as long as the server keeps them.
    pub fn start(address: SocketAddr, load: Load) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = |number: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || run(address, number < load.kept, load.per_second, &stop, &answered))
        };
        let threads = (0..load.clients()).map(client).collect();
        Self { stop, answered, threads }
    }

    /// Waits until so many more requests have been answered.
    pub fn let_pass(&self, requests: usize) {
        let until = self.answered.load(Ordering::Relaxed) + requests;
        eventually("requests are answered", || (self.answered.load(Ordering::Relaxed) >= until).then_some(()));
    }

    /// The book of all clients.
    pub fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for thread in self.threads {
            let tally = thread.join().expect("a client has not failed");
            all.answered += tally.answered;
            all.faults.extend(tally.faults);
        }
        all
    }

    /// Ends it: every single request was answered.
    pub fn end_unharmed(self) {
        let tally = self.end();
        assert!(tally.faults.is_empty(), "{} answered, but: {:#?}", tally.answered, tally.faults);
    }
}

fn run(address: SocketAddr, kept: bool, per_second: u32, stop: &AtomicBool, answered: &AtomicUsize) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    let (pace, mut next) = (Duration::from_secs(1) / per_second, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        match ask(address, kept, &mut connection) {
            Ok(()) => {
                tally.answered += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(fault) => {
                tally.faults.push(fault);
                connection = None;
            }
        }
        // Bounded load; what was missed isn't made up for.
        next = (next + pace).max(Instant::now() - pace);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    tally
}

/// One request and its answer.
fn ask(address: SocketAddr, kept: bool, connection: &mut Option<TcpStream>) -> Result<(), String> {
    let mut socket = match connection.take() {
        Some(socket) if !was_closed(&socket) => socket,
        _ => {
            let socket = TcpStream::connect(address).map_err(|error| format!("connecting: {error}"))?;
            socket.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
            socket.set_nodelay(true).map_err(|error| error.to_string())?;
            socket
        }
    };
    let close = if kept { "" } else { "Connection: close\r\n" };
    socket
        .write_all(format!("GET / HTTP/1.1\r\nHost: test\r\n{close}\r\n").as_bytes())
        .map_err(|error| format!("sending (kept: {kept}): {error}"))?;
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let count = socket.read(&mut bytes).map_err(|error| format!("receiving (kept: {kept}): {error}"))?;
        answer.extend_from_slice(&bytes[..count]);
        let text = String::from_utf8_lossy(&answer);
        let whole = text.ends_with("\r\n\r\nserved");
        let closes = text.contains("Connection: close");
        if whole && (kept || count == 0) {
            if !text.starts_with("HTTP/1.1 200 ") {
                return Err(format!("the answer: {text}"));
            }
            if !closes {
                *connection = Some(socket);
            }
            return Ok(());
        }
        if count == 0 {
            return Err(format!("the end came after {text:?} (kept: {kept})"));
        }
    }
}

/// Whether the server has closed a connection that nothing was asked on: a client is free to look before it asks again.
fn was_closed(socket: &TcpStream) -> bool {
    let closed = |socket: &TcpStream| -> std::io::Result<bool> {
        socket.set_nonblocking(true)?;
        let closed = match socket.peek(&mut [0]) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        socket.set_nonblocking(false)?;
        Ok(closed)
    };
    closed(socket).unwrap_or(true)
}
