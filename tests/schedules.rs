//! Schedules: jobs again and again, each run once.

use carillon_core::clock::UnixMs;
use serde_json::{Value, json};

use crate::support::schedules::{at, put, put_sentinel, shown, started, tick, ticks};
use crate::support::{Answer, Gate, ms};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_runs_at_its_times_and_says_which() {
    let (clock, _, host, receiver) = started().await;
    let payload = r#"{ "b":  1.0, "a": [ ] }"#;
    let text = format!(
        r#"{{"group": "g", "cron": "*/20 10 * * *", "job": {{"url": "{}", "payload": {payload}, "method": "put"}}}}"#,
        receiver.url("/a")
    );
    let made = host.api.raw(reqwest::Method::PUT, "/v1/schedules/a", text).await.expect(201);
    let next: Vec<_> = made["next_runs"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
    assert_eq!((next.len(), next[0], next[2]), (10, "2026-11-20T10:20:00.000Z", "2026-11-21T10:00:00.000Z"));
    assert_eq!(
        (&made["time_zone"], &made["overlap"], &made["catch_up"]),
        (&json!("UTC"), &json!("skip"), &json!("1day"))
    );
    assert_eq!((&made["runs"], &made["last_run"], &made["paused"]), (&json!(0), &Value::Null, &json!(false)));

    clock.set(UnixMs(at("10:20:00").0 - 1));
    host.looked(&receiver).await;
    assert_eq!(receiver.count("/a"), 0, "a millisecond before");
    for (number, time) in ["10:20:00", "10:40:00"].into_iter().enumerate() {
        clock.set(at(time));
        let arrival = receiver.arrived("/a", number + 1).await.remove(number);
        assert_eq!((arrival.at, arrival.text(), arrival.method.as_str()), (at(time), payload, "PUT"));
        assert_eq!(arrival.header("carillon-schedule"), Some("a"));
        assert_eq!(arrival.header("carillon-tick"), Some(at(time).to_string().as_str()));
        host.api.until_state(arrival.header("idempotency-key").unwrap(), "succeeded").await;
    }
    let schedule = shown(&host, "a").await;
    assert_eq!((&schedule["runs"], &schedule["last_run"]), (&json!(2), &json!("2026-11-20T10:40:00.000Z")));
    let jobs = host.api.get("/v1/groups/g/jobs?name=a").await.items();
    assert_eq!(jobs.len(), 2, "they have the schedule's name");
    assert_eq!(jobs[0]["metadata"], json!({"schedule": {"name": "a", "tick": "2026-11-20T10:40:00.000Z"}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_times_follow_the_zone() {
    let (_, _, host, receiver) = started().await;
    let berlin = json!({"time_zone": "Europe/Berlin"});
    let schedule = put(&host, &receiver, "a", "30 2 27-29 3 *", berlin).await;
    let next: Vec<_> = schedule["next_runs"].as_array().unwrap()[..3].iter().map(|at| at.as_str().unwrap()).collect();
    assert_eq!(next, ["2027-03-27T01:30:00.000Z", "2027-03-28T01:00:00.000Z", "2027-03-29T00:30:00.000Z"]);
    let every = put(&host, &receiver, "b", "@every 90s", json!({"start": "+1h"})).await;
    assert_eq!(every["next_runs"][0], every["start"]);
    assert_eq!(every["next_runs"][1], "2026-11-20T11:01:30.000Z");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_doubles_nothing_and_catches_up_the_newest() {
    let (clock, setup, host, receiver) = started().await;
    put(&host, &receiver, "hour", "*/10 * * * *", json!({"catch_up": "1h"})).await;
    put(&host, &receiver, "all", "*/10 * * * *", json!({"catch_up": "30m", "catch_up_all": true, "overlap": "allow"}))
        .await;
    put(&host, &receiver, "minute", "*/10 * * * *", json!({"catch_up": "1m"})).await;
    put(&host, &receiver, "none", "*/10 * * * *", json!({"catch_up": "0"})).await;
    let all = ["hour", "all", "minute", "none"];
    clock.set(at("10:10:00"));
    for path in all {
        receiver.arrived(&format!("/{path}"), 1).await;
    }
    host.stop().await;
    let host = setup.start().await;
    host.looked(&receiver).await;
    host.stop().await;

    clock.set(at("11:00:30"));
    let host = setup.start().await;
    receiver.arrived("/hour", 2).await;
    receiver.arrived("/minute", 2).await;
    receiver.arrived("/all", 4).await;
    host.api.until_ended("g").await;
    clock.set(at("11:10:00"));
    for (path, count) in [("hour", 3), ("all", 5), ("minute", 3), ("none", 2)] {
        receiver.arrived(&format!("/{path}"), count).await;
    }
    host.looked(&receiver).await;
    assert_eq!(ticks(&receiver, "hour"), ["10:10:00", "11:00:00", "11:10:00"]);
    assert_eq!(ticks(&receiver, "minute"), ["10:10:00", "11:00:00", "11:10:00"], "30 s are within a minute");
    assert_eq!(ticks(&receiver, "none"), ["10:10:00", "11:10:00"]);
    let mut caught_up = ticks(&receiver, "all");
    caught_up.sort_unstable();
    assert_eq!(caught_up, ["10:10:00", "10:40:00", "10:50:00", "11:00:00", "11:10:00"]);
    assert_eq!(shown(&host, "hour").await["runs"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_run_follows_the_schedules_policy() {
    let (clock, _, host, receiver) = started().await;
    let gate = Gate::closed();
    for path in ["skip", "queue", "cancel", "allow"] {
        receiver.on(&format!("/{path}"), [Answer::status(500).held(&gate), Answer::status(200)]);
        put(&host, &receiver, path, "*/4 * * * * *", json!({"overlap": path})).await;
    }
    put_sentinel(&host, &receiver).await;
    tick(&clock, &host, &receiver, "10:00:04").await;
    for path in ["/skip", "/queue", "/cancel", "/allow"] {
        receiver.arrived(path, 1).await;
    }
    tick(&clock, &host, &receiver, "10:00:08").await;
    receiver.arrived("/allow", 2).await;
    let first = receiver.arrived("/cancel", 2).await[0].header("idempotency-key").unwrap().to_owned();
    assert_eq!(host.api.job(&first).await["state"], "cancelled", "it had ended when the next began");
    host.looked(&receiver).await;
    assert_eq!((receiver.count("/skip"), receiver.count("/queue")), (1, 1), "the first still runs");
    assert_eq!(shown(&host, "skip").await["runs"], 1);
    assert_eq!(shown(&host, "queue").await["runs"], 2);

    gate.release(3);
    for path in ["/skip", "/queue", "/allow"] {
        let first = receiver.arrivals(path)[0].header("idempotency-key").unwrap().to_owned();
        host.api.until_retry(&first, 1).await;
    }
    tick(&clock, &host, &receiver, "10:00:10").await;
    for (path, retried) in [("/skip", 2), ("/queue", 3), ("/allow", 3)] {
        receiver.arrived(path, retried).await;
    }
    for path in ["/skip", "/queue", "/allow"] {
        for arrival in receiver.arrivals(path) {
            host.api.until_state(arrival.header("idempotency-key").unwrap(), "succeeded").await;
        }
    }
    assert_eq!(ticks(&receiver, "skip"), ["10:00:04", "10:00:04"]);
    assert_eq!(ticks(&receiver, "queue"), ["10:00:04", "10:00:04", "10:00:08"], "after the first's second attempt");
    tick(&clock, &host, &receiver, "10:00:12").await;
    receiver.arrived("/skip", 3).await;
    assert_eq!(ticks(&receiver, "skip")[2], "10:00:12");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_schedule_makes_nothing_and_catches_nothing_up() {
    let (clock, _, host, receiver) = started().await;
    put_sentinel(&host, &receiver).await;
    put(&host, &receiver, "a", "*/10 * * * *", json!({"catch_up": "1d", "catch_up_all": true})).await;
    let paused = host.api.post("/v1/schedules/a/pause", json!({})).await.expect(200);
    assert_eq!((&paused["paused"], &paused["next_runs"]), (&json!(true), &json!([])));
    let changed = put(&host, &receiver, "a", "*/10 * * * *", json!({"catch_up": "2d", "catch_up_all": true})).await;
    assert_eq!(changed["paused"], true, "a paused schedule stays paused when it is changed");
    tick(&clock, &host, &receiver, "10:10:00").await;
    tick(&clock, &host, &receiver, "10:25:00").await;
    let resumed = host.api.post("/v1/schedules/a/resume", json!({})).await.expect(200);
    assert_eq!(resumed["next_runs"][0], "2026-11-20T10:30:00.000Z");
    tick(&clock, &host, &receiver, "10:30:00").await;
    receiver.arrived("/a", 1).await;
    assert_eq!(ticks(&receiver, "a"), ["10:30:00"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_expression_leaves_no_past_and_another_change_does() {
    let (clock, setup, host, receiver) = started().await;
    let day = json!({"catch_up": "1d", "overlap": "allow"});
    put(&host, &receiver, "a", "0 12 * * *", day.clone()).await;
    put(&host, &receiver, "b", "0 10 * * *", day.clone()).await;
    clock.set(at("10:30:00"));
    put(&host, &receiver, "b", "15 10 * * *", day.clone()).await;
    put(&host, &receiver, "a", "0 12 * * *", json!({"catch_up": "1d", "jitter": "0"})).await;
    host.stop().await;
    clock.set(at("12:30:00"));
    let host = setup.start().await;
    receiver.arrived("/a", 1).await;
    host.looked(&receiver).await;
    assert_eq!((ticks(&receiver, "a"), receiver.count("/b")), (vec!["12:00:00".to_owned()], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_runs_between_start_and_end_and_at_most_max_runs_times() {
    let (clock, _, host, receiver) = started().await;
    put_sentinel(&host, &receiver).await;
    let some = put(
        &host,
        &receiver,
        "some",
        "*/10 * * * * *",
        json!({"start": "+20s", "end": at("10:00:40").to_string(), "overlap": "allow"}),
    )
    .await;
    assert_eq!(some["next_runs"].as_array().unwrap().len(), 3);
    let two = put(&host, &receiver, "two", "*/10 * * * * *", json!({"max_runs": 2, "overlap": "allow"})).await;
    assert_eq!(two["next_runs"].as_array().unwrap().len(), 2);
    for second in [10, 20, 30, 40, 50] {
        tick(&clock, &host, &receiver, &format!("10:00:{second}")).await;
    }
    receiver.arrived("/some", 3).await;
    receiver.arrived("/two", 2).await;
    host.looked(&receiver).await;
    assert_eq!(ticks(&receiver, "some"), ["10:00:20", "10:00:30", "10:00:40"]);
    assert_eq!(ticks(&receiver, "two"), ["10:00:10", "10:00:20"]);
    assert_eq!(shown(&host, "two").await["next_runs"], json!([]));
    let more = put(&host, &receiver, "two", "*/10 * * * * *", json!({"max_runs": 3, "overlap": "allow"})).await;
    assert_eq!((&more["runs"], &more["next_runs"]), (&json!(2), &json!(["2026-11-20T10:01:00.000Z"])));
    tick(&clock, &host, &receiver, "10:01:00").await;
    receiver.arrived("/two", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jitter_delays_and_never_hurries() {
    let (clock, _, host, receiver) = started().await;
    put(&host, &receiver, "a", "*/10 * * * * *", json!({"jitter": "9s", "overlap": "allow"})).await;
    put_sentinel(&host, &receiver).await;
    for second in [10, 20, 30, 40, 50] {
        tick(&clock, &host, &receiver, &format!("10:00:{second}")).await;
    }
    clock.set(at("10:00:59"));
    receiver.arrived("/a", 5).await;
    let jobs = host.api.get("/v1/groups/g/jobs?name=a").await.items();
    let delays: Vec<_> =
        jobs.iter().map(|job| ms(&job["run_at"]).0 - ms(&job["metadata"]["schedule"]["tick"]).0).collect();
    assert!(delays.iter().all(|delay| (0..9_000).contains(delay)), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay > 0) && delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");
}
