//! What is secret is in no answer, no log and no file.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::support::{ADMIN_TOKEN, Answer, Api, Program, Receiver, Reply};

const SECRET: &str = "correct horse/battery+staple?";

/// The value of a header.
const SENT: &str = "paper-clip-and-a-pair-of-scissors";

/// A key in its versions: two for HMAC, and a seed for Ed25519.
const ROTATED: [&[u8; 32]; 3] =
    [b"the oldest of the hook's secrets", b"the next of all its secrets \xff\xfe\xfd\xfc", &[0x5b; 32]];

/// The ways in which a secret could have been written down. Base64 has one of three forms, by where in a text it begins; what
/// stands by itself begins at its beginning.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let unpadded = |text: String| text.trim_end_matches('=').to_owned();
    let mut forms = vec![
        unpadded(STANDARD.encode(secret)),
        unpadded(URL_SAFE.encode(secret)),
        hex::encode(secret),
        hex::encode_upper(secret),
        format!("{secret:?}").trim_matches(['[', ']']).to_owned(),
    ];
    if let Ok(text) = std::str::from_utf8(secret) {
        let escaped = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        forms.extend([escaped.to_lowercase(), escaped.replace("%20", "+"), escaped]);
    }
    forms.into_iter().map(String::into_bytes).chain([secret.to_vec()]).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The first of the secrets' forms that is in there.
fn found<'a>(haystack: &[u8], secrets: &'a [Vec<u8>]) -> Option<std::borrow::Cow<'a, str>> {
    secrets.iter().find(|secret| contains(haystack, secret)).map(|secret| String::from_utf8_lossy(secret))
}

/// Gives a key three versions, all of which sign, and delivers with them; the answers on the way.
async fn rotated(api: &Api, receiver: &Receiver) -> Vec<Reply> {
    let mut answers = Vec::new();
    for (secret, kind) in ROTATED.into_iter().zip(["whsec_", "whsec_", "whsk_"]) {
        let key = json!({"secret_base64": format!("{kind}{}", STANDARD.encode(secret)), "overlap": "1h"});
        answers.push(api.put("/v1/keys/hook", key).await);
    }
    let sign = json!({"plugin": "standard-webhooks", "keys": ["hook"]});
    api.put_group("hooks", json!({"sign": sign})).await;
    let id = api.job_id("hooks", json!({"url": receiver.url("/hook"), "payload": 1})).await;
    api.until_state(&id, "succeeded").await;
    answers.push(api.get(&format!("/v1/jobs/{id}/attempts")).await);
    let signatures = receiver.arrivals("/hook")[0].header("webhook-signature").unwrap().split(' ').count();
    assert_eq!(signatures, ROTATED.len());
    let trial = json!({"job": {"url": "http://a/", "payload": 1}});
    answers.push(api.post("/v1/groups/hooks/policy/simulate", trial).await);
    let bad = format!("whsec_{}", STANDARD.encode(ROTATED[0]));
    answers.push(api.put("/v1/keys/bad", json!({"secret_base64": bad, "kind": "ed25519"})).await);
    answers.push(api.put("/v1/keys/bad", json!({"secret_base64": format!("{bad}!")})).await);
    answers
}

/// What every operation that reads answers.
async fn everything(api: &Api, job: &str) -> Vec<Reply> {
    let document = api.get("/openapi.json").await.expect(200);
    let mut answers = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        if methods.get("get").is_none() || path == "/v1/events" {
            continue;
        }
        for (group, key) in [("g", "k"), ("hooks", "hook"), ("h", "sent")] {
            let named = [("{group}", group), ("{key}", key), ("{plugin}", "standard-webhooks"), ("{id}", job)];
            let path = named.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
            let effective = if path.ends_with(group) { "?effective=true" } else { "" };
            answers.push(api.get(&format!("{path}{effective}")).await);
        }
    }
    let read = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(read > 40, "{read} of {} are there to look into", answers.len());
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_tokens_are_in_no_answer_no_log_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let environment = [("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN), ("CARILLON_EGRESS__ALLOW", "127.0.0.0/8")];
    let mut program = Program::serve(&["--store", &store], &environment).await;
    let receiver = Receiver::start().await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));

    api.put("/v1/keys/k", json!({"secret": SECRET})).await.expect(204);
    let token = api.token(json!({"role": "producer"})).await;
    api.put("/v1/keys/sent", json!({"secret": SENT, "kind": "header"})).await.expect(204);
    let sign = json!({"plugin": "werkzeug-cookie", "keys": ["k"]});
    let policy = json!({"sign": sign, "auth_headers": {"X-Key": "sent"}, "limits": {"redirects": 1}});
    let mut answers = vec![
        api.put("/v1/groups/g", policy).await,
        api.put("/v1/keys/bad", json!({"secret": format!("{SENT}\n"), "kind": "header"})).await,
        api.put("/v1/groups/h", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["sent"]}})).await,
        api.put("/v1/keys/bad", json!({"secret": SECRET, "kind": "ed25519"})).await,
        api.put("/v1/keys/bad", json!({"secret": SECRET, "surprise": SECRET.len()})).await,
        api.post(
            "/v1/groups/g/policy/simulate",
            json!({"job": {"url": "http://a/", "payload": {"a": 1}}, "failures": 1}),
        )
        .await,
    ];
    let elsewhere = Receiver::start().await;
    receiver.on("/away", [Answer::status(307).header("location", elsewhere.url("/away"))]);
    // The connection of the second is refused: an error is written down, too.
    for (url, state) in [(receiver.url("/away"), "succeeded"), ("http://127.0.0.1:1/".to_owned(), "scheduled")] {
        let id = api.job_id("g", json!({"url": url, "payload": {"a": 1}})).await;
        api.until(&id, state, |job| job["state"] == state && job["attempt_count"] != 0).await;
        answers.push(api.get(&format!("/v1/jobs/{id}/attempts")).await);
    }
    let id = api.with_token(&token).job_id("g", json!({"url": receiver.url("/a"), "payload": {"a": 1}})).await;
    api.until_state(&id, "succeeded").await;
    answers.extend(rotated(&api, &receiver).await);
    answers.extend(everything(&api, &id).await);
    let texts = [SECRET, SENT, ADMIN_TOKEN, &token].map(str::as_bytes).into_iter();
    let secrets: Vec<_> = texts.chain(ROTATED.map(|secret| &secret[..])).flat_map(forms).collect();
    for answer in &answers {
        assert_eq!(found(&answer.body, &secrets), None, "{answer:?}");
    }
    let events = api.follow("?last_event_id=1").await.take(8).await;
    assert_eq!(found(json!(events).to_string().as_bytes(), &secrets), None, "{events:?}");
    assert_eq!(found(&receiver.arrivals("/a")[0].body, &secrets), None);
    assert_eq!(receiver.arrivals("/a")[0].header("x-key"), Some(SENT), "here, and nowhere else");
    assert_eq!(elsewhere.arrivals("/away")[0].header("x-key"), None);
    // While it runs, what was written last is in the write-ahead log.
    files_are_clean(dir.path(), &secrets);
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0));
    files_are_clean(dir.path(), &secrets);
    let log = program.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is at its most talkative");
    assert_eq!(found(log.as_bytes(), &secrets), None, "{log}");
}

fn files_are_clean(dir: &std::path::Path, secrets: &[Vec<u8>]) {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        bytes += content.len();
        assert_eq!(found(&content, secrets), None, "{}", path.display());
    }
    assert!(bytes > 4096, "there is a database to look into");
}
