//! Which of the forms of a file a client is sent (RFC 9110 §12.5.3).

/// The content codings of precompressed siblings, the preferred first, and the file as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `.br` (RFC 7932).
    Brotli,
    /// `.zst` (RFC 8878).
    Zstd,
    /// `.gz` (RFC 1952).
    Gzip,
    /// None.
    Identity,
}

impl Coding {
    /// All, the preferred first among those a client likes as much.
    pub const ALL: [Coding; 4] = [Coding::Brotli, Coding::Zstd, Coding::Gzip, Coding::Identity];
    /// Those that are files of their own.
    pub const SIBLINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// What the sibling's name ends with.
    pub fn suffix(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
            Coding::Identity => "",
        }
    }

    /// Its name in Content-Encoding (IANA's registry).
    pub fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
            Coding::Identity => "identity",
        }
    }

    fn is_called(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name().as_bytes())
            // RFC 9110 §8.4.1.3.
            || self == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip")
    }
}

/// The form to send of those that are `available` (in the order of [`Coding::ALL`], identity among them). Without the field, and when
/// nothing is acceptable: the file as it is.
pub fn choose(accepted: Option<&[u8]>, available: [bool; 4]) -> Coding {
    let Some(accepted) = accepted else { return Coding::Identity };
    // Thousandths; what isn't named is `None`.
    let mut weights = [None; 4];
    let mut others = None;
    for element in accepted.split(|&byte| byte == b',') {
        let mut parts = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let Some(weight) = weight(parts) else { continue };
        if name == b"*" {
            others = Some(weight);
        } else if let Some(at) = Coding::ALL.iter().position(|coding| coding.is_called(name)) {
            weights[at] = Some(weight);
        }
    }
    let mut best = (0, Coding::Identity);
    for (at, coding) in Coding::ALL.into_iter().enumerate() {
        // "identity" is acceptable unless excluded, but nobody asked for it: whatever is asked for comes first.
        let unnamed = others.unwrap_or(0);
        let weight = weights[at].unwrap_or(unnamed);
        if available[at] && weight > best.0 {
            best = (weight, coding);
        }
    }
    best.1
}

/// The quality value among an element's parameters, in thousandths; `None` if it is malformed (RFC 9110 §12.4.2).
fn weight<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    let mut weight = 1000;
    for parameter in parameters {
        let [b'q' | b'Q', rest @ ..] = parameter else { continue };
        let value = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        let (whole, fraction) = match value {
            [whole] => (whole, &[][..]),
            [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
            _ => return None,
        };
        if !matches!(whole, b'0' | b'1') || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let thousandths =
            (0..3).fold(0, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u16::from(digit - b'0')));
        weight = u16::from(whole - b'0') * 1000 + thousandths;
        if weight > 1000 {
            return None;
        }
    }
    Some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 §12.5.3, §12.4.2.
    #[test]
    fn quality_values() {
        let check = |accepted: &str, expected: Coding| {
            assert_eq!(choose(Some(accepted.as_bytes()), [true; 4]), expected, "{accepted:?}");
        };
        assert_eq!(choose(None, [true; 4]), Coding::Identity);
        check("", Coding::Identity);
        check("gzip", Coding::Gzip);
        check("GZIP", Coding::Gzip);
        check("x-gzip", Coding::Gzip);
        check("gzip, deflate, br, zstd", Coding::Brotli);
        check("gzip, zstd", Coding::Zstd);
        check("gzip;q=1.0, br;q=0.5", Coding::Gzip);
        check("gzip;q=0", Coding::Identity);
        check("gzip;q=0.000, br;q=0", Coding::Identity);
        check("gzip;q=0.001", Coding::Gzip);
        check("identity, gzip;q=0.5", Coding::Identity);
        check("identity;q=0.5, gzip;q=0.4", Coding::Identity);
        check("identity;q=0.5, gzip;q=0.5", Coding::Gzip);
        check("*", Coding::Brotli);
        check("*;q=0.5, gzip", Coding::Gzip);
        check("br;q=0, *", Coding::Zstd);
        check("*;q=0", Coding::Identity);
        check("identity;q=0, *;q=0", Coding::Identity);
        check("gzip ; q=0.8 , br ; Q=0.9", Coding::Brotli);
        // Malformed weights count for nothing.
        check("gzip;q=2", Coding::Identity);
        check("gzip;q=1.001", Coding::Identity);
        check("gzip;q=0.1234", Coding::Identity);
        check("gzip;q=", Coding::Identity);
        check("gzip;q=-1", Coding::Identity);
        check("gzipped, xgzip", Coding::Identity);
    }

    #[test]
    fn only_what_there_is() {
        assert_eq!(choose(Some(b"br, gzip;q=0.1"), [false, false, true, true]), Coding::Gzip);
        assert_eq!(choose(Some(b"br, gzip;q=0.1"), [false, false, false, true]), Coding::Identity);
        assert_eq!(choose(Some(b"*"), [false, false, false, true]), Coding::Identity);
    }
}
