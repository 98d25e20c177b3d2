//! Whose request it is, when proxies stand between: decided here once, for the log and for whatever counts clients.

use std::net::{IpAddr, SocketAddr};

use crate::config::Network;

/// Who a request is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address; `None` for a Unix socket's peer of which nobody has told anything.
    pub address: Option<IpAddr>,
    /// The address is that of a proxy, which has told nonsense about its client.
    pub garbled: bool,
}

/// The client, by its address: the peer's, unless that is a trusted proxy. Then `X-Forwarded-For` (all its lines, joined by
/// commas) is walked from the right, past trusted proxies, to the first address that isn't trusted: each proxy
/// appends the peer it saw, so everything further left is the client's own claim. Where all are trusted it is the
/// leftmost; a member that is no address ends the walk at the last proxy that could be told. Never fails: whatever a
/// client sends, it stays somebody.
///
/// A Unix socket's peer has no address (`None`) and is trusted if any proxy is.
///
/// IPv4 addresses that came as IPv6 (`::ffff:192.0.2.1`, on a listener for both) are returned as IPv4.
pub fn client(peer: Option<IpAddr>, forwarded_for: Option<&[u8]>, trusted: &[Network]) -> Client {
    let is_trusted = |client: Option<IpAddr>| match client {
        Some(address) => trusted.iter().any(|network| network.contains(address)),
        None => !trusted.is_empty(),
    };
    let mut client = peer.map(|address| address.to_canonical());
    let mut garbled = false;
    let mut members = forwarded_for.unwrap_or_default().rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    while is_trusted(client) {
        // Empty members of a list mean nothing (RFC 9110 §5.6.1.2).
        let Some(member) = members.find(|member| !member.is_empty()) else { break };
        let Some(address) = parse(member) else {
            garbled = true;
            break;
        };
        client = Some(address);
    }
    Client { address: client, garbled }
}

/// An address as proxies write it: plain, in brackets, or with a port.
fn parse(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?;
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse().ok().or_else(in_brackets);
    address.or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip())).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client_address(peer: Option<IpAddr>, forwarded_for: Option<&[u8]>, trusted: &[Network]) -> Option<IpAddr> {
        client(peer, forwarded_for, trusted).address
    }

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    fn proxies() -> Vec<Network> {
        ["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16", "::1/128", "fc00::/7"].map(network).to_vec()
    }

    #[test]
    fn clients_behind_proxies() {
        let check = |peer: &str, forwarded_for: Option<&str>, expected: &str| {
            let found = client_address(peer.parse().ok(), forwarded_for.map(str::as_bytes), &proxies());
            assert_eq!(found, expected.parse().ok(), "{peer} {forwarded_for:?}");
        };
        // Without a proxy, and from one that isn't trusted.
        check("203.0.113.9", None, "203.0.113.9");
        check("203.0.113.9", Some("198.51.100.1"), "203.0.113.9");
        check("::ffff:203.0.113.9", Some("198.51.100.1"), "203.0.113.9");
        // From trusted ones.
        check("127.0.0.1", None, "127.0.0.1");
        check("127.0.0.1", Some("198.51.100.1"), "198.51.100.1");
        check("::ffff:10.0.0.1", Some("198.51.100.1"), "198.51.100.1");
        check("10.0.0.1", Some("1.1.1.1, 198.51.100.1"), "198.51.100.1");
        check("10.0.0.1", Some("1.1.1.1,198.51.100.1 ,\t10.2.3.4, 192.168.1.1"), "198.51.100.1");
        check("10.0.0.1", Some("10.0.0.3, 10.0.0.2"), "10.0.0.3");
        check("::1", Some("2001:db8::7"), "2001:db8::7");
        check("::1", Some("[2001:db8::7]:443, [fd00::1]"), "2001:db8::7");
        check("10.0.0.1", Some("198.51.100.1:5050"), "198.51.100.1");
        check("10.0.0.1", Some("::ffff:198.51.100.1"), "198.51.100.1");
        // A Unix socket's peer has no address; it is trusted if any proxy is.
        check("a Unix socket", None, "nobody");
        check("a Unix socket", Some("198.51.100.1, 10.0.0.2"), "198.51.100.1");
        check("a Unix socket", Some("garbage"), "nobody");
        assert_eq!(client_address(None, Some(b"198.51.100.1"), &[]), None);
        // Garbage ends the walk where it stands.
        check("10.0.0.1", Some("unknown"), "10.0.0.1");
        check("10.0.0.1", Some("198.51.100.1, unknown, 10.0.0.2"), "10.0.0.2");
        check("10.0.0.1", Some("198.51.100.1, 10.0.0.2;x"), "10.0.0.1");
        check("10.0.0.1", Some("010.0.0.2"), "10.0.0.1");
        check("10.0.0.1", Some("[10.0.0.2]"), "10.0.0.1");
        check("10.0.0.1", Some("198.51.100.1, \u{a0}"), "10.0.0.1");
        // Empty members are no garbage.
        check("10.0.0.1", Some(""), "10.0.0.1");
        check("10.0.0.1", Some(" , ,198.51.100.1,, "), "198.51.100.1");
    }

    #[test]
    fn nonsense_is_noticed_where_it_ends_the_walk() {
        let garbled = |text: &str| client("10.0.0.1".parse().ok(), Some(text.as_bytes()), &proxies()).garbled;
        assert!(garbled("unknown") && garbled("unknown, 10.0.0.2") && garbled("198.51.100.1,x"));
        assert!(!garbled("") && !garbled("10.0.0.2") && !garbled("unknown, 198.51.100.1"));
        assert!(!client("203.0.113.9".parse().ok(), Some(b"unknown"), &proxies()).garbled, "nobody listens to it");
    }

    proptest! {
        /// Whatever a client writes to the left of what the proxy appended, it is the proxy's word that counts.
        #[test]
        fn no_client_can_choose_its_address(claim in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut forwarded_for = claim;
            forwarded_for.extend_from_slice(b", 203.0.113.9");
            let found = client_address("10.0.0.1".parse().ok(), Some(&forwarded_for), &proxies());
            prop_assert_eq!(found, "203.0.113.9".parse().ok());
        }

        /// A peer that isn't trusted is believed nothing.
        #[test]
        fn strangers_are_not_believed(claim in "[0-9a-f.:, ]{0,40}") {
            let peer: Option<IpAddr> = "203.0.113.9".parse().ok();
            prop_assert_eq!(client_address(peer, Some(claim.as_bytes()), &proxies()), peer);
        }
    }
}
