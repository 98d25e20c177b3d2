//! One suite for the three drivers, over pairs of sockets and TCP on the loopback interface.

use super::Waker;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::epoll::Epoll;
use super::ring::{Flags, Receive, Ring, Settings};
use super::scripted::Scripted;
use super::tokio_uring::TokioUring;
use super::{Driver, Event, FileRange, Outgoing, Segment, SharedBytes, Token, socket};
use crate::limits::SENDFILE_STEP_BYTES;

/// A turn that brings nothing for so long has lost something.
const PATIENCE: Duration = Duration::from_secs(20);
const LISTENER: Token = Token { slot: u32::MAX, generation: 0 };

fn token(slot: u32) -> Token {
    Token { slot, generation: 1 }
}

/// An event with its bytes copied out.
enum Seen {
    Accepted(OwnedFd),
    AcceptEnded(i32),
    Data(Token, Vec<u8>, bool),
    End(Token),
    Failed(Token, i32),
    Sent(Token, Box<Outgoing>, io::Result<usize>),
    Woken,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Seen::Accepted(_) => write!(formatter, "Accepted"),
            Seen::AcceptEnded(error) => write!(formatter, "AcceptEnded({error})"),
            Seen::Data(token, bytes, armed) => write!(formatter, "Data({token:?}, {}, {armed})", bytes.len()),
            Seen::End(token) => write!(formatter, "End({token:?})"),
            Seen::Failed(token, error) => write!(formatter, "Failed({token:?}, {error})"),
            Seen::Sent(token, _, result) => write!(formatter, "Sent({token:?}, {result:?})"),
            Seen::Woken => write!(formatter, "Woken"),
        }
    }
}

/// The next event of this turn, its buffer given back.
fn poll<D: Driver>(driver: &mut D) -> Option<Seen> {
    Some(match driver.next_event()? {
        Event::Accepted { listener, socket } => {
            assert_eq!(listener, LISTENER);
            Seen::Accepted(socket)
        }
        Event::AcceptEnded { error, .. } => Seen::AcceptEnded(error.raw_os_error().unwrap()),
        Event::Received { token, result: Ok(buffer), armed } => {
            let bytes = driver.bytes(&buffer).to_vec();
            assert_eq!(bytes.len(), buffer.length as usize);
            driver.release(buffer);
            assert!(!bytes.is_empty() || !armed, "the end of the stream is the last of a receive");
            if bytes.is_empty() { Seen::End(token) } else { Seen::Data(token, bytes, armed) }
        }
        Event::Received { token, result: Err(error), armed } => {
            assert!(!armed, "a failure is the last of a receive");
            Seen::Failed(token, error.raw_os_error().unwrap())
        }
        Event::Sent { token, outgoing, result } => Seen::Sent(token, outgoing, result),
        Event::Woken => Seen::Woken,
    })
}

/// The next event, turning as often as needed.
fn next<D: Driver>(driver: &mut D) -> Seen {
    let patient_until = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = poll(driver) {
            return seen;
        }
        assert!(std::time::Instant::now() < patient_until, "{}: nothing happened", D::NAME);
        driver.turn(Some(PATIENCE)).unwrap();
    }
}

/// A non-blocking socket for the driver and its blocking peer.
fn pair() -> (UnixStream, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, peer)
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    ours.set_nonblocking(true).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, peer)
}

fn outgoing(segments: Vec<Segment>) -> Box<Outgoing> {
    let mut outgoing = Box::new(Outgoing::new());
    segments.into_iter().for_each(|segment| outgoing.push(segment));
    outgoing
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn a_file(contents: &[u8]) -> Arc<std::fs::File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(contents).unwrap();
    Arc::new(file)
}

struct Shared(Vec<u8>);

impl SharedBytes for Shared {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Receives on `token` until `length` bytes have come, arming again as needed.
fn receive_all<D: Driver>(driver: &mut D, socket: i32, token: Token, length: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < length {
        match next(driver) {
            Seen::Data(from, bytes, armed) => {
                assert_eq!(from, token);
                received.extend(bytes);
                if !armed && received.len() < length {
                    driver.receive(socket, token);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    received
}

/// Sends everything, and says how many steps that took, or how it failed.
fn send_all<D: Driver>(driver: &mut D, socket: i32, token: Token, outgoing: Box<Outgoing>) -> io::Result<usize> {
    driver.send(socket, token, outgoing);
    let mut steps = 0;
    loop {
        let Seen::Sent(of, mut outgoing, result) = next(driver) else { panic!("a send ends with Sent") };
        assert_eq!(of, token);
        let sent = result?;
        assert!(sent > 0, "a step sends something");
        steps += 1;
        outgoing.advance(sent as u64);
        if outgoing.is_empty() {
            return Ok(steps);
        }
        driver.send(socket, token, outgoing);
    }
}

/// Ends a receive that may or may not be armed still.
fn stop_receiving<D: Driver>(driver: &mut D, socket: i32, token: Token) {
    driver.pause(socket, token);
    while driver.in_flight() > 0 {
        next(driver);
    }
}

fn echo<D: Driver>(driver: &mut D) {
    let (ours, mut peer) = pair();
    let fd = ours.as_raw_fd();
    driver.receive(fd, token(1));
    for round in 0..100u32 {
        let message = format!("message {round}");
        peer.write_all(message.as_bytes()).unwrap();
        let Seen::Data(from, bytes, armed) = next(driver) else { panic!() };
        assert_eq!((from, &bytes), (token(1), &message.clone().into_bytes()));
        assert_eq!(send_all(driver, fd, token(1), outgoing(vec![Segment::Bytes(bytes)])).unwrap(), 1);
        let mut answer = vec![0; message.len()];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(answer, message.as_bytes());
        if !armed {
            driver.receive(fd, token(1));
        }
    }
    stop_receiving(driver, fd, token(1));
}

fn a_slow_reader_sees_every_byte_in_partial_sends<D: Driver>(driver: &mut D) {
    let (ours, mut peer) = tcp_pair();
    let body = pattern(8 << 20);
    let reader = std::thread::spawn(move || {
        let mut received: Vec<u8> = Vec::new();
        let mut chunk = [0; 10_000];
        loop {
            match peer.read(&mut chunk).unwrap() {
                0 => return received,
                length => received.extend(&chunk[..length]),
            }
        }
    });
    let segments = vec![Segment::Bytes(body.clone())];
    let steps = send_all(driver, ours.as_raw_fd(), token(2), outgoing(segments)).unwrap();
    assert!(steps > 1, "progress is visible: {steps} steps");
    drop(ours);
    assert!(reader.join().unwrap() == body);
}

fn segments_are_gathered_in_order<D: Driver>(driver: &mut D) {
    let (ours, mut peer) = pair();
    let pieces: Vec<Vec<u8>> = (0..40).map(|index| format!("<{index}>").into_bytes()).collect();
    let segments = pieces.iter().enumerate().map(|(index, piece)| {
        if index % 2 == 0 { Segment::Bytes(piece.clone()) } else { Segment::Shared(Box::new(Shared(piece.clone()))) }
    });
    // 40 segments, at most 16 at a time.
    assert_eq!(send_all(driver, ours.as_raw_fd(), token(0), outgoing(segments.collect())).unwrap(), 3);
    drop(ours);
    let mut received = Vec::new();
    peer.read_to_end(&mut received).unwrap();
    assert_eq!(received, pieces.concat());
}

fn a_file_range_between_memory<D: Driver>(driver: &mut D) {
    let (ours, mut peer) = tcp_pair();
    let contents = pattern(3 << 20);
    let file = a_file(&contents);
    let range = FileRange { file, offset: 1_001, length: 2_000_000, memory: None };
    let head = Segment::Bytes(b"head".to_vec());
    let segments = vec![head, Segment::File(range), Segment::Bytes(b"tail".to_vec())];
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).map(|_| received)
    });
    let steps = send_all(driver, ours.as_raw_fd(), token(3), outgoing(segments)).unwrap();
    assert!(steps >= 2, "the file, and what follows it");
    drop(ours);
    let received = reader.join().unwrap().unwrap();
    assert!(received == [b"head", &contents[1_001..2_001_001], b"tail"].concat());
}

fn a_head_goes_with_the_beginning_of_its_file<D: Driver>(driver: &mut D) {
    let (ours, mut peer) = tcp_pair();
    let contents = pattern(5_000);
    let pieces = vec![
        Segment::Bytes(b"he".to_vec()),
        Segment::Shared(Box::new(Shared(b"ad".to_vec()))),
        Segment::File(FileRange { file: a_file(&contents), offset: 0, length: 5_000, memory: None }),
    ];
    assert_eq!(send_all(driver, ours.as_raw_fd(), token(3), outgoing(pieces)).unwrap(), 1);
    // What is in front of a file that has lost its bytes is sent all the same, and then the loss is told.
    let pieces = vec![
        Segment::Bytes(b"lost".to_vec()),
        Segment::File(FileRange { file: a_file(b""), offset: 0, length: 9, memory: None }),
    ];
    let lost = send_all(driver, ours.as_raw_fd(), token(3), outgoing(pieces));
    assert_eq!(lost.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    drop(ours);
    let mut received = Vec::new();
    peer.read_to_end(&mut received).unwrap();
    assert!(received == [b"head", contents.as_slice(), b"lost"].concat());
}

fn a_step_of_a_file_is_as_long_as_it_may_be<D: Driver>(driver: &mut D) {
    let (ours, _peer) = pair();
    let range = FileRange { file: a_file(&pattern(50_000)), offset: 0, length: 50_000, memory: None };
    let mut bounded = outgoing(vec![Segment::Bytes(b"head".to_vec()), Segment::File(range)]);
    bounded.set_file_step(1_000);
    assert_eq!(send_all(driver, ours.as_raw_fd(), token(1), bounded).unwrap(), 50);
}

fn a_file_that_ends_early_is_unexpected<D: Driver>(driver: &mut D) {
    let (ours, peer) = tcp_pair();
    let range = FileRange { file: a_file(b"short"), offset: 0, length: 100, memory: None };
    let result = send_all(driver, ours.as_raw_fd(), token(3), outgoing(vec![Segment::File(range)]));
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(driver.in_flight(), 0);
    drop(peer);
}

fn the_end_of_the_stream_comes_after_its_bytes<D: Driver>(driver: &mut D) {
    for (generation, bytes) in [(1, 0), (2, 5), (3, 200_000)] {
        let (ours, mut peer) = pair();
        let (fd, token) = (ours.as_raw_fd(), Token { slot: 4, generation });
        let body = pattern(bytes);
        let sent = body.clone();
        let writer = std::thread::spawn(move || peer.write_all(&sent).unwrap());
        driver.receive(fd, token);
        assert!(receive_all(driver, fd, token, bytes) == body);
        writer.join().unwrap();
        if driver.in_flight() == 0 {
            driver.receive(fd, token);
        }
        match next(driver) {
            Seen::End(of) => assert_eq!(of, token),
            other => panic!("{other:?}"),
        }
        assert_eq!(driver.in_flight(), 0);
    }
}

/// The last bytes and the end, or a reset, come while the receive is armed and nobody looks: both are told.
fn an_end_right_behind_the_bytes_is_seen<D: Driver>(driver: &mut D) {
    fn arm<D: Driver>(driver: &mut D, fd: i32, token: Token) {
        driver.receive(fd, token);
        driver.turn(Some(Duration::ZERO)).unwrap();
        assert!(poll(driver).is_none());
    }
    fn data_then<D: Driver>(driver: &mut D, fd: i32, token: Token) -> Seen {
        let Seen::Data(_, bytes, armed) = next(driver) else { panic!() };
        assert_eq!(bytes, b"last words");
        if !armed {
            driver.receive(fd, token);
        }
        next(driver)
    }
    for round in 0..20 {
        let ((ours, mut peer), unix) = (pair(), Token { slot: 1, generation: round });
        arm(driver, ours.as_raw_fd(), unix);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        let Seen::End(_) = data_then(driver, ours.as_raw_fd(), unix) else { panic!() };

        let ((ours, mut peer), tcp) = (tcp_pair(), Token { slot: 2, generation: round });
        arm(driver, ours.as_raw_fd(), tcp);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        let Seen::End(_) = data_then(driver, ours.as_raw_fd(), tcp) else { panic!() };

        let ((ours, mut peer), reset) = (tcp_pair(), Token { slot: 3, generation: round });
        arm(driver, ours.as_raw_fd(), reset);
        peer.write_all(b"last words").unwrap();
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        let Seen::Failed(_, libc::ECONNRESET) = data_then(driver, ours.as_raw_fd(), reset) else { panic!() };
        assert_eq!(driver.in_flight(), 0);
    }
}

/// More bytes than a kernel takes in one go, and the end, are there before the receive is armed.
fn an_end_behind_a_backlog_is_seen<D: Driver>(driver: &mut D) {
    // The last reception short, and full.
    for (generation, length) in [(1, 200_000), (2, 49 * 4096)] {
        let (ours, mut peer) = pair();
        let (fd, token) = (ours.as_raw_fd(), Token { slot: 1, generation });
        let body = pattern(length);
        socket2::SockRef::from(&peer).set_send_buffer_size(1 << 20).unwrap();
        peer.write_all(&body).unwrap();
        drop(peer);
        driver.receive(fd, token);
        assert!(receive_all(driver, fd, token, length) == body);
        if driver.in_flight() == 0 {
            driver.receive(fd, token);
        }
        let Seen::End(_) = next(driver) else { panic!() };
        assert_eq!(driver.in_flight(), 0);
    }
}

/// Much at once, then a conversation, then much again, paused at many places: every byte in order, and the end.
fn much_and_little_take_turns<D: Driver>(driver: &mut D) {
    for (generation, pause_every) in [(1, usize::MAX), (2, 7), (3, 2), (4, 1)] {
        let (ours, mut peer) = tcp_pair();
        let (fd, token) = (ours.as_raw_fd(), Token { slot: 1, generation });
        let much = pattern(3 << 20);
        let (asks, asked) = std::sync::mpsc::channel();
        let writer = {
            let much = much.clone();
            std::thread::spawn(move || {
                for _ in 0..2 {
                    peer.write_all(&much).unwrap();
                    for number in 0..20u8 {
                        asked.recv_timeout(PATIENCE).unwrap();
                        peer.write_all(&[number]).unwrap();
                    }
                }
            })
        };
        let (mut events, mut pausing, mut round) = (0, false, Vec::new());
        let (mut rounds, mut asked_for) = (0, 0);
        driver.receive(fd, token);
        while rounds < 2 {
            let armed = match next(driver) {
                Seen::Data(_, bytes, armed) => {
                    round.extend(bytes);
                    armed
                }
                Seen::Failed(_, libc::ECANCELED) => false,
                other => panic!("{other:?}"),
            };
            if round.len() >= much.len() {
                if round.len() < much.len() + 20 {
                    if asked_for == round.len() - much.len() {
                        asks.send(()).unwrap();
                        asked_for += 1;
                    }
                } else {
                    assert!(round[..much.len()] == much && round[much.len()..].iter().copied().take(20).eq(0..20));
                    round.drain(..much.len() + 20);
                    (rounds, asked_for) = (rounds + 1, 0);
                }
            }
            events += 1;
            if !armed {
                driver.receive(fd, token);
                pausing = false;
            } else if events % pause_every == 0 && !pausing {
                driver.pause(fd, token);
                pausing = true;
            }
        }
        writer.join().unwrap();
        stop_receiving(driver, fd, token);
    }
}

fn a_reset_is_an_error<D: Driver>(driver: &mut D) {
    let (ours, peer) = tcp_pair();
    driver.receive(ours.as_raw_fd(), token(5));
    driver.turn(Some(Duration::ZERO)).unwrap();
    assert!(poll(driver).is_none());
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    let Seen::Failed(of, error) = next(driver) else { panic!("a reset isn't an end") };
    assert_eq!((of, error), (token(5), libc::ECONNRESET));
    let result = send_all(driver, ours.as_raw_fd(), token(5), outgoing(vec![Segment::Bytes(vec![1])]));
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPIPE));
    assert_eq!(driver.in_flight(), 0);
}

fn pausing_loses_nothing<D: Driver>(driver: &mut D) {
    let (ours, mut peer) = tcp_pair();
    let fd = ours.as_raw_fd();
    // More than a kernel hands over at once, twice: what it has at hand when the pause comes isn't lost.
    let body = pattern(4 << 20);
    let sent = body.clone();
    let writer = std::thread::spawn(move || {
        sent.chunks(1_777).for_each(|chunk| peer.write_all(chunk).unwrap());
        peer
    });
    let (mut received, mut armed, mut rounds) = (Vec::new(), false, 0);
    while received.len() < body.len() {
        if !armed {
            driver.receive(fd, token(6));
            rounds += 1;
        }
        match next(driver) {
            Seen::Data(_, bytes, still) => {
                received.extend(bytes);
                armed = still;
                if armed {
                    driver.pause(fd, token(6));
                    driver.pause(fd, token(6));
                }
            }
            Seen::Failed(_, error) => {
                assert_eq!(error, libc::ECANCELED);
                armed = false;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(received == body && rounds > 1);
    let _peer = writer.join().unwrap();
    stop_receiving(driver, fd, token(6));
    // Paused while nothing comes: ended once, and armed again it works.
    driver.receive(fd, token(6));
    driver.turn(Some(Duration::ZERO)).unwrap();
    assert!(poll(driver).is_none());
    driver.pause(fd, token(6));
    driver.pause(fd, token(6));
    let Seen::Failed(_, libc::ECANCELED) = next(driver) else { panic!() };
    assert_eq!(driver.in_flight(), 0);
    driver.turn(Some(Duration::ZERO)).unwrap();
    assert!(poll(driver).is_none());
}

fn pausing_leaves_a_send_alone<D: Driver>(driver: &mut D) {
    let (ours, mut peer) = tcp_pair();
    let fd = ours.as_raw_fd();
    let body = pattern(8 << 20);
    driver.receive(fd, token(6));
    driver.send(fd, token(6), outgoing(vec![Segment::Bytes(body.clone())]));
    // Until the socket takes no more.
    let waiting = loop {
        driver.turn(Some(Duration::from_millis(50))).unwrap();
        match poll(driver) {
            Some(Seen::Sent(_, mut rest, result)) => {
                rest.advance(result.unwrap() as u64);
                assert!(!rest.is_empty(), "8 MiB don't fit into a socket");
                driver.send(fd, token(6), rest);
            }
            Some(other) => panic!("{other:?}"),
            None => break driver.in_flight(),
        }
    };
    assert_eq!(waiting, 2);
    driver.pause(fd, token(6));
    let Seen::Failed(_, libc::ECANCELED) = next(driver) else { panic!() };
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; 8 << 20];
        peer.read_exact(&mut received).map(|()| received)
    });
    while driver.in_flight() > 0 {
        let Seen::Sent(_, mut rest, result) = next(driver) else { panic!() };
        rest.advance(result.unwrap() as u64);
        if !rest.is_empty() {
            driver.send(fd, token(6), rest);
        }
    }
    assert!(reader.join().unwrap().unwrap() == body);
}

fn cancelling_an_accept_loses_no_connection<D: Driver>(driver: &mut D) {
    const CLIENTS: usize = 60;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (fd, address) = (listener.as_raw_fd(), listener.local_addr().unwrap());
    driver.accept(fd, LISTENER);
    driver.turn(Some(Duration::ZERO)).unwrap();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut accepted = Vec::new();
    let ended = loop {
        match next(driver) {
            Seen::Accepted(socket) => {
                accepted.push(socket);
                driver.cancel_accept(fd, LISTENER);
            }
            Seen::AcceptEnded(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((ended, driver.in_flight()), (libc::ECANCELED, 0));
    while let Ok(socket) = socket::accept(fd) {
        accepted.push(socket);
    }
    assert_eq!(accepted.len(), CLIENTS);
    for socket in &accepted {
        let flags = socket2::SockRef::from(socket).nonblocking().unwrap();
        assert!(flags, "accepted sockets don't block");
    }
    drop(clients);
    // And it can be armed again.
    driver.accept(fd, LISTENER);
    let _client = TcpStream::connect(address).unwrap();
    let Seen::Accepted(_) = next(driver) else { panic!() };
    driver.cancel_accept(fd, LISTENER);
    let Seen::AcceptEnded(libc::ECANCELED) = next(driver) else { panic!() };
}

/// 3,000 connections, each with something to say three times, and one that never stops.
fn nobody_starves<D: Driver>(driver: &mut D) {
    const CONNECTIONS: u32 = 3_000;
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _descriptors = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (greedy, mut talker) = tcp_pair();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let talking =
        std::thread::spawn(
            move || {
                while !stopped.load(Ordering::Relaxed) && talker.write_all(&[b'!'; 65_536]).is_ok() {}
            },
        );
    let mut sockets = vec![greedy.as_raw_fd()];
    driver.receive(sockets[0], token(0));
    let pairs: Vec<_> = (1..=CONNECTIONS).map(|_| pair()).collect();
    for (index, (ours, _)) in pairs.iter().enumerate() {
        sockets.push(ours.as_raw_fd());
        driver.receive(ours.as_raw_fd(), token(index as u32 + 1));
    }
    for round in 1..=3u8 {
        pairs.iter().for_each(|(_, peer)| (&*peer).write_all(&[round; 3]).unwrap());
        let mut missing = CONNECTIONS * 3;
        while missing > 0 {
            let Seen::Data(of, bytes, armed) = next(driver) else { panic!() };
            if of != token(0) {
                assert!(bytes.iter().all(|&byte| byte == round));
                missing -= bytes.len() as u32;
            }
            if !armed {
                driver.receive(sockets[of.slot as usize], of);
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    (0..=CONNECTIONS).for_each(|slot| driver.pause(sockets[slot as usize], token(slot)));
    while driver.in_flight() > 0 {
        if let Seen::End(of) = next(driver) {
            panic!("{of:?} ended");
        }
    }
    drop(greedy);
    talking.join().unwrap();
}

/// Readers of files who all make room at once: a turn sends a part of what there is room for, so that others come next.
fn downloads_take_turns<D: Driver>(driver: &mut D) {
    const DOWNLOADS: u32 = 40;
    let file = a_file(&pattern(8 << 20));
    let pairs: Vec<_> = (0..DOWNLOADS).map(|_| tcp_pair()).collect();
    let download = || {
        outgoing(vec![Segment::File(FileRange { file: Arc::clone(&file), offset: 0, length: 8 << 20, memory: None })])
    };
    for (slot, (ours, peer)) in pairs.iter().enumerate() {
        socket2::SockRef::from(ours).set_send_buffer_size(1 << 20).unwrap();
        peer.set_nonblocking(true).unwrap();
        driver.send(ours.as_raw_fd(), token(slot as u32), download());
    }
    // What one turn sends, and goes on with.
    let turn = |driver: &mut D, time: Duration| {
        driver.turn(Some(time)).unwrap();
        let mut bytes = 0;
        while let Some(seen) = poll(driver) {
            let Seen::Sent(of, mut outgoing, Ok(sent)) = seen else { panic!("{seen:?}") };
            bytes += sent;
            outgoing.advance(sent as u64);
            let next = if outgoing.is_empty() { download() } else { outgoing };
            driver.send(pairs[of.slot as usize].0.as_raw_fd(), of, next);
        }
        bytes
    };
    let (mut silent, mut buffer) = (0, vec![0; 1 << 20]);
    while silent < 5 {
        silent = if turn(driver, Duration::from_millis(1)) == 0 { silent + 1 } else { 0 };
    }
    pairs.iter().for_each(|(_, peer)| while (&*peer).read(&mut buffer).is_ok_and(|read| read > 0) {});
    let (mut most, mut all) = (0, 0);
    while all < DOWNLOADS as usize * (1 << 19) {
        let bytes = turn(driver, PATIENCE);
        (most, all) = (most.max(bytes), all + bytes);
    }
    assert!(most <= (8 << 20) + SENDFILE_STEP_BYTES, "{most} bytes in one turn");
    pairs.iter().for_each(|(ours, _)| ours.shutdown(Shutdown::Both).unwrap());
    while driver.in_flight() > 0 {
        next(driver);
    }
}

fn no_wake_is_lost<D: Driver>(driver: &mut D) {
    const WAKES: usize = 10_000;
    let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (mailbox, seen, waker) = (asked.clone(), answered.clone(), driver.waker());
    let other = std::thread::spawn(move || {
        for round in 1..=WAKES {
            mailbox.store(round, Ordering::Release);
            waker.wake();
            while seen.load(Ordering::Acquire) < round {
                std::thread::yield_now();
            }
        }
    });
    let mut rounds = 0;
    while rounds < WAKES {
        driver.waker().prepare_sleep();
        let mut woken = asked.load(Ordering::Acquire) > rounds;
        if !woken {
            driver.turn(Some(PATIENCE)).unwrap();
        }
        driver.waker().awake();
        while let Some(seen) = poll(driver) {
            let Seen::Woken = seen else { panic!("{seen:?}") };
            woken = true;
        }
        let asked = asked.load(Ordering::Acquire);
        assert!(woken || asked == rounds, "the mailbox has something and nobody said so");
        if asked > rounds {
            rounds = asked;
            answered.store(rounds, Ordering::Release);
        }
    }
    other.join().unwrap();
}

fn an_old_generation_is_told_apart<D: Driver>(driver: &mut D) {
    let (first, second) = (Token { slot: 5, generation: 7 }, Token { slot: 5, generation: 0xff_ffff });
    let (ours, _peer) = pair();
    driver.receive(ours.as_raw_fd(), first);
    driver.pause(ours.as_raw_fd(), first);
    let Seen::Failed(of, libc::ECANCELED) = next(driver) else { panic!() };
    assert_eq!(of, first);
    drop(ours);
    let (ours, mut peer) = pair();
    let fd = ours.as_raw_fd();
    driver.receive(fd, second);
    driver.pause(fd, first);
    driver.turn(Some(Duration::ZERO)).unwrap();
    assert!(poll(driver).is_none(), "a pause of the slot's former connection is none of this one");
    peer.write_all(b"new").unwrap();
    let Seen::Data(of, bytes, _) = next(driver) else { panic!() };
    assert_eq!((of, bytes.as_slice()), (second, b"new".as_slice()));
    stop_receiving(driver, fd, second);
}

fn a_turn_ends_with_its_time<D: Driver>(driver: &mut D) {
    let (ours, _peer) = pair();
    driver.receive(ours.as_raw_fd(), token(1));
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(3)] {
        driver.turn(Some(timeout)).unwrap();
        assert!(poll(driver).is_none());
    }
    stop_receiving(driver, ours.as_raw_fd(), token(1));
    assert!(poll(driver).is_none());
}

/// What is shut down ends by itself, also a send that the peer never takes.
fn shutting_down_ends_everything<D: Driver>(driver: &mut D) {
    let (ours, _peer) = tcp_pair();
    let fd = ours.as_raw_fd();
    driver.receive(fd, token(9));
    driver.send(fd, token(9), outgoing(vec![Segment::Bytes(vec![0; 16 << 20])]));
    while let Seen::Sent(_, mut rest, result) = {
        driver.turn(Some(Duration::from_millis(50))).unwrap();
        poll(driver).unwrap_or(Seen::Woken)
    } {
        rest.advance(result.unwrap() as u64);
        driver.send(fd, token(9), rest);
    }
    assert_eq!(driver.in_flight(), 2);
    ours.shutdown(std::net::Shutdown::Both).unwrap();
    let mut ended = HashMap::new();
    while driver.in_flight() > 0 {
        match next(driver) {
            Seen::End(_) => ended.insert("receive", 0),
            Seen::Sent(_, _, Err(error)) => ended.insert("send", error.raw_os_error().unwrap()),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(ended, HashMap::from([("receive", 0), ("send", libc::EPIPE)]));
}

/// Dropping a driver lets go of every socket: closing them afterwards reaches the peer.
fn dropping_lets_go<D: Driver>(mut driver: D) {
    let (ours, mut peer) = tcp_pair();
    let (idle, mut idle_peer) = pair();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    driver.accept(listener.as_raw_fd(), LISTENER);
    driver.receive(idle.as_raw_fd(), token(1));
    driver.receive(ours.as_raw_fd(), token(2));
    driver.send(ours.as_raw_fd(), token(2), outgoing(vec![Segment::Bytes(vec![0; 16 << 20])]));
    driver.turn(Some(Duration::from_millis(20))).unwrap();
    drop(driver);
    drop((ours, idle));
    assert_eq!(idle_peer.read(&mut [0; 8]).unwrap(), 0);
    let mut taken = Vec::new();
    let end = peer.read_to_end(&mut taken);
    assert!(end.is_ok_and(|length| length < 16 << 20), "closed, not timed out");
}

/// Runs in a process of its own, because a limit on descriptors is one of the whole process.
fn running_out_of_descriptors_ends_accepting<D: Driver>(driver: &mut D) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (fd, address) = (listener.as_raw_fd(), listener.local_addr().unwrap());
    driver.accept(fd, LISTENER);
    driver.turn(Some(Duration::ZERO)).unwrap();
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());
    client.connect(&address.into()).unwrap();
    match next(driver) {
        Seen::AcceptEnded(error) => assert_eq!(error, libc::EMFILE),
        other => panic!("{other:?}"),
    }
    assert_eq!(driver.in_flight(), 0);
    drop(taken);
    driver.accept(fd, LISTENER);
    let Seen::Accepted(_) = next(driver) else { panic!("armed again, the connection is still there") };
    drop(client);
    driver.cancel_accept(fd, LISTENER);
    let Seen::AcceptEnded(libc::ECANCELED) = next(driver) else { panic!() };
}

#[test]
#[ignore = "lowers a limit of the process: run by `descriptors_run_out`"]
fn descriptors_run_out_child() {
    rlimit_nofile(64);
    running_out_of_descriptors_ends_accepting(&mut Ring::new(Settings::default(), Waker::shared().unwrap()).unwrap());
    running_out_of_descriptors_ends_accepting(&mut readiness());
    running_out_of_descriptors_ends_accepting(&mut Epoll::new(Waker::shared().unwrap()).unwrap());
    running_out_of_descriptors_ends_accepting(&mut TokioUring::new(Waker::shared().unwrap()).unwrap());
}

#[test]
fn descriptors_run_out() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "reactor::tests::descriptors_run_out_child"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[expect(unsafe_code, reason = "setrlimit(2)")]
fn rlimit_nofile(limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `limit` is valid for the duration of the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

#[test]
fn drivers_that_a_reactor_can_be_moved_with() {
    fn is_send<T: Send>() {}
    is_send::<Ring>();
    is_send::<Epoll>();
    is_send::<Scripted>();
}

/// On a thread that isn't its own a ring refuses to turn where the kernel binds it; dropping it there is safe.
#[test]
fn a_ring_belongs_to_its_thread() {
    struct Watched(Arc<AtomicBool>);
    impl SharedBytes for Watched {
        fn as_slice(&self) -> &[u8] {
            &[0; 16 << 20]
        }
    }
    impl Drop for Watched {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let freed = Arc::new(AtomicBool::new(false));
    let mut ring = Ring::new(Settings::default(), Waker::shared().unwrap()).unwrap();
    let (ours, _peer) = pair();
    ring.receive(ours.as_raw_fd(), token(1));
    ring.send(ours.as_raw_fd(), token(1), outgoing(vec![Segment::Shared(Box::new(Watched(freed.clone())))]));
    ring.turn(Some(Duration::ZERO)).unwrap();
    while let Some(Seen::Sent(_, mut rest, result)) = poll(&mut ring) {
        rest.advance(result.unwrap() as u64);
        ring.send(ours.as_raw_fd(), token(1), rest);
        ring.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(ring.in_flight(), 2);
    let elsewhere = std::thread::spawn(move || ring.turn(Some(Duration::ZERO)).map_err(|error| error.raw_os_error()));
    assert_eq!(elsewhere.join().unwrap(), Err(Some(libc::EEXIST)));
    assert!(!freed.load(Ordering::Relaxed), "memory the kernel may still read is never freed");

    let mut ring =
        Ring::new(Settings { flags: Flags::Cooperative, ..Settings::default() }, Waker::shared().unwrap()).unwrap();
    echo(&mut ring);
    std::thread::spawn(move || echo(&mut ring)).join().unwrap();
}

#[test]
fn what_is_stepped_down_is_said() {
    let check = |settings: Settings, expected: &str| {
        let said = Ring::new(settings, Waker::shared().unwrap()).unwrap().describe();
        assert!(said.contains(expected), "{said}");
    };
    let settings = Settings::default();
    check(settings, "SINGLE_ISSUER|DEFER_TASKRUN, multishot receive, 256 shared buffers");
    check(Settings { flags: Flags::Single, ..settings }, "SINGLE_ISSUER|COOP_TASKRUN, ");
    check(Settings { flags: Flags::Plain, receive: Receive::Single, ..settings }, "no flags, single receive");
    check(Settings { receive: Receive::Readiness, ..settings }, "receive after poll");
}

fn few_buffers() -> Ring {
    Ring::new(Settings { buffers: 8, buffer_bytes: 1024, entries: 8, ..Settings::default() }, Waker::shared().unwrap())
        .unwrap()
}

fn small_buffers() -> Ring {
    let settings = Settings { buffers: 1024, buffer_bytes: 4096, ..Settings::default() };
    Ring::new(settings, Waker::shared().unwrap()).unwrap()
}

fn single() -> Ring {
    let settings = Settings { buffers: 16, flags: Flags::Plain, receive: Receive::Single, ..Settings::default() };
    Ring::new(settings, Waker::shared().unwrap()).unwrap()
}

fn readiness() -> Ring {
    Ring::new(
        Settings { flags: Flags::Single, receive: Receive::Readiness, ..Settings::default() },
        Waker::shared().unwrap(),
    )
    .unwrap()
}

macro_rules! suite {
    ($driver:ident, $make:expr, [$($test:ident),* $(,)?]) => {
        mod $driver {
            use super::*;
            $(#[test] fn $test() { super::$test(&mut $make) })*
            #[test] fn dropping_lets_go() { super::dropping_lets_go($make) }
        }
    };
    ($($driver:ident = $make:expr;)*) => {
        $(suite!($driver, $make, [
            echo,
            a_slow_reader_sees_every_byte_in_partial_sends,
            segments_are_gathered_in_order,
            a_file_range_between_memory,
            a_head_goes_with_the_beginning_of_its_file,
            a_step_of_a_file_is_as_long_as_it_may_be,
            a_file_that_ends_early_is_unexpected,
            the_end_of_the_stream_comes_after_its_bytes,
            an_end_right_behind_the_bytes_is_seen,
            an_end_behind_a_backlog_is_seen,
            much_and_little_take_turns,
            a_reset_is_an_error,
            pausing_loses_nothing,
            pausing_leaves_a_send_alone,
            cancelling_an_accept_loses_no_connection,
            nobody_starves,
            downloads_take_turns,
            no_wake_is_lost,
            an_old_generation_is_told_apart,
            a_turn_ends_with_its_time,
            shutting_down_ends_everything,
        ]);)*
    };
}

suite! {
    ring = Ring::new(Settings::default(), Waker::shared().unwrap()).unwrap();
    ring_with_few_buffers = few_buffers();
    ring_with_small_buffers = small_buffers();
    ring_single = single();
    ring_readiness = readiness();
    epoll = Epoll::new(Waker::shared().unwrap()).unwrap();
    tokio_uring = TokioUring::new(Waker::shared().unwrap()).unwrap();
}

/// How many of some connections, one after the other, each of two waiting drivers on the same listener accepts.
fn shares<D: Driver>(make: impl Fn() -> io::Result<D> + Sync) -> [usize; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let accepted = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let sum = || accepted.iter().map(|count| count.load(Ordering::SeqCst)).sum::<usize>();
    let (over, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for accepted in &accepted {
            scope.spawn(|| {
                let mut driver = make().unwrap();
                driver.accept(listener.as_raw_fd(), LISTENER);
                driver.turn(Some(Duration::ZERO)).unwrap();
                waiting.fetch_add(1, Ordering::SeqCst);
                while !over.load(Ordering::SeqCst) {
                    driver.turn(Some(Duration::from_millis(20))).unwrap();
                    while let Some(event) = driver.next_event() {
                        assert!(matches!(event, Event::Accepted { .. }));
                        accepted.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let mut clients = Vec::new();
        while waiting.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        for connections in 1..=40 {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            while sum() < connections {
                std::thread::yield_now();
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    accepted.map(AtomicUsize::into_inner)
}

#[test]
fn processes_that_share_a_listener_take_turns() {
    let check = |name: &str, shares: [usize; 2]| {
        assert!(shares.iter().all(|&share| share >= 10), "{name}: {shares:?} of 40");
    };
    let settings = Settings { shared_listeners: true, ..Settings::default() };
    let ring = || Ring::new(settings, Waker::shared()?);
    if ring().is_ok() {
        check("ring", shares(ring));
        check("tokio-uring", shares(|| TokioUring::new(Waker::shared()?)));
    }
    check("epoll", shares(|| Ok(Epoll::new(Waker::shared()?)?.with_shared_listeners(true))));
}
