//! The crons of poussetaches.

use std::time::Duration;

use carillon_core::clock::{Clock as _, UnixMs};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::{Mounted, fields};
use crate::support::{Answer, Api, Gate, Program};

impl Mounted {
    fn cron(&self, path: &str, schedule: &str) -> Value {
        let mut task = self.task_for(path);
        task["schedule"] = schedule.into();
        task
    }

    /// One second after the other, each with a look of the server at what is due.
    async fn seconds(&self, count: u64) {
        for _ in 0..count {
            self.advance(1);
            self.host.looked(&self.receiver).await;
        }
    }

    async fn drop_crons(&self) {
        let reply = self.api.delete("/cron").await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
    }
}

fn sha1_of(task: &Value) -> String {
    let payload = br#"{"a": 1}"#;
    let digest = Sha1::new()
        .chain_update(task["url"].as_str().unwrap())
        .chain_update(payload)
        .chain_update(task["schedule"].as_str().unwrap());
    hex::encode(digest.finalize())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cron_runs_again_and_again_under_one_id() {
    let at = Mounted::poussetaches().await;
    let task = at.cron("/a", "@every 5s");
    let id = at.push(task.clone()).await;
    assert_eq!(id, sha1_of(&task));
    let first = at.nanos() + 5_000_000_000;
    let listed = at.list("cron").await;
    assert_eq!(fields(&listed[0]).len(), 11);
    let expected = json!({
        "id": id, "url": at.receiver.url("/a"), "payload": task["payload"], "expected": 200, "schedule": "@every 5s",
        "next_scheduled_run": first, "next_run": first, "tries": 0, "last_run": 0,
        "last_error_body": null, "last_error_status_code": 0,
    });
    assert_eq!(listed, [expected]);
    assert_eq!(at.list("waiting").await, listed, "crons wait like tasks");
    for run in 1..=3 {
        at.advance(5);
        at.receiver.arrived("/a", run).await;
        let next = at.nanos() + 5_000_000_000;
        let cron = at.until_listed("cron", &id, |task| task["next_run"] == next).await;
        assert_eq!(
            (&cron["tries"], &cron["last_run"], &cron["next_scheduled_run"]),
            (&json!(0), &json!(at.nanos()), &json!(next))
        );
        let success = at.until_listed("success", &id, |task| task["last_run"] == at.nanos()).await;
        assert_eq!(success["schedule"], "@every 5s");
        assert_eq!(at.list("success").await.len(), 1, "one entry per id");
    }
    let arrivals = at.receiver.arrivals("/a");
    assert!(arrivals.iter().all(|arrival| serde_json::from_slice::<Value>(&arrival.body).unwrap()["tries"] == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_of_six_fields_are_seconds_and_five_are_not_those_of_crontab() {
    let at = Mounted::poussetaches().await;
    // The clock of the tests begins at the start of an hour.
    for (schedule, seconds) in [
        ("30 4 * * *", 4 * 60 + 30),
        ("*/20 * * * *", 20),
        ("0 0 11 * * *", 3_600),
        ("15 * * * * FRI-SAT", 15),
        ("? 5/30 ? * ? ?", 5 * 60),
        ("0 0 0 21 NOV 1", 14 * 3_600),
    ] {
        let id = at.push(at.cron("/a", schedule)).await;
        let cron = at.until_listed("cron", &id, |_| true).await;
        let wait = (cron["next_run"].as_i64().unwrap() - at.nanos()) / 1_000_000_000;
        assert_eq!((wait, &cron["schedule"]), (seconds, &json!(schedule)), "{schedule}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crons_are_read_in_the_configured_time_zone() {
    let at = Mounted::with("poussetaches", |setup| setup.set("compat.poussetaches.time_zone", "Asia/Tokyo")).await;
    let id = at.push(at.cron("/a", "0 30 20 * * *")).await;
    // It is 19:00 in Tokyo.
    let next = at.nanos() + 90 * 60 * 1_000_000_000;
    assert_eq!(at.until_listed("cron", &id, |_| true).await["next_run"], next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_again_changes_nothing() {
    let at = Mounted::poussetaches().await;
    let task = at.cron("/a", "@every 10s");
    let id = at.push(task.clone()).await;
    at.advance(4);
    let mut again = task.clone();
    again["expected"] = 204.into();
    assert_eq!(join_all((0..16).map(|_| at.push(again.clone()))).await, vec![id.clone(); 16]);
    let listed = at.list("cron").await;
    assert_eq!((listed.len(), &listed[0]["expected"]), (1, &json!(200)));
    assert_eq!(listed[0]["next_run"], at.nanos() + 6_000_000_000);
    for other in [at.cron("/b", "@every 10s"), at.cron("/a", "@every 11s")] {
        assert_ne!(at.push(other).await, id);
    }
    assert_eq!(at.list("cron").await.len(), 3);
    at.advance(6);
    at.receiver.arrived("/a", 1).await;
    at.until_listed("success", &id, |_| true).await;
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_cron_begins_later() {
    let at = Mounted::poussetaches().await;
    let mut task = at.cron("/a", "0 0 * * * *");
    task["delay"] = 65.into();
    let id = at.push(task).await;
    // It is ten o'clock; the first full hour after five past eleven is twelve.
    let first = at.nanos() + 2 * 3_600 * 1_000_000_000;
    assert_eq!(at.until_listed("cron", &id, |_| true).await["next_run"], first);
    at.clock.set(UnixMs(first / 1_000_000 - 1));
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/a"), 0);
    at.clock.set(UnixMs(first / 1_000_000));
    at.receiver.arrived("/a", 1).await;
    let next = at.nanos() + 3_600 * 1_000_000_000;
    at.until_listed("cron", &id, |task| task["next_run"] == next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_cron_runs_at_its_own_times_only() {
    let at = Mounted::poussetaches().await;
    let day = 86_400 * 1_000_000_000_i64;
    let ten = 36_000 * 1_000_000_000_i64;
    // On 2026-11-20 at 10:00:00: the delay is 30 minutes, a day, and one after which the same day of the month comes again.
    for (path, schedule, minutes, first) in [
        ("/noon", "0 0 12 * * *", 30, day / 2 - ten),
        ("/tomorrow", "0 0 12 * * *", 1_440, day / 2 - ten + day),
        ("/month", "0 0 0 1 * *", 1_440, 11 * day - ten),
        ("/next_month", "0 0 0 1 * *", 11 * 1_440, 42 * day - ten),
        ("/every", "@every 90s", 2, 210 * 1_000_000_000),
    ] {
        let mut task = at.cron(path, schedule);
        task["delay"] = minutes.into();
        let id = at.push(task).await;
        let listed = at.until_listed("cron", &id, |_| true).await;
        assert_eq!(listed["next_run"].as_i64().unwrap() - at.nanos(), first, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crons_are_read_in_the_local_time_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    for (index, (tz, configured, zone)) in [
        ("America/New_York", "", "America/New_York"),
        (":America/New_York", "", "America/New_York"),
        ("", "", "UTC"),
        ("America/New_York", "Asia/Kathmandu", "Asia/Kathmandu"),
        ("EST5EDT,M3.2.0,M11.1.0", "", "UTC"),
    ]
    .into_iter()
    .enumerate()
    {
        let store = format!("sqlite:{}", dir.path().join(format!("{index}.db")).display());
        let environment = [("TZ", tz), ("CARILLON_COMPAT__POUSSETACHES__TIME_ZONE", configured)];
        let program = Program::serve(&["--no-auth", "--store", &store], &environment).await;
        let api = Api::new(&program.base, None);
        let task = json!({"url": "http://127.0.0.1:1/", "payload": "", "expected": 200, "schedule": "0 0 12 * * *"});
        let pushed = api.post("/compat/poussetaches/", task).await;
        assert_eq!(pushed.status, 201, "{tz}: {}", pushed.text());
        let schedules = api.get("/v1/schedules").await.items();
        assert_eq!(schedules[0]["time_zone"], zone, "TZ={tz}");
        assert_eq!(program.log().contains("time zone has no name"), tz.contains(','), "TZ={tz}");
        program.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_fails_is_retried_and_missed_runs_are_caught_up_one_by_one() {
    let at = Mounted::poussetaches().await;
    at.receiver.on("/a", [Answer::status(500), Answer::status(500), Answer::status(200)]);
    let id = at.push(at.cron("/a", "@every 2s")).await;
    let planned = at.nanos() + 2_000_000_000;
    at.advance(2);
    let failed = at.until_listed("cron", &id, |task| task["tries"] == 1).await;
    assert_eq!((&failed["next_scheduled_run"], &failed["last_error_status_code"]), (&json!(planned), &json!(500)));
    at.advance(2);
    let failed = at.until_listed("waiting", &id, |task| task["tries"] == 2).await;
    assert_eq!(failed["next_scheduled_run"], planned, "the ladder goes on from the first plan");
    assert_eq!(at.list("waiting").await.len(), 1, "the runs behind it are not listed");
    at.seconds(6).await;
    // Runs 1 to 5 were planned for seconds 2, 4, 6, 8 and 10.
    at.receiver.arrived("/a", 2 + 5).await;
    let tries = |arrival: &crate::support::Arrival| {
        serde_json::from_slice::<Value>(&arrival.body).unwrap()["tries"].as_i64().unwrap()
    };
    let seen: Vec<_> = at.receiver.arrivals("/a").iter().map(tries).collect();
    assert_eq!(seen, [1, 2, 3, 1, 1, 1, 1]);
    let cron = at.until_listed("cron", &id, |task| task["tries"] == 0).await;
    assert_eq!((&cron["last_error_status_code"], &cron["last_error_body"]), (&json!(0), &Value::Null), "cleared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_crons_do_not_run_and_tasks_stay() {
    let at = Mounted::poussetaches().await;
    let gate = Gate::closed();
    at.receiver.on("/flying", [Answer::status(200).held(&gate)]);
    at.receiver.on("/failing", [Answer::status(500)]);
    at.push(at.cron("/flying", "@every 2s")).await;
    let failing = at.push(at.cron("/failing", "@every 2s")).await;
    at.push(at.cron("/later", "@every 3s")).await;
    let mut task = at.task_for("/task");
    task["delay"] = 1.into();
    at.push(task).await;
    at.advance(2);
    at.receiver.arrived("/flying", 1).await;
    at.until_listed("cron", &failing, |task| task["tries"] == 1).await;
    at.drop_crons().await;
    gate.release(9);
    at.until("/cron", "all are gone", |found| found["tasks"] == json!([])).await;
    assert_eq!(at.list("waiting").await.len(), 1, "the task");
    at.seconds(5).await;
    assert_eq!([at.receiver.count("/flying"), at.receiver.count("/failing"), at.receiver.count("/later")], [1, 1, 0]);
    at.advance(60);
    at.receiver.arrived("/task", 1).await;

    at.push(at.cron("/later", "@every 3s")).await;
    at.advance(3);
    at.receiver.arrived("/later", 1).await;
    at.drop_crons().await;
    at.drop_crons().await;
    let reply = at.api.raw(Method::POST, "/cron", "").await;
    assert_eq!(reply.status, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crons_outlive_a_restart() {
    let at = Mounted::poussetaches().await;
    let id = at.push(at.cron("/a", "@every 10s")).await;
    at.advance(4);
    let Mounted { clock, host, receiver, .. } = at;
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let host = crate::support::Setup::with_clock(&clock).in_dir(&dir).start().await;
    let api =
        crate::support::Api::new(&format!("{}/compat/poussetaches", host.base), Some(crate::support::ADMIN_TOKEN));
    let at = Mounted { clock, host, receiver, api };
    let cron = at.until_listed("cron", &id, |_| true).await;
    assert_eq!(cron["next_run"], at.nanos() + 6_000_000_000);
    let pushed_anew = at.push(at.cron("/a", "@every 10s")).await;
    assert_eq!((pushed_anew, at.list("cron").await.len()), (id, 1), "as an application does at its start");
    at.clock.advance(Duration::from_secs(6));
    at.receiver.arrived("/a", 1).await;
    assert_eq!(at.receiver.arrivals("/a")[0].at, at.clock.now());
}
