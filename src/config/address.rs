//! Where a listener is bound: the text of `--http-socket` and back. Nothing is resolved or bound here.

use std::ffi::OsStr;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::values::shown;
use crate::limits;

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`, `:port` (all interfaces, IPv4 and IPv6), `[v6]:port`.
    Tcp {
        /// Empty for all interfaces; an IPv6 address stands without its brackets.
        host: String,
        /// 0: any free port.
        port: u16,
    },
    /// `unix:/path`; `unix:@name` for an abstract one (its `@` is kept here).
    Unix(PathBuf),
    /// `fd:N`: an inherited listening socket.
    Descriptor(i32),
}

impl Address {
    /// Reads one address.
    ///
    /// # Errors
    /// A clause that begins with the text, says what is wrong with it, and how it should look.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        if let Some(path) = text.as_bytes().strip_prefix(b"unix:") {
            return Self::unix(text, Path::new(OsStr::from_bytes(path)));
        }
        let Some(plain) = text.to_str() else {
            return Err(format!("{} isn't valid UTF-8", shown(text)));
        };
        let result = match plain.strip_prefix("fd:") {
            Some(number) => Self::descriptor(number),
            None => Self::tcp(plain),
        };
        result.map_err(|clause| format!("{} {clause}", shown(text)))
    }

    /// Whether binding both would give the same socket twice. Port 0 is another port each time.
    pub fn collides(&self, other: &Self) -> bool {
        self == other && !matches!(self, Self::Tcp { port: 0, .. })
    }

    fn unix(text: &OsStr, path: &Path) -> Result<Self, String> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() || bytes == b"@" {
            return Err(format!("{} names no socket: write unix:/path or unix:@name", shown(text)));
        }
        if bytes.len() > limits::UNIX_PATH_BYTES_MAX {
            let most = limits::UNIX_PATH_BYTES_MAX;
            return Err(format!("{} is longer than the {most} bytes a UNIX socket's path may have", shown(text)));
        }
        Ok(Self::Unix(path.to_path_buf()))
    }

    fn descriptor(number: &str) -> Result<Self, String> {
        match number.parse::<u32>().map(i32::try_from) {
            Ok(Ok(fd)) if digits(number) => Ok(Self::Descriptor(fd)),
            _ => Err("isn't the number of an inherited socket: write fd:3".to_owned()),
        }
    }

    fn tcp(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("is a URL: write only its host:port".to_owned());
        }
        if text.contains('/') {
            return Err("looks like a path: write unix:/path for a UNIX socket, or host:port".to_owned());
        }
        if digits(text) {
            return Ok(Self::Tcp { host: String::new(), port: port(text)? });
        }
        let Some((host, number)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
            return Err("names no port: write host:port or :port".to_owned());
        };
        let host = host_name(host)?;
        Ok(Self::Tcp { host, port: port(number)? })
    }
}

impl fmt::Display for Address {
    /// In the form [`Address::parse`] reads; a path that isn't UTF-8 is shown with replacement characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Descriptor(fd) => write!(f, "fd:{fd}"),
        }
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Err("names no port: write host:port or :port".to_owned());
    }
    if !digits(text) {
        return Err("has a port that isn't a number: write host:port, unix:/path or fd:N".to_owned());
    }
    text.parse().map_err(|_| "has a port that is too large: ports go from 0 (any free one) to 65535".to_owned())
}

/// The part before the port: empty, `*`, `[v6]`, IPv4 or a name. Whether a name exists shows when it is bound.
fn host_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "*" {
        return Ok(String::new());
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let (address, zone) = inner.split_once('%').unwrap_or((inner, "0"));
        return match address.parse::<Ipv6Addr>() {
            Ok(_) if plain_name(zone) => Ok(inner.to_owned()),
            _ => Err("has no IPv6 address between its brackets: write [::1]:8000".to_owned()),
        };
    }
    if text.contains(':') {
        return Err("has several colons: write an IPv6 address in brackets, such as [::1]:8000".to_owned());
    }
    if plain_name(text) {
        return Ok(text.to_owned());
    }
    Err("has characters that no host name has: write host:port, unix:/path or fd:N".to_owned())
}

/// Letters, digits, `.`, `-` and `_`, as in names of hosts and interfaces; at most 253 of them (RFC 1035 §2.3.4).
fn plain_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is what the address is shown as, or a part of the clause that says what is wrong.
    fn check(text: &str, expected: Result<&str, &str>) {
        match (Address::parse(OsStr::new(text)), expected) {
            (Ok(address), Ok(expected)) => {
                assert_eq!(address.to_string(), expected, "{text}");
                assert_eq!(Address::parse(OsStr::new(expected)).unwrap(), address, "{text}: not read back");
            }
            (Err(clause), Err(part)) => assert!(clause.contains(part), "{text}: {clause}"),
            (got, _) => panic!("{text}: {got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn addresses() {
        check(":8000", Ok(":8000"));
        check("8000", Ok(":8000"));
        check("*:8000", Ok(":8000"));
        check(":0", Ok(":0"));
        check(":65535", Ok(":65535"));
        check("127.0.0.1:80", Ok("127.0.0.1:80"));
        check("localhost:80", Ok("localhost:80"));
        check("[::1]:443", Ok("[::1]:443"));
        check("[::]:80", Ok("[::]:80"));
        check("[fe80::1%eth0]:80", Ok("[fe80::1%eth0]:80"));
        check("unix:/run/site.sock", Ok("unix:/run/site.sock"));
        check("unix:relative.sock", Ok("unix:relative.sock"));
        check("unix:@site", Ok("unix:@site"));
        check("fd:3", Ok("fd:3"));
    }

    #[test]
    fn faults_say_what_to_write() {
        check("", Err("names no port"));
        check("localhost", Err("names no port"));
        check("localhost:", Err("names no port"));
        check("65536", Err("0 (any free one) to 65535"));
        check(":65536", Err("0 (any free one) to 65535"));
        check(":99999999999999999999", Err("65535"));
        check(":http", Err("isn't a number"));
        check(":-1", Err("isn't a number"));
        check(":+1", Err("isn't a number"));
        check("::1:8000", Err("in brackets"));
        check("[::1]", Err("names no port"));
        check("[::g]:80", Err("between its brackets"));
        check("[::1%]:80", Err("between its brackets"));
        check("http://localhost:80", Err("is a URL"));
        check("/run/site.sock", Err("unix:/path"));
        check("a b:80", Err("no host name has"));
        check("unix:", Err("names no socket"));
        check("unix:@", Err("names no socket"));
        check(&format!("unix:/{}", "a".repeat(107)), Err("107 bytes"));
        check("fd:", Err("write fd:3"));
        check("fd:-1", Err("write fd:3"));
        check("fd:+3", Err("write fd:3"));
        check("fd:4294967295", Err("write fd:3"));
    }

    #[test]
    fn the_longest_unix_path_and_bytes_that_are_not_utf8() {
        let longest = format!("unix:/{}", "a".repeat(106));
        assert!(Address::parse(OsStr::new(&longest)).is_ok());
        let path = OsStr::from_bytes(b"/run/\xff.sock");
        assert_eq!(Address::parse(OsStr::from_bytes(b"unix:/run/\xff.sock")), Ok(Address::Unix(path.into())));
        assert!(Address::parse(OsStr::from_bytes(b"\xff:80")).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn only_port_zero_may_be_given_twice() {
        let parse = |text: &str| Address::parse(OsStr::new(text)).unwrap();
        assert!(parse(":80").collides(&parse("80")));
        assert!(!parse(":80").collides(&parse("127.0.0.1:80")));
        assert!(!parse(":0").collides(&parse(":0")));
        assert!(parse("fd:3").collides(&parse("fd:3")));
    }
}
