//! The real server on port 0, byte for byte: one file per promise, every test on all three drivers.
//!
//! `HOOPSNAKE_TEST_PYTHON` names a Python that has the extension installed; without it, `.venv/bin/python` is used, where
//! `make test` puts it. What the server's parts promise each other is tested in their own files, not here.

#[macro_use]
mod support;

mod bodies;
mod disconnects;
mod framing;
mod hello;
mod lifecycle;
mod logs;
mod pipelining;
mod reader;
mod slow;
mod timeouts;
mod wsgi;
