//! Taking over what other nodes have configured.

use super::{Catalog, CatalogError};
use carillon_core::clock::Clock;

impl Catalog {
    /// Takes over what other nodes have changed until now; says whether that was anything.
    ///
    /// # Errors
    /// If the store does not answer; then what was known stays in force.
    pub async fn refresh(&self) -> Result<bool, CatalogError> {
        Ok(self.memory.refresh().await?)
    }

    /// The clock that changes are dated by.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Takes over what other nodes have changed until now: for a decision that must not miss it.
    pub(super) async fn catch_up(&self) -> Result<(), CatalogError> {
        self.memory.refresh().await?;
        Ok(())
    }
}
