//! What can be asked of a schedule besides its times: backfills, runs by hand, what it refers to, and what is refused.

use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::schedules::{at, put, put_sentinel, shown, started, tick, ticks};
use crate::support::{Answer, Gate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_makes_what_was_not_made() {
    let (clock, _, host, receiver) = started().await;
    clock.set(at("10:00:01"));
    put(&host, &receiver, "a", "*/10 * * * *", json!({})).await;
    clock.set(at("10:10:00"));
    receiver.arrived("/a", 1).await;
    let range = |from: &str, to: &str| json!({"from": at(from).to_string(), "to": at(to).to_string()});
    let backfill = async |range| host.api.post("/v1/schedules/a/backfill", range).await;
    let done = backfill(range("09:30:00", "10:10:00")).await.expect(200);
    assert_eq!(done, json!({"ticks": 5, "created": 4}));
    receiver.arrived("/a", 5).await;
    assert_eq!(ticks(&receiver, "a"), ["10:10:00", "09:30:00", "09:40:00", "09:50:00", "10:00:00"], "in order");
    assert_eq!(backfill(range("09:30:00", "10:10:00")).await.expect(200), json!({"ticks": 5, "created": 0}));
    assert_eq!(backfill(range("09:31:00", "09:32:00")).await.expect(200), json!({"ticks": 0, "created": 0}));

    backfill(range("10:00:00", "10:20:00")).await.problem_at(422, "/to");
    backfill(range("10:00:00", "09:00:00")).await.problem_at(422, "/to");
    backfill(json!({"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"})).await.problem_at(422, "/from");
    backfill(json!({"from": "soon", "to": 5})).await.problem_at(422, "/from");
    backfill(json!({"to": 5})).await.problem(400);
    put(&host, &receiver, "b", "* * * * * *", json!({})).await;
    let long = json!({"from": "2026-11-20T01:00:00Z", "to": "2026-11-20T04:00:00Z"});
    host.api.post("/v1/schedules/b/backfill", long).await.problem_at(422, "/to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_runs_can_be_backfilled() {
    let (clock, _, host, receiver) = started().await;
    let gate = Gate::closed();
    receiver.on("/a", [Answer::status(200).held(&gate), Answer::status(200)]);
    put_sentinel(&host, &receiver).await;
    put(&host, &receiver, "a", "*/4 * * * * *", json!({})).await;
    tick(&clock, &host, &receiver, "10:00:04").await;
    receiver.arrived("/a", 1).await;
    tick(&clock, &host, &receiver, "10:00:08").await;
    gate.release(1);
    let id = receiver.arrivals("/a")[0].header("idempotency-key").unwrap().to_owned();
    host.api.until_state(&id, "succeeded").await;
    let range = json!({"from": at("10:00:04").to_string(), "to": at("10:00:08").to_string()});
    let done = host.api.post("/v1/schedules/a/backfill", range).await.expect(200);
    assert_eq!(done, json!({"ticks": 2, "created": 1}));
    receiver.arrived("/a", 2).await;
    assert_eq!(ticks(&receiver, "a"), ["10:00:04", "10:00:08"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_by_hand_takes_no_runs_place() {
    let (clock, _, host, receiver) = started().await;
    put(&host, &receiver, "a", "*/10 * * * *", json!({})).await;
    host.api.post("/v1/schedules/a/pause", json!({})).await.expect(200);
    for number in 1..=3 {
        let job = host.api.post("/v1/schedules/a/run", json!({})).await.expect(201);
        host.api.until_state(job["id"].as_str().unwrap(), "succeeded").await;
        assert_eq!(receiver.count("/a"), number, "also in the same millisecond");
    }
    let resumed = host.api.post("/v1/schedules/a/resume", json!({})).await.expect(200);
    assert_eq!((&resumed["runs"], &resumed["last_run"]), (&json!(3), &Value::Null));
    clock.set(at("10:10:00"));
    receiver.arrived("/a", 4).await;
    assert_eq!(ticks(&receiver, "a")[3], "10:10:00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_by_hand_follows_the_overlap_of_its_schedule() {
    let (_, _, host, receiver) = started().await;
    for overlap in ["cancel", "queue", "skip", "allow"] {
        let (gate, path) = (Gate::closed(), format!("/{overlap}"));
        receiver.on(&path, [Answer::status(200).held(&gate), Answer::status(200)]);
        put(&host, &receiver, overlap, "0 0 1 1 *", json!({"overlap": overlap})).await;
        let run = async || {
            let job = host.api.post(&format!("/v1/schedules/{overlap}/run"), json!({})).await.expect(201);
            job["id"].as_str().unwrap().to_owned()
        };
        let first = run().await;
        receiver.arrived(&path, 1).await;
        let second = run().await;
        match overlap {
            "cancel" => {
                host.api.until_state(&first, "cancelled").await;
                assert_eq!(host.api.attempts(&first).await[0]["error"]["code"], "attempt.cancelled");
            }
            "queue" => {
                host.looked(&receiver).await;
                assert_eq!(receiver.count(&path), 1, "it waits for the first");
            }
            _ => drop(receiver.arrived(&path, 2).await),
        }
        gate.release(1);
        host.api.until_state(&second, "succeeded").await;
        let expected = if overlap == "cancel" { "cancelled" } else { "succeeded" };
        host.api.until_state(&first, expected).await;
        assert_eq!(shown(&host, overlap).await["runs"], 2, "{overlap}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_kept_while_a_schedule_uses_it_and_jobs_outlive_their_schedule() {
    let (clock, _, host, receiver) = started().await;
    put(&host, &receiver, "a", "*/10 * * * *", json!({"jitter": "5m"})).await;
    let problem = host.api.delete("/v1/groups/g").await.problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("schedule `a`"), "{problem}");
    let job = host.api.post("/v1/schedules/a/run", json!({})).await.expect(201);
    assert_eq!(host.api.delete("/v1/schedules/a").await.status, 204);
    host.api.until_state(job["id"].as_str().unwrap(), "succeeded").await;
    for reply in [
        host.api.get("/v1/schedules/a").await,
        host.api.delete("/v1/schedules/a").await,
        host.api.post("/v1/schedules/a/pause", json!({})).await,
        host.api.post("/v1/schedules/a/run", json!({})).await,
        host.api.post("/v1/schedules/a/backfill", json!({"from": 1, "to": 2})).await,
    ] {
        reply.problem(404);
    }
    put(&host, &receiver, "a", "*/10 * * * *", json!({})).await;
    assert_eq!(shown(&host, "a").await["runs"], 0, "a new schedule of that name starts anew");
    clock.set(at("10:10:00"));
    receiver.arrived("/a", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_makes_no_sense_is_refused_by_field() {
    let (_, _, host, _) = started().await;
    let url = "http://127.0.0.1:1/";
    for (field, value, pointer) in [
        ("cron", json!("60 * * * *"), "/cron"),
        ("cron", json!("0 0 30 2 *"), "/cron"),
        ("cron", json!(""), "/cron"),
        ("cron", json!("* ".repeat(1_000)), "/cron"),
        ("cron", json!("@every 1ms"), "/cron"),
        ("time_zone", json!("Europe/Berln"), "/time_zone"),
        ("time_zone", json!("../../etc/passwd"), "/time_zone"),
        ("group", json!("none"), "/group"),
        ("start", json!("tomorrow"), "/start"),
        ("end", json!("2020-01-01T00:00:00Z"), "/end"),
        ("max_runs", json!(0), "/max_runs"),
        ("jitter", json!("5"), "/jitter"),
        ("jitter", json!("2d"), "/jitter"),
        ("catch_up", json!("99999y"), "/catch_up"),
        ("job", json!({"url": "ftp://a/"}), "/job/url"),
        ("job", json!({"url": url, "run_at": "+1s"}), "/job/run_at"),
        ("job", json!({"url": url, "dedupe_key": "k"}), "/job"),
        ("job", json!({"url": url, "order_key": "k"}), "/job/order_key"),
        ("job", json!({"url": url, "policy": {"retry": {"max_attempts": "many"}}}), "/job/policy/retry/max_attempts"),
    ] {
        let mut doc =
            json!({"group": "g", "cron": "* * * * *", "start": "+1h", "overlap": "queue", "job": {"url": url}});
        doc[field] = value;
        let problem = host.api.put("/v1/schedules/a", doc.clone()).await.problem_at(422, pointer);
        assert_eq!(problem["type"], "urn:carillon:problem:invalid", "{doc}");
    }
    for (doc, pointer) in [
        (json!({"cron": "* * * * *", "job": {"url": url}, "group": 5}), Some("/group")),
        (json!({"group": "g", "cron": "* * * * *", "job": {"url": 5}}), Some("/job/url")),
        (json!({"group": "g", "cron": "* * * * *", "job": {"url": url}, "overlap": "never"}), Some("/overlap")),
        (json!({"group": "g", "cron": "* * * * *", "job": {"url": url}, "surprise": 1}), Some("/surprise")),
        (json!({"group": "g", "cron": "* * * * *"}), None),
        (json!([]), None),
    ] {
        let reply = host.api.put("/v1/schedules/a", doc).await;
        match pointer {
            Some(pointer) => reply.problem_at(400, pointer),
            None => reply.problem(400),
        };
    }
    let good = json!({"group": "g", "cron": "* * * * *", "job": {"url": url}});
    host.api.put("/v1/schedules/bad%20name", good).await.problem(422);
    assert!(host.api.get("/v1/schedules").await.items().is_empty(), "nothing was written");
    let field = host.api.put("/v1/schedules/a", json!({"group": "g", "cron": "0 25 * * *", "job": {"url": url}})).await;
    assert_eq!(field.problem(422)["detail"], "field 2 (hour): `25` is not within 0 to 23");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_whose_group_has_gone_says_so_and_goes_on_when_it_is_back() {
    let (clock, setup, host, receiver) = started().await;
    host.api.put_group("h", json!({})).await;
    put(&host, &receiver, "a", "*/10 * * * *", json!({})).await;
    let other = json!({"group": "h", "cron": "*/10 * * * *", "job": {"url": receiver.url("/b")}});
    host.api.put("/v1/schedules/b", other).await.expect(201);
    let database = format!("sqlite:{}", host.dir.path().join("carillon.db").display());
    host.stop().await;
    // No server lets a group go that a schedule uses; this is one that was lost.
    let mut connection = sqlx::SqliteConnection::connect(&database).await.unwrap();
    sqlx::query("DELETE FROM entity WHERE kind = 'group' AND name = 'g'").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let host = setup.start().await;
    assert_eq!(shown(&host, "a").await["broken"], "there is no group `g`");
    assert_eq!(shown(&host, "a").await["next_runs"], json!([]));
    clock.set(at("10:10:00"));
    receiver.arrived("/b", 1).await;
    host.api.post("/v1/schedules/a/run", json!({})).await.problem(409);
    let range = json!({"from": at("09:00:00").to_string(), "to": at("10:00:00").to_string()});
    host.api.post("/v1/schedules/a/backfill", range).await.problem(409);
    clock.set(at("10:10:30"));
    host.api.put_group("g", json!({})).await;
    clock.set(at("10:10:40"));
    receiver.arrived("/a", 1).await;
    assert_eq!(ticks(&receiver, "a"), ["10:10:00"], "within the catch-up window");
    assert_eq!(shown(&host, "a").await["broken"], Value::Null);
}
