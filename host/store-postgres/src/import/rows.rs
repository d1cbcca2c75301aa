//! Reads and writes rows of any table, with statements built from its columns.

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use crate::error::Failure;
use carillon_store::StoreError;
use carillon_store::decode::Columns as _;
use carillon_store::documents::to_json;
use carillon_store::transfer::{Cell, Column, Form, Key, PageRange, Row, RowDigest, Table};

pub(super) async fn count(db: &mut PgConnection, table: &Table) -> Result<u64, Failure> {
    let sql = format!("SELECT count(*) AS rows FROM {}", table.name);
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(db).await?;
    row.number("rows")
}

pub(super) async fn last_key(db: &mut PgConnection, table: &Table) -> Result<Option<Key>, Failure> {
    let descending: Vec<String> = table.key().iter().map(|column| format!("{} DESC", ordered(column))).collect();
    let sql = format!("SELECT {} FROM {} ORDER BY {} LIMIT 1", names(table.key()), table.name, descending.join(", "));
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(db).await?;
    row.map(|row| cells(&row, table.key())).transpose()
}

/// Only keys and digests are kept, not the rows: there may be many.
pub(super) async fn digests(
    db: &mut PgConnection,
    table: &Table,
    range: PageRange<'_>,
) -> Result<Vec<(Key, RowDigest)>, Failure> {
    let mut query = sqlx::query(AssertSqlSafe(range_sql(table, range)));
    for cell in [range.after, range.last].into_iter().flatten().flatten() {
        query = match cell {
            Cell::Null => query.bind(None::<i64>),
            Cell::Number(number) => query.bind(*number),
            Cell::Text(text) => query.bind(text.clone()),
            Cell::Bytes(bytes) => query.bind(bytes.clone()),
            Cell::Id(id) => query.bind(*id),
        };
    }
    let mut found = query.fetch(db);
    let mut digests = Vec::new();
    while let Some(row) = found.try_next().await? {
        let row = Row::new(table, cells(&row, table.columns)?);
        digests.push((row.key().to_vec(), row.digest()));
    }
    Ok(digests)
}

pub(super) async fn insert(db: &mut PgConnection, table: &Table, rows: &[&Row]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut query = sqlx::query(AssertSqlSafe(insert_sql(table)));
    for (at, column) in table.columns.iter().enumerate() {
        query = bind(query, column.form, rows.iter().map(|row| &row.cells[at]));
    }
    query.execute(db).await?;
    Ok(())
}

pub(super) async fn delete(db: &mut PgConnection, table: &Table, keys: &[&[Cell]]) -> Result<(), Failure> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut query = sqlx::query(AssertSqlSafe(delete_sql(table)));
    for (at, column) in table.key().iter().enumerate() {
        query = bind(query, column.form, keys.iter().map(|key| &key[at]));
    }
    query.execute(db).await?;
    Ok(())
}

/// Returns a column in the order of rows: texts byte by byte, as in SQLite.
fn ordered(column: &Column) -> String {
    match column.form {
        Form::Text => format!("{} COLLATE \"C\"", column.name),
        _ => column.name.to_owned(),
    }
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

/// Builds `$1::UUID[], $2::BIGINT[]`.
fn arrays(columns: &[Column]) -> String {
    let array = |(number, column): (usize, &Column)| {
        let kind = match column.form {
            Form::Number => "BIGINT",
            Form::Flag => "BOOLEAN",
            Form::Text | Form::Labels => "TEXT",
            Form::Bytes => "BYTEA",
            Form::Id => "UUID",
        };
        format!("${number}::{kind}[]")
    };
    (1..).zip(columns).map(array).collect::<Vec<_>>().join(", ")
}

/// Builds `SELECT id, … FROM job WHERE (id) > ($1) AND (id) <= ($2) ORDER BY id`.
fn range_sql(table: &Table, range: PageRange<'_>) -> String {
    let shown = |column: &Column| match column.form {
        Form::Labels => format!("{}::TEXT", column.name),
        _ => column.name.to_owned(),
    };
    let columns: Vec<String> = table.columns.iter().map(shown).collect();
    let key = table.key().iter().map(ordered).collect::<Vec<_>>().join(", ");
    let mut numbers = 1..;
    let mut bound = |is: &str| {
        let values: Vec<String> = numbers.by_ref().take(table.key().len()).map(|number| format!("${number}")).collect();
        format!(" AND ({key}) {is} ({})", values.join(", "))
    };
    let start = range.after.map(|_| bound(">")).unwrap_or_default();
    let end = range.last.map(|_| bound("<=")).unwrap_or_default();
    format!("SELECT {} FROM {} WHERE TRUE{start}{end} ORDER BY {key}", columns.join(", "), table.name)
}

/// Builds `INSERT INTO job (id, …) … SELECT id, … FROM UNNEST($1::UUID[], …) AS moved (id, …)`.
fn insert_sql(table: &Table) -> String {
    let kept = |column: &Column| match column.form {
        Form::Labels => format!("{}::JSONB", column.name),
        _ => column.name.to_owned(),
    };
    let (names, values) = (names(table.columns), table.columns.iter().map(kept).collect::<Vec<_>>().join(", "));
    // Entities keep their ids.
    format!(
        "INSERT INTO {} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM UNNEST({}) AS moved ({names})",
        table.name,
        arrays(table.columns),
    )
}

/// Builds `DELETE FROM job USING UNNEST($1::UUID[]) AS gone (id) WHERE (job.id) = (gone.id)`.
fn delete_sql(table: &Table) -> String {
    let name = table.name;
    let same: Vec<String> =
        table.key().iter().map(|Column { name: column, .. }| format!("{name}.{column} = gone.{column}")).collect();
    format!(
        "DELETE FROM {name} USING UNNEST({}) AS gone ({}) WHERE {}",
        arrays(table.key()),
        names(table.key()),
        same.join(" AND "),
    )
}

/// Binds the values of a column, one of each row.
fn bind<'q, 'c>(
    query: Query<'q, Postgres, PgArguments>,
    form: Form,
    cells: impl Iterator<Item = &'c Cell>,
) -> Query<'q, Postgres, PgArguments> {
    let number = |cell: &Cell| if let Cell::Number(number) = cell { Some(*number) } else { None };
    match form {
        Form::Number => query.bind(cells.map(number).collect::<Vec<Option<i64>>>()),
        Form::Flag => query.bind(cells.map(|cell| number(cell).map(|flag| flag != 0)).collect::<Vec<Option<bool>>>()),
        Form::Text | Form::Labels => {
            let text = |cell: &'c Cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None };
            query.bind(cells.map(text).collect::<Vec<Option<&str>>>())
        }
        Form::Bytes => {
            let bytes = |cell: &'c Cell| if let Cell::Bytes(bytes) = cell { Some(bytes.as_slice()) } else { None };
            query.bind(cells.map(bytes).collect::<Vec<Option<&[u8]>>>())
        }
        Form::Id => {
            let id = |cell: &Cell| if let Cell::Id(id) = cell { Some(*id) } else { None };
            query.bind(cells.map(id).collect::<Vec<Option<Uuid>>>())
        }
    }
}

fn cells(row: &PgRow, columns: &[Column]) -> Result<Vec<Cell>, Failure> {
    columns.iter().enumerate().map(|(at, column)| cell(row, at, column.form)).collect()
}

fn cell(row: &PgRow, at: usize, form: Form) -> Result<Cell, Failure> {
    let cell = match form {
        Form::Number => row.try_get::<Option<i64>, _>(at)?.map(Cell::Number),
        Form::Flag => row.try_get::<Option<bool>, _>(at)?.map(|flag| Cell::Number(i64::from(flag))),
        Form::Text => row.try_get::<Option<String>, _>(at)?.map(Cell::Text),
        Form::Bytes => row.try_get::<Option<Vec<u8>>, _>(at)?.map(Cell::Bytes),
        Form::Id => row.try_get::<Option<Uuid>, _>(at)?.map(Cell::Id),
        Form::Labels => row.try_get::<Option<&str>, _>(at)?.map(written).transpose()?.map(Cell::Text),
    };
    Ok(cell.unwrap_or(Cell::Null))
}

/// Returns labels as they are written, from the database's output, which has other spaces.
fn written(labels: &str) -> Result<String, StoreError> {
    let labels: Vec<String> = serde_json::from_str(labels)
        .map_err(|error| StoreError::Corrupt(format!("the labels of a job cannot be read: {error}")))?;
    to_json(&labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_store::transfer::TABLES;

    fn table(name: &str) -> &'static Table {
        TABLES.iter().find(|table| table.name == name).unwrap()
    }

    #[test]
    fn statements_are_made_from_columns() {
        assert_eq!(
            range_sql(table("recent"), PageRange { after: Some(&[]), last: Some(&[]) }),
            "SELECT tenant, kind, key, expires_at, job, doc FROM recent WHERE TRUE \
             AND (tenant, kind COLLATE \"C\", key COLLATE \"C\") > ($1, $2, $3) \
             AND (tenant, kind COLLATE \"C\", key COLLATE \"C\") <= ($4, $5, $6) \
             ORDER BY tenant, kind COLLATE \"C\", key COLLATE \"C\""
        );
        assert_eq!(
            insert_sql(table("job_spec")),
            "INSERT INTO job_spec (job, spec, labels, body) OVERRIDING SYSTEM VALUE SELECT job, spec, labels::JSONB, body \
             FROM UNNEST($1::UUID[], $2::TEXT[], $3::TEXT[], $4::BYTEA[]) AS moved (job, spec, labels, body)"
        );
        assert_eq!(
            delete_sql(table("tick")),
            "DELETE FROM tick USING UNNEST($1::BIGINT[], $2::BIGINT[]) AS gone (schedule, at) \
             WHERE tick.schedule = gone.schedule AND tick.at = gone.at"
        );
    }
}
