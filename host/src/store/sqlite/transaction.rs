//! The writer's transaction, in which each call can be undone by itself.
//!
//! A savepoint is open all the time. It is moved forward only when another call follows, together with other statements that are
//! due anyway: each statement costs a switch to the connection's thread and back.

use sqlx::sqlite::SqliteConnection;

use super::error::Failure;
use crate::store::StoreError;

/// An open transaction. Any error of its own means that all of it is lost, and that the owner must roll back.
pub(super) struct Transaction<'c> {
    connection: &'c mut SqliteConnection,
    /// Whether the open savepoint holds the changes of a call that succeeded.
    holds_changes: bool,
}

impl<'c> Transaction<'c> {
    pub(super) async fn begin(connection: &'c mut SqliteConnection) -> Result<Self, Failure> {
        sqlx::query("BEGIN IMMEDIATE; SAVEPOINT call").execute(&mut *connection).await?;
        Ok(Self { connection, holds_changes: false })
    }

    /// For the next call: what it does can be undone by itself, with [`Transaction::end_call`].
    pub(super) async fn begin_call(&mut self) -> Result<&mut SqliteConnection, Failure> {
        if self.holds_changes {
            sqlx::query("RELEASE call; SAVEPOINT call").execute(&mut *self.connection).await?;
            self.holds_changes = false;
        }
        Ok(self.connection)
    }

    /// Keeps what the call did, or undoes it if it failed.
    pub(super) async fn end_call<T>(&mut self, result: Result<T, Failure>) -> Result<Result<T, StoreError>, Failure> {
        if result.is_err() {
            sqlx::query("ROLLBACK TO call").execute(&mut *self.connection).await?;
        }
        self.holds_changes = result.is_ok();
        Ok(result.map_err(StoreError::from))
    }

    pub(super) async fn commit(self) -> Result<(), Failure> {
        sqlx::query("RELEASE call; COMMIT").execute(self.connection).await?;
        Ok(())
    }
}
