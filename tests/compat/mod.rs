//! The APIs of other schedulers, driven over HTTP as their own clients drive them.

mod callme;
mod callme_entries;
mod crons;
mod doppler;
mod doppler_refusals;
mod mounts;
mod poussetaches;
mod poussetaches_refusals;
mod presets;
mod readme;

use std::sync::Arc;
use std::time::Duration;

use carillon_core::clock::{Clock as _, UnixMs};
use serde_json::Value;

use crate::support::{ADMIN_TOKEN, Api, ManualClock, Receiver, Reply, Setup, TestHost, eventually};

/// A server whose time is moved by hand, one of its mounts, and a receiver.
struct Mounted {
    clock: Arc<ManualClock>,
    host: TestHost,
    receiver: Receiver,
    /// The mount, as a client sees it.
    api: Api,
}

impl Mounted {
    async fn start(mount: &str) -> Self {
        Self::with(mount, |setup| setup).await
    }

    async fn with(mount: &str, change: impl Fn(Setup) -> Setup) -> Self {
        let clock = ManualClock::new();
        let host = change(Setup::with_clock(&clock)).start().await;
        let receiver = Receiver::with_clock(clock.clone()).await;
        let api = Api::new(&format!("{}/compat/{mount}", host.base), Some(ADMIN_TOKEN));
        Self { clock, host, receiver, api }
    }

    fn now(&self) -> UnixMs {
        self.clock.now()
    }

    /// The present second.
    fn second(&self) -> i64 {
        self.now().0.div_euclid(1_000)
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.api.get(path).await.expect(200), wanted).await
    }
}

/// A refusal: this status, and JSON with a sentence in `error`.
fn refused(reply: &Reply, status: u16) -> String {
    let body = reply.expect(status);
    assert_eq!(reply.headers["content-type"], "application/json", "{body}");
    let error = body["error"].as_str().unwrap_or_else(|| panic!("no error: {body}"));
    assert!(error.len() > 5, "{error}");
    error.to_owned()
}

/// The names of a JSON object's fields.
fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
