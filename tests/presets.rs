//! `examples/presets`: groups that behave as other schedulers do. Each is delivered through, attempt by attempt.

use std::path::PathBuf;

use carillon_core::clock::UnixMs;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Answer, ManualClock, Receiver, Setup, TestHost, id_of, ms, repository, run};

/// Statuses that tell presets apart.
const STATUSES: [u16; 12] = [200, 201, 204, 302, 304, 399, 400, 404, 410, 429, 500, 503];

/// A delay in milliseconds, between these bounds.
type Delay = (u64, u64);

fn file(name: &str) -> PathBuf {
    repository().join("examples/presets").join(format!("{name}.json"))
}

fn exactly(seconds: &[u64]) -> Vec<Delay> {
    seconds.iter().map(|seconds| (seconds * 1_000, seconds * 1_000)).collect()
}

/// The times of all attempts of a job that always fails, as delays.
async fn delays(name: &str, policy: Value, expected: &[Delay]) {
    let clock = ManualClock::new();
    // The delays are those of the preset alone.
    let host = Setup::with_clock(&clock).set("limits.retry_floor", "0s").start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let asks = Answer::status(503).header("retry-after", "100000000");
    receiver.on("/broken", [asks]);
    host.api.put_group("g", serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap()).await;
    let job = json!({"url": receiver.url("/broken"), "payload": {"n": 1}, "policy": policy});
    let posted = host.api.post_job("g", job.clone()).await;
    let id = id_of(&posted);
    for number in 1..=expected.len() {
        // One that is tried again at once may be further by now.
        let tried =
            |job: &Value| job["attempt_count"].as_u64() >= u64::try_from(number).ok() && job["state"] != "running";
        let waits = host.api.until(&id, &format!("was tried {number} times"), tried).await;
        clock.set(ms(&waits["run_at"]));
    }
    let dead = host.api.until_state(&id, "dead").await;
    assert_eq!(dead["attempt_count"], expected.len() + 1, "{name}");

    let times: Vec<_> = receiver.arrivals("/broken").iter().map(|arrival| arrival.at).collect();
    assert_eq!(times[0], ms(&posted["created_at"]));
    let delays = times.windows(2).map(|pair| u64::try_from(pair[1].since(pair[0]).as_millis()).unwrap());
    for (index, (delay, (least, most))) in delays.zip(expected).enumerate() {
        assert!(
            (*least..=*most).contains(&delay),
            "{name}: {delay} ms after attempt {}, not {least} to {most}",
            index + 1
        );
    }
    assert_eq!(times, foretold(&host, &job, &posted, expected.len() + 1).await, "{name}: as foretold");
}

/// The times at which `simulate` says that a job will be tried.
async fn foretold(host: &TestHost, job: &Value, posted: &Value, failures: usize) -> Vec<UnixMs> {
    let trial = json!({"job": job, "seed": posted["seed"], "now": posted["created_at"], "failures": failures});
    let simulation = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
    simulation["attempts"].as_array().unwrap().iter().map(|attempt| ms(&attempt["run_at"])).collect()
}

/// Which statuses are judged to be what, for a group that the command line made of the preset.
async fn statuses(name: &str, policy: Value, success: &[u16], permanent: &[u16]) {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let environment = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    run(&["group", "put", "g", "--file", &file(name).display().to_string()], &environment, "").await.ok();
    for status in STATUSES {
        let path = format!("/{status}");
        receiver.on(&path, [Answer::status(status)]);
        let id = host.api.job_id("g", json!({"url": receiver.url(&path), "policy": policy})).await;
        host.api.until(&id, "was tried", |job| job["attempt_count"] == 1 && job["state"] != "running").await;
        let attempt = &host.api.attempts(&id).await[0];
        let expected = match status {
            status if success.contains(&status) => "success",
            status if permanent.contains(&status) => "permanent",
            _ => "retryable",
        };
        assert_eq!(attempt["verdict"]["outcome"], expected, "{name}: {status}: {attempt}");
        assert_eq!(attempt["status"], status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doppler_waits_the_same_time_and_takes_all_below_400() {
    delays("doppler", json!({}), &[]).await;
    delays("doppler", json!({"retry": {"max_attempts": 4, "base": 60}}), &exactly(&[60, 60, 60])).await;
    delays("doppler", json!({"retry": {"max_attempts": 2, "base": 86_400}}), &exactly(&[86_400])).await;
    statuses("doppler", json!({"retry": {"max_attempts": 2}}), &[200, 201, 204, 302, 304, 399], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deferrable_adds_two_seconds_to_powers_of_two() {
    delays("deferrable", json!({}), &exactly(&[4, 6, 10, 18])).await;
    let all = exactly(&[4, 6, 10, 18, 34, 66, 130, 258, 514, 900, 900]);
    delays("deferrable", json!({"retry": {"max_attempts": 12}}), &all).await;
    delays("deferrable", json!({"retry": {"base": 0, "offset": 0, "max_attempts": 3}}), &exactly(&[0, 0])).await;
    statuses("deferrable", json!({}), &[200, 201, 204], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callme_doubles_a_tenth_of_a_second_and_gives_up_on_4xx() {
    let bounds = |count: u32| (0..count).map(|i| (50 << i, 100 << i)).collect::<Vec<Delay>>();
    delays("callme", json!({}), &bounds(1)).await;
    delays("callme", json!({"retry": {"max_attempts": 16}}), &bounds(15)).await;
    statuses("callme", json!({}), &[200], &[400, 404, 410, 429]).await;
    statuses("callme", json!({"judge": {"expect": 404}}), &[404], &[400, 410, 429]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poussetaches_quadruples_with_jitter_up_to_twelve_tries() {
    let bounds: Vec<Delay> = (0..11).map(|i| 4_u64.pow(i) * 1_000).map(|ms| (ms * 7 / 10, ms * 13 / 10)).collect();
    delays("poussetaches", json!({}), &bounds).await;
    statuses("poussetaches", json!({}), &[200], &[]).await;
    statuses("poussetaches", json!({"judge": {"expect": 204}}), &[204], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poussetaches_moves_its_delays_both_ways_and_wraps_its_payload() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on("/broken", [Answer::status(500)]);
    host.api.put_group("g", serde_json::from_slice(&std::fs::read(file("poussetaches")).unwrap()).unwrap()).await;
    let (mut shorter, mut longer) = (0, 0);
    let job = json!({"url": receiver.url("/broken"), "payload_text": "hello"});
    for seed in 0..20 {
        let trial = json!({"job": job, "seed": seed, "failures": 1});
        let simulation = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
        let after = simulation["attempts"][1]["after_ms"].as_u64().unwrap();
        if after < 1_000 { shorter += 1 } else { longer += 1 }
    }
    assert!(shorter >= 3 && longer >= 3, "true jitter: {shorter} shorter, {longer} longer");

    let id = host.api.job_id("g", job).await;
    for number in 1..=2 {
        let arrival = receiver.arrived("/broken", usize::try_from(number).unwrap()).await.pop().unwrap();
        let envelope: Value = serde_json::from_slice(&arrival.body).unwrap();
        assert_eq!((&envelope["payload"], &envelope["tries"]), (&json!("aGVsbG8="), &json!(number)));
        assert_eq!(envelope["req_id"].as_str().unwrap().len(), 12);
        assert_eq!(arrival.header("content-type"), None);
        clock.set(ms(&host.api.until_retry(&id, number).await["run_at"]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_holds_back_no_job_of_a_preset_that_does_not_honour_it() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    for name in ["doppler", "poussetaches", "deferrable", "callme"] {
        let receiver = Receiver::start().await;
        receiver.on("/busy", [Answer::status(503).header("retry-after", "20")]);
        let preset = serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap();
        host.api.put_group(name, preset).await;
        for _ in 0..2 {
            let id = host.api.job_id(name, json!({"url": receiver.url("/busy")})).await;
            host.api.until(&id, "is tried", |job| job["last_status"] == 503).await;
        }
        let other = host.api.job_id(name, json!({"url": receiver.url("/other")})).await;
        host.api.until_state(&other, "succeeded").await;
    }
}
