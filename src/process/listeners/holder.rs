//! Who holds a taken TCP port, as far as /proc tells this user. Only ever used to make a sentence more helpful.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use crate::limits::{SOCKET_HOLDER_LINKS_MAX, SOCKET_TABLE_BYTES_MAX};

/// `LISTEN` in the `st` column of /proc/net/tcp (include/net/tcp_states.h).
const STATE_LISTEN: &str = "0A";

/// `process 123 (nginx)`, or `None` if it can't be told.
pub(super) fn of_port(port: u16) -> Option<String> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let mut text = String::new();
        // Listening sockets stand before all others.
        let Ok(file) = fs::File::open(table) else { continue };
        if file.take(SOCKET_TABLE_BYTES_MAX).read_to_string(&mut text).is_ok() {
            sockets.extend(text.lines().filter_map(|line| listening_inode(line, port)));
        }
    }
    let process = process_with(&sockets.iter().map(|inode| format!("socket:[{inode}]")).collect::<Vec<_>>())?;
    if process == std::process::id() {
        return Some("this very command, under another --http-socket".to_owned());
    }
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    Some(format!("process {process} ({})", name.trim().escape_debug()))
}

/// The inode of a line of /proc/net/tcp that says that `port` is listened on.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
    let mut columns = line.split_whitespace().skip(1);
    let (_, local_port) = columns.next()?.rsplit_once(':')?;
    let state = columns.nth(1)?;
    if state != STATE_LISTEN || u16::from_str_radix(local_port, 16) != Ok(port) {
        return None;
    }
    columns.nth(5)?.parse().ok()
}

/// The first process that has one of these open.
fn process_with(links: &[String]) -> Option<u32> {
    let mut looked_at = 0;
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let descriptors: PathBuf = process.path().join("fd");
        // Other users' processes can't be looked into.
        let Ok(descriptors) = fs::read_dir(descriptors) else { continue };
        for descriptor in descriptors.flatten() {
            looked_at += 1;
            if looked_at > SOCKET_HOLDER_LINKS_MAX {
                return None;
            }
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            if links.iter().any(|link| target.as_os_str() == link.as_str()) {
                return Some(pid);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_lines_of_the_kernels_table() {
        let check = |line, port, expected| assert_eq!(listening_inode(line, port), expected, "{line}");
        let listening =
            "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 27482 1";
        check(listening, 8000, Some(27482));
        check(listening, 8001, None);
        let established =
            "   1: 0100007F:1F40 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 27483 1";
        check(established, 8000, None);
        let ipv6 =
            "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 99 1";
        check(ipv6, 80, Some(99));
        check(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            80,
            None,
        );
        check("", 80, None);
        check("0: x", 80, None);
    }

    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of_port(listener.local_addr().unwrap().port());
        assert_eq!(holder.as_deref(), Some("this very command, under another --http-socket"));
    }
}
