//! A wall clock that is set: nothing is early, nothing is lost, nothing waits for a time that was a mistake.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use serde_json::json;

use crate::support::{ManualClock, Receiver, Setup};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_forth_and_back_loses_nothing() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    host.api.put_group("g", json!({"limits": {"rate": "2/h"}})).await;
    let start = clock.now();
    let job = |path: &str, run_at: &str| json!({"url": receiver.url(path), "run_at": run_at});
    let first = host.api.job_id("g", job("/first", "+1h")).await;
    clock.set(start.plus(10 * HOUR));
    host.api.until_state(&first, "succeeded").await;
    let second = host.api.job_id("g", job("/second", "+0s")).await;
    host.api.until_state(&second, "succeeded").await;

    // It was a mistake.
    clock.turn_back(start);
    let third = host.api.job_id("g", job("/third", "+2h")).await;
    let fourth = host.api.job_id("g", job("/fourth", "+2h")).await;
    assert!(first < second && second < third && third < fourth, "ids keep their order");
    clock.advance(HOUR);
    host.looked(&receiver).await;
    assert_eq!((receiver.count("/third"), receiver.count("/fourth")), (0, 0), "not early");
    // The rate, two an hour, was used up in the time that never was: it counts for an hour at most.
    clock.advance(HOUR);
    host.looked(&receiver).await;
    clock.advance(HOUR);
    host.api.until_state(&third, "succeeded").await;
    host.api.until_state(&fourth, "succeeded").await;
    for path in ["/first", "/second", "/third", "/fourth"] {
        assert_eq!(receiver.count(path), 1, "{path}");
    }
}
