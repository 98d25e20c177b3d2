//! The one place that reads a clock. Everything else is handed `now`.

use std::ops::Add;
use std::time::Duration;

/// A point on CLOCK_MONOTONIC in nanoseconds, comparable with Python's `time.monotonic()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanoseconds` after the clock's own zero.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// The end of the clock: what a duration without limit leads to.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// Nanoseconds since the clock's own zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the clock's own zero: what Python's `time.monotonic()` counts.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Time passed since `earlier`, zero if that lies in the future.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the end of the clock (584 years).
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Now, on CLOCK_MONOTONIC.
pub fn now() -> Instant {
    let time = read(libc::CLOCK_MONOTONIC);
    Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// CPU time the calling thread has used (CLOCK_THREAD_CPUTIME_ID: a system call, some 200 ns).
pub fn thread_cpu() -> Duration {
    let time = read(libc::CLOCK_THREAD_CPUTIME_ID);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time all threads of the process have used (CLOCK_PROCESS_CPUTIME_ID: a system call that looks at every thread).
pub fn process_cpu() -> Duration {
    let time = read(libc::CLOCK_PROCESS_CPUTIME_ID);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The clock that counts the CPU time of one thread, for other threads to read.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// That of the calling thread; `None` if the system has none.
    #[expect(unsafe_code, reason = "the system floor: pthread_getcpuclockid has no safe wrapper in libc")]
    pub fn of_this_thread() -> Option<Self> {
        let mut clock = 0;
        // SAFETY: the calling thread lives, and `clock` is a valid, writable integer for the duration of the call.
        let status = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        (status == 0).then_some(Self(clock))
    }

    /// What it shows; `None` once its thread has ended.
    #[expect(unsafe_code, reason = "the system floor: clock_gettime has no safe wrapper in libc")]
    pub fn read(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid, writable timespec for the duration of the call; the kernel checks the clock's number.
        let status = unsafe { libc::clock_gettime(self.0, &mut time) };
        (status == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

/// Seconds since 1970 (CLOCK_REALTIME_COARSE: up to 4 ms old, read without a system call).
pub fn unix_seconds() -> u64 {
    read(libc::CLOCK_REALTIME_COARSE).tv_sec as u64
}

#[expect(unsafe_code, reason = "the system floor: clock_gettime has no safe wrapper in libc")]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the duration of the call.
    let status = unsafe { libc::clock_gettime(clock, &mut time) };
    debug_assert_eq!(status, 0, "these clocks exist on every Linux");
    time
}

/// Seconds that local time is ahead of UTC (east is positive) at `unix_seconds`; 0 if that can't be told.
///
/// Reads `TZ` and the zone's file when it is first called in a process: call it once before threads start.
#[expect(unsafe_code, reason = "the system floor: localtime_r has no safe wrapper in libc")]
pub fn local_offset(unix_seconds: u64) -> i32 {
    let Ok(seconds) = libc::time_t::try_from(unix_seconds) else { return 0 };
    // SAFETY: a `tm` of zeros is valid: integers, and a null `tm_zone` that nobody reads.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call. glibc and musl take their own lock around the zone's data.
    let result = unsafe { libc::localtime_r(&seconds, &mut broken_down) };
    if result.is_null() { 0 } else { i32::try_from(broken_down.tm_gmtoff).unwrap_or(0) }
}
