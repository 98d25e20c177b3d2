//! One message as one line of the error log, or several if it has several: bounded, and safe to show on a terminal.

use std::fmt::{self, Write as _};

use tracing::Level;
use tracing::field::{Field, Visit};

use super::calendar::Moment;
use crate::limits::ERROR_LOG_MESSAGE_BYTES_MAX;
use crate::reactor::clock;

/// What stands at the end of a message that was too long.
const CUT: &str = " [cut]";

/// `2026-11-21 03:04:05 +0000`, as told `offset` seconds east of UTC.
pub fn timestamp(unix_seconds: u64, offset: i32) -> String {
    String::from_utf8_lossy(&Moment::new(unix_seconds, offset).sortable()).into_owned()
}

/// A warning that can't go through `tracing`, because it is about the error log itself.
pub(super) fn warning_line(message: &str) -> Vec<u8> {
    let mut line = Message::start(&Level::WARN);
    // It takes everything it is given.
    let _ = line.write_str(message);
    line.finish()
}

/// The words of `--log-level`.
fn name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// A message being written: what reaches past the limit is left out, control characters are escaped.
pub(super) struct Message {
    text: String,
    cut: bool,
}

impl Message {
    /// Begins with the time, the process and the level.
    pub(super) fn start(level: &Level) -> Self {
        let now = clock::unix_seconds();
        let time = timestamp(now, clock::local_offset(now));
        Self { text: format!("{time} [{}] [{}] ", std::process::id(), name(level)), cut: false }
    }

    /// The bytes, with one line feed at the end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.text.truncate(self.text.trim_end_matches('\n').len());
        if self.cut {
            self.text.push_str(CUT);
        }
        self.text.push('\n');
        self.text.into_bytes()
    }
}

impl fmt::Write for Message {
    /// Keeps the lines of a traceback; what could move a terminal's cursor or hide text is written as `\xHH`.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.cut || self.text.len() + "\\xHH".len() + CUT.len() >= ERROR_LOG_MESSAGE_BYTES_MAX {
                self.cut = true;
                break;
            }
            if character.is_control() && !matches!(character, '\n' | '\t') {
                write!(self.text, "\\x{:02X}", u32::from(character))?;
            } else {
                self.text.push(character);
            }
        }
        Ok(())
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A value whose Debug fails leaves what it has written.
        let _ = match field.name() {
            "message" => write!(self, "{value:?}"),
            name => write!(self, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => self.write_str(value),
            name => write!(self, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_zone_is_a_zone() {
        assert_eq!(timestamp(1_795_230_245, 3600), "2026-11-21 04:04:05 +0100");
        assert!(clock::local_offset(clock::unix_seconds()).abs() <= 14 * 3600);
        assert_eq!(clock::local_offset(u64::MAX), 0);
        assert_eq!(clock::local_offset(i64::MAX as u64), 0);
    }
}
