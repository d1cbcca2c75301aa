//! Signs requests as Stripe signs its webhooks: a header with the time and an HMAC-SHA256 of time and body, one for each key
//! (<https://docs.stripe.com/webhooks#verify-manually>). The secret is the whole text that a receiver is given, `whsec_` included.

use carillon_policy_sdk::{Attempt, Failure, Header, Key, Mac, Plugin, Request, Sign, Signed, export};
use serde::Deserialize;

struct Stripe;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The name of the header.
    #[serde(default = "default_header")]
    header: String,
}

fn default_header() -> String {
    "Stripe-Signature".to_owned()
}

export!(Stripe: sign);

impl Plugin for Stripe {
    type Config = Config;
    const NAME: &'static str = "sign-stripe";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Signs requests as Stripe signs its webhooks.";
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object", "additionalProperties": false,
        "properties": {"header": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"}}
    }"#;
}

impl Sign for Stripe {
    fn sign(attempt: &Attempt, config: &Config, request: Request, keys: &[&dyn Key]) -> Result<Signed, Failure> {
        if keys.is_empty() {
            return Err(Failure::config("no-key", "The binding names no key to sign with; add `keys` to it."));
        }
        let seconds = attempt.now_ms / 1_000;
        let mut content = format!("{seconds}.").into_bytes();
        content.extend_from_slice(&request.body);
        let mut value = format!("t={seconds}");
        for key in keys {
            value.push_str(",v1=");
            value.push_str(&hex::encode(key.mac(Mac::HmacSha256, &content)?));
        }
        Ok(Signed { headers: vec![Header { name: config.header.clone(), value: value.into_bytes() }], body: None })
    }
}

#[cfg(test)]
mod tests {
    use carillon_policy_sdk::testing::{StaticKey, attempt, config, request};
    use carillon_policy_sdk::{Blame, Key, Sign as _};

    use super::Stripe;

    #[test]
    fn each_key_makes_a_signature_of_time_and_body() {
        let (new, old) = (StaticKey::new("k/2", "new"), StaticKey::new("k/1", "old"));
        let keys: [&dyn Key; 2] = [&new, &old];
        let config = config::<Stripe>("{}").expect("a good config");
        let signed = Stripe::sign(&attempt(1, 0), &config, request("{}"), &keys).expect("a signature");
        let value = String::from_utf8(signed.headers[0].value.clone()).expect("ASCII");
        let parts: Vec<&str> = value.split(',').collect();
        assert_eq!((parts[0], parts.len()), ("t=1000", 3));
        assert_ne!(parts[1], parts[2]);
        let failure = Stripe::sign(&attempt(1, 0), &config, request("{}"), &[]).expect_err("no signature");
        assert_eq!(failure.blame, Blame::Config);
    }
}
