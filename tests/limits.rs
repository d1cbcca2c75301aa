//! How many at once, how many in a second, how long: a group's limits hold, and harm no other group.

use std::time::Duration;

use carillon_core::clock::{Clock as _, UnixMs};
use serde_json::{Value, json};

use crate::support::{Answer, Gate, ManualClock, Receiver, Setup, TestHost, eventually, eventually_while, ms, soon};

/// A backlog that is far above any concurrency.
const BACKLOG: usize = 2_000;

async fn post_many(host: &TestHost, group: &str, job: &Value, count: usize) {
    let batch = json!({"jobs": vec![job; count]});
    host.api.post(&format!("/v1/groups/{group}/jobs/batch"), batch).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrency_bounds_the_attempts_that_run_at_once() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock).await;
    let gate = Gate::closed();
    receiver.on("/held", [Answer::status(200).held(&gate)]);
    host.api.put_group("g", json!({"limits": {"concurrency": 3}})).await;
    post_many(&host, "g", &json!({"url": receiver.url("/held")}), 10).await;
    for released in 0..8 {
        receiver.arrived("/held", released + 3).await;
        host.looked(&receiver).await;
        assert_eq!(receiver.count("/held"), released + 3, "three at once");
        assert_eq!(host.api.stats("g").await["running"], 3);
        gate.release(1);
    }
    gate.release(2);
    host.api.until_succeeded("g", 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrency_bounds_the_running_jobs_while_others_are_settled() {
    const JOBS: usize = 400;
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({"limits": {"concurrency": 3}})).await;
    post_many(&host, "g", &json!({"url": receiver.url("/x")}), JOBS).await;
    // Without a pause: a moment in which too many run would be missed.
    soon("all are delivered", async {
        loop {
            let stats = host.api.stats("g").await;
            assert!(stats["running"].as_u64().unwrap() <= 3, "{stats}");
            if stats["succeeded"] == JOBS {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_concurrency_bounds_the_attempts_to_one_receiver() {
    let clock = ManualClock::new();
    let start = clock.now();
    let host = Setup::with_clock(&clock).start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let gate = Gate::closed();
    receiver.on("/held", [Answer::status(200).held(&gate)]);
    for wrong in [json!(0), json!("2")] {
        let reply = host.api.put("/v1/groups/g", json!({"limits": {"host_concurrency": wrong}})).await;
        assert_eq!(reply.status, 422, "{}", reply.text());
    }
    host.api.put_group("g", json!({"limits": {"concurrency": 10, "host_concurrency": 2}})).await;
    post_many(&host, "g", &json!({"url": receiver.url("/held")}), 6).await;
    let elsewhere = host.api.job_id("g", json!({"url": other.url("/x")})).await;
    // The clock stands still, and the group has places left.
    host.api.until_state(&elsewhere, "succeeded").await;
    receiver.arrived("/held", 2).await;
    host.looked(&other).await;
    assert_eq!(receiver.count("/held"), 2, "two at once");
    // The others were put off. The next one may be leased already, and waits for its time in memory.
    let put_off = async || {
        let jobs = host.api.get("/v1/groups/g/jobs").await.items();
        jobs.into_iter().filter(|job| job["last_error"] == "receiver.full").collect::<Vec<_>>()
    };
    let waiting = eventually("the others wait", put_off, |waiting| waiting.len() == 4).await;
    for job in &waiting {
        assert_eq!(job["attempt_count"], 0, "{job}");
        assert!(ms(&job["run_at"]) > clock.now(), "it does not come back at once: {job}");
        let attempts = host.api.attempts(job["id"].as_str().unwrap()).await;
        assert_eq!((attempts.len(), &attempts[0]["spent"]), (1, &json!(false)));
    }
    host.api.put_group("h", json!({"limits": {"host_concurrency": 2}})).await;
    post_many(&host, "h", &json!({"url": receiver.url("/h")}), 1).await;
    host.api.until_succeeded("h", 1).await;

    for released in 1..=4 {
        gate.release(1);
        host.api.until_succeeded("g", released + 1).await;
        let later = async || {
            clock.advance(Duration::from_millis(200));
            host.looked(&other).await;
        };
        let arrived = async || receiver.count("/held");
        eventually_while("a place that is free is taken", later, arrived, |count| *count >= released + 2).await;
        assert_eq!(receiver.count("/held"), released + 2, "two at once");
    }
    gate.release(2);
    host.api.until_succeeded("g", 7).await;
    let jobs = host.api.get("/v1/groups/g/jobs").await.items();
    assert!(jobs.iter().all(|job| job["attempt_count"] == 1), "{jobs:?}");
    assert!(clock.now() < start.plus(Duration::from_secs(60)), "who waits comes back soon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_for_a_receiver_that_is_full_is_not_looked_at_all_the_time() {
    const JOBS: usize = 500;
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let gate = Gate::closed();
    receiver.on("/held", [Answer::status(200).held(&gate)]);
    host.api.put_group("g", json!({"limits": {"host_concurrency": 1, "rate": "40/s"}})).await;
    post_many(&host, "g", &json!({"url": receiver.url("/held")}), JOBS).await;
    let elsewhere = host.api.job_id("g", json!({"url": other.url("/x")})).await;
    // The clock stands still: what goes back takes nothing of the rate.
    host.api.until_state(&elsewhere, "succeeded").await;
    let looks = async || host.api.metric("carillon_attempts_total{outcome=\"unsent\"}").await;
    eventually("every job was looked at", &looks, |looks| *looks >= JOBS as u64 - 1).await;
    host.looked(&other).await;
    assert_eq!((looks().await, receiver.count("/held")), (JOBS as u64 - 1, 1), "once, as long as nothing happens");
    for _ in 0..120 {
        clock.advance(Duration::from_secs(5));
        host.looked(&other).await;
    }
    let looked = looks().await;
    assert!(looked <= 5 * JOBS as u64, "{looked} looks at {JOBS} jobs in ten minutes");
    gate.release(JOBS);
    let later = async || {
        clock.advance(Duration::from_secs(5));
        host.looked(&other).await;
    };
    let stats = async || host.api.stats("g").await;
    eventually_while("all are delivered", later, stats, |stats| stats["succeeded"] == JOBS + 1).await;
    assert_eq!(receiver.count("/held"), JOBS, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_start_at_the_rate_that_the_group_allows() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let start = clock.now();
    host.api.put_group("g", json!({"limits": {"rate": "2/min"}})).await;
    post_many(&host, "g", &json!({"url": receiver.url("/paced")}), 5).await;
    receiver.arrived("/paced", 2).await;
    for (count, seconds) in [(2, 30), (3, 60), (4, 90)] {
        host.api.until_succeeded("g", count).await;
        let next = start.plus(Duration::from_secs(seconds));
        clock.set(UnixMs(next.0 - 1));
        host.looked(&receiver).await;
        assert_eq!(receiver.count("/paced"), count, "one every thirty seconds");
        clock.set(UnixMs(next.0 + 1));
        receiver.arrived("/paced", count + 1).await;
    }
    host.api.until_succeeded("g", 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_starts_at_once_and_the_rate_follows() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let start = clock.now();
    host.api.put("/v1/groups/g", json!({"limits": {"burst": 5}})).await.problem_at(422, "/limits/burst");
    host.api
        .put("/v1/groups/g", json!({"limits": {"rate": "2/min", "burst": 0}}))
        .await
        .problem_at(422, "/limits/burst");
    host.api.put_group("g", json!({"limits": {"rate": "2/min", "burst": 5}})).await;
    post_many(&host, "g", &json!({"url": receiver.url("/burst")}), 7).await;
    receiver.arrived("/burst", 5).await;
    host.api.until_succeeded("g", 5).await;
    for (count, seconds) in [(5, 30), (6, 60)] {
        let next = start.plus(Duration::from_secs(seconds));
        clock.set(UnixMs(next.0 - 1));
        host.looked(&receiver).await;
        assert_eq!(receiver.count("/burst"), count, "one every thirty seconds");
        clock.set(UnixMs(next.0 + 1));
        receiver.arrived("/burst", count + 1).await;
        host.api.until_succeeded("g", count + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backlog_of_a_group_does_not_keep_another_groups_job_waiting() {
    let host = TestHost::start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.on("/slow", [Answer::status(200).held(&gate)]);
    host.api.put_group("slow", json!({})).await;
    host.api.put_group("quick", json!({})).await;
    post_many(&host, "slow", &json!({"url": receiver.url("/slow")}), BACKLOG).await;
    receiver.arrived("/slow", 32).await;
    let id = host.api.job_id("quick", json!({"url": receiver.url("/quick")})).await;
    host.api.until_state(&id, "succeeded").await;
    let stats = host.api.stats("slow").await;
    assert_eq!((&stats["running"], &stats["available"]), (&json!(32), &json!(BACKLOG - 32)), "the backlog still waits");

    gate.release(BACKLOG);
    host.api.until_succeeded("slow", BACKLOG).await;
    assert_eq!(receiver.count("/slow"), BACKLOG, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_full_gives_every_group_its_turn() {
    let host = Setup::new().set("engine.concurrency", "4").file("[defaults.limits]\nconcurrency = 4").start().await;
    let receiver = Receiver::start().await;
    host.api.put_group("many", json!({"limits": {"concurrency": 4}})).await;
    host.api.put_group("one", json!({"limits": {"concurrency": 1}})).await;
    let gate = Gate::closed();
    receiver.on("/many", [Answer::status(200).held(&gate)]);
    post_many(&host, "many", &json!({"url": receiver.url("/many")}), BACKLOG).await;
    receiver.arrived("/many", 4).await;
    let id = host.api.job_id("one", json!({"url": receiver.url("/one")})).await;
    gate.release(BACKLOG);
    host.api.until_state(&id, "succeeded").await;
    let left = &host.api.stats("many").await["scheduled"];
    assert!(left.as_u64().unwrap() > 0, "it did not have to wait for the end of the backlog");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_time_has_run_out_expires_without_a_request() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({"limits": {"ttl": "1h"}})).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    let own = host.api.post_job("g", json!({"url": receiver.url("/a"), "limits": {"ttl": "1m"}})).await;
    assert_eq!(ms(&own["deadline"]).since(ms(&own["created_at"])).as_secs(), 60, "the shorter of the two");
    clock.advance(Duration::from_secs(3_601));
    host.api.post("/v1/groups/g/resume", json!({})).await.expect(200);
    let expired = host.api.until_state(&id, "expired").await;
    assert_eq!(expired["attempt_count"], 0);
    assert!(host.api.attempts(&id).await.is_empty());
    assert_eq!(receiver.count("/a"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_would_come_too_late_expires_the_job() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock).await;
    receiver.on("/a", [Answer::status(500)]);
    host.api.put_group("g", json!({"limits": {"ttl": "1m"}, "retry": {"config": {"base": "2m"}}})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    let expired = host.api.until_state(&id, "expired").await;
    assert_eq!((&expired["attempt_count"], &expired["last_status"]), (&json!(1), &json!(500)));
    assert_eq!(host.api.attempts(&id).await[0]["decision"]["state"], "expired");
}
