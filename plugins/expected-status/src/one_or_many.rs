//! A list in a config that may be written without its brackets if it has one member.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// One value or a list of values. Unlike serde's untagged enums it keeps what the value itself says is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: Display> OneOrMany<T> {
    /// `a`, `a or b`, `a, b or c`.
    pub(crate) fn listed(&self) -> String {
        let texts: Vec<String> = self.0.iter().map(T::to_string).collect();
        match texts.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => "nothing".to_owned(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

fn one<'de, T: Deserialize<'de>, V: IntoDeserializer<'de, E>, E: Error>(value: V) -> Result<OneOrMany<T>, E> {
    T::deserialize(value.into_deserializer()).map(|one| OneOrMany(vec![one]))
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("one value or a list of values")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<OneOrMany<T>, E> {
        one(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<OneOrMany<T>, E> {
        one(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<OneOrMany<T>, E> {
        one(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<OneOrMany<T>, E> {
        one(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<OneOrMany<T>, E> {
        one(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
    }
}
