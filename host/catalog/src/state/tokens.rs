//! Tokens in memory, which are found by their secrets, too.

use std::sync::Arc;

use super::CatalogState;
use crate::decode::read;
use crate::entities::Tenant;
use crate::token::{ApiToken, TokenRecord};
use carillon_core::job::TenantId;
use carillon_store::Entity;

impl CatalogState {
    pub(super) fn apply_token(&mut self, entity: Entity) -> anyhow::Result<()> {
        let Some(tenant) = self.tenant_of(&entity) else { return Ok(()) };
        let doc: TokenRecord = read(&entity)?;
        let slot = (tenant.id, entity.name.clone());
        self.forget_token(&slot);
        let token = Arc::new(ApiToken::from_record(doc, entity.name, tenant, entity.created_at, entity.version));
        self.index_token(&token);
        self.tokens.insert(slot, token);
        Ok(())
    }

    /// Lets a token be found by each of its secrets.
    pub(super) fn index_token(&mut self, token: &Arc<ApiToken>) {
        for hash in token.hashes() {
            self.token_hashes.insert(hash.to_owned(), Arc::clone(token));
        }
    }

    /// Removes a token from the index by text; another token may have the same text.
    pub(super) fn forget_token(&mut self, slot: &(TenantId, String)) {
        let Some(token) = self.tokens.remove(slot) else { return };
        for hash in token.hashes() {
            if self.token_hashes.get(hash).is_some_and(|known| known.id == token.id) {
                self.token_hashes.remove(hash);
            }
        }
    }

    /// Applies a change of the tenant to its tokens: each acts for the tenant as it is now.
    pub(super) fn rebuild_tokens(&mut self, tenant: &Arc<Tenant>) {
        let tokens =
            self.tokens.range_mut((tenant.id, String::new())..).take_while(|((owner, _), _)| *owner == tenant.id);
        for (_, token) in tokens {
            *token = Arc::new(token.of_tenant(tenant));
            for hash in token.hashes() {
                self.token_hashes.insert(hash.to_owned(), Arc::clone(token));
            }
        }
    }
}
