//! Wake-ups. They carry no data and may be lost: every loop also looks by itself.

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Wakes who waits for jobs.
#[derive(Debug, Default)]
pub struct Wake {
    here: Notify,
    elsewhere: Notify,
}

impl Wake {
    /// Jobs may be due that this node can take.
    pub fn here(&self) {
        self.here.notify_one();
    }

    /// Jobs may be due that any node can take.
    pub fn everywhere(&self) {
        self.here.notify_one();
        self.elsewhere.notify_one();
    }

    /// Waits for jobs that this node can take.
    pub fn woken(&self) -> Notified<'_> {
        self.here.notified()
    }

    /// Waits until other nodes are to be told.
    pub fn told(&self) -> Notified<'_> {
        self.elsewhere.notified()
    }
}
