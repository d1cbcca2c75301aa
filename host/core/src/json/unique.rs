//! Refuses JSON objects with repeated members.
//!
//! JSON leaves the meaning of a repeated name open (RFC 8259, section 4), and readers differ: one of two members would be lost without
//! notice.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// A JSON value without repeated members at any depth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UniqueValue(pub Value);

impl<'de> Deserialize<'de> for UniqueValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unique).map(Self)
    }
}

/// Reads a value, for `deserialize_with`.
///
/// # Errors
/// Returns an error that names the repeated member.
pub fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    UniqueValue::deserialize(deserializer).map(|it| it.0)
}

/// Reads a value or null, for `deserialize_with`.
///
/// # Errors
/// Returns an error that names the repeated member.
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Ok(Option::<UniqueValue>::deserialize(deserializer)?.map(|it| it.0))
}

/// Reads an object whose members are of one type, for `deserialize_with`.
///
/// # Errors
/// Returns an error that names the repeated member.
pub fn map<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error> {
    deserializer.deserialize_map(Members(PhantomData))
}

/// Returns the error for a repeated member.
fn repeated<E: de::Error>(name: &str) -> E {
    E::custom(format_args!("the member `{}` is given twice", name.escape_debug()))
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            if members.contains_key(&name) {
                return Err(repeated(&name));
            }
            members.insert(name, value);
        }
        Ok(members)
    }
}

struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(Unique)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(repeated(&name));
            }
            let value = map.next_value_seed(Unique)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_repeated_members_are_read_as_they_are() {
        for text in [r#"{"a": {"b": [1, -2, 2.5, null, true, "x"]}, "c": {"b": {}}}"#, "[]", "7", "null", "\"x\""] {
            let unique: UniqueValue = serde_json::from_str(text).unwrap();
            assert_eq!(unique.0, serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn repeated_members_are_refused_at_any_depth() {
        for text in [r#"{"a": 1, "a": 1}"#, r#"[{"b": {"a": 1, "c": 2, "a": 3}}]"#, r#"{"a": 1, "\u0061": 2}"#] {
            let error = serde_json::from_str::<UniqueValue>(text).unwrap_err();
            assert!(error.to_string().contains("`a` is given twice"), "{text}: {error}");
        }
    }

    #[test]
    fn objects_of_one_type_are_checked_too() {
        #[derive(Debug, Deserialize)]
        struct Doc {
            #[serde(deserialize_with = "map")]
            labels: BTreeMap<String, String>,
        }
        assert_eq!(serde_json::from_str::<Doc>(r#"{"labels": {"a": "1"}}"#).unwrap().labels["a"], "1");
        assert!(serde_json::from_str::<Doc>(r#"{"labels": {"a": "1", "a": "1"}}"#).is_err());
    }
}
