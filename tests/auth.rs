//! Who may do what: every route of the served document, with every role.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Api, OPEN, Setup, TestHost, closed_operations};

/// What a viewer may ask, besides.
const VIEWERS: [&str; 25] = [
    "GET /v1/whoami",
    "GET /v1/events",
    "GET /v1/bulk",
    "GET /v1/bulk/x",
    "GET /v1/groups",
    "GET /v1/groups/x",
    "GET /v1/groups/x/stats",
    "GET /v1/groups/x/jobs",
    "GET /v1/jobs",
    "GET /v1/schedules/x/history",
    "GET /v1/schedules/x/runs",
    "GET /v1/cron/runs",
    "GET /v1/jobs/x",
    "GET /v1/jobs/x/attempts",
    "GET /v1/schedules",
    "GET /v1/schedules/x",
    "GET /v1/plugins",
    "GET /v1/plugins/x",
    "GET /v1/plugins/x/versions",
    "GET /v1/plugins/x/versions/x",
    "GET /v1/plugins/x/versions/x/component",
    "GET /v1/groups/x/policy/versions",
    "GET /v1/groups/x/policy/versions/x",
    "GET /v1/groups/x/policy/history",
    "GET /v1/groups/x/policy/shadow",
];

/// What a producer may do, besides.
const PRODUCERS: [&str; 29] = [
    "POST /v1/groups/x/policy/backtest",
    "POST /v1/jobs/x/attempts/x/replay",
    "POST /v1/groups/x/jobs",
    "POST /v1/groups/x/jobs/batch",
    "DELETE /v1/jobs/x",
    "PATCH /v1/jobs/x",
    "POST /v1/jobs/x/run",
    "POST /v1/jobs/x/retry",
    "POST /v1/jobs/x/copy",
    "GET /v1/jobs/x/payload",
    "GET /v1/jobs/x/attempts/x/request",
    "POST /v1/jobs/x/reschedule",
    "POST /v1/groups/x/bulk",
    "POST /v1/groups/x/redrive",
    "POST /v1/groups/x/purge",
    "POST /v1/groups/x/flush",
    "POST /v1/groups/x/leases",
    "POST /v1/leases/x/extend",
    "POST /v1/leases/x/complete",
    "POST /v1/leases/x/fail",
    "POST /v1/leases/x/release",
    "PUT /v1/schedules/x",
    "PATCH /v1/schedules/x",
    "DELETE /v1/schedules/x",
    "POST /v1/schedules/x/pause",
    "POST /v1/schedules/x/resume",
    "POST /v1/schedules/x/run",
    "POST /v1/schedules/x/backfill",
    "POST /v1/groups/x/policy/simulate",
];

async fn ask(api: &Api, method: &Method, path: &str) -> crate::support::Reply {
    api.raw(method.clone(), path, "{}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_without_a_token_is_shown_only_the_servers_health() {
    // It fails for each operation.
    let host = Setup::new().set("auth.failure_burst", "10000").start().await;
    let nobody = host.api.without_token();
    for path in OPEN.into_iter().chain(["/openapi.json"]) {
        assert_eq!(nobody.get(path).await.status, 200, "{path}");
    }
    for (method, path) in closed_operations(&nobody).await {
        for somebody in [&nobody, &nobody.with_token("not-a-token-of-this-server")] {
            let reply = ask(somebody, &method, &path).await;
            reply.problem(401);
            assert_eq!(reply.headers[WWW_AUTHENTICATE], "Bearer");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_reaches_as_far_as_it_says() {
    let host = TestHost::start().await;
    host.api.put("/v1/tenants/acme", json!({})).await.expect(201);
    for (rank, role) in ["viewer", "producer", "admin"].into_iter().enumerate() {
        let api = host.api.with_token(&host.api.token(json!({"tenant": "acme", "role": role})).await);
        for (method, path) in closed_operations(&host.api).await {
            let operation = format!("{method} {path}");
            let needs = match operation.as_str() {
                operation if VIEWERS.contains(&operation) => 0,
                operation if PRODUCERS.contains(&operation) => 1,
                operation
                    if ["/v1/tenants", "/v1/nodes", "/v1/audit/verify"].iter().any(|path| operation.contains(path)) =>
                {
                    3
                }
                _ => 2,
            };
            let reply = ask(&api, &method, &path).await;
            if rank < needs {
                reply.problem(403);
            } else {
                assert!(![401, 403].contains(&reply.status), "{role}: {operation}: {}", reply.text());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_the_password_of_basic_authentication() {
    let host = TestHost::start().await;
    let nobody = host.api.without_token();
    for (pair, status) in [
        (format!("anyone:{ADMIN_TOKEN}"), 200),
        (format!("{ADMIN_TOKEN}:"), 200),
        (format!("{ADMIN_TOKEN}:wrong"), 401),
        ("anyone:wrong".to_owned(), 401),
    ] {
        let basic = format!("Basic {}", STANDARD.encode(&pair));
        let request = nobody.request(Method::GET, "/v1/groups").header(AUTHORIZATION, basic);
        assert_eq!(nobody.send(request).await.status, status, "{pair}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_shown_once_and_revoked_at_once() {
    let host = TestHost::start().await;
    let made = host.api.post("/v1/tokens", json!({"name": "for a day", "role": "producer"})).await.expect(201);
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!((&made["role"], &made["operator"]), (&json!("producer"), &json!(false)));
    let theirs = host.api.with_token(token);
    assert_eq!(theirs.get("/v1/groups").await.status, 200);

    let listed = host.api.get("/v1/tokens").await;
    assert!(listed.items().iter().any(|entry| entry["id"] == id && entry["name"] == "for a day"));
    assert!(!listed.text().contains(token), "the list does not show the token again");

    assert_eq!(host.api.delete(&format!("/v1/tokens/{id}")).await.status, 204);
    theirs.get("/v1/groups").await.problem(401);
    host.api.delete(&format!("/v1/tokens/{id}")).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acting_for_another_tenant_is_allowed_to_operators_only() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    host.api.for_tenant("acme").put("/v1/groups/made-by-operator", json!({})).await.expect(201);
    let names = |items: Vec<Value>| items.iter().map(|item| item["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(acme.get("/v1/groups").await.items()), [json!("made-by-operator")]);
    assert!(names(host.api.get("/v1/groups").await.items()).is_empty());

    acme.for_tenant("default").get("/v1/groups").await.problem(403);
    assert_eq!(acme.for_tenant("acme").get("/v1/groups").await.status, 200);
    host.api.for_tenant("nobody").get("/v1/groups").await.problem(404);
    acme.post("/v1/tokens", json!({"tenant": "default", "role": "viewer"})).await.problem(403);
}
