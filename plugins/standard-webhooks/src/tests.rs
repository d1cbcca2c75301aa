//! The specification's layout, several keys, failures. That the official library accepts it is tested end to end.

use carillon_policy_sdk::testing::{self, StaticKey, attempt, request};
use carillon_policy_sdk::{
    Attempt, Blame, Failure, Key, KeyError, Mac, Plugin as _, Sign as _, SignatureAlgorithm, Signed,
};
use serde_json::Value;

use super::StandardWebhooks;

/// A key that signs with its own name, or has no more operations.
struct Signing(&'static str, bool);

impl Key for Signing {
    fn id(&self) -> String {
        self.0.to_owned()
    }

    fn mac(&self, _: Mac, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(if self.1 { KeyError::WrongKind } else { KeyError::TooManyOperations })
    }

    fn sign(&self, _: SignatureAlgorithm, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.0.as_bytes().to_vec())
    }
}

fn sign(config: &str, keys: &[&dyn Key]) -> Result<Signed, Failure> {
    let config = testing::config::<StandardWebhooks>(config).expect("a good config");
    let attempt =
        Attempt { now_ms: 1_674_087_231_999, job_id: "2KWPBgLlAfxdpx2AI54pPJ85f4W".to_owned(), ..attempt(3, 0) };
    StandardWebhooks::sign(&attempt, &config, request(r#"{"type": "contact.created"}"#), keys)
}

fn headers(signed: &Signed) -> Vec<(&str, &str)> {
    let text = |value| std::str::from_utf8(value).expect("ASCII");
    signed.headers.iter().map(|header| (header.name.as_str(), text(&header.value))).collect()
}

/// The signature was made with the official Python library, `standardwebhooks` 1.1.0.
#[test]
fn a_request_is_signed_as_the_official_library_signs_it() {
    let signed =
        sign(r#"{"id_prefix": "msg_"}"#, &[&StaticKey::new("k/1", *b"a secret of 24 bytes    ")]).expect("signed");
    assert_eq!(
        headers(&signed),
        [
            ("webhook-id", "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"),
            ("webhook-timestamp", "1674087231"),
            ("webhook-signature", "v1,WvOBEh1GktJxSXtSt0mLwRjCq8n2cxwlZZifKp+u8p4="),
        ]
    );
    assert_eq!(signed.body, None);
}

#[test]
fn each_key_makes_the_signature_of_its_kind_in_the_order_of_the_keys() {
    let keys: [&dyn Key; 3] = [&Signing("ed", true), &StaticKey::new("k/2", "new"), &StaticKey::new("k/1", "old")];
    let all = sign(r#"{"header_prefix": "svix-"}"#, &keys).expect("signed");
    let names: Vec<_> = headers(&all).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["svix-id", "svix-timestamp", "svix-signature"]);
    let alone = |key| headers(&sign("{}", &[key]).expect("signed"))[2].1.to_owned();
    let expected = [alone(keys[0]), alone(keys[1]), alone(keys[2])];
    assert_eq!(expected[0], "v1a,ZWQ=");
    assert_ne!(expected[1], expected[2]);
    assert_eq!(headers(&all)[2].1, expected.join(" "));
}

#[test]
fn without_a_key_or_with_too_many_the_config_is_to_blame() {
    for (keys, code) in [(&[][..], "no-key"), (&[&Signing("ed", false) as &dyn Key][..], "too-many-keys")] {
        let failure = sign("{}", keys).expect_err("no signature");
        assert_eq!((failure.blame, failure.code.as_str()), (Blame::Config, code));
    }
}

#[test]
fn the_examples_and_the_schema_hold() {
    let examples: Vec<&str> = testing::json_blocks(include_str!("../README.md")).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        assert!(testing::config::<StandardWebhooks>(example).is_ok(), "{example}");
    }
    assert!(testing::config::<StandardWebhooks>(r#"{"secret": "x"}"#).is_err());
    let schema: Value = serde_json::from_str(StandardWebhooks::CONFIG_SCHEMA).expect("JSON");
    assert_eq!(schema["additionalProperties"], false);
}
