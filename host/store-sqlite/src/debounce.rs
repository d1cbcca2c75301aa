//! Debounced jobs: stored now, stored for the end of the window, or merged into the waiting job.
//!
//! The rules are those of [`Debounce::decide`]. A waiting job gets the newest request in the transaction that would have stored that
//! request's own job, so that a request is in the waiting job or in the next one, whatever attempt begins at the same moment.

use super::db::Db;
use super::error::Failure;
use super::job_rows::{self, Row};
use super::producer_keys::Memory;
use super::{change, order_keys, reads, rows};
use carillon_core::job::{Carries, Debounce, Debounced, Job, LastAccepted, Newest, SEALED_BODY};
use carillon_store::documents::{DEBOUNCE, last_accepted, millis, to_json};
use carillon_store::{InsertOutcome, StoreError, lane};

/// Replaces a waiting job, except for its id, its time and its time of acceptance.
pub(super) const CARRY: &str = "
    UPDATE job SET
        grp = ?3, name = ?4, lane = ?5, order_key = ?6, blocked = ?6 IS NOT NULL, deadline = ?7, ttl = ?8, max_delay = ?9,
        revision = revision + 1
    WHERE id = ?1 AND tenant = ?2 AND state = 'scheduled'";

/// Stores a debounced job, or leaves it out.
pub(super) async fn place(db: &mut Db, row: &Row, debounce: &Debounce) -> Result<InsertOutcome, Failure> {
    let now = row.job.created_at;
    let memory = Memory { tenant: row.job.tenant, kind: DEBOUNCE, key: &debounce.key };
    let found = memory.read(db, now).await?;
    let (last, forgotten) = last_accepted(found.as_ref().map(|found| found.doc.as_str()));
    let newest = match found.and_then(|found| found.job) {
        Some(job) => reads::job_on(db, row.job.tenant, job).await?,
        None => None,
    };
    match (debounce.decide(now, last, Newest::from_job(newest.as_ref())), newest) {
        (Debounced::Hit, Some(job)) if debounce.carries == Carries::First => {
            Ok(InsertOutcome::Debounced(Box::new(job)))
        }
        (Debounced::Hit, Some(job)) => carry(db, row, job).await,
        (Debounced::Hit, None) => {
            Err(Failure(StoreError::Corrupt("a job was debounced in favour of one that is not there".to_owned())))
        }
        (Debounced::Miss(run_at), _) => {
            let doc = to_json(&LastAccepted { at: run_at })?;
            memory.write(db, debounce.kept_until(run_at), Some(row.job.id), &doc).await?;
            let mut row = row.clone();
            row.job.run_at = run_at;
            job_rows::write(db, &[&row]).await?;
            Ok(InsertOutcome::Stored { run_at, forgotten, cancelled: Vec::new() })
        }
    }
}

/// Gives the request of `row` to a waiting job.
async fn carry(db: &mut Db, row: &Row, before: Job) -> Result<InsertOutcome, Failure> {
    let new = &row.job;
    let lane = lane::of_new(new);
    let query = sqlx::query(CARRY).bind(rows::id(before.id)).bind(new.tenant.0).bind(new.group.0);
    let query = query.bind(new.name.as_deref()).bind(lane).bind(new.order_key.as_deref());
    let query = query.bind(new.deadline.map(|at| at.0)).bind(new.deadline.map(|at| millis(at.since(new.created_at))));
    db.execute(query.bind(new.max_delay.map(millis))).await?;
    let query = sqlx::query(change::EDIT_SPEC).bind(rows::id(before.id)).bind(row.spec.as_str());
    db.execute(query.bind(Some(new.body.as_ref())).bind(None::<&str>).bind(SEALED_BODY)).await?;
    let key = |group: i64, key: &Option<String>| key.clone().map(|key| (group, key));
    let keys = [key(before.group.0, &before.order_key), key(new.group.0, &new.order_key)];
    order_keys::advance(db, keys.into_iter().flatten()).await?;
    let missing = || Failure(StoreError::Corrupt("a job that waits is not there".to_owned()));
    let job = reads::job_on(db, new.tenant, before.id).await?.ok_or_else(missing)?;
    Ok(InsertOutcome::Carried { job: Box::new(job), before: Box::new(before) })
}
