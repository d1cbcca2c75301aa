//! Times and durations as clients write them: one reader behind every door.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Reply, TestHost};

const NOWHERE: &str = "http://127.0.0.1:1/";

/// What is no time, and what the answer says of it.
const NO_TIMES: [(&str, &str); 12] = [
    ("2027-03-01T10:00:00", "the offset is missing"),
    ("2027-12-31T23:59:60Z", "leap seconds"),
    ("2027-06-01T12:00:60Z", "leap seconds"),
    ("2027-03-01T10:00:00+05:00[Europe/Berlin]", "brackets"),
    ("2027-03-01T10:00:00+05:00[!Europe/Berlin]", "brackets"),
    ("2027-03-01T11:00:00+01:00[Europe/Berlin]", "brackets"),
    ("2027-03-01T10:00:00+25:00", "-23:59 and +23:59"),
    ("2027-03-01T15:30:00+0530", "with a colon"),
    ("2027-03-01T10:00:00+00:00:30", "with a colon"),
    ("2027-03-01T10:00:00,5Z", "follows a dot"),
    ("20270301T100000Z", "RFC 3339"),
    ("2027-03-01", "time of day"),
];

/// A request with a time in one place of it.
type Door = (Method, &'static str, &'static str, fn(&Value) -> Value);

/// Every field that takes a time, and its pointer.
fn doors() -> [Door; 6] {
    [
        (Method::POST, "/v1/groups/g/jobs", "/run_at", |time| json!({"url": NOWHERE, "run_at": time})),
        (
            Method::POST,
            "/v1/groups/g/jobs/batch",
            "/jobs/0/run_at",
            |time| json!({"jobs": [{"url": NOWHERE, "run_at": time}]}),
        ),
        (
            Method::PUT,
            "/v1/schedules/x",
            "/start",
            |time| json!({"group": "g", "cron": "@daily", "start": time, "job": {"url": NOWHERE}}),
        ),
        (
            Method::PUT,
            "/v1/schedules/x",
            "/end",
            |time| json!({"group": "g", "cron": "@daily", "end": time, "job": {"url": NOWHERE}}),
        ),
        (Method::POST, "/v1/schedules/s/backfill", "/from", |time| json!({"from": time, "to": "+0s"})),
        (Method::POST, "/v1/schedules/s/backfill", "/to", |time| json!({"from": 1, "to": time})),
    ]
}

fn says(reply: &Reply, pointer: &str, hint: &str, sent: &Value) {
    let problem = reply.problem_at(422, pointer);
    assert!(problem["detail"].as_str().unwrap().contains(hint), "{sent}: {problem}");
}

fn says_of_parameter(reply: &Reply, parameter: &str, hint: &str) {
    let problem = reply.problem(400);
    assert_eq!(problem["parameter"], parameter, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(hint), "{problem}");
}

async fn host() -> TestHost {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let daily = json!({"group": "g", "cron": "@daily", "job": {"url": NOWHERE}});
    host.api.put("/v1/schedules/s", daily).await.expect(201);
    host
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_time_is_refused_at_every_door_with_a_hint() {
    let host = host().await;
    for (method, path, pointer, doc) in doors() {
        for (text, hint) in NO_TIMES {
            let sent = doc(&json!(text));
            says(&host.api.raw(method.clone(), path, sent.to_string()).await, pointer, hint, &sent);
        }
        for milliseconds in [1_803_895_200_000_i64, -1_803_895_200_000] {
            let sent = doc(&json!(milliseconds));
            says(
                &host.api.raw(method.clone(), path, sent.to_string()).await,
                pointer,
                "looks like milliseconds",
                &sent,
            );
        }
    }
    let job = host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    for (text, hint) in NO_TIMES {
        let sent = json!({"run_at": text});
        says(&host.api.post(&format!("/v1/jobs/{job}/reschedule"), sent.clone()).await, "/run_at", hint, &sent);
        let escaped = url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let filtered = host.api.get(&format!("/v1/groups/g/jobs?created_from={escaped}")).await;
        says_of_parameter(&filtered, "created_from", hint);
        let runs = host.api.get(&format!("/v1/cron/runs?cron=@daily&from={escaped}")).await;
        says_of_parameter(&runs, "from", hint);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rfc_3339_allows_is_read() {
    let host = host().await;
    for text in [
        "2027-03-01t10:00:00z",
        "2027-03-01 10:00:00Z",
        "2027-03-01T15:30:00.000+05:30",
        "2027-03-01T09:59:59.99999999999Z",
    ] {
        let posted = host.api.post_job("g", json!({"url": NOWHERE, "run_at": text})).await;
        assert_eq!(posted["run_at"], "2027-03-01T10:00:00.000Z", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn months_and_years_are_refused_in_every_duration() {
    let host = host().await;
    let job = |field: &str, value: Value| {
        let mut doc = json!({"url": NOWHERE});
        doc[field] = value;
        doc
    };
    let schedule = |field: &str, value: &str| {
        let mut doc = json!({"group": "g", "cron": "@daily", "job": {"url": NOWHERE}});
        doc[field] = value.into();
        doc
    };
    for text in ["1M", "1 month", "2months", "1y", "1 year"] {
        let relative = format!("+{text}");
        let posts = [
            (job("run_at", json!(relative)), "/run_at"),
            (job("limits", json!({"timeout": text})), "/limits/timeout"),
            (job("limits", json!({"ttl": text})), "/limits/ttl"),
            (job("limits", json!({"max_delay": text})), "/limits/max_delay"),
            (json!({"url": NOWHERE, "dedupe_key": "k", "dedupe_window": text}), "/dedupe_window"),
        ];
        for (doc, pointer) in posts {
            says(&host.api.post("/v1/groups/g/jobs", doc.clone()).await, pointer, "months and years", &doc);
        }
        let puts = [
            (schedule("cron", &format!("@every {text}")), "/cron"),
            (schedule("start", &relative), "/start"),
            (schedule("jitter", text), "/jitter"),
            (schedule("catch_up", text), "/catch_up"),
        ];
        for (doc, pointer) in puts {
            says(&host.api.put("/v1/schedules/x", doc.clone()).await, pointer, "months and years", &doc);
        }
        for limit in ["timeout", "ttl", "max_delay"] {
            let doc = json!({"limits": {limit: text}});
            says(
                &host.api.put("/v1/groups/x", doc.clone()).await,
                &format!("/limits/{limit}"),
                "months and years",
                &doc,
            );
        }
        let doc = json!({"retry": {"config": {"base": text}}});
        let refused = host.api.put("/v1/groups/x", doc).await.problem(422);
        assert!(refused["detail"].as_str().unwrap().contains("months and years"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fraction_of_a_debounce_window_is_kept() {
    let host = host().await;
    let debounced = |seconds: f64| json!({"url": NOWHERE, "debounce_key": "k", "debounce_seconds": seconds, "debounce_always_delay": true});
    let posted = host.api.post_job("g", debounced(1.5)).await;
    let delay = crate::support::ms(&posted["run_at"]).since(crate::support::ms(&posted["created_at"]));
    assert_eq!(delay.as_millis(), 1_500);
    host.api.post("/v1/groups/g/jobs", debounced(0.000_5)).await.problem_at(422, "/debounce_seconds");
}
