//! The values of the flags for static files: maps, header fields, roots.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::values::{self, Values};
use crate::limits;

/// Fields that say what a file is, or concern the connection: the server's own.
const OURS: &[&str] = &[
    "accept-ranges",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "proxy-connection",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// `prefix=path`, in order.
pub fn maps(values: Values<'_>) -> Result<Vec<(String, PathBuf)>, String> {
    let words = values.words();
    most(words.len(), limits::STATIC_MAPS_MAX, "maps")?;
    words.into_iter().map(map).collect()
}

/// At the first equals sign, as wsgo does it.
fn map(word: &OsStr) -> Result<(String, PathBuf), String> {
    let shown = || values::shown(word);
    let bytes = word.as_bytes();
    let Some(at) = memchr::memchr(b'=', bytes) else {
        return Err(format!("{} has no equals sign: write /prefix=path, such as /static=/srv/mysite/static", shown()));
    };
    let prefix = values::utf8(OsStr::from_bytes(&bytes[..at]))?;
    if !prefix.starts_with('/') {
        return Err(format!("{} doesn't begin with a slash: write /{prefix}=…", shown()));
    }
    if prefix.contains("//") || prefix.split('/').any(|part| part == "." || part == "..") {
        return Err(format!(
            "{} has an empty part, . or .. before its equals sign, which no request has: leave it out",
            shown()
        ));
    }
    if at + 1 == bytes.len() {
        return Err(format!("{} names no path: write {prefix}=path", shown()));
    }
    Ok((prefix.to_owned(), PathBuf::from(OsStr::from_bytes(&bytes[at + 1..]))))
}

/// A name without a slash.
pub fn index(values: Values<'_>) -> Result<String, String> {
    let name = values.text()?;
    match name {
        "" | "." | ".." => Err(format!("{} isn't the name of a file, such as index.html", values::shown(values.one()))),
        name if name.contains('/') => {
            Err(format!("{} is a path: give a name alone, such as index.html", values::shown(values.one())))
        }
        name => Ok(name.to_owned()),
    }
}

/// `Name: value`, in order.
pub fn headers(values: Values<'_>) -> Result<Vec<(String, String)>, String> {
    let texts = values.parts(b'|').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()).map(OsStr::from_bytes);
    let headers = texts.map(header).collect::<Result<Vec<_>, _>>()?;
    most(headers.len(), limits::STATIC_HEADERS_MAX, "header fields")?;
    Ok(headers)
}

fn header(text: &OsStr) -> Result<(String, String), String> {
    let shown = || values::shown(text);
    let Some((name, value)) = values::utf8(text)?.split_once(':') else {
        return Err(format!("{} has no colon: write Name: value", shown()));
    };
    // RFC 9110 §5.6.2, §5.5.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("{} doesn't begin with the name of a header field and a colon", shown()));
    }
    let value = value.trim();
    if value.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        return Err(format!("{} holds a control character: leave it out", shown()));
    }
    if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(format!("{} sets {name}, which is the server's own to set: leave it out", shown()));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Folders.
pub fn roots(values: Values<'_>) -> Result<Vec<PathBuf>, String> {
    let roots = values.paths();
    most(roots.len(), limits::STATIC_MAPS_MAX, "roots")?;
    Ok(roots)
}

fn most(count: usize, most: usize, what: &str) -> Result<(), String> {
    if count > most { Err(format!("{count} {what} are more than the {most} that fit")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn given(texts: &[&str]) -> Vec<OsString> {
        texts.iter().map(OsString::from).collect()
    }

    #[test]
    fn maps_keep_their_order() {
        let texts = given(&["/b=x=y, /a=/srv", "/=public"]);
        let expected = [("/b", "x=y"), ("/a", "/srv"), ("/", "public")];
        let expected: Vec<_> = expected.map(|(prefix, path)| (prefix.to_owned(), PathBuf::from(path))).into();
        assert_eq!(maps(Values::new(&texts)), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let clause = |text: &str| maps(Values::new(&given(&[text]))).unwrap_err();
        assert_eq!(clause("/a"), "'/a' has no equals sign: write /prefix=path, such as /static=/srv/mysite/static");
        assert_eq!(clause("a=b"), "'a=b' doesn't begin with a slash: write /a=…");
        assert_eq!(clause("/a="), "'/a=' names no path: write /a=path");
        for text in ["//=b", "/a/../b=c", "/a//b=c", "/.=c"] {
            assert!(clause(text).contains("which no request has"), "{text}");
        }
        let many = vec!["/a=b"; limits::STATIC_MAPS_MAX + 1].join(",");
        assert_eq!(clause(&many), "257 maps are more than the 256 that fit");
        let clause = |text: &str| headers(Values::new(&given(&[text]))).unwrap_err();
        assert_eq!(clause("X-A b"), "'X-A b' has no colon: write Name: value");
        assert_eq!(clause(": b"), "': b' doesn't begin with the name of a header field and a colon");
        assert_eq!(clause("X A: b"), "'X A: b' doesn't begin with the name of a header field and a colon");
        assert_eq!(clause("X: a\rb"), "'X: a\\rb' holds a control character: leave it out");
        assert_eq!(clause("ETag: x"), "'ETag: x' sets ETag, which is the server's own to set: leave it out");
        let clause = |text: &str| index(Values::new(&given(&[text]))).unwrap_err();
        assert_eq!(clause("a/b"), "'a/b' is a path: give a name alone, such as index.html");
        assert_eq!(clause(".."), "'..' isn't the name of a file, such as index.html");
    }

    #[test]
    fn headers_and_roots() {
        let texts = given(&["X-A: b, c | X-D:e", "X-F:"]);
        let expected = [("X-A", "b, c"), ("X-D", "e"), ("X-F", "")];
        assert_eq!(headers(Values::new(&texts)), Ok(expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into()));
        let texts = given(&["/a:/b c", "d"]);
        assert_eq!(roots(Values::new(&texts)), Ok(vec!["/a".into(), "/b c".into(), "d".into()]));
    }
}
