//! Tokens: who makes, sees, rotates and revokes them, what each is good for, and what ends with it.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::{ADMIN_TOKEN, Api, DATABASE, ManualClock, Program, Setup, TestHost, cluster, eventually, run};

const NOWHERE: &str = "http://127.0.0.1:1/";

/// Within what time whatever is open ends with its token: a second, and half of one for a busy machine.
const ENDED: Duration = Duration::from_millis(1_500);

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}"))
}

async fn made(api: &Api, token: Value) -> (String, Api) {
    let made = api.post("/v1/tokens", token).await.expect(201);
    (text(&made["id"]).to_owned(), api.with_token(text(&made["token"])))
}

async fn operators(api: &Api) -> Vec<Value> {
    api.get("/v1/tokens?operator=true").await.items()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_operators_are_seen_and_changed_by_operators_only() {
    let host = TestHost::start().await;
    let (_, admin) = made(&host.api, json!({"name": "admin", "role": "admin"})).await;
    let (id, second) = made(&host.api, json!({"name": "second", "role": "admin", "operator": true})).await;
    let names: Vec<_> = operators(&host.api).await.iter().map(|token| text(&token["name"]).to_owned()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for api in [&admin, &host.api] {
        let listed = api.get("/v1/tokens").await.items();
        assert!(listed.iter().all(|token| token["operator"] == false), "{listed:?}");
    }
    admin.get("/v1/tokens?operator=true").await.problem(403);
    admin.delete(&format!("/v1/tokens/{id}")).await.problem(404);
    admin.post(&format!("/v1/tokens/{id}/rotate"), json!({})).await.problem(404);
    second.get("/v1/tenants").await.expect(200);

    // It belongs to no tenant, whichever its maker acts for.
    host.api.tenant("acme").await;
    let (third, _) = made(&host.api.for_tenant("acme"), json!({"role": "admin", "operator": true})).await;
    assert!(host.api.for_tenant("acme").get("/v1/tokens").await.items().iter().all(|token| token["id"] != *third));
    host.api.for_tenant("acme").delete(&format!("/v1/tokens/{third}")).await.expect(204);
    let elsewhere = json!({"role": "admin", "operator": true, "tenant": "acme"});
    host.api.post("/v1/tokens", elsewhere).await.problem_at(422, "/tenant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_token_of_an_operator_cannot_be_revoked() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let configured = text(&operators(&host.api).await[0]["id"]).to_owned();
    host.api.delete(&format!("/v1/tokens/{configured}")).await.problem(409);
    let short = json!({"role": "admin", "operator": true, "expires_in": "1h"});
    let (expired, _) = made(&host.api, short).await;
    clock.advance(Duration::from_secs(3_600));
    host.api.delete(&format!("/v1/tokens/{configured}")).await.problem(409);
    host.api.delete(&format!("/v1/tokens/{expired}")).await.expect(204);
    let (id, other) = made(&host.api, json!({"role": "admin", "operator": true})).await;
    other.delete(&format!("/v1/tokens/{configured}")).await.expect(204);
    host.api.get("/v1/groups").await.problem(401);
    other.delete(&format!("/v1/tokens/{id}")).await.problem(409);
    other.get("/v1/tenants").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_token_keeps_its_id_and_its_old_text_for_the_overlap() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let (id, old) = made(&host.api, json!({"name": "ci", "role": "admin"})).await;
    let path = format!("/v1/tokens/{id}/rotate");
    let rotated = old.post(&path, json!({"overlap": "1h"})).await.expect(200);
    assert_eq!((&rotated["id"], &rotated["name"], &rotated["role"]), (&json!(id), &json!("ci"), &json!("admin")));
    let second = host.api.with_token(text(&rotated["token"]));
    clock.advance(Duration::from_secs(3_599));
    for api in [&old, &second] {
        api.get("/v1/groups").await.expect(200);
    }
    let third = second.post(&path, json!({"overlap": "2h"})).await.expect(200);
    old.get("/v1/groups").await.expect(200);
    clock.advance(Duration::from_secs(1));
    old.get("/v1/groups").await.problem(401);
    second.get("/v1/groups").await.expect(200);

    let fourth = second.raw(Method::POST, &path, "").await.expect(200);
    second.get("/v1/groups").await.expect(200);
    host.api.with_token(text(&third["token"])).get("/v1/groups").await.problem(401);
    host.api.with_token(text(&fourth["token"])).get("/v1/groups").await.expect(200);
    assert!(!host.api.get("/v1/tokens").await.text().contains(text(&fourth["token"])));

    host.api.post(&path, json!({"overlap": "31d"})).await.problem_at(422, "/overlap");
    host.api.post(&path, json!({"overlap": "soon"})).await.problem_at(422, "/overlap");
    host.api.post("/v1/tokens/none/rotate", json!({})).await.problem(404);
    let configured = text(&operators(&host.api).await[0]["id"]).to_owned();
    host.api.post(&format!("/v1/tokens/{configured}/rotate"), json!({})).await.problem(409);
    host.api.tenant("acme").await.post(&path, json!({})).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_ends_when_it_says_and_no_later_than_the_configuration() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).set("auth.max_token_age", "2h").start().await;
    let now = clock.now();
    let at = |hours: u64| now.plus(Duration::from_secs(hours * 3_600)).to_string();
    let token = |expiry: Value| {
        let mut token = json!({"role": "viewer"});
        token.as_object_mut().unwrap().extend(expiry.as_object().unwrap().clone());
        token
    };
    let ends = async |expiry: Value| {
        let made = host.api.post("/v1/tokens", token(expiry)).await.expect(201);
        text(&made["expires_at"]).to_owned()
    };
    assert_eq!(ends(json!({"expires_at": at(1)})).await, at(1));
    assert_eq!(ends(json!({"expires_at": "+1h"})).await, at(1));
    assert_eq!(ends(json!({"expires_in": "2h"})).await, at(2));
    assert_eq!(ends(json!({})).await, at(2), "the longest validity, if none is given");
    for (expiry, pointer) in [
        (json!({"expires_at": at(3)}), "/expires_at"),
        (json!({"expires_in": "3h"}), "/expires_in"),
        (json!({"expires_at": now.to_string()}), "/expires_at"),
        (json!({"expires_at": "tomorrow"}), "/expires_at"),
        (json!({"expires_in": "1h", "expires_at": at(1)}), "/expires_at"),
    ] {
        host.api.post("/v1/tokens", token(expiry)).await.problem_at(422, pointer);
    }
    let (id, viewer) = made(&host.api, token(json!({"expires_at": at(1)}))).await;
    let rotation = json!({"overlap": "1h", "expires_at": at(3)});
    host.api.post(&format!("/v1/tokens/{id}/rotate"), rotation).await.problem_at(422, "/expires_at");
    clock.advance(Duration::from_secs(3_600));
    viewer.get("/v1/groups").await.problem(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_shows_who_made_it_and_whence_it_was_used() {
    let host = TestHost::start().await;
    let (maker, admin) = made(&host.api, json!({"name": "maker", "role": "admin"})).await;
    let (id, viewer) = made(&admin, json!({"role": "viewer"})).await;
    let shown = async || {
        let listed = admin.get("/v1/tokens").await.items();
        listed.into_iter().find(|token| token["id"] == id).unwrap()
    };
    let before = shown().await;
    assert_eq!(before["created_by"], json!({"token": maker, "name": "maker"}));
    assert_eq!((&before["last_used_at"], &before["last_used_from"]), (&Value::Null, &Value::Null));
    viewer.get("/v1/groups").await.expect(200);
    let after = shown().await;
    assert!(after["last_used_at"].is_string() && after["last_used_from"] == "127.0.0.1", "{after}");
    assert_eq!(operators(&host.api).await[0]["created_by"], Value::Null, "the configuration did");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_a_token_survive_a_restart() {
    let host = TestHost::start().await;
    let dir = std::sync::Arc::clone(&host.dir);
    let (id, viewer) = made(&host.api, json!({"role": "viewer", "groups": ["g"], "addresses": ["127.0.0.0/8"]})).await;
    viewer.get("/v1/groups").await.expect(200);
    let shown = async |api: &Api| {
        let listed = api.get("/v1/tokens").await.items();
        let mut token = listed.into_iter().find(|token| token["id"] == id).unwrap();
        // A use is written later.
        for field in ["last_used_at", "last_used_from"] {
            token[field] = Value::Null;
        }
        token
    };
    let before = shown(&host.api).await;
    host.stop().await;
    let host = Setup::new().in_dir(&dir).start().await;
    assert_eq!(shown(&host.api).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenant_header_that_is_not_one_name_is_refused_and_nothing_is_written() {
    let host = TestHost::start().await;
    host.api.tenant("acme").await;
    let (_, viewer) = made(&host.api, json!({"role": "admin"})).await;
    let refused: [&[&[u8]]; 9] = [
        &[b""],
        &[b"acm\xe9"],
        &["acmé".as_bytes()],
        &[b"acme, default"],
        &[b"acme default"],
        &[b"acme", b"acme"],
        &[b"default", b"acme"],
        &[b"acme", b"\xff"],
        &[b"../acme"],
    ];
    for values in refused {
        for api in [&host.api, &viewer] {
            for path in ["/v1/groups/x", "/compat/doppler/x"] {
                let mut request = api.request(Method::PUT, path).body("{}");
                for value in values {
                    request = request.header("carillon-tenant", HeaderValue::from_bytes(value).unwrap());
                }
                let reply = api.send(request).await;
                assert_eq!(reply.status, 400, "{values:?}: {path}: {}", reply.text());
            }
        }
    }
    for tenant in ["acme", "default"] {
        assert!(host.api.for_tenant(tenant).get("/v1/groups").await.items().is_empty(), "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_ends_with_its_token() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({})).await;
    let waits = json!({"wait": "15s"});
    for way in ["revoked", "expired", "rotated"] {
        let (id, theirs) = made(&host.api, json!({"role": "producer", "expires_in": "1h"})).await;
        let mut stream = theirs.follow("").await;
        stream.block().await.unwrap();
        let waiting = tokio::spawn({
            let (theirs, waits) = (theirs.clone(), waits.clone());
            async move { theirs.post("/v1/groups/g/leases", waits).await.status }
        });
        let open = async || host.api.metric("carillon_waiting_consumers").await;
        eventually("the consumer waits", open, |open| *open == 1).await;
        match way {
            "revoked" => drop(host.api.delete(&format!("/v1/tokens/{id}")).await.expect(204)),
            "rotated" => drop(host.api.post(&format!("/v1/tokens/{id}/rotate"), json!({})).await.expect(200)),
            _ => clock.advance(Duration::from_secs(3_600)),
        }
        let ended = async { (stream.rest().await, waiting.await.unwrap()) };
        let (events, status) = tokio::time::timeout(ENDED, ended).await.unwrap_or_else(|_| panic!("{way}"));
        assert!(events.iter().all(|event| event["kind"] != "empty"), "{way}: {events:?}");
        assert_eq!(status, 401, "{way}");
    }
    // Nothing was leased for nobody.
    host.api.post_job("g", json!({"payload": 1})).await;
    let leased = host.api.post("/v1/groups/g/leases", json!({})).await.expect(200);
    assert_eq!(leased["leases"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_on_another_node_ends_with_its_token() {
    let cluster = cluster();
    let node =
        async |name| Setup::new().set("store.url", &cluster.url(DATABASE)).set("server.name", name).start().await;
    let (here, there) = (node("a").await, node("b").await);
    here.api.put_group("g", json!({})).await;
    let made = here.api.post("/v1/tokens", json!({"role": "producer"})).await.expect(201);
    let (id, theirs) = (text(&made["id"]), there.api.with_token(text(&made["token"])));
    theirs.until_status("/v1/groups", 200).await;
    let mut stream = theirs.follow("").await;
    stream.block().await.unwrap();
    here.api.delete(&format!("/v1/tokens/{id}")).await.expect(204);
    tokio::time::timeout(ENDED, stream.rest()).await.expect("the stream ends");
    theirs.get("/v1/groups").await.problem(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_on_its_way_is_not_carried_out_after_its_token() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    for path in ["/v1/groups/g/jobs", "/v1/groups/g/jobs/batch", "/compat/doppler/"] {
        let (id, theirs) = made(&host.api, json!({"role": "producer"})).await;
        let (go_on, wait) = oneshot::channel::<()>();
        let rest = async move {
            wait.await.ok();
            Ok::<_, std::io::Error>(json!({"url": NOWHERE, "run_at": "+1h"}).to_string())
        };
        let slow = reqwest::Body::wrap_stream(futures_util::stream::once(rest));
        let sent = tokio::spawn({
            let theirs = theirs.clone();
            async move { theirs.raw(Method::POST, path, slow).await.status }
        });
        let used = async || {
            let listed = host.api.get("/v1/tokens").await.items();
            listed.into_iter().any(|token| token["id"] == id && !token["last_used_at"].is_null())
        };
        eventually("the request is let in", used, |used| *used).await;
        host.api.delete(&format!("/v1/tokens/{id}")).await.expect(204);
        go_on.send(()).unwrap();
        assert_eq!(sent.await.unwrap(), 401, "{path}");
    }
    assert!(host.api.get("/v1/jobs").await.items().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_is_accepted_from_its_networks_only() {
    let host = TestHost::start().await;
    for (addresses, status) in [
        (json!(["10.0.0.0/8", "2001:db8::/32"]), 403),
        (json!(["127.0.0.2"]), 403),
        (json!(["127.0.0.1"]), 200),
        (json!(["::ffff:127.0.0.1"]), 200),
        (json!(["10.0.0.0/8", "127.0.0.9/8"]), 200),
        (Value::Null, 200),
    ] {
        let (_, theirs) = made(&host.api, json!({"role": "viewer", "addresses": addresses})).await;
        assert_eq!(theirs.get("/v1/groups").await.status, status, "{addresses}");
    }
    for (addresses, pointer) in
        [(json!([]), "/addresses"), (json!(["10.0.0.0/33"]), "/addresses/0"), (json!(["::1", "here"]), "/addresses/1")]
    {
        let token = json!({"role": "viewer", "addresses": addresses});
        host.api.post("/v1/tokens", token).await.problem_at(422, pointer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_one_address_are_bounded_and_logged() {
    let environment = [
        ("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN),
        ("CARILLON_AUTH__FAILURE_RATE", "1"),
        ("CARILLON_AUTH__FAILURE_BURST", "5"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("x.db").display());
    let mut program = Program::serve(&["--store", &store], &environment).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    let guess = api.with_token("a-token-that-is-none");
    let mut counts = [0, 0];
    for _ in 0..40 {
        let reply = guess.get("/v1/groups").await;
        if reply.status == 429 {
            assert_eq!(reply.headers["retry-after"], "1");
            reply.problem(429);
            counts[1] += 1;
        } else {
            reply.problem(401);
            counts[0] += 1;
        }
        api.get("/v1/groups").await.expect(200);
    }
    assert!((5..20).contains(&counts[0]) && counts[1] > 20, "{counts:?}");
    assert_eq!(guess.get("/compat/doppler/x").await.status, 429, "mounts as well");
    let refused = api.metric(r#"carillon_refused_total{bound="auth.failure_rate"}"#).await;
    assert!(refused > 20, "{refused}");
    api.without_token().get("/v1/groups").await.problem(401);
    let log = program.until_logged("authentication failed").await;
    let lines: Vec<_> = log.lines().filter(|line| line.contains("authentication failed")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("127.0.0.1") && lines[0].contains("count"), "{lines:?}");
    assert!(!log.contains("a-token-that-is-none"));
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_was_made_without_authentication_is_not_valid_with_it() {
    let open = Setup::new().set("auth.enabled", "false").start().await;
    let dir = std::sync::Arc::clone(&open.dir);
    let body = json!({"role": "admin", "operator": true});
    let made = open.api.post("/v1/tokens", body).await.expect(201);
    assert_eq!(made["unauthenticated"], true, "{made}");
    open.api.post(&format!("/v1/tokens/{}/rotate", text(&made["id"])), json!({})).await.problem(409);
    open.stop().await;

    let host = Setup::new().in_dir(&dir).set("auth.admin_token", "").start().await;
    host.api.with_token(text(&made["token"])).get("/v1/groups").await.problem(401);
    assert!(dir.path().join("first-token").exists(), "it is no operator's token");
    let token = std::fs::read_to_string(dir.path().join("first-token")).unwrap();
    let operator = host.api.with_token(token.trim());
    operator.delete(&format!("/v1/tokens/{}", text(&made["id"]))).await.expect(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_makes_rotates_lists_and_revokes_tokens() {
    let host = TestHost::start().await;
    let environment = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    let json = async |arguments: &[&str]| -> Value {
        let done = run(&[arguments, &["--json"]].concat(), &environment, "").await;
        serde_json::from_str(done.ok()).unwrap()
    };
    let limits = ["--group", "a", "--group", "b", "--address", "127.0.0.0/8", "--expires-at", "+1h"];
    let made = json(&[&["token", "create", "ci", "--role", "producer"], &limits[..]].concat()).await;
    assert_eq!((&made["groups"], &made["addresses"]), (&json!(["a", "b"]), &json!(["127.0.0.0/8"])));
    let id = text(&made["id"]);
    let rotated = json(&["token", "rotate", id, "--overlap", "1h"]).await;
    assert_eq!(rotated["id"], id);
    for token in [&made["token"], &rotated["token"]] {
        host.api.with_token(text(token)).get("/v1/groups").await.expect(200);
    }
    let listed = json(&["token", "list"]).await;
    assert_eq!(listed["items"][0]["id"], id);
    let listed = run(&["token", "list", "--operator"], &environment, "").await;
    assert!(listed.ok().contains("first administrator"), "{listed:?}");
    run(&["token", "revoke", id], &environment, "").await.ok();
    host.api.with_token(text(&rotated["token"])).get("/v1/groups").await.problem(401);
}
