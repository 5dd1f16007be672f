//! The process's own log: starts, reloads, servers that go away. One line an event, on standard error.
//!
//! `main` installs it once; everything else speaks through the `log` facade. Lines are written at once and whole, for
//! the last line before a crash is the one that is wanted; so this is no place for anything a sender can cause at
//! will. The proxy's ground disagrees there: it logs every broken connection as an error, and anybody could fill a
//! disk by hanging up. Its per-connection targets are therefore silent unless our level is `debug` or the settings
//! name them, and what others say below `info` is never written: there they print whole requests, signatures included.
//! Messages are cut and their control characters escaped, whoever wrote them.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};

use super::rfc3339;
use crate::clock::Clock;

/// Bytes of a message that are kept, before escaping.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Which events are written.
#[derive(Clone, Debug)]
pub struct ProcessLogSettings {
    /// The level of this crate's own events.
    pub level: LevelFilter,
    /// Levels of targets, by prefix (`pingora_proxy`, `pingora_core::apps`); they go before the defaults, and the
    /// longest prefix decides.
    pub targets: Vec<(String, LevelFilter)>,
}

impl ProcessLogSettings {
    /// Our own events up to `level`, others as is fitting beside them.
    pub fn at(level: LevelFilter) -> Self {
        ProcessLogSettings {
            level,
            targets: Vec::new(),
        }
    }
}

impl Default for ProcessLogSettings {
    fn default() -> Self {
        Self::at(LevelFilter::Info)
    }
}

/// The logger.
pub struct ProcessLog {
    clock: Clock,
    rules: Rules,
}

impl ProcessLog {
    /// Becomes the logger of the process.
    ///
    /// # Errors
    /// When the process has a logger already; that one stays.
    pub fn install(settings: &ProcessLogSettings, clock: Clock) -> Result<(), SetLoggerError> {
        let rules = Rules::new(settings);
        let most = rules.most();
        // A logger lives as long as the process.
        log::set_logger(Box::leak(Box::new(ProcessLog { clock, rules })))?;
        log::set_max_level(most);
        Ok(())
    }

    fn render(&self, record: &Record<'_>) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        rfc3339::push(&mut line, self.clock.wall());
        let mut text = Printable {
            out: &mut line,
            left: MESSAGE_BYTES_MAX,
        };
        // `Printable` fails only to stop a message at its bound.
        let _ = write!(text, " {:<5} {}: {}", record.level(), record.target(), record.args());
        if text.left == 0 {
            line.extend_from_slice(b"...");
        }
        line.push(b'\n');
        line
    }
}

impl Log for ProcessLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.rules.level(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // There is nobody left to tell that standard error is gone.
        let _ = std::io::stderr().lock().write_all(&self.render(record));
    }

    fn flush(&self) {}
}

/// The highest level per target prefix, longest prefix first.
struct Rules(Vec<(String, LevelFilter)>);

impl Rules {
    fn new(settings: &ProcessLogSettings) -> Self {
        let level = settings.level;
        let chatty = |otherwise| match level {
            LevelFilter::Debug | LevelFilter::Trace => LevelFilter::Info,
            _ => otherwise,
        };
        let defaults = [
            (env!("CARGO_CRATE_NAME"), level),
            ("pingora", chatty(LevelFilter::Off)),
            // Failing to listen, to accept or to shut down is worth a night's sleep.
            ("pingora_core::server", chatty(level.min(LevelFilter::Warn))),
            ("pingora_core::services", chatty(level.min(LevelFilter::Error))),
            (
                "",
                match level {
                    LevelFilter::Trace => LevelFilter::Info,
                    _ => level.min(LevelFilter::Warn),
                },
            ),
        ];
        let mut rules = settings.targets.clone();
        rules.extend(defaults.map(|(prefix, level)| (prefix.to_owned(), level)));
        // Stable, so that the settings win over a default of the same prefix.
        rules.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Rules(rules)
    }

    fn level(&self, target: &str) -> LevelFilter {
        self.0
            .iter()
            .find(|(prefix, _)| target.starts_with(prefix))
            .map_or(LevelFilter::Off, |(_, level)| *level)
    }

    /// The highest level that any target has.
    fn most(&self) -> LevelFilter {
        self.0.iter().map(|(_, level)| *level).max().unwrap_or(LevelFilter::Off)
    }
}

/// Passes letters, digits and printable ASCII; escapes the rest as `\u{..}`; stops after `left` bytes.
struct Printable<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
}

impl fmt::Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for symbol in text.chars() {
            let Some(left) = self.left.checked_sub(symbol.len_utf8()) else {
                self.left = 0;
                return Err(fmt::Error);
            };
            self.left = left;
            let shown = symbol == ' ' || symbol.is_ascii_graphic() || symbol.is_alphanumeric();
            if shown {
                self.out.extend_from_slice(symbol.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                // Writing to memory does not fail.
                let _ = write!(self.out, "{}", symbol.escape_unicode());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use log::Level;

    fn logger(settings: &ProcessLogSettings) -> ProcessLog {
        let clock = ManualClock::at(UnixMillis(0)).clock();
        ProcessLog {
            clock,
            rules: Rules::new(settings),
        }
    }

    fn line(message: &str) -> String {
        let logger = logger(&ProcessLogSettings::default());
        let line = logger.render(
            &Record::builder()
                .level(Level::Warn)
                .target("hookward")
                .args(format_args!("{message}"))
                .build(),
        );
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_message_is_one_line_with_nothing_a_terminal_obeys() {
        // A server name or an error from outside could forge a line.
        assert_eq!(
            line("took 3\u{b5}s"),
            "1970-01-01T00:00:00.000Z WARN  hookward: took 3\u{b5}s\n"
        );
        assert_eq!(
            line("a\nb\x1b[2J\u{9b}\u{2028}\u{202e}"),
            "1970-01-01T00:00:00.000Z WARN  hookward: a\\u{a}b\\u{1b}[2J\\u{9b}\\u{2028}\\u{202e}\n"
        );
    }

    #[test]
    fn a_message_is_bounded() {
        // An error that quotes a body would fill the disk with it.
        let long = line(&"x".repeat(MESSAGE_BYTES_MAX * 2));
        assert!(
            long.ends_with("xxx...\n") && long.len() < MESSAGE_BYTES_MAX + 64,
            "{}",
            long.len()
        );
        assert!(!line(&"x".repeat(100)).contains("..."));
    }

    #[test]
    fn connections_that_break_are_not_news() {
        // Anybody could fill the disk by hanging up.
        use LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
        let rows = [
            ("hookward::server", Info, Info),
            ("hookward", Error, Error),
            ("hookward", Off, Off),
            ("pingora_proxy", Info, Off),
            ("pingora_core::apps::http_app", Warn, Off),
            // Whose preface of HTTP/2 is broken, and who hangs up in the middle of it.
            ("pingora_core::apps", Info, Off),
            ("pingora_core::apps", Error, Off),
            ("pingora_core::server", Info, Warn),
            ("pingora_core::services::listening", Info, Error),
            ("pingora_core::services::listening", Off, Off),
            ("pingora_proxy", Debug, Info),
            ("pingora_proxy", Trace, Info),
            ("pingora_core::server", Debug, Info),
            ("h2::proto", Debug, Warn),
            ("h2::proto", Trace, Info),
            ("h2::proto", Error, Error),
        ];
        for (target, ours, expected) in rows {
            assert_eq!(
                Rules::new(&ProcessLogSettings::at(ours)).level(target),
                expected,
                "{target} at {ours}"
            );
        }
    }

    #[test]
    fn what_the_settings_name_goes_before_the_defaults() {
        // Who looks for a fault in the proxy could not turn its log on.
        let settings = ProcessLogSettings {
            level: LevelFilter::Info,
            targets: vec![
                ("pingora".into(), LevelFilter::Info),
                ("hookward::queue".into(), LevelFilter::Trace),
            ],
        };
        let logger = logger(&settings);
        let enabled = |target, level| logger.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(enabled("pingora_proxy", Level::Info) && !enabled("pingora_proxy", Level::Debug));
        assert!(enabled("hookward::queue::worker", Level::Trace) && !enabled("hookward::server", Level::Debug));
        assert_eq!(logger.rules.most(), LevelFilter::Trace);
    }
}
