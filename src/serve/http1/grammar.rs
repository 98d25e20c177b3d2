//! The characters of HTTP: which byte may stand where (RFC 9110 §5, RFC 3986 §3.2.2). Knows nothing of messages.

/// Bit of [`CLASSES`]: tchar (RFC 9110 §5.6.2).
const TOKEN: u8 = 1;
/// Bit of [`CLASSES`]: a byte of a reg-name other than `%` (unreserved and sub-delims, RFC 3986 §2).
const REG_NAME: u8 = 2;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let alphanumeric = b.is_ascii_alphanumeric();
        if alphanumeric || contains(b"!#$%&'*+-.^_`|~", b) {
            table[byte] |= TOKEN;
        }
        if alphanumeric || contains(b"-._~!$&'()*+,;=", b) {
            table[byte] |= REG_NAME;
        }
        byte += 1;
    }
    table
}

const fn contains(set: &[u8], byte: u8) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether `byte` may stand in a token.
pub(super) fn is_token_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// Whether `name` is a token (RFC 9110 §5.6.2).
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` is a control character other than TAB.
pub(super) const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Whether `value` may stand in a field line: no control characters but TAB (RFC 9110 §5.5).
pub fn is_field_value(value: &[u8]) -> bool {
    // Without an early exit the compiler turns this into vector instructions.
    !value.iter().fold(false, |bad, &byte| bad | is_control(byte))
}

/// Whether every byte may stand in a request-target: visible ASCII without `#`. A URI is ASCII, and a fragment is never sent
/// (RFC 9112 §3.2, RFC 3986 §2). Characters that a URI shouldn't have but that can't be mistaken (`"`, `<`, `|`, `^`) are let pass.
pub(super) fn is_target(target: &[u8]) -> bool {
    !target.iter().fold(false, |bad, &byte| bad | (byte <= b' ') | (byte >= 0x7f) | (byte == b'#'))
}

/// Optional white space (RFC 9110 §5.6.3) cut off at both ends.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether `value` is `uri-host [":" port]` (RFC 9110 §4.2, §7.2): a name, an IPv4 address, or an IP literal in brackets.
/// The host may be empty here; who needs one asks [`has_host`].
pub(super) fn is_host(value: &[u8]) -> bool {
    let rest = match value {
        [b'[', literal @ ..] => match memchr::memchr(b']', literal) {
            Some(end) if is_ip_literal(&literal[..end]) => &literal[end + 1..],
            _ => return false,
        },
        _ => {
            let end = memchr::memchr(b':', value).unwrap_or(value.len());
            if !is_reg_name(&value[..end]) {
                return false;
            }
            &value[end..]
        }
    };
    match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Whether a value that [`is_host`] has more than a port.
pub(super) fn has_host(value: &[u8]) -> bool {
    !matches!(value, [] | [b':', ..])
}

fn is_reg_name(mut name: &[u8]) -> bool {
    loop {
        match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => name = rest,
            [byte, rest @ ..] if CLASSES[*byte as usize] & REG_NAME != 0 => name = rest,
            _ => return false,
        }
    }
}

/// IPv6address or IPvFuture (RFC 3986 §3.2.2). A zone identifier has no meaning to anybody but the sender and is refused.
fn is_ip_literal(literal: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = literal {
        let Some(dot) = memchr::memchr(b'.', future) else { return false };
        let (version, address) = (&future[..dot], &future[dot + 1..]);
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(|&byte| byte == b':' || CLASSES[byte as usize] & REG_NAME != 0);
    }
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_what_rfc_9110_5_6_2_lists() {
        for byte in 0..=255u8 {
            let delimiter = b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(is_token(&[byte]), byte.is_ascii_graphic() && !delimiter, "{byte:#x}");
        }
        assert!(!is_token(b""));
        assert!(!is_token(b"a b"));
    }

    #[test]
    fn field_values_are_what_rfc_9110_5_5_lists() {
        for byte in 0..=255u8 {
            assert_eq!(is_field_value(&[b'a', byte]), byte == b'\t' || (byte >= b' ' && byte != 0x7f), "{byte:#x}");
        }
        assert!(is_field_value(b""));
    }

    #[test]
    fn targets_are_visible_ascii_without_a_fragment() {
        for byte in 0..=255u8 {
            assert_eq!(is_target(&[b'/', byte]), byte.is_ascii_graphic() && byte != b'#', "{byte:#x}");
        }
    }

    #[test]
    fn hosts_rfc_9110_4_2_and_rfc_3986_3_2_2() {
        let check = |value: &str, expected| assert_eq!(is_host(value.as_bytes()), expected, "{value:?}");
        for good in [
            "",
            "a",
            "a:",
            "a:80",
            ":80",
            "0.0.0.0=5000",
            "a_b.c",
            "a%20b",
            "[::1]",
            "[::1]:80",
            "[v1.a:b]",
            "*",
            "a~b",
        ] {
            check(good, true);
        }
        for bad in [
            "a b",
            "a/b",
            "a:b",
            "a:80:80",
            "a@b",
            "a%2",
            "a%zz",
            "[::1",
            "[]",
            "[::1]a",
            "[::1%25lo]",
            "[v.a]",
            "[v1.]",
            "a?",
            "é",
            "a\\b",
            "a,b\"",
            "<a>",
            "a#",
            "a:-1",
            "a:+1",
        ] {
            check(bad, false);
        }
        assert!(has_host(b"a") && has_host(b"[::1]:80"));
        assert!(!has_host(b"") && !has_host(b":80"));
    }
}
