//! Foreign text, made safe for a terminal.

// The same file as in the server's crates, so that both know the same characters.
#[path = "../../core/src/text/hidden.rs"]
mod hidden;

use std::borrow::Cow;
use std::fmt::Write as _;

use self::hidden::is_hidden;

/// Returns `text` with those characters escaped that control a terminal, the direction of text, or what is visible.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |safe, character| safe.extend(character.escape_default()))
}

/// Returns lines with those characters escaped that [`visible`] escapes, except for the breaks between the lines.
#[must_use]
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(|line| visible(line.trim_end_matches('\r'))).collect::<Vec<_>>().join("\n")
}

/// Returns a JSON text of the same value in which those characters are escaped that [`visible`] escapes.
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // ASCII control characters are escaped already in strings; outside of strings they are white space between values.
    if json.chars().all(|letter| letter.is_ascii() || !is_hidden(letter)) {
        return Cow::Borrowed(json);
    }
    let escaped = escape(json, |safe, letter| {
        if letter.is_ascii() {
            safe.push(letter);
            return;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(safe, "\\u{unit:04x}");
        }
    });
    Cow::Owned(escaped.into_owned())
}

fn escape(text: &str, put: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) { put(&mut safe, character) } else { safe.push(character) }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours, a line break, C1 controls, a change of direction, no width, and a tag beyond the basic plane.
    const HOSTILE: &str = "a\u{1b}[31m\n\u{9b}b\u{202e}c\u{200b}\u{e0041}";

    #[test]
    fn hidden_characters_are_escaped() {
        assert_eq!(visible(HOSTILE), "a\\u{1b}[31m\\n\\u{9b}b\\u{202e}c\\u{200b}\\u{e0041}");
        assert_eq!(visible_lines("one\r\ntwo\u{7}\n"), "one\ntwo\\u{7}\n");
        assert_eq!(visible("é 日本"), "é 日本");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, "é"] });
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = visible_json(&json);
            assert!(
                !shown.chars().any(|letter| !letter.is_ascii() && is_hidden(letter)) && shown.contains('é'),
                "{shown}"
            );
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
