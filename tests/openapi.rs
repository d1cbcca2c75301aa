//! What the server says of itself: its API, its health, its numbers.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::support::{Answer, Receiver, Reply, TestHost};

/// Every operation that clients rely on.
const OPERATIONS: [&str; 82] = [
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /v1/events",
    "GET /v1/groups",
    "GET /v1/groups/{group}",
    "PUT /v1/groups/{group}",
    "PATCH /v1/groups/{group}",
    "DELETE /v1/groups/{group}",
    "POST /v1/groups/{group}/pause",
    "POST /v1/groups/{group}/resume",
    "GET /v1/groups/{group}/stats",
    "GET /v1/groups/{group}/jobs",
    "POST /v1/groups/{group}/jobs",
    "POST /v1/groups/{group}/jobs/batch",
    "POST /v1/groups/{group}/policy/simulate",
    "GET /v1/groups/{group}/policy/versions",
    "POST /v1/groups/{group}/policy/versions",
    "GET /v1/groups/{group}/policy/versions/{version}",
    "POST /v1/groups/{group}/policy/promote",
    "POST /v1/groups/{group}/policy/rollback",
    "POST /v1/groups/{group}/policy/unquarantine",
    "GET /v1/groups/{group}/policy/history",
    "GET /v1/groups/{group}/policy/shadow",
    "PUT /v1/groups/{group}/policy/shadow",
    "DELETE /v1/groups/{group}/policy/shadow",
    "POST /v1/groups/{group}/policy/backtest",
    "GET /v1/jobs/{id}",
    "DELETE /v1/jobs/{id}",
    "PATCH /v1/jobs/{id}",
    "POST /v1/jobs/{id}/run",
    "POST /v1/jobs/{id}/retry",
    "POST /v1/jobs/{id}/reschedule",
    "GET /v1/jobs/{id}/attempts",
    "POST /v1/jobs/{id}/attempts/{number}/replay",
    "GET /v1/schedules",
    "GET /v1/schedules/{schedule}",
    "PUT /v1/schedules/{schedule}",
    "PATCH /v1/schedules/{schedule}",
    "DELETE /v1/schedules/{schedule}",
    "GET /v1/schedules/{schedule}/history",
    "GET /v1/schedules/{schedule}/runs",
    "GET /v1/cron/runs",
    "POST /v1/schedules/{schedule}/pause",
    "POST /v1/schedules/{schedule}/resume",
    "POST /v1/schedules/{schedule}/run",
    "POST /v1/schedules/{schedule}/backfill",
    "GET /v1/keys",
    "GET /v1/keys/{key}",
    "PUT /v1/keys/{key}",
    "PATCH /v1/keys/{key}",
    "DELETE /v1/keys/{key}",
    "DELETE /v1/keys/{key}/versions/{version}",
    "GET /v1/plugins",
    "GET /v1/plugins/{plugin}",
    "GET /v1/plugins/{plugin}/versions",
    "GET /v1/plugins/{plugin}/versions/{version}",
    "PUT /v1/plugins/{plugin}/versions/{version}",
    "PATCH /v1/plugins/{plugin}/versions/{version}",
    "DELETE /v1/plugins/{plugin}/versions/{version}",
    "GET /v1/plugins/{plugin}/versions/{version}/component",
    "GET /v1/tokens",
    "POST /v1/tokens",
    "DELETE /v1/tokens/{id}",
    "GET /v1/nodes",
    "GET /v1/tenants",
    "GET /v1/tenants/{tenant}",
    "PUT /v1/tenants/{tenant}",
    "PATCH /v1/tenants/{tenant}",
    "DELETE /v1/tenants/{tenant}",
    "GET /v1/whoami",
    "GET /v1/bulk",
    "GET /v1/bulk/{id}",
    "POST /v1/groups/{group}/bulk",
    "POST /v1/groups/{group}/redrive",
    "POST /v1/groups/{group}/purge",
    "POST /v1/groups/{group}/flush",
    "POST /v1/groups/{group}/leases",
    "POST /v1/leases/{token}/extend",
    "POST /v1/leases/{token}/complete",
    "POST /v1/leases/{token}/fail",
    "POST /v1/leases/{token}/release",
];

/// Checks what the server says against its own document.
struct Document(Value);

impl Document {
    async fn of(host: &TestHost) -> Self {
        Self(host.api.without_token().get("/openapi.json").await.expect(200))
    }

    fn operation(&self, operation: &str) -> &Value {
        let (method, path) = operation.split_once(' ').unwrap();
        &self.0["paths"][path][method.to_lowercase()]
    }

    #[track_caller]
    fn fits(&self, schema: &Value, value: &Value, about: &str) {
        let mut root = schema.clone();
        root["components"] = self.0["components"].clone();
        let validator = jsonschema::validator_for(&root).unwrap_or_else(|error| panic!("{about}: {error}"));
        let errors: Vec<_> =
            validator.iter_errors(value).map(|error| format!("{} at {}", error, error.instance_path())).collect();
        assert!(errors.is_empty(), "{about}: {errors:#?}\n{value:#}");
    }

    /// A JSON answer is of the schema that is documented for its status.
    #[track_caller]
    fn covers(&self, operation: &str, reply: &Reply) -> Value {
        let status = reply.status.to_string();
        let responses = &self.operation(operation)["responses"];
        let documented = [status.as_str(), "4XX"]
            .into_iter()
            .find(|known| responses[known].is_object() && (*known == status || reply.status / 100 == 4));
        let documented = documented.unwrap_or_else(|| panic!("{operation}: {status} is not documented"));
        let value = reply.json();
        let content = responses[documented]["content"].as_object().unwrap().values().next().unwrap();
        self.fits(&content["schema"], &value, &format!("{operation} {status}"));
        value
    }

    /// A body is of the schema that is documented for the request.
    #[track_caller]
    fn takes(&self, operation: &str, body: &Value) {
        let schema = &self.operation(operation)["requestBody"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{operation}");
        self.fits(schema, body, operation);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_has_exactly_the_operations_that_there_are() {
    let host = TestHost::start().await;
    let document = Document::of(&host).await;
    let mut found = BTreeSet::new();
    for (path, methods) in document.0["paths"].as_object().unwrap() {
        found.extend(methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    assert_eq!(found, OPERATIONS.iter().map(|operation| (*operation).to_owned()).collect());
    for operation in OPERATIONS {
        let (method, path) = operation.split_once(' ').unwrap();
        let reply = host.api.raw(method.parse().unwrap(), &path.replace(['{', '}'], ""), "{}").await;
        assert!(reply.status != 405 && !reply.text().contains("nothing is served"), "{operation}: {}", reply.text());
        assert!(document.operation(operation)["responses"].is_object(), "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_as_they_are_documented() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/500", [Answer::body(500, "no")]);
    let (api, document) = (&host.api, Document::of(&host).await);
    api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let policy = json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}, "limits": {"ttl": "1h"}});
    document.takes("PUT /v1/groups/{group}", &policy);
    document.covers("PUT /v1/groups/{group}", &api.put("/v1/groups/g", policy).await);
    let job = json!({
        "url": receiver.url("/500"), "payload": {"a": 1}, "policy": {"retry": {"max_attempts": 1}}, "headers": {"X-A": "b"},
        "metadata": {"k": "v"}, "limits": {"timeout": "5s"}, "name": "n", "run_at": "+0s",
    });
    document.takes("POST /v1/groups/{group}/jobs", &job);
    let made = document.covers("POST /v1/groups/{group}/jobs", &api.post("/v1/groups/g/jobs", job.clone()).await);
    let id = made["id"].as_str().unwrap();
    api.until_state(id, "dead").await;
    let batch = json!({"jobs": [job]});
    document.takes("POST /v1/groups/{group}/jobs/batch", &batch);
    document.covers("POST /v1/groups/{group}/jobs/batch", &api.post("/v1/groups/g/jobs/batch", batch).await);
    let trial = json!({"job": job, "failures": 2, "seed": 7});
    document.takes("POST /v1/groups/{group}/policy/simulate", &trial);
    let simulated = api.post("/v1/groups/g/policy/simulate", trial).await;
    document.covers("POST /v1/groups/{group}/policy/simulate", &simulated);
    let schedule = json!({"group": "g", "cron": "@every 90s", "time_zone": "Asia/Tehran", "start": "+1h", "end": "2099-01-01T00:00:00Z",
        "max_runs": 5, "jitter": "5s", "overlap": "queue", "catch_up": "0", "catch_up_all": true, "paused": false, "job": {"url": receiver.url("/")}});
    document.takes("PUT /v1/schedules/{schedule}", &schedule);
    document.covers("PUT /v1/schedules/{schedule}", &api.put("/v1/schedules/s", schedule).await);
    document.covers("POST /v1/schedules/{schedule}/run", &api.post("/v1/schedules/s/run", json!({})).await);
    let range = json!({"from": "+0s", "to": "+0s"});
    document.takes("POST /v1/schedules/{schedule}/backfill", &range);
    document.covers("POST /v1/schedules/{schedule}/backfill", &api.post("/v1/schedules/s/backfill", range).await);
    document.covers("GET /v1/schedules/{schedule}/history", &api.get("/v1/schedules/s/history").await);
    document.covers("GET /v1/schedules/{schedule}/runs", &api.get("/v1/schedules/s/runs?count=2&from=%2B1d").await);
    let runs = api.get("/v1/cron/runs?cron=0+0+L+*+*&time_zone=Asia/Tehran").await;
    document.covers("GET /v1/cron/runs", &runs);
    document.covers("POST /v1/groups/{group}/pause", &api.post("/v1/groups/g/pause", json!({})).await);
    document.covers("POST /v1/tokens", &api.post("/v1/tokens", json!({"role": "viewer"})).await);
    for (operation, path) in [
        ("GET /v1/groups", "/v1/groups"),
        ("GET /v1/groups/{group}", "/v1/groups/g?effective=true"),
        ("GET /v1/groups/{group}/stats", "/v1/groups/g/stats"),
        ("GET /v1/groups/{group}/jobs", "/v1/groups/g/jobs"),
        ("GET /v1/jobs/{id}", &format!("/v1/jobs/{id}")),
        ("GET /v1/jobs/{id}/attempts", &format!("/v1/jobs/{id}/attempts")),
        ("GET /v1/schedules", "/v1/schedules"),
        ("GET /v1/schedules/{schedule}", "/v1/schedules/s"),
        ("GET /v1/keys", "/v1/keys"),
        ("GET /v1/keys/{key}", "/v1/keys/k"),
        ("GET /v1/plugins", "/v1/plugins"),
        ("GET /v1/plugins/{plugin}", "/v1/plugins/backoff"),
        ("GET /v1/plugins/{plugin}/versions", "/v1/plugins/backoff/versions"),
        ("GET /v1/tokens", "/v1/tokens"),
        ("GET /v1/nodes", "/v1/nodes"),
        ("GET /v1/tenants", "/v1/tenants"),
        ("GET /v1/tenants/{tenant}", "/v1/tenants/default"),
    ] {
        let value = document.covers(operation, &api.get(path).await);
        assert!(value.get("items").is_none_or(|items| !items.as_array().unwrap().is_empty()), "{operation}: {value}");
    }
    let schema = &document.operation("GET /v1/events")["responses"]["200"]["content"]["text/event-stream"]["schema"];
    for event in api.follow("?last_event_id=1").await.take(4).await {
        document.fits(schema, &event, "GET /v1/events");
    }
    document.covers("GET /v1/events", &api.get("/v1/events?kind=nonsense").await);
    document.covers("GET /v1/groups/{group}", &api.get("/v1/groups/none").await);
    document.covers("PUT /v1/groups/{group}", &api.put("/v1/groups/g", json!({"sing": 1})).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_leases_are_as_they_are_documented() {
    let host = TestHost::start().await;
    let (api, document) = (&host.api, Document::of(&host).await);
    api.put_group("g", json!({})).await;
    let next = json!({"url": "http://127.0.0.1:1/", "run_at": "+5s"});
    let job = json!({
        "url": "http://127.0.0.1:1/", "run_at": "+1h", "priority": 9, "order_key": "k", "dedupe_key": "d", "dedupe_window": "1m",
        "limits": {"ttl": "2h", "max_delay": "1m"}, "on_success": next, "on_failure": next, "metadata_headers": true,
        "metadata": {"billing": {"invoice": "17"}},
    });
    document.takes("POST /v1/groups/{group}/jobs", &job);
    let made = document.covers("POST /v1/groups/{group}/jobs", &api.post("/v1/groups/g/jobs", job.clone()).await);
    document.covers("POST /v1/groups/{group}/jobs", &api.post("/v1/groups/g/jobs", job).await);
    let debounced = json!({"debounce_seconds": 5, "debounce_key": "k", "debounce_always_delay": true});
    document.takes("POST /v1/groups/{group}/jobs", &debounced);
    document.covers("POST /v1/groups/{group}/jobs", &api.post("/v1/groups/g/jobs", debounced).await);
    let job = format!("/v1/jobs/{}", made["id"].as_str().unwrap());
    let patch = json!({"name": "n", "priority": 1});
    document.takes("PATCH /v1/jobs/{id}", &patch);
    document.covers("PATCH /v1/jobs/{id}", &api.raw(reqwest::Method::PATCH, &job, patch.to_string()).await);
    let moved = json!({"run_at": "+30m"});
    document.takes("POST /v1/jobs/{id}/reschedule", &moved);
    document.covers("POST /v1/jobs/{id}/reschedule", &api.post(&format!("{job}/reschedule"), moved).await);
    document.covers("POST /v1/jobs/{id}/retry", &api.post(&format!("{job}/retry"), json!({})).await);
    let change = json!({"action": "reschedule", "run_at": "+1h", "dry_run": false,
        "filter": {"state": "scheduled", "name_prefix": "n", "metadata": {"billing.invoice": "17"}}});
    document.takes("POST /v1/groups/{group}/bulk", &change);
    let bulk = document.covers("POST /v1/groups/{group}/bulk", &api.post("/v1/groups/g/bulk", change).await);
    assert_eq!(bulk["done"], 1, "{bulk}");
    let shown = api.get(&format!("/v1/bulk/{}", bulk["id"].as_str().unwrap())).await;
    document.covers("GET /v1/bulk/{id}", &shown);
    document.covers("GET /v1/bulk", &api.get("/v1/bulk").await);
    for verb in ["redrive", "purge", "flush"] {
        let operation = format!("POST /v1/groups/{{group}}/{verb}");
        document.covers(&operation, &api.post(&format!("/v1/groups/g/{verb}"), json!({})).await);
    }

    for _ in 0..3 {
        api.job_id("g", json!({"payload": {"a": 1}})).await;
    }
    let ask = json!({"max": 3, "lease": "30s", "wait": "1s"});
    document.takes("POST /v1/groups/{group}/leases", &ask);
    let taken = document.covers("POST /v1/groups/{group}/leases", &api.post("/v1/groups/g/leases", ask).await);
    let path =
        |index: usize, verb: &str| format!("/v1/leases/{}/{verb}", taken["leases"][index]["token"].as_str().unwrap());
    let extended = api.post(&path(0, "extend"), json!({"lease": "1m"})).await;
    document.covers("POST /v1/leases/{token}/extend", &extended);
    document.covers("POST /v1/leases/{token}/complete", &api.post(&path(0, "complete"), json!({})).await);
    let failed = json!({"error": "no", "permanent": false, "retry_after": "5s"});
    document.takes("POST /v1/leases/{token}/fail", &failed);
    document.covers("POST /v1/leases/{token}/fail", &api.post(&path(1, "fail"), failed).await);
    document.covers("POST /v1/leases/{token}/release", &api.post(&path(2, "release"), json!({})).await);
    document.covers("POST /v1/leases/{token}/release", &api.post(&path(2, "release"), json!({})).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_as_they_are_documented() {
    let host = TestHost::start().await;
    let (api, document) = (&host.api, Document::of(&host).await);
    let group = json!({"judge": {"plugin": "expected-status"}, "pin": "job", "rollback_on_quarantine": false});
    document.takes("PUT /v1/groups/{group}", &group);
    document.covers("PUT /v1/groups/{group}", &api.put("/v1/groups/g?why=first", group).await);
    let path = |rest: &str| format!("/v1/groups/g/policy/{rest}");
    let candidate = json!({"encode": [{"plugin": "base64-envelope"}], "sign": null, "why": "tried out"});
    document.takes("POST /v1/groups/{group}/policy/versions", &candidate);
    let made = api.post(&path("versions"), candidate).await;
    document.covers("POST /v1/groups/{group}/policy/versions", &made);
    let shadow = json!({"version": 2, "percent": 50});
    document.takes("PUT /v1/groups/{group}/policy/shadow", &shadow);
    document.covers("PUT /v1/groups/{group}/policy/shadow", &api.put(&path("shadow"), shadow).await);
    document.covers("GET /v1/groups/{group}/policy/shadow", &api.get(&path("shadow")).await);
    let backtest = json!({"version": 2, "created_from": "2026-01-01T00:00:00Z", "limit": 5});
    document.takes("POST /v1/groups/{group}/policy/backtest", &backtest);
    document.covers("POST /v1/groups/{group}/policy/backtest", &api.post(&path("backtest"), backtest).await);
    let canary = json!({"version": 2, "percent": 5, "max_faults": 0.1, "max_differences": 0.2, "min_attempts": 9});
    document.takes("POST /v1/groups/{group}/policy/promote", &canary);
    document.covers("POST /v1/groups/{group}/policy/promote", &api.post(&path("promote"), canary).await);
    let promoted = json!({"version": 2, "why": "it works"});
    document.takes("POST /v1/groups/{group}/policy/promote", &promoted);
    document.covers("POST /v1/groups/{group}/policy/promote", &api.post(&path("promote"), promoted).await);
    let why = json!({"why": "it does not"});
    document.takes("POST /v1/groups/{group}/policy/rollback", &why);
    document.covers("POST /v1/groups/{group}/policy/rollback", &api.post(&path("rollback"), why.clone()).await);
    document.covers("POST /v1/groups/{group}/policy/unquarantine", &api.post(&path("unquarantine"), why).await);
    for (operation, path) in [
        ("GET /v1/groups/{group}/policy/versions", path("versions")),
        ("GET /v1/groups/{group}/policy/versions/{version}", path("versions/1")),
        ("GET /v1/groups/{group}/policy/history", path("history")),
    ] {
        document.covers(operation, &api.get(&path).await);
    }
    let backoff = api.get("/v1/plugins/backoff").await.expect(200);
    let patch = json!({"deprecated": "old"});
    document.takes("PATCH /v1/plugins/{plugin}/versions/{version}", &patch);
    let path = format!("/v1/plugins/backoff/versions/{}", backoff["version"].as_str().unwrap());
    let refused = api.raw(reqwest::Method::PATCH, &path, patch.to_string()).await;
    document.covers("PATCH /v1/plugins/{plugin}/versions/{version}", &refused);
    document.covers("DELETE /v1/plugins/{plugin}/versions/{version}", &api.delete(&path).await);
}

/// The samples of an exposition in the OpenMetrics text format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.strip_suffix("# EOF\n").expect("the text ends with its end").lines();
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("a number: {line}")))
    };
    lines.filter(|line| !line.starts_with('#')).map(sample).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_count_what_happens() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/500", [Answer::status(500)]);
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    for (path, state) in [("/a", "succeeded"), ("/b", "succeeded"), ("/500", "dead")] {
        let id = host.api.job_id("g", json!({"url": receiver.url(path)})).await;
        host.api.until_state(&id, state).await;
    }
    let reply = host.api.without_token().get("/metrics").await;
    assert!(reply.headers[CONTENT_TYPE].to_str().unwrap().starts_with("application/openmetrics-text"));
    let samples = samples(reply.text());
    for (name, value) in [
        ("carillon_jobs_accepted_total", 3.0),
        (r#"carillon_jobs_ended_total{state="succeeded"}"#, 2.0),
        (r#"carillon_jobs_ended_total{state="dead"}"#, 1.0),
        (r#"carillon_attempts_total{outcome="success"}"#, 2.0),
        (r#"carillon_attempts_total{outcome="retryable"}"#, 1.0),
        ("carillon_lateness_seconds_count", 3.0),
        ("carillon_exchange_seconds_count", 3.0),
        (r#"carillon_policy_call_seconds_count{role="judge"}"#, 3.0),
        (r#"carillon_http_requests_total{method="POST",route="/v1/groups/{group}/jobs",status="201"}"#, 3.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}: {samples:#?}");
    }
    assert!(samples["carillon_store_commits_total"] > 0.0, "{samples:#?}");
    assert!(samples["carillon_store_commands_total"] >= samples["carillon_store_commits_total"], "{samples:#?}");
    assert!(samples["carillon_database_bytes"] > 0.0 && samples["process_resident_memory_bytes"] > 1e6, "{samples:#?}");
    assert!(samples.contains_key("carillon_store_errors_total"), "{samples:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_runs_is_alive_and_ready() {
    let host = TestHost::start().await;
    let nobody = host.api.without_token();
    assert_eq!(nobody.get("/healthz").await.text(), "ok\n");
    assert_eq!(nobody.get("/readyz").await.text(), "ready\nnodes 1\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_say_how_much_waits_and_for_how_long() {
    let clock = crate::support::ManualClock::new();
    let host = crate::support::Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({})).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    for run_at in ["+0s", "+5s", "+1h"] {
        host.api.job_id("g", json!({"url": "http://127.0.0.1:9/", "run_at": run_at})).await;
    }
    clock.advance(std::time::Duration::from_secs(20));
    let samples = samples(host.api.get("/metrics").await.text());
    for (name, value) in
        [("carillon_jobs_waiting", 3.0), ("carillon_jobs_due", 2.0), ("carillon_oldest_due_job_age_seconds", 20.0)]
    {
        assert_eq!(samples.get(name), Some(&value), "{name}: {samples:#?}");
    }
}
