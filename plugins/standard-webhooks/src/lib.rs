//! `standard-webhooks`: signs requests as Standard Webhooks 1.0 says
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! Invariants: each key of the binding makes one signature, newest first; the id is the job's, so that a receiver recognizes a
//! repeated attempt; neither id nor timestamp holds a `.`, so nobody can move a byte from one signed field into the next.
//!
//! It fails with the config to blame if no key is bound, or more of them than a call may use.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_policy_sdk::{
    Attempt, Failure, Header, Key, KeyError, Mac, Plugin, Request, Sign, SignatureAlgorithm, Signed, export,
};
use serde::Deserialize;

/// The plugin.
#[derive(Debug)]
pub struct StandardWebhooks;

/// See the README for the meaning and the defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the id begins with.
    pub id_prefix: String,
    /// What the names of the headers begin with.
    pub header_prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { id_prefix: String::new(), header_prefix: "webhook-".to_owned() }
    }
}

export!(StandardWebhooks: sign);

impl Plugin for StandardWebhooks {
    type Config = Config;

    const NAME: &'static str = "standard-webhooks";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "Signs requests as the Standard Webhooks specification says, with HMAC-SHA256 or Ed25519.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
}

impl Sign for StandardWebhooks {
    fn sign(attempt: &Attempt, config: &Config, request: Request, keys: &[&dyn Key]) -> Result<Signed, Failure> {
        if keys.is_empty() {
            return Err(Failure::config("no-key", "The binding names no key to sign with; add `keys` to it."));
        }
        let id = format!("{}{}", config.id_prefix, attempt.job_id);
        let timestamp = (attempt.now_ms / 1_000).to_string();
        let mut content = format!("{id}.{timestamp}.").into_bytes();
        content.extend_from_slice(&request.body);
        let signatures = keys.iter().map(|key| signature(*key, &content)).collect::<Result<Vec<_>, _>>();
        let signatures = signatures.map_err(|error| match error {
            KeyError::TooManyOperations => {
                Failure::config("too-many-keys", "The binding's keys make more signatures than one call may make.")
            }
            KeyError::WrongKind => error.into(),
        })?;
        let header = |name: &str, value: String| Header {
            name: format!("{}{name}", config.header_prefix),
            value: value.into_bytes(),
        };
        let headers = vec![header("id", id), header("timestamp", timestamp), header("signature", signatures.join(" "))];
        Ok(Signed { headers, body: None })
    }
}

/// The signature that this key can make. Which one that is, it says only when it is asked.
fn signature(key: &dyn Key, content: &[u8]) -> Result<String, KeyError> {
    match key.mac(Mac::HmacSha256, content) {
        Ok(mac) => Ok(format!("v1,{}", STANDARD.encode(mac))),
        Err(KeyError::WrongKind) => {
            let signature = key.sign(SignatureAlgorithm::Ed25519, content)?;
            Ok(format!("v1a,{}", STANDARD.encode(signature)))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
