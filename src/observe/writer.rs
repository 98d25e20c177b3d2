//! A thread that writes a log, so that nobody else waits for a disk, a terminal or a pipe that isn't read.
//!
//! Whoever logs hands over whole lines through a bounded queue and never waits: when the queue is full the lines are
//! dropped and counted. It knows nothing of what the lines say. Threads don't survive fork(2): start it in the
//! process that logs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use rustix::io::retry_on_intr;

use super::message;
use crate::config::LogTarget;
use crate::limits::{
    ACCESS_LOG_BATCH_BYTES, ACCESS_LOG_BATCHES_MAX, BUFFER_KEPT_BYTES_MAX, ERROR_LOG_MESSAGES_MAX, LOG_CHECK_MS,
    LOG_FLUSH_MS,
};
use crate::reactor::clock::{self, Instant};

/// Mode of a log file that is created, before the umask: it holds addresses, and perhaps secrets in query strings.
const FILE_MODE: u32 = 0o640;

/// Bytes that the kernel writes to a pipe without mixing them with another writer's (pipe(7), `PIPE_BUF`).
const PIPE_BYTES_TOGETHER: usize = 4096;

/// Which log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// One line per response, in batches; complains in the error log.
    Access,
    /// Rare messages; complains in itself.
    Error,
}

impl Log {
    const fn name(self) -> &'static str {
        match self {
            Log::Access => "access log",
            Log::Error => "error log",
        }
    }

    const fn flag(self) -> &'static str {
        match self {
            Log::Access => "--access-log",
            Log::Error => "--error-log",
        }
    }

    /// Its stream when no file is named.
    fn standard(self) -> BorrowedFd<'static> {
        match self {
            Log::Access => rustix::stdio::stdout(),
            Log::Error => rustix::stdio::stderr(),
        }
    }

    const fn queue_length(self) -> usize {
        match self {
            Log::Access => ACCESS_LOG_BATCHES_MAX,
            Log::Error => ERROR_LOG_MESSAGES_MAX,
        }
    }
}

/// A running writer thread.
#[derive(Debug)]
pub struct LogWriter {
    queue: Queue,
    finished: Receiver<()>,
    stopped: bool,
}

impl LogWriter {
    /// Opens the target and starts the thread; `None` when the log is off.
    ///
    /// # Errors
    /// One sentence that names the flag, the fault and the remedy.
    pub fn start(log: Log, target: &LogTarget) -> Result<Option<Self>, String> {
        let Some(sink) = Sink::open(log, target)? else { return Ok(None) };
        Self::spawn(sink).map(Some).map_err(|error| {
            format!("{}: its thread can't be started ({error}); raise the limit of threads", log.flag())
        })
    }

    /// For one reactor: gathers lines and hands them over in batches.
    pub fn handle(&self) -> Handle {
        Handle { batch: Vec::new(), queue: self.queue.clone() }
    }

    /// For messages that are handed over one by one.
    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.queue.drops.total.load(Ordering::Relaxed)
    }

    /// Writes everything handed over so far and ends the thread. False if that took longer than `timeout`: then the
    /// thread is left to itself, stuck in a write. Handles may outlive it; what they hand over is dropped.
    pub fn shutdown(mut self, timeout: Duration) -> bool {
        self.stop(timeout)
    }

    /// Writes to any descriptor.
    #[cfg(test)]
    pub(super) fn onto(log: Log, target: std::os::fd::OwnedFd) -> io::Result<Self> {
        Self::spawn(Sink {
            log,
            file: Some(File::from(target)),
            path: None,
            checked_at: clock::now(),
            write_failed: false,
            open_failed: false,
        })
    }

    fn spawn(sink: Sink) -> io::Result<Self> {
        let log = sink.log;
        let (messages, incoming) = channel::bounded(log.queue_length());
        let (give_back, recycled) = channel::bounded(log.queue_length());
        let (finish, finished) = channel::bounded(0);
        let drops = Arc::new(Drops::default());
        let queue = Queue { log, messages, recycled, drops: drops.clone() };
        thread::Builder::new().name(log.name().replace(' ', "-")).spawn(move || {
            run(sink, &incoming, &give_back, &drops);
            // From here on whoever sends is told that nobody writes; only then is it said that this has ended.
            drop(incoming);
            drop(finish);
        })?;
        Ok(Self { queue, finished, stopped: false })
    }

    fn stop(&mut self, timeout: Duration) -> bool {
        if self.stopped {
            return true;
        }
        self.stopped = true;
        let start = clock::now();
        // Behind everything that was handed over before. It fails when the queue stays full, or the thread is gone
        // already.
        let _ = self.queue.messages.send_timeout(Message::Stop, timeout);
        let left = timeout.saturating_sub(clock::now().since(start));
        self.finished.recv_timeout(left) == Err(channel::RecvTimeoutError::Disconnected)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop(Duration::from_millis(LOG_FLUSH_MS));
    }
}

/// One reactor's lines on their way to the writer. Dropping it hands over what it has.
#[derive(Debug)]
pub struct Handle {
    /// Whole lines.
    batch: Vec<u8>,
    queue: Queue,
}

impl Handle {
    /// Where the next line is appended, with its line feed.
    pub fn line_buffer(&mut self) -> &mut Vec<u8> {
        &mut self.batch
    }

    /// To be called after each line: hands over a full batch. Never waits.
    pub fn flush_if_full(&mut self) {
        if self.batch.len() >= ACCESS_LOG_BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands over what there is. To be called now and then (a tick of the timers), so that a quiet server's lines
    /// show up. Never waits.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        debug_assert!(self.batch.ends_with(b"\n"), "whole lines only");
        match self.queue.send(std::mem::take(&mut self.batch)) {
            Ok(()) => self.batch = self.queue.recycled.try_recv().unwrap_or_default(),
            Err(Refused::Full(batch) | Refused::Stopped(batch)) => {
                self.batch = emptied(batch);
                self.queue.report_drops();
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The sending side, for any thread.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    log: Log,
    messages: Sender<Message>,
    recycled: Receiver<Vec<u8>>,
    drops: Arc<Drops>,
}

impl Queue {
    /// Hands over whole lines, or counts and gives back what can't be. Never waits.
    pub(super) fn send(&self, lines: Vec<u8>) -> Result<(), Refused> {
        let refused = match self.messages.try_send(Message::Lines(lines)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(Message::Lines(lines))) => Refused::Full(lines),
            Err(TrySendError::Disconnected(Message::Lines(lines))) => Refused::Stopped(lines),
            Err(TrySendError::Full(Message::Stop) | TrySendError::Disconnected(Message::Stop)) => {
                unreachable!("lines were sent")
            }
        };
        if let Refused::Full(lines) = &refused {
            self.drops.add(memchr::memchr_iter(b'\n', lines).count() as u64);
        }
        Err(refused)
    }

    /// The thread may be stuck, so that its clients must speak for it. The error log can't speak for itself this way.
    fn report_drops(&self) {
        let due = if self.log == Log::Access { self.drops.due(clock::now()) } else { None };
        if let Some(lines) = due {
            tracing::warn!("{}", drop_sentence(self.log, lines));
        }
    }
}

/// Lines that weren't taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// They are counted as dropped.
    Full(Vec<u8>),
    /// The thread has ended.
    Stopped(Vec<u8>),
}

#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    Stop,
}

/// Counts dropped lines, and when that was last told.
#[derive(Debug, Default)]
struct Drops {
    total: AtomicU64,
    untold: AtomicU64,
    /// Nanoseconds of the clock; 0: never.
    told_at: AtomicU64,
}

impl Drops {
    fn add(&self, lines: u64) {
        self.total.fetch_add(lines, Ordering::Relaxed);
        self.untold.fetch_add(lines, Ordering::Relaxed);
    }

    fn pending(&self) -> bool {
        self.untold.load(Ordering::Relaxed) > 0
    }

    /// How many lines to tell of now, if any: once per interval, whoever asks first.
    fn due(&self, now: Instant) -> Option<u64> {
        let told_at = self.told_at.load(Ordering::Relaxed);
        let recent = told_at != 0 && now.since(Instant::from_nanos(told_at)) < Duration::from_millis(LOG_CHECK_MS);
        if recent || !self.pending() {
            return None;
        }
        self.told_at.compare_exchange(told_at, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(self.untold.swap(0, Ordering::Relaxed)).filter(|&lines| lines > 0)
    }
}

/// The thread: until told to stop, or until nobody is left who could log.
fn run(mut sink: Sink, incoming: &Receiver<Message>, give_back: &Sender<Vec<u8>>, drops: &Drops) {
    loop {
        // Lines are dropped while the queue is full only, so there is no news of them to wait for.
        let message = if drops.pending() {
            incoming.recv_timeout(Duration::from_millis(LOG_CHECK_MS))
        } else {
            incoming.recv().map_err(|_| channel::RecvTimeoutError::Disconnected)
        };
        match message {
            Ok(Message::Lines(lines)) => {
                sink.write(clock::now(), &lines);
                // Nobody may be taking them back.
                let _ = give_back.try_send(emptied(lines));
            }
            Ok(Message::Stop) | Err(channel::RecvTimeoutError::Disconnected) => break,
            Err(channel::RecvTimeoutError::Timeout) => {}
        }
        if let Some(lines) = drops.due(clock::now()) {
            sink.tell_drops(lines);
        }
    }
    // What came in meanwhile, but not for ever.
    for message in incoming.try_iter().take(sink.log.queue_length()) {
        if let Message::Lines(lines) = message {
            sink.write(clock::now(), &lines);
        }
    }
    let lines = drops.untold.swap(0, Ordering::Relaxed);
    if lines > 0 {
        sink.tell_drops(lines);
    }
}

/// What is written to.
#[derive(Debug)]
struct Sink {
    log: Log,
    /// `None`: standard output (access log) or standard error (error log), wherever it leads to by now: `--daemon` detaches it.
    file: Option<File>,
    /// The path of the file.
    path: Option<PathBuf>,
    /// When it was last looked whether `path` is still `file`.
    checked_at: Instant,
    /// Whether the last write failed, and that has been told.
    write_failed: bool,
    /// Whether `path` couldn't be opened when it was last tried, and that has been told.
    open_failed: bool,
}

/// A log without a thread: whoever logs writes, and waits for it.
#[derive(Debug)]
pub(super) struct AtOnce(Mutex<Sink>);

impl AtOnce {
    /// Opens the target; `None` when it is off.
    pub(super) fn open(log: Log, target: &LogTarget) -> Result<Option<Self>, String> {
        Ok(Sink::open(log, target)?.map(|sink| Self(Mutex::new(sink))))
    }

    /// Writes whole lines.
    pub(super) fn write(&self, lines: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(clock::now(), lines);
    }
}

impl Sink {
    fn open(log: Log, target: &LogTarget) -> Result<Option<Self>, String> {
        let (file, path) = match target {
            LogTarget::Off => return Ok(None),
            LogTarget::Standard => {
                let name = match log {
                    Log::Access => "output",
                    Log::Error => "error",
                };
                rustix::io::fcntl_getfd(log.standard()).map_err(|error| {
                    format!("{} -: standard {name} can't be used ({error}); name a file", log.flag())
                })?;
                (None, None)
            }
            LogTarget::File(path) => {
                // Absolute, since the working directory may change.
                let opened = std::path::absolute(path).and_then(|path| Ok((open_file(&path)?, path)));
                let (file, path) = opened.map_err(|error| {
                    format!(
                        "{} {}: the file can't be opened for appending ({error}); create its directory, \
                         and allow this user to write there",
                        log.flag(),
                        path.display()
                    )
                })?;
                (Some(file), Some(path))
            }
        };
        Ok(Some(Self { log, file, path, checked_at: clock::now(), write_failed: false, open_failed: false }))
    }

    /// Writes all of it, or gives the rest up and tells of it once per spell of failures.
    fn write(&mut self, now: Instant, lines: &[u8]) {
        self.follow_rotation(now);
        match self.write_lines(lines) {
            Ok(()) => self.write_failed = false,
            Err(_) if self.write_failed => {}
            Err(error) => {
                self.write_failed = true;
                self.complain(&format!("can't be written ({error}); lines are lost until it can be written again"));
            }
        }
    }

    fn target(&self) -> BorrowedFd<'_> {
        self.file.as_ref().map_or_else(|| self.log.standard(), AsFd::as_fd)
    }

    /// Into a pipe that several processes write to, no more at once than the kernel keeps together (pipe(7), `PIPE_BUF`), and whole
    /// lines: they aren't torn apart by another process's. A file that is appended to needs no such care.
    fn write_lines(&self, mut lines: &[u8]) -> io::Result<()> {
        let pipe = lines.len() > PIPE_BYTES_TOGETHER
            && rustix::fs::fstat(self.target()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_fifo());
        while pipe && lines.len() > PIPE_BYTES_TOGETHER {
            let end = memchr::memrchr(b'\n', &lines[..PIPE_BYTES_TOGETHER])
                .or_else(|| memchr::memchr(b'\n', lines))
                .map_or(lines.len(), |at| at + 1);
            write_all(self.target(), &lines[..end])?;
            lines = &lines[end..];
        }
        write_all(self.target(), lines)
    }

    /// Opens the path anew if its file was moved away or removed, as logrotate does.
    fn follow_rotation(&mut self, now: Instant) {
        let Some(path) = &self.path else { return };
        if now.since(self.checked_at) < Duration::from_millis(LOG_CHECK_MS) {
            return;
        }
        self.checked_at = now;
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let at_path = fs::metadata(path).map(identity).ok();
        let open = self.file.as_ref().and_then(|file| file.metadata().map(identity).ok());
        if at_path.is_some() && at_path == open {
            return;
        }
        match open_file(path) {
            Ok(file) => {
                self.file = Some(file);
                self.open_failed = false;
            }
            Err(_) if self.open_failed => {}
            Err(error) => {
                self.open_failed = true;
                self.complain(&format!(
                    "can't be opened anew ({error}); lines go on into the file that was moved away"
                ));
            }
        }
    }

    fn complain(&self, fault: &str) {
        let target = self.path.as_ref().map_or("-".to_owned(), |path| path.display().to_string());
        let sentence = format!("{} {target}: {fault}", self.log.flag());
        match (self.log, &self.path) {
            (Log::Access, _) => tracing::warn!("{sentence}"),
            // The last place left to say it; if that fails too, there is none.
            (Log::Error, Some(_)) => drop(io::stderr().write_all(&message::warning_line(&sentence))),
            (Log::Error, None) => {}
        }
    }

    fn tell_drops(&mut self, lines: u64) {
        let sentence = drop_sentence(self.log, lines);
        match self.log {
            Log::Access => tracing::warn!("{sentence}"),
            Log::Error => self.write(clock::now(), &message::warning_line(&sentence)),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// Writes all of it. A target that somebody else made non-blocking (a terminal or pipe is shared) is waited for.
fn write_all(target: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(target, bytes).map_err(io::Error::from) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut room = [PollFd::from_borrowed_fd(target, PollFlags::OUT)];
                retry_on_intr(|| rustix::event::poll(&mut room, None))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn emptied(mut lines: Vec<u8>) -> Vec<u8> {
    lines.clear();
    lines.shrink_to(BUFFER_KEPT_BYTES_MAX);
    lines
}

fn drop_sentence(log: Log, lines: u64) -> String {
    let (name, flag) = (log.name(), log.flag());
    format!(
        "{lines} line(s) of the {name} were dropped, because it is written too slowly; point {flag} at a faster target"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::observe::error_log::tests::captured;

    fn lines_of(reader: &mut UnixStream) -> usize {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert!(text.is_empty() || text.ends_with(b"\n"), "whole lines");
        text.iter().filter(|&&byte| byte == b'\n').count()
    }

    #[test]
    fn a_target_that_is_not_read_never_blocks_and_drops_are_counted() {
        let (mut reader, target) = UnixStream::pair().unwrap();
        let writer = LogWriter::onto(Log::Access, target.into()).unwrap();
        // The thread is stuck in this one, so that it is this test's thread that tells of what comes after.
        writer.queue.send([vec![b'x'; 16 * 1024 * 1024], b"\n".to_vec()].concat()).unwrap();
        let mut handle = writer.handle();
        let mut sent = 1;
        let told = captured(|| {
            // Ends when lines are dropped; were it to block, it wouldn't end.
            while writer.dropped() == 0 {
                handle.line_buffer().extend_from_slice(&[b'x'; 1000]);
                handle.line_buffer().push(b'\n');
                handle.flush_if_full();
                sent += 1;
            }
        });
        assert!(told.contains("line(s) of the access log were dropped"), "{told:?}");
        let dropped = usize::try_from(writer.dropped()).unwrap();
        assert!(handle.line_buffer().is_empty());
        assert!(dropped * 1001 >= ACCESS_LOG_BATCH_BYTES && dropped < sent);
        let reading = thread::spawn(move || lines_of(&mut reader));
        assert!(writer.shutdown(Duration::from_secs(60)));
        drop(handle);
        assert_eq!(reading.join().unwrap(), sent - dropped, "what wasn't dropped was written before the end");
    }

    #[test]
    fn a_stuck_writer_does_not_hold_up_the_end() {
        let (reader, target) = UnixStream::pair().unwrap();
        let writer = LogWriter::onto(Log::Access, target.into()).unwrap();
        writer.queue.send(vec![b'\n'; 16 * 1024 * 1024]).unwrap();
        assert!(!writer.shutdown(Duration::ZERO));
        drop(reader);
    }

    #[test]
    fn batches_go_round() {
        let (reader, target) = UnixStream::pair().unwrap();
        let writer = LogWriter::onto(Log::Access, target.into()).unwrap();
        let mut handle = writer.handle();
        handle.line_buffer().extend_from_slice(b"one\n");
        handle.flush_if_full();
        assert_eq!(handle.line_buffer(), b"one\n", "not full");
        handle.flush();
        let returned = writer.queue.recycled.recv().unwrap();
        assert!(returned.is_empty() && returned.capacity() >= 4);
        handle.line_buffer().extend_from_slice(b"two\n");
        drop(handle);
        assert!(writer.shutdown(Duration::from_secs(60)));
        let mut text = String::new();
        (&reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
        assert!(emptied(Vec::with_capacity(BUFFER_KEPT_BYTES_MAX * 2)).capacity() <= BUFFER_KEPT_BYTES_MAX);
    }

    #[test]
    fn handles_may_outlive_the_writer() {
        let (_reader, target) = UnixStream::pair().unwrap();
        let writer = LogWriter::onto(Log::Access, target.into()).unwrap();
        let mut handle = writer.handle();
        assert!(writer.shutdown(Duration::from_secs(60)));
        handle.line_buffer().extend_from_slice(b"late\n");
        handle.flush();
        assert!(handle.line_buffer().is_empty());
        assert!(matches!(handle.queue.send(b"later\n".to_vec()), Err(Refused::Stopped(lines)) if lines == b"later\n"));
    }

    #[test]
    fn drops_are_told_once_per_second() {
        let drops = Drops::default();
        let check = |ms: u64, expected| {
            assert_eq!(drops.due(Instant::from_nanos(1) + Duration::from_millis(ms)), expected, "at {ms} ms");
        };
        check(0, None);
        drops.add(3);
        check(0, Some(3));
        drops.add(1);
        drops.add(1);
        check(999, None);
        check(1000, Some(2));
        check(5000, None);
        assert_eq!(drops.total.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_failing_target_is_told_once_per_spell() {
        let now = clock::now();
        let told = captured(|| {
            let mut full = Sink::open(Log::Access, &LogTarget::File("/dev/full".into())).unwrap().unwrap();
            full.write(now, b"lost\n");
            full.write(now, b"lost\n");
            full.file = Some(File::options().write(true).open("/dev/null").unwrap());
            full.write(now, b"well\n");
            full.file = Some(File::options().write(true).open("/dev/full").unwrap());
            full.write(now, b"lost\n");
        });
        assert_eq!(told.matches("--access-log /dev/full: can't be written").count(), 2, "{told}");
        let told = captured(|| {
            let (reader, target) = UnixStream::pair().unwrap();
            drop(reader);
            let mut broken = Sink::open(Log::Access, &LogTarget::Standard).unwrap().unwrap();
            broken.file = Some(File::from(std::os::fd::OwnedFd::from(target)));
            broken.write(now, b"lost\n");
            broken.write(now, b"lost\n");
        });
        assert_eq!(told.matches("--access-log -: can't be written").count(), 1, "{told}");
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        fs::write(&path, "before\n").unwrap();
        let mut sink = Sink::open(Log::Access, &LogTarget::File(path.clone())).unwrap().unwrap();
        let start = sink.checked_at;
        sink.write(start, b"one\n");
        fs::rename(&path, &moved).unwrap();
        sink.write(start + Duration::from_millis(LOG_CHECK_MS - 1), b"two\n");
        sink.write(start + Duration::from_millis(LOG_CHECK_MS), b"three\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o137, 0, "nobody else may read it");
        fs::remove_dir_all(directory.path()).unwrap();
        let told = captured(|| {
            sink.write(start + Duration::from_secs(8), b"four\n");
            sink.write(start + Duration::from_secs(9), b"five\n");
        });
        assert_eq!(told.matches("can't be opened anew").count(), 1, "{told}");
    }

    #[test]
    fn targets() {
        let check = |log, target: LogTarget, expected: &[&str]| {
            let error = LogWriter::start(log, &target).unwrap_err();
            assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        };
        let missing = || LogTarget::File("/nonexistent/directory/log".into());
        check(Log::Access, missing(), &["--access-log /nonexistent/directory/log: ", "create its directory"]);
        check(Log::Error, missing(), &["--error-log "]);
        assert!(LogWriter::start(Log::Access, &LogTarget::Off).unwrap().is_none());
        assert!(
            LogWriter::start(Log::Access, &LogTarget::Standard).unwrap().unwrap().shutdown(Duration::from_secs(60))
        );
    }

    #[test]
    fn a_non_blocking_target_is_waited_for() {
        let (mut reader, target) = UnixStream::pair().unwrap();
        target.set_nonblocking(true).unwrap();
        let writer = LogWriter::onto(Log::Access, target.into()).unwrap();
        writer.queue.send(vec![b'\n'; 4 * 1024 * 1024]).unwrap();
        let reading = thread::spawn(move || lines_of(&mut reader));
        assert!(writer.shutdown(Duration::from_secs(60)));
        assert_eq!(reading.join().unwrap(), 4 * 1024 * 1024);
    }
}
