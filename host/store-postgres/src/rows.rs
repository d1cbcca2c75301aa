//! Columns of PostgreSQL's rows.

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::error::Failure;
use carillon_core::job::JobId;
use carillon_store::decode::Columns;

impl Columns<Failure> for PgRow {
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
        Ok(JobId(self.try_get(column)?))
    }

    fn opt_job_id(&self, column: &str) -> Result<Option<JobId>, Failure> {
        Ok(self.try_get::<Option<_>, _>(column)?.map(JobId))
    }
}
