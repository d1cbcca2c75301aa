//! Locks on things that are not rows yet: an unused key, an unhandled tick, the queue of an order key.
//!
//! Each such thing has a name, which is hashed to one of [`STRIPES`] advisory locks. Two names may share a lock, which costs waiting and
//! nothing else; a lock for every name would overflow the server's table of locks when a request brings ten thousand names. A transaction
//! takes its locks in the order of their numbers and releases them at its end.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;

use super::error::Failure;
use carillon_core::stable_hash::fnv;

/// "Carl": distinguishes our advisory locks from other programs' in the same database.
pub(super) const CLASS: i32 = 0x4361_726c;

/// Number of locks that the names share.
const STRIPES: u64 = 256;

/// Locks of all changes of entities, and of the member list; they are not among the stripes.
const ENTITIES: i32 = -1;
const NODES: i32 = -2;

/// Lock of a migration into the database, which a connection holds during the migration.
pub(super) const MIGRATION: i32 = -3;

/// Lock for making and dropping partitions.
const ERAS: i32 = -4;

const TRY: &str = "SELECT pg_try_advisory_xact_lock($1, $2)";

/// UNNEST keeps the order of the array.
const TAKE: &str = "SELECT pg_advisory_xact_lock($1, stripe) FROM UNNEST($2::INTEGER[]) AS stripe";

/// Subject of a lock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    /// A record of a producer's key, by tenant, kind and key.
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

/// Takes the lock of entities.
pub(super) async fn take_entities(db: &mut PgConnection) -> Result<(), Failure> {
    take_stripes(db, vec![ENTITIES]).await
}

/// Takes the lock of the member list.
pub(super) async fn take_nodes(db: &mut PgConnection) -> Result<(), Failure> {
    take_stripes(db, vec![NODES]).await
}

/// Takes the lock of the partitions, unless another session has it.
pub(super) async fn try_eras(db: &mut PgConnection) -> Result<bool, Failure> {
    Ok(sqlx::query_scalar(TRY).bind(CLASS).bind(ERAS).fetch_one(db).await?)
}

async fn take_stripes(db: &mut PgConnection, stripes: Vec<i32>) -> Result<(), Failure> {
    sqlx::query(TAKE).bind(CLASS).bind(stripes).execute(db).await?;
    Ok(())
}
