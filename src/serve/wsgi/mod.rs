//! The application: requests that are in, through WSGI (PEP 3333), to responses that can be sent.
//!
//! Reactors put exchanges into the [`Pool`] and get them back through their mailboxes. Workers are Python threads that take
//! requests only while they are attached to the interpreter, and never touch a socket.
//!
//! One request: `pool` takes it, `environ` and `input` describe it, `call` runs the application, `start_response` and
//! `response` turn what it says into bytes, `file_wrapper` hands files over, `release` gives large buffers back to Python.
//!
//! Beside the way of a request: `seat` is a worker as others see it, `timeout` judges who has run for too long, `elastic` how many
//! workers there should be, `interval` how soon one that computes lets others go on, and `overseer` does, on the main thread, what
//! follows from that; `forked` ends the children that an application forks and doesn't end itself.

pub mod baton;
mod call;
pub mod elastic;
mod environ;
#[expect(unsafe_code, reason = "what PyO3 has no safe way to")]
mod ffi;
mod file_wrapper;
pub mod forked;
mod input;
mod interval;
mod overseer;
pub mod pool;
mod release;
mod response;
mod seat;
mod start_response;
#[cfg(test)]
mod tests;
pub mod timeout;
mod waiting;

pub(crate) use ffi::set_async_exception;
pub use overseer::{Hooks, Overseer, Plight, leave_at_once};
pub use pool::{ListenerInfo, Pool, PoolSettings};
