//! The client certificate of a group: `"tls": {"client_key": "name of a key"}`.
//!
//! A binding holds the name of the key and never its value, which only handshakes with receivers use.

use serde::Deserialize;
use serde_json::Value;

use super::Invalid;
use carillon_core::json::read_value;

/// Key of a group that is shown to receivers in TLS handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// Name of the key.
    pub key: String,
}

impl ClientKey {
    /// Its place in a group's document, as a JSON pointer.
    pub const POINTER: &str = "/tls/client_key";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsInput {
    client_key: Option<String>,
}

pub(super) fn parse(value: Option<&Value>) -> Result<Option<ClientKey>, Invalid> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let doc: TlsInput = read_value(value).map_err(|error| Invalid::from(error).within("/tls"))?;
    Ok(doc.client_key.map(|key| ClientKey { key }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn group_names_one_key_or_none() {
        let named = parse(Some(&json!({"client_key": "a"}))).unwrap();
        assert_eq!(named, Some(ClientKey { key: "a".to_owned() }));
        for none in [None, Some(Value::Null), Some(json!({})), Some(json!({"client_key": null}))] {
            assert_eq!(parse(none.as_ref()), Ok(None), "{none:?}");
        }
        let pointer = |value: Value| parse(Some(&value)).unwrap_err().pointer;
        assert_eq!(pointer(json!({"client_key": 7})), "/tls/client_key");
        assert_eq!(pointer(json!({"other": "a"})), "/tls/other");
        assert_eq!(pointer(json!("a")), "/tls");
    }
}
