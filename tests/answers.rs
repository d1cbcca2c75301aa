//! What receivers do to us: answers that never come, never end, are too long, lead elsewhere.

use serde_json::{Value, json};

use crate::support::{Answer, Gate, Receiver, TestHost};

/// Bytes of an answer's body that are kept.
const RECORDED: usize = 4096;

/// Delivers one job once, to `path`, and returns its only attempt.
async fn attempt(host: &TestHost, url: &str) -> Value {
    let policy = json!({"retry": {"config": {"max_attempts": 1}}, "limits": {"timeout": "500ms"}});
    host.api.put_group("g", policy).await;
    let id = host.api.job_id("g", json!({"url": url})).await;
    host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await;
    host.api.attempts(&id).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_comes_is_a_timeout() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/never", [Answer::status(200).held(&Gate::closed())]);
    let attempt = attempt(&host, &receiver.url("/never")).await;
    assert_eq!((&attempt["error"]["code"], &attempt["status"]), (&json!("send.timeout"), &Value::Null), "{attempt}");
    assert_eq!(attempt["decision"]["state"], "dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_body_does_not_end_in_time_is_judged_by_its_status() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/stalled", [Answer::stalled("it begins well")]);
    let attempt = attempt(&host, &receiver.url("/stalled")).await;
    assert_eq!((&attempt["status"], &attempt["verdict"]["outcome"]), (&json!(200), &json!("success")), "{attempt}");
    assert_eq!((&attempt["response_truncated"], &attempt["error"]), (&json!(true), &Value::Null));
    assert_eq!((&attempt["response_body"], receiver.count("/stalled")), (&json!("it begins well"), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_has_a_timeout_of_its_own() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/never", [Answer::status(200).held(&Gate::closed())]);
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/never"), "limits": {"timeout": "100ms"}})).await;
    assert_eq!(host.api.until_state(&id, "dead").await["last_error"], "send.timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_judged_by_its_status() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/broken-off", [Answer::broken_off("it begins well")]);
    let attempt = attempt(&host, &receiver.url("/broken-off")).await;
    assert_eq!((&attempt["status"], &attempt["verdict"]["outcome"]), (&json!(200), &json!("success")), "{attempt}");
    assert_eq!((&attempt["response_truncated"], &attempt["error"]), (&json!(true), &Value::Null));
    assert_eq!(receiver.count("/broken-off"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ends_without_an_answer_is_a_reset() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/nothing", [Answer::nothing()]);
    let attempt = attempt(&host, &receiver.url("/nothing")).await;
    assert_eq!(attempt["error"]["code"], "send.reset", "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connection_is_said_to_be_one() {
    let host = TestHost::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let attempt = attempt(&host, &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(attempt["error"]["code"], "send.connect", "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_resolve_is_said_to_be_one() {
    let host = TestHost::start().await;
    let attempt = attempt(&host, "http://does-not-exist.invalid/").await;
    assert_eq!(attempt["error"]["code"], "send.dns", "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speech_that_is_no_tls_is_said_to_be_none() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let attempt = attempt(&host, &receiver.url("/").replace("http:", "https:")).await;
    assert_eq!(attempt["error"]["code"], "send.tls", "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_answer_is_cut_and_is_still_an_answer() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/huge", [Answer::long(200, 512 << 20)]);
    let attempt = attempt(&host, &receiver.url("/huge")).await;
    assert_eq!((&attempt["status"], &attempt["verdict"]["outcome"]), (&json!(200), &json!("success")), "{attempt}");
    assert_eq!(attempt["response_body"].as_str().unwrap(), "x".repeat(RECORDED));
    assert_eq!(attempt["response_truncated"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_no_text_is_kept_as_base64() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/bytes", [Answer::body(200, vec![0xff, 0x00])]);
    let attempt = attempt(&host, &receiver.url("/bytes")).await;
    assert_eq!((&attempt["response_body"], &attempt["response_body_base64"]), (&Value::Null, &json!("/wA=")));
    assert_eq!(attempt["response_truncated"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_neither_followed_nor_a_success() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    for status in [301, 302, 303, 307, 308] {
        receiver.on("/moved", [Answer::status(status).header("location", receiver.url("/elsewhere"))]);
        let attempt = attempt(&host, &receiver.url("/moved")).await;
        assert_eq!((&attempt["status"], &attempt["verdict"]["outcome"]), (&json!(status), &json!("retryable")));
    }
    assert_eq!(receiver.count("/elsewhere"), 0);
}
