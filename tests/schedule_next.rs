//! When schedules run next: shown without storing them, in local time, paused from the beginning, or never.

use serde_json::{Value, json};

use crate::support::schedules::{at, put, put_sentinel, started, tick, ticks};
use crate::support::{TestHost, cli};

const NOWHERE: &str = "http://127.0.0.1:1/";

fn times(view: &Value, key: &str) -> Vec<String> {
    let runs = view["runs"].as_array().unwrap().iter();
    runs.map(|run| run[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expression_is_shown_without_storing_it() {
    let (_, _, host, _) = started().await;
    let runs = async |query: &str| host.api.get(&format!("/v1/cron/runs?{query}")).await;
    let last_days = runs("cron=0+0+L+*+*&time_zone=Europe/Berlin&count=5&from=2027-02-01T00:00:00Z");
    let last_days = last_days.await.expect(200);
    assert_eq!(last_days["time_zone"], "Europe/Berlin");
    let local = ["2027-02-28T00:00:00+01:00", "2027-03-31T00:00:00+02:00", "2027-04-30T00:00:00+02:00"];
    assert_eq!(times(&last_days, "local")[..3], local);
    assert_eq!(times(&last_days, "at")[..2], ["2027-02-27T23:00:00.000Z", "2027-03-30T22:00:00.000Z"]);
    assert_eq!(times(&last_days, "at").len(), 5);
    let hourly = runs("cron=@hourly&time_zone=Europe/Berlin&count=4&from=2027-10-31T00:00:00Z").await.expect(200);
    let local = [
        "2027-10-31T02:00:00+02:00",
        "2027-10-31T02:00:00+01:00",
        "2027-10-31T03:00:00+01:00",
        "2027-10-31T04:00:00+01:00",
    ];
    assert_eq!(times(&hourly, "local"), local, "the repeated hour, too");
    let every = runs("cron=@every+90s&from=1795168800").await.expect(200);
    assert_eq!(times(&every, "at")[..2], ["2026-11-20T10:00:00.000Z", "2026-11-20T10:01:30.000Z"]);
    assert_eq!(times(&every, "at").len(), 10);
    for (query, parameter) in [
        ("cron=0+25+*+*+*", "cron"),
        ("cron=@daily&time_zone=localtime", "time_zone"),
        ("cron=@daily&from=tomorrow", "from"),
        ("cron=@daily&count=0", "count"),
        ("cron=@daily&count=1001", "count"),
    ] {
        let problem = runs(query).await.problem(400);
        assert_eq!(problem["parameter"], parameter, "{problem}");
    }
    runs("time_zone=UTC").await.problem(400);
    assert!(host.api.get("/v1/schedules").await.items().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_schedule_shows_more_runs_from_any_time_and_local_ones() {
    let (_, _, host, receiver) = started().await;
    let made = put(&host, &receiver, "a", "30 2 * * *", json!({"time_zone": "Europe/Berlin", "max_runs": 200})).await;
    assert_eq!(made["next_runs_local"].as_array().unwrap().len(), 10);
    assert_eq!(
        (&made["next_runs"][0], &made["next_runs_local"][0]),
        (&json!("2026-11-21T01:30:00.000Z"), &json!("2026-11-21T02:30:00+01:00"))
    );
    let runs = async |query: &str| host.api.get(&format!("/v1/schedules/a/runs?{query}")).await.expect(200);
    let gap = runs("count=25&from=2027-03-27T00:00:00Z").await;
    assert_eq!(
        times(&gap, "local")[..3],
        ["2027-03-27T02:30:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]
    );
    assert_eq!(times(&gap, "at").len(), 25);
    assert_eq!(times(&runs("count=1000").await, "at").len(), 200, "no more than there are");
    host.api.post("/v1/schedules/a/pause", json!({})).await.expect(200);
    assert_eq!(runs("").await["runs"], json!([]));
    host.api.get("/v1/schedules/none/runs").await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_is_put_paused_and_put_back_into_motion() {
    let (clock, _, host, receiver) = started().await;
    put_sentinel(&host, &receiver).await;
    let made = put(&host, &receiver, "a", "*/10 * * * *", json!({"paused": true})).await;
    assert_eq!((&made["paused"], &made["next_runs"]), (&json!(true), &json!([])));
    tick(&clock, &host, &receiver, "10:10:00").await;
    let kept = put(&host, &receiver, "a", "*/10 * * * *", json!({})).await;
    assert_eq!(kept["paused"], true, "what is not said stays");
    tick(&clock, &host, &receiver, "10:20:00").await;
    let resumed = put(&host, &receiver, "a", "*/10 * * * *", json!({"paused": false})).await;
    assert_eq!((&resumed["paused"], &resumed["next_runs"][0]), (&json!(false), &json!("2026-11-20T10:30:00.000Z")));
    tick(&clock, &host, &receiver, "10:30:00").await;
    receiver.arrived("/a", 1).await;
    assert_eq!(ticks(&receiver, "a"), ["10:30:00"], "what ran while it was paused is not made up for");
    let paused = put(&host, &receiver, "a", "*/10 * * * *", json!({"paused": true})).await;
    assert_eq!(paused["paused"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_can_never_run_is_refused_unless_it_is_put_again() {
    let (clock, _, host, receiver) = started().await;
    let doc = |cron: &str, more: Value| {
        let mut doc = json!({"group": "g", "cron": cron, "job": {"url": NOWHERE}});
        doc.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        doc
    };
    for (cron, more, pointer) in [
        ("0 0 * * *", json!({"end": "2026-01-01T00:00:00Z"}), "/end"),
        ("0 0 * * *", json!({"end": "+1h"}), "/end"),
        ("0 0 1 1 *", json!({"start": "2027-01-02T00:00:00Z", "end": "2027-12-31T00:00:00Z"}), "/end"),
        ("0 0 29 2 *", json!({"start": "2100-01-01T00:00:00Z"}), "/start"),
    ] {
        let problem = host.api.put("/v1/schedules/never", doc(cron, more)).await.problem_at(422, pointer);
        assert!(problem["detail"].as_str().unwrap().contains("would never run"), "{problem}");
    }
    let once = doc("30 10 * * *", json!({"end": at("10:30:00").to_string()}));
    host.api.put("/v1/schedules/once", once.clone()).await.expect(201);
    clock.set(at("10:40:00"));
    host.looked(&receiver).await;
    let again = host.api.put("/v1/schedules/once", once).await.expect(200);
    assert_eq!(again["next_runs"], json!([]), "an application puts its schedules at each start");
    let changed = doc("31 10 * * *", json!({"end": at("10:35:00").to_string()}));
    host.api.put("/v1/schedules/once", changed).await.problem_at(422, "/end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_point_at_what_is_meant() {
    let (_, _, host, _) = started().await;
    for (field, value, pointer, hint) in [
        ("cron", json!("CRON_TZ=Europe/Berlin 0 9 * * *"), "/cron", "set `time_zone` to `Europe/Berlin`"),
        ("time_zone", json!("localtime"), "/time_zone", "not an IANA time zone"),
        ("time_zone", json!("posixrules"), "/time_zone", "not an IANA time zone"),
        ("time_zone", json!("Factory"), "/time_zone", "not an IANA time zone"),
        ("max_runs", json!(0), "/max_runs", "`max_runs` must be at least 1"),
        ("max_runs", json!(-1), "/max_runs", "`max_runs` must be at least 1"),
        ("max_runs", json!(1.5), "/max_runs", "`max_runs` must be a whole number"),
        ("max_runs", json!("3"), "/max_runs", "`max_runs` must be a whole number"),
    ] {
        let mut doc = json!({"group": "g", "cron": "@daily", "job": {"url": NOWHERE}});
        doc[field] = value;
        let problem = host.api.put("/v1/schedules/a", doc.clone()).await.problem_at(422, pointer);
        assert!(problem["detail"].as_str().unwrap().contains(hint), "{doc}: {problem}");
    }
    let reserved = json!({"url": NOWHERE, "order_key": "schedule:a"});
    let problem = host.api.post("/v1/groups/g/jobs", reserved.clone()).await.problem_at(422, "/order_key");
    assert!(problem["detail"].as_str().unwrap().contains("`schedule:`"), "{problem}");
    let schedule = json!({"group": "g", "cron": "@daily", "job": reserved});
    host.api.put("/v1/schedules/a", schedule).await.problem_at(422, "/job/order_key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_runs_in_both_times_and_says_why_there_are_none() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let doc = json!({"group": "g", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "job": {"url": NOWHERE}});
    host.api.put("/v1/schedules/s", doc).await.expect(201);
    let from = ["--from", "2027-03-28T00:00:00Z", "-n", "2"];
    let expected = "2027-03-28T01:00:00.000Z  2027-03-28T03:00:00+02:00  Europe/Berlin\n\
        2027-03-29T00:30:00.000Z  2027-03-29T02:30:00+02:00  Europe/Berlin\n";
    let stored = cli(&host, &[&["schedule", "next", "s"], &from[..]].concat(), "").await;
    assert_eq!(stored.ok(), expected);
    let preview = ["schedule", "next", "--cron", "30 2 * * *", "--time-zone", "Europe/Berlin"];
    assert_eq!(cli(&host, &[&preview[..], &from[..]].concat(), "").await.ok(), expected);
    cli(&host, &["schedule", "pause", "s"], "").await.ok();
    assert_eq!(cli(&host, &["schedule", "next", "s"], "").await.ok(), "paused\n");
    cli(&host, &["schedule", "history", "s"], "").await.ok();
    assert_ne!(cli(&host, &["schedule", "next"], "").await.code, Some(0));
    let milliseconds = cli(&host, &["schedule", "backfill", "s", "--from", "1795168800000", "--to", "+0s"], "").await;
    assert!(milliseconds.stderr.contains("looks like milliseconds"), "{milliseconds:?}");
}
