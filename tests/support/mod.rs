//! What the tests stand on: a host, a receiver, a clock, a client, and the program itself.

mod client;
mod clock;
mod host;
mod page;
mod program;
mod raw;
mod receiver;
mod registry;
mod stream;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use carillon_testing::postgres::{Cluster, Stop, free_port};
pub use client::{Api, Reply, id_of};
pub use clock::{ManualClock, SkewedClock, ms};
pub use host::{ADMIN_TOKEN, MASTER_KEY, Setup, TestHost};
pub use page::{blocks, shell, without_variables};
pub use program::{Finished, Program, run};
pub use raw::{RawReceiver, read_request};
pub use receiver::{Answer, Arrival, Gate, Receiver};
pub use registry::Registry;
pub use stream::kinds;

/// The longest that a test waits for something that must happen. Nothing depends on how long it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A pause between two looks at something that gives no signal.
pub const LOOK_AGAIN: Duration = Duration::from_millis(5);

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
