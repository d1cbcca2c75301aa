//! Tenants that are suspended, and tenants that are deleted.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::{
    ADMIN_TOKEN, Api, Cluster, DATABASE, ManualClock, Receiver, Setup, TestHost, cluster, eventually, run,
};

/// How soon what is open ends.
const ENDED: Duration = Duration::from_millis(1_500);

async fn suspend(host: &TestHost, tenant: &str) {
    let suspended = host.api.post(&format!("/v1/tenants/{tenant}/suspend"), json!({})).await.expect(200);
    assert_eq!(suspended["suspended"], true);
}

async fn resume(host: &TestHost, tenant: &str) {
    let resumed = host.api.post(&format!("/v1/tenants/{tenant}/resume"), json!({})).await.expect(200);
    assert_eq!(resumed["suspended"], false);
}

fn assert_suspended(problem: &Value) {
    assert_eq!(problem["type"], "urn:carillon:problem:suspended", "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_tenant_neither_delivers_nor_ticks_nor_leases_until_it_is_resumed() {
    let clock = ManualClock::new();
    let setup = Setup::with_clock(&clock);
    let (host, receiver) = (setup.start().await, Receiver::with_clock(clock.clone()).await);
    let acme = host.api.tenant("acme").await;
    acme.put_group("g", json!({})).await;
    acme.put_group("pulled", json!({})).await;
    acme.post_job("g", json!({"url": receiver.url("/job"), "run_at": "+10s"})).await;
    acme.post_job("pulled", json!({"payload": 1})).await;
    let schedule = json!({"group": "g", "cron": "* * * * *", "job": {"url": receiver.url("/tick")}, "catch_up": "1h"});
    acme.put("/v1/schedules/s", schedule).await.ok();
    suspend(&host, "acme").await;
    assert_suspended(&acme.get("/v1/groups").await.problem(403));
    assert_suspended(&acme.post("/v1/groups/g/jobs", json!({"url": receiver.url("/job")})).await.problem(403));
    let mut settings = host.api.get("/v1/tenants/acme").await.expect(200);
    assert_eq!(settings["suspended"], true);
    host.api.put("/v1/tenants/acme", json!({"quota": {"concurrency": 3}})).await.expect(200);
    settings = host.api.patch("/v1/tenants/acme", json!({"quota": {"concurrency": null}})).await.expect(200);
    assert_eq!(settings["suspended"], true, "a change of the settings does not resume it");
    host.stop().await;

    let host = setup.start().await;
    let operator = host.api.for_tenant("acme");
    clock.advance(Duration::from_secs(150));
    host.looked(&receiver).await;
    assert_eq!((receiver.count("/job"), receiver.count("/tick")), (0, 0));
    let leased = operator.post("/v1/groups/pulled/leases", json!({})).await.expect(200);
    assert_eq!(leased["leases"], json!([]));
    let run = operator.get("/v1/schedules/s/history").await.items();
    assert!(run.is_empty(), "{run:?}");
    host.api.with_token(ADMIN_TOKEN).get("/v1/groups").await.expect(200);

    resume(&host, "acme").await;
    receiver.arrived("/job", 1).await;
    receiver.arrived("/tick", 1).await;
    let leased = operator.post("/v1/groups/pulled/leases", json!({})).await.expect(200);
    assert_eq!(leased["leases"].as_array().unwrap().len(), 1, "its jobs have stayed");
    acme.at(&host.base).get("/v1/groups").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_ends_with_the_suspension() {
    let host = TestHost::start().await;
    let acme = host.api.tenant("acme").await;
    acme.put_group("g", json!({})).await;
    let mut stream = acme.follow("").await;
    stream.block().await.unwrap();
    let waiting = tokio::spawn({
        let acme = acme.clone();
        async move { acme.post("/v1/groups/g/leases", json!({"wait": "20s"})).await.problem(403) }
    });
    let waits = async || host.api.metric("carillon_waiting_consumers").await;
    eventually("the consumer waits", waits, |waiting| *waiting == 1).await;
    suspend(&host, "acme").await;
    let ended = async { (stream.rest().await, waiting.await.unwrap()) };
    let (_, problem) = tokio::time::timeout(ENDED, ended).await.expect("the stream and the wait end");
    assert_suspended(&problem);
}

fn node(cluster: &Cluster, name: &str) -> Setup {
    Setup::new().set("store.url", &cluster.url(DATABASE)).set("server.name", name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_agree_on_suspended_and_deleted_tenants() {
    let cluster = cluster();
    let (here, there) = (node(&cluster, "a").start().await, node(&cluster, "b").start().await);
    let receiver = Receiver::start().await;
    let acme = here.api.tenant("acme").await;
    acme.put_group("g", json!({})).await;
    let theirs = acme.at(&there.base);
    theirs.until_status("/v1/groups/g", 200).await;
    let mut stream = theirs.follow("").await;
    stream.block().await.unwrap();
    suspend(&here, "acme").await;
    tokio::time::timeout(ENDED, stream.rest()).await.expect("the stream on the other node ends");
    assert_suspended(&theirs.get("/v1/groups").await.problem(403));
    here.api.for_tenant("acme").post_job("g", json!({"url": receiver.url("/held")})).await;
    for node in [&here, &there] {
        node.looked(&receiver).await;
    }
    assert_eq!(receiver.count("/held"), 0);

    here.api.delete("/v1/tenants/acme").await.expect(204);
    there.api.until_status("/v1/tenants/acme", 404).await;
    theirs.get("/v1/groups").await.problem(401);
    there.api.put("/v1/tenants/acme", json!({})).await.expect(201);
    here.api.until_status("/v1/tenants/acme", 200).await;
    for node in [&here, &there] {
        let namesake = node.api.for_tenant("acme");
        assert!(namesake.get("/v1/groups").await.items().is_empty());
        assert!(namesake.get("/v1/jobs").await.items().is_empty());
        node.looked(&receiver).await;
    }
    assert_eq!(receiver.count("/held"), 0);
}

/// Gives a tenant something of everything.
async fn fill(api: &Api, receiver: &Receiver) {
    api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let signed = json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}});
    api.put_group("g", signed).await;
    api.put_group("g", json!({"sign": null})).await;
    let id = api.job_id("g", json!({"url": receiver.url("/done"), "payload": {}})).await;
    api.until_state(&id, "succeeded").await;
    let waiting = json!({"url": receiver.url("/waiting"), "run_at": "+1h", "dedupe_key": "d", "dedupe_window": "10m"});
    api.post_job("g", waiting).await;
    let schedule = json!({"group": "g", "cron": "0 0 1 1 *", "job": {"url": receiver.url("/tick")}});
    api.put("/v1/schedules/s", schedule).await.ok();
    api.post("/v1/schedules/s/run", json!({})).await.ok();
    receiver.arrived("/tick", 1).await;
    api.post("/v1/tokens", json!({"role": "viewer"})).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_tenant_is_gone_at_once_and_leaves_nothing_behind() {
    let clock = ManualClock::new();
    let setup = Setup::with_clock(&clock);
    let (host, receiver) = (setup.start().await, Receiver::with_clock(clock.clone()).await);
    let acme = host.api.tenant("acme").await;
    fill(&acme, &receiver).await;
    let (other, elsewhere) = (host.api.tenant("other").await, Receiver::with_clock(clock.clone()).await);
    fill(&other, &elsewhere).await;
    let mut stream = acme.follow("").await;
    stream.block().await.unwrap();

    host.api.delete("/v1/tenants/acme").await.expect(204);
    tokio::time::timeout(ENDED, stream.rest()).await.expect("the stream ends");
    host.api.get("/v1/tenants/acme").await.problem(404);
    host.api.delete("/v1/tenants/acme").await.problem(404);
    host.api.for_tenant("acme").get("/v1/groups").await.problem(404);
    acme.get("/v1/groups").await.problem(401);
    let namesake = host.api.tenant("acme").await;
    for list in ["groups", "keys", "schedules", "jobs"] {
        assert!(namesake.get(&format!("/v1/{list}")).await.items().is_empty(), "{list}");
    }
    assert_eq!(namesake.get("/v1/whoami").await.expect(200)["usage"]["jobs"], 0);
    acme.get("/v1/groups").await.problem(401);
    host.stop().await;

    // The rest goes after a restart.
    let host = setup.start().await;
    let database = format!("sqlite:{}", host.dir.path().join("carillon.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&database).await.unwrap();
    let deleted = "SELECT min(id) FROM entity WHERE kind = 'tenant' AND name = 'acme'";
    let id: i64 = sqlx::query_scalar(deleted).fetch_one(&mut connection).await.unwrap();
    let left = "SELECT (SELECT count(*) FROM entity WHERE tenant = ?1 OR id = ?1)
        + (SELECT count(*) FROM job WHERE tenant = ?1) + (SELECT count(*) FROM recent WHERE tenant = ?1)
        + (SELECT count(*) FROM job_spec WHERE job NOT IN (SELECT id FROM job))
        + (SELECT count(*) FROM attempt WHERE job NOT IN (SELECT id FROM job))
        + (SELECT count(*) FROM tick WHERE schedule NOT IN (SELECT id FROM entity))";
    let mut rounds = 0;
    loop {
        clock.advance(Duration::from_secs(61));
        host.looked(&receiver).await;
        let count: i64 = sqlx::query_scalar(left).bind(id).fetch_one(&mut connection).await.unwrap();
        if count == 0 {
            break;
        }
        rounds += 1;
        assert!(rounds < 50, "{count} rows are left after {rounds} minutes");
    }
    let other = other.at(&host.base);
    assert_eq!(other.get("/v1/groups").await.items().len(), 1);
    assert_eq!(other.get("/v1/jobs").await.items().len(), 3, "another tenant's jobs stay");
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenant_that_must_stay_is_not_deleted() {
    let host = Setup::new().file("[tenants.configured]\n").start().await;
    for tenant in ["default", "configured"] {
        host.api.delete(&format!("/v1/tenants/{tenant}")).await.problem(409);
    }
    host.api.delete("/v1/tenants/none").await.problem(404);
    for verb in ["suspend", "resume"] {
        host.api.post(&format!("/v1/tenants/none/{verb}"), json!({})).await.problem(404);
        let admin = host.api.tenant("acme").await;
        admin.post(&format!("/v1/tenants/acme/{verb}"), json!({})).await.problem(403);
    }
    // Operators are not locked out of their own tenant.
    suspend(&host, "default").await;
    host.api.get("/v1/groups").await.expect(200);
    resume(&host, "default").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_suspends_resumes_and_deletes() {
    let host = TestHost::start().await;
    let environment = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    let acme = host.api.tenant("acme").await;
    acme.put_group("g", json!({})).await;
    run(&["tenant", "suspend", "acme"], &environment, "").await.ok();
    acme.get("/v1/groups").await.problem(403);
    run(&["tenant", "resume", "acme"], &environment, "").await.ok();
    acme.get("/v1/groups").await.expect(200);
    run(&["tenant", "delete", "acme", "--yes"], &environment, "").await.ok();
    acme.get("/v1/groups").await.problem(401);
}
