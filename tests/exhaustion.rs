//! What the server itself has run out of is no fault of a receiver, and costs no job anything.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{ADMIN_TOKEN, Api, Program, Receiver, eventually, soon};

/// Fewer than there are receivers below.
const FILES: u32 = 256;
const RECEIVERS: usize = 400;

/// A server with few open files.
async fn few_files(dir: &tempfile::TempDir) -> (Program, Api) {
    let store = format!("sqlite:{}", dir.path().join("carillon.db").display());
    let environment = [("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN)];
    let arguments = ["--store", &store, "--egress-allow", "127.0.0.0/8"];
    let program = Program::serve_with_files(FILES, &arguments, &environment).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    (program, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_beyond_the_limit_of_open_files_are_all_reached_at_the_first_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let (program, api) = few_files(&dir).await;
    let receiver = Receiver::start_on_all_addresses().await;
    api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}, "limits": {"concurrency": 512}})).await;
    let url = |n: usize| format!("http://127.1.{}.{}:{}/a", n / 250, n % 250 + 1, receiver.port);
    let jobs: Vec<_> = (0..RECEIVERS).map(|n| json!({"url": url(n)})).collect();
    api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    let look = async || {
        assert_eq!(api.get("/healthz").await.status, 200, "the API answers all the while");
        api.stats("g").await
    };
    let all_have_ended = |stats: &Value| {
        let ended = |state: &str| stats[state].as_u64().unwrap_or_default();
        ended("succeeded") + ended("dead") == RECEIVERS as u64
    };
    let done = eventually("every job has ended", look, all_have_ended).await;
    assert_eq!(done["succeeded"], RECEIVERS, "{done}");
    assert_eq!(receiver.count("/a"), RECEIVERS, "each once");
    program.kill().await;
}

/// Clients that take as many connections as they can do not take those of the API, the probes and the deliveries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hold_all_that_they_can_stop_neither_the_api_nor_deliveries() {
    let dir = tempfile::tempdir().unwrap();
    let (program, api) = few_files(&dir).await;
    let receiver = Receiver::start().await;
    api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let address = program.base.strip_prefix("http://").unwrap().to_owned();
    let mut silent = Vec::new();
    for _ in 0..RECEIVERS {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let mut streams = Vec::new();
    let refused = loop {
        // Each on a connection of its own.
        let follower = Api::new(&program.base, Some(ADMIN_TOKEN));
        let response = follower.request(reqwest::Method::GET, "/v1/events").send().await.unwrap();
        match response.status().as_u16() {
            200 => streams.push(response),
            status => break status,
        }
        assert!(streams.len() < FILES as usize, "streams are bounded");
    };
    assert_eq!(refused, 503);
    assert!(streams.len() > 1, "{}", streams.len());
    let fresh = Api::new(&program.base, Some(ADMIN_TOKEN));
    let healthy = soon("the API answers", fresh.get("/healthz")).await;
    assert_eq!(healthy.status, 200);
    for n in 0..20 {
        let id = fresh.job_id("g", json!({"url": receiver.url(&format!("/{n}"))})).await;
        let job = fresh.until_state(&id, "succeeded").await;
        assert_eq!(job["attempt_count"], 1, "{job}");
    }
    drop((silent, streams));
    program.kill().await;
}
