//! Nothing drops a part of a policy silently: parts are laid over what is there, and whole documents say what they remove.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Finished, Receiver, TestHost, run};

async fn cli(host: &TestHost, arguments: &[&str], stdin: &str) -> Finished {
    run(arguments, &[("CARILLON_SERVER", &host.base), ("CARILLON_TOKEN", ADMIN_TOKEN)], stdin).await
}

/// A group that signs and has a retry policy of its own.
async fn signed(host: &TestHost) -> Value {
    host.api.put("/v1/keys/flask-secret", json!({"secret": "s3cret"})).await.expect(204);
    let doc = json!({
        "sign": {"plugin": "werkzeug-cookie", "keys": ["flask-secret"]},
        "retry": {"plugin": "backoff", "config": {"kind": "exponential", "base": "1s", "max_attempts": 5}},
    });
    let made = host.api.put("/v1/groups/demo", doc.clone()).await.expect(201);
    assert_eq!((&made["added"], &made["changed"], &made["removed"]), (&json!(["sign"]), &json!(["retry"]), &json!([])));
    doc
}

async fn own(host: &TestHost) -> Value {
    host.api.get("/v1/groups/demo").await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_names_a_judge_keeps_the_signature_and_says_what_changes() {
    let host = TestHost::start().await;
    let doc = signed(&host).await;
    let candidate = r#"{"judge": {"config": {"expect": [202]}}}"#;
    let proposed = cli(&host, &["policy", "propose", "demo", "-", "--why", "x"], candidate).await;
    assert_eq!(proposed.ok(), "demo: created version 2 (changed: judge)\n");
    let version = host.api.get("/v1/groups/demo/policy/versions/2").await.expect(200);
    assert_eq!((&version["policy"]["sign"], &version["policy"]["retry"]), (&doc["sign"], &doc["retry"]));
    cli(&host, &["policy", "promote", "demo", "2"], "").await.ok();
    let simulated =
        cli(&host, &["policy", "simulate", "demo", "http://127.0.0.1:8000/bell", "--payload", "{\"user\":7}"], "");
    let simulated = simulated.await;
    assert!(!simulated.ok().contains("{\"user\":7}"), "it would go out signed, and not as plain JSON: {simulated:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_document_ends_a_signature_only_if_it_says_so() {
    let host = TestHost::start().await;
    signed(&host).await;
    let judge = r#"{"judge": {"config": {"expect": [202]}}}"#;
    for arguments in
        [&["group", "put", "demo", "--replace", "-f", "-"][..], &["policy", "propose", "demo", "--replace", "-"]]
    {
        let refused = cli(&host, arguments, judge).await;
        let said = refused.error(1);
        assert!(
            said.contains("`werkzeug-cookie`") && said.contains(r#""sign": null"#) && said.contains("/sign"),
            "{said}"
        );
    }
    let body = json!({"judge": {"config": {"expect": [202]}}});
    host.api.put("/v1/groups/demo", body.clone()).await.problem_at(422, "/sign");
    host.api.post("/v1/groups/demo/policy/versions", body).await.problem_at(422, "/sign");
    assert_eq!(own(&host).await["binding"], 1, "nothing was made");

    let proposed = host.api.post("/v1/groups/demo/policy/versions", json!({"sign": null})).await.expect(201);
    assert_eq!((&proposed["removed"], &proposed["changed"]), (&json!(["sign"]), &json!(["retry"])));
    let promoted = cli(&host, &["policy", "promote", "demo", &proposed["version"].to_string()], "").await;
    assert!(promoted.ok().contains("(removed: sign; changed: retry)"), "{promoted:?}");
    let back = cli(&host, &["policy", "rollback", "demo"], "").await;
    assert!(back.ok().contains("(added: sign; changed: retry)"), "{back:?}");
    let put = cli(&host, &["group", "put", "demo", "--replace", "-f", "-"], r#"{"sign": null}"#).await;
    assert_eq!(put.ok(), "demo: stored (removed: sign; changed: retry)\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_group_leaves_the_rest() {
    let host = TestHost::start().await;
    let doc = signed(&host).await;
    let put = cli(&host, &["group", "put", "demo", "-f", "-"], "[limits]\nttl = \"1h\"\n").await;
    assert_eq!(put.ok(), "demo: stored (changed: limits)\n");
    assert_eq!(cli(&host, &["group", "put", "demo"], "").await.ok(), "demo: stored\n");
    let group = own(&host).await;
    assert_eq!(
        (&group["sign"], &group["retry"], &group["limits"]),
        (&doc["sign"], &doc["retry"], &json!({"ttl": "1h"}))
    );
    let patched =
        host.api.patch("/v1/groups/demo", json!({"retry": {"config": {"max_attempts": 9}}})).await.expect(200);
    assert_eq!((&patched["changed"], &patched["binding"]), (&json!(["retry"]), &json!(2)));
    assert_eq!(patched["retry"]["config"], json!({"kind": "exponential", "base": "1s", "max_attempts": 9}));
    let patched = host.api.patch("/v1/groups/demo", json!({"sign": null})).await.expect(200);
    assert_eq!((&patched["removed"], &patched["sign"]), (&json!(["sign"]), &Value::Null));
    host.api.patch("/v1/groups/none", json!({})).await.problem(404);
    host.api.raw(Method::PATCH, "/v1/groups/demo", "[]").await.problem(400);
    assert_eq!(cli(&host, &["group", "put", "fresh"], "").await.ok(), "fresh: stored\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_are_written_at_once_are_all_kept() {
    let host = TestHost::start().await;
    host.api.put_group("demo", json!({})).await;
    let parts = (1..=24).map(|n| json!({"auth_headers": {format!("X-{n}"): null}, "limits": {"concurrency": n}}));
    let patches = parts.map(|part| {
        let api = &host.api;
        async move { api.patch("/v1/groups/demo", part).await.expect(200) }
    });
    futures_util::future::join_all(patches).await;
    assert_eq!(own(&host).await["auth_headers"].as_object().unwrap().len(), 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_keeps_the_settings_that_are_not_named() {
    let host = TestHost::start().await;
    let (key, public) = (host.dir.path().join("ci.key"), host.dir.path().join("ci.pub"));
    let made = cli(&host, &["plugin", "keygen", key.to_str().unwrap()], "").await;
    std::fs::write(&public, made.ok()).unwrap();
    let signer = format!("ci={}", public.display());
    let defaults = r#"{"sign": {"plugin": "werkzeug-cookie"}, "limits": {"ttl": "1h"}}"#;
    let first = ["tenant", "put", "acme", "--defaults", "-", "--concurrency", "5", "--plugin-signer", &signer];
    cli(&host, &first, defaults).await.ok();
    let put = cli(&host, &["tenant", "put", "acme", "--rate", "30/s"], "").await;
    assert_eq!(put.ok(), "acme: stored (added: quota.rate)\n");
    let tenant = host.api.get("/v1/tenants/acme").await.expect(200);
    assert_eq!(tenant["quota"], json!({"concurrency": 5, "rate": "30/s"}));
    assert_eq!(
        (&tenant["plugin_signers"][0]["name"], &tenant["defaults"]["limits"]),
        (&json!("ci"), &json!({"ttl": "1h"}))
    );

    let patched = cli(&host, &["tenant", "patch", "acme", "--weight", "3", "--unset", "plugin_signers.ci"], "").await;
    assert_eq!(patched.ok(), "acme: stored (removed: plugin_signers.ci; added: quota.weight)\n");
    cli(&host, &["tenant", "patch", "nobody", "--weight", "3"], "").await.error(1);
    let refused = cli(&host, &["tenant", "put", "acme", "--replace", "--rate", "1/s"], "").await;
    assert!(refused.error(1).contains("/defaults/sign"), "{refused:?}");
    let whole = json!({"defaults": {"sign": null}, "quota": {"rate": "1/s"}});
    let put = host.api.put("/v1/tenants/acme", whole).await.expect(200);
    assert_eq!(put["removed"], json!(["defaults.limits", "defaults.sign", "quota.concurrency", "quota.weight"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_keeps_what_is_not_named_to_the_byte() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let payload = r#"{"n":12345678901234567890123,"b":1,"a":1.10,"d":1,"d":2}"#;
    let flags = ["--group", "g", "--cron", "30 2 * * *", "--url", "http://127.0.0.1:1/", "-d", payload];
    cli(&host, &[&["schedule", "put", "report"], &flags[..]].concat(), "").await.ok();
    cli(&host, &["schedule", "put", "report", "--time-zone", "Europe/Berlin"], "").await.ok();
    let shown = host.api.get("/v1/schedules/report").await;
    assert!(shown.text().contains(payload), "{}", shown.text());
    let schedule = shown.expect(200);
    assert_eq!((&schedule["time_zone"], &schedule["cron"]), (&json!("Europe/Berlin"), &json!("30 2 * * *")));
    let printed = cli(&host, &["schedule", "get", "report", "--json"], "").await;
    assert!(printed.ok().contains("12345678901234567890123") && printed.ok().contains("1.10"), "{printed:?}");
    cli(&host, &["schedule", "put", "other", "--cron", "@hourly"], "").await.error(1);
    cli(&host, &["schedule", "put", "report", "--replace", "--cron", "@hourly"], "").await.error(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_changed_in_part_keeps_what_its_view_hides() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("demo", json!({})).await;
    let url = receiver.url("/").replace("://", "://user:secret@");
    let schedule = json!({"group": "demo", "cron": "0 3 * * *", "job": {"url": url, "payload": {"n": 1.10}}});
    host.api.put("/v1/schedules/s", schedule).await.expect(201);
    let patched = host.api.patch("/v1/schedules/s", json!({"cron": "0 4 * * *"})).await.expect(200);
    assert!(patched["job"]["url"].as_str().unwrap().contains("user:***@"), "{patched}");
    host.api.post("/v1/schedules/s/run", json!({})).await.expect(201);
    let arrival = receiver.arrived("/", 1).await.remove(0);
    assert_eq!(arrival.header("authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    assert_eq!(arrival.text(), r#"{"n":1.1}"#);
}
