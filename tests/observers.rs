//! The tenants' own observers: they are shown what happens, and nothing depends on them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    ADMIN_TOKEN, Answer, Api, ManualClock, Program, Receiver, Setup, TestHost, eventually_while, upload_built,
};

const NOWHERE: &str = "http://127.0.0.1:1/";

/// How long events are gathered.
const LINGER: Duration = Duration::from_millis(200);

fn moody(mood: &str) -> Value {
    json!({"observe": {"plugin": "moody", "config": {"mood": mood}}})
}

/// What a group's observer has done, when that is as `wanted`; time goes on meanwhile.
async fn until_observed(api: &Api, clock: Option<&ManualClock>, group: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/groups/{group}");
    let later = async || {
        if let Some(clock) = clock {
            clock.advance(LINGER);
        }
    };
    let look = async || api.get(&path).await.expect(200)["observer"].clone();
    eventually_while("the observer has done it", later, look, wanted).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_is_shown_each_event_of_its_group_once() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on("/500", [Answer::status(500)]);
    upload_built(&host.api, "examples/observe-log", "observe-log").await;
    let kinds = json!(["push", "pop", "error"]);
    let group =
        host.api.put_group("g", json!({"observe": {"plugin": "observe-log", "config": {"kinds": kinds}}})).await;
    assert_eq!(group["observe"]["plugin"], "observe-log@0.1.0", "an upload changes no group");
    let nothing = json!({"shown": 0, "failed": 0, "dropped": 0, "jobs": 0, "last_fault": null, "log": []});
    assert_eq!(group["observer"], nothing);
    host.api.put_group("other", json!({})).await;

    let metadata = json!({"k": "v", "billing": {"invoice": "17"}});
    let once = json!({"retry": {"max_attempts": 1}});
    let job = json!({"url": receiver.url("/500"), "name": "n", "metadata": metadata, "policy": once});
    let id = host.api.job_id("g", job.clone()).await;
    host.api.until_state(&id, "dead").await;
    host.api.job_id("other", job).await;
    assert_eq!(host.api.get("/v1/groups/g").await.expect(200)["observer"], nothing, "events are gathered first");

    let observer = until_observed(&host.api, Some(&clock), "g", |observer| observer["shown"] == 3).await;
    let log: Vec<_> = observer["log"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(log.len(), 3, "{log:?}");
    let facts = "tenant=default job-name=n";
    let labels = "metadata.billing.invoice=17 metadata.k=v";
    assert!(log[0].starts_with(&format!("info: push {id} {facts} run-at-ms=")) && log[0].ends_with(labels), "{log:?}");
    assert_eq!(log[1], format!("info: pop {id} {facts} attempt=1 {labels}"));
    assert!(log[2].starts_with(&format!("info: error {id} {facts} attempt=1 status=500 reason=")), "{log:?}");

    host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+9h"})).await;
    let observer = until_observed(&host.api, Some(&clock), "g", |observer| observer["shown"] == 4).await;
    assert_eq!(observer["log"].as_array().unwrap().len(), 4, "what was shown is not shown again");
    assert_eq!(host.api.get("/v1/groups/other").await.expect(200)["observer"], Value::Null);
    let metrics = host.api.get("/metrics").await;
    assert!(metrics.text().contains("carillon_observer_events_total{outcome=\"shown\"} 4\n"), "{}", metrics.text());
    assert!(metrics.text().contains("carillon_policy_call_seconds_count{role=\"observe\"}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_that_hangs_delays_no_delivery_and_what_does_not_fit_is_counted() {
    // It would hang for ever, but for a deadline that no delivery of this test comes near.
    let setup = Setup::new().set("policy.deadline", "10s").set("policy.fuel", "18446744073709551615");
    let setup = setup.set("policy.threads", "1").set("policy.observer_queue", "8").set("policy.fault_threshold", "1");
    let host = setup.start().await;
    let receiver = Receiver::start().await;
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("g", moody("spin")).await;
    host.api.put_group("quiet", json!({})).await;
    let deliver = async |group: &str| {
        let id = host.api.job_id(group, json!({"url": receiver.url("/a")})).await;
        host.api.until_state(&id, "succeeded").await;
    };
    // A quarter of the queue, two events, is this group's: when more are dropped, its call has begun, and does not end.
    let another = async || deliver("g").await;
    let look = async || host.api.get("/v1/groups/g").await.expect(200)["observer"]["dropped"].clone();
    let dropped = eventually_while("events are dropped", another, look, |dropped| *dropped != 0).await;
    for _ in 0..10 {
        deliver("g").await;
        deliver("quiet").await;
    }
    let observer = until_observed(&host.api, None, "g", |observer| observer["dropped"] != dropped).await;
    assert_eq!((&observer["shown"], &observer["failed"]), (&json!(0), &json!(0)), "the first call still hangs");
    let metrics = host.api.get("/metrics").await;
    assert!(metrics.text().contains("carillon_observer_events_total{outcome=\"dropped\"}"), "{}", metrics.text());
    let observer = until_observed(&host.api, None, "g", |observer| observer["failed"] != 0).await;
    assert_eq!(observer["last_fault"], "policy.timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_that_traps_is_quarantined_and_its_jobs_go_on() {
    let clock = ManualClock::new();
    let setup = Setup::with_clock(&clock).set("policy.fault_window", "1h").set("policy.quarantine", "1h");
    let host = setup.start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("g", moody("trap")).await;
    host.api.put_group("h", moody("talk")).await;
    for failed in 1..=3 {
        host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+9h"})).await;
        until_observed(&host.api, Some(&clock), "g", |observer| observer["failed"] == failed).await;
    }
    let group = host.api.get("/v1/groups/g").await.expect(200);
    assert_eq!(group["quarantined"][0]["role"], "observe", "{group}");
    assert!(group["observer"]["log"][0].as_str().unwrap().contains("in a bad mood"), "{group}");
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    host.api.until_state(&id, "succeeded").await;
    let observer = until_observed(&host.api, Some(&clock), "g", |observer| observer["dropped"] != 0).await;
    assert_eq!(observer["last_fault"], "policy.trap", "what it is quarantined for");

    host.api.job_id("h", json!({"url": NOWHERE, "run_at": "+9h"})).await;
    let observer = until_observed(&host.api, Some(&clock), "h", |observer| observer["shown"] == 1).await;
    assert_eq!(observer["log"], json!(["info: 1 events"]), "the same component with another config goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judges_see_metadata_by_its_flat_names() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    host.api.put_group("g", json!({"judge": {"plugin": "moody"}})).await;
    let metadata = json!({"k": "v", "billing": {"invoice": "17"}});
    let id = host.api.job_id("g", json!({"url": receiver.url("/a"), "metadata": metadata})).await;
    host.api.until_state(&id, "succeeded").await;
    let reason = host.api.attempts(&id).await[0]["verdict"]["reason"].clone();
    assert_eq!(reason, "tenant=default metadata.billing.invoice=17 metadata.k=v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_is_bound_inherited_and_checked_like_other_policies() {
    let host = TestHost::start().await;
    upload_built(&host.api, "tests/guests/moody", "moody").await;
    for (policy, pointer) in [
        (json!({"observe": {"plugin": "none"}}), "/observe/plugin"),
        (json!({"observe": {"plugin": "backoff"}}), "/observe/plugin"),
        (json!({"observe": {"plugin": "moody", "config": {"mood": "glad"}}}), "/observe/config/mood"),
        (json!({"observe": {"plugin": "moody", "keys": ["k"]}}), "/observe/keys"),
        (json!({"observe": []}), "/observe"),
    ] {
        host.api.put("/v1/groups/g", policy).await.problem_at(422, pointer);
    }
    host.api.put("/v1/tenants/default", json!({"defaults": moody("talk")})).await.ok();
    host.api.put_group("inherits", json!({})).await;
    host.api.put_group("changes", json!({"observe": {"config": {"mood": "trap"}}})).await;
    host.api.put_group("refuses", json!({"observe": null})).await;
    let effective = async |group: &str| host.api.get(&format!("/v1/groups/{group}?effective=true")).await.expect(200);
    let inherits = effective("inherits").await;
    assert_eq!(
        (&inherits["observe"]["config"]["mood"], &inherits["sources"]["/observe/plugin"]),
        (&json!("talk"), &json!("tenant"))
    );
    assert_eq!(effective("changes").await["observe"]["config"]["mood"], "trap");
    let refuses = effective("refuses").await;
    assert_eq!((&refuses["observe"], &refuses["observer"]), (&Value::Null, &Value::Null));

    let job = json!({"url": NOWHERE, "policy": {"observe": {"mood": "spin"}}});
    host.api.post("/v1/groups/inherits/jobs", job).await.problem_at(422, "/policy/observe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_of_an_observer_are_in_the_servers_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let program = Program::serve(&["--store", &store], &[("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN)]).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    upload_built(&api, "tests/guests/moody", "moody").await;
    api.put_group("g", moody("talk")).await;
    api.job_id("g", json!({"url": NOWHERE, "run_at": "+9h"})).await;
    until_observed(&api, None, "g", |observer| observer["shown"] == 1).await;
    let log = program.until_logged("info: 1 events").await;
    let line = log.lines().find(|line| line.contains("info: 1 events")).unwrap().to_owned();
    for part in [r#""tenant":"default""#, r#""group":"g""#, r#""plugin":"moody@0.1.0""#] {
        assert!(line.contains(part), "{line}");
    }
}
