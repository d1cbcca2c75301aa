//! Writes JSON as Python does.
//!
//! Invariants: whole numbers keep all their digits; of members with one name the last counts, in the place of the first, as in
//! a Python dict. Values are kept as text until they are written, so that a number is never forced into a float.
//!
//! It fails on what is not JSON and on deep nesting, since the writer calls itself for each level and a guest's stack is small.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::python::{is_plain_literal, push_number, push_text};

mod python;

/// How deeply a payload may be nested.
pub(crate) const MAX_DEPTH: usize = 64;

/// The members of an object in their order, with their values as JSON text.
pub(crate) type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Why a payload cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// The end of a sentence: why it is no JSON object.
    NotJson(String),
    /// It is nested more than [`MAX_DEPTH`] levels deep.
    TooDeep,
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson(error.to_string())
    }
}

/// The choices that Python's `json.dumps` leaves to its caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Between members.
    comma: &'static str,
    /// Between a member's name and its value.
    colon: &'static str,
    /// `ensure_ascii`
    ascii: bool,
    /// `sort_keys`
    sorted: bool,
}

impl Style {
    /// `json.dumps(value)`.
    pub(crate) const PYTHON: Self = Self { comma: ", ", colon: ": ", ascii: true, sorted: false };
    /// `secure_cookie.securecookie.SecureCookie.serialization_method`.
    pub(crate) const SECURE_COOKIE: Self = Self { comma: ",", colon: ":", ascii: true, sorted: true };
    /// `itsdangerous._json._CompactJSON`.
    pub(crate) const ITSDANGEROUS: Self = Self { comma: ",", colon: ":", ascii: false, sorted: false };
}

/// The members of a JSON object, each name once.
pub(crate) fn members(json: &str) -> Result<Members<'_>, JsonError> {
    let object: Object<'_> = serde_json::from_str(json)?;
    Ok(object.0)
}

/// Writes a value behind what is there.
pub(crate) fn render(out: &mut String, value: &RawValue, style: Style) -> Result<(), JsonError> {
    out.reserve(value.get().len());
    push_value(out, value, style, MAX_DEPTH)
}

/// Writes an object.
pub(crate) fn render_object(members: Members<'_>, style: Style) -> Result<String, JsonError> {
    let mut text = String::new();
    push_object(&mut text, members, style, MAX_DEPTH)?;
    Ok(text)
}

fn push_value(out: &mut String, value: &RawValue, style: Style, depth: usize) -> Result<(), JsonError> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'{') => push_object(out, members(json)?, style, depth)?,
        Some(b'[') => push_array(out, elements(json)?, style, depth)?,
        Some(b'"') if is_plain_literal(json) => out.push_str(json),
        Some(b'"') => push_text(out, &text(json)?, style.ascii),
        Some(b'-' | b'0'..=b'9') => push_number(out, json),
        _ => out.push_str(json),
    }
    Ok(())
}

fn push_object(out: &mut String, mut members: Members<'_>, style: Style, depth: usize) -> Result<(), JsonError> {
    let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
    if style.sorted {
        members.sort_by(|left, right| left.0.cmp(&right.0));
    }
    out.push('{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push_str(style.comma);
        }
        push_text(out, &name, style.ascii);
        out.push_str(style.colon);
        push_value(out, value, style, depth)?;
    }
    out.push('}');
    Ok(())
}

fn push_array(out: &mut String, elements: Vec<&RawValue>, style: Style, depth: usize) -> Result<(), JsonError> {
    let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
    out.push('[');
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            out.push_str(style.comma);
        }
        push_value(out, element, style, depth)?;
    }
    out.push(']');
    Ok(())
}

/// Not inlined, like [`text`]: the parser's state must not lie on the stack while the writer calls itself.
#[inline(never)]
fn elements(json: &str) -> Result<Vec<&RawValue>, JsonError> {
    Ok(serde_json::from_str(json)?)
}

#[inline(never)]
fn text(json: &str) -> Result<Cow<'_, str>, JsonError> {
    let Text(text) = serde_json::from_str(json)?;
    Ok(text)
}

/// A text as it stands in the JSON, unless something in it is escaped: a large one is not copied.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Object<'a>(Members<'a>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut members: Members<'de> = Vec::new();
        while let Some((Text(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Object(without_duplicates(members)))
    }
}

/// Of members with one name keeps the last value in the place of the first.
fn without_duplicates(mut members: Members<'_>) -> Members<'_> {
    let mut by_name: Vec<usize> = (0..members.len()).collect();
    by_name.sort_by(|left, right| members[*left].0.cmp(&members[*right].0));
    let mut kept = vec![true; members.len()];
    for same in by_name
        .chunk_by(|left, right| members[*left].0 == members[*right].0)
        .filter(|same| same.len() > 1)
        .map(<[usize]>::to_vec)
        .collect::<Vec<_>>()
    {
        members[same[0]].1 = members[same[same.len() - 1]].1;
        for later in &same[1..] {
            kept[*later] = false;
        }
    }
    let mut kept = kept.into_iter();
    members.retain(|_| kept.next().unwrap_or(true));
    members
}
