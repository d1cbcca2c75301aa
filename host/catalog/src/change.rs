//! Changes of an entity for which the client named no version.
//!
//! Each is decided from what is there. Requests of this node wait for each other; if another node was faster, the change is decided again from
//! what that node has written. So equal requests at the same moment never refuse each other: a conflict is for a client that named a
//! version, or for a change that cannot be together with what is there.

use std::sync::Arc;

use super::{Catalog, CatalogError};
use carillon_store::{Entity, PutEntity, StoreError};

/// How often a change is decided again because another node was faster. A node of which many changes wait is faster again and again.
pub(super) const MAX_TRIES: usize = 256;

/// A change, decided from what is there.
pub(super) struct Decision {
    /// What is written before it, unless it is there.
    pub(super) first: Option<PutEntity>,
    /// The change, which expects what it was decided from.
    pub(super) put: PutEntity,
}

impl From<PutEntity> for Decision {
    fn from(put: PutEntity) -> Self {
        Self { first: None, put }
    }
}

impl Catalog {
    /// Writes what `decide` says of what `find` finds.
    pub(super) async fn change<T>(
        &self,
        find: impl Fn() -> Option<Arc<T>>,
        decide: impl Fn(Option<&T>) -> Result<Decision, CatalogError>,
    ) -> Result<Entity, CatalogError> {
        let _changing = self.changing.lock().await;
        let mut refused = None;
        for _ in 0..MAX_TRIES {
            let Decision { first, put } = decide(find().as_deref())?;
            let expect = put.expect;
            if let Some((refused, conflict)) = refused.take()
                && refused == expect
            {
                // Nothing has changed: another node is not the reason.
                return Err(conflict);
            }
            if let Some(first) = first {
                match self.put(first).await {
                    // Another node was faster; it says the same.
                    Ok(_) | Err(CatalogError::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            match self.put(put).await {
                Err(CatalogError::Conflict(text)) => refused = Some((expect, CatalogError::Conflict(text))),
                done => return done,
            }
            self.catch_up().await?;
        }
        Err(busy())
    }
}

/// What is said when the others were faster too often.
pub(super) fn busy() -> CatalogError {
    StoreError::Unavailable("the configuration is changed by other requests all the time".to_owned()).into()
}
