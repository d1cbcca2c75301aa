//! Target of a migration: a database that is filled from another one.
//!
//! From [`PostgresTarget::begin`] to [`PostgresTarget::complete`] the database carries the mark of an unfinished migration, the table
//! `migration`, and no node serves from it (`open.rs`). The written rows are the migration's only other state: they are written in the order
//! of keys, so the greatest key is the progress.
//!
//! Until the rows are written, the tables have no index but their keys, which makes writing them several times as fast. The unique indexes
//! come back last: as long as the source changes, its pages are not consistent with each other, and two of them may hold values that the
//! source never holds at one time.

mod indexes;
mod rows;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use self::indexes::Missing;
use super::error::Failure;
use super::migration_mark::{LOOK, STAGE, Stage};
use super::{PostgresOptions, locks, open};
use carillon_store::StoreError;
use carillon_store::transfer::{Cell, Counters, Key, PageRange, Row, RowDigest, TABLES, Table};

/// A database to fill.
#[derive(Debug)]
pub struct PostgresTarget {
    db: PgConnection,
}

impl PostgresTarget {
    /// Connects; nothing is written yet.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn connect(options: &PostgresOptions) -> Result<Self, StoreError> {
        let mut db = open::connect(options).await?;
        sqlx::raw_sql(open::SESSION).execute(&mut db).await.map_err(Failure::from)?;
        // Rows that a crash of the database undoes are written again. The end of the migration is flushed, and all before it.
        sqlx::raw_sql(open::NORMAL).execute(&mut db).await.map_err(Failure::from)?;
        Ok(Self { db })
    }

    /// Returns the stage of the migration from this source; None if it has not begun.
    ///
    /// # Errors
    /// Returns [`StoreError::Conflict`] if the database is in use, or is filled from another source; [`StoreError::Corrupt`] if it belongs to
    /// another program.
    pub async fn look(&mut self, source: &str) -> Result<Option<Stage>, StoreError> {
        Ok(look(&mut self.db, source).await?)
    }

    /// Makes the tables and marks the database, unless that was done before.
    ///
    /// No other migration into the database can run until this target is dropped.
    ///
    /// # Errors
    /// As [`PostgresTarget::look`]; [`StoreError::Unavailable`] if another migration into the database runs.
    pub async fn begin(&mut self, source: &str) -> Result<Stage, StoreError> {
        take(&mut self.db).await?;
        let stage = look(&mut self.db, source).await?;
        open::migrate(&mut self.db).await?;
        match stage {
            Some(stage) => Ok(stage),
            None => Ok(mark(&mut self.db, source).await?),
        }
    }

    /// Returns the key of the last row.
    ///
    /// # Errors
    /// Returns an error if the database cannot be reached or read, as all other methods do.
    pub async fn last_key(&mut self, table: &Table) -> Result<Option<Key>, StoreError> {
        Ok(rows::last_key(&mut self.db, table).await?)
    }

    /// Counts the rows of a table.
    ///
    /// # Errors
    /// As [`PostgresTarget::last_key`].
    pub async fn count(&mut self, table: &Table) -> Result<u64, StoreError> {
        Ok(rows::count(&mut self.db, table).await?)
    }

    /// Removes rows and writes others, all or none.
    ///
    /// # Errors
    /// As [`PostgresTarget::last_key`].
    pub async fn write(&mut self, table: &Table, gone: &[&[Cell]], new: &[&Row]) -> Result<(), StoreError> {
        let mut transaction = self.db.begin().await.map_err(Failure::from)?;
        rows::delete(&mut transaction, table, gone).await?;
        rows::insert(&mut transaction, table, new).await?;
        Ok(transaction.commit().await.map_err(Failure::from)?)
    }

    /// Returns the keys of all rows in a range, in order, each with the digest of its row.
    ///
    /// # Errors
    /// As [`PostgresTarget::last_key`].
    pub async fn digests(&mut self, table: &Table, range: PageRange<'_>) -> Result<Vec<(Key, RowDigest)>, StoreError> {
        Ok(rows::digests(&mut self.db, table, range).await?)
    }

    /// Makes the indexes again, except the unique ones, after all rows were written once.
    ///
    /// # Errors
    /// As [`PostgresTarget::last_key`].
    pub async fn copied(&mut self) -> Result<(), StoreError> {
        indexes::restore(&mut self.db, Missing::NotUnique).await?;
        sqlx::raw_sql("ANALYZE").execute(&mut self.db).await.map_err(Failure::from)?;
        set_stage(&mut self.db, Stage::Copied).await?;
        Ok(())
    }

    /// Makes the unique indexes again and sets the counters; returns the counters' new values.
    ///
    /// # Errors
    /// As [`PostgresTarget::last_key`]; [`StoreError::Conflict`] if a unique value exists twice.
    pub async fn settle(&mut self, counters: Counters) -> Result<Counters, StoreError> {
        indexes::restore(&mut self.db, Missing::All).await?;
        let query = sqlx::query(SET_COUNTERS).bind(counters.entity).bind(counters.generation);
        query.execute(&mut self.db).await.map_err(Failure::from)?;
        self.counters().await
    }

    /// Returns the counters that are not stored in rows.
    ///
    /// # Errors
    /// As [`PostgresTarget::last_key`].
    pub async fn counters(&mut self) -> Result<Counters, StoreError> {
        let row = sqlx::query(COUNTERS).fetch_one(&mut self.db).await.map_err(Failure::from)?;
        let number = |column| row.try_get(column).map_err(Failure::from);
        Ok(Counters { entity: number("entity")?, generation: number("generation")? })
    }

    /// Removes the mark, so that nodes may serve from the database.
    ///
    /// Returns when the removal, and everything before it, is on disk.
    ///
    /// # Errors
    /// As [`PostgresTarget::last_key`].
    pub async fn complete(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("RESET synchronous_commit").execute(&mut self.db).await.map_err(Failure::from)?;
        sqlx::raw_sql(open::FULL).execute(&mut self.db).await.map_err(Failure::from)?;
        set_stage(&mut self.db, Stage::Complete).await?;
        Ok(())
    }
}

/// The lock belongs to the connection, and is released with it.
const TAKE: &str = "SELECT pg_advisory_lock($1, $2)";

/// The server notices only after a moment that the previous run, which has just ended, is gone.
const LOCK_WAIT: &str = "SET lock_timeout = '5s'";

/// SQLSTATE of a lock that was not acquired in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Makes the table of the mark.
///
/// Only databases that are filled from others have this table, so the migrations of the schema do not make it. `indexes` are the missing
/// indexes, as statements.
const MARK: &str = "
    CREATE TABLE migration (
        one     BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
        source  TEXT    NOT NULL,
        stage   TEXT    NOT NULL CHECK (stage IN ('copying', 'copied', 'complete')),
        indexes TEXT[]  NOT NULL DEFAULT '{}'
    )";

const NAME_SOURCE: &str = "INSERT INTO migration (source, stage) VALUES ($1, $2)";

const SET_STAGE: &str = "UPDATE migration SET stage = $1";

/// PostgreSQL returns nothing for an identity that has never given an id.
const COUNTERS: &str = "
    SELECT generation, coalesce(pg_sequence_last_value(pg_get_serial_sequence('entity', 'id')::REGCLASS), 0) AS entity
    FROM carillon";

const SET_COUNTERS: &str = "
    WITH entity AS (
        SELECT setval(pg_get_serial_sequence('entity', 'id'), greatest($1, 1), $1 > 0)
    )
    UPDATE carillon SET generation = $2 FROM entity";

async fn take(db: &mut PgConnection) -> Result<(), Failure> {
    sqlx::raw_sql(LOCK_WAIT).execute(&mut *db).await?;
    let taken = sqlx::query(TAKE).bind(locks::CLASS).bind(locks::MIGRATION).execute(&mut *db).await;
    sqlx::raw_sql("RESET lock_timeout").execute(db).await?;
    match taken {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            Err(StoreError::Unavailable("another migration into this database runs".to_owned()).into())
        }
        taken => Ok(taken.map(|_| ())?),
    }
}

async fn look(db: &mut PgConnection, source: &str) -> Result<Option<Stage>, Failure> {
    open::refuse_foreign(db).await?;
    let row = sqlx::query(LOOK).fetch_one(&mut *db).await?;
    if !row.try_get::<bool, _>("ours")? {
        return Ok(None);
    }
    if !row.try_get::<bool, _>("marked")? {
        refuse_used(db).await?;
        return Ok(None);
    }
    let row = sqlx::query(STAGE).fetch_one(db).await?;
    if row.try_get::<&str, _>("source")? != source {
        let text = "the database was filled from another one: make an empty database for this migration";
        return Err(StoreError::Conflict(text.to_owned()).into());
    }
    Ok(Some(Stage::read(row.try_get("stage")?)?))
}

async fn refuse_used(db: &mut PgConnection) -> Result<(), Failure> {
    for table in &TABLES {
        if rows::last_key(db, table).await?.is_some() {
            let text = "the database is in use: make an empty one for the migration";
            return Err(StoreError::Conflict(text.to_owned()).into());
        }
    }
    Ok(())
}

async fn mark(db: &mut PgConnection, source: &str) -> Result<Stage, Failure> {
    let mut transaction = db.begin().await?;
    sqlx::raw_sql(MARK).execute(&mut *transaction).await?;
    sqlx::query(NAME_SOURCE).bind(source).bind(Stage::Copying.as_str()).execute(&mut *transaction).await?;
    indexes::drop_all(&mut transaction).await?;
    // Dropping the indexes has locked the tables, so that no other session writes between this check and the commit.
    refuse_used(&mut transaction).await?;
    transaction.commit().await?;
    Ok(Stage::Copying)
}

async fn set_stage(db: &mut PgConnection, stage: Stage) -> Result<(), Failure> {
    sqlx::query(SET_STAGE).bind(stage.as_str()).execute(db).await?;
    Ok(())
}
