//! The writer: a task that owns the only writing connection, and commits many callers' work together.
//!
//! A commit costs a flush of the disk, whatever its size. So the task takes all waiting calls (up to [`BATCH_CALLS`] and [`BATCH_ROWS`]),
//! runs them in one transaction, commits once and then sends the results. Invariants:
//!
//! - No call gets `Ok` before its transaction is on disk.
//! - A call that fails undoes only itself ([`Transaction`]). Waiting inserts are merged into one call, and so are waiting settlements; they
//!   run one by one only if that fails.
//! - If only settlements wait, they are one message to SQLite's thread, transaction included; only if that fails do they run like the other
//!   calls.
//! - If the transaction itself fails, every call in it fails and none of its changes remains.
//! - Calls wait in the order in which they begin, so that a claim sees the settlements that began before it.
//! - The queue is bounded: callers wait when the disk is slower than they are.
//! - The write-ahead log is bounded ([`Log`]), however long readers read.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::db::Db;
use super::error::Failure;
use super::file;
use super::insert::{self, InsertCall};
use super::open::LOG_BYTES;
use super::readers::Readers;
use super::settle::{self, SettleCall};
use super::transaction::Transaction;
use carillon_store::{CommitStats, Insert, InsertResult, SettleOutcome, StoreError};

/// Largest number of calls in one transaction.
const BATCH_CALLS: usize = 512;

/// Number of inserted or settled jobs at which a transaction takes no further call: a claim after them must not wait long.
const BATCH_ROWS: usize = 2_000;

/// Largest number of calls in the queue; further callers wait until it has room.
const QUEUE_CALLS: usize = 1_024;

/// Work of a verb on the connection, inside the transaction.
pub(super) trait Work<T>: for<'c> FnOnce(&'c mut Db) -> BoxFuture<'c, Result<T, Failure>> + Send {}

impl<T, F> Work<T> for F where F: for<'c> FnOnce(&'c mut Db) -> BoxFuture<'c, Result<T, Failure>> + Send {}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    calls: AtomicU64,
    largest: AtomicU64,
}

/// Callers' end of the queue.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Call>,
    closing: CancellationToken,
    task: TaskTracker,
    counters: Arc<Counters>,
}

impl Writer {
    /// Starts the task, which holds `lock` until the connection is closed.
    pub(super) fn start(connection: SqliteConnection, log: Log, lock: File) -> Self {
        let (queue, calls) = mpsc::channel(QUEUE_CALLS);
        let closing = CancellationToken::new();
        let counters = Arc::new(Counters::default());
        let task = TaskTracker::new();
        let writing =
            Loop { db: Db::new(connection), calls, closing: closing.clone(), counters: Arc::clone(&counters), log };
        task.spawn(writing.run(lock));
        task.close();
        Self { queue, closing, task, counters }
    }

    /// Runs `work` in a transaction; returns when it is committed.
    pub(super) async fn call<T: Send + 'static>(&self, work: impl Work<T> + 'static) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let call = WorkCall { work: Some(work), done: None, reply };
        self.submit(Call::Work(Box::new(call)), answer).await
    }

    /// Inserts jobs, together with the other waiting inserts.
    pub(super) async fn insert(&self, insert: Insert) -> Result<InsertResult, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Call::Insert(InsertCall::new(insert, reply)?), answer).await
    }

    /// Settles attempts, together with the other waiting settlements.
    pub(super) async fn settle(&self, settlements: Vec<settle::Row>) -> Result<Vec<SettleOutcome>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Call::Settle(SettleCall::new(settlements, reply)), answer).await
    }

    async fn submit<T>(&self, call: Call, answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        let shut_down = || StoreError::Unavailable("it is shutting down".to_owned());
        self.queue.send(call).await.map_err(|_| shut_down())?;
        answer.await.map_err(|_| shut_down())?
    }

    /// Copies the write-ahead log into the database, and restarts the log.
    pub(super) async fn shorten_log(&self) {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Call::ShortenLog(reply)).await.is_ok() {
            // Without an answer the writer is shutting down, and shortens the log then.
            let _ = answer.await;
        }
    }

    /// Refuses further calls, runs the waiting ones, and closes the connection.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
    }

    pub(super) fn stats(&self) -> CommitStats {
        CommitStats {
            commits: self.counters.commits.load(Ordering::Relaxed),
            calls: self.counters.calls.load(Ordering::Relaxed),
            largest: self.counters.largest.load(Ordering::Relaxed),
        }
    }
}

/// One caller's request.
enum Call {
    Insert(InsertCall),
    Settle(SettleCall),
    Work(Box<dyn Answerable>),
    ShortenLog(oneshot::Sender<()>),
}

/// The write-ahead log, with its bound.
pub(super) struct Log {
    path: PathBuf,
    readers: Readers,
    /// Length in bytes above which the log is restarted.
    most: u64,
}

impl Log {
    /// Returns the log of the database in `path`.
    pub(super) fn new(path: PathBuf, readers: Readers) -> Self {
        Self { path, readers, most: u64::from(LOG_BYTES) }
    }

    /// Restarts the log if it has become too long; reads wait meanwhile.
    async fn bound(&mut self, db: &mut Db) {
        if file::log_len(&self.path) > self.most {
            self.shorten(db).await;
        }
    }

    async fn shorten(&mut self, db: &mut Db) {
        let _paused = self.readers.pause().await;
        if let Err(error) = db.execute(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")).await {
            tracing::warn!(%error, "checkpoint of the write-ahead log failed");
        }
        // Another program, such as a backup, may also read. The writer tries again only after the log has grown by the same amount.
        let len = file::log_len(&self.path);
        self.most = len + u64::from(LOG_BYTES);
        if len > u64::from(LOG_BYTES) {
            tracing::warn!(bytes = len, "write-ahead log cannot be truncated while another program reads the database");
        }
    }
}

/// A [`WorkCall`] of any type.
trait Answerable: Send {
    /// Does the work in the transaction and keeps the result.
    fn run<'c>(&'c mut self, transaction: &'c mut Transaction<'_>) -> BoxFuture<'c, Result<(), Failure>>;

    /// Sends the caller the result, if the transaction was committed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct WorkCall<T, W> {
    work: Option<W>,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, W: Work<T>> Answerable for WorkCall<T, W> {
    fn run<'c>(&'c mut self, transaction: &'c mut Transaction<'_>) -> BoxFuture<'c, Result<(), Failure>> {
        Box::pin(async move {
            if let Some(work) = self.work.take() {
                let result = work(transaction.begin_call()).await;
                self.done = Some(transaction.end_call(result).await?);
            }
            Ok(())
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (committed, self.done) {
            (Ok(()), Some(done)) => done,
            (Ok(()), None) => Err(StoreError::Unavailable("the call was not run".to_owned())),
            (Err(error), _) => Err(error),
        };
        // A caller that has gone away does not need the result.
        let _ = self.reply.send(result);
    }
}

/// Calls that share a transaction.
#[derive(Default)]
struct Batch {
    inserts: Vec<InsertCall>,
    settlements: Vec<SettleCall>,
    work: VecDeque<Box<dyn Answerable>>,
    shorten_log: Vec<oneshot::Sender<()>>,
    rows: usize,
}

impl Batch {
    fn add(&mut self, call: Call) {
        match call {
            Call::Insert(insert) => {
                self.rows += insert.len();
                self.inserts.push(insert);
            }
            Call::Settle(settle) => {
                self.rows += settle.len();
                self.settlements.push(settle);
            }
            Call::Work(work) => self.work.push_back(work),
            Call::ShortenLog(reply) => self.shorten_log.push(reply),
        }
    }

    fn calls(&self) -> usize {
        self.inserts.len() + self.settlements.len() + self.work.len()
    }

    fn is_full(&self) -> bool {
        self.calls() >= BATCH_CALLS || self.rows >= BATCH_ROWS
    }

    /// Inserts and settlements run first, so that a claim in the same transaction sees them.
    async fn run(&mut self, db: &mut Db) -> Result<(), Failure> {
        let only_settles = self.inserts.is_empty() && self.work.is_empty();
        if only_settles && settle::run_alone(db, &mut self.settlements).await {
            return Ok(());
        }
        let mut transaction = Transaction::begin(db);
        if !self.inserts.is_empty() {
            insert::run(&mut transaction, &mut self.inserts).await?;
        }
        if !self.settlements.is_empty() {
            settle::run(&mut transaction, &mut self.settlements).await?;
        }
        for work in &mut self.work {
            work.run(&mut transaction).await?;
        }
        transaction.commit().await
    }

    fn answer(self, committed: &Result<(), StoreError>) {
        for insert in self.inserts {
            insert.answer(committed.clone());
        }
        for settle in self.settlements {
            settle.answer(committed.clone());
        }
        for work in self.work {
            work.answer(committed.clone());
        }
    }
}

/// Task's end of the queue.
struct Loop {
    db: Db,
    calls: mpsc::Receiver<Call>,
    closing: CancellationToken,
    counters: Arc<Counters>,
    log: Log,
}

impl Loop {
    async fn run(mut self, lock: File) {
        while let Some(mut batch) = self.next_batch().await {
            let asked = std::mem::take(&mut batch.shorten_log);
            if batch.calls() > 0 {
                self.commit(batch).await;
            }
            if asked.is_empty() {
                self.log.bound(&mut self.db).await;
            } else {
                self.log.shorten(&mut self.db).await;
            }
            drop(asked);
        }
        // Leaves a single file. A failure is harmless: the next open reads the log.
        if let Err(error) = self.db.execute(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")).await {
            tracing::warn!(%error, "final checkpoint failed; the next start makes it");
        }
        if let Err(error) = self.db.close().await {
            tracing::warn!(%error, "closing the database failed");
        }
        drop(lock);
    }

    /// Waits for a call and takes the calls that wait after it; None if no more can come.
    async fn next_batch(&mut self) -> Option<Batch> {
        let first = tokio::select! {
            biased;
            call = self.calls.recv() => call,
            () = self.closing.cancelled() => {
                self.calls.close();
                self.calls.recv().await
            }
        };
        let mut batch = Batch::default();
        batch.add(first?);
        while !batch.is_full() {
            match self.calls.try_recv() {
                Ok(call) => batch.add(call),
                Err(_) => break,
            }
        }
        Some(batch)
    }

    async fn commit(&mut self, mut batch: Batch) {
        let calls = u64::try_from(batch.calls()).unwrap_or(u64::MAX);
        let committed = batch.run(&mut self.db).await.map_err(StoreError::from);
        match &committed {
            Ok(()) => {
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.counters.calls.fetch_add(calls, Ordering::Relaxed);
                self.counters.largest.fetch_max(calls, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!(%error, calls, "transaction failed");
                self.db.roll_back().await;
            }
        }
        batch.answer(&committed);
    }
}
