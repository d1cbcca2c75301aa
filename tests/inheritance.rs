//! The server's defaults, the tenant's, the group's own, the job's: each laid over the one before.

use serde_json::json;

use crate::support::{Answer, ManualClock, Receiver, Setup, TestHost, ms};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_shows_what_is_in_force_and_where_each_value_comes_from() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    let defaults = json!({"limits": {"ttl": "2h", "concurrency": 7}, "retry": {"config": {"max_attempts": 9}}});
    host.api.put("/v1/tenants/acme", json!({"defaults": defaults, "quota": {"rate": "50/s"}})).await.expect(200);
    acme.put_group("g", json!({"limits": {"concurrency": 3}, "judge": {"config": {"expect": [204]}}})).await;

    let shown = acme.get("/v1/groups/g?effective=true").await.expect(200);
    let (limits, retry) = (&shown["limits"], &shown["retry"]["config"]);
    assert_eq!(*limits, json!({"concurrency": 3, "ttl": "2h", "timeout": "30s"}));
    assert_eq!((&retry["max_attempts"], &retry["base"]), (&json!(9), &json!("2s")));
    assert_eq!(shown["judge"]["config"]["expect"], json!([204]), "a list is replaced, not merged");
    let sources = &shown["sources"];
    for (pointer, layer) in [
        ("/limits/concurrency", "group"),
        ("/limits/ttl", "tenant"),
        ("/limits/timeout", "server"),
        ("/retry/config/max_attempts", "tenant"),
        ("/retry/config/base", "server"),
        ("/judge/config/expect", "group"),
        ("/judge/plugin", "server"),
    ] {
        assert_eq!(sources[pointer], layer, "{pointer}: {sources}");
    }
    assert_eq!(shown["quota"], json!({"rate": "50/s"}), "what it shares with the tenant's other groups");
    let own = acme.get("/v1/groups/g").await.expect(200);
    assert_eq!(own["limits"], json!({"concurrency": 3}), "without it, only what is the group's own");
    assert!(own.get("sources").is_none() && own.get("quota").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_tenants_defaults_reaches_its_groups_and_no_others() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock).await;
    receiver.on("/teapot", [Answer::status(418)]);
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    for api in [&acme, &other] {
        api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    }
    let before = acme.job_id("g", json!({"url": receiver.url("/teapot")})).await;
    acme.until_state(&before, "dead").await;
    let defaults = json!({"judge": {"config": {"expect": [418]}}});
    host.api.put("/v1/tenants/acme", json!({"defaults": defaults})).await.expect(200);
    for (api, state) in [(&acme, "succeeded"), (&other, "dead")] {
        let id = api.job_id("g", json!({"url": receiver.url("/teapot")})).await;
        api.until_state(&id, state).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_that_would_break_a_group_are_refused() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    acme.put_group("g", json!({"retry": {"config": {"offset": "1s"}}})).await;
    // An offset goes with the exponential kind, which the group inherits, and not with the fixed one.
    let defaults = json!({"retry": {"plugin": "backoff", "config": {"kind": "fixed"}}});
    let problem = host.api.put("/v1/tenants/acme", json!({"defaults": defaults})).await.problem(422);
    assert!(problem["pointer"].as_str().unwrap().starts_with("/defaults/retry/config"), "{problem}");
    assert_eq!(host.api.get("/v1/tenants/acme").await.expect(200)["defaults"], json!({}));
    assert_eq!(acme.get("/v1/groups/g?effective=true").await.expect(200)["retry"]["config"]["kind"], "exponential");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_overrides_its_group_and_no_other_job() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock).await;
    receiver.on("/204", [Answer::status(204)]);
    host.api.put_group("g", json!({"judge": {"config": {"expect": [200]}}, "retry": {"config": {"jitter": 0}}})).await;
    let job = |policy| json!({"url": receiver.url("/204"), "policy": policy});
    let overridden = host.api.job_id("g", job(json!({"judge": {"expect": [204]}}))).await;
    host.api.until_state(&overridden, "succeeded").await;
    let once = host.api.job_id("g", job(json!({"retry": {"max_attempts": 1}}))).await;
    host.api.until_state(&once, "dead").await;
    let slow = host.api.post_job("g", job(json!({"retry": {"base": "7m"}}))).await;
    let retried = host.api.until_retry(slow["id"].as_str().unwrap(), 1).await;
    assert_eq!(ms(&retried["run_at"]).since(ms(&slow["run_at"])).as_secs(), 7 * 60);
    let plain = host.api.post_job("g", json!({"url": receiver.url("/204")})).await;
    let retried = host.api.until_retry(plain["id"].as_str().unwrap(), 1).await;
    assert_eq!(ms(&retried["run_at"]).since(ms(&plain["run_at"])).as_secs(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_can_take_an_inherited_signer_away() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    let acme = host.api.tenant("acme").await;
    acme.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let defaults = json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}});
    host.api.put("/v1/tenants/acme", json!({"defaults": defaults})).await.expect(200);
    acme.put_group("signed", json!({})).await;
    acme.put_group("plain", json!({"sign": null})).await;
    for group in ["signed", "plain"] {
        let url = receiver.url(&format!("/{group}"));
        let id = acme.job_id(group, json!({"url": url, "payload": {"a":1}})).await;
        acme.until_state(&id, "succeeded").await;
    }
    assert!(receiver.arrivals("/signed")[0].text().contains("?a="), "a secure cookie");
    assert_eq!(receiver.arrivals("/plain")[0].text(), r#"{"a":1}"#);
}
