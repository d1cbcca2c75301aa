//! Refresh of the catalog: loads what other nodes have configured.

use super::{Catalog, CatalogError};
use carillon_core::clock::Clock;

impl Catalog {
    /// Loads the changes of other nodes; returns whether there were any. A decision that must not miss one calls it first.
    ///
    /// # Errors
    /// Returns the store's error; the present state stays in force then.
    pub async fn refresh(&self) -> Result<bool, CatalogError> {
        Ok(self.memory.refresh().await?)
    }

    /// Returns the clock for the times of changes.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}
