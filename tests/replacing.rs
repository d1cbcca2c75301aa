//! Schedules whose newer run takes the place of the older one: no two at once, wherever they run.

use serde_json::{Value, json};

use crate::support::queue::of_group;
use crate::support::schedules::{put, put_sentinel, started, tick};
use crate::support::{Answer, DATABASE, Gate, Receiver, Setup, TestHost, cluster, eventually};

/// The jobs of a group, in the order of their acceptance, with their states.
async fn states(host: &TestHost, group: &str) -> Vec<(String, String)> {
    let mut jobs = host.api.get(&format!("/v1/groups/{group}/jobs")).await.items();
    jobs.reverse();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    jobs.iter().map(|job| (text(&job["id"]), text(&job["state"]))).collect()
}

async fn until_states(host: &TestHost, group: &str, wanted: &[&str]) -> Vec<String> {
    let what = format!("the jobs of {group} are {wanted:?}");
    let as_wanted = |jobs: &Vec<(String, String)>| jobs.iter().map(|(_, state)| state).eq(wanted);
    let jobs = eventually(&what, async || states(host, group).await, as_wanted).await;
    jobs.into_iter().map(|(id, _)| id).collect()
}

async fn assert_cut_off(host: &TestHost, id: &str) {
    let attempts = host.api.attempts(id).await;
    let summary: Vec<_> =
        attempts.iter().map(|it| (&it["error"]["code"], &it["spent"], &it["decision"]["state"])).collect();
    assert_eq!(summary, [(&json!("attempt.cancelled"), &json!(true), &json!("cancelled"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_run_cuts_off_the_one_before_it() {
    let (clock, _, host, receiver) = started().await;
    host.api.put_group("own", json!({})).await;
    let gate = Gate::closed();
    receiver.on("/run", [Answer::status(200).held(&gate)]);
    put(&host, &receiver, "run", "*/2 * * * * *", json!({"group": "own", "overlap": "cancel", "max_runs": 4})).await;
    put_sentinel(&host, &receiver).await;
    for (number, time) in [(1, "10:00:02"), (2, "10:00:04"), (3, "10:00:06"), (4, "10:00:08")] {
        tick(&clock, &host, &receiver, time).await;
        receiver.arrived("/run", number).await;
        let before = vec!["cancelled"; number - 1];
        let wanted: Vec<_> = before.into_iter().chain(["running"]).collect();
        until_states(&host, "own", &wanted).await;
    }
    gate.release(9);
    let ids = until_states(&host, "own", &["cancelled", "cancelled", "cancelled", "succeeded"]).await;
    for id in &ids[..3] {
        assert_cut_off(&host, id).await;
    }
    assert_eq!(receiver.count("/run"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_its_retry_gives_way_and_a_success_stays_one() {
    let (clock, _, host, receiver) = started().await;
    host.api.put_group("own", json!({"retry": {"config": {"kind": "fixed", "base": "1h", "jitter": 0}}})).await;
    receiver.on("/run", [Answer::status(500), Answer::status(200)]);
    put(&host, &receiver, "run", "*/2 * * * * *", json!({"group": "own", "overlap": "cancel", "max_runs": 3})).await;
    put_sentinel(&host, &receiver).await;
    tick(&clock, &host, &receiver, "10:00:02").await;
    until_states(&host, "own", &["scheduled"]).await;
    tick(&clock, &host, &receiver, "10:00:04").await;
    until_states(&host, "own", &["cancelled", "succeeded"]).await;
    tick(&clock, &host, &receiver, "10:00:06").await;
    until_states(&host, "own", &["cancelled", "succeeded", "succeeded"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_loses_its_lease_to_the_next_run() {
    let (clock, _, host, receiver) = started().await;
    host.api.put_group("own", json!({})).await;
    let doc =
        json!({"group": "own", "cron": "*/2 * * * * *", "overlap": "cancel", "max_runs": 2, "job": {"payload": 1}});
    host.api.put("/v1/schedules/work", doc).await.ok();
    put_sentinel(&host, &receiver).await;
    tick(&clock, &host, &receiver, "10:00:02").await;
    let first = of_group(&host.api, "own", json!({"lease": "1h"})).await.remove(0);
    tick(&clock, &host, &receiver, "10:00:04").await;
    let ids = until_states(&host, "own", &["cancelled", "scheduled"]).await;
    assert_cut_off(&host, &ids[0]).await;
    for verb in ["extend", "complete"] {
        let path = format!("/v1/leases/{}/{verb}", first["token"].as_str().unwrap());
        host.api.post(&path, json!({})).await.problem(409);
    }
    let second = of_group(&host.api, "own", json!({})).await.remove(0);
    let path = format!("/v1/leases/{}/complete", second["token"].as_str().unwrap());
    host.api.post(&path, json!({})).await.expect(200);
    until_states(&host, "own", &["cancelled", "succeeded"]).await;
}

/// Runs of a schedule land on either node, and whoever notices the next tick is not the one that runs the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_another_node_is_cut_off_before_the_next_begins() {
    let postgres = cluster();
    let setup = || Setup::new().set("store.url", &postgres.url(DATABASE));
    let (one, two) = (setup().start().await, setup().start().await);
    let (receiver, gate) = (Receiver::start().await, Gate::closed());
    receiver.on("/run", [Answer::status(200).held(&gate)]);
    one.api.put_group("g", json!({})).await;
    put(&one, &receiver, "run", "*/3 * * * * *", json!({"overlap": "cancel", "max_runs": 4})).await;
    for number in 1..=4 {
        receiver.arrived("/run", number).await;
        let before = vec!["cancelled"; number - 1];
        let wanted: Vec<_> = before.into_iter().chain(["running"]).collect();
        // What has ended before a request arrived was over then.
        let seen: Vec<_> = states(&two, "g").await.into_iter().map(|(_, state)| state).collect();
        assert_eq!(seen, wanted, "run {number}");
    }
    gate.release(9);
    let ids = until_states(&two, "g", &["cancelled", "cancelled", "cancelled", "succeeded"]).await;
    for id in &ids[..3] {
        assert_cut_off(&one, id).await;
    }
    assert_eq!(receiver.count("/run"), 4);
}
