//! What makes no sense is refused with a problem that names the field, and nothing of it is written.

use axum::body::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Api, Receiver, TestHost};

/// Past `batch_limit`.
const TOO_MANY: usize = 10_001;

/// Past `body_limit`.
const TOO_LARGE: usize = 20_000_000;

/// Past `policy.large.component_size`, and more than is read of a component.
const LARGE_COMPONENT: usize = (32 << 20) + 2;

/// Past `payload_limit`.
const LARGE_PAYLOAD: usize = (1 << 20) + 1;

const URL: &str = "http://127.0.0.1:1/";

async fn host_with_group() -> TestHost {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    host
}

/// Nothing was written, and the next good request is served.
async fn still_works(host: &TestHost) {
    let stats = host.api.stats("g").await;
    assert!(stats.as_object().unwrap().values().all(|count| *count == 0), "nothing was written: {stats}");
    let receiver = Receiver::start().await;
    receiver.on("/good", [Answer::status(200)]);
    let id = host.api.job_id("g", json!({"url": receiver.url("/good")})).await;
    host.api.until_state(&id, "succeeded").await;
}

/// A job with so many to follow it.
fn nested_flow(depth: usize) -> Value {
    (0..depth).fold(json!({"url": URL}), |next, _| json!({"url": URL, "on_success": next}))
}

/// Jobs that are read but make no sense: status 422, and where.
fn senseless_jobs() -> Vec<(Value, &'static str)> {
    let long = "x".repeat(LARGE_PAYLOAD);
    let with = |field: &str, value: Value| {
        let mut job = json!({"url": URL});
        job[field] = value;
        job
    };
    let mut jobs = vec![
        (json!({"url": "ftp://example.com/"}), "/url"),
        (json!({"url": "file:///etc/passwd"}), "/url"),
        (json!({"url": "nonsense"}), "/url"),
        (json!({"url": ""}), "/url"),
        (json!({"url": format!("http://example.com/{}", "x".repeat(9_000))}), "/url"),
        (with("method", json!("CONNECT")), "/method"),
        (with("method", json!("GET /\r\nHost: x")), "/method"),
        (with("headers", json!({"X-A": "a\r\nX-B: b"})), "/headers/X-A"),
        (with("headers", json!({"X-A\r\nX-B": "b"})), "/headers/X-A\r\nX-B"),
        (with("headers", json!({"a b": "c"})), "/headers/a b"),
        (with("headers", json!({"Host": "else/where"})), "/headers/Host"),
        (with("headers", json!({"content-LENGTH": "0"})), "/headers/content-LENGTH"),
        (with("headers", json!({"Transfer-Encoding": "chunked"})), "/headers/Transfer-Encoding"),
        (with("headers", json!({"Idempotency-Key": "mine"})), "/headers/Idempotency-Key"),
        (with("payload_base64", json!("%%%")), "/payload_base64"),
        (with("payload_text", json!(long)), "/payload"),
        (json!({"url": URL, "payload": 1, "payload_text": "1"}), "/payload"),
        (with("name", json!("")), "/name"),
        (with("name", json!("x".repeat(256))), "/name"),
        (with("metadata", json!({"k": "x".repeat(9_000)})), "/metadata"),
        (with("limits", json!({"timeout": "soon"})), "/limits/timeout"),
        (with("limits", json!({"ttl": "0s"})), "/limits/ttl"),
        (with("policy", json!({"retry": {"max_attempts": "many"}})), "/policy/retry/max_attempts"),
        (with("policy", json!({"judge": {"surprise": 1}})), "/policy/judge"),
        (with("policy", json!({"wake": {}})), "/policy/wake"),
        (with("policy", json!({"sign": {}})), "/policy/sign"),
        (with("policy", json!([])), "/policy"),
        (json!({"url": URL, "run_at": "+2h", "limits": {"ttl": "1h"}}), "/run_at"),
        (json!({"method": "PUT"}), "/url"),
        (json!({"headers": {"X-A": "b"}}), "/url"),
        (with("limits", json!({"max_delay": "soon"})), "/limits/max_delay"),
        (with("order_key", json!("")), "/order_key"),
        (with("group", json!("other")), "/group"),
        (with("dedupe_key", json!("x".repeat(256))), "/dedupe_key"),
        (with("dedupe_window", json!("1h")), "/dedupe_window"),
        (json!({"url": URL, "dedupe_key": "k", "dedupe_window": "31d"}), "/dedupe_window"),
        (with("replace", json!(true)), "/replace"),
        (json!({"url": URL, "replace": true, "name": "n", "dedupe_key": "k"}), "/replace"),
        (json!({"url": URL, "replace": true, "name": "n", "debounce_seconds": 5}), "/replace"),
        (with("debounce_seconds", json!(-1)), "/debounce_seconds"),
        (with("debounce_seconds", json!(1e300)), "/debounce_seconds"),
        (with("debounce_always_delay", json!(true)), "/debounce_seconds"),
        (with("debounce_key", json!("k")), "/debounce_seconds"),
        (json!({"url": URL, "debounce_seconds": 5, "run_at": "+5s"}), "/run_at"),
        (json!({"url": URL, "debounce_seconds": 5, "dedupe_key": "k"}), "/dedupe_key"),
        (json!({"url": URL, "debounce_seconds": 5, "limits": {"ttl": "4s"}}), "/debounce_seconds"),
        (with("on_success", json!({"url": "ftp://a/"})), "/on_success/url"),
        (with("on_failure", json!({"url": URL, "group": "nowhere"})), "/on_failure/group"),
        (with("on_failure", json!({"url": URL, "run_at": "2026-11-20T10:00:00Z"})), "/on_failure/run_at"),
        (with("on_failure", json!({"url": URL, "dedupe_key": "k"})), "/on_failure"),
        (with("on_success", nested_flow(5)), "/on_success/on_success/on_success/on_success/on_success/on_success"),
    ];
    let absurd = [json!("tomorrow"), json!("9999-12-31T23:59:59Z"), json!("+99999y"), json!(1e300), json!(true)];
    jobs.extend(absurd.into_iter().map(|time| (with("run_at", time), "/run_at")));
    jobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_makes_no_sense_is_refused_by_field() {
    let host = host_with_group().await;
    for (job, pointer) in senseless_jobs() {
        let problem = host.api.post("/v1/groups/g/jobs", job.clone()).await.problem_at(422, pointer);
        assert_eq!(problem["type"], "urn:carillon:problem:invalid", "{problem}");
        let batch = host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": [{"url": URL}, job]})).await;
        batch.problem_at(422, &format!("/jobs/1{pointer}"));
        host.api
            .post("/v1/groups/g/policy/simulate", json!({"job": job}))
            .await
            .problem_at(422, &format!("/job{pointer}"));
    }
    still_works(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_is_refused_by_field() {
    let host = host_with_group().await;
    for (text, pointer) in [
        (&b"{"[..], None),
        (b"", None),
        (b"not json", None),
        (b"[]", None),
        (b"null", None),
        (b"{} {}", None),
        (br#"{"url": 5}"#, Some("/url")),
        (br#"{"url": "http://a/", "url": "http://b/"}"#, None),
        (br#"{"url": "http://a/", "headers": "X-A: 1"}"#, Some("/headers")),
        (br#"{"url": "http://a/", "headers": ["X-A"]}"#, Some("/headers/0")),
        (br#"{"url": "http://a/", "headers": [{"name": "X-A"}]}"#, Some("/headers/0")),
        (br#"{"url": "http://a/", "metadata": {"k": "1", "k": "2"}}"#, Some("/metadata")),
        (br#"{"url": "http://a/", "metadata": {"n": {"k": "1", "k": "2"}}}"#, Some("/metadata/n")),
        (br#"{"url": "http://a/", "policy": {"retry": {"base": "1s", "base": "2s"}}}"#, Some("/policy/retry")),
        (br#"{"url": "http://a/", "headers": {"X-A": 1}}"#, Some("/headers/X-A")),
        (br#"{"url": "http://a/", "metadata": {"k": null}}"#, Some("/metadata/k")),
        (br#"{"url": "http://a/", "limits": {"timeout": 5}}"#, Some("/limits/timeout")),
        (br#"{"url": "http://a/", "surprise": 1}"#, Some("/surprise")),
        (br#"{"url": "http://a/", "priority": 10}"#, Some("/priority")),
        (br#"{"url": "http://a/", "priority": -1}"#, Some("/priority")),
        (br#"{"url": "http://a/", "order_key": 1}"#, Some("/order_key")),
        (br#"{"url": "http://a/", "debounce_seconds": "1"}"#, Some("/debounce_seconds")),
        (br#"{"url": "http://a/", "on_success": []}"#, Some("/on_success")),
        (br#"{"url": "http://a/", "on_success": {"surprise": 1}}"#, Some("/on_success/surprise")),
        (b"{\"url\": \"http://a/\xff\"}", None),
        (b"{\"url\": \"http://a/\", \"payload_text\": \"\xc3\x28\"}", None),
    ] {
        let reply = host.api.raw(Method::POST, "/v1/groups/g/jobs", text).await;
        let problem = match pointer {
            Some(pointer) => reply.problem_at(400, pointer),
            None => reply.problem(400),
        };
        assert_eq!(problem["type"], "urn:carillon:problem:malformed", "{}", text.escape_ascii());
    }
    still_works(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_one_bad_job_writes_nothing() {
    let host = host_with_group().await;
    let good = json!({"url": URL});
    for (bad, status, pointer) in [
        (json!({"url": "nonsense"}), 422, "/jobs/3/url"),
        (json!({"url": 5}), 400, "/jobs/3/url"),
        (json!({"url": URL, "surprise": 1}), 400, "/jobs/3/surprise"),
        (json!([]), 400, "/jobs/3"),
        (json!(null), 400, "/jobs/3"),
    ] {
        let batch = json!({"jobs": [good, good, good, bad, good]});
        host.api.post("/v1/groups/g/jobs/batch", batch).await.problem_at(status, pointer);
    }
    let many = json!({"jobs": vec![good; TOO_MANY]});
    host.api.post("/v1/groups/g/jobs/batch", many).await.problem_at(422, "/jobs");
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": []})).await.problem_at(422, "/jobs");
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": 1})).await.problem_at(400, "/jobs");
    still_works(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_refused_and_the_answer_arrives() {
    let host = host_with_group().await;
    let body = Bytes::from(vec![b' '; TOO_LARGE]);
    for path in ["/v1/groups/g/jobs", "/v1/groups/g/jobs/batch", "/v1/groups/g/policy/simulate", "/v1/tokens"] {
        host.api.raw(Method::POST, path, body.clone()).await.problem(413);
    }
    for path in ["/v1/groups/g", "/v1/keys/k", "/v1/tenants/t"] {
        host.api.raw(Method::PUT, path, body.clone()).await.problem(413);
    }
    let component = Bytes::from(vec![b' '; LARGE_COMPONENT]);
    host.api.raw(Method::PUT, "/v1/plugins/p/versions/1.0.0", component).await.problem(413);
    still_works(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_makes_no_sense_is_refused_by_field() {
    let host = host_with_group().await;
    host.api.put("/v1/keys/known", json!({"secret": "s"})).await.expect(204);
    for (policy, pointer) in [
        (json!({"sing": {}}), "/sing"),
        (json!({"judge": {"config": {"expect": "nonsense"}}}), "/judge/config/expect"),
        (json!({"judge": {"config": {"surprise": 1}}}), "/judge/config"),
        (json!({"retry": {"config": {"max_attempts": 0}}}), "/retry/config/max_attempts"),
        (json!({"retry": {"config": {"kind": "fixed", "factor": 2}}}), "/retry/config"),
        (json!({"judge": {"plugin": "nobody"}}), "/judge/plugin"),
        (json!({"judge": {"plugin": "backoff"}}), "/judge/plugin"),
        (json!({"encode": [{"plugin": "base64-envelope"}, {"plugin": "werkzeug-cookie"}]}), "/encode/1/plugin"),
        (json!({"encode": {}}), "/encode"),
        (json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["known", "unknown"]}}), "/sign/keys/1"),
        (json!({"judge": {"keys": ["known"]}}), "/judge/keys"),
        (json!({"judge": null}), "/judge"),
        (json!({"limits": {"concurrency": 0}}), "/limits/concurrency"),
        (json!({"limits": {"timeout": "10years"}}), "/limits/timeout"),
        (json!({"limits": {"rate": "fast"}}), "/limits/rate"),
        (json!({"limits": {"timeout": "11m"}}), "/limits/timeout"),
        (json!({"limits": {"ttl": "never"}}), "/limits/ttl"),
    ] {
        host.api.put("/v1/groups/g", policy.clone()).await.problem_at(422, pointer);
        host.api
            .put("/v1/tenants/default", json!({"defaults": policy}))
            .await
            .problem_at(422, &format!("/defaults{pointer}"));
        let trial = json!({"job": {"url": URL}, "policy": policy});
        host.api.post("/v1/groups/g/policy/simulate", trial).await.problem_at(422, &format!("/policy{pointer}"));
    }
    host.api.put("/v1/groups/g", json!([])).await.problem(400);
    assert_eq!(host.api.get("/v1/groups/g").await.expect(200)["version"], 1, "nothing has changed it");
    still_works(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_not_names_are_refused() {
    let host = host_with_group().await;
    for name in ["-a", "a%20b", "a%2Fb", "%C3%A4", "%00", &"x".repeat(65)] {
        host.api.put(&format!("/v1/groups/{name}"), json!({})).await.problem(422);
        host.api.put(&format!("/v1/tenants/{name}"), json!({})).await.problem(422);
        host.api.put(&format!("/v1/keys/{name}"), json!({"secret": "s"})).await.problem(422);
        host.api.raw(Method::PUT, &format!("/v1/plugins/{name}/versions/1.0.0"), "x").await.problem(422);
    }
    host.api.put("/v1/groups/%FF", json!({})).await.problem(400);
    still_works(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_tokens_that_make_no_sense_are_refused_by_field() {
    let host = host_with_group().await;
    for (key, status, pointer) in [
        (json!({}), 422, "/secret"),
        (json!({"secret": ""}), 422, "/secret"),
        (json!({"secret": "s", "secret_base64": "cw=="}), 422, "/secret"),
        (json!({"secret_base64": "%"}), 422, "/secret_base64"),
        (json!({"secret": "too short", "kind": "ed25519"}), 422, "/secret"),
        (json!({"secret": 1}), 400, "/secret"),
        (json!({"secret": "s", "kind": "rot13"}), 400, "/kind"),
        (json!({"secret_base64": "whsec_"}), 422, "/secret"),
        (json!({"secret_base64": "whsk_cw=="}), 422, "/secret"),
        (json!({"secret_base64": "whpk_cw=="}), 422, "/secret_base64"),
        (json!({"secret_base64": "whsec_cw==", "kind": "ed25519"}), 422, "/kind"),
        (json!({"secret": "s", "overlap": "soon"}), 422, "/overlap"),
        (json!({"secret": "s", "overlap": "0s"}), 422, "/overlap"),
        (json!({"secret": "s", "overlap": 5}), 400, "/overlap"),
    ] {
        host.api.put("/v1/keys/k", key).await.problem_at(status, pointer);
    }
    host.api.get("/v1/keys/k").await.problem(404);
    host.api.put("/v1/keys/sent", json!({"secret": "s", "kind": "header"})).await.ok();
    let other = json!({"secret": "t", "kind": "secret", "overlap": "1h"});
    host.api.put("/v1/keys/sent", other).await.problem_at(422, "/overlap");
    host.api.delete("/v1/keys/sent/versions/1").await.problem(409);
    host.api.delete("/v1/keys/sent/versions/2").await.problem(404);
    host.api.delete("/v1/keys/sent/versions/x").await.problem(404);
    host.api.delete("/v1/keys/none/versions/1").await.problem(404);
    host.api.post("/v1/tokens", json!({"role": "king"})).await.problem_at(400, "/role");
    host.api.post("/v1/tokens", json!({"role": "viewer", "tenant": "nobody"})).await.problem_at(422, "/tenant");
    still_works(&host).await;
}

async fn refused(api: &Api, method: Method, path: &str, status: u16) {
    api.raw(method, path, "{}").await.problem(status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_404_and_a_wrong_method_405() {
    let host = host_with_group().await;
    let id = "01900000-0000-7000-8000-000000000000";
    for path in ["/", "/v1", "/v1/nothing", "/v1/groups/g/nothing", "/v2/groups"] {
        refused(&host.api, Method::GET, path, 404).await;
    }
    for path in
        ["/v1/groups/none", "/v1/groups/none/stats", "/v1/groups/none/jobs", "/v1/keys/none", "/v1/tenants/none"]
    {
        refused(&host.api, Method::GET, path, 404).await;
    }
    for path in ["/v1/plugins/none", "/v1/plugins/backoff/versions/9.9.9", &format!("/v1/jobs/{id}"), "/v1/jobs/none"] {
        refused(&host.api, Method::GET, path, 404).await;
    }
    for path in ["/v1/groups/none", "/v1/keys/none", "/v1/tokens/none", &format!("/v1/jobs/{id}")] {
        refused(&host.api, Method::DELETE, path, 404).await;
    }
    let job = json!({"url": URL});
    host.api.post("/v1/groups/none/jobs", job.clone()).await.problem(404);
    host.api.post("/v1/groups/none/jobs/batch", json!({"jobs": [job]})).await.problem(404);
    host.api.post("/v1/groups/none/policy/simulate", json!({"job": job})).await.problem(404);
    host.api.post("/v1/groups/none/pause", json!({})).await.problem(404);
    for (method, path) in [
        (Method::DELETE, "/v1/groups"),
        (Method::PATCH, "/v1/groups/g/pause"),
        (Method::GET, "/v1/groups/g/pause"),
        (Method::PUT, "/v1/groups/g/jobs"),
        (Method::POST, "/healthz"),
        (Method::POST, "/openapi.json"),
    ] {
        refused(&host.api, method, path, 405).await;
    }
    still_works(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_that_make_no_sense_are_refused() {
    let host = host_with_group().await;
    for list in ["/v1/groups", "/v1/keys", "/v1/tokens", "/v1/plugins", "/v1/tenants", "/v1/groups/g/jobs"] {
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=many", "limit=1&limit=2"] {
            host.api.get(&format!("{list}?{query}")).await.problem(400);
        }
    }
    host.api.get("/v1/groups/g/jobs?cursor=nonsense").await.problem(400);
    host.api.get("/v1/groups/g/jobs?state=asleep").await.problem(400);
    host.api.get("/v1/groups/g?effective=perhaps").await.problem(400);
    still_works(&host).await;
}
