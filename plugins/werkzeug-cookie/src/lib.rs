//! `werkzeug-cookie`: signs a JSON object as a Werkzeug SecureCookie or as an itsdangerous (Flask session) text.
//!
//! Invariants: the bytes are those that the Python libraries write for the same object, except for compressed sessions, which
//! only read the same; the newest key signs; the secret itself never enters the plugin.
//!
//! It fails with the job to blame if the body is no JSON object, and with the config to blame if no usable key is bound.

mod config;
mod cookie;
mod json;
mod session;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_policy_sdk::{Attempt, Failure, Header, Key, Plugin, Request, Sign, Signed, export};

pub use config::{Config, Format, HeaderPlacement, JsonStyle, Placement};

/// The plugin.
#[derive(Debug)]
pub struct WerkzeugCookie;

export!(WerkzeugCookie: sign);

impl Plugin for WerkzeugCookie {
    type Config = Config;

    const NAME: &'static str = "werkzeug-cookie";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "Signs a JSON payload as a Werkzeug SecureCookie or a Flask session, as Doppler's clients expect it.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn check(config: &Config) -> Result<(), String> {
        config.check()
    }
}

impl Sign for WerkzeugCookie {
    fn sign(attempt: &Attempt, config: &Config, request: Request, keys: &[&dyn Key]) -> Result<Signed, Failure> {
        let Some(key) = keys.first() else {
            return Err(Failure::config("no-key", "The binding names no key to sign with; add `keys` to it."));
        };
        let now_s = attempt.now_ms / 1_000;
        let text = match config.format {
            Format::SecureCookie => cookie::sign(&request.body, config, now_s, *key)?,
            Format::FlaskSession => session::sign(&request.body, config, now_s, *key)?,
        };
        Ok(match &config.placement {
            Placement::Body => Signed { headers: content_type(&request), body: Some(text) },
            Placement::Header(place) => Signed { headers: vec![header(place, &text, &request)], body: None },
        })
    }
}

/// The signed text is no JSON any more: a request that called its body so must not go on doing it.
fn content_type(request: &Request) -> Vec<Header> {
    let name = "content-type";
    let labelled = request.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    labelled
        .then(|| Header { name: name.to_owned(), value: b"text/plain; charset=utf-8".to_vec() })
        .into_iter()
        .collect()
}

/// The header with the signed text. A `Cookie` joins the cookies that the request has (RFC 6265, section 4.2.1).
fn header(place: &HeaderPlacement, text: &[u8], request: &Request) -> Header {
    let mut value = Vec::new();
    if place.header.eq_ignore_ascii_case("cookie") {
        for present in request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("cookie")) {
            value.extend_from_slice(&present.value);
            value.extend_from_slice(b"; ");
        }
    }
    value.extend_from_slice(place.prefix.as_bytes());
    value.extend_from_slice(text);
    Header { name: place.header.clone(), value }
}

/// The members of a payload, or why it has none.
fn members(body: &[u8]) -> Result<json::Members<'_>, Failure> {
    std::str::from_utf8(body)
        .map_err(|_| json::JsonError::NotJson("it is not UTF-8".to_owned()))
        .and_then(json::members)
        .map_err(payload_failure)
}

fn payload_failure(error: json::JsonError) -> Failure {
    match error {
        json::JsonError::NotJson(reason) => {
            Failure::job("payload-not-object", format!("The payload must be a JSON object: {reason}."))
        }
        json::JsonError::TooDeep => Failure::job(
            "payload-too-deep",
            format!("The payload is nested more than {} levels deep.", json::MAX_DEPTH),
        ),
    }
}

/// URL-safe base64 without padding, as itsdangerous writes it.
fn url_base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests;
