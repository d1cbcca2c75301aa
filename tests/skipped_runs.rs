//! Runs of schedules that make no job, and runs that were missed and are made up for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::schedules::{at, put, put_sentinel, shown, started, tick, ticks};
use crate::support::{Answer, Gate, TestHost, eventually, ms};

/// The runs of a schedule that made no job, newest first: the first, the last, how many and why.
async fn skipped(host: &TestHost, name: &str) -> Vec<(String, String, u64, String)> {
    let history = host.api.get(&format!("/v1/schedules/{name}/history")).await.items();
    let time = |value: &Value| value.as_str().unwrap()[11..19].to_owned();
    let without_job = history.iter().filter(|run| run["job"].is_null());
    let entry = |run: &Value| {
        let reason = run["skipped"].as_str().unwrap().to_owned();
        (time(&run["first"]), time(&run["tick"]), run["count"].as_u64().unwrap(), reason)
    };
    without_job.map(entry).collect()
}

async fn until_skipped(host: &TestHost, name: &str, count: u64) {
    let what = format!("{count} runs of {name} are skipped");
    eventually(&what, async || shown(host, name).await["skipped"].clone(), |skipped| *skipped == count).await;
}

fn entry(first: &str, last: &str, count: u64, reason: &str) -> (String, String, u64, String) {
    (first.to_owned(), last.to_owned(), count, reason.to_owned())
}

/// How many runs were counted as skipped for a reason.
async fn counted(host: &TestHost, reason: &str) -> u64 {
    let metrics = host.api.get("/metrics").await;
    let name = format!("carillon_schedule_runs_skipped_total{{reason=\"{reason}\"}} ");
    metrics.text().lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_were_missed_leave_an_event_a_count_and_an_entry() {
    let (clock, setup, host, receiver) = started().await;
    put(&host, &receiver, "late", "*/10 * * * *", json!({"catch_up": "1m"})).await;
    put(&host, &receiver, "newest", "*/10 * * * *", json!({})).await;
    host.stop().await;
    clock.set(at("10:35:00"));
    let host = setup.start().await;
    until_skipped(&host, "late", 3).await;
    until_skipped(&host, "newest", 2).await;
    receiver.arrived("/newest", 1).await;
    assert_eq!((ticks(&receiver, "newest"), receiver.count("/late")), (vec!["10:30:00".to_owned()], 0));
    assert_eq!(skipped(&host, "late").await, [entry("10:10:00", "10:30:00", 3, "too_late")]);
    assert_eq!(skipped(&host, "newest").await, [entry("10:10:00", "10:20:00", 2, "superseded")]);
    assert_eq!((counted(&host, "too_late").await, counted(&host, "superseded").await), (3, 2));
    let late = shown(&host, "late").await;
    assert_eq!((&late["runs"], &late["last_run"]), (&json!(0), &json!("2026-11-20T10:30:00.000Z")));
    assert_eq!(late["last_skip"], "too_late");
    let mut stream = host.api.follow("?kind=skip&last_event_id=1").await;
    let mut events = stream.take(3).await;
    events.retain(|event| event["schedule"] == "late");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["group"], &events[0]["count"]), (&json!("g"), &json!(3)));
    assert_eq!((&events[0]["error"], &events[0]["run_at"]), (&json!("too_late"), &late["last_run"]));
    assert!(events[0]["reason"].as_str().unwrap().contains("`catch_up`"), "{events:?}");
    host.stop().await;

    let host = setup.start().await;
    host.looked(&receiver).await;
    clock.set(at("10:40:00"));
    receiver.arrived("/late", 1).await;
    assert_eq!(skipped(&host, "late").await.len(), 1, "a restart tells nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_downtime_loses_no_daily_run() {
    let (clock, setup, host, receiver) = started().await;
    let made = put(&host, &receiver, "daily", "30 10 * * *", json!({})).await;
    assert_eq!(made["catch_up"], "1day");
    host.stop().await;
    clock.set(at("23:59:00"));
    let host = setup.start().await;
    receiver.arrived("/daily", 1).await;
    assert_eq!(shown(&host, "daily").await["runs"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catch_up_all_makes_every_missed_run_whatever_the_overlap() {
    let (clock, setup, host, receiver) = started().await;
    let paths = ["skip", "queue", "cancel", "allow"];
    for path in paths {
        put(&host, &receiver, path, "*/10 * * * *", json!({"overlap": path, "catch_up_all": true})).await;
    }
    // The first run of one that skips is under way when its server goes, and is made again: those made up for wait for it.
    let gate = Gate::closed();
    receiver.on("/skip", [Answer::status(500).held(&gate), Answer::status(200)]);
    clock.set(at("10:10:00"));
    receiver.arrived("/skip", 1).await;
    gate.release(1);
    let first = receiver.arrivals("/skip")[0].header("idempotency-key").unwrap().to_owned();
    host.api.until_retry(&first, 1).await;
    host.stop().await;
    clock.set(at("11:00:05"));
    let host = setup.start().await;
    for path in paths {
        let attempts = if path == "skip" { 7 } else { 6 };
        receiver.arrived(&format!("/{path}"), attempts).await;
        let mut made = ticks(&receiver, path);
        if path == "allow" {
            made.sort_unstable();
        }
        made.dedup();
        let all = ["10:10:00", "10:20:00", "10:30:00", "10:40:00", "10:50:00", "11:00:00"];
        assert_eq!(made, all, "{path}: one after the other");
        assert_eq!((&shown(&host, path).await["runs"], &shown(&host, path).await["skipped"]), (&json!(6), &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_by_hand_and_backfills_do_not_count_towards_max_runs() {
    let (clock, _, host, receiver) = started().await;
    clock.set(at("10:00:01"));
    put(&host, &receiver, "a", "*/10 * * * *", json!({"max_runs": 2, "overlap": "allow"})).await;
    for _ in 0..3 {
        host.api.post("/v1/schedules/a/run", json!({})).await.expect(201);
    }
    let range = json!({"from": at("08:00:00").to_string(), "to": at("09:00:00").to_string()});
    let done = host.api.post("/v1/schedules/a/backfill", range).await.expect(200);
    assert_eq!(done, json!({"ticks": 7, "created": 7}));
    let before = shown(&host, "a").await;
    assert_eq!((&before["runs"], &before["runs_left"]), (&json!(10), &json!(2)));
    assert_eq!(before["last_run"], Value::Null, "a backfill is no run of the clock");
    assert_eq!(before["next_runs"].as_array().unwrap().len(), 2);
    for (time, count) in [("10:10:00", 11), ("10:20:00", 12)] {
        clock.set(at(time));
        receiver.arrived("/a", count).await;
    }
    clock.set(at("10:30:00"));
    until_skipped(&host, "a", 1).await;
    assert_eq!(skipped(&host, "a").await, [entry("10:30:00", "10:30:00", 1, "max_runs")]);
    let over = shown(&host, "a").await;
    assert_eq!((&over["runs"], &over["runs_left"], &over["next_runs"]), (&json!(12), &json!(0), &json!([])));
    host.api.post("/v1/schedules/a/run", json!({})).await.expect(201);
    receiver.arrived("/a", 13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_in_which_a_run_makes_no_job_has_one_reason() {
    let (clock, setup, host, receiver) = started().await;
    let gate = Gate::closed();
    receiver.on("/overlap", [Answer::status(200).held(&gate)]);
    put_sentinel(&host, &receiver).await;
    put(&host, &receiver, "overlap", "*/4 * * * * *", json!({})).await;
    put(&host, &receiver, "ended", "*/4 * * * * *", json!({"end": at("10:00:04").to_string()})).await;
    put(&host, &receiver, "max_runs", "*/4 * * * * *", json!({"max_runs": 1})).await;
    put(&host, &receiver, "paused", "*/4 * * * * *", json!({})).await;
    host.api.post("/v1/schedules/paused/pause", json!({})).await.expect(200);
    let mut stream = host.api.follow("?kind=skip").await;
    for second in ["04", "08", "12"] {
        tick(&clock, &host, &receiver, &format!("10:00:{second}")).await;
    }
    receiver.arrived("/ended", 1).await;
    receiver.arrived("/max_runs", 1).await;
    until_skipped(&host, "paused", 3).await;
    let single = |time: &str, reason| entry(time, time, 1, reason);
    let expected = [
        ("overlap", vec!["10:00:12", "10:00:08"]),
        ("paused", vec!["10:00:12", "10:00:08", "10:00:04"]),
        ("ended", vec!["10:00:08"]),
        ("max_runs", vec!["10:00:08"]),
    ];
    for (reason, times) in &expected {
        let entries: Vec<_> = times.iter().map(|time| single(time, reason)).collect();
        assert_eq!(skipped(&host, reason).await, entries, "{reason}");
        assert_eq!(counted(&host, reason).await, u64::try_from(times.len()).unwrap(), "{reason}");
        assert_eq!(shown(&host, reason).await["last_skip"], *reason);
    }
    // The sentinel missed every other second.
    let mut events = stream.take(10).await;
    events.retain(|event| event["schedule"] != "sentinel");
    assert_eq!(events.len(), 7, "{events:?}");
    for event in &events {
        assert_eq!(event["error"], event["schedule"], "{event}");
        assert!(event["reason"].is_string(), "{event}");
    }
    gate.release(1);
    let resumed = host.api.post("/v1/schedules/paused/resume", json!({})).await.expect(200);
    assert_eq!(resumed["runs"], 0);
    host.stop().await;
    clock.set(at("10:00:16"));
    let host = setup.start().await;
    receiver.arrived("/paused", 1).await;
    assert_eq!(skipped(&host, "ended").await.len(), 1, "what is over is told of once, also after a restart");
    assert_eq!(skipped(&host, "max_runs").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_pages_through_all_runs_with_their_jobs() {
    let (clock, _, host, receiver) = started().await;
    put_sentinel(&host, &receiver).await;
    put(&host, &receiver, "a", "*/2 * * * * *", json!({"overlap": "allow"})).await;
    for second in ["02", "04", "06"] {
        tick(&clock, &host, &receiver, &format!("10:00:{second}")).await;
    }
    let page = host.api.get("/v1/schedules/a/history?limit=2").await.expect(200);
    let cursor = page["next_cursor"].as_str().unwrap();
    let last = host.api.get(&format!("/v1/schedules/a/history?limit=2&cursor={cursor}")).await.expect(200);
    assert_eq!(last["next_cursor"], Value::Null);
    let runs = [page["items"].as_array().unwrap().clone(), last["items"].as_array().unwrap().clone()].concat();
    let times: Vec<_> = runs.iter().map(|run| ms(&run["tick"])).collect();
    assert_eq!(times, ["10:00:06", "10:00:04", "10:00:02"].map(at));
    for run in &runs {
        let job = host.api.job(run["job"].as_str().unwrap()).await;
        assert_eq!(job["metadata"]["schedule"]["tick"], run["tick"]);
    }
    host.api.get("/v1/schedules/a/history?cursor=x").await.problem(400);
    host.api.get("/v1/schedules/none/history").await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jitter_never_puts_a_run_off_past_the_next_one() {
    let (clock, _, host, receiver) = started().await;
    put_sentinel(&host, &receiver).await;
    for path in ["skip", "allow"] {
        put(&host, &receiver, path, "*/4 * * * * *", json!({"jitter": "1h", "overlap": path})).await;
    }
    for number in 1..=6 {
        let due = at(&format!("10:00:{:02}", 4 * number));
        tick(&clock, &host, &receiver, &due.to_string()[11..19]).await;
        clock.set(due.plus(Duration::from_millis(3_600)));
        for path in ["/skip", "/allow"] {
            let arrival = receiver.arrived(path, number).await.remove(number - 1);
            host.api.until_state(arrival.header("idempotency-key").unwrap(), "succeeded").await;
        }
    }
    assert_eq!(shown(&host, "skip").await["skipped"], 0);
    assert_eq!(ticks(&receiver, "allow"), ["10:00:04", "10:00:08", "10:00:12", "10:00:16", "10:00:20", "10:00:24"]);
    let jobs = host.api.get("/v1/groups/g/jobs?name=allow").await.items();
    let delays: Vec<_> =
        jobs.iter().map(|job| ms(&job["run_at"]).0 - ms(&job["metadata"]["schedule"]["tick"]).0).collect();
    assert!(delays.iter().all(|delay| (0..3_600).contains(delay)), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay > 0), "{delays:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_that_outlast_the_period_are_warned_of_and_leave_runs_out() {
    let (clock, _, host, receiver) = started().await;
    let retry = |attempts: u32| json!({"retry": {"config": {"kind": "fixed", "base": "4m", "jitter": 0, "max_attempts": attempts}}});
    host.api.put_group("long", retry(5)).await;
    host.api.put_group("short", retry(3)).await;
    for (path, more) in [
        ("queue", json!({"group": "long", "overlap": "queue"})),
        ("allow", json!({"group": "long", "overlap": "allow"})),
        ("short", json!({"group": "short"})),
        ("rare", json!({"group": "long", "cron": "@hourly"})),
        ("pulled", json!({"group": "long", "job": {"payload": 1}})),
        ("ttl", json!({"group": "long", "job": {"url": receiver.url("/ttl"), "limits": {"ttl": "9m"}}})),
    ] {
        let made = put(&host, &receiver, path, "*/10 * * * *", more).await;
        assert_eq!(made.get("warnings"), None, "{path}: {made}");
        host.api.delete(&format!("/v1/schedules/{path}")).await.expect(204);
    }
    let made = put(&host, &receiver, "long", "*/10 * * * *", json!({"group": "long"})).await;
    let warning = made["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("after 12m") && warning.contains("after 10m") && warning.contains("`overlap`"),
        "{warning}"
    );
    assert_eq!(shown(&host, "long").await.get("warnings"), None, "only the author of the change is told");
    let unequal = host.api.patch("/v1/schedules/long", json!({"cron": "0,50 * * * *"})).await.expect(200);
    assert_eq!(unequal["warnings"].as_array().map(Vec::len), Some(1), "the shortest distance counts: {unequal}");
    let patched = host.api.patch("/v1/schedules/long", json!({"cron": "*/10 * * * *"})).await.expect(200);
    assert_eq!(patched["warnings"][0], made["warnings"][0]);

    receiver.on("/long", std::array::from_fn::<_, 8, _>(|_| Answer::status(503)));
    clock.set(at("10:10:00"));
    let id = receiver.arrived("/long", 1).await[0].header("idempotency-key").unwrap().to_owned();
    host.api.until_retry(&id, 1).await;
    clock.set(at("10:20:00"));
    until_skipped(&host, "long", 1).await;
    assert_eq!(skipped(&host, "long").await, [entry("10:20:00", "10:20:00", 1, "overlap")]);
}
