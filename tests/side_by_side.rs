//! Equal requests at the same moment: replicas of an application declare what they need when they start. None of them names a version, so none of
//! them is refused.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Api, DATABASE, Setup, TestHost, cluster};

/// Replicas that start at the same moment, on each node.
const REPLICAS: usize = 24;

/// What is put, and where.
fn declared() -> Vec<(&'static str, Value)> {
    vec![
        ("/v1/groups/x", json!({"limits": {"concurrency": 3}})),
        ("/v1/schedules/daily", json!({"group": "g", "cron": "@daily", "job": {"payload": 1}})),
        ("/v1/keys/k", json!({"secret": "x".repeat(32)})),
        ("/v1/tenants/t", json!({"quota": {"concurrency": 3}})),
    ]
}

async fn everybody_declares(nodes: &[Api]) {
    nodes[0].put_group("g", json!({})).await;
    for node in nodes {
        node.until_status("/v1/groups/g", 200).await;
    }
    for round in 0..3 {
        for (path, body) in declared() {
            let replicas = nodes.iter().flat_map(|node| std::iter::repeat_n(node, REPLICAS));
            let replies = join_all(replicas.map(|node| node.put(path, body.clone()))).await;
            for reply in &replies {
                reply.ok();
            }
            let new = replies.iter().filter(|reply| reply.status == 201).count();
            assert!(new <= 1 || path.starts_with("/v1/tenants"), "{path} was made {new} times in round {round}");
        }
    }
    // Not equal, and still nobody names a version.
    let changes = (0..REPLICAS).flat_map(|number| {
        let path = ["/v1/schedules/daily/pause", "/v1/schedules/daily/resume"][number % 2];
        nodes.iter().map(move |node| node.post(path, Value::Null))
    });
    for reply in join_all(changes).await {
        reply.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_requests_at_the_same_moment_are_all_accepted() {
    let host = TestHost::start().await;
    everybody_declares(std::slice::from_ref(&host.api)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_requests_at_the_same_moment_are_all_accepted_by_several_nodes() {
    let cluster = cluster();
    let node = async || Setup::new().set("store.url", &cluster.url(DATABASE)).start().await;
    let (one, two) = (node().await, node().await);
    everybody_declares(&[one.api.clone(), two.api.clone()]).await;
}
