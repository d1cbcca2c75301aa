//! What commands take: documents from files or standard input, and the values of flags.

use std::io::{Read, stdin};
use std::path::Path;

use anyhow::Context;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::Value;

/// The name that stands for standard input.
pub(super) const STDIN: &str = "-";

/// The bytes of a file, or of standard input for `-`.
pub(super) fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new(STDIN) {
        let mut bytes = Vec::new();
        stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// The text of a file, or of standard input for `-`.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(bytes(path)?).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// An object in JSON or TOML, from a file or standard input.
pub(super) fn document(path: &Path) -> anyhow::Result<Value> {
    let text = text(path)?;
    // No TOML document begins with a brace.
    let read = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(anyhow::Error::from)
    } else {
        Figment::from(Toml::string(&text)).extract().map_err(anyhow::Error::from)
    };
    read.with_context(|| format!("{} is neither a JSON object nor TOML", path.display()))
}

/// The value of a flag that takes JSON.
pub(super) fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))
}

/// The value of a flag that takes a JSON object.
pub(super) fn json_object(text: &str) -> Result<Value, String> {
    json(text)?.as_object().cloned().map(Value::Object).ok_or_else(|| "this is not a JSON object".to_owned())
}

/// `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("this is not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `Name: value`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("this is not `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A time as the API takes it: seconds since 1970 as a number, everything else as a string.
pub(super) fn time(text: &str) -> Value {
    match text.parse::<u64>() {
        Ok(seconds) if !text.starts_with('+') => Value::from(seconds),
        _ => Value::from(text),
    }
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
            assert_eq!(document(&path).unwrap(), json!({"limits": {"concurrency": 1}}));
        }
        std::fs::write(&path, "[1").unwrap();
        assert!(document(&path).unwrap_err().to_string().contains("is neither a JSON object nor TOML"));
    }

    #[test]
    fn times_are_numbers_only_if_they_are_points_in_time() {
        assert_eq!(time("1795168800"), json!(1_795_168_800));
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
