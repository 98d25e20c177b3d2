//! What one source gives: texts for flags, not yet read. Layers are laid over each other here; nothing else knows which one
//! wins.

use std::ffi::OsString;

use super::Config;
use super::error::{Error, Origin};
use super::flags::{FLAGS, Flag, Kind};
use super::values::{Values, shown};

/// What one source gives for one flag.
pub struct Given {
    /// The flag.
    pub flag: &'static Flag,
    /// Its name as it was given, for errors.
    pub spelling: String,
    /// Its texts, in order.
    pub texts: Vec<OsString>,
    /// Where they stand.
    pub origin: Origin,
}

/// What one source gives, at most once for each flag.
#[derive(Default)]
pub struct Layer(Vec<Given>);

impl Layer {
    /// Adds what was given for a flag.
    ///
    /// # Errors
    /// The flag was given under another name before: `module` has two.
    pub fn push(&mut self, given: Given) -> Result<(), Error> {
        if let Some(other) = self.get(given.flag) {
            let (one, two) = (&other.spelling, &given.spelling);
            return Err(Error::value(
                two,
                &given.origin,
                &format!("{one} is given too and says the same: leave one out"),
            ));
        }
        self.0.push(given);
        Ok(())
    }

    /// What is given for a flag.
    pub fn get(&self, flag: &Flag) -> Option<&Given> {
        self.0.iter().find(|given| given.flag.name == flag.name)
    }
}

/// The configuration that layers, the highest first, make over the defaults.
///
/// # Errors
/// The first value, in the order of the table, that its flag doesn't take.
pub fn merged(layers: &[Layer]) -> Result<Config, Error> {
    let mut config = Config::default();
    for flag in FLAGS.iter().filter(|flag| flag.kind != Kind::Action) {
        let Some(given) = layers.iter().find_map(|layer| layer.get(flag)) else {
            continue;
        };
        let wrong = |clause: String| Error::value(&given.spelling, &given.origin, &clause);
        // A NUL ends a string early for the kernel and is no part of any name in Python.
        if let Some(text) = given.texts.iter().find(|text| text.as_encoded_bytes().contains(&0)) {
            return Err(wrong(format!("{} holds a NUL byte", shown(text))));
        }
        (flag.set)(&mut config, Values::new(&given.texts)).map_err(wrong)?;
        config.origins.insert(flag.name, given.origin.clone());
    }
    Ok(config)
}
