//! What operators see: metrics, one access-log line per request, and the process's own log.
//!
//! The bottom layer of the house: everything may call it and it knows nobody, so it takes plain values and labels and
//! never a request, a configuration or a refusal. Two promises hold whatever is sent from outside. The work and the
//! memory are bounded: label sets come from configuration and closed enums only, fields are cut, queues drop and
//! count. And nothing here fails or delays a request: a full disk, a stuck pipe or a scrape in progress is never
//! felt by a sender.
//!
//! The attack that shaped it: log forging. A path or an event id that holds a line end or an escape sequence would
//! write false lines, or drive the terminal of the person who reads them. Every outside byte is escaped in one place
//! (`escape`), and both formats are held to one printable line by property tests.

mod access;
pub mod decimal;
mod escape;
pub mod metrics;
pub mod panics;
mod process_log;
mod record;
mod rfc3339;

pub use access::{AccessLog, PENDING_BYTES_MAX};
pub use metrics::Metrics;
pub use process_log::{ProcessLog, ProcessLogSettings};
pub use record::{FIELD_BYTES_MAX, Format, LINE_BYTES_MAX, PATH_BYTES_MAX, Record};
