//! Many nodes, one database: PostgreSQL is the only thing that nodes share.
//!
//! - **Each verb is one transaction** ([`transaction`]), at `READ COMMITTED`. What must not change between a question and its answer is
//!   locked: rows by `FOR UPDATE`, in the order of their ids; what is not there yet by an advisory lock ([`locks`]). A transaction
//!   that lost a deadlock is run again, unseen by the caller.
//! - **Callers share transactions** ([`batch`]): plain inserts and settlements that wait are written together, on several connections.
//! - **A job that is over moves away**, from `job` to `job_done`, in the statement that ends it ([`archive`]). So what is claimed from,
//!   and vacuumed all the time, stays as small as the work that is left.
//! - **What is old goes as a whole** ([`partitions`]): what is kept of jobs lies in partitions by the time of acceptance, which are dropped.
//! - **Claims begin where the last ones found nothing more** ([`scan_watermarks`]), so that they do not wade through what other transactions keep
//!   vacuum from removing.
//! - **Plans do not depend on statistics.** A queue is often empty when they are gathered, and then a walk through all of it looks cheap.
//!   Statements that are made all the time name the ids that they are about (`= ANY`), besides what they are joined with.
//! - **A lease ends by its time only.** Nobody knows whether another node is alive, and nothing needs to: the token of the next lease
//!   makes what comes late ineffective.
//!
//! When the database cannot be reached, or falls silent ([`connections`]), verbs answer [`StoreError::Unavailable`]; they work again as
//! soon as it can. A write whose connection breaks during the commit may or may not have been made.

mod admit;
#[cfg(test)]
mod ageing;
mod archive;
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
    /// [`StoreError::Unavailable`] if the database cannot be reached; [`StoreError::Corrupt`] if it is not one of this program, or of a
    /// newer version of it, or its server is too old.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let database = Arc::new(Database::new(open::open(&options).await?));
        let viewers = Viewers::new(database.connections.for_viewers());
        let inserts = Batcher::start(&database);
        let settlements = Batcher::start(&database);
        let (lost, overdue) = (LateFront::new(), LateFront::new());
        let (health, fronts) = (StoreHealth::default(), Fronts::new());
        Ok(Self { database, viewers, health, inserts, settlements, fronts, lost, overdue })
    }
}
