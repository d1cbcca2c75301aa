//! The threads that policies run on: never the threads of the API, the timer or the network.
//!
//! Work waits in lanes, one for each group, and the lanes take turns. So a group whose policy is slow waits behind itself: others
//! wait for at most one call of each lane in front of them.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::fault::{Blame, Fault, FaultCode};
use crate::job::GroupId;

type Work = Box<dyn FnOnce() + Send>;

/// The share of the whole queue that one lane may fill.
const LANE_SHARE: usize = 4;

/// A fixed number of threads behind a bounded queue.
pub struct PolicyThreads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared {
    lanes: Mutex<Lanes>,
    wake: Condvar,
    capacity: usize,
}

/// The waiting work. A lane is in `turns` exactly when it has work.
#[derive(Default)]
struct Lanes {
    work: HashMap<GroupId, VecDeque<Work>>,
    turns: VecDeque<GroupId>,
    len: usize,
    closed: bool,
}

impl Lanes {
    fn push(&mut self, lane: GroupId, work: Work, capacity: usize) -> bool {
        let waiting = self.work.get(&lane).map_or(0, VecDeque::len);
        if self.closed || self.len >= capacity || waiting >= (capacity / LANE_SHARE).max(1) {
            return false;
        }
        let queue = self.work.entry(lane).or_default();
        if queue.is_empty() {
            self.turns.push_back(lane);
        }
        queue.push_back(work);
        self.len += 1;
        true
    }

    fn pop(&mut self) -> Option<Work> {
        let lane = self.turns.pop_front()?;
        let queue = self.work.get_mut(&lane)?;
        let work = queue.pop_front()?;
        self.len -= 1;
        if queue.is_empty() {
            self.work.remove(&lane);
        } else {
            self.turns.push_back(lane);
        }
        Some(work)
    }
}

impl PolicyThreads {
    /// Starts `threads` threads in front of which at most `capacity` calls wait.
    ///
    /// # Errors
    /// If the operating system has no thread left.
    pub fn start(threads: usize, capacity: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { lanes: Mutex::default(), wake: Condvar::new(), capacity });
        let handles = (0..threads)
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("policy-{index}")).spawn(move || shared.work())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, handles })
    }

    /// Runs `work` in `lane`'s turn, unless nobody waits for it any more by then.
    ///
    /// # Errors
    /// [`FaultCode::Overloaded`] if the queue or the lane is full; `work` was not started then.
    pub async fn run<T, F>(&self, lane: GroupId, work: F) -> Result<T, Fault>
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
        if !self.shared.lock().push(lane, work, self.shared.capacity) {
            return Err(Fault::overloaded());
        }
        self.shared.wake.notify_one();
        receiver.await.map_err(|_| Fault {
            code: FaultCode::Unavailable,
            blame: Blame::Host,
            message: "the server failed while it called the policy".to_owned(),
        })
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().len
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut lanes = self.lock();
            let work = loop {
                if let Some(work) = lanes.pop() {
                    break work;
                }
                if lanes.closed {
                    return;
                }
                lanes = self.wake.wait(lanes).unwrap_or_else(PoisonError::into_inner);
            };
            drop(lanes);
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!("a policy call panicked in the host; its job is put back");
            }
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

    #[test]
    fn lanes_take_turns() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut lanes = Lanes::default();
        for (lane, label) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1")] {
            let order = Arc::clone(&order);
            assert!(lanes.push(GroupId(lane), Box::new(move || order.lock().unwrap().push(label)), 100));
        }
        while let Some(work) = lanes.pop() {
            work();
        }
        assert_eq!(*order.lock().unwrap(), ["a1", "b1", "c1", "a2", "a3"]);
        assert!(lanes.work.is_empty() && lanes.len == 0);
    }

    #[test]
    fn one_lane_cannot_fill_the_queue() {
        let mut lanes = Lanes::default();
        let pushed = (0..100).filter(|_| lanes.push(GroupId(1), Box::new(|| ()), 40)).count();
        assert_eq!(pushed, 10);
        assert!(lanes.push(GroupId(2), Box::new(|| ()), 40));
    }

    #[test]
    fn refused_work_leaves_nothing_behind() {
        let mut lanes = Lanes { closed: true, ..Lanes::default() };
        assert!(!lanes.push(GroupId(1), Box::new(|| ()), 40));
        assert!(lanes.work.is_empty());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_run() {
        let threads = PolicyThreads::start(1, 8).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut first = Box::pin(threads.run(GroupId(1), move || wait.recv()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mark = Arc::clone(&ran);
        let mut abandoned =
            Box::pin(threads.run(GroupId(2), move || mark.store(true, std::sync::atomic::Ordering::SeqCst)));
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        drop(abandoned);
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        threads.run(GroupId(2), || ()).await.unwrap();
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_call_only() {
        let threads = PolicyThreads::start(1, 8).unwrap();
        let fault = threads.run(GroupId(1), || panic!("host bug")).await.unwrap_err();
        assert_eq!(fault.blame, Blame::Host);
        assert_eq!(threads.run(GroupId(1), || 7).await, Ok(7));
    }
}
