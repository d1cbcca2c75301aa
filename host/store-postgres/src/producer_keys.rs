//! Records of producers' keys, each kept for a time: responses by idempotency key, jobs by dedupe key, due times by debounce key.

use sqlx::postgres::PgConnection;

use super::error::Failure;
use super::reads;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Job, JobId, TenantId};
use carillon_store::decode::Columns as _;

/// A record of a producer's key.
///
/// Its name is locked ([`super::locks::Name::Recent`]) before the record is read.
pub(super) struct Memory<'a> {
    pub(super) tenant: TenantId,
    pub(super) kind: &'static str,
    pub(super) key: &'a str,
}

/// Content of a record.
pub(super) struct Remembered {
    pub(super) job: Option<JobId>,
    pub(super) doc: String,
}

pub(super) const RECALL: &str = "
    SELECT job, doc FROM recent WHERE tenant = $1 AND kind = $2 AND key = $3 AND expires_at > $4";

pub(super) const REMEMBER: &str = "
    INSERT INTO recent (tenant, kind, key, expires_at, job, doc) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant, kind, key) DO UPDATE SET
        expires_at = excluded.expires_at, job = excluded.job, doc = excluded.doc";

impl Memory<'_> {
    /// Returns the content that is valid at `now`.
    pub(super) async fn read(&self, db: &mut PgConnection, now: UnixMs) -> Result<Option<Remembered>, Failure> {
        let query = sqlx::query(RECALL).bind(self.tenant.0).bind(self.kind).bind(self.key).bind(now.0);
        let Some(row) = query.fetch_optional(db).await? else { return Ok(None) };
        Ok(Some(Remembered { job: row.opt_job_id("job")?, doc: row.text("doc")?.to_owned() }))
    }

    /// Returns the recorded job, if it still exists.
    pub(super) async fn job(&self, db: &mut PgConnection, now: UnixMs) -> Result<Option<Job>, Failure> {
        match self.read(db, now).await?.and_then(|found| found.job) {
            Some(job) => reads::job_on(db, self.tenant, job).await,
            None => Ok(None),
        }
    }

    /// Writes the record, with the time until which it is kept.
    pub(super) async fn write(
        &self,
        db: &mut PgConnection,
        until: UnixMs,
        job: Option<JobId>,
        doc: &str,
    ) -> Result<(), Failure> {
        let query = sqlx::query(REMEMBER).bind(self.tenant.0).bind(self.kind).bind(self.key).bind(until.0);
        query.bind(job.map(|job| job.0)).bind(doc).execute(db).await?;
        Ok(())
    }
}
