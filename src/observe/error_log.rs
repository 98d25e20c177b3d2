//! Start, stop, faults and tracebacks, as lines that people read:
//!
//! `2026-11-21 03:04:05 +0000 [4711] [warning] the port is taken`
//!
//! The rest of the server calls `tracing`'s macros, from any thread; this is where their events go. In a process that serves no
//! call waits: a thread writes ([`super::writer`]). Before that thread is started, and after it has ended, whoever logs writes: so
//! does a supervisor, which must have no threads when it forks. Spans are not recorded.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::message::Message;
pub use super::message::timestamp;
use super::writer::{AtOnce, Log, LogWriter, Queue, Refused};
use crate::config::{LogLevel, LogTarget};

/// The running error log. Dropping the last handle to it writes what is queued, for a second at most.
#[derive(Clone, Debug)]
pub struct ErrorLog {
    /// `None` when it is off, has no thread yet, or has been shut down.
    writer: Arc<Mutex<Option<LogWriter>>>,
    target: LogTarget,
    /// Where [`Lines`] finds the way to the thread.
    queue: Arc<OnceLock<Queue>>,
}

impl ErrorLog {
    /// Starts the thread that writes, so that from now on nobody waits. Threads don't survive fork(2): to be called in the process that
    /// serves.
    ///
    /// # Errors
    /// One sentence, when the target can't be opened or there can't be another thread.
    pub fn start_writer(&self) -> Result<(), String> {
        let Some(writer) = LogWriter::start(Log::Error, &self.target)? else { return Ok(()) };
        // Set once only: a second thread would have nothing to write.
        if self.queue.set(writer.queue()).is_ok() {
            *self.lock() = Some(writer);
        }
        Ok(())
    }

    /// Writes what is queued and ends the thread; false if that took longer than `timeout`. What is logged after
    /// this, last words, is written at once by whoever logs it.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        let writer = self.lock().take();
        writer.is_none_or(|writer| writer.shutdown(timeout))
    }

    /// Writes whole lines as they are, at whatever level: an answer that was asked for. Never waits; from a process that serves only.
    pub fn answer(&self, lines: String) {
        if let Some(queue) = self.queue.get() {
            // Full: it is counted.
            let _ = queue.send(lines.into_bytes());
        }
    }

    /// Messages' lines that were dropped since the start, because the target was too slow.
    pub fn dropped(&self) -> u64 {
        self.lock().as_ref().map_or(0, LogWriter::dropped)
    }

    fn lock(&self) -> MutexGuard<'_, Option<LogWriter>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins the error log: from now on `tracing`'s events of this level and above are written to the target, by whoever logs until
/// [`ErrorLog::start_writer`].
///
/// # Errors
/// One sentence, when the target can't be opened or when a log was begun before in this process.
pub fn init(target: &LogTarget, level: LogLevel) -> Result<ErrorLog, String> {
    let queue = Arc::default();
    let error_log = ErrorLog { writer: Arc::default(), target: target.clone(), queue: Arc::clone(&queue) };
    let Some(at_once) = AtOnce::open(Log::Error, target)? else { return Ok(error_log) };
    let lines = Lines { level: filter(level), queue, at_once: Some(at_once) };
    tracing::subscriber::set_global_default(lines)
        .map_err(|_| "--error-log: the log was started before in this process; start the server once".to_owned())?;
    Ok(error_log)
}

const fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// Makes lines of events.
struct Lines {
    level: LevelFilter,
    queue: Arc<OnceLock<Queue>>,
    /// The target, for when there is no thread.
    at_once: Option<AtOnce>,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Message::start(event.metadata().level());
        event.record(&mut line);
        let refused = match self.queue.get() {
            // Full: it is counted, and the writer tells of it.
            Some(queue) => queue.send(line.finish()),
            None => Err(Refused::Stopped(line.finish())),
        };
        if let (Err(Refused::Stopped(line)), Some(at_once)) = (refused, &self.at_once) {
            at_once.write(&line);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // Any number but zero: nothing is kept under it.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::limits::ERROR_LOG_MESSAGE_BYTES_MAX;

    fn captured_at(level: LogLevel, act: impl FnOnce()) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("error.log");
        let writer = LogWriter::start(Log::Error, &LogTarget::File(path.clone())).unwrap().unwrap();
        let queue = OnceLock::from(writer.queue());
        let lines = Lines { level: filter(level), queue: Arc::new(queue), at_once: None };
        tracing::subscriber::with_default(lines, act);
        assert!(writer.shutdown(Duration::from_secs(60)));
        std::fs::read_to_string(path).unwrap()
    }

    /// What this thread logs meanwhile.
    pub(in crate::observe) fn captured(act: impl FnOnce()) -> String {
        captured_at(LogLevel::Debug, act)
    }

    #[test]
    fn messages() {
        let check = |expected: &str, act: fn()| {
            let text = captured(act);
            let (time, rest) = text.split_at(25);
            let digits: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(digits.replace('-', "+"), "0000+00+00 00:00:00 +0000");
            assert_eq!(rest, format!(" [{}] {expected}\n", std::process::id()));
        };
        check("[error] broken", || tracing::error!("broken"));
        check("[warning] 3 lines", || tracing::warn!("{} lines", 3));
        check("[info] up reactors=2 driver=\"ring\"", || tracing::info!(reactors = 2, driver = "ring", "up"));
        check("[debug] x", || tracing::debug!("x\n\n"));
        check("[error] Traceback:\n  File\tx\n\\x1B[2J\\x0D\\x00\\x9B \u{e4}", || {
            tracing::error!("Traceback:\n  File\tx\n\x1b[2J\r\0\u{9b} \u{e4}");
        });
    }

    #[test]
    fn levels() {
        let check = |level, expected: &[&str]| {
            let text = captured_at(level, || {
                tracing::error!("1");
                tracing::warn!("2");
                tracing::info!("3");
                tracing::debug!("4");
                tracing::trace!("5");
            });
            let found: Vec<&str> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
            assert_eq!(found, expected);
        };
        check(LogLevel::Error, &["1"]);
        check(LogLevel::Warning, &["1", "2"]);
        check(LogLevel::Info, &["1", "2", "3"]);
        check(LogLevel::Debug, &["1", "2", "3", "4"]);
    }

    #[test]
    fn a_message_is_bounded() {
        let text = captured(|| tracing::error!("{}\n{}", "\u{e4}".repeat(ERROR_LOG_MESSAGE_BYTES_MAX), "\0".repeat(9)));
        assert!(text.ends_with("\u{e4} [cut]\n"));
        assert!(
            (ERROR_LOG_MESSAGE_BYTES_MAX - 16..=ERROR_LOG_MESSAGE_BYTES_MAX).contains(&text.len()),
            "{}",
            text.len()
        );
    }

    #[test]
    fn last_words_are_written_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let target = LogTarget::File(directory.path().join("error.log"));
        let writer = LogWriter::start(Log::Error, &target).unwrap().unwrap();
        let at_once = AtOnce::open(Log::Error, &target).unwrap();
        let lines = Lines { level: LevelFilter::INFO, queue: Arc::new(OnceLock::from(writer.queue())), at_once };
        assert!(writer.shutdown(Duration::from_secs(60)));
        tracing::subscriber::with_default(lines, || tracing::error!("gone"));
        assert!(std::fs::read_to_string(directory.path().join("error.log")).unwrap().ends_with("[error] gone\n"));
    }

    #[test]
    fn a_target_that_is_not_read_never_blocks() {
        let (reader, target) = UnixStream::pair().unwrap();
        let writer = LogWriter::onto(Log::Error, target.into()).unwrap();
        let queue = Arc::new(OnceLock::from(writer.queue()));
        let lines = Lines { level: LevelFilter::INFO, queue, at_once: None };
        let mut sent = 0;
        tracing::subscriber::with_default(lines, || {
            while writer.dropped() == 0 {
                tracing::error!("{}", "x".repeat(4000));
                sent += 1;
            }
        });
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            (&reader).read_to_string(&mut text).unwrap();
            text
        });
        assert!(writer.shutdown(Duration::from_secs(60)));
        let text = reading.join().unwrap();
        assert_eq!(text.matches("[error] xxx").count(), sent - 1);
        assert!(text.contains("[warning] 1 line(s) of the error log were dropped"), "it tells of itself");
    }

    #[test]
    fn an_error_log_that_is_off_says_nothing() {
        let log = init(&LogTarget::Off, LogLevel::Debug).unwrap();
        assert_eq!(log.dropped(), 0);
        assert!(log.shutdown(Duration::ZERO));
        assert!(
            init(&LogTarget::File("/nonexistent/log".into()), LogLevel::Debug).unwrap_err().contains("--error-log")
        );
    }
}
