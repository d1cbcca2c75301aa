//! What one request carries, and what one response carries, is bounded: in bytes, and in work.

use std::time::Duration;

use carillon_core::clock::Stopwatch;
use carillon_testing::guest::Guest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Setup, TestHost};

const URL: &str = "http://127.0.0.1:1/";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_part_is_taken_at_its_bound_and_refused_beyond_it() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let long = |len: usize| "x".repeat(len);
    let job = |part: Value| {
        let mut job = json!({"url": URL, "run_at": "+1h"});
        job.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        job
    };
    let named =
        |count: usize| (0..count).map(|n| (format!("X-{n}"), long(8_000).into())).collect::<serde_json::Map<_, _>>();
    for (taken, refused, pointer, setting) in [
        (json!({"name": long(255)}), json!({"name": long(256)}), "/name", "limits.name"),
        (json!({"order_key": long(255)}), json!({"order_key": long(256)}), "/order_key", "limits.name"),
        (json!({"dedupe_key": long(255)}), json!({"dedupe_key": long(256)}), "/dedupe_key", "limits.name"),
        (
            json!({"headers": {"X-A": long(8_192)}}),
            json!({"headers": {"X-A": long(8_193)}}),
            "/headers/X-A",
            "limits.header",
        ),
        (json!({"headers": named(4)}), json!({"headers": named(5)}), "/headers", "limits.headers"),
        (
            json!({"policy": {"retry": {"max_attempts": 2}}}),
            json!({"policy": {"retry": {"x": long(17_000)}}}),
            "/policy",
            "limits.override",
        ),
    ] {
        host.api.post("/v1/groups/g/jobs", job(taken.clone())).await.expect(201);
        for (path, body, place) in [
            ("/v1/groups/g/jobs", job(refused.clone()), String::new()),
            ("/v1/groups/g/jobs/batch", json!({"jobs": [job(json!({})), job(refused.clone())]}), "/jobs/1".to_owned()),
            (
                "/v1/groups/g/jobs",
                json!({"url": URL, "on_failure": {"url": URL, "name": refused["name"], "order_key": refused["order_key"],
                "headers": refused.get("headers").unwrap_or(&json!({})), "policy": refused["policy"], "dedupe_key": refused["dedupe_key"]}}),
                "/on_failure".to_owned(),
            ),
        ] {
            let problem = host.api.post(path, body).await.problem_at(422, &format!("{place}{pointer}"));
            assert!(problem["detail"].as_str().unwrap().contains(&format!("(`{setting}`)")), "{problem}");
        }
        let schedule = json!({"group": "g", "cron": "@daily", "job": json!({"url": URL, "headers": refused.get("headers").unwrap_or(&json!({})),
            "name": refused["name"], "order_key": refused["order_key"], "policy": refused["policy"], "dedupe_key": refused["dedupe_key"]})});
        host.api.put("/v1/schedules/s", schedule).await.problem_at(422, &format!("/job{pointer}"));
        let simulated = host.api.post("/v1/groups/g/policy/simulate", json!({"job": job(refused)})).await;
        assert_eq!(simulated.status, 422, "{}", simulated.text());
    }
    let document =
        |len: usize| json!({"dead_letters": null, "judge": {"plugin": "expected-status", "config": {"x": long(len)}}});
    let problem = host.api.put("/v1/groups/g", document(66_000)).await.problem(422);
    assert!(problem["detail"].as_str().unwrap().contains("`group` is 66"), "{problem}");
    let problem = host.api.put("/v1/keys/k", json!({"secret": long(8_193)})).await.problem_at(422, "/secret");
    assert!(problem["detail"].as_str().unwrap().contains("(`limits.secret`)"), "{problem}");
    host.api.post("/v1/tokens", json!({"role": "viewer", "name": long(256)})).await.problem_at(422, "/name");
    let labels = (0..9).map(|n| format!("metadata.a{n}=1")).collect::<Vec<_>>().join("&");
    host.api.get(&format!("/v1/groups/g/jobs?{labels}")).await.problem(400);
    assert_eq!(host.api.get(&format!("/v1/jobs?name={}", long(8_200))).await.status, 414);
    let metrics = host.api.get("/metrics").await;
    for bound in [
        "limits.name",
        "limits.header",
        "limits.headers",
        "limits.override",
        "limits.document",
        "limits.secret",
        "limits.query",
    ] {
        assert!(metrics.text().contains(&format!("carillon_refused_total{{bound=\"{bound}\"}}")), "{bound}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_end_at_their_bytes_and_continue() {
    const JOBS: usize = 60;
    let host = Setup::new().set("limits.answer", "64KiB").start().await;
    host.api.put_group("g", json!({})).await;
    let job = json!({"url": URL, "run_at": "+1h", "headers": {"X-A": "x".repeat(8_000)}});
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": vec![job; JOBS]})).await.expect(201);
    for path in ["/v1/groups/g/jobs", "/v1/jobs"] {
        let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let reply = host.api.get(&format!("{path}?limit=1000{cursor}")).await;
            assert!(reply.body.len() < 70_000, "{} bytes", reply.body.len());
            let page = reply.expect(200);
            ids.extend(page["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            pages += 1;
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((all, ids.len()), (JOBS, JOBS), "{path}: each job once");
        assert!(pages > 5, "{pages} pages");
    }
    for n in 0..12 {
        host.api
            .put(&format!("/v1/groups/h{n}"), json!({"judge": {"plugin": "expected-status"}, "dead_letters": "g"}))
            .await
            .ok();
    }
    let first = host.api.get("/v1/groups?limit=1").await.expect(200);
    assert_eq!(first["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_end_at_their_bytes_and_the_rest_is_leased_next() {
    const JOBS: usize = 12;
    let host = Setup::new().set("limits.answer", "64KiB").start().await;
    host.api.put_group("g", json!({})).await;
    let job = json!({"payload_text": "x".repeat(20_000)});
    host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": vec![job; JOBS]})).await.expect(201);
    let mut leased = std::collections::BTreeSet::new();
    while leased.len() < JOBS {
        let reply = host.api.post("/v1/groups/g/leases", json!({"max": 1000, "wait": "5s", "lease": "5m"})).await;
        assert!(reply.body.len() < 80_000, "{} bytes", reply.body.len());
        let reply = reply.expect(200);
        let leases = reply["leases"].as_array().unwrap();
        assert!((1..=3).contains(&leases.len()), "{}", leases.len());
        leased.extend(leases.iter().map(|lease| lease["job"]["id"].as_str().unwrap().to_owned()));
        assert!(leases.iter().all(|lease| lease["attempt"] == 1), "what did not fit has spent no attempt");
    }
    let large = json!({"payload_text": "x".repeat(200_000)});
    host.api.post_job("g", large).await;
    let reply = host.api.post("/v1/groups/g/leases", json!({"max": 5})).await.expect(200);
    assert_eq!(reply["leases"].as_array().unwrap().len(), 1, "one at least");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_mounts_say_that_they_were_cut_off() {
    let host = Setup::new().set("limits.answer", "64KiB").start().await;
    let post = async |count: usize| {
        for _ in 0..count {
            let task = json!({"url": URL, "payload": "eHh4".repeat(5_000), "delay": 60});
            let reply = host.api.post("/compat/poussetaches/", task).await;
            assert!(reply.status < 300, "{}", reply.text());
        }
    };
    post(2).await;
    let whole = host.api.get("/compat/poussetaches/waiting").await;
    assert_eq!(whole.json()["tasks"].as_array().unwrap().len(), 2);
    assert!(whole.headers.get("carillon-truncated").is_none());
    post(10).await;
    let cut = host.api.get("/compat/poussetaches/waiting").await;
    assert_eq!(cut.headers["carillon-truncated"], "true");
    assert!(cut.body.len() <= 66_000, "{} bytes", cut.body.len());
    assert!(!cut.json()["tasks"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_of_configs_are_bounded_and_keep_nobody_waiting() {
    let host = Setup::new().set("limits.check_steps", "20000").start().await;
    let schema = json!({"properties": {"a": {"allOf": [{"items": {"not": {"const": 1}}}]}}}).to_string();
    let plugin = Guest::describing("costly", "1.0.0", &schema).role("judge", "(i32.const 128)").build();
    let reply = host.api.raw(Method::PUT, "/v1/plugins/costly/versions/1.0.0", plugin).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    host.api.put_group("g", json!({"judge": {"plugin": "costly@1.0.0"}})).await;
    let job = |values: usize| json!({"url": URL, "run_at": "+1h", "policy": {"judge": {"a": vec![0; values]}}});
    host.api.post("/v1/groups/g/jobs", job(20)).await.expect(201);
    let began = Stopwatch::start();
    let problems = futures_util::future::join_all((0..8).map(|_| host.api.post("/v1/groups/g/jobs", job(7_000))));
    let look = async {
        for _ in 0..20 {
            let asked = Stopwatch::start();
            assert_eq!(host.api.get("/healthz").await.status, 200);
            assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        }
    };
    let (problems, ()) = tokio::join!(problems, look);
    for reply in problems {
        let problem = reply.problem_at(422, "/policy/judge");
        assert!(problem["detail"].as_str().unwrap().contains("`limits.check_steps`"), "{problem}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let many: Vec<_> = (0..200).map(|n| job(20 + n)).collect();
    let problem = host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": many})).await.problem(422);
    assert!(
        problem["detail"].as_str().unwrap().contains("`limits.check_steps`"),
        "jobs of a batch share it: {problem}"
    );
}

/// The number of steps is known before a check begins; what they cost is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_of_a_config_is_stopped_when_its_time_is_over() {
    let setup = Setup::new().set("limits.check_steps", "1000000000000").set("limits.check_time", "50ms");
    let host = setup.set("limits.override", "4MiB").set("limits.job", "8MiB").start().await;
    let never = vec![json!({"not": {"const": 1}}); 20];
    let schema = json!({"properties": {"a": {"items": {"allOf": never}}}}).to_string();
    let plugin = Guest::describing("costly", "1.0.0", &schema).role("judge", "(i32.const 128)").build();
    let reply = host.api.raw(Method::PUT, "/v1/plugins/costly/versions/1.0.0", plugin).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    host.api.put_group("g", json!({"judge": {"plugin": "costly@1.0.0"}})).await;
    let job = |values: usize| json!({"url": URL, "run_at": "+1h", "policy": {"judge": {"a": vec![0; values]}}});
    let problem = host.api.post("/v1/groups/g/jobs", job(500_000)).await.problem_at(422, "/policy/judge");
    assert!(problem["detail"].as_str().unwrap().contains("more than 50ms (`limits.check_time`)"), "{problem}");
    host.api.post("/v1/groups/g/jobs", job(2)).await.expect(201);
}
