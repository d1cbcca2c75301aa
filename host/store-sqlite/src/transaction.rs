//! The writer's transaction, in which each call can be undone separately.
//!
//! A savepoint is always open. It is moved forward only when another call follows.

use super::db::Db;
use super::error::Failure;
use carillon_store::StoreError;

/// An open transaction.
///
/// Any error of the transaction itself means that all of it is lost, and that the owner must roll back.
pub(super) struct Transaction<'c> {
    db: &'c mut Db,
    /// Whether the open savepoint holds the changes of a call that succeeded.
    holds_changes: bool,
}

impl<'c> Transaction<'c> {
    pub(super) fn begin(db: &'c mut Db) -> Self {
        db.before_next("BEGIN IMMEDIATE; SAVEPOINT call");
        Self { db, holds_changes: false }
    }

    /// Begins a call, whose changes [`Transaction::end_call`] can undo separately.
    pub(super) fn begin_call(&mut self) -> &mut Db {
        if self.holds_changes {
            // If statements are still pending, none was run since, and there is nothing to keep.
            self.db.before_next("RELEASE call; SAVEPOINT call");
            self.holds_changes = false;
        }
        self.db
    }

    /// Keeps the changes of the call, or undoes them if it failed.
    ///
    /// If they cannot be undone, the whole transaction fails.
    pub(super) async fn end_call<T>(&mut self, result: Result<T, Failure>) -> Result<Result<T, StoreError>, Failure> {
        self.holds_changes = result.is_ok();
        if let Err(failure) = &result
            && self.db.execute(sqlx::query("ROLLBACK TO call")).await.is_err()
        {
            return Err(failure.clone());
        }
        Ok(result.map_err(StoreError::from))
    }

    pub(super) async fn commit(self) -> Result<(), Failure> {
        self.db.execute(sqlx::query("RELEASE call; COMMIT")).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnection;
    use sqlx::{AssertSqlSafe, Connection, Row as _};

    use super::*;

    async fn call(transaction: &mut Transaction<'_>, statements: &[&str]) -> Result<u64, StoreError> {
        let db = transaction.begin_call();
        let mut result = Ok(0);
        for statement in statements {
            result = db.execute(sqlx::query(AssertSqlSafe((*statement).to_owned()))).await;
            if result.is_err() {
                break;
            }
        }
        transaction.end_call(result.map_err(Failure::from)).await.unwrap()
    }

    #[tokio::test]
    async fn a_call_that_fails_undoes_itself_and_no_other() {
        let mut db = Db::new(SqliteConnection::connect("sqlite::memory:").await.unwrap());
        db.execute(sqlx::query("CREATE TABLE number (value INTEGER PRIMARY KEY)")).await.unwrap();
        for round in [0, 10] {
            let mut transaction = Transaction::begin(&mut db);
            let insert = |value: i32| format!("INSERT INTO number VALUES ({})", round + value);
            let (one, two, three) = (insert(1), insert(2), insert(3));
            let failed = call(&mut transaction, &["INSERT INTO number VALUES ('none')"]).await;
            failed.unwrap_err();
            assert_eq!(call(&mut transaction, &[]).await, Ok(0));
            assert_eq!(call(&mut transaction, &[&one, &two]).await, Ok(1), "what the last statement changed");
            call(&mut transaction, &[&three, &one]).await.unwrap_err();
            assert_eq!(call(&mut transaction, &["DELETE FROM number WHERE value > 1000"]).await, Ok(0));
            call(&mut transaction, &["no statement"]).await.unwrap_err();
            transaction.commit().await.unwrap();
        }
        Transaction::begin(&mut db).commit().await.unwrap();
        let rows = db.fetch_all(sqlx::query("SELECT value FROM number ORDER BY value")).await.unwrap();
        let values: Vec<i32> = rows.iter().map(|row| row.get("value")).collect();
        assert_eq!(values, [1, 2, 11, 12]);
    }
}
