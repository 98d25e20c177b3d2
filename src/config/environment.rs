//! The environment: `HOOPSNAKE_` and a flag's name. Reads no environment itself; it is handed one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::error::{Error, Origin};
use super::flags::{self, FLAGS, Flag, PREFIX};
use super::layer::{Given, Layer};
use super::values::shown;

/// Reads the variables that are ours. An empty one counts as not given, because that is how compose files and unit files
/// leave one out. An unknown one is only warned of: it may be somebody else's.
///
/// # Errors
/// The application is given under both its names.
pub fn environment(variables: &[(OsString, OsString)]) -> Result<(Layer, Vec<String>), Error> {
    let mut layer = Layer::default();
    let mut warnings = Vec::new();
    for (variable, value) in variables {
        let Some(name) = variable.as_bytes().strip_prefix(PREFIX.as_bytes()) else {
            continue;
        };
        // Without loss for every name of ours, which are ASCII.
        let name = String::from_utf8_lossy(name);
        match flag_of(&name) {
            // HOOPSNAKE_VERSION is a usual name in the recipe of an image. It and HOOPSNAKE_HELP ask for nothing here.
            Some(flag) if !flag.settable() => {}
            Some(_) if value.is_empty() => {}
            Some(flag) => {
                let spelling = flags::variable(&name);
                let origin = Origin::Environment(spelling);
                layer.push(Given { flag, spelling: format!("--{}", flag.name), texts: vec![value.clone()], origin })?;
            }
            None => warnings.push(unknown(&shown(variable), &name)),
        }
    }
    warnings.sort();
    Ok((layer, warnings))
}

/// The flag of the part behind the prefix, which must be in capitals.
fn flag_of(name: &str) -> Option<&'static Flag> {
    let capital = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    capital.then(|| FLAGS.iter().find(|flag| flag.answers_to(&name.to_ascii_lowercase()))).flatten()
}

fn unknown(variable: &str, name: &str) -> String {
    let remedy = match flags::meant(name) {
        Some(flag) => format!("did you mean {}?", flag.variable()),
        None => "hoopsnake --help lists the flags there are.".to_owned(),
    };
    format!("{variable} (environment): no flag has this variable, so it is ignored; {remedy}")
}
