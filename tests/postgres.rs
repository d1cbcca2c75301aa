//! Nodes on PostgreSQL: the same server, one database, real processes of the database.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{Answer, Cluster, DATABASE, Receiver, Setup, TestHost, cluster, eventually};

async fn node(cluster: &Cluster) -> TestHost {
    Setup::new().set("store.url", &cluster.url(DATABASE)).start().await
}

/// Makes jobs in a batch; their ids.
async fn batch(host: &TestHost, url: &str, count: usize) -> Vec<String> {
    let jobs: Vec<_> = (0..count).map(|_| json!({"url": url})).collect();
    let made = host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    made["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// How often each job arrived.
fn arrivals(receiver: &Receiver, path: &str) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for arrival in receiver.arrivals(path) {
        *count.entry(arrival.header("idempotency-key").unwrap().to_owned()).or_default() += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_delivers_retries_and_comes_back() {
    let cluster = cluster();
    let host = node(&cluster).await;
    let receiver = Receiver::start().await;
    receiver.on("/flaky", [Answer::status(503), Answer::status(200)]);
    let retry = json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "10ms"}});
    host.api.put_group("g", json!({"retry": retry})).await;
    let flaky = host.api.job_id("g", json!({"url": receiver.url("/flaky"), "payload": {"a": "\u{0}b"}})).await;
    assert_eq!(host.api.until_state(&flaky, "succeeded").await["attempt_count"], 2);
    assert_eq!(receiver.arrivals("/flaky")[1].text(), r#"{"a":"\u0000b"}"#);
    let later = host.api.job_id("g", json!({"url": receiver.url("/later"), "run_at": "+1h", "name": "n"})).await;
    host.stop().await;

    let host = node(&cluster).await;
    let statuses: Vec<_> = host.api.attempts(&flaky).await.iter().map(|attempt| attempt["status"].clone()).collect();
    assert_eq!(statuses, [503, 200]);
    let named = host.api.get("/v1/groups/g/jobs?name=n").await.items();
    assert_eq!(named.len(), 1);
    assert_eq!(host.api.get("/v1/groups/g/jobs?name=%00").await.items().len(), 0, "no name has a zero in it");
    host.api.post(&format!("/v1/jobs/{later}/run"), json!({})).await.ok();
    host.api.until_state(&later, "succeeded").await;
    assert_eq!((receiver.count("/flaky"), receiver.count("/later")), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_deliver_each_of_500_jobs_once() {
    let cluster = cluster();
    let (one, two) = (node(&cluster).await, node(&cluster).await);
    let receiver = Receiver::start().await;
    one.api.put_group("g", json!({})).await;
    two.api.until_status("/v1/groups/g", 200).await;
    let (url, mut made) = (receiver.url("/a"), Vec::new());
    for _ in 0..5 {
        let (of_one, of_two) = tokio::join!(batch(&one, &url, 50), batch(&two, &url, 50));
        made.extend(of_one.into_iter().chain(of_two));
    }
    two.api.until_succeeded("g", 500).await;
    let expected: BTreeMap<String, usize> = made.into_iter().map(|id| (id, 1)).collect();
    assert_eq!(expected.len(), 500);
    assert_eq!(arrivals(&receiver, "/a"), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_of_one_node_holds_on_the_other() {
    let cluster = cluster();
    let (one, two) = (node(&cluster).await, node(&cluster).await);
    one.api.put_group("g", json!({})).await;
    two.api.until_status("/v1/groups/g", 200).await;
    let token = one.api.token(json!({"role": "viewer"})).await;
    let viewer = two.api.with_token(&token);
    viewer.until_status("/v1/groups", 200).await;
    one.api.post("/v1/groups/g/pause", json!({})).await.ok();
    two.api.until_shown("/v1/groups/g", |group| group["paused"] == true).await;
    two.api.delete("/v1/groups/g").await.ok();
    one.api.until_status("/v1/groups/g", 404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashed_has_lost_nothing() {
    let mut cluster = cluster();
    let host = node(&cluster).await;
    let receiver = Receiver::start().await;
    host.api.put_group("g", json!({})).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.ok();
    let made = batch(&host, &receiver.url("/a"), 100).await;
    tokio::task::block_in_place(|| cluster.crash());
    let resume = async || host.api.post("/v1/groups/g/resume", json!({})).await;
    eventually("the group is resumed", resume, |reply| reply.status < 500).await;
    host.api.until_succeeded("g", 100).await;
    assert_eq!(arrivals(&receiver, "/a"), made.into_iter().map(|id| (id, 1)).collect());
}
