//! Nodes on PostgreSQL: the same server, one database, real processes of the database.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{Answer, Cluster, LOOK_AGAIN, Receiver, Setup, TestHost, soon};

/// The database of a test.
pub const DATABASE: &str = "carillon_test";

/// A server with an empty database.
pub fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.create(DATABASE, None);
    cluster
}

async fn node(cluster: &Cluster) -> TestHost {
    Setup::new().set("store.url", &cluster.url(DATABASE)).start().await
}

/// Waits until a node answers with this status.
pub async fn until_status(host: &TestHost, path: &str, status: u16) {
    let answered = async {
        while host.api.get(path).await.status != status {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    soon(&format!("{path} is answered with {status}"), answered).await;
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

/// Waits until as many jobs of a group have succeeded.
pub async fn until_succeeded(host: &TestHost, group: &str, count: u64) {
    let all = async {
        while host.api.stats(group).await["succeeded"] != count {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    soon(&format!("{count} jobs succeed"), all).await;
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
    until_status(&two, "/v1/groups/g", 200).await;
    let (url, mut made) = (receiver.url("/a"), Vec::new());
    for _ in 0..5 {
        let (of_one, of_two) = tokio::join!(batch(&one, &url, 50), batch(&two, &url, 50));
        made.extend(of_one.into_iter().chain(of_two));
    }
    until_succeeded(&two, "g", 500).await;
    let expected: BTreeMap<String, usize> = made.into_iter().map(|id| (id, 1)).collect();
    assert_eq!(expected.len(), 500);
    assert_eq!(arrivals(&receiver, "/a"), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_configured_on_one_node_holds_on_the_other() {
    let cluster = cluster();
    let (one, two) = (node(&cluster).await, node(&cluster).await);
    one.api.put_group("g", json!({})).await;
    until_status(&two, "/v1/groups/g", 200).await;
    let token = one.api.token(json!({"role": "viewer"})).await;
    let viewer = two.api.with_token(&token);
    soon("the token is known", async {
        while viewer.get("/v1/groups").await.status != 200 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    one.api.post("/v1/groups/g/pause", json!({})).await.ok();
    soon("the group is paused", async {
        while two.api.get("/v1/groups/g").await.expect(200)["paused"] != true {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    two.api.delete("/v1/groups/g").await.ok();
    until_status(&one, "/v1/groups/g", 404).await;
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
    soon("the group is resumed", async {
        while host.api.post("/v1/groups/g/resume", json!({})).await.status >= 500 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    until_succeeded(&host, "g", 100).await;
    assert_eq!(arrivals(&receiver, "/a"), made.into_iter().map(|id| (id, 1)).collect());
}
