//! Static files, and the files an application names in X-Sendfile and X-Accel-Redirect.
//!
//! ```text
//! map       path of the request → cleaned, prefix → name beneath a folder            pure
//! search    name → open files, precompressed siblings beside it                      the one that asks the file system
//! store     what was found lately, so that a hot file costs no system call
//! record    a file as it can be sent: validators, type, rendered fields              pure
//! encoding  Accept-Encoding → which sibling                                          pure
//! conditional, range   preconditions and ranges → what of it is sent                 pure
//! answer    all of that → head bytes and stretches of a body                         pure
//! ```

pub mod answer;
pub mod conditional;
pub mod encoding;
pub mod map;
pub mod range;
pub mod record;
pub mod search;
pub mod settings;
pub mod store;
pub mod types;

#[cfg(test)]
mod tests;

pub use answer::{Given, Request};
pub use record::Record;
pub use search::{Found, Search, Target};
pub use settings::Settings;
pub use store::{Seen, Store};
