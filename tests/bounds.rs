//! What one request carries, and what one response carries, is bounded: in bytes, and in work.

use std::time::Duration;

use carillon_core::clock::Stopwatch;
use carillon_testing::guest::Guest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::scenes::{Play, routes, scene};
use crate::support::{ADMIN_TOKEN, Api, Program, Setup, TestHost, eventually};

const URL: &str = "http://127.0.0.1:1/";

/// Sizes of a field that is too large for some bound.
const SIZES: [usize; 3] = [1 << 10, 64 << 10, 1 << 20];

/// The memory that the server may take for requests of up to 16 MiB, in MiB: twice the body and 64 MiB.
const GROWTH_MIB: u64 = 96;

/// Fields that may be large: payloads and bodies, whose bound is `server.payload_limit`, a list of jobs, and an error that is cut off.
const LARGE: [&str; 6] = ["payload", "payload_text", "payload_base64", "jobs", "error", "body"];

/// A place in a request that takes a text, a list or a map of any length.
#[derive(Clone, Debug)]
struct Place {
    pointer: String,
    kind: &'static str,
}

impl Place {
    fn value(&self, size: usize) -> Value {
        let part = || "x".repeat(1_000);
        match self.kind {
            "string" => Value::from("x".repeat(size)),
            "array" => Value::from(vec![part(); size / 1_000]),
            _ => Value::Object((0..size / 1_000).map(|n| (format!("k{n}"), part().into())).collect()),
        }
    }

    fn is_large(&self) -> bool {
        self.pointer.rsplit('/').next().is_some_and(|name| LARGE.contains(&name))
    }
}

/// The places in a schema, down to the members of its members.
fn places(document: &Value, schema: &Value, pointer: &str, depth: usize, found: &mut Vec<Place>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = document.pointer(name.trim_start_matches('#')).unwrap();
        return places(document, target, pointer, depth, found);
    }
    for part in ["allOf", "anyOf", "oneOf"] {
        for schema in schema[part].as_array().into_iter().flatten() {
            places(document, schema, pointer, depth, found);
        }
    }
    let is = |kind: &str| {
        schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|it| it == kind))
    };
    let kind = ["string", "array", "object"].into_iter().find(|kind| is(kind));
    if let Some(kind) = kind.filter(|_| !pointer.is_empty()) {
        found.push(Place { pointer: pointer.to_owned(), kind });
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten().filter(|_| depth > 0) {
        places(document, member, &format!("{pointer}/{name}"), depth - 1, found);
    }
}

/// The body with a value at a place.
fn with(body: &Value, pointer: &str, value: Value) -> Value {
    let mut body = if body.is_object() { body.clone() } else { json!({}) };
    let mut at = &mut body;
    for name in pointer.trim_start_matches('/').split('/') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = value;
    body
}

/// Megabytes that the server's process has in memory.
async fn resident_mib(api: &Api) -> u64 {
    let metrics = api.get("/metrics").await;
    let line = metrics.text().lines().find(|line| line.starts_with("process_resident_memory_bytes ")).unwrap();
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64 >> 20
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_every_operation_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("carillon.db").display());
    let environment = [
        ("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN),
        ("CARILLON_LOG", "info"),
        ("CARILLON_LIMITS__TENANT__BULKS", "1000"),
    ];
    let program = Program::serve(&["--store", &store], &environment).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    let document = api.get("/openapi.json").await.expect(200);
    api.put_group("warm", json!({})).await;
    api.post_job("warm", json!({"url": URL, "run_at": "+1h"})).await;
    let before = resident_mib(&api).await;
    let (mut tried, mut number) = (0, 0);
    for route in routes(&api).await {
        let (method, path) = route.split_once(' ').unwrap();
        let body = &document["paths"][path][method.to_lowercase()]["requestBody"]["content"]["application/json"];
        if body.is_null() {
            continue;
        }
        let mut found = Vec::new();
        places(&document, &body["schema"], "", 2, &mut found);
        number += 1;
        let mut play = Play::new(number, 1_800_000_000);
        let mut steps = scene(&route, URL);
        let last = steps.pop().unwrap();
        for step in steps {
            let method = step.method.parse().unwrap();
            let reply = api.raw(method, &play.fill(step.path), play.fill(&step.body.to_string())).await;
            play.learn(&serde_json::from_slice(&reply.body).unwrap_or_default());
        }
        let base: Value = serde_json::from_str(&play.fill(&last.body.to_string())).unwrap();
        for place in found {
            for size in SIZES {
                let body = with(&base, &place.pointer, place.value(size)).to_string();
                let reply = api.raw(method.parse().unwrap(), &play.fill(last.path), body).await;
                let what = format!(
                    "{route} {place:?} of {size} bytes: {} {}",
                    reply.status,
                    reply.text().get(..300).unwrap_or(reply.text())
                );
                assert!(reply.status < 500, "{what}");
                let is_refused = (400..500).contains(&reply.status);
                assert!(is_refused || size < 1 << 20 || place.is_large(), "nothing bounds it: {what}");
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "the document has the fields: {tried}");
    let large = "x".repeat(15 << 20);
    for (method, path, body) in [
        (Method::POST, "/v1/groups/warm/jobs", json!({"url": URL, "headers": {"X-A": large}})),
        (Method::POST, "/v1/tokens", json!({"role": "viewer", "name": large})),
        (Method::PUT, "/v1/groups/warm", json!({"dead_letters": large})),
        (Method::POST, "/compat/poussetaches/", json!({"url": URL, "payload": large})),
    ] {
        let reply = api.raw(method, path, body.to_string()).await;
        assert_eq!(reply.status, 413, "{path}: {}", reply.text());
        assert!(reply.text().contains("`body` is 157"), "{}", reply.text());
    }
    let in_batch = json!({"jobs": [{"url": URL, "policy": {"judge": {"expect": large}}}]});
    api.post("/v1/groups/warm/jobs/batch", in_batch).await.problem_at(422, "/jobs/0");
    // The allocator gives pages back a moment after they are free.
    let what = format!("memory is given back: {before} MiB before");
    eventually(&what, async || resident_mib(&api).await, |after| *after < before + GROWTH_MIB).await;
}

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
