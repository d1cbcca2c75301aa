//! Stores jobs under a condition: once for an idempotency key, a dedupe key, a debounce key, or a schedule's tick; or in place of other jobs.
//!
//! Every name that a condition depends on is locked before the first query ([`names`]), so what is read here still holds when the transaction
//! is committed, whatever other nodes do.

use sqlx::postgres::PgConnection;

use super::error::Failure;
use super::job_rows::{self, Row};
use super::locks::Name;
use super::producer_keys::Memory;
use super::{archive, change, debounce, ticks};
use carillon_core::job::{Admission, JobId, stands_for_later};
use carillon_store::documents::{Answered, DEBOUNCE, DEDUPE, IDEMPOTENCY, dedupe_key};
use carillon_store::{IdempotentRequest, InsertOutcome, InsertResult, JobChange, Replaced, are_unconditional};

/// Returns the names to lock.
///
/// A dedupe key is locked without its group, which costs only a little waiting.
pub(super) fn names<'a>(jobs: &'a [Row], once: Option<&'a IdempotentRequest>) -> impl Iterator<Item = Name<'a>> {
    let of_job = |row: &'a Row| match &row.job.admission {
        Admission::Always => None,
        Admission::Unique { key, .. } => Some(Name::Recent(row.job.tenant.0, DEDUPE, key)),
        Admission::Debounced(debounce) => Some(Name::Recent(row.job.tenant.0, DEBOUNCE, &debounce.key)),
        Admission::Tick(tick) => Some(Name::Schedule(tick.schedule)),
        Admission::Replace { .. } => Some(Name::Replaced(row.job.group.0, row.job.name.as_deref().unwrap_or_default())),
    };
    let of_request = once.map(|once| Name::Recent(once.tenant.0, IDEMPOTENCY, &once.key));
    jobs.iter().filter_map(of_job).chain(of_request)
}

/// Stores the jobs of one call, in order.
pub(super) async fn place(
    db: &mut PgConnection,
    jobs: &[Row],
    once: Option<&IdempotentRequest>,
) -> Result<InsertResult, Failure> {
    if let Some(once) = once {
        let memory = Memory { tenant: once.tenant, kind: IDEMPOTENCY, key: &once.key };
        if let Some(found) = memory.read(db, once.now).await? {
            return Ok(InsertResult::Replayed(Answered::replay(&found.doc, once)?));
        }
    }
    let mut placed = Vec::with_capacity(jobs.len());
    if are_unconditional(jobs) {
        job_rows::write(db, &jobs.iter().collect::<Vec<_>>()).await?;
        placed.extend(jobs.iter().map(|row| InsertOutcome::stored(&row.job)));
    } else {
        for row in jobs {
            placed.push(one(db, row).await?);
        }
    }
    if let Some(once) = once
        && let Some(answered) = Answered::record(once, &placed)?
    {
        let memory = Memory { tenant: once.tenant, kind: IDEMPOTENCY, key: &once.key };
        memory.write(db, once.expires_at, None, &answered).await?;
    }
    Ok(InsertResult::Placed(placed))
}

async fn one(db: &mut PgConnection, row: &Row) -> Result<InsertOutcome, Failure> {
    match &row.job.admission {
        Admission::Always => {
            job_rows::write(db, &[row]).await?;
            Ok(InsertOutcome::stored(&row.job))
        }
        Admission::Unique { key, window } => {
            let key = dedupe_key(row.job.group, key);
            let memory = Memory { tenant: row.job.tenant, kind: DEDUPE, key: &key };
            if let Some(first) = memory.job(db, row.job.created_at).await?.filter(stands_for_later) {
                return Ok(InsertOutcome::Duplicate(Box::new(first)));
            }
            memory.write(db, row.job.created_at.plus(*window), Some(row.job.id), "{}").await?;
            job_rows::write(db, &[row]).await?;
            Ok(InsertOutcome::stored(&row.job))
        }
        Admission::Debounced(debounce) => debounce::place(db, row, debounce).await,
        Admission::Tick(tick) => ticks::place(db, row, tick).await,
        Admission::Replace { moved } => replace(db, row, *moved).await,
    }
}

/// Selects the unfinished jobs of a name, and locks them so that they do not change before the transaction changes them.
pub(super) const OF_NAME: &str = "
    SELECT id, state, grp, order_key FROM job WHERE grp = $1 AND name = $2 ORDER BY id FOR UPDATE";

/// Concurrent requests may be carried out in another order than that of their jobs' ids, above all on nodes whose clocks differ slightly. The
/// newest job of a name is always the one that was stored last: jobs with later ids lose the name.
pub(super) const UNNAME_LATER: &str = "
    WITH over AS (
        UPDATE job_done SET name = NULL WHERE grp = $1 AND name = $2 AND id > $3
    )
    UPDATE job SET name = NULL WHERE grp = $1 AND name = $2 AND id > $3";

async fn replace(db: &mut PgConnection, row: &Row, moved: Option<JobId>) -> Result<InsertOutcome, Failure> {
    let mut cancelled = Vec::new();
    let now = row.job.created_at;
    if let Some(moved) = moved {
        let withdrawn = change::change(db, row.job.tenant, &[moved], &JobChange::Withdraw, now).await?;
        match Replaced::after_withdrawal(withdrawn.first()) {
            Replaced::Cancelled => cancelled.push(moved),
            Replaced::Ended => {
                change::change(db, row.job.tenant, &[moved], &JobChange::Purge, now).await?;
            }
            Replaced::Kept => return Ok(InsertOutcome::Skipped),
        }
    }
    let found = sqlx::query(OF_NAME).bind(row.job.group.0).bind(row.job.name.as_deref()).fetch_all(&mut *db).await?;
    cancelled.extend(archive::cancel(db, &found, now).await?);
    let query = sqlx::query(UNNAME_LATER).bind(row.job.group.0).bind(row.job.name.as_deref()).bind(row.job.id.0);
    query.execute(&mut *db).await?;
    job_rows::write(db, &[row]).await?;
    Ok(InsertOutcome::stored_instead(&row.job, cancelled))
}
