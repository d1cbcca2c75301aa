//! Order keys: of the unfinished jobs of one key, one at a time may be leased.
//!
//! A job with a key is stored as `blocked`. Whenever a job of the key is stored, ends or returns to `scheduled`, [`advance`] unblocks the job
//! with the lowest id, unless one is unblocked already. So no claim ever reads the blocked jobs.
//!
//! From there to the end of the transaction no other one changes the queue of the key ([`Name::Order`]): of two transactions that each know a
//! part of the changes, the second sees those of the first. The index `job_order_head` of the schema also ensures that at most one job of a
//! key is unblocked.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;

use super::error::Failure;
use super::locks::{self, Name};

pub(super) const ADVANCE: &str = "
    UPDATE job SET blocked = FALSE
    FROM UNNEST($1::BIGINT[], $2::TEXT[]) AS free (grp, order_key)
    WHERE job.id = (
            SELECT next.id FROM job AS next
            WHERE next.grp = free.grp AND next.order_key = free.order_key AND next.blocked
            ORDER BY next.id LIMIT 1)
        AND NOT EXISTS (
            SELECT 1 FROM job AS head
            WHERE head.grp = free.grp AND head.order_key = free.order_key AND NOT head.blocked)";

/// Unblocks the next job of each key (of a group) if none is unblocked.
pub(super) async fn advance(db: &mut PgConnection, keys: impl Iterator<Item = (i64, String)>) -> Result<(), Failure> {
    let keys: BTreeSet<(i64, String)> = keys.collect();
    if keys.is_empty() {
        return Ok(());
    }
    locks::take(db, keys.iter().map(|(group, key)| Name::Order(*group, key))).await?;
    let (groups, keys): (Vec<i64>, Vec<String>) = keys.into_iter().unzip();
    sqlx::query(ADVANCE).bind(groups).bind(keys).execute(db).await?;
    Ok(())
}
