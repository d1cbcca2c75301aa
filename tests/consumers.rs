//! Consumers that go away, that wait, and that say nothing: what they hold, and whom they wake.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::queue::{counts, host, lease, one, say};
use crate::support::{ADMIN_TOKEN, Receiver, TestHost, eventually, eventually_while, ms, soon};

const SECOND: Duration = Duration::from_secs(1);

/// Writes a request on a connection of its own, which is then reset without a look at the answer.
async fn reset_after(host: &TestHost, ask: &Value, written: impl Future<Output = ()>) {
    let address = host.base.trim_start_matches("http://");
    let body = ask.to_string();
    let request = format!(
        "POST /v1/groups/q/leases HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    written.await;
    // Closed with an answer unread, or told not to linger, it is reset.
    connection.set_zero_linger().unwrap();
}

/// Consumers that go away while their claim is on its way to the disk: nobody knows of the leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_reach_nobody_go_back_unspent() {
    let (_, host) = host().await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(host.api.job_id("q", json!({})).await);
    }
    let database = format!("sqlite:{}", host.dir.path().join("carillon.db").display());
    let mut shell = sqlx::SqliteConnection::connect(&database).await.unwrap();
    for round in 0..3 {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut shell).await.unwrap();
        for max in [1, 2, 3] {
            // The claim waits for the database: until then there is no answer that could have been written.
            let ask = json!({"lease": "12h", "max": max, "wait": if round == 1 { "20s" } else { "0s" }});
            reset_after(&host, &ask, tokio::time::sleep(Duration::from_millis(20))).await;
        }
        sqlx::query("COMMIT").execute(&mut shell).await.unwrap();
        let look = async || {
            let row = sqlx::query("SELECT sum(token) AS leased FROM job").fetch_one(&mut shell).await.unwrap();
            (row.get::<i64, _>("leased"), counts(&host.api).await)
        };
        let again = |seen: &(i64, _)| seen.0 >= 6 * (round + 1) && seen.1 == (12, 0, 0);
        eventually("six jobs were leased, and are available again", look, again).await;
    }
    let leases = lease(&host.api, json!({"max": 12})).await;
    assert_eq!(leases.len(), 12);
    for leased in &leases {
        assert_eq!(leased["attempt"], 1, "{leased}");
        say(&host.api, leased, "complete", json!({})).await.expect(200);
    }
}

/// One connection after the other is reset at another moment. What was written to a connection counts as handed over, so a lease may
/// be lost with it; what is counted is leases of requests that were reset before they could be answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_hang_up_at_any_moment_spend_nothing() {
    let (clock, host) = host().await;
    let id = host.api.job_id("q", json!({})).await;
    for round in 0..60 {
        let moment = Duration::from_micros(round * 20);
        reset_after(&host, &json!({"lease": "1s"}), tokio::time::sleep(moment)).await;
    }
    // Where the answer was written before the reset, the lease ends by its time.
    let later = async || clock.advance(SECOND);
    let look = async || counts(&host.api).await;
    eventually_while("the job is available", later, look, |counts| *counts == (1, 0, 0)).await;
    assert_eq!(host.api.job(&id).await["state"], "scheduled");
}

/// How many transactions and calls the store has made.
async fn commands(host: &TestHost) -> u64 {
    let metrics = host.api.get("/metrics").await;
    let line = metrics.text().lines().find(|line| line.starts_with("carillon_store_commands")).unwrap().to_owned();
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_woken_for_jobs_of_their_group_only() {
    let (clock, host) = host().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("other", json!({})).await;
    host.api.put_group("paused", json!({})).await;
    host.api.post("/v1/groups/paused/pause", json!({})).await.expect(200);
    // Old jobs that nobody leases.
    for group in ["other", "paused"] {
        host.api.job_id(group, json!({})).await;
    }
    let consumers: Vec<_> = (0..20)
        .map(|_| {
            let api = host.api.clone();
            tokio::spawn(async move { lease(&api, json!({"wait": "20s"})).await })
        })
        .collect();
    host.looked(&receiver).await;
    let measure = async || {
        let before = commands(&host).await;
        for _ in 0..20 {
            host.looked(&receiver).await;
        }
        commands(&host).await - before
    };
    // The first round also sees the consumers come.
    measure().await;
    let alone = measure().await;
    assert!(alone < 20 * 20, "each look asks a few times, and not once for each consumer: {alone}");

    // A batch reaches as many consumers as it has jobs, whoever is woken first.
    let many: Vec<Value> = (0..20).map(|number| json!({"payload_text": number.to_string()})).collect();
    host.api.post("/v1/groups/q/jobs/batch", json!({"jobs": many})).await.expect(201);
    for consumer in consumers {
        assert_eq!(soon("each consumer gets a job", consumer).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ends_is_seen_when_it_ends() {
    let (clock, host) = host().await;
    host.api.put_group("paused", json!({})).await;
    host.api.post("/v1/groups/paused/pause", json!({})).await.expect(200);
    for _ in 0..3 {
        clock.advance(Duration::from_millis(800));
        let id = host.api.job_id("q", json!({})).await;
        let leased = lease(&host.api, json!({"lease": "1s"})).await.remove(0);
        // The rescuer, which looks once in a second, looks in between.
        let sentinel = host.api.job_id("paused", json!({"limits": {"ttl": "100ms"}})).await;
        clock.advance(Duration::from_millis(300));
        host.api.until_state(&sentinel, "expired").await;
        clock.set(ms(&leased["expires_at"]));
        host.api.until_retry(&id, 1).await;
        say(&host.api, &one(&host.api).await, "complete", json!({})).await.expect(200);
    }
}
