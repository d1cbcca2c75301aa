//! Consumers that fetch their jobs: leases, retries, the error queue, exact counts.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::queue::{counts, host, lease, one, say};
use crate::support::{Api, ManualClock, Setup, TestHost, eventually, eventually_while, ms, soon};

const SECOND: Duration = Duration::from_secs(1);

fn texts(leases: &[Value]) -> Vec<&str> {
    leases.iter().map(|lease| lease["payload_text"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_come_in_the_order_of_their_acceptance_and_payloads_as_they_were_given() {
    let (_, host) = host().await;
    let given = [
        json!({"payload": {"a": [1, 2.50]}}),
        json!({"payload_text": "é"}),
        json!({"payload_base64": "/w=="}),
        json!({}),
    ];
    for job in &given {
        let made = host.api.post_job("q", job.clone()).await;
        assert_eq!(made["request"], Value::Null);
    }
    assert_eq!(counts(&host.api).await, (4, 0, 0), "exact, without a lease");
    let leases = lease(&host.api, json!({"max": 9})).await;
    assert_eq!(leases[0]["payload"], json!({"a": [1, 2.50]}));
    assert_eq!(leases[1]["payload_text"], "é");
    assert_eq!(leases[2]["payload_base64"], "/w==");
    assert_eq!(leases[3]["payload_text"], "");
    assert_eq!(counts(&host.api).await, (0, 4, 0));

    let many: Vec<Value> = (0..200).map(|number| json!({"payload_text": number.to_string()})).collect();
    host.api.post("/v1/groups/q/jobs/batch", json!({"jobs": many})).await.expect(201);
    let leases = lease(&host.api, json!({"max": 200})).await;
    assert_eq!(texts(&leases), (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completes_settle_their_own_job_in_any_order() {
    let (_, host) = host().await;
    let mut ids = Vec::new();
    for text in ["a", "b", "c"] {
        ids.push(host.api.job_id("q", json!({"payload_text": text})).await);
    }
    let leases = lease(&host.api, json!({"max": 3})).await;
    assert_eq!(say(&host.api, &leases[1], "complete", json!({})).await.expect(200)["state"], "succeeded");
    let states = async || {
        let mut states = Vec::new();
        for id in &ids {
            states.push(host.api.job(id).await["state"].as_str().unwrap().to_owned());
        }
        states
    };
    assert_eq!(states().await, ["running", "succeeded", "running"]);
    say(&host.api, &leases[2], "complete", json!({})).await.expect(200);
    say(&host.api, &leases[0], "complete", json!({})).await.expect(200);
    assert_eq!(states().await, ["succeeded", "succeeded", "succeeded"]);
    say(&host.api, &leases[0], "complete", json!({})).await.problem(409);
    let attempt = &host.api.attempts(&ids[0]).await[0];
    assert_eq!((&attempt["number"], &attempt["verdict"]["outcome"]), (&json!(1), &json!("success")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_retry_policy_decides_about_what_failed() {
    let (clock, host) = host().await;
    let id = host.api.job_id("q", json!({"payload_text": "a"})).await;
    for number in 1..=2 {
        let leased = one(&host.api).await;
        assert_eq!(leased["attempt"], number);
        let failed = say(&host.api, &leased, "fail", json!({"error": "no luck"})).await.expect(200);
        assert_eq!(failed["state"], "scheduled");
        assert_eq!(ms(&failed["next_run_at"]), clock.now().plus(10 * SECOND));
        assert_eq!(counts(&host.api).await, (0, 0, 1));
        clock.advance(Duration::from_millis(9_999));
        assert!(lease(&host.api, json!({})).await.is_empty(), "not before its time");
        clock.advance(Duration::from_millis(1));
        assert_eq!(counts(&host.api).await, (1, 0, 0));
    }
    let failed = say(&host.api, &one(&host.api).await, "fail", json!({"error": "no luck"})).await.expect(200);
    assert_eq!((&failed["state"], &failed["next_run_at"]), (&json!("dead"), &Value::Null));
    let job = host.api.job(&id).await;
    assert_eq!((&job["attempt_count"], &job["last_error"]), (&json!(3), &json!("consumer.failed")));
    let attempts = host.api.attempts(&id).await;
    assert_eq!(attempts[0]["error"]["message"], "no luck");
    assert_eq!(attempts[0]["plugins"][0]["role"], "retry");

    host.api.job_id("q", json!({"payload_text": "b"})).await;
    let failed = say(&host.api, &one(&host.api).await, "fail", json!({"permanent": true})).await.expect(200);
    assert_eq!(failed["state"], "dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ends_gives_the_job_to_the_next() {
    let (clock, host) = host().await;
    let id = host.api.job_id("q", json!({})).await;
    let first = lease(&host.api, json!({"lease": "30s"})).await.remove(0);
    clock.advance(20 * SECOND);
    let extended = say(&host.api, &first, "extend", json!({"lease": "15s"})).await.expect(200);
    assert_eq!(ms(&extended["expires_at"]), clock.now().plus(15 * SECOND));
    clock.advance(14 * SECOND);
    assert!(lease(&host.api, json!({})).await.is_empty());
    clock.advance(SECOND);
    say(&host.api, &first, "complete", json!({})).await.problem(409);
    say(&host.api, &first, "extend", json!({})).await.problem(409);
    host.api.until_retry(&id, 1).await;
    let second = one(&host.api).await;
    assert_eq!(second["attempt"], 2, "a lease that ended without a word spends the attempt");
    say(&host.api, &first, "complete", json!({})).await.problem(409);
    say(&host.api, &second, "complete", json!({})).await.expect(200);
    assert_eq!(host.api.job(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_consumers_outlive_the_server() {
    let (clock, host) = host().await;
    let id = host.api.job_id("q", json!({})).await;
    let leased = one(&host.api).await;
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let host = Setup::with_clock(&clock).in_dir(&dir).start().await;
    clock.advance(SECOND);
    say(&host.api, &leased, "complete", json!({})).await.expect(200);
    assert_eq!(host.api.job(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_job_is_available_at_once_and_unspent() {
    let (_, host) = host().await;
    let id = host.api.job_id("q", json!({})).await;
    let released = say(&host.api, &one(&host.api).await, "release", json!({})).await.expect(200);
    assert_eq!(released["state"], "scheduled");
    assert_eq!(one(&host.api).await["attempt"], 1);
    assert_eq!(host.api.job(&id).await["attempt_count"], 0);
}

/// The number of waiting consumers.
const WAITING: &str = "carillon_waiting_consumers";

async fn until_one_waits(api: &Api) {
    eventually("a consumer waits", async || api.metric(WAITING).await, |waiting| *waiting == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_consumer_gets_the_next_job() {
    let (clock, host) = host().await;
    let waiting = |host: &TestHost| {
        let api = host.api.clone();
        tokio::spawn(async move { lease(&api, json!({"wait": "20s"})).await })
    };
    let consumer = waiting(&host);
    host.api.job_id("q", json!({"payload_text": "now"})).await;
    assert_eq!(texts(&soon("the job", consumer).await.unwrap()), ["now"]);

    host.api.job_id("q", json!({"payload_text": "later", "run_at": "+5s"})).await;
    assert_eq!(counts(&host.api).await, (0, 1, 1));
    let consumer = waiting(&host);
    let later = async || clock.advance(SECOND);
    eventually_while("the delayed job", later, async || consumer.is_finished(), |is_finished| *is_finished).await;
    assert_eq!(texts(&consumer.await.unwrap()), ["later"]);

    let consumer = waiting(&host);
    until_one_waits(&host.api).await;
    host.api.job_id("q", json!({"payload_text": "again"})).await;
    assert_eq!(texts(&soon("the job", consumer).await.unwrap()), ["again"]);
    eventually("no consumer waits", async || host.api.metric(WAITING).await, |waiting| *waiting == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_answers_waiting_consumers_with_no_jobs() {
    let host = TestHost::start().await;
    host.api.put_group("q", json!({})).await;
    let api = host.api.clone();
    let consumer = tokio::spawn(async move { lease(&api, json!({"wait": "20s"})).await });
    until_one_waits(&host.api).await;
    soon("the stop", host.stop()).await;
    assert!(consumer.await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_go_to_the_error_queue_with_the_same_verbs() {
    let (_, host) = host().await;
    host.api.put("/v1/groups/q", json!({"dead_letters": "errors"})).await.problem_at(422, "/dead_letters");
    host.api.put_group("errors", json!({})).await;
    host.api.put_group("q", json!({"dead_letters": "errors"})).await;
    host.api.delete("/v1/groups/errors").await.problem(409);
    let id = host.api.job_id("q", json!({"name": "n", "payload": {"a": 1}, "metadata": {"k": "v"}})).await;
    say(&host.api, &one(&host.api).await, "fail", json!({"error": "bad data", "permanent": true})).await.expect(200);
    let letters = host.api.post("/v1/groups/errors/leases", json!({})).await.expect(200)["leases"].clone();
    let letter = &letters[0];
    assert_eq!((&letter["payload"], &letter["job"]["name"]), (&json!({"a": 1}), &json!("n")));
    assert_eq!(letter["job"]["parent"], id.as_str());
    let metadata = &letter["job"]["metadata"];
    assert_eq!((&metadata["k"], &metadata["carillon"]["error"]), (&json!("v"), &json!("bad data")), "{metadata}");
    assert_eq!(metadata["carillon"]["state"], "dead");
    assert_eq!(host.api.stats("errors").await["in_flight"], 1);
    say(&host.api, letter, "complete", json!({})).await.expect(200);
    assert_eq!(host.api.stats("errors").await["succeeded"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_takes_the_delayed_ones_along() {
    let (_, host) = host().await;
    for job in [json!({}), json!({"run_at": "+1h"}), json!({})] {
        host.api.job_id("q", job).await;
    }
    let held = one(&host.api).await;
    assert_eq!(counts(&host.api).await, (1, 1, 1));
    let flushed = host.api.post("/v1/groups/q/flush", json!({})).await.expect(200);
    assert_eq!((&flushed["done"], &flushed["finished"]), (&json!(3), &json!(true)), "{flushed}");
    assert_eq!(counts(&host.api).await, (0, 1, 0));
    say(&host.api, &held, "complete", json!({})).await.expect(200);
    assert_eq!(counts(&host.api).await, (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_leases_and_bad_requests_are_refused_cleanly() {
    let (clock, host) = host().await;
    let unknown = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for token in ["x", unknown, "%00", "a%2Fb"] {
        for verb in ["extend", "complete", "fail", "release"] {
            host.api.post(&format!("/v1/leases/{token}/{verb}"), json!({})).await.problem(404);
        }
    }
    for (ask, pointer) in [
        (json!({"max": 0}), "/max"),
        (json!({"max": 1001}), "/max"),
        (json!({"wait": "1h"}), "/wait"),
        (json!({"wait": "soon"}), "/wait"),
        (json!({"lease": "10ms"}), "/lease"),
        (json!({"lease": "13h"}), "/lease"),
    ] {
        host.api.post("/v1/groups/q/leases", ask).await.problem_at(422, pointer);
    }
    host.api.job_id("q", json!({"limits": {"ttl": "5s"}})).await;
    let id = host.api.job_id("q", json!({"limits": {"ttl": "60s"}})).await;
    clock.advance(6 * SECOND);
    let leased = one(&host.api).await;
    assert_eq!(leased["job"]["id"], id.as_str(), "one that expired is not handed out");
    let stranger = host.api.tenant("acme").await;
    say(&stranger, &leased, "complete", json!({})).await.problem(404);
    host.api.post("/v1/groups/q/pause", json!({})).await.expect(200);
    host.api.job_id("q", json!({})).await;
    assert!(lease(&host.api, json!({})).await.is_empty(), "a paused group gives nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_retry_no_sooner_and_no_more_often_than_the_server_allows() {
    let clock = ManualClock::new();
    let setup = Setup::with_clock(&clock).set("limits.retry_floor", "5s").set("limits.attempts", "2");
    let host = setup.start().await;
    let retry = json!({"plugin": "backoff", "config": {"kind": "fixed", "base": 0, "jitter": 0, "max_attempts": 100}});
    host.api.put_group("q", json!({"retry": retry})).await;
    let id = host.api.job_id("q", json!({"payload": 1})).await;
    let failed = say(&host.api, &one(&host.api).await, "fail", json!({"error": "no", "retry_after": "1ms"})).await;
    let waits = failed.expect(200);
    assert_eq!(ms(&waits["next_run_at"]), clock.now().plus(5 * SECOND), "{waits}");
    clock.advance(5 * SECOND);
    say(&host.api, &one(&host.api).await, "fail", json!({"error": "no", "retry_after": "1ms"})).await.expect(200);
    let dead = host.api.until_state(&id, "dead").await;
    assert_eq!(dead["attempt_count"], 2, "{dead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_of_a_lease_cannot_be_computed_or_changed() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (_, host) = host().await;
    host.api.job_id("q", json!({})).await;
    let leased = one(&host.api).await;
    let token = leased["token"].as_str().unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    assert_eq!(bytes.len(), 48, "the job, the lease, its time, and 128 bits that only the server can make");
    for index in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[index] ^= 1;
        let path = format!("/v1/leases/{}/complete", URL_SAFE_NO_PAD.encode(forged));
        host.api.post(&path, json!({})).await.problem(404);
    }
    host.api
        .post(&format!("/v1/leases/{}/complete", URL_SAFE_NO_PAD.encode(&bytes[..32])), json!({}))
        .await
        .problem(404);
    say(&host.api, &leased, "complete", json!({})).await.expect(200);
}
