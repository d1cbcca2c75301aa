//! Requests to a real server in this process, through the entry that its port uses: documents of jobs, groups and schedules, queries with
//! cursors, tickets and ids of events, and the APIs of other schedulers.
//!
//! Invariant: a response is never a 5xx, and an error of the API is a problem in JSON.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use carillon::app::App;
use carillon_api::door::Door;
use carillon_config::{Config, Sources};
use carillon_core::clock::SystemClock;
use carillon_engine::cluster::ClusterTimes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::runtime::{Builder, Runtime};

use crate::lines;

const ADMIN_TOKEN: &str = "the-first-administrators-token";
const MASTER_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Routes that read a document; jobs and schedules are far in the future or are not stored.
const DOCUMENTS: [(&str, &str); 16] = [
    ("POST", "/v1/groups/g/jobs"),
    ("POST", "/v1/groups/g/jobs/batch"),
    ("PUT", "/v1/groups/h"),
    ("PATCH", "/v1/groups/h"),
    ("PUT", "/v1/schedules/s"),
    ("PATCH", "/v1/schedules/s"),
    ("POST", "/v1/schedules/s/backfill"),
    ("POST", "/v1/groups/g/policy/simulate"),
    ("POST", "/v1/groups/g/policy/versions"),
    ("POST", "/v1/groups/h/policy/promote"),
    ("PUT", "/v1/groups/h/policy/shadow"),
    ("POST", "/v1/leases/AAECAwQFBgc/fail"),
    ("POST", "/v1/groups/g/bulk"),
    ("PUT", "/v1/keys/k"),
    ("POST", "/v1/tokens"),
    ("PUT", "/v1/tenants/t"),
];

/// Routes whose query or path has something to read.
const QUERIES: [&str; 12] = [
    "/v1/jobs?",
    "/v1/groups/g/jobs?",
    "/v1/groups?cursor=",
    "/v1/tokens?cursor=",
    "/v1/plugins/backoff/versions?cursor=",
    "/v1/schedules/s/history?",
    "/v1/cron/runs?",
    "/v1/events?",
    "/v1/jobs/",
    "/v1/leases/",
    "/v1/bulk/",
    "/v1/groups/",
];

/// Routes of other schedulers' APIs.
const MOUNTS: [(&str, &str); 8] = [
    ("PUT", "/compat/callme/task/"),
    ("POST", "/compat/callme/"),
    ("GET", "/compat/callme/"),
    ("POST", "/compat/doppler/"),
    ("DELETE", "/compat/doppler/"),
    ("POST", "/compat/poussetaches/"),
    ("GET", "/compat/poussetaches/"),
    ("POST", "/compat/poussetaches/cron"),
];

/// The server, which lives as long as the process.
struct Server {
    runtime: Runtime,
    door: Door,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let program = std::env::current_exe().expect("a program");
    // One directory for each program, which its next start empties: a process of libFuzzer's has no end at which it could be removed.
    let directory = program.with_extension("server");
    let _absent = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let app = runtime.block_on(async {
        let app = App::start(config(&program, &directory), Arc::new(SystemClock), ClusterTimes::default()).await;
        app.expect("the server starts")
    });
    let server = Server { runtime, door: app.door.clone() };
    // It ends with the process.
    std::mem::forget(app);
    for group in ["g", "h"] {
        server.ask("PUT", &format!("/v1/groups/{group}"), b"{}", None);
    }
    server
});

fn config(program: &Path, directory: &Path) -> Config {
    // The program that compiles the default plugins lies beside this one, or above it.
    let beside = program.ancestors().skip(1).take(2).map(|folder| folder.join("carillon")).find(|file| file.exists());
    let compiler: PathBuf = beside.expect("`carillon` is built");
    let settings = [
        ("STORE__URL", format!("sqlite:{}", directory.join("carillon.db").display())),
        ("SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("AUTH__ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
        ("KEYS__MASTER_KEY", MASTER_KEY.to_owned()),
        ("POLICY__COMPILER", compiler.display().to_string()),
        ("POLICY__CACHE_DIR", directory.join("cache").display().to_string()),
        // What is sent goes nowhere, and fails at once.
        ("EGRESS__DENY", "0.0.0.0/0,::/0".to_owned()),
    ];
    let environment = settings.into_iter().map(|(name, value)| (format!("CARILLON_{name}"), value)).collect();
    Config::load(Sources { environment, ..Sources::default() }).expect("a valid configuration")
}

impl Server {
    /// Makes a request and checks the response.
    fn ask(&self, method: &str, path: &str, body: &[u8], event: Option<&str>) {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .header("content-type", "application/json");
        let request = match event {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        // What is no request to HTTP's own library does not arrive.
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
        let is_stream = path.starts_with("/v1/events");
        self.runtime.block_on(async {
            let response = self.door.answer(request).await;
            let status = response.status();
            // 503 says that the server has no room, which is right for a fuzzer.
            let is_server_error = status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE;
            if is_stream && status.is_success() {
                return;
            }
            let kind = response.headers().get("content-type").cloned();
            let text = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let shown = String::from_utf8_lossy(&text);
            assert!(!is_server_error, "{method} {path}: {status}: {shown}");
            let is_problem = kind.is_some_and(|kind| kind == "application/problem+json");
            let is_native = path.starts_with("/v1/");
            assert!(!status.is_client_error() || is_problem || !is_native, "{method} {path}: {status}: {shown}");
        });
    }
}

/// First byte: the route; the rest: the body.
pub(crate) fn documents(data: &[u8]) {
    let Some((route, body)) = data.split_first() else { return };
    let (method, path) = DOCUMENTS[usize::from(*route) % DOCUMENTS.len()];
    SERVER.ask(method, path, body, None);
}

/// First byte: the route; the rest: what follows in the path or the query, and on a second line the id of the last event.
pub(crate) fn queries(data: &[u8]) {
    let Some((route, rest)) = data.split_first() else { return };
    let [query, event] = lines(rest);
    let path = format!("{}{query}", QUERIES[usize::from(*route) % QUERIES.len()]);
    SERVER.ask("GET", &path, b"", Some(event).filter(|event| !event.is_empty()));
}

/// First byte: the mount; the first line: the rest of the path; after it the body.
pub(crate) fn mounts(data: &[u8]) {
    let Some((route, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let line = std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
    let (method, mount) = MOUNTS[usize::from(*route) % MOUNTS.len()];
    SERVER.ask(method, &format!("{mount}{line}"), parts.next().unwrap_or_default(), None);
}
