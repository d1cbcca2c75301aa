//! The real program as a process of its own: killed, stopped, and fed with hostile policies.

mod hostile;
mod killed;
pub mod ledger;
pub mod process;
pub mod receiver;
mod stopped;

use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at something that is to happen.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until `happened` gives something.
async fn until<T>(what: &str, mut happened: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = happened().await {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{what} does not happen"))
}
