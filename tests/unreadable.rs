//! Jobs whose stored rows cannot be read, because of a damaged disk or a newer version: the API says so, and removes them.

use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use crate::support::{Answer, DATABASE, Gate, ManualClock, Receiver, Reply, Setup, TestHost, cluster, eventually};

/// Makes a job of a server with a file unreadable.
async fn damage_in_file(host: &TestHost, id: &str) {
    let file = host.dir.path().join("carillon.db");
    let mut db = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let sql = format!("UPDATE job_spec SET spec = '{{' WHERE job = x'{}'", id.replace('-', ""));
    assert_eq!(sqlx::query(AssertSqlSafe(sql)).execute(&mut db).await.unwrap().rows_affected(), 1);
    db.close().await.unwrap();
}

/// Asserts that a reply names the job and what to do.
fn assert_unreadable(reply: &Reply, id: &str, advice: &str) {
    let problem = reply.problem(409);
    assert_eq!(problem["type"], "urn:carillon:problem:unreadable-job");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(id) && detail.contains("cannot be read") && detail.contains(advice), "{detail}");
}

/// Waits until as many of the group's jobs are in a state.
async fn until_counted(host: &TestHost, state: &str, count: u64) {
    let counted = async || host.api.stats("g").await[state].clone();
    eventually(&format!("{count} jobs are {state}"), counted, |found| *found == count).await;
}

async fn assert_said_and_removed(host: &TestHost, damage: impl AsyncFn(&str)) {
    let (receiver, gate) = (Receiver::start().await, Gate::closed());
    receiver.on("/", [Answer::status(500).held(&gate)]);
    host.api.put_group("g", json!({})).await;
    let waiting = host.api.job_id("g", json!({"url": receiver.url("/"), "run_at": "+1h"})).await;
    let running = host.api.job_id("g", json!({"url": receiver.url("/")})).await;
    receiver.arrived("/", 1).await;
    let stranger = host.api.tenant("stranger").await;
    for id in [&waiting, &running] {
        damage(id).await;
        let path = format!("/v1/jobs/{id}");
        for read in [path.clone(), format!("{path}/payload")] {
            assert_unreadable(&host.api.get(&read).await, id, &format!("DELETE {path}"));
        }
        assert_unreadable(&host.api.post(&format!("{path}/run"), json!({})).await, id, "upgrade this node");
        assert_unreadable(&host.api.patch(&path, json!({"name": "n"})).await, id, "upgrade this node");
        stranger.get(&path).await.problem(404);
        stranger.delete(&path).await.problem(404);
    }
    assert!(host.api.get("/v1/groups/g/jobs").await.items().is_empty(), "lists leave them out");

    let path = |id: &str| format!("/v1/jobs/{id}");
    assert_eq!(host.api.delete(&path(&waiting)).await.status, 204);
    host.api.get(&path(&waiting)).await.problem(404);
    host.api.delete(&path(&waiting)).await.problem(404);

    assert_unreadable(&host.api.delete(&path(&running)).await, &running, "when the attempt is over");
    gate.release(1);
    until_counted(host, "cancelled", 1).await;
    assert_eq!(host.api.attempts(&running).await.len(), 1, "attempts can still be read");
    assert_eq!(host.api.delete(&path(&running)).await.status, 204);
    host.api.get(&path(&running)).await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_job_in_sqlite_is_reported_and_removed() {
    let host = TestHost::start().await;
    assert_said_and_removed(&host, async |id| damage_in_file(&host, id).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_job_in_postgres_is_reported_and_removed() {
    let cluster = cluster();
    let host = Setup::new().set("store.url", &cluster.url(DATABASE)).start().await;
    let damage = async |id: &str| {
        cluster.sql(DATABASE, &format!("UPDATE job_spec SET spec = '{{' WHERE job = '{id}'"));
    };
    assert_said_and_removed(&host, damage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_job_that_is_due_ends_dead_shows_why_and_is_removed() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({})).await;
    let id = host.api.job_id("g", json!({"url": "http://127.0.0.1:9/", "run_at": "+1m"})).await;
    damage_in_file(&host, &id).await;
    clock.advance(Duration::from_secs(120));
    until_counted(&host, "dead", 1).await;
    let attempts = host.api.attempts(&id).await;
    assert_eq!((attempts.len(), &attempts[0]["error"]["code"]), (1, &json!("store.unreadable")));
    assert_eq!(host.api.delete(&format!("/v1/jobs/{id}")).await.status, 204);
    assert_eq!(host.api.stats("g").await["dead"], 0);
}
