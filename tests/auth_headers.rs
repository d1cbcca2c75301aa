//! Headers whose values are keys: where they go, and where they do not.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, ManualClock, Receiver, Setup, TestHost};

const TOKEN: &str = "Bearer correct-horse";

/// Stores `TOKEN` as the key `token`, and binds it.
async fn bound(host: &TestHost, header: &str) {
    host.api.put("/v1/keys/token", json!({"secret": TOKEN, "kind": "header"})).await.ok();
    host.api.put_group("g", json!({"auth_headers": {header: "token"}, "limits": {"redirects": 3}})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_out_as_a_header_instead_of_the_jobs_own() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    for header in ["Poussetaches-Auth-Key", "Authorization", "User-Agent"] {
        bound(&host, header).await;
        let url = receiver.url("/a").replace("http://", "http://me:pass@");
        let job = json!({"url": url, "headers": {header.to_lowercase(): "own"}, "payload": {"a": 1}});
        let id = host.api.job_id("g", job.clone()).await;
        host.api.until_state(&id, "succeeded").await;
        let arrived = receiver.arrivals("/a").pop().unwrap();
        let values = arrived.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(header));
        assert_eq!(values.map(|(_, value)| value.as_slice()).collect::<Vec<_>>(), [TOKEN.as_bytes()], "{header}");

        let foretold = host.api.post("/v1/groups/g/policy/simulate", json!({"job": job})).await.expect(200);
        let headers = foretold["request"]["headers"].as_array().unwrap();
        let shown: Vec<_> = headers.iter().filter(|shown| shown["name"] == header.to_lowercase()).collect();
        assert_eq!(shown, [&json!({"name": header.to_lowercase(), "value": "(key token)"})]);
    }
    assert_eq!(host.api.get("/v1/groups/g").await.expect(200)["auth_headers"], json!({"User-Agent": "token"}));
    assert_eq!(host.api.get("/v1/keys/token").await.expect(200)["kind"], "header");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_to_the_jobs_own_origin_only() {
    let (host, home, away) = (TestHost::start().await, Receiver::start().await, Receiver::start().await);
    // A name that would go along if it were a header like any other.
    for header in ["Poussetaches-Auth-Key", "Content-Token"] {
        bound(&host, header).await;
        let (name, before) = (header.to_lowercase(), home.count("/start"));
        home.on("/start", [Answer::status(307).header("location", "/again")]);
        home.on("/again", [Answer::status(307).header("location", away.url("/away"))]);
        away.on("/away", [Answer::status(307).header("location", home.url("/back"))]);
        let id = host.api.job_id("g", json!({"url": home.url("/start"), "headers": {name.clone(): "own"}})).await;
        host.api.until_state(&id, "succeeded").await;
        for path in ["/start", "/again"] {
            assert_eq!(home.arrivals(path)[before].header(&name), Some(TOKEN));
        }
        assert_eq!(away.arrivals("/away")[before].header(&name), None);
        assert_eq!(home.arrivals("/back")[before].header(&name), None, "it went by way of somebody else");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_new_value_goes_out_and_one_that_signs_never_does() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    bound(&host, "X-Key").await;
    host.api.put("/v1/keys/token", json!({"secret_base64": "bmV3", "kind": "header"})).await.ok();
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_state(&id, "succeeded").await;
    assert_eq!(receiver.arrivals("/a")[0].header("x-key"), Some("new"));

    host.api.put("/v1/keys/token", json!({"secret": "it-signs"})).await.expect(204);
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    let held = host.api.until(&id, "is held", |job| job["last_error"] == "policy.missing-key").await;
    assert_eq!((&held["state"], receiver.count("/a")), (&json!("scheduled"), 1), "nothing goes out without it");
    let attempt = host.api.attempts(&id).await.remove(0);
    assert_eq!((&attempt["spent"], &attempt["error"]["code"]), (&json!(false), &json!("policy.missing-key")));
    let foretold = host.api.post("/v1/groups/g/policy/simulate", json!({"job": {"url": "http://a/"}})).await;
    assert!(!foretold.text().contains("it-signs"), "{}", foretold.text());

    host.api.put("/v1/keys/token", json!({"secret": TOKEN, "kind": "header"})).await.ok();
    clock.advance(Duration::from_secs(60));
    host.api.until_state(&id, "succeeded").await;
    assert_eq!(receiver.arrivals("/a")[1].header("x-key"), Some(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_bound_is_pointed_at() {
    let host = TestHost::start().await;
    host.api.put("/v1/keys/signs", json!({"secret": "s"})).await.expect(204);
    host.api.put("/v1/keys/sent", json!({"secret": "s", "kind": "header"})).await.ok();
    for (headers, pointer) in [
        (json!({"X-Key": "nobody"}), "/auth_headers/X-Key"),
        (json!({"X-Key": "signs"}), "/auth_headers/X-Key"),
        (json!({"X-Key": {"key": "sent"}}), "/auth_headers/X-Key"),
        (json!({"X Key": "sent"}), "/auth_headers/X Key"),
        (json!({"Content-Length": "sent"}), "/auth_headers/Content-Length"),
        (json!({"carillon-metadata-a": "sent"}), "/auth_headers/carillon-metadata-a"),
        (json!({"idempotency-key": "sent"}), "/auth_headers/idempotency-key"),
        (json!("sent"), "/auth_headers"),
    ] {
        host.api.put("/v1/groups/g", json!({"auth_headers": headers})).await.problem_at(422, pointer);
    }
    let sign = json!({"plugin": "werkzeug-cookie", "keys": ["signs", "sent"]});
    host.api.put("/v1/groups/g", json!({"sign": sign})).await.problem_at(422, "/sign/keys/1");
    for secret in [" x", "x\n", "a\r\nX-B: c", "ä", &"x".repeat(4097)] {
        host.api.put("/v1/keys/bad", json!({"secret": secret, "kind": "header"})).await.problem_at(422, "/secret");
    }
    host.api.put_group("g", json!({"auth_headers": {"X-Key": "sent"}})).await;
    let job = json!({"url": "http://a/", "policy": {"auth_headers": {"X-Key": null}}});
    host.api.post("/v1/groups/g/jobs", job).await.problem_at(422, "/policy/auth_headers");
    host.api.delete("/v1/keys/sent").await.problem(409);
    assert_eq!(host.api.delete("/v1/groups/g").await.status, 204);
    assert_eq!(host.api.delete("/v1/keys/sent").await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_inherits_them_one_by_one() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let acme = host.api.tenant("acme").await;
    for (key, secret) in [("a", "1"), ("b", "2"), ("c", "3")] {
        acme.put(&format!("/v1/keys/{key}"), json!({"secret": secret, "kind": "header"})).await.ok();
    }
    let defaults = json!({"auth_headers": {"X-A": "a", "X-B": "b"}});
    host.api.put("/v1/tenants/acme", json!({"defaults": defaults})).await.expect(200);
    acme.put_group("g", json!({"auth_headers": {"X-B": null, "X-C": "c"}})).await;
    acme.put_group("none", json!({"auth_headers": null})).await;
    let shown = acme.get("/v1/groups/g?effective=true").await.expect(200);
    assert_eq!(shown["auth_headers"], json!({"X-A": "a", "X-C": "c"}));
    assert_eq!(shown["sources"]["/auth_headers/X-A"], "tenant");
    for (group, expected) in [("g", [Some("1"), None, Some("3")]), ("none", [None; 3])] {
        let path = format!("/{group}");
        let id = acme.job_id(group, json!({"url": receiver.url(&path)})).await;
        acme.until_state(&id, "succeeded").await;
        let arrived = &receiver.arrivals(&path)[0];
        assert_eq!(["x-a", "x-b", "x-c"].map(|name| arrived.header(name)), expected, "{group}");
    }
    let twice: Value = json!({"auth_headers": {"x-a": "b"}});
    assert!(acme.put("/v1/groups/twice", twice).await.problem(422)["pointer"].as_str().unwrap().starts_with("/auth"));
}
