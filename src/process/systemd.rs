//! What systemd is told: that the server is ready, reloads, stops, and still lives (sd_notify(3)).
//!
//! One datagram for each message, to the socket in NOTIFY_SOCKET. It is written here and not left to a crate because the
//! ones there are read that variable each time, and here it is taken out of the environment before the application sees it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::limits::{NOTIFY_SEND_MS, NOTIFY_STATUS_BYTES_MAX};

/// What systemd sets for the server alone; programs that the application starts must not take it for theirs.
pub const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The way to systemd; without NOTIFY_SOCKET everything it is told is dropped.
#[derive(Debug, Default)]
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Watchdog>,
}

/// When a sign of life is due.
#[derive(Debug)]
struct Watchdog {
    /// Half of what systemd allows.
    interval: Duration,
    due: Instant,
}

impl Notifier {
    /// From the environment of the process that systemd started, and a sentence for the error log if it can't be used. To be
    /// called before the process forks: WATCHDOG_PID names this one.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>, now: Instant) -> (Self, Option<String>) {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return (Self::default(), None);
        };
        let opened = address(&name).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            // A systemd that hangs must not stop the server.
            socket.set_write_timeout(Some(Duration::from_millis(NOTIFY_SEND_MS)))?;
            Ok((socket, address))
        });
        let target = match opened {
            Ok(target) => target,
            Err(error) => {
                let shown = name.to_string_lossy();
                let warning = format!("NOTIFY_SOCKET={shown}: can't be used ({error}), so systemd isn't told anything");
                return (Self::default(), Some(warning));
            }
        };
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let interval = interval(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), std::process::id());
        let watchdog = interval.map(|interval| Watchdog { interval, due: now });
        (Self { target: Some(target), watchdog }, None)
    }

    /// Whether somebody listens.
    pub fn is_on(&self) -> bool {
        self.target.is_some()
    }

    /// The server accepts and answers, for the first time or again after [`Notifier::reloading`].
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nMAINPID={}\n{}", std::process::id(), status_line(status)));
    }

    /// The application is being loaded anew. Needs [`Notifier::ready`] after it, whether that works or not.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={microseconds}\n{}",
            status_line("loading the application anew")
        ));
    }

    /// No new connections; requests in flight are finished.
    pub fn stopping(&self) {
        self.send(&format!("STOPPING=1\n{}", status_line("stopping")));
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&status_line(status));
    }

    /// Sends a sign of life if one is due. To be called by whoever would notice that the server is stuck, at
    /// [`Notifier::deadline`] at the latest.
    pub fn alive(&mut self, now: Instant) {
        let due = match &mut self.watchdog {
            Some(watchdog) if watchdog.due <= now => {
                watchdog.due = now + watchdog.interval;
                true
            }
            _ => false,
        };
        if due {
            self.send("WATCHDOG=1");
        }
    }

    /// When [`Notifier::alive`] has something to do; `None`: never.
    pub fn deadline(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.due)
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.target else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            let first = message.lines().next().unwrap_or_default();
            tracing::warn!("systemd can't be told {first} ({error})");
        }
    }
}

/// The address in NOTIFY_SOCKET: a path, or a name in the abstract namespace behind an `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a path nor an abstract name")),
    }
}

/// Half of WATCHDOG_USEC, if it is meant for this process.
fn interval(microseconds: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid.is_empty() || pid.parse() == Ok(own));
    let microseconds = microseconds.filter(|_| ours)?.parse::<u64>().ok().filter(|microseconds| *microseconds >= 2)?;
    Some(Duration::from_micros(microseconds / 2))
}

/// `STATUS=`, without anything that could be another field.
fn status_line(status: &str) -> String {
    let line: String = status.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let mut end = line.len().min(NOTIFY_STATUS_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    format!("STATUS={}", &line[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notifier(name: &OsStr, more: &[(&str, &str)], now: Instant) -> Notifier {
        let variable = |wanted: &str| match wanted {
            "NOTIFY_SOCKET" => Some(name.to_owned()),
            _ => more.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.into()),
        };
        let (notifier, warning) = Notifier::from_environment(variable, now);
        assert_eq!(warning, None);
        notifier
    }

    fn next(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn told(socket: &UnixDatagram, name: &OsStr) {
        let notifier = notifier(name, &[], Instant::now());
        assert!(notifier.is_on() && notifier.deadline().is_none());
        notifier.ready("4 workers\nREADY=0");
        let expected = format!("READY=1\nMAINPID={}\nSTATUS=4 workers READY=0", std::process::id());
        assert_eq!(next(socket), Some(expected));
        let before = clock_gettime(ClockId::Monotonic).tv_sec;
        notifier.reloading();
        let message = next(socket).unwrap();
        let lines: Vec<&str> = message.lines().collect();
        let microseconds: i64 = lines[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(lines[0] == "RELOADING=1" && (before..before + 60).contains(&(microseconds / 1_000_000)), "{message}");
        notifier.stopping();
        assert_eq!(next(socket).unwrap(), "STOPPING=1\nSTATUS=stopping");
        notifier.status("fine");
        assert_eq!(next(socket).unwrap(), "STATUS=fine");
    }

    #[test]
    fn paths_and_abstract_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        told(&socket, path.as_os_str());
        let name = format!("hoopsnake-test-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        told(&socket, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn signs_of_life() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let now = Instant::now();
        let pid = std::process::id().to_string();
        let mut notifier = notifier(path.as_os_str(), &[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", &pid)], now);
        let mut check = |ms: u64, expected: Option<&str>| {
            notifier.alive(now + Duration::from_millis(ms));
            assert_eq!(next(&socket).as_deref(), expected, "at {ms} ms");
            notifier.deadline().unwrap() - now
        };
        assert_eq!(check(0, Some("WATCHDOG=1")), Duration::from_millis(1500));
        assert_eq!(check(1499, None), Duration::from_millis(1500));
        assert_eq!(check(1500, Some("WATCHDOG=1")), Duration::from_millis(3000));
    }

    #[test]
    fn intervals() {
        let check = |microseconds: Option<&str>, pid: Option<&str>, expected: Option<u64>| {
            assert_eq!(interval(microseconds, pid, 7), expected.map(Duration::from_micros), "{microseconds:?} {pid:?}");
        };
        check(Some("3000000"), None, Some(1_500_000));
        check(Some("3000000"), Some("7"), Some(1_500_000));
        check(Some("3000000"), Some("8"), None);
        check(Some("3000000"), Some("x"), None);
        check(Some("0"), None, None);
        check(Some("1"), None, None);
        check(Some("-5"), None, None);
        check(Some(""), None, None);
        check(None, Some("7"), None);
    }

    #[test]
    fn without_systemd_nothing_happens() {
        let (mut notifier, warning) = Notifier::from_environment(|_| None, Instant::now());
        assert!(!notifier.is_on() && warning.is_none());
        notifier.ready("fine");
        notifier.alive(Instant::now());
        for name in ["vsock:2:1234", "relative", "@"] {
            let (notifier, warning) = Notifier::from_environment(|_| Some(name.into()), Instant::now());
            assert!(!notifier.is_on() && warning.unwrap().contains(&format!("NOTIFY_SOCKET={name}: can't be used")));
        }
    }

    #[test]
    fn nobody_who_listens_is_no_harm() {
        let notifier = notifier(OsStr::new("/nonexistent/notify"), &[], Instant::now());
        notifier.ready("fine");
    }

    proptest! {
        #[test]
        fn a_status_is_one_short_line(status in ".{0,600}") {
            let line = status_line(&status);
            prop_assert!(line.starts_with("STATUS=") && line.lines().count() == 1);
            prop_assert!(line.len() <= "STATUS=".len() + NOTIFY_STATUS_BYTES_MAX);
        }
    }
}
