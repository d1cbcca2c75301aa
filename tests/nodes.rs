//! Several nodes on one PostgreSQL: what they know of each other, what they may do together, and what time it is.

use std::time::Duration;

use carillon_core::clock::{Clock as _, SystemClock};
use carillon_engine::cluster::ClusterTimes;
use serde_json::{Value, json};

use crate::support::{
    Answer, Cluster, DATABASE, Gate, JUDGE_PATH, Receiver, Reply, Setup, SkewedClock, TestHost, cluster, eventually,
    eventually_while, judge, ms, upload,
};

/// A node that joins takes its share after half a second. One that a busy machine keeps silent for long still counts as living.
const TIMES: ClusterTimes = ClusterTimes {
    heartbeat_interval: Duration::from_millis(100),
    view_ttl: Duration::from_millis(400),
    join_delay: Duration::from_millis(500),
    node_ttl: Duration::from_secs(6),
};

fn setup(cluster: &Cluster, name: &str) -> Setup {
    Setup::new().cluster_times(TIMES).set("store.url", &cluster.url(DATABASE)).set("server.name", name)
}

/// Three nodes that have all taken their parts.
async fn three(cluster: &Cluster) -> [TestHost; 3] {
    let node = async |name| setup(cluster, name).start().await;
    let nodes = [node("a").await, node("b").await, node("c").await];
    for node in &nodes {
        until_alive(node, &["a", "b", "c"]).await;
    }
    // A node that has no share of a group claims none of its jobs.
    all_looked(&nodes).await;
    nodes
}

/// Returns when each node has claimed and delivered a job since: whatever else it may start is on its way.
async fn all_looked(nodes: &[TestHost]) {
    let receiver = Receiver::start().await;
    for node in nodes {
        let before = attempts(node).await;
        let another = async || node.looked(&receiver).await;
        eventually_while("each node makes an attempt", another, async || attempts(node).await, |now| *now > before)
            .await;
    }
}

/// How many attempts a node has made.
async fn attempts(node: &TestHost) -> u64 {
    let metrics = node.api.get("/metrics").await;
    let counts = metrics.text().lines().filter(|line| line.starts_with("carillon_attempts_total"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn alive(node: &TestHost) -> Vec<String> {
    let nodes = node.api.get("/v1/nodes").await.items();
    let mut names: Vec<_> = nodes.iter().filter(|node| node["alive"] == true).map(|node| text(&node["name"])).collect();
    names.sort();
    names
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn until_alive(node: &TestHost, names: &[&str]) {
    eventually(&format!("{names:?} are seen"), async || alive(node).await, |seen| seen == names).await;
}

async fn until_known(node: &TestHost, group: &str) {
    node.api.until_status(&format!("/v1/groups/{group}"), 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_is_listed_until_it_stops() {
    let cluster = cluster();
    let (one, two) = (setup(&cluster, "one").start().await, setup(&cluster, "two").start().await);
    until_alive(&one, &["one", "two"]).await;
    until_alive(&two, &["one", "two"]).await;
    assert_eq!(one.api.without_token().get("/readyz").await.text(), "ready\nnodes 2\n");
    let nodes = one.api.get("/v1/nodes").await.items();
    let shown = nodes.iter().find(|node| node["name"] == "two").unwrap();
    assert_eq!(text(&shown["address"]), two.base.trim_start_matches("http://"));
    assert_eq!((&shown["capacity"], &shown["running"], &shown["stopping"]), (&json!(512), &json!(0), &json!(false)));
    two.stop().await;
    until_alive(&one, &["one"]).await;
    assert_eq!(one.api.get("/v1/nodes").await.items().len(), 1, "who leaves is not on the list");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrency_holds_across_nodes() {
    let cluster = cluster();
    let nodes = three(&cluster).await;
    let (receiver, gate) = (Receiver::start().await, Gate::closed());
    for concurrency in [1, 2, 7] {
        let (group, path) = (format!("g{concurrency}"), format!("/{concurrency}"));
        receiver.on(&path, [Answer::status(200).held(&gate)]);
        nodes[0].api.put_group(&group, json!({"limits": {"concurrency": concurrency}})).await;
        for node in &nodes {
            until_known(node, &group).await;
            for _ in 0..10 {
                node.api.post_job(&group, json!({"url": receiver.url(&path)})).await;
            }
        }
        // As many as may; and as time passes, no more. Then one by one.
        for released in 0..30 - concurrency {
            receiver.arrived(&path, released + concurrency).await;
            if released == 0 {
                all_looked(&nodes).await;
            }
            assert_eq!(receiver.count(&path), released + concurrency);
            assert_eq!(nodes[0].api.stats(&group).await["running"], concurrency);
            gate.release(1);
        }
        gate.release(concurrency);
        nodes[1].api.until_succeeded(&group, 30).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_below_the_number_of_nodes_stops_no_group() {
    let cluster = cluster();
    let nodes = three(&cluster).await;
    let (receiver, gate) = (Receiver::start().await, Gate::closed());
    for quota in [1, 2] {
        let (tenant, path) = (format!("t{quota}"), format!("/{quota}"));
        receiver.on(&path, [Answer::status(200).held(&gate)]);
        let put = json!({"quota": {"concurrency": quota}});
        nodes[0].api.put(&format!("/v1/tenants/{tenant}"), put).await.expect(201);
        let apis = [0, 1, 2].map(|node: usize| nodes[node].api.for_tenant(&tenant));
        // Of the first group no more runs than on one node.
        for (group, concurrency) in [("narrow", 1), ("wide", 30)] {
            apis[0].put_group(group, json!({"limits": {"concurrency": concurrency}})).await;
        }
        for api in &apis {
            api.until_status("/v1/groups/wide", 200).await;
            for group in ["narrow", "wide"] {
                for _ in 0..5 {
                    api.post_job(group, json!({"url": receiver.url(&path)})).await;
                }
            }
        }
        for released in 0..=30 - quota {
            // The last of the narrow group go one by one, whatever the quota.
            receiver.arrived(&path, released + 1).await;
            if released == 0 {
                receiver.arrived(&path, quota).await;
                all_looked(&nodes).await;
                assert_eq!(receiver.count(&path), quota);
            }
            assert!(receiver.count(&path) <= released + quota);
            gate.release(1);
        }
        gate.release(quota - 1);
        for group in ["narrow", "wide"] {
            apis[1].until_succeeded(group, 15).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rates_hold_across_nodes() {
    const JOBS: usize = 60;
    let cluster = cluster();
    let nodes = three(&cluster).await;
    let receiver = Receiver::start().await;
    let mut ids = Vec::new();
    nodes[0].api.put_group("g", json!({"limits": {"rate": "20/s", "burst": 10, "concurrency": 30}})).await;
    for node in &nodes {
        until_known(node, "g").await;
        for _ in 0..JOBS / nodes.len() {
            ids.push(node.api.job_id("g", json!({"url": receiver.url("/")})).await);
        }
    }
    nodes[2].api.until_succeeded("g", JOBS).await;
    let mut started = Vec::new();
    for id in &ids {
        let attempts = nodes[0].api.attempts(id).await;
        assert_eq!(attempts.len(), 1);
        started.push(attempts[0]["started_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond());
    }
    started.sort_unstable();
    // In no second does more start than the burst and the rate allow. An attempt may begin a moment after it was let go.
    const LATE: i64 = 250;
    for (index, first) in started.iter().enumerate() {
        let within = started[index..].iter().take_while(|at| **at < first + 1_000 - LATE).count();
        assert!(within <= 30, "{within} within a second from the attempt {index} on: {started:?}");
    }
    // The last one is let go when the rate has come to it.
    let least = 1_000 * (JOBS as i64 - 10) / 20 - LATE;
    assert!(started[JOBS - 1] - started[0] >= least, "{started:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_taken_by_the_node_with_the_share_for_their_group() {
    let cluster = cluster();
    let nodes = three(&cluster).await;
    let receiver = Receiver::start().await;
    // Each of these groups is one node's: none of the jobs waits for the node that accepted it.
    for group in 0..12 {
        nodes[0].api.put_group(&format!("g{group}"), json!({"limits": {"concurrency": 1}})).await;
    }
    for group in 0..12 {
        nodes[0].api.post_job(&format!("g{group}"), json!({"url": receiver.url("/")})).await;
    }
    receiver.arrived("/", 12).await;
    let [one, two, three] = nodes;
    // Who goes leaves its part to the others.
    two.stop().await;
    three.stop().await;
    for group in 0..12 {
        one.api.post_job(&format!("g{group}"), json!({"url": receiver.url("/")})).await;
    }
    receiver.arrived("/", 24).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_on_time_on_nodes_whose_clocks_are_far_apart() {
    const APART: i64 = 5_000;
    let cluster = cluster();
    let node = async |name, skew| setup(&cluster, name).clock(SkewedClock::new(skew)).start().await;
    let nodes = [node("slow", -APART).await, node("right", 0).await, node("fast", APART).await];
    let receiver = Receiver::start().await;
    nodes[0].api.put_group("g", json!({})).await;
    let mut ids = Vec::new();
    for node in &nodes {
        until_known(node, "g").await;
        for _ in 0..20 {
            ids.push(node.api.job_id("g", json!({"url": receiver.url("/"), "run_at": "+2s"})).await);
        }
    }
    let last = SystemClock.now();
    let arrivals = receiver.arrived("/", ids.len()).await;
    for arrival in &arrivals {
        let id = arrival.header("idempotency-key").unwrap();
        let due = ms(&nodes[1].api.job(id).await["run_at"]);
        assert!(due <= last.plus(Duration::from_secs(3)), "`+2s` is two seconds from now for every node: {due}");
        // The nodes' idea of the database's time is that exact.
        assert!(
            arrival.at.plus(Duration::from_millis(50)) >= due,
            "{id} was due at {due} and arrived at {}",
            arrival.at
        );
        // A node that went by its own clock would be as late as its clock is wrong.
        assert!(
            arrival.at < due.plus(Duration::from_millis(APART.unsigned_abs())),
            "{id} was due at {due} and arrived at {}",
            arrival.at
        );
    }
    nodes[0].api.until_succeeded("g", ids.len()).await;
    assert_eq!(arrivals.len(), ids.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_start_at_once_on_an_empty_database() {
    let cluster = cluster();
    let file = "[groups.g]\nlimits = { concurrency = 3 }\n\n[tenants.acme]\n";
    let node = async |name| setup(&cluster, name).file(file).start().await;
    let nodes = tokio::join!(node("a"), node("b"), node("c"));
    let receiver = Receiver::start().await;
    for node in [&nodes.0, &nodes.1, &nodes.2] {
        until_known(node, "g").await;
        node.api.post_job("g", json!({"url": receiver.url("/")})).await;
        assert_eq!(node.api.get("/v1/tenants").await.items().len(), 2);
    }
    receiver.arrived("/", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_receivers_and_quotas_of_tenants_hold_across_nodes() {
    let cluster = cluster();
    let nodes = three(&cluster).await;
    let (one, two, gate) = (Receiver::start().await, Receiver::start().await, Gate::closed());
    for receiver in [&one, &two] {
        receiver.on("/", (0..40).map(|_| Answer::status(200).held(&gate)));
    }
    nodes[0].api.put_group("hosts", json!({"limits": {"concurrency": 20, "host_concurrency": 2}})).await;
    let quota = json!({"quota": {"concurrency": 5}});
    nodes[0].api.put("/v1/tenants/acme", quota).await.expect(201);
    let acme: Vec<_> = nodes.iter().map(|node| node.api.for_tenant("acme")).collect();
    let of_tenant = Receiver::start().await;
    of_tenant.on("/", (0..40).map(|_| Answer::status(200).held(&gate)));
    for acme in &acme {
        acme.until_status("/v1/groups", 200).await;
    }
    for group in ["x", "y"] {
        acme[0].put_group(group, json!({"limits": {"concurrency": 4}})).await;
    }
    for node in &nodes {
        until_known(node, "hosts").await;
        for receiver in [&one, &two] {
            for _ in 0..3 {
                node.api.post_job("hosts", json!({"url": receiver.url("/")})).await;
            }
        }
    }
    for group in ["x", "y"] {
        for _ in 0..8 {
            acme[0].post_job(group, json!({"url": of_tenant.url("/")})).await;
        }
    }
    one.arrived("/", 2).await;
    two.arrived("/", 2).await;
    of_tenant.arrived("/", 5).await;
    all_looked(&nodes).await;
    assert_eq!((one.count("/"), two.count("/"), of_tenant.count("/")), (2, 2, 5));
    gate.release(60);
    nodes[0].api.until_succeeded("hosts", 18).await;
    one.arrived("/", 9).await;
    of_tenant.arrived("/", 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_change_is_made_once_by_all_nodes() {
    const JOBS: usize = 4_000;
    let cluster = cluster();
    let nodes = three(&cluster).await;
    nodes[0].api.put_group("g", json!({})).await;
    for _ in 0..JOBS / 1_000 {
        let jobs: Vec<_> = (0..1_000).map(|_| json!({"url": "http://127.0.0.1:1/", "run_at": "+1h"})).collect();
        nodes[0].api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    }
    let begun = nodes[0].api.post("/v1/groups/g/bulk", json!({"action": "cancel"})).await.expect(202);
    let path = format!("/v1/bulk/{}", text(&begun["id"]));
    for node in &nodes {
        let has_finished = |reply: &Reply| reply.status == 200 && reply.json()["finished"] == true;
        let shown = eventually("the change is over", async || node.api.get(&path).await, has_finished).await.json();
        assert_eq!((&shown["done"], &shown["skipped"]), (&json!(JOBS), &json!(0)), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_plugin_is_bound_and_kept_on_every_node() {
    let cluster = cluster();
    let (one, two) = (setup(&cluster, "one").start().await, setup(&cluster, "two").start().await);
    one.api.put("/v1/tenants/acme", json!({})).await.expect(201);
    upload(&one.api, &format!("{JUDGE_PATH}?tenants=acme"), judge().await).await.expect(201);
    two.api.until_status("/v1/tenants/acme", 200).await;
    let acme = two.api.for_tenant("acme");
    acme.until_status(JUDGE_PATH, 200).await;
    let bound = json!({"judge": {"plugin": "judge-json-ok"}, "retry": {"config": {"max_attempts": 1}}});
    acme.put_group("g", bound).await;
    let receiver = Receiver::start().await;
    receiver.on("/a", [Answer::body(200, r#"{"ok": false}"#)]);
    let id = acme.job_id("g", json!({"url": receiver.url("/a")})).await;
    acme.until_state(&id, "dead").await;
    // The other node sees the binding before it decides.
    for change in [json!({"tenants": []}), json!({"tenants": ["default"]})] {
        one.api.patch(&format!("{JUDGE_PATH}?shared=true"), change).await.problem(409);
    }
    one.api.delete(&format!("{JUDGE_PATH}?shared=true")).await.problem(409);
}
