//! What the tests have in common: servers, raw clients, and a reader that forgives nothing.

pub mod client;
pub mod folder;
pub mod lines;
pub mod server;
pub mod storm;

use std::time::{Duration, Instant};

pub use client::{Client, Response};
pub use folder::Folder;
pub use server::{Driver, Profile, Server, Shared};

/// How long anything may take before a test gives up on it. Never part of what is asserted.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Makes three tests of each function, one for each driver: `name::ring`, `name::epoll`, `name::tokio_uring`.
///
/// A function that takes a [`Shared`] gets the server that most tests share; one that takes a [`Driver`] starts its own.
macro_rules! on_every_driver {
    ($($(#[doc = $doc:literal])* fn $name:ident($argument:ident: $subject:ty) $body:block)*) => { $(
        $(#[doc = $doc])*
        mod $name {
            #[allow(unused_imports, reason = "not every promise needs everything its file imports")]
            use super::*;

            fn promise($argument: $subject) $body

            #[test]
            fn ring() {
                promise($crate::support::server::Subject::on($crate::support::Driver::Ring));
            }

            #[test]
            fn epoll() {
                promise($crate::support::server::Subject::on($crate::support::Driver::Epoll));
            }

            #[test]
            fn tokio_uring() {
                promise($crate::support::server::Subject::on($crate::support::Driver::TokioUring));
            }
        }
    )* };
}

/// Looks again and again until `look` finds something; fails, saying what was waited for, when patience ends.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        // What is looked for tells nobody of its coming; a bell is waited for where there is one.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Lets some time go by between two pieces of input. Nothing depends on how much it really was.
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Bytes that repeat only after a long while, so that a lost, doubled or swapped piece shows.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
}

/// `data` in chunked coding, in chunks of `size` bytes, with its last chunk.
pub fn chunked(data: &[u8], size: usize) -> Vec<u8> {
    let mut coded = Vec::with_capacity(data.len() + data.len() / size * 8 + 16);
    for chunk in data.chunks(size) {
        coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    coded
}

/// The start of some bytes, readable.
pub fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 300;
    let more = if bytes.len() > SHOWN_MAX { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii())
}

/// Raises this process's own limit on open files, so that it can hold many connections; returns what it is then.
pub fn raise_descriptor_limit() -> usize {
    let limits = || {
        let text = std::fs::read_to_string("/proc/self/limits").expect("Linux has /proc");
        let line = text.lines().find(|line| line.starts_with("Max open files")).expect("the kernel lists it");
        let mut numbers = line.split_whitespace().skip(3).map(|number| number.parse::<usize>().unwrap_or(usize::MAX));
        (numbers.next().expect("a soft limit"), numbers.next().expect("a hard limit"))
    };
    let (soft, hard) = limits();
    if soft < hard {
        let process = format!("--pid={}", std::process::id());
        // Where util-linux is missing, the soft limit stays.
        let _ = std::process::Command::new("prlimit").args([process, format!("--nofile={hard}:{hard}")]).status();
    }
    limits().0
}
