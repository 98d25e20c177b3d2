//! The time slice of a thread: how soon it runs once it was woken while another thread computes on its processor.
//!
//! Linux's scheduler (EEVDF, since 6.6) lets a thread that computes go on until its slice is over, some 0.7 to 3 ms, and looks whether it
//! is at its ticks, 1 to 10 ms apart. Whoever is woken meanwhile waits for that, unless its own slice is shorter: then it runs at
//! once, as long as it hasn't had more than its share of the processor, which stays what it was. Since 6.12 a thread may
//! choose its slice, from 0.1 to 100 ms, without any privilege: `sched_runtime` of sched_setattr(2) for threads of `SCHED_OTHER`
//! (Documentation/scheduler/sched-eevdf.rst). Older kernels tell no slice there, and this does nothing.

use std::mem::size_of;
use std::time::Duration;

/// The shortest that the kernel takes. Longer than a reactor's turn, or a light request, needs.
pub const SHORT: Duration = Duration::from_micros(100);

/// The slice of the thread that made it.
#[derive(Debug)]
pub struct Slice {
    /// What it was before; `None` if there is nothing to choose.
    usual: Option<Duration>,
    short: bool,
}

impl Slice {
    /// That of the calling thread, to be used by no other one.
    pub fn of_this_thread() -> Self {
        Self { usual: current().filter(|&usual| usual > SHORT), short: false }
    }

    /// Makes it [`SHORT`], or what it was before. Costs a system call, some 300 ns, only where that changes something. Threads and
    /// processes that the thread starts meanwhile inherit it. Where the kernel doesn't know it, or doesn't allow it, nothing
    /// happens.
    pub fn set_short(&mut self, short: bool) {
        let Some(usual) = self.usual.filter(|_| short != self.short) else { return };
        self.short = short;
        if !change(if short { SHORT } else { usual }) {
            self.usual = None;
        }
    }
}

/// The slice of the calling thread; `None` where it can't be told: an older kernel, another policy than `SCHED_OTHER`, a filter
/// of system calls.
pub fn current() -> Option<Duration> {
    attributes().map(|attributes| Duration::from_nanos(attributes.sched_runtime))
}

/// What the kernel says of the calling thread, if a slice is among it.
#[expect(unsafe_code, reason = "the system floor: libc has no function for sched_getattr(2)")]
fn attributes() -> Option<libc::sched_attr> {
    // SAFETY: all its fields are integers, for which zero is valid.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let bytes = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: the kernel writes `bytes` bytes at most to `attributes`, which is as long. Number 0 means the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    let told = result == 0 && attributes.sched_policy == libc::SCHED_OTHER as u32 && attributes.sched_runtime > 0;
    told.then_some(attributes)
}

/// Changes nothing but the slice. True if the kernel agreed.
#[expect(unsafe_code, reason = "the system floor: libc has no function for sched_setattr(2)")]
fn change(slice: Duration) -> bool {
    let Some(mut attributes) = attributes() else { return false };
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: the kernel reads as many bytes as the first field says, which it has set itself to no more than there are.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_short_slice_for_as_long_as_it_wants_and_others_keep_theirs() {
        // `None` on a kernel before 6.12: then nothing changes.
        let usual = current();
        let short = usual.map(|usual| usual.min(SHORT));
        let seen = std::thread::spawn(|| {
            let mut slice = Slice::of_this_thread();
            [true, true, false, false, true].map(|short| {
                slice.set_short(short);
                current()
            })
        });
        assert_eq!(seen.join().unwrap(), [short, short, usual, usual, short]);
        assert_eq!(current(), usual);
    }
}
