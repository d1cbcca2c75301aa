//! JSON documents that are kept in memory for a long time, and seldom looked into.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// JSON document, kept as its text: a tree of small values takes 20 times its text.
#[derive(Clone, Debug)]
pub struct Document(Arc<str>);

impl Document {
    /// Parses the document.
    #[must_use]
    pub fn value(&self) -> Value {
        // The text was written from a value.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::from(&Value::Null)
    }
}

impl From<&Value> for Document {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.value() == other.value()
    }
}

impl PartialEq<Value> for Document {
    fn eq(&self, other: &Value) -> bool {
        self.value() == *other
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self::from(&value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn document_is_the_value_that_it_was_made_from() {
        for value in [json!(null), json!({"a": [1, 2.5, "ü\u{0}\"", {"b": null}], "c": -1e300, "d": u64::MAX})] {
            let document = Document::from(&value);
            assert_eq!(document.value(), value);
            assert_eq!(document, value);
            let stored = serde_json::to_value(&document).unwrap();
            assert_eq!(stored, value);
            assert_eq!(serde_json::from_value::<Document>(stored).unwrap(), document);
        }
        assert_eq!(Document::default(), json!(null));
    }
}
