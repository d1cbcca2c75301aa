//! What is secret is in no answer, no log and no file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::{ADMIN_TOKEN, Answer, Api, Program, Receiver};

const SECRET: &str = "correct-horse-battery-staple";

/// The value of a header.
const SENT: &str = "paper-clip-and-a-pair-of-scissors";

/// The ways in which a secret could have been written down.
fn forms(secret: &str) -> Vec<String> {
    vec![secret.to_owned(), STANDARD.encode(secret).trim_end_matches('=').to_owned(), hex::encode(secret)]
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
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
    let (job, attempts) = (format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/attempts"));
    for path in [
        "/v1/keys",
        "/v1/keys/k",
        "/v1/keys/sent",
        "/v1/tokens",
        "/v1/groups/g?effective=true",
        &job,
        &attempts,
        "/metrics",
    ] {
        answers.push(api.get(path).await);
    }
    let secrets: Vec<_> = [SECRET, SENT, ADMIN_TOKEN, &token].into_iter().flat_map(forms).collect();
    for (answer, secret) in answers.iter().flat_map(|answer| secrets.iter().map(move |secret| (answer, secret))) {
        assert!(!answer.text().contains(secret), "{secret} in {answer:?}");
    }
    assert!(!receiver.arrivals("/a")[0].text().contains(SECRET));
    assert_eq!(receiver.arrivals("/a")[0].header("x-key"), Some(SENT), "here, and nowhere else");
    assert_eq!(elsewhere.arrivals("/away")[0].header("x-key"), None);
    // While it runs, what was written last is in the write-ahead log.
    files_are_clean(dir.path(), &secrets);
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0));
    files_are_clean(dir.path(), &secrets);
    let log = program.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is at its most talkative");
    assert!(!secrets.iter().any(|secret| log.contains(secret)), "{log}");
}

fn files_are_clean(dir: &std::path::Path, secrets: &[String]) {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        bytes += content.len();
        let found = secrets.iter().find(|secret| contains(&content, secret));
        assert!(found.is_none(), "{found:?} in {}", path.display());
    }
    assert!(bytes > 4096, "there is a database to look into");
}
