//! The signer `hmac`: libraries of vendors take what its presets sign, with the keys that they should take it with and no others.

use serde_json::{Value, json};

use crate::support::{Arrival, Receiver, STRIPE, TestHost, ask_python};

/// Reads the same as [`STRIPE`], and prints which of the secrets the library of Standard Webhooks takes. Svix has its scheme.
const SVIX: &str = r#"
import json, sys
from standardwebhooks import webhooks
asked = json.load(sys.stdin)
headers = {name.replace("svix-", "webhook-"): value for name, value in asked["headers"].items()}
def takes(secret):
    try:
        return webhooks.Webhook(secret).verify(asked["body"], headers) is not None
    except webhooks.WebhookVerificationError:
        return False
print(json.dumps([takes(secret) for secret in asked["secrets"]]))
"#;

/// Returns what a library makes of a request.
async fn taken(program: &str, arrival: &Arrival, secrets: &[&str]) -> Value {
    let text = |value: &[u8]| Value::from(String::from_utf8(value.to_vec()).unwrap());
    let headers: Value = arrival.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    ask_python(program, &json!({"headers": headers, "body": arrival.text(), "secrets": secrets})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libraries_of_vendors_take_what_presets_sign() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    for (preset, program, member, secrets) in [
        ("stripe", STRIPE, "secret", ["whsec_old_secret", "whsec_new_secret", "whsec_of_another"]),
        (
            "svix",
            SVIX,
            "secret_base64",
            [
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "whsec_AAAAsBQIhrscChlQIMV+b5sSYspob7oD",
            ],
        ),
    ] {
        for secret in &secrets[..2] {
            host.api.put(&format!("/v1/keys/{preset}"), json!({member: secret, "overlap": "1h"})).await.expect(204);
        }
        let sign = json!({"plugin": "hmac", "config": {"preset": preset}, "keys": [preset]});
        host.api.put_group(preset, json!({"sign": sign})).await;
        let path = format!("/{preset}");
        let job = json!({"url": receiver.url(&path), "payload": {"text": "grüße 🔔", "n": 1.5}});
        let id = host.api.job_id(preset, job).await;
        host.api.until_state(&id, "succeeded").await;
        let arrival = receiver.arrivals(&path).remove(0);
        assert_eq!(
            taken(program, &arrival, &secrets).await,
            json!([true, true, false]),
            "{preset}: both keys while one is rotated"
        );
        let touched = Arrival { body: arrival.text().replace("1.5", "2.5").into(), ..arrival };
        assert_eq!(taken(program, &touched, &secrets).await, json!([false, false, false]), "{preset}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_without_a_signature_is_refused_when_it_is_bound() {
    let host = TestHost::start().await;
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let sign = |config: Value| json!({"sign": {"plugin": "hmac", "config": config, "keys": ["k"]}});
    for (config, part) in [
        (json!({}), "preset"),
        (json!({"preset": "githup"}), "githup"),
        (json!({"headers": {"X-Time": "{timestamp}"}}), "no header has `{signature}`"),
        (json!({"headers": {"X-Signature": "{sign}"}}), "`{sign}` is no placeholder"),
    ] {
        let problem = host.api.put("/v1/groups/g", sign(config)).await.problem(422);
        assert!(problem.to_string().contains(part), "{problem}");
    }
}
