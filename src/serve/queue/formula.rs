//! What a request is worth: wsgo's formula and its constants (the behaviour of 0.0.25), as plain arithmetic.
//!
//! `1000 − 500 (a query) − 8000 (a bot) − 2000 × running − 1000 × recent`, the last three for clients with a public address only.
//! *Running* counts the requests of the same source that workers run; *recent* those they have started, one forgotten per second.
//! A source is an IPv4 address, or the first 64 bits of an IPv6 address: what one subscriber is given.

use std::net::IpAddr;

use crate::reactor::clock::Instant;

/// What every request begins with.
pub const BEGINNING: i32 = 1_000;
/// Taken off for a query string.
pub const QUERY: i32 = 500;
/// Taken off for a user agent that looks like a program.
pub const BOT: i32 = 8_000;
/// Taken off for each request of the source that is being run.
pub const RUNNING: i64 = 2_000;
/// Taken off for each recent request of the source.
pub const RECENT: i64 = 1_000;
/// A request worth this or less is taken only while no other one runs, or one that is worth far less.
pub const IDLE_ONLY: i64 = -7_000;
/// What far less is: as much as lies between what every request begins with and [`IDLE_ONLY`].
pub const FAR: i64 = 8_000;
/// Nanoseconds after which one recent request is forgotten.
pub const FORGET_NS: u64 = 1_000_000_000;
/// Taken off for each level of cost ([`super::cost`]).
pub const COST: i32 = 100;

/// Who is asking, as far as priority goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asking {
    /// The source whose requests are counted; `None` for clients that are exempt.
    pub source: Option<Source>,
    /// What the request is worth before its source is looked at.
    pub worth: i32,
    /// Levels of cost that are not in `worth` yet, and wear off while it waits.
    pub cost_levels: u8,
}

/// A source of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(u128);

impl Source {
    /// The source that an address belongs to; none if it is of this machine or of a private network (127.0.0.0/8, ::1, RFC 1918,
    /// RFC 4193), whose requests aren't counted.
    pub fn of(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        (!is_exempt(address)).then(|| Self::counted(address))
    }

    /// The source that an address belongs to, whatever it is.
    pub fn counted(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(1 << 64 | u128::from(address.to_bits())),
            IpAddr::V6(address) => Self(address.to_bits() >> 64),
        }
    }
}

fn is_exempt(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

/// Whether a User-Agent is that of a program.
pub fn is_bot(user_agent: &[u8]) -> bool {
    let begins = |rest: &[u8], word: &[u8]| rest.len() >= word.len() && rest[..word.len()].eq_ignore_ascii_case(word);
    // Most letters begin none of the words.
    user_agent.iter().enumerate().any(|(at, letter)| {
        let words: &[&[u8]] = match letter | 0x20 {
            b'b' => &[b"bot"],
            b'c' => &[b"crawler"],
            b'f' => &[b"facebook"],
            b'h' => &[b"http:", b"https:"],
            b'i' => &[b"index"],
            b's' => &[b"spider"],
            _ => return false,
        };
        words.iter().any(|word| begins(&user_agent[at..], word))
    })
}

/// Recent requests of a source whose history is forgotten altogether at `until`.
pub fn recent(until: Instant, now: Instant) -> u64 {
    until.as_nanos().saturating_sub(now.as_nanos()) / FORGET_NS
}

/// What a source takes off each of its requests.
pub fn penalty(running: u32, recent: u64) -> i64 {
    RUNNING * i64::from(running) + RECENT * recent as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        for exempt in ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.3.4", "::1"] {
            assert_eq!(of(exempt), None, "{exempt}");
        }
        for exempt in ["fc00::1", "fdff::1", "::ffff:10.0.0.1"] {
            assert_eq!(of(exempt), None, "{exempt}");
        }
        for counted in ["172.32.0.1", "169.254.1.1", "203.0.113.1", "fe80::1", "2001:db8::1", "0.0.0.1"] {
            assert!(of(counted).is_some(), "{counted}");
        }
        assert_eq!(of("::ffff:203.0.113.1"), of("203.0.113.1"));
        assert_ne!(of("203.0.113.1"), of("203.0.113.2"), "an IPv4 address each");
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"), "an IPv6 /64 together");
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        // The first 64 bits of an IPv6 address never look like an IPv4 address.
        assert_ne!(of("0:0:cb00:7101::"), of("203.0.113.1"));
        assert!(of("10.0.0.1").is_none() && Source::counted("10.0.0.1".parse().unwrap()) != of("11.0.0.1").unwrap());
    }

    #[test]
    fn bots() {
        for bot in [
            "Googlebot/2.1",
            "BOT",
            "x-Crawler",
            "aSPIDERb",
            "facebookexternalhit/1.1",
            "Indexer",
            "a (+HTTPS://e.com)",
            "http:",
        ] {
            assert!(is_bot(bot.as_bytes()), "{bot}");
        }
        for other in [
            "",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0",
            "curl/8.5",
            "bo",
            "http",
            "inde",
        ] {
            assert!(!is_bot(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn history_is_forgotten_second_by_second() {
        let at = Instant::from_nanos;
        assert_eq!(recent(at(3 * FORGET_NS), at(0)), 3);
        assert_eq!(recent(at(3 * FORGET_NS), at(1)), 2);
        assert_eq!(recent(at(3 * FORGET_NS), at(FORGET_NS)), 2);
        assert_eq!(recent(at(3 * FORGET_NS), at(4 * FORGET_NS)), 0);
        assert_eq!(penalty(2, 3), 7_000);
    }
}
