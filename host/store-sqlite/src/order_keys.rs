//! Order keys: of the unfinished jobs of one key, one at a time may be leased.
//!
//! A job with a key is stored as `blocked`. Whenever a job of the key is stored, ends or returns to `scheduled`, [`advance`] unblocks the job
//! with the lowest id, unless one is unblocked already. So no claim ever reads the blocked jobs.

use std::collections::BTreeSet;

use super::db::Db;
use super::error::Failure;

pub(super) const ADVANCE: &str = "
    UPDATE job SET blocked = 0
    WHERE id = (SELECT min(id) FROM job WHERE grp = ?1 AND order_key = ?2 AND blocked = 1 AND finished_at IS NULL)
        AND NOT EXISTS (SELECT 1 FROM job WHERE grp = ?1 AND order_key = ?2 AND blocked = 0 AND finished_at IS NULL)";

/// Unblocks the next job of each key (of a group) if none is unblocked.
pub(super) async fn advance(db: &mut Db, keys: impl Iterator<Item = (i64, String)>) -> Result<(), Failure> {
    for (group, key) in keys.collect::<BTreeSet<_>>() {
        db.execute(sqlx::query(ADVANCE).bind(group).bind(key)).await?;
    }
    Ok(())
}
