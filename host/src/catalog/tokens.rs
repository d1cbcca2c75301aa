//! API tokens in the catalog.

use std::sync::Arc;

use super::entities::TokenDoc;
use super::secrets::{new_token, token_hash};
use super::{AccessRole, ApiToken, Catalog, Rejected, document};
use crate::job::TenantId;
use crate::store::{Expect, Kind};

impl Catalog {
    /// What a token lets its bearer do.
    #[must_use]
    pub fn token(&self, token: &str) -> Option<Arc<ApiToken>> {
        self.state().token_by_hash(&token_hash(token)).cloned()
    }

    /// The tenant's tokens.
    #[must_use]
    pub fn tokens(&self, tenant: TenantId) -> Vec<Arc<ApiToken>> {
        self.state().tokens_of(tenant).cloned().collect()
    }

    /// Makes a token. Its text is returned once and not kept.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn create_token(
        &self,
        tenant: TenantId,
        name: &str,
        role: AccessRole,
        operator: bool,
    ) -> Result<(Arc<ApiToken>, String), Rejected> {
        let token = new_token(&*self.clock);
        let made = self.add_token(tenant, name, role, operator, &token).await?;
        Ok((made, token))
    }

    /// Lets `token`, whose text somebody else has chosen, in.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn add_token(
        &self,
        tenant: TenantId,
        name: &str,
        role: AccessRole,
        operator: bool,
        token: &str,
    ) -> Result<Arc<ApiToken>, Rejected> {
        let mut id = [0; 8];
        self.clock.fill_random(&mut id);
        let id = hex::encode(id);
        let doc = document(&TokenDoc { hash: token_hash(token), name: name.to_owned(), role, operator });
        self.put(self.entity(tenant, Kind::ApiToken, &id, doc, Expect::Nothing)).await?;
        self.token(token).ok_or(Rejected::Gone)
    }

    /// Revokes a token; false if there is none.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn delete_token(&self, tenant: TenantId, id: &str) -> Result<bool, Rejected> {
        self.delete(tenant, Kind::ApiToken, id).await
    }
}
