//! What is secret is in no answer, no log and no file.

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use carillon_guest_build::{BuildRequest, build};
use carillon_policy::golden::{Golden, embed};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use sha2::Sha512;

use crate::support::{ADMIN_TOKEN, Answer, Api, Program, Receiver, Reply, eventually, repository, shared_dir, upload};

const SECRET: &str = "correct horse/battery+staple?";

/// A key of a golden test, which is in a component that is refused.
const GOLDEN: &str = "a-hamster-in-a-wheel-of-cheddar";

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

/// A signer that sends all of its memory.
async fn spy() -> Vec<u8> {
    let directory = repository().join("tests/guests/spy");
    let request = BuildRequest { manifest_dir: directory, target_dir: shared_dir().join("guests"), toolchain: None };
    let built = tokio::task::spawn_blocking(move || build(&request)).await.unwrap();
    built.unwrap_or_else(|error| panic!("spy does not build: {error}"))
}

/// Signs with all keys that sign in a signer that sends its whole memory, which is returned; and what is answered on the way.
async fn spied(api: &Api, receiver: &Receiver) -> (Bytes, Vec<Reply>) {
    let component = spy().await;
    // It had the key when it was called, and what came of that is said.
    let keys = json!([{"name": "g", "secret": GOLDEN}]);
    let input = json!({"request": {"method": "POST", "url": "http://a/", "body": "x"}});
    let test = json!({"name": "wrong", "role": "sign", "keys": keys, "input": input, "answer": {}});
    let test = serde_json::from_value::<Golden>(test).unwrap();
    let path = "/v1/plugins/spy/versions/0.1.0";
    let refused = upload(api, path, embed(&component, &[test])).await;
    assert!(refused.problem(422)["detail"].as_str().unwrap().contains("`wrong`: expected {}, got {"));
    let mut answers = vec![refused, upload(api, path, component[..component.len() / 2].to_vec()).await];
    upload(api, path, component).await.expect(201);
    let sign = json!({"plugin": "spy", "keys": ["k", "hook"]});
    api.put_group("spied", json!({"sign": sign, "auth_headers": {"X-Key": "sent"}})).await;
    let id = api.job_id("spied", json!({"url": receiver.url("/spied"), "payload": {"a": 1}})).await;
    api.until_state(&id, "succeeded").await;
    for again in [format!("/v1/jobs/{id}/attempts/1/replay"), "/v1/groups/spied/policy/backtest".to_owned()] {
        let answer = api.post(&again, json!({"version": 1})).await;
        assert!([json!(true), json!(1)].contains(&answer.expect(200)["same"]), "{answer:?}");
        answers.push(answer);
    }
    (receiver.arrivals("/spied")[0].body.clone(), answers)
}

/// A version that signs with nothing runs as a shadow beside one that signs; what is said of their differences.
async fn shadowed(api: &Api, receiver: &Receiver) -> Vec<Reply> {
    let shadow = "/v1/groups/g/policy/shadow";
    let policy = json!({"encode": [{"plugin": "base64-envelope"}], "sign": null});
    let made = api.post("/v1/groups/g/policy/versions", policy).await;
    assert_eq!(made.expect(201)["version"], 2);
    api.put(shadow, json!({"version": 2})).await.expect(200);
    let id = api.job_id("g", json!({"url": receiver.url("/shadowed"), "payload": {"a": 1}})).await;
    api.until_state(&id, "succeeded").await;
    let is_shown = |seen: &Reply| seen.json()["attempts"] != 0;
    let seen = eventually("the shadow is shown it", async || api.get(shadow).await, is_shown).await;
    vec![made, seen, api.delete(shadow).await]
}

/// What every operation by `POST` answers: to what it is made for, where that is known here, and to nothing.
async fn posted(api: &Api, job: &str) -> Vec<Reply> {
    let document = api.get("/openapi.json").await.expect(200);
    let target = json!({"url": "http://127.0.0.1:1/", "payload": {"a": 1}, "run_at": "+1h"});
    let known = [
        ("/v1/groups/{group}/jobs", target.clone()),
        ("/v1/groups/{group}/jobs/batch", json!({"jobs": [target]})),
        ("/v1/groups/{group}/policy/simulate", json!({"job": target, "failures": 1})),
        ("/v1/groups/{group}/policy/backtest", json!({"version": 2})),
        ("/v1/groups/{group}/policy/promote", json!({"version": 2, "percent": 50})),
        ("/v1/groups/{group}/policy/versions", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["none"]}})),
        ("/v1/groups/{group}/bulk", json!({"action": "cancel", "dry_run": true})),
        ("/v1/jobs/{id}/reschedule", json!({"run_at": "+1h"})),
        ("/v1/tokens", json!({"role": "viewer"})),
    ];
    let posts = document["paths"].as_object().unwrap().iter().filter(|(_, methods)| methods.get("post").is_some());
    let mut answers = Vec::new();
    for (path, _) in posts {
        let named = [("{group}", "g"), ("{id}", job), ("{number}", "1"), ("{schedule}", "s"), ("{token}", "t")];
        let there = named.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
        let body = known.iter().find(|(known, _)| known == path).map(|(_, body)| body);
        answers.push(api.post(&there, body.unwrap_or(&json!({})).clone()).await);
        answers.push(api.post(&there, json!({"secret": 1})).await);
    }
    let done = answers.iter().filter(|answer| answer.status < 300).count();
    assert!(done >= 12, "{done} of {} did something", answers.len());
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
    api.put("/v1/keys/sent", json!({"secret": SENT, "kind": "header"})).await.ok();
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
    answers.extend(shadowed(&api, &receiver).await);
    let (memory, seen) = spied(&api, &receiver).await;
    answers.extend(seen);
    answers.extend(everything(&api, &id).await);
    answers.extend(posted(&api, &id).await);
    let texts = [SECRET, SENT, GOLDEN, ADMIN_TOKEN, &token].map(str::as_bytes).into_iter();
    let secrets: Vec<_> = texts.chain(ROTATED.map(|secret| &secret[..])).flat_map(forms).collect();
    what_it_signed_is_all_that_is_in(&memory, &secrets);
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

/// The memory of a signer has the code that it asked for, and no key.
fn what_it_signed_is_all_that_is_in(memory: &[u8], secrets: &[Vec<u8>]) {
    let mut code = Hmac::<Sha512>::new_from_slice(SECRET.as_bytes()).unwrap();
    code.update(br#"{"a":1}"#);
    let code = code.finalize().into_bytes();
    assert!(memory.len() > 64 << 10 && contains(memory, &code) && contains(memory, b"k/1"), "{} bytes", memory.len());
    assert_eq!(found(memory, secrets), None);
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
