//! Reads for viewers: lists, counts, single jobs.
//!
//! These reads have connections of their own, so that jobs are accepted, claimed and settled however much is read. Each tenant has a share of
//! the connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connections::{Connections, Taken};
use super::error::Failure;
use carillon_core::job::TenantId;
use carillon_store::StoreError;

/// Largest number of concurrent reads of one tenant: half of the connections.
const TENANT_READS: usize = 4;

/// Connections for viewers, and the tenants that use them.
#[derive(Debug)]
pub(super) struct Viewers {
    connections: Connections,
    /// Tenants that are reading, with the number of reads that each may still begin.
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl Viewers {
    /// Makes viewers with these connections.
    pub(super) fn new(connections: Connections) -> Self {
        Self { connections, tenants: Mutex::default() }
    }

    /// Acquires a connection for a read of a tenant.
    pub(super) async fn take(&self, tenant: TenantId) -> Result<Viewing<'_>, StoreError> {
        let share = self.share(tenant);
        let permit = share.begin(&self.connections).await?;
        let db = self.connections.take().await?;
        Ok(Viewing { db, _permit: permit, _share: share })
    }

    /// Does a read on an acquired connection.
    pub(super) async fn bounded<T>(&self, read: impl Future<Output = Result<T, Failure>>) -> Result<T, StoreError> {
        Ok(self.connections.bounded(read).await?)
    }

    /// Closes the connections.
    pub(super) async fn close(&self) {
        self.connections.close().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Semaphore>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share(&self, tenant: TenantId) -> Share<'_> {
        let reads = self.lock().entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(TENANT_READS))).clone();
        Share { viewers: self, tenant, reads }
    }
}

/// A connection for a read of a tenant.
pub(super) struct Viewing<'a> {
    pub(super) db: Taken,
    _permit: OwnedSemaphorePermit,
    _share: Share<'a>,
}

/// A tenant's share of the connections, for the time of a read.
///
/// The last read of a tenant removes it from the map.
struct Share<'a> {
    viewers: &'a Viewers,
    tenant: TenantId,
    reads: Arc<Semaphore>,
}

impl Share<'_> {
    async fn begin(&self, connections: &Connections) -> Result<OwnedSemaphorePermit, StoreError> {
        let busy = || StoreError::Unavailable("too many reads of this tenant at once".to_owned());
        let permit = timeout(connections.bound(), Arc::clone(&self.reads).acquire_owned()).await;
        permit.map_err(|_| busy())?.map_err(|_| busy())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut tenants = self.viewers.lock();
        // The references of this share and of the map.
        if Arc::strong_count(&self.reads) == 2 {
            tenants.remove(&self.tenant);
        }
    }
}
