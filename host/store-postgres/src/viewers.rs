//! Reads for viewers: lists, counts, single jobs.
//!
//! These reads have connections of their own, so that jobs are accepted, claimed and settled however much is read. Tenants take turns for the
//! connections ([`ReadTurns`]), and the database stops a read whose time is over.

use std::time::Duration;

use tokio::time::timeout;

use super::connections::{Connections, Taken};
use super::error::Failure;
use carillon_core::job::TenantId;
use carillon_store::StoreError;
use carillon_store::read_turns::{READ_PLACES, READ_TIME, ReadTurn, ReadTurns};

/// Time in which the database says that it has stopped a statement.
const ANSWER: Duration = Duration::from_secs(1);

/// Connections for viewers, and the turns of tenants for them.
#[derive(Debug)]
pub(super) struct Viewers {
    connections: Connections,
    turns: ReadTurns,
}

/// A connection for a read of a tenant.
pub(super) struct Viewing {
    pub(super) db: Taken,
    _turn: ReadTurn,
}

impl Viewers {
    /// Makes viewers with these connections.
    pub(super) fn new(connections: Connections) -> Self {
        Self { connections, turns: ReadTurns::new(READ_PLACES) }
    }

    /// Acquires a connection for a read of a tenant, in its turn.
    pub(super) async fn take(&self, tenant: TenantId) -> Result<Viewing, StoreError> {
        let turn = self.turns.take(tenant, READ_TIME).await?;
        Ok(Viewing { db: self.connections.take().await?, _turn: turn })
    }

    /// Does a read for a client on an acquired connection, within its time.
    pub(super) async fn bounded<T>(&self, read: impl Future<Output = Result<T, Failure>>) -> Result<T, StoreError> {
        match timeout(READ_TIME + ANSWER, read).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(failure)) if failure.canceled => Err(StoreError::ReadTimeout),
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => Err(StoreError::Unavailable("the database did not answer in time".to_owned())),
        }
    }

    /// Closes the connections.
    pub(super) async fn close(&self) {
        self.connections.close().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::super::PostgresStore;
    use super::*;
    use carillon_store::Jobs as _;
    use carillon_testing::postgres::Cluster;

    const RUNNING: &str = "
        SELECT count(*) FROM pg_stat_activity
        WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' AND pid <> pg_backend_pid()";

    #[tokio::test]
    async fn read_whose_time_is_over_is_stopped_by_the_database() {
        let cluster = Cluster::start();
        cluster.create("reads", None);
        let store = PostgresStore::open(cluster.url("reads").parse().unwrap()).await.unwrap();
        let endless = async || {
            let mut viewing = store.viewers.take(TenantId(1)).await.unwrap();
            let read = async { Ok(sqlx::query("SELECT pg_sleep(600)").execute(&mut *viewing.db).await?) };
            store.viewers.bounded(read).await.map(drop)
        };
        let ended = join_all((0..3).map(|_| endless())).await;
        assert_eq!(ended, vec![Err(StoreError::ReadTimeout); 3]);
        let mut viewing = store.viewers.take(TenantId(1)).await.unwrap();
        let running: i64 = sqlx::query_scalar(RUNNING).fetch_one(&mut *viewing.db).await.unwrap();
        assert_eq!(running, 0);
        drop(viewing);
        store.close().await;
    }
}
