//! Numbers and texts as Python's `json.dumps` writes them.

use std::fmt::Write as _;

/// Writes a JSON number as Python would after reading it: a whole number with all its digits, any other as a float.
///
/// What is too large for a float stays as it is; Python would write `Infinity`, which is no JSON.
pub(super) fn push_number(out: &mut String, json: &str) {
    let whole = !json.contains(['.', 'e', 'E']);
    match json.parse::<f64>() {
        _ if json == "-0" => out.push('0'),
        Ok(float) if !whole && float.is_finite() => push_float(out, float),
        _ => out.push_str(json),
    }
}

/// Python's `repr` of a float: the shortest digits that read back as the same number, as a decimal fraction from 1e-4 up to
/// 1e16 and with an exponent of at least two digits otherwise (`float_repr_style` "short", format code `r`).
fn push_float(out: &mut String, float: f64) {
    let scientific = shortest(float.abs());
    let (significand, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if float.is_sign_negative() {
        out.push('-');
    }
    if !(-4..16).contains(&power) {
        // Writing to a String cannot fail.
        _ = write!(out, "{significand}e{}{:02}", if power < 0 { '-' } else { '+' }, power.unsigned_abs());
        return;
    }
    let digits = significand.replace('.', "");
    let Ok(whole) = usize::try_from(power + 1) else {
        _ = write!(out, "0.{}{digits}", "0".repeat(power.unsigned_abs() as usize - 1));
        return;
    };
    match digits.split_at_checked(whole) {
        Some(("", fraction)) => _ = write!(out, "0.{fraction}"),
        Some((whole, fraction)) => _ = write!(out, "{whole}.{}", if fraction.is_empty() { "0" } else { fraction }),
        None => _ = write!(out, "{digits}{}.0", "0".repeat(whole - digits.len())),
    }
}

/// Texts of up to so many digits are different floats (`DBL_DIG` of C): no two of them are the same float, and none is equally near.
const DISTINCT_DIGITS: usize = 15;

/// The shortest digits that read back as the same number, in scientific notation. Of two that are equally near, Python takes the even one.
fn shortest(float: f64) -> String {
    let shortest = format!("{float:e}");
    let digits = shortest.split('e').next().unwrap_or_default().bytes().filter(u8::is_ascii_digit).count();
    if digits <= DISTINCT_DIGITS {
        return shortest;
    }
    // Rounded to so many digits exactly, ties to even. Below a power of two the nearest may belong to another number.
    let nearest = format!("{float:.*e}", digits.saturating_sub(1));
    if nearest.parse() == Ok(float) { nearest } else { shortest }
}

/// Whether a JSON text, with its quotes, is what Python would write of it: nothing in it is escaped, nor would be. Quotes and control characters
/// are escaped in JSON, too, except for the last of ASCII. Three looks at many bytes at once are less work than one at each.
pub(super) fn is_plain_literal(json: &str) -> bool {
    let bytes = json.as_bytes();
    bytes.is_ascii() && !bytes.contains(&b'\\') && !bytes.contains(&b'\x7f')
}

/// Writes a text with its quotes. `ascii` is Python's `ensure_ascii`: UTF-16 escapes for everything but printable ASCII.
pub(super) fn push_text(out: &mut String, text: &str, ascii: bool) {
    // What is escaped grows. To know by how much saves the copies of a text that outgrows its room again and again.
    out.reserve(text.chars().map(|character| written_len(character, ascii)).sum::<usize>() + 2);
    out.push('"');
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        if is_plain(character, ascii) {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + character.len_utf8();
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| push_unit(out, *unit)),
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Whether a character stands for itself.
fn is_plain(character: char, ascii: bool) -> bool {
    match character {
        '"' | '\\' => false,
        ' '..='~' => true,
        _ => character >= '\u{7f}' && !ascii,
    }
}

/// How many bytes a character is written with, at most.
fn written_len(character: char, ascii: bool) -> usize {
    if is_plain(character, ascii) { character.len_utf8() } else { ESCAPE_LEN * character.len_utf16() }
}

/// `\uXXXX`
const ESCAPE_LEN: usize = 6;

fn push_unit(out: &mut String, unit: u16) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push(char::from(DIGITS[usize::from(unit >> shift & 0xf)]));
    }
}

#[cfg(test)]
mod tests {
    use super::{is_plain_literal, push_number, push_text};

    fn number(json: &str) -> String {
        let mut out = String::new();
        push_number(&mut out, json);
        out
    }

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (json, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-7", "-7"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("1.0", "1.0"),
            ("1.50", "1.5"),
            ("-0.0", "-0.0"),
            ("1e2", "100.0"),
            ("1E5", "100000.0"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("9999999999999998.0", "9999999999999998.0"),
            ("12345678901234567.0", "1.2345678901234568e+16"),
            ("1.5e300", "1.5e+300"),
            ("5e-324", "5e-324"),
            ("0.1", "0.1"),
            ("3.14159", "3.14159"),
            ("1e400", "1e400"),
            ("629487440159616.25", "629487440159616.2"),
            ("-629487440159616.75", "-629487440159616.8"),
            ("1125899906842624.25", "1125899906842624.2"),
            ("2251799813685248.5", "2251799813685248.5"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("5e-5", "5e-05"),
            ("0.00012", "0.00012"),
            ("120", "120"),
            ("120.0", "120.0"),
            ("4503599627370497.5", "4503599627370498.0"),
            ("2.2250738585072014e-308", "2.2250738585072014e-308"),
            ("9.5367431640625e-07", "9.5367431640625e-07"),
        ] {
            assert_eq!(number(json), expected, "{json}");
        }
    }

    #[test]
    fn a_plain_text_is_written_as_it_is_read() {
        assert!(["\"\"", "\" a~/+=\"", "\"'\""].into_iter().all(is_plain_literal));
        assert!(!["\"\\n\"", "\"\\\"\"", "\"\u{7f}\"", "\"é\"", "\"\\u0041\""].into_iter().any(is_plain_literal));
    }

    #[test]
    fn texts_are_escaped_to_ascii_or_left() {
        let text = "a\"\\/\n\r\t\u{8}\u{c}\u{1}\u{7f}é€😀";
        let mut ascii = String::new();
        push_text(&mut ascii, text, true);
        assert_eq!(ascii, r#""a\"\\/\n\r\t\b\f\u0001\u007f\u00e9\u20ac\ud83d\ude00""#);
        let mut unicode = String::new();
        push_text(&mut unicode, text, false);
        assert_eq!(unicode, "\"a\\\"\\\\/\\n\\r\\t\\b\\f\\u0001\u{7f}é€😀\"");
    }
}
