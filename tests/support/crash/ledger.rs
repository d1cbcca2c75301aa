//! Holds what a client was promised against what the server wrote down and what the receiver saw.

use std::collections::{HashMap, HashSet};

use carillon_core::clock::UnixMs;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::process::Client;
use super::receiver::Arrival;

/// A job that a client asked for.
pub struct Promise {
    /// Its name and its payload.
    pub name: String,
    /// Not before.
    pub run_at: UnixMs,
    /// If it was answered with 201.
    pub id: Option<String>,
}

/// Checks every job of `group`; `max_attempts` is its retry policy's. Returns how many attempts were interrupted.
pub async fn check(
    client: &Client,
    group: &str,
    promises: &[Promise],
    arrivals: &[Arrival],
    max_attempts: u64,
) -> usize {
    let jobs = client.all(&format!("/v1/groups/{group}/jobs")).await;
    let by_name: HashMap<_, _> = jobs.iter().map(|job| (job["name"].as_str().unwrap(), job)).collect();
    assert_eq!(by_name.len(), jobs.len(), "no job is there twice");
    let ids: HashSet<_> = jobs.iter().map(|job| job["id"].as_str().unwrap()).collect();
    let mut by_id: HashMap<&str, Vec<&Arrival>> = HashMap::new();
    for arrival in arrivals {
        assert!(ids.contains(arrival.key.as_str()), "a request of no job: {arrival:?}");
        assert_eq!(arrival.key, arrival.job);
        by_id.entry(&arrival.key).or_default().push(arrival);
    }
    let attempts = futures_util::stream::iter(&jobs).map(async |job| {
        let id = job["id"].as_str().unwrap();
        (id, client.all(&format!("/v1/jobs/{id}/attempts")).await)
    });
    let attempts: HashMap<_, _> = attempts.buffer_unordered(16).collect().await;

    let mut interrupted = 0;
    for promise in promises {
        let Some(job) = by_name.get(promise.name.as_str()) else {
            assert!(promise.id.is_none(), "{} was accepted and is gone", promise.name);
            continue;
        };
        let id = job["id"].as_str().unwrap();
        assert!(promise.id.as_deref().is_none_or(|promised| promised == id));
        let seen = by_id.get(id).map_or(&[][..], Vec::as_slice);
        interrupted += check_job(promise, job, &attempts[id], seen, max_attempts);
    }
    interrupted
}

fn check_job(promise: &Promise, job: &Value, attempts: &[Value], seen: &[&Arrival], max_attempts: u64) -> usize {
    let about = format!("{job}\n{attempts:#?}\n{seen:#?}");
    let state = job["state"].as_str().unwrap();
    assert!(["succeeded", "dead"].contains(&state), "{about}");
    let mut numbers: Vec<_> = attempts.iter().map(|attempt| attempt["number"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=job["attempt_count"].as_u64().unwrap()).collect::<Vec<_>>(), "{about}");

    let mut lost = 0;
    for attempt in attempts {
        let number = attempt["number"].as_u64().unwrap();
        let requests: Vec<_> = seen.iter().filter(|arrival| arrival.attempt == number).collect();
        assert!(requests.len() <= 1, "an attempt is one request: {about}");
        if attempt["error"]["code"] == "attempt.interrupted" {
            lost += 1;
        } else {
            // A server that is killed breaks its connections, but nobody is left to write an attempt down as answered.
            assert_eq!(attempt["status"].as_u64(), requests.first().map(|it| u64::from(it.answer)), "{about}");
        }
        let not_before = match number {
            1 => promise.run_at,
            _ => next_run_at(attempts.iter().find(|it| it["number"] == number - 1).unwrap()),
        };
        assert!(requests.iter().all(|it| it.at >= not_before), "early: before {not_before}: {about}");
    }
    assert!(seen.iter().all(|arrival| numbers.contains(&arrival.attempt)), "a request without an attempt: {about}");
    assert!(seen.iter().all(|arrival| arrival.body == promise.name.as_bytes()), "{about}");
    assert!(numbers.len() as u64 <= max_attempts + lost as u64, "{about}");
    let accepted = seen.iter().filter(|arrival| arrival.answer == 200).count();
    if state == "succeeded" {
        assert!(accepted >= 1 && accepted <= 1 + lost, "{about}");
        let last = attempts.iter().max_by_key(|attempt| attempt["number"].as_u64()).unwrap();
        assert_eq!(
            (last["verdict"]["outcome"].as_str(), last["status"].as_u64()),
            (Some("success"), Some(200)),
            "{about}"
        );
    } else {
        assert!(accepted <= lost, "{about}");
    }
    lost
}

/// When an attempt said that the next one is to be.
fn next_run_at(attempt: &Value) -> UnixMs {
    let at = &attempt["decision"]["next_run_at"];
    match at.as_str() {
        Some(text) => UnixMs(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()),
        None => UnixMs(at.as_i64().unwrap_or_else(|| panic!("no next attempt: {attempt}"))),
    }
}
