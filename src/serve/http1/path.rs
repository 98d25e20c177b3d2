//! The path of a request-target as bytes. Doesn't resolve dot segments and gives `/` and NUL no meaning: that is for those who open files.

/// Overwrites `out` with `path`, percent-decoded once (RFC 3986 §2.1). What isn't `%` and two hexadecimal digits is kept as it is.
pub fn percent_decode(path: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let digit = |offset: usize| rest.get(at + offset).and_then(|&byte| char::from(byte).to_digit(16));
        let skipped = match (digit(1), digit(2)) {
            (Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                3
            }
            _ => {
                out.push(b'%');
                1
            }
        };
        rest = &rest[at + skipped..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_once_and_keeps_what_is_malformed() {
        let check = |path: &str, expected: &[u8]| {
            let mut out = b"left over".to_vec();
            percent_decode(path.as_bytes(), &mut out);
            assert_eq!(out, expected, "{path:?}");
        };
        check("", b"");
        check("/plain", b"/plain");
        check("/caf%C3%A9", b"/caf\xc3\xa9");
        check("/%ff%Ff", b"/\xff\xff");
        check("/a%2Fb", b"/a/b");
        check("/%00", b"/\0");
        check("/%2541", b"/%41");
        check("/%zz", b"/%zz");
        check("/%4", b"/%4");
        check("/%", b"/%");
        check("/%%41", b"/%A");
        check("/%4%41", b"/%4A");
        check("/%+1", b"/%+1");
        check("/a+b", b"/a+b");
    }
}
