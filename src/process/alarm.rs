//! A point in time as something that can be waited for together with descriptors (timerfd_create(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// Becomes readable at a point in time.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    at: Option<Instant>,
}

impl Alarm {
    /// One that isn't set.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { timer: rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?, at: None })
    }

    /// Sets it to this time, or to none. What has passed is readable at once; setting it anew ends that.
    pub fn set(&mut self, at: Option<Instant>, now: Instant) {
        if self.at == at && at.is_none_or(|at| at > now) {
            return;
        }
        self.at = at;
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = at.map_or(zero, |at| {
            let left = at.saturating_duration_since(now);
            // Nothing left would mean never.
            let nanoseconds = if left.is_zero() { 1 } else { i64::from(left.subsec_nanos()) };
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: nanoseconds }
        });
        let times = Itimerspec { it_interval: zero, it_value };
        // Numbers in their range on a timer that is open: it can't fail.
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times);
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags};

    use super::*;

    fn readable(alarm: &Alarm, wait_ms: i64) -> bool {
        let timeout = Timespec { tv_sec: wait_ms / 1000, tv_nsec: wait_ms % 1000 * 1_000_000 };
        rustix::event::poll(&mut [PollFd::new(alarm, PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }

    #[test]
    fn it_rings_when_it_should() {
        let now = Instant::now();
        let mut alarm = Alarm::new().unwrap();
        assert!(!readable(&alarm, 0), "not set");
        alarm.set(Some(now), now);
        assert!(readable(&alarm, 60_000), "at once");
        alarm.set(Some(now + Duration::from_secs(600)), now);
        assert!(!readable(&alarm, 0), "later");
        alarm.set(Some(now + Duration::from_millis(20)), now);
        assert!(readable(&alarm, 60_000), "sooner");
        alarm.set(None, now);
        assert!(!readable(&alarm, 0), "never");
    }
}
