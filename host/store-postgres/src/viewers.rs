//! Reads for viewers: lists, counts, single jobs. They have connections of their own, so that however many people look at however much,
//! jobs are accepted, claimed and settled meanwhile; and each tenant has a share of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connections::{Connections, Taken};
use super::error::Failure;
use carillon_core::job::TenantId;
use carillon_store::StoreError;

/// The most reads of one tenant at once: half of the connections.
const TENANT_READS: usize = 4;

/// The viewers' connections, and who uses them.
#[derive(Debug)]
pub(super) struct Viewers {
    connections: Connections,
    /// The tenants that read, with what each may begin besides.
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl Viewers {
    /// With these connections.
    pub(super) fn new(connections: Connections) -> Self {
        Self { connections, tenants: Mutex::default() }
    }

    /// A connection for a read of a tenant.
    pub(super) async fn take(&self, tenant: TenantId) -> Result<Viewing<'_>, StoreError> {
        let share = self.share(tenant);
        let permit = share.begin(&self.connections).await?;
        let db = self.connections.take().await?;
        Ok(Viewing { db, _permit: permit, _share: share })
    }

    /// Does a read on a connection that was taken.
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

/// A connection that a tenant reads from.
pub(super) struct Viewing<'a> {
    pub(super) db: Taken,
    _permit: OwnedSemaphorePermit,
    _share: Share<'a>,
}

/// A tenant's share, as long as it reads. The last one that has it takes it off the list.
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
        // This one, and the list's.
        if Arc::strong_count(&self.reads) == 2 {
            tenants.remove(&self.tenant);
        }
    }
}
