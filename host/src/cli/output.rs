//! What commands print: aligned tables and records for people, JSON for programs.
//!
//! Much of it was written by strangers, such as the answers that attempts got. Control characters are printed as escapes, so that
//! nobody's answer steers the terminal.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The gap between two columns.
const GAP: &str = "  ";
/// The longest nested value that a record shows on one line, in characters.
const INLINE: usize = 80;

/// Standard output, in one of two manners.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the server's answer is wanted as it is.
    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Prints `value`, indented.
    pub(super) fn json(self, value: &Value) -> anyhow::Result<()> {
        print(&format!("{value:#}\n"))
    }

    /// Prints `value` on one line.
    pub(super) fn json_line(self, value: &Value) -> anyhow::Result<()> {
        print(&format!("{value}\n"))
    }

    /// Prints one line.
    pub(super) fn line(self, text: &str) -> anyhow::Result<()> {
        print(&format!("{}\n", visible(text)))
    }

    /// Prints a remark, which is not part of the result.
    pub(super) fn note(self, text: &str) -> anyhow::Result<()> {
        writeln!(io::stderr().lock(), "{}", visible(text))?;
        Ok(())
    }

    /// Prints `rows` under headings; `columns` are headings and JSON pointers. A column that no row has is left out.
    pub(super) fn table(self, columns: &[(&str, &str)], rows: &[Value]) -> anyhow::Result<()> {
        print(&table(columns, rows))
    }

    /// Prints an object, a field to a line.
    pub(super) fn record(self, value: &Value) -> anyhow::Result<()> {
        print(&record(value))
    }

    /// Prints an answer: as JSON if that is wanted, else as a record.
    pub(super) fn answer(self, value: &Value) -> anyhow::Result<()> {
        if self.json { self.json(value) } else { self.record(value) }
    }
}

/// Writes a file.
pub(super) fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, contents).with_context(|| format!("{} cannot be written", path.display()))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// `text` with its control characters as escapes.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    Cow::Owned(safe)
}

fn table(columns: &[(&str, &str)], rows: &[Value]) -> String {
    let used = |(_, pointer): &&(&str, &str)| {
        rows.iter().any(|row| row.pointer(pointer).is_some_and(|value| !value.is_null()))
    };
    let columns: Vec<_> =
        columns.iter().enumerate().filter(|(at, column)| *at == 0 || used(column)).map(|(_, column)| column).collect();
    let mut lines = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect::<Vec<_>>()];
    lines
        .extend(rows.iter().map(|row| {
            columns.iter().map(|(_, pointer)| row.pointer(pointer).map(cell).unwrap_or_default()).collect()
        }));

    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let aligned = lines.iter().map(|line| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join(GAP).trim_end())
    });
    aligned.collect()
}

fn record(value: &Value) -> String {
    let Some(fields) = value.as_object() else { return format!("{}\n", cell(value)) };
    let fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines = fields.into_iter().map(|(name, value)| {
        let text = cell(value);
        if (value.is_object() || value.is_array()) && text.chars().count() > INLINE {
            let indented = format!("{value:#}").replace('\n', &format!("\n{GAP}"));
            return format!("{}\n{GAP}{indented}\n", visible(name));
        }
        format!("{:width$}{GAP}{text}\n", visible(name))
    });
    lines.collect()
}

/// A value on one line.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => visible(text).into_owned(),
        Value::Array(items) if !items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        other => visible(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_unused_ones_left_out() {
        let rows =
            [json!({"id": "a", "last": {"status": 200}, "x": null}), json!({"id": "long-id", "tags": ["p", "q"]})];
        let columns = [("ID", "/id"), ("STATUS", "/last/status"), ("X", "/x"), ("TAGS", "/tags")];
        assert_eq!(table(&columns, &rows), "ID       STATUS  TAGS\na        200\nlong-id          p, q\n");
        assert_eq!(table(&columns, &[]), "ID\n");
    }

    #[test]
    fn a_record_has_a_field_to_a_line() {
        let value = json!({"id": "x", "finished_at": null, "metadata": {"k": "v"}, "n": 1});
        assert_eq!(record(&value), "id        x\nmetadata  {\"k\":\"v\"}\nn         1\n");
    }

    #[test]
    fn nobody_steers_the_terminal() {
        let rows = [json!({"body": "\u{1b}[2Jgone\r\n"})];
        assert_eq!(table(&[("BODY", "/body")], &rows), "BODY\n\\u{1b}[2Jgone\\r\\n\n");
    }
}
