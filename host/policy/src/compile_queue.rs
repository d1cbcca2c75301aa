//! Queue of uploads in front of the compiler.
//!
//! The compiler may use its whole time limit on each upload. So the uploads of one tenant are compiled one after the other, and those of
//! several tenants in turn: a tenant with one upload waits for at most one upload of each tenant that came before, however many those have
//! queued. The queue is bounded for each tenant, and so is the waiting time; an upload that is turned away may be sent again later.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Sleep;

use super::load_error::LoadError;
use carillon_core::job::TenantId;

/// Maximum number of uploads of one tenant that are being compiled or wait for it.
const MAX_UPLOADS: usize = 16;

/// Uploads of all tenants.
pub(super) struct CompileQueue {
    /// Permits for compilations at the same time.
    compilers: Semaphore,
    /// Every tenant that has ever uploaded something: there are few tenants.
    tenants: Mutex<HashMap<TenantId, Arc<TenantQueue>>>,
}

/// Uploads of one tenant.
pub(super) struct TenantQueue {
    uploads: Semaphore,
    turn: Semaphore,
}

impl CompileQueue {
    /// Makes a queue that allows `compilers` compilations at a time.
    pub(super) fn new(compilers: usize) -> Self {
        Self { compilers: Semaphore::new(compilers), tenants: Mutex::default() }
    }

    /// Returns the tenant's queue.
    pub(super) fn of_tenant(&self, tenant: TenantId) -> Arc<TenantQueue> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            tenants.entry(tenant).or_insert_with(|| {
                Arc::new(TenantQueue { uploads: Semaphore::new(MAX_UPLOADS), turn: Semaphore::new(1) })
            }),
        )
    }

    /// Waits for a compiler. The caller is first in its tenant's queue, so tenants take turns.
    pub(super) async fn compiler(&self, deadline: Pin<&mut Sleep>) -> Result<SemaphorePermit<'_>, LoadError> {
        wait(&self.compilers, deadline).await
    }
}

impl TenantQueue {
    /// Waits until the tenant's earlier uploads have been compiled.
    pub(super) async fn turn(&self, deadline: Pin<&mut Sleep>) -> Result<[SemaphorePermit<'_>; 2], LoadError> {
        let upload = self.uploads.try_acquire();
        let upload = upload.map_err(|_| LoadError::Busy("the tenant has too many uploads in progress".to_owned()))?;
        Ok([upload, wait(&self.turn, deadline).await?])
    }
}

async fn wait<'a>(semaphore: &'a Semaphore, deadline: Pin<&mut Sleep>) -> Result<SemaphorePermit<'a>, LoadError> {
    let busy = || LoadError::Busy("other uploads are being compiled".to_owned());
    tokio::select! {
        biased;
        turn = semaphore.acquire() => turn.map_err(|_| busy()),
        () = deadline => Err(busy()),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_tenant_waits_behind_itself_and_nobody_else_does() {
        let queue = CompileQueue::new(2);
        let (busy, calm) = (queue.of_tenant(TenantId(1)), queue.of_tenant(TenantId(2)));
        let _first = busy.turn(pin!(tokio::time::sleep(LONG))).await.unwrap();
        let _slot = queue.compiler(pin!(tokio::time::sleep(LONG))).await.unwrap();
        let again = queue.of_tenant(TenantId(1));
        let second = again.turn(pin!(tokio::time::sleep(SHORT))).await.map(drop);
        assert!(matches!(second, Err(LoadError::Busy(_))), "it waits as long as it has patience: {second:?}");
        let _other = calm.turn(pin!(tokio::time::sleep(SHORT))).await.unwrap();
        let _slot = queue.compiler(pin!(tokio::time::sleep(SHORT))).await.unwrap();
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let queue = CompileQueue::new(2);
        let uploads = queue.of_tenant(TenantId(1));
        let wait = async || uploads.turn(pin!(tokio::time::sleep(LONG))).await.map(drop);
        let first = uploads.turn(pin!(tokio::time::sleep(LONG))).await.unwrap();
        let mut waiting = futures_util::future::join_all((1..MAX_UPLOADS).map(|_| wait()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let over = wait().await.unwrap_err();
        assert!(over.to_string().contains("too many uploads"), "{over}");
        drop(first);
        assert!(waiting.await.into_iter().all(|turn| turn.is_ok()));
    }
}
