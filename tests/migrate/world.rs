//! A server with something of every kind, and what it shows of it.

use reqwest::Method;
use serde_json::{Value, json};

use super::MANY;
use crate::support::{Answer, Api, JUDGE_PATH, Receiver, TestHost, id_of, judge, schedules, upload};

/// Makes a job with an idempotency key.
pub async fn with_key(api: &Api, key: &str, job: &Value) -> Value {
    let request = api.request(Method::POST, "/v1/groups/g/jobs").header("Idempotency-Key", key).body(job.to_string());
    api.send(request).await.expect(201)
}

/// A server in the middle of its life.
pub struct World {
    pub host: TestHost,
    pub receiver: Receiver,
    /// Of a tenant with a plugin of its own.
    pub token: String,
    /// The token of a consumer's lease.
    pub lease: String,
    /// The job that was made with the idempotency key `k`, and what was asked for then.
    pub once: (String, Value),
}

impl World {
    /// A server with something of every kind.
    pub async fn start() -> Self {
        let (host, receiver) = (TestHost::start().await, Receiver::start().await);
        let (api, later) = (&host.api, json!("+1h"));
        api.put_group("g", json!({})).await;
        schedules::put(&host, &receiver, "tick", "* * * * * *", json!({"max_runs": 1})).await;
        receiver.arrived("/tick", 1).await;
        // What is compared later is as it stays: the first run that `max_runs` excludes has been recorded, and none is after it.
        api.until_shown("/v1/schedules/tick", |schedule| schedule["last_skip"] == "max_runs").await;
        api.until_ended("g").await;

        api.put("/v1/keys/k", json!({"secret": "s3cret"})).await.expect(204);
        let retry = json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "1h", "jitter": 0}});
        let sign = json!({"plugin": "werkzeug-cookie", "keys": ["k"]});
        api.put_group("signed", json!({"sign": sign, "retry": retry})).await;
        receiver.on("/signed", [Answer::body(503, "not\u{0}yet"), Answer::status(200)]);
        let job = json!({"url": receiver.url("/signed"), "payload": {"a": "\u{0}"}, "metadata": {"a.b": "c d", "n": {"k": "é"}}});
        let retried = api.job_id("signed", job).await;
        api.until_retry(&retried, 1).await;

        receiver.on("/dead", [Answer::status(503)]);
        let job = json!({"url": receiver.url("/dead"), "policy": {"retry": {"max_attempts": 1}}});
        let dead = api.job_id("g", job).await;
        api.until_state(&dead, "dead").await;
        for number in 0..3 {
            let job = json!({"url": receiver.url("/ordered"), "order_key": "o", "payload": number, "run_at": later});
            api.job_id("g", job).await;
        }
        let many: Vec<Value> = (0..MANY).map(|_| json!({"url": receiver.url("/many"), "run_at": later})).collect();
        api.post("/v1/groups/g/jobs/batch", json!({"jobs": many})).await.expect(201);
        let job = json!({"url": receiver.url("/once"), "run_at": later});
        let once = (id_of(&with_key(api, "k", &job).await), job);
        let (url, limits) = (receiver.url("/deduped"), json!({"ttl": "3h"}));
        let job = json!({"url": url, "run_at": later, "dedupe_key": "d", "limits": limits, "name": "n"});
        api.post_job("g", job).await;

        api.put_group("q", json!({})).await;
        for number in 0..2 {
            api.job_id("q", json!({"payload": number})).await;
        }
        let leased = api.post("/v1/groups/q/leases", json!({"lease": "12h"})).await.expect(200);
        let lease = leased["leases"][0]["token"].as_str().unwrap().to_owned();

        api.put("/v1/tenants/acme", json!({})).await.ok();
        let token = api.token(json!({"tenant": "acme", "role": "admin"})).await;
        let acme = api.with_token(&token);
        upload(&acme, JUDGE_PATH, judge().await).await.expect(201);
        acme.put_group("g", json!({"judge": {"plugin": "judge-json-ok"}})).await;
        acme.job_id("g", json!({"url": receiver.url("/acme"), "run_at": later})).await;
        Self { host, receiver, token, lease, once }
    }

    /// The kind of things that happen while a copy is made.
    pub async fn go_on(&self, round: &str) {
        let api = &self.host.api;
        let jobs = api.get("/v1/groups/g/jobs?state=scheduled&limit=500").await.items();
        let of = |path: &str| {
            let url = self.receiver.url(path);
            let found = jobs.iter().find(|job| job["request"]["url"] == url.as_str());
            format!("/v1/jobs/{}", found.unwrap_or_else(|| panic!("{path} is in {jobs:?}"))["id"].as_str().unwrap())
        };
        let first = of("/many");
        api.delete(&first).await.expect(200);
        let edit = json!({"payload": round, "metadata": {"round": round}});
        let edited = format!("/v1/jobs/{}", self.once.0);
        api.raw(Method::PATCH, &edited, edit.to_string()).await.expect(200);
        api.put_group(round, json!({})).await;
        let done = api.job_id(round, json!({"url": self.receiver.url("/done")})).await;
        api.until_state(&done, "succeeded").await;
        // It was first of its order key, and the next one goes in its stead.
        api.delete(&of("/ordered")).await.expect(200);
        api.post("/v1/groups/g/purge", json!({"filter": {"state": "cancelled"}})).await.ok();
        api.put_group("gone", json!({})).await;
        assert_eq!(api.delete("/v1/groups/gone").await.status, 204);
        api.put_group("gone", json!({})).await;
    }
}

/// Everything that can be asked for.
pub async fn shown(host: &TestHost, token: &str) -> Vec<(String, Value)> {
    let mut shown = Vec::new();
    let acme = host.api.with_token(token);
    for (who, api) in [("operator", &host.api), ("acme", &acme)] {
        let mut paths: Vec<String> =
            ["schedules", "keys", "tokens", "bulk"].iter().map(|list| format!("/v1/{list}")).collect();
        paths.push(JUDGE_PATH.to_owned());
        if who == "operator" {
            paths.push("/v1/tenants".to_owned());
        }
        for group in api.get("/v1/groups").await.items() {
            let group = format!("/v1/groups/{}", group["name"].as_str().unwrap());
            for job in api.get(&format!("{group}/jobs?limit=500")).await.items() {
                let job = format!("/v1/jobs/{}", id_of(&job));
                paths.extend([format!("{job}/attempts"), job]);
            }
            paths.extend([
                format!("{group}?effective=true"),
                format!("{group}/stats"),
                format!("{group}/jobs?limit=500"),
            ]);
        }
        for path in paths {
            let answer = api.get(&path).await;
            shown.push((format!("{who} {path}"), json!([answer.status, answer.text()])));
        }
    }
    shown
}
