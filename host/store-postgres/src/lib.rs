//! Shared database: many nodes on one PostgreSQL, which is the only thing that they share.
//!
//! - **Each verb is one transaction** ([`transaction`]), at `READ COMMITTED`. Facts that must not change between a query and its use are
//!   locked: rows by `FOR UPDATE`, in the order of their ids; things that are not rows yet by an advisory lock ([`locks`]). A transaction
//!   that lost a deadlock is run again, without the caller's notice.
//! - **Callers share transactions** ([`batch`]): waiting plain inserts and settlements are written together, on several connections.
//! - **Ended jobs move**, from `job` to `job_done`, in the statement that ends them ([`archive`]). So the table that is claimed from, and
//!   vacuumed all the time, stays as small as the remaining work.
//! - **Old jobs are dropped by partition** ([`partitions`]): the rows of jobs are partitioned by the time of acceptance, and whole partitions
//!   are dropped.
//! - **Claims begin at scan watermarks** ([`scan_watermarks`]), so that they skip dead index entries that other transactions keep vacuum from
//!   removing.
//! - **Plans do not depend on statistics.** A queue is often empty when they are gathered, and then a scan of the whole queue looks cheap.
//!   Frequent statements name the ids that they are about (`= ANY`), in addition to their joins.
//! - **A lease ends by its time only.** No node knows whether another one is alive, and none needs to: the token of the next lease makes late
//!   results ineffective.
//!
//! When the database cannot be reached, or falls silent ([`connections`]), verbs return [`StoreError::Unavailable`]; they succeed again as
//! soon as it can be reached. A write whose connection breaks during the commit may or may not have been made.

mod admit;
#[cfg(test)]
mod ageing;
mod archive;
mod audit;
mod batch;
#[cfg(test)]
mod bloat;
mod catalog;
mod change;
mod claim;
mod connections;
#[cfg(test)]
mod damage;
mod debounce;
mod deleted_tenants;
mod error;
mod hosts;
mod import;
mod insert;
mod job_rows;
mod jobs;
mod lists;
mod locks;
mod migration_mark;
mod migrations;
mod open;
mod order_keys;
mod partitions;
mod peers;
#[cfg(test)]
mod plans;
mod probe;
mod producer_keys;
mod prune;
mod reads;
mod rows;
mod scan_watermarks;
mod settle;
#[cfg(test)]
mod tests;
mod ticks;
mod transaction;
#[cfg(test)]
mod upgrade;
mod viewers;

use std::sync::Arc;

pub use import::PostgresTarget;
pub use migration_mark::Stage;
pub use open::PostgresOptions;

use batch::Batcher;
use carillon_store::read_turns::READ_TIME;
use carillon_store::{StoreError, StoreHealth};
use scan_watermarks::{Fronts, LateFront};
use transaction::Database;
use viewers::Viewers;

/// An open PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    database: Arc<Database>,
    viewers: Viewers,
    health: StoreHealth,
    inserts: Batcher<insert::Plain>,
    settlements: Batcher<settle::Settle>,
    fronts: Fronts,
    lost: LateFront,
    overdue: LateFront,
}

impl PostgresStore {
    /// Connects, and creates or migrates the schema.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached; [`StoreError::Corrupt`] if it is not one of this program, or
    /// one of a newer version, or if its server is too old.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let database = Arc::new(Database::new(open::open(&options).await?));
        let viewers = Viewers::new(database.connections.for_viewers(open::session(&options, READ_TIME)));
        let inserts = Batcher::start(&database);
        let settlements = Batcher::start(&database);
        let (lost, overdue) = (LateFront::new(), LateFront::new());
        let (health, fronts) = (StoreHealth::default(), Fronts::new());
        Ok(Self { database, viewers, health, inserts, settlements, fronts, lost, overdue })
    }
}
