//! A receiver that does not answer is left alone: its jobs wait and spend nothing, and the others go on.

use std::sync::Arc;
use std::time::Duration;

use carillon_core::clock::{Clock as _, LEAD_TIME, UnixMs};
use serde_json::{Value, json};

use crate::support::{Answer, Api, Gate, ManualClock, Receiver, Setup, TestHost, eventually, id_of, kinds, ms};

/// The failures after which a receiver is left alone, and for how long, in these tests.
const FAILURES: usize = 3;
const PAUSE: Duration = Duration::from_secs(5);

fn setup(clock: &Arc<ManualClock>) -> Setup {
    Setup::with_clock(clock).set("delivery.breaker_failures", "3")
}

/// One at a time, so that it is known which attempts are made before the breaker opens; and what fails is out of the way.
fn one_by_one() -> Value {
    json!({
        "limits": {"concurrency": 1},
        "retry": {"plugin": "backoff", "config": {"kind": "fixed", "base": "1h", "jitter": 0, "max_attempts": 5}},
    })
}

async fn post(api: &Api, group: &str, url: &str, count: usize) -> Vec<String> {
    let jobs = vec![json!({"url": url}); count];
    let made = api.post(&format!("/v1/groups/{group}/jobs/batch"), json!({"jobs": jobs})).await.expect(201);
    made["ids"].as_array().expect("a batch has ids").iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Returns when a job was put off to a time after `after`, and when that is. It has spent no attempt.
async fn put_off(api: &Api, id: &str, after: UnixMs) -> UnixMs {
    let codes = [json!("breaker.open"), json!("receiver.paused")];
    let waits =
        |job: &Value| job["state"] == "scheduled" && codes.contains(&job["last_error"]) && ms(&job["run_at"]) > after;
    let job = api.until(id, "is put off", waits).await;
    assert_eq!(job["attempt_count"], 0, "{job}");
    ms(&job["run_at"])
}

/// The value of a metric; 0 if it is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_answer_is_left_alone_until_it_does() {
    let clock = ManualClock::new();
    let start = clock.now();
    let host = setup(&clock).start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.on("/x", [Answer::nothing()]);
    host.api.put_group("g", one_by_one()).await;
    let mut events = host.api.follow("?kind=breaker_open,breaker_close").await;
    let jobs = post(&host.api, "g", &receiver.url("/x"), FAILURES + 3).await;
    let (failed, waiting) = jobs.split_at(FAILURES);
    let mut times = Vec::new();
    for id in waiting {
        times.push(put_off(&host.api, id, start).await);
    }
    times.sort_unstable();
    let (first, step) = (start.plus(PAUSE), Duration::from_millis(1));
    assert_eq!(times, [first, first.plus(step), first.plus(step * 2)], "one after the other");
    assert_eq!(receiver.count("/x"), FAILURES);
    let attempts = host.api.attempts(&waiting[0]).await;
    let attempt = &attempts[0];
    assert_eq!((attempts.len(), &attempt["number"], &attempt["spent"]), (1, &json!(1), &json!(false)), "{attempt}");
    assert!(attempt["error"]["message"].as_str().unwrap().contains(receiver.url("").as_str()), "{attempt}");
    assert_eq!(host.api.metric("carillon_breakers_open").await, 1);

    clock.set(first.minus(step));
    host.looked(&other).await;
    assert_eq!(receiver.count("/x"), FAILURES, "a millisecond early");
    clock.set(first);
    receiver.arrived("/x", FAILURES + 1).await;
    // The probe was not answered: its job has spent an attempt, and the pause is twice as long.
    clock.set(first.plus(step * 2));
    let mut left = Vec::new();
    for id in waiting {
        let job =
            host.api.until(id, "is back", |job| job["state"] == "scheduled" && ms(&job["run_at"]) > clock.now()).await;
        if job["attempt_count"] == 0 {
            left.push((ms(&job["run_at"]), id));
        }
    }
    left.sort_unstable();
    assert_eq!(left.len(), 2, "one probe: {left:?}");
    assert_eq!((receiver.count("/x"), left[0].0 >= first.plus(PAUSE * 2)), (FAILURES + 1, true), "{left:?}");

    receiver.on("/x", [Answer::status(200)]);
    clock.set(left[0].0);
    host.api.until_state(left[0].1, "succeeded").await;
    clock.set(left[1].0);
    assert_eq!(host.api.until_state(left[1].1, "succeeded").await["attempt_count"], 1);
    assert_eq!(host.api.metric("carillon_breakers_open").await, 0);
    clock.advance(Duration::from_secs(3_600));
    for id in failed {
        assert_eq!(host.api.until_state(id, "succeeded").await["attempt_count"], 2);
    }
    let events = events.take(2).await;
    assert_eq!(kinds(&events), ["breaker_open", "breaker_close"]);
    let origin = json!(receiver.url(""));
    assert!(events.iter().all(|event| event["origin"] == origin && event["group"] == "g"), "{events:?}");
    assert_eq!(ms(&events[0]["run_at"]), first);
    assert_eq!(host.api.metric("carillon_breakers_opened_total").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_breaker_sends_one_probe_however_many_jobs_wait() {
    let clock = ManualClock::new();
    let start = clock.now();
    let host = setup(&clock).start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.on("/x", [Answer::nothing()]);
    host.api.put_group("g", one_by_one()).await;
    let jobs = post(&host.api, "g", &receiver.url("/x"), FAILURES + 10).await;
    let waiting = &jobs[FAILURES..];
    for id in waiting {
        put_off(&host.api, id, start).await;
    }
    let gate = Gate::closed();
    receiver.on("/x", [Answer::status(200).held(&gate)]);
    host.api.put_group("g", json!({})).await;
    let late = start.plus(PAUSE + Duration::from_secs(1));
    clock.set(late);
    receiver.arrived("/x", FAILURES + 1).await;
    let due = async || {
        let mut due = Vec::new();
        for id in waiting {
            if ms(&host.api.job(id).await["run_at"]) <= late {
                due.push(id);
            }
        }
        due
    };
    let probe = eventually("all but the probe are put off again", due, |due| due.len() == 1).await[0];
    host.looked(&other).await;
    assert_eq!(receiver.count("/x"), FAILURES + 1);
    gate.release(waiting.len());
    host.api.until_state(probe, "succeeded").await;
    clock.advance(PAUSE + Duration::from_secs(1));
    for id in waiting {
        assert_eq!(host.api.until_state(id, "succeeded").await["attempt_count"], 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_receivers_and_other_tenants_do_not_notice() {
    let clock = ManualClock::new();
    let start = clock.now();
    let host = setup(&clock).start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.on("/x", [Answer::nothing()]);
    host.api.put_group("g", one_by_one()).await;
    let jobs = post(&host.api, "g", &receiver.url("/x"), FAILURES + 1).await;
    put_off(&host.api, &jobs[FAILURES], start).await;
    let here = host.api.job_id("g", json!({"url": other.url("/x")})).await;
    host.api.until_state(&here, "succeeded").await;
    let same = host.api.job_id("g", json!({"url": receiver.url("/fine")})).await;
    put_off(&host.api, &same, start).await;
    assert_eq!(receiver.count("/fine"), 0, "a breaker is of an origin, not of a path");

    let acme = host.api.tenant("acme").await;
    acme.put_group("g", one_by_one()).await;
    let theirs = acme.job_id("g", json!({"url": receiver.url("/fine")})).await;
    acme.until_state(&theirs, "succeeded").await;
    assert_eq!(receiver.count("/fine"), 1);
    let still = host.api.job_id("g", json!({"url": receiver.url("/fine")})).await;
    put_off(&host.api, &still, start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_jobs_for_a_dead_receiver_hold_nobody_up_and_are_looked_at_once() {
    const JOBS: usize = 2_000;
    let clock = ManualClock::new();
    let host = setup(&clock).start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.on("/x", [Answer::nothing()]);
    let mut policy = one_by_one();
    // They would use up a minute of it.
    policy["limits"] = json!({"concurrency": 32, "rate": "40/s"});
    host.api.put_group("g", policy).await;
    let dead = post(&host.api, "g", &receiver.url("/x"), JOBS).await;
    let healthy = host.api.job_id("g", json!({"url": other.url("/x")})).await;
    // The clock stands still.
    host.api.until_state(&healthy, "succeeded").await;
    let unsent = "carillon_attempts_total{outcome=\"unsent\"}";
    let looked_at = async || (receiver.count("/x"), host.api.metric(unsent).await);
    let are_all = |(sent, unsent): &(usize, u64)| *sent as u64 + unsent >= JOBS as u64;
    let all = eventually("every job was looked at", looked_at, are_all).await;
    assert!(all.0 <= 32 + FAILURES, "those that were on their way: {all:?}");
    host.looked(&other).await;
    assert_eq!(host.api.metric(unsent).await, all.1, "none is looked at again");
    assert_eq!(all.0 as u64 + all.1, JOBS as u64);
    assert_eq!(host.api.attempts(&dead[JOBS - 1]).await.len(), 1);
}

/// Whether an attempt of the group `g` is under way, and not only waits for its time.
async fn running_and_due(host: &TestHost, clock: &ManualClock) -> bool {
    let running = host.api.get("/v1/groups/g/jobs?state=running").await.items();
    running.iter().any(|job| ms(&job["run_at"]) <= clock.now())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_for_a_dead_receiver_is_looked_at_once_in_a_pause_and_keeps_no_other_group_waiting() {
    const JOBS: usize = 1_000;
    let clock = ManualClock::new();
    let start = clock.now();
    let host = setup(&clock).start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.on("/x", [Answer::nothing()]);
    host.api.put_group("g", one_by_one()).await;
    let failed = post(&host.api, "g", &receiver.url("/x"), FAILURES).await;
    for id in &failed {
        host.api.until_retry(id, 1).await;
    }
    let retry = json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "1h", "jitter": 0, "max_attempts": 5}});
    host.api.put_group("g", json!({"limits": {"concurrency": 32}, "retry": retry})).await;
    host.api.put_group("other", json!({})).await;
    // All of them become due in one moment, together with a job of another group.
    let job = |receiver: &Receiver| json!({"url": receiver.url("/x"), "run_at": "+1s"});
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": vec![job(&receiver); JOBS]})).await.expect(201);
    host.api.post_job("other", job(&other)).await;
    let unsent = "carillon_attempts_total{outcome=\"unsent\"}";
    clock.advance(Duration::from_secs(1));
    other.arrived("/x", 1).await;
    assert!(host.api.metric(unsent).await < JOBS as u64, "it did not wait for the end of the backlog");

    let look = async || {
        let before = host.api.metric(unsent).await;
        host.looked(&other).await;
        // The clock must not go on before what is due is at an end, a probe above all. The jobs of the next moment are leased already.
        let is_due = host.api.stats("g").await["available"] != 0 || running_and_due(&host, &clock).await;
        (before, host.api.metric(unsent).await, is_due)
    };
    let is_still = |(before, after, is_due): &(u64, u64, bool)| before == after && !is_due;
    let until_still = async || eventually("nothing is due", &look, is_still).await.0;
    eventually("every job was looked at", &until_still, |looks| *looks >= JOBS as u64).await;
    // Pauses of 5, 10, 20, 40, 80, 160 and 300 seconds end, each with a probe that fails: a job of that very time, which begins in the moment
    // before. The clock stands still there, so that no job of the moment after can begin before it, and be a probe a step of this clock later.
    for step in 1..=128 {
        for left in [LEAD_TIME, Duration::ZERO] {
            clock.set(start.plus(PAUSE * step).minus(left));
            until_still().await;
        }
    }
    let (probes, looks) = (receiver.count("/x") - FAILURES, until_still().await);
    assert_eq!(probes, 7);
    let once = (0..=probes).map(|probes| JOBS - probes).sum::<usize>();
    assert_eq!(looks, once as u64, "each is looked at once in a pause, except for those that were probes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_asks_again_and_loses_nothing() {
    let clock = ManualClock::new();
    let start = clock.now();
    let host = setup(&clock).start().await;
    let receiver = Receiver::start().await;
    receiver.on("/x", [Answer::nothing()]);
    host.api.put_group("g", one_by_one()).await;
    let jobs = post(&host.api, "g", &receiver.url("/x"), FAILURES + 2).await;
    for id in &jobs[FAILURES..] {
        put_off(&host.api, id, start).await;
    }
    let dir = Arc::clone(&host.dir);
    host.stop().await;
    receiver.on("/x", [Answer::status(200)]);
    let host = setup(&clock).in_dir(&dir).start().await;
    let new = host.api.job_id("g", json!({"url": receiver.url("/x")})).await;
    host.api.until_state(&new, "succeeded").await;
    clock.set(start.plus(PAUSE + Duration::from_secs(1)));
    for id in &jobs[FAILURES..] {
        assert_eq!(host.api.until_state(id, "succeeded").await["attempt_count"], 1);
    }
    clock.set(start.plus(Duration::from_secs(3_600)));
    for id in &jobs[..FAILURES] {
        assert_eq!(host.api.until_state(id, "succeeded").await["attempt_count"], 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_runs_out_for_jobs_that_wait_for_a_receiver() {
    let clock = ManualClock::new();
    let start = clock.now();
    let host = Setup::with_clock(&clock).start().await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.on("/x", [Answer::status(503).header("retry-after", "100"), Answer::status(200)]);
    host.api.put_group("g", one_by_one()).await;
    let url = receiver.url("/x");
    let asks = host.api.job_id("g", json!({"url": url})).await;
    host.api.until_retry(&asks, 1).await;
    let end = start.plus(Duration::from_secs(20));
    for limits in [json!({"ttl": "20s"}), json!({"max_delay": "20s"})] {
        let id = host.api.job_id("g", json!({"url": url, "limits": limits})).await;
        assert_eq!(put_off(&host.api, &id, start).await, end, "not one moment less");
    }
    let waiting = host.api.get("/v1/groups/g/jobs?state=scheduled").await.items();
    clock.set(end);
    host.looked(&other).await;
    for job in waiting.iter().filter(|job| id_of(job) != asks) {
        let ended = host.api.until_state(&id_of(job), "expired").await;
        assert_eq!(ended["attempt_count"], 0, "{ended}");
    }
    assert_eq!((waiting.len(), receiver.count("/x")), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_breaker_lets_every_attempt_through() {
    let clock = ManualClock::new();
    let host = setup(&clock).set("delivery.breaker_failures", "0").start().await;
    let receiver = Receiver::start().await;
    receiver.on("/x", [Answer::nothing()]);
    receiver.on("/busy", [Answer::status(503).header("retry-after", "60")]);
    host.api.put_group("g", one_by_one()).await;
    post(&host.api, "g", &receiver.url("/busy"), 5).await;
    post(&host.api, "g", &receiver.url("/x"), 30).await;
    receiver.arrived("/x", 30).await;
    assert_eq!(receiver.count("/busy"), 5);
}
