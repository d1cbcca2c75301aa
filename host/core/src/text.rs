//! Text of others, made safe to show: what plugins, receivers, consumers and people write for a reader.
//!
//! It is cleaned once, where it is taken, so that every response, event, log line and terminal gets the same. Not for data: names that clients
//! look up, payloads and recorded bodies stay as they are, and who prints them escapes them.

mod hidden;

use std::borrow::Cow;

pub use self::hidden::is_hidden;

/// Character in place of one that is hidden.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Returns `text` on one line and without characters that control a terminal, the direction of text, or what is visible.
///
/// White space among them, such as a line break, becomes a space; any other becomes U+FFFD.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let shown = |letter: char| match letter {
        letter if !is_hidden(letter) => letter,
        letter if letter.is_whitespace() => ' ',
        _ => REPLACEMENT,
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Returns at most `limit` bytes of `text`, cleaned.
#[must_use]
pub fn clean_within(text: &str, limit: usize) -> String {
    let mut clean = clean(&text[..text.floor_char_boundary(limit)]).into_owned();
    // A replacement may be longer than the character.
    clean.truncate(clean.floor_char_boundary(limit));
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clean_text_is_unchanged() {
        for text in ["", "plain words", "é ü ß 日本語 עברית العربية", "emoji 🎉", "tab-free `code`"]
        {
            assert!(matches!(clean(text), Cow::Borrowed(it) if it == text), "{text}");
        }
    }

    #[test]
    fn terminal_and_direction_cannot_be_controlled() {
        for (text, cleaned) in [
            ("\u{1b}[31mred\u{7}", "\u{fffd}[31mred\u{fffd}"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("one\r\ntwo\u{2028}three\u{85}four\tfive", "one  two three four five"),
            ("user\u{202e}gpj.exe\u{2066}\u{200f}", "user\u{fffd}gpj.exe\u{fffd}\u{fffd}"),
            ("pay\u{200b}pal\u{feff}\u{2060}\u{ad}", "pay\u{fffd}pal\u{fffd}\u{fffd}\u{fffd}"),
            ("tag\u{e0041}\u{e007f}", "tag\u{fffd}\u{fffd}"),
            ("nul\0", "nul\u{fffd}"),
        ] {
            assert_eq!(clean(text), cleaned, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn limit_holds_after_the_replacement(text in any::<String>(), limit in 0_usize..40) {
            let cleaned = clean_within(&text, limit);
            prop_assert!(cleaned.len() <= limit && !cleaned.contains(is_hidden));
            prop_assert_eq!(clean(&cleaned), cleaned.as_str());
        }
    }
}
