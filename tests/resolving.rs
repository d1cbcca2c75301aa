//! Names that nobody resolves hold up only the jobs that need them.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::support::{Receiver, Setup, TestHost, soon};

/// A name server that reads every query and answers none.
async fn silent_name_server() -> (SocketAddr, watch::Receiver<usize>) {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    let (seen, queries) = watch::channel(0);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while socket.recv_from(&mut buffer).await.is_ok() {
            seen.send_modify(|seen| *seen += 1);
        }
    });
    (address, queries)
}

async fn host_with(name_server: SocketAddr, timeout: &str) -> TestHost {
    let name_server = name_server.to_string();
    Setup::new().set("delivery.name_servers", &name_server).set("delivery.resolve_timeout", timeout).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_is_not_answered_is_a_failure_of_its_own() {
    let (name_server, queries) = silent_name_server().await;
    let host = host_with(name_server, "400ms").await;
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let id = host.api.job_id("g", json!({"url": "http://never.example/"})).await;
    assert_eq!(host.api.until_state(&id, "dead").await["last_error"], "send.dns");
    assert!(*queries.borrow() > 0, "the configured server was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_not_answered_hold_up_no_other_job() {
    let (name_server, mut queries) = silent_name_server().await;
    let host = host_with(name_server, "60s").await;
    let receiver = Receiver::start().await;
    let groups = ["a", "b", "c", "d"];
    for group in groups {
        host.api.put_group(group, json!({"limits": {"concurrency": 50, "timeout": "10m"}})).await;
        let jobs: Vec<_> = (0..50).map(|n| json!({"url": format!("http://{group}-{n}.example/")})).collect();
        host.api.post(&format!("/v1/groups/{group}/jobs/batch"), json!({"jobs": jobs})).await.expect(201);
    }
    soon("names are asked for", queries.wait_for(|seen| *seen >= groups.len())).await.unwrap();
    // The name is in every hosts file; neither is looked up.
    host.api.put_group("e", json!({})).await;
    for url in [receiver.url("/a"), receiver.url("/a").replace("127.0.0.1", "localhost")] {
        let id = host.api.job_id("e", json!({"url": url})).await;
        assert_eq!(host.api.until_state(&id, "succeeded").await["attempt_count"], 1);
    }
}
