//! One worker's place as other threads see it: what it is at, since when, and how to interrupt exactly that.
//!
//! The exception is raised with `PyThreadState_SetAsyncExc`, which knows threads, not requests. That it never reaches another
//! request than the one it is meant for rests on [`Seat::word`], which changes at the beginning and at the end of every request:
//!
//! - Who interrupts holds [`Seat::setting`], swaps the word it has judged for the same with the flag *interrupted*, and only
//!   if that succeeds (the worker is still at the same request) sets the exception, still under the lock.
//! - A worker that ends a request swaps the word for one that is not running. If the flag was set, it waits for the lock, so that
//!   the exception is set by then, and takes it back: delivered or not, none is pending from there on. No Python code runs in
//!   between, so it can't surface there.
//!
//! Nothing of this needs the GIL, so it holds for free-threaded builds as well.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use super::ffi;
use super::start_response::Shared;
use super::timeout::Word;
use crate::reactor::clock::Instant;

thread_local! {
    /// Number (from 1) of the seat this thread sits on; 0 for all threads but workers.
    static HERE: Cell<u32> = const { Cell::new(0) };
}

const NOT_DISMISSED: u8 = 0;
/// Somebody is about to, if the worker still rests.
const ASKING: u8 = 1;
const DISMISSED: u8 = 2;

/// The place of one worker; threads may follow one another on it.
#[derive(Default)]
pub(super) struct Seat {
    /// A [`Word`].
    word: AtomicU64,
    /// When what the worker is at began, in nanoseconds of [`Instant`]; `u64::MAX` while it waits for its client.
    since: AtomicU64,
    /// The request that is run, in the queue's books.
    run: AtomicU64,
    /// Python's identifier of the thread; 0 when there is none.
    thread: AtomicU64,
    /// Whether a thread sits here, or is about to.
    taken: AtomicBool,
    /// Whether the thread, which rested, is to end.
    dismissal: AtomicU8,
    /// Held while an exception is set.
    setting: Mutex<()>,
    /// What the response of the request that is run is made in.
    callables: Mutex<Option<Arc<Shared>>>,
}

impl Seat {
    /// Takes the seat for a thread that is about to be started. False if it is taken.
    pub(super) fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    /// Whether a thread sits here, or is about to.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// The thread sits down. `thread` is its `threading.get_ident()`.
    pub(super) fn sit(&self, index: u32, thread: u64, now: Instant) {
        HERE.set(index + 1);
        self.dismissal.store(NOT_DISMISSED, Ordering::Relaxed);
        self.since.store(now.as_nanos(), Ordering::Relaxed);
        self.thread.store(thread, Ordering::Release);
    }

    /// The thread, or the attempt to start one, has ended.
    pub(super) fn leave(&self) {
        self.thread.store(0, Ordering::Relaxed);
        self.set_callables(None);
        self.taken.store(false, Ordering::Release);
    }

    /// Python's identifier of the thread, if one sits here.
    pub(super) fn thread(&self) -> Option<u64> {
        Some(self.thread.load(Ordering::Acquire)).filter(|&thread| thread != 0)
    }

    /// The resting thread is to end, if `withdraw` succeeds: if it was still resting.
    pub(super) fn dismiss(&self, withdraw: impl FnOnce() -> bool) -> bool {
        self.dismissal.store(ASKING, Ordering::SeqCst);
        let dismissed = withdraw();
        self.dismissal.store(if dismissed { DISMISSED } else { NOT_DISMISSED }, Ordering::SeqCst);
        dismissed
    }

    /// Worker, when it rests no more: whether that is because it was dismissed. Otherwise it was chosen.
    pub(super) fn is_dismissed(&self) -> bool {
        loop {
            match self.dismissal.load(Ordering::SeqCst) {
                // A handful of instructions on another thread.
                ASKING => std::thread::yield_now(),
                state => return state == DISMISSED,
            }
        }
    }

    /// What the worker is at.
    pub(super) fn word(&self) -> Word {
        Word::from_bits(self.word.load(Ordering::Acquire))
    }

    /// When what it is at, or was at last, began. Read after the word: it may be that of a later request, never of an earlier one.
    pub(super) fn since(&self) -> Instant {
        Instant::from_nanos(self.since.load(Ordering::Acquire))
    }

    /// Worker, before a request begins: what the queue knows it by ([`crate::serve::queue::Run::name`]). It stays so until the worker
    /// has taken another one.
    pub(super) fn set_run(&self, run: u64) {
        self.run.store(run, Ordering::Release);
    }

    /// What the queue knows the request by that is run.
    pub(super) fn run(&self) -> u64 {
        self.run.load(Ordering::Acquire)
    }

    /// Worker: a request begins.
    pub(super) fn begin(&self, now: Instant) {
        self.since.store(now.as_nanos(), Ordering::Release);
        // Nobody else writes the word while no request is run.
        let word = Word::from_bits(self.word.load(Ordering::Relaxed)).begun();
        self.word.store(word.bits(), Ordering::Release);
    }

    /// Worker: the request has ended; all Python code of it has run. What it was: interrupted, stuck. After this no exception
    /// is pending.
    pub(super) fn end(&self, py: Python<'_>) -> Word {
        let ended = Word::from_bits(self.word.load(Ordering::Relaxed)).ended();
        let was = Word::from_bits(self.word.swap(ended.bits(), Ordering::AcqRel));
        if was.is_interrupted() {
            let _setting = self.setting.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
            if let Some(thread) = self.thread() {
                ffi::set_async_exception(py, thread, None);
            }
        }
        was
    }

    /// Raises `exception` in the worker's thread if it is still at the request that `word` was seen of.
    pub(super) fn interrupt(&self, py: Python<'_>, word: Word, exception: &Bound<'_, PyAny>) -> bool {
        let _setting = self.setting.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = self.thread() else { return false };
        self.change(word, word.interrupted()) && ffi::set_async_exception(py, thread, Some(exception))
    }

    /// From now on the worker counts as stuck, if it is still at the same request.
    pub(super) fn give_up(&self, word: Word) -> bool {
        self.change(word, word.stuck())
    }

    fn change(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.bits(), to.bits(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether the calling thread is the one that sits on this seat, not another one of the application's.
    pub(super) fn is_here(index: u32) -> bool {
        HERE.get() == index + 1
    }

    /// Worker, or a thread of its application: the time that passes in `wait` is the client's. It begins anew after it.
    pub(super) fn pause(&self, index: u32, wait: impl FnOnce(), now: impl FnOnce() -> Instant) {
        // An application may wait on a thread of its own, whose time nobody measures.
        let ours = Self::is_here(index);
        if ours {
            self.since.store(u64::MAX, Ordering::Release);
        }
        wait();
        if ours {
            self.since.store(now().as_nanos(), Ordering::Release);
        }
    }

    /// Worker: a part of the response is handed over. A stream may last as long as it moves: its time begins anew.
    pub(super) fn progress(&self, index: u32, now: impl FnOnce() -> Instant) {
        if Self::is_here(index) {
            self.since.store(now().as_nanos(), Ordering::Release);
        }
    }

    /// Where the worker's response is made from now on.
    pub(super) fn set_callables(&self, callables: Option<Arc<Shared>>) {
        let old = std::mem::replace(&mut *lock(&self.callables), callables);
        drop(old);
    }

    /// Where the worker's response is made.
    pub(super) fn callables(&self) -> Option<Arc<Shared>> {
        lock(&self.callables).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use pyo3::types::PyDict;

    use super::*;
    use crate::reactor::clock;

    const REQUESTS: u64 = 10_000;
    /// `work` may be interrupted anywhere in it; nothing ever may in `between`. A sleep of 0 lets the GIL go, so that another thread can
    /// interrupt there; nobody waits for anything by it.
    const SOURCE: &str = "
import time

class Late(Exception):
    pass

def work(steps):
    for _ in range(steps):
        time.sleep(0)

def between():
    for _ in range(3):
        time.sleep(0)
";

    #[test]
    fn the_exception_stays_in_its_request() {
        Python::initialize();
        let seat = Seat::default();
        let (mut delivered, mut pending) = (0_u64, 0_u64);
        let done = AtomicBool::new(false);
        let scope: Py<PyDict> = Python::attach(|py| {
            let scope = PyDict::new(py);
            py.run(&CString::new(SOURCE).unwrap(), Some(&scope), None).unwrap();
            scope.unbind()
        });
        let named = |py: Python<'_>, name: &str| scope.bind(py).get_item(name).unwrap().unwrap().unbind();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                // However this thread ends, the other one is to end as well.
                struct Ends<'a>(&'a AtomicBool);
                impl Drop for Ends<'_> {
                    fn drop(&mut self) {
                        self.0.store(true, Ordering::Release);
                    }
                }
                let _ends = Ends(&done);
                Python::attach(|py| {
                    let (work, between, late) = (named(py, "work"), named(py, "between"), named(py, "Late"));
                    assert!(seat.take());
                    seat.sit(0, ffi::thread_ident(py), clock::now());
                    for number in 0..REQUESTS {
                        seat.begin(clock::now());
                        let result = work.call1(py, (number % 4,));
                        // After its last bytecode a request may still let the GIL go: what is raised then stays pending.
                        py.detach(std::thread::yield_now);
                        let was = seat.end(py);
                        between.call0(py).expect("nothing is pending between requests");
                        assert_eq!(was.generation(), number + 1);
                        match result {
                            Ok(_) => pending += u64::from(was.is_interrupted()),
                            Err(error) => {
                                assert!(error.is_instance(py, late.bind(py)) && was.is_interrupted(), "{error}");
                                delivered += 1;
                            }
                        }
                    }
                });
            });
            threads.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    Python::attach(|py| {
                        let word = seat.word();
                        if word.is_running() && !word.is_interrupted() {
                            let late = named(py, "Late");
                            // What was judged may be over by the time it is acted on.
                            py.detach(std::thread::yield_now);
                            seat.interrupt(py, word, late.bind(py));
                        }
                    });
                }
            });
        });
        assert!(delivered > 0 && pending > 0, "{delivered} delivered, {pending} taken back");
    }

    #[test]
    fn nobody_is_interrupted_or_given_up_who_has_gone_on() {
        Python::initialize();
        Python::attach(|py| {
            let seat = Seat::default();
            assert!(seat.take() && !seat.take());
            seat.sit(0, ffi::thread_ident(py), clock::now());
            seat.begin(clock::now());
            let word = seat.word();
            assert!(!seat.end(py).is_stuck());
            assert!(!seat.give_up(word) && !seat.interrupt(py, word, py.None().bind(py)));
            seat.begin(clock::now());
            assert!(!seat.give_up(word));
            assert!(seat.give_up(seat.word()) && seat.end(py).is_stuck());
            seat.leave();
            assert!(seat.thread().is_none() && seat.take());
        });
    }

    #[test]
    fn who_is_chosen_at_the_same_moment_is_not_dismissed() {
        let seat = Seat::default();
        assert!(!seat.dismiss(|| false) && !seat.is_dismissed());
        assert!(seat.dismiss(|| true) && seat.is_dismissed());
    }
}
