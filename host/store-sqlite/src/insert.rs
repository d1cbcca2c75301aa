//! Inserts: many callers' jobs in few statements.
//!
//! Jobs without a condition are merged over all callers. Jobs that [`admit`] must decide come after them, one caller at a time.

use tokio::sync::oneshot;

use super::admit;
use super::db::Db;
use super::error::Failure;
use super::job_rows::{self, Row};
use super::transaction::Transaction;
use carillon_store::{IdempotentRequest, Insert, InsertOutcome, InsertResult, StoreError, are_unconditional};

/// One caller's insert.
pub(super) struct InsertCall {
    pub(super) rows: Vec<Row>,
    pub(super) once: Option<IdempotentRequest>,
    done: Result<InsertResult, StoreError>,
    reply: oneshot::Sender<Result<InsertResult, StoreError>>,
}

impl InsertCall {
    pub(super) fn new(
        insert: Insert,
        reply: oneshot::Sender<Result<InsertResult, StoreError>>,
    ) -> Result<Self, StoreError> {
        let done = Ok(InsertResult::Placed(Vec::new()));
        Ok(Self { rows: job_rows::rows(insert.jobs)?, once: insert.once, done, reply })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether all of its jobs are stored without a condition.
    fn is_plain(&self) -> bool {
        self.once.is_none() && are_unconditional(&self.rows)
    }

    /// Sends the result to the caller.
    pub(super) fn answer(self, committed: Result<(), StoreError>) {
        // A caller that has gone away does not need the result.
        let _ = self.reply.send(committed.and(self.done));
    }
}

/// Runs the plain calls together and, if that fails, one by one, so that each caller gets its own result; then the other calls.
pub(super) async fn run(transaction: &mut Transaction<'_>, calls: &mut [InsertCall]) -> Result<(), Failure> {
    refuse_unknown_groups(transaction.begin_call(), calls).await?;
    let is_live_and_plain = |call: &&mut InsertCall| call.done.is_ok() && call.is_plain();
    let mut plain: Vec<&mut InsertCall> = calls.iter_mut().filter(is_live_and_plain).collect();
    let all: Vec<&Row> = plain.iter().flat_map(|call| &call.rows).collect();
    let together = write_call(transaction, &all).await?;
    for call in &mut plain {
        let own: Vec<&Row> = call.rows.iter().collect();
        let done = if together.is_ok() { Ok(()) } else { write_call(transaction, &own).await? };
        call.done =
            done.map(|()| InsertResult::Placed(call.rows.iter().map(|row| InsertOutcome::stored(&row.job)).collect()));
    }
    for call in calls.iter_mut().filter(|call| call.done.is_ok() && !call.is_plain()) {
        let result = admit::place(transaction.begin_call(), &call.rows, call.once.as_ref()).await;
        call.done = transaction.end_call(result).await?;
    }
    Ok(())
}

async fn write_call(transaction: &mut Transaction<'_>, rows: &[&Row]) -> Result<Result<(), StoreError>, Failure> {
    if rows.is_empty() {
        return Ok(Ok(()));
    }
    let result = job_rows::write(transaction.begin_call(), rows).await;
    transaction.end_call(result).await
}

async fn refuse_unknown_groups(db: &mut Db, calls: &mut [InsertCall]) -> Result<(), Failure> {
    let live = job_rows::live_groups(db, calls.iter().flat_map(|call| &call.rows)).await?;
    for call in calls {
        if !live.accept(&call.rows) {
            call.done = Err(StoreError::NoSuchGroup);
        }
    }
    Ok(())
}
