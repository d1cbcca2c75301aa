//! More plugins than there is room for.

use axum::body::Bytes;
use serde_json::json;

use crate::support::{Answer, Receiver, Setup, TestHost, judge, upload};

/// How many tenants, each with a plugin of its own.
const TENANTS: usize = 12;

/// Room for a few of them, and for the server's own: one takes some 350 KiB.
const ROOM: usize = 2 << 20;

/// The number of a metric that has no labels.
async fn metric(host: &TestHost, name: &str) -> usize {
    let metrics = host.api.get("/metrics").await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in {}", metrics.text())).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_are_unloaded_and_loaded_again() {
    let host = Setup::new().set("policy.loaded_size", "2MiB").start().await;
    let receiver = Receiver::start().await;
    receiver.on("/a", [Answer::body(200, r#"{"ok": true}"#)]);
    let judge = judge().await;
    let mut tenants = Vec::new();
    for number in 0..TENANTS {
        let tenant = host.api.tenant(&format!("tenant-{number}")).await;
        // The same code with another digest: a custom section of one byte that says nothing.
        let own = [&judge[..], &[0, 3, 1, b'n', u8::try_from(number).unwrap()]].concat();
        upload(&tenant, "/v1/plugins/judge-json-ok/versions/0.1.0", Bytes::from(own)).await.expect(201);
        tenant.put_group("g", json!({"judge": {"plugin": "judge-json-ok"}})).await;
        let bytes = metric(&host, "carillon_plugins_loaded_bytes").await;
        assert!(bytes <= ROOM, "{bytes} bytes are loaded before anything is called");
        tenants.push(tenant);
    }
    let mut most = 0;
    for _ in 0..2 {
        for tenant in &tenants {
            let id = tenant.job_id("g", json!({"url": receiver.url("/a")})).await;
            tenant.until_state(&id, "succeeded").await;
            let attempts = tenant.attempts(&id).await;
            assert_eq!(attempts[0]["plugins"][0]["plugin"], "judge-json-ok@0.1.0");
            most = most.max(metric(&host, "carillon_plugins_loaded").await);
            let bytes = metric(&host, "carillon_plugins_loaded_bytes").await;
            assert!(bytes <= ROOM, "{bytes} bytes are loaded");
        }
    }
    assert!((2..TENANTS).contains(&most), "{most} plugins were loaded at a time");
}
