//! What a tenant keeps is bounded by its quota, which has defaults.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Setup, eventually};

const URL: &str = "http://127.0.0.1:1/";

/// Checks that a request was refused because of this bound.
#[track_caller]
fn refused(problem: &Value, name: &str, limit: u64) {
    assert_eq!(problem["type"], "urn:carillon:problem:quota", "{problem}");
    assert_eq!(problem["quota"]["name"], name, "{problem}");
    assert_eq!(problem["quota"]["limit"], limit, "{problem}");
    assert!(problem["quota"]["used"].as_u64().unwrap() <= limit, "{problem}");
}

async fn usage(api: &Api) -> Value {
    api.get("/v1/whoami").await.expect(200)["usage"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entities_are_counted_and_the_tenants_own_quota_overrides_the_default() {
    let setup = ["groups", "schedules", "keys", "tokens"]
        .into_iter()
        .fold(Setup::new(), |setup, name| setup.set(&format!("limits.tenant.{name}"), "3"));
    let host = setup.start().await;
    let api = host.api.tenant("acme").await;
    let put = async |kind: &str, n: usize| match kind {
        "groups" => api.put(&format!("/v1/groups/g{n}"), json!({})).await,
        "schedules" => {
            let doc = json!({"group": "g0", "cron": "@daily", "job": {"url": URL}});
            api.put(&format!("/v1/schedules/s{n}"), doc).await
        }
        "keys" => api.put(&format!("/v1/keys/k{n}"), json!({"secret": "x".repeat(32)})).await,
        _ => api.post("/v1/tokens", json!({"role": "viewer"})).await,
    };
    for kind in ["groups", "schedules", "keys", "tokens"] {
        let had = usage(&api).await[kind].as_u64().unwrap();
        for n in had..3 {
            let reply = put(kind, n as usize).await;
            assert!(reply.status < 300, "{kind}: {}", reply.text());
        }
        refused(&put(kind, 3).await.problem(409), kind, 3);
        assert_eq!(usage(&api).await[kind], 3, "{kind}");
        if kind != "tokens" {
            assert!(put(kind, 0).await.status < 300, "a change of what is there needs no room");
        }
        host.api.patch("/v1/tenants/acme", json!({"quota": {kind: 4}})).await.ok();
        assert!(put(kind, 3).await.status < 300, "{kind}: its own quota counts");
        refused(&put(kind, 4).await.problem(409), kind, 4);
    }
    api.delete("/v1/groups/g3").await;
    assert!(put("groups", 5).await.status < 300, "what is removed makes room");
    let limits = api.get("/v1/whoami").await.expect(200)["limits"].clone();
    assert_eq!((&limits["groups"], &limits["jobs"]), (&json!(4), &json!(1_000_000)));
    let metrics = host.api.get("/metrics").await;
    assert!(metrics.text().contains("carillon_refused_total{bound=\"limits.tenant.groups\"}"));
    // Other tenants have their own.
    host.api.put_group("other", json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_bounded_together() {
    let host = Setup::new().set("limits.tenant.config_bytes", "2KiB").start().await;
    let api = host.api.tenant("acme").await;
    let doc = json!({"limits": {"rate": "100/s", "concurrency": 5, "timeout": "10s", "ttl": "1h"}});
    let mut count = 0;
    let reply = loop {
        let reply = api.put(&format!("/v1/groups/g{count}"), doc.clone()).await;
        if reply.status >= 300 {
            break reply;
        }
        count += 1;
    };
    refused(&reply.problem(409), "config_bytes", 2_048);
    assert!((10..40).contains(&count), "{count} groups");
    assert!(usage(&api).await["config_bytes"].as_u64().unwrap() <= 2_048);
    api.post("/v1/groups/g0/pause", Value::Null).await;
    assert_eq!(api.put("/v1/groups/g0", json!({})).await.status, 200, "a smaller document fits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_bytes_are_bounded_and_what_is_removed_makes_room() {
    let setup = Setup::new().set("limits.tenant.stored_bytes", "100KiB");
    let host = setup.start().await;
    let api = host.api.tenant("acme").await;
    api.put_group("g", json!({})).await;
    assert_eq!(usage(&api).await["stored_bytes"], 0);
    let job = || json!({"url": URL, "run_at": "+1h", "payload": "x".repeat(20_000)});
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(api.job_id("g", job()).await);
    }
    let full = usage(&api).await["stored_bytes"].as_u64().unwrap();
    assert!((80_000..90_000).contains(&full), "{full}");
    let limit = 100 << 10;
    api.post("/v1/groups/g/jobs", job()).await.expect(201);
    for (path, body) in [
        ("/v1/groups/g/jobs".to_owned(), job()),
        ("/v1/groups/g/jobs/batch".to_owned(), json!({"jobs": [job()]})),
        (format!("/v1/jobs/{}/copy", ids[0]), json!({})),
    ] {
        refused(&api.post(&path, body).await.problem(409), "stored_bytes", limit);
    }
    let metrics = host.api.get("/metrics").await;
    assert!(metrics.text().contains("carillon_refused_total{bound=\"limits.tenant.stored_bytes\"}"));
    // The jobs of another tenant, and small ones, have room.
    api.post("/v1/groups/g/jobs", json!({"url": URL, "run_at": "+1h"})).await.expect(201);
    host.api.put_group("g", json!({})).await;
    host.api.post("/v1/groups/g/jobs", job()).await.expect(201);
    host.stop().await;

    let host = setup.start().await;
    let api = api.at(&host.base);
    refused(&api.post("/v1/groups/g/jobs", job()).await.problem(409), "stored_bytes", limit);
    for id in &ids {
        assert!(api.delete(&format!("/v1/jobs/{id}")).await.status < 300);
    }
    refused(&api.post("/v1/groups/g/jobs", job()).await.problem(409), "stored_bytes", limit);
    api.post("/v1/groups/g/purge", json!({"filter": {"state": "cancelled"}})).await.ok();
    api.post("/v1/groups/g/jobs", job()).await.expect(201);
    let after = usage(&api).await["stored_bytes"].as_u64().unwrap();
    assert!(after < full, "{after}");
    host.api.patch("/v1/tenants/acme", json!({"quota": {"stored_bytes": 1}})).await.ok();
    let full = api.post("/v1/groups/g/jobs", job()).await.problem(409);
    assert_eq!((&full["quota"]["name"], &full["quota"]["limit"]), (&json!("stored_bytes"), &json!(1)), "{full}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_bytes_of_many_jobs_are_counted_in_pages_after_a_restart() {
    let setup = Setup::new();
    let host = setup.start().await;
    let api = host.api.tenant("acme").await;
    let job = json!({"url": URL, "run_at": "+1h", "payload": "x".repeat(98)});
    for (group, count) in [("empty", 0), ("few", 7), ("many", 1_203)] {
        api.put_group(group, json!({})).await;
        if count > 0 {
            let batch = json!({"jobs": vec![job.clone(); count]});
            api.post(&format!("/v1/groups/{group}/jobs/batch"), batch).await.expect(201);
        }
    }
    let stored = async |api: &Api| {
        let stored = async || usage(api).await["stored_bytes"].as_u64();
        eventually("the jobs are counted", stored, |stored| stored.is_some_and(|bytes| bytes % 1_210 == 0)).await
    };
    let before = stored(&api).await;
    assert!(before.is_some_and(|bytes| bytes >= 1_210 * 100), "{before:?}");
    host.stop().await;
    let host = setup.start().await;
    assert_eq!(stored(&api.at(&host.base)).await, before, "equal jobs have equal sizes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_jobs_are_bounded_on_every_way_in() {
    let host = Setup::new().set("limits.tenant.jobs", "5").start().await;
    let api = host.api.tenant("acme").await;
    api.put_group("g", json!({})).await;
    let job = || json!({"url": URL, "run_at": "+1h"});
    let id = api.job_id("g", job()).await;
    refused(&api.post("/v1/groups/g/jobs/batch", json!({"jobs": vec![job(); 5]})).await.problem(409), "jobs", 5);
    api.post("/v1/groups/g/jobs/batch", json!({"jobs": vec![job(); 4]})).await.expect(201);
    assert_eq!(usage(&api).await["jobs"], 5);
    let schedule = json!({"group": "g", "cron": "@yearly", "job": {"url": URL}});
    api.put("/v1/schedules/s", schedule).await.ok();
    for (path, body) in [
        ("/v1/groups/g/jobs".to_owned(), job()),
        (format!("/v1/jobs/{id}/copy"), json!({})),
        ("/v1/schedules/s/run".to_owned(), Value::Null),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        refused(&api.raw(Method::POST, &path, body).await.problem(409), "jobs", 5);
    }
    let mount = api.post("/compat/poussetaches/", json!({"url": URL, "payload": "eA=="})).await;
    assert_eq!(mount.status, 409, "{}", mount.text());
    assert!(api.delete(&format!("/v1/jobs/{id}")).await.status < 300);
    api.post("/v1/groups/g/jobs", job()).await.expect(201);
    refused(&api.post("/v1/groups/g/jobs", job()).await.problem(409), "jobs", 5);
    host.api.put_group("g", json!({})).await;
    host.api.post("/v1/groups/g/jobs", job()).await.expect(201);
}
