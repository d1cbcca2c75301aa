//! A page of the database that is damaged, as by a failing disk: the server names it, and works with what other pages hold.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::{ManualClock, Receiver, Setup, eventually, run};

/// Size of a page of the database, in bytes.
const PAGE: usize = 4_096;

/// Overwrites the page that holds a text.
fn damage_page_with(file: &Path, text: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("the text is in the file");
    let page = at / PAGE * PAGE;
    assert!(page > 0, "not the first page, which has the schema");
    bytes[page..page + PAGE].fill(0xa5);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_page_is_named_and_keeps_no_other_job_from_being_delivered() {
    let clock = ManualClock::new();
    let (setup, receiver) = (Setup::with_clock(&clock), Receiver::with_clock(clock.clone()).await);
    let host = setup.start().await;
    host.api.put_group("g", json!({})).await;
    let mut ids = Vec::new();
    for number in 0..40 {
        // Some four of them take a page.
        let payload = format!("payload-{number:02}-{}", "x".repeat(800));
        let job = json!({"url": receiver.url("/a"), "run_at": "+1h", "payload_text": payload});
        ids.push(host.api.job_id("g", job).await);
    }
    let directory = Arc::clone(&host.dir);
    let file = directory.path().join("carillon.db");
    host.stop().await;
    damage_page_with(&file, "payload-20-");

    let host = setup.in_dir(&directory).start().await;
    let (mut readable, mut damaged) = (Vec::new(), Vec::new());
    for id in &ids {
        let reply = host.api.get(&format!("/v1/jobs/{id}")).await;
        if reply.status == 200 {
            readable.push(id);
        } else {
            assert_eq!(reply.problem(500)["type"], "urn:carillon:problem:storage-damaged");
            damaged.push(id);
        }
    }
    assert!((1..=8).contains(&damaged.len()) && readable.len() + damaged.len() == ids.len(), "{damaged:?}");
    let copy = directory.path().join("copy.db");
    let store = format!("sqlite:{}", file.display());
    let backup = run(&["backup", "--store", &store, &copy.display().to_string()], &[], "").await;
    assert!(backup.error(1).contains("malformed"), "{backup:?}");
    assert!(!copy.exists());
    clock.advance(Duration::from_secs(7_200));
    for id in readable {
        host.api.until_state(id, "succeeded").await;
    }
    assert_eq!(receiver.count("/a"), ids.len() - damaged.len());
    // The others have ended too, with the cause: nothing waits for ever.
    let stats = async || host.api.stats("g").await["dead"].clone();
    eventually("the damaged jobs are dead", stats, |dead| *dead == damaged.len()).await;
    assert_eq!(host.api.get("/readyz").await.status, 200);
}
