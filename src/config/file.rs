//! The configuration file: TOML, flat, a key for each flag. Opens no file; it is handed the bytes of one.

use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{Error, Origin};
use super::flags::{self, FLAGS, Flag, Kind};
use super::layer::{Given, Layer};
use super::values::shown;
use crate::limits;

/// Reads a file's contents; `path` is only named in errors.
///
/// # Errors
/// Not UTF-8, too large, not TOML, an unknown key, a key that can't stand in a file, or a value of the wrong type.
pub fn file(path: &Path, contents: &[u8]) -> Result<Layer, Error> {
    let named = shown(path.as_os_str());
    if contents.len() > limits::CONFIG_FILE_BYTES_MAX {
        let most = limits::CONFIG_FILE_BYTES_MAX;
        return Err(Error::other(format!("{named} (--config): it is larger than {most} bytes, so it isn't ours.")));
    }
    let Ok(text) = std::str::from_utf8(contents) else {
        return Err(Error::other(format!("{named} (--config): it isn't UTF-8, which TOML must be: save it as UTF-8.")));
    };
    // Some editors begin a file with a byte order mark, which TOML has no place for.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let place = |span: Range<usize>| Origin::File(path.to_path_buf(), line(text, span.start));
    let table = DeTable::parse(text).map_err(|error| {
        let origin = place(error.span().unwrap_or(0..0));
        let message = error.message().replace('\n', ", ");
        Error::other(format!("{origin} (--config): it isn't TOML here: {message}."))
    })?;
    let mut layer = Layer::default();
    // In the order of the file, so that the first mistake is the one that is named.
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let origin = place(key.span());
        let flag = flag_of(key.get_ref(), &origin)?;
        let texts = texts(flag, value.get_ref()).map_err(|clause| Error::value(key.get_ref(), &origin, &clause))?;
        layer.push(Given { flag, spelling: key.get_ref().to_string(), texts, origin })?;
    }
    Ok(layer)
}

fn flag_of(key: &str, origin: &Origin) -> Result<&'static Flag, Error> {
    let wrong = |clause: String| {
        let key = shown(key.as_ref());
        Err(Error::other(format!("{key} ({origin}): {clause}")))
    };
    match FLAGS.iter().find(|flag| flag.answers_to(key)) {
        Some(flag) if flag.settable() && flag.in_file => Ok(flag),
        Some(_) => wrong("this can't be given in a file, so give it on the command line.".to_owned()),
        None => match flags::meant(key).filter(|flag| flag.settable() && flag.in_file) {
            Some(flag) => wrong(format!("there is no such key; did you mean {}?", flag.name)),
            None => {
                wrong("there is no such key; hoopsnake --help lists the flags, and keys are called as they are.".into())
            }
        },
    }
}

/// The texts that a value stands for.
fn texts(flag: &Flag, value: &DeValue<'_>) -> Result<Vec<OsString>, String> {
    match value {
        DeValue::Array(items) if flag.separator.is_some() => {
            items.iter().map(|item| text(flag, item.get_ref())).collect()
        }
        DeValue::Array(_) => Err("it takes one value, not an array".to_owned()),
        single => Ok(vec![text(flag, single)?]),
    }
}

fn text(flag: &Flag, value: &DeValue<'_>) -> Result<OsString, String> {
    match (value, flag.kind) {
        (DeValue::String(text), _) => Ok(OsString::from(text.as_ref())),
        (DeValue::Boolean(on), Kind::Switch) => Ok(OsString::from(on.to_string())),
        (DeValue::Integer(number), Kind::Number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(OsString::from(number.to_string())),
            Err(_) => Err(format!("{} is too large a number", shown(number.as_str().as_ref()))),
        },
        (DeValue::Float(number), Kind::Number) => Ok(OsString::from(number.as_str().trim_start_matches('+'))),
        (_, Kind::Switch) => Err("it must be true or false".to_owned()),
        (_, Kind::Number) => Err("it must be a number, or a string that holds one".to_owned()),
        (_, _) => Err("it must be a string, in quotes".to_owned()),
    }
}

/// The line a byte stands in, counted from 1.
fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}
