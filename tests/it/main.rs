//! The real server on port 0, byte for byte: one file per promise, every test on all three drivers.
//!
//! `HOOPSNAKE_TEST_PYTHON` names a Python that has the extension installed; without it, `.venv/bin/python` is used, where
//! `make test` puts it. What the server's parts promise each other is tested in their own files, not here.

#[macro_use]
mod support;

mod background;
mod blocking;
mod bodies;
mod cache;
mod disconnects;
mod figures;
mod files;
mod forks;
mod framing;
mod hello;
mod hits;
mod interruption;
mod lifecycle;
mod logs;
mod parking;
mod pipelining;
mod priorities;
mod processes;
mod reader;
mod slow;
mod storms;
mod timeouts;
mod urgency;
mod wsgi;
