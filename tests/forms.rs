//! The forms in which things are given and shown: headers, URLs, payloads that are edited, and the words of problems.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Receiver, TestHost};

async fn host_with_group() -> (TestHost, Receiver) {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    (host, Receiver::start().await)
}

/// The values of a header of the one request that came to `path`.
async fn values(receiver: &Receiver, path: &str, name: &str) -> Vec<String> {
    let arrival = receiver.arrived(path, 1).await.remove(0);
    let values = arrival.headers.iter().filter(|(known, _)| known == name);
    values.map(|(_, value)| String::from_utf8(value.clone()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_shown_can_be_posted_back_and_repeated_ones_are_sent() {
    let (host, receiver) = host_with_group().await;
    let headers = json!([{"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}, {"name": "X-B", "value": "3"}]);
    let made = host.api.post_job("g", json!({"url": receiver.url("/one"), "headers": headers})).await;
    assert_eq!(made["request"]["headers"], headers);
    assert_eq!(values(&receiver, "/one", "x-a").await, ["1", "2"]);
    let again = json!({"url": receiver.url("/two"), "headers": made["request"]["headers"]});
    assert_eq!(host.api.post_job("g", again).await["request"]["headers"], headers);
    assert_eq!(values(&receiver, "/two", "x-a").await, ["1", "2"]);
    let as_pairs = json!({"url": receiver.url("/three"), "headers": [["X-A", "1"], ["X-A", "2"], ["X-B", "3"]]});
    assert_eq!(host.api.post_job("g", as_pairs).await["request"]["headers"], headers);
    let as_object = json!({"url": receiver.url("/four"), "headers": {"X-A": "1"}});
    let expected = json!([{"name": "X-A", "value": "1"}]);
    assert_eq!(host.api.post_job("g", as_object).await["request"]["headers"], expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_would_be_lost_are_refused_at_every_door() {
    let (host, receiver) = host_with_group().await;
    let url = receiver.url("/");
    let job = |headers: &str| format!(r#"{{"url": "{url}", "run_at": "+1h", "headers": {headers}}}"#);
    let id = host.api.job_id("g", json!({"url": url, "run_at": "+1h"})).await;
    for (headers, pointer) in [
        (r#"{"Content-Type": "text/a", "content-type": "text/b"}"#, "/headers/content-type"),
        (r#"{"X-A": "1", "x-a": "2"}"#, "/headers/x-a"),
        (r#"{"X-A": "1", "X-A": "2"}"#, "/headers/X-A"),
        (r#"[["X-A", "1"], ["x-a", "2"]]"#, "/headers/1"),
        (r#"[["Authorization", "a"], ["Authorization", "b"]]"#, "/headers/1"),
    ] {
        let refused = async |method: Method, path: &str, body: String, at: &str| {
            host.api.raw(method, path, body).await.problem_at(422, &format!("{at}{pointer}"));
        };
        let job = job(headers);
        refused(Method::POST, "/v1/groups/g/jobs", job.clone(), "").await;
        refused(Method::POST, "/v1/groups/g/jobs/batch", format!(r#"{{"jobs": [{job}]}}"#), "/jobs/0").await;
        let follows = format!(r#"{{"url": "{url}", "on_success": {{"url": "{url}", "headers": {headers}}}}}"#);
        refused(Method::POST, "/v1/groups/g/jobs", follows, "/on_success").await;
        let schedule =
            format!(r#"{{"group": "g", "cron": "@daily", "job": {{"url": "{url}", "headers": {headers}}}}}"#);
        refused(Method::PUT, "/v1/schedules/s", schedule, "/job").await;
        refused(Method::PATCH, &format!("/v1/jobs/{id}"), format!(r#"{{"headers": {headers}}}"#), "").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_payload_has_the_type_that_it_would_have_if_it_were_posted() {
    let (host, receiver) = host_with_group().await;
    let own = json!({"Content-Type": "application/json"});
    for (index, (posted, patch, expected)) in [
        (json!({"payload": {"a": 1}}), json!({"payload_text": "hello"}), None),
        (json!({"payload": {"a": 1}}), json!({"payload_base64": "AAEC"}), None),
        (json!({"payload": {"a": 1}}), json!({"payload": null}), None),
        (json!({"payload": {"a": 1}}), json!({"name": "n"}), Some("application/json")),
        (json!({"payload_text": "hello"}), json!({"payload": {"a": 1}}), Some("application/json")),
        (json!({"payload": {"a": 1}, "headers": own}), json!({"payload_text": "hello"}), Some("application/json")),
        (json!({"payload": {"a": 1}}), json!({"payload": 2, "headers": {"content-type": "a/b"}}), Some("a/b")),
        (
            json!({"payload": 1, "headers": {"Content-Type": "a/b"}}),
            json!({"headers": {"content-type": null}}),
            Some("application/json"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{index}");
        let mut job = posted;
        job["url"] = receiver.url(&path).into();
        job["run_at"] = "+1h".into();
        let id = host.api.job_id("g", job).await;
        host.api.patch(&format!("/v1/jobs/{id}"), patch).await.expect(200);
        host.api.post(&format!("/v1/jobs/{id}/run"), json!({})).await.expect(200);
        let found = values(&receiver, &path, "content-type").await;
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "case {index}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_payload_keeps_its_bytes_and_its_depth() {
    let (host, receiver) = host_with_group().await;
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    for (index, payload) in
        [deep.as_str(), r#"{ "n": 12345678901234567890123, "a": 1.10, "a": 1e400 }"#].into_iter().enumerate()
    {
        let path = format!("/{index}");
        let id = host.api.job_id("g", json!({"url": receiver.url(&path), "payload": 1, "run_at": "+1h"})).await;
        let patch = format!(r#"{{"payload": {payload}}}"#);
        host.api.raw(Method::PATCH, &format!("/v1/jobs/{id}"), patch).await.expect(200);
        host.api.post(&format!("/v1/jobs/{id}/run"), json!({})).await.expect(200);
        assert_eq!(receiver.arrived(&path, 1).await.remove(0).text(), payload);
    }
}

/// URLs that a browser would repair.
const REPAIRED: [&str; 12] = [
    "http:/x",
    "http:x",
    "http:///x",
    "http:\\\\x",
    "http://x/p\nq",
    "http://x/p\tq",
    "http://x/p\rq",
    " http://x/",
    "http://x/ ",
    "http://x\\y",
    "http://x/a b",
    "ht\ntp://x/",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_are_never_repaired_whatever_the_door() {
    let (host, receiver) = host_with_group().await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/"), "run_at": "+1h"})).await;
    let fine = receiver.url("/");
    for url in REPAIRED {
        let job = json!({"url": url});
        host.api.post("/v1/groups/g/jobs", job.clone()).await.problem_at(422, "/url");
        host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": [job]})).await.problem_at(422, "/jobs/0/url");
        let follows = json!({"url": fine, "on_failure": job});
        host.api.post("/v1/groups/g/jobs", follows).await.problem_at(422, "/on_failure/url");
        let schedule = json!({"group": "g", "cron": "@daily", "job": job});
        host.api.put("/v1/schedules/s", schedule).await.problem_at(422, "/job/url");
        host.api.patch(&format!("/v1/jobs/{id}"), job.clone()).await.problem_at(422, "/url");
        host.api.post("/v1/groups/g/policy/simulate", json!({"job": job})).await.problem_at(422, "/job/url");
        let doppler = json!({"callback_url": url, "message": "m"});
        assert_eq!(host.api.post("/compat/doppler/", doppler).await.status, 422, "{url:?}");
        let task = json!({"url": url});
        assert!((400..500).contains(&host.api.post("/compat/poussetaches/", task).await.status), "{url:?}");
        let call = json!({"callback": url, "trigger_at": "+5m"});
        assert!((400..500).contains(&host.api.put("/compat/callme/task/n", call).await.status), "{url:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_is_shown_in_the_spelling_that_was_given_and_delivered_to() {
    let (host, receiver) = host_with_group().await;
    let url = receiver.url("/a;b?c=%2f&d").replace("http://", "HTTP://");
    let made = host.api.post_job("g", json!({"url": url})).await;
    assert_eq!(made["request"]["url"], url);
    let id = made["id"].as_str().unwrap();
    assert_eq!(host.api.until_state(id, "succeeded").await["request"]["url"], url);
    assert_eq!(receiver.arrived("/a;b", 1).await[0].target, "/a;b?c=%2f&d");
    let task = json!({"url": "http://EXAMPLE.com:80/x", "delay": 60});
    host.api.post("/compat/poussetaches/", task).await.expect(201);
    assert!(host.api.get("/compat/poussetaches/waiting").await.text().contains("http://EXAMPLE.com:80/x"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spellings_of_one_url_are_debounced_as_one() {
    let (host, receiver) = host_with_group().await;
    let spelt = |url: String| json!({"url": url, "debounce_seconds": 60});
    host.api.post("/v1/groups/g/jobs", spelt(receiver.url("/x"))).await.expect(201);
    let other = receiver.url("/x").replace("http://", "HTTP://");
    host.api.post("/v1/groups/g/jobs", spelt(other.clone())).await.expect(201);
    host.api.post("/v1/groups/g/jobs", spelt(other)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_cut_within_a_character_is_shown_as_text() {
    let (host, receiver) = host_with_group().await;
    let text = "日本語".repeat(700);
    receiver.on("/", [Answer::body(500, text.clone())]);
    let id = host.api.job_id("g", json!({"url": receiver.url("/")})).await;
    host.api.until_state(&id, "dead").await;
    let attempt = host.api.attempts(&id).await.remove(0);
    let shown = attempt["response_body"].as_str().unwrap();
    assert!(text.starts_with(shown) && shown.len() > 4_000, "{} bytes", shown.len());
    assert_eq!((&attempt["response_truncated"], &attempt["response_body_base64"]), (&json!(true), &Value::Null));
}

/// Words of Rust and of its JSON reader.
const INTERNAL_WORDS: [&str; 11] =
    ["struct", "enum", "variant", "sequence", "u8", "u16", "u32", "u64", "i64", "f64", "usize"];

/// What else it says.
const INTERNAL_PHRASES: [&str; 4] = ["invalid type", "invalid value", "at line", "Doc "];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problems_speak_of_json_and_name_the_field() {
    let (host, _) = host_with_group().await;
    let values = ["1", "-1", "1.5", "\"x\"", "true", "null", "[]", "[\"s\"]", "{\"zzz\": 1}"];
    let bodies: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    let fields = [
        "jobs",
        "url",
        "headers",
        "metadata",
        "policy",
        "limits",
        "priority",
        "run_at",
        "secret",
        "kind",
        "groups",
        "max",
        "cron",
        "max_runs",
        "job",
        "overlap",
        "filter",
        "action",
        "dry_run",
        "version",
        "percent",
        "role",
        "quota",
        "plugin_signers",
        "defaults",
        "encode",
        "sign",
        "retry",
        "deprecated",
        "seed",
        "responses",
        "failures",
        "zzz",
    ];
    let bodies: Vec<String> = fields
        .iter()
        .flat_map(|field| values.iter().map(move |value| format!("{{\"{field}\": {value}}}")))
        .chain(bodies)
        .collect();
    for (method, path) in [
        (Method::POST, "/v1/groups/g/jobs"),
        (Method::POST, "/v1/groups/g/jobs/batch"),
        (Method::POST, "/v1/groups/g/policy/simulate"),
        (Method::POST, "/v1/groups/g/policy/promote"),
        (Method::POST, "/v1/groups/g/bulk"),
        (Method::POST, "/v1/groups/g/leases"),
        (Method::PUT, "/v1/groups/g"),
        (Method::PUT, "/v1/keys/k"),
        (Method::PATCH, "/v1/keys/k"),
        (Method::PUT, "/v1/schedules/s"),
        (Method::PUT, "/v1/tenants/t"),
        (Method::POST, "/v1/tokens"),
        (Method::PATCH, "/v1/plugins/backoff/versions/0.1.0"),
    ] {
        for body in &bodies {
            let reply = host.api.raw(method.clone(), path, body.clone()).await;
            if reply.status < 400 {
                continue;
            }
            let problem = reply.problem(reply.status);
            let detail = problem["detail"].as_str().unwrap();
            let mut words = detail.split(|letter: char| !letter.is_alphanumeric());
            let is_internal = words.any(|word| INTERNAL_WORDS.contains(&word))
                || INTERNAL_PHRASES.iter().any(|phrase| detail.contains(phrase));
            assert!(!is_internal, "{method} {path} {body}: {detail}");
            assert!(!detail.ends_with('.') && problem["pointer"] != "", "{method} {path} {body}: {problem}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_another_kind_says_what_is_needed() {
    let (host, _) = host_with_group().await;
    for (method, path, body, detail) in [
        (Method::POST, "/v1/groups/g/jobs/batch", "[]", "expected a JSON object with `jobs`, got an array"),
        (Method::PUT, "/v1/keys/x", r#"["s"]"#, "expected a JSON object, got an array"),
        (Method::PUT, "/v1/groups/g", "7", "expected a JSON object, got a number"),
        (
            Method::POST,
            "/v1/groups/g/leases",
            r#"{"max": -1}"#,
            "expected a whole number from 0 to 4294967295, got the number `-1`",
        ),
        (
            Method::POST,
            "/v1/groups/g/jobs",
            r#"{"ulr": "http://x/"}"#,
            "the field `ulr` is unknown; did you mean `url`?",
        ),
    ] {
        let problem = host.api.raw(method, path, body).await.problem(400);
        assert!(problem["detail"].as_str().unwrap().starts_with(detail), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn titles_are_the_fields_own_words() {
    let (host, _) = host_with_group().await;
    for (reply, status, title) in [
        (host.api.without_token().get("/v1/groups").await, 401, "Authentication required"),
        (host.api.post("/v1/groups/g/jobs", json!({"url": "x"})).await, 422, "Invalid request"),
        (host.api.post("/v1/groups/g/jobs", json!([])).await, 400, "Malformed request"),
        (host.api.get("/v1/groups/none").await, 404, "Not found"),
    ] {
        assert_eq!(reply.problem(status)["title"], title);
    }
    let id = host.api.job_id("g", json!({"run_at": "+1h"})).await;
    host.api.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    let problem = host.api.post(&format!("/v1/jobs/{id}/run"), json!({})).await.problem(409);
    assert_eq!(
        (&problem["title"], &problem["detail"]),
        (&json!("Conflict"), &json!("the job has already been cancelled"))
    );
}
