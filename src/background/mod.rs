//! Without a request: when the application's cron jobs and timers are due.
//!
//! Pure: the two clocks and the time zone are handed in, what is to be run is handed out. Who runs it stands in `pymodule`.

pub mod schedule;
pub mod table;

pub use schedule::{Invalid, Schedule};
pub use table::{Full, Now, Rule, Table, Take};
