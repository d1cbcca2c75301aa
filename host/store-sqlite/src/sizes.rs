//! Sizes of stored jobs. The lengths of values are in the heads of their rows, so that no value is read.

use sqlx::AssertSqlSafe;

use super::db::with_nulls;
use super::error::Failure;
use super::readers::Readers;
use super::rows::{self, Sql};
use carillon_core::job::JobId;
use carillon_store::decode::Columns as _;

pub(super) const JOBS: Sql = Sql {
    columns: 1,
    text: "
    SELECT coalesce(sum(octet_length(job_spec.spec) + octet_length(job_spec.body)), 0) AS bytes
    FROM (SELECT column1 AS id FROM (VALUES {rows})) AS wanted CROSS JOIN job_spec ON job_spec.job = wanted.id",
};

pub(super) const ATTEMPTS: Sql = Sql {
    columns: 1,
    text: "
    SELECT coalesce(sum(octet_length(attempt.detail) + octet_length(attempt.response_body)), 0) AS bytes
    FROM (SELECT column1 AS id FROM (VALUES {rows})) AS wanted CROSS JOIN attempt ON attempt.job = wanted.id",
};

pub(super) async fn job_bytes(readers: &Readers, ids: &[JobId]) -> Result<u64, Failure> {
    let mut bytes = 0_u64;
    for chunk in ids.chunks(rows::PER_STATEMENT) {
        for sql in [&JOBS, &ATTEMPTS] {
            let query = sqlx::query(AssertSqlSafe(sql.with_rows(chunk.len())));
            let query = chunk.iter().fold(query, |query, id| query.bind(rows::id(*id)));
            let query = with_nulls(query, sql.padding(chunk.len()));
            let row = query.fetch_one(&mut *readers.take().await?).await?;
            bytes = bytes.saturating_add(row.number("bytes")?);
        }
    }
    Ok(bytes)
}
