//! Output of commands: aligned tables and records for people, JSON for programs.
//!
//! Much of it comes from strangers, such as the responses to attempts. Control characters are printed as escapes, so that foreign text cannot
//! control the terminal.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use carillon_client::answer::{Members, at, indented};
use carillon_client::text::{visible, visible_json};

/// Gap between two columns.
const GAP: &str = "  ";
/// Maximum length of a nested value that a record shows on one line, in characters.
const INLINE: usize = 80;

/// Standard output, for people or for programs.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Makes an output for programs if `json`, else for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Returns whether the server's response is printed as it is.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints `value`, indented.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub fn json(self, value: &impl Serialize) -> anyhow::Result<()> {
        print(&format!("{}\n", visible_json(&indented(&serde_json::to_string(value)?))))
    }

    /// Prints `value` on one line.
    pub fn json_line(self, value: &impl Serialize) -> anyhow::Result<()> {
        print(&format!("{}\n", visible_json(&serde_json::to_string(value)?)))
    }

    /// Prints one line.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub fn line(self, text: &str) -> anyhow::Result<()> {
        print(&format!("{}\n", visible(text)))
    }

    /// Prints a remark, which is not part of the result.
    pub fn note(self, text: &str) -> anyhow::Result<()> {
        writeln!(io::stderr().lock(), "{}", visible(text))?;
        Ok(())
    }

    /// Prints `rows` under headings; `columns` are headings and JSON pointers. A column without any value is left out.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub fn table<T: Serialize>(self, columns: &[(&str, &str)], rows: &[T]) -> anyhow::Result<()> {
        print(&table(columns, rows)?)
    }

    /// Prints a response: with `--json` as JSON, else as a record with one member per line.
    pub fn answer(self, value: &impl Serialize) -> anyhow::Result<()> {
        self.answer_with(&[], value)
    }

    /// Prints a response. A record begins with the members that `first` names.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub fn answer_with(self, first: &[&str], value: &impl Serialize) -> anyhow::Result<()> {
        if self.json { self.json(value) } else { print(&record(first, &to_raw_value(value)?)) }
    }
}

/// Writes a file.
pub fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, contents).with_context(|| format!("{} cannot be written", path.display()))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn table<T: Serialize>(columns: &[(&str, &str)], rows: &[T]) -> anyhow::Result<String> {
    let texts = rows.iter().map(|row| Ok(to_raw_value(row)?)).collect::<anyhow::Result<Vec<_>>>()?;
    let cell_at = |row: &RawValue, pointer: &str| at(row, pointer).filter(|value| !is_null(value)).map(|it| cell(&it));
    let cells: Vec<Vec<Option<String>>> =
        texts.iter().map(|row| columns.iter().map(|(_, pointer)| cell_at(row, pointer)).collect()).collect();
    let is_used = |column: &usize| *column == 0 || cells.iter().any(|row| row[*column].is_some());
    let used: Vec<usize> = (0..columns.len()).filter(is_used).collect();
    let mut lines = vec![used.iter().map(|column| columns[*column].0.to_owned()).collect::<Vec<_>>()];
    lines.extend(
        cells.iter().map(|row| used.iter().map(|column| row[*column].clone().unwrap_or_default()).collect::<Vec<_>>()),
    );

    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..used.len()).map(width).collect();
    let aligned = lines.iter().map(|line| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join(GAP).trim_end())
    });
    Ok(aligned.collect())
}

fn record(first: &[&str], value: &RawValue) -> String {
    let Ok(members) = serde_json::from_str::<Members>(value.get()) else { return format!("{}\n", cell(value)) };
    let members = members.beginning_with(first);
    let width = members.iter().filter(|(_, value)| !is_null(value)).map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0);
    let lines = members.iter().filter(|(_, value)| !is_null(value)).map(|(name, value)| {
        let text = cell(value);
        if value.get().starts_with(['{', '[']) && text.chars().count() > INLINE {
            let indented = indented(value.get());
            let lines: String = indented.lines().map(|line| format!("{GAP}{}\n", visible(line))).collect();
            return format!("{}\n{lines}", visible(name));
        }
        format!("{:width$}{GAP}{text}\n", visible(name))
    });
    lines.collect()
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Formats a value on one line.
fn cell(value: &RawValue) -> String {
    if is_null(value) {
        return String::new();
    }
    if let Ok(text) = serde_json::from_str::<String>(value.get()) {
        return visible(&text).into_owned();
    }
    match serde_json::from_str::<Vec<Box<RawValue>>>(value.get()) {
        Ok(items) if !items.iter().any(|item| item.get().starts_with(['{', '['])) => {
            items.iter().map(|item| cell(item)).collect::<Vec<_>>().join(", ")
        }
        _ => visible(value.get()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn columns_are_aligned_and_unused_ones_left_out() {
        let rows =
            [json!({"id": "a", "last": {"status": 200}, "x": null}), json!({"id": "long-id", "tags": ["p", "q"]})];
        let columns = [("ID", "/id"), ("STATUS", "/last/status"), ("X", "/x"), ("TAGS", "/tags")];
        assert_eq!(table(&columns, &rows).unwrap(), "ID       STATUS  TAGS\na        200\nlong-id          p, q\n");
        assert_eq!(table::<Value>(&columns, &[]).unwrap(), "ID\n");
    }

    #[test]
    fn a_record_has_a_member_to_a_line_in_reading_order() {
        let text = r#"{"n": 12345678901234567890123, "finished_at": null, "metadata": {"k":"v"}, "id": "x"}"#;
        let shown = record(&["id"], &RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(shown, "id        x\nn         12345678901234567890123\nmetadata  {\"k\":\"v\"}\n");
        let long =
            RawValue::from_string(format!(r#"{{"l": [{{"a": 1.10, "b": "{}"}}]}}"#, "x".repeat(INLINE))).unwrap();
        assert!(record(&[], &long).starts_with("l\n  [\n    {\n      \"a\": 1.10,\n"), "{}", record(&[], &long));
    }

    #[test]
    fn nobody_steers_the_terminal() {
        let rows = [json!({"body": "\u{1b}[2Jgone\r\n"})];
        assert_eq!(table(&[("BODY", "/body")], &rows).unwrap(), "BODY\n\\u{1b}[2Jgone\\r\\n\n");
    }
}
