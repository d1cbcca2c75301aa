//! Upgrades: this version opens a database that the program of an older release has filled (`tests/upgrade/fill`) and goes on with it.
//!
//! The older program was killed in the middle: a job is running and another one is leased by a consumer.

use std::time::Duration;

use carillon_core::clock::UnixMs;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::{ManualClock, Receiver, Setup, TestHost, repository};

/// A moment after the older program was killed, while the leases that it gave still last: 2026-11-30T17:26:00Z.
const KILLED: UnixMs = UnixMs(1_796_059_560_000);

/// A host on the database of an older release, and its clock.
async fn upgraded(release: &str) -> (std::sync::Arc<ManualClock>, TestHost) {
    let clock = ManualClock::new();
    clock.set(KILLED);
    let setup = Setup::with_clock(&clock);
    let host = setup.clone().set("store.url", &store(release).await).start().await;
    (clock, host)
}

/// Writes what a release has stored into a file that lasts as long as the tests, and returns its URL.
async fn store(release: &str) -> String {
    let dump = std::fs::read_to_string(repository().join(format!("tests/upgrade/{release}.sql"))).unwrap();
    let path = tempfile::tempdir().unwrap().keep().join("old.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(dump)).execute(&mut connection).await.unwrap();
    // A dump does not have it.
    sqlx::raw_sql("PRAGMA application_id = 0x4361726c").execute(&mut connection).await.unwrap();
    format!("sqlite:{}", path.display())
}

async fn by_name(host: &TestHost, group: &str, name: &str) -> Value {
    host.api.get(&format!("/v1/jobs/{name}?group={group}")).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_of_an_older_release_keeps_everything_that_it_holds() {
    let (clock, host) = upgraded("0.1.0").await;
    let states = [
        ("signed", "s", "succeeded"),
        ("signed", "succeeded", "succeeded"),
        ("signed", "retried", "scheduled"),
        ("signed", "waiting", "scheduled"),
        ("signed", "second", "scheduled"),
        ("signed", "cancelled", "cancelled"),
        ("q", "dead", "dead"),
        ("errors", "dead", "scheduled"),
        ("q", "leased", "running"),
        ("q", "available", "scheduled"),
    ];
    for (group, name, state) in states {
        assert_eq!(by_name(&host, group, name).await["state"], state, "{name}");
    }
    let retried = by_name(&host, "signed", "retried").await;
    assert_eq!((&retried["attempt_count"], &retried["last_status"]), (&json!(1), &json!(500)));
    assert_eq!(by_name(&host, "signed", "waiting").await["metadata"], json!({"plan": "free"}));
    let tokens = host.api.get("/v1/tokens").await.items();
    assert!(tokens.iter().any(|token| token["name"] == "producer" && token["role"] == "producer"), "{tokens:?}");
    assert_eq!(host.api.get("/v1/tenants").await.items().len(), 2);
    assert_eq!(host.api.get("/v1/schedules/s").await.expect(200)["time_zone"], "Europe/Vienna");
    let again = host.api.post("/v1/groups/signed/jobs", json!({"url": "http://127.0.0.1:1/", "dedupe_key": "d"})).await;
    assert_eq!(again.expect(200)["name"], "once", "its keys are known");

    // Nobody is left who could extend the lease that the older program held.
    clock.advance(Duration::from_secs(60));
    let running = by_name(&host, "signed", "running").await["id"].as_str().unwrap().to_owned();
    host.api.until(&running, "it was taken back", |job| job["attempt_count"] != 0).await;
    assert_eq!(host.api.attempts(&running).await[0]["error"]["code"], "attempt.interrupted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_an_older_release_are_delivered_and_leased() {
    let (clock, host) = upgraded("0.1.0").await;
    let receiver = Receiver::start().await;
    for name in ["second", "first", "waiting"] {
        let path = format!("/v1/jobs/{name}?group=signed");
        let id =
            host.api.patch(&path, json!({"url": receiver.url(&format!("/{name}"))})).await.expect(200)["id"].clone();
        host.api.post(&format!("/v1/jobs/{}/run", id.as_str().unwrap()), json!({})).await.expect(200);
    }
    let arrival = &receiver.arrived("/waiting", 1).await[0];
    assert!(
        arrival.text().ends_with("?n=MTIzNDU2Nzg5MDEyMzQ1Njc4OTA="),
        "its payload, signed with the key: {}",
        arrival.text()
    );
    receiver.arrived("/second", 1).await;
    assert_eq!(receiver.count("/first"), 1, "the second of an order key follows the first");

    let leases = host.api.post("/v1/groups/q/leases", json!({"max": 10})).await.expect(200)["leases"].clone();
    let names: Vec<_> = leases.as_array().unwrap().iter().map(|lease| &lease["job"]["name"]).collect();
    assert_eq!(names, ["available"]);
    assert_eq!(leases[0]["payload"], "pull me too");
    clock.advance(Duration::from_secs(13 * 60 * 60));
    let leased = by_name(&host, "q", "leased").await["id"].as_str().unwrap().to_owned();
    host.api.until(&leased, "the consumer's lease ends", |job| job["state"] == "scheduled").await;
}
