//! Tokens for certain groups: they see and touch nothing of other groups, on no way.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Setup, TestHost, closed_operations};

const NOWHERE: &str = "http://127.0.0.1:1/";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}"))
}

/// A host with the groups `mine` and `other`, and a token for `mine`.
async fn start(role: &str) -> (TestHost, Api) {
    let host = TestHost::start().await;
    for group in ["mine", "other"] {
        host.api.put_group(group, json!({})).await;
    }
    let token = host.api.token(json!({"role": role, "groups": ["mine"]})).await;
    let theirs = host.api.with_token(&token);
    (host, theirs)
}

fn later() -> Value {
    json!({"url": NOWHERE, "run_at": "+1h", "name": "n"})
}

fn schedule(group: &str) -> Value {
    json!({"group": group, "cron": "@hourly", "job": {"url": NOWHERE}})
}

async fn ids(api: &Api, path: &str) -> Vec<String> {
    api.get(path).await.items().iter().map(|item| text(&item["id"]).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_confined_or_refused() {
    let (host, theirs) = start("admin").await;
    for (method, path) in closed_operations(&host.api).await {
        let reply = theirs.raw(method.clone(), &path, "{}").await;
        let operation = format!("{method} {path}: {} {}", reply.status, reply.text());
        let of_tenant =
            ["/v1/audit", "/v1/keys", "/v1/tokens", "/v1/tenants", "/v1/nodes"].iter().any(|of| path.starts_with(of));
        if path.starts_with("/v1/groups/") {
            assert_eq!(reply.status, 404, "{operation}");
        } else if of_tenant || (path.starts_with("/v1/plugins") && method != Method::GET) {
            assert_eq!(reply.status, 403, "{operation}");
        } else {
            assert!(reply.status < 500, "{operation}");
        }
    }
    let other = json!({"dead_letters": "other"});
    theirs.put("/v1/groups/mine", other.clone()).await.problem_at(422, "/dead_letters");
    theirs.patch("/v1/groups/mine", other.clone()).await.problem_at(422, "/dead_letters");
    theirs.post("/v1/groups/mine/policy/versions", other).await.problem_at(422, "/dead_letters");
    theirs.patch("/v1/groups/mine", json!({"limits": {"concurrency": 3}})).await.expect(200);
    theirs.put("/v1/groups/new", json!({})).await.problem(404);
    host.api.get("/v1/groups/new").await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_show_what_is_of_the_tokens_groups() {
    let (host, theirs) = start("viewer").await;
    let mut mine = Vec::new();
    for _ in 0..3 {
        host.api.job_id("other", later()).await;
        mine.push(host.api.job_id("mine", later()).await);
    }
    mine.reverse();
    for group in ["mine", "other"] {
        host.api.put(&format!("/v1/schedules/of-{group}"), schedule(group)).await.expect(201);
        host.api.post(&format!("/v1/groups/{group}/bulk"), json!({"action": "run", "dry_run": false})).await.ok();
    }
    let names = |items: Vec<Value>| items.iter().map(|item| item["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(theirs.get("/v1/groups").await.items()), [json!("mine")]);
    assert_eq!(names(theirs.get("/v1/schedules").await.items()), [json!("of-mine")]);
    assert_eq!(ids(&theirs, "/v1/jobs").await, mine);
    let page = theirs.get("/v1/jobs?limit=2").await.expect(200);
    let rest = format!("/v1/jobs?limit=2&cursor={}", text(&page["next_cursor"]));
    assert_eq!(ids(&theirs, &rest).await, mine[2..]);
    let bulks = theirs.get("/v1/bulk").await.items();
    assert!(bulks.len() == 1 && bulks[0]["group"] == "mine", "{bulks:?}");
    assert_eq!(theirs.get("/v1/whoami").await.expect(200)["groups"], json!(["mine"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_another_group_is_reached_by_its_id() {
    let (host, theirs) = start("producer").await;
    let id = host.api.job_id("other", later()).await;
    for (method, path) in [
        (Method::GET, format!("/v1/jobs/{id}")),
        (Method::GET, "/v1/jobs/n?group=other".to_owned()),
        (Method::GET, format!("/v1/jobs/{id}/attempts")),
        (Method::GET, format!("/v1/jobs/{id}/payload")),
        (Method::GET, format!("/v1/jobs/{id}/attempts/1/request")),
        (Method::POST, format!("/v1/jobs/{id}/attempts/1/replay")),
        (Method::POST, format!("/v1/jobs/{id}/run")),
        (Method::POST, format!("/v1/jobs/{id}/copy")),
        (Method::POST, format!("/v1/jobs/{id}/retry")),
        (Method::PATCH, format!("/v1/jobs/{id}")),
        (Method::DELETE, format!("/v1/jobs/{id}")),
    ] {
        let reply = theirs.raw(method, &path, "{}").await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
    }
    theirs.post(&format!("/v1/jobs/{id}/reschedule"), json!({"run_at": "+2h"})).await.problem(404);
    let unchanged = host.api.job(&id).await;
    assert_eq!((&unchanged["state"], ids(&host.api, "/v1/jobs").await.len()), (&json!("scheduled"), 1));

    let bulk = host.api.post("/v1/groups/other/flush", json!({})).await.expect(200);
    theirs.get(&format!("/v1/bulk/{}", text(&bulk["id"]))).await.problem(404);

    host.api.post_job("other", json!({"payload": 1})).await;
    let leased = host.api.post("/v1/groups/other/leases", json!({})).await.expect(200);
    let lease = text(&leased["leases"][0]["token"]);
    for verb in ["extend", "complete", "fail", "release"] {
        theirs.post(&format!("/v1/leases/{lease}/{verb}"), json!({})).await.problem(404);
    }
    theirs.post("/v1/groups/other/leases", json!({})).await.problem(404);
    host.api.post(&format!("/v1/leases/{lease}/complete"), json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_of_another_group_are_neither_seen_nor_taken() {
    let (host, theirs) = start("producer").await;
    host.api.put("/v1/schedules/s", schedule("other")).await.expect(201);
    for (method, path) in [
        (Method::GET, "/v1/schedules/s"),
        (Method::GET, "/v1/schedules/s/history"),
        (Method::GET, "/v1/schedules/s/runs"),
        (Method::POST, "/v1/schedules/s/pause"),
        (Method::POST, "/v1/schedules/s/resume"),
        (Method::POST, "/v1/schedules/s/run"),
        (Method::PATCH, "/v1/schedules/s"),
        (Method::DELETE, "/v1/schedules/s"),
    ] {
        theirs.raw(method, path, "{}").await.problem(404);
    }
    theirs.put("/v1/schedules/s", schedule("mine")).await.problem(403);
    theirs.put("/v1/schedules/t", schedule("other")).await.problem_at(422, "/group");
    theirs.put("/v1/schedules/t", schedule("mine")).await.expect(201);
    theirs.patch("/v1/schedules/t", json!({"group": "other"})).await.problem_at(422, "/group");
    theirs.delete("/v1/schedules/t").await.expect(204);
    assert_eq!(host.api.get("/v1/schedules/s").await.expect(200)["group"], "other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_name_no_other_group() {
    let (host, theirs) = start("producer").await;
    let next = json!({"url": NOWHERE, "group": "other"});
    let job = json!({"url": NOWHERE, "run_at": "+1h", "on_success": next});
    theirs.post("/v1/groups/mine/jobs", job.clone()).await.problem_at(422, "/on_success/group");
    let deep = json!({"url": NOWHERE, "run_at": "+1h", "on_failure": {"url": NOWHERE, "on_success": next}});
    theirs.post("/v1/groups/mine/jobs", deep).await.problem_at(422, "/on_failure/on_success/group");
    theirs.post("/v1/groups/mine/jobs/batch", json!({"jobs": [job.clone()]})).await.problem(422);
    theirs.post("/v1/groups/mine/policy/simulate", json!({"job": job.clone()})).await.problem(422);
    let mut scheduled = schedule("mine");
    scheduled["job"]["on_success"] = next;
    theirs.put("/v1/schedules/s", scheduled).await.problem(422);
    assert!(host.api.get("/v1/jobs").await.items().is_empty());

    // Others' keys for debouncing are theirs.
    let debounced =
        json!({"url": NOWHERE, "debounce_key": "k", "debounce_seconds": 600, "debounce_always_delay": true});
    let id = host.api.job_id("other", debounced.clone()).await;
    let own = theirs.post("/v1/groups/mine/jobs", debounced.clone()).await.expect(201);
    assert_ne!(own["id"], *id);
    assert_eq!(theirs.post("/v1/groups/mine/jobs", debounced).await.expect(200)["id"], own["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_mounts_show_no_other_group() {
    let (host, theirs) = start("producer").await;
    theirs.get("/v1/events?group=other").await.problem(404);
    let mut stream = theirs.follow("").await;
    host.api.post_job("other", later()).await;
    host.api.post_job("mine", later()).await;
    let event = stream.next().await;
    assert_eq!((&event["kind"], &event["group"]), (&json!("push"), &json!("mine")));
    for mount in ["doppler", "poussetaches", "callme"] {
        let reply = theirs.get(&format!("/compat/{mount}/")).await;
        assert_eq!(reply.status, 403, "{mount}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_a_token_are_checked() {
    let (host, _) = start("viewer").await;
    for (groups, pointer) in [(json!([]), "/groups"), (json!(["mine", "a b"]), "/groups/1"), (json!([""]), "/groups/0")]
    {
        let token = json!({"role": "viewer", "groups": groups});
        host.api.post("/v1/tokens", token).await.problem_at(422, pointer);
    }
    let operator = json!({"role": "admin", "operator": true, "groups": ["mine"]});
    host.api.post("/v1/tokens", operator).await.problem_at(422, "/groups");
    let made = host.api.post("/v1/tokens", json!({"role": "viewer", "groups": ["b", "a", "b"]})).await.expect(201);
    assert_eq!(made["groups"], json!(["a", "b"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_several_groups_are_bounded_and_show_no_other_group() {
    const JOBS: usize = 30;
    let host = Setup::new().set("limits.answer", "64KiB").start().await;
    let groups = ["mine", "other", "too"];
    for group in groups {
        host.api.put_group(group, json!({})).await;
    }
    let job = json!({"url": NOWHERE, "run_at": "+1h", "headers": {"X-A": "x".repeat(8_000)}});
    for _ in 0..JOBS {
        for group in groups {
            host.api.job_id(group, job.clone()).await;
        }
    }
    let token = host.api.token(json!({"role": "viewer", "groups": ["mine", "too"]})).await;
    let theirs = host.api.with_token(&token);
    let (mut seen, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let reply = theirs.get(&format!("/v1/jobs?limit=1000{cursor}")).await;
        assert!(reply.body.len() < 70_000, "{} bytes", reply.body.len());
        let page = reply.expect(200);
        for job in page["items"].as_array().unwrap() {
            assert_ne!(job["group"], "other");
            assert!(seen.insert(text(&job["id"]).to_owned()), "each job once: {job}");
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 2 * JOBS);
}
