//! Hoopsnake: a WSGI server for Linux. One I/O reactor per core, one shared pool of Python threads.
//!
//! One request: `bytes → Head → body complete → queue → worker → application → Reply → bytes → log`.
//! The rooms below stand in the order in which a request, or a reader, meets them.
//!
//! What is *not* here, and stays so:
//! - A reactor's turn never takes the GIL, never blocks, never waits for a disk.
//! - A Python worker never touches a socket, and never waits while it holds the GIL.
//! - `serve::http1`, `serve::conn`, `background` and `config` read no clock and do no I/O: bytes and `now` in, values out.
//! - `unsafe` is found in `reactor` (the system floor) and in `serve::wsgi::ffi` (CPython) only.
//! - `pyo3` is found in `serve::wsgi` and `pymodule` only.
//! - Nothing grows past a bound named in [`limits`].

// Every bound: name, unit, consequence.
pub mod limits;

// What was asked: flags, environment, file → one immutable `Config`.
pub mod config;

// Who is alive: listeners, start, stop.
pub mod process;

// One request, room by room.
pub mod serve;

// Without a request: when cron jobs and timers are due.
pub mod background;

// After a request: access log, error log, counters.
pub mod observe;

// The floor: one turn of a reactor, its three drivers, buffers, timers, wake-ups, the clock.
pub mod reactor;

// What Python imports as `hoopsnake._core`.
mod pymodule;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
