//! What the server itself has run out of is no fault of a receiver, and costs no job anything.

use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Api, LOOK_AGAIN, Program, Receiver, soon};

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
async fn more_receivers_than_open_files_are_all_reached_at_the_first_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let (program, api) = few_files(&dir).await;
    let receiver = Receiver::start_on_all_addresses().await;
    api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}, "limits": {"concurrency": 512}})).await;
    let url = |n: usize| format!("http://127.1.{}.{}:{}/a", n / 250, n % 250 + 1, receiver.port);
    let jobs: Vec<_> = (0..RECEIVERS).map(|n| json!({"url": url(n)})).collect();
    api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    let done: Value = soon("every job has ended", async {
        loop {
            assert_eq!(api.get("/healthz").await.status, 200, "the API answers all the while");
            let stats = api.stats("g").await;
            let ended = |state: &str| stats[state].as_u64().unwrap_or_default();
            if ended("succeeded") + ended("dead") == RECEIVERS as u64 {
                return stats;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    assert_eq!(done["succeeded"], RECEIVERS, "{done}");
    assert_eq!(receiver.count("/a"), RECEIVERS, "each once");
    program.kill().await;
}
