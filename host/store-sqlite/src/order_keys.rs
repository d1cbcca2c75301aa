//! Order keys: of the unfinished jobs of one key, one at a time may be leased.
//!
//! A job with a key is stored as `blocked`. Whenever one of the key comes, ends or comes back, [`advance`] lets the one with the lowest
//! id go, unless there is one already that may. So no claim ever looks at the jobs that wait behind it.

use std::collections::BTreeSet;

use super::db::Db;
use super::error::Failure;

pub(super) const ADVANCE: &str = "
    UPDATE job SET blocked = 0
    WHERE id = (SELECT min(id) FROM job WHERE grp = ?1 AND order_key = ?2 AND blocked = 1 AND finished_at IS NULL)
        AND NOT EXISTS (SELECT 1 FROM job WHERE grp = ?1 AND order_key = ?2 AND blocked = 0 AND finished_at IS NULL)";

/// Lets the next job of each key (of a group) go if none may.
pub(super) async fn advance(db: &mut Db, keys: impl Iterator<Item = (i64, String)>) -> Result<(), Failure> {
    for (group, key) in keys.collect::<BTreeSet<_>>() {
        db.execute(sqlx::query(ADVANCE).bind(group).bind(key)).await?;
    }
    Ok(())
}
