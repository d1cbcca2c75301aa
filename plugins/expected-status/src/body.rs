//! Checks of an answer's JSON body: the value at a pointer must equal another.

use carillon_policy_sdk::Response;
use serde::Deserialize;
use serde_json::Value;

/// The value that a JSON pointer (RFC 6901) must find.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BodyCheck {
    /// Empty for the whole body, else each step begins with `/`.
    pub pointer: String,
    /// Compared as JSON: `1` equals `1` and not `1.0` or `"1"`; the order of an object's members does not matter.
    pub equals: Value,
}

/// How deeply a body may be nested. The parser calls itself for each level, and a guest's stack is small.
const MAX_DEPTH: usize = 32;

impl BodyCheck {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.pointer.is_empty() || self.pointer.starts_with('/') {
            return Ok(());
        }
        Err(format!("`pointer` is `{0}`, but a JSON pointer begins with `/`, as in `/{0}`.", self.pointer))
    }
}

/// Why the body does not say what it should, in one sentence; none if it does or if there is nothing to check.
pub(crate) fn mismatch(checks: &[BodyCheck], response: &Response) -> Option<String> {
    if checks.is_empty() {
        return None;
    }
    if response.truncated {
        return Some("The body is too long to be checked: only its beginning is shown to the plugin.".to_owned());
    }
    if depth(&response.body) > MAX_DEPTH {
        return Some(format!("The body is nested more than {MAX_DEPTH} levels deep."));
    }
    let Ok(body) = serde_json::from_slice::<Value>(&response.body) else {
        return Some("The body is not JSON.".to_owned());
    };
    checks.iter().find_map(|check| match body.pointer(&check.pointer) {
        Some(found) if *found == check.equals => None,
        Some(_) => Some(format!("The value at `{}` in the body is not {}.", check.pointer, check.equals)),
        None => Some(format!("The body has nothing at `{}`.", check.pointer)),
    })
}

/// The deepest nesting of arrays and objects, if the bytes are JSON.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::depth;

    #[test]
    fn brackets_in_strings_do_not_nest() {
        for (json, expected) in [
            (r#"{"a": [1, {"b": 2}]}"#, 3),
            (r#""[[[""#, 0),
            (r#"["\"[[", [2]]"#, 2),
            (r#"["\\", []]"#, 2),
            ("]]]", 0),
            ("1", 0),
        ] {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
    }
}
