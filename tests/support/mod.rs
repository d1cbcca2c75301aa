//! What the tests stand on: a host, a receiver, a clock, a client, and the program itself.

pub mod audit;
pub mod crash;
pub mod queue;
pub mod scenes;
pub mod schedules;

mod client;
mod database;
mod host;
mod https;
mod operations;
mod page;
mod plugins;
mod program;
mod python;
mod raw;
mod receiver;
mod registry;
mod reverse_proxy;
mod stream;
mod time;
mod tls_receiver;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use carillon_core::test_util::{ManualClock, SkewedClock};
pub use carillon_testing::postgres::{Cluster, Stop, free_port};
pub use client::{Api, Reply, id_of};
pub use database::{DATABASE, cluster};
pub use host::{ADMIN_TOKEN, MASTER_KEY, Setup, TestHost};
pub use https::{put_certificate, tls_file, trusting};
pub use operations::{OPEN, closed_operations};
pub use page::{BY_EYE, blocks, blocks_in, fences, shell, without_variables};
pub use plugins::{JUDGE_PATH, ROLES, beside_others, built, judge, scaffold, upload, upload_built};
pub use program::{Finished, Program, cli, run};
pub use python::{STRIPE, ask_python, interpreter};
pub use raw::{RawReceiver, read_request};
pub use receiver::{Answer, Arrival, Gate, Receiver};
pub use registry::Registry;
pub use reverse_proxy::ReverseProxy;
pub use stream::kinds;
pub use time::ms;
pub use tls_receiver::{Asks, TlsReceiver, TlsSetup};

/// The longest that a test waits for something that must happen. Nothing depends on how long it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A pause between two looks at something that gives no signal.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Where tests share what is expensive to make.
pub fn shared_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Waits for something that must happen.
pub async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happens).await {
        Ok(value) => value,
        Err(_) => panic!("it did not happen within {PATIENCE:?}: {what}"),
    }
}

/// Calls `look` until it returns an expected value, and returns that value. A wait in vain reports the last value.
pub async fn eventually<T: Debug>(what: &str, look: impl AsyncFnMut() -> T, is_expected: impl FnMut(&T) -> bool) -> T {
    eventually_within(PATIENCE, what, async || {}, look, is_expected).await
}

/// The same, where something happens after each look in vain: time goes on, or a job is made.
pub async fn eventually_while<T: Debug>(
    what: &str,
    step: impl AsyncFnMut(),
    look: impl AsyncFnMut() -> T,
    is_expected: impl FnMut(&T) -> bool,
) -> T {
    eventually_within(PATIENCE, what, step, look, is_expected).await
}

async fn eventually_within<T: Debug>(
    patience: Duration,
    what: &str,
    mut step: impl AsyncFnMut(),
    mut look: impl AsyncFnMut() -> T,
    mut is_expected: impl FnMut(&T) -> bool,
) -> T {
    let mut last = None;
    let looking = async {
        loop {
            let value = look().await;
            if is_expected(&value) {
                return value;
            }
            last = Some(value);
            step().await;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let found = tokio::time::timeout(patience, looking).await;
    found.unwrap_or_else(|_| panic!("it did not happen within {patience:?}: {what}; the last value was {last:?}"))
}

#[tokio::test]
async fn eventually_returns_the_first_expected_value() {
    let mut values = 0..;
    let mut looks = 0;
    let look = async || {
        looks += 1;
        values.next().unwrap()
    };
    assert_eq!(eventually("a number above two", look, |value| *value > 2).await, 3);
    assert_eq!(looks, 4);
}

#[tokio::test]
#[should_panic(expected = "a number above two; the last value was Some(1)")]
async fn eventually_in_vain_reports_what_it_waited_for_and_the_last_value() {
    eventually_within(LOOK_AGAIN * 4, "a number above two", async || {}, async || 1, |value| *value > 2).await;
}
