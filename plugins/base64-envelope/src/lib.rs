//! `base64-envelope`: wraps the body in a JSON object, as base64.
//!
//! Invariants: any bytes survive; the same attempt gives the same envelope everywhere; two attempts of a job have different
//! request ids. Headers that describe the body which was wrapped do not go out with the envelope.
//!
//! It fails only on a config that does not parse.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_policy_sdk::{Attempt, Encode, Failure, Header, Plugin, Request, export, mix64};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Room for what an envelope usually has besides the payload, in bytes.
const REST: usize = 256;

/// The plugin.
#[derive(Debug)]
pub struct Base64Envelope;

/// The name of a field of the envelope, or `false` to leave it out. Not `null`, which a merge patch takes for "the default".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName(Option<String>);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Self(Some(name))),
            Value::Bool(false) => Ok(Self(None)),
            other => Err(serde::de::Error::custom(format_args!(
                "{other} is not a field name: write a text, or `false` to leave the field out"
            ))),
        }
    }
}

/// What the fields are called.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// The body, as base64; null if it is empty.
    pub payload: FieldName,
    /// The attempt's number, from 1.
    pub tries: FieldName,
    /// 12 hex digits that differ from attempt to attempt.
    pub req_id: FieldName,
}

impl Default for Fields {
    fn default() -> Self {
        let named = |name: &str| FieldName(Some(name.to_owned()));
        Self { payload: named("payload"), tries: named("tries"), req_id: named("req_id") }
    }
}

/// See the README for the meaning and the defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the fields are called.
    pub fields: Fields,
    /// Further fields, the same in every envelope.
    pub extra: Map<String, Value>,
    /// The envelope's Content-Type; none sends none.
    pub content_type: Option<String>,
}

export!(Base64Envelope: encode);

impl Plugin for Base64Envelope {
    type Config = Config;

    const NAME: &'static str = "base64-envelope";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Wraps the payload as base64 in a JSON object that also tells the number of the try.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn check(config: &Config) -> Result<(), String> {
        let fields = [&config.fields.payload, &config.fields.tries, &config.fields.req_id];
        let mut names: Vec<&str> = fields
            .into_iter()
            .filter_map(|field| field.0.as_deref())
            .chain(config.extra.keys().map(String::as_str))
            .collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("Two fields of the envelope are called `{}`.", twice[0]));
        }
        match &config.content_type {
            Some(text) if text.is_empty() || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
                Err("`content_type` must be printable ASCII text; leave it out to send none.".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Encode for Base64Envelope {
    fn encode(attempt: &Attempt, config: &Config, mut request: Request) -> Result<Request, Failure> {
        let (tries, id) = (attempt.number.into(), request_id(attempt).into());
        request.body = envelope(&members(config, &request.body, &tries, &id))
            .map_err(|error| Failure::policy("not-json", error.to_string()))?;
        request.headers.retain(|header| !describes_body(&header.name));
        if let Some(value) = &config.content_type {
            request.headers.push(Header { name: "content-type".to_owned(), value: value.clone().into_bytes() });
        }
        Ok(request)
    }
}

/// The value of a member of the envelope.
#[derive(Clone, Copy)]
enum Member<'a> {
    Base64(&'a [u8]),
    Json(&'a Value),
}

/// What the envelope consists of, sorted by name.
fn members<'a>(config: &'a Config, body: &'a [u8], tries: &'a Value, id: &'a Value) -> Vec<(&'a str, Member<'a>)> {
    let payload = if body.is_empty() { Member::Json(&Value::Null) } else { Member::Base64(body) };
    let names = &config.fields;
    let fields = [(&names.payload, payload), (&names.tries, Member::Json(tries)), (&names.req_id, Member::Json(id))];
    let mut members = Vec::with_capacity(fields.len() + config.extra.len());
    members.extend(fields.into_iter().filter_map(|(field, value)| Some((field.0.as_deref()?, value))));
    members.extend(config.extra.iter().map(|(name, value)| (name.as_str(), Member::Json(value))));
    members.sort_unstable_by_key(|(name, _)| *name);
    members
}

/// The members as a JSON object. A body is written where it stays, since base64 needs neither escapes nor a look for what would.
fn envelope(members: &[(&str, Member<'_>)]) -> serde_json::Result<Vec<u8>> {
    let of_body = members.iter().map(|(_, value)| if let Member::Base64(body) = value { base64_len(body) } else { 0 });
    let mut text = Vec::with_capacity(of_body.sum::<usize>() + REST);
    for (name, value) in members {
        text.push(if text.is_empty() { b'{' } else { b',' });
        serde_json::to_writer(&mut text, name)?;
        text.push(b':');
        match value {
            Member::Base64(body) => {
                text.push(b'"');
                let start = text.len();
                text.resize(start + base64_len(body), 0);
                // There is just enough room, so it cannot fail.
                _ = STANDARD.encode_slice(body, &mut text[start..]);
                text.push(b'"');
            }
            Member::Json(value) => serde_json::to_writer(&mut text, value)?,
        }
    }
    text.extend_from_slice(if text.is_empty() { b"{}" } else { b"}" });
    Ok(text)
}

fn base64_len(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(3) * 4
}

/// Whether the header says something of the body that has just been wrapped (RFC 9110, section 8).
fn describes_body(name: &str) -> bool {
    ["content-type", "content-encoding", "content-length"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// 48 bits as hex, from the job, the number of the attempt and its seed.
fn request_id(attempt: &Attempt) -> String {
    const BITS: u32 = 48;
    let packed = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let job = attempt.job_id.as_bytes().chunks(8).fold(0, |state, bytes| mix64(state ^ packed(bytes)));
    let word = mix64(job ^ mix64(u64::from(attempt.seed) << 32 | u64::from(attempt.number)));
    format!("{:012x}", word >> (u64::BITS - BITS))
}

#[cfg(test)]
mod tests;
