//! The audit log: every change and every refusal has an entry, which nobody else reads and nobody changes unseen.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::audit::{all_entries, newest, since, verbs};
use crate::support::{
    ADMIN_TOKEN, Api, DATABASE, ManualClock, Program, Setup, TestHost, cli, cluster, eventually, id_of, run,
};

const NOWHERE: &str = "http://127.0.0.1:1/";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_names_what_has_changed_and_survives_a_restart() {
    let host = TestHost::start().await;
    let dir = std::sync::Arc::clone(&host.dir);
    host.api.put("/v1/keys/stripe", json!({"secret": "s3cret-of-a-key"})).await.expect(204);
    host.api.put("/v1/keys/stripe", json!({"secret": "another-s3cret", "groups": ["g"]})).await.expect(204);
    host.api.put_group("g", json!({"limits": {"rate": "1/s", "concurrency": 2}})).await;
    host.api.patch("/v1/groups/g", json!({"limits": {"rate": "2/s"}, "retry": {"plugin": "backoff"}})).await.ok();
    host.api.put("/v1/groups/g", json!({"limits": {"nonsense": 1}})).await.problem(422);
    host.api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    let entries = all_entries(&host.api).await;
    let [patched, put, rotated, made] = &entries[..4] else { panic!("{entries:?}") };
    assert_eq!(
        verbs(&entries[..4]),
        ["group.put", "group.put", "key.put", "key.put"],
        "what failed, and a job, are none"
    );
    assert_eq!(patched["changed"], json!(["/limits/rate", "/retry", "/policy/version"]));
    assert_eq!(patched["object"], json!({"kind": "group", "name": "g", "version": "2"}));
    assert_eq!(put["changed"], json!(["/limits", "/policy/version"]));
    assert_eq!((&rotated["changed"], &rotated["object"]["version"]), (&json!(["/secret", "/groups"]), &json!("2")));
    assert_eq!((&made["tenant"], &made["outcome"]), (&json!("default"), &json!("done")));
    host.stop().await;

    let host = Setup::new().in_dir(&dir).start().await;
    assert_eq!(all_entries(&host.api).await, entries, "a restart changes nothing");
    host.api.delete("/v1/keys/stripe").await.expect(204);
    let deleted = newest(&host.api).await;
    assert_eq!(
        (&deleted["verb"], &deleted["previous"]),
        (&json!("key.delete"), &patched["digest"]),
        "the chain goes on"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_entry_is_found_in_a_file() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    host.api.delete("/v1/groups/g").await.expect(204);
    let verified = cli(&host, &["audit", "verify"], "").await;
    assert!(verified.ok().contains("none is changed or missing"), "{verified:?}");
    let url = format!("sqlite:{}", host.dir.path().join("carillon.db").display());
    let mut db = sqlx::sqlite::SqliteConnection::connect(&url).await.unwrap();
    let forge = "UPDATE audit SET doc = replace(doc, 'group.delete', 'group.pause'), verb = 'group.pause' WHERE verb = 'group.delete'";
    sqlx::query(forge).execute(&mut db).await.unwrap();
    let number = newest(&host.api).await["number"].clone();
    let found = host.api.get("/v1/audit/verify").await.expect(200);
    assert_eq!(found["broken"][0]["fault"], "changed", "{found}");
    assert_eq!((&found["broken"][0]["number"], &found["next_cursor"]), (&number, &Value::Null));
    let verified = cli(&host, &["audit", "verify"], "").await;
    assert!(verified.code == Some(1) && verified.stdout.contains("changed"), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_a_database_have_chains_of_their_own_and_show_all_entries() {
    let cluster = cluster();
    let node = |name: &str| Setup::new().set("store.url", &cluster.url(DATABASE)).set("server.name", name);
    let (a, b) = (node("a").start().await, node("b").start().await);
    a.api.put_group("of-a", json!({})).await;
    b.api.put_group("of-b", json!({})).await;
    a.api.delete("/v1/groups/of-a").await.expect(204);
    b.api.with_token("wrong").get("/v1/groups").await.problem(401);
    let entries = all_entries(&b.api).await;
    assert_eq!(all_entries(&a.api).await, entries);
    let shown: Vec<_> = entries[..4].iter().map(|it| format!("{} {}", it["node"], it["verb"])).collect();
    assert_eq!(shown, [r#""b" "request""#, r#""a" "group.delete""#, r#""b" "group.put""#, r#""a" "group.put""#]);
    let verified = a.api.get("/v1/audit/verify").await.expect(200);
    assert_eq!((&verified["verified"], &verified["broken"]), (&json!(entries.len()), &json!([])));
    cluster.sql(DATABASE, "DELETE FROM audit WHERE verb = 'request'");
    let broken = a.api.get("/v1/audit/verify").await.expect(200)["broken"].clone();
    assert_eq!(broken, json!([{"node": "b", "number": 2, "fault": "truncated"}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_go_after_their_retention() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).set("retention.audit", "10days").start().await;
    host.api.put_group("old", json!({})).await;
    clock.advance(Duration::from_secs(9 * 86_400));
    host.api.put_group("young", json!({})).await;
    clock.advance(Duration::from_secs(2 * 86_400));
    let names = async || {
        let entries = all_entries(&host.api).await;
        entries.iter().map(|entry| entry["object"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("the old entries are gone", names, |names: &Vec<String>| names == &["young"]).await;
    assert_eq!(host.api.get("/v1/audit/verify").await.expect(200)["broken"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_is_read_by_admins_of_the_tenant_and_by_operators() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    let own = host.api.with_token(&host.api.token(json!({"role": "admin"})).await);
    host.api.post("/v1/tokens", json!({"role": "admin", "operator": true})).await.expect(201);
    acme.put_group("of-acme", json!({})).await;
    own.put_group("of-default", json!({})).await;
    acme.get("/v1/tenants").await.problem(403);

    let tenants = async |api: &Api| {
        let entries = all_entries(api).await;
        entries
            .iter()
            .map(|it| it["tenant"].as_str().unwrap_or("none").to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(tenants(&acme).await, ["acme".to_owned()].into());
    assert_eq!(tenants(&host.api.for_tenant("acme")).await, ["acme".to_owned()].into());
    assert_eq!(tenants(&own).await, ["default".to_owned()].into(), "tokens of operators belong to no tenant");
    assert_eq!(tenants(&host.api).await, ["acme", "default", "none"].map(str::to_owned).into());
    let theirs = all_entries(&acme).await;
    assert_eq!(verbs(&theirs), ["request", "group.put", "token.create", "tenant.put"]);
    assert_eq!(theirs[0]["object"], json!({"kind": "route", "name": "GET /v1/tenants", "version": null}));
    let addresses: Vec<_> = theirs.iter().map(|entry| &entry["address"]).collect();
    assert_eq!(addresses, [&json!("127.0.0.1"), &json!("127.0.0.1"), &Value::Null, &Value::Null], "not an operator's");

    for token in [json!({"role": "viewer"}), json!({"role": "producer"}), json!({"role": "admin", "groups": ["g"]})] {
        let api = host.api.with_token(&host.api.token(token.clone()).await);
        api.get("/v1/audit").await.problem(403);
    }
    own.get("/v1/audit/verify").await.problem(403);
    host.api.get("/v1/audit?from=tomorrow").await.problem(400);
    host.api.get("/v1/audit?cursor=1").await.problem(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_is_filtered_and_paged() {
    let host = TestHost::start().await;
    for name in ["a", "b", "c"] {
        host.api.put(&format!("/v1/keys/{name}"), json!({"secret": "s3cret"})).await.expect(204);
    }
    host.api.delete("/v1/keys/b").await.expect(204);
    let found = async |query: &str| {
        let items = host.api.get(&format!("/v1/audit?{query}")).await.items();
        items
            .iter()
            .map(|it| format!("{} {}", it["verb"].as_str().unwrap(), it["object"]["name"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("object=key/b").await, ["key.delete b", "key.put b"]);
    assert_eq!(found("object=key&verb=key.put").await, ["key.put c", "key.put b", "key.put a"]);
    assert_eq!(found("actor=system").await, ["tenant.put default"]);
    let declared = found("actor=configuration&verb=token.create").await;
    assert_eq!(declared, ["token.create configuration"], "the configured token");
    let first = newest(&host.api).await;
    let (at, actor) = (first["at"].as_str().unwrap(), first["actor"]["token"].as_str().unwrap());
    assert_eq!(found(&format!("from={at}&actor={actor}")).await[0], "key.delete b");
    assert!(!found(&format!("to={at}")).await.contains(&"key.delete b".to_owned()));
    let page = host.api.get("/v1/audit?limit=1&object=key").await.expect(200);
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(found(&format!("limit=1&object=key&cursor={cursor}")).await, ["key.put c"]);

    let listed = cli(&host, &["audit", "--verb", "key.put", "--all", "--json"], "").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    let listed = cli(&host, &["audit", "--object", "key/b"], "").await;
    assert!(listed.ok().contains("key.delete") && listed.stdout.contains("key/b"), "{listed:?}");
    let nothing = cli(&host, &["audit", "--verb", "none"], "").await;
    assert_eq!(nothing.ok(), "no audit entries\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_to_authenticate_have_an_entry_at_once_and_then_one_a_minute() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let seen = newest(&host.api).await;
    for _ in 0..5 {
        host.api.with_token("wrong").get("/v1/keys").await.problem(401);
        host.api.without_token().put("/v1/keys/k", json!({})).await.problem(401);
    }
    let [first] = &since(&host.api, &seen).await[..] else { panic!("one entry") };
    assert_eq!((&first["outcome"], &first["count"]), (&json!("unauthenticated"), &json!(1)));
    assert_eq!((&first["actor"]["kind"], &first["tenant"]), (&json!("anonymous"), &Value::Null));
    assert_eq!(first["address"], "127.0.0.1");
    clock.advance(Duration::from_secs(61));
    let rest = eventually("the others are counted", async || since(&host.api, first).await, |it| !it.is_empty()).await;
    assert_eq!((rest.len(), &rest[0]["count"], &rest[0]["verb"]), (1, &json!(9), &json!("key.put")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_one_token_are_bounded_and_counted() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let viewer = host.api.with_token(&host.api.token(json!({"role": "viewer"})).await);
    let seen = newest(&host.api).await;
    for _ in 0..70 {
        viewer.delete("/v1/keys/k").await.problem(403);
    }
    assert_eq!(since(&host.api, &seen).await.len(), 60);
    clock.advance(Duration::from_secs(61));
    let counted = async || newest(&host.api).await["count"].clone();
    eventually("the rest is counted", counted, |count| *count == 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_payloads_are_recorded_and_single_jobs_are_not() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let seen = newest(&host.api).await;
    let job = host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h", "payload": "s3cret"})).await;
    host.api.get(&format!("/v1/jobs/{job}")).await.expect(200);
    host.api.get(&format!("/v1/jobs/{job}/payload")).await.expect(200);
    host.api.delete(&format!("/v1/jobs/{job}")).await.ok();
    let entries = since(&host.api, &seen).await;
    assert_eq!(verbs(&entries), ["job.read_payload"]);
    assert_eq!((&entries[0]["object"]["name"], &entries[0]["outcome"]), (&json!(job), &json!("requested")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_events_for_admins_who_ask_for_them() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    let own = host.api.with_token(&host.api.token(json!({"role": "admin"})).await);
    let viewer = host.api.with_token(&host.api.token(json!({"role": "viewer"})).await);
    let (mut admins, mut operators) = (own.follow("?kind=audit").await, host.api.follow("?kind=audit").await);
    let mut all_kinds = own.follow("").await;
    acme.put_group("of-acme", json!({})).await;
    host.api.post("/v1/tokens", json!({"role": "admin", "operator": true})).await.expect(201);
    host.api.put_group("g", json!({})).await;
    let event = admins.next().await;
    assert_eq!((&event["kind"], &event["audit"]["verb"]), (&json!("audit"), &json!("group.put")));
    assert_eq!((&event["audit"]["object"]["name"], &event["audit"]["address"]), (&json!("g"), &Value::Null));
    let events = operators.take(2).await;
    let shown: Vec<_> = events.iter().map(|it| &it["audit"]["verb"]).collect();
    assert_eq!(shown, ["token.create", "group.put"], "also what belongs to no tenant");
    let job = host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    assert_eq!(all_kinds.next().await["job"], json!(job), "a stream that does not ask for entries has none");
    let confined = host.api.with_token(&host.api.token(json!({"role": "admin", "groups": ["g"]})).await);
    for api in [viewer, confined] {
        api.get("/v1/events?kind=push,audit").await.problem(403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn author_of_a_version_is_the_token_and_not_its_name() {
    let host = TestHost::start().await;
    let made = host.api.post("/v1/tokens", json!({"role": "admin", "name": "first administrator"})).await.expect(201);
    let pretender = host.api.with_token(made["token"].as_str().unwrap());
    host.api.put_group("g", json!({})).await;
    pretender.put_group("g", json!({"retry": {"plugin": "backoff", "config": {"max_attempts": 2}}})).await;
    let moves = host.api.get("/v1/groups/g/policy/history").await.items();
    assert_eq!(moves[0]["by"], json!({"token": made["id"], "name": "first administrator"}));
    assert_eq!(moves[1]["by"], json!({"token": "configuration", "name": "first administrator"}));
    let version = host.api.get("/v1/groups/g/policy/versions/2").await.expect(200);
    assert_eq!(version["by"]["token"], made["id"]);
    assert_ne!(id_of(&made), "configuration");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_and_requests_have_log_lines() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let environment = [("CARILLON_LOG__REQUESTS", "true"), ("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN)];
    let mut program = Program::serve(&["--store", &store], &environment).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    api.put_group("a-secret-name", json!({})).await;
    let log = program.until_logged("\"carillon::access\"").await;
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0), "{log}");
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |target: &str, key: &str, value: &str| {
        let is_it = |line: &&Value| line["target"] == target && line[key] == value;
        lines.iter().find(is_it).unwrap_or_else(|| panic!("{target} {value}: {log}")).clone()
    };
    let entry = of("carillon::audit", "verb", "group.put");
    let line = of("carillon::access", "method", "PUT");
    assert_eq!((&entry["actor"], &entry["outcome"]), (&json!("configuration"), &json!("done")));
    assert_eq!((&line["route"], &line["status"]), (&json!("/v1/groups/{group}"), &json!(201)));
    assert_eq!((&line["tenant"], &line["token"]), (&json!("default"), &json!("configuration")));
    assert_eq!((&line["request_id"], &line["address"]), (&entry["request_id"], &json!("127.0.0.1")));
    assert!(!line.to_string().contains("a-secret-name") && line["duration_ms"].is_u64(), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovered_token_has_an_entry() {
    let host = TestHost::start().await;
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let store = format!("sqlite:{}", dir.path().join("carillon.db").display());
    run(&["recover", "token", "--store", &store], &[], "").await.ok();
    let host = Setup::new().in_dir(&dir).start().await;
    let entry = newest(&host.api).await;
    assert_eq!((&entry["verb"], &entry["actor"]["kind"]), (&json!("token.create"), &json!("system")));
    assert_eq!(entry["tenant"], Value::Null);
}
