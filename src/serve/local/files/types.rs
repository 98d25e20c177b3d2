//! What kind of content a file has, by the end of its name.

/// The value of Content-Type. Text says that it is UTF-8, which is what nearly all of it is, and what every page should say.
pub fn content_type(name: &[u8]) -> String {
    let name = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let extension = name.iter().rposition(|&byte| byte == b'.').map_or(&[][..], |at| &name[at + 1..]);
    let guess = std::str::from_utf8(extension).ok().filter(|extension| !extension.is_empty());
    let guess = guess.and_then(|extension| mime_guess::from_ext(extension).first_raw());
    match guess.unwrap_or("application/octet-stream") {
        // RFC 9239 §6: the one name of JavaScript.
        "application/javascript" => "text/javascript; charset=utf-8".to_owned(),
        text if is_text(text) => format!("{text}; charset=utf-8"),
        other => other.to_owned(),
    }
}

fn is_text(kind: &str) -> bool {
    kind.starts_with("text/") || kind == "application/manifest+json"
}

/// Whether files with this name are compressed already, so that no sibling of them is looked for.
pub fn is_compressed(name: &[u8]) -> bool {
    [&b".br"[..], b".zst", b".gz"].iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_extension() {
        let check = |name: &str, expected: &str| assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        check("a.html", "text/html; charset=utf-8");
        check("x.y/a.CSS", "text/css; charset=utf-8");
        check("a.js", "text/javascript; charset=utf-8");
        check("a.mjs", "text/javascript; charset=utf-8");
        check("a.txt", "text/plain; charset=utf-8");
        check("a.json", "application/json");
        check("a.svg", "image/svg+xml");
        check("a.png", "image/png");
        check("a.woff2", "font/woff2");
        check("a.wasm", "application/wasm");
        check("a.pdf", "application/pdf");
        check("a.tar.gz", "application/gzip");
        check("a.css.gz", "application/gzip");
        for name in ["a", "a.", "", ".css/a", "a.unheardof", "a.\u{e9}"] {
            check(name, "application/octet-stream");
        }
    }
}
