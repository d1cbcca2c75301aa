//! Changes and refusals in the audit log: each request that changes something has an entry, and so has its refusal.

use carillon_core::clock::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::audit::{all_entries, newest, since, verbs};
use crate::support::scenes::{Play, Step, routes, scene};
use crate::support::{ADMIN_TOKEN, Answer, Api, JUDGE_PATH, Receiver, Setup, TestHost, judge, upload};

/// The verb of a request that changes something.
fn verb(route: &str) -> &'static str {
    match route {
        "PUT /v1/groups/{group}" | "PATCH /v1/groups/{group}" => "group.put",
        "DELETE /v1/groups/{group}" => "group.delete",
        "POST /v1/groups/{group}/pause" => "group.pause",
        "POST /v1/groups/{group}/resume" => "group.resume",
        "POST /v1/groups/{group}/bulk" | "POST /v1/groups/{group}/flush" => "bulk.cancel",
        "POST /v1/groups/{group}/redrive" => "bulk.redrive",
        "POST /v1/groups/{group}/purge" => "bulk.purge",
        "POST /v1/groups/{group}/jobs" | "POST /v1/groups/{group}/jobs/batch" => "job.create",
        "POST /v1/groups/{group}/leases" => "lease.create",
        "POST /v1/groups/{group}/policy/versions" => "policy.propose",
        "POST /v1/groups/{group}/policy/promote" => "policy.promote",
        "POST /v1/groups/{group}/policy/rollback" => "policy.rollback",
        "POST /v1/groups/{group}/policy/unquarantine" => "policy.unquarantine",
        "POST /v1/groups/{group}/policy/simulate" => "policy.simulate",
        "POST /v1/groups/{group}/policy/backtest" => "policy.backtest",
        "PUT /v1/groups/{group}/policy/shadow" => "policy.shadow",
        "DELETE /v1/groups/{group}/policy/shadow" => "policy.unshadow",
        "DELETE /v1/jobs/{id}" => "job.cancel",
        "PATCH /v1/jobs/{id}" => "job.edit",
        "POST /v1/jobs/{id}/run" => "job.run",
        "POST /v1/jobs/{id}/retry" => "job.retry",
        "POST /v1/jobs/{id}/reschedule" => "job.reschedule",
        "POST /v1/jobs/{id}/copy" => "job.copy",
        "POST /v1/jobs/{id}/attempts/{number}/replay" => "job.replay",
        "PUT /v1/keys/{key}" => "key.put",
        "PATCH /v1/keys/{key}" => "key.grant",
        "DELETE /v1/keys/{key}" => "key.delete",
        "DELETE /v1/keys/{key}/versions/{version}" => "key.delete_version",
        "POST /v1/leases/{token}/extend" => "lease.extend",
        "POST /v1/leases/{token}/complete" => "lease.complete",
        "POST /v1/leases/{token}/fail" => "lease.fail",
        "POST /v1/leases/{token}/release" => "lease.release",
        "PUT /v1/plugins/{plugin}/versions/{version}" => "plugin.put",
        "PATCH /v1/plugins/{plugin}/versions/{version}" => "plugin.deprecate",
        "DELETE /v1/plugins/{plugin}/versions/{version}" => "plugin.delete",
        "PUT /v1/schedules/{schedule}" | "PATCH /v1/schedules/{schedule}" => "schedule.put",
        "DELETE /v1/schedules/{schedule}" => "schedule.delete",
        "POST /v1/schedules/{schedule}/pause" => "schedule.pause",
        "POST /v1/schedules/{schedule}/resume" => "schedule.resume",
        "POST /v1/schedules/{schedule}/run" => "schedule.run",
        "POST /v1/schedules/{schedule}/backfill" => "schedule.backfill",
        "PUT /v1/tenants/{tenant}" | "PATCH /v1/tenants/{tenant}" => "tenant.put",
        "POST /v1/tenants/{tenant}/suspend" => "tenant.suspend",
        "POST /v1/tenants/{tenant}/resume" => "tenant.resume",
        "DELETE /v1/tenants/{tenant}" => "tenant.delete",
        "POST /v1/tokens" => "token.create",
        "POST /v1/tokens/{id}/rotate" => "token.rotate",
        "DELETE /v1/tokens/{id}" => "token.revoke",
        _ => panic!("`{route}` changes something: say here what its verb in the audit log is"),
    }
}

async fn send(api: &Api, play: &Play, step: &Step) -> crate::support::Reply {
    let request = play.request(step);
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    api.raw(Method::from_bytes(step.method.as_bytes()).unwrap(), &play.fill(step.path), body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_changes_something_has_an_entry_and_so_has_its_refusal() {
    let receiver = Receiver::start().await;
    receiver.on("/", [Answer::status(200)]);
    let host = Setup::new().set("audit.jobs", "true").start().await;
    let (api, mut secrets) = (&host.api, vec!["x".repeat(32), "y".repeat(32), "z".repeat(32), ADMIN_TOKEN.to_owned()]);
    for (number, route) in routes(api).await.into_iter().enumerate() {
        let steps = scene(&route, &receiver.url("/"));
        let (last, before) = steps.split_last().unwrap();
        let mut play = Play::new(number, SystemClock.now().0 / 1_000);
        for step in before {
            let answer = send(api, &play, step).await.ok();
            secrets.extend(answer["token"].as_str().map(str::to_owned));
            play.learn(&answer);
        }
        secrets.extend(play.known.get("lease").and_then(Value::as_str).map(str::to_owned));
        let viewer = api.post("/v1/tokens", json!({"role": "viewer", "name": "watcher"})).await.expect(201);
        let seen = newest(api).await;
        let theirs = api.with_token(viewer["token"].as_str().unwrap());
        assert_eq!(send(&theirs, &play, last).await.status, 403, "{route}");
        let refused = &since(api, &seen).await[..];
        assert_eq!(verbs(refused), [verb(&route)], "{route}");
        let [refused] = refused else { unreachable!() };
        assert_eq!((&refused["outcome"], &refused["actor"]["token"]), (&json!("forbidden"), &viewer["id"]), "{route}");
        assert_eq!((&refused["actor"]["role"], &refused["actor"]["name"]), (&json!("viewer"), &json!("watcher")));

        // There is nothing to replay; the request for it is recorded.
        let reply = send(api, &play, last).await;
        assert!((200..300).contains(&reply.status) || verb(&route) == "job.replay", "{route}: {}", reply.text());
        let request = reply.headers["carillon-request-id"].to_str().unwrap().to_owned();
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        secrets.extend(answer["token"].as_str().map(str::to_owned));
        let done = since(api, refused).await;
        let entry = done.iter().find(|entry| entry["verb"] == verb(&route) && entry["request_id"] == request);
        let entry = entry.unwrap_or_else(|| panic!("{route} leaves no entry but {done:?}"));
        assert_eq!((&entry["actor"]["kind"], &entry["actor"]["operator"]), (&json!("token"), &json!(true)), "{entry}");
        assert_eq!((&entry["address"], &entry["count"]), (&json!("127.0.0.1"), &json!(1)), "{entry}");
        assert!(["done", "requested"].contains(&entry["outcome"].as_str().unwrap()), "{entry}");
    }
    let log = json!(all_entries(api).await).to_string();
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspension_and_deletion_of_a_tenant_and_the_refusals_between_have_entries() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    acme.put_group("g", json!({})).await;
    host.api.post("/v1/tenants/acme/suspend", json!({})).await.ok();
    let suspended = newest(&host.api).await;
    assert_eq!((&suspended["verb"], &suspended["tenant"]), (&json!("tenant.suspend"), &json!("acme")));
    assert_eq!((&suspended["changed"], &suspended["outcome"]), (&json!(["/suspended"]), &json!("done")));
    host.api.post("/v1/tenants/acme/suspend", json!({})).await.ok();
    assert_eq!(newest(&host.api).await, suspended, "nothing changed");
    acme.get("/v1/groups").await.problem(403);
    let refused = newest(&host.api).await;
    assert_eq!((&refused["outcome"], &refused["tenant"]), (&json!("forbidden"), &json!("acme")));
    assert_eq!(refused["actor"]["kind"], "token");
    host.api.post("/v1/tenants/acme/resume", json!({})).await.ok();
    assert_eq!(verbs(&all_entries(&acme).await)[..3], ["tenant.resume", "request", "tenant.suspend"]);

    host.api.delete("/v1/tenants/acme").await.expect(204);
    let seen = newest(&host.api).await;
    assert_eq!((&seen["verb"], &seen["tenant"]), (&json!("tenant.delete"), &json!("acme")));
    let namesake = host.api.tenant("acme").await;
    let theirs = all_entries(&namesake).await;
    assert_eq!(verbs(&theirs), ["token.create", "tenant.put"], "not those of the tenant before");
    assert!(verbs(&all_entries(&host.api).await).contains(&"group.put"), "operators still see them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_plugins_have_entries_for_operators_alone() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    let path = format!("{JUDGE_PATH}?tenants=acme");
    upload(&host.api, &path, judge().await).await.ok();
    let put = newest(&host.api).await;
    assert_eq!((&put["verb"], &put["tenant"]), (&json!("plugin.put"), &Value::Null));
    assert_eq!(put["object"], json!({"kind": "plugin", "name": "judge-json-ok", "version": "0.1.0"}));
    let shared = format!("{JUDGE_PATH}?shared=true");
    host.api.patch(&shared, json!({"tenants": null})).await.ok();
    let entry = newest(&host.api).await;
    assert_eq!((&entry["verb"], &entry["changed"]), (&json!("plugin.share"), &json!(["/tenants"])));
    upload(&host.api, &path, judge().await).await.ok();
    host.api.patch(&shared, json!({"deprecated": "old"})).await.ok();
    host.api.delete(&shared).await.expect(204);
    let entries = since(&host.api, &entry).await;
    assert_eq!(verbs(&entries), ["plugin.delete", "plugin.deprecate", "plugin.share"]);
    assert!(entries.iter().all(|entry| entry["tenant"].is_null()), "{entries:?}");
    assert_eq!(verbs(&all_entries(&acme).await), ["token.create", "tenant.put"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_of_a_key_are_named_when_they_change() {
    let host = TestHost::start().await;
    let origins = |port: u16| json!([format!("https://receiver.example:{port}")]);
    host.api.put("/v1/keys/k", json!({"secret": "s3cret", "origins": origins(443)})).await.ok();
    host.api.patch("/v1/keys/k", json!({"origins": origins(8443)})).await.ok();
    let granted = newest(&host.api).await;
    assert_eq!((&granted["verb"], &granted["changed"]), (&json!("key.grant"), &json!(["/origins"])));
}
