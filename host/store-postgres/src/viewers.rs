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
