//! The real Python libraries read what was signed, with the right secret only.

use serde_json::{Value, json};

use crate::support::{Receiver, TestHost, ask_python, ms};

/// Reads {"format", "text", "secret"} and prints what the library makes of it: the payload, or null.
const READER: &str = r#"
import hashlib, json, sys
asked = json.load(sys.stdin)
if asked["format"] == "secure-cookie":
    from secure_cookie.cookie import SecureCookie
    class Doppler(SecureCookie):
        serialization_method = json
    read = dict(Doppler.unserialize(asked["text"], asked["secret"].encode()))
    print(json.dumps(read or None))
else:
    from itsdangerous import BadSignature, URLSafeTimedSerializer
    options = {"key_derivation": "hmac", "digest_method": hashlib.sha1}
    serializer = URLSafeTimedSerializer(asked["secret"], salt="cookie-session", signer_kwargs=options)
    try:
        print(json.dumps(serializer.loads(asked["text"], max_age=3600)))
    except BadSignature:
        print("null")
"#;

/// What the library reads.
async fn read(format: &str, text: &str, secret: &str) -> Value {
    ask_python(READER, &json!({"format": format, "text": text, "secret": secret})).await
}

fn payload() -> Value {
    json!({"user": 42, "text": "grüße & co = ok? 🔔", "nested": {"list": [1, null, true], "f": 1.5}, "a b": "c"})
}

/// Delivers a signed job on time and returns the body that arrived.
async fn signed(config: Value) -> String {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    host.api.put("/v1/keys/flask-secret", json!({"secret": "the right secret"})).await.expect(204);
    host.api
        .put_group("g", json!({"sign": {"plugin": "werkzeug-cookie", "config": config, "keys": ["flask-secret"]}}))
        .await;
    let job = json!({"url": receiver.url("/signed"), "payload": payload(), "run_at": "+1s"});
    let made = host.api.post_job("g", job).await;
    let arrival = receiver.arrived("/signed", 1).await.remove(0);
    assert!(arrival.at >= ms(&made["run_at"]), "not before its time: {} {made}", arrival.at);
    host.api.until_state(made["id"].as_str().unwrap(), "succeeded").await;
    arrival.text().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secure_cookie_reads_a_callback_with_the_right_secret_only() {
    let text = signed(json!({"expires": "1h"})).await;
    assert_eq!(read("secure-cookie", &text, "the right secret").await, payload());
    assert_eq!(read("secure-cookie", &text, "a wrong secret").await, Value::Null);
    assert_eq!(read("secure-cookie", &text.replace("user", "uses"), "the right secret").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn itsdangerous_reads_a_flask_session_with_the_right_secret_only() {
    let text = signed(json!({"format": "flask-session"})).await;
    assert_eq!(read("flask-session", &text, "the right secret").await, payload());
    assert_eq!(read("flask-session", &text, "a wrong secret").await, Value::Null);
}
