//! Bounded log of one call.

use super::limits::Limits;
use super::wit::log_import;
use carillon_core::text::clean_within;

/// Bounded log of one call.
#[derive(Debug)]
pub(super) struct LogLines {
    lines: Vec<String>,
    dropped: u64,
    max_lines: usize,
    max_length: usize,
}

impl LogLines {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            lines: Vec::new(),
            dropped: 0,
            max_lines: usize::try_from(limits.log_lines).unwrap_or(usize::MAX),
            max_length: limits.log_line_length,
        }
    }

    /// Maximum length of a line in bytes; the rest is cut off.
    pub(super) fn max_length(&self) -> usize {
        self.max_length
    }

    /// Returns the last message of a Rust panic, with its place: `panicked at src/lib.rs:3:5: no signature`.
    pub(super) fn panic(&self) -> Option<String> {
        let at = self.lines.iter().rposition(|line| line.contains("panicked at ") || line.contains(" panicked: "))?;
        let line = &self.lines[at];
        let said = line.find("panicked").map(|start| line[start..].to_owned())?;
        // The standard library prints the place on one line and the message on the next.
        let next = self.lines.get(at + 1).filter(|_| said.ends_with(':')).and_then(|next| next.split_once(": "));
        Some(next.map_or_else(|| said.clone(), |(_, why)| format!("{said} {why}")))
    }

    pub(super) fn write(&mut self, level: log_import::Level, message: &str) {
        if self.lines.len() >= self.max_lines {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let level = match level {
            log_import::Level::Debug => "debug",
            log_import::Level::Info => "info",
            log_import::Level::Warn => "warn",
            log_import::Level::Error => "error",
        };
        self.lines.push(format!("{level}: {}", clean_within(message, self.max_length)));
    }

    /// Returns the lines; a last one counts the lines that were dropped.
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.dropped > 0 {
            self.lines.push(format!("({} more lines were dropped)", self.dropped));
        }
        self.lines
    }
}
