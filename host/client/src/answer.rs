//! JSON that is passed on as it was written: documents for commands, and responses of the server.
//!
//! A value that is parsed and serialized again is another text: large numbers are rounded, members are sorted, and repeated ones are lost. So
//! documents keep the text of each member, and responses keep their text beside the value that commands read.

use std::fmt;
use std::ops::Deref;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// Number of layers that are indented further than the one around them. Deeper ones are not indented any further.
const MAX_INDENTED_LAYERS: usize = 32;

/// Response of the server. It derefs to its value; it is printed as its text.
#[derive(Clone, Debug)]
pub struct Answer {
    text: Box<RawValue>,
    value: Value,
}

impl Deref for Answer {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

impl Answer {
    /// Returns the text of the value at a JSON pointer.
    pub fn at(&self, pointer: &str) -> Option<Box<RawValue>> {
        at(&self.text, pointer)
    }

    /// Returns the list at a JSON pointer; an empty one if there is none.
    pub fn list(&self, pointer: &str) -> Vec<Self> {
        let list = self.at(pointer).and_then(|list| serde_json::from_str(list.get()).ok());
        list.unwrap_or_default()
    }
}

impl TryFrom<Value> for Answer {
    type Error = serde_json::Error;

    fn try_from(value: Value) -> Result<Self, serde_json::Error> {
        Ok(Self { text: to_raw_value(&value)?, value })
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        // A payload may be nested deeper than a value can be. It can still be printed.
        let value = serde_json::from_str(text.get()).unwrap_or_default();
        Ok(Self { text, value })
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

/// Members of a JSON object in their order, each with its text. Every name occurs once.
#[derive(Clone, Debug, Default)]
pub struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    /// Returns whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the text of a member's value.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Sets a member; a new one is appended.
    pub fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Sets a member to a value that serializes to JSON.
    pub fn put(&mut self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        self.set(name, to_raw_value(value)?);
        Ok(())
    }

    /// Moves the members of these names to the front.
    #[must_use]
    pub fn beginning_with(mut self, names: &[&str]) -> Self {
        self.0.sort_by_key(|(name, _)| names.iter().position(|first| first == name).unwrap_or(names.len()));
        self
    }

    /// Returns each member with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }
}

impl FromIterator<(String, Box<RawValue>)> for Members {
    fn from_iter<I: IntoIterator<Item = (String, Box<RawValue>)>>(members: I) -> Self {
        let mut all = Self::default();
        members.into_iter().for_each(|(name, value)| all.set(&name, value));
        all
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::<(String, Box<RawValue>)>::new();
                while let Some((name, value)) = map.next_entry::<String, _>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom(format!("the member `{}` is there twice", name.escape_debug())));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Returns the text of the value at a JSON pointer.
pub fn at(text: &RawValue, pointer: &str) -> Option<Box<RawValue>> {
    let Some(path) = pointer.strip_prefix('/') else { return Some(text.to_owned()) };
    let end = path.find('/').unwrap_or(path.len());
    let (token, rest) = path.split_at(end);
    if let Ok(members) = serde_json::from_str::<Members>(text.get()) {
        return at(members.get(&token.replace("~1", "/").replace("~0", "~"))?, rest);
    }
    let items: Vec<Box<RawValue>> = serde_json::from_str(text.get()).ok()?;
    at(items.get(token.parse::<usize>().ok()?)?, rest)
}

/// Formats JSON with one member or item per line. Only the space between its tokens changes.
#[must_use]
pub fn indented(json: &str) -> String {
    let mut writer = Indented { text: String::with_capacity(json.len() * 2), depth: 0 };
    let mut rest = json.trim_start();
    while let Some(token) = rest.chars().next() {
        let length = if token == '"' { string_len(rest) } else { token.len_utf8() };
        let (text, behind) = rest.split_at(length);
        rest = behind.trim_start();
        match token {
            '{' | '[' if rest.starts_with(['}', ']']) => {
                writer.text.push_str(text);
                writer.text.push_str(&rest[..1]);
                rest = rest[1..].trim_start();
            }
            '{' | '[' => writer.open(text),
            '}' | ']' => writer.close(text),
            ',' => writer.next(text),
            ':' => writer.text.push_str(": "),
            _ => writer.text.push_str(text),
        }
    }
    writer.text
}

/// Returns the length of the string at the start of the text, with its quotation marks.
fn string_len(json: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in json.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    json.len()
}

struct Indented {
    text: String,
    depth: usize,
}

impl Indented {
    fn open(&mut self, bracket: &str) {
        self.text.push_str(bracket);
        self.depth += 1;
        self.line();
    }

    fn close(&mut self, bracket: &str) {
        self.depth = self.depth.saturating_sub(1);
        self.line();
        self.text.push_str(bracket);
    }

    fn next(&mut self, comma: &str) {
        self.text.push_str(comma);
        self.line();
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n("  ", self.depth.min(MAX_INDENTED_LAYERS)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON that a parsed value would not preserve.
    const ODD: &str = r#"{"n":12345678901234567890123,"b":1,"a":1.10,"e":1e400,"s":"\u00e9\ud800 , : {","deep":{"d":1,"d":2},"none":[],"l":[1,{}]}"#;

    #[test]
    fn an_answer_is_printed_as_it_came() {
        let answer: Answer = serde_json::from_str(ODD).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), ODD);
        let written = indented(ODD);
        let without_space: String = written.lines().map(|line| line.trim_start().replacen("\": ", "\":", 1)).collect();
        assert_eq!(without_space, ODD);
        assert!(written.starts_with("{\n  \"n\": 12345678901234567890123,\n  \"b\": 1,"), "{written}");
        assert!(written.ends_with("  \"none\": [],\n  \"l\": [\n    1,\n    {}\n  ]\n}"), "{written}");
    }

    #[test]
    fn parts_of_an_answer_keep_their_text() {
        let answer: Answer = serde_json::from_str(ODD).unwrap();
        assert_eq!(answer.at("/a").unwrap().get(), "1.10");
        assert_eq!(answer.at("/l/1").unwrap().get(), "{}");
        assert_eq!(answer.list("/l").len(), 2);
        assert!(answer.at("/l/2").is_none() && answer.at("/x").is_none() && answer.list("/x").is_empty());
    }

    #[test]
    fn an_answer_may_be_deeper_than_a_value() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let answer: Answer = serde_json::from_str(&deep).unwrap();
        assert!(answer.is_null());
        assert!(indented(&serde_json::to_string(&answer).unwrap()).len() < 2_000_000);
    }

    #[test]
    fn members_keep_order_and_text_and_are_there_once() {
        let mut members: Members = serde_json::from_str(r#"{"b": 1.10, "a": {"x":  1}}"#).unwrap();
        members.put("c", &"new").unwrap();
        members.set("b", serde_json::from_str("2.0").unwrap());
        assert_eq!(serde_json::to_string(&members).unwrap(), r#"{"b":2.0,"a":{"x":  1},"c":"new"}"#);
        let sorted = members.beginning_with(&["c", "a"]);
        assert_eq!(sorted.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["c", "a", "b"]);
        let error = serde_json::from_str::<Members>(r#"{"d": 1, "d": 2}"#).unwrap_err().to_string();
        assert!(error.contains("the member `d` is there twice"), "{error}");
        assert!(serde_json::from_str::<Members>("[1]").is_err());
    }
}
