//! Locks on things that are not rows yet: a key that nobody has used, a tick that nobody has dealt with, the queue behind an order key.
//!
//! Each such thing has a name, which is hashed to one of [`STRIPES`] advisory locks. Two names may share a lock, which costs waiting
//! and nothing else; a lock for every name would overflow the server's table of locks when a request brings ten thousand of them. They
//! are taken in the order of their numbers and given back by the end of the transaction.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;

use super::error::Failure;
use carillon_core::stable_hash::fnv;

/// "Carl": sets our advisory locks apart from other programs' in the same database.
pub(super) const CLASS: i32 = 0x4361_726c;

/// How many locks the names share.
const STRIPES: u64 = 256;

/// The locks of all changes of what is configured, and of the list of nodes. None of the stripes.
const ENTITIES: i32 = -1;
const NODES: i32 = -2;

/// The lock of a migration into the database, which a connection holds as long as it goes on.
pub(super) const MIGRATION: i32 = -3;

/// The lock of those who make partitions and drop them.
const ERAS: i32 = -4;

const TRY: &str = "SELECT pg_try_advisory_xact_lock($1, $2)";

/// UNNEST keeps the order of the array.
const TAKE: &str = "SELECT pg_advisory_xact_lock($1, stripe) FROM UNNEST($2::INTEGER[]) AS stripe";

/// What a lock is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    /// What is remembered of a producer, by tenant, kind and key.
    Recent(i64, &'a str, &'a str),
    /// A schedule's ticks.
    Schedule(i64),
    /// A group's jobs of a name that replace each other.
    Replaced(i64, &'a str),
    /// A group's jobs of an order key.
    Order(i64, &'a str),
}

impl Name<'_> {
    fn stripe(self) -> i32 {
        let (kind, number, text, key) = match self {
            Self::Recent(tenant, kind, key) => (0, tenant, kind, key),
            Self::Schedule(schedule) => (1, schedule, "", ""),
            Self::Replaced(group, name) => (2, group, name, ""),
            Self::Order(group, key) => (3, group, key, ""),
        };
        let bytes = [kind].into_iter().chain(number.to_le_bytes()).chain(text.bytes()).chain([0xff]).chain(key.bytes());
        i32::try_from(fnv(bytes) % STRIPES).unwrap_or(0)
    }
}

/// Takes the locks of these names, until the end of the transaction.
pub(super) async fn take(db: &mut PgConnection, names: impl Iterator<Item = Name<'_>>) -> Result<(), Failure> {
    let stripes: BTreeSet<i32> = names.map(Name::stripe).collect();
    if stripes.is_empty() {
        return Ok(());
    }
    take_stripes(db, stripes.into_iter().collect()).await
}

/// Takes the lock of what is configured.
pub(super) async fn take_entities(db: &mut PgConnection) -> Result<(), Failure> {
    take_stripes(db, vec![ENTITIES]).await
}

/// Takes the lock of the list of nodes.
pub(super) async fn take_nodes(db: &mut PgConnection) -> Result<(), Failure> {
    take_stripes(db, vec![NODES]).await
}

/// Takes the lock of the partitions, unless somebody has it.
pub(super) async fn try_eras(db: &mut PgConnection) -> Result<bool, Failure> {
    Ok(sqlx::query_scalar(TRY).bind(CLASS).bind(ERAS).fetch_one(db).await?)
}

async fn take_stripes(db: &mut PgConnection, stripes: Vec<i32>) -> Result<(), Failure> {
    sqlx::query(TAKE).bind(CLASS).bind(stripes).execute(db).await?;
    Ok(())
}
