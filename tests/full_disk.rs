//! A disk that is really full: a file system of a few megabytes that holds nothing but the store, and what fills it.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Answer, Api, Gate, Program, Receiver, eventually};

/// Largest number of jobs that a log which is there already may take in.
const MAX_JOBS: usize = 4_000;

/// Fills a file system to its last byte.
fn fill(ballast: &Path) {
    let mut file = std::fs::File::create(ballast).unwrap();
    for chunk in [1 << 20, 4_096, 1] {
        let bytes = vec![0_u8; chunk];
        while file.write_all(&bytes).is_ok() {}
    }
}

/// What `/readyz` says.
async fn ready(api: &Api) -> (u16, String) {
    let reply = api.get("/readyz").await;
    (reply.status, reply.text().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_on_a_full_file_system_refuses_loses_nothing_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let store = format!("sqlite:{}", disk.join("jobs.db").display());
    let arguments = ["--no-auth", "--store", &store, "--egress-allow", "127.0.0.0/8"];
    let is_mounted = Program::can_mount().await;
    let program = if is_mounted {
        Program::serve_on_small_disk(&disk, &arguments).await
    } else {
        // Where no test may mount anything, files that may not grow stand in for the disk.
        Program::serve_with_bounded_files(&arguments, &[]).await
    };
    let ballast = program.beneath(&disk.join("ballast"));
    let api = Api::new(&program.base, None);
    let (receiver, gate) = (Receiver::start().await, Gate::closed());
    receiver.on("/under-way", [Answer::status(200).held(&gate)]);
    api.put_group("g", json!({})).await;
    let under_way = api.job_id("g", json!({"url": receiver.url("/under-way")})).await;
    receiver.arrived("/under-way", 1).await;
    let due = api.job_id("g", json!({"url": receiver.url("/due"), "run_at": "+1s"})).await;

    if is_mounted {
        fill(&ballast);
    } else {
        program.bound_files(0);
    }
    let job = json!({"url": receiver.url("/accepted"), "payload_text": "x".repeat(4_000), "run_at": "+1s"});
    let mut accepted = Vec::new();
    let refused = loop {
        let reply = api.post("/v1/groups/g/jobs", job.clone()).await;
        if reply.status != 201 {
            break reply;
        }
        accepted.push(reply.json()["id"].as_str().unwrap().to_owned());
        assert!(accepted.len() < MAX_JOBS, "a full disk accepts for ever");
    };
    assert!(refused.headers.contains_key("retry-after"));
    let problem = refused.problem(503);
    if is_mounted {
        assert_eq!(problem["type"], "urn:carillon:problem:storage-full", "{problem}");
    }
    let (status, text) = eventually("it is not ready", async || ready(&api).await, |(status, _)| *status == 503).await;
    assert!(status == 503 && text.contains("jobs cannot be stored"), "{text}");
    gate.release(1);
    for refusal in ["claiming due jobs failed", "writing settlements failed"] {
        program.until_logged(refusal).await;
    }
    assert_eq!(api.get("/healthz").await.status, 200);
    for id in accepted.iter().chain([&due]) {
        assert_eq!(api.job(id).await["state"], "scheduled", "it can be read all the while");
    }
    assert_eq!(receiver.count("/due") + receiver.count("/accepted"), 0, "nothing is sent that cannot be recorded");

    if is_mounted {
        std::fs::remove_file(&ballast).unwrap();
    } else {
        program.bound_files(u64::MAX);
    }
    eventually("it is ready again", async || ready(&api).await, |(status, _)| *status == 200).await;
    for id in accepted.iter().chain([&under_way, &due]) {
        let job: Value = api.until_state(id, "succeeded").await;
        assert_eq!(job["attempt_count"], 1, "{job}");
    }
    api.until_state(&api.job_id("g", json!({"url": receiver.url("/after")})).await, "succeeded").await;
    let counts = ["/under-way", "/due", "/accepted"].map(|path| receiver.count(path));
    assert_eq!(counts, [1, 1, accepted.len()], "each job that was accepted, once, and none that was refused");
    program.kill().await;
}
