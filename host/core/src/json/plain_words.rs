//! Rewrites the JSON reader's messages about documents of a wrong shape in the words of JSON instead of Rust's.

use std::fmt::Write as _;

use super::nearest;

/// Rewrites the message of an error of `serde_json` about a value of the wrong shape.
pub(super) fn in_plain_words(message: &str) -> String {
    let message = without_place(message);
    rewritten(message).unwrap_or_else(|| message.to_owned())
}

/// Removes ` at line 1 column 6`: it counts from the beginning of a part of the document, and the pointer says more.
fn without_place(message: &str) -> &str {
    match message.rsplit_once(" at line ") {
        Some((text, place)) if place.bytes().all(|byte| byte.is_ascii_digit() || b" column".contains(&byte)) => text,
        _ => message,
    }
}

fn rewritten(message: &str) -> Option<String> {
    if let Some(field) = message.strip_prefix("missing field ") {
        return Some(format!("the field {field} is missing"));
    }
    if let Some(field) = message.strip_prefix("duplicate field ") {
        return Some(format!("the field {field} is given twice"));
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return Some(unknown("field", rest));
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return Some(unknown("value", rest));
    }
    let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
    let rest = kinds.into_iter().find_map(|kind| message.strip_prefix(kind))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    if message.starts_with("invalid length ") {
        return Some(format!("expected {}, got one of length {found}", wanted(expected)));
    }
    Some(format!("expected {}, got {}", wanted(expected), given(found)))
}

/// Puts the nearest known name in front: `` `sate`, expected one of `state`, `name` ``.
fn unknown(what: &str, rest: &str) -> String {
    let (given, expected) = rest.split_once(", ").unwrap_or((rest, ""));
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let mut text = format!("the {what} {given} is unknown");
    if let Some(nearest) = nearest(given.trim_matches('`'), known.iter().copied()) {
        let _ = write!(text, "; did you mean `{nearest}`?");
    } else if known.is_empty() {
        let _ = write!(text, "; no {what} is allowed here");
    }
    if known.len() > 1 {
        let _ = write!(text, " Known {what}s are `{}`", known.join("`, `"));
        if !text.contains('?') {
            text = text.replacen(" Known", "; known", 1);
        }
    } else if let ([only], false) = (known.as_slice(), text.contains('?')) {
        let _ = write!(text, "; the only {what} is `{only}`");
    }
    text
}

/// Returns the expected type in the words of JSON.
fn wanted(expected: &str) -> String {
    let whole = |least: &str, most: &str| format!("a whole number from {least} to {most}");
    match expected {
        "u8" => whole("0", "255"),
        "u16" => whole("0", "65535"),
        "u32" => whole("0", "4294967295"),
        "u64" | "usize" => "a whole number that is not negative".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a string" | "string" | "str" | "a borrowed string" | "a character" => "a string".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" | "any valid JSON object" => "an object".to_owned(),
        "unit" => "null".to_owned(),
        _ if ["struct ", "tuple struct "].iter().any(|prefix| expected.starts_with(prefix)) => "an object".to_owned(),
        _ if expected.starts_with("a tuple of size ") => expected.replace("a tuple of size ", "an array of "),
        _ if ["enum ", "variant identifier", "string or map"].iter().any(|prefix| expected.starts_with(prefix)) => {
            "one of the known strings".to_owned()
        }
        _ => expected.to_owned(),
    }
}

/// Returns the given value's type in the words of JSON.
fn given(found: &str) -> String {
    match found.split_once(' ') {
        Some(("integer" | "floating", rest)) => format!("the number {}", rest.trim_start_matches("point ")),
        Some(("boolean", rest)) => rest.to_owned(),
        Some(("string", rest)) => format!("the string {rest}"),
        _ => match found {
            "map" => "an object".to_owned(),
            "sequence" => "an array".to_owned(),
            "unit value" => "null".to_owned(),
            other => other.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::in_plain_words;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct KeyDoc {
        secret: String,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        max_runs: u64,
        #[serde(default)]
        level: u8,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        flag: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Secret,
        Header,
    }

    fn words(text: &str) -> String {
        in_plain_words(&serde_json::from_str::<KeyDoc>(text).unwrap_err().to_string())
    }

    #[test]
    fn messages_speak_of_json() {
        for (text, expected) in [
            (r#"{}"#, "the field `secret` is missing"),
            (r#"{"secret": "", "secret": ""}"#, "the field `secret` is given twice"),
            (r#"{"secret": 1}"#, "expected a string, got the number `1`"),
            (r#"{"secret": {}}"#, "expected a string, got an object"),
            (r#"{"secret": null}"#, "expected a string, got null"),
            (r#"{"secret": "s", "max_runs": -1}"#, "expected a whole number that is not negative, got the number `-1`"),
            (
                r#"{"secret": "s", "max_runs": 1.5}"#,
                "expected a whole number that is not negative, got the number `1.5`",
            ),
            (r#"{"secret": "s", "level": 300}"#, "expected a whole number from 0 to 255, got the number `300`"),
            (r#"{"secret": "s", "names": {}}"#, "expected an array, got an object"),
            (r#"{"secret": "s", "flag": "yes"}"#, "expected `true` or `false`, got the string \"yes\""),
            (r#"7"#, "expected an object, got the number `7`"),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn unknown_names_come_with_the_nearest() {
        let text = words(r#"{"secrte": ""}"#);
        assert!(
            text.starts_with("the field `secrte` is unknown; did you mean `secret`? Known fields are `secret`, `kind`"),
            "{text}"
        );
        let text = words(r#"{"secret": "", "kind": "xyz"}"#);
        assert_eq!(text, "the value `xyz` is unknown; known values are `secret`, `header`");
    }

    #[test]
    fn no_message_has_a_word_of_rust_or_a_place_in_a_fragment() {
        let values = [
            "1",
            "-1",
            "1.5",
            "\"x\"",
            "true",
            "null",
            "[]",
            "{}",
            "[1]",
            "{\"a\": 1}",
            "1e400",
            "99999999999999999999",
        ];
        let fields = ["secret", "kind", "max_runs", "level", "names", "flag", "other"];
        let documents =
            fields.iter().flat_map(|field| values.iter().map(move |value| format!("{{\"{field}\": {value}}}")));
        for text in documents.chain(values.iter().map(|value| (*value).to_owned())) {
            let Err(error) = serde_json::from_str::<KeyDoc>(&text) else { continue };
            if !error.is_data() {
                continue;
            }
            let said = in_plain_words(&error.to_string());
            for word in
                ["struct", "KeyDoc", "u64", "u8", "enum", "variant", "sequence", "map", "at line", "unit", "invalid"]
            {
                assert!(!said.contains(word), "{text}: {said}");
            }
        }
    }

    #[test]
    fn messages_of_our_own_stay() {
        assert_eq!(in_plain_words("a text, or an object of texts at line 1 column 6"), "a text, or an object of texts");
        assert_eq!(in_plain_words("the clock stands at line"), "the clock stands at line");
    }
}
