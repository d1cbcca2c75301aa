//! Memory that clients can make the server take: large fields of every operation, bodies that never end, large answers.
//!
//! All against the program itself, with every limit at its default. Memory is the resident memory of its process.

use axum::body::Bytes;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::scenes::{Play, routes, scene};
use crate::support::{ADMIN_TOKEN, Api, Program, Reply, eventually};

const URL: &str = "http://127.0.0.1:1/";

/// Sizes of a field: below every bound, above those of names, above those of documents, and below `server.body_limit` only.
const SIZES: [usize; 4] = [1 << 10, 64 << 10, 1 << 20, 15 << 20];

/// From this size on, only a field that carries a payload, a body or a list of jobs may be taken.
const LARGE: usize = 1 << 20;

/// Fields that may be large: payloads and bodies, whose bound is `server.payload_limit`, a list of jobs, and an error that is cut off.
const LARGE_FIELDS: [&str; 6] = ["payload", "payload_text", "payload_base64", "jobs", "error", "body"];

/// Memory, in MiB, that one request after the other may take at its peak: twice the largest body (16 MiB, `server.body_limit`), as bytes and
/// as what was parsed of them, and 64 MiB for what is stored of the accepted ones until it is written, and for the allocator's own caches.
const ONE_BY_ONE_MIB: u64 = 2 * 16 + 64;

/// Memory, in MiB, of all bodies that are under way: `limits.bodies` is 256 MiB, of which one tenant has a quarter where there are several.
/// 64 MiB are for connections, buffers of the network, and the allocator: it keeps for a moment what refused requests have given back, while the
/// others go on to grow. Up to 36 MiB were seen.
const BODIES_MIB: u64 = 256 + 64;
const BODIES_OF_ONE_OF_SEVERAL_MIB: u64 = 64 + 64;

/// Connections of a client that sends all but the end of its bodies.
const UNFINISHED: usize = 40;

/// Largest answer, in MiB: `limits.answer` is 8 MiB, and a page ends behind the item that passes it.
const ANSWER_MIB: usize = 16;

/// Memory, in MiB, of one large answer, and of four at once: its rows, its items and its text, and the allocator's own caches.
const ANSWER_GROWTH_MIB: u64 = 96;
const ANSWERS_GROWTH_MIB: u64 = 256;

/// Memory that a stored document takes, as a multiple of its size: a tenant may store 16 MiB (`limits.tenant.config_bytes`), which cost at most
/// 256 MiB.
const DOCUMENT_FACTOR: u64 = 16;

/// The server, with limits of a tenant that the tests would reach.
async fn server() -> (Program, Api, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("carillon.db").display());
    let environment = [
        ("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN),
        ("CARILLON_LOG", "info"),
        ("CARILLON_LIMITS__TENANT__BULKS", "10000"),
        ("CARILLON_LIMITS__TENANT__GROUPS", "10000"),
        ("CARILLON_LIMITS__TENANT__TOKENS", "10000"),
    ];
    let program = Program::serve(&["--store", &store], &environment).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    api.put_group("warm", json!({})).await;
    api.post_job("warm", json!({"url": URL, "run_at": "+1h"})).await;
    program.forget_peak();
    (program, api, dir)
}

/// A place in a request that takes a text, a list or a map of any length.
#[derive(Clone, Debug)]
struct Place {
    pointer: String,
    kind: &'static str,
}

impl Place {
    fn name(&self) -> &str {
        self.pointer.rsplit('/').next().unwrap_or_default()
    }

    fn is_large(&self) -> bool {
        LARGE_FIELDS.contains(&self.name())
    }

    /// Whether a refusal says what is too large, or wrong: the field or one that it is in, or a setting.
    fn is_named_by(&self, problem: &Value) -> bool {
        let detail = problem["detail"].as_str().unwrap_or_default();
        let pointer = problem["pointer"].as_str().unwrap_or_default();
        let is_around =
            !pointer.is_empty() && (self.pointer.starts_with(pointer) || pointer.starts_with(&self.pointer));
        is_around
            || detail.contains(&format!("`{}`", self.name()))
            || detail.contains("limits.")
            || detail.contains("server.")
    }
}

/// The text of a value of this kind and about this size.
fn text_of(kind: &str, size: usize) -> String {
    let part = "x".repeat(1_000);
    match kind {
        "string" => Value::from("x".repeat(size)).to_string(),
        "array" => Value::from(vec![part; size / 1_000]).to_string(),
        _ => Value::Object((0..size / 1_000).map(|n| (format!("k{n}"), part.clone().into())).collect()).to_string(),
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

/// Stands for the large value until the rest of the body is text.
const HERE: &str = "the large value";

/// The body with a value, which is text already, at a place.
fn with(body: &Value, pointer: &str, value: &str) -> String {
    let mut body = if body.is_object() { body.clone() } else { json!({}) };
    let mut at = &mut body;
    for name in pointer.trim_start_matches('/').split('/') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = HERE.into();
    body.to_string().replacen(&format!("\"{HERE}\""), value, 1)
}

/// An operation that takes a document, and the requests that lead to it.
struct Operation {
    route: String,
    number: usize,
    play: Play,
}

impl Operation {
    /// Sends the requests that lead to it, with names that no earlier request has used.
    async fn prepare(&mut self, api: &Api, number: &mut usize) -> Value {
        *number += 1;
        self.number = *number;
        self.play = Play::new(*number, 1_800_000_000);
        let mut steps = scene(&self.route, URL);
        let last = steps.pop().unwrap();
        for step in steps {
            let reply = api.raw(step.method.parse().unwrap(), &self.play.fill(step.path), self.play.body(&step)).await;
            self.play.learn(&serde_json::from_slice(&reply.body).unwrap_or_default());
        }
        serde_json::from_str(&self.play.fill(&last.body.to_string())).unwrap()
    }

    async fn send(&self, api: &Api, body: String) -> Reply {
        let last = scene(&self.route, URL).pop().unwrap();
        api.raw(last.method.parse().unwrap(), &self.play.fill(last.path), body).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_every_operation_is_bounded_in_size_and_memory() {
    let (program, api, _dir) = server().await;
    let document = api.get("/openapi.json").await.expect(200);
    let before = program.memory_mib().now;
    let large: Vec<(&str, usize, String)> = ["string", "array", "object"]
        .into_iter()
        .flat_map(|kind| SIZES.map(|size| (kind, size, text_of(kind, size))))
        .collect();
    let (mut tried, mut number, mut faults) = (0, 0, Vec::new());
    for route in routes(&api).await {
        let (method, path) = route.split_once(' ').unwrap();
        let body = &document["paths"][path][method.to_lowercase()]["requestBody"]["content"]["application/json"];
        if body.is_null() {
            continue;
        }
        let mut found = Vec::new();
        places(&document, &body["schema"], "", 2, &mut found);
        let mut operation = Operation { route: route.clone(), number: 0, play: Play::new(0, 0) };
        let mut base = operation.prepare(&api, &mut number).await;
        for place in found {
            for (_, size, text) in large.iter().filter(|(kind, ..)| *kind == place.kind) {
                let reply = operation.send(&api, with(&base, &place.pointer, text)).await;
                let shown = reply.text().get(..300).unwrap_or(reply.text()).to_owned();
                let mut fault = |what: &str| {
                    faults.push(format!("{what}: {route} {place:?} of {size} bytes: {} {shown}", reply.status))
                };
                match reply.status {
                    200..300 => {
                        if *size >= LARGE && !place.is_large() {
                            fault("nothing bounds it");
                        }
                        base = operation.prepare(&api, &mut number).await;
                    }
                    400..500 => {
                        let problem: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                        if !place.is_named_by(&problem) {
                            fault("the refusal does not say what is too large");
                        }
                    }
                    _ => fault("no clear answer"),
                }
                tried += 1;
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(tried > 400, "the document has the fields: {tried}");
    let peak = program.memory_mib().peak;
    assert!(peak < before + ONE_BY_ONE_MIB, "{before} MiB before, {peak} MiB at the peak");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_and_batches_refuse_what_is_too_large_without_keeping_it() {
    let (program, api, _dir) = server().await;
    let before = program.memory_mib().now;
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
    let peak = program.memory_mib().peak;
    assert!(peak < before + ONE_BY_ONE_MIB, "{before} MiB before, {peak} MiB at the peak");
}

/// A batch of which everything but its last byte is sent, with a length or in one chunk.
async fn unfinished(program: &Program, token: &str, framing: &str) -> TcpStream {
    const LENGTH: usize = 16 << 20;
    let mut stream = TcpStream::connect(program.base.strip_prefix("http://").unwrap()).await.unwrap();
    let (header, before) = match framing {
        "length" => (format!("content-length: {LENGTH}"), String::new()),
        _ => ("transfer-encoding: chunked".to_owned(), format!("{LENGTH:x}\r\n")),
    };
    let head = format!(
        "POST /v1/groups/g/jobs/batch HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n{header}\r\n\r\n{before}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let body = Bytes::from(vec![b' '; LENGTH - 1]);
    // A connection that is refused is closed before everything is sent.
    drop(stream.write_all(&body).await);
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_never_end_take_no_more_than_their_bound() {
    for framing in ["length", "chunks"] {
        for tenants in [1, 2] {
            let (program, api, _dir) = server().await;
            let (mut token, mut sender) = (ADMIN_TOKEN.to_owned(), api.clone());
            if tenants == 2 {
                sender = api.tenant("acme").await;
                token = api.token(json!({"tenant": "acme", "role": "producer"})).await;
            }
            sender.put_group("g", json!({})).await;
            let before = program.memory_mib().now;
            let held = join_all((0..UNFINISHED).map(|_| unfinished(&program, &token, framing))).await;
            let refused = async || api.metric("carillon_refused_total{bound=\"limits.bodies\"}").await;
            eventually("those without room are refused", refused, |refused| *refused > 0).await;
            if tenants == 2 {
                // Those of one tenant leave room for the other's.
                api.post_job("warm", json!({"url": URL, "run_at": "+1h", "payload_text": "x".repeat(60_000)})).await;
            }
            let bound = if tenants == 1 { BODIES_MIB } else { BODIES_OF_ONE_OF_SEVERAL_MIB };
            let peak = program.memory_mib().peak;
            assert!(peak < before + bound, "{framing}, {tenants} tenants: {before} MiB before, {peak} MiB at the peak");
            drop(held);
            program.kill().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_are_bounded_in_size_and_memory() {
    const JOBS: usize = 100;
    let (program, api, _dir) = server().await;
    let payload = "eHh4".repeat(250_000);
    for _ in 0..JOBS {
        let task = json!({"url": URL, "payload": payload, "delay": 3_600});
        let reply = api.post("/compat/poussetaches/", task).await;
        assert!(reply.status < 300, "{}", reply.text());
        let pulled = json!({"payload_base64": payload});
        api.post_job("warm", pulled).await;
    }
    // Fewer than wait: what one request leases, no other one gets.
    let lease = json!({"max": 1_000, "lease": "10m", "wait": "20s"});
    let list = async |method: Method, path: &str, body: &Value| {
        let reply = if method == Method::GET { api.get(path).await } else { api.post(path, body.clone()).await };
        assert_eq!(reply.status, 200, "{path}: {}", reply.text().get(..300).unwrap_or(reply.text()));
        assert!(reply.body.len() < ANSWER_MIB << 20, "{path}: {} bytes", reply.body.len());
        assert!(reply.body.len() > 1 << 20, "{path}: the answer is large: {} bytes", reply.body.len());
    };
    for (method, path) in [(Method::GET, "/compat/poussetaches/waiting"), (Method::POST, "/v1/groups/warm/leases")] {
        let before = program.memory_mib().now;
        program.forget_peak();
        list(method.clone(), path, &lease).await;
        let one = program.memory_mib().peak;
        assert!(one < before + ANSWER_GROWTH_MIB, "{path}: {before} MiB before, {one} MiB for one");
        program.forget_peak();
        join_all((0..4).map(|_| list(method.clone(), path, &lease))).await;
        let four = program.memory_mib().peak;
        assert!(four < before + ANSWERS_GROWTH_MIB, "{path}: {before} MiB before, {four} MiB for four");
    }
}

/// Documents of small values: a tree of them in memory would take many times their text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_documents_take_no_more_than_16_times_their_size() {
    const GROUPS: usize = 200;
    let (program, api, _dir) = server().await;
    let document = json!({"judge": {"config": {"expect": vec![200; 10_000]}}});
    api.put_group("first", document.clone()).await;
    let before = program.memory_mib().now;
    for number in 0..GROUPS {
        api.put_group(&format!("d{number}"), document.clone()).await;
    }
    let stored = (GROUPS * document.to_string().len()) as u64 >> 20;
    assert!(stored >= 7, "{stored} MiB");
    let what = format!("{stored} MiB of documents take at most {DOCUMENT_FACTOR} times as much; {before} MiB before");
    eventually(&what, async || program.memory_mib().now, |now| *now < before + DOCUMENT_FACTOR * stored).await;
    // A change of the tenant makes all of its groups anew.
    for period in ["20s", "21s"] {
        api.put("/v1/tenants/default", json!({"defaults": {"limits": {"timeout": period}}})).await.ok();
    }
    eventually(&what, async || program.memory_mib().now, |now| *now < before + DOCUMENT_FACTOR * stored).await;
}
