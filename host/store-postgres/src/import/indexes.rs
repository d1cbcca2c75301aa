//! Indexes that are missing while rows are written.
//!
//! The schema says which indexes exist: they are dropped, and the database's definitions of them are kept until the indexes are made again.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::error::Failure;
use carillon_store::transfer::TABLES;

/// Selects all indexes except those of the keys.
///
/// A definition names the schema, too. The index of a partitioned table must cover its partitions as well.
const FIND: &str = "
    SELECT replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') AS definition, indexrelid::REGCLASS::TEXT AS name
    FROM pg_index JOIN pg_class AS indexed ON indexed.oid = indrelid
    WHERE NOT indisprimary AND relnamespace = quote_ident(current_schema())::REGNAMESPACE AND relname = ANY($1)";

const KEEP: &str = "UPDATE migration SET indexes = $1";

const KEPT: &str = "SELECT indexes FROM migration";

const FORGET: &str = "UPDATE migration SET indexes = array_remove(indexes, $1)";

/// Beginning of the definition of a unique index.
const UNIQUE: &str = "CREATE UNIQUE ";

/// Drops the indexes of all tables that are moved.
pub(super) async fn drop_all(db: &mut PgConnection) -> Result<(), Failure> {
    let tables: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    let mut definitions: Vec<String> = Vec::new();
    for row in sqlx::query(FIND).bind(tables).fetch_all(&mut *db).await? {
        definitions.push(row.try_get("definition")?);
        let name: &str = row.try_get("name")?;
        sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX {name}"))).execute(&mut *db).await?;
    }
    sqlx::query(KEEP).bind(definitions).execute(db).await?;
    Ok(())
}

/// Selection of the missing indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// All of them.
    All,
    /// Those that are not unique.
    NotUnique,
}

impl Missing {
    fn includes(self, definition: &str) -> bool {
        match self {
            Self::All => true,
            Self::NotUnique => !definition.starts_with(UNIQUE),
        }
    }
}

/// Makes missing indexes again.
pub(super) async fn restore(db: &mut PgConnection, selection: Missing) -> Result<(), Failure> {
    let missing: Vec<String> = sqlx::query(KEPT).fetch_one(&mut *db).await?.try_get("indexes")?;
    for definition in missing.into_iter().filter(|definition| selection.includes(definition)) {
        let mut transaction = db.begin().await?;
        sqlx::raw_sql(AssertSqlSafe(definition.clone())).execute(&mut *transaction).await?;
        sqlx::query(FORGET).bind(definition).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}
