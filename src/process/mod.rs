//! Who is alive: the supervisor and its workers, the listening sockets, the reactor threads, what a main thread waits on.
//!
//! Nothing in here knows Python; the order of start and stop stands in `pymodule`.
//!
//! The supervisor's life: `supervisor` (the loop) asks `slots` (the thinking, pure) and does what it says; `channel` and `board` are
//! how it and a worker know of each other, `seat` is the worker's side of that, `hooks` is where others join in.
//!
//! Around it: `house` is the order in which housekeeping is done, `pidfile`, `privileges`, `daemon`, `systemd` and `watch` are its
//! parts, `standard` is what each process has from the start, and `alarm` is time as a descriptor.

pub mod alarm;
pub mod bell;
pub mod board;
pub mod channel;
pub mod daemon;
pub mod hooks;
pub mod house;
pub mod listeners;
pub mod pidfile;
pub mod privileges;
pub mod reactors;
pub mod seat;
pub mod slots;
pub mod standard;
pub mod supervisor;
pub mod systemd;
pub mod watch;
