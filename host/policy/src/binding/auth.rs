//! Headers whose values are keys: how a group writes them, and how they are parsed.
//!
//! A binding holds the name of the key and never its value. The value is put on a request at the very end; policies, users and records never
//! see it.

use http::HeaderName;
use serde_json::Value;

use super::super::answer::check_header;
use super::{Invalid, pointer_to};

/// Maximum number of such headers of a group.
const MAX_AUTH_HEADERS: usize = 16;

/// Prefix of the names of the server's own headers.
const OWN: &str = "carillon-";

/// Header that goes out with every request of a group, with a key as its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthHeader {
    /// Name of the header.
    pub name: HeaderName,
    /// Name of the key.
    pub key: String,
    /// Its place in the document, as a JSON pointer.
    pub pointer: String,
}

pub(super) fn parse(value: Option<&Value>) -> Result<Vec<AuthHeader>, Invalid> {
    let fields = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(fields)) if fields.len() <= MAX_AUTH_HEADERS => fields,
        Some(_) => {
            let message = format!(
                "`auth_headers` must be an object of at most {MAX_AUTH_HEADERS} members: name of a header → name of a key"
            );
            return Err(Invalid::at("/auth_headers", message));
        }
    };
    let mut headers = Vec::with_capacity(fields.len());
    for (name, key) in fields {
        let header = one(name, key)?;
        if headers.iter().any(|other: &AuthHeader| other.name == header.name) {
            let message = format!("the header `{}` is given twice; names of headers are case-insensitive", header.name);
            return Err(Invalid::at(header.pointer, message));
        }
        headers.push(header);
    }
    Ok(headers)
}

fn one(name: &str, key: &Value) -> Result<AuthHeader, Invalid> {
    let pointer = format!("/auth_headers{}", pointer_to(name));
    let Some(key) = key.as_str() else { return Err(Invalid::at(pointer, "the value must be the name of a key")) };
    check_header(name, b"").map_err(|message| Invalid::at(&pointer, message))?;
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if name.as_str().starts_with(OWN) => {
            Err(Invalid::at(pointer, "headers that begin with `Carillon-` are reserved for the server"))
        }
        Ok(name) => Ok(AuthHeader { name, key: key.to_owned(), pointer }),
        Err(error) => Err(Invalid::at(pointer, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pointer(value: Value) -> String {
        parse(Some(&value)).unwrap_err().pointer
    }

    #[test]
    fn each_header_has_the_name_of_a_key() {
        let headers = parse(Some(&json!({"X-Key": "a", "Authorization": "b"}))).unwrap();
        let mut found: Vec<_> = headers.iter().map(|header| (header.name.as_str(), header.key.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, [("authorization", "b"), ("x-key", "a")]);
        assert_eq!(parse(None), Ok(vec![]));
        assert_eq!(parse(Some(&Value::Null)), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_a_header_is_pointed_at() {
        assert_eq!(pointer(json!(["X-Key"])), "/auth_headers");
        assert_eq!(pointer(json!({"X-Key": 7})), "/auth_headers/X-Key");
        assert_eq!(pointer(json!({"X/Key": "a"})), "/auth_headers/X~1Key");
        assert_eq!(pointer(json!({"": "a"})), "/auth_headers/");
        for own in ["Host", "content-length", "Idempotency-Key", "Carillon-Job-Id", "carillon-metadata-a"] {
            assert_eq!(pointer(json!({own: "a"})), format!("/auth_headers/{own}"));
        }
        assert!(pointer(json!({"X-Key": "a", "x-key": "b"})).eq_ignore_ascii_case("/auth_headers/x-key"));
        let many: serde_json::Map<_, _> =
            (0..=MAX_AUTH_HEADERS).map(|index| (format!("X-{index}"), json!("a"))).collect();
        assert_eq!(pointer(Value::Object(many)), "/auth_headers");
    }
}
