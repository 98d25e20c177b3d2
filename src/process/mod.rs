//! Who is alive: the listening sockets, the reactor threads, what the main thread waits on.
//!
//! Nothing in here knows Python; the order of start and stop stands in `pymodule`.

pub mod bell;
pub mod listeners;
pub mod reactors;
