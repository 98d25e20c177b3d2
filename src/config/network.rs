//! Networks in CIDR form (RFC 4632 §3.1, RFC 4291 §2.3), and whether an address lies in one. No names are resolved.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network in CIDR form, for `--trusted-proxies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address of it.
    pub address: IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}

impl Network {
    /// What is trusted when nothing is said: loopback, link-local and private addresses (RFC 1122 §3.2.1.3, RFC 1918 §3,
    /// RFC 3927, RFC 4193, RFC 4291 §2.5.3 and §2.5.6).
    pub const PRIVATE: [Network; 8] = [
        Self::v4([127, 0, 0, 0], 8),
        Self::v6(Ipv6Addr::LOCALHOST, 128),
        Self::v4([10, 0, 0, 0], 8),
        Self::v4([172, 16, 0, 0], 12),
        Self::v4([192, 168, 0, 0], 16),
        Self::v4([169, 254, 0, 0], 16),
        Self::v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
        Self::v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    ];

    const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        let [a, b, c, d] = octets;
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(address: Ipv6Addr, prefix: u8) -> Self {
        Self { address: IpAddr::V6(address), prefix }
    }

    /// Reads `address/prefix`, or an address alone, which is a network of one.
    ///
    /// # Errors
    /// The end of a sentence that begins with the text: what is wrong, and how it should look.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| "isn't an address or a network: write 10.0.0.0/8, 192.0.2.7 or fc00::/7".to_owned())?;
        let most = bits(address);
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(|| too_long(most))?
            }
            Some(_) => return Err(too_long(most)),
        };
        Ok(Self { address, prefix }.canonical())
    }

    /// Whether `address` lies in it. An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`, what a listener for both families
    /// sees of an IPv4 peer) counts as the IPv4 address it stands for.
    pub fn contains(&self, address: IpAddr) -> bool {
        let Self { address: own, prefix } = self.canonical();
        match (own, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same(u128::from(own.to_bits()), u128::from(other.to_bits()), 32, prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128, prefix),
            _ => false,
        }
    }

    /// A network of IPv4-mapped addresses (`::ffff:10.0.0.0/104`) as the IPv4 network it stands for.
    fn canonical(self) -> Self {
        match (self.address.to_canonical(), self.address) {
            (IpAddr::V4(inner), IpAddr::V6(_)) if self.prefix >= 96 => {
                Self { address: IpAddr::V4(inner), prefix: self.prefix - 96 }
            }
            _ => self,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix == bits(self.address) {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn too_long(most: u8) -> String {
    format!("has a prefix length that isn't a number from 0 to {most}")
}

/// Whether two addresses of `width` bits agree in their first `prefix` bits. A prefix of 0 would shift by the whole
/// width, which `checked_shr` answers with `None`: everything agrees. A prefix past the width counts as the width.
fn same(one: u128, other: u128, width: u32, prefix: u8) -> bool {
    let rest = width.saturating_sub(u32::from(prefix));
    one.checked_shr(rest) == other.checked_shr(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(network: &str, address: &str, expected: bool) {
        let parsed = Network::parse(network).unwrap();
        assert_eq!(parsed.contains(address.parse().unwrap()), expected, "{address} in {network}");
    }

    #[test]
    fn membership() {
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.1.2.3/8", "10.9.9.9", true);
        check("172.16.0.0/12", "172.31.255.255", true);
        check("172.16.0.0/12", "172.32.0.0", false);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.8", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("::/0", "2001:db8::1", true);
        check("::/0", "10.0.0.1", false);
        check("fc00::/7", "fdff::1", true);
        check("fc00::/7", "fe00::1", false);
        check("fe80::/10", "febf::1", true);
        check("::1", "::1", true);
        check("::1", "::2", false);
    }

    #[test]
    fn ipv4_mapped_addresses_are_ipv4() {
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("10.0.0.0/8", "::ffff:11.0.0.1", false);
        check("::ffff:10.0.0.0/104", "10.0.0.1", true);
        check("::ffff:10.0.0.0/104", "11.0.0.1", false);
        check("::/0", "::ffff:10.0.0.1", false);
        let mapped = Network { address: "::ffff:10.0.0.0".parse().unwrap(), prefix: 104 };
        assert!(mapped.contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_default_is_loopback_link_local_and_private() {
        let trusted = |text: &str| {
            let address = text.parse().unwrap();
            Network::PRIVATE.iter().any(|network| network.contains(address))
        };
        for text in ["127.0.0.1", "::1", "10.1.1.1", "172.20.0.1", "192.168.1.1", "169.254.1.1", "fd00::1", "fe80::1"] {
            assert!(trusted(text), "{text}");
        }
        for text in ["8.8.8.8", "172.15.0.1", "192.169.0.1", "2001:db8::1", "::2", "::ffff:8.8.8.8"] {
            assert!(!trusted(text), "{text}");
        }
    }

    #[test]
    fn text() {
        for text in ["10.0.0.0/8", "192.0.2.7", "::1", "fc00::/7", "::/0"] {
            assert_eq!(Network::parse(text).unwrap().to_string(), text);
        }
        for (text, part) in [
            ("", "isn't an address"),
            ("10/8", "isn't an address"),
            ("proxy.example", "isn't an address"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/999", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.0/8/8", "from 0 to 32"),
        ] {
            let clause = Network::parse(text).unwrap_err();
            assert!(clause.contains(part), "{text}: {clause}");
        }
    }
}
