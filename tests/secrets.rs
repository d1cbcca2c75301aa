//! What is secret is in no answer, no log and no file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::{ADMIN_TOKEN, Api, Program, Receiver};

const SECRET: &str = "correct-horse-battery-staple";

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
    let sign = json!({"plugin": "werkzeug-cookie", "keys": ["k"]});
    let mut answers = vec![
        api.put("/v1/groups/g", json!({"sign": sign})).await,
        api.put("/v1/keys/bad", json!({"secret": SECRET, "kind": "ed25519"})).await,
        api.put("/v1/keys/bad", json!({"secret": SECRET, "surprise": SECRET.len()})).await,
        api.post(
            "/v1/groups/g/policy/simulate",
            json!({"job": {"url": "http://a/", "payload": {"a": 1}}, "failures": 1}),
        )
        .await,
    ];
    let id = api.with_token(&token).job_id("g", json!({"url": receiver.url("/a"), "payload": {"a": 1}})).await;
    api.until_state(&id, "succeeded").await;
    let (job, attempts) = (format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/attempts"));
    for path in ["/v1/keys", "/v1/keys/k", "/v1/tokens", "/v1/groups/g?effective=true", &job, &attempts, "/metrics"] {
        answers.push(api.get(path).await);
    }
    let secrets: Vec<_> = [SECRET, ADMIN_TOKEN, &token].into_iter().flat_map(forms).collect();
    for (answer, secret) in answers.iter().flat_map(|answer| secrets.iter().map(move |secret| (answer, secret))) {
        assert!(!answer.text().contains(secret), "{secret} in {answer:?}");
    }
    assert!(!receiver.arrivals("/a")[0].text().contains(SECRET));
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
