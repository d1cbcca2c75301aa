//! A database that refuses to write what came of an attempt: the job ends as it should, or is tried again, and nothing goes round for ever.

use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

use crate::support::{Answer, ManualClock, Receiver, Setup, TestHost, eventually_while};

/// Makes the database refuse records of attempts for which `when` holds.
async fn refuse(host: &TestHost, when: &str) -> SqliteConnection {
    let database = format!("sqlite:{}", host.dir.path().join("carillon.db").display());
    let mut shell = SqliteConnection::connect(&database).await.unwrap();
    let trigger =
        format!("CREATE TRIGGER refusal BEFORE INSERT ON attempt WHEN {when} BEGIN SELECT raise(ABORT, 'no'); END");
    sqlx::query(AssertSqlSafe(trigger)).execute(&mut shell).await.unwrap();
    shell
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_refused_is_written_without_its_details() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    host.api.put_group("g", json!({"retry": {"config": {"kind": "fixed", "base": "1h", "jitter": 0}}})).await;
    refuse(&host, "length(NEW.response_body) > 0").await;
    receiver.on("/ok", [Answer::body(200, "done").header("x-a", "b")]);
    receiver.on("/fails", [Answer::body(500, "failed")]);
    let job = async |path: &str| host.api.job_id("g", json!({"url": receiver.url(path)})).await;
    let (ok, fails) = (job("/ok").await, job("/fails").await);
    host.api.until_state(&ok, "succeeded").await;
    host.api.until_retry(&fails, 1).await;
    for (id, status, state) in [(&ok, 200, "succeeded"), (&fails, 500, "scheduled")] {
        let attempt = host.api.attempts(id).await.remove(0);
        assert_eq!((&attempt["status"], &attempt["decision"]["state"]), (&json!(status), &json!(state)));
        assert_eq!(attempt["error"]["code"], "attempt.record_refused");
        assert_eq!(attempt["response_headers"], json!([]));
    }
    assert_eq!((receiver.count("/ok"), receiver.count("/fails")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_is_refused_altogether_ends_with_its_lease() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({})).await;
    let mut shell = refuse(&host, "TRUE").await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    receiver.arrived("/a", 1).await;
    // Its lease is extended as long as somebody holds it.
    let later = async || clock.advance(Duration::from_secs(31));
    let lost = async || {
        let row = sqlx::query("SELECT lost_leases FROM job").fetch_one(&mut shell).await.unwrap();
        row.get::<i64, _>("lost_leases")
    };
    eventually_while("the lease is given up", later, lost, |lost| *lost > 0).await;
    sqlx::query("DROP TRIGGER refusal").execute(&mut shell).await.unwrap();
    let look = async || host.api.job(&id).await;
    eventually_while("the job is taken back, and tried again", later, look, |job| job["state"] == "succeeded").await;
    assert_eq!((&host.api.job(&id).await["attempt_count"], receiver.count("/a")), (&json!(2), 2));
}
