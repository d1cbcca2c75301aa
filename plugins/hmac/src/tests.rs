//! Vendors' published examples, several keys, templates, failures. That official libraries accept it is tested end to end.

use carillon_policy_sdk::testing::{self, StaticKey, attempt, request};
use carillon_policy_sdk::{Attempt, Blame, Failure, Header, Key, Plugin as _, Request, Sign as _, Signed};
use serde_json::{Value, json};

use super::Hmac;

/// A request of a vendor, and the signature that the vendor's documentation gives for it.
struct Example {
    preset: &'static str,
    secret: &'static str,
    url: &'static str,
    content_type: &'static str,
    at: u64,
    body: &'static str,
    header: &'static str,
    value: &'static str,
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

/// From the pages that `preset.rs` names, and Square's from its libraries; Shopify publishes none: this one was made with OpenSSL 3.0.
const PUBLISHED: [Example; 5] = [
    Example {
        preset: "github",
        secret: "It's a Secret to Everybody",
        url: "https://example.com/",
        content_type: JSON,
        at: 0,
        body: "Hello, World!",
        header: "X-Hub-Signature-256",
        value: "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    },
    Example {
        preset: "slack",
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        url: "https://example.com/",
        content_type: FORM,
        at: 1_531_420_618,
        body: "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar\
               &user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com\
               %2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
               &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        header: "X-Slack-Signature",
        value: "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    },
    Example {
        preset: "twilio",
        secret: "12345",
        url: "https://mycompany.com/myapp.php?foo=1&bar=2",
        content_type: FORM,
        at: 0,
        body: "To=%2B18005551212&CallSid=CA1234567890ABCDE&Digits=1234&From=%2B12349013030&Caller=%2B12349013030",
        header: "X-Twilio-Signature",
        value: "0/KCTR6DLpKmkAf8muzZqo1nDgQ=",
    },
    Example {
        preset: "square",
        secret: "asdf1234",
        url: "https://example.com/webhook",
        content_type: JSON,
        at: 0,
        body: r#"{"hello":"world"}"#,
        header: "x-square-hmacsha256-signature",
        value: "2kRE5qRU2tR+tBGlDwMEw2avJ7QM4ikPYD/PJ3bd9Og=",
    },
    Example {
        preset: "shopify",
        secret: "hush",
        url: "https://example.com/",
        content_type: JSON,
        at: 0,
        body: r#"{"id":820982911946154508}"#,
        header: "X-Shopify-Hmac-Sha256",
        value: "qBvrsZF7RfB1iS6BX6IHqJTp5L911P7intnPeTPsH0I=",
    },
];

fn sign_request(config: &Value, at: u64, request: Request, keys: &[&dyn Key]) -> Result<Signed, Failure> {
    let config = testing::config::<Hmac>(&config.to_string()).expect("a good config");
    let attempt = Attempt { now_ms: at * 1_000 + 999, job_id: "j1".to_owned(), ..attempt(3, 0) };
    Hmac::sign(&attempt, &config, request, keys)
}

fn headers(signed: &Signed) -> Vec<(&str, &str)> {
    let text = |value| std::str::from_utf8(value).expect("ASCII");
    signed.headers.iter().map(|header| (header.name.as_str(), text(&header.value))).collect()
}

/// Signs a small request at second 7.
fn sign(config: &Value, keys: &[&dyn Key]) -> Result<Signed, Failure> {
    sign_request(config, 7, request("{}"), keys)
}

#[test]
fn published_examples_of_vendors_are_signed_as_published() {
    for example in PUBLISHED {
        let content_type = Header { name: "content-type".to_owned(), value: example.content_type.into() };
        let request = Request {
            method: "POST".to_owned(),
            url: example.url.to_owned(),
            headers: vec![content_type],
            body: example.body.into(),
        };
        let key = StaticKey::new("k/1", example.secret);
        let signed = sign_request(&json!({"preset": example.preset}), example.at, request, &[&key]).expect("signed");
        assert!(headers(&signed).contains(&(example.header, example.value)), "{}: {signed:?}", example.preset);
        assert_eq!(signed.body, None);
    }
}

#[test]
fn all_keys_sign_where_the_scheme_has_several_signatures() {
    let keys: [&dyn Key; 2] = [&StaticKey::new("k/2", "new"), &StaticKey::new("k/1", "old")];
    let value = |config: &Value, keys: &[&dyn Key]| headers(&sign(config, keys).expect("signed"))[0].1.to_owned();
    let stripe = json!({"preset": "stripe"});
    let alone = [value(&stripe, &keys[..1]), value(&stripe, &keys[1..])];
    assert_ne!(alone[0], alone[1]);
    assert_eq!(value(&stripe, &keys), format!("{},{}", alone[0], alone[1].strip_prefix("t=7,").expect("a time")));
    let github = json!({"preset": "github"});
    assert_eq!(value(&github, &keys), value(&github, &keys[..1]), "one signature: the newest key's");
}

#[test]
fn members_of_a_preset_can_be_replaced_and_schemes_made() {
    let key = StaticKey::new("k/1", "s");
    let replaced = sign(
        &json!({"preset": "github", "algorithm": "sha1", "headers": {"X-Hub-Signature": "sha1={signature}"}}),
        &[&key],
    );
    let replaced = replaced.expect("signed");
    assert_eq!((headers(&replaced)[0].0, headers(&replaced)[0].1.len()), ("X-Hub-Signature", "sha1=".len() + 40));
    let own = json!({
        "content": "{method} {path} {header.content-type} {timestamp_ms} {job_id} {attempt}\n{body}", "encoding": "base64url",
        "headers": {"A": "{{{timestamp}}} {signature}", "B": "{url} {header.none}."},
    });
    let made = sign(&own, &[&key]).expect("signed");
    let (name, value) = headers(&made)[0];
    assert!(name == "A" && value.starts_with("{7} ") && value.len() == "{7} ".len() + 43, "{value}");
    assert_eq!(headers(&made)[1].1, format!("{} .", request("{}").url));
}

#[test]
fn config_that_protects_nothing_or_contradicts_itself_is_refused() {
    for (config, part) in [
        (json!({"headers": {"A": "{timestamp}"}}), "no header has `{signature}`"),
        (json!({"preset": "github", "content": "{timestamp}"}), "`content` must have `{body}` or `{form}`"),
        (json!({"preset": "github", "content": "{body}{signature}"}), "`content` is what is signed"),
        (json!({"preset": "stripe", "each": "{signatures}"}), "`each` is the form of one signature"),
        (json!({"headers": {"A B": "{signature}"}}), "`A B` is not the name of a header"),
        (json!({"headers": {"A": "{sig}"}}), "`{sig}` is no placeholder"),
        (json!({"headers": {"A": "{signature"}}), "a brace without its counterpart"),
    ] {
        let error =
            testing::config::<Hmac>(&config.to_string()).and_then(|config| Hmac::check(&config)).expect_err("refused");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn calls_without_a_signature_say_who_is_to_blame() {
    let key = StaticKey::new("k/1", "s");
    let failed = |config: Value, body: &str, keys: &[&dyn Key]| {
        let failure = sign_request(&config, 7, request(body), keys).expect_err("no signature");
        (failure.blame, failure.code)
    };
    assert_eq!(failed(json!({"preset": "github"}), "{}", &[]), (Blame::Config, "no-key".to_owned()));
    assert_eq!(failed(json!({"preset": "twilio"}), "{}", &[&key]), (Blame::Job, "no-form".to_owned()));
    let in_header = json!({"headers": {"A": "{signature}{body}"}});
    assert_eq!(failed(in_header, "a\nb", &[&key]), (Blame::Job, "header-value".to_owned()));
}

#[test]
fn the_examples_and_the_schema_hold() {
    let examples: Vec<&str> = testing::json_blocks(include_str!("../README.md")).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let config = testing::config::<Hmac>(example).expect("a config");
        assert_eq!(Hmac::check(&config), Ok(()), "{example}");
    }
    let schema: Value = serde_json::from_str(Hmac::CONFIG_SCHEMA).expect("JSON");
    for preset in schema["properties"]["preset"]["enum"].as_array().expect("an enum") {
        let config = testing::config::<Hmac>(&json!({"preset": preset}).to_string()).expect("a preset");
        assert_eq!(Hmac::check(&config), Ok(()), "{preset}");
    }
}
