//! After a request: access log, error log, figures. Nothing here makes a request wait: a log that can't be written loses
//! lines, counts them, and says so.

pub mod access_log;
pub mod calendar;
pub mod client;
pub mod error_log;
mod message;
pub mod status;
pub mod writer;
