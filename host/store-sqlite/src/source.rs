//! Reads a database in order to move it to another one; changes nothing in it.
//!
//! A server may write meanwhile: each page is read in a transaction of its own, so that the write-ahead log is never held back for long. The
//! pages are consistent with each other only while no server has the database open and this source holds its lock.

use std::fs::File;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};
use uuid::Uuid;

use super::SqliteOptions;
use super::error::Failure;
use super::migrations;
use super::{file, open};
use carillon_store::StoreError;
use carillon_store::decode::Columns as _;
use carillon_store::transfer::{Cell, Column, Counters, Form, Row, Table, labels_of, storable};

/// Size in bytes above which a page of rows ends, after the row that exceeds it.
const PAGE_BYTES: usize = 4 << 20;

/// Number of rows that the connection's thread may be ahead: a row may be as large as a payload.
const ROWS_AHEAD: usize = 16;

/// A database to read from.
#[derive(Debug)]
pub struct SqliteSource {
    db: SqliteConnection,
    /// Lock of the database, held as long as this lives, unless a server has it.
    lock: Option<File>,
}

impl SqliteSource {
    /// Opens the database in `path`, and keeps servers away from it as long as this lives, unless one has it open already.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if there is no database; [`StoreError::Corrupt`] if it is not one of this program and of this
    /// version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let named = |Failure(error): Failure| match error {
            StoreError::Corrupt(text) => StoreError::Corrupt(format!("`{}`: {text}", path.display())),
            StoreError::Unavailable(text) => StoreError::Unavailable(format!("`{}`: {text}", path.display())),
            other => other,
        };
        if !path.is_file() {
            return Err(StoreError::Unavailable(format!("`{}` is not a file", path.display())));
        }
        let path = &file::resolve(path)?;
        let lock = file::try_lock(path)?;
        let db = Self::connect(path).await.map_err(named)?;
        Ok(Self { db, lock })
    }

    async fn connect(path: &Path) -> Result<SqliteConnection, Failure> {
        let options = open::reading(&SqliteOptions::new(PathBuf::from(path)));
        let mut db = options.row_buffer_size(ROWS_AHEAD).connect().await?;
        open::refuse_foreign(&mut db).await?;
        let known = migrations::newest();
        let found = sqlx::query(SCHEMA_VERSION).fetch_one(&mut db).await?;
        let found: Option<i64> = found.try_get("version")?;
        if found != Some(known) {
            let found = found.unwrap_or(0);
            let text = format!(
                "its schema has version {found}, this program's is {known}: run `carillon serve` of this version on it once"
            );
            return Err(StoreError::Corrupt(text).into());
        }
        Ok(db)
    }

    /// Returns whether a server has the database open.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.lock.is_none()
    }

    /// Returns a fingerprint of this database and its copies, which no other database has.
    ///
    /// It is derived from the time when the first table was made.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read, as all other methods do.
    pub async fn fingerprint(&mut self) -> Result<String, StoreError> {
        let row = sqlx::query(FIRST_MIGRATION).fetch_one(&mut self.db).await.map_err(Failure::from)?;
        let made: String = row.try_get("made").map_err(Failure::from)?;
        Ok(hex::encode(Sha256::digest(made)))
    }

    /// Returns a number that changes whenever another connection has changed the database.
    ///
    /// # Errors
    /// As [`SqliteSource::fingerprint`].
    pub async fn version(&mut self) -> Result<i64, StoreError> {
        let row = sqlx::query("PRAGMA data_version").fetch_one(&mut self.db).await.map_err(Failure::from)?;
        Ok(row.try_get(0).map_err(Failure::from)?)
    }

    /// Counts the rows of a table.
    ///
    /// # Errors
    /// As [`SqliteSource::fingerprint`].
    pub async fn count(&mut self, table: &Table) -> Result<u64, StoreError> {
        let (from, condition) = table.source;
        let sql = format!("SELECT count(*) AS rows FROM {from} WHERE {condition}");
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut self.db).await.map_err(Failure::from)?;
        Ok(row.number("rows")?)
    }

    /// Returns the next rows after a key, or the first ones: at most `limit`, in the order of their keys.
    ///
    /// An empty page means that there are no more rows.
    ///
    /// # Errors
    /// As [`SqliteSource::fingerprint`].
    pub async fn page(&mut self, table: &Table, after: Option<&[Cell]>, limit: u32) -> Result<Vec<Row>, StoreError> {
        let mut query = sqlx::query(AssertSqlSafe(page_sql(table, after)));
        for cell in after.into_iter().flatten() {
            query = match cell {
                Cell::Null => query.bind(None::<i64>),
                Cell::Number(number) => query.bind(*number),
                Cell::Text(text) => query.bind(text.clone()),
                Cell::Bytes(bytes) => query.bind(bytes.clone()),
                Cell::Id(id) => query.bind(id.as_bytes().to_vec()),
            };
        }
        let (mut page, mut bytes) = (Vec::new(), 0);
        let mut found = query.bind(limit).fetch(&mut self.db);
        while bytes < PAGE_BYTES {
            let Some(row) = found.try_next().await.map_err(Failure::from)? else { break };
            let row = read(table, &row).map_err(|Failure(error)| in_table(table, error))?;
            bytes += row.size();
            page.push(row);
        }
        Ok(page)
    }

    /// Returns the counters that are not stored in rows.
    ///
    /// # Errors
    /// As [`SqliteSource::fingerprint`].
    pub async fn counters(&mut self) -> Result<Counters, StoreError> {
        let row = sqlx::query(COUNTERS).fetch_one(&mut self.db).await.map_err(Failure::from)?;
        let number = |column| row.try_get(column).map_err(Failure::from);
        Ok(Counters { entity: number("entity")?, generation: number("generation")? })
    }
}

const SCHEMA_VERSION: &str = "SELECT max(version) AS version FROM _sqlx_migrations WHERE success";

/// Duration of the first migration in nanoseconds, which is practically random.
const FIRST_MIGRATION: &str = "
    SELECT installed_on || ' ' || execution_time AS made FROM _sqlx_migrations ORDER BY version LIMIT 1";

const COUNTERS: &str = "
    SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entity'), 0) AS entity, number AS generation FROM generation";

/// Builds `SELECT id, … FROM job WHERE … AND (id) > (?) ORDER BY id LIMIT ?`.
fn page_sql(table: &Table, after: Option<&[Cell]>) -> String {
    // Labels are derived from the spec.
    let name = |column: &Column| if column.form == Form::Labels { "spec" } else { column.name };
    let list = |columns: &[Column]| columns.iter().map(name).collect::<Vec<_>>().join(", ");
    let (columns, key) = (list(table.columns), list(table.key()));
    let start = after.map(|_| format!("AND ({key}) > ({})", vec!["?"; table.key().len()].join(", ")));
    let start = start.unwrap_or_default();
    let (from, condition) = table.source;
    format!("SELECT {columns} FROM {from} WHERE {condition} {start} ORDER BY {key} LIMIT ?")
}

fn read(table: &Table, row: &SqliteRow) -> Result<Row, Failure> {
    let cells = table.columns.iter().enumerate().map(|(at, column)| cell(row, at, column.form));
    Ok(Row::new(table, cells.collect::<Result<_, _>>()?))
}

fn cell(row: &SqliteRow, at: usize, form: Form) -> Result<Cell, Failure> {
    let cell = match form {
        Form::Number => row.try_get::<Option<i64>, _>(at)?.map(Cell::Number),
        Form::Flag => row.try_get::<Option<i64>, _>(at)?.map(|flag| Cell::Number(i64::from(flag != 0))),
        Form::Text => row.try_get::<Option<&str>, _>(at)?.map(|text| Cell::Text(storable(text))),
        Form::Bytes => row.try_get::<Option<Vec<u8>>, _>(at)?.map(Cell::Bytes),
        Form::Id => {
            let id = row.try_get::<Option<&[u8]>, _>(at)?.map(Uuid::from_slice).transpose();
            id.map_err(|error| StoreError::Corrupt(error.to_string()))?.map(Cell::Id)
        }
        Form::Labels => row.try_get::<Option<&str>, _>(at)?.map(labels_of).transpose()?.flatten().map(Cell::Text),
    };
    Ok(cell.unwrap_or(Cell::Null))
}

fn in_table(table: &Table, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt(text) => StoreError::Corrupt(format!("a row of `{}`: {text}", table.source.0)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::SqliteStore;
    use carillon_store::Jobs as _;
    use carillon_store::transfer::TABLES;

    /// Columns that are not moved, each with the reason.
    const LEFT: [&str; 2] = [
        // Computed from others.
        "job.expires_at",
        // The numbers 0 to 9.
        "level.number",
    ];

    /// Columns whose values are in another table in PostgreSQL.
    const ELSEWHERE: [&str; 3] = ["generation.one", "generation.number", "generation.recent"];

    #[tokio::test]
    async fn every_column_is_moved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        SqliteStore::open(SqliteOptions::new(&path)).await.unwrap().close().await;
        let mut source = SqliteSource::open(&path).await.unwrap();
        let sql = "
            SELECT schema.name || '.' || info.name AS name
            FROM sqlite_schema AS schema, pragma_table_xinfo(schema.name) AS info
            WHERE schema.type = 'table' AND schema.name NOT LIKE 'sqlite_%' AND schema.name <> '_sqlx_migrations'";
        let found = sqlx::query(sql).fetch_all(&mut source.db).await.unwrap();
        let found: BTreeSet<String> = found.iter().map(|row| row.get("name")).collect();
        let moved = TABLES.iter().flat_map(|table| {
            let columns = table.columns.iter().filter(|column| column.form != Form::Labels);
            columns.map(|column| format!("{}.{}", table.source.0, column.name))
        });
        let known: BTreeSet<String> =
            moved.chain([&LEFT[..], &ELSEWHERE].concat().into_iter().map(str::to_owned)).collect();
        assert_eq!(found, known);
    }

    #[tokio::test]
    async fn servers_are_kept_away_and_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        assert!(matches!(SqliteSource::open(&path).await, Err(StoreError::Unavailable(_))));
        let store = SqliteStore::open(SqliteOptions::new(&path)).await.unwrap();
        assert!(SqliteSource::open(&path).await.unwrap().is_served());
        store.close().await;
        let source = SqliteSource::open(&path).await.unwrap();
        assert!(!source.is_served());
        assert!(matches!(SqliteStore::open(SqliteOptions::new(&path)).await, Err(StoreError::Unavailable(_))));
        drop(source);
        SqliteStore::open(SqliteOptions::new(&path)).await.unwrap().close().await;
    }

    #[tokio::test]
    async fn a_page_is_read_along_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        SqliteStore::open(SqliteOptions::new(&path)).await.unwrap().close().await;
        let mut source = SqliteSource::open(&path).await.unwrap();
        for table in &TABLES {
            let key = vec![Cell::Number(0); table.key().len()];
            for after in [None, Some(&*key)] {
                let sql = format!("EXPLAIN QUERY PLAN {}", page_sql(table, after));
                let mut query = sqlx::query(AssertSqlSafe(sql.clone()));
                for _ in after.into_iter().flatten() {
                    query = query.bind(0);
                }
                let plan = query.bind(1).fetch_all(&mut source.db).await.unwrap();
                let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
                assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{sql}: {plan:?}");
                assert_eq!(plan[0].starts_with("SEARCH"), after.is_some(), "{sql}: {plan:?}");
            }
        }
    }
}
