//! Threads that policies run on: never the threads of the API, the timer or the network.
//!
//! Calls wait in [`lanes`], by tenant and group, which share the threads fairly.

mod lanes;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use self::lanes::FairQueue;
pub use self::lanes::QueueKey;
use super::fault::{Blame, Fault, FaultCode};
use carillon_core::clock::Stopwatch;

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    static THREAD_INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Returns the index of the calling policy thread, which determines its engine. Any other thread uses the first thread's engine.
pub(super) fn thread_index() -> usize {
    THREAD_INDEX.get()
}

/// Fixed number of threads behind a bounded queue.
pub struct PolicyThreads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

struct Queue {
    lanes: FairQueue<Work>,
    /// Number of threads that wait for work: to wake one costs a system call, whether it sleeps or not.
    idle: usize,
    closed: bool,
}

impl PolicyThreads {
    /// Starts `threads` threads with a queue of at most `capacity` calls. Their indices begin with `first_index`.
    ///
    /// # Errors
    /// Returns an error if the operating system cannot start a thread.
    pub fn start(threads: usize, capacity: usize, first_index: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { lanes: FairQueue::new(capacity), idle: 0, closed: false }),
            wake: Condvar::new(),
        });
        let handles = (first_index..first_index.saturating_add(threads))
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("policy-{index}")).spawn(move || {
                    THREAD_INDEX.set(index);
                    shared.work();
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, handles })
    }

    /// Runs `work` when it is `lane`'s turn, unless the caller no longer waits for it by then.
    ///
    /// # Errors
    /// Returns a fault with [`FaultCode::Overloaded`], without starting `work`, if the queue is full, or the share of it that the group or
    /// its tenant may fill.
    pub async fn run<T, F>(&self, lane: QueueKey, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move || {
            if !sender.is_closed() {
                drop(sender.send(work()));
            }
        });
        if !self.shared.push(lane, work) {
            return Err(Fault::overloaded());
        }
        receiver.await.map_err(|_| Fault {
            code: FaultCode::Unavailable,
            blame: Blame::Host,
            message: "the server failed while it called the policy".to_owned(),
        })
    }

    /// Returns the number of waiting calls.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().lanes.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds work to the queue; returns false if there is no room for it.
    fn push(&self, lane: QueueKey, work: Work) -> bool {
        let mut queue = self.lock();
        if queue.closed || !queue.lanes.push(lane, work) {
            return false;
        }
        let sleeps = queue.idle > 0;
        drop(queue);
        if sleeps {
            self.wake.notify_one();
        }
        true
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            let Some((tenant, work)) = queue.lanes.pop() else {
                if queue.closed {
                    return;
                }
                queue.idle += 1;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                continue;
            };
            drop(queue);
            let stopwatch = Stopwatch::start();
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!("policy call panicked in the host");
            }
            let time = stopwatch.elapsed();
            queue = self.lock();
            queue.lanes.done(tenant, time);
        }
    }
}

impl Drop for PolicyThreads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        for handle in self.handles.drain(..) {
            drop(handle.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::job::{GroupId, TenantId};

    const A: QueueKey = QueueKey { tenant: TenantId(1), group: GroupId(1) };
    const B: QueueKey = QueueKey { tenant: TenantId(1), group: GroupId(2) };

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_run() {
        let threads = PolicyThreads::start(1, 8, 0).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut first = Box::pin(threads.run(A, move || wait.recv()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mark = Arc::clone(&ran);
        let mut abandoned = Box::pin(threads.run(B, move || mark.store(true, std::sync::atomic::Ordering::SeqCst)));
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        drop(abandoned);
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        threads.run(B, || ()).await.unwrap();
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_call_only() {
        let threads = PolicyThreads::start(1, 8, 0).unwrap();
        let fault = threads.run(A, || panic!("host bug")).await.unwrap_err();
        assert_eq!(fault.blame, Blame::Host);
        assert_eq!(threads.run(A, || 7).await, Ok(7));
    }
}
