//! Requests, payloads and earlier attempts of claimed jobs in a database of which a page is damaged: each job's are read by themselves, so that
//! a job that cannot be read keeps no other one from being claimed.
//!
//! They are read on another connection, after the claim is committed: SQLite commits no transaction in which a damaged page was read.

use std::collections::HashMap;

use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::db::Statement;
use super::error::Failure;
use carillon_store::StoreError;
use carillon_store::decode::Columns as _;

/// Text in claiming statements after which they return the columns of `job`, and then those of `job_spec`.
const RETURNING: &str = "RETURNING *";

const CONTENT: &str = "SELECT spec, body FROM job_spec WHERE job = ?1";

/// How requests and payloads are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// By the statement that claims the jobs. It fails for all of them if one cannot be read.
    Together,
    /// After its transaction, one job after the other.
    Apart,
}

impl Reading {
    /// Returns the statement that claims, from the one that also reads.
    pub(super) fn statement(self, sql: &str) -> String {
        match (self, sql.split_once(RETURNING)) {
            (Self::Apart, Some((claim, _))) => format!("{claim}{RETURNING}"),
            _ => sql.to_owned(),
        }
    }
}

/// Rows of `job_spec`, or why they cannot be read, by the id of the job.
#[derive(Default)]
pub(super) struct Contents(HashMap<Vec<u8>, Result<SqliteRow, StoreError>>);

impl Contents {
    /// Reads what belongs to a job, and returns its earlier attempts.
    ///
    /// # Errors
    /// Returns an error that is not about this job alone.
    pub(super) async fn read(
        &mut self,
        reader: &mut SqliteConnection,
        job: &SqliteRow,
        earlier: Vec<Statement<'static>>,
    ) -> Result<Vec<SqliteRow>, Failure> {
        let id = job.bytes("id")?.to_vec();
        let content = sqlx::query(CONTENT).bind(id.clone());
        let mut content = content.fetch_one(&mut *reader).await.map_err(Failure::from);
        let mut history = Vec::new();
        for statement in earlier {
            match statement.fetch_all(&mut *reader).await.map_err(Failure::from) {
                Ok(rows) => history.extend(rows),
                Err(failure) => content = Err(failure),
            }
        }
        let content = match content {
            Err(Failure(error @ StoreError::Corrupt(_))) => Err(error),
            other => Ok(other?),
        };
        self.0.insert(id, content);
        Ok(history)
    }

    /// Returns the row of a job.
    pub(super) fn of(&self, job: &SqliteRow) -> Result<&SqliteRow, Failure> {
        match self.0.get(job.bytes("id")?.as_ref()) {
            Some(Ok(row)) => Ok(row),
            Some(Err(error)) => Err(Failure(error.clone())),
            None => Err(Failure(StoreError::Corrupt("the job has no request".to_owned()))),
        }
    }
}
