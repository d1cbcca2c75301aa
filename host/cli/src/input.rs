//! Input of commands: documents from files or standard input, and the values of flags.

use std::io::{IsTerminal as _, Read, Write as _, stderr, stdin};
use std::path::Path;

use anyhow::{Context, ensure};
use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::Value;
use serde_json::value::RawValue;

use carillon_client::answer::Members;
use carillon_client::text::visible;

/// File name that stands for standard input.
pub(super) const STDIN: &str = "-";

/// Returns whether a person can be asked: input and messages are on a terminal.
pub(super) fn is_terminal() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks on the terminal; any answer but yes ends the command.
pub(super) fn confirm(question: &str) -> anyhow::Result<()> {
    let mut terminal = console::Term::stderr();
    write!(terminal, "{} [y/N] ", visible(question))?;
    let answer = terminal.read_line()?;
    ensure!(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()), "nothing was changed");
    Ok(())
}

/// Reads the bytes of a file, or of standard input for `-`.
pub(super) fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new(STDIN) {
        let mut bytes = Vec::new();
        stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Reads the text of a file, or of standard input for `-`.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(bytes(path)?).with_context(|| format!("{} is not UTF-8", name(path)))
}

/// Reads an object in JSON or TOML, from a file or standard input.
pub(super) fn document(path: &Path) -> anyhow::Result<Members> {
    let text = text(path)?;
    // No TOML document begins with a brace.
    let read = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(anyhow::Error::from)
    } else {
        toml_members(&text)
    };
    read.with_context(|| format!("{} is neither a JSON object nor TOML", name(path)))
}

fn toml_members(text: &str) -> anyhow::Result<Members> {
    let fields: serde_json::Map<String, Value> = Figment::from(Toml::string(text)).extract()?;
    let mut members = Members::default();
    fields.iter().try_for_each(|(name, value)| members.put(name, value))?;
    Ok(members)
}

/// Returns the name of a file for messages.
pub(super) fn name(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Parses the value of a flag that takes JSON; its text is kept.
pub(super) fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))
}

/// Parses the value of a flag that takes a JSON object; its members' text is kept.
pub(super) fn json_object(text: &str) -> Result<Members, String> {
    match serde_json::from_str(text) {
        Ok(members) => Ok(members),
        Err(error) if error.is_data() => Err(format!("this is not a JSON object: {error}")),
        Err(error) => Err(format!("this is not JSON: {error}")),
    }
}

/// Adds labels to `more`, as an object of texts. No label may be given twice.
pub(super) fn labels(more: Members, pairs: Vec<(String, String)>) -> anyhow::Result<Members> {
    let mut labels = more;
    for (key, value) in pairs {
        anyhow::ensure!(labels.get(&key).is_none(), "the label `{key}` is given twice; a label has one value");
        labels.put(&key, &value)?;
    }
    Ok(labels)
}

/// Parses `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("this is not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Parses `Name: value`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("this is not `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Returns a time in the form of the API: seconds since 1970 as a number, everything else as a string.
pub(super) fn time(text: &str) -> Value {
    let is_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !is_number {
        return Value::from(text);
    }
    let whole = text.parse::<i64>().map(Value::from).ok();
    whole.or_else(|| text.parse::<f64>().map(Value::from).ok()).unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_json_or_toml() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("group");
        for text in ["\n{\"limits\": {\"concurrency\": 1}}", "limits = { concurrency = 1 }"] {
            std::fs::write(&path, text).unwrap();
            let read = serde_json::to_value(document(&path).unwrap()).unwrap();
            assert_eq!(read, json!({"limits": {"concurrency": 1}}));
        }
        std::fs::write(&path, "[1").unwrap();
        assert!(document(&path).unwrap_err().to_string().contains("is neither a JSON object nor TOML"));
    }

    #[test]
    fn documents_and_flags_keep_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schedule");
        let text = r#"{"job":{"payload":{"order": 12345678901234567890123, "a": 1.10, "d": 1, "d": 2}},"cron":"x"}"#;
        std::fs::write(&path, text).unwrap();
        assert_eq!(serde_json::to_string(&document(&path).unwrap()).unwrap(), text);
        assert_eq!(json(" [1.10, 1e400] ").unwrap().get(), "[1.10, 1e400]");
        assert_eq!(serde_json::to_string(&json_object(text).unwrap()).unwrap(), text);
        assert!(json_object("[]").unwrap_err().starts_with("this is not a JSON object"));
        assert!(json_object(r#"{"a": 1, "a": 2}"#).unwrap_err().contains("`a` is there twice"));
    }

    #[test]
    fn labels_are_given_once() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let given = labels(json_object(r#"{"n": {"k": "v"}}"#).unwrap(), vec![pair("k", "v")]).unwrap();
        assert_eq!(serde_json::to_string(&given).unwrap(), r#"{"n":{"k": "v"},"k":"v"}"#);
        let error = labels(Members::default(), vec![pair("k", "v"), pair("k", "w")]).unwrap_err().to_string();
        assert!(error.contains("the label `k` is given twice"), "{error}");
    }

    #[test]
    fn times_are_numbers_only_if_they_are_points_in_time() {
        assert_eq!(time("1795168800"), json!(1_795_168_800));
        assert_eq!(time("1795168800.25"), json!(1_795_168_800.25));
        assert_eq!(time("-5"), json!(-5));
        assert_eq!(time("1.2.3"), json!("1.2.3"));
        assert_eq!(time("+90s"), json!("+90s"));
        assert_eq!(time("+90"), json!("+90"));
        assert_eq!(time("2026-11-20T10:00:00Z"), json!("2026-11-20T10:00:00Z"));
    }

    #[test]
    fn headers_and_pairs_are_split_once() {
        assert_eq!(header("X-A: b:c"), Ok(("X-A".to_owned(), "b:c".to_owned())));
        assert_eq!(pair("k=v=w"), Ok(("k".to_owned(), "v=w".to_owned())));
        assert!(header("X-A").is_err() && pair("k").is_err());
    }
}
