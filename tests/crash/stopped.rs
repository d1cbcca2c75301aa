//! SIGTERM under load.

use carillon_core::clock::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::json;

use crate::support::crash::ledger::{Promise, check};
use crate::support::crash::process::Server;
use crate::support::crash::receiver::Receiver;
use crate::support::eventually;

const JOBS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_finishes_what_it_began() {
    let mut server = Server::start(&[("policy.deadline", "5s")]);
    let receiver = Receiver::start().await;
    server.client().put("/v1/groups/drained", &json!({"limits": {"concurrency": 16, "timeout": "10s"}})).await;
    // All of them are there before the first one goes, however slow this machine is.
    server.client().send(Method::POST, "/v1/groups/drained/pause", Vec::new()).await;
    let mut promises = Vec::new();
    for index in 0..JOBS {
        let (name, run_at) = (index.to_string(), SystemClock.now());
        let job =
            json!({"name": name, "url": receiver.url(0, 100), "payload_text": name, "run_at": run_at.to_string()});
        let id = Some(server.client().post_job("drained", &job).await);
        promises.push(Promise { name, run_at, id });
    }
    server.client().send(Method::POST, "/v1/groups/drained/resume", Vec::new()).await;
    let arrived = async || receiver.arrivals().len();
    eventually("a third of the deliveries", arrived, |count| *count >= JOBS / 3).await;

    assert!(server.stop().success());
    let before = receiver.arrivals().len();
    assert!(before < JOBS, "the stop came too late");
    server.restart();
    let client = server.client();
    client.until_done("drained").await;

    let arrivals = receiver.arrivals();
    assert_eq!(check(&client, "drained", &promises, &arrivals, 1).await, 0, "nothing was interrupted");
    assert_eq!(arrivals.len(), JOBS, "each job is delivered once");
}
