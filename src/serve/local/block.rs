//! Clients that the application has blocked with `X-WSGo-Block` (spec B §16): who, until when, how their requests are held up.
//! Knows no connection and no clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ahash::RandomState;

use crate::limits;
use crate::reactor::clock::Instant;

/// A blocked client.
struct Blocked {
    until: Instant,
    /// Requests refused.
    refused: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is refused after this time; [`Blocks::release`] must follow.
    Hold(Duration),
    /// It is refused at once: as many as may be are held up already.
    Refuse,
}

/// The blocked clients of a process.
#[derive(Default)]
pub struct Blocks {
    clients: HashMap<IpAddr, Blocked, RandomState>,
    held: usize,
    /// When those whose time is over are looked for next.
    sweep: Instant,
}

/// The value of `X-WSGo-Block`: whole seconds, [`limits::BLOCK_S_MAX`] at most. `None`: it can't be read, and is ignored.
pub fn seconds(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    number
        .then(|| digits.parse().unwrap_or(u64::MAX))
        .filter(|seconds| *seconds > 0)
        .map(|s| s.min(limits::BLOCK_S_MAX))
}

/// Whether an address can be blocked: not one of this machine or of a private network, for many a client may be behind it.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified())
        }
    }
}

impl Blocks {
    /// Blocks a client for some seconds from now; a second time replaces the first. Whether it is blocked: it can be, and there are
    /// no more than [`limits::BLOCKED_CLIENTS_MAX`].
    pub fn block(&mut self, client: IpAddr, seconds: u64, now: Instant) -> bool {
        if !is_public(client) {
            return false;
        }
        if self.clients.len() >= limits::BLOCKED_CLIENTS_MAX && !self.clients.contains_key(&client) {
            return false;
        }
        let until = now + Duration::from_secs(seconds);
        self.clients.entry(client).and_modify(|blocked| blocked.until = until).or_insert(Blocked { until, refused: 0 });
        true
    }

    /// Clients that are blocked; those whose time is over count until they are looked for.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether anybody is blocked: without that there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// What becomes of a request of this client. If its time is over, also how many of its requests were refused.
    pub fn judge(&mut self, client: IpAddr, now: Instant) -> (Verdict, Option<u64>) {
        let Some(blocked) = self.clients.get_mut(&client) else { return (Verdict::Pass, None) };
        let left = blocked.until.since(now);
        if left.is_zero() {
            let refused = blocked.refused;
            self.clients.remove(&client);
            return (Verdict::Pass, Some(refused));
        }
        blocked.refused += 1;
        let wait = Duration::from_secs(left.as_secs().min(limits::BLOCK_HOLD_S_MAX));
        if wait.is_zero() || self.held >= limits::BLOCK_HELD_MAX {
            return (Verdict::Refuse, None);
        }
        self.held += 1;
        (Verdict::Hold(wait), None)
    }

    /// A request that was held isn't any more.
    pub fn release(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// Once in a while, forgets those whose time is over; each with the number of its requests that were refused.
    pub fn sweep(&mut self, now: Instant) -> Vec<(IpAddr, u64)> {
        if self.clients.is_empty() || now < self.sweep {
            return Vec::new();
        }
        self.sweep = now + Duration::from_secs(limits::BLOCK_SWEEP_S);
        let mut over = Vec::new();
        self.clients.retain(|client, blocked| {
            let stays = blocked.until > now;
            if !stays {
                over.push((*client, blocked.refused));
            }
            stays
        });
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    fn second(number: u64) -> Instant {
        START + Duration::from_secs(number)
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    #[test]
    fn values() {
        let check = |value: &str, expected| assert_eq!(seconds(value.as_bytes()), expected, "{value:?}");
        check("60", Some(60));
        check(" 60 ", Some(60));
        check("+60", Some(60));
        for bad in ["", "0", "-1", "1.5", "1s", "x", "0x10"] {
            check(bad, None);
        }
        check("99999999999999999999999", Some(limits::BLOCK_S_MAX));
    }

    #[test]
    fn who_can_be_blocked() {
        for address in ["203.0.113.9", "2001:db8::1", "8.8.8.8", "::ffff:203.0.113.9"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
            assert!(!Blocks::default().block(address.parse().unwrap(), 60, START));
        }
    }

    #[test]
    fn blocked_until_the_time_is_over() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.judge(client(1), START), (Verdict::Pass, None));
        assert!(blocks.block(client(1), 60, START));
        assert_eq!(blocks.judge(client(2), START), (Verdict::Pass, None), "nobody else");
        assert_eq!(blocks.judge(client(1), START).0, Verdict::Hold(Duration::from_secs(25)));
        assert_eq!(blocks.judge(client(1), second(50)).0, Verdict::Hold(Duration::from_secs(10)));
        let nearly = second(59) + Duration::from_millis(500);
        assert_eq!(blocks.judge(client(1), nearly).0, Verdict::Refuse, "less than a second is no wait");
        assert_eq!(blocks.judge(client(1), second(60)), (Verdict::Pass, Some(3)));
        assert!(blocks.is_empty());
    }

    #[test]
    fn one_address_is_blocked_and_no_other_of_its_network() {
        let mut blocks = Blocks::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(blocks.block(address("2a00:1450::1"), 60, START));
        assert!(matches!(blocks.judge(address("2a00:1450::1"), START).0, Verdict::Hold(_)));
        assert_eq!(blocks.judge(address("2a00:1450::2"), START).0, Verdict::Pass);
    }

    #[test]
    fn a_second_time_replaces_the_first() {
        let mut blocks = Blocks::default();
        blocks.block(client(1), 60, START);
        blocks.block(client(1), 2, START);
        assert_eq!(blocks.judge(client(1), second(2)), (Verdict::Pass, Some(0)));
    }

    #[test]
    fn only_so_many_are_held() {
        let mut blocks = Blocks::default();
        blocks.block(client(1), 60, START);
        for _ in 0..limits::BLOCK_HELD_MAX {
            assert!(matches!(blocks.judge(client(1), START).0, Verdict::Hold(_)));
        }
        assert_eq!(blocks.judge(client(1), START).0, Verdict::Refuse);
        blocks.release();
        assert!(matches!(blocks.judge(client(1), START).0, Verdict::Hold(_)));
    }

    #[test]
    fn the_table_is_bounded_and_swept() {
        let mut blocks = Blocks::default();
        for number in 0..limits::BLOCKED_CLIENTS_MAX as u32 {
            assert!(blocks.block(IpAddr::from((0x0800_0000 + number).to_be_bytes()), 60, START));
        }
        assert!(!blocks.block(client(1), 60, START));
        assert!(blocks.block(IpAddr::from(0x0800_0000_u32.to_be_bytes()), 120, START), "one that is in it already");
        assert!(blocks.sweep(second(1)).is_empty());
        assert!(blocks.sweep(second(30)).is_empty(), "not so soon again");
        assert_eq!(blocks.sweep(second(90)).len(), limits::BLOCKED_CLIENTS_MAX - 1);
        assert!(blocks.block(client(1), 60, second(90)));
    }
}
