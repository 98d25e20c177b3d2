//! The application: requests that are in, through WSGI (PEP 3333), to responses that can be sent.
//!
//! Reactors put exchanges into the [`Pool`] and get them back through their mailboxes. Workers are Python threads that take
//! requests only while they are attached to the interpreter, and never touch a socket.
//!
//! One request: `pool` takes it, `environ` and `input` describe it, `call` runs the application, `start_response` and
//! `response` turn what it says into bytes, `file_wrapper` hands files over, `release` gives large buffers back to Python.

pub mod baton;
mod call;
mod environ;
#[expect(unsafe_code, reason = "strings and descriptors that PyO3 has no safe way to")]
mod ffi;
mod file_wrapper;
mod input;
pub mod pool;
mod release;
mod response;
mod start_response;
#[cfg(test)]
mod tests;

pub use pool::{ListenerInfo, Pool, PoolSettings};
