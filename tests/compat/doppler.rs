//! Doppler: callbacks with retries, as its Flask helper asks for them.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Mounted, fields};
use crate::support::{Answer, Gate, id_of};

const FIELDS: [&str; 6] = ["last_retry", "request_id", "retries_left", "run_at", "scheduled_at", "status"];

impl Mounted {
    pub(super) async fn doppler() -> Self {
        Self::start("doppler").await
    }

    pub(super) fn callback(&self, path: &str, run_at: i64) -> Value {
        json!({"callback_url": self.receiver.url(path), "message": "hello", "run_at": run_at})
    }

    pub(super) async fn scheduled(&self, job: Value) -> Value {
        self.api.post("", job).await.expect(200)
    }

    /// The id of a callback that is tried again `max_retries` times after `delay` seconds.
    async fn retried(&self, path: &str, max_retries: i64, delay: i64) -> String {
        let mut job = self.callback(path, self.second());
        job["max_retries"] = max_retries.into();
        job["retry_delay"] = delay.into();
        self.scheduled(job).await["request_id"].as_str().unwrap().to_owned()
    }

    async fn until_status(&self, id: &str, status: &str) -> Value {
        self.until(&format!("/{id}"), status, |job| job["status"] == status).await
    }

    async fn cancelled(&self, id: &str) -> Value {
        self.api.delete(&format!("/{id}")).await.expect(200)
    }
}

pub(super) fn request_id(job: &Value) -> String {
    job["request_id"].as_str().unwrap().to_owned()
}

fn was_cancelled(yes: bool) -> Value {
    json!({"was_cancelled": yes})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_callback_has_six_attributes() {
    let at = Mounted::doppler().await;
    let run_at = at.second() + 10;
    let mut asked = at.callback("/a", run_at);
    asked["max_retries"] = 3.into();
    asked["surplus"] = json!({"is": "ignored"});
    let reply = at.api.post("", asked).await;
    assert_eq!(reply.headers["content-type"], "application/json");
    let job = reply.expect(200);
    assert_eq!(fields(&job), FIELDS);
    assert_eq!(
        (&job["status"], &job["run_at"], &job["scheduled_at"]),
        (&json!("early"), &json!(run_at), &json!(at.second()))
    );
    assert_eq!((&job["last_retry"], &job["retries_left"]), (&Value::Null, &json!(3)));
    let id = request_id(&job);
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4);

    let shown = at.api.get(&format!("/{id}")).await.expect(200);
    assert_eq!(fields(&shown), FIELDS);
    assert!(shown["run_at"].is_f64(), "{shown}");
    assert_eq!(shown["run_at"].as_f64(), Some(run_at as f64));
    assert_eq!(
        (&shown["request_id"], &shown["status"], &shown["retries_left"]),
        (&json!(id), &json!("early"), &json!(3))
    );

    let default = at.scheduled(at.callback("/a", run_at)).await;
    assert_eq!(default["retries_left"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_served_with_and_without_slashes_and_without_redirects() {
    let at = Mounted::doppler().await;
    for path in ["", "/", "//"] {
        let id = request_id(&at.api.post(path, at.callback("/a", at.second() + 99)).await.expect(200));
        for shown in [format!("/{id}"), format!("/{id}/"), format!("//{id}")] {
            assert_eq!(request_id(&at.api.get(&shown).await.expect(200)), id, "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_and_no_time_at_all_are_now() {
    let at = Mounted::doppler().await;
    let now = at.second();
    let times = [json!(now - 100), json!(0), json!(-5), json!(true), json!(now), Value::Null];
    for (index, run_at) in times.into_iter().enumerate() {
        let path = format!("/{index}");
        let mut job = at.callback(&path, 0);
        job["run_at"] = run_at.clone();
        let answered = at.scheduled(job).await;
        let expected = if run_at.is_null() { json!(now) } else { run_at };
        assert_eq!(answered["run_at"], expected, "as it was given");
        assert!(["waiting", "started", "done"].contains(&answered["status"].as_str().unwrap()), "{answered}");
        at.receiver.arrived(&path, 1).await;
        at.until_status(&request_id(&answered), "done").await;
    }
    let missing = json!({"callback_url": at.receiver.url("/missing"), "message": ""});
    assert_eq!(at.scheduled(missing).await["run_at"], now);
    at.receiver.arrived("/missing", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_is_the_message_byte_for_byte_and_nothing_around_it() {
    let at = Mounted::doppler().await;
    let messages = ["", "plain", "Don’t forget 🥛\u{0}\r\n", "a=1&b=2", "{\"json\": true}", &"x".repeat(100_000)];
    for (index, message) in messages.into_iter().enumerate() {
        let path = format!("/{index}");
        let mut job = at.callback(&format!("{path}?q=%20&r"), at.second() + 1);
        job["message"] = message.into();
        at.scheduled(job).await;
        at.host.looked(&at.receiver).await;
        assert_eq!(at.receiver.count(&path), 0, "never early");
        at.advance(1);
        let arrival = at.receiver.arrived(&path, 1).await.remove(0);
        assert_eq!((arrival.method.as_str(), arrival.target.as_str()), ("POST", format!("{path}?q=%20&r").as_str()));
        assert_eq!((arrival.text(), arrival.header("content-type")), (message, None));
        assert_eq!(arrival.header("content-length"), Some(message.len().to_string().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_status_below_400_is_a_success_and_redirects_are_followed() {
    let at = Mounted::doppler().await;
    for status in [200, 204, 304, 399] {
        let path = format!("/{status}");
        at.receiver.on(&path, [Answer::status(status)]);
        let id = at.retried(&path, 1, 10).await;
        at.until_status(&id, "done").await;
        at.advance(11);
    }
    for (status, method, body) in [(302, "GET", ""), (307, "POST", "hello")] {
        let (from, to) = (format!("/from{status}"), format!("/to{status}"));
        at.receiver.on(&from, [Answer::status(status).header("location", to.clone())]);
        let id = at.retried(&from, 0, 10).await;
        let arrival = at.receiver.arrived(&to, 1).await.remove(0);
        assert_eq!((arrival.method.as_str(), arrival.text()), (method, body));
        at.until_status(&id, "done").await;
    }
    at.receiver.on("/loop", [Answer::status(302).header("location", "/loop")]);
    let id = at.retried("/loop", 1, 10).await;
    at.until(&format!("/{id}"), "a loop is a failure", |job| job["retries_left"] == 0 && job["status"] == "early")
        .await;
    assert_eq!(at.receiver.count("/loop"), 6, "five redirects");
    at.host.looked(&at.receiver).await;
    for path in ["/200", "/204", "/304", "/399"] {
        assert_eq!(at.receiver.count(path), 1, "{path}: done, not tried again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_retried_after_a_constant_pause_and_counted_down() {
    let at = Mounted::doppler().await;
    at.receiver.on("/a", [400, 404, 500, 503].map(Answer::status));
    let first = at.second();
    let id = at.retried("/a", 3, 7).await;
    for left in [2, 1, 0] {
        let job =
            at.until(&format!("/{id}"), "waits", |job| job["status"] == "early" && job["retries_left"] == left).await;
        let failed = at.second();
        assert_eq!((&job["last_retry"], &job["scheduled_at"]), (&json!(failed), &json!(first)));
        assert_eq!(job["run_at"].as_f64(), Some((failed + 7) as f64));
        assert_eq!(at.receiver.count("/a"), usize::try_from(3 - left).unwrap());
        at.advance(7);
    }
    let done = at.until_status(&id, "done").await;
    let expected = json!({
        "request_id": id, "status": "done", "run_at": null, "scheduled_at": null, "last_retry": null, "retries_left": 0,
    });
    assert_eq!(done, expected, "nothing is remembered but the state");
    let arrivals = at.receiver.arrivals("/a");
    let seconds: Vec<_> = arrivals.iter().map(|arrival| arrival.at.0 / 1_000 - first).collect();
    assert_eq!(seconds, [0, 7, 14, 21], "one call and three retries");
    assert!(arrivals.iter().all(|arrival| arrival.text() == "hello"));
    at.advance(100);
    at.host.looked(&at.receiver).await;
    assert_eq!(at.receiver.count("/a"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_delivered_is_a_failure() {
    let at = Mounted::doppler().await;
    at.receiver.on("/dropped", [Answer::nothing()]);
    for url in [at.receiver.url("/dropped"), "http://127.0.0.1:1/".to_owned(), "ftp://127.0.0.1/x".to_owned()] {
        let job = json!({"callback_url": url, "message": "m", "run_at": 0, "max_retries": 1});
        let id = request_id(&at.scheduled(job).await);
        at.until(&format!("/{id}"), "fails", |job| job["status"] == "early" && job["retries_left"] == 0).await;
        at.advance(10);
        at.until_status(&id, "done").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_worker_callbacks_are_made_one_after_the_other() {
    let at = Mounted::with("doppler", |setup| setup.set("compat.doppler.workers", "1")).await;
    let gate = Gate::closed();
    at.receiver.on("/a", [Answer::status(200).held(&gate)]);
    let first = request_id(&at.scheduled(at.callback("/a", 0)).await);
    at.receiver.arrived("/a", 1).await;
    let second = request_id(&at.scheduled(at.callback("/b", 0)).await);
    at.host.looked(&at.receiver).await;
    let shown = at.api.get(&format!("/{first}")).await.expect(200);
    assert_eq!(
        (&shown["status"], &shown["run_at"], &shown["retries_left"]),
        (&json!("started"), &Value::Null, &json!(0))
    );
    assert_eq!(at.api.get(&format!("/{second}")).await.expect(200)["status"], "waiting");
    assert_eq!(at.receiver.count("/b"), 0);
    gate.release(1);
    at.until_status(&first, "done").await;
    at.until_status(&second, "done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_cannot_start_is_late() {
    let at = Mounted::doppler().await;
    let id = request_id(&at.scheduled(at.callback("/a", at.second() + 5)).await);
    at.host.api.post("/v1/groups/doppler/pause", json!({})).await.expect(200);
    assert_eq!(at.api.get(&format!("/{id}")).await.expect(200)["status"], "early");
    at.advance(5);
    assert_eq!(at.api.get(&format!("/{id}")).await.expect(200)["status"], "late");
    assert_eq!(at.cancelled(&id).await, was_cancelled(true));
    at.until_status(&id, "done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_is_cancelled_unless_it_has_started() {
    let at = Mounted::doppler().await;
    let early = request_id(&at.scheduled(at.callback("/early", at.second() + 5)).await);
    assert_eq!(at.cancelled(&early).await, was_cancelled(true));
    assert_eq!(at.api.get(&format!("/{early}")).await.expect(200)["status"], "done");
    assert_eq!(at.cancelled(&early).await, was_cancelled(false), "it was already");

    at.receiver.on("/retried", [Answer::status(500)]);
    let retried = at.retried("/retried", 5, 10).await;
    at.until(&format!("/{retried}"), "waits for a retry", |job| job["retries_left"] == 4).await;
    assert_eq!(at.cancelled(&retried).await, was_cancelled(true), "between two tries");

    let gate = Gate::closed();
    at.receiver.on("/started", [Answer::status(500).held(&gate), Answer::status(200)]);
    let started = at.retried("/started", 1, 10).await;
    at.receiver.arrived("/started", 1).await;
    assert_eq!(at.cancelled(&started).await, was_cancelled(false));
    gate.release(1);
    at.until(&format!("/{started}"), "it goes on", |job| job["status"] == "early").await;
    at.advance(10);
    at.receiver.arrived("/started", 2).await;
    at.until_status(&started, "done").await;
    assert_eq!(at.cancelled(&started).await, was_cancelled(false));

    for unknown in ["00000000-0000-4000-8000-000000000000", "no-id", "%ff", "a/b"] {
        assert_eq!(at.cancelled(unknown).await, was_cancelled(false), "{unknown}");
    }
    at.host.looked(&at.receiver).await;
    assert_eq!((at.receiver.count("/early"), at.receiver.count("/retried")), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_get_ids_of_their_own_and_every_callback_is_made_once() {
    let at = Mounted::with("doppler", |setup| setup.set("compat.doppler.workers", "8")).await;
    let posts = join_all((0..64).map(|index| at.scheduled(at.callback(&format!("/{index}"), at.second() + 1)))).await;
    let ids: HashSet<String> = posts.iter().map(request_id).collect();
    assert_eq!(ids.len(), 64);
    let cancels = join_all(ids.iter().take(16).flat_map(|id| [at.cancelled(id), at.cancelled(id)])).await;
    assert_eq!(cancels.iter().filter(|answer| **answer == was_cancelled(true)).count(), 16, "each once");
    at.advance(1);
    for id in &ids {
        at.until_status(id, "done").await;
    }
    let counts: Vec<_> = (0..64).map(|index| at.receiver.count(&format!("/{index}"))).collect();
    assert_eq!((counts.iter().sum::<usize>(), counts.iter().max()), (48, Some(&1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_jobs_are_jobs_like_any_other() {
    let at = Mounted::doppler().await;
    at.receiver.on("/a", [Answer::status(500)]);
    let id = at.retried("/a", 0, 10).await;
    at.until_status(&id, "done").await;
    let job = at.host.api.get(&format!("/v1/jobs/{id}?group=doppler")).await.expect(200);
    assert_eq!((&job["state"], &job["last_status"]), (&json!("dead"), &json!(500)), "here it is known why");
    at.receiver.on("/a", [Answer::status(200)]);
    at.host.api.post(&format!("/v1/jobs/{}/retry", id_of(&job)), json!({})).await.expect(200);
    at.receiver.arrived("/a", 2).await;
    let changed = json!({"judge": {"plugin": "expected-status", "config": {"expect": 418}}});
    at.host.api.put_group("doppler", changed).await;
    at.receiver.on("/tea", [Answer::status(418)]);
    let tea = at.retried("/tea", 0, 10).await;
    at.until_status(&tea, "done").await;
    let job = at.host.api.get(&format!("/v1/jobs/{tea}?group=doppler")).await.expect(200);
    assert_eq!(job["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redriven_job_counts_the_retries_of_its_new_series() {
    let at = Mounted::doppler().await;
    at.receiver.on("/a", [500; 6].map(Answer::status));
    let id = at.retried("/a", 2, 1).await;
    for left in [1, 0] {
        at.until(&format!("/{id}"), "waits", |job| job["status"] == "early" && job["retries_left"] == left).await;
        at.advance(1);
    }
    at.until_status(&id, "done").await;
    let listed = at.host.api.get(&format!("/v1/groups/doppler/jobs?name={id}")).await.expect(200);
    let job = id_of(&listed["items"][0]);
    at.host.api.post(&format!("/v1/jobs/{job}/retry"), json!({})).await.expect(200);
    for left in [1, 0] {
        at.until(&format!("/{id}"), "waits again", |job| job["status"] == "early" && job["retries_left"] == left).await;
        at.advance(1);
    }
    at.until_status(&id, "done").await;
    assert_eq!(at.receiver.count("/a"), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_callback_does_not_hold_up_the_others() {
    let (at, gate) = (Mounted::doppler().await, Gate::closed());
    at.receiver.on("/slow", [Answer::status(200).held(&gate)]);
    at.scheduled(at.callback("/slow", 0)).await;
    at.receiver.arrived("/slow", 1).await;
    at.scheduled(at.callback("/quick", 0)).await;
    at.receiver.arrived("/quick", 1).await;
    gate.release(1);
}
