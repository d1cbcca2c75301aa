//! Columns of SQLite's rows, and statements that take a list of rows.

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::error::Failure;
use carillon_core::job::JobId;
use carillon_store::decode::{self, Columns};

/// Largest number of rows in one statement.
///
/// SQLite takes 32,766 parameters; a row has at most 12.
pub(super) const PER_STATEMENT: usize = 512;

/// A statement that takes a list of rows in place of `{rows}`.
///
/// Lists are padded with rows of NULLs to a power of two, so that there are few different statements and each is prepared once;
/// the statement must ignore a row whose first column is NULL. It must not begin with `WITH`: SQLite then runs a list as a
/// compound of as many selects.
pub(super) struct Sql {
    /// Number of columns of a row.
    pub(super) columns: usize,
    /// Text of the statement.
    pub(super) text: &'static str,
}

impl Sql {
    /// Returns the statement for at least `count` rows, of which the last may be left unbound.
    pub(super) fn with_rows(&self, count: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns].join(","));
        self.text.replace("{rows}", &vec![row.as_str(); count.next_power_of_two()].join(","))
    }

    /// Returns how many parameters [`Sql::with_rows`] leaves unbound.
    pub(super) fn padding(&self, count: usize) -> usize {
        (count.next_power_of_two() - count) * self.columns
    }
}

/// Encodes a job's id for the database.
pub(super) fn id(id: JobId) -> Vec<u8> {
    id.0.as_bytes().to_vec()
}

impl Columns<Failure> for SqliteRow {
    fn i64(&self, column: &str) -> Result<i64, Failure> {
        Ok(self.try_get(column)?)
    }

    fn opt_i64(&self, column: &str) -> Result<Option<i64>, Failure> {
        Ok(self.try_get(column)?)
    }

    fn bool(&self, column: &str) -> Result<bool, Failure> {
        Ok(self.try_get(column)?)
    }

    fn text(&self, column: &str) -> Result<&str, Failure> {
        Ok(self.try_get(column)?)
    }

    fn opt_text(&self, column: &str) -> Result<Option<&str>, Failure> {
        Ok(self.try_get(column)?)
    }

    fn bytes(&self, column: &str) -> Result<Bytes, Failure> {
        Ok(Bytes::from(self.try_get::<Vec<u8>, _>(column)?))
    }

    fn job_id(&self, column: &str) -> Result<JobId, Failure> {
        job_id(column, self.try_get(column)?)
    }

    fn opt_job_id(&self, column: &str) -> Result<Option<JobId>, Failure> {
        self.try_get::<Option<&[u8]>, _>(column)?.map(|bytes| job_id(column, bytes)).transpose()
    }
}

fn job_id(column: &str, bytes: &[u8]) -> Result<JobId, Failure> {
    Uuid::from_slice(bytes).map(JobId).map_err(|error| decode::corrupt(column, error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_padded_to_a_power_of_two() {
        let sql = Sql { columns: 2, text: "VALUES {rows}" };
        assert_eq!(sql.with_rows(1), "VALUES (?,?)");
        assert_eq!(sql.with_rows(3), "VALUES (?,?),(?,?),(?,?),(?,?)");
        assert_eq!([1, 3, 4].map(|count| sql.padding(count)), [0, 2, 0]);
    }
}
