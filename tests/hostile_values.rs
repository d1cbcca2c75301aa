//! Values that one database takes and another one refuses, in every field of every request, on both.
//!
//! Both stores answer the same, and never with a fault of the server. What was accepted lives on: it is shown, deleted, and read at the next
//! start.

use axum::body::Body;
use axum::http::Request;
use carillon_api::door::Door;
use carillon_core::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::support::scenes::{Play, Step, all, routes, scene};
use crate::support::{ADMIN_TOKEN, Api, DATABASE, Setup, cluster};

/// Stands for a hostile value in a document, until it is written as text: not all of them are JSON that can be parsed.
const PLACE: &str = "@@hostile@@";

/// Where jobs are sent: nobody listens there.
const URL: &str = "http://127.0.0.1:1/";

/// Values as they are written in JSON.
fn values() -> Vec<String> {
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let plain = [
        r#""a\u0000b""#,
        r#""\u0000""#,
        r#""a\ud800b""#,
        r#""\udc00\ud800""#,
        r#""""#,
        r#"" ""#,
        r#""\u202e\u0001\u007f\u0085""#,
        r#""e\u0301\u00e9\u212b""#,
        r#""'; DROP TABLE job; --""#,
        r#""$.a[0]\"\\""#,
        r#"{"a\u0000b": "c\u0000d"}"#,
        r#"{"\ud800": "\udfff"}"#,
        r#"{"": ""}"#,
        r#"["a\u0000b"]"#,
        "1e400",
        "-1e400",
        "1e-400",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "-9223372036854775809",
        "-0.0",
        "null",
        "true",
    ];
    let mut values: Vec<String> = plain.map(str::to_owned).into();
    values.extend([
        format!("\"{}\"", "x".repeat(300)),
        format!("\"{}\"", "\u{10ffff}".repeat(20_000)),
        nested("[", "]", 100),
        nested("{\"a\":", "}", 90),
        nested("{\"a\":", "}", 120),
        nested("[", "]", 5_000),
    ]);
    values
}

/// Segments of a path and values of a query parameter, as they are written in a URL.
const WORDS: [&str; 8] =
    ["a%00b", "%00", "%FF%FE", "%ED%A0%80", "%27%22%24", "9223372036854775808", "1e400", "%E2%80%AE"];

/// The document with a place in each of its fields, and in each that the description knows.
fn with_places(body: &Value, schema: &Value, document: &Value) -> Vec<Value> {
    let mut places = Vec::new();
    let Value::Object(fields) = body else { return places };
    for (name, value) in fields {
        let with = |inner: Value| {
            let mut body = body.clone();
            body[name.as_str()] = inner;
            body
        };
        places.push(with(json!(PLACE)));
        places.extend(with_places(value, &Value::Null, document).into_iter().map(with));
    }
    let known = resolved(schema, document);
    for name in known["properties"].as_object().into_iter().flat_map(|known| known.keys()) {
        if !fields.contains_key(name) {
            let mut body = body.clone();
            body[name.as_str()] = json!(PLACE);
            places.push(body);
        }
    }
    places
}

fn resolved<'a>(schema: &'a Value, document: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
        None => schema,
    }
}

/// What was asked, and the status of the answer.
type Answers = Vec<(String, u16)>;

struct Run<'a> {
    door: &'a Door,
    number: usize,
    /// The time in seconds since 1970 that requests name.
    now: i64,
    answers: Answers,
}

impl Run<'_> {
    async fn ask(&mut self, what: String, request: Request<Body>) {
        let status = self.door.answer(request).await.status().as_u16();
        assert!(status < 500, "{what}: {status}");
        self.answers.push((what, status));
    }

    /// Plays what comes before a request, and returns the play.
    async fn play(&mut self, before: &[Step]) -> Play {
        self.number += 1;
        let mut play = Play::new(self.number, self.now);
        for step in before {
            let answer = self.door.answer(play.request(step)).await;
            let status = answer.status();
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            assert!(status.is_success(), "{} {}: {status} {body:?}", step.method, step.path);
            play.learn(&serde_json::from_slice(&body).unwrap_or(Value::Null));
        }
        play
    }

    async fn route(&mut self, route: &str, document: &Value) {
        let steps = scene(route, URL);
        let (last, before) = steps.split_last().unwrap();
        let (method, path) = route.split_once(' ').unwrap();
        let operation = &document["paths"][path][method.to_lowercase()];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        for body in with_places(&last.body, schema, document) {
            // What was not accepted has changed nothing, so one scene does for all values, as long as none is accepted.
            let mut play = self.play(before).await;
            for value in values() {
                let text = play.fill(&body.to_string()).replace(&format!("\"{PLACE}\""), &value);
                let shown: String = text.chars().take(200).collect();
                let request = authorized(method, &play.fill(last.path)).body(Body::from(text)).unwrap();
                self.ask(format!("{route} {shown}"), request).await;
                if self.answers.last().is_some_and(|(_, status)| *status < 400) {
                    play = self.play(before).await;
                }
            }
        }
        for word in WORDS {
            let mut segments: Vec<&str> = path.split('/').collect();
            for index in 0..segments.len() {
                let before = segments[index];
                if before.starts_with('{') {
                    segments[index] = word;
                    let filled = segments.join("/").replace(['{', '}'], "");
                    let body = Body::from(last.body.to_string());
                    self.ask(format!("{method} {filled}"), authorized(method, &filled).body(body).unwrap()).await;
                    segments[index] = before;
                }
            }
        }
    }

    async fn query(&mut self, path: &str, operation: &Value) {
        let filled = path.replace("{group}", "lists").replace(['{', '}'], "");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let mut names: Vec<&str> =
            parameters.filter(|it| it["in"] == "query").filter_map(|it| it["name"].as_str()).collect();
        if path.ends_with("/jobs") {
            names.extend(["metadata.a", "metadata.%00"]);
        }
        for word in WORDS {
            for name in &names {
                let uri = format!("{filled}?{name}={word}");
                self.ask(uri.clone(), authorized("GET", &uri).body(Body::empty()).unwrap()).await;
            }
        }
    }
}

fn authorized(method: &str, uri: &str) -> axum::http::request::Builder {
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    request.header("authorization", format!("Bearer {ADMIN_TOKEN}"))
}

/// Sends everything; then shows and removes what was accepted, and starts again.
async fn everything_on(setup: &Setup, now: i64) -> Answers {
    let host = setup.start().await;
    let document = host.api.get("/openapi.json").await.expect(200);
    let door = host.door();
    let mut run = Run { door: &door, number: 0, now, answers: Vec::new() };
    for route in routes(&host.api).await {
        run.route(&route, &document).await;
    }
    host.api.put_group("lists", json!({})).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        if let Some(operation) = item.get("get").filter(|_| !path.ends_with("/events")) {
            run.query(path, operation).await;
        }
    }
    let answers = run.answers;
    let shown = show(&host.api).await;
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let again = setup.clone().in_dir(&dir).start().await;
    assert_eq!(show(&again.api).await, shown, "what is read at a start is what was there");
    remove(&again.api).await;
    answers
}

/// The lists of everything that is configured.
async fn show(api: &Api) -> Vec<(String, Vec<String>)> {
    let mut shown = Vec::new();
    for (list, name) in
        [("groups", "name"), ("keys", "name"), ("tokens", "id"), ("schedules", "name"), ("tenants", "name")]
    {
        let names = all(api, &format!("/v1/{list}")).await;
        shown.push((list.to_owned(), names.iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()));
    }
    shown
}

/// Everything that can be shown can be removed.
async fn remove(api: &Api) {
    for schedule in all(api, "/v1/schedules").await {
        api.delete(&format!("/v1/schedules/{}", schedule["name"].as_str().unwrap())).await.expect(204);
    }
    let tokens = all(api, "/v1/tokens").await;
    for token in tokens.iter().filter(|token| token["operator"] != true) {
        api.delete(&format!("/v1/tokens/{}", token["id"].as_str().unwrap())).await.expect(204);
    }
    for group in all(api, "/v1/groups").await {
        let name = group["name"].as_str().unwrap();
        let flushed = api.post(&format!("/v1/groups/{name}/flush"), json!({})).await;
        assert!([200, 202].contains(&flushed.status), "{name}: {} {}", flushed.status, flushed.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_answer_hostile_values_in_the_same_way() {
    let setup = || Setup::new().set("server.body_limit", "1MiB").set("server.payload_limit", "1MiB");
    // The same in both runs: requests name it.
    let now = SystemClock.now().0 / 1_000;
    let on_sqlite = everything_on(&setup(), now).await;
    let cluster = cluster();
    let on_postgres = everything_on(&setup().set("store.url", &cluster.url(DATABASE)), now).await;
    assert!(on_sqlite.len() > 1_000, "{}", on_sqlite.len());
    let differ = |(one, other): &(&(String, u16), &(String, u16))| one != other;
    let first = on_sqlite.iter().zip(&on_postgres).find(differ);
    assert_eq!(first, None);
    assert_eq!(on_sqlite.len(), on_postgres.len());
}
