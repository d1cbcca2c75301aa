//! Batches: many callers' work in one transaction.
//!
//! A transaction costs several round trips to the database and a flush of its disk, whatever its size. So each of a few workers takes all
//! waiting calls (up to [`BATCH_CALLS`] and [`BATCH_ROWS`]) and runs them together, while the others do the same with later calls.
//!
//! No call gets `Ok` before its transaction is committed. If calls fail together, they are run one by one, so that each caller gets its own
//! result. The queue is bounded: callers wait when the database is slower than they are.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::error::Failure;
use super::transaction::{Database, Verb};
use carillon_store::StoreError;

/// Largest number of calls in one transaction.
const BATCH_CALLS: usize = 512;

/// Number of rows at which a transaction takes no further call.
const BATCH_ROWS: usize = 2_000;

/// Largest number of calls in the queue; further callers wait until it has room.
const QUEUE_CALLS: usize = 1_024;

/// Number of transactions of one kind that run at the same time.
const WORKERS: usize = 3;

/// A call that can share a transaction with others of its kind.
#[async_trait]
pub(super) trait Shared: Send + Sync + Sized + 'static {
    /// Result of one call.
    type Done: Send + 'static;

    /// Returns how many rows the call writes.
    fn rows(&self) -> usize;

    /// Does the work of all calls; returns the result of each, in order.
    async fn run(db: &mut PgConnection, calls: &[&Self]) -> Result<Vec<Result<Self::Done, StoreError>>, Failure>;
}

/// Several calls combined into one verb.
struct Together<'a, C>(Vec<&'a C>);

#[async_trait]
impl<C: Shared> Verb for Together<'_, C> {
    type Done = Vec<Result<C::Done, StoreError>>;

    async fn run(&self, db: &mut PgConnection) -> Result<Self::Done, Failure> {
        C::run(db, &self.0).await
    }
}

/// A call, and the channel for its result.
struct QueuedCall<C: Shared> {
    call: C,
    reply: oneshot::Sender<Result<C::Done, StoreError>>,
}

type Queue<C> = Arc<Mutex<mpsc::Receiver<QueuedCall<C>>>>;

/// Callers' end of the queue.
pub(super) struct Batcher<C: Shared> {
    queue: Mutex<Option<mpsc::Sender<QueuedCall<C>>>>,
    workers: TaskTracker,
}

impl<C: Shared> std::fmt::Debug for Batcher<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").finish_non_exhaustive()
    }
}

impl<C: Shared> Batcher<C> {
    /// Starts the workers.
    pub(super) fn start(database: &Arc<Database>) -> Self {
        let (queue, calls) = mpsc::channel(QUEUE_CALLS);
        let calls = Arc::new(Mutex::new(calls));
        let workers = TaskTracker::new();
        for _ in 0..WORKERS {
            workers.spawn(work(Arc::clone(database), Arc::clone(&calls)));
        }
        workers.close();
        Self { queue: Mutex::new(Some(queue)), workers }
    }

    /// Runs a call, together with other waiting calls.
    pub(super) async fn call(&self, call: C) -> Result<C::Done, StoreError> {
        let shut_down = || StoreError::Unavailable("it is shutting down".to_owned());
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.lock().await.clone().ok_or_else(shut_down)?;
        queue.send(QueuedCall { call, reply }).await.map_err(|_| shut_down())?;
        drop(queue);
        answer.await.map_err(|_| shut_down())?
    }

    /// Refuses further calls and runs the waiting ones.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().await.take());
        self.workers.wait().await;
    }
}

async fn work<C: Shared>(database: Arc<Database>, queue: Queue<C>) {
    while let Some(batch) = next_batch(&queue).await {
        let calls: Vec<&C> = batch.iter().map(|waiting| &waiting.call).collect();
        let done = run(&database, &calls).await;
        for (waiting, done) in batch.into_iter().zip(done) {
            // A caller that has gone away does not need the result.
            let _ = waiting.reply.send(done);
        }
    }
}

/// Waits for a call and takes the calls that wait after it; None if no more can come.
async fn next_batch<C: Shared>(queue: &Queue<C>) -> Option<Vec<QueuedCall<C>>> {
    let mut queue = queue.lock().await;
    let first = queue.recv().await?;
    let mut rows = first.call.rows();
    let mut batch = vec![first];
    while batch.len() < BATCH_CALLS && rows < BATCH_ROWS {
        let Ok(next) = queue.try_recv() else { break };
        rows += next.call.rows();
        batch.push(next);
    }
    Some(batch)
}

async fn run<C: Shared>(database: &Database, calls: &[&C]) -> Vec<Result<C::Done, StoreError>> {
    let together = database.transact(&Together(calls.to_vec())).await;
    database.count(u64::try_from(calls.len()).unwrap_or(u64::MAX));
    match together {
        Ok(done) => done,
        Err(error) if calls.len() == 1 || matches!(error, StoreError::Unavailable(_)) => {
            calls.iter().map(|_| Err(error.clone())).collect()
        }
        Err(_) => {
            let mut done = Vec::with_capacity(calls.len());
            for call in calls {
                let alone = database.transact(&Together(vec![*call])).await;
                done.push(alone.and_then(|mut one| one.pop().unwrap_or_else(not_run)));
            }
            done
        }
    }
}

fn not_run<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the call was not run".to_owned()))
}
