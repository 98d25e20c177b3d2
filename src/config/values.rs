//! The texts given for one flag, read as what that flag takes. Knows neither flags nor where a text came from: an error is
//! the clause that begins with the text and says what is accepted.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::flags;
use crate::limits;

/// Characters of a value that an error shows.
const SHOWN_CHARS_MAX: usize = 120;

/// What a time-out of 0 says.
#[derive(Clone, Copy)]
pub enum Zero {
    /// It is this long.
    Means(Duration),
    /// It can't be, for this reason.
    Refused(&'static str),
}

/// Everything that one layer gives for one flag, in order.
#[derive(Clone, Copy)]
pub struct Values<'a>(&'a [OsString]);

impl<'a> Values<'a> {
    /// Of the texts given, at least one unless the flag is repeatable.
    pub fn new(texts: &'a [OsString]) -> Self {
        Self(texts)
    }

    /// The last text: of a flag given twice in one layer, the last one counts, as in Go.
    pub fn one(self) -> &'a OsStr {
        self.0.last().map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// The last text, if it is UTF-8.
    pub fn text(self) -> Result<&'a str, String> {
        utf8(self.one())
    }

    /// Every text, and each of its parts between commas, without the blanks around it; empty parts are left out.
    pub fn words(self) -> Vec<&'a OsStr> {
        self.parts(b',').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()).map(OsStr::from_bytes).collect()
    }

    /// Every text, and each of its parts between colons, as paths; empty parts are left out.
    pub fn paths(self) -> Vec<PathBuf> {
        self.parts(b':').filter(|part| !part.is_empty()).map(|part| PathBuf::from(OsStr::from_bytes(part))).collect()
    }

    /// Every text, and each of its lines; empty ones are left out.
    pub fn lines(self) -> Vec<&'a OsStr> {
        self.parts(b'\n').filter(|line| !line.is_empty()).map(OsStr::from_bytes).collect()
    }

    /// Every text, cut at `separator`.
    pub fn parts(self, separator: u8) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().flat_map(move |text| text.as_bytes().split(move |byte| *byte == separator))
    }

    /// A path, not looked at.
    pub fn path(self) -> Result<PathBuf, String> {
        match self.one().is_empty() {
            true => Err("'' isn't a path".to_owned()),
            false => Ok(PathBuf::from(self.one())),
        }
    }

    /// A whole number.
    pub fn whole(self, least: usize, most: usize) -> Result<usize, String> {
        let text = self.text()?;
        let number = plain(text).filter(|number| (least as u64..=most as u64).contains(number));
        let number = number.and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| format!("{} isn't a whole number from {least} to {most}", shown(self.one())))
    }

    /// Bytes, with or without a `k`, `m` or `g`.
    pub fn bytes(self, least: u64, most: u64) -> Result<u64, String> {
        let text = self.text()?;
        let (digits, unit) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
            Some(b'k') => (&text[..text.len() - 1], 1 << 10),
            Some(b'm') => (&text[..text.len() - 1], 1 << 20),
            Some(b'g') => (&text[..text.len() - 1], 1 << 30),
            _ => (text, 1),
        };
        let bytes = plain(digits).and_then(|number| number.checked_mul(unit));
        bytes.filter(|bytes| (least..=most).contains(bytes)).ok_or_else(|| {
            let (least, most) = (bytes_text(least), bytes_text(most));
            let text = shown(self.one());
            format!("{text} isn't a number of bytes from {least} to {most}, such as 65536, 64k, 10m or 1g")
        })
    }

    /// Seconds, fractions allowed, not below a millisecond.
    pub fn seconds(self, zero: Zero) -> Result<Duration, String> {
        let most = Duration::from_secs(limits::TIMEOUT_S_MAX);
        let duration = seconds(self.text()?);
        match (duration, zero) {
            (Some(Duration::ZERO), Zero::Means(duration)) => Ok(duration),
            (Some(Duration::ZERO), Zero::Refused(why)) => Err(format!("{} {why}", shown(self.one()))),
            (Some(duration), _) if duration >= Duration::from_millis(1) && duration <= most => Ok(duration),
            _ => {
                let (text, most) = (shown(self.one()), most.as_secs());
                let zero = if matches!(zero, Zero::Means(_)) { ", nor 0" } else { "" };
                Err(format!("{text} isn't a number of seconds from 0.001 to {most}, such as 60 or 0.5{zero}"))
            }
        }
    }

    /// On or off.
    pub fn switch(self) -> Result<bool, String> {
        match self.text()?.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("{} is neither true nor false", shown(self.one()))),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let remedy = match flags::nearest(text, words.iter().copied()) {
            Some(word) => format!("; the nearest is {word}"),
            None => String::new(),
        };
        Err(format!("{} isn't one of {}{remedy}", shown(self.one()), words.join(", ")))
    }
}

/// A value in quotes for a message: control characters escaped, shortened, bytes that aren't UTF-8 replaced.
pub fn shown(text: &OsStr) -> String {
    let lossy = text.to_string_lossy();
    let mut short: String = lossy.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < lossy.len() {
        short.push('…');
    }
    let safe = short.chars().flat_map(|char| match char {
        '\'' | '"' => vec![char],
        other => other.escape_debug().collect(),
    });
    format!("'{}'", safe.collect::<String>())
}

/// `text` as UTF-8.
pub fn utf8(text: &OsStr) -> Result<&str, String> {
    text.to_str().ok_or_else(|| format!("{} isn't valid UTF-8", shown(text)))
}

/// Bytes in the largest unit that needs no fraction: `1g`, `64k`, `1000`.
pub fn bytes_text(bytes: u64) -> String {
    let unit = [(1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")];
    match unit.into_iter().find(|(size, _)| bytes > 0 && bytes % size == 0) {
        Some((size, letter)) => format!("{}{letter}", bytes / size),
        None => bytes.to_string(),
    }
}

/// Seconds without needless zeros: `60`, `0.5`.
pub fn seconds_text(duration: Duration) -> String {
    let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The word of a choice.
pub fn choice_text<T: PartialEq>(choices: &[(&'static str, T)], value: T) -> String {
    choices.iter().find(|(_, each)| *each == value).map_or("", |(word, _)| *word).to_owned()
}

/// Digits alone: no sign, no blank, no underscore.
fn plain(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = u32::try_from(plain(&format!("{fraction:0<9}"))?).ok()?;
    Some(Duration::new(plain(whole)?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<OsString> {
        vec![OsString::from(text)]
    }

    #[test]
    fn seconds_and_back() {
        let check = |text: &str, expected: Option<u64>| {
            let got = Values(&texts(text)).seconds(Zero::Refused("no")).ok();
            assert_eq!(got, expected.map(Duration::from_millis), "{text}");
            got.inspect(|duration| assert_eq!(seconds_text(*duration), text));
        };
        check("60", Some(60_000));
        check("0.5", Some(500));
        check("0.001", Some(1));
        check("31536000", Some(31_536_000_000));
        for text in
            ["", ".", "5.", ".5", "-1", "+1", "1e3", "inf", "nan", "60s", " 6", "0.0001", "0", "0.0", "31536001"]
        {
            check(text, None);
        }
        check("18446744073709551615", None);
        check("18446744073709551616", None);
        let zero = Values(&texts("0.0")).seconds(Zero::Means(Duration::MAX));
        assert_eq!(zero, Ok(Duration::MAX));
    }

    #[test]
    fn bytes_and_back() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(Values(&texts(text)).bytes(1, 1 << 40).ok(), expected, "{text}");
        };
        check("1", Some(1));
        check("64k", Some(65536));
        check("64K", Some(65536));
        check("10m", Some(10 << 20));
        check("2g", Some(2 << 30));
        for text in ["", "k", "0", "-1", "+1", "1.5m", "64kb", "1 k", "1t", "1025g", "18446744073709551615g", "é"] {
            check(text, None);
        }
        for (bytes, text) in [(0, "0"), (1000, "1000"), (65536, "64k"), (1 << 30, "1g"), (3 << 20, "3m")] {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn lists_leave_out_empty_parts() {
        let given = [OsString::from("a, b,,"), OsString::from(""), OsString::from("c")];
        assert_eq!(Values(&given).words(), ["a", "b", "c"]);
        let given = [OsString::from("/a b/ :lib::"), OsString::from("")];
        assert_eq!(Values(&given).paths(), [PathBuf::from("/a b/ "), PathBuf::from("lib")]);
    }

    #[test]
    fn what_a_message_shows_is_bounded_and_printable() {
        assert_eq!(shown(OsStr::new("it's")), "'it's'");
        assert_eq!(shown(OsStr::new("a\n\u{1b}[0m")), "'a\\n\\u{1b}[0m'");
        assert_eq!(shown(OsStr::from_bytes(b"\xff")), "'\u{fffd}'");
        assert_eq!(shown(OsStr::new(&"x".repeat(1000))).chars().count(), SHOWN_CHARS_MAX + 3);
    }

    #[test]
    fn a_misspelled_word_is_told_the_nearest() {
        let clause = Values(&texts("epol")).choice(&[("ring", 1), ("epoll", 2)]).unwrap_err();
        assert_eq!(clause, "'epol' isn't one of ring, epoll; the nearest is epoll");
    }
}
