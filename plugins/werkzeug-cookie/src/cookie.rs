//! Werkzeug's SecureCookie: `base64(mac) "?" item "&" item …`, item = `quote_plus(key) "=" base64(json(value))`.
//!
//! The MAC (HMAC-SHA1) is over `"|" item` for each item in wire order, which is the order of the unquoted keys' code points.
//! Source of the format: `SecureCookie.serialize` of the Python package secure-cookie, before that `werkzeug.contrib`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_policy_sdk::{Failure, Key, Mac};
use serde_json::value::RawValue;

use crate::json::{self, Style};
use crate::{Config, JsonStyle, members, payload_failure};

/// The item that a reader takes for the expiry: Unix seconds.
const EXPIRES: &str = "_expires";

/// Bytes of an HMAC-SHA1 in base64.
const MAC_LEN: usize = 28;

/// Signs a JSON object.
pub(crate) fn sign(body: &[u8], config: &Config, now_s: u64, key: &dyn Key) -> Result<Vec<u8>, Failure> {
    let style = match config.json_style() {
        JsonStyle::Python => Style::PYTHON,
        JsonStyle::Compact => Style::SECURE_COOKIE,
    };
    let mut members = members(body)?;
    let expires = config.expires.and_then(|after| seconds(now_s.saturating_add(after.0 / 1_000)));
    if let Some(expires) = &expires {
        members.retain(|(name, _)| name != EXPIRES);
        members.push((Cow::Borrowed(EXPIRES), expires));
    }
    // UTF-8 sorts as code points do.
    members.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    // The whole text grows in one place, and what is covered becomes what is sent: a payload may be large, a guest's memory is small.
    let mut text = Vec::with_capacity(MAC_LEN + base64_len(body.len()));
    text.resize(MAC_LEN, 0);
    let (mut json, mut bars) = (String::new(), Vec::with_capacity(members.len()));
    for (name, value) in members {
        bars.push(text.len());
        text.push(b'|');
        push_quoted(&mut text, &name, config.quote_tilde.unwrap_or(false));
        text.push(b'=');
        json.clear();
        json::render(&mut json, value, style).map_err(payload_failure)?;
        push_base64(&mut text, json.as_bytes());
    }
    let mac = STANDARD.encode(key.mac(Mac::HmacSha1, &text[MAC_LEN..])?);
    if mac.len() != MAC_LEN {
        return Err(Failure::policy("bad-mac", "The host's HMAC-SHA1 does not have 20 bytes."));
    }
    text[..MAC_LEN].copy_from_slice(mac.as_bytes());
    bars.into_iter().for_each(|at| text[at] = b'&');
    match text.get_mut(MAC_LEN) {
        Some(first) => *first = b'?',
        None => text.push(b'?'),
    }
    Ok(text)
}

/// A number as JSON.
fn seconds(number: u64) -> Option<Box<RawValue>> {
    RawValue::from_string(number.to_string()).ok()
}

fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let at = out.len();
    out.resize(at + base64_len(bytes.len()), 0);
    // There is just enough room, so it cannot fail.
    _ = STANDARD.encode_slice(bytes, &mut out[at..]);
}

/// Python's `urllib.parse.quote_plus`, with or without the tilde that RFC 3986 and Python 3.7 declared harmless.
fn push_quoted(out: &mut Vec<u8>, text: &str, quote_tilde: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b' ' => out.push(b'+'),
            b'~' if quote_tilde => out.extend_from_slice(b"%7E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ => out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]),
        }
    }
}
