//! Werkzeug's SecureCookie: `base64(mac) "?" item "&" item …`, item = `quote_plus(key) "=" base64(json(value))`.
//!
//! The MAC (HMAC-SHA1) is over `"|" item` for each item in wire order, which is the order of the unquoted keys' code points.
//! Source of the format: `SecureCookie.serialize` of the Python package secure-cookie, before that `werkzeug.contrib`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_policy_sdk::{Failure, Key, Mac};

use crate::json::{self, Style};
use crate::{Config, JsonStyle, members, payload_failure};

/// The item that a reader takes for the expiry: Unix seconds.
const EXPIRES: &str = "_expires";

/// Signs a JSON object.
pub(crate) fn sign(body: &[u8], config: &Config, now_s: u64, key: &dyn Key) -> Result<String, Failure> {
    let style = match config.json_style() {
        JsonStyle::Python => Style::PYTHON,
        JsonStyle::Compact => Style::SECURE_COOKIE,
    };
    // UTF-8 sorts as code points do.
    let mut values = BTreeMap::new();
    for (name, value) in members(body)? {
        values.insert(name, json::render(value, style).map_err(payload_failure)?);
    }
    if let Some(expires) = config.expires {
        values.insert(EXPIRES.to_owned(), now_s.saturating_add(expires.0 / 1_000).to_string());
    }
    let quote_tilde = config.quote_tilde.unwrap_or(false);
    let items: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{}={}", quote_plus(name, quote_tilde), STANDARD.encode(value)))
        .collect();
    let covered: String = items.iter().flat_map(|item| ["|", item]).collect();
    let mac = key.mac(Mac::HmacSha1, covered.as_bytes())?;
    Ok(format!("{}?{}", STANDARD.encode(mac), items.join("&")))
}

/// Python's `urllib.parse.quote_plus`, with or without the tilde that RFC 3986 and Python 3.7 declared harmless.
fn quote_plus(text: &str, quote_tilde: bool) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut quoted, byte| {
        match byte {
            b' ' => quoted.push('+'),
            b'~' if quote_tilde => quoted.push_str("%7E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => quoted.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => _ = write!(quoted, "%{byte:02X}"),
        }
        quoted
    })
}
