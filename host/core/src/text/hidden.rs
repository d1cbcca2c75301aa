//! Characters that a reader does not see, but that change what a reader sees.
//!
//! This file is also a part of the client, which imports none of the server's crates.

/// Returns whether a character controls a terminal, ends a line, sets the direction of text, or has no width.
///
/// These are the control characters (category Cc), the separators of lines and paragraphs, and the format characters (Cf) without a shape of
/// their own, among them those of the attack "Trojan Source" (CVE-2021-42574) and the tags that can hide a text in a text.
#[must_use]
pub fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}
