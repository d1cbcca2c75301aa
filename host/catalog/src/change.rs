//! Changes of an entity for which the client named no version.
//!
//! Each change is decided from the present entity. Requests on this node wait for each other; if another node was faster, the change is
//! decided again from what that node has written. So equal requests at the same moment never fail because of each other. A conflict is
//! returned only to a client that named a version, or for a change that contradicts the present entity.

use std::sync::Arc;

use super::{Catalog, CatalogError};
use carillon_store::{Entity, PutEntity, StoreError};

/// Maximum number of decisions of a change while other nodes are faster. A node with many waiting changes can be faster again and again.
pub(super) const MAX_TRIES: usize = 256;

/// A change, decided from the present entity.
pub(super) struct Decision {
    /// Write that precedes the change, unless it is stored already.
    pub(super) first: Option<PutEntity>,
    /// Write of the change, which expects the entity from which it was decided.
    pub(super) put: PutEntity,
}

impl From<PutEntity> for Decision {
    fn from(put: PutEntity) -> Self {
        Self { first: None, put }
    }
}

impl Catalog {
    /// Writes the change that `decide` returns for the entity that `find` returns.
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
                // The entity has not changed, so another node is not the reason.
                return Err(conflict);
            }
            if let Some(first) = first {
                match self.put(first).await {
                    // On a conflict, another node has already written the same entity.
                    Ok(_) | Err(CatalogError::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            match self.put(put).await {
                Err(CatalogError::Conflict(text)) => refused = Some((expect, CatalogError::Conflict(text))),
                done => return done,
            }
            self.refresh().await?;
        }
        Err(busy())
    }
}

/// Returns the error for a change for which other nodes were faster too often.
pub(super) fn busy() -> CatalogError {
    StoreError::Unavailable("other requests keep changing the configuration: try again".to_owned()).into()
}
