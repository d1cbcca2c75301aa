//! Inserts: many callers' jobs in few statements, or one caller's jobs under conditions.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::batch::Shared;
use super::error::Failure;
use super::job_rows::{self, Row};
use super::transaction::Verb;
use super::{admit, locks};
use carillon_store::{IdempotentRequest, InsertOutcome, InsertResult, StoreError, are_unconditional};

/// Jobs that are stored without a condition.
pub(super) struct Plain(pub(super) Vec<Row>);

#[async_trait]
impl Shared for Plain {
    type Done = InsertResult;

    fn rows(&self) -> usize {
        self.0.len()
    }

    async fn run(db: &mut PgConnection, calls: &[&Self]) -> Result<Vec<Result<InsertResult, StoreError>>, Failure> {
        let live = job_rows::live_groups(db, calls.iter().flat_map(|call| &call.0)).await?;
        let is_live = |call: &&&Self| live.accept(&call.0);
        let rows: Vec<&Row> = calls.iter().filter(is_live).flat_map(|call| &call.0).collect();
        job_rows::write(db, &rows).await?;
        let done = |call: &&Self| {
            if is_live(&call) {
                Ok(InsertResult::Placed(call.0.iter().map(|row| InsertOutcome::stored(&row.job)).collect()))
            } else {
                Err(StoreError::NoSuchGroup)
            }
        };
        Ok(calls.iter().map(done).collect())
    }
}

/// Jobs, some of which are stored under a condition.
pub(super) struct Conditional {
    pub(super) rows: Vec<Row>,
    pub(super) once: Option<IdempotentRequest>,
}

/// Returns whether these jobs are stored without a condition.
pub(super) fn is_plain(rows: &[Row], once: Option<&IdempotentRequest>) -> bool {
    once.is_none() && are_unconditional(rows)
}

#[async_trait]
impl Verb for Conditional {
    type Done = InsertResult;

    async fn run(&self, db: &mut PgConnection) -> Result<InsertResult, Failure> {
        locks::take(db, admit::names(&self.rows, self.once.as_ref())).await?;
        let live = job_rows::live_groups(db, self.rows.iter()).await?;
        if !live.accept(&self.rows) {
            return Err(StoreError::NoSuchGroup.into());
        }
        admit::place(db, &self.rows, self.once.as_ref()).await
    }
}
