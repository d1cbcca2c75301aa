//! Metadata: the client's own labels of a job, as texts and namespaces of texts.
//!
//! A namespace is one level deep. Policies and receivers see flat names, `billing.invoice` for the `invoice` of `billing`; the client's form
//! is stored and shown unchanged.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::json::unique;

/// Prefix of the names of headers that carry metadata.
pub const METADATA_HEADER: &str = "Carillon-Metadata-";

/// A job's labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = std::collections::HashMap<String, Label>)]
pub struct Metadata(#[serde(deserialize_with = "unique::map")] pub BTreeMap<String, Label>);

/// Label of a job, or a namespace of labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Label {
    /// Value of a label.
    Text(String),
    /// Labels of a namespace, by name.
    Namespace(BTreeMap<String, String>),
}

impl Metadata {
    /// Returns whether there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns every text with its name, and with the name of its namespace if it has one.
    pub fn texts(&self) -> impl Iterator<Item = Text<'_>> {
        self.0.iter().flat_map(|(name, label)| {
            let (text, namespace) = match label {
                Label::Text(value) => (Some(Text { namespace: None, name, value }), None),
                Label::Namespace(texts) => (None, Some(texts)),
            };
            let inside = namespace.into_iter().flatten();
            text.into_iter().chain(inside.map(move |(key, value)| Text { namespace: Some(name), name: key, value }))
        })
    }
}

/// A text of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Name of the namespace; None for a label at the top.
    pub namespace: Option<&'a str>,
    /// Name of the label.
    pub name: &'a str,
    /// Value of the label.
    pub value: &'a str,
}

impl<'a> Text<'a> {
    /// Returns the name under which policies see the label.
    #[must_use]
    pub fn flat_name(&self) -> Cow<'a, str> {
        match self.namespace {
            Some(namespace) => Cow::Owned(format!("{namespace}.{}", self.name)),
            None => Cow::Borrowed(self.name),
        }
    }

    /// Returns the name of the header that carries the label; None if the name has characters besides letters, digits, `-`, `.` and `_`.
    ///
    /// The header's name has letters, digits and `-` only, since proxies drop headers with other characters. `.` and `_` become `-`.
    #[must_use]
    pub fn header_name(&self) -> Option<String> {
        let flat = self.flat_name();
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (!flat.is_empty() && flat.bytes().all(fine))
            .then(|| format!("{METADATA_HEADER}{}", flat.replace(['.', '_'], "-")))
    }

    /// Returns the value of the header that carries the label.
    ///
    /// All characters but visible ASCII, and `%` itself, are written as `%XX` of their UTF-8 (RFC 3986, section 2.1), so that decoding always
    /// returns the text.
    #[must_use]
    pub fn header_value(&self) -> String {
        let mut value = String::with_capacity(self.value.len());
        for byte in self.value.bytes() {
            if byte.is_ascii_graphic() && byte != b'%' {
                value.push(char::from(byte));
            } else {
                value.push_str(&format!("%{byte:02X}"));
            }
        }
        value
    }
}

/// Reads a text or an object of texts.
///
/// Written by hand, because the code that serde derives loses the place of an error within a namespace.
impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or an object of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Label, E> {
                Ok(Label::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Label, A::Error> {
                unique::map(de::value::MapAccessDeserializer::new(map)).map(Label::Namespace)
            }
        }
        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(value: serde_json::Value) -> Metadata {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_was_written_is_kept_and_flat_names_are_seen() {
        let written = json!({"k": "v", "billing": {"invoice": "17", "a.b": "c"}, "empty": {}});
        let metadata = metadata(written.clone());
        let flat: Vec<_> = metadata.texts().map(|text| (text.flat_name().into_owned(), text.value)).collect();
        let expected = [("billing.a.b", "c"), ("billing.invoice", "17"), ("k", "v")];
        assert_eq!(flat, expected.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(serde_json::to_value(&metadata).unwrap(), written);
    }

    #[test]
    fn a_namespace_is_one_level_deep() {
        for bad in [json!({"a": {"b": {"c": "d"}}}), json!({"a": 1}), json!({"a": null}), json!({"a": ["b"]})] {
            assert!(serde_json::from_value::<Metadata>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_are_safe_and_give_the_text_back() {
        let header = |name: &str, value: &str| {
            let metadata = metadata(json!({ name: value }));
            let text = metadata.texts().next().unwrap();
            (text.header_name(), text.header_value())
        };
        let named = |name: &str| Some(format!("Carillon-Metadata-{name}"));
        assert_eq!(header("trace_id", "a-1"), (named("trace-id"), "a-1".to_owned()));
        assert_eq!(header("a.b", "50% für\r\n"), (named("a-b"), "50%25%20f%C3%BCr%0D%0A".to_owned()));
        assert_eq!(header("", "").0, None);
        assert_eq!(header("a b", "").0, None);
        assert_eq!(header("ä", "").0, None);
    }
}
