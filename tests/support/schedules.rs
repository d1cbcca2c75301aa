//! Schedules whose ticks a clock decides that is moved by hand.

use std::sync::Arc;

use carillon_core::clock::UnixMs;
use serde_json::{Value, json};

use super::{Arrival, ManualClock, Receiver, Setup, TestHost};

/// A host with a group `g`, a receiver, and a clock at 2026-11-20T10:00:00Z, a Friday.
pub async fn started() -> (Arc<ManualClock>, Setup, TestHost, Receiver) {
    let clock = ManualClock::new();
    let setup = Setup::with_clock(&clock);
    let host = setup.start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({"retry": {"config": {"kind": "fixed", "base": "1s", "jitter": 0}}})).await;
    (clock, setup, host, receiver)
}

/// A time on that day.
pub fn at(text: &str) -> UnixMs {
    let text = format!("2026-11-20T{text}Z");
    UnixMs(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

/// A schedule that calls `path`, with these other fields.
pub async fn put(host: &TestHost, receiver: &Receiver, path: &str, cron: &str, more: Value) -> Value {
    let mut doc = json!({"group": "g", "cron": cron, "job": {"url": receiver.url(&format!("/{path}"))}});
    doc.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    host.api.put(&format!("/v1/schedules/{path}"), doc).await.ok()
}

/// A schedule as the API shows it.
pub async fn shown(host: &TestHost, name: &str) -> Value {
    host.api.get(&format!("/v1/schedules/{name}")).await.expect(200)
}

/// The times of the ticks that arrived for a schedule's path.
pub fn ticks(receiver: &Receiver, path: &str) -> Vec<String> {
    let arrivals = receiver.arrivals(&format!("/{path}"));
    let tick = |arrival: &Arrival| arrival.header("carillon-tick").unwrap()[11..19].to_owned();
    arrivals.iter().map(tick).collect()
}

/// Ticks every other second, in the same look and the same transaction as all that ticks then: see [`tick`].
pub async fn put_sentinel(host: &TestHost, receiver: &Receiver) {
    put(host, receiver, "sentinel", "*/2 * * * * *", json!({"overlap": "allow", "catch_up": "0"})).await;
}

/// Moves the clock to an even second. Returns when all that ticks then was decided, and what is due then has arrived.
pub async fn tick(clock: &ManualClock, host: &TestHost, receiver: &Receiver, to: &str) {
    clock.set(at(to));
    host.api.until_shown("/v1/schedules/sentinel", |sentinel| sentinel["last_run"] == at(to).to_string()).await;
    host.looked(receiver).await;
}
