//! What jobs carry, for those who may see it: payloads, requests as they went out, copies; and the jobs of all groups.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Receiver, TestHost, id_of};

async fn host_with_group() -> (TestHost, Receiver) {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    (host, Receiver::start().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_and_sent_request_are_shown_to_producers_only() {
    let (host, receiver) = host_with_group().await;
    host.api.put("/v1/keys/token", json!({"secret": "hunter2", "kind": "header"})).await.ok();
    host.api.put_group("g", json!({"auth_headers": {"X-Key": "token"}})).await;
    let payload = r#"{ "b": 1.10, "a": 12345678901234567890123 }"#;
    let job = format!(
        r#"{{"url": "{}", "payload": {payload}, "headers": {{"Authorization": "Bearer s3cret"}}}}"#,
        receiver.url("/a")
    );
    let made = host.api.raw(Method::POST, "/v1/groups/g/jobs", job).await.expect(201);
    let id = made["id"].as_str().unwrap();
    host.api.until_state(id, "succeeded").await;
    let reply = host.api.get(&format!("/v1/jobs/{id}/payload")).await;
    assert_eq!((reply.status, reply.text()), (200, payload), "byte for byte, without a line break");
    assert_eq!(reply.headers["content-type"], "application/json");
    let sent = host.api.get(&format!("/v1/jobs/{id}/attempts/1/request")).await.expect(200);
    assert_eq!((&sent["method"], &sent["body"]), (&json!("POST"), &json!(payload)));
    assert_eq!(sent["digest"], host.api.attempts(id).await[0]["request_digest"]);
    let headers = sent["headers"].as_array().unwrap();
    assert!(headers.contains(&json!({"name": "authorization", "value": "Bearer s3cret"})), "{sent}");
    assert!(headers.contains(&json!({"name": "x-key", "value": "(key token)"})), "{sent}");
    host.api.get(&format!("/v1/jobs/{id}/attempts/2/request")).await.problem(404);

    let token = host.api.post("/v1/tokens", json!({"role": "viewer"})).await.expect(201);
    let viewer = host.api.with_token(token["token"].as_str().unwrap());
    for path in ["payload", "attempts/1/request"] {
        viewer.get(&format!("/v1/jobs/{id}/{path}")).await.problem(403);
    }
    let schedule = json!({"group": "g", "cron": "@daily", "job": {"url": receiver.url("/"), "payload": "s3cret", "headers": {"X-A": "s3cret"}}});
    host.api.put("/v1/schedules/s", schedule).await.expect(201);
    for path in [
        format!("/v1/jobs/{id}"),
        "/v1/groups/g/jobs".to_owned(),
        "/v1/schedules/s".to_owned(),
        "/v1/schedules".to_owned(),
    ] {
        let reply = viewer.get(&path).await;
        assert!(reply.status == 200 && !reply.text().contains("s3cret"), "{path}: {}", reply.text());
    }
    assert!(host.api.get("/v1/schedules/s").await.text().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_made_again_is_refused() {
    let (host, receiver) = host_with_group().await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "payload_text": "x"})).await;
    host.api.until_state(&id, "succeeded").await;
    let unsent = host.api.job_id("g", json!({"url": receiver.url("/a"), "run_at": "+1h"})).await;
    host.api.get(&format!("/v1/jobs/{unsent}/attempts/1/request")).await.problem(404);
    host.api.put("/v1/keys/k", json!({"secret": "one"})).await.expect(204);
    let sign = json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}});
    host.api.put_group("signed", sign).await;
    let signed = host.api.job_id("signed", json!({"url": receiver.url("/b"), "payload": {"a": 1}})).await;
    host.api.until_state(&signed, "succeeded").await;
    host.api.get(&format!("/v1/jobs/{signed}/attempts/1/request")).await.expect(200);
    host.api.put("/v1/keys/k", json!({"secret": "another"})).await.expect(204);
    let problem = host.api.get(&format!("/v1/jobs/{signed}/attempts/1/request")).await.problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("a key"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_has_succeeded_is_sent_again_as_a_copy() {
    let (host, receiver) = host_with_group().await;
    let job = json!({
        "url": receiver.url("/a"), "payload": {"n": 1}, "headers": {"X-A": "1"}, "name": "n", "metadata": {"k": "v"}, "priority": 7,
        "limits": {"ttl": "1h"},
    });
    let id = host.api.job_id("g", job).await;
    let before = host.api.until_state(&id, "succeeded").await;
    host.api.post(&format!("/v1/jobs/{id}/retry"), json!({})).await.problem(409);
    let copy = host.api.raw(Method::POST, &format!("/v1/jobs/{id}/copy"), "").await.expect(201);
    let copied = host.api.until_state(copy["id"].as_str().unwrap(), "succeeded").await;
    for field in ["request", "name", "metadata", "priority", "payload_bytes", "group"] {
        assert_eq!(copied[field], before[field], "{field}");
    }
    assert_eq!(copied["parent"], json!(id));
    assert_ne!(copied["id"], before["id"]);
    let arrivals = receiver.arrived("/a", 2).await;
    assert_eq!((arrivals[0].text(), arrivals[0].header("x-a")), (arrivals[1].text(), arrivals[1].header("x-a")));
    assert_ne!(arrivals[0].header("idempotency-key"), arrivals[1].header("idempotency-key"));
    let later = host.api.post("/v1/jobs/n/copy?group=g", json!({"run_at": "+30m"})).await.expect(201);
    assert_eq!(later["state"], "scheduled");
    host.api.post(&format!("/v1/jobs/{id}/copy"), json!({"run_at": "+2h"})).await.problem_at(422, "/run_at");
    host.api.post("/v1/jobs/none/copy", json!({})).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_all_groups_are_one_list() {
    let (host, _) = host_with_group().await;
    host.api.put_group("h", json!({})).await;
    let mut made = Vec::new();
    for (group, name) in [("g", "a"), ("h", "b"), ("g", "b"), ("h", "a"), ("g", "a")] {
        made.push(host.api.job_id(group, json!({"run_at": "+1h", "name": name, "metadata": {"of": group}})).await);
    }
    host.api.delete(&format!("/v1/jobs/{}", made[0])).await.expect(200);
    made.reverse();
    let ids = async |query: &str| -> Vec<String> {
        host.api.get(&format!("/v1/jobs{query}")).await.items().iter().map(id_of).collect()
    };
    assert_eq!(ids("").await, made);
    assert_eq!(ids("?state=cancelled").await, made[4..]);
    assert_eq!(ids("?name=b").await, [made[2].clone(), made[3].clone()]);
    assert_eq!(ids("?metadata.of=h").await, [made[1].clone(), made[3].clone()]);
    let page = host.api.get("/v1/jobs?limit=2").await.expect(200);
    let groups: Vec<_> = page["items"].as_array().unwrap().iter().map(|job| job["group"].as_str().unwrap()).collect();
    assert_eq!(groups, ["g", "h"]);
    assert_eq!(ids(&format!("?limit=9&cursor={}", page["next_cursor"].as_str().unwrap())).await, made[2..]);
    host.api.put("/v1/tenants/t", json!({})).await.ok();
    assert!(host.api.for_tenant("t").get("/v1/jobs").await.items().is_empty());
    host.api.get("/v1/jobs?state=nonsense").await.problem(400);
    host.api.get("/v1/jobs?created_from=nonsense").await.problem(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_sees_no_credentials_in_urls_and_headers() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    let onward = format!("{}?session_token=s3cret&b=2", receiver.url("/onward"));
    receiver.on("/", [Answer::status(307).header("location", &onward)]);
    receiver.on("/onward", [Answer::body(200, "ok").header("set-cookie", "id=s3cret").header("x-plain", "seen")]);
    host.api.put_group("g", json!({"limits": {"redirects": 1}})).await;
    let url = receiver.url("/?api_key=s3cret&a=1").replace("http://", "http://user:s3cret@");
    let job = json!({"url": url, "headers": {"X-Api-Key": "s3cret"}, "payload_text": "s3cret"});
    let id = host.api.job_id("g", job.clone()).await;
    host.api.until_state(&id, "succeeded").await;
    host.api.put("/v1/schedules/s", json!({"group": "g", "cron": "0 0 1 1 *", "job": job})).await.expect(201);
    let token = host.api.post("/v1/tokens", json!({"role": "viewer"})).await.expect(201);
    let viewer = host.api.with_token(token["token"].as_str().unwrap());
    for path in ["/v1/jobs", "/v1/groups/g/jobs", "/v1/schedules", "/v1/schedules/s"] {
        let shown = viewer.get(path).await.expect(200).to_string();
        assert!(!shown.contains("s3cret") && !shown.contains("user:"), "{path}: {shown}");
        assert!(shown.contains("api_key=***&a=1"), "{path}: {shown}");
    }
    let shown = viewer.get(&format!("/v1/jobs/{id}/attempts")).await.expect(200).to_string();
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("session_token=***&b=2") && shown.contains("seen"), "{shown}");
    let attempt = host.api.attempts(&id).await.remove(0);
    assert!(attempt.to_string().contains("session_token=s3cret"), "a producer sees it: {attempt}");
}
