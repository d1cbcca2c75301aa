//! Stopping and starting again: what runs may finish, what does not finish is recorded as interrupted, and nothing is lost.

use serde_json::json;

use crate::support::{
    ADMIN_TOKEN, Answer, Api, Gate, ManualClock, Program, Receiver, Setup, TestHost, eventually, ms, soon,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_attempt_finishes_and_is_settled() {
    let host = Setup::new().set("server.drain_timeout", "60s").start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.on("/held", [Answer::status(200).held(&gate)]);
    host.api.put_group("g", json!({"limits": {"concurrency": 1}})).await;
    let running = host.api.job_id("g", json!({"url": receiver.url("/held")})).await;
    receiver.arrived("/held", 1).await;
    let waiting = host.api.job_id("g", json!({"url": receiver.url("/later")})).await;
    let (dir, base) = (host.dir.clone(), host.base.clone());
    let stopping = tokio::spawn(host.stop());
    let is_open = async || tokio::net::TcpStream::connect(base.trim_start_matches("http://")).await.is_ok();
    eventually("the port closes", is_open, |is_open| !is_open).await;
    assert!(!stopping.is_finished(), "it waits for the attempt");
    gate.release(1);
    soon("it stops", stopping).await.unwrap();
    assert_eq!(receiver.count("/later"), 0, "nothing new was started");

    let host = Setup::new().in_dir(&dir).start().await;
    assert_eq!(host.api.job(&running).await["state"], "succeeded");
    assert_eq!(host.api.attempts(&running).await.len(), 1);
    host.api.until_state(&waiting, "succeeded").await;
    assert_eq!(receiver.count("/held"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_attempt_is_recorded_and_has_a_number_of_its_own() {
    let host = Setup::new().set("server.drain_timeout", "50ms").start().await;
    let receiver = Receiver::start().await;
    receiver.on("/held", [Answer::status(200).held(&Gate::closed()), Answer::status(200)]);
    host.api.put_group("g", json!({})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/held")})).await;
    receiver.arrived("/held", 1).await;
    let dir = host.dir.clone();
    soon("it stops", host.stop()).await;

    let host = Setup::new().in_dir(&dir).start().await;
    let done = host.api.until_state(&id, "succeeded").await;
    assert_eq!(done["attempt_count"], 2);
    let arrivals = receiver.arrivals("/held");
    assert_eq!(arrivals.len(), 2);
    for (arrival, number) in arrivals.iter().zip(["1", "2"]) {
        assert_eq!(arrival.header("carillon-attempt"), Some(number));
        assert_eq!(arrival.header("idempotency-key"), Some(id.as_str()));
    }
    assert_interrupted_first(&host.api, &id).await;
}

/// The first of two attempts was interrupted, and the record says so.
async fn assert_interrupted_first(api: &Api, id: &str) {
    let attempts = api.attempts(id).await;
    let summary = |attempt: &serde_json::Value| {
        (attempt["number"].clone(), attempt["error"]["code"].clone(), attempt["spent"].clone())
    };
    let expected = [(json!(1), json!("attempt.interrupted"), json!(true)), (json!(2), json!(null), json!(true))];
    assert_eq!(attempts.iter().map(summary).collect::<Vec<_>>(), expected);
    assert!(attempts[0]["request_digest"].is_string(), "it says what was sent: {}", attempts[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempt_interrupted_before_it_was_sent_leaves_no_record() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).set("server.drain_timeout", "50ms").start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({})).await;
    let made = host.api.post_job("g", json!({"url": receiver.url("/a"), "run_at": "+60s"})).await;
    let id = made["id"].as_str().unwrap().to_owned();
    // It is made ready, and waits for its time.
    clock.set(carillon_core::clock::UnixMs(ms(&made["run_at"]).0 - 1));
    host.api.until_state(&id, "running").await;
    let dir = host.dir.clone();
    soon("it stops", host.stop()).await;

    let host = Setup::with_clock(&clock).in_dir(&dir).start().await;
    let job = host.api.job(&id).await;
    // It may be made ready again already.
    assert_eq!(job["attempt_count"], 0);
    assert!(host.api.attempts(&id).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_it_was() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on("/flaky", [Answer::status(500), Answer::status(200)]);
    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    host.api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
    host.api.put_group("paused", json!({})).await;
    host.api.post("/v1/groups/paused/pause", json!({})).await.expect(200);
    let token = host.api.token(json!({"role": "viewer"})).await;
    let job = json!({"url": receiver.url("/flaky"), "payload": {"a": 1}});
    let id = host.api.job_id("g", job).await;
    let waiting = host.api.until_retry(&id, 1).await;
    let dir = host.dir.clone();
    host.stop().await;

    clock.set(ms(&waiting["run_at"]));
    let host = Setup::with_clock(&clock).in_dir(&dir).start().await;
    let done = host.api.until_state(&id, "succeeded").await;
    assert_eq!(done["attempt_count"], 2);
    assert_eq!(host.api.get("/v1/groups/paused").await.expect(200)["paused"], true);
    host.api.with_token(&token).get("/v1/groups").await.expect(200);
    let arrivals = receiver.arrivals("/flaky");
    assert_eq!(arrivals[0].body, arrivals[1].body, "signed with the same key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_database_is_refused() {
    let host = TestHost::start().await;
    let error = Setup::new().in_dir(&host.dir).try_start().await.err().expect("it does not start");
    assert!(format!("{error:#}").contains("another process uses"), "{error:#}");
    host.api.put("/v1/groups/g", json!({})).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_drains_at_the_first_signal() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let environment = [("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN), ("CARILLON_EGRESS__ALLOW", "127.0.0.0/8")];
    let mut program = Program::serve(&["--store", &store], &environment).await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.on("/held", [Answer::status(200).held(&gate)]);
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    api.put_group("g", json!({})).await;
    let id = api.job_id("g", json!({"url": receiver.url("/held")})).await;
    receiver.arrived("/held", 1).await;
    program.terminate().await;
    program.until_logged("stopping").await;
    gate.release(1);
    assert_eq!(program.ended().await, Some(0), "{}", program.log());

    let program = Program::serve(&["--store", &store], &environment).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    assert_eq!(api.job(&id).await["state"], "succeeded");
    assert_eq!(receiver.count("/held"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_interrupts_at_the_second_signal() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let environment = [("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN), ("CARILLON_EGRESS__ALLOW", "127.0.0.0/8")];
    let mut program = Program::serve(&["--store", &store], &environment).await;
    let receiver = Receiver::start().await;
    receiver.on("/held", [Answer::status(200).held(&Gate::closed()), Answer::status(200)]);
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    api.put_group("g", json!({})).await;
    let id = api.job_id("g", json!({"url": receiver.url("/held")})).await;
    receiver.arrived("/held", 1).await;
    program.terminate().await;
    program.until_logged("stopping").await;
    program.terminate().await;
    assert_eq!(program.ended().await, Some(0), "{}", program.log());

    let program = Program::serve(&["--store", &store], &environment).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    api.until_state(&id, "succeeded").await;
    assert_interrupted_first(&api, &id).await;
}
