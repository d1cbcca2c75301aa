//! A handler that runs to its end: in the task of its connection as long as that one waits for it, afterwards in a task of its own.
//!
//! A task for each request would do the same, but each spawn may wake a second thread, which then competes for the request.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Future of a handler. Dropped before its end, it goes on in a task.
pub(super) struct Handler<T: Send + 'static> {
    /// `None` once the work has ended, and while it is polled: work that panics is not polled again.
    work: Option<Work<T>>,
    /// Counts the handler among those that a graceful stop waits for.
    token: Option<TaskTrackerToken>,
    runtime: Handle,
}

impl<T: Send + 'static> Handler<T> {
    /// Creates a handler that `tracker` counts until its end.
    pub(super) fn new(tracker: &TaskTracker, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), token: Some(tracker.token()), runtime: Handle::current() }
    }
}

impl<T: Send + 'static> Future for Handler<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        } else {
            self.token = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Handler<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            let token = self.token.take();
            self.runtime.spawn(async move {
                drop(work.await);
                drop(token);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{FutureExt as _, poll};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn handler_that_is_waited_for_returns_its_result() {
        let tracker = TaskTracker::new();
        assert_eq!(Handler::new(&tracker, async { 7 }).await, 7);
        assert!(tracker.is_empty());
    }

    #[tokio::test]
    async fn handler_dropped_at_an_await_runs_to_its_end_and_is_tracked() {
        let (tracker, go_on, ended) = (TaskTracker::new(), Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let work = {
            let (go_on, ended) = (Arc::clone(&go_on), Arc::clone(&ended));
            async move {
                go_on.notified().await;
                ended.fetch_add(1, Ordering::SeqCst);
            }
        };
        let mut handler = Box::pin(Handler::new(&tracker, work));
        assert!(poll!(&mut handler).is_pending());
        drop(handler);
        tracker.close();
        assert_eq!(tracker.len(), 1, "a stop waits for it");
        go_on.notify_one();
        tracker.wait().await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn handler_dropped_before_its_first_poll_runs() {
        let (tracker, ended) = (TaskTracker::new(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&ended);
        drop(Handler::new(&tracker, async move { counted.fetch_add(1, Ordering::SeqCst) }));
        tracker.close();
        tracker.wait().await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn handler_that_panics_is_not_run_again() {
        let (tracker, polls) = (TaskTracker::new(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&polls);
        let handler = Handler::new(&tracker, async move {
            assert_eq!(counted.fetch_add(1, Ordering::SeqCst), 1, "panics at the first poll");
        });
        std::panic::AssertUnwindSafe(handler).catch_unwind().await.unwrap_err();
        tracker.close();
        tracker.wait().await;
        assert_eq!(polls.load(Ordering::SeqCst), 1);
    }
}
