//! Reads JSON that people write: without repeated members, and with errors that have a pointer and use no words of Rust.

mod plain_words;
mod suggest;
pub mod unique;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_path_to_error::Segment;

use self::plain_words::in_plain_words;
pub use self::suggest::nearest;

/// Largest depth of values that are kept as values; the limit is the reader's.
const MAX_DEPTH: usize = 127;

/// Beginning of the reader's message about deeper values.
const TOO_DEEP: &str = "recursion limit exceeded";

/// A document that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// JSON pointer (RFC 6901) to the faulty part; empty for the whole document.
    pub pointer: String,
    /// Message, one sentence.
    pub message: String,
}

/// Returns a step of a JSON pointer: to the field of this name (RFC 6901, section 3).
#[must_use]
pub fn pointer_to(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Reads an object from text.
///
/// A second pass, which tracks the position, runs only for documents that the first pass has refused.
///
/// # Errors
/// Returns [Unreadable] with a pointer to the part that cannot be read.
pub fn read_object<T: DeserializeOwned>(text: &[u8]) -> Result<T, Unreadable> {
    let is_object = text.trim_ascii_start().starts_with(b"{");
    let first = match serde_json::from_slice::<T>(text) {
        // The reader would accept a list as the fields of an object in their order.
        Ok(value) if is_object => return Ok(value),
        Ok(_) => return Err(no_object::<T>(text)),
        Err(error) if error.is_data() && !is_object => return Err(no_object::<T>(text)),
        Err(error) => error,
    };
    Err(refused::<T>(text, &first))
}

/// Reads any JSON from text.
///
/// # Errors
/// Returns [Unreadable] with a pointer to the part that cannot be read.
pub fn read_text<T: DeserializeOwned>(text: &[u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(text).map_err(|error| refused::<T>(text, &error))
}

/// Finds the part of a refused text that is at fault, and the reason.
fn refused<T: DeserializeOwned>(text: &[u8], error: &serde_json::Error) -> Unreadable {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let found = serde_path_to_error::deserialize::<_, T>(&mut deserializer);
    let pointer = found.err().map(|error| pointer_of(error.path())).unwrap_or_default();
    Unreadable { pointer, message: reason(text, error) }
}

/// Returns the reason why text was refused.
///
/// If valid JSON cannot be a value of the wanted type, the reader reports a syntax error; this function tells the two apart.
fn reason(text: &[u8], error: &serde_json::Error) -> String {
    let said = error.to_string();
    if error.is_data() {
        in_plain_words(&said)
    } else if said.starts_with(TOO_DEEP) {
        format!("nested more than {MAX_DEPTH} levels deep")
    } else if serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        "the value has another type than expected".to_owned()
    } else {
        format!("not JSON: {said}")
    }
}

/// Reads a value.
///
/// # Errors
/// Returns [Unreadable] with a pointer to the part that cannot be read.
pub fn read_value<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, Unreadable> {
    serde_path_to_error::deserialize(value).map_err(|error| Unreadable {
        pointer: pointer_of(error.path()),
        message: in_plain_words(&error.into_inner().to_string()),
    })
}

/// Returns the error for JSON that is not an object: its actual type, and a field that the object must have.
fn no_object<T: DeserializeOwned>(text: &[u8]) -> Unreadable {
    let given = match text.trim_ascii_start().first() {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    };
    let missing = serde_json::from_slice::<T>(b"{}").err().map(|error| in_plain_words(&error.to_string()));
    let field =
        missing.as_deref().and_then(|message| message.strip_prefix("the field `")?.strip_suffix("` is missing"));
    let with = field.map(|field| format!(" with `{field}`")).unwrap_or_default();
    Unreadable { pointer: String::new(), message: format!("expected a JSON object{with}, got {given}") }
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => pointer_to(key),
        Segment::Unknown => String::new(),
    };
    path.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Doc {
        jobs: Vec<std::collections::BTreeMap<String, u8>>,
    }

    fn refused(text: &[u8]) -> (String, String) {
        let Unreadable { pointer, message } = read_object::<Doc>(text).unwrap_err();
        (pointer, message)
    }

    #[test]
    fn what_cannot_be_read_is_pointed_at() {
        assert_eq!(refused(br#"{"jobs": [{}, {"a/b": "x"}]}"#).0, "/jobs/1/a~1b");
        assert_eq!(refused(br#"{"jobs": [], "more": 1}"#).0, "/more");
        assert!(refused(br#"{"jobs": ["#).1.contains("not JSON"));
        assert_eq!(refused(b"{\"jobs\": \"\xff\"}").0, "/jobs");
        assert_eq!(read_value::<Doc>(&json!({"jobs": [{"a": 300}]})).unwrap_err().pointer, "/jobs/0/a");
    }

    #[test]
    fn json_that_does_not_fit_is_not_called_a_fault_of_its_syntax() {
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only read")]
        struct Choice {
            kind: Kind,
            policy: Value,
        }
        #[derive(Debug, Deserialize)]
        enum Kind {}
        let refused = |text: &str| read_object::<Choice>(text.as_bytes()).unwrap_err();
        assert_eq!(refused(r#"{"kind": []}"#).message, "the value has another type than expected");
        assert_eq!(refused(r#"{"kind": 1}"#).pointer, "/kind");
        let deep = format!(r#"{{"policy": {}{}}}"#, "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(refused(&deep).message, "nested more than 127 levels deep");
    }

    #[test]
    fn other_values_than_objects_are_called_by_their_kind() {
        for (text, kind) in [
            ("[]", "an array"),
            ("[[]]", "an array"),
            ("\"x\"", "a string"),
            ("null", "null"),
            (" 7", "a number"),
            ("true", "a boolean"),
        ] {
            let expected = (String::new(), format!("expected a JSON object with `jobs`, got {kind}"));
            assert_eq!(refused(text.as_bytes()), expected, "{text}");
        }
    }
}
